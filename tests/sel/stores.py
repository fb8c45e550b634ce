"""Logs under test on both stores, and how all that a store holds is read: with no help from the code under test."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar

import asyncpg
import trio

from sel.memory import MemoryStore
from sel.pool import Database, open_database
from sel.postgres import Connection, PostgresStore
from sel.rows import Chain, LogHead, Parked, StreamRow, TaskFacts
from tests.cast import keys_of
from tests.conformance import Contents, Subject
from wattswarm.kernel import chain
from wattswarm.kernel.certificate import parse_certificate
from wattswarm.kernel.event import parse
from wattswarm.kernel.membership import Network
from wattswarm.kernel.verdict import Verdict

T = TypeVar("T")
_schemas = count()


def memory_subject(network: Network, now_ms: int) -> Subject:
    """An empty log in memory."""
    store = MemoryStore()

    async def contents() -> Contents:
        return memory_contents(store)

    return Subject(store, network, contents, now_ms)


def memory_contents(store: MemoryStore) -> Contents:
    """All that an in-memory log holds."""
    return Contents(
        store.head.copy(),
        list(store.events),
        {author: Chain(line.head, line.void_from) for author, line in store.chain_rows.items()},
        dict(store.certificates),
        dict(store.stream_rows),
        {said: (stream, verdict) for stream, found in store.verdicts.items() for said, verdict in found.items()},
        list(store.parked.values()),
        list(store.parked_certificates),
        dict(store.votes),
    )


@asynccontextmanager
async def fresh_database(dsn: str) -> AsyncIterator[Database]:
    """An empty log's database: a schema of its own on the server at ``dsn``."""
    schema = f"log_{next(_schemas)}"

    async def create() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.close()

    await trio.to_thread.run_sync(lambda: asyncio.run(create()))
    async with open_database(f"{dsn}&search_path={schema}") as database:
        yield database


def postgres_subject(database: Database, network: Network, now_ms: int) -> Subject:
    """The empty log of a fresh database."""

    async def contents() -> Contents:
        return await database.run(lambda connection: postgres_contents(connection, network))

    return Subject(PostgresStore(database, network.network_id, keys_of("ada").node_id), network, contents, now_ms)


async def postgres_contents(connection: Connection, network: Network) -> Contents:
    """All that a database holds."""
    fetch = connection.fetch
    head = await connection.fetchrow(
        "SELECT seq, events, events_sum, certificates, certificates_sum, state_root, max_hlc, parked, memberships "
        "FROM log_head"
    )
    certificates = [
        parse_certificate(row[0], network) for row in await fetch("SELECT body FROM certificates ORDER BY seq")
    ]
    verdicts = await fetch("SELECT event_id, stream, status, reason, message FROM verdicts")
    parked = await fetch("SELECT why, due_ms, body, signature FROM parked ORDER BY seq")
    votes = await fetch("SELECT task, epoch, candidate_hash FROM finality_votes")
    return Contents(
        LogHead(*(int.from_bytes(value, "little") if isinstance(value, bytes) else value for value in head)),
        [
            parse(body, signature, network.network_id)
            for body, signature in await fetch("SELECT body, signature FROM events ORDER BY seq")
        ],
        {
            row[0]: Chain(chain.Head(*row[1:7]), row[7])
            for row in await fetch(
                "SELECT author, seq, event_id, hlc, day, day_events, day_bytes, void_from FROM chains"
            )
        },
        {certificate.id: certificate for certificate in certificates},
        await _streams(connection),
        {row[0]: (row[1], Verdict(*row[2:])) for row in verdicts},
        [Parked(parse(body, signature, network.network_id), why, due_ms) for why, due_ms, body, signature in parked],
        [row[0] for row in await fetch("SELECT body FROM parked_certificates ORDER BY seq")],
        {(task, epoch): candidate_hash for task, epoch, candidate_hash in votes},
    )


async def _streams(connection: Connection) -> dict[bytes, StreamRow]:
    rows = await connection.fetch(
        "SELECT stream, state, digest, last_epoch, last_hlc, last_id, awaits, unproven, label, status, epoch, "
        "task_type, creator, membership, created_at, expiry_ms FROM streams"
    )
    found = {}
    for stream, state, digest, epoch, hlc, last_id, awaits, unproven, *facts in rows:
        last = None if last_id is None else (epoch, hlc, last_id)
        about = None if facts[0] is None else TaskFacts(*facts)
        found[stream] = StreamRow(stream, state, digest, last, about, awaits, unproven)
    return found


def verdicts_by_reason(contents: Contents) -> dict[str, int]:
    """How many verdicts there are of each reason."""
    counts: dict[str, int] = defaultdict(int)
    for _, verdict in contents.verdicts.values():
        counts[verdict.reason] += 1
    return dict(counts)
