"""Connections: WebSocket over TLS over TCP, dialled and accepted, within the bounds of strangers until they are known.

A ``Wire`` lasts as long as its context. Frames are binary messages of at most 1 MiB; compression is never offered.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, cast

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection
from trio_websocket import wrap_client_stream as wrap_client
from trio_websocket import wrap_server_stream as wrap_server

from net.io.pace import Pace
from net.io.ports import DialFailed, How, Line, LineClosed
from net.io.stranger import Gate, Pass, stranger_bytes_max, stranger_s_max
from net.io.tls import node_id_of
from net.proto.address import join, split
from net.proto.message import frame_bytes_max

_log = logging.getLogger(__name__)
receive_bytes: Final = 65_536
unfinished_bytes_max = 4 * frame_bytes_max
dial_s_max = 10.0
close_s_max = 1.0
own_delay_s_max = 1.0
"""A host that is itself so late that it looks later than this blames nobody for being slow."""
abnormal, too_big = 1006, 1009
path = "/wattswarm/v1"
Tls = trio.SSLStream[trio.SocketStream]


class _Meter(trio.abc.Stream):
    """A stream that gives no more than ``left`` bytes before it is told that something whole came; then it is broken.

    ``left`` is all that a stranger may send; from then on, what may come without a message being finished: endless
    fragments and pings fill no memory. How fast they may come is ``pace``'s.
    """

    def __init__(self, stream: Tls) -> None:
        self._stream = stream
        self._pace = Pace()
        self._ahead = b""
        self.left = stranger_bytes_max
        self.unfinished = 0
        """Bytes that came since something was whole."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.left <= 0:
            raise trio.BrokenResourceError("more than may come")
        if self._ahead:
            await trio.lowlevel.checkpoint()
        else:
            self._ahead = bytes(await self._stream.receive_some(min(max_bytes or receive_bytes, self.left)))
        size = await self._pace.portion(self._ahead)
        came, self._ahead = self._ahead[:size], self._ahead[size:]
        self.left -= len(came)
        self.unfinished += len(came)
        return came

    def whole(self, most: int | None = None) -> None:
        """Something whole came; ``most``: what may come until the next."""
        self.unfinished = 0
        if most is not None:
            self.left = most

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Edge:
    """Where the library runs its reader: what a peer makes it stumble over ends that connection and nothing else.

    With the reader ends the handshake that waits for it, in ``opening``.
    """

    def __init__(self, nursery: trio.Nursery, opening: trio.CancelScope) -> None:
        self._nursery = nursery
        self._opening = opening

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        """Run the reader."""
        self._nursery.start_soon(self._run, reader)

    async def _run(self, reader: Callable[[], Awaitable[None]]) -> None:
        try:
            await reader()
        except Exception as error:  # noqa: BLE001 - the library's outermost edge: it reports
            _log.debug("a connection broke", extra={"why": f"{type(error).__name__}: {error}"})
        finally:
            self._opening.cancel()


class WebSocketLine:
    """One connection (``net.io.ports.Line``). ``known`` is set once the other end has proved who it is."""

    def __init__(
        self, connection: WebSocketConnection, meter: _Meter, address: str, server_id: bytes | None, place: Pass | None
    ) -> None:
        self._connection = connection
        self._meter = meter
        self._place = place
        self.address = address
        self.server_id = server_id
        self.known = trio.Event()
        self.slow = False
        meter.whole()

    def authenticated(self) -> None:
        """Lift the bounds of strangers."""
        self._meter.left = unfinished_bytes_max
        self.known.set()
        if self._place is not None:
            self._place.give_back()

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises ``LineClosed``."""
        try:
            await self._connection.send_message(frame)
        except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            raise LineClosed from None

    async def receive(self) -> bytes:
        """The next frame. Raises ``LineClosed``, also for a message of text: no frame is text."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as error:
            raise LineClosed(self._how(error.reason.code if error.reason is not None else 0)) from None
        if isinstance(message, str):
            raise LineClosed("text")
        self._meter.whole(unfinished_bytes_max if self.known.is_set() else None)
        return message

    def _how(self, code: int) -> How:
        """What was wrong with how the connection ended, by its WebSocket code."""
        if self.slow:
            return "slow"
        if code == too_big or self._meter.left <= 0:
            return "oversize"
        return "half" if code == abnormal and self._meter.unfinished else ""

    async def aclose(self, reason: str = "") -> None:
        """End it: politely for a second, then anyway."""
        with trio.move_on_after(close_s_max):
            await self._connection.aclose(1000, reason or None)


@asynccontextmanager
async def dialled(address: str, node_id: bytes | None, context: ssl.SSLContext) -> AsyncIterator[Line]:
    """A connection to ``address``, of whoever TLS proves is there, who must be ``node_id`` where that is given.

    Raises ``DialFailed``, within 10 s, saying why.
    """
    failed = ""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        try:
            with trio.fail_after(dial_s_max) as opening:
                tcp = await trio.open_tcp_stream(*split(address))
                stack.callback(tcp.socket.close)  # not a checkpoint: it would lose what is being raised
                tls: Tls = trio.SSLStream(tcp, context, https_compatible=True)
                await tls.do_handshake()
                found = node_id_of(tls.getpeercert(binary_form=True))
                if found is None or node_id not in (None, found):
                    failed = f"{address}: TLS proved {'no node' if found is None else 'another node'}"
                else:
                    meter = _Meter(tls)
                    connection = await _client(_Edge(nursery, opening), meter, address)
        except trio.TooSlowError:
            failed = f"{address}: no answer of a node within {dial_s_max:g} s"
        except (OSError, trio.BrokenResourceError, ssl.SSLError, ConnectionRejected, ConnectionClosed) as error:
            failed = f"{address}: {error or type(error).__name__}"
        if failed:
            nursery.cancel_scope.cancel()
        else:
            line = WebSocketLine(connection, meter, address, found, None)
            async with _lasting(nursery, line, connection):
                yield line
    if failed:
        raise DialFailed(failed)


async def _client(edge: _Edge, meter: _Meter, address: str) -> WebSocketConnection:
    connection = await wrap_client(
        cast(trio.Nursery, edge),
        cast(Tls, meter),  # it asks for no more than a stream
        address,
        path,
        message_queue_size=1,
        max_message_size=frame_bytes_max,
        receive_buffer_size=receive_bytes,
    )
    if connection.closed is not None:
        raise ConnectionClosed(connection.closed)
    return connection


@asynccontextmanager
async def _lasting(nursery: trio.Nursery, line: WebSocketLine, connection: WebSocketConnection) -> AsyncIterator[None]:
    """The life of a connection; whoever is not known in time is cut off."""
    nursery.start_soon(_doorkeeper, line, connection)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await line.aclose()
        nursery.cancel_scope.cancel()


async def _doorkeeper(line: WebSocketLine, connection: WebSocketConnection) -> None:
    with trio.move_on_after(stranger_s_max) as patience:
        await line.known.wait()
        return
    line.slow = _in_time(patience)
    await line.aclose("slow")


def _in_time(patience: trio.CancelScope) -> bool:
    """Whether this host looked when a time was up, and not much later because it was busy."""
    return trio.current_time() - patience.deadline < own_delay_s_max


class Listener:
    """Where a node is called. ``serve`` is given every connection; ``blocked`` says which hosts get none; ``intruded``
    hears of hosts whose calls came to nothing and not as honest ones do: too slow, or no TLS, or no WebSocket."""

    def __init__(self, listeners: Sequence[trio.SocketListener], context: ssl.SSLContext) -> None:
        self._listeners = listeners
        self._context = context
        self.gate = Gate()

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._listeners[0].socket.getsockname()[1])

    async def run(
        self,
        serve: Callable[[Line], Awaitable[None]],
        blocked: Callable[[str], bool],
        intruded: Callable[[str], None] = lambda _host: None,
    ) -> None:
        """Accept connections until cancelled."""

        async def accepted(stream: trio.SocketStream) -> None:
            try:
                host, port = stream.socket.getpeername()[:2]
            except OSError:
                return await trio.aclose_forcefully(stream)
            host = host.removeprefix("::ffff:")
            place = None if blocked(host) else self.gate.enter(host)
            if place is None:
                return await trio.aclose_forcefully(stream)
            try:
                if await self._accepted(stream, join(host, port), place, serve):
                    intruded(host)
            finally:
                place.give_back()
                stream.socket.close()

        await trio.serve_listeners(accepted, list(self._listeners))

    async def _accepted(
        self, stream: trio.SocketStream, address: str, place: Pass, serve: Callable[[Line], Awaitable[None]]
    ) -> bool:
        """Serve what comes of a call; whether nothing came of it, in a way that is its caller's fault."""
        async with trio.open_nursery() as nursery:
            connection = meter = None
            no_tls = False
            with (
                trio.move_on_after(stranger_s_max) as opening,
                suppress(trio.BrokenResourceError, ssl.SSLError, ConnectionClosed),
            ):
                tls: Tls = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
                try:
                    await tls.do_handshake()
                except trio.BrokenResourceError as error:
                    no_tls = isinstance(error.__cause__, ssl.SSLError) and not _went(error.__cause__)
                    raise
                meter = _Meter(tls)
                request = await wrap_server(
                    cast(trio.Nursery, _Edge(nursery, opening)),
                    meter,
                    message_queue_size=1,
                    max_message_size=frame_bytes_max,
                    receive_buffer_size=receive_bytes,
                )
                connection = await request.accept()
            if connection is None or meter is None:
                _log.debug("no connection came of a call", extra={"address": address})
                nursery.cancel_scope.cancel()
                slow = trio.current_time() >= opening.deadline and _in_time(opening)
                return slow or no_tls or (meter is not None and meter.unfinished > 0)
            line = WebSocketLine(connection, meter, address, None, place)
            async with _lasting(nursery, line, connection):
                await serve(line)
        return False


def _went(error: ssl.SSLError) -> bool:
    """Whether the other end just went away."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


async def listen(host: str, port: int, context: ssl.SSLContext) -> Listener:
    """Listen at ``host`` (empty or 0.0.0.0: everywhere) and ``port`` (0: any free one). Raises ``OSError``."""
    return Listener(await trio.open_tcp_listeners(port, host=host or None), context)
