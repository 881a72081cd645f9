"""Pace: how many units an optimizer update completes, to convert lengths in updates to units."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dist_sched._curves.phases import JOIN_TOLERANCE
from dist_sched._curves.schedule import Schedule
from dist_sched._curves.shapes import PRODUCT
from dist_sched._rules import Number, some, whole
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_RUNS = 1_000_000
"""Maximum number of updates with a growing batch, each of which is counted one by one."""


@dataclass(slots=True)
class Pace:
    """The units that an update completes at each position: a number times schedules of ints."""

    number: int
    curves: tuple[Schedule, ...] = ()
    _left: int = _MOST_RUNS
    """How many groups of equal updates all calls together may still count."""
    _positions: dict[tuple[int, int], int] = field(default_factory=dict)
    """Earlier results of `position_after`, which a config needs again and again."""
    _updates: dict[Number, int] = field(default_factory=dict)
    """Earlier results of `updates_until`."""

    @classmethod
    def of(cls, *factors: Schedule | int) -> Pace:
        """Build it from schedules and whole numbers above 0.

        Raises:
            ConfigError: A number is 0, or not a whole number.
        """
        number = math.prod(
            whole("per_item", one) for one in factors if not isinstance(one, Schedule)
        )
        some("per_item", number)
        return cls(number, tuple(one for one in factors if isinstance(one, Schedule)))

    def position_after(self, updates: int, begin: int = 0) -> int:
        """Return the position so many updates after another.

        Raises:
            ConfigError: A schedule has a value that is not a whole number above 0, or there are too
                many updates to count.
        """
        key = updates, begin
        if key not in self._positions:
            left = updates
            for position, units, count in self._runs(begin):
                if count is None or left <= count:
                    self._positions[key] = whole("position", position + units * left)
                    break
                left -= count
        return self._positions[key]

    def updates_until(self, end: Number) -> int:
        """Return how many updates it takes from position 0 to reach a position.

        Raises:
            ConfigError: As for `position_after`.
        """
        if end not in self._updates:
            updates = 0
            for position, units, count in self._runs(0):
                needed = max(0, math.ceil((end - position) / units))
                if count is None or needed <= count:
                    self._updates[end] = updates + needed
                    break
                updates += count
        return self._updates[end]

    def _runs(self, position: int) -> Iterator[tuple[int, int, int | None]]:
        """Yield the position, size and number (None: no end) of each group of equal updates."""
        end: Number | None = position
        is_flat = False
        while self._left > 0:
            self._left -= 1
            if end is not None and position >= end:
                is_flat, end = self._span(position)
            units = self.number
            for curve in self.curves:
                units *= _items(curve, position)
            if end is None:
                yield position, units, None
                return
            count = max(1, math.ceil((end - position) / units)) if is_flat else 1
            yield position, units, count
            position += units * count
        raise ConfigError(
            f"position {position:,}: it takes more than {_MOST_RUNS:,} updates of a growing batch "
            "to reach it, too many to count; write the length in units"
        )

    def _span(self, position: int) -> tuple[bool, Number | None]:
        """Return whether the batch stays constant up to the next join, and the join's position."""
        running = [one for one in self.curves if position < one.horizon]
        if not running:
            return True, None
        ends = []
        for one in running:
            joins = (*one.boundaries, one.horizon)
            ends.append(joins[one.index(position) + 1])
        end = min(ends)
        return all(_is_flat(one, position, end) for one in running), end


def units_after(updates: int, batch_size: Schedule | int, per_item: int = 1) -> int:
    """Return the position after a number of optimizer updates with a growing batch.

    An update at position `n` completes `batch_size(n) * per_item` units. Use it to write a warmup
    in updates for a schedule whose unit is tokens. The result is exact, because every update is
    counted.

    Args:
        updates: Number of updates from position 0.
        batch_size: Items per update, such as sequences: a whole number above 0, or a schedule of
            such numbers (`schedules.whole(...)`).
        per_item: Units per item, such as the tokens of a sequence. A whole number above 0.

    Raises:
        ConfigError: An argument is invalid, or a batch size is not a whole number above 0.

    Examples:
        >>> from dist_sched import schedules
        >>> ramp = schedules.whole(schedules.piecewise([(0, 2), (100, 4)]), multiple_of=2)
        >>> units_after(4, ramp, per_item=25)
        300
    """
    items = batch_size if isinstance(batch_size, Schedule) else _count("batch_size", batch_size)
    pace = Pace.of(items, _count("per_item", per_item))
    return pace.position_after(whole("updates", updates))


def _count(name: str, value: object) -> int:
    some(name, whole(name, value))
    return whole(name, value)


def _items(curve: Schedule, position: int) -> int:
    found = curve(position)
    nearest = round(found)
    if nearest < 1 or not math.isclose(found, nearest, rel_tol=JOIN_TOLERANCE):
        raise ConfigError(
            f"batch_size={found!r} at position {position}: must be a whole number above 0; "
            "round it with schedules.whole(...) (multiple_of in a file)"
        )
    return nearest


def _is_flat(curve: Schedule, position: int, end: Number) -> bool:
    phase = curve.phase_between(position, end)
    return phase.shape == "step" or (phase.shape != PRODUCT and phase.start == phase.end)
