"""ParamScheduler: any field of any group, its writes, its state, and what it reconciles."""

from __future__ import annotations

import copy
import functools
import io
import json
import logging
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dist_sched import (
    ConfigError,
    ParamScheduler,
    Phase,
    RankMismatchError,
    ReconcileError,
    Schedule,
    StateError,
    reconcile,
    schedules,
)

UP = Schedule([Phase("linear", 8, end=0.75, start=0.25)])
"""0.25, 0.5 at 4, 0.75 from 8 on."""
HILL = Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("linear", 32, end=0.5)])
"""0, 0.5 at 4, 1 at 8, 0.75 at 24, 0.5 from 40 on."""
OTHER_HILL = Schedule([Phase("linear", 4, end=2.0, start=0.0), Phase("linear", 32, end=1.0)])


def params():
    return [torch.nn.Parameter(torch.ones(2, 2))]


def make(cls, *groups, **arguments):
    return cls([{"params": params(), **group} for group in groups or ({},)], **arguments)


adamw = functools.partial(make, torch.optim.AdamW)
sgd = functools.partial(make, torch.optim.SGD, momentum=0.5)
muon = functools.partial(make, torch.optim.Muon)
rmsprop = functools.partial(make, torch.optim.RMSprop)


def held(optimizer, key="lr"):
    """Give what the groups hold, as floats; None where a group lacks it."""
    name, _, index = key.rstrip("]").partition("[")
    found = [group.get(name) for group in optimizer.param_groups]
    found = [one[int(index)] if index and one is not None else one for one in found]
    return [None if one is None else float(one) for one in found]


def everything(optimizer):
    return [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


def hill(optimizer=None, fields=None, **arguments):
    return ParamScheduler(optimizer or sgd(), fields or {"lr": HILL}, **arguments)


def saved(position=24, fields=None, **arguments):
    scheduler = hill(adamw({"name": "body"}), fields, **arguments)
    scheduler.seek(position)
    return scheduler.state_dict()


def unsaid(state):
    """Give what a state's text says, to be changed."""
    return json.loads(state["dist_sched"])


def said(state, told):
    return {**state, "dist_sched": json.dumps(told)}


# Fields


@pytest.mark.parametrize(
    "build, field",
    [(adamw, key) for key in ("lr", "weight_decay", "betas[0]", "betas[1]", "eps")]
    + [(sgd, key) for key in ("lr", "weight_decay", "momentum", "dampening")]
    + [(muon, key) for key in ("lr", "weight_decay", "momentum", "eps")]
    + [(rmsprop, key) for key in ("lr", "weight_decay", "momentum", "alpha", "eps")],
)
def test_any_field_follows_its_schedule_and_nothing_else_changes(build, field):
    optimizer = build()
    before = everything(optimizer)
    scheduler = ParamScheduler(optimizer, {field: UP})
    found = [*held(optimizer, field)]
    for position in (4, 8, 100):
        scheduler.seek(position)
        found += held(optimizer, field)
    assert [0.25, 0.5, 0.75, 0.75] == found
    name = field.partition("[")[0]
    after = everything(optimizer)
    assert [{**before[0], name: None}] == [{**after[0], name: None}]


def test_several_fields_are_scheduled_at_once_and_a_number_is_a_constant_one():
    optimizer = adamw()
    scheduler = ParamScheduler(
        optimizer, {"lr": HILL, "betas[1]": UP, "betas[0]": 0.5, "weight_decay": 0.125}
    )
    scheduler.seek(4)
    assert [0.5] == held(optimizer)
    assert (0.5, 0.5) == optimizer.param_groups[0]["betas"]
    assert [0.125] == held(optimizer, "weight_decay")


def test_a_field_that_only_one_of_several_optimizers_has_is_scheduled_there_alone():
    first, second = muon(), adamw()
    scheduler = ParamScheduler([first, second], {"lr": HILL, "momentum": UP})
    scheduler.seek(4)
    assert ([0.5], [0.5]) == (held(first), held(first, "momentum"))
    assert [0.5] == held(second)
    assert "momentum" not in second.param_groups[0]


def test_a_list_of_optimizers_has_its_ratios_to_the_first_group_of_all():
    first, second = muon(lr=2.0), adamw(lr=1.0)
    ParamScheduler([first, second], {"lr": HILL}).seek(8)
    assert ([1.0], [0.5]) == (held(first), held(second))


def test_groups_that_lack_a_field_are_passed_over_and_never_given_a_key():
    optimizer = sgd({}, {})
    del optimizer.param_groups[1]["momentum"]
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": UP})
    scheduler.seek(4)
    scheduler.verify()
    assert [0.5, None] == held(optimizer, "momentum")
    assert [0.5, 0.5] == held(optimizer)


@pytest.mark.parametrize(
    "build, field, near",
    [
        (adamw, "momentum", "betas[0]"),
        (adamw, "beta1", "betas[0]"),
        (adamw, "beta2", "betas[1]"),
        (adamw, "betas", "betas[0]"),
        (adamw, "betas[2]", "betas[0]"),
        (adamw, "weight_decy", "weight_decay"),
        (adamw, "wd", "weight_decay"),
        (sgd, "betas[0]", "momentum"),
        (sgd, "learning_rate", "lr"),
        (rmsprop, "alhpa", "alpha"),
    ],
)
def test_a_field_that_no_group_has_is_refused_and_the_near_miss_named(build, field, near):
    optimizer = build()
    before = everything(optimizer)
    with pytest.raises(ConfigError) as error:
        ParamScheduler(optimizer, {"lr": HILL, field: 0.5})
    assert f"{field}: no group of the optimizer has this field; did you mean" in str(error.value)
    assert f"'{near}'" in str(error.value)
    assert before == everything(optimizer)


@pytest.mark.parametrize("field", ["nesterov", "params", "foreach"])
def test_what_is_no_number_cannot_be_scheduled(field):
    with pytest.raises(ConfigError, match=field):
        ParamScheduler(sgd(), {field: 0.5})


@pytest.mark.parametrize(
    "build, field", [(adamw, "betas[0]"), (adamw, "betas[1]"), (sgd, "momentum")]
)
def test_a_weight_of_a_running_mean_that_would_reach_1_is_refused(build, field):
    optimizer = build()
    before = everything(optimizer)
    with pytest.raises(ConfigError, match=r"would reach 1\.0, and must be below 1"):
        ParamScheduler(optimizer, {field: HILL})
    assert before == everything(optimizer)


def test_a_running_mean_that_reaches_1_by_its_ratio_alone_is_refused_by_group():
    optimizer = sgd({"momentum": 0.25}, {"momentum": 0.5})
    with pytest.raises(ConfigError, match=r"group 1: momentum would reach 1\.5.* is 2\.0"):
        ParamScheduler(optimizer, {"momentum": UP})


def test_a_weight_may_come_close_to_1_and_other_fields_reach_it():
    ParamScheduler(adamw(), {"betas[1]": 0.9999999, "lr": 1.0, "eps": 1.0})


@pytest.mark.parametrize("fields", [{}, None, [], {"lr": "fast"}, {"lr": None}, {"": 1.0}, {1: 1}])
def test_fields_that_make_no_specification_are_refused(fields):
    with pytest.raises(ConfigError):
        ParamScheduler(sgd(), fields)


# Writing


def test_tensors_are_filled_in_place_whether_fields_or_parts_of_a_tuple():
    lr, betas = torch.tensor(1.0), (torch.tensor(0.5), torch.tensor(0.25))
    optimizer = adamw(lr=lr, betas=betas, capturable=True)
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "betas[0]": UP, "betas[1]": UP})
    scheduler.seek(4)
    group = optimizer.param_groups[0]
    assert [0.5, 0.5, 0.5] == [lr.item(), betas[0].item(), betas[1].item()]
    assert [*map(id, (lr, *betas))] == [*map(id, (group["lr"], *group["betas"]))]


def test_tensor_betas_shared_by_groups_become_one_for_each():
    betas = (torch.tensor(0.5), torch.tensor(0.25))
    optimizer = adamw(
        {"name": "a"}, {"name": "b"}, lr=torch.tensor(1.0), betas=betas, capturable=True
    )
    scheduler = ParamScheduler(optimizer, {"betas[0]": UP}, groups={"b": {"betas[0]": 0.5}})
    scheduler.seek(4)
    assert [0.5, 0.25] == held(optimizer, "betas[0]")
    assert [0.25, 0.25] == held(optimizer, "betas[1]")
    assert optimizer.param_groups[0]["betas"][0] is betas[0]


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tuple_stays_a_tuple_a_list_a_list_and_one_that_groups_share_is_not_corrupted(kind):
    betas = kind((0.5, 0.25))
    optimizer = adamw({"name": "a", "betas": betas}, {"name": "b", "betas": betas})
    scheduler = ParamScheduler(optimizer, {"betas[0]": UP}, groups={"b": {"betas[0]": 0.5}})
    scheduler.seek(4)
    assert [kind((0.5, 0.25)), kind((0.25, 0.25))] == [g["betas"] for g in optimizer.param_groups]
    assert kind((0.5, 0.25)) == betas


def test_after_an_optimizer_load_the_scripts_own_tensors_are_put_back_and_filled():
    betas = (torch.tensor(0.5), torch.tensor(0.25))
    optimizer = adamw(lr=torch.tensor(1.0), betas=betas, capturable=True)
    scheduler = ParamScheduler(optimizer, {"betas[1]": UP})
    state = copy.deepcopy(optimizer.state_dict())
    scheduler.seek(4)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["betas"][1] is betas[1]
    assert [0.5] == held(optimizer, "betas[1]")


def test_a_whole_number_in_a_group_becomes_a_float():
    optimizer = sgd(momentum=0, lr=1)
    ParamScheduler(optimizer, {"momentum": UP}).seek(4)
    assert [0.5] == held(optimizer, "momentum")
    assert float is type(optimizer.param_groups[0]["momentum"])


# Ratios, multipliers and bounds


def test_ratios_are_kept_field_by_field_and_a_zero_stays_0():
    optimizer = sgd(
        {"lr": 1.0, "momentum": 0.5, "weight_decay": 0.0},
        {"lr": 2.0, "momentum": 0.25, "weight_decay": 0.1},
        {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.2},
    )
    ParamScheduler(optimizer, {"lr": HILL, "momentum": UP, "weight_decay": UP}).seek(4)
    assert [0.5, 1.0, 0.25] == held(optimizer)
    assert [0.5, 0.25, 0.0] == held(optimizer, "momentum")
    assert [0.0, 0.5, 1.0] == held(optimizer, "weight_decay")


def test_parts_of_a_tuple_keep_ratios_of_their_own():
    optimizer = adamw({"betas": (0.5, 0.5)}, {"betas": (0.25, 0.5)})
    ParamScheduler(optimizer, {"betas[0]": UP, "betas[1]": UP}).seek(4)
    assert [(0.5, 0.5), (0.25, 0.5)] == [group["betas"] for group in optimizer.param_groups]


def test_without_ratios_every_group_follows_the_schedule_itself():
    optimizer = sgd({"lr": 1.0}, {"lr": 5.0, "momentum": 0.0})
    ParamScheduler(optimizer, {"lr": HILL, "momentum": UP}, keep_group_ratios=False).seek(4)
    assert ([0.5, 0.5], [0.5, 0.5]) == (held(optimizer), held(optimizer, "momentum"))


def test_lr_mult_and_wd_mult_are_read_at_each_step_instead_of_the_ratio():
    optimizer = sgd({"lr": 1.0}, {"lr": 5.0, "lr_mult": 0.5, "wd_mult": 0.25})
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "weight_decay": 1.0})
    scheduler.seek(8)
    found = [held(optimizer)[1], held(optimizer, "weight_decay")[1]]
    optimizer.param_groups[1]["lr_mult"] = 0.25
    scheduler.step(0)
    found += [held(optimizer)[1]]
    del optimizer.param_groups[1]["lr_mult"]
    scheduler.step(0)
    assert [0.5, 0.25, 0.25, 5.0] == [*found, held(optimizer)[1]]


@pytest.mark.parametrize(
    "field, bound", [("lr", "max_lr"), ("lr", "min_lr"), ("weight_decay", "end_wd")]
)
def test_a_bound_of_a_group_is_refused_by_name_at_construction(field, bound):
    optimizer = sgd({}, {bound: 0.5})
    before = everything(optimizer)
    with pytest.raises(ConfigError, match=rf"group 1: {bound}=0\.5: bounds of a group mean nothi"):
        ParamScheduler(optimizer, {field: UP})
    assert before == everything(optimizer)


def test_a_bound_set_in_mid_run_is_refused_by_name_and_nothing_has_changed():
    optimizer = adamw({}, {})
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "betas[0]": UP})
    scheduler.seek(4)
    optimizer.param_groups[1]["max_lr"] = 0.5
    before = everything(optimizer)
    with pytest.raises(ConfigError, match=r"group 1: max_lr=0\.5"):
        scheduler.step()
    assert (before, 4) == (everything(optimizer), scheduler.num_steps)
    del optimizer.param_groups[1]["max_lr"]
    scheduler.step(4)
    assert ([1.0, 1.0], [0.75, 0.75]) == (held(optimizer), held(optimizer, "betas[0]"))


def test_bounds_mean_nothing_to_a_field_that_is_not_scheduled():
    optimizer = sgd({"end_wd": 0.5, "start_wd": 0.5})
    ParamScheduler(optimizer, {"lr": HILL}).seek(8)
    assert [1.0] == held(optimizer)


def test_an_illegal_multiplier_in_mid_run_changes_nothing():
    optimizer = sgd({}, {})
    scheduler = hill(optimizer)
    optimizer.param_groups[1]["lr_mult"] = float("nan")
    with pytest.raises(ConfigError, match="group 1: lr_mult=nan"):
        scheduler.step()
    assert ([0.0, 0.0], 0) == (held(optimizer), scheduler.num_steps)


# Groups added later


def test_a_group_added_later_is_measured_field_by_field():
    optimizer = sgd({"lr": 2.0, "momentum": 0.5})
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": UP})
    optimizer.add_param_group({"params": params(), "lr": 1.0, "momentum": 0.25})
    scheduler.seek(4)
    assert ([0.5, 0.25], [0.5, 0.25]) == (held(optimizer), held(optimizer, "momentum"))


def test_a_group_added_later_is_matched_by_pattern():
    optimizer = sgd({"name": "head.0"}, lr=1.0)
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups={"head.*": {"lr": 0.25}})
    optimizer.add_param_group({"params": params(), "name": "head.1", "lr": 7.0})
    scheduler.seek(8)
    assert [0.25, 0.25] == held(optimizer)


def test_a_group_added_later_whose_mean_would_reach_1_is_refused_at_every_step_until_removed():
    optimizer = sgd({"momentum": 0.25})
    scheduler = ParamScheduler(optimizer, {"momentum": UP})
    optimizer.add_param_group({"params": params(), "momentum": 0.5})
    for _ in range(2):
        with pytest.raises(ConfigError, match="group 1: momentum would reach"):
            scheduler.step()
    assert ([0.25, 0.5], 0) == (held(optimizer, "momentum"), scheduler.num_steps)
    del optimizer.param_groups[1]
    scheduler.step(4)
    assert [0.5] == held(optimizer, "momentum")


def test_a_group_added_later_that_two_patterns_match_is_refused():
    optimizer = sgd({"name": "ab"}, {"name": "bb"})
    groups = {"a*": {"lr": 0.5}, "*c": {"lr": 0.25}, "bb": {"lr": 1.0}}
    optimizer.param_groups[1]["name"] = "bc"
    with pytest.raises(ConfigError, match="no group's name matches 'bb'"):
        ParamScheduler(optimizer, {"lr": HILL}, groups=groups)
    del groups["bb"]
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups=groups)
    optimizer.add_param_group({"params": params(), "name": "ac"})
    with pytest.raises(ConfigError, match=r"'a\*', '\*c' are all for lr of group 'ac'"):
        scheduler.step()
    assert 0 == scheduler.num_steps


# Named groups


def test_named_groups_follow_a_schedule_of_their_own_without_a_ratio():
    optimizer = sgd({"name": "body"}, {"name": "head.w", "lr": 5.0}, {"name": "head.b"}, lr=1.0)
    groups = {"head.*": {"lr": OTHER_HILL}}
    ParamScheduler(optimizer, {"lr": HILL}, groups=groups).seek(4)
    assert [0.5, 2.0, 2.0] == held(optimizer)


def test_a_pattern_with_a_number_multiplies_instead_of_the_ratio():
    optimizer = sgd({"name": "body"}, {"name": "head", "lr": 5.0}, lr=1.0)
    groups = {"head": {"lr": 0.25, "momentum": 0.5}}
    ParamScheduler(optimizer, {"lr": HILL, "momentum": UP}, groups=groups).seek(4)
    assert ([0.5, 0.125], [0.5, 0.25]) == (held(optimizer), held(optimizer, "momentum"))


def test_patterns_are_for_one_field_and_other_fields_keep_their_ratio():
    optimizer = sgd({"name": "a"}, {"name": "b", "weight_decay": 0.0}, weight_decay=0.1)
    groups = {"[bc]": {"lr": 0.5}, "?": {"weight_decay": 1.0}}
    ParamScheduler(optimizer, {"lr": HILL, "weight_decay": UP}, groups=groups).seek(4)
    assert ([0.5, 0.25], [0.5, 0.5]) == (held(optimizer), held(optimizer, "weight_decay"))


def test_patterns_tell_capitals_apart_and_match_whole_names_alone():
    optimizer = sgd({"name": "head"}, {"name": "Head"}, {"name": "head.x"}, {})
    ParamScheduler(optimizer, {"lr": HILL}, groups={"head": {"lr": 0.5}}).seek(8)
    assert [0.5, 1.0, 1.0, 1.0] == held(optimizer)


def test_a_group_with_a_schedule_of_its_own_may_have_a_multiplier_too():
    optimizer = sgd({"name": "body"}, {"name": "head", "lr_mult": 0.5})
    ParamScheduler(optimizer, {"lr": HILL}, groups={"head": {"lr": OTHER_HILL}}).seek(4)
    assert [0.5, 1.0] == held(optimizer)


def test_a_pattern_for_a_mean_is_checked_by_its_own_schedule():
    optimizer = sgd({"name": "a"})
    with pytest.raises(ConfigError, match=r"groups\[a\]\.momentum would reach 1\.0"):
        ParamScheduler(optimizer, {"momentum": 0.5}, groups={"a": {"momentum": HILL}})


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"haed": {"lr": 0.5}}, r"groups\[haed\]\.lr: no group's name matches 'haed'.*'body', 'he"),
        ({"*": {"lr": 0.5}, "head": {"lr": HILL}}, r"'\*', 'head' are all for lr of group 'head'"),
        ({"head": {"momentum": 0.5}}, r"groups\[head\]\.momentum: .*not among the scheduled"),
        ({"head": {"lrr": 0.5}}, "did you mean 'lr'"),
        ({"head": {"lr": "half"}}, r"groups\[head\]\.lr='half': must be a Schedule, or a number"),
        ({"head": {"lr": -1.0}}, r"groups\[head\]\.lr=-1\.0"),
        ({"head": 0.5}, r"groups\[head\]=0\.5: must be a mapping"),
        ([("head", {"lr": 0.5})], "groups="),
        ({"": {"lr": 0.5}}, "pattern"),
    ],
)
def test_illegal_groups_are_refused_by_name_and_nothing_has_changed(groups, message):
    optimizer = sgd({"name": "body"}, {"name": "head"}, lr=0.125)
    before = everything(optimizer)
    with pytest.raises(ConfigError, match=message):
        ParamScheduler(optimizer, {"lr": HILL}, groups=groups)
    assert before == everything(optimizer)


def test_patterns_where_no_group_has_a_name_are_refused():
    with pytest.raises(ConfigError, match="the groups are named nothing"):
        ParamScheduler(sgd(), {"lr": HILL}, groups={"*": {"lr": 0.5}})


def test_a_multiplier_said_twice_is_refused_at_construction_and_at_a_later_step():
    optimizer = sgd({"name": "head", "lr_mult": 0.5})
    with pytest.raises(ConfigError, match=r"group 0: has 'lr_mult', and groups\[head\]\.lr says"):
        ParamScheduler(optimizer, {"lr": HILL}, groups={"head": {"lr": 0.25}})
    del optimizer.param_groups[0]["lr_mult"]
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups={"head": {"lr": 0.25}})
    optimizer.param_groups[0]["lr_mult"] = 0.5
    with pytest.raises(ConfigError, match=r"group 0: has 'lr_mult', and groups\[head\]\.lr says"):
        scheduler.step()
    assert 0 == scheduler.num_steps


# Weight decay that follows lr.


def test_coupled_decay_follows_lr_as_a_part_of_its_highest():
    optimizer = sgd(weight_decay=0.5)
    scheduler = ParamScheduler(
        optimizer, {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)}
    )
    found = []
    for position in (0, 4, 8, 24, 40):
        scheduler.seek(position)
        found += held(optimizer, "weight_decay")
    assert [0.0, 0.25, 0.5, 0.375, 0.25] == found


def test_coupled_decay_follows_a_groups_own_lr_and_a_no_decay_group_stays_0():
    optimizer = sgd(
        {"name": "body"},
        {"name": "head.w", "weight_decay": 0.2},
        {"name": "head.b", "weight_decay": 0.0},
        weight_decay=0.1,
    )
    fields = {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)}
    ParamScheduler(optimizer, fields, groups={"head.*": {"lr": OTHER_HILL}}).seek(4)
    assert [0.5, 2.0, 2.0] == held(optimizer)
    assert [0.25, 1.0, 0.0] == held(optimizer, "weight_decay")


def test_what_a_group_is_told_of_its_decay_multiplies_or_replaces_what_follows_from_its_lr():
    optimizer = sgd({"name": "a"}, {"name": "b"}, {"name": "c"}, weight_decay=0.1)
    fields = {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)}
    groups = {"*": {"lr": OTHER_HILL}, "b": {"weight_decay": 0.5}, "c": {"weight_decay": UP}}
    ParamScheduler(optimizer, fields, groups=groups).seek(4)
    assert [0.5, 0.25, 0.5] == held(optimizer, "weight_decay")


def test_a_field_may_follow_another_than_lr():
    optimizer = sgd()
    fields = {"momentum": UP, "lr": schedules.proportional_to("momentum", at_max=1.5)}
    ParamScheduler(optimizer, fields).seek(4)
    assert [1.0] == held(optimizer)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"weight_decay": schedules.proportional_to(at_max=0.1)},
            "weight_decay.to='lr': must be a field with",
        ),
        (
            {"lr": HILL, "weight_decay": schedules.proportional_to("lrr", at_max=0.1)},
            "did you mean 'lr'",
        ),
        (
            {"lr": 0.0, "weight_decay": schedules.proportional_to(at_max=0.1)},
            "follows lr, which is 0 throughout",
        ),
        (
            {"lr": schedules.proportional_to(at_max=0.1)},
            "lr.to='lr': must be a field with a schedule",
        ),
    ],
)
def test_a_coupling_to_what_cannot_be_followed_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        ParamScheduler(sgd(), fields)


# Positions


def test_the_kth_update_uses_the_value_at_k_minus_1():
    optimizer = sgd(lr=1.0)
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": 0.0})
    (param,) = optimizer.param_groups[0]["params"]
    found = []
    for _ in range(3):
        before = param.detach().clone()
        param.grad = torch.ones(2, 2)
        optimizer.step()
        scheduler.step()
        found.append((before - param.detach())[0, 0].item())
    assert [HILL(0), HILL(1), HILL(2)] == pytest.approx(found)


def test_get_last_lr_gives_lr_with_ratios_whether_it_is_scheduled_or_not():
    optimizer = sgd({"lr": torch.tensor(0.5)}, {"lr": 1}, {"lr": 0.25})
    unscheduled = ParamScheduler(optimizer, {"momentum": UP})
    assert [0.5, 1.0, 0.25] == unscheduled.get_last_lr()
    scheduled = hill(sgd({"lr": 0.5}, {"lr": 1.0}))
    scheduled.seek(8)
    assert [1.0, 2.0] == scheduled.get_last_lr()


def test_a_batch_size_ramp_leaves_the_curve_where_it_was_in_tokens():
    steady, ramped = sgd(), sgd()
    schedulers = [hill(optimizer, unit="tokens") for optimizer in (steady, ramped)]
    for _ in range(24):
        schedulers[0].step(increment=1)
    for tokens in (1, 1, 2, 4, 8, 8):
        schedulers[1].step(increment=tokens)
    assert [24, 24] == [scheduler.num_steps for scheduler in schedulers]
    assert ([0.75], [0.75]) == (held(steady), held(ramped))


@pytest.mark.parametrize("bad", [-1, 1.5, True, "1"])
def test_an_illegal_increment_changes_nothing(bad):
    optimizer = sgd()
    scheduler = hill(optimizer)
    scheduler.seek(4)
    with pytest.raises(ConfigError):
        scheduler.step(bad)
    assert ([0.5], 4) == (held(optimizer), scheduler.num_steps)


def test_a_second_scheduler_on_one_optimizer_gets_the_ratios_that_the_first_saw():
    optimizer = sgd({"momentum": 0.5, "lr": 1.0}, {"momentum": 0.25, "lr": 2.0})
    first = ParamScheduler(optimizer, {"momentum": 0.0})
    assert [0.0, 0.0] == held(optimizer, "momentum")
    del first
    ParamScheduler(optimizer, {"momentum": UP, "lr": HILL}).seek(4)
    assert ([0.5, 0.25], [0.5, 1.0]) == (held(optimizer, "momentum"), held(optimizer))


def test_two_schedulers_drive_two_fields_of_one_optimizer_side_by_side(floats):
    optimizer = sgd({"momentum": 0.5}, {"momentum": 0.25}, weight_decay=0.1)
    seeds = floats.scheduler(optimizer)
    ours = ParamScheduler(optimizer, {"momentum": UP})
    for scheduler in (seeds, ours):
        scheduler.seek(4)
    assert ([0.5, 0.25], [0.4, 0.4]) == (held(optimizer, "momentum"), held(optimizer))


def test_a_stepped_optimizer_whose_groups_all_have_0_is_refused_with_a_way_out():
    optimizer = sgd({}, {}, momentum=0.0)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2, 2)
    optimizer.step()
    optimizer.state[optimizer.param_groups[0]["params"][0]]["momentum_buffer"] = torch.ones(2, 2)
    with pytest.raises(ConfigError, match=r"every group's momentum is 0 .* a schedule of its own"):
        ParamScheduler(optimizer, {"momentum": UP})


# The state


def test_the_state_has_two_keys_and_is_fresh_primitives():
    scheduler = hill(unit="tokens")
    scheduler.seek(24)
    state = scheduler.state_dict()
    assert {"num_steps", "dist_sched"} == state.keys()
    assert {int, str} == {type(value) for value in state.values()}
    told = unsaid(state)
    assert {"version", "unit", "position", "specification", "lineage"} == told.keys()
    assert (24, 24, "tokens", 1) == (
        state["num_steps"],
        told["position"],
        told["unit"],
        told["version"],
    )
    state.clear()
    assert scheduler.state_dict()


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda state: pickle.loads(pickle.dumps(state)),  # noqa: S301 - our own bytes
        lambda state: json.loads(json.dumps(state)),
    ],
)
def test_a_copied_state_loads(copied):
    scheduler = hill()
    scheduler.load_state_dict(copied(saved()))
    assert [0.75] == held(scheduler.optimizer)


def test_a_state_survives_torch_save_with_weights_only():
    file = io.BytesIO()
    torch.save(saved(), file)
    file.seek(0)
    scheduler = hill()
    scheduler.load_state_dict(torch.load(file, weights_only=True))
    assert [0.75] == held(scheduler.optimizer)


def full(build=adamw):
    """Give a scheduler with every kind of part a specification has."""
    optimizer = build({"name": "body"}, {"name": "head", "weight_decay": 0.0}, weight_decay=0.1)
    return ParamScheduler(
        optimizer,
        {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5), "betas[0]": UP},
        groups={"head": {"lr": OTHER_HILL, "betas[0]": 0.5}},
    )


def test_dcp_saves_and_loads_a_scheduler_and_its_optimizer(tmp_path):
    first = full()
    first.seek(24)
    dcp.save({"scheduler": first}, checkpoint_id=tmp_path)
    second = full()
    dcp.load({"scheduler": second}, checkpoint_id=tmp_path)
    assert 24 == second.num_steps
    assert everything(first.optimizer) == everything(second.optimizer)
    second.verify()


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "optimizer alone"])
def test_the_order_of_loads_does_not_matter(order):
    first = full()
    first.seek(24)
    optimizer_state, state = copy.deepcopy(first.optimizer.state_dict()), first.state_dict()
    second = full()
    loads = [
        lambda: second.optimizer.load_state_dict(optimizer_state),
        lambda: second.load_state_dict(state),
    ]
    if order == "optimizer alone":
        loads = loads[:1]
    for load in reversed(loads) if order == "scheduler first" else loads:
        load()
    expected = full()
    expected.seek(0 if order == "optimizer alone" else 24)
    assert everything(expected.optimizer) == everything(second.optimizer)


def test_what_an_optimizer_carried_is_compared_field_by_field(caplog):
    first, second = full(), full()
    first.seek(24)
    optimizer_state = copy.deepcopy(first.optimizer.state_dict())
    optimizer_state["param_groups"][1]["betas"] = (0.125, 0.999)
    second.optimizer.load_state_dict(optimizer_state)
    second.load_state_dict(first.state_dict())
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "group 1: the optimizer checkpoint carried betas[0]=0.125" in record.message
    assert "group 0" not in record.message
    assert [0.75, 0.375] == held(second.optimizer, "betas[0]")


RATES = st.floats(0.01, 0.9)
STEPS = st.one_of(st.integers(1, 12), st.floats(0.5, 12.0))
FALLS = st.builds(
    lambda shape, steps, start, end: Phase(shape, steps, max(start, end), min(start, end)),
    st.sampled_from(["linear", "cosine", "exponential", "polynomial"]),
    STEPS,
    RATES,
    RATES,
)
CURVES = st.lists(
    st.one_of(FALLS, st.builds(lambda steps, at: Phase("constant", steps, at, at), STEPS, RATES)),
    min_size=1,
    max_size=4,
).map(Schedule)
FIELDS = st.dictionaries(st.sampled_from(["lr", "betas[0]", "betas[1]", "eps"]), CURVES, min_size=1)


@st.composite
def specifications(draw):
    """Draw fields and groups that fit `drawn`'s optimizer."""
    fields = draw(FIELDS)
    if "lr" in fields and draw(st.booleans()):
        fields["weight_decay"] = schedules.proportional_to(at_max=draw(RATES))
    own = st.dictionaries(
        st.sampled_from([key for key in fields if key != "weight_decay"]),
        st.one_of(CURVES, st.floats(0.0, 1.0)),
    )
    groups = draw(st.dictionaries(st.sampled_from(["head*", "body"]), own))
    return fields, {pattern: own for pattern, own in groups.items() if own}


def drawn(specification, unit):
    optimizer = adamw(
        {"name": "body"}, {"name": "head", "weight_decay": 0.0, "lr": 0.3}, lr=0.1, weight_decay=0.1
    )
    fields, groups = specification
    return ParamScheduler(optimizer, fields, groups=groups, unit=unit)


@given(
    specification=specifications(),
    unit=st.sampled_from(["steps", "samples", "tokens"]),
    increments=st.lists(st.integers(0, 9), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_resume_is_exact_at_every_split_point(specification, unit, increments):
    whole = drawn(specification, unit)
    states, expected = [whole.state_dict()], [everything(whole.optimizer)]
    for increment in increments:
        whole.step(increment)
        states.append(whole.state_dict())
        expected.append(everything(whole.optimizer))
    for split, state in enumerate(states):
        resumed = drawn(specification, unit)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        found = [everything(resumed.optimizer)]
        for increment in increments[split:]:
            resumed.step(increment)
            found.append(everything(resumed.optimizer))
        assert expected[split:] == found
        assert states[-1] == resumed.state_dict()


def test_loading_twice_is_loading_once():
    state = full()
    state.seek(24)
    scheduler = full()
    scheduler.load_state_dict(state.state_dict())
    once = everything(scheduler.optimizer), scheduler.state_dict()
    scheduler.load_state_dict(state.state_dict())
    assert once == (everything(scheduler.optimizer), scheduler.state_dict())


def broken(change):
    """Give a state whose text was changed."""
    state = saved(fields={"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)})
    told = unsaid(state)
    change(told)
    return said(state, told)


def edited(path, value):
    def change(told):
        *way, last = path
        place = functools.reduce(lambda found, key: found[key], way, told)
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return functools.partial(broken, change)


LR = ("specification", "fields", "lr")
BAD_STATES = {
    "no position": (lambda: {"dist_sched": saved()["dist_sched"]}, "'num_steps'"),
    "a bad position": (lambda: {**saved(), "num_steps": -1}, "'num_steps'.*num_steps=-1"),
    "a newer version": (edited(("version",), 2), "of version 2.*upgrade"),
    "no version": (edited(("version",), ...), "no valid version"),
    "no unit": (edited(("unit",), ...), "'dist_sched.unit'"),
    "an unknown unit": (edited(("unit",), "epochs"), "'dist_sched.unit'.*'epochs'"),
    "an unknown name": (edited(("color",), 1), "'dist_sched.color'.*not known"),
    "no specification": (edited(("specification",), ...), "dist_sched"),
    "no fields": (edited(("specification", "fields"), ...), r"specification\.fields'.*missing"),
    "an unknown part": (edited(("specification", "color"), 1), r"specification\.color'.*not known"),
    "fields of no kind": (edited(("specification", "fields"), []), r"\.fields'.*must be a mapping"),
    "no field": (edited(("specification", "fields"), {}), r"specification\.fields'.*at least one"),
    "no length": (edited((*LR, "phases", 1, "steps"), ...), r"\.fields\.lr'.*phases\[1\].*steps"),
    "a bad length": (edited((*LR, "phases", 0, "steps"), -1), r"fields\.lr'.*steps=-1"),
    "an unknown shape": (edited((*LR, "phases", 1, "shape"), "wave"), r"\.lr'.*shape='wave'"),
    "a number": (edited(LR, 0.5), r"specification\.fields\.lr'"),
    "a bad peak": (
        edited(("specification", "fields", "weight_decay", "peak"), -1),
        r"weight_decay'.*peak=-1",
    ),
    "a coupling to nothing": (
        edited(("specification", "fields", "weight_decay", "to"), "rl"),
        r"weight_decay\.to='rl'",
    ),
    "groups of no kind": (edited(("specification", "groups"), {"a": 1}), r"\.groups\[a\]'"),
    "a group's own": (
        edited(("specification", "groups"), {"a": {"lr": "x"}}),
        r"\.groups\[a\]\.lr'.*multiplier='x'",
    ),
    "no text": (lambda: {**saved(), "dist_sched": 3}, "'dist_sched'.*must be a text"),
    "no JSON": (lambda: {**saved(), "dist_sched": "{"}, "'dist_sched'.*not valid JSON"),
    "nothing": (dict, "empty"),
}


@pytest.mark.parametrize("kind", BAD_STATES)
def test_a_bad_state_names_the_key_and_changes_nothing(kind):
    build, message = BAD_STATES[kind]
    scheduler = hill(
        sgd(weight_decay=0.1), {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)}
    )
    scheduler.seek(4)
    before = everything(scheduler.optimizer), scheduler.state_dict()
    with pytest.raises(StateError, match=message):
        scheduler.load_state_dict(build())
    assert before == (everything(scheduler.optimizer), scheduler.state_dict())
    assert scheduler.last_reconciliation is None


def test_a_load_at_another_position_than_expected_changes_nothing():
    scheduler = hill()
    with pytest.raises(StateError, match="position is 24, the trainer's is 25"):
        scheduler.load_state_dict(saved(), expected_position=25)
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_a_torn_state_is_mended_from_its_text(caplog):
    scheduler = hill()
    scheduler.load_state_dict({**saved(), "num_steps": 8})
    assert "torn: num_steps differ" in caplog.text
    assert (24, [0.75]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_a_text_that_was_never_read_leaves_the_position_alone(caplog):
    scheduler = hill()
    scheduler.load_state_dict({**scheduler.state_dict(), "num_steps": 24})
    assert "never read" in caplog.text
    assert (24, [0.75]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_a_state_equal_to_the_schedulers_own_at_position_0_is_loaded_with_a_warning(caplog):
    scheduler = hill()
    scheduler.load_state_dict(scheduler.state_dict())
    assert "perhaps nothing was read" in caplog.text


# States of other schedulers


def seeds_state(floats, position=24, **changes):
    scheduler = floats.scheduler(**changes)
    scheduler.seek(position)
    return scheduler.state_dict()


TORCH = {"last_epoch": 24, "_step_count": 25, "base_lrs": [1.0], "_last_lr": [0.75]}


@pytest.mark.parametrize(
    "state, words",
    [
        (seeds_state, "the state is OptimizerParamScheduler's: it tells the position alone"),
        (
            lambda floats: {k: v for k, v in seeds_state(floats).items() if k != "dist_sched"},
            "the state is OptimizerParamScheduler's: it tells the position alone",
        ),
        (lambda _: TORCH, "the state is a torch LRScheduler's"),
        (lambda _: {"last_batch_iteration": 23}, "the state is DeepSpeed's"),
    ],
    ids=["ours", "a seed", "torch", "DeepSpeed"],
)
def test_another_schedulers_state_gives_the_position_with_a_warning(floats, state, words, caplog):
    scheduler = hill()
    scheduler.load_state_dict(state(floats))
    assert (24, [0.75]) == (scheduler.num_steps, held(scheduler.optimizer))
    assert words in caplog.text
    assert {"WARNING"} == {record.levelname for record in caplog.records}


def test_another_schedulers_state_names_a_value_that_breaks(floats, caplog):
    hill().load_state_dict(seeds_state(floats))
    assert "had lr 0.874 for the next update; what is used here has 0.75" in caplog.text


def test_a_specifications_state_gives_the_seeds_class_its_position_with_a_warning(floats, caplog):
    scheduler = floats.scheduler()
    scheduler.load_state_dict(saved(60))
    assert (60, pytest.approx(0.55)) == (scheduler.num_steps, scheduler.get_last_lr()[0])
    assert "the state is ParamScheduler's: it tells the position alone" in caplog.text


def test_another_schedulers_unit_is_reconciled_too(floats):
    with pytest.raises(ReconcileError, match="unit is 'steps' in the config and 'tokens'"):
        hill().load_state_dict(seeds_state(floats, unit="tokens"))
    with pytest.raises(ReconcileError, match="unit is 'steps' in the config and 'tokens'"):
        floats.scheduler().load_state_dict(saved(unit="tokens"))


def test_another_schedulers_bad_state_is_refused(floats):
    state = seeds_state(floats)
    with pytest.raises(StateError, match="'max_lr'"):
        hill().load_state_dict({**state, "max_lr": -1.0})


@pytest.mark.parametrize("policy", ["config", "checkpoint", "strict"])
def test_units_that_differ_are_refused_under_every_policy(policy):
    scheduler = hill(policy=policy)
    with pytest.raises(ReconcileError, match="build the scheduler with unit='tokens'"):
        scheduler.load_state_dict(saved(unit="tokens"))
    assert 0 == scheduler.num_steps


# Reconciliation


def changed(scheduler):
    return [row.name for row in scheduler.last_reconciliation.changed]


@pytest.mark.parametrize("policy, value", [("checkpoint", 2.0), ("config", 1.0)])
def test_the_policy_says_whose_schedule_is_used(policy, value):
    scheduler = hill(policy=policy)
    scheduler.load_state_dict(saved(0, {"lr": OTHER_HILL}))
    assert ["lr.phases[0].steps", "lr.phases[0].end", "lr.phases[1].end"] == changed(scheduler)
    scheduler.seek(8 if policy == "config" else 4)
    assert [value] == held(scheduler.optimizer)


def test_strict_names_every_path_that_differs_and_changes_nothing():
    scheduler = hill(policy="strict")
    with pytest.raises(ReconcileError) as error:
        scheduler.load_state_dict(saved(24, {"lr": OTHER_HILL}))
    for path in ("lr.phases[0].steps is 8", "lr.phases[0].end is 1.0", "lr.phases[1].end is 0.5"):
        assert path in str(error.value)
    assert 3 == len(error.value.reconciliation.changed)
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_strict_takes_what_is_equal():
    scheduler = hill(policy="strict")
    scheduler.load_state_dict(saved())
    assert ((), 24) == (scheduler.last_reconciliation.changed, scheduler.num_steps)


@pytest.mark.parametrize(
    "words, value",
    [
        ({"lr.phases[0].steps": "config"}, 1.0),
        ({"lr.phases[0].end": "config"}, 1.0),
        ({"lr.phases[0]": "config"}, 0.5),
        ({"lr": "config"}, 0.5),
        ({"lr.phases[1]": "config"}, 2.0),
        ({"lr": "config", "lr.phases[0].end": "checkpoint"}, 1.0),
    ],
    ids=str,
)
def test_a_word_for_a_path_or_its_beginning_decides_what_it_covers(words, value):
    scheduler = hill(policy={**words, "*": "checkpoint"})
    scheduler.load_state_dict(saved(4, {"lr": OTHER_HILL}))
    assert [value] == held(scheduler.optimizer)


@pytest.mark.parametrize("field, used", [("betas", (0.5, 0.5)), ("betas[1]", (0.25, 0.5))])
def test_the_name_of_a_tuple_covers_its_parts(field, used):
    optimizer = adamw()
    scheduler = ParamScheduler(
        optimizer, {"betas[0]": 0.5, "betas[1]": 0.5}, policy={field: "config", "*": "checkpoint"}
    )
    scheduler.load_state_dict(saved(0, {"betas[0]": 0.25, "betas[1]": 0.25}))
    assert used == optimizer.param_groups[0]["betas"]


@pytest.mark.parametrize(
    "policy, message",
    [
        ({"lr.phase[0]": "config", "*": "strict"}, "not an entry; did you mean 'lr.phases"),
        ({"lr.phases[1]": "config"}, r"no word for lr.phases\[0\].shape"),
        ({"lrr": "config", "*": "strict"}, "'lrr', which is not an entry"),
        ({"lr": "mine", "*": "strict"}, "'mine' for 'lr'"),
    ],
)
def test_a_policy_must_name_paths_that_there_are_and_cover_all(policy, message):
    with pytest.raises(ConfigError, match=message):
        hill(policy=policy)


def test_another_number_of_phases_is_one_row():
    long = Schedule([Phase("linear", 4, end=1.0, start=0.0), *OTHER_HILL.phases[1:] * 2])
    scheduler = hill()
    scheduler.load_state_dict(saved(0, {"lr": long}))
    (row,) = scheduler.last_reconciliation.changed
    assert ("lr", HILL, long, long) == (row.name, row.config, row.checkpoint, row.used)
    assert [{"phases"}] == [
        set(row["used"]) for row in scheduler.last_reconciliation.to_dict()["rows"][:1]
    ]
    scheduler.seek(4)
    assert [1.0] == held(scheduler.optimizer)


def test_an_outcome_that_is_illegal_as_a_whole_is_refused_by_name():
    geometric = Schedule([Phase("exponential", 8, end=1.0, start=0.5), Phase("linear", 32, 0.5)])
    scheduler = hill(policy={"lr.phases[0].shape": "checkpoint", "*": "config"})
    with pytest.raises(ReconcileError, match=r"lr: phases\[0\] \(exponential\): start=0\.0"):
        scheduler.load_state_dict(saved(4, {"lr": geometric}))
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_an_outcome_that_the_groups_cannot_be_given_is_refused_and_changes_nothing():
    optimizer = adamw({}, {"betas": (0.9, 0.45)}, betas=(0.9, 0.3))
    scheduler = ParamScheduler(optimizer, {"betas[1]": 0.5})
    before = everything(optimizer)
    with pytest.raises(ConfigError, match=r"group 1: betas\[1\] would reach 1\."):
        scheduler.load_state_dict(saved(4, {"betas[1]": UP}))
    assert (before, 0) == (everything(optimizer), scheduler.num_steps)


@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict"])
def test_a_field_that_only_the_script_has_is_used_and_named(policy, caplog):
    optimizer = sgd()
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": UP}, policy=policy)
    scheduler.load_state_dict(saved(4))
    assert ([0.5], [0.5]) == (held(optimizer), held(optimizer, "momentum"))
    assert "not in the checkpoint, and used as the config has it: momentum" in caplog.text


@pytest.mark.parametrize("policy", ["checkpoint", "strict"])
def test_a_field_that_only_the_checkpoint_has_is_refused_by_name(policy):
    scheduler = hill(adamw(), policy=policy)
    with pytest.raises(ReconcileError, match=r"betas\[0\] is "):
        scheduler.load_state_dict(saved(4, {"lr": HILL, "betas[0]": UP}))
    assert 0 == scheduler.num_steps


@pytest.mark.parametrize("policy", ["config", {"lr": "checkpoint", "*": "config"}], ids=str)
def test_a_field_that_only_the_checkpoint_has_is_dropped_where_the_rest_is_the_configs(policy):
    optimizer = adamw()
    scheduler = hill(optimizer, policy=policy)
    scheduler.load_state_dict(saved(4, {"lr": HILL, "betas[0]": UP}))
    assert ["betas[0]"] == changed(scheduler)
    assert ([0.5], [0.9]) == (held(optimizer), held(optimizer, "betas[0]"))
    assert ["lr"] == list(unsaid(scheduler.state_dict())["specification"]["fields"])


def test_what_a_strict_refusal_advises_for_a_field_of_the_checkpoint_alone_is_possible():
    state = saved(4, {"lr": HILL, "betas[0]": UP})
    with pytest.raises(ReconcileError) as error:
        hill(adamw(), policy="strict").load_state_dict(state)
    if "policy={'betas[0]': " in str(error.value):
        hill(adamw(), policy={"betas[0]": "config", "*": "strict"}).load_state_dict(state)


@pytest.mark.parametrize("policy, value", [("checkpoint", 2.0), ("config", 0.5)])
def test_groups_of_the_checkpoint_alone_are_taken_or_dropped_whole(policy, value):
    optimizer = sgd({"name": "body"})
    scheduler = hill(optimizer, policy=policy)
    scheduler.load_state_dict(saved(4, groups={"bo*": {"lr": OTHER_HILL}}))
    assert ["groups[bo*].lr"] == changed(scheduler)
    assert [value] == held(optimizer)


def test_groups_of_the_checkpoint_alone_are_refused_under_strict_and_where_no_name_matches():
    state = saved(4, groups={"bo*": {"lr": OTHER_HILL}})
    with pytest.raises(ReconcileError, match=r"groups\[bo\*\]\.lr is in the checkpoint alone"):
        hill(sgd({"name": "body"}), policy="strict").load_state_dict(state)
    scheduler = hill(sgd({"name": "trunk"}))
    with pytest.raises(ConfigError, match=r"groups\[bo\*\]\.lr: no group's name matches"):
        scheduler.load_state_dict(state)
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict"])
def test_groups_of_the_script_alone_are_used_and_named(policy, caplog):
    optimizer = sgd({"name": "body"}, {"name": "head"})
    scheduler = hill(optimizer, groups={"head": {"lr": 0.25}}, policy=policy)
    scheduler.load_state_dict(saved(8))
    assert [1.0, 0.25] == held(optimizer)
    assert "used as the config has it: groups[head].lr" in caplog.text


@pytest.mark.parametrize("policy, value", [("checkpoint", 0.5), ("config", 0.25)])
def test_a_groups_multiplier_is_reconciled_like_any_entry(policy, value):
    optimizer = sgd({"name": "body"})
    scheduler = hill(optimizer, groups={"body": {"lr": 0.25}}, policy=policy)
    scheduler.load_state_dict(saved(8, groups={"body": {"lr": 0.5}}))
    assert ["groups[body].lr"] == changed(scheduler)
    assert [value] == held(optimizer)


@pytest.mark.parametrize("policy, value", [("checkpoint", 0.5), ("config", 0.25)])
def test_a_coupling_is_reconciled_part_by_part(policy, value):
    optimizer = sgd(weight_decay=0.1)
    fields = {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.25)}
    scheduler = ParamScheduler(
        optimizer, fields, policy={"weight_decay.peak": policy, "*": "strict"}
    )
    scheduler.load_state_dict(
        saved(8, {**fields, "weight_decay": schedules.proportional_to(at_max=0.5)})
    )
    assert ["weight_decay.peak"] == changed(scheduler)
    assert [value] == held(optimizer, "weight_decay")


def test_a_second_load_sees_the_config_that_the_constructor_was_given():
    scheduler = hill()
    for _ in range(2):
        scheduler.load_state_dict(saved(4, {"lr": OTHER_HILL}))
        assert 3 == len(changed(scheduler))
    scheduler.load_state_dict(saved(4))
    assert () == scheduler.last_reconciliation.changed
    assert [0.5] == held(scheduler.optimizer)


def test_the_next_update_is_given_for_each_field_and_for_groups_with_a_curve(caplog):
    optimizer = adamw({"name": "body"}, {"name": "head"})
    groups = {"head": {"lr": HILL, "betas[0]": 0.5}}
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "betas[0]": UP}, groups=groups)
    caplog.set_level(logging.INFO)
    scheduler.load_state_dict(saved(4, {"lr": OTHER_HILL, "betas[0]": UP}))
    values = scheduler.last_reconciliation.next_update
    assert [("lr", 0.5, 2.0, 2.0), ("betas[0]", 0.5, 0.5, 0.5)] == [
        (one.field, one.config, one.checkpoint, one.used) for one in values[:2]
    ]
    assert ("groups[head].lr", 0.5, 2.0, 0.5) == (
        values[2].field,
        values[2].config,
        values[2].checkpoint,
        values[2].used,
    )
    assert ["WARNING"] == [record.levelname for record in caplog.records]


def test_a_dry_run_says_what_a_load_would_do():
    config = {"fields": {"lr": HILL.to_dict()}}
    outcome = reconcile(config, saved(4, {"lr": OTHER_HILL}))
    assert 3 == len(outcome.changed)
    with pytest.raises(ReconcileError, match=r"lr\.phases\[0\]\.end is 1\.0"):
        reconcile(config, saved(4, {"lr": OTHER_HILL}), "strict")


# One process


def test_verify_reads_back_every_field_of_every_group():
    scheduler = full()
    scheduler.seek(24)
    scheduler.verify()
    scheduler.optimizer.param_groups[1]["betas"] = (0.125, 0.999)
    with pytest.raises(RankMismatchError, match=r"rank 0: group 1: betas\[0\] holds 0\.125 and"):
        scheduler.verify()
    scheduler.step(0)
    scheduler.verify()


def test_synchronize_changes_nothing_on_one_process():
    scheduler = full()
    scheduler.seek(24)
    before = everything(scheduler.optimizer), scheduler.state_dict()
    scheduler.synchronize()
    assert before == (everything(scheduler.optimizer), scheduler.state_dict())


def test_another_ranks_terms_are_adopted_whole(caplog):
    mine, theirs = (
        hill(sgd({"name": "body"})),
        hill(
            sgd({"name": "body"}), {"lr": OTHER_HILL}, groups={"body": {"lr": 0.5}}, unit="tokens"
        ),
    )
    theirs.seek(4)
    mine._adopt(theirs._terms())
    assert (theirs.state_dict(), [1.0]) == (mine.state_dict(), held(mine.optimizer))
    assert "lr.phases[0].end 2.0 instead of 1.0" in caplog.text


def test_repr_shows_every_schedule_and_the_next_values():
    scheduler = full()
    scheduler.seek(4)
    shown = repr(scheduler)
    for line in (
        "position: 4 steps",
        "lr: linear 8 units 0 to 1; linear 32 units 1 to 0.5",
        "weight_decay: follows lr",
        "groups[head].betas[0]: 0.5",
        "next groups[head].lr: 2.0",
    ):
        assert line in shown


def test_a_policy_that_covers_every_path_needs_no_star():
    hill(policy={"lr": "config"})


def test_the_seeds_class_and_this_one_give_the_same_values_for_the_same_curve(floats):
    ours, seeds = sgd({"lr": 1.0}, {"lr": 3.0}), sgd({"lr": 1.0}, {"lr": 3.0}, weight_decay=0.1)
    curve = Schedule([Phase("linear", 10, end=1.0, start=0.0), Phase("linear", 100, end=0.1)])
    mine, other = ParamScheduler(ours, {"lr": curve}), floats.scheduler(seeds)
    for position in range(112):
        mine.seek(position)
        other.seek(position)
        assert held(seeds) == pytest.approx(held(ours), rel=1e-15)


def test_a_position_without_a_text_is_refused():
    scheduler = hill()
    with pytest.raises(StateError, match="key 'dist_sched' of the checkpoint state is missing"):
        scheduler.load_state_dict({"num_steps": 5})
    assert 0 == scheduler.num_steps


def test_an_optimizer_checkpoint_that_lacks_a_scheduled_key_gets_it_back():
    optimizer = make(torch.optim.SGD, {}, momentum=0.5)
    scheduler = hill(optimizer, {"momentum": UP})
    scheduler.seek(4)
    state = optimizer.state_dict()
    del state["param_groups"][0]["momentum"]
    optimizer.load_state_dict(state)
    assert [0.5] == held(optimizer, "momentum")


NAMED = ({"name": "body"}, {"name": "embed"})


@pytest.mark.parametrize("name", ["other", None])
@pytest.mark.parametrize("optimizer_first", [True, False])
def test_a_name_that_an_optimizer_load_brings_changes_nothing(name, optimizer_first):
    optimizer = sgd(*NAMED)
    scheduler = hill(optimizer, {"lr": 1.0}, groups={"embed": {"lr": 0.125}})
    state, saved_state = optimizer.state_dict(), scheduler.state_dict()
    state["param_groups"][1]["name"] = name
    loads = [lambda: optimizer.load_state_dict(state)]
    loads.insert(optimizer_first, lambda: scheduler.load_state_dict(saved_state))
    for load in loads:
        load()
    assert [1.0, 0.125] == held(optimizer) == scheduler.get_last_lr()
    scheduler.verify()


def test_a_name_that_is_changed_in_mid_run_changes_nothing():
    optimizer = sgd(*NAMED)
    scheduler = hill(optimizer, {"lr": 1.0}, groups={"embed": {"lr": 0.125}})
    optimizer.param_groups[0]["name"] = "embed"
    scheduler.step()
    assert [1.0, 0.125] == held(optimizer) == scheduler.get_last_lr()


def test_words_for_parts_count_for_a_schedule_of_other_phases_where_they_agree():
    three = Schedule([*HILL.phases, Phase("linear", 8, end=0.25)])
    state = saved(20, {"lr": three})
    agreeing = {"lr.phases[0]": "config", "lr.phases[1]": "config"}
    scheduler = hill(policy=agreeing)
    scheduler.load_state_dict(state)
    assert 40 == scheduler.last_reconciliation.used["lr"].horizon
    for policy in (
        dict.fromkeys(agreeing, "strict"),
        {"lr.phases[1].end": "config", "*": "checkpoint"},
    ):
        with pytest.raises(ReconcileError, match=r"other phases|strict"):
            hill(policy=policy).load_state_dict(state)


def test_a_start_of_the_checkpoint_alone_is_refused_under_strict_and_may_be_named():
    state = saved(20, {"lr": Schedule([HILL.phases[0], Phase("linear", 32, end=0.5, start=0.75)])})
    names = [f"lr.phases[{index}].{part}" for index in (0, 1) for part in ("shape", "steps", "end")]
    strict = dict.fromkeys([*names, "lr.phases[0].start"], "strict")
    with pytest.raises(ReconcileError, match=r"lr\.phases\[1\]\.start"):
        hill(policy=strict).load_state_dict(state)
    scheduler = hill(policy={**strict, "lr.phases[1].start": "config"})
    scheduler.load_state_dict(state)
    assert 0.8125 == scheduler.optimizer.param_groups[0]["lr"]


def test_what_the_checkpoint_alone_has_may_be_named_and_left_out():
    state = saved(4, {"lr": HILL, "eps": 0.5}, groups={"body": {"lr": 0.5}})
    scheduler = hill(policy={"groups[body]": "config", "eps": "config", "*": "checkpoint"})
    scheduler.load_state_dict(state)
    assert 0.5 == scheduler.optimizer.param_groups[0]["lr"]
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        hill(policy={"lrr": "config", "*": "checkpoint"})


def test_a_pattern_of_the_checkpoint_that_fits_no_group_says_whose_it_is():
    state = saved(4, groups={"body": {"lr": 0.5}})
    with pytest.raises(ConfigError, match="what the checkpoint has does not fit"):
        hill().load_state_dict(state)


def test_a_multiplier_of_a_coupled_field_multiplies_what_follows_the_groups_own_lr():
    optimizer = sgd(*NAMED, weight_decay=0.5)
    fields = {"lr": Schedule([Phase("linear", 4, end=0.0, start=1.0)])}
    fields["weight_decay"] = schedules.proportional_to(at_max=0.5)
    groups = {"embed": {"lr": schedules.constant(1.0), "weight_decay": 0.5}}
    hill(optimizer, fields, groups=groups).seek(2)
    assert [0.25, 0.25] == held(optimizer, "weight_decay")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_plain_dcp_loads_the_position_of_the_seeds_class(tmp_path, floats):
    other = floats.scheduler()
    other.seek(60)
    dcp.save({"scheduler": other}, checkpoint_id=tmp_path)
    scheduler = hill()
    dcp.load({"scheduler": scheduler}, checkpoint_id=tmp_path)
    assert 60 == scheduler.num_steps
    assert any("OptimizerParamScheduler" in line for line in scheduler.last_reconciliation.warnings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_lr_and_betas_on_a_gpu_are_filled_in_place():
    weights = [torch.nn.Parameter(torch.ones(2, device="cuda"))]
    lr, beta = (torch.tensor(value, device="cuda") for value in (1.0, 0.5))
    optimizer = torch.optim.AdamW(
        weights, lr=lr, betas=(beta, torch.tensor(0.75, device="cuda")), capturable=True
    )
    hill(optimizer, {"lr": HILL, "betas[0]": UP}).seek(4)
    (group,) = optimizer.param_groups
    assert group["lr"] is lr
    assert group["betas"][0] is beta
    assert [0.5, 0.5] == [lr.item(), beta.item()]


@pytest.mark.parametrize("base", [0.1, schedules.proportional_to(at_max=0.5)])
def test_a_coupling_under_one_pattern_and_a_schedule_under_another_are_refused(base):
    optimizer = sgd({"name": "ab"}, {"name": "zz"}, weight_decay=0.1)
    groups = {"a*": {"lr": UP}, "ab": {"weight_decay": schedules.proportional_to(at_max=0.25)}}
    with pytest.raises(ConfigError, match="say both under one pattern"):
        hill(optimizer, {"lr": HILL, "weight_decay": base}, groups=groups)


def test_the_report_of_a_load_shows_what_a_multiplier_gives():
    optimizer = sgd(*NAMED)
    scheduler = hill(optimizer, groups={"embed": {"lr": 0.5}}, policy="config")
    other = hill(sgd(*NAMED), groups={"embed": {"lr": 0.25}})
    other.seek(8)
    scheduler.load_state_dict(other.state_dict())
    values = {one.field: one for one in scheduler.last_reconciliation.next_update}
    told = values["groups[embed].lr"]
    assert (0.5, 0.25, 0.5) == (told.config, told.checkpoint, told.used)
