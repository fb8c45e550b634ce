"""What this process remembers of the log between its transactions, so that one more event costs one statement.

Every transaction that writes counts the head row's version up. As long as the version is the one that this process
saw last, the head, the node's own chain and the folds it has met are what they were then, and an event can be
judged without asking. The statement that stores it holds only at that version; otherwise nothing was written, the
memory was ``Stale``, and the event is authored again under the lock (docs/architecture.md §3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from sel.rows import Chain, Changes, LogHead, StreamRow
from sel.store import Stale
from wattswarm.kernel.event import Event

streams_kept_max = 256
state_bytes_kept_max = 65_536


@dataclass(slots=True)
class Recall:
    """The log at ``version``: its head, the node's own chain (None: none yet), and the last folds met."""

    version: int = -1
    head: LogHead = field(default_factory=LogHead)
    own: Chain | None = None
    rows: OrderedDict[bytes, StreamRow] = field(default_factory=OrderedDict)

    def learn(self, version: int, head: LogHead, own: Chain | None, rows: Iterable[StreamRow]) -> None:
        """Note how the log is after a transaction: ``rows`` are those that it read last or wrote."""
        if version not in (self.version, self.version + 1):
            self.rows.clear()
        if version >= self.version:
            self.version, self.head, self.own = version, head.copy(), own
            for row in rows:
                self._keep(row)

    def forget(self) -> None:
        """Nothing is known any more."""
        self.version = -1
        self.rows.clear()

    def _keep(self, row: StreamRow) -> None:
        self.rows.pop(row.stream, None)
        if row.state is None or len(row.state) <= state_bytes_kept_max:
            self.rows[row.stream] = row
        while len(self.rows) > streams_kept_max:
            self.rows.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Addition:
    """One event of this node's, with what it changes; ``label`` is the one that it must be the first to use."""

    version: int
    event: Event
    chain: Chain
    stream: StreamRow
    head: LogHead
    label: str | None


class RecalledTxn:
    """A ``sel.store.Txn`` that answers out of memory, or not at all, and adds one event."""

    locked = False

    def __init__(self, recall: Recall, node_id: bytes, append: Callable[[Addition], Awaitable[bool]]) -> None:
        if recall.version < 0:
            raise Stale
        self.version = recall.version
        self.head = recall.head
        self._own = recall.own
        self._rows = recall.rows
        self._node_id = node_id
        self._append = append
        self._label: str | None = None

    async def chains(self, authors: Collection[bytes]) -> dict[bytes, Chain]:
        if set(authors) != {self._node_id}:
            raise Stale
        return {} if self._own is None else {self._node_id: Chain(self._own.head, self._own.void_from)}

    async def streams(self, streams: Collection[bytes]) -> dict[bytes, StreamRow]:
        try:
            return {name: self._rows[name] for name in streams}
        except KeyError:
            raise Stale from None

    async def due_authors(self, now_ms: int) -> list[bytes]:
        """Nobody: what is due waits for the next intake."""
        return []

    async def labelled(self, label: str) -> list[bytes]:
        """Nobody, it is assumed: the statement that stores the event looks."""
        self._label = label
        return []

    async def write(self, changes: Changes) -> None:
        if not changes.events:
            raise Stale
        (event,) = changes.events
        (row,) = changes.streams
        own = (changes.votes, changes.signatures)
        rest = (changes.certificates, changes.refolded, changes.verdicts, changes.park, changes.unpark, *own)
        assert not any(rest), "an event of our own on top of known folds changes nothing else"
        changes.head.seq = self.head.seq + 1
        added = Addition(self.version, event, changes.chains[self._node_id], row, changes.head, self._label)
        if not await self._append(added):
            raise Stale

    async def _unknown(self, *_: Any, **__: Any) -> Any:
        raise Stale

    ids_at = events = ids_between = stream_events = void_events = stream_certificates = verdicts = _unknown
    has_certificates = membership_certificates = parked_certificates = streams_pinning = parked_of = _unknown
    vote_on = membership_signatures = fence = _unknown
