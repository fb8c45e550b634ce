"""``node recover``: what the author guard and the database know together, and when a host may go on."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sel.guard import AuthorGuard
from sel.log import Log, open_log
from sel.memory import MemoryStore
from tests.cast import genesis_ms, keys_of
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.kernel.refusal import Refused
from wattswarm.recovery import diagnose, make_writer


@asynccontextmanager
async def host(world: World, store: MemoryStore, path: Path) -> AsyncIterator[tuple[Log, AuthorGuard]]:
    with AuthorGuard(path) as guard:
        async with open_log(store, world.network, keys_of("ada"), guard, lambda: genesis_ms + 1_000) as log:
            yield log, guard


async def create(log: Log, world: World, label: str) -> None:
    await log.author(Draft(TaskCreated(world.contract(label), log.network.current.hash), None, 1))


def begin(path: Path) -> None:
    path.mkdir(exist_ok=True)
    AuthorGuard(path).create()


async def test_healthy_node_needs_no_recovery(tmp_path: Path) -> None:
    world = World.of(1)
    begin(tmp_path)
    async with host(world, MemoryStore(), tmp_path) as (log, guard):
        await create(log, world, "a")
        assert not (await diagnose(log, guard)).needed


def copied(path: Path) -> None:
    shutil.copy(path / "author_guard", path / "other")
    (path / "other").rename(path / "author_guard")


def missing(path: Path) -> None:
    (path / "author_guard").unlink()


def damaged(path: Path) -> None:
    (path / "author_guard").write_bytes(b"not a guard")


@pytest.mark.parametrize("fault", [copied, missing, damaged])
async def test_node_alone_on_its_network_goes_on_after_recovery(fault: Callable[[Path], None], tmp_path: Path) -> None:
    world, store = World.of(1), MemoryStore()
    begin(tmp_path)
    async with host(world, store, tmp_path) as (log, guard):
        await create(log, world, "a")
    fault(tmp_path)
    async with host(world, store, tmp_path) as (log, guard):
        with pytest.raises(Refused, match="node recover"):
            await create(log, world, "b")
        found = await diagnose(log, guard)
        assert (found.needed, found.seq) == (True, 0)
        await make_writer(log, guard)
        await create(log, world, "b")
        assert not (await diagnose(log, guard)).needed
    assert [event.author_seq for event in store.events] == [0, 1]


async def test_signed_bytes_of_a_copied_guard_are_inserted_first(tmp_path: Path) -> None:
    world, store = World.of(1), MemoryStore()
    begin(tmp_path)
    async with host(world, MemoryStore(), tmp_path) as (log, guard):
        await create(log, world, "a")  # acknowledged nowhere: this database is lost, the guard has the bytes
    copied(tmp_path)
    async with host(world, store, tmp_path) as (log, guard):
        found = await diagnose(log, guard)
        assert found.unfinished == 1
        await make_writer(log, guard)
        await create(log, world, "b")
    assert [event.author_seq for event in store.events] == [0, 1]


async def test_database_that_lacks_what_the_guard_knows_is_refused(tmp_path: Path) -> None:
    world = World.of(1)
    begin(tmp_path)
    async with host(world, MemoryStore(), tmp_path) as (log, guard):
        await create(log, world, "a")
        await create(log, world, "b")
    async with host(world, MemoryStore(), tmp_path) as (log, guard):
        with pytest.raises(Refused, match="knows events up to 1, the database ends at -1"):
            await make_writer(log, guard)


async def test_export_that_has_what_was_lost_mends_it(tmp_path: Path) -> None:
    world, store = World.of(1), MemoryStore()
    begin(tmp_path)
    async with host(world, store, tmp_path) as (log, _):
        await create(log, world, "a")
        await create(log, world, "b")
    async with host(world, MemoryStore(), tmp_path) as (log, _):
        await log.ingest(store.events)
        await create(log, world, "c")
        assert (await log.head()).events == 3


@pytest.mark.parametrize("behind", [0, 1])
async def test_two_chains_of_one_key_are_not_gone_on_with(behind: int, tmp_path: Path) -> None:
    """The database of a copy that had authored, brought back to the original."""
    world, mine, theirs = World.of(1), MemoryStore(), MemoryStore()
    begin(tmp_path / "original")
    begin(tmp_path / "copy")
    async with host(world, mine, tmp_path / "original") as (log, _):
        await create(log, world, "a")
    async with host(world, theirs, tmp_path / "copy") as (log, _):
        for number in range(1 + behind):
            await create(log, world, f"other-{number}")
    async with host(world, theirs, tmp_path / "original") as (log, guard):
        found = await diagnose(log, guard)
        assert found.needed
        with pytest.raises(Refused, match="two events 0"):
            await make_writer(log, guard)
