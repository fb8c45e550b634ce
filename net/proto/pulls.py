"""Which ranges of whose chains are asked of whom, until this node has what its peers said they have.

A frontier says how far a peer holds each author's chain without a gap. What is missing here is asked for in ranges,
ascending: one of an author at a time, of one peer, and four of a peer; the next are asked for while what came is
stored. Each range is its author's share of what is missing, so that all chains grow together and what belongs together
comes together. A connection that breaks loses nothing: what came is stored, and the next frontier says the rest
(docs/network.md §4, §5).

Knows numbers, not events: what a range brought is judged by whoever stores it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from net.proto.rhythm import never_ms
from net.proto.values import Head, Link
from wattswarm.kernel.limits import backfill_batch_events

ranges_a_peer_max = 4
range_patience_ms = 10_000
round_events = 1_536
range_events_min, range_events_max = 16, backfill_batch_events
authors_waiting_max = 4_096


@dataclass(frozen=True, slots=True)
class Wanted:
    """Events ``first`` to ``last`` of an author's chain."""

    author: bytes
    first: int
    last: int


@dataclass(slots=True)
class _Course:
    """What a peer is being asked of one chain: ``wanted``, if that has not come yet, which is late at ``due_ms``.

    ``brought``: events that came of it. ``storing``: how many ranges came before and are not stored yet. ``next``: from
    which seq on the next may be asked for; None: not before it is known what is stored.
    """

    wanted: Wanted | None
    due_ms: int
    brought: int = 0
    storing: int = 0
    next: int | None = None


@dataclass(slots=True)
class _Peer:
    waiting: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    under_way: dict[bytes, _Course] = field(default_factory=dict)
    broken: set[bytes] = field(default_factory=set)


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
        """The peer's frontier, or a part of it: (author, seq, first bytes of the id there).

        Where its event is another one than the one here, ranges do not help: the comparison that follows them does.
        """
        for author, seq, _ in entries:
            self.missing(link, author, seq)

    def missing(self, link: Link, author: bytes, seq: int) -> None:
        """The peer holds the author's chain up to ``seq``: what of it is not here is asked for."""
        peer, here = self._peers[link], self.chains.get(author)
        room = len(peer.waiting) < authors_waiting_max or author in peer.waiting
        if room and (here is None or here[0] < seq):
            peer.waiting[author] = max(seq, peer.waiting.get(author, -1))

    def next(self, link: Link, now_ms: int) -> list[Wanted]:
        """What to ask the peer for now. Each is under way until ``came``, ``failed`` or its time is up."""
        peer = self._peers[link]
        room = ranges_a_peer_max - sum(course.wanted is not None for course in peer.under_way.values())
        missing = self._missing(peer) if room > 0 else {}
        total = sum(last - first + 1 for first, last in missing.values())
        found: list[Wanted] = []
        for author, (here, last) in missing.items():
            if len(found) == room:
                break
            course = peer.under_way.get(author)
            first = here if course is None else course.next
            if first is None or first > last or not self._may_ask(link, author):
                continue
            share = (last - here + 1) * round_events // total
            wanted = Wanted(author, first, min(last, first + max(range_events_min, min(share, range_events_max)) - 1))
            storing = 0 if course is None else course.storing
            peer.under_way[author] = _Course(wanted, now_ms + range_patience_ms, storing=storing)
            peer.waiting.move_to_end(author)
            self._taken[author] = link
            found.append(wanted)
        return found

    def _may_ask(self, link: Link, author: bytes) -> bool:
        peer = self._peers[link]
        return self._taken.get(author, link) == link and not (author in peer.broken and self._others_have(author))

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
        course = peer.under_way.get(author) if peer is not None else None
        return course.wanted if course is not None else None

    def brought(self, link: Link, author: bytes, events: int, *, more: bool) -> None:
        """A part of what is under way came, and is being stored; the last one unless there is ``more``."""
        course = self._peers[link].under_way[author]
        assert course.wanted is not None, "who asks has seen that it is under way"
        course.brought += events
        if not more:
            whole = course.brought == course.wanted.last - course.wanted.first + 1
            course.next = course.wanted.last + 1 if whole else None
            course.wanted = None
            course.storing += 1

    def came(self, link: Link, author: bytes) -> None:
        """A range of the author's is stored as far as it came."""
        peer = self._peers.get(link)
        course = peer.under_way.get(author) if peer is not None else None
        if course is None:
            return
        course.storing -= 1
        if course.storing <= 0 and course.wanted is None:
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

    def _over(self, link: Link, author: bytes) -> None:
        peer = self._peers.get(link)
        if peer is not None and peer.under_way.pop(author, None) is not None:
            del self._taken[author]

    def late(self, now_ms: int) -> list[tuple[Link, bytes]]:
        """Ranges that did not come in time."""
        if not self._taken:
            return []
        return [
            (link, author)
            for link, peer in self._peers.items()
            for author, course in peer.under_way.items()
            if course.wanted is not None and course.due_ms <= now_ms
        ]

    def next_ms(self) -> int:
        """When the next range is late."""
        if not self._taken:
            return never_ms
        courses = (course for peer in self._peers.values() for course in peer.under_way.values())
        return min((course.due_ms for course in courses if course.wanted is not None), default=never_ms)

    def idle(self, link: Link) -> bool:
        """Whether nothing is to be asked of the peer any more."""
        peer = self._peers[link]
        return not peer.waiting and not peer.under_way
