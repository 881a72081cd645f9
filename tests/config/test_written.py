"""Schedules as files have them: every construct, what is refused, and what is read back."""

from __future__ import annotations

import json
import time

import pytest
import tomli_w
import yaml

from dist_sched import ConfigError, ParamScheduler, from_config
from dist_sched._config import files
from helpers import sgd

STAGES = {"points": [[0, 2], [10, 4]], "shape": "step"}
"""Items of an update: 2 for five updates, up to position 10, and then 4."""
BATCH_SIZE = {"extras": {"batch_size": STAGES}}
PACE = {**BATCH_SIZE, "per_update": {"extra": "batch_size"}}
DOWN = {"schedule": "linear", "peak": 1, "horizon": 10}
"""1, 0.5 at 5, 0 from 10 on."""


def config(lr, **beside):
    return files.read({**beside, "fields": {"lr": lr}}).config


def read(lr, **beside):
    return config(lr, **beside).fields["lr"]


def values(schedule, *positions):
    return [schedule(position) for position in positions]


# What is written


@pytest.mark.parametrize(
    "written, expected",
    [
        (
            {"phases": [{**DOWN, "floor": 0.5}, {"shape": "linear", "steps": 10, "end": 0}]},
            {0: 1, 5: 0.75, 10: 0.5, 15: 0.25, 20: 0},
        ),
        (
            {"phases": [{"shape": "linear", "steps": 4, "start": 0, "end": 1}, DOWN]},
            {0: 0, 2: 0.5, 4: 1, 9: 0.5, 14: 0},
        ),
        ({"phases": [{"phases": [DOWN]}, DOWN]}, {5: 0.5, 10: 1, 15: 0.5}),
        ({"phases": [{"points": [[0, 4], [2, 2]], "shape": "cosine"}]}, {0: 4, 1: 3, 2: 2}),
        ({"phases": [{**DOWN, "repeat": 2}, {**DOWN, "since": 5}]}, {15: 0.5, 20: 0.5, 25: 0}),
        ({"phases": [{**DOWN, "until": 5}, {**DOWN, "peak": 2}]}, {4: 0.6, 5: 2, 10: 1}),
        ({"phases": [{"product": [DOWN, 4]}, {**DOWN, "peak": 2}]}, {5: 2, 10: 2, 15: 1}),
        ({"product": [DOWN, 0.5]}, {0: 0.5, 5: 0.25, 10: 0}),
        ({"product": ["5e-1", DOWN, DOWN]}, {0: 0.5, 5: 0.125, 10: 0}),
        ({"product": [DOWN, {"product": [DOWN, {"product": [4, DOWN]}]}]}, {0: 4, 5: 0.5, 10: 0}),
        ({"product": [DOWN, {"phases": [{**STAGES}]}]}, {0: 2, 5: 1, 9: 0.2, 10: 0}),
        ({**DOWN, "repeat": 3}, {0: 1, 5: 0.5, 10: 1, 29: 0.1, 30: 0}),
        ({**DOWN, "repeat": 3, "factors": 0.5}, {0: 1, 10: 0.5, 20: 0.25, 25: 0.125}),
        ({**DOWN, "repeat": "3", "factors": [1, "4e-1", 0.2]}, {0: 1, 10: 0.4, 20: 0.2}),
        ({"product": [DOWN, 2], "repeat": 2, "factors": 3}, {0: 2, 10: 6, 15: 3}),
        ({**DOWN, "since": 2, "until": 5}, {0: 0.8, 2: 0.6, 3: 0.5, 9: 0.5}),
        ({**DOWN, "since": "20%", "until": 0.5}, {0: 0.8, 2: 0.6, 3: 0.5, 9: 0.5}),
        ({**DOWN, "repeat": 2, "until": 15}, {14: 0.6, 15: 0.5, 99: 0.5}),
        ({**DOWN, "peak": 10, "multiple_of": 4}, {0: 8, 2: 8, 3: 4, 6: 4, 7: 0}),
        ({"points": [[0, 0], [4, 2], ["100%", 1]], "horizon": "10"}, {2: 1, 4: 2, 7: 1.5, 10: 1}),
        (
            {
                "schedule": "piecewise",
                "points": [[0, 1], ["0.1k", "1e0"], [0.2, 3]],
                "horizon": 1000,
            },
            {150: 2},
        ),
        ({"schedule": "constant", "peak": 1, "warmup": 4, "warmup_shape": "minus_sqrt"}, {1: 0.5}),
        (
            {
                "schedule": "constant",
                "peak": 1,
                "warmup": 4,
                "warmup_shape": {"shape": "minus_power", "power": "2"},
            },
            {0: 0, 1: 1 / 16, 2: 0.25, 4: 1},
        ),
    ],
)
def test_what_is_written_has_the_values_of_a_calculation_by_hand(written, expected):
    assert [*expected.values()] == pytest.approx(values(read(written), *expected))


def test_a_product_follows_an_extra_by_a_power():
    batch_size = {"points": [[0, 4], [10, 16]], "shape": "step"}
    follower = {"to": "batch_size", "peak": 1, "power": "0.5"}
    lr = read({"product": [DOWN, follower]}, extras={"batch_size": batch_size})
    assert [0.5, 0.25, 0.05, 0] == pytest.approx(values(lr, 0, 5, 9, 10))


def test_values_of_a_rounded_extra_are_whole_numbers():
    extra = {"points": [[0, 64], [100, 256]], "multiple_of": "64"}
    found = files.read({"extras": {"batch_size": extra}}).config.extras["batch_size"]
    assert [64, 64, 128, 256] == values(found, 0, 33, 34, 100)
    assert [int] * 2 == [type(one) for one in values(found, 0, 33)]


# Lengths in updates


@pytest.mark.parametrize(
    "written, durations",
    [
        ({"schedule": "linear", "peak": 1, "horizon": 40, "warmup": {"updates": 7}}, [18, 22]),
        ({"schedule": "linear", "peak": 1, "horizon": {"updates": 7}}, [18]),
        ({"schedule": "wsd", "peak": 1, "horizon": 30, "decay": {"updates": 3}}, [18, 12]),
        ({"points": [[0, 1], [{"updates": 5}, 2], [{"updates": 7}, 3]]}, [10, 8]),
        ({**DOWN, "horizon": 40, "since": {"updates": 7}}, [22]),
        ({**DOWN, "horizon": 40, "until": {"updates": 7}}, [18]),
        ({"product": [{**DOWN, "horizon": {"updates": 7}}, 2]}, [18]),
        ({**DOWN, "horizon": {"updates": 7}, "repeat": 2}, [18, 18]),
        (
            {
                "schedule": "multistep",
                "peak": 1,
                "horizon": 40,
                "milestones": [{"updates": 5}, {"updates": 7}],
            },
            [10, 8, 22],
        ),
        (
            {
                "schedule": "wsd_s",
                "peak": 1,
                "horizon": 30,
                "decay": {"updates": 1},
                "decay_ends": [{"updates": 7}],
            },
            [14, 4, 8, 4],
        ),
    ],
)
def test_updates_are_units_of_the_batch_that_is_there(written, durations):
    assert durations == [phase.duration for phase in read(written, **PACE).phases]


RISE = {"shape": "linear", "start": 0, "end": 1}


@pytest.mark.parametrize(
    "phases, durations",
    [
        ([{**RISE, "steps": {"updates": 3}}, {**RISE, "steps": {"updates": 4}}], [6, 12]),
        ([{**RISE, "steps": 10}, {**RISE, "steps": {"updates": 2}}], [10, 8]),
        ([{**RISE, "steps": 40, "until": {"updates": 7}}, {**RISE, "steps": 1}], [18, 1]),
        ([{**RISE, "steps": 10}, {**DOWN, "horizon": {"updates": 2}}], [10, 8]),
        ([{**DOWN, "until": 6}, {**RISE, "steps": {"updates": 4}}], [6, 12]),
        (
            [
                {**RISE, "steps": 10},
                {"schedule": "wsd", "peak": 1, "horizon": 20, "decay": {"updates": 2}},
            ],
            [10, 12, 8],
        ),
    ],
)
def test_updates_of_a_phase_are_counted_from_where_it_begins(phases, durations):
    found = read({"phases": phases}, **PACE)
    assert durations == [phase.duration for phase in found.phases]


def test_milestones_of_a_phase_in_updates_are_counted_from_where_it_begins():
    fall = {"shape": "multistep", "steps": 40, "end": 0.1, "milestones": [{"updates": 4}]}
    found = read({"phases": [{**RISE, "steps": 6}, fall]}, **PACE)
    assert (12,) == found.phases[1].parameters["milestones"]


def test_the_horizon_at_the_top_may_be_in_updates():
    found = read({"schedule": "cosine", "peak": 1}, horizon={"updates": 7}, **PACE)
    assert 18 == found.horizon


def test_extras_that_the_pace_does_not_name_may_be_in_updates():
    extras = {"aux": {"points": [[0, 1], [{"updates": 7}, 0]]}, **PACE["extras"]}
    found = files.read({**PACE, "extras": extras}).config.extras
    assert (["aux", "batch_size"], 18) == ([*found], found["aux"].horizon)


def test_the_warmup_of_deepseek_v3_ends_where_its_updates_do():
    batch_size = {
        "phases": [{"shape": "linear", "steps": "469B", "start": 3072, "end": 15360}],
        "multiple_of": 1,
    }
    lr = {"schedule": "wsd", "peak": 2.2e-4, "horizon": "14.3T", "decay": "4.3T"}
    pace = {"per_update": {"extra": "batch_size", "times": 4096}}
    found = read({**lr, "warmup": {"updates": "2k"}}, extras={"batch_size": batch_size}, **pace)
    # Batches of 3,072 would be 25.17B; ones of fractions of a sequence, 28.07B.
    assert 28_064_358_400 == found.phases[0].steps


# Read back

EVERYTHING = {
    **PACE,
    "unit": "samples",
    "horizon": {"updates": 100},
    "fields": {
        "lr": {
            "phases": [
                {
                    "schedule": "cosine",
                    "peak": 1,
                    "warmup": {"updates": 7},
                    "until": 200,
                    "warmup_shape": {"shape": "minus_power", "power": 2},
                },
                {**DOWN, "repeat": 3, "factors": 0.5},
            ]
        },
        "momentum": {"points": [[0, 0.5], ["50%", 0.9], [{"updates": 90}, 0.8]], "shape": "cosine"},
        "weight_decay": {"to": "lr", "peak": 0.1, "power": 2},
    },
    "groups": {"head": {"lr": {"product": [DOWN, DOWN, 0.5]}}},
    "extras": {**PACE["extras"], "mix": {"product": [DOWN, {"to": "batch_size", "peak": 1}]}},
}
WRITERS = {"json": json.dumps, "yaml": yaml.safe_dump, "toml": tomli_w.dumps}


def build(source):
    return from_config(sgd({"name": "body"}, {"name": "head"}, weight_decay=0.1), source)


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_of_each_kind_says_what_the_mapping_says(tmp_path, ending):
    path = tmp_path / f"run.{ending}"
    path.write_text(WRITERS[ending](EVERYTHING))
    assert files.read(EVERYTHING).config == files.read(path).config


@pytest.mark.parametrize("ending", WRITERS)
def test_what_to_config_returns_reads_back_equal_from_each_kind(tmp_path, ending):
    path = tmp_path / f"run.{ending}"
    path.write_text(WRITERS[ending](build(EVERYTHING).to_config()))
    assert files.read(EVERYTHING).config == files.read(path).config


def test_the_state_of_what_a_file_says_loads_into_another_run_of_it():
    first, second = build(EVERYTHING), build(EVERYTHING)
    first.seek(20)
    second.load_state_dict(first.state_dict(), local=True)
    assert first.state_dict() == second.state_dict()
    assert 2 == json.loads(first.state_dict()["dist_sched"])["version"]
    assert isinstance(second, ParamScheduler)


def test_lengths_in_updates_are_saved_as_units():
    assert "updates" not in json.dumps(build(EVERYTHING).to_config())


# What is refused


@pytest.mark.parametrize(
    "written, message",
    [
        ({**DOWN, "repeet": 2}, "lr: linear: 'repeet' is not known"),
        ({"product": [1], "multipleof": 5}, "'multipleof' is not known here; did you mean 'multi"),
        ({"phases": [], "repat": 5}, "'repat' is not known here; did you mean 'repeat'"),
        ({"points": [[0, 1]], "shap": 5}, "'shap' is not known; .* did you mean 'shape'"),
        ({"point": [[0, 1]]}, "'point' is not known here; did you mean 'points'"),
        ({"phases": [{"schedul": "linear"}]}, r"phases\[0\]: 'schedul' is not known here; did you"),
        (
            {"phases": [{"shape": "linear", "stps": 2, "end": 1}]},
            r"phases\[0\]: .*lacks steps; did you",
        ),
        ({"phases": [5]}, r"lr: phases\[0\]: phase=5: must be a mapping"),
        (
            {"phases": [{"to": "lr", "peak": 1}]},
            r"phases\[0\]: schedule=.*must be a phase or a sc",
        ),
        ({"phases": [{**DOWN, "multiple_of": 1}]}, r"phases\[0\].*must not be rounded"),
        ({"product": DOWN}, "product=.*must be a list of schedules and numbers"),
        ({"product": []}, r"lr: product: factors=\(\): must have at least one schedule"),
        ({"product": [2, 3]}, r"lr: product: factors=\(2, 3\): must have at least one schedule"),
        ({"product": [DOWN, "x"]}, r"lr: product: factors\[1\]='x': must be a number"),
        ({"product": [{"too": "lr", "peak": 1}]}, r"product\[0\]: 'too' is not known .*mean 'to'"),
        ({"product": [DOWN, {"to": "lr", "peak": 1}]}, r"product\[1\]: to='lr': must be an extra"),
        ({**DOWN, "factors": 0.5}, "factors needs repeat"),
        ({**DOWN, "repeat": 0}, "lr: repeat: times=0: must be from 1 to 100,000"),
        ({**DOWN, "repeat": 2.5}, "lr: repeat: times=2.5: must be a whole number"),
        ({**DOWN, "repeat": 10**6}, "lr: repeat: times=1000000: must be from 1 to 100,000"),
        ({**DOWN, "repeat": 2, "factors": [1]}, r"repeat: factors=\[1\]: must be 2 numbers"),
        ({**DOWN, "repeat": 2, "factors": -1}, "repeat: factors=-1: must be a finite number >= 0"),
        ({**DOWN, "since": 10}, "lr: since=10: must be before the horizon 10"),
        ({**DOWN, "since": 5, "until": 5}, "lr: until=5: must be after since=5"),
        ({**DOWN, "until": 11}, "lr: until=11: must be .* at most the horizon 10"),
        ({**DOWN, "floor": 0.5, "multiple_of": 1}, "lr: multiple_of=1: would round 0.5 down to 0"),
        ({**DOWN, "multiple_of": 0}, "lr: multiple_of=0: must be greater than 0"),
        ({"points": {"updates": 2}}, "points={'updates': 2}: must be a list of pairs"),
        ({"points": [[0, 1], {"updates": 2}]}, r"lr: points\[1\]={'updates': 2}: must be a pair"),
        ({"points": [[0, 1], [{"updats": 2}, 1]]}, r"lr: points\[1\]: 'updats' is not known here"),
        (
            {"schedule": "wsd", "peak": 1, "decay": {"updates": 1}},
            "ends at the horizon, which is m",
        ),
        ({**DOWN, "peak": {"updates": 2}}, "peak={'updates': 2}: must be a number"),
        (
            {"phases": [{**RISE, "shape": "log", "steps": 9, "timescale": {"updates": 1}}]},
            r"lr: phases\[0\].timescale={'updates': 1}: cannot be in updates",
        ),
        (
            {"schedule": "tri_stage", "peak": 1, "horizon": 9, "hold": {"updates": 1}},
            r"lr: hold={'updates': 1}: cannot be in updates \(only 'decay', .*; write units",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(written, message):
    with pytest.raises(ConfigError, match=f"^lr: .*{message.removeprefix('lr: ')}"):
        read(written, **PACE)


@pytest.mark.parametrize(
    "beside, message",
    [
        (BATCH_SIZE, "lr: warmup={'updates': 2}: is in updates, .*; add per_update at the top"),
        ({**PACE, "per_update": {"extra": "lr"}}, "per_update: extra='lr': must be the name of an"),
        (
            {**PACE, "extras": {"batch_size": {**STAGES, "horizon": {"updates": 9}}}},
            "batch_size: horizon={'updates': 9}: is in updates, .*must have lengths in units",
        ),
        (
            {**PACE, "extras": {"batch_size": {"points": [[0, 2], [100, 4]]}}},
            "batch_size=2.04 at position 2: .*round it with",
        ),
        (
            {**PACE, "extras": {"batch_size": {"to": "lr", "peak": 1}}},
            "per_update: extra='batch_size': must be an extra with a schedule",
        ),
        ({**PACE, "extras": {3: 4}}, "per_update: extra='batch_size': must be the name of an"),
        ({**PACE, "per_updates": 1}, "'per_updates' is not known here; did you mean 'per_update'"),
    ],
)
def test_updates_that_cannot_be_counted_are_refused(beside, message):
    with pytest.raises(ConfigError, match=message):
        read({"schedule": "linear", "peak": 1, "horizon": 50, "warmup": {"updates": 2}}, **beside)


def test_per_update_is_for_configs_with_fields():
    with pytest.raises(ConfigError, match="'per_update' is not allowed without 'fields'"):
        files.read({"max_lr": 1, "per_update": 4})


# Of any size

CYCLES = "{schedule: cosine, peak: 1, horizon: 11, repeat: %d}"
ALIASES = "extras: {a: &a " + CYCLES + "}\nfields: {lr: {%s: [%s]}}\n"
DOUBLED = "".join(
    f"  a{index}: &a{index} {{%s: [*a{index - 1}, *a{index - 1}]}}\n" for index in range(1, 16)
)
GROWING = "extras: {b: {points: [[0, 1], [1e14, 1e7]], multiple_of: 1}}\nper_update: {extra: b}\n"
HOSTILE = [
    (
        f"fields: {{lr: {{product: [{CYCLES % 50_000}, {CYCLES % 40_000}]}}}}",
        "lr: product: parts=",
    ),
    (ALIASES % (100_000, "product", "*a, *a, *a, *a, *a, *a, *a"), "have more than 500,000 phases"),
    (ALIASES % (90_000, "phases", "*a, *a, *a, *a, *a, *a, *a"), "have more than 500,000 phases"),
    (
        "extras:\n  a0: &a0 {schedule: cosine, peak: 1, horizon: 9}\n"
        + DOUBLED.replace("%s", "product"),
        "a7: product: factors=128: at most 64 may change at the same time",
    ),
    (
        "extras:\n  a0: &a0 {schedule: cosine, peak: 1, horizon: 9}\n"
        + DOUBLED.replace("%s", "phases"),
        "have more than 500,000 phases",
    ),
    ("fields: {lr: " + "{product: [2, " * 40 + "1" + "]}" * 40 + "}", "is nested deeper than 32"),
    (
        GROWING + "fields: {lr: {points: [[0, 1], [{updates: 9e5}, 1], [{updates: 910000}, 1]]}}",
        "more than 1,000,000 updates of a growing batch",
    ),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("text, message", HOSTILE, ids=range(len(HOSTILE)))
def test_a_short_file_that_asks_for_a_lot_is_refused_soon(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=message):
        files.read(path)
    assert 1_024 >= len(text)
    assert 60 > time.process_time() - start


@pytest.mark.parametrize("peak", [1e200, 1e-200])
def test_a_product_follows_an_extra_of_any_size(peak):
    data = {
        "fields": {"lr": {"product": [{"to": "batch_size", "peak": 0.5, "power": 2}, 2.0]}},
        "extras": {"batch_size": {"points": [[0, peak / 2], [10, peak]]}},
    }
    lr = files.read(data).config.fields["lr"]
    assert [0.25, 1.0] == pytest.approx([lr(0), lr(10)], rel=1e-15)


def test_a_product_cannot_follow_an_extra_that_is_0_throughout():
    data = {
        "fields": {"lr": {"product": [{"to": "batch_size", "peak": 0.5}, 2.0]}},
        "extras": {"batch_size": {"schedule": "constant", "peak": 0}},
    }
    with pytest.raises(ConfigError, match="to='batch_size': is always 0"):
        files.read(data)
