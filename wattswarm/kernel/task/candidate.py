"""Candidates and their evidence (docs/protocol.md §6 "Candidate", "Evidence added").

Strangers wrote them: whatever an output holds, it gets a verdict. What later rules need to know of a candidate -
its output's digest, whether the contract's policy passes it - is worked out here, once, and kept as facts.
"""

from __future__ import annotations

from msgspec import to_builtins

from wattswarm.kernel.codec import encode, encode_sorting, sha256
from wattswarm.kernel.limits import structured_summary_bytes_max
from wattswarm.kernel.media import inline_problems
from wattswarm.kernel.payloads.work import Candidate, CandidateProposed, EvidenceAdded
from wattswarm.kernel.policy import evaluate
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task import state
from wattswarm.kernel.task.turn import Turn, need_lease, need_named, pay
from wattswarm.kernel.task.wording import short


def candidate_hash(author: bytes, candidate: Candidate) -> bytes:
    """What names a candidate: SHA-256 of canonical CBOR [author, candidate] (docs/protocol.md §5)."""
    return sha256(encode_sorting([author, to_builtins(candidate, builtin_types=(bytes,))]))


def propose(turn: Turn, payload: CandidateProposed) -> None:
    """An answer, given under a live propose lease, that the contract's schema accepts."""
    candidate = payload.candidate
    name = candidate_hash(turn.author, candidate)
    if name in turn.work.blacklist:
        raise Refused(
            "candidate_blacklisted", f"candidate {short(name)} was rejected as a reuse in epoch {turn.work.number}"
        )
    if name in turn.work.candidates:
        return
    need_lease(turn, "propose", candidate.execution_id)
    _check_wanted(turn, candidate)
    output = encode(candidate.output)
    digest = sha256(output)
    _check_execution(turn, candidate.execution_id, digest)
    _check_content(turn, candidate, len(output))
    contract = turn.pins.contract
    verdict = evaluate(contract.acceptance.verifier_policy, contract.schema, candidate.output)
    if Reason.SCHEMA_OK not in verdict.reason_codes:
        problems = tuple(contract.schema.errors(candidate.output))
        raise Refused("output_schema", "the output does not validate against the contract's output_schema", problems)
    pay(turn, "explore")
    turn.work.candidates[name] = state.Candidate(
        turn.author,
        candidate.candidate_id,
        candidate.execution_id,
        digest,
        verdict.passed,
        turn.at,
        list(dict.fromkeys(ref.digest for ref in candidate.evidence_refs)),
    )


def _check_wanted(turn: Turn, candidate: Candidate) -> None:
    """Whether the epoch still looks for candidates like this one."""
    explore = turn.pins.contract.assignment.explore
    held = turn.work.candidates
    if len(held) >= explore.topk and any(result.status == "passed" for result in turn.work.results):
        raise Refused(
            "enough_candidates",
            f"epoch {turn.work.number} has {len(held)} candidates (topk is {explore.topk}) and one has a passed result",
        )
    if candidate.evidence_refs:
        return
    digests = {digest for other in held.values() for digest in other.evidence()}
    rounds = explore.stop.no_new_evidence_rounds
    if len(held) >= len(digests) + rounds:
        raise Refused(
            "no_new_evidence",
            f"{len(held)} candidates brought {len(digests)} distinct evidence digests; after {rounds} candidates "
            "without new evidence (no_new_evidence_rounds), another must bring evidence_refs",
        )


def _check_execution(turn: Turn, execution_id: str, output_digest: bytes) -> None:
    for _, other in sorted(turn.work.candidates.items(), key=lambda entry: entry[0]):
        if other.execution_id == execution_id and other.author == turn.author and other.output_digest != output_digest:
            raise Refused(
                "execution_output", f"execution {execution_id} already gave another output, of {other.candidate_id}"
            )


def _check_content(turn: Turn, candidate: Candidate, output_bytes: int) -> None:
    if output_bytes > structured_summary_bytes_max:
        raise Refused(
            "output_too_large",
            f"the output has {output_bytes} bytes as CBOR, at most {structured_summary_bytes_max} are allowed",
        )
    if candidate.evidence_inline:
        terms = turn.pins.contract.evidence_policy
        problems = inline_problems(
            [(item.mime, item.content) for item in candidate.evidence_inline],
            terms.inline_mime_allowlist,
            terms.max_inline_evidence_bytes,
        )
        if problems:
            raise Refused("evidence_inline", "the inline evidence is refused", tuple(problems))


def add_evidence(turn: Turn, payload: EvidenceAdded) -> None:
    """Further artifacts for the author's own candidate. They do not gate finality."""
    own = [other for other in need_named(turn, payload.candidate_id) if other.author == turn.author]
    if not own:
        raise Refused(
            "candidate_not_own", f"candidate {payload.candidate_id} is not {short(turn.author)}'s, who adds evidence"
        )
    candidate = min(own, key=lambda other: (other.execution_id != payload.execution_id, other.created_at))
    held = candidate.evidence()
    new = [digest for digest in dict.fromkeys(ref.digest for ref in payload.evidence_refs) if digest not in held]
    if not new:
        return
    need_lease(turn, "propose", payload.execution_id)
    pay(turn, "explore")
    candidate.added.extend(new)
