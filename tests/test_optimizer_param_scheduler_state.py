"""The state of `OptimizerParamScheduler`: saved, resumed, refused, and what the log says of it."""

from __future__ import annotations

import io
import json
import logging

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.stateful import Stateful

from dist_sched import ConfigError, ReconcileError, StateError
from helpers import (
    FLOAT_AND_TENSOR_LR,
    adamw,
    contents,
    held,
    opt_param_scheduler,
    text_of,
    with_text,
)


def at(position, **changes):
    scheduler = opt_param_scheduler(**changes)
    scheduler.seek(position)
    return scheduler


def test_the_scheduler_is_stateful():
    assert isinstance(opt_param_scheduler(), Stateful)


def test_state_is_fresh_primitives_that_survive_json_and_weights_only():
    scheduler = opt_param_scheduler(max_lr=np.float64(1.0), lr_warmup_steps=torch.tensor(10))
    scheduler.step(7)
    state = scheduler.state_dict()
    assert {int, float, str} >= {type(value) for value in state.values()}
    assert state == json.loads(json.dumps(state))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    assert state == torch.load(file, weights_only=True)
    state.clear()
    assert 11 == len(scheduler.state_dict())


def test_state_is_free_of_group_and_optimizer_counts():
    one = opt_param_scheduler()
    many = opt_param_scheduler([adamw({}, {"lr": 2.0}), adamw()])
    assert one.state_dict() == many.state_dict()


TAIL = {"lr_decay_style": "WSD", "wsd_decay_steps": 20}
STYLES = [
    *({"lr_decay_style": style} for style in ("constant", "linear", "inverse-square-root")),
    *({**TAIL, "lr_wsd_decay_style": shape} for shape in ("linear", "exponential", "minus_sqrt")),
]


def assert_resumes_exactly_at_every_split_point(build, **changes):
    whole = opt_param_scheduler(build(), **changes)
    states, values = [], []
    for _ in range(120):
        states.append(whole.state_dict())
        values.append((held(whole), held(whole, "weight_decay")))
        whole.step()
    for k, state in enumerate(states):
        resumed = opt_param_scheduler(build(), **changes)
        resumed.load_state_dict(state)
        for expected in values[k : k + 3]:
            assert expected == (held(resumed), held(resumed, "weight_decay"))
            resumed.step()


@pytest.mark.parametrize(
    "changes", STYLES, ids=lambda changes: "-".join(map(str, changes.values()))
)
def test_a_resume_of_each_style_is_exact_at_every_split_point(changes):
    assert_resumes_exactly_at_every_split_point(adamw, **changes)


@FLOAT_AND_TENSOR_LR
def test_a_resume_is_exact_at_every_split_point(build):
    assert_resumes_exactly_at_every_split_point(
        build, **TAIL, lr_wsd_decay_style="cosine", wd_incr_style="cosine"
    )


def test_loading_twice_is_loading_once():
    state = at(60).state_dict()
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict(state)
    once = scheduler.state_dict(), held(scheduler), held(scheduler, "weight_decay")
    scheduler.load_state_dict(state)
    assert once == (scheduler.state_dict(), held(scheduler), held(scheduler, "weight_decay"))


def test_a_second_load_sees_the_config_that_the_constructor_was_given():
    saved = at(60, max_lr=0.5).state_dict()
    scheduler = opt_param_scheduler()
    for _ in range(2):
        scheduler.load_state_dict(saved)
        (row,) = scheduler.last_reconciliation.changed
        assert ("max_lr", 1.0, 0.5, 0.5) == (row.name, row.config, row.checkpoint, row.used)


def test_a_rollback_over_a_running_scheduler_is_exact():
    scheduler = opt_param_scheduler()
    scheduler.step(60)
    state, values = scheduler.state_dict(), (held(scheduler), held(scheduler, "weight_decay"))
    scheduler.step(33)
    scheduler.load_state_dict(state)
    assert (60, values) == (scheduler.num_steps, (held(scheduler), held(scheduler, "weight_decay")))


def test_the_first_update_after_a_resume_has_the_checkpoints_lr_and_weight_decay():
    state = at(50, end_wd=0.4, max_lr=0.5).state_dict()
    scheduler = opt_param_scheduler(end_wd=0.9)
    scheduler.load_state_dict(state)
    assert ([pytest.approx(0.34)], [pytest.approx(0.2)]) == (
        held(scheduler),
        held(scheduler, "weight_decay"),
    )


BAD_STATES = {
    "not a dict": lambda _: ["max_lr"],
    "none": lambda _: None,
    "empty": lambda _: {},
    "no position": lambda s: without(s, "num_steps"),
    "no peak": lambda s: without(s, "max_lr"),
    "no style": lambda s: without(s, "wd_incr_style"),
    "position nan": lambda s: {**s, "num_steps": float("nan")},
    "position negative": lambda s: {**s, "num_steps": -1},
    "position fractional": lambda s: {**s, "num_steps": 5.5},
    "position bool": lambda s: {**s, "num_steps": True},
    "position text": lambda s: {**s, "num_steps": "60"},
    "position huge": lambda s: {**s, "num_steps": 2**60},
    "peak nan": lambda s: {**s, "max_lr": float("nan")},
    "peak negative": lambda s: {**s, "max_lr": -1.0},
    "peak text": lambda s: {**s, "max_lr": "1.0"},
    "length huge": lambda s: {**s, "lr_decay_steps": 10**30},
    "unknown style": lambda s: {**s, "lr_decay_style": "cos"},
    "text is no text": lambda s: {**s, "dist_sched": 3},
    "text is no json": lambda s: {**s, "dist_sched": "{"},
    "text is deep": lambda s: {**s, "dist_sched": "[" * 10**5},
    "text is a list": lambda s: {**s, "dist_sched": "[]"},
    "text has nan": lambda s: {**s, "dist_sched": s["dist_sched"].replace("0.1", "NaN")},
    "text has inf": lambda s: {**s, "dist_sched": s["dist_sched"].replace("0.1", "1e999")},
    "newer version": lambda s: edit(s, version=3),
    "no version": lambda s: edit(s, version=None),
    "version 0": lambda s: edit(s, version=0),
    "version true": lambda s: edit(s, version=True),
    "unknown part": lambda s: edit(s, extra=1),
    "unknown unit": lambda s: edit(s, unit="batches"),
    "illegal late change": lambda s: edit(s, lineage=[{"operation": "cooldown"}]),
    "config is no object": lambda s: edit(s, config=[]),
    "position in text negative": lambda s: edit(s, position=-1),
    "position in text text": lambda s: edit(s, position="60"),
    "unknown entry": lambda s: edit_config(s, lr_foo=1),
    "entry of wrong type": lambda s: edit_config(s, max_lr=[1.0]),
    "entry null": lambda s: edit_config(s, max_lr=None),
    "entry negative": lambda s: edit_config(s, wsd_decay_steps=-3),
    "duplicate": lambda s: {
        **s,
        "dist_sched": s["dist_sched"].replace("{", '{"unit": "steps", ', 1),
    },
}


KEYS = {
    "no position": "num_steps",
    "position huge": "num_steps",
    "no peak": "max_lr",
    "peak nan": "max_lr",
    "unknown style": "lr_decay_style",
    "newer version": "dist_sched.*version 3.*upgrade",
    "unknown part": "dist_sched.extra",
    "unknown entry": "dist_sched.config.lr_foo",
    "illegal late change": r"dist_sched.lineage\[0\]",
    "unknown unit": "dist_sched.unit",
    "text is no json": "dist_sched",
    "entry null": "dist_sched.config.max_lr",
}


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


def edit(state, **changes):
    return with_text(state, {**text_of(state), **changes})


def edit_config(state, **changes):
    return edit(state, config={**text_of(state)["config"], **changes})


def everything(scheduler):
    return repr((scheduler.state_dict(), scheduler.last_reconciliation, contents(scheduler)))


@pytest.mark.parametrize("kind", BAD_STATES)
def test_a_bad_state_names_the_key_and_changes_nothing(kind):
    state = BAD_STATES[kind](at(60).state_dict())
    scheduler = at(7)
    before = everything(scheduler)
    with pytest.raises(StateError, match=KEYS.get(kind, "key '")):
        scheduler.load_state_dict(state)
    assert before == everything(scheduler)


def test_a_refused_reconciliation_changes_nothing():
    state = at(60, max_lr=0.5, min_lr=0.2).state_dict()
    scheduler = opt_param_scheduler(policy="strict")
    scheduler.step(7)
    before = everything(scheduler)
    with pytest.raises(ReconcileError, match=r"max_lr is 1.0 .* 0.5(.|\n)*min_lr is 0.1 .* 0.2"):
        scheduler.load_state_dict(state)
    assert before == everything(scheduler)


def test_a_load_onto_an_illegal_group_changes_nothing():
    state = at(60, max_lr=0.5).state_dict()
    scheduler = opt_param_scheduler(adamw({}, {}))
    scheduler.step(7)
    scheduler.optimizer.param_groups[1]["wd_mult"] = "none"
    before = everything(scheduler)
    with pytest.raises(ConfigError, match="group 1: wd_mult='none'"):
        scheduler.load_state_dict(state)
    assert before == everything(scheduler)


def test_a_load_at_another_position_than_the_trainers_is_refused():
    state = at(60).state_dict()
    scheduler = opt_param_scheduler()
    with pytest.raises(StateError, match=r"num_steps.* position is 60, but the trainer's is 61"):
        scheduler.load_state_dict(state, expected_position=61)
    assert 0 == scheduler.num_steps
    scheduler.load_state_dict(state, expected_position=60)
    assert 60 == scheduler.num_steps


def test_check_position_raises_unless_the_position_is_the_trainers():
    scheduler = at(60)
    scheduler.check_position(60)
    with pytest.raises(StateError, match="position is 60, but the trainer's is 59"):
        scheduler.check_position(59)


def test_check_and_set_resolves_one_entry_as_megatrons_does():
    assert 2 == opt_param_scheduler(policy="checkpoint")._check_and_set(1, 2, "max_lr")
    assert 1 == opt_param_scheduler(policy="config")._check_and_set(1, 2, "max_lr")
    strict = opt_param_scheduler(policy="strict")
    assert 1 == strict._check_and_set(1, 1, "learning rate")
    with pytest.raises(AssertionError, match="learning rate is 1 in the config and 2"):
        strict._check_and_set(1, 2, "learning rate")


def test_check_and_set_knows_megatrons_labels_of_the_entries():
    policy = {"max_lr": "config", "*": "checkpoint"}
    scheduler = opt_param_scheduler(policy=policy)
    assert 1 == scheduler._check_and_set(1, 2, "learning rate")
    assert 2 == scheduler._check_and_set(1, 2, "minimum learning rate")


def test_equal_config_and_checkpoint_log_one_line_at_info(caplog):
    state, scheduler = at(60).state_dict(), opt_param_scheduler()
    caplog.set_level(logging.DEBUG, logger="dist_sched")
    scheduler.load_state_dict(state)
    (record,) = caplog.records
    assert ("dist_sched", "INFO", 1) == (
        record.name,
        record.levelname,
        record.message.count("\n") + 1,
    )


def test_a_difference_is_logged_once_in_megatrons_words_and_as_a_table_for_debugging(caplog):
    state, scheduler = at(60, max_lr=0.5).state_dict(), opt_param_scheduler()
    caplog.set_level(logging.DEBUG, logger="dist_sched")
    scheduler.load_state_dict(state)
    warning, table = caplog.records
    assert ("WARNING", "DEBUG") == (warning.levelname, table.levelname)
    assert "using checkpoint value" in warning.message
    assert scheduler.last_reconciliation.table() in table.message


def test_a_state_torn_by_ranks_that_disagreed_is_mended_from_its_text(caplog):
    state = {**at(60).state_dict(), "num_steps": 61, "max_lr": 0.5}
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict(state)
    assert (60, 1.0) == (scheduler.num_steps, scheduler.max_lr)
    assert "inconsistent: max_lr, num_steps differ" in caplog.text


def test_a_torn_state_loaded_twice_is_loaded_once():
    torn = {**at(60).state_dict(), "num_steps": 61}
    scheduler = opt_param_scheduler()
    for _ in range(2):
        scheduler.load_state_dict(torn)
        assert 60 == scheduler.num_steps


def test_a_text_that_was_never_read_leaves_a_foreign_state(caplog):
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict({**scheduler.state_dict(), "num_steps": 60, "max_lr": 0.5})
    assert (60, 0.5) == (scheduler.num_steps, scheduler.max_lr)
    assert "has no text" in caplog.text


def test_a_state_equal_to_the_schedulers_own_at_position_0_is_loaded_with_a_warning(caplog):
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict(scheduler.state_dict())
    assert "nothing was read" in caplog.text


def test_unknown_keys_of_a_state_are_named(caplog):
    opt_param_scheduler().load_state_dict({**at(60).state_dict(), "epoch": 3})
    assert "unknown keys are ignored: epoch" in caplog.text


def test_units_that_differ_are_refused_under_every_policy():
    state = at(60, unit="tokens").state_dict()
    for policy in ("checkpoint", "config", "strict"):
        with pytest.raises(ReconcileError, match=r"unit is 'steps' .* 'tokens'"):
            opt_param_scheduler(policy=policy).load_state_dict(state)


def test_a_position_in_another_unit_is_relabelled_by_a_policy_and_saved_in_the_new_unit(caplog):
    scheduler = opt_param_scheduler(unit="samples", policy={"unit": "config"})
    scheduler.load_state_dict(at(60).state_dict())
    assert (60, [pytest.approx(0.55)]) == (scheduler.num_steps, scheduler.get_last_lr())
    assert "position 60 was saved in steps and is used as samples" in caplog.text
    opt_param_scheduler(unit="samples").load_state_dict(scheduler.state_dict())


def test_the_policys_word_for_the_unit_is_no_word_for_an_entry():
    assert opt_param_scheduler(policy={"unit": "config"}).use_checkpoint_opt_param_scheduler


def test_a_huge_illegal_value_is_shown_cut_short():
    state = {**at(60).state_dict(), "lr_decay_style": "x" * 10**6}
    with pytest.raises(StateError, match=r"lr_decay_style='xxx.*\.\.\.") as caught:
        opt_param_scheduler().load_state_dict(state)
    assert 1000 > len(str(caught.value))
