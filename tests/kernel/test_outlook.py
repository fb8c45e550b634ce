"""What a task waits for, in words: each place on its way, and who is named."""

from __future__ import annotations

import pytest

from tests.actors import Actors
from tests.cast import digest_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.intents.outlook import named_max, outlook
from wattswarm.kernel.intents.values import line
from wattswarm.kernel.payloads import course
from wattswarm.kernel.task.fold import status

quorum_2 = {"acceptance.quorum_threshold": 2}
continuous = {"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW"}


def said(story: Story, later_ms: int = 0, away: dict[str, int] | None = None) -> str:
    absent = {story.world.node(name): since for name, since in (away or {}).items()}
    return outlook(story.state, story.pins, story.world.now_ms + later_ms, absent)


def named(story: Story, name: str) -> str:
    return f"node {story.world.node(name).hex()[:4]}…"


def candidate_of(story: Story, digests: list[str] | None = None) -> Event:
    story.accepts(story.claim("ada"))
    proposed = story.propose("ada", digests=digests or [])
    story.accepts(proposed)
    return proposed


def test_new_task_waits_for_the_first_proposer_in_line() -> None:
    story = World.of(4).task()
    first = line(story.task, 1, "propose", story.pins.membership.having("proposer"))[0]
    assert said(story) == f"waiting for a candidate: node {first.hex()[:4]}… is the first of 4 in line"


def test_claimed_task_waits_for_who_works_on_it() -> None:
    story = World.of(4).task()
    story.accepts(story.claim("ben"))
    assert said(story) == f"waiting for a candidate: {named(story, 'ben')} works on it, its lease runs for 8 s"


def test_sealed_vote_is_told_with_its_deadline_and_the_next_verifier_with_its_lease() -> None:
    story = World.of(4).task(changes=quorum_2)
    proposed = candidate_of(story)
    story.accepts(story.claim("ben", "verify"), story.commit("ben", proposed))
    story.accepts(story.claim("cy", "verify"))
    assert said(story, 6_000) == (
        f"waiting for 2 of 2 approvals: {named(story, 'ben')} committed, reveal due in 4 s; "
        f"{named(story, 'cy')} verifies, its lease runs for 2 s"
    )


def test_approvals_that_are_here_are_not_waited_for() -> None:
    story = World.of(4).task(changes=quorum_2)
    proposed = candidate_of(story)
    story.accepts(*story.judge("ben", proposed), story.reveal("ben", proposed))
    assert said(story).startswith(f"waiting for 1 of 2 approvals: {named(story, 'ben')} approved; ")


def test_reject_and_vote_that_was_not_opened_are_told() -> None:
    story = World.of(4).task(changes=quorum_2)
    proposed = candidate_of(story)
    story.accepts(*story.judge("ben", proposed, "reject"), story.reveal("ben", proposed, "reject"))
    story.accepts(*story.judge("cy", proposed))
    later = said(story, 60_000)
    assert f"{named(story, 'ben')} rejected" in later
    assert f"{named(story, 'cy')} committed and did not reveal in time" in later


def test_member_that_cannot_be_reached_is_told_instead_of_its_turn() -> None:
    story = World.of(4).task(changes=quorum_2)
    proposed = candidate_of(story)
    story.accepts(story.claim("ben", "verify"), story.commit("ben", proposed))
    away = {"ben": story.world.now_ms - 40_000}
    assert f"{named(story, 'ben')} offline for 40 s" in said(story, away=away)


def test_absence_is_told_of_whoever_owes_something_and_of_nobody_else() -> None:
    story = World.of(4).task(changes=quorum_2)
    proposed = candidate_of(story)
    story.accepts(*story.judge("ben", proposed), story.reveal("ben", proposed))
    away = {"ben": story.world.now_ms - 40_000, "ada": story.world.now_ms - 40_000}
    assert f"{named(story, 'ben')} approved" in said(story, away=away)
    assert f"{named(story, 'ada')} approved" not in said(story, away=away)


def test_next_in_line_is_named_behind_those_that_are_away() -> None:
    story = World.of(4).task()
    members = story.pins.membership.having("proposer")
    first, second, *_ = line(story.pins.task, 1, "propose", members)
    assert said(story) == f"waiting for a candidate: node {first.hex()[:4]}… is the first of {len(members)} in line"
    absent = outlook(story.state, story.pins, story.world.now_ms, {first: story.world.now_ms - 40_000})
    assert absent == (
        f"waiting for a candidate: node {first.hex()[:4]}… offline for 40 s; node {second.hex()[:4]}… is next in line"
    )


def test_quorum_that_is_reached_waits_for_the_decision_and_that_for_its_votes_and_proof() -> None:
    story = World.of(4).task()
    proposed = candidate_of(story)
    story.accepts(*story.judge("ben", proposed), story.reveal("ben", proposed))
    assert said(story).startswith("waiting for the decision to be committed: node ")
    story.accepts(story.decide("ada", proposed), story.vote_finality("ben", proposed))
    silent = "; ".join(f"node {story.world.node(name).hex()[:4]}… has not voted" for name in _sorted(story, "ben"))
    assert said(story) == f"waiting for 2 of 3 finality votes: {silent}"
    story.accepts(story.vote_finality("ada", proposed), story.vote_finality("cy", proposed))
    assert said(story).startswith("waiting for the proof to be published: node ")


def _sorted(story: Story, *without: str) -> list[str]:
    return sorted((name for name in story.world.members if name not in without), key=story.world.node)


def test_decision_whose_evidence_is_not_confirmed_says_which() -> None:
    story = World.of(4).task(changes={**quorum_2, "acceptance.da_quorum_threshold": 2})
    digest = digest_of("evidence")
    proposed = candidate_of(story, [digest])
    for name in ("ben", "cy"):
        story.accepts(story.claim(name, "verify"), story.result(name, proposed), story.commit(name, proposed))
        story.accepts(story.reveal(name, proposed))
    story.accepts(story.decide("ada", proposed), story.available("ben", proposed, digest))
    text = said(story)
    assert text.startswith(f"waiting for 1 of 2 confirmations that evidence {digest[:19]}… can be read: ")
    assert named(story, "ben") not in text


def test_lost_round_waits_for_committers_and_the_last_one_for_the_end() -> None:
    story = World.of(1).task()
    proposed = candidate_of(story)
    story.accepts(*story.judge("ada", proposed, "reject"), story.reveal("ada", proposed, "reject"))
    assert said(story) == (
        f"waiting for 1 of 1 calls for another round, as round 1 found no quorum: {named(story, 'ada')} has not called"
    )
    last = World.of(1).task(changes={"budget.max_steps": 1})
    proposed = candidate_of(last)
    last.accepts(*last.judge("ada", proposed, "reject"), last.reveal("ada", proposed, "reject"))
    lost = "round 1 found no quorum and was the last that max_steps allows"
    assert said(last) == f"waiting for its expiry in 24 h: {lost}"


def test_time_that_ran_out_suspension_and_expiry_are_told() -> None:
    story = World.of(1).task()
    assert "time_ms ran out without a candidate" in said(story, 60_000)
    assert said(story, 86_400_000) == "waiting for a member to declare it expired"
    story.accepts(story.say("ada", course.TaskSuspended("wait")))
    assert said(story) == "waiting for its expiry in 24 h: it is suspended"


def test_many_members_are_counted_after_the_first_few() -> None:
    story = World.of(9).task()
    proposed = candidate_of(story)
    story.accepts(*story.judge("ben", proposed), story.reveal("ben", proposed), story.decide("ada", proposed))
    text = said(story)
    assert text.count("has not voted") == named_max
    assert text.endswith(f"and {9 - named_max} more")


@pytest.mark.parametrize("changes", [{}, quorum_2, {**continuous, "budget.time_ms": 20_000}])
def test_every_step_of_a_task_has_something_to_wait_for_until_it_is_over(changes: dict[str, object]) -> None:
    actors = Actors(World.of(4), changes)

    def done() -> bool:
        text = outlook(actors.story.state, actors.story.pins, actors.world.now_ms)
        over = status(actors.story.state) not in ("OPEN", "SUSPENDED")
        assert bool(text) != over
        assert over or text.startswith("waiting for ")
        return over or bool(actors.decisions)

    actors.run(done)
