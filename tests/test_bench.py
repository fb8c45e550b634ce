"""Every bench of the network runs to its end and tells its figures; in a small size only that is claimed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sizes import root

small = {
    "WATTSWARM_BENCH_INGEST": "1024",
    "WATTSWARM_BENCH_BACKFILL": "1300",
    "WATTSWARM_BENCH_GOSSIP_S": "0.5",
    "WATTSWARM_BENCH_GOSSIP_NODES": "4",
    "WATTSWARM_BENCH_IDLE_S": "1",
    "WATTSWARM_BENCH_WARM_UP": "1",
    "WATTSWARM_BENCH_TASKS": "1",
}
figures = {"ingest": 1, "backfill": 2, "gossip": 3, "frontier": 4, "idle": 2, "latency": 4}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", figures)
def test_bench_runs_to_its_end_and_tells_its_figures(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", name],
        env={**os.environ, **small, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    told = done.stdout.splitlines()
    assert done.returncode in (0, 1), done.stderr
    assert len(told) == figures[name], done.stdout + done.stderr
    assert all(line.startswith(("ok  ", "MISS")) and "goal" in line for line in told)
