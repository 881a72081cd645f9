"""The named schedules. `dist_sched.schedules` documents the arguments that they share."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec

from dist_sched._curves.coefficients import between
from dist_sched._curves.phases import Phase, phase_of
from dist_sched._curves.schedule import MOST_PHASES, Schedule
from dist_sched._curves.shapes import shape_name, shape_of
from dist_sched._rules import (
    MAX_LENGTH,
    Number,
    finite,
    flag,
    illegal,
    is_list,
    known_arguments,
    length,
    listed,
    one_of,
    optional,
    positive,
    rate,
    refuse_unknown,
    shown,
    some,
    typed_lengths,
    whole,
    within,
)
from dist_sched.errors import ConfigError

_P = ParamSpec("_P")

LENGTHS = frozenset(
    {
        "horizon",
        "warmup",
        "decay",
        "hold",
        "up",
        "down",
        "cooldown",
        "timescale",
        "milestones",
        "decay_ends",
        "points",
    }
)
"""The arguments that are lengths or positions, in units. A file may have fractions of the horizon.

In `points` this holds for the position of each pair.
"""

ShapeChoice = str | Mapping[str, Any]
"""The name of a shape, or a mapping with `shape` and the shape's parameters."""


def _named(function: Callable[_P, Schedule]) -> Callable[_P, Schedule]:
    """Decorate a named schedule with checks for mistakes that people make when they call it."""
    return typed_lengths(*LENGTHS)(known_arguments(function))


@_named
def constant(
    peak: float,
    horizon: Number | None = None,
    warmup: Number = 0,
    start: float = 0.0,
    *,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a constant schedule with an optional warmup: `peak`.

    Same values as transformers' `get_constant_schedule_with_warmup`. Without a horizon also as
    torch's `LinearLR(start_factor=start / peak, total_iters=warmup)`.

    Args:
        peak: Value after the warmup, at least 0.
        horizon: Position at which the schedule ends, in units. If None, the end of the warmup.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> schedule = constant(1.0, 110, warmup=10)
        >>> [schedule(position) for position in (0, 5, 10, 110)]
        [0.0, 0.5, 1.0, 1.0]
    """
    end = warmup if horizon is None else horizon
    common = _Common(peak, end, warmup, start, horizon_rule=length, warmup_shape=warmup_shape)
    hold = _hold(common.rest, common.peak)
    return common.then(hold) if common.horizon else Schedule([hold])


@_named
def linear(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a linear decay: `floor + (1 - r) (peak - floor)`.

    Same values as transformers' `get_linear_schedule_with_warmup`. Without a warmup also as torch's
    `LinearLR(start_factor=1, end_factor=floor / peak, total_iters=horizon)`.

    Args:
        peak: Value at position `warmup`, at least 0.
        horizon: Position at which the decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the horizon, at least 0.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> schedule = linear(1.0, 110, warmup=10)
        >>> [schedule(position) for position in (0, 10, 60, 110)]
        [0.0, 1.0, 0.5, 0.0]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    return common.decayed("linear")


@_named
def cosine(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a cosine decay: `floor + (1 + cos(pi r)) / 2 (peak - floor)`.

    Same values as transformers' `get_cosine_schedule_with_warmup` (`num_cycles=0.5`) and
    `get_cosine_with_min_lr_schedule_with_warmup`. Without a warmup also as torch's
    `CosineAnnealingLR(T_max=horizon, eta_min=floor)`. Past the horizon all three rise again.

    Args:
        peak: Value at position `warmup`, at least 0.
        horizon: Position at which the decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the horizon, at least 0.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    Examples:
        >>> schedule = cosine(1.0, 110, warmup=10, floor=0.5)
        >>> [schedule(position) for position in (0, 10, 60, 110)]
        [0.0, 1.0, 0.75, 0.5]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    return common.decayed("cosine")


@_named
def cosine_with_restarts(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    cycles: int = 1,
    growth: float = 1.0,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a cosine decay with warm restarts: each cycle starts at the peak again.

    Cycle `i`, counted from 0, is `(h - w) growth^i / (1 + growth + ... + growth^(cycles - 1))`
    units long. At a restart the value is the peak. At the horizon it is the floor.

    Same values as transformers' `get_cosine_with_hard_restarts_schedule_with_warmup`
    (`num_cycles=cycles`, `growth=1`). Without a warmup also as torch's
    `CosineAnnealingWarmRestarts` (`T_0` is the length of the first cycle, `T_mult=growth`), which
    begins another cycle at the horizon.

    Args:
        peak: Value at the beginning of each cycle, at least 0.
        horizon: Position at which the last cycle ends, in units, more than 0.
        warmup: Length of the rise before the first cycle, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the end of each cycle, at least 0.
        cycles: Number of cycles, at least 1.
        growth: Length of a cycle divided by the length of the cycle before, more than 0.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    Examples:
        >>> schedule = cosine_with_restarts(1.0, 70, cycles=3, growth=2)
        >>> [schedule(position) for position in (0, 5, 10, 20, 30, 70)]
        [1.0, 0.5, 1.0, 0.5, 1.0, 0.0]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    number, factor = whole("cycles", cycles), positive("growth", growth)
    if not 0 < number <= MOST_PHASES:
        raise illegal("cycles", cycles, f"must be from 1 to {MOST_PHASES:,}")
    # A much shorter cycle would get lost in the rounding of the sum.
    if (number - 1) * abs(math.log2(factor)) > math.log2(MAX_LENGTH):
        rule = (
            f"must be closer to 1 for cycles={number}; one cycle would be more than 2**53 times as "
            "long as another"
        )
        raise illegal("growth", growth, rule)
    weights = [factor**index for index in range(number)]
    total = sum(weights)
    return common.then(*(common.fall("cosine", common.rest * each / total) for each in weights))


@_named
def polynomial(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    power: float = 1.0,
    *,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a polynomial decay: `floor + (1 - r)^power (peak - floor)`.

    Same values as transformers' `get_polynomial_decay_schedule_with_warmup` (`lr_end=floor`).
    Without warmup and floor also as torch's `PolynomialLR(total_iters=horizon, power=power)`.

    Args:
        peak: Value at position `warmup`, at least 0.
        horizon: Position at which the decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the horizon, at least 0.
        power: Power of the decay, more than 0. 1 is a straight line.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> schedule = polynomial(1.0, 110, warmup=10, power=2)
        >>> [schedule(position) for position in (0, 10, 60, 110)]
        [0.0, 1.0, 0.25, 0.0]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    return common.decayed("polynomial", power=power)


@_named
def exponential(
    peak: float,
    horizon: Number,
    floor: float,
    warmup: Number = 0,
    start: float = 0.0,
    *,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build an exponential decay, with the same factor in each unit: `peak (floor / peak)^r`.

    Without a warmup, same values as torch's `ExponentialLR(gamma)` if
    `floor = peak * gamma**horizon`. Past the horizon torch continues the decay.

    Args:
        peak: Value at position `warmup`, more than 0.
        horizon: Position at which the decay ends, in units, more than 0.
        floor: Value at the horizon, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> schedule = exponential(1.0, 110, 0.25, warmup=10)
        >>> [schedule(position) for position in (0, 10, 60, 110)]
        [0.0, 1.0, 0.5, 0.25]
    """
    high, low = positive("peak", peak), positive("floor", floor)
    common = _Common(high, horizon, warmup, start, low, warmup_shape=warmup_shape)
    return common.decayed("exponential")


@_named
def multistep(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    *,
    milestones: Iterable[Number],
    gamma: float = 0.1,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a step decay that multiplies by `gamma` at each milestone: `peak gamma^k` after `k`.

    Without a warmup, same values as torch's `MultiStepLR(milestones, gamma)`, and as `StepLR` with
    milestones at the multiples of its `step_size`.

    Args:
        peak: Value from position `warmup` to the first milestone, at least 0.
        horizon: Position at which the schedule ends, in units, at least the last milestone.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        milestones: Positions after the warmup, in units, in ascending order. A repeated position
            multiplies again.
        gamma: Factor at each milestone, from 0 to 1.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> schedule = multistep(1.0, 90, milestones=[30, 60], gamma=0.5)
        >>> [schedule(position) for position in (0, 29, 30, 60, 90)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    common = _Common(peak, horizon, warmup, start, warmup_shape=warmup_shape)
    factor = rate("gamma", gamma)
    _at_most("gamma", factor, 1, "1")
    begins = (common.warmup, *_positions("milestones", milestones, common))
    ends = (*begins[1:], common.horizon)
    holds = [
        _hold(end - begin, common.peak * factor**index)
        for index, (begin, end) in enumerate(zip(begins, ends, strict=True))
    ]
    # A milestone at the horizon leaves a last hold of length 0, whose value stays after it.
    return Schedule([*common.rise, *(hold for hold in holds[:-1] if hold.steps), holds[-1]])


@_named
def inverse_sqrt(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    timescale: Number | None = None,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build an inverse square root decay: `max(floor, peak / sqrt(1 + (n - w) / timescale))`.

    Same values as transformers' `get_inverse_sqrt_schedule`, which has no horizon and no floor.

    Args:
        peak: Value at position `warmup`, more than 0.
        horizon: Position at which the schedule ends, in units. It may end above the floor.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Lower bound of the values, from 0 to `peak`.
        timescale: Units after the warmup in which the value falls to `peak / sqrt(2)`, more than
            0. If None, the length of the warmup, or 10,000 without a warmup.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> schedule = inverse_sqrt(1.0, 90, warmup=10)
        >>> [schedule(position) for position in (0, 10, 40, 90)]
        [0.0, 1.0, 0.5, 0.3333333333333333]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    scale = optional(positive)("timescale", timescale) or common.warmup or 10_000
    high, low, steps = positive("peak", common.peak), common.floor, common.rest
    _at_most("floor", low, high, f"peak={high!r}")
    # The phase ends where it reaches the floor, because shapes have no lower bound.
    end = high / math.sqrt(1 + steps / scale)
    if end < low:
        end, steps = low, scale * (high / low * (high / low) - 1)
    fall = phase_of("inverse_sqrt", steps, end, high)
    return common.then(fall, _hold(common.rest - steps, end))


@_named
def noam(
    peak: float,
    horizon: Number,
    warmup: Number,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build the Transformer schedule, linear warmup, then `peak min(n / w, sqrt(w / n))`.

    The paper's step is the position, and its peak is `(d_model * warmup)**-0.5`. Here the first
    update uses position 0, and therefore `start`. Implementations that count from 1 use
    `peak / warmup` there.

    Args:
        peak: Value at position `warmup`, more than 0.
        horizon: Position at which the schedule ends, in units. It may end above the floor.
        warmup: Length of the rise, in units, more than 0, at most `horizon`.
        start: Value at position 0, from 0 to `peak`.
        floor: Lower bound of the decay, from 0 to `peak`.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 5.3.

    Examples:
        >>> schedule = noam(1.0, 90, 10)
        >>> [schedule(position) for position in (0, 5, 10, 40, 90)]
        [0.0, 0.5, 1.0, 0.5, 0.3333333333333333]
    """
    schedule: Schedule = inspect.unwrap(inverse_sqrt)(
        peak, horizon, some("warmup", warmup), start, floor, warmup_shape=warmup_shape
    )
    return schedule


@_named
def tri_stage(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float | None = None,
    *,
    hold: Number = 0,
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a warmup, a constant part and an exponential decay: `peak (floor / peak)^t`.

    `t = (n - w - hold) / (h - w - hold)` is the progress of the decay.

    Same values as fairseq's `tri_stage`, where `update_num` is the position. Its `warmup_steps`,
    `hold_steps` and `decay_steps` add up to the horizon. Its `init_lr_scale * peak` is `start`
    (0.01 there by default), and its `final_lr_scale * peak` is the floor.

    Args:
        peak: Value from position `warmup` to the beginning of the decay, more than 0.
        horizon: Position at which the decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the horizon, more than 0. If None, 1 % of the peak.
        hold: Length of the constant part at the peak, in units, at most `horizon - warmup`.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Park et al. 2019, https://arxiv.org/abs/1904.08779, section 4.2.

    Examples:
        >>> schedule = tri_stage(1.0, 110, warmup=10, hold=20)
        >>> [schedule(position) for position in (0, 10, 30, 70, 110)]
        [0.0, 1.0, 1.0, 0.1, 0.01]
    """
    high = positive("peak", peak)
    low = 0.01 * high if floor is None else positive("floor", floor)
    common = _Common(high, horizon, warmup, start, low, warmup_shape=warmup_shape)
    held = length("hold", hold)
    _at_most("hold", held, common.rest, f"horizon - warmup = {common.rest!r}")
    return common.then(_hold(held, common.peak), common.fall("exponential", common.rest - held))


@_named
def wsd(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    decay: Number,
    decay_shape: str = "minus_sqrt",
    warmup_shape: ShapeChoice = "linear",
    **parameters: Any,
) -> Schedule:
    """Build a warmup-stable-decay schedule: constant at the peak, then a decay at the end.

    The decay is `floor + (1 - sqrt(t)) (peak - floor)` by default, where
    `t = (n - (h - decay)) / decay` is its progress.

    Same values as transformers' `get_wsd_schedule` with `num_decay_steps=decay` and
    `min_lr_ratio=floor / peak`, if `start` equals `floor`. Its `decay_type="1-sqrt"` is the shape
    minus_sqrt. Megatron-LM's "exponential" decay is the shape halving.

    Args:
        peak: Value from position `warmup` to the beginning of the decay, at least 0.
        horizon: Position at which the decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the horizon, at least 0.
        decay: Length of the decay, in units, more than 0, at most `horizon - warmup`.
        decay_shape: Shape of the decay, a name of `dist_sched.schedules.shapes()`.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.
        **parameters: Parameters of the decay shape, by name.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    Examples:
        >>> schedule = wsd(1.0, 110, warmup=10, decay=20)
        >>> [schedule(position) for position in (0, 10, 90, 95, 110)]
        [0.0, 1.0, 1.0, 0.5, 0.0]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    return _stable_decay(common, decay, (), decay_shape, parameters)


@_named
def wsd_s(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    decay: Number,
    decay_ends: Iterable[Number] = (),
    decay_shape: str = "minus_sqrt",
    warmup_shape: ShapeChoice = "linear",
    **parameters: Any,
) -> Schedule:
    """Build a warmup-stable-decay schedule with several decays, each followed by the peak again.

    The last `decay` units before each position of `decay_ends`, and before the horizon, are a
    decay. At a position of `decay_ends` the value is the peak again. At the horizon it is the
    floor.

    Args:
        peak: Value from position `warmup` to the first decay, and between decays, at least 0.
        horizon: Position at which the last decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the end of each decay, at least 0.
        decay: Length of each decay, in units, more than 0.
        decay_ends: Positions at which the earlier decays end, in units, in ascending order and at
            least `decay` apart.
        decay_shape: Shape of the decays, a name of `dist_sched.schedules.shapes()`. The paper's is
            "inverse".
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.
        **parameters: Parameters of the decay shape, by name.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Wen et al. 2024, https://arxiv.org/abs/2410.05192.

    Examples:
        >>> schedule = wsd_s(1.0, 100, decay=20, decay_ends=[50], decay_shape="linear")
        >>> [schedule(position) for position in (0, 30, 40, 50, 90, 100)]
        [1.0, 1.0, 0.5, 1.0, 0.5, 0.0]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    return _stable_decay(common, decay, decay_ends, decay_shape, parameters)


@_named
def one_cycle(
    peak: float,
    horizon: Number,
    warmup: Number | None = None,
    start: float | None = None,
    floor: float | None = None,
    *,
    shape: str = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """Build the 1cycle schedule: a rise to the peak, and a fall to far below the start.

    With the shape cosine it is `start + (1 - cos(pi n / w)) / 2 (peak - start)` and then
    `floor + (1 + cos(pi r)) / 2 (peak - floor)`.

    Same values as torch's `OneCycleLR` with `total_steps = horizon + 1`. Its rise ends at
    `pct_start * total_steps - 1`, which is `warmup` here and may be a fraction. Past
    `horizon + 1` torch raises an error.

    Args:
        peak: Value at position `warmup`, at least 0 (torch's `max_lr`).
        horizon: Position at which the fall ends, in units, more than 0.
        warmup: Length of the rise, in units, from 0 to `horizon`. If None,
            `0.3 * (horizon + 1) - 1`.
        start: Value at position 0, from 0 to `peak`, used only with a warmup (torch's
            `max_lr / div_factor`). If None, `peak / 25`.
        floor: Value at the horizon, at least 0 (torch's `initial_lr / final_div_factor`). If None,
            `start / 1e4`.
        shape: "cosine" or "linear" (torch's "cos" and "linear"), for the rise and the fall.
        three_phase: If True, the value first falls back to `start`, in as many units as the warmup
            has, and then to the floor.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Smith and Topin 2017, https://arxiv.org/abs/1708.07120.

    Examples:
        >>> schedule = one_cycle(1.0, 100, 40, start=0.5, floor=0.0)
        >>> [schedule(position) for position in (0, 20, 40, 70, 100)]
        [0.5, 0.75, 1.0, 0.5, 0.0]
    """
    end = some("horizon", horizon)
    if warmup is None:
        # torch's pct_start * total_steps - 1, fraction included.
        warmup = 0.3 * (end + 1) - 1
        if warmup < 0:
            rule = "is too short for the default warmup of 30 %; pass warmup="
            raise illegal("horizon", horizon, rule)
    begin = rate("peak", peak) / 25 if start is None else rate("start", start)
    last = begin / 1e4 if floor is None else floor
    by = one_of(("cosine", "linear"))("shape", shape)
    common = _Common(peak, end, warmup, begin, last, warmup_shape=by)
    if not flag("three_phase", three_phase):
        return common.decayed(by)
    some("warmup", common.warmup)
    _at_most("warmup", common.warmup, common.rest, "half the horizon with three_phase=True")
    back = phase_of(by, common.warmup, common.start, common.peak)
    down = phase_of(by, common.rest - common.warmup, common.floor, common.start)
    return common.then(back, down)


@_named
def cyclic(
    peak: float,
    horizon: Number,
    floor: float = 0.0,
    *,
    up: Number,
    down: Number | None = None,
    cycle_decay: float = 1.0,
) -> Schedule:
    """Build a triangular wave between floor and peak.

    The highest value of cycle `i`, counted from 0, is `floor + cycle_decay^i (peak - floor)`. There
    is no warmup. The horizon may be anywhere in a cycle. The value there stays.

    Same values as torch's `CyclicLR`: mode "triangular" has `cycle_decay=1`, and "triangular2" has
    `cycle_decay=0.5`. Past the horizon torch goes on.

    Args:
        peak: Value at position `up`, at least 0 (torch's `max_lr`).
        horizon: Position at which the schedule ends, in units, more than 0.
        floor: Value at position 0 and between cycles, at least 0 (torch's `base_lr`).
        up: Length of a rise, in units, more than 0 (torch's `step_size_up`).
        down: Length of a fall, in units, more than 0 (torch's `step_size_down`). If None, `up`.
        cycle_decay: Height of a cycle divided by the height of the cycle before, from 0 to 1.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Smith 2017, https://arxiv.org/abs/1506.01186.

    Examples:
        >>> schedule = cyclic(1.0, 50, up=10, cycle_decay=0.5)
        >>> [schedule(position) for position in (0, 5, 10, 15, 20, 30, 50)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 0.25]
    """
    common = _Common(peak, horizon, 0, 0.0, floor)
    rise = some("up", up)
    fall = rise if down is None else some("down", down)
    height = rate("cycle_decay", cycle_decay)
    _at_most("cycle_decay", height, 1, "1")
    if common.horizon / (rise + fall) > MOST_PHASES // 2:
        rule = f"is too long: at most {MOST_PHASES // 2:,} cycles of {rise + fall!r} units"
        raise illegal("horizon", horizon, rule)
    phases: list[Phase] = []
    left = common.horizon
    while left > 0:
        scale = height ** (len(phases) // 2)
        # Without this case, the first top could miss the peak by rounding.
        top = common.peak if scale == 1 else between(scale, common.peak, common.floor)
        for steps, begin, end in ((rise, common.floor, top), (fall, top, common.floor)):
            if left > 0:
                until = left if steps > left else None
                phases.append(phase_of("linear", steps, end, begin, until=until))
                left -= steps
    return Schedule(phases)


@_named
def infinite(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    constant: float,
    cooldown: Number,
    decay: Number,
    cooldown_shape: str = "cosine",
    decay_shape: str = "exponential",
    warmup_shape: ShapeChoice = "linear",
) -> Schedule:
    """Build a schedule for a run of unknown length: a cooldown, a constant part and a decay.

    After the warmup, the value goes from the peak to `constant` in `cooldown` units and stays
    there. In the last `decay` units it goes to the floor.

    Args:
        peak: Value at position `warmup`, at least 0.
        horizon: Position at which the decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Value at the horizon, at least 0, and more than 0 for an exponential decay.
        constant: Value between cooldown and decay, from 0 to `peak`.
        cooldown: Length of the first fall, in units, more than 0.
        decay: Length of the final decay, in units, more than 0.
        cooldown_shape: Shape of the first fall, a name of `dist_sched.schedules.shapes()`.
        decay_shape: Shape of the decay, a name of `dist_sched.schedules.shapes()`.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Ibrahim et al. 2024, https://arxiv.org/abs/2403.08763.

    Examples:
        >>> schedule = infinite(
        ...     1.0, 200, warmup=10, floor=0.125, constant=0.5, cooldown=90, decay=40
        ... )
        >>> [schedule(position) for position in (0, 10, 55, 100, 160, 180, 200)]
        [0.0, 1.0, 0.75, 0.5, 0.5, 0.25, 0.125]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    level = rate("constant", constant)
    _at_most("constant", level, common.peak, f"peak={common.peak!r}")
    first, last = some("cooldown", cooldown), some("decay", decay)
    _at_most("cooldown", first, common.rest, f"horizon - warmup = {common.rest!r}")
    left = common.rest - first
    _at_most("decay", last, left, f"horizon - warmup - cooldown = {left!r}")
    return common.then(
        phase_of(_fall_shape("cooldown_shape", cooldown_shape, level), first, level, common.peak),
        _hold(left - last, level),
        phase_of(_fall_shape("decay_shape", decay_shape, common.floor), last, common.floor, level),
    )


@_named
def power(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    decay: Number,
    exponent: float = -0.51,
    hold: Number = 0,
    decay_shape: str = "linear",
    warmup_shape: ShapeChoice = "linear",
    **parameters: Any,
) -> Schedule:
    """Build a power law of the position, which does not depend on the horizon, and a final decay.

    From position `m = w + hold` on the value is `max(floor, peak (n / m)^exponent)`. In the last
    `decay` units it goes to the floor.

    Same values as OLMo-core's `PowerLR` (`b=exponent`, `decay_min_lr=floor`), which has no lower
    bound before its decay. The paper's `min(lr_max, beta a n^b)`, where beta is the batch size, has
    a peak of `lr_max` up to position `(lr_max / (beta a))^(1 / b)`.

    Args:
        peak: Value from position `warmup` to `warmup + hold`, more than 0.
        horizon: Position at which the decay ends, in units, more than 0.
        warmup: Length of the rise from `start` to `peak`, in units, from 0 to `horizon`.
        start: Value at position 0, from 0 to `peak`. Used only with a warmup.
        floor: Lower bound of the values, from 0 to `peak`. With a decay also the value at the
            horizon.
        decay: Length of the final decay, in units. 0 for no decay.
        exponent: Exponent of the power law, less than 0. The `b` of OLMo-core and the paper.
        hold: Length of the constant part at the peak, in units. More than 0 without a warmup.
        decay_shape: Shape of the decay, a name of `dist_sched.schedules.shapes()`.
        warmup_shape: Shape of the warmup: a name of `dist_sched.schedules.shapes()`, or a mapping
            with `shape` and its parameters.
        **parameters: Parameters of the decay shape, by name.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    References:
        Shen et al. 2024, https://arxiv.org/abs/2408.13359.

    Examples:
        >>> schedule = power(1.0, 200, warmup=10, decay=40, exponent=-0.5)
        >>> [schedule(position) for position in (0, 10, 40, 160, 180, 200)]
        [0.0, 1.0, 0.5, 0.25, 0.125, 0.0]
    """
    common = _Common(peak, horizon, warmup, start, floor, warmup_shape=warmup_shape)
    high, low = positive("peak", common.peak), common.floor
    if finite("exponent", exponent) >= 0:
        raise illegal("exponent", exponent, "must be less than 0, such as -0.51")
    fall = positive("-exponent", -exponent)
    _at_most("floor", low, high, f"peak={high!r}")
    held, tail = length("hold", hold), length("decay", decay)
    _at_most("hold", held, common.rest, f"horizon - warmup = {common.rest!r}")
    left = common.rest - held
    _at_most("decay", tail, left, f"horizon - warmup - hold = {left!r}")
    begins, steps = some("warmup + hold", common.warmup + held), left - tail
    end = high * ((begins + steps) / begins) ** -fall
    if end < low:
        # The phase ends where it reaches the floor, because shapes have no lower bound.
        end, steps = low, min(steps, begins * ((high / low) ** (1 / fall) - 1))
    shape = _fall_shape("decay_shape", decay_shape, low if tail else high)
    return common.then(
        _hold(held, high),
        phase_of("power_law", steps, end, high, power=fall),
        _hold(left - tail - steps, end),
        phase_of(shape, tail, low, end, **parameters),
    )


@_named
def piecewise(
    points: Iterable[Sequence[Number]],
    shape: str = "linear",
    *,
    horizon: Number | None = None,
    **parameters: Any,
) -> Schedule:
    """Build a schedule through given points, each a pair of position and value.

    A phase of the given shape joins each two points. With the shape "step", each value stays until
    the next point. Two points at one position are a jump, and the value there is the later one's.

    With the shape "linear" and without jumps, same values as numpy's `interp`.

    Args:
        points: Pairs of a position in units and a value, at least 0. The first position is 0, and
            positions are in ascending order.
        shape: Shape between two points, a name of `dist_sched.schedules.shapes()`.
        horizon: Position at which the schedule ends, in units. If None, the last point.
        **parameters: Parameters of the shape, by name.

    Returns:
        The schedule.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> schedule = piecewise([(0, 0.0), (10, 1.0), (90, 1.0), (110, 0.5)])
        >>> [schedule(position) for position in (0, 5, 10, 90, 100, 110)]
        [0.0, 0.5, 1.0, 1.0, 0.75, 0.5]
        >>> stages = piecewise([(0, 4.0), (10, 8.0), (20, 16.0)], "step")
        >>> [stages(position) for position in (0, 9, 10, 19, 20)]
        [4.0, 4.0, 8.0, 8.0, 16.0]
    """
    by, found = shape_name("shape", shape), _points(points)
    own = _own_parameters(by, parameters)
    last, reached = found[-1]
    end = last if horizon is None else length("horizon", horizon)
    if end < last:
        raise illegal("horizon", horizon, f"must be at least {last!r}, the last point's position")
    phases = []
    for (begin, first), (until, value) in itertools.pairwise(found):
        if begin < until:
            steps = until - begin
            # Between equal values it is a constant phase, which `extend` may make longer.
            is_flat = first == value
            phases.append(
                _hold(steps, value) if is_flat else phase_of(by, steps, value, first, **own)
            )
    # A jump at the last point, or a single point, needs a phase of length 0.
    if end > last or not phases or phases[-1].end != reached:
        phases.append(_hold(end - last, reached))
    return Schedule(phases)


NAMED: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "polynomial": polynomial,
    "exponential": exponential,
    "multistep": multistep,
    "inverse_sqrt": inverse_sqrt,
    "noam": noam,
    "tri_stage": tri_stage,
    "wsd": wsd,
    "wsd_s": wsd_s,
    "one_cycle": one_cycle,
    "cyclic": cyclic,
    "infinite": infinite,
    "power": power,
    "piecewise": piecewise,
}
"""The named schedules, by the name that config files use."""


@typed_lengths(*LENGTHS)
def build(name: str, /, **arguments: Any) -> Schedule:
    """Build a schedule from its name and arguments, as config files do.

    Args:
        name: Name of a schedule, one of `NAMED`.
        **arguments: Arguments of the function with that name.

    Returns:
        The schedule.

    Raises:
        ConfigError: The name is unknown, or an argument is unknown, missing or invalid.

    Examples:
        >>> build("linear", peak=1.0, horizon=100)
        Schedule([Phase('linear', 100, end=0.0, start=1.0)])
    """
    function = NAMED[one_of(tuple(NAMED))("schedule", name)]
    with within(name):
        # Checked here, because Python's TypeError does not suggest a similar name.
        taken = dict(inspect.signature(function).parameters)
        known = list(taken)
        if taken.pop("parameters", None):
            by = "decay_shape" if "decay_shape" in taken else "shape"
            known = [*taken, *shape_of(arguments.get(by, taken[by].default), by).rules]
        refuse_unknown(arguments, known, f"is not known; must be one of {listed(known)}")
        needed = (key for key, one in taken.items() if one.default is inspect.Parameter.empty)
        missing = [key for key in needed if key not in arguments]
        if missing:
            raise ConfigError(f"lacks {', '.join(missing)}")
        schedule: Schedule = inspect.unwrap(function)(**arguments)
        return schedule


class _Common:
    """The checked arguments that the named schedules share, and the phases built from them."""

    def __init__(
        self,
        peak: float,
        horizon: Number,
        warmup: Number,
        start: float,
        floor: float = 0.0,
        *,
        horizon_rule: Callable[[str, object], Number] = some,
        warmup_shape: ShapeChoice = "linear",
    ) -> None:
        self.peak = rate("peak", peak)
        self.warmup = length("warmup", warmup)
        self.horizon = horizon_rule("horizon", horizon)
        self.start = rate("start", start)
        self.floor = rate("floor", floor)
        _at_most("warmup", self.warmup, self.horizon, f"horizon={self.horizon!r}")
        _at_most("start", self.start, self.peak, f"peak={self.peak!r}")
        self.rest = self.horizon - self.warmup
        """Length after the warmup, in units."""
        self.rise = _rise(warmup_shape, self.warmup, self.peak, self.start)
        """The warmup, if there is one."""

    def fall(self, shape: str, steps: Number, **parameters: Any) -> Phase:
        """Return a phase from the peak to the floor."""
        return phase_of(shape, steps, self.floor, self.peak, **parameters)

    def then(self, *phases: Phase) -> Schedule:
        """Return the warmup, followed by the phases that are not of length 0."""
        # A phase of length 0 would be an unintended jump.
        return Schedule([*self.rise, *(phase for phase in phases if phase.steps)])

    def decayed(self, shape: str, **parameters: Any) -> Schedule:
        """Return the warmup, followed by a fall up to the horizon."""
        return self.then(self.fall(shape, self.rest, **parameters))


def _rise(choice: ShapeChoice, warmup: Number, peak: float, start: float) -> list[Phase]:
    """Return the warmup phase in the chosen shape. Without a warmup the list is empty.

    Raises:
        ConfigError: There is no such shape, or it cannot go from `start` to `peak`.
    """
    shape, parameters = _chosen("warmup_shape", choice)
    with within(f"warmup_shape={shown(choice)}"):
        phase = phase_of(shape, warmup, peak, start, **parameters)
        if not warmup:
            return []
        Schedule([phase])  # to check the shape
        return [phase]


def _chosen(name: str, choice: object) -> tuple[str, dict[str, Any]]:
    """Return the name of a shape and its parameters, or raise."""
    if not isinstance(choice, Mapping):
        return shape_name(name, choice), {}
    if "shape" not in choice:
        raise illegal(name, choice, "must have the key 'shape', and the parameters of that shape")
    shape = shape_name(f"{name}['shape']", choice["shape"])
    with within(name):
        given = {key: value for key, value in choice.items() if key != "shape"}
        return shape, _own_parameters(shape, given)


def _own_parameters(shape: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked parameters of a shape, including defaults, or raise."""
    found = shape_of(shape)
    rule = f"is not a parameter of shape {shape!r} (it has {listed(found.rules) or 'none'})"
    refuse_unknown(given, found.rules, rule)
    return found.parameters(shape, given)


def _hold(steps: Number, value: float) -> Phase:
    """Return a phase that stays at a value."""
    return phase_of("constant", steps, value, value)


def _at_most(name: str, value: Number, limit: Number, words: str) -> None:
    if value > limit:
        raise illegal(name, value, f"must be at most {words}")


def _positions(name: str, value: object, common: _Common) -> tuple[Number, ...]:
    """Return positions in ascending order after the warmup, up to the horizon, or raise."""
    if not is_list(value):
        raise illegal(name, value, "must be a list of positions")
    found = tuple(length(f"{name}[{index}]", one) for index, one in enumerate(value))
    if list(found) != sorted(found):
        raise illegal(name, value, "must be in ascending order")
    if found and not common.warmup < found[0] <= found[-1] <= common.horizon:
        rule = f"must be after warmup={common.warmup!r} and at most horizon={common.horizon!r}"
        raise illegal(name, value, rule)
    return found


def _points(value: object) -> list[tuple[Number, float]]:
    """Return pairs of position and value, with positions in ascending order from 0, or raise."""
    if not is_list(value):
        raise illegal("points", value, "must be a list of pairs of position and value")
    found: list[tuple[Number, float]] = []
    for index, point in enumerate(value):
        match list(point) if getattr(point, "ndim", 0) == 1 else point:
            case [position, number]:
                with within(f"points[{index}]"):
                    found.append((length("position", position), rate("value", number)))
            case _:
                rule = "must be a pair of position and value"
                raise illegal(f"points[{index}]", point, rule)
    positions = [position for position, _ in found]
    if not 0 < len(found) <= MOST_PHASES:
        raise ConfigError(f"points: there are {len(found)}; must be from 1 to {MOST_PHASES:,}")
    if positions[0] != 0:
        raise illegal("points[0]", found[0], "must be at position 0")
    for index, (before, position) in enumerate(itertools.pairwise(positions), start=1):
        is_third = position == before and before in (0, positions[index - 2])
        if position < before or is_third:
            rule = (
                f"must be after position {before!r} (for a jump, at most two points may have one "
                "position)"
            )
            raise illegal(f"points[{index}]", found[index], rule)
    return found


def _fall_shape(name: str, value: object, end: float) -> str:
    """Return the name of a shape that can fall to `end`, or raise."""
    if shape_of(value, name).is_geometric and end == 0:
        rule = f"must be greater than 0 for {name}={value!r}; pass floor= or another {name}"
        raise illegal("floor", end, rule)
    return str(value)


def _stable_decay(
    common: _Common,
    decay: Number,
    decay_ends: Iterable[Number],
    decay_shape: str,
    parameters: Mapping[str, Any],
) -> Schedule:
    """Return the warmup, and a constant phase and a decay for each end: `decay_ends`, horizon."""
    shape = _fall_shape("decay_shape", decay_shape, common.floor)
    steps = some("decay", decay)
    _at_most("decay", steps, common.rest, f"horizon - warmup = {common.rest!r}")
    ends = (*_positions("decay_ends", decay_ends, common), common.horizon)
    phases = []
    for begin, end in zip((common.warmup, *ends[:-1]), ends, strict=True):
        if end - begin < steps:
            rule = f"decay={steps!r} does not fit between positions {begin!r} and {end!r}"
            raise illegal("decay_ends", decay_ends, rule)
        phases += [_hold(end - begin - steps, common.peak), common.fall(shape, steps, **parameters)]
    return common.then(*phases)
