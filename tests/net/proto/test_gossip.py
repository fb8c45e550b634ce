"""Gossip: everybody gets an event, nearly everybody gets it once, and nothing that a peer sends makes it grow."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import pytest

from net.proto import gossip
from net.proto.gossip import Gossip
from net.proto.rhythm import never_ms


def ids(*numbers: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in numbers]


def linked(*links: int, lazy: tuple[int, ...] = ()) -> Gossip:
    made = Gossip()
    for link in (*links, *lazy):
        made.joined(link, eager=link not in lazy)
    return made


# -- one node ------------------------------------------------------------------------------------------------------


def test_an_event_is_pushed_on_eager_links_and_announced_on_lazy_ones() -> None:
    node = linked(1, 2, lazy=(3,))
    assert node.spread(ids(7), 0, own=False, repaired=False) == {1: ids(7), 2: ids(7)}
    assert node.next_ms() == gossip.announce_every_ms
    assert node.due(gossip.announce_every_ms - 1).have == {}
    assert node.due(gossip.announce_every_ms).have == {3: ids(7)}
    assert node.next_ms() == never_ms


def test_an_event_of_ones_own_is_pushed_to_everybody() -> None:
    node = linked(1, lazy=(2,))
    assert node.spread(ids(7), 0, own=True, repaired=False) == {1: ids(7), 2: ids(7)}
    assert node.next_ms() == never_ms


def test_what_was_announced_is_asked_for_in_that_order() -> None:
    node = linked(1)
    node.lacks(1, ids(7, 3, 9, 1), 0)
    assert node.due(gossip.push_chance_ms).want == {1: ids(7, 3, 9, 1)}


def test_a_repaired_event_is_only_announced() -> None:
    node = linked(1, lazy=(2,))
    assert node.spread(ids(7), 0, own=False, repaired=True) == {}
    assert node.due(gossip.announce_every_ms).have == {1: ids(7), 2: ids(7)}


def test_nobody_is_told_what_they_are_known_to_have() -> None:
    node = linked(1, 2, lazy=(3,))
    assert node.came(1, ids(7)) == (ids(7), False)
    assert node.told(3, ids(7)) == []
    assert node.spread(ids(7), 0, own=False, repaired=False) == {2: ids(7)}
    assert node.next_ms() == never_ms


def test_pushes_that_bring_nothing_new_are_needless_in_the_end() -> None:
    node = linked(1, 2)
    known = ids(*range(gossip.needless_max))
    node.came(1, known)
    assert node.came(2, known[1:]) == ([], False)
    assert node.came(2, known[:1]) == ([], True)
    node.make_lazy(2)
    assert node.came(2, known[:1]) == ([], False)


def test_a_link_that_brings_news_as_often_as_not_is_never_needless() -> None:
    node = linked(1, 2)
    for number in range(10 * gossip.needless_max):
        node.came(1, ids(number))
        assert not node.came(2, ids(number))[1]
        assert not node.came(2, ids(1_000 + number))[1]


def test_an_announced_event_is_asked_for_when_no_push_brings_it_and_makes_its_link_the_one_asked() -> None:
    node = linked(1, lazy=(2,))
    assert node.told(2, ids(7)) == ids(7)
    node.lacks(2, ids(7), 0)
    assert node.due(gossip.push_chance_ms - 1).want == {}
    assert node.due(gossip.push_chance_ms).want == {2: ids(7)}
    assert node.came(2, ids(7)) == (ids(7), False)
    assert node.due(20_000).broken == {}


def test_a_push_in_time_saves_the_asking() -> None:
    node = linked(1, lazy=(2,))
    node.told(2, ids(7))
    node.lacks(2, ids(7), 0)
    node.came(1, ids(7))
    found = node.due(20_000)
    assert (found.want, found.broken) == ({}, {})


def owing(*numbers: int) -> gossip.Gossip:
    """A node that asked link 1 for these at the time ``gossip.push_chance_ms``, and link 2 half a second later."""
    node = linked(lazy=(1, 2))
    node.told(1, ids(*numbers))
    node.lacks(1, ids(*numbers), 0)
    node.told(2, ids(*numbers))
    assert sorted(node.due(gossip.push_chance_ms).want[1]) == sorted(ids(*numbers))
    assert sorted(node.due(later(gossip.want_patience_ms)).want[2]) == sorted(ids(*numbers))
    return node


def later(ms: int) -> int:
    return gossip.push_chance_ms + ms


def test_who_does_not_bring_what_was_asked_in_time_is_not_blamed_and_the_next_announcer_is_asked() -> None:
    node = owing(7)
    found = node.due(later(2 * gossip.want_patience_ms))
    assert (found.broken, found.want) == ({}, {})


def test_who_brings_nothing_for_long_of_what_was_asked_has_broken_its_promises() -> None:
    node = owing(7, 8)
    node.came(2, ids(7))
    assert node.due(later(gossip.promise_patience_ms) - 1).broken == {}
    assert node.due(later(gossip.promise_patience_ms)).broken == {1: 2}
    node.due(later(gossip.promise_patience_ms + gossip.want_patience_ms))
    for _ in range(3):
        at = node.next_ms()
        assert at == never_ms or node.due(at).broken == {}
    assert node.next_ms() == never_ms


def test_what_comes_late_was_asked_for_all_the_same_and_is_no_needless_push() -> None:
    node = owing(7)
    assert node.asked(1, ids(7))
    assert node.came(2, ids(7)) == (ids(7), False)
    assert node.came(1, ids(7)) == ([], False)
    repeats = [node.came(1, ids(7)) for _ in range(gossip.needless_max)]
    assert repeats == [([], False)] * (gossip.needless_max - 1) + [([], True)]
    assert node.due(later(gossip.promise_patience_ms)).broken == {}


def test_of_one_link_only_so_much_is_asked_before_it_has_brought_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "owed_max", 2)
    node = linked(lazy=(1,))
    node.lacks(1, ids(1, 2, 3), 0)
    first = node.due(gossip.push_chance_ms).want[1]
    assert len(first) == 2
    node.came(1, first)
    (last,) = set(ids(1, 2, 3)) - set(first)
    assert node.due(later(gossip.want_patience_ms)).want[1] == [last]


def test_what_was_asked_of_a_link_that_is_gone_is_asked_of_another_and_nobody_is_blamed() -> None:
    node = linked(lazy=(1, 2))
    node.told(1, ids(7))
    node.lacks(1, ids(7), 0)
    node.told(2, ids(7))
    node.due(gossip.push_chance_ms)
    node.left(1, gossip.push_chance_ms)
    found = node.due(gossip.push_chance_ms + 1)
    assert (found.broken, found.want) == ({}, {2: ids(7)})


def test_an_event_that_came_and_was_not_stored_may_come_again() -> None:
    node = linked(1, 2)
    node.came(1, ids(7))
    node.lost(ids(7))
    assert node.came(2, ids(7)) == (ids(7), False)


def test_the_log_holds_what_is_announced_anew() -> None:
    node = linked(1)
    assert node.told(1, ids(7)) == ids(7)
    node.has(ids(7))
    assert node.told(1, ids(7)) == []


def test_links_turn_lazy_and_eager_and_leave() -> None:
    node = linked(1, 2)
    node.make_lazy(1)
    node.make_lazy(9)
    assert (node.eager, node.lazy) == ({2}, {1})
    node.make_eager(1)
    node.make_eager(9)
    assert (node.eager, node.lazy) == ({1, 2}, set())
    node.left(1, 0)
    assert (node.eager, node.lazy) == ({2}, set())


def test_a_flood_of_announcements_does_not_push_out_its_own_promises() -> None:
    node = linked(lazy=(1,))
    flood = ids(*range(gossip.ids_awaited_max + 10))
    node.lacks(1, node.told(1, flood), 0)
    wanted = node.due(gossip.push_chance_ms).want[1]
    assert wanted == flood[: gossip.owed_max]


def test_ids_that_were_met_long_ago_are_forgotten() -> None:
    node = linked(1)
    flood = ids(*range(gossip.ids_met_max + 1))
    node.came(1, flood)
    assert node.came(1, flood[-1:]) == ([], False)
    assert node.came(1, flood[:1]) == (flood[:1], False)


# -- many nodes ----------------------------------------------------------------------------------------------------


@dataclass
class Mesh:
    """Nodes that only gossip, on links with a delay; some of what they send may be lost."""

    source: random.Random
    loss: float = 0.0
    now_ms: int = 0
    nodes: list[Gossip] = field(default_factory=list)
    peers: dict[tuple[int, int], int] = field(default_factory=dict)
    stored: list[dict[bytes, int]] = field(default_factory=list)
    copies: Counter[bytes] = field(default_factory=Counter)
    queue: list[tuple[int, int, Any]] = field(default_factory=list)
    sent: int = 0

    @staticmethod
    def of(count: int, degree: int, seed: int, loss: float = 0.0) -> Mesh:
        mesh = Mesh(random.Random(seed), loss)
        mesh.nodes = [Gossip() for _ in range(count)]
        mesh.stored = [{} for _ in range(count)]
        pairs = {(node, (node + step) % count) for node in range(count) for step in range(1, degree // 2 + 1)}
        links: dict[int, int] = defaultdict(int)
        for one, other in sorted(pairs):
            for here, there in ((one, other), (other, one)):
                links[here] += 1
                mesh.peers[here, links[here]] = there
                mesh.nodes[here].joined(links[here], eager=True)
        return mesh

    def link_to(self, here: int, there: int) -> int:
        return next(link for (node, link), peer in self.peers.items() if (node, peer) == (here, there))

    def send(self, here: int, link: int, what: str, found: list[bytes]) -> None:
        if self.source.random() >= self.loss:
            self.sent += 1
            delay = self.source.randint(2, 20)
            heappush(self.queue, (self.now_ms + delay, self.sent, (self.peers[here, link], here, what, found)))

    def say(self, node: int, event_id: bytes) -> None:
        self.store(node, [event_id], own=True)

    def store(self, node: int, found: list[bytes], *, own: bool = False) -> None:
        self.stored[node].update(dict.fromkeys(found, self.now_ms))
        for link, pushed in self.nodes[node].spread(found, self.now_ms, own=own, repaired=False).items():
            self.send(node, link, "events", pushed)

    def deliver(self, node: int, sender: int, what: str, found: list[bytes]) -> None:
        here, link = self.nodes[node], self.link_to(node, sender)
        match what:
            case "events":
                self.copies.update(found)
                fresh, needless = here.came(link, found)
                if needless and link in here.eager:
                    here.make_lazy(link)
                    self.send(node, link, "prune", [])
                self.store(node, fresh)
            case "have":
                here.lacks(link, here.told(link, found), self.now_ms)
            case "want":
                here.make_eager(link)
                self.send(node, link, "events", found)
            case "prune":
                here.make_lazy(link)

    def tick(self) -> None:
        for number, node in enumerate(self.nodes):
            due = node.due(self.now_ms)
            for link, found in due.have.items():
                self.send(number, link, "have", found)
            for link, found in due.want.items():
                node.make_eager(link)
                self.send(number, link, "want", found)

    def run(self, until_ms: int) -> None:
        while True:
            times = [node.next_ms() for node in self.nodes]
            times += [self.queue[0][0]] if self.queue else []
            if min(times) > until_ms:
                self.now_ms = until_ms
                return
            self.now_ms = max(self.now_ms, min(times))
            while self.queue and self.queue[0][0] <= self.now_ms:
                self.deliver(*heappop(self.queue)[2])
            self.tick()


def tell(mesh: Mesh, first: int, count: int) -> list[bytes]:
    said = ids(*range(first, first + count))
    for event_id in said:
        mesh.say(mesh.source.randrange(len(mesh.nodes)), event_id)
        mesh.run(mesh.now_ms + 20)
    mesh.run(mesh.now_ms + 5_000)
    return said


def test_sixteen_nodes_get_every_event_in_fewer_than_two_copies_each() -> None:
    mesh = Mesh.of(16, 6, seed=1)
    tell(mesh, 0, 50)
    mesh.copies.clear()
    said = tell(mesh, 1_000, 200)
    assert all(event_id in held for held in mesh.stored for event_id in said)
    assert sum(mesh.copies.values()) / (len(said) * 15) < 2.0


def test_lost_pushes_are_mended_by_announcements() -> None:
    mesh = Mesh.of(16, 6, seed=2, loss=0.1)
    said = tell(mesh, 0, 300)
    held = sum(event_id in held for held in mesh.stored for event_id in said)
    assert held / (16 * len(said)) > 0.99


def test_a_node_that_falls_out_of_the_tree_grows_back_into_it() -> None:
    mesh = Mesh.of(8, 4, seed=3)
    tell(mesh, 0, 50)
    for link in list(mesh.nodes[3].eager):
        mesh.nodes[3].make_lazy(link)
        peer = mesh.peers[3, link]
        mesh.nodes[peer].make_lazy(mesh.link_to(peer, 3))
    said = tell(mesh, 1_000, 20)
    assert all(event_id in mesh.stored[3] for event_id in said)
