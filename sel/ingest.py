"""One transaction of intake, over any store (docs/architecture.md §3): admit, project, write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sel.admission import Admission, stored_certificates
from sel.projector import PinsCache, Projector
from sel.rows import Changes, Outcome, SignatureRow, Stored, VoteRow
from sel.store import Txn
from wattswarm.kernel.certificate import Certificate, MembershipCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.govern import MembershipSigned
from wattswarm.kernel.payloads.judge import FinalityVote
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.rounds import Stored as StoredSignature


@dataclass(slots=True)
class Knowledge:
    """What a log keeps in memory between transactions: the membership chain it knows, and pinned tasks."""

    network: Network
    pins: PinsCache = field(default_factory=PinsCache)

    async def refresh(self, txn: Txn) -> Network:
        """The network with every membership version in the store (another process may have added some)."""
        if txn.head.memberships != len(self.network.versions) - 1:
            network = Network.of(self.network.genesis)
            for certificate in stored_certificates(await txn.membership_certificates(), network):
                assert isinstance(certificate, MembershipCertificate)
                network = network.with_version(certificate.update)
            self.network = network
        return self.network


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch: per event id its outcome, per certificate id why it does not hold (if it does not)."""

    outcomes: dict[bytes, Outcome]
    refusals: dict[bytes, Refused]
    stored: int
    certificates: int


async def take_in(
    txn: Txn,
    knowledge: Knowledge,
    events: Sequence[Event],
    certificates: Sequence[Certificate],
    now_ms: int,
    me: bytes | None = None,
) -> Taken:
    """Take events and certificates from elsewhere into the log. Signatures of the events were checked before.

    ``me``: this node. What it signed itself, and lost, binds it again when it comes back.
    """
    admission = Admission(txn, await knowledge.refresh(txn), now_ms)
    refusals = await admission.take(events, certificates)
    projector = Projector(admission, knowledge.pins)
    await projector.project()
    outcomes = dict(admission.outcomes)
    for entered in admission.pending.values():
        outcomes[entered.id] = Stored(projector.folds[entered.stream].verdicts[entered.id])
    changes = changes_of(admission, projector)
    await _bind(txn, changes, [event for event in changes.events if event.author == me])
    await txn.write(changes)
    knowledge.network = admission.network
    return Taken(outcomes, refusals, len(admission.pending), len(admission.certificates))


async def _bind(txn: Txn, changes: Changes, own: Iterable[Event]) -> None:
    """Keep the votes and signatures that this node's own events give, unless they are kept already."""
    for event in own:
        for vote in vote_of(event):
            kept = {(row.task, row.epoch) for row in changes.votes}
            if (vote.task, vote.epoch) not in kept and await txn.vote_on(vote.task, vote.epoch) is None:
                changes.votes.append(vote)
        for row in signature_of(event):
            known = await txn.membership_signatures(row.previous)
            known += [given.signed for given in changes.signatures if given.previous == row.previous]
            if (row.signed.phase, row.signed.round) not in {(one.phase, one.round) for one in known}:
                changes.signatures.append(row)


def vote_of(said: Event) -> list[VoteRow]:
    """The finality vote that an event of this node's casts, if it does."""
    if not isinstance(said.payload, FinalityVote):
        return []
    assert said.task is not None
    return [VoteRow(said.task, said.epoch, said.payload.candidate_hash, said.id)]


def signature_of(said: Event) -> list[SignatureRow]:
    """The signature about a membership version that an event of this node's gives, if it does."""
    match said.payload:
        case MembershipSigned(phase, previous, round_, membership_hash, signature):
            return [SignatureRow(previous, StoredSignature(phase, round_, membership_hash, signature), said.id)]
    return []


def changes_of(admission: Admission, projector: Projector) -> Changes:
    """All that the transaction writes."""
    rows = projector.changed_rows()
    head = admission.head
    events = list(admission.pending.values())
    head.max_hlc = max([admission.txn.head.max_hlc, *(event.hlc for event in events)])
    return Changes(
        events=events,
        certificates=list(admission.certificates.values()),
        chains={author: admission.chains[author] for author in admission.changed_chains},
        streams=rows,
        refolded={name for name in projector.refolded if projector.rows[name].last is not None},
        verdicts=projector.changed_verdicts(),
        park=list(admission.park.values()),
        unpark=list(admission.unpark),
        park_certificates=list(admission.park_certificates),
        unpark_certificates=list(admission.unpark_certificates),
        head=head,
    )
