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
from wattswarm.kernel.certificate import signatures_in

wanted_a_peer_max = 1 << 17


class Certificates:
    """The part of the exchange that is about certificates. ``settled``: told when a peer's certificates are in."""

    def __init__(self, hands: Hands, sets: Mapping[Set, Items], settled: Callable[[Peer, int], None]) -> None:
        self._hands = hands
        self._sets = sets
        self._settled = settled

    def announce(self, peer: Peer, ids: Sequence[bytes]) -> None:
        """Tell a peer that these are here."""
        for portion in portions(ids, m.ids_max):
            self._hands.send(peer, m.CertIds(portion))

    def fetch(self, peer: Peer, ids: Sequence[bytes]) -> None:
        """Ask a peer for certificates that it says it has, a few at a time."""
        room = wanted_a_peer_max - len(peer.wanted_certificates)
        peer.wanted_certificates.extend(ids[:room])
        self._ask(peer)

    def _ask(self, peer: Peer) -> None:
        if peer.asked_certificates or not peer.wanted_certificates:
            return
        count = min(m.certificates_max, len(peer.wanted_certificates))
        peer.asked_certificates = tuple(peer.wanted_certificates.popleft() for _ in range(count))
        self._hands.send(peer, m.CertGet(peer.asked_certificates))

    def _lacks(self, certificate_id: bytes) -> bool:
        return not any((0, certificate_id) in self._sets[which] for which in (ruling_set, decisions_set))

    def on_cert_ids(self, peer: Peer, said: m.CertIds, now_ms: int) -> None:
        """Certificates that the peer holds: those that are not here are asked for."""
        if peer.budget.take("haves", 1, now_ms):
            self.fetch(peer, [one for one in said.ids if self._lacks(one)])

    def on_cert_get(self, peer: Peer, said: m.CertGet, now_ms: int) -> None:
        """Serve certificates: as many as a frame carries, so that every question has one answer."""
        peer.served_ms = now_ms

        def then(wires: Sequence[bytes], _now_ms: int) -> None:
            self._hands.send(peer, m.Cert(_in_a_frame(wires)))

        self._hands.ask_for(peer, CertificatesOf(said.ids), then)

    def on_cert(self, peer: Peer, said: m.Cert, now_ms: int) -> None:
        """Certificates, which prove themselves. What did not fit into the answer is asked for again, while it helps."""
        asked = peer.asked_certificates
        size, checks = sum(map(len, said.certificates)), sum(map(signatures_in, said.certificates))
        if not asked and not (peer.budget.take("bytes", size, now_ms) and peer.budget.take("checks", checks, now_ms)):
            return

        def then(done: Ingested, now_ms: int) -> None:
            if done.bad:
                self._hands.blame(peer, "bad_signature", now_ms)
            if peer.link not in self._hands.peers:
                return
            if peer.asked_certificates is asked:
                peer.asked_certificates = ()
                left = [one for one in asked if self._lacks(one)]
                if len(left) < len(asked):
                    peer.wanted_certificates.extendleft(reversed(left))
                self._ask(peer)
            if not peer.asked_certificates:
                self._settled(peer, now_ms)

        self._hands.ingest((), said.certificates, bool(asked), then)

    def on_proof_get(self, peer: Peer, said: m.ProofGet, _now_ms: int) -> None:
        """Prove a decision to whoever asks, with all that it takes."""

        def then(bundle: bytes | None, _now_ms: int) -> None:
            fits = bundle if bundle is not None and len(bundle) <= m.blob_bytes_max else None
            self._hands.send(peer, m.Proof(said.task, said.epoch, fits))

        self._hands.ask_for(peer, BundleOf(said.task, said.epoch), then)


def _in_a_frame(wires: Sequence[bytes]) -> tuple[bytes, ...]:
    portion: list[bytes] = []
    size = 0
    for wire in wires[: m.certificates_max]:
        size += len(wire) + 8
        if size > m.blob_bytes_max:
            break
        portion.append(wire)
    return tuple(portion)
