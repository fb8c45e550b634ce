"""Deterministic CBOR: one spelling a value, and nothing a stranger sends costs more than its bytes (RFC 8949 §4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wattswarm.kernel import codec, limits
from wattswarm.kernel.refusal import Malformed

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(codec.INT_MIN, codec.INT_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.binary(),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = wrap(value)
    return value


def in_map(inner: Any) -> Any:
    return {"a": inner}


def reason_of(data: bytes) -> str:
    with pytest.raises(Malformed) as refusal:
        codec.decode(data)
    return refusal.value.reason


@given(values)
def test_what_is_encoded_decodes_to_itself(value: Any) -> None:
    data = codec.encode_checked(value)
    decoded = codec.decode(data)
    assert decoded == value
    assert codec.encode(decoded) == data


@given(st.binary(max_size=200))
@example(b"\x1f")
@example(b"\xc2\x5a\x00\x01\x00\x00" + b"\xff" * 65_536)
def test_any_bytes_decode_to_their_own_value_or_are_malformed(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except Malformed:
        return
    assert codec.encode(value) == data


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65_536, codec.INT_MAX, -1, -24, -25, codec.INT_MIN])
def test_integers_of_64_bits_are_carried(number: int) -> None:
    assert codec.decode(codec.encode_checked(number)) == number


@pytest.mark.parametrize(
    "number", [codec.INT_MAX + 1, codec.INT_MIN - 1, 1 << 100_000], ids=["over", "under", "far over"]
)
def test_larger_integers_are_refused(number: int) -> None:
    with pytest.raises(Malformed) as refusal:
        codec.encode_checked(number)
    assert refusal.value.reason == "integer_range"


@pytest.mark.parametrize("number", [0.0, -0.0, 1.5, 1e300, 5e-324, 65_504.0])
def test_finite_floats_are_carried_with_their_sign(number: float) -> None:
    decoded = codec.decode(codec.encode_checked(number))
    assert (decoded, math.copysign(1, decoded)) == (number, math.copysign(1, number))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_floats_that_are_not_finite_are_refused(number: float) -> None:
    with pytest.raises(Malformed) as refusal:
        codec.encode_checked(number)
    assert refusal.value.reason == "float_not_finite"
    assert reason_of(cbor2.dumps(number)) == "float_not_finite"


@pytest.mark.parametrize("wrap", [lambda inner: [inner], in_map], ids=["arrays", "maps"])
def test_forty_levels_are_carried_and_more_are_not(wrap: Callable[[Any], Any]) -> None:
    deepest = nested(limits.codec_depth_max, wrap)
    assert codec.decode(codec.encode_checked(deepest)) == deepest
    with pytest.raises(Malformed) as refusal:
        codec.encode_checked(wrap(deepest))
    assert refusal.value.reason == "too_deep"
    assert reason_of(cbor2.dumps(wrap(deepest))) == "too_deep"


def test_levels_without_end_are_no_cbor() -> None:
    assert reason_of(b"\x81" * 100_000 + b"\x00") == "not_cbor"


@pytest.mark.parametrize("value", [{1: 2}, {b"a": 1}, {None: 1}, {"a": {2: 3}}])
def test_map_keys_are_text(value: dict[Any, Any]) -> None:
    with pytest.raises(Malformed) as refusal:
        codec.encode_checked(value)
    assert refusal.value.reason == "map_key"
    with pytest.raises(Malformed):
        codec.decode(cbor2.dumps(value))


@pytest.mark.parametrize("value", [{1, 2}, bytearray(b"x"), object(), 1j])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(Malformed) as refusal:
        codec.encode_checked(value)
    assert refusal.value.reason == "type"


def test_a_text_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(Malformed) as refusal:
        codec.encode_checked("\ud800")
    assert refusal.value.reason == "not_encodable"


@pytest.mark.parametrize(
    "tag", [*range(24), 24, 25, 28, 29, 30, 35, 36, 37, 100, 258, 260, 1004, 43_000, 55_799, 1 << 40]
)
@pytest.mark.parametrize("inner", [0, b"\xff", "((a*)*)*", [], [1, 2], {}, 1.5])
def test_no_tag_is_read(tag: int, inner: Any) -> None:
    assert reason_of(cbor2.dumps(cbor2.CBORTag(tag, inner))) == "not_cbor"


@pytest.mark.parametrize("head", ["9b", "bb", "5b", "7b"])
def test_a_length_that_is_not_there_is_not_allocated(head: str) -> None:
    assert reason_of(bytes.fromhex(head + "7fffffffffffffff")) == "not_cbor"


def test_the_complaint_about_a_long_key_is_short() -> None:
    key = b"\x7a" + (60_000).to_bytes(4, "big") + b"k" * 60_000
    with pytest.raises(Malformed) as refusal:
        codec.decode(b"\xa2" + key + b"\x00" + key + b"\x01")
    assert len(refusal.value.message) < 300
