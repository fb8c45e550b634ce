"""The runtime contract: the JSON that a node and an executor exchange (docs/protocol.md §5, §8).

Requests are ours. Answers are a stranger's: types and bounds are checked here, once, so that whatever passes may go
into an event; fields that are not known are ignored, because runtimes in the field add their own. Whether an output
satisfies the task's schema is not asked here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct, field

from wattswarm.kernel import limits
from wattswarm.kernel.payloads import work
from wattswarm.kernel.payloads.fields import Payload, ReasonCode, SomeText, Text
from wattswarm.kernel.policy import PolicyBinding

VerificationStatus = Literal["passed", "failed", "inconclusive"]


class Health(Struct, frozen=True):
    """GET /health."""

    status: str


class Capabilities(Struct, frozen=True):
    """GET /capabilities: what an executor may be asked for. Nothing else is ever sent to it."""

    task_types: list[str]
    profiles: list[str]
    provider_family: str
    model_id: str
    stages: list[str] = field(default_factory=list)

    def supports(self, task_type: str, profile: str) -> bool:
        """Whether both were advertised."""
        return task_type in self.task_types and profile in self.profiles


class ExecuteRequest(Struct, frozen=True):
    """POST /execute. ``task_contract``, ``inputs`` and ``seed_bundle``: JSON values, or ``msgspec.Raw`` of them.

    ``stage`` is ``explore`` for proposers; ``attempt_id`` is the same over HTTP retries of one attempt.
    """

    task_id: str
    execution_id: str
    task_type: str
    inputs: Any
    profile: str
    task_contract: Any
    stage: str
    attempt_id: str
    seed_bundle: Any = None


class GivenInline(work.EvidenceInline, frozen=True, forbid_unknown_fields=False):
    """Inline evidence as a runtime gives it: perhaps with fields that an event may not carry."""


class GivenRef(work.EvidenceRef, frozen=True, forbid_unknown_fields=False):
    """An evidence ref as a runtime gives it: perhaps with fields that an event may not carry."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.size_bytes, self.created_at) > limits.counter_max:
            raise ValueError("size_bytes, created_at: expected integers of at most 64 bits")


class ExecuteResponse(Struct, frozen=True):
    """What /execute answers. ``candidate_output`` is any JSON: the task's schema judges it, not this."""

    candidate_output: Any
    evidence_inline: list[GivenInline] = field(default_factory=list)
    evidence_refs: Annotated[list[GivenRef], Meta(max_length=limits.evidence_refs_max)] = field(default_factory=list)

    def candidate(self, candidate_id: str, execution_id: str) -> work.Candidate:
        """The candidate that this answer proposes, as an event carries it."""
        return work.Candidate(
            candidate_id,
            execution_id,
            self.candidate_output,
            [work.EvidenceInline(given.mime, given.content) for given in self.evidence_inline],
            msgspec.convert(self.evidence_refs, list[work.EvidenceRef], from_attributes=True),
        )


class CandidateToVerify(Struct, frozen=True):
    """A candidate as /verify gets it. ``output_ref`` is for executors that insist on one; it is in no hash."""

    candidate_id: str
    execution_id: str
    output: Any
    evidence_inline: list[GivenInline] = field(default_factory=list)
    evidence_refs: list[GivenRef] = field(default_factory=list)
    output_ref: GivenRef | None = None


class VerifyRequest(Struct, frozen=True):
    """POST /verify. ``output_schema``: a JSON value, or ``msgspec.Raw`` of it."""

    candidate: CandidateToVerify
    output_schema: Any
    policy: PolicyBinding


class VerifyResponse(Payload, frozen=True, forbid_unknown_fields=False):
    """What /verify answers. ``score`` in [0, 1]; ``verifier_result_hash`` is opaque text."""

    text_bytes_max: ClassVar[dict[str, int]] = dict.fromkeys(
        ("verifier_result_hash", "provider_family", "model_id"), limits.text_bytes_max
    )

    passed: bool
    score: Annotated[float, Meta(ge=0, le=1)]
    reason_codes: Annotated[list[ReasonCode], Meta(min_length=1, max_length=limits.reason_codes_max)]
    verifier_result_hash: SomeText
    provider_family: Text
    model_id: Text
    verification_status: VerificationStatus | None = None


def to_json(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)
