"""Authoring by one process: tasks finalized a second, and one authored event against single-row INSERT commits."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from bench.figure import Figure
from bench.limits import insert_commit_s
from sel.log import Log
from wattswarm.config import load
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.node import Node, now_ms, open_node
from wattswarm.runtime.autopilot import Hands
from wattswarm.runtime.client import RuntimeClient
from wattswarm.runtime.local import reference_runtime
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


async def author_one_s(log: Log, label: str, rounds: int = single_rounds) -> float:
    """Seconds of one authored event alone, median."""
    times = []
    for number in range(rounds):
        contract = contract_from_json(sample_contract(f"{label}-{number}", now_ms() + 3_600_000, authority))
        draft = Draft(TaskCreated(contract, log.network.network_id), None, 1)
        start = time.perf_counter()
        await log.author(draft)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


async def measure(directory: Path) -> list[Figure]:
    """Two figures: tasks a second, and the ratio of one authored event to one INSERT commit."""
    with reference_runtime() as url:
        async with open_node(load({"state_dir": str(directory)}, {})) as node:
            await run_tasks(node, url, "warm", warm_up_tasks)
            seconds = await run_tasks(node, url, "task", task_count)
            head = await node.log.head()
            assert head.certificates == warm_up_tasks + task_count, "every task was decided"
            one_s = await author_one_s(node.log, "one")
            insert_s = await insert_commit_s(node.database.dsn)
    return [
        Figure("tasks finalized a second", task_count / seconds, tasks_goal, f"{concurrent_tasks} at a time"),
        Figure(
            "one authored event / INSERT commit",
            one_s / insert_s,
            single_goal,
            f"{one_s * 1e3:.2f} ms against {insert_s * 1e3:.2f} ms",
            least=False,
        ),
    ]
