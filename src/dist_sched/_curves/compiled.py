"""Curves made ready for many calls: what does not depend on the position is computed once."""

from __future__ import annotations

from bisect import bisect_right
from math import cos, pi
from typing import TYPE_CHECKING

from dist_sched._curves.megatron import DECAYS, RISES, LrCurve, WdCurve
from dist_sched._curves.proportional import ProportionalCurve
from dist_sched._curves.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from dist_sched._curves.curve import Curve
    from dist_sched._rules import Number


def compiled(curve: Curve) -> Callable[[int], float]:
    """Return a function with the values of a curve, bit for bit, which is faster to call.

    It is for positions that are whole and not negative, and cannot be pickled.
    """
    if isinstance(curve, LrCurve):
        return _lr(curve)
    if isinstance(curve, WdCurve):
        return _wd(curve)
    if isinstance(curve, Schedule):
        return _schedule(curve)
    if isinstance(curve, ProportionalCurve):
        return _proportional(curve)
    return curve


def _lr(curve: LrCurve) -> Callable[[int], float]:
    decay = DECAYS.get(curve.style)
    if decay is None:
        return curve
    warmup, horizon, low = curve.warmup, curve.horizon, curve.min_value
    length, spread = horizon - warmup, curve.max_value - low

    def value(position: int) -> float:
        if warmup < position <= horizon:
            return low + decay((position - warmup) / length) * spread
        return curve(position)

    def cosine(position: int) -> float:
        if warmup < position <= horizon:
            return low + 0.5 * (cos(pi * ((position - warmup) / length)) + 1.0) * spread
        return curve(position)

    return cosine if curve.style == "cosine" else value


def _wd(curve: WdCurve) -> Callable[[int], float]:
    rise = RISES.get(curve.style)
    if rise is None:
        if curve.min_value != curve.max_value:
            return curve  # which raises
        constant = curve.max_value
        return lambda _: constant
    length, low = curve.length, curve.min_value
    spread = curve.max_value - low

    def value(position: int) -> float:
        if 0 < position <= length:
            return low + rise(position / length) * spread
        return curve(position)

    def line(position: int) -> float:
        if 0 < position <= length:
            return low + position / length * spread
        return curve(position)

    return line if curve.style == "linear" else value


def _schedule(schedule: Schedule) -> Callable[[int], float]:
    if schedule.multiple_of is not None:
        return schedule
    boundaries, horizon = schedule.boundaries, schedule.horizon
    # The phase of the latest position, strictly within which its first and last value do not occur.
    piece = schedule.pieces[0]
    begin: Number = 0
    end: Number = 0
    origin: Number = 0
    steps: Number = 1
    spread = goal = low = high = 0.0
    is_line = is_half_cosine = False

    def value(position: int) -> float:
        nonlocal piece, begin, end, origin, steps, spread, goal, low, high, is_line, is_half_cosine
        if begin < position < end:
            if is_line:
                left = 1.0 - (position - origin) / steps
            elif is_half_cosine:
                left = 0.5 * (cos(pi * ((position - origin) / steps)) + 1.0)
            else:
                return piece(position - origin)
            found = goal + left * spread
            return low if found < low else high if found > high else found  # noqa: FURB136 - faster
        if position < horizon:
            index = bisect_right(boundaries, position) - 1
            piece, begin = schedule.pieces[index], boundaries[index]
            origin = schedule.origins[index]
            end = boundaries[index + 1] if index + 1 < len(boundaries) else horizon
            steps, goal, spread = piece.steps, piece.end, piece.start - piece.end
            low, high = sorted((piece.start, piece.end))
            is_line, is_half_cosine = piece.is_line, piece.is_half_cosine
        return schedule(position)

    return value


def _proportional(curve: ProportionalCurve) -> Callable[[int], float]:
    if curve.power != 1:
        return curve
    followed, highest, at_max = compiled(curve.schedule), curve.schedule.max_value, curve.at_max
    return lambda position: at_max * (followed(position) / highest)
