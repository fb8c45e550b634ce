"""What outlives a simulated process: the log in memory, the author guard, and copies of both taken long ago.

The store is ``sel.memory``'s, which tells besides what each transaction changed, as the network and the autopilot hear
of it. The guard keeps the rule of docs/protocol.md §7 for restored copies without a disk.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct, field

from sel.memory import MemoryGuard, MemoryStore, MemoryTxn
from sel.rows import Chain, Changes
from sel.store import Txn, Wire
from wattswarm.kernel.certificate import Certificate, ForkCertificate, MembershipCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.refusal import Refused

T = TypeVar("T")


class Written(Struct):
    """What one transaction made of the set. ``streams``: what something arrived for; ``everything``: any may differ."""

    events: list[Event] = field(default_factory=list)
    void: list[Event] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)
    idle: list[bytes] = field(default_factory=list)
    authors: set[bytes] = field(default_factory=set)
    streams: dict[bytes, set[bytes]] = field(default_factory=dict)
    everything: bool = False


class SimStore(MemoryStore):
    """The in-memory log, what was written since somebody last ``took`` it, and the ``changes`` written last."""

    def __init__(self) -> None:
        super().__init__()
        self.written = Written()
        self.changes = Changes()
        self.forks: dict[bytes, dict[bytes, int]] = defaultdict(dict)
        self.live_forks: dict[bytes, bytes] = {}

    async def transact(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        return await work(_TellingTxn(self))

    def took(self) -> Written:
        """What was written; it is told once."""
        written, self.written = self.written, Written()
        return written

    def note(self, changes: Changes) -> None:
        """Work out what a transaction is about to change."""
        written, self.changes = self.written, changes
        for author, line in changes.chains.items():
            written.authors.add(author)
            self._note_void(author, line)
        for event in changes.events:
            line = changes.chains.get(event.author) or self.chain_rows[event.author]
            written.streams.setdefault(event.stream, set()).add(event.id)
            if not line.voids(event.author_seq):
                written.events.append(event)
        for certificate in changes.certificates:
            if isinstance(certificate, ForkCertificate):
                self.forks[certificate.author][certificate.id] = certificate.seq
                written.everything = True
            elif isinstance(certificate, MembershipCertificate):
                written.everything = True
            elif certificate.stream is not None:
                written.streams.setdefault(certificate.stream, set()).clear()
            if not isinstance(certificate, ForkCertificate):
                written.certificates.append(certificate)
        self._note_forks(changes)

    def _note_void(self, author: bytes, line: Chain) -> None:
        before = self.chain_rows.get(author)
        if before is None or line.void_from is None or line.void_from == before.void_from:
            return
        seq = line.void_from
        while (author, seq) in self.places and not before.voids(seq):
            event = self.event(self.places[author, seq])
            assert event is not None
            self.written.void.append(event)
            seq += 1

    def _note_forks(self, changes: Changes) -> None:
        """Of an author's forks only the least counts."""
        new = {one.id: one for one in changes.certificates if isinstance(one, ForkCertificate)}
        if not new and not self.forks:
            return
        for author in sorted({one.author for one in new.values()} | changes.chains.keys()):
            line = changes.chains.get(author) or self.chain_rows.get(author)
            counts = [name for name, seq in self.forks[author].items() if line is not None and seq == line.void_from]
            was = self.live_forks.get(author)
            now = min(counts, default=None)
            if was == now:
                continue
            if was is not None:
                self.written.idle.append(was)
                del self.live_forks[author]
            if now is not None:
                self.live_forks[author] = now
                self.written.certificates.append(new[now] if now in new else self.certificates[now])


class _TellingTxn(MemoryTxn):
    """A transaction whose write is noted first."""

    def __init__(self, store: SimStore) -> None:
        super().__init__(store)
        self._telling = store

    async def write(self, changes: Changes) -> None:
        self._telling.note(changes)
        await super().write(changes)


class SimGuard(MemoryGuard):
    """The author guard, made at a head after which nothing was said. ``foreign``: it was restored or is gone, so
    nothing is authored until another takes its place."""

    def __init__(self, seq: int = -1, event_id: bytes | None = None) -> None:
        super().__init__()
        self.foreign = False
        self._end = (seq, event_id)

    def confirm(self, seq: int, event_id: bytes | None) -> Sequence[Wire]:
        if self.foreign:
            raise Refused("guard_copied", "the author guard was restored from elsewhere")
        batch = super().confirm(seq, event_id)
        if not batch and (seq, event_id) != self._end:
            raise Refused("guard_mismatch", f"the log's chain ends at {seq}, the author guard at {self._end[0]}")
        return batch

    def seal(self, base_seq: int, base_id: bytes | None, batch: Sequence[Event]) -> None:
        super().seal(base_seq, base_id, batch)
        self._end = (batch[-1].author_seq, batch[-1].id)


class Disk(Struct):
    """One host's: log, guard, and the membership versions that its operator approved."""

    store: SimStore = field(default_factory=SimStore)
    guard: SimGuard = field(default_factory=SimGuard)
    approved: list[bytes] = field(default_factory=list)

    def copied(self) -> Disk:
        """A backup: log and guard as they are. Events and certificates never change, so they are shared."""
        twin = Disk()
        for name, value in vars(self.store).items():
            setattr(twin.store, name, _copied(value))
        twin.store.written = Written()
        twin.store.head = self.store.head.copy()
        twin.guard.foreign = True
        twin.approved = [*self.approved]
        return twin


def _copied(value: Any) -> Any:
    """A table with rows of its own."""
    table = copy.copy(value)
    if isinstance(table, dict):
        for key, row in table.items():
            if isinstance(row, list | dict | set):
                table[key] = copy.copy(row)
    return table
