"""How much faster than real time swarms are simulated, on one core, and how long a hundred nodes take to agree.

Times are of the processor: what else the machine does is not counted. An arrival is one event at one node that did not
author it; what it costs is also told in turns of a loop that adds, the measure of how fast Python is on this machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bench.figure import Figure
from netsim.scenario import Load, Scenario, load
from netsim.world import Outcome, World

times_real_goal = 20.0
hundred_s_goal = 60.0
seed = 1
turns = 2_000_000


@dataclass(frozen=True, slots=True)
class _Run:
    outcome: Outcome
    cpu_s: float
    turn_us: float

    @property
    def times_real(self) -> float:
        return self.outcome.virtual_ms / 1000 / self.cpu_s

    def said(self, nodes: int) -> str:
        arrivals = self.outcome.events * (nodes - 1)
        per_arrival_us = self.cpu_s / arrivals * 1e6
        return (
            f"{self.outcome.events} events on {nodes} nodes, {self.outcome.virtual_ms / 1000:.0f} s in "
            f"{self.cpu_s:.1f} s, {per_arrival_us:.0f} µs or {per_arrival_us / self.turn_us:,.0f} turns an arrival"
        )


def _turn_us() -> float:
    """What one turn of a loop that adds takes."""
    begin, total = time.process_time(), 0
    for number in range(turns):
        total += number
    return (time.process_time() - begin) / turns * 1e6


def _ran(scenario: Scenario) -> _Run:
    before_us = _turn_us()
    begin = time.process_time()
    outcome = World(scenario, seed).run()
    cpu_s = time.process_time() - begin
    assert not outcome.fault, outcome.fault
    return _Run(outcome, cpu_s, (before_us + _turn_us()) / 2)


def _twenty(seconds: float, notes_per_s: float) -> Scenario:
    return Scenario(
        "twenty",
        "Twenty nodes that say small things.",
        nodes=20,
        finalizers=7,
        signatures="once",
        folds="once",
        seconds=seconds,
        load=Load(notes_per_s=notes_per_s),
    )


async def measure(_directory: Path) -> list[Figure]:
    """Twenty nodes at two loads, and a hundred."""
    receiving, authoring = _ran(_twenty(60, 0.5)), _ran(_twenty(6, 10))
    hundred = load("hundred-nodes")
    many = _ran(hundred)
    return [
        Figure(
            "20 nodes that take in 10 events/s each, times real time",
            receiving.times_real,
            times_real_goal,
            receiving.said(20),
        ),
        Figure(
            "20 nodes that author 10 events/s each, times real time",
            authoring.times_real,
            times_real_goal,
            authoring.said(20),
        ),
        Figure("100 nodes agree on 1,000 events, s", many.cpu_s, hundred_s_goal, many.said(hundred.nodes), least=False),
    ]
