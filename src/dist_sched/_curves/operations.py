"""Operations that build a schedule from other schedules. All return phases, as plain data."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Any

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
from dist_sched._rules import Number, count, finite, illegal, is_list, plain, rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHARES = (0, 1e-4, 0.01, *(index / 16 for index in range(1, 16)), 0.99, 1 - 1e-4, 1)
"""Positions, as fractions of its length, at which a product is checked for turning points."""
_FINEST = 1e-5
"""Precision of a turning point, as a fraction of the product's length."""
_MOST_PARTS = 50_000
"""Maximum number of phases of a product times its factors. So many take seconds."""
_MOST_FACTORS = 64
"""Maximum number of factors of a product that change at the same time."""


def product(*factors: Schedule | float) -> Schedule:
    """Return the product of schedules: `f(n) = f1(n) f2(n) ...`.

    The product ends at the latest horizon of its factors. A factor that ends earlier stays at its
    last value. While only one factor changes, the product has that factor's phases, multiplied.

    Args:
        *factors: Schedules and numbers >= 0. At least one schedule.

    Raises:
        ConfigError: A factor is neither a schedule nor a number >= 0, or the product has too many
            phases or values out of the range of floats.

    Examples:
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
    """Return a power of a schedule: `f(n)^power`.

    For example, the square root of a batch size, to multiply a learning rate by.

    Args:
        schedule: The schedule.
        power: Any number except 0. A negative power needs a schedule that is above 0 everywhere.

    Raises:
        ConfigError: The power is invalid, or the values leave the range of floats.

    Examples:
        >>> from dist_sched import schedules
        >>> batch_size = schedules.piecewise([(0, 64), (100, 256)])
        >>> [schedules.raised_to(batch_size, 0.5)(position) for position in (0, 100)]
        [8.0, 16.0]
    """
    _check_schedule(schedule)
    exponent = float(finite("power", power))
    if exponent == 0 or (exponent < 0 and schedule.min_value == 0):
        rule = "must not be 0, and not negative if the schedule is 0 somewhere"
        raise illegal("power", power, rule)
    if exponent == 1:
        return schedule
    return _product([(stages(schedule), exponent)], 1.0)


def stages(schedule: Schedule) -> Schedule:
    """Return a rounded schedule as constant phases, and any other schedule unchanged."""
    if schedule.multiple_of is None:
        return schedule
    _check_stages(schedule, schedule.multiple_of)
    phases: list[Phase] = []
    begin, last = 0, math.ceil(schedule.horizon)
    while begin < last:
        value = schedule(begin)
        join = schedule.boundaries[schedule.index(begin) + 1 :] or (last,)
        end = min(math.ceil(join[0]), last)
        if schedule(end - 1) != value:  # a bisection, because built-in shapes are monotonic
            end = bisect_left(range(begin, end), True, key=lambda at: schedule(at) != value) + begin
        phases.append(phase_of("constant", end - begin, value, value))
        begin = end
    return Schedule([*phases, phase_of("constant", 0, schedule.end_value, schedule.end_value)])


def _check_stages(schedule: Schedule, multiple_of: int) -> None:
    """Raise if a rounded schedule has too many stages, because each one takes a search."""
    if any(shape_of(phase.shape).origin is not None for phase in schedule.phases):
        rule = "is rounded and has a registered shape; multiply first, then round the product"
        raise illegal("factors", schedule, rule)
    spans = zip(schedule.spans(), schedule.phases, strict=True)
    most = sum(
        min(abs(end - start) / multiple_of, phase.duration) + 1 for (start, end), phase in spans
    )
    if most > _MOST_PARTS:
        rule = f"has more than {_MOST_PARTS:,} stages; multiply first, then round the product"
        raise illegal("factors", schedule, rule)


def _product(factors: list[tuple[Schedule, float]], number: float) -> Schedule:
    """Return the product of powers of schedules and of a number.

    Raises:
        ConfigError: It has too many phases, or values out of the range of floats.
    """
    joins = sorted({join for one, _ in factors for join in (*one.boundaries, one.horizon)})
    if len(joins) * len(factors) > _MOST_PARTS:
        rule = (
            f"the phases of a product, multiplied by the number of its factors, must be at most "
            f"{_MOST_PARTS:,}; use schedules of fewer phases"
        )
        raise illegal("parts", len(joins) * len(factors), rule)
    phases = []
    try:
        for begin, end in pairwise(joins):
            if end - begin > JOIN_TOLERANCE:
                here = [(_held(one.phase_between(begin, end)), power) for one, power in factors]
                phases += _at_turns(_phase(here, number))
        last = number * math.prod(one.end_value**power for one, power in factors)
    except OverflowError as error:
        rule = "their product leaves the range of floats; use values or powers closer to 1"
        raise ConfigError(f"factors: {rule}") from error
    # A factor may jump at its end.
    if not phases or not math.isclose(_reached(phases[-1]), last, rel_tol=JOIN_TOLERANCE):
        phases.append(phase_of("constant", 0, last, last))
    return Schedule(phases)


def _reached(phase: Phase) -> float:
    """Return the last value of a phase that has a start. A cut phase ends before its shape."""
    return piece_of(phase, phase.start or 0.0)(phase.stop)


def _held(phase: Phase) -> Phase:
    """Return a constant phase in place of a step, which has its end value only after it."""
    if phase.shape != "step" or phase.start is None:
        return phase
    return phase_of("constant", phase.duration, phase.start, phase.start)


def _phase(factors: list[tuple[Phase, float]], number: float) -> Phase:
    """Return the product of powers of phases of equal length, and of a number, as one phase."""
    steps = factors[0][0].duration
    moving = [(phase, power) for phase, power in factors if phase.shape != "constant"]
    number *= math.prod(phase.end**power for phase, power in factors if phase.shape == "constant")
    if not moving or number == 0:
        return phase_of("constant", steps, number, number)
    if len(moving) == 1 and moving[0][1] == 1:
        return scaled(moving[0][0], number)
    flat = _without_products(moving)
    if len(flat) > _MOST_FACTORS:
        rule = f"at most {_MOST_FACTORS} may change at the same time"
        raise illegal("factors", len(flat), rule)
    return product_of(multiplied(flat, number))


def _without_products(factors: list[tuple[Phase, float]]) -> list[Factor]:
    """Return the factors of each factor that is a product, then the other factors."""
    inner = [
        Factor(part(one, product.since or 0, product.stop), power * own_power)
        for product, power in factors
        if product.shape == PRODUCT
        for one, own_power in factors_of(product)
    ]
    return [*inner, *(Factor(one, power) for one, power in factors if one.shape != PRODUCT)]


def _at_turns(phase: Phase) -> list[Phase]:
    """Return the monotonic parts of a product.

    If some factors rise and others fall, the highest value may be in the middle.
    """
    ways = {
        (one.start or 0.0) <= one.end if power > 0 else (one.start or 0.0) >= one.end
        for one, power in factors_of(phase)
    }
    is_part = phase.since is not None or phase.until is not None
    if len(ways) == 1 or is_part:  # parts are monotonic already
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
    """Return where a product has its maximum (sign 1) or minimum (sign -1) between two places."""
    # Near a turning point, a small error of the place has almost no effect on the value.
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
    """Return a schedule repeated several times.

    Args:
        schedule: One cycle.
        times: Number of cycles, at least 1.
        factors: A list with the factor of each cycle, at least 0. A single number `f` multiplies
            cycle `i`, counted from 0, by `f^i`. None does not change the cycles.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Jagged restarts: Lialin et al. 2023, https://arxiv.org/abs/2307.05695.
        Cycles of equal length: Wen et al. 2024, https://arxiv.org/abs/2410.05192.

    Examples:
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
        rule = f"must be from 1 to {most:,} (a schedule may have {MOST_PHASES:,} phases)"
        raise illegal("times", times, rule)
    if given is None:
        numbers = [1.0] * cycles
    elif is_list(given):
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
    """Return a schedule with its values rounded down to whole multiples, as ints.

    Use it for a batch size, which must be a multiple of the number of ranks.

    Args:
        schedule: The schedule to round. A value that misses a multiple only by a rounding error
            counts as the multiple.
        multiple_of: Values are whole multiples of this whole number, at least 1.

    Raises:
        ConfigError: `multiple_of` is not a whole number, or a value above 0 would become 0.

    Examples:
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
