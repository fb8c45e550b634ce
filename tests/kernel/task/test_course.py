"""docs/protocol.md §6 "Retry", "Expired", "Stop/suspend/kill", "Error"."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cast import everything, hash_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import clock_skew_tolerance_ms, retry_horizon_ms_max
from wattswarm.kernel.task.fold import status
from wattswarm.kernel.task.vote import tally
from wattswarm.kernel.task.wording import moment

skew = clock_skew_tolerance_ms


def lost(members: int = 2, changes: dict[str, Any] | None = None) -> tuple[Story, Event]:
    """A round that is over: Ben's only vote rejected Ada's candidate."""
    story = World.of(members).task(changes=changes)
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer, "reject"))
    story.accepts(story.reveal("ben", answer, "reject"))
    return story, answer


# -- retry -----------------------------------------------------------------------------------------------------------


def test_retry_of_a_lost_round_opens_the_next_with_votes_cleared_and_the_rest_kept() -> None:
    story, answer = lost()
    retry = story.retry("ada")
    story.accepts(retry)
    work = story.state.work
    assert (work.attempt, work.run_at) == (2, retry.created_at)
    assert work.votes == {}
    assert list(work.candidates) == [hash_of(answer)]
    assert len(work.results) == 1


def test_next_round_takes_a_new_result_commit_and_reveal_of_the_same_voter() -> None:
    story, answer = lost()
    story.accepts(story.retry("ada"))
    story.accepts(
        story.result("ben", answer, verifier_result_hash="second thoughts"),
        story.claim("ben", "verify", "round-2"),
    )
    story.refuses(story.result("ben", answer, "inconclusive", verifier_result_hash="third"), "result_exists", "round 2")
    story.accepts(story.commit("ben", answer, "reject", attempt=2), story.reveal("ben", answer, "reject"))
    assert tally(story.pins, story.state.work, hash_of(answer)) == (0, 1)


def test_retry_before_any_commit_is_not_due() -> None:
    story = World.of(2).task()
    story.refuses(story.retry("ada"), "retry_not_due", "nobody has committed")


def test_retry_is_not_due_while_a_vote_may_still_be_opened() -> None:
    story = World.of(2).task()
    answer = story.propose("ada")
    committed = story.commit("ben", answer)
    story.accepts(story.claim("ada"), answer, story.claim("ben", "verify"), committed)
    deadline = committed.created_at + 10_000
    story.refuses(story.retry("ada", at_ms=deadline + skew), "retry_not_due", moment(deadline))
    story.accepts(story.retry("ada", at_ms=deadline + skew + 1))


def test_retry_is_not_due_when_a_candidate_has_the_quorum() -> None:
    story = World.of(2).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    story.refuses(story.retry("ada"), "retry_not_due", "has the quorum of 1")


@pytest.mark.parametrize("attempt", [1, 3])
def test_attempts_come_one_after_the_other(attempt: int) -> None:
    story, _ = lost()
    story.refuses(story.retry("ada", attempt), "attempt_order", "expected 2")


def test_attempts_end_with_max_steps() -> None:
    story, _ = lost(changes={"budget.max_steps": 1})
    story.refuses(story.retry("ada"), "attempts_over", "max_steps 1")


def test_run_at_may_be_an_hour_ahead_and_no_more() -> None:
    story, _ = lost()
    at = story.world.tick()
    story.refuses(story.retry("ada", run_at=at + retry_horizon_ms_max + 1, at_ms=at), "retry_horizon")
    at = story.world.tick()
    story.accepts(story.retry("ada", run_at=at + retry_horizon_ms_max, at_ms=at))


def test_retry_by_no_committer_is_refused() -> None:
    story = World({"ada": everything, "ben": everything - {"committer"}}).task()
    story.refuses(story.retry("ben"), "role", "committer")


def test_retry_takes_effect_with_a_third_of_the_committers_and_one_more() -> None:
    story, _ = lost(members=4)
    late = story.world.now_ms + 60_000
    story.accepts(story.retry("ada", run_at=late))
    assert story.state.work.attempt == 1
    story.ignores(story.retry("ada", run_at=late))
    story.accepts(story.retry("ben", run_at=late - 1))
    assert (story.state.work.attempt, story.state.work.run_at) == (2, late - 1)
    story.ignores(story.retry("cy"))


# -- expiry ----------------------------------------------------------------------------------------------------------


def test_task_expires_at_expiry_ms_and_not_a_millisecond_before() -> None:
    story = World.of(2).task()
    expiry = story.pins.contract.expiry_ms
    story.refuses(story.expire("ada", at_ms=expiry - 1), "not_expired", moment(expiry), moment(expiry - 1))
    story.accepts(story.expire("ada", at_ms=expiry))
    assert status(story.state) == "EXPIRED"
    story.ignores(story.expire("ben"))


def test_anybody_may_say_that_a_task_expired() -> None:
    story = World().task()
    story.accepts(story.expire("joe"))


def test_suspended_task_expires() -> None:
    story = World().task()
    story.accepts(story.suspend("ada"), story.expire("ada"))
    assert status(story.state) == "EXPIRED"


def test_stopped_task_does_not_expire() -> None:
    story = World().task()
    story.accepts(story.stop("ada"))
    story.refuses(story.expire("ada"), "task_closed", "STOPPED")


def test_work_is_refused_from_expiry_on_without_skew() -> None:
    story = World.of(2).task(changes={"budget.time_ms": 2 * 86_400_000})
    expiry = story.pins.contract.expiry_ms
    story.accepts(story.claim("ada", at_ms=expiry - 1))
    story.refuses(story.claim("ben", at_ms=expiry), "task_past_expiry", moment(expiry))
    story.refuses(story.propose("ada", at_ms=expiry), "task_past_expiry")


# -- stop, suspend, kill ---------------------------------------------------------------------------------------------

halts = [("stop", "STOPPED"), ("suspend", "SUSPENDED"), ("kill", "KILLED")]


@pytest.mark.parametrize(("halt", "closing"), halts)
def test_creator_ends_its_task_at_once(halt: str, closing: str) -> None:
    story = World({"ada": {"proposer"}, "ben": everything}).task("ada")
    story.accepts(getattr(story, halt)("ada"))
    assert status(story.state) == closing
    story.refuses(story.claim("ada"), "task_closed", closing)


@pytest.mark.parametrize(("halt", "closing"), halts)
def test_finalizers_end_a_task_when_a_third_and_one_more_ask(halt: str, closing: str) -> None:
    story = World.of(4).task("ada")
    story.accepts(getattr(story, halt)("ben"))
    assert status(story.state) == "OPEN"
    story.ignores(getattr(story, halt)("ben"))
    story.accepts(getattr(story, halt)("cy"))
    assert status(story.state) == closing
    story.ignores(getattr(story, halt)("dee"))


def test_different_wishes_do_not_add_up() -> None:
    story = World.of(4).task("ada")
    story.accepts(story.stop("ben"), story.kill("cy"), story.suspend("dee"))
    assert status(story.state) == "OPEN"


def test_others_may_not_end_a_task() -> None:
    story = World({"ada": everything, "ben": everything - {"finalizer"}}).task("ada")
    story.refuses(story.stop("ben"), "role", "finalizer", "creator")
    story.refuses(story.kill("joe"), "role")


@pytest.mark.parametrize("close", ["stop", "suspend", "kill", "expire"])
def test_closed_task_refuses_everything_but_feedback(close: str) -> None:
    story, answer = lost()
    story.accepts(getattr(story, close)("ada"))
    for said in (
        story.claim("ben"),
        story.release("ben", "verify"),
        story.propose("ada"),
        story.result("ben", answer),
        story.retry("ada"),
        story.error("ben"),
        story.decide("ada", answer),
        story.vote_finality("ada", answer),
        story.end_epoch("ada"),
        story.reject_reuse("ada", answer, []),
    ):
        story.refuses(said, "task_closed", "accepts only feedback")


# -- error -----------------------------------------------------------------------------------------------------------


def test_error_ends_its_authors_lease_with_that_execution() -> None:
    story = World.of(2).task(changes={"assignment.claim.max_concurrency": {"propose": 1, "verify": 1}})
    claimed = story.claim("ada")
    story.accepts(claimed, story.error("ada", at_ms=claimed.created_at + 1_000))
    assert story.state.work.propose[story.world.node("ada")].held_ms == 1_000
    story.accepts(story.claim("ben"))


def test_error_leaves_other_executions_and_other_authors_leases() -> None:
    story = World.of(2).task()
    story.accepts(story.claim("ada"), story.claim("ben", execution="ada-propose"))
    story.ignores(story.error("ada", "another"))
    story.accepts(story.error("ada"), story.release("ben", execution="ada-propose"))


def test_error_without_a_lease_is_a_record() -> None:
    story = World().task()
    story.ignores(story.error("ada", reason="OTHER", codes=[303]))


def test_error_without_codes_is_refused() -> None:
    story = World().task()
    story.refuses(story.error("ada", codes=[]), "reason_codes_empty")


@pytest.mark.parametrize(
    "custom",
    [
        {},
        {"custom_reason_namespace": "acme"},
        {"custom_reason_code": "E42"},
        {"custom_reason_namespace": "a" * 65, "custom_reason_code": "E42"},
        {"custom_reason_namespace": "acme", "custom_reason_code": "é" * 33},
        {"custom_reason_namespace": "", "custom_reason_code": "E42"},
    ],
    ids=str,
)
def test_code_999_needs_a_namespace_and_a_code_of_at_most_64_bytes(custom: dict[str, Any]) -> None:
    story = World().task()
    story.refuses(story.error("ada", reason="OTHER", codes=[999], **custom), "custom_reason", "64")


def test_code_999_with_its_names_is_accepted() -> None:
    story = World().task()
    custom: dict[str, Any] = {
        "custom_reason_namespace": "a" * 64,
        "custom_reason_code": "E42",
        "custom_reason_message": "why",
    }
    story.ignores(story.error("ada", reason="OTHER", codes=[999], **custom))


def test_error_by_a_member_that_only_finalizes_is_refused() -> None:
    story = World({"ada": everything, "ben": {"finalizer"}}).task()
    story.refuses(story.error("ben"), "role", "committer or proposer or verifier")
