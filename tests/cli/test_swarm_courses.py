"""Tasks that do not go the straight way, at four real daemons: slow and failing executors, time that ends, epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from sel.views import EventFilter, EventView
from sel.views import events as events_of
from tests.daemons import contract, eventually, on_node, states, submit
from tests.swarms import Swarm, becomes, meshed, of_two, open_swarm, runtime, standing
from wattswarm.kernel.refusal import Refused
from wattswarm.node import Node, now_ms
from wattswarm.runtime.executors import Executors, checked
from wattswarm.tasks import halt

lease_ms, work_ms = 1_000, 3_500
lived_ms = 5_000


def of_type(task_type: str, document: dict[str, Any]) -> dict[str, Any]:
    """The contract, for executors of that type."""
    return {**document, "task_type": task_type}


def tasks_of_all_sorts() -> list[dict[str, Any]]:
    """One task of each sort, named as its sort."""
    slow = of_type("slow", contract("slow"))
    slow["assignment"]["claim"]["lease_ms"] = lease_ms
    unserved = of_type("unserved", contract("unserved"))
    unserved["expiry_ms"] = now_ms() + lived_ms
    again = contract("again")
    again["task_mode"], again["budget"]["mode"] = "CONTINUOUS", "EPOCH_RENEW"
    return [slow, of_type("flaky", of_two("flaky")), unserved, again]


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Four daemons with an executor for each sort of task but one, and a task of each sort."""
    sorts = {
        "swarm": (),
        "slow": ("--task-types", "slow", "--latency-ms", str(work_ms)),
        "flaky": ("--task-types", "flaky", "--fail-rate", "0.5"),
    }
    with ExitStack() as stack:
        made = stack.enter_context(open_swarm(4, executors=False))
        for name, flags in sorts.items():
            executor = trio.run(checked, name, stack.enter_context(runtime(*flags)))
            for where in made.places:
                Executors(where).put(executor)
        meshed(made.places)
        submit(made.places[0], *tasks_of_all_sorts())
        yield made


def told(where: Path, task: str, kind: str) -> list[EventView]:
    """The events of a kind that a task accepted, as a node holds them."""

    async def work(node: Node) -> Sequence[EventView]:
        wanted = EventFilter(stream=await node.log.resolve(task), kind=kind)
        return await events_of(node.database, node.log.network.network_id, wanted)

    return [event for event in on_node(where, work) if event.verdict == "accepted"]


def state_on(where: Path, task: str) -> str | None:
    """A task's state on a node, None if it is not there."""
    return states(where).get(task)


def ends(swarm: Swarm, task: str, state: str) -> None:
    """The task ends so on every node."""
    for where in swarm.places:
        becomes(partial(state_on, where, task), state)


def test_a_lease_is_renewed_while_a_slow_executor_works_and_nobody_else_begins(swarm: Swarm) -> None:
    ends(swarm, "slow", "FINALIZED")
    for where in swarm.places:
        renewed = told(where, "slow", "TASK_CLAIM_RENEWED")
        assert {event.payload["role"] for event in renewed} == {"propose", "verify"}
        assert len(told(where, "slow", "CANDIDATE_PROPOSED")) == 1
        assert len(told(where, "slow", "TASK_CLAIMED")) == 2, "one who proposes, one who verifies"
        assert told(where, "slow", "TASK_ERROR") == []


def test_a_task_is_decided_though_its_executor_fails_at_every_other_call(swarm: Swarm) -> None:
    ends(swarm, "flaky", "FINALIZED")
    for where in swarm.places:
        assert told(where, "flaky", "TASK_ERROR") != []
        assert len(told(where, "flaky", "DECISION_FINALIZED")) == 1


def test_a_task_that_nobody_can_work_on_expires_once_and_everywhere(swarm: Swarm) -> None:
    ends(swarm, "unserved", "EXPIRED")
    (first,) = told(swarm.places[0], "unserved", "TASK_EXPIRED")
    for where in swarm.places[1:]:
        assert [event.event_id for event in told(where, "unserved", "TASK_EXPIRED")] == [first.event_id]


def test_a_continuous_task_is_decided_epoch_after_epoch_until_it_is_stopped(swarm: Swarm) -> None:
    def epochs(where: Path, kind: str) -> list[int]:
        return sorted(event.epoch for event in told(where, "again", kind))

    def first_epochs(where: Path) -> list[int]:
        return epochs(where, "DECISION_FINALIZED")[:2]

    for where in swarm.places:
        becomes(partial(first_epochs, where), [1, 2])
        assert epochs(where, "EPOCH_ENDED")[:1] == [1]

    async def stop(node: Node) -> None:
        with suppress(Refused):  # the epoch ended meanwhile
            await halt(node.log, "again", "stop", "seen enough")

    def stopped() -> bool:
        """The operator says it again when an epoch that ended elsewhere at that moment left it behind."""
        if states(swarm.places[0])["again"] == "OPEN":
            on_node(swarm.places[0], stop)
        return all(states(where)["again"] == "STOPPED" for where in swarm.places)

    eventually(stopped)
    for where in swarm.places:
        decided = epochs(where, "DECISION_FINALIZED")
        assert decided == list(range(1, len(decided) + 1)), "one decision an epoch"
    for where in swarm.places:
        becomes(partial(standing, where), standing(swarm.places[0]))
