"""Which of the events and certificates that arrived become part of the set (docs/protocol.md §2, §3).

Takes events whose form and signature are good, in any order, and sorts them into chains: next in line,
duplicate, fork, orphan, early, stranger, void. What it learns on the way (a fork, a new membership version)
changes what else may enter, so it goes round until nothing moves. It folds nothing: ``sel.projector`` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from sel.rows import Chain, Duplicate, LogHead, NotAdmitted, Outcome, Parked, Void, Waiting
from sel.store import Txn
from wattswarm.kernel import chain, limits
from wattswarm.kernel.certificate import (
    Certificate,
    DecisionCertificate,
    ForkCertificate,
    MembershipCertificate,
    NotYetKnown,
    fork_counts,
    fork_id,
    parse_certificate,
    verify_certificate,
)
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.govern import MembershipUpdated
from wattswarm.kernel.refusal import Refused


class Admission:
    """The working set of one transaction: what enters, what leaves, which streams that touches."""

    def __init__(self, txn: Txn, network: Network, now_ms: int) -> None:
        self.txn = txn
        self.network = network
        self.now_ms = now_ms
        self.head: LogHead = txn.head.copy()
        self.chains: dict[bytes, Chain] = {}
        self.changed_chains: set[bytes] = set()
        self.stirred: set[bytes] = set()
        self.pending: dict[bytes, Event] = {}
        self.at: dict[tuple[bytes, int], bytes] = {}
        self.outcomes: dict[bytes, Outcome] = {}
        self.certificates: dict[bytes, Certificate] = {}
        self.voided: dict[bytes, bytes] = {}
        self.refold: set[bytes] = set()
        self.park: dict[bytes, Parked] = {}
        self.unpark: set[bytes] = set()
        self.held: dict[bytes, bool] = {}
        self.park_certificates: dict[bytes, Certificate] = {}
        self.unpark_certificates: set[bytes] = set()
        self.witnesses: dict[bytes, list[Event]] = defaultdict(list)
        self._past: list[Event] = []

    async def take(self, events: Sequence[Event], certificates: Sequence[Certificate]) -> dict[bytes, Refused]:
        """Sort everything that arrived, and what was parked for it, until nothing moves.

        Returns, by certificate id, why a certificate does not hold.
        """
        refusals: dict[bytes, Refused] = {}
        ids = [certificate.id for certificate in certificates]
        here = await self.txn.has_certificates(ids) if ids else set()
        self.held.update({certificate_id: certificate_id in here for certificate_id in ids})
        for certificate in certificates:
            refusal = await self.take_certificate(certificate)
            if refusal is not None:
                refusals[certificate.id] = refusal
        await self._load_chains({event.author for event in events})
        await self._place_all(in_line(events))
        await self._retry_parked(await self.txn.due_authors(self.now_ms) if self.head.parked else [])
        return refusals

    async def chain_of(self, author: bytes) -> Chain:
        """An author's chain as it stands in this transaction."""
        await self._load_chains({author})
        return self.chains[author]

    async def _place_all(self, events: Iterable[Event]) -> None:
        for event in events:
            await self._place(event)
        await self._settle_past()

    async def _load_chains(self, authors: set[bytes]) -> None:
        missing = authors - self.chains.keys()
        if not missing:
            return
        self.chains.update(await self.txn.chains(missing))
        for author in missing - self.chains.keys():
            self.chains[author] = Chain(chain.Head(), chain.first_void(None, self.network.until(author)))

    async def _place(self, event: Event) -> None:
        if event.id in self.pending:
            self.outcomes.setdefault(event.id, Duplicate())
            return
        if not self.network.knows_author(event.author):
            self._wait(event, Waiting("stranger"))
            return
        line = self.chains[event.author]
        if line.void_from is not None and line.voids(event.author_seq):
            await self._turn_away(event, line.void_from)
            return
        if event.created_at > self.now_ms + limits.clock_skew_tolerance_ms:
            self._wait(event, Waiting("early"), event.created_at - limits.clock_skew_tolerance_ms)
            return
        match chain.place(line.head, event, self.network.created_at, self.network.quotas):
            case chain.Next(head):
                await self._enter(event, line, head)
            case chain.Past():
                self._past.append(event)
            case chain.Gap(missing):
                self._wait(event, Waiting("orphan", missing))
            case chain.NotAdmitted(reason, message):
                self.outcomes[event.id] = NotAdmitted(reason, message)
                self._done_waiting(event)

    async def _turn_away(self, event: Event, void_from: int) -> None:
        """A void event is no part of the set, but what it carries may still prove something."""
        self.outcomes[event.id] = Void(void_from)
        self.witnesses[event.stream].append(event)
        self._done_waiting(event)
        if isinstance(event.payload, MembershipUpdated):
            await self.take_certificate(MembershipCertificate(event.payload))

    async def _enter(self, event: Event, line: Chain, head: chain.Head) -> None:
        line.head = head
        self._chain_moved(event.author)
        self.pending[event.id] = event
        self.at[event.author, event.author_seq] = event.id
        self.head.add_event(event)
        self.head.max_hlc = max(self.head.max_hlc, event.hlc)
        self._done_waiting(event)
        if isinstance(event.payload, MembershipUpdated):
            await self.take_certificate(MembershipCertificate(event.payload))

    def enter_own(self, event: Event, head: chain.Head) -> None:
        """An event this node just authored at its own head: no question of place."""
        line = self.chains[event.author]
        line.head = head
        self.changed_chains.add(event.author)
        self.pending[event.id] = event
        self.head.add_event(event)
        self.head.max_hlc = max(self.head.max_hlc, event.hlc)

    def withdraw_own(self, events: Sequence[Event], head: chain.Head) -> None:
        """Take back events just authored, newest of the chain, that the rules refuse."""
        for event in events:
            del self.pending[event.id]
            self.head.drop_event(event.id)
            self.chains[event.author].head = head

    def _chain_moved(self, author: bytes) -> None:
        """Note that a chain is to be written, and that what waits for it is to be placed again."""
        self.changed_chains.add(author)
        self.stirred.add(author)

    def _wait(self, event: Event, waiting: Waiting, due_ms: int = 0) -> None:
        self.outcomes[event.id] = waiting
        self.unpark.discard(event.id)
        self.park[event.id] = Parked(event, waiting.why, due_ms)

    def _done_waiting(self, event: Event) -> None:
        self.park.pop(event.id, None)
        if self.head.parked:
            self.unpark.add(event.id)

    async def _settle_past(self) -> None:
        """Events at places already taken: the same again, or a fork."""
        past, self._past = self._past, []
        unknown = [
            (event.author, event.author_seq) for event in past if (event.author, event.author_seq) not in self.at
        ]
        if unknown:
            self.at.update(await self.txn.ids_at(unknown))
        for event in past:
            void_from = self.chains[event.author].void_from
            if void_from is not None and void_from <= event.author_seq:
                await self._turn_away(event, void_from)
                continue
            taken = self.at[event.author, event.author_seq]
            if taken == event.id:
                self.outcomes.setdefault(event.id, Duplicate())
                self._done_waiting(event)
            else:
                other = self.pending.get(taken) or await self._logged(taken)
                await self.take_certificate(ForkCertificate.of(other, event))
                await self._turn_away(event, event.author_seq)

    async def _logged(self, event_id: bytes) -> Event:
        return (await self.txn.events([event_id]))[event_id]

    async def _retry_parked(self, due: Iterable[bytes]) -> None:
        """Place what waited for a chain that moved, for the clock, or for an author to become known, until all rest."""
        authors = self.stirred.union(due)
        while authors and (self.head.parked or self.park):
            self.stirred = set()
            await self._load_chains(authors)
            waiting = {
                parked.event.id: parked.event
                for parked in await self.txn.parked_of(authors)
                if parked.event.id not in self.unpark
            }
            waiting.update({key: entry.event for key, entry in self.park.items() if entry.event.author in authors})
            await self._place_all(sorted(waiting.values(), key=lambda event: event.author_seq))
            authors = self.stirred

    # -- certificates ---------------------------------------------------------------------------------------

    async def holds(self, certificate_id: bytes) -> bool:
        """Whether the set has this certificate."""
        if certificate_id not in self.held:
            self.held[certificate_id] = bool(await self.txn.has_certificates([certificate_id]))
        return self.held[certificate_id] or certificate_id in self.certificates

    async def take_certificate(self, certificate: Certificate) -> Refused | None:
        """Add a certificate to the set, with all that follows. Returns why not, if it does not hold.

        One that names a membership version or an author not known yet waits until it is. A fork where its author is
        void already changes nothing: it is not kept, nor even verified, for a forked key can sign forks without end.
        """
        if await self.holds(certificate.id):
            return None
        if isinstance(certificate, ForkCertificate):
            line = await self.chain_of(certificate.author)
            if line.voids(certificate.seq):
                return None
        try:
            verify_certificate(certificate, self.network)
        except NotYetKnown as refusal:
            self.park_certificates[certificate.wire()] = certificate
            return refusal
        except Refused as refusal:
            return refusal
        self.certificates[certificate.id] = certificate
        self.head.add_certificate(certificate.id)
        match certificate:
            case ForkCertificate():
                await self._void(certificate.author, certificate.seq, self.network.until(certificate.author))
            case MembershipCertificate():
                await self._new_membership(certificate)
            case DecisionCertificate():
                self.refold.add(certificate.stream)
        return None

    async def _new_membership(self, certificate: MembershipCertificate) -> None:
        self.network = self.network.with_version(certificate.update)
        version = self.network.versions[certificate.id]
        self.stirred.update(version.members, version.until)
        self.head.memberships += 1
        waiting = {wire: parse_certificate(wire, self.network) for wire in await self.txn.parked_certificates()}
        waiting.update(self.park_certificates)
        self.park_certificates = {}
        self.unpark_certificates.update(waiting)
        self.refold.add(self.network.network_id)
        self.refold.update(await self.txn.streams_pinning(certificate.id))
        for node, until in version.until.items():
            await self._void(node, until + 1, None)
        for parked in waiting.values():
            await self.take_certificate(parked)

    async def _void(self, author: bytes, first_seq: int, until: int | None) -> None:
        """Every event of ``author`` from ``first_seq`` on leaves the set, and the fork that voided less.

        ``until``: where the author's membership was known to end before.
        """
        await self._load_chains({author})
        line = self.chains[author]
        end = line.void_from
        if end is not None and end < first_seq:
            return
        if end is not None and fork_counts(end, end, until):
            await self._retire_fork(author, end)
        if end == first_seq:
            return
        line.void_from = first_seq
        self._chain_moved(author)
        for event in [event for event in self.pending.values() if event.author == author]:
            if event.author_seq >= first_seq:
                del self.pending[event.id]
                self.at.pop((author, event.author_seq), None)
                self.head.drop_event(event.id)
                self.outcomes[event.id] = Void(first_seq)
                self.witnesses[event.stream].append(event)
        if line.head.seq >= first_seq:
            await self._leave(author, first_seq, end)

    async def _retire_fork(self, author: bytes, seq: int) -> None:
        """The fork at ``seq``, if that is what voided the author so far, counts no more."""
        certificate_id = fork_id(author, seq)
        if await self.holds(certificate_id):
            self.head.drop_certificate(certificate_id)
            self.certificates.pop(certificate_id, None)

    async def _leave(self, author: bytes, first_seq: int, end: int | None) -> None:
        """Uncount logged events of seqs ``first_seq`` to before ``end``; set the chain's head back below them."""
        for event_id, stream in await self.txn.ids_between(author, first_seq, end):
            self.voided[event_id] = stream
            self.head.drop_event(event_id)
            self.refold.add(stream)
        line = self.chains[author]
        line.head = chain.Head()
        if first_seq > 0:
            place = (author, first_seq - 1)
            event_id = self.at.get(place) or (await self.txn.ids_at([place]))[place]
            line.head = chain.head_at(self.pending.get(event_id) or await self._logged(event_id))


def in_line(events: Sequence[Event]) -> Iterator[Event]:
    """The events with those of each author in the order of its chain, at the places that it has among the others."""
    lines: dict[bytes, list[Event]] = defaultdict(list)
    for event in events:
        lines[event.author].append(event)
    ordered = {author: iter(sorted(line, key=lambda event: event.author_seq)) for author, line in lines.items()}
    return (next(ordered[event.author]) for event in events)


def stored_certificates(wires: Iterable[bytes], network: Network) -> list[Certificate]:
    """Certificates as the store gave them back: verified when they were stored."""
    return [parse_certificate(wire, network) for wire in wires]
