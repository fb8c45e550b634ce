"""Claims about reconciliation between two of our own sides: exact, cheap, and hard to abuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from net.proto import negentropy as module
from net.proto.items import Items, infinity
from net.proto.negentropy import Initiator, Responder, Step, Style, ours, reference
from net.proto.ranges import Fingerprint, IdList, read, varint
from tests.net.proto.sets import (
    Item,
    Pair,
    Session,
    log_of,
    random_pair,
    rounds_enough,
    start_s,
    sync,
    without,
)
from wattswarm.kernel.refusal import Malformed, Refused

frames = st.sampled_from([4_096, 60_000, 1 << 20])
styles = st.sampled_from([ours, reference, Style(8, 2, 0), Style(32, 4, 64), Style(4, 2, 8_192)])
size = 100_000

seconds_of_items = st.integers(start_s, start_s + 3)
ids_of_items = st.one_of(  # whatever is alike, the ends are as good as random: sums of ids that count up collide
    st.binary(min_size=6, max_size=6).map(lambda drawn: sha256(drawn).digest()),
    st.binary(min_size=6, max_size=6).map(lambda drawn: bytes(16) + sha256(drawn).digest()[:16]),
    st.binary(min_size=6, max_size=6).map(lambda drawn: sha256(drawn).digest()[:16] + b"\xff" * 16),
)


def run(pair: Pair, styles: tuple[Style, Style], frame_bytes: int = 1 << 20, rounds: int = rounds_enough) -> Session:
    """A session in which the first set's side asks."""
    return sync(
        Initiator(Items(pair.first), styles[0], frame_bytes, rounds),
        Responder(Items(pair.second), styles[1], frame_bytes, rounds),
    )


# -- exactness -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.tuples(styles, styles), frames)
def test_the_initiator_learns_each_difference_once(seed: int, both: tuple[Style, Style], frame_bytes: int) -> None:
    pair = random_pair(Random(seed))
    session = run(pair, both, frame_bytes)
    assert session.learned(pair)
    assert max(map(len, session.messages)) <= frame_bytes
    back = Pair(pair.second, pair.first)
    assert run(back, both, frame_bytes).learned(back)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(ids_of_items, st.tuples(seconds_of_items, st.sampled_from("abc")), max_size=300),
    st.tuples(styles, styles),
    frames,
)
def test_any_two_small_sets_are_told_apart(
    drawn: dict[bytes, tuple[int, str]], both: tuple[Style, Style], frame_bytes: int
) -> None:
    items = [((second, item_id), where) for item_id, (second, where) in drawn.items()]
    pair = Pair([item for item, where in items if where in "ac"], [item for item, where in items if where in "bc"])
    assert run(pair, both, frame_bytes).learned(pair)


@pytest.mark.parametrize("frame_bytes", [4_096, 60_000, 1 << 20])
@pytest.mark.parametrize("style", [ours, reference], ids=["ours", "reference"])
def test_large_sets_with_many_differences_are_told_apart_in_small_frames(style: Style, frame_bytes: int) -> None:
    log = log_of(20_000)
    pair = Pair(without(log, 700, seed=4), without(log, 700, seed=5))
    assert run(pair, (style, style), frame_bytes).learned(pair)


@pytest.mark.parametrize("frame_bytes", [4_096, 60_000, 1 << 20])
def test_one_who_has_nothing_learns_everything(frame_bytes: int) -> None:
    log = log_of(3_000)
    for pair in (Pair([], log), Pair(log, []), Pair([], [])):
        assert run(pair, (ours, ours), frame_bytes).learned(pair)


def test_all_in_one_second_with_ids_alike_for_many_bytes_are_told_apart() -> None:
    items = [(start_s, bytes(22) + Random(number).randbytes(10)) for number in range(5_000)]
    pair = Pair(without(items, 40, seed=1), without(items, 40, seed=2))
    for frame_bytes in (4_096, 1 << 20):
        assert run(pair, (ours, ours), frame_bytes).learned(pair)


def test_items_may_come_and_go_during_a_session() -> None:
    log = log_of(5_000)
    mine, theirs = Items(without(log, 50, seed=1)), Items(without(log, 50, seed=2))
    initiator, responder = Initiator(mine), Responder(theirs)
    before = Pair(without(log, 50, seed=1), without(log, 50, seed=2))
    message: bytes | None = initiator.open()
    have, need, arrivals = set[bytes](), set[bytes](), iter(log_of(1_000, seed=8))
    while message is not None:
        for item in (next(arrivals) for _ in range(60)):
            mine.insert(*item)
            theirs.insert(*item)
        step = initiator.answer(responder.answer(message))
        have.update(step.have)
        need.update(step.need)
        message = step.reply
    assert step.complete
    assert (have, need) == (before.only_first, before.only_second)


def test_an_answer_in_slices_is_the_answer_even_if_items_come_between_two_slices() -> None:
    log = log_of(20_000)
    mine, theirs = Items(without(log, 300, seed=1)), Items(without(log, 300, seed=2))
    message = Responder(theirs).answer(Initiator(mine).open())
    whole, steps = Initiator(mine).answer(message), list[Step]()

    def sliced() -> Iterator[None]:
        steps.append((yield from Initiator(mine).answering(message)))

    arrivals = log_of(10_000, seed=5)
    slices = [mine.insert(*arrivals[at]) for at, _ in enumerate(sliced())]
    assert steps == [whole]
    assert len(slices) > 20


# -- the numbers ---------------------------------------------------------------------------------------------------


def both_ways(count: int) -> list[Pair]:
    """A log of 100,000 and the same with ``count`` scattered items missing, on either side."""
    log = log_of(size)
    less = without(log, count)
    return [Pair(less, log), Pair(log, less)]


def test_equal_sets_take_one_round_trip_and_nothing_is_answered() -> None:
    log = log_of(size)
    session = run(Pair(log, log), (ours, ours))
    assert session.round_trips == 1
    assert session.bytes <= 324 + 1
    assert len(session.messages[1]) == 1


@pytest.mark.parametrize("style", [ours, reference], ids=["ours", "reference"])
def test_one_missing_of_a_hundred_thousand_takes_two_round_trips(style: Style) -> None:
    for pair in both_ways(1):
        session = run(pair, (style, style))
        assert session.learned(pair)
        assert session.round_trips <= 2
        assert session.bytes <= (1_300 if style is ours else 1_850)


def test_one_missing_between_our_own_takes_one_round_trip_and_under_700_bytes() -> None:
    for pair in both_ways(1):
        session = run(pair, (ours, ours))
        assert session.learned(pair)
        assert (session.round_trips, session.bytes <= 700) == (1, True)


def test_scattered_differences_cost_a_few_hundred_bytes_each() -> None:
    log = log_of(size)
    cases = [*both_ways(1_000), Pair(without(log, 500, seed=3), without(log, 500, seed=4))]
    for pair in cases:
        session = run(pair, (ours, ours))
        assert session.learned(pair)
        assert session.round_trips <= 3
        assert session.bytes / 1_000 <= 250


def test_the_newest_thousand_cost_little_more_than_their_ids() -> None:
    log = log_of(size)
    for pair in (Pair(log[:-1_000], log), Pair(log, log[:-1_000])):
        session = run(pair, (ours, ours))
        assert session.learned(pair)
        assert session.round_trips <= 3
        assert session.bytes / 1_000 <= 34.5


# -- a peer that means harm ----------------------------------------------------------------------------------------


def test_a_responder_that_never_comes_to_an_end_is_left_after_the_last_round() -> None:
    """Whatever it is told, it has another fingerprint for everything."""
    initiator = Initiator(Items(log_of(2_000)), rounds=5)
    message: bytes | None = initiator.open()
    steps: list[Step] = []
    while message is not None:
        steps.append(initiator.answer(b"\x61\0\0\1" + bytes([len(steps)]) * 16))
        message = steps[-1].reply
    assert len(steps) == 5
    assert not steps[-1].complete


def test_an_initiator_that_never_comes_to_an_end_is_refused_after_the_last_round() -> None:
    responder = Responder(Items(log_of(200)), rounds=5)
    message = Initiator(Items(log_of(200, seed=3))).open()
    for _ in range(5):
        responder.answer(message)
    with pytest.raises(Refused) as refused:
        responder.answer(message)
    assert refused.value.reason == "negentropy_rounds"
    assert not isinstance(refused.value, Malformed)


def test_a_session_reports_only_so_many_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "found_max", 1_000)
    pair = Pair(log_of(5_000), log_of(5_000, seed=2))
    session = run(pair, (ours, ours))
    assert not session.complete
    assert 1_000 <= len(session.have) + len(session.need) <= 1_100
    assert set(session.have) <= pair.only_first
    assert set(session.need) <= pair.only_second


@pytest.mark.parametrize("first", [0x00, 0x5F, 0x70, 0xFF])
def test_what_is_no_version_of_the_protocol_is_malformed(first: int) -> None:
    for side in (Initiator(Items()), Responder(Items())):
        for message in (b"", bytes([first]), bytes([first]) + b"\0\0\0"):
            with pytest.raises(Malformed):
                side.answer(message)


@pytest.mark.parametrize("first", [0x60, 0x62, 0x6F])
def test_another_version_is_answered_with_ours_and_not_read(first: int) -> None:
    assert Responder(Items()).answer(bytes([first]) + b"anything") == b"\x61"
    with pytest.raises(Refused) as refused:
        Initiator(Items()).answer(bytes([first]))
    assert refused.value.reason == "negentropy_version"


def test_a_message_larger_than_a_frame_is_malformed() -> None:
    with pytest.raises(Malformed) as malformed:
        Responder(Items()).answer(b"\x61" + bytes(1 << 20))
    assert malformed.value.reason == "negentropy_size"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_answered_or_malformed(body: bytes, small: bool) -> None:
    items = Items(log_of(10 if small else 500))
    for side in (Initiator(items), Responder(items)):
        with suppress(Malformed):
            side.answer(b"\x61" + body)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has been hashed so far."""
    hashed: list[bytes] = []

    def noted(data: bytes) -> object:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr("net.proto.negentropy.sha256", noted)
    return hashed


def test_a_hostile_message_costs_no_more_than_its_length_and_the_blocks(hashes: list[bytes]) -> None:
    """As many wrong fingerprints as fit, each about a few items, so that each is worth a guess: the worst there is."""
    items = Items(log_of(size))
    wrong = b"\1" + b"x" * 16
    message = b"\x61" + varint(start_s) + b"\0\0" + (b"\x03\0" + wrong) * 50_000 + b"\0\0" + wrong
    for side in (Initiator(items), Responder(items)):
        hashes.clear()
        slices = sum(1 for _ in side.answering(message))
        said = 50_002
        assert said <= len(hashes) <= said + size + module.frame_bytes_max // 16
        assert slices >= said // module.slice_ranges


def test_between_two_slices_little_is_hashed(hashes: list[bytes]) -> None:
    log = log_of(size)
    message = Initiator(Items(without(log, 1, seed=9))).open()
    worst = 0
    for _ in Responder(Items(log)).answering(message):
        worst = max(worst, len(hashes))
        hashes.clear()
    assert module.slice_items <= worst <= module.slice_items + 2 * module.buckets_max


def test_a_guess_is_not_made_where_many_ranges_differ(hashes: list[bytes]) -> None:
    """Sixteen ranges of 6,250 items: what they were compared with, and what is said of their parts."""
    message = Initiator(Items(log_of(size, seed=5))).open()
    items = Items(log_of(size))
    hashes.clear()
    Responder(items).answer(message)
    assert len(hashes) == module.buckets_max + module.buckets_max**2


def test_what_has_no_room_is_covered_by_one_fingerprint_that_is_true() -> None:
    view = Items(log_of(size)).view()
    message = Initiator(Items(log_of(size, seed=5))).open()
    said = [*read(Responder(Items(log_of(size)), frame_bytes=4_096).answer(message))]
    lower = view.index(said[-2].upper)
    assert 0 < lower < size
    assert said[-1] == Fingerprint(infinity, module.fingerprint(view, lower, size))


def test_a_long_comparison_is_cut_into_slices() -> None:
    initiator = Initiator(Items(log_of(size)))
    assert sum(1 for _ in initiator.answering(b"\x61\0\0\2\0")) >= size // module.slice_items


def test_a_list_of_nothing_up_to_infinity_is_answered_with_one_frame_of_ids() -> None:
    reply = Responder(Items(log_of(size)), frame_bytes=1 << 20).answer(b"\x61\0\0\2\0")
    said = [*read(reply)]
    assert [type(one) for one in said] == [IdList, Fingerprint]
    assert len(reply) <= 1 << 20


def test_the_same_id_listed_a_thousand_times_is_needed_once() -> None:
    forged = b"\x61" + b"\0\0\2" + varint(1_000) + b"i" * 32_000
    step = Initiator(Items()).answer(forged)
    assert (step.need, step.have, step.reply, step.complete) == ((b"i" * 32,), (), None, True)


def test_what_a_range_lacks_is_not_guessed_wrongly() -> None:
    """A range from which one item is missing and another added has no single item that explains it."""
    log: list[Item] = log_of(300)
    changed = [*log[:150], (log[150][0], b"n" * 32), *log[151:]]
    pair = Pair(log, changed)
    for both in ((ours, ours), (ours, reference), (reference, ours)):
        assert run(pair, both).learned(pair)
