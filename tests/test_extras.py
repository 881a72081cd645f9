"""Extras: scheduled values that no group holds, with groups and without."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest

from dist_sched import (
    ConfigError,
    ParamScheduler,
    Phase,
    ReconcileError,
    Schedule,
    StateError,
    from_config,
    reconcile,
    schedules,
)
from helpers import HILL, adamw, contents, held, opt_param_scheduler, sgd, text_of, with_text

RAMP = Schedule([Phase("linear", 8, end=64.0, start=16.0)])
"""16, 40 at 4, 64 from 8 on."""
STAGES = Schedule([Phase("constant", 4, 16.0, 16.0), Phase("constant", 4, 64.0, 64.0)])


def alone(extras=None, **arguments):
    """Return a scheduler of extras without any optimizer."""
    return ParamScheduler([], {}, extras=extras or {"batch_size": RAMP}, **arguments)


def beside(extras=None, fields=None, **arguments):
    """Return a scheduler of extras beside lr."""
    extras = {"batch_size": RAMP} if extras is None else extras
    return ParamScheduler(sgd(), fields or {"lr": HILL}, extras=extras, **arguments)


def at(scheduler, *positions, name="batch_size"):
    found = []
    for position in positions:
        scheduler.seek(position)
        found.append(scheduler.extras[name])
    return found


BUILDS = pytest.mark.parametrize("build", [alone, beside])


# Values


@BUILDS
def test_an_extra_has_its_schedules_value_at_the_position(build):
    assert [16.0, 40.0, 64.0, 64.0] == at(build(), 0, 4, 8, 9)


def test_a_number_is_a_constant_extra():
    assert {"aux_loss_weight": 0.25} == alone({"aux_loss_weight": 0.25}).extras


def test_a_whole_extra_is_an_int_at_every_position():
    scheduler = beside({"batch_size": schedules.whole(RAMP, multiple_of=16)})
    found = at(scheduler, 0, 4, 7, 8, 9)
    assert ([16, 32, 48, 64, 64], {int}) == (found, set(map(type, found)))


def test_extras_are_a_fresh_dict_each_time():
    scheduler = alone()
    scheduler.extras["batch_size"] = 1.0
    assert {"batch_size": 16.0} == scheduler.extras


def test_a_scheduler_without_extras_has_none():
    assert {} == opt_param_scheduler().extras
    assert {} == beside({}).extras


def test_no_group_gets_an_extra():
    scheduler = beside()
    before = contents(scheduler)[0].keys()
    scheduler.step(4)
    assert before == contents(scheduler)[0].keys()
    assert ["lr"] == [row.field for row in scheduler.describe_groups()]


def test_extras_beside_an_optimizer_of_which_nothing_is_scheduled_leave_it_alone():
    optimizer = adamw()
    before = contents(optimizer)
    scheduler = ParamScheduler(optimizer, {}, extras={"batch_size": RAMP})
    scheduler.step(4)
    assert before == contents(optimizer)
    assert [1.0] == scheduler.get_last_lr()


# What follows them


def test_lr_follows_the_square_root_of_an_extra():
    follows = schedules.proportional_to("batch_size", at_max=1.0, power=0.5)
    scheduler = beside(fields={"lr": follows})
    assert [0.5] == held(scheduler)
    scheduler.seek(8)
    assert [1.0] == held(scheduler)


def test_an_extra_follows_a_field_and_another_extra():
    extras = {
        "batch_size": RAMP,
        "loss_weight": schedules.proportional_to("lr", at_max=2.0),
        "tokens": schedules.proportional_to("batch_size", at_max=4096.0),
    }
    scheduler = beside(extras)
    scheduler.seek(4)
    assert {"batch_size": 40.0, "loss_weight": 1.0, "tokens": 2560.0} == scheduler.extras


def test_an_extra_follows_the_schedule_of_the_whole_run_where_a_group_has_its_own():
    optimizer = sgd({"name": "head"}, {"name": "body"})
    follows = schedules.proportional_to("lr", at_max=2.0)
    groups = {"head": {"lr": schedules.constant(0.5)}}
    scheduler = ParamScheduler(optimizer, {"lr": HILL}, groups=groups, extras={"weight": follows})
    assert [0.0, 1.0, 2.0] == at(scheduler, 0, 4, 8, name="weight")


def test_a_group_with_bounds_follows_a_power_of_an_extra_between_them():
    """From half the highest value, which stays, to the group's own bound."""
    optimizer = sgd({"max_lr": 10.0, "min_lr": 10.0})
    follows = schedules.proportional_to("batch_size", at_max=1.0, power=0.5)
    scheduler = ParamScheduler(optimizer, {"lr": follows}, extras={"batch_size": RAMP})
    assert [0.5] == held(scheduler)
    scheduler.seek(4)  # a share of sqrt(40 / 64) - 1/2, of the half that is left
    assert 0.5 + 9.5 * ((40 / 64) ** 0.5 - 0.5) / 0.5 == pytest.approx(held(scheduler)[0])
    scheduler.seek(8)
    assert [10.0] == held(scheduler)


@pytest.mark.parametrize(
    "power, expected", [(1.0, [0.5, 0.125]), (0.5, [0.5, 0.25]), (-1.0, [0.0625, 0.25])]
)
def test_a_cooldown_takes_what_follows_between_bounds_to_its_power_of_the_end(power, expected):
    """Bounds are four times the field's at lr's highest value; lr goes from 1 to 1/4."""
    peak = 0.125 if power > 0 else 0.015625
    follows = schedules.proportional_to("lr", at_max=peak, power=power)
    lr = Schedule([Phase("constant", 100, 1.0, 1.0)])
    optimizer = adamw({"start_wd": 4 * peak, "end_wd": 4 * peak})
    scheduler = ParamScheduler(optimizer, {"lr": lr, "weight_decay": follows})
    scheduler.seek(10)
    scheduler.cooldown(20, "linear", end=0.25)
    found = held(scheduler, "weight_decay")
    scheduler.seek(30)
    assert expected == pytest.approx([*found, *held(scheduler, "weight_decay")])


def test_a_cooldown_takes_an_inverse_between_bounds_to_a_multiple_of_what_lrs_highest_maps_to():
    """Weight decay goes from 1 where lr is 1 to 3 where it is 1/2; a quarter of lr is 4 times 1."""
    follows = schedules.proportional_to("lr", at_max=0.125, power=-1)
    lr = Schedule([Phase("linear", 8, end=0.5, start=1.0)])
    optimizer = adamw({"start_wd": 1.0, "end_wd": 3.0})
    scheduler = ParamScheduler(optimizer, {"lr": lr, "weight_decay": follows})
    scheduler.seek(8)
    scheduler.cooldown(8, "linear", end=0.25)
    found = held(scheduler, "weight_decay")
    scheduler.seek(16)
    assert [3.0, 4.0] == [*found, *held(scheduler, "weight_decay")]


# What is refused


@pytest.mark.parametrize(
    "extras, message",
    [
        ({"lr": 1.0}, "lr is in both fields and extras"),
        ({"batch.size": 1.0}, "extra='batch.size': must be a name such as batch_size"),
        ({"unit": 1.0}, "extra='unit': must be a name"),
        ({"history": 1.0}, "extra='history': must be a name"),
        ({"*": 1.0}, r"extra='\*': must be a name"),
        ({"": 1.0}, "extra='': must be a non-empty string"),
        ({3: 1.0}, "extra=3: must be a non-empty string"),
        ({"batch_size": "big"}, "batch_size='big': must be a schedule"),
        ({"batch_size": -1}, "batch_size=-1"),
        ([RAMP], "extras=.*must be a mapping"),
        ({"weight": schedules.proportional_to("lrr", at_max=1.0)}, "weight.to='lrr': .*'lr'"),
    ],
)
def test_an_illegal_extra_is_refused_by_name(extras, message):
    with pytest.raises(ConfigError, match=message):
        beside(extras)


def test_extras_that_are_an_array_are_no_mapping():
    with pytest.raises(ConfigError, match=r"extras=.*must be a mapping"):
        ParamScheduler([], {}, extras=np.array([1, 2]))


def test_what_follows_a_follower_is_refused_without_a_near_miss():
    extras = {"first": schedules.proportional_to("second", at_max=1.0), "second": RAMP}
    extras["third"] = schedules.proportional_to("first", at_max=1.0)
    with pytest.raises(
        ConfigError,
        match=r"third\.to='first': .*with a schedule that does not itself follow another one$",
    ):
        alone(extras)


def test_a_group_cannot_override_an_extra():
    with pytest.raises(ConfigError, match=r"groups\[head\]\.batch_size: .* is an extra, which no"):
        beside(groups={"head": {"batch_size": 32}})


def test_no_optimizer_is_refused_where_there_are_fields():
    with pytest.raises(ConfigError, match=r"optimizer=\[\].*only extras need none"):
        ParamScheduler([], {"lr": HILL}, extras={"batch_size": RAMP})


def test_an_optimizer_cannot_be_taken_from_fields():
    scheduler = beside()
    with pytest.raises(ConfigError, match=r"optimizer=\[\]"):
        scheduler.optimizer = []
    scheduler.step(4)
    assert [0.5] == held(scheduler)


def test_nothing_at_all_is_refused():
    with pytest.raises(ConfigError, match=r"fields=\{\}.*or extras"):
        ParamScheduler([], {})


# Saved and loaded


@BUILDS
def test_a_resume_goes_on_at_the_checkpoints_position(build):
    scheduler, resumed = build(), build()
    scheduler.step(4)
    resumed.load_state_dict(scheduler.state_dict())
    assert {"batch_size": 40.0} == resumed.extras
    assert resumed.last_reconciliation.is_equal


def test_a_state_says_its_extras_in_version_2():
    text = text_of(beside().state_dict())
    assert 2 == text["version"]
    assert {"batch_size": RAMP.to_dict()} == text["specification"]["extras"]


def test_a_state_without_extras_is_of_version_1_and_does_not_name_them():
    text = text_of(beside({}).state_dict())
    assert (1, {"fields", "groups"}) == (text["version"], text["specification"].keys())


def test_extras_in_a_text_of_version_1_are_refused():
    state = beside().state_dict()
    text = {**text_of(state), "version": 1}
    with pytest.raises(StateError, match=r"specification.*needs version 2, but its text has"):
        beside().load_state_dict(with_text(state, text))


def test_an_illegal_extra_of_a_state_is_named():
    state = alone().state_dict()
    text = text_of(state)
    text["specification"]["extras"]["batch_size"]["phases"][0]["steps"] = -1
    with pytest.raises(StateError, match=r"specification.extras.batch_size"):
        alone().load_state_dict(with_text(state, text))


def test_a_state_without_extras_leaves_the_scripts():
    scheduler = beside()
    scheduler.load_state_dict(beside({}).state_dict())
    assert {"batch_size": 16.0} == scheduler.extras
    [row] = [row for row in scheduler.last_reconciliation.rows if row.name == "batch_size"]
    assert "not in the checkpoint: using config value" == row.why


def test_an_extra_of_the_checkpoint_alone_is_used():
    """Unlike a field, it needs no group that could lack it."""
    scheduler = beside({})
    scheduler.load_state_dict(beside().state_dict())
    assert {"batch_size": 16.0} == scheduler.extras


def test_an_extra_of_the_checkpoint_alone_is_left_out_by_policy():
    scheduler = beside({}, policy={"batch_size": "config", "*": "checkpoint"})
    scheduler.load_state_dict(beside().state_dict())
    assert {} == scheduler.extras


def test_an_extra_of_the_checkpoint_alone_is_refused_where_both_must_be_equal():
    with pytest.raises(ReconcileError, match="batch_size is only in the checkpoint"):
        beside({}, policy="strict").load_state_dict(beside().state_dict())


def test_a_policy_names_a_part_of_an_extra():
    steps = {"batch_size.phases[0].steps": "config", "*": "checkpoint"}
    scheduler = beside({"batch_size": Schedule([Phase("linear", 16, 32.0, 16.0)])}, policy=steps)
    scheduler.load_state_dict(beside().state_dict())
    assert [16.0, 40.0, 64.0] == at(scheduler, 0, 8, 16)


def test_the_report_has_what_an_extra_was_next_and_what_it_is():
    saved = beside({"batch_size": 32.0})
    report = reconcile(beside().to_config(), saved.state_dict(), policy="config")
    [value] = [value for value in report.next_update if value.field == "batch_size"]
    assert (16.0, 32.0, 16.0) == (value.config, value.checkpoint, value.used)
    assert "batch_size for the next update: 32 → 16 (× 0.5)" in str(report)


def test_what_became_an_extra_is_compared_with_the_field_that_it_was():
    saved = ParamScheduler(adamw(), {"lr": 1.0, "weight_decay": 0.25})
    scheduler = ParamScheduler(adamw(), {"lr": 1.0}, extras={"weight_decay": 0.5})
    scheduler.load_state_dict(saved.state_dict())
    assert {"weight_decay": 0.25} == scheduler.extras


@BUILDS
def test_a_config_of_a_scheduler_builds_an_equal_one(build):
    scheduler = build()
    config = scheduler.to_config()
    again = from_config(scheduler.optimizer, config)
    assert config == again.to_config()
    assert [16.0, 40.0, 64.0] == at(again, 0, 4, 8)


@BUILDS
def test_a_scheduler_is_copied_and_pickled_with_its_optimizer(build):
    scheduler = build()
    scheduler.step(4)
    for pair in (
        copy.deepcopy((scheduler.optimizer, scheduler)),
        pickle.loads(pickle.dumps((scheduler.optimizer, scheduler))),  # noqa: S301
    ):
        assert {"batch_size": 40.0} == pair[1].extras


# Late changes


@BUILDS
def test_an_extra_is_changed_late(build):
    scheduler = build()
    scheduler.seek(4)
    scheduler.rewarm(4, 80.0, field="batch_size")
    assert [40.0, 60.0, 80.0, 80.0] == at(scheduler, 4, 6, 8, 100)


def test_a_late_change_of_an_extra_is_loaded():
    scheduler, resumed = beside(), beside()
    scheduler.seek(4)
    scheduler.cooldown(4, "linear", end=20.0, field="batch_size")
    resumed.load_state_dict(scheduler.state_dict())
    assert [40.0, 30.0, 20.0] == at(resumed, 4, 6, 8)


def test_a_late_change_of_an_extra_moves_what_follows_it():
    follows = schedules.proportional_to("batch_size", at_max=1.0, power=0.5)
    scheduler = beside({"batch_size": 64.0}, {"lr": follows})
    scheduler.cooldown(8, "linear", end=16.0, field="batch_size")
    scheduler.seek(8)
    assert [0.5] == held(scheduler)


def test_a_late_change_that_would_move_an_extra_is_refused():
    scheduler = beside()
    scheduler.seek(4)
    with pytest.raises(ConfigError, match=r"batch_size would jump from 40\.0 to 28\.0"):
        scheduler.extend(16, field="batch_size")


def test_a_late_change_that_takes_what_a_negative_power_follows_to_0_is_refused():
    decay = schedules.proportional_to("lr", at_max=0.125, power=-1)
    scheduler = ParamScheduler(adamw(), {"lr": 1.0, "weight_decay": decay})
    with pytest.raises(ConfigError, match=r"power=-1\.0: a negative power needs values above 0"):
        scheduler.cooldown(8, end=0.0)
    assert () == scheduler.history


def test_a_scale_that_takes_a_follower_out_of_the_range_of_floats_is_refused():
    follows = schedules.proportional_to("batch_size", at_max=1.0, power=-5)
    scheduler = beside({"batch_size": RAMP, "rate": follows})
    with pytest.raises(ConfigError, match=r"power=-5\.0: the values leave the range of floats"):
        scheduler.scale(1e-200, field="batch_size")
    assert () == scheduler.history


# What is said


@pytest.mark.parametrize("build, has_table", [(alone, False), (beside, True)])
def test_the_log_names_extras_when_a_scheduler_is_built(build, has_table, caplog):
    with caplog.at_level(logging.INFO, "dist_sched"):
        build()
    assert "extras at position 0: batch_size=16" in caplog.messages
    assert has_table == any("each group gets" in message for message in caplog.messages)


@BUILDS
def test_the_text_of_a_scheduler_has_its_extras(build):
    scheduler = build({"tokens": 15_728_640.0})
    lines = repr(scheduler).splitlines()
    assert "    extras: tokens=15728640" in lines
    assert "    tokens: constant 0 units 1.57286e+07 to 1.57286e+07" in lines


@BUILDS
def test_a_check_of_all_ranks_has_nothing_to_say(build):
    scheduler = build()
    scheduler.synchronize()
    scheduler.verify()
    scheduler.check_position(0)


def test_an_extra_that_rises_in_stages_and_ends_before_lr_is_no_finding():
    lr = Schedule([Phase("linear", 100, end=0.0, start=1.0)])
    assert () == beside({"batch_size": STAGES}, {"lr": lr}).lint()


def test_an_extra_that_still_moves_after_lrs_end_is_a_finding():
    lr = Schedule([Phase("linear", 10, end=0.0, start=1.0)])
    late = Schedule([Phase("linear", 20, end=64.0, start=16.0)])
    [finding] = beside({"batch_size": late}, {"lr": lr}).lint()
    assert "field-outlasts-lr" == finding.code
    assert finding.message.startswith("batch_size: ends at 20, after lr's horizon 10")


# Files


def test_a_file_has_extras_whose_lengths_are_parts_of_its_horizon():
    config = {
        "horizon": 80,
        "fields": {"lr": {"to": "batch_size", "peak": 1, "power": "0.5"}},
        "extras": {
            "batch_size": {"phases": [{"shape": "linear", "steps": "10%", "start": 16, "end": 64}]}
        },
    }
    scheduler = from_config(sgd(), config)
    assert [16.0, 40.0, 64.0] == at(scheduler, 0, 4, 8)
    scheduler.seek(0)
    assert [0.5] == held(scheduler)


def test_a_file_of_extras_alone_needs_no_optimizer():
    assert {"batch_size": 32.0} == from_config([], {"extras": {"batch_size": 32}}).extras
