"""One run of a scenario over real daemons: broken as planned, healed, and looked at (docs/netsim.md §5)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import trio

from netsim.checkers import Violation
from netsim.cluster.copies import check, copied
from netsim.cluster.faults import Struck, kinds, of_the_wires
from netsim.cluster.host import Host
from netsim.cluster.measure import Measures
from netsim.cluster.plan import Plan, Strike, drawn
from netsim.cluster.sayings import Mouth
from netsim.cluster.seat import Seat, task_label
from netsim.cluster.swarm import Swarm, has_disks, open_swarm
from netsim.cluster.wires import Wires
from netsim.scenario import Scenario, check_kinds, refuse
from netsim.trace import Trace
from netsim.world import Outcome
from wattswarm.node import now_ms

hosts_max = 32
step_s = 1.0
rest_s = 2.0
last_bytes = 1_500
Deed = Callable[[], Awaitable[object]]
Progress = Callable[[int, int], None]


def check_scenario(scenario: Scenario) -> None:
    """Refuse what daemons cannot be made to meet. Raises ``Refused`` naming the field."""
    check_kinds(scenario, cluster=True)
    plain = Scenario("", "")
    for name in ("liars", "spares", "database"):
        if getattr(scenario, name) != getattr(plain, name):
            raise refuse(scenario, name, str(getattr(scenario, name)), "nothing: only without --cluster")
    for name in ("duplicates", "reorders", "spikes", "tail_ms"):
        if getattr(scenario.link, name):
            raise refuse(scenario, f"link.{name}", str(getattr(scenario.link, name)), "0: only without --cluster")
    if scenario.load.history:
        raise refuse(scenario, "load.history", str(scenario.load.history), "0: only without --cluster")
    if has_disks(scenario) and os.geteuid():
        raise refuse(scenario, "faults", "disk_full", "to be run by root: a host gets a disk of its own")
    if scenario.nodes > hosts_max:
        raise refuse(scenario, "nodes", str(scenario.nodes), f"at most {hosts_max} daemons")
    if scenario.lasting >= scenario.nodes - scenario.late:
        raise refuse(scenario, "lasting", str(scenario.lasting), "fewer than the nodes that begin at once")


@dataclass(frozen=True, slots=True)
class Options:
    """``out`` gets every line of what happens; ``logs``: where daemons' logs are kept; ``loopback``: no namespaces."""

    out: TextIO | None = None
    logs: Path | None = None
    loopback: bool = False


async def run(scenario: Scenario, seed: int, progress: Progress, options: Options) -> Outcome:
    """A whole run. ``progress`` hears of ms passed and to pass.

    Nothing runs any more afterwards, however it ends. Raises ``Refused`` if this host cannot have such a cluster.
    """
    check_scenario(scenario)
    plan, trace, began_ms = drawn(scenario, seed), Trace(options.out), now_ms()

    def tell(who: str, what: str, detail: str) -> None:
        trace.line(now_ms() - began_ms, who, what, detail)
        if options.out is not None:
            options.out.flush()

    async with open_swarm(scenario, tell, options.logs, loopback=options.loopback) as swarm:
        course = Run(scenario, plan, swarm, tell)
        await course.whole(progress)
        sent = {host.name: swarm.ground.between.sent_bytes(number) for number, host in enumerate(swarm.hosts)}
        last: list[str] = []
        if course.fault:
            last = trace.around(course.fault)
            last += [f"{host.name} said last: {line}" for host in swarm.hosts for line in _last_lines(host)]
    figures = course.measures.figures(swarm.hosts, sent, course.told)
    return Outcome(
        scenario.name,
        seed,
        course.fault,
        plan.digest,
        course.measures.elapsed_ms,
        figures["events"],
        course.mouth.tasks,
        figures | {"ended": course.ended, "ground": swarm.ground.what},
        last,
    )


def _last_lines(host: Host) -> list[str]:
    return host.log.read_text(errors="replace")[-last_bytes:].splitlines() if host.log.exists() else []


class Run:
    """What happens to a swarm. ``fault``: what did not hold, empty if all did; ``ended``: how tasks did."""

    def __init__(self, scenario: Scenario, plan: Plan, swarm: Swarm, tell: Callable[[str, str, str], None]) -> None:
        self.scenario, self._plan, self._swarm, self._tell = scenario, plan, swarm, tell
        self.measures = Measures()
        self.seats = [Seat(host, self.measures.heard) for host in swarm.hosts]
        self.mouth = Mouth(self.seats, scenario.load, swarm.hosts[0].home.genesis.network_id)
        self._wires = Wires(swarm.ground.between, len(swarm.hosts))
        self.told: list[tuple[int, int, str, str]] = []
        self.fault = ""
        self.ended: dict[str, int] = {}

    async def whole(self, progress: Progress) -> None:
        """All of it; ends as soon as something does not hold."""
        async with trio.open_nursery() as around:
            self._around = around
            for seat, host in zip(self.seats, self._swarm.hosts, strict=True):
                around.start_soon(seat.serve)
                if host in self._swarm.early:
                    seat.open()
            around.start_soon(self._look_on, progress)
            try:
                await self._load()
                await self._late()
                await self._rest()
                await self._check()
            except Violation as violation:
                self._wrong(str(violation))
            around.cancel_scope.cancel()

    def _wrong(self, what: str) -> None:
        self._tell("cluster", "wrong", what)
        self.fault = self.fault or what
        self._around.cancel_scope.cancel()

    async def _look_on(self, progress: Progress) -> None:
        whole_ms = round((self.scenario.seconds + self.scenario.settle_s) * 1000)
        while True:
            await trio.sleep(step_s)
            self.measures.looked(self._swarm.hosts, [seat.standing for seat in self.seats])
            progress(min(self.measures.elapsed_ms, whole_ms), whole_ms)
            for host in self._swarm.hosts:
                if host.is_gone():
                    self._wrong(f"the daemon of {host.name} ended by itself: {host.said()[-300:]}")

    # -- load and faults --------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        began = trio.current_time()

        async def then(at_ms: int, what: Callable[[], Awaitable[None]]) -> None:
            await trio.sleep_until(began + at_ms / 1000)
            await what()

        async with trio.open_nursery() as nursery:
            for strike in self._plan.strikes:
                nursery.start_soon(then, strike.at_ms, lambda strike=strike: self._strike(strike, began))
            for saying in self._plan.sayings:
                nursery.start_soon(then, saying.at_ms, lambda saying=saying: self.mouth.say(saying))
            nursery.start_soon(trio.sleep_until, began + self.scenario.seconds)

    async def _strike(self, strike: Strike, began: float) -> None:
        hosts = [self._swarm.hosts[number] for number in strike.hosts]
        of_hosts = strike.kind not in of_the_wires
        if of_hosts:
            hosts = [host for host in hosts if not host.busy and host.serving.is_set()]
        if not hosts:
            self._tell("cluster", f"no {strike.kind}", "its hosts are struck already")
            return
        who = " ".join(host.name for host in hosts)
        self._tell("cluster", f"fault {strike.kind}", who)
        seats = [seat for seat in self.seats if seat.host in hosts]
        at_ms = self.measures.elapsed_ms
        for host in hosts:
            host.busy = host.busy or of_hosts
        try:
            async with kinds[strike.kind](Struck(hosts, seats, self._wires, self._later, self._wrong), strike):
                await trio.sleep_until(began + strike.until_ms / 1000)
        finally:
            for host in hosts:
                host.busy = host.busy and not of_hosts
        self.told.append((at_ms, self.measures.elapsed_ms, strike.kind, who))

    def _later(self, what: Deed) -> None:
        self._around.start_soon(what)

    # -- the end ----------------------------------------------------------------------------------------------------

    async def _late(self) -> None:
        """What was to begin when the load is over."""
        for seat in self.seats:
            if seat.host not in self._swarm.early:
                await seat.host.begin()
                seat.open()

    async def _rest(self) -> None:
        """Nobody has anything to tell anybody, and no task is open; or it took too long, which checkers will tell."""
        self._tell("cluster", "healed", f"{self.mouth.tasks} tasks, {self.mouth.notes} notes")
        deadline = trio.current_time() + self.scenario.settle_s
        level_since: float | None = None
        while trio.current_time() < deadline:
            level = self._is_level(now_ms())
            level_since = (level_since or trio.current_time()) if level else None
            if level_since is not None and trio.current_time() - level_since >= rest_s:
                return
            await trio.sleep(step_s / 2)

    def _is_level(self, at_ms: int) -> bool:
        standings = [seat.standing for seat in self.seats]
        fresh = [one for one in standings if one is not None and at_ms - one.at_ms < rest_s * 1000 and not one.open]
        return len(fresh) == len(self.seats) and len({one.sums for one in fresh}) == 1

    async def _check(self) -> None:
        for host in self._swarm.hosts:
            if "Traceback" in host.log.read_text(errors="replace"):
                raise Violation(f"the daemon of {host.name} met a bug: see its log")
        for host in self._swarm.hosts[: self.scenario.lasting]:
            if growth := self.measures.growth(host):
                raise Violation(growth)
        copies = [await copied(host) for host in self._swarm.hosts]
        for row in copies[0].stream_rows.values():
            if row.facts is not None and row.facts.label.startswith(task_label):
                self.ended[row.facts.status] = self.ended.get(row.facts.status, 0) + 1
        await check(self._swarm.hosts, copies, task_label)
