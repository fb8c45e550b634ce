"""One transaction of authoring, over any store (docs/architecture.md §3): sign, judge, guard, write.

Like intake, but this node signs the events, what its own state refuses is not written at all, and the author
guard is told before the commit. A batch holds the requests of many callers; each stands or falls by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec

from sel.admission import Admission
from sel.ingest import Knowledge, changes_of, signature_of, vote_of
from sel.projector import Projector
from sel.rows import SignatureRow, VoteRow
from sel.store import Stale, Store, Txn
from wattswarm.kernel import chain, event, governance, hlc, limits, rounds
from wattswarm.kernel.certificate import Certificate, MembershipCertificate
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads.govern import MembershipSigned, MembershipUpdated
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.kernel.refusal import Refused

request_drafts_max = 16
recalled_drafts_max = 32
batch_bytes_max = 4 << 20
fenced = "fenced"
"""The reason of refusing what was not to be signed again after a recovery."""


class Guard(Protocol):
    """What authoring asks of the author guard (``sel.guard``)."""

    def confirm(self, seq: int, event_id: bytes | None) -> Sequence[tuple[bytes, bytes]]:
        """Compare with the database's head of this node's chain; wires of a batch that must be inserted first.

        Raises ``Refused`` when this node must not author.
        """

    def seal(self, base_seq: int, base_id: bytes | None, batch: Sequence[Event]) -> None:
        """Make the signed bytes of the batch durable, before its commit."""

    def withdraw(self) -> None:
        """Take back the batch sealed last: it is certain that it was not committed."""


class ClockBehind(Refused):
    """The log holds events from further ahead than an author may run (docs/protocol.md §2): wait ``ahead_ms``."""

    def __init__(self, ahead_ms: int) -> None:
        super().__init__(
            "clock_behind",
            f"the log holds events {ahead_ms} ms ahead of this host's clock; set the clock right, or wait",
        )
        self.ahead_ms = ahead_ms


class ClockAhead(Refused):
    """This host's clock is ahead of its peers': others would only keep its events aside until their time has come."""

    def __init__(self, ahead_ms: int) -> None:
        super().__init__(
            "clock_ahead",
            f"this host's clock is {ahead_ms / 1000:.1f} s ahead of those of this node's peers, so it authors nothing; "
            "set it right",
        )


@dataclass(slots=True)
class Request:
    """Drafts that one caller wants authored: all of them or none. ``result`` is set when the batch is decided.

    ``sealed``: the author guard holds the batch, so what the result says will be in the log whatever happens.
    """

    drafts: Sequence[Draft]
    result: list[Event] | Refused | None = None
    sealed: bool = False


@dataclass(slots=True)
class Author:
    """The node's own hand: key and guard."""

    keys: Keypair
    guard: Guard
    clock: Callable[[], int]


async def author_batch(store: Store, knowledge: Knowledge, author: Author, requests: Sequence[Request]) -> None:
    """Author a batch of requests in one transaction, each accepted or refused by itself.

    A few events are first tried on what this process remembers of the log (``sel.recall``). What that refuses is asked
    again under the lock: only how the log is counts.
    """
    few = 0 < sum(len(request.drafts) for request in requests) <= recalled_drafts_max
    if few and await _author_recalled(store, knowledge, author, requests):
        return

    async def work(txn: Txn) -> None:
        await write_own(txn, knowledge, author, requests)

    await store.transact(work)


async def _author_recalled(store: Store, knowledge: Knowledge, author: Author, requests: Sequence[Request]) -> bool:
    async def work(txn: Txn) -> None:
        await write_own(txn, knowledge, author, requests)

    with suppress(Stale, Refused):
        await store.recalled(work)
        return True
    if any(request.sealed for request in requests):
        author.guard.withdraw()
    for request in requests:
        request.result, request.sealed = None, False
    return False


async def write_own(txn: Txn, knowledge: Knowledge, author: Author, requests: Sequence[Request]) -> None:
    """Author a batch of requests in one transaction; each is accepted or refused by itself.

    A request that no longer fits the batch is left undecided, for the next one.
    """
    admission = Admission(txn, await knowledge.refresh(txn), author.clock())
    line = await admission.chain_of(author.keys.node_id)
    base = line.head
    unfinished = [
        event.parse(body, signature, admission.network.network_id)
        for body, signature in author.guard.confirm(base.seq, base.id)
    ]
    if unfinished and not txn.locked:
        raise Stale
    await admission.take(unfinished, _announced(requests, author.keys.node_id))
    if line.void_from is not None:
        raise Refused(
            "author_void",
            f"this node's key may not author any more: its chain is void from event {line.void_from} on "
            "(a fork, or removal from the membership). The way back is a new key: a new state directory.",
        )
    assert line.head.seq == base.seq + len(unfinished), "the guard's bytes are the chain's next events"
    batch = _Batch(admission, Projector(admission, knowledge.pins), author)
    batch.size = sum(len(entry.body) for entry in unfinished)
    batch.votes = [vote for entry in unfinished for vote in vote_of(entry)]
    batch.signatures = [row for entry in unfinished for row in signature_of(entry)]
    await batch.projector.project()
    for request in requests:
        if batch.size > batch_bytes_max:
            break
        try:
            request.result = await batch.add(request.drafts)
        except Refused as refusal:
            if not txn.locked:
                raise
            request.result = refusal
    if batch.events:
        author.guard.seal(base.seq, base.id, [*unfinished, *batch.events])
        for request in requests:
            request.sealed = request.result is not None
    changes = changes_of(admission, batch.projector)
    changes.votes, changes.signatures = batch.votes, batch.signatures
    await txn.write(changes)
    knowledge.network = admission.network


def _announced(requests: Sequence[Request], me: bytes) -> list[Certificate]:
    """The versions that the requests announce: they prove themselves, so they count before anything is signed."""
    drafts = [draft for request in requests for draft in request.drafts]
    updates = [draft.payload for draft in drafts if isinstance(draft.payload, MembershipUpdated)]
    return [MembershipCertificate(update) for update in updates if me.hex() not in update.version.until]


class _Batch:
    """The events of one authoring transaction, as they are signed."""

    def __init__(self, admission: Admission, projector: Projector, author: Author) -> None:
        self.admission = admission
        self.projector = projector
        self.author = author
        self.events: list[Event] = []
        self.votes: list[VoteRow] = []
        self.signatures: list[SignatureRow] = []
        self.size = 0

    async def add(self, drafts: Sequence[Draft]) -> list[Event]:
        """Sign and apply one request's drafts, or leave everything as it was and raise ``Refused``."""
        me = self.author.keys.node_id
        if len(drafts) > request_drafts_max:
            raise Refused("too_many_drafts", f"{len(drafts)} events in one request, at most {request_drafts_max}")
        before, votes, signatures = self.admission.chains[me].head, len(self.votes), len(self.signatures)
        events: list[Event] = []
        try:
            for draft in drafts:
                if draft.about_first:
                    draft = msgspec.structs.replace(draft, task=events[0].id)  # noqa: PLW2901 - the same draft, placed
                events.append(authored := await self._sign(draft))
                verdict = (await self.projector.apply_own(authored.stream, [authored]))[0]
                if verdict.status != "accepted":
                    raise Refused(verdict.reason, verdict.message)
        except Refused:
            self.admission.withdraw_own(events, before)
            del self.votes[votes:], self.signatures[signatures:]
            for name in {authored.stream for authored in events}:
                await self.projector.withdraw_own(name, events)
            raise
        self.events.extend(events)
        self.size += sum(len(authored.body) for authored in events)
        return events

    async def _sign(self, draft: Draft) -> Event:
        admission = self.admission
        if not admission.network.knows_author(self.author.keys.node_id):
            raise Refused(
                "not_a_member",
                f"this node ({self.author.keys.node_id.hex()[:16]}…) is no member of its network, it observes: others "
                "would not take its events; `wattswarm network show` says how it becomes a member",
            )
        head = admission.chains[self.author.keys.node_id].head
        now = hlc.after(admission.head.max_hlc, admission.now_ms)
        ahead_ms = hlc.wall_ms(now) - admission.now_ms
        if ahead_ms > limits.author_ahead_ms_max:
            raise ClockBehind(ahead_ms)
        network = admission.network
        authored = event.author(self.author.keys, network.network_id, head.seq + 1, head.id, now, draft)
        await self._check_unique(authored)
        match chain.place(head, authored, network.created_at, network.quotas):
            case chain.Next(head_after):
                admission.enter_own(authored, head_after)
            case chain.NotAdmitted(reason, message):
                raise Refused(reason, message)
            case other:
                raise AssertionError(f"an event signed on the head is next in line, not {other}")
        return authored

    async def _check_unique(self, authored: Event) -> None:
        """A label only once, a finality vote only once: asked before the state is. No one's own removal: it is void."""
        if isinstance(authored.payload, TaskCreated):
            label = authored.payload.contract.get("task_id")
            known = await self._labelled(label) if isinstance(label, str) else []
            if known:
                raise Refused(
                    "label_taken", f"task_id: {label!r} names task {known[0].hex()[:16]}… already; choose another"
                )
        if isinstance(authored.payload, MembershipUpdated) and authored.author.hex() in authored.payload.version.until:
            raise Refused(
                "author_removed",
                "this version removes this node, whose word on it is void; a member that stays says it",
            )
        if isinstance(authored.payload, MembershipSigned):
            await self._check_signature(authored, authored.payload)
        for vote in vote_of(authored):
            await self._check_fence(vote.task)
            voted = await self._vote_on(vote.task, vote.epoch)
            if voted is not None:
                raise Refused(
                    "voted", f"this node has cast its finality vote on epoch {vote.epoch} (for {voted.hex()[:16]}…)"
                )
            self.votes.append(vote)

    async def _check_signature(self, authored: Event, said: MembershipSigned) -> None:
        """What this node signed about a version binds it, whether or not the stream shows it."""
        earlier = await self.admission.txn.membership_signatures(said.previous)
        earlier += [row.signed for row in self.signatures if row.previous == said.previous]
        book = governance.book(await self.projector.governance(), said.previous)
        may_sign = rounds.may_prepare if said.phase == "prepare" else rounds.may_commit
        version = self.admission.network.version(said.previous)
        if version.number <= (await self.admission.txn.fence()).membership:
            raise Refused(
                fenced,
                f"this node's chain was recovered, and what it signed before about the version after {version.number} "
                "may not all be known here: it signs none until the other finalizers have brought one about",
            )
        may_sign(book, version, authored.author, earlier, said.round, said.membership_hash)
        if (said.phase, said.round) not in {(one.phase, one.round) for one in earlier}:
            self.signatures += signature_of(authored)

    async def _check_fence(self, task: bytes) -> None:
        """No vote on a task from before this node's chain was recovered: it may have cast another there."""
        until_ms = (await self.admission.txn.fence()).until_ms
        if until_ms < 0:
            return
        creation = self.admission.pending.get(task) or (await self.admission.txn.events([task])).get(task)
        if creation is None or creation.created_at <= until_ms:
            raise Refused(
                fenced,
                "this node's chain was recovered after the task was created, and it may have voted before in a way "
                "that is not known here: it casts no finality vote on the task",
            )

    async def _labelled(self, label: str) -> list[bytes]:
        folds = self.projector.folds.items()
        fresh = [name for name, folded in folds if folded.pins is not None and folded.pins.contract.task_id == label]
        return fresh or await self.admission.txn.labelled(label)

    async def _vote_on(self, task: bytes, epoch: int) -> bytes | None:
        for vote in self.votes:
            if (vote.task, vote.epoch) == (task, epoch):
                return vote.candidate_hash
        return await self.admission.txn.vote_on(task, epoch)
