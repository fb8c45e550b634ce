"""Claims about the bytes of a Negentropy message: what is written is read again, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.proto import ranges
from net.proto.items import id_bytes, infinity, record, seconds_max
from net.proto.ranges import Fingerprint, IdList, Range, Skip, Writer, minimal_bound, read, varint
from wattswarm.kernel.refusal import Malformed

bounds = st.builds(
    lambda seconds, prefix: seconds.to_bytes(8, "big") + prefix,
    st.one_of(st.integers(0, seconds_max), st.integers(0, 3)),
    st.binary(max_size=id_bytes),
)
payloads = st.one_of(
    st.builds(Skip, st.just(b"")),
    st.builds(Fingerprint, st.just(b""), st.binary(min_size=16, max_size=16)),
    st.builds(lambda ids: IdList(b"", b"".join(ids)), st.lists(st.binary(min_size=32, max_size=32), max_size=3)),
)


def reach(range_: Range, upper: bytes) -> Range:
    """The range with another bound."""
    match range_:
        case Skip():
            return Skip(upper)
        case Fingerprint():
            return Fingerprint(upper, range_.fingerprint)
        case IdList():
            return IdList(upper, range_.ids)


def with_merged_skips(said: list[Range]) -> list[Range]:
    """The ranges without a skip that another follows, or nothing."""
    following = [*said, Skip(infinity)][1:]
    return [one for one, after in zip(said, following, strict=True) if not (type(one) is Skip is type(after))]


@given(st.lists(bounds, max_size=20, unique=True), st.lists(payloads, min_size=21, max_size=21), st.booleans())
def test_what_is_written_is_read_but_for_skips_that_say_nothing(
    uppers: list[bytes], some: list[Range], to_infinity: bool
) -> None:
    uppers = sorted(uppers) + [infinity] * to_infinity
    said = [reach(one, upper) for one, upper in zip(some, uppers, strict=False)]
    writer = Writer(1 << 20)
    assert writer.put_all(said)
    message = writer.message()
    if message is None:
        assert with_merged_skips(said) == []
    else:
        assert list(read(message)) == with_merged_skips(said)


def test_numbers_are_base_128_with_the_most_significant_digit_first() -> None:
    written = {0: "00", 127: "7f", 128: "8100", 300: "822c", 16_384: "818000", (1 << 64) - 1: "81ffffffffffffffff7f"}
    assert {number: varint(number).hex() for number in written} == written


def test_a_message_is_these_bytes() -> None:
    writer = Writer(4_096)
    first = b"\0\0\0\0\0\0\1\0"  # 256 seconds
    said: list[Range] = [Skip(first), Fingerprint(first + b"\xab", b"f" * 16), IdList(infinity, b"i" * 32)]
    assert writer.put_all(said)
    message = writer.message()
    assert message is not None
    assert message.hex() == "61820100000101ab01" + "66" * 16 + "00000201" + "69" * 32


@given(st.integers(0, seconds_max), st.integers(0, 2), st.tuples(st.binary(min_size=32, max_size=32), bounds))
def test_a_minimal_bound_parts_two_records(seconds: int, step: int, ids: tuple[bytes, bytes]) -> None:
    before = record(seconds, ids[0])
    after = record(min(seconds_max, seconds + step), ids[0][: len(ids[1]) % 32].ljust(32, b"\xff"))
    if before < after:
        bound = minimal_bound(before, after)
        assert before < bound <= after
        assert before[: len(bound) - 1] == bound[:-1] or bound == after[:8]


def test_ranges_that_do_not_fit_leave_no_trace() -> None:
    said: list[Range] = [Skip(bytes(8)), IdList((1 << 40).to_bytes(8, "big"), b"i" * 3_904)]
    writer, same = Writer(4_096), Writer(4_096)
    assert writer.put_all([Skip(bytes(7) + b"\1")])
    assert same.put_all([Skip(bytes(7) + b"\1")])
    assert not writer.put_all(said)
    rest = Fingerprint(infinity, bytes(16))
    writer.put(rest)
    same.put(rest)
    assert writer.message() == same.message()


malformed = {
    "a bound without its mode": "0000",
    "a bound without its length": "01",
    "a range that ends in its bound": "0105aabb",
    "a bound longer than an id": "0121" + "00" * 33 + "00",
    "half a fingerprint": "000001" + "aa" * 15,
    "an unknown mode": "000003",
    "a mode of 64 bits": "0000" + "81ffffffffffffffff7f",
    "a list that lacks a byte": "00000201" + "aa" * 31,
    "a list of a thousand million ids": "000002" + varint(10**9).hex() + "aa" * 64,
    "a list of 2^64 - 1 ids": "000002" + varint((1 << 64) - 1).hex(),
    "a number of more than 64 bits": "82808080808080808000" + "00" + "00",
    "a number that never ends": "ff" * 1_000_000,
    "a number that begins with nothing": "8001" + "00" + "00",
    "a bound at infinity that is written out": varint((1 << 64) - 1).hex() + "0000" + "020000",
    "seconds beyond 64 bits": varint((1 << 64) - 1).hex() + "0000" + varint((1 << 64) - 1).hex() + "0000",
    "bounds that go back": "0501ff0001010000",
    "something after infinity": "000000010000",
}


@pytest.mark.parametrize("body", malformed.values(), ids=malformed.keys())
def test_this_is_malformed(body: str) -> None:
    with pytest.raises(Malformed):
        list(read(bytes.fromhex("61" + body)))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(body: bytes) -> None:
    try:
        said = list(read(b"\x61" + body))
    except Malformed:
        return
    uppers = [one.upper for one in said]
    assert uppers == sorted(uppers)


def test_the_last_second_is_a_bound_and_the_one_after_is_not() -> None:
    last = varint(seconds_max + 1).hex()
    assert list(read(bytes.fromhex("61" + last + "0000"))) == [Skip(seconds_max.to_bytes(8, "big"))]
    with pytest.raises(Malformed):
        list(read(bytes.fromhex("61" + last + "0000020000")))


def test_a_message_may_end_twice_at_infinity_as_the_reference_writes_it() -> None:
    assert list(read(bytes.fromhex("61" + "000000" * 2))) == [Skip(infinity)] * 2


def test_there_are_only_so_many_ranges() -> None:
    most = b"\x61" + b"\0\0\0" * ranges.ranges_max
    assert sum(1 for _ in read(most)) == ranges.ranges_max
    with pytest.raises(Malformed):
        list(read(most + b"\0\0\0"))
