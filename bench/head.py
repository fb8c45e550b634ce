"""``wattswarm log head`` as a user runs it: on a stopped node, and with its Postgres already up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import trio

from bench.figure import Figure
from sel.embedded import EmbeddedPostgres
from wattswarm.config import load
from wattswarm.node import open_node

rounds = 7
stopped_goal_s = 1.0
running_goal_s = 0.5


def head_s(directory: Path) -> float:
    """Seconds of the whole command, median."""
    command = [sys.executable, "-m", "cli.main", "--state-dir", str(directory), "log", "head"]
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return sorted(times)[rounds // 2]


async def measure(directory: Path) -> list[Figure]:
    """Two figures, in seconds."""
    async with open_node(load({"state_dir": str(directory)}, {})):
        pass
    stopped = await trio.to_thread.run_sync(head_s, directory)
    with EmbeddedPostgres(directory):
        running = await trio.to_thread.run_sync(head_s, directory)
    basis = f"whole command, median of {rounds}"
    return [
        Figure("log head on a stopped node, s", stopped, stopped_goal_s, basis, least=False),
        Figure("log head with Postgres up, s", running, running_goal_s, basis, least=False),
    ]
