"""A sealed vote outlives the process that sealed it: it is opened from the log and the key alone."""

from __future__ import annotations

import pytest
import trio

from sel.log import Log
from sel.memory import MemoryStore
from tests.cast import keys_of
from tests.runtime.puppets import Puppet, create, hands, kinds, log_of, status_of, wide
from tests.world import World
from wattswarm.kernel.payloads import judge
from wattswarm.runtime.autopilot import Driver
from wattswarm.runtime.contract import VerifyRequest, VerifyResponse

quorum_2 = {**wide, "acceptance.quorum_threshold": 2}


class Doubter(Puppet):
    """Fails every candidate."""

    async def verify(self, request: VerifyRequest, deadline_ms: int) -> VerifyResponse:
        await super().verify(request, deadline_ms)
        return VerifyResponse(False, 0.2, [101], "said by a doubter", "puppet", "puppet-1")


async def sealed_by_ben(ada: Log, ben: Log, world: World, executor: Puppet) -> bytes:
    """A task whose candidate is ada's, and on which ben has sealed a vote; its driver is gone."""
    task = await create(ada, world, quorum_2)
    await tell(ada, ben)
    with trio.move_on_after(3):
        await Driver(ada, hands(Puppet()), task).drive()
    await tell(ada, ben)
    with trio.move_on_after(3):
        await Driver(ben, hands(executor), task).drive()
    assert "VOTE_COMMIT" in await kinds(ben, task)
    assert "VOTE_REVEAL" not in await kinds(ben, task)
    return task


async def tell(log: Log, other: Log) -> None:
    store = log.store
    assert isinstance(store, MemoryStore)
    await other.ingest(store.events)


async def opened(log: Log, task: bytes) -> list[tuple[judge.VoteReveal, str]]:
    return [
        (event.payload, event.author.hex())
        for event in (await log.task(task)).events
        if isinstance(event.payload, judge.VoteReveal)
    ]


@pytest.mark.parametrize(("executor", "vote"), [(Puppet(), "approve"), (Doubter(), "reject")])
async def test_vote_that_was_sealed_before_a_restart_is_opened_after_it(
    executor: Puppet, vote: str, autojump_clock: None
) -> None:
    world = World.of(3)
    async with log_of(world) as ada, log_of(world, "ben") as ben:
        task = await sealed_by_ben(ada, ben, world, executor)
        asked = len(executor.verified)
        with trio.move_on_after(8):  # half the deadline passes, and nobody else seals
            await Driver(ben, None, task).drive()
        ((reveal, author),) = await opened(ben, task)
        assert (reveal.vote, author) == (vote, keys_of("ben").node_id.hex())
        assert len(executor.verified) == asked, "nobody is asked again"
        assert not (await ben.task(task)).verdicts


async def test_task_of_one_node_ends_wherever_its_process_ended(autojump_clock: None) -> None:
    world = World.of(1)
    for life_s in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25):
        store = MemoryStore()
        async with log_of(world, store=store) as log:
            task = await create(log, world, {"acceptance.vote.reveal_deadline_ms": 60_000})
            with trio.move_on_after(life_s):
                await Driver(log, hands(Puppet(0.1)), task).drive()
            await Driver(log, hands(Puppet(0.1)), task).drive()
            assert await status_of(log, task) == "FINALIZED"
            assert (await kinds(log, task)).count("FINALITY_VOTE") == 1
