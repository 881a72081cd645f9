"""Operations that make schedules of schedules; all return phases, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dist_sched._curves.phases import JOIN_TOLERANCE, factors_of, part, phase_of, product_of, scaled
from dist_sched._curves.schedule import MOST_PHASES, Schedule
from dist_sched._curves.shapes import PRODUCT
from dist_sched._rules import Number, illegal, plain, rate, some, whole
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._curves.phases import Phase


def product(*factors: Schedule | float) -> Schedule:
    """Return the schedule whose value is the product of others': `f(n) = f1(n) f2(n) ...`.

    It ends where the last of them ends; one that ends before stays at its last value. Where all but
    one are constant, the phases are those of that one, scaled.

    Args:
        *factors: Schedules, and numbers >= 0; at least one schedule.

    Raises:
        ConfigError: A factor is no schedule and no number, or is rounded to whole multiples.

    >>> from dist_sched import Phase, schedules
    >>> tail = schedules.wsd(1.0, 100, decay=50, decay_shape="linear")
    >>> stages = Schedule([Phase("step", 80, end=0.5, start=2.0)])
    >>> [schedules.product(0.1, tail, stages)(position) for position in (0, 75, 80, 100)]
    [0.2, 0.1, 0.020000000000000004, 0.0]
    """
    schedules = []
    number = 1.0
    for index, one in enumerate(factors):
        if not isinstance(one, Schedule):
            number *= rate(f"factors[{index}]", one)
        elif one.multiple_of is not None:
            raise illegal(f"factors[{index}]", one, "is rounded: round the product instead")
        else:
            schedules.append(one)
    if not schedules:
        raise illegal("factors", factors, "must have at least one schedule")
    joins = sorted({join for one in schedules for join in (*one.boundaries, one.horizon)})
    phases = [
        _multiplied([_held(one.phase_between(begin, end)) for one in schedules], number)
        for begin, end in pairwise(joins)
        if end - begin > JOIN_TOLERANCE
    ]
    last = number * math.prod(one.end_value for one in schedules)
    # One may jump where it ends.
    if not phases or not math.isclose(phases[-1].end, last, rel_tol=JOIN_TOLERANCE):
        phases.append(phase_of("constant", 0, last, last))
    return Schedule(phases)


def _held(phase: Phase) -> Phase:
    """Return a constant phase in place of a step, whose end is where the next phase begins."""
    if phase.shape != "step" or phase.start is None:
        return phase
    return phase_of("constant", phase.duration, phase.start, phase.start)


def _multiplied(phases: list[Phase], number: float) -> Phase:
    """Return the phase that is the product of phases of one length, and of a number."""
    moving = [one for one in phases if one.shape != "constant"]
    number *= math.prod(one.end for one in phases if one.shape == "constant")
    if not moving or number == 0:
        return phase_of("constant", phases[0].duration, number, number)
    if len(moving) == 1:
        return scaled(moving[0], number)
    moving[0] = scaled(moving[0], number)
    # Factors of a factor stand beside the others.
    flat = [factor for one in moving for factor in _factors(one)]
    return product_of(flat)


def _factors(phase: Phase) -> Iterable[Phase]:
    """Return the factors of a product as they go in it, or else the phase."""
    if phase.shape != PRODUCT:
        return [phase]
    return [part(one, phase.since or 0, phase.stop) for one in factors_of(phase)]


def repeat(
    schedule: Schedule, times: int, factors: float | Iterable[float] | None = None
) -> Schedule:
    """Return a schedule several times, one after the other.

    Args:
        schedule: One cycle.
        times: How many cycles, at least 1.
        factors: What each cycle is multiplied by: one number for each, or one number alone, by
            which each cycle is that many times the one before.

    Raises:
        ConfigError: An argument is illegal; names it, its value and the rule.

    Reference: jagged restarts, Lialin et al. 2023, https://arxiv.org/abs/2307.05695; cycles of
    equal length, Wen et al. 2024, https://arxiv.org/abs/2410.05192.

    >>> from dist_sched import schedules
    >>> schedule = schedules.repeat(schedules.linear(1.0, 10), 3, factors=0.5)
    >>> [schedule(position) for position in (0, 5, 10, 15, 20, 30)]
    [1.0, 0.5, 0.5, 0.25, 0.25, 0.0]
    """
    _check_schedule(schedule)
    count = whole("times", times)
    given: Any = plain(factors)
    most = MOST_PHASES // len(schedule.phases)
    if not 0 < count <= most:
        raise illegal("times", times, f"must be from 1 to {most:,}, for at most 100,000 phases")
    if given is None:
        numbers = [1.0] * count
    elif isinstance(given, Iterable) and not isinstance(given, str | Mapping):
        numbers = [rate("factors", one) for one in given]
        if len(numbers) != count:
            raise illegal("factors", factors, f"must be {count} numbers, one for each cycle")
    else:
        numbers = [rate("factors", given) ** index for index in range(count)]
    phases = [
        one if number == 1 else scaled(one, number) for number in numbers for one in schedule.phases
    ]
    return Schedule(phases, schedule.multiple_of)


def whole_multiples(schedule: Schedule, multiple_of: int = 1) -> Schedule:
    """Return a schedule whose values are rounded down to whole multiples, and are ints.

    Such as a batch size, which must be a multiple of the number of ranks.

    Args:
        schedule: What is rounded. A value within 1e-9 of a multiple counts as that.
        multiple_of: At least 1.

    Raises:
        ConfigError: It is no whole number, or a value above 0 would become 0.

    >>> from dist_sched import schedules
    >>> batch_size = schedules.whole(schedules.piecewise([(0, 64), (100, 256)]), multiple_of=64)
    >>> [batch_size(position) for position in (0, 33, 34, 99, 100)]
    [64, 64, 128, 192, 256]
    """
    _check_schedule(schedule)
    return Schedule(schedule.phases, multiple_of)


def _check_schedule(schedule: object) -> None:
    if not isinstance(schedule, Schedule):
        raise illegal("schedule", schedule, "must be a schedule")


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
    250
    """
    return position_after(updates, [(batch_size, per_item)])


def position_after(
    updates: int, factors: Iterable[tuple[Schedule | int, int]], begin: int = 0
) -> int:
    """Return the position so many updates after another.

    Args:
        updates: How many.
        factors: Pairs whose product is what an update completes.
        begin: Where the first update is made.

    Raises:
        ConfigError: As for `units_after`.
    """
    count, position = whole("updates", updates), begin
    curves: list[Schedule] = []
    number = 1
    for one, times in factors:
        number *= whole("per_item", times)
        if isinstance(one, Schedule):
            curves.append(one)
        else:
            number *= whole("batch_size", one)
    some("units of an update", number)
    while count:
        units = number
        for curve in curves:
            units *= _items(curve, position)
        # Up to the next join, or for ever, at once where nothing moves.
        end = _constant_until(curves, position)
        jump = count if end is None else min(count, max(1, math.ceil((end - position) / units)))
        position, count = position + units * jump, count - jump
    return whole("position", position)


def _items(curve: Schedule, position: int) -> int:
    found = curve(position)
    nearest = round(found)
    if nearest < 1 or not math.isclose(found, nearest, rel_tol=JOIN_TOLERANCE):
        rule = (
            f"is {found!r} at position {position}, and must be a whole number above 0: round it "
            "with schedules.whole(...) (multiple_of in a file)"
        )
        raise ConfigError(f"batch_size: {rule}")
    return nearest


def _constant_until(curves: Iterable[Schedule], position: int) -> Number | None:
    """Return up to which position nothing changes from here; None for no end."""
    ends = []
    for one in curves:
        if position >= one.horizon:
            continue
        index = one.index(position)
        is_flat = one.phases[index].shape in {"constant", "step"}
        ends.append((*one.boundaries, one.horizon)[index + 1] if is_flat else position)
    return min(ends, default=None)
