"""A frame is a message or its sender's fault, and finding out costs little whatever it is (docs/network.md §4)."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from net.proto import frame
from net.proto import message as m
from tests.net.proto.said import any_message, drawn, standing
from wattswarm.kernel import codec, limits
from wattswarm.kernel.refusal import Malformed

h32 = b"\x07" * 32
h24 = h32[: m.prefix_bytes]
s64 = b"\x09" * 64
wire = (b"body", s64)


def reason_of(data: bytes) -> str:
    with pytest.raises(Malformed) as refusal:
        frame.decode(data)
    assert len(refusal.value.message) < 300
    return refusal.value.reason


# -- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", m.messages.values(), ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_went(kind: type[m.Message]) -> None:
    @given(drawn[kind])
    def check(message: m.Message) -> None:
        data = frame.encode(message)
        assert frame.decode(data) == message
        assert codec.encode(codec.decode(data)) == data, "what we send is canonical"

    check()


def test_the_codes_are_those_of_the_table_and_every_message_has_a_lane() -> None:
    names = (
        "Hello Welcome Events Have Want FrontierGet Frontier RangeGet Range NegOpen NegMsg NegErr NegClose Cert "
        "CertIds CertGet ProofGet Proof Prune Graft PeersGet Peers Relation Ping Pong Bye"
    )
    assert {number: kind.__name__ for number, kind in m.messages.items()} == dict(enumerate(names.split(), 1))
    assert m.lanes.keys() == set(m.messages.values())


@pytest.mark.parametrize(
    ("message", "lane"),
    [
        (m.Bye("over"), m.FINALITY),
        (m.Cert((b"x",)), m.FINALITY),
        (m.Events((wire,)), m.EVENTS),
        (m.Have((h32,)), m.EVENTS),
        (m.Range(h32, (), False), m.BACKFILL),
        (m.NegClose(1), m.BACKFILL),
    ],
)
def test_finality_goes_first_and_backfill_last(message: m.Message, lane: int) -> None:
    assert m.lane(message) == lane


@pytest.mark.parametrize("number", [0, 27, 200, 65_535, 1 << 32, codec.INT_MAX])
def test_an_unknown_type_is_told_without_a_look_at_the_rest(number: int) -> None:
    assert frame.decode(codec.encode([number, "whatever"])) == frame.Unknown(number)
    assert frame.decode(codec.encode([number])) == frame.Unknown(number)
    assert frame.decode(codec.encode([number, 0])[:-1] + b"\xff\xff") == frame.Unknown(number)


def test_a_head_that_is_longer_than_it_need_be_is_read() -> None:
    assert frame.decode(b"\x82\x18\x18\x1b" + bytes(7) + b"\x05") == m.Ping(5)


def test_bodies_come_out_as_the_bytes_that_went_in_whatever_they_are() -> None:
    bodies = (b"\xff" * 70_000, b"\x00", bytes(range(256)))
    got = frame.decode(frame.encode(m.Events(tuple((body, s64) for body in bodies))))
    assert isinstance(got, m.Events)
    assert tuple(body for body, _ in got.events) == bodies


# -- bounds --------------------------------------------------------------------------------------------------------

longest_host = "a" * 249
u32, u64 = (1 << 32) - 1, codec.INT_MAX
most = limits.counter_max
good_hello = [1, [1], h32, h32, u64, h32, 0, [], None]


def hello(place: int, value: Any) -> list[Any]:
    return [*good_hello[:place], value, *good_hello[place + 1 :]]


def plain(part: Any) -> Any:
    return codec.decode(codec.encode(msgspec.to_builtins(part, builtin_types=(bytes,))))


def standing_with(**changes: Any) -> Any:
    return plain(msgspec.structs.replace(standing, **changes))


# what is just allowed, and what is just not
bounds: dict[str, tuple[list[Any], list[Any]]] = {
    "versions at most": (hello(1, [1] * 8), hello(1, [1] * 9)),
    "versions at least": (hello(1, [0]), hello(1, [])),
    "version": (hello(1, [65_535]), hello(1, [65_536])),
    "network id": (hello(2, h32), hello(2, h32 + b"x")),
    "network id short": (hello(2, h32), hello(2, h32[1:])),
    "node id": (hello(3, h32), hello(3, h32[1:])),
    "boot id": (hello(4, u64), hello(4, -1)),
    "boot id over": (hello(4, u64), hello(4, u64 + 1)),
    "nonce": (hello(5, h32), hello(5, h32 + b"x")),
    "time": (hello(6, (1 << 48) - 1), hello(6, 1 << 48)),
    "time before 1970": (hello(6, 0), hello(6, -1)),
    "listen": (hello(7, ["a:1"] * 8), hello(7, ["a:1"] * 9)),
    "address": (hello(7, [f"{longest_host}:65535"]), hello(7, [f"{longest_host}a:65535"])),
    "port": (hello(7, ["a:65535"]), hello(7, ["a:65536"])),
    "port 0": (hello(7, ["a:1"]), hello(7, ["a:0"])),
    "address form": (hello(7, ["[::1]:1"]), hello(7, ["::1:1"])),
    "address line": (hello(7, ["a:1"]), hello(7, ["a:1\n"])),
    "proof": (hello(8, [h32, s64, plain(standing)]), hello(8, [h32, s64[1:], plain(standing)])),
    "proof nonce": (hello(8, [h32, s64, plain(standing)]), hello(8, [h32[1:], s64, plain(standing)])),
    "no field more": (good_hello, [*good_hello, 1]),
    "no field less": (good_hello, good_hello[:-1]),
    "count": ([2, standing_with(events=m.Total(most, h32)), True], [2, standing_with(events=m.Total(u64, h32)), True]),
    "sum": ([2, plain(standing), True], [2, standing_with(events=m.Total(1, h32[1:])), True]),
    "root": ([2, plain(standing), True], [2, standing_with(state_root=h32[1:]), True]),
    "protocol version": (
        [2, standing_with(protocol_version="1" * 32), True],
        [2, standing_with(protocol_version="1" * 33), True],
    ),
    "observer": ([2, plain(standing), False], [2, plain(standing), 0]),
    "events": ([3, [wire] * 512], [3, [wire] * 513]),
    "body": ([3, [(b"x" * 131_008, s64)]], [3, [(b"x" * 131_009, s64)]]),
    "body empty": ([3, [(b"x", s64)]], [3, [(b"", s64)]]),
    "signature": ([3, [(b"x", s64)]], [3, [(b"x", s64 + b"x")]]),
    "signature short": ([3, [(b"x", s64)]], [3, [(b"x", s64[1:])]]),
    "event of two": ([3, [wire]], [3, [(*wire, b"x")]]),
    "have": ([4, [h32] * 1_000], [4, [h32] * 1_001]),
    "have id": ([4, [h32]], [4, [h32[1:]]]),
    "want": ([5, [h32] * 1_000], [5, [h32] * 1_001]),
    "frontier get": ([6], [6, 0]),
    "frontier": ([7, [(h32, most, h24)] * 4_096, False], [7, [(h32, most, h24)] * 4_097, False]),
    "frontier seq": ([7, [(h32, most, h24)], False], [7, [(h32, most + 1, h24)], False]),
    "frontier seq negative": ([7, [(h32, 0, h24)], False], [7, [(h32, -1, h24)], False]),
    "frontier prefix": ([7, [(h32, 0, h24)], False], [7, [(h32, 0, h32)], False]),
    "frontier prefix short": ([7, [(h32, 0, h24)], False], [7, [(h32, 0, h24[1:])], False]),
    "range get": ([8, h32, 5, 5], [8, h32, 6, 5]),
    "range get over": ([8, h32, 0, most], [8, h32, 0, u64]),
    "range get negative": ([8, h32, 0, most], [8, h32, -1, most]),
    "range": ([9, h32, [wire] * 256, True], [9, h32, [wire] * 257, True]),
    "neg open session": ([10, u32, 0, b"a"], [10, u32 + 1, 0, b"a"]),
    "neg open set": ([10, 1, 2, b"a"], [10, 1, 3, b"a"]),
    "neg open empty": ([10, 1, 1, b"a"], [10, 1, 1, b""]),
    "neg msg": ([11, 0, b"a" * m.blob_bytes_max], [11, 0, b"a" * (m.blob_bytes_max + 1)]),
    "neg err": ([12, 0, "a" * 64], [12, 0, "a" * 65]),
    "neg err text": ([12, 0, "a_9"], [12, 0, "a b"]),
    "neg close": ([13, 0], [13, -1]),
    "cert": ([14, [b"x"] * 64], [14, [b"x"] * 65]),
    "certificate": ([14, [b"x" * 524_288]], [14, [b"x" * 524_289]]),
    "cert ids": ([15, [h32] * 1_000], [15, [h32] * 1_001]),
    "cert get": ([16, [h32] * 1_000], [16, [h32] * 1_001]),
    "proof get": ([17, h32, most], [17, h32, u64]),
    "bundle": ([18, h32, 1, b"x" * m.blob_bytes_max], [18, h32, 1, b"x" * (m.blob_bytes_max + 1)]),
    "peers": ([22, ["a:1"] * 32], [22, ["a:1"] * 33]),
    "relation": ([23, "request"], [23, "requests"]),
    "ping": ([24, u64], [24, u64 + 1]),
    "ping negative": ([24, 0], [24, -1]),
    "pong load": ([25, u64, u32], [25, u64, u32 + 1]),
    "bye": ([26, "a" * 64], [26, ""]),
    "bye lines": ([26, "over"], [26, "over\n"]),
    "type": ([6], [-1]),
}


@pytest.mark.parametrize("name", bounds)
def test_a_bound_is_where_it_is_said_to_be(name: str) -> None:
    within, beyond = bounds[name]
    assert type(frame.decode(cbor2.dumps(within))) is m.messages[within[0]]
    reason_of(cbor2.dumps(beyond))


def test_every_message_with_fields_has_a_bound_above() -> None:
    fieldless = {m.Prune, m.Graft, m.PeersGet}
    assert {m.messages[within[0]] for within, _ in bounds.values()} == set(m.messages.values()) - fieldless


@pytest.mark.parametrize("number", range(1, 27))
@pytest.mark.parametrize("value", [None, True, 1.5, {}, {"a": 1}, "A text", b"bytes", [], [[]], -(1 << 63), u64])
def test_a_field_of_another_type_is_the_senders_fault(number: int, value: Any) -> None:
    kind = m.messages[number]
    fields = [value] * max(1, len(kind.__struct_fields__))
    try:
        assert isinstance(frame.decode(cbor2.dumps([number, *fields])), kind)
    except Malformed:
        return
    assert (kind, value) in [
        *((kind, []) for kind in (m.Events, m.Have, m.Want, m.Cert, m.CertIds, m.CertGet, m.Peers)),
        (m.Ping, u64),
    ]


def test_a_frame_of_a_mebibyte_is_taken_and_one_byte_more_is_not() -> None:
    rest = m.frame_bytes_max - len(cbor2.dumps([14, [b"x" * 524_288, b""]])) - 4
    data = cbor2.dumps([14, [b"x" * 524_288, b"y" * rest]])
    assert len(data) == m.frame_bytes_max
    assert isinstance(frame.decode(data), m.Cert)
    assert reason_of(data + b"\x00") == "too_large"
    assert reason_of(cbor2.dumps([99, b"z" * m.frame_bytes_max])) == "too_large"


def test_a_frame_of_ours_that_nobody_would_take_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        frame.encode(m.Cert((b"x" * 524_288,) * 2))


def test_the_largest_hello_fits_what_a_stranger_may_send() -> None:
    large = m.Standing(m.Total(most, h32), m.Total(most, h32), h32, "1" * 32)
    proof = m.ClientProof(h32, s64, large)
    greatest = m.Hello((65_535,) * 8, h32, h32, u64, h32, (1 << 48) - 1, (f"{longest_host}:65535",) * 8, proof)
    assert len(frame.encode(greatest)) <= 4_096


# -- packing -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 131_008), max_size=80), st.integers(1, 512))
def test_packed_events_are_all_there_in_order_and_every_portion_fits(sizes: list[int], count: int) -> None:
    wires = [(bytes([place]) * size, s64) for place, size in enumerate(sizes)]
    portions = list(frame.packed(wires, count))
    assert [one for portion in portions for one in portion] == wires
    for portion in portions:
        assert 1 <= len(portion) <= count
        assert len(frame.encode(m.Events(tuple(portion)))) <= 65_536 + 16 or len(portion) == 1


def test_small_events_travel_by_the_portion() -> None:
    assert [len(portion) for portion in frame.packed([wire] * 70)] == [32, 32, 6]


# -- hostile bytes -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x80")
@example(b"\x81")
@example(b"\x81\x18")
@example(b"\x98\x01\x06")
@example(b"\x82\x03\x9b\xff\xff\xff\xff\xff\xff\xff\xff")
def test_any_bytes_are_a_message_unknown_or_malformed(data: bytes) -> None:
    try:
        got = frame.decode(data)
    except Malformed:
        return
    assert isinstance(got, frame.Unknown) or type(got) in m.lanes


@given(any_message, st.data())
def test_a_damaged_frame_is_a_message_unknown_or_malformed(message: m.Message, data: st.DataObject) -> None:
    damaged = bytearray(frame.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                damaged[place] = data.draw(st.integers(0, 255))
            case 1:
                damaged.insert(place, data.draw(st.integers(0, 255)))
            case _:
                del damaged[place : place + data.draw(st.integers(1, 9))]
                damaged = damaged or bytearray(b"\x00")
    try:
        got = frame.decode(bytes(damaged))
    except Malformed:
        return
    if not isinstance(got, frame.Unknown):
        assert frame.decode(frame.encode(got)) == got


@given(any_message, st.binary(min_size=1, max_size=20))
def test_nothing_may_follow_a_frames_item_and_nothing_may_lack(message: m.Message, more: bytes) -> None:
    data = frame.encode(message)
    assert reason_of(data + more) == "frame_end"
    reason_of(data[:-1])


hostile = {
    "deep": b"\x81" * 100_000 + b"\x00",
    "deep in events": b"\x82\x03" + b"\x81" * 100_000 + b"\x00",
    "declared array": b"\x82\x03\x9b\x7f" + b"\xff" * 7,
    "declared bytes": b"\x82\x0b\x5b\x7f" + b"\xff" * 7,
    "declared text": b"\x82\x18\x1a\x7b\xff" + b"\xff" * 7,
    "negative": b"\x82\x18\x18\x20",
    "negative of 64 bits": b"\x82\x18\x18\x3b" + b"\xff" * 8,
    "cut length": b"\x82\x03\x9b\x7f",
    "tag": b"\x82\x18\x18\xc0\x00",
    "bignum": b"\x82\x18\x18\xc2\x5a\x00\x0f\x00\x00" + b"\xff" * 0xF0000,
    "indefinite array": b"\x9f\x18\x18\x00\xff",
    "indefinite inside": b"\x82\x03\x9f\xff",
    "indefinite bytes": b"\x82\x18\x18\x5f\x41\x00\xff",
    "map": b"\x82\x03\xa2\x61a\x00\x61a\x01",
    "float": b"\x82\x18\x18\xf9\x00\x00",
    "undefined": b"\x82\x18\x18\xf7",
    "simple": b"\x82\x18\x18\xe0",
    "reserved": b"\x82\x18\x18\x1c",
    "zeros": b"\x82\x03\x9a\x00\x0f\xff\xf0" + b"\x00" * 0xFFFF0,
    "empty arrays": b"\x82\x03\x9a\x00\x0f\xff\xf0" + b"\x80" * 0xFFFF0,
    "nested pairs": b"\x82\x03\x9a\x00\x07\x00\x00" + b"\x81\x00" * 0x70000,
    "lists in a list": b"\x82\x03\x82" + (b"\x9a\x00\x07\x00\x00" + b"\x00" * 0x70000) * 2,
    "text that is not": b"\x82\x18\x1a\x62\xff\xfe",
    "surrogate": b"\x82\x18\x1a\x63\xed\xa0\x80",
}


@pytest.mark.parametrize("name", hostile)
def test_a_hostile_frame_is_malformed_and_takes_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        reason_of(hostile[name])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_no_more_items_are_built_than_the_largest_message_has() -> None:
    full = [7, [(h32, most, h24)] * 4_096, False]
    items = 1 + 3 + 4_096 * 4
    assert items <= frame.items_max < items + 16
    assert isinstance(frame.decode(cbor2.dumps(full)), m.Frontier)
    assert reason_of(cbor2.dumps([3, [0] * frame.items_max])) == "frame_items"


def test_random_frames_of_every_size_are_judged() -> None:
    source = random.Random(7)
    judged = 0
    for _ in range(2_000):
        data = bytes([0x80 + source.randrange(1, 10), source.randrange(24)]) + source.randbytes(source.randrange(400))
        try:
            frame.decode(data)
        except Malformed:
            judged += 1
    assert judged > 1_500
