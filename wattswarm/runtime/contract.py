"""The runtime contract: requests and responses between a node and an executor (docs/protocol.md, interfaces).

JSON by RFC 8259. Responses are read strictly where a value is used and forgivingly elsewhere: unknown fields are
ignored, because runtimes in the field add their own.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from wattswarm.kernel.payloads.work import EvidenceInline, EvidenceRef

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
    """POST /execute. ``attempt_id`` is the same over HTTP retries of one attempt."""

    task_id: str
    execution_id: str
    task_type: str
    inputs: Any
    profile: str
    task_contract: Any
    stage: str
    attempt_id: str
    seed_bundle: Any = None


class ExecuteResponse(Struct, frozen=True):
    """What /execute answers."""

    candidate_output: Any
    evidence_inline: list[EvidenceInline] = field(default_factory=list)
    evidence_refs: list[EvidenceRef] = field(default_factory=list)


class VerifyRequest(Struct, frozen=True):
    """POST /verify. ``candidate`` is the candidate's JSON with an ``output_ref`` for executors that insist."""

    candidate: Any
    output_schema: Any
    policy: Any


class VerifyResponse(Struct, frozen=True):
    """What /verify answers. ``score`` in [0, 1]; ``verifier_result_hash`` is opaque text."""

    passed: bool
    score: float
    reason_codes: list[int]
    verifier_result_hash: str
    provider_family: str
    model_id: str
    verification_status: VerificationStatus | None = None


def to_json(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)
