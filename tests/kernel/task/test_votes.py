"""docs/protocol.md §5 ``commit_hash``, §6 "Vote commit", "Reveal", "Counting"."""

from __future__ import annotations

import pytest

from tests.cast import everything, hash_of, result_hash
from tests.story import Story
from tests.world import World
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.payloads import judge
from wattswarm.kernel.task.vote import Ballot, tally
from wattswarm.kernel.task.wording import moment

skew = clock_skew_tolerance_ms


def judged(status: str = "passed", members: int = 3) -> tuple[Story, Event]:
    """Ada proposed, Ben verified and holds his lease; quorum 1."""
    story = World.of(members).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, story.claim("ben", "verify"), story.result("ben", answer, status))
    return story, answer


# -- commit ----------------------------------------------------------------------------------------------------------


def test_commit_hash_is_of_the_published_text() -> None:
    ballot = Ballot(b"\x01" * 32, 2, 3, b"\x04" * 32, b"\x05" * 32, "approve", "ab" * 16, "cd")
    text = f"wattswarm/vote/v1|{'01' * 32}|2|3|{'04' * 32}|{'05' * 32}|approve|{'ab' * 16}|cd"
    assert ballot.commit_hash() == sha256(text.encode())


def test_commit_under_a_verify_lease_is_accepted() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer))


def test_commit_without_a_verify_lease_is_refused() -> None:
    story, answer = judged()
    story.refuses(story.commit("cy", answer), "no_lease", "verify lease")


def test_commit_to_no_candidate_is_refused() -> None:
    story, _ = judged()
    unknown = World().task().propose("ada", output={"answer": "never proposed here"})
    story.refuses(story.commit("ben", unknown), "candidate_unknown")


def test_commit_whose_candidate_id_is_another_is_refused() -> None:
    story, answer = judged()
    sealed = story.commit("ben", answer).payload
    assert isinstance(sealed, judge.VoteCommit)
    wrong = judge.VoteCommit(
        "other", sealed.candidate_hash, sealed.execution_id, sealed.verifier_result_hash, sealed.commit_hash
    )
    story.refuses(story.say("ben", wrong), "candidate_id_wrong", "ada-candidate", "other")


def test_one_commit_a_voter_and_round() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer))
    story.refuses(story.commit("ben", answer, "reject"), "vote_committed", "round 1")


def test_same_commit_again_is_a_no_op() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer))
    story.ignores(story.commit("ben", answer))


# -- reveal ----------------------------------------------------------------------------------------------------------


def test_reveal_opens_the_commit_and_counts() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer), story.reveal("ben", answer))
    assert tally(story.pins, story.state.work, hash_of(answer)) == (1, 0)


def test_reject_after_a_failed_result_counts_against() -> None:
    story, answer = judged("failed")
    story.accepts(story.commit("ben", answer, "reject"), story.reveal("ben", answer, "reject"))
    assert tally(story.pins, story.state.work, hash_of(answer)) == (0, 1)


def test_same_reveal_again_is_a_no_op() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer), story.reveal("ben", answer))
    story.ignores(story.reveal("ben", answer))


def test_reveal_without_a_commit_is_refused() -> None:
    story, answer = judged()
    story.refuses(story.reveal("ben", answer), "no_commit", "round 1")


@pytest.mark.parametrize(
    "changes",
    [{"salt": "00" * 16}, {"vote": "reject"}, {"verifier_result_hash": "another"}],
    ids=["salt", "vote", "result hash"],
)
def test_reveal_that_does_not_open_the_commit_is_refused(changes: dict[str, str]) -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer))
    story.refuses(story.reveal("ben", answer, **changes), "commit_mismatch")  # type: ignore[arg-type]


def test_reveal_of_another_candidate_than_the_committed_is_refused() -> None:
    story = World.of(3).task()
    one, two = story.propose("ada"), story.propose("cy")
    story.accepts(story.claim("ada"), story.claim("cy"), one, two)
    story.accepts(story.claim("ben", "verify"), story.result("ben", one), story.result("ben", two))
    story.accepts(story.commit("ben", one))
    story.refuses(story.reveal("ben", two), "commit_mismatch")


def test_commitment_copied_from_another_voter_cannot_be_opened() -> None:
    story, answer = judged()
    story.accepts(story.claim("cy", "verify"), story.result("cy", answer))
    story.accepts(story.commit("ben", answer))
    copied = story.commit("ben", answer).payload
    assert copied is not None
    story.accepts(story.say("cy", judge.VoteCommit(*_fields(copied, execution_id="cy-verify"))))
    opened = story.reveal("cy", answer, salt=None, verifier_result_hash=result_hash("ben", answer))
    story.refuses(opened, "commit_mismatch")


def _fields(commit: object, execution_id: str) -> tuple[str, bytes, str, str, bytes]:
    assert isinstance(commit, judge.VoteCommit)
    return commit.candidate_id, commit.candidate_hash, execution_id, commit.verifier_result_hash, commit.commit_hash


def test_commit_for_another_round_does_not_open_in_this_one() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer, attempt=2))
    story.refuses(story.reveal("ben", answer), "commit_mismatch")


@pytest.mark.parametrize("salt", ["ab" * 15, "g" * 32, "", "ab" * 15 + "xy"])
def test_salt_shorter_than_32_hex_digits_is_refused(salt: str) -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer, salt=salt))
    story.refuses(story.reveal("ben", answer, salt=salt), "salt_form", "32 hex digits")


def test_reveal_until_the_deadline_and_the_skew_is_accepted_and_later_refused() -> None:
    for late, accepted in ((skew, True), (skew + 1, False)):
        story, answer = judged()
        committed = story.commit("ben", answer)
        story.accepts(committed)
        deadline = committed.created_at + 10_000
        opened = story.reveal("ben", answer, at_ms=deadline + late)
        if accepted:
            story.accepts(opened)
        else:
            story.refuses(opened, "reveal_late", moment(deadline), moment(opened.created_at))


def test_reveal_needs_no_live_lease() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer), story.release("ben", "verify"), story.reveal("ben", answer))


def test_reveal_without_the_voters_own_result_is_refused() -> None:
    story = World.of(3).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, story.claim("ben", "verify"), story.commit("ben", answer))
    story.refuses(story.reveal("ben", answer), "result_disagrees", "does not exist")


@pytest.mark.parametrize(
    ("status", "vote"),
    [("failed", "approve"), ("inconclusive", "approve"), ("passed", "reject"), ("inconclusive", "reject")],
)
def test_vote_must_agree_with_the_voters_own_result(status: str, vote: str) -> None:
    story, answer = judged(status)
    story.accepts(story.commit("ben", answer, vote))  # type: ignore[arg-type]
    story.refuses(story.reveal("ben", answer, vote), "result_disagrees", f"is {status}")  # type: ignore[arg-type]


def test_somebody_elses_result_does_not_carry_a_vote() -> None:
    story, answer = judged()
    story.accepts(story.claim("cy", "verify"), story.commit("cy", answer))
    story.refuses(story.reveal("cy", answer), "result_disagrees")


def test_approval_rides_on_no_namesakes_result() -> None:
    story = World.of(3).task(
        changes={
            "acceptance.verifier_policy": {
                "policy_id": "vp.crosscheck.v1",
                "policy_version": "1",
                "policy_hash": "0" * 64,
                "policy_params": {},
            }
        }
    )
    good, bad = story.propose("ada", "same"), story.propose("cy", "same", output={"answer": "no summary"})
    story.accepts(story.claim("ada"), story.claim("cy"), good, bad, story.claim("ben", "verify"))
    story.accepts(story.result("ben", good, verifier_result_hash=result_hash("ben", bad)), story.commit("ben", bad))
    story.refuses(story.reveal("ben", bad), "passed_contradicted")


# -- counting --------------------------------------------------------------------------------------------------------


def test_proposers_vote_on_its_own_candidate_is_accepted_and_does_not_count() -> None:
    story = World.of(3).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, story.claim("ada", "verify"), story.result("ada", answer))
    story.accepts(story.commit("ada", answer), story.reveal("ada", answer))
    assert tally(story.pins, story.state.work, hash_of(answer)) == (0, 0)
    story.refuses(story.decide("ada", answer), "no_quorum", "0 of 1 approvals")


def test_proposers_vote_counts_where_it_is_the_only_verifier() -> None:
    story = World({"ada": everything, "ben": everything - {"verifier"}}).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, story.claim("ada", "verify"), story.result("ada", answer))
    story.accepts(story.commit("ada", answer), story.reveal("ada", answer))
    assert tally(story.pins, story.state.work, hash_of(answer)) == (1, 0)


def test_proposers_vote_on_another_candidate_counts() -> None:
    story = World.of(2).task()
    one, two = story.propose("ada"), story.propose("ben")
    story.accepts(story.claim("ada"), story.claim("ben"), one, two)
    story.accepts(story.claim("ada", "verify"), story.result("ada", two))
    story.accepts(story.commit("ada", two), story.reveal("ada", two))
    assert tally(story.pins, story.state.work, hash_of(two)) == (1, 0)
    assert tally(story.pins, story.state.work, hash_of(one)) == (0, 0)


def test_sealed_votes_do_not_count() -> None:
    story, answer = judged()
    story.accepts(story.commit("ben", answer))
    assert tally(story.pins, story.state.work, hash_of(answer)) == (0, 0)
