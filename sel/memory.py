"""The in-memory store: the same log without a disk, for tests and the simulator (docs/architecture.md §3).

Nothing is written before ``write``, so a transaction that raises leaves no trace. One conformance suite runs on
this store and on Postgres.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sel.rows import Chain, Changes, Fence, LogHead, Parked, StreamRow
from sel.store import Record, Txn, Wire, Written
from wattswarm.kernel import limits
from wattswarm.kernel.certificate import Certificate, MembershipCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.rounds import Stored
from wattswarm.kernel.verdict import Verdict

T = TypeVar("T")
parked_max = {
    "orphan": limits.parked_orphans_max,
    "early": limits.parked_early_max,
    "stranger": limits.parked_unknown_authors_max,
}


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, as none does on the in-memory store."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("nothing waits on the in-memory store")


class MemoryStore:
    """All tables of a log in dictionaries. One transaction at a time: its user sees to that (``sel.log``)."""

    def __init__(self) -> None:
        self.head = LogHead()
        self.events: list[Event] = []
        self.number: dict[bytes, int] = {}
        self.places: dict[tuple[bytes, int], bytes] = {}
        self.by_stream: dict[bytes, list[Event]] = defaultdict(list)
        self.chain_rows: dict[bytes, Chain] = {}
        self.certificates: dict[bytes, Certificate] = {}
        self.certificates_of: dict[bytes, list[Certificate]] = defaultdict(list)
        self.stream_rows: dict[bytes, StreamRow] = {}
        self.verdicts: dict[bytes, dict[bytes, Verdict]] = defaultdict(dict)
        self.votes: dict[tuple[bytes, int], bytes] = {}
        self.signatures: dict[bytes, list[Stored]] = defaultdict(list)
        self.fences: list[Fence] = []
        self.parked: dict[bytes, Parked] = {}
        self.parked_certificates: dict[bytes, None] = {}
        self.wrote: Callable[[Written], object] = lambda _: None

    @property
    def version(self) -> int:
        """Not counted."""
        return -1

    async def transact(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Run ``work``; its ``write`` is all or nothing, and it never waits, so it is never interleaved."""
        return await work(MemoryTxn(self))

    async def recalled(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """The same: memory is how the log is."""
        return await self.transact(work)

    async def record(self, stream: bytes) -> Record | None:
        """All that is stored of one stream."""

        async def work(txn: Txn) -> Record | None:
            row = (await txn.streams([stream])).get(stream)
            if row is None:
                return None
            events = (await txn.stream_events([stream]))[stream]
            certificates = (await txn.stream_certificates([stream])).get(stream, [])
            return Record(row, events, certificates, await txn.verdicts(stream))

        return await self.read(work)

    async def read(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Run ``work`` for reading."""
        return await work(MemoryTxn(self))

    def void(self, event: Event) -> bool:
        """Whether a logged event has no authority."""
        line = self.chain_rows.get(event.author)
        return line is not None and line.voids(event.author_seq)

    def live(self) -> Iterator[Event]:
        """Live events, by arrival."""
        return (event for event in self.events if not self.void(event))

    def event(self, event_id: bytes) -> Event | None:
        """A logged event."""
        number = self.number.get(event_id)
        return None if number is None else self.events[number - 1]


class MemoryTxn:
    """``sel.store.Txn`` over a ``MemoryStore``."""

    locked = True

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.head = store.head

    async def chains(self, authors: Collection[bytes]) -> dict[bytes, Chain]:
        rows = self.store.chain_rows
        return {author: Chain(rows[author].head, rows[author].void_from) for author in authors if author in rows}

    async def ids_at(self, places: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], bytes]:
        return {place: self.store.places[place] for place in places if place in self.store.places}

    async def events(self, ids: Collection[bytes]) -> dict[bytes, Event]:
        found = {event_id: self.store.event(event_id) for event_id in ids}
        return {event_id: event for event_id, event in found.items() if event is not None}

    async def ids_between(self, author: bytes, first_seq: int, end_seq: int | None) -> list[tuple[bytes, bytes]]:
        found = []
        seq = first_seq
        while (end_seq is None or seq < end_seq) and (author, seq) in self.store.places:
            event = self.store.event(self.store.places[author, seq])
            assert event is not None
            found.append((event.id, event.stream))
            seq += 1
        return found

    async def streams(self, streams: Collection[bytes]) -> dict[bytes, StreamRow]:
        rows = self.store.stream_rows
        return {stream: rows[stream] for stream in streams if stream in rows}

    async def stream_events(self, streams: Collection[bytes]) -> dict[bytes, list[Event]]:
        return {
            stream: sorted(
                (event for event in self.store.by_stream.get(stream, ()) if not self.store.void(event)),
                key=lambda event: event.sort_key,
            )
            for stream in streams
        }

    async def void_events(self, streams: Collection[bytes]) -> dict[bytes, list[Event]]:
        logged = self.store.by_stream
        return {stream: [event for event in logged.get(stream, ()) if self.store.void(event)] for stream in streams}

    async def stream_certificates(self, streams: Collection[bytes]) -> dict[bytes, list[bytes]]:
        found = self.store.certificates_of
        return {stream: [one.wire() for one in found[stream]] for stream in streams if stream in found}

    async def verdicts(self, stream: bytes) -> dict[bytes, Verdict]:
        return dict(self.store.verdicts.get(stream, {}))

    async def has_certificates(self, ids: Collection[bytes]) -> set[bytes]:
        return {certificate_id for certificate_id in ids if certificate_id in self.store.certificates}

    async def membership_certificates(self) -> list[bytes]:
        return [cert.wire() for cert in self.store.certificates.values() if isinstance(cert, MembershipCertificate)]

    async def parked_certificates(self) -> list[bytes]:
        return list(self.store.parked_certificates)

    async def streams_pinning(self, membership: bytes) -> list[bytes]:
        return [row.stream for row in self.store.stream_rows.values() if row.awaits == membership]

    async def parked_of(self, authors: Collection[bytes]) -> list[Parked]:
        found = [parked for parked in self.store.parked.values() if parked.event.author in authors]
        return sorted(found, key=lambda parked: (parked.event.author, parked.event.author_seq))

    async def due_authors(self, now_ms: int) -> list[bytes]:
        return [p.event.author for p in self.store.parked.values() if p.why == "early" and p.due_ms <= now_ms]

    async def labelled(self, label: str) -> list[bytes]:
        rows = self.store.stream_rows.values()
        return [row.stream for row in rows if row.facts is not None and row.facts.label == label]

    async def vote_on(self, task: bytes, epoch: int) -> bytes | None:
        return self.store.votes.get((task, epoch))

    async def membership_signatures(self, previous: bytes) -> list[Stored]:
        return list(self.store.signatures.get(previous, ()))

    async def fence(self) -> Fence:
        raised = self.store.fences
        return Fence(max(fence.until_ms for fence in raised), raised[-1].membership) if raised else Fence()

    async def write(self, changes: Changes) -> None:
        store = self.store
        for event in changes.events:
            store.events.append(event)
            store.number[event.id] = len(store.events)
            store.places[event.author, event.author_seq] = event.id
            store.by_stream[event.stream].append(event)
        for certificate in changes.certificates:
            if certificate.stream is not None and certificate.id not in store.certificates:
                store.certificates_of[certificate.stream].append(certificate)
            store.certificates[certificate.id] = certificate
        for author, line in changes.chains.items():
            store.chain_rows[author] = Chain(line.head, line.void_from)
        for row in changes.streams:
            store.stream_rows[row.stream] = row
        for stream in changes.refolded:
            store.verdicts.pop(stream, None)
        for stream, event_id, verdict in changes.verdicts:
            store.verdicts[stream][event_id] = verdict
        store.votes.update({(vote.task, vote.epoch): vote.candidate_hash for vote in changes.votes})
        for given in changes.signatures:
            store.signatures[given.previous].append(given.signed)
        if changes.fence is not None:
            store.fences.append(changes.fence)
        self._park(changes)
        store.head = changes.head.copy()
        store.head.seq = len(store.events)
        store.head.parked = len(store.parked)

    def _park(self, changes: Changes) -> None:
        parked = self.store.parked
        for event_id in changes.unpark:
            parked.pop(event_id, None)
        for entry in changes.park:
            parked[entry.event.id] = entry
        for author in {entry.event.author for entry in changes.park}:
            _drop_oldest(parked, [e for e in parked.values() if e.event.author == author], limits.parked_per_author_max)
        for why in {entry.why for entry in changes.park}:
            _drop_oldest(parked, [entry for entry in parked.values() if entry.why == why], parked_max[why])
        self._park_certificates(changes)

    def _park_certificates(self, changes: Changes) -> None:
        waiting = self.store.parked_certificates
        for wire in changes.unpark_certificates:
            waiting.pop(wire, None)
        if not changes.park_certificates:
            return
        waiting.update(dict.fromkeys(changes.park_certificates))
        while (
            len(waiting) > limits.parked_certificates_max
            or sum(map(len, waiting)) > limits.parked_certificates_bytes_max
        ):
            del waiting[next(iter(waiting))]


def _drop_oldest(parked: dict[bytes, Parked], entries: Iterable[Parked], bound: int) -> None:
    """Keep the newest ``bound`` of ``entries`` (they come oldest first); they can be fetched again."""
    entries = list(entries)
    for entry in entries[: max(0, len(entries) - bound)]:
        del parked[entry.event.id]


class MemoryGuard:
    """The author guard without a disk: what was sealed is known to this process and to nobody after it."""

    def __init__(self) -> None:
        self._sealed: tuple[int, bytes | None, tuple[Wire, ...]] = (-1, None, ())

    def try_turn(self) -> bool:
        """There is nobody to wait for."""
        return True

    def wait_turn(self) -> None:
        """There is nobody to wait for."""

    def end_turn(self) -> None:
        """There is nobody to give it to."""

    def confirm(self, seq: int, event_id: bytes | None) -> Sequence[Wire]:
        """The signed bytes that a rolled-back transaction left out; see ``sel.guard``."""
        base_seq, base_id, batch = self._sealed
        return batch if batch and (seq, event_id) == (base_seq, base_id) else ()

    def seal(self, base_seq: int, base_id: bytes | None, batch: Sequence[Event]) -> None:
        """Remember the batch in flight."""
        self._sealed = (base_seq, base_id, tuple((event.body, event.signature) for event in batch))

    def withdraw(self) -> None:
        """The batch in flight is not to be."""
        self._sealed = (*self._sealed[:2], ())
