"""What a peer may cost is bounded, whatever numbers it or the clock comes up with (docs/network.md §7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.proto.budget import (
    Buckets,
    Good,
    PeerBudget,
    Rate,
    Score,
    TokenBucket,
    allowances,
    graylist_below,
    graylist_ms,
    half_life_ms,
    score_max,
    score_min,
)

now = 1_700_000_000_000
u64_max = (1 << 64) - 1
ten_a_second = Rate(10, 1_000, 20)


# -- buckets -------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(ten_a_second, now)
    assert [bucket.take(1, now) for _ in range(21)] == [True] * 20 + [False]
    assert not bucket.take(1, now + 99)
    assert bucket.take(1, now + 100)
    assert not bucket.take(1, now + 199)
    assert bucket.take(1, now + 200)


def test_a_long_silence_brings_one_burst_and_no_more() -> None:
    bucket = TokenBucket(ten_a_second, now)
    assert bucket.take(20, now)
    assert bucket.take(20, now + 10**9)
    assert not bucket.take(1, now + 10**9)


def test_what_is_refused_costs_nothing() -> None:
    bucket = TokenBucket(ten_a_second, now)
    assert not bucket.take(21, now)
    assert bucket.take(20, now)


@pytest.mark.parametrize("amount", [21, u64_max, u64_max * u64_max])
def test_more_than_a_burst_is_never_there(amount: int) -> None:
    bucket = TokenBucket(ten_a_second, now)
    assert not bucket.take(amount, now)
    assert not bucket.take(amount, now + u64_max)
    assert bucket.wait_ms(amount, now) is None
    assert bucket.take(20, now + u64_max)


def test_a_clock_that_goes_back_gives_nothing_and_goes_on_from_there() -> None:
    bucket = TokenBucket(ten_a_second, now)
    assert bucket.take(20, now)
    assert not bucket.take(1, now - 3_600_000)
    assert not bucket.take(1, 0)
    assert bucket.take(1, 100)
    assert not bucket.take(1, 100)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 700)), max_size=40))
def test_in_any_time_no_more_is_taken_than_burst_and_rate_allow(steps: list[tuple[int, int]]) -> None:
    bucket = TokenBucket(ten_a_second, now)
    at, taken = now, 0
    for amount, pause_ms in steps:
        at += pause_ms
        taken += amount if bucket.take(amount, at) else 0
        assert taken * 1_000 <= 20 * 1_000 + (at - now) * 10


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 3_000))
def test_the_wait_that_is_told_is_the_shortest_that_helps(taken: int, amount: int, later_ms: int) -> None:
    bucket = TokenBucket(ten_a_second, now)
    assert bucket.take(taken, now)
    wait_ms = bucket.wait_ms(amount, now + later_ms)
    assert wait_ms is not None
    if wait_ms:
        assert not bucket.take(amount, now + later_ms + wait_ms - 1)
    assert bucket.take(amount, now + later_ms + wait_ms)


def test_everyone_has_a_bucket_of_their_own() -> None:
    buckets: Buckets[str] = Buckets(ten_a_second, 10)
    assert buckets.take("a", 20, now)
    assert not buckets.take("a", 1, now)
    assert buckets.take("b", 20, now)


def test_a_flood_of_newcomers_is_bounded_and_those_who_are_known_are_still_served() -> None:
    buckets: Buckets[int] = Buckets(ten_a_second, 100)
    assert sum(buckets.take(key, 1, now) for key in range(100_000)) == 100
    assert len(buckets) == 100
    assert buckets.take(5, 1, now)
    assert buckets.take(200_000, 1, now + 1_000)
    assert len(buckets) <= 100


# -- a peer's ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "a_minute"),
    [("bytes", 60 * 2 << 20), ("checks", 60 * 500), ("haves", 60 * 200), ("addresses", 32), ("relations", 1)],
)
def test_a_peer_may_spend_what_the_design_says(good: Good, a_minute: int) -> None:
    rate = allowances[good]
    assert rate.amount * 60_000 // rate.per_ms == a_minute
    budget = PeerBudget(now)
    assert budget.take(good, rate.burst, now)
    assert not budget.take(good, 1, now)
    assert budget.wait_ms(good, rate.burst, now) == rate.burst * rate.per_ms // rate.amount
    assert budget.wait_ms(good, u64_max, now) is None


def test_the_largest_frame_is_within_a_burst() -> None:
    assert PeerBudget(now).take("bytes", 1 << 20, now)


# -- the score -----------------------------------------------------------------------------------------------------


def test_a_score_halves_every_five_minutes() -> None:
    score = Score(now)
    assert score.note("broken_want", now, 8) == -40
    assert score.value(now + half_life_ms) == pytest.approx(-20)
    assert score.value(now + 3 * half_life_ms) == pytest.approx(-5)


def test_the_good_that_a_node_does_is_bounded() -> None:
    score = Score(now)
    assert score.note("useful", now, u64_max) == score_max == 50
    assert score.note("malformed", now) == -50


def test_the_bad_is_bounded_so_that_a_term_on_the_graylist_ends_it() -> None:
    score = Score(now)
    assert score.note("malformed", now, u64_max) == score_min
    assert score.value(now + graylist_ms) >= graylist_below


def test_a_clock_that_goes_back_changes_no_score_and_stops_no_decay() -> None:
    score = Score(now)
    score.note("oversize", now)
    assert score.value(now - 10**9) == -20
    assert score.value(now - 10**9 + half_life_ms) == pytest.approx(-10)


def test_a_clock_far_ahead_forgets_everything() -> None:
    score = Score(now)
    score.note("oversize", now)
    assert score.value(now + u64_max) == pytest.approx(0)
