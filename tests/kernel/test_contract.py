"""The task contract: every rule accepts and refuses, and a refusal names every fault (docs/protocol.md §6, §8)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattswarm.kernel import codec
from wattswarm.kernel.contract import TaskContract, parse_contract
from wattswarm.kernel.contract_draft import (
    contract_from_json,
    contract_json_schema,
    decidability_warnings,
    sample_contract,
)
from wattswarm.kernel.refusal import Problem, Refused

vectors = json.loads((Path(__file__).parents[1] / "vectors" / "contracts.json").read_text())
AUTHORITY = "ed25519:" + "0123456789abcdef" * 4


def edited(document: dict[str, Any], sets: dict[str, Any], removes: list[str]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    for path, value in (*sets.items(), *((path, None) for path in removes)):
        section = document
        *way, name = path.split(".")
        for step in way:
            section = section[step]
        if path in removes:
            del section[name]
        else:
            section[name] = value
    return document


def of(vector: dict[str, Any]) -> dict[str, Any]:
    return edited(vectors["base"], vector["set"], vector["remove"])


def problems_of(read: Callable[[object], object], document: object) -> tuple[Problem, ...]:
    with pytest.raises(Refused) as refusal:
        read(document)
    assert refusal.value.reason == "contract_invalid"
    return refusal.value.problems


def sample() -> dict[str, Any]:
    return sample_contract("task-1", 1_790_000_000_000, AUTHORITY)


def contract(**sets: Any) -> TaskContract:
    return parse_contract(edited(sample(), {path.replace("__", "."): value for path, value in sets.items()}, []))


def test_the_sample_is_the_vectors_base_and_valid_as_it_stands() -> None:
    assert sample() == vectors["base"]
    assert contract_from_json(sample()) == sample()
    assert codec.encode(parse_contract(sample()).document()) == codec.encode(sample())


@pytest.mark.parametrize("vector", vectors["valid"], ids=lambda vector: vector["name"])
def test_valid_vector(vector: dict[str, Any]) -> None:
    draft = of(vector)
    before = copy.deepcopy(draft)
    document = contract_from_json(draft)
    assert draft == before, "the user's document is left as it is"
    wire = codec.decode(codec.encode_checked(document))
    parsed = parse_contract(wire)
    assert codec.sha256(codec.encode(document)).hex() == vector["digest"]
    assert parsed.digest.hex() == vector["digest"]
    assert contract_from_json(document) == document, "a canonical document is its own canonical document"
    jsonschema_rs.Draft202012Validator(contract_json_schema()).validate(draft)


@pytest.mark.parametrize("vector", vectors["invalid"], ids=lambda vector: vector["name"])
def test_invalid_vector(vector: dict[str, Any]) -> None:
    assert [problem.path for problem in problems_of(contract_from_json, of(vector))] == vector["paths"]


@pytest.mark.parametrize("vector", vectors["invalid"], ids=lambda vector: vector["name"])
def test_the_wire_finds_the_same_faults(vector: dict[str, Any]) -> None:
    paths = [problem.path for problem in problems_of(parse_contract, of(vector))]
    hash_path = "acceptance.verifier_policy.policy_hash"
    defaults = {hash_path} - set(vector["paths"])  # a draft may leave it out, the wire may not
    assert [path for path in paths if path not in defaults] == vector["paths"]


def test_a_missing_default_is_refused_on_the_wire() -> None:
    for vector in vectors["valid"]:
        if vector["remove"]:
            paths = [problem.path for problem in problems_of(parse_contract, of(vector))]
            assert paths == sorted(vector["remove"])


def test_a_fault_says_what_was_found_and_what_was_expected() -> None:
    document = edited(
        sample(),
        {"budget.time_ms": "30s", "assignment.claim.lease_ms": 0, "task_mode": "TWICE", "budget.tme": 1, "task_id": ""},
        ["expiry_ms"],
    )
    assert [str(problem) for problem in problems_of(contract_from_json, document)] == [
        "assignment.claim.lease_ms: found integer 0, expected an integer from 1 to 3600000",
        'budget.time_ms: found text "30s", expected an integer, at least 1',
        "budget.tme: found a field that is not known, expected one of cost_units, explore_cost_units, "
        "finalize_cost_units, max_steps, mode, reuse_max_attempts, reuse_verify_cost_units, reuse_verify_time_ms, "
        "time_ms, verify_cost_units",
        "expiry_ms: found nothing, expected an integer, at least 1",
        'task_id: found text "", expected 1 to 128 of A-Z a-z 0-9 . _ : -',
        'task_mode: found text "TWICE", expected CONTINUOUS or ONE_SHOT',
    ]


@pytest.mark.parametrize("document", [None, [], "x", 5, 1.5, True, b"bytes"])
def test_what_is_no_map_is_refused_as_a_whole(document: object) -> None:
    for read in (contract_from_json, parse_contract):
        assert [problem.path for problem in problems_of(read, document)] == ["contract"]


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_values_that_json_lacks_are_refused() -> None:
    hostile: list[Any] = [{"a": b"x"}, {"a": float("nan")}, {"a": 1 << 64}, {"a": "\ud800"}, deep(37), deep(50_000)]
    for inputs in hostile:
        for read in (contract_from_json, parse_contract):
            assert [problem.path for problem in problems_of(read, {**sample(), "inputs": inputs})] == ["inputs"]
    for read in (contract_from_json, parse_contract):
        faulty = edited(sample(), {"inputs": {"a": [1, b"x"]}, "budget.time_ms": float("inf"), "task_id": b"t"}, [])
        assert [p.path for p in problems_of(read, faulty)] == ["budget.time_ms", "inputs.a[1]", "task_id"]
        nameless: dict[Any, Any] = {**sample(), b"x": 1}
        assert [p.path for p in problems_of(read, nameless)] == ["contract"]
    assert parse_contract({**sample(), "inputs": deep(35)})
    for read in (contract_from_json, parse_contract):
        assert [p.path for p in problems_of(read, {**sample(), "task_type": "\ud800"})] == ["task_type"]


def test_a_hostile_document_gets_few_problems() -> None:
    document = {**sample(), **{f"field{n}": n for n in range(10_000)}}
    for read in (contract_from_json, parse_contract):
        assert len(problems_of(read, document)) <= 64
        long = problems_of(
            read, {**sample(), "x" * 100_000: 1, "output_schema": {"properties": {"y" * 30_000: {"$id": 1}}}}
        )
        assert all(len(str(problem)) < 500 for problem in long)
        assert len(long) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 66) | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def every_path(document: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for name, value in document.items():
        paths.append(prefix + name)
        if isinstance(value, dict) and name not in ("inputs", "output_schema", "policy_params"):
            paths += every_path(value, f"{prefix}{name}.")
    return paths


@given(st.sampled_from(every_path(sample())), json_values)
def test_any_value_anywhere_is_either_read_or_refused_with_problems(path: str, value: Any) -> None:
    document = edited(sample(), {path: value}, [])
    accepted, problems = read_or_refused(document)
    if accepted is None:
        assert problems
        assert all(problem.path.startswith((path, "budget.")) for problem in problems)
    else:
        assert accepted.digest == codec.sha256(codec.encode(document))
        assert contract_from_json(document) == document


def read_or_refused(document: object) -> tuple[TaskContract | None, tuple[Problem, ...]]:
    try:
        return parse_contract(document), ()
    except Refused as refusal:
        return None, refusal.problems


def test_digest_tells_an_integer_from_a_float() -> None:
    whole, fraction = (
        contract(acceptance__settlement__implicit_weight=1),
        contract(acceptance__settlement__implicit_weight=1.0),
    )
    assert whole.digest != fraction.digest


def test_the_schema_judges_outputs() -> None:
    schema = contract().schema
    assert schema.is_valid({"answer": "x"})
    assert not schema.is_valid({"answer": 1})


def test_the_json_schema_refuses_what_it_can_say() -> None:
    validator = jsonschema_rs.Draft202012Validator(contract_json_schema())
    for sets in ({"task_id": "a b"}, {"budget.time_ms": 0}, {"acceptance.vote.commit_reveal": False}, {"extra": 1}):
        assert not validator.is_valid(edited(sample(), sets, []))
    contract_json_schema()["properties"].clear()
    assert contract_json_schema()["properties"]


everybody = {"proposer": 1, "verifier": 1, "committer": 1, "finalizer": 1}


def test_a_contract_that_can_be_decided_has_no_warnings() -> None:
    assert decidability_warnings(contract(), everybody) == []
    assert decidability_warnings(contract(acceptance__quorum_threshold=2), {**everybody, "verifier": 3}) == []


def test_a_missing_role_is_warned_of() -> None:
    for role in everybody:
        (warning,) = decidability_warnings(contract(), {**everybody, role: 0})
        assert role in warning
    assert len(decidability_warnings(contract(), {})) == 4


def test_a_quorum_beyond_the_verifiers_is_warned_of() -> None:
    (warning,) = decidability_warnings(contract(acceptance__quorum_threshold=2), everybody)
    assert warning == "quorum_threshold is 2, but this membership has 1 verifier(s)"
    (warning,) = decidability_warnings(contract(acceptance__quorum_threshold=2), {**everybody, "verifier": 2})
    assert "cannot vote for it" in warning
    (warning,) = decidability_warnings(contract(acceptance__da_quorum_threshold=2), everybody)
    assert "da_quorum_threshold is 2" in warning


def test_a_verify_bucket_that_cannot_pay_a_quorum_is_warned_of() -> None:
    two = {**everybody, "verifier": 3}

    def warnings(bucket: int, verifiers: int = 1) -> list[str]:
        sets = {"acceptance__quorum_threshold": 2, "budget__verify_cost_units": bucket}
        return decidability_warnings(contract(**sets, assignment__verify__max_verifiers=verifiers), two)

    assert warnings(7) == []
    assert warnings(6) == [
        "verify_cost_units is 6, but a quorum of 2 costs 7 with one piece of evidence: "
        "such a candidate cannot become final"
    ]
    assert warnings(5) == ["verify_cost_units is 5, but a quorum of 2 costs 6: no candidate can be accepted"]
    assert warnings(8, verifiers=2) == []
    assert warnings(8, verifiers=3) == [
        "one verifier may spend 3 of verify_cost_units, but its vote costs 4 with one piece of evidence: "
        "such a candidate cannot become final"
    ]
    assert warnings(8, verifiers=4) == [
        "one verifier may spend 2 of verify_cost_units, but its vote costs 3: no candidate can be accepted"
    ]
