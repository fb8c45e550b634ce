"""docs/protocol.md §6 "Decision committed", §7: finality votes, the proof made public, pass 1 and pass 2."""

from __future__ import annotations

from typing import Any

from tests.cast import digest_of, everything, hash_of, keys_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel import finality
from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.task.fold import encode_state, fold, status


def approved(members: int = 4, quorum: int = 1, changes: dict[str, Any] | None = None) -> tuple[Story, Event]:
    """Ada's candidate has ``quorum`` approvals."""
    story = World.of(members).task(changes={"acceptance.quorum_threshold": quorum, **(changes or {})})
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer)
    for name in story.voters("ada"):
        story.accepts(*story.judge(name, answer), story.reveal(name, answer))
    return story, answer


# -- decision committed ----------------------------------------------------------------------------------------------


def test_decision_with_the_quorum_is_committed() -> None:
    story, answer = approved(quorum=2)
    story.accepts(story.decide("dee", answer))
    assert story.state.work.committed == hash_of(answer)


def test_decision_below_the_quorum_is_refused_with_the_count() -> None:
    story = World.of(4).task(changes={"acceptance.quorum_threshold": 2})
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    story.accepts(*story.judge("cy", answer, "reject"), story.reveal("cy", answer, "reject"))
    story.refuses(story.decide("dee", answer), "no_quorum", "1 of 2 approvals", "1 rejects")


def test_decision_on_no_candidate_is_refused() -> None:
    story, _ = approved()
    unknown = World().task().propose("ada", output={"answer": "never proposed here"})
    story.refuses(story.decide("dee", unknown), "candidate_unknown")


def test_decision_whose_candidate_id_is_another_is_refused() -> None:
    story, answer = approved()
    story.refuses(story.decide("dee", answer, candidate_id="other"), "candidate_id_wrong")


def test_decision_by_no_finalizer_is_refused() -> None:
    story = World({"ada": everything, "ben": everything - {"finalizer"}}).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    story.refuses(story.decide("ben", answer), "role", "finalizer")


def test_only_the_first_decision_of_an_epoch_counts() -> None:
    story = World.of(4).task()
    one, two = story.propose("ada"), story.propose("ben")
    story.accepts(story.claim("ada"), story.claim("ben"), one, two)
    story.accepts(*story.judge("cy", one), story.reveal("cy", one))
    story.accepts(*story.judge("dee", two), story.reveal("dee", two))
    story.accepts(story.decide("cy", two))
    story.refuses(story.decide("dee", one), "decision_committed", hash_of(two).hex()[:12])


def test_same_decision_by_another_finalizer_is_a_no_op() -> None:
    story, answer = approved()
    story.accepts(story.decide("ada", answer))
    story.ignores(story.decide("ben", answer))


# -- finality votes --------------------------------------------------------------------------------------------------


def test_finality_vote_is_kept_with_its_signature() -> None:
    story, answer = approved()
    voted = story.vote_finality("cy", answer)
    story.accepts(story.decide("ada", answer), voted)
    held = story.state.work.finality_votes[story.world.node("cy")]
    assert held.candidate_hash == hash_of(answer)
    assert finality.vote_holds(story.world.node("cy"), story.statement(answer), held.signature)


def test_finality_vote_with_a_signature_over_anything_else_is_refused() -> None:
    story, answer = approved()
    story.accepts(story.decide("ada", answer))
    other_epoch = Story(story.world, story.creation)
    other_epoch.epoch = 2
    for signature in (b"\0" * 64, _signature("ben", story, answer), _signature("cy", other_epoch, answer)):
        story.refuses(story.vote_finality("cy", answer, signature=signature), "finality_signature", "epoch 1")


def _signature(name: str, story: Story, answer: Event) -> bytes:
    return finality.sign(keys_of(name), story.statement(answer))


def test_finality_vote_by_no_finalizer_is_refused() -> None:
    story = World({"ada": everything, "ben": everything - {"finalizer"}}).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer)
    story.refuses(story.vote_finality("ben", answer), "role", "finalizer")


def test_second_finality_vote_for_another_candidate_is_refused() -> None:
    story, answer = approved()
    other = story.propose("ada", "another", output={"answer": "ada says hello"})
    story.accepts(story.vote_finality("cy", answer))
    story.refuses(story.vote_finality("cy", other), "finality_voted", "signs once")


def test_same_finality_vote_again_is_a_no_op() -> None:
    story, answer = approved()
    story.accepts(story.vote_finality("cy", answer))
    story.ignores(story.vote_finality("cy", answer))


def test_finality_vote_stands_though_the_fold_committed_to_another_candidate() -> None:
    story, answer = approved()
    other = story.propose("ada", "another", output={"answer": "ada says hello"})
    story.accepts(story.decide("ada", answer), story.vote_finality("cy", other))


# -- the proof -------------------------------------------------------------------------------------------------------


def test_whole_chain_of_one_node_is_accepted_and_final() -> None:
    world = World()
    events = world.full_chain()
    story = Story(world, events[0])
    story.decide_with(story.certificate(events[2]))
    assert [story.tell(said).status for said in events] == ["accepted"] * 11
    assert status(story.state) == "FINALIZED"


def test_decision_finalized_without_its_certificate_in_pass_1_is_refused() -> None:
    story, answer = approved()
    story.accepts(story.decide("ada", answer))
    story.refuses(story.finalize("ada", answer), "no_certificate", hash_of(answer).hex()[:12])


def test_decision_finalized_for_another_candidate_than_the_certified_is_refused() -> None:
    story, answer = approved()
    other = story.propose("ada", "another", output={"answer": "ada says hello"})
    story.decide_with(story.certificate(answer))
    story.refuses(story.finalize("ada", other), "no_certificate")


def test_decision_finalized_by_a_stranger_is_accepted() -> None:
    story, answer = approved()
    story.decide_with(story.certificate(answer))
    story.accepts(story.finalize("joe", answer))


def test_decision_finalized_again_is_a_no_op() -> None:
    story, answer = approved()
    story.decide_with(story.certificate(answer))
    story.accepts(story.finalize("ada", answer))
    story.ignores(story.finalize("ben", answer))


def test_after_decision_finalized_only_feedback_is_accepted() -> None:
    story, answer = approved()
    story.decide_with(story.certificate(answer))
    story.accepts(story.finalize("ada", answer))
    for said in (
        story.claim("ada"),
        story.propose("ada"),
        story.vote_finality("ada", answer),
        story.error("ada"),
        story.stop("ada"),
        story.expire("ada"),
    ):
        story.refuses(said, "task_closed", "FINALIZED")
    story.accepts(story.feedback("ada"))


def test_certificate_does_not_change_what_the_events_before_it_meant() -> None:
    world = World.of(4)
    events = world.full_chain()
    story = Story(world, events[0])
    certificate = story.certificate(next(said for said in events if said.kind == "CANDIDATE_PROPOSED"))
    _, without = fold(story.pins, [], events)
    story.decide_with(certificate)
    _, with_it = fold(story.pins, story.state.decisions, events)
    assert with_it[:-1] == without[:-1]
    assert (without[-1].reason, with_it[-1].status) == ("no_certificate", "accepted")


def test_late_work_between_the_certificate_and_decision_finalized_is_judged_as_ever() -> None:
    story, answer = approved()
    story.decide_with(story.certificate(answer))
    story.accepts(story.claim("ada"))
    assert status(story.state) == "FINALIZED"


def test_status_is_finalized_as_soon_as_a_certificate_is_here() -> None:
    story, answer = approved()
    assert status(story.state) == "OPEN"
    story.decide_with(story.certificate(answer))
    assert status(story.state) == "FINALIZED"


def test_certificate_wins_over_every_provisional_closing() -> None:
    for close, closing in (("stop", "STOPPED"), ("suspend", "SUSPENDED"), ("kill", "KILLED"), ("expire", "EXPIRED")):
        story, answer = approved()
        story.accepts(getattr(story, close)("ada"))
        assert status(story.state) == closing
        story.decide_with(story.certificate(answer))
        story.accepts(getattr(story, close)("ben" if close == "expire" else "ada"))
        assert status(story.state) == "FINALIZED"
        story.accepts(story.finalize("ada", answer))
        assert story.state.closing == "FINALIZED"


def test_two_certificates_for_one_epoch_are_forked() -> None:
    story, answer = approved()
    other = story.propose("ada", "another", output={"answer": "ada says hello"})
    story.decide_with(story.certificate(answer), story.certificate(other))
    assert status(story.state) == "FORKED"
    first = encode_state(story.state)
    story.decide_with(story.certificate(other), story.certificate(answer))
    assert encode_state(story.state) == first


def test_one_certificate_told_twice_is_one_decision() -> None:
    story, answer = approved()
    story.decide_with(story.certificate(answer), story.certificate(answer, ["dee", "cy", "ben"]))
    assert status(story.state) == "FINALIZED"
    assert len(story.state.decisions) == 1


def test_state_does_not_depend_on_which_copy_of_a_certificate_is_held() -> None:
    story, answer = approved()
    again = story.propose("ada")
    assert again.id != answer.id
    assert hash_of(again) == hash_of(answer)
    story.decide_with(story.certificate(answer))
    one = encode_state(story.state)
    story.decide_with(story.certificate(again, ["dee", "cy", "ben"]))
    assert encode_state(story.state) == one


def test_decided_task_survives_late_events_that_unmake_its_history() -> None:
    world = World.of(4)
    events = world.full_chain()
    story = Story(world, events[0])
    story.decide_with(story.certificate(next(said for said in events if said.kind == "CANDIDATE_PROPOSED")))
    decisions = story.state.decisions
    state, verdicts = fold(story.pins, decisions, [*events[:1], *events[4:]])
    assert verdicts[-1].status == "accepted"
    assert status(state) == "FINALIZED"
    stopped = Story(world, events[0]).stop("ada", at_ms=world.now_ms + 10)
    state, verdicts = fold(story.pins, decisions, [events[0], stopped, *events[1:]])
    assert verdicts[-1].status == "accepted"
    assert status(state) == "FINALIZED"


def test_finality_vote_and_proof_are_taken_at_and_after_expiry() -> None:
    story, answer = approved()
    expiry = story.pins.contract.expiry_ms
    story.accepts(story.decide("ada", answer, at_ms=expiry - 1), story.vote_finality("ada", answer, at_ms=expiry))
    late = story.vote_finality("ben", answer, at_ms=expiry + clock_skew_tolerance_ms)
    story.accepts(late)


def test_evidence_digests_without_candidates_do_not_confuse_the_proof() -> None:
    world = World()
    story = world.task()
    events = story.finish(digests=[digest_of("a"), digest_of("b")])
    story.decide_with(story.certificate(events[1]))
    assert {story.tell(said).status for said in events} == {"accepted"}
