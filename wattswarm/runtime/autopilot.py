"""One task, driven by this node: what ``next_intents`` says is done, until there is nothing left to do.

The executor works beside the deciding, so a lease is renewed while its work goes on. What follows from one another
is authored in one request: the driver tries its own drafts on a copy of the state and asks on, until the executor
or somebody else has the next word. Nothing is polled: it sleeps until the time that the intents name, or until it
``heard`` of something. Knows no HTTP and no database. Keeps docs/protocol.md §7: the policy's hash is checked before
anything is verified or signed, and no finality vote is cast after expiry by the own clock, nor under a membership
older than the one before the current.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from sel.authoring import request_drafts_max
from sel.log import Log
from wattswarm.kernel import finality
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.contract import TaskContract
from wattswarm.kernel.event import Draft, Event
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
from wattswarm.kernel.policy import policy_hash_matches
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.fold import Pins, TaskState, apply, decode_state, encode_state, new_state, open_task
from wattswarm.kernel.task.turn import tenures
from wattswarm.kernel.verdict import Verdict
from wattswarm.runtime import effects
from wattswarm.runtime.contract import ExecuteRequest
from wattswarm.runtime.effects import Executor

salt_context = b"wattswarm/vote-salt/v1\0"
Act = Execute | Verify | VoteFinality


@dataclass(frozen=True, slots=True)
class Hands:
    """Who works for this node, and how it is asked. ``stages``: those that the executor advertises.

    ``named``: the executor's (provider_family, model_id), for results that it could not give itself.
    """

    executor: Executor
    profile: str
    named: tuple[str, str]
    stages: frozenset[str] = frozenset()


async def check_policy(log: Log, contract: TaskContract) -> None:
    """Whether the contract binds its policy under a hash that is the policy's own, or admitted. Raises ``Refused``."""
    binding = contract.acceptance.verifier_policy
    if policy_hash_matches(binding):
        return
    if not policy_hash_matches(binding, await log.admitted_policy_hashes(binding.policy_id)):
        raise Refused(
            "policy_hash",
            "the contract binds a policy under a hash that is not its own",
            (Problem("acceptance.verifier_policy.policy_hash", binding.policy_hash, "the hash of `policy list`"),),
        )


@dataclass(slots=True)
class _View:
    """The task as this node knows it. ``candidates``: candidate hash -> the event that proposed it."""

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


class _Trial:
    """Drafts, tried one after the other on a copy of the state."""

    def __init__(self, view: _View, me: bytes, now_ms: int) -> None:
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


@dataclass(frozen=True, slots=True)
class _Plan:
    """``drafts`` to author in one request; else ``acts`` to begin; else a sleep until the first of ``waits`` ends."""

    drafts: Sequence[Draft]
    acts: Sequence[Act] = ()
    waits: Sequence[Wait] = ()
    over: bool = False


class Driver:
    """One task's way on this node. ``once``: one attempt; it ends where only waiting or another round goes on."""

    def __init__(self, log: Log, hands: Hands, task: bytes, *, once: bool = False) -> None:
        self.log = log
        self.hands = hands
        self.task = task
        self.once = once
        self.waits_for: list[str] = []
        self._mine = Mine()
        self._view: _View | None = None
        self._said: list[Draft] = []
        self._confirmed: dict[int, bytes] = {}
        self._asked: frozenset[int] = frozenset()
        self._stale = self._policy_unknown = True
        self._policy_fault = ""
        self._refused = self._over = False
        self._wake = trio.Event()

    # -- from looking to doing --------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Do what is to be done until the task needs this node no more.

        Raises ``Refused`` if the node may not author, ``StoreUnavailable`` if the log is gone.
        """
        async with trio.open_nursery() as nursery:
            while not self._over:
                self._wake = trio.Event()
                view = await self._look()
                plan = self._plan(view)
                if plan.drafts:
                    await self._author(view, plan.drafts)
                elif plan.acts:
                    for act in plan.acts:
                        self._begin(nursery, view, act)
                else:
                    self._over = plan.over
                    await self._rest(plan)
            nursery.cancel_scope.cancel()

    def heard(self) -> None:
        """Something about the task arrived: look again."""
        self._stale = True
        self._wake.set()

    def began(self, events: Sequence[Event]) -> None:
        """The task is this node's own: ``events``, its creation first, are all there is of it."""
        pins = open_task(events[0], self.log.network)
        self._view = _View(pins, new_state(pins, ()))
        self._stale = False
        self._take(self._view, events)

    async def _look(self) -> _View:
        if self._view is None or self._stale:
            self._stale, self._policy_unknown = False, True
            record = await self.log.task(self.task)
            state, pins = record.folded.state, record.folded.pins
            assert isinstance(state, TaskState)
            assert pins is not None
            self._view = _View(pins, state)
            for event in record.events:
                self._view.note(event)
        if self._policy_unknown:
            self._policy_unknown, self._policy_fault = False, ""
            try:
                await check_policy(self.log, self._view.pins.contract)
            except Refused as refusal:
                self._policy_fault = refusal.message
        return self._view

    async def _author(self, view: _View, drafts: Sequence[Draft]) -> None:
        """Author what was tried. A refusal means that the log knows more: look, and think again - once."""
        said = len(self._said)
        try:
            events = await self.log.author(*drafts)
        except Refused:
            if self._refused:
                raise
            self._refused = self._stale = True
            return
        self._refused = False
        del self._said[:said]
        self._take(view, events)

    def _take(self, view: _View, events: Sequence[Event]) -> None:
        """Own events, on top of the state. What a proof makes of it, the log knows."""
        for event in events:
            view.note(event)
            if isinstance(event.payload, judge.DecisionFinalized):
                self._stale = True
                self._over = self.once or not view.pins.continuous
            elif apply(view.state, view.pins, event).status != "accepted":
                self._stale = True

    async def _rest(self, plan: _Plan) -> None:
        self.waits_for = [wait.why for wait in plan.waits]
        if self._over:
            return
        seconds = max(0, min(wait.until_ms for wait in plan.waits) - self.log.clock()) / 1000
        with trio.move_on_after(seconds):
            await self._wake.wait()

    # -- thinking ---------------------------------------------------------------------------------------------------

    def _plan(self, view: _View) -> _Plan:
        now, me = self.log.clock(), self.log.keys.node_id
        trial = _Trial(view, me, now)
        self._said = [self._tried(trial, draft) for draft in self._said]
        while len(trial.drafts) < request_drafts_max:
            intents = next_intents(trial.state, view.pins, me, now, self._knows(trial.state, view, now))
            waits = [intent for intent in intents if isinstance(intent, Wait)]
            match [intent for intent in intents if not isinstance(intent, Wait)]:
                case []:
                    return _Plan(trial.drafts, waits=waits, over=not waits or self._gives_up())
                case [Execute() | Verify() as act]:
                    return _Plan(trial.drafts, [act])
                case [VoteFinality() as vote]:
                    if "finalize" in self.hands.stages and self._confirmed.get(vote.epoch) != vote.candidate_hash:
                        return _Plan(trial.drafts, [vote])
                    drafts = [self._signed(view, vote)]
                case said:
                    drafts = [intent.draft for intent in said if isinstance(intent, Author)]
            if isinstance(drafts[-1].payload, judge.DecisionFinalized):
                return _Plan([*trial.drafts, *drafts])  # what it does is in its certificate, which a trial lacks
            if self.once and isinstance(drafts[-1].payload, course.TaskRetryScheduled):
                return _Plan(trial.drafts, waits=[Wait(now, "the round found no quorum")], over=True)
            for draft in drafts[: request_drafts_max - len(trial.drafts)]:
                verdict = trial.say(draft)
                assert verdict.status == "accepted", f"what is intended holds: {draft.payload}: {verdict}"
        return _Plan(trial.drafts)

    def _gives_up(self) -> bool:
        return self.once and not self._mine.busy and not self._asked

    def _knows(self, state: TaskState, view: _View, now: int) -> Mine:
        """What this node remembers, and what it may not do now."""
        mine, epoch = self._mine, state.work.number
        behind = self.log.network.current.number - view.pins.membership.number
        withheld = {
            "the executor is asked about it": epoch in self._asked,
            "the task pins a membership version older than the one before the current": behind > 1,
            self._policy_fault: bool(self._policy_fault),
        }
        why = next((why for why, holds in withheld.items() if holds), None)
        if why is not None:
            mine = replace(mine, withheld={**mine.withheld, epoch: why})
        if self._policy_fault:
            mine = replace(mine, failures={**mine.failures, (epoch, "verify"): Failure(failures_max, now)})
        return mine

    def _tried(self, trial: _Trial, draft: Draft) -> Draft:
        """An outcome of the executor's; a candidate that the task does not take any more becomes an error."""
        verdict = trial.say(draft)
        if verdict.status == "accepted" or not isinstance(draft.payload, work.CandidateProposed):
            return draft
        self._fail(draft.epoch, "propose")
        error = effects.task_error(
            draft.payload.candidate.execution_id,
            "OTHER",
            Reason.UNKNOWN,
            f"the candidate is not accepted: {verdict.message}",
        )
        instead = Draft(error, self.task, draft.epoch)
        trial.say(instead)
        return instead

    def _signed(self, view: _View, vote: VoteFinality) -> Draft:
        pins, name = view.pins, vote.candidate_hash
        statement = finality.statement(pins.network_id, pins.membership.hash, self.task, vote.epoch, name)
        payload = judge.FinalityVote(name, finality.sign(self.log.keys, statement))
        return Draft(payload, self.task, vote.epoch)

    # -- the executor -----------------------------------------------------------------------------------------------

    def _begin(self, nursery: trio.Nursery, view: _View, act: Act) -> None:
        match act:
            case Execute():
                self._mine = replace(self._mine, busy=self._mine.busy | {act.execution_id})
                nursery.start_soon(self._execute, view, act)
            case Verify():
                self._mine = replace(self._mine, busy=self._mine.busy | {act.execution_id})
                nursery.start_soon(self._verify, view, act)
            case VoteFinality():
                self._asked |= {act.epoch}
                nursery.start_soon(self._confirm, view, act)

    async def _execute(self, view: _View, act: Execute) -> None:
        request = self._request(view, act.execution_id, act.attempt)
        deadline_ms = self._deadline_ms(view, "propose", act.lease_until)
        found = await effects.propose(self.hands.executor, request, view.pins.contract, act.candidate_id, deadline_ms)
        if isinstance(found, course.TaskError):
            self._fail(act.epoch, "propose")
        said = found if isinstance(found, course.TaskError) else work.CandidateProposed(found)
        self._said.append(Draft(said, self.task, act.epoch))
        self._returned(act.execution_id)

    async def _verify(self, view: _View, act: Verify) -> None:
        contract, candidate = view.pins.contract, view.candidate(act.candidate_hash)
        proposed = view.candidates[act.candidate_hash]
        judged = await effects.judge(
            self.hands.executor,
            effects.verify_request(contract, candidate, proposed.created_at, proposed.author.hex()),
            contract,
            candidate,
            act.execution_id,
            self.hands.named,
            self._deadline_ms(view, "verify", act.lease_until),
        )
        if isinstance(judged, course.TaskError):
            self._fail(act.epoch, "verify")
            self._said.append(Draft(judged, self.task, act.epoch))
        else:
            name = (act.epoch, act.attempt, act.candidate_hash)
            digests = dict.fromkeys(ref.digest for ref in candidate.evidence_refs) if judged.attest else {}
            judgement = Judgement(judged.result, tuple(digests), self._salt(*name))
            self._mine = replace(self._mine, judgements={**self._mine.judgements, name: judgement})
        self._returned(act.execution_id)

    async def _confirm(self, view: _View, vote: VoteFinality) -> None:
        """The executor's finalize stage has a say before this node's signature."""
        request = self._request(view, f"finalize-{vote.epoch}", 1, view.candidate(vote.candidate_hash))
        candidate = view.candidate(vote.candidate_hash)
        why = await effects.confirm(self.hands.executor, request, candidate, view.pins.contract.budget.time_ms)
        if why:
            self._mine = replace(self._mine, withheld={**self._mine.withheld, vote.epoch: why})
        else:
            self._confirmed[vote.epoch] = vote.candidate_hash
        self._asked -= {vote.epoch}
        self._wake.set()

    def _request(
        self, view: _View, execution_id: str, attempt: int, committed: work.Candidate | None = None
    ) -> ExecuteRequest:
        contract, creation = view.pins.contract, view.pins.creation.payload
        assert isinstance(creation, work.TaskCreated)
        more = {} if committed is None else {"committed_candidate": effects.candidate_json(committed)}
        return ExecuteRequest(
            contract.task_id,
            execution_id,
            contract.task_type,
            {**contract.inputs, **more},
            self.hands.profile,
            creation.contract,
            "explore" if committed is None else "finalize",
            f"{execution_id}-{attempt}",
        )

    def _deadline_ms(self, view: _View, role: ClaimRole, lease_until: int) -> int:
        """How long a call may take: as long as its lease may be renewed, and its outcome said in time."""
        pins, epoch = view.pins, view.state.work
        tenure = tenures(epoch, role)[self.log.keys.node_id]
        end = min(lease_until + max(0, pins.lease_total_ms - tenure.held_ms), pins.contract.expiry_ms)
        if role == "propose":
            end = min(end, epoch.started_at + pins.contract.budget.time_ms)
        return max(1, end - self.log.clock())

    def _returned(self, execution_id: str) -> None:
        self._mine = replace(self._mine, busy=self._mine.busy - {execution_id})
        self._wake.set()

    def _fail(self, epoch: int, role: ClaimRole) -> None:
        before = self._mine.failures.get((epoch, role), Failure(0, 0))
        failure = Failure(before.count + 1, self.log.clock())
        self._mine = replace(self._mine, failures={**self._mine.failures, (epoch, role): failure})

    def _salt(self, epoch: int, attempt: int, name: bytes) -> str:
        """For one vote: nobody else can work it out, and this node can again after a restart."""
        what = f"|{epoch}|{attempt}|".encode()
        return sha256(self.log.keys.sign(salt_context + self.task + what + name)).hex()
