"""Lint: warnings about valid schedules that are probably mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dist_sched._rules import some, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dist_sched._curves.phases import Schedule
    from dist_sched._rules import Number


@dataclass(frozen=True, slots=True)
class Finding:
    """One warning of a lint."""

    position: Number
    """Where it shows, in units."""
    message: str

    def __str__(self) -> str:
        return f"position {self.position:g}: {self.message}"


def lint(
    schedule: Schedule, field: str, updates: int | None, increment: Number
) -> Iterator[Finding]:
    """Yield the findings about one schedule; `Schedule.lint` documents the arguments."""
    yield from _jumps(schedule)
    yield from _short_phases(schedule)
    if field == "lr":
        yield from idle_start(schedule)
        yield from _high_floor(schedule)
    if updates is not None and schedule.max_value > schedule.min_value:
        # An lr without a decay, weight decay and momentum may stay at their last value on purpose.
        may_stay = field != "lr" or all(start <= end for start, end in schedule.spans())
        for finding in end_of_run(schedule, schedule.horizon, updates, increment):
            if finding.position < schedule.horizon or not may_stay:
                yield finding


def idle_start(curve: Callable[[int], float]) -> Iterator[Finding]:
    """Warn about a first update that changes nothing."""
    if curve(0) == 0:
        yield Finding(0, "the first update has lr 0 and changes nothing")


def end_of_run(
    curve: Callable[[Any], float], horizon: Number, updates: int, increment: Number
) -> Iterator[Finding]:
    """Warn about a horizon that is not where a run of `updates` ends, `increment` units each.

    A run that ends early is fine where the curve is at its last value by then.
    """
    each = some("increment", increment)
    end = whole("updates", updates) * each
    if horizon < end:
        yield Finding(
            horizon,
            f"the horizon is {(end - horizon) / each:g} updates before the end of the run "
            f"({updates} updates, position {end:g}); the value stays {curve(horizon):g}",
        )
    elif horizon > end and curve(end) != curve(horizon):
        yield Finding(
            end,
            f"the run ends after {updates} updates, {horizon - end:g} units before the horizon "
            f"{horizon:g}: at {curve(end):g} instead of {curve(horizon):g}",
        )


def _jumps(schedule: Schedule) -> Iterator[Finding]:
    joins = zip(schedule.boundaries[1:], pairwise(schedule.spans()), strict=True)
    for join, ((_, before), (after, _)) in joins:
        if before != after:
            yield Finding(join, f"jumps from {before:g} to {after:g} at a join")


def _short_phases(schedule: Schedule) -> Iterator[Finding]:
    if [phase.shape for phase in schedule.phases] == ["constant"]:
        return  # a number in a config is a constant phase of length 0
    begins = zip(schedule.boundaries, schedule.phases, strict=True)
    for index, (begin, phase) in enumerate(begins):
        if phase.duration == 0:
            yield Finding(begin, f"phase {index} ({phase.shape}) has length 0")
        elif phase.duration < 1:
            yield Finding(
                begin,
                f"phase {index} ({phase.shape}) has length {phase.duration:g}, less than one unit: "
                "write a part of the horizon as 0.03 or '3%' in a config file; in quotes, a number "
                "without % is units",
            )


def _high_floor(schedule: Schedule) -> Iterator[Finding]:
    """Warn about a floor above the peak: the last phase that moves is a rise, and no warmup."""
    spans = schedule.spans()
    moves = [index for index, (start, end) in enumerate(spans) if start != end]
    if not moves:
        return
    last = moves[-1]
    (start, end), shape = spans[last], schedule.phases[last].shape
    is_warmup = last == 0 and shape == "linear" and (start == 0 or len(spans) > 1)
    if end > start and not is_warmup:
        yield Finding(
            schedule.boundaries[last],
            f"phase {last} ({shape}), the last that moves, rises from {start:g} to {end:g}: "
            "a floor above the peak?",
        )
