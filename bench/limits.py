"""The limits that figures are held against, measured in the same run: Ed25519 verification, and single-row commits."""

from __future__ import annotations

import time

from sel.pool import open_database
from sel.postgres import Connection
from wattswarm.kernel import identity

verify_rounds = 4_000
insert_rounds = 200


def verify_rate() -> float:
    """Ed25519 verifications a second on one core, of messages the size of an event id."""
    keys = identity.Keypair(b"\x11" * 32)
    message = b"wattswarm/event/v1\0" + b"\x22" * 32
    signature = keys.sign(message)
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(verify_rounds):
            assert identity.verify(keys.node_id, message, signature)
        best = max(best, verify_rounds / (time.perf_counter() - start))
    return best


async def insert_commit_s(dsn: str) -> float:
    """Seconds of one single-row INSERT with its commit, median, on a table like the log's."""
    async with open_database(dsn) as database:

        async def work(connection: Connection) -> float:
            await connection.execute("CREATE TABLE IF NOT EXISTS bench_rows (id bigserial PRIMARY KEY, body bytea)")
            times = []
            for _ in range(insert_rounds):
                start = time.perf_counter()
                await connection.execute("INSERT INTO bench_rows (body) VALUES ($1)", b"\x33" * 500)
                times.append(time.perf_counter() - start)
            await connection.execute("DROP TABLE bench_rows")
            return sorted(times)[len(times) // 2]

        return await database.run(work)
