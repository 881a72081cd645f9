"""Equal bits: our values are upstream's, for every legal config and group."""

from __future__ import annotations

import pytest

from dist_sched import OptimizerParamScheduler
from helpers import CONFIG, adamw

STYLES = ["constant", "linear", "cosine", "inverse-square-root", "WSD"]
DRAWS = range(12)


def optimizer(*groups):
    return adamw(*groups, lr=1e-3)


def bits(scheduler):
    """Return lr and weight decay of every group as texts that are equal only for equal bits."""
    return [
        (float(group["lr"]).hex(), float(group["weight_decay"]).hex())
        for group in scheduler.optimizer.param_groups
    ]


def sequence(scheduler, positions):
    values = []
    for position in positions:
        scheduler.num_steps = position
        scheduler.step(0)
        values.append((position, bits(scheduler)))
    return values


def in_both(upstream, config, positions, *groups, **ratios):
    theirs = sequence(upstream(optimizer(*groups), **config), positions)
    ours = sequence(OptimizerParamScheduler(optimizer(*groups), **config, **ratios), positions)
    return theirs, ours


@pytest.mark.parametrize("draw", DRAWS, indirect=True)
@pytest.mark.parametrize("style", STYLES)
def test_one_group_has_the_bits_of_upstream(upstream, style, draw):
    for _ in range(10):
        config = draw.config(style)
        theirs, ours = in_both(upstream, config, draw.positions(config))
        assert theirs == ours, config


@pytest.mark.parametrize("draw", DRAWS, indirect=True)
@pytest.mark.parametrize("style", STYLES)
def test_groups_with_bounds_and_multipliers_have_the_bits_of_megatron(megatron, style, draw):
    for _ in range(10):
        config = draw.config(style)
        groups = draw.bounds(config)
        theirs, ours = in_both(megatron, config, draw.positions(config), *groups)
        assert theirs == ours, config


@pytest.mark.parametrize("draw", DRAWS, indirect=True)
@pytest.mark.parametrize("style", STYLES)
def test_groups_with_their_own_values_have_the_bits_of_nemo(nemo, style, draw):
    groups = [
        {},
        {"weight_decay": 0.0},
        {"lr": 1e-2, "weight_decay": 0.3},
        {"lr": 0.0},
        {"lr": 5e-3, "lr_mult": 2.0, "wd_mult": 0.5},
        {"lr": 5e-3, "max_lr": 0.7},
        {"lr": 5e-3, "min_lr": 1e-6},
    ]
    for _ in range(10):
        config = draw.config(style)
        theirs, ours = in_both(nemo, config, draw.positions(config), *groups)
        assert theirs == ours, config


@pytest.mark.parametrize("draw", DRAWS, indirect=True)
@pytest.mark.parametrize("style", STYLES)
def test_groups_without_ratios_have_the_bits_of_megatron(megatron, style, draw):
    config = draw.config(style)
    groups = [{}, {"weight_decay": 0.0}, {"lr": 1e-2}]
    theirs, ours = in_both(
        megatron, config, draw.positions(config), *groups, keep_group_ratios=False
    )
    assert theirs == ours, config


@pytest.mark.parametrize("style", STYLES)
def test_every_position_of_a_short_run_has_the_bits_of_upstream(upstream, style):
    config = {
        "init_lr": 1e-5,
        "max_lr": 3e-4,
        "min_lr": 1e-5,
        "lr_warmup_steps": 20,
        "lr_decay_steps": 300,
        "lr_decay_style": style,
        "start_wd": 0.01,
        "end_wd": 0.1,
        "wd_incr_steps": 250,
        "wd_incr_style": "cosine",
        "wsd_decay_steps": 77,
        "lr_wsd_decay_style": "exponential",
    }
    theirs, ours = upstream(optimizer(), **config), OptimizerParamScheduler(optimizer(), **config)
    for _ in range(320):
        assert bits(theirs) == bits(ours)
        theirs.step(1)
        ours.step(1)


@pytest.mark.parametrize("draw", DRAWS, indirect=True)
def test_get_lr_and_get_wd_return_what_megatrons_do(megatron, draw):
    config = draw.config("cosine")
    theirs = megatron(optimizer(), **config)
    ours = OptimizerParamScheduler(optimizer(), **config)
    for position in draw.positions(config):
        theirs.num_steps = ours.num_steps = position
        for group in draw.bounds(config):
            assert theirs.get_lr(group) == ours.get_lr(group)
            assert theirs.get_wd(group) == ours.get_wd(group)
        assert theirs.get_wd() == ours.get_wd()


def test_the_end_of_the_weight_decays_rise_is_rounded_as_in_upstream(upstream):
    """At the end the interpolation is not quite `end_wd`; one unit later it is."""
    config = {**CONFIG, "start_wd": 0.061, "end_wd": 0.691, "wd_incr_steps": 10}
    theirs, ours = in_both(upstream, config, range(13))
    assert theirs == ours
    assert (0.6909999999999998).hex() == ours[10][1][0][1]
