"""What the machine does for its parts, and the one way to cut a long list into messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

from net.proto import message as m
from net.proto.budget import Deed
from net.proto.handshake import Me
from net.proto.peer import Peer
from net.proto.values import Answered, Ingested, Link, Question, Relate, Report

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


class Asked:
    """What was asked of the log, and who waits for the answer."""

    def __init__(self) -> None:
        self._token = 0
        self._then: dict[int, Callable[[Any, int], None]] = {}

    def remember(self, then: Callable[[Any, int], None]) -> int:
        """The token of a question whose answer ``then`` waits for."""
        self._token += 1
        self._then[self._token] = then
        return self._token

    def over(self, given: Ingested | Answered, now_ms: int) -> None:
        """The answer came."""
        then = self._then.pop(given.token, None)
        if then is not None:
            then(given if isinstance(given, Ingested) else given.answer, now_ms)


def portions(items: Sequence[Any], most: int) -> list[tuple[Any, ...]]:
    """``items`` in tuples of at most ``most``."""
    rest = iter(items)
    return [tuple(islice(rest, most)) for _ in range(0, len(items), most)]
