"""Schedules between the bounds of a group.

Megatron-LM's curves have formulas with bounds. The values of a schedule are mapped onto the bounds
linearly.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from dist_sched._curves.megatron import equal
from dist_sched._curves.proportional import ProportionalCurve
from dist_sched._curves.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dist_sched._curves.curve import Between


class Point(NamedTuple):
    """A value that depends on a group's bounds `high` and `low`.

    It is `constant + upper * high + lower * low`.
    """

    constant: float
    upper: float
    lower: float

    def mixed(self, other: Point, part: float) -> Point:
        """Return the point at a fraction of the way from this point to another."""
        left = 1.0 - part
        return Point(
            *(left * mine + part * theirs for mine, theirs in zip(self, other, strict=True))
        )


Line = tuple[Point, Point]
"""Start and end of a phase between a group's bounds. Values between them are mapped linearly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedSchedule:
    """A schedule mapped onto the bounds of a group.

    With `first`, `last` and `highest` of the schedule's values:

    - For a learning rate, from the highest point on, `highest` maps to the upper bound and `last`
      to the lower bound. Before the highest point, `first` is kept and `highest` maps to the upper
      bound.
    - For a weight decay (`is_rise`), `first` maps to the lower bound and `last` to the upper bound.

    If the two values that map to the bounds are equal, values are in proportion to the upper bound.
    """

    curve: Schedule | ProportionalCurve
    is_rise: bool
    spans: tuple[tuple[float, float], ...]
    """The first and the last value of each phase."""
    lines: tuple[Line, ...]
    """The points to which these values map, for each phase."""
    max_value: float
    """The upper bound of groups without one, as declared. Late changes do not change it."""
    min_value: float
    """The lower bound of groups without one, as declared."""

    @classmethod
    def of(cls, curve: Schedule | ProportionalCurve, *, is_rise: bool) -> BoundedSchedule:
        """Build it for a schedule without late changes."""
        spans = _spans(curve)
        first, last = spans[0][0], spans[-1][1]
        return cls(
            curve=curve,
            is_rise=is_rise,
            spans=spans,
            lines=tuple(_rise(spans) if is_rise else _fall(spans)),
            max_value=last if is_rise else curve.max_value,
            min_value=first if is_rise else last,
        )

    @property
    def end_share(self) -> None:
        """None, because late changes are in the lines."""

    @property
    def factor(self) -> float:
        """1, because late changes are in the lines."""
        return 1.0

    def at(self, position: float) -> Between:
        """Return the value at a position as a function of the bounds.

        Raises:
            ConfigError: That function raises it for a weight decay that ends at its first value,
                if the two bounds differ.
        """
        constant, upper, lower = self.point(position)
        if self.is_rise and self.max_value == self.min_value:
            return lambda high, low: upper * equal(high, low)
        # A shape that overshoots its end could map below 0.
        return lambda high, low: max(0.0, constant + upper * high + lower * low)

    def part(self, position: float) -> None:
        """Return None, because values are mapped from two points."""

    def highest(self, high: float, low: float) -> float:
        """Return the highest value between two bounds."""
        points = sum(self.lines, ())
        return max(one.constant + one.upper * high + one.lower * low for one in points)

    @property
    def peak(self) -> Point:
        """The point to which the highest value maps, of the followed schedule if there is one."""
        points = zip(sum(self.spans, ()), sum(self.lines, ()), strict=True)
        is_inverse = isinstance(self.curve, ProportionalCurve) and self.curve.power < 0
        chosen = min if is_inverse else max
        return chosen(points, key=lambda pair: pair[0])[1]

    def point(self, position: float) -> Point:
        """Return the point to which the value at a position maps."""
        schedule = _schedule(self.curve)
        index = bisect_right(schedule.boundaries, position) - 1
        start, end = self.spans[index]
        here, there = self.lines[index]
        if start != end:
            return here.mixed(there, (self.curve(position) - start) / (end - start))
        units, duration = position - schedule.boundaries[index], schedule.phases[index].duration
        return here.mixed(there, min(units / duration, 1.0) if duration else 1.0)

    def changed(
        self,
        curve: Schedule | ProportionalCurve,
        position: int,
        operation: str,
        *,
        end: Point | None = None,
        factor: float = 1.0,
    ) -> BoundedSchedule:
        """Return the mapped schedule after a late change. Only `scale` makes a group's value jump.

        Args:
            curve: The schedule after the change.
            position: Position of the change.
            operation: Name of the change.
            end: Last point of a cooldown or a rise. None for a value that the schedule had.
            factor: Factor of `scale`.
        """
        spans = _spans(curve)
        match operation:
            case "extend":
                lines = self._extended(_schedule(curve), position)
            case "scale":
                lines = self._scaled(len(spans), position, factor)
            case _:
                goal = self._known(spans[-1][1]) if end is None else end
                lines = self._replaced(_schedule(curve), position, goal)
        return replace(self, curve=curve, spans=spans, lines=tuple(lines))

    def _extended(self, after: Schedule, position: int) -> list[Line]:
        """Return the lines of a schedule in which one phase became longer."""
        before, lines = _schedule(self.curve).phases, [*self.lines]
        more = len(after.phases) - len(before)
        pairs = enumerate(zip(before, after.phases, strict=False))
        index = next((index for index, (old, new) in pairs if old != new), len(before))
        if more and index + 1 < len(after.phases) and after.boundaries[index + 1] == position:
            (start, end), here = lines[index], self.point(position)
            lines[index : index + 1] = [(start, here), (here, end)]  # stretched from here on
        else:
            # After a cut phase, its last value is held.
            reached = lines[index - 1][1]
            lines[index:index] = [(reached, reached)] * more
        return lines

    def _scaled(self, count: int, position: int, factor: float) -> list[Line]:
        """Return the lines of a number of phases, multiplied from a position on."""
        schedule, lines = _schedule(self.curve), [*self.lines]
        past = lines[-1][1]
        if position >= schedule.horizon:
            return [
                *lines,
                *[(past, past)] * (count - len(lines) - 1),
                _times((past, past), factor),
            ]
        index = schedule.index(position)
        if schedule.boundaries[index] < position:  # it is cut
            (start, end), here = lines[index], self.point(position)
            lines[index : index + 1] = [(start, here), (here, end)]
            index += 1
        return [*lines[:index], *(_times(line, factor) for line in lines[index:])]

    def _replaced(self, after: Schedule, position: int, goal: Point) -> list[Line]:
        """Return the lines of a schedule in which one phase replaced the rest."""
        before, lines = _schedule(self.curve).phases, [*self.lines]
        new = len(after.phases) - 1
        here, past = self.point(position), lines[-1][1]
        lines += [(past, past)] * (new - len(lines))  # held past the horizon
        lines[new:] = [(here, goal)]
        if new and after.phases[new - 1] != (*before, *after.phases)[new - 1]:
            lines[new - 1] = lines[new - 1][0], here  # it was cut
        return lines

    def _known(self, value: float) -> Point:
        """Return the point to which a first or last value of a phase maps."""
        points = dict(zip(chain(*self.spans), chain(*self.lines), strict=True))
        return points.get(value, Point(value, 0.0, 0.0))


def _times(line: Line, factor: float) -> Line:
    start, end = (Point(*(factor * part for part in point)) for point in line)
    return start, end


def _schedule(curve: Schedule | ProportionalCurve) -> Schedule:
    """Return the schedule, or the schedule that the curve follows."""
    return curve if isinstance(curve, Schedule) else curve.schedule


def _spans(curve: Schedule | ProportionalCurve) -> tuple[tuple[float, float], ...]:
    spans = _schedule(curve).spans()
    if isinstance(curve, Schedule):
        return tuple(spans)
    return tuple((curve.of(start), curve.of(end)) for start, end in spans)


def _rise(spans: Sequence[tuple[float, float]]) -> Iterator[Line]:
    first, last = spans[0][0], spans[-1][1]
    for start, end in spans:
        yield _between(start, first, last), _between(end, first, last)


def _fall(spans: Sequence[tuple[float, float]]) -> Iterator[Line]:
    first, last = spans[0][0], spans[-1][1]
    highest = max(map(max, spans))
    is_before = True
    for start, end in spans:
        is_before = is_before and start != highest
        if is_before:
            yield _up_to(start, first, highest), _up_to(end, first, highest)
        else:
            yield _between(start, last, highest), _between(end, last, highest)
        is_before = is_before and end != highest


def _up_to(value: float, first: float, highest: float) -> Point:
    """Return the point of a value if `first` is kept and `highest` maps to the upper bound."""
    part = (value - first) / (highest - first)
    return Point(first * (1.0 - part), part, 0.0)


def _between(value: float, low: float, high: float) -> Point:
    """Return the point of a value if `low` and `high` map to the lower and the upper bound."""
    if low != high:
        part = (value - low) / (high - low)
        return Point(0.0, part, 1.0 - part)
    return Point(0.0, value / high if high else 1.0, 0.0)
