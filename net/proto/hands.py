"""What the machine does for its parts, and the one way to cut a long list into messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

from net.proto import message as m
from net.proto.budget import Deed
from net.proto.handshake import Me
from net.proto.peer import Peer
from net.proto.values import Ingested, Link, Question, Relate, Report

Then = Callable[[Ingested, int], None]


class Hands(Protocol):
    """What the machine does for the exchange."""

    me: Me
    peers: dict[Link, Peer]

    def send(self, peer: Peer, message: m.Message, *, lane: int | None = None, dropping: bool = False) -> None: ...
    def ask(self, question: Question, then: Callable[[Any, int], None]) -> None: ...
    def ask_for(self, peer: Peer, question: Question, then: Callable[[Any, int], None]) -> None: ...
    def ingest(self, events: Sequence[m.Wire], certificates: Sequence[bytes], asked: bool, then: Then) -> None: ...
    def blame(self, peer: Peer, deed: Deed, now_ms: int, times: int = 1) -> None: ...
    def let_go(self, peer: Peer, reason: str) -> None: ...
    def tell(self, output: Relate | Report) -> None: ...


def portions(items: Sequence[Any], most: int) -> list[tuple[Any, ...]]:
    """``items`` in tuples of at most ``most``."""
    rest = iter(items)
    return [tuple(islice(rest, most)) for _ in range(0, len(items), most)]
