"""One run: a scenario and a seed make a swarm, break it, heal it, and say what held (docs/netsim.md §1).

Everything that chance decides comes from the seed, by streams of their own for keys, wires, faults and load, so that
one more fault changes nothing about the rest.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

from netsim.checkers import Checkers, Violation
from netsim.clock import Timeline, start_ms
from netsim.disk import Written
from netsim.faults import Faults, upgrade
from netsim.intake import Decoder
from netsim.liars import Lies, begin_lying
from netsim.measure import Measures
from netsim.network import Network
from netsim.node import SimNode, Surroundings
from netsim.releases import this as this_release
from netsim.scenario import Scenario
from netsim.steps import Steps
from netsim.trace import Trace
from netsim.workload import Workload, lay_history
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.genesis import make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network as Membership

everything = frozenset({"proposer", "verifier", "committer", "finalizer"})
worker = everything - {"finalizer"}
step_ms = 1_000
young_objects_max = 50_000
"""How many objects there may be before Python looks for garbage: a run makes many, and few of them in circles."""


@dataclass(slots=True)
class Outcome:
    """What became of a run. ``fault``: what did not hold, empty if all did; ``digest``: of its trace."""

    scenario: str
    seed: int
    fault: str
    digest: str
    virtual_ms: int
    events: int
    tasks: int
    figures: dict[str, Any] = field(default_factory=dict)
    last: list[str] = field(default_factory=list)


class World:
    """A swarm in virtual time. ``progress`` hears of virtual ms passed and to pass."""

    def __init__(self, scenario: Scenario, seed: int, out: TextIO | None = None) -> None:
        self.scenario, self.seed = scenario, seed
        self.timeline = Timeline()
        self.trace = Trace(out)
        self.measures = Measures(self.timeline)
        self.wires = Network(self.timeline, self._draw("wires"), scenario.link)
        keys = [Keypair(sha256(f"{seed} key {number}".encode())) for number in range(scenario.nodes)]
        belonging = scenario.nodes - scenario.liars.get("stranger", 0)
        deciding = min(scenario.finalizers or belonging, belonging)
        roles = {key.node_id: everything if at < deciding else worker for at, key in enumerate(keys[:belonging])}
        keys += [Keypair(sha256(f"{seed} spare {number}".encode())) for number in range(scenario.spares)]
        genesis = make_genesis(
            name="netsim",
            created_at=start_ms - 86_400_000 * 2,
            fault_model="byzantine",
            members=roles,
            signers=keys[:1],
        )
        self._network = Membership.of(genesis)
        self.steps = Steps(once=scenario.folds == "once")
        around = Surroundings(
            self.timeline,
            self.wires,
            genesis,
            Decoder(genesis.network_id, once=scenario.signatures == "once"),
            self.steps,
            self,
            scenario.database,
            scenario.executor,
            scenario.spares,
        )
        firsts: list[str] = []
        self.nodes: list[SimNode] = []
        for number, key in enumerate(keys):
            node = SimNode(around, f"n{number:03}", key, str(seed), tuple(firsts), udp=scenario.udp)
            self.nodes.append(node)
            if number < scenario.bootstrap:
                firsts.append(node.address)
        self.lies: Lies = begin_lying(scenario.liars, self.nodes, around, self._draw("lies"))
        self.honest = [node for node in self.nodes if node.honest]
        liars = [node for node in self.nodes if not node.honest]
        lying = sum(not node.honest for node in self.nodes[:deciding])
        self.checkers = Checkers((node.node_id for node in self.honest), safe=3 * lying < deciding)
        until_ms = self.timeline.now_ms + round(scenario.seconds * 1000)
        early = self.honest[: len(self.honest) - scenario.late]
        members = [node for node in early if node.node_id in roles]
        self.workload = Workload(self.timeline, self._draw("load"), members, scenario.load, until_ms)
        self.faults = Faults(self.timeline, self._draw("faults"), self.wires, early, liars, until_ms)
        self._early, self._until_ms = early, until_ms

    def _draw(self, what: str) -> random.Random:
        return random.Random(f"{self.scenario.name} {self.seed} {what}")

    # -- who looks on -----------------------------------------------------------------------------------------------

    def wrote(self, node: SimNode, written: Written) -> None:
        """A transaction of some node's."""
        head = node.disk.store.head
        said = f"{len(written.events)}+{len(written.certificates)} {head.events_sum & 0xFFFFFFFF:08x}"
        self.tell(node.name, "wrote", f"{said} {head.state_root & 0xFFFFFFFF:08x}")
        self.measures.wrote(node, written)
        if node.honest:
            self.checkers.wrote(node, written)

    def put_back(self, node: SimNode) -> None:
        """A node has another disk now, of which nobody knows how old it is."""
        if node.honest:
            self.checkers.put_back(node, self.honest)

    def recovered(self, node: SimNode) -> None:
        """A node goes on with its chain after it was put back."""
        seq = self.checkers.recovered(node, self.honest) if node.honest else -1
        self.tell(node.name, "recovered", f"at {seq}")

    def tell(self, who: str, what: str, detail: str) -> None:
        """A line of the trace."""
        self.trace.line(self.timeline.elapsed_ms, who, what, detail)

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Outcome:
        """All of it."""
        fault = ""
        collected = gc.get_threshold()
        gc.set_threshold(young_objects_max, *collected[1:])
        try:
            self._run(progress)
        except Violation as violation:
            fault = str(violation)
        finally:
            this_release.runs()
            gc.set_threshold(*collected)
        self.tell("world", "end", fault or "all held")
        head = self.honest[0].disk.store.head
        return Outcome(
            self.scenario.name,
            self.seed,
            fault,
            self.trace.digest,
            self.timeline.elapsed_ms,
            head.events,
            len(self.workload.tasks),
            self.measures.figures(self.honest, self.wires, self.faults.told),
            self.trace.around(fault) if fault else [],
        )

    def _run(self, progress: Callable[[int, int], None]) -> None:
        timeline, scenario = self.timeline, self.scenario
        settle_ms = round(scenario.settle_s * 1000)
        whole_ms = self._until_ms + settle_ms - timeline.now_ms
        if scenario.load.history:
            lay_history(self.workload.nodes, scenario.load, self._network)
        for node in [*self._early, *(node for node in self.nodes if not node.honest)]:
            node.start()
        self.workload.begin()
        self.faults.begin(scenario.faults)
        self.lies.begin()
        while timeline.now_ms < self._until_ms:
            self._step(min(self._until_ms, timeline.now_ms + step_ms))
            progress(timeline.elapsed_ms, whole_ms)
        self.faults.end()
        self.lies.end()
        if any(fault.kind == "upgrade" for fault in scenario.faults):
            upgrade(self.honest)
        for node in self.honest:
            if not node.up:
                node.start()
        end_ms = timeline.now_ms + settle_ms
        while timeline.now_ms < end_ms and not self._at_rest():
            self._step(min(end_ms, timeline.now_ms + step_ms))
            progress(timeline.elapsed_ms, whole_ms)
        self.checkers.healed(self._members() + self._readers(), self._owed())

    def _step(self, until_ms: int) -> None:
        self.timeline.run(until_ms)
        self.measures.looked(self.honest)
        self.checkers.looked(self.honest)

    def _members(self) -> list[SimNode]:
        """The honest nodes that belong to the network now, as the one with the newest version knows it."""
        newest = max((node.network.current for node in self.honest), key=lambda version: version.number)
        return [node for node in self.honest if node.node_id in newest.members]

    def _readers(self) -> list[SimNode]:
        """The other honest nodes, which only read along."""
        members = {node.name for node in self._members()}
        return [node for node in self.honest if node.name not in members]

    def _owed(self) -> list[bytes]:
        """The tasks that must have ended: those whose creation is on the log, and counts."""
        store = self._members()[0].disk.store
        created = [store.event(task) for task in self.workload.tasks]
        return [one.id for one in created if one is not None and not store.void(one)]

    def _at_rest(self) -> bool:
        """Nobody has anything to tell anybody, and no task is open: the end need not be waited for."""
        heads = {(node.disk.store.head.events_sum, node.disk.store.head.certificates_sum) for node in self.honest}
        return len(heads) == 1 and not any(self.honest[0].is_open(task) for task in self._owed())
