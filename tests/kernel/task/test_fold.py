"""docs/protocol.md §4, §6: the table of rules as a whole, the order of checks, and state as bytes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.cast import digest_of, everything, in_order
from tests.story import Story
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import kinds
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.kernel.task.fold import apply, decode_state, encode_state, fold, new_state, rules
from wattswarm.kernel.verdict import ACCEPTED, UNSUPPORTED, message_chars_max, refused


def busy() -> tuple[Story, list[Event]]:
    """A contested task: conflicts, two candidates, a lost round, a won one, strangers, wrong events."""
    world = World.of(4)
    story = world.task(changes={"assignment.claim.max_concurrency": {"propose": 2, "verify": 2}})
    one = story.propose("ada", digests=[digest_of("a"), digest_of("b")])
    events = [story.claim("ada"), story.claim("ben"), story.claim("cy"), one]
    events += [story.propose("ben", "ben", digests=[digest_of("a")]), story.propose("cy"), story.claim("joe")]
    events += [*story.judge("cy", one, "reject"), story.reveal("cy", one, "reject"), story.decide("dee", one)]
    events += [story.retry("ada"), story.stop("ben"), story.retry("ben"), story.error("cy", codes=[])]
    events += [*story.judge("dee", one, attempt=2), story.reveal("dee", one), story.decide("dee", one)]
    events += [story.vote_finality(name, one) for name in ("ada", "ben", "cy")]
    events += [story.finalize("ada", one), story.feedback("joe"), story.claim("ben")]
    return story, in_order(events)


def test_every_kind_of_a_task_has_a_rule() -> None:
    about_tasks = {kind.payload for kind in kinds.values() if not kind.governs}
    assert set(rules) == about_tasks - {TaskCreated}


def test_fold_is_the_same_applied_one_by_one_with_a_restart_after_each() -> None:
    story, events = busy()
    whole, verdicts = fold(story.pins, [], events)
    state = new_state(story.pins, [])
    one_by_one = []
    for said in events:
        state = decode_state(encode_state(state))
        one_by_one.append(apply(state, story.pins, said))
    assert encode_state(state) == encode_state(whole)
    assert one_by_one == verdicts
    assert {verdict.status for verdict in verdicts} == {"accepted", "refused"}


def test_refusals_change_nothing() -> None:
    story, events = busy()
    story.decide_with(story.certificate(next(said for said in events if said.kind == "CANDIDATE_PROPOSED")))
    refusals = 0
    for said in events:
        before = encode_state(story.state)
        if story.tell(said).status == "refused":
            refusals += 1
            assert encode_state(story.state) == before
    assert refusals >= 5


def test_every_refusal_is_a_slug_and_a_sentence() -> None:
    story, events = busy()
    for verdict in fold(story.pins, [], events)[1]:
        if verdict.status == "refused":
            assert verdict.reason.replace("_", "").isalpha()
            assert verdict.reason == verdict.reason.lower()
            assert len(verdict.message) > 20


def test_creation_is_accepted_and_changes_nothing() -> None:
    story = World().task()
    before = encode_state(story.state)
    assert story.tell(story.creation) == ACCEPTED
    assert encode_state(story.state) == before


def test_event_of_another_protocol_version_is_unsupported() -> None:
    story = World().task()
    claimed = story.claim("ada")
    assert story.tell(replace(claimed, protocol_version="9.0.0", payload=None)) == UNSUPPORTED


# -- the order of checks: each test breaks two rules, the earlier one names the refusal --------------------------------


def test_a_closed_task_comes_before_a_closed_epoch() -> None:
    story = World().task()
    story.accepts(story.stop("ada"))
    story.epoch = 7
    story.refuses(story.claim("ada"), "task_closed")


def test_a_closed_epoch_comes_before_the_role() -> None:
    story = World().task()
    story.epoch = 7
    story.refuses(story.claim("joe"), "epoch_not_open")


def test_the_role_comes_before_the_time() -> None:
    story = World().task()
    story.refuses(story.claim("joe", at_ms=story.pins.contract.expiry_ms), "role")


def test_the_expiry_comes_before_the_time_box() -> None:
    story = World().task()
    expiry = story.pins.contract.expiry_ms
    story.refuses(story.claim("ada", at_ms=expiry), "task_past_expiry")


def test_the_time_comes_before_the_kinds_own_rule() -> None:
    story = World().task()
    story.refuses(story.propose("ada", at_ms=story.creation.created_at + 30_001), "time_box_over")


def test_the_kinds_own_rule_comes_before_the_budget() -> None:
    story = World().task(changes={"budget.explore_cost_units": 1})
    story.accepts(story.claim("ada"), story.propose("ada"))
    story.refuses(story.propose("ada", "next", output={"answer": 7}), "execution_output")
    story.refuses(story.propose("ada", "next"), "budget_share")


def test_strangers_are_refused_for_their_role_and_not_with_an_error() -> None:
    story = World({"ada": everything}).task()
    answer = story.propose("ada")
    for said in (
        story.claim("joe"),
        story.renew("joe"),
        story.release("joe"),
        story.propose("joe"),
        story.add_evidence("joe", digests=["x"]),
        story.available("joe", answer, "x"),
        story.result("joe", answer),
        story.commit("joe", answer),
        story.reveal("joe", answer),
        story.decide("joe", answer),
        story.vote_finality("joe", answer),
        story.error("joe"),
        story.retry("joe"),
        story.end_epoch("joe"),
        story.stop("joe"),
        story.suspend("joe"),
        story.kill("joe"),
        story.reject_reuse("joe", answer, []),
    ):
        story.refuses(said, "role", "membership version 0")


# -- state as bytes --------------------------------------------------------------------------------------------------


def test_a_finalized_tasks_state_is_about_a_kilobyte() -> None:
    world = World()
    events = world.full_chain()
    story = Story(world, events[0])
    story.decide_with(story.certificate(events[2]))
    for said in events:
        story.tell(said)
    assert len(encode_state(story.state)) < 1_100


@pytest.mark.parametrize("text", ["\0", "\x1b[31mred", "a\u202eb", "x" * 10_000])
def test_verdicts_can_be_stored_and_printed_whatever_strangers_wrote(text: str) -> None:
    story = World().task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, story.claim("ada", "verify"))
    message = story.tell(story.available("ada", answer, text[:200])).message
    assert message.isprintable()
    assert len(refused("reason", text).message) <= message_chars_max
