"""Declarations: what mappings and files declare, what is given back, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    Schedule,
    from_config,
    schedules,
)
from dist_sched._config import files
from dist_sched._curves.shapes import shapes

ROOT = Path(__file__).parents[2]
HAS_TOML = any(importlib.util.find_spec(name) for name in ("tomllib", "tomli"))
needs_toml = pytest.mark.skipif(not HAS_TOML, reason="needs tomllib or tomli")
KINDS = ["mapping", "json", "yaml", "yml", pytest.param("toml", marks=needs_toml)]
quick = settings(max_examples=25, deadline=None, database=None)
NAMES = ("embed.tokens", "body", "head")

SEEDS = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 100_000,
    "lr_decay_style": "cosine",
    "start_wd": 0.0,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "linear",
}
RISE = {"shape": "linear", "steps": 10, "start": 0.0, "end": 1.0}
FALL = {"shape": "cosine", "steps": 90, "end": 0.1}
PHASES = {"phases": [RISE, FALL]}
SPECIFICATION = {"fields": {"lr": PHASES, "momentum": 0.9}, "groups": {"head": {"lr": 0.5}}}


def optimizer():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "name": name} for name in NAMES]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9, weight_decay=0.1)


def build(source):
    return from_config(optimizer(), source)


def toml(told):
    """Write a value as TOML, mappings inline."""
    if isinstance(told, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml(one)}' for key, one in told.items())}}}"
    if isinstance(told, list):
        return f"[{', '.join(map(toml, told))}]"
    return json.dumps(told)


WRITERS = {
    "json": json.dumps,
    "yaml": yaml.safe_dump,
    "yml": yaml.safe_dump,
    "toml": lambda told: "\n".join(f"{key} = {toml(one)}" for key, one in told.items()),
}


@pytest.fixture
def source(tmp_path):
    """Give a mapping as it is, or the path of a file that holds it."""

    def write(told, kind):
        if kind == "mapping":
            return told
        path = tmp_path / f"run.{kind}"
        path.write_text(WRITERS[kind](told), encoding="utf-8")
        return path

    return write


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def lr_of(scheduler):
    return scheduler._config.fields["lr"]


def lr_from(told, **others):
    return lr_of(build({"fields": {"lr": told}, **others}))


# Both kinds, in each format.


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapping_of_entries_gives_the_seeds_scheduler(source, kind):
    found = build(source(SEEDS, kind))
    assert OptimizerParamScheduler(optimizer(), **SEEDS).state_dict() == found.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapping_with_fields_gives_a_param_scheduler(source, kind):
    lr = Schedule([Phase("linear", 10, 1.0, 0.0), Phase("cosine", 90, 0.1)])
    due = ParamScheduler(optimizer(), {"lr": lr, "momentum": 0.9}, groups={"head": {"lr": 0.5}})
    assert due.state_dict() == build(source(SPECIFICATION, kind)).state_dict()


@pytest.mark.parametrize("told", [SEEDS, SPECIFICATION], ids=["seeds", "fields"])
def test_a_path_may_be_a_text_and_its_ending_in_capitals(file, told):
    path = file("run.JSON", json.dumps(told))
    assert build(told).state_dict() == build(str(path)).state_dict()


LENGTHS = [
    (1, 1),
    (1.0, 1),
    ("1", 1),
    (0, 0),
    (37.5, 37.5),
    (0.03, 3_000),
    (0.00001, 1),
    ("3%", 3_000),
    (" 12.5 % ", 12_500),
    ("100%", 100_000),
    ("0.5", 0.5),
    ("2k", 2_000),
    ("2K", 2_000),
    ("1e3", 1_000),
    ("0.025M", 25_000),
    ("0.00005B", 50_000),
    ("0.00005G", 50_000),
    ("0.00000005T", 50_000),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written, due", LENGTHS, ids=str)
def test_a_length_of_the_seeds_may_be_written_for_people(source, kind, written, due):
    assert due == build(source({**SEEDS, "wd_incr_steps": written}, kind)).wd_incr_steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written, due", LENGTHS, ids=str)
def test_a_length_of_a_phase_may_be_written_for_people(source, kind, written, due):
    told = {"horizon": "100k", "fields": {"lr": {"phases": [{**RISE, "steps": written}]}}}
    assert due == lr_of(build(source(told, kind))).phases[0].steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written, due", [row for row in LENGTHS if row[1]], ids=str)
def test_a_length_of_a_named_schedule_may_be_written_for_people(source, kind, written, due):
    lr = {"schedule": "constant", "peak": 1.0, "warmup": written}
    found = lr_of(build(source({"horizon": "100k", "fields": {"lr": lr}}, kind)))
    assert schedules.constant(1.0, 100_000, warmup=due) == found


def test_every_length_of_the_seeds_may_be_a_part_of_the_horizon():
    parts = {"lr_warmup_steps": 0.02, "wd_incr_steps": "50%", "wsd_decay_steps": 0.1}
    told = {**SEEDS, **parts, "lr_decay_style": "WSD", "lr_wsd_decay_style": "cosine"}
    found = build({**told, "lr_decay_steps": "1.5B"})
    lengths = (found.lr_warmup_steps, found.wd_incr_steps, found.wsd_decay_steps)
    assert (30_000_000, 750_000_000, 150_000_000) == lengths
    assert 1_500_000_000 == found.lr_decay_steps


@pytest.mark.parametrize("scalar", [np.float64(0.25), np.float32(0.25), torch.tensor(0.25)])
def test_a_part_may_be_a_scalar_of_another_library(scalar):
    due = schedules.linear(1.0, 100, warmup=25)
    assert due == lr_from({"schedule": "linear", "peak": 1.0, "warmup": scalar}, horizon=100)


def test_a_number_without_a_point_is_one_in_yaml(file):
    text = yaml.safe_dump({**SEEDS, "min_lr": 0}).replace("max_lr: 1.0", "max_lr: 3e-4")
    assert 3e-4 == build(file("run.yaml", text)).max_lr


def test_a_number_without_a_point_is_one_in_yaml_wherever_it_stands(file):
    path = file(
        "run.yaml",
        """
        fields:
          lr: {schedule: cosine, peak: 3e-4, floor: 3e-5, horizon: 1e3}
          momentum: 9e-1
          weight_decay: {phases: [{shape: linear, steps: 1e2, start: 1e-1, end: 1e-2}]}
        groups: {head: {lr: 5e-1, weight_decay: {peak: 2e-1, to: lr}}}
        """,
    )
    found = build(path).to_config()
    assert schedules.cosine(3e-4, 1000, floor=3e-5).to_dict() == found["fields"]["lr"]
    assert 0.9 == found["fields"]["momentum"]["phases"][0]["end"]
    assert [{"shape": "linear", "steps": 100, "end": 0.01, "start": 0.1}] == (
        found["fields"]["weight_decay"]["phases"]
    )
    assert {"lr": 0.5, "weight_decay": {"peak": 0.2, "to": "lr"}} == found["groups"]["head"]


# What a field may be.

ARGUMENTS = {
    "constant": {"warmup": 10},
    "linear": {"warmup": 10, "floor": 0.1},
    "cosine": {"warmup": 10, "start": 0.1},
    "cosine_with_restarts": {"cycles": 2, "growth": 2.0},
    "polynomial": {"power": 2.0},
    "exponential": {"floor": 0.1},
    "multistep": {"milestones": [30, 60], "gamma": 0.5},
    "inverse_sqrt": {"timescale": 20},
    "noam": {"warmup": 10},
    "tri_stage": {"warmup": 10, "hold": 20},
    "wsd": {"decay": 20, "decay_shape": "polynomial", "power": 2.0},
    "wsd_s": {"decay": 20, "decay_ends": [50], "decay_shape": "linear"},
    "one_cycle": {"warmup": 30, "three_phase": True},
    "cyclic": {"up": 10, "down": 20},
    "infinite": {"floor": 0.01, "constant": 0.5, "cooldown": 40, "decay": 20},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", schedules.NAMED)
def test_a_named_schedule_is_what_its_function_gives(source, kind, name):
    told = {"schedule": name, "peak": 1.0, "horizon": 100, **ARGUMENTS[name]}
    due = schedules.NAMED[name](peak=1.0, horizon=100, **ARGUMENTS[name])
    assert due == lr_of(build(source({"fields": {"lr": told}}, kind)))


def written(name, value):
    """Write what is a length as a part of 100 units."""
    if name not in schedules.LENGTHS:
        return value
    return [one / 100 for one in value] if isinstance(value, list) else f"{value}%"


@pytest.mark.parametrize("name", schedules.NAMED)
def test_every_length_of_a_named_schedule_may_be_a_part_of_the_horizon_around(name):
    parts = {key: written(key, value) for key, value in ARGUMENTS[name].items()}
    due = schedules.NAMED[name](peak=1.0, horizon=100, **ARGUMENTS[name])
    assert due == lr_from({"schedule": name, "peak": 1.0, **parts}, horizon=100)


@pytest.mark.parametrize("own, due", [(50, 50), (0.5, 100), ("25%", 50), ("0.5", 0.5)])
def test_a_named_schedule_may_have_a_horizon_of_its_own(own, due):
    told = {"schedule": "linear", "peak": 1.0, "warmup": 0.1, "horizon": own}
    assert schedules.linear(1.0, due, warmup=due / 10) == lr_from(told, horizon=200)


@pytest.mark.parametrize("own, due", [(50, 5), (0.5, 10), ("25%", 5)])
def test_phases_may_have_a_horizon_of_their_own(own, due):
    told = {"horizon": own, "phases": [{**RISE, "steps": 0.1}]}
    assert due == lr_from(told, horizon=200).horizon


def test_a_horizon_of_half_a_unit_is_half_a_unit():
    told = {"schedule": "linear", "peak": 1.0}
    assert schedules.linear(1.0, 0.5) == lr_from(told, horizon="0.5")


def test_phases_may_be_parts_and_have_suffixes_side_by_side():
    shaped = {"shape": "multistep", "steps": 0.5, "end": 0.1, "milestones": [0.2, "400"]}
    cut = {"shape": "linear", "steps": "40%", "until": 0.1, "end": 0.0}
    found = lr_from({"phases": [{**RISE, "steps": "0.1k"}, shaped, cut]}, horizon="1k")
    due = [
        Phase("linear", 100, 1.0, 0.0),
        Phase("multistep", 500, 0.1, milestones=[200, 400]),
        Phase("linear", 400, 0.0, until=100),
    ]
    assert Schedule(due) == found


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_may_follow_another(source, kind):
    fields = {"lr": PHASES, "weight_decay": {"peak": 0.1, "to": "lr"}}
    scheduler = build(source({"fields": fields}, kind))
    scheduler.seek(5)
    assert 0.05 == scheduler.optimizer.param_groups[0]["weight_decay"]


@pytest.mark.parametrize("kind", KINDS)
def test_groups_may_have_a_multiplier_or_a_schedule(source, kind):
    own = {"schedule": "linear", "peak": 0.5, "warmup": 0.1}
    groups = {"embed*": {"lr": 0.25}, "head": {"lr": own}}
    scheduler = build(source({"horizon": 100, "fields": {"lr": PHASES}, "groups": groups}, kind))
    scheduler.seek(10)
    assert [0.25, 1.0, 0.5] == scheduler.get_last_lr()


def test_a_mapping_may_hold_schedules_made_by_code():
    lr = schedules.cosine(1.0, 100)
    fields = {"lr": lr, "weight_decay": schedules.proportional_to(at_max=0.1)}
    assert ParamScheduler(optimizer(), fields).to_config() == build({"fields": fields}).to_config()


# Settings.

BOTH = pytest.mark.parametrize("told", [SEEDS, SPECIFICATION], ids=["seeds", "fields"])


@BOTH
@pytest.mark.parametrize("unit", ["steps", "samples", "tokens"])
def test_the_unit_is_taken(told, unit):
    assert unit == build({**told, "unit": unit}).unit


@BOTH
@pytest.mark.parametrize("keeps, due", [(True, 0.5), (False, 1.0)])
def test_keep_group_ratios_is_taken(told, keeps, due):
    own = optimizer()
    own.param_groups[1]["lr"] = 0.5
    scheduler = from_config(own, {**told, "keep_group_ratios": keeps})
    scheduler.seek(10)
    assert due == scheduler.get_last_lr()[1]


@BOTH
@pytest.mark.parametrize("word", ["checkpoint", "config", "strict"])
def test_a_policy_may_be_a_word(told, word):
    assert word == build({**told, "policy": word})._policy.told()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "told, entry", [(SEEDS, "lr_decay_steps"), (SPECIFICATION, "lr.phases[1]")], ids=str
)
def test_a_policy_may_be_a_mapping(source, kind, told, entry):
    policy = {entry: "config", "*": "strict"}
    assert policy == build(source({**told, "policy": policy}, kind))._policy.told()


@pytest.mark.parametrize(
    "use, override, word",
    [(True, False, "checkpoint"), (False, True, "config"), (False, False, "strict")],
)
def test_the_seeds_booleans_mean_a_policy(use, override, word):
    booleans = {
        "use_checkpoint_opt_param_scheduler": use,
        "override_opt_param_scheduler": override,
    }
    assert word == build({**SEEDS, **booleans})._policy.told()


def test_a_policy_argument_replaces_the_one_of_the_source():
    scheduler = from_config(optimizer(), {**SEEDS, "policy": "strict"}, policy="config")
    assert "config" == scheduler._policy.told()


def test_a_source_without_a_policy_declares_none():
    assert files.read(SEEDS).policy is None


# What is given back.


@st.composite
def drawn_phases(draw, *, is_first):
    shape = draw(st.sampled_from(shapes()))
    steps = draw(st.integers(1, 500) | st.floats(0.01, 500))
    own = {"milestones": [steps / 4, steps / 2]} if shape == "multistep" else {}
    if shape == "inverse_sqrt":
        own = {"timescale": draw(st.floats(0.1, 3))}
    end = draw(st.floats(0.1, 1))
    start = draw(st.floats(0.1, 1)) if is_first or draw(st.booleans()) else None
    until = draw(st.none() | st.just(steps / 3))
    return Phase(shape, steps, end, end if shape == "constant" else start, until=until, **own)


@st.composite
def drawn_schedules(draw):
    count = draw(st.integers(1, 4))
    return Schedule(draw(drawn_phases(is_first=not index)) for index in range(count))


follows = st.floats(0, 1).map(lambda value: schedules.proportional_to(at_max=value))
settings_drawn = {
    "unit": st.sampled_from(["steps", "samples", "tokens"]),
    "policy": st.sampled_from([None, "config", "strict", {"lr": "config", "*": "strict"}]),
    "keep_group_ratios": st.booleans(),
}


@st.composite
def specified(draw):
    """Draw what `ParamScheduler` takes."""
    fields = {"lr": draw(drawn_schedules())}
    for key in draw(st.sets(st.sampled_from(["weight_decay", "dampening"]))):
        fields[key] = draw(drawn_schedules() | follows | st.floats(0, 1))
    own = st.floats(0, 2) | drawn_schedules()
    patterns = draw(st.sets(st.sampled_from(["embed*", "head", "bod?"])))
    groups = {pattern: {"lr": draw(own)} for pattern in patterns}
    return {"fields": fields, "groups": groups, **draw(st.fixed_dictionaries(settings_drawn))}


def entries_of(low, high, lengths):
    return {
        **SEEDS,
        "max_lr": high,
        "min_lr": low,
        "lr_warmup_steps": lengths[0],
        "lr_decay_steps": lengths[0] + lengths[1],
        "wd_incr_steps": lengths[2],
    }


length = st.integers(1, 2**40) | st.floats(0.01, 1e6)
drawn_entries = st.builds(
    entries_of, st.floats(0, 1e-3), st.floats(1e-3, 1), st.tuples(*[length] * 3)
)


def parse_toml(text):
    found = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return found.loads(text)


THROUGH = {
    "nothing": lambda told: told,
    "json": lambda told: json.loads(json.dumps(told)),
    "yaml": lambda told: yaml.safe_load(yaml.safe_dump(told, sort_keys=False)),
    "toml": lambda told: parse_toml(WRITERS["toml"](told)),
}
ROUNDS = ["nothing", "json", "yaml", pytest.param("toml", marks=needs_toml)]


def assert_given_back(scheduler, through):
    again = build(THROUGH[through](scheduler.to_config()))
    assert scheduler.to_config() == again.to_config()
    assert type(scheduler) is type(again)
    return again


@pytest.mark.parametrize("through", ROUNDS)
@quick
@given(told=specified())
def test_any_specification_is_given_back(through, told):
    scheduler = ParamScheduler(optimizer(), **told)
    assert scheduler.state_dict() == assert_given_back(scheduler, through).state_dict()


@pytest.mark.parametrize("through", ROUNDS)
@quick
@given(told=drawn_entries, others=st.fixed_dictionaries({"unit": settings_drawn["unit"]}))
def test_any_config_of_the_seeds_is_given_back(through, told, others):
    scheduler = OptimizerParamScheduler(optimizer(), **told, **others)
    assert scheduler.state_dict() == assert_given_back(scheduler, through).state_dict()


@pytest.mark.parametrize("horizon", ["0.5", "0.75", 1])
def test_a_horizon_of_less_than_a_unit_is_given_back(horizon):
    scheduler = build({**SEEDS, "lr_decay_steps": horizon, "lr_warmup_steps": "0.25"})
    assert scheduler.state_dict() == assert_given_back(scheduler, "json").state_dict()


def test_what_is_shorter_than_a_unit_is_given_as_a_text():
    phase = {**RISE, "steps": "0.75", "until": "0.5"}
    told = {"fields": {"lr": {"phases": [phase]}}, "groups": {}}
    assert told == build(told).to_config()


def test_names_may_be_sorted_between():
    fields = {"momentum": 0.9, "lr": schedules.cosine(1.0, 100)}
    groups = {"head": {"momentum": 0.5, "lr": 0.1}, "body": {"lr": 0.5}}
    scheduler = ParamScheduler(optimizer(), fields, groups=groups)
    again = build(json.loads(json.dumps(scheduler.to_config(), sort_keys=True)))
    assert scheduler.to_config() == again.to_config()
    assert json.loads(scheduler.state_dict()["dist_sched"]) == json.loads(
        again.state_dict()["dist_sched"]
    )


def test_what_is_the_default_is_left_out():
    fields = {"lr": {"phases": [RISE]}}
    assert {"fields": fields, "groups": {}} == build({"fields": fields}).to_config()
    assert SEEDS == build({**SEEDS, "policy": "checkpoint", "unit": "steps"}).to_config()


def test_settings_that_are_not_the_default_are_given_back():
    others = {"unit": "tokens", "policy": "strict", "keep_group_ratios": False}
    assert {**others, **SEEDS} == build({**SEEDS, **others}).to_config()


def change(scheduler, operation):
    scheduler.seek(50)
    steps = {"cooldown": 20, "rewarm": 1.5, "extend": 200_000}[operation]
    getattr(scheduler, operation)(steps, allow_jump=True)


def course(scheduler):
    found = []
    for position in (0, 5, 50, 51, 60, 70, 150_000, 300_000):
        scheduler.seek(position)
        found.append(scheduler.get_last_lr())
    return found


@pytest.mark.parametrize("through", ROUNDS)
@pytest.mark.parametrize("operation", ["cooldown", "rewarm", "extend"])
def test_late_changes_are_given_back(through, operation):
    scheduler = build(SPECIFICATION)
    change(scheduler, operation)
    assert course(scheduler) == course(assert_given_back(scheduler, through))


@pytest.mark.parametrize("through", ROUNDS)
@pytest.mark.parametrize("operation", ["cooldown", "extend"])
def test_late_changes_of_the_seeds_are_given_back(through, operation):
    scheduler = build({**SEEDS, "lr_decay_style": "constant"})
    change(scheduler, operation)
    assert course(scheduler) == course(assert_given_back(scheduler, through))


# What is refused: names and values.


def of_lr(**told):
    return {"fields": {"lr": told}}


def in_phase(**told):
    return of_lr(phases=[{**RISE, **told}])


LINEAR = {"schedule": "linear", "peak": 1.0, "horizon": 100}
UNKNOWN = [
    ({**SEEDS, "max_lrs": 1}, "'max_lrs' is not known here; did you mean 'max_lr'?"),
    ({**SEEDS, "units": "steps"}, "'units' is not known here; did you mean 'unit'?"),
    ({"field": {}}, "'field' is not known here; did you mean 'fields'?"),
    ({**SEEDS, "groups": {}}, "'groups' is not known without 'fields'"),
    ({**SEEDS, "horizon": 5}, "'horizon' is not known without 'fields'"),
    ({**SPECIFICATION, "group": {}}, "'group' is not known here; did you mean 'groups'?"),
    ({**SPECIFICATION, "polcy": "strict"}, "did you mean 'policy'?"),
    ({**SPECIFICATION, "max_lr": 1}, "'max_lr' is not known here"),
    (of_lr(phasis=[]), "lr: 'phasis' is not known here; did you mean 'phases'?"),
    (of_lr(phases=[RISE], peak=1), "lr: 'peak' is not known here"),
    (of_lr(phases=[RISE], horizons=1), "did you mean 'horizon'?"),
    (of_lr(peak=1, to="lr", floor=0), "lr: 'floor' is not known here"),
    (of_lr(**LINEAR, warmpu=1), "lr: linear: 'warmpu' is not known; .*did you mean 'warmup'?"),
    (in_phase(untill=1), "lr: phases[0]: .*'untill'.* did you mean 'until'?"),
    (
        {**SPECIFICATION, "groups": {"head": {"lr": {**LINEAR, "flor": 0}}}},
        "groups[head].lr: linear: 'flor' is not known; .*did you mean 'floor'?",
    ),
    (
        {**SPECIFICATION, "groups": {"head": {"momentun": 1}}},
        "groups[head].momentun: .*did you mean 'momentum'?",
    ),
    (of_lr(**{**LINEAR, "schedule": "linaer"}), "schedule='linaer': .*did you mean 'linear'?"),
    (in_phase(shape="linaer"), "shape='linaer': .*did you mean 'linear'?"),
    ({**SEEDS, "unit": "token"}, "unit='token': .*did you mean 'tokens'?"),
    ({**SEEDS, "lr_decay_style": "cosin"}, "lr_decay_style='cosin': .*did you mean 'cosine'?"),
]
MISSING = [
    ({}, "init_lr is missing; max_lr is missing"),
    ({key: SEEDS[key] for key in SEEDS if key != "max_lr"}, "max_lr is missing"),
    ({"fields": {}}, "fields={}: give at least one field"),
    (of_lr(), "schedule={}: must have schedule, phases (a list), or peak and to"),
    (of_lr(horizon=5), "must have schedule, phases (a list), or peak and to"),
    (of_lr(to="lr"), "lr: peak is missing"),
    (of_lr(schedule="linear", peak=1.0), "lr: linear: lacks horizon"),
    (of_lr(schedule="linear", horizon=5), "lr: linear: lacks peak"),
    (of_lr(phases=[]), "phases: 0 of them"),
    (of_lr(phases=[{"shape": "linear"}]), "lr: phases[0]: phase={'shape': 'linear'}: lacks steps"),
    (of_lr(phases=[FALL]), "phases[0].start=None: the first phase must say"),
]
VALUES = [
    ({"fields": 3}, "fields=3: must be a mapping"),
    ({"fields": [1]}, "fields=[1]: must be a mapping"),
    ({**SPECIFICATION, "groups": None}, "groups=None: must be a mapping"),
    ({**SPECIFICATION, "groups": {"head": 3}}, "groups[head]=3: must be a mapping"),
    ({**SPECIFICATION, "unit": 3}, "unit=3: must be one of"),
    ({**SPECIFICATION, "keep_group_ratios": "no"}, "keep_group_ratios='no': must be True or False"),
    ({**SPECIFICATION, "policy": 3}, "policy=3: must be one of"),
    ({**SPECIFICATION, "policy": {"lrs": "config", "*": "strict"}}, "policy names 'lrs'"),
    (
        {**SPECIFICATION, "override_opt_param_scheduler": True},
        "'override_opt_param_scheduler': give policy instead",
    ),
    (
        {**SEEDS, "use_checkpoint_opt_param_scheduler": 1},
        "use_checkpoint_opt_param_scheduler=1: must be True or False",
    ),
    (
        {**SEEDS, "use_checkpoint_opt_param_scheduler": False, "policy": "config"},
        "policy='config' replaces",
    ),
    (of_lr(phases=3), "must have schedule, phases (a list)"),
    (of_lr(phases=[3]), "lr: phases[0]: phase=3: must be a mapping"),
    (of_lr(**LINEAR, warmup=200), "lr: linear: warmup=200: must be at most horizon=100"),
    (of_lr(**{**LINEAR, "peak": "high"}), "lr: linear: peak='high': must be a number"),
    (of_lr(**LINEAR, **{"3": 1}), "lr: linear: '3' is not known"),
    (of_lr(schedule=[1]), "schedule=[1]: must be one of"),
    ({"fields": {"lr": [1]}}, "lr=[1]: must be a schedule"),
    ({"fields": {"lr": {"peak": 1, "to": "lr"}}}, "lr.to='lr': must be a field with a schedule"),
    ({"fields": {"lr": 1, "momentum": {"peak": 1, "to": "rl"}}}, "momentum.to='rl': must be"),
    ({"fields": {"momentun": 1}}, "momentun: no group .*did you mean 'momentum'"),
]


def pattern(message):
    return ".*".join(map(re.escape, message.split(".*")))


@pytest.mark.parametrize("told, message", UNKNOWN, ids=lambda row: str(row)[-60:])
def test_an_unknown_name_is_refused_and_the_near_miss_named(told, message):
    with pytest.raises(ConfigError, match=pattern(message)):
        build(told)


@pytest.mark.parametrize("told, message", MISSING, ids=lambda row: str(row)[-60:])
def test_what_is_missing_is_named(told, message):
    with pytest.raises(ConfigError, match=pattern(message)):
        build(told)


@pytest.mark.parametrize("told, message", VALUES, ids=lambda row: str(row)[-60:])
def test_an_illegal_value_is_refused_by_place_value_and_rule(told, message):
    with pytest.raises(ConfigError, match=pattern(message)):
        build(told)


@pytest.mark.parametrize("told, message", [*UNKNOWN, *MISSING], ids=lambda row: str(row)[-60:])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_error_in_a_file_names_the_file(source, kind, told, message):
    path = source(told, kind)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: .*{pattern(message)}"):
        build(path)


NO_NUMBERS = [math.nan, math.inf, -math.inf, -1, -0.5, True, False, "nan", "-inf", "five", [], {}]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", [name for name in SEEDS if not name.endswith("_style")])
def test_an_entry_that_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"{name}=.*must be a"):
        build({**SEEDS, name: value})


PLACES = {
    "horizon": lambda value: {**in_phase(), "horizon": value},
    "lr: horizon": lambda value: of_lr(phases=[RISE], horizon=value),
    "lr: phases[0].*steps": lambda value: in_phase(steps=value),
    "lr: phases[0].*end": lambda value: in_phase(end=value),
    "lr: .*warmup": lambda value: of_lr(**LINEAR, warmup=value),
    "lr: linear: floor": lambda value: of_lr(**LINEAR, floor=value),
    "lr: .*horizon": lambda value: of_lr(**{**LINEAR, "horizon": value}),
    "momentum: peak": lambda value: {
        "fields": {"lr": PHASES, "momentum": {"peak": value, "to": "lr"}}
    },
    "momentum": lambda value: {"fields": {"momentum": value}},
    "groups[head].lr": lambda value: {**SPECIFICATION, "groups": {"head": {"lr": value}}},
}


@pytest.mark.parametrize("value", [value for value in NO_NUMBERS if value != {}], ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_number_is_refused_where_it_stands(place, value):
    with pytest.raises(ConfigError, match=rf"{pattern(place)}=.*must be a"):
        build(PLACES[place](value))


WRONG_LENGTHS = ["2m", "2kk", "2KB", "k", "%", "", " ", "3 % %", "0x10", "five", "1e99", "NaN%"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", WRONG_LENGTHS)
def test_a_length_of_another_suffix_is_refused_and_the_suffixes_listed(source, kind, value):
    rule = r"must be a number of units, with a suffix \('k', 'K', 'M', 'B', 'G', 'T'\) or %"
    with pytest.raises(ConfigError, match=f"wd_incr_steps={value!r}: {rule}"):
        build(source({**SEEDS, "wd_incr_steps": value}, kind))
    with pytest.raises(ConfigError, match=rf"lr: phases\[0\].steps={value!r}: {rule}"):
        build(source(in_phase(steps=value), kind))


WITHOUT_HORIZON = [
    (in_phase(steps=0.03), "lr: phases[0].steps=0.03"),
    (in_phase(steps="3%"), "lr: phases[0].steps='3%'"),
    (of_lr(schedule="linear", peak=1.0, warmup=0.03), "lr: warmup=0.03"),
    (of_lr(**{**LINEAR, "horizon": 0.5}), "lr: horizon=0.5"),
    ({**SPECIFICATION, "horizon": "50%"}, "horizon='50%'"),
    ({**SEEDS, "lr_decay_steps": 0.5}, "lr_decay_steps=0.5"),
]


@pytest.mark.parametrize("told, place", WITHOUT_HORIZON, ids=lambda row: str(row)[-40:])
def test_a_part_without_a_horizon_is_refused(told, place):
    is_horizon = "horizon=" in place or "lr_decay_steps=" in place
    rule = "is the horizon itself" if is_horizon else "is a part of the horizon, which is not given"
    with pytest.raises(ConfigError, match=pattern(f"{place}: {rule}")):
        build(told)


def test_a_horizon_that_is_none_is_refused_by_its_own_name_where_parts_are_given():
    with pytest.raises(ConfigError, match=r"^lr_decay_steps=True: must be a number"):
        build({**SEEDS, "lr_warmup_steps": 0.03, "lr_decay_steps": True})


# What is refused: files.


@pytest.mark.parametrize("value", [3, None, b"run.json", ["run.json"]], ids=repr)
def test_what_is_neither_mapping_nor_path_is_refused(value):
    rule = "must be a mapping, or a path of a file that holds one"
    with pytest.raises(ConfigError, match=f"config={re.escape(repr(value))}: {rule}"):
        build(value)


BROKEN = [
    ("run.txt", "{}", "the name must end in one of '.json', '.yaml', '.yml', '.toml'"),
    ("run", "{}", "the name must end in one of"),
    ("run.json.bak", "{}", "the name must end in one of"),
    ("run.json", "", "is not valid: Expecting value"),
    ("run.json", '{"a": }', "is not valid: Expecting value: line 1"),
    ("run.json", '{"unit": "steps", "unit": "steps"}', "is not valid: 'unit' stands twice"),
    ("run.json", '{"fields": {"lr": 1, "lr": 2}}', "is not valid: 'lr' stands twice"),
    ("run.json", "[1]", "must hold a mapping, not [1]"),
    ("run.json", "null", "must hold a mapping, not None"),
    ("run.json", '{"a": "\xff"}'.encode("latin-1"), "is not valid: 'utf-8' codec"),
    ("run.json", "[" * 100_000, "is not valid: "),
    ("run.json", f'{{"a": {"9" * 5000}}}', "is not valid: "),
    ("run.yaml", "", "must hold a mapping, not None"),
    ("run.yaml", "- 1", "must hold a mapping, not [1]"),
    ("run.yaml", "lr", "must hold a mapping, not 'lr'"),
    ("run.yaml", "a: [1", "is not valid: while parsing a flow sequence"),
    ("run.yaml", "a: 1\n---\nb: 2", "is not valid: expected a single document"),
    ("run.yaml", "unit: steps\nunit: steps", "is not valid: 'unit' stands twice"),
    ("run.yml", "fields: {lr: 1, lr: 2}", "is not valid: 'lr' stands twice"),
    ("run.yaml", "fields: [{lr: 1, lr: 2}]", "is not valid: 'lr' stands twice"),
    ("run.yaml", "a: \xff".encode("latin-1"), "is not valid: 'utf-8' codec"),
    ("run.yaml", "[" * 3000, "is not valid: "),
    ("run.yaml", "a: &a [*a]", "is not valid: found unconstructable recursive node"),
    ("run.yaml", "? [a]\n: 1", "is not valid: a tag or a name does not fit"),
    ("run.yaml", "a: !!int ''", "is not valid: a tag or a name does not fit"),
    ("run.yaml", "a: !!timestamp x", "is not valid: a tag or a name does not fit"),
    ("run.yaml", "a: !!bool x", "is not valid: a tag or a name does not fit"),
    ("run.yaml", "!!map [[a, b]]", "is not valid: "),
    ("run.yaml", "fields: {lr: {schedule: linear, 3: 4}}", "lr: 3 is not known here"),
    ("run.yaml", "fields: {3: 4}", "field=3: must be a text"),
    ("run.yaml", "on: 1", "True is not known here"),
    pytest.param("run.toml", "", "init_lr is missing", marks=needs_toml),
    pytest.param("run.toml", "a = ", "is not valid: Invalid value", marks=needs_toml),
    pytest.param("run.toml", "a = 1\na = 2", "is not valid: ", marks=needs_toml),
    pytest.param("run.toml", b"a = '\xff'", "is not valid: 'utf-8' codec", marks=needs_toml),
    pytest.param("run.toml", "a = " + "[" * 100_000, "is not valid: ", marks=needs_toml),
    pytest.param(
        "run.toml",
        "fields = 1979-05-27",
        "fields=datetime.date(1979, 5, 27): must be a mapping",
        marks=needs_toml,
    ),
]


@pytest.mark.parametrize("name, content, message", BROKEN, ids=lambda row: str(row)[:40])
def test_a_file_that_cannot_be_used_is_refused_by_its_name(file, name, content, message):
    path = file(name, content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {pattern(message)}"):
        build(path)


@pytest.mark.parametrize("ending", ["json", "yaml", "yml", "toml"])
def test_a_missing_file_is_refused_by_its_name(tmp_path, ending):
    with pytest.raises(ConfigError, match=f"run.{ending}: cannot be read: No such file"):
        build(tmp_path / f"run.{ending}")


@pytest.mark.parametrize("ending", ["json", "yaml", "yml", "toml"])
def test_a_folder_is_refused_by_its_name(tmp_path, ending):
    (tmp_path / f"run.{ending}").mkdir()
    with pytest.raises(ConfigError, match=f"run.{ending}: cannot be read: "):
        build(str(tmp_path / f"run.{ending}"))


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:pathlib.Path.touch [{path}]",
        "!!python/object/new:pathlib.Path [{path}]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
        "!own {{}}",
    ],
)
def test_a_yaml_tag_that_makes_objects_is_refused_and_not_executed(tmp_path, file, tag):
    mark = tmp_path / "executed"
    with pytest.raises(ConfigError, match=r"run.yaml: is not valid: could not determine"):
        build(file("run.yaml", f"fields: {tag.format(path=mark)}"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "ending, needs", [("yaml", "PyYAML"), ("yml", "PyYAML"), ("toml", "tomli")]
)
def test_a_parser_that_is_not_installed_is_named(file, monkeypatch, ending, needs):
    for module in ("yaml", "tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"run.{ending}: reading .* needs {needs}: pip install"):
        build(file(f"run.{ending}", ""))


def test_json_needs_no_parser_to_be_installed(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert 1.0 == build(file("run.json", json.dumps(SEEDS))).max_lr


def test_a_name_that_yaml_merges_may_be_given_again(file):
    text = """
    fields:
      lr: &lr {schedule: linear, peak: 1.0, horizon: 100}
      weight_decay: {<<: *lr, peak: 0.1}
    """
    found = build(file("run.yaml", text)).to_config()["fields"]["weight_decay"]
    assert schedules.linear(0.1, 100).to_dict() == found


# What the page shows.

PAGE = (ROOT / "docs/configuration.md").read_text()
BLOCKS = re.findall(r"```(yaml|toml|json)\n(.*?)```", PAGE, re.DOTALL)
SHOWN = [pytest.param(*block, marks=[needs_toml] * (block[0] == "toml")) for block in BLOCKS]


@pytest.mark.parametrize("ending, text", SHOWN)
def test_what_the_page_shows_gives_a_scheduler(file, ending, text):
    found = build(file(f"run.{ending}", text))
    assert ("fields" in text) is isinstance(found, ParamScheduler)
    assert found.to_config() == build(found.to_config()).to_config()


def held(scheduler, position, key):
    scheduler.seek(position)
    return scheduler.optimizer.param_groups[1][key]


def test_the_pages_recipe_has_the_values_that_it_says(file):
    scheduler = build(file("run.yaml", BLOCKS[0][1]))
    lr = [held(scheduler, position, "lr") for position in (0, 2_000, 90_000, 95_000, 100_000)]
    assert [0.0, 3e-4, 3e-5, 1.5e-5, 0.0] == pytest.approx(lr)
    assert [0.85, 0.9, 0.95, 0.95] == pytest.approx(
        [held(scheduler, position, "momentum") for position in (0, 150, 300, 100_000)]
    )
    assert [0.1, 0.05, 0.0] == pytest.approx(
        [held(scheduler, position, "weight_decay") for position in (0, 50_000, 100_000)]
    )


def test_the_page_shows_each_format():
    assert {"yaml", "toml", "json"} == {ending for ending, _ in BLOCKS}


@pytest.mark.parametrize("name", schedules.LENGTHS)
def test_the_page_names_every_length(name):
    assert f"`{name}`" in PAGE


def test_the_near_miss_of_fields_is_named_before_what_belongs_to_it():
    with pytest.raises(ConfigError, match="did you mean 'fields'"):
        build({"horizon": 10, "fieldz": {"lr": 1.0}})


def test_a_number_beyond_all_is_refused_by_name():
    with pytest.raises(ConfigError, match="horizon='1e999999999': must be a number of units"):
        build({"horizon": "1e999999999", "fields": {"lr": 1.0}})


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"fields": {"lr": 0.5}}), encoding="utf-8-sig")
    assert 0.5 == build(path).optimizer.param_groups[0]["lr"]
