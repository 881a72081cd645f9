"""The protocols that curves implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dist_sched._rules import Number

Between = Callable[[float, float], float]
"""`between(upper, lower)` returns the value of a curve at one position between these bounds."""


class Curve(Protocol):
    """A pure function of the position."""

    @property
    def max_value(self) -> float:
        """The curve's highest value."""
        ...

    @property
    def horizon(self) -> Number:
        """The position after which the value stays constant, in units."""
        ...

    def __call__(self, position: int, /) -> float:
        """Return the value at a position."""
        ...


class Bounded(Protocol):
    """A curve that can be evaluated between the bounds of any group."""

    @property
    def max_value(self) -> float:
        """The upper bound of groups without one."""
        ...

    @property
    def min_value(self) -> float:
        """The lower bound of groups without one."""
        ...

    @property
    def end_share(self) -> float | None:
        """The lower bound as a fraction of the upper one, if a late change set it."""
        ...

    @property
    def factor(self) -> float:
        """The factor by which late changes multiply the bounds of groups."""
        ...

    def highest(self, high: float, low: float, /) -> float:
        """Return the highest value between two bounds."""
        ...

    def at(self, position: int, /) -> Between:
        """Return the value at a position as a function of the bounds.

        Groups with different bounds share the work that depends on the position alone.
        """
        ...

    def part(self, position: int, /) -> float | None:
        """Return `p` if the value between `high` and `low` is `low + p * (high - low)`, else None.

        It saves a call for each group.
        """
        ...
