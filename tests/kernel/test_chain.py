"""Author chains: next in line, taken, orphan, ruled out; and from where on a chain is void (docs/protocol.md §2)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cast import genesis_ms, keys_of
from wattswarm.kernel import event, hlc
from wattswarm.kernel.chain import Gap, Head, Next, NotAdmitted, Past, Placement, first_void, head_at, place
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.genesis import Quotas
from wattswarm.kernel.payloads.course import TaskExpired, TaskStopped
from wattswarm.kernel.payloads.fields import Payload

ada = keys_of("ada")
task = b"\x02" * 32
quotas = Quotas()


def said(seq: int, prev: bytes | None, clock: int, payload: Payload | None = None) -> Event:
    return event.author(ada, b"\x01" * 32, seq, prev, clock, Draft(payload or TaskExpired(), task, 1))


def chain_of(*clocks: int) -> list[Event]:
    events: list[Event] = []
    for seq, clock in enumerate(clocks):
        events.append(said(seq, events[-1].id if events else None, clock))
    return events


def at(*offsets_ms: int) -> list[Event]:
    """A chain with one event at each time after the genesis."""
    return chain_of(*(hlc.pack(genesis_ms + offset) for offset in offsets_ms))


def placed(head: Head, entry: Event, quotas: Quotas = quotas) -> Placement:
    return place(head, entry, genesis_ms, quotas)


def head_after(events: list[Event], quotas: Quotas = quotas) -> Head:
    head = Head()
    for entry in events:
        match placed(head, entry, quotas):
            case Next(head):
                pass
            case other:
                raise AssertionError(f"seq {entry.author_seq}: {other}")
    return head


def reason_of(placement: Placement) -> str:
    assert isinstance(placement, NotAdmitted)
    return placement.reason


def test_the_first_event_is_next_in_an_empty_chain() -> None:
    first = at(5)[0]
    head = head_after([first])
    assert (head.seq, head.id, head.hlc) == (0, first.id, first.hlc)


def test_events_in_their_order_are_each_next() -> None:
    events = at(0, 5, 6, 1000)
    assert head_after(events).id == events[-1].id


def test_a_taken_place_is_past_whoever_has_it() -> None:
    events = at(0, 5, 6)
    rival = said(1, events[0].id, events[1].hlc + 7)
    head = head_after(events)
    assert [placed(head, entry) for entry in (*events, rival)] == [Past()] * 4


def test_an_event_before_genesis_at_a_taken_place_is_past_for_it_proves_a_fork() -> None:
    assert placed(head_after(at(0)), said(0, None, hlc.pack(genesis_ms - 5))) == Past()


@pytest.mark.parametrize("held", [0, 1, 2])
def test_a_missing_predecessor_makes_an_orphan_that_names_the_first_missing_seq(held: int) -> None:
    events = at(0, 1, 2, 3)
    assert placed(head_after(events[:held]), events[3]) == Gap(held)


def test_another_predecessor_than_the_one_held_makes_an_orphan_that_asks_for_its_own() -> None:
    events = at(0, 1)
    rival = said(1, events[0].id, events[1].hlc + 7)
    heir = said(2, rival.id, rival.hlc + 7)
    head = head_after(events)
    assert placed(head, heir) == Gap(1)
    assert placed(head, rival) == Past()


def test_an_event_at_genesis_counts_and_one_before_does_not() -> None:
    assert isinstance(placed(Head(), chain_of(hlc.pack(genesis_ms))[0]), Next)
    assert reason_of(placed(Head(), chain_of(hlc.pack(genesis_ms) - 1)[0])) == "before_genesis"


def test_an_orphan_from_before_genesis_is_not_waited_for() -> None:
    assert reason_of(placed(Head(), said(7, b"\x03" * 32, hlc.pack(genesis_ms - 1)))) == "before_genesis"


@pytest.mark.parametrize(("step", "admitted"), [(-1, False), (0, False), (1, True)])
def test_the_clock_of_a_chain_only_rises(step: int, admitted: bool) -> None:
    first = at(100)[0]
    placement = placed(head_after([first]), said(1, first.id, first.hlc + step))
    assert isinstance(placement, Next) if admitted else reason_of(placement) == "clock_back"


def test_the_event_after_the_days_last_is_not_admitted_and_a_new_day_begins_anew() -> None:
    two = Quotas(quota_events_per_day=2)
    first_of_day = genesis_ms - genesis_ms % hlc.day_ms + hlc.day_ms - genesis_ms
    events = at(first_of_day, first_of_day + 1)
    head = head_after(events, two)
    late = said(2, events[1].id, hlc.pack(genesis_ms + first_of_day + hlc.day_ms - 1))
    assert reason_of(placed(head, late, two)) == "quota_events"
    morrow = said(2, events[1].id, hlc.pack(genesis_ms + first_of_day + hlc.day_ms))
    assert head_after([*events, morrow], two).day_events == 1


def test_bytes_of_bodies_and_signatures_count_against_the_day() -> None:
    events = at(0, 1, 2)
    size = sum(len(entry.body) + 64 for entry in events)
    assert head_after(events, Quotas(quota_bytes_per_day=size)).day_bytes == size
    placement = placed(head_after(events[:2]), events[2], Quotas(quota_bytes_per_day=size - 1))
    assert reason_of(placement) == "quota_bytes"


def test_one_large_event_may_use_up_a_day() -> None:
    large = said(0, None, hlc.pack(genesis_ms), TaskStopped("x" * 60_000))
    size = len(large.body) + 64
    assert isinstance(placed(Head(), large, Quotas(quota_bytes_per_day=size)), Next)
    assert reason_of(placed(Head(), large, Quotas(quota_bytes_per_day=size - 1))) == "quota_bytes"


def test_a_chain_cut_back_ends_at_the_event_it_was_cut_to() -> None:
    events = at(0, 1, 2)
    head = head_at(events[1])
    assert (head.seq, head.id, head.hlc, head.day) == (1, events[1].id, events[1].hlc, head_after(events).day)
    assert isinstance(placed(head, events[2]), Next)


@pytest.mark.parametrize(
    ("fork_seq", "until", "first"),
    [(None, None, None), (7, None, 7), (0, None, 0), (None, 7, 8), (None, 0, 1), (3, 7, 3), (7, 3, 4), (8, 7, 8)],
)
def test_a_chain_is_void_from_its_least_fork_on_and_past_its_until(
    fork_seq: int | None, until: int | None, first: int | None
) -> None:
    assert first_void(fork_seq, until) == first


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_whatever_the_order_of_arrival_the_same_events_enter(steps: list[int], order: Random) -> None:
    total = genesis_ms
    events: list[Event] = []
    for seq, step in enumerate(steps):
        total += step
        clock = max(hlc.pack(total), events[-1].hlc + 1 if events else 0)
        events.append(said(seq, events[-1].id if events else None, clock))
    few = Quotas(quota_events_per_day=8)
    expected = Head()
    for entry in events:
        match placed(expected, entry, few):
            case Next(head):
                expected = head
    waiting = list(events)
    order.shuffle(waiting)
    head, moved = Head(), True
    while moved:
        moved = False
        for entry in waiting:
            match placed(head, entry, few):
                case Next(after):
                    head, moved = after, True
    assert head == expected
