"""`from_config` and `to_config`: what data declares, what is read back, what is refused."""

from __future__ import annotations

import json
import math
import re
import tomllib

import numpy as np
import pytest
import tomli_w
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
from helpers import CONFIG, adamw, held, sgd, text_of

ENTRIES = {**CONFIG, "lr_decay_steps": 100_000, "lr_decay_style": "cosine"}
RISE = {"shape": "linear", "steps": 10, "start": 0.0, "end": 1.0}
FALL = {"shape": "cosine", "steps": 90, "end": 0.1}
PHASES = {"phases": [RISE, FALL]}
SPECIFICATION = {"fields": {"lr": PHASES, "momentum": 0.9}, "groups": {"head": {"lr": 0.5}}}

quick = settings(max_examples=25, deadline=None, database=None)


def optimizer():
    groups = [{"name": name} for name in ("embed.tokens", "body", "head")]
    return sgd(*groups, momentum=0.9, weight_decay=0.1)


def build(data):
    return from_config(optimizer(), data)


def lr_of(scheduler):
    fields = text_of(scheduler.state_dict())["specification"]["fields"]
    return Schedule.from_dict(fields["lr"])


def lr_from(data, **others):
    return lr_of(build({"fields": {"lr": data}, **others}))


def policy_of(scheduler):
    return scheduler.to_config().get("policy", "checkpoint")


# What mappings declare


def test_a_mapping_of_entries_gives_an_optimizer_param_scheduler():
    expected = OptimizerParamScheduler(optimizer(), **ENTRIES)
    assert expected.state_dict() == build(ENTRIES).state_dict()


def test_a_mapping_with_fields_gives_a_param_scheduler():
    lr = Schedule([Phase("linear", 10, 1.0, 0.0), Phase("cosine", 90, 0.1)])
    fields, groups = {"lr": lr, "momentum": 0.9}, {"head": {"lr": 0.5}}
    expected = ParamScheduler(optimizer(), fields, groups=groups)
    assert expected.state_dict() == build(SPECIFICATION).state_dict()


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


@pytest.mark.parametrize("written, expected", LENGTHS, ids=str)
def test_a_length_among_entries_may_be_written_for_people(written, expected):
    assert expected == build({**ENTRIES, "wd_incr_steps": written}).wd_incr_steps


SOME_LENGTHS = [(37.5, 37.5), (0.03, 3_000), ("3%", 3_000), ("0.5", 0.5), ("0.025M", 25_000)]


@pytest.mark.parametrize("written, expected", [*SOME_LENGTHS, (0, 0)], ids=str)
def test_a_length_of_a_phase_may_be_written_for_people(written, expected):
    found = lr_from({"phases": [{**RISE, "steps": written}]}, horizon="100k")
    assert expected == found.phases[0].steps


@pytest.mark.parametrize("written, expected", SOME_LENGTHS, ids=str)
def test_a_length_of_a_named_schedule_may_be_written_for_people(written, expected):
    found = lr_from({"schedule": "constant", "peak": 1.0, "warmup": written}, horizon="100k")
    assert [expected, 100_000 - expected] == [phase.steps for phase in found.phases]


def test_every_length_among_entries_may_be_a_part_of_the_horizon():
    parts = {"lr_warmup_steps": 0.02, "wd_incr_steps": "50%", "wsd_decay_steps": 0.1}
    data = {**ENTRIES, **parts, "lr_decay_style": "WSD", "lr_wsd_decay_style": "cosine"}
    found = build({**data, "lr_decay_steps": "1.5B"})
    lengths = (found.lr_warmup_steps, found.wd_incr_steps, found.wsd_decay_steps)
    assert (30_000_000, 750_000_000, 150_000_000) == lengths
    assert 1_500_000_000 == found.lr_decay_steps


@pytest.mark.parametrize("scalar", [np.float64(0.25), np.float32(0.25), torch.tensor(0.25)])
def test_a_part_may_be_a_scalar_of_another_library(scalar):
    expected = schedules.linear(1.0, 100, warmup=25)
    assert expected == lr_from({"schedule": "linear", "peak": 1.0, "warmup": scalar}, horizon=100)


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
    "power": {"warmup": 10, "decay": 20, "exponent": -0.5},
    "piecewise": {"points": [[0, 0.0], [20, 1.0], [60, 0.5]], "shape": "cosine"},
}
for name in set(ARGUMENTS) - {"piecewise"}:
    ARGUMENTS[name] = {"peak": 1.0, **ARGUMENTS[name]}


@pytest.mark.parametrize("name", schedules.NAMED)
def test_a_named_schedule_is_what_its_function_gives(name):
    data = {"schedule": name, "horizon": 100, **ARGUMENTS[name]}
    expected = schedules.NAMED[name](horizon=100, **ARGUMENTS[name])
    assert expected == lr_from(data)


def written(name, value):
    """Write what is a length as a part of 100 units."""
    if name not in schedules.LENGTHS:
        return value
    if name == "points":
        return [[f"{position}%", one] for position, one in value]
    return [one / 100 for one in value] if isinstance(value, list) else f"{value}%"


@pytest.mark.parametrize("name", schedules.NAMED)
def test_every_length_of_a_named_schedule_may_be_a_part_of_the_horizon_around(name):
    parts = {key: written(key, value) for key, value in ARGUMENTS[name].items()}
    expected = schedules.NAMED[name](horizon=100, **ARGUMENTS[name])
    assert expected == lr_from({"schedule": name, **parts}, horizon=100)


def test_points_that_end_before_the_horizon_stay_at_their_last_value():
    found = lr_from({"schedule": "piecewise", "points": [[0, 0], [2, 1]]}, horizon=10)
    assert (10, 1.0) == (found.horizon, found(5))


@pytest.mark.parametrize("own, expected", [(50, 50), (0.5, 100), ("25%", 50), ("0.5", 0.5)])
def test_a_named_schedule_may_have_a_horizon_of_its_own(own, expected):
    data = {"schedule": "linear", "peak": 1.0, "warmup": 0.1, "horizon": own}
    found = lr_from(data, horizon=200)
    assert [expected / 10, expected] == [found.phases[0].steps, found.horizon]


@pytest.mark.parametrize("own, expected", [(50, 5), (0.5, 10), ("25%", 5)])
def test_phases_may_have_a_horizon_of_their_own(own, expected):
    data = {"horizon": own, "phases": [{**RISE, "steps": 0.1}]}
    assert expected == lr_from(data, horizon=200).horizon


def test_a_horizon_of_half_a_unit_is_half_a_unit():
    data = {"schedule": "linear", "peak": 1.0}
    assert 0.5 == lr_from(data, horizon="0.5").horizon


def test_phases_may_be_parts_and_have_suffixes_side_by_side():
    shaped = {"shape": "multistep", "steps": 0.5, "end": 0.1, "milestones": [0.2, "400"]}
    cut = {"shape": "linear", "steps": "40%", "until": 0.1, "end": 0.0}
    found = lr_from({"phases": [{**RISE, "steps": "0.1k"}, shaped, cut]}, horizon="1k")
    expected = [
        Phase("linear", 100, 1.0, 0.0),
        Phase("multistep", 500, 0.1, milestones=[200, 400]),
        Phase("linear", 400, 0.0, until=100),
    ]
    assert Schedule(expected) == found


def test_a_field_may_follow_another():
    fields = {"lr": PHASES, "weight_decay": {"peak": 0.1, "to": "lr"}}
    scheduler = build({"fields": fields})
    scheduler.seek(5)
    assert 0.05 == scheduler.optimizer.param_groups[0]["weight_decay"]


def test_groups_may_have_a_multiplier_or_a_schedule():
    own = {"schedule": "linear", "peak": 0.5, "warmup": 0.1}
    groups = {"embed*": {"lr": 0.25}, "head": {"lr": own}}
    scheduler = build({"horizon": 100, "fields": {"lr": PHASES}, "groups": groups})
    scheduler.seek(10)
    assert [0.25, 1.0, 0.5] == scheduler.get_last_lr()


def test_a_mapping_may_hold_schedules_made_by_code():
    lr = schedules.cosine(1.0, 100)
    fields = {"lr": lr, "weight_decay": schedules.proportional_to(at_max=0.1)}
    assert ParamScheduler(optimizer(), fields).to_config() == build({"fields": fields}).to_config()


BOTH = pytest.mark.parametrize("data", [ENTRIES, SPECIFICATION], ids=["entries", "fields"])


@BOTH
def test_the_unit_is_used(data):
    assert "tokens" == build({**data, "unit": "tokens"}).unit


@pytest.mark.parametrize("data", [ENTRIES, {"fields": {"lr": PHASES}}], ids=["entries", "fields"])
def test_keep_group_ratios_is_used(data):
    scheduler = from_config(sgd({}, {"lr": 0.5}), {**data, "keep_group_ratios": False})
    scheduler.seek(10)
    assert [1.0, 1.0] == scheduler.get_last_lr()


@pytest.mark.parametrize("word", ["checkpoint", "config", "strict"])
def test_a_policy_may_be_a_word(word):
    assert word == policy_of(build({**ENTRIES, "policy": word}))


@pytest.mark.parametrize(
    "data, entry", [(ENTRIES, "lr_decay_steps"), (SPECIFICATION, "lr.phases[1]")], ids=str
)
def test_a_policy_may_be_a_mapping(data, entry):
    policy = {entry: "config", "unit": "config", "*": "strict"}
    assert policy == policy_of(build({**data, "policy": policy}))


@pytest.mark.parametrize(
    "use, override, word",
    [(True, False, "checkpoint"), (False, True, "config"), (False, False, "strict")],
)
def test_megatrons_booleans_mean_a_policy(use, override, word):
    booleans = {
        "use_checkpoint_opt_param_scheduler": use,
        "override_opt_param_scheduler": override,
    }
    assert word == policy_of(build({**ENTRIES, **booleans}))


def test_a_policy_argument_replaces_the_one_of_the_source():
    scheduler = from_config(optimizer(), {**ENTRIES, "policy": "strict"}, policy="config")
    assert "config" == policy_of(scheduler)


def test_a_policy_argument_replaces_megatrons_booleans_too():
    source = {**ENTRIES, "use_checkpoint_opt_param_scheduler": False}
    assert "config" == policy_of(from_config(optimizer(), source, policy="config"))


def test_a_source_without_a_policy_declares_none():
    assert files.read(ENTRIES).policy is None


@st.composite
def drawn_phases(draw, *, is_first):
    shape = draw(st.sampled_from(shapes()))
    steps = draw(st.integers(1, 500) | st.floats(0.01, 500))
    own = {"milestones": [steps / 4, steps / 2]} if shape == "multistep" else {}
    if shape in {"inverse_sqrt", "log"}:
        own = {"timescale": draw(st.floats(0.1, 3))}
    if shape in {"minus_power", "exponential_to_zero"}:
        own = {"power" if shape == "minus_power" else "ratio": draw(st.floats(0.1, 0.9))}
    end = draw(st.floats(0.1, 1))
    start = draw(st.floats(0.1, 1)) if is_first or draw(st.booleans()) else None
    until = draw(st.none() | st.just(steps / 3))
    start = end if shape == "constant" else start
    data = {"shape": shape, "steps": steps, "end": end, "start": start, "until": until, **own}
    return Phase.from_dict(data)


@st.composite
def drawn_schedules(draw):
    count = draw(st.integers(1, 4))
    return Schedule(draw(drawn_phases(is_first=not index)) for index in range(count))


follows = st.floats(0, 1).map(lambda peak: schedules.proportional_to(at_max=peak))


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
        **ENTRIES,
        "max_lr": high,
        "min_lr": low,
        "lr_warmup_steps": lengths[0],
        "lr_decay_steps": lengths[0] + lengths[1],
        "wd_incr_steps": lengths[2],
    }


length = st.integers(1, 2**40) | st.floats(1, 1e6)


drawn_entries = st.builds(
    entries_of, st.floats(0, 1e-3), st.floats(1e-3, 1), st.tuples(*[length] * 3)
)


THROUGH = {
    "json": lambda data: json.loads(json.dumps(data)),
    "yaml": lambda data: yaml.safe_load(yaml.safe_dump(data, sort_keys=False)),
    "toml": lambda data: tomllib.loads(tomli_w.dumps(data)),
}


def assert_read_back(scheduler, through):
    again = build(THROUGH[through](scheduler.to_config()))
    assert scheduler.to_config() == again.to_config()
    assert type(scheduler) is type(again)
    return again


@pytest.mark.parametrize("through", sorted(THROUGH))
@quick
@given(data=specified())
def test_any_specification_is_read_back(through, data):
    scheduler = ParamScheduler(optimizer(), **data)
    assert scheduler.state_dict() == assert_read_back(scheduler, through).state_dict()


@quick
@given(data=drawn_entries, others=st.fixed_dictionaries({"unit": settings_drawn["unit"]}))
def test_any_config_of_entries_is_read_back(data, others):
    scheduler = OptimizerParamScheduler(optimizer(), **data, **others)
    assert scheduler.state_dict() == assert_read_back(scheduler, "json").state_dict()


@pytest.mark.parametrize("horizon", ["0.5", "0.75", 1])
def test_a_horizon_of_less_than_a_unit_is_read_back(horizon):
    scheduler = build({**ENTRIES, "lr_decay_steps": horizon, "lr_warmup_steps": "0.25"})
    assert scheduler.state_dict() == assert_read_back(scheduler, "json").state_dict()


def test_what_is_shorter_than_a_unit_is_given_as_a_text():
    phase = {**RISE, "steps": "0.75", "until": "0.5"}
    data = {"fields": {"lr": {"phases": [phase]}}, "groups": {}}
    assert data == build(data).to_config()


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
    assert ENTRIES == build({**ENTRIES, "policy": "checkpoint", "unit": "steps"}).to_config()


def test_settings_that_are_not_the_default_are_read_back():
    others = {"unit": "tokens", "policy": "strict", "keep_group_ratios": False}
    assert {**others, **ENTRIES} == build({**ENTRIES, **others}).to_config()


LATE_CHANGES = {
    "cooldown": lambda scheduler: scheduler.cooldown(20),
    "rewarm": lambda scheduler: scheduler.rewarm(1.5),
    "extend": lambda scheduler: scheduler.extend(200_000, allow_jump=True),
}


def lr_at_some_positions(scheduler):
    found = []
    for position in (0, 5, 50, 51, 60, 70, 150_000, 300_000):
        scheduler.seek(position)
        found.append(scheduler.get_last_lr())
    return found


@pytest.mark.parametrize("operation", LATE_CHANGES)
def test_a_late_change_is_read_back(operation):
    scheduler = build(SPECIFICATION)
    scheduler.seek(50)
    LATE_CHANGES[operation](scheduler)
    again = assert_read_back(scheduler, "json")
    assert lr_at_some_positions(scheduler) == lr_at_some_positions(again)


@pytest.mark.parametrize("operation", ["cooldown", "extend"])
def test_a_late_change_of_entries_is_read_back(operation):
    scheduler = build({**ENTRIES, "lr_decay_style": "constant"})
    scheduler.seek(50)
    LATE_CHANGES[operation](scheduler)
    again = assert_read_back(scheduler, "json")
    assert lr_at_some_positions(scheduler) == lr_at_some_positions(again)


@pytest.mark.parametrize("through", sorted(THROUGH))
def test_a_file_says_the_shape_of_a_warmup_and_its_parameters(through):
    shape = {"shape": "log", "timescale": "5%"}
    data = {"schedule": "linear", "peak": "1.0", "warmup": 10, "warmup_shape": shape}
    shape = {"shape": "log", "timescale": 5}
    expected = schedules.linear(1.0, 100, 10, warmup_shape=shape)
    assert expected == lr_from(THROUGH[through](data), horizon=100)


@pytest.mark.parametrize("through", sorted(THROUGH))
def test_a_file_says_points_as_lengths_and_numbers(through):
    points = [[0, 0], ["2k", "1e-3"], [0.8, 1e-3], ["100%", 0]]
    expected = schedules.piecewise([(0, 0), (2_000, 1e-3), (8_000, 1e-3), (10_000, 0)])
    assert expected == lr_from(
        THROUGH[through]({"schedule": "piecewise", "points": points}), horizon="10k"
    )


# What is refused


def pattern(message):
    return ".*".join(map(re.escape, message.split(".*")))


def of_lr(**data):
    return {"fields": {"lr": data}}


def in_phase(**data):
    return of_lr(phases=[{**RISE, **data}])


LINEAR = {"schedule": "linear", "peak": 1.0, "horizon": 100}


UNKNOWN = [
    ({**ENTRIES, "max_lrs": 1}, "'max_lrs' is not known here; did you mean 'max_lr'?"),
    ({**ENTRIES, "units": "steps"}, "'units' is not known here; did you mean 'unit'?"),
    ({"field": {}}, "'field' is not known here; did you mean 'fields'?"),
    ({**ENTRIES, "groups": {}}, "'groups' is not allowed without 'fields'"),
    ({**ENTRIES, "horizon": 5}, "'horizon' is not allowed without 'fields'"),
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
    ({**ENTRIES, "unit": "token"}, "unit='token': .*did you mean 'tokens'?"),
    ({**ENTRIES, "lr_decay_style": "cosin"}, "lr_decay_style='cosin': .*did you mean 'cosine'?"),
]


MISSING = [
    ({}, "init_lr is missing; max_lr is missing"),
    ({key: ENTRIES[key] for key in ENTRIES if key != "max_lr"}, "max_lr is missing"),
    ({"fields": {}}, "fields={}: pass at least one field"),
    (of_lr(), "schedule={}: must have one of schedule, phases (a list), points"),
    (of_lr(horizon=5), "must have one of schedule, phases (a list), points"),
    (of_lr(to="lr"), "lr: peak is missing"),
    (of_lr(schedule="linear", peak=1.0), "lr: linear: lacks horizon"),
    (of_lr(schedule="linear", horizon=5), "lr: linear: lacks peak"),
    (of_lr(phases=[]), "phases: there are 0"),
    (of_lr(phases=[{"shape": "linear"}]), "lr: phases[0]: phase={'shape': 'linear'}: lacks steps"),
    (of_lr(phases=[FALL]), "phases[0].start=None: the first phase needs"),
]


VALUES = [
    ({"fields": 3}, "fields=3: must be a mapping"),
    ({"fields": [1]}, "fields=[1]: must be a mapping"),
    ({**SPECIFICATION, "groups": None}, "groups=None: must be a mapping"),
    ({**SPECIFICATION, "groups": {"head": 3}}, "groups[head]=3: must be a mapping"),
    ({**SPECIFICATION, "unit": 3}, "unit=3: must be one of"),
    ({**SPECIFICATION, "keep_group_ratios": "no"}, "keep_group_ratios='no': must be True or False"),
    ({**SPECIFICATION, "policy": 3}, "policy=3: must be one of"),
    ({**SPECIFICATION, "policy": {"lrs": "config", "*": "strict"}}, "policy has the key 'lrs'"),
    (
        {**SPECIFICATION, "override_opt_param_scheduler": True},
        "'override_opt_param_scheduler': not allowed with fields or extras; use policy",
    ),
    (
        {**ENTRIES, "use_checkpoint_opt_param_scheduler": 1},
        "use_checkpoint_opt_param_scheduler=1: must be True or False",
    ),
    (
        {**ENTRIES, "use_checkpoint_opt_param_scheduler": False, "policy": "config"},
        "policy='config' replaces",
    ),
    (of_lr(phases=3), "phases=3: must be a list of phases"),
    (of_lr(phases=[3]), "lr: phases[0]: phase=3: must be a mapping"),
    (of_lr(**LINEAR, warmup=200), "lr: linear: warmup=200: must be at most horizon=100"),
    (of_lr(**{**LINEAR, "peak": "high"}), "lr: linear: peak='high': must be a number"),
    (of_lr(**LINEAR, **{"3": 1}), "lr: linear: '3' is not known"),
    (of_lr(schedule=[1]), "schedule=[1]: must be one of"),
    ({"fields": {"lr": [1]}}, "lr=[1]: must be a schedule"),
    (
        {"fields": {"lr": {"peak": 1, "to": "lr"}}},
        "lr.to='lr': must be a field or an extra with a schedule",
    ),
    ({"fields": {"lr": 1, "momentum": {"peak": 1, "to": "rl"}}}, "momentum.to='rl': must be"),
    ({"fields": {"momentun": 1}}, "momentun: no group .*did you mean 'momentum'"),
]


@pytest.mark.parametrize("data, message", UNKNOWN, ids=lambda row: str(row)[-60:])
def test_an_unknown_name_is_refused_and_the_near_miss_named(data, message):
    with pytest.raises(ConfigError, match=pattern(message)):
        build(data)


@pytest.mark.parametrize("data, message", MISSING, ids=lambda row: str(row)[-60:])
def test_what_is_missing_is_named(data, message):
    with pytest.raises(ConfigError, match=pattern(message)):
        build(data)


@pytest.mark.parametrize("data, message", VALUES, ids=lambda row: str(row)[-60:])
def test_an_illegal_value_is_refused_by_place_value_and_rule(data, message):
    with pytest.raises(ConfigError, match=pattern(message)):
        build(data)


NO_NUMBERS = [math.nan, math.inf, -math.inf, -1, -0.5, True, False, "nan", "-inf", "five", [], {}]


@pytest.mark.parametrize(
    "name, value",
    [
        *(("wd_incr_steps", value) for value in NO_NUMBERS),
        *((name, "five") for name in ENTRIES if not name.endswith("_style")),
    ],
    ids=repr,
)
def test_an_entry_that_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"{name}=.*must be a"):
        build({**ENTRIES, name: value})


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


@pytest.mark.parametrize(
    "place, value",
    [
        *(("lr: phases[0].*steps", value) for value in NO_NUMBERS[:-1]),
        *(("groups[head].lr", value) for value in NO_NUMBERS[:-1]),
        *((place, value) for place in PLACES for value in (True, "five")),
    ],
    ids=repr,
)
def test_what_is_no_number_is_refused_where_it_stands(place, value):
    with pytest.raises(ConfigError, match=rf"{pattern(place)}=.*must be a"):
        build(PLACES[place](value))


WRONG_LENGTHS = ["2m", "2kk", "2KB", "k", "%", "", " ", "3 % %", "0x10", "five", "1e99", "NaN%"]


@pytest.mark.parametrize("value", WRONG_LENGTHS)
def test_a_length_of_another_suffix_is_refused_and_the_suffixes_listed(value):
    rule = r"must be .* may have a suffix \('k', 'K', 'M', 'B', 'G', 'T'\), or a percent"
    with pytest.raises(ConfigError, match=f"wd_incr_steps={value!r}: {rule}"):
        build({**ENTRIES, "wd_incr_steps": value})
    with pytest.raises(ConfigError, match=rf"lr: phases\[0\].steps={value!r}: {rule}"):
        build(in_phase(steps=value))


WITHOUT_HORIZON = [
    (in_phase(steps=0.03), "lr: phases[0].steps=0.03"),
    (in_phase(steps="3%"), "lr: phases[0].steps='3%'"),
    (of_lr(schedule="linear", peak=1.0, warmup=0.03), "lr: warmup=0.03"),
    (of_lr(**{**LINEAR, "horizon": 0.5}), "lr: horizon=0.5"),
    ({**SPECIFICATION, "horizon": "50%"}, "horizon='50%'"),
    ({**ENTRIES, "lr_decay_steps": 0.5}, "lr_decay_steps=0.5"),
]


@pytest.mark.parametrize("data, place", WITHOUT_HORIZON, ids=lambda row: str(row)[-40:])
def test_a_part_without_a_horizon_is_refused(data, place):
    is_horizon = "horizon=" in place or "lr_decay_steps=" in place
    rule = "is the horizon, and" if is_horizon else "is a fraction of the horizon, which is missing"
    with pytest.raises(ConfigError, match=pattern(f"{place}: {rule}")):
        build(data)


def test_a_horizon_that_is_none_is_refused_by_its_own_name_where_parts_are_given():
    with pytest.raises(ConfigError, match=r"^lr_decay_steps=True: must be a number"):
        build({**ENTRIES, "lr_warmup_steps": 0.03, "lr_decay_steps": True})


@pytest.mark.parametrize("value", [3, None, b"run.json", ["run.json"]], ids=repr)
def test_what_is_neither_mapping_nor_path_is_refused(value):
    rule = "must be a mapping, or the path of a config file"
    with pytest.raises(ConfigError, match=f"config={re.escape(repr(value))}: {rule}"):
        build(value)


def test_the_near_miss_of_fields_is_named_before_what_belongs_to_it():
    with pytest.raises(ConfigError, match="did you mean 'fields'"):
        build({"horizon": 10, "fieldz": {"lr": 1.0}})


def test_a_number_beyond_all_is_refused_by_name():
    with pytest.raises(ConfigError, match="horizon='1e999999999': must be a number of units"):
        build({"horizon": "1e999999999", "fields": {"lr": 1.0}})


@pytest.mark.parametrize(
    "written, reference",
    [("3e-4", 3e-4), ("head", "head"), ("{lr: 3e-4, weight_decay: head}", None)],
)
def test_a_file_says_the_reference_and_the_name(tmp_path, written, reference):
    path = tmp_path / "run.yaml"
    path.write_text(
        "fields:\n  lr: {schedule: linear, peak: 1.0, horizon: 100}\n  weight_decay: 0.1\n"
        f"reference: {written}\nname: generator\n"
    )
    optimizer = adamw({"lr": 3e-4, "name": "head"}, {"lr": 6e-4}, weight_decay=0.1)
    scheduler = from_config(optimizer, path)
    assert [1.0, 2.0] == held(optimizer)
    mapping = scheduler.to_config()
    expected = reference or {"lr": 3e-4, "weight_decay": "head"}
    assert (expected, "generator") == (mapping["reference"], mapping["name"])
    assert "generator" == from_config(optimizer, mapping).name
