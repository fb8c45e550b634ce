"""A simulated node's part in the membership: what its operator approved is carried through phases and rounds.

``kernel.intents.govern`` says what comes next, as for daemons (``wattswarm.succession``); here are only the operator,
who approves what the run has him approve, and virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from netsim.clock import Timeline
from netsim.disk import Disk
from sel.memory import MemoryTxn, at_once
from wattswarm.kernel import governance
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.intents.govern import Seat, next_steps
from wattswarm.kernel.intents.values import Wait
from wattswarm.kernel.membership import Network, version_hash
from wattswarm.kernel.payloads.govern import VersionBody
from wattswarm.kernel.refusal import Refused
from wattswarm.members import drafts_of

look_after_ms = 250
retry_ms = 5_000


class Body(Protocol):
    """What the council needs of its node."""

    keys: Keypair
    disk: Disk

    @property
    def network(self) -> Network: ...
    def clock(self) -> int: ...
    def author(self, drafts: Sequence[Draft]) -> list[Event]: ...
    def tell(self, what: str, detail: str) -> None: ...


class Council:
    """Follows the governance stream of one node until ``stop``."""

    def __init__(self, body: Body, timeline: Timeline) -> None:
        self._body, self._timeline = body, timeline
        self._seen: object = None
        self._moved_ms = 1
        self._due_ms: int | None = None
        self._turn = 0
        self.heard()

    def stop(self) -> None:
        """The process is gone."""
        self._turn += 1

    def heard(self) -> None:
        """Something arrived about the membership, or the operator approved something."""
        self._turn_at(self._timeline.now_ms + look_after_ms)

    def _turn_at(self, at_ms: int) -> None:
        if self._due_ms is None or at_ms < self._due_ms:
            self._turn += 1
            self._due_ms = at_ms
            self._timeline.at(at_ms, partial(self._turn_is, self._turn))

    def _turn_is(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._due_ms = None
        try:
            self._take_turn()
        except Refused as refusal:
            self._body.tell("held", f"membership {refusal.reason}")
            self._turn_at(self._timeline.now_ms + retry_ms)

    def _take_turn(self) -> None:
        seat = self.seat()
        seen = seat.network.current.hash, governance.book(seat.state, seat.network.current.hash)
        if seen != self._seen:
            self._seen, self._moved_ms = seen, seat.now_ms
        steps = next_steps(self.seat(self._moved_ms))
        if steps and isinstance(steps[0], Wait):
            self._turn_at(self._timeline.now_ms + max(1, steps[0].until_ms - seat.now_ms))
        elif steps:
            self._body.author(drafts_of(steps, self._body.keys, seat.network.network_id))
            self.heard()

    def seat(self, moved_ms: int = 0, drafted: VersionBody | None = None) -> Seat:
        """What this node knows about who is to follow the current version."""
        body, store = self._body, self._body.disk.store
        network = body.network
        row = store.stream_rows.get(network.network_id)
        state = governance.new(network) if row is None or row.state is None else governance.decode_state(row.state)
        stored = at_once(MemoryTxn(store).membership_signatures(network.current.hash))
        approved = [*body.disk.approved, *([version_hash(drafted)] if drafted is not None else [])]
        forked = sorted(store.live_forks)
        me = body.keys.node_id
        return Seat(network, state, me, approved, stored, forked, body.clock(), moved_ms, drafted)

    def propose(self, version: VersionBody) -> None:
        """The operator wants this version, and says so."""
        steps = next_steps(self.seat(0, version))
        self._body.disk.approved.append(version_hash(version))
        if steps and not isinstance(steps[0], Wait):
            self._body.author(drafts_of(steps, self._body.keys, self._body.network.network_id))
        self.heard()

    def approve(self, name: bytes) -> None:
        """The operator approves a version that somebody proposed."""
        self._body.disk.approved.append(name)
        self.heard()
