"""The task contract: what a task asks for, what it pays, and how it is decided.

Two readings of one document. A user's JSON may leave out what has a default; on the wire every field is
written, so that one contract has one spelling and one digest. Both go through the same types and the same
table of rules, and a refusal names every fault with its path. Rules that need an event or a clock (expiry
against creation, membership, the admitted policy hashes) are not here. Keeps docs/protocol.md §6 "Created"
and the contract's own rules of §8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from wattswarm.kernel.codec import encode, sha256
from wattswarm.kernel.jsonvalue import INT64_MAX, describe, is_blank, is_json_value
from wattswarm.kernel.limits import (
    codec_depth_max,
    inline_mime_allowlist,
    label_chars_max,
    lease_ms_max,
    reveal_deadline_ms_max,
    text_bytes_max,
)
from wattswarm.kernel.media import is_media_mime
from wattswarm.kernel.policy import PolicyBinding, known, params_problems, policies
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.kernel.schema import CompiledSchema, compile_schema
from wattswarm.kernel.shape import Shape

Count = Annotated[int, Meta(ge=1, le=INT64_MAX)]
Amount = Annotated[int, Meta(ge=0, le=INT64_MAX)]


class _Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the contract: immutable, every field present, no field unknown."""


class Budget(_Part, frozen=True):
    """Cost units per stage and epoch; ``time_ms`` per epoch."""

    time_ms: Count
    max_steps: Count
    cost_units: Count
    mode: Literal["LIFETIME", "EPOCH_RENEW"]
    explore_cost_units: Count
    verify_cost_units: Count
    finalize_cost_units: Count
    reuse_verify_time_ms: Amount
    reuse_verify_cost_units: Amount
    reuse_max_attempts: Count


class MaxConcurrency(_Part, frozen=True):
    """Live leases of a role at one time."""

    propose: Count
    verify: Count


class Claim(_Part, frozen=True):
    """How long a lease may last, and how many of them there may be."""

    lease_ms: Annotated[int, Meta(ge=1, le=lease_ms_max)]
    max_concurrency: MaxConcurrency


class ExploreStop(_Part, frozen=True):
    """When looking for more candidates ends early."""

    no_new_evidence_rounds: Count


class Explore(_Part, frozen=True):
    """The stage that brings candidates."""

    max_proposers: Count
    topk: Count
    stop: ExploreStop


class Verify(_Part, frozen=True):
    """The stage that judges them."""

    max_verifiers: Count


class Finalize(_Part, frozen=True):
    """The stage that decides."""

    max_finalizers: Count


class Assignment(_Part, frozen=True):
    """Who may work on the task, and on what terms."""

    mode: Literal["CLAIM"]
    claim: Claim
    explore: Explore
    verify: Verify
    finalize: Finalize


class Vote(_Part, frozen=True):
    """Commit and reveal; the deadline runs from the commit."""

    commit_reveal: bool
    reveal_deadline_ms: Annotated[int, Meta(ge=1, le=reveal_deadline_ms_max)]


class DiminishingReturns(_Part, frozen=True):
    """Weight and offset of implicit settlements (docs/protocol.md §11)."""

    W: Amount
    K: Count


class BadPenalty(_Part, frozen=True):
    """What a BAD report costs, in units of reputation."""

    P: Amount


class Feedback(_Part, frozen=True):
    """Whose signature makes feedback count: ``ed25519:`` and 64 lower-case hex digits."""

    mode: Literal["CAPABILITY"]
    authority_pubkey: str


class Settlement(_Part, frozen=True):
    """How a decision is settled after it is final."""

    window_ms: Amount
    implicit_weight: Annotated[int | float, Meta(extra_json_schema={"type": "number", "minimum": 0, "maximum": 1})]
    implicit_diminishing_returns: DiminishingReturns
    bad_penalty: BadPenalty
    feedback: Feedback


class Acceptance(_Part, frozen=True):
    """What makes a candidate the decision."""

    quorum_threshold: Count
    da_quorum_threshold: Count
    verifier_policy: PolicyBinding
    vote: Vote
    settlement: Settlement


class EvidencePolicy(_Part, frozen=True):
    """What evidence may travel inside events; sizes in bytes."""

    max_inline_evidence_bytes: Literal[65536]
    max_inline_media_bytes: Literal[0]
    max_snippet_bytes: Count
    max_snippet_tokens: Count
    inline_mime_allowlist: tuple[str, ...]


class TaskContract(_Part, frozen=True, dict=True):
    """A contract whose every rule holds. Made by ``parse_contract``."""

    protocol_version: Literal["v0.1"]
    task_id: str
    task_type: str
    inputs: dict[str, Any]
    output_schema: dict[str, Any]
    budget: Budget
    assignment: Assignment
    acceptance: Acceptance
    task_mode: Literal["ONE_SHOT", "CONTINUOUS"]
    expiry_ms: Count
    evidence_policy: EvidencePolicy

    @cached_property
    def schema(self) -> CompiledSchema:
        """``output_schema``, ready to judge outputs."""
        return compile_schema(self.output_schema)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical CBOR of the whole contract, as it stands in TASK_CREATED."""
        return sha256(encode(self.document()))

    def document(self) -> dict[str, Any]:
        """The contract as plain values: what canonical CBOR and JSON carry."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


# --- rules ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """A rule over some fields. It is asked only when those fields are there and have their types."""

    reads: tuple[str, ...]
    check: Callable[..., Iterable[Problem]]
    get: Callable[[Any], Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "get", attrgetter(*self.reads))

    def problems(self, contract: TaskContract) -> Iterable[Problem]:
        found = self.get(contract)
        return self.check(found) if len(self.reads) == 1 else self.check(*found)


def _expects(reads: Sequence[str], holds: Callable[..., bool], expected: str) -> _Rule:
    """A rule whose fault, if any, is that of the first field it reads."""

    def check(*values: Any) -> Iterable[Problem]:
        return () if holds(*values) else (Problem(reads[0], describe(values[0]), expected),)

    return _Rule(tuple(reads), check)


_label = re.compile(rf"[A-Za-z0-9._:-]{{1,{label_chars_max}}}")
_hash = re.compile(r"[0-9a-f]{64}")
_authority = re.compile(r"ed25519:[0-9a-f]{64}")
_INPUTS_DEPTH_MAX = codec_depth_max - 4
_MIMES_MAX = 32


def _is_short_text(text: str) -> bool:
    """No NUL: such texts become columns of databases, and most cannot hold one."""
    return not is_blank(text) and "\0" not in text and is_json_value(text) and len(text.encode()) <= text_bytes_max


def _is_allowlist(mimes: Sequence[str]) -> bool:
    return (
        len(mimes) <= _MIMES_MAX
        and set(inline_mime_allowlist) <= set(mimes)
        and all(_is_short_text(mime) and not is_media_mime(mime) for mime in mimes)
    )


def _schema_problems(schema: dict[str, Any]) -> Iterable[Problem]:
    try:
        compile_schema(schema)
    except Refused as refusal:
        return refusal.problems
    return ()


_POLICY = "acceptance.verifier_policy"


def _policy_problems(policy_id: str, policy_version: str, params: dict[str, Any]) -> Iterable[Problem]:
    policy = known(policy_id, policy_version)
    if policy is not None:
        return params_problems(policy, params, f"{_POLICY}.policy_params")
    versions = [each.policy_version for each in policies if each.policy_id == policy_id]
    if versions:
        return (Problem(f"{_POLICY}.policy_version", describe(policy_version), " or ".join(versions)),)
    names = ", ".join(f"{each.policy_id} version {each.policy_version}" for each in policies)
    return (Problem(f"{_POLICY}.policy_id", describe(policy_id), names),)


rules: tuple[_Rule, ...] = (
    _expects(
        ["task_id"],
        lambda text: _label.fullmatch(text) is not None,
        f"1 to {label_chars_max} of A-Z a-z 0-9 . _ : -",
    ),
    _expects(["task_type"], _is_short_text, f"text that is not blank, without NUL, at most {text_bytes_max} bytes"),
    _expects(
        ["inputs"],
        lambda inputs: is_json_value(inputs, _INPUTS_DEPTH_MAX),
        f"JSON values, nested at most {_INPUTS_DEPTH_MAX} deep",
    ),
    _Rule(("output_schema",), _schema_problems),
    _expects(
        ["budget.reuse_verify_time_ms", "budget.time_ms"],
        lambda reuse, whole: reuse <= whole,
        "at most budget.time_ms",
    ),
    _expects(
        ["budget.reuse_verify_cost_units", "budget.cost_units"],
        lambda reuse, whole: reuse <= whole,
        "at most budget.cost_units",
    ),
    _expects(
        [
            "budget.cost_units",
            "budget.explore_cost_units",
            "budget.verify_cost_units",
            "budget.finalize_cost_units",
        ],
        lambda whole, *buckets: sum(buckets) <= whole,
        "at least explore_cost_units + verify_cost_units + finalize_cost_units",
    ),
    _expects(
        ["budget.mode", "task_mode"],
        lambda mode, task_mode: task_mode != "CONTINUOUS" or mode == "EPOCH_RENEW",
        "EPOCH_RENEW, because task_mode is CONTINUOUS",
    ),
    _Rule((f"{_POLICY}.policy_id", f"{_POLICY}.policy_version", f"{_POLICY}.policy_params"), _policy_problems),
    _expects(
        [f"{_POLICY}.policy_hash"],
        lambda text: _hash.fullmatch(text) is not None,
        "64 lower-case hex digits",
    ),
    _expects(["acceptance.vote.commit_reveal"], lambda value: value is True, "true"),
    _expects(["acceptance.settlement.implicit_weight"], lambda weight: 0 <= weight <= 1, "a number from 0 to 1"),
    _expects(
        ["acceptance.settlement.feedback.authority_pubkey"],
        lambda text: _authority.fullmatch(text) is not None,
        "ed25519: and 64 lower-case hex digits",
    ),
    _expects(
        ["evidence_policy.inline_mime_allowlist"],
        _is_allowlist,
        ", ".join(inline_mime_allowlist) + f", and nothing that is media; at most {_MIMES_MAX}",
    ),
)


# --- the wire ---------------------------------------------------------------------------------------------------

wire_shape = Shape(TaskContract)


def parse_contract(value: object) -> TaskContract:
    """The contract in a TASK_CREATED payload: plain decoded values, every default already written out.

    Raises ``Refused("contract_invalid")`` with all its problems. Does not judge expiry, membership or the policy
    hash: the first two need the event, the third the node.
    """
    try:
        contract = msgspec.convert(value, TaskContract, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise refused(wire_shape, value, error) from None
    rules_hold(contract)
    return contract


def rules_hold(contract: TaskContract) -> None:
    """Check the rules that types cannot say. Raises ``Refused("contract_invalid")`` with all their problems."""
    problems = [problem for rule in rules for problem in rule.problems(contract)]
    if problems:
        raise _refusal(problems)


def refused(shape: Shape, document: object, error: msgspec.ValidationError) -> Refused:
    """The refusal of a document that is not of the contract's type: faults of shape, and of the rules beside them."""
    problems = shape.problems(document, "contract")
    if isinstance(document, dict) and is_json_value(document):
        problems += _rules_beside(problems, document)
    return _refusal(problems or [Problem("contract", str(error), "a task contract")])


def _refusal(problems: list[Problem]) -> Refused:
    in_order = tuple(sorted(problems, key=lambda problem: problem.path))
    return Refused("contract_invalid", "the task contract is refused", in_order)


def _rules_beside(problems: list[Problem], document: dict[str, Any]) -> list[Problem]:
    """The problems of rules none of whose fields has a problem of shape already."""
    beside: list[Problem] = []
    faulty = tuple(problem.path for problem in problems)
    for rule in rules:
        values = [_at(document, path) for path in rule.reads]
        if _missing not in values and not any(_touches(path, fault) for path in rule.reads for fault in faulty):
            beside.extend(rule.check(*values))
    return beside


_missing = object()


def _at(document: dict[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return _missing
        value = value[name]
    return value


def _touches(path: str, fault: str) -> bool:
    return path == fault or fault.startswith((path + ".", path + "[")) or path.startswith(fault + ".")
