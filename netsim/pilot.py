"""A simulated node's autopilot: the plan of ``wattswarm.runtime.planning``, carried out over virtual time.

Each open task in which the node has a role has its turns: what the plan drafts is authored through the real log, what
it wants of the executor comes back after a drawn while, and a rest ends when its time comes or something arrives. What
decides is the code that daemons run; here are only its clock and its executor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from msgspec import Struct

from netsim.clock import Ms, Share, Timeline, check_spans, drawn
from sel.authoring import ClockBehind
from sel.log import TaskRecord
from sel.memory import at_once
from wattswarm.kernel import codec
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.fold import TaskState
from wattswarm.runtime.contract import ExecuteRequest, ExecuteResponse, GivenRef, VerifyRequest, VerifyResponse
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.part import Hands, Part
from wattswarm.runtime.planning import Act, Plan, Terms, View, plan

turn_after_ms = 2
"""From hearing of something to the turn that follows: what came meanwhile is seen in one look."""
held_back_ms = 200
back_off_ms = (1_000, 2_000, 5_000, 15_000, 60_000)
named = ("netsim", "echo-1")
served = ("swarm",)


class ExecutorTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """What executors are like. ``latency_ms``: least and most of a call; ``fails``: share of calls that fail."""

    latency_ms: tuple[Ms, Ms] = (5, 50)
    fails: Share = 0.0

    def __post_init__(self) -> None:
        check_spans(self.latency_ms)


class _Echo:
    """An executor that answers at once, alike for everybody; ``failing``: it does not answer well."""

    def __init__(self, failing: bool) -> None:
        self._failing = failing

    async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse:
        self._check("/execute", deadline_ms)
        output = {"answer": f"default::{request.inputs.get('prompt')}", "confidence": 0.93, "check_summary": "echoed"}
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
    def digest(self, task: bytes) -> bytes | None: ...
    def tell(self, what: str, detail: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Task:
    """A task that is attended to. ``turn``: the number of the turn that is next; older ones are void.

    ``seen``: what the plan reads of the log and of the clock, as it was when the task was looked at.
    """

    part: Part
    seen: tuple[bytes | None, int, int] | None = None
    turn: int = 0
    due_ms: int | None = None
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
            attended = self._tasks[task] = _Task(Part(task, self._body.keys, self._body.clock))
        if attended.part.view is not None and attended.seen == self._read(task):
            return
        attended.part.view = None
        if not attended.failures:
            self._turn_at(attended, self._timeline.now_ms + turn_after_ms)

    def _read(self, task: bytes) -> tuple[bytes | None, int, int]:
        body = self._body
        return body.digest(task), body.network.current.number, body.clock() - self._timeline.now_ms

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
            self._body.tell("held", f"{attended.part.task.hex()[:8]} {refusal.reason}")
            pause_ms = back_off_ms[min(attended.failures, len(back_off_ms) - 1)]
            if isinstance(refusal, ClockBehind):
                pause_ms = min(refusal.ahead_ms, back_off_ms[-1])
            attended.failures += 1
            attended.part.view = None
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
            step = plan(view, attended.part.memory, terms, body.clock())
            if step.drafts:
                self._author(attended, view, step.drafts)
            elif step.acts:
                for act in step.acts:
                    self._begin(attended, view, act)
            else:
                return self._rest(attended, step)

    def _rest(self, attended: _Task, step: Plan) -> None:
        if step.over and attended.part.memory.idle:
            return self._forget(attended)
        if step.waits:
            wait_ms = min(wait.until_ms for wait in step.waits) - self._body.clock()
            self._turn_at(attended, self._timeline.now_ms + max(1, wait_ms))
        return None

    def _forget(self, attended: _Task) -> None:
        attended.turn += 1
        self._tasks.pop(attended.part.task, None)

    def _look(self, attended: _Task) -> View | None:
        part = attended.part
        if part.view is not None:
            return part.view
        record = self._body.record(part.task)
        if record is None or not isinstance(record.folded.state, TaskState) or record.folded.pins is None:
            return None
        if self._body.keys.node_id not in record.folded.pins.membership.members:
            return None
        attended.seen = self._read(part.task)
        return part.looks(record, self._hands(failing=False))

    def _author(self, attended: _Task, view: View, drafts: Sequence[Draft]) -> None:
        part = attended.part
        outcomes = len(part.memory.said)
        try:
            events = self._body.author(drafts)
        except ClockBehind:
            raise
        except Refused as refusal:
            part.refused(view, refusal)
        else:
            part.authored(view, events, outcomes)
            attended.seen = self._read(part.task)

    # -- the executor -----------------------------------------------------------------------------------------------

    def _hands(self, *, failing: bool) -> Hands:
        return Hands(_Echo(failing), "default", named)

    def _begin(self, attended: _Task, view: View, act: Act) -> None:
        attended.part.memory.begins(act)
        takes_ms = drawn(self._draw, self._terms.latency_ms)
        left_ms = attended.part.deadline_ms(view, act)
        failing = self._draw.random() < self._terms.fails
        ends: Callable[[], None] = partial(self._ended, attended, view, act, failing, left_ms - takes_ms)
        self._timeline.after(min(takes_ms, left_ms), ends)

    def _ended(self, attended: _Task, view: View, act: Act, failing: bool, spare_ms: int) -> None:
        if self._stopped or self._tasks.get(attended.part.task) is not attended:
            return
        at_once(attended.part.calls(view, self._hands(failing=failing), act, spare_ms))
        self._turn_at(attended, self._timeline.now_ms)
