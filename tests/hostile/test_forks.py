"""Authors that tell two stories, or tell it after they were shown the door: what real daemons make of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from net.proto import message as m
from tests.cast import hash_of, keys_of, proposal
from tests.hostile.liars import (
    ask,
    certify,
    coalition,
    decision,
    forks,
    holds,
    honest,
    lair,
    respelled,
    sound,
    tampered,
    threshold,
    told,
    verdicts,
)
from tests.hostile.rig import Enemy, Rig
from tests.story import Story
from tests.swarms import becomes
from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import parked_per_author_max
from wattswarm.kernel.payloads import course

nothing = course.TaskExpired()
some_task = b"\x77" * 32
ways = ("pushed tampered", "pushed respelled", "asked tampered", "asked respelled")
loners = (*ways, "two-faced", "late", "early-forker", "orphanage", "leaver", "gossip", "backdater", "bluffer")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with lair(*loners) as made:
        yield made


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


# -- two stories --------------------------------------------------------------------------------------------------------


def test_branches_shown_to_two_daemons_are_one_fork_on_both_and_nobody_else_is_blamed(rig: Rig) -> None:
    shared = chain(rig, "two-faced", 3)
    told(rig, "gossip", "ada", *shared)
    rig.level()
    one = chain(rig, "two-faced", 20)
    other = branch(rig, "two-faced", one, 30)
    with rig.unharmed(), rig.meet("two-faced", "ada") as here, rig.meet("gossip", "ben") as there:
        here.tell(*one)
        there.tell(*other)
        for name in honest:
            becomes(lambda name=name: fork_of(rig, name, "two-faced"), 3)
        assert (here.alive(), there.alive()) == (True, True)
    for name in honest:
        assert live(rig, name, "two-faced") == 3
        shown = ask(rig, name, "node", "status")["forks"]
        assert {"author": keys_of("two-faced").node_id.hex(), "void_from": 3} in shown
    sound(rig)


def test_branches_told_while_apart_are_one_fork_when_they_meet(rig: Rig) -> None:
    """A daemon that has a branch already hears the other from its neighbour, not from the liar."""
    one = chain(rig, "early-forker", 5)
    other = branch(rig, "early-forker", one, 9)
    with rig.meet("early-forker", "ada") as here:
        here.tell(*one)
        for name in honest:
            becomes(lambda name=name: live(rig, name, "early-forker"), 5)
        here.tell(*other[3:])
        here.tell(*other[:3])
        for name in honest:
            becomes(lambda name=name: fork_of(rig, name, "early-forker"), 0)
        assert here.alive()
    assert [live(rig, name, "early-forker") for name in honest] == [0, 0]
    sound(rig)


def done(rig: Rig, proposer: str, label: str) -> tuple[Story, Event, list[Event]]:
    """A task of a liar's, with all that came of it but the proof; its candidate."""
    story = Story(rig.world, rig.world.create_task(proposer, label))
    story.state  # noqa: B018
    claimed, candidate = story.claim(proposer), story.propose(proposer, digests=[])
    judged = story.judge(coalition[1], candidate)
    revealed = story.reveal(coalition[1], candidate)
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
    states = [[summary(rig, name, task) for task in (final.task, open_.task)] for name in honest]
    assert states == [wanted] * 2
    assert candidates(rig, "ada", open_) == 1
    with rig.unharmed(), rig.meet("gossip", "ben") as enemy:
        enemy.tell(rig.world.rival(first[0], nothing, task=b"\x78" * 32))
        for name in honest:
            becomes(lambda name=name: fork_of(rig, name, "late"), 0)
    for name, was in zip(honest, before, strict=True):
        assert summary(rig, name, final.task) == wanted[0]
        assert decision(rig, name, final.task)["final_commit_hash"] == was
        assert live(rig, name, "late") == 0
        found = ask(rig, name, "task", "list")
        assert {task["task_id"] for task in found if task["task_id"].startswith("was-")} == {"was-final"}
    told(rig, "gossip", "ada", open_.finalize(coalition[0], candidate, signers=coalition[:threshold]))
    sound(rig)


def summary(rig: Rig, name: str, task: bytes) -> tuple[str, str | None]:
    found = decision(rig, name, task)
    return found["state"], found.get("candidate_hash")


def candidates(rig: Rig, name: str, story: Story) -> int:
    return int(decision(rig, name, story.task)["progress"]["candidates"])
