"""Who only reads: told of everything within moments, taken at its word from the moment that it is a member."""

from __future__ import annotations

from net.proto import values as v
from net.proto.values import ruling_set
from tests.cast import everything, keys_of
from tests.net.swarm import Node, Swarm, equal
from tests.net.test_machine import chatter, swarm_of
from tests.world import World


def with_observer() -> tuple[World, Swarm, Node]:
    """Two members that let somebody read, and cy, who reads with both."""
    world, swarm = swarm_of(2, observers=1)
    swarm.mesh()
    cy = swarm.node("cy", keys_of("cy"))
    for member in swarm.nodes[:2]:
        swarm.connect(cy, member)
    swarm.run(1_000)
    return world, swarm, cy


def test_an_observer_hears_of_an_event_within_moments() -> None:
    world, swarm, cy = with_observer()
    chatter(world, swarm, "ada", 3)
    swarm.run(500)
    assert cy.store.head.events == 3
    assert all(not node.machine.exchange.gossip.eager & node.machine.exchange.gossip.readers for node in swarm.nodes)


def test_an_observer_learns_of_a_membership_version_at_once() -> None:
    world, swarm, cy = with_observer()
    swarm.nodes[0].take((), [world.next_version({"ada": everything, "ben": everything, "cy": everything})])
    swarm.run(500)
    assert cy.store.head.memberships == 1


def test_who_becomes_a_member_while_connected_is_listened_to_at_once() -> None:
    world, swarm, _ = with_observer()
    swarm.nodes[0].take((), [world.next_version({"ada": everything, "ben": everything, "cy": everything})])
    swarm.run(500)
    chatter(world, swarm, "cy", 4)
    swarm.run(500)
    assert equal(swarm.nodes)
    assert swarm.nodes[1].store.head.events == 4
    assert not any(peer.reads_only for node in swarm.nodes for peer in node.machine.peers.values())


def test_what_a_new_member_said_before_others_knew_is_fetched() -> None:
    world, swarm, cy = with_observer()
    version = world.next_version({"ada": everything, "ben": everything, "cy": everything})
    cy.take((), [version])
    chatter(world, swarm, "cy", 4)
    swarm.nodes[0].take((), [version])
    swarm.run(2_000)
    assert equal(swarm.nodes)


def test_a_comparison_that_finds_certificates_goes_on_to_events() -> None:
    world, swarm = swarm_of(2)
    swarm.mesh()
    swarm.run(1_000)
    ada, ben = swarm.nodes
    for link in list(ada.links):
        ada.machine.exchange.gossip.left(link, swarm.now_ms)
    swarm.loss = 1.0
    version = world.next_version({"ada": everything, "ben": everything, "cy": everything})
    ada.store.certificates[version.id] = version
    ada.machine.exchange.sets[ruling_set].insert(0, version.id)
    chatter(world, swarm, "ada", 5)
    peer = next(iter(ben.machine.peers.values()))
    ben.machine.exchange.reconcile(peer, swarm.now_ms)
    swarm.feed(ben, v.Woke())
    swarm.run(1_000)
    assert (ben.store.head.memberships, ben.store.head.events) == (1, 5)
