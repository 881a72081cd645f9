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
"""The key of a length that is written as a number of optimizer updates."""
PER_UPDATE = "per_update"
"""The key of what an update completes."""
_MOST_PHASES = 500_000
PRODUCT_COST = READ_COST = 10
"""Phases that are made in the time of one phase of a product, for each of its factors; and in that
of reading a schedule of one phase."""


def number(value: Any) -> Any:
    """Return the number that a text holds, as YAML reads `3e-4`; other things as they are.

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
    """Return a length as people write it in units; other things as they are, for rules to refuse.

    >>> amount("warmup", "2k", None), amount("warmup", 0.03, 1000), amount("warmup", "3%", 1000)
    (2000, 30, 30)
    >>> amount("warmup", 1, 1000), amount("warmup", "0.5", 1000)
    (1, 0.5)

    Args:
        name: Of the length, for the error.
        value: A number of units, or a part of the horizon; texts are units, or percents.
        horizon: In units; None where there is none.

    Raises:
        ConfigError: It is a part, and there is no horizon; or a text that is no length.
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
        # Of a text of any length, Decimal would keep every digit.
        found = Decimal(digits if len(digits) <= SHOWN else "NaN")
        # 1e999999999 would take hours as a whole number.
        if found.is_finite() and abs(found) < Decimal("1e30"):
            return found
    except ArithmeticError:  # no number, or one beyond all
        pass
    suffixes = listed(_SUFFIXES)
    raise illegal(name, value, f"must be a number of units, with a suffix ({suffixes}) or %")


def _part(name: str, value: Any, part: Decimal, horizon: Any) -> int | float:
    if name in {"horizon", "lr_decay_steps"} and horizon is None:
        raise illegal(name, value, "is the horizon itself, so it cannot be a part of it")
    if horizon is None:
        rule = "is a part of the horizon, which is not given; write units as '0.5'"
        raise illegal(name, value, rule)
    # In decimals, since 0.07 * 100 is above 7 in floats.
    return _plain_number(part * Decimal(repr(some("horizon", horizon))))


def _plain_number(found: Decimal) -> int | float:
    return int(found) if found == found.to_integral_value() else float(found)


def read_pace(data: Any, schedules: Mapping[str, Any], extras: Iterable[str]) -> Pace:
    """Read what an update completes: a number of units, or a mapping with `extra` and `times`.

    Args:
        data: As a file has it; `times` is a number or another extra, and 1 if it is left out.
        schedules: Of the extras that `data` names.
        extras: The names of all extras, for errors.

    Raises:
        ConfigError: A key or a name is unknown, or a number illegal.
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
            raise ConfigError("extra is missing: name the extra that says the batch size")
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
        rule = f"must be the name of an extra ({listed(extras) or 'there is none'}){close}"
        raise illegal(key, name, rule)
    found = schedules[name]
    if isinstance(found, ProportionalTo):
        raise illegal(key, name, "must be an extra that has a schedule of its own")
    return found if isinstance(found, Schedule) else _some_count(name, found)


def _is_count(written: str) -> bool:
    return written.strip()[:1].isdigit() and not written.strip().endswith("%")


def _count(name: str, value: Any) -> int:
    """Return a whole number, which may be a text such as "2k"; no part of a horizon."""
    if isinstance(value, str) and _is_count(value):
        value = amount(name, value, None)
    is_whole = isinstance(value, float) and value.is_integer()  # such as 2e3
    return count(name, int(value) if is_whole else value)


def _some_count(name: str, value: Any) -> int:
    return int(some(name, _count(name, value)))


@dataclass(slots=True)
class Budget:
    """Phases that a config may still make: a line of a file may ask for any number of them."""

    left: int = _MOST_PHASES

    def spend(self, phases: int) -> None:
        """Count phases that were made.

        Raises:
            ConfigError: They are too many.
        """
        self.left -= phases
        if self.left < 0:
            raise ConfigError(
                f"the schedules up to this one have more than {_MOST_PHASES:,} phases (one of a "
                f"product counts as {PRODUCT_COST} for each factor): repeat less often"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What lengths in a file are parts of, or counted by."""

    horizon: Number | None = None
    pace: Pace | None = None
    begin: Number = 0
    """Where on the run's clock the schedule begins that is read."""
    schedules: Mapping[str, Any] = field(default_factory=dict)
    """Of extras, by name: what a product may follow."""
    budget: Budget = field(default_factory=Budget)

    def at(self, begin: Number) -> Scope:
        """Return the scope of what begins elsewhere."""
        return replace(self, begin=begin)

    def within(self, horizon: Number | None) -> Scope:
        """Return the scope inside a schedule that has a horizon of its own."""
        return replace(self, horizon=horizon)

    def length(self, name: str, value: Any, *, ends: Number | None = None) -> Any:
        """Return a length in units; what is none is returned as it is, for rules to refuse.

        Args:
            name: Of the length, for the error.
            value: As `amount` takes it, or a mapping with `updates`.
            ends: Where it ends, in units, if it does not begin where the schedule does.

        Raises:
            ConfigError: As for `amount`; or updates are asked for where nothing says what an update
                completes.
        """
        if not isinstance(value, Mapping):
            return amount(name, value, self.horizon)
        with within(name):
            refuse_unknown(value, (UPDATES,))
        if UPDATES not in value:
            raise illegal(name, value, "must be a length in units, or have updates")
        if self.pace is None:
            rule = (
                "is in updates, and nothing says how many units an update completes: add "
                f"{PER_UPDATE} at the top, such as {{extra: batch_size, times: 4096}} "
                "(the schedules that it names are in units)"
            )
            raise illegal(name, dict(value), rule)
        written = f"{name}.{UPDATES}"
        updates = _count(written, value[UPDATES])
        if ends is None:
            first = self.begin
            if first != int(first):
                raise illegal(name, dict(value), f"begins at {first!r}, within a unit: write units")
            return self.pace.position_after(updates, int(first)) - int(first)
        last = self.begin + ends
        most = self.pace.updates_until(last)
        if updates > most:
            raise illegal(written, updates, f"must be at most the {most} up to position {last!r}")
        return last - self.pace.position_after(most - updates)
