"""A stranger's ``output_schema``: checked so that every node reaches the same verdict in bounded time.

A schema is JSON Schema 2020-12 with everything left out that could make verdicts differ or run away. References
point inside the document and never in circles; patterns belong to a linear-time engine; and the work of one
evaluation is known before the first one: the *weight* of a schema counts its assertions and subschemas with every
reference written out, patterns with their repetitions written out. So no verdict ever comes from a time-out.
``format`` and ``content*`` are annotations here. Values are those that JSON and canonical CBOR share. Keeps
docs/protocol.md §8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import msgspec

from wattswarm.kernel.jsonvalue import INT64_MAX, count_values, describe, is_json_value, path_step
from wattswarm.kernel.limits import (
    extreme_numbers_max,
    schema_bytes_max,
    schema_depth_max,
    schema_nesting_max,
    schema_pattern_bytes_max,
    schema_weight_max,
)
from wattswarm.kernel.pattern import pattern_weight
from wattswarm.kernel.refusal import Problem, Refused

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_PROBLEMS_MAX: Final = 16
_ERROR_WORK_MAX: Final = 200_000
"""Schema weight times output values up to which faults are listed one by one; a list costs far more than a verdict."""

_regex_options = jsonschema_rs.RegexOptions(size_limit=16 << 20, dfa_size_limit=1 << 18)
"""Explicit, so that an upgrade of the engine changes nothing. The weight keeps every pattern far below size_limit;
the second number trades memory for speed and has no part in a verdict."""

# --- the document -----------------------------------------------------------------------------------------------

_subschemas: tuple[tuple[str, str, str], ...] = (
    ("elsewhere", "one", "additionalProperties"),
    ("elsewhere", "one", "propertyNames"),
    ("elsewhere", "one", "items"),
    ("elsewhere", "one", "unevaluatedItems"),
    ("elsewhere", "one", "unevaluatedProperties"),
    ("elsewhere", "one", "contentSchema"),
    ("elsewhere", "list", "prefixItems"),
    ("elsewhere", "map", "properties"),
    ("elsewhere", "map", "patternProperties"),
    ("in_place", "one", "not"),
    ("in_place", "one", "if"),
    ("in_place", "one", "then"),
    ("in_place", "one", "else"),
    ("in_place", "one", "contains"),
    ("in_place", "list", "allOf"),
    ("in_place", "list", "anyOf"),
    ("in_place", "list", "oneOf"),
    ("in_place", "map", "dependentSchemas"),
    ("defined", "map", "$defs"),
    ("defined", "map", "definitions"),
)
"""(how its subschemas are applied, the shape they come in, keyword): every place where a subschema stands.

``in_place`` marks what ``unevaluated*`` looks into; ``contains`` is among it because it marks items as evaluated."""

_assertions = (
    *("type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    *("maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains"),
    *("maxProperties", "minProperties", "required", "dependentRequired"),
)
_unevaluated = ("unevaluatedItems", "unevaluatedProperties")

_refused_keywords: dict[str, str] = {
    "$id": "no $id: a schema is one document, and references in it are pointers like #/$defs/name",
    "$anchor": "no anchors: references are pointers like #/$defs/name",
    "$dynamicAnchor": "no dynamic references: use $ref with a pointer like #/$defs/name",
    "$dynamicRef": "no dynamic references: use $ref with a pointer like #/$defs/name",
    "$recursiveRef": "no dynamic references: use $ref with a pointer like #/$defs/name",
    "$recursiveAnchor": "no dynamic references: use $ref with a pointer like #/$defs/name",
    "$vocabulary": "no $vocabulary: only a meta-schema has one",
    "dependencies": "dependentRequired or dependentSchemas: 2020-12 has no dependencies, and readers differ on it",
}

_bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_numeric: dict[str, tuple[int, int]] = {
    **dict.fromkeys(_bounds, (4, 16)),
    "multipleOf": (16, 128),
    "const": (16, 16),
    "enum": (16, 16),
}
"""What a whole number and a fraction count in these assertions: the engine compares them as exact fractions."""

_comparing = (*_numeric, "uniqueItems")

_UNIQUE_ITEMS_WEIGHT: Final = 128


def _assertion_weight(keyword: str, value: Any) -> int:
    """The JSON values of an assertion, numbers in it and uniqueItems counting for what they cost."""
    if keyword == "uniqueItems":
        return _UNIQUE_ITEMS_WEIGHT
    whole, fraction = _numeric.get(keyword, (1, 1))
    weight, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if type(item) is float and not item.is_integer():
            weight += fraction
        elif type(item) is int or type(item) is float:
            weight += whole
        else:
            weight += 1
            waiting.extend(item.values() if type(item) is dict else item if type(item) is list else ())
    return weight


@dataclass(slots=True)
class _Node:
    """One subschema: where it is, what it costs by itself, and which nodes it applies."""

    path: str
    schema: Any
    own: int = 1
    in_place: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    defined: list[str] = field(default_factory=list)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _children(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """(how it is applied, pointer suffix, path suffix, subschema) of each subschema in a well-shaped place."""
    for how, shape, keyword in _subschemas:
        if keyword not in schema:
            continue
        inner = schema[keyword]
        if shape == "one":
            yield how, f"/{keyword}", f".{keyword}", inner
        elif shape == "list" and isinstance(inner, list):
            for number, item in enumerate(inner):
                yield how, f"/{keyword}/{number}", f".{keyword}[{number}]", item
        elif shape == "map" and isinstance(inner, dict):
            for name, item in inner.items():
                yield how, f"/{keyword}/{_escape(name)}", f".{keyword}{path_step(name)}", item


class _Document:
    """The reading of one schema: its nodes by JSON pointer, and the problems found on the way."""

    def __init__(self, schema: dict[str, Any], path: str) -> None:
        self.nodes: dict[str, _Node] = {}
        self.problems: list[Problem] = []
        self.compares_numbers = False
        self._read(schema, "", path)

    def _read(self, schema: Any, pointer: str, path: str) -> None:
        node = self.nodes[pointer] = _Node(path, schema)
        if not isinstance(schema, dict):
            return
        self._refuse_keywords(schema, pointer, path)
        node.own += sum(_assertion_weight(name, schema[name]) for name in _assertions if name in schema)
        self.compares_numbers |= any(name in schema for name in _comparing)
        if "pattern" in schema:
            node.own += self._pattern(schema["pattern"], f"{path}.pattern")
        if isinstance(schema.get("patternProperties"), dict):
            for pattern in schema["patternProperties"]:
                node.own += self._pattern(pattern, f"{path}.patternProperties")
        for how, step_pointer, step_path, child in _children(schema):
            getattr(node, how).append(pointer + step_pointer)
            self._read(child, pointer + step_pointer, path + step_path)

    def _refuse_keywords(self, schema: dict[str, Any], pointer: str, path: str) -> None:
        for keyword, expected in _refused_keywords.items():
            if keyword in schema:
                self.problems.append(Problem(f"{path}.{keyword}", describe(schema[keyword]), expected))
        if "$schema" in schema:
            dialect = schema["$schema"]
            if pointer or not isinstance(dialect, str) or dialect.removesuffix("#") != DIALECT:
                expected = "no $schema below the root" if pointer else f"{DIALECT}, or none"
                self.problems.append(Problem(f"{path}.$schema", describe(dialect), expected))

    def _pattern(self, pattern: object, path: str) -> int:
        if not isinstance(pattern, str):
            return 0
        size = len(pattern.encode())
        if size > schema_pattern_bytes_max:
            expected = f"at most {schema_pattern_bytes_max} bytes"
            self.problems.append(Problem(path, f"a pattern of {size} bytes", expected))
            return 0
        weight = pattern_weight(pattern)
        if weight is None:
            expected = "a pattern without look-around and flags; groups are (…), (?:…) and (?<name>…)"
            self.problems.append(Problem(path, describe(pattern), expected))
            return 0
        return weight

    def link(self) -> None:
        """Turn each ``$ref`` into an edge to the node it names, or into a problem."""
        for node in self.nodes.values():
            if not isinstance(node.schema, dict) or "$ref" not in node.schema:
                continue
            reference = node.schema["$ref"]
            target = reference[1:] if isinstance(reference, str) and reference.startswith("#") else None
            if target is None or target not in self.nodes or "%" in target:
                expected = "a JSON pointer to a subschema of this document, like #/$defs/name"
                self.problems.append(Problem(f"{node.path}.$ref", describe(reference), expected))
            else:
                node.in_place.append(target)

    def weigh(self, path: str) -> int:
        """The weight of the whole, references written out. Adds a problem for a cycle, for depth, for weight."""
        graph = {pointer: {*n.in_place, *n.elsewhere, *n.defined} for pointer, n in self.nodes.items()}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = " → ".join(f"#{pointer}" for pointer in reversed(error.args[1][:8]))
            self.problems.append(Problem(path, f"a $ref that leads back to itself: {circle}", "no cycles"))
            return 0
        weight: dict[str, int] = {}
        marking: dict[str, int] = {}
        nesting: dict[str, int] = {}
        for pointer in order:
            node = self.nodes[pointer]
            inner = node.in_place + node.elsewhere
            # Finding what is unevaluated asks each schema in place again, and those inside it once more.
            marking[pointer] = _capped(sum(weight[child] + marking[child] for child in node.in_place))
            asked_again = sum(name in node.schema for name in _unevaluated) if isinstance(node.schema, dict) else 0
            own = node.own + asked_again * marking[pointer]
            weight[pointer] = _capped(own + sum(weight[child] for child in inner))
            nesting[pointer] = 1 + max((nesting[child] for child in inner), default=0)
        if weight[""] > schema_weight_max:
            found = f"a weight of {weight['']}" if weight[""] < _CAP else "a weight beyond measure"
            expected = f"at most {schema_weight_max} assertions and subschemas, references and repetitions written out"
            self.problems.append(Problem(path, found, expected))
        if nesting[""] > schema_nesting_max:
            expected = f"at most {schema_nesting_max}, references written out"
            self.problems.append(Problem(path, f"subschemas {nesting['']} deep", expected))
        return weight[""]


_CAP: Final = 1 << 40


def _capped(count: int) -> int:
    return min(count, _CAP)


# --- compiling --------------------------------------------------------------------------------------------------


class CompiledSchema:
    """A schema that passed every check, ready to judge. Made by ``compile_schema`` only."""

    __slots__ = ("_compares_numbers", "_validator", "weight")

    def __init__(self, schema: dict[str, Any], weight: int, compares_numbers: bool) -> None:
        self._validator = jsonschema_rs.Draft202012Validator(
            schema, validate_formats=False, offline=True, pattern_options=_regex_options
        )
        self._compares_numbers = compares_numbers
        self.weight = weight

    def is_valid(self, value: object) -> bool:
        """The verdict. False for a value that is not JSON, and for one too costly to compare; never raises."""
        if not is_json_value(value) or (self._compares_numbers and _too_extreme(value)):
            return False
        return self._validator.is_valid(value)

    def errors(self, value: object, path: str = "output") -> list[Problem]:
        """Why ``value`` is invalid, for people: at most 16 problems, none if it is valid."""
        if not is_json_value(value):
            return [Problem(path, "a value that JSON does not have, or one too deep", "JSON")]
        if self.is_valid(value):
            return []
        if self._compares_numbers and _too_extreme(value):
            expected = f"at most {extreme_numbers_max} numbers beyond 1e±60, or beyond int64 beside floats"
            return [Problem(path, f"more than {extreme_numbers_max} numbers of extreme size", expected)]
        size = max(count_values(value, _ERROR_WORK_MAX), len(msgspec.json.encode(value)) // 16)
        if self.weight * size > _ERROR_WORK_MAX:
            return [Problem(path, describe(value), "a value that the contract's output_schema accepts")]
        return [_problem_of(error, path) for error in islice(self._validator.iter_errors(value), _PROBLEMS_MAX)]


def _too_extreme(value: object) -> bool:
    """Whether more than ``extreme_numbers_max`` numbers are extreme: the engine would compare them for minutes.

    A float is, beyond 1e60 or, not being 0, within 1e-60. An integer is, beyond int64, as far as there are floats
    to compare it with.
    """
    extreme = floats = large = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is float:
            floats += 1
            extreme += not (item == 0.0 or 1e-60 <= abs(item) <= 1e60)  # type: ignore[arg-type]
        elif kind is int:
            large += item > INT64_MAX  # type: ignore[operator]
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
    return extreme + min(floats, large) > extreme_numbers_max


def _problem_of(error: jsonschema_rs.ValidationError, path: str) -> Problem:
    where = path + "".join(map(path_step, error.instance_path))
    message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
    return Problem(where, describe(error.instance), f"what the schema says: {message}")


def compile_schema(schema: object, path: str = "output_schema") -> CompiledSchema:
    """The compiled form of a stranger's schema, from a bounded cache.

    Raises ``Refused("schema_refused")`` with a problem for each fault found, its path starting at ``path``.
    """
    if type(schema) is not dict:
        raise _refused([Problem(path, describe(schema), "a JSON Schema object")])
    try:
        key = msgspec.msgpack.encode(schema, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise _refused([_not_json(path)]) from None
    return _compiled(key, path)


def _not_json(path: str) -> Problem:
    return Problem(path, "a value that JSON does not have, or one too deep", f"JSON at most {schema_depth_max} deep")


def _refused(problems: list[Problem]) -> Refused:
    shown = tuple(problems[:_PROBLEMS_MAX])
    return Refused("schema_refused", "the output_schema is refused", shown)


@lru_cache(maxsize=64)
def _compiled(key: bytes, path: str) -> CompiledSchema:
    """``key`` is the schema as MessagePack: it tells apart all that JSON and CBOR do, at a tenth of their price."""
    schema = msgspec.msgpack.decode(key)
    if not is_json_value(schema, schema_depth_max):
        raise _refused([_not_json(path)])
    size = len(msgspec.json.encode(schema))
    if size > schema_bytes_max:
        raise _refused([Problem(path, f"{size} bytes", f"at most {schema_bytes_max} bytes as compact JSON")])
    document = _Document(schema, path)
    document.link()
    weight = document.weigh(path)
    if document.problems:
        raise _refused(document.problems)
    try:
        return CompiledSchema(schema, weight, document.compares_numbers)
    except ValueError as error:
        raise _refused([_problem_of_schema(error, path)]) from None


def _problem_of_schema(error: ValueError, path: str) -> Problem:
    """What the meta-schema or the regex engine objects to."""
    if not isinstance(error, jsonschema_rs.ValidationError):
        return Problem(path, "a schema that cannot be compiled", str(error)[:300])
    problem = _problem_of(error, path)
    if error.kind.name == "format" or '"regex"' in error.message:
        return Problem(problem.path, problem.found, "a pattern of the linear-time engine: no look-around, no \\1")
    return problem
