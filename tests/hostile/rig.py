"""The other end of a real daemon, in bad hands: TLS WebSocket connections that say whatever a test tells them to.

``attacked`` is a swarm of real daemons with the keys and the world of ``tests.cast`` and ``tests.world``, and members
besides whose keys only the test has. ``Rig.meet`` connects to a daemon as anybody - member, observer, stranger - and
gives an ``Enemy``, which says any message, any frame or any bytes, and tells what it hears. Everything blocks, with a
patience: an enemy needs no courtesy, and a test reads from top to bottom. What honest daemons must look like
afterwards is asked of their state (``Rig.unharmed``), never of what they log.
"""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, Request

from net.io.tls import client_context, node_id_of
from net.io.websocket import path as service
from net.proto import frame
from net.proto import message as m
from net.proto.address import split
from net.proto.handshake import ClientHandshake, Door, Me
from netsim.cluster.ground import steady_ports
from sel.guard import AuthorGuard
from sel.rows import LogHead
from sel.views import EventFilter, EventView, events
from tests.cast import Roles, keys_of
from tests.daemons import Daemon, contract, daemon, on_node, patience_s, place
from tests.swarms import becomes
from tests.world import World
from wattswarm import tasks
from wattswarm.home import open_home, seed_name, write_whole
from wattswarm.kernel.event import Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.limits import LOCAL_PROTOCOL_VERSION
from wattswarm.node import Node, now_ms
from wattswarm.presence import NodeState, read_state

T = TypeVar("T")
M = TypeVar("M")
loopback = "127.0.0.1"
empty = m.Total(0, bytes(32))
nothing = m.Standing(empty, empty, bytes(32), LOCAL_PROTOCOL_VERSION)
"""What an enemy says it holds, unless it is told to say more."""
anybody = Door(lambda _id: True, lambda _id: False, lambda: 1)
growth_mib_max = 64
"""How much more memory than before an attack a daemon may have held during it."""


class Gone(Exception):
    """The daemon ended the connection. ``reason``: that of its BYE, or empty."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason or "without a word")
        self.reason = reason


def tcp_to(address: str, source: str = loopback, within_s: float = patience_s) -> socket.socket:
    """A TCP connection from ``source``, an address of this host."""
    made = socket.create_connection(split(address), timeout=within_s, source_address=(source, 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Enemy:
    """A connection to a daemon, up to the WebSocket, by hand. ``heard``: every message that came, in order.

    Raises ``Gone`` where it cannot be made or is ended, once all that came before has been heard.
    """

    def __init__(self, address: str, *, source: str = loopback) -> None:
        self.address = address
        self.heard: list[m.Message] = []
        self._unread: list[m.Message] = []
        self._ended = False
        self._part = bytearray()
        self.socket = _tls(tcp_to(address, source))
        self.server_id = node_id_of(self.socket.getpeercert(binary_form=True))
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._accepted = False
        self.raw(self._ws.send(Request(host=address, target=service)))
        self._until(lambda: self._accepted, patience_s)

    def __enter__(self) -> Enemy:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # -- saying -----------------------------------------------------------------------------------------------------

    def raw(self, data: bytes) -> None:
        """Send bytes inside TLS, whatever they are. Raises ``Gone``."""
        try:
            self.socket.settimeout(patience_s)
            self.socket.sendall(data)
        except (OSError, ssl.SSLError):
            self._ended = True
            raise Gone(self.reason()) from None

    def send(self, data: bytes) -> None:
        """Send a frame, whatever is in it."""
        self.raw(self._ws.send(BytesMessage(data)))

    def say(self, *messages: m.Message) -> None:
        """Send messages."""
        self.raw(b"".join(self._ws.send(BytesMessage(frame.encode(message))) for message in messages))

    def tell(self, *said: Event) -> None:
        """Push events, at most 512."""
        self.say(m.Events(tuple((event.body, event.signature) for event in said)))

    # -- hearing ----------------------------------------------------------------------------------------------------

    def hear(self, kind: type[M], within_s: float = patience_s) -> M:
        """The next message of a kind that was not given out before; others are passed over. Raises ``Gone``."""

        def next_one() -> M | None:
            while self._unread:
                said = self._unread.pop(0)
                if isinstance(said, kind):
                    return said
            return None

        return self._until(next_one, within_s)

    def gone(self, within_s: float = patience_s) -> str:
        """Wait for the daemon to end the connection; the reason of its BYE, or empty. Fails if it does not."""
        with suppress(Gone):
            self._until(lambda: None, within_s)
        return self.reason()

    def alive(self) -> bool:
        """Whether it is answered still."""
        nonce = random.Random().getrandbits(32)
        try:
            self.say(m.Ping(nonce))
            while self.hear(m.Pong).nonce != nonce:
                pass
        except Gone:
            return False
        return True

    def count(self, kind: type[m.Message]) -> int:
        """How many messages of a kind came."""
        return sum(type(said) is kind for said in self.heard)

    def reason(self) -> str:
        """The reason of the BYE that came, or empty."""
        return next((said.reason for said in self.heard if isinstance(said, m.Bye)), "")

    def _until(self, found: Callable[[], T | None], within_s: float) -> T:
        deadline = time.monotonic() + within_s
        while not (answer := found()):
            if self._ended:
                raise Gone(self.reason())
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"not within {within_s} s; heard {[type(said).__name__ for said in self.heard][-20:]}"
            self._receive(left_s)
        return answer

    def _receive(self, within_s: float) -> None:
        """Take in what came, waiting at most ``within_s`` for it."""
        try:
            self.socket.settimeout(within_s)
            came = self.socket.recv(65_536)
        except TimeoutError:
            return
        except (OSError, ssl.SSLError):
            came = b""
        if not came:
            self._ended = True
            return
        self._ws.receive_data(came)
        for event in self._ws.events():
            match event:
                case AcceptConnection():
                    self._accepted = True
                case RejectConnection() | CloseConnection():
                    self._ended = True
                case Ping():
                    with suppress(Gone):
                        self.raw(self._ws.send(event.response()))
                case BytesMessage(data):
                    self._part += data
                    if event.message_finished:
                        self._take(bytes(self._part))
                        self._part.clear()

    def _take(self, data: bytes) -> None:
        said = frame.decode(data)
        assert not isinstance(said, frame.Unknown)
        self.heard.append(said)
        self._unread.append(said)

    # -- the handshake ----------------------------------------------------------------------------------------------

    def answer(self, keys: Keypair, network_id: bytes, standing: m.Standing = nothing, boot_id: int = 1) -> m.Hello:
        """The HELLO that a client with these keys would answer with; it is not said yet."""
        hello = self.hear(m.Hello)
        assert self.server_id is not None
        side = ClientHandshake(Me(keys, network_id, boot_id), anybody, random.Random(), self.server_id)
        return side.on_hello(hello, standing, now_ms())

    def shake_hands(
        self, keys: Keypair, network_id: bytes, standing: m.Standing = nothing, boot_id: int | None = None
    ) -> Enemy:
        """Prove to be the node of these keys; it is taken. Raises ``Gone`` if it is not."""
        self.say(self.answer(keys, network_id, standing, now_ms() if boot_id is None else boot_id))
        self.hear(m.Welcome)
        return self


def _tls(tcp: socket.socket, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    try:
        return (context or client_context()).wrap_socket(tcp)
    except (OSError, ssl.SSLError):
        tcp.close()
        raise Gone("") from None


# -- the daemons ------------------------------------------------------------------------------------------------------


@dataclass
class Rig:
    """Honest daemons by name, and the world whose keys they have. Enemies are members of it, or strangers."""

    world: World
    places: dict[str, Path] = field(default_factory=dict)
    daemons: dict[str, Daemon] = field(default_factory=dict)
    tasks: int = 0

    def address(self, name: str) -> str:
        """Where a daemon listens, as this host dials it."""
        return f"{loopback}:{self.daemons[name].ready.rsplit(':', 1)[1]}"

    def call(self, name: str, *, source: str = loopback) -> Enemy:
        """A connection to a daemon, without a word yet. Raises ``Gone``."""
        return Enemy(self.address(name), source=source)

    def meet(self, who: str | Keypair, name: str, *, source: str = loopback, standing: m.Standing = nothing) -> Enemy:
        """A connection to a daemon as ``who``, who is taken. Raises ``Gone`` if it is not."""
        enemy = self.call(name, source=source)
        keys = keys_of(who) if isinstance(who, str) else who
        try:
            return enemy.shake_hands(keys, self.world.network_id, standing)
        except BaseException:
            enemy.socket.close()
            raise

    def turned_away(self, who: str | Keypair, name: str, *, source: str = loopback) -> str:
        """The reason for which a daemon does not take ``who``. Fails if it does."""
        try:
            self.meet(who, name, source=source).socket.close()
        except Gone as gone:
            return gone.reason
        raise AssertionError(f"{name} took {who}")

    # -- what daemons hold ------------------------------------------------------------------------------------------

    def head(self, name: str) -> LogHead:
        """The totals of a daemon's log."""
        return on_node(self.places[name], lambda node: node.log.head())

    def log(self, name: str, *, refused: bool = False) -> list[EventView]:
        """The events of a daemon's log, as ``log show`` tells them."""

        async def work(node: Node) -> list[EventView]:
            wanted = EventFilter(0, None, None, None, refused, 10_000)
            return list(await events(node.database, self.world.network_id, wanted))

        return on_node(self.places[name], work)

    def author(self, name: str) -> bytes:
        """Have a daemon's node create a task; the event's id."""
        self.tasks += 1
        document = contract(f"honest-{self.tasks}")

        async def work(node: Node) -> bytes:
            await tasks.submit(node.log, document)
            return await node.log.resolve(document["task_id"])

        return on_node(self.places[name], work)

    def state(self, name: str) -> NodeState:
        """What a daemon says of itself."""
        said = read_state(self.places[name])
        assert said is not None
        return said

    def peer(self, who: str | Keypair, name: str) -> dict[str, Any] | None:
        """What a daemon says of somebody who is connected to it; None: nobody such is."""
        keys = keys_of(who) if isinstance(who, str) else who
        return next((one for one in self.state(name).peers if one["node_id"] == keys.node_id.hex()), None)

    def memory_mib(self, name: str, *, anew: bool = False) -> float:
        """The most memory that a daemon has held since it was last asked ``anew``."""
        process = Path(f"/proc/{self.daemons[name].process.pid}")
        if anew:
            (process / "clear_refs").write_text("5")  # the peak begins again at what it holds now: proc(5)
        status = (process / "status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    def meshed(self) -> None:
        """Wait until every daemon is connected to every other one, and says so."""
        for name in self.daemons:
            others = {keys_of(other).node_id.hex() for other in self.daemons} - {keys_of(name).node_id.hex()}
            becomes(partial(self._connected, name, others), True)

    def _connected(self, name: str, others: set[str]) -> bool:
        return others <= {peer["node_id"] for peer in self.state(name).peers}

    def level(self) -> None:
        """Wait until all daemons hold the same."""
        first, *others = self.daemons

        def same() -> bool:
            told = [self.head(name) for name in (first, *others)]
            return len({(one.events, one.events_sum, one.certificates_sum, one.state_root) for one in told}) == 1

        becomes(same, True)

    @contextmanager
    def unharmed(self, growth_mib: float = growth_mib_max) -> Iterator[None]:
        """An attack in its block harms nobody: every daemon lives on and within bounds, and what either authors
        during it and after it comes to all."""
        before = {name: (self.state(name).pid, self.state(name).started_at) for name in self.daemons}
        memory = {name: self.memory_mib(name, anew=True) for name in self.daemons}
        yield
        for name in self.daemons:
            self.author(name)
        self.level()
        for name, daemon_of in self.daemons.items():
            assert daemon_of.process.poll() is None
            assert (self.state(name).pid, self.state(name).started_at) == before[name]
            assert self.memory_mib(name) < memory[name] + growth_mib


def settle(where: Path, keys: Keypair, world: World) -> None:
    """Make a state directory of a node of the world, whose keys are given."""
    where.mkdir(mode=0o755, parents=True)
    AuthorGuard(where).create()
    write_whole(where / seed_name, keys.seed().hex().encode() + b"\n")
    open_home(where, now_ms(), world.genesis)


@contextmanager
def attacked(
    members: Mapping[str, Roles], honest: Sequence[str] = ("ada", "ben"), flags: Sequence[str] = ("--no-autopilot",)
) -> Iterator[Rig]:
    """A network of ``members`` (name -> roles), of whom ``honest`` are daemons, connected to each other.

    The world's clock says now; its other members are whoever a test says they are. With ``--udp`` among the flags the
    daemons find each other by multicast alone, on the port that the environment names.
    """
    world = World(members)
    world.now_ms = now_ms() - 60_000
    rig = Rig(world)
    with ExitStack() as stack:
        for name in honest:
            rig.places[name] = stack.enter_context(place())
            settle(rig.places[name], keys_of(name), world)
        known = f"{loopback}:{steady_ports(1)[0]}"

        def begin(name: str) -> Daemon:
            ways = ["--listen", known] if name == honest[0] else ["--listen", f"{loopback}:0", "--bootstrap", known]
            return stack.enter_context(daemon(rig.places[name], *([] if "--udp" in flags else ways), *flags))

        with ThreadPoolExecutor() as threads:  # most of a beginning is waiting for the disk
            rig.daemons.update(zip(honest, threads.map(begin, honest), strict=True))
        rig.meshed()
        yield rig
