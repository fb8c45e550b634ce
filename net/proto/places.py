"""Places where nodes may be reached: what is known of one, by whom, and what that is worth (docs/network.md §2).

Data only; ``peers`` keeps the book of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from msgspec import Struct

Found = Literal["reached", "heard", "called"]
Source = Literal["configured", "heard", "stored", "introduced", "told"]
worth: Final[dict[Source, int]] = {"configured": 4, "heard": 3, "stored": 2, "introduced": 1, "told": 0}


class Known(Struct, frozen=True):
    """A node and where it may be dialled: reached by this node, heard on the local network, or said by itself when it
    called from that host. ``seen_ms``: when it was there last."""

    node_id: bytes
    address: str
    by: Found
    seen_ms: int


class Target(Struct, frozen=True):
    """An address to dial, and who is expected there, if that is known."""

    address: str
    node_id: bytes | None


@dataclass(slots=True)
class Place:
    """What the book knows of one address. ``reached``: this node was connected there; ``at_its_host``: its node called
    from that host; ``dialling_since_ms``: a dial is under way; ``spared_ms``: until then it is dialled only where there
    are too few links."""

    address: str
    source: Source
    node_id: bytes | None
    failures: int = 0
    due_ms: int = 0
    spared_ms: int = 0
    dialling_since_ms: int | None = None
    reached: bool = False
    at_its_host: bool = False
    seen_ms: int = 0


def worth_keeping(place: Place) -> tuple[int, bool, bool, int]:
    """The less, the sooner a place makes room."""
    return worth[place.source], place.failures == 0, place.reached, -place.failures


def node_named(about: str) -> bytes | None:
    """The node id that 64 hex digits are; None: it is an address."""
    return bytes.fromhex(about) if len(about) == 64 and not set(about) - set("0123456789abcdef") else None


def found_by(place: Place) -> Found | None:
    """How a place was found, if that is more than hearsay."""
    if place.reached:
        return "reached"
    if place.source == "heard":
        return "heard"
    return "called" if place.at_its_host or place.source == "stored" else None
