"""A node on the network: sockets, driver and shared log joined, as ``wattswarm.daemon`` attaches them.

Order of lives: sockets › driver › connections. Who is discovered, and what is wrong with the network, is told here.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import trio

from net.io.driver import Driver, open_driver
from net.io.multicast import Multicast, open_multicast
from net.io.ports import Line
from net.io.tls import client_context, server_context
from net.io.websocket import Listener, dialled, listen
from net.proto.address import is_loopback, join, split
from net.proto.announce import Announcer
from net.proto.handshake import Me
from net.proto.machine import Ways
from net.proto.peer import Peer
from net.proto.values import Heard
from wattswarm.config import Config, Udp
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.node import Node, now_ms
from wattswarm.shared_log import SharedLog

observers_on_loopback = 8


class _Outside:
    """What the driver may do beside answering (``net.io.ports.Outside``)."""

    def __init__(self, multicast: Multicast | None) -> None:
        self._context = client_context()
        self._multicast = multicast

    def dial(self, address: str, node_id: bytes | None) -> AbstractAsyncContextManager[Line]:
        """Connect over TLS."""
        return dialled(address, node_id, self._context)

    async def shout(self, datagram: bytes) -> None:
        """Call out, if this node does."""
        if self._multicast is not None:
            await self._multicast.shout(datagram)


@dataclass(frozen=True, slots=True)
class OnNetwork:
    """The neighbours of a daemon (``wattswarm.daemon.Neighbours``)."""

    listen: str
    driver: Driver

    def peers(self) -> list[dict[str, Any]]:
        """Who is connected, as the state file tells it."""
        machine = self.driver.machine
        return [_told(peer, machine.conduct.score) for peer in machine.peers.values() if peer.taken is not None]

    def alarms(self) -> list[str]:
        """Nothing that the log does not tell."""
        return []


def _told(peer: Peer, score: Callable[[bytes, int], float]) -> dict[str, Any]:
    assert peer.taken is not None
    taken = peer.taken
    return {
        "node_id": taken.node_id.hex(),
        "address": peer.address,
        "direction": "out" if peer.dialled else "in",
        "member": taken.member,
        "rtt_ms": peer.rtt_ms,
        "in_sync": peer.stage == "level",
        "own_seq": peer.own_seq,
        "score": round(score(taken.node_id, now_ms())),
        "protocol_version": taken.standing.protocol_version,
    }


def listening_at(config: Config) -> tuple[str, int]:
    """(host, port) to listen at: who calls out on the local network without saying where listens everywhere."""
    host, port = split(config.listen)
    if config.udp.enabled and config.settings["listen"].origin == "default":
        host = "0.0.0.0"  # noqa: S104 - it was asked to be found
    return host, port


@asynccontextmanager
async def attach(node: Node) -> AsyncIterator[OnNetwork]:
    """Be on the network while the context lasts. Raises ``Refused`` if an address cannot be listened at."""
    config, keys = node.config, node.home.keys
    host, port = listening_at(config)
    listener = await _listener(host, port, node)
    shared, boot_id = SharedLog(node), now_ms()
    where = join(host, listener.port)
    me = Me(keys, node.home.genesis.network_id, boot_id, config.advertise or (where,))
    observers = config.observers
    if observers is None:
        observers = observers_on_loopback if is_loopback(host) else 0
    with _multicast(config.udp) as multicast:
        announcer = None if multicast is None else Announcer(keys, me.network_id, listener.port, boot_id)
        ways = Ways(me, shared.is_member, observers, config.bootstrap, announcer)
        draw = secrets.SystemRandom()
        async with (
            open_driver(shared, _Outside(multicast), ways, draw, now_ms) as driver,
            trio.open_nursery() as nursery,
        ):
            conduct = driver.machine.conduct
            nursery.start_soon(listener.run, driver.serve, lambda host: conduct.blocked(host, now_ms()))
            if multicast is not None:
                nursery.start_soon(multicast.hear, lambda host, data: driver.feed(Heard(host, data)))
            yield OnNetwork(where, driver)
            nursery.cancel_scope.cancel()


async def _listener(host: str, port: int, node: Node) -> Listener:
    try:
        return await listen(host, port, server_context(node.home.keys))
    except OSError as error:
        found = Problem("listen", join(host, port), f"an address of this host whose port is free ({error})")
        raise Refused("listen", "cannot listen for peers", (found,)) from None


@contextmanager
def _multicast(udp: Udp) -> Iterator[Multicast | None]:
    """What this node calls out and hears with; None: it does neither."""
    with ExitStack() as stack:
        multicast = None
        if udp.enabled:
            try:
                multicast = stack.enter_context(open_multicast(udp.addr, udp.port))
            except OSError as error:
                found = Problem("udp_announce_addr", udp.addr, f"an IPv4 multicast or broadcast address ({error})")
                raise Refused("udp", "cannot announce on the local network", (found,)) from None
        yield multicast
