"""Frames that come too fast are handed on a few at a time and so many a second, wherever the bytes are cut."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request
from wsproto.frame_protocol import FrameProtocol

from net.io.pace import FrameHeads, Pace, frames_at_once, rate
from net.proto.message import frame_bytes_max

sizes = (0, 1, 125, 126, 127, 65_535, 65_536, frame_bytes_max)


def stream() -> bytes:
    """The head of an HTTP request, and a frame of every size, with a ping behind each."""
    head = WSConnection(ConnectionType.CLIENT).send(Request(host="x", target="/"))
    return head + b"".join(framed(bytes(size)) + framed(b"", ping=True) for size in sizes)


def framed(data: bytes, *, ping: bool = False) -> bytes:
    """One masked frame of a client."""
    protocol = FrameProtocol(client=True, extensions=[])
    return bytes(protocol.ping(data) if ping else protocol.send_data(data))


@pytest.mark.parametrize("seed", range(20))
def test_frames_are_counted_however_the_bytes_are_cut(seed: int) -> None:
    draw, data, heads, found = random.Random(seed), stream(), FrameHeads(), 0
    while data:
        size = draw.choice((1, 2, 3, 7, 100, 65_536))
        piece, data = data[:size], data[size:]
        while piece:
            at, frames = heads.portion(piece, 1)
            assert at > 0
            piece, found = piece[at:], found + frames
    assert found == 2 * len(sizes)


def test_no_more_frames_are_handed_on_at_once_than_may_be() -> None:
    heads = FrameHeads()
    assert heads.portion(b"\r\n\r\n" + framed(b"") * 1_000, frames_at_once) == (4 + 6 * frames_at_once, frames_at_once)


async def test_a_flood_of_frames_passes_at_the_pace_of_an_honest_peer(autojump_clock: MockClock) -> None:
    pace, flood, frames = Pace(), b"\r\n\r\n" + framed(b"") * 14_000, 14_000
    began = trio.current_time()
    while flood:
        flood = flood[await pace.portion(flood) :]
    assert trio.current_time() - began == pytest.approx((frames - rate.burst) / 2_000, rel=0.05)


async def test_a_large_frame_waits_for_nothing(autojump_clock: MockClock) -> None:
    pace, began = Pace(), trio.current_time()
    await pace.portion(b"\r\n\r\n")
    for _ in range(10):
        whole = framed(bytes(frame_bytes_max))
        while whole:
            whole = whole[await pace.portion(whole[:65_536]) :]
    assert trio.current_time() == began
