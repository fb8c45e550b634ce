"""Connections in memory: two ends, frames in order, one closing for both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from net.io.ports import DialFailed, Line, LineClosed
from net.proto.values import Relate


@dataclass
class MemoryLine:
    """One end."""

    address: str
    server_id: bytes | None
    out: trio.MemorySendChannel[bytes]
    into: trio.MemoryReceiveChannel[bytes]
    proved: bool = False

    def authenticated(self) -> None:
        self.proved = True

    async def send(self, frame: bytes) -> None:
        try:
            await self.out.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LineClosed from None

    async def receive(self) -> bytes:
        try:
            return await self.into.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LineClosed from None

    async def aclose(self, reason: str = "") -> None:
        await self.out.aclose()
        await self.into.aclose()


def line_pair(client: str, server: str, server_id: bytes) -> tuple[MemoryLine, MemoryLine]:
    """The client's end and the server's."""
    up, down = trio.open_memory_channel[bytes](16), trio.open_memory_channel[bytes](16)
    return MemoryLine(server, server_id, up[0], down[1]), MemoryLine(client, None, down[0], up[1])


class Nowhere:
    """Outside of a node that cannot call anybody."""

    @asynccontextmanager
    async def dial(self, address: str, node_id: bytes | None) -> AsyncIterator[Line]:
        """Nobody."""
        raise DialFailed(f"{address}: there is no way")
        yield

    async def shout(self, datagram: bytes) -> None:
        """Unheard."""

    async def relate(self, given: Relate) -> None:
        """Forgotten."""
