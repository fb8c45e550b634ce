"""Hybrid logical clocks: packing, and the next reading of an author (docs/protocol.md §2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattswarm.kernel import hlc

milliseconds = st.integers(0, (1 << 48) - 1)
readings = st.integers(0, (1 << 64) - 2)


@given(milliseconds, st.integers(0, 65_535))
def test_a_reading_holds_its_milliseconds_and_its_counter(unix_ms: int, counter: int) -> None:
    reading = hlc.pack(unix_ms, counter)
    assert hlc.wall_ms(reading) == unix_ms
    assert reading - hlc.pack(unix_ms) == counter


@given(milliseconds, milliseconds, st.integers(0, 65_535), st.integers(0, 65_535))
def test_readings_sort_by_time_and_then_by_counter(one: int, other: int, first: int, second: int) -> None:
    assert (hlc.pack(one, first) < hlc.pack(other, second)) == ((one, first) < (other, second))


@given(readings, milliseconds)
def test_the_next_reading_is_above_what_is_held_and_not_before_the_clock(held: int, now_ms: int) -> None:
    after = hlc.after(held, now_ms)
    assert after > held
    assert hlc.wall_ms(after) >= now_ms


def test_the_next_reading_is_the_clocks_where_the_clock_is_ahead() -> None:
    assert hlc.after(hlc.pack(5, 9), 6) == hlc.pack(6, 0)


def test_a_full_counter_runs_over_into_the_next_millisecond() -> None:
    assert hlc.after(hlc.pack(5, 65_535), 5) == hlc.pack(6, 0)


@pytest.mark.parametrize(("unix_ms", "day"), [(0, 0), (86_399_999, 0), (86_400_000, 1), (1_790_000_000_000, 20_717)])
def test_days_are_utc(unix_ms: int, day: int) -> None:
    assert hlc.day(hlc.pack(unix_ms, 65_535)) == day
