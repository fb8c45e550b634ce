"""Members that promise without end what they never give: they cost a bounded part, and are let go for it."""

from __future__ import annotations

import pytest

from net.proto import message as m
from net.proto import ranges
from net.proto.ranges import varint
from tests.hostile.rig import Enemy, Gone, Rig
from tests.hostile.verdicts import banished, unheard
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.limits import counter_max, parked_per_author_max


def made_up(number: int) -> bytes:
    """An id, an author, whatever one hash long that nobody has."""
    return sha256(number.to_bytes(8, "big"))


def test_announcements_that_nothing_follows_cost_the_connection(rig: Rig, foe: str) -> None:
    with rig.unharmed():
        with rig.meet(foe, "ada") as enemy:
            for start in range(0, 100_000, 1_000):
                enemy.say(m.Have(tuple(map(made_up, range(start, start + 1_000)))))
            assert enemy.gone() == "graylisted"
            assert 1 <= enemy.count(m.Want) <= 100
        banished(rig, foe)


def test_orphans_without_end_are_parked_within_bounds_and_their_promise_is_held_against_them(
    rig: Rig, foe: str
) -> None:
    """Who sends what comes after a gap says that it has the gap too."""
    parked = rig.head("ada").parked
    chain = [rig.world.create_task(foe) for _ in range(6_000)]  # a busy host asks for many gaps in one question

    def go_on() -> None:
        for start in range(1, 601, 50):
            enemy.tell(*chain[start : start + 50])
        answered = 0
        for orphan in chain[601:]:
            enemy.tell(orphan)
            enemy.say(m.Ping(0))
            enemy.hear(m.Pong)
            asked = [said for said in enemy.heard if isinstance(said, m.RangeGet)]
            for question in asked[answered:]:
                enemy.say(m.Range(question.author, (), more=False))
            answered = len(asked)

    with rig.unharmed():
        with rig.meet(foe, "ada") as enemy, pytest.raises(Gone, match="graylisted"):
            go_on()
        banished(rig, foe)
    unheard(rig, foe)
    assert 0 < rig.head("ada").parked - parked <= parked_per_author_max


def refuse(enemy: Enemy) -> None:
    """Answer a question about a range with nothing."""
    asked = enemy.hear(m.RangeGet)
    enemy.say(m.Range(asked.author, (), more=False))


def test_frontier_of_lies_leads_nowhere_and_is_held_against_its_teller(rig: Rig, foe: str) -> None:
    lies = tuple((made_up(number), counter_max, bytes(m.prefix_bytes)) for number in range(m.frontier_entries_max))

    def lie() -> None:
        enemy.say(m.FrontierGet())
        enemy.hear(m.FrontierGet)
        for _ in range(20):
            enemy.say(m.Frontier(lies, more=True))
        enemy.say(m.Frontier(lies, more=False))
        for _ in range(100):
            refuse(enemy)

    with rig.unharmed():
        with rig.meet(foe, "ada") as enemy, pytest.raises(Gone, match="graylisted"):
            lie()
        banished(rig, foe)


def endless(number: int) -> bytes:
    """A negentropy message that differs from everybody's everywhere, and never the same way."""
    return bytes([ranges.version, *varint(0), 0, 1]) + made_up(number)[: ranges.fingerprint_bytes]


def test_comparison_without_end_that_a_peer_begins_is_told_to_wait(rig: Rig, foe: str) -> None:
    with rig.unharmed(), rig.meet(foe, "ada") as enemy:
        for session in range(0, 4_000, 2):
            enemy.say(m.NegOpen(session, 0, endless(session)))
        for number in range(4_000):
            enemy.say(m.NegMsg(0, endless(number)))
        assert enemy.alive()
        assert enemy.count(m.NegMsg) <= 200
        assert enemy.count(m.NegErr) >= 1_000


def test_comparison_without_end_that_the_node_begins_is_held_against_the_peer(rig: Rig, foe: str) -> None:
    """An event of an author whom nobody knows makes a node ask for the certificates that admit them."""

    def argue() -> None:
        enemy.tell(rig.world.create_task("nobody"))
        session = enemy.hear(m.NegOpen).session
        for number in range(100):
            enemy.say(m.NegMsg(session, endless(number)))
            enemy.hear(m.NegMsg)

    with rig.unharmed():
        with rig.meet(foe, "ada") as enemy, pytest.raises(Gone, match="graylisted"):
            argue()
        banished(rig, foe)
