"""Tracked groups: how each is recognised, wrapped optimizers, and those that were used before."""

from __future__ import annotations

import copy
import gc
import weakref
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from dist_sched import ConfigError
from dist_sched._optim.tracking import TrackedGroup
from helpers import (
    FLOAT_AND_TENSOR_LR,
    UP,
    adamw,
    held,
    new_group,
    opt_param_scheduler,
    param_scheduler,
)


def at_peak(*groups, build=adamw, **arguments):
    """Return an optimizer at lr 1.0 and weight decay 0.05, and its scheduler."""
    optimizer = build(*groups, **arguments)
    scheduler = opt_param_scheduler(optimizer, lr_decay_style="constant")
    scheduler.seek(50)
    return optimizer, scheduler


def stepped(*groups, build=adamw, **arguments):
    optimizer = build(*groups, **arguments)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    return optimizer


def test_a_group_added_later_is_measured_against_the_remembered_values():
    optimizer, scheduler = at_peak({"lr": 2.0})
    optimizer.add_param_group(new_group(lr=6.0, weight_decay=0.0))
    scheduler.step()
    assert [1.0, 3.0] == held(optimizer)
    assert 0.0 == held(optimizer, "weight_decay")[1]


@FLOAT_AND_TENSOR_LR
def test_a_group_added_later_without_values_has_the_optimizers_defaults(build):
    optimizer, scheduler = at_peak({"lr": 2.0}, build=build)
    for _ in range(2):
        optimizer.add_param_group(new_group())
    scheduler.step()
    assert [1.0, 0.5, 0.5] == held(optimizer)


def test_a_group_added_later_with_the_default_lr_has_what_was_declared_not_scheduled():
    lr = torch.tensor(1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=lr)
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    scheduler.seek(60)
    assert pytest.approx([0.55, 0.55]) == held(optimizer)
    assert 2 == len({group["lr"].data_ptr() for group in optimizer.param_groups})


def test_a_late_group_that_will_stay_at_zero_is_named(caplog):
    optimizer, scheduler = at_peak({"lr": 2.0})
    optimizer.add_param_group(new_group(lr=0.0))
    scheduler.step()
    assert "group 1 was added with lr=0, so its lr stays at 0" in caplog.text


def test_a_late_group_without_weight_decay_is_meant(caplog):
    optimizer, scheduler = at_peak({"lr": 2.0, "weight_decay": 0.1})
    optimizer.add_param_group(new_group(lr=2.0, initial_lr=2.0, weight_decay=0.0))
    scheduler.step()
    assert not caplog.records


def test_asking_for_values_does_not_change_a_group_added_later():
    optimizer, scheduler = at_peak({"lr": 2.0})
    optimizer.add_param_group(new_group(lr=6.0))
    assert [1.0, 3.0] == scheduler.get_last_lr()
    repr(scheduler)
    assert [1.0, 6.0] == held(optimizer)


def test_a_removed_group_is_forgotten():
    optimizer, scheduler = at_peak({"lr": 2.0}, {"lr": 4.0})
    del optimizer.param_groups[0]
    scheduler.step()
    assert [2.0] == held(optimizer)


@FLOAT_AND_TENSOR_LR
def test_groups_that_change_places_keep_their_own_ratios(build):
    optimizer, scheduler = at_peak({"lr": 2.0}, {"lr": 4.0}, build=build)
    optimizer.param_groups.reverse()
    scheduler.step()
    assert [2.0, 1.0] == held(optimizer)


def test_a_group_whose_dict_was_replaced_is_recognised_by_its_parameters():
    optimizer, scheduler = at_peak({"lr": 2.0}, {"lr": 4.0})
    optimizer.param_groups[1] = {**optimizer.param_groups[1], "lr": 123.0}
    scheduler.step()
    assert [1.0, 2.0] == held(optimizer)


def test_an_empty_group_is_recognised_by_its_place():
    optimizer = SimpleNamespace(
        param_groups=[{"params": [], "lr": 1.0}, {"params": [], "lr": 3.0, "weight_decay": 0.0}]
    )

    scheduler = opt_param_scheduler(optimizer)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    scheduler.seek(10)
    assert [1.0, 3.0] == held(optimizer)


def test_a_group_whose_parameters_were_exchanged_keeps_its_ratio():
    """As where an optimizer puts master copies in the place of its parameters."""
    optimizer, scheduler = at_peak({"lr": 2.0}, {"lr": 4.0})
    optimizer.param_groups[1]["params"] = [torch.nn.Parameter(torch.ones(2))]
    optimizer.add_param_group(new_group(lr=6.0))
    scheduler.step()
    assert [1.0, 2.0, 3.0] == held(optimizer)


def test_a_second_scheduler_gets_the_ratios_that_the_first_saw():
    optimizer, first = at_peak({"lr": 2.0}, {"lr": 4.0, "weight_decay": 0.0})
    first.seek(0)
    second = opt_param_scheduler(optimizer)
    second.seek(10)
    assert [1.0, 2.0] == held(optimizer)
    assert 0.0 == held(optimizer, "weight_decay")[1]


def test_a_second_scheduler_gets_the_ratio_of_a_group_added_under_the_first():
    optimizer, first = at_peak({"lr": 2.0})
    optimizer.add_param_group(new_group(lr=6.0))
    first.step()
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 3.0] == held(optimizer)


@FLOAT_AND_TENSOR_LR
def test_a_second_scheduler_gets_the_ratios_after_the_first_has_gone_and_a_load(build):
    optimizer, first = at_peak({"lr": 2.0}, {"lr": 4.0}, build=build)
    first.seek(0)
    del first
    optimizer.load_state_dict(optimizer.state_dict())
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 2.0] == held(optimizer)


def test_a_second_scheduler_over_more_optimizers_recalls_each_by_itself(caplog):
    first, second = stepped({"lr": 2.0}, {"lr": 4.0}), adamw({"lr": 2.0})
    opt_param_scheduler(first)
    caplog.clear()
    opt_param_scheduler([second, first]).seek(10)
    assert [[1.0], [1.0, 2.0]] == [held(second), held(first)]
    assert not caplog.records


def test_a_second_scheduler_on_a_stepped_optimizer_is_no_cause_for_doubt(caplog):
    optimizer = adamw({}, {"lr": 3.0})
    opt_param_scheduler(optimizer)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    opt_param_scheduler(optimizer).seek(10)
    assert not caplog.records
    assert [1.0, 3.0] == held(optimizer)


def test_ratios_read_from_a_loaded_optimizer_are_logged_at_warning(caplog):
    opt_param_scheduler(stepped({"lr": 1.0}, {"lr": 3.0}))
    assert "lr [1.0, 3.0]" in caplog.text
    assert {("dist_sched", "WARNING")} == {(one.name, one.levelname) for one in caplog.records}


@pytest.mark.parametrize(
    "state", [{"momentum": torch.ones(2)}, {"step": torch.ones(2)}, [1], torch.ones(2)]
)
def test_state_of_any_make_counts_as_that_of_a_loaded_optimizer(state, caplog):
    optimizer = adamw({}, {"lr": 3.0})
    optimizer.state[optimizer.param_groups[0]["params"][0]] = state
    opt_param_scheduler(optimizer)
    assert "lr [1.0, 3.0]" in caplog.text


def test_a_new_optimizer_that_has_state_from_the_start_was_not_loaded(caplog):
    optimizer = torch.optim.Adagrad([new_group(), new_group()])
    assert optimizer.state
    opt_param_scheduler(optimizer).seek(50)
    assert [0.05, 0.05] == held(optimizer, "weight_decay")
    assert "loaded" not in caplog.text


def test_without_keep_group_ratios_a_loaded_optimizer_is_no_cause_for_doubt(caplog):
    opt_param_scheduler(stepped({}, {}, lr=0.0), keep_group_ratios=False)
    assert not caplog.records


def test_a_loaded_optimizer_whose_lrs_are_all_zero_is_refused():
    optimizer = stepped({}, {}, lr=0.0)
    with pytest.raises(ConfigError, match=r"every group's lr is 0.*build the scheduler first"):
        opt_param_scheduler(optimizer)


def test_a_loaded_optimizer_whose_lrs_are_all_zero_but_have_multipliers_is_legal():
    optimizer = stepped({"lr_mult": 1.0}, {"lr_mult": 3.0}, lr=0.0)
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 3.0] == held(optimizer)


def test_zeros_are_no_loss_where_there_is_one_group_or_nothing_to_scale():
    opt_param_scheduler(stepped({}, lr=0.0))
    opt_param_scheduler(stepped({}, {}, weight_decay=0.0), start_wd=0.0, end_wd=0.0)


def test_every_optimizer_of_a_list_is_scheduled():
    optimizers = [adamw(), adamw({"lr": 4.0}, {"weight_decay": 0.0})]
    scheduler = opt_param_scheduler(optimizers)
    scheduler.seek(10)
    assert [[1.0], [4.0, 1.0]] == [held(optimizer) for optimizer in optimizers]
    assert 0.0 == held(optimizers[1], "weight_decay")[1]
    assert [1.0, 4.0, 1.0] == scheduler.get_last_lr()


@pytest.mark.parametrize("added", [False, True])
def test_what_torchs_one_cycle_has_left_is_no_bound_and_initial_lr_the_own_lr(added):
    left = {"lr": 0.25, "initial_lr": 1.0, "max_lr": 4.0, "min_lr": 0.5, "weight_decay": 0.1}
    optimizer = adamw({"lr": 2.0}, *[left] * (not added))
    scheduler = opt_param_scheduler(optimizer, max_lr=2.0)
    if added:
        scheduler.seek(5)
        optimizer.add_param_group(new_group(**left))
    scheduler.seek(10)
    tracked = scheduler._writer.tracker.tracked[1]
    assert ([2.0, 1.0], {"max_lr": 4.0, "min_lr": 0.5}) == (held(optimizer), tracked.leftovers)
    assert tracked.has_initial_lr
    assert (None, None) == (tracked.override("max_lr"), tracked.override("min_lr"))


def test_a_key_of_the_optimizers_own_is_neither_initial_lr_nor_a_leftover():
    optimizer = adamw({"lr": 0.5, "initial_lr": 1.0, "max_lr": 4.0, "min_lr": 0.5})
    optimizer.defaults |= {"initial_lr": 1.0, "max_lr": 4.0}
    (one,) = opt_param_scheduler(optimizer)._writer.tracker.tracked
    assert (False, 0.5) == (one.has_initial_lr, one.own_value("lr"))
    assert {"initial_lr", "max_lr"} == one.not_ours
    assert {"min_lr": 0.5} == one.leftovers


def test_the_older_of_two_schedulers_of_an_optimizer_is_named_in_the_log(caplog):
    optimizer = adamw()
    older = opt_param_scheduler(optimizer)
    newer = opt_param_scheduler(optimizer)
    (record,) = caplog.records
    assert ("dist_sched", "WARNING") == (record.name, record.levelname)
    assert (True, False) == (older._writer.tracker.is_replaced, newer._writer.tracker.is_replaced)


@pytest.mark.parametrize(
    "names, labels",
    [
        ([["a", "b"]], ["a", "b"]),
        ([[None, "b"]], ["0", "b"]),
        ([["a", "a"]], ["a.0.0", "a.0.1"]),
        ([[None, "a"], [None, "b"]], ["0.0", "a", "1.0", "b"]),
        ([["a"], ["a", "c"]], ["a.0.0", "a.1.0", "c"]),
        ([[7, "7"]], ["0", "7"]),
        ([["1", None]], ["1.0.0", "0.1"]),
    ],
    ids=str,
)
def test_a_groups_label_is_its_name_or_index_and_both_indices_where_that_is_not_unique(
    names, labels
):
    optimizers = [
        adamw(*({} if name is None else {"name": name} for name in each)) for each in names
    ]
    assert labels == opt_param_scheduler(optimizers)._writer.tracker.labels()


def test_an_optimizer_that_stands_twice_in_the_list_is_refused():
    optimizer = adamw()
    with pytest.raises(ConfigError, match="twice"):
        opt_param_scheduler([optimizer, SimpleNamespace(optimizer=optimizer, param_groups=[])])


@pytest.mark.parametrize("attribute", ["optimizer", "optimizers", "chained_optimizers"])
def test_a_wrapper_has_the_groups_of_the_optimizer_inside_written(attribute):
    inner = adamw()
    wrapped = inner if attribute == "optimizer" else [inner]
    dead = [{"params": [], "lr": 0.25, "weight_decay": 0.0}]
    wrapper = SimpleNamespace(**{attribute: wrapped}, param_groups=dead)
    scheduler = opt_param_scheduler(wrapper)
    scheduler.seek(10)
    assert ([1.0], 0.25) == (held(inner), dead[0]["lr"])


@pytest.mark.parametrize("depth", [1, 2])
def test_wrappers_that_are_no_optimizers_themselves_are_unwrapped(depth):
    optimizer_state = adamw(lr=0.25).state_dict()
    inner = wrapped = adamw()
    for _ in range(depth):
        wrapped = SimpleNamespace(optimizer=wrapped, param_groups=[])
    scheduler = opt_param_scheduler(wrapped)
    scheduler.seek(5)
    inner.load_state_dict(optimizer_state)
    assert [0.5] == held(inner)


def test_a_wrapper_whose_optimizer_is_exchanged_has_the_new_one_written():
    wrapper = SimpleNamespace(optimizer=adamw(), param_groups=[])
    scheduler = opt_param_scheduler(wrapper)
    wrapper.optimizer = adamw()
    scheduler.seek(10)
    assert [1.0] == held(wrapper.optimizer)


def test_an_optimizer_that_names_itself_as_the_one_inside_is_scheduled():
    optimizer = adamw()
    optimizer.optimizer = optimizer
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0] == held(optimizer)


def test_an_empty_container_is_scheduled_by_its_own_groups():
    optimizer = SimpleNamespace(optimizers=[], param_groups=[{"params": [], "lr": 2.0}])
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0] == held(optimizer)


def test_a_stand_in_with_nothing_but_param_groups_is_scheduled():
    """Callers of Megatron's class test with such mocks."""
    optimizer = MagicMock()
    optimizer.param_groups = [{"lr": 0.0, "weight_decay": 0.0}]
    scheduler = opt_param_scheduler(optimizer)
    scheduler.step(10)
    assert [1.0] == held(optimizer)
    assert optimizer is scheduler.optimizer


@FLOAT_AND_TENSOR_LR
def test_an_optimizer_assigned_to_the_scheduler_is_followed_with_the_same_ratios(build):
    inner = build({"lr": 2.0}, {"lr": 4.0})
    scheduler = opt_param_scheduler(inner)
    scheduler.seek(10)
    copied = [{**group, "lr": copy.copy(group["lr"])} for group in inner.param_groups]
    scheduler.optimizer = SimpleNamespace(param_groups=copied)
    assert [1.0, 2.0] == held(scheduler.optimizer)
    scheduler.seek(110)
    assert pytest.approx([0.1, 0.2]) == held(scheduler.optimizer)


@pytest.mark.parametrize("bad", [None, [], 3])
def test_what_is_no_optimizer_cannot_be_assigned(bad):
    scheduler = opt_param_scheduler(optimizer := adamw())
    with pytest.raises(ConfigError, match="optimizer"):
        scheduler.optimizer = bad
    scheduler.seek(10)
    assert optimizer is scheduler.optimizer
    assert [1.0] == held(optimizer)


def test_an_optimizer_that_cannot_be_followed_leaves_the_old_one_scheduled():
    optimizer = adamw()
    scheduler = opt_param_scheduler(optimizer)
    bad = SimpleNamespace(param_groups=[{"params": [], "lr": float("nan")}])
    with pytest.raises(ConfigError, match="group 0: lr=nan"):
        scheduler.optimizer = bad
    scheduler.seek(10)
    assert [1.0] == held(optimizer)
    assert optimizer is scheduler.optimizer


def test_an_optimizer_with_an_illegal_group_cannot_be_assigned_and_no_ratio_is_lost():
    optimizer = adamw({"lr": 2.0}, {"lr": 4.0})
    scheduler = opt_param_scheduler(optimizer)
    with pytest.raises(ConfigError, match="group 1: max_lr='high'"):
        scheduler.optimizer = adamw({}, {"max_lr": "high"})
    scheduler.seek(10)
    assert optimizer is scheduler.optimizer
    assert [1.0, 2.0] == held(optimizer)


def test_the_load_of_an_optimizer_that_was_assigned_is_followed():
    optimizer_state = adamw(lr=0.25).state_dict()
    scheduler = opt_param_scheduler()
    scheduler.seek(5)
    scheduler.optimizer = adamw()
    scheduler.optimizer.load_state_dict(optimizer_state)
    assert [0.5] == held(scheduler.optimizer)


def test_the_load_of_an_optimizer_inside_a_wrapper_is_followed():
    optimizer_state = adamw(lr=0.25).state_dict()
    inner = adamw()
    scheduler = opt_param_scheduler(SimpleNamespace(optimizer=inner, param_groups=[]))
    scheduler.seek(5)
    inner.load_state_dict(optimizer_state)
    assert [0.5] == held(inner)


def test_a_scheduler_that_is_gone_leaves_no_hook_behind():
    optimizer = adamw()
    scheduler = opt_param_scheduler(optimizer)
    assert optimizer._optimizer_load_state_dict_post_hooks
    del scheduler
    gc.collect()
    assert not optimizer._optimizer_load_state_dict_pre_hooks
    assert not optimizer._optimizer_load_state_dict_post_hooks


def test_an_optimizer_that_its_own_parameter_refers_to_is_freed():
    """As where a parameter's hook steps its optimizer in the backward pass."""
    optimizer = adamw()
    optimizer.param_groups[0]["params"][0].owner = optimizer
    scheduler = opt_param_scheduler(optimizer)
    reference = weakref.ref(optimizer)
    del optimizer, scheduler
    gc.collect()
    assert reference() is None


def test_assigning_an_optimizer_again_leaves_one_pair_of_hooks():
    optimizer = adamw()
    scheduler = opt_param_scheduler(optimizer)
    for _ in range(3):
        scheduler.optimizer = SimpleNamespace(optimizer=optimizer, param_groups=[])
    assert 1 == len(optimizer._optimizer_load_state_dict_pre_hooks)
    assert 1 == len(optimizer._optimizer_load_state_dict_post_hooks)


def test_a_group_is_at_its_place_only_with_its_very_dict_and_all_of_its_place():
    group = {"lr": 1.0}
    place = {"source": 1, "index": 2, "optimizer": "SGD 1", "place": 5, "not_ours": frozenset("a")}
    one = TrackedGroup(group, **place)
    assert one.is_at(group, **place)
    assert not one.is_at(dict(group), **place)
    others = {"source": 0, "index": 0, "optimizer": "SGD", "place": 0, "not_ours": frozenset()}
    for key, value in others.items():
        assert not one.is_at(group, **{**place, key: value})


def test_overrides_are_neither_none_nor_hyper_parameters_nor_leftovers():
    one = TrackedGroup({}, 0, 0, not_ours=frozenset({"lr_mult"}), leftovers={"max_lr": 4.0})
    held_before = {"lr_mult": 2.0, "max_lr": 4.0, "min_lr": 0.5, "wd_mult": None}
    assert {"min_lr": 0.5} == one.own_overrides(held_before)
    assert {"max_lr": 3.0} == one.own_overrides({"max_lr": 3.0})


@pytest.mark.parametrize("lowest, is_left", [(0.5, True), (1.0, True), (1.5, False)])
def test_bounds_are_leftovers_where_the_lowest_is_not_above_the_first_lr(lowest, is_left):
    group = {"initial_lr": 1.0, "max_lr": 4.0, "min_lr": lowest}
    one = TrackedGroup(group, 0, 0, not_ours=frozenset({"min_lr"}))
    one.note_leftovers()
    assert ({"max_lr": 4.0} if is_left else {}) == one.leftovers


def test_floats_tensors_and_keys_that_a_load_has_changed_are_put_back():
    mine = torch.tensor(2.0)
    fields = param_scheduler(adamw(), {"lr": UP, "weight_decay": UP, "betas[0]": UP, "eps": UP})
    one = TrackedGroup({"lr": torch.tensor(0.5), "eps": 1.0}, 0, 0, tensors={"eps": mine})
    one.own = {"lr": 1.0, "weight_decay": 0.5, "betas[0]": 0.5, "eps": 2.0}
    one.put_back_tensors(fields._writer.plan.fields)
    assert {"lr", "eps", "weight_decay"} == one.group.keys()
    assert (float, float) == (type(one.group["lr"]), type(one.group["weight_decay"]))
    assert one.group["eps"] is mine


def test_groups_are_known_by_their_lr_where_our_own_scheduler_has_written_it():
    optimizer = adamw({}, {})
    first = param_scheduler(optimizer, {"weight_decay": UP})
    second = param_scheduler(optimizer, {"lr": UP})
    third = param_scheduler(optimizer, {"weight_decay": UP})
    counts = [len(one._writer.tracker.known_lr) for one in (first, second, third)]
    assert [0, 0, 2] == counts
