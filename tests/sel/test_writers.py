"""Who waited for the writer lock sees all that was committed under it meanwhile, its own chain above all.

That is the author's whose predecessor was killed after COMMIT was sent: the turn is free at once, the commit comes
later. It is also everybody's who takes events in while this node authors (docs/protocol.md §7, "Never twice").
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from sel.authoring import Author, Request, write_own
from sel.guard import AuthorGuard
from sel.ingest import Knowledge, take_in
from sel.pool import Database, open_database
from sel.postgres import PgTxn, PostgresStore
from sel.rows import Duplicate
from sel.store import Txn
from tests.sel.nodes import Place, created, make, now_ms
from tests.sel.stores import fresh_database, postgres_contents
from wattswarm.kernel.event import Event

blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"


class Writer:
    """A process of a node, as far as its log's transactions go."""

    def __init__(self, place: Place, database: Database) -> None:
        self.store = PostgresStore(database, place.network.network_id, place.keys.node_id)
        self.knowledge = Knowledge(place.network)
        self.author = Author(place.keys, AuthorGuard(place.path), now_ms)

    async def write(self, txn: Txn, label: str) -> list[Event]:
        """Author the creation of a task called ``label``."""
        request = Request([created(label, self.knowledge.network.current.hash)])
        await write_own(txn, self.knowledge, self.author, [request])
        assert isinstance(request.result, list), request.result
        return request.result


async def after(first: Writer, label: str, second: Callable[[list[Event]], Awaitable[None]]) -> list[Event]:
    """``first`` authors, and commits only when ``second``, told what was authored, waits for the lock."""
    authored: list[Event] = []
    holds = trio.Event()

    async def hold(txn: Txn) -> None:
        assert isinstance(txn, PgTxn)
        authored.extend(await first.write(txn, label))
        holds.set()
        while not await txn.connection.fetchval(blocked):  # noqa: ASYNC110 - a lock that is waited for tells nobody
            await asyncio.sleep(0.001)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.store.transact, hold)
            await holds.wait()
            await second(authored)
    return authored


async def test_an_author_goes_on_from_the_commit_of_a_killed_one(postgres_dsn: str, tmp_path: Path) -> None:
    place = make(tmp_path / "node")
    async with fresh_database(postgres_dsn) as database, open_database(database.dsn) as other:
        killed, next_one = Writer(place, database), Writer(place, other)
        events = await killed.store.transact(lambda txn: killed.write(txn, "before"))

        async def go_on(_: list[Event]) -> None:
            events.extend(await next_one.store.transact(lambda txn: next_one.write(txn, "after")))

        between = await after(killed, "between", go_on)
        contents = await database.run(lambda connection: postgres_contents(connection, place.network))
    assert contents.events == [events[0], *between, events[1]]
    assert [said.author_seq for said in contents.events] == [0, 1, 2]


async def test_an_event_that_comes_back_while_it_is_committed_is_a_duplicate(postgres_dsn: str, tmp_path: Path) -> None:
    place = make(tmp_path / "node")
    outcomes = {}
    async with fresh_database(postgres_dsn) as database, open_database(database.dsn) as other:
        writer, hearer = Writer(place, database), Writer(place, other)

        async def hear(authored: list[Event]) -> None:
            taken = await hearer.store.transact(
                lambda txn: take_in(txn, Knowledge(place.network), authored, (), now_ms())
            )
            outcomes.update(taken.outcomes)

        authored = await after(writer, "a", hear)
        contents = await database.run(lambda connection: postgres_contents(connection, place.network))
    assert outcomes == {authored[0].id: Duplicate()}
    assert contents.events == authored
