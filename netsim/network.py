"""The wires between simulated hosts: latency, loss, bandwidth, cuts, and datagrams that get lost, doubled, reordered.

A connection is what a node has over TCP: frames come whole and in order or not at all, so a lost packet is a frame
that comes later (and all after it), by the time-outs that TCP would need. A silent cut holds what is under way until
it heals or an end gives up; nobody is told. Datagrams have no such luck. Nodes are only ends that frames are handed to.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from net.proto import values as v
from net.proto.lanes import Lanes
from netsim.clock import Ms, Share, Timeline, check_spans, drawn

resend_ms = 200
"""TCP's smallest time-out; it doubles with every packet that is lost in a row (RFC 6298)."""
resends_max = 8
dial_ms_max = 10_000


class LinkTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """What a path between two hosts is like. ``latency_ms``: least and most, one way; ``loss``: share of packets.

    ``tail_ms``: what comes on top of it in the mean, exponentially distributed, as where queues build up. ``spikes``:
    share of frames and datagrams that take ``spike_ms`` longer. ``duplicates``, ``reorders``: shares of datagrams.
    ``bytes_per_ms``: of one direction of one connection; 0: no bound.
    """

    latency_ms: tuple[Ms, Ms] = (1, 3)
    tail_ms: Annotated[float, Meta(ge=0, le=60_000)] = 0.0
    spikes: Share = 0.0
    spike_ms: tuple[Ms, Ms] = (200, 1_500)
    loss: Share = 0.0
    duplicates: Share = 0.0
    reorders: Share = 0.0
    bytes_per_ms: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        check_spans(self.latency_ms, self.spike_ms)


class Host(Protocol):
    """A node as the network sees it. ``name`` orders hosts; ``up``: somebody listens there."""

    name: str
    address: str
    node_id: bytes
    up: bool

    def feed(self, given: v.Input) -> None: ...


@dataclass(slots=True, eq=False)
class End:
    """One end of a connection: what waits to be sent there, and who is at the other. ``unsent``: something new does."""

    host: Host
    link: int
    lanes: Lanes = field(default_factory=Lanes)
    other: End | None = None
    open: bool = True
    ending: bool = False
    unsent: bool = False
    busy: bool = False
    clear_ms: int = 0
    held: list[v.Input] = field(default_factory=list)


class Network:
    """All connections and datagrams of one run. ``draw``: the run's, for everything that chance decides here.

    Every end has a link number of its own, which no other has or had. ``unsent``: ends that wait for ``go``.
    """

    def __init__(self, timeline: Timeline, draw: random.Random, terms: LinkTerms) -> None:
        self._timeline = timeline
        self._draw = draw
        self.terms = terms
        self.hosts: dict[str, Host] = {}
        self._at: dict[str, Host] = {}
        self._ends: dict[int, End] = {}
        self._links = 0
        self.unsent: list[End] = []
        self._cuts: Counter[tuple[str, str]] = Counter()
        self.frames = 0
        self.bytes: Counter[str] = Counter()

    def joins(self, host: Host) -> None:
        """One more host, at an address of its own."""
        self.hosts[host.name] = self._at[host.address] = host

    # -- cuts -------------------------------------------------------------------------------------------------------

    def cut(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Nothing of any source reaches any target from now on. Cuts add up; each is healed by itself."""
        self._cuts.update((one, other) for one in sources for other in targets if one != other)

    def heal(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Take back one ``cut``: what was held comes through."""
        self._cuts.subtract((one, other) for one in sources for other in targets if one != other)
        self._cuts = +self._cuts
        for end in list(self._ends.values()):
            if end.held and not self._is_cut(end):
                held, end.held = end.held, []
                for given in held:
                    self._carry(end, given, self._latency())

    def reset(self, names: Iterable[str]) -> None:
        """Every connection of these hosts breaks, and both ends are told."""
        chosen = set(names)
        for end in list(self._ends.values()):
            if end.host.name in chosen and end.open:
                assert end.other is not None
                self._gone(end, tell=True)
                self._gone(end.other, tell=True)

    def _is_cut(self, end: End) -> bool:
        assert end.other is not None
        return (end.host.name, end.other.host.name) in self._cuts

    # -- connections ------------------------------------------------------------------------------------------------

    def dial(self, caller: Host, address: str, node_id: bytes | None) -> None:
        """Connect, or tell the caller in the end that it failed."""
        target = self._at.get(address)
        names = (caller.name, target.name if target else "")
        if target is None or not target.up or target is caller:
            self._timeline.after(2 * self._latency(), lambda: self._no_answer(caller, address))
        elif names in self._cuts or names[::-1] in self._cuts:
            self._timeline.after(dial_ms_max, lambda: self._no_answer(caller, address))
        else:
            self._timeline.after(3 * self._latency(), lambda: self._answer(caller, address, target, node_id))

    def _no_answer(self, caller: Host, address: str) -> None:
        if caller.up:
            caller.feed(v.DialFailed(address))

    def _answer(self, caller: Host, address: str, target: Host, node_id: bytes | None) -> None:
        if not (caller.up and target.up) or node_id not in (None, target.node_id):
            return self._no_answer(caller, address)
        here, there = self._end(caller), self._end(target)
        here.other, there.other = there, here
        caller.feed(v.Opened(here.link, address, target.node_id))
        if there.open:
            target.feed(v.Opened(there.link, caller.address, None))
        return None

    def _end(self, host: Host) -> End:
        self._links += 1
        end = self._ends[self._links] = End(host, self._links)
        return end

    def across(self, link: int) -> str:
        """The name of the host at the other end; empty if the connection is gone."""
        end = self._ends.get(link)
        return "" if end is None or end.other is None else end.other.host.name

    def send(self, said: v.Send) -> None:
        """Put a frame into a lane of a connection, as ``net.io`` does: it goes with the next ``go``."""
        end = self._ends.get(said.link)
        if end is None or end.ending:
            return
        if not end.lanes.put(said.lane, said.frame, dropping=said.dropping):
            end.ending = True
        self._moved(end)

    def close(self, link: int) -> None:
        """End a connection when what waits is out."""
        end = self._ends.get(link)
        if end is not None:
            end.ending = True
            self._moved(end)

    def _moved(self, end: End) -> None:
        if not end.unsent:
            end.unsent = True
            self.unsent.append(end)

    def go(self) -> None:
        """All of what one input led to is said: it goes out, and of each connection by its lanes."""
        while self.unsent:
            ends, self.unsent = self.unsent, []
            for end in ends:
                end.unsent = False
                self._pump(end)

    def fullest(self) -> tuple[str, int]:
        """Who has most waiting to be sent on one connection, and how many bytes."""
        most = max(self._ends.values(), key=lambda end: end.lanes.bytes, default=None)
        return ("", 0) if most is None else (most.host.name, most.lanes.bytes)

    def crash(self, host: Host) -> None:
        """The host's process is gone: its kernel resets what it can reach, and nobody here is told."""
        for end in list(self._ends.values()):
            if end.host is host:
                self._carry(end, None, self._latency())
                self._gone(end, tell=False)

    def _pump(self, end: End) -> None:
        while not end.busy:
            frame = end.lanes.take()
            if frame is None:
                if end.ending and end.open:
                    self._carry(end, None, self._latency())
                    self._gone(end, tell=True)
                return
            self.frames += 1
            self.bytes[end.host.name] += len(frame)
            assert end.other is not None
            terms = self.terms
            sending_ms = len(frame) // terms.bytes_per_ms if terms.bytes_per_ms else 0
            resent_ms = self._resent_ms() if terms.loss else 0
            self._carry(end, v.Received(end.other.link, frame), sending_ms + self._latency() + resent_ms)
            if sending_ms:
                end.busy = True
                self._timeline.after(sending_ms, lambda: self._sent(end))

    def _sent(self, end: End) -> None:
        end.busy = False
        self._pump(end)

    def _carry(self, end: End, given: v.Input | None, delay_ms: int) -> None:
        """Bring something to the other end, after all that went before it. None: the end of the connection."""
        other = end.other
        assert other is not None
        given = v.Closed(other.link) if given is None else given
        if self._cuts and self._is_cut(end):
            end.held.append(given)
            return
        end.clear_ms = max(end.clear_ms, self._timeline.now_ms + delay_ms)
        self._timeline.at(end.clear_ms, partial(self._arrive, end, other, given))

    def _arrive(self, end: End, other: End, given: v.Input) -> None:
        if self._cuts and self._is_cut(end):
            end.held.append(given)
        elif other.open and isinstance(given, v.Closed):
            self._gone(other, tell=True)
        elif other.open:
            other.host.feed(given)

    def _gone(self, end: End, *, tell: bool) -> None:
        if end.open:
            end.open = False
            del self._ends[end.link]
            if tell and end.host.up:
                end.host.feed(v.Closed(end.link))

    # -- datagrams --------------------------------------------------------------------------------------------------

    def shout(self, host: Host, data: bytes) -> None:
        """A datagram to every host that is not cut off."""
        for other in list(self.hosts.values()):
            if other is host or (host.name, other.name) in self._cuts:
                continue
            copies = 0 if self._chance(self.terms.loss) else 2 if self._chance(self.terms.duplicates) else 1
            for _ in range(copies):
                late_ms = 50 * self._draw.random() if self._chance(self.terms.reorders) else 0
                self._timeline.after(self._latency() + int(late_ms), self._hearing(other, host, data))

    def _hearing(self, other: Host, host: Host, data: bytes) -> Callable[[], None]:
        return lambda: other.feed(v.Heard(host.address.rpartition(":")[0], data)) if other.up else None

    # -- chance -----------------------------------------------------------------------------------------------------

    def _latency(self) -> int:
        terms = self.terms
        late_ms = drawn(self._draw, terms.spike_ms) if terms.spikes and self._chance(terms.spikes) else 0
        if terms.tail_ms:
            late_ms += int(self._draw.expovariate(1 / terms.tail_ms))
        return late_ms + drawn(self._draw, terms.latency_ms)

    def _chance(self, share: float) -> bool:
        return share > 0 and self._draw.random() < share

    def _resent_ms(self) -> int:
        """How much later a frame comes because packets of it were lost."""
        late_ms, loss = 0, self.terms.loss
        for times in range(resends_max):
            if not self._chance(loss):
                break
            late_ms += resend_ms << times
        return late_ms
