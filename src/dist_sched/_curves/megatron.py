"""Megatron's curves: learning rate and weight decay as functions of a position and two bounds.

The order of the arithmetic is part of the contract: `OptimizerParamScheduler` promises the same bits
as `megatron.core.optimizer_param_scheduler` (megatron-core 0.16.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_sched._curves.coefficients import (
    Coefficient,
    cosine,
    cosine_rise,
    halving,
    linear,
    linear_rise,
    minus_sqrt,
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._curves.curve import Between

DECAYS: dict[str, Coefficient] = {"linear": linear, "cosine": cosine}
WSD_DECAYS: dict[str, Coefficient] = {
    **DECAYS,
    "exponential": halving,
    "minus_sqrt": minus_sqrt,
}
RISES: dict[str, Coefficient] = {"linear": linear_rise, "cosine": cosine_rise}

LR_DECAY_STYLES = ("constant", *DECAYS, "inverse-square-root", "WSD")
LR_WSD_DECAY_STYLES = tuple(WSD_DECAYS)
WD_INCR_STYLES = ("constant", *RISES)


def _upper(high: float, _low: float) -> float:
    return high


def _lower(_high: float, low: float) -> float:
    return low


def _equal(high: float, low: float) -> float:
    """Return the one value that both bounds have, or raise a ConfigError."""
    if high != low:
        raise ConfigError(f"the constant style needs equal bounds, got {low!r} and {high!r}")
    return high


@dataclass(frozen=True, slots=True, kw_only=True)
class LrCurve:
    """Megatron's learning rate: a linear warmup from `start` to `max_value`, then a decay.

    With warmup `w`, horizon `h`, bounds `high` and `low` and `r = (position - w) / (h - w)`, after
    the warmup: constant: `high`; linear: `low + (1 - r) (high - low)`; cosine: `low + (1 + cos(pi r))
    / 2 (high - low)`; inverse-square-root (https://arxiv.org/abs/1706.03762):
    `max(low, high sqrt(max(w, 1)) / sqrt(position))`;
    WSD (https://arxiv.org/abs/2404.06395): `high` until `decay` units before the horizon, then
    `decay_style` down to `low`. Past the horizon every style but constant is at `low`.

    >>> curve = LrCurve(
    ...     start=0.0, max_value=1.0, min_value=0.1, warmup=10, horizon=110, style="linear"
    ... )
    >>> [curve(position) for position in (0, 5, 10, 60, 110, 111)]
    [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    """

    start: float
    """The learning rate at position 0, where there is a warmup."""
    max_value: float
    """The peak."""
    min_value: float
    """The floor."""
    warmup: float
    """Length of the warmup, in units."""
    horizon: float
    """Position at which the decay ends."""
    style: str
    """One of LR_DECAY_STYLES."""
    decay: float = 0
    """Length of WSD's decay, in units."""
    decay_style: str = "linear"
    """One of LR_WSD_DECAY_STYLES."""

    def __call__(self, position: float) -> float:
        """Return the value at a position, under the curve's own bounds."""
        return self.at(position)(self.max_value, self.min_value)

    def at(self, position: float) -> Between:
        """Return the curve at a position as a function of its bounds."""
        warmup, style = self.warmup, self.style
        if position <= warmup and warmup > 0:
            start = self.start
            return lambda high, _: start + (high - start) * position / warmup
        if style == "constant":
            return _upper
        if position > self.horizon:
            return _lower
        if style == "inverse-square-root":
            scale, root = float(max(warmup, 1) ** 0.5), max(position, 1) ** 0.5
            return lambda high, low: max(low, high * scale / root)
        if style == "WSD":
            units = position - (self.horizon - self.decay)
            left = 1.0 if units <= 0 else WSD_DECAYS[self.decay_style](units / self.decay)
        else:
            left = DECAYS[style]((position - warmup) / (self.horizon - warmup))
        return lambda high, low: low + left * (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class WdCurve:
    """Megatron's weight decay: a rise from `min_value` to `max_value`, which then stays.

    >>> curve = WdCurve(min_value=0.0, max_value=0.1, length=10, style="linear")
    >>> [curve(position) for position in (0, 5, 10, 11)]
    [0.0, 0.05, 0.1, 0.1]
    """

    max_value: float
    """The weight decay at the end."""
    min_value: float
    """The weight decay at position 0."""
    length: float
    """Length of the rise, in units; 0 means `max_value` throughout."""
    style: str
    """One of WD_INCR_STYLES."""

    def __call__(self, position: float) -> float:
        """Return the value at a position, under the curve's own bounds."""
        return self.at(position)(self.max_value, self.min_value)

    def at(self, position: float) -> Between:
        """Return the curve at a position as a function of its bounds."""
        length = self.length
        if self.style == "constant":
            return _equal
        if position > length or length == 0:
            return _upper
        risen = RISES[self.style](position / length)
        return lambda high, low: low + risen * (high - low)
