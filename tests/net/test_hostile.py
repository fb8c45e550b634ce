"""Peers that mean harm: an honest node beside them stays up, stays bounded, and ends with what the honest ones hold."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from net.proto import frame, gossip, negentropy
from net.proto import message as m
from net.proto import values as v
from net.proto.budget import allowances
from net.proto.handshake import ClientHandshake, Door, Me
from net.proto.items import Items
from tests.cast import fork_of, keys_of
from tests.net.swarm import Node, Swarm, equal
from tests.net.test_machine import chatter, named, swarm_of
from wattswarm.kernel.identity import Keypair

enemy_link = 9_999


@dataclass
class Enemy:
    """A member's key in bad hands, connected to one node by hand: it says what it is told to."""

    swarm: Swarm
    node: Node
    keys: Keypair
    heard: list[m.Message] = field(default_factory=list)
    gone: bool = False

    def take(self, outputs: Iterable[v.Output]) -> list[v.Output]:
        """Do what the node says, except that what is for the enemy comes here."""
        mine = []
        for output in outputs:
            match output:
                case v.Send(link, _, data) if link == enemy_link:
                    said = frame.decode(data)
                    assert not isinstance(said, frame.Unknown)
                    self.heard.append(said)
                case v.Close(link) if link == enemy_link:
                    self.gone = True
                case _:
                    mine.append(output)
                    self.swarm._perform(self.node, output)
        return mine

    def feed(self, given: v.Input) -> list[v.Output]:
        return self.take(self.node.machine.handle(given, self.swarm.now_ms))

    def say(self, message: m.Message) -> list[v.Output]:
        return self.feed(v.Received(enemy_link, frame.encode(message)))

    def wait(self, for_ms: int) -> None:
        """Let time pass; what the node then says to the enemy comes here."""
        plain = self.swarm.feed
        self.swarm.feed = self._instead  # type: ignore[method-assign]
        self.swarm.run(for_ms)
        self.swarm.feed = plain  # type: ignore[method-assign]

    def _instead(self, node: Node, given: v.Input) -> None:
        outputs = node.machine.handle(given, self.swarm.now_ms)
        if node is self.node:
            self.take(outputs)
        else:
            for output in outputs:
                self.swarm._perform(node, output)

    def answers(self, kind: type[m.Message]) -> list[m.Message]:
        return [said for said in self.heard if type(said) is kind]

    def shake_hands(self) -> None:
        door = Door(lambda _: True, lambda _: False, lambda: 9)
        me = Me(self.keys, self.node.knowledge.network.network_id, 1)
        side = ClientHandshake(me, door, random.Random(1), self.node.keys.node_id)
        self.feed(v.Opened(enemy_link, "203.0.113.9:1", None))
        (hello,) = self.heard
        assert isinstance(hello, m.Hello)
        self.say(side.on_hello(hello, self.node.standing(), self.swarm.now_ms))
        assert self.answers(m.Welcome)


def met(swarm: Swarm, name: str = "dee") -> Enemy:
    """The enemy with the key of ``name``, connected to ada."""
    enemy = Enemy(swarm, named(swarm, "ada"), keys_of(name))
    enemy.shake_hands()
    return enemy


def honest() -> tuple[Swarm, Enemy]:
    """Three honest nodes that know each other, and the enemy at ada's door."""
    world, swarm = swarm_of(4)
    swarm.nodes.pop()
    swarm.mesh()
    swarm.run(500)
    chatter(world, swarm, "ben", 20)
    swarm.run(500)
    return swarm, met(swarm)


def still_sound(swarm: Swarm) -> None:
    """The honest nodes hold the same."""
    assert equal(swarm.nodes)


def test_who_asks_without_end_is_answered_a_little_at_a_time() -> None:
    swarm, enemy = honest()
    author = keys_of("ben").node_id
    asked = sum(isinstance(output, v.Ask) for _ in range(1_000) for output in enemy.say(m.RangeGet(author, 0, 1 << 60)))
    assert asked <= 16
    enemy.wait(200)
    assert len(enemy.answers(m.Range)) <= 2 * asked
    still_sound(swarm)


def test_who_reconciles_without_end_is_told_to_wait() -> None:
    swarm, enemy = honest()
    opening = negentropy.Initiator(Items()).open()
    for session in range(0, 4_000, 2):
        enemy.say(m.NegOpen(session, 0, opening))
    assert len(enemy.answers(m.NegMsg)) <= 2
    assert all(said.reason == "busy" for said in enemy.answers(m.NegErr) if isinstance(said, m.NegErr))
    for _ in range(500):
        enemy.say(m.NegMsg(0, opening))
    assert len(enemy.answers(m.NegMsg)) <= 66
    still_sound(swarm)


def test_promises_that_are_never_kept_cost_the_promiser_the_connection() -> None:
    swarm, enemy = honest()
    for start in range(0, 20_000, 1_000):
        enemy.say(m.Have(tuple(number.to_bytes(32, "big") for number in range(start, start + 1_000))))
        enemy.wait(50)
    enemy.wait(gossip.promise_patience_ms)
    assert enemy.gone
    assert enemy.node.machine.conduct.graylisted(enemy.keys.node_id, swarm.now_ms)
    still_sound(swarm)


def test_a_frontier_of_lies_leads_nowhere_and_ends() -> None:
    world, swarm = swarm_of(2)
    chatter(world, swarm, "ada", 5)
    enemy = Enemy(swarm, named(swarm, "ada"), keys_of("ben"))
    enemy.shake_hands()
    enemy.say(m.FrontierGet())
    lies = tuple((bytes([number]) * 32, (1 << 63) - 1, bytes(m.prefix_bytes)) for number in range(100))
    enemy.say(m.Frontier(lies, more=False))
    for _ in range(400):
        asked = [said for said in enemy.answers(m.RangeGet) if isinstance(said, m.RangeGet)]
        enemy.heard.clear()
        for said in asked:
            enemy.say(m.Range(said.author, (), more=False))
        enemy.wait(10)
    assert enemy.answers(m.RangeGet) == []
    assert enemy.node.store.head.events == 5


def test_an_event_with_a_bad_signature_ends_the_connection_and_keeps_the_node_out() -> None:
    swarm, enemy = honest()
    body, signature = enemy.node.store.events[0].wire
    forged = body[:-1] + bytes([body[-1] ^ 1])
    enemy.say(m.Events(((forged, signature),)))
    enemy.wait(100)
    assert enemy.gone
    assert enemy.node.machine.conduct.graylisted(enemy.keys.node_id, swarm.now_ms)
    still_sound(swarm)


def test_orphans_without_end_are_parked_within_bounds() -> None:
    world, swarm = swarm_of(2)
    said = chatter(world, swarm, "ben", 2_000, heard=False)
    enemy = Enemy(swarm, named(swarm, "ada"), keys_of("ben"))
    enemy.shake_hands()
    for start in range(1, 2_000, 100):
        enemy.say(m.Events(tuple((event.body, event.signature) for event in said[start : start + 100])))
        enemy.wait(200)
    enemy.wait(60_000)
    assert enemy.node.store.head.events == 0
    assert enemy.node.store.head.parked <= 256


@pytest.mark.parametrize("count", [1, 64])
def test_certificates_that_prove_nothing_are_their_senders_fault(count: int) -> None:
    swarm, enemy = honest()
    enemy.say(m.Cert(tuple(bytes([number]) * 40 for number in range(count))))
    enemy.wait(100)
    assert enemy.gone
    still_sound(swarm)


def test_certificates_that_nobody_asked_for_cost_as_many_checks_as_they_hold_signatures() -> None:
    world, swarm = swarm_of(2)
    enemy = Enemy(swarm, named(swarm, "ada"), keys_of("ben"))
    enemy.shake_hands()
    said = world.create_task("ben")
    fork = fork_of(said, world.rival(said)).wire()
    outputs = [output for _ in range(40) for output in enemy.say(m.Cert((fork,) * 25))]
    taken = sum(len(output.certificates) for output in outputs if isinstance(output, v.Ingest))
    assert 2 * taken == allowances["checks"].burst < 2 * 40 * 25


def test_a_node_of_another_network_is_turned_away_and_nobody_is_blamed() -> None:
    _, swarm = swarm_of(2)
    ada = named(swarm, "ada")
    enemy = Enemy(swarm, ada, keys_of("ben"))
    enemy.feed(v.Opened(enemy_link, "203.0.113.9:1", None))
    (hello,) = enemy.heard
    assert isinstance(hello, m.Hello)
    enemy.say(m.Hello((1,), b"\x99" * 32, enemy.keys.node_id, 1, b"\1" * 32, swarm.now_ms, (), None))
    assert enemy.gone
    assert not ada.machine.conduct.graylisted(enemy.keys.node_id, swarm.now_ms)


def test_words_before_the_handshake_end_the_connection() -> None:
    _, swarm = swarm_of(2)
    enemy = Enemy(swarm, named(swarm, "ada"), keys_of("ben"))
    enemy.feed(v.Opened(enemy_link, "203.0.113.9:1", None))
    enemy.say(m.FrontierGet())
    assert enemy.gone
    assert enemy.answers(m.Frontier) == []


def test_an_observer_reads_and_is_not_listened_to() -> None:
    world, swarm = swarm_of(2)
    said = chatter(world, swarm, "ben", 3, heard=False)
    ada = named(swarm, "ada")
    ada.observers = 1
    ada.start()
    enemy = Enemy(swarm, ada, keys_of("gus"))
    enemy.shake_hands()
    enemy.say(m.Events(tuple((event.body, event.signature) for event in said)))
    enemy.say(m.Have(tuple(event.id for event in said)))
    enemy.wait(1_000)
    assert not enemy.gone
    assert ada.store.head.events == 0
    assert enemy.answers(m.Want) == []


def hostage() -> tuple[Swarm, Enemy]:
    """Ben holds a long chain that ada lacks, and the enemy at ada's door promised her all of it before he came."""
    world, swarm = swarm_of(3)
    swarm.nodes.pop()
    said = chatter(world, swarm, "ben", 600)
    enemy = Enemy(swarm, named(swarm, "ada"), keys_of("cy"))
    enemy.shake_hands()
    enemy.say(m.FrontierGet())
    enemy.wait(50)
    enemy.say(m.Frontier(((said[-1].author, said[-1].author_seq + 9_999, said[-1].id[: m.prefix_bytes]),), more=False))
    enemy.wait(50)
    assert enemy.answers(m.RangeGet)
    swarm.mesh()
    return swarm, enemy


def test_chain_that_a_liar_promised_comes_from_who_has_it_when_the_promise_is_not_kept() -> None:
    swarm, enemy = hostage()
    enemy.wait(12_000)
    still_sound(swarm)


def test_chain_that_a_liar_promised_comes_from_who_has_it_when_the_liar_is_gone() -> None:
    swarm, enemy = hostage()
    enemy.wait(1_000)
    enemy.feed(v.Closed(enemy_link))
    swarm.run(1_000)
    still_sound(swarm)


def test_liar_that_promises_a_chain_again_and_again_does_not_keep_it_from_who_has_it() -> None:
    swarm, enemy = hostage()
    said = named(swarm, "ben").store.events
    for number in range(120):
        late = said[-1 - number]
        enemy.say(m.Events(((late.body, late.signature),)))
        enemy.wait(100)
    still_sound(swarm)
