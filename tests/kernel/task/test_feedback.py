"""docs/protocol.md §6 "Feedback", §11 "Reuse reject"."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cast import authority, everything, hash_of, keys_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import course


def decided() -> tuple[Story, Event]:
    """A task whose certificate is here."""
    story = World.of(2).task()
    answer = story.propose("ada")
    story.decide_with(story.certificate(answer))
    return story, answer


# -- feedback --------------------------------------------------------------------------------------------------------


def test_feedback_signed_by_the_authority_is_kept() -> None:
    story, answer = decided()
    story.accepts(story.finalize("ada", answer))
    said = story.feedback("joe", timestamp=1_790_000_000_500)
    story.accepts(said)
    assert {epoch: (kept.timestamp, kept.created_at) for epoch, kept in story.state.feedback.items()} == {
        1: (1_790_000_000_500, said.created_at)
    }


def test_first_feedback_counts() -> None:
    story, _ = decided()
    story.accepts(story.feedback("ada"))
    story.ignores(story.feedback("ben", reason="something else"))


def test_feedback_without_a_certificate_is_refused() -> None:
    story = World().task()
    story.refuses(story.feedback("ada"), "not_decided", "epoch 1")


def test_feedback_on_an_epoch_without_a_certificate_is_refused() -> None:
    story, _ = decided()
    story.epoch = 2
    story.refuses(story.feedback("ada"), "not_decided", "epoch 2")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"outcome": "GOOD"}, "feedback_outcome"),
        ({"signer": keys_of("ada")}, "feedback_authority"),
        ({"signer": keys_of("ada"), "signed_by": "ed25519:" + authority.node_id.hex()}, "feedback_signature"),
    ],
    ids=["outcome", "authority", "signature"],
)
def test_feedback_with_a_wrong_field_is_refused(changes: dict[str, Any], reason: str) -> None:
    story, _ = decided()
    story.refuses(story.feedback("ada", **changes), reason)


def test_feedback_signature_is_over_this_task_and_epoch() -> None:
    story, _ = decided()
    said = story.world.task().feedback("ada").payload
    assert isinstance(said, course.TaskFeedbackReported)
    story.refuses(story.say("ada", said), "feedback_signature")


def test_feedback_timestamp_ends_with_the_window_after_expiry() -> None:
    story, _ = decided()
    latest = story.pins.contract.expiry_ms + 86_400_000
    story.refuses(story.feedback("ada", timestamp=latest + 1), "feedback_late", "window_ms")
    story.accepts(story.feedback("ada", timestamp=latest))


def test_feedback_is_accepted_on_a_decided_task_that_was_closed_otherwise() -> None:
    story, _ = decided()
    story.accepts(story.kill("ada"), story.feedback("ada"))


def test_feedback_on_a_later_epoch_does_not_move_the_work() -> None:
    story = World().task(changes={"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW"})
    story.epoch = 3
    story.decide_with(story.certificate(story.propose("ada")))
    story.accepts(story.feedback("ada"))
    assert story.state.epoch == 1


# -- reuse rejected --------------------------------------------------------------------------------------------------


def rejected(rejects: int = 2, quorum: int = 2) -> tuple[Story, Event, list[bytes]]:
    """Ada's candidate was rejected by Ben (and Cy, and Dee)."""
    story = World.of(4).task(changes={"acceptance.quorum_threshold": quorum})
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer)
    reveals = []
    for name in ("ben", "cy", "dee")[:rejects]:
        story.accepts(*story.judge(name, answer, "reject"))
        reveals.append(story.told(story.reveal(name, answer, "reject")).id)
    return story, answer, reveals


def test_rejected_reuse_is_blacklisted_and_not_proposed_again_in_the_epoch() -> None:
    story, answer, reveals = rejected()
    story.accepts(story.reject_reuse("ada", answer, reveals))
    assert story.state.work.blacklist == [hash_of(answer)]
    story.refuses(story.propose("ada"), "candidate_blacklisted", "epoch 1")


def test_reuse_rejected_again_is_a_no_op() -> None:
    story, answer, reveals = rejected()
    story.accepts(story.reject_reuse("ada", answer, reveals))
    story.ignores(story.reject_reuse("ben", answer, reveals))


def test_reuse_reject_below_the_quorum_is_refused() -> None:
    story, answer, reveals = rejected(rejects=1)
    story.refuses(story.reject_reuse("ada", answer, reveals), "no_reject_quorum", "1 of 2")


def test_one_reveal_named_twice_is_one_reject() -> None:
    story, answer, reveals = rejected(rejects=1)
    story.refuses(story.reject_reuse("ada", answer, reveals * 2), "no_reject_quorum", "1 of 2")


def test_reveals_that_do_not_exist_are_no_proof() -> None:
    story, answer, reveals = rejected()
    story.refuses(story.reject_reuse("ada", answer, [*reveals, b"\1" * 32]), "reject_unknown", "010101")


def test_approving_reveals_are_no_proof() -> None:
    story, answer, reveals = rejected(rejects=1, quorum=1)
    story.accepts(*story.judge("cy", answer))
    approval = story.reveal("cy", answer)
    story.accepts(approval)
    story.refuses(story.reject_reuse("ada", answer, [approval.id]), "reject_unknown")
    story.accepts(story.reject_reuse("ada", answer, reveals))


def test_rejects_of_an_earlier_round_are_still_proof() -> None:
    story, answer, reveals = rejected()
    story.accepts(story.retry("ada"), story.retry("ben"), story.reject_reuse("ada", answer, reveals))
    assert story.state.work.attempt == 2


def test_reuse_reject_of_no_candidate_is_refused() -> None:
    story, _, reveals = rejected()
    unknown = World().task().propose("ada", output={"answer": "never proposed here"})
    story.refuses(story.reject_reuse("ada", unknown, reveals), "candidate_unknown")


def test_reuse_reject_by_no_committer_is_refused() -> None:
    story = World({"ada": everything, "ben": everything - {"committer"}}).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer)
    story.refuses(story.reject_reuse("ben", answer, []), "role", "committer")
