"""What people tell tasks, over a log in memory: a task is stopped whether or not its epoch has just ended."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.runtime.puppets import create, log_of
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads.course import EpochEnded
from wattswarm.kernel.task.state import TaskState, status
from wattswarm.tasks import halt, halts

continuous = {"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW", "budget.time_ms": 20_000}


@pytest.mark.parametrize("how", halts)
async def test_a_continuous_task_is_halted_also_between_two_epochs(how: str, autojump_clock: MockClock) -> None:
    world = World()
    async with log_of(world) as log:
        task = await create(log, world, continuous)
        await trio.sleep(21)
        await log.author(Draft(EpochEnded("TIMEBOX_REACHED"), task, 1))
        said = await halt(log, "t-1", how, "seen enough")
        state = (await log.task(task)).folded.state
    assert said.epoch == 2
    assert isinstance(state, TaskState)
    assert status(state) == {"stop": "STOPPED", "suspend": "SUSPENDED", "kill": "KILLED"}[how]


async def test_a_continuous_task_is_stopped_in_the_epoch_after_one_that_is_decided_and_not_ended_yet(
    autojump_clock: MockClock,
) -> None:
    world = World.of(2)
    story = world.task(changes=continuous, task_id="t-1")
    answer = story.propose("ada")
    events = [story.creation, answer, story.finalize("ada", answer)]
    async with log_of(world, "ben") as log:
        await log.ingest(events, [story.certificate(answer)])
        said = await halt(log, "t-1", "stop", "seen enough")
    assert said.epoch == 2
