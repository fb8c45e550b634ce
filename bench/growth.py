"""What one authored event costs on a log of 1,000,000 events against one of 1,000."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

import trio

from bench.author import author_claims
from bench.figure import Figure
from bench.import_log import write_log
from bench.swarm import Swarm
from sel import transfer
from sel.embedded import EmbeddedPostgres
from sel.guard import AuthorGuard
from sel.log import Log, open_log
from sel.pool import open_database
from sel.postgres import PostgresStore
from sel.store import Txn
from wattswarm.kernel import chain
from wattswarm.kernel.membership import Network
from wattswarm.node import now_ms

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
    """The log of ``path``, imported; then one of its members authors on it."""
    swarm = Swarm()
    network, member = Network.of(swarm.genesis), swarm.keys[0]
    with EmbeddedPostgres(state_dir) as server, path.open("rb") as file, AuthorGuard(state_dir) as guard:
        guard.create()
        async with open_database(server.dsn) as database:
            store = PostgresStore(database, network.network_id, member.node_id)
            async with open_log(store, network, member, guard, now_ms) as log:
                transfer.read_header(file)
                await transfer.import_log(log, file, lambda _: None)
                head = await _own_head(log)
                guard.create(head.seq, head.id)
                return median([event_s async for event_s in author_claims(log, "grown")])


async def _own_head(log: Log) -> chain.Head:
    async def work(txn: Txn) -> chain.Head:
        return (await txn.chains([log.keys.node_id]))[log.keys.node_id].head

    return await log.read(work)
