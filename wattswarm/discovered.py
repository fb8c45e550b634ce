"""``discovered_peers.json``: whom this node met, or heard on the local network, and where, kept over a restart.

It is a hint of where to begin. So a damaged one is told of and begun anew, and it is written seldom, whole, and no
longer than the book of places is. Serves docs/network.md §2.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from net.proto.address import Address
from net.proto.peers import places_max
from net.proto.places import Found, Known
from wattswarm.home import write_whole
from wattswarm.kernel.genesis import UnixMs

_log = logging.getLogger(__name__)
name = "discovered_peers.json"
bytes_max = 1 << 20


class Discovered(Struct, frozen=True):
    """A node and an address of it. ``by``: how it was found (``net.proto.places.Known``); ``last_seen``: unix ms."""

    node_id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    address: Address
    by: Found
    last_seen: UnixMs


class _File(Struct, frozen=True):
    peers: Annotated[list[Discovered], Meta(max_length=places_max)]


def read(state_dir: Path) -> list[Discovered]:
    """What is kept; nothing if there is no file, or if it is damaged, which is told."""
    path = state_dir / name
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
        if len(content) > bytes_max:
            raise msgspec.ValidationError(f"more than {bytes_max} bytes")
        return msgspec.json.decode(content, type=_File).peers
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        _log.warning("what was discovered before is forgotten", extra={"file": str(path), "why": str(error)})
        return []


def known(found: Iterable[Discovered]) -> list[Known]:
    """As the network knows it."""
    return [Known(bytes.fromhex(one.node_id), one.address, one.by, one.last_seen) for one in found]


def discovered(places: Iterable[Known]) -> list[Discovered]:
    """As it is kept: those seen last come first, and one order for the same."""
    found = [Discovered(place.node_id.hex(), place.address, place.by, place.seen_ms) for place in places]
    return sorted(found, key=lambda one: (-one.last_seen, one.node_id, one.address))[:places_max]


def write(state_dir: Path, found: Sequence[Discovered]) -> None:
    """Keep it. Blocking. Raises ``OSError``."""
    write_whole(state_dir / name, msgspec.json.format(msgspec.json.encode(_File(list(found)))) + b"\n", 0o644)
