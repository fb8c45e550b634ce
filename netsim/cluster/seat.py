"""Beside a daemon: what its log holds, a few times a second, and a hand that authors as its node.

Reads and writes the log's database over a connection of its own, as any other process of the node may; it never starts
a server, so that bringing one back is the daemon's work alone. While there is none, nothing is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from netsim.cluster.host import Host
from sel.embedded import url
from sel.errors import StoreUnavailable
from sel.guard import AuthorGuard
from sel.log import Log, open_log
from sel.pool import Database, open_database
from sel.postgres import Connection, PostgresStore
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Refused
from wattswarm.node import now_ms

look_s = 0.25
again_s = 0.5
answer_s = 10.0
page_rows = 5_000
task_label = "task-"
new_events = """
SELECT seq, event_id, author, hlc, kind, stream FROM events WHERE seq > $1 ORDER BY seq LIMIT $2
"""
standing_now = """
SELECT h.seq, h.events, h.events_sum, h.certificates_sum, h.state_root,
    (SELECT count(*) FROM streams WHERE status IN ('OPEN', 'SUSPENDED') AND starts_with(label, $1))
FROM log_head h
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a log holds: equal on nodes that hold the same. ``at_ms``: when it was looked at. ``open``: tasks."""

    events: int
    sums: tuple[bytes, bytes, bytes]
    open: int
    at_ms: int


class Seat:
    """At one host. ``heard`` is told of events as they come: rows of (id, author, hlc, kind, stream)."""

    def __init__(self, host: Host, heard: Callable[[Host, Sequence[Any]], None]) -> None:
        self.host, self._heard = host, heard
        self.standing: Standing | None = None
        self._log: Log | None = None
        self._may = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._left = trio.Event()
        self._left.set()

    async def serve(self) -> None:
        """Look, whenever there is something to be seen, for ever."""
        while True:
            await self._may.wait()
            self._left = trio.Event()
            try:
                with trio.CancelScope() as self._scope:
                    await self._sit()
            except (StoreUnavailable, Refused):
                pass
            finally:
                self._log = None
                self._left.set()
            await trio.sleep(again_s)

    def open(self) -> None:
        """There is a log now."""
        self._may.set()

    async def leave(self) -> None:
        """Let go of the log: its files are about to go."""
        self._may = trio.Event()
        if self._scope is not None:
            self._scope.cancel()
        await self._left.wait()

    async def _sit(self) -> None:
        home = self.host.home
        network = Network.of(home.genesis)
        async with open_database(url(home.path)) as database:
            with AuthorGuard(home.path) as guard:
                store = PostgresStore(database, network.network_id, home.keys.node_id)
                async with open_log(store, network, home.keys, guard, now_ms) as self._log:
                    await self._look(database)

    async def _look(self, database: Database) -> None:
        last = 0

        async def work(connection: Connection) -> tuple[Any, Sequence[Any]]:
            head = await connection.fetchrow(standing_now, task_label)
            return head, await connection.fetch(new_events, last, page_rows)

        while True:
            head, rows = await database.run(work)
            self.standing = Standing(head[1], (head[2], head[3], head[4]), head[5], now_ms())
            if rows:
                last = rows[-1][0]
                self._heard(self.host, [tuple(row)[1:] for row in rows])
            if len(rows) < page_rows:
                await trio.sleep(look_s)

    async def author(self, draft: Draft) -> Event | None:
        """Author as this node, if its own rules allow it and its database answers."""
        with trio.move_on_after(answer_s):
            try:
                if self._log is not None and self.host.up:
                    return (await self._log.author(draft))[0]
            except (Refused, StoreUnavailable):
                return None
        return None
