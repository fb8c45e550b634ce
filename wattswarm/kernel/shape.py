"""The shape of one of our own documents, said in words: every fault of types, ranges and names at once.

A typed struct reads a document fast and stops at its first fault. For people, the JSON Schema generated from the
same struct is asked for all of them, and each becomes a ``Problem`` with a path, what was found and what was
expected. Bounded: a hostile document gets at most 32 lines. Serves the error messages of docs/protocol.md §6.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import msgspec

from wattswarm.kernel.jsonvalue import INT64_MAX, describe, not_json, path_step
from wattswarm.kernel.refusal import Problem

_PROBLEMS_MAX: Final = 32


def json_schema_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a struct's documents, every reference written out, without our own docstrings."""
    generated = msgspec.json.schema(struct)
    definitions = generated.get("$defs", {})

    def written_out(node: Any) -> Any:
        if isinstance(node, list):
            return [written_out(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return written_out(definitions[node["$ref"].removeprefix("#/$defs/")])
        if "type" in node and "anyOf" in node:  # a union that the struct's own annotation already names
            node = {key: item for key, item in node.items() if key != "anyOf"}
        return {key: written_out(item) for key, item in node.items() if key not in ("$defs", "title", "description")}

    schema: dict[str, Any] = written_out(generated)
    return schema


class Shape:
    """A document type whose faults can be listed."""

    def __init__(self, source: type[msgspec.Struct] | dict[str, Any]) -> None:
        self.schema = source if isinstance(source, dict) else json_schema_of(source)
        self._validator = jsonschema_rs.Draft202012Validator(self.schema, offline=True)

    def problems(self, value: object, root: str) -> list[Problem]:
        """The faults of ``value`` in the order of their paths; ``root`` is what the path of the whole is called."""
        foreign = islice(not_json(value), _PROBLEMS_MAX)
        problems = [Problem(path or root, found, "a value that JSON has") for path, found in foreign]
        if not problems:
            problems += _fractions_for_integers(self.schema, value, [])
            for fault in islice(self._validator.iter_errors(value), _PROBLEMS_MAX):
                problems += self._read(fault, root)
        return sorted(problems[:_PROBLEMS_MAX], key=lambda problem: problem.path)

    def _read(self, fault: jsonschema_rs.ValidationError, root: str) -> list[Problem]:
        kind = fault.kind
        where = list(fault.instance_path)
        if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
            fields = ", ".join(sorted(_section(self.schema, fault.schema_path)["properties"]))
            unknown = sorted(kind.unexpected)[:_PROBLEMS_MAX]
            return [
                Problem(_path([*where, name], root), "a field that is not known", f"one of {fields}")
                for name in unknown
            ]
        if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
            section = _section(self.schema, fault.schema_path)["properties"][kind.property]
            return [Problem(_path([*where, kind.property], root), "nothing", _wanted(section))]
        section = _section(self.schema, fault.schema_path)
        return [Problem(_path(where, root), describe(fault.instance), _wanted(section))]


def _section(schema: dict[str, Any], schema_path: list[str | int]) -> dict[str, Any]:
    """The subschema whose last keyword complained."""
    section: Any = schema
    for step in schema_path[:-1]:
        section = section[step]
    found: dict[str, Any] = section
    return found


def _path(steps: list[str | int], root: str) -> str:
    return "".join(map(path_step, steps)).lstrip(".") or root


_types: dict[str, str] = {
    "object": "a map",
    "array": "an array",
    "string": "text",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
}


def _wanted(section: dict[str, Any]) -> str:
    if "enum" in section:
        return " or ".join(str(choice) for choice in section["enum"])
    kind = _types.get(section.get("type", ""), "a value")
    least, most = section.get("minimum"), section.get("maximum")
    if least is None or most is None:
        return kind
    return f"{kind}, at least {least}" if most == INT64_MAX else f"{kind} from {least} to {most}"


def _fractions_for_integers(section: dict[str, Any], value: Any, where: list[str | int]) -> Iterator[Problem]:
    """1.0 where an integer belongs: JSON Schema lets it pass, the protocol does not."""
    if type(value) is float and value.is_integer() and _wants_integer(section):
        yield Problem(_path(where, ""), describe(value), _wanted(section))
    elif isinstance(value, dict):
        for name, inner in section.get("properties", {}).items():
            if name in value:
                yield from _fractions_for_integers(inner, value[name], [*where, name])


def _wants_integer(section: dict[str, Any]) -> bool:
    return section.get("type") == "integer" or any(type(choice) is int for choice in section.get("enum", ()))
