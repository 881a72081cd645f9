"""Phases: a shape over a length, or a part of it, as plain data; and what they are worth."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from dist_sched._curves.shapes import (
    PHASE_NAMES,
    PRODUCT,
    SHAPES,
    Law,
    Parameter,
    Shape,
    shape_of,
)
from dist_sched._rules import (
    Number,
    finite,
    illegal,
    length,
    near_miss,
    rate,
    refuse_shares,
    typed_lengths,
)
from dist_sched.errors import ConfigError

_LENGTHS = "steps", "since", "until", "timescale", "milestones"
"""The arguments of a phase that are lengths."""
_NO_PARAMETERS: Mapping[str, Parameter] = MappingProxyType({})
JOIN_TOLERANCE = 1e-9
"""How far rounding may move a sum of lengths from a whole number, which it then counts as."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Phase:
    """A shape over a length, from a start to an end, on a clock that begins at 0 with the phase.

    A phase may be a part of its shape: it is cut at the beginning by `since`, and at the end by
    `until`. `start` and `end` are then values of the whole shape.

    Args:
        shape: A name of `dist_sched.schedules.shapes()`.
        steps: Length of the shape, in units, 0 or at least 1; fractions are legal.
        end: Value at the shape's end, and after it where no phase follows.
        start: Value at the shape's beginning; if None, where the phase before ended.
        since: Where on the shape's clock the phase begins, in units; needs a `start`.
        until: Where on the shape's clock the next phase takes over, in units, at most `steps`.
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
    since: Number | None
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
        since: Number | None = None,
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
            "since": None if since is None else length("since", since) or None,
            "until": None if until is None else length("until", until),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.until is not None and self.until > self.steps:
            raise illegal("until", until, f"must be at most steps={steps!r}")
        if self.since is None:
            return
        if self.since > self.stop:
            name = "steps" if self.until is None else "until"
            raise illegal("since", since, f"must be at most {name}={self.stop!r}")
        if self.start is None:
            rule = "needs start=, the value where the whole shape begins"
            raise illegal("since", since, rule)

    @property
    def stop(self) -> Number:
        """Where on the shape's clock the phase ends, in units: at `until`, if it is set."""
        return self.steps if self.until is None else self.until

    @property
    def duration(self) -> Number:
        """Length of the part that is used, in units: from `since` to `until`, if they are set."""
        return self.stop if self.since is None else self.stop - self.since

    def replace(self, **changes: Any) -> Phase:
        """Return a phase in which some arguments of the constructor are changed.

        >>> Phase("cosine", 1000, end=0.1).replace(steps=500, end=0.0)
        Phase('cosine', 500, end=0.0)
        """
        changed = replaced(self, **changes)
        own, new = self.to_dict(), changed.to_dict()
        # A length that the phase has already was not typed here.
        typed = [name for name in _LENGTHS if name in changes and new.get(name) != own.get(name)]
        refuse_shares({name: new.get(name) for name in typed})
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments of the constructor as JSON data, without those that are None."""
        found: dict[str, Any] = {"shape": self.shape, "steps": self.steps, "end": self.end}
        others = {"start": self.start, "since": self.since, "until": self.until, **self.parameters}
        for name, value in others.items():
            if isinstance(value, tuple):
                found[name] = [one.to_dict() if isinstance(one, Phase) else one for one in value]
            elif value is not None:
                found[name] = value
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
            others = (name for name in data if name not in PHASE_NAMES)
            close = next(filter(None, (near_miss(name, missing) for name in others)), "")
            raise illegal("phase", dict(data), f"lacks {', '.join(missing)}{close}")
        return phase_of(**data)

    def _arguments(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in PHASE_NAMES}, **self.parameters}

    def __repr__(self) -> str:
        defaults = {"start": None, "since": None, "until": None, **shape_of(self.shape).defaults}
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


def replaced(phase: Phase, **changes: Any) -> Phase:
    """Return a phase in which some arguments are changed; lengths are as they were computed."""
    return phase_of(**{**phase.to_dict(), **changes})


class Factor(NamedTuple):
    """A phase, and its power in a product."""

    phase: Phase
    power: float


def factors_of(phase: Phase) -> list[Factor]:
    """Return what a phase is a product of; one that is no product is its only factor."""
    if phase.shape != PRODUCT:
        return [Factor(phase, 1.0)]
    factors: Any = phase.parameters["factors"]
    powers: Any = phase.parameters["powers"] or (1.0,) * len(factors)
    return [Factor(*pair) for pair in zip(factors, powers, strict=True)]


def scaled(phase: Phase, factor: float) -> Phase:
    """Return a phase whose values are multiplied by a factor; for 0, one that is 0 throughout.

    Raises:
        ConfigError: Its shape says more than how to go between two values.
    """
    if factor == 0:  # which a geometric shape cannot reach
        return phase_of("constant", phase.duration, 0.0, 0.0)
    if not shape_of(phase.shape).is_homogeneous and factor != 1:
        raise ConfigError(f"a phase of shape {phase.shape!r} cannot be multiplied")
    changes: dict[str, Any] = {"end": phase.end * factor}
    if phase.start is not None:
        changes["start"] = phase.start * factor
    if phase.shape == PRODUCT:
        factors = multiplied(factors_of(phase), factor)
        changes["factors"] = [one for one, _ in factors]
        changes["powers"] = [power for _, power in factors]
    return replaced(phase, **changes)


def multiplied(factors: list[Factor], number: float) -> list[Factor]:
    """Return the factors of a product that is multiplied by a number.

    A factor without a power takes it. Where there is none, the number becomes one: of a power near
    0, the root of a number is beyond all floats.
    """
    index = next((index for index, (_, power) in enumerate(factors) if power == 1), len(factors))
    if index == len(factors):
        if number == 1:
            return factors
        duration = factors[0].phase.duration
        return [*factors, Factor(phase_of("constant", duration, number, number), 1.0)]
    taken = Factor(scaled(factors[index].phase, number), 1.0)
    return [*factors[:index], taken, *factors[index + 1 :]]


def stretched(phase: Phase, duration: Number) -> Phase:
    """Return a phase that takes another time, more than 0, along the same values."""
    if phase.shape == PRODUCT:
        return product_of(
            Factor(stretched(part(one, phase.since or 0, phase.stop), duration), power)
            for one, power in factors_of(phase)
        )
    factor = duration / phase.duration
    # A multiple of this adds up with the duration, and a position less it, without rounding.
    grid = math.ulp((phase.since or 0) * factor + duration)

    def longer(units: Number) -> float:
        return round(units * factor / grid) * grid

    stop = duration if phase.since is None else longer(phase.since) + duration
    changes: dict[str, Any] = {"steps": stop}
    if phase.since is not None:
        changes["since"] = stop - duration
    if phase.until is not None:
        changes |= {"steps": max(longer(phase.steps), stop), "until": stop}
    # Other parameters are numbers that a shape blends by.
    for name, value in phase.parameters.items():
        if name == "timescale" and isinstance(value, int | float):
            changes[name] = value * factor
        elif name == "milestones" and isinstance(value, tuple):
            changes[name] = [min(longer(one), changes["steps"]) for one in value]
    return replaced(phase, **changes)


def part(phase: Phase, first: Number, last: Number | None = None) -> Phase:
    """Return the part of a phase from so many units after it begins, up to so many.

    The phase must have a start.
    """
    begin, end = (phase.since or 0) + first, phase.until
    # Rounding may bring the end of a part before that of the whole.
    if last is not None and last < phase.duration - JOIN_TOLERANCE:
        end = (phase.since or 0) + last
    if phase.shape == "constant":
        return phase_of(
            "constant", (phase.steps if end is None else end) - begin, phase.end, phase.end
        )
    return replaced(phase, since=begin, until=end)


@dataclass(frozen=True, slots=True)
class Piece:
    """A shape whose start is known, ready to be evaluated on its clock."""

    law: Law
    steps: Number
    start: float
    end: float
    parameters: Mapping[str, Parameter]
    is_line: bool = False
    """Whether the shape is a straight line."""

    def __call__(self, units: float) -> float:
        # Not by the law, which may miss an end by rounding.
        if units >= self.steps:
            return self.end
        if units <= 0:
            return self.start
        return self.law(units, self.steps, self.start, self.end, **self.parameters)


def piece_of(phase: Phase, start: float) -> Piece:
    """Return a phase's shape, ready to be evaluated."""
    law, parameters = shape_of(phase.shape).law, phase.parameters
    if phase.shape == PRODUCT:  # built once, as it is asked at every step
        law, parameters = _Product.of(phase), _NO_PARAMETERS
    return Piece(law, phase.steps, start, phase.end, parameters, phase.shape == "linear")


@dataclass(frozen=True, slots=True)
class _Product:
    """The law of a product: powers of shapes that run at the same time, multiplied."""

    factors: tuple[tuple[Piece, Number, float], ...]
    """A shape, where on its clock the product begins, and its power."""

    @classmethod
    def of(cls, phase: Phase) -> _Product:
        # A phase that is a factor has a start.
        return cls(
            tuple(
                (piece_of(one, one.start or 0.0), one.since or 0, power)
                for one, power in factors_of(phase)
            )
        )

    def __call__(self, units: float, *_: float) -> float:
        value = 1.0
        for piece, since, power in self.factors:
            one = piece(units + since)
            value *= one if power == 1 else one**power
        return value


def _product(units: float, steps: float, start: float, end: float, **parameters: Any) -> float:
    return _Product.of(phase_of(PRODUCT, steps, end, start, **parameters))(units)


def _factors(name: str, value: object) -> tuple[Phase, ...]:
    """Return the factors of a product as phases, or raise."""
    if not isinstance(value, list | tuple) or not value:
        raise illegal(name, value, "must be a list of phases")
    # Before they are built, or data could nest without end.
    if any(isinstance(one, Mapping) and one.get("shape") == PRODUCT for one in value):
        raise illegal(name, value, "must be no products")
    found = tuple(one if isinstance(one, Phase) else Phase.from_dict(one) for one in value)
    for one in found:
        if one.start is None or one.shape == PRODUCT:
            raise illegal(name, value, "must be phases with a start, and no products")
        if not math.isclose(one.duration, found[0].duration, rel_tol=JOIN_TOLERANCE):
            raise illegal(name, value, "must be phases of one length")
    return found


def _powers(name: str, value: object) -> tuple[float, ...] | None:
    """Return the powers of the factors of a product; None where all are 1."""
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise illegal(name, value, "must be a list of numbers, one for each factor")
    found = tuple(float(finite(name, one)) for one in value)
    if 0 in found:
        raise illegal(name, value, "must not be 0")
    return None if all(one == 1 for one in found) else found


SHAPES[PRODUCT] = Shape(
    _product, {"factors": _factors, "powers": _powers}, {"powers": None}, version=2
)


def product_of(factors: Iterable[Factor]) -> Phase:
    """Return the product of powers of phases of one length, none of them a product."""
    found = list(factors)
    start, end = _ends_of_product(found)
    return phase_of(
        PRODUCT,
        found[0].phase.duration,
        end,
        start,
        factors=[one for one, _ in found],
        powers=[power for _, power in found],
    )


def _ends_of_product(factors: Iterable[Factor]) -> tuple[float, float]:
    """Return the first value of a product of phases, and the one that it reaches."""
    first = last = 1.0
    for one, power in factors:
        piece = piece_of(one, one.start or 0.0)
        first *= piece(one.since or 0) ** power
        # At its own end: lengths that are equal but for rounding would miss a 0 there.
        last *= piece(one.stop) ** power
    return first, last


def ends(phase: Phase, piece: Piece) -> tuple[float, float]:
    """Return the first value of a phase, and the one that it reaches.

    Raises:
        ConfigError: A product's start or end is not that of its factors.
    """
    if phase.shape == PRODUCT:
        expected = _ends_of_product(factors_of(phase))
        own = piece.start, piece.end
        for name, mine, value in zip(("start", "end"), own, expected, strict=True):
            if not math.isclose(value, mine, rel_tol=JOIN_TOLERANCE):
                rule = f"must be the product of its factors' {name}s, {value!r}"
                raise illegal(name, mine, rule)
    # A phase of length 0 would be at its end already.
    return (piece.start if phase.since is None else piece(phase.since)), piece(phase.stop)
