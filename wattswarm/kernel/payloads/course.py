"""Payloads that steer a task's course: errors, retries, ends, feedback, rejected reuse (docs/protocol.md §5)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from wattswarm.kernel import limits
from wattswarm.kernel.payloads.fields import (
    Count,
    Hash,
    Label,
    LongText,
    Payload,
    ReasonCodes,
    Signature,
    Text,
    Uint,
)

text = limits.text_bytes_max
reason_bytes_max = limits.reason_text_bytes_max
Message = Annotated[str, Meta(max_length=limits.error_message_bytes_max)]


class TaskError(Payload, frozen=True):
    """A record that an attempt failed. Code 999 needs the custom namespace and code."""

    text_bytes_max: ClassVar[dict[str, int]] = {
        "message": limits.error_message_bytes_max,
        "custom_reason_namespace": text,
        "custom_reason_code": text,
        "custom_reason_message": limits.error_message_bytes_max,
    }

    execution_id: Label
    reason: Literal["TIMEOUT", "INVALID_OUTPUT", "OTHER"]
    reason_codes: ReasonCodes
    message: Message
    custom_reason_namespace: Text | None = None
    custom_reason_code: Text | None = None
    custom_reason_message: Message | None = None


class TaskRetryScheduled(Payload, frozen=True):
    """A committer's call for round ``attempt``, to be worked on from ``run_at`` (unix ms)."""

    attempt: Count
    run_at: Uint


class TaskExpired(Payload, frozen=True):
    """The contract's ``expiry_ms`` has passed."""


class EpochEnded(Payload, frozen=True):
    """A CONTINUOUS task's epoch is over."""

    reason: Literal["BUDGET_EXHAUSTED", "TIMEBOX_REACHED", "FINALIZED"]


class TaskStopped(Payload, frozen=True):
    """Stop: no more work is wanted."""

    text_bytes_max: ClassVar[dict[str, int]] = {"reason": reason_bytes_max}

    reason: LongText


class TaskSuspended(Payload, frozen=True):
    """Suspend: nothing is accepted until somebody creates the task anew, or it expires."""

    text_bytes_max: ClassVar[dict[str, int]] = {"reason": reason_bytes_max}

    reason: LongText


class TaskKilled(Payload, frozen=True):
    """Kill: the task was harmful or mistaken."""

    text_bytes_max: ClassVar[dict[str, int]] = {"reason": reason_bytes_max}

    reason: LongText


class TaskFeedbackReported(Payload, frozen=True):
    """The authority's signed word on a finalized decision. ``timestamp`` in unix ms."""

    text_bytes_max: ClassVar[dict[str, int]] = {
        "outcome": text,
        "reason": reason_bytes_max,
        "signed_by": text,
    }

    outcome: Text
    reason: LongText
    signed_by: Text
    signature: Signature
    timestamp: Uint


class DecisionRef(Payload, frozen=True):
    """A finalized decision of another task, by label and by the hash that binds it."""

    task_id: Label
    epoch: Count
    final_commit_hash: Hash


class ReuseRejectRecorded(Payload, frozen=True):
    """A quorum rejected a candidate made from a reused decision; ``reject_quorum_proof``: event ids of reveals."""

    decision_ref: DecisionRef
    candidate_hash: Hash
    reject_quorum_proof: Annotated[list[Hash], Meta(max_length=limits.members_max)]
    reason_codes: ReasonCodes
