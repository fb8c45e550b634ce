"""The crew: every open task has its turns, none keeps another from its own, and all is found again on the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from sel.authoring import ClockAhead
from sel.errors import StoreUnavailable
from sel.log import Log, open_log
from sel.memory import MemoryGuard, MemoryStore
from sel.news import Changed, Mark, TaskLine
from sel.store import Txn
from tests.cast import keys_of
from tests.runtime.puppets import Puppet, clock, create, hands, kinds, status_of
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads import course
from wattswarm.runtime import crew as crews
from wattswarm.runtime.autopilot import Driver
from wattswarm.runtime.crew import Crew, Duty
from wattswarm.runtime.staff import Choice

T = TypeVar("T")


class Shared(MemoryStore):
    """A store that tells when it was written to, may be away, and gives news as the database does."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.reads = 0
        self.ears: list[trio.MemorySendChannel[str]] = []

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the database is away")

    async def transact(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        self._check()
        found = await super().transact(work)
        for ear in self.ears:
            ear.send_nowait("")
        return found

    async def read(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        self._check()
        self.reads += 1
        return await super().read(work)

    def go(self) -> None:
        """The server dies."""
        self.away = True
        for ear in self.ears:
            ear.close()
        self.ears.clear()

    # -- news --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        self._check()
        send, receive = trio.open_memory_channel[str](1000)
        self.ears.append(send)
        try:
            yield receive
        except trio.EndOfChannel:
            raise StoreUnavailable("gone") from None

    async def recover(self) -> None:
        self._check()

    def _line(self, stream: bytes) -> TaskLine | None:
        facts = self.stream_rows[stream].facts
        if facts is None:
            return None
        return TaskLine(stream, facts.label, facts.status, facts.task_type, facts.membership)

    async def open_tasks(self) -> tuple[Mark, list[TaskLine]]:
        self._check()
        lines = [self._line(stream) for stream in self.stream_rows]
        return Mark(len(self.events), len(self.certificates)), [line for line in lines if line and line.open]

    async def changed(self, since: Mark) -> Changed:
        self._check()
        new = self.events[since.event_seq :]
        proven = len(self.certificates) > since.certificate_seq
        ids = {
            stream: frozenset(event.id for event in new if event.stream == stream)
            for stream in {event.stream for event in new}
        }
        lines = [line for line in map(self._line, ids) if line]
        mark = Mark(len(self.events), len(self.certificates))
        return Changed(mark, lines, {} if proven else ids)


class Workshop:
    """Puppets at work: ``puppet`` for all tasks of the usual type, at most ``places`` at a time."""

    def __init__(self, puppet: Puppet | None, places: int = 16) -> None:
        self.puppet, self.places, self.busy, self.most = puppet, places, 0, 0
        self.changed: Callable[[], None] = lambda: None
        self.freed: Callable[[], None] = lambda: None

    async def serve(self) -> None:
        await trio.sleep_forever()

    def choose(self, task_type: str) -> Choice:
        if self.puppet is None or task_type != "swarm":
            return Choice(None, f"nobody serves {task_type}")
        return Choice(hands(self.puppet), "all are busy" if self.busy >= self.places else "")

    def take(self, choice: Choice) -> None:
        assert not choice.unable
        self.busy += 1
        self.most = max(self.most, self.busy)

    def give_back(self, choice: Choice) -> None:
        self.busy -= 1
        self.freed()


@asynccontextmanager
async def log_in(store: Shared, world: World, name: str = "ada") -> AsyncIterator[Log]:
    async with open_log(store, world.network, keys_of(name), MemoryGuard(), clock) as log:
        yield log


@asynccontextmanager
async def crew(log: Log, staff: Workshop, *duties: Duty) -> AsyncIterator[Crew]:
    assert isinstance(log.store, Shared)
    async with trio.open_nursery() as nursery:
        serving = Crew(log, log.store, staff, duties)
        nursery.start_soon(serving.serve)
        yield serving
        nursery.cancel_scope.cancel()


async def test_tasks_of_before_and_after_it_began_are_finalized(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log:
        early = await create(log, world, label="early")
        async with crew(log, Workshop(Puppet(0.1))) as serving:
            late = await create(log, world, label="late")
            await trio.sleep(5)
            assert [await status_of(log, task) for task in (early, late)] == ["FINALIZED"] * 2
            assert (serving.attended, serving.alarms()) == (0, [])


async def test_more_tasks_than_places_end_oldest_first_and_never_too_many_at_once(autojump_clock: None) -> None:
    world, store, puppet = World.of(1), Shared(), Puppet(1)
    async with log_in(store, world) as log:
        tasks = [await create(log, world, label=f"t-{number:02}") for number in range(12)]
        staff = Workshop(puppet, places=2)
        async with crew(log, staff):
            await trio.sleep(60)
        assert {await status_of(log, task) for task in tasks} == {"FINALIZED"}
        assert staff.most == 2
        assert staff.busy == 0
        executed = [request.task_id for request in puppet.executed]
        two_by_two = [name for at in range(0, 12, 2) for name in sorted(executed[at : at + 2])]
        assert two_by_two == sorted(executed), "two work at one time"


async def test_slow_executor_keeps_no_decision_from_being_signed(autojump_clock: None) -> None:
    """One node has all places taken; what needs no executor is done meanwhile."""
    world = World({"ada": {"proposer", "finalizer"}, "ben": {"proposer", "verifier", "committer"}})
    mine, theirs = Shared(), Shared()
    async with (
        log_in(mine, world) as ada,
        log_in(theirs, world, "ben") as ben,
        crew(ada, Workshop(Puppet(10), places=1)),
    ):
        await create(ada, world, label="slow")
        await trio.sleep(0.5)
        task = await create(ben, world, label="quick")
        await Driver(ben, hands(Puppet()), task, once=True).drive()
        await ada.ingest(theirs.events)
        await trio.sleep(4)
        assert await status_of(ada, task) == "FINALIZED"


async def test_task_that_nobody_serves_waits_until_somebody_does(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log:
        task = await create(log, world)
        staff = Workshop(None)
        async with crew(log, staff):
            await trio.sleep(5)
            assert await kinds(log, task) == ["TASK_CREATED"]
            staff.puppet = Puppet()
            staff.changed()
            await trio.sleep(1)
            assert await status_of(log, task) == "FINALIZED"


async def test_task_that_nobody_here_serves_expires_all_the_same(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log:
        task = await create(log, world, {"expiry_ms": clock() + 20_000})
        async with crew(log, Workshop(None)):
            await trio.sleep(25)
        assert await status_of(log, task) == "EXPIRED"


async def test_stop_that_arrives_ends_the_attention(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log:
        task = await create(log, world)
        async with crew(log, Workshop(Puppet(10))) as serving:
            await trio.sleep(1)
            assert serving.attended == 1
            await log.author(Draft(course.TaskStopped("enough"), task, 1))
            await trio.testing.wait_all_tasks_blocked()
            assert serving.attended == 0


async def test_node_without_a_part_in_a_task_leaves_it_alone(autojump_clock: None) -> None:
    world = World.of(1)
    store = Shared()
    async with log_in(store, world) as ada:
        await create(ada, world)
    observer = Shared()
    async with log_in(observer, world, "zoe") as log:
        await log.ingest(store.events)
        async with crew(log, Workshop(Puppet())) as serving:
            await trio.sleep(5)
            assert serving.attended == 0
        assert len(observer.events) == 1


class Poisoned(Puppet):
    """Breaks where a bug would, for one task."""

    async def execute(self, request: Any, deadline_ms: int) -> Any:
        if request.task_id == "bad":
            raise ZeroDivisionError("a bug")
        return await super().execute(request, deadline_ms)


async def test_error_of_one_task_is_reported_and_ends_no_other(
    autojump_clock: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log:
        await create(log, world, label="bad")
        good = await create(log, world, label="good")
        async with crew(log, Workshop(Poisoned())) as serving:
            await trio.sleep(2)
            assert await status_of(log, good) == "FINALIZED"
            assert serving.alarms() == ["task bad: a bug"]
            later = await create(log, world, label="later")
            await trio.sleep(30)
            assert await status_of(log, later) == "FINALIZED"
    reports = [record for record in caplog.records if getattr(record, "task_id", "") == "bad" and record.exc_info]
    assert len(reports) == 1, "told once while it stays the same"


async def test_database_that_is_away_is_waited_for_and_nobody_is_asked_twice(autojump_clock: None) -> None:
    world, store, puppet = World.of(1), Shared(), Puppet(3)
    async with log_in(store, world) as log:
        task = await create(log, world)
        async with crew(log, Workshop(puppet)) as serving:
            await trio.sleep(1)
            store.go()
            await trio.sleep(5)
            assert "the database is away" in serving.alarms()
            store.away = False
            await trio.sleep(60)
            assert await status_of(log, task) == "FINALIZED"
            assert serving.alarms() == []
        assert len(puppet.executed) == 1


async def test_nothing_is_authored_or_asked_while_there_is_an_objection_and_no_task_is_to_blame(
    autojump_clock: None,
) -> None:
    world, store, puppet = World.of(1), Shared(), Puppet(1)
    async with log_in(store, world) as log:
        task = await create(log, world)
        log.objection = lambda: ClockAhead(10_000)
        async with crew(log, Workshop(puppet)) as serving:
            await trio.sleep(5)
            assert (len(store.events), puppet.executed, serving.alarms()) == (1, [], [])
            log.objection = lambda: None
            await trio.sleep(20)
            assert await status_of(log, task) == "FINALIZED"


async def test_crew_that_is_ended_anywhere_is_followed_by_one_that_goes_on(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log:
        tasks = [await create(log, world, label=f"t-{number}") for number in range(5)]
        for _ in range(40):
            async with crew(log, Workshop(Puppet(0.3), places=2)):
                await trio.sleep(0.25 + 0.1 * len(store.events) / 11)
        async with crew(log, Workshop(Puppet(0.3))):
            await trio.sleep(20)
        assert {await status_of(log, task) for task in tasks} == {"FINALIZED"}
        for task in tasks:
            assert (await kinds(log, task)).count("FINALITY_VOTE") == 1


async def test_notice_that_is_lost_is_made_up_for(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log, crew(log, Workshop(Puppet())):
        await trio.sleep(1)
        ears, store.ears = store.ears, []
        task = await create(log, world)
        store.ears = ears
        await trio.sleep(crews.poll_s + 1)
        assert await status_of(log, task) == "FINALIZED"


async def test_thousand_tasks_that_wait_cost_nothing(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log:
        for number in range(300):
            await create(log, world, label=f"t-{number}")
        async with crew(log, Workshop(None)) as serving:
            await trio.sleep(20)
            assert serving.attended == 300
            reads = store.reads
            await trio.sleep(3_600)
            assert store.reads == reads


async def test_own_events_are_not_read_again(autojump_clock: None) -> None:
    world, store = World.of(1), Shared()
    async with log_in(store, world) as log, crew(log, Workshop(Puppet(1))):
        await create(log, world)
        await trio.sleep(0.5)
        reads = store.reads
        await trio.sleep(1)
        assert store.reads == reads


async def test_duty_is_called_at_the_start_on_news_and_by_and_by_and_its_errors_are_its_own(
    autojump_clock: None, caplog: pytest.LogCaptureFixture
) -> None:
    world, store = World.of(1), Shared()
    called: list[float] = []

    async def duty() -> None:
        called.append(trio.current_time())
        if len(called) == 2:
            raise ZeroDivisionError

    async with log_in(store, world) as log:
        began = trio.current_time()
        async with crew(log, Workshop(None), duty):
            await trio.sleep(4)
            await create(log, world)
            await trio.sleep(30)
    assert called[0] == began
    assert began + 4 in called
    assert called[2:] == [began + 15, began + 25], "a little later after an error, then every poll_s"
    assert any("duty" in record.message for record in caplog.records)
