"""How fast WebSocket frames may come, however small they are (docs/network.md §7).

A frame of six bytes takes as long to read as one of a kilobyte, so bounds in bytes do not bound the work. Here the
heads of frames are walked over (RFC 6455 §5.2) before anybody reads the frames: a few of them are handed on at a time,
so that nothing else waits long, and no more in a second than an honest peer ever sends. What comes faster waits in the
socket, and its sender with it.
"""

from __future__ import annotations

from typing import Final

import trio

from net.proto.budget import Rate, TokenBucket

frames_at_once = 64
rate: Final = Rate(2_000, 1_000, 4_000)
_http_end = b"\r\n\r\n"
_length_bytes = {126: 2, 127: 8}


class FrameHeads:
    """Where frames begin in a stream that starts with the head of an HTTP request or response."""

    def __init__(self) -> None:
        self._http: bytes | None = b""
        self._head = b""
        self._payload_left = 0

    def portion(self, data: bytes, most: int) -> tuple[int, int]:
        """(bytes, frames): how far into ``data`` it is until ``most`` frames have ended, or data does."""
        at = self._skip_http(data)
        frames = 0
        while at < len(data) and frames < most:
            if self._payload_left:
                skipped = min(self._payload_left, len(data) - at)
                self._payload_left -= skipped
                at += skipped
                continue
            head = self._head + data[at : at + 14 - len(self._head)]
            size, payload = _measured(head)
            if len(head) < size:
                self._head, at = head, len(data)
                break
            at += size - len(self._head)
            self._head, self._payload_left = b"", payload
            frames += 1
        return at, frames

    def _skip_http(self, data: bytes) -> int:
        if self._http is None:
            return 0
        said = self._http + data
        end = said.find(_http_end)
        if end < 0:
            self._http = said[-len(_http_end) + 1 :]
            return len(data)
        at, self._http = end + len(_http_end) - len(self._http), None
        return at


def _measured(head: bytes) -> tuple[int, int]:
    """(size of a frame's head, size of its payload); the first alone counts while the head is not whole."""
    if len(head) < 2:
        return 2, 0
    low = head[1] & 0x7F
    width = _length_bytes.get(low, 0)
    size = 2 + width + 4 * (head[1] >> 7)
    return size, int.from_bytes(head[2 : 2 + width], "big") if width else low


class Pace:
    """One connection's."""

    def __init__(self) -> None:
        self._heads = FrameHeads()
        self._bucket = TokenBucket(rate, _now_ms())

    async def portion(self, data: bytes) -> int:
        """How many of these bytes, which came next, to hand on, once it is time for them."""
        size, frames = self._heads.portion(data, frames_at_once)
        wait_ms = self._bucket.wait_ms(frames, _now_ms())
        if wait_ms:
            await trio.sleep((wait_ms + 1) / 1000)
        self._bucket.take(frames, _now_ms())
        return size


def _now_ms() -> int:
    return int(trio.current_time() * 1000)
