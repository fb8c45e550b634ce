"""The shape of one of our own documents, said in words: every fault of types, ranges and names at once.

A typed struct reads a document fast and stops at its first fault. For people, the JSON Schema generated from the
same struct is asked for all of them, and each becomes a ``Problem`` with a path, what was found and what was
expected. Bounded: a hostile document gets at most 32 lines. Serves the error messages of docs/protocol.md §6.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import msgspec

from wattswarm.kernel.jsonvalue import describe, is_json_value
from wattswarm.kernel.refusal import Problem

_PROBLEMS_MAX: Final = 32
_NAME_CHARS_MAX: Final = 64


def json_schema_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a struct's documents, with every reference written out."""
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
        return {key: written_out(item) for key, item in node.items() if key not in ("$defs", "title")}

    schema: dict[str, Any] = written_out(generated)
    return schema


class Shape:
    """A document type whose faults can be listed."""

    def __init__(self, source: type[msgspec.Struct] | dict[str, Any]) -> None:
        self.schema = source if isinstance(source, dict) else json_schema_of(source)
        self._validator = jsonschema_rs.Draft202012Validator(self.schema, offline=True)

    def problems(self, value: object, root: str, error: msgspec.ValidationError | None = None) -> list[Problem]:
        """The faults of ``value``; ``root`` is what a path at the top is called.

        ``error`` is the struct's own complaint. It speaks when the JSON Schema sees no fault: to JSON Schema,
        1.0 is an integer.
        """
        if not is_json_value(value):
            return [Problem(root, "bytes, a number beyond 64 bits, or nesting too deep", "JSON values")]
        problems: list[Problem] = []
        for fault in islice(self._validator.iter_errors(value), _PROBLEMS_MAX):
            problems.extend(self._read(fault, root))
        if not problems and error is not None:
            problems.append(_of_struct(error, root))
        return sorted(problems[:_PROBLEMS_MAX], key=lambda problem: problem.path)

    def _read(self, fault: jsonschema_rs.ValidationError, root: str) -> list[Problem]:
        kind = fault.kind
        where = list(fault.instance_path)
        if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
            fields = ", ".join(sorted(_section(self.schema, fault.schema_path)["properties"]))
            unknown = sorted(kind.unexpected)[:_PROBLEMS_MAX]
            return [
                Problem(_path([*where, name[:_NAME_CHARS_MAX]], root), "a field that is not known", f"one of {fields}")
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
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.lstrip(".") or root


_types: dict[str, str] = {
    "object": "a map",
    "array": "an array",
    "string": "text",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
}

_ranges: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("minimum", lambda bound: f"at least {bound}"),
    ("maximum", lambda bound: f"at most {bound}"),
)


def _wanted(section: dict[str, Any]) -> str:
    if "enum" in section:
        return " or ".join(str(choice) for choice in section["enum"])
    words = [_types.get(section.get("type", ""), "a value")]
    words += [say(section[keyword]) for keyword, say in _ranges if keyword in section]
    return ", ".join(words)


_struct_message = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)


def _of_struct(error: msgspec.ValidationError, root: str) -> Problem:
    message = _struct_message.fullmatch(str(error))
    assert message is not None
    return Problem(message["path"] or root, message["what"].replace("`", ""), "what the field's type says")
