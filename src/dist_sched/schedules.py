"""Schedules by name: functions that join phases, and say which peer they agree with.

These words mean the same in every one of them:

- `peak`: the highest value; it is reached at position `warmup`.
- `start`: the value at position 0, where there is a warmup.
- `warmup`: length of the rise in a line from `start` to `peak`, in units; with 0 the schedule starts
  at the peak.
- `floor`: the value that the decay goes down to.
- `horizon`: the position at which the schedule ends, in units, the warmup included. The value stays
  after it, whatever the peer does there.

In the formulas `n` is the position, `w` the warmup, `h` the horizon and `r = (n - w) / (h - w)`.
Where `warmup == horizon` no room is left for a decay, and the value stays at the peak.

The value at position n is the one that update n + 1 uses. A peer of torch or transformers counts
alike: its `last_epoch`, or the argument of its lambda, is the position, unless a docstring says
otherwise.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from dist_sched._curves import coefficients
from dist_sched._curves.phases import MOST_PHASES, Phase, Schedule
from dist_sched._curves.proportional import ProportionalTo
from dist_sched._curves.shapes import shape_of, shapes
from dist_sched._rules import (
    MAX_LENGTH,
    Number,
    flag,
    illegal,
    length,
    listed,
    near_miss,
    one_of,
    optional,
    positive,
    rate,
    some,
    whole,
)
from dist_sched.errors import ConfigError


def constant(
    peak: float, horizon: Number | None = None, warmup: Number = 0, start: float = 0.0
) -> Schedule:
    """Stay at the peak after the warmup: `peak`.

    Agrees with transformers' `get_constant_schedule_with_warmup`, and as a warmup alone with
    torch's `LinearLR(start_factor=start / peak, total_iters=warmup)`.

    Args:
        peak: Highest value.
        horizon: Where the schedule ends, in units; at the end of the warmup, if None.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    >>> schedule = constant(1.0, 110, warmup=10)
    >>> [schedule(position) for position in (0, 5, 10, 110)]
    [0.0, 0.5, 1.0, 1.0]
    """
    common = _common(peak, warmup if horizon is None else horizon, warmup, start)
    hold = common.hold(common.rest)
    return common.then(hold) if common.horizon else Schedule([hold])


def linear(
    peak: float, horizon: Number, warmup: Number = 0, start: float = 0.0, floor: float = 0.0
) -> Schedule:
    """Fall in a line: `floor + (1 - r) (peak - floor)`.

    Agrees with transformers' `get_linear_schedule_with_warmup`, and without a warmup with torch's
    `LinearLR(start_factor=1, end_factor=floor / peak, total_iters=horizon)`.

    Args:
        peak: Highest value, at position `warmup`.
        horizon: Where the decay ends, in units.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        floor: Value at the horizon.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    >>> schedule = linear(1.0, 110, warmup=10)
    >>> [schedule(position) for position in (0, 10, 60, 110)]
    [0.0, 1.0, 0.5, 0.0]
    """
    return _decay("linear", _common(peak, some("horizon", horizon), warmup, start, floor))


def cosine(
    peak: float, horizon: Number, warmup: Number = 0, start: float = 0.0, floor: float = 0.0
) -> Schedule:
    """Fall along half a cosine: `floor + (1 + cos(pi r)) / 2 (peak - floor)`.

    Agrees with transformers' `get_cosine_schedule_with_warmup` (`num_cycles=0.5`) and
    `get_cosine_with_min_lr_schedule_with_warmup`, and without a warmup with torch's
    `CosineAnnealingLR(T_max=horizon, eta_min=floor)`; past the horizon those climb back.

    Args:
        peak: Highest value, at position `warmup`.
        horizon: Where the decay ends, in units.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        floor: Value at the horizon.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    >>> schedule = cosine(1.0, 110, warmup=10, floor=0.5)
    >>> [schedule(position) for position in (0, 10, 60, 110)]
    [0.0, 1.0, 0.75, 0.5]
    """
    return _decay("cosine", _common(peak, some("horizon", horizon), warmup, start, floor))


def cosine_with_restarts(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    cycles: int = 1,
    growth: float = 1.0,
) -> Schedule:
    """Fall along half a cosine, again and again: each cycle jumps back to the peak.

    Cycle i (from 0) is `(h - w) growth^i / (1 + growth + ... + growth^(cycles - 1))` units long. At
    the position of a restart the value is the peak, at the horizon it is the floor.

    Agrees with transformers' `get_cosine_with_hard_restarts_schedule_with_warmup`
    (`num_cycles=cycles`, growth 1), and without a warmup with torch's
    `CosineAnnealingWarmRestarts` (`T_mult=growth`, `T_0` the first cycle's length) before the
    horizon, where torch begins one more cycle.

    Args:
        peak: Highest value, at the beginning of each cycle.
        horizon: Where the last cycle ends, in units.
        warmup: Length of the rise, in units; only the first cycle has one.
        start: Value at position 0, where there is a warmup.
        floor: Value at the end of each cycle.
        cycles: How many.
        growth: Length of a cycle as a multiple of the one before.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    >>> schedule = cosine_with_restarts(1.0, 70, cycles=3, growth=2)
    >>> [schedule(position) for position in (0, 5, 10, 20, 30, 70)]
    [1.0, 0.5, 1.0, 0.5, 1.0, 0.0]
    """
    common = _common(peak, some("horizon", horizon), warmup, start, floor)
    weights = _weights(cycles, growth)
    whole_weight = sum(weights)
    lengths = [common.rest * weight / whole_weight for weight in weights]
    return common.then(*(common.fall("cosine", steps) for steps in lengths))


def polynomial(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    power: float = 1.0,
) -> Schedule:
    """Fall as a power of a line: `floor + (1 - r)^power (peak - floor)`.

    Agrees with transformers' `get_polynomial_decay_schedule_with_warmup` (`lr_end=floor`), and
    without a warmup and floor with torch's `PolynomialLR(total_iters=horizon, power=power)`.

    Args:
        peak: Highest value, at position `warmup`.
        horizon: Where the decay ends, in units.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        floor: Value at the horizon.
        power: More than 0; 1 is a line.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    >>> schedule = polynomial(1.0, 110, warmup=10, power=2)
    >>> [schedule(position) for position in (0, 10, 60, 110)]
    [0.0, 1.0, 0.25, 0.0]
    """
    common = _common(peak, some("horizon", horizon), warmup, start, floor)
    return _decay("polynomial", common, power=power)


def exponential(
    peak: float, horizon: Number, floor: float, warmup: Number = 0, start: float = 0.0
) -> Schedule:
    """Fall by the same factor in each unit: `peak (floor / peak)^r`.

    Agrees without a warmup with torch's `ExponentialLR(gamma)`, where
    `floor = peak * gamma**horizon`; past the horizon that falls on.

    Args:
        peak: Highest value, at position `warmup`; more than 0.
        horizon: Where the decay ends, in units.
        floor: Value at the horizon; more than 0.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    >>> schedule = exponential(1.0, 110, 0.25, warmup=10)
    >>> [schedule(position) for position in (0, 10, 60, 110)]
    [0.0, 1.0, 0.5, 0.25]
    """
    positive("floor", floor)
    return _decay("exponential", _common(peak, some("horizon", horizon), warmup, start, floor))


def multistep(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    *,
    milestones: Iterable[Number],
    gamma: float = 0.1,
) -> Schedule:
    """Stay at the peak, times `gamma` from each milestone on: `peak gamma^k` after k of them.

    Agrees without a warmup with torch's `MultiStepLR(milestones, gamma)`, and with `StepLR`, whose
    milestones are the multiples of its `step_size`. Its milestones are positions here too.

    Args:
        peak: Highest value, at position `warmup`.
        horizon: Where the schedule ends, in units; not before the last milestone.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        milestones: Positions, rising, after the warmup; one that is given twice counts twice.
        gamma: The factor, from 0 to 1.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    >>> schedule = multistep(1.0, 90, milestones=[30, 60], gamma=0.5)
    >>> [schedule(position) for position in (0, 29, 30, 60, 90)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    common = _common(peak, some("horizon", horizon), warmup, start)
    factor = rate("gamma", gamma)
    _at_most("gamma", factor, 1, "1")
    begins = (common.warmup, *_positions("milestones", milestones, common))
    values = [common.peak * factor**index for index in range(len(begins))]
    ends = (*begins[1:], common.horizon)
    lengths = [end - begin for begin, end in zip(begins, ends, strict=True)]
    holds = [Phase("constant", *told) for told in zip(lengths, values, values, strict=True)]
    # Of those without a length only the last one says something: what is so from the horizon on.
    return Schedule([*common.rise(), *(hold for hold in holds[:-1] if hold.steps), holds[-1]])


def inverse_sqrt(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    timescale: Number | None = None,
) -> Schedule:
    """Fall as one over a square root: `max(floor, peak / sqrt(1 + (n - w) / timescale))`.

    Agrees with transformers' `get_inverse_sqrt_schedule`, which has no horizon and no floor.

    Args:
        peak: Highest value, at position `warmup`; more than 0.
        horizon: Where the schedule ends, in units, above the floor or at it.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        floor: Lower bound; where the curve meets it the rest is constant.
        timescale: Units after the warmup at which the value is `peak / sqrt(2)`; if None, the
            warmup, or 10,000 without one.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    >>> schedule = inverse_sqrt(1.0, 90, warmup=10)
    >>> [schedule(position) for position in (0, 10, 40, 90)]
    [0.0, 1.0, 0.5, 0.3333333333333333]
    """
    common = _common(peak, some("horizon", horizon), warmup, start, floor)
    scale = optional(positive)("timescale", timescale)
    return _inverse_sqrt(common, scale or common.warmup or 10_000)


def noam(
    peak: float, horizon: Number, warmup: Number, start: float = 0.0, floor: float = 0.0
) -> Schedule:
    """Rise in a line, fall as one over a square root: `peak min(n / w, sqrt(w / n))`.

    The paper's step is the position. In its words the peak is `(d_model * warmup)**-0.5`. The first
    update uses position 0, so it uses `start`, where an implementation that counts from 1 uses
    `peak / warmup`.

    Args:
        peak: Highest value, at position `warmup`; more than 0.
        horizon: Where the schedule ends, in units, above the floor or at it.
        warmup: Length of the rise, in units; more than 0.
        start: Value at position 0.
        floor: Lower bound of the fall; where the curve meets it the rest is constant.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 5.3.

    >>> schedule = noam(1.0, 90, 10)
    >>> [schedule(position) for position in (0, 5, 10, 40, 90)]
    [0.0, 0.5, 1.0, 0.5, 0.3333333333333333]
    """
    rise = some("warmup", warmup)
    return _inverse_sqrt(_common(peak, some("horizon", horizon), rise, start, floor), rise)


def tri_stage(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float | None = None,
    *,
    hold: Number = 0,
) -> Schedule:
    """Rise, hold, and fall by the same factor in each unit: `peak (floor / peak)^t` at the end.

    `t = (n - w - hold) / (h - w - hold)`. Agrees with fairseq's `tri_stage`, whose
    `update_num` is the position: `warmup_steps`, `hold_steps` and `decay_steps` sum up to the
    horizon, `init_lr_scale * peak` is `start` (0.01 there) and `final_lr_scale * peak` the floor.

    Args:
        peak: Highest value, at position `warmup`; more than 0.
        horizon: Where the decay ends, in units.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        floor: Value at the horizon, more than 0; 1 % of the peak, if None.
        hold: Length at the peak, in units.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Park et al. 2019, https://arxiv.org/abs/1904.08779, section 4.2.

    >>> schedule = tri_stage(1.0, 110, warmup=10, hold=20)
    >>> [schedule(position) for position in (0, 10, 30, 70, 110)]
    [0.0, 1.0, 1.0, 0.1, 0.01]
    """
    lowest = 0.01 * rate("peak", peak) if floor is None else positive("floor", floor)
    common = _common(positive("peak", peak), some("horizon", horizon), warmup, start, lowest)
    held = length("hold", hold)
    _at_most("hold", held, common.rest, f"horizon - warmup = {common.rest!r}")
    return common.then(common.hold(held), common.fall("exponential", common.rest - held))


def wsd(
    peak: float,
    horizon: Number,
    warmup: Number = 0,
    start: float = 0.0,
    floor: float = 0.0,
    *,
    decay: Number,
    decay_shape: str = "minus_sqrt",
    **parameters: Any,
) -> Schedule:
    """Stay at the peak until the decay: `floor + (1 - sqrt(t)) (peak - floor)` by default.

    `t = (n - (h - decay)) / decay` is the progress through the decay. Agrees with transformers'
    `get_wsd_schedule` (`num_decay_steps=decay`, `min_lr_ratio=floor / peak`, which is the warmup's
    `start / peak` there too): its `decay_type` "linear", "cosine" and "1-sqrt" are the decay shapes
    linear, cosine and minus_sqrt. The seeds' "exponential" is the decay shape halving.

    Args:
        peak: Highest value, from position `warmup` to the decay.
        horizon: Where the decay ends, in units.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        floor: Value at the horizon.
        decay: Length of the decay, in units, more than 0.
        decay_shape: A name of `dist_sched._curves.shapes.shapes()`.
        **parameters: The decay shape's own, by name.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    >>> schedule = wsd(1.0, 110, warmup=10, decay=20)
    >>> [schedule(position) for position in (0, 10, 90, 95, 110)]
    [0.0, 1.0, 1.0, 0.5, 0.0]
    """
    common = _common(peak, some("horizon", horizon), warmup, start, floor)
    shape = _decay_shape("decay_shape", decay_shape, common.floor)
    short = some("decay", decay)
    _at_most("decay", short, common.rest, f"horizon - warmup = {common.rest!r}")
    return common.then(common.hold(common.rest - short), common.fall(shape, short, **parameters))


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
    **parameters: Any,
) -> Schedule:
    """Decay at several positions, and go on at the peak after each: WSD-S.

    Before each of `decay_ends`, and before the horizon, the last `decay` units fall as in `wsd`. At a
    position of `decay_ends` itself the value is the peak again, so the update before it is the decay's
    last; at the horizon it is the floor.

    Args:
        peak: Highest value.
        horizon: Where the last decay ends, in units.
        warmup: Length of the rise, in units; only the first stretch has one.
        start: Value at position 0, where there is a warmup.
        floor: Value at the end of each decay.
        decay: Length of each decay, in units, more than 0.
        decay_ends: Positions at which the earlier tails end, rising, at least a decay apart.
        decay_shape: A name of `dist_sched._curves.shapes.shapes()`; "inverse" lets one over the value rise
            in a line, as the paper's decay does.
        **parameters: The decay shape's own, by name.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Wen et al. 2024, https://arxiv.org/abs/2410.05192.

    >>> schedule = wsd_s(1.0, 100, decay=20, decay_ends=[50], decay_shape="linear")
    >>> [schedule(position) for position in (0, 30, 40, 50, 90, 100)]
    [1.0, 1.0, 0.5, 1.0, 0.5, 0.0]
    """
    common = _common(peak, some("horizon", horizon), warmup, start, floor)
    shape = _decay_shape("decay_shape", decay_shape, common.floor)
    short = some("decay", decay)
    _at_most("decay", short, common.rest, f"horizon - warmup = {common.rest!r}")
    stops = (*_positions("decay_ends", decay_ends, common), common.horizon)
    phases = []
    for begin, stop in zip((common.warmup, *stops[:-1]), stops, strict=True):
        if stop - begin < short:
            rule = f"no room for decay={short!r} between positions {begin!r} and {stop!r}"
            raise illegal("decay_ends", decay_ends, rule)
        phases += [common.hold(stop - begin - short), common.fall(shape, short, **parameters)]
    return common.then(*phases)


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
    """Rise to the peak and fall to far below where it began, both along `shape`.

    Agrees with torch's `OneCycleLR`. Its last position is `total_steps - 1`, so
    `total_steps = horizon + 1`; its rise ends at `pct_start * total_steps - 1`, which is `warmup`
    and may be a fraction. Past `horizon + 1` torch raises.

    Args:
        peak: Highest value, at position `warmup` (torch's `max_lr`).
        horizon: Where the fall ends, in units.
        warmup: Length of the rise, in units; `0.3 * (horizon + 1) - 1`, if None.
        start: Value at position 0, where there is a warmup (torch's `max_lr / div_factor`);
            `peak / 25`, if None.
        floor: Value at the horizon (torch's `initial_lr / final_div_factor`); `start / 1e4`, if
            None.
        shape: "cosine" or "linear", of rise and fall (torch's "cos" and "linear").
        three_phase: Fall to `start` first, as long as the warmup, and then to the floor.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Smith and Topin 2017, https://arxiv.org/abs/1708.07120.

    >>> schedule = one_cycle(1.0, 100, 40, start=0.5, floor=0.0)
    >>> [schedule(position) for position in (0, 20, 40, 70, 100)]
    [0.5, 0.75, 1.0, 0.5, 0.0]
    """
    end = some("horizon", horizon)
    begin = rate("peak", peak) / 25 if start is None else rate("start", start)
    lowest = begin / 1e4 if floor is None else floor
    common = _common(peak, end, _one_cycle_warmup(end, warmup), begin, lowest)
    by = one_of(("cosine", "linear"))("shape", shape)
    if not flag("three_phase", three_phase):
        return common.then(common.fall(by, common.rest), rise=by)
    some("warmup", common.warmup)
    left = common.rest - common.warmup
    _at_most("warmup", common.warmup, common.rest, "half the horizon, where there are three phases")
    back = Phase(by, common.warmup, common.start, common.peak)
    return common.then(back, Phase(by, left, common.floor, common.start), rise=by)


def cyclic(
    peak: float,
    horizon: Number,
    floor: float = 0.0,
    *,
    up: Number,
    down: Number | None = None,
    cycle_decay: float = 1.0,
) -> Schedule:
    """Go up and down in lines between floor and peak, again and again.

    Cycle i (from 0) tops at `floor + cycle_decay^i (peak - floor)`. There is no warmup and no
    `start`: the first rise is a cycle's own. The horizon may lie anywhere in a cycle, and the value
    there stays.

    Agrees with torch's `CyclicLR`: mode "triangular" with a `cycle_decay` of 1, "triangular2" with
    0.5; past the horizon that goes on.

    Args:
        peak: Highest value, at position `up` (torch's `max_lr`).
        horizon: Where the schedule ends, in units.
        floor: Value at position 0 and between the cycles (torch's `base_lr`).
        up: Length of a rise, in units, more than 0 (torch's `step_size_up`).
        down: Length of a fall, in units, more than 0 (torch's `step_size_down`); `up`, if None.
        cycle_decay: Height of a cycle as a fraction of the one before.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Smith 2017, https://arxiv.org/abs/1506.01186.

    >>> schedule = cyclic(1.0, 50, up=10, cycle_decay=0.5)
    >>> [schedule(position) for position in (0, 5, 10, 15, 20, 30, 50)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 0.25]
    """
    common = _common(peak, some("horizon", horizon), 0, 0.0, floor)
    rise = some("up", up)
    fall = rise if down is None else some("down", down)
    height = rate("cycle_decay", cycle_decay)
    _at_most("cycle_decay", height, 1, "1")
    if common.horizon / (rise + fall) > MOST_PHASES // 2:
        rule = f"must be at most {MOST_PHASES // 2:,} cycles of {rise + fall!r} units"
        raise illegal("horizon", horizon, rule)
    return Schedule(_cut(_triangles(common, rise, fall, height), common.horizon))


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
) -> Schedule:
    """Fall to a constant that any length of training can stay at, and anneal at the end.

    After the warmup `cooldown` units of `cooldown_shape` from peak to `constant`, then `constant`,
    then `decay` units of `decay_shape` down to the floor.

    Args:
        peak: Highest value, at position `warmup`.
        horizon: Where the decay ends, in units.
        warmup: Length of the rise, in units.
        start: Value at position 0, where there is a warmup.
        floor: Value at the horizon; more than 0 for an exponential decay.
        constant: Value between cooldown and decay.
        cooldown: Length of the first fall, in units, more than 0.
        decay: Length of the last fall, in units, more than 0.
        cooldown_shape: A name of `dist_sched._curves.shapes.shapes()`.
        decay_shape: The same.

    Raises:
        ConfigError: Names the argument, its value and the rule.

    Reference: Ibrahim et al. 2024, https://arxiv.org/abs/2403.08763.

    >>> schedule = infinite(
    ...     1.0, 200, warmup=10, floor=0.125, constant=0.5, cooldown=90, decay=40
    ... )
    >>> [schedule(position) for position in (0, 10, 55, 100, 160, 180, 200)]
    [0.0, 1.0, 0.75, 0.5, 0.5, 0.25, 0.125]
    """
    common = _common(peak, some("horizon", horizon), warmup, start, floor)
    level = rate("constant", constant)
    _at_most("constant", level, common.peak, f"peak={common.peak!r}")
    falls, ends = some("cooldown", cooldown), some("decay", decay)
    _at_most("cooldown", falls, common.rest, f"horizon - warmup = {common.rest!r}")
    left = common.rest - falls
    _at_most("decay", ends, left, f"horizon - warmup - cooldown = {left!r}")
    return common.then(
        Phase(_decay_shape("cooldown_shape", cooldown_shape, level), falls, level, common.peak),
        Phase("constant", left - ends, level, level),
        Phase(_decay_shape("decay_shape", decay_shape, common.floor), ends, common.floor, level),
    )


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
}
"""What config files may name."""

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
    }
)
"""The arguments that are lengths or positions, in units."""

proportional_to = ProportionalTo
"""A field that follows another's schedule, such as weight decay that follows lr."""


def build(name: str, /, **arguments: Any) -> Schedule:
    """Build a schedule from its name and arguments, as a config file gives them.

    Args:
        name: One of `NAMED`.
        **arguments: What that function takes.

    Raises:
        ConfigError: The name is not known, or an argument is unknown, missing or illegal.

    >>> build("linear", peak=1.0, horizon=100)
    Schedule([Phase('linear', 100, end=0.0, start=1.0)])
    """
    one_of(tuple(NAMED))("schedule", name)
    try:
        _match(NAMED[name], arguments)
        return NAMED[name](**arguments)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _match(make: Callable[..., Schedule], arguments: Mapping[str, Any]) -> None:
    """Make sure that a function takes these arguments, and needs no others."""
    takes = dict(inspect.signature(make).parameters)
    if takes.pop("parameters", None):
        shape = arguments.get("decay_shape", takes["decay_shape"].default)
        own = tuple(shape_of(_shape("decay_shape", shape)).rules)
    else:
        own = ()
    known = (*takes, *own)
    for argument in arguments:
        if argument not in known:
            close = near_miss(argument, known)
            raise ConfigError(f"{argument!r} is not known; must be one of {listed(known)}{close}")
    empty = inspect.Parameter.empty
    missing = [name for name in takes if takes[name].default is empty and name not in arguments]
    if missing:
        raise ConfigError(f"lacks {', '.join(missing)}")


@dataclass(frozen=True, slots=True)
class _Common:
    """What the schedules share, checked."""

    peak: float
    horizon: Number
    warmup: Number
    start: float
    floor: float

    @property
    def rest(self) -> Number:
        """Length after the warmup, in units."""
        return self.horizon - self.warmup

    def rise(self, shape: str = "linear") -> list[Phase]:
        """Give the warmup, if there is one."""
        return [Phase(shape, self.warmup, self.peak, self.start)] if self.warmup else []

    def hold(self, steps: Number) -> Phase:
        """Stay at the peak."""
        return Phase("constant", steps, self.peak, self.peak)

    def fall(self, shape: str, steps: Number, **parameters: Any) -> Phase:
        """Go from the peak to the floor."""
        return Phase(shape, steps, self.floor, self.peak, **parameters)

    def then(self, *phases: Phase, rise: str = "linear") -> Schedule:
        """Join the warmup and those phases that have a length."""
        return Schedule([*self.rise(rise), *(phase for phase in phases if phase.steps)])


def _common(
    peak: float, horizon: Number, warmup: Number, start: float, floor: float = 0.0
) -> _Common:
    """Check what the schedules share."""
    found = _Common(
        rate("peak", peak),
        length("horizon", horizon),
        length("warmup", warmup),
        rate("start", start),
        rate("floor", floor),
    )
    _at_most("warmup", found.warmup, found.horizon, f"horizon={found.horizon!r}")
    _at_most("start", found.start, found.peak, f"peak={found.peak!r}")
    return found


def _at_most(name: str, value: Number, most: Number, words: str) -> None:
    if value > most:
        raise illegal(name, value, f"must be at most {words}")


def _positions(name: str, value: object, common: _Common) -> tuple[Number, ...]:
    """Check positions that rise, after the warmup and up to the horizon."""
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        raise illegal(name, value, "must be a list of positions")
    found = tuple(length(f"{name}[{index}]", one) for index, one in enumerate(value))
    if list(found) != sorted(found):
        raise illegal(name, value, "must rise")
    if found and not common.warmup < found[0] <= found[-1] <= common.horizon:
        rule = f"must be after warmup={common.warmup!r} and not after horizon={common.horizon!r}"
        raise illegal(name, value, rule)
    return found


def _shape(name: str, value: object) -> str:
    return one_of(shapes())(name, value)


def _decay_shape(name: str, value: object, end: float) -> str:
    """Check a shape's name, and that the shape can reach the end."""
    shape = _shape(name, value)
    if shape_of(shape).is_geometric and end == 0:
        rule = f"must be greater than 0 for {name}={shape!r}; give floor, or another {name}"
        raise illegal("floor", end, rule)
    return shape


def _decay(shape: str, common: _Common, **parameters: Any) -> Schedule:
    """Give the warmup and one decay of the whole length that is left."""
    return common.then(common.fall(shape, common.rest, **parameters))


def _weights(cycles: int, growth: float) -> list[float]:
    """Give the lengths of cycles, the first as 1."""
    number, factor = whole("cycles", cycles), positive("growth", growth)
    if not 0 < number <= MOST_PHASES:
        raise illegal("cycles", cycles, f"must be from 1 to {MOST_PHASES:,}")
    if (number - 1) * abs(math.log2(factor)) > math.log2(MAX_LENGTH):
        rule = f"must leave a length to each of cycles={number}: none 2**53 times another"
        raise illegal("growth", growth, rule)
    return [factor**index for index in range(number)]


def _inverse_sqrt(common: _Common, timescale: Number) -> Schedule:
    """Fall as one over a square root, to the horizon or to where that meets the floor."""
    peak, floor, steps = positive("peak", common.peak), common.floor, common.rest
    _at_most("floor", floor, peak, f"peak={peak!r}")
    end = peak / math.sqrt(1 + steps / timescale)
    if end < floor:
        end, steps = floor, timescale * (peak / floor * (peak / floor) - 1)
    fall = Phase("inverse_sqrt", steps, end, peak)
    return common.then(fall, Phase("constant", common.rest - steps, end, end))


def _one_cycle_warmup(horizon: Number, warmup: Number | None) -> Number:
    if warmup is not None:
        return warmup
    found = 0.3 * (horizon + 1) - 1
    if found < 0:
        raise illegal("horizon", horizon, "leaves no warmup of 30 %; give warmup")
    return found


def _triangles(common: _Common, up: Number, down: Number, decay: float) -> Iterator[Phase]:
    """Give the phases of ever lower cycles, without an end."""
    for cycle in count():
        height = decay**cycle
        top = (
            common.peak if height == 1 else coefficients.between(height, common.peak, common.floor)
        )
        yield Phase("linear", up, top, common.floor)
        yield Phase("linear", down, common.floor, top)


def _cut(phases: Iterable[Phase], horizon: Number) -> Iterator[Phase]:
    """Give the phases up to the horizon, the last one left where that is."""
    left = horizon
    for phase in phases:
        if phase.steps >= left:
            yield phase.replace(until=left) if phase.steps > left else phase
            return
        yield phase
        left -= phase.steps
