"""The autopilot: leases kept while an executor works, outcomes that nobody wants any more, several nodes, restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from sel.log import Log, open_log
from sel.memory import MemoryGuard, MemoryStore
from tests.cast import genesis_ms, keys_of, names
from tests.runtime.puppets import Puppet, clock, create, hands, kinds, log_of, said, status_of, wide
from tests.world import World
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.intents import Verify
from wattswarm.kernel.limits import salt_hex_chars_min
from wattswarm.kernel.payloads import course, work
from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.autopilot import Driver
from wattswarm.runtime.contract import ExecuteRequest, ExecuteResponse
from wattswarm.runtime.sealed import vote_salt


async def test_one_node_goes_the_whole_way_from_a_task_it_finds(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        await Driver(log, hands(Puppet()), task).drive()
        assert await kinds(log, task) == [
            "TASK_CREATED",
            "TASK_CLAIMED",
            "CANDIDATE_PROPOSED",
            "TASK_CLAIMED",
            "EVIDENCE_AVAILABLE",
            "VERIFIER_RESULT_SUBMITTED",
            "VOTE_COMMIT",
            "VOTE_REVEAL",
            "DECISION_COMMITTED",
            "FINALITY_VOTE",
            "DECISION_FINALIZED",
        ]
        assert await status_of(log, task) == "FINALIZED"


async def test_lease_is_renewed_while_the_executor_works(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        await Driver(log, hands(Puppet(takes_s=12)), task, once=True).drive()
        renewals = await said(log, task, work.TaskClaimRenewed)
        assert {renewal.role for renewal in renewals} == {"propose", "verify"}
        assert await status_of(log, task) == "FINALIZED"


async def test_call_is_given_up_when_its_lease_cannot_be_renewed_any_more(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        began = clock()
        await Driver(log, hands(Puppet(takes_s=3600)), task, once=True).drive()
        assert clock() - began == 15_000, "half of time_ms: an author's leases of one role in one epoch"
        assert [error.reason for error in await said(log, task, course.TaskError)] == ["TIMEOUT"]


async def test_candidate_with_all_the_evidence_there_may_be_is_decided(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        await Driver(log, hands(Puppet(refs=16)), task, once=True).drive()
        assert len(await said(log, task, work.EvidenceAvailable)) == 16
        assert await status_of(log, task) == "FINALIZED"


async def test_executor_that_failed_is_asked_again_a_little_later(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        puppet = Puppet(fails=1)
        await Driver(log, hands(puppet), task).drive()
        assert len(await said(log, task, course.TaskError)) == 1
        assert len(puppet.executed) == 2
        assert len({request.attempt_id for request in puppet.executed}) == 2
        assert await status_of(log, task) == "FINALIZED"


async def test_task_that_is_stopped_while_the_executor_works_is_left_at_once(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log, trio.open_nursery() as nursery:
        task = await create(log, world)
        driver = Driver(log, hands(Puppet(takes_s=10)), task)
        nursery.start_soon(driver.drive)
        await trio.sleep(1)
        await log.author(Draft(course.TaskStopped("enough"), task, 1))
        driver.heard()
        await trio.testing.wait_all_tasks_blocked()
        assert clock() == genesis_ms + 2_000
        assert (await kinds(log, task))[-1] == "TASK_STOPPED"


async def test_stop_that_nobody_told_of_is_found_when_the_log_refuses(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Driver(log, hands(Puppet(takes_s=2)), task).drive)
            await trio.sleep(1)
            await log.author(Draft(course.TaskStopped("enough"), task, 1))
        assert (await kinds(log, task))[-1] == "TASK_STOPPED"
        assert not (await log.task(task)).verdicts


async def test_candidate_that_comes_too_late_is_on_record_as_an_error(autojump_clock: None) -> None:
    world = World.of(1)
    jump = [0]

    class Sleepwalker(Puppet):
        async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse:
            jump[0] = 60_000
            return await super().execute(request, deadline_ms)

    async with log_of(world, at=lambda: clock() + jump[0]) as log:
        task = await create(log, world)
        await Driver(log, hands(Sleepwalker()), task, once=True).drive()
        errors = await said(log, task, course.TaskError)
        assert len(errors) == 1
        assert "is not accepted" in errors[0].message
        assert "CANDIDATE_PROPOSED" not in await kinds(log, task)


# -- the finalize stage ----------------------------------------------------------------------------------------------


async def test_executor_that_serves_the_finalize_stage_is_asked_before_the_signature(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        puppet = Puppet()
        await Driver(log, hands(puppet, "finalize"), task, once=True).drive()
        explored, finalized = puppet.executed
        assert (explored.stage, finalized.stage) == ("explore", "finalize")
        assert finalized.inputs["committed_candidate"]["output"] == puppet.output
        assert {**finalized.inputs, "committed_candidate": 0} == {**explored.inputs, "committed_candidate": 0}
        assert await status_of(log, task) == "FINALIZED"


async def test_finality_vote_is_withheld_if_the_finalize_stage_gives_another_output(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        puppet = Puppet()
        puppet.final_output = {**puppet.output, "answer": "goodbye"}
        driver = Driver(log, hands(puppet, "finalize"), task, once=True)
        await driver.drive()
        assert (await kinds(log, task))[-1] == "DECISION_COMMITTED"
        assert any("another output" in why for why in driver.waits_for)


async def test_executor_that_does_not_offer_the_finalize_stage_is_not_asked_for_it(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        puppet = Puppet()
        await Driver(log, hands(puppet, "explore"), task, once=True).drive()
        assert [request.stage for request in puppet.executed] == ["explore"]


# -- what is not signed ----------------------------------------------------------------------------------------------


async def test_task_under_a_policy_hash_that_is_nobodys_is_not_verified(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world, {"acceptance.verifier_policy.policy_hash": "00" * 32})
        puppet = Puppet()
        await Driver(log, hands(puppet), task, once=True).drive()
        assert puppet.verified == []
        assert "VOTE_COMMIT" not in await kinds(log, task)


async def test_no_finality_vote_under_a_membership_older_than_the_one_before(autojump_clock: None) -> None:
    world = World.of(1)
    async with log_of(world) as log:
        task = await create(log, world)
        for name in ("ben", "cy"):
            await log.author(Draft(world.next_version({**world.members, name: {"proposer"}}).update))
        driver = Driver(log, hands(Puppet()), task, once=True)
        await driver.drive()
        assert (await kinds(log, task))[-1] == "DECISION_COMMITTED"
        assert any("older than the one before" in why for why in driver.waits_for)


async def test_node_that_may_not_author_says_so(autojump_clock: None) -> None:
    world = World.of(1)

    class Shut(MemoryGuard):
        def confirm(self, seq: int, event_id: bytes | None) -> Any:
            if seq >= 0:
                raise Refused("guard_copied", "the guard was copied")
            return super().confirm(seq, event_id)

    async with open_log(MemoryStore(), world.network, keys_of("ada"), Shut(), clock) as log:
        task = await create(log, world)
        with pytest.raises(Refused, match="copied"):
            await Driver(log, hands(Puppet()), task).drive()


# -- several nodes ---------------------------------------------------------------------------------------------------


class Meshed:
    """A log whose events reach its peers a moment later, as over a network without loss."""

    def __init__(self, log: Log, delay_s: float) -> None:
        self.log, self.delay_s = log, delay_s
        self.peers: list[Meshed] = []
        self.driver: Driver | None = None
        self.nursery: trio.Nursery | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    async def author(self, *drafts: Draft) -> list[Event]:
        events = await self.log.author(*drafts)
        for peer in self.peers:
            assert self.nursery is not None
            self.nursery.start_soon(peer.hear, events)
        return events

    async def hear(self, events: list[Event]) -> None:
        await trio.sleep(self.delay_s)
        await self.log.ingest(events)
        if self.driver is not None:
            self.driver.heard()


@asynccontextmanager
async def swarm(world: World, delay_s: float) -> AsyncIterator[list[Meshed]]:
    async with AsyncExitStack() as stack:
        meshed = [
            Meshed(await stack.enter_async_context(log_of(world, name)), delay_s)
            for name in names[: len(world.members)]
        ]
        nursery = await stack.enter_async_context(trio.open_nursery())
        for one in meshed:
            one.peers = [other for other in meshed if other is not one]
            one.nursery = nursery
        yield meshed


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.4])
async def test_four_nodes_decide_with_the_same_root(delay_s: float, autojump_clock: None) -> None:
    world = World.of(4)
    async with swarm(world, delay_s) as nodes:
        task = await create(cast(Log, nodes[0]), world, {**wide, "acceptance.quorum_threshold": 2})
        await trio.sleep(delay_s + 0.01)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    node.driver = Driver(cast(Log, node), hands(Puppet(0.1)), task)
                    nursery.start_soon(node.driver.drive)
        await trio.sleep(delay_s + 0.01)
        assert {await status_of(node.log, task) for node in nodes} == {"FINALIZED"}
        assert len({(await node.log.head()).state_root for node in nodes}) == 1
        assert not (await nodes[0].log.task(task)).verdicts or delay_s, "nobody tried what its state refuses"


def test_salt_of_a_vote_is_found_again_after_a_restart_and_by_nobody_else() -> None:
    vote = Verify(1, 1, b"\x01" * 32, "verify-1", 0)
    salt = vote_salt(keys_of("ada"), b"\x02" * 32, vote)
    assert len(salt) >= salt_hex_chars_min
    assert vote_salt(keys_of("ada"), b"\x02" * 32, replace(vote, execution_id="verify-2", lease_until=1)) == salt
    others = [
        vote_salt(keys_of("ben"), b"\x02" * 32, vote),
        vote_salt(keys_of("ada"), b"\x03" * 32, vote),
        *(
            vote_salt(keys_of("ada"), b"\x02" * 32, replace(vote, **change))
            for change in ({"epoch": 2}, {"attempt": 2}, {"candidate_hash": b"\x04" * 32})
        ),
    ]
    assert len({salt, *others}) == 6
