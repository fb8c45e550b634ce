"""``log import`` and ``log replay`` of 50,000 events against one core's Ed25519 verify rate; memory against 10,000.

Each import runs in a process of its own on an empty database, from a file; what is timed is the import alone.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import trio

from bench.figure import Figure
from bench.limits import verify_rate
from bench.swarm import Swarm, certificate, history
from sel import transfer
from sel.embedded import EmbeddedPostgres
from sel.guard import AuthorGuard
from sel.log import open_log
from sel.pool import open_database
from sel.postgres import PostgresStore
from sel.replay import replay
from wattswarm.kernel import codec
from wattswarm.kernel.genesis import parse_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network

event_counts = (10_000, 50_000)
import_goal = 0.4
replay_goal = 1.5
memory_goal = 1.2


def write_log(path: Path, event_count: int) -> int:
    """A log file of at least ``event_count`` events with their certificates; returns how many."""
    swarm = Swarm()
    count = 0
    with open(path, "wb") as file:
        file.write(codec.encode([transfer.header_name, swarm.genesis.wire()]))
        for events in history(swarm, event_count):
            file.write(b"".join(codec.encode(["e", *event.wire]) for event in events))
            file.write(codec.encode(["c", certificate(events).wire()]))
            count += len(events)
    return count


async def run_import(path: Path, state_dir: Path) -> dict[str, float]:
    """Import ``path`` into an empty log, then replay it. Seconds, events, and peak memory in KiB."""
    with EmbeddedPostgres(state_dir) as server, path.open("rb") as file:
        network = Network.of(parse_genesis(transfer.read_header(file)))
        guard = AuthorGuard(state_dir)
        guard.create()
        async with (
            open_database(server.dsn) as database,
            open_log(PostgresStore(database, network.network_id), network, Keypair(b"\x55" * 32), guard, _now) as log,
        ):
            start = time.perf_counter()
            report = await transfer.import_log(log, file, lambda _: None)
            import_s = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            head = await log.head()
            assert report.stored == head.events == report.events, "every event was stored"
            assert report.refused_by_rules == 0, "every event was accepted"
            start = time.perf_counter()
            again = await replay(database, network, lambda _: None)
            replay_s = time.perf_counter() - start
            assert again == head, "replay ends at the same totals"
    return {"import_s": import_s, "replay_s": replay_s, "events": report.events, "peak_kib": peak}


def run_apart(path: Path, state_dir: Path) -> dict[str, float]:
    """``run_import`` in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "bench.import_log", str(path), str(state_dir)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def _now() -> int:
    return 1_900_000_000_000


async def measure(directory: Path) -> list[Figure]:
    """Three figures: import ratio, replay ratio, memory ratio."""
    runs = []
    for count in event_counts:
        path = directory / f"{count}.log"
        await trio.to_thread.run_sync(write_log, path, count)
        runs.append(await trio.to_thread.run_sync(run_apart, path, directory / f"state-{count}"))
    rate = verify_rate()
    small, large = runs
    import_rate, replay_rate = large["events"] / large["import_s"], large["events"] / large["replay_s"]
    return [
        Figure(
            "import / verify", import_rate / rate, import_goal, f"{import_rate:.0f} events/s, {rate:.0f} verifies/s"
        ),
        Figure("replay / import", replay_rate / import_rate, replay_goal, f"{replay_rate:.0f} events/s"),
        Figure(
            "peak memory 50,000 / 10,000",
            large["peak_kib"] / small["peak_kib"],
            memory_goal,
            f"{large['peak_kib'] / 1024:.0f} MiB against {small['peak_kib'] / 1024:.0f} MiB",
            least=False,
        ),
    ]


if __name__ == "__main__":
    print(json.dumps(trio.run(run_import, Path(sys.argv[1]), Path(sys.argv[2]))))
