"""Config x checkpoint x policy: every row, every refusal, and what the report says."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

from dist_sched import ConfigError, ReconcileError, StateError, reconcile
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.history import Change
from dist_sched._config.specification import Specification
from dist_sched._state.format import Checkpoint, pack, unpack
from dist_sched._state.reconciliation import choose, reconcile_checkpoint, saved_curve
from dist_sched.schedules import constant, cyclic, linear
from helpers import CONFIG, text_of, with_text

WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 20, "lr_wsd_decay_style": "linear"}
OTHER = {
    "init_lr": 0.05,
    "max_lr": 2.0,
    "min_lr": 0.2,
    "lr_warmup_steps": 5,
    "lr_decay_steps": 500,
    "lr_decay_style": "cosine",
    "start_wd": 0.01,
    "end_wd": 0.3,
    "wd_incr_steps": 70,
    "wd_incr_style": "cosine",
}


def state(position=60, unit="steps", **changes):
    return pack(OptimizerParamConfig(**{**CONFIG, **changes}), position, unit)


def foreign(**changes):
    return {key: value for key, value in state(**changes).items() if key != "dist_sched"}


def rows(outcome):
    return {row.name: row for row in outcome.rows}


def test_there_is_one_row_for_each_entry_and_one_for_the_unit():
    outcome = reconcile(CONFIG, state())
    names = [*CONFIG, "wsd_decay_steps", "lr_wsd_decay_style", "unit"]
    assert names == [row.name for row in outcome.rows]
    assert () == outcome.changed


@pytest.mark.parametrize(
    "name, word", [*((name, "checkpoint") for name in OTHER), ("max_lr", "config")]
)
def test_the_side_that_the_policy_names_wins_for_each_entry(name, word):
    outcome = reconcile(CONFIG, state(**{name: OTHER[name]}), {name: word, "*": "strict"})
    (row,) = outcome.changed
    used = OTHER[name] if word == "checkpoint" else CONFIG[name]
    assert (name, CONFIG[name], OTHER[name], used) == (
        row.name,
        row.config,
        row.checkpoint,
        row.used,
    )
    assert used == outcome.used[name]


@pytest.mark.parametrize(
    "name, word", [("wsd_decay_steps", "checkpoint"), ("lr_wsd_decay_style", "config")]
)
def test_the_wsd_entries_are_reconciled_where_the_used_style_is_wsd(name, word):
    other = {"wsd_decay_steps": 40, "lr_wsd_decay_style": "cosine"}[name]
    outcome = reconcile(
        {**CONFIG, **WSD}, state(**{**WSD, name: other}), {name: word, "*": "strict"}
    )
    (row,) = outcome.changed
    assert (name, other if word == "checkpoint" else WSD[name]) == (row.name, row.used)


def test_the_wsd_entries_do_not_matter_under_another_style():
    outcome = reconcile(CONFIG, state(wsd_decay_steps=40, lr_wsd_decay_style="cosine"), "strict")
    assert () == outcome.changed
    assert "has no effect" in rows(outcome)["wsd_decay_steps"].why


def test_strict_lists_every_difference_and_what_to_change_to_what():
    with pytest.raises(ReconcileError) as caught:
        reconcile(CONFIG, state(**OTHER), "strict")
    for name, value in OTHER.items():
        assert f"{name} is {CONFIG[name]!r} in the config and {value!r} in the checkpoint" in str(
            caught.value
        )
        assert f"set {name}={value!r}" in str(caught.value)
    assert list(OTHER) == [row.name for row in caught.value.reconciliation.changed]
    assert 13 == len(caught.value.reconciliation.rows)


def test_a_refusal_carries_a_reason_for_each_cause_and_its_text_has_them_all():
    with pytest.raises(ReconcileError) as caught:
        reconcile(CONFIG, state(max_lr=2.0, unit="tokens"), "strict")
    assert ["max_lr", "unit"] == [reason.split()[0] for reason in caught.value.reasons]
    assert all(reason in str(caught.value) for reason in caught.value.reasons)


def test_strict_accepts_what_is_equal():
    assert 60 == reconcile(CONFIG, state(), "strict").position


def test_an_entry_that_the_checkpoint_lacks_never_fails_strict_and_the_report_says_so():
    outcome = reconcile(CONFIG, foreign(), "strict")
    row = rows(outcome)["init_lr"]
    assert (None, 0.0, False) == (row.checkpoint, row.used, row.changed)
    assert "not in the checkpoint" in row.why


@pytest.mark.parametrize(
    "config, checkpoint, policy, names",
    [
        (
            {"lr_decay_steps": 50},
            {"lr_warmup_steps": 60},
            {"lr_decay_steps": "config", "*": "checkpoint"},
            "lr_warmup_steps=60: must be less than lr_decay_steps=50",
        ),
        (
            {"max_lr": 0.05, "min_lr": 0.0},
            {"min_lr": 0.1},
            {"max_lr": "config", "*": "checkpoint"},
            "min_lr=0.1: must be at most max_lr=0.05",
        ),
        (
            {},
            WSD,
            {"lr_decay_style": "checkpoint", "*": "config"},
            "wsd_decay_steps=None: is required",
        ),
        (
            {},
            {"wd_incr_style": "constant", "start_wd": 0.1},
            {"wd_incr_style": "checkpoint", "*": "config"},
            "start_wd=0.0: must be equal to end_wd=0.1 for wd_incr_style='constant'",
        ),
    ],
)
def test_an_outcome_that_is_illegal_as_a_whole_is_refused_by_name(
    config, checkpoint, policy, names
):
    with pytest.raises(ReconcileError, match="result is not a valid config") as caught:
        reconcile({**CONFIG, **config}, state(**checkpoint), policy)
    assert names in str(caught.value)
    assert 13 == len(caught.value.reconciliation.rows)
    assert {None} == {value.used for value in caught.value.reconciliation.next_update}


@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict"])
def test_units_that_differ_are_refused_under_every_policy(policy):
    with pytest.raises(ReconcileError, match=r"unit is 'steps' .* 'tokens'.*unit='tokens'"):
        reconcile(CONFIG, state(unit="tokens"), policy)


def test_a_refusal_of_units_offers_no_policy_but_names_the_one_that_relabels():
    with pytest.raises(ReconcileError) as caught:
        reconcile(CONFIG, state(unit="tokens"))
    assert "{'unit': 'config'}" in str(caught.value)
    assert caught.value.reconciliation.alternative is None


def test_a_unit_that_the_policy_relabels_is_said_in_a_row_and_a_warning():
    outcome = reconcile(CONFIG, state(unit="tokens"), {"unit": "config"})
    row = rows(outcome)["unit"]
    assert ("steps", "tokens", "steps", True) == (row.config, row.checkpoint, row.used, row.changed)
    (warning,) = outcome.warnings
    assert "position 60 was saved in tokens and is used as steps" in warning
    assert 60 == outcome.position


def test_a_policy_of_the_unit_alone_leaves_the_entries_to_the_checkpoint():
    outcome = reconcile(CONFIG, state(unit="tokens", max_lr=2.0), {"unit": "config"})
    assert 2.0 == outcome.used["max_lr"]
    assert {"max_lr": "config", "unit": "config", "*": "checkpoint"} == outcome.alternative


@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict", {"unit": "config"}], ids=str)
def test_equal_units_need_no_relabelling(policy):
    assert reconcile(CONFIG, state(), policy).is_equal


def test_the_policy_of_the_config_counts_where_the_argument_is_not_given():
    config = {**CONFIG, "policy": {"max_lr": "config", "*": "strict"}}
    assert 1.0 == reconcile(config, state(max_lr=2.0)).used["max_lr"]
    assert 2.0 == reconcile(config, state(max_lr=2.0), "checkpoint").used["max_lr"]
    booleans = {**CONFIG, "use_checkpoint_opt_param_scheduler": False}
    with pytest.raises(ReconcileError):
        reconcile(booleans, state(max_lr=2.0))


def test_a_config_in_another_unit_agrees_with_a_checkpoint_in_it():
    assert (
        "tokens" == rows(reconcile({**CONFIG, "unit": "tokens"}, state(unit="tokens")))["unit"].used
    )


def test_the_next_update_is_given_under_config_under_checkpoint_and_as_used():
    policy = {"max_lr": "config", "*": "checkpoint"}
    lr, wd = reconcile({**CONFIG, "max_lr": 2.0}, state(min_lr=0.3, end_wd=0.2), policy).next_update
    assert ("lr", "weight_decay") == (lr.field, wd.field)
    assert pytest.approx([1.05, 0.65, 1.15]) == [lr.config, lr.checkpoint, lr.used]
    assert pytest.approx([0.06, 0.12, 0.12]) == [wd.config, wd.checkpoint, wd.used]


def test_an_outcome_is_frozen_and_can_be_sent_to_another_rank():
    outcome = reconcile(CONFIG, state(max_lr=2.0))
    with pytest.raises(FrozenInstanceError):
        outcome.position = 3
    with pytest.raises(FrozenInstanceError):
        outcome.rows[0].used = 3
    assert outcome == pickle.loads(pickle.dumps(outcome))  # noqa: S301


def test_an_error_keeps_its_reconciliation_when_it_is_sent_to_another_rank():
    with pytest.raises(ReconcileError) as caught:
        reconcile(CONFIG, state(max_lr=2.0), "strict")
    sent = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(caught.value), caught.value.reconciliation, caught.value.reasons) == (
        str(sent),
        sent.reconciliation,
        sent.reasons,
    )


def test_to_dict_is_json():
    data = reconcile(CONFIG, state(max_lr=2.0)).to_dict()
    assert data == json.loads(json.dumps(data))
    assert {"rows", "position", "next_update", "warnings", "alternative"} == set(data)
    expected = {
        "name": "max_lr",
        "config": 1.0,
        "checkpoint": 2.0,
        "used": 2.0,
        "why": "using checkpoint value",
        "changed": True,
    }
    assert expected == data["rows"][1]


def test_the_table_is_aligned_and_has_every_entry_and_the_values_of_the_next_update():
    lines = reconcile(CONFIG, state(max_lr=2.0)).table().splitlines()
    assert ["entry", "config", "checkpoint", "used", "why"] == lines[0].split()
    column = lines[0].index("checkpoint")
    assert all(line[column - 1] == " " != line[column] for line in lines[1:])
    assert ["*", "max_lr", "1.0", "2.0", "2.0", "using", "checkpoint", "value"] == lines[2].split()
    assert ["lr", "0.55", "1.05", "1.05", "next", "update"] == lines[-2].split()


def test_the_text_is_one_line_where_nothing_differs():
    assert "position 60; config and checkpoint are equal" == str(reconcile(CONFIG, state()))


def test_the_text_has_the_values_first_then_what_differs_and_last_the_policy_for_the_other_side():
    assert [
        "position 60; 1 entry differs",
        "lr for the next update: 1.05 → 0.55 (× 0.5238)",
        "max_lr: checkpoint 2, config 1; overriding with config value",
        "10 entries are equal",
        'to use the other values: policy={"max_lr": "checkpoint", "*": "config"}',
    ] == str(reconcile(CONFIG, state(max_lr=2.0), "config")).splitlines()


def test_the_text_says_of_lr_what_the_config_would_have_where_it_stays_as_it_was():
    lines = str(reconcile(CONFIG, state(max_lr=2.0, end_wd=0.2))).splitlines()
    assert (
        "lr for the next update: 1.05, as in the checkpoint's run (the config has 0.55)" == lines[1]
    )
    assert "weight_decay" not in str(lines)


def test_the_text_names_every_field_that_moves_after_lr():
    lines = str(reconcile(CONFIG, state(end_wd=0.2), "config")).splitlines()
    assert [
        "lr for the next update: 0.55, as in the checkpoint's run",
        "weight_decay for the next update: 0.12 → 0.06 (× 0.5)",
    ] == lines[1:3]


def test_the_text_has_no_factor_for_a_value_that_was_0():
    lines = str(reconcile({**CONFIG, "init_lr": 0.5}, state(0), "config")).splitlines()
    assert "lr for the next update: 0 → 0.5" == lines[1]


def test_the_text_names_an_override_of_groups_that_moves():
    theirs = Specification.of({"lr": constant(1.0)}, {"head": {"lr": 0.5}})
    mine = {"fields": {"lr": 1.0}, "groups": {"head": {"lr": 0.25}}}
    text = str(reconcile(mine, pack(theirs, 60, "steps"), "config"))
    assert "groups[head].lr for the next update: 0.5 → 0.25 (× 0.5)" in text


def test_a_refusal_has_both_values_and_a_policy_that_loads():
    with pytest.raises(ReconcileError) as caught:
        reconcile(CONFIG, state(max_lr=2.0), "strict")
    assert [
        "at position 60; 1 entry differs",
        "lr for the next update: 1.05 in the checkpoint, 0.55 in the config",
        "max_lr: checkpoint 2, config 1; strict: must be equal",
        "10 entries are equal",
        'to load the checkpoint: policy={"max_lr": "checkpoint", "*": "strict"}',
    ] == str(caught.value).splitlines()[-5:]


@pytest.mark.parametrize(
    "changes, policy, expected",
    [
        ({"max_lr": 2.0}, "checkpoint", {"max_lr": "config", "*": "checkpoint"}),
        ({"max_lr": 2.0}, {"max_lr": "config", "*": "strict"}, None),
        ({"max_lr": 2.0, "end_wd": 0.2}, {"max_lr": "config", "*": "checkpoint"}, None),
        (dict(list(OTHER.items())[1:5]), "config", None),
        (OTHER, "checkpoint", "config"),
        (OTHER, {"max_lr": "config", "*": "checkpoint"}, {"max_lr": "checkpoint", "*": "config"}),
    ],
    ids=str,
)
def test_the_policy_for_the_other_side_really_changes_every_entry_that_differs(
    changes, policy, expected
):
    outcome = reconcile(CONFIG, state(**changes), policy)
    assert expected in (None, outcome.alternative)
    other = reconcile(CONFIG, state(**changes), outcome.alternative)
    assert len(changes) == len(other.changed)
    for row, theirs in zip(outcome.changed, other.changed, strict=True):
        assert {row.config, row.checkpoint} == {row.used, theirs.used}


def test_there_is_no_policy_for_the_other_side_where_that_makes_no_legal_config():
    config = {**CONFIG, "lr_decay_steps": 50}
    checkpoint = state(lr_warmup_steps=60, lr_decay_steps=70)
    policy = {"lr_warmup_steps": "config", "*": "checkpoint"}
    outcome = reconcile(config, checkpoint, policy)
    assert (None, False) == (outcome.alternative, "policy=" in str(outcome))


@pytest.mark.parametrize("policy", ["strict", {"lr_decay_steps": "config", "*": "checkpoint"}])
def test_the_policy_in_a_refusal_loads_the_state(policy):
    config, checkpoint = {**CONFIG, "lr_decay_steps": 50}, state(lr_warmup_steps=60)
    with pytest.raises(ReconcileError) as caught:
        reconcile(config, checkpoint, policy)
    assert 60 == reconcile(config, checkpoint, caught.value.reconciliation.alternative).position


def test_what_the_checkpoint_lacks_is_named():
    text = str(reconcile(CONFIG, foreign()))
    assert "not in the checkpoint, so the config's are used: init_lr, unit" in text
    assert not reconcile(CONFIG, foreign()).is_equal


def test_a_state_without_a_text_is_named_by_a_warning():
    (warning,) = reconcile(CONFIG, foreign()).warnings
    assert "Megatron-LM or NeMo" in warning
    assert warning in " ".join(str(reconcile(CONFIG, foreign())).split())


@pytest.mark.parametrize(
    "config, checkpoint, policy, error",
    [
        ({**CONFIG, "max_lr": -1}, state(), "checkpoint", ConfigError),
        ({**CONFIG, "maxlr": 1.0}, state(), "checkpoint", ConfigError),
        ({}, state(), "checkpoint", ConfigError),
        ({**CONFIG, "unit": "batches"}, state(), "checkpoint", ConfigError),
        (CONFIG, state(), "mine", ConfigError),
        (CONFIG, {}, "checkpoint", StateError),
        (CONFIG, {**state(), "num_steps": -1}, "checkpoint", StateError),
    ],
)
def test_bad_input_of_a_dry_run_is_refused(config, checkpoint, policy, error):
    with pytest.raises(error):
        reconcile(config, checkpoint, policy)


def test_a_dry_run_needs_no_torch():
    program = (
        "import sys; from dist_sched import reconcile; "
        f"print(reconcile({CONFIG!r}, {state()!r}).position, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "60 False\n" == done.stdout


def test_whether_the_wsd_entries_matter_is_for_the_used_style_to_say():
    config = {**CONFIG, **WSD, "wsd_decay_steps": 40}
    outcome = reconcile(config, state(wsd_decay_steps=20, lr_wsd_decay_style="linear"))
    assert ["lr_decay_style"] == [row.name for row in outcome.changed]


def test_a_refused_outcome_shows_nothing_as_used():
    with pytest.raises(ReconcileError) as caught:
        reconcile(CONFIG, state(max_lr=2.0), "strict")
    report = caught.value.reconciliation
    assert [None] == [row.used for row in report.changed]
    assert [None, None] == [value.used for value in report.next_update]


def test_an_illegal_outcome_says_from_which_side_each_entry_came():
    policy = {"lr_decay_steps": "config", "*": "checkpoint"}
    with pytest.raises(ReconcileError) as caught:
        reconcile({**CONFIG, "lr_decay_steps": 50}, state(lr_warmup_steps=60), policy)
    assert "lr_warmup_steps=60 from the checkpoint, lr_decay_steps=50 from the config" in str(
        caught.value
    )


def test_a_long_report_counts_what_it_leaves_out_and_the_table_has_it():
    fields = {"lr": cyclic(1.0, 1000, up=5)}
    mine = Specification(fields=fields, groups={})
    theirs = Specification(fields={"lr": cyclic(1.0, 1000, up=5, floor=0.5)}, groups={})
    outcome = reconcile({"fields": mine.to_dict()["fields"]}, pack(theirs, 60, "steps"))
    differing = 100 + 1  # the end of each fall, and the first start
    assert differing == len(outcome.changed)
    assert f"and {differing - 10} more entries that differ" in str(outcome).splitlines()
    assert len(outcome.rows) + 2 == len(outcome.table().splitlines())
    assert "config" == outcome.alternative


def enormous():
    """Return a config and a state with long names, odd keys, and most entries different."""
    names = [f"{'long ' * 20}{index}" for index in range(9)]
    mine, theirs = (
        Specification.of(
            {"lr": cyclic(1.0, 1000, up=5)},
            {name: {"lr": cyclic(peak, 1000, up=5)} for name in names},
        )
        for peak in (0.1 + 0.2, 0.2)
    )
    odd = {f"{'unknown ' * 30}{index}": 1 for index in range(99)}
    return mine.to_dict(), {**pack(theirs, 63, "steps"), **odd}


@pytest.mark.parametrize("policy", ["checkpoint", "config"])
def test_an_enormous_report_is_under_4000_characters_and_100_columns(policy):
    text = str(reconcile(*enormous(), policy))
    assert 4000 >= len(text) > 900
    assert 100 > max(map(len, text.splitlines()))


def test_an_enormous_refusal_is_under_4000_characters_and_has_all_reasons_in_its_attribute():
    with pytest.raises(ReconcileError) as caught:
        reconcile(*enormous(), "strict")
    assert 4000 >= len(str(caught.value)) > 1000
    assert len(caught.value.reconciliation.changed) == len(caught.value.reasons)
    assert " more reasons\n" in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "lr_decay_steps", "momentum", "groups[x].lr"])
def test_a_policy_for_what_neither_side_has_is_named(name):
    fields = {"lr": 0.1, "weight_decay": 0.2}
    state = pack(Specification(fields=fields, groups={}), 5, "steps")
    outcome = reconcile({"fields": fields}, state, {name: "config", "*": "checkpoint"})
    (warning,) = outcome.warnings
    assert warning.startswith(f"policy[{name!r}] has no effect: there is no such entry")
    assert warning in str(outcome)


def test_one_warning_counts_the_parts_of_a_policy_without_effect():
    policy = {f"nonsense{index}": "config" for index in range(1000)}
    state = pack(Specification(fields={"lr": 0.1}, groups={}), 5, "steps")
    (warning,) = reconcile({"fields": {"lr": 0.1}}, state, {**policy, "*": "checkpoint"}).warnings
    assert warning.startswith("policy['nonsense0'] (and 999 more) has no effect")


@pytest.mark.parametrize("name", ["lr", "lr.phases[0].steps", "max_lr", "history"])
def test_a_policy_for_an_entry_or_for_bounds_of_groups_is_not_named(name):
    fields = {"lr": 0.1, "weight_decay": 0.2}
    state = pack(Specification(fields=fields, groups={}), 5, "steps")
    outcome = reconcile({"fields": fields}, state, {name: "config", "*": "checkpoint"})
    assert () == outcome.warnings


def test_a_policy_for_what_only_the_checkpoint_has_is_not_named():
    theirs = Specification(fields={"lr": 0.1, "momentum": 0.9}, groups={})
    state = pack(theirs, 5, "steps")
    outcome = reconcile({"fields": {"lr": 0.1}}, state, {"momentum": "config", "*": "strict"})
    assert () == outcome.warnings


FLAT = {**CONFIG, "lr_decay_style": "constant"}
LONGER = Change(60, "extend", {"field": "lr", "horizon": 500})


def extended(position=60, config=FLAT):
    """Return the state of a run whose horizon was moved to 500."""
    return pack(OptimizerParamConfig(**config), position, "steps", (LONGER,))


def refused(*arguments):
    """Return the error of a load that is refused."""
    with pytest.raises(ReconcileError) as caught:
        reconcile(*arguments)
    return caught.value


def of_groups(value, count):
    names = [f"group{index}" for index in range(count)]
    return Specification.of({"lr": constant(1.0)}, {name: {"lr": value} for name in names})


@pytest.mark.parametrize(
    "config, checkpoint, word, expected",
    [
        (1, 1.0, "config", (1.0, "equal")),
        (1, 1.0, "strict", (1.0, "equal")),
        (1, 2, "strict", (1, "strict: must be equal")),
        (1, 2, "config", (1, "overriding with config value")),
        (1, 2, "checkpoint", (2, "using checkpoint value")),
    ],
)
def test_a_word_chooses_a_value_and_says_why(config, checkpoint, word, expected):
    found = choose(config, checkpoint, word)
    assert (expected, type(expected[0])) == (found, type(found[0]))


def test_a_dry_run_doubts_a_state_at_position_0_that_is_the_configs():
    (warning,) = reconcile(CONFIG, state(0)).warnings
    assert "perhaps nothing was read from the checkpoint" in warning
    assert () == reconcile(CONFIG, state(1)).warnings
    assert () == reconcile({**CONFIG, "max_lr": 2.0}, state(0)).warnings


@pytest.mark.parametrize(
    "config, saved, policy, expected",
    [
        (CONFIG, state(), "strict", ("steps", "steps", False, "equal")),
        (
            CONFIG,
            foreign(),
            "strict",
            ("steps", None, False, "not in the checkpoint: using config value"),
        ),
        (
            CONFIG,
            state(unit="tokens"),
            {"unit": "config"},
            ("steps", "tokens", True, "relabelled, not converted"),
        ),
    ],
)
def test_the_row_of_the_unit_says_what_becomes_of_it(config, saved, policy, expected):
    row = rows(reconcile(config, saved, policy))["unit"]
    assert ("steps", *expected) == (row.used, row.config, row.checkpoint, row.changed, row.why)


@pytest.mark.parametrize("policy", ["checkpoint", {"unit": "strict", "*": "config"}])
def test_the_row_of_a_unit_that_is_refused_uses_none(policy):
    error = refused(CONFIG, state(unit="tokens", max_lr=2.0), policy)
    found = rows(error.reconciliation)
    row = found["unit"]
    assert (None, True, "units must be equal") == (row.used, row.changed, row.why)
    assert (1.0 if "*" in policy else 2.0) == found["max_lr"].used
    (reason,) = error.reasons
    assert reason.startswith("unit is 'steps' in the config and 'tokens' in the checkpoint, and p")
    assert "build the scheduler with unit='tokens', or, if the run counted steps" in reason


def test_a_refusal_uses_none_for_what_is_refused_alone():
    policy = {"max_lr": "strict", "*": "checkpoint"}
    error = refused(CONFIG, state(max_lr=2.0, min_lr=0.2), policy)
    found = rows(error.reconciliation)
    assert (None, 0.2, "steps", 0.0) == tuple(
        found[name].used for name in ("max_lr", "min_lr", "unit", "init_lr")
    )


def test_a_relabelled_unit_is_no_reason_and_others_stay():
    policy = {"unit": "config", "*": "strict"}
    error = refused(CONFIG, state(unit="tokens", max_lr=2.0), policy)
    assert ["max_lr"] == [reason.split()[0] for reason in error.reasons]
    found = rows(error.reconciliation)
    assert (None, "steps") == (found["max_lr"].used, found["unit"].used)
    assert {"max_lr": "checkpoint", **policy} == error.reconciliation.alternative


def test_an_illegal_outcome_has_a_reason_and_the_origins():
    policy = {"lr_decay_steps": "config", "*": "checkpoint"}
    error = refused({**CONFIG, "lr_decay_steps": 50}, state(lr_warmup_steps=60), policy)
    reason, origins = error.reasons
    assert (
        "the result is not a valid config: lr_warmup_steps=60: must be less than "
        "lr_decay_steps=50; use the same policy for entries that belong together, or change the "
        "config" == reason
    )
    assert (
        "entries that differ were used as follows: lr_warmup_steps=60 from the checkpoint, "
        "lr_decay_steps=50 from the config" == origins
    )


def test_a_refusal_of_one_entry_says_all_that_can_be_done():
    (reason,) = refused(CONFIG, state(max_lr=2.0), "strict").reasons
    assert (
        "max_lr is 1.0 in the config and 2.0 in the checkpoint, and its policy is 'strict'; set "
        "max_lr=2.0, or choose a side with policy={'max_lr': 'checkpoint' or 'config', ...}"
        == reason
    )


def test_a_refusal_of_what_only_the_checkpoint_has_says_what_can_be_done():
    theirs = pack(Specification.of({"lr": constant(1.0), "eps": constant(0.5)}), 5, "steps")
    (reason,) = refused({"fields": {"lr": 1.0}}, theirs, "strict").reasons
    assert (
        "eps is only in the checkpoint, and its policy is 'strict'; add it to the config, or "
        "ignore the checkpoint's with policy={'eps': 'config', ...}" == reason
    )


def test_a_refusal_of_other_phases_says_that_one_side_must_win():
    theirs = pack(Specification.of({"lr": cyclic(1.0, 100, up=5)}), 5, "steps")
    mine = {"fields": {"lr": cyclic(1.0, 300, up=5).to_dict()}}
    policy = {"lr.phases[0].steps": "config", "*": "checkpoint"}
    (reason,) = refused(mine, theirs, policy).reasons
    assert (
        "lr: config and checkpoint have different phases, and the policy is not the same for all "
        "of them; choose a side with policy={'lr': ...}" == reason
    )


@pytest.mark.parametrize("count", [3, 100])
def test_a_refusal_lists_the_reasons_that_fit_and_counts_the_others(count):
    mine, theirs = of_groups(0.5, count), pack(of_groups(0.25, count), 60, "steps")
    error = refused(mine.to_dict(), theirs, "strict")
    first, *lines = str(error).splitlines()
    shown = [line for line in lines if line in error.reasons]
    assert ("cannot load the scheduler:", count) == (first, len(error.reasons))
    assert list(error.reasons[: len(shown)]) == shown == lines[: len(shown)]
    left = count - len(shown)
    assert (f"and {left} more reasons" if left else "at position 60;") == lines[len(shown)][
        : None if left else 15
    ]
    assert bool(left) is (count > 3)
    assert 4000 > len(str(error))
    assert not left or 3900 <= len(str(error)) + len(error.reasons[0])


def test_the_first_reason_is_cut_and_always_shown():
    mine = {"fields": {"lr": cyclic(1.0, 1000, up=5).to_dict()}}
    saved = pack(Specification.of({"lr": cyclic(1.0, 2000, up=5)}), 60, "tokens")
    error = refused(mine, saved, "strict")
    lines = str(error).splitlines()
    assert 4000 < len(error.reasons[0])
    assert lines[1].startswith("lr is ")
    assert lines[1].endswith(" [...]")
    assert 300 < len(lines[1]) <= 400
    assert "and 1 more reasons" == lines[2]


@pytest.mark.parametrize(
    "count, expected",
    [
        (1, {"max_lr": "config", "*": "checkpoint"}),
        (4, {**dict.fromkeys(list(OTHER)[1:5], "config"), "*": "checkpoint"}),
        (5, "config"),
    ],
)
def test_the_other_policy_names_up_to_four_entries(count, expected):
    changes = dict(list(OTHER.items())[1 : 1 + count])
    assert expected == reconcile(CONFIG, state(**changes), "checkpoint").alternative


@pytest.mark.parametrize(
    "names, expected",
    [
        (4, {"max_lr": "checkpoint"}),
        (5, None),
    ],
)
def test_the_other_policy_keeps_up_to_four_names_of_the_present_one(names, expected):
    kept = dict.fromkeys(list(CONFIG)[2 : 1 + names], "checkpoint")
    policy = {"max_lr": "config", **kept, "*": "config"}
    found = reconcile(CONFIG, state(max_lr=2.0), policy).alternative
    assert ({**expected, **kept, "*": "config"} if expected else "checkpoint") == found


def test_the_other_policy_of_very_many_differences_is_that_of_most_but_for_up_to_four():
    policy = dict.fromkeys(list(OTHER)[:4], "config") | {"*": "checkpoint"}
    other = dict.fromkeys(list(OTHER)[:4], "checkpoint") | {"*": "config"}
    assert other == reconcile(CONFIG, state(**OTHER), policy).alternative
    policy = dict.fromkeys(list(OTHER)[:5], "config") | {"*": "checkpoint"}
    assert None is reconcile(CONFIG, state(**OTHER), policy).alternative


def test_where_nothing_differs_there_is_no_other_policy():
    assert None is reconcile(CONFIG, state()).alternative


@pytest.mark.parametrize("policy", ["strict", {"max_lr": "strict", "*": "strict"}])
def test_very_many_refusals_are_settled_by_one_word(policy):
    assert "checkpoint" == refused(CONFIG, state(**OTHER), policy).reconciliation.alternative


def test_an_illegal_outcome_is_settled_by_the_first_side_that_is_legal():
    policy = {"lr_decay_steps": "config", "*": "checkpoint"}
    config = {**CONFIG, "lr_decay_steps": 50}
    error = refused(config, state(lr_warmup_steps=60), policy)
    assert "checkpoint" == error.reconciliation.alternative
    broken = text_of(state())
    broken["config"]["min_lr"] = 3.0
    saved = with_text({**state(), "min_lr": 3.0}, broken)
    assert "config" == refused(CONFIG, saved).reconciliation.alternative


def test_an_illegal_outcome_keeps_the_word_for_the_unit():
    policy = {"lr_decay_steps": "config", "unit": "config", "*": "checkpoint"}
    config = {**CONFIG, "lr_decay_steps": 50}
    error = refused(config, state(unit="tokens", lr_warmup_steps=60), policy)
    assert {"unit": "config", "*": "checkpoint"} == error.reconciliation.alternative


def test_one_part_of_a_policy_without_effect_is_not_counted_and_two_are():
    words = {"nonsense": "config"}
    saved = pack(Specification(fields={"lr": 0.1}, groups={}), 5, "steps")
    (warning,) = reconcile({"fields": {"lr": 0.1}}, saved, {**words, "*": "config"}).warnings
    assert warning.startswith("policy['nonsense'] has no effect")
    words["more"] = "config"
    (warning,) = reconcile({"fields": {"lr": 0.1}}, saved, {**words, "*": "config"}).warnings
    assert warning.startswith("policy['nonsense'] (and 1 more) has no effect")


@pytest.mark.parametrize(
    "config, policy, kept, alternative",
    [
        (FLAT, "checkpoint", True, {"history": "config", "*": "checkpoint"}),
        (FLAT, "config", False, {"history": "checkpoint", "*": "config"}),
        (FLAT, "strict", True, {"history": "config", "*": "strict"}),
        (FLAT, {"history": "config", "*": "checkpoint"}, False, "checkpoint"),
        (FLAT, {"history": "checkpoint", "*": "config"}, True, "config"),
        (FLAT, {"max_lr": "checkpoint", "*": "config"}, True, None),
        ({**FLAT, "max_lr": 2.0}, {"max_lr": "config", "*": "checkpoint"}, False, None),
        ({**FLAT, "end_wd": 0.2}, {"end_wd": "config", "*": "checkpoint"}, True, None),
        ({**FLAT, "max_lr": 2.0}, "checkpoint", True, None),
        (FLAT, {"start_wd": "checkpoint", "*": "config"}, False, None),
    ],
    ids=str,
)
def test_late_changes_are_kept_where_the_curve_is_the_checkpoints(
    config, policy, kept, alternative
):
    outcome = reconcile(config, extended(), policy)
    row = rows(outcome)["history"]
    text = "extend at 60 (field=lr, horizon=500)"
    why = "late changes of the checkpoint's curve"
    dropped = "late changes dropped: using the config's curve"
    assert (None, text, text if kept else None, why if kept else dropped, True) == (
        row.config,
        row.checkpoint,
        row.used,
        row.why,
        row.changed,
    )
    if alternative is not None:
        assert alternative == outcome.alternative
        other = reconcile(config, extended(), outcome.alternative)
        assert kept is (rows(other)["history"].used is None)


def test_the_value_of_the_checkpoint_is_that_after_its_late_changes():
    config = {**CONFIG, "lr_decay_steps": 110}
    lr = reconcile(config, extended(110, config), "config").next_update[0]
    assert pytest.approx([0.1, 1 - 0.9 * 100 / 490, 0.1]) == [lr.config, lr.checkpoint, lr.used]


def test_a_state_without_late_changes_has_no_row_of_them():
    assert "history" not in rows(reconcile(CONFIG, state()))


def test_two_late_changes_are_one_row():
    changes = (LONGER, Change(80, "extend", {"field": "lr", "horizon": 600}))
    saved = pack(OptimizerParamConfig(**FLAT), 90, "steps", changes)
    assert (
        "extend at 60 (field=lr, horizon=500); extend at 80 (field=lr, horizon=600)"
        == rows(reconcile(FLAT, saved))["history"].used
    )


def test_the_curve_of_a_state_that_lacks_entries_has_those_of_the_config():
    declared = OptimizerParamConfig(**CONFIG)
    lacking = Checkpoint(kind=OptimizerParamConfig, parts={"max_lr": 2.0}, position=0, unit=None)
    assert OptimizerParamConfig(**{**CONFIG, "max_lr": 2.0}) == saved_curve(declared, lacking)
    assert None is saved_curve(declared, lacking.replace(parts={"max_lr": 0.05}))


def test_a_position_alone_has_no_value_of_the_checkpoint():
    outcome = reconcile(CONFIG, {"last_epoch": 60})
    assert [(None, 0.55), (None, 0.06)] == [
        (value.checkpoint, pytest.approx(value.used)) for value in outcome.next_update
    ]


def test_the_value_that_another_library_saved_counts_before_that_of_its_entries():
    saved = {
        "last_epoch": 10,
        "_step_count": 11,
        "base_lrs": [1.0],
        "_last_lr": [0.75],
        "T_max": 100,
        "eta_min": 0.0,
    }
    lr = reconcile(CONFIG, saved).next_update[0]
    assert (0.75, True) == (lr.checkpoint, lr.used > 0.9)


def test_a_value_that_one_side_has_is_given_beside_the_others():
    theirs = Specification.of({"lr": constant(1.0), "eps": constant(0.5)})
    outcome = reconcile(
        {"fields": {"lr": 1.0, "momentum": 0.9}}, pack(theirs, 5, "steps"), "config"
    )
    assert [("lr", 1.0, 1.0, 1.0), ("momentum", 0.9, None, 0.9), ("eps", None, 0.5, None)] == [
        (value.field, value.config, value.checkpoint, value.used) for value in outcome.next_update
    ]


@pytest.mark.parametrize("policy, used", [("checkpoint", None), ("config", None)])
def test_an_entry_without_effect_is_no_difference(policy, used):
    outcome = reconcile(CONFIG, state(wsd_decay_steps=40), policy)
    row = rows(outcome)["wsd_decay_steps"]
    assert (None, 40, 40 if policy == "checkpoint" else used, False) == (
        row.config,
        row.checkpoint,
        row.used,
        row.changed,
    )
    assert ("has no effect with this lr_decay_style", None) == (row.why, outcome.alternative)


def test_a_field_of_the_checkpoint_alone_is_none_in_the_config():
    theirs = Specification.of({"lr": constant(1.0), "eps": constant(0.5)})
    found = rows(reconcile({"fields": {"lr": 1.0}}, pack(theirs, 5, "steps"), "config"))
    (name,) = [name for name in found if name.startswith("eps")]
    assert (None, None, True) == (found[name].config, found[name].used, found[name].changed)


def test_the_other_policy_never_names_an_entry_that_is_probably_misspelt():
    theirs = Specification.of({"lr": constant(1.0), "weight_decai": constant(0.1)})
    mine = {"fields": {"lr": 1.0, "weight_decay": 0.1}}
    error = refused(mine, pack(theirs, 5, "steps"), "strict")
    assert "config" == error.reconciliation.alternative


def test_the_other_policy_names_an_entry_that_another_name_would_cover():
    mine, theirs = (Specification.of({"lr": linear(1.0, length)}) for length in (100, 200))
    policy = {"lr": "checkpoint", "*": "config"}
    found = reconcile(mine.to_dict(), pack(theirs, 5, "steps"), policy).alternative
    assert {"lr.phases[0].steps": "config", **policy} == found


def test_an_outcome_has_the_config_before_and_after_its_late_changes():
    declared = OptimizerParamConfig(**FLAT)
    checkpoint = unpack(extended(), OptimizerParamConfig)
    policy = declared.parse_policy("checkpoint")
    outcome = reconcile_checkpoint(declared, "steps", checkpoint, policy)
    assert (declared, (LONGER,)) == (outcome.config, outcome.history)
    assert OptimizerParamConfig(**{**FLAT, "lr_decay_steps": 500}) == outcome.effective
    assert 60 == outcome.report.position
