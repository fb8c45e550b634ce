"""A node's part in one task: what it knows of it, what its executor found, and what of that it has yet to say.

It waits for nothing but the executor that it is given, and authors nothing: the autopilot of daemons has it over a real
log and real time, a simulated one over virtual time. The part that matters is the same code. Knows no HTTP and no
database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sel.authoring import fenced
from sel.log import TaskRecord
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.intents import Execute, Judgement, Verify, VoteFinality
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.payloads.fields import ClaimRole
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.fold import TaskState, apply
from wattswarm.kernel.task.turn import tenures
from wattswarm.runtime import effects
from wattswarm.runtime.contract import ExecuteRequest
from wattswarm.runtime.effects import Executor
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.planning import Act, Memory, View
from wattswarm.runtime.sealed import sealed_vote, vote_salt

_log = logging.getLogger(__name__)
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


class Part:
    """Of the node with ``keys``, whose clock tells unix ms. ``view`` None: the log is to be looked at."""

    def __init__(self, task: bytes, keys: Keypair, clock: Callable[[], int]) -> None:
        self.task = task
        self.memory = Memory()
        self.view: View | None = None
        self._keys = keys
        self._clock = clock
        self._held = 0  # how much the log held of the task when it was looked at
        self._refused_at: int | None = None

    # -- the log ----------------------------------------------------------------------------------------------------

    def looks(self, record: TaskRecord, hands: Hands | None) -> View:
        """See the task as the log has it, and a vote that was sealed before this process began, to open it."""
        state, pins = record.folded.state, record.folded.pins
        assert isinstance(state, TaskState)
        assert pins is not None
        view = self.view = View(pins, state)
        self._held = len(record.events) + len(record.certificates)
        for event in record.events:
            view.note(event)
        found = sealed_vote(view, record.events, self._keys, hands.named if hands is not None else unnamed)
        if found is not None:
            vote = found[0]
            if (vote.epoch, vote.attempt, vote.candidate_hash) not in self.memory.mine.judgements:
                self.memory.judges(*found)
        return view

    def authored(self, view: View, events: Sequence[Event], outcomes: int = 0) -> bool:
        """Put own events on top of the view; the log knows what a proof makes of it. Whether one decides.

        ``outcomes``: how many outcomes of calls, the oldest ones, are said with them.
        """
        self._refused_at = None
        del self.memory.said[:outcomes]
        decides = False
        for event in events:
            view.note(event)
            if isinstance(event.payload, judge.DecisionFinalized):
                decides, self.view = True, None
            elif apply(view.state, view.pins, event).status != "accepted":
                self.view = None
        return decides

    def refused(self, view: View, refusal: Refused) -> None:
        """What was drafted was refused: the log knows more, to be looked at. Raises ``Refused`` if it did not."""
        if refusal.reason == fenced:
            self.memory.withholds(view.state.work.number, refusal.message)
            return
        if self._refused_at == self._held:
            raise refusal
        self._refused_at, self.view = self._held, None

    # -- the executor -----------------------------------------------------------------------------------------------

    async def calls(self, view: View, hands: Hands, act: Act, deadline_ms: int) -> None:
        """Ask the executor, and remember what it said, or that it failed, to be said in its turn."""
        _log.debug("the executor is asked to %s", type(act).__name__.lower(), extra=_about(view))
        try:
            match act:
                case Execute():
                    await self._execute(view, hands, act, deadline_ms)
                case Verify():
                    await self._verify(view, hands, act, deadline_ms)
                case VoteFinality():
                    await self._confirm(view, hands, act, deadline_ms)
        finally:
            self.memory.ends(act)

    def deadline_ms(self, view: View, act: Act) -> int:
        """How long a call may take: as long as its lease may be renewed, and its outcome said in time."""
        pins, epoch = view.pins, view.state.work
        if isinstance(act, VoteFinality):
            return pins.contract.budget.time_ms
        role: ClaimRole = "propose" if isinstance(act, Execute) else "verify"
        tenure = tenures(epoch, role)[self._keys.node_id]
        end = min(act.lease_until + max(0, pins.lease_total_ms - tenure.held_ms), pins.contract.expiry_ms)
        if role == "propose":
            end = min(end, epoch.started_at + pins.contract.budget.time_ms)
        return max(1, end - self._clock())

    async def _execute(self, view: View, hands: Hands, act: Execute, deadline_ms: int) -> None:
        request = _request(view, hands.profile, act.execution_id, act.attempt)
        found = await effects.propose(hands.executor, request, view.pins.contract, act.candidate_id, deadline_ms)
        if isinstance(found, course.TaskError):
            self._fails(view, act, "propose", found)
        else:
            self.memory.said.append(Draft(work.CandidateProposed(found), self.task, act.epoch))

    async def _verify(self, view: View, hands: Hands, act: Verify, deadline_ms: int) -> None:
        contract, candidate = view.pins.contract, view.candidate(act.candidate_hash)
        proposed = view.candidates[act.candidate_hash]
        request = effects.verify_request(contract, candidate, proposed.created_at, proposed.author.hex())
        judged = await effects.judge(
            hands.executor, request, contract, candidate, act.execution_id, hands.named, deadline_ms
        )
        if isinstance(judged, course.TaskError):
            self._fails(view, act, "verify", judged)
            return
        digests = dict.fromkeys(ref.digest for ref in candidate.evidence_refs) if judged.attest else {}
        salt = vote_salt(self._keys, self.task, act)
        self.memory.judges(act, Judgement(judged.result, tuple(digests), salt))

    async def _confirm(self, view: View, hands: Hands, vote: VoteFinality, deadline_ms: int) -> None:
        """The executor's finalize stage has a say before this node's signature."""
        candidate = view.candidate(vote.candidate_hash)
        request = _request(view, hands.profile, f"finalize-{vote.epoch}", 1, candidate)
        try:
            why = await effects.confirm(hands.executor, request, candidate, deadline_ms)
        except RuntimeFailure as failure:
            _log.info("the executor did not confirm the decision", extra={**_about(view), "why": failure.message})
            self.memory.fails(vote.epoch, "finalize", self._clock())
            return
        if why:
            self.memory.withholds(vote.epoch, why)
        else:
            self.memory.confirmed[vote.epoch] = vote.candidate_hash

    def _fails(self, view: View, act: Execute | Verify, role: ClaimRole, error: course.TaskError) -> None:
        _log.info("the executor failed", extra={**_about(view), "role": role, "why": error.message})
        self.memory.fails(act.epoch, role, self._clock())
        self.memory.said.append(Draft(error, self.task, act.epoch))


def _request(
    view: View, profile: str, execution_id: str, attempt: int, committed: work.Candidate | None = None
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


def _about(view: View) -> dict[str, str]:
    return {"task_id": view.pins.contract.task_id, "task": view.pins.task.hex()}
