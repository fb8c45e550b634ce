"""Drawn histories and drawn ways for them to arrive, for hypothesis.

A history is told from bytes (``tests.teller``) and an arrival from a number, so drawing costs little and shrinks
well: fewer steps, then plainer ones. ``arrivals`` is one way for a history
to reach one node.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.conformance import Item
from tests.teller import History, header_bytes, step_bytes, tell
from wattswarm.kernel.event import Event

steps_max = 60


def histories(steps_min: int = 0) -> st.SearchStrategy[History]:
    """Histories of 2 to 5 members and their strangers over up to three tasks."""
    headers = st.binary(min_size=header_bytes, max_size=header_bytes)
    step = st.binary(min_size=step_bytes, max_size=step_bytes)
    scripts = st.sampled_from((steps_min, 10, 25, 40)).flatmap(
        lambda least: st.lists(step, min_size=least, max_size=steps_max).map(b"".join)
    )
    return st.builds(tell, headers, scripts)


def seeded_history(seed: int) -> History:
    """One history without hypothesis: for samples that are counted."""
    source = random.Random(seed)
    return tell(source.randbytes(header_bytes), source.randbytes(source.randint(5, steps_max) * step_bytes))


@dataclass(frozen=True)
class Batch:
    """What arrives at once, when the node's clock shows ``now_ms``; ``restart``: the node restarts before."""

    items: Sequence[Item]
    now_ms: int
    restart: bool


def arrivals(history: History, seed: int) -> Iterator[Batch]:
    """One way for all of a history to arrive: an order, cut into batches, some things more than once.

    The clock moves on from anywhere in the history to its end, so that some events are early; the last batch is
    empty and comes when everything is due.
    """
    source = random.Random(seed)
    items = list(history.items)
    items += source.sample(items, len(items) // 5)
    _shuffle(items, source)
    start_ms = history.world.network.created_at
    now_ms = history.end_ms if source.random() < 0.4 else int(source.uniform(start_ms, history.end_ms))
    most = source.choice((1, 3, 8, 30, len(items) + 1))
    place = 0
    while place < len(items):
        size = source.randint(1, most)
        yield Batch(items[place : place + size], now_ms, source.random() < 0.2)
        place += size
        if source.random() < 0.3:
            now_ms = int(source.uniform(now_ms, history.end_ms))
    yield Batch((), history.end_ms, source.random() < 0.5)


def _shuffle(items: list[Item], source: random.Random) -> None:
    """In the order of telling, backwards, wholly mixed, mixed among neighbours, or author by author."""
    match source.randrange(5):
        case 0:
            pass
        case 1:
            items.reverse()
        case 2:
            source.shuffle(items)
        case 3:
            places = {id(item): place + source.uniform(0, 12) for place, item in enumerate(items)}
            items.sort(key=lambda item: places[id(item)])
        case _:
            ranks: dict[bytes, float] = {}
            items.sort(key=lambda item: ranks.setdefault(_author(item), source.random()))


def _author(item: Item) -> bytes:
    return item.author if isinstance(item, Event) else b""
