"""Certificates: what proves itself, whoever carries it. Decisions, membership versions, forks.

Each holds all that its proof needs but the membership version that it names, which the reader knows or waits for
(``NotYetKnown``). Its id is the hash of what it says, not of how it proves it, so two proofs of one thing are one
certificate. Judges no lease, vote or void: a certificate stands above the fold. Keeps docs/protocol.md §3 and §7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from wattswarm.kernel import codec, finality, limits
from wattswarm.kernel.event import Event, parse_wire, signature_holds
from wattswarm.kernel.identity import signature_bytes
from wattswarm.kernel.membership import Network, NotYetKnown, check_update, version_hash
from wattswarm.kernel.payloads import plain
from wattswarm.kernel.payloads.govern import MembershipUpdated
from wattswarm.kernel.payloads.judge import FinalityProof
from wattswarm.kernel.payloads.work import CandidateProposed, TaskCreated
from wattswarm.kernel.refusal import Malformed, Refused, Unsupported
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.pins import contract_of

__all__ = [
    "Certificate",
    "DecisionCertificate",
    "ForkCertificate",
    "MembershipCertificate",
    "NotYetKnown",
    "parse_certificate",
    "signatures_in",
    "verify_certificate",
]


@dataclass(frozen=True)
class DecisionCertificate:
    """A task's creation, a candidate for it, and the finalizers' proof for that candidate in that epoch."""

    kind: ClassVar = "decision"
    creation: Event
    candidate: Event
    epoch: int
    proof: FinalityProof

    @cached_property
    def candidate_hash(self) -> bytes:
        """The hash that the candidate is known by."""
        assert isinstance(self.candidate.payload, CandidateProposed), "only a proposed candidate is decided"
        return candidate_hash(self.candidate.author, self.candidate.payload.candidate)

    @cached_property
    def statement(self) -> bytes:
        """What the finalizers signed."""
        return finality.statement(
            self.creation.network_id, self.proof.membership, self.creation.id, self.epoch, self.candidate_hash
        )

    @cached_property
    def id(self) -> bytes:
        """The final commit hash: SHA-256 of the statement."""
        return finality.final_commit_hash(self.statement)

    @property
    def stream(self) -> bytes:
        """The task."""
        return self.creation.id

    def wire(self) -> bytes:
        """Canonical CBOR ["decision", creation, candidate, epoch, proof]; events as [body, signature]."""
        return codec.encode_sorting([self.kind, self.creation.wire, self.candidate.wire, self.epoch, plain(self.proof)])


@dataclass(frozen=True)
class MembershipCertificate:
    """A membership version with the commit signatures that made it one."""

    kind: ClassVar = "membership"
    update: MembershipUpdated

    @cached_property
    def id(self) -> bytes:
        """The version's hash."""
        return version_hash(self.update.version)

    @property
    def stream(self) -> bytes:
        """The governance stream: the network id."""
        return self.update.version.network_id

    def wire(self) -> bytes:
        """Canonical CBOR ["membership", update]."""
        return codec.encode_sorting([self.kind, plain(self.update)])


@dataclass(frozen=True)
class ForkCertificate:
    """Two events of one author at one seq. Made by ``of``, which puts the lesser id first."""

    kind: ClassVar = "fork"
    first: Event
    second: Event

    @staticmethod
    def of(one: Event, other: Event) -> ForkCertificate:
        """The certificate that two events make, in either order."""
        return ForkCertificate(one, other) if one.id < other.id else ForkCertificate(other, one)

    @property
    def author(self) -> bytes:
        """Who forked."""
        return self.first.author

    @property
    def seq(self) -> int:
        """Where: from here on the author's events are void."""
        return self.first.author_seq

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of canonical CBOR [author, seq]."""
        return fork_id(self.author, self.seq)

    @property
    def stream(self) -> None:
        """None: it is about an author, not about a stream."""
        return None

    def wire(self) -> bytes:
        """Canonical CBOR ["fork", event, event]; events as [body, signature]."""
        return codec.encode([self.kind, self.first.wire, self.second.wire])


Certificate = DecisionCertificate | MembershipCertificate | ForkCertificate
_signature_head = codec.encode(bytes(signature_bytes))[:-signature_bytes]


def fork_id(author: bytes, seq: int) -> bytes:
    """The id of the certificate that ``author`` forked at ``seq``, whichever two events show it."""
    return codec.sha256(codec.encode([author, seq]))


def fork_counts(seq: int, least: int, until: int | None) -> bool:
    """Whether a fork at ``seq`` is the one that voids: its author's least, and before the end of its membership."""
    return seq == least and (until is None or seq <= until)


def signatures_in(wire: bytes) -> int:
    """How many signatures a certificate holds, told without decoding it: each is a byte string of 64 bytes.

    What only looks like one makes it more, never less.
    """
    return wire.count(_signature_head)


# -- form ----------------------------------------------------------------------------------------------------------

_Epoch = Annotated[int, Meta(ge=1, le=limits.counter_max)]


def parse_certificate(data: bytes, network: Network) -> Certificate:
    """The certificate of received bytes: all form checks made, no signature yet. Raises ``Malformed``.

    Raises ``Unsupported`` for a decision of another protocol version: whoever sent it may know better.
    """
    if len(data) > limits.certificate_bytes_max:
        raise Malformed("too_large", f"certificate of {len(data)} bytes, at most {limits.certificate_bytes_max}")
    match codec.decode(data):
        case ["decision", creation, candidate, epoch, proof]:
            return _parse_decision(creation, candidate, epoch, proof, network)
        case ["membership", update]:
            return MembershipCertificate(_typed(update, MembershipUpdated))
        case ["fork", first, second]:
            return _parse_fork(first, second, network)
    raise Malformed("certificate_form", "certificate: expected a decision, membership or fork certificate")


def _typed(value: Any, wanted: Any) -> Any:
    try:
        return msgspec.convert(value, wanted, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Malformed("certificate_form", f"certificate: {error}") from None


def _parse_decision(creation: Any, candidate: Any, epoch: Any, proof: Any, network: Network) -> DecisionCertificate:
    created = parse_wire(creation, network.network_id)
    proposed = parse_wire(candidate, network.network_id)
    for event, kind in ((created, "TASK_CREATED"), (proposed, "CANDIDATE_PROPOSED")):
        if event.kind != kind:
            raise Malformed("certificate_form", f"decision certificate: found {event.kind}, expected {kind}")
        if event.payload is None:
            raise Unsupported(
                "unsupported",
                f"decision certificate: its {kind} is of protocol version {event.protocol_version}, which this program "
                "does not know",
            )
    return DecisionCertificate(created, proposed, _typed(epoch, _Epoch), _typed(proof, FinalityProof))


def _parse_fork(first: Any, second: Any, network: Network) -> ForkCertificate:
    fork = ForkCertificate(parse_wire(first, network.network_id), parse_wire(second, network.network_id))
    if (fork.first.author, fork.first.author_seq) != (fork.second.author, fork.second.author_seq):
        raise Malformed("certificate_form", "fork certificate: expected two events of one author at one seq")
    if not fork.first.id < fork.second.id:
        raise Malformed("certificate_form", "fork certificate: expected two different events, the lesser id first")
    return fork


# -- proof ---------------------------------------------------------------------------------------------------------


def verify_certificate(certificate: Certificate, network: Network) -> None:
    """Whether the certificate proves what it says. Raises ``Refused``.

    Raises ``NotYetKnown`` while the membership version or the author that it names is not known.
    """
    events: tuple[Event, ...] = ()
    match certificate:
        case DecisionCertificate():
            _verify_decision(certificate, network)
            events = (certificate.creation, certificate.candidate)
        case MembershipCertificate():
            check_update(certificate.update, network)
        case ForkCertificate():
            _verify_fork(certificate, network)
            events = (certificate.first, certificate.second)
    for event in events:
        if not signature_holds(event):
            raise Refused("bad_signature", f"the signature of {event.kind} {event.id.hex()[:16]}… is not its author's")


def _verify_decision(certificate: DecisionCertificate, network: Network) -> None:
    creation, candidate = certificate.creation, certificate.candidate
    if not isinstance(creation.payload, TaskCreated):
        raise Unsupported("unsupported", "decision certificate: the task is of another protocol version")
    if candidate.task != creation.id:
        raise Refused("other_task", "decision certificate: the candidate is about another task")
    if candidate.epoch != certificate.epoch:
        raise Refused(
            "other_epoch",
            f"decision certificate: the candidate is of epoch {candidate.epoch}, expected {certificate.epoch}",
        )
    membership = network.version(creation.payload.membership)
    finality.check_proof(certificate.proof, membership, certificate.statement)
    contract_of(creation)


def _verify_fork(certificate: ForkCertificate, network: Network) -> None:
    if not network.knows_author(certificate.author):
        raise NotYetKnown(
            "author_unknown",
            f"fork certificate: {certificate.author.hex()[:16]}… is a member of no version known here (yet)",
            certificate.author,
        )
