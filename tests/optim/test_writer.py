"""The writer: ratios, bounds and multipliers of groups, and how values are written."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from dist_sched import ConfigError, ParamScheduler, schedules
from dist_sched._config.plan import Plan
from dist_sched._optim.rows import Row
from dist_sched._optim.writer import Reach, Writer
from helpers import (
    FLOAT_AND_TENSOR_LR,
    HILL,
    UP,
    adamw,
    adamw_of_tensors,
    held,
    new_group,
    opt_param_scheduler,
    param_scheduler,
    sgd,
)


def at_peak(*groups, build=adamw, **arguments):
    """Return an optimizer at lr 1.0 and weight decay 0.05, and its scheduler."""
    optimizer = build(*groups, **arguments)
    scheduler = opt_param_scheduler(optimizer, lr_decay_style="constant")
    scheduler.seek(50)
    return optimizer, scheduler


@FLOAT_AND_TENSOR_LR
def test_a_group_keeps_its_ratio_to_the_first_groups_lr_and_weight_decay(build):
    groups = [{}, {"lr": 5.0}, {"lr": 0.5, "weight_decay": 0.2}]
    optimizer, _ = at_peak(*groups, build=build)
    assert [1.0, 5.0, 0.5] == held(optimizer)
    assert [0.05, 0.05, 0.1] == held(optimizer, "weight_decay")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_no_decay_group_keeps_its_zero_wherever_it_stands(place):
    groups = [{}, {}]
    groups.insert(place, {"weight_decay": 0.0})
    optimizer, _ = at_peak(*groups)
    expected = [0.05, 0.05]
    expected.insert(place, 0.0)
    assert expected == held(optimizer, "weight_decay")


def test_ratios_are_measured_field_by_field_against_the_first_that_is_not_zero():
    optimizer, _ = at_peak({"lr": 0.0}, {"lr": 2.0, "weight_decay": 0.0}, {"lr": 4.0})
    assert [0.0, 1.0, 2.0] == held(optimizer)
    assert [0.05, 0.0, 0.05] == held(optimizer, "weight_decay")


def test_where_every_group_is_zero_every_ratio_is_one():
    optimizer, _ = at_peak({}, {}, weight_decay=0.0)
    assert [0.05, 0.05] == held(optimizer, "weight_decay")


def test_a_group_without_a_value_has_ratio_one():
    optimizer = adamw({}, {"lr": 5.0})
    optimizer.param_groups[0]["lr"] = None
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 1.0] == held(optimizer)


@pytest.mark.parametrize("bad", [float("nan"), -1.0, float("inf"), "fast"], ids=repr)
def test_a_group_with_an_illegal_value_of_its_own_is_refused(bad):
    optimizer = adamw({}, {})
    optimizer.param_groups[1]["weight_decay"] = bad
    before = held(optimizer)
    with pytest.raises(ConfigError, match="group 1: weight_decay="):
        opt_param_scheduler(optimizer)
    assert before == held(optimizer)


def test_without_keep_group_ratios_every_group_has_the_same_values():
    optimizer = adamw({}, {"lr": 5.0, "weight_decay": 0.0})
    opt_param_scheduler(optimizer, keep_group_ratios=False).seek(10)
    assert [1.0, 1.0] == held(optimizer)
    assert pytest.approx([0.01, 0.01]) == held(optimizer, "weight_decay")


@FLOAT_AND_TENSOR_LR
def test_bounds_and_multipliers_take_effect_at_the_next_step_and_go_when_removed(build):
    optimizer, scheduler = at_peak({}, {"lr": 5.0}, build=build)
    group = optimizer.param_groups[1]
    found = []
    for change in ({"max_lr": 3.0}, {"max_lr": 4.0}, {"lr_mult": 0.5}):
        group.update(change)
        scheduler.step(0)
        found += held(optimizer)[1:]
    del group["max_lr"]
    scheduler.step(0)
    del group["lr_mult"]
    found += held(optimizer)[1:]
    scheduler.step(0)
    assert [3.0, 4.0, 2.0, 0.5, 5.0] == [*found, *held(optimizer)[1:]]


def test_a_key_swapped_for_a_bound_takes_effect():
    optimizer, scheduler = at_peak({"initial_lr": 3.0})
    optimizer.param_groups[0]["max_lr"] = optimizer.param_groups[0].pop("initial_lr")
    scheduler.step()
    assert [3.0] == held(optimizer)


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
def test_an_override_replaces_only_its_own_fields_ratio(override, lr, wd):
    optimizer, _ = at_peak({}, {"lr": 5.0, "weight_decay": 0.0, **override})
    assert lr == pytest.approx(held(optimizer)[1])
    assert wd == pytest.approx(held(optimizer, "weight_decay")[1])


def test_get_lr_and_get_wd_leave_ratios_and_multipliers_out():
    optimizer, scheduler = at_peak({"lr": 2.0}, {"lr": 4.0, "lr_mult": 3.0, "wd_mult": 3.0})
    assert [1.0, 1.0] == [scheduler.get_lr(group) for group in optimizer.param_groups]
    assert [0.05, 0.05] == [scheduler.get_wd(group) for group in optimizer.param_groups]
    assert 0.05 == scheduler.get_wd()
    assert 7.0 == scheduler.get_lr({"max_lr": 7.0})
    assert pytest.approx(0.1) == scheduler.get_wd({"end_wd": 0.2})


@pytest.mark.parametrize(
    "name, bad",
    [
        *(("max_lr", bad) for bad in (float("nan"), float("inf"), -1.0, "1", True)),
        *((name, -1.0) for name in ("min_lr", "start_wd", "end_wd", "lr_mult", "wd_mult")),
        *((name, 1e300) for name in ("max_lr", "min_lr", "start_wd", "end_wd")),
    ],
)
def test_an_illegal_override_is_refused_by_group_and_name(name, bad):
    optimizer = adamw({}, {name: bad}, lr=0.25)
    before = held(optimizer)
    with pytest.raises(ConfigError, match=f"group 1: {name}="):
        opt_param_scheduler(optimizer)
    assert before == held(optimizer)


def test_an_illegal_override_set_in_mid_run_changes_nothing():
    optimizer, scheduler = at_peak({}, {"lr": 5.0}, {})
    before = held(optimizer), held(optimizer, "weight_decay"), scheduler.num_steps
    optimizer.param_groups[2]["end_wd"] = float("nan")
    with pytest.raises(ConfigError, match="group 2: end_wd=nan"):
        scheduler.step(20)
    assert before == (held(optimizer), held(optimizer, "weight_decay"), scheduler.num_steps)
    del optimizer.param_groups[2]["end_wd"]
    scheduler.step()
    assert 51 == scheduler.num_steps


def test_bounds_that_differ_under_the_constant_style_are_refused():
    optimizer = adamw({}, {"start_wd": 0.2})
    with pytest.raises(ConfigError, match="group 1: the constant style needs equal bounds"):
        opt_param_scheduler(optimizer, wd_incr_style="constant", start_wd=0.1)


def test_an_override_may_be_an_int_or_a_scalar_of_another_library():
    optimizer, _ = at_peak({"max_lr": 3}, {"lr_mult": torch.tensor(2.0)})
    assert [3.0, 2.0] == held(optimizer)


def test_a_tensor_is_the_same_object_after_1000_steps_and_holds_the_value_rounded_once():
    lr = torch.tensor(1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=lr, capturable=True)

    scheduler = opt_param_scheduler(optimizer, lr_decay_steps=10**5)
    for _ in range(1000):
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert torch.float32 is lr.dtype
    assert torch.tensor(scheduler.get_lr({})).item() == lr.item()


def test_a_tensor_shared_by_groups_becomes_one_for_each_and_the_first_keeps_it():
    lr = torch.tensor(1.0)
    params = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(3)]
    optimizer = torch.optim.AdamW(params, lr=lr, capturable=True)

    optimizer.param_groups[1]["lr_mult"] = 2.0
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 2.0, 1.0] == held(optimizer)
    assert optimizer.param_groups[0]["lr"] is lr
    assert 3 == len({group["lr"].data_ptr() for group in optimizer.param_groups})


def test_a_tensor_shared_by_two_optimizers_becomes_one_for_each():
    lr = torch.tensor(1.0)
    params = [[torch.nn.Parameter(torch.ones(2))] for _ in range(2)]
    optimizers = [torch.optim.AdamW(group, lr=lr, capturable=True) for group in params]
    optimizers[1].param_groups[0]["lr_mult"] = 2.0
    opt_param_scheduler(optimizers).seek(10)
    assert [[1.0], [2.0]] == [held(optimizer) for optimizer in optimizers]


def test_a_tensor_keeps_its_dtype_and_a_bfloat16_lr_its_ratio():
    lrs = [torch.tensor(value, dtype=torch.bfloat16) for value in (1e-3, 3e-3)]
    params = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(params, lr=1.0)

    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    assert [1.0, 3.0] == scheduler.get_last_lr()
    assert torch.bfloat16 is optimizer.param_groups[1]["lr"].dtype


def test_no_live_tensor_is_handed_out():
    scheduler = opt_param_scheduler(adamw_of_tensors())
    assert {float} == {type(lr) for lr in scheduler.get_last_lr()}


def test_a_tensor_that_replaces_a_float_in_mid_run_is_filled_from_then_on():
    optimizer, scheduler = at_peak({})
    mine = torch.tensor(123.0)
    optimizer.param_groups[0]["lr"] = mine
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is mine
    assert 1.0 == mine.item()


def test_a_tensor_weight_decay_is_filled_in_place():
    optimizer = adamw()
    wd = torch.tensor(0.1)
    optimizer.param_groups[0]["weight_decay"] = wd
    opt_param_scheduler(optimizer).seek(50)
    assert optimizer.param_groups[0]["weight_decay"] is wd
    assert torch.tensor(0.05) == wd


def test_no_key_but_lr_and_weight_decay_is_added_to_a_group():
    optimizer = adamw({}, {"max_lr": 3.0})
    keys = [set(group) for group in optimizer.param_groups]
    opt_param_scheduler(optimizer).step()
    assert keys == [set(group) for group in optimizer.param_groups]


def test_an_optimizer_without_lr_or_weight_decay_keys_gets_them():

    optimizer = SimpleNamespace(param_groups=[{"params": [1, 2]}, {"params": []}])
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 1.0] == held(optimizer)
    assert pytest.approx([0.01, 0.01]) == held(optimizer, "weight_decay")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_lr_on_a_gpu_is_filled_there_and_used_by_a_capturable_update():
    lr = torch.tensor(1.0, device="cuda")
    param = torch.nn.Parameter(torch.ones(2, device="cuda"))
    optimizer = torch.optim.AdamW([param], lr=lr, capturable=True)
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(60)
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert ("cuda", torch.tensor(0.55).item()) == (lr.device.type, lr.item())


@pytest.mark.parametrize(
    "lr",
    [torch.tensor(1), torch.tensor(True), torch.ones(2), torch.empty((), device="meta")],
    ids=["integer", "bool", "two", "no data"],
)
def test_a_tensor_that_cannot_hold_a_rate_is_refused(lr):
    optimizer = adamw({}, {})
    optimizer.param_groups[1]["lr"] = lr
    with pytest.raises(ConfigError, match=r"group 1: lr=.*one floating-point number"):
        opt_param_scheduler(optimizer)


def test_a_ratio_too_large_for_a_float_is_refused():
    with pytest.raises(
        ConfigError, match=r"group 1: lr=1\.0 is too large for the reference 1e-310"
    ):
        opt_param_scheduler(adamw({"lr": 1e-310}, {"lr": 1.0}))


def test_tensors_that_share_their_storage_become_one_for_each():
    lr = torch.tensor(1.0)
    optimizer = adamw_of_tensors({}, {"lr_mult": 2.0})
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = lr, lr.detach()
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 2.0] == held(optimizer)


def test_a_step_that_one_groups_override_makes_illegal_leaves_the_others_as_they_were():
    optimizer = adamw({}, {}, {})
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(60)
    before = held(optimizer), held(optimizer, "weight_decay")
    optimizer.param_groups[0]["lr_mult"] = 0.5
    optimizer.param_groups[1]["wd_mult"] = "x"
    with pytest.raises(ConfigError, match="group 1: wd_mult='x'"):
        scheduler.step()
    assert (before, 60) == ((held(optimizer), held(optimizer, "weight_decay")), scheduler.num_steps)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda both: pickle.loads(pickle.dumps(both))}  # noqa: S301


@pytest.mark.parametrize("through", COPIES.values(), ids=COPIES)
def test_a_copy_of_scheduler_and_optimizer_knows_its_own_groups(through):
    optimizer = sgd({"name": "a"})
    scheduler = param_scheduler(optimizer, {"lr": HILL}, groups={"a": {"lr": UP}})
    scheduler, optimizer = through((scheduler, optimizer))
    optimizer.param_groups[0]["lr_mult"] = 3.0
    with pytest.raises(ConfigError, match=r"group 0: lr_mult=3\.0: .*groups\[a\]\.lr"):
        scheduler.step()


def test_what_is_looked_up_for_each_group_does_not_grow_with_the_groups(monkeypatch):
    looks = Counter()

    def count(owner, name):
        found = getattr(owner, name)

        def counted(*given):
            looks[name] += 1
            return found(*given)

        monkeypatch.setattr(owner, name, counted)

    count(Writer, "_reference_text")
    count(Plan, "_find_followed")
    names = [f"layer.{index}" for index in range(50)]
    groups = {name: {"lr": 0.5} for name in names}
    ParamScheduler(sgd(*({"name": name} for name in names)), {"lr": 1.0}, groups=groups).step()
    assert {"_find_followed": len(names)} == looks


def test_groups_that_share_a_tuple_get_every_value_and_share_the_next_tuple():
    optimizer = adamw({}, {}, {"betas": (0.9, 0.5)})
    scheduler = param_scheduler(optimizer, {"betas[0]": UP})
    for position in (4, 8):
        scheduler.seek(position)
        assert [UP(position)] * 3 == held(optimizer, "betas[0]")
        first, second, third = (group["betas"] for group in optimizer.param_groups)
        assert first is second
        assert (UP(position), 0.5) == third


def test_both_parts_of_a_tuple_follow_their_schedules_in_every_group():
    optimizer = adamw({}, {})
    down = schedules.linear(0.75, 8, floor=0.5)
    scheduler = param_scheduler(optimizer, {"betas[0]": UP, "betas[1]": down})
    for position in (1, 4, 7):
        scheduler.seek(position)
        expected = UP(position), down(position)
        assert [expected, expected] == [group["betas"] for group in optimizer.param_groups]


def of_three_betas():
    """Return an optimizer like Adan, whose third beta is nearer to `beta2` by spelling."""
    return SimpleNamespace(param_groups=[new_group(lr=1.0, betas=(0.5, 0.5, 0.5))])


@pytest.mark.parametrize(
    "build, wrong, meant",
    [
        (adamw, "beta1", "betas[0]"),
        (of_three_betas, "beta2", "betas[1]"),
        (adamw, "betas", "betas[0]"),
        (adamw, "momentum", "betas[0]"),
        (sgd, "betas[0]", "momentum"),
    ],
)
def test_a_field_under_the_name_of_another_optimizer_is_suggested(build, wrong, meant):
    with pytest.raises(ConfigError, match=rf"did you mean '{re.escape(meant)}'\?"):
        param_scheduler(build(), {wrong: 0.5})


def test_a_group_whose_field_was_removed_gets_it_again_and_the_others_keep_theirs():
    optimizer = adamw({}, {}, {"max_lr": 0.5})
    scheduler = opt_param_scheduler(optimizer)
    for group in optimizer.param_groups:
        scheduler.seek(10)
        del group["lr"]
        scheduler.seek(60)
        assert [0.55, 0.55, pytest.approx(0.3)] == held(optimizer)


@pytest.mark.parametrize("bounds", [{"max_lr": 4.0}, {"max_lr": 4.0, "min_lr": 0.0}], ids=len)
def test_a_number_of_groups_multiplies_what_own_bounds_give_at_every_step(bounds):
    optimizer = sgd({"name": "head", **bounds}, {"name": "tail", **bounds})
    scheduler = param_scheduler(optimizer, groups={"head": {"lr": 0.5}})
    for position in (0, 4, 8, 24, 40, 41):
        scheduler.seek(position)
        head, tail = held(optimizer)
        assert 0.5 * tail == head
    scheduler.seek(8)
    assert [2.0, 4.0] == held(optimizer)


def test_the_first_write_checks_each_row_once_however_many_there_are(monkeypatch):
    optimizer = adamw(*({"lr": 1.0 + index} for index in range(600)))
    scheduler = opt_param_scheduler(optimizer)
    checked = Counter()
    monkeypatch.setattr(Row, "check", lambda row, _: checked.update([id(row)]))
    optimizer.param_groups[7]["lr_mult"] = 3.0
    scheduler.seek(10)
    assert {1} == set(checked.values())
    assert [1.0, 2.0, 3.0] == [held(optimizer)[index] for index in (0, 1, 7)]


LARGEST = torch.finfo(torch.float16).max


@pytest.mark.parametrize(
    "is_weight, own, reference, is_possible",
    [
        (False, 4.0, 0.5, True),
        (False, LARGEST, 0.5, True),
        (False, LARGEST, 0.25, False),
        (False, LARGEST, None, True),
        (False, 2 * LARGEST, 0.0, True),
        (False, float("inf"), 0.5, False),
        (True, 0.5, 0.5, True),
        (True, 0.5, 0.25, False),
        (True, 0.5, 0.125, False),
        (True, 0.25, None, True),
    ],
)
def test_a_group_can_use_a_reference_that_brings_it_to_what_it_can_hold(
    is_weight, own, reference, is_possible
):
    reach = Reach(key="k", group="g", own=own, peak=0.5, is_weight=is_weight, limit=LARGEST)
    assert is_possible == (reach.problem(reference) == "")


@pytest.mark.parametrize("is_weight, rule", [(True, "must be below 1"), (False, "at most 65504.0")])
def test_a_reference_that_brings_a_group_too_high_is_named_with_the_value_and_the_limit(
    is_weight, rule
):
    reach = Reach(key="k", group="g", own=1e9, peak=0.5, is_weight=is_weight, limit=LARGEST)
    found = reach.problem(0.25)
    assert found.startswith("g: k would reach 2000000000.0 (own value 1000000000.0, reference 0.25")
    assert rule in found


def reaches(optimizer, fields=None, **arguments):
    scheduler = param_scheduler(optimizer, fields or {"lr": HILL}, **arguments)
    return [*scheduler._writer.reaches()]


def test_of_groups_with_a_ratio_the_highest_by_own_value_and_curve_is_named():
    groups = {"name": "low", "lr": 1.0}, {"name": "high", "lr": 0.75}, {"lr": 2.0, "lr_mult": 9.0}
    factors = {"high": {"lr": 4.0}, "low": {"lr": 2.0}}
    (found,) = reaches(sgd(*groups, {"lr": 0.0}), groups=factors)
    assert ("group 1", "lr", 0.75, 4.0, False) == (
        *(found.group, found.key, found.own, found.peak),
        found.is_weight,
    )


def test_of_equal_groups_the_first_is_named_as_highest():
    assert ["group 0"] == [one.group for one in reaches(sgd({}, {}, {"lr": 0.5}))]


def test_groups_of_other_dtypes_are_each_named_with_what_they_can_hold():
    optimizer = sgd({"lr": 0.5}, {})
    optimizer.param_groups[1]["lr"] = torch.tensor(1.0, dtype=torch.float16)
    found = {one.group: one.limit for one in reaches(optimizer)}
    assert {"group 0": sys.float_info.max, "group 1": LARGEST} == found


def test_a_group_whose_ratio_was_measured_by_the_schedule_needs_no_reference():
    optimizer = sgd()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(8)
    optimizer.add_param_group(new_group(lr=0.25))
    scheduler.step()
    assert {1: {"lr": 0.25}} == {
        index: one.ratios
        for index, one in enumerate(scheduler._writer.tracker.tracked)
        if one.ratios
    }
    assert ["group 0"] == [one.group for one in scheduler._writer.reaches()]


def test_without_ratios_no_group_needs_a_reference():
    assert [] == reaches(sgd({}, {"lr": 3.0}), keep_group_ratios=False)


def test_a_weight_of_a_running_mean_is_marked_as_one():
    found = reaches(sgd(momentum=0.5), {"lr": HILL, "momentum": UP})
    assert {"lr": False, "momentum": True} == {one.key: one.is_weight for one in found}
