"""A swarm of real daemons, each on a host of its own: made, begun, and gone in the end, however it ends."""

from __future__ import annotations

import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import trio

from netsim.cluster.ground import Ground, open_ground
from netsim.cluster.host import Host
from netsim.cluster.places import open_places
from netsim.scenario import Scenario
from wattswarm.config import file_name as config_name
from wattswarm.home import write_whole
from wattswarm.kernel.refusal import Refused
from wattswarm.local_swarm import found, runtime_name
from wattswarm.presence import read_state
from wattswarm.runtime.executors import file_name as executors_name
from wattswarm.runtime.local import reference_runtime

whole_s_max = 90.0
look_s = 0.1
Tell = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Swarm:
    """``early`` begin at once, the others when the load is over."""

    hosts: Sequence[Host]
    early: Sequence[Host]
    ground: Ground


@asynccontextmanager
async def open_swarm(scenario: Scenario, tell: Tell, logs: Path | None) -> AsyncIterator[Swarm]:
    """The hosts of a scenario, with a runtime, whose early ones are all connected.

    ``logs``: where daemons' logs are kept. Raises ``Refused`` if there cannot be such hosts, or they do not meet.
    """
    with ExitStack() as stack:
        places = stack.enter_context(open_places(scenario.nodes, own_disks=has_disks(scenario)))
        directory = places[0].parent.parent
        ground = stack.enter_context(open_ground(scenario, places))
        homes = found(places, "netsim", scenario.finalizers)
        hosts = [
            Host(
                f"n{number:03}", home, within=ground.within[number], log_file=directory / f"n{number:03}.log", told=tell
            )
            for number, home in enumerate(homes)
        ]
        stack.enter_context(_kept(hosts, logs))
        swarm = Swarm(hosts, hosts[: len(hosts) - scenario.late], ground)
        with _runtime(scenario, ground) as url:
            try:
                await _equip(swarm, url)
                async with trio.open_nursery() as nursery:
                    for host in swarm.early:
                        nursery.start_soon(host.begin)
                await _meet(swarm.early)
                yield swarm
            except BaseException:
                for host in hosts:  # nobody waits for an orderly end
                    host.signal(signal.SIGKILL)
                raise
            finally:
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as nursery:
                        for host in hosts:
                            nursery.start_soon(host.end)


def has_disks(scenario: Scenario) -> bool:
    """Whether hosts need disks of their own: one of them becomes full."""
    return any(fault.kind == "disk_full" for fault in scenario.faults)


@contextmanager
def _kept(hosts: Sequence[Host], logs: Path | None) -> Iterator[None]:
    """Logs are taken out of what is removed in the end."""
    try:
        yield
    finally:
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            for host in hosts:
                if host.log.exists():
                    shutil.copy(host.log, logs)


@contextmanager
def _runtime(scenario: Scenario, ground: Ground) -> Iterator[str]:
    terms = scenario.executor
    flags = ("--latency-ms", str(sum(terms.latency_ms) // 2), "--fail-rate", str(terms.fails))
    words = ("--listen", ground.runtime, "--task-types", "swarm", *flags)
    with reference_runtime(*words, within=ground.within[-1]) as url:
        yield url


async def _equip(swarm: Swarm, url: str) -> None:
    """Each has its configuration, and the runtime among its executors."""
    first, *others = swarm.hosts
    for host, settings in zip(swarm.hosts, swarm.ground.settings, strict=True):
        lines = (f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in settings.items())
        write_whole(host.path / config_name, "".join(lines).encode(), 0o644)
    code, said = await first.run("executors", "add", runtime_name, url)
    if code:
        raise Refused("runtime", f"the runtime at {url} is not there: {said}")
    for host in others:
        shutil.copy(first.path / executors_name, host.path)


async def _meet(hosts: Sequence[Host]) -> None:
    deadline = trio.current_time() + whole_s_max
    while not all(map(partial(_sees, count=len(hosts) - 1), hosts)):
        if trio.current_time() > deadline:
            raise Refused("not_connected", f"the nodes did not find each other within {whole_s_max:g} s")
        await trio.sleep(look_s)


def _sees(host: Host, count: int) -> bool:
    said = read_state(host.path)
    return said is not None and len(said.peers) >= count
