"""Reason codes are a closed table that newer numbers do not break (docs/protocol.md §8)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wattswarm.kernel import reasons
from wattswarm.kernel.reasons import Reason


def test_the_table_is_the_published_one() -> None:
    assert {reason.name: int(reason) for reason in Reason} == {
        "UNKNOWN": 0,
        "SCHEMA_OK": 100,
        "SCHEMA_INVALID": 101,
        "CONFIDENCE_TOO_LOW": 102,
        "OUTPUT_TOO_LARGE": 103,
        "CHECK_SUMMARY_MISSING": 104,
        "SCORE_TOO_LOW": 105,
        "EVIDENCE_UNREACHABLE": 200,
        "EVIDENCE_TIMEOUT": 201,
        "EVIDENCE_AUTH_DENIED": 202,
        "EVIDENCE_DIGEST_MISMATCH": 203,
        "TASK_TIMEOUT": 300,
        "INVALID_OUTPUT": 301,
        "TASK_EXPIRED": 302,
        "RUNTIME_CRASH": 303,
        "CUSTOM_ERROR": 999,
    }


def test_every_code_has_a_sentence() -> None:
    assert set(reasons.sentences) == set(Reason)
    assert all(sentence.endswith(".") for sentence in reasons.sentences.values())


@given(st.integers(0, reasons.CODE_MAX))
def test_a_u16_reads_as_its_reason_or_as_unknown(code: int) -> None:
    named = {int(reason) for reason in Reason}
    assert reasons.read(code) == (code if code in named else Reason.UNKNOWN)
    assert reasons.is_protocol_code(code) == (code in named)


def test_only_a_u16_is_a_code() -> None:
    assert all(reasons.is_code(value) for value in (0, 100, 999, 65_535))
    assert not any(reasons.is_code(value) for value in (-1, 65_536, 1.0, True, "100", None))


def test_inconclusive_needs_evidence_that_could_not_be_had() -> None:
    assert reasons.inconclusive_codes == {200, 201, 202}
    assert reasons.evidence_codes == {200, 201, 202, 203}


def test_an_explanation_keeps_the_number_of_an_unknown_code() -> None:
    assert reasons.explain(201) == "201 EVIDENCE_TIMEOUT: An evidence source did not answer in time."
    assert reasons.explain(4711).startswith("4711 UNKNOWN: ")
