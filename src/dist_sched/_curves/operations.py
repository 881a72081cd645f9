"""Operations that make schedules of schedules; all return phases, as plain data."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from dist_sched._curves.phases import (
    JOIN_TOLERANCE,
    Factor,
    Phase,
    Piece,
    factors_of,
    multiplied,
    part,
    phase_of,
    piece_of,
    product_of,
    scaled,
)
from dist_sched._curves.schedule import MOST_PHASES, Schedule
from dist_sched._curves.shapes import PRODUCT, shape_of
from dist_sched._rules import Number, count, finite, illegal, plain, rate
from dist_sched.errors import ConfigError

_SHARES = (0, 1e-4, 0.01, *(index / 16 for index in range(1, 16)), 0.99, 1 - 1e-4, 1)
"""Places at which a product is looked at for where it turns, as parts of its length."""
_FINEST = 1e-5
"""Part of a product's length to which such a place is found."""
_MOST_PARTS = 50_000
"""Phases of a product times its factors, at most: they take seconds."""
_MOST_FACTORS = 64
"""Factors of a product that change at the same time, at most."""


def product(*factors: Schedule | float) -> Schedule:
    """Return the schedule whose value is the product of others': `f(n) = f1(n) f2(n) ...`.

    It ends where the last of them ends; one that ends before stays at its last value. Where all but
    one are constant, the phases are those of that one, scaled.

    Args:
        *factors: Schedules, and numbers >= 0; at least one schedule.

    Raises:
        ConfigError: A factor is no schedule and no number.

    >>> from dist_sched import Phase, schedules
    >>> tail = schedules.wsd(1.0, 100, decay=50, decay_shape="linear")
    >>> stages = Schedule([Phase("step", 80, end=0.5, start=2.0)])
    >>> [schedules.product(0.5, tail, stages)(position) for position in (0, 75, 100)]
    [1.0, 0.5, 0.0]
    """
    schedules = [one for one in factors if isinstance(one, Schedule)]
    numbers = [
        rate(f"factors[{index}]", one)
        for index, one in enumerate(factors)
        if not isinstance(one, Schedule)
    ]
    if not schedules:
        raise illegal("factors", factors, "must have at least one schedule")
    return _product([(stages(one), 1.0) for one in schedules], math.prod(numbers))


def raised_to(schedule: Schedule, power: float) -> Schedule:
    """Return the schedule whose value is a power of another's: `f(n)^power`.

    Such as the square root of a batch size, by which lr is multiplied.

    Args:
        schedule: The other.
        power: Any number but 0; below 0 the other must be above 0 throughout.

    Raises:
        ConfigError: The power is illegal, or leaves the range of floats.

    >>> from dist_sched import schedules
    >>> batch_size = schedules.piecewise([(0, 64), (100, 256)])
    >>> [schedules.raised_to(batch_size, 0.5)(position) for position in (0, 100)]
    [8.0, 16.0]
    """
    _check_schedule(schedule)
    exponent = float(finite("power", power))
    if exponent == 0 or (exponent < 0 and schedule.min_value == 0):
        rule = "must not be 0, and not negative where the schedule is 0 somewhere"
        raise illegal("power", power, rule)
    if exponent == 1:
        return schedule
    return _product([(stages(schedule), exponent)], 1.0)


def stages(schedule: Schedule) -> Schedule:
    """Return a rounded schedule as constant phases, one for each multiple; another as it is."""
    if schedule.multiple_of is None:
        return schedule
    _check_stages(schedule, schedule.multiple_of)
    phases: list[Phase] = []
    begin, last = 0, math.ceil(schedule.horizon)
    while begin < last:
        value = schedule(begin)
        join = schedule.boundaries[schedule.index(begin) + 1 :] or (last,)
        end = min(math.ceil(join[0]), last)
        if schedule(end - 1) != value:  # shapes go one way
            end = bisect_left(range(begin, end), True, key=lambda at: schedule(at) != value) + begin
        phases.append(phase_of("constant", end - begin, value, value))
        begin = end
    return Schedule([*phases, phase_of("constant", 0, schedule.end_value, schedule.end_value)])


def _check_stages(schedule: Schedule, multiple_of: int) -> None:
    """Raise where a rounded schedule has too many stages, each of which takes a search."""
    if any(shape_of(phase.shape).origin is not None for phase in schedule.phases):
        rule = "has a registered shape, which may turn: multiply it before it is rounded"
        raise illegal("factors", schedule, rule)
    spans = zip(schedule.spans(), schedule.phases, strict=True)
    most = sum(
        min(abs(end - start) / multiple_of, phase.duration) + 1 for (start, end), phase in spans
    )
    if most > _MOST_PARTS:
        rule = f"has more than {_MOST_PARTS:,} stages: multiply it before it is rounded"
        raise illegal("factors", schedule, rule)


def _product(factors: list[tuple[Schedule, float]], number: float) -> Schedule:
    """Return the product of powers of schedules, and of a number.

    Raises:
        ConfigError: It has too many phases, or leaves the range of floats.
    """
    joins = sorted({join for one, _ in factors for join in (*one.boundaries, one.horizon)})
    if len(joins) * len(factors) > _MOST_PARTS:
        rule = f"must be at most {_MOST_PARTS:,}, for the phases of a product times its factors"
        raise illegal("parts", len(joins) * len(factors), rule)
    phases = []
    try:
        for begin, end in pairwise(joins):
            if end - begin > JOIN_TOLERANCE:
                here = [(_held(one.phase_between(begin, end)), power) for one, power in factors]
                phases += _at_turns(_phase(here, number))
        last = number * math.prod(one.end_value**power for one, power in factors)
    except OverflowError as error:
        rule = "multiplied, or raised to their powers, they leave the range of floats"
        raise ConfigError(f"factors: {rule}") from error
    # One may jump where it ends.
    if not phases or not math.isclose(_reached(phases[-1]), last, rel_tol=JOIN_TOLERANCE):
        phases.append(phase_of("constant", 0, last, last))
    return Schedule(phases)


def _reached(phase: Phase) -> float:
    """Return the last value of a phase that has a start: not its shape's, where it is cut."""
    return piece_of(phase, phase.start or 0.0)(phase.stop)


def _held(phase: Phase) -> Phase:
    """Return a constant phase in place of a step, whose end is where the next phase begins."""
    if phase.shape != "step" or phase.start is None:
        return phase
    return phase_of("constant", phase.duration, phase.start, phase.start)


def _phase(factors: list[tuple[Phase, float]], number: float) -> Phase:
    """Return the phase that is the product of powers of phases of one length, and of a number."""
    steps = factors[0][0].duration
    moving = [(one, power) for one, power in factors if one.shape != "constant"]
    number *= math.prod(one.end**power for one, power in factors if one.shape == "constant")
    if not moving or number == 0:
        return phase_of("constant", steps, number, number)
    if len(moving) == 1 and moving[0][1] == 1:
        return scaled(moving[0][0], number)
    # Factors of a factor stand beside the others.
    flat = [
        Factor(part(inner, one.since or 0, one.stop), power * inner_power)
        for one, power in moving
        for inner, inner_power in factors_of(one)
        if one.shape == PRODUCT
    ] + [Factor(one, power) for one, power in moving if one.shape != PRODUCT]
    if len(flat) > _MOST_FACTORS:
        raise illegal("factors", len(flat), f"must be at most {_MOST_FACTORS} that change at once")
    return product_of(multiplied(flat, number))


def _at_turns(phase: Phase) -> list[Phase]:
    """Return the parts of a product between the places where it turns, in which it goes one way.

    Where some factors rise and others fall, it may be at its highest in its middle.
    """
    ways = {
        (one.start or 0.0) <= one.end if power > 0 else (one.start or 0.0) >= one.end
        for one, power in factors_of(phase)
    }
    is_part = phase.since is not None or phase.until is not None
    if len(ways) == 1 or is_part:  # of one that was looked at
        return [phase]
    piece = piece_of(phase, phase.start or 0.0)
    places = [phase.steps * share for share in _SHARES]
    values = [piece(place) for place in places]
    turns: list[Number] = [0]
    for index in range(1, len(places) - 1):
        before, here, after = values[index - 1 : index + 2]
        if (here - before) * (after - here) < 0:
            sign = 1 if here > before else -1
            turns.append(_turn(piece, places[index - 1], places[index + 1], sign))
    return [part(phase, begin, end) for begin, end in pairwise([*turns, phase.steps])]


def _turn(piece: Piece, low: float, high: float, sign: int) -> float:
    """Return where a product turns between two places: at a top, or at a bottom (-1)."""
    # Near a turn a value is off by the square of what the place is off by.
    while high - low > _FINEST * piece.steps:
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if sign * piece(left) < sign * piece(right):
            low = left
        else:
            high = right
    return (low + high) / 2


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
    cycles = count("times", times)
    given: Any = plain(factors)
    most = MOST_PHASES // len(schedule.phases)
    if not 0 < cycles <= most:
        raise illegal("times", times, f"must be from 1 to {most:,}, for at most 100,000 phases")
    if given is None:
        numbers = [1.0] * cycles
    elif isinstance(given, Iterable) and not isinstance(given, str | Mapping):
        numbers = [rate("factors", one) for one in given]
        if len(numbers) != cycles:
            raise illegal("factors", factors, f"must be {cycles} numbers, one for each cycle")
    else:
        numbers = [rate("factors", given) ** index for index in range(cycles)]
    phases = [
        one if number == 1 else scaled(one, number) for number in numbers for one in schedule.phases
    ]
    return Schedule(phases, schedule.multiple_of)


def whole_multiples(schedule: Schedule, multiple_of: int = 1) -> Schedule:
    """Return a schedule whose values are rounded down to whole multiples, and are ints.

    Such as a batch size, which must be a multiple of the number of ranks.

    Args:
        schedule: What is rounded. A value that rounding keeps from a multiple counts as that.
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
