"""A relay in front of every daemon: connections wait on it as long as their way has, and end where it is cut.

``python -m netsim.cluster.relay`` reads one line of JSON (``Terms``) from stdin, says ``ready``, and then takes a line
of JSON for each change: which ways are cut from now on. It answers each with the bytes that every host has sent so far.
It ends with its input.

A way that is cut silently holds what comes, as TCP does whose packets are lost, and lets it go when it heals; one that
is cut with a reset breaks its connections, and none is made. Who dials is told by its address, or on loopback, where
all have one, by the process that has the other end of the connection (Linux).
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
from collections import defaultdict
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import trio

from netsim.cluster.lan import Cut
from wattswarm.presence import daemon_process

chunk_bytes = 1 << 16
chunks_max = 64
linger_none = struct.pack("ii", 1, 0)


class Front(msgspec.Struct, frozen=True):
    """One host: where others reach it, where its daemon listens, and who it is: an address, or a state directory."""

    listen: tuple[str, int]
    daemon: tuple[str, int]
    who: str


class Terms(msgspec.Struct, frozen=True):
    """``latency_ms``: least and most of each way. ``bytes_per_ms``: of one direction of one connection; 0: no bound.

    ``loopback``: all have one address.
    """

    fronts: tuple[Front, ...]
    latency_ms: tuple[int, int]
    bytes_per_ms: int
    loopback: bool
    seed: str


class Change(msgspec.Struct, frozen=True):
    """The ways that are cut from now on: (from, to, how)."""

    cuts: tuple[tuple[int, int, Cut], ...] = ()


class Relay:
    """All fronts. ``sent``: bytes by host."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._draw = random.Random(terms.seed)
        self._cuts: dict[tuple[int, int], Cut] = {}
        self._changed = trio.Event()
        self.sent: dict[int, int] = defaultdict(int)

    def let(self, change: Change) -> None:
        """Exactly these ways are cut from now on."""
        self._cuts = {(here, there): how for here, there, how in change.cuts}
        before, self._changed = self._changed, trio.Event()
        before.set()

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Take connections at every front, for ever."""
        async with trio.open_nursery() as nursery:
            for number, listener in enumerate(listeners):
                nursery.start_soon(trio.serve_listeners, partial(self._carry, number), [listener])

    async def _carry(self, target: int, near: trio.SocketStream) -> None:
        """One connection, from the host that dials to the one that is dialled."""
        caller = await trio.to_thread.run_sync(caller_of, near.socket.getpeername(), self._terms)
        if caller is None:
            return
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            if not await self._open((caller, target)) or not await self._open((target, caller)):
                _reset(near)
                return
            far = await trio.open_tcp_stream(*self._terms.fronts[target].daemon)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with far, trio.open_nursery() as nursery:
                for way, source, sink in (((caller, target), near, far), ((target, caller), far, near)):
                    send, receive = trio.open_memory_channel[tuple[float, bytes]](chunks_max)
                    nursery.start_soon(self._take, way[0], source, send)
                    nursery.start_soon(self._give, way, receive, sink, nursery.cancel_scope)
                nursery.start_soon(self._watch, (caller, target), near, far, nursery.cancel_scope)

    async def _take(
        self, host: int, source: trio.SocketStream, send: trio.MemorySendChannel[tuple[float, bytes]]
    ) -> None:
        (least, most), rate = self._terms.latency_ms, self._terms.bytes_per_ms * 1000
        through = 0.0
        async with send:
            with suppress(trio.BrokenResourceError):
                while some := await source.receive_some(chunk_bytes):
                    self.sent[host] += len(some)
                    through = max(through, trio.current_time()) + (len(some) / rate if rate else 0)
                    await send.send((through + self._draw.uniform(least, most) / 1000, bytes(some)))

    async def _give(
        self,
        way: tuple[int, int],
        receive: trio.MemoryReceiveChannel[tuple[float, bytes]],
        sink: trio.SocketStream,
        scope: trio.CancelScope,
    ) -> None:
        with suppress(trio.BrokenResourceError):
            async for due, some in receive:
                await trio.sleep_until(due)
                if await self._open(way):
                    await sink.send_all(some)
        if await self._open(way):  # that one end closed is not known beyond a cut
            scope.cancel()

    async def _open(self, way: tuple[int, int]) -> bool:
        """Wait while a way is cut silently; whether it is open, and not cut with a reset."""
        while self._cuts.get(way) == "silent":
            await self._changed.wait()
        return way not in self._cuts

    async def _watch(
        self, way: tuple[int, int], near: trio.SocketStream, far: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        """Break the connection when either of its ways is cut with a reset."""
        while "reset" not in (self._cuts.get(way), self._cuts.get((way[1], way[0]))):
            await self._changed.wait()
        _reset(near)
        _reset(far)
        scope.cancel()


def _reset(stream: trio.SocketStream) -> None:
    """Have the other end get a reset when this one is closed."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)


def caller_of(peer: tuple[str, int], terms: Terms) -> int | None:
    """The host whose connection this is. Blocking."""
    if not terms.loopback:
        addresses = [front.who for front in terms.fronts]
        return addresses.index(peer[0]) if peer[0] in addresses else None
    inode = _inode_of(peer[1])
    for number, front in enumerate(terms.fronts):
        if inode is not None and _has(daemon_process(Path(front.who)), inode):
            return number
    return None


def _inode_of(port: int) -> str | None:
    """The socket of this host that has a local port (proc(5), /proc/net/tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].rpartition(":")[2], 16) == port and words[9] != "0":
            return words[9]
    return None


def _has(process: int | None, inode: str) -> bool:
    if not process:
        return False
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{process}/fd/{descriptor}") == f"socket:[{inode}]":
                    return True
    return False


async def main() -> None:
    """The process."""
    lines = trio.wrap_file(sys.stdin)
    terms = msgspec.json.decode(await lines.readline(), type=Terms)
    relay = Relay(terms)
    listeners = [(await trio.open_tcp_listeners(port, host=host))[0] for host, port in (f.listen for f in terms.fronts)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.serve, listeners)
        print("ready", flush=True)  # noqa: T201 - what stdout is for
        async for line in lines:
            relay.let(msgspec.json.decode(line, type=Change))
            print(msgspec.json.encode(dict(relay.sent)).decode(), flush=True)  # noqa: T201
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
