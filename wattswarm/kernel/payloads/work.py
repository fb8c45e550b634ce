"""Payloads of the work on a task: creation, claims, candidates and their evidence (docs/protocol.md §5)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from wattswarm.kernel import limits
from wattswarm.kernel.payloads.fields import ClaimRole, Digest, Hash, Label, Payload, SomeText, Text, Uint

text = limits.text_bytes_max


class TaskCreated(Payload, frozen=True):
    """A task begins. ``contract`` is read by ``kernel.contract``; a bad one is a refused event, not bad form."""

    contract: dict[str, Any]
    membership: Hash


class TaskClaimed(Payload, frozen=True):
    """A lease on the right to propose or verify until ``lease_until`` (unix ms)."""

    role: ClaimRole
    execution_id: Label
    lease_until: Uint


class TaskClaimRenewed(Payload, frozen=True):
    """The same lease, longer."""

    role: ClaimRole
    execution_id: Label
    lease_until: Uint


class TaskClaimReleased(Payload, frozen=True):
    """The lease ends now."""

    role: ClaimRole
    execution_id: Label


class EvidenceInline(Payload, frozen=True):
    """Evidence carried in the event itself; ``content`` is text of type ``mime``."""

    text_bytes_max: ClassVar[dict[str, int]] = {"mime": text}

    mime: SomeText
    content: Annotated[str, Meta(max_length=limits.event_bytes_max)]


class EvidenceRef(Payload, frozen=True):
    """An artifact that lies elsewhere. Any size; ``digest`` is what finality gates on. ``created_at`` in unix ms."""

    text_bytes_max: ClassVar[dict[str, int]] = {"uri": text, "digest": text, "mime": text, "producer": text}

    uri: SomeText
    digest: Digest
    size_bytes: Uint
    mime: Text
    created_at: Uint
    producer: Text


EvidenceRefs = Annotated[list[EvidenceRef], Meta(max_length=limits.evidence_refs_max)]
SomeEvidenceRefs = Annotated[list[EvidenceRef], Meta(min_length=1, max_length=limits.evidence_refs_max)]


class Candidate(Payload, frozen=True):
    """A proposed answer. ``output`` is any CBOR value; the contract's output_schema judges it."""

    candidate_id: Label
    execution_id: Label
    output: Any
    evidence_inline: list[EvidenceInline]
    evidence_refs: EvidenceRefs


class CandidateProposed(Payload, frozen=True):
    """A proposer offers a candidate under its lease."""

    candidate: Candidate


class EvidenceAdded(Payload, frozen=True):
    """The proposer names further artifacts for its own candidate."""

    candidate_id: Label
    execution_id: Label
    evidence_refs: SomeEvidenceRefs


class EvidenceAvailable(Payload, frozen=True):
    """A verifier attests that it could read the artifact."""

    text_bytes_max: ClassVar[dict[str, int]] = {"evidence_digest": text}

    candidate_id: Label
    execution_id: Label
    evidence_digest: Digest
