"""What a run over daemons is to meet, all of it drawn from the seed before it begins: faults, tasks, notes.

Moments are ms since the swarm was whole. What a fault finds when its moment comes is the machine's affair: two runs of
one seed are told to do the same, and never do it in the same state.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from netsim.scenario import Fault, FaultKind, Scenario
from wattswarm.kernel.codec import sha256

ending = ("crash", "wipe", "restore", "skew")
"""Faults that end a daemon: lasting ones are spared them."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault: from when until when, at which hosts. ``skews_ms``: how wrong each one's clock is to be."""

    at_ms: int
    until_ms: int
    kind: FaultKind
    hosts: tuple[int, ...]
    skews_ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Saying:
    """A task to submit or a note to write, at the first of ``hosts`` that can."""

    at_ms: int
    what: Literal["task", "note"]
    number: int
    hosts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a run, by time."""

    strikes: tuple[Strike, ...]
    sayings: tuple[Saying, ...]

    @property
    def digest(self) -> str:
        """The plan in 64 hex digits."""
        return sha256(repr(self).encode()).hex()


def drawn(scenario: Scenario, seed: int) -> Plan:
    """The plan of a seed: faults are drawn as the simulator draws them (netsim/faults.py)."""
    draw = random.Random(f"{scenario.name} {seed} faults")
    end_ms = round(scenario.seconds * 1000)
    early = range(scenario.nodes - scenario.late)
    strikes = [strike for fault in scenario.faults for strike in _strikes(fault, draw, scenario, end_ms)]
    sayings = _sayings(scenario, random.Random(f"{scenario.name} {seed} load"), end_ms, early)
    return Plan(
        tuple(sorted(strikes, key=lambda strike: (strike.at_ms, strike.kind))),
        tuple(sorted(sayings, key=lambda saying: (saying.at_ms, saying.what, saying.number))),
    )


def _strikes(fault: Fault, draw: random.Random, scenario: Scenario, end_ms: int) -> list[Strike]:
    first = scenario.lasting if fault.kind in ending else 0
    among = range(first, scenario.nodes - scenario.late)
    count = min(len(among), max(1, round(fault.share * len(among))))
    found: list[Strike] = []
    at_ms = fault.after_s * 1000
    while at_ms < end_ms and count:
        hosts = tuple(sorted(draw.sample(among, count)))
        for_ms = fault.for_s * 1000 * (0.5 + draw.random())
        skews_ms = tuple(round(fault.skew_s * 1000 * (2 * draw.random() - 1)) for _ in hosts)
        found.append(Strike(round(at_ms), round(min(at_ms + for_ms, end_ms)), fault.kind, hosts, skews_ms))
        if not fault.every_s:
            break
        at_ms += fault.every_s * 1000 * (0.5 + draw.random())
    return found


def _sayings(scenario: Scenario, draw: random.Random, end_ms: int, among: range) -> list[Saying]:
    """As many as the rates say, at moments that are spread evenly by chance."""
    load, found = scenario.load, list[Saying]()
    tasks = min(load.tasks_max, round(load.tasks_per_s * scenario.seconds))
    notes = round(load.notes_per_s * scenario.seconds)
    for number in range(tasks):
        hosts = tuple(draw.sample(among, len(among)))
        found.append(Saying(draw.randrange(end_ms), "task", number, hosts))
    for host in among:
        found += [Saying(draw.randrange(end_ms), "note", number, (host,)) for number in range(notes)]
    return found
