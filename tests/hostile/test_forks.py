"""Authors that tell two stories, or tell it after they were shown the door: what real daemons make of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from net.proto import message as m
from tests.cast import hash_of, keys_of
from tests.daemons import on_node, patience_s, states
from tests.hostile.liars import (
    certify,
    coalition,
    decision,
    everywhere,
    forks,
    holds,
    honest,
    respelled,
    sound,
    status_of,
    tampered,
    threshold,
    told,
    wire_of,
)
from tests.hostile.rig import Enemy, Rig
from tests.story import Story
from tests.swarms import becomes
from wattswarm.kernel import hlc
from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import clock_skew_tolerance_ms, parked_per_author_max
from wattswarm.kernel.payloads import course
from wattswarm.node import Node, now_ms

nothing = course.TaskExpired()
some_task = b"\x77" * 32
ways = ("pushed tampered", "pushed respelled", "asked tampered", "asked respelled")


@pytest.fixture(scope="module")
def rig(den: Rig) -> Rig:
    return den


def chain(rig: Rig, name: str, count: int) -> list[Event]:
    """The next events of an author, about a task that nobody knows."""
    return [rig.world.author(name, nothing, task=some_task) for _ in range(count)]


def branch(rig: Rig, name: str, said: Sequence[Event], count: int) -> list[Event]:
    """Another chain of the same author, from the place of ``said``'s first on."""
    first = rig.world.rival(said[0], nothing, task=b"\x78" * 32)
    held = rig.world.heads[first.author]
    rig.world.heads[first.author] = first
    others = [first, *(rig.world.author(name, nothing, task=b"\x78" * 32) for _ in range(count - 1))]
    rig.world.heads[first.author] = held
    return others


def fork_of(rig: Rig, name: str, author: str) -> int | None:
    """From where on a daemon shows an author's chain as void for a fork."""
    shown = {entry["author"]: entry["void_from"] for entry in forks(rig, name)}
    return shown.get(keys_of(author).node_id.hex())


def live(rig: Rig, name: str, author: str) -> int:
    """How many events of an author count with a daemon."""
    who = keys_of(author).node_id.hex()
    return sum(view.author == who and view.verdict != "void" for view in rig.log(name))


# -- two stories ------------------------------------------------------------------------------------------------------


def test_branches_shown_to_two_daemons_are_one_fork_on_both_and_nobody_else_is_blamed(rig: Rig) -> None:
    shared = chain(rig, "two-faced", 3)
    told(rig, "gossip", "ada", *shared)
    rig.level()
    one = chain(rig, "two-faced", 20)
    other = branch(rig, "two-faced", one, 30)
    with rig.unharmed(), rig.meet("two-faced", "ada") as here, rig.meet("gossip", "ben") as there:
        here.tell(*one)
        there.tell(*other)
        everywhere(rig, fork_of, 3, "two-faced")
        assert (here.alive(), there.alive()) == (True, True)
    for name in honest:
        assert live(rig, name, "two-faced") == 3
        shown = status_of(rig, name)["forks"]
        assert {"author": keys_of("two-faced").node_id.hex(), "void_from": 3} in shown
    sound(rig)


def test_branches_told_while_apart_are_one_fork_when_they_meet(rig: Rig) -> None:
    """A daemon that has a branch already hears the other from its neighbour, not from the liar."""
    one = chain(rig, "early-forker", 5)
    other = branch(rig, "early-forker", one, 9)
    with rig.meet("early-forker", "ada") as here:
        here.tell(*one)
        everywhere(rig, live, 5, "early-forker")
        here.tell(*other[3:])
        here.tell(*other[:3])
        everywhere(rig, fork_of, 0, "early-forker")
        assert here.alive()
    assert [live(rig, name, "early-forker") for name in honest] == [0, 0]
    sound(rig)


def done(rig: Rig, proposer: str, label: str) -> tuple[Story, Event, list[Event]]:
    """A task of a liar's, with all that came of it but the proof; its candidate."""
    story = Story(rig.world, rig.world.create_task(proposer, label))
    claimed, candidate = story.claim(proposer), story.propose(proposer, digests=[])
    judged = story.judge(coalition[4], candidate)
    revealed = story.reveal(coalition[4], candidate)
    decided = story.decide(coalition[0], candidate)
    return story, candidate, [story.creation, claimed, candidate, *judged, revealed, decided]


def test_fork_that_is_shown_late_takes_what_was_not_final_and_leaves_what_was(rig: Rig) -> None:
    first = chain(rig, "late", 1)
    final, won, said = done(rig, "late", "was-final")
    open_, candidate, more = done(rig, "late", "was-open")
    proof = final.finalize(coalition[0], won, signers=coalition[:threshold])
    told(rig, "gossip", "ada", *first, *said, *more, proof)
    rig.level()
    wanted = [("FINALIZED", hash_of(won).hex()), ("OPEN", None)]
    before = [decision(rig, name, final.task)["final_commit_hash"] for name in honest]
    was_so = [[summary(rig, name, task) for task in (final.task, open_.task)] for name in honest]
    assert was_so == [wanted] * 2
    assert candidates(rig, "ada", open_) == 1
    with rig.unharmed(), rig.meet("gossip", "ben") as enemy:
        enemy.tell(rig.world.rival(first[0], nothing, task=b"\x78" * 32))
        everywhere(rig, fork_of, 0, "late")
    for name, was in zip(honest, before, strict=True):
        assert summary(rig, name, final.task) == wanted[0]
        assert decision(rig, name, final.task)["final_commit_hash"] == was
        assert live(rig, name, "late") == 0
        assert {label for label in states(rig.places[name]) if label.startswith("was-")} == {"was-final"}
    told(rig, "gossip", "ada", open_.finalize(coalition[0], candidate, signers=coalition[:threshold]))
    rig.level()
    assert [summary(rig, name, open_.task) for name in honest] == [("FINALIZED", hash_of(candidate).hex())] * 2
    sound(rig)


def created(rig: Rig, name: str, task: bytes) -> Event:
    """The creation of a task, as a daemon has it."""

    async def work(node: Node) -> Event:
        return next(said for said in (await node.log.task(task)).events if said.id == task)

    return on_node(rig.places[name], work)


def summary(rig: Rig, name: str, task: bytes) -> tuple[str, str | None]:
    found = decision(rig, name, task)
    return found["state"], found.get("candidate_hash")


def candidates(rig: Rig, name: str, story: Story) -> int:
    return int(decision(rig, name, story.task)["progress"]["candidates"])


def test_what_comes_past_the_end_of_a_membership_counts_nowhere_and_is_no_fork(rig: Rig) -> None:
    known = chain(rig, "leaver", 5)
    told(rig, "gossip", "ada", *known)
    rig.level()
    rival = rig.world.rival(known[3], nothing, task=b"\x78" * 32)
    stay = {name: roles for name, roles in rig.world.members.items() if name != "leaver"}
    removal = rig.world.next_version(stay, {"leaver": 2})
    certificates = rig.head("ada").certificates
    with rig.unharmed(), rig.meet("leaver", "ada") as here, rig.meet("gossip", "ben") as there:
        certify(there, removal)
        everywhere(rig, live, 3, "leaver")
        past = chain(rig, "leaver", 5)
        here.tell(*past, rival)
        there.tell(*past)
        assert (here.alive(), there.alive()) == (True, True)
    for name in honest:
        assert live(rig, name, "leaver") == 3
        assert not holds(rig, name, past[:1])
        assert fork_of(rig, name, "leaver") is None
        assert rig.head(name).certificates == certificates + 1
    sound(rig)


# -- what is no event at all ------------------------------------------------------------------------------------------


def asked_for(enemy: Enemy, author: bytes, seq: int) -> m.RangeGet:
    """Have the daemon ask for a chain that it is told of."""
    enemy.say(m.FrontierGet())
    enemy.hear(m.FrontierGet)
    enemy.say(m.Frontier(((author, seq, bytes(m.prefix_bytes)),), more=False))
    return enemy.hear(m.RangeGet)


@pytest.mark.parametrize("way", ways)
def test_body_that_is_not_canonical_or_not_signed_is_its_bearers_fault(rig: Rig, liar: str, way: str) -> None:
    how, what = way.split()
    good, bad = chain(rig, liar, 2)
    wire = respelled(liar, bad) if what == "respelled" else wire_of(tampered(bad))
    with rig.unharmed(), rig.meet(liar, "ada") as enemy:
        enemy.tell(good)
        becomes(lambda: live(rig, "ada", liar), 1)
        if how == "pushed":
            enemy.say(m.Events((wire,)))
        else:
            asked = asked_for(enemy, bad.author, 1)
            assert (asked.author, asked.first_seq, asked.last_seq) == (bad.author, 1, 1)
            enemy.say(m.Range(bad.author, (wire,), more=False))
        assert enemy.gone() == "graylisted"
    assert rig.turned_away(liar, "ada") == "graylisted"
    assert [live(rig, name, liar) for name in honest] == [1, 1]


def test_orphans_without_end_wait_within_bounds_and_enter_when_the_chain_is_given(rig: Rig) -> None:
    said = chain(rig, "orphanage", 951)
    parked = rig.head("ada").parked
    with rig.unharmed(), rig.meet("gossip", "ada") as enemy:
        for start in range(1, len(said), 250):
            enemy.tell(*said[start : start + 250])
        becomes(lambda: rig.head("ada").parked - parked, parked_per_author_max)
        while live(rig, "ada", "orphanage") < len(said):
            asked = enemy.hear(m.RangeGet)
            part = said[asked.first_seq : asked.last_seq + 1]
            enemy.say(m.Range(asked.author, tuple(map(wire_of, part)), more=False))
            becomes(partial(holds, rig, "ada", part), True)
    assert [live(rig, name, "orphanage") for name in honest] == [len(said)] * 2
    sound(rig)


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_events_from_the_edge_of_the_future_without_end_keep_nobody_from_authoring(rig: Rig, liar: str) -> None:
    done = threading.Event()

    def hurry(enemy: Enemy) -> None:
        while not done.wait(0.05):
            at_ms = now_ms() + clock_skew_tolerance_ms - 50
            enemy.tell(rig.world.author(liar, nothing, task=some_task, at_ms=at_ms))

    with rig.unharmed(), rig.meet(liar, "ada") as enemy, ThreadPoolExecutor() as threads:
        hurrying = threads.submit(hurry, enemy)
        try:
            everywhere(rig, is_hurried, True)
            for name in honest:
                threads.submit(rig.author, name).result(timeout=patience_s)
        finally:
            done.set()
            hurrying.result()
    rig.world.now_ms = now_ms()


def is_hurried(rig: Rig, name: str) -> bool:
    """Whether a daemon's log is ahead of the clock, by more than a moment."""
    return hlc.wall_ms(rig.head(name).max_hlc) > now_ms() + 1_000


def test_event_that_comes_before_its_time_enters_when_it_is_due_though_nothing_else_comes(rig: Rig, liar: str) -> None:
    at_ms = now_ms() + clock_skew_tolerance_ms + 1_500
    early = rig.world.author(liar, nothing, task=some_task, at_ms=at_ms)
    parked = rig.head("ada").parked
    with rig.meet("gossip", "ada") as enemy:
        enemy.tell(early)
        becomes(lambda: rig.head("ada").parked, parked + 1)
        assert not holds(rig, "ada", [early])
        everywhere(rig, holds, True, [early])
        assert now_ms() >= at_ms - clock_skew_tolerance_ms
    rig.world.now_ms = now_ms()


# -- labels -----------------------------------------------------------------------------------------------------------


def test_back_dated_creation_of_a_decided_label_is_another_task_and_changes_nothing(rig: Rig) -> None:
    task = rig.author("ada")
    label = f"honest-{rig.tasks}"
    creation = created(rig, "ada", task)
    story = Story(rig.world, creation)
    candidate = story.propose(coalition[5])
    rig.level()
    told(rig, "gossip", "ben", candidate, story.finalize("gossip", candidate))
    rig.level()
    was = decision(rig, "ben", task)
    assert was["state"] == "FINALIZED"
    since = rig.world.genesis.said.created_at
    too_early = rig.world.create_task(label, at_ms=since - 1)
    copy = rig.world.create_task("backdater", label, at_ms=since + 1)
    assert copy.sort_key < creation.sort_key
    with rig.unharmed(), rig.meet("backdater", "ben") as enemy:
        enemy.tell(too_early, copy)
        everywhere(rig, holds, True, [copy])
        assert enemy.alive()
    for name in honest:
        assert decision(rig, name, task) == was
        assert decision(rig, name, copy.id)["state"] == "OPEN"
        assert not holds(rig, name, [too_early])
        named = decision(rig, name, f"{label}@{task.hex()[:12]}")
        assert named["final_commit_hash"] == was["final_commit_hash"]
    assert decision(rig, "ada", label)["task"] == task.hex()
    sound(rig)
