"""What every group gets: own values, references, bounds, numbers, leftovers, late groups."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule, schedules
from dist_sched.errors import ConfigError
from helpers import (
    CONFIG,
    FLOAT_AND_TENSOR_LR,
    HILL,
    adamw,
    adamw_of_tensors,
    held,
    new_group,
    opt_param_scheduler,
    param_scheduler,
    sgd,
)

WSD = schedules.wsd(3e-4, 100, warmup=10, decay=20)
PEAK = 10
"""Where the warmups of these schedules end."""
COPIES = [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))]  # noqa: S301
QUARTER = Schedule([Phase("constant", 100, end=0.25, start=0.25)])


def muon_and_adamw(*groups, build=adamw, muon_lr=0.02, lr=3e-4):
    """Return an optimizer for matrices and an AdamW, whose own lr is another."""
    return [sgd({"name": "matrices"}, lr=muon_lr), build(*groups or ({"name": "rest"},), lr=lr)]


def lrs(optimizers):
    return [lr for optimizer in optimizers for lr in held(optimizer)]


# The reference


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("is_muon_first", [True, False])
@pytest.mark.parametrize("peak, expected", [(3e-4, [0.02, 3e-4]), (0.02, [0.02, 3e-4])])
def test_the_group_whose_own_lr_is_the_peak_follows_the_schedule(
    build, is_muon_first, peak, expected
):
    muon, other = muon_and_adamw(build=build)
    optimizers = [muon, other] if is_muon_first else [other, muon]
    fields = {"lr": schedules.wsd(peak, 100, warmup=10, decay=20)}
    ParamScheduler(optimizers, fields).seek(PEAK)
    assert pytest.approx(expected) == lrs([muon, other])


def test_a_peak_that_is_no_groups_own_lr_is_refused_with_the_groups_and_three_ways_out():
    optimizers = muon_and_adamw()
    before = lrs(optimizers)
    with pytest.raises(ConfigError) as caught:
        ParamScheduler(optimizers, {"lr": schedules.wsd(1e-3, 100, decay=20)})
    message = str(caught.value)
    for part in (
        "the groups have different values",
        "matrices  SGD 0",
        "0.0003",
        "reference=",
        "'lr_mult'",
    ):
        assert part in message
    assert before == lrs(optimizers)


def test_24_layer_wise_groups_whose_peak_is_rounded_have_the_peak_at_the_head():
    optimizer = adamw(*({"lr": 3e-4 * 0.75**k} for k in reversed(range(24))))
    assert 1e-4 * 3 != 3e-4
    ParamScheduler(optimizer, {"lr": schedules.cosine(1e-4 * 3, 100, warmup=10)}).seek(PEAK)
    assert [pytest.approx(3e-4 * 0.75**23), 1e-4 * 3] == [held(optimizer)[0], held(optimizer)[-1]]


def test_a_number_multiplies_what_the_group_would_have_without_it():
    optimizers = muon_and_adamw({"name": "head"}, {"name": "embed"})
    groups = {"embed*": {"lr": 0.1}}
    fields = {"lr": schedules.cosine(0.02, 100, warmup=10)}
    ParamScheduler(optimizers, fields, groups=groups).seek(PEAK)
    assert pytest.approx([0.02, 3e-4, 3e-5]) == lrs(optimizers)


def test_where_all_own_values_are_equal_every_group_follows_the_schedule():
    optimizer = adamw({}, {"lr": 0.0}, {}, lr=1e-3)
    ParamScheduler(optimizer, {"lr": HILL}).seek(8)
    assert [1.0, 0.0, 1.0] == held(optimizer)


@pytest.mark.parametrize(
    "reference",
    ["rest", 3e-4, {"lr": "rest"}, {"lr": 3e-4}],
)
def test_reference_says_whose_the_schedule_is(reference):
    optimizers = muon_and_adamw()
    fields = {"lr": schedules.wsd(6e-4, 100, warmup=10, decay=20)}
    ParamScheduler(optimizers, fields, reference=reference).seek(PEAK)
    assert pytest.approx([0.04, 6e-4]) == lrs(optimizers)


def test_reference_of_a_name_is_for_every_field_that_the_groups_have():
    optimizer = sgd(
        {"name": "a", "momentum": 0.4, "lr": 2.0}, {"name": "b", "momentum": 0.2}, weight_decay=0.0
    )
    fields = {"lr": HILL, "momentum": 0.3, "weight_decay": 0.1}
    ParamScheduler(optimizer, fields, reference="b").seek(8)
    assert ([2.0, 1.0], [0.6, 0.3]) == (held(optimizer), held(optimizer, "momentum"))
    assert [0.1, 0.1] == held(optimizer, "weight_decay")


@pytest.mark.parametrize(
    "reference, message",
    [
        ("haed", "no group has this name; did you mean 'head'"),
        ("twice", r"have different values of lr \('1.0', '2.0'\)"),
        ("zero", "its own lr is 0, which cannot be a reference"),
        (0, r"reference\['lr'\]=0: must be greater than 0"),
        ({"lr": -1.0}, r"reference\['lr'\]=-1.0"),
        ({"lrr": 1.0}, "'lrr' in reference= is not a scheduled field; did you mean 'lr'"),
        ([1.0], "reference"),
    ],
)
@pytest.mark.parametrize("build", [param_scheduler, opt_param_scheduler])
def test_an_illegal_reference_is_refused_by_name_and_nothing_has_changed(build, reference, message):
    optimizer = adamw(
        {"name": "head"},
        {"name": "twice"},
        {"name": "twice", "lr": 2.0},
        {"name": "zero", "lr": 0.0},
    )
    before = held(optimizer)
    with pytest.raises(ConfigError, match=message):
        build(optimizer, reference=reference)
    assert before == held(optimizer)


def test_reference_beside_ratios_that_are_off_is_refused():
    with pytest.raises(ConfigError, match="has no effect with keep_group_ratios=False"):
        opt_param_scheduler(reference=1.0, keep_group_ratios=False)


def test_a_reference_where_no_group_has_a_name_says_how_to_add_one():
    with pytest.raises(ConfigError, match="the groups have no names; add them"):
        opt_param_scheduler(reference="head")


def test_megatrons_class_measures_by_the_first_group_and_says_where_the_peak_is_anothers(caplog):
    optimizer = adamw({"lr": 3e-4}, {"lr": 0.02, "name": "muon"})
    scheduler = opt_param_scheduler(optimizer, max_lr=0.02, min_lr=0.0)
    scheduler.seek(10)
    assert pytest.approx([0.02, 0.02 * 0.02 / 3e-4]) == held(optimizer)
    assert "max_lr=0.02 is the own lr of group 1" in caplog.text
    assert "reference='muon'" in caplog.text
    opt_param_scheduler(adamw({"lr": 3e-4}, {"lr": 0.02}), max_lr=0.02, reference=0.02, min_lr=0.0)
    assert 1 == caplog.text.count("is the own lr of")


def test_groups_with_a_schedule_bounds_or_a_multiplier_take_no_part_in_the_reference():
    optimizer = adamw(
        {"lr": 0.5},
        {"lr": 0.3, "name": "own"},
        {"lr": 0.2, "max_lr": 0.2},
        {"lr": 0.1, "lr_mult": 2.0},
    )
    ParamScheduler(optimizer, {"lr": HILL}, groups={"own": {"lr": QUARTER}}).seek(8)
    assert [1.0, 0.25, 0.2, 2.0] == held(optimizer)


def test_ratios_are_those_of_the_declared_peak_after_a_load_that_brings_another():
    optimizers = muon_and_adamw()
    other = ParamScheduler(adamw(lr=6e-4), {"lr": schedules.wsd(6e-4, 100, warmup=10, decay=20)})
    other.seek(PEAK)
    scheduler = ParamScheduler(optimizers, {"lr": WSD})
    scheduler.load_state_dict(other.state_dict())
    assert pytest.approx([0.04, 6e-4]) == lrs(optimizers)


# Own values


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("ours", ["ParamScheduler", "OptimizerParamScheduler"])
def test_initial_lr_that_an_earlier_scheduler_left_is_the_groups_own(caplog, build, ours):
    optimizer = build({"lr": 1e-5}, {"lr": 1e-3})
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert [0.0, 0.0] == held(optimizer)
    if ours == "ParamScheduler":
        scheduler = ParamScheduler(optimizer, {"lr": schedules.cosine(1e-3, 100, warmup=10)})
    else:
        scheduler = opt_param_scheduler(optimizer, max_lr=1e-3, min_lr=0.0, reference=1e-3)
    scheduler.seek(PEAK)
    assert pytest.approx([1e-5, 1e-3]) == held(optimizer)
    assert 1 == caplog.text.count("initial_lr")


def test_initial_lr_is_not_mentioned_again_where_our_own_scheduler_has_written_since(caplog):
    optimizer = adamw({"initial_lr": 1.0})
    opt_param_scheduler(optimizer).seek(40)
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0] == held(optimizer)
    assert not caplog.records


def test_initial_lr_that_is_what_the_group_holds_is_not_mentioned(caplog):
    optimizer = adamw({"initial_lr": 1.0})
    opt_param_scheduler(optimizer)
    assert not caplog.records


@pytest.mark.parametrize("build", [param_scheduler, opt_param_scheduler])
def test_weight_decay_that_is_0_in_all_of_several_groups_is_named_since_all_get_it(caplog, build):
    optimizer = adamw({}, {}, weight_decay=0.0)
    fields = {"fields": {"weight_decay": 0.1}} if build is param_scheduler else {}
    build(optimizer, **fields).seek(100)
    assert [0.1, 0.1] == held(optimizer, "weight_decay")
    assert "weight_decay is 0 in every group" in caplog.text
    assert "wd_mult=0.0" in caplog.text


@pytest.mark.parametrize(
    "groups, changes",
    [
        ([{}], {}),
        ([{}, {"weight_decay": 0.1}], {}),
        ([{}, {}], {"keep_group_ratios": False}),
        ([{}, {}], {"end_wd": 0.0}),
        ([{"wd_mult": 0.0}, {"wd_mult": 1.0}], {}),
    ],
)
def test_zeros_that_are_meant_are_not_named(caplog, groups, changes):
    opt_param_scheduler(adamw(*groups, weight_decay=0.0), **changes)
    assert not caplog.records


# Bounds


STYLES = {
    "linear": ({"lr_decay_style": "linear"}, schedules.linear),
    "cosine": ({"lr_decay_style": "cosine"}, schedules.cosine),
    **{
        f"WSD {style}": (
            {"lr_decay_style": "WSD", "wsd_decay_steps": 30, "lr_wsd_decay_style": style},
            lambda *given, shape=shape, **named: schedules.wsd(
                *given, decay=30, decay_shape=shape, **named
            ),
        )
        for style, shape in {
            "linear": "linear",
            "cosine": "cosine",
            "exponential": "halving",
            "minus_sqrt": "minus_sqrt",
        }.items()
    },
}
MEGATRONS_GROUPS = [
    {"max_lr": 3e-4, "min_lr": 3e-5, "lr_mult": 1.0, "wd_mult": 1.0, "name": "body"},
    {"max_lr": 3e-4, "min_lr": 3e-5, "lr_mult": 1.0, "wd_mult": 0.0, "name": "bias"},
    {"max_lr": 1e-3, "min_lr": 0.0, "lr_mult": 1.0, "wd_mult": 1.0, "name": "embed"},
    {"max_lr": 1e-5, "min_lr": 1e-5, "lr_mult": 0.5, "wd_mult": 1.0, "name": "head"},
]
"""What the builder of `megatron.core.optimizer` writes, with another lr for the embedding."""


@pytest.mark.parametrize("style", STYLES)
def test_bounds_of_groups_have_the_values_of_megatrons_class(style):
    entries, named = STYLES[style]
    bare = {"lr": 3e-4, "weight_decay": 0.1}
    ours, theirs = (adamw(*copy.deepcopy(MEGATRONS_GROUPS), **bare) for _ in range(2))
    config = {**CONFIG, "max_lr": 3e-4, "min_lr": 3e-5, "init_lr": 1e-6, **entries}
    megatrons = OptimizerParamScheduler(theirs, **config)
    fields = {
        "lr": named(3e-4, 110, warmup=10, start=1e-6, floor=3e-5),
        "weight_decay": Schedule([Phase("linear", 100, end=0.1, start=0.0)]),
    }
    scheduler = ParamScheduler(ours, fields)
    for position in range(120):
        scheduler.seek(position)
        megatrons.seek(position)
        assert held(theirs) == pytest.approx(held(ours), rel=1e-12, abs=1e-15)
        assert held(theirs, "weight_decay") == pytest.approx(held(ours, "weight_decay"), rel=1e-12)


def test_a_number_of_a_pattern_acts_on_bounds():
    optimizer = adamw(*copy.deepcopy(MEGATRONS_GROUPS), lr=3e-4)
    fields = {"lr": schedules.cosine(3e-4, 110, warmup=10, floor=3e-5)}
    scheduler = ParamScheduler(optimizer, fields, groups={"embed*": {"lr": 0.1}})
    scheduler.seek(10)
    assert pytest.approx([3e-4, 3e-4, 1e-4, 5e-6]) == held(optimizer)
    scheduler.seek(110)
    assert pytest.approx([3e-5, 3e-5, 0.0, 5e-6]) == held(optimizer)


def test_bounds_of_weight_decay_map_its_first_and_last_value():
    optimizer = adamw({}, {"start_wd": 0.2, "end_wd": 0.4}, {"end_wd": 0.2}, weight_decay=0.1)
    fields = {"weight_decay": Schedule([Phase("linear", 100, end=0.1, start=0.0)])}
    scheduler = ParamScheduler(optimizer, fields)
    assert [0.0, 0.2, 0.0] == held(optimizer, "weight_decay")
    scheduler.seek(50)
    assert pytest.approx([0.05, 0.3, 0.1]) == held(optimizer, "weight_decay")
    scheduler.seek(100)
    assert pytest.approx([0.1, 0.4, 0.2]) == held(optimizer, "weight_decay")


def test_a_constant_schedule_has_a_groups_upper_bound():
    optimizer = adamw({"max_lr": 0.3, "min_lr": 0.1}, {"max_lr": 0.5})
    ParamScheduler(optimizer, {"lr": schedules.constant(1.0, 100, warmup=10)}).seek(50)
    assert [0.3, 0.5] == held(optimizer)


def test_a_constant_weight_decay_needs_equal_bounds_as_in_megatron():
    optimizer = adamw({"start_wd": 0.1, "end_wd": 0.1}, {"start_wd": 0.1, "end_wd": 0.2})
    with pytest.raises(ConfigError, match="group 1: the constant style needs equal bounds"):
        ParamScheduler(optimizer, {"weight_decay": 0.1})


@pytest.mark.parametrize("bad", [float("nan"), -1.0, "1", True, float("inf")])
@pytest.mark.parametrize("name", ["max_lr", "min_lr", "lr_mult"])
def test_an_illegal_bound_is_refused_at_construction_and_at_a_later_step(name, bad):
    with pytest.raises(ConfigError, match=f"group 1: {name}="):
        ParamScheduler(sgd({}, {name: bad}), {"lr": HILL})
    optimizer = sgd({}, {})
    scheduler = ParamScheduler(optimizer, {"lr": HILL})
    scheduler.seek(4)
    before = held(optimizer)
    optimizer.param_groups[1][name] = bad
    with pytest.raises(ConfigError, match=f"group 1: {name}="):
        scheduler.step()
    assert (before, 4) == (held(optimizer), scheduler.num_steps)


@pytest.mark.parametrize("build", [param_scheduler, opt_param_scheduler])
def test_a_bound_of_none_is_none(build):
    optimizer = adamw({"max_lr": None, "min_lr": None, "lr_mult": None}, {"lr": 0.5})
    build(optimizer, reference=1.0).seek(10)
    assert [pytest.approx(0.5)] == [held(optimizer)[1] / held(optimizer)[0]]


class OwnBounds(torch.optim.SGD):
    """An optimizer that has hyper-parameters of its own called as our bounds."""

    def __init__(self, params, lr, **own):
        super().__init__(params, lr)
        self.defaults |= own
        for group in self.param_groups:
            for key, value in own.items():
                group.setdefault(key, value)


@pytest.mark.parametrize("value", [None, 0.0, 5.0])
@pytest.mark.parametrize("build", [param_scheduler, opt_param_scheduler])
def test_a_hyper_parameter_of_the_optimizers_own_is_no_bound(build, value):
    optimizer = OwnBounds([new_group(), new_group(max_lr=3.0)], lr=1.0, max_lr=value)
    scheduler = build(optimizer)
    state = optimizer.state_dict()
    for position in (8, 10):
        scheduler.seek(position)
        assert held(optimizer)[0] == held(optimizer)[1] > 0.5
    optimizer.load_state_dict(state)
    assert held(optimizer)[0] == held(optimizer)[1] > 0.5
    assert [value, 3.0] == [group["max_lr"] for group in optimizer.param_groups]


def test_bounds_beside_a_schedule_of_the_groups_own_are_passed_over_and_named(caplog):
    caplog.set_level(logging.INFO)
    optimizer = sgd({"name": "a", "max_lr": 5.0}, {"name": "b"})
    ParamScheduler(optimizer, {"lr": HILL}, groups={"a": {"lr": QUARTER}}).seek(8)
    assert [0.25, 1.0] == held(optimizer)
    assert (
        "group 0: 'max_lr' has no effect, because the group has the schedule groups[a].lr"
        in caplog.text
    )


# Late changes on groups with bounds


@pytest.mark.parametrize("end, expected", [(0.0, [0.0, 0.0, 0.0]), (0.2, [0.2, 0.4, 0.1])])
@pytest.mark.parametrize("ours", ["ParamScheduler", "OptimizerParamScheduler"])
def test_a_cooldown_acts_on_groups_with_bounds_without_a_jump(ours, end, expected):
    groups = {}, {"max_lr": 2.0, "min_lr": 0.6}, {"lr": 0.5}
    if ours == "ParamScheduler":
        fields = {"lr": schedules.wsd(1.0, 110, warmup=10, decay=30, floor=0.1)}
        scheduler = ParamScheduler(adamw(*groups), fields)
    else:
        wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": 30, "lr_wsd_decay_style": "linear"}
        scheduler = opt_param_scheduler(adamw(*groups), **wsd)
    scheduler.seek(50)
    before = held(scheduler)
    scheduler.cooldown(20, shape="linear", end=end)
    assert pytest.approx(before) == held(scheduler)
    scheduler.seek(60)
    halfway = [(first + last) / 2 for first, last in zip(before, expected, strict=True)]
    assert pytest.approx(halfway) == held(scheduler)
    scheduler.seek(75)
    assert pytest.approx(expected) == held(scheduler)


def test_late_changes_from_the_midst_of_a_decay_move_groups_with_bounds_without_a_jump():
    groups = {}, {"max_lr": 2.0, "min_lr": 0.6}, {"lr": 0.5}
    fields = {"lr": schedules.cosine(1.0, 110, warmup=10, floor=0.1)}
    scheduler = ParamScheduler(adamw(*groups), fields)
    scheduler.seek(60)
    before = held(scheduler)
    assert pytest.approx([0.55, 1.3, 0.275]) == before
    scheduler.rewarm(20, peak=0.8)
    assert pytest.approx(before) == held(scheduler)
    scheduler.seek(80)
    assert pytest.approx([0.8, 1.6, 0.4]) == held(scheduler)
    scheduler.cooldown(20, shape="linear")
    scheduler.seek(100)
    assert pytest.approx([0.0, 0.0, 0.0]) == held(scheduler)


def test_a_cooldown_to_the_schedules_own_end_goes_to_a_groups_own_lower_bound():
    groups = {}, {"max_lr": 2.0, "min_lr": 0.6}
    fields = {"lr": schedules.wsd(1.0, 110, warmup=10, decay=30, floor=0.1)}
    scheduler = ParamScheduler(adamw(*groups), fields)
    scheduler.seek(50)
    scheduler.cooldown(20, shape="linear")
    scheduler.seek(70)
    assert pytest.approx([0.1, 0.6]) == held(scheduler)


COOL = {"steps": 20, "shape": "linear", "end": 0.0}


@pytest.mark.parametrize(
    "bounds, operation, arguments, expected",
    [
        ({"max_lr": 2.0}, "cooldown", COOL, (1.05, 0.0, 2.0)),
        ({"max_lr": 2.0}, "rewarm", {"steps": 20, "peak": 2.0}, (1.05, 4.0, 4.0)),
        ({"min_lr": 0.05}, "rewarm", {"steps": 20, "peak": 2.0}, (0.525, 2.0, 2.0)),
        ({"max_lr": 2.0, "min_lr": 0.6}, "rewarm", {"steps": 20, "peak": 2.0}, (1.3, 4.0, 4.0)),
    ],
)
def test_the_bound_that_a_group_lacks_is_the_declared_schedules_after_late_changes(
    bounds, operation, arguments, expected
):
    before, after, highest = expected
    fields = {"lr": schedules.cosine(1.0, 110, warmup=10, floor=0.1)}
    scheduler = ParamScheduler(adamw(bounds), fields)
    scheduler.seek(60)
    getattr(scheduler, operation)(**arguments)
    assert [pytest.approx(before)] == held(scheduler)
    scheduler.seek(80)
    assert [pytest.approx(after)] == held(scheduler)
    assert pytest.approx(highest) == scheduler.describe_groups()[0].highest


def test_late_changes_of_a_falling_weight_decay_are_in_proportion_to_a_groups_highest_bound():
    optimizer = adamw({}, {"start_wd": 0.4, "end_wd": 0.2}, weight_decay=0.2)
    fields = {"weight_decay": Schedule([Phase("linear", 100, end=0.1, start=0.2)])}
    scheduler = ParamScheduler(optimizer, fields)
    scheduler.seek(50)
    scheduler.cooldown(20, "linear", 0.05, field="weight_decay")
    assert pytest.approx([0.15, 0.3]) == held(optimizer, "weight_decay")
    scheduler.seek(70)
    assert pytest.approx([0.05, 0.1]) == held(optimizer, "weight_decay")


def test_late_changes_move_bounds_of_weight_decay_that_follows_an_lr_of_some_groups():
    optimizer = adamw({}, {"name": "own", "start_wd": 0.05}, weight_decay=0.1)
    fields = {"lr": HILL, "weight_decay": schedules.proportional_to("lr", at_max=0.1)}
    own = {"lr": schedules.linear(0.5, 100, floor=0.25)}
    scheduler = ParamScheduler(optimizer, fields, groups={"own": own})
    scheduler.seek(8)
    before = held(optimizer, "weight_decay")
    scheduler.cooldown(20, end=0.0)
    assert pytest.approx(before) == held(optimizer, "weight_decay")
    scheduler.seek(28)
    assert pytest.approx([0.0, 0.0]) == held(optimizer, "weight_decay")


@pytest.mark.parametrize("through", COPIES, ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("ours", ["ParamScheduler", "OptimizerParamScheduler"])
def test_late_changes_on_groups_with_bounds_survive_a_copy(ours, through):
    groups = {}, {"max_lr": 2.0, "min_lr": 0.6}
    if ours == "ParamScheduler":
        fields = {"lr": schedules.cosine(1.0, 110, warmup=10, floor=0.1)}
        scheduler = ParamScheduler(adamw(*groups), fields)
    else:
        wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": 30, "lr_wsd_decay_style": "linear"}
        scheduler = opt_param_scheduler(adamw(*groups), **wsd)
    scheduler.seek(50)
    scheduler.cooldown(20, "linear", 0.05)
    scheduler.seek(60)
    expected = held(scheduler)
    _, copied = through((scheduler.optimizer, scheduler))
    copied.step(0)
    assert expected == held(copied)


@pytest.mark.parametrize("position", [55, 70, 90])
def test_late_changes_on_groups_with_bounds_are_the_same_after_a_resume(position):
    def build():
        groups = {}, {"max_lr": 2.0, "min_lr": 0.6}, {"lr": 0.5}
        return ParamScheduler(
            adamw(*groups), {"lr": schedules.cosine(1.0, 110, warmup=10, floor=0.1)}
        )

    whole, resumed = build(), build()
    whole.seek(50)
    whole.extend(150, allow_jump=True)
    whole.cooldown(20, end=0.05)
    whole.seek(position)
    resumed.load_state_dict(whole.state_dict())
    assert held(whole) == held(resumed)


# Leftovers


def one_cycle(*groups, max_lr=4.0, build=adamw):
    optimizer = build(*groups)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=100)
    return optimizer


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("ours", [param_scheduler, opt_param_scheduler])
def test_what_torchs_one_cycle_left_is_passed_over_and_named_once(caplog, build, ours):
    optimizer = one_cycle({}, {}, build=build)
    scheduler = ours(optimizer)
    for position in (8, 10):
        scheduler.seek(position)
    assert held(optimizer)[0] == held(optimizer)[1] >= 0.95
    assert 1 == caplog.text.count("from torch's OneCycleLR")


@pytest.mark.parametrize("ours", [param_scheduler, opt_param_scheduler])
def test_what_torchs_one_cycle_left_in_an_optimizers_checkpoint_is_passed_over(caplog, ours):
    state = copy.deepcopy(one_cycle({}, {}).state_dict())
    optimizer = adamw({}, {})
    scheduler = ours(optimizer)
    scheduler.seek(8)
    before = held(optimizer)
    optimizer.load_state_dict(state)
    scheduler.seek(8)
    assert before == held(optimizer)
    assert 1 == caplog.text.count("from torch's OneCycleLR")


def test_a_bound_that_is_written_over_a_leftover_is_a_bound():
    optimizer = one_cycle({}, {})
    scheduler = opt_param_scheduler(optimizer)
    optimizer.param_groups[1]["max_lr"] = 2.0
    scheduler.seek(10)
    assert [1.0, 2.0] == held(optimizer)


def test_lr_scale_in_groups_is_named_with_the_key_that_has_an_effect(caplog):
    optimizer = adamw({"lr_scale": 1.0}, {"lr_scale": 0.75}, {"lr_scale": 0.5})
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0, 1.0, 1.0] == held(optimizer)
    assert "group 1 (and 1 more) has lr_scale=0.75, which has no effect" in caplog.text


# Groups that are added in mid-run


COSINE = {"lr": schedules.cosine(3e-4, 100, warmup=10)}


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("ours", ["ParamScheduler", "OptimizerParamScheduler"])
def test_a_group_added_in_mid_run_has_what_was_written_and_moves_with_the_curve(
    caplog, build, ours
):
    optimizer = build(lr=3e-4)
    if ours == "ParamScheduler":
        scheduler = ParamScheduler(optimizer, COSINE)
    else:
        scheduler = opt_param_scheduler(
            optimizer, max_lr=3e-4, min_lr=0.0, lr_decay_steps=100, lr_decay_style="cosine"
        )
    scheduler.seek(80)
    half = held(optimizer)[0] / 2
    lr = torch.tensor(half) if build is adamw_of_tensors else half
    optimizer.add_param_group(new_group(lr=lr))
    for position in (81, 90, 99):
        scheduler.seek(position)
        first, second = held(optimizer)
        assert first / 2 == pytest.approx(second, rel=1e-6)
    warnings = [record for record in caplog.records if "was added at position 80" in record.message]
    assert ["WARNING"] == [record.levelname for record in warnings]
    assert "ratio 0.5" in warnings[0].message


@pytest.mark.parametrize(
    "written, expected",
    [
        ({}, 1.0),
        ({"lr": 3e-4}, 1.0),
        ({"lr": 1e-5, "initial_lr": 1.5e-4}, 0.5),
        ({"lr": 1.0}, 1.0 / 3e-4),
        ({"lr": 0.0}, 0.0),
        ({"lr_mult": 0.25}, 0.25),
    ],
    ids=["default", "the same as the default", "initial_lr", "above all", "zero", "lr_mult"],
)
def test_a_group_added_in_mid_run_counts_as_one_of_the_start_where_its_value_says_so(
    written, expected
):
    optimizer = adamw(lr=3e-4)
    scheduler = ParamScheduler(optimizer, COSINE)
    scheduler.seek(80)
    optimizer.add_param_group(new_group(**written))
    scheduler.step()
    first, second = held(optimizer)
    assert pytest.approx(expected) == second / first


def test_a_group_added_before_the_first_step_or_at_0_counts_as_one_of_the_start():
    optimizer = adamw(lr=3e-4)
    scheduler = ParamScheduler(optimizer, COSINE)
    optimizer.add_param_group(new_group(lr=1.5e-4))
    scheduler.seek(110)
    optimizer.add_param_group(new_group(lr=0.75e-4))
    scheduler.seek(10)
    assert pytest.approx([3e-4, 1.5e-4, 0.75e-4]) == held(optimizer)


def killed_and_resumed(build, order, ratio, between=lambda resumed: None):  # noqa: ARG005
    """Train to 80, add a group, train to 90, save; and resume as Lightning's finetuning does."""
    first = build(lr=3e-4)
    whole = ParamScheduler(first, COSINE)
    whole.seek(80)
    lr = held(first)[0] * ratio
    first.add_param_group(new_group(lr=torch.tensor(lr) if build is adamw_of_tensors else lr))
    whole.seek(90)
    saved = copy.deepcopy(first.state_dict()), whole.state_dict()
    second = build(lr=3e-4)
    resumed = ParamScheduler(second, COSINE)
    group = {key: value for key, value in saved[0]["param_groups"][1].items() if key != "params"}
    second.add_param_group(new_group(**copy.deepcopy(group)))
    loads = [
        lambda: second.load_state_dict(copy.deepcopy(saved[0])),
        lambda: resumed.load_state_dict(saved[1]),
    ]
    loads[order[0]]()
    between(resumed)
    loads[order[1]]()
    return whole, resumed


def test_a_late_group_with_the_default_lr_keeps_the_weight_decay_that_it_came_with():
    optimizer = adamw(lr=3e-4, weight_decay=0.1)
    scheduler = ParamScheduler(optimizer, {**COSINE, "weight_decay": schedules.linear(0.1, 100)})
    scheduler.seek(80)
    optimizer.add_param_group(new_group(weight_decay=held(optimizer, "weight_decay")[0] / 2))
    scheduler.seek(90)
    first, second = held(optimizer, "weight_decay")
    assert pytest.approx(first / 2) == second


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 1 / 3, 0.123456789])
def test_a_group_added_in_mid_run_has_the_same_lr_after_a_resume(build, order, ratio):
    whole, resumed = killed_and_resumed(build, order, ratio)
    for _ in range(9):
        assert held(whole) == held(resumed)
        whole.step()
        resumed.step()
    resumed.verify()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_step_that_fails_between_the_loads_of_a_resume_changes_nothing(order):
    def fail(resumed):
        group = resumed.optimizer.param_groups[0]
        group["lr_mult"] = -1.0
        with pytest.raises(ConfigError):
            resumed.step()
        del group["lr_mult"]

    whole, resumed = killed_and_resumed(adamw, order, 0.5, fail)
    assert held(whole) == held(resumed)


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("added_at", [0, 80])
def test_a_late_group_that_counts_as_one_of_the_start_has_the_same_lr_after_a_resume(
    build, order, added_at
):
    def add(optimizer):
        optimizer.add_param_group(new_group(lr=torch.tensor(1e-4), initial_lr=1e-4))
        if build is adamw:
            optimizer.param_groups[1]["lr"] = 1e-4

    first, second = build(lr=3e-4), build(lr=3e-4)
    whole, resumed = ParamScheduler(first, COSINE), ParamScheduler(second, COSINE)
    whole.seek(added_at)
    add(first)
    whole.seek(90)
    add(second)
    state = copy.deepcopy(first.state_dict())
    loads = [lambda: second.load_state_dict(state)]
    loads.append(lambda: resumed.load_state_dict(whole.state_dict()))
    for index in order:
        loads[index]()
    for _ in range(9):
        assert held(whole) == held(resumed)
        whole.step()
        resumed.step()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("is_alive", [True, False])
def test_a_newer_scheduler_has_the_ratio_that_a_resume_has_measured(order, is_alive):
    whole, resumed = killed_and_resumed(adamw, order, 0.5)
    optimizer, older = resumed.optimizer, resumed if is_alive else None
    del resumed
    newer = ParamScheduler(optimizer, COSINE)
    newer.seek(90)
    assert held(whole) == held(newer), older


def test_a_newer_scheduler_knows_its_late_group_after_a_step_of_the_older_one_that_is_refused():
    optimizer = adamw(lr=3e-4)
    older = ParamScheduler(optimizer, COSINE)
    older.seek(80)
    optimizer.add_param_group(new_group(lr=held(optimizer)[0] / 2))
    older.seek(81)
    optimizer.add_param_group(new_group(lr=1e-4))
    newer = ParamScheduler(optimizer, COSINE)
    newer.seek(40)
    with pytest.raises(ConfigError, match="newer scheduler"):
        older.step()
    newest = ParamScheduler(optimizer, COSINE)
    newest.seek(40)
    first, _, third = held(newest)
    assert pytest.approx(1e-4 / 3e-4) == third / first


def test_a_newer_scheduler_is_not_waiting_after_a_step_of_the_older_one():
    whole, resumed = killed_and_resumed(adamw, (0, 1), 0.5)
    optimizer, state = resumed.optimizer, copy.deepcopy(whole.optimizer.state_dict())
    resumed.step()
    newer = ParamScheduler(optimizer, COSINE)
    state["param_groups"][1]["lr"] /= 2
    optimizer.load_state_dict(state)
    newer.load_state_dict(whole.state_dict())
    assert held(whole) == held(newer)


def test_a_late_group_cannot_be_measured_where_the_schedule_is_0(caplog):
    first = adamw(lr=3e-4)
    whole = ParamScheduler(first, COSINE)
    whole.seek(80)
    first.add_param_group(new_group(lr=1e-5))
    whole.seek(100)
    second = adamw(lr=3e-4)
    resumed = ParamScheduler(second, COSINE)
    second.add_param_group(new_group(lr=1e-5))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    caplog.clear()
    resumed.load_state_dict(whole.state_dict())
    assert "lr is 0 at position 100" in caplog.text
    assert "'lr_mult'" in caplog.text


def test_a_late_group_that_trains_on_is_not_measured_by_a_later_load():
    whole, resumed = killed_and_resumed(adamw, (0, 1), 0.5)
    state = copy.deepcopy(resumed.optimizer.state_dict())
    state["param_groups"][1]["lr"] /= 2
    resumed.step()
    resumed.optimizer.load_state_dict(state)
    resumed.load_state_dict(whole.state_dict())
    assert held(whole) == held(resumed)


def test_a_late_group_that_trained_is_not_measured_again_by_a_rollback():
    optimizer = adamw(lr=3e-4)
    scheduler = ParamScheduler(optimizer, COSINE)
    scheduler.seek(80)
    optimizer.add_param_group(new_group(lr=held(optimizer)[0] / 2))
    scheduler.step()
    scheduler.step()
    saved, state = copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()
    saved["param_groups"][1]["lr"] /= 2
    scheduler.step()
    optimizer.load_state_dict(saved)
    scheduler.load_state_dict(state)
    first, second = held(optimizer)
    assert pytest.approx(first / 2) == second


# What something else does


def test_an_optimizer_that_was_loaded_beside_a_scheduler_that_was_not_is_named_once(caplog):
    optimizer = adamw(lr=3e-4)
    trained = ParamScheduler(optimizer, COSINE)
    trained.seek(60)
    state = copy.deepcopy(optimizer.state_dict())
    fresh = adamw(lr=3e-4)
    scheduler = ParamScheduler(fresh, COSINE)
    fresh.load_state_dict(state)
    assert not caplog.records
    for _ in range(3):
        scheduler.step()
    (record,) = caplog.records
    assert "WARNING" == record.levelname
    assert f"group 0 was loaded with lr={COSINE['lr'](60)!r}" in record.message
    assert "seek(position)" in record.message


def test_what_a_refused_load_of_an_optimizer_carried_is_not_named(caplog):
    optimizer = adamw({}, {}, lr=3e-4)
    scheduler = ParamScheduler(optimizer, COSINE)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"].pop()
    state["param_groups"][0]["lr"] = 0.5
    trained = ParamScheduler(adamw(lr=3e-4), COSINE)
    trained.seek(60)
    with pytest.raises(ValueError, match="different number"):
        optimizer.load_state_dict(state)
    scheduler.load_state_dict(trained.state_dict())
    scheduler.step()
    assert not caplog.records


def test_accelerates_load_of_a_fresh_optimizer_into_itself_is_not_named(caplog):
    optimizer = adamw(lr=3e-4)
    scheduler = ParamScheduler(optimizer, COSINE)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler.step()
    assert not caplog.records


@pytest.mark.parametrize("edit", [{"lr_mult": 0.5}, {"max_lr": 1e-4}])
def test_an_override_that_is_written_after_such_a_load_is_not_taken_for_a_load(caplog, edit):
    optimizer = adamw(lr=3e-4)
    scheduler = ParamScheduler(optimizer, {"lr": schedules.cosine(3e-4, 100)})
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.param_groups[0].update(edit)
    scheduler.step()
    assert not caplog.records


def test_a_load_beside_a_scheduler_that_was_not_is_named_after_steps_too(caplog):
    optimizer = adamw(lr=3e-4)
    scheduler = ParamScheduler(optimizer, COSINE)
    scheduler.seek(60)
    state = copy.deepcopy(optimizer.state_dict())
    fresh = adamw(lr=3e-4)
    scheduler = ParamScheduler(fresh, COSINE)
    fresh.load_state_dict(fresh.state_dict())
    scheduler.step()
    fresh.load_state_dict(state)
    scheduler.step()
    assert "the optimizer was loaded and the scheduler was not" in caplog.text


@pytest.mark.parametrize("place", ["load before", "load after", "seek", "num_steps"])
def test_a_scheduler_that_knows_where_the_run_is_is_not_named(caplog, place):
    optimizer = adamw(lr=3e-4)
    trained = ParamScheduler(optimizer, COSINE)
    trained.seek(60)
    state = copy.deepcopy(optimizer.state_dict())
    fresh = adamw(lr=3e-4)
    scheduler = ParamScheduler(fresh, COSINE)
    if place == "load before":
        scheduler.load_state_dict(trained.state_dict())
    fresh.load_state_dict(state)
    if place == "load after":
        scheduler.load_state_dict(trained.state_dict())
    elif place == "seek":
        scheduler.seek(60)
    elif place == "num_steps":
        scheduler.num_steps = 60
    scheduler.step()
    assert not caplog.records


def written_by_others(optimizer, value):
    found = optimizer.param_groups[0]["lr"]
    if isinstance(found, torch.Tensor):
        found.fill_(value)
    else:
        optimizer.param_groups[0]["lr"] = value


@FLOAT_AND_TENSOR_LR
def test_a_value_that_something_else_wrote_is_named_once_with_both_values(caplog, build):
    optimizer = build(lr=1.0)
    scheduler = opt_param_scheduler(optimizer)
    for value in (0.25, 0.125):
        scheduler.step()
        written_by_others(optimizer, value)
    scheduler.step()
    (record,) = caplog.records
    assert "something else writes lr of group 0: its value was 0.25" in record.message
    assert [pytest.approx(0.3)] == held(optimizer)


def test_a_tensor_that_something_else_put_there_is_named(caplog):
    optimizer = adamw_of_tensors()
    scheduler = opt_param_scheduler(optimizer)
    scheduler.step()
    optimizer.param_groups[0]["lr"] = torch.tensor(0.25)
    scheduler.step()
    assert "something else writes lr" in caplog.text


@FLOAT_AND_TENSOR_LR
def test_verify_on_one_process_says_that_something_else_writes(build):
    from dist_sched.errors import RankMismatchError

    optimizer = build(lr=1.0)
    scheduler = opt_param_scheduler(optimizer)
    scheduler.step()
    written_by_others(optimizer, 0.25)
    with pytest.raises(RankMismatchError, match=r"^something else has written"):
        scheduler.verify()


@FLOAT_AND_TENSOR_LR
def test_loads_copies_pickles_overrides_and_equal_values_are_no_others_writes(caplog, build):
    optimizer = build({}, {"weight_decay": 0.0}, lr=1.0)
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(40)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    scheduler.step()
    optimizer, scheduler = copy.deepcopy((optimizer, scheduler))
    scheduler.step()
    optimizer, scheduler = pickle.loads(pickle.dumps((optimizer, scheduler)))  # noqa: S301
    scheduler.step()
    for value in (0.5, 0.25, None, 0.5, None):
        if value is None:
            del optimizer.param_groups[0]["lr_mult"]
        else:
            optimizer.param_groups[0]["lr_mult"] = value
        scheduler.step()
    optimizer.add_param_group(new_group())
    scheduler.step()
    assert not [record for record in caplog.records if "something else" in record.message]


def test_a_newer_scheduler_takes_over_and_the_older_ones_next_write_raises(caplog):
    optimizer = adamw()
    older = opt_param_scheduler(optimizer)
    newer = opt_param_scheduler(optimizer)
    assert "a newer scheduler writes lr, weight_decay of AdamW" in caplog.text
    for write in (
        older.step,
        lambda: older.seek(3),
        lambda: older.load_state_dict(newer.state_dict()),
    ):
        with pytest.raises(ConfigError, match="a newer scheduler writes the groups"):
            write()
    newer.seek(60)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [0.55] == held(optimizer)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],  # noqa: S301
    ids=["deepcopy", "pickle"],
)
def test_a_newer_scheduler_on_a_copied_optimizer_takes_over_with_the_own_values(copied):
    optimizer = adamw({"lr": 1.0}, {"lr": 0.25})
    optimizer, older = copied((optimizer, opt_param_scheduler(optimizer)))
    newer = opt_param_scheduler(optimizer)
    with pytest.raises(ConfigError, match="a newer scheduler writes the groups"):
        older.seek(60)
    newer.seek(10)
    assert [1.0, 0.25] == held(optimizer)


def test_schedulers_of_other_fields_do_not_take_over(caplog):
    optimizer = sgd()
    first = ParamScheduler(optimizer, {"lr": HILL})
    second = ParamScheduler(optimizer, {"momentum": 0.25})
    first.seek(4)
    second.seek(4)
    assert ([0.5], [0.25]) == (held(optimizer), held(optimizer, "momentum"))
    assert not caplog.records


def test_a_scheduler_that_is_gone_is_not_taken_over_from(caplog):
    optimizer = sgd()
    ParamScheduler(optimizer, {"lr": HILL})
    ParamScheduler(optimizer, {"lr": HILL})
    assert not caplog.records


@FLOAT_AND_TENSOR_LR
@pytest.mark.parametrize("through", COPIES, ids=["deepcopy", "pickle"])
def test_a_copy_of_both_keeps_ratios_and_writes_again_after_a_load(build, through):
    optimizer = build({"lr": 1.0}, {"lr": 0.5})
    scheduler = opt_param_scheduler(optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    scheduler.seek(60)
    scheduler, optimizer = through((scheduler, optimizer))
    optimizer.load_state_dict(state)
    assert pytest.approx([0.55, 0.275]) == held(optimizer)
    assert scheduler.optimizer is optimizer


def test_a_scheduler_copied_without_its_optimizer_is_refused_in_words():
    with pytest.raises(ConfigError, match="cannot be copied without its optimizer"):
        copy.copy(opt_param_scheduler())


# Values that cannot be held


def test_a_factor_that_takes_a_value_out_of_the_range_of_floats_is_refused_by_name():
    optimizer = adamw({"lr": 1.0}, {"lr_mult": 1e30})
    with pytest.raises(ConfigError, match="group 1: lr would reach inf"):
        opt_param_scheduler(optimizer, max_lr=1e280)


def test_an_lr_that_a_tensors_dtype_cannot_hold_is_refused_by_name():
    optimizer = adamw(lr=torch.tensor(1.0, dtype=torch.float16))
    with pytest.raises(ConfigError, match=r"group 0: lr would reach 100000\.0"):
        opt_param_scheduler(optimizer, max_lr=1e5)


# The table of groups


def test_describe_groups_says_what_each_group_gets_and_why():
    optimizer = adamw(
        {"name": "head"},
        {"name": "body", "lr": 0.1},
        {"name": "embed", "lr": 0.5},
        {"name": "bias", "weight_decay": 0.0},
        {"name": "odd", "max_lr": 2.0, "lr_mult": 0.5},
        {"name": "own"},
        lr=1.0,
    )
    fields = {"lr": HILL, "weight_decay": 0.1}
    groups = {"embed*": {"lr": 0.1}, "own": {"lr": QUARTER}}
    scheduler = ParamScheduler(optimizer, fields, groups=groups)
    scheduler.seek(4)
    rows = {(row.name, row.field): row for row in scheduler.describe_groups()}
    assert {
        ("head", "lr"): (0.5, 1.0, "the schedule"),
        ("body", "lr"): (0.05, 0.1, "ratio 0.1 to group 'head'"),
        ("embed", "lr"): (0.025, 0.05, "ratio 0.5 to group 'head', groups[embed*] × 0.1"),
        ("bias", "lr"): (0.5, 1.0, "the schedule"),
        ("odd", "lr"): (0.5, 1.0, "own max_lr, lr_mult 0.5"),
        ("own", "lr"): (0.25, 0.25, "the schedule of groups[own]"),
        ("bias", "weight_decay"): (0.0, 0.0, "own value 0, stays 0"),
    } == {
        key: (pytest.approx(row.value), pytest.approx(row.highest), row.source)
        for key, row in rows.items()
        if key[1] == "lr" or key[0] == "bias"
    }
    assert (0, "AdamW", 2) == rows["head", "lr"][0:1] + rows["head", "lr"][2:4]
    assert "embed" in str(scheduler.describe_groups())
    assert "groups[embed*] × 0.1" in repr(scheduler)


def test_construction_logs_the_table_once_with_equal_groups_folded(caplog):
    caplog.set_level(logging.INFO)
    opt_param_scheduler(adamw(*({"name": f"layer.{index}"} for index in range(1000)), {"lr": 2.0}))
    (record,) = caplog.records
    assert "INFO" == record.levelname
    assert "0-999" in record.message
    assert record.message.count("\n") < 10


def test_a_long_table_is_cut_in_the_log_and_whole_in_the_rows(caplog):
    caplog.set_level(logging.INFO)
    optimizer = adamw(*({"lr": 1.0 + index} for index in range(500)))
    scheduler = opt_param_scheduler(optimizer)
    assert 32 >= len(caplog.records[0].message.splitlines())
    assert 4000 > len(caplog.records[0].message)
    assert 1000 == len(scheduler.describe_groups())


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_table_says_what_the_groups_hold(data):
    keys = {"lr": st.sampled_from([0.0, 0.5, 1.0]), "lr_mult": st.sampled_from([0.0, 0.5, 1, 3.0])}
    keys |= {key: st.sampled_from([0.25, 1.0, 2]) for key in ("max_lr", "min_lr")}
    names = st.sampled_from(["a", "b", "c"])
    groups = data.draw(
        st.lists(st.fixed_dictionaries({"name": names}, optional=keys), min_size=1, max_size=6)
    )
    own = data.draw(st.sampled_from([{}, {"a": {"lr": 0.5}}, {"[ab]": {"lr": 0.1}}]))
    own = {
        pattern: one for pattern, one in own.items() if any(g["name"] in pattern for g in groups)
    }
    optimizer = adamw(*groups)
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups=own, reference={"lr": 1.0})
    scheduler.seek(data.draw(st.integers(0, 50)))
    assert held(optimizer) == [row.value for row in scheduler.describe_groups()]


# Lint


def codes(scheduler):
    return [finding.code for finding in scheduler.lint()]


QUIET = {"lr": schedules.linear(1.0, 100)}


@pytest.mark.parametrize(
    "groups, fields, arguments, expected",
    [
        ([{"name": "a"}], {}, {}, []),
        ([{"name": "a"}], {}, {"groups": {"a": {"lr": 2.0}}}, ["factor-above-one"]),
        ([{"name": "a", "lr": 0.1}, {}], {}, {"groups": {"a": {"lr": 5.0}}}, []),
        ([{"weight_decay": 0.0}] * 2, {"weight_decay": 0.1}, {}, ["decay-of-zeros"]),
        ([{"weight_decay": 0.0}, {}], {"weight_decay": 0.1}, {}, []),
        ([{"lr": 0.5}, {"lr": 0.5}], {}, {}, ["peak-of-no-group"]),
        ([{"lr": 0.5}, {"lr": 0.5}], {}, {"reference": 0.5}, []),
        ([{"lr_scale": 0.5}], {}, {}, ["lr-scale"]),
    ],
)
def test_lint_names_what_is_probably_a_mistake_in_groups(groups, fields, arguments, expected):
    scheduler = ParamScheduler(adamw(*groups), {**QUIET, **fields}, **arguments)
    assert expected == codes(scheduler)


def test_lint_names_an_lr_that_underflows_in_a_tensor_and_where():
    optimizer = adamw(lr=torch.tensor(1e-5, dtype=torch.float16))
    (finding,) = ParamScheduler(optimizer, {"lr": schedules.linear(1e-5, 1000, floor=1e-9)}).lint()
    assert ("underflow", "warning", 1000) == (finding.code, finding.level, finding.position)
