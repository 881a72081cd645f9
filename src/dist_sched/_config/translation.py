"""Megatron's curves as phases."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dist_sched._config.specification import Specification
from dist_sched._curves.phases import Phase, phase_of
from dist_sched._curves.schedule import Schedule
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._config.entries import OptimizerParamConfig
    from dist_sched._rules import Number

_SHAPES = {"exponential": "halving"}
"""Our names of shapes that have another name in Megatron."""


def to_specification(config: OptimizerParamConfig) -> Specification:
    """Return the same curves as a specification. The values agree up to rounding.

    Raises:
        ConfigError: A WSD decay begins during the warmup, which phases cannot express.
    """
    warmup = phase_of("linear", config.lr_warmup_steps, config.max_lr, config.init_lr)
    style, low, high = config.wd_incr_style, config.start_wd, config.end_wd
    rise = phase_of(style, 0 if style == "constant" else config.wd_incr_steps, high, low)
    lr = [warmup, *_decay(config)] if warmup.steps else _decay(config)
    return Specification.of({"lr": Schedule(lr), "weight_decay": Schedule([rise])})


def _decay(config: OptimizerParamConfig) -> list[Phase]:
    peak, floor, style = config.max_lr, config.min_lr, config.lr_decay_style
    steps = config.lr_decay_steps - config.lr_warmup_steps
    if style == "constant":
        return [phase_of("constant", steps, peak, peak)]
    if style == "inverse-square-root":
        return _inverse_sqrt(config, steps)
    if style != "WSD":
        return [phase_of(style, steps, floor, peak)]
    tail = config.wsd_decay_steps or 0
    if tail > steps:
        raise ConfigError(
            "its WSD decay begins during the warmup, which phases cannot express; make "
            "wsd_decay_steps at most lr_decay_steps - lr_warmup_steps"
        )
    if tail == 0:
        # In Megatron, lr is still at its peak at the horizon, and falls one unit later.
        stable = phase_of("constant", _past(config), peak, peak)
        return [stable, phase_of("constant", 0, floor, floor)]
    style = config.lr_wsd_decay_style or "linear"
    stable = phase_of("constant", steps - tail, peak, peak)
    return [stable, phase_of(_SHAPES.get(style, style), tail, floor)]


def _inverse_sqrt(config: OptimizerParamConfig, steps: Number) -> list[Phase]:
    """Return phases that fall to the floor, or up to the horizon and then jump to the floor."""
    peak, floor, scale = config.max_lr, config.min_lr, max(config.lr_warmup_steps, 1)
    # Megatron treats position 0 as 1, so without a warmup lr stays at the peak up to there.
    waits = scale - config.lr_warmup_steps
    met = scale * ((peak / floor) ** 2 - 1) if floor else math.inf
    fall = max(0, min(steps - waits, met))
    end = peak / math.sqrt(1 + fall / scale)
    return [
        phase_of("constant", waits, peak, peak),
        phase_of("inverse_sqrt", fall, end, timescale=scale),
        phase_of("constant", _past(config) - waits - fall, end, end),
        phase_of("constant", 0, floor, floor),
    ]


def _past(config: OptimizerParamConfig) -> Number:
    """Return the length from the warmup to the first whole position past the horizon."""
    return math.floor(config.lr_decay_steps) + 1 - config.lr_warmup_steps
