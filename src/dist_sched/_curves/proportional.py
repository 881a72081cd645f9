"""Coupling: a field that follows another's schedule."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any

from dist_sched._rules import rate, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched._curves.curve import Between
    from dist_sched._curves.phases import Schedule


@dataclass(frozen=True, slots=True)
class ProportionalTo:
    """A field that follows another: `at_max` times that one's value as a part of its highest.

    In a group that overrides the other field's schedule, it follows that schedule.

    >>> from dist_sched import Phase, Schedule
    >>> fall = Schedule([Phase("linear", 10, end=0.0, start=2.0)])
    >>> curve = ProportionalTo("lr", at_max=0.1).following(fall)
    >>> [curve(position) for position in (0, 5, 10)]
    [0.1, 0.05, 0.0]
    """

    field: str = "lr"
    """The other field."""
    at_max: float = dataclass_field(kw_only=True)
    """Value where the other field is at its highest."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "at_max", rate("at_max", self.at_max))
        text("field", self.field)

    def following(self, schedule: Schedule) -> ProportionalCurve:
        """Return the curve that follows a schedule."""
        return ProportionalCurve(self.at_max, schedule)

    def __str__(self) -> str:
        return f"follows {self.field}, {self.at_max:g} where that is highest"

    def to_dict(self) -> dict[str, Any]:
        """Return it as data for JSON; its keys are part of the frozen state format."""
        return {"peak": self.at_max, "to": self.field}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProportionalTo:
        """Build it from what `to_dict` returned.

        Raises:
            ConfigError: A value is illegal.
        """
        return cls(text("to", data["to"]), at_max=rate("peak", data["peak"]))


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
