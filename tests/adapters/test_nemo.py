"""Multipliers in groups, as NeMo AutoModel's class adds them."""

from __future__ import annotations

import pytest

from dist_sched import adapters, schedules
from helpers import adamw, held, opt_param_scheduler, param_scheduler

MULTIPLIERS = ("lr_mult", "wd_mult")


def multipliers(scheduler):
    return [{key: group[key] for key in MULTIPLIERS if key in group} for group in groups(scheduler)]


def groups(scheduler):
    return scheduler.optimizer.param_groups


@pytest.mark.parametrize("position", [0, 1, 7, 60, 200])
def test_multipliers_change_no_value(position):
    optimizer = adamw({"lr": 0.3}, {"lr": 0.7, "weight_decay": 0.0}, lr=0.1)
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(position)
    before = held(scheduler), held(scheduler, "weight_decay")
    adapters.nemo.add_multipliers(scheduler)
    scheduler.step(0)
    assert before == (held(scheduler), held(scheduler, "weight_decay"))


def test_a_group_that_has_multipliers_keeps_them():
    scheduler = opt_param_scheduler(adamw({"lr_mult": 0.25, "wd_mult": 0.0}))
    adapters.nemo.add_multipliers(scheduler)
    assert [{"lr_mult": 0.25, "wd_mult": 0.0}] == multipliers(scheduler)


def test_a_group_with_bounds_gets_no_lr_mult():
    scheduler = opt_param_scheduler(adamw({"max_lr": 0.5}))
    adapters.nemo.add_multipliers(scheduler)
    assert [{"wd_mult": 1.0}] == multipliers(scheduler)


def test_a_group_with_a_schedule_of_its_own_gets_1():
    fields = {"lr": schedules.linear(1.0, 10)}
    own = {"head": {"lr": schedules.linear(0.5, 10)}}
    optimizer = adamw({"name": "body"}, {"name": "head", "lr": 0.5})
    scheduler = param_scheduler(optimizer, fields, groups=own)
    adapters.nemo.add_multipliers(scheduler)
    assert [{"lr_mult": 1.0}, {"lr_mult": 1.0}] == multipliers(scheduler)
    assert [1.0, 0.5] == held(scheduler)


def test_a_load_of_an_optimizer_that_lacks_them_takes_them_away_and_says_so(caplog):
    optimizer = adamw({"lr": 0.5}, {"lr": 1.0})
    scheduler = opt_param_scheduler(optimizer, reference={"lr": 1.0})
    saved = optimizer.state_dict()
    adapters.nemo.add_multipliers(scheduler)
    optimizer.load_state_dict(saved)
    assert "lr_mult is 0.5 in the script and None in the optimizer checkpoint" in caplog.text
