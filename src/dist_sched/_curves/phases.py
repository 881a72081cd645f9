"""Phases: a shape over a length, or a part of it, as plain data, and how to evaluate them."""

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
"""A sum of lengths that is this close to a whole number counts as the whole number."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Phase:
    """One part of a `Schedule`: a shape that goes from a start value to an end value.

    A phase may also be a part of a shape. `since` cuts off the beginning and `until` cuts off the
    end. `start` and `end` are then still the values of the whole shape.

    Args:
        shape: Name of a shape, one of `dist_sched.schedules.shapes()`.
        steps: Length of the shape, in units: 0, or at least 1. Fractions such as 37.5 are allowed.
        end: Value at the end of the shape, at least 0.
        start: Value at the beginning of the shape, at least 0. If None, the last value of the
            phase before.
        since: Units after the shape's beginning at which the phase begins, from 0 to `steps`.
            It needs a `start`.
        until: Units after the shape's beginning at which the phase ends, from 0 to `steps`.
        **parameters: Parameters of the shape, by name.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
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
    """Parameters of the shape, including defaults."""

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
            rule = "also needs start=, the value at the beginning of the whole shape"
            raise illegal("since", since, rule)

    @property
    def stop(self) -> Number:
        """Units after the shape's beginning at which the phase ends: `until` if set, or `steps`."""
        return self.steps if self.until is None else self.until

    @property
    def duration(self) -> Number:
        """Length of the phase, in units: from `since` (or 0) to `until` (or `steps`)."""
        return self.stop if self.since is None else self.stop - self.since

    def replace(self, **changes: Any) -> Phase:
        """Return a copy with some arguments of the constructor changed.

        Examples:
            >>> Phase("cosine", 1000, end=0.1).replace(steps=500, end=0.0)
            Phase('cosine', 500, end=0.0)
        """
        changed = replaced(self, **changes)
        own, new = self.to_dict(), changed.to_dict()
        # A length that did not change was not typed by the caller.
        typed = [name for name in _LENGTHS if name in changes and new.get(name) != own.get(name)]
        refuse_shares({name: new.get(name) for name in typed})
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments of the constructor that are not None, as JSON data."""
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
            ConfigError: A key is missing or unknown, or a value is invalid.
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
    """Return a phase whose lengths were computed or read, and may be below 1 unit."""
    phase = object.__new__(Phase)
    _fill(phase, shape, steps, end, start, **others)
    return phase


def replaced(phase: Phase, **changes: Any) -> Phase:
    """Return a copy of a phase with some arguments changed. Lengths may be below 1 unit."""
    return phase_of(**{**phase.to_dict(), **changes})


class Factor(NamedTuple):
    """A phase of a product, and its power."""

    phase: Phase
    power: float


def factors_of(phase: Phase) -> list[Factor]:
    """Return the factors of a product. Another phase is its only factor."""
    if phase.shape != PRODUCT:
        return [Factor(phase, 1.0)]
    factors: Any = phase.parameters["factors"]
    powers: Any = phase.parameters["powers"] or (1.0,) * len(factors)
    if len(powers) != len(factors):
        raise illegal("powers", powers, f"must be {len(factors)} numbers, one for each factor")
    return [Factor(*pair) for pair in zip(factors, powers, strict=True)]


def scaled(phase: Phase, factor: float) -> Phase:
    """Return a phase with its values multiplied by a factor.

    Raises:
        ConfigError: The shape's values do not scale with its start and end.
    """
    if factor == 0:  # a geometric shape cannot be 0
        return phase_of("constant", phase.duration, 0.0, 0.0)
    if not shape_of(phase.shape).is_homogeneous and factor != 1:
        raise ConfigError(
            f"a phase of shape {phase.shape!r} cannot be multiplied; replace it by another shape"
        )
    changes: dict[str, Any] = {"end": phase.end * factor}
    if phase.start is not None:
        changes["start"] = phase.start * factor
    if phase.shape == PRODUCT:
        factors = multiplied(factors_of(phase), factor)
        changes["factors"] = [one for one, _ in factors]
        changes["powers"] = [power for _, power in factors]
    return replaced(phase, **changes)


def multiplied(factors: list[Factor], number: float) -> list[Factor]:
    """Return the factors of a product multiplied by a number.

    The first factor of power 1 is multiplied. If there is none, the number becomes a new factor,
    because the root that another factor would need could be out of range.
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
    """Return a phase with the same values over another duration, more than 0."""
    if phase.shape == PRODUCT:
        return product_of(
            Factor(stretched(part(one, phase.since or 0, phase.stop), duration), power)
            for one, power in factors_of(phase)
        )
    factor = duration / phase.duration
    # Multiples of this can be added to the duration, and subtracted from it, without rounding.
    grid = math.ulp((phase.since or 0) * factor + duration)

    def longer(units: Number) -> float:
        return round(units * factor / grid) * grid

    stop = duration if phase.since is None else longer(phase.since) + duration
    changes: dict[str, Any] = {"steps": stop}
    if phase.since is not None:
        changes["since"] = stop - duration
    if phase.until is not None:
        changes |= {"steps": max(longer(phase.steps), stop), "until": stop}
    # Other parameters are not lengths.
    for name, value in phase.parameters.items():
        if name == "timescale" and isinstance(value, int | float):
            changes[name] = value * factor
        elif name == "milestones" and isinstance(value, tuple):
            changes[name] = [min(longer(one), changes["steps"]) for one in value]
    return replaced(phase, **changes)


def part(phase: Phase, first: Number, last: Number | None = None) -> Phase:
    """Return the part of a phase between two numbers of units after its beginning.

    The phase must have a start. Without `last` the part goes to the end of the phase.
    """
    begin, end = (phase.since or 0) + first, phase.until
    # A `last` that is only by rounding before the phase's end is the phase's end.
    if last is not None and last < phase.duration - JOIN_TOLERANCE:
        end = (phase.since or 0) + last
    if phase.shape == "constant":
        return phase_of(
            "constant", (phase.steps if end is None else end) - begin, phase.end, phase.end
        )
    return replaced(phase, since=begin, until=end)


@dataclass(frozen=True, slots=True)
class Piece:
    """A shape with a known start, as a function of the units after its beginning."""

    law: Law
    steps: Number
    start: float
    end: float
    parameters: Mapping[str, Parameter]
    is_line: bool
    """Whether the shape is a straight line."""
    is_half_cosine: bool
    """Whether it is half a cosine, without an exponent."""

    def __call__(self, units: float) -> float:
        # The law could miss an end by rounding.
        if units >= self.steps:
            return self.end
        if units <= 0:
            return self.start
        return self.law(units, self.steps, self.start, self.end, **self.parameters)


def piece_of(phase: Phase, start: float) -> Piece:
    """Return a phase's shape as a function."""
    law, parameters = shape_of(phase.shape).law, phase.parameters
    if phase.shape == PRODUCT:  # built once here, because it is called at every step
        law, parameters = _Product.of(phase), _NO_PARAMETERS
    is_half_cosine = phase.shape == "cosine" and parameters["exponent"] == 1
    return Piece(
        law, phase.steps, start, phase.end, parameters, phase.shape == "linear", is_half_cosine
    )


@dataclass(frozen=True, slots=True)
class _Product:
    """The law of a product of powers of shapes."""

    factors: tuple[tuple[Piece, Number, float], ...]
    """For each factor its shape, the units of it before the product begins, and its power."""

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
    # Checked before they are built, so that data cannot nest without end.
    if any(isinstance(one, Mapping) and one.get("shape") == PRODUCT for one in value):
        raise illegal(name, value, "must not contain products")
    found = tuple(one if isinstance(one, Phase) else Phase.from_dict(one) for one in value)
    for one in found:
        if one.start is None or one.shape == PRODUCT:
            raise illegal(name, value, "must be phases with a start, and not products")
        if not math.isclose(one.duration, found[0].duration, rel_tol=JOIN_TOLERANCE):
            raise illegal(name, value, "must be phases of equal length")
    return found


def _powers(name: str, value: object) -> tuple[float, ...] | None:
    """Return the powers of the factors of a product, or None if all are 1."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise illegal(name, value, "must be a list of numbers, one for each factor")
    found = tuple(float(finite(name, one)) for one in value)
    if 0 in found:
        raise illegal(name, value, "must not be 0")
    return None if all(one == 1 for one in found) else found


SHAPES[PRODUCT] = Shape(
    _product, {"factors": _factors, "powers": _powers}, {"powers": None}, version=2
)


def product_of(factors: Iterable[Factor]) -> Phase:
    """Return the product of powers of phases of equal length. The phases must not be products."""
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
    """Return the first and the last value of a product of phases."""
    first = last = 1.0
    for one, power in factors:
        piece = piece_of(one, one.start or 0.0)
        first *= piece(one.since or 0) ** power
        # Each at its own end: with lengths that differ by rounding, a 0 there would be missed.
        last *= piece(one.stop) ** power
    return first, last


def ends(phase: Phase, piece: Piece) -> tuple[float, float]:
    """Return the first and the last value of a phase.

    Raises:
        ConfigError: A product's start or end differs from the product of its factors' ones.
    """
    if phase.shape == PRODUCT:
        expected = _ends_of_product(factors_of(phase))
        own = piece.start, piece.end
        for name, mine, value in zip(("start", "end"), own, expected, strict=True):
            if not math.isclose(value, mine, rel_tol=JOIN_TOLERANCE):
                rule = f"must be the product of its factors' {name}s, {value!r}"
                raise illegal(name, mine, rule)
    # Not piece(0): a phase of length 0 is at its end there.
    return (piece.start if phase.since is None else piece(phase.since)), piece(phase.stop)
