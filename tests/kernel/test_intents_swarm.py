"""What several nodes do together: whose turn it is, who is replaced, and that they come to an end."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.actors import Actors, echo, told, waits
from tests.cast import digest_of, everything, hash_of, keys_of, names
from tests.world import World
from wattswarm.kernel.intents import Author, Execute, Mine, Verify, VoteFinality, Wait
from wattswarm.kernel.intents.values import late_ms_max, line, turn_ms
from wattswarm.kernel.payloads import work
from wattswarm.kernel.task.fold import status

one_slot = {"assignment.claim.max_concurrency": {"propose": 1, "verify": 1}, "assignment.explore.max_proposers": 1}
continuous = {"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW"}


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


def _claims_at(actors: Actors, name: str, seen_ms: int) -> int:
    """When a member that saw the task at ``seen_ms`` claims it, if nothing else comes: ms after that."""
    world = actors.world
    world.now_ms = seen_ms
    (wait,) = (found for found in actors.intents(name) if isinstance(found, Wait) and "come first" in found.why)
    world.now_ms = wait.until_ms
    (intent,) = actors.intents(name)
    assert isinstance(intent, Author)
    assert isinstance(intent.draft.payload, work.TaskClaimed)
    return wait.until_ms - seen_ms


def test_who_hears_of_a_task_late_waits_as_much_longer_for_those_before_it() -> None:
    actors = Actors(World.of(3), one_slot)
    task, nodes = actors.story.task, frozenset(map(actors.world.node, names[:3]))
    order = line(task, 1, "propose", nodes)
    second = next(name for name in names if actors.world.node(name) == order[1])
    began = actors.story.state.work.started_at
    for late_ms, longer_ms in ((0, 0), (700, 700), (20_000, late_ms_max)):
        actors.mine[second] = Mine(seen_ms=began + late_ms)
        assert _claims_at(actors, second, began + late_ms) == turn_ms + longer_ms


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


def test_verifier_that_is_not_needed_any_more_waits_for_the_reveals() -> None:
    story = World.of(4).task(changes=one_slot)
    answer = story.propose("ada")
    story.accepts(story.claim("ada"), answer, *story.judge("ben", answer))
    assert "1 verifiers have spoken" in waits(told(story, "cy"))


def test_continuous_epoch_whose_finalizers_are_too_few_is_ended_with_its_time() -> None:
    actors = Actors(World.of(4), continuous, silent=["cy", "dee"])
    actors.run(lambda: actors.story.state.epoch == 2)
    assert "DECISION_COMMITTED" in actors.kinds
    assert "DECISION_FINALIZED" not in actors.kinds


# -- any swarm -------------------------------------------------------------------------------------------------------


def any_world(random: Random) -> World:
    """One to seven members with any roles; every role is somebody's."""
    some = names[: random.randint(1, 7)]
    members = {name: {role for role in sorted(everything) if random.random() < 0.7} or {"verifier"} for name in some}
    for role in sorted(everything):
        members[random.choice(some)].add(role)
    return World(members)


def any_terms(random: Random) -> dict[str, Any]:
    """Quorums, slots and candidates from one to four."""
    return {
        "acceptance.quorum_threshold": random.randint(1, 3),
        "acceptance.da_quorum_threshold": random.randint(1, 3),
        "assignment.claim.max_concurrency": {"propose": random.randint(1, 3), "verify": random.randint(1, 4)},
        "assignment.explore.max_proposers": random.randint(1, 3),
        "assignment.verify.max_verifiers": random.randint(1, 4),
        "assignment.explore.topk": random.randint(1, 3),
        "budget.max_steps": random.randint(1, 5),
    }


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False))
def test_any_swarm_comes_to_an_end_and_never_tries_what_its_state_refuses(random: Random) -> None:
    world, terms = any_world(random), any_terms(random)
    terms["budget.verify_cost_units"] = random.choice([6, 20, 450])
    terms["budget.explore_cost_units"] = random.choice([2, 20, 350])
    if random.random() < 0.3:
        terms |= {**continuous, "expiry_ms": world.now_ms + 70_000}
    honest = random.random()

    def execute(name: str, task: Execute) -> work.Candidate | None:
        return None if random.random() < 0.2 else echo(name, task)

    def verify(_name: str, _candidate: work.Candidate) -> str:
        return "passed" if random.random() < honest else random.choice(["failed", "inconclusive", "crashed"])

    silent = [name for name in list(world.members)[1:] if random.random() < 0.15]
    actors = Actors(world, terms, execute=execute, verify=verify, silent=silent)
    actors.run(lambda: status(actors.story.state) != "OPEN", steps_max=20_000)


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False))
def test_any_honest_swarm_with_verifiers_enough_decides(random: Random) -> None:
    world, terms = any_world(random), any_terms(random)
    verifiers = len(world.having("verifier"))
    terms["acceptance.quorum_threshold"] = max(1, min(terms["acceptance.quorum_threshold"], verifiers - 1))
    terms["acceptance.da_quorum_threshold"] = min(terms["acceptance.da_quorum_threshold"], verifiers)
    actors = Actors(world, terms)
    actors.run(actors.finalized)
