"""What the schedulers ask of every curve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Between = Callable[[float, float], float]
"""`between(high, low)` returns a curve's value at one position, between other bounds."""


class Curve(Protocol):
    """A pure function of the position, whose bounds a group may replace."""

    @property
    def max_value(self) -> float:
        """The upper bound."""

    @property
    def min_value(self) -> float:
        """The lower bound."""

    def __call__(self, position: int, /) -> float:
        """Return the value at a position, under the curve's own bounds."""

    def at(self, position: int, /) -> Between:
        """Return the curve at a position as a function of its bounds."""
