"""What the network needs of a log and of a connection. Who has both joins them: ``wattswarm`` over Postgres and TLS,
tests over memory. ``net`` and ``sel`` never meet (docs/architecture.md §2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import trio

from net.proto.message import Wire
from net.proto.values import Appended, Fate, Question, Relate, Stock


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of a batch: a fate for each event, in order; certificates that do not hold, and that wait."""

    fates: Sequence[Fate]
    bad: int
    waiting: int


class LogPort(Protocol):
    """The log as the network sees it. Any of these may raise an error of the store: then the network stops."""

    async def stock(self) -> Stock:
        """All that is live now; ``news`` tells what comes after it."""

    async def news(self) -> Sequence[Appended]:
        """What came since the last time, or since ``stock``, whoever wrote it. Nothing: none."""

    def notices(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[str]]:
        """A notice whenever somebody wrote something."""

    async def intake(self, events: Sequence[Wire], certificates: Sequence[bytes], *, asked: bool) -> Intake:
        """Check and store, in one transaction. ``asked``: they were asked for, so their news are ``repaired``."""

    async def answer(self, question: Question) -> object:
        """The answer to a question, of the type that the question says."""


class Line(Protocol):
    """One connection, as ``net.io.websocket`` makes it."""

    @property
    def address(self) -> str:
        """Who is there, host:port."""

    @property
    def server_id(self) -> bytes | None:
        """The node id that TLS proved, where this side dialled."""

    def authenticated(self) -> None:
        """Lift the bounds of strangers."""

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises ``LineClosed``."""

    async def receive(self) -> bytes:
        """The next frame. Raises ``LineClosed``."""

    async def aclose(self, reason: str = "") -> None:
        """End it."""


How = Literal["", "oversize", "text", "half", "slow"]


class LineClosed(Exception):
    """The connection is gone. ``how``: what was wrong with the last that came, if anything was."""

    def __init__(self, how: How = "") -> None:
        super().__init__(how)
        self.how: How = how


class DialFailed(Exception):
    """Nobody answered as they should; it says why."""


class Outside(Protocol):
    """What this node can do beside answering: call others, and call out on the local network."""

    def dial(self, address: str, node_id: bytes | None) -> AbstractAsyncContextManager[Line]:
        """A connection while the context lasts; ``node_id``: who must be there. Raises ``DialFailed``."""

    async def shout(self, datagram: bytes) -> None:
        """Send a datagram to whoever is near. What goes wrong is its own affair."""

    async def relate(self, given: Relate) -> None:
        """Keep how this node and another stand, over a restart."""
