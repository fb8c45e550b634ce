"""What an executor answers is read strictly where it is used, and forgivingly where runtimes add their own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wattswarm.kernel.payloads import work
from wattswarm.runtime.contract import ExecuteResponse, VerifyResponse, to_json

ref = {"uri": "u", "digest": "d", "size_bytes": 1, "mime": "text/plain", "created_at": 1, "producer": "p"}
verdict = {
    "passed": True,
    "score": 1,
    "reason_codes": [100],
    "verifier_result_hash": "h",
    "provider_family": "f",
    "model_id": "m",
}


def executed(**fields: Any) -> ExecuteResponse:
    return msgspec.json.decode(to_json({"candidate_output": {}, **fields}), type=ExecuteResponse)


def verified(**fields: Any) -> VerifyResponse:
    return msgspec.json.decode(to_json({**verdict, **fields}), type=VerifyResponse)


def test_fields_that_a_runtime_adds_are_ignored_and_never_reach_a_candidate() -> None:
    said = executed(
        evidence_refs=[{**ref, "note": "mine"}],
        evidence_inline=[{"mime": "text/plain", "content": "x", "lang": "en"}],
        cost=3,
    )
    candidate = said.candidate("c", "e")
    assert candidate.evidence_refs == [work.EvidenceRef(**ref)]  # type: ignore[arg-type]
    assert candidate.evidence_inline == [work.EvidenceInline("text/plain", "x")]


@pytest.mark.parametrize(
    "fields",
    [
        {"evidence_refs": None},
        {"evidence_refs": [ref] * 17},
        {"evidence_refs": [{**ref, "size_bytes": -1}]},
        {"evidence_refs": [{**ref, "size_bytes": 1 << 64}]},
        {"evidence_refs": [{**ref, "created_at": 1 << 64}]},
        {"evidence_refs": [{**ref, "digest": ""}]},
        {"evidence_refs": [{**ref, "uri": "é" * 200}]},
        {"evidence_refs": [{"uri": "u"}]},
        {"evidence_inline": [{"mime": "", "content": "x"}]},
    ],
)
def test_evidence_that_no_event_could_carry_is_a_bad_shape(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        executed(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"passed": 1},
        {"score": 1.01},
        {"score": -0.1},
        {"reason_codes": []},
        {"reason_codes": [65_536]},
        {"reason_codes": [-1]},
        {"reason_codes": [100.5]},
        {"reason_codes": [100] * 65},
        {"model_id": "é" * 200},
        {"verifier_result_hash": ""},
        {"verification_status": "maybe"},
    ],
)
def test_a_verdict_that_no_event_could_carry_is_a_bad_shape(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        verified(**fields)


@pytest.mark.parametrize("status", [None, "passed", "failed", "inconclusive"])
def test_the_status_may_be_given_or_left_out(status: str | None) -> None:
    assert verified(**({"verification_status": status} if status else {})).verification_status == status
