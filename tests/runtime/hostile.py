"""A server that does to a client what a broken or hostile runtime would: one behaviour a path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


def answer(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole HTTP/1.1 response."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def says(data: bytes) -> Behaviour:
    """Send ``data`` and close."""

    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all(data)

    return behave


async def hangs(stream: trio.SocketStream) -> None:
    """Read the request and never answer."""
    await trio.sleep_forever()


async def streams_for_ever(stream: trio.SocketStream) -> None:
    """Chunk after chunk of blanks, without end."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await stream.send_all(b"400\r\n" + b" " * 0x400 + b"\r\n")
        await trio.lowlevel.checkpoint()


async def trickles(stream: trio.SocketStream) -> None:
    """One byte at a time, never done."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.01)


async def closes_half_way(stream: trio.SocketStream) -> None:
    """Promise a body and close within it."""
    await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"status": ')


@asynccontextmanager
async def server(behave: Behaviour) -> AsyncIterator[str]:
    """Serve ``behave`` on a free port of loopback; gives the base URL."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some(65536)
            await behave(stream)
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
