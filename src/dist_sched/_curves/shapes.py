"""Shapes: how a phase goes from its start to its end, by name.

Most shapes blend start and end with a coefficient that falls from 1 to 0. The others (geometric,
power laws, steps) compute the value directly.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from dist_sched._curves import coefficients
from dist_sched._rules import (
    Number,
    finite,
    illegal,
    is_list,
    length,
    listed,
    near_miss,
    optional,
    positive,
    rate,
    refuse_unknown,
    shown,
    text,
)
from dist_sched.errors import ConfigError

Parameter = int | float | None | tuple[Any, ...]
"""A parameter of a shape. A tuple holds numbers, or the phases of a product."""
Law = Callable[..., float]
"""`law(units, steps, start, end, **parameters)` returns the value for 0 < units < steps."""
_Function = TypeVar("_Function", bound=Callable[..., float])

PHASE_NAMES = ("shape", "steps", "end", "start", "since", "until")
"""The arguments of a phase. Parameters of shapes must have other names."""
PRODUCT = "product"
"""The shape of a product of other phases, as `schedules.product` builds it."""
_REQUIRED = inspect.Parameter.empty
_TOLERANCE = 1e-6
"""How much a registered coefficient may differ from 1 at its start and from 0 at its end."""


class UnknownShapeError(ConfigError):
    """There is no shape of this name in this process. Another process may have registered it."""

    @classmethod
    def is_behind(cls, error: BaseException | None) -> bool:
        """Return whether an error, or one of its causes, is of this class."""
        while error is not None and not isinstance(error, cls):
            error = error.__cause__
        return error is not None


@dataclass(frozen=True, slots=True)
class Shape:
    """How a phase goes from its start to its end."""

    law: Law
    rules: Mapping[str, Callable[[str, Any], Any]] = field(default_factory=dict)
    """The rule of each parameter."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Default values. Parameters without one are required."""
    is_geometric: bool = False
    """Whether start and end must be greater than 0."""
    stays_between: bool = False
    """Whether every value is between start and end for all parameters."""
    is_homogeneous: bool = True
    """Whether multiplying start and end by a number multiplies all values by it."""
    version: int = 1
    """The lowest version of the state format that has this shape."""
    origin: tuple[str, str] | None = None
    """Module and name of a registered function, by which a rerun notebook cell is recognised."""

    def parameters(self, name: str, given: Mapping[str, object]) -> dict[str, Parameter]:
        """Return the checked parameters of a phase, including defaults.

        Raises:
            ConfigError: A parameter is unknown, missing or invalid.
        """
        if not given.keys() <= self.rules.keys():
            has = listed(self.rules) or "none"
            rule = f"is not a parameter of shape {name!r} (it has {has})"
            # A misspelt argument of the phase ends up here, too.
            refuse_unknown(given, (*self.rules, *PHASE_NAMES), rule)
        values = {**self.defaults, **given}
        missing = [key for key in self.rules if key not in values]
        if missing:
            raise ConfigError(f"shape {name!r} needs {', '.join(missing)}")
        return {key: check(key, values[key]) for key, check in self.rules.items()}

    def check(self, steps: Number, start: float, end: float, **parameters: Any) -> None:
        """Check that the shape can go from start to end, at three positions between them.

        Raises:
            ConfigError: Start or end is invalid, or a value is negative or not finite.
        """
        # Phases after an unknown shape have unknown values, too.
        if self.stays_between or _unknown:
            return
        if self.is_geometric:
            # The quotient of two floats may be out of range.
            positive("end / start", positive("end", end) / positive("start", start))
        span = steps or 1  # laws divide by the length
        # Laws are not called at the ends. Three positions find most faults of a registered shape.
        for units in (span / 4, span / 2, 3 * span / 4):
            value = self.law(units, span, start, end, **parameters)
            if not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
                rule = f"must be a finite number >= 0 (the shape's value after {units:g} units)"
                raise illegal("value", value, rule)


class _StandIn(Shape):
    """A stand-in for an unknown shape. It takes any parameter, and its values are meaningless."""

    __slots__ = ()

    def parameters(self, name: str, given: Mapping[str, object]) -> dict[str, Parameter]:  # noqa: ARG002
        return {key: _any_parameter(key, value) for key, value in given.items()}


SHAPES: dict[str, Shape] = {}
"""All shapes by name, including the shape of products."""
_unknown: set[str] | None = None
"""Names of unknown shapes that were replaced by a stand-in. None if they are an error."""


def shapes() -> tuple[str, ...]:
    """Return the names of all shapes: first the built-in ones, then the registered ones.

    Examples:
        >>> shapes()[:3]
        ('constant', 'linear', 'cosine')
    """
    return tuple(name for name in SHAPES if name != PRODUCT)


def shape_of(value: object, name: str = "shape") -> Shape:
    """Return the shape of a name. `name` is the argument that an error mentions.

    Raises:
        ConfigError: There is no such shape. The message lists the known ones.
    """
    if _unknown is not None and isinstance(value, str) and value not in SHAPES:
        _unknown.add(value)
        return _STAND_IN
    if not isinstance(value, str) or value not in SHAPES:
        raise UnknownShapeError(
            f"{name}={shown(value)}: must be one of {listed(shapes())}, or a shape that was "
            f"registered with register_shape before{near_miss(value, shapes())}"
        )
    return SHAPES[value]


@contextlib.contextmanager
def stand_ins() -> Iterator[set[str]]:
    """Allow phases of unknown shapes to be read inside, and yield the set of their names.

    Their lengths and ends are as written, but their values are meaningless.
    """
    global _unknown  # noqa: PLW0603 - a whole state is read under it
    found: set[str] = set()
    _unknown = found
    try:
        yield found
    finally:
        _unknown = None


def shape_name(name: str, value: object) -> str:
    """Return the name of a known shape, or raise."""
    shape_of(value, name)
    return str(value)


def register_shape(name: str) -> Callable[[_Function], _Function]:
    """Register a function as a shape, with `@register_shape("name")`.

    The function is a coefficient `c(progress, **parameters)` with `c(0) = 1` and `c(1) = 0`. The
    value of a phase is `end + c (start - end)`. Parameters are numbers or tuples of numbers. The
    checkpoint saves them with the phase, including defaults, so you can change a default later
    without an effect on old checkpoints.

    Register the shape in every process, before you build or load a schedule that uses it.

    Args:
        name: Name of the shape in phases and config files, not empty and not taken.

    Returns:
        A decorator that registers the function and returns it unchanged.

    Raises:
        ConfigError: The name is taken or empty, or the signature does not fit. A coefficient that
            does not go from 1 to 0 is an error of the `Schedule` that uses it.

    Examples:
        >>> @register_shape("quarter_circle")
        ... def quarter_circle(progress, roundness=2.0):
        ...     return (1 - progress**roundness) ** (1 / roundness)
        >>> from dist_sched import Phase, Schedule
        >>> Schedule([Phase("quarter_circle", 10, end=0.0, start=1.0)])(6)
        0.8
    """
    text("name", name)

    def register(coefficient: _Function) -> _Function:
        parameters = _parameters_of(name, coefficient)
        origin = (coefficient.__module__, getattr(coefficient, "__qualname__", "<lambda>"))
        known = SHAPES.get(name)
        # Rerunning a notebook cell registers its function again. All lambdas have one name.
        if known is not None and ("<lambda>" in origin[1] or known.origin != origin):
            raise ConfigError(f"shape {name!r} already exists; choose another name")
        rules = dict.fromkeys(parameters, _any_parameter)
        defaults = {key: value for key, value in parameters.items() if value is not _REQUIRED}
        law = _checked_blend(name, coefficient)
        SHAPES[name] = Shape(law, rules, defaults, origin=origin)
        return coefficient

    return register


def _parameters_of(name: str, coefficient: Callable[..., float]) -> dict[str, Any]:
    """Return a function's parameters after the first, with their defaults."""
    try:
        parameters = list(inspect.signature(coefficient).parameters.values())
    except (TypeError, ValueError) as error:
        rule = "must be a function with a signature"
        raise ConfigError(f"shape {name!r}: {shown(coefficient)} {rule}") from error
    first, others = parameters[:1], parameters[1:]
    by_place = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    has_first = any(one.kind in by_place for one in first)
    if not has_first or any(one.kind not in by_name or one.name in PHASE_NAMES for one in others):
        raise ConfigError(
            f"shape {name!r}: its function must take the progress as its first argument and its "
            f"parameters by name; no parameter may be called {listed(PHASE_NAMES)}"
        )
    return {one.name: one.default for one in others}


def _any_parameter(name: str, value: object) -> Parameter:
    if isinstance(value, list | tuple):
        return tuple(_any_number(name, one) for one in value)
    return _any_number(name, value)


def _any_number(name: str, value: object) -> Number:
    try:
        return finite(name, value)
    except ConfigError as error:
        raise illegal(
            name, value, "must be a finite number, or a list of finite numbers"
        ) from error


def _blend(coefficient: Callable[..., float]) -> Law:
    """Return the law of a built-in coefficient: `end + coefficient (start - end)`."""

    def law(units: float, steps: float, start: float, end: float, **parameters: Any) -> float:
        value = coefficients.between(coefficient(units / steps, **parameters), start, end)
        return _clamp(value, start, end)

    return law


def _checked_blend(name: str, coefficient: Callable[..., float]) -> Law:
    """Return the law of a registered coefficient, whose values are checked at every call."""

    def law(units: float, steps: float, start: float, end: float, **parameters: Any) -> float:
        # Checked at each call, because it depends on the parameters of the phase.
        for progress, expected in ((0.0, 1.0), (1.0, 0.0)):
            found = coefficient(progress, **parameters)
            if not abs(found - expected) <= _TOLERANCE:
                rule = f"must be {expected} at progress {progress}, not {found!r}"
                raise ConfigError(f"shape {name!r}: its coefficient {rule}")
        value = coefficients.between(coefficient(units / steps, **parameters), start, end)
        if not 0 <= value < math.inf:
            rule = f"the values of shape {name!r} must be finite numbers >= 0"
            raise illegal("value", value, rule)
        return value

    return law


def _made_up(units: float, steps: float, start: float, end: float, **_parameters: Any) -> float:
    return coefficients.between(1 - units / steps, start, end)


_STAND_IN = _StandIn(_made_up)


def _cosine(progress: float, exponent: float) -> float:
    """Fall as `((1 + cos(pi progress)) / 2)^exponent`, as optax's `cosine_decay_schedule`."""
    fall = coefficients.cosine(progress)
    return fall if exponent == 1 else fall**exponent


def _polynomial(progress: float, power: float) -> float:
    return float(coefficients.linear(progress) ** power)


def _constant(units: float, steps: float, start: float, end: float) -> float:  # noqa: ARG001
    if start != end:
        raise ConfigError(
            f"starts at {start!r} and ends at {end!r}: a constant phase must start and end at one "
            "value; for a jump, also pass start="
        )
    return end


def _hold(units: float, steps: float, start: float, end: float) -> float:  # noqa: ARG001
    return start


def _clamp(value: float, start: float, end: float) -> float:
    """Return the value, or the bound that it exceeds by rounding."""
    # Otherwise a value could be below 0, or above max_value.
    low, high = (end, start) if end < start else (start, end)
    return low if value < low else min(value, high)


def _geometric(units: float, steps: float, start: float, end: float) -> float:
    return _clamp(start * (end / start) ** (units / steps), start, end)


def _multistep(
    units: float, steps: float, start: float, end: float, milestones: tuple[Number, ...]
) -> float:
    """Go from start to end in equal factors, one at each milestone."""
    if milestones[-1] > steps:
        rule = f"must be at most the length of the phase, steps={steps!r}"
        raise illegal("milestones", milestones, rule)
    return _geometric(bisect_right(milestones, units), len(milestones), start, end)


def _power_law(
    units: float, steps: float, start: float, end: float, power: float, timescale: float | None
) -> float:
    """Fall as `(1 + units / timescale)^-power`, scaled to go from start to end.

    If None, the timescale is chosen so that no scaling is needed.
    """
    if timescale is None:
        if end == 0:
            raise illegal("end", end, "must be greater than 0, unless you pass timescale=")
        stretch = (positive("start", start) / end) ** (1 / power) - 1
        return _clamp(start * (1 + units / steps * stretch) ** -power, start, end)
    # expm1 and log1p stay precise if the timescale is much longer than the phase.
    fall, whole_fall = (
        math.expm1(-power * math.log1p(passed / timescale)) for passed in (units, steps)
    )
    return _clamp(coefficients.between(1 - fall / whole_fall, start, end), start, end)


def _log(units: float, steps: float, start: float, end: float, timescale: float) -> float:
    """Fall as `1 - log(1 + units / timescale) / log(1 + steps / timescale)`.

    With a timescale of one update, a rise has the values of DeepSpeed's `WarmupLR`, which are
    `log(n + 1) / log(w)` at iteration `n`, with `w = steps + 1`.
    """
    passed = math.log1p(units / timescale) / math.log1p(steps / timescale)
    return _clamp(coefficients.between(1 - passed, start, end), start, end)


def _ratio(name: str, value: object) -> float:
    """Return a number greater than 0 and not 1, or raise."""
    found = positive(name, value)
    if found == 1:
        raise illegal(name, value, "must not be 1; use shape 'linear' for a straight line")
    return found


def _below_one(name: str, value: object) -> float:
    found = rate(name, value)
    if found >= 1:
        raise illegal(name, value, "must be less than 1")
    return found


def milestones(name: str, value: object) -> tuple[Number, ...]:
    """Return rising lengths greater than 0 as a tuple, or raise."""
    if not is_list(value):
        raise illegal(name, value, "must be a list of lengths, counted from the phase's start")
    found = tuple(length(name, one) for one in value)
    if not found or found[0] <= 0 or list(found) != sorted(found):
        raise illegal(name, value, "must be above 0 and in ascending order, and at least one")
    return found


def _half_life(units: float, steps: float, start: float, end: float) -> float:
    """Change the weight of a running mean so that its half-life changes in a straight line.

    A running mean of weight `b` forgets half of an old value in `ln 0.5 / ln b` updates. AdEMAMix
    warms up `beta3` in this way: Pagliardini et al. 2024, https://arxiv.org/abs/2409.03137.
    """
    if not max(start, end) < 1:
        rule = "must be less than 1, because shape 'half_life' is for the weight of a running mean"
        raise illegal("start or end", max(start, end), rule)
    half_life = coefficients.between(1 - units / steps, 1 / math.log(start), 1 / math.log(end))
    return _clamp(math.exp(1 / half_life), start, end)


_TIMESCALE = {"timescale": optional(positive)}

SHAPES |= {
    "constant": Shape(_constant),
    "linear": Shape(_blend(coefficients.linear), stays_between=True),
    "cosine": Shape(_blend(_cosine), {"exponent": positive}, {"exponent": 1.0}, stays_between=True),
    "polynomial": Shape(
        _blend(_polynomial), {"power": positive}, {"power": 1.0}, stays_between=True
    ),
    "exponential": Shape(_geometric, is_geometric=True),
    "halving": Shape(_blend(coefficients.halving), stays_between=True),
    "minus_sqrt": Shape(_blend(coefficients.minus_sqrt), stays_between=True),
    "inverse_sqrt": Shape(partial(_power_law, power=0.5), _TIMESCALE, {"timescale": None}),
    "power_law": Shape(
        _power_law, {"power": positive, **_TIMESCALE}, {"power": 1.0, "timescale": None}
    ),
    "inverse": Shape(partial(_power_law, power=1.0), _TIMESCALE, {"timescale": None}),
    "step": Shape(_hold, stays_between=True),
    "multistep": Shape(_multistep, {"milestones": milestones}, is_geometric=True),
    "minus_power": Shape(
        _blend(coefficients.minus_power), {"power": positive}, stays_between=True, version=2
    ),
    "exponential_to_zero": Shape(
        _blend(coefficients.exponential_to_zero), {"ratio": _ratio}, stays_between=True, version=2
    ),
    "rex": Shape(
        _blend(coefficients.rex), {"beta": _below_one}, {"beta": 0.5}, stays_between=True, version=2
    ),
    "log": Shape(_log, {"timescale": positive}, {"timescale": 1.0}, version=2),
    "sine": Shape(_blend(coefficients.sine), stays_between=True, version=2),
    "half_life": Shape(_half_life, is_geometric=True, is_homogeneous=False, version=2),
}
