"""Members come and go, over real sockets: an observer reads along, then replaces a finalizer that is lost for good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from sel.embedded import EmbeddedPostgres
from sel.views import EventFilter, events
from tests.daemons import contract, daemon, on_node, place, states, submit, wattswarm
from tests.swarms import Swarm, becomes, meshed, node_id_of, of_two, open_swarm, peers_of, runtime, standing
from wattswarm import members
from wattswarm.kernel.genesis import all_roles
from wattswarm.kernel.refusal import Refused
from wattswarm.node import Node
from wattswarm.runtime.executors import Executors, checked
from wattswarm.tasks import decision


@dataclass(frozen=True)
class Story:
    """A swarm of four, and eve: her place and her connections when she only read."""

    swarm: Swarm
    eve: Path
    read_on: set[tuple[str, str]]
    lost: str

    @property
    def left(self) -> list[Path]:
        """Where a daemon runs still."""
        return [*self.swarm.places[:3], self.eve]


def connections(where: Path) -> set[tuple[str, str]]:
    """A daemon's connections: (node id, address)."""
    told = json.loads((where / "node_state.json").read_bytes())["peers"]
    return {(peer["node_id"], peer["address"]) for peer in told}


def members_met(where: Path) -> set[str]:
    """Whom a daemon is connected to and takes for members."""
    told = json.loads((where / "node_state.json").read_bytes())["peers"]
    return {peer["node_id"] for peer in told if peer["member"]}


def version(where: Path) -> int:
    """The number of the membership version that a node knows."""

    async def work(node: Node) -> int:
        return node.log.network.current.number

    return on_node(where, work)


def proposed(where: Path) -> int:
    """How many proposals a node knows."""

    async def work(node: Node) -> int:
        return len(members.proposals(await members.take_seat(node)))

    return on_node(where, work)


def replaced(where: Path, lost: str, new: str) -> None:
    """An operator proposes that ``new`` comes for ``lost``."""

    async def work(node: Node) -> None:
        seat = await members.take_seat(node)
        added = {bytes.fromhex(new): frozenset(all_roles)}
        await members.propose(node, await members.draft_version(node, seat, added, {bytes.fromhex(lost)}))

    on_node(where, work)


def approved(where: Path) -> None:
    """Another operator agrees."""

    async def work(node: Node) -> None:
        (only,) = members.proposals(await members.take_seat(node))
        await members.sign(node, only)

    on_node(where, work)


def state(where: Path, task: str) -> str | None:
    """A task's state on a node, None if it is not there."""
    return states(where).get(task)


def authors(where: Path, task: str) -> set[str]:
    """Whose events count in a task."""

    async def work(node: Node) -> set[str]:
        wanted = EventFilter(stream=await node.log.resolve(task))
        said = await events(node.database, node.log.network.network_id, wanted)
        return {event.author for event in said if event.verdict == "accepted"}

    return on_node(where, work)


def decided(where: Path, task: str) -> dict[str, Any]:
    """What a node says of a task's decision."""

    async def work(node: Node) -> dict[str, Any]:
        return decision(await node.log.task(await node.log.resolve(task)))

    return on_node(where, work)


def lose(swarm: Swarm, number: int) -> None:
    """A machine burns down: its daemon, its database and its key are gone."""
    swarm.daemons[number].kill()
    with EmbeddedPostgres(swarm.places[number]):
        pass
    shutil.rmtree(swarm.places[number])


def of_all_others(label: str) -> dict[str, Any]:
    """A contract that every verifier but the proposer has to approve, of four."""
    document = of_two(label)
    document["acceptance"] |= {"quorum_threshold": 3, "da_quorum_threshold": 3}
    document["assignment"]["verify"]["max_verifiers"] = 3
    document["assignment"]["claim"]["max_concurrency"]["verify"] = 3
    return document


@pytest.fixture(scope="module")
def reading() -> Iterator[Story]:
    """Eve has joined by an invite, and holds what the others hold: a task that nobody works on yet."""
    with ExitStack() as stack:
        swarm = stack.enter_context(open_swarm(4, executors=False))
        eve = stack.enter_context(place())
        meshed(swarm.places)
        invite = wattswarm(swarm.places[0], "network", "invite")["invite"]
        assert wattswarm(eve, "network", "join", invite)["roles"] == []
        stack.enter_context(daemon(eve, "--listen", "127.0.0.1:0"))
        becomes(lambda: peers_of(eve), {node_id_of(where) for where in swarm.places})
        submit(swarm.places[0], contract("early"))
        becomes(lambda: states(eve), {"early": "OPEN"})
        yield Story(swarm, eve, connections(eve), node_id_of(swarm.places[3]))


@pytest.fixture(scope="module")
def after(reading: Story) -> Story:
    """Dee is lost for good; the three that are left have put eve in her place, and all four have an executor's URL."""
    swarm, eve = reading.swarm, reading.eve
    lose(swarm, 3)
    ada, ben, cy = swarm.places[:3]
    replaced(ada, reading.lost, node_id_of(eve))
    for where in (ben, cy):
        becomes(partial(proposed, where), 1)
        approved(where)
    for where in reading.left:
        becomes(partial(version, where), 1)
    return reading


@pytest.fixture(scope="module")
def working(after: Story) -> Iterator[Story]:
    """All that are left have an executor."""
    with runtime() as url:
        executor = trio.run(checked, "rt", url)
        for where in after.left:
            Executors(where).put(executor)
        yield after


def test_an_observer_reads_along_and_may_not_append(reading: Story) -> None:
    eve = reading.eve
    becomes(lambda: standing(eve), standing(reading.swarm.places[0]))
    before = standing(eve)
    with pytest.raises(Refused, match="is no member of its network, it observes"):
        submit(eve, contract("unheard"))
    assert standing(eve) == before


def test_a_finalizer_that_is_lost_for_good_is_replaced_by_the_three_that_are_left(after: Story) -> None:
    new = node_id_of(after.eve)
    for where in (after.swarm.places[0], after.eve):
        listed = wattswarm(where, "members", "list")
        assert after.lost not in listed["members"]
        assert listed["members"][new] == sorted(all_roles)
        assert listed["fault_tolerance"] == "4 finalizers: a decision needs 3; one may be down or lie"


def test_who_becomes_a_member_stays_on_the_connections_that_it_read_on(after: Story) -> None:
    of_the_left = {(node_id, address) for node_id, address in after.read_on if node_id != after.lost}
    assert len(of_the_left) == 3
    becomes(lambda: connections(after.eve), of_the_left)
    ids = {where: node_id_of(where) for where in after.left}
    for where in after.left:
        becomes(partial(members_met, where), set(ids.values()) - {ids[where]})


def test_a_task_from_before_is_decided_by_three_of_its_own_finalizers(working: Story) -> None:
    new = node_id_of(working.eve)
    for where in working.left:
        becomes(partial(state, where, "early"), "FINALIZED")
    found = decided(working.eve, "early")
    assert (found["finality_threshold"], found["finalizers"]) == (3, 4)
    assert set(found["signers"]) == {node_id_of(where) for where in working.swarm.places[:3]}
    assert new not in authors(working.eve, "early"), "a task keeps the members that it was created under"


def test_the_new_member_takes_part_from_then_on(working: Story) -> None:
    new = node_id_of(working.eve)
    submit(working.eve, of_all_others("late"))
    for where in working.left:
        becomes(partial(state, where, "late"), "FINALIZED")
    for where in working.left:
        becomes(partial(standing, where), standing(working.eve))
    took_part = authors(working.swarm.places[0], "late")
    assert took_part == {node_id_of(where) for where in working.left}
    assert new in took_part
