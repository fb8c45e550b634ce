"""Two nodes of 100,000 events find their differences: bytes, round trips and CPU, beside the reference's own way.

The basis names what the same differences cost in the style of other implementations (docs/network.md §6), measured in
the same run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.figure import Figure
from net.proto.items import Items, id_bytes
from net.proto.negentropy import Initiator, Responder, Style, ours, reference

Log = list[tuple[int, bytes]]

size = 100_000
start_s = 1_700_000_000
single_rounds = 11
several = 1_000
single_bytes_goal = 1_300.0
single_cpu_ms_goal = 20.0
single_trips_goal = 2.0
scattered_bytes_goal = 600.0
newest_bytes_goal = 35.0
trips_goal = 3.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a session took, both sides together."""

    bytes: int
    round_trips: int
    cpu_ms: float

    def said(self, differences: int) -> str:
        return f"{self.bytes / differences:,.0f} B each, {self.round_trips} RT, {self.cpu_ms:.1f} ms"


def session(mine: Items, theirs: Items, style: Style) -> Cost:
    """One session to its end. Both sets are as they are between sessions: their views made."""
    differences = {*mine.view().ids(0, len(mine))} ^ {*theirs.view().ids(0, len(theirs))}
    initiator, responder = Initiator(mine, style), Responder(theirs, style)
    found: list[bytes] = []
    length = trips = 0
    start = time.process_time()
    message: bytes | None = initiator.open()
    while message is not None:
        reply = responder.answer(message)
        step = initiator.answer(reply)
        length, trips = length + len(message) + len(reply), trips + 1
        found += step.have + step.need
        message = step.reply
    cpu_ms = (time.process_time() - start) * 1e3
    assert step.complete
    assert set(found) == differences
    assert len(found) == len(differences)
    return Cost(length, trips, cpu_ms)


def both_ways(log: Log, less: Log, style: Style) -> Cost:
    """The dearer of two sessions: the one who asks lacks something, or the one who answers."""
    full, part = Items(log), Items(less)
    costs = [session(part, full, style), session(full, part, style)]
    return max(costs, key=lambda cost: cost.bytes)


def without(log: Log, count: int, seed: int) -> Log:
    """The log without ``count`` scattered items."""
    gone = set(Random(seed).sample(range(len(log)), count))
    return [item for at, item in enumerate(log) if at not in gone]


async def measure(_: Path) -> list[Figure]:
    """Bytes, round trips and CPU for one missing item, for 1,000 scattered ones, and for the newest 1,000."""
    random = Random(1)
    log = [(start_s + second, random.randbytes(id_bytes)) for second in range(size)]
    one = [both_ways(log, without(log, 1, seed), ours) for seed in range(single_rounds)]
    one_reference = both_ways(log, without(log, 1, 0), reference)
    some = without(log, several, 2)
    scattered, scattered_reference = both_ways(log, some, ours), both_ways(log, some, reference)
    newest, newest_reference = (both_ways(log, log[:-several], style) for style in (ours, reference))
    cpu = sorted(cost.cpu_ms for cost in one)[single_rounds // 2]
    alone = f"1 missing of {size:,}, the worse side; the reference's way: {one_reference.said(1)}"
    apart = (
        f"{several:,} of {size:,}, {scattered.cpu_ms:.0f} ms; the reference's way: {scattered_reference.said(several)}"
    )
    late = f"{several:,} of {size:,}, {newest.cpu_ms:.0f} ms; the reference's way: {newest_reference.said(several)}"
    return [
        Figure("1 missing, bytes", max(cost.bytes for cost in one), single_bytes_goal, alone, least=False),
        Figure("1 missing, RT", max(cost.round_trips for cost in one), single_trips_goal, alone, least=False),
        Figure("1 missing, ms of CPU", cpu, single_cpu_ms_goal, alone, least=False),
        Figure("scattered missing, bytes each", scattered.bytes / several, scattered_bytes_goal, apart, least=False),
        Figure("scattered missing, RT", scattered.round_trips, trips_goal, apart, least=False),
        Figure("newest missing, bytes each", newest.bytes / several, newest_bytes_goal, late, least=False),
        Figure("newest missing, RT", newest.round_trips, trips_goal, late, least=False),
    ]
