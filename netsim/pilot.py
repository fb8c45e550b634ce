"""A simulated node's autopilot: the plan of ``wattswarm.runtime.planning``, carried out over virtual time.

Each open task in which the node has a role has its turns: what the plan drafts is authored through the real log, what
it wants of the executor comes back after a drawn while, and a rest ends when its time comes or something arrives. What
decides is the code that daemons run; here are only its clock and its executor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from msgspec import Struct

from netsim.clock import Timeline
from sel.authoring import ClockBehind, fenced
from sel.log import TaskRecord
from sel.memory import at_once
from wattswarm.kernel import codec
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.intents import Execute, Judgement, Verify
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.fold import TaskState, apply
from wattswarm.kernel.task.turn import tenures
from wattswarm.runtime import effects
from wattswarm.runtime.contract import ExecuteRequest, ExecuteResponse, GivenRef, VerifyRequest, VerifyResponse
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.planning import Act, Memory, Plan, Terms, View, plan
from wattswarm.runtime.sealed import sealed_vote, vote_salt

turn_after_ms = 2
"""From hearing of something to the turn that follows: what came meanwhile is seen in one look."""
held_back_ms = 200
back_off_ms = (1_000, 2_000, 5_000, 15_000, 60_000)
named = ("netsim", "echo-1")
served = ("swarm",)


class ExecutorTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """What executors are like. ``latency_ms``: least and most of a call; ``fails``: share of calls that fail."""

    latency_ms: tuple[int, int] = (5, 50)
    fails: float = 0.0


class _Echo:
    """An executor that answers at once, alike for everybody; ``failing``: it does not answer well."""

    def __init__(self, failing: bool, prompt: object) -> None:
        self._failing = failing
        self._prompt = prompt

    async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse:
        self._check("/execute", deadline_ms)
        output = {"answer": f"default::{self._prompt}", "confidence": 0.93, "check_summary": "echoed"}
        digest = f"sha256:{codec.sha256(repr((request.task_id, request.inputs)).encode()).hex()}"
        ref = GivenRef(f"sim://{request.task_id}", digest, 64, "text/plain", 1, "netsim")
        return ExecuteResponse(output, [], [ref])

    async def verify(self, request: VerifyRequest, deadline_ms: int) -> VerifyResponse:
        self._check("/verify", deadline_ms)
        basis = codec.sha256(codec.encode(request.candidate.output)).hex()
        return VerifyResponse(True, 1.0, [100], basis, *named)

    def _check(self, path: str, deadline_ms: int) -> None:
        if deadline_ms <= 0:
            raise RuntimeFailure("timeout", f"POST {path}: no complete answer in time")
        if self._failing:
            raise RuntimeFailure("http_status", f"POST {path}: HTTP status 500, expected 200", 500)


class Body(Protocol):
    """What the pilot needs of its node."""

    keys: Keypair

    @property
    def network(self) -> Network: ...
    def clock(self) -> int: ...
    def may_author(self) -> bool: ...
    def record(self, task: bytes) -> TaskRecord | None: ...
    def author(self, drafts: Sequence[Draft]) -> list[Event]: ...
    def open_tasks(self) -> list[bytes]: ...
    def is_open(self, task: bytes) -> bool: ...
    def tell(self, what: str, detail: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Task:
    """A task that is attended to. ``turn``: the number of the turn that is next; older ones are void."""

    task: bytes
    memory: Memory = field(default_factory=Memory)
    view: View | None = None
    turn: int = 0
    due_ms: int | None = None
    refused: bool = False
    failures: int = 0


class Pilot:
    """Attends to the node's open tasks until ``stopped``."""

    def __init__(self, body: Body, timeline: Timeline, draw: random.Random, terms: ExecutorTerms) -> None:
        self._body, self._timeline, self._draw, self._terms = body, timeline, draw, terms
        self._tasks: dict[bytes, _Task] = {}
        self._stopped = False
        self.look_everywhere()

    def stop(self) -> None:
        """The process is gone."""
        self._stopped = True

    # -- news -------------------------------------------------------------------------------------------------------

    def look_everywhere(self) -> None:
        """Any open task may have changed."""
        for task in self._body.open_tasks():
            self.heard(task)

    def heard(self, task: bytes) -> None:
        """Something arrived for a task."""
        attended = self._tasks.get(task)
        if attended is None:
            if not self._body.is_open(task):
                return
            attended = self._tasks[task] = _Task(task)
        attended.view = None
        if not attended.failures:
            self._turn_at(attended, self._timeline.now_ms + turn_after_ms)

    def _turn_at(self, attended: _Task, at_ms: int) -> None:
        """Have the next turn then, or when it is due already if that is sooner."""
        if attended.due_ms is not None and attended.due_ms <= at_ms:
            return
        attended.turn += 1
        attended.due_ms = at_ms
        self._timeline.at(at_ms, partial(self._turn_is, attended, attended.turn))

    def _turn_is(self, attended: _Task, turn: int) -> None:
        if self._stopped or attended.turn != turn:
            return
        attended.due_ms = None
        try:
            self._take_turn(attended)
            attended.failures = 0
        except Refused as refusal:
            self._body.tell("held", f"{attended.task.hex()[:8]} {refusal.reason}")
            pause_ms = back_off_ms[min(attended.failures, len(back_off_ms) - 1)]
            if isinstance(refusal, ClockBehind):
                pause_ms = min(refusal.ahead_ms, back_off_ms[-1])
            attended.failures += 1
            attended.view, attended.refused = None, False
            self._turn_at(attended, self._timeline.now_ms + pause_ms)

    # -- a turn -----------------------------------------------------------------------------------------------------

    def _take_turn(self, attended: _Task) -> None:
        body = self._body
        if not body.may_author():
            return self._turn_at(attended, self._timeline.now_ms + held_back_ms)
        while True:
            view = self._look(attended)
            if view is None:
                return self._forget(attended)
            unable = "" if view.pins.contract.task_type in served else "nobody serves this type"
            terms = Terms(body.keys, body.network.current.number, frozenset(), once=False, unable=unable)
            step = plan(view, attended.memory, terms, body.clock())
            if step.drafts:
                self._author(attended, view, step.drafts)
            elif step.acts:
                for act in step.acts:
                    self._begin(attended, view, act)
            else:
                return self._rest(attended, step)

    def _rest(self, attended: _Task, step: Plan) -> None:
        if step.over and attended.memory.idle:
            return self._forget(attended)
        if step.waits:
            wait_ms = min(wait.until_ms for wait in step.waits) - self._body.clock()
            self._turn_at(attended, self._timeline.now_ms + max(1, wait_ms))
        return None

    def _forget(self, attended: _Task) -> None:
        attended.turn += 1
        self._tasks.pop(attended.task, None)

    def _look(self, attended: _Task) -> View | None:
        if attended.view is None:
            record = self._body.record(attended.task)
            if record is None or not isinstance(record.folded.state, TaskState) or record.folded.pins is None:
                return None
            view = attended.view = View(record.folded.pins, record.folded.state)
            for event in record.events:
                view.note(event)
            if self._body.keys.node_id not in view.pins.membership.members:
                return None
            found = sealed_vote(view, record.events, self._body.keys, named)
            if found is not None:
                name = (found[0].epoch, found[0].attempt, found[0].candidate_hash)
                if name not in attended.memory.mine.judgements:
                    attended.memory.judges(*found)
        return attended.view

    def _author(self, attended: _Task, view: View, drafts: Sequence[Draft]) -> None:
        outcomes = len(attended.memory.said)
        try:
            events = self._body.author(drafts)
        except ClockBehind:
            raise
        except Refused as refusal:
            if refusal.reason == fenced:
                attended.memory.withholds(view.state.work.number, refusal.message)
                return
            if attended.refused:
                raise
            attended.refused, attended.view = True, None
            return
        attended.refused = False
        del attended.memory.said[:outcomes]
        for event in events:
            view.note(event)
            if isinstance(event.payload, judge.DecisionFinalized) or (
                apply(view.state, view.pins, event).status != "accepted"
            ):
                attended.view = None

    # -- the executor -----------------------------------------------------------------------------------------------

    def _begin(self, attended: _Task, view: View, act: Act) -> None:
        assert isinstance(act, Execute | Verify), "no executor here has a finalize stage"
        attended.memory.begins(act)
        least, most = self._terms.latency_ms
        takes_ms = least + self._draw.randrange(most - least + 1)
        left_ms = self._deadline_ms(view, act)
        failing = self._draw.random() < self._terms.fails
        ends: Callable[[], None] = partial(self._ended, attended, view, act, failing, left_ms - takes_ms)
        self._timeline.after(min(takes_ms, left_ms), ends)

    def _ended(self, attended: _Task, view: View, act: Execute | Verify, failing: bool, spare_ms: int) -> None:
        if self._stopped or self._tasks.get(attended.task) is not attended:
            return
        executor = _Echo(failing, view.pins.contract.inputs.get("prompt"))
        found: work.Candidate | course.TaskError | effects.Judgement
        if isinstance(act, Execute):
            found = self._proposal(executor, view, act, spare_ms)
        else:
            found = self._judgement(executor, view, act, spare_ms)
        memory = attended.memory
        match found, act:
            case work.Candidate(), _:
                memory.said.append(Draft(work.CandidateProposed(found), view.pins.task, act.epoch))
            case course.TaskError(), _:
                memory.fails(act.epoch, "propose" if isinstance(act, Execute) else "verify", self._body.clock())
                memory.said.append(Draft(found, view.pins.task, act.epoch))
            case effects.Judgement(), Verify():
                refs = view.candidate(act.candidate_hash).evidence_refs if found.attest else []
                digests = tuple(dict.fromkeys(ref.digest for ref in refs))
                salt = vote_salt(self._body.keys, view.pins.task, act)
                memory.judges(act, Judgement(found.result, digests, salt))
        memory.ends(act)
        self._turn_at(attended, self._timeline.now_ms)

    def _proposal(self, executor: _Echo, view: View, act: Execute, spare_ms: int) -> work.Candidate | course.TaskError:
        contract, creation = view.pins.contract, view.pins.creation.payload
        assert isinstance(creation, work.TaskCreated)
        request = ExecuteRequest(
            contract.task_id,
            act.execution_id,
            contract.task_type,
            dict(contract.inputs),
            "default",
            creation.contract,
            "explore",
            f"{act.execution_id}-{act.attempt}",
        )
        return at_once(effects.propose(executor, request, contract, act.candidate_id, spare_ms))

    def _judgement(
        self, executor: _Echo, view: View, act: Verify, spare_ms: int
    ) -> effects.Judgement | course.TaskError:
        contract, candidate = view.pins.contract, view.candidate(act.candidate_hash)
        proposed = view.candidates[act.candidate_hash]
        request = effects.verify_request(contract, candidate, proposed.created_at, proposed.author.hex())
        return at_once(effects.judge(executor, request, contract, candidate, act.execution_id, named, spare_ms))

    def _deadline_ms(self, view: View, act: Execute | Verify) -> int:
        """How long a call may take: as long as its lease may be renewed."""
        role = "propose" if isinstance(act, Execute) else "verify"
        tenure = tenures(view.state.work, role)[self._body.keys.node_id]
        end = min(act.lease_until + max(0, view.pins.lease_total_ms - tenure.held_ms), view.pins.contract.expiry_ms)
        if role == "propose":
            end = min(end, view.state.work.started_at + view.pins.contract.budget.time_ms)
        return max(1, end - self._body.clock())
