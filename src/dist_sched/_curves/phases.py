"""Phases and schedules: curves over a length, joined end to end, as plain data."""

from __future__ import annotations

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dist_sched._curves.lint import Finding, checked_run, in_order, lint
from dist_sched._curves.shapes import PHASE_NAMES, Law, Parameter, shape_of
from dist_sched._rules import (
    Number,
    illegal,
    length,
    number,
    one_of,
    optional,
    rate,
    refuse_shares,
    refuse_unknown,
    some,
    typed_lengths,
    whole,
)
from dist_sched.errors import ConfigError

MOST_PHASES = 100_000
"""More are a mistake, such as cycles of one unit in a run of billions."""

_SHOWN = 12
"""How many phases `str(schedule)` names one by one."""

STABLE = "stable"
"""The rule by which `Schedule.extend` chooses the phase that it lengthens."""
_LENGTHS = "steps", "until", "timescale", "milestones"
"""The arguments of a phase that are lengths."""

_NO_PARAMETERS: Mapping[str, Parameter] = MappingProxyType({})
_JOIN_TOLERANCE = 1e-9
"""How far rounding may move a sum of lengths from a whole number, which it then counts as."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Phase:
    """A shape over a length, from a start to an end, on a clock that begins at 0 with the phase.

    Args:
        shape: A name of `dist_sched.schedules.shapes()`.
        steps: Length, in units, 0 or at least 1; fractions are legal.
        end: Value at the end, and after it where no phase follows.
        start: Value at the beginning; if None, where the phase before ended.
        until: Length after which the next phase takes over, at most `steps`; a late change cuts a
            phase so.
        **parameters: The shape's own, by name.

    Raises:
        ConfigError: An argument is illegal; names it, its value and the rule.

    >>> Phase("cosine", 1000, end=0.1, start=1.0)
    Phase('cosine', 1000, end=0.1, start=1.0)
    """

    shape: str
    steps: Number
    end: float
    start: float | None
    until: Number | None
    parameters: Mapping[str, Parameter] = field(hash=False)
    """The shape's own, defaults included."""

    @typed_lengths(*_LENGTHS)
    def __init__(
        self,
        /,
        shape: str,
        steps: Number,
        end: float,
        start: float | None = None,
        *,
        until: Number | None = None,
        **parameters: Any,
    ) -> None:
        given = shape_of(shape).parameters(shape, parameters)
        checked = {
            "parameters": MappingProxyType(given) if given else _NO_PARAMETERS,
            "shape": str(shape),
            "steps": length("steps", steps),
            "end": rate("end", end),
            "start": None if start is None else rate("start", start),
            "until": None if until is None else length("until", until),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.until is not None and self.until > self.steps:
            raise illegal("until", until, f"must be at most steps={steps!r}")

    @property
    def duration(self) -> Number:
        """Length of the part that is used, in units: up to `until`, if it is set."""
        return self.steps if self.until is None else self.until

    def replace(self, **changes: Any) -> Phase:
        """Return a phase in which some arguments of the constructor are changed.

        >>> Phase("cosine", 1000, end=0.1).replace(steps=500, end=0.0)
        Phase('cosine', 500, end=0.0)
        """
        changed = _replaced(self, **changes)
        own, new = self.to_dict(), changed.to_dict()
        # A length that the phase has already was not typed here.
        typed = [name for name in _LENGTHS if name in changes and new.get(name) != own.get(name)]
        refuse_shares({name: new.get(name) for name in typed})
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments of the constructor as JSON data, without those that are None."""
        found: dict[str, Any] = {"shape": self.shape, "steps": self.steps, "end": self.end}
        others = {"start": self.start, "until": self.until, **self.parameters}
        for name, value in others.items():
            if value is not None:
                found[name] = list(value) if isinstance(value, tuple) else value
        return found

    @classmethod
    def from_dict(cls, data: Any) -> Phase:
        """Build a phase from the data that `to_dict` returns.

        Raises:
            ConfigError: A name is missing or unknown, or a value is illegal.
        """
        if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
            raise illegal("phase", data, "must be a mapping with shape, steps and end")
        missing = [name for name in ("shape", "steps", "end") if name not in data]
        if missing:
            raise illegal("phase", dict(data), f"lacks {', '.join(missing)}")
        return phase_of(**data)

    def _arguments(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in PHASE_NAMES}, **self.parameters}

    def __repr__(self) -> str:
        defaults = {"start": None, "until": None, **shape_of(self.shape).defaults}
        others = list(self._arguments().items())[2:]
        named = [f"{key}={value!r}" for key, value in others if defaults.get(key, ...) != value]
        return f"Phase({self.shape!r}, {self.steps!r}, {', '.join(named)})"

    # A MappingProxyType cannot be pickled, and schedules travel between ranks.
    def __reduce__(self) -> tuple[Callable[..., Phase], tuple[dict[str, Any]]]:
        return Phase.from_dict, (self.to_dict(),)


_fill = inspect.unwrap(Phase.__init__)


def phase_of(
    shape: str, steps: Number, end: float, start: float | None = None, **others: Any
) -> Phase:
    """Return a phase whose lengths were computed or read: one below 1 unit is meant as it is."""
    phase = object.__new__(Phase)
    _fill(phase, shape, steps, end, start, **others)
    return phase


def _replaced(phase: Phase, **changes: Any) -> Phase:
    return phase_of(**{**phase.to_dict(), **changes})


@dataclass(frozen=True, slots=True)
class _Piece:
    """A phase whose start is known, ready to be evaluated."""

    law: Law
    steps: Number
    start: float
    end: float
    parameters: Mapping[str, Parameter]

    def __call__(self, units: float) -> float:
        # Not by the law, which may miss an end by rounding.
        if units >= self.steps:
            return self.end
        if units <= 0:
            return self.start
        return self.law(units, self.steps, self.start, self.end, **self.parameters)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Schedule:
    """Phases joined end to end: a pure function of the position.

    A position where two phases join belongs to the later one. At and past the horizon the value is
    the last one that the last phase reaches.

    Args:
        phases: At least one; the first needs a `start`.

    Raises:
        ConfigError: There is no phase, the first has no start, or a shape cannot go from its start
            to its end; names the phase.

    >>> rise, fall = Phase("linear", 10, end=1.0, start=0.0), Phase("cosine", 100, end=0.1)
    >>> schedule = Schedule([rise, fall])
    >>> [schedule(position) for position in (0, 5, 10, 60, 110, 111)]
    [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    >>> schedule.horizon
    110
    """

    phases: tuple[Phase, ...]
    boundaries: tuple[Number, ...] = field(compare=False)
    """Position at which each phase begins."""
    horizon: Number = field(compare=False)
    """Position at which the last phase ends."""
    end_value: float = field(compare=False)
    """Value at and past the horizon."""
    max_value: float = field(compare=False)
    """Highest start or end of a phase."""
    min_value: float = field(compare=False)
    """Lowest start or end of a phase."""
    _pieces: tuple[_Piece, ...] = field(compare=False)

    def __init__(self, phases: Iterable[Phase]) -> None:
        kept, boundaries, pieces, values = [], [], [], []
        end: Number = 0
        reached = math.nan  # equal to no start
        for index, phase in enumerate(_checked(phases)):
            piece, after = _joined(index, phase, reached)
            # Equal curves are equal schedules, however they were written: a checkpoint would
            # otherwise differ from a script that repeats where the phase before ended.
            kept.append(_replaced(phase, start=None) if phase.start == reached else phase)
            boundaries.append(end)
            pieces.append(piece)
            values += [piece.start, after]
            end, reached = _end(end + phase.duration), after
        attributes = {
            "phases": tuple(kept),
            "boundaries": tuple(boundaries),
            "horizon": length("horizon", end),
            "end_value": reached,
            "max_value": max(values),
            "min_value": min(values),
            "_pieces": tuple(pieces),
        }
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __call__(self, position: float) -> float:
        """Return the value at a position, which may be a fraction.

        Raises:
            ConfigError: The position is no number, or negative.
        """
        # isinstance would take longer, at every step, and let bools pass.
        if type(position) is not int and type(position) is not float:
            position = number("position", position)
        if position >= self.horizon:
            return self.end_value
        # Not position < 0, which NaN would pass.
        if not position >= 0:
            raise illegal("position", position, "must be a number >= 0")
        index = bisect_right(self.boundaries, position) - 1
        return self._pieces[index](position - self.boundaries[index])

    def spans(self) -> list[tuple[float, float]]:
        """Return for each phase its first value and the one that it reaches."""
        return [
            (piece.start, piece(phase.duration))
            for piece, phase in zip(self._pieces, self.phases, strict=True)
        ]

    def values(self, positions: Iterable[float]) -> Any:
        """Return the values at many positions: a numpy array of their shape; without numpy, a list.

        Each value has the bits that a call with its position returns.

        Raises:
            ConfigError: A position is no number, or negative.
        """
        try:
            import numpy as np
        except ImportError:
            return [self(position) for position in positions]
        is_array = hasattr(positions, "__len__") or hasattr(positions, "__array__")
        array = np.asarray(positions if is_array else list(positions))
        # One by one, since numpy's cos and pow may differ from math's in the last bit.
        values = [self(position) for position in array.ravel().tolist()]
        return np.array(values, float).reshape(array.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return the phases as JSON data, from which `from_dict` builds an equal schedule."""
        return {"phases": [phase.to_dict() for phase in self.phases]}

    @classmethod
    def from_dict(cls, data: Any) -> Schedule:
        """Build a schedule from the data that `to_dict` returns.

        Raises:
            ConfigError: A name is missing or unknown, or a value is illegal; names the phase.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("phases"), list | tuple):
            raise illegal("schedule", data, "must be a mapping with a list of phases")
        refuse_unknown(data, ["phases"], "is not a key of a schedule")
        phases = []
        for index, phase in enumerate(data["phases"]):
            try:
                phases.append(Phase.from_dict(phase))
            except ConfigError as error:
                raise ConfigError(f"phases[{index}]: {error}") from error
        return cls(phases)

    @typed_lengths("steps")
    def cooldown(
        self, position: int, steps: Number, shape: str = "minus_sqrt", end: float | None = None
    ) -> Schedule:
        """Return the schedule that goes from its value at a position to `end`, and stays there.

        Args:
            position: Where the cooldown begins.
            steps: Its length, in units, more than 0.
            shape: A name of `dist_sched.schedules.shapes()`.
            end: Its last value; if None, `end_value` where that is lower than the value at the
                position, else 0.

        Raises:
            ConfigError: An argument is illegal; names it, its value and the rule.

        >>> flat = Schedule([Phase("constant", 100, end=1.0, start=1.0)])
        >>> [flat.cooldown(50, 20, "linear")(position) for position in (50, 60, 70, 100)]
        [1.0, 0.5, 0.0, 0.0]
        """
        if end is None:
            end = self.end_value if self.end_value < self(whole("position", position)) else 0.0
        return self._replaced_from(position, phase_of(shape, some("steps", steps), end))

    @typed_lengths("steps")
    def rewarm(self, position: int, steps: Number, peak: float | None = None) -> Schedule:
        """Return the schedule that goes in a line from its value at a position to `peak`.

        Args:
            position: Where the rise begins.
            steps: Its length, in units, more than 0.
            peak: Its last value; if None, `max_value`.

        Raises:
            ConfigError: An argument is illegal; names it, its value and the rule.
        """
        peak = self.max_value if peak is None else peak
        return self._replaced_from(position, phase_of("linear", some("steps", steps), peak))

    def _replaced_from(self, position: int, phase: Phase) -> Schedule:
        """Return the schedule in which one phase replaces all that comes after a position."""
        whole("position", position)
        if position >= self.horizon:
            # The gap becomes a phase, so that the change still begins at the position.
            hold = phase_of("constant", position - self.horizon, self.end_value, self.end_value)
            phase = _replaced(phase, start=self.end_value)
            return Schedule([*self.phases, *([hold] if hold.steps else []), phase])
        index = bisect_right(self.boundaries, position) - 1
        used = position - self.boundaries[index]
        if not used:
            # The phase before may have ended at another value: this one jumped there.
            return Schedule([*self.phases[:index], _replaced(phase, start=self(position))])
        cut = _replaced(self.phases[index], until=used)
        return Schedule([*self.phases[:index], cut, phase])

    @typed_lengths("horizon")
    def extend(self, position: int, horizon: Number, *, lengthen: str | None = STABLE) -> Schedule:
        """Return the schedule that ends later, because one phase is longer.

        It is the constant phase that ends exactly at the position, where a decay goes on from its
        value. Else it is the first constant phase that has not ended. Where there is none, it is
        the longest phase that has not ended, and past the horizon the last phase. A phase that was
        cut by `until` is not drawn out: it is held at the value it has reached.

        Args:
            position: Where the run is.
            horizon: Where the last phase shall end, later than now.
            lengthen: "stable" for the rule above. None leaves out its first sentence, as states of
                version 1 did: a constant phase that ends at the position has ended.

        Raises:
            ConfigError: An argument is illegal, or the horizon is not later.

        >>> wsd = Schedule([Phase("constant", 80, 1.0, 1.0), Phase("linear", 20, end=0.0)])
        >>> [wsd.extend(80, 200)(position) for position in (80, 180, 190, 200)]
        [1.0, 1.0, 0.5, 0.0]
        """
        optional(one_of((STABLE,)))("lengthen", lengthen)
        more = length("horizon", horizon) - self.horizon
        if more <= 0:
            rule = f"must be more than the present {self.horizon!r} units"
            raise illegal("horizon", horizon, rule)
        index = self._to_extend(whole("position", position), lengthen)
        phase, (_, reached) = self.phases[index], self.spans()[index]
        # Drawn out, a cut phase would go on to the end that it was cut from.
        if phase.until is None or phase.shape == "constant":
            longer = [_replaced(phase, steps=phase.duration + more, until=None)]
        else:
            longer = [phase, phase_of("constant", more, reached, reached)]
        return Schedule([*self.phases[:index], *longer, *self.phases[index + 1 :]])

    def _to_extend(self, position: int, lengthen: str | None) -> int:
        """Return the index of the phase that an extension makes longer."""
        ends = (*self.boundaries[1:], self.horizon)
        running = [index for index, end in enumerate(ends) if end > position]
        if lengthen == STABLE and running and self._decays_from_constant(running[0], position):
            return running[0] - 1
        constant = [index for index in running if self.phases[index].shape == "constant"]
        if constant:
            return constant[0]
        return max(running, key=lambda index: self.phases[index].duration, default=len(ends) - 1)

    def _decays_from_constant(self, index: int, position: int) -> bool:
        """Return whether a phase begins at a position and falls from a constant one before it."""
        if index == 0 or self.boundaries[index] != position:
            return False
        spans = self.spans()
        first, reached = spans[index]
        is_constant = self.phases[index - 1].shape == "constant"
        # A rise that begins here is no decay: to wait before a warmup is not to be stable.
        return is_constant and spans[index - 1][1] == first > reached

    def lint(
        self, field: str = "lr", *, updates: int | None = None, increment: Number = 1
    ) -> tuple[Finding, ...]:
        """Find what is valid and probably a mistake; the findings are sorted by position.

        Args:
            field: What is scheduled. Only for `lr`: a first value of 0, a floor above the peak, a
                horizon of fewer than ten updates, and one before the end of the run.
            updates: Length of the run in optimizer updates, to compare with the horizon.
            increment: Units that an update completes, to compare with phases and horizon.

        Raises:
            ConfigError: `updates` or `increment` is illegal.
        """
        return in_order(lint(self, field, *checked_run(updates, increment)))

    def __reduce__(self) -> tuple[type[Schedule], tuple[tuple[Phase, ...]]]:
        return Schedule, (self.phases,)

    def __str__(self) -> str:
        shown = [
            f"{phase.shape} {phase.duration:g} units {start:g} to {end:g}"
            for phase, (start, end) in zip(self.phases[:_SHOWN], self.spans(), strict=False)
        ]
        more = len(self.phases) - len(shown)
        return "; ".join([*shown, f"and {more} more phases"] if more else shown)

    def __repr__(self) -> str:
        return f"Schedule([{', '.join(map(repr, self.phases))}])"


def schedule_version(schedule: Schedule) -> int:
    """Return the lowest version of the state's format that can say a schedule."""
    return max(1 for _ in schedule.phases)


def _checked(phases: object) -> tuple[Phase, ...]:
    """Return the phases, or raise where they are none or the first has no start."""
    if isinstance(phases, str | Mapping) or not isinstance(phases, Iterable):
        raise illegal("phases", phases, "must be a list of phases")
    found = tuple(phases)
    if not 0 < len(found) <= MOST_PHASES:
        raise ConfigError(f"phases: {len(found)} of them; must be from 1 to {MOST_PHASES:,}")
    for index, phase in enumerate(found):
        if not isinstance(phase, Phase):
            raise illegal(f"phases[{index}]", phase, "must be a Phase")
    if found[0].start is None:
        raise illegal("phases[0].start", None, "the first phase must say where it starts")
    return found


def _joined(index: int, phase: Phase, before: float) -> tuple[_Piece, float]:
    """Return a phase of some index with its start, and the value that it reaches.

    Raises:
        ConfigError: Its shape cannot go from there to its end.
    """
    start = before if phase.start is None else phase.start
    shape = shape_of(phase.shape)
    piece = _Piece(shape.law, phase.steps, start, phase.end, phase.parameters)
    try:
        shape.check(phase.steps, start, phase.end, **phase.parameters)
        return piece, piece(phase.duration)
    except OverflowError as error:
        rule = "its values leave the range of floats"
        raise ConfigError(f"phases[{index}] ({phase.shape}): {rule}") from error
    # What the function of a registered shape may raise.
    except (ConfigError, ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(f"phases[{index}] ({phase.shape}): {error}") from error


def _end(position: Number) -> Number:
    """Return a sum of lengths, as the whole number that rounding has moved it from, if any."""
    nearest = round(position)
    return nearest if abs(position - nearest) <= _JOIN_TOLERANCE else position
