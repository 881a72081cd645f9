"""Phases and schedules: curves over a length, joined end to end, as plain data."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TYPE_CHECKING

from dist_sched._curves.shapes import Law, Parameter, shape_of
from dist_sched._rules import (
    Number,
    illegal,
    length,
    near_miss,
    number,
    optional,
    rate,
    some,
    whole,
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._curves.curve import Between

MOST_PHASES = 100_000
"""More are a mistake, such as a cycle of one unit in a run of billions."""

_SHOWN = 12
"""Phases that a text names one by one."""

_JOIN_TOLERANCE = 1e-9
"""Positions are whole: a join this close to one is that one, not a sum that was rounded."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Phase:
    """A curve over a length, with a start and an end; it runs on its own clock.

    Args:
        shape: A name of `dist_sched._curves.shapes.shapes()`.
        steps: Length, in units; fractions are legal, and so is 0.
        end: Value at its end, and from there on if no phase follows.
        start: Value at its beginning; where the phase before it ended, if None.
        until: Length after which the next phase takes over, where that is before the end, as after
            a late change.
        **parameters: The shape's own, by name.

    Raises:
        ConfigError: Names what is illegal, its value and the rule.

    >>> Phase("cosine", 1000, end=0.1, start=1.0)
    Phase('cosine', 1000, end=0.1, start=1.0)
    """

    shape: str
    steps: Number
    end: float
    start: float | None
    until: Number | None
    parameters: Mapping[str, Parameter] = field(hash=False)
    """The shape's own, those that were left to their defaults too."""

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
        checked = {
            "parameters": MappingProxyType(shape_of(shape).parameters(shape, parameters)),
            "shape": str(shape),
            "steps": length("steps", steps),
            "end": rate("end", end),
            "start": optional(rate)("start", start),
            "until": optional(length)("until", until),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.until is not None and self.until > self.steps:
            raise illegal("until", until, f"must be at most steps={steps!r}")

    @property
    def duration(self) -> Number:
        """Length after which the next phase takes over, in units."""
        return self.steps if self.until is None else self.until

    def replace(self, **changes: Any) -> Phase:
        """Give a phase that differs in some of what the constructor takes."""
        return Phase(**{**self._told(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Give what the constructor takes, as data for JSON; what is None is left out."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._told().items()
            if value is not None
        }

    @classmethod
    def from_dict(cls, told: Any) -> Phase:
        """Build a phase from what `to_dict` gave.

        Raises:
            ConfigError: A name is missing or not known, or a value is illegal.
        """
        if not isinstance(told, Mapping) or not all(isinstance(name, str) for name in told):
            raise illegal("phase", told, "must be a mapping with shape, steps and end")
        missing = [name for name in ("shape", "steps", "end") if name not in told]
        if missing:
            raise illegal("phase", dict(told), f"lacks {', '.join(missing)}")
        return cls(**told)

    def _told(self) -> dict[str, Any]:
        own = {"shape": self.shape, "steps": self.steps, "end": self.end}
        return {**own, "start": self.start, "until": self.until, **self.parameters}

    def __repr__(self) -> str:
        defaults = {"start": None, "until": None, **shape_of(self.shape).defaults}
        told = self._told()
        first = [repr(told.pop("shape")), repr(told.pop("steps"))]
        named = [
            f"{name}={value!r}"
            for name, value in told.items()
            if name not in defaults or value != defaults[name]
        ]
        return f"Phase({', '.join(first + named)})"

    def __reduce__(self) -> tuple[Callable[..., Phase], tuple[dict[str, Any]]]:
        return Phase.from_dict, (self.to_dict(),)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A phase with its start settled."""

    law: Law
    steps: Number
    start: float
    end: float
    parameters: Mapping[str, Parameter]

    def __call__(self, units: float) -> float:
        if units >= self.steps:
            return self.end
        if units <= 0:
            return self.start
        return self.law(units, self.steps, self.start, self.end, **self.parameters)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a lint noticed: a warning, not a refusal."""

    position: Number
    """Where it shows, in units."""
    message: str

    def __str__(self) -> str:
        return f"position {self.position:g}: {self.message}"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Schedule:
    """Phases joined end to end: a pure function of the position.

    A position at a join belongs to the later phase. At and past the horizon the value is the last
    phase's end. The phase of a position is found by bisection.

    Args:
        phases: At least one; the first needs a `start`.

    Raises:
        ConfigError: There is none, the first has no start, or phases and shapes do not fit.

    >>> rise, fall = Phase("linear", 10, end=1.0, start=0.0), Phase("cosine", 100, end=0.1)
    >>> schedule = Schedule([rise, fall])
    >>> [schedule(position) for position in (0, 5, 10, 60, 110, 111)]
    [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    >>> schedule.horizon
    110
    """

    phases: tuple[Phase, ...]
    boundaries: tuple[Number, ...] = field(compare=False)
    """Where each phase begins, in units."""
    horizon: Number = field(compare=False)
    """Where the last phase ends, in units."""
    end_value: float = field(compare=False)
    """The value at and past the horizon."""
    max_value: float = field(compare=False)
    """The highest of the phases' starts and ends."""
    min_value: float = field(compare=False)
    """The lowest of the phases' starts and ends."""
    _pieces: tuple[_Piece, ...] = field(compare=False)

    def __init__(self, phases: Iterable[Phase]) -> None:
        given = _as_phases(phases)
        ends = list(_ends(given))
        pieces = tuple(_settled(given))
        reached = [piece(phase.duration) for piece, phase in zip(pieces, given, strict=True)]
        values = [*reached, *(piece.start for piece in pieces)]
        settled = {
            "phases": tuple(_with_least_starts(given, pieces)),
            "boundaries": (0, *ends[:-1]),
            "horizon": length("horizon", ends[-1]),
            "end_value": reached[-1],
            "max_value": max(values),
            "min_value": min(values),
            "_pieces": pieces,
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    def __call__(self, position: float) -> float:
        """Give the value at a position, in units.

        Raises:
            ConfigError: The position is negative or no number.
        """
        if type(position) is not int and type(position) is not float:
            position = number("position", position)
        if position >= self.horizon:
            return self.end_value
        if not position >= 0:
            raise illegal("position", position, "must be a number >= 0")
        index = bisect_right(self.boundaries, position) - 1
        return self._pieces[index](position - self.boundaries[index])

    def spans(self) -> list[tuple[float, float]]:
        """Give each phase's first value, and the one that it has reached at its end."""
        return [
            (piece.start, piece(phase.duration))
            for piece, phase in zip(self._pieces, self.phases, strict=True)
        ]

    def at(self, position: float) -> Between:
        """Return the value at a position as a function of bounds, of which it knows none."""
        value = self(position)
        return lambda _high, _low: value

    def values(self, positions: Iterable[float]) -> Any:
        """Give the values at many positions: a numpy array of their shape, or a list without numpy.

        Each is, bit for bit, what a call with that position gives: phases are found for all
        positions at once, but shapes are evaluated by the functions that train.
        """
        try:
            import numpy as np
        except ImportError:
            return [self(position) for position in positions]
        is_array = hasattr(positions, "__len__") or hasattr(positions, "__array__")
        given = np.asarray(positions if is_array else list(positions))
        flat = given.ravel()
        if flat.dtype.kind not in "iuf":
            told = (number("position", position) for position in flat.tolist())
            flat = np.fromiter(told, float, flat.size)
        elif flat.dtype.kind == "f":
            flat = flat.astype(float)
        wrong = flat[~(flat >= 0)]
        if wrong.size:
            raise illegal("position", wrong[0].item(), "must be a number >= 0")
        found = np.full(flat.shape, self.end_value)
        inside = np.flatnonzero(flat < self.horizon)
        indices = np.searchsorted(self.boundaries, flat[inside], side="right") - 1
        order = np.argsort(indices, kind="stable")
        ends = np.flatnonzero(np.diff(indices[order])) + 1
        for chosen in np.split(order, ends) if order.size else ():
            index = indices[chosen[0]]
            units = (flat[inside[chosen]] - self.boundaries[index]).tolist()
            found[inside[chosen]] = [*map(self._pieces[index], units)]
        return found.reshape(given.shape)

    def to_dict(self) -> dict[str, Any]:
        """Give the phases as data for JSON, from which `from_dict` builds an equal schedule."""
        return {"phases": [phase.to_dict() for phase in self.phases]}

    @classmethod
    def from_dict(cls, told: Any) -> Schedule:
        """Build a schedule from what `to_dict` gave.

        Raises:
            ConfigError: A name is missing or not known, or a value is illegal; says in which phase.
        """
        if not isinstance(told, Mapping) or not isinstance(told.get("phases"), list | tuple):
            raise illegal("schedule", told, "must be a mapping with a list of phases")
        for name in told:
            if name != "phases":
                close = near_miss(name, ["phases"])
                raise ConfigError(f"{name!r} is not known of a schedule{close}")
        phases = []
        for index, phase in enumerate(told["phases"]):
            try:
                phases.append(Phase.from_dict(phase))
            except ConfigError as error:
                raise ConfigError(f"phases[{index}]: {error}") from error
        return cls(phases)

    def cooldown(
        self, position: int, steps: Number, shape: str = "minus_sqrt", end: float | None = None
    ) -> Schedule:
        """Give the schedule that goes from its value at a position to `end`, and stays there.

        Args:
            position: Where it begins.
            steps: Length, in units, more than 0.
            shape: How.
            end: Value at its end; if None, this schedule's last one where that is lower, else 0.
        """
        if end is None:
            end = self.end_value if self.end_value < self(whole("position", position)) else 0.0
        return self._leave(position, Phase(shape, some("steps", steps), end))

    def rewarm(self, position: int, steps: Number, peak: float | None = None) -> Schedule:
        """Give the schedule that goes in a line from its value at a position to a peak, and stays.

        Args:
            position: Where it begins.
            steps: Length, in units, more than 0.
            peak: Value at its end; this schedule's highest, if None.
        """
        peak = self.max_value if peak is None else peak
        return self._leave(position, Phase("linear", some("steps", steps), peak))

    def _leave(self, position: int, phase: Phase) -> Schedule:
        """Give the schedule that leaves its course at a position for another phase."""
        whole("position", position)
        if position >= self.horizon:
            hold = Phase("constant", position - self.horizon, self.end_value, self.end_value)
            phase = phase.replace(start=self.end_value)
            return Schedule([*self.phases, *([hold] if hold.steps else []), phase])
        index = bisect_right(self.boundaries, position) - 1
        begun = position - self.boundaries[index]
        if not begun:
            return Schedule([*self.phases[:index], phase.replace(start=self(position))])
        cut = self.phases[index].replace(until=begun)
        return Schedule([*self.phases[:index], cut, phase])

    def extend(self, position: int, horizon: Number) -> Schedule:
        """Give the schedule that ends later.

        Lengthened is the first constant phase that has not ended at the position; if there is
        none, the longest that has not ended; past the horizon, the last. One that a late change
        has cut stays at its last value for so long.

        Args:
            position: Where the run is.
            horizon: Where the last phase shall end, later than now.

        Raises:
            ConfigError: It is no later.
        """
        more = length("horizon", horizon) - self.horizon
        if more <= 0:
            rule = f"must be more than the present {self.horizon!r} units"
            raise illegal("horizon", horizon, rule)
        index = self._to_extend(whole("position", position))
        phase, (_, end) = self.phases[index], self.spans()[index]
        longer = [phase.replace(steps=phase.duration + more, until=None)]
        if phase.until is not None and phase.shape != "constant":
            longer = [phase, Phase("constant", more, end, end)]  # it stays where it was cut
        return Schedule([*self.phases[:index], *longer, *self.phases[index + 1 :]])

    def _to_extend(self, position: int) -> int:
        ends = (*self.boundaries[1:], self.horizon)
        open_ones = [index for index, end in enumerate(ends) if end > position]
        constant = [index for index in open_ones if self.phases[index].shape == "constant"]
        if constant:
            return constant[0]
        return max(open_ones, key=lambda index: self.phases[index].duration, default=len(ends) - 1)

    def lint(
        self, field: str = "lr", *, updates: int | None = None, increment: Number = 1
    ) -> tuple[Finding, ...]:
        """Name what is legal and yet probably not meant.

        Args:
            field: What is scheduled. Of `lr` alone, a first value of 0, a floor above the peak and
                a horizon before the end of the run are named.
            updates: Length of the run in optimizer updates, to be compared with the horizon.
            increment: Units that an update completes.
        """
        found = [*self._jumps(), *self._short_phases()]
        if field == "lr":
            found += [*idle_start(self), *self._high_floor()]
        if updates is not None and self.max_value > self.min_value:
            ends = end_of_run(self, self.horizon, updates, increment)
            is_settled = field != "lr" or self._only_rises()
            found += [end for end in ends if not is_settled or end.position < self.horizon]
        return tuple(sorted(found, key=lambda finding: finding.position))

    def _only_rises(self) -> bool:
        return all(start <= end for start, end in self.spans())

    def _jumps(self) -> Iterator[Finding]:
        spans = self.spans()
        pairs = zip(self.boundaries[1:], spans[:-1], spans[1:], strict=True)
        for join, (_, before), (after, _) in pairs:
            if before != after:
                yield Finding(join, f"jumps from {before:g} to {after:g} at a join")

    def _short_phases(self) -> Iterator[Finding]:
        if [phase.shape for phase in self.phases] == ["constant"]:
            return  # the schedule of a number
        for index, (join, phase) in enumerate(zip(self.boundaries, self.phases, strict=True)):
            if phase.duration == 0:
                yield Finding(join, f"phase {index} ({phase.shape}) has length 0")
            elif phase.duration < 1:
                yield Finding(
                    join,
                    f"phase {index} ({phase.shape}) duration {phase.duration:g} units, less than one: "
                    "a part of the horizon is written 0.03 or '3%' in a config file, and not in "
                    "quotes without %",
                )

    def _high_floor(self) -> Iterator[Finding]:
        """Name a floor above the peak: where the schedule moves last, it rises."""
        moves = [index for index, (start, end) in enumerate(self.spans()) if start != end]
        if not moves:
            return
        last, shape = moves[-1], self.phases[moves[-1]].shape
        start, end = self.spans()[last]
        is_warmup = last == 0 and shape == "linear" and (start == 0 or len(self.phases) > 1)
        if end > start and not is_warmup:
            yield Finding(
                self.boundaries[last],
                f"phase {last} ({shape}), the last that moves, rises from {start:g} to {end:g}: "
                "a floor above the peak?",
            )

    def __reduce__(self) -> tuple[type[Schedule], tuple[tuple[Phase, ...]]]:
        return Schedule, (self.phases,)

    def __str__(self) -> str:
        told = [
            f"{phase.shape} {phase.duration:g} units {start:g} to {end:g}"
            for phase, (start, end) in zip(self.phases[:_SHOWN], self.spans(), strict=False)
        ]
        more = len(self.phases) - len(told)
        return "; ".join([*told, f"and {more} more phases"] if more else told)

    def __repr__(self) -> str:
        return f"Schedule([{', '.join(map(repr, self.phases))}])"


def idle_start(curve: Callable[[int], float]) -> Iterator[Finding]:
    """Name a first update that changes nothing."""
    if curve(0) == 0:
        yield Finding(0, "the first update has lr 0 and changes nothing")


def end_of_run(
    curve: Callable[[Any], float], horizon: Number, updates: int, increment: Number
) -> Iterator[Finding]:
    """Name a horizon that is not where a run of some updates ends."""
    each = some("increment", increment)
    end = whole("updates", updates) * each
    if curve(end) == curve(horizon) and horizon > end:
        return
    if horizon < end:
        yield Finding(
            horizon,
            f"the horizon is {(end - horizon) / each:g} updates before the end of the run "
            f"({updates} updates, position {end:g}); the value stays {curve(horizon):g}",
        )
    elif horizon > end:
        yield Finding(
            end,
            f"the run ends after {updates} updates, {horizon - end:g} units before the horizon "
            f"{horizon:g}: at {curve(end):g} instead of {curve(horizon):g}",
        )


def _as_phases(phases: object) -> tuple[Phase, ...]:
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


def _ends(phases: Iterable[Phase]) -> Iterator[Number]:
    """Give where each phase ends."""
    before: Number = 0
    for phase in phases:
        before += phase.duration
        nearest = round(before)
        before = nearest if abs(before - nearest) <= _JOIN_TOLERANCE else before
        yield before


def _settled(phases: Iterable[Phase]) -> Iterator[_Piece]:
    """Give each phase with its start settled, and make sure that its shape can go that way."""
    before = 0.0
    for index, phase in enumerate(phases):
        start = before if phase.start is None else phase.start
        shape = shape_of(phase.shape)
        piece = _Piece(shape.law, phase.steps, start, phase.end, phase.parameters)
        try:
            shape.check(phase.steps, start, phase.end, **phase.parameters)
            before = piece(phase.duration)
        except (ConfigError, ValueError, TypeError) as error:
            raise ConfigError(f"phases[{index}] ({phase.shape}): {error}") from error
        except ArithmeticError as error:
            is_range = isinstance(error, OverflowError)
            reason = "its values leave the range of floats" if is_range else str(error)
            raise ConfigError(f"phases[{index}] ({phase.shape}): {reason}") from error
        yield piece


def _with_least_starts(phases: Iterable[Phase], pieces: Iterable[_Piece]) -> Iterator[Phase]:
    """Leave out starts that say what would be so anyway: equal curves shall be equal."""
    before = None
    for phase, piece in zip(phases, pieces, strict=True):
        says_nothing = phase.start is not None and phase.start == before
        yield phase.replace(start=None) if says_nothing else phase
        before = piece(phase.duration)
