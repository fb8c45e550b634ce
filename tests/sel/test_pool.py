"""A server that ends its connection while nobody writes costs the next write nothing; room is waited for."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest
import trio

from sel.log import open_log
from sel.memory import MemoryGuard
from sel.postgres import PostgresStore
from tests.cast import keys_of
from tests.sel.stores import fresh_database
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads import work

end_others = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
)

refuse_as_full = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON events EXECUTE FUNCTION full_disk();
"""


async def test_writer_whose_connection_ended_while_it_rested_is_replaced(postgres_dsn: str) -> None:
    world = World.of(1)

    async def end_connections() -> None:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(end_others)
        await connection.close()

    async with fresh_database(postgres_dsn) as database:
        store = PostgresStore(database, world.network_id, keys_of("ada").node_id)
        async with open_log(store, world.network, keys_of("ada"), MemoryGuard(), lambda: world.now_ms + 1_000) as log:

            async def create(label: str) -> None:
                await log.author(Draft(work.TaskCreated(world.contract(label), log.network.current.hash), None, 1))

            await create("before")
            await trio.to_thread.run_sync(lambda: asyncio.run(end_connections()))
            await trio.sleep(0.1)  # the news of it must have come: that is what is tested
            with trio.fail_after(10):
                await create("after")
            assert (await log.head()).events == 2


async def test_full_disk_is_said_once_and_what_waited_is_stored_when_there_is_room(
    postgres_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.of(1)
    caplog.set_level(logging.INFO, "sel")
    async with fresh_database(postgres_dsn) as database:
        store = PostgresStore(database, world.network_id, keys_of("ada").node_id)
        async with open_log(store, world.network, keys_of("ada"), MemoryGuard(), lambda: world.now_ms + 1_000) as log:

            async def do(statement: str) -> None:
                await database.run(lambda connection: connection.execute(statement))

            async def create() -> None:
                await log.author(Draft(work.TaskCreated(world.contract("one"), log.network.current.hash), None, 1))

            await do(refuse_as_full)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(create)
                await trio.sleep(1)  # it tries several times meanwhile, and says it once
                assert (await log.head()).events == 0
                assert "disk is full" in log.full
                await do("DROP TRIGGER full_disk ON events")
            assert ((await log.head()).events, log.full) == (1, "")
    said = [record.message for record in caplog.records if record.name == "sel.log"]
    assert said == ["nothing can be stored", "there is room again, and what waited is stored"]
