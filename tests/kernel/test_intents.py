"""What nodes do on their own: the whole life of a task, by one node and by several, with things going wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from tests.actors import Actors, echo
from tests.cast import digest_of, everything, hash_of, keys_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel.intents import Author, Execute, Intent, Mine, Verify, VoteFinality, Wait, next_intents
from wattswarm.kernel.intents.values import failures_max, line, turn_ms
from wattswarm.kernel.payloads import work
from wattswarm.kernel.task.fold import encode_state, status

one_slot = {"assignment.claim.max_concurrency": {"propose": 1, "verify": 1}, "assignment.explore.max_proposers": 1}
continuous = {"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW"}


def told(story: Story, name: str, mine: Mine | None = None) -> list[Intent]:
    """What a member of a story should do now."""
    return next_intents(story.state, story.pins, story.world.node(name), story.world.now_ms, mine)


def waits(intents: list[Intent]) -> str:
    """The reasons given for waiting; fails if there is anything to do."""
    assert all(isinstance(intent, Wait) for intent in intents), intents
    return "; ".join(intent.why for intent in intents if isinstance(intent, Wait))


# -- one node --------------------------------------------------------------------------------------------------------


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


# -- several nodes ---------------------------------------------------------------------------------------------------


def test_four_nodes_decide_with_a_quorum_of_two() -> None:
    actors = Actors(World.of(4), {**one_slot, "acceptance.quorum_threshold": 2})
    actors.run(actors.finalized)
    assert len(set(actors.said_by("VOTE_REVEAL"))) >= 2
    assert len(set(actors.said_by("FINALITY_VOTE"))) >= 3
    assert actors.kinds.count("DECISION_COMMITTED") == actors.kinds.count("DECISION_FINALIZED") == 1


def test_members_do_what_their_roles_allow_and_nothing_else() -> None:
    world = World(
        {
            "ada": {"proposer"},
            "ben": {"verifier"},
            "cy": {"verifier"},
            "dee": {"finalizer"},
            "eli": {"finalizer"},
            "fay": {"committer"},
        }
    )
    actors = Actors(world, {"acceptance.quorum_threshold": 2})
    actors.run(actors.finalized)
    assert set(actors.said_by("CANDIDATE_PROPOSED")) == {"ada"}
    assert set(actors.said_by("VOTE_COMMIT")) == {"ben", "cy"}
    assert set(actors.said_by("FINALITY_VOTE")) == {"dee", "eli"}
    assert "TASK_RETRY_SCHEDULED" not in actors.kinds


def test_results_are_published_after_the_last_commit_where_several_vote() -> None:
    actors = Actors(World.of(4), {**one_slot, "acceptance.quorum_threshold": 3})
    actors.run(actors.finalized)
    last_commit = max(place for place, kind in enumerate(actors.kinds) if kind == "VOTE_COMMIT")
    assert last_commit < actors.kinds.index("VERIFIER_RESULT_SUBMITTED")
    assert last_commit < actors.kinds.index("VOTE_REVEAL")


def test_one_verify_slot_goes_round_until_the_quorum_has_voted() -> None:
    actors = Actors(World.of(4), {**one_slot, "acceptance.quorum_threshold": 3})
    actors.run(actors.finalized)
    assert actors.kinds.count("TASK_CLAIM_RELEASED") >= 2


def test_evidence_quorum_asks_for_more_verifiers_than_votes() -> None:
    actors = Actors(World.of(4), {"acceptance.quorum_threshold": 1, "acceptance.da_quorum_threshold": 3, **one_slot})
    actors.run(actors.finalized)
    work = actors.story.state.work
    assert work.committed is not None
    assert len(work.attested[work.candidates[work.committed].proposed[0]]) >= 3


def test_proposer_does_not_judge_its_own_candidate_while_others_can() -> None:
    actors = Actors(World.of(3), one_slot)
    actors.run(actors.finalized)
    assert set(actors.said_by("VOTE_COMMIT")).isdisjoint(actors.said_by("CANDIDATE_PROPOSED"))


def test_as_many_candidates_as_slots_are_proposed_at_once() -> None:
    actors = Actors(
        World.of(4),
        {"assignment.explore.max_proposers": 2, "assignment.claim.max_concurrency": {"propose": 2, "verify": 4}},
    )
    actors.run(lambda: "VOTE_COMMIT" in actors.kinds)
    assert len(set(actors.said_by("CANDIDATE_PROPOSED"))) == 2


def test_silent_first_in_line_is_replaced_a_turn_later() -> None:
    for role, kind in (("proposer", "TASK_CLAIMED"), ("finalizer", "DECISION_COMMITTED")):
        world = World.of(4)
        duty = {"proposer": "propose", "finalizer": "commit the decision"}[role]
        task = World.of(4).create_task(changes=one_slot).id
        order = line(task, 1, duty, frozenset(world.node(name) for name in world.members))
        first = next(name for name in world.members if world.node(name) == order[0])
        actors = Actors(world, one_slot, silent=[first])
        assert actors.story.task == task
        actors.run(lambda kind=kind, actors=actors: kind in actors.kinds)  # type: ignore[misc]
        said = next(said for said in actors.events if said.kind == kind)
        assert said.author == order[1]
        assert said.created_at - actors.story.creation.created_at >= turn_ms
        actors.run(actors.finalized)


def test_a_silent_third_of_the_finalizers_does_not_stop_a_task() -> None:
    actors = Actors(World.of(4), {"acceptance.quorum_threshold": 2}, silent=["dee"])
    actors.run(actors.finalized)


def test_lying_verifier_is_outvoted_by_those_asked_after_it() -> None:
    liar = "ben"

    def verify(name: str, _candidate: work.Candidate) -> str:
        return "failed" if name == liar else "passed"

    actors = Actors(World.of(5), {**one_slot, "acceptance.quorum_threshold": 2}, verify=verify)
    actors.run(actors.finalized)


def test_bad_candidate_is_rejected_and_another_proposer_is_asked() -> None:
    def verify(_name: str, candidate: work.Candidate) -> str:
        return "failed" if "bad" in candidate.candidate_id else "passed"

    first: list[str] = []

    def execute(name: str, task: Execute) -> work.Candidate:
        first.append(name)
        good = echo(name, task)
        assert good is not None
        return replace(good, candidate_id="bad-" + good.candidate_id) if name == first[0] else good

    actors = Actors(World.of(4), {**one_slot, "acceptance.quorum_threshold": 2}, execute=execute, verify=verify)
    actors.run(actors.finalized)
    assert len(set(actors.said_by("CANDIDATE_PROPOSED"))) >= 2


def test_inconclusive_verifier_is_replaced_by_another() -> None:
    def verify(name: str, _candidate: work.Candidate) -> str:
        return "inconclusive" if name in {"ada", "ben"} else "passed"

    actors = Actors(World.of(5), one_slot, verify=verify)
    actors.run(actors.finalized)


def test_nobody_votes_twice_in_a_round() -> None:
    actors = Actors(World.of(5), {"acceptance.quorum_threshold": 3}, verify=lambda name, _c: _by_name(name))
    actors.run(lambda: actors.finalized() or actors.story.state.work.attempt == 3)
    rounds: list[list[str]] = [[]]
    names = {actors.world.node(name): name for name in actors.world.members}
    for said in actors.events:
        if said.kind == "VOTE_COMMIT":
            rounds[-1].append(names[said.author])
        elif said.kind == "TASK_RETRY_SCHEDULED":
            rounds.append([])
    assert all(len(set(voters)) == len(voters) for voters in rounds)


def _by_name(name: str) -> str:
    return "passed" if name in {"ada", "ben"} else "failed"


def test_line_is_the_same_for_everybody_and_another_for_each_duty_task_and_epoch() -> None:
    nodes = frozenset(keys_of(name).node_id for name in "abcdefgh")
    orders = {
        line(task, epoch, duty, nodes)
        for task in (b"\1" * 32, b"\2" * 32)
        for epoch in (1, 2)
        for duty in ("propose", "verify")
    }
    assert len(orders) == 8
    assert all(set(order) == nodes for order in orders)


def test_strangers_and_members_without_a_duty_have_only_to_wait() -> None:
    story = World({"ada": everything, "ben": {"committer"}}).task()
    for name in ("ben", "joe"):
        assert waits(told(story, name)) == "waiting for others"


def test_waiting_finalizer_says_what_it_waits_for() -> None:
    story = World.of(4).task(changes={"acceptance.da_quorum_threshold": 2})
    answer = story.propose("ada", digests=[digest_of("a")])
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer), story.reveal("ben", answer))
    story.accepts(story.decide("ada", answer))
    assert "1 of 2 confirmations" in waits(told(story, "dee"))
    story.accepts(story.claim("cy", "verify"), story.available("cy", answer))
    assert told(story, "dee") == [VoteFinality(1, hash_of(answer))]
    story.accepts(story.vote_finality("dee", answer))
    assert "1 of 3" in waits(told(story, "dee"))


def test_verifier_asks_for_its_executor_under_its_lease() -> None:
    story = World({"ada": everything, "ben": {"verifier"}}).task()
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, story.claim("ben", "verify", "verify-1"))
    (verify,) = told(story, "ben")
    assert isinstance(verify, Verify)
    assert (verify.candidate_hash, verify.execution_id, verify.attempt) == (hash_of(answer), "verify-1", 1)


def test_spent_budget_is_said_and_nothing_is_tried() -> None:
    changes: dict[str, Any] = {"budget.verify_cost_units": 2, "assignment.verify.max_verifiers": 1}
    story = World({"ada": everything, "ben": everything - {"proposer"}}).task(changes=changes)
    story.accepts(story.claim("ada"), story.propose("ada"))
    assert "verify units" in waits(told(story, "ben"))


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


def test_verifier_that_is_not_needed_any_more_waits_for_the_reveals() -> None:
    story = World.of(4).task(changes=one_slot)
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer))
    assert "1 verifiers have spoken" in waits(told(story, "cy"))


def test_verifier_claims_nothing_after_time_ms() -> None:
    story = World({"ada": everything, "ben": {"verifier"}}).task()
    story.accepts(story.claim("ada"), story.propose("ada"))
    story.world.now_ms = story.creation.created_at + 30_001
    assert "no new claims" in waits(told(story, "ben"))


def test_continuous_epoch_whose_finalizers_are_too_few_is_ended_with_its_time() -> None:
    actors = Actors(World.of(4), continuous, silent=["cy", "dee"])
    actors.run(lambda: actors.story.state.epoch == 2)
    assert "DECISION_COMMITTED" in actors.kinds
    assert "DECISION_FINALIZED" not in actors.kinds
