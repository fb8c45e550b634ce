"""The other way round: a listener in bad hands, which a daemon is led to dial."""

from __future__ import annotations

import socket
from contextlib import suppress

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from net.io.tls import server_context
from net.proto.address import join
from tests.daemons import patience_s
from tests.hostile.rig import Enemy, Gone, loopback
from wattswarm.kernel.identity import Keypair


class Caught(Enemy):
    """A connection that somebody dialled, up to the WebSocket. Raises ``Gone`` if they go before that."""

    def __init__(self, tcp: socket.socket, keys: Keypair) -> None:
        self.address = join(*tcp.getpeername()[:2])
        self.heard, self._unread, self._ended, self._part = [], [], False, bytearray()
        tcp.settimeout(patience_s)
        self.socket = server_context(keys).wrap_socket(tcp, server_side=True)
        self.server_id = None
        self._ws = WSConnection(ConnectionType.SERVER)
        asked = False
        while not asked:
            came = self.socket.recv(65_536)
            if not came:
                self.socket.close()
                raise Gone("")
            self._ws.receive_data(came)
            asked = any(isinstance(event, Request) for event in self._ws.events())
        self.raw(self._ws.send(AcceptConnection()))


class Trap:
    """A TLS listener with somebody's keys. ``calls``: how many connections came, answered or not."""

    def __init__(self, keys: Keypair, host: str = loopback, port: int = 0) -> None:
        self._keys = keys
        self._listener = socket.create_server((host, port), backlog=64)
        self._waiting: list[socket.socket] = []
        self.calls = 0

    def __enter__(self) -> Trap:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._listener.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return join(*self._listener.getsockname()[:2])

    @property
    def port(self) -> int:
        """The port of that."""
        return int(self._listener.getsockname()[1])

    def look(self, within_s: float = 0.01) -> int:
        """See who calls now; how many have called."""
        self._listener.settimeout(within_s)
        with suppress(TimeoutError):
            while True:
                self._waiting.append(self._listener.accept()[0])
                self.calls += 1
                self._listener.settimeout(0.01)
        return self.calls

    def hang_up(self) -> None:
        """End the connections that nobody answered, so that the callers are free to call elsewhere."""
        for tcp in self._waiting:
            tcp.close()
        self._waiting.clear()

    def caught(self) -> Caught:
        """The next connection."""
        if not self._waiting:
            self.look(patience_s)
        assert self._waiting, f"nobody called {self.address}"
        return Caught(self._waiting.pop(0), self._keys)
