"""Nodes that do what ``next_intents`` says, over one log that all of them see at once.

Each actor has an executor (two functions) and a memory; the world's clock stands still while anybody has something
to do, and then jumps to the next time that somebody waits for. No events are lost or late here: what the intents
must get right under that is tested over real nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec.structs import replace

from tests.cast import artifact, digest_of, keys_of, salt_of
from tests.story import Story
from tests.world import World
from wattswarm.kernel import finality, hlc
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.intents import (
    Author,
    Execute,
    Failure,
    Intent,
    Judgement,
    Mine,
    Verify,
    VoteFinality,
    Wait,
    next_intents,
)
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.fold import Decision, decision_of, fold, status

Executor = Callable[[str, Execute], work.Candidate | None]
Verifier = Callable[[str, work.Candidate], str]


def echo(name: str, task: Execute) -> work.Candidate:
    """An executor that answers at once, with one artifact."""
    output = {"answer": f"{name} says hello", "confidence": 0.93, "check_summary": "echoed"}
    return work.Candidate(task.candidate_id, task.execution_id, output, [], [artifact(digest_of(task.candidate_id))])


def agree(_name: str, _candidate: work.Candidate) -> str:
    """A verifier that passes everything."""
    return "passed"


class Actors:
    """Everybody in a world who acts on one task. ``silent``: members that never do anything."""

    def __init__(
        self,
        world: World,
        changes: Mapping[str, Any] | None = None,
        *,
        execute: Executor = echo,
        verify: Verifier = agree,
        silent: Collection[str] = (),
    ) -> None:
        self.world = world
        self.story = Story(world, world.create_task(changes=changes))
        self.execute, self.verify = execute, verify
        self.acting = [name for name in world.members if name not in silent]
        self.mine = {name: Mine() for name in self.acting}
        self.events: list[Event] = [self.story.creation]
        self.decisions: list[Decision] = []

    @property
    def kinds(self) -> list[str]:
        """What was said, in order."""
        return [said.kind for said in self.events]

    def said_by(self, kind: str) -> list[str]:
        """Who said events of a kind, in order."""
        names = {self.world.node(name): name for name in self.world.members}
        return [names[said.author] for said in self.events if said.kind == kind]

    def run(self, until: Callable[[], bool], steps_max: int = 500) -> None:
        """Act until something holds; fails if nothing moves any more, or it takes too many steps."""
        for _ in range(steps_max):
            if until():
                return
            moved = [self.act(name) for name in self.acting]
            if not any(moved):
                self._sleep()
        raise AssertionError(f"not after {steps_max} steps: {self.kinds[-20:]}")

    def intents(self, name: str) -> list[Intent]:
        """What a member should do now."""
        return next_intents(
            self.story.state, self.story.pins, self.world.node(name), self.world.now_ms, self.mine[name]
        )

    def act(self, name: str) -> bool:
        """Have a member do what it should; whether there was anything but waiting."""
        found = [intent for intent in self.intents(name) if not isinstance(intent, Wait)]
        for intent in found:
            match intent:
                case Author(draft):
                    self._author(name, draft.payload, draft.epoch)
                case Execute():
                    self._execute(name, intent)
                case Verify():
                    self._verify(name, intent)
                case VoteFinality():
                    self._vote(name, intent)
        return bool(found)

    def _sleep(self) -> None:
        waits = [intent for name in self.acting for intent in self.intents(name) if isinstance(intent, Wait)]
        soonest = min(waits, key=lambda wait: wait.until_ms)
        assert soonest.until_ms > self.world.now_ms, f"a wait that is over: {soonest}"
        self.world.now_ms = soonest.until_ms

    def _author(self, name: str, payload: Payload, epoch: int, *, may_fail: bool = False) -> bool:
        clock = hlc.after(max(held.hlc for held in self.events), self.world.now_ms)
        said = self.world.author(name, payload, task=self.story.task, epoch=epoch, at_ms=self.world.now_ms, clock=clock)
        self.events.append(said)
        if isinstance(payload, judge.DecisionFinalized):
            self._certify(said, payload)
        verdict = self.story.tell(said)
        assert may_fail or verdict.status == "accepted", f"{name} authored {said.kind}: {verdict}"
        return verdict.status == "accepted"

    def _certify(self, said: Event, payload: judge.DecisionFinalized) -> None:
        proposed = next(event for event in self.events if _hash(event) == payload.winning_candidate_hash)
        certificate = DecisionCertificate(self.story.creation, proposed, said.epoch, payload.finality_proof)
        self.decisions.append(decision_of(certificate))
        events = sorted(self.events[:-1], key=lambda event: event.sort_key)
        self.story.state, _ = fold(self.story.pins, self.decisions, events)

    def _execute(self, name: str, task: Execute) -> None:
        candidate = self.execute(name, task)
        if candidate is not None and self._author(name, work.CandidateProposed(candidate), task.epoch, may_fail=True):
            return
        self._failed(name, task.epoch, "propose")
        self._author(name, course.TaskError(task.execution_id, "OTHER", [303], "it crashed"), task.epoch)

    def _verify(self, name: str, task: Verify) -> None:
        proposed = next(event for event in self.events if _hash(event) == task.candidate_hash)
        assert isinstance(proposed.payload, work.CandidateProposed)
        candidate = proposed.payload.candidate
        status_ = self.verify(name, candidate)
        if status_ == "crashed":
            self._failed(name, task.epoch, "verify")
            self._author(name, course.TaskError(task.execution_id, "OTHER", [303], "it crashed"), task.epoch)
            return
        passed = status_ == "passed"
        policy = self.story.pins.contract.acceptance.verifier_policy
        result = judge.VerifierResult(
            candidate.candidate_id,
            task.execution_id,
            status_,  # type: ignore[arg-type]
            passed,
            1.0 if passed else 0.0,
            {"passed": [100], "failed": [101], "inconclusive": [200]}[status_],
            sha256(f"{name} {task.attempt}".encode() + task.candidate_hash).hex(),
            "echo",
            "echo-1",
            policy.policy_id,
            policy.policy_version,
            policy.policy_hash,
        )
        digests = () if status_ == "inconclusive" else tuple(ref.digest for ref in candidate.evidence_refs)
        key = (task.epoch, task.attempt, task.candidate_hash)
        mine = self.mine[name]
        judgements = {**mine.judgements, key: Judgement(result, digests, salt_of(name))}
        self.mine[name] = replace(mine, judgements=judgements)

    def _failed(self, name: str, epoch: int, role: str) -> None:
        mine = self.mine[name]
        count = mine.failures[epoch, role].count if (epoch, role) in mine.failures else 0
        failures = {**mine.failures, (epoch, role): Failure(count + 1, self.world.now_ms)}
        self.mine[name] = replace(mine, failures=failures)

    def _vote(self, name: str, vote: VoteFinality) -> None:
        pins = self.story.pins
        said = finality.statement(pins.network_id, pins.membership.hash, pins.task, vote.epoch, vote.candidate_hash)
        self._author(name, judge.FinalityVote(vote.candidate_hash, finality.sign(keys_of(name), said)), vote.epoch)

    def finalized(self) -> bool:
        """Whether the task is decided and final."""
        return status(self.story.state) == "FINALIZED"


def _hash(said: Event) -> bytes | None:
    if not isinstance(said.payload, work.CandidateProposed):
        return None
    return candidate_hash(said.author, said.payload.candidate)


def told(story: Story, name: str, mine: Mine | None = None) -> list[Intent]:
    """What a member of a story should do now."""
    return next_intents(story.state, story.pins, story.world.node(name), story.world.now_ms, mine)


def waits(intents: list[Intent]) -> str:
    """The reasons given for waiting; fails if there is anything to do."""
    assert all(isinstance(intent, Wait) for intent in intents), intents
    return "; ".join(intent.why for intent in intents if isinstance(intent, Wait))
