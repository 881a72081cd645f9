"""Loads of optimizer and scheduler, each restored or not: what is used, and what the log says."""

from __future__ import annotations

import copy
import io
import logging

import pytest
import torch

from dist_sched import ConfigError, Phase, Schedule
from helpers import (
    FLOAT_AND_TENSOR_LR,
    HILL,
    UP,
    adamw,
    adamw_of_tensors,
    contents,
    held,
    new_group,
    opt_param_scheduler,
    param_scheduler,
    sgd,
)

FALL = Schedule([Phase("linear", 40, end=0.0, start=1.0)])


def stepped(*groups, build=adamw, **arguments):
    optimizer = build(*groups, **arguments)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    return optimizer


def saved(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def at_60(*groups, build=adamw):
    """Return what a run of stepped groups saved at 60: both states, lr and weight decay."""
    optimizer = stepped(*groups, build=build)
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(60)
    values = held(optimizer), held(optimizer, "weight_decay")
    return saved(optimizer), scheduler.state_dict(), values


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first"])
def test_the_order_of_loads_does_not_matter(build, order):
    groups = [{}, {"lr": 3.0, "weight_decay": 0.0}, {"max_lr": 2.0}]
    optimizer_state, state, expected = at_60(*groups, build=build)
    optimizer = build(*groups)
    scheduler = opt_param_scheduler(optimizer)
    loads = [
        lambda: optimizer.load_state_dict(optimizer_state),
        lambda: scheduler.load_state_dict(state),
    ]
    for load in loads if order == "optimizer first" else reversed(loads):
        load()
    assert expected == (held(optimizer), held(optimizer, "weight_decay"))
    scheduler.step()
    whole = opt_param_scheduler(build(*groups))
    whole.seek(61)
    assert held(whole.optimizer) == held(optimizer)


def test_an_optimizer_load_alone_leaves_the_schedulers_values():
    optimizer_state, _, _ = at_60({}, {"lr": 3.0})
    optimizer = adamw({}, {"lr": 3.0})
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(5)
    optimizer.load_state_dict(optimizer_state)
    assert [0.5, 1.5] == held(optimizer)
    assert [0.5, 1.5] == scheduler.get_last_lr()


@pytest.mark.parametrize("saved_by", [adamw, adamw_of_tensors], ids=["float", "tensor"])
def test_after_an_optimizer_load_the_scripts_own_tensors_are_put_back(saved_by):
    optimizer_state, _, _ = at_60({}, {"lr": 3.0}, build=saved_by)
    optimizer = adamw_of_tensors({}, {"lr": 3.0})
    scheduler = opt_param_scheduler(optimizer)
    own = [id(group["lr"]) for group in optimizer.param_groups]
    optimizer.load_state_dict(optimizer_state)
    scheduler.seek(10)
    assert [1.0, 3.0] == held(optimizer)
    assert own == [id(group["lr"]) for group in optimizer.param_groups]


def test_after_an_optimizer_load_floats_are_floats_again_though_tensors_were_saved():
    optimizer_state, _, _ = at_60({}, {"lr": 3.0}, build=adamw_of_tensors)
    optimizer = adamw({}, {"lr": 3.0})
    scheduler = opt_param_scheduler(optimizer)
    optimizer.load_state_dict(optimizer_state)
    scheduler.seek(10)
    assert [1.0, 3.0] == held(optimizer)
    assert [float, float] == [type(group["lr"]) for group in optimizer.param_groups]


def test_a_tensor_that_replaced_a_float_in_mid_run_is_put_back_after_a_load():
    optimizer = adamw()
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    state = copy.deepcopy(optimizer.state_dict())
    mine = torch.tensor(123.0)
    optimizer.param_groups[0]["lr"] = mine
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] is mine
    assert [1.0] == held(optimizer)


def loaded(policy, script, checkpoint):
    """Return the second group after an optimizer load under a policy."""
    optimizer = adamw({}, script)
    scheduler = opt_param_scheduler(optimizer, policy=policy)
    other = adamw({}, checkpoint)
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    scheduler.seek(10)
    return optimizer.param_groups[1]


BOUNDS = ({"max_lr": 2.0, "lr_mult": 3.0}, {"max_lr": 5.0, "wd_mult": 7.0})


def test_under_config_a_groups_bounds_and_multipliers_are_put_back():
    group = loaded("config", *BOUNDS)
    assert (2.0, 3.0, False) == (group["max_lr"], group["lr_mult"], "wd_mult" in group)
    assert 6.0 == float(group["lr"])


@pytest.mark.parametrize("policy", ["checkpoint", "strict"])
def test_under_checkpoint_and_strict_the_loaded_ones_stay(policy, caplog):
    group = loaded(policy, *BOUNDS)
    assert (5.0, False, 7.0) == (group["max_lr"], "lr_mult" in group, group["wd_mult"])
    assert 5.0 == float(group["lr"])
    assert "group 1: max_lr is 2.0 in the script and 5.0 in the optimizer checkpoint" in caplog.text


def test_a_bound_follows_the_policy_of_its_entry_and_a_multiplier_that_of_the_rest():
    group = loaded({"max_lr": "config", "*": "checkpoint"}, *BOUNDS)
    assert (2.0, False, 7.0) == (group["max_lr"], "lr_mult" in group, group["wd_mult"])
    group = loaded({"max_lr": "checkpoint", "*": "config"}, *BOUNDS)
    assert (5.0, 3.0, False) == (group["max_lr"], group["lr_mult"], "wd_mult" in group)


def test_bounds_edited_in_mid_run_are_those_that_config_puts_back():
    optimizer = adamw({}, {"max_lr": 2.0})
    scheduler = opt_param_scheduler(optimizer, policy="config")
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.param_groups[1]["max_lr"] = 4.0
    optimizer.load_state_dict(state)
    scheduler.seek(10)
    assert [1.0, 4.0] == held(optimizer)


def test_an_optimizer_load_that_changes_no_bound_says_nothing(caplog):
    loaded("strict", BOUNDS[0], BOUNDS[0])
    assert not caplog.records


def test_an_illegal_bound_that_a_load_brings_is_refused_and_the_scripts_put_back():
    optimizer = adamw({}, {"max_lr": 2.0})
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][1]["max_lr"] = float("nan")
    with pytest.raises(ConfigError, match="group 1: max_lr=nan"):
        optimizer.load_state_dict(state)
    assert [1.0, 2.0] == held(optimizer)


def test_two_schedulers_on_one_optimizer_both_see_what_a_load_carried(caplog):
    optimizer_state, state, _ = at_60({}, {"lr": 3.0})
    caplog.clear()
    optimizer = adamw({}, {"lr": 3.0})
    kept = [opt_param_scheduler(optimizer) for _ in range(2)]
    optimizer.load_state_dict(optimizer_state)
    kept[1].load_state_dict(state)
    assert "carried" not in caplog.text


def test_what_was_carried_is_compared_under_the_bounds_that_came_with_it(caplog):
    optimizer_state, state, _ = at_60({}, {"max_lr": 2.0})
    caplog.clear()
    optimizer = adamw({}, {"max_lr": 5.0})
    scheduler = opt_param_scheduler(optimizer, policy="config")
    scheduler.load_state_dict(state)
    optimizer.load_state_dict(optimizer_state)
    assert "max_lr is 5.0 in the script and 2.0" in caplog.text
    assert "carried" not in caplog.text


@FLOAT_AND_TENSOR_LR
def test_what_an_optimizer_carried_is_kept_as_it_was_at_the_load(build, caplog):
    _, state, _ = at_60({})
    optimizer, other = build(), build()
    scheduler, theirs = opt_param_scheduler(optimizer), opt_param_scheduler(other)
    theirs.seek(10)
    optimizer.load_state_dict(other.state_dict())
    theirs.seek(60)
    scheduler.load_state_dict(state)
    assert "lr is 1.0 in the optimizer checkpoint" in caplog.text


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("trains_on", [True, False])
def test_an_optimizer_that_was_loaded_into_itself_is_not_compared_with_a_later_load(
    build, trains_on, caplog
):
    _, state, _ = at_60({})
    optimizer = build()
    scheduler = opt_param_scheduler(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    if trains_on:
        scheduler.step()
    scheduler.load_state_dict(state)
    assert not caplog.records


def test_what_an_optimizer_carried_is_no_news_once_training_goes_on(caplog):
    optimizer_state, _, _ = at_60({})
    optimizer = adamw()
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(50)
    optimizer.load_state_dict(optimizer_state)
    scheduler.step()
    scheduler.load_state_dict(scheduler.state_dict())
    assert "carried" not in caplog.text


GROUPS = [{}, {"lr": 3.0, "weight_decay": 0.0}]


def checkpoint(build=adamw, **changes):
    """Return what a run saved at 60: the optimizer's state and the scheduler's."""
    optimizer = build(*GROUPS)
    scheduler = opt_param_scheduler(optimizer, **changes)
    scheduler.seek(60)
    return copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()


def fresh(build=adamw, **changes):
    optimizer = build(*GROUPS)
    return optimizer, opt_param_scheduler(optimizer, **changes)


@pytest.mark.parametrize(
    "has_optimizer, has_scheduler",
    [(False, False), (True, False), (False, True), (True, True)],
)
def test_the_scheduler_alone_decides_whichever_of_the_two_is_loaded(has_optimizer, has_scheduler):
    optimizer_state, state = checkpoint()
    optimizer, scheduler = fresh()
    loads = [lambda: optimizer.load_state_dict(optimizer_state)] * has_optimizer
    loads += [lambda: scheduler.load_state_dict(state)] * has_scheduler
    for load in loads:
        load()
    position = 60 if has_scheduler else 0
    expected = opt_param_scheduler(adamw(*GROUPS))
    expected.seek(position)
    assert held(expected.optimizer) == held(optimizer)
    assert held(expected.optimizer, "weight_decay") == held(optimizer, "weight_decay")
    assert position == scheduler.num_steps


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_an_optimizer_that_carried_what_the_checkpoints_schedule_has_is_not_mentioned(
    caplog, build, scheduler_first
):
    optimizer_state, state = checkpoint(build)
    optimizer, scheduler = fresh(build)
    caplog.set_level(logging.INFO)
    loads = [lambda: optimizer.load_state_dict(optimizer_state)]
    loads.insert(0 if scheduler_first else 1, lambda: scheduler.load_state_dict(state))
    for load in loads:
        load()
    assert ["INFO"] == [record.levelname for record in caplog.records]


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_an_optimizer_that_carried_another_lr_than_the_checkpoints_schedule_is_named(
    caplog, scheduler_first
):
    optimizer_state, state = checkpoint()
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer, scheduler = fresh()
    loads = [lambda: optimizer.load_state_dict(optimizer_state)]
    loads.insert(0 if scheduler_first else 1, lambda: scheduler.load_state_dict(state))
    for load in loads:
        load()
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "group 1: lr is 0.75 in the optimizer checkpoint" in record.message
    assert "1.65" in record.message
    assert "group 0: the optimizer" not in record.message
    assert pytest.approx([0.55, 1.65]) == held(optimizer)


def test_what_an_optimizer_carried_is_mentioned_once(caplog):
    optimizer_state, state = checkpoint()
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer, scheduler = fresh()
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    caplog.clear()
    scheduler.load_state_dict(state)
    assert "carried" not in caplog.text


def test_what_was_carried_is_compared_with_the_checkpoints_schedule_not_the_used_one(caplog):
    optimizer_state, state = checkpoint(max_lr=0.5)
    optimizer, scheduler = fresh(policy="config")
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    assert "carried" not in caplog.text
    assert pytest.approx([0.55, 1.65]) == held(optimizer)


def test_policies_by_entry_decide_a_load_entry_by_entry():
    _, state = checkpoint(max_lr=0.5, lr_decay_steps=210)
    policy = {"lr_decay_steps": "config", "*": "checkpoint"}
    optimizer, scheduler = fresh(policy=policy, lr_decay_steps=60)
    scheduler.load_state_dict(state)
    assert (0.5, 60) == (scheduler.max_lr, scheduler.lr_decay_steps)
    assert pytest.approx([0.1, 0.3]) == held(optimizer)


def test_the_report_is_kept_after_a_load_and_is_none_before():
    _, state = checkpoint(max_lr=0.5)
    _, scheduler = fresh()
    assert scheduler.last_reconciliation is None
    scheduler.load_state_dict(state)
    assert ["max_lr"] == [row.name for row in scheduler.last_reconciliation.changed]
    assert 60 == scheduler.last_reconciliation.position


def test_the_report_is_one_warning_with_lr_before_and_after(caplog):
    _, state = checkpoint(max_lr=0.5)
    _, scheduler = fresh()
    scheduler.load_state_dict(state)
    (record,) = caplog.records
    assert ("dist_sched", "WARNING") == (record.name, record.levelname)
    assert [
        "loaded the scheduler at position 60; 1 entry differs",
        "lr for the next update: 0.3, as in the checkpoint's run (the config has 0.55)",
    ] == record.message.splitlines()[:2]


def test_an_optimizer_loaded_when_the_schedule_has_moved_on_is_not_compared(caplog):
    optimizer_state, state = checkpoint()
    optimizer, scheduler = fresh()
    scheduler.load_state_dict(state)
    scheduler.step()
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer.load_state_dict(optimizer_state)
    assert "carried" not in caplog.text


def test_what_was_carried_after_a_load_of_the_scheduler_is_mentioned_once(caplog):
    optimizer_state, state = checkpoint()
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer, scheduler = fresh()
    scheduler.load_state_dict(state)
    optimizer.load_state_dict(optimizer_state)
    caplog.clear()
    scheduler.load_state_dict(state)
    assert "carried" not in caplog.text


def test_a_rollback_to_ones_own_state_past_position_0_is_no_cause_for_doubt(caplog):
    _, scheduler = fresh()
    scheduler.seek(60)
    scheduler.load_state_dict(scheduler.state_dict())
    assert [] == [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("override", [{"lr_mult": 2.0}, {"lr_mult": -1.0}, {"max_lr": 0.5}])
def test_what_a_loaded_optimizer_carried_and_policy_dropped_does_not_block_the_scheduler(override):
    optimizer = sgd({"name": "a"})
    scheduler = param_scheduler(optimizer, {"lr": HILL}, groups={"a": {"lr": 0.5}}, policy="config")
    scheduler.seek(24)
    state, carried = scheduler.state_dict(), optimizer.state_dict()
    carried["param_groups"][0].update(override)
    optimizer.load_state_dict(carried)
    scheduler.load_state_dict(state)
    assert (24, [HILL(24) * 0.5]) == (scheduler.num_steps, held(optimizer))


def test_what_is_carried_of_one_field_is_compared_though_another_has_an_illegal_override(caplog):
    optimizer = sgd(weight_decay=0.75)
    scheduler = param_scheduler(optimizer, {"lr": HILL, "weight_decay": UP}, policy="config")
    scheduler.seek(24)
    state, carried = scheduler.state_dict(), optimizer.state_dict()
    carried["param_groups"][0] |= {"lr_mult": -1.0, "weight_decay": 0.125}
    optimizer.load_state_dict(carried)
    scheduler.load_state_dict(state)
    assert "group 0: weight_decay is 0.125 in the optimizer checkpoint, but 0.75" in caplog.text


def test_a_copy_that_has_written_nothing_follows_the_load_of_its_optimizer():
    optimizer = sgd({"lr_mult": 0.5})
    optimizer, scheduler = copy.deepcopy((optimizer, param_scheduler(optimizer, policy="config")))
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr_mult"] = 2.0
    optimizer.load_state_dict(state)
    scheduler.seek(8)
    assert ([0.5], [0.5]) == (held(optimizer, "lr_mult"), held(optimizer))


def test_a_late_groups_ratio_is_measured_for_each_field_that_is_not_0(caplog):
    def start(weight_decay):
        optimizer = sgd(weight_decay=0.75)
        scheduler = param_scheduler(optimizer, {"lr": FALL, "weight_decay": UP})
        scheduler.seek(8 if weight_decay else 0)
        optimizer.add_param_group(new_group(lr=0.5, weight_decay=weight_decay))
        return optimizer, scheduler

    first, whole = start(0.375)
    whole.seek(40)
    second, resumed = start(0.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed.load_state_dict(whole.state_dict())
    assert ([0.0, 0.0], [0.75, 0.375]) == (held(second), held(second, "weight_decay"))
    assert "lr is 0 at position 40, so its ratio cannot be computed" in caplog.text


def test_a_late_group_whose_measured_ratio_brings_a_mean_to_1_is_refused():
    optimizer = sgd(momentum=0.75)
    scheduler = param_scheduler(optimizer, {"lr": 1.0, "momentum": UP})
    optimizer.add_param_group(new_group(momentum=0.75))
    loaded = optimizer.state_dict()
    loaded["param_groups"][1]["momentum"] = 0.5
    state = scheduler.state_dict()
    optimizer.load_state_dict(loaded)
    before = contents(optimizer)
    with pytest.raises(ConfigError, match=r"group 1: momentum would reach 1\.5"):
        scheduler.load_state_dict(state)
    assert (before, None) == (contents(optimizer), scheduler.last_reconciliation)


@pytest.mark.parametrize("bad", ["0.5", [0.5], -1.0, float("nan")])
def test_an_illegal_multiplier_is_refused_where_a_carried_value_differs(bad):
    optimizer_state, state = checkpoint()
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer, scheduler = fresh()
    optimizer.load_state_dict(optimizer_state)
    optimizer.param_groups[1]["lr_mult"] = bad
    with pytest.raises(ConfigError, match="group 1: lr_mult"):
        scheduler.load_state_dict(state)


def test_a_group_that_is_illegal_under_the_present_config_is_no_fault_of_the_checkpoint():
    scheduler = param_scheduler()
    state = scheduler.state_dict()
    scheduler.optimizer.param_groups[0]["lr_mult"] = -1.0
    with pytest.raises(ConfigError) as raised:
        scheduler.load_state_dict(state)
    assert "checkpoint" not in str(raised.value)
