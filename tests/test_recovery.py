"""``node recover``: what the author guard and the database know together, and when a host may go on."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from sel.guard import AuthorGuard
from sel.log import Log, open_log
from sel.memory import MemoryStore
from tests.cast import everything, genesis_ms, keys_of, names
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.genesis import FaultModel
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.kernel.refusal import Refused
from wattswarm.recovery import (
    ask_members,
    diagnose,
    enough,
    first_word_s_max,
    make_writer,
    quiet_s,
    told_fence,
    until_may_author,
    word_s_max,
)


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


async def test_whoever_recovers_alone_signs_nothing_old_either(tmp_path: Path) -> None:
    world = World.of(1)
    begin(tmp_path)
    copied(tmp_path)
    async with host(world, MemoryStore(), tmp_path) as (log, guard):
        await make_writer(log, guard)
        fence = await log.fence()
        assert fence.until_ms > log.clock()
        assert fence.membership == -1, "no other member can hold what it signed"
        assert "no finality vote on tasks created before" in told_fence(fence)


@pytest.mark.parametrize(
    ("members", "roles", "model", "asked"),
    [
        (1, everything, "byzantine", 0),
        (2, everything, "byzantine", 1),
        (3, everything, "byzantine", 2),
        (4, everything, "byzantine", 2),
        (7, everything, "byzantine", 4),
        (5, everything, "crash", 2),
        (7, {"verifier"}, "byzantine", 6),
    ],
)
def test_so_many_are_asked_that_what_decides_is_met_by_one_who_is_honest(
    members: int, roles: set[str], model: FaultModel, asked: int
) -> None:
    """In the last row ``ada`` alone is finalizer: nothing is decided without her, so all are asked."""
    named = {name: everything if name == "ada" else frozenset(roles) for name in names[:members]}
    world = World(named, fault_model=model)
    assert enough(world.network.current, world.node("ada")) == asked


def said(world: World, **held: int | None) -> list[dict[str, object]]:
    """Peers as a daemon tells of them: how far each holds the chain."""
    return [{"node_id": world.node(name).hex(), "own_seq": seq} for name, seq in held.items()]


async def lost_by(path: Path) -> tuple[World, MemoryStore]:
    """A network of four, and the three events that the host at ``path``, which was put back, said and lost."""
    world, theirs = World.of(4), MemoryStore()
    begin(path)
    async with host(world, theirs, path) as (log, _):
        for label in "abc":
            await create(log, world, label)
    copied(path)
    return world, theirs


def one_after_the_other(*looks: list[dict[str, object]]) -> Callable[[], list[dict[str, object]]]:
    """What is seen at each look; the last of it from then on."""
    left = list(looks)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


async def test_members_are_asked_until_enough_hold_no_more_of_the_chain(tmp_path: Path, autojump_clock: object) -> None:
    world, theirs = await lost_by(tmp_path)
    told: list[str] = []
    peers = one_after_the_other(
        said(world, ben=None, eli=0),  # not said yet; a stranger
        said(world, ben=2, cy=7),  # cy claims what there is not
        said(world, ben=2, dee=2),
    )
    async with host(world, MemoryStore(), tmp_path) as (log, guard):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.ingest, theirs.events)
            asked = await ask_members(log, guard, peers, None, told.append)
        assert asked == {world.node("ben"), world.node("dee")}
        assert told[0].startswith("0 of 3 other members asked, waiting for")
        await make_writer(log, guard, asked)
        assert (await log.fence()).membership == 0, "cy was not asked"
        await create(log, world, "d")
        assert [event.author_seq for event in log.store.events] == [0, 1, 2, 3]  # type: ignore[attr-defined]


async def test_what_comes_a_moment_after_enough_have_answered_is_waited_for(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Where a cut heals, members learn of this node's events as they answer."""
    world, theirs = await lost_by(tmp_path)
    began = trio.current_time()
    async with host(world, MemoryStore(), tmp_path) as (log, guard), trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(quiet_s / 2)
            await log.ingest(theirs.events)

        nursery.start_soon(later)
        await ask_members(log, guard, lambda: said(world, ben=-1, cy=-1), None, lambda _: None)
        assert (await diagnose(log, guard)).seq == 2
    assert quiet_s * 1.5 <= trio.current_time() - began < quiet_s * 2


async def test_what_the_guard_knows_and_nobody_gave_is_asked_of_all(tmp_path: Path, autojump_clock: object) -> None:
    world = World.of(4)
    begin(tmp_path)
    async with host(world, MemoryStore(), tmp_path) as (log, _):
        for label in "ab":
            await create(log, world, label)
    told: list[str] = []
    peers = one_after_the_other(said(world, ben=-1, cy=-1), said(world, ben=-1, cy=-1, dee=-1))
    async with host(world, MemoryStore(), tmp_path) as (log, guard):
        asked = await ask_members(log, guard, peers, None, told.append)
        assert len(asked) == 3
        assert "its guard knows of event 1" in told[0]
        with pytest.raises(Refused, match="connect a member"):
            await make_writer(log, guard, asked)


async def test_daemon_with_members_waits_for_a_word_and_alone_for_nobody(
    tmp_path: Path, autojump_clock: object
) -> None:
    begin(tmp_path)
    cases: list[tuple[int, dict[str, int | None], float, str]] = [
        (1, {}, 0.0, ""),
        (4, {}, first_word_s_max, "no member is connected"),
        (4, {"ben": -1}, 0.0, ""),
        (4, {"ben": None}, word_s_max, "no member has said"),
        (4, {"ben": 5}, word_s_max, "up to 5, here is -1"),
    ]
    for count, held, waits_s, tells in cases:
        world = World.of(count)
        told: list[str] = []
        began = trio.current_time()
        async with host(world, MemoryStore(), tmp_path) as (log, _):
            await until_may_author(log, tmp_path, partial(said, world, **held), told.append)
        assert len(told) == bool(tells)
        assert tells in "".join(told)
        assert waits_s <= trio.current_time() - began < waits_s + 1
