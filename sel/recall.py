"""What this process remembers of the log between its transactions, so that a few more events cost one statement.

Every transaction that writes counts the head row's version up. As long as the version is the one that this process
saw last, the head, the chains and the folds it has met are what they were then, and events can be judged without
asking, one's own and others'. The statement that stores them holds only at that version; otherwise nothing was
written, the memory was ``Stale``, and it is done again under the lock (docs/architecture.md §3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sel.rows import Chain, Changes, LogHead, StreamRow
from sel.store import Stale

streams_kept_max = 256
chains_kept_max = 1_024
state_bytes_kept_max = 65_536


@dataclass(slots=True)
class Recall:
    """The log at ``version``: its head, the chains (None: there is none yet) and the folds met last."""

    version: int = -1
    head: LogHead = field(default_factory=LogHead)
    chains: OrderedDict[bytes, Chain | None] = field(default_factory=OrderedDict)
    rows: OrderedDict[bytes, StreamRow] = field(default_factory=OrderedDict)

    def learn(
        self,
        since: int,
        version: int,
        head: LogHead,
        chains: Mapping[bytes, Chain | None],
        rows: Iterable[StreamRow],
    ) -> None:
        """Note how the log is at ``version``, after a transaction that began at ``since``.

        ``chains`` and ``rows`` are those that it read last or wrote. What others may have changed is forgotten.
        """
        if since != self.version:
            self.forget()
        self.version, self.head = version, head.copy()
        for author, line in chains.items():
            self._keep_chain(author, line)
        for row in rows:
            self._keep(row)

    def forget(self) -> None:
        """Nothing is known any more."""
        self.version = -1
        self.chains.clear()
        self.rows.clear()

    def chains_of(self, authors: Iterable[bytes]) -> dict[bytes, Chain] | None:
        """Copies of the chains of ``authors``, or None if one is not known."""
        found = {}
        for author in authors:
            if author not in self.chains:
                return None
            line = self.chains[author]
            if line is not None:
                found[author] = Chain(line.head, line.void_from)
        return found

    def rows_of(self, streams: Iterable[bytes]) -> dict[bytes, StreamRow] | None:
        """The folds of ``streams``, or None if one is not known."""
        found = {name: self.rows.get(name) for name in streams}
        return None if None in found.values() else found  # type: ignore[return-value]

    def _keep_chain(self, author: bytes, line: Chain | None) -> None:
        self.chains.pop(author, None)
        self.chains[author] = None if line is None else Chain(line.head, line.void_from)
        while len(self.chains) > chains_kept_max:
            self.chains.popitem(last=False)

    def _keep(self, row: StreamRow) -> None:
        self.rows.pop(row.stream, None)
        if row.state is None or len(row.state) <= state_bytes_kept_max:
            self.rows[row.stream] = row
        while len(self.rows) > streams_kept_max:
            self.rows.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Addition:
    """Events on top of the log at ``version``; ``labels`` are those that they must be the first to use."""

    version: int
    changes: Changes
    labels: Sequence[str]


class RecalledTxn:
    """A ``sel.store.Txn`` that answers out of memory, or not at all, and adds events on top of what is there."""

    locked = False

    def __init__(self, recall: Recall, append: Callable[[Addition], Awaitable[bool]]) -> None:
        if recall.version < 0:
            raise Stale
        self.version = recall.version
        self.head = recall.head
        self._recall = recall
        self._append = append
        self._labels: list[str] = []

    async def chains(self, authors: Collection[bytes]) -> dict[bytes, Chain]:
        found = self._recall.chains_of(authors)
        if found is None:
            raise Stale
        return found

    async def streams(self, streams: Collection[bytes]) -> dict[bytes, StreamRow]:
        found = self._recall.rows_of(streams)
        if found is None:
            raise Stale
        return found

    async def due_authors(self, now_ms: int) -> list[bytes]:
        """Nobody: what is due waits for the next transaction under the lock."""
        return []

    async def labelled(self, label: str) -> list[bytes]:
        """Nobody, it is assumed: the statement that stores the event looks."""
        self._labels.append(label)
        return []

    async def write(self, changes: Changes) -> None:
        if not changes.events or not changes.additions_only:
            raise Stale
        changes.head.seq = self.head.seq + len(changes.events)
        if not await self._append(Addition(self.version, changes, self._labels)):
            raise Stale

    async def _unknown(self, *_: Any, **__: Any) -> Any:
        raise Stale

    ids_at = events = ids_between = stream_events = void_events = stream_certificates = verdicts = _unknown
    has_certificates = membership_certificates = parked_certificates = streams_pinning = parked_of = _unknown
    vote_on = membership_signatures = fence = _unknown
