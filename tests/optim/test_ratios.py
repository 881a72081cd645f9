"""Ratios: which own value is the reference, and how a late group's ratio is rounded."""

from __future__ import annotations

import re

import pytest
import torch

from dist_sched import ConfigError
from dist_sched._optim import ratios
from dist_sched._optim.tracking import TrackedGroup
from helpers import HILL, UP, held, opt_param_scheduler, param_scheduler, sgd


@pytest.mark.parametrize("own, is_near", [(1.0 + 9e-7, True), (1.0 + 2e-6, False)])
def test_an_own_value_is_the_peak_up_to_a_millionth(own, is_near):
    assert is_near == ratios.is_near(own, 1.0)


@pytest.mark.parametrize(
    "dtype, expected",
    [
        (None, 0.333333333333),
        (torch.float64, 0.333333333333),
        (torch.float32, 0.333333),
        (torch.bfloat16, 0.33),
    ],
    ids=str,
)
def test_a_measured_ratio_has_the_digits_that_the_group_can_hold(dtype, expected):
    found = 0.5 if dtype is None else torch.tensor(0.5, dtype=dtype)
    assert expected == ratios.measured(1 / 3, found)


@pytest.mark.parametrize(
    "key, defaults, expected",
    [
        ("lr", {"lr": 0.5}, True),
        ("lr", {"lr": 0.5 * (1 + 5e-8)}, True),
        ("lr", {"lr": 0.5 * (1 + 5e-7)}, False),
        ("lr", {"lr": torch.tensor([0.5])}, True),
        ("lr", {"lr": torch.tensor([0.5, 0.5])}, False),
        ("lr", {"lr": torch.empty((), device="meta")}, False),
        ("lr", {}, False),
        ("lr", None, False),
        ("momentum", {"momentum": 0.5}, False),
        ("betas[1]", {"betas": (0.25, 0.75)}, True),
    ],
    ids=str,
)
def test_an_own_value_is_the_default_where_the_optimizers_defaults_say_so(key, defaults, expected):
    one = TrackedGroup({"lr": 0.5, "betas": (0.5, 0.75)}, 0, 0)
    assert expected == ratios.is_default(one, key, defaults)


def test_the_log_names_the_group_at_the_peak_its_ratio_and_what_to_pass(caplog):
    opt_param_scheduler(sgd({"lr": 4.0}, {"lr": 1.0, "name": "head"}, weight_decay=0.1))
    (record,) = caplog.records
    assert ("dist_sched", "WARNING") == (record.name, record.levelname)
    assert (
        "max_lr=1.0 is the own lr of group 1, but the reference is the first group (group 0, 4.0), "
        "so group 1 gets 0.25 times its own value; pass reference='head', or another max_lr"
    ) == record.message


def test_the_log_says_to_pass_the_number_where_the_group_at_the_peak_has_no_name(caplog):
    opt_param_scheduler(sgd({"lr": 4.0}, {"lr": 1.0}, weight_decay=0.1))
    assert "pass reference=1.0, or" in caplog.text


@pytest.mark.parametrize("lrs", [(1.0, 1.0), (4.0, 2.0), (1.0 + 1e-9, 1.0)], ids=str)
def test_the_log_is_silent_where_the_first_group_is_at_the_peak_or_none_is(lrs, caplog):
    opt_param_scheduler(sgd(*({"lr": lr} for lr in lrs), weight_decay=0.1))
    assert not caplog.records


def test_a_group_of_0_is_not_the_first_of_megatrons_class():
    optimizer = sgd({"lr": 0.0}, {"lr": 2.0}, weight_decay=0.1)
    opt_param_scheduler(optimizer).seek(10)
    assert [0.0, 1.0] == held(optimizer)


def test_of_values_near_the_peak_the_nearest_is_the_reference():
    optimizer = sgd({"lr": 1.0 + 8e-7}, {"lr": 1.0 + 1e-7}, {"lr": 1.0 - 6e-7}, {"lr": 0.5})
    scheduler = param_scheduler(optimizer)
    assert {"lr": 1.0 + 1e-7} == scheduler._writer.references


def test_a_schedule_of_zeros_needs_no_clear_reference():
    optimizer = sgd({"lr": 2.0}, {"lr": 3.0})
    param_scheduler(optimizer, {"lr": 0.0})
    assert [0.0, 0.0] == held(optimizer)


@pytest.mark.parametrize(
    "groups, reference, expected",
    [
        ([{"lr": 1.0}, {"lr": 2.0}], None, "none is the schedule's highest value, 4"),
        ([{"lr": 1.0}, {"lr": 2.0}], None, "reference={'lr': 2}"),
        ([{"lr": 1.0}, {"lr": 2.0}], None, "or give groups 'lr_mult'"),
        ([{"name": "body"}], "bdy", "reference='bdy': no group has this name; did you mean 'body'"),
        ([{}], "head", "the groups have no names"),
        (
            [{"name": "a", "lr": 2.0}, {"name": "a", "lr": 1.0}, {}],
            "a",
            (
                "reference='a': the groups of this name have different values of lr ('1.0', "
                "'2.0'); pass a number instead, as in reference={'lr': ...}"
            ),
        ),
        (
            [{"name": "a", "lr": 0.0}, {}],
            "a",
            (
                "reference='a': its own lr is 0, which cannot be a reference; choose another "
                "group for lr, as in reference={'lr': ..., ...}"
            ),
        ),
    ],
)
def test_a_reference_that_is_not_clear_is_refused_with_what_to_pass(groups, reference, expected):
    curve = {"lr": 4.0} if reference is None else {"lr": HILL}
    with pytest.raises(ConfigError, match=re.escape(expected)):
        param_scheduler(sgd(*groups), curve, reference=reference)


def test_a_name_that_is_for_one_field_must_have_it():
    optimizer = sgd({"name": "a"}, {"name": "b"})
    del optimizer.param_groups[0]["momentum"]
    rule = "different values of momentum (none); pass a number"
    with pytest.raises(ConfigError, match=re.escape(rule)):
        param_scheduler(optimizer, {"lr": HILL, "momentum": UP}, reference={"momentum": "a"})


@pytest.mark.parametrize("momentum", [None, 0.0])
def test_a_name_that_is_for_all_fields_may_lack_one_that_no_group_needs(momentum):
    optimizer = sgd({"name": "a"}, {"name": "b", "lr": 2.0})
    for group in optimizer.param_groups:
        group["momentum"] = 0.0
    if momentum is None:
        del optimizer.param_groups[0]["momentum"]
    scheduler = param_scheduler(optimizer, {"lr": HILL, "momentum": UP}, reference="a")
    scheduler.seek(8)
    assert ([1.0, 2.0], {"lr": 1.0, "momentum": None}) == (
        held(optimizer),
        scheduler._writer.references,
    )


def test_names_that_only_another_rank_may_have_are_found_with_their_fields():
    scheduler = param_scheduler(sgd({"name": "a"}), {"lr": HILL, "momentum": UP})
    tracked, plan = scheduler._writer.tracker.tracked, scheduler._writer.plan
    assert {"b": ["lr", "momentum"]} == ratios.missing_names(tracked, plan, "b")
    given = {"lr": "b", "momentum": "a"}
    assert {"b": ["lr"]} == ratios.missing_names(tracked, plan, given)
    assert {} == ratios.missing_names(tracked, plan, 0.5)


def test_a_number_is_the_reference_of_lr_alone():
    plan = param_scheduler(sgd(), {"lr": HILL, "momentum": UP})._writer.plan
    assert {"lr": 0.5} == ratios.by_field(0.5, plan)
    assert {"lr": "a", "momentum": "a"} == ratios.by_field("a", plan)
    assert {} == ratios.by_field(None, plan)


@pytest.mark.parametrize(
    "reference, message",
    [(-1.0, "reference['lr']"), ({"wd": 1.0}, "'wd' in reference= is not a scheduled field")],
)
def test_a_reference_that_is_none_is_refused_by_its_entry(reference, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        param_scheduler(sgd(), reference=reference)
