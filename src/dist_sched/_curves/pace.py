"""Pace: what an optimizer update completes, so that a length in updates is one in units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_sched._curves.phases import JOIN_TOLERANCE
from dist_sched._curves.schedule import Schedule
from dist_sched._rules import Number, illegal, some, whole
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_RUNS = 1_000_000
"""Updates of a batch that grows on the way, at most: each is counted by itself."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Units that an update completes, by position: a number times schedules of whole numbers."""

    number: int
    curves: tuple[Schedule, ...] = ()

    @classmethod
    def of(cls, *factors: Schedule | int) -> Pace:
        """Build it from schedules and whole numbers above 0.

        Raises:
            ConfigError: A number is not whole, or 0.
        """
        number = math.prod(
            whole("per_item", one) for one in factors if not isinstance(one, Schedule)
        )
        some("per_item", number)
        return cls(number, tuple(one for one in factors if isinstance(one, Schedule)))

    def position_after(self, updates: int, begin: int = 0) -> int:
        """Return the position so many updates after another.

        Raises:
            ConfigError: A schedule is no whole number above 0 on the way, or the way is too long.
        """
        left = updates
        for position, units, count in self._runs(begin):
            if count is None or left <= count:
                return whole("position", position + units * left)
            left -= count
        raise AssertionError("the last run has no end")

    def updates_until(self, end: Number) -> int:
        """Return how many updates from position 0 on reach a position.

        Raises:
            ConfigError: As for `position_after`.
        """
        updates = 0
        for position, units, count in self._runs(0):
            needed = max(0, math.ceil((end - position) / units))
            if count is None or needed <= count:
                return updates + needed
            updates += count
        raise AssertionError("the last run has no end")

    def _runs(self, position: int) -> Iterator[tuple[int, int, int | None]]:
        """Yield where updates of one size begin, their units, and how many; None for no end."""
        for _ in range(_MOST_RUNS):
            units = self.number
            for curve in self.curves:
                units *= _items(curve, position)
            end = self._constant_until(position)
            count = None if end is None else max(1, math.ceil((end - position) / units))
            yield position, units, count
            if count is None:
                return
            position += units * count
        rule = f"must be reached within {_MOST_RUNS:,} updates of a batch that grows on the way"
        raise illegal("position", position, rule)

    def _constant_until(self, position: int) -> Number | None:
        """Return up to which position nothing changes from here; None for no end."""
        ends = []
        for one in self.curves:
            if position >= one.horizon:
                continue
            index = one.index(position)
            is_flat = one.phases[index].shape in {"constant", "step"}
            ends.append((*one.boundaries, one.horizon)[index + 1] if is_flat else position)
        return min(ends, default=None)


def units_after(updates: int, batch_size: Schedule | int, per_item: int = 1) -> int:
    """Return the position after so many optimizer updates, where the batch grows on the way.

    An update at position `n` completes `batch_size(n) * per_item` units. Each is counted, so the
    position is exact: a warmup in steps beside a decay in tokens ends where the run's does.

    Args:
        updates: How many, from position 0 on.
        batch_size: Items of an update, by position, such as a `schedules.whole(...)`.
        per_item: Units of an item, such as the tokens of a sequence.

    Raises:
        ConfigError: An argument is illegal, or a batch size is no whole number above 0.

    >>> from dist_sched import schedules
    >>> ramp = schedules.whole(schedules.piecewise([(0, 2), (100, 4)]), multiple_of=2)
    >>> units_after(4, ramp, per_item=25)
    300
    """
    if not isinstance(batch_size, Schedule):
        batch_size = whole("batch_size", some("batch_size", batch_size))
    return Pace.of(batch_size, per_item).position_after(whole("updates", updates))


def _items(curve: Schedule, position: int) -> int:
    found = curve(position)
    nearest = round(found)
    if nearest < 1 or not math.isclose(found, nearest, rel_tol=JOIN_TOLERANCE):
        raise ConfigError(
            f"batch_size: is {found!r} at position {position}, and must be a whole number above 0: "
            "round it with schedules.whole(...) (multiple_of in a file)"
        )
    return nearest
