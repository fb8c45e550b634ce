"""A peer whose log is a made-up history in memory: ``python -m bench.peer EVENTS LATER``, a process of its own.

It speaks the real protocol over real TLS WebSockets: machine, driver and listener are the product's, only the log
behind them is not. It says its genesis and its address in one line, then serves; for each line on stdin one more
portion of the ``LATER`` events joins its log, as if others had sent them. It ends with its stdin.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import trio

from bench.swarm import Swarm, certificate, history
from net.io.driver import open_driver
from net.io.ports import Intake, Line
from net.io.tls import client_context, server_context
from net.io.websocket import dialled, listen
from net.proto.handshake import Me
from net.proto.items import Items
from net.proto.machine import Ways
from net.proto.message import Standing, Total, Wire
from net.proto.values import (
    Appended,
    CertificatesOf,
    EventsOf,
    Fate,
    Head,
    Known,
    Lacking,
    Question,
    Relate,
    Span,
    Stock,
)
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.limits import LOCAL_PROTOCOL_VERSION
from wattswarm.node import now_ms
from wattswarm.shared_log import known_of

listener_seed = sha256(b"the node that listens")
"""The member who says nothing in the history: whoever is measured has its key."""
portion_events = 512
past_ms = 6 * 3_600_000


def swarm_now() -> Swarm:
    """The swarm of the history, with one more member who only listens; its tasks do not expire while it is told."""
    return Swarm([*Swarm().keys, Keypair(listener_seed)], now_ms() - past_ms)


class Shelf:
    """A log that can be read and told of, and takes nothing in (``net.io.ports.LogPort``)."""

    def __init__(self) -> None:
        self.wires: dict[bytes, Wire] = {}
        self.chains: dict[bytes, list[bytes]] = defaultdict(list)
        self.certificates: dict[bytes, bytes] = {}
        self.items: list[tuple[int, bytes]] = []
        self.sums = [0, 0]
        self.untold: list[Appended] = []
        self.send, self.receive = trio.open_memory_channel[str](1)

    def add(self, events: Sequence[Event]) -> list[Known]:
        """More events, in the order of their chains."""
        known = [known_of(event) for event in events]
        for one in known:
            self.wires[one.id] = one.wire
            self.chains[one.author].append(one.id)
            self.items.append((one.seconds, one.id))
            self.sums[0] += int.from_bytes(one.id, "little")
        return known

    def certify(self, events: Sequence[Event]) -> None:
        """The decision of a task's events."""
        made = certificate(list(events))
        self.certificates[made.id] = made.wire()
        self.sums[1] += int.from_bytes(made.id, "little")

    def standing(self) -> Standing:
        """What a peer is told; nobody compares roots of nodes that differ."""
        events, certificates = ((total % (1 << 256)).to_bytes(32, "little") for total in self.sums)
        totals = Total(len(self.wires), events), Total(len(self.certificates), certificates)
        return Standing(*totals, bytes(32), LOCAL_PROTOCOL_VERSION)

    def heads(self) -> dict[bytes, Head]:
        """How far each chain goes."""
        return {author: (len(ids) - 1, ids[-1]) for author, ids in self.chains.items()}

    def grow(self, events: Sequence[Event]) -> None:
        """Events that others sent join the log, and are told of."""
        told = self.add(events)
        self.untold.append(Appended(told, (), (), (), self.heads(), self.standing(), repaired=True))
        with suppress(trio.WouldBlock):
            self.send.send_nowait("")

    # -- as the network sees it ---------------------------------------------------------------------------------------

    async def stock(self) -> Stock:
        return Stock(Items(self.items), [], list(self.certificates), self.heads(), self.standing())

    async def news(self) -> Sequence[Appended]:
        told, self.untold = self.untold, []
        return told

    @asynccontextmanager
    async def notices(self) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        yield self.receive

    async def intake(self, events: Sequence[Wire], certificates: Sequence[bytes], *, asked: bool) -> Intake:
        return Intake([Fate(sha256(body), "here") for body, _ in events], 0, 0)

    async def answer(self, question: Question) -> object:
        match question:
            case Lacking(ids):
                return [one for one in ids if one not in self.wires]
            case EventsOf(ids):
                return [self.wires[one] for one in ids if one in self.wires]
            case Span(author, first, last, most):
                ids = self.chains[author][first : min(last + 1, first + most)]
                return [self.wires[one] for one in ids]
            case CertificatesOf(ids):
                return [self.certificates[one] for one in ids if one in self.certificates]
        return None


class Outside:
    """How a bench's node calls others (``net.io.ports.Outside``)."""

    def __init__(self) -> None:
        self._context = client_context()

    @asynccontextmanager
    async def dial(self, address: str, node_id: bytes | None) -> AsyncIterator[Line]:
        async with dialled(address, node_id, self._context) as line:
            yield line

    async def shout(self, datagram: bytes) -> None:
        """There is nobody near."""

    async def relate(self, given: Relate) -> None:
        """There are no friends."""


async def serve(events: int, later: int) -> None:
    """Make the history, say where, serve until stdin ends."""
    swarm, shelf = swarm_now(), Shelf()
    for told in history(swarm, events):
        shelf.add(told)
        shelf.certify(told)
    rest = [event for told in history(swarm, later) for event in told] if later else []
    me = Me(swarm.keys[0], swarm.network_id, now_ms())
    listener = await listen("127.0.0.1", 0, server_context(me.keys))
    ways = Ways(me, {key.node_id for key in swarm.keys}.__contains__)
    draw = secrets.SystemRandom()
    async with open_driver(shelf, Outside(), ways, draw, now_ms) as driver, trio.open_nursery() as nursery:
        nursery.start_soon(listener.run, driver.serve, lambda _: False)
        print(swarm.genesis.wire().hex(), f"127.0.0.1:{listener.port}", len(shelf.wires), flush=True)
        await _grow(shelf, rest)
        nursery.cancel_scope.cancel()


async def _grow(shelf: Shelf, rest: list[Event]) -> None:
    at = 0
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as orders:
        async for some in orders:
            for _ in range(some.count(b"\n")):
                shelf.grow(rest[at : at + portion_events])
                at += portion_events


@dataclass(frozen=True, slots=True)
class Served:
    """A peer that serves. ``events``: how many it holds."""

    genesis: bytes
    address: str
    events: int
    process: subprocess.Popen[str]

    def grow(self) -> None:
        """One more portion of the later events joins its log."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def peer(events: int, later: int = 0) -> Iterator[Served]:
    """A peer of ``events``, as a process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.peer", str(events), str(later)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        genesis, address, count = process.stdout.readline().split()
        yield Served(bytes.fromhex(genesis), address, int(count), process)
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]), int(sys.argv[2]))
