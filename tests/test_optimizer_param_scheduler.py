"""`OptimizerParamScheduler` in one process: values, positions, arguments, attributes."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch

from dist_sched import ConfigError, OptimizerParamScheduler
from helpers import CONFIG, FLOAT_AND_TENSOR_LR, adamw, held, opt_param_scheduler

WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 20}


POSITIONS = [0, 1, 9, 10, 11, 35, 60, 90, 91, 95, 109, 110, 111, 10**9]


TABLE = {
    "constant": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    "linear": [0, 0.1, 0.9, 1, 0.991, 0.775, 0.55, 0.28, 0.271, 0.235, 0.109, 0.1, 0.1, 0.1],
    "cosine": [0, 0.1, 0.9, 1, 0.9997779521645792, 0.8681980515339464, 0.55]
    + [0.18594235253127367, 0.17781374157644717, 0.14904706411523447, 0.1002220478354208]
    + [0.1, 0.1, 0.1],
    "inverse-square-root": [0, 0.1, 0.9, 1, 0.9534625892455924, 0.5345224838248488]
    + [0.408248290463863, 1 / 3, 0.33149677206589795, 0.3244428422615251, 0.3028912664076913]
    + [0.30151134457776363, 0.1, 0.1],
    "linear tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.955, 0.775, 0.145, 0.1, 0.1, 0.1],
    "cosine tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.994459753267812, 0.8681980515339464]
    + [0.10554024673218802, 0.1, 0.1, 0.1],
    "exponential tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.938685392064722, 0.7136135474566861]
    + [0.13173843145723976, 0.1, 0.1, 0.1],
    "minus_sqrt tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.798753882025019, 0.55]
    + [0.12278850896719325, 0.1, 0.1, 0.1],
}


def changes_for(style):
    tail = style.removesuffix(" tail")
    return {**WSD, "lr_wsd_decay_style": tail} if tail != style else {"lr_decay_style": style}


@pytest.mark.parametrize("style", TABLE)
def test_each_style_has_the_values_of_the_table(style):
    scheduler = opt_param_scheduler(**changes_for(style))
    found = []
    for position in POSITIONS:
        scheduler.seek(position)
        found += held(scheduler)
    assert TABLE[style] == pytest.approx(found, rel=1e-13, abs=0)


@pytest.mark.parametrize(
    "style, expected",
    [
        ("linear", [0, 0.001, 0.05, 0.1, 0.1]),
        ("cosine", [0, 2.467198171342215e-05, 0.05, 0.1, 0.1]),
        ("constant", [0.1] * 5),
    ],
)
def test_weight_decay_has_the_values_computed_by_hand(style, expected):
    start = 0.1 if style == "constant" else 0.0
    scheduler = opt_param_scheduler(wd_incr_style=style, start_wd=start)
    found = []
    for position in (0, 1, 50, 100, 101):
        scheduler.seek(position)
        found += held(scheduler, "weight_decay")
    assert expected == pytest.approx(found, rel=1e-11, abs=0)


@FLOAT_AND_TENSOR_LR
def test_the_kth_update_uses_the_value_at_k_minus_1(build):
    optimizer = build(lr=123.0)
    scheduler = opt_param_scheduler(optimizer)
    used = []
    for _ in range(3):
        used += held(scheduler)
        optimizer.step()
        scheduler.step()
    assert [0.0, 0.1, 0.2] == pytest.approx(used)


def test_a_step_is_relative_and_a_seek_absolute():
    scheduler = opt_param_scheduler()
    scheduler.step(5)
    scheduler.step(increment=0)
    scheduler.step()
    assert 6 == scheduler.num_steps
    scheduler.seek(2)
    assert (2, [0.2]) == (scheduler.num_steps, held(scheduler))


def test_assigning_num_steps_is_a_seek():
    scheduler = opt_param_scheduler()
    scheduler.num_steps = 60
    assert (60, [0.55]) == (scheduler.num_steps, held(scheduler))
    scheduler.num_steps += 50
    assert [0.1] == held(scheduler)


@pytest.mark.parametrize("many", [np.int64(3), torch.tensor(3)], ids=repr)
def test_an_increment_of_another_library_is_stored_as_an_int(many):
    scheduler = opt_param_scheduler()
    scheduler.step(many)
    assert (3, int) == (scheduler.num_steps, type(scheduler.num_steps))


@pytest.mark.parametrize("bad", [-1, 1.0, 0.5, "1", None, True, 2**53 + 1, float("nan")], ids=repr)
def test_an_illegal_increment_is_refused_and_nothing_changed(bad):
    scheduler = opt_param_scheduler()
    scheduler.step(5)
    with pytest.raises(ConfigError, match=r"(increment|position)="):
        scheduler.step(bad)
    assert (5, [0.5]) == (scheduler.num_steps, held(scheduler))


@pytest.mark.parametrize("bad", [-1, 1.0, True, 2**53 + 1], ids=repr)
def test_an_illegal_position_is_refused_and_nothing_changed(bad):
    scheduler = opt_param_scheduler()
    scheduler.step(5)
    with pytest.raises(ConfigError, match="position="):
        scheduler.seek(bad)
    assert (5, [0.5]) == (scheduler.num_steps, held(scheduler))


def test_a_step_past_2_to_the_53_is_refused():
    scheduler = opt_param_scheduler()
    scheduler.seek(2**53)
    with pytest.raises(ConfigError, match="position=9007199254740993"):
        scheduler.step()
    assert 2**53 == scheduler.num_steps


def test_megatrons_attributes_are_readable():
    scheduler = opt_param_scheduler()
    found = [scheduler.init_lr, scheduler.max_lr, scheduler.min_lr, scheduler.lr_warmup_steps]
    found += [scheduler.lr_decay_steps, scheduler.lr_decay_style, scheduler.start_wd]
    found += [scheduler.end_wd, scheduler.wd_incr_steps, scheduler.wd_incr_style]
    found += [scheduler.wsd_decay_steps, scheduler.lr_wsd_decay_style, scheduler.num_steps]
    assert [0.0, 1.0, 0.1, 10, 110, "linear", 0.0, 0.1, 100, "linear", None, None, 0] == found
    assert scheduler.use_checkpoint_opt_param_scheduler
    assert not scheduler.override_opt_param_scheduler


def test_an_entry_cannot_be_assigned_in_mid_run():
    scheduler = opt_param_scheduler()
    with pytest.raises(AttributeError, match="max_lr cannot be assigned"):
        scheduler.max_lr = 3.0


def test_repr_shows_the_whole_schedule_and_the_position():
    scheduler = opt_param_scheduler()
    scheduler.step(60)
    shown = repr(scheduler)
    assert "position: 60 steps" in shown
    assert all(
        f"{name}: {value!r}" in shown for name, value in scheduler._agreed.effective.parts().items()
    )
    assert "lr            0.55  1        the schedule\n" in shown


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"unit": "batches"}, "unit='batches': must be one of 'steps', 'samples', 'tokens'"),
        ({"keep_group_ratios": "no"}, "keep_group_ratios='no'"),
        ({"policy": "mine"}, "policy='mine'"),
        ({"max_lr": -1}, "max_lr=-1"),
    ],
)
def test_an_illegal_argument_is_refused_before_a_group_has_changed(changes, message):
    optimizer = adamw(lr=0.25)
    with pytest.raises(ConfigError, match=message):
        opt_param_scheduler(optimizer, **changes)
    assert [0.25] == held(optimizer)


@pytest.mark.parametrize("bad", [None, "adam", [], [None], {}], ids=repr)
def test_what_is_no_optimizer_is_refused(bad):
    with pytest.raises(ConfigError, match="optimizer"):
        OptimizerParamScheduler(bad, **CONFIG)


def test_the_scheduler_is_freed_while_its_optimizer_lives_on():
    optimizer = adamw()
    scheduler = opt_param_scheduler(optimizer)
    reference = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert reference() is None
    optimizer.load_state_dict(optimizer.state_dict())


@FLOAT_AND_TENSOR_LR
def test_an_optimizer_with_a_scheduler_can_be_copied_and_pickled(build):
    optimizer = build()
    scheduler = opt_param_scheduler(optimizer)
    copied = copy.deepcopy(optimizer)
    copied.load_state_dict(optimizer.state_dict())
    assert [0.0] == held(pickle.loads(pickle.dumps(optimizer)))  # noqa: S301 - our own bytes
    scheduler.step(5)
    assert ([0.5], [0.0]) == (held(optimizer), held(copied))


def test_what_is_no_process_group_is_refused_at_construction():
    with pytest.raises(ConfigError, match="process_group='dp': must be a ProcessGroup"):
        opt_param_scheduler(process_group="dp")
