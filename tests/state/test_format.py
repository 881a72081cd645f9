"""The format: what a state says by itself, and to a scheduler of another kind."""

from __future__ import annotations

import pytest

from dist_sched import StateError, schedules
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._config.specification import Specification
from dist_sched._state.format import (
    DIST_SCHED,
    TEXT_KEY,
    UPSTREAM,
    Checkpoint,
    format_of,
    read,
    unpack,
)
from helpers import HILL, opt_param_scheduler, param_scheduler, saved_state, text_of, with_text


def test_a_state_is_read_as_the_kind_that_it_says():
    checkpoint = read(saved_state(24))
    assert (Specification, 24, DIST_SCHED) == (
        checkpoint.kind,
        checkpoint.position,
        checkpoint.format,
    )


def test_for_another_kind_the_position_and_the_values_remain():
    checkpoint = read(saved_state(24, {"lr": HILL})).for_kind(OptimizerParamConfig)
    assert (24, {}, ()) == (checkpoint.position, checkpoint.parts, checkpoint.history)
    assert {Path("lr"): HILL(24)} == checkpoint.values
    assert "only its position is used" in checkpoint.warnings[0]


def test_a_config_is_a_checkpoint_at_position_0():
    config = Specification.of({"lr": HILL})
    checkpoint = Checkpoint.of_config(config, "tokens")
    assert (0, "tokens", config) == (checkpoint.position, checkpoint.unit, checkpoint.config)


def test_another_warning_keeps_the_config_that_was_built():
    checkpoint = read(saved_state())
    assert checkpoint.config is checkpoint.replace(warnings=("odd",)).config


@pytest.mark.parametrize(
    "change",
    [
        {"fields": {}},
        {"fields": {"weight_decay": {"peak": 1.0, "to": "lr"}}},
        {"groups": {"a": {"momentum": 0.5}}},
    ],
)
def test_parts_that_do_not_fit_together_name_the_specification(change):
    state = saved_state()
    text = text_of(state)
    text["specification"].update(change)
    with pytest.raises(StateError, match=r"'dist_sched\.specification\.fields'"):
        read(with_text(state, text))


def test_plain_keys_of_another_kind_may_be_missing():
    state = opt_param_scheduler().state_dict()
    target = {key: state[key] for key in param_scheduler().state_dict()}
    assert "only its position is used" in unpack(target, Specification).warnings[0]


def extended(position):
    """Return the state of a WSD schedule, stable up to 80, that was extended at a position."""
    scheduler = param_scheduler(fields={"lr": schedules.wsd(1.0, 100, decay=20)})
    scheduler.seek(position)
    scheduler.extend(200)
    return scheduler.state_dict()


@pytest.mark.parametrize("position, version", [(79, 1), (80, 2)])
def test_a_state_is_of_the_lowest_version_that_can_express_it(position, version):
    text = text_of(extended(position))
    arguments = {"field": "lr", "horizon": 200}
    expected = arguments if version == 1 else {**arguments, "lengthen": "stable"}
    assert (version, expected) == (text["version"], text["lineage"][0]["arguments"])


def test_a_state_of_version_2_is_saved_again_as_it_was():
    state, scheduler = extended(80), param_scheduler()
    scheduler.load_state_dict(state)
    assert state == scheduler.state_dict()
    scheduler.seek(180)
    assert [1.0] == scheduler.get_last_lr()


def test_an_argument_of_version_2_in_a_text_of_version_1_is_refused():
    state = extended(80)
    text = {**text_of(state), "version": 1}
    with pytest.raises(StateError, match=r"lineage\[0\]' .*needs version 2, but its text has"):
        read(with_text(state, text))


def test_a_text_of_version_2_may_have_nothing_new():
    state = extended(79)
    assert 1 == len(read(with_text(state, {**text_of(state), "version": 2})).history)


def test_version_2_does_not_know_other_entries_either():
    state = extended(80)
    with pytest.raises(StateError, match="is not a key of version 2"):
        read(with_text(state, {**text_of(state), "extra": 1}))


@pytest.mark.parametrize("state", [[1], "checkpoints/7", {}], ids=repr)
def test_what_is_no_state_is_refused_under_the_name_state(state):
    with pytest.raises(
        StateError, match=r"^key 'state' of the checkpoint state (must be|is empty)"
    ):
        read(state)


def test_a_text_that_is_nested_too_deeply_is_refused():
    state = saved_state()
    state[TEXT_KEY] = "[" * 200 + "]" * 200
    with pytest.raises(StateError, match="is nested deeper than"):
        read(state)


@pytest.mark.parametrize("position", ["num_steps", "num_iters"])
@pytest.mark.parametrize("peak", ["max_lr", "start_lr"])
def test_upstreams_states_are_recognised_by_old_and_new_names(position, peak):
    assert UPSTREAM == format_of([position, peak])
    assert None is format_of([position])
