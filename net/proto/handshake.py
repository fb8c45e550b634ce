"""Who speaks here: both sides of a handshake as machines over decoded messages (docs/network.md §3).

The server's node id is proved by TLS, whose certificate is signed with the node's own key. The client's is proved
inside: it signs both ids, the network and both nonces, so a signature made for one server is useless at another, and
one that was made before is useless at the same. A side takes one message of each kind, and then is over.

Refused first, and cheaply: another network, no common version, oneself, whoever is graylisted. The signature is
checked last. Until it holds, the node id is a claim, and nothing may be laid at its door: only the connection and the
address it came from are to blame for what is refused here on the server's side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from net.proto.draw import Draw
from net.proto.message import ClientProof, Hello, Standing, Welcome, listen_max
from wattswarm.kernel import codec, identity
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.refusal import Malformed, Refused

wire_versions = (1,)
signature_context = b"wattswarm/hello/v1"
nonce_bytes = 32


@dataclass(frozen=True, slots=True)
class Me:
    """What this node says of itself. ``boot_id``: greater at every start; unix ms will do."""

    keys: Keypair
    network_id: bytes
    boot_id: int
    listen: tuple[str, ...] = ()
    versions: tuple[int, ...] = wire_versions

    def __post_init__(self) -> None:
        assert len(self.listen) <= listen_max
        assert self.versions


@dataclass(frozen=True, slots=True)
class Door:
    """Whom this node lets in. ``observer_room``: how many more non-members it would serve, 0 for none."""

    is_member: Callable[[bytes], bool]
    is_graylisted: Callable[[bytes], bool]
    observer_room: Callable[[], int]


class Taken(Struct, frozen=True):
    """The other end of a connection, its id proved. ``listen``: where it says it can be dialled, unproved.

    ``member``: whether it is one as far as is known here; a server's answer for a client that is none means that it
    reads only. ``observer``: the server takes *us* as such. ``ahead_ms``: its clock less ours, when its HELLO came.
    """

    node_id: bytes
    boot_id: int
    version: int
    listen: tuple[str, ...]
    standing: Standing
    member: bool
    ahead_ms: int
    observer: bool = False


def signed(network_id: bytes, client_id: bytes, server_id: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    """The bytes that a client signs."""
    return signature_context + codec.encode([network_id, client_id, server_id, server_nonce, client_nonce])


class ServerHandshake:
    """The side that was called: ``hello`` first, then ``on_hello`` once."""

    def __init__(self, me: Me, door: Door, draw: Draw) -> None:
        self._me = me
        self._door = door
        self._nonce = draw.randbytes(nonce_bytes)
        self._over = False

    def hello(self, now_ms: int) -> Hello:
        """What to send when the connection stands."""
        return _hello(self._me, self._nonce, now_ms, None)

    def on_hello(self, hello: Hello, standing: Standing, now_ms: int) -> tuple[Taken, Welcome]:
        """Judge the client's HELLO. Raises ``Refused``: say BYE with its reason, and close."""
        self._over = _once(self._over)
        version = _acceptable(self._me, self._door, hello)
        proof = hello.answer
        if proof is None:
            raise Malformed("no_proof", "the client's HELLO has no proof")
        if proof.server_nonce != self._nonce:
            raise Refused("other_nonce", "the client's proof answers another HELLO than this connection's")
        if hello.nonce == self._nonce:
            raise Refused("own_nonce", "the client's nonce is this connection's own")
        member = self._door.is_member(hello.node_id)
        if not member and self._door.observer_room() <= 0:
            raise Refused("not_a_member", f"{_short(hello.node_id)} is no member, and no observer more is served here")
        message = signed(self._me.network_id, hello.node_id, self._me.keys.node_id, self._nonce, hello.nonce)
        if not identity.holds(hello.node_id, message, proof.signature):
            raise Refused("bad_proof", f"the signature in HELLO is not that of {_short(hello.node_id)}")
        return _taken(hello, version, proof.standing, member, now_ms), Welcome(standing, not member)


class ClientHandshake:
    """The side that called: ``on_hello`` once, then ``on_welcome`` once. ``server_id``: what TLS proved.

    Whether the server is a member is not asked: one that has only the genesis does not know every member yet, and
    what a server sends is judged by itself. ``Taken.member`` tells.
    """

    def __init__(self, me: Me, door: Door, draw: Draw, server_id: bytes) -> None:
        self._me = me
        self._door = door
        self._nonce = draw.randbytes(nonce_bytes)
        self._server_id = server_id
        self._server: tuple[Hello, int, int] | None = None
        self._over = False

    def on_hello(self, hello: Hello, standing: Standing, now_ms: int) -> Hello:
        """The answer to the server's HELLO. Raises ``Refused``: close."""
        if self._server is not None:
            raise Malformed("handshake_order", "the server said HELLO twice")
        version = _acceptable(self._me, self._door, hello)
        if hello.answer is not None:
            raise Malformed("handshake_order", "the server's HELLO has a client's proof")
        if hello.node_id != self._server_id:
            raise Refused("other_server", f"the server says it is {_short(hello.node_id)}, TLS proved another")
        if hello.nonce == self._nonce:
            raise Refused("own_nonce", "the server's nonce is this connection's own")
        self._server = (hello, version, now_ms)
        message = signed(self._me.network_id, self._me.keys.node_id, self._server_id, hello.nonce, self._nonce)
        proof = ClientProof(hello.nonce, self._me.keys.sign(message), standing)
        return _hello(self._me, self._nonce, now_ms, proof)

    def on_welcome(self, welcome: Welcome) -> Taken:
        """The server took us. Raises ``Malformed`` if it did so before it was answered, or twice."""
        if self._server is None:
            raise Malformed("handshake_order", "WELCOME came before HELLO")
        self._over = _once(self._over)
        hello, version, heard_ms = self._server
        member = self._door.is_member(hello.node_id)
        return _taken(hello, version, welcome.standing, member, heard_ms, welcome.observer)


class Line(Struct, frozen=True):
    """One of two connections to the same node. ``boot_id``: the other end's; ``dialler``: who called."""

    boot_id: int
    dialler: bytes


def keep(held: Line, new: Line) -> Line:
    """Which of two connections to one node stays; both ends come to the same answer.

    The newer boot wins: the other connection is to a process that is gone. Else the one that the smaller node id
    dialled. Between two that one side dialled, the later: it would not call again, had it not lost the first. (So
    nobody answers the HELLO of a server that it has dialled already and is connected to.)
    """
    if held.boot_id != new.boot_id:
        return max(held, new, key=lambda line: line.boot_id)
    return held if held.dialler < new.dialler else new


# -- what both sides do --------------------------------------------------------------------------------------------


def _acceptable(me: Me, door: Door, hello: Hello) -> int:
    """The version both speak, if there is nothing against the node that says this. Raises ``Refused``."""
    if hello.network_id != me.network_id:
        raise Refused("other_network", f"network {_short(hello.network_id)}, ours is {_short(me.network_id)}")
    common = set(hello.versions) & set(me.versions)
    if not common:
        theirs, ours = (", ".join(map(str, sorted(versions))) for versions in (hello.versions, me.versions))
        raise Refused("no_common_version", f"the other end speaks wire version {theirs}, this one {ours}")
    if hello.node_id == me.keys.node_id:
        raise Refused("self", "the other end is this node itself")
    if door.is_graylisted(hello.node_id):
        raise Refused("graylisted", f"{_short(hello.node_id)} is graylisted for a while")
    return max(common)


def _hello(me: Me, nonce: bytes, now_ms: int, answer: ClientProof | None) -> Hello:
    return Hello(me.versions, me.network_id, me.keys.node_id, me.boot_id, nonce, now_ms, me.listen, answer)


def _taken(
    hello: Hello, version: int, standing: Standing, member: bool, heard_ms: int, observer: bool = False
) -> Taken:
    ahead_ms = hello.time_ms - heard_ms
    return Taken(hello.node_id, hello.boot_id, version, hello.listen, standing, member, ahead_ms, observer)


def _once(over: bool) -> bool:
    if over:
        raise Malformed("handshake_order", "the handshake is over, and another message of it came")
    return True


def _short(value: bytes) -> str:
    return f"{value.hex()[:16]}…"
