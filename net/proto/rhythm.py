"""When a node pings its peers, and when it compares with one of them whatever gossip says (docs/network.md §4, §6).

A comparison comes by itself every 30 s, the more rarely the longer all is well, and soon again when anything is new: of
that, gossip may have lost a part somewhere. Knows times and nothing else.
"""

from __future__ import annotations

from net.proto.draw import Draw

ping_every_ms = 15_000
reconcile_every_ms = 30_000
reconcile_every_ms_max = 300_000
never_ms = 1 << 62
"""When something is due that the clock alone does not bring: later than any time."""


class Rhythm:
    """The times of one node."""

    def __init__(self, draw: Draw, now_ms: int) -> None:
        self._draw = draw
        self._period_ms = reconcile_every_ms
        self._reconcile_ms = now_ms + reconcile_every_ms
        self._ping_ms = now_ms + ping_every_ms

    @property
    def next_ms(self) -> int:
        """When something is due."""
        return min(self._ping_ms, self._reconcile_ms)

    def pings(self, now_ms: int) -> bool:
        """Whether it is time to ping; it is so once."""
        due = self._ping_ms <= now_ms
        if due:
            self._ping_ms = now_ms + ping_every_ms
        return due

    def compares(self, now_ms: int) -> bool:
        """Whether it is time to compare; it is so once, and the next time comes later."""
        due = self._reconcile_ms <= now_ms
        if due:
            self._period_ms = min(reconcile_every_ms_max, self._period_ms * 2)
            spread_ms = self._period_ms // 2
            self._reconcile_ms = now_ms + self._period_ms - spread_ms // 2 + self._draw.randrange(spread_ms)
        return due

    def compare_soon(self, now_ms: int) -> None:
        """Something is new."""
        self._period_ms = reconcile_every_ms
        self._reconcile_ms = min(self._reconcile_ms, now_ms + reconcile_every_ms)
