"""JSON values from outside: whether a value is one, how large it is, and how an error message shows it.

A value is JSON here if JSON and canonical CBOR both carry it, so that what a runtime answered, what an event
holds and what a schema judges are the same thing. Knows nothing of schemas or contracts. Keeps the value
rules of docs/protocol.md §1.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Final

import msgspec

from wattswarm.kernel.codec import INT_MAX, INT_MIN
from wattswarm.kernel.limits import codec_depth_max

INT64_MAX: Final = (1 << 63) - 1
_NAME_CHARS_MAX: Final = 64


def is_json_value(value: object, depth_max: int = codec_depth_max) -> bool:
    """Whether JSON and canonical CBOR both carry ``value``: no bytes, no NaN, 64-bit integers, real text, depth."""
    kind = type(value)
    if kind is str:
        assert isinstance(value, str)
        return value.isascii() or _is_text(value)
    if kind is bool or value is None:
        return True
    if kind is int:
        return INT_MIN <= value <= INT_MAX  # type: ignore[operator]
    if kind is float:
        return isfinite(value)  # type: ignore[arg-type]
    if depth_max == 0:
        return False
    if isinstance(value, dict):
        return all(
            type(key) is str and (key.isascii() or _is_text(key)) and is_json_value(item, depth_max - 1)
            for key, item in value.items()
        )
    if isinstance(value, (list, tuple)):
        return all(is_json_value(item, depth_max - 1) for item in value)
    return False


def path_step(step: str | int) -> str:
    """One step of a path in an error message: ``.name``, cut at 64 characters, or ``[number]``."""
    return f"[{step}]" if isinstance(step, int) else f".{step[:_NAME_CHARS_MAX]}"


def not_json(value: object, path: str = "", depth_max: int = codec_depth_max) -> Iterator[tuple[str, str]]:
    """(path, what was found) of each part of ``value`` that keeps it from being JSON; paths as ``a.b[0]``."""
    if not isinstance(value, (dict, list, tuple)):
        if not is_json_value(value):
            yield path, describe(value)
    elif depth_max == 0:
        yield path, "nesting too deep"
    elif isinstance(value, dict):
        for key, item in value.items():
            if is_json_value(key) and isinstance(key, str):
                yield from not_json(item, (path + path_step(key)).lstrip("."), depth_max - 1)
            else:
                yield path, f"a name that is {describe(key)}"
    else:
        for number, item in enumerate(value):
            yield from not_json(item, path + path_step(number), depth_max - 1)


def _is_text(text: str) -> bool:
    """False for text with a lone surrogate: Python has it, UTF-8 does not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_WHITE_SPACE: Final = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space, spelled out: what counts as blank must not depend on a language's own idea of it."""


def is_blank(text: str) -> bool:
    """Whether nothing but white space is in ``text``."""
    return not text.strip(_WHITE_SPACE)


def count_values(value: object, stop_at: int) -> int:
    """How many JSON values ``value`` holds, itself included; counting ends at ``stop_at``."""
    count, waiting = 0, [value]
    while waiting and count < stop_at:
        item = waiting.pop()
        count += 1
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
    return count


def describe(value: object) -> str:
    """A value as an error message shows it: its type and, where that is short, the value itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"integer {value}" if INT_MIN <= value <= INT_MAX else "an integer of more than 64 bits"
    if isinstance(value, float):
        return f"number {value}"
    if isinstance(value, str):
        shown = value if len(value) <= 60 else value[:60] + "…"
        return "text " + msgspec.json.encode(shown.encode(errors="replace").decode()).decode()
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"an array of {len(value)}"
    return "bytes" if isinstance(value, bytes) else type(value).__name__
