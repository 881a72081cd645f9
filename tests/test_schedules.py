"""Named schedules agree with their peers, and refuse what is illegal."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler
from transformers import optimization

from dist_sched import ConfigError, Phase, Schedule, schedules

PAGE = Path(__file__).parents[1] / "docs" / "schedules.md"
CLOSE = 1e-12
"""Of the peak: how near to a peer a schedule is at every position."""


def optimizer(lr):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def of_transformers(function, peak, *arguments, **named):
    """Return a peer as a function of the position: its lambda's factor times the peak."""
    (factor,) = getattr(optimization, function)(optimizer(peak), *arguments, **named).lr_lambdas
    return lambda position: peak * factor(position)


def of_torch(function, peak, **named):
    """Return a peer as a function of the position: its closed form, without summed rounding."""
    scheduler = getattr(lr_scheduler, function)(optimizer(peak), **named)

    def value(position):
        scheduler.last_epoch = position
        (found,) = scheduler._get_closed_form_lr()
        return found

    return value


def of_torch_by_position(function, peak, **named):
    """Return a peer as a function of the position, where `get_lr` is a closed form."""
    scheduler = getattr(lr_scheduler, function)(optimizer(peak), cycle_momentum=False, **named)

    def value(position):
        scheduler.last_epoch = position
        with lr_scheduler._enable_get_lr_call(scheduler):
            return scheduler.get_lr()[0]

    return value


# Each pair makes a schedule and its peer from the same five numbers: the peak, whole lengths of the
# warmup and of the rest, the floor as a share of the peak, and a small number for what is special.
# A pair may name, third, the positions at which the peer is known to be elsewhere.


def transformers_constant(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_transformers("get_constant_schedule_with_warmup", peak, warmup)
    return schedules.constant(peak, warmup + rest, warmup), peer


def torch_linear_warmup(peak, warmup, rest, share, small):  # noqa: ARG001
    start = max(share, 0.001)
    peer = of_torch("LinearLR", peak, start_factor=start, total_iters=warmup + 1)
    return schedules.constant(peak, warmup=warmup + 1, start=start * peak), peer


def torch_constant(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_torch("ConstantLR", peak, factor=share, total_iters=rest)
    return Schedule([Phase("step", rest, end=peak, start=share * peak)]), peer


def transformers_linear(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_transformers("get_linear_schedule_with_warmup", peak, warmup, warmup + rest)
    return schedules.linear(peak, warmup + rest, warmup), peer


def torch_linear(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_torch("LinearLR", peak, start_factor=1.0, end_factor=share, total_iters=rest)
    return schedules.linear(peak, rest, floor=share * peak), peer


def transformers_cosine(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_transformers("get_cosine_schedule_with_warmup", peak, warmup, warmup + rest)
    return schedules.cosine(peak, warmup + rest, warmup), peer


def transformers_cosine_with_floor(peak, warmup, rest, share, small):  # noqa: ARG001
    function = "get_cosine_with_min_lr_schedule_with_warmup"
    peer = of_transformers(function, peak, warmup, warmup + rest, min_lr_rate=share)
    return schedules.cosine(peak, warmup + rest, warmup, floor=share * peak), peer


def torch_cosine(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_torch("CosineAnnealingLR", peak, T_max=rest, eta_min=share * peak)
    return schedules.cosine(peak, rest, floor=share * peak), peer


def transformers_restarts(peak, warmup, rest, share, small):  # noqa: ARG001
    horizon = warmup + rest
    function = "get_cosine_with_hard_restarts_schedule_with_warmup"
    peer = of_transformers(function, peak, warmup, horizon, num_cycles=small)
    restarts = [at for at in range(warmup, horizon) if (at - warmup) * small % rest == 0]
    # There the peer's product of cycles and progress may round to just below a whole number, and
    # it is at the end of the old cycle instead of at the beginning of the new one.
    wrong = {at for at in restarts if small * ((at - warmup) / rest) % 1.0 > 0.5}
    return schedules.cosine_with_restarts(peak, horizon, warmup, cycles=small), peer, wrong


def torch_restarts(peak, warmup, rest, share, small):  # noqa: ARG001
    first, growth = 1 + rest % 20, 1 + small % 3
    horizon = first * (1 + growth + growth**2)
    named = {"T_0": first, "T_mult": growth, "eta_min": share * peak}
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer(peak), **named)
    values = []
    for _ in range(horizon + 1):
        values += scheduler.get_last_lr()
        scheduler.step()
    named = {"floor": share * peak, "cycles": 3, "growth": growth}
    # The peer has no horizon: there it is at the peak of a fourth cycle.
    return schedules.cosine_with_restarts(peak, horizon, **named), values.__getitem__, {horizon}


def transformers_polynomial(peak, warmup, rest, share, small):
    floor, power = min(share, 0.999) * peak, small / 2
    named = {"lr_end": floor, "power": power}
    function = "get_polynomial_decay_schedule_with_warmup"
    peer = of_transformers(function, peak, warmup, warmup + rest, **named)
    return schedules.polynomial(peak, warmup + rest, warmup, floor=floor, power=power), peer


def torch_polynomial(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_torch("PolynomialLR", peak, total_iters=rest, power=small / 2)
    return schedules.polynomial(peak, rest, power=small / 2), peer


def torch_exponential(peak, warmup, rest, share, small):  # noqa: ARG001
    gamma = 1 - share / 10
    peer = of_torch("ExponentialLR", peak, gamma=gamma)
    return schedules.exponential(peak, rest, floor=peak * gamma**rest), peer


def torch_multistep(peak, warmup, rest, share, small):
    milestones = [1, warmup + 1, warmup + 1, warmup + small, warmup + rest + small]
    peer = of_torch("MultiStepLR", peak, milestones=milestones, gamma=share)
    horizon = milestones[-1] + small % 2
    return schedules.multistep(peak, horizon, milestones=milestones, gamma=share), peer


def torch_step(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_torch("StepLR", peak, step_size=small, gamma=share)
    milestones = range(small, rest + 1, small)
    return schedules.multistep(peak, rest, milestones=milestones, gamma=share), peer


def transformers_inverse_sqrt(peak, warmup, rest, share, small):  # noqa: ARG001
    timescale = None if small == 1 else 3 * small
    peer = of_transformers("get_inverse_sqrt_schedule", peak, warmup, timescale)
    return schedules.inverse_sqrt(peak, warmup + rest, warmup, timescale=timescale), peer


def inverse_sqrt_with_floor(peak, warmup, rest, share, small):
    def peer(n):
        if n < warmup:
            return peak * n / warmup
        return max(share * peak, peak / math.sqrt(1 + (n - warmup) / small))

    named = {"floor": share * peak, "timescale": small}
    return schedules.inverse_sqrt(peak, warmup + rest, warmup, **named), peer


def noam_of_the_paper(peak, warmup, rest, share, small):  # noqa: ARG001
    rise = warmup + 1
    width = 1 / (peak**2 * rise)

    def peer(n):
        return width**-0.5 * min(n**-0.5, n * rise**-1.5) if n else 0.0

    return schedules.noam(peak, rise + rest, rise), peer


def fairseq_tri_stage(peak, warmup, rest, share, small):
    first, last = share * peak, max(share, 0.01) * peak
    hold = rest // small if small > 1 else 0

    def peer(n):
        if n < warmup:
            return first + (peak - first) / warmup * n
        if n < warmup + hold:
            return peak
        rate = -math.log(last / peak) / (rest - hold)
        return peak * math.exp(-rate * (n - warmup - hold))

    named = {"start": first, "floor": last, "hold": hold}
    return schedules.tri_stage(peak, warmup + rest, warmup, **named), peer


def transformers_wsd(peak, warmup, rest, share, small):
    theirs = ["linear", "cosine", "1-sqrt"][small % 3]
    decay, floor = max(1, rest * small // 7), share * peak
    given = {"num_decay_steps": decay, "num_training_steps": warmup + rest, "decay_type": theirs}
    peer = of_transformers("get_wsd_schedule", peak, warmup, min_lr_ratio=share, **given)
    ours = {"decay": decay, "decay_shape": theirs.replace("1-sqrt", "minus_sqrt")}
    return schedules.wsd(peak, warmup + rest, warmup, floor, floor, **ours), peer


def wsd_s_of_the_paper(peak, warmup, rest, share, small):
    every, low = rest + small, max(share, 0.01) * peak
    decay = max(1, every // small)

    def peer(n):
        if n < warmup:
            return peak * n / warmup
        since = every if n == warmup + 3 * every else (n - warmup) % every
        through = max(0, since - (every - decay)) / decay
        return 1 / (through / low + (1 - through) / peak)

    ends = [warmup + every, warmup + 2 * every]
    named = {"floor": low, "decay": decay, "decay_ends": ends, "decay_shape": "inverse"}
    return schedules.wsd_s(peak, warmup + 3 * every, warmup, **named), peer


def infinite_of_the_paper(peak, warmup, rest, share, small):
    level = max(share, 0.1) * peak
    low, cooldown, decay = level / 10, rest, small
    horizon = warmup + cooldown + 5 + decay

    def peer(n):
        if n < warmup:
            return peak * n / warmup
        if n < warmup + cooldown:
            return level + (peak - level) / 2 * (1 + math.cos(math.pi * (n - warmup) / cooldown))
        return level * (low / level) ** (max(0, n - (horizon - decay)) / decay)

    named = {"floor": low, "constant": level, "cooldown": cooldown, "decay": decay}
    return schedules.infinite(peak, horizon, warmup, **named), peer


def deepspeed_warmup(peak, warmup, rest, share, small):  # noqa: ARG001
    updates, low = warmup + 2, share * peak

    def peer(n):
        return low + (peak - low) * (math.log(n + 1) / math.log(updates) if n < updates else 1)

    named = {"start": low, "warmup_shape": "log"}
    return schedules.constant(peak, updates - 1 + rest, updates - 1, **named), peer


def axolotl_quadratic_warmup(peak, warmup, rest, share, small):  # noqa: ARG001
    def peer(n):
        if n < warmup:
            return peak * (n / warmup) ** 2
        return peak / 2 * (1 + math.cos(math.pi * (n - warmup) / rest))

    quadratic = {"shape": "minus_power", "power": 2}
    return schedules.cosine(peak, warmup + rest, warmup, warmup_shape=quadratic), peer


def axolotl_rex(peak, warmup, rest, share, small):  # noqa: ARG001
    def peer(n):
        if n < warmup:
            return peak * n / warmup
        left = (rest - (n - warmup)) / rest
        return peak * (share + (1 - share) * left / (0.1 + 0.9 * left))

    named = {"floor": share * peak, "decay": rest, "decay_shape": "rex", "beta": 0.9}
    return schedules.wsd(peak, warmup + rest, warmup, **named), peer


def rex_of_the_paper(peak, warmup, rest, share, small):  # noqa: ARG001
    def peer(n):
        return peak * (1 - n / rest) / (1 / 2 + 1 / 2 * (1 - n / rest))

    return schedules.wsd(peak, rest, decay=rest, decay_shape="rex"), peer


def timm_wsd_to_a_power(peak, warmup, rest, share, small):
    return timm_wsd(
        peak, warmup, rest, share, small, lambda t: 1 - t**small, "minus_power", power=small
    )


def timm_wsd_to_an_exponential(peak, warmup, rest, share, small):
    ratio = small / 10
    return timm_wsd(
        peak, warmup, rest, share, small,
        lambda t: (ratio**t - ratio) / (1 - ratio), "exponential_to_zero", ratio=ratio,
    )  # fmt: skip


def timm_wsd(peak, warmup, rest, share, small, left, shape, **parameters):
    decay, low = max(1, rest * small // 7), share * peak

    def peer(n):
        if n < warmup:
            return low / 2 + n * (peak - low / 2) / warmup
        return low + (peak - low) * left(max(0, n - warmup - (rest - decay)) / decay)

    named = {"start": low / 2, "floor": low, "decay": decay, "decay_shape": shape}
    return schedules.wsd(peak, warmup + rest, warmup, **named, **parameters), peer


def olmo_power(peak, warmup, rest, share, small):
    rise, exponent, decay = warmup + 1, -small / 7, max(1, rest * small // 10)
    horizon = rise + rest
    reached = peak * ((horizon - decay) / rise) ** exponent
    low = share * reached

    def peer(n):
        if n <= rise:
            return peak * n / rise
        if n >= horizon - decay:
            return low + (reached - low) * (horizon - n) / decay
        return peak * (n / rise) ** exponent

    named = {"floor": low, "decay": decay, "exponent": exponent}
    return schedules.power(peak, horizon, rise, **named), peer


def power_of_the_paper(peak, warmup, rest, share, small):  # noqa: ARG001
    # The batch size times a, for which the law meets the peak after `small` units of it.
    scale = peak / (warmup + small) ** -0.51

    def peer(n):
        return peak * n / warmup if n < warmup else min(peak, scale * n**-0.51 if n else peak)

    horizon = warmup + small + rest
    return schedules.power(peak, horizon, warmup, hold=small, decay=0), peer


def numpy_interp(peak, warmup, rest, share, small):
    positions = [0, small, small + warmup + 1, small + warmup + 1 + rest]
    values = [share * peak, peak, peak, peak / small]

    def peer(n):
        return float(np.interp(n, positions, values))

    return schedules.piecewise(zip(positions, values, strict=True)), peer


def torch_multistep_as_points(peak, warmup, rest, share, small):
    milestones = [small, small + warmup + 1, small + warmup + 1 + rest]
    peer = of_torch("MultiStepLR", peak, milestones=milestones, gamma=share)
    values = [peak * share**count for count in range(4)]
    return schedules.piecewise(zip([0, *milestones], values, strict=True), "step"), peer


def torch_one_cycle(peak, warmup, rest, share, small):  # noqa: ARG001
    total, start = rest + 30, 0.05 + 0.9 * share
    theirs, ours = [("cos", "cosine"), ("linear", "linear")][small % 2]
    named = {"total_steps": total, "anneal_strategy": theirs, "div_factor": float(small)}
    peer = of_torch_by_position("OneCycleLR", peak, max_lr=peak, pct_start=start, **named)
    begin = peak / small
    rise = start * total - 1
    return inspect.unwrap(schedules.one_cycle)(peak, total - 1, rise, begin, shape=ours), peer


def torch_one_cycle_defaults(peak, warmup, rest, share, small):  # noqa: ARG001
    peer = of_torch_by_position("OneCycleLR", peak, max_lr=peak, total_steps=rest + 4)
    return schedules.one_cycle(peak, rest + 3), peer


def torch_one_cycle_of_three_phases(peak, warmup, rest, share, small):
    total, start = rest + 30, 0.05 + 0.4 * share
    theirs, ours = [("cos", "cosine"), ("linear", "linear")][small % 2]
    named = {"total_steps": total, "anneal_strategy": theirs, "three_phase": True}
    given = {"pct_start": start, "final_div_factor": warmup + 1.0}
    peer = of_torch_by_position("OneCycleLR", peak, max_lr=peak, **named, **given)
    named = {"floor": peak / 25 / (warmup + 1), "shape": ours, "three_phase": True}
    return inspect.unwrap(schedules.one_cycle)(peak, total - 1, start * total - 1, **named), peer


def torch_cyclic(peak, warmup, rest, share, small):
    mode, decay = [("triangular", 1.0), ("triangular2", 0.5)][small % 2]
    up, down = warmup + 1, None if small == 1 else small
    steps = {"step_size_up": up, "step_size_down": down, "base_lr": share * peak}
    peer = of_torch_by_position("CyclicLR", peak, max_lr=peak, mode=mode, **steps)
    named = {"up": up, "down": down, "cycle_decay": decay}
    return schedules.cyclic(peak, rest, floor=share * peak, **named), peer


PAIRS = [
    transformers_constant,
    torch_linear_warmup,
    torch_constant,
    transformers_linear,
    torch_linear,
    transformers_cosine,
    transformers_cosine_with_floor,
    torch_cosine,
    transformers_restarts,
    torch_restarts,
    transformers_polynomial,
    torch_polynomial,
    torch_exponential,
    torch_multistep,
    torch_step,
    transformers_inverse_sqrt,
    inverse_sqrt_with_floor,
    noam_of_the_paper,
    fairseq_tri_stage,
    transformers_wsd,
    wsd_s_of_the_paper,
    infinite_of_the_paper,
    deepspeed_warmup,
    axolotl_quadratic_warmup,
    axolotl_rex,
    rex_of_the_paper,
    timm_wsd_to_a_power,
    timm_wsd_to_an_exponential,
    olmo_power,
    power_of_the_paper,
    numpy_interp,
    torch_multistep_as_points,
    torch_one_cycle,
    torch_one_cycle_defaults,
    torch_one_cycle_of_three_phases,
    torch_cyclic,
]


def apart(pair, peak, *numbers):
    """Return the positions up to the horizon at which a schedule and its peer differ."""
    schedule, peer, *elsewhere = pair(peak, *numbers)
    positions = set(range(math.ceil(schedule.horizon) + 1)).difference(*elsewhere)
    pairs = {position: (schedule(position), peer(position)) for position in sorted(positions)}
    return {at: two for at, two in pairs.items() if not abs(two[0] - two[1]) <= CLOSE * peak}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
@settings(max_examples=100, deadline=None)
@example(1.0, 10, 100, 0.0, 1)
@example(1.0, 0, 100, 0.0, 2)
@example(3e-4, 100, 900, 0.1, 3)
@example(6e-4, 37, 163, 0.25, 4)
@example(1e-6, 1, 1, 0.5, 5)
@example(10.0, 0, 1, 1.0, 6)
@example(0.1, 50, 49, 0.9, 7)
@example(0.1, 3, 2000, 0.01, 1)
@example(7.0, 7, 7, 0.7, 7)
@given(
    peak=st.floats(1e-6, 10),
    warmup=st.integers(0, 60),
    rest=st.integers(1, 240),
    share=st.floats(0, 1),
    small=st.integers(1, 7),
)
def test_a_schedule_is_where_its_peer_is_at_every_position(pair, peak, warmup, rest, share, small):
    assert {} == apart(pair, peak, warmup, rest, share, small)


LEGAL = {
    "constant": {"peak": 1.0, "horizon": 110, "warmup": 10},
    "linear": {"peak": 1.0, "horizon": 110, "warmup": 10, "floor": 0.5},
    "cosine": {"peak": 1.0, "horizon": 110, "warmup": 10, "floor": 0.5},
    "cosine_with_restarts": {"peak": 1.0, "horizon": 110, "warmup": 10, "cycles": 2},
    "polynomial": {"peak": 1.0, "horizon": 110, "warmup": 10, "power": 2},
    "exponential": {"peak": 1.0, "horizon": 110, "warmup": 10, "floor": 0.25},
    "multistep": {"peak": 1.0, "horizon": 110, "warmup": 10, "milestones": [60], "gamma": 0.5},
    "inverse_sqrt": {"peak": 1.0, "horizon": 90, "warmup": 10, "floor": 0.4},
    "noam": {"peak": 1.0, "horizon": 90, "warmup": 10},
    "tri_stage": {"peak": 1.0, "horizon": 120, "warmup": 10, "hold": 10},
    "wsd": {"peak": 1.0, "horizon": 110, "warmup": 10, "decay": 100},
    "wsd_s": {"peak": 1.0, "horizon": 110, "warmup": 10, "decay": 40, "decay_ends": [60]},
    "one_cycle": {"peak": 1.0, "horizon": 110, "warmup": 10, "start": 0.0, "floor": 0.5},
    "cyclic": {"peak": 1.0, "horizon": 50, "up": 10, "floor": 0.2},
    "infinite": {
        "peak": 1.0,
        "horizon": 210,
        "warmup": 10,
        "floor": 0.125,
        "constant": 0.5,
        "cooldown": 100,
        "decay": 40,
    },
    "power": {"peak": 1.0, "horizon": 200, "warmup": 10, "decay": 40, "exponent": -0.5},
    "piecewise": {"points": [(0, 0.0), (10, 1.0), (60, 0.5)], "horizon": 110},
}

EXPECTED = {
    "constant": {0: 0.0, 5: 0.5, 10: 1.0, 60: 1.0, 110: 1.0, 111: 1.0},
    "linear": {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.75, 110: 0.5, 111: 0.5},
    "cosine": {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.75, 110: 0.5, 111: 0.5},
    "cosine_with_restarts": {0: 0.0, 10: 1.0, 35: 0.5, 60: 1.0, 85: 0.5, 110: 0.0, 111: 0.0},
    "polynomial": {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.25, 110: 0.0, 111: 0.0},
    "exponential": {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.5, 110: 0.25, 111: 0.25},
    "multistep": {0: 0.0, 10: 1.0, 59: 1.0, 60: 0.5, 110: 0.5, 111: 0.5},
    "inverse_sqrt": {0: 0.0, 10: 1.0, 40: 0.5, 63: 0.4, 90: 0.4, 91: 0.4},
    "noam": {0: 0.0, 5: 0.5, 10: 1.0, 40: 0.5, 90: 1 / 3, 91: 1 / 3},
    "tri_stage": {0: 0.0, 10: 1.0, 20: 1.0, 70: 0.1, 120: 0.01, 121: 0.01},
    "wsd": {0: 0.0, 10: 1.0, 35: 0.5, 74: 0.2, 110: 0.0, 111: 0.0},
    "wsd_s": {0: 0.0, 10: 1.0, 20: 1.0, 30: 0.5, 60: 1.0, 70: 1.0, 80: 0.5, 110: 0.0, 111: 0.0},
    "one_cycle": {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.75, 110: 0.5, 111: 0.5},
    "cyclic": {0: 0.2, 5: 0.6, 10: 1.0, 15: 0.6, 20: 0.2, 45: 0.6, 50: 1.0, 51: 1.0},
    "infinite": {0: 0.0, 10: 1.0, 60: 0.75, 110: 0.5, 170: 0.5, 190: 0.25, 210: 0.125, 211: 0.125},
    "power": {0: 0.0, 5: 0.5, 10: 1.0, 40: 0.5, 160: 0.25, 180: 0.125, 200: 0.0, 201: 0.0},
    "piecewise": {0: 0.0, 5: 0.5, 10: 1.0, 35: 0.75, 60: 0.5, 110: 0.5, 111: 0.5},
}

NAMES = sorted(schedules.NAMED)
WITH_WARMUP = sorted(set(NAMES) - {"cyclic", "piecewise"})
WITH_WARMUP_SHAPE = sorted(set(WITH_WARMUP) - {"one_cycle"})
BOUNDED = ["inverse_sqrt", "noam", "power"]
"""Those whose floor is a lower bound."""
WITH_FLOOR = sorted(set(NAMES) - {"constant", "multistep", "piecewise"})


def build(name, **changes):
    return schedules.build(name, **{**LEGAL[name], **changes})


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_has_the_values_worked_out_by_hand(name):
    schedule = build(name)
    found = {position: schedule(position) for position in EXPECTED[name]}
    assert EXPECTED[name] == pytest.approx(found, rel=1e-14, abs=1e-16)


@pytest.mark.parametrize("name", NAMES)
def test_the_horizon_is_the_one_that_was_passed(name):
    assert LEGAL[name]["horizon"] == build(name).horizon


@pytest.mark.parametrize("name", sorted({*WITH_FLOOR} & {*WITH_WARMUP} - {"inverse_sqrt", "noam"}))
def test_start_peak_and_floor_are_exactly_what_was_passed(name):
    given = {"peak": 0.3, "warmup": 7, "start": 0.1 / 3, "floor": 0.1}
    given |= {"constant": 0.2} if name == "infinite" else {}
    schedule = build(name, **given)
    found = [schedule(position) for position in (0, 7, schedule.horizon, schedule.horizon + 1)]
    assert [0.1 / 3, 0.3, 0.1, 0.1] == found


@pytest.mark.parametrize("name", WITH_WARMUP)
def test_a_warmup_may_end_between_two_positions(name):
    changes = {"milestones": [60.5]} if name == "multistep" else {}
    changes |= {"decay_ends": []} if name == "wsd_s" else {"decay": 40} if name == "wsd" else {}
    schedule = build(name, warmup=37.5, start=0.25, **changes)
    assert 1.0 == schedule(37.5)
    if name != "one_cycle":  # it rises along half a cosine
        assert 0.25 + 0.75 * 30 / 37.5 == pytest.approx(schedule(30), rel=1e-15)


@pytest.mark.parametrize("name", sorted(set(WITH_WARMUP) - {"noam", "power"}))
def test_without_a_warmup_a_schedule_starts_at_the_peak(name):
    assert 1.0 == build(name, warmup=0, start=0.25)(0)


FILLED_BY_THE_WARMUP = sorted(set(WITH_WARMUP) - {"wsd", "wsd_s", "infinite"})
"""Those without a length that must have some room beside the warmup."""


@pytest.mark.parametrize("name", FILLED_BY_THE_WARMUP)
def test_a_warmup_up_to_the_horizon_leaves_the_value_at_the_peak(name):
    no_room = {"multistep": {"milestones": []}, "tri_stage": {"hold": 0}, "power": {"decay": 0}}
    changes = no_room.get(name, {})
    schedule = build(name, warmup=40, horizon=40, **changes)
    assert [1.0, 1.0] == [schedule(40), schedule(41)]
    assert 1.0 > schedule(39)


@pytest.mark.parametrize("name", WITH_FLOOR)
def test_a_floor_at_the_peak_is_legal(name):
    changes = {"constant": 1.0} if name == "infinite" else {}
    schedule = build(name, floor=1.0, **changes)
    assert {1.0} == {schedule(position) for position in range(10, 130)}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"infinite", "noam"}))
def test_a_horizon_of_one_unit_is_legal(name):
    changes = {
        "wsd": {"decay": 1},
        "wsd_s": {"decay": 1, "decay_ends": []},
        "tri_stage": {"hold": 0},
        "power": {"decay": 0, "hold": 1},
        "piecewise": {"points": [(0, 1.0)]},
    }
    own = {"cyclic": {}, "piecewise": {}, "multistep": {"warmup": 0, "milestones": [1]}}
    own = own.get(name, {"warmup": 0})
    schedule = build(name, horizon=1, **changes.get(name, {}), **own)
    assert 1 == schedule.horizon
    assert schedule(1) == schedule(2)


def test_a_constant_without_a_horizon_ends_with_its_warmup():
    assert Schedule([Phase("linear", 10, 1.0, 0.0)]) == schedules.constant(1.0, warmup=10)
    assert 1.0 == schedules.constant(1.0)(0) == schedules.constant(1.0)(10**9)


def test_equal_milestones_count_twice():
    schedule = schedules.multistep(1.0, 10, milestones=[5, 5, 10], gamma=0.5)
    assert [1.0, 0.25, 0.25, 0.125] == [schedule(position) for position in (4, 5, 9, 10)]


def test_each_cycle_is_as_many_times_as_long_as_the_one_before():
    schedule = schedules.cosine_with_restarts(1.0, 71, warmup=1, cycles=3, growth=2)
    assert (0, 1, 11, 31) == schedule.boundaries
    assert [1.0] * 3 == [schedule(join) for join in (1, 11, 31)]


def test_a_decay_shape_takes_parameters():
    schedule = schedules.wsd(1.0, 100, decay=10, decay_shape="polynomial", power=2)
    assert 0.25 == schedule(95)
    named = {"peak": 1.0, "horizon": 100, "decay": 10, "decay_shape": "polynomial", "power": 2}
    assert schedule == schedules.build("wsd", **named)
    assert 0.25 == schedules.build("wsd_s", decay_ends=[50], **named)(45)


def test_a_decay_shape_of_power_takes_parameters():
    named = {"decay": 40, "exponent": -0.5, "decay_shape": "polynomial", "power": 2}
    assert 0.0625 == schedules.power(1.0, 200, 10, **named)(180)


def test_the_floor_of_power_is_a_lower_bound():
    schedule = build("power", floor=0.5)
    assert [1.0, 0.5, 0.5, 0.5] == [schedule(at) for at in (10, 40, 150, 200)]
    assert 0.1 < build("power", floor=0.1)(159)


def test_power_holds_its_peak_before_it_falls():
    schedule = build("power", hold=30)
    assert [1.0, 1.0, 0.5] == [schedule(at) for at in (10, 40, 160)]
    assert 1.0 == build("power", warmup=0, hold=30)(0)


def test_two_points_at_one_position_are_a_jump():
    schedule = schedules.piecewise([(0, 1.0), (10, 0.5), (10, 2.0), (20, 1.0), (20, 3.0)])
    assert [1.0, 0.55, 2.0, 1.5, 1.1, 3.0, 3.0] == pytest.approx(
        [schedule(at) for at in (0, 9, 10, 15, 19, 20, 21)], rel=1e-15
    )


def test_points_of_a_step_are_a_table_of_stages():
    schedule = schedules.piecewise([(0, 4.0), (10, 8.0), (20, 16.0)], "step")
    assert [4.0, 4.0, 8.0, 8.0, 16.0] == [schedule(at) for at in (0, 9, 10, 19, 20)]


def test_a_shape_of_points_takes_parameters():
    points = [(0, 0.0), (4, 1.0), (8, 0.0)]
    schedule = schedules.piecewise(points, "minus_power", power=2)
    assert [0.25, 1.0, 0.75] == [schedule(at) for at in (2, 4, 6)]
    assert schedule == schedules.build("piecewise", points=points, shape="minus_power", power=2)


def test_a_parameter_is_checked_where_no_two_points_differ():
    with pytest.raises(ConfigError, match=r"'exponant' is not .*did you mean 'exponent'"):
        schedules.piecewise([(0, 1.0), (9, 1.0)], "cosine", exponant=2)


def test_equal_points_are_joined_by_a_constant_that_an_extension_lengthens():
    schedule = schedules.piecewise([(0, 0.0), (10, 1.0), (50, 1.0), (60, 0.0)])
    longer = schedule.extend(20, 100)
    assert [1.0, 0.5, 0.0] == [longer(at) for at in (90, 95, 100)]


@pytest.mark.parametrize(
    "points", [iter([(0, 1), (4, 3)]), np.array([[0, 1], [4, 3]]), torch.tensor([[0, 1], [4, 3]])]
)
def test_points_may_be_an_iterator_or_an_array(points):
    assert 2.0 == schedules.piecewise(points)(2)


@pytest.mark.parametrize("points", [np.array(3.0), torch.tensor(3.0)])
def test_an_array_without_dimensions_is_no_list_of_points(points):
    with pytest.raises(ConfigError, match=r"^points=.*must be a list of pairs"):
        schedules.piecewise(points)


@pytest.mark.parametrize("name", WITH_WARMUP_SHAPE)
def test_a_warmup_takes_another_shape_and_parameters(name):
    cosine = build(name, start=0.2, warmup_shape="cosine")
    quadratic = build(name, warmup_shape={"shape": "minus_power", "power": 2})
    assert [0.2, 0.6, 1.0] == pytest.approx([cosine(at) for at in (0, 5, 10)], rel=1e-15)
    assert [0.0, 0.25, 1.0] == [quadratic(at) for at in (0, 5, 10)]


@pytest.mark.parametrize("name", WITH_WARMUP_SHAPE)
def test_the_shape_of_a_warmup_changes_nothing_after_it(name):
    schedule, straight = build(name, warmup_shape="minus_sqrt"), build(name)
    assert straight.phases[1:] == schedule.phases[1:]


@pytest.mark.parametrize("name", WITH_WARMUP_SHAPE)
@pytest.mark.parametrize(
    "choice, message",
    [
        ("cosin", "warmup_shape='cosin': must be one of .*did you mean 'cosine'"),
        ("exponential", r"warmup_shape='exponential': .* start=0.0: must be greater than 0"),
        ("constant", "warmup_shape='constant': .* must start and end at one value"),
        ("minus_power", "warmup_shape='minus_power': shape 'minus_power' needs power"),
        (None, "warmup_shape=None: must be one of"),
        (["cosine"], r"warmup_shape=\['cosine'\]: must be one of"),
        ({}, r"warmup_shape=\{\}: must have the key 'shape'"),
        ({"power": 2}, r"warmup_shape=\{'power': 2\}: must have the key 'shape'"),
        ({"shape": "rexx"}, r"warmup_shape\['shape'\]='rexx': .*did you mean 'rex'"),
        ({"shape": "rex", "steps": 3}, "warmup_shape: 'steps' is not a parameter of shape 'rex'"),
        ({"shape": "rex", 3: 3}, "warmup_shape: 3 is not a parameter of shape 'rex'"),
        ({"shape": "rex", "beta": 2}, "warmup_shape: beta=2: must be less than 1"),
    ],
    ids=repr,
)
def test_an_illegal_shape_of_a_warmup_is_refused_by_name(name, choice, message):
    with pytest.raises(ConfigError, match=rf"^{name}: {message}"):
        build(name, warmup_shape=choice)


def test_the_shape_of_a_warmup_is_checked_without_a_warmup():
    with pytest.raises(ConfigError, match=r"^warmup_shape='cosin': must be one of"):
        schedules.cosine(1.0, 100, warmup_shape="cosin")


def test_the_floor_of_tri_stage_is_one_percent_of_the_peak_by_default():
    assert 0.02 == schedules.tri_stage(2.0, 100)(100)
    assert 0.5 == schedules.tri_stage(2.0, 100, floor=0.5)(100)


def test_the_last_value_of_cyclic_is_the_one_where_the_horizon_cuts_it():
    schedule = schedules.cyclic(1.0, 23, up=4, down=16)
    assert [0.75, 0.75] == [schedule(23), schedule(24)]


def test_a_cooldown_and_a_decay_take_other_shapes():
    named = {"constant": 0.5, "cooldown": 40, "decay": 20}
    schedule = schedules.infinite(
        1.0, 100, **named, cooldown_shape="linear", decay_shape="minus_sqrt"
    )
    assert [1.0, 0.75, 0.5, 0.25, 0.0] == [schedule(at) for at in (0, 20, 60, 85, 100)]


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_is_data_that_builds_it_again(name):
    schedule = build(name)
    assert schedule == Schedule.from_dict(schedule.to_dict())


NUMBERS = [
    (name, argument)
    for name in NAMES
    for argument in ("peak", "horizon", "warmup", "start", "floor")
    if argument in inspect.signature(schedules.NAMED[name]).parameters
]


@pytest.mark.parametrize("name, argument", NUMBERS)
def test_an_illegal_number_is_refused_by_name(name, argument):
    with pytest.raises(ConfigError, match=rf"^{name}: {argument}=-1.0: must be a finite number"):
        build(name, **{argument: -1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, "1", True, None, [1.0]], ids=repr)
@pytest.mark.parametrize("argument", ["peak", "horizon", "warmup", "start", "floor"])
def test_what_is_no_finite_number_from_0_is_refused(argument, value):
    with pytest.raises(ConfigError, match=rf"^linear: {argument}=.*must be a"):
        build("linear", **{argument: value})


def test_without_a_horizon_an_illegal_warmup_is_still_named():
    with pytest.raises(ConfigError, match=r"^warmup=-1: must be a finite number"):
        schedules.constant(1.0, warmup=-1)


@pytest.mark.parametrize("name", WITH_WARMUP)
def test_a_warmup_beyond_the_horizon_is_refused(name):
    horizon = LEGAL[name]["horizon"]
    with pytest.raises(
        ConfigError, match=rf"^{name}: warmup=999: must be at most horizon={horizon}"
    ):
        build(name, warmup=999)


@pytest.mark.parametrize("name", WITH_WARMUP)
def test_a_start_above_the_peak_is_refused(name):
    with pytest.raises(ConfigError, match=rf"^{name}: start=2.0: must be at most peak=1.0"):
        build(name, start=2.0)


@pytest.mark.parametrize("name", sorted({*WITH_FLOOR} - {*BOUNDED, "cyclic"}))
def test_a_floor_above_the_peak_is_legal_and_linted(name):
    schedule = build(name, floor=2.0)
    assert 2.0 == schedule(LEGAL[name]["horizon"])
    assert any("is the floor above the peak" in str(finding) for finding in schedule.lint())


@pytest.mark.parametrize("name", BOUNDED)
def test_a_lower_bound_above_the_peak_is_refused(name):
    with pytest.raises(ConfigError, match=rf"^{name}: floor=2.0: must be at most peak=1.0"):
        build(name, floor=2.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_horizon_of_zero_is_refused(name):
    rule = "warmup=10: must be at most horizon=0" if name == "constant" else "horizon=0: must be"
    with pytest.raises(ConfigError, match=f"^{name}: {rule}"):
        build(name, horizon=0)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("noam", {"warmup": 0}, "warmup=0: must be greater than 0"),
        ("noam", {"peak": 0.0}, "peak=0.0: must be greater than 0"),
        ("exponential", {"peak": 0.0, "start": 0}, "peak=0.0: must be greater than 0"),
        ("exponential", {"floor": 0.0}, "floor=0.0: must be greater than 0"),
        ("tri_stage", {"floor": 0.0}, "floor=0.0: must be greater than 0"),
        ("tri_stage", {"hold": 111}, "hold=111: must be at most horizon - warmup = 110"),
        ("polynomial", {"power": 0}, "power=0: must be greater than 0"),
        ("inverse_sqrt", {"timescale": 0}, "timescale=0: must be greater than 0"),
        ("wsd", {"decay": 101}, "decay=101: must be at most horizon - warmup = 100"),
        ("wsd", {"decay": 0}, "decay=0: must be greater than 0"),
        ("wsd", {"decay_shape": "minus-sqrt"}, "decay_shape=.*did you mean 'minus_sqrt'"),
        ("wsd", {"decay_shape": "exponential"}, "floor=0.0: .*pass floor= or another decay_shape"),
        ("wsd_s", {"decay": 101}, "decay=101: must be at most horizon - warmup = 100"),
        (
            "wsd_s",
            {"decay_ends": [40]},
            r"decay_ends=\[40\]: decay=40 does not fit between positions 10 and 40",
        ),
        (
            "wsd_s",
            {"decay_ends": [60, 60]},
            "decay_ends=.*: decay=40 does not fit between positions 60 and 60",
        ),
        ("wsd_s", {"decay_ends": [80, 60]}, r"decay_ends=\[80, 60\]: must be in ascending order"),
        ("wsd_s", {"decay_ends": [111]}, "decay_ends=.*at most horizon=110"),
        (
            "wsd_s",
            {"decay_ends": [110]},
            "decay_ends=.*: decay=40 does not fit between positions 110 and 110",
        ),
        ("wsd_s", {"decay_ends": 60}, "decay_ends=60: must be a list of positions"),
        ("wsd_s", {"decay_ends": [-1]}, r"decay_ends\[0\]=-1: must be a finite number >= 0"),
        ("multistep", {"milestones": [60, 50]}, r"milestones=\[60, 50\]: must be in ascending"),
        ("multistep", {"milestones": [10, 50]}, "milestones=.*: must be after warmup=10"),
        ("multistep", {"milestones": [111]}, "milestones=.*at most horizon=110"),
        ("multistep", {"milestones": "60"}, "milestones='60': must be a list of positions"),
        ("multistep", {"gamma": 1.5}, "gamma=1.5: must be at most 1"),
        ("cosine_with_restarts", {"cycles": 0}, "cycles=0: must be from 1 to 100,000"),
        ("cosine_with_restarts", {"cycles": 1.5}, "cycles=1.5: must be a whole number"),
        ("cosine_with_restarts", {"growth": 0}, "growth=0: must be greater than 0"),
        ("cosine_with_restarts", {"growth": 1e200, "cycles": 3}, r"growth=1e\+200: .*cycles=3"),
        ("one_cycle", {"shape": "cos"}, "shape='cos': must be one of 'cosine', 'linear'"),
        ("one_cycle", {"three_phase": 1}, "three_phase=1: must be True or False"),
        ("one_cycle", {"three_phase": True, "warmup": 60}, "warmup=60: must be at most half"),
        ("one_cycle", {"three_phase": True, "warmup": 0}, "warmup=0: must be greater than 0"),
        ("one_cycle", {"horizon": 2, "warmup": None}, "horizon=2: .*pass warmup"),
        ("cyclic", {"up": 0}, "up=0: must be greater than 0"),
        ("cyclic", {"down": 0}, "down=0: must be greater than 0"),
        ("cyclic", {"cycle_decay": 2}, "cycle_decay=2.0: must be at most 1"),
        ("cyclic", {"horizon": 10**9, "up": 1}, "horizon=1000000000: .*50,000 cycles of 2 units"),
        ("infinite", {"constant": 2.0}, "constant=2.0: must be at most peak=1.0"),
        ("infinite", {"floor": 0.0}, "floor=0.0: .*pass floor= or another decay_shape"),
        ("infinite", {"cooldown": 201}, "cooldown=201: must be at most horizon - warmup = 200"),
        ("infinite", {"decay": 101}, "decay=101: must be at most .* - cooldown = 100"),
        ("infinite", {"cooldown_shape": "cosin"}, "cooldown_shape=.*did you mean 'cosine'"),
        ("power", {"peak": 0.0}, "peak=0.0: must be greater than 0"),
        ("power", {"warmup": 0}, r"warmup \+ hold=0: must be greater than 0"),
        ("power", {"hold": 191}, "hold=191: must be at most horizon - warmup = 190"),
        ("power", {"hold": 20, "decay": 171}, "decay=171: must be at most .* - hold = 170"),
        ("power", {"exponent": 0.5}, "exponent=0.5: must be less than 0, such as -0.51"),
        ("power", {"exponent": math.nan}, "exponent=nan: must be a finite number"),
        ("power", {"exponent": -(10**400)}, "exponent=.*: must be a finite number"),
        ("power", {"exponent": "b"}, "exponent='b': must be a number"),
        (
            "power",
            {"decay_shape": "exponential"},
            "floor=0.0: .*pass floor= or another decay_shape",
        ),
        ("piecewise", {"points": []}, "points: there are 0; must be from 1 to 100,000"),
        ("piecewise", {"points": 3}, "points=3: must be a list of pairs of position and value"),
        ("piecewise", {"points": {0: 1}}, r"points=\{0: 1\}: must be a list of pairs"),
        ("piecewise", {"points": "ab"}, "points='ab': must be a list of pairs"),
        ("piecewise", {"points": [1, 2]}, r"points\[0\]=1: must be a pair"),
        ("piecewise", {"points": ["ab"]}, r"points\[0\]='ab': must be a pair"),
        ("piecewise", {"points": [(0, 1, 2)]}, r"points\[0\]=\(0, 1, 2\): must be a pair"),
        ("piecewise", {"points": [(-1, 1)]}, r"points\[0\]: position=-1: must be a finite number"),
        ("piecewise", {"points": [(0, -1)]}, r"points\[0\]: value=-1: must be a finite number"),
        ("piecewise", {"points": [(1, 1)]}, r"points\[0\]=\(1, 1.0\): must be at position 0"),
        (
            "piecewise",
            {"points": [(0, 1), (9, 1), (8, 1)]},
            r"points\[2\]=\(8, 1.0\): must be after position 9 \(for a jump",
        ),
        ("piecewise", {"points": [(0, 1), (0, 2)]}, r"points\[1\]=.*: must be after position 0"),
        (
            "piecewise",
            {"points": [(0, 1), (9, 1), (9, 2), (9, 3)]},
            r"points\[3\]=\(9, 3.0\): must be after position 9",
        ),
        ("piecewise", {"horizon": 59}, "horizon=59: must be at least 60, the last point's"),
        ("piecewise", {"shape": "cosin"}, "shape='cosin': .*did you mean 'cosine'"),
        ("piecewise", {"power": 2}, "'power' is not known"),
        ("piecewise", {"shape": "exponential"}, r"phases\[0\] \(exponential\): start=0.0: must be"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(name, changes, message):
    with pytest.raises(ConfigError, match=rf"^{name}: {message}"):
        build(name, **changes)


def test_an_unknown_name_lists_the_known_and_the_near_miss():
    with pytest.raises(ConfigError, match=r"^schedule='cosin'.*'piecewise'; did you mean 'cosine'"):
        schedules.build("cosin", peak=1.0)


@pytest.mark.parametrize("name", [None, 3, ["cosine"], ""], ids=repr)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ConfigError, match=r"^schedule=.*must be one of 'constant'"):
        schedules.build(name)


@pytest.mark.parametrize(
    "name, argument, meant",
    [
        ("linear", "warmpu", "warmup"),
        ("wsd", "decay_shap", "decay_shape"),
        ("cyclic", "cycle_dekay", "cycle_decay"),
    ],
)
def test_an_unknown_argument_names_the_near_miss(name, argument, meant):
    rule = rf"^{name}: '{argument}' is not known; .*did you mean '{meant}'"
    with pytest.raises(ConfigError, match=rule):
        build(name, **{argument: 1})


def test_a_parameter_of_another_shape_is_unknown():
    with pytest.raises(ConfigError, match=r"^wsd: 'power' is not known"):
        build("wsd", power=2)


@pytest.mark.parametrize(
    "name, lacks",
    [("linear", "horizon"), ("multistep", "milestones"), ("infinite", "constant")]
    + [("power", "decay"), ("piecewise", "points")],
)
def test_a_missing_argument_is_named(name, lacks):
    arguments = {argument: value for argument, value in LEGAL[name].items() if argument != lacks}
    with pytest.raises(ConfigError, match=rf"^{name}: lacks {lacks}$"):
        schedules.build(name, **arguments)


def test_what_is_common_is_called_the_same_in_every_schedule():
    for name in WITH_WARMUP:
        assert ["peak", "horizon"] == list(inspect.signature(schedules.NAMED[name]).parameters)[:2]


def test_the_page_names_every_schedule():
    page = PAGE.read_text()
    assert [] == [name for name in NAMES if f"| `{name}` |" not in page]


def test_a_cycle_that_ends_at_the_horizon_is_whole():
    assert [None, None] == [phase.until for phase in schedules.cyclic(1.0, 20, up=10).phases]


def test_without_a_warmup_inverse_sqrt_falls_over_ten_thousand_units():
    schedule = schedules.inverse_sqrt(1.0, 90_000)
    values = [schedule(position) for position in (0, 30_000, 80_000)]
    assert pytest.approx([1.0, 0.5, 1 / 3], rel=1e-12) == values
