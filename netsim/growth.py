"""Several recorded runs as one picture: what an event costs a node, and how far it travels, as the swarm grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, ScalarFormatter
from msgspec import Struct

from netsim.page import Page, accent, ink
from netsim.sweep import Recorded


class Point(Struct, frozen=True):
    """One run. ``hops``: mean, and that of the 99th percentile; ``bytes``: sent, of a node for an event."""

    scenario: str
    seed: int
    held: bool
    nodes: int
    events: int
    hops: tuple[float, float]
    copies: float
    bytes: float
    delivery_ms: tuple[float, float]


def _point(run: Recorded) -> Point:
    figures = run.outcome.figures
    return Point(
        run.outcome.scenario,
        run.outcome.seed,
        not run.outcome.fault,
        figures["nodes"],
        figures["events"],
        (figures.get("hops_mean") or 0, figures.get("hops", {}).get("p99", 0)),
        figures["copies"] or 0,
        round(figures["bytes_per_node"] / max(1, figures["events"])),
        (figures["delivery_ms"].get("p50", 0), figures["delivery_ms"].get("p99", 0)),
    )


Lines = Sequence[tuple[str, Callable[[Point], float]]]
plots: Sequence[tuple[str, str, str, Lines]] = (
    (
        "hops",
        "How many hops does an event take to a node?",
        "hops",
        (("mean", lambda point: point.hops[0]), ("p99", lambda point: point.hops[1])),
    ),
    (
        "copies",
        "How often does a node receive an event?",
        "copies",
        (("mean", lambda point: point.copies),),
    ),
    (
        "bytes",
        "How much does a node send in all, for each event?",
        "bytes",
        (("mean", lambda point: point.bytes),),
    ),
    (
        "delivery",
        "How long does an event take to a node?",
        "ms",
        (("p50", lambda point: point.delivery_ms[0]), ("p99", lambda point: point.delivery_ms[1])),
    ),
)


def _draw(points: Sequence[Point], unit: str, lines: Lines) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for (label, value), color in zip(lines, (accent, ink), strict=False):
            at: dict[int, list[float]] = defaultdict(list)
            for point in points:
                at[point.nodes].append(value(point))
            axes.plot(sorted(at), [fmean(at[nodes]) for nodes in sorted(at)], color=color, label=label)
            axes.plot([p.nodes for p in points], [value(p) for p in points], ".", color=color)
        axes.set_xscale("log")
        axes.set_xticks(sorted({point.nodes for point in points}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=0)
        axes.set_xlabel("nodes")
        axes.set_ylabel(unit)
        if len(lines) > 1:
            axes.legend(frameon=False, loc="best")

    return draw


def write(runs: Sequence[Recorded], file: Path) -> list[Path]:
    """Write the page, a PNG of each plot and the numbers beside it; the files that were written."""
    points = sorted((_point(run) for run in runs), key=lambda point: (point.nodes, point.scenario, point.seed))
    page = Page(file, "Growth")
    page.say("As the swarm grows", "h1")
    page.say(f"{len(points)} runs of {points[0].nodes} to {points[-1].nodes} nodes: a dot is a run, a line their mean.")
    heads = ("scenario", "seed", "", "nodes", "events", "hops, mean, p99", "copies", "bytes an event", "ms, p50, p99")
    page.table([_row(point) for point in points], heads)
    for name, question, unit, lines in plots:
        page.plot(name, question, _draw(points, unit, lines))
    return page.write({"points": points})


def _row(point: Point) -> tuple[str, ...]:
    return (
        point.scenario,
        str(point.seed),
        "held" if point.held else "did not hold",
        f"{point.nodes:,}",
        f"{point.events:,}",
        f"{point.hops[0]:.1f}, {point.hops[1]}",
        f"{point.copies:.2f}",
        f"{point.bytes:,.0f}",
        f"{point.delivery_ms[0]:,}, {point.delivery_ms[1]:,}",
    )
