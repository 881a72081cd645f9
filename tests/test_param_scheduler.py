"""`ParamScheduler` in one process: groups, couplings, positions, arguments."""

from __future__ import annotations

import pytest
import torch

from dist_sched import (
    ConfigError,
    ParamScheduler,
    Phase,
    Schedule,
    schedules,
)
from helpers import (
    HILL,
    OTHER_HILL,
    UP,
    adamw,
    contents,
    held,
    new_group,
    opt_param_scheduler,
    param_scheduler,
    sgd,
)


def full(build=adamw):
    """Return a scheduler with every kind of part a specification has."""
    optimizer = build({"name": "body"}, {"name": "head", "weight_decay": 0.0}, weight_decay=0.1)
    return ParamScheduler(
        optimizer,
        {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5), "betas[0]": UP},
        groups={"head": {"lr": OTHER_HILL, "betas[0]": 0.5}},
    )


NAMED = ({"name": "body"}, {"name": "embed"})


@pytest.mark.parametrize(
    "build, field", [(adamw, "betas[0]"), (adamw, "betas[1]"), (sgd, "momentum")]
)
def test_a_weight_of_a_running_mean_that_would_reach_1_is_refused(build, field):
    optimizer = build()
    before = contents(optimizer)
    with pytest.raises(ConfigError, match=r"would reach 1\.0.*: must be below 1"):
        ParamScheduler(optimizer, {field: HILL})
    assert before == contents(optimizer)


@pytest.mark.parametrize("schedule, highest", [(UP, 1.5), (0.5, 1.0)])
def test_a_running_mean_that_reaches_1_by_its_ratio_alone_is_refused_by_group(schedule, highest):
    optimizer = sgd({"momentum": 0.25}, {"momentum": 0.5})
    message = rf"group 1: momentum would reach {highest} \(ratio 2 to group 0\)"
    with pytest.raises(ConfigError, match=message):
        ParamScheduler(optimizer, {"momentum": schedule}, reference={"momentum": 0.25})


def test_a_weight_may_come_close_to_1_and_other_fields_reach_it():
    ParamScheduler(adamw(), {"betas[1]": 0.9999999, "lr": 1.0, "eps": 1.0})


@pytest.mark.parametrize("fields", [{}, None, [], {"lr": "fast"}, {"lr": None}, {"": 1.0}, {1: 1}])
def test_fields_that_make_no_specification_are_refused(fields):
    with pytest.raises(ConfigError):
        ParamScheduler(sgd(), fields)


def test_ratios_are_kept_field_by_field_and_a_zero_stays_0():
    optimizer = sgd(
        {"lr": 1.0, "momentum": 0.75, "weight_decay": 0.0},
        {"lr": 2.0, "momentum": 0.375, "weight_decay": 0.75},
        {"lr": 0.5, "momentum": 0.0, "weight_decay": 1.5},
    )
    ParamScheduler(optimizer, {"lr": HILL, "momentum": UP, "weight_decay": UP}).seek(4)
    assert [0.5, 1.0, 0.25] == held(optimizer)
    assert [0.5, 0.25, 0.0] == held(optimizer, "momentum")
    assert [0.0, 0.5, 1.0] == held(optimizer, "weight_decay")


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


def test_bounds_mean_nothing_to_a_field_that_is_not_scheduled():
    optimizer = sgd({"end_wd": 0.5, "start_wd": 0.5})
    ParamScheduler(optimizer, {"lr": HILL}).seek(8)
    assert [1.0] == held(optimizer)


def test_an_illegal_multiplier_in_mid_run_changes_nothing():
    optimizer = sgd({}, {})
    scheduler = param_scheduler(optimizer)
    optimizer.param_groups[1]["lr_mult"] = float("nan")
    with pytest.raises(ConfigError, match="group 1: lr_mult=nan"):
        scheduler.step()
    assert ([0.0, 0.0], 0) == (held(optimizer), scheduler.num_steps)


def test_a_group_added_later_is_measured_field_by_field():
    optimizer = sgd({"lr": 2.0, "momentum": 0.5})
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": UP})
    optimizer.add_param_group(new_group(lr=1.0, momentum=0.25))
    scheduler.seek(4)
    assert ([0.5, 0.25], [0.5, 0.25]) == (held(optimizer), held(optimizer, "momentum"))


def test_a_group_added_later_is_matched_by_pattern():
    optimizer = sgd({"name": "head.0"}, lr=1.0)
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups={"head.*": {"lr": 0.25}})
    optimizer.add_param_group(new_group(name="head.1"))
    scheduler.seek(8)
    assert [0.25, 0.25] == held(optimizer)


def test_a_group_added_later_whose_mean_would_reach_1_is_refused_at_every_step_until_removed():
    optimizer = sgd({"momentum": 0.25})
    scheduler = ParamScheduler(optimizer, {"momentum": UP})
    optimizer.add_param_group(new_group(momentum=0.5))
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
    optimizer.add_param_group(new_group(name="ac"))
    with pytest.raises(ConfigError, match=r"'a\*', '\*c' all set lr of group 'ac'"):
        scheduler.step()
    assert 0 == scheduler.num_steps


def test_named_groups_follow_a_schedule_of_their_own_without_a_ratio():
    optimizer = sgd({"name": "body"}, {"name": "head.w", "lr": 5.0}, {"name": "head.b"}, lr=1.0)
    groups = {"head.*": {"lr": OTHER_HILL}}
    ParamScheduler(optimizer, {"lr": HILL}, groups=groups).seek(4)
    assert [0.5, 2.0, 2.0] == held(optimizer)


def test_a_pattern_with_a_number_multiplies_what_the_group_has_without_it():
    optimizer = sgd({"name": "body"}, {"name": "head", "lr": 5.0}, lr=1.0)
    groups = {"head": {"lr": 0.25, "momentum": 0.5}}
    ParamScheduler(optimizer, {"lr": HILL, "momentum": UP}, groups=groups).seek(4)
    assert ([0.5, 0.625], [0.5, 0.25]) == (held(optimizer), held(optimizer, "momentum"))


def test_patterns_are_for_one_field_and_other_fields_keep_their_ratio():
    optimizer = sgd({"name": "a"}, {"name": "b", "weight_decay": 0.0}, weight_decay=0.1)
    groups = {"[bc]": {"lr": 0.5}, "?": {"weight_decay": 1.0}}
    ParamScheduler(optimizer, {"lr": HILL, "weight_decay": UP}, groups=groups).seek(4)
    assert ([0.5, 0.25], [0.5, 0.0]) == (held(optimizer), held(optimizer, "weight_decay"))


def test_patterns_tell_capitals_apart_and_match_whole_names_alone():
    optimizer = sgd({"name": "head"}, {"name": "Head"}, {"name": "head.x"}, {})
    ParamScheduler(optimizer, {"lr": HILL}, groups={"head": {"lr": 0.5}}).seek(8)
    assert [0.5, 1.0, 1.0, 1.0] == held(optimizer)


@pytest.mark.parametrize("multiplier", [1, 1.0])
def test_a_group_with_a_schedule_of_its_own_may_have_a_multiplier_of_1_alone(multiplier):
    optimizer = sgd({"name": "body"}, {"name": "head", "lr_mult": multiplier})
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups={"head": {"lr": OTHER_HILL}})
    scheduler.seek(4)
    assert [0.5, 2.0] == held(optimizer)
    optimizer.param_groups[1]["lr_mult"] = 0.5
    with pytest.raises(ConfigError, match=r"group 1: lr_mult=0\.5: .*groups\[head\]\.lr"):
        scheduler.step()
    assert 4 == scheduler.num_steps


def test_a_pattern_for_a_mean_is_checked_by_its_own_schedule():
    optimizer = sgd({"name": "a"})
    with pytest.raises(ConfigError, match=r"groups\[a\]\.momentum would reach 1\.0"):
        ParamScheduler(optimizer, {"momentum": 0.5}, groups={"a": {"momentum": HILL}})


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"haed": {"lr": 0.5}}, r"groups\[haed\]\.lr: no group's name matches 'haed'.*'body', 'he"),
        ({"*": {"lr": 0.5}, "head": {"lr": HILL}}, r"'\*', 'head' all set lr of group 'head'"),
        ({"head": {"momentum": 0.5}}, r"groups\[head\]\.momentum: .*not a scheduled"),
        ({"head": {"lrr": 0.5}}, "did you mean 'lr'"),
        ({"head": {"lr_mult": 0.5}}, "did you mean 'lr', which a number in groups= multiplies"),
        ({"head": {"lr": "half"}}, r"groups\[head\]\.lr='half': must be a Schedule, or a number"),
        ({"head": {"lr": -1.0}}, r"groups\[head\]\.lr=-1\.0"),
        ({"head": 0.5}, r"groups\[head\]=0\.5: must be a mapping"),
        ([("head", {"lr": 0.5})], "groups="),
        ({"": {"lr": 0.5}}, "pattern"),
    ],
)
def test_illegal_groups_are_refused_by_name_and_nothing_has_changed(groups, message):
    optimizer = sgd({"name": "body"}, {"name": "head"}, lr=0.125)
    before = contents(optimizer)
    with pytest.raises(ConfigError, match=message):
        ParamScheduler(optimizer, {"lr": HILL}, groups=groups)
    assert before == contents(optimizer)


def test_patterns_where_no_group_has_a_name_are_refused():
    with pytest.raises(ConfigError, match="the groups have no names; add them"):
        ParamScheduler(sgd(), {"lr": HILL}, groups={"*": {"lr": 0.5}})


def test_a_number_of_a_pattern_multiplies_a_multiplier_in_the_group_too():
    optimizer = sgd({"name": "head", "lr_mult": 0.5})
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups={"head": {"lr": 0.25}})
    scheduler.seek(8)
    assert [0.125] == held(optimizer)
    del optimizer.param_groups[0]["lr_mult"]
    scheduler.seek(8)
    assert [0.25] == held(optimizer)


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
        {"name": "head.w", "weight_decay": 1.0},
        {"name": "head.b", "weight_decay": 0.0},
        weight_decay=0.5,
    )
    fields = {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)}
    ParamScheduler(optimizer, fields, groups={"head.*": {"lr": OTHER_HILL}}).seek(4)
    assert [0.5, 2.0, 2.0] == held(optimizer)
    assert [0.25, 1.0, 0.0] == held(optimizer, "weight_decay")


def test_a_groups_own_decay_multiplies_or_replaces_what_follows_from_its_lr():
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
            "weight_decay.to='lr': must be a field or an extra with",
        ),
        (
            {"lr": HILL, "weight_decay": schedules.proportional_to("lrr", at_max=0.1)},
            "did you mean 'lr'",
        ),
        (
            {"lr": 0.0, "weight_decay": schedules.proportional_to(at_max=0.1)},
            "follows lr, which is always 0",
        ),
        (
            {"lr": schedules.proportional_to(at_max=0.1)},
            "lr.to='lr': must be a field or an extra with a schedule",
        ),
    ],
)
def test_a_coupling_to_what_cannot_be_followed_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        ParamScheduler(sgd(), fields)


def test_the_kth_update_uses_the_value_at_k_minus_1():
    optimizer = sgd(lr=1.0)
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": 0.0})
    (param,) = optimizer.param_groups[0]["params"]
    found = []
    for _ in range(3):
        before = param.detach().clone()
        param.grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
        found.append((before - param.detach())[0].item())
    assert [HILL(0), HILL(1), HILL(2)] == pytest.approx(found)


def test_get_last_lr_gives_lr_with_ratios_whether_it_is_scheduled_or_not():
    optimizer = sgd({"lr": torch.tensor(0.5)}, {"lr": 1}, {"lr": 0.25})
    unscheduled = ParamScheduler(optimizer, {"momentum": UP})
    assert [0.5, 1.0, 0.25] == unscheduled.get_last_lr()
    scheduled = param_scheduler(sgd({"lr": 0.5}, {"lr": 1.0}))
    scheduled.seek(8)
    assert [0.5, 1.0] == scheduled.get_last_lr()


def test_a_batch_size_ramp_leaves_the_curve_where_it_was_in_tokens():
    steady, ramped = sgd(), sgd()
    schedulers = [param_scheduler(optimizer, unit="tokens") for optimizer in (steady, ramped)]
    for _ in range(24):
        schedulers[0].step(increment=1)
    for tokens in (1, 1, 2, 4, 8, 8):
        schedulers[1].step(increment=tokens)
    assert [24, 24] == [scheduler.num_steps for scheduler in schedulers]
    assert ([0.75], [0.75]) == (held(steady), held(ramped))


@pytest.mark.parametrize("bad", [-1, 1.5, True, "1"])
def test_an_illegal_increment_changes_nothing(bad):
    optimizer = sgd()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    with pytest.raises(ConfigError):
        scheduler.step(bad)
    assert ([0.5], 4) == (held(optimizer), scheduler.num_steps)


def test_a_second_scheduler_on_one_optimizer_gets_the_ratios_that_the_first_saw():
    optimizer = sgd({"momentum": 0.75, "lr": 1.0}, {"momentum": 0.375, "lr": 2.0})
    first = ParamScheduler(optimizer, {"momentum": 0.0})
    assert [0.0, 0.0] == held(optimizer, "momentum")
    del first
    ParamScheduler(optimizer, {"momentum": UP, "lr": HILL}).seek(4)
    assert ([0.5, 0.25], [0.5, 1.0]) == (held(optimizer, "momentum"), held(optimizer))


def test_two_schedulers_drive_two_fields_of_one_optimizer_side_by_side():
    optimizer = sgd({"momentum": 0.75}, {"momentum": 0.375}, weight_decay=0.1)
    megatrons = opt_param_scheduler(optimizer)
    ours = ParamScheduler(optimizer, {"momentum": UP})
    for scheduler in (megatrons, ours):
        scheduler.seek(4)
    assert ([0.5, 0.25], [0.4, 0.4]) == (held(optimizer, "momentum"), held(optimizer))


def test_a_stepped_optimizer_whose_groups_all_have_0_is_refused_with_a_way_out():
    optimizer = sgd({}, {}, momentum=0.0)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    optimizer.state[optimizer.param_groups[0]["params"][0]]["momentum_buffer"] = torch.ones(2)
    with pytest.raises(ConfigError, match=r"every group's momentum is 0 .* a schedule in groups="):
        ParamScheduler(optimizer, {"momentum": UP})


def test_repr_shows_every_schedule_and_what_each_group_gets():
    scheduler = full()
    scheduler.seek(4)
    shown = repr(scheduler)
    for line in (
        "position: 4 steps",
        "lr: linear 8 units 0 to 1; linear 32 units 1 to 0.5",
        "weight_decay: follows lr",
        "groups[head].betas[0]: 0.5",
        "the schedule of groups[head]",
    ):
        assert line in shown


def test_megatrons_class_and_this_one_give_the_same_values_for_the_same_curve():
    groups = {"lr": 1.0}, {"lr": 3.0}
    curve = Schedule([Phase("linear", 10, end=1.0, start=0.0), Phase("linear", 100, end=0.1)])
    ours, megatrons = (
        ParamScheduler(sgd(*groups), {"lr": curve}),
        opt_param_scheduler(adamw(*groups)),
    )
    for position in range(112):
        ours.seek(position)
        megatrons.seek(position)
        assert held(megatrons) == pytest.approx(held(ours), rel=1e-15)


def test_a_name_that_is_changed_in_mid_run_changes_nothing():
    optimizer = sgd(*NAMED)
    scheduler = param_scheduler(optimizer, {"lr": 1.0}, groups={"embed": {"lr": 0.125}})
    optimizer.param_groups[0]["name"] = "embed"
    scheduler.step()
    assert [1.0, 0.125] == held(optimizer) == scheduler.get_last_lr()


def test_a_multiplier_of_a_coupled_field_multiplies_what_follows_the_groups_own_lr():
    optimizer = sgd(*NAMED, weight_decay=0.5)
    fields = {"lr": Schedule([Phase("linear", 4, end=0.0, start=1.0)])}
    fields["weight_decay"] = schedules.proportional_to(at_max=0.5)
    groups = {"embed": {"lr": schedules.constant(1.0), "weight_decay": 0.5}}
    param_scheduler(optimizer, fields, groups=groups).seek(2)
    assert [0.25, 0.25] == held(optimizer, "weight_decay")


@pytest.mark.parametrize("base", [0.1, schedules.proportional_to(at_max=0.5)])
def test_a_coupling_under_one_pattern_and_a_schedule_under_another_are_refused(base):
    optimizer = sgd({"name": "ab"}, {"name": "zz"}, weight_decay=0.1)
    groups = {"a*": {"lr": UP}, "ab": {"weight_decay": schedules.proportional_to(at_max=0.25)}}
    with pytest.raises(ConfigError, match="put both under one pattern"):
        param_scheduler(optimizer, {"lr": HILL, "weight_decay": base}, groups=groups)


def test_lint_reads_the_increment_in_the_schedulers_unit():
    fields = {"lr": schedules.cosine(1.0, 1000, warmup=20, start=0.1)}
    counted = param_scheduler(fields=fields, unit="samples")
    assert ["phase-below-update"] == [one.code for one in counted.lint(increment=32)]
    assert () == param_scheduler(fields=fields).lint(updates=1000)
    with pytest.raises(ConfigError, match="increment=32: must be 1 for unit 'steps'"):
        param_scheduler(fields=fields).lint(increment=32)
