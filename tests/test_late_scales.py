"""Late changes that keep the value or multiply it: `extend(keep="value")` and `scale`."""

from __future__ import annotations

import itertools
import json

import pytest

from dist_sched import ConfigError, ParamScheduler, Phase, Schedule, from_config, schedules
from dist_sched._config.entries import InexpressibleChangeError
from helpers import FLOAT_AND_TENSOR_LR, held, sgd, text_of
from late_helpers import BOTH, FALL, STABLE, WSD, at, megatrons, phased

RISE_AND_FALL = Schedule([Phase("linear", 10, end=1.0, start=0.0), Phase("linear", 90, end=0.0)])
FOLLOWS = {"lr": RISE_AND_FALL, "weight_decay": schedules.proportional_to(at_max=0.5)}


@BOTH
def test_a_scale_multiplies_lr_from_here_on_and_no_other_field(build):
    plain, scheduler = build(100), build(100)
    scheduler.scale(0.25)
    assert [0.25, 0.25, 0.25] == at(scheduler, 100, 500, 2000)
    assert at(plain, 100, 500, key="weight_decay") == at(scheduler, 100, 500, key="weight_decay")


def test_a_scale_leaves_what_came_before():
    scheduler = phased(50, {"lr": FALL})
    scheduler.scale(2.0)
    assert [0.75, 0.51, 1.0, 0.5, 0.0] == at(scheduler, 25, 49, 50, 75, 100)


@BOTH
def test_a_scale_is_recorded_and_logged(build, caplog):
    scheduler = build(100)
    with caplog.at_level("INFO", "dist_sched"):
        scheduler.scale(0.5)
    (change,) = scheduler.history
    expected = (100, "scale", {"factor": 0.5, "field": "lr"})
    assert expected == (change.position, change.operation, change.arguments)
    assert [
        "scale at 100: lr changes from 1 to 0.5, and later values in proportion"
    ] == caplog.messages


def test_a_stretched_phase_is_logged(caplog):
    scheduler = phased(60, {"lr": FALL})
    with caplog.at_level("INFO", "dist_sched"):
        scheduler.extend(160, keep="value")
    assert [0.4, 0.2, 0.0] == pytest.approx(at(scheduler, 60, 110, 160))
    line = "lr phase 0 (linear): its rest stretched from 40 to 100 units"
    assert line in caplog.text


@FLOAT_AND_TENSOR_LR
def test_no_group_moves_but_by_the_factor(build):
    groups = [{}, {"name": "own"}, {"max_lr": 2.0, "min_lr": 0.5}, {"lr_mult": 0.5}]
    scheduler = ParamScheduler(
        build(*groups), {"lr": RISE_AND_FALL}, groups={"own": {"lr": FALL}}, reference=1.0
    )
    scheduler.seek(55)
    before = held(scheduler)
    scheduler.extend(200, keep="value")
    assert before == pytest.approx(held(scheduler))
    scheduler.scale(0.5)
    assert [0.5 * one for one in before] == pytest.approx(held(scheduler))


@pytest.mark.parametrize("build", [phased, megatrons])
def test_bounds_of_groups_are_multiplied(build):
    scheduler = build(100, optimizer=sgd({"max_lr": 4.0, "name": "a"})) if build is phased else None
    if scheduler is None:
        scheduler = megatrons(100)
        scheduler.optimizer.param_groups[0]["max_lr"] = 4.0
    scheduler.scale(0.5)
    assert [2.0, 2.0] == at(scheduler, 100, 500)


@pytest.mark.parametrize("position", [5, 10, 55])
def test_what_follows_lr_keeps_its_proportion(position):
    scheduler = phased(position, FOLLOWS)
    scheduler.scale(0.5)
    here = (position, 60, 90)
    lr, weight_decay = at(scheduler, *here), at(scheduler, *here, key="weight_decay")
    assert [0.5 * one for one in lr] == pytest.approx(weight_decay)


def test_a_scale_that_needs_two_proportions_is_refused_and_changes_nothing():
    later = Schedule([Phase("linear", 90, end=1.0, start=0.0), Phase("linear", 10, end=0.0)])
    scheduler = phased(50, FOLLOWS, groups={"body": {"lr": later}})
    before = scheduler.state_dict(), held(scheduler)
    with pytest.raises(ConfigError, match=r"groups\[body\]\.lr, but only one of the two is past"):
        scheduler.scale(0.5)
    assert before == (scheduler.state_dict(), held(scheduler))


@pytest.mark.parametrize("factor", [0, -1.0, float("nan"), "2", True])
@BOTH
def test_what_is_no_factor_is_refused_and_changes_nothing(build, factor):
    scheduler = build(100)
    before = scheduler.state_dict()
    with pytest.raises(ConfigError, match="factor="):
        scheduler.scale(factor)
    assert (before, ()) == (scheduler.state_dict(), scheduler.history)


def test_the_ten_keys_show_scaled_entries():
    scheduler = megatrons(100, min_lr=0.25)
    scheduler.scale(0.5)
    scheduler.scale(2.0, field="weight_decay")
    state = scheduler.state_dict()
    assert (0.5, 0.125, 1.0) == (state["max_lr"], state["min_lr"], state["end_wd"])


@pytest.mark.parametrize(
    "position, entries",
    [
        (50, {"lr_decay_style": "cosine"}),
        (950, WSD),
        (1001, {"lr_decay_style": "inverse-square-root"}),
    ],
)
def test_entries_cannot_stretch_a_decay_that_has_begun(position, entries):
    with pytest.raises(InexpressibleChangeError, match="a decay that was stretched half-way"):
        megatrons(position, **entries).extend(2000, keep="value")


@pytest.mark.parametrize(
    "position, entries", [(4, {"lr_decay_style": "cosine"}), (500, WSD), (900, WSD)]
)
def test_entries_are_extended_where_lr_does_not_decay_yet(position, entries):
    scheduler = megatrons(position, **entries)
    before = held(scheduler)
    scheduler.extend(2000, keep="value")
    assert (before, 2000) == (held(scheduler), scheduler.state_dict()["lr_decay_steps"])


# Several, in every order.

CHANGES = {
    "scale": lambda one: one.scale(0.5),
    "cooldown": lambda one: one.cooldown(40, "linear"),
    "rewarm": lambda one: one.rewarm(10, peak=0.9),
    "extend": lambda one: one.extend(int(horizon_of(one)) + 60, keep="value"),
}
FACTORS = {"scale": 0.5}
ORDERS = [*itertools.permutations(CHANGES)]


def horizon_of(scheduler):
    return scheduler._agreed.effective.fields["lr"].horizon


def changed(order):
    """Return a scheduler that is changed at 20, 35, 50 and 65, and its values up to 80."""
    groups = [{"name": "body"}, {"name": "own"}, {"max_lr": 2.0, "min_lr": 0.5, "name": "bounds"}]
    optimizer = sgd(*groups, weight_decay=0.5)
    scheduler = ParamScheduler(optimizer, FOLLOWS, groups={"own": {"lr": FALL}}, reference=1.0)
    found, states = [], []
    for position in range(81):
        if position >= 20 and position % 15 == 5 and (position - 20) // 15 < len(order):
            name = order[(position - 20) // 15]
            before = held(scheduler)
            CHANGES[name](scheduler)
            expected = [FACTORS.get(name, 1.0) * one for one in before]
            assert expected == pytest.approx(held(scheduler), rel=1e-9), name
        found.append([*held(scheduler), *held(scheduler, "weight_decay")])
        states.append(scheduler.state_dict())
        scheduler.step()
    return scheduler, found, states


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_several_changes_move_no_value_but_by_a_factor_and_resume_at_every_split(order):
    scheduler, found, states = changed(order)
    assert [*order] == [one.operation for one in scheduler.history]
    for split in (0, 20, 21, 36, 50, 66, 80):
        resumed = changed(())[0]
        resumed.load_state_dict(json.loads(json.dumps(states[split])))
        assert found[split] == [*held(resumed), *held(resumed, "weight_decay")]
        assert states[split] == resumed.state_dict()


@pytest.mark.parametrize("order", ORDERS[::5], ids="-".join)
def test_the_config_after_them_has_the_same_values(order):
    scheduler, *_ = changed(order)
    again = from_config(sgd({"name": "own"}, weight_decay=0.5), scheduler.to_config())
    here = range(81, 200, 7)
    expected = [scheduler._agreed.effective.fields["lr"](position) for position in here]
    assert expected == [again._agreed.effective.fields["lr"](position) for position in here]


# The version that is written.


@pytest.mark.parametrize(
    "change, version",
    [
        (lambda one: one.scale(0.5), 2),
        (lambda one: one.extend(2000, keep="value"), 2),
        (lambda one: one.extend(2000), 1),
        (lambda one: one.cooldown(10), 1),
    ],
)
@BOTH
def test_a_state_is_of_version_2_where_a_change_is_new(build, change, version):
    scheduler = build(100)
    change(scheduler)
    assert version == text_of(scheduler.state_dict())["version"]


def test_an_old_scale_cannot_be_in_a_text_of_version_1():
    scheduler = phased(100)
    scheduler.scale(0.5)
    state = scheduler.state_dict()
    state["dist_sched"] = state["dist_sched"].replace('"version": 2', '"version": 1')
    with pytest.raises(ValueError, match="version 2, but its text has version 1"):
        phased().load_state_dict(state)
    assert [1.0] == at(phased(), STABLE.horizon)
