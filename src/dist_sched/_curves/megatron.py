"""Megatron-LM's curves: learning rate and weight decay as functions of a position and two bounds.

The order of the arithmetic is part of the contract: `OptimizerParamScheduler` must return the same
bits as `megatron.core.optimizer_param_scheduler` (megatron-core 0.16.1).
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


def equal(high: float, low: float) -> float:
    """Return the value of two equal bounds, or raise."""
    # Megatron-LM asserts this for the bounds of every group, too.
    if high != low:
        raise ConfigError(f"the constant style needs equal bounds, got {low!r} and {high!r}")
    return high


# Closures outside `at`, where each captured name would become a cell at every step.
def _part(left: float) -> Between:
    return lambda high, low: low + left * (high - low)


def _risen(start: float, position: float, warmup: float) -> Between:
    def between(high: float, _low: float) -> float:
        value = start + (high - start) * position / warmup
        # With a bound of 0, which is below the start, rounding would end at -1e-17.
        return value if value >= 0 else high

    return between


def _fallen(scale: float, root: float) -> Between:
    return lambda high, low: max(low, high * scale / root)


@dataclass(frozen=True, slots=True, kw_only=True)
class LrCurve:
    """Megatron-LM's learning rate: a linear warmup from `start` to `max_value`, then a decay.

    With `n` the position, `w` the warmup, `h` the horizon, `d` the decay, `high` = `max_value`,
    `low` = `min_value`, `r = (n - w) / (h - w)` and `t = (n - (h - d)) / d`:

    - up to `w`: `start + (high - start) n / w`;
    - constant: `high`, also past the horizon;
    - linear: `low + (1 - r) (high - low)`;
    - cosine: `low + (1 + cos(pi r)) / 2 (high - low)`;
    - inverse-square-root: `max(low, high sqrt(max(w, 1)) / sqrt(n))`;
    - WSD: `high` up to `h - d`, then `low + c(t) (high - low)`, with `c` of `decay_style`;
    - past the horizon, except for constant: `low`.

    In Megatron-LM, rounding may end a WSD decay of fractional length below the lower bound. Here
    the value is the lower bound.

    Two faults of Megatron-LM are kept, so that the values are the same: inverse-square-root jumps
    down to `low` after the horizon, and a WSD decay that begins during the warmup jumps down at the
    end of the warmup.

    References:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762 (inverse-square-root);
        Hu et al. 2024, https://arxiv.org/abs/2404.06395 (WSD).

    Examples:
        >>> curve = LrCurve(
        ...     start=0.0, max_value=1.0, min_value=0.1, warmup=10, horizon=110, style="linear"
        ... )
        >>> [curve(position) for position in (0, 5, 10, 60, 110, 111)]
        [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    """

    start: float
    """Value at position 0 if there is a warmup, whatever the bounds are."""
    max_value: float
    """Value at the end of the warmup."""
    min_value: float
    """Value past the horizon."""
    warmup: float
    """Length of the warmup, in units."""
    horizon: float
    """Position at which the decay ends, in units."""
    style: str
    """One of `LR_DECAY_STYLES`."""
    decay: float = 0
    """Length of WSD's decay, in units."""
    decay_style: str = "linear"
    """Shape of WSD's decay, one of `LR_WSD_DECAY_STYLES`."""
    end_share: float | None = None
    """If set, groups with bounds use this fraction of their upper bound as the lower one."""
    factor: float = 1.0
    """Factor by which late changes multiply the bounds of groups."""

    def __call__(self, position: float) -> float:
        """Return the value at a position between the curve's own bounds."""
        return self.at(position)(self.max_value, self.min_value)

    def highest(self, high: float, low: float) -> float:
        """Return the highest value between two bounds."""
        return max(high, low, self.start if self.warmup > 0 else low)

    def at(self, position: float) -> Between:
        """Return the value at a position as a function of the bounds."""
        warmup, style = self.warmup, self.style
        part = self.part(position)
        if part is not None:
            return _part(part)
        if position <= warmup and warmup > 0:
            return _risen(self.start, position, warmup)
        if style == "constant":
            return _upper
        if style == "inverse-square-root" and position <= self.horizon:
            # As upstream: both are at least 1, and the product comes before the quotient.
            return _fallen(float(max(warmup, 1) ** 0.5), max(position, 1) ** 0.5)
        return _lower

    def part(self, position: float) -> float | None:
        """Return `p` if the value is `low + p (high - low)`, else None."""
        warmup, style = self.warmup, self.style
        # The cases are in Megatron's order: a constant lr has no end, and the warmup hides a WSD
        # decay that begins before it ends.
        if (position <= warmup and warmup > 0) or position > self.horizon:
            return None
        decay = DECAYS.get(style)
        if decay is not None:
            return decay((position - warmup) / (self.horizon - warmup))
        if style != "WSD":
            return None
        # As upstream: n - h + d could round differently.
        units = position - (self.horizon - self.decay)
        left = 1.0 if units <= 0 else WSD_DECAYS[self.decay_style](units / self.decay)
        # Rounding can make it negative, at the end of a decay of fractional length.
        return left if left >= 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WdCurve:
    """Megatron-LM's weight decay: a rise from `min_value` to `max_value`, then constant.

    With `n` the position, `r = n / length`, `high` = `max_value` and `low` = `min_value`:

    - linear: `low + r (high - low)`;
    - cosine: `low + (1 + cos(pi (1 - r))) / 2 (high - low)`;
    - constant: the value of both bounds;
    - past `length`, except for constant: `high`.

    Raises:
        ConfigError: The style is constant, and the bounds of a call differ.

    Examples:
        >>> curve = WdCurve(min_value=0.0, max_value=0.1, length=10, style="linear")
        >>> [curve(position) for position in (0, 5, 10, 11)]
        [0.0, 0.05, 0.1, 0.1]
    """

    max_value: float
    """Value at position `length`, and after it."""
    min_value: float
    """Value at position 0."""
    length: float
    """Length of the rise, in units. With 0 the value is always `max_value`."""
    style: str
    """One of `WD_INCR_STYLES`."""
    factor: float = 1.0
    """Factor by which late changes multiply the bounds of groups."""

    @property
    def end_share(self) -> None:
        """None, because late changes do not apply to weight decay."""

    @property
    def horizon(self) -> float:
        """Position at which the rise ends, in units."""
        return self.length

    def __call__(self, position: float) -> float:
        """Return the value at a position between the curve's own bounds."""
        return self.at(position)(self.max_value, self.min_value)

    def highest(self, high: float, low: float) -> float:
        """Return the highest value between two bounds."""
        return max(high, low)

    def at(self, position: float) -> Between:
        """Return the value at a position as a function of the bounds."""
        part = self.part(position)
        if part is not None:
            return _part(part)
        return equal if self.style == "constant" else _upper

    def part(self, position: float) -> float | None:
        """Return `p` if the value is `low + p (high - low)`, else None."""
        # A length of 0 cannot be divided by.
        if self.style == "constant" or position > self.length or self.length == 0:
            return None
        return RISES[self.style](position / self.length)
