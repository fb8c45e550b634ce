"""Deterministic CBOR (RFC 8949 §4.2): the only place that turns values into bytes and back.

``decode`` accepts exactly the bytes that ``encode`` would give: text keys, no tags, no indefinite lengths,
integers that fit int64 or uint64, finite floats in their shortest form, depth bounded. So bytes that decode
here have one spelling, and a hash of them names one value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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


def sha256(data: bytes) -> bytes:
    """SHA-256 of ``data``, 32 bytes."""
    return hashlib.sha256(data).digest()


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bytes or kind is bool or value is None:
        return
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise Malformed("integer_range", f"integer of {value.bit_length()} bits: expected int64 or uint64")
    elif kind is dict:
        if depth >= codec_depth_max:
            raise Malformed("too_deep", f"nested deeper than {codec_depth_max}")
        for key, item in value.items():
            if type(key) is not str:
                raise Malformed("map_key", f"map key of type {type(key).__name__}: expected text")
            _check(item, depth + 1)
    elif kind is list or kind is tuple:
        if depth >= codec_depth_max:
            raise Malformed("too_deep", f"nested deeper than {codec_depth_max}")
        for item in value:
            _check(item, depth + 1)
    elif kind is float:
        if not isfinite(value):
            raise Malformed("float_not_finite", f"float {value}: expected a finite number")
    else:
        raise Malformed("type", f"{kind.__name__}: expected map, array, text, bytes, integer, float, boolean or null")


def check_value(value: Any) -> None:
    """Refuse a value that canonical CBOR does not carry. Raises ``Malformed``."""
    _check(value, 0)


def encode(value: Any) -> bytes:
    """Canonical CBOR of a value the kernel itself built (its types are known to be good)."""
    try:
        return cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, UnicodeEncodeError) as error:
        raise Malformed("not_encodable", f"cannot be encoded as CBOR: {error}") from None


def encode_checked(value: Any) -> bytes:
    """Canonical CBOR of a value that came from outside (JSON of a user or runtime). Raises ``Malformed``."""
    _check(value, 0)
    return encode(value)


def decode(data: bytes) -> Any:
    """The value of canonical CBOR bytes. Raises ``Malformed`` for anything that is not its own re-encoding."""
    try:
        value = cbor2.loads(
            data,
            max_depth=codec_depth_max + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_no_tags,
        )
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("not_cbor", f"not CBOR: {str(error)[:_error_chars_max]}") from None
    _check(value, 0)
    if cbor2.dumps(value, canonical=True) != data:
        raise Malformed("not_canonical", "not in canonical form: it does not re-encode to the same bytes")
    return value
