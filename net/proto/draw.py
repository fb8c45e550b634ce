"""Randomness as the wire protocol sees it: handed in, so that a simulated run is its seed and nothing else.

``random.Random`` has this shape, and so has ``random.SystemRandom``, which a real node must hand in: handshake
nonces come from here (docs/network.md §3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

Drawn = TypeVar("Drawn")


class Draw(Protocol):
    """A source of random values."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def randrange(self, start: int, /) -> int:
        """An integer in [0, start)."""
        ...

    def sample(self, population: Sequence[Drawn], k: int) -> list[Drawn]:
        """``k`` different members of ``population``, in random order."""
        ...

    def randbytes(self, n: int) -> bytes:
        """``n`` random bytes."""
        ...
