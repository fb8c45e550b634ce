"""A recorded run as a picture: one HTML page with everything in it, its plots as PNGs, and the numbers as JSON.

Each plot answers one question, which stands above it. Where faults were, the time axis is shaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.axes import Axes

from netsim.network import LinkTerms
from netsim.page import Page, accent, ink, soft
from netsim.sweep import Recorded, again, is_cluster


@dataclass(frozen=True, slots=True)
class Plot:
    """A question, how its answer is drawn, and the figure that it needs. ``timed``: faults are shaded on its axis."""

    name: str
    question: str
    draw: Callable[[Axes, dict[str, Any]], None]
    needs: str
    timed: bool = False


def _convergence(axes: Axes, figures: dict[str, Any]) -> None:
    times = [at / 1000 for at, _, _ in figures["convergence"]]
    axes.plot(times, [most for _, _, most in figures["convergence"]], color=accent, label="the node with most")
    axes.plot(times, [least for _, least, _ in figures["convergence"]], color=ink, label="the node with least", ls="--")
    axes.set_ylabel("events")
    axes.set_xlabel("seconds")
    axes.set_xlim(0, times[-1])
    axes.legend(frameon=False, loc="upper left")


def _bars(axes: Axes, counts: Sequence[Sequence[int]], label: str) -> None:
    names = [f"{ms:,}" for ms, _ in counts]
    axes.bar(range(len(counts)), [count for _, count in counts], color=accent)
    axes.set_xticks(range(len(counts)), names)
    axes.set_xlabel("ms, from this to twice as much")
    axes.set_ylabel(label)


def _delivery(axes: Axes, figures: dict[str, Any]) -> None:
    _bars(axes, figures["delays_ms"], "arrivals")


def _finality(axes: Axes, figures: dict[str, Any]) -> None:
    found = sorted(figures["finality_all_ms"])
    shares = [(place + 1) / len(found) * 100 for place in range(len(found))]
    axes.step(found, shares, color=accent, where="post")
    axes.set_xlabel("ms from submission to proof")
    axes.set_ylabel("% of decisions")
    if found and found[-1] > 20 * max(1, found[0]):
        axes.set_xscale("log")


def _timeline(axes: Axes, figures: dict[str, Any]) -> None:
    kinds = sorted({kind for _, _, kind, _ in figures["faults"]})
    whole_ms = max([end for _, end, _, _ in figures["faults"]] + [at for at, _, _ in figures["convergence"][-1:]])
    for begin, end, kind, _ in figures["faults"]:
        width_ms = max(whole_ms / seen_parts, end - begin)
        axes.barh(kinds.index(kind), width_ms / 1000, left=begin / 1000, height=0.5, color="#e03131")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xlabel("seconds")
    axes.set_ylim(-0.6, len(kinds) - 0.4)
    axes.set_xlim(0, whole_ms / 1000)


def _costs(axes: Axes, figures: dict[str, Any]) -> None:
    spent = sorted(figures["bytes_each"].items())
    axes.bar(range(len(spent)), [count / 1024 for _, count in spent], color=accent)
    axes.set_ylabel("KiB sent")
    axes.set_xlabel(f"{len(spent)} nodes, liars too if there are any")
    if len(spent) <= shown_names_max:
        axes.set_xticks(range(len(spent)), [name for name, _ in spent])


def _memory(axes: Axes, figures: dict[str, Any]) -> None:
    for name, seen in sorted(figures["memory"].items()):
        axes.plot([at / 1000 for at, _ in seen], [rss / 2**20 for _, rss in seen], label=name, lw=1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MiB")
    axes.set_xlabel("seconds")
    axes.legend(frameon=False, loc="lower right", ncols=8)


shown_names_max = 16
seen_parts = 400
"""Of the time axis: what is shorter than one of so many parts is drawn as long as that, to be seen."""
plots = (
    Plot("convergence", "Do all nodes come to hold the same?", _convergence, "convergence", timed=True),
    Plot("faults", "What went wrong, and when?", _timeline, "faults"),
    Plot("delivery", "How long does an event take to a node?", _delivery, "delays_ms"),
    Plot("finality", "How long does a decision take?", _finality, "finality_all_ms"),
    Plot("bytes", "What does each node send?", _costs, "bytes_each"),
    Plot("memory", "What memory does each daemon need?", _memory, "memory", timed=True),
)


def _with_faults(plot: Plot, figures: dict[str, Any]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        plot.draw(axes, figures)
        for begin, end, _, _ in figures["faults"] if plot.timed else ():
            axes.axvspan(begin / 1000, max(end, begin + 200) / 1000, color=soft, alpha=0.35, lw=0)

    return draw


def _copies(copies: float | None) -> str:
    """Copies that gossip brought; fewer than one where it lost some."""
    return f"{copies} by gossip, the rest by backfill" if copies is not None and copies < 1 else f"{copies}"


def _lines(link: LinkTerms) -> str:
    """What every path of a run is like, in words."""
    least, most = link.latency_ms
    said = [f"{least} to {most} ms one way"]
    if link.tail_ms:
        said.append(f"{link.tail_ms:g} ms more in the mean")
    if link.spikes:
        said.append(f"{link.spikes:.1%} {link.spike_ms[0]} to {link.spike_ms[1]} ms later")
    return ", ".join([*said, f"{link.loss:.1%} of packets lost"])


def _rows(run: Recorded) -> list[tuple[str, str]]:
    figures: dict[str, Any] = run.outcome.figures

    def ms(name: str) -> str:
        found = figures[name]
        return ", ".join(f"{share} {value:,} ms" for share, value in found.items()) or "none"

    real = is_cluster(run.outcome)
    time = f"real time, daemons on {figures['ground']}" if real else "virtual time"
    ended = ", ".join(f"{count} {how.lower()}" for how, count in sorted(figures.get("ended", {}).items()))
    rows = [
        ("nodes", f"{run.scenario.nodes}, liars: {dict(run.scenario.liars) or 'none'}"),
        ("lines", _lines(run.scenario.link)),
        ("time", f"{run.outcome.virtual_ms / 1000:,.0f} s of {time}"),
        ("events", f"{run.outcome.events:,} on each node, {run.outcome.tasks} tasks{ended and f': {ended}'}"),
        ("an event reaches a node in", ms("delivery_ms")),
        ("a decision takes", ms("finality_ms")),
        ("copies of an event that a node gets", _copies(figures["copies"])),
        ("hops that an event takes to a node", f"{figures.get('hops_mean')}"),
        ("bytes sent a node", f"{figures['bytes_per_node']:,}"),
        ("plan" if real else "trace", run.outcome.digest),
    ]
    return [row for row in rows if row[1] != "None"]


def write(run: Recorded, file: Path) -> list[Path]:
    """Write the page, a PNG of each plot and the numbers beside it; the files that were written."""
    figures, fault = run.outcome.figures, run.outcome.fault
    page = Page(file, run.scenario.name)
    page.say(f"{run.scenario.name}, seed {run.outcome.seed}", "h1")
    page.say(run.scenario.about)
    page.say(fault or "Everything held.", kind="fault" if fault else "held")
    page.say("Again:")
    page.say(run.again or again(run.scenario.name, run.outcome.seed), "code")
    page.table(_rows(run))
    for plot in plots:
        if figures.get(plot.needs):
            page.plot(plot.name, plot.question, _with_faults(plot, figures))
    if run.outcome.last:
        page.say("What led to it", "h2")
        page.say("\n".join(run.outcome.last), "pre")
    return page.write(msgspec.structs.asdict(run))
