"""Machines that talk: whatever is lost, cut or late, everybody ends with the same (docs/network.md §5, §6)."""

from __future__ import annotations

import pytest

from net.proto import exchange, frame, gossip, reconcile
from net.proto import message as m
from net.proto import values as v
from tests.cast import everything, fork_of, keys_of
from tests.net.swarm import Node, Swarm, equal
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import course

task = b"\x77" * 32


def swarm_of(count: int, *, loss: float = 0.0, observers: int = 0) -> tuple[World, Swarm]:
    world = World.of(count)
    swarm = Swarm(world.network, world.now_ms, loss=loss)
    for name in world.members:
        swarm.node(name, keys_of(name), observers)
    return world, swarm


def named(swarm: Swarm, name: str) -> Node:
    return next(node for node in swarm.nodes if node.name == name)


def chatter(world: World, swarm: Swarm, name: str, count: int, *, heard: bool = True) -> list[Event]:
    """``name`` says something that nobody understands, ``count`` times."""
    world.now_ms = max(world.now_ms, swarm.now_ms)
    said = [world.author(name, course.TaskExpired(), task=task) for _ in range(count)]
    swarm.now_ms = max(swarm.now_ms, world.now_ms)
    if heard:
        named(swarm, name).take(said)
    return said


def test_two_nodes_meet_and_need_nothing() -> None:
    _, swarm = swarm_of(2)
    swarm.mesh()
    swarm.run(1_000)
    assert all(peer.stage == "level" for node in swarm.nodes for peer in node.machine.peers.values())
    assert sum(swarm.frames.values()) < 1_500


def test_an_event_of_one_is_soon_everybodys() -> None:
    world, swarm = swarm_of(4)
    swarm.mesh()
    swarm.run(500)
    chatter(world, swarm, "ada", 3)
    swarm.run(100)
    assert equal(swarm.nodes)
    assert swarm.nodes[3].store.head.events == 3


def test_a_node_that_comes_late_gets_all_there_is() -> None:
    """And both ends of every connection know that they are level again."""
    world, swarm = swarm_of(3)
    for name in world.members:
        chatter(world, swarm, name, 700)
    swarm.mesh()
    swarm.run(5_000)
    assert equal(swarm.nodes)
    assert swarm.nodes[0].store.head.events == 2_100
    swarm.run(60_000)
    assert {peer.stage for node in swarm.nodes for peer in node.machine.peers.values()} == {"level"}


def test_a_peer_that_is_slow_with_many_events_is_not_shut_out() -> None:
    """A hundred are announced in one breath and do not come in time: one promise was not kept."""
    _, swarm = swarm_of(2)
    swarm.mesh()
    swarm.run(500)
    one, other = swarm.nodes
    (link,) = one.links
    swarm.feed(one, v.Received(link, frame.encode(m.Have(tuple(bytes([number]) * 32 for number in range(100))))))
    swarm.run(gossip.promise_patience_ms + 1_000)
    assert one.machine.conduct.score(other.keys.node_id, swarm.now_ms) == pytest.approx(-5, abs=0.1)
    assert link in one.machine.peers


def test_both_sides_of_a_partition_go_on_and_are_equal_when_it_heals() -> None:
    world, swarm = swarm_of(4)
    swarm.mesh()
    swarm.run(500)
    left, right = swarm.nodes[:2], swarm.nodes[2:]
    for one in left:
        for other in right:
            swarm.part(one, other)
    for name in world.members:
        chatter(world, swarm, name, 300)
    swarm.run(400_000)
    assert equal(left)
    assert equal(right)
    assert not equal(swarm.nodes)
    for one in left:
        for other in right:
            swarm.connect(other, one)
    swarm.run(3_000)
    assert equal(swarm.nodes)


def test_a_partition_longer_than_every_cache_heals_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What gossip remembers, awaits and owes is as good as nothing, and the cut lasts an hour."""
    for module, name, most in (
        (gossip, "ids_met_max", 16),
        (gossip, "ids_awaited_max", 16),
        (gossip, "owed_max", 8),
        (exchange, "untold_max", 16),
    ):
        monkeypatch.setattr(module, name, most)
    world, swarm = swarm_of(4)
    swarm.mesh()
    swarm.run(500)
    left, right = swarm.nodes[:2], swarm.nodes[2:]
    for one in left:
        for other in right:
            swarm.part(one, other)
    for _ in range(10):
        for name in world.members:
            chatter(world, swarm, name, 40)
        swarm.run(360_000)
    assert equal(left)
    assert equal(right)
    for one in left:
        for other in right:
            swarm.connect(other, one)
    swarm.run(5_000)
    assert equal(swarm.nodes)
    assert swarm.nodes[0].store.head.events == 10 * 4 * 40


def test_what_gossip_lost_of_news_is_found_within_one_period_however_long_all_was_well() -> None:
    world, swarm = swarm_of(2, loss=1.0)
    swarm.mesh()
    swarm.run(3_600_000)
    chatter(world, swarm, "ada", 5)
    swarm.run(35_000)
    assert equal(swarm.nodes)


def test_slow_answers_cost_nobody_a_connection() -> None:
    """Three thousand events are announced at once to a node that has none of them, by one whose log takes its time."""
    world, swarm = swarm_of(2)
    swarm.mesh()
    swarm.run(500)
    ada, ben = swarm.nodes
    said = chatter(world, swarm, "ada", 3_000, heard=False)
    ada.log_ms = 2_000
    ada.take(said, asked=True)
    swarm.run(120_000)
    assert equal(swarm.nodes)
    assert not [report for report in ben.reports if report.what == "graylisted"]
    assert ben.machine.conduct.score(ada.keys.node_id, swarm.now_ms) >= 0


def test_what_gossip_loses_reconciliation_finds() -> None:
    world, swarm = swarm_of(4, loss=1.0)
    swarm.mesh()
    swarm.run(500)
    for name in world.members:
        chatter(world, swarm, name, 5)
    swarm.run(1_000)
    assert not equal(swarm.nodes)
    swarm.run(400_000)
    assert equal(swarm.nodes)


def test_a_membership_version_goes_ahead_of_the_events_of_those_it_admits() -> None:
    world, swarm = swarm_of(2)
    ada, ben = swarm.nodes
    admitted = world.next_version({"ada": everything, "ben": everything, "cy": everything})
    ada.take((), [admitted])
    world.now_ms = swarm.now_ms
    ada.take([world.author("cy", course.TaskExpired(), task=task) for _ in range(20)])
    swarm.now_ms = world.now_ms
    swarm.connect(ben, ada)
    swarm.run(2_000)
    assert equal(swarm.nodes)
    assert (ben.store.head.memberships, ben.store.head.events, ben.store.head.parked) == (1, 20, 0)


def test_a_version_made_while_nodes_are_connected_reaches_them() -> None:
    world, swarm = swarm_of(3)
    swarm.mesh()
    swarm.run(500)
    swarm.nodes[0].take((), [world.next_version({"ada": everything, "ben": everything, "cy": everything})])
    swarm.run(500)
    assert [node.store.head.memberships for node in swarm.nodes] == [1, 1, 1]


def test_a_comparison_that_is_given_up_ends_no_more_than_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stands still when two nodes meet is asked the rest later: what it holds of one's own chain above all."""
    world, swarm = swarm_of(2)
    for name in world.members:
        chatter(world, swarm, name, 3)
    ada, ben = swarm.nodes
    ada.take((), [world.next_version({"ada": everything, "ben": everything, "cy": everything})])
    swarm.connect(ada, ben)
    (peer,) = ada.machine.peers.values()
    while peer.stage == "new":
        swarm.run(1)
    monkeypatch.setattr(ben.machine, "handle", lambda _given, _now_ms: [])
    swarm.run(reconcile.silence_ms_max - 1_000)
    assert (peer.stage, peer.own_seq) == ("ruling", None)
    monkeypatch.undo()
    swarm.run(2_000)
    assert peer.own_seq is not None


def test_a_fork_shown_to_one_half_and_not_to_the_other_voids_the_same_everywhere() -> None:
    world, swarm = swarm_of(4)
    swarm.mesh()
    swarm.run(500)
    said = chatter(world, swarm, "dee", 3, heard=False)
    rival = world.rival(said[1], course.TaskExpired(), task=b"\x78" * 32)
    swarm.nodes[0].take([said[0], said[1], said[2]])
    swarm.nodes[1].take([said[0], rival])
    swarm.run(60_000)
    assert equal(swarm.nodes)
    assert swarm.nodes[0].store.head.events == 1
    assert fork_of(said[1], rival).id in swarm.nodes[3].store.certificates


def test_a_node_that_is_cut_off_again_and_again_gets_on() -> None:
    world, swarm = swarm_of(2)
    chatter(world, swarm, "ada", 3_000)
    ada, ben = swarm.nodes
    for _ in range(200):
        swarm.connect(ben, ada)
        swarm.run(60)
        swarm.part(ben, ada)
        if equal(swarm.nodes):
            break
    assert equal(swarm.nodes)


def test_two_that_dial_each_other_at_once_keep_one_connection() -> None:
    _, swarm = swarm_of(2)
    ada, ben = swarm.nodes
    swarm.connect(ada, ben)
    swarm.connect(ben, ada)
    swarm.run(1_000)
    assert [len(node.machine.peers) for node in swarm.nodes] == [1, 1]


def test_a_stranger_is_turned_away_and_an_observer_reads() -> None:
    world, swarm = swarm_of(2)
    stranger = swarm.node("gus", keys_of("gus"))
    chatter(world, swarm, "ada", 10)
    swarm.connect(stranger, swarm.nodes[0])
    swarm.run(1_000)
    assert stranger.store.head.events == 0
    assert stranger.machine.peers == {}
    open_to_all = swarm.node("open", keys_of("cy"), observers=1)
    world_events = swarm.nodes[0].store.events
    open_to_all.take(world_events)
    swarm.connect(stranger, open_to_all)
    swarm.run(3_000)
    assert stranger.store.head.events == 10


def test_garbage_ends_the_connection_and_nothing_else() -> None:
    world, swarm = swarm_of(3)
    swarm.mesh()
    swarm.run(500)
    ada, ben = swarm.nodes[:2]
    link = next(link for link, (peer, _) in ada.links.items() if peer is ben)
    swarm.feed(ada, v.Received(link, b"\xff" * 100))
    swarm.run(500)
    assert ada.machine.conduct.graylisted(ben.keys.node_id, swarm.now_ms)
    chatter(world, swarm, "ben", 2)
    swarm.run(60_000)
    assert equal(swarm.nodes)
