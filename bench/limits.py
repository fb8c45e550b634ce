"""The limits that figures are held against, measured in the same run: Ed25519 verification, and single-row commits."""

from __future__ import annotations

import time

from sel.pool import open_database
from sel.postgres import Connection
from wattswarm.kernel import identity
from wattswarm.kernel.codec import sha256

verify_rounds = 4_000
insert_rounds = 200


def verify_rate() -> float:
    """Ed25519 verifications a second on one core, of messages the size of an event id."""
    keys = identity.Keypair(b"\x11" * 32)
    messages = [b"wattswarm/event/v1\0" + sha256(n.to_bytes(4, "big")) for n in range(3 * verify_rounds)]
    signed = [(message, keys.sign(message)) for message in messages]
    best = 0.0
    for first in range(0, len(signed), verify_rounds):
        start = time.perf_counter()
        for message, signature in signed[first : first + verify_rounds]:
            assert identity.holds(keys.node_id, message, signature)
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
