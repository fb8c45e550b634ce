"""A node's log for tests of what is around it: its state directory, its guard, its server, and processes that author.

``make`` and ``found`` give a state directory; ``on_server`` opens its log on the server of the whole session (quick),
``on_own_server`` on a server of its own, which may be killed. ``author`` starts a process that authors until it is
killed: it says ``sealed SEQ ID`` when the author guard holds an event, ``withdrawn SEQ ID`` before the guard gives it
back because the log moved meanwhile, and ``stored SEQ ID`` when its author was told that it is durable, so that whoever
killed it knows what must be there.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from sel.audit import VerifyReport, verify
from sel.embedded import EmbeddedPostgres
from sel.errors import StoreUnavailable
from sel.guard import AuthorGuard
from sel.log import Log, open_log
from sel.pool import Database, open_database
from sel.postgres import Connection, PostgresStore
from sel.replay import replay
from sel.rows import LogHead
from tests.sel.stores import fresh_database, postgres_contents
from wattswarm.kernel import codec
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.genesis import Genesis, local_genesis, parse_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.work import TaskClaimed, TaskCreated
from wattswarm.kernel.refusal import Refused

clone = Path(__file__).parents[2]
authority = "ed25519:" + "ab" * 32
hour_ms = 3_600_000
seed_name, genesis_name = "seed", "genesis"


def now_ms() -> int:
    """This host's clock, unix ms."""
    return time.time_ns() // 1_000_000


# -- what they say --------------------------------------------------------------------------------------------------


def created(label: str, membership: bytes, *, at_ms: int | None = None) -> Draft:
    """The creation of a task called ``label``."""
    contract = contract_from_json(sample_contract(label, (at_ms or now_ms()) + hour_ms, authority))
    return Draft(TaskCreated(contract, membership), None, 1)


def claimed(execution_id: str, *, at_ms: int | None = None) -> Draft:
    """A claim to propose on the task that the same request creates."""
    return Draft(TaskClaimed("propose", execution_id, (at_ms or now_ms()) + 4_000), None, 1, about_first=True)


# -- state directories ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A state directory: whose it is, and of which network."""

    path: Path
    keys: Keypair
    genesis: Genesis

    @property
    def network(self) -> Network:
        """The network at version 0."""
        return Network.of(self.genesis)


def make(path: Path) -> Place:
    """A new state directory, the only member of a network of its own."""
    seed = codec.sha256(path.name.encode())
    place = member(path, Keypair(seed), local_genesis(Keypair(seed), now_ms()))
    (path / seed_name).write_bytes(seed)
    (path / genesis_name).write_bytes(place.genesis.wire())
    return place


def member(path: Path, keys: Keypair, genesis: Genesis) -> Place:
    """A new state directory of ``keys`` on a network that others made. Only this process can open it."""
    path.mkdir(exist_ok=True)
    AuthorGuard(path).create()
    return Place(path, keys, genesis)


def found(path: Path) -> Place:
    """A state directory that is there."""
    return Place(path, Keypair((path / seed_name).read_bytes()), parse_genesis((path / genesis_name).read_bytes()))


# -- opened -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """An open log, and what is under it."""

    place: Place
    database: Database
    log: Log

    async def create(self, label: str) -> list[Event]:
        """Author a task and a claim on it."""
        at_ms = self.log.clock()
        membership = self.log.network.current.hash
        return await self.log.author(created(label, membership, at_ms=at_ms), claimed(f"x-{label}", at_ms=at_ms))

    async def verify(self) -> VerifyReport:
        """``log verify``."""
        return await verify(self.database, self.place.network, lambda _: None)

    async def replay(self) -> LogHead:
        """``log replay``."""
        return await replay(self.database, self.place.network, lambda _: None)

    async def events(self) -> list[Event]:
        """All that is logged, by arrival."""
        contents = await self.database.run(lambda connection: postgres_contents(connection, self.log.network))
        return contents.events

    async def execute(self, *statements: str) -> None:
        """Run SQL in one transaction."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement)

        await self.database.run(work)


@asynccontextmanager
async def on_database(
    place: Place,
    database: Database,
    *,
    clock: Callable[[], int] = now_ms,
    recover: Callable[[], Awaitable[None]] | None = None,
    guard: type[AuthorGuard] = AuthorGuard,
) -> AsyncIterator[Opened]:
    """The log of ``place`` in an open database."""
    store = PostgresStore(database, place.network.network_id, place.keys.node_id)
    with guard(place.path) as held:
        async with open_log(store, place.network, place.keys, held, clock, recover) as log:
            yield Opened(place, database, log)


@asynccontextmanager
async def on_server(dsn: str, place: Place, *, clock: Callable[[], int] = now_ms) -> AsyncIterator[Opened]:
    """The empty log of ``place`` in a fresh database on the server at ``dsn``."""
    async with fresh_database(dsn) as database, on_database(place, database, clock=clock) as opened:
        yield opened


@asynccontextmanager
async def on_own_server(place: Place, guard: type[AuthorGuard] = AuthorGuard) -> AsyncIterator[Opened]:
    """The log of ``place`` on the server in its own directory, brought back when it is lost."""
    async with (
        own_server(place.path) as server,
        open_database(server.dsn, server.ensure_running) as database,
        on_database(place, database, recover=database.recover, guard=guard) as opened,
    ):
        yield opened


@asynccontextmanager
async def own_server(path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The server in a state directory."""
    server = EmbeddedPostgres(path)
    await trio.to_thread.run_sync(server.__enter__)
    try:
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.__exit__, None, None, None)


# -- processes that author --------------------------------------------------------------------------------------------


def tell(word: str, events: Sequence[Event]) -> None:
    """Say what became of events, a line each in one write that a kill may cut: it begins with a line's end."""
    said = "\n" + "".join(f"{word} {event.author_seq} {event.id.hex()}\n" for event in events)
    os.write(sys.stdout.fileno(), said.encode())


class TellingGuard(AuthorGuard):
    """A guard that says what it has sealed: signed bytes that may already be anywhere."""

    sealed: Sequence[Event] = ()

    def seal(self, base_seq: int, base_id: bytes | None, batch: Sequence[Event]) -> None:
        """Seal, then say so."""
        super().seal(base_seq, base_id, batch)
        self.sealed = batch
        tell("sealed", batch)

    def withdraw(self) -> None:
        """Say so, then take back what is certain not to be stored."""
        tell("withdrawn", self.sealed)
        super().withdraw()


class LeaseOver(Exception):
    """The server was away for longer than the lease that was asked for."""


async def _author(log: Log, request: Sequence[Draft]) -> list[Event]:
    try:
        return await log.author(*request)
    except Refused as refusal:
        if refusal.reason == "lease_window":
            raise LeaseOver from refusal
        raise


async def author_on(path: Path, name: str, most: int) -> None:
    """Author requests of every shape until ``most`` of them or the end. The server may go and come."""
    number, draw, place = 0, random.Random(name), found(path)
    while number < most:
        with suppress(StoreUnavailable, LeaseOver):
            async with on_own_server(place, TellingGuard) as opened:
                membership = place.network.network_id
                while number < most:
                    label = f"{name}-{number}"
                    number += 1
                    more = [created(f"{label}-{n}", membership) for n in range(draw.randrange(3))]
                    request = [created(label, membership), claimed(f"x-{label}"), *more]
                    tell("stored", await _author(opened.log, request))
                    if draw.random() < 0.2:
                        with suppress(Refused):
                            await opened.log.author(created(f"{label}-no", membership), created(label, membership))


def author(path: Path, name: str, heard: Path, most: int = 1_000_000) -> subprocess.Popen[bytes]:
    """``author_on`` in a process of its own; what it says goes to the end of ``heard``."""
    command = [sys.executable, "-m", "tests.sel.nodes", str(path), name, str(most)]
    with heard.open("ab") as said, heard.with_suffix(".err").open("ab") as wrong:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=wrong, cwd=clone)


if __name__ == "__main__":
    trio.run(author_on, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
