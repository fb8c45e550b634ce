"""Certificates between two nodes: announced by their ids, asked for, served; and bundles that prove a decision.

They prove themselves, so whoever has one may give it to whoever asks (docs/network.md §4, §5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from net.proto import message as m
from net.proto.hands import Hands, portions
from net.proto.items import Items
from net.proto.peer import Peer
from net.proto.values import BundleOf, CertificatesOf, Ingested, Set, decisions_set, ruling_set


class Certificates:
    """The part of the exchange that is about certificates. ``settled``: told when a peer's certificates are in."""

    def __init__(self, hands: Hands, sets: Mapping[Set, Items], settled: Callable[[Peer], None]) -> None:
        self._hands = hands
        self._sets = sets
        self._settled = settled

    def announce(self, peer: Peer, ids: Sequence[bytes]) -> None:
        """Tell a peer that these are here."""
        for portion in portions(ids, m.ids_max):
            self._hands.send(peer, m.CertIds(portion))

    def fetch(self, peer: Peer, ids: Sequence[bytes]) -> None:
        """Ask a peer for certificates that it says it has."""
        for portion in portions(ids, m.ids_max):
            peer.certificates_awaited += len(portion)
            self._hands.send(peer, m.CertGet(portion))

    def on_cert_ids(self, peer: Peer, said: m.CertIds, now_ms: int) -> None:
        """Certificates that the peer holds: those that are not here are asked for."""
        if peer.reads_only or not peer.budget.take("haves", 1, now_ms):
            return
        sets = (self._sets[ruling_set], self._sets[decisions_set])
        missing = [one for one in said.ids if not any((0, one) in items for items in sets)]
        self.fetch(peer, missing)

    def on_cert_get(self, peer: Peer, said: m.CertGet, now_ms: int) -> None:
        """Serve certificates: all that frames carry, and an empty one if there is none of them."""
        peer.served_ms = now_ms

        def then(wires: Sequence[bytes], _now_ms: int) -> None:
            for portion in _by_size(wires) or [()]:
                self._hands.send(peer, m.Cert(portion))

        self._hands.ask(CertificatesOf(said.ids), then)

    def on_cert(self, peer: Peer, said: m.Cert, now_ms: int) -> None:
        """Certificates, which prove themselves."""
        asked = peer.certificates_awaited > 0
        peer.certificates_awaited = max(0, peer.certificates_awaited - max(1, len(said.certificates)))
        size = sum(map(len, said.certificates))
        if not asked and not peer.budget.take("bytes", size, now_ms):
            return

        def then(done: Ingested, now_ms: int) -> None:
            if done.bad:
                self._hands.blame(peer, "bad_signature", now_ms)
            elif peer.link in self._hands.peers:
                self._settled(peer)

        self._hands.ingest((), said.certificates, asked, then)

    def on_proof_get(self, peer: Peer, said: m.ProofGet, _now_ms: int) -> None:
        """Prove a decision to whoever asks, with all that it takes."""

        def then(bundle: bytes | None, _now_ms: int) -> None:
            fits = bundle if bundle is not None and len(bundle) <= m.blob_bytes_max else None
            self._hands.send(peer, m.Proof(said.task, said.epoch, fits))

        self._hands.ask(BundleOf(said.task, said.epoch), then)


def _by_size(wires: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """Certificates in the portions that frames carry."""
    portions: list[tuple[bytes, ...]] = []
    portion: list[bytes] = []
    size = 0
    for wire in wires:
        if portion and (len(portion) == m.certificates_max or size + len(wire) + 8 > m.blob_bytes_max):
            portions.append(tuple(portion))
            portion, size = [], 0
        portion.append(wire)
        size += len(wire) + 8
    return [*portions, tuple(portion)] if portion else portions
