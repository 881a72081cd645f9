"""Where the seeds are at fault and we differ on purpose: one test for each difference."""

from __future__ import annotations

import logging

import pytest
import torch

from dist_sched import ConfigError, OptimizerParamScheduler, ReconcileError

CONFIG = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "lr_decay_style": "linear",
    "start_wd": 0.0,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "linear",
}


def optimizer(*groups, lr=1.0, weight_decay=0.1):
    params = [{"params": [torch.nn.Parameter(torch.zeros(1))], **group} for group in groups or [{}]]
    return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)


def both(seed, **changes):
    config = {**CONFIG, **changes}
    return seed(optimizer(), **config), OptimizerParamScheduler(optimizer(), **config)


def test_an_unknown_style_fails_at_construction_not_after_the_warmup(seed):
    theirs = seed(optimizer(), **{**CONFIG, "lr_decay_style": "cosinus"})
    theirs.step(10)
    with pytest.raises(Exception, match="not supported"):
        theirs.step(1)
    with pytest.raises(ConfigError, match=r"lr_decay_style='cosinus'.*did you mean 'cosine'"):
        OptimizerParamScheduler(optimizer(), **{**CONFIG, "lr_decay_style": "cosinus"})


def test_an_unknown_wsd_tail_fails_at_construction_not_in_the_tail(seed):
    config = {
        **CONFIG,
        "lr_decay_style": "WSD",
        "wsd_decay_steps": 20,
        "lr_wsd_decay_style": "lin",
    }
    theirs = seed(optimizer(), **config)
    theirs.step(90)
    with pytest.raises(AssertionError):
        theirs.step(1)
    with pytest.raises(ConfigError, match="lr_wsd_decay_style='lin'"):
        OptimizerParamScheduler(optimizer(), **config)


def test_no_weight_decay_steps_means_end_wd_not_a_division_by_zero(seed):
    with pytest.raises(ZeroDivisionError):
        seed(optimizer(), **{**CONFIG, "wd_incr_steps": 0})
    ours = OptimizerParamScheduler(optimizer(), **{**CONFIG, "wd_incr_steps": 0})
    assert ours.optimizer.param_groups[0]["weight_decay"] == 0.1


def test_strict_refuses_a_changed_wsd_tail_that_the_seeds_accept(seed):
    wsd = {"lr_decay_style": "WSD", "lr_wsd_decay_style": "linear"}
    strict = {"use_checkpoint_opt_param_scheduler": False}
    saved_theirs, saved_ours = both(seed, **wsd, wsd_decay_steps=20)
    theirs, ours = both(seed, **wsd, **strict, wsd_decay_steps=100)
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
    assert theirs.optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.45)
    assert ours.optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.05)


def test_loading_twice_does_not_double_the_position(megatron):
    theirs, ours = both(megatron)
    theirs.step(50)
    ours.step(50)
    theirs.load_state_dict(theirs.state_dict())
    ours.load_state_dict(ours.state_dict())
    assert theirs.num_steps == 100
    assert ours.num_steps == 50


def test_a_no_decay_group_in_first_place_keeps_its_zero(nemo):
    groups = [{"weight_decay": 0.0}, {}]
    theirs, ours = (cls(optimizer(*groups), **CONFIG) for cls in (nemo, OptimizerParamScheduler))
    theirs.step(50)
    ours.step(50)
    assert [g["weight_decay"] for g in theirs.optimizer.param_groups] == [0.05, 0.05]
    assert [g["weight_decay"] for g in ours.optimizer.param_groups] == [0.0, 0.05]


def test_no_key_is_added_to_a_group(nemo):
    theirs, ours = optimizer(), optimizer()
    keys = set(ours.param_groups[0])
    nemo(theirs, **CONFIG)
    OptimizerParamScheduler(ours, **CONFIG)
    assert {"lr_mult", "wd_mult"} == set(theirs.param_groups[0]) - keys
    assert keys == set(ours.param_groups[0])


def test_a_tensor_lr_is_filled_in_place_not_replaced(seed):
    lr = torch.tensor(1.0)
    theirs = seed(optimizer(lr=lr), **CONFIG)
    assert theirs.optimizer.param_groups[0]["lr"] is not lr
    ours = OptimizerParamScheduler(optimizer(lr=lr), **CONFIG)
    assert ours.optimizer.param_groups[0]["lr"] is lr


def test_construction_logs_nothing_at_info(nemo, caplog):
    caplog.set_level(logging.INFO)
    nemo(optimizer(), **CONFIG)
    assert caplog.records
    caplog.clear()
    OptimizerParamScheduler(optimizer(), **CONFIG)
    assert not caplog.records


def test_kept_for_parity_inverse_square_root_falls_off_a_cliff_past_the_end(seed):
    for scheduler in both(seed, lr_decay_style="inverse-square-root", min_lr=0.0):
        scheduler.step(100)
        assert scheduler.optimizer.param_groups[0]["lr"] == pytest.approx(0.316, abs=1e-3)
        scheduler.step(11)
        assert scheduler.optimizer.param_groups[0]["lr"] == 0.0


def test_kept_for_parity_a_tail_longer_than_the_rest_jumps_at_the_end_of_the_warmup(seed):
    wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": 108, "lr_wsd_decay_style": "linear"}
    for scheduler in both(seed, **wsd, min_lr=0.0):
        scheduler.step(10)
        assert scheduler.optimizer.param_groups[0]["lr"] == 1.0
        scheduler.step(1)
        assert scheduler.optimizer.param_groups[0]["lr"] == pytest.approx(0.917, abs=1e-3)
