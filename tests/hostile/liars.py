"""Members that lie to real daemons: swarms that have some, the means to author anything as one of them, and the
connections on which they say it and serve what they please.

``Stage`` is ``tests.world``'s on this host's clock: it speaks for all who have no daemon. ``Liar`` is one connection,
made over TLS like anybody's, in a thread of its own, so that a test reads like a list of what is done and what is then
so.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from net.io.ports import Line, LineClosed
from net.io.tls import client_context
from net.io.websocket import dialled
from net.proto import frame
from net.proto import message as m
from net.proto.handshake import ClientHandshake, Door, Me
from sel.guard import AuthorGuard
from tests.cast import Roles, day_ms, keys_of
from tests.daemons import Daemon, daemon, patience_s, place, wattswarm
from tests.swarms import runtime
from tests.world import World
from wattswarm.home import network_name, seed_name, write_whole
from wattswarm.kernel import codec
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.event import Event, signature_context
from wattswarm.kernel.genesis import make_genesis
from wattswarm.kernel.membership import Network
from wattswarm.node import now_ms

nothing = m.Standing(m.Total(0, bytes(32)), m.Total(0, bytes(32)), bytes(32), "0.1.0")
since_ms = day_ms  # how old the network is: there is a past that can be told


class Stage(World):
    """A world of this moment. ``now_ms`` is never behind the host's clock."""

    def __init__(self, members: Mapping[str, Roles]) -> None:
        super().__init__(members)
        self.genesis = make_genesis(
            name="beset",
            created_at=now_ms() - since_ms,
            fault_model="byzantine",
            members={keys_of(name).node_id: frozenset(roles) for name, roles in members.items()},
            signers=[keys_of(name) for name in members],
        )
        self.network = Network.of(self.genesis)
        self.now_ms = now_ms()

    def tick(self, ms: int = 1) -> int:
        """The time, and later than the last."""
        self.now_ms = max(self.now_ms + ms, now_ms())
        return self.now_ms


# -- a swarm that has liars -----------------------------------------------------------------------------------------


@dataclass
class Beset:
    """Honest daemons by name, and the stage for everybody else."""

    stage: Stage
    places: dict[str, Path]
    daemons: dict[str, Daemon]

    def listens(self, name: str) -> str:
        """Where a daemon is dialled."""
        return f"127.0.0.1:{self.daemons[name].ready.rsplit(':', 1)[1]}"

    def ask(self, name: str, *words: str) -> Any:
        """A command on a daemon's node, its answer as JSON values."""
        return wattswarm(self.places[name], *words)


@contextmanager
def beset(
    honest: Sequence[str], liars: Sequence[str], roles: Mapping[str, Roles], flags: Sequence[str] = ()
) -> Iterator[Beset]:
    """A daemon for each of ``honest``, found by the first's address; ``roles``: of every member."""
    stage = Stage({name: roles[name] for name in (*honest, *liars)})
    with ExitStack() as stack:
        found = Beset(stage, {}, {})
        for name in honest:
            where = found.places[name] = stack.enter_context(place())
            where.mkdir()
            AuthorGuard(where).create()
            write_whole(where / seed_name, keys_of(name).seed().hex().encode())
            write_whole(where / network_name, stage.genesis.wire())
        if "--no-autopilot" not in flags:
            url = stack.enter_context(runtime())
            for where in found.places.values():
                wattswarm(where, "executors", "add", "rt", url)
        ways = ["--listen", "127.0.0.1:0", *flags]
        for name, where in found.places.items():
            found.daemons[name] = stack.enter_context(daemon(where, *ways))
            if len(found.daemons) == 1:
                ways += ["--bootstrap", found.listens(name)]
        yield found


# -- a liar's connection --------------------------------------------------------------------------------------------


@dataclass
class Liar:
    """A member's key in bad hands, connected to a daemon. Made by ``lying``.

    ``events`` and ``certificates`` are what it says it has, and serves when asked. ``ended``: it is let go; ``reason``:
    of the daemon's BYE.
    """

    name: str
    held: list[Event] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)
    heard: list[m.Message] = field(default_factory=list)
    reason: str = ""
    ready: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _line: Line | None = None
    _token: trio.lowlevel.TrioToken | None = None

    def say(self, *messages: m.Message) -> None:
        """Say it, as far as the daemon still listens."""
        for message in messages:
            self.say_bytes(frame.encode(message))

    def say_bytes(self, *frames: bytes) -> None:
        """Say any bytes."""
        assert self._token is not None
        for each in frames:
            with suppress(LineClosed, trio.RunFinishedError, trio.Cancelled):
                trio.from_thread.run(self._send, each, trio_token=self._token)

    async def _send(self, data: bytes) -> None:
        if self._line is not None:
            await self._line.send(data)

    def push(self, *events: Event) -> None:
        """Say events that nobody asked for, and hold them."""
        self.held += events
        for wires in frame.packed([event.wire for event in events], m.events_max):
            self.say(m.Events(tuple(wires)))

    def certify(self, *certificates: Certificate) -> None:
        """Say certificates that nobody asked for, and hold them."""
        self.certificates += certificates
        self.say(m.Cert(tuple(certificate.wire() for certificate in certificates)))

    # -- what it answers ------------------------------------------------------------------------------------------

    def answer(self, said: m.Message) -> Iterable[m.Message]:
        """As an honest node would that compares nothing by itself."""
        match said:
            case m.Ping(nonce):
                return [m.Pong(nonce, 0)]
            case m.FrontierGet():
                return [m.Frontier(tuple(self.frontier()), more=False)]
            case m.RangeGet():
                return [self.range_of(said)]
            case m.Want(ids):
                return [m.Events(tuple(event.wire for event in self.held if event.id in ids))]
            case m.NegOpen(session) | m.NegMsg(session):
                return [m.NegErr(session, "busy")]
            case m.CertGet(ids):
                return [m.Cert(tuple(one.wire() for one in self.certificates if one.id in ids))]
        return []

    def frontier(self) -> list[tuple[bytes, int, bytes]]:
        """How far it holds each chain, as it says."""
        heads = {event.author: event for event in sorted(self.held, key=lambda event: event.author_seq)}
        return [(author, head.author_seq, head.id) for author, head in sorted(heads.items())]

    def range_of(self, asked: m.RangeGet) -> m.Range:
        """A part of a chain, as it gives it."""
        span = range(asked.first_seq, asked.last_seq + 1)
        found = {event.author_seq: event for event in self.held if event.author == asked.author}
        return m.Range(asked.author, tuple(found[seq].wire for seq in span if seq in found), more=False)

    # -- the connection -------------------------------------------------------------------------------------------

    async def speak(self, address: str, network: Network) -> None:
        """Shake hands and answer, until the daemon ends it."""
        self._token = trio.lowlevel.current_trio_token()
        me = Me(keys_of(self.name), network.network_id, now_ms())
        door = Door(lambda _: True, lambda _: False, lambda: 9)
        async with dialled(address, None, client_context()) as line:
            assert line.server_id is not None
            side = ClientHandshake(me, door, random.Random(), line.server_id)
            line.authenticated()
            self._line = line
            while True:
                said = frame.decode(await line.receive())
                assert not isinstance(said, frame.Unknown)
                match said:
                    case m.Hello():
                        await line.send(frame.encode(side.on_hello(said, nothing, now_ms())))
                    case m.Welcome():
                        self.ready.set()
                    case m.Bye(reason):
                        self.reason = reason
                        return
                    case _:
                        self.heard.append(said)
                        for answer in self.answer(said):
                            await line.send(frame.encode(answer))


@contextmanager
def lying(swarm: Beset, name: str, to: str, make: Callable[[str], Liar] = Liar) -> Iterator[Liar]:
    """``name``, connected to the daemon ``to`` while the block lasts; what it was turned away for is in ``reason``."""
    liar = make(name)
    stop = threading.Event()

    async def live() -> None:
        with suppress(LineClosed):
            await liar.speak(swarm.listens(to), swarm.stage.network)

    async def whole() -> None:
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope

            async def watch() -> None:
                while not stop.is_set():
                    await trio.sleep(0.02)
                scope.cancel()

            nursery.start_soon(watch)
            await live()
            scope.cancel()

    def run() -> None:
        try:
            trio.run(whole)
        finally:
            liar.ended.set()
            liar.ready.set()

    thread = threading.Thread(target=run, name=f"liar {name}")
    thread.start()
    try:
        assert liar.ready.wait(patience_s)
        yield liar
    finally:
        stop.set()
        thread.join(patience_s)
        assert not thread.is_alive()


def tampered(event: Event) -> m.Wire:
    """An event whose signature is not its author's."""
    return event.body, bytes([event.signature[0] ^ 1]) + event.signature[1:]


def twisted(name: str, event: Event) -> m.Wire:
    """An event of ``name``'s whose body says the same in another spelling, really signed: a length in too many bytes."""
    values = codec.decode(event.body)
    spelled = codec.encode(values[1])
    body = event.body.replace(spelled, b"\x59\x00\x20" + values[1], 1)
    assert body != event.body
    return body, keys_of(name).sign(signature_context + codec.sha256(body))
