"""Loads stored folds, has the kernel fold what is new, and says what changed (docs/protocol.md §4).

An event that sorts last is applied on top of the stored state. Anything else - an event that sorts earlier, a
voided event, a certificate - folds the stream again from its events. Each stream is folded once per transaction.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Sequence

from sel.admission import Admission
from sel.rows import StreamRow, TaskFacts
from wattswarm.kernel import finality, governance, stream
from wattswarm.kernel.certificate import Certificate, DecisionCertificate, parse_certificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.governance import GovernanceState
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.kernel.payloads.work import CandidateProposed, TaskCreated
from wattswarm.kernel.stream import Folded
from wattswarm.kernel.task import fold as task_fold
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.fold import Pins, TaskState
from wattswarm.kernel.verdict import Verdict

pins_kept_max = 256


class PinsCache(OrderedDict[bytes, Pins]):
    """What tasks pin, by stream: immutable by hash, so an entry is never stale. Least recently used goes first."""

    def keep(self, pins: Pins) -> None:
        """Remember ``pins``."""
        self[pins.task] = pins
        self.move_to_end(pins.task)
        while len(self) > pins_kept_max:
            self.popitem(last=False)


class Projector:
    """The folds that one transaction touches."""

    def __init__(self, admission: Admission, pins: PinsCache) -> None:
        self.admission = admission
        self.txn = admission.txn
        self.pins = pins
        self.rows: dict[bytes, StreamRow] = {}
        self.logged: dict[bytes, list[Event]] = {}
        self.folds: dict[bytes, Folded] = {}
        self.fresh: dict[bytes, list[Event]] = defaultdict(list)
        self.refolded: set[bytes] = set()
        self.created: set[bytes] = set()

    async def project(self) -> None:
        """Fold everything that the admission touched."""
        for event in self.admission.pending.values():
            self.fresh[event.stream].append(event)
        for events in self.fresh.values():
            events.sort(key=lambda event: event.sort_key)
        await self._read_rows(self.fresh.keys() | self.admission.refold)
        await self._complete_certificates(list(self.fresh))
        again = self.admission.refold
        await self._load(self.fresh.keys() - again)
        for name in self.fresh.keys() - again:
            if not self._apply(name, self.fresh[name]):
                again.add(name)
        await self._fold_again(again)
        again.clear()

    async def apply_own(self, name: bytes, events: Sequence[Event]) -> list[Verdict]:
        """Apply events this node is about to author to one stream; returns their verdicts."""
        self.fresh[name] = sorted([*self.fresh[name], *events], key=lambda event: event.sort_key)
        if any(event.id == name for event in events):
            self.created.add(name)
            self.rows[name], self.logged[name] = StreamRow(name), []
        await self._read_rows([name])
        await self._complete_certificates([name])
        again = name in self.admission.refold
        if not again:
            await self._load([name])
            again = not self._apply(name, events)
        if again:
            await self._fold_again([name])
        self.admission.refold.discard(name)
        return [self.folds[name].verdicts[event.id] for event in events]

    async def governance(self) -> GovernanceState:
        """The governance stream's fold as it stands in this transaction."""
        network = self.admission.network
        await self._read_rows([network.network_id])
        await self._load([network.network_id])
        state = self.folds[network.network_id].state
        assert not isinstance(state, TaskState)
        return governance.new(network) if state is None else state

    async def withdraw_own(self, name: bytes, events: Sequence[Event]) -> None:
        """Forget refused events: what is left of the stream is folded again."""
        gone = {event.id for event in events}
        self.fresh[name] = [event for event in self.fresh[name] if event.id not in gone]
        if self.fresh[name] or name in self.refolded:
            await self._fold_again([name])
        else:
            del self.folds[name]

    def _apply(self, name: bytes, events: Sequence[Event]) -> bool:
        """Apply on top; False if the stream must be folded from its beginning.

        A creation always begins its stream: what a certificate's pins let fold before it had no creation to wait for.
        """
        folded = self.folds[name]
        if any(event.id == name for event in events):
            return False
        if folded.last is not None and folded.last >= events[0].sort_key:
            return False
        if folded.state is None:
            return False
        for event in events:
            stream.apply(folded, self.admission.network, event)
        return True

    async def _read_rows(self, names: Iterable[bytes]) -> None:
        unread = [name for name in names if name not in self.rows]
        if unread:
            rows = await self.txn.streams(unread)
            self.rows.update({name: rows.get(name) or StreamRow(name) for name in unread})

    async def _read_events(self, names: Iterable[bytes]) -> None:
        unread = [name for name in names if name not in self.logged]
        begun = [name for name in unread if self.rows[name].last is not None]
        found = await self.txn.stream_events(begun) if begun else {}
        self.logged.update({name: found.get(name, []) for name in unread})

    async def _load(self, names: Collection[bytes]) -> None:
        """Bring stored folds, whose rows are read, into memory."""
        wanted = [name for name in names if name not in self.folds]
        pins = await self._load_pins([name for name in wanted if self.rows[name].state is not None])
        for name in wanted:
            row = self.rows[name]
            folded = self.folds[name] = Folded(name, last=row.last, unproven=row.unproven)
            if row.state is None:
                continue
            if name == self.admission.network.network_id:
                folded.state = governance.decode_state(row.state)
            else:
                folded.pins = pins[name]
                folded.state = task_fold.decode_state(row.state)

    async def _load_pins(self, names: Sequence[bytes]) -> dict[bytes, Pins]:
        network = self.admission.network
        found = {name: self.pins[name] for name in names if name in self.pins}
        wanted = [name for name in names if name not in found and name != network.network_id]
        creations = await self.txn.events(wanted) if wanted else {}
        for name, creation in creations.items():
            found[name] = task_fold.pin_task(creation, network)
        orphaned = [name for name in wanted if name not in creations]
        for name, certificates in (await self.txn.stream_certificates(orphaned) if orphaned else {}).items():
            decision = parse_certificate(certificates[0], network)
            assert isinstance(decision, DecisionCertificate), "a task's stream has decision certificates only"
            found[name] = task_fold.pin_task(decision.creation, network)
        return found

    async def _fold_again(self, names: Collection[bytes]) -> None:
        if not names:
            return
        await self._read_events(names)
        elsewhere = [name for name in names if name not in self.created]
        wires = await self.txn.stream_certificates(elsewhere) if elsewhere else {}
        network = self.admission.network
        new: dict[bytes, list[Certificate]] = defaultdict(list)
        for certificate in self.admission.certificates.values():
            if isinstance(certificate, DecisionCertificate):
                new[certificate.stream].append(certificate)
        for name in names:
            events = [event for event in self.logged[name] if event.id not in self.admission.voided]
            events.extend(self.fresh.get(name, ()))
            events.sort(key=lambda event: event.sort_key)
            certificates = [parse_certificate(wire, network) for wire in wires.get(name, ())] + new[name]
            self.folds[name] = stream.fold(name, network, events, certificates)
            self.refolded.add(name)

    # -- certificates that events complete ----------------------------------------------------------------

    async def _complete_certificates(self, names: Iterable[bytes]) -> None:
        """A creation, a candidate and a proof that meet are a decision certificate, whoever sent them.

        Void events prove as well as live ones: those that came just now, and those of the log.
        """
        await self._read_rows(self.admission.witnesses)
        touched = [
            name
            for name in self.admission.witnesses.keys() | set(names)
            if _may_complete(self._here(name), self.rows[name])
        ]
        waiting = [name for name in touched if not await self._complete(name, ()) or self.rows[name].unproven]
        await self._read_events(waiting)
        waiting = [name for name in waiting if not await self._complete(name, self.logged[name])]
        for name, void in (await self.txn.void_events(waiting) if waiting else {}).items():
            await self._complete(name, [*self.logged[name], *void])

    def _here(self, name: bytes) -> list[Event]:
        return [*self.fresh.get(name, ()), *self.admission.witnesses.get(name, ())]

    async def _complete(self, name: bytes, logged: Sequence[Event]) -> bool:
        """Take the certificates that what came and what is ``logged`` make. False if a proof lacks a part."""
        events = [*logged, *self._here(name)]
        creation = next((event for event in events if event.id == name), None)
        whole = True
        for event in events:
            if not isinstance(event.payload, DecisionFinalized):
                continue
            proposal = _proposal(events, event.epoch, event.payload.winning_candidate_hash)
            if creation is None or proposal is None:
                whole = False
                continue
            proof = event.payload.finality_proof
            statement = finality.statement(
                event.network_id, proof.membership, name, event.epoch, event.payload.winning_candidate_hash
            )
            if not await self.admission.holds(sha256(statement)):
                certificate = DecisionCertificate(creation, proposal, event.epoch, proof)
                await self.admission.take_certificate(certificate)
        return whole

    # -- what changed -----------------------------------------------------------------------------------------

    def changed_rows(self) -> list[StreamRow]:
        """The stream rows to write; the state root in the admission's head follows them."""
        rows = []
        for name, folded in self.folds.items():
            if folded.last is None and self.rows[name].last is None and folded.state is None:
                continue
            encoded = folded.encoded()
            state, digest = encoded if encoded is not None else (None, None)
            self.admission.head.swap_root(name, self.rows[name].digest, digest)
            rows.append(StreamRow(name, state, digest, folded.last, facts_of(folded), folded.awaits, folded.unproven))
            if folded.pins is not None:
                self.pins.keep(folded.pins)
        return rows

    def changed_verdicts(self) -> list[tuple[bytes, bytes, Verdict]]:
        """(stream, event id, verdict) of what was judged now and not plainly accepted."""
        return [
            (name, event_id, verdict)
            for name, folded in self.folds.items()
            for event_id, verdict in folded.verdicts.items()
            if verdict.status != "accepted"
        ]


def _may_complete(events: Iterable[Event], row: StreamRow) -> bool:
    """Whether new ``events`` bring a proof, or the part that an unproven one of the log misses."""
    parts = (DecisionFinalized, CandidateProposed, TaskCreated) if row.unproven else DecisionFinalized
    return any(isinstance(event.payload, parts) for event in events)


def _proposal(events: Sequence[Event], epoch: int, wanted: bytes) -> Event | None:
    for event in events:
        if not isinstance(event.payload, CandidateProposed) or event.epoch != epoch:
            continue
        if candidate_hash(event.author, event.payload.candidate) == wanted:
            return event
    return None


def facts_of(folded: Folded) -> TaskFacts | None:
    """The query columns of a task's fold."""
    if folded.pins is None or not isinstance(folded.state, TaskState):
        return None
    pins = folded.pins
    return TaskFacts(
        pins.contract.task_id,
        task_fold.status(folded.state),
        folded.state.epoch,
        pins.contract.task_type,
        pins.creation.author,
        pins.membership.hash,
        pins.creation.created_at,
        pins.contract.expiry_ms,
    )
