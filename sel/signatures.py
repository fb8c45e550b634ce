"""Verifying many signatures: in chunks, on other threads.

libsodium works without the interpreter's lock, so two threads give two cores; a chunk of 64 pays for the hop, one
signature a hop does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from wattswarm.kernel.event import Event, signature_holds

chunk_events = 64


def bad_signatures(events: Sequence[Event]) -> list[Event]:
    """The events whose signature is not their author's. Blocks; releases the interpreter's lock while it works."""
    return [event for event in events if not signature_holds(event)]


async def verify(events: Sequence[Event], limiter: trio.CapacityLimiter) -> list[Event]:
    """The events of ``events`` whose signature does not hold, checked in chunks on at most ``limiter`` threads."""
    bad: list[Event] = []

    async def check(chunk: Sequence[Event]) -> None:
        bad.extend(await trio.to_thread.run_sync(bad_signatures, chunk, limiter=limiter))

    async with trio.open_nursery() as nursery:
        for start in range(0, len(events), chunk_events):
            nursery.start_soon(check, events[start : start + chunk_events])
    return bad
