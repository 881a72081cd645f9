"""Fields that follow another: a value in constant proportion to another field's schedule."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

from dist_sched._rules import rate, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched._curves.schedule import Schedule
    from dist_sched._rules import Number


@dataclass(frozen=True, slots=True)
class ProportionalTo:
    """A field in proportion to another's schedule: `at_max s(n) / max(s)`.

    `s(n)` is the other field's value at position `n`. Where a group has its own schedule for the
    other field, `s` is that one.

    Args:
        field: The other field.
        at_max: Value where the other field is at its highest.

    Raises:
        ConfigError: An argument is illegal; names it, its value and the rule.

    >>> from dist_sched import Phase, Schedule
    >>> fall = Schedule([Phase("linear", 10, end=0.0, start=2.0)])
    >>> curve = ProportionalTo("lr", at_max=0.1).following(fall)
    >>> [curve(position) for position in (0, 5, 10)]
    [0.1, 0.05, 0.0]
    """

    field: str = "lr"
    _: KW_ONLY
    at_max: float

    def __post_init__(self) -> None:
        text("field", self.field)
        object.__setattr__(self, "at_max", rate("at_max", self.at_max))

    def scaled(self, factor: float) -> ProportionalTo:
        """Return what follows a field whose highest value is multiplied, at the same values."""
        return replace(self, at_max=self.at_max * factor)

    def following(self, schedule: Schedule) -> ProportionalCurve:
        """Return the curve that follows a schedule of the other field."""
        return ProportionalCurve(self.at_max, schedule)

    def __str__(self) -> str:
        return f"follows {self.field}, {self.at_max:g} where that is highest"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON data, under the keys of files and states."""
        return {"peak": self.at_max, "to": self.field}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProportionalTo:
        """Build it from the data that `to_dict` returns.

        Raises:
            ConfigError: `peak` or `to` is illegal.
        """
        return cls(text("to", data["to"]), at_max=rate("peak", data["peak"]))


@dataclass(frozen=True, slots=True)
class ProportionalCurve:
    """A curve in constant proportion to a schedule `s`: `max_value s(n) / max(s)`."""

    max_value: float
    """Value where the schedule is at its highest, which is more than 0."""
    schedule: Schedule

    @property
    def horizon(self) -> Number:
        """Position at which the schedule ends."""
        return self.schedule.horizon

    def __call__(self, position: float) -> float:
        """Return the value at a position, which may be a fraction."""
        # The quotient first, so that the value is max_value itself where the schedule is highest.
        return self.max_value * (self.schedule(position) / self.schedule.max_value)
