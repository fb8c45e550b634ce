"""Deterministic CBOR (RFC 8949 §4.2): the only place that turns values into bytes and back.

``decode`` accepts exactly the bytes that ``encode`` would give: text keys, no tags, no indefinite lengths,
integers that fit int64 or uint64, finite floats in their shortest form, depth bounded. So bytes that decode
here have one spelling, and a hash of them names one value.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, Never

import cbor2

from wattswarm.kernel.limits import codec_depth_max
from wattswarm.kernel.refusal import Malformed

INT_MIN = -(1 << 63)
INT_MAX = (1 << 64) - 1
_error_chars_max = 200

type_names = {
    dict: "map",
    list: "array",
    tuple: "array",
    str: "text",
    bytes: "bytes",
    int: "integer",
    float: "float",
}


class _NoTags(dict[int, Callable[..., Never]]):
    """For every tag, a decoder that refuses it: what cbor2 would build of some (a bignum, a regular expression, a
    cycle) costs more than the bytes did."""

    def __missing__(self, tag: int) -> Callable[..., Never]:
        def refuse(*_: object) -> Never:
            raise ValueError("tags have no place here")

        return refuse


_no_tags = _NoTags()
_as_they_are = frozenset((str, bytes, bool, type(None)))
_single = struct.Struct(">f")


def sha256(data: bytes) -> bytes:
    """SHA-256 of ``data``, 32 bytes."""
    return hashlib.sha256(data).digest()


def _check(value: Any, depth: int) -> bool:
    """Refuse what canonical CBOR does not carry.

    Returns whether the value's plain encoding is its canonical one: map keys in their order, no shorter floats.
    """
    kind = type(value)
    if kind in _as_they_are:
        return True
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise Malformed("integer_range", f"integer of {value.bit_length()} bits: expected int64 or uint64")
        return True
    if kind is float:
        if not isfinite(value):
            raise Malformed("float_not_finite", f"float {value}: expected a finite number")
        return _double(value)
    if kind is not dict and kind is not list and kind is not tuple:
        raise Malformed("type", f"{kind.__name__}: expected map, array, text, bytes, integer, float, boolean or null")
    if depth >= codec_depth_max:
        raise Malformed("too_deep", f"nested deeper than {codec_depth_max}")
    plain = True
    if kind is dict:
        plain = _ordered(value)
        value = value.values()
    for item in value:
        if type(item) not in _as_they_are:
            plain = _check(item, depth + 1) and plain
    return plain


def _ordered(keys: Iterable[Any]) -> bool:
    """Whether ASCII keys come in canonical order: the shorter first, then by their bytes (RFC 8949 §4.2.3)."""
    ordered, size, last = True, -1, ""
    for key in keys:
        if type(key) is not str:
            raise Malformed("map_key", f"map key of type {type(key).__name__}: expected text")
        longer = len(key)
        ordered = ordered and key.isascii() and (longer > size or (longer == size and key > last))
        size, last = longer, key
    return ordered


def _double(number: float) -> bool:
    """Whether a finite float needs all of its 64 bits, which is how a plain encoding writes every float."""
    try:
        single: float = _single.unpack(_single.pack(number))[0]
    except OverflowError:
        return True
    return single != number


def check_value(value: Any) -> None:
    """Refuse a value that canonical CBOR does not carry. Raises ``Malformed``."""
    _check(value, 0)


def encode(value: Any) -> bytes:
    """Canonical CBOR of a value the kernel itself built (its types are known to be good).

    Most values are canonical as they are, and then a plain encoding, which takes a quarter of the time, is the same.
    """
    try:
        plain = _check(value, 0)
    except Malformed:
        plain = False
    return _dumps(value, plain)


def encode_sorting(value: Any) -> bytes:
    """The same, for values whose maps are seldom in order: asking whether they are takes a third as long as sorting."""
    return _dumps(value, plain=False)


def _dumps(value: Any, plain: bool) -> bytes:
    try:
        return cbor2.dumps(value, canonical=not plain)
    except (cbor2.CBOREncodeError, UnicodeEncodeError) as error:
        raise Malformed("not_encodable", f"cannot be encoded as CBOR: {error}") from None


def encode_checked(value: Any) -> bytes:
    """Canonical CBOR of a value that came from outside (JSON of a user or runtime). Raises ``Malformed``."""
    return _dumps(value, _check(value, 0))


def decode(data: bytes) -> Any:
    """The value of canonical CBOR bytes. Raises ``Malformed`` for anything that is not its own re-encoding."""
    value = decode_known(data)
    plain = _check(value, 0)
    if cbor2.dumps(value, canonical=not plain) != data:
        raise Malformed("not_canonical", "not in canonical form: it does not re-encode to the same bytes")
    return value


def decode_known(data: bytes) -> Any:
    """The value of bytes whose hash names bytes that ``decode`` has accepted before: it costs a fifth of that.

    Raises ``Malformed`` for bytes that are no CBOR at all.
    """
    try:
        return cbor2.loads(
            data,
            max_depth=codec_depth_max + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_no_tags,
        )
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("not_cbor", f"not CBOR: {str(error)[:_error_chars_max]}") from None
