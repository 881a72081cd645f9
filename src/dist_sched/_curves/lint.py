"""Lint: warnings about valid schedules that are probably mistakes, each with a code and a level."""

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
"""Level of each code. docs/cli.md explains the codes."""

_MOST_EQUAL = 3
"""Maximum number of equal jumps that are listed one by one."""
FEWEST_UPDATES = 10
"""A horizon of fewer updates was probably written in another unit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One warning of `lint()`: a valid part of a schedule that is probably a mistake."""

    position: Number | None
    """Position that it is about, in units, or None."""
    message: str
    """What was found."""
    code: str
    """Kind of the finding, such as `"jump"`. docs/cli.md lists all codes."""

    @property
    def level(self) -> Level:
        """How likely the finding is a mistake: `"note"`, `"warning"` or `"error"`."""
        return LEVELS[self.code]

    def __str__(self) -> str:
        where = "" if self.position is None else f"position {_exact(self.position)}: "
        return f"{where}{self.message} [{self.code}]"


def in_order(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings sorted by position, starting with findings without a position."""
    return tuple(sorted(found, key=lambda one: -1 if one.position is None else one.position))


def checked_run(updates: int | None, increment: Number) -> tuple[int | None, Number]:
    """Return the length of a run and the units of an update, or raise a ConfigError."""
    return optional(whole)("updates", updates), some("increment", increment)


def lint(
    schedule: Schedule, field: str, updates: int | None, increment: Number
) -> Iterator[Finding]:
    """Yield the findings about one schedule. `Schedule.lint` documents the arguments."""
    yield from _jumps(schedule)
    yield from _short_phases(schedule, increment)
    if field == "lr":
        yield from idle_start(schedule)
        yield from _high_floor(schedule)
        if has_end(schedule):
            yield from short_horizon(schedule.horizon, increment)
    if updates is not None and schedule.max_value > schedule.min_value:
        # Other fields, and an lr without a decay, may keep their last value on purpose.
        may_stay = field != "lr" or all(start <= end for start, end in schedule.spans())
        for finding in end_of_run(schedule, schedule.horizon, updates, increment):
            if finding.code != "horizon-before-end" or not may_stay:
                yield finding


def idle_start(curve: Callable[[int], float]) -> Iterator[Finding]:
    """Yield a note if the first update changes nothing."""
    if curve(0) == 0:
        yield Finding(0, "the first update has lr 0 and changes nothing", "first-lr-zero")


def has_end(lr: Schedule) -> bool:
    """Return whether lr ends below its peak, so that the horizon is the end of a decay."""
    return lr.end_value < lr.max_value


def end_of_run(
    curve: Callable[[Any], float], horizon: Number, updates: int, increment: Number
) -> Iterator[Finding]:
    """Yield a warning if the horizon is not at the end of a run of so many updates.

    A run may end early if the curve has reached its last value by then.
    """
    end = updates * increment
    if horizon < end:
        yield Finding(
            horizon,
            f"the horizon is {(end - horizon) / increment:g} updates before the end of the run "
            f"({updates} updates, position {_exact(end)}); from there the value stays at "
            f"{curve(horizon):g}",
            "horizon-before-end",
        )
    elif horizon > end and curve(end) != curve(horizon):
        yield Finding(
            end,
            f"the run ends after {updates} updates, {_exact(horizon - end)} units before the "
            f"horizon {_exact(horizon)}: its last value is {curve(end):g}, not {curve(horizon):g}",
            "horizon-after-end",
        )


def short_horizon(horizon: Number, increment: Number) -> Iterator[Finding]:
    """Yield a warning if the horizon is shorter than ten updates."""
    least = FEWEST_UPDATES * increment
    if horizon < least:
        yield Finding(
            horizon,
            f"the horizon {_exact(horizon)} is shorter than {FEWEST_UPDATES} updates "
            f"({_exact(least)} units): was it written in updates or another unit?",
            "short-horizon",
        )


def short_phase(name: str, begin: Number, length: Number, increment: Number) -> Iterator[Finding]:
    """Yield a warning if a phase is shorter than one unit, or than one update."""
    if 0 < length < 1:
        yield Finding(
            begin,
            f"{name} has length {length:g}, less than one unit; for 3 % of the horizon, write 0.03 "
            "or '3%' in a config file (a number in quotes without % counts units)",
            "phase-below-unit",
        )
    elif 0 < length < increment:
        yield Finding(
            begin,
            f"{name} has length {_exact(length)}, less than one update of "
            f"{_exact(increment)} units: was the length written in updates?",
            "phase-below-update",
        )


def unfilled_horizon(schedule: Schedule, written: Number) -> Iterator[Finding]:
    """Yield a warning if the phases do not end at the horizon that the config has beside them."""
    end = schedule.horizon
    if _exact(end) != _exact(written):
        side = "before" if end < written else "after"
        yield Finding(
            min(end, written),
            f"the phases end at {_exact(end)}, {_exact(abs(written - end))} units {side} the "
            f"horizon {_exact(written)} of the config",
            "horizon-mismatch",
        )


def other_end(
    curve: Callable[[Any], float], horizon: Number, lr_horizon: Number
) -> Iterator[Finding]:
    """Yield a finding if a field ends at another position than lr: a warning if it ends later."""
    at_lr_end, last = curve(lr_horizon), curve(horizon)
    if horizon > lr_horizon and at_lr_end != last:
        yield Finding(
            lr_horizon,
            f"ends at {_exact(horizon)}, after lr's horizon {_exact(lr_horizon)}: its value there "
            f"is {at_lr_end:g}, not {last:g}",
            "field-outlasts-lr",
        )
    elif horizon != lr_horizon:
        yield Finding(
            min(horizon, lr_horizon),
            f"ends at {_exact(horizon)}, and lr ends at {_exact(lr_horizon)}; its last value is "
            f"{last:g}",
            "field-ends-elsewhere",
        )


def _exact(units: Number) -> str:
    """Return units with all their digits, because `:g` would keep six of a number of tokens."""
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
        else:  # a cyclic schedule's jumps would hide the other findings
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
        # A late change may cut a phase at any position.
        yield from short_phase(name, begin, phase.duration, 1 if phase.until else increment)


def _high_floor(schedule: Schedule) -> Iterator[Finding]:
    """Yield a warning if the last phase that changes the value rises and is not a warmup."""
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
            f"phase {last} ({shape}), the last phase that changes the value, rises from {start:g} "
            f"to {end:g}: is the floor above the peak?",
            "floor-above-peak",
        )
