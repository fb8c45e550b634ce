"""UDP on the local network: a datagram to whoever is near, and what others call out (docs/network.md §2).

Every interface that can is used, each by its number, so that no route and no name is needed; one that comes later is
found at the next call. Hearing and calling are two sockets: the one that hears is bound to the group and shared by all
nodes of the host. Whatever goes wrong with a datagram is a reason to lose it, and no more.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import trio

from net.proto.announce import datagram_bytes_max

_ip_pktinfo = getattr(socket, "IP_PKTINFO", 8)


class Multicast:
    """Calls out to a group, or by broadcast, and hears others. Made by ``open_multicast``."""

    def __init__(self, address: str, port: int, hears: trio.socket.SocketType, calls: trio.socket.SocketType) -> None:
        self._target = (address, port)
        self._hears = hears
        self._calls = calls
        self._joined: set[int] = set()
        self._group = _is_group(address)
        self._join()

    def _join(self) -> None:
        """Hear the group on every interface that there is now."""
        if not self._group:
            return
        for number, _name in socket.if_nameindex():
            if number not in self._joined:
                wanted = struct.pack("@4s4si", socket.inet_aton(self._target[0]), bytes(4), number)
                with suppress(OSError):
                    self._hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, wanted)
                    self._joined.add(number)

    async def shout(self, datagram: bytes) -> None:
        """Send a datagram out of every interface."""
        self._join()
        for number, _name in socket.if_nameindex():
            way = struct.pack("@i4s4s", number, bytes(4), bytes(4))
            with suppress(OSError):
                await self._calls.sendmsg([datagram], [(socket.IPPROTO_IP, _ip_pktinfo, way)], 0, self._target)

    async def hear(self, heard: Callable[[str, bytes], None]) -> None:
        """Tell of every datagram, and the host it came from, until cancelled."""
        while True:
            with suppress(OSError):
                datagram, source = await self._hears.recvfrom(datagram_bytes_max + 1)
                heard(source[0], datagram)


def _is_group(address: str) -> bool:
    return 224 <= socket.inet_aton(address)[0] <= 239


@contextmanager
def open_multicast(address: str, port: int) -> Iterator[Multicast]:
    """``address``: an IPv4 multicast group, or a broadcast address. Raises ``OSError`` if it is none, or cannot be
    listened at."""
    group = _is_group(address)
    with (
        trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
        trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as calls,
    ):
        hears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(hears, address if group else "", port)
        if group:
            calls.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            calls.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        else:
            calls.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        yield Multicast(address, port, hears, calls)


def _bind(sock: trio.socket.SocketType, host: str, port: int) -> None:
    """Bind to a numeric address: nothing is looked up, so nothing is waited for."""
    plain = socket.socket(fileno=sock.fileno())
    try:
        plain.bind((host, port))
    finally:
        plain.detach()
