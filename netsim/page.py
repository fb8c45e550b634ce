"""A page that a person reads: text, tables and plots in one HTML file, a PNG of each plot and the numbers beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import msgspec

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from netsim.sweep import Recorded, read_record
from wattswarm.kernel.refusal import Refused

wide, tall, dots_per_inch = 9.0, 2.8, 110
ink, accent, soft = "#1b2733", "#0b7285", "#ffc9c9"
doctype = "<!doctype html>"
template = (
    doctype
    + """
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: {ink}; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ margin-bottom: .2rem; }} h2 {{ margin: 2rem 0 .2rem; font-size: 1.1rem; }}
p {{ margin: .2rem 0; }} img {{ width: 100%; }} code {{ background: #f1f3f5; padding: .1rem .3rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
td, th {{ padding: .15rem 1.2rem .15rem 0; vertical-align: top; }}
th {{ text-align: left; }} td:first-child, th {{ color: #5c6770; font-weight: 400; }}
.held {{ color: #2b8a3e; }} .fault {{ color: #c92a2a; font-weight: 600; }}
pre {{ background: #f8f9fa; padding: .6rem; overflow-x: auto; font-size: .8rem; }}
</style></head><body>
{body}
</body></html>
"""
)


class Page:
    """One page, made from top to bottom. ``file``: where it goes; what belongs to it goes beside it."""

    def __init__(self, file: Path, title: str) -> None:
        self._file, self._title = file, title
        self._body: list[str] = []
        self._written = [file]

    def say(self, text: str, tag: str = "p", kind: str = "") -> None:
        """A paragraph, or what else ``tag`` makes of it; ``kind``: its class."""
        self._body.append(f"<{tag}{kind and f' class={kind!r}'}>{html.escape(text)}</{tag}>")

    def table(self, rows: Iterable[Iterable[str]], heads: Iterable[str] = ()) -> None:
        """A table, with a line of heads if there are any."""
        above = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
        lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        self._body += ["<table>", *(f"<tr>{line}</tr>" for line in [above, *lines] if line), "</table>"]

    def plot(self, name: str, question: str, draw: Callable[[Axes], None]) -> None:
        """A plot under the question that it answers."""
        image = _drawn(draw)
        file = self._file.with_name(f"{self._file.stem}-{name}.png")
        file.write_bytes(image)
        self._written.append(file)
        encoded = base64.b64encode(image).decode()
        self.say(question, "h2")
        self._body.append(f'<img alt="{name}" src="data:image/png;base64,{encoded}">')

    def write(self, numbers: Mapping[str, Any]) -> list[Path]:
        """Write the page, and ``numbers`` as JSON, which a recorded run is itself; the files that are there now."""
        self._file.write_text(template.format(title=html.escape(self._title), ink=ink, body="\n".join(self._body)))
        beside = self._file.with_suffix(".json")
        if not beside.exists() or _is_of_a_report(beside):
            beside.write_bytes(msgspec.json.format(msgspec.json.encode({"page": self._file.name, **numbers})))
        return [*self._written, beside]


def displaced(file: Path, runs: Sequence[Recorded]) -> Path | None:
    """What a page of ``runs`` would destroy there that no report wrote; None if there is nothing."""
    if file.exists() and not file.read_bytes().startswith(doctype.encode()):
        return file
    beside = file.with_suffix(".json")
    return beside if beside.exists() and not _is_of_a_report(beside) and not _is_the_run(beside, runs) else None


def _is_of_a_report(file: Path) -> bool:
    try:
        said = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    return isinstance(said, dict) and "page" in said


def _is_the_run(file: Path, runs: Sequence[Recorded]) -> bool:
    try:
        return [read_record(file)] == runs
    except Refused:
        return False


def _drawn(draw: Callable[[Axes], None]) -> bytes:
    figure, axes = plt.subplots(figsize=(wide, tall), dpi=dots_per_inch, layout="constrained")
    draw(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()
