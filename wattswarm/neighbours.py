"""A node on the network: sockets, driver and shared log joined, as ``wattswarm.daemon`` attaches them.

Order of lives: sockets › driver › connections. Beside them this node follows what its operator orders about peers
(``sel.relations``) and keeps whom it found (``wattswarm.discovered``); what is wrong with the network is told here.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
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
from net.proto.meeting import Memory
from net.proto.peer import Peer
from net.proto.values import Heard, Intruded, Ordered, Placed, Relate, Relation
from sel import relations
from sel.authoring import ClockAhead
from sel.errors import StoreUnavailable
from sel.signatures import open_checker
from wattswarm import discovered
from wattswarm.config import Config, Udp
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.node import Node, now_ms
from wattswarm.shared_log import SharedLog

_log = logging.getLogger(__name__)
observers_on_loopback = 8
orders_poll_s = 10.0
retry_s = 1.0
keep_look_s = 5.0
keep_seen_ms = 300_000
"""How old the kept times may be at which nodes were seen; who is newly found is kept sooner."""


class _Outside:
    """What the driver may do beside answering (``net.io.ports.Outside``)."""

    def __init__(self, node: Node, multicast: Multicast | None) -> None:
        self._node = node
        self._context = client_context()
        self._multicast = multicast

    def dial(self, address: str, node_id: bytes | None) -> AbstractAsyncContextManager[Line]:
        """Connect over TLS."""
        return dialled(address, node_id, self._context)

    async def shout(self, datagram: bytes) -> None:
        """Call out, if this node does."""
        if self._multicast is not None:
            await self._multicast.shout(datagram)

    async def relate(self, given: Relate) -> None:
        """Keep it in the node's database, as soon as that is there."""
        while True:
            with suppress(StoreUnavailable):
                return await relations.relate(
                    self._node.database, relations.RelationRow(given.node_id, *given.relation)
                )
            await trio.sleep(retry_s)


@dataclass(frozen=True, slots=True)
class OnNetwork:
    """The neighbours of a daemon (``wattswarm.daemon.Neighbours``)."""

    listen: str
    driver: Driver

    def peers(self) -> list[dict[str, Any]]:
        """Who is connected, as the state file tells it."""
        machine = self.driver.machine
        return [_told(peer, machine.conduct.score) for peer in machine.peers.values() if peer.taken is not None]

    def kept_out(self) -> list[dict[str, Any]]:
        """Nodes that are not let in for what they did, and hosts, until when."""
        conduct, now = self.driver.machine.conduct, now_ms()
        nodes = [{"node_id": node_id.hex(), "until": until} for node_id, until in conduct.nodes_out(now).items()]
        return [*nodes, *({"host": host, "until": until} for host, until in conduct.hosts_out(now).items())]

    def alarms(self) -> list[str]:
        """What the network tells that is wrong with this host."""
        off_ms = self.clock_off_ms()
        return [str(ClockAhead(off_ms)) if off_ms > 0 else _behind(off_ms)] if off_ms else []

    def clock_off_ms(self) -> int:
        """By how much this host's clock is ahead of its peers' (above 0) or behind; 0: it is right."""
        return self.driver.machine.meeting.clocks.off_ms

    def objection(self) -> ClockAhead | None:
        """Why nothing is to be authored now, if there is a reason."""
        off_ms = self.clock_off_ms()
        return ClockAhead(off_ms) if off_ms > 0 else None


def _behind(off_ms: int) -> str:
    return f"this host's clock is {-off_ms / 1000:.1f} s behind those of this node's peers; set it right"


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
        "clock_ahead_ms": taken.ahead_ms,
        "unknown_messages": peer.unknown,
        "events": peer.events,
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
    boot_id = now_ms()
    where = join(host, listener.port)
    me = Me(keys, node.home.genesis.network_id, boot_id, config.advertise or (where,))
    observers = config.observers
    if observers is None:
        observers = observers_on_loopback if is_loopback(host) else 0
    orders = await relations.read(node.database)
    with _multicast(config.udp) as multicast:
        announcer = None if multicast is None else Announcer(keys, me.network_id, listener.port, boot_id)
        async with open_checker() as checker:
            shared = SharedLog(node, checker)
            ways = Ways(me, shared.is_member, observers, _begins_with(config, orders), announcer, _memory(node, orders))
            async with (
                open_driver(shared, _Outside(node, multicast), ways, secrets.SystemRandom(), now_ms) as driver,
                trio.open_nursery() as nursery,
            ):
                conduct = driver.machine.conduct
                nursery.start_soon(
                    listener.run,
                    driver.serve,
                    lambda host: conduct.blocked(host, now_ms()),
                    lambda host: driver.feed(Intruded(host)),
                )
                if multicast is not None:
                    nursery.start_soon(multicast.hear, lambda host, data: driver.feed(Heard(host, data)))
                nursery.start_soon(_follow_orders, node, driver, orders)
                nursery.start_soon(_keep_discovered, config.state_dir, driver)
                made = OnNetwork(where, driver)
                node.log.objection = made.objection
                yield made
                nursery.cancel_scope.cancel()


# -- what the operator orders --------------------------------------------------------------------------------------


def _begins_with(config: Config, orders: relations.Orders) -> tuple[str, ...]:
    added = (place.about for place in orders.places if place.wanted and ":" in place.about)
    return (*config.bootstrap, *added)


def _memory(node: Node, orders: relations.Orders) -> Memory:
    return Memory(
        discovered.known(discovered.read(node.home.path)),
        {row.node_id: Relation(row.number, row.wish, row.asked) for row in orders.relations},
        tuple(place.about for place in orders.places if not place.wanted),
    )


async def _follow_orders(node: Node, driver: Driver, seen: relations.Orders) -> None:
    """Tell the machine what the operator orders from now on."""
    while True:
        with suppress(StoreUnavailable):
            async with node.database.listen(relations.channel) as notices:
                while True:
                    now = await relations.read(node.database)
                    for order in _newer(seen, now):
                        driver.feed(order)
                    seen = now
                    with trio.move_on_after(orders_poll_s):
                        await notices.receive()
        await trio.sleep(retry_s)


def _newer(seen: relations.Orders, now: relations.Orders) -> Iterator[Ordered | Placed]:
    friend = max((row.number for row in seen.relations), default=0)
    place = max((row.number for row in seen.places), default=0)
    for row in now.relations:
        if row.number > friend and row.wish:
            yield Ordered(row.node_id, row.number, row.wish)
    for one in now.places:
        if one.number > place:
            yield Placed(one.about, one.wanted)


# -- whom it found -------------------------------------------------------------------------------------------------


async def _keep_discovered(state_dir: Path, driver: Driver) -> None:
    """Keep whom this node found: soon if somebody is new or has gone, else now and then, and at the end."""
    kept: Sequence[discovered.Discovered] = ()
    looked: set[discovered.Discovered] = set()
    kept_ms = 0

    def found() -> list[discovered.Discovered]:
        return discovered.discovered(driver.machine.meeting.book.known(now_ms()))

    try:
        while True:
            now = found()
            gone = looked.intersection(now).difference(kept)  # who is there was seen later with each look
            looked = set(now)
            if gone or _who(now) != _who(kept) or (now and now_ms() - kept_ms >= keep_seen_ms):
                await trio.to_thread.run_sync(_keep, state_dir, now)
                kept, kept_ms = now, now_ms()
            await trio.sleep(keep_look_s)
    finally:
        if now := found():
            _keep(state_dir, now)


def _who(found: Sequence[discovered.Discovered]) -> set[tuple[str, str]]:
    return {(one.node_id, one.address) for one in found}


def _keep(state_dir: Path, found: Sequence[discovered.Discovered]) -> None:
    try:
        discovered.write(state_dir, found)
    except OSError as error:
        _log.warning("whom this node found cannot be kept", extra={"why": str(error)})


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
