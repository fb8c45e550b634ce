"""What comes for a simulated node's log: decoded once for all nodes, and stored several peers' at a time.

Over Postgres, ``wattswarm.shared_log`` does so. A transaction takes as long as the scenario's database takes to commit,
and what came meanwhile is stored together.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from net.proto import frame
from net.proto import values as v
from net.proto.message import Message, Wire
from netsim.clock import Ms, check_spans, drawn
from netsim.releases import Release
from sel.ingest import Taken
from wattswarm.kernel import identity, limits
from wattswarm.kernel.certificate import Certificate, NotYetKnown
from wattswarm.kernel.event import Event, parse, signature_context
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Malformed
from wattswarm.shared_log import fate_of, sorted_out

intake_events_max = 1_024
frames_read_max = 4_096


class DatabaseTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """What a node's database is like. ``commit_ms``, ``read_ms``: least and most that one takes."""

    commit_ms: tuple[Ms, Ms] = (1, 4)
    read_ms: tuple[Ms, Ms] = (0, 1)

    def __post_init__(self) -> None:
        check_spans(self.commit_ms, self.read_ms)


class Decoder:
    """Bytes to checked events. ``once``: for all nodes of a run together; what comes of it is the same everywhere."""

    def __init__(self, network_id: bytes, *, once: bool) -> None:
        self._network_id, self._once = network_id, once
        self._known: dict[str, dict[Wire, Event | None]] = {}
        self._read: dict[bytes, Message | frame.Unknown] = {}

    def event(self, wire: Wire) -> Event | None:
        """The event of received bytes, as the running release reads it; None if its form or signature is bad."""
        if not self._once:
            return self._checked(wire)
        wire = (wire[0], wire[1])
        known = self._known.setdefault(limits.LOCAL_PROTOCOL_VERSION, {})
        if wire not in known:
            known[wire] = self._checked(wire)
        return known[wire]

    def message(self, data: bytes) -> Message | frame.Unknown:
        """The message in a received frame: read once of those that went to many. Raises ``Malformed``."""
        if not self._once:
            return frame.decode(data)
        message = self._read.get(data)
        if message is None:
            message = frame.decode(data)
            if len(self._read) >= frames_read_max:
                self._read.clear()
            self._read[data] = message
        return message

    def _checked(self, wire: Wire) -> Event | None:
        try:
            event = parse(*wire, self._network_id)
        except Malformed:
            return None
        return event if identity.holds(event.author, signature_context + event.id, event.signature) else None


class Body(Protocol):
    """What the intake needs of its node. ``later``: have something of this process happen, unless it ends before."""

    release: Release
    draw: random.Random

    @property
    def network(self) -> Network: ...
    def later(self, delay_ms: int, what: Callable[[], object]) -> None: ...
    def feed(self, given: v.Input) -> None: ...
    def transact(self, events: Sequence[Event], certificates: Sequence[Certificate], *, asked: bool) -> Taken: ...


class Intake:
    """What one process of a node was given to store. ``bearers``: event -> who brought it, while it is stored."""

    def __init__(self, body: Body, decoder: Decoder, terms: DatabaseTerms) -> None:
        self._body, self._decoder, self._terms = body, decoder, terms
        self._waiting: deque[tuple[v.Ingest, str]] = deque()
        self._storing = False
        self.bearers: Mapping[bytes, str] = {}

    def came(self, given: v.Ingest, bearer: str) -> None:
        """Something is to be stored."""
        self._waiting.append((given, bearer))
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting and not self._storing:
            self._storing = True
            self._body.later(drawn(self._body.draw, self._terms.commit_ms), self._store)

    def _store(self) -> None:
        self._storing = False
        batch: list[tuple[v.Ingest, str]] = []
        size = 0
        while self._waiting and (not batch or size < intake_events_max):
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0].events)
        self._go_on()
        for asked in (False, True):
            some = [one for one in batch if one[0].asked == asked]
            if some:
                self._store_some(some, asked=asked)

    def _store_some(self, batch: Sequence[tuple[v.Ingest, str]], *, asked: bool) -> None:
        body, decoder = self._body, self._decoder
        body.release.runs()
        parsed = [[decoder.event(wire) for wire in given.events] for given, _ in batch]
        wires = [wire for given, _ in batch for wire in given.certificates]
        sound, unsound, foreign = sorted_out(wires, body.network)
        events = [event for some in parsed for event in some if event is not None]
        came = zip(parsed, batch, strict=True)
        self.bearers = {event.id: by for some, (_, by) in came for event in some if event is not None}
        taken = body.transact(events, sound, asked=asked)
        self.bearers = {}
        waiting = sum(isinstance(refusal, NotYetKnown) for refusal in taken.refusals.values())
        bad = unsound + len(taken.refusals) - waiting
        for (given, _), some in zip(batch, parsed, strict=True):
            fates = [
                v.Fate(b"", "bad") if event is None else fate_of(event, taken.outcomes[event.id]) for event in some
            ]
            certified = bool(given.certificates)
            body.feed(v.Ingested(given.token, fates, bad * certified, (waiting + foreign) * certified))
