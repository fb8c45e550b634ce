"""What ``wattswarm-netsim run`` is told about a cluster, and a run of one for a person at a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
from msgspec.structs import replace

from cli import output
from cli.options import finish
from netsim.scenario import Scenario
from netsim.world import Outcome
from wattswarm.kernel.refusal import Problem, Refused

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wanted:
    """``seconds``, ``tasks``: instead of the scenario's; ``logs``: where daemons' logs are kept.

    ``loopback``: no namespaces, though there might be.
    """

    cluster: bool
    seconds: float | None
    tasks: int | None
    logs: Path | None
    loopback: bool

    @property
    def words(self) -> str:
        """The options that say it again."""
        said = {"seconds": self.seconds, "tasks": self.tasks}
        modes = " --cluster" * self.cluster + " --loopback" * self.loopback
        return modes + "".join(f" --{name} {value:g}" for name, value in said.items() if value is not None)

    def changed(self, scenario: Scenario) -> Scenario:
        """The scenario with what is wanted instead. Raises ``Refused`` for options that need a cluster."""
        given = {"seconds": self.seconds, "tasks": self.tasks, "logs": self.logs, "loopback": self.loopback or None}
        for name, value in given.items():
            if value is not None and not self.cluster:
                found = Problem(f"--{name}", str(value), "to be given with --cluster")
                raise Refused("option", "there is nothing like it in virtual time", (found,))
        if self.seconds is not None:
            scenario = replace(scenario, seconds=self.seconds)
        if self.tasks is not None:
            load = replace(scenario.load, tasks_per_s=self.tasks / scenario.seconds, tasks_max=self.tasks)
            scenario = replace(scenario, load=load)
        return scenario


def cluster_options(function: F) -> F:
    """The options of a cluster; ``function`` gets them as ``wanted``."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        wanted = Wanted(*(kwargs.pop(name) for name in ("cluster", "seconds", "tasks", "logs", "loopback")))
        return function(*args, wanted=wanted, **kwargs)

    for option in reversed(_options):
        call = option(call)
    return call  # type: ignore[return-value]


_options = (
    click.option("--cluster", is_flag=True, help="real daemons with real Postgres, in real time"),
    click.option("--seconds", type=click.FloatRange(1), help="of a cluster: load and faults for so long"),
    click.option("--tasks", type=click.IntRange(0), help="of a cluster: so many tasks in all"),
    click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="of a cluster: keep its logs there"),
    click.option("--loopback", is_flag=True, help="of a cluster: relays on loopback, though there might be namespaces"),
)


def run_cluster(scenario: Scenario, seed: int, trace: TextIO | None, wanted: Wanted) -> Outcome:
    """A run with a progress bar; Ctrl-C ends all of it in order. Raises ``Refused``, ``Interrupted``."""
    from netsim.cluster.run import Options, run  # noqa: PLC0415 - daemons' rooms take a while to load

    options = Options(trace, wanted.logs, wanted.loopback)
    logging.getLogger("sel").addHandler(logging.NullHandler())  # what daemons have to say is in their logs
    whole_ms = round((scenario.seconds + scenario.settle_s) * 1000)
    with output.progress(f"{scenario.name} seed {seed}, daemons", whole_ms) as bar:

        async def command() -> Outcome:
            return await run(scenario, seed, lambda done, _whole: bar(done), options)

        outcome: Outcome = finish(command)
    return outcome
