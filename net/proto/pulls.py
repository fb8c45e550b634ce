"""Which ranges of whose chains are asked of whom, until this node has what its peers said they have.

A frontier says how far a peer holds each author's chain without a gap. What is missing here is asked for in ranges,
ascending; one range of an author is under way at a time, whoever is asked, and four of a peer. A connection that
breaks loses nothing: what came is stored, and the next frontier says the rest (docs/network.md §4, §5).

Knows numbers, not events: what a range brought is judged by whoever stores it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from net.proto.message import prefix_bytes
from net.proto.rhythm import soonest
from net.proto.values import Head, Link
from wattswarm.kernel.limits import backfill_batch_events

ranges_a_peer_max = 4
range_patience_ms = 10_000
authors_waiting_max = 4_096


@dataclass(frozen=True, slots=True)
class Wanted:
    """Events ``first`` to ``last`` of an author's chain."""

    author: bytes
    first: int
    last: int


@dataclass(slots=True)
class _Peer:
    waiting: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    under_way: dict[bytes, tuple[Wanted, int]] = field(default_factory=dict)
    broken: set[bytes] = field(default_factory=set)
    differs: bool = False


class Pulls:
    """Every peer's part of what is missing here. ``chains``: this node's own frontier, which others keep up to date."""

    def __init__(self, chains: Mapping[bytes, Head]) -> None:
        self.chains = chains
        self._peers: dict[Link, _Peer] = {}
        self._taken: dict[bytes, Link] = {}
        self._late_ms: int | None = None

    def joined(self, link: Link) -> None:
        """A peer that may be asked."""
        self._peers[link] = _Peer()

    def left(self, link: Link) -> None:
        """The peer is gone, with all it was asked."""
        peer = self._peers.pop(link, None)
        for author in peer.under_way if peer is not None else ():
            del self._taken[author]

    def told(self, link: Link, entries: Iterable[tuple[bytes, int, bytes]]) -> None:
        """The peer's frontier, or a part of it: (author, seq, first bytes of the id there)."""
        peer = self._peers[link]
        for author, seq, prefix in entries:
            self.missing(link, author, seq)
            here = self.chains.get(author)
            if here is not None and here[0] == seq and here[1][:prefix_bytes] != prefix:
                peer.differs = True

    def missing(self, link: Link, author: bytes, seq: int) -> None:
        """The peer holds the author's chain up to ``seq``: what of it is not here is asked for."""
        peer, here = self._peers[link], self.chains.get(author)
        room = len(peer.waiting) < authors_waiting_max or author in peer.waiting
        if room and (here is None or here[0] < seq):
            peer.waiting[author] = max(seq, peer.waiting.get(author, -1))

    def next(self, link: Link, now_ms: int) -> list[Wanted]:
        """What to ask the peer for now. Each is under way until ``came``, ``failed`` or its time is up."""
        peer = self._peers[link]
        found: list[Wanted] = []
        for author, last in list(peer.waiting.items()):
            if len(peer.under_way) >= ranges_a_peer_max:
                break
            if author in self._taken or (author in peer.broken and self._others_have(author)):
                continue
            here = self.chains.get(author)
            first = 0 if here is None else here[0] + 1
            if first > last:
                del peer.waiting[author]
                continue
            wanted = Wanted(author, first, min(last, first + backfill_batch_events - 1))
            peer.under_way[author] = (wanted, now_ms + range_patience_ms)
            self._late_ms = soonest(self._late_ms, now_ms + range_patience_ms)
            self._taken[author] = link
            found.append(wanted)
        return found

    def _others_have(self, author: bytes) -> bool:
        """Whether somebody said to have more of the chain who has not broken such a promise."""
        return any(author in peer.waiting and author not in peer.broken for peer in self._peers.values())

    def under_way(self, link: Link, author: bytes) -> Wanted | None:
        """What was asked of the peer about this author, if anything is."""
        peer = self._peers.get(link)
        found = peer.under_way.get(author) if peer is not None else None
        return found[0] if found is not None else None

    def came(self, link: Link, author: bytes) -> None:
        """What was asked about the author is stored as far as it came."""
        self._over(link, author)

    def failed(self, link: Link, author: bytes) -> None:
        """The peer does not have what it said, or what it gave is not the chain that is here: it is not asked again.

        If it says so again, it is asked where nobody else is left to ask.
        """
        self._over(link, author)
        peer = self._peers.get(link)
        if peer is not None:
            peer.waiting.pop(author, None)
            if len(peer.broken) < authors_waiting_max:
                peer.broken.add(author)
            peer.differs = True

    def _over(self, link: Link, author: bytes) -> None:
        peer = self._peers.get(link)
        if peer is not None and peer.under_way.pop(author, None) is not None:
            del self._taken[author]

    def late(self, now_ms: int) -> list[tuple[Link, bytes]]:
        """Ranges that did not come in time: told once, and over then."""
        if self._late_ms is None or now_ms < self._late_ms:
            return []
        under_way = [
            (link, author, due_ms)
            for link, peer in self._peers.items()
            for author, (_, due_ms) in peer.under_way.items()
        ]
        late = [(link, author) for link, author, due_ms in under_way if due_ms <= now_ms]
        for link, author in late:
            self.failed(link, author)
        self._late_ms = soonest(*(due_ms for _, _, due_ms in under_way if due_ms > now_ms))
        return late

    def next_ms(self) -> int | None:
        """When a range may be late, at the earliest."""
        return self._late_ms

    def idle(self, link: Link) -> bool:
        """Whether nothing is to be asked of the peer any more."""
        peer = self._peers[link]
        return not peer.waiting and not peer.under_way

    def differs(self, link: Link) -> bool:
        """Whether its frontier showed something that ranges do not mend: a fork, or a claim that was not kept."""
        return self._peers[link].differs
