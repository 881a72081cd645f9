"""History: late changes of either scheduler, and what becomes of them in a checkpoint."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    RankMismatchError,
    ReconcileError,
    Schedule,
    StateError,
    from_config,
    schedules,
)
from dist_sched._config.entries import InexpressibleChangeError
from dist_sched._config.history import Change
from dist_sched._config.specification import Specification
from dist_sched._optim import base

STABLE = Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("constant", 992, end=1.0)])
"""1 from 8 on; the horizon is 1000."""
SHORT = {
    "lr": Schedule([Phase("linear", 4, end=1.0, start=0.0), *STABLE.phases[1:]]),
    "weight_decay": Schedule([Phase("linear", 8, end=0.75, start=0.25)]),
}
"""Differs from what `ours` has in the length of the warmup."""
FALL = Schedule([Phase("linear", 100, end=0.0, start=1.0)])
UP = Schedule([Phase("linear", 8, end=0.75, start=0.25)])
SEEDS = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.0,
    "lr_warmup_steps": 8,
    "lr_decay_steps": 1000,
    "lr_decay_style": "constant",
    "start_wd": 0.0,
    "end_wd": 0.5,
    "wd_incr_steps": 100,
    "wd_incr_style": "linear",
}
"""The same lr as STABLE's."""


def sgd(*groups, **arguments):
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], **one} for one in groups or ({},)]
    return torch.optim.SGD(groups, lr=1.0, **{"momentum": 0.5, "weight_decay": 0.5, **arguments})


def ours(position=0, fields=None, **arguments):
    optimizer = arguments.pop("optimizer", None) or sgd({"name": "body"})
    fields = fields or {"lr": STABLE, "weight_decay": UP}
    scheduler = ParamScheduler(optimizer, fields, **arguments)
    scheduler.seek(position)
    return scheduler


def seeds(position=0, **changes):
    arguments = {**SEEDS, **changes}
    scheduler = OptimizerParamScheduler(arguments.pop("optimizer", None) or sgd(), **arguments)
    scheduler.seek(position)
    return scheduler


BOTH = pytest.mark.parametrize("build", [ours, seeds])


def held(scheduler, key="lr"):
    return [float(group[key]) for group in scheduler.optimizer.param_groups]


def at(scheduler, *positions, key="lr"):
    """Give the first group's values at some positions."""
    here, found = scheduler.num_steps, []
    for position in positions:
        scheduler.seek(position)
        found.append(held(scheduler, key)[0])
    scheduler.seek(here)
    return found


def cooled(build, position=100, steps=64, **arguments):
    scheduler = build(position)
    scheduler.cooldown(steps, **{"shape": "linear", "end": 0.0, **arguments})
    return scheduler


# Cooldown


@BOTH
def test_a_cooldown_anneals_from_here_and_stays_at_its_end(build):
    scheduler = cooled(build)
    assert [1.0, 1.0, 0.75, 0.5, 0.0, 0.0] == at(scheduler, 99, 100, 116, 132, 164, 1000)


@BOTH
def test_a_cooldown_changes_nothing_before_it_and_no_other_field(build):
    plain, scheduler = build(), cooled(build)
    positions = range(0, 101, 4)
    assert at(plain, *positions) == at(scheduler, *positions)
    every = range(0, 1001, 50)
    assert at(plain, *every, key="weight_decay") == at(scheduler, *every, key="weight_decay")


@BOTH
@pytest.mark.parametrize(
    "shape, at_a_quarter, halfway",
    [
        ("linear", 0.75, 0.5),
        ("minus_sqrt", 0.5, 1 - 0.5**0.5),
        ("cosine", 0.5 + 0.5 * 0.5**0.5, 0.5),
        ("halving", 2 * 0.5**0.25 - 1, 2 * 0.5**0.5 - 1),
    ],
)
def test_a_cooldown_has_the_shape_it_was_given(build, shape, at_a_quarter, halfway):
    scheduler = cooled(build, shape=shape)
    assert [1.0, at_a_quarter, halfway, 0.0] == pytest.approx(at(scheduler, 100, 116, 132, 164))


@BOTH
def test_a_cooldown_is_of_1_minus_sqrt_to_0_where_nothing_is_said(build):
    scheduler = build(100)
    scheduler.cooldown(64)
    assert [1.0, 0.5, 0.0] == at(scheduler, 100, 116, 164)


@BOTH
def test_a_cooldown_ends_where_it_is_told(build):
    assert [0.75, 0.5] == at(cooled(build, end=0.5), 132, 164)


def test_a_cooldown_of_the_seeds_class_ends_at_min_lr_where_nothing_is_said():
    scheduler = seeds(100, min_lr=0.5)
    scheduler.cooldown(64, "linear")
    assert [0.75, 0.5] == at(scheduler, 132, 164)


def test_a_cooldown_ends_at_the_schedules_last_value_where_that_is_lower():
    low = Schedule([Phase("linear", 100, end=0.25, start=1.0)])
    scheduler = ours(0, {"lr": low})
    scheduler.cooldown(64, "linear")
    assert [1.0, 0.25] == at(scheduler, 0, 64)
    at_the_end = ours(100, {"lr": low})
    at_the_end.cooldown(64, "linear")
    assert [0.25, 0.125, 0.0] == at(at_the_end, 100, 132, 164)


@BOTH
def test_a_cooldown_of_a_cooldown_before_it_began_replaces_it(build):
    scheduler = cooled(build)
    scheduler.seek(50)
    scheduler.cooldown(4, "linear", 0.5)
    assert [1.0, 0.75, 0.5, 0.5] == at(scheduler, 50, 52, 54, 200)
    assert 2 == len(scheduler.history)


def test_a_cooldown_may_begin_anywhere_on_a_curve():
    for position, value in ((4, 0.5), (8, 1.0), (0, 0.0), (1000, 1.0), (2000, 1.0)):
        scheduler = ours(position)
        scheduler.cooldown(64, "linear", 0.0)
        expected = [value, value * 0.5, 0.0]
        assert expected == at(scheduler, position, position + 32, position + 64)


def test_a_cooldown_past_the_horizon_keeps_the_value_held_until_then():
    scheduler = ours(200, {"lr": Schedule([Phase("linear", 100, end=0.5, start=1.0)])})
    scheduler.cooldown(64, "linear", 0.0)
    assert [0.75, 0.5, 0.5, 0.25, 0.0] == at(scheduler, 50, 100, 150, 232, 264)


def test_a_cooldown_is_for_the_field_that_is_named():
    scheduler = ours(100, {"lr": STABLE, "momentum": UP})
    scheduler.cooldown(64, "linear", 0.25, field="momentum")
    assert [0.75, 0.5, 0.25] == at(scheduler, 100, 132, 164, key="momentum")
    assert [1.0, 1.0] == at(scheduler, 132, 164)


def test_schedules_that_named_groups_have_of_their_own_change_with_it():
    optimizer = sgd({"name": "a"}, {"name": "b"}, {"name": "c", "weight_decay": 0.0})
    scheduler = ours(
        50,
        {"lr": STABLE, "weight_decay": schedules.proportional_to(at_max=0.5)},
        groups={"b": {"lr": FALL}, "c": {"lr": 0.5}},
        optimizer=optimizer,
    )
    scheduler.cooldown(64, "linear", 0.0)
    assert [1.0, 0.5, 0.5] == held(scheduler)
    scheduler.seek(82)
    assert [0.5, 0.25, 0.25] == held(scheduler)
    assert [0.25, 0.125, 0.0] == held(scheduler, "weight_decay")


# Extend and rewarm


@BOTH
def test_an_extended_horizon_lengthens_the_stable_part(build):
    scheduler = build(100)
    scheduler.extend(2000)
    assert [0.5, 1.0, 1.0, 1.0] == at(scheduler, 4, 100, 1500, 3000)


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_extended_wsd_falls_later_and_as_long(is_ours):
    tail = Schedule([Phase("constant", 60, 1.0, 1.0), Phase("linear", 40, end=0.0)])
    wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": 40, "lr_wsd_decay_style": "linear"}
    short = {**wsd, "lr_decay_steps": 100, "lr_warmup_steps": 0}
    scheduler = ours(50, {"lr": tail}) if is_ours else seeds(50, **short)
    assert [0.5] == at(scheduler, 80)
    scheduler.extend(200)
    assert [1.0, 1.0, 0.5, 0.0] == at(scheduler, 50, 160, 180, 200)


def test_a_stable_part_may_be_extended_again_and_again():
    scheduler = ours(100)
    for horizon in (1100, 1500, 4000):
        scheduler.extend(horizon)
    assert 4000 == scheduler._config.fields["lr"].horizon
    assert 3 == len(scheduler.history)


@pytest.mark.parametrize("horizon", [1000, 999, 0, -1, float("nan"), "2k", True])
@BOTH
def test_a_horizon_that_is_no_later_is_refused(build, horizon):
    scheduler = build(100)
    before = scheduler.state_dict()
    with pytest.raises(ConfigError, match="horizon="):
        scheduler.extend(horizon)
    assert before == scheduler.state_dict()


def test_a_rewarm_rises_in_a_line_to_the_highest_and_stays():
    scheduler = ours(50, {"lr": FALL})
    scheduler.rewarm(32)
    assert [0.75, 0.5, 0.75, 1.0, 1.0] == at(scheduler, 25, 50, 66, 82, 500)


def test_a_rewarm_rises_to_the_peak_that_it_is_told():
    scheduler = ours(50, {"lr": FALL})
    scheduler.rewarm(32, peak=2.5)
    assert [0.5, 1.5, 2.5] == at(scheduler, 50, 66, 82)


def test_changes_of_several_kinds_follow_each_other_without_a_jump():
    scheduler = ours(100)
    scheduler.cooldown(64, "linear", 0.0)
    scheduler.seek(132)
    scheduler.rewarm(16)
    scheduler.seek(148)
    scheduler.extend(3000, allow_jump=True)
    operations = [change.operation for change in scheduler.history]
    assert ["cooldown", "rewarm", "extend"] == operations
    assert [1.0, 0.75, 0.5] == at(scheduler, 100, 116, 132)


# Jumps and other refusals


JUMPS = {
    "ours": (lambda: ours(50, {"lr": FALL}), 0.5, 0.75),
    "seeds": (
        lambda: seeds(50, lr_decay_style="linear", lr_decay_steps=100, lr_warmup_steps=0),
        0.5,
        0.75,
    ),
}


@pytest.mark.parametrize("kind", JUMPS)
def test_a_jump_is_refused_with_its_size_and_changes_nothing(kind):
    build, before, after = JUMPS[kind]
    scheduler = build()
    state = scheduler.state_dict()
    words = rf"lr would jump from {before} to {after} at position 50, by \+0\.25"
    with pytest.raises(ConfigError, match=words):
        scheduler.extend(200)
    assert (state, [before], ()) == (scheduler.state_dict(), held(scheduler), scheduler.history)
    assert [0.75] == at(scheduler, 25)


def test_a_jump_however_small_is_refused():
    scheduler = ours(1, {"lr": FALL})
    with pytest.raises(ConfigError, match=r"lr would jump from 0\.99 to 0\.990000"):
        scheduler.extend(100.001)


@pytest.mark.parametrize("kind", JUMPS)
def test_a_jump_that_is_allowed_is_made_at_once_and_recorded(kind):
    build, _, after = JUMPS[kind]
    scheduler = build()
    scheduler.extend(200, allow_jump=True)
    assert ([after], 50) == (held(scheduler), scheduler.num_steps)
    assert (Change(50, "extend", {"horizon": 200, "field": "lr"}),) == scheduler.history


def test_a_change_that_moves_what_is_coupled_is_a_jump_too():
    scheduler = ours(50, {"lr": STABLE, "weight_decay": schedules.proportional_to(at_max=0.5)})
    with pytest.raises(ConfigError, match=r"weight_decay would jump from 0\.5 to 0\.25 .*-0\.25"):
        scheduler.rewarm(16, peak=2.0)
    scheduler.rewarm(16, peak=2.0, allow_jump=True)
    assert [0.25] == held(scheduler, "weight_decay")


def test_a_change_that_makes_the_curve_of_a_named_group_jump_is_refused():
    scheduler = ours(50, {"lr": STABLE}, groups={"body": {"lr": FALL}})
    with pytest.raises(ConfigError, match=r"groups\[body\]\.lr would jump from 0\.5"):
        scheduler.extend(2000)
    assert () == scheduler.history


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda one: one.cooldown(0), "steps=0: must be at least 1 unit"),
        (lambda one: one.cooldown(-1), "steps=-1"),
        (lambda one: one.cooldown("1k"), "steps='1k'"),
        (lambda one: one.cooldown(10, "wave"), "shape='wave': must be one of"),
        (lambda one: one.cooldown(10, end=-1.0), r"end=-1\.0"),
        (lambda one: one.cooldown(10, end=float("nan")), "end=nan"),
        (lambda one: one.cooldown(10, field="lrr"), "field='lrr': is not scheduled.*mean 'lr'"),
        (lambda one: one.cooldown(10, field="eps"), "field='eps': is not scheduled"),
        (lambda one: one.cooldown(10, field=1), "field=1"),
        (lambda one: one.cooldown(10, allow_jump=1), "allow_jump=1"),
        (lambda one: one.cooldown(10, "exponential", 0.0), "must be greater than 0"),
        (lambda one: one.rewarm(0), "steps=0"),
        (lambda one: one.rewarm(10, -1.0), r"peak=-1\.0"),
        (lambda one: one.rewarm(10, 1.0, field="momentum"), r"momentum would reach 1\.0"),
        (lambda one: one.cooldown(10, field="weight_decay"), "follows lr: change that one"),
    ],
)
def test_an_illegal_change_is_refused_by_name_and_changes_nothing(change, message):
    fields = {"lr": STABLE, "momentum": UP, "weight_decay": schedules.proportional_to(at_max=0.5)}
    scheduler = ours(100, fields)
    before = scheduler.state_dict(), held(scheduler), repr(scheduler)
    with pytest.raises(ConfigError, match=message):
        change(scheduler)
    assert before == (scheduler.state_dict(), held(scheduler), repr(scheduler))


def test_a_change_that_a_group_cannot_be_given_changes_nothing():
    scheduler = ours(100)
    scheduler.optimizer.param_groups[0]["lr_mult"] = -1.0
    with pytest.raises(ConfigError, match=r"group 0: lr_mult=-1\.0"):
        scheduler.cooldown(64)
    del scheduler.optimizer.param_groups[0]["lr_mult"]
    assert () == scheduler.history
    assert [1.0, 1.0] == at(scheduler, 132, 164)


WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 100, "lr_wsd_decay_style": "linear"}


@pytest.mark.parametrize(
    "scheduler, change, message",
    [
        (lambda: seeds(4), lambda one: one.cooldown(8), "where lr is constant at max_lr"),
        (lambda: seeds(950, **WSD), lambda one: one.cooldown(8), "where lr is constant at max_lr"),
        (
            lambda: seeds(100, lr_decay_style="cosine"),
            lambda one: one.cooldown(8),
            "where lr is constant at max_lr",
        ),
        (lambda: seeds(100), lambda one: one.cooldown(8, "polynomial"), "its tail must be one of"),
        (lambda: seeds(100), lambda one: one.rewarm(8), "its entries have no place for it"),
        (
            lambda: seeds(100),
            lambda one: one.cooldown(8, field="weight_decay"),
            "its entries have no place for it",
        ),
        (
            lambda: seeds(100),
            lambda one: one.extend(2000, field="weight_decay"),
            "its entries have no place for it",
        ),
        (lambda: seeds(100), lambda one: one.cooldown(8, end=2.0), r"min_lr=2\.0: must be at most"),
    ],
)
def test_what_the_seeds_entries_cannot_express_is_refused_and_changes_nothing(
    scheduler, change, message
):
    scheduler = scheduler()
    before = scheduler.state_dict(), held(scheduler)
    with pytest.raises(ConfigError, match=message):
        change(scheduler)
    assert (before, ()) == ((scheduler.state_dict(), held(scheduler)), scheduler.history)


def test_a_refusal_of_the_seeds_class_names_the_change_and_the_other_class():
    with pytest.raises(ConfigError) as error:
        seeds(100).rewarm(8)
    assert (
        "rewarm at 100 (field=lr, steps=8, peak=None): OptimizerParamScheduler cannot express it"
        in str(error.value)
    )
    assert "schedule with ParamScheduler" in str(error.value)


def test_a_change_that_the_entries_cannot_express_is_an_error_with_the_change_and_the_reason():
    with pytest.raises(InexpressibleChangeError) as caught:
        seeds(100).rewarm(8)
    change = Change(100, "rewarm", {"field": "lr", "steps": 8, "peak": None})
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301
        assert (change, "as its entries have no place for it") == (error.change, error.reason)


def test_the_seeds_class_cools_down_up_to_where_its_tail_begins():
    scheduler = seeds(900, **WSD)
    scheduler.cooldown(50, "linear")
    assert [1.0, 0.5, 0.0] == at(scheduler, 900, 925, 950)
    at_the_end_of_warmup = seeds(8)
    at_the_end_of_warmup.cooldown(64, "linear")
    assert [0.5, 1.0, 0.5] == at(at_the_end_of_warmup, 4, 8, 40)


# The record


@BOTH
def test_the_record_has_position_operation_and_arguments(build):
    arguments = {"steps": 64, "shape": "linear", "end": 0.0, "field": "lr"}
    scheduler = cooled(build)
    (change,) = scheduler.history
    assert (100, "cooldown", arguments) == (change.position, change.operation, change.arguments)
    assert "late change: cooldown at 100 (field=lr, steps=64, shape=linear" in repr(scheduler)


@BOTH
def test_a_change_is_at_the_position_where_it_is_made_and_a_seek_back_is_before_it(build):
    scheduler = cooled(build)
    scheduler.seek(50)
    assert [1.0] == held(scheduler)
    scheduler.step(82)
    assert [0.5] == held(scheduler)


@pytest.mark.parametrize(
    "position, operation, arguments",
    [
        (-1, "extend", {"horizon": 5, "field": "lr"}),
        (1.5, "extend", {"horizon": 5, "field": "lr"}),
        (1, "lengthen", {"horizon": 5, "field": "lr"}),
        (1, "extend", {"horizon": 5}),
        (1, "extend", {"horizon": 5, "field": "lr", "steps": 3}),
        (1, "extend", {"horizon": 0, "field": "lr"}),
        (1, "rewarm", {"steps": 5, "field": ""}),
        (1, "rewarm", {"steps": 5, "field": "", "peak": 1.0}),
    ],
)
def test_an_illegal_record_cannot_be_made(position, operation, arguments):
    with pytest.raises(ConfigError):
        Change(position, operation, arguments)


def test_a_record_is_data():
    change = Change(7, "rewarm", {"steps": 5, "peak": None, "field": "lr"})
    told = json.loads(json.dumps(change.to_dict()))
    assert change == Change(**told)
    assert "rewarm at 7 (field=lr, steps=5, peak=None)" == str(change)


# The state


def unsaid(state):
    return json.loads(state["dist_sched"])


@BOTH
def test_the_text_keeps_the_base_and_the_changes(build):
    told = unsaid(cooled(build).state_dict())
    before = unsaid(build(100).state_dict())
    arguments = {"steps": 64, "shape": "linear", "end": 0.0, "field": "lr"}
    change = {"position": 100, "operation": "cooldown", "arguments": arguments}
    assert {**before, "lineage": [change]} == told


def test_the_ten_keys_show_the_changed_entries_so_that_a_seed_goes_on_with_them():
    scheduler = cooled(seeds, end=0.25)
    state = scheduler.state_dict()
    expected = {"lr_decay_style": "WSD", "lr_decay_steps": 164, "min_lr": 0.25, "max_lr": 1.0}
    assert expected == {key: state[key] for key in expected}
    keys = {key: value for key, value in state.items() if key != "dist_sched"}
    seed = seeds(wsd_decay_steps=64, lr_wsd_decay_style="linear")
    seed.load_state_dict(keys)
    assert at(scheduler, *range(100, 170)) == at(seed, *range(100, 170))


def extended_and_cooled(build, position):
    scheduler = build(position)
    scheduler.extend(1500)
    scheduler.cooldown(37, "cosine", 0.1)
    return scheduler


@BOTH
def test_a_resume_of_a_changed_schedule_is_exact_at_every_split_point(build):
    whole, expected, states = extended_and_cooled(build, 97), [], []
    for _ in range(45):
        expected.append((held(whole), held(whole, "weight_decay")))
        states.append(whole.state_dict())
        whole.step()
    for split, state in enumerate(states):
        resumed, found = build(), []
        resumed.load_state_dict(json.loads(json.dumps(state)))
        for _ in states[split:]:
            found.append((held(resumed), held(resumed, "weight_decay")))
            resumed.step()
        assert expected[split:] == found
        assert whole.history == resumed.history


@BOTH
def test_loading_twice_is_loading_once_and_a_later_load_forgets_the_changes(build):
    changed, scheduler = cooled(build), build()
    for _ in range(2):
        scheduler.load_state_dict(changed.state_dict())
        assert (changed.history, changed.state_dict()) == (
            scheduler.history,
            scheduler.state_dict(),
        )
    scheduler.load_state_dict(build(100).state_dict())
    assert ((), [1.0]) == (scheduler.history, at(scheduler, 132))


@BOTH
def test_a_load_into_a_scheduler_that_was_changed_itself_replaces_its_changes(build):
    scheduler = build(200)
    scheduler.cooldown(8)
    scheduler.load_state_dict(cooled(build).state_dict())
    assert [1.0, 0.5, 0.0] == at(scheduler, 100, 132, 164)
    assert 1 == len(scheduler.history)


@BOTH
def test_a_torn_state_is_measured_by_its_changed_entries(build, caplog):
    state = cooled(build).state_dict()
    scheduler = build()
    scheduler.load_state_dict({**state, "num_steps": 3})
    assert "torn: num_steps differ from" in caplog.text
    assert 100 == scheduler.num_steps


def test_schedules_of_groups_and_changes_of_several_fields_are_restored():
    fields = {"lr": STABLE, "momentum": UP, "weight_decay": schedules.proportional_to(at_max=0.5)}
    first, second = (ours(0, fields, groups={"body": {"lr": FALL}}) for _ in range(2))
    first.seek(50)
    first.cooldown(32)
    first.cooldown(16, "cosine", 0.125, field="momentum")
    first.step(7)
    second.load_state_dict(first.state_dict())
    for key in ("lr", "momentum", "weight_decay"):
        assert at(first, *range(120), key=key) == at(second, *range(120), key=key)


# Reconciliation


def lineage_row(scheduler):
    (row,) = [row for row in scheduler.last_reconciliation.rows if row.name == "history"]
    return row


def resumed(build, policy, state=None, **changes):
    scheduler = build(policy=policy, **changes)
    scheduler.load_state_dict(state or cooled(build).state_dict())
    return scheduler


@BOTH
@pytest.mark.parametrize("policy", ["checkpoint", "strict"])
def test_changes_belong_to_the_checkpoints_curve_and_strict_does_not_refuse_them(build, policy):
    scheduler = resumed(build, policy)
    assert [1.0, 0.5, 0.0] == at(scheduler, 100, 132, 164)
    row = lineage_row(scheduler)
    assert "late changes of the checkpoint's curve" == row.why
    assert row.checkpoint == row.used
    assert row.used.startswith("cooldown at 100 (field=lr, steps=64")


@BOTH
@pytest.mark.parametrize("policy", ["config", {"history": "config", "*": "checkpoint"}], ids=str)
def test_where_the_configs_curve_is_used_they_are_dropped_and_a_row_says_so(build, policy, caplog):
    scheduler = resumed(build, policy)
    assert ([1.0, 1.0], ()) == (at(scheduler, 132, 164), scheduler.history)
    row = lineage_row(scheduler)
    assert (None, True) == (row.used, row.changed)
    assert "late changes dropped: using config value for their curve" == row.why
    assert "late changes dropped" in caplog.text
    assert [] == unsaid(scheduler.state_dict())["lineage"]


def test_a_config_value_for_any_entry_of_their_curve_drops_them():
    mine = resumed(ours, {"lr.phases[0].steps": "config", "*": "checkpoint"}, fields=SHORT)
    theirs = resumed(seeds, {"lr_warmup_steps": "config", "*": "checkpoint"}, lr_warmup_steps=4)
    for scheduler in (mine, theirs):
        assert ((), None) == (scheduler.history, lineage_row(scheduler).used)
        assert [0.5, 1.0, 1.0] == at(scheduler, 2, 132, 164)


OTHER_DECAY = Schedule([Phase("linear", 8, end=1.0, start=0.5)])


def test_a_config_value_for_the_weight_decay_alone_keeps_them():
    policy = {"weight_decay": "config", "*": "checkpoint"}
    mine = resumed(ours, policy, fields={"lr": STABLE, "weight_decay": OTHER_DECAY})
    theirs = resumed(seeds, {"end_wd": "config", "*": "checkpoint"}, end_wd=1.0)
    for scheduler in (mine, theirs):
        assert [1.0, 0.5, 0.0] == at(scheduler, 100, 132, 164)
        assert [1.0] == at(scheduler, 100, key="weight_decay")
        assert 1 == len(scheduler.history)


def test_only_the_changes_of_a_field_whose_curve_is_the_configs_are_dropped():
    state = cooled(ours)
    state.cooldown(8, "linear", 0.25, field="weight_decay")
    policy = {"weight_decay": "config", "*": "checkpoint"}
    fields = {"lr": STABLE, "weight_decay": OTHER_DECAY}
    scheduler = resumed(ours, policy, state.state_dict(), fields=fields)
    assert ["lr"] == [change.field for change in scheduler.history]
    row = lineage_row(scheduler)
    assert "late changes dropped: using config value for their curve" == row.why
    assert ("cooldown at 100", 1) == (row.used[:15], row.used.count("cooldown"))


def test_changes_of_a_field_whose_word_is_checkpoint_are_kept_where_the_rest_is_the_configs():
    scheduler = resumed(ours, {"lr": "checkpoint", "*": "config"})
    assert [1.0, 0.5, 0.0] == at(scheduler, 100, 132, 164)


def test_changes_of_a_field_whose_word_is_config_are_dropped_where_the_rest_is_the_checkpoints():
    scheduler = resumed(ours, {"lr": "config", "*": "checkpoint"})
    assert [1.0, 1.0, 1.0] == at(scheduler, 100, 132, 164)


def test_a_difference_under_strict_is_refused_with_the_changes_among_the_rows():
    with pytest.raises(ReconcileError, match=r"lr\.phases\[0\]\.steps is 4") as error:
        resumed(ours, "strict", fields=SHORT)
    assert "history is" not in str(error.value)
    assert "history" in [row.name for row in error.value.reconciliation.rows]


@BOTH
def test_without_changes_there_is_no_row_for_them(build):
    scheduler = resumed(build, "checkpoint", build(100).state_dict())
    assert "history" not in [row.name for row in scheduler.last_reconciliation.rows]


@BOTH
def test_the_next_update_is_that_of_the_changed_curve(build):
    changed = cooled(build)
    changed.step(32)
    scheduler = resumed(build, "config", changed.state_dict())
    value = scheduler.last_reconciliation.next_update[0]
    assert ("lr", 1.0, 0.5, 1.0) == (value.field, value.config, value.checkpoint, value.used)


def test_changes_that_the_outcome_cannot_take_are_refused_and_change_nothing():
    changed = ours(100, {"lr": STABLE, "weight_decay": UP})
    changed.extend(1100, field="weight_decay", allow_jump=True)
    scheduler = ours(policy="checkpoint")
    scheduler.load_state_dict(changed.state_dict())
    state = changed.state_dict()
    told = unsaid(state)
    told["lineage"][0]["arguments"]["horizon"] = 5
    with pytest.raises(StateError, match=r"'dist_sched\.lineage' .*horizon=5: must be more than"):
        scheduler.load_state_dict({**state, "dist_sched": json.dumps(told)})
    assert (100, 1) == (scheduler.num_steps, len(scheduler.history))


CHANGE = {
    "position": 100,
    "operation": "cooldown",
    "arguments": {"field": "lr", "steps": 64, "shape": "linear", "end": 0.0},
}


def other(**arguments):
    return {**CHANGE, "arguments": {**CHANGE["arguments"], **arguments}}


@BOTH
@pytest.mark.parametrize(
    "history, key",
    [
        ({}, r"dist_sched\.lineage'.* must be a list"),
        ("", r"dist_sched\.lineage'.* must be a list"),
        ([1], r"lineage\[0\]'.* must have position, operation and arguments"),
        ([CHANGE, {**CHANGE, "by": "me"}], r"lineage\[1\]'"),
        ([{**CHANGE, "arguments": []}], r"lineage\[0\]'.*an object as arguments"),
        ([{**CHANGE, "position": -1}], r"lineage\[0\]'.*position=-1"),
        ([{**CHANGE, "position": True}], r"lineage\[0\]'.*position=True"),
        ([{**CHANGE, "operation": "stretch"}], r"lineage\[0\]'.*operation='stretch'"),
        ([{**CHANGE, "operation": ["cooldown"]}], r"lineage\[0\]'.*operation="),
        ([{**CHANGE, "operation": "rewarm"}], r"lineage\[0\]'.*arguments="),
        ([other(steps=0)], r"lineage\[0\]'.*steps=0"),
        ([other(shape="wave")], r"lineage\[0\]'.*shape='wave'"),
        ([other(shape=[])], r"lineage\[0\]'.*shape="),
        ([other(end="low")], r"lineage\[0\]'.*end='low'"),
        ([other(field="momentum")], r"dist_sched\.lineage'.*momentum"),
        ([other(field=1)], r"lineage\[0\]'.*field=1"),
        ([other(color=1)], r"lineage\[0\]'.*arguments="),
    ],
)
def test_an_illegal_lineage_names_the_key_and_changes_nothing(build, history, key):
    scheduler, state = build(50), build(100).state_dict()
    before = scheduler.state_dict(), held(scheduler)
    told = {**unsaid(state), "lineage": history}
    with pytest.raises(StateError, match=key):
        scheduler.load_state_dict({**state, "dist_sched": json.dumps(told)})
    assert before == (scheduler.state_dict(), held(scheduler))


@BOTH
def test_the_other_class_is_told_the_position_and_the_changed_value(build, caplog):
    changed = cooled(build)
    changed.step(32)
    scheduler = (seeds if build is ours else ours)()
    scheduler.load_state_dict(changed.state_dict())
    assert (132, [1.0], ()) == (scheduler.num_steps, held(scheduler), scheduler.history)
    assert "had lr 0.5 for the next update; what is used here has 1" in caplog.text


# Other ranks


@BOTH
def test_ranks_that_were_changed_differently_are_told_apart(build, monkeypatch):
    first, second = cooled(build), build(100)
    second.verify()
    told = [first._testimony(), second._testimony()]
    monkeypatch.setattr(base.process_groups, "gather", lambda *_: told)
    with pytest.raises(RankMismatchError, match=r"rank 1: history is \[\], rank 0 has \[\{'posi"):
        second.verify()


@BOTH
def test_synchronize_carries_the_changes(build, monkeypatch, caplog):
    first, second = cooled(build), build()
    told = [(one._terms(), one._groups.inventory()) for one in (first, second)]
    monkeypatch.setattr(base.process_groups, "gather", lambda *_: told)
    second.synchronize()
    assert (first.history, first.state_dict()) == (second.history, second.state_dict())
    assert [1.0, 0.5, 0.0] == at(second, 100, 132, 164)
    assert "history" in caplog.text


@BOTH
def test_a_changed_scheduler_on_one_process_verifies_and_synchronizes(build):
    scheduler = cooled(build)
    scheduler.step(32)
    scheduler.synchronize()
    scheduler.verify()
    assert ([0.5], 1) == (held(scheduler), len(scheduler.history))


# The recipe


@BOTH
def test_three_cooldowns_fork_from_one_stable_checkpoint_which_goes_on_stable(build):
    trunk = build(100)
    stable = trunk.state_dict()
    for steps in (16, 32, 64):
        fork = build()
        fork.load_state_dict(stable, expected_position=100)
        fork.cooldown(steps, "linear", 0.0)
        assert [1.0, 0.5, 0.0] == at(fork, 100, 100 + steps // 2, 100 + steps)
    trunk.step(400)
    assert ([1.0], ()) == (held(trunk), trunk.history)
    again = build()
    again.load_state_dict(stable)
    again.extend(2000)
    assert [1.0, 1.0, 1.0] == at(again, 100, 500, 1999)


@BOTH
def test_a_fork_resumed_by_the_stable_script_can_go_on_stable_or_cool_on(build):
    fork = cooled(build)
    fork.step(32)
    on = resumed(build, "checkpoint", fork.state_dict())
    back = resumed(build, {"history": "config", "*": "checkpoint"}, fork.state_dict())
    assert ([0.5], [1.0]) == (held(on), held(back))


def test_both_classes_record_a_change_alike():
    assert cooled(ours).history == cooled(seeds).history


def test_the_record_of_a_late_change_cannot_be_changed():
    scheduler = ours()
    scheduler.seek(4)
    scheduler.cooldown(4)
    with pytest.raises(TypeError):
        scheduler.history[0].arguments["steps"] = 1000
    assert hash(scheduler.history) == hash(copy.deepcopy(scheduler.history))
    assert scheduler.history == pickle.loads(pickle.dumps(scheduler.history))  # noqa: S301 - our own


def test_an_end_is_in_proportion_for_schedules_that_groups_have_of_their_own():
    body, embed = Schedule([Phase("constant", 100, 1.0, 1.0)]), schedules.constant(0.125, 100)
    specification = Specification.of({"lr": body}, {"embed": {"lr": embed}})
    arguments = {"field": "lr", "steps": 10, "shape": "linear", "end": 0.5}
    changed = specification.changed(Change(50, "cooldown", arguments))
    assert (0.5, 0.0625) == (
        changed.fields["lr"].end_value,
        changed.groups["embed"]["lr"].end_value,
    )


def test_an_extension_leaves_alone_what_ends_later_already():
    body, embed = schedules.wsd(1.0, 100, decay=10), schedules.wsd(1.0, 300, decay=10)
    specification = Specification.of({"lr": body}, {"embed": {"lr": embed}})
    changed = specification.changed(Change(50, "extend", {"field": "lr", "horizon": 200}))
    assert (200, 300) == (changed.fields["lr"].horizon, changed.groups["embed"]["lr"].horizon)


def test_a_multiplier_taken_from_the_config_leaves_a_cooldown_alone():
    def build(multiplier, policy):
        optimizer = torch.optim.SGD(
            [{"params": [torch.nn.Parameter(torch.zeros(1))], "name": name} for name in "ab"],
            lr=1.0,
        )
        fields = {"lr": schedules.constant(1.0, 100)}
        groups = {"b": {"lr": multiplier}}
        return ParamScheduler(optimizer, fields, groups=groups, policy=policy)

    first = build(0.5, None)
    first.seek(50)
    first.cooldown(10, "linear")
    first.step(5)
    second = build(0.25, {"groups[b]": "config", "*": "checkpoint"})
    second.load_state_dict(first.state_dict())
    assert [0.5, 0.125] == second.get_last_lr()


@pytest.mark.parametrize("steps", [0, 0.1, 0.999])
@pytest.mark.parametrize("operation", ["cooldown", "rewarm"])
def test_a_late_change_of_less_than_a_unit_is_refused(operation, steps):
    with pytest.raises(ConfigError, match="at least 1 unit"):
        getattr(ours(), operation)(steps)


def test_the_config_after_a_late_change_is_read_back_with_its_policy():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    policy = {"lr.phases[0]": "config", "lr.phases[1]": "strict"}
    scheduler = ParamScheduler(optimizer, {"lr": schedules.wsd(1.0, 100, decay=20)}, policy=policy)
    scheduler.seek(90)
    scheduler.cooldown(5)
    again = from_config(optimizer, scheduler.to_config())
    assert scheduler.to_config() == again.to_config()
