"""Phases and schedules from which other libraries' schedules are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dist_sched._curves.phases import Phase, phase_of
from dist_sched._curves.schedule import MOST_PHASES, Schedule
from dist_sched._rules import illegal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dist_sched._rules import Number

_NO_PHASE = 1e-9
"""A remainder of fewer half waves is a rounding error."""


def hold(steps: Number, value: float) -> Phase:
    """Return a phase that stays at a value."""
    return phase_of("constant", steps, value, value)


def lasting(*phases: Phase) -> list[Phase]:
    """Return the phases that are not of length 0."""
    return [phase for phase in phases if phase.duration > 0]


def flat(value: float) -> Schedule:
    """Return a schedule that has one value everywhere."""
    return Schedule([hold(0, value)])


def padded(schedule: Schedule, horizon: Number | None) -> Schedule:
    """Return the schedule, held at its last value up to a later horizon."""
    if horizon is None or horizon <= schedule.horizon:
        return schedule
    phases = schedule.phases
    # A last phase of length 0 only sets the last value.
    kept = phases if phases[-1].duration else phases[:-1]
    return Schedule([*kept, hold(horizon - schedule.horizon, schedule.end_value)])


def up_to(schedule: Schedule, position: Number) -> list[Phase]:
    """Return the phases up to a position, held at the last value if they end before it."""
    return [*padded(schedule, position).cut(until=position).phases] if position > 0 else []


def since(schedule: Schedule, position: Number) -> Schedule:
    """Return the schedule from a position on, which becomes position 0."""
    if position >= schedule.horizon:
        return flat(schedule.end_value)
    return schedule.cut(since=position) if position else schedule


def through(before: Schedule, last: int, after: Schedule) -> Schedule:
    """Return one schedule up to and including a position, and another one from then on.

    Both begin at the same time. If they have the same value at the position, the other one begins
    at this position.
    """
    begin = last if before(last) == after(last) else last + 1
    return Schedule([*up_to(before, begin), *since(after, begin).phases])


def chained(schedules: Sequence[Schedule]) -> Schedule:
    """Return schedules one after the other. The position of a join belongs to the earlier one."""
    phases: list[Phase] = []
    reached = schedules[0](0)
    for schedule in schedules:
        if phases and not phases[-1].duration:  # it only set the last value
            phases.pop()
        # Its position 0 is the join.
        is_smooth = schedule(0) == reached
        phases += [] if is_smooth else [hold(1, reached)]
        phases += (schedule if is_smooth else since(schedule, 1)).phases
        reached = schedule.end_value
    return Schedule(phases)


def waves(high: float, low: float, half: Number, steps: Number) -> list[Phase]:
    """Return half waves of a cosine, from `high` to `low` and back, over a number of units.

    Args:
        high: Value at the beginning.
        low: Value after the first half wave.
        half: Length of a half wave, in units.
        steps: Total length, in units. The last half wave may be cut.
    """
    half = int(half) if half == int(half) else half
    phases: list[Phase] = []
    while (left := steps - len(phases) * half) > _NO_PHASE * half:
        start, end = (low, high) if len(phases) % 2 else (high, low)
        phases.append(phase_of("cosine", half, end, start, until=left if left < half else None))
    return phases


def refuse_many(name: str, value: object, count: Number) -> None:
    """Raise if a value results in more phases than a schedule can have."""
    if count > MOST_PHASES // 2:
        raise illegal(name, value, f"is too large: it makes more than {MOST_PHASES // 2:,} phases")
