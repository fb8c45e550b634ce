"""Whom a node dials, keeps and lets go, and that friends come first (docs/network.md §2)."""

from __future__ import annotations

import pytest

from net.proto.conduct import Ledger
from net.proto.peers import PeerBook, Target
from tests.net.proto.places import book, links, me, minute, node, now, place
from wattswarm.kernel.refusal import Refused

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
    assert made.next_ms(now) is None


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
    assert list(made.reached()) == [(place(1), node(7))]


# -- letting go ----------------------------------------------------------------------------------------------------


def called_by(made: PeerBook, numbers: range) -> None:
    for number in numbers:
        made.joined(node(number), None, now, member=True)


def test_what_is_above_twelve_links_is_let_go_but_never_the_two_we_dialled() -> None:
    made = book(50)
    dialled = [target.node_id for target in made.dial(now)[:2]]
    for target_id in dialled:
        assert target_id is not None
        made.joined(target_id, f"10.9.9.9:{target_id[-1] + 1}", now, member=True)
    called_by(made, range(100, 110))
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
    assert len(made.surplus()) == 2


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
    assert len(made.surplus()) == 1


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
    assert made.next_ms(now) is None


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
