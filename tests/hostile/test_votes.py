"""Votes that are copied, late, or given twice: one liar among four finalizers, and three daemons that decide."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cast import hash_of, keys_of, proposal, result_hash
from tests.hostile.liars import (
    bystander,
    certify,
    decision,
    everywhere,
    forks,
    holds,
    sound,
    state_of,
    status_of,
    told,
    verdicts,
    worker,
)
from tests.hostile.rig import Rig, attacked
from tests.story import Story
from wattswarm.kernel import finality
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.payloads import judge, work
from wattswarm.kernel.payloads.fields import Payload, SignerSignature
from wattswarm.node import now_ms

honest = ("ada", "ben", "cy")
workers = ("prop-a", "prop-b", *(f"ver-{number}" for number in range(6)), "gossip", "prover", bystander)
threshold = 3


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    members = {
        **dict.fromkeys((*honest, "dee"), frozenset({"proposer", "finalizer"})),
        **dict.fromkeys(workers, worker),
    }
    with attacked(members, honest, ()) as made:
        yield made


def task(rig: Rig, label: str, quorum: int) -> Story:
    """A task of the workers', told by nobody yet."""
    changes = {"acceptance.quorum_threshold": quorum, "acceptance.da_quorum_threshold": 1}
    return Story(rig.world, rig.world.create_task("prop-a", label, changes=changes))


def payload_of(said: Event) -> Payload:
    assert said.payload is not None
    return said.payload


def progress(rig: Rig, name: str, story: Story) -> tuple[str, int, int]:
    """(state, commits, approvals) of a task."""
    found = decision(rig, name, story.task)
    return found["state"], found["progress"]["commits"], found["progress"]["approvals"]


def test_copied_commitment_opens_nothing_for_its_copier(rig: Rig) -> None:
    story = task(rig, "copied", 2)
    opening = [story.creation, story.claim("prop-a"), story.propose("prop-a")]
    candidate = opening[-1]
    sealed = story.judge("ver-0", candidate)
    execution, result = "ver-0-verify", result_hash("ver-0", candidate)
    copied = [
        story.claim("ver-1", "verify", execution),
        story.result("ver-1", candidate, execution_id=execution, verifier_result_hash=result),
        story.say("ver-1", payload_of(sealed[-1])),
    ]
    revealed = story.reveal("ver-0", candidate)
    stolen = story.say("ver-1", payload_of(revealed))
    told(rig, "ver-1", "ben", *opening, *sealed, *copied)
    assert progress(rig, "ben", story) == ("OPEN", 2, 0)
    with rig.unharmed(), rig.meet("ver-0", "ada") as here, rig.meet("ver-1", "cy") as there:
        there.tell(stolen)
        here.tell(revealed)
        everywhere(rig, holds, True, [revealed, stolen])
    for name in honest:
        found = verdicts(rig, name)
        assert found[copied[-1].id.hex()] == ("accepted", "")
        assert found[stolen.id.hex()] == ("refused", "commit_mismatch")
        assert progress(rig, name, story) == ("OPEN", 2, 1)
        assert not {view.kind for view in rig.log(name)} & {"DECISION_COMMITTED", "FINALITY_VOTE"}
    sound(rig)


def test_commits_and_reveals_count_to_the_last_millisecond_and_not_one_longer_wherever_they_are_heard_first(
    rig: Rig,
) -> None:
    rig.world.now_ms = now_ms() - 60_000
    story = task(rig, "last-moment", 4)
    opening = [story.creation, story.claim("prop-b"), story.propose("prop-b")]
    candidate = opening[-1]
    accepted, refused = [], []
    for name, late_ms, slow_ms in (("ver-2", 0, 0), ("ver-3", 1, 0), ("ver-4", 0, 1)):
        claimed = story.claim(name, "verify")
        assert isinstance(claimed.payload, work.TaskClaimed)
        result = story.result(name, candidate)
        commit_ms = claimed.payload.lease_until + clock_skew_tolerance_ms + late_ms
        commit = story.commit(name, candidate, at_ms=commit_ms)
        deadline_ms = story.pins.contract.acceptance.vote.reveal_deadline_ms
        reveal = story.reveal(name, candidate, at_ms=commit_ms + deadline_ms + clock_skew_tolerance_ms + slow_ms)
        accepted += [claimed, result, *([] if late_ms else [commit]), *([] if late_ms or slow_ms else [reveal])]
        refused += [*([commit] if late_ms else []), *([reveal] if late_ms or slow_ms else [])]
        rig.world.now_ms = claimed.created_at
    assert rig.world.now_ms < now_ms()
    with rig.meet("ver-2", "ada") as here, rig.meet("ver-3", "ben") as there:
        here.tell(*accepted[::2], *refused[::2])
        there.tell(*refused[1::2], *accepted[1::2], *opening)
        everywhere(rig, holds, True, [*accepted, *refused])
    for name in honest:
        found = verdicts(rig, name)
        assert {found[said.id.hex()][0] for said in accepted} == {"accepted"}
        assert [found[said.id.hex()][1] for said in refused] == ["lease_expired", "no_commit", "reveal_late"]
        assert progress(rig, name, story) == ("OPEN", 2, 1)
    sound(rig)


# -- a finalizer who signs twice --------------------------------------------------------------------------------------


def contested(rig: Rig, number: int) -> tuple[Story, list[Event], tuple[Event, Event]]:
    """A task with two candidates that each have the quorum, and what was said so far."""
    story = task(rig, f"contested-{number}", 1)
    rivals = []
    said = [story.creation]
    for proposer in ("prop-a", "prop-b"):
        said.append(story.claim(proposer))
        rivals.append(story.propose(proposer))
        said.append(rivals[-1])
    for voter, candidate in zip(("ver-0", "ver-1"), rivals, strict=True):
        said += [*story.judge(voter, candidate), story.reveal(voter, candidate)]
    return story, said, (rivals[0], rivals[1])


def signatures(rig: Rig, name: str, story: Story) -> dict[bytes, dict[str, bytes]]:
    """Candidate hash -> who of the honest signed it -> the signature, as a daemon's log has it."""
    names = {keys_of(each).node_id.hex(): each for each in honest}
    found: dict[bytes, dict[str, bytes]] = {}
    for view in rig.log(name):
        if view.kind == "FINALITY_VOTE" and view.task == story.task.hex() and view.author in names:
            signed = found.setdefault(bytes.fromhex(view.payload["candidate_hash"]), {})
            signed[names[view.author]] = bytes.fromhex(view.payload["signature"])
    return found


def proof_with_dee(story: Story, candidate: Event, signed: dict[str, bytes]) -> DecisionCertificate:
    """What dee makes of the honest's signatures and his own."""
    own = {"dee": finality.sign(keys_of("dee"), story.statement(candidate))}
    entries = [SignerSignature(keys_of(name).node_id, each) for name, each in {**signed, **own}.items()]
    proof = judge.FinalityProof(threshold, story.pins.membership.hash, entries)
    return DecisionCertificate(story.creation, candidate, 1, proof)


def test_finalizer_who_signs_both_of_two_candidates_gets_at_most_one_of_them_proven(rig: Rig) -> None:
    """He forks his chain to have one committed here and the other there, before the honest can talk about it."""
    rig.world.now_ms = now_ms()
    stories = [contested(rig, number) for number in range(4)]
    everything = [event for _, said, _ in stories for event in said]
    branches = []
    for side in (0, 1):
        rig.world.heads.pop(keys_of("dee").node_id, None)
        decided = [story.decide("dee", rivals[side]) for story, _, rivals in stories]
        branches.append([*decided, *(story.vote_finality("dee", rivals[side]) for story, _, rivals in stories)])
    with rig.unharmed(), rig.meet("dee", "ada") as here, rig.meet("gossip", "ben") as there:
        here.tell(*everything, *branches[0])
        there.tell(*everything, *branches[1])
        everywhere(rig, is_forked, True, "dee")
        for story, _, _ in stories:
            everywhere(rig, has_voted, True, story)
        for story, _, rivals in stories:
            prove_both(rig, story, rivals)
        for story, _, _ in stories:
            everywhere(rig, state_of, "FINALIZED", story.task)
    sound(rig)
    for story, _, _ in stories:
        assert len({decision(rig, name, story.task)["final_commit_hash"] for name in honest}) == 1
        for name in honest:
            each = [who for signed in signatures(rig, name, story).values() for who in signed]
            assert len(each) == len(set(each)) >= threshold - 1
    for name in honest:
        found = status_of(rig, name)
        (alarm,) = found["alarms"]
        assert "signed two different chains" in alarm
        assert found["forked_tasks"] == []
        assert [entry["author"] for entry in found["forks"]] == [keys_of("dee").node_id.hex()]


def prove_both(rig: Rig, story: Story, rivals: tuple[Event, Event]) -> None:
    """Say every certificate that dee can make of a task: of two at most one is any good."""
    good = 0
    for candidate in rivals:
        signed = signatures(rig, "ada", story).get(hash_of(candidate), {})
        certificate = proof_with_dee(story, candidate, signed)
        if len(certificate.proof.signatures) >= threshold:
            good += 1
            with rig.meet("gossip", "cy") as enemy:
                certify(enemy, certificate)
                assert enemy.alive()
        else:
            with rig.meet("gossip", "ada") as enemy:
                label, name = proposal(candidate).candidate_id, hash_of(candidate)
                enemy.tell(story.say("prover", judge.DecisionFinalized(label, name, certificate.proof)))
                assert enemy.alive()
    assert good == 1


def has_voted(rig: Rig, name: str, story: Story) -> bool:
    """Whether nothing more is to be said of a task by the honest alone."""
    count = sum(map(len, signatures(rig, name, story).values()))
    return count == len(honest) or decision(rig, name, story.task)["state"] == "FINALIZED"


def is_forked(rig: Rig, name: str, author: str) -> bool:
    return keys_of(author).node_id.hex() in {entry["author"] for entry in forks(rig, name)}
