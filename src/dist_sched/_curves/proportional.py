"""Fields and extras in proportion to another field's or extra's schedule, or to a power of it."""

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
    """A schedule that follows another field or extra: `at_max (s(n) / max(s))^power`.

    `s(n)` is the value of the other field or extra at position `n`. If a group has a schedule of
    its own for the other field, the group follows that schedule.

    Two uses:

    - Weight decay in proportion to the learning rate, as in AdamC:
      `{"weight_decay": schedules.proportional_to("lr", at_max=0.1)}`.
    - A learning rate that follows the square root of the batch size:
      `{"lr": schedules.proportional_to("batch_size", at_max=3e-4, power=0.5)}`.

    Args:
        field: Name of the other field or extra.
        at_max: Value where the other one is highest, at least 0.
        power: Power of the proportion, any finite number. A negative power needs a schedule that is
            above 0 everywhere. The value is then highest where the other one is lowest.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        AdamC: Defazio 2025, https://arxiv.org/abs/2506.02285.

    Examples:
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
        """Return the same rule for a followed field whose values are multiplied by a factor.

        Raises:
            ConfigError: The values leave the range of floats.
        """
        try:
            return replace(self, at_max=self.at_max * factor**self.power)
        except OverflowError as error:
            rule = f"the values leave the range of floats when {self.field} is scaled by {factor:g}"
            raise illegal("power", self.power, rule) from error

    def following(self, schedule: Schedule) -> ProportionalCurve:
        """Return the curve that follows a schedule of the other field or extra.

        Raises:
            ConfigError: The power is negative, and the other schedule has a value of 0, or values
                so low that the result is too large.
        """
        if self.power < 0 and schedule.min_value == 0:
            rule = (
                f"a negative power needs values above 0, and {self.field} is 0 somewhere; give "
                f"{self.field} a start and an end above 0"
            )
            raise illegal("power", self.power, rule)
        curve = ProportionalCurve(self.at_max, schedule, self.power)
        if curve.max_value > MAX_RATE:
            rule = f"the value where {self.field} is lowest would be {curve.max_value:g}"
            raise illegal("power", self.power, f"{rule}, and at most {MAX_RATE:.1e} is allowed")
        return curve

    def __str__(self) -> str:
        power = "" if self.power == 1 else f" to the power of {self.power:g}"
        return f"follows {self.field}{power}, {self.at_max:g} where that is highest"

    @property
    def version(self) -> int:
        """The lowest version of the state format that can store it."""
        return 1 if self.power == 1 else 2

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON data, with the keys of config files and states."""
        power = {} if self.power == 1 else {"power": self.power}
        return {"peak": self.at_max, "to": self.field, **power}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProportionalTo:
        """Build it from the data that `to_dict` returns.

        Raises:
            ConfigError: `peak`, `to` or `power` is invalid.
        """
        peak, power = rate("peak", data["peak"]), data.get("power", 1.0)
        return cls(text("to", data["to"]), at_max=peak, power=power)


@dataclass(frozen=True, slots=True)
class ProportionalCurve:
    """A curve in proportion to a power of a schedule `s`: `at_max (s(n) / max(s))^power`."""

    at_max: float
    """Value where the schedule is highest, more than 0."""
    schedule: Schedule
    power: float = 1.0

    @property
    def max_value(self) -> float:
        """Highest value. With a negative power it is where the schedule is lowest."""
        return self.at_max if self.power >= 0 else self.of(self.schedule.min_value)

    @property
    def horizon(self) -> Number:
        """Position at which the schedule ends."""
        return self.schedule.horizon

    def __call__(self, position: float) -> float:
        """Return the value at a position, which may be a fraction."""
        return self.of(self.schedule(position))

    def of(self, value: float) -> float:
        """Return the value where the schedule has the given value.

        Raises:
            ConfigError: The value leaves the range of floats, because a shape comes too near 0.
        """
        # The quotient comes first, so that the highest value is exactly at_max.
        part = value / self.schedule.max_value
        if self.power == 1:
            return self.at_max * part
        try:
            # A shape that overshoots its end may be below 0, which has no real power.
            return self.at_max * math.pow(max(part, 0.0), self.power)
        except (ValueError, OverflowError) as error:
            rule = f"the result leaves the range of floats where the followed value is {value!r}"
            raise illegal("power", self.power, rule) from error
