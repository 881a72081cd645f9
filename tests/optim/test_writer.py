"""Param groups: ratios, bounds, multipliers, tensors, and optimizers that are loaded or wrapped."""

from __future__ import annotations

import copy
import gc
import io
import logging
import weakref
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from dist_sched import ConfigError


def values(optimizer, key="lr"):
    return [float(group[key]) for group in optimizer.param_groups]


def new_group(workshop, **changes):
    group = {"params": [torch.nn.Parameter(torch.ones(2))], **changes}
    return {**group, "lr": workshop.lr(group["lr"])} if "lr" in group else group


def at_peak(workshop, *groups, **changes):
    """Give an optimizer at the peak lr 1.0 and at weight decay 0.05."""
    optimizer = workshop.optimizer(*groups, **changes)
    scheduler = workshop.scheduler(optimizer, lr_decay_style="constant")
    scheduler.seek(50)
    return optimizer, scheduler


# Rule 4: ratios


def test_a_group_keeps_its_ratio_to_the_first_groups_lr_and_weight_decay(workshop):
    groups = [{}, {"lr": 5.0}, {"lr": 0.5, "weight_decay": 0.2}]
    optimizer, _ = at_peak(workshop, *groups)
    assert [1.0, 5.0, 0.5] == values(optimizer)
    assert [0.05, 0.05, 0.1] == values(optimizer, "weight_decay")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_no_decay_group_keeps_its_zero_wherever_it_stands(workshop, place):
    groups = [{}, {}]
    groups.insert(place, {"weight_decay": 0.0})
    optimizer, _ = at_peak(workshop, *groups)
    expected = [0.05, 0.05]
    expected.insert(place, 0.0)
    assert expected == values(optimizer, "weight_decay")


def test_ratios_are_measured_field_by_field_against_the_first_that_is_not_zero(workshop):
    optimizer, _ = at_peak(workshop, {"lr": 0.0}, {"lr": 2.0, "weight_decay": 0.0}, {"lr": 4.0})
    assert [0.0, 1.0, 2.0] == values(optimizer)
    assert [0.05, 0.0, 0.05] == values(optimizer, "weight_decay")


def test_where_every_group_is_zero_every_ratio_is_one(workshop):
    optimizer, _ = at_peak(workshop, {}, {}, weight_decay=0.0)
    assert [0.05, 0.05] == values(optimizer, "weight_decay")


def test_a_group_without_a_value_has_ratio_one(workshop):
    optimizer = workshop.optimizer({}, {"lr": 5.0})
    optimizer.param_groups[0]["lr"] = None
    workshop.scheduler(optimizer).seek(10)
    assert [1.0, 1.0] == values(optimizer)


@pytest.mark.parametrize("bad", [float("nan"), -1.0, float("inf"), "fast"], ids=repr)
def test_a_group_with_an_illegal_value_of_its_own_is_refused(workshop, bad):
    optimizer = workshop.optimizer({}, {})
    optimizer.param_groups[1]["weight_decay"] = bad
    before = values(optimizer)
    with pytest.raises(ConfigError, match="group 1: weight_decay="):
        workshop.scheduler(optimizer)
    assert before == values(optimizer)


def test_without_keep_group_ratios_every_group_has_the_same_values(workshop):
    optimizer = workshop.optimizer({}, {"lr": 5.0, "weight_decay": 0.0})
    workshop.scheduler(optimizer, keep_group_ratios=False).seek(10)
    assert [1.0, 1.0] == values(optimizer)
    assert pytest.approx([0.01, 0.01]) == values(optimizer, "weight_decay")


def test_a_group_added_later_is_measured_against_the_remembered_values(workshop):
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0})
    optimizer.add_param_group(new_group(workshop, lr=6.0, weight_decay=0.0))
    scheduler.step()
    assert [1.0, 3.0] == values(optimizer)
    assert 0.0 == values(optimizer, "weight_decay")[1]


def test_a_group_added_later_without_values_has_the_optimizers_defaults(workshop):
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0}, lr=1.0)
    for _ in range(2):
        optimizer.add_param_group(new_group(workshop))
    scheduler.step()
    assert [1.0, 0.5, 0.5] == values(optimizer)
    assert (
        3 == len({id(group["lr"]) for group in optimizer.param_groups}) or workshop.kind == "float"
    )


def test_asking_for_values_does_not_change_a_group_added_later(workshop):
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0})
    optimizer.add_param_group(new_group(workshop, lr=6.0))
    assert [1.0, 3.0] == scheduler.get_last_lr()
    repr(scheduler)
    assert [1.0, 6.0] == values(optimizer)


def test_a_removed_group_is_forgotten(workshop):
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0}, {"lr": 4.0})
    del optimizer.param_groups[0]
    scheduler.step()
    assert [2.0] == values(optimizer)


def test_groups_that_change_places_keep_their_own_ratios(workshop):
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0}, {"lr": 4.0})
    optimizer.param_groups.reverse()
    scheduler.step()
    assert [2.0, 1.0] == values(optimizer)


def test_a_group_whose_dict_was_replaced_is_recognised_by_its_parameters(workshop):
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0}, {"lr": 4.0})
    optimizer.param_groups[1] = {**optimizer.param_groups[1], "lr": 123.0}
    scheduler.step()
    assert [1.0, 2.0] == values(optimizer)


def test_an_empty_group_is_recognised_by_its_place(floats):
    optimizer = SimpleNamespace(
        param_groups=[{"params": [], "lr": 1.0}, {"params": [], "lr": 3.0, "weight_decay": 0.0}]
    )

    scheduler = floats.scheduler(optimizer)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    scheduler.seek(10)
    assert [1.0, 3.0] == values(optimizer)


def test_a_second_scheduler_gets_the_ratios_that_the_first_saw(workshop):
    optimizer, first = at_peak(workshop, {"lr": 2.0}, {"lr": 4.0, "weight_decay": 0.0})
    first.seek(0)
    second = workshop.scheduler(optimizer)
    second.seek(10)
    assert [1.0, 2.0] == values(optimizer)
    assert 0.0 == values(optimizer, "weight_decay")[1]


def test_a_second_scheduler_gets_the_ratios_after_the_first_has_gone_and_a_load(workshop):
    optimizer, first = at_peak(workshop, {"lr": 2.0}, {"lr": 4.0})
    first.seek(0)
    del first
    optimizer.load_state_dict(optimizer.state_dict())
    workshop.scheduler(optimizer).seek(10)
    assert [1.0, 2.0] == values(optimizer)


def stepped(workshop, *groups, **changes):
    optimizer = workshop.optimizer(*groups, **changes)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    return optimizer


def test_ratios_read_from_a_loaded_optimizer_are_logged_at_warning(workshop, caplog):
    workshop.scheduler(stepped(workshop, {"lr": 1.0}, {"lr": 3.0}))
    assert "lr [1.0, 3.0]" in caplog.text
    assert {"WARNING"} == {record.levelname for record in caplog.records}


def test_a_loaded_optimizer_whose_lrs_are_all_zero_is_refused(workshop):
    optimizer = stepped(workshop, {}, {}, lr=0.0)
    with pytest.raises(ConfigError, match=r"every group's lr is 0.*build the scheduler first"):
        workshop.scheduler(optimizer)


def test_a_loaded_optimizer_whose_lrs_are_all_zero_but_have_multipliers_is_legal(workshop):
    optimizer = stepped(workshop, {"lr_mult": 1.0}, {"lr_mult": 3.0}, lr=0.0)
    workshop.scheduler(optimizer).seek(10)
    assert [1.0, 3.0] == values(optimizer)


def test_zeros_are_no_loss_where_there_is_one_group_or_nothing_to_scale(workshop):
    workshop.scheduler(stepped(workshop, {}, lr=0.0))
    workshop.scheduler(stepped(workshop, {}, {}, weight_decay=0.0), start_wd=0.0, end_wd=0.0)


# Rule 3: bounds and multipliers are read at every step


def test_bounds_and_multipliers_take_effect_at_the_next_step_and_go_when_removed(workshop):
    optimizer, scheduler = at_peak(workshop, {}, {"lr": 5.0})
    group = optimizer.param_groups[1]
    found = []
    for change in ({"max_lr": 3.0}, {"max_lr": 4.0}, {"lr_mult": 0.5}):
        group.update(change)
        scheduler.step(0)
        found += values(optimizer)[1:]
    del group["max_lr"]
    scheduler.step(0)
    del group["lr_mult"]
    found += values(optimizer)[1:]
    scheduler.step(0)
    assert [3.0, 4.0, 2.0, 0.5, 5.0] == [*found, *values(optimizer)[1:]]


def test_a_key_swapped_for_a_bound_takes_effect(workshop):
    optimizer, scheduler = at_peak(workshop, {"initial_lr": 3.0})
    optimizer.param_groups[0]["max_lr"] = optimizer.param_groups[0].pop("initial_lr")
    scheduler.step()
    assert [3.0] == values(optimizer)


@pytest.mark.parametrize(
    "override, lr, wd",
    [
        ({"max_lr": 3.0}, 3.0, 0.0),
        ({"min_lr": 0.5}, 1.0, 0.0),
        ({"lr_mult": 2.0}, 2.0, 0.0),
        ({"start_wd": 0.05}, 5.0, 0.075),
        ({"end_wd": 0.2}, 5.0, 0.1),
        ({"wd_mult": 2.0}, 5.0, 0.1),
        ({"lr_mult": 2.0, "wd_mult": 2.0}, 2.0, 0.1),
    ],
    ids=str,
)
def test_an_override_replaces_only_its_own_fields_ratio(workshop, override, lr, wd):
    optimizer, _ = at_peak(workshop, {}, {"lr": 5.0, "weight_decay": 0.0, **override})
    assert lr == pytest.approx(values(optimizer)[1])
    assert wd == pytest.approx(values(optimizer, "weight_decay")[1])


def test_get_lr_and_get_wd_leave_ratios_and_multipliers_out(workshop):
    optimizer, scheduler = at_peak(
        workshop, {"lr": 2.0}, {"lr": 4.0, "lr_mult": 3.0, "wd_mult": 3.0}
    )
    assert [1.0, 1.0] == [scheduler.get_lr(group) for group in optimizer.param_groups]
    assert [0.05, 0.05] == [scheduler.get_wd(group) for group in optimizer.param_groups]
    assert 0.05 == scheduler.get_wd()
    assert 7.0 == scheduler.get_lr({"max_lr": 7.0})
    assert pytest.approx(0.1) == scheduler.get_wd({"end_wd": 0.2})


@pytest.mark.parametrize("name", ["max_lr", "min_lr", "start_wd", "end_wd", "lr_mult", "wd_mult"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, "1", None, True], ids=repr)
def test_an_illegal_override_is_refused_by_group_and_name(workshop, name, bad):
    optimizer = workshop.optimizer({}, {name: bad}, lr=0.25)
    before = values(optimizer)
    with pytest.raises(ConfigError, match=f"group 1: {name}="):
        workshop.scheduler(optimizer)
    assert before == values(optimizer)


def test_an_illegal_override_set_in_mid_run_changes_nothing(workshop):
    optimizer, scheduler = at_peak(workshop, {}, {"lr": 5.0}, {})
    before = values(optimizer), values(optimizer, "weight_decay"), scheduler.num_steps
    optimizer.param_groups[2]["end_wd"] = float("nan")
    with pytest.raises(ConfigError, match="group 2: end_wd=nan"):
        scheduler.step(20)
    assert before == (values(optimizer), values(optimizer, "weight_decay"), scheduler.num_steps)
    del optimizer.param_groups[2]["end_wd"]
    scheduler.step()
    assert 51 == scheduler.num_steps


def test_bounds_that_differ_under_the_constant_style_are_refused(workshop):
    optimizer = workshop.optimizer({}, {"start_wd": 0.2})
    with pytest.raises(ConfigError, match="group 1: the constant style needs equal bounds"):
        workshop.scheduler(optimizer, wd_incr_style="constant", start_wd=0.1)


def test_an_override_may_be_an_int_or_a_scalar_of_another_library(workshop):
    optimizer, _ = at_peak(workshop, {"max_lr": 3}, {"lr_mult": torch.tensor(2.0)})
    assert [3.0, 2.0] == values(optimizer)


# Rule 5: writing


def test_a_tensor_is_the_same_object_after_1000_steps_and_holds_the_value_rounded_once(tensors):
    lr = torch.tensor(1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=lr, capturable=True)

    scheduler = tensors.scheduler(optimizer, lr_decay_steps=10**5)
    for _ in range(1000):
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert torch.float32 is lr.dtype
    assert torch.tensor(scheduler.get_lr({})).item() == lr.item()


def test_a_tensor_shared_by_groups_becomes_one_for_each_and_the_first_keeps_it(tensors):
    lr = torch.tensor(1.0)
    params = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(3)]
    optimizer = torch.optim.AdamW(params, lr=lr, capturable=True)

    optimizer.param_groups[1]["lr_mult"] = 2.0
    tensors.scheduler(optimizer).seek(10)
    assert [1.0, 2.0, 1.0] == values(optimizer)
    assert optimizer.param_groups[0]["lr"] is lr
    assert 3 == len({group["lr"].data_ptr() for group in optimizer.param_groups})


def test_a_tensor_shared_by_two_optimizers_becomes_one_for_each(workshop):
    lr = torch.tensor(1.0)
    params = [[torch.nn.Parameter(torch.ones(2))] for _ in range(2)]
    optimizers = [torch.optim.AdamW(group, lr=lr, capturable=True) for group in params]
    optimizers[1].param_groups[0]["lr_mult"] = 2.0
    workshop.scheduler(optimizers).seek(10)
    assert [[1.0], [2.0]] == [values(optimizer) for optimizer in optimizers]


def test_a_tensor_keeps_its_dtype_and_a_bfloat16_lr_its_ratio(tensors):
    lrs = [torch.tensor(value, dtype=torch.bfloat16) for value in (1e-3, 3e-3)]
    params = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(params, lr=1.0)

    scheduler = tensors.scheduler(optimizer)
    scheduler.seek(10)
    assert [1.0, 3.0] == scheduler.get_last_lr()
    assert torch.bfloat16 is optimizer.param_groups[1]["lr"].dtype


def test_no_live_tensor_is_handed_out(workshop):
    scheduler = workshop.scheduler()
    assert {float} == {type(lr) for lr in scheduler.get_last_lr()}


def test_a_tensor_that_replaces_a_float_in_mid_run_is_filled_from_then_on(workshop):
    optimizer, scheduler = at_peak(workshop, {})
    mine = torch.tensor(123.0)
    optimizer.param_groups[0]["lr"] = mine
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is mine
    assert 1.0 == mine.item()


def test_a_tensor_weight_decay_is_filled_in_place(workshop):
    optimizer = workshop.optimizer()
    wd = torch.tensor(0.1)
    optimizer.param_groups[0]["weight_decay"] = wd
    workshop.scheduler(optimizer).seek(50)
    assert optimizer.param_groups[0]["weight_decay"] is wd
    assert torch.tensor(0.05) == wd


def test_no_key_but_lr_and_weight_decay_is_added_to_a_group(workshop):
    optimizer = workshop.optimizer({}, {"max_lr": 3.0})
    keys = [set(group) for group in optimizer.param_groups]
    workshop.scheduler(optimizer).step()
    assert keys == [set(group) for group in optimizer.param_groups]


def test_an_optimizer_without_lr_or_weight_decay_keys_gets_them(floats):

    optimizer = SimpleNamespace(param_groups=[{"params": [1, 2]}, {"params": []}])
    floats.scheduler(optimizer).seek(10)
    assert [1.0, 1.0] == values(optimizer)
    assert pytest.approx([0.01, 0.01]) == values(optimizer, "weight_decay")


# Several optimizers, and wrappers


def test_every_optimizer_of_a_list_is_scheduled(workshop):
    optimizers = [workshop.optimizer(), workshop.optimizer({"lr": 4.0}, {"weight_decay": 0.0})]
    scheduler = workshop.scheduler(optimizers)
    scheduler.seek(10)
    assert [[1.0], [4.0, 1.0]] == [values(optimizer) for optimizer in optimizers]
    assert 0.0 == values(optimizers[1], "weight_decay")[1]
    assert [1.0, 4.0, 1.0] == scheduler.get_last_lr()


def test_an_optimizer_that_stands_twice_in_the_list_is_refused(workshop):
    optimizer = workshop.optimizer()
    with pytest.raises(ConfigError, match="twice"):
        workshop.scheduler([optimizer, SimpleNamespace(optimizer=optimizer, param_groups=[])])


@pytest.mark.parametrize("attribute", ["optimizer", "optimizers", "chained_optimizers"])
def test_a_wrapper_has_the_groups_of_the_optimizer_inside_written(workshop, attribute):
    inner = workshop.optimizer()
    wrapped = inner if attribute == "optimizer" else [inner]
    dead = [{"params": [], "lr": 0.25, "weight_decay": 0.0}]
    wrapper = SimpleNamespace(**{attribute: wrapped}, param_groups=dead)
    scheduler = workshop.scheduler(wrapper)
    scheduler.seek(10)
    assert ([1.0], 0.25) == (values(inner), dead[0]["lr"])


def test_a_wrapper_whose_optimizer_is_exchanged_has_the_new_one_written(workshop):
    wrapper = SimpleNamespace(optimizer=workshop.optimizer(), param_groups=[])
    scheduler = workshop.scheduler(wrapper)
    wrapper.optimizer = workshop.optimizer()
    scheduler.seek(10)
    assert [1.0] == values(wrapper.optimizer)


def test_an_optimizer_assigned_to_the_scheduler_is_followed_with_the_same_ratios(workshop):
    inner = workshop.optimizer({"lr": 2.0}, {"lr": 4.0})
    scheduler = workshop.scheduler(inner)
    scheduler.seek(10)
    copied = [{**group, "lr": workshop.lr(123.0)} for group in inner.param_groups]
    scheduler.optimizer = SimpleNamespace(param_groups=copied)
    assert [1.0, 2.0] == values(scheduler.optimizer)
    scheduler.seek(110)
    assert pytest.approx([0.1, 0.2]) == values(scheduler.optimizer)


@pytest.mark.parametrize("bad", [None, [], 3])
def test_what_is_no_optimizer_cannot_be_assigned(workshop, bad):
    scheduler = workshop.scheduler(optimizer := workshop.optimizer())
    with pytest.raises(ConfigError, match="optimizer="):
        scheduler.optimizer = bad
    scheduler.seek(10)
    assert optimizer is scheduler.optimizer
    assert [1.0] == values(optimizer)


# Rule 7: load order does not matter


def saved(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def at_60(workshop, *groups, **changes):
    optimizer = stepped(workshop, *groups)
    workshop.scheduler(workshop.optimizer())
    scheduler = workshop.scheduler(optimizer, **changes)
    scheduler.seek(60)
    return (
        saved(optimizer),
        scheduler.state_dict(),
        (values(optimizer), values(optimizer, "weight_decay")),
    )


ORDERS = ["optimizer first", "scheduler first", "scheduler alone"]


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_loads_does_not_matter(workshop, order):
    groups = [{}, {"lr": 3.0, "weight_decay": 0.0}, {"max_lr": 2.0}]
    optimizer_state, state, expected = at_60(workshop, *groups)
    optimizer = workshop.optimizer(*groups)
    scheduler = workshop.scheduler(optimizer)
    loads = [
        lambda: optimizer.load_state_dict(optimizer_state),
        lambda: scheduler.load_state_dict(state),
    ]
    for load in {"optimizer first": loads, "scheduler first": loads[::-1]}.get(order, loads[1:]):
        load()
    assert expected == (values(optimizer), values(optimizer, "weight_decay"))
    scheduler.step()
    whole = workshop.scheduler(workshop.optimizer(*groups))
    whole.seek(61)
    assert values(whole.optimizer) == values(optimizer)


def test_an_optimizer_load_alone_leaves_the_schedulers_values(workshop):
    optimizer_state, _, _ = at_60(workshop, {}, {"lr": 3.0})
    optimizer = workshop.optimizer({}, {"lr": 3.0})
    scheduler = workshop.scheduler(optimizer)
    scheduler.seek(5)
    optimizer.load_state_dict(optimizer_state)
    assert [0.5, 1.5] == values(optimizer)
    assert [0.5, 1.5] == scheduler.get_last_lr()


@pytest.mark.parametrize("saved_kind", ["floats", "tensors"])
def test_after_an_optimizer_load_the_scripts_own_objects_are_put_back(
    workshop, saved_kind, request
):

    optimizer_state, _, _ = at_60(request.getfixturevalue(saved_kind), {}, {"lr": 3.0})
    optimizer = workshop.optimizer({}, {"lr": 3.0})
    scheduler = workshop.scheduler(optimizer)
    own = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(optimizer_state)
    scheduler.seek(10)
    assert [1.0, 3.0] == values(optimizer)
    if workshop.kind == "tensor":
        assert all(a is b["lr"] for a, b in zip(own, optimizer.param_groups, strict=True))
    assert {torch.Tensor if workshop.kind == "tensor" else float} == {
        type(group["lr"]) for group in optimizer.param_groups
    }


def loaded(workshop, policy, script, checkpoint):
    """Give the second group after an optimizer load under a policy."""
    optimizer = workshop.optimizer({}, script)
    scheduler = workshop.scheduler(optimizer, policy=policy)
    other = workshop.optimizer({}, checkpoint)
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    scheduler.seek(10)
    return optimizer.param_groups[1]


BOUNDS = ({"max_lr": 2.0, "lr_mult": 3.0}, {"max_lr": 5.0, "wd_mult": 7.0})


def test_under_config_a_groups_bounds_and_multipliers_are_put_back(workshop):
    group = loaded(workshop, "config", *BOUNDS)
    assert (2.0, 3.0, False) == (group["max_lr"], group["lr_mult"], "wd_mult" in group)
    assert 6.0 == float(group["lr"])


@pytest.mark.parametrize("policy", ["checkpoint", "strict"])
def test_under_checkpoint_and_strict_the_loaded_ones_stay(workshop, policy, caplog):
    group = loaded(workshop, policy, *BOUNDS)
    assert (5.0, False, 7.0) == (group["max_lr"], "lr_mult" in group, group["wd_mult"])
    assert 5.0 == float(group["lr"])
    assert "group 1: max_lr is 2.0 in the script and 5.0 in the optimizer checkpoint" in caplog.text


def test_a_bound_follows_the_policy_of_its_entry_and_a_multiplier_that_of_the_rest(workshop):
    group = loaded(workshop, {"max_lr": "config", "*": "checkpoint"}, *BOUNDS)
    assert (2.0, False, 7.0) == (group["max_lr"], "lr_mult" in group, group["wd_mult"])
    group = loaded(workshop, {"max_lr": "checkpoint", "*": "config"}, *BOUNDS)
    assert (5.0, 3.0, False) == (group["max_lr"], group["lr_mult"], "wd_mult" in group)


def test_bounds_edited_in_mid_run_are_those_that_config_puts_back(workshop):
    optimizer = workshop.optimizer({}, {"max_lr": 2.0})
    scheduler = workshop.scheduler(optimizer, policy="config")
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.param_groups[1]["max_lr"] = 4.0
    optimizer.load_state_dict(state)
    scheduler.seek(10)
    assert [1.0, 4.0] == values(optimizer)


def test_an_optimizer_load_that_changes_no_bound_says_nothing(workshop, caplog):
    caplog.set_level(logging.INFO)
    loaded(workshop, "strict", BOUNDS[0], BOUNDS[0])
    assert not caplog.records


def test_the_load_of_an_optimizer_inside_a_wrapper_is_followed(workshop):
    optimizer_state, _, _ = at_60(workshop, {})
    inner = workshop.optimizer()
    scheduler = workshop.scheduler(SimpleNamespace(optimizer=inner, param_groups=[]))
    scheduler.seek(5)
    inner.load_state_dict(optimizer_state)
    assert [0.5] == values(inner)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_lr_on_a_gpu_is_filled_there_and_used_by_a_capturable_update(tensors):
    lr = torch.tensor(1.0, device="cuda")
    param = torch.nn.Parameter(torch.ones(2, device="cuda"))
    optimizer = torch.optim.AdamW([param], lr=lr, capturable=True)
    scheduler = tensors.scheduler(optimizer)
    scheduler.seek(60)
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert ("cuda", torch.tensor(0.55).item()) == (lr.device.type, lr.item())


def test_a_stand_in_with_nothing_but_param_groups_is_scheduled(floats):
    """Callers of the seeds test with such mocks."""
    optimizer = MagicMock()
    optimizer.param_groups = [{"lr": 0.0, "weight_decay": 0.0}]
    scheduler = floats.scheduler(optimizer)
    scheduler.step(10)
    assert [1.0] == values(optimizer)
    assert optimizer is scheduler.optimizer


def test_a_group_added_later_with_the_default_lr_has_what_was_declared_not_scheduled(tensors):
    lr = torch.tensor(1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=lr)
    scheduler = tensors.scheduler(optimizer)
    scheduler.seek(10)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    scheduler.seek(60)
    assert pytest.approx([0.55, 0.55]) == values(optimizer)
    assert 2 == len({group["lr"].data_ptr() for group in optimizer.param_groups})


def test_without_keep_group_ratios_a_loaded_optimizer_is_no_cause_for_doubt(workshop, caplog):
    workshop.scheduler(stepped(workshop, {}, {}, lr=0.0), keep_group_ratios=False)
    assert not caplog.records


def test_a_second_scheduler_on_a_stepped_optimizer_is_no_cause_for_doubt(workshop, caplog):
    optimizer = workshop.optimizer({}, {"lr": 3.0})
    workshop.scheduler(optimizer)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    workshop.scheduler(optimizer).seek(10)
    assert not caplog.records
    assert [1.0, 3.0] == values(optimizer)


def test_a_group_whose_parameters_were_exchanged_keeps_its_ratio(workshop):
    """As where an optimizer puts master copies in the place of its parameters."""
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0}, {"lr": 4.0})
    optimizer.param_groups[1]["params"] = [torch.nn.Parameter(torch.ones(2))]
    optimizer.add_param_group(new_group(workshop, lr=6.0))
    scheduler.step()
    assert [1.0, 2.0, 3.0] == values(optimizer)


def test_a_tensor_that_replaced_a_float_in_mid_run_is_put_back_after_a_load(workshop):
    optimizer, _scheduler = at_peak(workshop, {})
    state = copy.deepcopy(optimizer.state_dict())
    mine = torch.tensor(123.0)
    optimizer.param_groups[0]["lr"] = mine
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] is mine
    assert [1.0] == values(optimizer)


def test_an_optimizer_that_names_itself_as_the_one_inside_is_scheduled(workshop):
    optimizer = workshop.optimizer()
    optimizer.optimizer = optimizer
    workshop.scheduler(optimizer).seek(10)
    assert [1.0] == values(optimizer)


def test_the_load_of_an_optimizer_that_was_assigned_is_followed(workshop):
    optimizer_state, _, _ = at_60(workshop, {})
    scheduler = workshop.scheduler()
    scheduler.seek(5)
    scheduler.optimizer = workshop.optimizer()
    scheduler.optimizer.load_state_dict(optimizer_state)
    assert [0.5] == values(scheduler.optimizer)


def test_a_scheduler_that_is_gone_leaves_no_hook_behind(workshop):
    optimizer = workshop.optimizer()
    scheduler = workshop.scheduler(optimizer)
    assert optimizer._optimizer_load_state_dict_post_hooks
    del scheduler
    gc.collect()
    assert not optimizer._optimizer_load_state_dict_pre_hooks
    assert not optimizer._optimizer_load_state_dict_post_hooks


def test_a_new_optimizer_that_has_state_from_the_start_was_not_loaded(floats, caplog):
    optimizer = floats.optimizer({}, {}, weight_decay=0.0, cls=torch.optim.Adagrad)
    assert optimizer.state
    floats.scheduler(optimizer).seek(50)
    assert [0.05, 0.05] == values(optimizer, "weight_decay")
    assert not caplog.records


def test_an_optimizer_that_its_own_parameter_refers_to_is_freed(workshop):
    """As where a parameter's hook steps its optimizer in the backward pass."""
    optimizer = workshop.optimizer()
    optimizer.param_groups[0]["params"][0].owner = optimizer
    scheduler = workshop.scheduler(optimizer)
    reference = weakref.ref(optimizer)
    del optimizer, scheduler
    gc.collect()
    assert reference() is None


def test_a_second_scheduler_measures_against_what_the_first_remembered(workshop):
    optimizer, first = at_peak(workshop, {"lr": 2.0}, {"lr": 4.0})
    del optimizer.param_groups[0]
    first.step(0)
    workshop.scheduler(optimizer).seek(10)
    assert [2.0] == values(optimizer)


def test_two_schedulers_on_one_optimizer_both_see_what_a_load_carried(workshop, caplog):
    optimizer_state, state, _ = at_60(workshop, {}, {"lr": 3.0})
    caplog.clear()
    optimizer = workshop.optimizer({}, {"lr": 3.0})
    kept = [workshop.scheduler(optimizer) for _ in range(2)]
    optimizer.load_state_dict(optimizer_state)
    kept[1].load_state_dict(state)
    assert "carried" not in caplog.text


def test_assigning_an_optimizer_again_leaves_one_pair_of_hooks(workshop):
    optimizer = workshop.optimizer()
    scheduler = workshop.scheduler(optimizer)
    for _ in range(3):
        scheduler.optimizer = SimpleNamespace(optimizer=optimizer, param_groups=[])
    assert 1 == len(optimizer._optimizer_load_state_dict_pre_hooks)
    assert 1 == len(optimizer._optimizer_load_state_dict_post_hooks)


def test_what_was_carried_is_compared_under_the_bounds_that_came_with_it(workshop, caplog):
    optimizer_state, state, _ = at_60(workshop, {}, {"max_lr": 2.0})
    caplog.clear()
    optimizer = workshop.optimizer({}, {"max_lr": 5.0})
    scheduler = workshop.scheduler(optimizer, policy="config")
    scheduler.load_state_dict(state)
    optimizer.load_state_dict(optimizer_state)
    assert "max_lr is 5.0 in the script and 2.0" in caplog.text
    assert "carried" not in caplog.text


def test_a_late_group_that_will_stay_at_zero_is_named(workshop, caplog):
    optimizer, scheduler = at_peak(workshop, {"lr": 2.0})
    optimizer.add_param_group(new_group(workshop, lr=0.0))
    scheduler.step()
    assert "group 1 was added with lr=0, and stays at 0" in caplog.text


@pytest.mark.parametrize(
    "lr",
    [torch.tensor(1), torch.tensor(True), torch.ones(2), torch.empty((), device="meta")],
    ids=["integer", "bool", "two", "no data"],
)
def test_a_tensor_that_cannot_hold_a_rate_is_refused(workshop, lr):
    optimizer = workshop.optimizer({}, {})
    optimizer.param_groups[1]["lr"] = lr
    with pytest.raises(ConfigError, match=r"group 1: lr=.*one floating-point number"):
        workshop.scheduler(optimizer)


def test_a_ratio_too_large_for_a_float_is_refused(floats):
    with pytest.raises(ConfigError, match=r"group 1: lr=1\.0 is too large a multiple of 1e-310"):
        floats.scheduler(floats.optimizer({"lr": 1e-310}, {"lr": 1.0}))


def test_an_illegal_bound_that_a_load_brings_is_refused_and_the_scripts_put_back(workshop):
    optimizer = workshop.optimizer({}, {"max_lr": 2.0})
    scheduler = workshop.scheduler(optimizer)
    scheduler.seek(10)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][1]["max_lr"] = float("nan")
    with pytest.raises(ConfigError, match="group 1: max_lr=nan"):
        optimizer.load_state_dict(state)
    assert [1.0, 2.0] == values(optimizer)


def test_tensors_that_share_their_storage_become_one_for_each(tensors):
    lr = torch.tensor(1.0)
    optimizer = tensors.optimizer({}, {"lr_mult": 2.0})
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = lr, lr.detach()
    tensors.scheduler(optimizer).seek(10)
    assert [1.0, 2.0] == values(optimizer)


@pytest.mark.parametrize("depth", [1, 2])
def test_wrappers_that_are_no_optimizers_themselves_are_unwrapped(workshop, depth):
    optimizer_state, _, _ = at_60(workshop, {})
    inner = wrapped = workshop.optimizer()
    for _ in range(depth):
        wrapped = SimpleNamespace(optimizer=wrapped, param_groups=[])
    scheduler = workshop.scheduler(wrapped)
    scheduler.seek(5)
    inner.load_state_dict(optimizer_state)
    assert [0.5] == values(inner)


@pytest.mark.parametrize(
    "state", [{"momentum": torch.ones(2)}, {"step": torch.ones(2)}, [1], torch.ones(2)]
)
def test_state_of_any_make_counts_as_that_of_a_loaded_optimizer(floats, state, caplog):
    optimizer = floats.optimizer({}, {"lr": 3.0})
    optimizer.state[optimizer.param_groups[0]["params"][0]] = state
    floats.scheduler(optimizer)
    assert "lr [1.0, 3.0]" in caplog.text


def test_an_optimizer_that_cannot_be_followed_leaves_the_old_one_scheduled(workshop):
    optimizer = workshop.optimizer()
    scheduler = workshop.scheduler(optimizer)
    bad = SimpleNamespace(param_groups=[{"params": [], "lr": float("nan")}])
    with pytest.raises(ConfigError, match="group 0: lr=nan"):
        scheduler.optimizer = bad
    scheduler.seek(10)
    assert [1.0] == values(optimizer)
    assert optimizer is scheduler.optimizer


def test_an_optimizer_with_an_illegal_group_cannot_be_assigned_and_no_ratio_is_lost(workshop):
    optimizer = workshop.optimizer({"lr": 2.0}, {"lr": 4.0})
    scheduler = workshop.scheduler(optimizer)
    with pytest.raises(ConfigError, match="group 1: max_lr='high'"):
        scheduler.optimizer = workshop.optimizer({}, {"max_lr": "high"})
    scheduler.seek(10)
    assert optimizer is scheduler.optimizer
    assert [1.0, 2.0] == values(optimizer)


def test_an_empty_container_is_scheduled_by_its_own_groups(floats):
    optimizer = SimpleNamespace(optimizers=[], param_groups=[{"params": [], "lr": 2.0}])
    floats.scheduler(optimizer).seek(10)
    assert [1.0] == values(optimizer)


def test_a_second_scheduler_over_more_optimizers_recalls_each_by_itself(workshop, caplog):
    first, second = stepped(workshop, {"lr": 2.0}, {"lr": 4.0}), workshop.optimizer({"lr": 2.0})
    workshop.scheduler(first)
    caplog.clear()
    workshop.scheduler([second, first]).seek(10)
    assert [[1.0], [1.0, 2.0]] == [values(second), values(first)]
    assert not caplog.records


def test_what_an_optimizer_carried_is_kept_as_it_was_at_the_load(workshop, caplog):
    _, state, _ = at_60(workshop, {})
    optimizer = workshop.optimizer()
    scheduler = workshop.scheduler(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler.seek(60)
    scheduler.load_state_dict(state)
    assert "carried lr=0.0, where" in caplog.text
