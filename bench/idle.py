"""What a daemon costs that has nothing to do: eight peers connected, nobody says anything, for half a minute.

The daemon is a real one with an embedded Postgres; its peers are eight nodes of one process that speak the real
protocol over real sockets, with their logs in memory. CPU: the daemon's own process, by the kernel's count; what its
Postgres takes is told beside it.
"""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import trio

from bench.backfill import resident_kib
from bench.figure import Figure
from bench.gossip import everything, host
from tests.daemons import daemon, place
from wattswarm.home import open_home
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.genesis import make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.node import now_ms

peers = 8
settling_s = 6.0
seconds = float(os.environ.get("WATTSWARM_BENCH_IDLE_S", "30"))
patience_s = 60.0
core_goal = 1.0
resident_goal_mib = 120.0
ticks_a_second = os.sysconf("SC_CLK_TCK")


def cpu_s(process_id: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / ticks_a_second


def family(process_id: int) -> list[int]:
    """A process and its children, theirs too."""
    threads = Path(f"/proc/{process_id}/task").iterdir()
    children = [child for thread in threads for child in (thread / "children").read_text().split()]
    return [process_id, *(one for child in children for one in family(int(child)))]


async def measure(_: Path) -> list[Figure]:
    """Two figures: the share of a core, and the resident set."""
    keys = [Keypair(sha256(b"idle" + bytes([number]))) for number in range(peers)]
    with place() as state_dir:
        home = open_home(state_dir, now_ms())
        (state_dir / "network.cbor").unlink()
        members = {key.node_id: everything for key in (home.keys, *keys)}
        genesis = make_genesis(
            name="idle", created_at=now_ms() - 1_000, fault_model="byzantine", members=members, signers=[home.keys]
        )
        open_home(state_dir, now_ms(), genesis)
        with await trio.to_thread.run_sync(partial(daemon, state_dir, "--listen", "127.0.0.1:0")) as one:
            addresses = [one.ready.rsplit("=", 1)[1]]
            async with AsyncExitStack() as stack:
                for key in keys:
                    made = await stack.enter_async_context(host(key, genesis, list(addresses)))
                with trio.fail_after(patience_s):
                    while not made.driver.machine.peers:
                        await trio.sleep(0.05)
                await trio.sleep(min(settling_s, seconds))
                process, database = one.process.pid, family(one.process.pid)[1:]
                began, before, theirs = time.perf_counter(), cpu_s(process), sum(map(cpu_s, database))
                await trio.sleep(seconds)
                took = time.perf_counter() - began
                share = (cpu_s(process) - before) / took * 100
                beside = (sum(map(cpu_s, database)) - theirs) / took * 100
                resident = resident_kib(process) / 1024
    basis = f"{peers} peers, {took:.0f} s; its Postgres {beside:.2f} % beside it"
    return [
        Figure("idle daemon, % of a core", share, core_goal, basis, least=False),
        Figure("idle daemon, resident MiB", resident, resident_goal_mib, basis, least=False),
    ]
