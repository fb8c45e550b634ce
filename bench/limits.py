"""The limits that figures are held against, measured in the same run: Ed25519 verification, and single-row commits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sel.pool import Database
from sel.postgres import Connection
from wattswarm.kernel import identity
from wattswarm.kernel.codec import sha256

verify_rounds = 4_000


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


async def commit_one(database: Database) -> None:
    """One single-row INSERT with its commit, of about an event's size, as cheaply as trio can have it done."""

    async def work(connection: Connection) -> None:
        await connection.execute("INSERT INTO bench_rows (body) VALUES ($1)", b"\x33" * 500)

    await database.run_writing(work)


@asynccontextmanager
async def row_table(database: Database) -> AsyncIterator[None]:
    """The table that ``commit_one`` inserts into."""

    async def execute(statement: str) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(statement)

        await database.run(work)

    await execute("CREATE TABLE bench_rows (id bigserial PRIMARY KEY, body bytea)")
    yield
    await execute("DROP TABLE bench_rows")
