"""Four daemons, each on a host of its own: found by multicast, parted, on a lossy network, and equal in the end.

What has a bound here: once a cut heals, everybody is connected and holds the same within ``healed_s``. That is an
announcement (5 s) or, where a node was not silent long enough to count as new, a back-off (30 s), a dial (10 s), and
one round of comparison on the new connection.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from netsim.cluster.lan import Cut, Lan, open_lan
from sel import views
from tests.daemons import contract, daemon, eventually, on_node, place, submit, wattswarm
from tests.swarms import (
    Swarm,
    becomes,
    founded,
    meshed,
    node_id_of,
    of_two,
    peers_of,
    runtime,
    standing,
)
from wattswarm.node import Node

size = 4
elsewhere = size  # a host beside theirs: the runtime's, and of whoever only asks
patience_s = 120.0
healed_s = 60.0
silence_s = 120.0
busy = 60
_numbers = count()


def _said(what: Callable[[], Any]) -> str:
    return str(what())


class Parted(Swarm):
    """A swarm over hosts."""

    lan: Lan

    def idle(self, number: int) -> list[str]:
        """Submit tasks at a daemon that nobody will work on; their labels."""
        documents = [contract(f"idle-{next(_numbers)}") | {"task_type": "nobody's"} for _ in range(busy)]
        submit(self.places[number], *documents)
        return [document["task_id"] for document in documents]

    def given(self, number: int) -> str:
        """Submit a task at a daemon, to be decided by two, with time for a cut between; its label."""
        document = of_two(f"two-{next(_numbers)}")
        document["budget"]["time_ms"] = 600_000
        submit(self.places[number], document)
        return str(document["task_id"])

    def states(self, number: int) -> dict[str, str]:
        """Label -> state."""

        async def work(node: Node) -> dict[str, str]:
            return {view.task_id: view.state for view in await views.tasks(node.database)}

        return on_node(self.places[number], work)

    def decided(self, label: str) -> None:
        """Wait until everybody knows the decision of a task."""
        for number, where in enumerate(self.places):
            waits_for = partial(wattswarm, where, "task", "watch", label, "--once")
            eventually(partial(self.is_final, number, label), partial(_said, waits_for), patience_s)

    def is_final(self, number: int, label: str) -> bool:
        """Whether a daemon knows the decision of a task."""
        return self.states(number).get(label) == "FINALIZED"

    def lacks(self, number: int, labels: set[str]) -> set[str]:
        """Which of these tasks a daemon does not know."""
        return labels - self.states(number).keys()

    def alike(self, within_s: float) -> None:
        """Wait until everybody holds the same."""
        becomes(lambda: len({standing(where) for where in self.places}), 1, within_s)

    def see(self, numbers: set[int], others: set[int], within_s: float) -> None:
        """Wait until these are connected to exactly those, beside themselves."""
        ids = [node_id_of(where) for where in self.places]
        for number in sorted(numbers):
            becomes(partial(peers_of, self.places[number]), {ids[other] for other in others - {number}}, within_s)

    def certificates(self, number: int) -> set[bytes]:
        """Ids of the decisions that have their proof."""

        async def work(node: Node) -> set[bytes]:
            rows = await node.database.run(
                lambda found: found.fetch("SELECT certificate_id FROM certificates WHERE kind = 'decision'")
            )
            return {bytes(row[0]) for row in rows}

        return on_node(self.places[number], work)


@pytest.fixture(scope="module")
def swarm(hosts_can_be_made: None) -> Iterator[Parted]:
    with ExitStack() as stack:
        lan = stack.enter_context(open_lan(size + 1))
        places = [stack.enter_context(place()) for _ in range(size)]
        network = founded(places)
        address = f"{lan.address(elsewhere)}:8787"
        stack.enter_context(runtime("--listen", address, within=lan.within(elsewhere)))
        wattswarm(places[0], "executors", "add", "rt", f"http://{address}", within=lan.within(0))
        for where in places[1:]:
            shutil.copy(places[0] / "executors.json", where)
        ways = ("--udp", "--observers", "1")
        daemons = [stack.enter_context(daemon(where, *ways, within=lan.within(n))) for n, where in enumerate(places)]
        made = Parted(places, daemons, network)
        made.lan = lan
        yield made


@pytest.fixture(autouse=True)
def whole(swarm: Parted) -> Iterator[None]:
    """Every test begins and leaves with everybody connected."""
    meshed(swarm.places, patience_s)
    yield
    swarm.lan.lose(0)
    swarm.lan.heal()


def test_four_hosts_meet_by_multicast_and_decide_and_a_fifth_gets_the_proof(swarm: Parted, tmp_path: Path) -> None:
    label = swarm.given(1)
    swarm.decided(label)
    swarm.alike(patience_s)
    task = wattswarm(swarm.places[0], "task", "decision", label)["task"]
    peer = f"{swarm.lan.address(2)}:{swarm.daemons[2].ready.rsplit(':', 1)[1]}"
    words = ("proof", "fetch", task, "--peer", peer, "--network", swarm.network.hex())
    fetched: dict[str, Any] = wattswarm(tmp_path / "none", *words, within=swarm.lan.within(elsewhere))
    assert fetched["network_pinned"] is True


@pytest.mark.parametrize("how", ["reset", "silent"])
def test_parted_in_halves_both_author_and_when_it_heals_all_hold_the_same_and_what_was_final_stays(
    how: Cut, swarm: Parted
) -> None:
    """Silence lasts until every ping's deadline is over: the longest that a connection is remembered for."""
    before = swarm.given(0)
    swarm.decided(before)
    swarm.alike(patience_s)
    final = swarm.certificates(0)
    swarm.lan.cut({0, 1}, {2, 3}, how)
    said = swarm.idle(0) + swarm.idle(2)
    open_tasks = [swarm.given(1), swarm.given(3)]
    for half in ({0, 1}, {2, 3}):
        swarm.see(half, half, silence_s)
    assert standing(swarm.places[0]) != standing(swarm.places[2])
    assert {swarm.states(1)[open_tasks[0]], swarm.states(3)[open_tasks[1]]}.isdisjoint({"FINALIZED"})
    swarm.lan.heal()
    meshed(swarm.places, healed_s)
    for number in range(size):
        becomes(partial(swarm.lacks, number, {*said, *open_tasks}), set(), healed_s)
    for label in open_tasks:
        swarm.decided(label)
    swarm.alike(patience_s)
    for number in range(size):
        assert final < swarm.certificates(number)
    verified = wattswarm(swarm.places[3], "log", "verify")
    assert verified["ok"]


def test_a_network_that_loses_three_packets_of_ten_ends_equal(swarm: Parted) -> None:
    swarm.lan.lose(30)
    said = swarm.idle(1) + swarm.idle(2) + [swarm.given(3)]
    swarm.decided(said[-1])
    swarm.alike(patience_s)
    assert swarm.lacks(0, set(said)) == set()
