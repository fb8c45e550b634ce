"""Reason codes: the u16 numbers with which nodes say why, and what each of them means to a person.

A table and nothing else. A code from a newer protocol is data, not an error: it reads as ``UNKNOWN`` and the
number is kept beside it. Keeps docs/protocol.md §8.
"""

from __future__ import annotations

from enum import IntEnum

CODE_MAX = 65_535


class Reason(IntEnum):
    """The codes this protocol version names."""

    UNKNOWN = 0
    SCHEMA_OK = 100
    SCHEMA_INVALID = 101
    CONFIDENCE_TOO_LOW = 102
    OUTPUT_TOO_LARGE = 103
    CHECK_SUMMARY_MISSING = 104
    SCORE_TOO_LOW = 105
    EVIDENCE_UNREACHABLE = 200
    EVIDENCE_TIMEOUT = 201
    EVIDENCE_AUTH_DENIED = 202
    EVIDENCE_DIGEST_MISMATCH = 203
    TASK_TIMEOUT = 300
    INVALID_OUTPUT = 301
    TASK_EXPIRED = 302
    RUNTIME_CRASH = 303
    CUSTOM_ERROR = 999


sentences: dict[Reason, str] = {
    Reason.UNKNOWN: "A reason this version of the protocol has no name for.",
    Reason.SCHEMA_OK: "The output validates against the contract's output_schema.",
    Reason.SCHEMA_INVALID: "The output does not validate against the contract's output_schema.",
    Reason.CONFIDENCE_TOO_LOW: "The output's confidence is below the policy's min_confidence.",
    Reason.OUTPUT_TOO_LARGE: "The output as compact JSON is longer than the policy's max_len.",
    Reason.CHECK_SUMMARY_MISSING: "The output has no check_summary with text in it.",
    Reason.SCORE_TOO_LOW: "The score is below the policy's min_score.",
    Reason.EVIDENCE_UNREACHABLE: "An evidence source could not be reached.",
    Reason.EVIDENCE_TIMEOUT: "An evidence source did not answer in time.",
    Reason.EVIDENCE_AUTH_DENIED: "An evidence source refused access.",
    Reason.EVIDENCE_DIGEST_MISMATCH: "The bytes of an evidence source do not have the digest that was claimed.",
    Reason.TASK_TIMEOUT: "The executor did not answer in time.",
    Reason.INVALID_OUTPUT: "The executor's output does not validate against the contract's output_schema.",
    Reason.TASK_EXPIRED: "The task reached its expiry before it was decided.",
    Reason.RUNTIME_CRASH: "The executor failed while it worked on the task.",
    Reason.CUSTOM_ERROR: "An error of the author's own kind; see its custom reason.",
}

inconclusive_codes = frozenset({200, 201, 202})
"""An inconclusive verifier result carries at least one of these."""

evidence_codes = frozenset({200, 201, 202, 203})
"""Codes about evidence: every policy allows them, and after one of them the node attests no evidence."""

_known = {int(reason): reason for reason in Reason}


def is_code(value: object) -> bool:
    """Whether ``value`` is a u16, the only shape a reason code has on the wire."""
    return type(value) is int and 0 <= value <= CODE_MAX


def is_protocol_code(code: int) -> bool:
    """Whether this protocol version gives ``code`` a meaning."""
    return code in _known


def read(code: int) -> Reason:
    """The reason a u16 names; any number without a name reads as ``UNKNOWN``."""
    return _known.get(code, Reason.UNKNOWN)


def explain(code: int) -> str:
    """One line for a person: number, name and meaning."""
    reason = read(code)
    return f"{code} {reason.name}: {sentences[reason]}"
