"""Schedules: phases joined end to end, as plain data."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dist_sched._curves import arrays
from dist_sched._curves.lint import Finding, checked_run, in_order, lint
from dist_sched._curves.phases import (
    JOIN_TOLERANCE,
    Phase,
    Piece,
    ends,
    part,
    phase_of,
    piece_of,
    replaced,
    scaled,
    stretched,
)
from dist_sched._curves.shapes import PRODUCT, shape_of
from dist_sched._rules import (
    MAX_LENGTH,
    Number,
    count,
    illegal,
    is_list,
    length,
    number,
    one_of,
    optional,
    positive,
    refuse_unknown,
    some,
    typed_lengths,
    whole,
)
from dist_sched.errors import ConfigError

MOST_PHASES = 100_000
"""Maximum number of phases. More are a mistake, such as cycles of one unit in a run of billions."""

_ROUNDING = 16
"""Rounding error that a shape may have, in last bits of the highest value of its phase."""
_SHOWN = 12
"""Maximum number of phases that `str(schedule)` lists."""

STABLE = "stable"
"""A value of `lengthen` for `Schedule.extend`."""
KEEP_VALUE = "value"
"""A value of `keep` for `Schedule.extend`."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Schedule:
    """Phases joined end to end: a function from a position to a value.

    Call it with a position to get the value. The position where two phases meet belongs to the
    later one. At the horizon and after it, the value is the last value of the last phase.

    Args:
        phases: The phases, at least one. The first one needs a `start`. A schedule in the list
            stands for its phases.
        multiple_of: If set, values are ints, rounded down to whole multiples of this whole number.
            At least 1.

    Raises:
        ConfigError: There is no phase, the first phase has no start, a shape cannot go from its
            start to its end, or rounding would turn a value above 0 into 0. The message has the
            phase.

    Examples:
        >>> rise, fall = Phase("linear", 10, end=1.0, start=0.0), Phase("cosine", 100, end=0.1)
        >>> schedule = Schedule([rise, fall])
        >>> [schedule(position) for position in (0, 5, 10, 60, 110, 111)]
        [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
        >>> schedule.horizon
        110
    """

    phases: tuple[Phase, ...]
    """The phases, including the phases of schedules that were in the list."""
    multiple_of: int | None
    """Values are rounded down to whole multiples of this. None if they are not rounded."""
    boundaries: tuple[Number, ...] = field(compare=False)
    """Position at which each phase begins, in units."""
    horizon: Number = field(compare=False)
    """Position at which the last phase ends, in units."""
    end_value: float = field(compare=False)
    """Value at the horizon and after it."""
    max_value: float = field(compare=False)
    """Highest value at the start or end of a phase."""
    min_value: float = field(compare=False)
    """Lowest value at the start or end of a phase."""
    pieces: tuple[Piece, ...] = field(compare=False)
    """The phases as functions of the units since their origin."""
    origins: tuple[Number, ...] = field(compare=False)
    """Position at which the shape of each phase begins, before the phase if it has `since`."""

    def __init__(self, phases: Iterable[Phase | Schedule], multiple_of: int | None = None) -> None:
        multiple = optional(count)("multiple_of", multiple_of)
        if multiple == 0:
            raise illegal("multiple_of", multiple_of, "must be greater than 0")
        kept, boundaries, origins, pieces = [], [], [], []
        values: list[float] = []
        end: Number = 0
        reached = math.nan  # not equal to any start
        for index, phase in enumerate(_checked(phases)):
            piece, first_and_last = _joined(index, phase, reached)
            # A start that repeats the end of the phase before is dropped, so that equal curves are
            # equal schedules. Otherwise a checkpoint could differ from an equivalent script.
            is_redundant = phase.start == reached and phase.since is None
            kept.append(replaced(phase, start=None) if is_redundant else phase)
            boundaries.append(end)
            origins.append(end if phase.since is None else end - phase.since)
            pieces.append(piece)
            values += first_and_last
            end, reached = _end(end + phase.duration), first_and_last[1]
        highest, lowest = max(values), min(values)
        if multiple is not None:
            if any(value > 0 and _rounded(value, multiple) == 0 for value in values):
                rule = f"would round {min(filter(None, values))!r} down to 0; use a smaller one"
                raise illegal("multiple_of", multiple_of, rule)
            highest, lowest, reached = (
                _rounded(value, multiple) for value in (highest, lowest, reached)
            )
        attributes = {
            "phases": tuple(kept),
            "multiple_of": multiple,
            "boundaries": tuple(boundaries),
            "horizon": length("horizon", end),
            "end_value": reached,
            "max_value": highest,
            "min_value": lowest,
            "pieces": tuple(pieces),
            "origins": tuple(origins),
        }
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __call__(self, position: float) -> float:
        """Return the value at a position, which may be a fraction.

        Raises:
            ConfigError: The position is not a number, or negative.
        """
        # isinstance would be slower at every step, and accept bools.
        if type(position) is not int and type(position) is not float:
            position = number("position", position)
        if position >= self.horizon:
            return self.end_value
        # `position < 0` would accept NaN.
        if not position >= 0:
            raise illegal("position", position, "must be a number >= 0")
        index = bisect_right(self.boundaries, position) - 1
        piece, units = self.pieces[index], position - self.origins[index]
        return piece(units) if self.multiple_of is None else _whole(piece, units, self.multiple_of)

    def index(self, position: float) -> int:
        """Return the index of the phase at a position. Past the horizon it is the last one."""
        return bisect_right(self.boundaries, position) - 1

    def spans(self) -> list[tuple[float, float]]:
        """Return the first and the last value of each phase, before rounding."""
        return [ends(phase, piece) for piece, phase in zip(self.pieces, self.phases, strict=True)]

    def values(self, positions: Iterable[float]) -> Any:
        """Return the values at many positions.

        Each value has the same bits as a call with its position.

        Args:
            positions: Positions in units, at least 0. A list or an array of any shape.

        Returns:
            A numpy array of the same shape. A list if numpy is not installed.

        Raises:
            ConfigError: A position is not a number, or negative.
        """
        try:
            import numpy as np
        except ImportError:
            return [self(position) for position in positions]
        if isinstance(positions, range):  # faster than from its numbers
            positions = np.arange(positions.start, positions.stop, positions.step)
        is_array = hasattr(positions, "__len__") or hasattr(positions, "__array__")
        array = np.asarray(positions if is_array else list(positions))
        found = None
        if self.multiple_of is None:
            found = arrays.values(
                self.pieces,
                self.boundaries,
                self.origins,
                self.horizon,
                self.end_value,
                array.ravel(),
            )
        if found is None:
            found = [self(position) for position in array.ravel().tolist()]
        return np.asarray(found, float).reshape(array.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as JSON data, from which `from_dict` builds an equal one."""
        phases = [phase.to_dict() for phase in self.phases]
        if self.multiple_of is None:
            return {"phases": phases}
        return {"phases": phases, "multiple_of": self.multiple_of}

    @property
    def version(self) -> int:
        """The lowest version of the state format that can store the schedule."""
        is_new = self.multiple_of is not None or any(
            phase.since is not None or shape_of(phase.shape).version > 1 for phase in self.phases
        )
        return 2 if is_new else 1

    @classmethod
    def from_dict(cls, data: Any) -> Schedule:
        """Build a schedule from the data that `to_dict` returns.

        Raises:
            ConfigError: A key is missing or unknown, or a value is invalid. The message has the
                phase.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("phases"), list | tuple):
            raise illegal("schedule", data, "must be a mapping with a list of phases")
        refuse_unknown(data, ["phases", "multiple_of"], "is not a key of a schedule")
        phases = []
        for index, phase in enumerate(data["phases"]):
            try:
                phases.append(Phase.from_dict(phase))
            except ConfigError as error:
                raise ConfigError(f"phases[{index}]: {error}") from error
        return cls(phases, data.get("multiple_of"))

    def cut(self, since: Number | None = None, until: Number | None = None) -> Schedule:
        """Return the part of the schedule between two positions, as a schedule from position 0.

        Args:
            since: Position at which the part begins, in units. None for the beginning.
            until: Position at which the part ends, in units, at most the horizon. None for the
                horizon.

        Raises:
            ConfigError: A position is invalid, or there is nothing between the two.

        Examples:
            >>> fall = Schedule([Phase("linear", 10, end=0.0, start=1.0)])
            >>> [fall.cut(2, 5)(position) for position in (0, 2, 3, 4)]
            [0.8, 0.6, 0.5, 0.5]
        """
        first = length("since", 0 if since is None else since)
        last = self.horizon if until is None else length("until", until)
        if until is not None and not first < last <= self.horizon:
            rule = f"must be after since={first!r} and at most the horizon {self.horizon!r}"
            raise illegal("until", until, rule)
        if first >= self.horizon:
            raise illegal("since", since, f"must be before the horizon {self.horizon!r}")
        return self._with(self._parts(first, None if until is None else last))

    def _parts(self, first: Number, last: Number | None = None) -> list[Phase]:
        """Return the phases between two positions, each with its start. `last` None: up to the end.

        Phases of length 0 are left out, except at the end, where one sets the value that stays.
        """
        parts = []
        ends = (*self.boundaries[1:], self.horizon)
        rows = zip(self.phases, self.pieces, self.boundaries, ends, strict=True)
        for phase, piece, begin, end in rows:
            if last is not None and begin >= last:
                break
            sets_end_value = last is None and begin == end == self.horizon
            is_between = first < end and begin < end
            if not is_between and not sets_end_value:
                continue
            kept = replaced(phase, start=piece.start)
            if begin < first or (last is not None and last < end):
                kept = part(kept, max(first - begin, 0), None if last is None else last - begin)
            parts.append(kept)
        return parts

    def phase_between(self, begin: Number, end: Number) -> Phase:
        """Return the part of a phase between two positions within it, with its start."""
        if begin >= self.horizon:
            return phase_of("constant", end - begin, self.end_value, self.end_value)
        index = self.index(begin)
        join, phase = self.boundaries[index], self.phases[index]
        return part(replaced(phase, start=self.pieces[index].start), begin - join, end - join)

    def _with(self, phases: Iterable[Phase]) -> Schedule:
        return Schedule(phases, self.multiple_of)

    @typed_lengths("steps")
    def cooldown(
        self, position: int, steps: Number, shape: str = "minus_sqrt", end: float | None = None
    ) -> Schedule:
        """Return the schedule with a cooldown from a position, which replaces what comes after.

        Args:
            position: Position at which the cooldown begins, in units.
            steps: Length of the cooldown, in units, at least 1.
            shape: Name of a shape, one of `dist_sched.schedules.shapes()`.
            end: Last value, which then stays. If None, `end_value` if that is lower than the value
                at the position, else 0.

        Raises:
            ConfigError: An argument is invalid. The message has the argument, its value and the
                rule.

        Examples:
            >>> flat = Schedule([Phase("constant", 100, end=1.0, start=1.0)])
            >>> [flat.cooldown(50, 20, "linear")(position) for position in (50, 60, 70, 100)]
            [1.0, 0.5, 0.0, 0.0]
        """
        if end is None:
            end = self.end_value if self.end_value < self(whole("position", position)) else 0.0
            if end == 0 and self.multiple_of is not None:
                rule = "pass end= for a schedule of whole multiples, which must not end at 0"
                raise illegal("end", None, rule)
        return self._replaced_from(position, phase_of(shape, some("steps", steps), end))

    @typed_lengths("steps")
    def rewarm(self, position: int, steps: Number, peak: float | None = None) -> Schedule:
        """Return the schedule with a linear rise from a position, which replaces what comes after.

        Args:
            position: Position at which the rise begins, in units.
            steps: Length of the rise, in units, at least 1.
            peak: Last value, which then stays. If None, `max_value`.

        Raises:
            ConfigError: An argument is invalid. The message has the argument, its value and the
                rule.
        """
        peak = self.max_value if peak is None else peak
        return self._replaced_from(position, phase_of("linear", some("steps", steps), peak))

    def _replaced_from(self, position: int, phase: Phase) -> Schedule:
        """Return the schedule in which one phase replaces everything after a position."""
        whole("position", position)
        if position >= self.horizon:
            # A constant phase fills the gap between the horizon and the position.
            hold = phase_of("constant", position - self.horizon, self.end_value, self.end_value)
            phase = replaced(phase, start=self.end_value)
            return self._with([*self.phases, *([hold] if hold.steps else []), phase])
        before = self._phases_up_to(position)
        if position in self.boundaries:
            # The phase before may end at another value, if there is a jump at the position.
            phase = replaced(phase, start=self._exact(position))
        return self._with([*before, phase])

    def _phases_up_to(self, position: int) -> list[Phase]:
        """Return the phases before a position. The last one is cut if it goes on after it."""
        index = self.index(position)
        used = position - self.origins[index]
        if position == self.boundaries[index]:
            return [*self.phases[:index]]
        return [*self.phases[:index], replaced(self.phases[index], until=used)]

    def _exact(self, position: int) -> float:
        """Return the value at a position before rounding."""
        index = self.index(position)
        return self.pieces[index](position - self.origins[index])

    def scale(self, position: int, factor: float) -> Schedule:
        """Return the schedule with all values from a position on multiplied by a factor.

        Args:
            position: First position that is multiplied, in units.
            factor: The factor, more than 0.

        Raises:
            ConfigError: An argument is invalid. The message has the argument, its value and the
                rule.

        Examples:
            >>> fall = Schedule([Phase("linear", 10, end=0.0, start=1.0)])
            >>> [fall.scale(5, 0.5)(position) for position in (4, 5, 10)]
            [0.6, 0.25, 0.0]
        """
        multiplier = positive("factor", factor)
        if whole("position", position) < self.horizon:
            index = self.index(position)
            used = position - self.boundaries[index]
            phase = replaced(self.phases[index], start=self.pieces[index].start)
            rest = [part(phase, used) if used else phase, *self.phases[index + 1 :]]
            return self._with(
                [*self._phases_up_to(position), *(scaled(one, multiplier) for one in rest)]
            )
        value = self.pieces[-1](self.phases[-1].stop)
        hold = phase_of("constant", position - self.horizon, value, value)
        last = phase_of("constant", 0, value * multiplier, value * multiplier)
        return self._with([*self.phases, *([hold] if hold.steps else []), last])

    @typed_lengths("horizon")
    def extend(
        self,
        position: int,
        horizon: Number,
        *,
        lengthen: str | None = STABLE,
        keep: str | None = None,
    ) -> Schedule:
        """Return the schedule with a later horizon, by making one phase longer.

        The phase is the first of these that exists:

        1. the constant phase that ends exactly at the position, if a decay follows it
        2. the first constant phase that has not ended
        3. the longest phase that has not ended
        4. the last phase

        If an earlier change cut this phase with `until`, the phase stays as it is, and a constant
        phase at its last value follows it.

        Args:
            position: Position of the run, in units.
            horizon: New horizon, in units, later than the present one.
            lengthen: `"stable"` for the rule above. None starts at 2, as recorded changes of
                state version 1 do.
            keep: `"value"` stretches only the rest of the phase, so that the value at the position
                stays the same. None stretches the whole phase, so that the value at the position
                changes if the phase is not constant.

        Raises:
            ConfigError: An argument is invalid, or the horizon is not later.

        Examples:
            >>> wsd = Schedule([Phase("constant", 80, 1.0, 1.0), Phase("linear", 20, end=0.0)])
            >>> [wsd.extend(80, 200)(position) for position in (80, 180, 190, 200)]
            [1.0, 1.0, 0.5, 0.0]
        """
        optional(one_of((STABLE,)))("lengthen", lengthen)
        optional(one_of((KEEP_VALUE,)))("keep", keep)
        more = length("horizon", horizon) - self.horizon
        if more <= 0:
            rule = f"must be more than the present horizon, {self.horizon!r} units"
            raise illegal("horizon", horizon, rule)
        index = self._to_extend(whole("position", position), lengthen)
        used = position - self.boundaries[index]
        longer = self._longer(index, more, used if keep == KEEP_VALUE else None)
        return self._with([*self.phases[:index], *longer, *self.phases[index + 1 :]])

    def _longer(self, index: int, more: Number, used: Number | None) -> list[Phase]:
        """Return the phases that replace a phase to make it longer: one or two.

        Args:
            index: Index of the phase.
            more: How much longer, in units.
            used: Units of the phase that have passed and keep their values. None to stretch all.

        Raises:
            ConfigError: The phase would be too long.
        """
        phase, piece = self.phases[index], self.pieces[index]
        if phase.shape == "constant":
            return [replaced(phase, steps=phase.duration + more, since=None, until=None)]
        if used is not None and 0 < used < phase.duration:
            left = phase.duration - used
            if phase.steps * (1 + more / left) > MAX_LENGTH:
                rule = (
                    f"would stretch the last {left!r} units of a phase too far; extend at an "
                    "earlier position, or by less"
                )
                raise illegal("horizon", self.horizon + more, rule)
            rest = part(replaced(phase, start=piece.start), used)
            return [part(phase, 0, used), stretched(rest, left + more)]
        is_whole = phase.since is None and phase.shape != PRODUCT
        has_passed = used is not None and used >= phase.duration
        # Stretched, a cut phase would go on to the end that was cut off.
        if phase.until is not None or has_passed or not (is_whole or phase.duration):
            reached = piece(phase.stop)
            return [phase, phase_of("constant", more, reached, reached)]
        if is_whole:
            return [replaced(phase, steps=phase.steps + more)]
        return [stretched(phase, phase.duration + more)]

    def _to_extend(self, position: int, lengthen: str | None) -> int:
        """Return the index of the phase that `extend` makes longer."""
        ends = (*self.boundaries[1:], self.horizon)
        running = [index for index, end in enumerate(ends) if end > position]
        if lengthen == STABLE and running and self._decays_from_constant(running[0], position):
            return running[0] - 1
        constant = [index for index in running if self.phases[index].shape == "constant"]
        if constant:
            return constant[0]
        return max(running, key=lambda index: self.phases[index].duration, default=len(ends) - 1)

    def _decays_from_constant(self, index: int, position: int) -> bool:
        """Return whether a phase begins at a position and falls from the constant phase before."""
        if index == 0 or self.boundaries[index] != position:
            return False
        spans = self.spans()
        first, reached = spans[index]
        is_constant = self.phases[index - 1].shape == "constant"
        # A constant phase before a rise, such as a wait before a warmup, is not a stable phase.
        return is_constant and spans[index - 1][1] == first > reached

    def lint(
        self, field: str = "lr", *, updates: int | None = None, increment: Number = 1
    ) -> tuple[Finding, ...]:
        """Warn about valid parts of the schedule that are probably mistakes.

        Args:
            field: Name of the scheduled field. Some checks are only for `"lr"`: a first value of
                0, a floor above the peak, and a horizon that is very short or before the end of
                the run.
            updates: Length of the run in optimizer updates. If None, the end of the run is not
                checked.
            increment: Units per update, more than 0.

        Returns:
            The findings, sorted by position.

        Raises:
            ConfigError: `updates` or `increment` is invalid.
        """
        return in_order(lint(self, field, *checked_run(updates, increment)))

    def __reduce__(self) -> tuple[type[Schedule], tuple[tuple[Phase, ...], int | None]]:
        return Schedule, (self.phases, self.multiple_of)

    def __str__(self) -> str:
        shown = [
            f"{phase.shape} {phase.duration:g} units {start:g} to {end:g}"
            for phase, (start, end) in zip(self.phases[:_SHOWN], self.spans(), strict=False)
        ]
        more = len(self.phases) - len(shown)
        shown += [f"and {more} more phases"] if more else []
        shown += [f"whole multiples of {self.multiple_of}"] if self.multiple_of else []
        return "; ".join(shown)

    def __repr__(self) -> str:
        multiple = "" if self.multiple_of is None else f", multiple_of={self.multiple_of}"
        return f"Schedule([{', '.join(map(repr, self.phases))}]{multiple})"


def _checked(phases: object) -> tuple[Phase, ...]:
    """Return the phases, or raise if there are none or the first one has no start."""
    if not is_list(phases):
        raise illegal("phases", phases, "must be a list of phases")
    found = tuple(_spliced(phases))
    if not 0 < len(found) <= MOST_PHASES:
        raise ConfigError(f"phases: there are {len(found)}; must be from 1 to {MOST_PHASES:,}")
    if found[0].start is None:
        raise illegal("phases[0].start", None, "the first phase needs a start value")
    return found


def _spliced(phases: Iterable[object]) -> Iterator[Phase]:
    """Yield phases, and the phases of each schedule in place of it."""
    for index, one in enumerate(phases):
        if isinstance(one, Phase):
            yield one
        elif not isinstance(one, Schedule):
            raise illegal(f"phases[{index}]", one, "must be a Phase or a Schedule")
        elif one.multiple_of is None:
            yield from one.phases
        else:
            rule = "must not be rounded; pass multiple_of to the schedule that contains it instead"
            raise illegal(f"phases[{index}]", one, rule)


def _joined(index: int, phase: Phase, before: float) -> tuple[Piece, tuple[float, float]]:
    """Return a phase as a function, and its first and last value, given the last value before it.

    Raises:
        ConfigError: The shape cannot go from the phase's start to its end.
    """
    start = before if phase.start is None else phase.start
    try:
        piece = piece_of(phase, start)
        shape_of(phase.shape).check(phase.steps, start, phase.end, **phase.parameters)
        return piece, ends(phase, piece)
    except OverflowError as error:
        rule = "its values leave the range of floats; use values closer to 1"
        raise ConfigError(f"phases[{index}] ({phase.shape}): {rule}") from error
    # The function of a registered shape may raise any of these.
    except (ConfigError, ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(f"phases[{index}] ({phase.shape}): {error}") from error


def _whole(piece: Piece, units: Number, multiple: int) -> int:
    """Return the value of a shape rounded down to a multiple."""
    value, highest = piece(units), max(piece.start, piece.end)
    numbers = piece.start, piece.end, units, piece.steps
    is_exact = piece.is_line and all(number == int(number) for number in numbers)
    if is_exact and _is_near(value, multiple, highest):
        # Integer arithmetic, which other code that computes batch sizes uses.
        first, last, passed, steps = map(int, numbers)
        return (first * steps + (last - first) * passed) // (steps * multiple) * multiple
    return _rounded(value, multiple, highest)


def _is_near(value: float, multiple: int, highest: float) -> bool:
    """Return whether a rounding error may have moved a value across a multiple."""
    return abs(value - multiple * round(value / multiple)) <= _ROUNDING * math.ulp(highest)


def _rounded(value: float, multiple: int, highest: float | None = None) -> int:
    """Return a value rounded down to a multiple, after correcting its rounding error.

    `highest` is the largest number that the value was computed from, if larger than the value.
    """
    scale = value if highest is None else max(value, highest)
    if _is_near(value, multiple, scale):
        return multiple * round(value / multiple)
    return multiple * math.floor(value / multiple)


def _end(position: Number) -> Number:
    """Return a sum of lengths, or the whole number that it differs from by rounding."""
    nearest = round(position)
    return nearest if abs(position - nearest) <= JOIN_TOLERANCE else position
