"""What a peer may cost, and how it is remembered: token buckets and a score that forgets (docs/network.md §7).

Whole numbers throughout, so that nothing a peer claims overflows or gets lost in rounding; ``now_ms`` is handed in,
and a clock that went back gives nothing and takes nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

Key = TypeVar("Key", bound=Hashable)
minute_ms = 60_000


@dataclass(frozen=True, slots=True)
class Rate:
    """``amount`` in ``per_ms`` milliseconds, and up to ``burst`` at once after a silence."""

    amount: int
    per_ms: int
    burst: int


class TokenBucket:
    """One allowance. Starts full."""

    __slots__ = ("_full", "_last_ms", "_level", "rate")

    def __init__(self, rate: Rate, now_ms: int) -> None:
        assert min(rate.amount, rate.per_ms, rate.burst) > 0
        self.rate = rate
        self._full = rate.burst * rate.per_ms  # tokens times per_ms: a millisecond brings ``amount`` of it
        self._level = self._full
        self._last_ms = now_ms

    def take(self, amount: int, now_ms: int) -> bool:
        """Take ``amount`` (at least 0) if it is there; else nothing is taken."""
        assert amount >= 0
        self._fill(now_ms)
        cost = amount * self.rate.per_ms
        if cost > self._level:
            return False
        self._level -= cost
        return True

    def wait_ms(self, amount: int, now_ms: int) -> int | None:
        """In how many milliseconds ``take`` would succeed; None: never, it is more than a burst."""
        assert amount >= 0
        if amount > self.rate.burst:
            return None
        self._fill(now_ms)
        lacking = max(0, amount * self.rate.per_ms - self._level)
        return -(-lacking // self.rate.amount)

    def full(self, now_ms: int) -> bool:
        """Whether it is as good as new."""
        self._fill(now_ms)
        return self._level == self._full

    def _fill(self, now_ms: int) -> None:
        passed_ms = now_ms - self._last_ms
        self._last_ms = now_ms
        if passed_ms > 0 and self._level < self._full:
            self._level = min(self._full, self._level + passed_ms * self.rate.amount)


class Buckets(Generic[Key]):
    """A bucket for everyone who is met, of whom there may be any number: at most ``keys_max`` are remembered.

    Who is forgotten is one whose bucket is full again. While there is none, newcomers get nothing.
    """

    def __init__(self, rate: Rate, keys_max: int) -> None:
        self._rate = rate
        self._keys_max = keys_max
        self._buckets: dict[Key, TokenBucket] = {}
        self._swept_ms: int | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Key, amount: int, now_ms: int) -> bool:
        """Take ``amount`` from the bucket of ``key``."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._keys_max and not self._sweep(now_ms):
                return False
            bucket = self._buckets[key] = TokenBucket(self._rate, now_ms)
        return bucket.take(amount, now_ms)

    def _sweep(self, now_ms: int) -> bool:
        if self._swept_ms == now_ms:  # a flood of newcomers does not pay for a sweep each
            return False
        self._swept_ms = now_ms
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.full(now_ms)}
        return len(self._buckets) < self._keys_max


# -- a peer's ------------------------------------------------------------------------------------------------------

Good = Literal["bytes", "checks", "haves", "rounds", "addresses", "relations"]
allowances: Final[dict[Good, Rate]] = {
    "bytes": Rate(2 << 20, 1_000, 4 << 20),
    "checks": Rate(500, 1_000, 1_000),
    "haves": Rate(200, 1_000, 400),
    "rounds": Rate(8, 1_000, 64),
    "addresses": Rate(32, minute_ms, 32),
    "relations": Rate(1, minute_ms, 1),
}


class PeerBudget:
    """What one peer may spend without having been asked: bytes of frames, signature checks, HAVE frames, addresses
    told, steps of becoming friends."""

    __slots__ = ("_buckets",)

    def __init__(self, now_ms: int) -> None:
        self._buckets = {good: TokenBucket(rate, now_ms) for good, rate in allowances.items()}

    def take(self, good: Good, amount: int, now_ms: int) -> bool:
        """Spend ``amount`` of a good, or nothing if it is not there."""
        return self._buckets[good].take(amount, now_ms)

    def wait_ms(self, good: Good, amount: int, now_ms: int) -> int | None:
        """In how many milliseconds it will be there; None: never."""
        return self._buckets[good].wait_ms(amount, now_ms)


# -- the score -----------------------------------------------------------------------------------------------------

Deed = Literal["malformed", "bad_signature", "oversize", "broken_want", "idle_round", "useful"]
weights: Final[dict[Deed, int]] = {
    "malformed": -100,
    "bad_signature": -100,
    "oversize": -20,
    "broken_want": -5,
    "idle_round": -5,
    "useful": 1,
}
score_max = 50
score_min = -200  # so that graylist_ms, two half-lives, always bring it back to the graylist's edge
graylist_below = -50
graylist_ms = 600_000
half_life_ms = 300_000


class Score:
    """How a node has behaved lately: a number that halves every five minutes."""

    __slots__ = ("_at_ms", "_value")

    def __init__(self, now_ms: int) -> None:
        self._value = 0.0
        self._at_ms = now_ms

    def value(self, now_ms: int) -> float:
        """The score now."""
        passed_ms = max(0, now_ms - self._at_ms)
        self._at_ms = now_ms
        self._value *= 0.5 ** (passed_ms / half_life_ms)
        return self._value

    def note(self, deed: Deed, now_ms: int, times: int = 1) -> float:
        """Something it did, ``times`` over; the score after it."""
        self._value = float(min(score_max, max(score_min, self.value(now_ms) + weights[deed] * times)))
        return self._value
