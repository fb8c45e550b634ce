"""A recorded run as a picture: one HTML page with everything in it, its plots as PNGs, and the numbers as JSON.

Each plot answers one question, which stands above it. Where faults were, the time axis is shaded.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import msgspec

from netsim.sweep import Recorded, again, is_cluster

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

wide, tall, dots_per_inch = 9.0, 2.8, 110
ink, accent, soft = "#1b2733", "#0b7285", "#ffc9c9"
page = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: {ink}; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ margin-bottom: .2rem; }} h2 {{ margin: 2rem 0 .2rem; font-size: 1.1rem; }}
p {{ margin: .2rem 0; }} img {{ width: 100%; }} code {{ background: #f1f3f5; padding: .1rem .3rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }} td {{ padding: .15rem 1.2rem .15rem 0; vertical-align: top; }}
td:first-child {{ color: #5c6770; }} .held {{ color: #2b8a3e; }} .fault {{ color: #c92a2a; font-weight: 600; }}
pre {{ background: #f8f9fa; padding: .6rem; overflow-x: auto; font-size: .8rem; }}
</style></head><body>
{body}
</body></html>
"""


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
    for begin, end, kind, _ in figures["faults"]:
        axes.barh(kinds.index(kind), max(0.2, (end - begin) / 1000), left=begin / 1000, height=0.5, color="#e03131")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xlabel("seconds")
    axes.set_ylim(-0.6, len(kinds) - 0.4)


def _costs(axes: Axes, figures: dict[str, Any]) -> None:
    spent = sorted(figures["bytes_each"].items())
    axes.bar(range(len(spent)), [count / 1024 for _, count in spent], color=accent)
    axes.set_ylabel("KiB sent")
    axes.set_xlabel(f"{len(spent)} nodes, the liars among them")
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
plots = (
    Plot("convergence", "Do all nodes come to hold the same?", _convergence, "convergence", timed=True),
    Plot("faults", "What went wrong, and when?", _timeline, "faults"),
    Plot("delivery", "How long does an event take to a node?", _delivery, "delays_ms"),
    Plot("finality", "How long does a decision take?", _finality, "finality_all_ms"),
    Plot("bytes", "What does each node send?", _costs, "bytes_each"),
    Plot("memory", "What memory does each daemon need?", _memory, "memory", timed=True),
)


def _drawn(plot: Plot, figures: dict[str, Any]) -> bytes:
    figure, axes = plt.subplots(figsize=(wide, tall), dpi=dots_per_inch, layout="constrained")
    plot.draw(axes, figures)
    if plot.timed:
        for begin, end, _, _ in figures["faults"]:
            axes.axvspan(begin / 1000, max(end, begin + 200) / 1000, color=soft, alpha=0.35, lw=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _rows(run: Recorded) -> list[tuple[str, str]]:
    figures: dict[str, Any] = run.outcome.figures

    def ms(name: str) -> str:
        found = figures[name]
        return ", ".join(f"{share} {value:,} ms" for share, value in found.items()) or "none"

    link, real = run.scenario.link, is_cluster(run.outcome)
    time = f"real time, daemons on {figures['ground']}" if real else "virtual time"
    ended = ", ".join(f"{count} {how.lower()}" for how, count in sorted(figures.get("ended", {}).items()))
    rows = [
        ("nodes", f"{run.scenario.nodes}, liars: {dict(run.scenario.liars) or 'none'}"),
        ("lines", f"{link.latency_ms[0]} to {link.latency_ms[1]} ms one way, {link.loss:.0%} of packets lost"),
        ("time", f"{run.outcome.virtual_ms / 1000:,.0f} s of {time}"),
        ("events", f"{run.outcome.events:,} on each node, {run.outcome.tasks} tasks{ended and f': {ended}'}"),
        ("an event reaches a node in", ms("delivery_ms")),
        ("a decision takes", ms("finality_ms")),
        ("copies of an event that a node gets", f"{figures['copies']}"),
        ("bytes sent a node", f"{figures['bytes_per_node']:,}"),
        ("plan" if real else "trace", run.outcome.digest),
    ]
    return [row for row in rows if row[1] != "None"]


def write(run: Recorded, page_file: Path) -> list[Path]:
    """Write the page, a PNG of each plot and the numbers beside it; the files that were written."""
    figures, fault = run.outcome.figures, run.outcome.fault
    command = again(run.scenario.name, run.outcome.seed) + " --cluster" * is_cluster(run.outcome)
    written = [page_file]
    body = [
        f"<h1>{html.escape(run.scenario.name)}, seed {run.outcome.seed}</h1>",
        f"<p>{html.escape(run.scenario.about)}</p>",
        f'<p class="fault">{html.escape(fault)}</p>' if fault else '<p class="held">Everything held.</p>',
        f"<p>Again: <code>{html.escape(command)}</code></p>",
        "<table>",
        *(f"<tr><td>{name}</td><td>{html.escape(said)}</td></tr>" for name, said in _rows(run)),
        "</table>",
    ]
    for plot in plots:
        if not figures.get(plot.needs):
            continue
        image = _drawn(plot, figures)
        file = page_file.with_name(f"{page_file.stem}-{plot.name}.png")
        file.write_bytes(image)
        written.append(file)
        encoded = base64.b64encode(image).decode()
        body.append(f'<h2>{plot.question}</h2><img alt="{plot.name}" src="data:image/png;base64,{encoded}">')
    if run.outcome.last:
        body.append(f"<h2>What led to it</h2><pre>{html.escape(chr(10).join(run.outcome.last))}</pre>")
    page_file.write_text(page.format(title=html.escape(run.scenario.name), ink=ink, body="\n".join(body)))
    numbers = page_file.with_suffix(".json")
    numbers.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    return [*written, numbers]
