"""Faults break what their names say and mend it; liars lie as theirs say: seen on the nodes and their logs."""

from __future__ import annotations

from collections import defaultdict
from io import StringIO

import pytest

from net.proto import frame
from net.proto import message as m
from net.proto import values as v
from netsim.faults import Faults, Mend
from netsim.network import Network
from netsim.node import SimNode
from netsim.scenario import Fault, FaultKind, LiarKind, Load, Scenario
from netsim.scenario import load as load_scenario
from netsim.world import World
from wattswarm.kernel.certificate import DecisionCertificate, ForkCertificate
from wattswarm.kernel.payloads.work import TaskCreated

day_ms = 86_400_000


class Broken:
    """A swarm under load, and one fault in it after three seconds."""

    def __init__(self, kind: FaultKind, *, spares: int = 0, liars: dict[LiarKind, int] | None = None) -> None:
        load = Load(tasks_per_s=1.0, notes_per_s=2.0)
        self.world = World(Scenario("broken", "", nodes=4, spares=spares, seconds=600, load=load, liars=liars or {}), 3)
        for node in self.world.nodes:
            node.start()
        self.world.workload.begin()
        self.run(3)
        self.nodes = self.world.honest
        self.faults: Faults = self.world.faults
        self.node = self.nodes[1]
        self.mend = self.breaks(kind)

    def run(self, seconds: float) -> None:
        self.world.timeline.run(self.world.timeline.now_ms + round(seconds * 1000))

    def breaks(self, kind: FaultKind) -> Mend:
        return self.faults._breaks[kind](Fault(kind, skew_s=86_400), [self.node])

    def counts(self) -> list[int]:
        return [held(node) for node in self.nodes]

    def is_level(self) -> bool:
        """Whether all hold the same, when nobody has said anything more for a while."""
        self.world.workload._until_ms = self.world.timeline.now_ms
        self.run(60)
        return len({node.disk.store.head.events_sum for node in self.nodes}) == 1


def held(node: SimNode) -> int:
    return node.disk.store.head.events


def chain_of(holder: SimNode, author: SimNode) -> int:
    return holder.disk.store.chain_rows[author.node_id].head.seq


def test_a_crash_ends_the_process_and_leaves_the_log() -> None:
    broken = Broken("crash")
    before = held(broken.node)
    broken.run(2)
    assert not broken.node.up
    assert held(broken.node) == before < held(broken.nodes[0])
    broken.mend()
    assert (broken.node.up, broken.node.boots) == (True, 2)
    assert broken.is_level()


def test_a_wipe_takes_the_log_and_leaves_the_key() -> None:
    broken = Broken("wipe")
    node_id = broken.node.node_id
    assert (held(broken.node), broken.node.disk.guard.foreign) == (0, True)
    broken.mend()
    assert broken.is_level()
    assert (broken.node.node_id, broken.node.disk.guard.foreign) == (node_id, False)


def test_a_restore_puts_the_log_back_to_what_it_was() -> None:
    broken = Broken("restore")
    before = held(broken.node)
    broken.run(3)
    assert held(broken.node) > before
    broken.mend()
    assert (held(broken.node), broken.node.disk.guard.foreign) == (before, True)
    assert broken.is_level()


def test_a_stalled_process_stores_and_says_nothing_and_then_goes_on() -> None:
    broken = Broken("stall")
    before = held(broken.node)
    broken.run(5)
    assert broken.node.up
    assert held(broken.node) == before < held(broken.nodes[0])
    broken.mend()
    assert broken.is_level()
    assert chain_of(broken.nodes[0], broken.node) == chain_of(broken.node, broken.node)


def test_a_skewed_clock_is_up_to_a_day_off_and_set_right_again() -> None:
    broken = Broken("skew")
    off_ms = broken.node.clock() - broken.world.timeline.now_ms
    assert 3_600_000 < abs(off_ms) <= day_ms
    broken.mend()
    assert broken.node.clock() == broken.world.timeline.now_ms
    assert broken.is_level()


@pytest.mark.parametrize(("kind", "hears"), [("partition", False), ("one_way", True)])
def test_a_cut_node_is_not_heard_and_hears_or_not(kind: FaultKind, hears: bool) -> None:
    broken = Broken(kind)
    broken.run(1)
    others, said = chain_of(broken.node, broken.nodes[0]), chain_of(broken.nodes[0], broken.node)
    broken.run(5)
    assert (chain_of(broken.node, broken.nodes[0]) > others) == hears
    assert chain_of(broken.nodes[0], broken.node) == said < chain_of(broken.node, broken.node)
    broken.mend()
    assert broken.is_level()


def test_who_is_eclipsed_hears_liars_only() -> None:
    broken = Broken("eclipse", liars={"withholder": 1})
    broken.run(1)
    others = chain_of(broken.node, broken.nodes[0])
    broken.run(5)
    assert chain_of(broken.node, broken.nodes[0]) == others < chain_of(broken.nodes[0], broken.nodes[0])
    deaf_to = {one for one, other in broken.world.wires._cuts if other == broken.node.name}
    assert deaf_to == {node.name for node in broken.nodes if node is not broken.node}
    broken.mend()
    assert broken.is_level()


def test_members_go_and_others_come() -> None:
    broken = Broken("churn", spares=1)
    before = broken.node.network.current.members.keys()
    assert broken.is_level()
    after = broken.node.network.current
    assert (after.number, len(after.members)) == (1, 4)
    assert len(after.members.keys() - before) == len(before - after.members.keys()) == 1


# -- liars ---------------------------------------------------------------------------------------------------------


def lied(kind: LiarKind, scenario: Scenario | None = None, seed: int = 1) -> World:
    load = Load(tasks_per_s=1.0, quorum=1, notes_per_s=1.0)
    world = World(scenario or Scenario("lied", "", nodes=5, seconds=15, load=load, liars={kind: 1}), seed)
    assert world.run().fault == ""
    return world


def test_a_twin_forks_its_chain_after_a_while() -> None:
    world = lied("twin", load_scenario("equivocator"), seed=2)
    one, other = (node for node in world.nodes if not node.honest)
    assert one.node_id == other.node_id
    store = world.honest[0].disk.store
    (fork,) = [store.certificates[name] for name in store.live_forks.values()]
    assert isinstance(fork, ForkCertificate)
    assert fork.author == one.node_id
    assert fork.seq > 0
    assert any(event.author == one.node_id for event in store.live())


def test_a_double_voter_proves_what_it_can_and_nothing_twice() -> None:
    out = StringIO()
    world = World(load_scenario("finality-attack"), 1, out)
    assert world.run().fault == ""
    assert " forged " in out.getvalue()
    found = world.honest[0].disk.store.certificates.values()
    decided = [one.stream for one in found if isinstance(one, DecisionCertificate)]
    assert len(decided) == len(set(decided)) > 0


def test_a_withholder_gives_nothing_to_anybody() -> None:
    world = lied("withholder")
    liar = world.nodes[-1]
    assert liar.node_id not in world.honest[0].disk.store.chain_rows
    assert held(liar) >= held(world.honest[0])


def test_a_braggart_claims_what_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, list[object]] = defaultdict(list)
    real = Network.send

    def send(self: Network, sent: v.Send) -> None:
        end = self._ends.get(sent.link)
        said["" if end is None else end.host.name].append(frame.decode(sent.frame))
        real(self, sent)

    monkeypatch.setattr(Network, "send", send)
    world = lied("braggart", load_scenario("eclipse"))
    claims = {
        name: max(seq for one in told if isinstance(one, m.Frontier) for _, seq, _ in one.entries)
        for name, told in said.items()
        if any(isinstance(one, m.Frontier) and one.entries for one in told)
    }
    liar = world.nodes[-1]
    last = max(row.head.seq for row in world.honest[0].disk.store.chain_rows.values())
    assert claims.pop(liar.name) > 1_000
    assert max(claims.values()) <= last
    held = {event.id for event in liar.disk.store.events}
    assert any(set(one.ids) - held for one in said[liar.name] if isinstance(one, m.Have))


def test_a_spammer_leaves_orphans_within_bounds() -> None:
    world = lied("spammer")
    liar = world.nodes[-1]
    parked = [entry for entry in world.honest[0].disk.store.parked.values() if entry.event.author == liar.node_id]
    assert 0 < len(parked) <= 256
    assert {entry.why for entry in parked} == {"orphan"}


def test_a_backdater_creates_a_task_of_yesterday_with_a_name_that_is_taken() -> None:
    world = lied("backdater")
    liar, store = world.nodes[-1], world.honest[0].disk.store
    (old,) = [event for event in store.events if event.author == liar.node_id]
    assert isinstance(old.payload, TaskCreated)
    assert old.created_at < world.timeline.began_ms - day_ms // 2
    label = old.payload.contract["task_id"]
    rows = [row for row in store.stream_rows.values() if row.facts is not None and row.facts.label == label]
    assert len(rows) == 2


def test_a_stranger_is_no_member_and_enters_nothing() -> None:
    world = lied("stranger")
    stranger = world.nodes[-1]
    assert not world.honest[0].network.knows_author(stranger.node_id)
    assert world.wires.bytes[stranger.name] > 0
    assert stranger.node_id not in world.honest[0].disk.store.chain_rows
