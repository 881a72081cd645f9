"""The protocol of a curve: what the schedulers need of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Between = Callable[[float, float], float]
"""`between(high, low)` returns the value of a curve at one position under these bounds."""


class Curve(Protocol):
    """A pure function of the position."""

    @property
    def max_value(self) -> float:
        """The curve's own upper bound."""
        ...

    @property
    def min_value(self) -> float:
        """The curve's own lower bound."""
        ...

    def __call__(self, position: int, /) -> float:
        """Return the value at a position under the curve's own bounds."""
        ...

    def at(self, position: int, /) -> Between:
        """Return the value at a position as a function of the bounds.

        What depends on the position alone is then computed once for groups with different bounds.
        A curve without bounds, such as a schedule, ignores them.
        """
        ...
