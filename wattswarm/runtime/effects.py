"""What an executor's answers become: a candidate, a verifier result, or the TASK_ERROR that records a failure.

The mapping of the runtime contract to the protocol. An answer is never trusted: an output that the task's schema
does not accept becomes no candidate, a ``passed`` that this node's own evaluation of the policy contradicts is
submitted as failed, and whatever else is wrong ends in an error that says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from wattswarm.kernel import codec, limits
from wattswarm.kernel.contract import TaskContract
from wattswarm.kernel.media import inline_problems, smuggled_media_in
from wattswarm.kernel.payloads.course import TaskError
from wattswarm.kernel.payloads.judge import VerifierResult
from wattswarm.kernel.payloads.work import Candidate
from wattswarm.kernel.policy import PolicyVerdict, code_allowed, evaluate, known
from wattswarm.kernel.reasons import Reason, evidence_codes, inconclusive_codes
from wattswarm.kernel.refusal import Malformed
from wattswarm.runtime.contract import (
    CandidateToVerify,
    ExecuteRequest,
    ExecuteResponse,
    GivenInline,
    GivenRef,
    VerifyRequest,
    VerifyResponse,
)
from wattswarm.runtime.failure import RuntimeFailure

ErrorReason = Literal["TIMEOUT", "INVALID_OUTPUT", "OTHER"]
message_chars_max = 1_000


class Executor(Protocol):
    """Who executes and verifies: an HTTP client, or a stand-in in a simulation. Raises ``RuntimeFailure``."""

    async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse: ...
    async def verify(self, request: VerifyRequest, deadline_ms: int) -> VerifyResponse: ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verifier's result. ``attest``: the executor concluded, so each evidence digest is attested."""

    result: VerifierResult
    attest: bool


def task_error(execution_id: str, reason: ErrorReason, code: Reason, message: str) -> TaskError:
    """The record of a failed attempt."""
    return TaskError(execution_id, reason, [int(code)], message[:message_chars_max])


async def propose(
    executor: Executor, request: ExecuteRequest, contract: TaskContract, candidate_id: str, deadline_ms: int
) -> Candidate | TaskError:
    """POST /execute: a candidate that this node may author, or why there is none."""
    execution_id = request.execution_id
    try:
        answer = await executor.execute(request, deadline_ms)
        candidate = answer.candidate(candidate_id, execution_id)
    except RuntimeFailure as failure:
        if failure.kind == "timeout":
            return task_error(execution_id, "TIMEOUT", Reason.TASK_TIMEOUT, failure.message)
        return task_error(execution_id, "OTHER", Reason.RUNTIME_CRASH, failure.message)
    fault = candidate_fault(candidate, contract)
    return task_error(execution_id, "INVALID_OUTPUT", Reason.INVALID_OUTPUT, fault) if fault else candidate


def candidate_fault(candidate: Candidate, contract: TaskContract) -> str:
    """Why this node does not author (or pass) a candidate; empty if nothing is wrong with it."""
    output = candidate.output
    try:
        size = len(codec.encode_checked(output))
    except Malformed as refusal:
        return f"the output cannot be carried: {refusal}"
    if size > limits.structured_summary_bytes_max:
        return f"the output has {size} bytes, at most {limits.structured_summary_bytes_max} are allowed"
    if not contract.schema.is_valid(output):
        problems = "; ".join(map(str, contract.schema.errors(output)))
        return f"the output does not validate against the contract's output_schema: {problems}"
    terms = contract.evidence_policy
    inline = [(item.mime, item.content) for item in candidate.evidence_inline]
    problems_inline = inline_problems(inline, terms.inline_mime_allowlist, terms.max_inline_evidence_bytes)
    if problems_inline:
        return "inline evidence: " + "; ".join(map(str, problems_inline))
    media = smuggled_media_in(output) or smuggled_media_in([content for _, content in inline])
    return f"{media} data is hidden in it as base64" if media else ""


def verify_request(contract: TaskContract, candidate: Candidate, created_at: int, producer: str) -> VerifyRequest:
    """POST /verify's body. The ``output_ref`` names the output itself; it is in no hash."""
    output = msgspec.json.encode(candidate.output)
    digest = f"sha256:{codec.sha256(output).hex()}"
    ref = GivenRef(f"urn:wattswarm:{digest}", digest, len(output), "application/json", created_at, producer)
    return VerifyRequest(
        CandidateToVerify(
            candidate.candidate_id,
            candidate.execution_id,
            candidate.output,
            [GivenInline(item.mime, item.content) for item in candidate.evidence_inline],
            msgspec.convert(candidate.evidence_refs, list[GivenRef], from_attributes=True),
            ref,
        ),
        contract.output_schema,
        contract.acceptance.verifier_policy,
    )


async def judge(
    executor: Executor,
    request: VerifyRequest,
    contract: TaskContract,
    candidate: Candidate,
    execution_id: str,
    named: tuple[str, str],
    deadline_ms: int,
) -> Judgement | TaskError:
    """POST /verify: this node's result, or the error that ends its lease.

    ``named``: the executor's (provider_family, model_id), for results that it could not give itself.
    """
    own = evaluate(contract.acceptance.verifier_policy, contract.schema, candidate.output)
    try:
        answer = await executor.verify(request, deadline_ms)
    except RuntimeFailure as failure:
        code = {"timeout": Reason.EVIDENCE_TIMEOUT, "unreachable": Reason.EVIDENCE_UNREACHABLE}.get(failure.kind)
        if code is None:
            return task_error(execution_id, "OTHER", Reason.RUNTIME_CRASH, failure.message)
        basis = codec.sha256(f"{execution_id}|{failure.kind}".encode()).hex()
        return Judgement(
            verifier_result(contract, candidate, execution_id, named, ("inconclusive", 0.0, [int(code)], basis)), False
        )
    status = status_of(answer)
    fault = answer_fault(answer, status, contract)
    if fault:
        return task_error(execution_id, "OTHER", Reason.RUNTIME_CRASH, f"POST /verify: {fault}")
    said = (status, answer.score, answer.reason_codes, answer.verifier_result_hash)
    media = smuggled_media_in(msgspec.to_builtins(candidate))
    if status == "passed" and (not own.passed or media):
        said = ("failed", own.score if not media else 0.0, _failing_codes(own), answer.verifier_result_hash)
    by = (answer.provider_family or named[0], answer.model_id or named[1])
    attest = status != "inconclusive" and evidence_codes.isdisjoint(answer.reason_codes)
    return Judgement(verifier_result(contract, candidate, execution_id, by, said), attest)


async def confirm(executor: Executor, request: ExecuteRequest, candidate: Candidate, deadline_ms: int) -> str:
    """POST /execute in the finalize stage: why this node withholds its finality vote, empty if it need not.

    Raises ``RuntimeFailure`` if there is no answer: it may be asked again.
    """
    answer = await executor.execute(request, deadline_ms)
    try:
        same = codec.encode_checked(answer.candidate_output) == codec.encode_checked(candidate.output)
    except Malformed as refusal:
        return f"the executor's finalize stage gives an output that cannot be carried: {refusal}"
    return "" if same else "the executor's finalize stage gives another output than the committed candidate's"


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON values, for an executor's inputs."""
    said: dict[str, Any] = msgspec.to_builtins(candidate)
    return said


def _failing_codes(own: PolicyVerdict) -> list[int]:
    return [int(code) for code in own.reason_codes]


def status_of(answer: VerifyResponse) -> str:
    """passed, failed or inconclusive: as the executor says, or as its other fields mean."""
    if answer.verification_status is not None:
        return answer.verification_status
    if answer.passed:
        return "passed"
    return "failed" if inconclusive_codes.isdisjoint(answer.reason_codes) else "inconclusive"


def answer_fault(answer: VerifyResponse, status: str, contract: TaskContract) -> str:
    """Why /verify's answer is none that the protocol takes; empty if it is one."""
    binding = contract.acceptance.verifier_policy
    policy = known(binding.policy_id, binding.policy_version)
    assert policy is not None, "the contract's rules know the policy"
    foreign = [code for code in answer.reason_codes if not code_allowed(policy, code)]
    if not answer.reason_codes or len(answer.reason_codes) > limits.reason_codes_max or foreign:
        return f"reason_codes are {answer.reason_codes[:8]}, expected some that {binding.policy_id} allows"
    if answer.passed != (status == "passed"):
        return f"passed is {answer.passed}, but the status is {status}"
    if status == "inconclusive" and inconclusive_codes.isdisjoint(answer.reason_codes):
        return "an inconclusive answer needs one of the codes 200, 201, 202"
    if not 0 <= answer.score <= 1:
        return f"score is {answer.score}, expected 0 to 1"
    if not 0 < len(answer.verifier_result_hash.encode()) <= limits.text_bytes_max:
        return f"verifier_result_hash: expected 1 to {limits.text_bytes_max} bytes"
    if max(len(answer.provider_family.encode()), len(answer.model_id.encode())) > limits.text_bytes_max:
        return f"provider_family, model_id: expected at most {limits.text_bytes_max} bytes"
    return ""


def verifier_result(
    contract: TaskContract,
    candidate: Candidate,
    execution_id: str,
    by: tuple[str, str],
    said: tuple[str, float, list[int], str],
) -> VerifierResult:
    """A result by ``by`` (provider_family, model_id). ``said``: status, score, reason codes, verifier_result_hash."""
    status, score, codes, result_hash = said
    binding = contract.acceptance.verifier_policy
    return VerifierResult(
        candidate.candidate_id,
        execution_id,
        status,  # type: ignore[arg-type]
        status == "passed",
        float(score),
        list(codes),
        result_hash,
        by[0],
        by[1],
        binding.policy_id,
        binding.policy_version,
        binding.policy_hash,
    )
