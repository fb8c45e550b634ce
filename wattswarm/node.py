"""The composition root: opens everything that one node is made of, in the order in which it depends on each other.

Home (key, network), Postgres (embedded or by URL), database, store, log. Closing goes the other way.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from sel.embedded import EmbeddedPostgres
from sel.errors import StoreUnavailable
from sel.guard import AuthorGuard
from sel.lifetimes import single_error
from sel.log import Log, open_log
from sel.pool import Database, open_database
from sel.postgres import Connection, PostgresStore
from sel.postgres import sql as log_sql
from sel.replay import upgrade
from wattswarm import home as homes
from wattswarm.config import Config
from wattswarm.home import Home
from wattswarm.kernel.genesis import Genesis
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.executors import Executors

_log = logging.getLogger(__name__)


_offset_ms = int(os.environ.get("WATTSWARM_TEST_CLOCK_OFFSET_MS", "0"))
"""For tests: how wrong this host's clock is to be."""


def now_ms() -> int:
    """This host's clock, unix ms."""
    return time.time_ns() // 1_000_000 + _offset_ms


@dataclass(frozen=True, slots=True)
class Node:
    """An open node."""

    config: Config
    home: Home
    database: Database
    log: Log
    guard: AuthorGuard
    executors: Executors

    @property
    def genesis_network(self) -> Network:
        """The network at version 0."""
        return Network.of(self.home.genesis)


@asynccontextmanager
async def open_node(config: Config, *, make: bool = True, genesis: Genesis | None = None) -> AsyncIterator[Node]:
    """Open the node of ``config``; it closes when left.

    ``make`` False: refuse if no node lives there, instead of making one. ``genesis``: the network of a new one.
    Raises ``Refused`` or ``StoreUnavailable`` with what is wrong and what to do.
    """
    if not make and not homes.exists(config.state_dir):
        raise Refused(
            "no_node",
            f"no node lives in {config.state_dir}: `wattswarm network init`, `network join` or `task submit` makes "
            "one, --state-dir names another place",
        )
    home = homes.open_home(config.state_dir, now_ms(), genesis)
    network = Network.of(home.genesis)
    with single_error():
        async with AsyncExitStack() as stack:
            dsn, revive = await _server(stack, config)
            database = await stack.enter_async_context(open_database(dsn, revive))
            await _claim(database, home, config)
            if await upgrade(database, network):
                _log.info("every task was folded again: the log was last used by an older program")
            guard = stack.enter_context(AuthorGuard(config.state_dir))
            store = PostgresStore(database, network.network_id, home.keys.node_id)
            recover = database.recover if revive is not None else None
            log = await stack.enter_async_context(open_log(store, network, home.keys, guard, now_ms, recover))
            _log.debug("node opened", extra=_names(home, "embedded" if config.pg_url is None else "by URL"))
            yield Node(config, home, database, log, guard, Executors(config.state_dir))


def _names(home: Home, postgres: str) -> dict[str, str]:
    return {
        "node_id": home.keys.node_id.hex(),
        "network_id": home.genesis.network_id.hex(),
        "state_dir": str(home.path),
        "postgres": postgres,
    }


async def _server(stack: AsyncExitStack, config: Config) -> tuple[str, Callable[[], None] | None]:
    if config.pg_url is not None:
        return config.pg_url, None
    server = EmbeddedPostgres(Path(config.state_dir))
    await trio.to_thread.run_sync(server.__enter__)

    async def leave() -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.__exit__, None, None, None)

    stack.push_async_callback(leave)
    return server.dsn, server.ensure_running


async def _claim(database: Database, home: Home, config: Config) -> None:
    """The database belongs to this network and node, from its first use on."""
    mine = (home.genesis.network_id, home.keys.node_id)

    async def work(connection: Connection) -> tuple[bytes, bytes]:
        row = await connection.fetchrow(log_sql["owner"])
        if row[0] is None:
            await connection.execute(log_sql["claim_owner"], *mine)
            row = await connection.fetchrow(log_sql["owner"])
        return row[0], row[1]

    owner = await database.run(work)
    if owner != mine:
        where = config.pg_url or f"{config.state_dir}/pg"
        raise StoreUnavailable(
            f"the database {where} holds the log of node {owner[1].hex()[:16]}… on network {owner[0].hex()[:16]}…, "
            f"not of this node ({mine[1].hex()[:16]}… on {mine[0].hex()[:16]}…): give each node a database of its own"
        )


def home_exists(config: Config) -> bool:
    """Whether a node lives in the configured state directory."""
    return homes.exists(config.state_dir)
