"""What the book of places learns from others, and what makes room for what (docs/network.md §2)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.proto import peers
from net.proto.conduct import Ledger
from net.proto.peers import PeerBook, rest_ms_max, tried_again_ms_max
from net.proto.places import Target
from net.proto.rhythm import never_ms
from tests.net.proto.books import book, connect, me, minute, node, now, place

# -- what others tell ----------------------------------------------------------------------------------------------


def test_a_peer_may_tell_thirty_two_addresses_a_minute() -> None:
    made = book()
    assert made.told(node(1), "192.0.2.1", [place(number) for number in range(100)], now) == 32
    assert made.told(node(1), "192.0.2.1", [place(200)], now) == 0
    assert made.told(node(2), "192.0.2.2", [place(201)], now) == 1
    assert made.told(node(1), "192.0.2.1", [place(number) for number in range(300, 400)], now + minute) == 32
    assert len(made) == 65


def test_what_cannot_be_dialled_from_here_is_not_learned() -> None:
    made = book()
    assert made.told(node(1), "192.0.2.1", ["127.0.0.1:22", "localhost:5432", "[::1]:80", "239.0.0.1:80"], now) == 0
    made.introduced(node(2), "192.0.2.2", ["127.0.0.1:22", "0.0.0.0:4000"])
    assert made.dial(now) == [Target("192.0.2.2:4000", node(2))]


def test_only_what_this_node_connected_to_is_told_to_others() -> None:
    made = book(3)
    made.told(node(9), "192.0.2.9", [place(50)], now)
    connect(made, Target(place(1), node(1)), now)
    connect(made, Target(place(2), node(2)), now)
    made.answered(place(3), node(3), now)
    assert set(made.share(node(9))) == {place(1), place(2)}
    assert made.share(node(1)) == (place(2),)


def test_where_a_caller_says_it_listens_is_shared_while_it_is_connected_if_it_is_its_own_host() -> None:
    made = book()
    made.joined(node(1), None, now, member=True)
    made.introduced(node(1), "10.0.0.1", ("0.0.0.0:4000", "10.0.0.7:4000"))
    assert made.share(node(2)) == ("10.0.0.1:4000",)
    assert made.share(node(1)) == ()
    made.left(node(1), now)
    assert made.share(node(2)) == ()


def test_all_of_loopback_is_one_host() -> None:
    made = book()
    made.joined(node(1), None, now, member=True)
    made.introduced(node(1), "127.0.0.1", ("127.0.0.9:4000", "10.0.0.7:4000"))
    assert made.share(node(2)) == ("127.0.0.9:4000",)


def test_who_turned_this_node_away_is_tried_again_soon_when_the_membership_changed() -> None:
    made = book()
    made.learn(place(1), "told", node(1))
    for _ in range(6):
        made.failed(place(1), now)
    later_ms = now + tried_again_ms_max
    assert made.dial(later_ms) == []
    made.try_again(now)
    assert [target.address for target in made.dial(later_ms)] == [place(1)]


def test_who_let_this_node_go_is_left_alone_though_the_membership_changed() -> None:
    made = book()
    made.joined(node(1), None, now, member=True)
    made.introduced(node(1), "10.0.0.1", ("10.0.0.1:4000",))
    made.left(node(1), now, rest_ms_max)
    made.try_again(now)
    assert made.dial(now + tried_again_ms_max) == []


def test_at_most_thirty_two_addresses_are_told_and_not_always_the_same() -> None:
    made = book(100)
    for number in range(1, 101):
        connect(made, Target(place(number), node(number)), now)
    told = [made.share(node(500)) for _ in range(5)]
    assert all(len(set(one)) == 32 for one in told)
    assert len(set(told)) == 5


def test_who_is_newly_heard_is_dialled_at_once_and_where_it_is_now() -> None:
    made = book(1)
    for _ in range(7):
        made.failed(place(1), now)
    assert made.dial(now + 1_000) == []
    made.heard(node(1), place(1), now + 1_000)
    assert made.dial(now + 1_000) == [Target(place(1), node(1))]


# -- room ----------------------------------------------------------------------------------------------------------


def test_the_book_is_bounded_and_no_teller_drives_out_what_is_worth_more() -> None:
    made = book(1_000, "stored")
    for teller in range(2_000, 3_000):
        made.told(node(teller), "192.0.2.1", [place(teller + step * 1_000) for step in range(32)], now)
    assert len(made) == peers.places_max == 1_024
    for number in range(1, 1_001):
        assert made.learn(place(number), "told"), "it is still there"
    assert len(made) == 1_024


def test_a_failed_place_makes_room_for_its_equal_and_any_for_its_better() -> None:
    made = book()
    made.told(node(1), "192.0.2.1", [place(1)], now)
    for number in range(2, 1_025):
        assert made.learn(place(number), "told")
    assert not made.learn(place(5_000), "told")
    made.failed(place(7), now)
    assert made.learn(place(5_000), "told")
    assert made.learn(place(6_000), "configured")
    assert len(made) == 1_024


def test_configured_connected_and_friends_places_stay_whoever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "places_max", 3)
    made = book()
    made.learn(place(1), "configured")
    made.learn(place(2), "told", node(2))
    made.learn(place(3), "told", node(3))
    made.joined(node(2), None, now, member=True)
    made.befriend(node(3))
    for number in (1, 2, 3):
        made.failed(place(number), now)
    assert not made.learn(place(4), "configured")


def test_a_node_has_at_most_eight_places() -> None:
    made = book()
    for number in range(100):
        made.introduced(node(1), "192.0.2.1", [place(number)])
    assert len(made) == peers.places_a_node_max == 8
    made.heard(node(1), place(500), now)
    assert len(made) == 8
    for number in range(100):
        made.failed(place(number), now)
    assert made.dial(now) == [Target(place(500), node(1))]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60), st.integers(0, 100_000)), max_size=120))
def test_whatever_happens_the_book_stays_within_its_bounds(steps: list[tuple[int, int, int]]) -> None:
    made = PeerBook(me, Ledger(), random.Random(3))
    at = now
    for what, number, later_ms in steps:
        at += later_ms - 20_000
        match what:
            case 0:
                made.learn(place(number), "stored", node(number % 7))
            case 1:
                made.told(node(number), "192.0.2.1", [place(number), place(number + 1)], at)
            case 2:
                made.failed(place(number), at)
            case 3:
                made.answered(place(number), node(number % 7), at)
            case 4:
                made.joined(node(number % 7), place(number) if number % 2 else None, at, member=number % 3 > 0)
            case 5:
                made.left(node(number % 7), at, rest_ms=number)
            case 6:
                made.heard(node(number % 7), place(number), at)
            case _:
                targets = made.dial(at)
                assert len(targets) <= peers.dials_at_once_max
                assert len({target.address for target in targets}) == len(targets)
                assert me not in [target.node_id for target in targets]
                known = [target.node_id for target in targets if target.node_id is not None]
                assert len(set(known)) == len(known)
        following = made.next_ms(at)
        assert following == never_ms or at <= following <= at + 300_000
        assert len(made.surplus()) <= 1
        assert len(made.share(node(1))) <= 32
