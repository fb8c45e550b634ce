"""docs/protocol.md §6 "Epochs": how they end, how the next opens, and what starts anew."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cast import everything, hash_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.task.fold import encode_state, status
from wattswarm.kernel.task.state import Epoch, decode_state
from wattswarm.kernel.task.wording import moment

continuous = {"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW"}


def going(members: int = 2, changes: dict[str, Any] | None = None) -> Story:
    """A CONTINUOUS task in its first epoch."""
    return World.of(members).task(changes={**continuous, **(changes or {})})


def ended(story: Story) -> Event:
    """The first epoch's time passes and Ada ends it; the story goes on in the second."""
    end = story.end_epoch("ada", at_ms=story.creation.created_at + 30_000)
    story.accepts(end)
    story.epoch = 2
    return end


def decided() -> tuple[Story, Event]:
    """The first epoch of a CONTINUOUS task has a certificate, and nothing was told yet."""
    story = going()
    answer = story.propose("ada")
    story.decide_with(story.certificate(answer))
    return story, answer


def test_epoch_ends_when_its_time_has_passed() -> None:
    story = going()
    end = story.creation.created_at + 30_000
    story.refuses(story.end_epoch("ada", at_ms=end - 1), "epoch_reason", "TIMEBOX_REACHED", "still runs")
    story.accepts(story.end_epoch("ada", at_ms=end))
    assert status(story.state) == "OPEN"


def test_epoch_ends_when_a_bucket_is_used_up() -> None:
    story = going(changes={"budget.explore_cost_units": 1, "assignment.explore.max_proposers": 1})
    story.refuses(story.end_epoch("ada", "BUDGET_EXHAUSTED"), "epoch_reason", "no stage's bucket")
    story.accepts(story.claim("ada"), story.propose("ada"), story.end_epoch("ada", "BUDGET_EXHAUSTED"))


def test_epoch_ends_when_pass_1_has_its_certificate() -> None:
    story = going()
    story.refuses(story.end_epoch("ada", "FINALIZED"), "epoch_reason", "no decision certificate")
    story, answer = decided()
    story.accepts(story.end_epoch("ada", "FINALIZED"))
    story, answer = decided()
    story.accepts(story.finalize("ada", answer), story.end_epoch("ada", "FINALIZED"))


def test_epoch_ended_again_is_a_no_op() -> None:
    story = going()
    end = ended(story)
    story.epoch = 1
    story.ignores(story.end_epoch("ben", at_ms=end.created_at + 1))


def test_epoch_of_a_one_shot_task_does_not_end() -> None:
    story = World().task()
    story.refuses(story.end_epoch("ada", at_ms=story.creation.created_at + 30_000), "not_continuous")


def test_epoch_is_ended_by_finalizers_only() -> None:
    story = World({"ada": everything, "ben": everything - {"finalizer"}}).task(changes=continuous)
    story.refuses(story.end_epoch("ben", at_ms=story.creation.created_at + 30_000), "role", "finalizer")


def test_ended_epoch_takes_no_more_work() -> None:
    story = going()
    end = ended(story)
    story.epoch = 1
    story.refuses(story.claim("ada"), "epoch_over", moment(end.created_at))
    story.refuses(story.stop("ada"), "epoch_over")


def test_second_epoch_is_not_open_before_the_first_is_over() -> None:
    story = going()
    story.epoch = 2
    story.refuses(story.claim("ada"), "epoch_not_open", "epoch 2", "epoch 1")


def test_third_epoch_is_not_open_after_the_first_ended() -> None:
    story = going()
    ended(story)
    story.epoch = 3
    story.refuses(story.claim("ada"), "epoch_not_open", "epoch 3")


def test_second_epoch_is_open_after_the_first_ended() -> None:
    story = going()
    ended(story)
    story.accepts(story.claim("ada"))
    assert story.state.epoch == 2


def test_second_epoch_is_open_when_the_first_has_a_certificate() -> None:
    story, answer = decided()
    story.accepts(story.finalize("ada", answer))
    story.refuses(story.claim("ada"), "epoch_over", "decided and final")
    story.epoch = 2
    story.accepts(story.claim("ada"))


def test_certificate_alone_opens_the_next_epoch() -> None:
    story, _ = decided()
    story.epoch = 2
    story.accepts(story.claim("ada"))


def test_one_shot_task_has_no_second_epoch() -> None:
    story = World().task()
    answer = story.propose("ada")
    story.decide_with(story.certificate(answer))
    story.epoch = 2
    story.refuses(story.claim("ada"), "epoch_not_open", "ONE_SHOT")


def test_finality_belongs_to_the_epoch_and_the_task_stays_open() -> None:
    story, answer = decided()
    story.accepts(story.finalize("ada", answer))
    assert status(story.state) == "OPEN"
    assert story.state.decided(1)
    assert not story.state.decided(2)


def test_next_epoch_has_fresh_budgets_votes_leases_and_candidates() -> None:
    story = going()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    end = ended(story)
    claimed = story.claim("ada")
    story.accepts(claimed)
    fresh = Epoch(2, end.created_at, claimed.created_at)
    fresh.propose = story.state.work.propose
    assert story.state.work == fresh
    assert story.state.work.propose[story.world.node("ada")].held_ms == 5_000
    story.refuses(story.decide("ada", answer), "candidate_unknown", "epoch 2")


def test_refused_event_does_not_begin_an_epoch() -> None:
    story = going()
    ended(story)
    story.refuses(story.propose("ada"), "no_lease")
    assert story.state.epoch == 1


def test_time_of_the_next_epoch_runs_from_the_end_of_the_one_before() -> None:
    story = going()
    end = ended(story)
    story.refuses(story.claim("ada", at_ms=end.created_at + 30_001), "time_box_over")
    story.accepts(story.claim("ben", at_ms=end.created_at + 30_000))


def test_time_of_an_epoch_that_only_a_certificate_opened_runs_from_its_first_event() -> None:
    story, _ = decided()
    story.epoch = 2
    begun = story.claim("ada", at_ms=story.world.now_ms + 10_000_000)
    story.accepts(begun, story.claim("ben", at_ms=begun.created_at + 30_000))
    story.refuses(story.claim("ben", "verify", at_ms=begun.created_at + 30_001), "time_box_over")


def test_votes_are_bound_to_their_epoch() -> None:
    story = going()
    ended(story)
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, story.claim("ben", "verify"), story.result("ben", answer))
    story.accepts(story.commit("ben", answer), story.reveal("ben", answer))
    assert story.state.work.candidates[hash_of(answer)].created_at == answer.created_at


def test_decision_finalized_of_a_later_epoch_needs_only_its_certificate() -> None:
    story = going()
    story.epoch = 5
    answer = story.propose("ada")
    story.decide_with(story.certificate(answer))
    story.accepts(story.finalize("ada", answer))
    assert story.state.epoch == 5
    story.epoch = 6
    story.accepts(story.claim("ada"))


def test_expiry_of_an_old_epoch_does_not_unmake_the_later_ones() -> None:
    story = going()
    ended(story)
    story.epoch = 1
    story.refuses(story.expire("joe"), "epoch_over")
    story.epoch = 2
    story.accepts(story.expire("joe"))


@pytest.mark.parametrize("epoch", [1, 2])
def test_state_in_any_epoch_survives_its_bytes(epoch: int) -> None:
    story = going()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    if epoch == 2:
        ended(story)
        story.accepts(story.claim("ada"))
    data = encode_state(story.state)
    assert decode_state(data) == story.state
    assert encode_state(decode_state(data)) == data
