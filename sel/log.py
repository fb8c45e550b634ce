"""The signed event log (SEL) of one node: the one place that appends, over any store.

``Log.author`` signs and appends this node's events; callers that wait at the same time share a transaction
(group commit). ``Log.ingest`` takes verified events and certificates from elsewhere. Reads give folded state.
Losing the database is not losing the log: what was signed is in the author guard and goes in first when the
database is back (docs/protocol.md §7).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import trio

from sel.authoring import Author, ClockBehind, Guard, Request, author_batch
from sel.errors import StoreError, StoreFull, StoreUnavailable
from sel.ingest import Knowledge, Taken, take_in
from sel.lifetimes import single_error
from sel.rows import Changes, Fence, LogHead, StreamRow
from sel.store import Record, Stale, Store, Txn
from wattswarm.kernel import governance, limits
from wattswarm.kernel.certificate import Certificate, DecisionCertificate, parse_certificate
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.governance import GovernanceState
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.rounds import Stored
from wattswarm.kernel.stream import Folded
from wattswarm.kernel.task import fold as task_fold
from wattswarm.kernel.verdict import Verdict

_log = logging.getLogger(__name__)
T = TypeVar("T")
batch_requests_max = 256
recalled_events_max = 32
retry_delays_s = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
clock_wait_ms_max = 5_000


class TurnGuard(Guard, Protocol):
    """A guard whose turn this host's processes take one after the other."""

    def try_turn(self) -> bool: ...
    def wait_turn(self) -> None: ...
    def end_turn(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as the log holds it: fold, live events in canonical order, verdicts that are not acceptance."""

    folded: Folded
    events: list[Event]
    verdicts: dict[bytes, Verdict]
    certificates: list[DecisionCertificate]


@dataclass(slots=True)
class _Waiting:
    request: Request
    done: trio.Event
    error: Exception | None = None


class Log:
    """One node's log. Made by ``open_log``, which owns its tasks."""

    def __init__(
        self,
        store: Store,
        network: Network,
        keys: Keypair,
        guard: TurnGuard,
        clock: Callable[[], int],
        recover: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.store = store
        self.keys = keys
        self.clock = clock
        self.objection: Callable[[], Refused | None] = lambda: None
        """Why nothing is to be authored now, if there is a reason: whoever knows one sets it."""
        self.full = ""
        """What the database said when it had no room for what was to be stored last, if it had none."""
        self._knowledge = Knowledge(network)
        self._guard = guard
        self._author = Author(keys, guard, clock)
        self._recover = recover
        self._send, self._receive = trio.open_memory_channel[_Waiting](batch_requests_max)

    @property
    def network(self) -> Network:
        """Genesis and every membership version known so far."""
        return self._knowledge.network

    # -- writing ------------------------------------------------------------------------------------------------

    async def author(self, *drafts: Draft) -> list[Event]:
        """Sign and append ``drafts``, all or none, in one transaction.

        Raises ``Refused`` with the rule that says no (nothing is appended), ``StoreUnavailable`` when the database
        is gone. Returns when they are durable.
        """
        objection = self.objection()
        if objection is not None:
            raise objection
        waiting = _Waiting(Request(drafts), trio.Event())
        await self._send.send(waiting)
        await waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error
        match waiting.request.result:
            case Refused() as refusal:
                raise refusal
            case list() as events:
                return events
        raise AssertionError("a decided request has a result")

    async def ingest(self, events: Sequence[Event], certificates: Sequence[Certificate] = ()) -> Taken:
        """Take events, whose signatures were verified, and certificates into the log, in one transaction."""

        async def work(txn: Txn) -> Taken:
            return await take_in(txn, self._knowledge, events, certificates, self.clock(), self.keys.node_id)

        async def attempt() -> Taken:
            if len(events) <= recalled_events_max and not certificates:
                with suppress(Stale):
                    return await self.store.recalled(work)
            return await self.store.transact(work)

        return await self._write(attempt)

    async def raise_fence(self, fence: Fence) -> None:
        """Bind this node not to sign, from here on, what it may have signed before its chain was recovered."""

        async def work(txn: Txn) -> None:
            await txn.write(Changes(fence=fence, head=txn.head.copy()))

        await self._write(lambda: self.store.transact(work))

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try, and try again with back-off while the database is away: for work that may be repeated."""
        for delay_s in retry_delays_s:
            try:
                return await attempt()
            except StoreUnavailable:
                await trio.sleep(delay_s)
                await self._bring_back()
        return await attempt()

    async def _write(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """As ``_persist``, to store something. That there is no room is said once, and that there is some again."""

        async def whole() -> T:
            try:
                result = await attempt()
            except StoreFull as error:
                if not self.full:
                    _log.warning("nothing can be stored", extra={"why": str(error)})
                self.full = str(error)
                raise
            if self.full:
                _log.info("there is room again, and what waited is stored")
            self.full = ""
            return result

        return await self._persist(whole)

    async def _bring_back(self) -> None:
        if self._recover is not None:
            with suppress(StoreUnavailable):
                await self._recover()

    async def serve(self) -> None:
        """Author what callers ask for, a batch at a time, for ever."""
        async for first in self._receive:
            batch = [first]
            while len(batch) < batch_requests_max:
                try:
                    batch.append(self._receive.receive_nowait())
                except trio.WouldBlock:
                    break
            await self._author_batch(batch)

    async def _author_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._write_batch([waiting.request for waiting in batch])
        except (Refused, StoreError, OSError) as error:
            for waiting in batch:
                waiting.error = error
        finally:
            for waiting in batch:
                waiting.done.set()

    async def _write_batch(self, requests: Sequence[Request]) -> None:
        if not self._guard.try_turn():
            await trio.to_thread.run_sync(self._guard.wait_turn)
        try:
            await self._store_batch(requests)
        finally:
            self._guard.end_turn()
        undecided = [request for request in requests if request.result is None]
        if undecided:
            await self._write_batch(undecided)
        late = [request for request in requests if isinstance(request.result, ClockBehind)]
        if late and all(_short(request.result) for request in late):
            ahead_ms = max(request.result.ahead_ms for request in late)  # type: ignore[union-attr]
            await trio.sleep((ahead_ms - limits.author_ahead_ms_max) / 1000)
            await self._write_batch([_again(request) for request in late])

    async def _store_batch(self, requests: Sequence[Request]) -> None:
        """One transaction. Once the batch is sealed its events will be in the log, so only storing is repeated."""

        async def attempt() -> None:
            sealed = any(request.sealed for request in requests)
            await author_batch(self.store, self._knowledge, self._author, () if sealed else requests)

        await self._write(attempt)

    # -- reading ------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        """Run ``work`` on one snapshot of the store."""
        return await self._persist(lambda: self.store.read(work))

    async def fence(self) -> Fence:
        """What this node does not sign since its chain was recovered."""

        async def work(txn: Txn) -> Fence:
            return await txn.fence()

        return await self.read(work)

    async def head(self) -> LogHead:
        """Totals of the log."""

        async def work(txn: Txn) -> LogHead:
            return txn.head

        return await self.read(work)

    async def resolve(self, reference: str) -> bytes:
        """The stream of a task named by label, ``label@hash-prefix`` or full hash (docs/protocol.md §2).

        Raises ``Refused`` if no task, or more than one, answers to it.
        """
        label, _, prefix = reference.partition("@")

        async def work(txn: Txn) -> list[bytes]:
            if len(reference) == 64 and not set(reference) - set("0123456789abcdef"):
                stream = bytes.fromhex(reference)
                return [] if stream == self.network.network_id else list(await txn.streams([stream]))
            found = sorted(stream for stream in await txn.labelled(label) if stream.hex().startswith(prefix))
            if len(found) > 1:
                creations = await txn.events(found)
                mine = [stream for stream, event in creations.items() if event.author == self.keys.node_id]
                found = mine if len(mine) == 1 else found
            return found

        found = await self.read(work)
        if len(found) == 1:
            return found[0]
        if not found:
            raise Refused(
                "unknown_task", f"no task {reference!r} in this log; `wattswarm task list` shows what there is"
            )
        names = ", ".join(f"{label}@{stream.hex()[:12]}" for stream in found)
        raise Refused("ambiguous_task", f"{reference!r} names {len(found)} tasks: {names}; use one of these")

    async def refresh(self) -> None:
        """Learn the membership versions that other processes of this node have stored."""
        await self.read(self._knowledge.refresh)

    async def governance(self) -> tuple[GovernanceState, list[Stored]]:
        """The governance stream's fold, and what this node signed about the current version's successor."""

        async def work(txn: Txn) -> tuple[GovernanceState, list[Stored]]:
            network = await self._knowledge.refresh(txn)
            row = (await txn.streams([network.network_id])).get(network.network_id)
            stored = await txn.membership_signatures(network.current.hash)
            if row is None or row.state is None:
                return governance.new(network), stored
            return governance.decode_state(row.state), stored

        return await self.read(work)

    async def admitted_policy_hashes(self, policy_id: str) -> frozenset[str]:
        """The hashes of a policy that this network admitted beside the policy's own (docs/protocol.md §9)."""
        state, _ = await self.governance()
        return governance.admitted_policy_hashes(state).get(policy_id, frozenset())

    async def task(self, stream: bytes) -> TaskRecord:
        """A task's fold and events. Raises ``Refused`` if the stream has no state."""

        found = await self._persist(lambda: self.store.record(stream))
        if found is None or found.row.state is None:
            raise Refused("unknown_task", f"task {stream.hex()[:16]}… has no accepted creation in this log")
        return task_record(found, self._knowledge)


def task_record(found: Record, knowledge: Knowledge) -> TaskRecord:
    """A task as the store gave it, whose state is not None, with its fold made of it."""
    certificates = [parse_certificate(wire, knowledge.network) for wire in found.certificates]
    decisions = [cert for cert in certificates if isinstance(cert, DecisionCertificate)]
    folded = _unfolded(found.row, knowledge, found.events, decisions)
    return TaskRecord(folded, found.events, found.verdicts, decisions)


def _unfolded(
    row: StreamRow, knowledge: Knowledge, events: Sequence[Event], decisions: Sequence[DecisionCertificate]
) -> Folded:
    assert row.state is not None
    if row.stream == knowledge.network.network_id:
        return Folded(row.stream, governance.decode_state(row.state), None, row.last)
    pins = knowledge.pins.get(row.stream)
    if pins is None:
        creation = next((event for event in events if event.id == row.stream), None) or decisions[0].creation
        pins = task_fold.pin_task(creation, knowledge.network)
        knowledge.pins.keep(pins)
    return Folded(row.stream, task_fold.decode_state(row.state), pins, row.last)


def _again(request: Request) -> Request:
    request.result, request.sealed = None, False
    return request


def _short(result: object) -> bool:
    return isinstance(result, ClockBehind) and result.ahead_ms <= clock_wait_ms_max


@asynccontextmanager
async def open_log(
    store: Store,
    network: Network,
    keys: Keypair,
    guard: TurnGuard,
    clock: Callable[[], int],
    recover: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[Log]:
    """A log that serves until left. ``clock`` gives unix ms; ``recover`` brings a lost database back."""
    log = Log(store, network, keys, guard, clock, recover)
    await log.refresh()
    with single_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.serve)
            yield log
            nursery.cancel_scope.cancel()
