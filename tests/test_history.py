"""The history of late changes: saved, resumed, reconciled, and agreed on by ranks."""

from __future__ import annotations

import json

import pytest

from dist_sched import (
    ParamScheduler,
    Phase,
    RankMismatchError,
    ReconcileError,
    Schedule,
    StateError,
    schedules,
)
from dist_sched._optim import process_groups
from helpers import UP, held, sgd, text_of, with_text
from late_helpers import BOTH, FALL, STABLE, at, cooled, megatrons, phased


@BOTH
def test_the_text_keeps_the_base_and_the_changes(build):
    text = text_of(cooled(build).state_dict())
    before = text_of(build(100).state_dict())
    arguments = {"steps": 64, "shape": "linear", "end": 0.0, "field": "lr"}
    change = {"position": 100, "operation": "cooldown", "arguments": arguments}
    assert {**before, "lineage": [change]} == text


def test_the_ten_keys_show_the_changed_entries_so_that_megatrons_class_goes_on_with_them():
    scheduler = cooled(megatrons, end=0.25)
    state = scheduler.state_dict()
    expected = {"lr_decay_style": "WSD", "lr_decay_steps": 164, "min_lr": 0.25, "max_lr": 1.0}
    assert expected == {key: state[key] for key in expected}
    keys = {key: value for key, value in state.items() if key != "dist_sched"}
    upstream = megatrons(wsd_decay_steps=64, lr_wsd_decay_style="linear")
    upstream.load_state_dict(keys)
    assert at(scheduler, *range(100, 170)) == at(upstream, *range(100, 170))


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
    assert "inconsistent: num_steps differ from" in caplog.text
    assert 100 == scheduler.num_steps


def test_schedules_of_groups_and_changes_of_several_fields_are_restored():
    fields = {"lr": STABLE, "momentum": UP, "weight_decay": schedules.proportional_to(at_max=0.5)}
    first, second = (phased(0, fields, groups={"body": {"lr": FALL}}) for _ in range(2))
    first.seek(50)
    first.cooldown(32)
    first.cooldown(16, "cosine", 0.125, field="momentum")
    first.step(7)
    second.load_state_dict(first.state_dict())
    for key in ("lr", "momentum", "weight_decay"):
        assert at(first, *range(120), key=key) == at(second, *range(120), key=key)


def history_row(scheduler):
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
    row = history_row(scheduler)
    assert "late changes of the checkpoint's curve" == row.why
    assert row.checkpoint == row.used
    assert row.used.startswith("cooldown at 100 (field=lr, steps=64")


@BOTH
@pytest.mark.parametrize("policy", ["config", {"history": "config", "*": "checkpoint"}], ids=str)
def test_where_the_configs_curve_is_used_they_are_dropped_and_a_row_says_so(build, policy, caplog):
    scheduler = resumed(build, policy)
    assert ([1.0, 1.0], ()) == (at(scheduler, 132, 164), scheduler.history)
    row = history_row(scheduler)
    assert (None, True) == (row.used, row.changed)
    assert "late changes dropped: using the config's curve" == row.why
    assert "late changes dropped" in caplog.text
    assert [] == text_of(scheduler.state_dict())["lineage"]


def test_a_config_value_for_any_entry_of_their_curve_drops_them():
    mine = resumed(phased, {"lr.phases[0].steps": "config", "*": "checkpoint"}, fields=SHORT)
    theirs = resumed(megatrons, {"lr_warmup_steps": "config", "*": "checkpoint"}, lr_warmup_steps=4)
    for scheduler in (mine, theirs):
        assert ((), None) == (scheduler.history, history_row(scheduler).used)
        assert [0.5, 1.0, 1.0] == at(scheduler, 2, 132, 164)


SHORT = {
    "lr": Schedule([Phase("linear", 4, end=1.0, start=0.0), *STABLE.phases[1:]]),
    "weight_decay": UP,
}
"""Differs from what `phased` has in the length of the warmup."""
OTHER_DECAY = Schedule([Phase("linear", 8, end=1.0, start=0.5)])


def test_a_config_value_for_the_weight_decay_alone_keeps_them():
    policy = {"weight_decay": "config", "*": "checkpoint"}
    mine = resumed(phased, policy, fields={"lr": STABLE, "weight_decay": OTHER_DECAY})
    theirs = resumed(megatrons, {"end_wd": "config", "*": "checkpoint"}, end_wd=1.0)
    for scheduler in (mine, theirs):
        assert [1.0, 0.5, 0.0] == at(scheduler, 100, 132, 164)
        assert [1.0] == at(scheduler, 100, key="weight_decay")
        assert 1 == len(scheduler.history)


def test_only_the_changes_of_a_field_whose_curve_is_the_configs_are_dropped():
    state = cooled(phased)
    state.cooldown(8, "linear", 0.25, field="weight_decay")
    policy = {"weight_decay": "config", "*": "checkpoint"}
    fields = {"lr": STABLE, "weight_decay": OTHER_DECAY}
    scheduler = resumed(phased, policy, state.state_dict(), fields=fields)
    assert ["lr"] == [change.field for change in scheduler.history]
    row = history_row(scheduler)
    assert "late changes dropped: using the config's curve" == row.why
    assert ("cooldown at 100", 1) == (row.used[:15], row.used.count("cooldown"))


def test_changes_of_a_field_whose_word_is_checkpoint_are_kept_where_the_rest_is_the_configs():
    scheduler = resumed(phased, {"lr": "checkpoint", "*": "config"})
    assert [1.0, 0.5, 0.0] == at(scheduler, 100, 132, 164)


def test_changes_of_a_field_whose_word_is_config_are_dropped_where_the_rest_is_the_checkpoints():
    scheduler = resumed(phased, {"lr": "config", "*": "checkpoint"})
    assert [1.0, 1.0, 1.0] == at(scheduler, 100, 132, 164)


def test_a_difference_under_strict_is_refused_with_the_changes_among_the_rows():
    with pytest.raises(ReconcileError, match=r"lr\.phases\[0\]\.steps is 4") as error:
        resumed(phased, "strict", fields=SHORT)
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
    changed = phased(100, {"lr": STABLE, "weight_decay": UP})
    changed.extend(1100, field="weight_decay", allow_jump=True)
    scheduler = phased(policy="checkpoint")
    scheduler.load_state_dict(changed.state_dict())
    state = changed.state_dict()
    text = text_of(state)
    text["lineage"][0]["arguments"]["horizon"] = 5
    with pytest.raises(StateError, match=r"'dist_sched\.lineage' .*horizon=5: must be more than"):
        scheduler.load_state_dict(with_text(state, text))
    assert (100, 1) == (scheduler.num_steps, len(scheduler.history))


CHANGE = {
    "position": 100,
    "operation": "cooldown",
    "arguments": {"field": "lr", "steps": 64, "shape": "linear", "end": 0.0},
}


def other(**arguments):
    return {**CHANGE, "arguments": {**CHANGE["arguments"], **arguments}}


OF_ENTRIES = [
    ({}, r"dist_sched\.lineage'.* must be a list"),
    ([other(field="momentum")], r"dist_sched\.lineage'.*momentum"),
]


@pytest.mark.parametrize("history, key", OF_ENTRIES)
def test_an_illegal_history_of_entries_names_the_key_and_changes_nothing(history, key):
    assert_refused_by_key(megatrons, history, key)


@pytest.mark.parametrize(
    "history, key",
    [
        ({}, r"dist_sched\.lineage'.* must be a list"),
        ("", r"dist_sched\.lineage'.* must be a list"),
        ([1], r"lineage\[0\]'.* must have the keys position, operation and arguments"),
        ([CHANGE, {**CHANGE, "by": "me"}], r"lineage\[1\]'"),
        ([{**CHANGE, "arguments": []}], r"lineage\[0\]'.*a JSON object as arguments"),
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
def test_an_illegal_history_names_the_key_and_changes_nothing(history, key):
    assert_refused_by_key(phased, history, key)


def assert_refused_by_key(build, history, key):
    scheduler, state = build(50), build(100).state_dict()
    before = scheduler.state_dict(), held(scheduler)
    text = {**text_of(state), "lineage": history}
    with pytest.raises(StateError, match=key):
        scheduler.load_state_dict(with_text(state, text))
    assert before == (scheduler.state_dict(), held(scheduler))


@BOTH
def test_the_other_class_gets_the_position_and_the_changed_value(build, caplog):
    changed = cooled(build)
    changed.step(32)
    scheduler = (megatrons if build is phased else phased)()
    scheduler.load_state_dict(changed.state_dict())
    assert (132, [1.0], ()) == (scheduler.num_steps, held(scheduler), scheduler.history)
    assert "lr for the next update: 0.5 → 1 (× 2)" in caplog.text


def pretend_ranks(monkeypatch, *values):
    """Let a gather return these values, one of each rank."""
    sent = [process_groups.Sent.of(lambda value=value: value) for value in values]
    monkeypatch.setattr(process_groups, "gather", lambda *_, **__: sent)


@BOTH
def test_ranks_that_were_changed_differently_are_named(build, monkeypatch):
    first, second = cooled(build), build(100)
    second.verify()
    pretend_ranks(monkeypatch, first._own_report(), second._own_report())
    with pytest.raises(RankMismatchError, match=r"rank 1: history is \[\], rank 0 has \[\{'posi"):
        second.verify()


@BOTH
def test_synchronize_carries_the_changes(build, monkeypatch, caplog):
    first, second = cooled(build), build()
    ranks = [(one._current(), one._writer.inventory()) for one in (first, second)]
    pretend_ranks(monkeypatch, *ranks)
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


def test_a_multiplier_taken_from_the_config_leaves_a_cooldown_alone():
    def build(multiplier, policy):
        optimizer = sgd({"name": "a"}, {"name": "b"})
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


@BOTH
def test_a_fork_resumed_by_the_stable_script_can_go_on_stable_or_cool_on(build):
    fork = cooled(build)
    fork.step(32)
    on = resumed(build, "checkpoint", fork.state_dict())
    back = resumed(build, {"history": "config", "*": "checkpoint"}, fork.state_dict())
    assert ([0.5], [1.0]) == (held(on), held(back))
