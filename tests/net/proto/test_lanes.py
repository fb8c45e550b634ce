"""Lanes: what is final goes first, and who does not drain loses news, then the link."""

from __future__ import annotations

from net.proto import lanes
from net.proto.lanes import Lanes


def drained(queue: Lanes) -> list[bytes]:
    found = []
    while (frame := queue.take()) is not None:
        found.append(frame)
    return found


def test_finality_goes_before_events_and_events_before_backfill() -> None:
    queue = Lanes()
    for lane, frame in ((2, b"range"), (1, b"one"), (0, b"vote"), (1, b"two")):
        assert queue.put(lane, frame, dropping=False)
    assert len(queue) == 4
    assert drained(queue) == [b"vote", b"one", b"two", b"range"]
    assert len(queue) == 0


def test_news_for_who_does_not_drain_is_dropped_and_answers_are_not() -> None:
    queue = Lanes()
    large = bytes(lanes.gossip_bytes_max)
    assert queue.put(2, large, dropping=False)
    assert queue.put(1, b"news", dropping=True)
    assert queue.dropped == 1
    assert queue.put(0, b"answer", dropping=False)
    assert drained(queue) == [b"answer", large]
    assert queue.put(1, b"news", dropping=True)
    assert drained(queue) == [b"news"]


def test_who_lets_even_answers_pile_up_is_ended() -> None:
    queue = Lanes()
    assert queue.put(2, bytes(lanes.queue_bytes_max), dropping=False)
    assert not queue.put(0, b"x", dropping=False)
    assert len(drained(queue)) == 1
    assert queue.put(0, b"x", dropping=False)
