"""What a caller sees of `OptimizerParamScheduler` in one process, with float and with tensor lr."""

from __future__ import annotations

import copy
import gc
import io
import json
import logging
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.stateful import Stateful

from dist_sched import ConfigError, OptimizerParamScheduler, ReconcileError, StateError

WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 20}

# Peak 1.0, floor 0.1, warmup 10 from 0, horizon 110; by hand, for each style, at positions:
POSITIONS = [0, 1, 9, 10, 11, 35, 60, 90, 91, 95, 109, 110, 111, 10**9]
TABLE = {
    "constant": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    "linear": [0, 0.1, 0.9, 1, 0.991, 0.775, 0.55, 0.28, 0.271, 0.235, 0.109, 0.1, 0.1, 0.1],
    "cosine": [0, 0.1, 0.9, 1, 0.9997779521645792, 0.8681980515339464, 0.55]
    + [0.18594235253127367, 0.17781374157644717, 0.14904706411523447, 0.1002220478354208]
    + [0.1, 0.1, 0.1],
    "inverse-square-root": [0, 0.1, 0.9, 1, 0.9534625892455924, 0.5345224838248488]
    + [0.408248290463863, 1 / 3, 0.33149677206589795, 0.3244428422615251, 0.3028912664076913]
    + [0.30151134457776363, 0.1, 0.1],
    "linear tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.955, 0.775, 0.145, 0.1, 0.1, 0.1],
    "cosine tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.994459753267812, 0.8681980515339464]
    + [0.10554024673218802, 0.1, 0.1, 0.1],
    "exponential tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.938685392064722, 0.7136135474566861]
    + [0.13173843145723976, 0.1, 0.1, 0.1],
    "minus_sqrt tail": [0, 0.1, 0.9, 1, 1, 1, 1, 1, 0.798753882025019, 0.55]
    + [0.12278850896719325, 0.1, 0.1, 0.1],
}


def lrs(scheduler):
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]


def wds(scheduler):
    return [float(group["weight_decay"]) for group in scheduler.optimizer.param_groups]


def changes_for(style):
    tail = style.removesuffix(" tail")
    return {**WSD, "lr_wsd_decay_style": tail} if tail != style else {"lr_decay_style": style}


@pytest.mark.parametrize("style", TABLE)
def test_each_style_has_the_values_of_a_table_made_by_hand(workshop, style):
    scheduler = workshop.scheduler(**changes_for(style))
    found = []
    for position in POSITIONS:
        scheduler.seek(position)
        found += scheduler.get_last_lr()
        assert lrs(scheduler) == [workshop.held(found[-1])]
    assert TABLE[style] == pytest.approx(found, rel=1e-13, abs=0)


@pytest.mark.parametrize(
    "style, expected",
    [
        ("linear", [0, 0.001, 0.05, 0.1, 0.1]),
        ("cosine", [0, 2.467198171342215e-05, 0.05, 0.1, 0.1]),
        ("constant", [0.1] * 5),
    ],
)
def test_weight_decay_has_the_values_of_a_table_made_by_hand(workshop, style, expected):
    start = 0.1 if style == "constant" else 0.0
    scheduler = workshop.scheduler(wd_incr_style=style, start_wd=start)
    found = []
    for position in (0, 1, 50, 100, 101):
        scheduler.seek(position)
        found += wds(scheduler)
    assert expected == pytest.approx(found, rel=1e-11, abs=0)


def test_the_kth_update_uses_the_value_at_k_minus_1(workshop):
    optimizer = workshop.optimizer({}, lr=123.0)
    scheduler = workshop.scheduler(optimizer)
    used = []
    for _ in range(3):
        used += lrs(scheduler)
        optimizer.step()
        scheduler.step()
    assert [0.0, workshop.held(0.1), workshop.held(0.2)] == used


def test_a_step_is_relative_and_a_seek_absolute(workshop):
    scheduler = workshop.scheduler()
    scheduler.step(5)
    scheduler.step(increment=0)
    scheduler.step()
    assert 6 == scheduler.num_steps
    scheduler.seek(2)
    assert (2, [workshop.held(0.2)]) == (scheduler.num_steps, lrs(scheduler))


def test_assigning_num_steps_is_a_seek(workshop):
    scheduler = workshop.scheduler()
    scheduler.num_steps = 60
    assert (60, [workshop.held(0.55)]) == (scheduler.num_steps, lrs(scheduler))
    scheduler.num_steps += 50
    assert [workshop.held(0.1)] == lrs(scheduler)


@pytest.mark.parametrize("many", [np.int64(3), torch.tensor(3)], ids=repr)
def test_an_increment_of_another_library_is_stored_as_an_int(workshop, many):
    scheduler = workshop.scheduler()
    scheduler.step(many)
    assert (3, int) == (scheduler.num_steps, type(scheduler.num_steps))


@pytest.mark.parametrize("method", ["step", "seek"])
@pytest.mark.parametrize("bad", [-1, 1.0, 0.5, "1", None, True, 2**53 + 1, float("nan")], ids=repr)
def test_an_illegal_increment_or_position_is_refused_and_nothing_changed(workshop, method, bad):
    scheduler = workshop.scheduler()
    scheduler.step(5)
    with pytest.raises(ConfigError, match=r"(increment|position)="):
        getattr(scheduler, method)(bad)
    assert (5, [0.5]) == (scheduler.num_steps, lrs(scheduler))


def test_a_step_past_2_to_the_53_is_refused(workshop):
    scheduler = workshop.scheduler()
    scheduler.seek(2**53)
    with pytest.raises(ConfigError, match="position=9007199254740993"):
        scheduler.step()
    assert 2**53 == scheduler.num_steps


def test_the_seeds_attributes_are_readable(workshop):
    scheduler = workshop.scheduler()
    found = [scheduler.init_lr, scheduler.max_lr, scheduler.min_lr, scheduler.lr_warmup_steps]
    found += [scheduler.lr_decay_steps, scheduler.lr_decay_style, scheduler.start_wd]
    found += [scheduler.end_wd, scheduler.wd_incr_steps, scheduler.wd_incr_style]
    found += [scheduler.wsd_decay_steps, scheduler.lr_wsd_decay_style, scheduler.num_steps]
    assert [0.0, 1.0, 0.1, 10, 110, "linear", 0.0, 0.1, 100, "linear", None, None, 0] == found
    assert scheduler.use_checkpoint_opt_param_scheduler
    assert not scheduler.override_opt_param_scheduler


def test_an_entry_cannot_be_assigned_in_mid_run(workshop):
    scheduler = workshop.scheduler()
    with pytest.raises(AttributeError, match="max_lr cannot be assigned"):
        scheduler.max_lr = 3.0


def test_repr_shows_the_whole_schedule_and_the_position(workshop):
    scheduler = workshop.scheduler()
    scheduler.step(60)
    shown = repr(scheduler)
    assert "position: 60 steps" in shown
    assert all(
        f"{name}: {value!r}" in shown for name, value in scheduler._agreed.effective.parts().items()
    )
    assert "next lr: 0.55\n" in shown
    assert "next weight_decay: 0.06" in shown


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"unit": "batches"}, "unit='batches': must be one of 'steps', 'samples', 'tokens'"),
        ({"keep_group_ratios": "no"}, "keep_group_ratios='no'"),
        ({"policy": "mine"}, "policy='mine'"),
        ({"max_lr": -1}, "max_lr=-1"),
    ],
)
def test_an_illegal_argument_is_refused_before_a_group_has_changed(workshop, changes, message):
    optimizer = workshop.optimizer(lr=0.25)
    with pytest.raises(ConfigError, match=message):
        workshop.scheduler(optimizer, **changes)
    assert 0.25 == float(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("bad", [None, 3, "adam", [], [None], {}, object()], ids=repr)
def test_what_is_no_optimizer_is_refused(workshop, bad):
    with pytest.raises(ConfigError, match="optimizer"):
        OptimizerParamScheduler(bad, **workshop_config(workshop))


def workshop_config(workshop):
    return workshop.scheduler()._agreed.effective.parts()


def test_the_scheduler_is_stateful(workshop):
    assert isinstance(workshop.scheduler(), Stateful)


def test_state_is_fresh_primitives_that_survive_json_and_weights_only(workshop):
    scheduler = workshop.scheduler(max_lr=np.float64(1.0), lr_warmup_steps=torch.tensor(10))
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


def test_state_is_free_of_group_and_optimizer_counts(workshop):
    one = workshop.scheduler()
    many = workshop.scheduler([workshop.optimizer({}, {"lr": 2.0}), workshop.optimizer()])
    assert one.state_dict() == many.state_dict()


@pytest.mark.parametrize("style", TABLE)
def test_a_resume_is_exact_at_every_split_point(workshop, style):
    changes = changes_for(style)
    whole = workshop.scheduler(**changes)
    states, values = [], []
    for _ in range(120):
        states.append(whole.state_dict())
        values.append((lrs(whole), wds(whole)))
        whole.step()
    for k, state in enumerate(states):
        resumed = workshop.scheduler(**changes)
        resumed.load_state_dict(state)
        for expected in values[k : k + 3]:
            assert expected == (lrs(resumed), wds(resumed))
            resumed.step()


def test_loading_twice_is_loading_once(workshop):
    state = at(workshop, 60).state_dict()
    scheduler = workshop.scheduler()
    scheduler.load_state_dict(state)
    once = scheduler.state_dict(), lrs(scheduler), wds(scheduler)
    scheduler.load_state_dict(state)
    assert once == (scheduler.state_dict(), lrs(scheduler), wds(scheduler))


def test_a_second_load_sees_the_config_that_the_constructor_was_given(workshop):
    theirs = at(workshop, 60, max_lr=0.5).state_dict()
    scheduler = workshop.scheduler()
    for _ in range(2):
        scheduler.load_state_dict(theirs)
        (row,) = scheduler.last_reconciliation.changed
        assert ("max_lr", 1.0, 0.5, 0.5) == (row.name, row.config, row.checkpoint, row.used)


def test_a_rollback_over_a_running_scheduler_is_exact(workshop):
    scheduler = workshop.scheduler()
    scheduler.step(60)
    state, values = scheduler.state_dict(), (lrs(scheduler), wds(scheduler))
    scheduler.step(33)
    scheduler.load_state_dict(state)
    assert (60, values) == (scheduler.num_steps, (lrs(scheduler), wds(scheduler)))


def test_the_first_update_after_a_resume_has_the_checkpoints_lr_and_weight_decay(workshop):
    state = at(workshop, 50, end_wd=0.4, max_lr=0.5).state_dict()
    scheduler = workshop.scheduler(end_wd=0.9)
    scheduler.load_state_dict(state)
    assert ([pytest.approx(0.34)], [pytest.approx(0.2)]) == (lrs(scheduler), wds(scheduler))


def at(workshop, position, **changes):
    scheduler = workshop.scheduler(**changes)
    scheduler.step(position)
    return scheduler


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
    "newer version": lambda s: edit(s, version=2),
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
    "newer version": "dist_sched.*version 2.*upgrade",
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
    text = {**json.loads(state["dist_sched"]), **changes}
    return {**state, "dist_sched": json.dumps(text)}


def edit_config(state, **changes):
    return edit(state, config={**json.loads(state["dist_sched"])["config"], **changes})


def everything(scheduler):
    groups = [dict(group) for group in scheduler.optimizer.param_groups]
    return repr((scheduler.state_dict(), scheduler.last_reconciliation, groups))


@pytest.mark.parametrize("kind", BAD_STATES)
def test_a_bad_state_names_the_key_and_changes_nothing(workshop, kind):
    state = BAD_STATES[kind](at(workshop, 60).state_dict())
    scheduler = at(workshop, 7)
    before = everything(scheduler)
    with pytest.raises(StateError, match=KEYS.get(kind, "key '")):
        scheduler.load_state_dict(state)
    assert before == everything(scheduler)


def test_a_refused_reconciliation_changes_nothing(workshop):
    state = at(workshop, 60, max_lr=0.5, min_lr=0.2).state_dict()
    scheduler = workshop.scheduler(policy="strict")
    scheduler.step(7)
    before = everything(scheduler)
    with pytest.raises(ReconcileError, match=r"max_lr is 1.0 .* 0.5(.|\n)*min_lr is 0.1 .* 0.2"):
        scheduler.load_state_dict(state)
    assert before == everything(scheduler)


def test_a_load_onto_an_illegal_group_changes_nothing(workshop):
    state = at(workshop, 60, max_lr=0.5).state_dict()
    scheduler = workshop.scheduler(workshop.optimizer({}, {}))
    scheduler.step(7)
    scheduler.optimizer.param_groups[1]["wd_mult"] = "none"
    before = everything(scheduler)
    with pytest.raises(ConfigError, match="group 1: wd_mult='none'"):
        scheduler.load_state_dict(state)
    assert before == everything(scheduler)


def test_a_load_at_another_position_than_the_trainers_is_refused(workshop):
    state = at(workshop, 60).state_dict()
    scheduler = workshop.scheduler()
    with pytest.raises(StateError, match=r"num_steps.* position is 60, the trainer's is 61"):
        scheduler.load_state_dict(state, expected_position=61)
    assert 0 == scheduler.num_steps
    scheduler.load_state_dict(state, expected_position=60)
    assert 60 == scheduler.num_steps


def test_check_position_raises_unless_the_position_is_the_trainers(workshop):
    scheduler = at(workshop, 60)
    scheduler.check_position(60)
    with pytest.raises(StateError, match="position is 60, the trainer's is 59"):
        scheduler.check_position(59)


def test_check_and_set_settles_one_entry_as_the_seeds_do(workshop):
    assert 2 == workshop.scheduler(policy="checkpoint")._check_and_set(1, 2, "max_lr")
    assert 1 == workshop.scheduler(policy="config")._check_and_set(1, 2, "max_lr")
    strict = workshop.scheduler(policy="strict")
    assert 1 == strict._check_and_set(1, 1, "learning rate")
    with pytest.raises(AssertionError, match="learning rate is 1 in the config and 2"):
        strict._check_and_set(1, 2, "learning rate")


def test_equal_config_and_checkpoint_log_one_line_at_info(workshop, caplog):
    caplog.set_level(logging.DEBUG, logger="dist_sched")
    state = at(workshop, 60).state_dict()
    workshop.scheduler().load_state_dict(state)
    (record,) = caplog.records
    assert ("dist_sched", "INFO", 1) == (
        record.name,
        record.levelname,
        record.message.count("\n") + 1,
    )


def test_a_difference_is_logged_once_with_the_seeds_phrase(workshop, caplog):
    caplog.set_level(logging.DEBUG, logger="dist_sched")
    workshop.scheduler().load_state_dict(at(workshop, 60, max_lr=0.5).state_dict())
    (record,) = caplog.records
    assert "WARNING" == record.levelname
    assert "using checkpoint value" in record.message


def test_a_state_torn_by_ranks_that_disagreed_is_mended_from_its_text(workshop, caplog):
    state = {**at(workshop, 60).state_dict(), "num_steps": 61, "max_lr": 0.5}
    scheduler = workshop.scheduler()
    scheduler.load_state_dict(state)
    assert (60, 1.0) == (scheduler.num_steps, scheduler.max_lr)
    assert "torn: max_lr, num_steps differ" in caplog.text


def test_a_text_that_was_never_read_leaves_a_foreign_state(workshop, caplog):
    scheduler = workshop.scheduler()
    scheduler.load_state_dict({**scheduler.state_dict(), "num_steps": 60, "max_lr": 0.5})
    assert (60, 0.5) == (scheduler.num_steps, scheduler.max_lr)
    assert "never read" in caplog.text


def test_a_state_equal_to_the_schedulers_own_at_position_0_is_loaded_with_a_warning(
    workshop, caplog
):
    scheduler = workshop.scheduler()
    scheduler.load_state_dict(scheduler.state_dict())
    assert "nothing was read" in caplog.text


def test_unknown_keys_of_a_state_are_named(workshop, caplog):
    workshop.scheduler().load_state_dict({**at(workshop, 60).state_dict(), "epoch": 3})
    assert "unknown keys are ignored: epoch" in caplog.text


def test_units_that_differ_are_refused_under_every_policy(workshop):
    state = at(workshop, 60, unit="tokens").state_dict()
    for policy in ("checkpoint", "config", "strict"):
        with pytest.raises(ReconcileError, match=r"unit is 'steps' .* 'tokens'"):
            workshop.scheduler(policy=policy).load_state_dict(state)


def test_the_scheduler_is_freed_while_its_optimizer_lives_on(workshop):
    optimizer = workshop.optimizer()
    scheduler = workshop.scheduler(optimizer)
    reference = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert reference() is None
    optimizer.load_state_dict(optimizer.state_dict())


def test_an_optimizer_with_a_scheduler_can_be_copied_and_pickled(workshop):
    optimizer = workshop.optimizer()
    scheduler = workshop.scheduler(optimizer)
    copied = copy.deepcopy(optimizer)
    copied.load_state_dict(optimizer.state_dict())
    assert pickle.loads(pickle.dumps(optimizer)).param_groups[0]["weight_decay"] == 0.0  # noqa: S301
    scheduler.step(5)
    assert 0.0 == float(copied.param_groups[0]["lr"])


def test_a_torn_state_loaded_twice_is_loaded_once(workshop):
    torn = {**at(workshop, 60).state_dict(), "num_steps": 61}
    scheduler = workshop.scheduler()
    for _ in range(2):
        scheduler.load_state_dict(torn)
        assert 60 == scheduler.num_steps


def test_a_huge_illegal_value_is_shown_cut_short(workshop):
    state = {**at(workshop, 60).state_dict(), "lr_decay_style": "x" * 10**6}
    with pytest.raises(StateError, match=r"lr_decay_style='xxx.*\.\.\.") as caught:
        workshop.scheduler().load_state_dict(state)
    assert 1000 > len(str(caught.value))


def test_check_and_set_knows_the_seeds_labels_of_the_entries(workshop):
    policy = {"max_lr": "config", "*": "checkpoint"}
    scheduler = workshop.scheduler(policy=policy)
    assert 1 == scheduler._check_and_set(1, 2, "learning rate")
    assert 2 == scheduler._check_and_set(1, 2, "minimum learning rate")


def test_what_is_no_process_group_is_refused_at_construction(workshop):
    with pytest.raises(ConfigError, match="process_group='dp': must be a ProcessGroup"):
        workshop.scheduler(process_group="dp")
