"""A wire that breaks: a TCP relay, slow, that cuts every connection after a while in the middle of what it carries.

    python -m tests.net.relay TARGET_PORT BYTES_PER_SECOND SECONDS SEED

A process of its own on loopback. It says the port that it listens at, then a line for every connection that it cut:
how many bytes the connection carried. A cut is a reset, at a time drawn around SECONDS, be it in a handshake; what was
on its way is lost with it.
"""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import trio

from tests.sizes import root

piece_bytes = 2_048
here = "127.0.0.1"


@dataclass
class Relay:
    """A relay that runs. ``carried``: bytes of every connection it cut, once it has ended."""

    port: int
    carried: list[int]


@contextmanager
def relay(target_port: int, bytes_per_second: int, seconds: float, seed: int) -> Iterator[Relay]:
    """A relay to a port of this host, ended with the block."""
    words = map(str, (target_port, bytes_per_second, seconds, seed))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.net.relay", *words], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        made = Relay(int(process.stdout.readline()), [])
        try:
            yield made
        finally:
            process.kill()
            made.carried.extend(map(int, process.stdout.read().split()))


@dataclass
class _Wire:
    near: trio.SocketStream
    far: trio.SocketStream
    bytes_per_second: int
    carried: int = 0

    async def carry(self, source: trio.SocketStream, sink: trio.SocketStream, over: trio.CancelScope) -> None:
        """Piece by piece, until an end goes."""
        try:
            async for piece in source:
                await trio.sleep(len(piece) / self.bytes_per_second)
                await sink.send_all(piece)
                self.carried += len(piece)
        except trio.BrokenResourceError:
            pass
        over.cancel()

    async def last(self, seconds: float) -> bool:
        """Carry both ways for so long. False: somebody else ended it."""
        with trio.move_on_after(seconds) as time:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.carry, self.near, self.far, nursery.cancel_scope)
                nursery.start_soon(self.carry, self.far, self.near, nursery.cancel_scope)
        return time.cancelled_caught

    async def cut(self) -> None:
        """Reset both connections."""
        for stream in (self.near, self.far):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)


async def _serve(
    port: int, bytes_per_second: int, seconds: float, draw: random.Random, near: trio.SocketStream
) -> None:
    try:
        far = await trio.open_tcp_stream(here, port)
    except OSError:
        return await trio.aclose_forcefully(near)
    for stream in (near, far):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, piece_bytes)
    wire = _Wire(near, far, bytes_per_second)
    if await wire.last(seconds * draw.uniform(0.1, 1.9)):
        sys.stdout.write(f"{wire.carried}\n")
        sys.stdout.flush()
    await wire.cut()


async def _run(port: int, bytes_per_second: int, seconds: float, seed: int) -> None:
    listeners = await trio.open_tcp_listeners(0, host=here)
    sys.stdout.write(f"{listeners[0].socket.getsockname()[1]}\n")
    sys.stdout.flush()
    await trio.serve_listeners(partial(_serve, port, bytes_per_second, seconds, random.Random(seed)), listeners)


if __name__ == "__main__":
    trio.run(_run, int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
