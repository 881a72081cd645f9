"""The format: what a state says by itself, and to a scheduler of another kind."""

from __future__ import annotations

import json
import pathlib
import types

import pytest
import torch

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
    pack,
    parse,
    read,
    to_upstream,
    unpack,
)
from helpers import (
    CONFIG,
    HILL,
    opt_param_scheduler,
    param_scheduler,
    saved_state,
    state_at,
    text_of,
    with_text,
)


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


def plain_keys(position=60, **changes):
    """Return the ten keys of Megatron-LM, as it saves them."""
    state = state_at(position, **changes)
    return {key: value for key, value in state.items() if key != TEXT_KEY}


def rewritten(**changes):
    """Return the state of a ParamScheduler at 24 with other values in its text."""
    state = saved_state()
    return with_text(state, {**text_of(state), **changes})


def refusal(state, *arguments):
    """Return the message with which a state is refused."""
    with pytest.raises(StateError) as caught:
        read(state, *arguments)
    return str(caught.value)


COOLED = {
    "position": 24,
    "operation": "cooldown",
    "arguments": {"field": "lr", "steps": 8, "shape": "linear", "end": 0.0},
}


def test_the_formats_are_named_after_the_libraries():
    assert "dist_sched" == read(saved_state()).format
    assert "OptimizerParamScheduler" == read(plain_keys()).format


@pytest.mark.parametrize(
    "old, name",
    [
        ("start_lr", "max_lr"),
        ("warmup_iter", "lr_warmup_steps"),
        ("warmup_steps", "lr_warmup_steps"),
        ("end_iter", "lr_decay_steps"),
        ("decay_steps", "lr_decay_steps"),
        ("decay_style", "lr_decay_style"),
        ("num_iters", "num_steps"),
    ],
)
def test_a_key_of_an_older_megatron_is_read_as_its_present_name(old, name):
    state = plain_keys()
    renamed = {old if key == name else key: value for key, value in state.items()}
    assert read(state) == read(renamed)


def test_an_old_and_a_new_name_must_agree():
    state = plain_keys()
    assert 1.0 == read({**state, "start_lr": 1.0}).parts["max_lr"]
    expected = (
        "key 'start_lr' of the checkpoint state is 0.5, but max_lr, its newer name, is 1.0; "
        "remove one"
    )
    assert expected == refusal({**state, "start_lr": 0.5})


WD_KEYS = ["start_wd", "end_wd", "wd_incr_style", "wd_incr_steps"]


@pytest.mark.parametrize("key", WD_KEYS)
def test_the_keys_of_weight_decay_are_missing_all_or_none(key):
    state = plain_keys()
    del state[key]
    text = f"key '{key}' of the checkpoint state is missing (all missing keys: {key})"
    assert text == refusal(state)


def test_the_oldest_states_have_no_weight_decay():
    state = {key: value for key, value in plain_keys().items() if key not in WD_KEYS}
    checkpoint = read(state)
    assert ({"max_lr", "min_lr"}, 60) == (
        checkpoint.parts.keys() - {key for key in CONFIG if key.startswith("lr_")},
        checkpoint.position,
    )
    assert checkpoint.config is None is checkpoint.effective


def test_all_keys_that_a_state_lacks_are_named():
    state = plain_keys()
    del state["max_lr"], state["min_lr"]
    state["start_lr"] = 1.0
    del state["lr_decay_steps"]
    expected = (
        "key 'lr_decay_steps' of the checkpoint state is missing "
        "(all missing keys: lr_decay_steps, min_lr)"
    )
    assert expected == refusal(state)


def test_plain_keys_are_a_checkpoint_of_upstream():
    checkpoint = read(plain_keys())
    assert (UPSTREAM, OptimizerParamConfig, 60, None, None) == (
        checkpoint.format,
        checkpoint.kind,
        checkpoint.position,
        checkpoint.unit,
        checkpoint.text,
    )
    (warning,) = checkpoint.warnings
    assert "do not save the unit of the position" in warning


def test_the_value_of_a_plain_key_that_is_not_legal_is_named_with_its_key():
    assert (
        "key 'start_lr' of the checkpoint state: max_lr=-1.0: must be a finite number >= 0"
        == refusal({**plain_keys(), "start_lr": -1.0})
    )


def test_unknown_keys_are_named_once_each_and_cut_short():
    state = {**plain_keys(), "epoch": 3, 7: 1, "x" * 300: 2}
    ignored = read(state).warnings[0]
    assert f"unknown keys are ignored: epoch, 7, {'x' * 190}..." == ignored


def test_of_very_many_unknown_keys_the_first_are_looked_at():
    state = {**plain_keys(), **{f"{index}": 0 for index in range(300)}}
    assert read(state).warnings[0].startswith("unknown keys are ignored: 0, 1, 2, ")


def test_a_state_that_has_a_text_has_no_unknown_keys():
    assert () == read(state_at(60)).warnings
    assert () == read(saved_state()).warnings


def test_a_saved_config_is_built_once_and_kept_by_a_copy_of_the_same_parts():
    checkpoint = read(rewritten(lineage=[COOLED]))
    config, effective = checkpoint.config, checkpoint.effective
    other = checkpoint.replace(warnings=("odd",))
    assert config is other.config
    assert effective is other.effective
    assert config != effective


@pytest.mark.parametrize("name", ["kind", "parts", "history"])
def test_a_copy_with_other_parts_builds_its_config_anew(name):
    checkpoint = read(rewritten(lineage=[COOLED]))
    before = checkpoint.config, checkpoint.effective
    other = checkpoint.replace(**{name: getattr(checkpoint, name)})
    assert before == (other.config, other.effective)
    assert before[0] is not other.config
    assert before[1] is not other.effective


def test_parts_that_are_no_config_have_none():
    parts = {**CONFIG, "min_lr": 2.0}
    checkpoint = Checkpoint(kind=OptimizerParamConfig, parts=parts, position=0, unit=None)
    assert checkpoint.config is None is checkpoint.effective
    legal = Checkpoint(kind=OptimizerParamConfig, parts=CONFIG, position=0, unit=None)
    assert OptimizerParamConfig(**CONFIG) == legal.config == legal.effective


def test_for_another_kind_the_values_are_those_after_late_changes():
    state = {**rewritten(position=28, lineage=[COOLED]), "num_steps": 28}
    checkpoint = read(state).for_kind(OptimizerParamConfig)
    assert {Path("lr"): 0.375} == checkpoint.values
    assert ((), (), OptimizerParamConfig) == (
        checkpoint.history,
        checkpoint.torn,
        checkpoint.kind,
    )
    (warning,) = checkpoint.warnings
    assert (
        "the state was saved by ParamScheduler: only its position is used, and the curve is "
        "the config's (OptimizerParamScheduler)" == warning
    )


def test_for_its_own_kind_a_checkpoint_is_itself():
    checkpoint = read(saved_state())
    assert checkpoint is checkpoint.for_kind(Specification)


def test_for_another_kind_parts_that_are_no_config_have_no_values():
    state = {key: value for key, value in plain_keys().items() if key not in WD_KEYS}
    assert {} == read(state).for_kind(Specification).values


def test_for_another_kind_another_librarys_state_keeps_its_values_and_its_warning():
    state = {"last_epoch": 7, "base_lrs": [1.0], "_last_lr": [0.5], "_step_count": 8}
    checkpoint = read(state)
    other = checkpoint.for_kind(Specification)
    assert {Path("lr"): 0.5} == checkpoint.values == other.values
    assert checkpoint.warnings == other.warnings
    assert ("torch LRScheduler", OptimizerParamConfig, 7, None) == (
        checkpoint.format,
        checkpoint.kind,
        checkpoint.position,
        checkpoint.unit,
    )


def test_a_state_has_the_keys_of_megatron_and_one_text():
    config = OptimizerParamConfig(**CONFIG)
    state = pack(config, 60, "tokens")
    assert {*CONFIG, "num_steps", "dist_sched"} - {"init_lr"} == state.keys()
    assert 60 == state["num_steps"]
    assert {
        "version": 1,
        "unit": "tokens",
        "position": 60,
        "config": config.to_dict(),
        "lineage": [],
    } == text_of(state)


def test_the_plain_keys_of_a_state_are_those_after_late_changes():
    scheduler = opt_param_scheduler(lr_decay_style="constant")
    scheduler.seek(60)
    scheduler.extend(500)
    state = scheduler.state_dict()
    assert (500, 110) == (state["lr_decay_steps"], text_of(state)["config"]["lr_decay_steps"])
    assert () == read(state).torn


def test_keys_that_differ_from_the_text_after_late_changes_are_torn():
    scheduler = opt_param_scheduler(lr_decay_style="constant")
    scheduler.seek(60)
    scheduler.extend(500)
    state = {**scheduler.state_dict(), "lr_decay_steps": 110}
    assert ("lr_decay_steps",) == read(state).torn


@pytest.mark.parametrize("path", ["checkpoints/7", pathlib.Path("checkpoints/7")])
def test_for_a_path_the_function_that_loads_it_is_named(path):
    advice = r"dict, not \w+; use dist_sched.checkpoint.load\(scheduler, path\) to load from a path"
    with pytest.raises(StateError, match=advice):
        read(path)


def test_what_is_neither_a_state_nor_a_path_is_named_by_its_type():
    assert "key 'state' of the checkpoint state must be a dict, not list" == refusal([1])


def test_any_mapping_is_a_state():
    assert read(saved_state()) == read(types.MappingProxyType(saved_state()))


@pytest.mark.parametrize(
    "state, words",
    [
        ({"param_groups": [], "state": {}}, "is an optimizer's (it has 'param_groups'); pass the"),
        ({"step": 1, "weight": torch.ones(2)}, "is a model's (it has tensors); pass"),
        ({"a": 1, "lr": saved_state()}, "a whole checkpoint; pass its value of 'lr', or use"),
        ({"sched": {"last_epoch": 3}}, "a whole checkpoint; pass its value of 'sched', or use"),
        ({"a": {"num_steps": 3}}, "'dist_sched' of the checkpoint state is missing"),
        ({"a": types.SimpleNamespace(dtype=1)}, "'dist_sched' of the checkpoint state is missing"),
        ({"a": types.SimpleNamespace(shape=1)}, "'dist_sched' of the checkpoint state is missing"),
    ],
    ids=["optimizer", "model", "checkpoint", "torchtitan", "count", "dtype", "shape"],
)
def test_what_is_no_schedulers_state_is_named(state, words):
    assert words in refusal(state, Specification)


def test_without_a_text_a_state_of_param_scheduler_names_its_kind():
    assert (
        "key 'dist_sched' of the checkpoint state is missing; check that the state was saved by "
        "ParamScheduler" == refusal({"num_steps": 5}, Specification)
    )


@pytest.mark.parametrize("kind", [None, OptimizerParamConfig])
def test_without_a_text_all_keys_of_megatron_are_needed(kind):
    assert "key 'max_lr' of the checkpoint state is missing (all" in refusal({"num_steps": 5}, kind)


def test_plain_keys_are_read_for_either_kind():
    assert 60 == read(plain_keys(), Specification).position
    assert 60 == unpack(plain_keys(), Specification).position


@pytest.mark.parametrize(
    "kind, name",
    [(None, "config"), (OptimizerParamConfig, "config"), (Specification, "specification")],
)
def test_a_text_without_a_config_lacks_that_of_the_expected_kind(kind, name):
    text = {"version": 1, "unit": "steps", "position": 3, "lineage": []}
    state = {"num_steps": 3, TEXT_KEY: json.dumps(text)}
    expected = f"key 'dist_sched.{name}' of the checkpoint state is missing"
    assert expected == refusal(state, kind)


def test_the_text_of_a_state_is_kept():
    state = saved_state()
    assert state[TEXT_KEY] == read(state).text


OWN = "the state equals this scheduler's own state at position 0: perhaps nothing was read"


@pytest.mark.parametrize(
    "position, build, is_doubted",
    [
        (0, state_at, True),
        (0, plain_keys, True),
        (60, state_at, False),
        (60, plain_keys, False),
        (0, lambda position: state_at(position, max_lr=0.5), False),
        (0, lambda position: {**plain_keys(position), "epoch": 0}, False),
    ],
)
def test_a_state_that_equals_the_targets_at_position_0_is_doubted(position, build, is_doubted):
    found = unpack(build(position), OptimizerParamConfig, own=state_at(position)).warnings
    assert is_doubted is any(OWN in warning for warning in found)


def test_without_a_scheduler_nothing_is_doubted():
    assert () == read(state_at(0)).warnings


def test_keys_beside_the_targets_own_text_are_used_alone_with_their_warnings():
    own = state_at(0)
    checkpoint = unpack({**own, "max_lr": 0.5, "epoch": 1}, OptimizerParamConfig, own=own)
    assert (0.5, UPSTREAM, own[TEXT_KEY], ()) == (
        checkpoint.parts["max_lr"],
        checkpoint.format,
        checkpoint.text,
        checkpoint.torn,
    )
    ignored, no_text, no_unit = checkpoint.warnings
    assert "unknown keys are ignored: epoch" == ignored
    assert "the checkpoint has no text, only plain keys" in no_text
    assert "do not save the unit" in no_unit


def test_a_text_that_was_loaded_before_is_trusted_though_it_is_the_targets_own():
    own = state_at(0)
    state = {**own, "max_lr": 0.5}
    checkpoint = unpack(state, OptimizerParamConfig, own=own, loaded=own[TEXT_KEY])
    assert (1.0, DIST_SCHED, ("max_lr",)) == (
        checkpoint.parts["max_lr"],
        checkpoint.format,
        checkpoint.torn,
    )


def test_keys_that_differ_from_the_text_are_named_and_the_text_is_used():
    checkpoint = read({**state_at(60), "num_steps": 61, "max_lr": 0.5})
    assert (60, 1.0, ("max_lr", "num_steps")) == (
        checkpoint.position,
        checkpoint.parts["max_lr"],
        checkpoint.torn,
    )
    (warning,) = checkpoint.warnings
    assert warning.startswith("the state is inconsistent: max_lr, num_steps differ from its text")


def test_beside_a_text_of_the_expected_kind_no_key_may_be_missing():
    state = state_at(60)
    del state["max_lr"], state["num_steps"]
    expected = "is missing (all missing keys: max_lr, num_steps)"
    assert expected in refusal(state)
    assert expected in refusal(state, OptimizerParamConfig)
    assert 60 == read(state, Specification).position


def test_all_keys_of_another_kind_are_compared_if_they_are_there():
    assert ("max_lr",) == read({**state_at(60), "max_lr": 0.5}, Specification).torn


@pytest.mark.parametrize("version", [None, 0, True, "1", 1.0, 3])
def test_a_version_that_is_not_known_is_shown(version):
    text = f"has no valid version: {version!r}"
    if version == 3:
        text = "has version 3, but this release reads versions up to 2; upgrade dist-sched"
    assert f"key 'dist_sched' of the checkpoint state {text}" == refusal(rewritten(version=version))


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"color": 1}, "'dist_sched.color' of the checkpoint state is not a key of version 1"),
        ({"config": {}}, "'dist_sched.specification' of the checkpoint state is not a key of"),
        ({"specification": 5}, "'dist_sched.specification' of the checkpoint state must be an obj"),
        ({"position": -1}, "'dist_sched.position' of the checkpoint state: position=-1: must be"),
        ({"unit": "days"}, "'dist_sched.unit' of the checkpoint state: unit='days': must be one"),
        ({"lineage": {}}, "'dist_sched.lineage' of the checkpoint state must be a list"),
        (
            {"lineage": [5]},
            "'dist_sched.lineage[0]' of the checkpoint state must have the keys pos",
        ),
        (
            {"lineage": [COOLED, {**COOLED, "more": 1}]},
            "'dist_sched.lineage[1]' of the checkpoint state must have the keys position, operat",
        ),
        (
            {"lineage": [{**COOLED, "arguments": []}]},
            "'dist_sched.lineage[0]' of the checkpoint state must have a JSON object as arguments",
        ),
        (
            {"lineage": [{**COOLED, "position": -1}]},
            "'dist_sched.lineage[0]' of the checkpoint state: position=-1: must be",
        ),
        (
            {
                "lineage": [
                    {**COOLED, "operation": "scale", "arguments": {"field": "lr", "factor": 2}}
                ]
            },
            "'dist_sched.lineage[0]' of the checkpoint state needs version 2, but its text has ver",
        ),
        (
            {"lineage": [{**COOLED, "arguments": {**COOLED["arguments"], "field": "eps"}}]},
            "'dist_sched.lineage' of the checkpoint state: field='eps': is not scheduled",
        ),
    ],
    ids=str,
)
def test_an_illegal_part_of_a_text_is_named_by_its_key(changes, text):
    assert refusal(rewritten(**changes)).startswith(f"key {text}")


def test_an_empty_history_and_a_change_of_version_2_are_legal():
    scaled = {**COOLED, "operation": "scale", "arguments": {"field": "lr", "factor": 2.0}}
    checkpoint = read(rewritten(version=2, lineage=[scaled]))
    assert [scaled] == [change.to_dict() for change in checkpoint.history]


def test_a_config_that_needs_a_later_version_than_its_text_has_is_refused():
    state = saved_state(fields={"lr": schedules.linear(1.0, 100, 10, warmup_shape="sine")})
    assert (
        "key 'dist_sched.specification' of the checkpoint state needs version 2, but its text has "
        "version 1" == refusal(with_text(state, {**text_of(state), "version": 1}))
    )


def test_a_part_of_a_config_that_does_not_fit_is_named_by_its_key():
    state = state_at(60)
    text = text_of(state)
    text["config"]["max_lr"] = [1.0]
    message = refusal(with_text(state, text))
    assert message.startswith(
        "key 'dist_sched.config.max_lr' of the checkpoint state: max_lr=[1.0]:"
    )


def test_entries_that_are_illegal_together_are_for_the_policy_unless_changed_late():
    state = state_at(60)
    text = text_of(state)
    text["config"]["min_lr"] = 2.0
    state["min_lr"] = 2.0
    assert read(with_text(state, text)).config is None
    text["lineage"] = [
        {"position": 60, "operation": "extend", "arguments": {"field": "lr", "horizon": 500}}
    ]
    message = refusal(with_text(state, text))
    assert message.startswith("key 'dist_sched.lineage' of the checkpoint state: min_lr=2.0: must")


@pytest.mark.parametrize(
    "text, expected",
    [
        (5, "key 'a' of the checkpoint state must be a string, not int"),
        ("[]", "key 'a' of the checkpoint state must be a JSON object, not list"),
        ("{", "key 'a' of the checkpoint state is not valid JSON: "),
        ("[" * 10**5, "key 'a' of the checkpoint state is not valid JSON: "),
        ('{"a": NaN}', "key 'a' of the checkpoint state is not valid JSON: NaN is not a finite"),
        ('{"a": 1, "a": 2}', "key 'a' of the checkpoint state is not valid JSON: "),
        ("[" * 200 + "]" * 200, "key 'a' of the checkpoint state is nested deeper than"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_a_text_that_is_no_json_object_is_refused_under_its_key(text, expected):
    with pytest.raises(StateError) as caught:
        parse(text, "a")
    assert str(caught.value).startswith(expected)


def test_a_text_is_read_as_json():
    assert {"a": [1, None]} == parse('{"a": [1, null]}')


@pytest.mark.parametrize(
    "keys, expected",
    [
        (["dist_sched"], DIST_SCHED),
        (["dist_sched", "last_epoch", "num_steps", "max_lr"], DIST_SCHED),
        (["num_steps", "max_lr", "last_epoch", "base_lrs"], UPSTREAM),
        (["max_lr"], None),
        (["start_lr"], None),
        (["last_batch_iteration"], "DeepSpeed"),
        (["last_epoch", "base_lrs"], "torch LRScheduler"),
        (["last_epoch"], None),
        ([], None),
    ],
    ids=str,
)
def test_a_state_is_recognised_by_its_keys(keys, expected):
    assert expected == format_of(keys)


def test_a_state_of_torchtitan_is_recognised_by_its_name():
    assert "torch LRScheduler" == format_of(["last_epoch"], "lr_scheduler")


def test_for_upstream_a_state_has_the_ten_keys_after_late_changes_and_the_rest_is_left():
    scheduler = opt_param_scheduler(lr_decay_style="constant", unit="samples")
    scheduler.seek(60)
    scheduler.extend(500)
    keys, left = to_upstream(scheduler.state_dict())
    expected = {**CONFIG, "lr_decay_style": "constant", "lr_decay_steps": 500, "num_steps": 60}
    assert expected == {**keys, "init_lr": 0.0}
    rest = {"init_lr": 0.0, "wsd_decay_steps": None, "lr_wsd_decay_style": None}
    assert {**rest, "unit": "samples"} == left


def test_a_state_of_upstream_has_all_that_upstream_needs():
    keys, left = to_upstream(plain_keys())
    assert (plain_keys(), {"unit": None}) == (keys, left)


def test_a_state_that_upstream_cannot_have_is_refused():
    with pytest.raises(StateError) as caught:
        to_upstream(saved_state())
    assert (
        "key 'dist_sched' of the checkpoint state was saved by ParamScheduler, whose curves "
        "Megatron-LM and NeMo do not have" == str(caught.value)
    )
    old = {key: value for key, value in plain_keys().items() if key not in WD_KEYS}
    with pytest.raises(StateError, match=r"all missing keys: start_wd, end_wd, wd_incr_style, w"):
        to_upstream(old)


def test_a_state_that_fails_in_any_other_way_is_malformed():
    class Odd(dict):
        def keys(self):
            raise RuntimeError("odd keys")

    assert "the checkpoint state is malformed: RuntimeError: odd keys" == refusal(Odd(a=1))
