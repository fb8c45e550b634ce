"""Strangers' schemas: one verdict on every node, in bounded time, whatever they wrote (docs/protocol.md §8)."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattswarm.kernel import limits
from wattswarm.kernel.jsonvalue import describe, is_blank, is_json_value
from wattswarm.kernel.pattern import pattern_weight
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.kernel.schema import CompiledSchema, compile_schema

vectors = json.loads((Path(__file__).parents[1] / "vectors" / "schema_verdicts.json").read_text())

REFUSAL_SECONDS = 0.5
VERDICT_SECONDS = 20.0
"""Measured at a fifth of these or less; generous, for a machine that does other things as well."""


def refused_paths(schema: object) -> list[str]:
    with pytest.raises(Refused) as refusal:
        compile_schema(schema)
    assert refusal.value.reason == "schema_refused"
    assert refusal.value.problems
    return [problem.path for problem in refusal.value.problems]


def verdict_in_time(schema: CompiledSchema, output: object) -> bool:
    start = process_time()
    verdict = schema.is_valid(output)
    assert process_time() - start < VERDICT_SECONDS
    return verdict


@pytest.mark.parametrize("vector", vectors["accepted"], ids=lambda vector: vector["name"])
def test_verdict_vector(vector: dict[str, Any]) -> None:
    schema = compile_schema(vector["schema"])
    assert [value for value in vector["valid"] if not schema.is_valid(value)] == []
    assert [value for value in vector["invalid"] if schema.is_valid(value)] == []
    assert all(schema.errors(value) == [] for value in vector["valid"])
    assert all(schema.errors(value) for value in vector["invalid"])


@pytest.mark.parametrize("vector", vectors["refused"], ids=lambda vector: vector["name"])
def test_refusal_vector(vector: dict[str, Any]) -> None:
    start = process_time()
    assert sorted(refused_paths(vector["schema"])) == sorted(vector["paths"])
    assert process_time() - start < REFUSAL_SECONDS


def test_a_schema_of_5000_levels_is_refused_at_once() -> None:
    for keyword in ("not", "items", "const", "x-unknown"):
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(5_000):
            schema = {keyword: schema}
        start = process_time()
        assert refused_paths(schema) == ["output_schema"]
        assert process_time() - start < REFUSAL_SECONDS


def test_depth_32_is_accepted() -> None:
    schema: dict[str, Any] = {}
    for _ in range(limits.schema_depth_max - 1):
        schema = {"not": schema}
    assert compile_schema(schema).is_valid(1) in (True, False)


def test_size_is_bounded_in_compact_json() -> None:
    frame = len('{"description":""}')
    compile_schema({"description": "x" * (limits.schema_bytes_max - frame)})
    assert refused_paths({"description": "x" * (limits.schema_bytes_max - frame + 1)}) == ["output_schema"]


def test_what_is_no_schema_object_is_refused() -> None:
    no_schemas: list[Any] = [True, None, [], "x", 1, {"const": b"bytes"}, {"const": float("nan")}, {"const": 1 << 64}]
    for schema in no_schemas:
        assert refused_paths(schema) == ["output_schema"]
    assert refused_paths({"const": "\ud800"}) == ["output_schema"]
    assert refused_paths({"const": object()}) == ["output_schema"]


def test_a_schema_with_bytes_is_not_taken_for_one_with_text() -> None:
    compile_schema({"const": "eA=="})
    assert refused_paths({"const": b"x"}) == ["output_schema"]


def test_the_same_schema_is_compiled_once() -> None:
    first = compile_schema({"type": "string", "minLength": 2})
    assert compile_schema({"minLength": 2, "type": "string"}) is first
    assert compile_schema({"minLength": 2.0, "type": "string"}) is not first


def test_weight_counts_references_and_repetitions_written_out() -> None:
    def weight(schema: dict[str, Any]) -> int:
        return compile_schema(schema).weight

    assert weight({}) == 1
    assert weight({"title": "x", "description": "y", "default": [1, 2, 3], "examples": [1]}) == 1
    assert weight({"type": "string"}) == 2
    assert weight({"properties": {"a": {"type": "string"}, "b": True}}) == 1 + 2 + 1
    assert weight({"$defs": {"s": {"type": "string"}}, "items": {"$ref": "#/$defs/s"}}) == 1 + 1 + 2
    assert weight({"$defs": {"s": {"type": "string"}}, "prefixItems": [{"$ref": "#/$defs/s"}] * 3}) == 1 + 3 * 3
    assert weight({"enum": ["a", "b"]}) == 1 + 3
    assert weight({"enum": [1, 2]}) == 1 + 1 + 32
    assert weight({"minimum": 0}) == 1 + 4
    assert weight({"minimum": 0.5}) == 1 + 16
    assert weight({"uniqueItems": True}) == 1 + 128
    assert weight({"pattern": "^a{10}$"}) == 1 + 1 + 16 + 12
    in_place = {"allOf": [{"properties": {"a": True}}]}
    assert weight(in_place) == 3
    assert weight({**in_place, "unevaluatedProperties": False}) == 1 + 1 + 2 + 2


def test_pattern_weight_writes_repetitions_out() -> None:
    weights = {
        "abc": 3,
        "(ab){3}": 9,
        "(?:ab{2}){3}": 12,
        "a{2,5}": 5,
        "a{3,}": 4,
        "a{0}": 1,
        "(){9}": 9,
        "[a-z]{4}": 4,
        r"[\]a]{4}": 4,
        r"\d{4}-\d{2}": 7,
        r"\{4}": 3,
        r"\p{L}": 32,
        r"[\p{L}\p{N}]{2}": 128,
        "(a{1000}){1000}": 1_001_000,
        "a{4}{5}": 20,
        "a{ 4 , 5 }": 5,
        "a{\u20034}": 4,
        r"\u{1000}{2}": 2,
        "(a|b)*c+": 7,  # bars and marks count: the reader does not parse
    }
    assert {pattern: pattern_weight(pattern) for pattern in weights} == {
        pattern: 16 + weight for pattern, weight in weights.items()
    }
    assert all(pattern_weight(pattern) is None for pattern in ("(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(?i)a", "(?i:a)"))


def test_the_engine_compiles_whatever_the_weight_allows() -> None:
    for pattern in (r"\S{3900}", r"\p{L}{120}", r"[^a]{3900}", "(?:a?){1300}", "é{3900}", r"(?:\w|[^é]){900}"):
        assert compile_schema({"pattern": pattern}).weight <= limits.schema_weight_max


worst_cases: dict[str, tuple[dict[str, Any], object]] = {
    "nested quantifiers": ({"pattern": "^(a+)+$"}, "a" * 65_000 + "b"),
    "a large automaton": ({"pattern": r"([^a]{0,63}){0,60}[xy]$"}, "é" * 32_000),
    "many patterns": ({"allOf": [{"pattern": f"[ab]*a[ab]{{13}}c{n}"} for n in range(90)]}, "ab" * 32_000),
    "many bounds on many numbers": (
        {"items": {"allOf": [{"minimum": -n} for n in range(800)]}},
        [0] * 32_000,
    ),
    "many fractions": (
        {"items": {"allOf": [{"minimum": -0.5 - n} for n in range(240)]}},
        [2**64 - 1] * 3_000,
    ),
    "decimal remainders": ({"items": {"allOf": [{"multipleOf": 0.5}] * 31}}, [1e60] * 11_000),
    "long enums": ({"items": {"enum": [[n] for n in range(200)]}}, [[0.5]] * 11_000),
    "uniqueness": (
        {"allOf": [{"uniqueItems": True}] * 31},
        [2**64 - 1 - n for n in range(256)] + [n / 7 for n in range(3_000)],
    ),
    "unevaluated": (
        {"items": {"anyOf": [{"properties": {f"a{n}": True}} for n in range(600)], "unevaluatedProperties": False}},
        [{"a599": 1}] * 6_000,
    ),
}


@pytest.mark.parametrize("name", worst_cases)
def test_the_heaviest_schema_judges_the_longest_output_in_bounded_time(name: str) -> None:
    schema, output = worst_cases[name]
    assert verdict_in_time(compile_schema(schema), output) in (True, False)


def test_arrays_of_extreme_numbers_are_invalid_where_numbers_are_compared() -> None:
    comparing, other = compile_schema({"items": {"not": {"const": 0.5}}}), compile_schema({"items": {"type": "number"}})
    for extreme in (5e-324, -1e-61, 1e61, -1e308):
        allowed = [extreme] * limits.extreme_numbers_max
        assert comparing.is_valid([*allowed, 1e60, 1e-60, 0.0, -0.0, 2**63 - 1])
        assert not comparing.is_valid([*allowed, extreme])
        assert "extreme" in comparing.errors([{"a": [*allowed, extreme]}])[0].found
        assert other.is_valid([*allowed, extreme])


def test_integers_beyond_int64_are_extreme_only_beside_floats() -> None:
    schema = compile_schema({"uniqueItems": True})
    large = [(1 << 63) + n for n in range(2_000)]
    floats = [n + 0.5 for n in range(limits.extreme_numbers_max + 1)]
    assert schema.is_valid(large)
    assert schema.is_valid([*large, *floats[1:]])
    assert not schema.is_valid([*large, *floats])
    assert schema.is_valid([n - (1 << 63) for n in large] + floats)


def test_bytes_and_other_values_that_json_lacks_are_invalid_under_every_schema() -> None:
    schema = compile_schema({})
    for value in (
        b"",
        {"a": [b"x"]},
        float("nan"),
        float("inf"),
        1 << 64,
        -(1 << 63) - 1,
        "\ud800",
        {"\ud800": 1},
        {1: 1},
    ):
        assert not schema.is_valid(value)
        assert schema.errors(value)[0].path == "output"


def test_nesting_deeper_than_the_codec_is_invalid_without_recursion() -> None:
    schema = compile_schema({})
    value: Any = 1
    for _ in range(limits.codec_depth_max):
        value = [value]
    assert schema.is_valid(value)
    assert not schema.is_valid([value])
    for _ in range(50_000):
        value = [value]
    assert not schema.is_valid(value)


def test_errors_name_paths_and_are_few() -> None:
    schema = compile_schema({"properties": {"a": {"items": {"type": "string"}}}, "required": ["b"]})
    assert [problem.path for problem in schema.errors({"a": ["x", 1]})] == ["output", "output.a[1]"]
    assert len(schema.errors({"a": list(range(1_000))})) == 16


def test_errors_of_a_heavy_schema_are_one_sentence() -> None:
    schema = compile_schema({"items": {"anyOf": [{"items": {"anyOf": [{"type": "string"}] * 600}}]}})
    start = process_time()
    problems = schema.errors([[1] * 30] * 900)
    assert process_time() - start < VERDICT_SECONDS
    assert [problem.path for problem in problems] == ["output"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_a_const_accepts_its_own_value(value: Any) -> None:
    if is_json_value(value, limits.schema_depth_max - 1):
        assert compile_schema({"const": value}).is_valid(value)


keywords = st.sampled_from(
    [
        *(
            "$id",
            "$ref",
            "$defs",
            "$schema",
            "$anchor",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "if",
            "then",
            "else",
            "items",
        ),
        *("prefixItems", "contains", "properties", "pattern", "patternProperties", "additionalProperties", "type"),
        *("unevaluatedItems", "unevaluatedProperties", "dependentSchemas", "propertyNames", "enum", "const", "minimum"),
        *("maximum", "multipleOf", "minLength", "required", "uniqueItems", "format"),
    ]
)
schema_like: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([True, False, 0, 1, 0.1, -1, "string", "#", "#/$defs/a", "^a+$", "(?=a)", "(", None, [], {}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keywords, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "$ref"]), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(st.dictionaries(keywords, schema_like, max_size=5), schema_like)
def test_any_document_either_compiles_and_judges_or_is_refused_with_problems(
    schema: dict[str, Any], value: Any
) -> None:
    compiled, problems = compiled_or_refused(schema)
    if compiled is None:
        assert problems
        assert all(problem.path.startswith("output_schema") for problem in problems)
    else:
        assert compiled.is_valid(value) == (compiled.errors(value) == [])


def compiled_or_refused(schema: object) -> tuple[CompiledSchema | None, tuple[Problem, ...]]:
    try:
        return compile_schema(schema), ()
    except Refused as refusal:
        return None, refusal.problems


def test_values_are_described_shortly() -> None:
    assert [describe(value) for value in (None, True, 5, 1.0, "a\n", [1], {"a": 1}, b"x", 1 << 70)] == [
        "null",
        "true",
        "integer 5",
        "number 1.0",
        'text "a\\n"',
        "an array of 1",
        "a map of 1",
        "bytes",
        "an integer of more than 64 bits",
    ]
    assert len(describe("x" * 100_000)) < 80
    assert describe("\ud800") == 'text "?"'
    assert is_blank(" \u2003\n")
    assert not is_blank("\u200b")
