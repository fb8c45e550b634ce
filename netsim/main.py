"""``wattswarm-netsim``: run scenarios, sweep seeds, show a run again, draw a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
from msgspec.structs import replace

from cli import output
from cli.main import dashes, run
from cli.options import epilog
from netsim import scenario as scenarios
from netsim import sweep as sweeps
from netsim.cluster.options import Wanted, cluster_options, run_cluster
from netsim.scenario import Scenario
from netsim.world import Outcome, World
from wattswarm.kernel.limits import members_max
from wattswarm.kernel.refusal import Problem, Refused

F = TypeVar("F", bound=Callable[..., Any])


@click.group(
    context_settings={"token_normalize_func": dashes, "help_option_names": ["-h", "--help"]},
    epilog=epilog(("wattswarm-netsim run calm-lan",)),
)
@click.version_option(package_name="wattswarm")
def cli() -> None:
    """Swarms in virtual time: break them in every way, each run reproducible from one number."""


@cli.command("list", epilog=epilog(("wattswarm-netsim list",)))
def listed() -> None:
    """The scenarios that there are."""
    found = [scenarios.load(name) for name in scenarios.names()]
    output.table(("scenario", "nodes", "size", "what"), [(s.name, str(s.nodes), s.size, s.about) for s in found])


def _writable(_context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before there is anything to lose."""
    if path is None:
        return None
    there = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        found = Problem(f"--{option.name}", str(path), "a file in a folder that is there, which may be written")
        raise Refused("file", f"nothing can be written there: {error.strerror}", (found,)) from None
    if not there:
        path.unlink()
    return path


def _file_option(name: str, help_text: str, *, required: bool = False) -> Callable[[F], F]:
    """An option that names a file to write."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option(name, type=kind, callback=_writable, required=required, help=help_text)


def _chosen(name: str, nodes: int | None, *, cluster: bool = False) -> Scenario:
    scenario = scenarios.load(name)
    scenarios.check_kinds(scenario, cluster=cluster)
    if nodes is None:
        return scenario
    if not scenario.nodes_min <= nodes <= members_max:
        found = Problem("nodes", str(nodes), f"{scenario.nodes_min} to {members_max}")
        raise Refused("nodes", "so many nodes cannot be simulated", (found,))
    return replace(scenario, nodes=nodes)


@cli.command("run", epilog=epilog(("wattswarm-netsim run calm-lan --seed 7",)))
@click.argument("scenario")
@click.option("--seed", type=click.IntRange(0), default=1, help="the number that makes the run [1]")
@click.option("--nodes", type=int, help="another number of nodes than the scenario's")
@_file_option("--out", "write the run down, for report and replay")
@_file_option("--trace", "write every line of the trace")
@cluster_options
def one(scenario: str, seed: int, nodes: int | None, out: Path | None, trace: Path | None, wanted: Wanted) -> int:
    """Run one scenario (a name of `list`, or a TOML file) with one seed."""
    chosen = wanted.changed(_chosen(scenario, nodes, cluster=wanted.cluster))
    if out is not None and trace is not None and out.resolve() == trace.resolve():
        raise Refused(
            "file", "two things cannot be in one file", (Problem("--trace", str(trace), "not that of --out"),)
        )
    again = sweeps.again(scenario, seed, nodes) + wanted.words
    began = time.monotonic()
    with nullcontext() if trace is None else trace.open("w") as lines:
        outcome = run_cluster(chosen, seed, lines, wanted) if wanted.cluster else _simulated(chosen, seed, lines)
    _tell(outcome, time.monotonic() - began)
    if out is not None:
        sweeps.record(chosen, outcome, out, again)
    if outcome.fault:
        _tell_fault(outcome, again)
    return 1 if outcome.fault else 0


def _simulated(chosen: Scenario, seed: int, trace: TextIO | None) -> Outcome:
    world = World(chosen, seed, trace)
    whole_ms = round((chosen.seconds + chosen.settle_s) * 1000)
    with output.progress(f"{chosen.name} seed {seed}", whole_ms) as bar:
        return world.run(lambda done, _whole: bar(done))


def _tell(outcome: Outcome, wall_s: float) -> None:
    figures, virtual_s = outcome.figures, outcome.virtual_ms / 1000
    times = (
        f"of daemons, {figures['ground']}"
        if sweeps.is_cluster(outcome)
        else f"{virtual_s / wall_s:.0f} times real time"
    )
    tasks = ", ".join(f"{count} {how.lower()}" for how, count in sorted(figures.get("ended", {}).items()))
    output.fields(
        {
            "scenario": f"{outcome.scenario}, seed {outcome.seed}",
            "held": click.style("everything", fg="green") if not outcome.fault else click.style("not all", fg="red"),
            "time": f"{virtual_s:.0f} s in {wall_s:.1f} s, {times}",
            "events": f"{outcome.events} on {figures['nodes']} nodes, {outcome.tasks} tasks{tasks and f' ({tasks})'}",
            "delivery": _ms(figures["delivery_ms"]),
            "finality": _ms(figures["finality_ms"]),
            "copies": f"{figures['copies']} of an event that a node received" if figures["copies"] else "not counted",
            "bytes": f"{figures['bytes_per_node']} a node",
            "trace": outcome.digest,
        }
    )


def _ms(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value} ms" for name, value in found.items()) or "none"


def _tell_fault(outcome: Outcome, again: str) -> None:
    for line in outcome.last:
        output.note(line)
    output.note(click.style(f"FAILED {outcome.fault}", fg="red"))
    output.note(f"again: {again}")


@cli.command("sweep", epilog=epilog(("wattswarm-netsim sweep calm-lan --seeds 1..2 --jobs 1",)))
@click.argument("scenario")
@click.option("--seeds", default="1..20", help="A..B, both counted [1..20]")
@click.option("--jobs", type=click.IntRange(1, sweeps.jobs_max), default=2, help="processes [2]")
@click.option("--nodes", type=int, help="another number of nodes than the scenario's")
def swept(scenario: str, seeds: str, jobs: int, nodes: int | None) -> int:
    """Run many seeds of a scenario.

    `small`, `big`: all scenarios of that size; `every`: all seeds of the small ones and the first of the big ones.
    """
    wanted = [(name, _chosen(name, nodes), some) for name, some in _stands_for(scenario, sweeps.seeds_of(seeds))]
    with sweeps.workers(jobs) as pool:
        begun = [(name, sweeps.sweep(chosen, some, pool), len(some)) for name, chosen, some in wanted]
        failed = sum([_swept(name, outcomes, count, nodes) for name, outcomes, count in begun])
    return 1 if failed else 0


def _stands_for(which: str, seeds: range) -> list[tuple[str, range]]:
    """The scenarios that are meant, and the seeds of each. Big ones come first: the last to end are short then."""
    of_size = {"big": seeds[:1], "small": seeds} if which == "every" else {which: seeds}
    sizes = [(name, scenarios.load(name).size) for name in scenarios.names()]
    return [(name, some) for size, some in of_size.items() for name, its in sizes if its == size] or [(which, seeds)]


def _swept(name: str, outcomes: Iterable[Outcome], seeds: int, nodes: int | None) -> int:
    """How many seeds of a scenario fail."""
    faults, began = 0, time.monotonic()
    with output.progress(name, seeds) as bar:
        for count, outcome in enumerate(outcomes, 1):
            bar(count)
            if outcome.fault:
                faults += 1
                output.note(f"FAILED {outcome.fault}\nagain: {sweeps.again(name, outcome.seed, nodes)}")
    click.echo(f"{name}: {seeds - faults} passed, {faults} failed in {time.monotonic() - began:.0f} s")
    sys.stdout.flush()
    return faults


@cli.command("replay", epilog=epilog(("wattswarm-netsim replay run.json",)))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def replayed(file: Path) -> int:
    """Run again what `run --out` wrote down, and say whether the same happened."""
    recorded = sweeps.read_record(file)
    if sweeps.is_cluster(recorded.outcome):
        raise Refused("record", f"{file} is a run of daemons: what they did in real time never happens again")
    outcome = World(recorded.scenario, recorded.outcome.seed).run()
    before = recorded.outcome.digest
    same = outcome.digest == before
    click.echo(f"the same trace, {before}" if same else f"another trace: {outcome.digest}, not {before}")
    click.echo(outcome.fault or "everything held")
    return 0 if same else 1


@cli.command("report", epilog=epilog(("wattswarm-netsim report run.json --html report.html",)))
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(dir_okay=False, path_type=Path))
@_file_option("--html", "the page to write", required=True)
def reported(files: tuple[Path, ...], html: Path) -> None:
    """Draw a recorded run: one page, a PNG of each plot and the numbers beside it.

    Of several runs: what an event costs as the swarm grows.
    """
    from netsim import growth, page, report  # noqa: PLC0415 - only a report needs the plotting library

    runs = [sweeps.read_record(file) for file in files]
    lost = page.displaced(html, runs)
    if lost is not None:
        found = Problem("--html", str(html), "a page of another name")
        raise Refused("file", f"the report would replace {lost}, which no report wrote", (found,))
    if len(runs) > 1:
        _check_comparable(files, runs)
    for written in growth.write(runs, html) if len(runs) > 1 else report.write(runs[0], html):
        click.echo(str(written))


def _check_comparable(files: Sequence[Path], runs: Sequence[sweeps.Recorded]) -> None:
    """Refuse what cannot be drawn together."""
    for file, recorded in zip(files, runs, strict=True):
        if sweeps.is_cluster(recorded.outcome):
            raise Refused("record", f"{file} is a run of daemons, whose hops nobody counts: draw it by itself")


def main() -> None:
    """The console script."""
    sys.exit(run(lambda: cli(standalone_mode=False)))


if __name__ == "__main__":
    main()
