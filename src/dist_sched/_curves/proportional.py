"""Fields and extras that follow another: a value in proportion to a power of its schedule."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

from dist_sched._rules import MAX_RATE, finite, illegal, rate, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched._curves.schedule import Schedule
    from dist_sched._rules import Number


@dataclass(frozen=True, slots=True)
class ProportionalTo:
    """A field or an extra in proportion to another's schedule: `at_max (s(n) / max(s))^power`.

    `s(n)` is the value of the other field or extra at position `n`. Where a group has its own
    schedule for the other field, `s` is that one.

    AdamC (arXiv 2506.02285: weight decay in proportion to the learning rate) is
    `proportional_to("lr", at_max=...)` as the schedule of `weight_decay`. An lr that follows the
    square root of the batch size is `proportional_to("batch_size", at_max=..., power=0.5)`.

    Args:
        field: The other field, or an extra.
        at_max: Value where the other is at its highest.
        power: Power of the proportion. A negative one needs the other to be above 0 everywhere;
            the value is then at its highest where the other is at its lowest.

    Raises:
        ConfigError: An argument is illegal; names it, its value and the rule.

    >>> from dist_sched import Phase, Schedule
    >>> fall = Schedule([Phase("linear", 10, end=0.0, start=2.0)])
    >>> curve = ProportionalTo("lr", at_max=0.1).following(fall)
    >>> [curve(position) for position in (0, 5, 10)]
    [0.1, 0.05, 0.0]
    >>> rise = Schedule([Phase("linear", 10, end=4.0, start=1.0)])
    >>> curve = ProportionalTo("batch_size", at_max=0.2, power=0.5).following(rise)
    >>> [curve(position) for position in (0, 10)]
    [0.1, 0.2]
    """

    field: str = "lr"
    _: KW_ONLY
    at_max: float
    power: float = 1.0

    def __post_init__(self) -> None:
        text("field", self.field)
        object.__setattr__(self, "at_max", rate("at_max", self.at_max))
        object.__setattr__(self, "power", float(finite("power", self.power)))

    def scaled(self, factor: float) -> ProportionalTo:
        """Return what follows a field whose highest value is multiplied, at the same values.

        Raises:
            ConfigError: The value leaves its range.
        """
        try:
            return replace(self, at_max=self.at_max * factor**self.power)
        except OverflowError as error:
            rule = f"leaves the range of floats where {self.field} is multiplied by {factor:g}"
            raise illegal("power", self.power, rule) from error

    def following(self, schedule: Schedule) -> ProportionalCurve:
        """Return the curve that follows a schedule of the other field or extra.

        Raises:
            ConfigError: The power is negative, and the other is 0 somewhere, or so low that the
                value leaves its range.
        """
        if self.power < 0 and schedule.min_value == 0:
            rule = (
                f"must not be negative where {self.field} is 0 somewhere, as 0 has no negative "
                f"power: let {self.field} start and end above 0"
            )
            raise illegal("power", self.power, rule)
        curve = ProportionalCurve(self.at_max, schedule, self.power)
        if curve.max_value > MAX_RATE:
            rule = f"makes it {curve.max_value:g} where {self.field} is at its lowest"
            raise illegal("power", self.power, f"{rule}, and {MAX_RATE:.1e} is the most")
        return curve

    def __str__(self) -> str:
        power = "" if self.power == 1 else f" to the power of {self.power:g}"
        return f"follows {self.field}{power}, {self.at_max:g} where that is highest"

    @property
    def version(self) -> int:
        """The lowest version of the state's format that can say it."""
        return 1 if self.power == 1 else 2

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON data, under the keys of files and states."""
        power = {} if self.power == 1 else {"power": self.power}
        return {"peak": self.at_max, "to": self.field, **power}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProportionalTo:
        """Build it from the data that `to_dict` returns.

        Raises:
            ConfigError: `peak`, `to` or `power` is illegal.
        """
        peak, power = rate("peak", data["peak"]), data.get("power", 1.0)
        return cls(text("to", data["to"]), at_max=peak, power=power)


@dataclass(frozen=True, slots=True)
class ProportionalCurve:
    """A curve in proportion to a power of a schedule `s`: `at_max (s(n) / max(s))^power`."""

    at_max: float
    """Value where the schedule is at its highest, which is more than 0."""
    schedule: Schedule
    power: float = 1.0

    @property
    def max_value(self) -> float:
        """Highest value: with a negative power, where the schedule is at its lowest."""
        return self.at_max if self.power >= 0 else self.of(self.schedule.min_value)

    @property
    def horizon(self) -> Number:
        """Position at which the schedule ends."""
        return self.schedule.horizon

    def __call__(self, position: float) -> float:
        """Return the value at a position, which may be a fraction."""
        return self.of(self.schedule(position))

    def of(self, value: float) -> float:
        """Return the value where the schedule has some value.

        Raises:
            ConfigError: It leaves the range of floats: a shape comes too near 0 between its ends.
        """
        # The quotient first, so that the value is at_max itself where the schedule is highest.
        part = value / self.schedule.max_value
        if self.power == 1:
            return self.at_max * part
        try:
            # A shape that passes its end may be below 0, which has no real power.
            return self.at_max * math.pow(max(part, 0.0), self.power)
        except (ValueError, OverflowError) as error:
            rule = f"leaves the range of floats where what it follows is {value!r}"
            raise illegal("power", self.power, rule) from error
