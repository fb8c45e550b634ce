"""Data on stdout, words on stderr; for people at a terminal tables and colour, with ``--json`` one document."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

verdict_colours = {"accepted": "green", "refused": "red", "void": "red", "unsupported": "yellow"}
state_colours = {"FINALIZED": "green", "OPEN": "cyan", "FORKED": "red", "EXPIRED": "yellow"}


def document(value: Any) -> None:
    """One JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def line(value: Any) -> None:
    """One JSON document on one line, at once: for what is followed."""
    click.echo(msgspec.json.encode(value).decode())
    sys.stdout.flush()


def note(text: str) -> None:
    """Words for people, on stderr."""
    click.echo(text, err=True)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while something long goes on, for a person at a terminal; tell it how much is done."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda done: bars.update(bar, completed=done)


def fields(pairs: Mapping[str, Any]) -> None:
    """Names and values, one a line: text as it is, all else as JSON."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {shown}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], colours: Mapping[str, str] | None = None) -> None:
    """Columns under a header; cells found in ``colours`` have that colour."""
    cells = [list(map(str, row)) for row in rows]
    widths = [max([len(name), *(len(row[at]) for row in cells)]) for at, name in enumerate(header)]
    click.echo("  ".join(click.style(name.ljust(width), bold=True) for name, width in zip(header, widths, strict=True)))
    for row in cells:
        shown = (_coloured(cell, cell.ljust(width), colours or {}) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(shown).rstrip())


def _coloured(cell: str, text: str, colours: Mapping[str, str]) -> str:
    return click.style(text, fg=colours[cell]) if cell in colours else text


def moment(unix_ms: int) -> str:
    """A time of an event, UTC, for people."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def short(hex_id: str) -> str:
    """The first digits of an id."""
    return f"{hex_id[:8]}…"


def sum_hex(number: int) -> str:
    """A fingerprint sum or state root as 64 hex digits, little-endian as it is on the wire."""
    return number.to_bytes(32, "little").hex()
