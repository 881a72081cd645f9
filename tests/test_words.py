"""Words of other libraries are answered with ours, and nothing long is quoted."""

from __future__ import annotations

import json

import pytest
import torch

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    StateError,
    from_config,
    schedules,
)
from dist_sched._curves.megatron import LR_DECAY_STYLES, LR_WSD_DECAY_STYLES
from dist_sched._rules import near_miss
from dist_sched._words import _NOTES, _WORDS, normal
from helpers import CONFIG, adamw

ENTRIES = {
    "lr_scheduler_type": "lr_decay_style",
    "num_warmup_steps": "lr_warmup_steps",
    "num_training_steps": "lr_decay_steps",
    "learning_rate": "max_lr",
    "warmup_ratio": "lr_warmup_steps",
    "min_lr_rate": "min_lr",
    "warmup_steps": "lr_warmup_steps",
    "decay_ratio": "wsd_decay_steps",
    "decay_type": "lr_wsd_decay_style",
    "min_lr_factor": "min_lr",
    "lr_decay_iters": "lr_decay_steps",
    "Max-LR": "max_lr",
}
ARGUMENTS = {
    "num_warmup_steps": "warmup",
    "num_training_steps": "horizon",
    "learning_rate": "peak",
    "warmup_ratio": "warmup",
    "min_lr_rate": "floor",
    "warmup_steps": "warmup",
    "decay_ratio": "decay",
    "decay_type": "decay_shape",
    "min_lr_factor": "floor",
    "max_lr": "peak",
    "lr_decay_steps": "horizon",
    "warmup_type": "warmup_shape",
    "lr_warmup_style": "warmup_shape",
}
NAMES = {
    "cosine_with_min_lr": "cosine",
    "constant_with_warmup": "constant",
    "warmup_stable_decay": "wsd",
    "WSD": "wsd",
    "inverse-square-root": "inverse_sqrt",
    "cosine_with_hard_restarts": "cosine_with_restarts",
    "PowerLR": "power",
    "piecewise_constant": "piecewise",
}


@pytest.mark.parametrize("word, ours", ENTRIES.items())
def test_another_librarys_entry_is_answered_with_ours(word, ours):
    with pytest.raises(ConfigError, match=rf"'{word}' is not known here; did you mean '{ours}'"):
        from_config(adamw(), {**CONFIG, word: 1})


@pytest.mark.parametrize("word, ours", ENTRIES.items())
def test_another_librarys_argument_of_the_constructor_is_answered_with_ours(word, ours):
    with pytest.raises(TypeError, match=rf"argument '{word}'; did you mean '{ours}'"):
        OptimizerParamScheduler(adamw(), **CONFIG, **{word: 1})


def test_a_misspelt_argument_of_param_scheduler_is_answered_with_the_right_one():
    with pytest.raises(TypeError, match="argument 'refrence'; did you mean 'reference'"):
        ParamScheduler(adamw(), {"lr": 1.0}, refrence=1.0)


@pytest.mark.parametrize("word, ours", ARGUMENTS.items())
def test_another_librarys_argument_of_a_schedule_is_answered_with_ours(word, ours):
    given = {"peak": 1.0, "horizon": 100, "decay": 10, word: 1}
    with pytest.raises(ConfigError, match=rf"'{word}' is not known.*did you mean '{ours}'"):
        from_config(adamw(), {"fields": {"lr": {"schedule": "wsd", **given}}})
    with pytest.raises(TypeError, match=rf"wsd\(\) got .* '{word}'; did you mean '{ours}'"):
        schedules.wsd(**given)


@pytest.mark.parametrize("word, ours", NAMES.items())
def test_another_librarys_schedule_is_answered_with_ours(word, ours):
    with pytest.raises(ConfigError, match=rf"schedule='{word}'.*did you mean '{ours}'"):
        schedules.build(word, peak=1.0, horizon=100)


def test_another_librarys_schedule_is_no_attribute_and_answered_with_ours():
    with pytest.raises(AttributeError, match="'cosine_with_min_lr'; did you mean 'cosine'"):
        schedules.cosine_with_min_lr  # noqa: B018


@pytest.mark.parametrize(
    "word, hint",
    [
        ("wsd", "did you mean 'WSD'"),
        ("Cosine", "did you mean 'cosine'"),
        ("inverse_sqrt", "did you mean 'inverse-square-root'"),
        ("constant_with_warmup", "did you mean 'constant'"),
        ("polynomial", "see dist_sched.schedules.polynomial"),
        ("cosine_with_restarts", "see dist_sched.schedules.cosine_with_restarts"),
        ("reduce_lr_on_plateau", "see dist_sched.Plateau"),
    ],
)
def test_another_librarys_style_is_answered_with_what_to_write(word, hint):
    with pytest.raises(ConfigError, match=rf"lr_decay_style='{word}': must be .*; {hint}"):
        OptimizerParamScheduler(adamw(), **{**CONFIG, "lr_decay_style": word})


@pytest.mark.parametrize(
    "word, hint",
    [
        ("1-sqrt", "did you mean 'minus_sqrt'"),
        ("quadratic", "did you mean 'minus_power' with power 2"),
        ("exp", "did you mean 'exponential_to_zero'"),
        ("RexLR", "did you mean 'rex'"),
        ("wsd", "see dist_sched.schedules.wsd"),
        ("cosine_with_min_lr", "did you mean 'cosine'"),
        ("cosine_with_restarts", "see dist_sched.schedules.cosine_with_restarts"),
        ("reduce_lr_on_plateau", "see dist_sched.Plateau"),
    ],
)
def test_another_librarys_shape_is_answered_with_what_to_write(word, hint):
    with pytest.raises(ConfigError, match=rf"shape='{word}': must be .*; {hint}"):
        Phase(word, 10, end=0.0)


def test_torchs_class_that_follows_a_metric_is_answered_with_ours():
    with pytest.raises(AttributeError, match=r"'ReduceLROnPlateau'; see dist_sched\.Plateau"):
        schedules.ReduceLROnPlateau  # noqa: B018


def test_what_is_no_mere_renaming_is_explained():
    known = ["floor", "warmup"]
    assert "'floor', which is a value: multiply that fraction by the peak?" in near_miss(
        "min_lr_ratio", known
    )
    assert "'warmup', which is a length: multiply that fraction" in near_miss("warmup_ratio", known)


def test_every_word_is_written_as_it_is_looked_up_and_has_an_answer_that_exists():
    known = {
        *schedules.NAMED, *schedules.shapes(), *schedules.LENGTHS, *LR_DECAY_STYLES,
        *LR_WSD_DECAY_STYLES, *CONFIG, "wsd_decay_steps", "lr_wsd_decay_style", "peak", "floor",
        "start", "lr", "schedule", "decay_shape", "cycles", "weight_decay", "min_value",
        "dist_sched.Plateau", "warmup_shape", "exponent",
        *(f"dist_sched.schedules.{name}" for name in schedules.NAMED),
    }  # fmt: skip
    assert [*_WORDS, *_NOTES] == [normal(word) for word in (*_WORDS, *_NOTES)]
    assert set() == {name for names in _WORDS.values() for name in names} - known


STATES = {
    "an optimizer's": lambda: adamw().state_dict(),
    "a model's": lambda: torch.nn.Linear(2, 2).state_dict(),
    "a whole checkpoint; pass its value of 'sched'": lambda: {
        "step": 3,
        "sched": OptimizerParamScheduler(adamw(), **CONFIG).state_dict(),
    },
}


@pytest.mark.parametrize("whose", STATES)
@pytest.mark.parametrize("fields", [None, {"lr": 1.0}], ids=["entries", "fields"])
def test_a_state_that_is_no_schedulers_is_called_what_it_is(whose, fields):
    if fields is None:
        scheduler = OptimizerParamScheduler(adamw(), **CONFIG)
    else:
        scheduler = ParamScheduler(adamw(), fields)
    with pytest.raises(StateError, match=f"^the state is {whose}"):
        scheduler.load_state_dict(STATES[whose]())


def test_a_path_given_as_a_state_points_to_what_loads_paths(tmp_path):
    scheduler = OptimizerParamScheduler(adamw(), **CONFIG)
    for path in ("runs/7b", tmp_path):
        with pytest.raises(StateError, match=r"not \w+; use dist_sched\.checkpoint\.load\("):
            scheduler.load_state_dict(path)


LONG = "x" * 100_000


def saved(**changes):
    scheduler = OptimizerParamScheduler(adamw(), **CONFIG)
    state = scheduler.state_dict()
    text = json.loads(state["dist_sched"])
    return {**state, "dist_sched": json.dumps({**text, **changes})}


CONFIGS = [
    {**CONFIG, LONG: 1},
    {**CONFIG, "max_lr": LONG},
    {**CONFIG, "policy": {LONG: "config", "*": "config"}},
    {**CONFIG, "policy": {"*": LONG}},
    {"fields": {LONG: {"phases": 1}}},
    {"fields": {"lr": {"phases": [{LONG: 1}]}}},
]
READ = [
    saved(config=[LONG]),
    saved(config={LONG: 1}),
    saved(version=LONG),
    saved(lineage=[LONG]),
    saved(**{LONG: 1}),
    {LONG: {"param_groups": 1}},
    {"dist_sched": LONG},
    {"last_epoch": LONG, "base_lrs": []},
    {"_schedulers": [{"last_epoch": number} for number in range(1000)]},
]


def assert_is_short(message):
    assert len(message) < 1000
    assert "\n" not in message


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_no_error_quotes_more_than_a_line_of_a_config(config):
    with pytest.raises(ConfigError) as error:
        from_config(adamw(), config)
    assert_is_short(str(error.value))


@pytest.mark.parametrize("state", READ, ids=range(len(READ)))
def test_no_error_quotes_more_than_a_line_of_a_state(state):
    scheduler = OptimizerParamScheduler(adamw(), **CONFIG)
    with pytest.raises(StateError) as error:
        scheduler.load_state_dict(state)
    assert_is_short(str(error.value))


def test_a_warning_quotes_no_more_than_a_line_of_unknown_keys(caplog):
    scheduler = OptimizerParamScheduler(adamw(), **CONFIG)
    scheduler.load_state_dict({**scheduler.state_dict(), **{f"{LONG}{n}": 1 for n in range(9)}})
    assert 100_000 > len(caplog.text)
    assert "unknown keys are ignored: xxx" in caplog.text


def test_a_value_of_several_lines_is_shown_in_one():
    with pytest.raises(ConfigError, match=r"^max_lr=tensor\(\[\[0\., 0\.\], \[0\., 0\.\]\]\): "):
        OptimizerParamScheduler(adamw(), **{**CONFIG, "max_lr": torch.zeros(2, 2)})
