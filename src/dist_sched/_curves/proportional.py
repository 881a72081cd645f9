"""Coupling: a field that follows another's schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dist_sched._rules import rate, text

if TYPE_CHECKING:
    from dist_sched._curves.curve import Between
    from dist_sched._curves.phases import Schedule


@dataclass(frozen=True, slots=True)
class ProportionalTo:
    """A field that follows another: `peak` times that one's value as a part of its highest.

    In a group with a schedule of its own for the other field, it follows that one.

    >>> from dist_sched import Phase, Schedule
    >>> fall = Schedule([Phase("linear", 10, end=0.0, start=2.0)])
    >>> curve = ProportionalTo(0.1).following(fall)
    >>> [curve(position) for position in (0, 5, 10)]
    [0.1, 0.05, 0.0]
    """

    peak: float
    """Value where the other field is at its highest."""
    to: str = "lr"
    """The other field."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak", rate("peak", self.peak))
        text("to", self.to)

    def following(self, schedule: Schedule) -> ProportionalCurve:
        """Give the curve that follows a schedule."""
        return ProportionalCurve(self.peak, schedule)

    def __str__(self) -> str:
        return f"follows {self.to}, {self.peak:g} where that is highest"

    def to_dict(self) -> dict[str, Any]:
        """Give it as data for JSON."""
        return {"peak": self.peak, "to": self.to}


@dataclass(frozen=True, slots=True)
class ProportionalCurve:
    """A curve in a constant proportion to a schedule."""

    peak: float
    schedule: Schedule

    def __call__(self, position: float) -> float:
        """Give the value at a position, in units."""
        return self.peak * (self.schedule(position) / self.schedule.max_value)

    @property
    def max_value(self) -> float:
        """The highest value."""
        return self.peak

    @property
    def min_value(self) -> float:
        """The lowest value."""
        return self.peak * (self.schedule.min_value / self.schedule.max_value)

    def at(self, position: float) -> Between:
        """Return the value at a position as a function of bounds, of which it knows none."""
        value = self(position)
        return lambda _high, _low: value
