"""Hybrid logical clocks (Kulkarni et al., 2014): 48 bits of unix milliseconds, 16 bits of counter, in one uint64.

An author's next reading is above everything it holds, so an event always sorts after what its author had seen.
The clock itself is not read here: ``now_ms`` is handed in.
"""

from __future__ import annotations

counter_bits = 16
day_ms = 86_400_000


def pack(unix_ms: int, counter: int = 0) -> int:
    """The clock reading of ``unix_ms`` milliseconds and ``counter`` (0..65535)."""
    return (unix_ms << counter_bits) | counter


def wall_ms(hlc: int) -> int:
    """The milliseconds part: what the protocol calls ``created_at``."""
    return hlc >> counter_bits


def day(hlc: int) -> int:
    """The UTC day number of a reading; quotas count by it."""
    return wall_ms(hlc) // day_ms


def after(held: int, now_ms: int) -> int:
    """The next reading of a node whose highest held reading is ``held`` and whose clock shows ``now_ms``."""
    return max(pack(now_ms), held + 1)
