"""The autopilot of all open tasks: it follows the log's news and lets each task that needs this node have its turns.

A task waits outside: only tasks with something to do now take one of a bounded number of turns, the oldest first, and
only those that an executor works for hold a place at it. So a thousand tasks that wait cost nothing, and a slow
executor keeps no decision from being signed. Everything is found again on the log after a restart. One task's error
is reported and tried again later, and is nobody else's. Knows no HTTP, no SQL, and no network.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

import trio

from sel.authoring import ClockAhead
from sel.errors import StoreUnavailable
from sel.log import Log
from sel.news import Changed, Mark, TaskLine
from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.autopilot import Driver
from wattswarm.runtime.staff import Choice

_log = logging.getLogger(__name__)
turns_max = 96
"""How many tasks have a turn at one time; more than all executors' places together should be."""
views_kept_max = 256
"""With more tasks than that, those that wait are read again when their time comes."""
poll_s = 10.0
"""How long a lost notice may go unnoticed."""
nap_s_max = 300.0
"""The host's clock may jump while a task waits for a time: it is looked at this often."""
back_off_s = (1.0, 2.0, 5.0, 15.0, 60.0)

Duty = Callable[[], Awaitable[None]]
"""Something else to see to: called at the start, when something arrived on the log, and every ``poll_s``."""


class Source(Protocol):
    """Where news of the log come from."""

    def listen(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[str]]: ...
    async def recover(self) -> None: ...
    async def open_tasks(self) -> tuple[Mark, list[TaskLine]]: ...
    async def changed(self, since: Mark) -> Changed: ...


class Workers(Protocol):
    """Who is asked to work. ``changed`` and ``freed`` are set by the crew, to be called when there is more to ask."""

    changed: Callable[[], None]
    freed: Callable[[], None]

    async def serve(self) -> None: ...
    def choose(self, task_type: str) -> Choice: ...
    def take(self, choice: Choice) -> None: ...
    def give_back(self, choice: Choice) -> None: ...


class _Turns:
    """A bounded number of turns; of those that wait, the one with the lowest number is next."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[int, trio.Event]] = []

    def ask(self, number: int) -> trio.Event:
        """A ticket: it is set when the turn has come."""
        ticket = trio.Event()
        if self._free:
            self._free -= 1
            ticket.set()
        else:
            heappush(self._waiting, (number, ticket))
        return ticket

    def end(self) -> None:
        """A turn is over."""
        if self._waiting:
            heappop(self._waiting)[1].set()
        else:
            self._free += 1


@dataclass(slots=True)
class _Attended:
    """A task that is attended to. ``denied``: why no executor could be asked in its last turn, empty if one could.

    ``choice``: who will work on it in its next turn; taken already if they can be asked.
    """

    line: TaskLine
    number: int
    driver: Driver
    denied: str = ""
    choice: Choice | None = None
    fault: str = ""
    failures: int = 0


@dataclass(slots=True)
class _Outage:
    """How often in a row the database was away."""

    times: int = 0

    def pause_s(self) -> float:
        """How long to leave it alone."""
        self.times += 1
        return back_off_s[min(self.times, len(back_off_s)) - 1]


@dataclass(slots=True)
class _Posted:
    """A duty, and the bell that calls it."""

    duty: Duty
    bell: trio.Event = field(default_factory=trio.Event)


class Crew:
    """Attends to every open task in which this node has a role, while ``serve`` runs."""

    def __init__(self, log: Log, source: Source, staff: Workers, duties: Sequence[Duty] = ()) -> None:
        self._log, self._source, self._staff = log, source, staff
        self._duties = [_Posted(duty) for duty in duties]
        self._attended: dict[bytes, _Attended] = {}
        self._numbers = count()
        self._turns = _Turns(turns_max)
        self._outage = _Outage()
        staff.changed = self._all_look_again
        staff.freed = self._next_looks_again

    async def serve(self) -> None:
        """Follow the log and do what is this node's part, for ever. Raises only what is a bug, or ``StoreCorrupt``."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._staff.serve)
            for posted in self._duties:
                nursery.start_soon(self._see_to, posted)
            while True:
                try:
                    await self._follow(nursery)
                except StoreUnavailable as error:
                    if not self._outage.times:
                        _log.warning("the database is away: waiting for it", extra={"why": str(error)})
                    await trio.sleep(self._outage.pause_s())
                    with suppress(StoreUnavailable):
                        await self._source.recover()

    def alarms(self) -> list[str]:
        """What goes wrong now, for people."""
        away = ["the database is away"] if self._outage.times else []
        tasks = (attended for attended in self._attended.values() if attended.fault)
        return away + [f"task {attended.line.task_id}: {attended.fault}" for attended in tasks]

    @property
    def attended(self) -> int:
        """How many open tasks are attended to."""
        return len(self._attended)

    # -- news --------------------------------------------------------------------------------------------------------

    async def _follow(self, nursery: trio.Nursery) -> None:
        async with self._source.listen() as notices:
            mark = await self._survey(nursery)
            if self._outage.times:
                _log.info("the database is back")
                self._outage.times = 0
            while True:
                with trio.move_on_after(poll_s):
                    await notices.receive()
                with suppress(trio.WouldBlock):
                    while True:
                        notices.receive_nowait()
                mark = await self._catch_up(mark, nursery)

    async def _survey(self, nursery: trio.Nursery) -> Mark:
        """Every open task; those that are attended to may have moved, or ended."""
        mark, lines = await self._source.open_tasks()
        await self._log.refresh()
        for attended in self._attended.values():
            attended.driver.heard()
        for line in lines:
            self._hear(line, frozenset(), nursery)
        self._ring()
        return mark

    async def _catch_up(self, mark: Mark, nursery: trio.Nursery) -> Mark:
        while True:
            found = await self._source.changed(mark)
            if found.everything:
                return await self._survey(nursery)
            for line in found.tasks:
                self._hear(line, found.events.get(line.task, frozenset()), nursery)
            if found.mark != mark:
                self._ring()
            mark = found.mark
            if not found.more:
                return mark

    def _hear(self, line: TaskLine, events: frozenset[bytes], nursery: trio.Nursery) -> None:
        """Something arrived for a task."""
        attended = self._attended.get(line.task)
        if attended is not None:
            attended.driver.heard(events)
        elif line.open and self._takes_part(line):
            attended = _Attended(line, next(self._numbers), Driver(self._log, None, line.task))
            self._attended[line.task] = attended
            self._choose(attended)
            nursery.start_soon(self._attend, attended, self._turns.ask(attended.number))

    def _takes_part(self, line: TaskLine) -> bool:
        try:
            return self._log.keys.node_id in self._log.network.version(line.membership).members
        except Refused:  # a version that is not here yet; it comes with news for all
            return False

    # -- one task ----------------------------------------------------------------------------------------------------

    async def _attend(self, attended: _Attended, ticket: trio.Event) -> None:
        """Let a task have its turns until it needs this node no more."""
        while True:
            await ticket.wait()
            try:
                due_ms = await self._try_turn(attended)
            finally:
                self._turns.end()
            if due_ms is None and not attended.driver.pending:
                break
            if due_ms is None:  # over, but something came meanwhile: only a fresh look can tell
                attended.driver = Driver(self._log, None, attended.line.task)
            else:
                await self._rest(attended, due_ms)
            ticket = self._turns.ask(attended.number)
        del self._attended[attended.line.task]
        _log.debug("a task needs this node no more", extra={"task_id": attended.line.task_id})

    async def _try_turn(self, attended: _Attended) -> int | None:
        """A turn. After an error: when to try again (unix ms)."""
        try:
            due_ms = await self._turn(attended)
        except Exception as error:  # noqa: BLE001 - a task's outermost edge: it reports
            return self._report(attended, error)
        attended.fault, attended.failures = "", 0
        return due_ms

    async def _turn(self, attended: _Attended) -> int | None:
        if attended.choice is None or attended.choice.unable:
            self._choose(attended)
        driver, choice, attended.choice = attended.driver, attended.choice, None
        assert choice is not None
        driver.hands, driver.unable = choice.hands, choice.unable
        try:
            due_ms = await driver.turn()
        finally:
            if not choice.unable:
                self._staff.give_back(choice)
        held_back = bool(choice.unable) and any(choice.unable in why for why in driver.waits_for)
        attended.denied = choice.unable if held_back else ""
        if len(self._attended) > views_kept_max:
            driver.forget_view()
        return due_ms

    def _report(self, attended: _Attended, error: Exception) -> int:
        """Tell of an error, once while it stays the same; when to try again."""
        said = str(error) or type(error).__name__
        about = {"task_id": attended.line.task_id, "task": attended.line.task.hex()}
        pause_s = back_off_s[min(attended.failures, len(back_off_s) - 1)]
        attended.failures += 1
        away = isinstance(error, StoreUnavailable | ClockAhead)  # told of elsewhere, once for all tasks
        if away or attended.fault == said:
            _log.debug("a task is tried again later", extra={**about, "why": said})
        elif isinstance(error, Refused):
            _log.warning("a task cannot go on here; it is tried again", extra={**about, "why": said})
        else:
            _log.error("a task failed; it is tried again", extra={**about, "why": said}, exc_info=error)
        if away:  # what the executor answered meanwhile is kept
            attended.fault = ""
            attended.driver.heard()
        else:
            attended.fault = said
            attended.driver = Driver(self._log, None, attended.line.task)
        return self._log.clock() + int(pause_s * 1000)

    async def _rest(self, attended: _Attended, due_ms: int) -> None:
        """Wait until it is time, or until something is heard. After an error nothing but time helps."""
        if attended.failures:
            await trio.sleep(max(0, due_ms - self._log.clock()) / 1000)
            return
        if attended.denied and self._choose(attended):
            return
        driver = attended.driver
        while not driver.pending and (left_ms := due_ms - self._log.clock()) > 0:
            with trio.move_on_after(min(left_ms / 1000, nap_s_max)):
                await driver.stirred()

    # -- executors, and other duties ---------------------------------------------------------------------------------

    def _all_look_again(self) -> None:
        for attended in self._attended.values():
            if attended.denied:
                attended.driver.stir()

    def _next_looks_again(self) -> None:
        """Hands became free: they are for the oldest task that was denied some."""
        denied = [one for one in self._attended.values() if one.denied and not one.driver.pending]
        types = {one.line.task_type for one in denied}
        servable = {task_type for task_type in types if not self._staff.choose(task_type).unable}
        ready = [one for one in denied if one.line.task_type in servable]
        if ready:
            oldest = min(ready, key=lambda one: one.number)
            if self._choose(oldest):
                oldest.driver.stir()

    def _choose(self, attended: _Attended) -> bool:
        """Choose who works on a task in its next turn, and take them; whether there is somebody."""
        attended.choice = self._staff.choose(attended.line.task_type)
        if attended.choice.unable:
            return False
        self._staff.take(attended.choice)
        attended.denied = ""
        return True

    def _ring(self) -> None:
        for posted in self._duties:
            posted.bell.set()

    async def _see_to(self, posted: _Posted) -> None:
        failures = 0
        while True:
            posted.bell = trio.Event()
            try:
                await posted.duty()
                failures = 0
            except StoreUnavailable as error:
                _log.debug("a duty waits for the database", extra={"why": str(error)})
            except Exception:  # noqa: BLE001 - a duty's outermost edge: it reports
                failures += 1
                _log.exception("a duty failed; it is tried again", extra={"duty": posted.duty.__qualname__})
            pause_s = back_off_s[min(failures, len(back_off_s)) - 1] if failures else 0
            await trio.sleep(pause_s)
            with trio.move_on_after(poll_s):
                await posted.bell.wait()
