"""One task, driven by this node: what the plan says is done, until there is nothing left to do.

The executor works beside the deciding, so a lease is renewed while its work goes on. Nothing is polled: the driver
rests until the time that the plan names, or until it ``heard`` of something. What it forgets with its process it finds
again on the log. Knows no HTTP and no database. Keeps docs/protocol.md §8: the policy's hash is checked before
anything is created, verified or signed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass

import trio

from sel.authoring import fenced
from sel.lifetimes import single_error
from sel.log import Log
from wattswarm.kernel.contract import TaskContract
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.intents import Execute, Judgement, Verify, VoteFinality
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.payloads.fields import ClaimRole
from wattswarm.kernel.policy import policy_hash_matches
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.kernel.task.fold import TaskState, apply, new_state, open_task
from wattswarm.kernel.task.turn import tenures
from wattswarm.runtime import effects
from wattswarm.runtime.contract import ExecuteRequest
from wattswarm.runtime.effects import Executor
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.planning import Act, Memory, Plan, Terms, View, plan
from wattswarm.runtime.sealed import sealed_vote, vote_salt

_log = logging.getLogger(__name__)
nobody = "no executor is at hand"
unnamed = ("none", "none")


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


class Driver:
    """One task's way on this node. ``once``: one attempt, over where only waiting or another round would go on.

    ``hands``, ``unable``: who can be asked, and why not now (empty: it can); to be set between turns only, by those
    who take turns. Without hands everything is done that needs none. ``waits_for``: why it did nothing when it last
    had nothing to do.
    """

    def __init__(self, log: Log, hands: Hands | None, task: bytes, *, once: bool = False) -> None:
        self.log = log
        self.hands = hands
        self.unable = "" if hands is not None else nobody
        self.task = task
        self.once = once
        self.waits_for: list[str] = []
        self._memory = Memory()
        self._view: View | None = None
        self._stale = self._policy_unknown = True
        self._held = 0  # how much the log held of the task when it was looked at
        self._refused_at: int | None = None
        self._over = False
        self._own: set[bytes] = set()
        self._meanwhile: set[bytes] | None = None  # what was heard of while something is being authored
        self._wake = trio.Event()

    async def drive(self) -> None:
        """Do what is to be done until the task needs this node no more.

        Raises ``Refused`` if the node may not author, ``StoreUnavailable`` if the log is gone.
        """
        while (due_ms := await self.turn()) is not None:
            with trio.move_on_after(max(0, due_ms - self.log.clock()) / 1000):
                await self.stirred()

    async def turn(self) -> int | None:
        """Do what is to be done now, calls of the executor and what follows from them included.

        Gives when there will be more to do (unix ms) if nothing is ``heard`` before; None: nothing, ever. Raises as
        ``drive``.
        """
        due_ms: int | None = None
        with single_error():
            async with trio.open_nursery() as nursery:
                while due_ms is None and not self._over:
                    due_ms = await self._step(nursery)
                nursery.cancel_scope.cancel()
        return due_ms

    def heard(self, events: Set[bytes] = frozenset()) -> None:
        """Something about the task arrived: look again. ``events``: the ids, if that is all; own ones are known."""
        if events and self._meanwhile is not None:
            self._meanwhile |= events  # perhaps what is being authored: it can be known in a moment
            return
        if events and events <= self._own:
            self._own -= events
            return
        self._stale = True
        self._wake.set()

    def stir(self) -> None:
        """Something else than the task has changed: think again."""
        self._wake.set()

    async def stirred(self) -> None:
        """Wait until something was heard since the last turn ended, or while it did."""
        await self._wake.wait()

    @property
    def pending(self) -> bool:
        """Whether there is something to look at."""
        return self._wake.is_set()

    def forget_view(self) -> None:
        """Give up what can be read again. Between turns."""
        self._view = None

    def began(self, events: Sequence[Event]) -> None:
        """The task is this node's own: ``events``, its creation first, are all there is of it."""
        pins = open_task(events[0], self.log.network)
        self._view = View(pins, new_state(pins, ()))
        self._stale = False
        self._take(self._view, events)

    async def _step(self, nursery: trio.Nursery) -> int | None:
        """One step; the time of the next one if it is to be waited for and no call is under way."""
        self._wake = trio.Event()
        view = await self._look()
        stages = self.hands.stages if self.hands is not None else frozenset[str]()
        terms = Terms(self.log.keys, self.log.network.current.number, stages, self.once, self.unable)
        step = plan(view, self._memory, terms, self.log.clock())
        if step.drafts:
            await self._author(view, step.drafts)
        elif step.acts:
            for act in step.acts:
                self._memory.begins(act)
                nursery.start_soon(self._call, view, act)
        else:
            return await self._rest(step)
        return None

    # -- the log ----------------------------------------------------------------------------------------------------

    async def _look(self) -> View:
        if self._view is None or self._stale:
            self._stale, self._policy_unknown = False, True
            record = await self.log.task(self.task)
            state, pins = record.folded.state, record.folded.pins
            assert isinstance(state, TaskState)
            assert pins is not None
            self._view = View(pins, state)
            self._held = len(record.events) + len(record.certificates)
            for event in record.events:
                self._view.note(event)
            self._remember(self._view, record.events)
        if self._policy_unknown:
            self._policy_unknown, self._memory.policy_fault = False, ""
            try:
                await check_policy(self.log, self._view.pins.contract)
            except Refused as refusal:
                self._memory.policy_fault = refusal.message
        return self._view

    def _remember(self, view: View, events: Sequence[Event]) -> None:
        """A vote that was sealed before this process began, so that it can be opened."""
        named = self.hands.named if self.hands is not None else unnamed
        found = sealed_vote(view, events, self.log.keys, named)
        if found is not None and (found[0].epoch, found[0].attempt, found[0].candidate_hash) not in (
            self._memory.mine.judgements
        ):
            self._memory.judges(*found)

    async def _author(self, view: View, drafts: Sequence[Draft]) -> None:
        """Author what was tried. A refusal means that the log knows more: look, and think again, as long as it does."""
        outcomes = len(self._memory.said)
        self._meanwhile = set()
        try:
            events = await self.log.author(*drafts)
            self._own.update(event.id for event in events)
        except Refused as refusal:
            if refusal.reason == fenced:
                self._memory.withholds(view.state.work.number, refusal.message)
                return
            if self._refused_at == self._held:
                raise
            self._refused_at, self._stale = self._held, True
            return
        finally:
            heard, self._meanwhile = self._meanwhile, None
            if heard:
                self.heard(heard)
        self._refused_at = None
        del self._memory.said[:outcomes]
        self._take(view, events)

    def _take(self, view: View, events: Sequence[Event]) -> None:
        """Own events, on top of the state. What a proof makes of it, the log knows."""
        for event in events:
            view.note(event)
            if isinstance(event.payload, judge.DecisionFinalized):
                self._stale = True
                self._over = self.once or not view.pins.continuous
            elif apply(view.state, view.pins, event).status != "accepted":
                self._stale = True

    async def _rest(self, step: Plan) -> int | None:
        """Wait for calls that are under way; if there are none, the waiting is for others to do."""
        self.waits_for = [wait.why for wait in step.waits]
        self._over = step.over
        if step.over:
            return None
        until_ms = min(wait.until_ms for wait in step.waits)
        if self._memory.idle:
            return None if self.pending else until_ms
        with trio.move_on_after(max(0, until_ms - self.log.clock()) / 1000):
            await self.stirred()
        return None

    # -- the executor -----------------------------------------------------------------------------------------------

    async def _call(self, view: View, act: Act) -> None:
        hands = self.hands
        assert hands is not None, "without hands no call is planned"
        _log.debug("the executor is asked to %s", type(act).__name__.lower(), extra=_about(view))
        try:
            match act:
                case Execute():
                    await self._execute(view, hands, act)
                case Verify():
                    await self._verify(view, hands, act)
                case VoteFinality():
                    await self._confirm(view, hands, act)
        finally:
            self._memory.ends(act)
        self._wake.set()

    async def _execute(self, view: View, hands: Hands, act: Execute) -> None:
        request = self._request(view, hands.profile, act.execution_id, act.attempt)
        deadline_ms = self._deadline_ms(view, "propose", act.lease_until)
        contract = view.pins.contract
        found = await effects.propose(hands.executor, request, contract, act.candidate_id, deadline_ms)
        if isinstance(found, course.TaskError):
            self._fails(view, act, "propose", found)
        else:
            self._memory.said.append(Draft(work.CandidateProposed(found), self.task, act.epoch))

    async def _verify(self, view: View, hands: Hands, act: Verify) -> None:
        contract, candidate = view.pins.contract, view.candidate(act.candidate_hash)
        proposed = view.candidates[act.candidate_hash]
        judged = await effects.judge(
            hands.executor,
            effects.verify_request(contract, candidate, proposed.created_at, proposed.author.hex()),
            contract,
            candidate,
            act.execution_id,
            hands.named,
            self._deadline_ms(view, "verify", act.lease_until),
        )
        if isinstance(judged, course.TaskError):
            self._fails(view, act, "verify", judged)
            return
        digests = dict.fromkeys(ref.digest for ref in candidate.evidence_refs) if judged.attest else {}
        salt = vote_salt(self.log.keys, self.task, act)
        self._memory.judges(act, Judgement(judged.result, tuple(digests), salt))

    async def _confirm(self, view: View, hands: Hands, vote: VoteFinality) -> None:
        """The executor's finalize stage has a say before this node's signature."""
        candidate = view.candidate(vote.candidate_hash)
        request = self._request(view, hands.profile, f"finalize-{vote.epoch}", 1, candidate)
        try:
            why = await effects.confirm(hands.executor, request, candidate, view.pins.contract.budget.time_ms)
        except RuntimeFailure as failure:
            _log.info("the executor did not confirm the decision", extra={**_about(view), "why": failure.message})
            self._memory.fails(vote.epoch, "finalize", self.log.clock())
            return
        if why:
            self._memory.withholds(vote.epoch, why)
        else:
            self._memory.confirmed[vote.epoch] = vote.candidate_hash

    def _fails(self, view: View, act: Execute | Verify, role: ClaimRole, error: course.TaskError) -> None:
        _log.info("the executor failed", extra={**_about(view), "role": role, "why": error.message})
        self._memory.fails(act.epoch, role, self.log.clock())
        self._memory.said.append(Draft(error, self.task, act.epoch))

    def _request(
        self, view: View, profile: str, execution_id: str, attempt: int, committed: work.Candidate | None = None
    ) -> ExecuteRequest:
        contract, creation = view.pins.contract, view.pins.creation.payload
        assert isinstance(creation, work.TaskCreated)
        more = {} if committed is None else {"committed_candidate": effects.candidate_json(committed)}
        return ExecuteRequest(
            contract.task_id,
            execution_id,
            contract.task_type,
            {**contract.inputs, **more},
            profile,
            creation.contract,
            "explore" if committed is None else "finalize",
            f"{execution_id}-{attempt}",
        )

    def _deadline_ms(self, view: View, role: ClaimRole, lease_until: int) -> int:
        """How long a call may take: as long as its lease may be renewed, and its outcome said in time."""
        pins, epoch = view.pins, view.state.work
        tenure = tenures(epoch, role)[self.log.keys.node_id]
        end = min(lease_until + max(0, pins.lease_total_ms - tenure.held_ms), pins.contract.expiry_ms)
        if role == "propose":
            end = min(end, epoch.started_at + pins.contract.budget.time_ms)
        return max(1, end - self.log.clock())


def _about(view: View) -> dict[str, str]:
    return {"task_id": view.pins.contract.task_id, "task": view.pins.task.hex()}
