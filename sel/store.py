"""What the log asks of a store: one locked transaction at a time, reads in bulk, one write at the end.

Two stores answer: Postgres (``sel.postgres``) and memory (``sel.memory``). The algorithms of ``sel.admission``,
``sel.projector`` and ``sel.authoring`` await nothing else than these methods, so they run unchanged on trio
and inside asyncpg's asyncio, and one conformance suite holds both stores to the same behaviour.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sel.rows import Chain, Changes, Fence, LogHead, Parked, StreamRow
from wattswarm.kernel.event import Event
from wattswarm.kernel.rounds import Stored
from wattswarm.kernel.verdict import Verdict

T = TypeVar("T")
Wire = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """A stream: its fold, live events in canonical order, wires of certificates, verdicts that are not acceptance."""

    row: StreamRow
    events: list[Event]
    certificates: list[bytes]
    verdicts: dict[bytes, Verdict]


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction of this process wrote: ``changes`` made the log's ``version`` out of the one before.

    ``certificate_seq``: the arrival number of its last certificate, None if it brought none.
    """

    version: int
    changes: Changes
    certificate_seq: int | None = None


class Stale(Exception):
    """What this process remembers of the log does not do: ask again under the lock."""


class Txn(Protocol):
    """One write transaction; ``head`` is the totals that it begins at (do not mutate: copy).

    ``locked``: it holds the log's writer lock, so what it answers is how the log is. Without it (``Store.recalled``)
    what it answers is how the log was, and any answer may be ``Stale``.
    """

    head: LogHead
    locked: bool

    async def chains(self, authors: Collection[bytes]) -> dict[bytes, Chain]:
        """The chains of those of ``authors`` that have one."""

    async def ids_at(self, places: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], bytes]:
        """(author, author_seq) -> event id of the logged events at those places."""

    async def events(self, ids: Collection[bytes]) -> dict[bytes, Event]:
        """Logged events by id, live or void."""

    async def ids_between(self, author: bytes, first_seq: int, end_seq: int | None) -> list[tuple[bytes, bytes]]:
        """(event id, stream) of the author's logged events with first_seq <= seq < end_seq (None: no end)."""

    async def streams(self, streams: Collection[bytes]) -> dict[bytes, StreamRow]:
        """Stored folds."""

    async def stream_events(self, streams: Collection[bytes]) -> dict[bytes, list[Event]]:
        """The live events of streams, in canonical order, as stored before this transaction."""

    async def void_events(self, streams: Collection[bytes]) -> dict[bytes, list[Event]]:
        """The logged events of streams that have no authority: they prove, but they do not count."""

    async def stream_certificates(self, streams: Collection[bytes]) -> dict[bytes, list[bytes]]:
        """Wire forms of the certificates about streams."""

    async def verdicts(self, stream: bytes) -> dict[bytes, Verdict]:
        """The verdicts of a stream's events that are not plain acceptance."""

    async def has_certificates(self, ids: Collection[bytes]) -> set[bytes]:
        """Which certificate ids are here."""

    async def membership_certificates(self) -> list[bytes]:
        """Wire forms of all membership certificates, by arrival."""

    async def parked_certificates(self) -> list[bytes]:
        """Wire forms of certificates that wait for a membership version."""

    async def streams_pinning(self, membership: bytes) -> list[bytes]:
        """Task streams that are outside the root because this membership version was not known."""

    async def parked_of(self, authors: Collection[bytes]) -> list[Parked]:
        """Parked events of these authors, by author_seq."""

    async def due_authors(self, now_ms: int) -> list[bytes]:
        """Authors with early events whose time has come."""

    async def labelled(self, label: str) -> list[bytes]:
        """Streams of tasks with this label."""

    async def vote_on(self, task: bytes, epoch: int) -> bytes | None:
        """The candidate hash this node voted finality for, if it did."""

    async def membership_signatures(self, previous: bytes) -> list[Stored]:
        """What this node signed about the successor of a membership version, by round."""

    async def fence(self) -> Fence:
        """What this node does not sign since its chain was recovered: the latest time, the newest membership."""

    async def write(self, changes: Changes) -> None:
        """Store everything; called once, last. New events get the arrival numbers after ``head.seq``."""


class Store(Protocol):
    """A log's storage. ``version``: of the log as this process wrote or saw it last; -1: it does not know.

    ``wrote`` hears of every transaction that wrote, if the store counts versions: whoever follows the log sets it.
    """

    wrote: Callable[[Written], object]

    @property
    def version(self) -> int: ...

    async def transact(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Run ``work`` under the writer lock and commit, or roll back and raise.

        Raises ``StoreUnavailable`` when the database is gone; then the transaction may or may not be committed.
        """

    async def recalled(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Run ``work``, which adds events, on what this process last saw of the log, without the lock.

        Raises ``Stale``, with nothing written, if that is not enough, or not how the log is any more.
        """

    async def record(self, stream: bytes) -> Record | None:
        """All that is stored of one stream, of one moment; None if it has no fold."""

    async def read(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Run ``work`` on one consistent snapshot, without the lock. It must not write."""
