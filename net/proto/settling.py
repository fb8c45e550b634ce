"""When two nodes that had each other's ranges compare what ranges do not mend: once both are done (docs/network.md §5).

A peer that was served a moment ago is still storing what it asked for, and is left alone a moment longer.
"""

from __future__ import annotations

from collections.abc import Mapping

from net.proto.peer import Peer
from net.proto.rhythm import never_ms
from net.proto.values import Link

settle_ms = 300


class Settling:
    """The peers that are to be compared with, and when. Their number, not that of all peers, is what it costs."""

    def __init__(self) -> None:
        self._due_ms: dict[Link, int] = {}

    def begin(self, link: Link, now_ms: int) -> None:
        """The peer has nothing more that could be asked for in ranges."""
        self._due_ms[link] = now_ms + settle_ms

    def left(self, link: Link) -> None:
        """The peer is gone."""
        self._due_ms.pop(link, None)

    def due(self, peers: Mapping[Link, Peer], now_ms: int) -> list[Peer]:
        """Whom to compare with now; each is named once."""
        settled = []
        for link in [link for link, due_ms in self._due_ms.items() if due_ms <= now_ms]:
            if now_ms < peers[link].served_ms + settle_ms:
                self.begin(link, now_ms)
            else:
                del self._due_ms[link]
                settled.append(peers[link])
        return settled

    def next_ms(self) -> int:
        """When ``due`` has somebody, at the earliest."""
        return min(self._due_ms.values()) if self._due_ms else never_ms
