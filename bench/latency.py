"""From submission to a final decision: four daemons on this host, quorum 2, an executor that answers at once.

Each task is submitted on one node, in turn, and over when that node's own log holds the proof of its decision. First
one task at a time, then several at once. The daemons are real processes with logs of their own; the executor is the
reference runtime, shared by all.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import TypeVar

import trio

from bench.figure import Figure
from sel.news import Mark, News
from tests.swarms import meshed, of_two, open_swarm
from wattswarm import tasks
from wattswarm.config import load
from wattswarm.node import Node, open_node

T = TypeVar("T")
nodes = 4
warm_up = int(os.environ.get("WATTSWARM_BENCH_WARM_UP", "8"))
alone = int(os.environ.get("WATTSWARM_BENCH_TASKS", "120"))
at_once = 4
half_ms_goal = 500.0
most_ms_goal = 2_000.0
patience_s = 60.0


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def decided_after_s(node: Node, label: str) -> float:
    """Submit a task of quorum 2 on the node; seconds until its log holds the proof of the decision."""
    news = News(node.database)
    async with news.listen() as notices:
        mark, _ = await news.open_tasks()
        start = time.perf_counter()
        created, _ = await tasks.submit(node.log, of_two(label))
        with trio.fail_after(patience_s):
            while not await _is_decided(news, mark, created.id):
                await notices.receive()
        return time.perf_counter() - start


async def _is_decided(news: News, mark: Mark, task: bytes) -> bool:
    found = await news.changed(mark)
    return any(line.task == task and line.status == "FINALIZED" for line in found.tasks)


async def run(opened: list[Node], label: str, count: int, together: int) -> list[float]:
    """``count`` tasks, ``together`` at a time, on the nodes in turn; the seconds of each."""
    numbers, took = iter(range(count)), []

    async def work() -> None:
        for number in numbers:
            took.append(await decided_after_s(opened[number % len(opened)], f"{label}-{number}"))

    async with trio.open_nursery() as nursery:
        for _ in range(together):
            nursery.start_soon(work)
    return took


async def measure_on(places: list[Path]) -> tuple[list[float], list[float]]:
    """Tasks one by one, then several at a time."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_node(load({"state_dir": str(where)}, {}))) for where in places]
        await run(opened, "warm", warm_up, 1)
        return await run(opened, "alone", alone, 1), await run(opened, "together", alone, at_once)


@asynccontextmanager
async def in_a_thread(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A context that waits, and runs loops of its own, entered and left beside this loop."""
    made = await trio.to_thread.run_sync(context.__enter__)
    try:
        yield made
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(context.__exit__, None, None, None)


async def measure(_: Path) -> list[Figure]:
    """Four figures, in milliseconds."""
    async with in_a_thread(open_swarm(nodes)) as swarm:
        await trio.to_thread.run_sync(meshed, swarm.places)
        one, several = await measure_on(swarm.places)
    found = []
    for took, how in ((one, "one at a time"), (several, f"{at_once} at a time")):
        half, most = median(took) * 1e3, percentile(took, 0.99) * 1e3
        basis = (
            f"{len(took)} tasks on {nodes} daemons, quorum 2, {how}; {min(took) * 1e3:.0f} to {max(took) * 1e3:.0f} ms"
        )
        found.append(Figure(f"submit to finalized, {how}, p50 ms", half, half_ms_goal, basis, least=False))
        found.append(Figure(f"submit to finalized, {how}, p99 ms", most, most_ms_goal, basis, least=False))
    return found
