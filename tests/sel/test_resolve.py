"""How a person's word for a task finds it: label, ``label@hash-prefix`` or the whole hash (docs/protocol.md §2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sel.guard import AuthorGuard
from sel.log import Log, open_log
from tests.cast import keys_of
from tests.sel.conftest import NewLog
from tests.world import World
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.govern import AdvisoryCreated
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.kernel.policy import SCHEMA_ONLY
from wattswarm.kernel.refusal import Refused


@dataclass(frozen=True)
class Stage:
    """Ada's log. ``alone`` is a label that one task has, ``twice`` one that ben's and cy's tasks have."""

    world: World
    log: Log
    alone: Event
    bens: Event
    cys: Event

    async def refusal(self, reference: str) -> Refused:
        """Why a reference names no task."""
        with pytest.raises(Refused) as refused:
            await self.log.resolve(reference)
        return refused.value


@asynccontextmanager
async def stage(new_log: NewLog, place: Path) -> AsyncIterator[Stage]:
    world = World.of(3)
    alone = world.create_task("ben", "alone")
    bens, cys = world.create_task("ben", "twice"), world.create_task("cy", "twice")
    subject = await new_log(world)
    guard = AuthorGuard(place)
    guard.create()
    network = Network.of(world.genesis)
    async with open_log(subject.store, network, keys_of("ada"), guard, lambda: world.now_ms) as log:
        await log.ingest([alone, bens, cys])
        yield Stage(world, log, alone, bens, cys)


async def test_a_label_that_one_task_has_is_that_task(new_log: NewLog, tmp_path: Path) -> None:
    async with stage(new_log, tmp_path) as told:
        assert await told.log.resolve("alone") == told.alone.id


@pytest.mark.parametrize("digits", [1, 12, 64])
async def test_a_label_with_a_prefix_is_the_task_whose_hash_begins_so(
    new_log: NewLog, tmp_path: Path, digits: int
) -> None:
    async with stage(new_log, tmp_path) as told:
        assert told.bens.id.hex()[0] != told.cys.id.hex()[0]
        for said in (told.bens, told.cys):
            assert await told.log.resolve(f"twice@{said.id.hex()[:digits]}") == said.id


async def test_a_whole_hash_is_that_task_whatever_its_label(new_log: NewLog, tmp_path: Path) -> None:
    async with stage(new_log, tmp_path) as told:
        for said in (told.alone, told.bens, told.cys):
            assert await told.log.resolve(said.id.hex()) == said.id


async def test_what_names_nothing_is_unknown_and_the_list_is_pointed_to(new_log: NewLog, tmp_path: Path) -> None:
    async with stage(new_log, tmp_path) as told:
        bens = told.bens.id.hex()
        for reference in ("other", f"alone@{bens[:12]}", f"other@{bens[:12]}", "00" * 32, bens[:63], bens.upper()):
            refused = await told.refusal(reference)
            assert refused.reason == "unknown_task"
            assert repr(reference) in str(refused)
            assert "wattswarm task list" in str(refused)


async def test_a_label_that_two_others_gave_is_refused_with_the_names_to_use(new_log: NewLog, tmp_path: Path) -> None:
    async with stage(new_log, tmp_path) as told:
        refused = await told.refusal("twice")
        names = [f"twice@{stream.hex()[:12]}" for stream in sorted([told.bens.id, told.cys.id])]
        assert refused.reason == "ambiguous_task"
        assert str(refused) == f"'twice' names 2 tasks: {names[0]}, {names[1]}; use one of these"
        assert [await told.log.resolve(name) for name in names] == sorted([told.bens.id, told.cys.id])


async def test_among_many_ones_own_is_meant(new_log: NewLog, tmp_path: Path) -> None:
    async with stage(new_log, tmp_path) as told:
        draft = Draft(TaskCreated(told.world.contract("mine"), told.log.network.current.hash), None, 1)
        (own,) = await told.log.author(draft)
        others = [told.world.create_task(name, "mine") for name in ("ben", "cy")]
        await told.log.ingest(others)
        assert await told.log.resolve("mine") == own.id
        assert await told.log.resolve(f"mine@{others[0].id.hex()}") == others[0].id


async def test_the_networks_own_stream_is_no_task(new_log: NewLog, tmp_path: Path) -> None:
    async with stage(new_log, tmp_path) as told:
        version = told.log.network.current.hash
        await told.log.author(Draft(AdvisoryCreated(version, "advice", SCHEMA_ONLY, "11" * 32, "because")))
        assert (await told.refusal(told.world.network_id.hex())).reason == "unknown_task"
