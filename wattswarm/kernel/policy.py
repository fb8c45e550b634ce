"""Verifier policies: three published tables, and the one function that judges an output by them.

Every node evaluates a policy by itself and must come to the same verdict, so an evaluation reads the binding,
the schema and the output and nothing else; it never raises because of what strangers put into them. The fold
needs a policy's id and version to be known; whether a binding's hash is one the node admits is asked by the
node, before it creates, verifies or signs. Keeps docs/protocol.md §8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from types import MappingProxyType
from typing import Any, Final, TypeGuard

import msgspec

from wattswarm.kernel.codec import sha256
from wattswarm.kernel.jsonvalue import describe, is_blank, is_json_value
from wattswarm.kernel.reasons import Reason, evidence_codes, is_code, is_protocol_code
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.kernel.schema import CompiledSchema


class PolicyBinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy as a contract pins it; ``policy_hash`` is 64 lower-case hex digits."""

    policy_id: str
    policy_version: str
    policy_hash: str
    policy_params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """What a policy says of an output: score in [0, 1], codes in the order of its conditions."""

    passed: bool
    score: float
    reason_codes: tuple[int, ...]


@dataclass(frozen=True)
class Policy:
    """A published policy. ``params`` names each parameter's JSON type: ``number`` or ``integer``."""

    policy_id: str
    policy_version: str
    params: Mapping[str, str]
    own_codes: tuple[int, ...]
    io_contract: str

    @cached_property
    def reason_codes(self) -> tuple[int, ...]:
        """Its own codes, then the evidence codes that every policy has."""
        return (*self.own_codes, *sorted(evidence_codes))

    @cached_property
    def params_schema(self) -> dict[str, Any]:
        """The JSON Schema of its parameters."""
        return {"properties": {name: {"type": kind} for name, kind in sorted(self.params.items())}, "type": "object"}

    @cached_property
    def policy_hash(self) -> str:
        """Hex SHA-256 of the compact JSON, in the published order of fields; runtimes in the field compare it."""
        published = {
            "policy_id": self.policy_id,
            "policy_version": self.policy_version,
            "params_schema": self.params_schema,
            "reason_codes": list(self.reason_codes),
            "io_contract": self.io_contract,
        }
        return sha256(json.dumps(published, separators=(",", ":")).encode()).hex()


SCHEMA_ONLY: Final = "vp.schema_only.v1"
SCHEMA_THRESHOLDS: Final = "vp.schema_thresholds.v1"
CROSSCHECK: Final = "vp.crosscheck.v1"

policies: tuple[Policy, ...] = (
    Policy(SCHEMA_ONLY, "1", {}, (100, 101), "validate candidate output against output_schema"),
    Policy(
        SCHEMA_THRESHOLDS,
        "1",
        {"min_confidence": "number", "max_len": "integer"},
        (100, 101, 102, 103),
        "schema + generic thresholds",
    ),
    Policy(
        CROSSCHECK,
        "1",
        {"min_score": "number"},
        (100, 101, 104, 105),
        "cross-check output and enforce check_summary",
    ),
)

registry: Mapping[tuple[str, str], Policy] = MappingProxyType(
    {(policy.policy_id, policy.policy_version): policy for policy in policies}
)


def known(policy_id: object, policy_version: object) -> Policy | None:
    """The policy of that id and version, or None. Takes anything: the two may come from a stranger."""
    if type(policy_id) is not str or type(policy_version) is not str:
        return None
    return registry.get((policy_id, policy_version))


def policy_hash_matches(binding: PolicyBinding, admitted: Container[str] = ()) -> bool:
    """Whether the binding's hash is the policy's own, or one of ``admitted`` (those of POLICY_TUNED for its id)."""
    policy = known(binding.policy_id, binding.policy_version)
    if policy is None:
        return False
    return binding.policy_hash == policy.policy_hash or binding.policy_hash in admitted


def code_allowed(policy: Policy, code: object) -> bool:
    """Whether a verifier result under ``policy`` may carry ``code``.

    A protocol code must be the policy's, or 0, or 999; a u16 without a meaning here may be a newer version's.
    """
    if not is_code(code):
        return False
    assert isinstance(code, int)
    return code in policy.reason_codes or code in (Reason.UNKNOWN, Reason.CUSTOM_ERROR) or not is_protocol_code(code)


def params_problems(policy: Policy, params: object, path: str) -> list[Problem]:
    """What ``params_schema`` does not accept in ``params``, each with its path. Unnamed parameters are ignored."""
    if type(params) is not dict:
        return [Problem(path, describe(params), "a map of parameters")]
    problems = []
    for name, kind in policy.params.items():
        if name in params and not _param_types[kind](params[name]):
            problems.append(Problem(f"{path}.{name}", describe(params[name]), f"a finite {kind}"))
    if not problems and not is_json_value(params):
        problems.append(Problem(path, "a value that JSON does not have", "JSON values"))
    return problems


def _is_number(value: object) -> TypeGuard[int | float]:
    return type(value) is int or (type(value) is float and isfinite(value))


def _is_integer(value: object) -> TypeGuard[int | float]:
    """JSON Schema's notion: 100.0 is an integer."""
    return type(value) is int or (type(value) is float and value.is_integer())


_param_types: dict[str, Callable[[object], bool]] = {"number": _is_number, "integer": _is_integer}


def evaluate(binding: PolicyBinding, schema: CompiledSchema, output: object) -> PolicyVerdict:
    """The policy's verdict on ``output``.

    An output that JSON cannot carry (bytes, too deep) is invalid, and has no length. A parameter that is absent,
    or not of its type, sets no condition. Raises ``Refused`` only for a policy that is not known.
    """
    judge = _judges.get((binding.policy_id, binding.policy_version))
    if judge is None:
        raise Refused(
            "policy_unknown", f"policy {binding.policy_id} version {binding.policy_version} is not known here"
        )
    found = Reason.SCHEMA_OK if schema.is_valid(output) else Reason.SCHEMA_INVALID
    return judge(found, output, binding.policy_params)


def _judge_schema_only(found: Reason, _output: object, _params: Mapping[str, Any]) -> PolicyVerdict:
    passed = found is Reason.SCHEMA_OK
    return PolicyVerdict(passed, 1.0 if passed else 0.0, (int(found),))


def _judge_thresholds(found: Reason, output: object, params: Mapping[str, Any]) -> PolicyVerdict:
    codes = [int(found)]
    floor = params.get("min_confidence")
    if _is_number(floor) and not _confidence(output) >= floor:
        codes.append(int(Reason.CONFIDENCE_TOO_LOW))
    length_max = params.get("max_len")
    if _is_integer(length_max) and is_json_value(output) and len(msgspec.json.encode(output)) > length_max:
        codes.append(int(Reason.OUTPUT_TOO_LARGE))
    passed = codes == [Reason.SCHEMA_OK]
    return PolicyVerdict(passed, 1.0 if passed else 0.2, tuple(codes))


def _confidence(output: object) -> int | float:
    """``output.confidence``; 0 where there is none or it is no number."""
    value = output.get("confidence") if isinstance(output, dict) else None
    return value if _is_number(value) else 0


def _judge_crosscheck(found: Reason, output: object, params: Mapping[str, Any]) -> PolicyVerdict:
    codes = [int(found)]
    summary = output.get("check_summary") if isinstance(output, dict) else None
    if type(summary) is not str or is_blank(summary):
        codes.append(int(Reason.CHECK_SUMMARY_MISSING))
    score = 0.9 if codes == [Reason.SCHEMA_OK] else 0.3
    floor = params.get("min_score")
    if _is_number(floor) and score < floor:
        codes.append(int(Reason.SCORE_TOO_LOW))
    return PolicyVerdict(codes == [Reason.SCHEMA_OK], score, tuple(codes))


_judges: dict[tuple[str, str], Callable[[Reason, object, Mapping[str, Any]], PolicyVerdict]] = {
    (SCHEMA_ONLY, "1"): _judge_schema_only,
    (SCHEMA_THRESHOLDS, "1"): _judge_thresholds,
    (CROSSCHECK, "1"): _judge_crosscheck,
}
