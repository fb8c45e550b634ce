"""Policies: published hashes, and verdicts that every node computes alike (docs/protocol.md §8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattswarm.kernel import policy
from wattswarm.kernel.policy import PolicyBinding, evaluate, policies, policy_hash_matches
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.schema import compile_schema

vectors = json.loads((Path(__file__).parents[1] / "vectors" / "policies.json").read_text())


def binding(policy_id: str, **params: Any) -> PolicyBinding:
    return PolicyBinding(policy_id, "1", "00" * 32, params)


def test_the_policies_are_the_published_ones() -> None:
    ours = [
        {
            "policy_id": each.policy_id,
            "policy_version": each.policy_version,
            "params_schema": each.params_schema,
            "reason_codes": list(each.reason_codes),
            "io_contract": each.io_contract,
            "policy_hash": each.policy_hash,
        }
        for each in policies
    ]
    assert ours == vectors["policies"]


@pytest.mark.parametrize("vector", vectors["evaluations"], ids=lambda vector: vector["name"])
def test_evaluation_vector(vector: dict[str, Any]) -> None:
    verdict = evaluate(
        binding(vector["policy_id"], **vector["policy_params"]),
        compile_schema(vector["output_schema"]),
        vector["output"],
    )
    assert verdict.passed is vector["passed"]
    assert verdict.score == vector["score"]
    assert list(verdict.reason_codes) == vector["reason_codes"]


def test_every_policy_has_a_vector_for_each_of_its_own_codes() -> None:
    for each in policies:
        seen = {
            code
            for vector in vectors["evaluations"]
            if vector["policy_id"] == each.policy_id
            for code in vector["reason_codes"]
        }
        assert seen == set(each.own_codes)


hostile_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
named_params = st.dictionaries(st.sampled_from(["min_confidence", "max_len", "min_score"]), hostile_values)
named_outputs = st.dictionaries(st.sampled_from(["answer", "confidence", "check_summary"]), hostile_values)


@given(st.sampled_from(policies), named_params, named_outputs | hostile_values)
def test_no_parameter_and_no_output_makes_an_evaluation_raise(
    chosen: policy.Policy, params: dict[str, Any], output: Any
) -> None:
    schema = compile_schema({"properties": {"answer": {"type": "string"}}})
    verdict = evaluate(PolicyBinding(chosen.policy_id, "1", "", params), schema, output)
    assert 0 <= verdict.score <= 1
    assert set(verdict.reason_codes) <= set(chosen.own_codes)
    assert verdict.passed == (verdict.reason_codes == (100,))
    assert evaluate(PolicyBinding(chosen.policy_id, "1", "", params), schema, output) == verdict


def test_an_output_with_bytes_is_invalid_and_has_no_length() -> None:
    verdict = evaluate(binding(policy.SCHEMA_THRESHOLDS, max_len=0), compile_schema({}), {"x": b"\x00" * 100})
    assert verdict.reason_codes == (101,)


def test_an_unknown_policy_is_refused() -> None:
    for policy_id, version in (("vp.other.v1", "1"), (policy.SCHEMA_ONLY, "2")):
        with pytest.raises(Refused, match="is not known here") as refusal:
            evaluate(PolicyBinding(policy_id, version, "", {}), compile_schema({}), {})
        assert refusal.value.reason == "policy_unknown"


def test_a_policy_is_known_by_id_and_version_together() -> None:
    assert policy.known(policy.CROSSCHECK, "1") is policies[2]
    for policy_id, version in ((policy.CROSSCHECK, "2"), ("x", "1"), (None, "1"), (policy.CROSSCHECK, 1), ([], {})):
        assert policy.known(policy_id, version) is None


def test_a_hash_matches_if_it_is_the_policys_own_or_an_admitted_one() -> None:
    own = policies[0].policy_hash
    tuned = "ab" * 32
    assert policy_hash_matches(PolicyBinding(policy.SCHEMA_ONLY, "1", own, {}))
    assert not policy_hash_matches(PolicyBinding(policy.SCHEMA_ONLY, "1", own.upper(), {}))
    assert not policy_hash_matches(PolicyBinding(policy.SCHEMA_ONLY, "1", tuned, {}))
    assert policy_hash_matches(PolicyBinding(policy.SCHEMA_ONLY, "1", tuned, {}), {tuned})
    assert not policy_hash_matches(PolicyBinding("vp.other.v1", "1", own, {}), {own})


def test_a_result_may_carry_the_policys_codes_and_codes_without_a_meaning_here() -> None:
    thresholds = policies[1]
    allowed = (100, 101, 102, 103, 200, 201, 202, 203, 0, 999, 1, 104_0, 65_535)
    refused = (104, 105, 300, 301, 302, 303, -1, 65_536, True, 100.0, "100", None)
    assert [code for code in allowed if not policy.code_allowed(thresholds, code)] == []
    assert [code for code in refused if policy.code_allowed(thresholds, code)] == []


def test_parameters_are_checked_against_the_params_schema() -> None:
    def paths(chosen: policy.Policy, params: object) -> list[str]:
        return [problem.path for problem in policy.params_problems(chosen, params, "p")]

    _, thresholds, crosscheck = policies
    assert paths(thresholds, {}) == []
    assert paths(thresholds, {"min_confidence": 0.5, "max_len": 100, "other": [1]}) == []
    assert paths(thresholds, {"min_confidence": 1, "max_len": 100.0}) == []
    assert paths(thresholds, {"min_confidence": "0.5", "max_len": 1.5}) == ["p.min_confidence", "p.max_len"]
    assert paths(thresholds, {"min_confidence": True, "max_len": False}) == ["p.min_confidence", "p.max_len"]
    assert paths(thresholds, {"min_confidence": float("nan")}) == ["p.min_confidence"]
    assert paths(crosscheck, {"min_score": None}) == ["p.min_score"]
    assert paths(crosscheck, {"other": b"bytes"}) == ["p"]
    assert paths(crosscheck, [1]) == ["p"]
