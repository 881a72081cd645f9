"""Notices: what the log says about groups, with the level, the numbers and the advice."""

from __future__ import annotations

import logging

import pytest
import torch

from dist_sched import Phase, Schedule
from dist_sched._optim import notices
from helpers import HILL, UP, adamw, held, new_group, opt_param_scheduler, param_scheduler, sgd

FALL = Schedule([Phase("linear", 40, end=0.0, start=1.0)])


def messages(caplog, level="WARNING"):
    """Return what the library's logger said at a level."""
    return [
        one.message
        for one in caplog.records
        if (one.name, one.levelname) == ("dist_sched", level)
        and not one.message.startswith("each group gets")
    ]


def test_the_value_before_an_earlier_scheduler_is_named_beside_the_groups(caplog):
    left = {"lr": 0.25, "initial_lr": 1.0}, {"lr": 0.5, "initial_lr": 1.0}
    opt_param_scheduler(sgd({}, *left, weight_decay=0.1))
    assert [
        (
            "an earlier scheduler has left initial_lr in group 1 (and 1 more); it is used as the "
            "group's own lr (1.0, while the group's lr is 0.25)"
        )
    ] == messages(caplog)


@pytest.mark.parametrize("scale, is_named", [(0.5, True), (2, True), (1, False), ("x", False)])
def test_a_factor_of_timm_is_named_unless_it_is_1_or_no_number(scale, is_named, caplog):
    param_scheduler(sgd({"lr_scale": scale}))
    expected = f"group 0 has lr_scale={scale!r}, which has no effect; rename it to 'lr_mult'"
    assert [expected] * is_named == messages(caplog)


def test_a_factor_of_timm_that_the_optimizer_uses_is_not_named(caplog):
    optimizer = sgd({"lr_scale": 0.5})
    optimizer.defaults["lr_scale"] = 1.0
    assert [] == findings(optimizer)
    assert [] == messages(caplog)


@pytest.mark.parametrize(
    "bounds, named",
    [({"max_lr": 2.0, "min_lr": 0.5}, "'max_lr', 'min_lr'"), ({"min_lr": 0.5}, "'min_lr'")],
    ids=["both", "lower"],
)
def test_bounds_beside_a_schedule_of_the_group_are_named_with_the_schedule(bounds, named, caplog):
    caplog.set_level(logging.INFO)
    param_scheduler(sgd({"name": "a", **bounds}, {"max_lr": 2.0}), groups={"a": {"lr": UP}})
    expected = "has no effect, because the group has the schedule groups[a].lr"
    assert [f"group 0: {named} {expected}"] == messages(caplog, "INFO")


def test_zeros_of_all_groups_are_named_with_the_peak_and_the_multiplier(caplog):
    optimizer = adamw({}, {}, weight_decay=0.0)
    param_scheduler(optimizer, {"weight_decay": UP})
    assert [
        (
            "weight_decay is 0 in every group, so every group gets the schedule (up to 0.75), "
            "including biases and norms; to keep a group at 0, give it wd_mult=0.0"
        )
    ] == messages(caplog)


def test_zeros_of_a_field_without_a_multiplier_need_a_schedule(caplog):
    param_scheduler(sgd({}, {}, momentum=0.0), {"momentum": UP})
    (found,) = messages(caplog)
    assert found.endswith("to keep a group at 0, give it a schedule in groups=")


def test_leftovers_of_torchs_one_cycle_are_named_with_their_values(caplog):
    left = {"initial_lr": 1.0, "max_lr": 4.0, "min_lr": 0.5}
    scheduler = param_scheduler(sgd({}, left, left))
    scheduler.seek(8)
    assert [
        (
            "group 1 (and 1 more) has max_lr=4.0, min_lr=0.5 from torch's OneCycleLR (it "
            "also has initial_lr); they are ignored; remove the keys, or set them to the bounds "
            "that you want"
        )
    ] == messages(caplog)
    assert [1.0, 1.0, 1.0] == held(scheduler)


@pytest.mark.parametrize(
    "left",
    [
        {"initial_lr": 4.0, "max_lr": 4.0, "min_lr": 0.5},
        {"initial_lr": 1.0, "max_lr": 4.0, "min_lr": 2.0},
        {"initial_lr": 1.0, "max_lr": 4.0},
        {"initial_lr": 1.0, "max_lr": torch.tensor(4.0), "min_lr": 0.5},
    ],
    ids=["not below the highest", "below the lowest", "no lowest", "a tensor"],
)
def test_bounds_that_torchs_one_cycle_cannot_have_left_are_bounds(left, caplog):
    scheduler = param_scheduler(sgd({}, {"lr": 1.0, **left}), keep_group_ratios=False)
    scheduler.seek(8)
    assert ([1.0, 4.0], []) == (
        held(scheduler),
        [one for one in messages(caplog) if "OneCy" in one],
    )


def test_leftovers_of_a_late_group_are_named_and_ignored(caplog):
    optimizer = sgd()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    optimizer.add_param_group(new_group(initial_lr=1.0, max_lr=4.0, min_lr=0.5))
    scheduler.seek(8)
    assert [1.0, 1.0] == held(optimizer)
    (found,) = messages(caplog)
    assert found.startswith("group 1 has max_lr=4.0, min_lr=0.5 from torch's OneCycleLR")


def added(caplog, *, position=8, fields=None, **changes):
    """Return what is logged about a group that is added at a position."""
    optimizer = sgd(weight_decay=0.5)
    scheduler = param_scheduler(optimizer, fields)
    scheduler.seek(position)
    optimizer.add_param_group(new_group(**changes))
    caplog.clear()
    caplog.set_level(logging.INFO)
    scheduler.seek(24)
    return messages(caplog), messages(caplog, "INFO")


def test_a_late_group_is_named_with_its_ratio_and_its_next_value(caplog):
    text = "lr=0.25 has the ratio 0.25 to the schedule, and its next lr is 0.1875"
    assert ([f"group 1 was added at position 8: {text}"], []) == added(caplog, lr=0.25)


def test_each_measured_field_of_a_late_group_is_named(caplog):
    fields = {"lr": HILL, "weight_decay": 0.5}
    lines, _ = added(caplog, fields=fields, lr=0.25, weight_decay=0.125)
    text = (
        "weight_decay=0.125 has the ratio 0.25 to the schedule, and its next weight_decay is 0.125"
    )
    assert 1 == len(lines)
    assert f"; {text}" in lines[0]


def test_a_late_group_that_counts_as_one_of_the_start_is_named_in_the_info(caplog):
    fields = {"lr": HILL, "weight_decay": 0.5}
    line = "group 1 was added at position 8; its next lr 0.75, weight_decay 0.5"
    assert ([], [line]) == added(caplog, fields=fields)


def test_a_group_that_is_added_at_0_is_not_mentioned(caplog):
    assert ([], []) == added(caplog, position=0)


@pytest.mark.parametrize(
    "changes, is_named",
    [({}, True), ({"lr_mult": 2.0}, False), ({"max_lr": 2.0}, False)],
    ids=["own", "multiplier", "bound"],
)
def test_a_late_lr_of_0_is_named_unless_an_override_moves_it(changes, is_named, caplog):
    lines, infos = added(caplog, lr=0.0, **changes)
    assert ["group 1 was added with lr=0, so its lr stays at 0"] * is_named == lines
    assert (0 if is_named else 1) == len(infos)


def test_a_late_0_of_another_field_is_no_mistake(caplog):
    lines, infos = added(caplog, fields={"weight_decay": 0.5}, weight_decay=0.0)
    assert ([], ["group 1 was added at position 8; its next weight_decay 0"]) == (lines, infos)


@pytest.mark.parametrize(
    "field, advice", [("weight_decay", "'wd_mult'"), ("momentum", "'a schedule in groups='")]
)
def test_a_late_field_that_cannot_be_measured_is_named_with_what_to_give(field, advice, caplog):
    writer = param_scheduler(sgd(weight_decay=0.5), {field: 0.5})._writer
    multiplier = writer.plan.fields[0].multiplier
    notices.name_unmeasurable(writer.tracker.tracked[0], field, multiplier, 40)
    (found,) = messages(caplog)
    assert f"and {field} is 0 at position 40, so its ratio cannot be computed" in found
    assert found.endswith(f"give the group {advice}")


def test_a_value_of_something_else_is_named_with_both_values_and_the_field(caplog):
    optimizer = sgd({}, {})
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    optimizer.param_groups[1]["lr"] = 7.0
    scheduler.seek(8)
    (found,) = messages(caplog)
    assert found.startswith(  # a framework that another test has imported gets advice
        "something else writes lr of group 1: its value was 7.0 instead of the scheduled 0.5; the "
        "scheduled value was written again; let only one of the two write lr"
    )


# Lint


def findings(optimizer, fields=None, **arguments):
    found = param_scheduler(optimizer, fields or {"lr": FALL}, **arguments).lint()
    return [(one.code, one.message, one.position) for one in found]


def test_lint_says_which_number_brings_a_group_above_the_schedule():
    message = (
        "group 0: groups[a] multiplies lr by 2, up to 2, which is above the schedule's highest "
        "value 1"
    )
    expected = [("factor-above-one", message, None)]
    assert expected == findings(sgd({"name": "a"}), groups={"a": {"lr": 2.0}})


@pytest.mark.parametrize("own, number", [(0.5, 2.0), (1.0, 1.0), (1.0, 0.5)])
def test_lint_passes_over_a_number_that_stays_at_the_highest_value(own, number):
    optimizer = sgd({"name": "a", "lr": own}, {})
    assert [] == findings(optimizer, groups={"a": {"lr": number}})


def test_lint_says_that_all_groups_get_a_decay_and_up_to_what():
    message = "weight_decay is 0 in every group, so every group gets the schedule, up to 0.75"
    fields = {"weight_decay": UP}
    optimizer = adamw({}, {}, weight_decay=0.0)
    assert [("decay-of-zeros", message, None)] == [
        one for one in findings(optimizer, fields) if one[0] == "decay-of-zeros"
    ]
    silent = {"keep_group_ratios": False}, {"reference": {"weight_decay": 0.5}}
    for arguments in silent:
        codes = [one[0] for one in findings(optimizer, fields, **arguments)]
        assert "decay-of-zeros" not in codes


def test_lint_lists_four_own_lrs_of_which_none_is_the_peak():
    lrs = (0.5,) * 3
    message = "lr's highest value 1 is not the own lr of any group (0.5)"
    assert [("peak-of-no-group", message, None)] == findings(sgd(*({"lr": lr} for lr in lrs)))
    several = [0.6, 0.5, 0.4, 0.3, 0.2]
    scheduler = opt_param_scheduler(sgd(*({"lr": lr} for lr in several), weight_decay=0.1))
    (found,) = [one.message for one in scheduler.lint() if one.code == "peak-of-no-group"]
    assert found.endswith("(0.2, 0.3, 0.4, 0.5)")


@pytest.mark.parametrize("groups", [[{"lr": 0.0}], [{"lr": 0.5, "lr_mult": 2.0}]], ids=str)
def test_lint_passes_over_groups_that_have_no_own_lr_to_compare(groups):
    assert [] == findings(sgd(*groups))


def test_lint_passes_over_other_fields_than_lr_that_have_another_peak():
    assert [] == findings(sgd(momentum=0.9), {"momentum": UP})


def test_lint_says_what_timms_factor_should_be_called():
    message = "group 0: lr_scale has no effect; rename it to 'lr_mult'"
    assert [("lr-scale", message, None)] == findings(sgd({"lr_scale": 0.5}))


def test_lint_knows_a_group_that_was_added_since_the_last_step():
    optimizer = sgd({})
    scheduler = param_scheduler(optimizer)
    optimizer.add_param_group(new_group(lr_scale=0.5))
    assert "lr-scale" in [one.code for one in scheduler.lint()]


def test_lint_finds_an_underflow_at_the_first_of_a_hundred_positions():
    small = Schedule([Phase("linear", 10_000, end=0.0, start=1e-6)])
    optimizer = sgd(lr=1e-6)
    optimizer.param_groups[0]["lr"] = torch.tensor(1e-6, dtype=torch.float16)
    message = "group 0: lr 2e-08 becomes 0 in a tensor of torch.float16"
    assert [("underflow", message, 9_800)] == findings(optimizer, {"lr": small})
