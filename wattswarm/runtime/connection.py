"""HTTP/1.1 connections to one executor: h11 says what bytes mean, trio moves them, a limiter counts them.

A call holds one of the limiter's places from its first to its last step and closes its own socket unless a whole
answer was read from it, so a call that is given up anywhere takes nothing with it. Closing never waits for the peer.
Deadlines and the meaning of an answer are the client's. (httpcore's pool was measured and left: at 1.0.9 a call
cancelled while it waits for a connection loses the place for good, and each call costs four times the CPU.)
"""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import h11
import trio

from wattswarm.runtime.failure import RuntimeFailure

connections_max = 32
idle_ms_max = 4_000  # common servers close an idle connection after 5 s; a request must not cross that
head_bytes_max = 32_768
read_bytes = 65_536


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an executor listens. ``prefix``: the path that the contract's paths are appended to, or empty."""

    host: str
    port: int
    authority: str
    prefix: str
    encrypted: bool


class _Connection:
    """One socket and the state of the HTTP conversation on it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self.stream: trio.abc.Stream = stream
        self.machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=head_bytes_max)
        self.idle_since = 0.0

    async def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        stream = trio.SSLStream(self.stream, context, server_hostname=host, https_compatible=True)
        await stream.do_handshake()
        self.stream = stream

    async def send(self, request: h11.Request, body: bytes) -> None:
        machine = self.machine
        data = machine.send(request) or b""
        if body:
            data += machine.send(h11.Data(data=body)) or b""
        data += machine.send(h11.EndOfMessage()) or b""
        with suppress(trio.BrokenResourceError):  # it may have answered, and closed, without reading to the end
            await self.stream.send_all(data)

    async def receive(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event that is one."""
        while (event := self.machine.next_event()) is h11.NEED_DATA:
            self.machine.receive_data(bytes(await self.stream.receive_some(read_bytes)))
        return event

    def reusable(self) -> bool:
        """Whether the conversation is at rest: both sides are done and nothing was said beyond the answer."""
        machine = self.machine
        return machine.our_state is h11.DONE and machine.their_state is h11.DONE and not machine.trailing_data[0]

    def fresh(self) -> bool:
        """Whether an idle connection may be used again. Something to read on it is an end, or unasked for."""
        return (trio.current_time() - self.idle_since) * 1000 < idle_ms_max and not self.socket.is_readable()

    def close(self) -> None:
        self.socket.close()


class Connections:
    """The connections to one executor: at most ``connections_max``, kept open between calls."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._places = trio.CapacityLimiter(connections_max)
        self._idle: deque[_Connection] = deque()
        self._tls: ssl.SSLContext | None = None

    def close(self) -> None:
        """Close those that are idle; a call under way closes its own."""
        while self._idle:
            self._idle.pop().close()

    async def call(self, method: str, path: str, body: bytes, body_bytes_max: int) -> tuple[int, bytes]:
        """Status and body of the answer; the body only of a 200.

        Raises ``RuntimeFailure``: unreachable, or too_large beyond ``body_bytes_max``. May wait for ever: the
        deadline is the caller's cancel scope.
        """
        async with self._places:
            try:
                connection = self._rested() or await self._open()
            except (trio.BrokenResourceError, OSError) as error:
                raise RuntimeFailure("unreachable", f"{method} {path}: cannot connect: {_said(error)}") from None
            resting = False
            try:
                await connection.send(self._request(method, path, body), body)
                answer = await _answer(connection, body_bytes_max, f"{method} {path}")
                resting = connection.reusable()
                return answer
            except (trio.BrokenResourceError, OSError) as error:
                raise RuntimeFailure("unreachable", f"{method} {path}: connection lost: {_said(error)}") from None
            except h11.RemoteProtocolError as error:
                raise RuntimeFailure("unreachable", f"{method} {path}: no HTTP answer: {error}") from None
            finally:
                self._rest(connection) if resting else connection.close()

    def _rested(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.fresh():
                return connection
            connection.close()
        return None

    def _rest(self, connection: _Connection) -> None:
        connection.machine.start_next_cycle()
        connection.idle_since = trio.current_time()
        self._idle.append(connection)

    async def _open(self) -> _Connection:
        connection = _Connection(await trio.open_tcp_stream(self._endpoint.host, self._endpoint.port))
        if self._endpoint.encrypted:
            try:
                await connection.encrypt(self._tls_context(), self._endpoint.host)
            except BaseException:
                connection.close()
                raise
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _request(self, method: str, path: str, body: bytes) -> h11.Request:
        headers = [
            ("Host", self._endpoint.authority),
            ("User-Agent", "wattswarm"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
        ]
        if body:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return h11.Request(method=method, target=self._endpoint.prefix + path, headers=headers)


async def _answer(connection: _Connection, body_bytes_max: int, what: str) -> tuple[int, bytes]:
    status, content = 0, bytearray()
    while True:
        event = await connection.receive()
        match event:
            case h11.Response():
                status = event.status_code
                if status != 200:
                    return status, b""
            case h11.Data():
                content += event.data
                if len(content) > body_bytes_max:
                    raise RuntimeFailure("too_large", f"{what}: the answer is over {body_bytes_max} bytes")
            case h11.EndOfMessage():
                return status, bytes(content)
            case h11.InformationalResponse():
                pass
            case _:
                raise RuntimeFailure("unreachable", f"{what}: the connection was closed without an answer")


def _said(error: BaseException) -> str:
    """The reason below trio's general words: refused, certificate not trusted, reset."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return str(cause or error) or type(error).__name__
