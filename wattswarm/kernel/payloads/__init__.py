"""The registry of event kinds (docs/protocol.md §5): name -> payload type, stream, and who may author it.

The only place that lists kinds. ``roles`` are those of the author in the membership version that the task or
the payload pins, any one of which is enough; empty means that somebody else's signature decides, or that a
rule of the fold decides (claims: by the claimed role; stop, suspend, kill: finalizer or creator).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from wattswarm.kernel.payloads import course, govern, judge, work
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.refusal import Malformed


@dataclass(frozen=True, slots=True)
class Kind:
    """One event kind. ``governs`` is true for the kinds of the governance stream (no task, epoch 0)."""

    name: str
    payload: type[Payload]
    roles: frozenset[str]
    governs: bool


def _kind(name: str, payload: type[Payload], *roles: str, governs: bool = False) -> Kind:
    return Kind(name, payload, frozenset(roles), governs)


kinds: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("TASK_CREATED", work.TaskCreated, "proposer"),
        _kind("TASK_CLAIMED", work.TaskClaimed),
        _kind("TASK_CLAIM_RENEWED", work.TaskClaimRenewed),
        _kind("TASK_CLAIM_RELEASED", work.TaskClaimReleased),
        _kind("CANDIDATE_PROPOSED", work.CandidateProposed, "proposer"),
        _kind("EVIDENCE_ADDED", work.EvidenceAdded, "proposer"),
        _kind("EVIDENCE_AVAILABLE", work.EvidenceAvailable, "verifier"),
        _kind("VERIFIER_RESULT_SUBMITTED", judge.VerifierResultSubmitted, "verifier"),
        _kind("VOTE_COMMIT", judge.VoteCommit, "verifier"),
        _kind("VOTE_REVEAL", judge.VoteReveal, "verifier"),
        _kind("DECISION_COMMITTED", judge.DecisionCommitted, "finalizer"),
        _kind("FINALITY_VOTE", judge.FinalityVote, "finalizer"),
        _kind("DECISION_FINALIZED", judge.DecisionFinalized),
        _kind("TASK_ERROR", course.TaskError, "proposer", "verifier", "committer"),
        _kind("TASK_RETRY_SCHEDULED", course.TaskRetryScheduled, "committer"),
        _kind("TASK_EXPIRED", course.TaskExpired),
        _kind("EPOCH_ENDED", course.EpochEnded, "finalizer"),
        _kind("TASK_STOPPED", course.TaskStopped),
        _kind("TASK_SUSPENDED", course.TaskSuspended),
        _kind("TASK_KILLED", course.TaskKilled),
        _kind("TASK_FEEDBACK_REPORTED", course.TaskFeedbackReported),
        _kind("REUSE_REJECT_RECORDED", course.ReuseRejectRecorded, "committer"),
        _kind("CHECKPOINT_CREATED", govern.CheckpointCreated, "committer", governs=True),
        _kind("MEMBERSHIP_PROPOSED", govern.MembershipProposed, "finalizer", governs=True),
        _kind("MEMBERSHIP_SIGNED", govern.MembershipSigned, "finalizer", governs=True),
        _kind("MEMBERSHIP_UPDATED", govern.MembershipUpdated, governs=True),
        _kind("ADVISORY_CREATED", govern.AdvisoryCreated, "committer", governs=True),
        _kind("ADVISORY_APPROVED", govern.AdvisoryApproved, "finalizer", governs=True),
        _kind("ADVISORY_APPLIED", govern.AdvisoryApplied, "committer", governs=True),
        _kind("POLICY_TUNED", govern.PolicyTuned, "finalizer", governs=True),
    )
}

kind_names: dict[type[Payload], str] = {kind.payload: kind.name for kind in kinds.values()}


def parse_payload(kind: Kind, value: Any) -> Payload:
    """The typed payload of a decoded CBOR map. Raises ``Malformed`` that names the field."""
    try:
        return msgspec.convert(value, kind.payload, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Malformed("payload_form", f"{kind.name} payload: {error}") from None


def plain(payload: Payload) -> dict[str, Any]:
    """The CBOR map of a typed payload; absent optional fields are left out."""
    value: dict[str, Any] = msgspec.to_builtins(payload, builtin_types=(bytes,))
    for name in _optional_fields(type(payload)):
        if value[name] is None:
            del value[name]
    return value


@cache
def _optional_fields(kind: type[Payload]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind) if not field.required)
