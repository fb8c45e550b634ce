"""A server that does to a client what a broken or hostile runtime would: one behaviour a path."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

certificate = Path(__file__).with_name("loopback.pem")
"""A certificate for 127.0.0.1 that nobody trusts, with its key: for tests only."""

Behaviour = Callable[[trio.abc.Stream], Awaitable[None]]


def answer(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole HTTP/1.1 response."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def says(data: bytes) -> Behaviour:
    """Send ``data`` and close."""

    async def behave(stream: trio.abc.Stream) -> None:
        await stream.send_all(data)

    return behave


async def hangs(stream: trio.abc.Stream) -> None:
    """Read the request and never answer."""
    await trio.sleep_forever()


async def streams_for_ever(stream: trio.abc.Stream) -> None:
    """Chunk after chunk of blanks, without end."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await stream.send_all(b"400\r\n" + b" " * 0x400 + b"\r\n")
        await trio.lowlevel.checkpoint()


async def trickles(stream: trio.abc.Stream) -> None:
    """One byte at a time, never done."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.01)


async def closes_half_way(stream: trio.abc.Stream) -> None:
    """Promise a body and close within it."""
    await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"status": ')


def encrypted(behave: Behaviour) -> Behaviour:
    """The same over TLS, after reading the request."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def behave_encrypted(stream: trio.abc.Stream) -> None:
        over_tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await over_tls.receive_some(65536)
        await behave(over_tls)

    return behave_encrypted


@asynccontextmanager
async def server(behave: Behaviour, greets: bool = True) -> AsyncIterator[str]:
    """Serve ``behave`` on a free port of loopback, after reading a request if it ``greets``; gives the base URL."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                if greets:
                    await stream.receive_some(65536)
                await behave(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def routed_server(routes: Mapping[str, Behaviour]) -> AsyncIterator[str]:
    """Serve one behaviour a path; 404 for the others."""
    missing = says(answer("404 Not Found", b"{}"))

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                path = (await stream.receive_some(65536)).split(b" ", 2)[1].decode()
                await routes.get(path, missing)(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
