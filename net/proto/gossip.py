"""Who gets a new event whole, and who only its id: Plumtree over a node's links (Leitão, Pereira, Rodrigues, 2007).

An event is pushed on eager links and announced on lazy ones. Pushes that bring nothing new make their link lazy; an
announcement that had to be followed makes its link eager again. So the eager links grow into a tree, each node gets
about one copy, and the lazy ones mend the tree where it breaks. What gossip loses, reconciliation finds: nothing here
is needed for correctness, and everything is bounded (docs/network.md §5).

Knows links and ids; neither frames nor the log.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from net.proto.rhythm import never_ms
from net.proto.values import Link

ids_met_max = 8_192
ids_awaited_max = 16_384
announcers_max = 4
push_chance_ms = 60
want_patience_ms = 500
promise_patience_ms = 10_000
owed_max = 4_096
needless_max = 5
announce_every_ms = 100


@dataclass(slots=True)
class _Awaited:
    """An id that was announced and has not come: who has it, whom it was asked of, until when."""

    announcers: list[Link]
    due_ms: int = 0
    asked: Link | None = None


@dataclass(slots=True)
class _Debt:
    """What a link was asked for, and when; whether it brought any of it since ``since_ms``."""

    since_ms: int
    asked_ms: dict[bytes, int] = field(default_factory=dict)
    brought: bool = False


@dataclass(slots=True)
class Due:
    """What the clock brought: ids to ask a link for, how many promises a link has not kept, ids to announce."""

    want: dict[Link, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    broken: dict[Link, int] = field(default_factory=dict)
    have: dict[Link, list[bytes]] = field(default_factory=dict)


class Gossip:
    """The links of one node as eager and lazy, and the ids that it met lately. ``received``: events that came, with
    repetitions."""

    def __init__(self) -> None:
        self.received = 0
        self.eager: set[Link] = set()
        self.lazy: set[Link] = set()
        self.readers: set[Link] = set()
        self._met: OrderedDict[bytes, set[Link]] = OrderedDict()
        self._awaited: OrderedDict[bytes, _Awaited] = OrderedDict()
        self._debts: dict[Link, _Debt] = {}
        self._needless: dict[Link, int] = {}
        self._call_in_ms = 0
        self._untold: dict[Link, list[bytes]] = defaultdict(list)
        self._reminders: list[tuple[int, int, bytes]] = []
        self._reminded = 0
        self._tell_at_ms = never_ms

    def sizes(self) -> tuple[int, int]:
        """How many ids it remembers, and how many of events that were announced and have not come."""
        return len(self._met), len(self._awaited)

    # -- links ------------------------------------------------------------------------------------------------------

    def joined(self, link: Link, *, eager: bool) -> None:
        """A link that events may travel on."""
        self.readers.discard(link)
        (self.eager if eager else self.lazy).add(link)

    def reads(self, link: Link) -> None:
        """A link to who only reads: it is told of everything, and asks for what it wants."""
        self.readers.add(link)

    def left(self, link: Link, now_ms: int) -> int:
        """The link is gone; what it promised is asked of others. How many promises it leaves broken behind.

        (``_met`` may keep it: links have no second life.)
        """
        self.eager.discard(link)
        self.lazy.discard(link)
        self.readers.discard(link)
        self._untold.pop(link, None)
        self._needless.pop(link, None)
        debt = self._debts.pop(link, None)
        for event_id, awaited in self._awaited.items():
            if link in awaited.announcers:
                awaited.announcers.remove(link)
            if awaited.asked == link:
                awaited.asked = None
                self._remind(event_id, awaited, 0)
        if debt is None or debt.brought:
            return 0
        return sum(at_ms + want_patience_ms <= now_ms for at_ms in debt.asked_ms.values())

    def make_lazy(self, link: Link) -> None:
        """The other end has enough of pushes (PRUNE), or its pushes brought nothing new."""
        self._needless.pop(link, None)
        if link in self.eager:
            self.eager.remove(link)
            self.lazy.add(link)

    def make_eager(self, link: Link) -> None:
        """The other end misses pushes (GRAFT), or its announcement had to be followed."""
        if link in self.lazy:
            self.lazy.remove(link)
            self.eager.add(link)

    # -- ids --------------------------------------------------------------------------------------------------------

    def came(self, link: Link, ids: Iterable[bytes]) -> tuple[list[bytes], bool]:
        """Events came from ``link``: those not met before, and whether its pushes are needless by now.

        An author's own push to everybody makes others' pushes of that event needless, which says nothing about other
        authors: a link's are needless once they were so five times more than not.
        """
        fresh: list[bytes] = []
        needless = self._needless.get(link, 0)
        for event_id in ids:
            self.received += 1
            owed = self._pay(link, event_id)
            links = self._met.get(event_id)
            if links is None:
                fresh.append(event_id)
                self._meet(event_id).add(link)
                needless = max(0, needless - 1)
            else:
                needless += not owed
                links.add(link)
            self._awaited.pop(event_id, None)
        self._needless[link] = needless
        return fresh, needless >= needless_max

    def asked(self, link: Link, ids: Iterable[bytes]) -> bool:
        """Whether all of these were asked of the link, be it that others were asked since."""
        debt = self._debts.get(link)
        return debt is not None and all(event_id in debt.asked_ms for event_id in ids)

    def _pay(self, link: Link, event_id: bytes) -> bool:
        """``link`` brought this. Whether it was asked to."""
        debt = self._debts.get(link)
        if debt is None or debt.asked_ms.pop(event_id, None) is None:
            return False
        debt.brought = True
        return True

    def lost(self, ids: Iterable[bytes]) -> None:
        """These events came but were not stored: they have not been met."""
        for event_id in ids:
            self._met.pop(event_id, None)

    def told(self, link: Link, ids: Iterable[bytes]) -> list[bytes]:
        """``link`` announced these: those that nobody has met or awaits, which the log should be asked about."""
        unknown: list[bytes] = []
        for event_id in ids:
            links = self._met.get(event_id)
            if links is not None:
                links.add(link)
            elif not self._promise(event_id, link):
                unknown.append(event_id)
        return unknown

    def _promise(self, event_id: bytes, link: Link) -> bool:
        awaited = self._awaited.get(event_id)
        if awaited is None:
            return False
        if link not in awaited.announcers and len(awaited.announcers) < announcers_max:
            awaited.announcers.append(link)
        return True

    def lacks(self, link: Link, ids: Iterable[bytes], now_ms: int) -> None:
        """The log has none of these, which ``link`` announced: wait a moment for a push, then ask.

        When as many are awaited as may be, no more are: else a flood would push out its own promises unbroken.
        """
        for event_id in ids:
            if event_id in self._met or self._promise(event_id, link) or len(self._awaited) >= ids_awaited_max:
                continue
            awaited = self._awaited[event_id] = _Awaited([link])
            self._remind(event_id, awaited, now_ms + push_chance_ms)

    def has(self, ids: Iterable[bytes]) -> None:
        """The log holds these: announcements of them are old news."""
        for event_id in ids:
            self._meet(event_id)

    def _remind(self, event_id: bytes, awaited: _Awaited, due_ms: int) -> None:
        """What is due at one time comes in the order it was noted in: as announced, so chains stay in line."""
        awaited.due_ms = due_ms
        self._reminded += 1
        heappush(self._reminders, (due_ms, self._reminded, event_id))

    # -- what goes out ----------------------------------------------------------------------------------------------

    def spread(self, ids: Iterable[bytes], now_ms: int, *, own: bool, repaired: bool) -> dict[Link, list[bytes]]:
        """The log has these now: per link what to push. Lazy links are told in a moment.

        ``own``: nobody else can have them, so everybody gets them whole. ``repaired``: they are no news, so everybody
        is only told.
        """
        push: dict[Link, list[bytes]] = defaultdict(list)
        whole = self.eager | self.lazy if own else set() if repaired else self.eager
        told = (self.eager | self.lazy | self.readers) - whole
        for event_id in ids:
            holders = self._meet(event_id)
            for link in whole - holders:
                push[link].append(event_id)
            for link in told - holders:
                self._untold[link].append(event_id)
            holders |= whole
        if self._tell_at_ms == never_ms and any(self._untold.values()):
            self._tell_at_ms = now_ms + announce_every_ms
        return push

    def _meet(self, event_id: bytes) -> set[Link]:
        holders = self._met.get(event_id)
        if holders is None:
            while len(self._met) >= ids_met_max:
                self._met.popitem(last=False)
            holders = self._met[event_id] = set()
        return holders

    # -- time -------------------------------------------------------------------------------------------------------

    def next_ms(self) -> int:
        """When ``due`` has something, at the earliest."""
        next_ms = self._tell_at_ms
        if self._debts and self._call_in_ms < next_ms:
            next_ms = self._call_in_ms
        if self._reminders and self._reminders[0][0] < next_ms:
            next_ms = self._reminders[0][0]
        return next_ms

    def due(self, now_ms: int) -> Due:
        """What the clock brought. Who is asked for an id becomes eager: its announcement was the better way."""
        found = Due()
        while self._reminders and self._reminders[0][0] <= now_ms:
            due_ms, _, event_id = heappop(self._reminders)
            awaited = self._awaited.get(event_id)
            if awaited is not None and awaited.due_ms == due_ms:
                self._ask(event_id, awaited, now_ms, found)
        if self._tell_at_ms <= now_ms:
            self._tell_at_ms = never_ms
            untold = ((link, self._unheard(link, ids)) for link, ids in self._untold.items())
            found.have = {link: ids for link, ids in untold if ids}
            self._untold = defaultdict(list)
        if self._debts and self._call_in_ms <= now_ms:
            for link in list(self._debts):
                self._call_in(link, now_ms, found)
            since_ms = min((debt.since_ms for debt in self._debts.values()), default=now_ms)
            self._call_in_ms = since_ms + promise_patience_ms
        return found

    def _unheard(self, link: Link, ids: list[bytes]) -> list[bytes]:
        """Those that the link's other end has not sent or announced meanwhile."""
        return [event_id for event_id in ids if link not in self._met.get(event_id, ())]

    def _ask(self, event_id: bytes, awaited: _Awaited, now_ms: int, found: Due) -> None:
        awaited.asked = None
        if not awaited.announcers:
            del self._awaited[event_id]
            return
        link = next((one for one in awaited.announcers if self._owes(one) < owed_max), None)
        if link is not None:
            awaited.announcers.remove(link)
            awaited.asked = link
            call_in_ms = now_ms + promise_patience_ms
            self._call_in_ms = min(self._call_in_ms, call_in_ms) if self._debts else call_in_ms
            self._debts.setdefault(link, _Debt(now_ms)).asked_ms[event_id] = now_ms
            found.want[link].append(event_id)
        self._remind(event_id, awaited, now_ms + want_patience_ms)

    def _owes(self, link: Link) -> int:
        debt = self._debts.get(link)
        return len(debt.asked_ms) if debt is not None else 0

    def _call_in(self, link: Link, now_ms: int, found: Due) -> None:
        """Look at what a link owes. Who is slow is no liar: a promise is broken when for long nothing at all came of
        what the link was asked for; what it still owes while other things come is let off."""
        debt = self._debts[link]
        if now_ms < debt.since_ms + promise_patience_ms:
            return
        old = [event_id for event_id, at_ms in debt.asked_ms.items() if at_ms + promise_patience_ms <= now_ms]
        if old and not debt.brought:
            found.broken[link] = len(debt.asked_ms)
            old = list(debt.asked_ms)
        for event_id in old:
            del debt.asked_ms[event_id]
        debt.since_ms, debt.brought = now_ms, False
        if not debt.asked_ms:
            del self._debts[link]
