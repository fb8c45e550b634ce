"""Friends between machines: both operators must want it, either ends it, and nobody is told more than once a minute."""

from __future__ import annotations

from typing import Literal

import pytest

from net.proto import message as m
from net.proto import values as v
from net.proto.friends import asking_max, told_every_ms
from tests.net.swarm import Node, Swarm
from tests.net.test_hostile import met
from tests.net.test_machine import named, swarm_of

counted = iter(range(1, 1_000))


def order(node: Node, other: Node, wish: Literal["yes", "no"]) -> None:
    """The operator of ``node`` says yes or no: it is kept first, and then the machine hears of it."""
    node_id, number = other.keys.node_id, next(counted)
    before = node.related.get(node_id, v.Relation(0, "", False))
    node.related[node_id] = before._replace(number=number, wish=wish)
    node.swarm.feed(node, v.Ordered(node_id, number, wish))


def stands(node: Node, other: Node) -> str:
    """How ``node`` stands with another, by what it remembers over a restart."""
    row = node.related.get(other.keys.node_id)
    book = node.machine.meeting.book
    kept = book.is_friend(other.keys.node_id)
    assert kept == (row is not None and row.wish == "yes")
    if row is None:
        return "nothing"
    return {("yes", True): "friend", ("yes", False): "asked", ("", True): "is asked"}.get((row.wish, row.asked), "no")


def two() -> tuple[Swarm, Node, Node]:
    _, swarm = swarm_of(2)
    swarm.mesh()
    swarm.run(100)
    ada, ben = swarm.nodes
    return swarm, ada, ben


def test_who_is_asked_and_says_yes_is_a_friend_of_both() -> None:
    swarm, ada, ben = two()
    order(ada, ben, "yes")
    swarm.run(100)
    assert (stands(ada, ben), stands(ben, ada)) == ("asked", "is asked")
    order(ben, ada, "yes")
    swarm.run(100)
    assert (stands(ada, ben), stands(ben, ada)) == ("friend", "friend")


def test_who_asks_while_the_other_is_away_asks_when_they_meet() -> None:
    _, swarm = swarm_of(2)
    ada, ben = swarm.nodes
    order(ada, ben, "yes")
    swarm.run(100)
    swarm.connect(ben, ada)
    swarm.run(100)
    assert stands(ben, ada) == "is asked"


def test_two_that_ask_each_other_at_once_are_friends() -> None:
    swarm, ada, ben = two()
    order(ada, ben, "yes")
    order(ben, ada, "yes")
    swarm.run(100)
    assert (stands(ada, ben), stands(ben, ada)) == ("friend", "friend")


def test_no_ends_the_asking_and_the_asker_may_ask_again() -> None:
    swarm, ada, ben = two()
    order(ada, ben, "yes")
    swarm.run(100)
    order(ben, ada, "no")
    swarm.run(100)
    assert (stands(ada, ben), stands(ben, ada)) == ("nothing", "nothing")
    swarm.run(told_every_ms)
    order(ada, ben, "yes")
    swarm.run(100)
    assert stands(ben, ada) == "is asked"


@pytest.mark.parametrize("away", [False, True])
def test_either_ends_a_friendship_also_while_the_other_is_away(away: bool) -> None:
    swarm, ada, ben = two()
    order(ada, ben, "yes")
    order(ben, ada, "yes")
    swarm.run(told_every_ms)
    if away:
        swarm.part(ada, ben)
    order(ben, ada, "no")
    swarm.run(100)
    assert stands(ada, ben) == ("friend" if away else "nothing")
    if away:
        swarm.connect(ada, ben)
        swarm.run(told_every_ms)
    assert (stands(ada, ben), stands(ben, ada)) == ("nothing", "nothing")


def test_a_friendship_lasts_over_a_restart() -> None:
    swarm, ada, ben = two()
    order(ada, ben, "yes")
    order(ben, ada, "yes")
    swarm.run(100)
    swarm.part(ada, ben)
    ada.start()
    swarm.connect(ada, ben)
    swarm.run(told_every_ms)
    assert (stands(ada, ben), stands(ben, ada)) == ("friend", "friend")


def test_a_member_that_says_it_without_end_is_heard_once_a_minute() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    for _ in range(100):
        enemy.say(m.Relation("request"))
        enemy.say(m.Relation("remove"))
    asked = [report for report in enemy.node.reports if report.what == "asks to be a friend"]
    assert len(asked) == 1
    assert [*enemy.node.related] == [enemy.keys.node_id]
    enemy.wait(60_000)
    met(swarm, "ben").say(m.Relation("remove"))
    assert enemy.node.related == {}


def test_who_believes_in_a_friendship_that_is_none_is_told_so() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    enemy.say(m.Relation("accept"))
    enemy.wait(100)
    assert enemy.answers(m.Relation) == [m.Relation("remove")]
    assert enemy.node.related == {}


def test_an_observer_is_not_heard() -> None:
    _, swarm = swarm_of(2)
    ada = named(swarm, "ada")
    ada.observers = 1
    ada.start()
    observer = met(swarm, "gus")
    observer.say(m.Relation("request"))
    observer.wait(100)
    assert ada.related == {}


def test_those_who_ask_are_bounded() -> None:
    _, swarm = swarm_of(1)
    (ada,) = swarm.nodes
    friends = ada.machine.meeting.friends
    for number in range(asking_max + 5):
        friends._asked(number.to_bytes(32, "big"), v.Relation(0, "", False), swarm.now_ms)
    swarm.feed(ada, v.Woke())
    assert len(ada.related) == asking_max
