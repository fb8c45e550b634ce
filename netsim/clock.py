"""Virtual time: what happens next, in an order that depends on nothing but the run (docs/netsim.md §1).

A discrete-event loop. Things due at the same millisecond happen in the order in which they were asked for. Time is
unix ms and moves only from one thing to the next, so a quiet hour costs nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Annotated

from msgspec import Meta

start_ms = 1_790_000_000_000
"""When every run begins: a fixed moment, so that no run depends on the day it is made."""


Share = Annotated[float, Meta(ge=0, le=1)]
Ms = Annotated[int, Meta(ge=0)]


def check_spans(*spans: tuple[int, int]) -> None:
    """Raise ``ValueError`` for a span whose least is more than its most."""
    for least, most in spans:
        if least > most:
            raise ValueError(f"[{least}, {most}] is no span: the least comes first")


def drawn(draw: random.Random, span: tuple[int, int]) -> int:
    """A whole number from the least to the most of ``span``, each as likely as any."""
    least, most = span
    return least + int(draw.random() * (most - least + 1))


class Timeline:
    """The loop. ``steps``: how many things have happened."""

    def __init__(self, now_ms: int = start_ms) -> None:
        self.now_ms = now_ms
        self.began_ms = now_ms
        self.steps = 0
        self._order = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []

    def at(self, at_ms: int, what: Callable[[], None]) -> None:
        """Have ``what`` happen at a time; now, if that is past."""
        self._order += 1
        heappush(self._queue, (at_ms if at_ms > self.now_ms else self.now_ms, self._order, what))

    def after(self, delay_ms: int, what: Callable[[], None]) -> None:
        """Have ``what`` happen in ``delay_ms``."""
        self.at(self.now_ms + delay_ms, what)

    @property
    def elapsed_ms(self) -> int:
        """Virtual time since the run began."""
        return self.now_ms - self.began_ms

    def run(self, until_ms: int) -> None:
        """Let everything happen that is due up to ``until_ms``, which is the time afterwards."""
        queue = self._queue
        while queue and queue[0][0] <= until_ms:
            self.now_ms, _, what = heappop(queue)
            self.steps += 1
            what()
        self.now_ms = max(self.now_ms, until_ms)
