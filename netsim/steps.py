"""What an event does to a log: worked out once for all nodes that are in the same state, where a scenario says so.

Nearly every event goes on top of its author's chain and of its stream's fold, and touches nothing else. What becomes of
the stream follows from the events, the membership versions that are known, and the fold before, so whoever is where the
first one was writes what came of them there. All else (places on chains, forks, certificates, what waits, what sorts
earlier) each node works out for itself, every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from netsim.disk import SimStore
from sel.admission import in_line
from sel.ingest import Knowledge, Taken, take_in
from sel.rows import Chain, Changes, Outcome, Stored, StreamRow
from sel.store import Txn
from wattswarm.kernel import chain, limits
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.event import Event, SortKey
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.govern import MembershipUpdated
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.kernel.verdict import Verdict

steps_kept_max = 8_192
proving = (DecisionFinalized, MembershipUpdated)
"""What these lead to depends on more of the log than a fold."""


class Before(NamedTuple):
    """Where a log must be for a step. ``network``: the newest version, by hash; ``release``: who reads the events."""

    events: frozenset[bytes]
    digest: bytes
    last: SortKey
    network: bytes
    release: str


class Step(NamedTuple):
    """What came of the events that a transaction had for one stream."""

    row: StreamRow
    verdicts: list[tuple[bytes, bytes, Verdict]]
    outcomes: dict[bytes, Outcome]


class _OnTop(NamedTuple):
    """A transaction whose ``events``, those of an author in line, all go on top: the chains with them, and where the
    fold of each stream is."""

    events: list[Event]
    lines: dict[bytes, Chain]
    before: dict[bytes, Before]


class Steps:
    """Intake of all nodes of a run. ``once``: they share the steps."""

    def __init__(self, *, once: bool) -> None:
        self._once = once
        self._known: dict[Before, Step] = {}
        self.shared = 0
        """How many events were taken in by a step that another node had worked out."""

    async def take_in(
        self,
        store: SimStore,
        txn: Txn,
        knowledge: Knowledge,
        events: Sequence[Event],
        certificates: Sequence[Certificate],
        now_ms: int,
        me: bytes,
    ) -> Taken:
        """As ``sel.ingest.take_in``."""
        on_top = None
        if self._once and events and not certificates and not store.head.parked:
            await knowledge.refresh(txn)
            on_top = _on_top(store, knowledge.network, list(in_line(events)), now_ms, me)
        if on_top is None:
            return await take_in(txn, knowledge, events, certificates, now_ms, me)
        known = self._known
        steps = [known[before] for before in on_top.before.values() if before in known]
        if len(steps) == len(on_top.before):
            self.shared += len(events)
            return await _take(store, txn, on_top, steps)
        taken = await take_in(txn, knowledge, events, (), now_ms, me)
        self._learn(on_top.before, store.changes, taken)
        return taken

    def _learn(self, before: dict[bytes, Before], changes: Changes, taken: Taken) -> None:
        if not changes.additions_only or not all(isinstance(one, Stored) for one in taken.outcomes.values()):
            return
        if len(self._known) >= steps_kept_max:
            self._known.clear()
        for row in changes.streams:
            here = before[row.stream]
            verdicts = [one for one in changes.verdicts if one[0] == row.stream]
            self._known[here] = Step(row, verdicts, {one: taken.outcomes[one] for one in here.events})


def _on_top(store: SimStore, network: Network, events: list[Event], now_ms: int, me: bytes) -> _OnTop | None:
    """Where the log is for these events, those of an author in line; None if any of them does not go on top."""
    lines: dict[bytes, Chain] = {}
    streams: dict[bytes, list[bytes]] = {}
    for event in events:
        if isinstance(event.payload, proving) or event.author == me:
            return None
        line = lines.get(event.author) or store.chain_rows.get(event.author)
        if line is None or line.void_from is not None or event.created_at > now_ms + limits.clock_skew_tolerance_ms:
            return None
        placed = chain.place(line.head, event, network.created_at, network.quotas)
        if not isinstance(placed, chain.Next):
            return None
        lines[event.author] = Chain(placed.head)
        streams.setdefault(event.stream, []).append(event.id)
    before: dict[bytes, Before] = {}
    for stream, ids in streams.items():
        row = store.stream_rows.get(stream)
        if row is None or row.digest is None or row.last is None or row.unproven:
            return None
        before[stream] = Before(
            frozenset(ids), row.digest, row.last, network.current.hash, limits.LOCAL_PROTOCOL_VERSION
        )
    return _OnTop(events, lines, before)


async def _take(store: SimStore, txn: Txn, on_top: _OnTop, steps: Sequence[Step]) -> Taken:
    head = txn.head.copy()
    outcomes: dict[bytes, Outcome] = {}
    for event in on_top.events:
        head.add_event(event)
        head.max_hlc = max(head.max_hlc, event.hlc)
    for step in steps:
        head.swap_root(step.row.stream, store.stream_rows[step.row.stream].digest, step.row.digest)
        outcomes |= step.outcomes
    rows, verdicts = [step.row for step in steps], [one for step in steps for one in step.verdicts]
    await txn.write(Changes(events=on_top.events, chains=on_top.lines, streams=rows, verdicts=verdicts, head=head))
    return Taken(outcomes, {}, len(on_top.events), 0)
