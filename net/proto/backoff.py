"""How long a place is left alone after failures in a row (docs/network.md §2)."""

from __future__ import annotations

from net.proto.draw import Draw

backoff_ms_min = 1_000
backoff_ms_max = 300_000
backoff_ms_max_lasting = 30_000
"""Of a place that was reached before, or that people named."""


def backoff_ms(failures: int, draw: Draw, longest_ms: int = backoff_ms_max) -> int:
    """How long to leave a place alone after its ``failures``-th failure in a row: from 1 s doubling to the longest,
    half of it drawn, so that nodes which lost each other together do not all come back together."""
    assert failures >= 1
    most = min(longest_ms, 2 * backoff_ms_min << min(failures - 1, 16))
    return most // 2 + draw.randrange(most // 2 + 1)
