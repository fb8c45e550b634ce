"""What waits to be sent on one link: three lanes, finality first, then events, then backfill (docs/network.md §4).

Bounded: what may be dropped is dropped when the link does not drain, because repair will serve it; a peer that lets
even its own answers pile up is cut off. So a slow peer costs itself news, and this node no memory.
"""

from __future__ import annotations

from collections import deque

lane_count = 3
gossip_bytes_max = 4 << 20
queue_bytes_max = 16 << 20


class Lanes:
    """Frames of one link, in the order in which they go out."""

    def __init__(self) -> None:
        self._lanes: tuple[deque[bytes], ...] = tuple(deque() for _ in range(lane_count))
        self._frames = 0
        self.bytes = 0
        """What waits, in all lanes together."""
        self.dropped = 0

    def __len__(self) -> int:
        return self._frames

    def put(self, lane: int, frame: bytes, *, dropping: bool) -> bool:
        """Queue a frame. False: the link holds more than it ever may, and must be ended."""
        if dropping and self.bytes + len(frame) > gossip_bytes_max:
            self.dropped += 1
            return True
        if self.bytes + len(frame) > queue_bytes_max:
            return False
        self._lanes[lane].append(frame)
        self._frames += 1
        self.bytes += len(frame)
        return True

    def take(self) -> bytes | None:
        """The next frame to send; None if nothing waits."""
        if not self._frames:
            return None
        frame = next(lane for lane in self._lanes if lane).popleft()
        self._frames -= 1
        self.bytes -= len(frame)
        return frame
