"""Whom a machine lets go, whose clock it believes, what its operator wants dialled, and what frames cost a host."""

from __future__ import annotations

import random

import pytest

from net.proto import frame, peers
from net.proto import message as m
from net.proto import values as v
from net.proto.clocks import Clocks
from net.proto.conduct import host_faults_max
from net.proto.meeting import ask_again_ms, ask_soon_ms_max, surplus_rest_ms
from tests.cast import everything
from tests.net.swarm import Node, Swarm
from tests.net.test_hostile import Enemy, enemy_link, met
from tests.net.test_machine import named, swarm_of
from tests.world import World
from wattswarm.kernel.limits import clock_skew_tolerance_ms

# -- links that are too many ---------------------------------------------------------------------------------------


def test_who_is_let_go_because_there_are_too_many_comes_back_soon_only_if_it_has_too_few_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "mesh_max", 4)
    monkeypatch.setattr(peers, "mesh_full", 4)
    _, swarm = swarm_of(6)
    hub, *others = swarm.nodes
    for other in others:
        other.machine.meeting.book.learn("10.0.0.1:7", "configured", hub.keys.node_id)
        other.machine.meeting.book.answered("10.0.0.1:7", hub.keys.node_id, swarm.now_ms)
        swarm.connect(other, hub)
        swarm.run(50)
    assert len(hub.machine.peers) == 4
    (gone,) = [other for other in others if not other.machine.peers]
    book = gone.machine.meeting.book
    for number in range(peers.mesh_low):
        book.joined(bytes([number]) * 32, None, swarm.now_ms, member=True)
    assert book.dial(swarm.now_ms + surplus_rest_ms - 300) == []
    due_ms = book.next_ms(swarm.now_ms)
    assert due_ms is not None
    assert surplus_rest_ms - 300 < due_ms - swarm.now_ms <= surplus_rest_ms
    book.left(bytes(32), swarm.now_ms)
    assert [target.address for target in book.dial(swarm.now_ms + 10_000)] == ["10.0.0.1:7"]


def test_what_the_operator_removes_is_let_go_and_not_dialled_until_it_is_added_again() -> None:
    _, swarm = swarm_of(2)
    ada, ben = swarm.nodes
    book = ada.machine.meeting.book
    book.learn("10.0.0.1:7", "told", ben.keys.node_id)
    swarm.connect(ada, ben)
    swarm.run(100)
    swarm.feed(ada, v.Placed(ben.keys.node_id.hex(), False))
    assert ada.machine.peers == {}
    later_ms = swarm.now_ms + 2 * peers.rest_ms_max
    assert book.dial(later_ms) == []
    swarm.feed(ada, v.Placed(ben.keys.node_id.hex(), True))
    swarm.feed(ada, v.Placed("10.0.0.1:7", False))
    assert book.dial(later_ms) == []
    swarm.feed(ada, v.Placed("10.0.0.1:7", True))
    assert [target.address for target in book.dial(later_ms)] == ["10.0.0.1:7"]


# -- clocks --------------------------------------------------------------------------------------------------------


def heard(*ahead_ms: int, took_ms: int = 0) -> int:
    """By how much a clock is off that others are ahead of by so much."""
    clocks = Clocks()
    for number, ahead in enumerate(ahead_ms):
        clocks.heard(bytes([number]) * 32, ahead, took_ms)
    return clocks.off_ms


@pytest.mark.parametrize(
    ("ahead_ms", "off_ms"),
    [
        ((-9_000, -9_000), 0),
        ((-9_000, -9_000, -9_100), 9_000),
        ((9_000, 9_000, 9_000), -9_000),
        ((-9_000, 0, 10), 0),
        ((-9_000, -9_000, 0, 0), 0),
        ((-9_000, -8_000, 5_000, 6_000), 8_000),
        ((5_000, 6_000, 7_000, 8_000), -6_000),
        ((-9_000, -8_000, -7_000, -6_000), 7_000),
        ((-clock_skew_tolerance_ms,) * 5, 0),
        ((-clock_skew_tolerance_ms - 1,) * 5, clock_skew_tolerance_ms + 1),
    ],
)
def test_the_median_of_three_or_more_says_whether_a_clock_is_off(ahead_ms: tuple[int, ...], off_ms: int) -> None:
    assert heard(*ahead_ms) == off_ms


def test_what_took_long_to_come_is_no_wrong_clock() -> None:
    assert heard(-9_000, -9_000, -9_000, took_ms=9_000) == 0
    assert heard(-9_000, -9_000, -9_000, took_ms=2_000) == 7_000


def off(node: Node) -> int:
    return node.machine.meeting.clocks.off_ms


def test_a_node_whose_clock_is_ahead_knows_it_and_that_it_was_set_right() -> None:
    _, swarm = swarm_of(4)
    dee = named(swarm, "dee")
    dee.ahead_ms = 10_000
    dee.start()
    swarm.mesh()
    swarm.run(500)
    assert 9_900 <= off(dee) <= 10_000
    assert [off(node) for node in swarm.nodes if node is not dee] == [0, 0, 0]
    dee.ahead_ms = 0
    swarm.feed(dee, v.ClockSet(-10_000))
    assert -100 <= off(dee) <= 0
    meet_all_again(swarm, dee)
    assert off(dee) == 0


def test_a_clock_that_is_set_wrong_while_connected_is_found_out() -> None:
    _, swarm = swarm_of(4)
    dee = named(swarm, "dee")
    swarm.mesh()
    swarm.run(500)
    assert off(dee) == 0
    dee.ahead_ms = 20_000
    swarm.feed(dee, v.ClockSet(20_000))
    assert 19_900 <= off(dee) <= 20_100, "at once: nothing is to be authored with that clock"
    meet_all_again(swarm, dee)
    assert 19_900 <= off(dee) <= 20_000


def test_of_a_clock_that_was_mended_its_peers_know_it_within_seconds() -> None:
    """What they heard of it before must not speak when it is their own clock that goes wrong."""
    _, swarm = swarm_of(4)
    cy, dee = named(swarm, "cy"), named(swarm, "dee")
    for node in (cy, dee):
        node.ahead_ms = 50_000
        node.start()
    swarm.mesh()
    swarm.run(500)
    for node in (cy, dee):
        node.ahead_ms = 0
        swarm.feed(node, v.ClockSet(-50_000))
        meet_all_again(swarm, node, within_s=6)
    assert [off(node) for node in swarm.nodes] == [0] * 4
    ada = named(swarm, "ada")
    ada.ahead_ms = 40_000
    swarm.feed(ada, v.ClockSet(40_000))
    assert 39_900 <= off(ada) <= 40_100


def test_a_clock_that_is_set_a_little_makes_nobody_meet_anew() -> None:
    _, swarm = swarm_of(3)
    swarm.mesh()
    swarm.run(500)
    ada = named(swarm, "ada")
    links = set(ada.machine.peers)
    swarm.feed(ada, v.ClockSet(clock_skew_tolerance_ms))
    swarm.run(5_000)
    assert set(ada.machine.peers) == links


def meet_all_again(swarm: Swarm, node: Node, within_s: int = 60) -> None:
    """Time passes; whoever ``node`` lets go to hear its clock calls again."""
    for _ in range(within_s):
        swarm.run(1_000)
        here = {peer.taken.node_id for peer in node.machine.peers.values() if peer.taken is not None}
        for other in swarm.nodes:
            if other is not node and other.keys.node_id not in here:
                swarm.connect(other, node)


# -- what frames cost ----------------------------------------------------------------------------------------------


def test_frames_that_are_too_large_cost_a_known_node_its_place_in_the_end() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    score = [enemy.node.machine.conduct.score(enemy.keys.node_id, swarm.now_ms)]
    for _ in range(3):
        enemy.feed(v.Misframed(enemy_link, "oversize"))
        score.append(enemy.node.machine.conduct.score(enemy.keys.node_id, swarm.now_ms))
    assert score == [0, -20, -40, -60]
    assert enemy.gone


def test_a_known_node_that_goes_in_mid_frame_is_not_blamed() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    enemy.feed(v.Misframed(enemy_link, "half"))
    assert enemy.node.machine.conduct.remembered() == 0


def stranger(swarm: Swarm) -> Enemy:
    enemy = Enemy(swarm, named(swarm, "ada"), named(swarm, "ben").keys)
    enemy.feed(v.Opened(enemy_link, "203.0.113.9:1", None))
    return enemy


@pytest.mark.parametrize("how", ["oversize", "text", "half", "slow"])
def test_a_host_whose_strangers_do_wrong_three_times_is_blocked_unless_a_member_is_there(how: str) -> None:
    for member_there in (False, True):
        _, swarm = swarm_of(2)
        conduct = named(swarm, "ada").machine.conduct
        if member_there:
            conduct.member_came("203.0.113.9")
        for _ in range(host_faults_max):
            assert not conduct.blocked("203.0.113.9", swarm.now_ms)
            enemy = stranger(swarm)
            enemy.feed(v.Misframed(enemy_link, how))  # type: ignore[arg-type]
            enemy.feed(v.Closed(enemy_link))
        assert conduct.blocked("203.0.113.9", swarm.now_ms) == (not member_there)


def test_calls_that_come_to_nothing_and_proofs_that_are_none_block_a_host_too() -> None:
    _, swarm = swarm_of(2)
    ada, ben = swarm.nodes
    conduct = ada.machine.conduct
    swarm.feed(ada, v.Intruded("203.0.113.9"))
    swarm.feed(ada, v.Intruded("203.0.113.9"))
    enemy = stranger(swarm)
    (hello,) = enemy.heard
    assert isinstance(hello, m.Hello)
    network_id = ada.knowledge.network.network_id
    proof = m.ClientProof(hello.nonce, bytes(64), ada.standing())
    enemy.say(m.Hello((1,), network_id, ben.keys.node_id, 1, b"\1" * 32, swarm.now_ms, (), proof))
    assert enemy.gone
    assert conduct.blocked("203.0.113.9", swarm.now_ms)
    assert not conduct.graylisted(ben.keys.node_id, swarm.now_ms)


def test_messages_of_a_later_version_are_ignored_and_counted() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    for _ in range(5):
        enemy.feed(v.Received(enemy_link, b"\x82\x18\x63\x00"))
    (peer,) = enemy.node.machine.peers.values()
    assert (peer.unknown, enemy.gone) == (5, False)


def test_whoever_asks_for_addresses_gets_thirty_two_a_minute() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    book = enemy.node.machine.meeting.book
    for number in range(100):
        node_id = random.Random(number).randbytes(32)
        book.learn(f"10.0.0.{number}:7", "told", node_id)
        book.joined(node_id, f"10.0.0.{number}:7", swarm.now_ms, member=True)
        book.left(node_id, swarm.now_ms)
    for _ in range(10):
        enemy.say(m.PeersGet())
    told = [len(said.addresses) for said in enemy.answers(m.Peers) if isinstance(said, m.Peers)]
    assert told == [32]


def with_a_newcomer() -> tuple[World, Swarm]:
    """Ben dialled ada, who then dialled somebody that ben has not heard of."""
    world, swarm = swarm_of(2)
    ada, ben = swarm.nodes
    swarm.connect(ben, ada)
    swarm.run(500)
    book, newcomer = ada.machine.meeting.book, random.Random("newcomer").randbytes(32)
    book.learn("10.0.0.77:7", "told", newcomer)
    book.joined(newcomer, "10.0.0.77:7", swarm.now_ms, member=True)
    return world, swarm


def test_who_lacks_links_asks_somebody_for_addresses_once_a_minute() -> None:
    _, swarm = with_a_newcomer()
    ben = swarm.nodes[1]
    swarm.run(ask_again_ms // 2)
    assert len(ben.machine.meeting.book) == 0
    swarm.run(ask_again_ms)
    assert len(ben.machine.meeting.book) == 1


def test_a_change_of_the_membership_has_everybody_ask_at_once() -> None:
    world, swarm = with_a_newcomer()
    ada, ben = swarm.nodes
    ada.take((), [world.next_version({"ada": everything, "ben": everything})])
    swarm.run(ask_soon_ms_max + 500)
    assert len(ben.machine.meeting.book) == 1


def test_who_claims_heads_that_it_never_gives_is_not_let_in_for_a_while() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    enemy.say(m.FrontierGet())
    lies = tuple((bytes([number]) * 32, 1_000, bytes(m.prefix_bytes)) for number in range(100))
    enemy.say(m.Frontier(lies, more=False))
    for _ in range(20):
        asked = [said for said in enemy.answers(m.RangeGet) if isinstance(said, m.RangeGet)]
        enemy.heard.clear()
        for said in asked:
            enemy.say(m.Range(said.author, (), more=False))
        enemy.wait(10)
    assert enemy.gone
    assert enemy.node.machine.conduct.graylisted(enemy.keys.node_id, swarm.now_ms)


def test_who_claims_heads_and_is_silent_about_them_loses_merit_but_not_at_once() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    enemy.say(m.FrontierGet())
    enemy.say(m.Frontier(tuple((bytes([number]) * 32, 9, bytes(m.prefix_bytes)) for number in range(100)), more=False))
    enemy.wait(25_000)
    assert -6 < enemy.node.machine.conduct.score(enemy.keys.node_id, swarm.now_ms) < -4


def test_a_comparison_that_is_said_again_and_again_costs() -> None:
    _, swarm = swarm_of(2)
    enemy = met(swarm, "ben")
    enemy.say(m.NegOpen(2, 0, b"\x61\x00\x00\x01" + bytes(16)))
    for _ in range(11):
        enemy.say(m.NegMsg(2, b"\x61\x00\x00\x01" + bytes(16)))
    assert enemy.gone


def test_who_is_one_too_many_hears_of_others_before_the_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one lane: over a socket a goodbye in a lane of its own would go first, and nothing after it is read."""
    _, swarm = swarm_of(10)
    ada, *others = swarm.nodes
    for number in range(5):
        ada.machine.meeting.book.learn(f"10.0.0.{number}:7", "told", bytes([number]) * 32)
    said: list[tuple[int, int, object]] = []
    perform = swarm._perform

    def watched(node: Node, output: v.Output) -> None:
        if node is ada and isinstance(output, v.Send):
            said.append((output.link, output.lane, frame.decode(output.frame)))
        perform(node, output)

    monkeypatch.setattr(swarm, "_perform", watched)
    for other in others:
        swarm.connect(other, ada)
    swarm.run(2_000)
    (left,) = {link for link, _, message in said if message == m.Bye("surplus")}
    last = [(lane, type(message)) for link, lane, message in said if link == left][-2:]
    assert last == [(m.FINALITY, m.Peers), (m.FINALITY, m.Bye)]
    assert len(ada.machine.peers) == 8
