"""The relay of a cluster: what comes waits as long as its way takes, or until a cut is over, or ends with a reset."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from netsim.cluster.relay import Change, Front, Relay, Terms, caller_of
from wattswarm.presence import presence

ann, bob = "127.0.0.2", "127.0.0.3"
nowhere = ("127.0.0.1", 9)
Dial = Callable[..., Awaitable[trio.SocketStream]]


@asynccontextmanager
async def between(latency_ms: tuple[int, int] = (0, 0), bytes_per_ms: int = 0) -> AsyncIterator[tuple[Relay, Dial]]:
    """A relay before an echo at bob's, and a way to dial him from an address."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        (echo,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        (front,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _echo, [echo])
        fronts = (Front(nowhere, nowhere, ann), Front(nowhere, ("127.0.0.1", _port(echo)), bob))
        relay = Relay(Terms(fronts, latency_ms, bytes_per_ms, False, "seed"))
        (other,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(relay.serve, [other, front])

        async def dial(caller: str = ann) -> trio.SocketStream:
            stream = await trio.open_tcp_stream("127.0.0.1", _port(front), local_address=caller)
            return await stack.enter_async_context(stream)

        with trio.fail_after(20):
            yield relay, dial
        nursery.cancel_scope.cancel()


async def _echo(stream: trio.SocketStream) -> None:
    try:
        while some := await stream.receive_some():
            await stream.send_all(some)
    except trio.BrokenResourceError:
        return


def _port(listener: trio.SocketListener) -> int:
    return int(listener.socket.getsockname()[1])


async def answer(stream: trio.SocketStream, said: bytes) -> bytes:
    await stream.send_all(said)
    return bytes(await stream.receive_some())


async def test_a_silent_cut_of_either_way_holds_what_is_said_until_it_heals() -> None:
    async with between() as (relay, dial):
        stream = await dial()
        assert await answer(stream, b"before") == b"before"
        for way in ((0, 1), (1, 0)):
            relay.let(Change(((*way, "silent"),)))
            with trio.move_on_after(0.2) as waited:
                await answer(stream, b"meanwhile")
            assert waited.cancelled_caught
            relay.let(Change())
            assert await stream.receive_some() == b"meanwhile"


async def test_a_reset_breaks_what_is_there_and_lets_nobody_in_until_it_heals() -> None:
    async with between() as (relay, dial):
        stream = await dial()
        await answer(stream, b"before")
        relay.let(Change(((1, 0, "reset"),)))
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        again = await dial()
        with pytest.raises(trio.BrokenResourceError):
            await answer(again, b"meanwhile")
        relay.let(Change())
        assert await answer(await dial(), b"after") == b"after"


async def test_cuts_are_of_their_ways_alone_and_a_stranger_is_not_served() -> None:
    async with between() as (relay, dial):
        relay.let(Change(((0, 1, "reset"),)))
        assert await answer(await dial(bob), b"own") == b"own"
        stranger = await dial("127.0.0.4")
        assert await stranger.receive_some() == b""
        assert relay.sent == {1: 6}


async def test_what_is_said_takes_as_long_as_its_ways_and_a_narrow_line_longer() -> None:
    async with between((100, 120), bytes_per_ms=100) as (_, dial):
        stream = await dial()
        began = trio.current_time()
        await stream.send_all(bytes(10_000))
        left = 10_000
        while left:
            left -= len(await stream.receive_some())
        assert 0.38 <= trio.current_time() - began < 2


async def test_on_loopback_a_caller_is_told_by_the_process_that_holds_its_socket(tmp_path: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    mine, other = tmp_path / "mine", tmp_path / "other"
    fronts = (Front(nowhere, nowhere, str(other)), Front(nowhere, nowhere, str(mine)))
    terms = Terms(fronts, (0, 0), 0, True, "seed")
    async with listener, await trio.open_tcp_stream("127.0.0.1", _port(listener)) as stream:
        here = stream.socket.getsockname()
        assert caller_of(here, terms) is None
        with presence(mine):
            assert caller_of(here, terms) == 1
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert caller_of(unused.getsockname(), terms) is None
    assert os.listdir(mine)
