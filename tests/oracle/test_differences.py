"""Where upstream is at fault and we differ on purpose: one test for each difference."""

from __future__ import annotations

import logging

import pytest
import torch

from dist_sched import ConfigError, OptimizerParamScheduler, ReconcileError
from helpers import CONFIG, adamw, held


def both(upstream, **changes):
    config = {**CONFIG, **changes}
    return upstream(adamw(), **config), OptimizerParamScheduler(adamw(), **config)


def test_an_unknown_style_fails_at_construction_not_after_the_warmup(upstream):
    theirs = upstream(adamw(), **{**CONFIG, "lr_decay_style": "cosinus"})
    theirs.step(10)
    with pytest.raises(Exception, match="not supported"):
        theirs.step(1)
    with pytest.raises(ConfigError, match=r"lr_decay_style='cosinus'.*did you mean 'cosine'"):
        OptimizerParamScheduler(adamw(), **{**CONFIG, "lr_decay_style": "cosinus"})


def test_an_unknown_wsd_tail_fails_at_construction_not_in_the_tail(upstream):
    config = {
        **CONFIG,
        "lr_decay_style": "WSD",
        "wsd_decay_steps": 20,
        "lr_wsd_decay_style": "lin",
    }
    theirs = upstream(adamw(), **config)
    theirs.step(90)
    with pytest.raises(AssertionError):
        theirs.step(1)
    with pytest.raises(ConfigError, match="lr_wsd_decay_style='lin'"):
        OptimizerParamScheduler(adamw(), **config)


def test_no_weight_decay_steps_means_end_wd_not_a_division_by_zero(upstream):
    with pytest.raises(ZeroDivisionError):
        upstream(adamw(), **{**CONFIG, "wd_incr_steps": 0})
    ours = OptimizerParamScheduler(adamw(), **{**CONFIG, "wd_incr_steps": 0})
    assert [0.1] == held(ours, "weight_decay")


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_decay_steps": float("inf")},
        {"lr_warmup_steps": -1},
        {"wd_incr_steps": -1},
        {"wd_incr_style": "cosinus"},
        {"end_wd": float("inf")},
    ],
    ids=str,
)
def test_an_illegal_entry_fails_at_construction(upstream, changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        OptimizerParamScheduler(adamw(), **{**CONFIG, **changes})
    if changes.keys() <= {"wd_incr_style"}:
        with pytest.raises(Exception, match="not supported"):
            upstream(adamw(), **{**CONFIG, **changes})
    else:
        upstream(adamw(), **{**CONFIG, **changes})


def test_our_state_has_one_key_more(upstream):
    theirs, ours = (set(scheduler.state_dict()) for scheduler in both(upstream))
    assert {"dist_sched"} == ours - theirs
    assert set() == theirs - ours


@pytest.mark.parametrize("changes", [{"init_lr": 0.5}, {"max_lr": 1.0, "wsd_decay_steps": 50}])
def test_what_upstreams_state_lacks_is_restored_and_compared_too(megatron, changes):
    wsd = {"lr_decay_style": "WSD", "lr_wsd_decay_style": "linear", "wsd_decay_steps": 20}
    saved_theirs, saved_ours = both(megatron, **wsd)
    theirs, ours = both(megatron, **{**wsd, **changes})
    theirs.load_state_dict(saved_theirs.state_dict())
    ours.load_state_dict(saved_ours.state_dict())
    key, value = list(changes.items())[-1]
    assert value == getattr(theirs, key)
    assert {**wsd, **CONFIG}.get(key) == getattr(ours, key) or 20 == getattr(ours, key)


def test_strict_refuses_a_changed_wsd_tail_that_upstream_accepts(upstream):
    wsd = {"lr_decay_style": "WSD", "lr_wsd_decay_style": "linear"}
    strict = {"use_checkpoint_opt_param_scheduler": False}
    saved_theirs, saved_ours = both(upstream, **wsd, wsd_decay_steps=20)
    theirs, ours = both(upstream, **wsd, **strict, wsd_decay_steps=100)
    theirs.load_state_dict(saved_theirs.state_dict())
    with pytest.raises(ReconcileError, match=r"wsd_decay_steps is 100 .* 20"):
        ours.load_state_dict(saved_ours.state_dict())


def test_weight_decay_is_right_for_the_first_update_after_a_resume(megatron):
    saved_theirs, saved_ours = both(megatron)
    saved_theirs.step(50)
    saved_ours.step(50)
    theirs, ours = both(megatron, end_wd=0.9)
    theirs.load_state_dict(saved_theirs.state_dict())
    ours.load_state_dict(saved_ours.state_dict())
    assert [pytest.approx(0.45)] == held(theirs, "weight_decay")
    assert [pytest.approx(0.05)] == held(ours, "weight_decay")


def test_loading_twice_does_not_double_the_position(megatron):
    theirs, ours = both(megatron)
    theirs.step(50)
    ours.step(50)
    theirs.load_state_dict(theirs.state_dict())
    ours.load_state_dict(ours.state_dict())
    assert 100 == theirs.num_steps
    assert 50 == ours.num_steps


def test_a_no_decay_group_in_first_place_keeps_its_zero(nemo):
    groups = [{"weight_decay": 0.0}, {}]
    theirs, ours = (cls(adamw(*groups), **CONFIG) for cls in (nemo, OptimizerParamScheduler))
    theirs.step(50)
    ours.step(50)
    assert [0.05, 0.05] == held(theirs, "weight_decay")
    assert [0.0, 0.05] == held(ours, "weight_decay")


def test_no_key_is_added_to_a_group(nemo):
    theirs, ours = adamw(), adamw()
    keys = set(ours.param_groups[0])
    nemo(theirs, **CONFIG)
    OptimizerParamScheduler(ours, **CONFIG)
    assert {"lr_mult", "wd_mult"} == set(theirs.param_groups[0]) - keys
    assert keys == set(ours.param_groups[0])


def test_a_tensor_lr_is_filled_in_place_not_replaced(upstream):
    lr = torch.tensor(1.0)
    theirs = upstream(adamw(lr=lr), **CONFIG)
    assert theirs.optimizer.param_groups[0]["lr"] is not lr
    ours = OptimizerParamScheduler(adamw(lr=lr), **CONFIG)
    assert ours.optimizer.param_groups[0]["lr"] is lr


def test_construction_logs_what_each_group_gets(nemo, caplog):
    caplog.set_level(logging.INFO)
    nemo(adamw(), **CONFIG)
    assert "group" not in caplog.text
    caplog.clear()
    OptimizerParamScheduler(adamw({}, {"weight_decay": 0.0}), **CONFIG)
    assert "own value 0, stays 0" in caplog.text


def test_kept_for_parity_inverse_square_root_falls_off_a_cliff_past_the_end(upstream):
    for scheduler in both(upstream, lr_decay_style="inverse-square-root", min_lr=0.0):
        scheduler.step(100)
        assert [pytest.approx(0.316, abs=1e-3)] == held(scheduler)
        scheduler.step(11)
        assert [0.0] == held(scheduler)


def test_kept_for_parity_a_tail_longer_than_the_rest_jumps_at_the_end_of_the_warmup(upstream):
    wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": 108, "lr_wsd_decay_style": "linear"}
    for scheduler in both(upstream, **wsd, min_lr=0.0):
        scheduler.step(10)
        assert [1.0] == held(scheduler)
        scheduler.step(1)
        assert [pytest.approx(0.917, abs=1e-3)] == held(scheduler)


@pytest.mark.parametrize("style", ["linear", "exponential", "minus_sqrt"])
def test_a_wsd_tail_of_fractional_length_ends_at_min_lr_not_below_it(upstream, style):
    tail = {"lr_decay_style": "WSD", "lr_wsd_decay_style": style, "wsd_decay_steps": 7.7}
    theirs, ours = both(upstream, **tail, min_lr=0.0)
    for scheduler in (theirs, ours):
        scheduler.step(110)
    assert held(theirs)[0] < 0
    assert [0.0] == held(ours)


def test_a_warmup_down_to_a_groups_own_bound_of_0_ends_there_not_below_it(megatron):
    group, config = {"max_lr": 0.0, "min_lr": 0.0}, {**CONFIG, "lr_warmup_steps": 3, "init_lr": 0.1}
    theirs, ours = (cls(adamw(group), **config) for cls in (megatron, OptimizerParamScheduler))
    for scheduler in (theirs, ours):
        scheduler.step(3)
    assert held(theirs)[0] < 0
    assert [0.0] == held(ours)
