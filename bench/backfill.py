"""A node with an empty log gets 100,000 events from one peer over a real socket, against one core's verify rate.

The node is a real daemon with Postgres, the peer a process that serves a history out of memory (``bench.peer``). The
clock runs from the first events stored to the last. The daemon runs without its autopilot: what is measured is frames,
signatures, chains, folds and the log. Memory: its resident set at a fifth of the way against the end.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from bench.figure import Figure
from bench.limits import verify_rate
from bench.peer import Served, listener_seed, peer
from tests.daemons import Daemon, daemon, place
from wattswarm.config import load
from wattswarm.home import open_home
from wattswarm.kernel.genesis import parse_genesis
from wattswarm.node import Node, now_ms, open_node

event_count = int(os.environ.get("WATTSWARM_BENCH_BACKFILL", "100000"))
rate_goal = 0.3
memory_goal = 1.2
look_s = 0.1
patience_s = 600.0


def settle(state_dir: Path, genesis: bytes) -> None:
    """Make the listening member's home in a state directory."""
    state_dir.mkdir(mode=0o755)
    seed = state_dir / "node_seed.hex"
    seed.write_text(listener_seed.hex())
    seed.chmod(0o600)
    open_home(state_dir, now_ms(), parse_genesis(genesis))


def resident_kib(process_id: int) -> int:
    """The resident set of a process."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@dataclass
class Course:
    """How a log grew: (seconds, events) as they were seen; resident sets by events."""

    seen: list[tuple[float, int]] = field(default_factory=list)
    resident: list[tuple[int, int]] = field(default_factory=list)

    def rate(self) -> float:
        """Events a second, from the first that were seen to the last."""
        (start_s, first), (end_s, last) = self.seen[0], self.seen[-1]
        return (last - first) / (end_s - start_s)

    def resident_at(self, events: int) -> int:
        """KiB when there were that many."""
        return next(kib for count, kib in self.resident if count >= events)


async def follow(node: Node, running: Daemon, wanted: int) -> Course:
    """Look until the log holds ``wanted`` events."""
    course = Course()
    before = (await node.log.head()).events
    with trio.fail_after(patience_s):
        while not course.seen or course.seen[-1][1] < wanted:
            await trio.sleep(look_s)
            events = (await node.log.head()).events
            if events > before:
                course.seen.append((time.perf_counter(), events))
                course.resident.append((events, resident_kib(running.process.pid)))
    return course


async def fetch(state_dir: Path, served: Served) -> Course:
    """A daemon that begins with nothing but the peer's address, until it has everything."""
    flags = ("--listen", "127.0.0.1:0", "--bootstrap", served.address, "--no-autopilot")
    async with open_node(load({"state_dir": str(state_dir)}, {})) as node:
        with await trio.to_thread.run_sync(partial(daemon, state_dir, *flags)) as running:
            return await follow(node, running, served.events)


async def measure(_: Path) -> list[Figure]:
    """Two figures: the rate as a share of the verify rate, and memory."""
    with place() as state_dir, peer(event_count) as served:
        settle(state_dir, served.genesis)
        course = await fetch(state_dir, served)
    limit = verify_rate()
    early, late = course.resident_at(served.events // 5), course.resident[-1][1]
    basis = f"{course.rate():.0f} events/s of {served.events:,}, {limit:.0f} verifies/s"
    sizes = f"{late / 1024:.0f} MiB against {early / 1024:.0f} MiB"
    return [
        Figure("cold backfill / verify", course.rate() / limit, rate_goal, basis),
        Figure("memory at the end / at a fifth of a backfill", late / early, memory_goal, sizes, least=False),
    ]
