"""What happened in a run, line by line: hashed whole, so that runs can be compared; and what led to a failure."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, TextIO

lines_kept_max = 4_000
turns_kept_max = 1_000
turns_told_max, doings_told_max = 15, 25
turns = ("fault", "start", "crash", "clock", "upgrade", "recovered")
"""What changes the conditions under which a node does what it does."""
_names = re.compile(r"\bn\d{3}\b|\b[0-9a-f]{8}\b")


class Line(NamedTuple):
    """One thing that happened. ``number``: of all lines of the run; ``at_ms``: virtual time since it began."""

    number: int
    at_ms: int
    who: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.at_ms:>9} {self.who} {self.what} {self.detail}"


class Trace:
    """Lines of ``ms node what detail``. ``digest``: SHA-256 of all of them."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._hash = hashlib.sha256()
        self._out = out
        self._last: deque[Line] = deque(maxlen=lines_kept_max)
        self._turns: deque[Line] = deque(maxlen=turns_kept_max)
        self._keys: dict[str, str] = {}
        self.lines = 0

    def line(self, at_ms: int, who: str, what: str, detail: str) -> None:
        """One more."""
        self.lines += 1
        line = Line(self.lines, at_ms, who, what, detail)
        said = str(line)
        self._hash.update(said.encode() + b"\n")
        self._last.append(line)
        if what.startswith(turns):
            self._turns.append(line)
        if what == "start":
            self._keys[detail.rpartition(" ")[2]] = who
        if self._out is not None:
            print(said, file=self._out)

    @property
    def digest(self) -> str:
        """The run in 64 hex digits."""
        return self._hash.hexdigest()

    def around(self, fault: str) -> list[str]:
        """What led to ``fault``, in few lines: the last turns that the run took, and what those whom it names did last.

        Nodes are named by their names, keys and tasks by the first eight hex digits. Of what they stored only the end
        is told. If nobody is named, or nothing is known of them, it is the last lines of all.
        """
        names = set(_names.findall(fault))
        names |= {self._keys[name] for name in names if name in self._keys}
        concerned = [line for line in self._last if line.what != "end" and _concerns(line, names)] or list(self._last)
        stored = {line.who: line for line in concerned if line.what == "wrote"}
        doings = [line for line in concerned if line.what != "wrote"][-doings_told_max:]
        told = {*_lately(self._turns, names), *doings, *sorted(stored.values())[-doings_told_max:], self._last[-1]}
        return [str(line) for line in sorted(told)]


def _concerns(line: Line, names: set[str]) -> bool:
    return line.who in names or any(name in line.detail for name in names)


def _lately(lines: Iterable[Line], names: set[str]) -> list[Line]:
    """The last turns: all faults, and what else the named ones met."""
    found = [line for line in lines if line.what.startswith("fault") or line.who in names]
    return found[-turns_told_max:]
