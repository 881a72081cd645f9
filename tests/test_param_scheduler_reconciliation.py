"""What `ParamScheduler` reconciles in a load: whose schedule is used, and which rows say so."""

from __future__ import annotations

import logging

import pytest

from dist_sched import (
    ConfigError,
    ParamScheduler,
    Phase,
    ReconcileError,
    Schedule,
    reconcile,
    schedules,
)
from helpers import (
    HILL,
    OTHER_HILL,
    UP,
    adamw,
    contents,
    held,
    param_scheduler,
    saved_state,
    sgd,
    text_of,
)

NAMED = ({"name": "body"}, {"name": "embed"})


def changed(scheduler):
    return [row.name for row in scheduler.last_reconciliation.changed]


@pytest.mark.parametrize("policy, value", [("checkpoint", 2.0), ("config", 1.0)])
def test_the_policy_says_whose_schedule_is_used(policy, value):
    scheduler = param_scheduler(policy=policy)
    scheduler.load_state_dict(saved_state(0, {"lr": OTHER_HILL}))
    assert ["lr.phases[0].steps", "lr.phases[0].end", "lr.phases[1].end"] == changed(scheduler)
    scheduler.seek(8 if policy == "config" else 4)
    assert [value] == held(scheduler.optimizer)


def test_strict_names_every_path_that_differs_and_changes_nothing():
    scheduler = param_scheduler(policy="strict")
    with pytest.raises(ReconcileError) as error:
        scheduler.load_state_dict(saved_state(24, {"lr": OTHER_HILL}))
    for path in ("lr.phases[0].steps is 8", "lr.phases[0].end is 1.0", "lr.phases[1].end is 0.5"):
        assert path in str(error.value)
    assert 3 == len(error.value.reconciliation.changed)
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_strict_takes_what_is_equal():
    scheduler = param_scheduler(policy="strict")
    scheduler.load_state_dict(saved_state())
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
    scheduler = param_scheduler(policy={**words, "*": "checkpoint"})
    scheduler.load_state_dict(saved_state(4, {"lr": OTHER_HILL}))
    assert [value] == held(scheduler.optimizer)


@pytest.mark.parametrize("field, used", [("betas", (0.5, 0.5)), ("betas[1]", (0.25, 0.5))])
def test_the_name_of_a_tuple_covers_its_parts(field, used):
    optimizer = adamw()
    scheduler = ParamScheduler(
        optimizer, {"betas[0]": 0.5, "betas[1]": 0.5}, policy={field: "config", "*": "checkpoint"}
    )
    scheduler.load_state_dict(saved_state(0, {"betas[0]": 0.25, "betas[1]": 0.25}))
    assert used == optimizer.param_groups[0]["betas"]


@pytest.mark.parametrize(
    "policy, message",
    [
        ({"lr.phase[0]": "config", "*": "strict"}, "not an entry; did you mean 'lr.phases"),
        ({"lr.phases[1]": "config"}, r"does not cover lr.phases\[0\].shape"),
        ({"lrr": "config", "*": "strict"}, "'lrr', which is not an entry"),
        ({"lr": "mine", "*": "strict"}, "'mine' for 'lr'"),
    ],
)
def test_a_policy_must_name_paths_that_there_are_and_cover_all(policy, message):
    with pytest.raises(ConfigError, match=message):
        param_scheduler(policy=policy)


def test_another_number_of_phases_is_one_row():
    long = Schedule([Phase("linear", 4, end=1.0, start=0.0), *OTHER_HILL.phases[1:] * 2])
    scheduler = param_scheduler()
    scheduler.load_state_dict(saved_state(0, {"lr": long}))
    (row,) = scheduler.last_reconciliation.changed
    assert ("lr", HILL, long, long) == (row.name, row.config, row.checkpoint, row.used)
    assert [{"phases"}] == [
        set(row["used"]) for row in scheduler.last_reconciliation.to_dict()["rows"][:1]
    ]
    scheduler.seek(4)
    assert [1.0] == held(scheduler.optimizer)


def test_an_outcome_that_is_illegal_as_a_whole_is_refused_by_name():
    geometric = Schedule([Phase("exponential", 8, end=1.0, start=0.5), Phase("linear", 32, 0.5)])
    scheduler = param_scheduler(policy={"lr.phases[0].shape": "checkpoint", "*": "config"})
    with pytest.raises(ReconcileError, match=r"lr: phases\[0\] \(exponential\): start=0\.0"):
        scheduler.load_state_dict(saved_state(4, {"lr": geometric}))
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_an_outcome_that_the_groups_cannot_be_given_is_refused_and_changes_nothing():
    optimizer = adamw({}, {"betas": (0.9, 0.75)}, betas=(0.9, 0.5))
    scheduler = ParamScheduler(optimizer, {"betas[1]": 0.5})
    before = contents(optimizer)
    with pytest.raises(ConfigError, match=r"group 1: betas\[1\] would reach 1\."):
        scheduler.load_state_dict(saved_state(4, {"betas[1]": UP}))
    assert (before, 0) == (contents(optimizer), scheduler.num_steps)


@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict"])
def test_a_field_that_only_the_script_has_is_used_and_named(policy, caplog):
    optimizer = sgd()
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": UP}, policy=policy)
    scheduler.load_state_dict(saved_state(4))
    assert ([0.5], [0.5]) == (held(optimizer), held(optimizer, "momentum"))
    assert "not in the checkpoint, so the config's are used: momentum" in caplog.text


@pytest.mark.parametrize("policy", ["checkpoint", "strict"])
def test_a_field_that_only_the_checkpoint_has_is_refused_by_name(policy):
    scheduler = param_scheduler(adamw(), policy=policy)
    with pytest.raises(ReconcileError, match=r"betas\[0\] (has|is) .*in the checkpoint"):
        scheduler.load_state_dict(saved_state(4, {"lr": HILL, "betas[0]": UP}))
    assert 0 == scheduler.num_steps


@pytest.mark.parametrize("policy", ["config", {"lr": "checkpoint", "*": "config"}], ids=str)
def test_a_field_that_only_the_checkpoint_has_is_dropped_where_the_rest_is_the_configs(policy):
    optimizer = adamw()
    scheduler = param_scheduler(optimizer, policy=policy)
    scheduler.load_state_dict(saved_state(4, {"lr": HILL, "betas[0]": UP}))
    assert ["betas[0]"] == changed(scheduler)
    assert ([0.5], [0.9]) == (held(optimizer), held(optimizer, "betas[0]"))
    assert ["lr"] == list(text_of(scheduler.state_dict())["specification"]["fields"])


def test_what_a_strict_refusal_advises_for_a_field_of_the_checkpoint_alone_is_possible():
    state = saved_state(4, {"lr": HILL, "betas[0]": UP})
    with pytest.raises(ReconcileError):
        param_scheduler(adamw(), policy="strict").load_state_dict(state)
    scheduler = param_scheduler(adamw(), policy={"betas[0]": "config", "*": "strict"})
    scheduler.load_state_dict(state)
    assert ([0.5], [0.9]) == (held(scheduler), held(scheduler, "betas[0]"))


@pytest.mark.parametrize("policy, value", [("checkpoint", 2.0), ("config", 0.5)])
def test_groups_of_the_checkpoint_alone_are_used_or_dropped_whole(policy, value):
    optimizer = sgd({"name": "body"})
    scheduler = param_scheduler(optimizer, policy=policy)
    scheduler.load_state_dict(saved_state(4, groups={"bo*": {"lr": OTHER_HILL}}))
    assert ["groups[bo*].lr"] == changed(scheduler)
    assert [value] == held(optimizer)


def test_groups_of_the_checkpoint_alone_are_refused_under_strict_and_where_no_name_matches():
    state = saved_state(4, groups={"bo*": {"lr": OTHER_HILL}})
    with pytest.raises(ReconcileError, match=r"groups\[bo\*\]\.lr is only in the checkpoint"):
        param_scheduler(sgd({"name": "body"}), policy="strict").load_state_dict(state)
    scheduler = param_scheduler(sgd({"name": "trunk"}))
    with pytest.raises(ConfigError, match=r"groups\[bo\*\]\.lr: no group's name matches"):
        scheduler.load_state_dict(state)
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict"])
def test_groups_of_the_script_alone_are_used_and_named(policy, caplog):
    optimizer = sgd({"name": "body"}, {"name": "head"})
    scheduler = param_scheduler(optimizer, groups={"head": {"lr": 0.25}}, policy=policy)
    scheduler.load_state_dict(saved_state(8))
    assert [1.0, 0.25] == held(optimizer)
    assert "the config's are used: groups[head].lr" in caplog.text


@pytest.mark.parametrize("policy, value", [("checkpoint", 0.5), ("config", 0.25)])
def test_a_groups_multiplier_is_reconciled_like_any_entry(policy, value):
    optimizer = sgd({"name": "body"})
    scheduler = param_scheduler(optimizer, groups={"body": {"lr": 0.25}}, policy=policy)
    scheduler.load_state_dict(saved_state(8, groups={"body": {"lr": 0.5}}))
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
        saved_state(8, {**fields, "weight_decay": schedules.proportional_to(at_max=0.5)})
    )
    assert ["weight_decay.peak"] == changed(scheduler)
    assert [value] == held(optimizer, "weight_decay")


def test_a_second_load_sees_the_config_that_the_constructor_was_given():
    scheduler = param_scheduler()
    for _ in range(2):
        scheduler.load_state_dict(saved_state(4, {"lr": OTHER_HILL}))
        assert 3 == len(changed(scheduler))
    scheduler.load_state_dict(saved_state(4))
    assert () == scheduler.last_reconciliation.changed
    assert [0.5] == held(scheduler.optimizer)


def test_the_next_update_is_given_for_each_field_and_for_groups_with_a_curve(caplog):
    optimizer = adamw({"name": "body"}, {"name": "head"})
    groups = {"head": {"lr": HILL, "betas[0]": 0.5}}
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "betas[0]": UP}, groups=groups)
    state = saved_state(4, {"lr": OTHER_HILL, "betas[0]": UP})
    caplog.set_level(logging.INFO)
    scheduler.load_state_dict(state)
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
    outcome = reconcile(config, saved_state(4, {"lr": OTHER_HILL}))
    assert 3 == len(outcome.changed)
    with pytest.raises(ReconcileError, match=r"lr\.phases\[0\]\.end is 1\.0"):
        reconcile(config, saved_state(4, {"lr": OTHER_HILL}), "strict")


def test_a_policy_that_covers_every_path_needs_no_star():
    param_scheduler(policy={"lr": "config"})


def test_words_for_parts_count_for_a_schedule_of_other_phases_where_they_agree():
    three = Schedule([*HILL.phases, Phase("linear", 8, end=0.25)])
    state = saved_state(20, {"lr": three})
    agreeing = {"lr.phases[0]": "config", "lr.phases[1]": "config"}
    scheduler = param_scheduler(policy=agreeing)
    scheduler.load_state_dict(state)
    assert 40 == scheduler.last_reconciliation.used["lr"].horizon
    for policy in (
        dict.fromkeys(agreeing, "strict"),
        {"lr.phases[1].end": "config", "*": "checkpoint"},
    ):
        with pytest.raises(ReconcileError, match=r"other phases|strict"):
            param_scheduler(policy=policy).load_state_dict(state)


def test_a_start_of_the_checkpoint_alone_is_refused_under_strict_and_may_be_named():
    state = saved_state(
        20, {"lr": Schedule([HILL.phases[0], Phase("linear", 32, end=0.5, start=0.75)])}
    )
    names = [f"lr.phases[{index}].{part}" for index in (0, 1) for part in ("shape", "steps", "end")]
    strict = dict.fromkeys([*names, "lr.phases[0].start"], "strict")
    with pytest.raises(ReconcileError, match=r"lr\.phases\[1\]\.start"):
        param_scheduler(policy=strict).load_state_dict(state)
    scheduler = param_scheduler(policy={**strict, "lr.phases[1].start": "config"})
    scheduler.load_state_dict(state)
    assert 0.8125 == scheduler.optimizer.param_groups[0]["lr"]


def test_what_the_checkpoint_alone_has_may_be_named_and_left_out():
    state = saved_state(4, {"lr": HILL, "eps": 0.5}, groups={"body": {"lr": 0.5}})
    scheduler = param_scheduler(
        policy={"groups[body]": "config", "eps": "config", "*": "checkpoint"}
    )
    scheduler.load_state_dict(state)
    assert 0.5 == scheduler.optimizer.param_groups[0]["lr"]
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        param_scheduler(policy={"lrr": "config", "*": "checkpoint"})


def test_a_pattern_of_the_checkpoint_that_fits_no_group_says_whose_it_is():
    state = saved_state(4, groups={"body": {"lr": 0.5}})
    with pytest.raises(ConfigError, match="the checkpoint's schedule does not fit"):
        param_scheduler().load_state_dict(state)


def test_the_report_of_a_load_shows_what_a_multiplier_gives():
    optimizer = sgd(*NAMED)
    scheduler = param_scheduler(optimizer, groups={"embed": {"lr": 0.5}}, policy="config")
    other = param_scheduler(sgd(*NAMED), groups={"embed": {"lr": 0.25}})
    other.seek(8)
    scheduler.load_state_dict(other.state_dict())
    values = {one.field: one for one in scheduler.last_reconciliation.next_update}
    text = values["groups[embed].lr"]
    assert (0.5, 0.25, 0.5) == (text.config, text.checkpoint, text.used)


LATE = Schedule([Phase("linear", 100, end=0.0, start=1.0, since=20), Phase("linear", 10, end=0.5)])
"""0.8 at 0, 0 at 80."""
LATER = Schedule([Phase("linear", 100, end=0.0, start=1.0, since=60), *LATE.phases[1:]])
"""0.4 at 0, 0 at 40."""
WHOLE = Schedule([Phase("linear", 100, end=0.0, start=1.0), *LATE.phases[1:]])


@pytest.mark.parametrize("mine, theirs", [(LATE, LATER), (LATE, WHOLE), (WHOLE, LATE)], ids=str)
@pytest.mark.parametrize("word", ["checkpoint", "config"])
def test_where_a_phase_begins_is_an_entry_of_its_own(mine, theirs, word):
    policy = {"lr.phases[0].since": word, "*": "strict"}
    scheduler = param_scheduler(fields={"lr": mine}, policy=policy)
    scheduler.load_state_dict(saved_state(0, {"lr": theirs}))
    assert ["lr.phases[0].since"] == changed(scheduler)
    used = scheduler._agreed.effective.fields["lr"]
    assert used == (mine if word == "config" else theirs)


@pytest.mark.parametrize("mine, theirs", [(2, 4), (None, 4), (2, None)])
@pytest.mark.parametrize("word", ["checkpoint", "config"])
def test_what_values_are_rounded_to_is_an_entry_of_its_own(mine, theirs, word):
    mine, theirs = (Schedule([Phase("linear", 8, 9.0, 4.0)], one) for one in (mine, theirs))
    policy = {"lr.multiple_of": word, "*": "strict"}
    scheduler = param_scheduler(fields={"lr": mine}, policy=policy)
    scheduler.load_state_dict(saved_state(0, {"lr": theirs}))
    assert ["lr.multiple_of"] == changed(scheduler)
    used = scheduler._agreed.effective.fields["lr"]
    assert used == (mine if word == "config" else theirs)


@pytest.mark.parametrize("word", ["checkpoint", "config"])
@pytest.mark.parametrize("end", [0.5, 1.0])
def test_the_factors_of_a_product_are_one_entry(word, end):
    rise, fall = (Schedule([Phase("linear", 8, b, a)]) for a, b in ((0.5, 1.0), (1.0, end)))
    falls = Schedule([Phase("cosine", 8, end=end, start=1.0)])
    mine, theirs = (schedules.product(rise, one) for one in (fall, falls))
    scheduler = param_scheduler(fields={"lr": mine}, policy=word)
    scheduler.load_state_dict(saved_state(0, {"lr": theirs}))
    used = scheduler._agreed.effective.fields["lr"]
    assert used == (mine if word == "config" else theirs)


@pytest.mark.parametrize("policy, value", [("checkpoint", 0.5), ("config", 0.25)])
def test_a_cut_phase_of_another_shape_begins_in_the_middle_of_its_own(policy, value):
    mine = Schedule([Phase("cosine", 16, end=0.0, start=0.5, since=8)])
    scheduler = param_scheduler(fields={"lr": mine}, policy=policy)
    scheduler.load_state_dict(saved_state(0, {"lr": schedules.linear(1.0, 8).cut(4)}))
    assert pytest.approx([value]) == held(scheduler)
