"""Authoring by one process: tasks finalized a second, and one authored event against single-row INSERT commits."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from statistics import median

import trio

from bench.figure import Figure
from bench.limits import commit_one, row_table
from sel.log import Log
from wattswarm.config import load
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads.work import TaskClaimed, TaskCreated
from wattswarm.node import Node, now_ms, open_node
from wattswarm.runtime.client import RuntimeClient
from wattswarm.runtime.local import reference_runtime
from wattswarm.runtime.part import Hands
from wattswarm.runtime.run_real import Run

concurrent_tasks = 16
task_count = 800
warm_up_tasks = 32
single_rounds = 200
tasks_goal = 60.0
single_goal = 3.0
authority = "ed25519:" + "ab" * 32


async def run_tasks(node: Node, url: str, label: str, count: int) -> float:
    """Finalize ``count`` tasks, sixteen at a time; seconds."""
    todo = iter(range(count))
    start = time.perf_counter()
    async with RuntimeClient(url) as client, trio.open_nursery() as nursery:

        async def work() -> None:
            for number in todo:
                contract = contract_from_json(sample_contract(f"{label}-{number}", now_ms() + 3_600_000, authority))
                run = Run(node.log, Hands(client, "default", ("reference", "echo-1")), contract)
                await run.all()

        for _ in range(concurrent_tasks):
            nursery.start_soon(work)
    return time.perf_counter() - start


async def author_claims(log: Log, label: str, rounds: int = single_rounds) -> AsyncGenerator[float]:
    """Seconds of one authored event alone, a claim on a task that was made just before, ``rounds`` times."""
    for number in range(rounds):
        contract = contract_from_json(sample_contract(f"{label}-{number}", now_ms() + 3_600_000, authority))
        (created,) = await log.author(Draft(TaskCreated(contract, log.network.network_id), None, 1))
        claim = Draft(TaskClaimed("propose", f"{label}-x", now_ms() + 4_000), created.id, 1)
        yield await seconds(partial(log.author, claim))


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def one_event_and_one_commit(node: Node) -> tuple[float, float]:
    """Median seconds of one authored event and of one INSERT commit, measured in turns."""
    events, commits = [], []
    async with row_table(node.database), aclosing(author_claims(node.log, "one")) as claims:
        async for event_s in claims:
            events.append(event_s)
            commits.append(await seconds(partial(commit_one, node.database)))
    return median(events), median(commits)


async def measure(directory: Path) -> list[Figure]:
    """Two figures: tasks a second, and the ratio of one authored event to one INSERT commit."""
    with reference_runtime() as url:
        async with open_node(load({"state_dir": str(directory)}, {})) as node:
            await run_tasks(node, url, "warm", warm_up_tasks)
            seconds = await run_tasks(node, url, "task", task_count)
            head = await node.log.head()
            assert head.certificates == warm_up_tasks + task_count, "every task was decided"
            one_s, commit_s = await one_event_and_one_commit(node)
    return [
        Figure("tasks finalized a second", task_count / seconds, tasks_goal, f"{concurrent_tasks} at a time"),
        Figure(
            "one authored event / INSERT commit",
            one_s / commit_s,
            single_goal,
            f"{one_s * 1e3:.2f} ms against {commit_s * 1e3:.2f} ms",
            least=False,
        ),
    ]
