"""The executors that a daemon works with: who serves a task, who is well, and whose hands are free.

The registry's file is the truth; it is looked at again when it changes, so executors are added and removed while the
daemon runs. An executor is asked for work only after it passed its four checks; one that cannot be reached is checked
again, later and later, until it passes. Knows no task's state and no log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.client import RuntimeClient
from wattswarm.runtime.contract import Capabilities
from wattswarm.runtime.executors import Executor, Executors
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.part import Hands
from wattswarm.runtime.watched import Watched

_log = logging.getLogger(__name__)
tasks_max = 16
"""How many tasks one executor works on at once."""
look_s = 1.0
"""How often the registry's file is looked at: one stat."""
check_again_s = (1.0, 2.0, 5.0, 10.0, 30.0)
usual_profile = "default"


@dataclass(slots=True)
class _Member:
    """One executor as it is now. ``fault``: why it is not asked, empty if it is well."""

    registered: Executor
    fault: str = "it was not checked yet"
    client: RuntimeClient | None = None
    busy: int = 0
    leaves: bool = False
    stirred: trio.Event = field(default_factory=trio.Event)

    def stir(self) -> None:
        """Look at it now."""
        self.stirred.set()


@dataclass(frozen=True, slots=True)
class Choice:
    """Who works on a task. ``unable``: why nobody can be asked now, empty if ``hands`` can.

    Hands that cannot be asked now are still named, for what they would have to say before this node may sign.
    """

    hands: Hands | None
    unable: str = ""
    member: _Member | None = None


class Staff:
    """The executors of one state directory, looked after while ``serve`` runs.

    ``changed`` is called when somebody became able to work, ``freed`` when hands became free.
    """

    def __init__(self, registry: Executors, look_s: float = look_s) -> None:
        self.registry = registry
        self._look_s = look_s
        self.changed: Callable[[], None] = lambda: None
        self.freed: Callable[[], None] = lambda: None
        self._members: dict[str, _Member] = {}
        self._seen: object = None
        self._fault = ""

    async def serve(self) -> None:
        """Follow the registry and look after everybody in it, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._follow_registry(nursery)
                await trio.sleep(self._look_s)

    def choose(self, task_type: str) -> Choice:
        """Who may be asked to work on a task of that type: the least busy of those who serve it and are well."""
        able = [member for member in self._members.values() if _profile(member.registered, task_type)]
        if not able:
            return Choice(None, self._fault or self._nobody(task_type))
        well = [member for member in able if not member.fault]
        chosen = min(well or able, key=lambda member: (member.busy, member.registered.name))
        hands, name = self._hands(chosen, task_type), chosen.registered.name
        if not well:
            return Choice(hands, f"executor {name} cannot be asked: {chosen.fault}")
        if chosen.busy >= tasks_max:
            return Choice(hands, f"executor {name} works on {tasks_max} tasks already")
        return Choice(hands, "", chosen)

    def take(self, choice: Choice) -> None:
        """One more task for the chosen one."""
        assert choice.member is not None, "only who can be asked is taken"
        choice.member.busy += 1

    def give_back(self, choice: Choice) -> None:
        """One less."""
        assert choice.member is not None, "only who was taken is given back"
        choice.member.busy -= 1
        self.freed()

    def faults(self) -> list[str]:
        """What is wrong with the executors, for people."""
        said = [
            f"executor {name}: {member.registered.disabled or member.fault}"
            for name, member in self._members.items()
            if member.registered.disabled or member.fault
        ]
        return [self._fault, *said] if self._fault else said

    def _nobody(self, task_type: str) -> str:
        if not self._members:
            return "no executor is registered here: `wattswarm executors add NAME URL` adds one"
        return f"no executor here serves task type {task_type!r}"

    def _hands(self, member: _Member, task_type: str) -> Hands | None:
        if member.client is None:
            return None
        can, registered = member.registered.capabilities, member.registered

        def failed(failure: RuntimeFailure) -> None:
            if failure.kind == "unreachable":
                member.fault = failure.message
                member.stir()

        executor = Watched(member.client, self.registry, registered.name, failed)
        named = (can.provider_family, can.model_id)
        return Hands(executor, _profile(registered, task_type), named, frozenset(can.stages))

    # -- the registry ------------------------------------------------------------------------------------------------

    def _follow_registry(self, nursery: trio.Nursery) -> None:
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            found = {executor.name: executor for executor in self.registry.all()}
            self._fault = ""
        except Refused as refusal:
            self._fault = refusal.message
            _log.warning("the executors' file cannot be used", extra={"why": refusal.message})
            return
        for name, member in list(self._members.items()):
            if name not in found or found[name].base_url != member.registered.base_url:
                member.leaves = True
                member.stir()
                del self._members[name]
        for name, executor in found.items():
            known = self._members.get(name)
            if known is None:
                self._members[name] = _Member(executor)
                nursery.start_soon(self._look_after, self._members[name])
            else:
                known.registered = executor
                known.stir()
        self.changed()

    def _stamp(self) -> object:
        try:
            found = self.registry.path.stat()
        except OSError as error:
            return type(error)
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def _look_after(self, member: _Member) -> None:
        """Check it now, and again whenever there is a reason to; while it fails, by and by."""
        async with RuntimeClient(member.registered.base_url) as member.client:
            failures = 0
            while not member.leaves:
                member.stirred = trio.Event()
                idle = bool(member.registered.disabled)  # until somebody adds it again
                failures = 0 if idle or await self._check(member, member.client) else failures + 1
                pause_s = check_again_s[min(failures, len(check_again_s)) - 1] if failures else float("inf")
                with trio.move_on_after(pause_s):
                    await member.stirred.wait()

    async def _check(self, member: _Member, client: RuntimeClient) -> bool:
        before = member.fault
        report = await client.check()
        faults = [fault for fault in report.faults.values() if fault]
        more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
        member.fault = faults[0] + more if faults else ""
        about = {"executor": member.registered.name, "url": member.registered.base_url}
        if member.fault:
            if member.fault != before:
                _log.warning("an executor fails its checks", extra={**about, "why": member.fault})
            return False
        assert report.capabilities is not None, "a good report has capabilities"
        member.registered = _as_it_says(member.registered, report.capabilities)
        if before:
            _log.info("an executor is well", extra=about)
            self.changed()
        return True


def _as_it_says(registered: Executor, capabilities: Capabilities) -> Executor:
    return Executor(registered.name, registered.base_url, capabilities, registered.disabled)


def _profile(executor: Executor, task_type: str) -> str:
    """The profile in which an executor serves tasks of that type: the usual one if it has it; empty: it does not."""
    profiles = executor.capabilities.profiles
    wanted = usual_profile if usual_profile in profiles else next(iter(profiles), "")
    return wanted if wanted and executor.supports(task_type, wanted) else ""
