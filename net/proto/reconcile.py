"""The reconciliation sessions of one node: whom it asks, whom it answers, what it learns (docs/network.md §6).

A session compares one set - live events, ruling certificates, decisions - with one peer. Its number is even where the
dialler of the connection asks, odd where the other side does, so that both may ask at once. What is found is fetched
and announced by others; nothing here sends or stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from net.proto.items import Items
from net.proto.message import NegClose, NegErr, NegMsg, NegOpen
from net.proto.negentropy import Initiator, Responder
from net.proto.rhythm import never_ms
from net.proto.values import Link, Set
from wattswarm.kernel.refusal import Malformed, Refused

answered_a_peer_max = 2
silence_ms_max = 10_000
rounds_without_ids_max = 8
"""As often as sixteen buckets of four billion items can be split before ids must show."""


@dataclass(slots=True)
class _Asking:
    session: int
    which: Set
    side: Initiator
    heard_ms: int
    fruitless: int = 0


@dataclass(slots=True)
class _Answering:
    which: Set
    side: Responder
    heard_ms: int
    last: bytes = b""
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a step of a session brought. ``over``: the session is at its end; ``complete``: it found everything."""

    which: Set
    have: tuple[bytes, ...]
    need: tuple[bytes, ...]
    over: bool
    complete: bool


class Sessions:
    """Every session that is open. ``sets``: what this node holds; others keep it up to date."""

    def __init__(self, sets: Mapping[Set, Items]) -> None:
        self._sets = sets
        self._asking: dict[Link, _Asking] = {}
        self._answering: dict[Link, dict[int, _Answering]] = {}
        self._next = 0
        self._silent_ms = never_ms

    def left(self, link: Link) -> None:
        """The peer is gone, and its sessions with it."""
        self._asking.pop(link, None)
        self._answering.pop(link, None)

    def asks(self, link: Link) -> bool:
        """Whether a session that this side began is under way there."""
        return link in self._asking

    def open(self, link: Link, which: Set, now_ms: int, *, dialled: bool) -> NegOpen:
        """Begin a session. One at a time is asked of a peer."""
        assert link not in self._asking
        self._next = (self._next + 2) % (1 << 32)
        session = self._next + (not dialled)
        side = Initiator(self._sets[which])
        self._asking[link] = _Asking(session, which, side, now_ms)
        self._watch(now_ms)
        return NegOpen(session, which, side.open())

    def opened(self, link: Link, asked: NegOpen, now_ms: int) -> NegMsg | NegErr:
        """A peer begins a session. Raises ``Malformed`` if it makes no sense."""
        here = self._answering.setdefault(link, {})
        if asked.session not in here and len(here) >= answered_a_peer_max:
            return NegErr(asked.session, "busy")
        here[asked.session] = _Answering(asked.set, Responder(self._sets[asked.set]), now_ms)
        self._watch(now_ms)
        return self._answer(link, asked.session, asked.message, now_ms)

    def _answer(self, link: Link, session: int, message: bytes, now_ms: int) -> NegMsg | NegErr:
        answering = self._answering[link][session]
        answering.heard_ms = now_ms
        answering.repeats, answering.last = message == answering.last, message
        try:
            return NegMsg(session, answering.side.answer(message))
        except Malformed:
            raise
        except Refused as refusal:
            del self._answering[link][session]
            return NegErr(session, refusal.reason)

    def came(self, link: Link, said: NegMsg, now_ms: int) -> tuple[NegMsg | NegErr | NegClose | None, Found | None]:
        """A message of a session: what to send, and what was learned. Raises ``Malformed``."""
        if said.session in self._answering.get(link, ()):
            return self._answer(link, said.session, said.message, now_ms), None
        asking = self._asking.get(link)
        if asking is None or asking.session != said.session:
            return None, None
        asking.heard_ms = now_ms
        step = asking.side.answer(said.message)
        asking.fruitless = 0 if step.have or step.need else asking.fruitless + 1
        found = Found(asking.which, step.have, step.need, step.reply is None, step.complete)
        if step.reply is None:
            del self._asking[link]
            return NegClose(said.session), found
        return NegMsg(said.session, step.reply), found

    def idle(self, link: Link, session: int) -> bool:
        """Whether the last message of an open session brought it no further: the same again, or splitting no end."""
        answering = self._answering.get(link, {}).get(session)
        if answering is not None:
            return answering.repeats
        asking = self._asking.get(link)
        return asking is not None and asking.session == session and asking.fruitless > rounds_without_ids_max

    def answers(self, link: Link, session: int) -> Set | None:
        """What the peer compares in a session that it began; None: there is no such session."""
        answering = self._answering.get(link, {}).get(session)
        return None if answering is None else answering.which

    def ended(self, link: Link, session: int) -> Set | None:
        """The other side ended a session; which set this side asked about in it, if it did."""
        self._answering.get(link, {}).pop(session, None)
        asking = self._asking.get(link)
        if asking is None or asking.session != session:
            return None
        del self._asking[link]
        return asking.which

    def silent(self, now_ms: int) -> list[tuple[Link, Set]]:
        """Peers whose session this side gives up, and what it compared. Answered ones that are silent are forgotten."""
        if now_ms < self._silent_ms:
            return []
        for sessions in self._answering.values():
            for session in [key for key, one in sessions.items() if one.heard_ms + silence_ms_max <= now_ms]:
                del sessions[session]
        given_up = [(link, one.which) for link, one in self._asking.items() if one.heard_ms + silence_ms_max <= now_ms]
        for link, _ in given_up:
            del self._asking[link]
        heard = [one.heard_ms for one in self._asking.values()]
        heard += [one.heard_ms for sessions in self._answering.values() for one in sessions.values()]
        self._silent_ms = min(heard) + silence_ms_max if heard else never_ms
        return given_up

    def _watch(self, now_ms: int) -> None:
        """A session begins: it may be silent from now on."""
        self._silent_ms = min(self._silent_ms, now_ms + silence_ms_max)

    def next_ms(self) -> int:
        """When ``silent`` may find something, at the earliest."""
        return self._silent_ms
