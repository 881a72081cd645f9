"""Numbers and lengths as people write them: `3e-4` in YAML, `"2k"`, `"3%"`, `{updates: 2000}`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from dist_sched._curves.pace import Pace
from dist_sched._curves.proportional import ProportionalTo
from dist_sched._curves.schedule import Schedule
from dist_sched._rules import (
    SHOWN,
    Number,
    count,
    illegal,
    listed,
    near_miss,
    plain,
    refuse_unknown,
    some,
    within,
)
from dist_sched.errors import ConfigError

_SUFFIXES = {"k": 3, "K": 3, "M": 6, "B": 9, "G": 9, "T": 12}
UPDATES = "updates"
"""Key of a length in optimizer updates."""
PER_UPDATE = "per_update"
"""Key of the units that an update completes."""
_MOST_PHASES = 500_000
PRODUCT_COST = READ_COST = 10
"""A phase of a product takes as long as so many phases for each factor. Reading a schedule takes as
long as so many phases."""


def number(value: Any) -> Any:
    """Return the number in a string, because YAML reads `3e-4` as a string, or the value unchanged.

    Examples:
        >>> number("3e-4")
        0.0003
    """
    if not isinstance(value, str) or len(value) > SHOWN:
        return value
    try:
        return int(value) if value.strip().isdecimal() else float(value)
    except ValueError:
        return value


def amount(name: str, value: Any, horizon: Any) -> Any:
    """Return a written length in units. Other values are returned unchanged, for rules to check.

    Examples:
        >>> amount("warmup", "2k", None), amount("warmup", 0.03, 1000), amount("warmup", "3%", 1000)
        (2000, 30, 30)
        >>> amount("warmup", 1, 1000), amount("warmup", "0.5", 1000)
        (1, 0.5)

    Args:
        name: Name of the length, for the error.
        value: A number of units, or a fraction of the horizon. Strings are units, or percents.
        horizon: The horizon, in units, or None.

    Raises:
        ConfigError: The value is a fraction, and there is no horizon. Or it is a string, and not a
            length.
    """
    value = plain(value)
    if isinstance(value, str):
        written = value.strip()
        if written.endswith("%"):
            return _part(name, value, _decimal(name, value, written[:-1]) / 100, horizon)
        power = _SUFFIXES.get(written[-1:], 0)
        return _plain_number(_decimal(name, value, written[:-1] if power else written) * 10**power)
    if isinstance(value, float) and 0 < value < 1:
        return _part(name, value, Decimal(repr(value)), horizon)
    return value


def _decimal(name: str, value: str, digits: str) -> Decimal:
    try:
        # Decimal would keep every digit of a very long string.
        found = Decimal(digits if len(digits) <= SHOWN else "NaN")
        # 1e999999999 would take hours as a whole number.
        if found.is_finite() and abs(found) < Decimal("1e30"):
            return found
    except ArithmeticError:  # not a number, or out of range
        pass
    rule = f"must be a number of units, which may have a suffix ({listed(_SUFFIXES)}), or a percent"
    raise illegal(name, value, rule)


def _part(name: str, value: Any, part: Decimal, horizon: Any) -> int | float:
    if name in {"horizon", "lr_decay_steps"} and horizon is None:
        raise illegal(
            name, value, "is the horizon, and cannot be a fraction of itself; write units"
        )
    if horizon is None:
        rule = (
            "is a fraction of the horizon, which is missing; add horizon, or write units as '0.5'"
        )
        raise illegal(name, value, rule)
    # As decimals, because 0.07 * 100 is above 7 as floats.
    return _plain_number(part * Decimal(repr(some("horizon", horizon))))


def _plain_number(found: Decimal) -> int | float:
    return int(found) if found == found.to_integral_value() else float(found)


def read_pace(data: Any, schedules: Mapping[str, Any], extras: Iterable[str]) -> Pace:
    """Read the units per update: a number of units, or a mapping with `extra` and `times`.

    Args:
        data: The value in the file. `times` is a number or another extra, 1 by default.
        schedules: Schedules of the extras in `data`.
        extras: Names of all extras, for errors.

    Raises:
        ConfigError: A key or a name is unknown, or a number is invalid.
    """
    if not isinstance(data, Mapping):
        if isinstance(data, str) and not _is_count(data):
            rule = (
                "must be a number of units, or a mapping such as {extra: batch_size, times: 4096}"
            )
            raise illegal(PER_UPDATE, data, rule)
        return Pace.of(_some_count(PER_UPDATE, data))
    with within(PER_UPDATE):
        refuse_unknown(data, ("extra", "times"))
        if "extra" not in data:
            raise ConfigError("extra is missing; write the name of the extra with the batch size")
        times = data.get("times", 1)
        is_name = isinstance(times, str) and not _is_count(times)
        return Pace.of(
            _extra("extra", data["extra"], schedules, extras),
            _extra("times", times, schedules, extras) if is_name else _some_count("times", times),
        )


def _extra(
    key: str, name: Any, schedules: Mapping[str, Any], extras: Iterable[str]
) -> Schedule | int:
    if not isinstance(name, str) or name not in schedules:
        close = near_miss(name, extras) if isinstance(name, str) else ""
        rule = f"must be the name of an extra ({listed(extras) or 'there are none'}){close}"
        raise illegal(key, name, rule)
    found = schedules[name]
    if isinstance(found, ProportionalTo):
        raise illegal(key, name, "must be an extra with a schedule that does not follow another")
    return found if isinstance(found, Schedule) else _some_count(name, found)


def _is_count(written: str) -> bool:
    return written.strip()[:1].isdigit() and not written.strip().endswith("%")


def _count(name: str, value: Any) -> int:
    """Return a whole number, which may be a string such as "2k", but not a percent."""
    if isinstance(value, str) and _is_count(value):
        value = amount(name, value, None)
    is_whole = isinstance(value, float) and value.is_integer()  # such as 2e3
    return count(name, int(value) if is_whole else value)


def _some_count(name: str, value: Any) -> int:
    return int(some(name, _count(name, value)))


@dataclass(slots=True)
class Budget:
    """How many phases a config may still have. One line of a file may create any number."""

    left: int = _MOST_PHASES

    def spend(self, phases: int) -> None:
        """Count phases.

        Raises:
            ConfigError: There are too many.
        """
        self.left -= phases
        if self.left < 0:
            raise ConfigError(
                f"the schedules up to this one have more than {_MOST_PHASES:,} phases (a phase of "
                f"a product counts as {PRODUCT_COST} for each factor); use fewer repeats"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The horizon and the units per update for lengths in a file."""

    horizon: Number | None = None
    pace: Pace | None = None
    begin: Number = 0
    """Position of the run at which the schedule begins that is being read."""
    schedules: Mapping[str, Any] = field(default_factory=dict)
    """Schedules of extras by name, which a product may follow."""
    budget: Budget = field(default_factory=Budget)

    def at(self, begin: Number) -> Scope:
        """Return the scope of a schedule that begins at another position."""
        return replace(self, begin=begin)

    def within(self, horizon: Number | None) -> Scope:
        """Return the scope inside a schedule with this horizon."""
        return replace(self, horizon=horizon)

    def length(self, name: str, value: Any, *, ends: Number | None = None) -> Any:
        """Return a length in units. Other values are returned unchanged, for rules to check.

        Args:
            name: Name of the length, for the error.
            value: A value for `amount`, or a mapping with `updates`.
            ends: Position at which the length ends, in units. If None, it begins at the beginning
                of the schedule.

        Raises:
            ConfigError: As for `amount`. Or the length is in updates, and `per_update` is missing.
        """
        if not isinstance(value, Mapping):
            return amount(name, value, self.horizon)
        with within(name):
            refuse_unknown(value, (UPDATES,))
        if UPDATES not in value:
            raise illegal(name, value, "must be a length in units, or a mapping with updates")
        if self.pace is None:
            rule = (
                "is in updates, but the config does not have the units per update; add "
                f"{PER_UPDATE} at the top level, such as {{extra: batch_size, times: 4096}} "
                "(the extras in it must have lengths in units)"
            )
            raise illegal(name, dict(value), rule)
        written = f"{name}.{UPDATES}"
        updates = _count(written, value[UPDATES])
        if ends is None:
            first = self.begin
            if first != int(first):
                rule = (
                    f"cannot count updates from the fraction {first!r}; write the length in units"
                )
                raise illegal(name, dict(value), rule)
            return self.pace.position_after(updates, int(first)) - int(first)
        last = self.begin + ends
        most = self.pace.updates_until(last)
        if updates > most:
            rule = f"must be at most {most}, the number of updates up to position {last!r}"
            raise illegal(written, updates, rule)
        return last - self.pace.position_after(most - updates)
