"""What a process remembers of the log saves it the lock, never the truth: others write as well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from sel.audit import verify
from sel.guard import AuthorGuard
from sel.log import Log, open_log
from sel.pool import Database
from sel.postgres import Connection, PostgresStore
from sel.store import Stale
from tests.cast import keys_of
from tests.sel.stores import fresh_database, postgres_contents
from tests.terms import one_slot
from tests.world import World
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.payloads.course import TaskExpired, TaskKilled
from wattswarm.kernel.payloads.judge import FinalityVote
from wattswarm.kernel.payloads.work import TaskClaimed, TaskClaimReleased, TaskCreated
from wattswarm.kernel.refusal import Refused

T = TypeVar("T")
me = keys_of("ada")


@dataclass
class Hosts:
    """Two processes of one node, as it were: each has its own memory and its own guard on the same file."""

    world: World
    database: Database
    one: Log
    two: Log
    statements: list[str]

    def creation(self, label: str) -> Draft:
        return Draft(TaskCreated(self.world.contract(label, one_slot), self.world.network_id), None, 1)

    def claim(self, task: Event, execution: str = "x") -> Draft:
        return Draft(TaskClaimed("propose", execution, self.world.now_ms + 4_000), task.id, 1)

    async def sound(self) -> list[Event]:
        """All that is logged: one chain, and everything that ``log verify`` looks at holds."""
        report = await verify(self.database, self.world.network, lambda _: None)
        assert report.problems == []
        events = (await self.database.run(lambda c: postgres_contents(c, self.world.network))).events
        assert [said.author_seq for said in events] == list(range(len(events)))
        return events


@pytest.fixture
async def hosts(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[Hosts]:
    world = World.of(2)
    AuthorGuard(tmp_path).create()
    async with fresh_database(postgres_dsn) as database, AsyncExitStack() as stack:
        statements: list[str] = []

        async def host() -> Log:
            guard = stack.enter_context(AuthorGuard(tmp_path))
            store = PostgresStore(Noting(database, statements), world.network_id, me.node_id)
            return await stack.enter_async_context(open_log(store, world.network, me, guard, lambda: world.now_ms))

        yield Hosts(world, database, await host(), await host(), statements)


class Noting:
    """A database that notes the statements of its writers."""

    def __init__(self, database: Database, statements: list[str]) -> None:
        self.run = database.run
        self._database = database
        self._statements = statements

    async def run_writing(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def noted(connection: Connection) -> T:
            return await work(cast(Connection, Noted(connection, self._statements)))

        return await self._database.run_writing(noted)


class Noted:
    """A connection that notes what it is asked."""

    def __init__(self, connection: Connection, statements: list[str]) -> None:
        self._connection = connection
        self._statements = statements

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._connection, name)

        def noting(*args: Any, **words: Any) -> Any:
            self._statements.append(str(args[0]) if args else name)
            return asked(*args, **words)

        return noting


async def test_an_event_on_a_task_that_was_just_met_is_one_statement(hosts: Hosts) -> None:
    (task,) = await hosts.one.author(hosts.creation("a"))
    hosts.statements.clear()
    await hosts.one.author(hosts.claim(task))
    await hosts.one.author(hosts.creation("b"))
    assert len(hosts.statements) == 2
    assert len(await hosts.sound()) == 3


async def test_processes_that_take_turns_never_build_on_what_the_other_changed(hosts: Hosts) -> None:
    for number in range(6):
        log = (hosts.one, hosts.two)[number % 2]
        (task,) = await log.author(hosts.creation(f"t-{number}"))
        await log.author(hosts.claim(task))
    assert len(await hosts.sound()) == 12


async def test_what_another_process_closed_is_closed(hosts: Hosts) -> None:
    (task,) = await hosts.one.author(hosts.creation("a"))
    await hosts.two.author(Draft(TaskKilled("enough"), task.id, 1))
    with pytest.raises(Refused) as refusal:
        await hosts.one.author(hosts.claim(task))
    assert refusal.value.reason == "task_closed"
    await hosts.one.author(hosts.creation("b"))
    assert [said.kind for said in await hosts.sound()] == ["TASK_CREATED", "TASK_KILLED", "TASK_CREATED"]


async def test_what_another_process_heard_from_others_is_known(hosts: Hosts) -> None:
    """The slot for one proposer is taken by a node elsewhere, whose claim another process took in."""
    (task,) = await hosts.one.author(hosts.creation("a"))
    lease = TaskClaimed("propose", "theirs", hosts.world.now_ms + 4_000)
    await hosts.two.ingest([hosts.world.author("ben", lease, task=task.id)])
    with pytest.raises(Refused) as refusal:
        await hosts.one.author(hosts.claim(task))
    assert refusal.value.reason == "claim_conflict"
    (other,) = await hosts.one.author(hosts.creation("b"))
    report = await verify(hosts.database, hosts.world.network, lambda _: None)
    assert (report.problems, report.events) == ([], 3)
    assert (await hosts.two.head()).events == 3
    assert other.author_seq == 1


async def test_what_memory_refuses_is_asked_again_of_the_log(hosts: Hosts) -> None:
    """The slot for one proposer is taken as far as this process knows; another has given it back."""
    (task,) = await hosts.one.author(hosts.creation("a"))
    await hosts.one.author(hosts.claim(task))
    with pytest.raises(Refused) as refusal:
        await hosts.one.author(hosts.claim(task, "y"))
    assert refusal.value.reason == "claim_conflict"
    await hosts.two.author(Draft(TaskClaimReleased("propose", "x"), task.id, 1))
    await hosts.one.author(hosts.claim(task, "y"))
    assert len(await hosts.sound()) == 4


async def test_a_label_is_used_once_whichever_process_used_it(hosts: Hosts) -> None:
    await hosts.one.author(hosts.creation("a"))
    await hosts.two.author(hosts.creation("b"))
    for log, label in ((hosts.one, "a"), (hosts.one, "b"), (hosts.two, "a"), (hosts.two, "b")):
        with pytest.raises(Refused) as refusal:
            await log.author(hosts.creation(label))
        assert refusal.value.reason == "label_taken"
    assert len(await hosts.sound()) == 2


async def test_a_finality_vote_is_never_cast_out_of_memory(hosts: Hosts) -> None:
    (task,) = await hosts.one.author(hosts.creation("a"))
    hosts.statements.clear()
    with pytest.raises(Refused):
        await hosts.one.author(Draft(FinalityVote(b"\1" * 32, b"\2" * 64), task.id, 1))
    assert any("finality_votes" in statement for statement in hosts.statements)


async def test_bytes_that_were_sealed_and_certainly_not_stored_are_signed_anew(hosts: Hosts, tmp_path: Path) -> None:
    """The label is taken, but only the statement sees that: by then the guard holds the bytes."""
    (task,) = await hosts.one.author(hosts.creation("a"))
    guard = AuthorGuard(tmp_path)
    for _ in range(2):
        with pytest.raises(Refused):
            await hosts.one.author(hosts.creation("a"))
        slot = guard.newest()
        assert slot is not None
        assert slot.end == (task.author_seq, task.id)
    (claim,) = await hosts.one.author(hosts.claim(task))
    assert await hosts.sound() == [task, claim]


async def test_memory_alone_is_not_enough_for_a_store_without_a_node(postgres_dsn: str) -> None:
    world = World.of(1)
    async with fresh_database(postgres_dsn) as database:

        async def work(_: object) -> None:
            raise AssertionError("there is nothing to work on")

        with pytest.raises(Stale):
            await PostgresStore(database, world.network_id).recalled(work)
        with pytest.raises(Stale):
            await PostgresStore(database, world.network_id, me.node_id).recalled(work)


async def test_an_expired_task_is_closed_in_memory_too(hosts: Hosts) -> None:
    (task,) = await hosts.one.author(hosts.creation("a"))
    await hosts.one.author(Draft(TaskKilled("enough"), task.id, 1))
    with pytest.raises(Refused):
        await hosts.one.author(Draft(TaskExpired(), task.id, 1))
    assert len(await hosts.sound()) == 2


async def test_a_kept_connection_that_ended_while_it_rested_is_replaced(hosts: Hosts) -> None:
    (task,) = await hosts.one.author(hosts.creation("a"))

    async def end_the_others(connection: Connection) -> None:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND application_name = 'wattswarm writer'"
        )

    async def name_it(connection: Connection) -> None:
        await connection.execute("SET application_name = 'wattswarm writer'")

    await hosts.database.run_writing(name_it)
    await hosts.database.run(end_the_others)
    await hosts.one.author(hosts.claim(task))
    assert len(await hosts.sound()) == 2
