"""What a node does on its own: the whole life of a task, with things going wrong."""

from __future__ import annotations

from itertools import pairwise

from tests.actors import Actors, told, waits
from tests.cast import digest_of, everything, hash_of, salt_of
from tests.world import World
from wattswarm.kernel.intents import Author, Execute, Judgement, Mine, VoteFinality
from wattswarm.kernel.intents.values import failures_max
from wattswarm.kernel.payloads import judge, work
from wattswarm.kernel.task.fold import encode_state, status

continuous = {"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW"}


def test_one_node_walks_the_published_chain_and_no_other() -> None:
    actors = Actors(World())
    actors.run(actors.finalized)
    assert actors.kinds == [
        "TASK_CREATED",
        "TASK_CLAIMED",
        "CANDIDATE_PROPOSED",
        "TASK_CLAIMED",
        "EVIDENCE_AVAILABLE",
        "VERIFIER_RESULT_SUBMITTED",
        "VOTE_COMMIT",
        "VOTE_REVEAL",
        "DECISION_COMMITTED",
        "FINALITY_VOTE",
        "DECISION_FINALIZED",
    ]


def test_one_node_has_nothing_more_to_do_when_the_task_is_final() -> None:
    actors = Actors(World())
    actors.run(actors.finalized)
    assert actors.intents("ada") == []


def test_asking_changes_nothing() -> None:
    story = World().task()
    before = encode_state(story.state)
    assert told(story, "ada") == told(story, "ada")
    assert encode_state(story.state) == before


def test_work_under_way_is_not_started_twice_and_its_lease_is_renewed() -> None:
    story = World().task()
    claimed = story.claim("ada", execution="propose-1")
    story.accepts(claimed)
    execute = told(story, "ada")
    assert isinstance(execute[0], Execute)
    mine = Mine(busy=frozenset({"propose-1"}))
    assert "the executor works" in waits(told(story, "ada", mine))
    story.world.now_ms = claimed.created_at + 4_000
    (renew,) = told(story, "ada", mine)
    assert isinstance(renew, Author)
    assert isinstance(renew.draft.payload, work.TaskClaimRenewed)
    story.accepts(story.say("ada", renew.draft.payload))


def test_crashing_executor_is_tried_three_times_and_then_left_alone() -> None:
    actors = Actors(World(), execute=lambda _name, _task: None)
    actors.run(lambda: status(actors.story.state) == "EXPIRED")
    assert actors.kinds.count("TASK_ERROR") == failures_max
    errors = [said.created_at for said in actors.events if said.kind == "TASK_ERROR"]
    assert [later - earlier for earlier, later in pairwise(errors)] == [2_000, 4_000]


def test_crashing_verifier_is_tried_again() -> None:
    answers = iter(["crashed", "passed"])
    actors = Actors(World(), verify=lambda _name, _candidate: next(answers))
    actors.run(actors.finalized)
    assert actors.kinds.count("TASK_ERROR") == 1


def test_rejected_round_is_followed_by_another_with_another_candidate() -> None:
    seen: list[str] = []

    def verify(_name: str, candidate: work.Candidate) -> str:
        seen.append(candidate.candidate_id)
        return "failed" if candidate.candidate_id == seen[0] else "passed"

    actors = Actors(World(), verify=verify)
    actors.run(actors.finalized)
    assert actors.kinds.count("TASK_RETRY_SCHEDULED") == 1
    assert actors.kinds.count("CANDIDATE_PROPOSED") == 2


def test_nobody_agrees_and_the_task_expires_after_max_steps() -> None:
    actors = Actors(World(), {"budget.max_steps": 2}, verify=lambda _name, _candidate: "failed")
    actors.run(lambda: status(actors.story.state) == "EXPIRED")
    assert actors.kinds.count("TASK_RETRY_SCHEDULED") == 1
    assert actors.kinds.count("VOTE_REVEAL") == 2


def test_inconclusive_verdict_is_published_and_no_vote_is_cast() -> None:
    actors = Actors(World(), verify=lambda _name, _candidate: "inconclusive")
    actors.run(lambda: "TASK_CLAIM_RELEASED" in actors.kinds)
    assert "VOTE_COMMIT" not in actors.kinds
    assert "inconclusive" in waits(actors.intents("ada"))


def test_lost_salt_leaves_the_vote_sealed_and_another_round_is_called() -> None:
    story = World().task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ada", answer))
    assert "cannot be opened" in waits(told(story, "ada"))
    story.world.tick(10_000 + 3_000 + 1)
    (retry,) = told(story, "ada")
    assert isinstance(retry, Author)
    story.accepts(story.say("ada", retry.draft.payload))
    assert story.state.work.attempt == 2


def test_withheld_finality_vote_says_why() -> None:
    story = World().task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ada", answer), story.reveal("ada", answer))
    story.accepts(story.decide("ada", answer))
    assert told(story, "ada") == [VoteFinality(1, hash_of(answer))]
    assert "the policy hash" in waits(told(story, "ada", Mine(withheld={1: "the policy hash is not admitted"})))


def test_expired_task_is_declared_so_and_a_suspended_one_waits_for_that() -> None:
    story = World().task()
    story.accepts(story.suspend("ada"))
    assert "suspended" in waits(told(story, "ada"))
    story.world.now_ms = story.pins.contract.expiry_ms
    (expire,) = told(story, "ada")
    assert isinstance(expire, Author)
    story.accepts(story.say("ada", expire.draft.payload, at_ms=story.world.now_ms))
    assert told(story, "ada") == []


def test_task_that_ran_out_of_time_waits_for_its_expiry() -> None:
    story = World().task()
    story.world.now_ms = story.creation.created_at + 30_001
    assert "time_ms of the epoch ran out" in waits(told(story, "ada"))


def test_continuous_task_goes_on_epoch_after_epoch() -> None:
    actors = Actors(World(), continuous)
    actors.run(lambda: actors.story.state.epoch == 3)
    assert actors.kinds.count("DECISION_FINALIZED") == 2
    assert actors.kinds.count("EPOCH_ENDED") == 2
    assert status(actors.story.state) == "OPEN"


def test_continuous_epoch_that_leads_nowhere_is_ended_with_its_time() -> None:
    actors = Actors(World(), {**continuous, "budget.max_steps": 1}, verify=lambda _name, _candidate: "failed")
    actors.run(lambda: actors.story.state.epoch == 2)
    ended = next(said for said in actors.events if said.kind == "EPOCH_ENDED")
    assert ended.created_at == actors.story.creation.created_at + 30_000


def test_spent_explore_units_end_the_proposing() -> None:
    changes = {"budget.explore_cost_units": 1, "budget.max_steps": 1}
    actors = Actors(World(), changes, verify=lambda _name, _candidate: "failed")
    actors.run(lambda: "VOTE_REVEAL" in actors.kinds)
    assert "explore units" in waits(actors.intents("ada"))


def test_spent_budget_ends_a_continuous_epoch() -> None:
    changes = {**continuous, "budget.verify_cost_units": 4, "budget.max_steps": 9}
    actors = Actors(World(), changes, verify=lambda _name, _candidate: "failed")
    actors.run(lambda: "EPOCH_ENDED" in actors.kinds)
    assert actors.events[-1].created_at < actors.story.creation.created_at + 30_000


def test_share_of_lease_time_is_not_exceeded() -> None:
    story = World().task(changes={"budget.time_ms": 10_000, "budget.reuse_verify_time_ms": 0})
    story.accepts(story.claim("ada", execution="propose-1"))
    story.world.tick(5_000)
    assert "has held propose leases for the 5000 ms" in waits(told(story, "ada"))


def test_own_lease_that_ran_out_is_given_back_before_another_is_claimed() -> None:
    story = World().task()
    story.accepts(story.claim("ada", execution="propose-1"))
    story.world.tick(5_000)
    for kind in (work.TaskClaimReleased, work.TaskClaimed):
        (said,) = told(story, "ada")
        assert isinstance(said, Author)
        assert isinstance(said.draft.payload, kind)
        story.accepts(story.say("ada", said.draft.payload, at_ms=story.world.now_ms))


def test_executor_that_outlives_its_lease_is_waited_for() -> None:
    story = World().task()
    story.accepts(story.claim("ada", execution="propose-1"))
    story.world.tick(6_000)
    assert "though the lease has run out" in waits(told(story, "ada", Mine(busy=frozenset({"propose-1"}))))


def test_verifier_at_work_renews_its_lease() -> None:
    story = World({"ada": everything, "ben": {"verifier"}}).task()
    story.accepts(story.claim("ada"), story.propose("ada"), story.claim("ben", "verify", "verify-1"))
    mine = Mine(busy=frozenset({"verify-1"}))
    assert "the executor works on verify-1" in waits(told(story, "ben", mine))
    story.world.tick(4_000)
    (renew,) = told(story, "ben", mine)
    assert isinstance(renew, Author)
    assert isinstance(renew.draft.payload, work.TaskClaimRenewed)


def test_verifier_claims_nothing_after_time_ms() -> None:
    story = World({"ada": everything, "ben": {"verifier"}}).task()
    story.accepts(story.claim("ada"), story.propose("ada"))
    story.world.now_ms = story.creation.created_at + 30_001
    assert "no new claims" in waits(told(story, "ben"))


def test_what_the_state_would_refuse_is_said_and_not_tried() -> None:
    changes = {"budget.verify_cost_units": 3, "assignment.verify.max_verifiers": 1}
    story = World.of(3).task(changes=changes)
    answer = story.propose("ada")
    said = story.result("ben", answer)
    assert isinstance(said.payload, judge.VerifierResultSubmitted)
    story.accepts(story.claim("ada"), answer, story.claim("ben", "verify"), said, story.commit("ben", answer))
    mine = Mine(judgements={(1, 1, hash_of(answer)): Judgement(said.payload.result, (), salt_of("ben"))})
    (reveal,) = told(story, "ben", mine)
    assert isinstance(reveal, Author)
    story.accepts(story.release("ben", "verify"), story.claim("cy", "verify"), story.result("cy", answer))
    assert "all 3 verify units of epoch 1 are used" in waits(told(story, "ben", mine))


def test_verifier_that_cannot_read_the_winners_evidence_leaves_it_to_others() -> None:
    story = World.of(4).task(changes={"acceptance.da_quorum_threshold": 2})
    answer = story.propose("ada", digests=[digest_of("a")])
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    said = story.result("cy", answer)
    assert isinstance(said.payload, judge.VerifierResultSubmitted)
    mine = Mine(judgements={(1, 1, hash_of(answer)): Judgement(said.payload.result, (), salt_of("cy"))})
    story.accepts(story.decide("ada", answer), story.claim("cy", "verify"))
    story.accepts(story.vote_finality("cy", answer))
    assert "could not read" in waits(told(story, "cy", mine))
