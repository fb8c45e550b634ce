"""``sel.store.Txn`` over one Postgres connection: every question one bulk query, one bulk write at the end.

Runs inside asyncpg's asyncio (``sel.pool`` sees to that) but knows only the few methods in ``Connection``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from sel.columns import (
    addition_arguments,
    batch_arguments,
    chain_of,
    check_folded_by,
    columns,
    event_columns,
    event_row,
    fold_of,
    head_of,
    locked,
    record_of,
    stored_event,
)
from sel.errors import StoreUnavailable
from sel.queries import named
from sel.recall import Addition, Recall, RecalledTxn
from sel.rows import Chain, Changes, Fence, LogHead, Parked, StreamRow
from sel.store import Record, Stale, Txn, Written
from wattswarm.kernel import limits
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.rounds import Stored
from wattswarm.kernel.verdict import Verdict

T = TypeVar("T")
sql = named("log")
copy_events_min = 64  # fewer are cheaper in the one statement than COPY's round trip
parked_max = (
    ("orphan", limits.parked_orphans_max),
    ("early", limits.parked_early_max),
    ("stranger", limits.parked_unknown_authors_max),
)


class Connection(Protocol):
    """What this project uses of a database connection (asyncpg's, in ``sel.pool``)."""

    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any) -> Any: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    async def execute(self, query: str, *args: Any) -> str: ...
    async def copy_records_to_table(self, table: str, *, records: Any, columns: Sequence[str]) -> str: ...
    def cursor(self, query: str, *args: Any, prefetch: int | None = None) -> Any: ...
    def transaction(self, *, isolation: Any = None, readonly: bool = False) -> AbstractAsyncContextManager[Any]: ...


class Database(Protocol):
    """What runs work on a connection (``sel.pool.Database``)."""

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T: ...
    async def run_writing(self, work: Callable[[Connection], Awaitable[T]]) -> T: ...


class PgTxn:
    """One write transaction on a connection that has just taken the writer lock."""

    locked = True

    def __init__(
        self,
        connection: Connection,
        head: LogHead,
        network_id: bytes,
        own: Mapping[bytes, Chain | None] | None = None,
        recall: Recall | None = None,
    ) -> None:
        self.connection = connection
        self.head = head
        self.network_id = network_id
        self.recall = recall or Recall()
        self.met_chains: dict[bytes, Chain | None] = dict(own or {})
        self.met: dict[bytes, StreamRow] = {}
        self.written: Changes | None = None
        self.certificate_seq: int | None = None

    async def chains(self, authors: Collection[bytes]) -> dict[bytes, Chain]:
        known = {author: self.met_chains[author] for author in authors if author in self.met_chains}
        if len(known) == len(authors):
            return {author: Chain(line.head, line.void_from) for author, line in known.items() if line is not None}
        found = self.recall.chains_of(authors)
        if found is None:
            found = dict(map(chain_of, await self.connection.fetch(sql["chains"], list(authors))))
            self.met_chains.update({author: found.get(author) for author in authors})
        return {author: Chain(line.head, line.void_from) for author, line in found.items()}

    async def ids_at(self, places: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], bytes]:
        rows = await self.connection.fetch(sql["ids_at"], *columns(places, 2))
        return {(author, seq): event_id for author, seq, event_id in rows}

    async def events(self, ids: Collection[bytes]) -> dict[bytes, Event]:
        rows = await self.connection.fetch(sql["events_by_id"], list(ids))
        return {row[0]: stored_event(self.network_id, *row) for row in rows}

    async def ids_between(self, author: bytes, first_seq: int, end_seq: int | None) -> list[tuple[bytes, bytes]]:
        rows = await self.connection.fetch(sql["ids_between"], author, first_seq, end_seq)
        return [(event_id, stream) for event_id, stream in rows]

    async def streams(self, streams: Collection[bytes]) -> dict[bytes, StreamRow]:
        recalled = self.recall.rows_of(streams)
        if recalled is not None:
            return recalled
        rows = await self.connection.fetch(sql["streams"], list(streams))
        found = {row[0]: fold_of(row) for row in rows}
        self.met.update(found)
        return found

    async def stream_events(self, streams: Collection[bytes]) -> dict[bytes, list[Event]]:
        return await self._events("stream_events", streams)

    async def void_events(self, streams: Collection[bytes]) -> dict[bytes, list[Event]]:
        return await self._events("void_events", streams)

    async def _events(self, query: str, streams: Collection[bytes]) -> dict[bytes, list[Event]]:
        found: dict[bytes, list[Event]] = defaultdict(list)
        for stream, *said in await self.connection.fetch(sql[query], list(streams)):
            found[stream].append(stored_event(self.network_id, *said))
        return found

    async def stream_certificates(self, streams: Collection[bytes]) -> dict[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = defaultdict(list)
        for stream, body in await self.connection.fetch(sql["stream_certificates"], list(streams)):
            found[stream].append(body)
        return found

    async def verdicts(self, stream: bytes) -> dict[bytes, Verdict]:
        rows = await self.connection.fetch(sql["verdicts"], stream)
        return {event_id: Verdict(status, reason, message) for event_id, status, reason, message in rows}

    async def has_certificates(self, ids: Collection[bytes]) -> set[bytes]:
        return {row[0] for row in await self.connection.fetch(sql["has_certificates"], list(ids))}

    async def membership_certificates(self) -> list[bytes]:
        return [row[0] for row in await self.connection.fetch(sql["membership_certificates"])]

    async def parked_certificates(self) -> list[bytes]:
        return [row[0] for row in await self.connection.fetch(sql["parked_certificates"])]

    async def streams_pinning(self, membership: bytes) -> list[bytes]:
        return [row[0] for row in await self.connection.fetch(sql["streams_pinning"], membership)]

    async def parked_of(self, authors: Collection[bytes]) -> list[Parked]:
        rows = await self.connection.fetch(sql["parked_of"], list(authors))
        return [Parked(stored_event(self.network_id, *said), why, due) for why, due, *said in rows]

    async def due_authors(self, now_ms: int) -> list[bytes]:
        return [row[0] for row in await self.connection.fetch(sql["due_authors"], now_ms)]

    async def labelled(self, label: str) -> list[bytes]:
        return [row[0] for row in await self.connection.fetch(sql["labelled"], label)]

    async def vote_on(self, task: bytes, epoch: int) -> bytes | None:
        found: bytes | None = await self.connection.fetchval(sql["vote_on"], task, epoch)
        return found

    async def membership_signatures(self, previous: bytes) -> list[Stored]:
        rows = await self.connection.fetch(sql["membership_signatures"], previous)
        return [Stored(*row) for row in rows]

    async def fence(self) -> Fence:
        return Fence(*await self.connection.fetchrow(sql["fence"]))

    async def write(self, changes: Changes) -> None:
        if changes.nothing:
            return
        head = changes.head
        head.seq = self.head.seq + len(changes.events)
        if changes.refolded:
            await self.connection.execute(sql["forget_verdicts"], list(changes.refolded))
        if changes.park or changes.unpark:
            await self._write_parked(changes)
            head.parked = await self.connection.fetchval(sql["count_parked"])
        if changes.park_certificates or changes.unpark_certificates:
            await self._write_parked_certificates(changes)
        for row in changes.signatures:
            signed = (row.signed.round, row.signed.phase, row.signed.membership_hash, row.signed.signature)
            await self.connection.execute(sql["keep_membership_signature"], row.previous, *signed, row.event_id)
        if changes.fence is not None:
            await self.connection.execute(sql["raise_fence"], changes.fence.until_ms, changes.fence.membership)
        numbered = enumerate(changes.events, self.head.seq + 1)
        rows = [event_row(seq, event) for seq, event in numbered]
        if len(rows) >= copy_events_min:
            await self.connection.copy_records_to_table("events", records=rows, columns=event_columns)
            rows = []
        self.certificate_seq = await self.connection.fetchval(sql["write_batch"], *batch_arguments(changes, rows))
        self.met.update({row.stream: row for row in changes.streams})
        self.written = changes

    async def _write_parked(self, changes: Changes) -> None:
        execute = self.connection.execute
        if changes.unpark:
            await execute(sql["unpark"], changes.unpark)
        if not changes.park:
            return
        rows = [
            (e.event.id, e.event.author, e.event.author_seq, e.why, e.due_ms, e.event.body, e.event.signature)
            for e in changes.park
        ]
        await execute(sql["park"], *columns(rows, 7))
        authors = list({entry.event.author for entry in changes.park})
        await execute(sql["trim_parked_authors"], authors, limits.parked_per_author_max)
        for why, bound in parked_max:
            await execute(sql["trim_parked"], why, bound)

    async def _write_parked_certificates(self, changes: Changes) -> None:
        execute = self.connection.execute
        await execute(sql["unpark_certificates"], [sha256(wire) for wire in changes.unpark_certificates])
        waiting = [(sha256(wire), wire) for wire in changes.park_certificates]
        await execute(sql["park_certificates"], *columns(waiting, 2))
        bounds = (limits.parked_certificates_max, limits.parked_certificates_bytes_max)
        await execute(sql["trim_parked_certificates"], *bounds)


class PostgresStore:
    """``sel.store.Store`` over a database. ``node_id``: whose chain every transaction asks for (the author's own)."""

    def __init__(self, database: Database, network_id: bytes, node_id: bytes | None = None) -> None:
        self.database = database
        self.network_id = network_id
        self.node_id = node_id
        self._recall = Recall()
        self.wrote: Callable[[Written], object] = lambda _: None

    @property
    def version(self) -> int:
        """The version of the log as this process wrote or saw it last; -1: it does not know."""
        return self._recall.version

    async def transact(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """One transaction that holds the row lock on ``log_head``."""

        async def whole(connection: Connection) -> T:
            async with connection.transaction():
                row = tuple(await connection.fetchrow(sql["lock_head"], self.node_id))
                check_folded_by(row)
                head, version, own = locked(row, self.node_id)
                known = self._recall if version == self._recall.version else None
                txn = PgTxn(connection, head, self.network_id, own, known)
                result = await work(txn)
            self._learn(txn, version)
            if txn.written is not None:
                self.wrote(Written(version + 1, txn.written, txn.certificate_seq))
            return result

        return await self.database.run_writing(whole)

    def _learn(self, txn: PgTxn, since: int) -> None:
        if self.node_id is None:
            return
        version, head, chains = since, txn.head, txn.met_chains
        if txn.written is not None:
            version, head = since + 1, txn.written.head
            chains.update(txn.written.chains)
        self._recall.learn(since, version, head, chains, txn.met.values())

    async def recalled(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Add events with one statement, on what the last transaction of this process left."""
        if self.node_id is None:
            raise Stale
        try:
            return await work(RecalledTxn(self._recall, self._append))
        except StoreUnavailable:
            self._recall.forget()
            raise

    async def _append(self, added: Addition) -> bool:
        async def work(connection: Connection) -> bool:
            stored = await connection.fetchrow(sql["append"], *addition_arguments(added)) is not None
            if stored:
                since, changes = added.version, added.changes
                self._recall.learn(since, since + 1, changes.head, changes.chains, changes.streams)
                self.wrote(Written(since + 1, changes))
            return stored

        return await self.database.run_writing(work)

    async def record(self, stream: bytes) -> Record | None:
        """One statement, and so of one moment."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(sql["record"], stream)

        row = await self.database.run(work)
        return None if row is None else record_of(tuple(row), self.network_id)

    async def read(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """One read-only snapshot."""

        async def whole(connection: Connection) -> T:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                head = head_of(await connection.fetchrow(sql["read_head"]))
                return await work(PgTxn(connection, head, self.network_id))

        return await self.database.run(whole)
