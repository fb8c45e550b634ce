"""What an event does to a log: worked out once for all nodes that are in the same state, where a scenario says so.

Nearly every event goes on top of its author's chain and of its stream's fold, and touches nothing else. Such a step
follows from the event, the membership versions that are known, the end of the chain and the fold before it, so whoever
is where the first one was writes what came of it there. All else (forks, certificates, what waits, what sorts earlier)
each node works out for itself, every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from netsim.disk import SimStore
from sel.ingest import Knowledge, Taken, take_in
from sel.rows import Chain, Changes, Stored, StreamRow
from sel.store import Txn
from wattswarm.kernel import limits
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.event import Event, SortKey
from wattswarm.kernel.payloads.govern import MembershipUpdated
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.kernel.verdict import Verdict

steps_kept_max = 8_192
proving = (DecisionFinalized, MembershipUpdated)
"""What these lead to depends on more of the log than a fold."""


class Before(NamedTuple):
    """Where a log must be for a step. ``network``: the hash of the newest version; ``release``: who reads the event."""

    event: bytes
    digest: bytes
    last: SortKey
    network: bytes
    release: str


class Step(NamedTuple):
    """What came of an event."""

    line: Chain
    row: StreamRow
    verdicts: list[tuple[bytes, bytes, Verdict]]
    outcome: Stored


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
        before = None
        if self._once and len(events) == 1 and not certificates:
            await knowledge.refresh(txn)
            before = self._before(store, knowledge, events[0], now_ms, me)
        step = None if before is None else self._known.get(before)
        if step is not None:
            self.shared += 1
            return await _take(store, txn, events[0], step)
        taken = await take_in(txn, knowledge, events, certificates, now_ms, me)
        if before is not None:
            self._learn(before, events[0], store.changes, taken)
        return taken

    def _before(self, store: SimStore, knowledge: Knowledge, event: Event, now_ms: int, me: bytes) -> Before | None:
        """Where this log is, if the event is one that goes on top."""
        line, row = store.chain_rows.get(event.author), store.stream_rows.get(event.stream)
        if line is None or line.head.id != event.prev or line.void_from is not None or event.author == me:
            return None
        if row is None or row.digest is None or row.last is None or row.unproven or isinstance(event.payload, proving):
            return None
        if store.head.parked or event.created_at > now_ms + limits.clock_skew_tolerance_ms:
            return None
        return Before(event.id, row.digest, row.last, knowledge.network.current.hash, limits.LOCAL_PROTOCOL_VERSION)

    def _learn(self, before: Before, event: Event, changes: Changes, taken: Taken) -> None:
        outcome = taken.outcomes[event.id]
        if not changes.additions_only or not isinstance(outcome, Stored):
            return
        if len(self._known) >= steps_kept_max:
            self._known.clear()
        [row] = changes.streams
        self._known[before] = Step(changes.chains[event.author], row, changes.verdicts, outcome)


async def _take(store: SimStore, txn: Txn, event: Event, step: Step) -> Taken:
    head = txn.head.copy()
    head.add_event(event)
    head.max_hlc = max(head.max_hlc, event.hlc)
    head.swap_root(event.stream, store.stream_rows[event.stream].digest, step.row.digest)
    chains = {event.author: step.line}
    await txn.write(Changes(events=[event], chains=chains, streams=[step.row], verdicts=step.verdicts, head=head))
    return Taken({event.id: step.outcome}, {}, 1, 0)
