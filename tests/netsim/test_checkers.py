"""Each checker says no when what it looks at does not hold: shown with the least that breaks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec import structs

from net.proto import gossip, lanes
from netsim.checkers import Checkers, Violation
from netsim.disk import Written
from netsim.node import SimNode
from netsim.releases import newer, this
from netsim.scenario import Load, Scenario
from netsim.world import World
from sel.rows import Parked
from wattswarm.kernel import limits
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads.judge import FinalityVote


@pytest.fixture(scope="module")
def world() -> World:
    """A run that held: its nodes have logs to be looked at."""
    made = World(Scenario("checked", "", nodes=4, seconds=4, load=Load(tasks_per_s=2.0)), 1)
    assert made.run().fault == ""
    return made


@pytest.fixture
def node(world: World) -> Iterator[SimNode]:
    """A node whose disk is put back afterwards."""
    found = world.nodes[0]
    disk = found.disk
    found.disk = disk.copied()
    yield found
    found.disk, found.release = disk, this


def checkers(world: World) -> Checkers:
    return Checkers((one.node_id for one in world.nodes), safe=True)


def test_one_set_with_two_states(world: World, node: SimNode) -> None:
    looks = checkers(world)
    looks.wrote(world.nodes[1], Written())
    node.disk.store.head.state_root += 1
    with pytest.raises(Violation, match="same set, two states: n000 and n001"):
        looks.wrote(node, Written())


def test_an_honest_fork(world: World, node: SimNode) -> None:
    looks = checkers(world)
    first, *_ = node.disk.store.events
    other = next(one for one in node.disk.store.events if one.author != first.author)
    looks.wrote(node, Written(events=[first]))
    looks._places[first.author, first.author_seq] = other.id
    with pytest.raises(Violation, match="an honest node forked"):
        looks.wrote(node, Written(events=[first]))


def test_an_honest_double_vote(world: World, node: SimNode) -> None:
    looks = checkers(world)
    vote = next(one for one in node.disk.store.events if isinstance(one.payload, FinalityVote))
    assert vote.task is not None
    looks._votes[vote.author, vote.task, vote.epoch] = bytes(32)
    with pytest.raises(Violation, match="an honest node voted twice"):
        looks.wrote(node, Written(events=[vote]))


def test_two_proofs(world: World, node: SimNode) -> None:
    looks = checkers(world)
    certificate = next(one for one in node.disk.store.certificates.values() if one.kind == "decision")
    assert certificate.stream is not None
    looks._proofs[certificate.stream, 1] = bytes(32)
    with pytest.raises(Violation, match="two proofs"):
        looks.wrote(node, Written(certificates=[certificate]))


def test_an_end_that_is_taken_back(world: World, node: SimNode) -> None:
    looks = checkers(world)
    stream, row = next((stream, row) for stream, row in node.disk.store.stream_rows.items() if row.facts is not None)
    looks.wrote(node, Written(streams={stream: set()}))
    assert row.facts is not None
    node.disk.store.stream_rows[stream] = structs.replace(row, facts=structs.replace(row.facts, status="OPEN"))
    with pytest.raises(Violation, match="what was final is OPEN"):
        looks.wrote(node, Written(streams={stream: set()}))


def test_sets_that_differ_and_tasks_that_go_on(world: World, node: SimNode) -> None:
    looks = checkers(world)
    looks.healed(world.nodes, list(world.workload.tasks))
    node.disk.store.head.events_sum += 1
    with pytest.raises(Violation, match="hold different sets"):
        looks.healed(world.nodes, [])
    with pytest.raises(Violation, match="is unknown on n001, though all is healed"):
        looks.healed(world.nodes[1:], [bytes(32)])


def test_a_chain_with_a_gap(world: World, node: SimNode) -> None:
    node.disk.store.events.pop(3)
    with pytest.raises(Violation, match="a chain with a gap"):
        checkers(world)._chains(node)


def test_more_that_waits_than_may(world: World, node: SimNode) -> None:
    event = node.disk.store.events[0]
    for number in range(limits.parked_per_author_max + 1):
        node.disk.store.parked[number.to_bytes(32, "big")] = Parked(event, "orphan")
    with pytest.raises(Violation, match="n000 keeps 257 parked events of one author"):
        checkers(world).looked([node])
    for number in range(limits.parked_unknown_authors_max + 1):
        author = number.to_bytes(32, "big")
        node.disk.store.parked[author] = Parked(structs.replace(event, author=author), "stranger")
    with pytest.raises(Violation, match="n000 keeps 1001 parked events, each stranger"):
        checkers(world).looked([node])


@pytest.mark.parametrize(
    ("count", "size", "said"), [(limits.parked_certificates_max + 1, 0, "1001 parked cert"), (33, 1 << 19, "bytes of")]
)
def test_more_certificates_that_wait_than_may(world: World, node: SimNode, count: int, size: int, said: str) -> None:
    for number in range(count):
        node.disk.store.parked_certificates[number.to_bytes(8, "big") + bytes(size)] = None
    with pytest.raises(Violation, match=said):
        checkers(world).looked([node])


def test_more_in_memory_than_may(world: World, node: SimNode, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = node.machine.exchange
    for most, said in ((gossip.ids_met_max, "remembers 8193 ids"), (gossip.ids_awaited_max, "waits for 16385 events")):
        sizes = (most + 1, 0) if most == gossip.ids_met_max else (0, most + 1)
        monkeypatch.setattr(exchange.gossip, "sizes", lambda sizes=sizes: sizes)
        with pytest.raises(Violation, match=said):
            checkers(world).looked([node])
    monkeypatch.undo()
    monkeypatch.setattr(world.wires, "fullest", lambda: ("n001", lanes.queue_bytes_max + 1))
    with pytest.raises(Violation, match="n001 has 16777217 bytes waiting for one peer"):
        checkers(world).looked([node])
    monkeypatch.undo()
    monkeypatch.setattr(exchange, "storing", 20_000)
    with pytest.raises(Violation, match="n000 has 20000 events on their way in"):
        checkers(world).looked([node])


def test_void_events_that_are_stored(world: World, node: SimNode) -> None:
    looks = checkers(world)
    event = node.disk.store.events[0]
    looks.wrote(node, Written(events=[event], streams={event.stream: {event.id}}))
    with pytest.raises(Violation, match="n000 stores 1 events of a chain that it knows to be void there"):
        looks.wrote(node, Written(streams={event.stream: {event.id}}))


def test_a_wire_version_that_is_not_the_newest_common_one(world: World, node: SimNode) -> None:
    looks = checkers(world)
    looks.looked(world.nodes)
    node.release = newer
    looks.looked(world.nodes)
    node.release = dataclasses.replace(newer, wire=(1, 7))
    world.nodes[1].release = node.release
    with pytest.raises(Violation, match="n000 speaks version 1 to n001, both know 7"):
        looks.looked(world.nodes)
    world.nodes[1].release = this


def own_and_other(node: SimNode) -> tuple[bytes, list[Event], Event]:
    """A node's id, what it said, and something that another said."""
    events = node.disk.store.events
    own = [one for one in events if one.author == node.node_id]
    return node.node_id, own, next(one for one in events if one.author != node.node_id)


def test_who_was_put_back_may_say_again_what_too_few_heard(world: World, node: SimNode) -> None:
    """Four members: two others are asked, so what a third one alone holds may be lost, and what two hold may not."""
    me, chain, other = own_and_other(node)
    for holders, excused in ((1, True), (2, False)):
        looks = checkers(world)
        looks.wrote(node, Written(events=chain))
        looks._places[me, chain[-1].author_seq] = other.id
        with shortened(world.nodes[:1] + world.nodes[1 + holders :], me, 1):
            looks.put_back(node, world.nodes)
            assert looks.recovered(node, world.nodes) == chain[-2].author_seq
        if excused:
            looks.wrote(node, Written(events=[chain[-1]]))
        else:
            with pytest.raises(Violation, match="an honest node forked"):
                looks.wrote(node, Written(events=[chain[-1]]))


def test_who_lost_nothing_is_excused_of_nothing(world: World, node: SimNode) -> None:
    me, chain, other = own_and_other(node)
    looks = checkers(world)
    looks.wrote(node, Written(events=chain[:-1]))
    with shortened(world.nodes, me, 1):
        looks.put_back(node, world.nodes)
        looks.recovered(node, world.nodes)
    looks.wrote(node, Written(events=[chain[-1]]))
    looks._places[me, chain[-1].author_seq] = other.id
    with pytest.raises(Violation, match="an honest node forked"):
        looks.wrote(node, Written(events=[chain[-1]]))


def test_what_too_few_held_while_it_was_asked_for_counts_though_more_hold_it_later(world: World, node: SimNode) -> None:
    me, chain, other = own_and_other(node)
    looks = checkers(world)
    looks.wrote(node, Written(events=chain))
    looks._places[me, chain[-1].author_seq] = other.id
    looks.put_back(node, world.nodes)
    with shortened(world.nodes[:3], me, 1):
        looks.put_back(world.nodes[2], world.nodes)
    with shortened(world.nodes[:1], me, 1):
        looks.recovered(node, world.nodes)
    looks.wrote(node, Written(events=[chain[-1]]))


@contextmanager
def shortened(nodes: list[SimNode], author: bytes, by: int) -> Iterator[None]:
    """As if these nodes lacked the last events of an author."""
    lines = [one.disk.store.chain_rows[author] for one in nodes]
    heads = [line.head for line in lines]
    for line in lines:
        line.head = structs.replace(line.head, seq=line.head.seq - by)
    yield
    for line, head in zip(lines, heads, strict=True):
        line.head = head
