"""What happened in a run, line by line: hashed whole, so that runs can be compared, and kept for the last moments."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TextIO

lines_kept_max = 400


class Trace:
    """Lines of ``ms node what detail``. ``digest``: SHA-256 of all of them."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._hash = hashlib.sha256()
        self._out = out
        self.last: deque[str] = deque(maxlen=lines_kept_max)
        self.lines = 0

    def line(self, at_ms: int, who: str, what: str, detail: str) -> None:
        """One more."""
        said = f"{at_ms:>9} {who} {what} {detail}"
        self.lines += 1
        self._hash.update(said.encode() + b"\n")
        self.last.append(said)
        if self._out is not None:
            print(said, file=self._out)

    @property
    def digest(self) -> str:
        """The run in 64 hex digits."""
        return self._hash.hexdigest()
