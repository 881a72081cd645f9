"""Lint: findings about valid schedules that are probably mistakes, each with a code and a level."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from dist_sched._rules import optional, some, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dist_sched._curves.schedule import Schedule
    from dist_sched._rules import Number

Level = Literal["note", "warning", "error"]

LEVELS: dict[str, Level] = {
    "first-lr-zero": "note",
    "jump": "warning",
    "tail-in-warmup": "warning",
    "drop-past-horizon": "warning",
    "floor-above-peak": "warning",
    "empty-phase": "warning",
    "phase-below-unit": "warning",
    "phase-below-update": "warning",
    "short-horizon": "warning",
    "horizon-mismatch": "warning",
    "horizon-before-end": "warning",
    "horizon-after-end": "warning",
    "field-ends-elsewhere": "note",
    "field-outlasts-lr": "warning",
    "factor-above-one": "warning",
    "decay-of-zeros": "warning",
    "lr-scale": "warning",
    "underflow": "warning",
    "peak-of-no-group": "note",
}
"""Level of each code; docs/cli.md says what the codes mean."""

_MOST_EQUAL = 3
"""Equal jumps that are named one by one."""
FEWEST_UPDATES = 10
"""A shorter horizon is probably written in another unit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is valid and probably a mistake."""

    position: Number | None
    """Where it shows, in units; None if it has no place."""
    message: str
    code: str
    """What kind of finding it is, one of `LEVELS`."""

    @property
    def level(self) -> Level:
        """How sure it is that something is wrong: note, warning or error."""
        return LEVELS[self.code]

    def __str__(self) -> str:
        where = "" if self.position is None else f"position {_exact(self.position)}: "
        return f"{where}{self.message} [{self.code}]"


def in_order(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings sorted by position, first those that have none."""
    return tuple(sorted(found, key=lambda one: -1 if one.position is None else one.position))


def checked_run(updates: int | None, increment: Number) -> tuple[int | None, Number]:
    """Return the length of a run and the units of an update, or raise a ConfigError."""
    return optional(whole)("updates", updates), some("increment", increment)


def lint(
    schedule: Schedule, field: str, updates: int | None, increment: Number
) -> Iterator[Finding]:
    """Yield the findings about one schedule; `Schedule.lint` documents the arguments."""
    yield from _jumps(schedule)
    yield from _short_phases(schedule, increment)
    if field == "lr":
        yield from idle_start(schedule)
        yield from _high_floor(schedule)
        if has_end(schedule):
            yield from short_horizon(schedule.horizon, increment)
    if updates is not None and schedule.max_value > schedule.min_value:
        # An lr without a decay, weight decay and momentum may stay at their last value on purpose.
        may_stay = field != "lr" or all(start <= end for start, end in schedule.spans())
        for finding in end_of_run(schedule, schedule.horizon, updates, increment):
            if finding.code != "horizon-before-end" or not may_stay:
                yield finding


def idle_start(curve: Callable[[int], float]) -> Iterator[Finding]:
    """Note a first update that changes nothing."""
    if curve(0) == 0:
        yield Finding(0, "the first update has lr 0 and changes nothing", "first-lr-zero")


def has_end(lr: Schedule) -> bool:
    """Return whether lr comes down from its peak, so that its horizon is where it ends."""
    return lr.end_value < lr.max_value


def end_of_run(
    curve: Callable[[Any], float], horizon: Number, updates: int, increment: Number
) -> Iterator[Finding]:
    """Warn about a horizon that is not where a run of `updates` ends, `increment` units each.

    A run that ends early is fine where the curve is at its last value by then.
    """
    end = updates * increment
    if horizon < end:
        yield Finding(
            horizon,
            f"the horizon is {(end - horizon) / increment:g} updates before the end of the run "
            f"({updates} updates, position {_exact(end)}); the value stays {curve(horizon):g}",
            "horizon-before-end",
        )
    elif horizon > end and curve(end) != curve(horizon):
        yield Finding(
            end,
            f"the run ends after {updates} updates, {_exact(horizon - end)} units before the "
            f"horizon {_exact(horizon)}: at {curve(end):g} instead of {curve(horizon):g}",
            "horizon-after-end",
        )


def short_horizon(horizon: Number, increment: Number) -> Iterator[Finding]:
    """Warn about a horizon of fewer than ten updates."""
    least = FEWEST_UPDATES * increment
    if horizon < least:
        yield Finding(
            horizon,
            f"the horizon {_exact(horizon)} is shorter than {FEWEST_UPDATES} updates "
            f"({_exact(least)} units): is it in updates, or in another unit?",
            "short-horizon",
        )


def short_phase(name: str, begin: Number, length: Number, increment: Number) -> Iterator[Finding]:
    """Warn about a phase of some length that is shorter than one unit, or than one update."""
    if 0 < length < 1:
        yield Finding(
            begin,
            f"{name} has length {length:g}, less than one unit: "
            "write a part of the horizon as 0.03 or '3%' in a config file; in quotes, a number "
            "without % is units",
            "phase-below-unit",
        )
    elif 0 < length < increment:
        yield Finding(
            begin,
            f"{name} has length {_exact(length)}, less than one update, which completes "
            f"{_exact(increment)} units: is the length in updates?",
            "phase-below-update",
        )


def unfilled_horizon(schedule: Schedule, written: Number) -> Iterator[Finding]:
    """Warn about phases that end elsewhere than at the horizon that is written beside them."""
    end = schedule.horizon
    if _exact(end) != _exact(written):
        side = "before" if end < written else "after"
        yield Finding(
            min(end, written),
            f"the phases end at {_exact(end)}, {_exact(abs(written - end))} units {side} the "
            f"horizon {_exact(written)} that is written beside them",
            "horizon-mismatch",
        )


def other_end(
    curve: Callable[[Any], float], horizon: Number, lr_horizon: Number
) -> Iterator[Finding]:
    """Find a field that moves and ends elsewhere than lr; a warning if it moves after lr's end."""
    at_lr_end, last = curve(lr_horizon), curve(horizon)
    if horizon > lr_horizon and at_lr_end != last:
        yield Finding(
            lr_horizon,
            f"ends at {_exact(horizon)}, after lr's horizon {_exact(lr_horizon)}: there it is "
            f"at {at_lr_end:g} instead of {last:g}",
            "field-outlasts-lr",
        )
    elif horizon != lr_horizon:
        yield Finding(
            min(horizon, lr_horizon),
            f"ends at {_exact(horizon)}, and lr at {_exact(lr_horizon)}; the value stays {last:g}",
            "field-ends-elsewhere",
        )


def _exact(units: Number) -> str:
    """Return units with all digits that count, since `:g` keeps six of a number of tokens."""
    return f"{units:.15g}"


def _jumps(schedule: Schedule) -> Iterator[Finding]:
    joins = zip(schedule.boundaries[1:], pairwise(schedule.spans()), strict=True)
    found: dict[str, list[Number]] = {}
    for join, ((_, before), (after, _)) in joins:
        if before != after:
            found.setdefault(f"jumps from {before:g} to {after:g} at a join", []).append(join)
    for message, positions in found.items():
        if len(positions) <= _MOST_EQUAL:
            yield from (Finding(position, message, "jump") for position in positions)
        else:  # cycles would bury what else there is
            more = f"{message}, and at {len(positions) - 1} more up to {_exact(positions[-1])}"
            yield Finding(positions[0], more, "jump")


def _short_phases(schedule: Schedule, increment: Number) -> Iterator[Finding]:
    if [phase.shape for phase in schedule.phases] == ["constant"]:
        return  # a number in a config is a constant phase of length 0
    begins = zip(schedule.boundaries, schedule.phases, strict=True)
    for index, (begin, phase) in enumerate(begins):
        name = f"phase {index} ({phase.shape})"
        if phase.duration == 0:
            yield Finding(begin, f"{name} has length 0", "empty-phase")
        # What a late change cuts may be short: it happened where the run was.
        yield from short_phase(name, begin, phase.duration, 1 if phase.until else increment)


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
            "floor-above-peak",
        )
