"""What verifiers say of candidates: that evidence could be read, and what the executor found (docs/protocol.md §6).

Both name a candidate by its id, which proposers choose freely and may choose alike. So nothing said here is bound
to one of several namesakes: the vote binds it, by hash. A result cannot claim more than this fold's own evaluation
of the policy allows.
"""

from __future__ import annotations

from wattswarm.kernel.payloads.judge import VerifierResult, VerifierResultSubmitted
from wattswarm.kernel.payloads.work import EvidenceAvailable
from wattswarm.kernel.policy import code_allowed
from wattswarm.kernel.reasons import inconclusive_codes
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.state import Result
from wattswarm.kernel.task.turn import Turn, need_lease, need_named, pay
from wattswarm.kernel.task.wording import short


def evidence_available(turn: Turn, payload: EvidenceAvailable) -> None:
    """The verifier could read an artifact that the candidate names. Counts once an author and digest."""
    digest = payload.evidence_digest
    named = need_named(turn, payload.candidate_id)
    if not any(digest in candidate.evidence() for candidate in named):
        raise Refused("evidence_unknown", f"candidate {payload.candidate_id} has no evidence with digest {digest}")
    if turn.author in turn.work.attested.get(digest, ()):
        return
    need_lease(turn, "verify", payload.execution_id)
    pay(turn, "verify")
    turn.work.attested.setdefault(digest, []).append(turn.author)


def submit(turn: Turn, payload: VerifierResultSubmitted) -> None:
    """A verifier's result; the author's first for a candidate counts in a round."""
    result = payload.result
    named = need_named(turn, result.candidate_id)
    own = [
        held for held in turn.work.results if held.verifier == turn.author and held.candidate_id == result.candidate_id
    ]
    for held in own:
        said = (held.status, held.result_hash, held.reason_codes)
        if said == (result.verification_status, result.verifier_result_hash, result.reason_codes):
            return
    need_lease(turn, "verify", result.execution_id)
    _check_form(turn, result)
    attempt = turn.work.attempt
    if sum(held.attempt == attempt for held in own) >= len(named):
        raise Refused(
            "result_exists",
            f"{short(turn.author)} already gave a result for candidate {result.candidate_id} in round {attempt}",
        )
    if result.passed and not any(candidate.passes for candidate in named):
        raise Refused(
            "passed_contradicted",
            f"the result says passed, but candidate {result.candidate_id} does not pass "
            f"{turn.pins.policy.policy_id} with the contract's parameters",
        )
    pay(turn, "verify")
    turn.work.results.append(
        Result(
            turn.author,
            result.candidate_id,
            attempt,
            result.verification_status,
            result.verifier_result_hash,
            list(result.reason_codes),
        )
    )


def _check_form(turn: Turn, result: VerifierResult) -> None:
    """What the result must be whatever the candidate is."""
    if not result.provider_family or not result.model_id:
        raise Refused("executor_unnamed", "provider_family and model_id must not be empty")
    if not 0 <= result.score <= 1:
        raise Refused("score_range", f"the score is {result.score}, expected 0 to 1")
    if result.passed != (result.verification_status == "passed"):
        raise Refused(
            "status_disagrees",
            f"verification_status is {result.verification_status}, but passed is {str(result.passed).lower()}",
        )
    binding = turn.pins.contract.acceptance.verifier_policy
    for name, found, expected in (
        ("policy_id", result.policy_id, binding.policy_id),
        ("policy_version", result.policy_version, binding.policy_version),
        ("policy_hash", result.policy_hash, binding.policy_hash),
    ):
        if found != expected:
            raise Refused("other_policy", f"{name} is {found}, the contract's is {expected}")
    if not result.reason_codes:
        raise Refused("reason_codes_empty", "reason_codes is empty; expected at least one code")
    for code in result.reason_codes:
        if not code_allowed(turn.pins.policy, code):
            raise Refused("reason_code", f"reason code {code} does not belong to {binding.policy_id}")
    if result.verification_status == "inconclusive" and inconclusive_codes.isdisjoint(result.reason_codes):
        expected = ", ".join(str(code) for code in sorted(inconclusive_codes))
        raise Refused(
            "inconclusive_code", f"reason_codes are {result.reason_codes}; inconclusive needs one of {expected}"
        )
