"""What one authored event costs on a log of 1,000,000 events against one of 1,000."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from bench.author import author_one_s
from bench.figure import Figure
from bench.import_log import write_log
from sel import transfer
from wattswarm.config import load
from wattswarm.kernel.genesis import parse_genesis
from wattswarm.kernel.membership import Network
from wattswarm.node import open_node

sizes = (1_000, int(os.environ.get("WATTSWARM_BENCH_EVENTS", "1000000")))
goal = 1.5


async def measure(directory: Path) -> list[Figure]:
    """One figure: the ratio of the medians."""
    costs = []
    for size in sizes:
        path = directory / f"{size}.log"
        await trio.to_thread.run_sync(write_log, path, size)
        costs.append(await _cost(path, directory / f"state-{size}"))
        path.unlink()
    small, large = costs
    basis = f"{large * 1e3:.2f} ms at {sizes[1]:,} events, {small * 1e3:.2f} ms at {sizes[0]:,}"
    return [Figure("authored event, large log / small log", large / small, goal, basis, least=False)]


async def _cost(path: Path, state_dir: Path) -> float:
    """The log of ``path``, imported; then this node, one of its members, authors on it."""
    with open(path, "rb") as file:  # noqa: ASYNC230 - read before anything else runs
        genesis = parse_genesis(transfer.read_header(file))
        assert Network.of(genesis).created_at > 0
        async with open_node(load({"state_dir": str(state_dir)}, {}), genesis=genesis) as node:
            await transfer.import_log(node.log, file, lambda _: None)
            return await author_one_s(node, "grown")
