"""Rules for single values: what they refuse, and in which words."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from types import MappingProxyType

import numpy as np
import pytest
import torch

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    Schedule,
    from_config,
    reconcile,
    schedules,
)
from dist_sched._rules import MAX_RATE, near_miss, refuse_large, shown
from dist_sched.errors import RankMismatchError
from helpers import CONFIG, adamw, held

PHASE = {"shape": "linear", "steps": 0.5, "end": 1.0, "start": 0.0}
ENTRIES = ("lr_warmup_steps", "lr_decay_steps", "wd_incr_steps", "wsd_decay_steps")
TYPED = {
    "steps": lambda: Phase("linear", 0.03, end=1.0),
    "until": lambda: Phase("linear", 10, end=1.0, until=0.03),
    "timescale": lambda: Phase("inverse", 10, end=1.0, timescale=0.03),
    "milestones": lambda: Phase("multistep", 10, end=1.0, milestones=[0.03, 5]),
    "steps ": lambda: Phase("linear", 10, end=1.0).replace(steps=0.03),
    "warmup": lambda: schedules.cosine(1.0, 100, 0.03),
    "hold": lambda: schedules.tri_stage(1.0, 100, hold=0.03),
    "up": lambda: schedules.cyclic(1.0, 100, up=0.03),
    "decay": lambda: schedules.build("wsd", peak=1.0, horizon=100, decay=0.03),
    "decay_ends": lambda: schedules.wsd_s(1.0, 100, decay=1, decay_ends=iter([0.03])),
    "points": lambda: schedules.piecewise(iter([(0, 1.0), (0.03, 2.0)])),
    r"warmup_shape\['timescale'\]": lambda: schedules.constant(
        1.0, warmup=10, warmup_shape={"shape": "log", "timescale": 0.03}
    ),
    "steps  ": lambda: Schedule.from_dict({"phases": [PHASE]}).cooldown(0, 0.03),
    "steps   ": lambda: Schedule.from_dict({"phases": [PHASE]}).rewarm(0, 0.03),
}


@pytest.mark.parametrize("name", TYPED)
def test_a_length_below_one_unit_is_refused_in_code_with_both_meanings(name):
    message = rf'^{name.strip()}=0\.03: .* 3% of the horizon \(write 0\.03 \* horizon, or "3%"'
    with pytest.raises(ConfigError, match=message + r".* or 0\.03 units"):
        TYPED[name]()


@pytest.mark.parametrize("name", ENTRIES[:1] + ENTRIES[2:])
def test_an_entry_below_one_unit_is_refused_in_code_with_both_meanings(name):
    message = rf"^{name}=0\.03: .* 3% of the horizon \(write 0\.03 \* lr_decay_steps"
    with pytest.raises(ConfigError, match=message):
        OptimizerParamScheduler(adamw(), **{**CONFIG, name: 0.03})


def test_a_horizon_below_one_unit_is_a_share_of_the_run():
    with pytest.raises(ConfigError, match=r"^lr_decay_steps=0\.5: a horizon below 1 .*50% of the"):
        OptimizerParamScheduler(adamw(), **{**CONFIG, "lr_decay_steps": 0.5})


def test_all_lengths_below_one_unit_are_named_at_once():
    with pytest.raises(ConfigError, match=r"lr_warmup_steps=0\.5: .*; wd_incr_steps=0\.5: "):
        OptimizerParamScheduler(adamw(), **{**CONFIG, "lr_warmup_steps": 0.5, "wd_incr_steps": 0.5})


@pytest.mark.parametrize("value", [np.float32(0.5), torch.tensor(0.5)], ids=repr)
def test_a_length_below_one_unit_is_refused_whatever_number_it_is(value):
    with pytest.raises(ConfigError, match="50% of the horizon"):
        schedules.linear(1.0, 100, value)


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.0, 1.5, 37.5])
def test_no_length_and_one_of_a_unit_or_more_are_legal_in_code(value):
    assert value == Phase("linear", value, end=1.0).steps
    scheduler = OptimizerParamScheduler(adamw(), **{**CONFIG, "lr_warmup_steps": value})
    assert value == scheduler.lr_warmup_steps


def short():
    """Return a schedule whose phases are shorter than a unit."""
    return Schedule.from_dict({"phases": [{**PHASE, "until": 0.25}, {**PHASE, "start": None}]})


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda one: pickle.loads(pickle.dumps(one)),  # noqa: S301 - our own
        lambda one: Schedule.from_dict(json.loads(json.dumps(one.to_dict()))),
        lambda one: Schedule([phase.replace(end=phase.end) for phase in one.phases]),
    ],
)
def test_a_copied_phase_may_be_shorter_than_a_unit(copied):
    assert short() == copied(short())


def test_a_phase_keeps_its_own_length_in_a_copy():
    phase = short().phases[0]
    assert phase == phase.replace(steps=phase.steps, until=0.25)


def test_what_a_state_holds_may_be_shorter_than_a_unit():
    saved = ParamScheduler(adamw(), {"lr": short()})
    loaded = ParamScheduler(adamw(), {"lr": schedules.linear(1.0, 100)})
    loaded.load_state_dict(saved.state_dict())
    assert saved.state_dict() == loaded.state_dict()
    assert saved.to_config() == from_config(adamw(), loaded.to_config()).to_config()


def test_a_share_of_a_file_may_be_less_than_a_unit():
    config = {**CONFIG, "lr_warmup_steps": 0.003, "wd_incr_steps": "0.5"}
    scheduler = from_config(adamw(), config)
    assert (0.33, 0.5) == (scheduler.lr_warmup_steps, scheduler.wd_incr_steps)
    used = {row.name: row.used for row in reconcile(config, scheduler.state_dict()).rows}
    assert 0.33 == used["lr_warmup_steps"]


def test_what_is_left_between_lengths_may_be_shorter_than_a_unit():
    assert 0.5 == schedules.linear(1.0, 10, 9.5).phases[1].steps
    assert 0.5 == Schedule([Phase("linear", 10.5, 0.0, 1.0)]).cooldown(11, 5).phases[1].steps
    cut = schedules.linear(1.0, 10, 9.5).cooldown(10, 5)
    assert 15 == cut.horizon


def test_the_signature_is_the_functions_own():
    assert ["peak", "horizon", "warmup"] == list(inspect.signature(schedules.noam).parameters)[:3]
    assert "wsd_decay_steps" in inspect.signature(OptimizerParamScheduler).parameters


LARGE = {
    "max_lr": lambda: OptimizerParamScheduler(adamw(), **{**CONFIG, "max_lr": 1e308}),
    "end_wd": lambda: OptimizerParamScheduler(adamw(), **{**CONFIG, "end_wd": 1e300}),
    "end": lambda: Phase("linear", 10, end=1e300),
    "peak": lambda: schedules.cosine(1e300, 100),
    "end ": lambda: schedules.cosine(1.0, 100).cooldown(0, 10, end=1e300),
    "end  ": lambda: schedules.cosine(1.0, 100).rewarm(0, 10, peak=1e300),
    "at_max": lambda: schedules.proportional_to(at_max=1e300),
    "max_lr ": lambda: from_config(adamw(), {**CONFIG, "max_lr": "1e300"}),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_value_that_would_overflow_on_its_way_is_refused_when_built(name):
    with pytest.raises(ConfigError, match=rf"{name.strip()}=1e\+30\d: must be at most 2\.0e\+292"):
        LARGE[name]()


@pytest.mark.parametrize("style", ["linear", "cosine", "inverse-square-root"])
def test_the_largest_value_is_finite_at_every_position(style):
    lengths = {"lr_warmup_steps": 2**52, "lr_decay_steps": 2**53, "wd_incr_steps": 2**53}
    config = {**CONFIG, "max_lr": MAX_RATE, "end_wd": MAX_RATE, "lr_decay_style": style, **lengths}
    scheduler = OptimizerParamScheduler(adamw(), **config)
    for position in (1, 2**52, 2**52 + 1, 2**53):
        scheduler.seek(position)
        assert 0 < held(scheduler)[0] <= MAX_RATE or position == 2**53
        assert 0 < held(scheduler, "weight_decay")[0] <= MAX_RATE


NAMES = [f"transformer.layers.{index}.attention.weight" for index in range(300)]
OWN = {name: {"lr": schedules.linear(0.5, 1000)} for name in NAMES}
LONG_ERRORS = {
    "patterns that match no group": lambda: many_groups(groups={"embed": {"lr": 0.1}}),
    "a reference that no group has": lambda: many_groups(reference="embed"),
    "values that jump": lambda: many_groups(groups=OWN).extend(3000),
    "groups that something else has written": lambda: overwritten().verify(),
}


def many_groups(**arguments):
    optimizer = adamw(*({"name": name} for name in NAMES))
    scheduler = ParamScheduler(optimizer, {"lr": schedules.cosine(1.0, 1000)}, **arguments)
    scheduler.seek(500)
    return scheduler


def overwritten():
    scheduler = many_groups()
    for group in scheduler.optimizer.param_groups:
        group["lr"] = 7.0
    return scheduler


@pytest.mark.parametrize("name", LONG_ERRORS)
def test_an_error_over_hundreds_of_groups_names_the_first_and_counts_the_rest(name):
    with pytest.raises((ConfigError, RankMismatchError), match=r"and 2\d\d more") as caught:
        LONG_ERRORS[name]()
    assert 3000 > len(str(caught.value))


def test_an_error_that_is_cut_short_has_the_rest_in_its_attribute():
    with pytest.raises(RankMismatchError) as caught:
        overwritten().verify()
    assert 300 == len(caught.value.ranks[0]["groups"])


def test_repr_shows_at_most_thirty_rows_of_groups():
    optimizer = adamw(*({"lr": 1.0 + index} for index in range(500)))
    scheduler = OptimizerParamScheduler(optimizer, **CONFIG)
    assert "and 971 more rows" in repr(scheduler)


@pytest.mark.timeout(20)
def test_a_near_miss_is_looked_for_in_little_of_many_long_names():
    names = [f"{'x' * 90}{index}" for index in range(60_000)]
    assert "" == near_miss("y" * 10**6, names)
    assert f"; did you mean {names[-1]!r}?" == near_miss(names[-1].upper(), names)


def nested(levels, width):
    found = []
    for _ in range(levels):
        found = [found] * width
    return found


@pytest.mark.timeout(20)
@pytest.mark.parametrize("levels, width", [(3000, 1), (30, 9)])
@pytest.mark.parametrize(
    "made", [list, tuple, lambda one: {"a": one}, lambda one: MappingProxyType({"a": one})]
)
def test_what_is_nested_is_shown_shortly(levels, width, made):
    value = made(nested(levels, width))
    assert 210 > len(shown(value))
    assert "" == near_miss(value, ["max_lr"])


def test_data_is_counted_at_each_reference():
    one = [0] * 999
    refuse_large([one] * 999)
    with pytest.raises(ConfigError, match="has more than 1,000,000 values"):
        refuse_large([one] * 1001)


OF_ONE_NUMBER = [np.array(3), torch.tensor(3)]
LISTS = {
    "milestones": lambda value: Phase("multistep", 10, end=0.5, milestones=value),
    "milestones of a schedule": lambda value: schedules.multistep(1.0, 100, milestones=value),
    "decay_ends": lambda value: schedules.wsd_s(1.0, 100, decay=5, decay_ends=value),
    "phases": Schedule,
}


@pytest.mark.parametrize("value", OF_ONE_NUMBER, ids=["array", "tensor"])
@pytest.mark.parametrize("name", LISTS)
def test_an_array_of_one_number_is_no_list(name, value):
    with pytest.raises(ConfigError, match=rf"^{name.split(' ', maxsplit=1)[0]}.*must be a list"):
        LISTS[name](value)


@pytest.mark.parametrize("value", [np.array(0.5), torch.tensor(0.5)], ids=["array", "tensor"])
def test_an_array_of_one_number_is_a_number(value):
    cycle = schedules.linear(1.0, 10)
    assert schedules.repeat(cycle, 3, factors=0.5) == schedules.repeat(cycle, 3, factors=value)


@pytest.mark.parametrize("value", [np.ones(2), torch.ones(2), ["strict"]], ids=repr)
def test_an_array_or_a_list_is_no_word_of_a_policy(value):
    with pytest.raises(ConfigError, match="for 'max_lr': must be one of"):
        OptimizerParamScheduler(adamw(), **CONFIG, policy={"max_lr": value, "*": "checkpoint"})
