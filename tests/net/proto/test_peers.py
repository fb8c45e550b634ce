"""Whom a node dials, keeps and lets go; and that no stranger decides it (docs/network.md §2)."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.proto.backoff import backoff_ms
from net.proto.conduct import Ledger
from net.proto.peers import PeerBook
from net.proto.places import Known, Target
from net.proto.rhythm import never_ms
from tests.net.proto.books import book, connect, links, me, minute, node, now, place
from wattswarm.kernel.refusal import Refused

# -- back-off ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.integers(0, 1_000))
def test_a_back_off_is_between_one_second_and_five_minutes(failures: int, seed: int) -> None:
    most = min(300_000, 1_000 * 2 ** min(failures, 20))
    assert most // 2 <= backoff_ms(failures, random.Random(seed)) <= most
    assert 1_000 <= backoff_ms(failures, random.Random(seed)) <= 300_000


def test_back_offs_of_many_nodes_are_spread_out() -> None:
    source = random.Random(1)
    assert len({backoff_ms(9, source) // 1_000 for _ in range(1_000)}) > 140


def test_a_place_that_does_not_answer_is_dialled_ever_more_seldom_and_never_given_up_if_it_was_configured() -> None:
    made = book(1, "configured")
    times: list[int] = []
    at = now
    while len(times) < 14:
        if made.dial(at):
            times.append(at)
            made.failed(place(1), at)
        at = made.next_ms(at)
    pauses = [later - sooner for sooner, later in pairwise(times)]
    assert 1_000 <= pauses[0] <= 2_000
    assert all(15_000 <= pause <= 30_000 for pause in pauses[8:])


def test_a_node_that_was_reached_before_is_tried_twice_a_minute_at_least_however_long_it_is_away() -> None:
    """So that a partition of any length heals soon."""
    made = book(1)
    connect(made, Target(place(1), node(1)), now)
    made.left(node(1), now + minute)
    at, tried = now + minute, 0
    while at < now + 61 * minute:
        following = made.next_ms(at)
        assert following - at <= 30_000
        at = following
        tried += len(made.dial(at))
        made.failed(place(1), at)
    assert 120 <= tried <= 250


def test_a_node_that_is_newly_heard_is_tried_at_once_and_again_soon_however_often_it_failed() -> None:
    made = book(1)
    connect(made, Target(place(1), node(1)), now)
    made.left(node(1), now)
    for step in range(20):
        made.failed(place(1), now + step)
    made.heard(node(1), place(1), now + minute)
    assert made.dial(now + minute) == [Target(place(1), node(1))]
    made.failed(place(1), now + minute)
    following = made.next_ms(now + minute)
    assert following <= now + minute + 2_000


def test_a_place_that_strangers_told_of_is_forgotten_if_it_never_answers() -> None:
    made = book(1, "told")
    for step in range(8):
        assert len(made) == 1
        made.failed(place(1), now + step)
    assert len(made) == 0


def test_a_dial_that_nobody_tells_the_end_of_counts_as_failed() -> None:
    made = book(1)
    assert made.dial(now) == [Target(place(1), node(1))]
    assert made.dial(now + 29_999) == []
    assert made.next_ms(now) == now + 30_000
    made.dial(now + 30_000)
    following = made.next_ms(now + 30_000)
    assert now + 31_000 <= following <= now + 32_000
    assert made.dial(following) == [Target(place(1), node(1))]


def test_a_dial_from_before_the_clock_went_back_is_given_up() -> None:
    made = book(1)
    made.dial(now)
    earlier = now - 10**9
    assert made.next_ms(earlier) == earlier
    assert made.dial(earlier) == []
    following = made.next_ms(earlier)
    assert earlier + 1_000 <= following <= earlier + 2_000


def test_a_connection_that_lasted_starts_the_back_off_anew_and_one_that_did_not_goes_on_with_it() -> None:
    for lasted_ms, least, most in ((1_000, 1_000, 2_000), (999, 15_000, 30_000)):
        made = book(1)
        for _ in range(4):
            made.failed(place(1), now)
        connect(made, Target(place(1), node(1)), now)
        made.left(node(1), now + lasted_ms)
        following = made.next_ms(now + lasted_ms)
        assert least <= following - (now + lasted_ms) <= most


def test_a_node_that_lets_us_go_is_left_alone_as_long_as_it_is_said() -> None:
    made = book(1)
    connect(made, Target(place(1), node(1)), now)
    made.left(node(1), now + minute, rest_ms=120_000)
    assert made.next_ms(now + minute) == now + minute + 120_000


def test_a_clock_that_goes_back_keeps_no_place_away_for_more_than_a_back_off() -> None:
    made = book(1)
    made.failed(place(1), now)
    earlier = now - 10**9
    assert made.dial(earlier) == []
    following = made.next_ms(earlier)
    assert following <= earlier + 300_000
    assert made.dial(following) == [Target(place(1), node(1))]


# -- the mesh ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("known", "expected"), [(1, 1), (5, 5), (12, 12), (13, 6), (100, 6)])
def test_up_to_twelve_nodes_are_a_full_mesh_and_above_that_six_are_dialled(known: int, expected: int) -> None:
    dialled = links(book(known))
    assert len(dialled) == expected
    assert len({target.node_id for target in dialled}) == expected


@pytest.mark.parametrize(("callers", "dials"), [(0, 6), (1, 5), (3, 3), (4, 2), (5, 2), (12, 2)])
def test_in_a_large_network_a_node_that_was_called_by_enough_still_dials_two(callers: int, dials: int) -> None:
    made = book(50)
    for number in range(1, callers + 1):
        made.joined(node(number), None, now, member=True)
    assert len(links(made)) == dials


def test_a_node_whose_links_fall_below_four_dials_up_to_six() -> None:
    made = book(50)
    first = links(made)
    for target in first[:2]:
        assert target.node_id is not None
        made.left(target.node_id, now)
    assert made.dial(now) == [], "four are enough"
    assert first[2].node_id is not None
    made.left(first[2].node_id, now)
    assert len(links(made)) == 3


def test_not_more_than_eight_are_dialled_at_once() -> None:
    made = book(12)
    assert len(made.dial(now)) == 8
    assert made.dial(now) == []
    made.failed(place(1), now)
    assert len(made.dial(now)) <= 1


def test_whom_a_node_dials_is_drawn() -> None:
    choices = {frozenset(target.node_id for target in book(30, seed=seed).dial(now)) for seed in range(20)}
    assert len(choices) == 20


def test_what_failed_least_is_dialled_first() -> None:
    made = book(30)
    for number in range(1, 25):
        made.failed(place(number), now - minute)
    assert {target.node_id for target in made.dial(now)} == {node(number) for number in range(25, 31)}


def test_of_a_node_with_many_addresses_one_is_dialled_at_a_time() -> None:
    made = book(1)
    for number in range(2, 6):
        made.learn(place(number), "stored", node(1))
    target, *others = made.dial(now)
    assert others == []
    assert made.dial(now) == []
    made.failed(target.address, now)
    assert [other.address != target.address for other in made.dial(now)] == [True]


def test_who_is_connected_is_not_dialled() -> None:
    made = book(1)
    made.joined(node(1), None, now, member=True)
    assert made.dial(now) == []
    assert made.next_ms(now) == never_ms


def test_an_address_that_turned_out_to_be_ourselves_is_never_dialled_or_learned_again() -> None:
    made = book()
    made.learn(place(1), "configured")
    assert made.dial(now) == [Target(place(1), None)]
    made.answered(place(1), me, now)
    assert not made.learn(place(1), "configured")
    assert not made.learn(place(2), "heard", me)
    assert made.dial(now + 10 * minute) == []


def test_an_address_belongs_to_whom_tls_proved_there() -> None:
    made = book()
    made.learn(place(1), "stored", node(1))
    made.dial(now)
    made.answered(place(1), node(7), now)
    made.joined(node(7), place(1), now, member=True)
    assert list(made.known(now + 9)) == [Known(node(7), place(1), "reached", now + 9)]


# -- letting go ----------------------------------------------------------------------------------------------------


def called_by(made: PeerBook, numbers: range) -> None:
    for number in numbers:
        made.joined(node(number), None, now, member=True)


def test_what_is_above_eight_links_is_let_go_but_never_the_two_we_dialled() -> None:
    made = book(50)
    dialled = [target.node_id for target in made.dial(now)[:2]]
    for target_id in dialled:
        assert target_id is not None
        made.joined(target_id, f"10.9.9.9:{target_id[-1] + 1}", now, member=True)
    called_by(made, range(100, 106))
    assert made.surplus() == []
    called_by(made, range(110, 130))
    for _ in range(50):
        going = made.surplus()
        assert len(going) == 20
        assert not set(going) & set(dialled)


def test_a_friend_is_never_let_go() -> None:
    made = book()
    for number in range(1, 40):
        made.befriend(node(number))
    called_by(made, range(1, 60))
    assert set(made.surplus()) == {node(number) for number in range(40, 60)}


def test_of_many_that_we_dialled_two_are_kept() -> None:
    made = book()
    for number in range(1, 15):
        made.joined(node(number), place(number), now, member=True)
    assert len(made.surplus()) == 6


def test_observers_take_no_place_in_the_mesh() -> None:
    made = book(5)
    for number in range(100, 200):
        made.joined(node(number), None, now, member=False)
    assert made.surplus() == []
    assert len(links(book(5))) == 5
    made = book(50)
    for number in range(100, 120):
        made.joined(node(number), None, now, member=False)
    assert len(links(made)) == 6


def test_an_observer_that_becomes_a_member_takes_part() -> None:
    made = book()
    called_by(made, range(1, 13))
    made.joined(node(20), None, now, member=False)
    assert made.surplus() == []
    made.joined(node(20), None, now + 1, member=True)
    assert len(made.surplus()) == 5


def test_a_full_mesh_of_twelve_lets_nobody_go() -> None:
    made = book(12)
    called_by(made, range(1, 13))
    assert made.surplus() == []
    assert made.learn(place(13), "told", node(13))
    assert len(made.surplus()) == 4


# -- friends and the graylist --------------------------------------------------------------------------------------


def test_friends_are_dialled_first_and_also_when_there_are_links_enough() -> None:
    made = book(100)
    made.befriend(node(77))
    assert made.dial(now)[0].node_id == node(77)
    made = book(100)
    called_by(made, range(200, 210))
    links(made)
    made.befriend(node(78))
    assert [target.node_id for target in made.dial(now)] == [node(78)]
    made.unfriend(node(78))
    made.failed(place(78), now)
    assert made.next_ms(now) == never_ms


def test_a_friends_place_is_not_forgotten_however_often_it_fails() -> None:
    made = book(1, "told")
    made.befriend(node(1))
    for step in range(100):
        made.failed(place(1), now + step)
    assert len(made) == 1


def test_there_are_at_most_sixty_four_friends() -> None:
    made = book()
    for number in range(1, 65):
        made.befriend(node(number))
    made.befriend(node(64))
    with pytest.raises(Refused):
        made.befriend(node(65))
    assert not made.is_friend(node(65))
    made.unfriend(node(1))
    made.befriend(node(65))
    assert made.is_friend(node(65))


def test_who_is_graylisted_is_dialled_when_its_term_is_over() -> None:
    ledger = Ledger()
    made = book(1, ledger=ledger)
    ledger.note(node(1), "malformed", now)
    at = now
    dialled_ms = None
    while dialled_ms is None:
        if made.dial(at):
            dialled_ms = at
        at = made.next_ms(at) or at
    assert dialled_ms == now + 10 * minute


def test_only_what_is_new_of_what_is_heard_may_change_whom_to_dial() -> None:
    made = book(1, "stored")
    assert not made.heard(node(1), place(1), now, new=False)
    made.learn(place(2), "told")
    assert made.heard(node(2), place(2), now, new=False), "whose place it is was not known"
    assert not made.heard(node(2), place(2), now, new=False)
    assert made.heard(node(2), place(3), now, new=False), "it is elsewhere as well"
    assert made.heard(node(1), place(1), now), "it began anew"
