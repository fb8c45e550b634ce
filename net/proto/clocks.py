"""Whether this node's clock is right, as far as its member peers' clocks tell (docs/network.md §3).

Every HELLO says its sender's time. What it tells lies between two bounds, because the message took a while; of what is
possible the best is believed, so that a busy host is no wrong clock. Nobody is trusted alone: the median of three or
more is what counts; where half of them say ahead and half behind, it is ahead, since that does more harm. Knows no
clock of its own.
"""

from __future__ import annotations

from collections import OrderedDict

from wattswarm.kernel.limits import clock_skew_tolerance_ms

asked_min = 3
nodes_max = 64


class Clocks:
    """By how much each member's clock was ahead of this node's when they last met."""

    def __init__(self) -> None:
        self._ahead_ms: OrderedDict[bytes, int] = OrderedDict()
        self.off_ms = 0
        """By how much this node's clock is ahead (above 0) or behind (below 0); 0: it is right, or nobody can tell."""

    def heard(self, node_id: bytes, ahead_ms: int, took_ms: int) -> None:
        """A member's time less ours was ``ahead_ms`` when it came, after at most ``took_ms`` on its way."""
        least, most = ahead_ms, ahead_ms + max(0, took_ms)
        self._ahead_ms[node_id] = max(least, min(most, 0))
        self._ahead_ms.move_to_end(node_id)
        while len(self._ahead_ms) > nodes_max:
            self._ahead_ms.popitem(last=False)
        self.off_ms = self._off_ms()

    def shift(self, by_ms: int) -> None:
        """This host's clock was set, by so much: all others are as much less ahead of it."""
        for node_id in self._ahead_ms:
            self._ahead_ms[node_id] -= by_ms
        self.off_ms = self._off_ms()

    def enough(self) -> bool:
        """Whether as many were heard as it takes."""
        return len(self._ahead_ms) >= asked_min

    def _off_ms(self) -> int:
        if not self.enough():
            return 0
        heard = sorted(self._ahead_ms.values())
        middle = heard[(len(heard) - 1) // 2 : len(heard) // 2 + 1]
        best = min(middle, key=abs)
        if abs(best) <= clock_skew_tolerance_ms:
            return 0
        return -middle[0] if middle[0] < 0 < middle[-1] else -best
