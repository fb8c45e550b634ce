"""From what a node knows of a task to its next step: which events to author in one request, which calls to begin.

No waiting, no I/O. What follows from one another goes into one request: drafts are tried on a copy of the state, and
the intents are asked again on it, until the executor or somebody else has the next word. Keeps docs/protocol.md §7:
no finality vote under a policy hash that is nobody's, nor under a membership older than the one before the current.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from sel.authoring import request_drafts_max
from wattswarm.kernel import finality
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.intents import (
    Author,
    Execute,
    Failure,
    Judgement,
    Mine,
    Verify,
    VoteFinality,
    Wait,
    imagine,
    next_intents,
)
from wattswarm.kernel.intents.values import failures_max
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.payloads.fields import ClaimRole
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.fold import Pins, TaskState, apply, decode_state, encode_state
from wattswarm.kernel.verdict import Verdict
from wattswarm.runtime import effects

Act = Execute | Verify | VoteFinality


@dataclass(slots=True)
class View:
    """A task as this node knows it. ``candidates``: candidate hash -> the event that proposed it."""

    pins: Pins
    state: TaskState
    candidates: dict[bytes, Event] = field(default_factory=dict)

    def note(self, event: Event) -> None:
        """Remember what a candidate says: the state keeps only facts about it."""
        if isinstance(event.payload, work.CandidateProposed):
            self.candidates[candidate_hash(event.author, event.payload.candidate)] = event

    def candidate(self, name: bytes) -> work.Candidate:
        """The candidate with that hash."""
        proposed = self.candidates[name].payload
        assert isinstance(proposed, work.CandidateProposed)
        return proposed.candidate


@dataclass(slots=True)
class Memory:
    """What this node knows of its own work beyond the log. ``said``: outcomes of calls that are not authored yet.

    ``confirmed``: epoch -> the candidate that the executor's finalize stage confirmed; ``asked``: epochs in which it
    is being asked. ``policy_fault``: why nothing is verified or signed, or empty. ``moved``: (epoch, moved_at) of the
    work when it was looked at last.
    """

    mine: Mine = field(default_factory=Mine)
    said: list[Draft] = field(default_factory=list)
    confirmed: dict[int, bytes] = field(default_factory=dict)
    asked: frozenset[int] = frozenset()
    policy_fault: str = ""
    moved: tuple[int, int] | None = None

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not self.mine.busy and not self.asked

    def sees(self, state: TaskState, now_ms: int) -> None:
        """The work is looked at; when it was seen to move is remembered."""
        moved = state.work.number, state.work.moved_at
        if moved != self.moved:
            self.moved, self.mine = moved, replace(self.mine, seen_ms=now_ms)

    def begins(self, act: Act) -> None:
        """A call begins."""
        if isinstance(act, VoteFinality):
            self.asked |= {act.epoch}
        else:
            self.mine = replace(self.mine, busy=self.mine.busy | {act.execution_id})

    def ends(self, act: Act) -> None:
        """A call has ended."""
        if isinstance(act, VoteFinality):
            self.asked -= {act.epoch}
        else:
            self.mine = replace(self.mine, busy=self.mine.busy - {act.execution_id})

    def fails(self, epoch: int, role: ClaimRole | Literal["finalize"], now_ms: int) -> None:
        """The executor failed at the role's work, or to confirm a decision."""
        before = self.mine.failures.get((epoch, role), Failure(0, 0))
        failures = {**self.mine.failures, (epoch, role): Failure(before.count + 1, now_ms)}
        self.mine = replace(self.mine, failures=failures)

    def judges(self, act: Verify, judgement: Judgement) -> None:
        """The executor has judged a candidate."""
        name = (act.epoch, act.attempt, act.candidate_hash)
        self.mine = replace(self.mine, judgements={**self.mine.judgements, name: judgement})

    def withholds(self, epoch: int, why: str) -> None:
        """No finality vote is cast in the epoch."""
        self.mine = replace(self.mine, withheld={**self.mine.withheld, epoch: why})


@dataclass(frozen=True, slots=True)
class Plan:
    """``drafts`` to author in one request; else ``acts`` to begin; else a sleep until the first of ``waits`` ends.

    ``over``: nothing more is to be done, whatever comes.
    """

    drafts: Sequence[Draft]
    acts: Sequence[Act] = ()
    waits: Sequence[Wait] = ()
    over: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """Who plans. ``newest``: number of the current membership version; ``stages``: those the executor advertises;
    ``once``: one attempt, which is over where only waiting or another round would go on; ``unable``: why no executor
    can be asked now, or empty."""

    keys: Keypair
    newest: int
    stages: frozenset[str]
    once: bool
    unable: str = ""


def plan(view: View, memory: Memory, terms: Terms, now_ms: int) -> Plan:
    """The next step. An outcome in ``memory`` that the task does not take any more is put right there."""
    me = terms.keys.node_id
    memory.sees(view.state, now_ms)
    trial = _Trial(view, me, now_ms)
    memory.said = [_tried(trial, draft, memory, now_ms) for draft in memory.said]
    while len(trial.drafts) < request_drafts_max:
        mine = _known(view, memory, terms, trial.state.work.number, now_ms)
        intents = next_intents(trial.state, view.pins, me, now_ms, mine)
        match [intent for intent in intents if not isinstance(intent, Wait)]:
            case []:
                waits = [intent for intent in intents if isinstance(intent, Wait)]
                return Plan(trial.drafts, waits=waits, over=not waits or (terms.once and memory.idle))
            case [Execute() | Verify() as act]:
                return Plan(trial.drafts, [act])
            case [VoteFinality() as vote]:
                if "finalize" in terms.stages and memory.confirmed.get(vote.epoch) != vote.candidate_hash:
                    return Plan(trial.drafts, [vote])
                drafts = [_signed(view.pins, terms.keys, vote)]
            case said:
                drafts = [intent.draft for intent in said if isinstance(intent, Author)]
        if isinstance(drafts[-1].payload, judge.DecisionFinalized):
            return Plan([*trial.drafts, *drafts])  # what it does is in its certificate, which a trial lacks
        if terms.once and isinstance(drafts[-1].payload, course.TaskRetryScheduled):
            return Plan(trial.drafts, waits=[Wait(now_ms, "the round found no quorum")], over=True)
        for draft in drafts[: request_drafts_max - len(trial.drafts)]:
            verdict = trial.say(draft)
            assert verdict.status == "accepted", f"what is intended holds: {draft.payload}: {verdict}"
    return Plan(trial.drafts)


class _Trial:
    """Drafts, tried one after the other on a copy of the state."""

    def __init__(self, view: View, me: bytes, now_ms: int) -> None:
        self.state = view.state
        self.drafts: list[Draft] = []
        self._view, self._me, self._now = view, me, now_ms

    def say(self, draft: Draft) -> Verdict:
        """Try a draft; keep it if the fold accepts it."""
        if self.state is self._view.state:
            self.state = decode_state(encode_state(self.state))
        verdict = apply(self.state, self._view.pins, imagine(self._view.pins, self._me, self._now, draft))
        if verdict.status == "accepted":
            self.drafts.append(draft)
        return verdict


def _tried(trial: _Trial, draft: Draft, memory: Memory, now_ms: int) -> Draft:
    """An outcome of the executor's; a candidate that the task does not take any more becomes an error."""
    verdict = trial.say(draft)
    if verdict.status == "accepted" or not isinstance(draft.payload, work.CandidateProposed):
        return draft
    memory.fails(draft.epoch, "propose", now_ms)
    why = f"the candidate is not accepted: {verdict.message}"
    error = effects.task_error(draft.payload.candidate.execution_id, "OTHER", Reason.UNKNOWN, why)
    instead = Draft(error, draft.task, draft.epoch)
    trial.say(instead)
    return instead


def _known(view: View, memory: Memory, terms: Terms, epoch: int, now_ms: int) -> Mine:
    """What this node remembers, and what it may not do now."""
    mine = replace(memory.mine, unable=terms.unable)
    reasons = {
        "the executor is asked about it": epoch in memory.asked,
        "the task pins a membership version older than the one before the current": terms.newest
        > view.pins.membership.number + 1,
        memory.policy_fault: bool(memory.policy_fault),
        terms.unable: bool(terms.unable) and "finalize" in terms.stages and epoch not in memory.confirmed,
    }
    why = next((why for why, holds in reasons.items() if holds), None)
    if why is not None:
        mine = replace(mine, withheld={**mine.withheld, epoch: why})
    if memory.policy_fault:
        mine = replace(mine, failures={**mine.failures, (epoch, "verify"): Failure(failures_max, now_ms)})
    return mine


def _signed(pins: Pins, keys: Keypair, vote: VoteFinality) -> Draft:
    name = vote.candidate_hash
    statement = finality.statement(pins.network_id, pins.membership.hash, pins.task, vote.epoch, name)
    return Draft(judge.FinalityVote(name, finality.sign(keys, statement)), pins.task, vote.epoch)
