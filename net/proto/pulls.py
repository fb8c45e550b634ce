"""Which ranges of whose chains are asked of whom, until this node has what its peers said they have.

A frontier says how far a peer holds each author's chain without a gap. What is missing here is asked for in ranges,
ascending; one range of an author is under way at a time, whoever is asked, and four of a peer on the wire: the next are
asked for while what came is stored. Each range is its author's share of what is missing, so that all chains grow
together and what belongs together comes together. A connection that breaks loses nothing: what came is stored, and the
next frontier says the rest (docs/network.md §4, §5).

Knows numbers, not events: what a range brought is judged by whoever stores it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from net.proto.values import Head, Link
from wattswarm.kernel.limits import backfill_batch_events

ranges_a_peer_max = 4
range_patience_ms = 10_000
round_events = 3_072
range_events_min, range_events_max = 16, backfill_batch_events
authors_waiting_max = 4_096


@dataclass(frozen=True, slots=True)
class Wanted:
    """Events ``first`` to ``last`` of an author's chain."""

    author: bytes
    first: int
    last: int


@dataclass(slots=True)
class _Peer:
    """``under_way``: what was asked for, and when it is late; None: it came, and is being stored."""

    waiting: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    under_way: dict[bytes, tuple[Wanted, int | None]] = field(default_factory=dict)
    broken: set[bytes] = field(default_factory=set)
    differs: bool = False


class Pulls:
    """Every peer's part of what is missing here. ``chains``: this node's own frontier, which others keep up to date."""

    def __init__(self, chains: Mapping[bytes, Head]) -> None:
        self.chains = chains
        self._peers: dict[Link, _Peer] = {}
        self._taken: dict[bytes, Link] = {}

    def joined(self, link: Link) -> None:
        """A peer that may be asked."""
        self._peers[link] = _Peer()

    def left(self, link: Link) -> None:
        """The peer is gone, with all it was asked."""
        peer = self._peers.pop(link, None)
        for author in peer.under_way if peer is not None else ():
            del self._taken[author]

    def told(self, link: Link, entries: Iterable[tuple[bytes, int, bytes]]) -> None:
        """The peer's frontier, or a part of it: (author, seq, id of the event there)."""
        peer = self._peers[link]
        for author, seq, head in entries:
            here = self.chains.get(author)
            if here is None or here[0] < seq:
                if len(peer.waiting) < authors_waiting_max or author in peer.waiting:
                    peer.waiting[author] = max(seq, peer.waiting.get(author, -1))
            elif here[0] == seq and here[1] != head:
                peer.differs = True

    def missing(self, link: Link, author: bytes, seq: int) -> None:
        """An event of the peer's came whose predecessors, up to ``seq``, are not here."""
        self.told(link, ((author, seq, b""),))

    def next(self, link: Link, now_ms: int) -> list[Wanted]:
        """What to ask the peer for now. Each is under way until ``came``, ``failed`` or its time is up."""
        peer = self._peers[link]
        room = ranges_a_peer_max - sum(due_ms is not None for _, due_ms in peer.under_way.values())
        missing = self._missing(peer) if room > 0 else {}
        total = sum(last - first + 1 for first, last in missing.values())
        found: list[Wanted] = []
        for author, (first, last) in missing.items():
            if len(found) == room:
                break
            if author in self._taken or (author in peer.broken and self._others_have(author)):
                continue
            share = (last - first + 1) * round_events // total
            wanted = Wanted(author, first, min(last, first + max(range_events_min, min(share, range_events_max)) - 1))
            peer.under_way[author] = (wanted, now_ms + range_patience_ms)
            peer.waiting.move_to_end(author)
            self._taken[author] = link
            found.append(wanted)
        return found

    def _missing(self, peer: _Peer) -> dict[bytes, tuple[int, int]]:
        """The first and last seq of what the peer has of each chain beyond this node's; who has no more is let off."""
        found: dict[bytes, tuple[int, int]] = {}
        for author, last in list(peer.waiting.items()):
            here = self.chains.get(author)
            first = 0 if here is None else here[0] + 1
            if first <= last:
                found[author] = first, last
            elif author not in self._taken:
                del peer.waiting[author]
        return found

    def _others_have(self, author: bytes) -> bool:
        """Whether somebody said to have more of the chain who has not broken such a promise."""
        return any(author in peer.waiting and author not in peer.broken for peer in self._peers.values())

    def under_way(self, link: Link, author: bytes) -> Wanted | None:
        """What the peer still has to send of what it was asked about this author, if anything is."""
        peer = self._peers.get(link)
        found = peer.under_way.get(author) if peer is not None else None
        return found[0] if found is not None and found[1] is not None else None

    def arrived(self, link: Link, author: bytes) -> None:
        """All of what was asked for has come, and is being stored."""
        peer = self._peers[link]
        peer.under_way[author] = (peer.under_way[author][0], None)

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
        """Ranges that did not come in time."""
        return [
            (link, author)
            for link, peer in self._peers.items()
            for author, (_, due_ms) in peer.under_way.items()
            if due_ms is not None and due_ms <= now_ms
        ]

    def next_ms(self) -> int | None:
        """When the next range is late."""
        dues = (due_ms for peer in self._peers.values() for _, due_ms in peer.under_way.values())
        return min((due_ms for due_ms in dues if due_ms is not None), default=None)

    def idle(self, link: Link) -> bool:
        """Whether nothing is to be asked of the peer any more."""
        peer = self._peers[link]
        return not peer.waiting and not peer.under_way

    def differs(self, link: Link) -> bool:
        """Whether its frontier showed something that ranges do not mend: a fork, or a claim that was not kept."""
        return self._peers[link].differs
