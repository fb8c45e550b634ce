"""``sel.store.Txn`` over one Postgres connection: every question one bulk query, one bulk write at the end.

Runs inside asyncpg's asyncio (``sel.pool`` sees to that) but knows only the few methods in ``Connection``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from sel.errors import StoreCorrupt, StoreUnavailable
from sel.queries import named
from sel.recall import Addition, Recall, RecalledTxn
from sel.rows import Chain, Changes, Fence, LogHead, Parked, StreamRow
from sel.store import Stale, Txn
from wattswarm.kernel import chain, limits
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event, parse_known
from wattswarm.kernel.refusal import Malformed
from wattswarm.kernel.rounds import Stored
from wattswarm.kernel.verdict import Verdict

T = TypeVar("T")
sql = named("log")
copy_events_min = 64  # fewer are cheaper in the one statement than COPY's round trip
event_columns = ("seq", "event_id", "author", "author_seq", "stream", "epoch", "hlc", "kind", "body", "signature")
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


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "little")


def head_of(row: Any) -> LogHead:
    """The head row as a value."""
    seq, events, live_sum, certs, certs_sum, root, max_hlc, parked, memberships = row
    return LogHead(
        seq, events, _number(live_sum), certs, _number(certs_sum), _number(root), max_hlc, parked, memberships
    )


def chain_of(row: Any) -> tuple[bytes, Chain]:
    """A row of ``chains`` as its author and value."""
    author, seq, event_id, clock, day, events, size, void_from = row
    return author, Chain(chain.Head(seq, event_id, clock, day, events, size), void_from)


def locked(row: Sequence[Any], node_id: bytes | None) -> tuple[LogHead, int, dict[bytes, Chain | None]]:
    """A row of ``lock_head``: totals, their version, and the node's chain (None: it has none yet).

    A chain from before the wait for the lock is not what is committed: it is left out, to be asked for anew.
    """
    totals, (version, fresh, *line) = row[:9], row[9:]
    own = {} if node_id is None or not fresh else {node_id: None if line[0] is None else chain_of(line)[1]}
    return head_of(totals), version, own


def head_arguments(head: LogHead) -> tuple[Any, ...]:
    """A head as the arguments of ``write_batch`` that it stands for."""
    return (
        head.seq,
        head.events,
        _bytes(head.events_sum),
        head.certificates,
        _bytes(head.certificates_sum),
        _bytes(head.state_root),
        head.max_hlc,
        head.parked,
        head.memberships,
    )


def columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows turned into the column arrays that ``unnest`` takes."""
    turned = [list(column) for column in zip(*rows, strict=True)]
    return turned or [[] for _ in range(width)]


def event_row(seq: int, event: Event) -> tuple[Any, ...]:
    """An event as a row of ``events``."""
    return (
        seq,
        event.id,
        event.author,
        event.author_seq,
        event.stream,
        event.epoch,
        event.hlc,
        event.kind,
        event.body,
        event.signature,
    )


def stream_row(row: StreamRow) -> tuple[Any, ...]:
    """A fold as a row of ``streams``."""
    facts = row.facts
    about = (
        (
            facts.label,
            facts.status,
            facts.epoch,
            facts.task_type,
            facts.creator,
            facts.membership,
            facts.created_at,
            facts.expiry_ms,
        )
        if facts
        else (None,) * 8
    )
    last = row.last or (None, None, None)
    return (row.stream, row.state, row.digest, *last, row.awaits, row.unproven, *about)


def chain_row(author: bytes, line: Chain) -> tuple[Any, ...]:
    """A chain as a row of ``chains``."""
    at = line.head
    return (author, at.seq, at.id, at.hlc, at.day, at.day_events, at.day_bytes, line.void_from)


def batch_arguments(changes: Changes, event_rows: Sequence[Sequence[Any]]) -> list[Any]:
    """A transaction's additions as the arguments of ``write_batch``, but for the events: these are the rows given."""
    chains = [chain_row(author, line) for author, line in changes.chains.items()]
    return [
        *columns(event_rows, 10),
        *columns(((cert.id, cert.kind, cert.stream, cert.wire()) for cert in changes.certificates), 4),
        *columns(chains, 8),
        *columns(map(stream_row, changes.streams), 16),
        *columns(((vote.task, vote.epoch, vote.candidate_hash, vote.event_id) for vote in changes.votes), 4),
        *columns(((event_id, stream, v.status, v.reason, v.message) for stream, event_id, v in changes.verdicts), 5),
        *head_arguments(changes.head),
        str(changes.head.seq),
    ]


def stored_event(network_id: bytes, event_id: bytes, body: bytes, signature: bytes) -> Event:
    """The event of a row, whose id answers for its bytes. Raises ``StoreCorrupt`` if it does not."""
    try:
        return parse_known(event_id, body, signature, network_id)
    except Malformed as refusal:
        raise StoreCorrupt(f"{refusal}: a row of the log was changed. `wattswarm log verify` names it.") from None


def addition_arguments(added: Addition) -> list[Any]:
    """One event with what it changes as the arguments of ``append_one``."""
    return [
        *head_arguments(added.head),
        added.version,
        *event_row(added.head.seq, added.event),
        *chain_row(added.event.author, added.chain),
        *stream_row(added.stream),
        added.label,
        str(added.head.seq),
    ]


class Database(Protocol):
    """What runs work on a connection (``sel.pool.Database``)."""

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T: ...
    async def run_writing(self, work: Callable[[Connection], Awaitable[T]]) -> T: ...


class PgTxn:
    """One write transaction on a connection that has just taken the writer lock."""

    locked = True

    def __init__(
        self, connection: Connection, head: LogHead, network_id: bytes, own: Mapping[bytes, Chain | None] | None = None
    ) -> None:
        self.connection = connection
        self.head = head
        self.network_id = network_id
        self.own = own or {}
        self.met: dict[bytes, StreamRow] = {}
        self.written: Changes | None = None

    async def chains(self, authors: Collection[bytes]) -> dict[bytes, Chain]:
        known = {author: self.own[author] for author in authors if author in self.own}
        if len(known) == len(authors):
            return {author: Chain(line.head, line.void_from) for author, line in known.items() if line is not None}
        return dict(map(chain_of, await self.connection.fetch(sql["chains"], list(authors))))

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
        rows = await self.connection.fetch(sql["streams"], list(streams))
        found = {}
        for stream, state, digest, epoch, hlc, last_id, awaits, unproven in rows:
            last = None if epoch is None else (epoch, hlc, last_id)
            found[stream] = StreamRow(stream, state, digest, last, None, awaits, unproven)
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
        await self.connection.execute(sql["write_batch"], *batch_arguments(changes, rows))
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
        await execute(sql["trim_parked_certificates"], limits.parked_certificates_max)


class PostgresStore:
    """``sel.store.Store`` over a database. ``node_id``: whose chain every transaction asks for (the author's own)."""

    def __init__(self, database: Database, network_id: bytes, node_id: bytes | None = None) -> None:
        self.database = database
        self.network_id = network_id
        self.node_id = node_id
        self._recall = Recall()

    async def transact(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """One transaction that holds the row lock on ``log_head``."""

        async def whole(connection: Connection) -> T:
            async with connection.transaction():
                row = tuple(await connection.fetchrow(sql["lock_head"], self.node_id))
                head, version, own = locked(row, self.node_id)
                txn = PgTxn(connection, head, self.network_id, own)
                result = await work(txn)
            self._learn(txn, version)
            return result

        return await self.database.run_writing(whole)

    def _learn(self, txn: PgTxn, version: int) -> None:
        if self.node_id is None:
            return
        head, chains = txn.head, dict(txn.own)
        if txn.written is not None:
            version, head = version + 1, txn.written.head
            chains.update(txn.written.chains)
        if self.node_id in chains:
            self._recall.learn(version, head, chains[self.node_id], txn.met.values())
        else:
            self._recall.forget()

    async def recalled(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Author one event with one statement, on what the last transaction of this process left."""
        if self.node_id is None:
            raise Stale
        try:
            return await work(RecalledTxn(self._recall, self.node_id, self._append))
        except (Stale, StoreUnavailable):
            self._recall.forget()
            raise

    async def _append(self, added: Addition) -> bool:
        async def work(connection: Connection) -> bool:
            return await connection.fetchrow(sql["append_one"], *addition_arguments(added)) is not None

        stored = await self.database.run_writing(work)
        if stored:
            self._recall.learn(added.version + 1, added.head, added.chain, [added.stream])
        return stored

    async def read(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """One read-only snapshot."""

        async def whole(connection: Connection) -> T:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                head = head_of(await connection.fetchrow(sql["read_head"]))
                return await work(PgTxn(connection, head, self.network_id))

        return await self.database.run(whole)
