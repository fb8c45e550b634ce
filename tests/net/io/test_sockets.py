"""Connections over real sockets and real TLS: who is there, and what a stranger may do before it says who it is."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from net.io import websocket
from net.io.multicast import open_multicast
from net.io.ports import DialFailed, Line, LineClosed
from net.io.stranger import Gate, strangers_a_host_max, strangers_max
from net.io.tls import client_context, node_id_of, server_context
from net.io.websocket import Listener, dialled, listen
from net.proto.message import frame_bytes_max
from wattswarm.kernel.identity import Keypair

keys = Keypair(bytes([7]) * 32)


class Server:
    """A listener that hands its lines to the test."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.blocked: set[str] = set()
        self.intruded: list[str] = []
        self._send, self.lines = trio.open_memory_channel[Line](64)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.port}"

    async def serve(self, line: Line) -> None:
        await self._send.send(line)
        await trio.sleep_forever()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server(await listen("127.0.0.1", 0, server_context(keys)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.listener.run, server.serve, server.blocked.__contains__, server.intruded.append)
        yield server
        nursery.cancel_scope.cancel()


async def until(so: Callable[[], bool]) -> None:
    with trio.fail_after(3):
        while not so():  # noqa: ASYNC110 - what it looks at tells nobody
            await trio.sleep(0.01)


async def test_tls_proves_the_servers_node_id_and_frames_pass_both_ways() -> None:
    async with serving() as server, dialled(server.address, keys.node_id, client_context()) as line:
        assert line.server_id == keys.node_id
        there = await server.lines.receive()
        assert there.server_id is None
        line.authenticated()
        there.authenticated()
        whole = bytes(frame_bytes_max)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.send, whole)
            assert await there.receive() == whole
        await there.send(b"back")
        assert await line.receive() == b"back"
        assert len(server.listener.gate) == 0


async def test_another_node_than_the_one_expected_is_no_connection() -> None:
    async with serving() as server:
        with pytest.raises(DialFailed, match="another node"):
            async with dialled(server.address, bytes(32), client_context()):
                raise AssertionError("it let us in")


async def test_what_is_raised_while_connected_comes_out() -> None:
    async with serving() as server:
        with pytest.RaisesGroup(ZeroDivisionError):
            async with dialled(server.address, None, client_context()):
                raise ZeroDivisionError


async def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(DialFailed, match=r"127\.0\.0\.1:1"):
        async with dialled("127.0.0.1:1", None, client_context()):
            raise AssertionError("somebody was there")


async def test_tls_1_2_and_plain_text_are_not_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    old = client_context()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    monkeypatch.setattr(websocket, "stranger_s_max", 0.5)
    async with serving() as server:
        with pytest.raises(DialFailed):
            async with dialled(server.address, None, old):
                raise AssertionError("TLS 1.2 was spoken")
        async with await trio.open_tcp_stream("127.0.0.1", server.listener.port) as plain:
            await plain.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with trio.fail_after(5):
                while await plain.receive_some():
                    pass
        with pytest.raises(trio.WouldBlock):
            server.lines.receive_nowait()


async def test_a_stranger_that_sends_more_than_4_kib_is_cut_off() -> None:
    async with serving() as server, dialled(server.address, None, client_context()) as line:
        there = await server.lines.receive()
        await line.send(bytes(5_000))
        with trio.fail_after(3), pytest.raises(LineClosed, match="oversize"):
            await there.receive()


async def test_a_frame_above_1_mib_ends_the_connection() -> None:
    async with serving() as server, dialled(server.address, None, client_context()) as line:
        there = await server.lines.receive()
        there.authenticated()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_quietly, line, bytes(frame_bytes_max + 1))
            with trio.fail_after(5), pytest.raises(LineClosed, match="oversize"):
                await there.receive()
            nursery.cancel_scope.cancel()


async def _send_quietly(line: Line, frame: bytes) -> None:
    with suppress(LineClosed):
        await line.send(frame)


async def test_who_does_not_say_who_it_is_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "stranger_s_max", 0.3)
    async with serving() as server, dialled(server.address, None, client_context()) as line:
        there = await server.lines.receive()
        line.authenticated()
        with trio.fail_after(3), pytest.raises(LineClosed, match="slow"):
            await there.receive()


async def test_a_stranger_that_goes_in_mid_frame_is_known_to_have_and_one_that_just_goes_is_not() -> None:
    for said, how in ((b"\x82\xfe\x01\x00" + bytes(20), "half"), (b"", "")):
        async with serving() as server:
            tcp = await trio.open_tcp_stream("127.0.0.1", server.listener.port)
            async with trio.SSLStream(tcp, client_context(), https_compatible=True) as stream:
                await stream.send_all(upgrade)
                there = await server.lines.receive()
                await stream.send_all(said)
                await stream.aclose()
                with trio.fail_after(5), pytest.raises(LineClosed) as closed:
                    await there.receive()
            assert closed.value.how == how


async def test_who_is_slow_or_speaks_something_else_has_intruded_and_who_goes_away_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "stranger_s_max", 0.3)
    async with serving() as server:
        gate = server.listener.gate
        async with await trio.open_tcp_stream("127.0.0.1", server.listener.port):
            await until(lambda: len(gate) == 1)
        await until(lambda: len(gate) == 0)
        assert server.intruded == []
        with pytest.raises(DialFailed):
            async with dialled(server.address, bytes(32), client_context()):
                raise AssertionError("it let us in")
        await until(lambda: len(gate) == 0)
        assert server.intruded == []
        async with await trio.open_tcp_stream("127.0.0.1", server.listener.port):
            await until(lambda: len(server.intruded) == 1)
        async with await trio.open_tcp_stream("127.0.0.1", server.listener.port) as plain:
            await plain.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: len(server.intruded) == 2)


async def test_a_host_has_eight_strangers_at_most_and_room_again_when_one_is_known() -> None:
    async with serving() as server:
        silent = [await trio.open_tcp_stream("127.0.0.1", server.listener.port) for _ in range(strangers_a_host_max)]
        await until(lambda: len(server.listener.gate) == strangers_a_host_max)
        with pytest.raises(DialFailed):
            async with dialled(server.address, None, client_context()):
                raise AssertionError("there was room")
        await silent[0].aclose()
        await until(lambda: len(server.listener.gate) < strangers_a_host_max)
        async with dialled(server.address, None, client_context()):
            await server.lines.receive()
        for stream in silent:
            await stream.aclose()


upgrade = (
    b"GET /wattswarm/v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
empty_start, empty_more, ping = b"\x02\x80" + bytes(4), b"\x00\x80" + bytes(4), b"\x89\x80" + bytes(4)


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\xff\x00 no HTTP \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
        upgrade + b"\x82\x05hello",
        upgrade + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        upgrade + b"\x83\x80" + bytes(4),
        upgrade + empty_more,
        upgrade + b"\x88\x81" + bytes(4) + b"x",
        upgrade + b"\x81\x82" + bytes(4) + b"\xff\xfe",
    ],
)
async def test_what_no_client_says_ends_its_connection_only(said: bytes) -> None:
    async with serving() as server:
        tcp = await trio.open_tcp_stream("127.0.0.1", server.listener.port)
        async with trio.SSLStream(tcp, client_context(), https_compatible=True) as stream:
            await stream.send_all(said)
            await trio.aclose_forcefully(tcp)
        await until(lambda: len(server.listener.gate) == 0 or server.lines.statistics().current_buffer_used > 0)
        async with dialled(server.address, keys.node_id, client_context()) as line:
            await line.send(b"still there")


@pytest.mark.parametrize("flood", [empty_more, ping])
async def test_fragments_and_pings_without_end_fill_no_memory(flood: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "unfinished_bytes_max", 20_000)
    async with serving() as server:
        tcp = await trio.open_tcp_stream("127.0.0.1", server.listener.port)
        async with trio.SSLStream(tcp, client_context(), https_compatible=True) as stream:
            await stream.send_all(upgrade)
            there = await server.lines.receive()
            there.authenticated()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_flood, stream, empty_start + flood * 20_000)
                nursery.start_soon(_hear_out, stream)
                with trio.fail_after(30), pytest.raises(LineClosed, match="oversize"):
                    await there.receive()
                nursery.cancel_scope.cancel()


async def _hear_out(stream: trio.abc.ReceiveStream) -> None:
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def _flood(stream: trio.abc.SendStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def test_a_blocked_host_gets_no_handshake() -> None:
    async with serving() as server:
        server.blocked.add("127.0.0.1")
        with pytest.raises(DialFailed):
            async with dialled(server.address, None, client_context()):
                raise AssertionError("it was let in")


def test_the_gate_is_bounded_in_all_and_a_place_is_given_back_once() -> None:
    gate = Gate()
    passes = [gate.enter(f"10.0.0.{number % 40}") for number in range(strangers_max)]
    assert None not in passes
    assert gate.enter("10.9.9.9") is None
    for one in passes:
        assert one is not None
        one.give_back()
        one.give_back()
    assert len(gate) == 0
    assert gate.enter("10.9.9.9") is not None


def test_a_certificate_that_is_none_shows_no_node() -> None:
    assert node_id_of(None) is None
    assert node_id_of(b"\x30\x00") is None


async def test_nodes_of_one_host_hear_each_other_on_one_port() -> None:
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    heard: dict[str, list[bytes]] = {"one": [], "other": []}
    with open_multicast("239.255.42.99", port) as one, open_multicast("239.255.42.99", port) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.hear, lambda _host, data: heard["one"].append(data))
            nursery.start_soon(other.hear, lambda _host, data: heard["other"].append(data))
            await one.shout(b"here")
            await until(lambda: bool(heard["one"] and heard["other"]))
            nursery.cancel_scope.cancel()
    assert set(heard["one"]) == set(heard["other"]) == {b"here"}
