"""Addresses as nodes write them to each other: ``host:port``, the host a name, an IPv4 or a bracketed IPv6 address.

An address is where somebody may listen, never who: the handshake proves that. Knows the text only; nothing is
resolved here. Serves docs/network.md §2 and §4.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

from msgspec import Meta

from wattswarm.kernel.refusal import Malformed

address_chars_max = 255
_port = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
address_pattern = rf"\A(?:\[[0-9A-Fa-f:.]{{2,45}}\]|[A-Za-z0-9._-]{{1,249}}):{_port}\Z"
Address = Annotated[str, Meta(pattern=address_pattern, max_length=address_chars_max)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


def join(host: str, port: int) -> str:
    """The address of a host (IPv6 without brackets, as sockets give it) and a port."""
    return f"[{host.partition('%')[0]}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """(host without brackets, port) of an address whose form is good. Raises ``Malformed`` if it has no port."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise Malformed("address", f"{address[:address_chars_max]}: expected host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _numeric(host: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very address."""
    found = _numeric(host)
    return host.lower() == "localhost" or (found is not None and found.is_loopback)


def is_same_host(host: str, other: str) -> bool:
    """Whether two hosts, each as it was seen, are one machine: all of loopback is."""
    return host == other or (is_loopback(host) and is_loopback(other))


def as_seen(address: str, source_host: str) -> str | None:
    """Where a node that says it listens at ``address`` can be dialled by who hears it from ``source_host``.

    "Everywhere" (0.0.0.0, ::) means the host it was heard from. None for what cannot be dialled from here: another
    machine's loopback, multicast, link-local addresses, whose interface the text cannot name.
    """
    host, port = split(address)
    found = _numeric(host)
    if found is not None and found.is_unspecified:
        return join(source_host, port)
    if is_loopback(host) and not is_loopback(source_host):
        return None
    if found is not None and (found.is_multicast or found.is_link_local):
        return None
    return address
