"""News of the log for those who follow it: which tasks something arrived for since a moment, and that it did.

NOTIFY only says when to look; what is new is read by arrival, so nothing is missed that a notice was lost for. Takes
no lock, changes nothing, and does not know what a reader makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio

from sel.pool import Database
from sel.postgres import Connection
from sel.views import sql

channel = "wattswarm_log"
arrivals_rows_max = 10_000


class Mark(NamedTuple):
    """A moment of one log: the last arrivals that were seen."""

    event_seq: int = 0
    certificate_seq: int = 0


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A task as its row says. ``status``: OPEN, SUSPENDED or how it ended; ``membership``: the version it pins."""

    task: bytes
    task_id: str
    status: str
    task_type: str
    membership: bytes

    @property
    def open(self) -> bool:
        """Whether there may be something to do."""
        return self.status in ("OPEN", "SUSPENDED")


@dataclass(frozen=True, slots=True)
class Changed:
    """What arrived up to ``mark``. ``events``: task -> ids of its new events; empty where only a certificate came.

    ``tasks``: the rows of the touched tasks. ``everything``: a fork or a membership version came, so that any task
    may have changed. ``more``: there is more to read already.
    """

    mark: Mark
    tasks: Sequence[TaskLine]
    events: dict[bytes, frozenset[bytes]]
    everything: bool = False
    more: bool = False


class News:
    """The news of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def listen(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[str]]:
        """Notices that something was written. Raises ``StoreUnavailable``, also when the server goes."""
        return self._database.listen(channel)

    async def recover(self) -> None:
        """Bring back an embedded server, if there is one of ours. Raises ``StoreUnavailable``."""
        await self._database.recover()

    async def open_tasks(self) -> tuple[Mark, list[TaskLine]]:
        """Every open task, oldest first, and the moment up to which that holds at least."""

        async def work(connection: Connection) -> tuple[Mark, list[Any]]:
            mark = Mark(*await connection.fetchrow(sql["last_arrivals"]))
            return mark, await connection.fetch(sql["open_tasks"])

        mark, rows = await self._database.run(work)
        return mark, [TaskLine(*row) for row in rows]

    async def changed(self, since: Mark) -> Changed:
        """What arrived after ``since``, up to ``arrivals_rows_max`` events of it."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(sql["arrivals_since"], *since, arrivals_rows_max)

        columns = tuple(await self._database.run(work))
        events, certificates, tasks = (
            list(zip(*part, strict=True)) for part in (columns[:3], columns[3:5], columns[5:])
        )
        ids: dict[bytes, set[bytes]] = {}
        for _, stream, event_id in events:
            ids.setdefault(stream, set()).add(event_id)
        proven = {stream for _, stream in certificates}
        return Changed(
            Mark(events[-1][0] if events else since.event_seq, certificates[-1][0] if certificates else since[1]),
            [TaskLine(*row) for row in tasks],
            {stream: frozenset(found) for stream, found in ids.items() if stream not in proven},
            None in proven,
            arrivals_rows_max in (len(events), len(certificates)),
        )
