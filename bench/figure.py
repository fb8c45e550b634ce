"""A measured figure beside its goal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` against ``goal``; ``least``: whether the goal is a lower bound. ``basis``: what it was made of."""

    name: str
    value: float
    goal: float
    basis: str
    least: bool = True

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.value >= self.goal if self.least else self.value <= self.goal

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        return (
            f"{'ok  ' if self.met else 'MISS'} {self.name}: {self.value:.2f} (goal {sign} {self.goal:g}) — {self.basis}"
        )
