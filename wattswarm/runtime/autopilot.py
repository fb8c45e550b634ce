"""One task, driven by this node: what the plan says is done, until there is nothing left to do.

What the node knows of it and asks of its executor is its ``part``. The executor works beside the deciding, so a lease
is renewed while its work goes on. Nothing is polled: the driver rests until the time that the plan names, or until it
``heard`` of something. What it forgets with its process it finds again on the log. Knows no HTTP and no database. Keeps
docs/protocol.md §8: the policy's hash is checked before anything is created, verified or signed.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import trio

from sel.lifetimes import single_error
from sel.log import Log
from wattswarm.kernel.contract import TaskContract
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.policy import policy_hash_matches
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.kernel.task.fold import new_state, open_task
from wattswarm.runtime.part import Hands, Part
from wattswarm.runtime.planning import Act, Plan, Terms, View, plan

nobody = "no executor is at hand"


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
        self._part = Part(task, log.keys, log.clock)
        self._policy_unknown = True
        self._over = False
        self._heard = 0
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
        self._part.view = None
        self._heard += 1
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
        self._part.view = None

    def began(self, events: Sequence[Event]) -> None:
        """The task is this node's own: ``events``, its creation first, are all there is of it."""
        pins = open_task(events[0], self.log.network)
        view = self._part.view = View(pins, new_state(pins, ()))
        self._take(view, events)

    async def _step(self, nursery: trio.Nursery) -> int | None:
        """One step; the time of the next one if it is to be waited for and no call is under way."""
        self._wake = trio.Event()
        view = await self._look()
        stages = self.hands.stages if self.hands is not None else frozenset[str]()
        terms = Terms(self.log.keys, self.log.network.current.number, stages, self.once, self.unable)
        step = plan(view, self._part.memory, terms, self.log.clock())
        if step.drafts:
            await self._author(view, step.drafts)
        elif step.acts:
            for act in step.acts:
                self._part.memory.begins(act)
                nursery.start_soon(self._call, view, act)
        else:
            return await self._rest(step)
        return None

    # -- the log ----------------------------------------------------------------------------------------------------

    async def _look(self) -> View:
        view = self._part.view
        if view is None:
            self._policy_unknown, heard = True, self._heard
            view = self._part.looks(await self.log.task(self.task), self.hands)
            if self._heard != heard:
                self._part.view = None  # good for this step; the next one looks again
        if self._policy_unknown:
            self._policy_unknown, self._part.memory.policy_fault = False, ""
            try:
                await check_policy(self.log, view.pins.contract)
            except Refused as refusal:
                self._part.memory.policy_fault = refusal.message
        return view

    async def _author(self, view: View, drafts: Sequence[Draft]) -> None:
        """Author what was tried. A refusal means that the log knows more: look, and think again, as long as it does."""
        outcomes = len(self._part.memory.said)
        self._meanwhile = set()
        try:
            events = await self.log.author(*drafts)
            self._own.update(event.id for event in events)
        except Refused as refusal:
            self._part.refused(view, refusal)
            return
        finally:
            heard, self._meanwhile = self._meanwhile, None
            if heard:
                self.heard(heard)
        self._take(view, events, outcomes)

    def _take(self, view: View, events: Sequence[Event], outcomes: int = 0) -> None:
        if self._part.authored(view, events, outcomes):
            self._over = self.once or not view.pins.continuous

    async def _rest(self, step: Plan) -> int | None:
        """Wait for calls that are under way; if there are none, the waiting is for others to do."""
        self.waits_for = [wait.why for wait in step.waits]
        self._over = step.over
        if step.over:
            return None
        until_ms = min(wait.until_ms for wait in step.waits)
        if self._part.memory.idle:
            return None if self.pending else until_ms
        with trio.move_on_after(max(0, until_ms - self.log.clock()) / 1000):
            await self.stirred()
        return None

    # -- the executor -----------------------------------------------------------------------------------------------

    async def _call(self, view: View, act: Act) -> None:
        hands = self.hands
        assert hands is not None, "without hands no call is planned"
        await self._part.calls(view, hands, act, self._part.deadline_ms(view, act))
        self._wake.set()
