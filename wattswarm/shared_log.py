"""The log as the network sees it: ``net.io.ports.LogPort`` over ``sel``. Here bytes become checked events.

What a peer sent is parsed and its signatures are verified before the log hears of it; what the log has anew is told as
ids, places and bytes. ``net`` knows no log and ``sel`` no network: this is where they meet.
"""

from __future__ import annotations

import logging
from bisect import bisect_right, insort
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import groupby
from math import inf
from typing import TypeVar

import trio

from net.io.ports import Intake
from net.proto.items import Items
from net.proto.message import Standing, Total, Wire
from net.proto.values import (
    Appended,
    BundleOf,
    CertificateKnown,
    CertificatesOf,
    EventsOf,
    Fate,
    Known,
    Lacking,
    Question,
    Span,
    Stock,
)
from sel import outline as outlines
from sel.errors import StoreUnavailable
from sel.ingest import Taken
from sel.outline import Advance, Mark
from sel.rows import Duplicate, LogHead, NotAdmitted, Outcome, Stored, Void, Waiting
from sel.signatures import Checker, bad_signatures
from sel.store import Written
from wattswarm.kernel import limits
from wattswarm.kernel.bundle import make_bundle
from wattswarm.kernel.certificate import (
    Certificate,
    MembershipCertificate,
    NotYetKnown,
    parse_certificate,
)
from wattswarm.kernel.event import Event, parse
from wattswarm.kernel.finality import final_commit_hash, statement
from wattswarm.kernel.limits import certificate_bytes_max, clock_skew_tolerance_ms
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.judge import DecisionFinalized, FinalityVote
from wattswarm.kernel.refusal import Malformed, Refused, Unsupported
from wattswarm.node import Node, now_ms

channel = "wattswarm_log"
_log = logging.getLogger(__name__)
T = TypeVar("T")
asked_kept_max = 65_536
retry_s = 0.5
answer_bytes_max = 2 << 20
alarms_max = 1_024
written_kept_max = 16
parsed_at_once = 64


def standing_of(head: LogHead) -> Standing:
    """A log's totals as a peer is told them."""
    return Standing(
        Total(head.events, head.events_sum.to_bytes(32, "little")),
        Total(head.certificates, head.certificates_sum.to_bytes(32, "little")),
        head.state_root.to_bytes(32, "little"),
        limits.LOCAL_PROTOCOL_VERSION,
    )


def known_of(event: Event) -> Known:
    """An event as the network needs to know it."""
    urgent = isinstance(event.payload, FinalityVote | DecisionFinalized)
    wire = (event.body, event.signature)
    return Known(event.id, event.author, event.author_seq, event.created_at // 1000, urgent, wire)


def decision_of(event: Event) -> bytes:
    """The id of the certificate that a DECISION_FINALIZED carries a part of."""
    said = event.payload
    assert isinstance(said, DecisionFinalized)
    membership, candidate = said.finality_proof.membership, said.winning_candidate_hash
    return final_commit_hash(statement(event.network_id, membership, event.stream, event.epoch, candidate))


def sorted_out(wires: Sequence[bytes], network: Network) -> tuple[list[Certificate], int, int]:
    """Certificates that came: those that can be judged; how many are not sound; how many another version's."""
    sound: list[Certificate] = []
    foreign = 0
    for wire in wires:
        try:
            sound.append(parse_certificate(wire, network))
        except Unsupported:
            foreign += 1
        except Refused:
            continue
    return sound, len(wires) - len(sound) - foreign, foreign


def fate_of(event: Event, outcome: Outcome) -> Fate:
    """What became of an event, for whoever sent it."""
    match outcome:
        case Stored():
            return Fate(event.id, "stored")
        case Duplicate():
            return Fate(event.id, "here")
        case Void():
            return Fate(event.id, "void")
        case NotAdmitted():
            return Fate(event.id, "refused")
        case Waiting(why):
            return Fate(event.id, why, event.author, event.author_seq)


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do it, as often as the database goes away meanwhile: the network waits for it, and loses nothing."""
    while True:
        try:
            return await work()
        except StoreUnavailable as error:
            _log.debug("the network waits for the database", extra={"why": str(error)})
        await trio.sleep(retry_s)


class Alarms:
    """Moments (unix ms) at which something is to be done. Of too many the latest are forgotten."""

    def __init__(self) -> None:
        self._moments: list[int] = []
        self._sooner = trio.Event()

    def set(self, at_ms: int) -> None:
        """Do it then, too."""
        if at_ms not in self._moments:
            insort(self._moments, at_ms)
            del self._moments[alarms_max:]
            self._sooner.set()

    async def ring(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do it whenever a moment has come."""
        while True:
            self._sooner = trio.Event()
            wait_s = (self._moments[0] - now_ms()) / 1000 if self._moments else inf
            if wait_s > 0:
                with trio.move_on_after(wait_s):
                    await self._sooner.wait()
                continue
            del self._moments[: bisect_right(self._moments, now_ms())]
            await work()


class SharedLog:
    """One node's log on the network."""

    def __init__(self, node: Node, checker: Checker) -> None:
        self._node = node
        self._checker = checker
        self._parsing, self._checking, self._storing = trio.Lock(), trio.Lock(), trio.Lock()
        self._written: deque[Written] = deque()
        node.log.store.wrote = self._wrote
        self._mark = Mark()
        self._told_of = 0
        self._stirred = True
        self._asked: set[bytes] = set()
        self._early = Alarms()

    async def stock(self) -> Stock:
        """All that is live now."""
        return await _patiently(self._stock)

    async def _stock(self) -> Stock:
        items = Items()
        node = self._node
        found = await outlines.outline(
            node.database,
            node.genesis_network,
            lambda portion: items.update((at_ms // 1000, event_id) for at_ms, event_id in portion),
        )
        self._mark = found.mark
        return Stock(items, found.ruling, found.decisions, found.chains, standing_of(found.head))

    def _wrote(self, written: Written) -> None:
        """Keep what this process writes until it is told; of too much nothing, the log has it."""
        self._told_of = max(self._told_of, written.version)
        if len(self._written) == written_kept_max:
            self._written.clear()
        self._written.append(written)

    async def news(self) -> Sequence[Appended]:
        """What came since, in portions of one sort: this node's own, asked for, and the rest.

        What this process wrote is told as it was written; the log is asked where it tells of something else.
        """
        news = [told for step in self._own_steps() for told in self._told(step)]
        if self._stirred or self._told_of > self._mark.version:
            self._stirred = False
            news.extend(await _patiently(self._news))
        return news

    def _own_steps(self) -> Iterator[Advance]:
        while self._written:
            step = outlines.advanced(self._mark, self._written.popleft())
            if step is not None:
                self._mark = step.mark
                yield step

    async def _news(self) -> Sequence[Appended]:
        news: list[Appended] = []
        more = True
        while more:
            step = await outlines.advance(self._node.database, self._node.genesis_network, self._mark)
            more = step.more
            if any(one.ruling for one in step.certificates):
                await self._node.log.refresh()  # so that who is a member is known when this is told
            if step.mark != self._mark:
                if any(certificate.ruling for certificate in step.certificates):
                    await self._node.log.refresh()  # another process of this node may have stored it
                self._mark = step.mark
                news.extend(self._told(step))
        return news

    def _told(self, step: Advance) -> list[Appended]:
        me, standing = self._node.home.keys.node_id, standing_of(step.head)
        sorts = [
            (own, repaired, [known_of(event) for event in events])
            for (own, repaired), events in groupby(
                step.events, key=lambda event: (event.author == me, event.id in self._asked)
            )
        ] or [(False, False, [])]
        self._asked.difference_update(event.id for event in step.events)
        carried = {decision_of(event) for event in step.events if isinstance(event.payload, DecisionFinalized)}
        certificates = [CertificateKnown(one.id, one.ruling, one.wire, one.id in carried) for one in step.certificates]
        void = [(at_ms // 1000, event_id) for at_ms, event_id in step.void]
        (own, repaired, events), *rest = sorts
        first = Appended(events, void, certificates, step.idle, step.chains, standing, own, repaired)
        return [first, *(Appended(found, (), (), (), {}, standing, own, asked) for own, asked, found in rest)]

    @asynccontextmanager
    async def notices(self) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        """A notice whenever somebody wrote something, or may have while the database was away."""
        send, receive = trio.open_memory_channel[str](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_patiently, partial(self._listen, send))
            nursery.start_soon(self._early.ring, self._place_early)
            yield receive
            nursery.cancel_scope.cancel()

    async def _place_early(self) -> None:
        """What came before its time is due."""
        await self.intake((), (), asked=False)

    async def _listen(self, send: trio.MemorySendChannel[str]) -> None:
        async with self._node.database.listen(channel) as notices:
            self._stirred = True
            await send.send("")
            async for notice in notices:
                self._told_of = max(self._told_of, int(notice))
                with suppress(trio.WouldBlock):
                    send.send_nowait(notice)
        raise StoreUnavailable("the database tells of nothing any more")

    def is_member(self, node_id: bytes) -> bool:
        """Whether a node is, or was, a member of a version that is known here."""
        return self._node.log.network.knows_author(node_id)

    # -- what peers sent ------------------------------------------------------------------------------------------

    async def intake(self, events: Sequence[Wire], certificates: Sequence[bytes], *, asked: bool) -> Intake:
        """Check and store, in one transaction. Fates come in the order of ``events``.

        While one call stores, the next one's signatures are checked and a third is parsed, in the order of the calls.
        """
        async with self._parsing:
            parsed = await self._parsed(events)
            sound, unsound, foreign = sorted_out(certificates, self._node.log.network)
        async with self._checking:
            bad = await self._bad([event for event in parsed if event is not None], sound)
        good = [event for event in parsed if event is not None and event.id not in bad]
        async with self._storing:
            taken = await _patiently(partial(self._store, good, sound, asked))
        waiting = sum(isinstance(refusal, NotYetKnown) for refusal in taken.refusals.values())
        fates = [
            Fate(b"", "bad") if event is None or event.id in bad else fate_of(event, taken.outcomes[event.id])
            for event in parsed
        ]
        return Intake(fates, unsound + len(taken.refusals) - waiting, waiting + foreign)

    async def _bad(self, events: Sequence[Event], certificates: Sequence[Certificate]) -> set[bytes]:
        """The ids of those whose signature is not their author's."""
        bad = await bad_signatures(events, certificates, self._node.log.network, self._checker.check)
        return {event.id for event in bad}

    async def _store(self, good: Sequence[Event], sound: Sequence[Certificate], asked: bool) -> Taken:
        if asked and len(self._asked) < asked_kept_max:
            self._asked.update(event.id for event in good)
        taken = await self._node.log.ingest(good, sound)
        version = self._node.log.store.version
        self._told_of, self._stirred = max(self._told_of, version), self._stirred or version < 0
        for event in good:
            if taken.outcomes[event.id] == Waiting("early"):
                self._early.set(event.created_at - clock_skew_tolerance_ms)
        return taken

    async def _parsed(self, wires: Sequence[Wire]) -> list[Event | None]:
        """The events; None where one is malformed. Others have their turn in between."""
        network_id = self._node.log.network.network_id
        parsed: list[Event | None] = []
        for number, wire in enumerate(wires, 1):
            try:
                parsed.append(parse(*wire, network_id))
            except Malformed:
                parsed.append(None)
            if number % parsed_at_once == 0:
                await trio.lowlevel.checkpoint()
        return parsed

    # -- what peers ask -------------------------------------------------------------------------------------------

    async def answer(self, question: Question) -> object:
        """The answer to a question, of the type that the question says."""
        return await _patiently(partial(self._answer, question))

    async def _answer(self, question: Question) -> object:
        database = self._node.database
        match question:
            case Lacking(ids):
                return await outlines.lacking(database, ids)
            case EventsOf(ids):
                return await outlines.wires_of(database, ids, answer_bytes_max)
            case Span(author, first, last, most):
                return await outlines.span(database, author, first, min(last, first + most - 1), answer_bytes_max)
            case CertificatesOf(ids):
                return await outlines.certificates_of(database, ids, certificate_bytes_max)
            case BundleOf(task, epoch):
                return await self._bundle(task, epoch)

    async def _bundle(self, task: bytes, epoch: int) -> bytes | None:
        """The bundle of a decision that is not contradicted."""
        try:
            record = await self._node.log.task(task)
        except Refused:
            return None
        found = [certificate for certificate in record.certificates if certificate.epoch == epoch]
        if len(found) != 1:
            return None
        ruling = await self._node.log.read(lambda txn: txn.membership_certificates())
        parsed = [parse_certificate(wire, self._node.log.network) for wire in ruling]
        memberships = [one for one in parsed if isinstance(one, MembershipCertificate)]
        return make_bundle(self._node.home.genesis, memberships, found[0])
