"""Late changes of either scheduler: cooldown, extend, rewarm, and what is refused."""

from __future__ import annotations

import pickle

import pytest

from dist_sched import (
    ConfigError,
    ParamScheduler,
    Phase,
    Schedule,
    from_config,
    schedules,
)
from dist_sched._config.entries import InexpressibleChangeError
from dist_sched._config.history import Change
from dist_sched._optim import base
from helpers import UP, held, sgd, text_of, with_text
from late_helpers import BOTH, FALL, STABLE, WSD, at, cooled, megatrons, phased


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
def test_a_cooldown_ends_where_it_is_said_to(build):
    assert [0.75, 0.5] == at(cooled(build, end=0.5), 132, 164)


def test_a_cooldown_of_megatrons_class_ends_at_min_lr_where_nothing_is_said():
    scheduler = megatrons(100, min_lr=0.5)
    scheduler.cooldown(64, "linear")
    assert [0.75, 0.5] == at(scheduler, 132, 164)


def test_a_cooldown_ends_at_the_schedules_last_value_where_that_is_lower():
    low = Schedule([Phase("linear", 100, end=0.25, start=1.0)])
    scheduler = phased(0, {"lr": low})
    scheduler.cooldown(64, "linear")
    assert [1.0, 0.25] == at(scheduler, 0, 64)
    at_the_end = phased(100, {"lr": low})
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
        scheduler = phased(position)
        scheduler.cooldown(64, "linear", 0.0)
        expected = [value, value * 0.5, 0.0]
        assert expected == at(scheduler, position, position + 32, position + 64)


def test_a_cooldown_past_the_horizon_keeps_the_value_held_until_then():
    scheduler = phased(200, {"lr": Schedule([Phase("linear", 100, end=0.5, start=1.0)])})
    scheduler.cooldown(64, "linear", 0.0)
    assert [0.75, 0.5, 0.5, 0.25, 0.0] == at(scheduler, 50, 100, 150, 232, 264)


def test_a_cooldown_is_for_the_field_that_is_named():
    scheduler = phased(100, {"lr": STABLE, "momentum": UP})
    scheduler.cooldown(64, "linear", 0.25, field="momentum")
    assert [0.75, 0.5, 0.25] == at(scheduler, 100, 132, 164, key="momentum")
    assert [1.0, 1.0] == at(scheduler, 132, 164)


def test_per_group_schedules_change_too():
    optimizer = sgd(
        {"name": "a"}, {"name": "b"}, {"name": "c", "weight_decay": 0.0}, weight_decay=0.5
    )
    scheduler = phased(
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


@BOTH
def test_an_extended_horizon_lengthens_the_stable_part(build):
    scheduler = build(100)
    scheduler.extend(2000)
    assert [0.5, 1.0, 1.0, 1.0] == at(scheduler, 4, 100, 1500, 3000)


@BOTH
def test_an_extended_wsd_falls_later_and_as_long(build):
    tail = Schedule([Phase("constant", 60, 1.0, 1.0), Phase("linear", 40, end=0.0)])
    wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": 40, "lr_wsd_decay_style": "linear"}
    short = {**wsd, "lr_decay_steps": 100, "lr_warmup_steps": 0}
    scheduler = phased(50, {"lr": tail}) if build is phased else megatrons(50, **short)
    assert [0.5] == at(scheduler, 80)
    scheduler.extend(200)
    assert [1.0, 1.0, 0.5, 0.0] == at(scheduler, 50, 160, 180, 200)


@BOTH
def test_a_wsd_is_extended_where_its_stable_phase_ends(build):
    tail = Schedule([*STABLE.phases[:1], Phase("constant", 892, 1.0), Phase("linear", 100, 0.0)])
    scheduler = phased(900, {"lr": tail}) if build is phased else megatrons(900, **WSD)
    scheduler.extend(2000)
    assert [0.5, 1.0, 1.0, 0.5, 0.0] == at(scheduler, 4, 900, 1900, 1950, 2000)


def test_a_schedule_of_a_group_is_extended_by_the_same_rule_on_its_own_phases():
    own = Schedule([Phase("constant", 100, 0.5, 0.5), Phase("linear", 100, 0.0)])
    scheduler = phased(100, {"lr": STABLE}, groups={"body": {"lr": own}})
    scheduler.extend(1400)
    assert [0.5, 0.5, 0.25, 0.0] == at(scheduler, 100, 1300, 1350, 1400)


EXTENDED = "extend at 900: lr phase 1 ({}) lengthened from 892 to 1892 units; horizon 1000 → 2000"
LOGGED = [
    (
        lambda: phased(900, {"lr": schedules.wsd(1.0, 1000, warmup=8, decay=100)}),
        lambda one: one.extend(2000),
        EXTENDED.format("constant"),
    ),
    (lambda: megatrons(900, **WSD), lambda one: one.extend(2000), EXTENDED.format("stable")),
    (
        lambda: phased(50, {"lr": FALL}),
        lambda one: one.extend(200, allow_jump=True),
        "extend at 50: lr phase 0 (linear) lengthened from 100 to 200 units; horizon 100 → 200",
    ),
    (
        lambda: phased(100),
        lambda one: one.cooldown(64, "linear", 0.25),
        "cooldown at 100: lr goes from 1 to 0.25 over 64 units (linear); horizon 1000 → 164",
    ),
    (
        lambda: megatrons(100),
        lambda one: one.cooldown(64),
        "cooldown at 100: lr goes from 1 to 0 over 64 units (minus_sqrt); horizon 1000 → 164",
    ),
    (
        lambda: phased(50, {"lr": FALL}),
        lambda one: one.rewarm(20.5, 0.75),
        "rewarm at 50: lr goes from 0.5 to 0.75 over 20.5 units (linear); horizon 100 → 70.5",
    ),
    (
        lambda: phased(50, {"lr": STABLE}, groups={"body": {"lr": FALL}}),
        lambda one: one.cooldown(10),
        (
            "cooldown at 50: lr goes from 1 to 0 over 10 units (minus_sqrt); horizon 1000 → 60; "
            "groups[body].lr goes from 0.5 to 0 over 10 units (minus_sqrt); horizon 100 → 60"
        ),
    ),
    (
        lambda: phased(50, {"lr": STABLE}, groups={"body": {"lr": 1.0}}),
        lambda one: one.extend(1100),
        (
            "extend at 50: lr phase 1 (constant) lengthened from 992 to 1092 units; "
            "horizon 1000 → 1100"
        ),
    ),
]


@pytest.mark.parametrize("build, change, line", LOGGED)
def test_a_late_change_logs_one_line_that_says_what_it_did(build, change, line, caplog):
    scheduler = build()
    with caplog.at_level("INFO", "dist_sched"):
        change(scheduler)
    assert [("INFO", line)] == [(one.levelname, one.message) for one in caplog.records]


def test_an_extension_of_a_cut_phase_logs_what_was_added(caplog):
    scheduler = phased(50, {"lr": Schedule([FALL.phases[0].replace(until=60)])})
    with caplog.at_level("INFO", "dist_sched"):
        scheduler.extend(100)
    assert "extend at 50: lr phase 1 (constant) of 40 units added; horizon 60 → 100" in caplog.text


def test_a_line_about_many_schedules_of_groups_is_cut(caplog):
    names = [f"{index}" for index in range(20)]
    own = {name: {"lr": schedules.constant(0.5, 100)} for name in names}
    scheduler = phased(
        50, {"lr": STABLE}, groups=own, optimizer=sgd(*({"name": name} for name in names))
    )
    with caplog.at_level("INFO", "dist_sched"):
        scheduler.cooldown(10)
    assert caplog.messages[0].endswith("; and 9 more")
    assert 2000 > len(caplog.messages[0])


def test_other_ranks_than_the_first_log_no_late_change(caplog, monkeypatch):
    scheduler = phased(50)
    monkeypatch.setattr(base.process_groups, "rank", lambda _: 1)
    with caplog.at_level("INFO", "dist_sched"):
        scheduler.cooldown(10)
    assert [] == caplog.messages


def test_a_late_change_that_changes_nothing_is_said_to_do_so(caplog):
    scheduler = megatrons(900, **WSD)
    with caplog.at_level("INFO", "dist_sched"):
        scheduler.cooldown(100, "linear", 0.0)
    assert ["cooldown at 900: changes nothing"] == caplog.messages


@BOTH
@pytest.mark.parametrize("end", [2.0, 1.001])
def test_a_cooldown_that_rises_is_refused_and_changes_nothing(build, end):
    scheduler = build(100)
    before = scheduler.state_dict(), held(scheduler)
    with pytest.raises(
        ConfigError, match=rf"lr is 1\.0 at this .* {end} would be a rise; use rewarm"
    ):
        scheduler.cooldown(8, end=end)
    assert before == (scheduler.state_dict(), held(scheduler))


def test_a_cooldown_that_is_a_rise_where_the_entries_cannot_express_it_is_called_a_rise():
    with pytest.raises(ConfigError, match="would be a rise; use rewarm"):
        megatrons(4).cooldown(8, end=0.75)


def test_a_cooldown_may_end_at_the_present_value_as_a_person_copied_it():
    scheduler = phased(1, {"lr": Schedule([Phase("linear", 3, end=0.0, start=1.0)])})
    scheduler.cooldown(8, "linear", end=0.6666667)
    assert [pytest.approx(0.6666667)] == at(scheduler, 9)


def test_a_cooldown_in_which_a_schedule_of_a_group_would_rise_is_refused_with_its_name():
    scheduler = phased(50, {"lr": STABLE}, groups={"body": {"lr": FALL}})
    words = r"groups\[body\]\.lr is 0\.5 at this position, so 0\.75 would be a rise"
    with pytest.raises(ConfigError, match=words):
        scheduler.cooldown(8, end=0.75)


def test_a_recorded_cooldown_that_rises_is_made_again():
    arguments = {"field": "lr", "steps": 64, "shape": "linear", "end": 2.0}
    change = {"position": 100, "operation": "cooldown", "arguments": arguments}
    state, scheduler = phased(100).state_dict(), phased()
    scheduler.load_state_dict(with_text(state, {**text_of(state), "lineage": [change]}))
    assert [1.0, 1.5, 2.0] == at(scheduler, 100, 132, 164)


def test_a_stable_part_may_be_extended_again_and_again():
    scheduler = phased(100)
    for horizon in (1100, 1500, 4000):
        scheduler.extend(horizon)
    assert 4000 == scheduler._agreed.effective.fields["lr"].horizon
    assert 3 == len(scheduler.history)


@pytest.mark.parametrize(
    "build, horizon",
    [
        *((phased, horizon) for horizon in (1000, 999, 0, -1, float("nan"), "2k", True)),
        (megatrons, 1000),
    ],
)
def test_a_horizon_that_is_no_later_is_refused(build, horizon):
    scheduler = build(100)
    before = scheduler.state_dict()
    with pytest.raises(ConfigError, match="horizon="):
        scheduler.extend(horizon)
    assert before == scheduler.state_dict()


def test_a_rewarm_rises_in_a_line_to_the_highest_and_stays():
    scheduler = phased(50, {"lr": FALL})
    scheduler.rewarm(32)
    assert [0.75, 0.5, 0.75, 1.0, 1.0] == at(scheduler, 25, 50, 66, 82, 500)


def test_a_rewarm_rises_to_the_given_peak():
    scheduler = phased(50, {"lr": FALL})
    scheduler.rewarm(32, peak=2.5)
    assert [0.5, 1.5, 2.5] == at(scheduler, 50, 66, 82)


def test_changes_of_several_kinds_follow_each_other_without_a_jump():
    scheduler = phased(100)
    scheduler.cooldown(64, "linear", 0.0)
    scheduler.seek(132)
    scheduler.rewarm(16)
    scheduler.seek(148)
    scheduler.extend(3000, allow_jump=True)
    operations = [change.operation for change in scheduler.history]
    assert ["cooldown", "rewarm", "extend"] == operations
    assert [1.0, 0.75, 0.5] == at(scheduler, 100, 116, 132)


JUMPS = {
    "phased": (lambda: phased(50, {"lr": FALL}), 0.5, 0.75),
    "megatrons": (
        lambda: megatrons(50, lr_decay_style="linear", lr_decay_steps=100, lr_warmup_steps=0),
        0.5,
        0.75,
    ),
}


@pytest.mark.parametrize("kind", JUMPS)
def test_a_jump_is_refused_with_its_size_and_changes_nothing(kind):
    build, before, after = JUMPS[kind]
    scheduler = build()
    state = scheduler.state_dict()
    words = rf"lr would jump from {before} to {after} at position 50 \(\+0\.25\)"
    with pytest.raises(ConfigError, match=words):
        scheduler.extend(200)
    assert (state, [before], ()) == (scheduler.state_dict(), held(scheduler), scheduler.history)
    assert [0.75] == at(scheduler, 25)


def test_a_jump_however_small_is_refused():
    scheduler = phased(1, {"lr": FALL})
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
    scheduler = phased(50, {"lr": STABLE, "weight_decay": schedules.proportional_to(at_max=0.5)})
    with pytest.raises(ConfigError, match=r"weight_decay would jump from 0\.5 to 0\.25 .*-0\.25"):
        scheduler.rewarm(16, peak=2.0)
    scheduler.rewarm(16, peak=2.0, allow_jump=True)
    assert [0.25] == held(scheduler, "weight_decay")


def test_a_change_that_makes_the_curve_of_a_named_group_jump_is_refused():
    scheduler = phased(50, {"lr": STABLE}, groups={"body": {"lr": FALL}})
    with pytest.raises(ConfigError, match=r"groups\[body\]\.lr would jump from 0\.5"):
        scheduler.extend(2000)
    assert () == scheduler.history


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda one: one.cooldown(0), "steps=0: must be greater than 0"),
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
        (lambda one: one.cooldown(10, field="weight_decay"), "follows lr; change that one"),
    ],
)
def test_an_illegal_change_is_refused_by_name_and_changes_nothing(change, message):
    fields = {"lr": STABLE, "momentum": UP, "weight_decay": schedules.proportional_to(at_max=0.5)}
    scheduler = phased(100, fields)
    before = scheduler.state_dict(), held(scheduler), repr(scheduler)
    with pytest.raises(ConfigError, match=message):
        change(scheduler)
    assert before == (scheduler.state_dict(), held(scheduler), repr(scheduler))


def test_a_change_that_a_group_cannot_be_given_changes_nothing():
    scheduler = phased(100)
    scheduler.optimizer.param_groups[0]["lr_mult"] = -1.0
    with pytest.raises(ConfigError, match=r"group 0: lr_mult=-1\.0"):
        scheduler.cooldown(64)
    del scheduler.optimizer.param_groups[0]["lr_mult"]
    assert () == scheduler.history
    assert [1.0, 1.0] == at(scheduler, 132, 164)


@pytest.mark.parametrize(
    "scheduler, change, message",
    [
        (lambda: megatrons(4), lambda one: one.cooldown(8), "while lr is constant at max_lr"),
        (
            lambda: megatrons(950, **WSD),
            lambda one: one.cooldown(8),
            "while lr is constant at max_lr",
        ),
        (
            lambda: megatrons(100, lr_decay_style="cosine"),
            lambda one: one.cooldown(8),
            "while lr is constant at max_lr",
        ),
        (
            lambda: megatrons(100),
            lambda one: one.cooldown(8, "polynomial"),
            "the shape of its decay must be one of",
        ),
        (lambda: megatrons(100), lambda one: one.rewarm(8), "cannot express this change"),
        (
            lambda: megatrons(100),
            lambda one: one.cooldown(8, field="weight_decay"),
            "its entries cannot express this change",
        ),
        (
            lambda: megatrons(100),
            lambda one: one.extend(2000, field="weight_decay"),
            "its entries cannot express this change",
        ),
    ],
)
def test_what_megatrons_entries_cannot_express_is_refused_and_changes_nothing(
    scheduler, change, message
):
    scheduler = scheduler()
    before = scheduler.state_dict(), held(scheduler)
    with pytest.raises(ConfigError, match=message):
        change(scheduler)
    assert (before, ()) == ((scheduler.state_dict(), held(scheduler)), scheduler.history)


def test_a_refusal_of_megatrons_class_names_the_change_and_the_other_class():
    with pytest.raises(ConfigError) as error:
        megatrons(100).rewarm(8)
    assert (
        "rewarm at 100 (field=lr, steps=8, peak=None): OptimizerParamScheduler cannot do this"
        in str(error.value)
    )
    assert "use ParamScheduler" in str(error.value)


def test_a_change_that_the_entries_cannot_express_is_an_error_with_the_change_and_the_reason():
    with pytest.raises(InexpressibleChangeError) as caught:
        megatrons(100).rewarm(8)
    change = Change(100, "rewarm", {"field": "lr", "steps": 8, "peak": None})
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301
        assert (change, "its entries cannot express this change") == (error.change, error.reason)


def test_megatrons_class_cools_down_up_to_where_its_tail_begins():
    scheduler = megatrons(900, **WSD)
    scheduler.cooldown(50, "linear")
    assert [1.0, 0.5, 0.0] == at(scheduler, 900, 925, 950)
    at_the_end_of_warmup = megatrons(8)
    at_the_end_of_warmup.cooldown(64, "linear")
    assert [0.5, 1.0, 0.5] == at(at_the_end_of_warmup, 4, 8, 40)


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


def test_both_classes_record_a_change_alike():
    assert cooled(phased).history == cooled(megatrons).history


@pytest.mark.parametrize("operation", ["cooldown", "rewarm", "extend"])
def test_a_late_change_below_one_unit_is_refused_with_both_meanings(operation):
    with pytest.raises(ConfigError, match=r"=0\.25: .* 25% of .* or 0\.25 units"):
        getattr(phased(), operation)(0.25)


def test_a_recorded_late_change_may_be_below_one_unit():
    scheduler = phased()
    scheduler.seek(50)
    scheduler.cooldown(20, "linear", end=0.0)
    state = scheduler.state_dict()
    state["dist_sched"] = state["dist_sched"].replace('"steps": 20', '"steps": 0.5')
    loaded = phased()
    loaded.load_state_dict(state)
    assert 50.5 == loaded.history[0].apply(schedules.constant(1.0, 100)).horizon
    assert 0.5 == loaded.history[0].arguments["steps"]


def test_the_config_after_a_late_change_is_read_back_with_its_policy():
    optimizer = sgd()
    policy = {"lr.phases[0]": "config", "lr.phases[1]": "strict"}
    scheduler = ParamScheduler(optimizer, {"lr": schedules.wsd(1.0, 100, decay=20)}, policy=policy)
    scheduler.seek(90)
    scheduler.cooldown(5)
    again = from_config(optimizer, scheduler.to_config())
    assert scheduler.to_config() == again.to_config()


def test_a_schedule_of_a_group_that_follows_another_field_is_no_rise_of_a_cooldown():
    follows = {"lr": schedules.proportional_to("momentum", at_max=0.5)}
    scheduler = phased(2, {"lr": STABLE, "momentum": UP}, groups={"body": follows})
    scheduler.cooldown(8, end=0.0)
    assert [0.25, 0.5] == at(scheduler, 2, 10)
