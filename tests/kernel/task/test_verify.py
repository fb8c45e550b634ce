"""docs/protocol.md §6 "Evidence available", "Verifier result"."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cast import digest_of, everything, result_hash
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.policy import CROSSCHECK, SCHEMA_THRESHOLDS, registry
from wattswarm.kernel.refusal import Malformed


def policy(name: str, **params: Any) -> dict[str, Any]:
    """A contract's policy binding."""
    return {
        "policy_id": name,
        "policy_version": "1",
        "policy_hash": registry[name, "1"].policy_hash,
        "policy_params": params,
    }


def proposed(changes: dict[str, Any] | None = None, **candidate: Any) -> tuple[Story, Event]:
    """Ada proposed a candidate with evidence a and b; Ben and Cy hold verify leases."""
    story = World.of(3).task(changes=changes)
    answer = story.propose("ada", **({"digests": [digest_of("a"), digest_of("b")]} | candidate))
    story.accepts(story.claim("ada"), answer, story.claim("ben", "verify"), story.claim("cy", "verify"))
    return story, answer


# -- evidence available ----------------------------------------------------------------------------------------------


def test_availability_is_counted_by_digest_and_author() -> None:
    story, answer = proposed()
    story.accepts(
        story.available("ben", answer, digest_of("a")),
        story.available("cy", answer, digest_of("a")),
        story.available("cy", answer, digest_of("b")),
    )
    ben, cy = story.world.node("ben"), story.world.node("cy")
    assert story.state.work.attested == {digest_of("a"): [ben, cy], digest_of("b"): [cy]}


def test_availability_said_again_is_a_no_op() -> None:
    story, answer = proposed()
    story.accepts(story.available("ben", answer))
    story.ignores(story.available("ben", answer))


def test_availability_of_added_evidence_is_accepted() -> None:
    story, answer = proposed()
    story.accepts(story.add_evidence("ada", digests=[digest_of("c")]), story.available("ben", answer, digest_of("c")))


def test_availability_of_a_digest_the_candidate_does_not_have_is_refused() -> None:
    story, answer = proposed()
    story.refuses(story.available("ben", answer, digest_of("z")), "evidence_unknown", digest_of("z"))


def test_availability_without_a_verify_lease_is_refused() -> None:
    story, answer = proposed()
    story.refuses(story.available("ada", answer, execution="ada-propose"), "no_lease", "verify lease")


def test_availability_for_no_candidate_is_refused() -> None:
    story = World().task()
    other = World().task()
    story.accepts(story.claim("ada", "verify"))
    unknown = other.propose("ada", digests=[digest_of("a")])
    story.refuses(story.available("ada", unknown), "candidate_unknown", "ada-candidate")


def test_availability_may_be_attested_after_time_ms() -> None:
    story = World().task()
    end = story.creation.created_at + 30_000
    story.accepts(story.claim("ada", at_ms=end - 2), story.claim("ada", "verify", at_ms=end - 1))
    answer = story.propose("ada", digests=[digest_of("a")], at_ms=end)
    story.accepts(answer)
    story.accepts(story.available("ada", answer, at_ms=end + 1))


def test_verifier_role_is_needed_to_attest_and_to_judge() -> None:
    world = World({"ada": everything, "ben": everything - {"verifier"}})
    story = world.task()
    answer = story.propose("ada", digests=[digest_of("a")])
    story.accepts(story.claim("ada"), answer)
    story.refuses(story.available("ben", answer), "role", "verifier")
    story.refuses(story.result("ben", answer), "role", "verifier")
    story.refuses(story.commit("ben", answer), "role", "verifier")
    story.refuses(story.reveal("ben", answer), "role", "verifier")


# -- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["passed", "failed", "inconclusive"])
def test_result_of_each_status_is_accepted(status: str) -> None:
    story, answer = proposed()
    story.accepts(story.result("ben", answer, status))
    assert [(held.status, held.attempt) for held in story.state.work.results] == [(status, 1)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"provider_family": ""}, "executor_unnamed"),
        ({"model_id": ""}, "executor_unnamed"),
        ({"score": 1.01}, "score_range"),
        ({"score": -0.01}, "score_range"),
        ({"passed": False}, "status_disagrees"),
        ({"policy_id": CROSSCHECK}, "other_policy"),
        ({"policy_version": "2"}, "other_policy"),
        ({"policy_hash": "0" * 64}, "other_policy"),
        ({"reason_codes": []}, "reason_codes_empty"),
        ({"reason_codes": [100, 105]}, "reason_code"),
        ({"reason_codes": [300]}, "reason_code"),
        ({"candidate_id": "nothing"}, "candidate_unknown"),
        ({"execution_id": "another"}, "no_lease"),
    ],
    ids=str,
)
def test_result_with_a_wrong_field_is_refused(changes: dict[str, Any], reason: str) -> None:
    story, answer = proposed()
    story.refuses(story.result("ben", answer, **changes), reason)


def test_result_that_says_passed_with_another_status_is_refused() -> None:
    story, answer = proposed()
    story.refuses(story.result("ben", answer, "failed", passed=True), "status_disagrees", "failed", "true")


@pytest.mark.parametrize("code", [0, 100, 101, 200, 203, 999, 500, 65_535])
def test_codes_of_the_policy_0_999_and_unnamed_ones_are_allowed(code: int) -> None:
    story, answer = proposed()
    story.accepts(story.result("ben", answer, reason_codes=[code]))


def test_inconclusive_needs_one_of_200_201_202() -> None:
    story, answer = proposed()
    story.refuses(story.result("ben", answer, "inconclusive", reason_codes=[203, 0]), "inconclusive_code", "200, 201")
    story.accepts(story.result("ben", answer, "inconclusive", reason_codes=[203, 202]))


def test_score_that_is_no_number_does_not_reach_the_rules() -> None:
    story, answer = proposed()
    with pytest.raises(Malformed):
        story.result("ben", answer, score=float("nan"))


def test_first_result_of_an_author_counts_in_a_round() -> None:
    story, answer = proposed()
    story.accepts(story.result("ben", answer))
    story.refuses(story.result("ben", answer, "failed"), "result_exists", "round 1")
    story.accepts(story.result("cy", answer, "failed"))


def test_same_result_again_is_a_no_op() -> None:
    story, answer = proposed()
    story.accepts(story.result("ben", answer))
    story.ignores(story.result("ben", answer))


def test_passed_that_contradicts_the_own_evaluation_is_refused_and_failed_is_accepted() -> None:
    story, answer = proposed(
        {"acceptance.verifier_policy": policy(SCHEMA_THRESHOLDS, min_confidence=0.9)},
        output={"answer": "x", "confidence": 0.5},
    )
    story.refuses(story.result("ben", answer), "passed_contradicted", SCHEMA_THRESHOLDS)
    story.accepts(story.result("ben", answer, "failed", reason_codes=[100, 102]))


def test_failed_may_stand_against_an_own_evaluation_that_passes() -> None:
    story, answer = proposed()
    story.accepts(story.result("ben", answer, "failed", reason_codes=[203]))


def test_result_may_come_after_the_commit() -> None:
    story, answer = proposed()
    story.accepts(story.commit("ben", answer), story.result("ben", answer), story.reveal("ben", answer))


def test_candidates_of_one_id_are_each_judged() -> None:
    story = World.of(3).task()
    good, bad = story.propose("ada", "same"), story.propose("ben", "same")
    story.accepts(story.claim("ada"), story.claim("ben"), good, bad, story.claim("cy", "verify"))
    story.accepts(story.result("cy", good, verifier_result_hash=result_hash("cy", good)))
    story.accepts(story.result("cy", bad, "failed", verifier_result_hash=result_hash("cy", bad)))
    story.refuses(story.result("cy", bad, verifier_result_hash="third"), "result_exists")
    story.accepts(story.commit("cy", good), story.reveal("cy", good))
