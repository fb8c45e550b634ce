"""Ask a peer for the proof of a decision, over one connection and with no log (docs/network.md §5).

What comes is checked by whoever asked: a bundle proves itself (docs/protocol.md §7).
"""

from __future__ import annotations

import secrets

import trio

from net.io.ports import DialFailed, Line, LineClosed
from net.io.tls import client_context
from net.io.websocket import dialled
from net.proto import frame
from net.proto import message as m
from net.proto.handshake import ClientHandshake, Door, Me
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.limits import LOCAL_PROTOCOL_VERSION
from wattswarm.kernel.refusal import Malformed, Refused

fetch_s_max = 15.0
_nothing = m.Total(0, bytes(32))


async def fetch(address: str, keys: Keypair, network_id: bytes | None, task: bytes, epoch: int, now_ms: int) -> bytes:
    """The bundle for ``task`` (event id of its creation) from the node at ``address``, within 15 s.

    ``network_id`` None: whatever network the peer says it is of. Raises ``Refused``.
    """
    try:
        with trio.fail_after(fetch_s_max):
            async with dialled(address, None, client_context()) as line:
                return await _ask(line, keys, network_id, m.ProofGet(task, epoch), now_ms)
    except DialFailed as error:
        raise Refused("dial", str(error)) from None
    except trio.TooSlowError:
        raise Refused("slow_peer", f"{address} gave no answer within {fetch_s_max:g} s") from None
    except LineClosed:
        raise Refused("peer_left", f"{address} ended the connection without an answer") from None


async def _ask(line: Line, keys: Keypair, network_id: bytes | None, wanted: m.ProofGet, now_ms: int) -> bytes:
    hello = await _next(line)
    if not isinstance(hello, m.Hello):
        raise Malformed("handshake_order", f"{line.address} did not begin with HELLO")
    assert line.server_id is not None
    door = Door(lambda _id: False, lambda _id: False, lambda: 0)
    me = Me(keys, network_id or hello.network_id, 0)
    side = ClientHandshake(me, door, secrets.SystemRandom(), line.server_id)
    standing = m.Standing(_nothing, _nothing, bytes(32), LOCAL_PROTOCOL_VERSION)
    await line.send(frame.encode(side.on_hello(hello, standing, now_ms)))
    while True:
        match await _next(line):
            case m.Welcome() as welcome:
                side.on_welcome(welcome)
                line.authenticated()
                await line.send(frame.encode(wanted))
            case m.Proof(task, epoch, bundle) if (task, epoch) == (wanted.task, wanted.epoch):
                if bundle is None:
                    raise Refused("no_proof", f"{line.address} has no proof for epoch {epoch} of this task")
                return bundle
            case m.Bye(reason):
                raise Refused(reason, _turned_away(line.address, reason))


async def _next(line: Line) -> m.Message | frame.Unknown:
    return frame.decode(await line.receive())


def _turned_away(address: str, reason: str) -> str:
    hint = ""
    if reason == "not_a_member":
        hint = ": this key is no member's, and no observer more is let in there (`wattswarm-node --observers N` does)"
    return f"{address} turned us away ({reason}){hint}"
