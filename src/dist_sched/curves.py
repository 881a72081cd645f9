"""Curves: pure functions of a position, which know no optimizer, counter or process group.

A *coefficient* falls from 1 to 0 while the progress through its length goes from 0 to 1. A seeds'
curve is a *blend* of two bounds: which blend, and how far along it, depends on the position alone,
so groups with bounds of their own share that part of the work.

The order of the arithmetic below is part of the contract: `OptimizerParamScheduler` promises the
same bits as `megatron.core.optimizer_param_scheduler` (megatron-core 0.16.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dist_sched.errors import ConfigError

Coefficient = Callable[[float], float]
Blend = Callable[[float, float, float], float]


def linear(progress: float) -> float:
    """Fall in a straight line: `1 - progress`.

    >>> linear(0.0), linear(0.5), linear(1.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Fall along half a cosine, `(1 + cos(pi * progress)) / 2` (https://arxiv.org/abs/1608.03983).

    >>> cosine(0.0), cosine(1.0)
    (1.0, 0.0)
    """
    return 0.5 * (math.cos(math.pi * progress) + 1.0)


def halving(progress: float) -> float:
    """Fall as `2 * 0.5**progress - 1`; the seeds call this WSD tail "exponential".

    >>> halving(0.0), halving(1.0)
    (1.0, 0.0)
    """
    return 2.0 * math.pow(0.5, progress) - 1.0


def minus_sqrt(progress: float) -> float:
    """Fall as `1 - sqrt(progress)` (https://arxiv.org/abs/2405.18392).

    >>> minus_sqrt(0.0), minus_sqrt(0.25), minus_sqrt(1.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 - math.sqrt(progress)


def linear_rise(progress: float) -> float:
    """Rise in a straight line; not `1 - linear(progress)`, which rounds differently.

    >>> linear_rise(0.0), linear_rise(0.5), linear_rise(1.0)
    (0.0, 0.5, 1.0)
    """
    return progress


def cosine_rise(progress: float) -> float:
    """Rise along half a cosine, which is the fall read backwards.

    >>> cosine_rise(0.0), cosine_rise(1.0)
    (0.0, 1.0)
    """
    return cosine(1 - progress)


DECAYS: dict[str, Coefficient] = {"linear": linear, "cosine": cosine}
TAILS: dict[str, Coefficient] = {**DECAYS, "exponential": halving, "minus_sqrt": minus_sqrt}
RISES: dict[str, Coefficient] = {"linear": linear_rise, "cosine": cosine_rise}

LR_DECAY_STYLES = ("constant", *DECAYS, "inverse-square-root", "WSD")
LR_WSD_DECAY_STYLES = tuple(TAILS)
WD_INCR_STYLES = ("constant", *RISES)


def between(fraction: float, high: float, low: float) -> float:
    """Blend: `fraction` of the way from the low bound to the high one."""
    return low + fraction * (high - low)


def at_high(_: float, high: float, low: float) -> float:  # noqa: ARG001 - a blend's signature
    """Blend: the high bound itself."""
    return high


def at_low(_: float, high: float, low: float) -> float:  # noqa: ARG001 - a blend's signature
    """Blend: the low bound itself."""
    return low


def itself(value: float, high: float, low: float) -> float:  # noqa: ARG001 - a blend's signature
    """Blend: the argument, of a curve that knows no bounds."""
    return value


def at_equal(_: float, high: float, low: float) -> float:
    """Blend: the one value that both bounds have.

    Raises:
        ConfigError: The bounds differ.
    """
    if high != low:
        raise ConfigError(f"the constant style needs equal bounds, got {low!r} and {high!r}")
    return high


class Curve(Protocol):
    """What the schedulers ask of a curve: its bounds, and its blend at a position."""

    @property
    def high(self) -> float:
        """The upper bound."""

    @property
    def low(self) -> float:
        """The lower bound."""

    def at(self, position: int) -> tuple[Blend, float]:
        """Give the blend and its first argument; the value is `blend(argument, high, low)`."""


def value(curve: Curve, position: int) -> float:
    """Evaluate a curve under its own bounds."""
    blend, argument = curve.at(position)
    return blend(argument, curve.high, curve.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class LrCurve:
    """The seeds' learning rate: a linear warmup from `start` to `high`, then a decay to `low`.

    With warmup `w`, horizon `h` and `r = (position - w) / (h - w)`, after the warmup:
    constant: `high`; linear: `low + (1 - r) (high - low)`; cosine: `low + (1 + cos(pi r)) / 2
    (high - low)`; inverse-square-root (https://arxiv.org/abs/1706.03762):
    `max(low, high sqrt(max(w, 1)) / sqrt(position))`;
    WSD: `high` until `tail` units before the horizon, then `tail_style` down to `low`.
    Past the horizon every style but constant is at `low`.

    >>> curve = LrCurve(start=0.0, high=1.0, low=0.1, warmup=10, horizon=110, style="linear")
    >>> [value(curve, position) for position in (0, 5, 10, 60, 110, 111)]
    [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    """

    start: float
    """The learning rate at position 0, where there is a warmup."""
    high: float
    """The peak."""
    low: float
    """The floor."""
    warmup: float
    """Length of the warmup, in units."""
    horizon: float
    """Position at which the decay ends."""
    style: str
    """One of LR_DECAY_STYLES."""
    tail: float = 0
    """Length of the WSD tail, in units."""
    tail_style: str = "linear"
    """One of LR_WSD_DECAY_STYLES."""

    def at(self, position: int) -> tuple[Blend, float]:
        """Give the blend at a position, and its first argument."""
        warmup = self.warmup
        if position <= warmup and warmup > 0:
            return self._rise, position
        style = self.style
        if style == "constant":
            return at_high, 0.0
        if position > self.horizon:
            return at_low, 0.0
        if style == "WSD":
            return between, self._tail_coefficient(position - (self.horizon - self.tail))
        if style == "inverse-square-root":
            return self._inverse_sqrt, max(position, 1) ** 0.5
        return between, DECAYS[style]((position - warmup) / (self.horizon - warmup))

    def _rise(self, position: float, high: float, low: float) -> float:  # noqa: ARG002 - a blend
        return self.start + (high - self.start) * position / self.warmup

    def _inverse_sqrt(self, root: float, high: float, low: float) -> float:
        return max(low, high * float(max(self.warmup, 1) ** 0.5) / root)

    def _tail_coefficient(self, units: float) -> float:
        return 1.0 if units <= 0 else TAILS[self.tail_style](units / self.tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class WdCurve:
    """The seeds' weight decay: a rise from `low` to `high` over `length` units, then `high`.

    >>> curve = WdCurve(low=0.0, high=0.1, length=10, style="linear")
    >>> [value(curve, position) for position in (0, 5, 10, 11)]
    [0.0, 0.05, 0.1, 0.1]
    """

    high: float
    """The weight decay at the end."""
    low: float
    """The weight decay at position 0."""
    length: float
    """Length of the rise, in units; 0 means `high` throughout."""
    style: str
    """One of WD_INCR_STYLES."""

    def at(self, position: int) -> tuple[Blend, float]:
        """Give the blend at a position, and its first argument."""
        length = self.length
        if self.style == "constant":
            return at_equal, 0.0
        if position > length or length == 0:
            return at_high, 0.0
        return between, RISES[self.style](position / length)
