"""The protocols of curves: what the schedulers need of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dist_sched._rules import Number

Between = Callable[[float, float], float]
"""`between(upper, lower)` returns the value of a curve at one position under these bounds."""


class Curve(Protocol):
    """A pure function of the position."""

    @property
    def max_value(self) -> float:
        """The curve's highest value."""
        ...

    @property
    def horizon(self) -> Number:
        """The position past which the value stays as it is, in units."""
        ...

    def __call__(self, position: int, /) -> float:
        """Return the value at a position."""
        ...


class Bounded(Protocol):
    """A curve as it goes between bounds that a group may have of its own."""

    @property
    def max_value(self) -> float:
        """The upper bound of groups that have none."""
        ...

    @property
    def min_value(self) -> float:
        """The lower bound of groups that have none."""
        ...

    @property
    def end_share(self) -> float | None:
        """The lower bound as a share of the upper one, where a late change has set it for all."""
        ...

    @property
    def factor(self) -> float:
        """What late changes multiply the bounds of groups by."""
        ...

    def highest(self, high: float, low: float, /) -> float:
        """Return the highest value under two bounds."""
        ...

    def at(self, position: int, /) -> Between:
        """Return the value at a position as a function of the bounds.

        What depends on the position alone is then computed once for groups with different bounds.
        """
        ...
