"""Files of configs: formats, what a file is refused for, and what the docs show."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import tomli_w
import yaml

from dist_sched import ConfigError, ParamScheduler, from_config, schedules
from dist_sched._config import files
from helpers import CONFIG, sgd, text_of

WRITERS = {"json": json.dumps, "yaml": yaml.safe_dump, "yml": yaml.safe_dump, "toml": tomli_w.dumps}
EVERY_FORMAT = pytest.mark.parametrize("ending", sorted(WRITERS))

ENTRIES = {
    **CONFIG,
    "lr_warmup_steps": "3%",
    "lr_decay_steps": "100k",
    "wd_incr_steps": 0.5,
    "min_lr": 1e-05,
    "policy": {"lr_decay_steps": "config", "*": "strict"},
    "unit": "tokens",
    "keep_group_ratios": False,
}
SPECIFICATION = {
    "horizon": "1e3",
    "policy": {"lr.phases[1]": "config", "*": "strict"},
    "fields": {
        "lr": {
            "phases": [
                {"shape": "linear", "steps": 37.5, "start": 0.0, "end": 1.0},
                {"shape": "multistep", "steps": "0.5k", "end": 0.1, "milestones": [0.2, "400"]},
            ]
        },
        "weight_decay": {"peak": 0.1, "to": "lr"},
        "momentum": {"schedule": "wsd", "peak": 0.9, "decay": "20%", "decay_shape": "linear"},
    },
    "groups": {"embed*": {"lr": 0.25}, "head": {"lr": {"schedule": "linear", "peak": 0.5}}},
}


def build(source):
    groups = [{"name": name} for name in ("embed.tokens", "body", "head")]
    return from_config(sgd(*groups, momentum=0.9, weight_decay=0.1), source)


def pattern(message):
    return ".*".join(map(re.escape, message.split(".*")))


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@EVERY_FORMAT
@pytest.mark.parametrize("data", [ENTRIES, SPECIFICATION], ids=["entries", "fields"])
def test_a_file_of_any_format_declares_what_the_mapping_does(file, ending, data):
    expected, found = build(data), build(file(f"run.{ending}", WRITERS[ending](data)))
    assert text_of(expected.state_dict()) == text_of(found.state_dict())
    assert expected.to_config() == found.to_config()


def test_a_path_may_be_a_text_and_its_ending_in_capitals(file):
    path = file("run.JSON", json.dumps(SPECIFICATION))
    assert build(SPECIFICATION).state_dict() == build(str(path)).state_dict()


def test_a_number_without_a_point_is_one_in_yaml(file):
    text = yaml.safe_dump({**CONFIG, "min_lr": 0}).replace("max_lr: 1.0", "max_lr: 3e-4")
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


@EVERY_FORMAT
def test_an_error_in_a_file_names_the_file(file, ending):
    path = file(f"run.{ending}", WRITERS[ending]({"fields": {"lr": {"phasis": []}}}))
    rule = "lr: 'phasis' is not known here; did you mean 'phases'?"
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {rule}')}"):
        build(path)


BROKEN = [
    ("run.txt", "{}", "the name must end in one of '.json', '.yaml', '.yml', '.toml'"),
    ("run", "{}", "the name must end in one of"),
    ("run.json.bak", "{}", "the name must end in one of"),
    ("run.json", "", "is not valid: Expecting value"),
    ("run.json", '{"a": }', "is not valid: Expecting value: line 1"),
    ("run.json", '{"unit": "steps", "unit": "steps"}', "is not valid: 'unit' appears twice"),
    ("run.json", '{"fields": {"lr": 1, "lr": 2}}', "is not valid: 'lr' appears twice"),
    ("run.json", "[1]", "must contain a mapping, not [1]"),
    ("run.json", "null", "must contain a mapping, not None"),
    ("run.json", '{"a": "\xff"}'.encode("latin-1"), "is not valid: 'utf-8' codec"),
    ("run.json", "[" * 100_000, "is not valid: "),
    ("run.json", f'{{"a": {"9" * 5000}}}', "is not valid: "),
    ("run.yaml", "", "must contain a mapping, not None"),
    ("run.yaml", "- 1", "must contain a mapping, not [1]"),
    ("run.yaml", "lr", "must contain a mapping, not 'lr'"),
    ("run.yaml", "a: [1", "is not valid: while parsing a flow sequence"),
    ("run.yaml", "a: 1\n---\nb: 2", "is not valid: expected a single document"),
    ("run.yaml", "unit: steps\nunit: steps", "is not valid: 'unit' appears twice"),
    ("run.yml", "fields: {lr: 1, lr: 2}", "is not valid: 'lr' appears twice"),
    ("run.yaml", "fields: [{lr: 1, lr: 2}]", "is not valid: 'lr' appears twice"),
    ("run.yaml", "a: \xff".encode("latin-1"), "is not valid: 'utf-8' codec"),
    ("run.yaml", "[" * 1000, "is not valid: "),
    ("run.yaml", "a: &a [*a]", "is not valid: found unconstructable recursive node"),
    ("run.yaml", "? [a]\n: 1", "is not valid: a tag or a key does not fit"),
    ("run.yaml", "a: !!int ''", "is not valid: a tag or a key does not fit"),
    ("run.yaml", "a: !!timestamp x", "is not valid: a tag or a key does not fit"),
    ("run.yaml", "a: !!bool x", "is not valid: a tag or a key does not fit"),
    ("run.yaml", "!!map [[a, b]]", "is not valid: "),
    ("run.yaml", "fields: {lr: {schedule: linear, 3: 4}}", "lr: 3 is not known here"),
    ("run.yaml", "fields: {3: 4}", "field=3: must be a non-empty string"),
    ("run.yaml", "on: 1", "True is not known here"),
    ("run.toml", "", "init_lr is missing"),
    ("run.toml", "a = ", "is not valid: Invalid value"),
    ("run.toml", "a = 1\na = 2", "is not valid: "),
    ("run.toml", b"a = '\xff'", "is not valid: 'utf-8' codec"),
    ("run.toml", "a = " + "[" * 100_000, "is not valid: "),
    ("run.toml", "fields = 1979-05-27", "fields=datetime.date(1979, 5, 27): must be a mapping"),
]


@pytest.mark.parametrize("name, content, message", BROKEN, ids=lambda row: str(row)[:40])
def test_a_file_that_cannot_be_used_is_refused_by_its_name(file, name, content, message):
    path = file(name, content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {pattern(message)}"):
        build(path)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.json: cannot be read: No such file"):
        build(tmp_path / "run.json")


def test_a_folder_is_refused_by_its_name(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(ConfigError, match=r"run\.json: cannot be read: "):
        build(str(tmp_path / "run.json"))


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


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_a_parser_that_is_not_installed_is_named(file, monkeypatch, ending):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match=rf"run.{ending}: reading YAML needs PyYAML: pip install"):
        build(file(f"run.{ending}", ""))


def test_json_needs_no_parser_to_be_installed(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert 1.0 == build(file("run.json", json.dumps(CONFIG))).max_lr


def test_a_name_that_yaml_merges_may_be_given_again(file):
    text = """
    fields:
      lr: &lr {schedule: linear, peak: 1.0, horizon: 100}
      weight_decay: {<<: *lr, peak: 0.1}
    """
    found = build(file("run.yaml", text)).to_config()["fields"]["weight_decay"]
    assert schedules.linear(0.1, 100).to_dict() == found


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"fields": {"lr": 0.5}}), encoding="utf-8-sig")
    assert 0.5 == build(path).optimizer.param_groups[0]["lr"]


# Of any size and depth

BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 30)
)
NAMES = [f"n{index}" for index in range(60_000)]
ROWS = ", ".join(f'"{name}": 1' for name in [*NAMES, NAMES[-1]])
LARGE = [
    ("run.yaml", f"{BOMB}fields: *a11", "config: has more than 1,000,000 values"),
    ("run.yaml", f"{BOMB}unit: *a11", "config: has more than 1,000,000 values"),
    ("run.yaml", MERGES, "is not valid: has more than 50,000 keys and values"),
    ("run.yaml", "fields: [" + "1, " * 50_000 + "1]", "is not valid: has more than 50,000 keys"),
    ("run.yaml", "fields: 1" + ":1" * 10**5, "is not valid: '1:1"),
    ("run.yaml", f"{{{2**61 - 1}: 1}}", "is not valid: a key is a number above 2**60"),
    ("run.yaml", "fields: &a {lr: {schedule: *a}}", "is not valid: found unconstructable"),
    ("run.yaml", "a: " + "x" * 2**19, "is too long for a config: at most 524,288 bytes"),
    ("run.json", f"{{{ROWS}}}", "is not valid: 'n59999' appears twice"),
    (
        "run.json",
        json.dumps({"fields": dict.fromkeys(NAMES, 1)}),
        "fields=.*at most 1,000 are allowed",
    ),
    ("run.json", '{"fields": ' + "[" * 40 + "]" * 40 + "}", "config: is nested deeper than 32"),
    ("run.json", '{"fields": 1' + "0" * 5000 + "}", "is not valid: "),
    ("run.json", " " * 2**23 + "1", "is too long for a config: at most 8,388,608 bytes"),
    ("run.toml", "a" + ".a" * 10**5 + "=1", "is not valid: has a key of"),
    ("run.toml", "#" + " " * 2**20, "is too long for a config: at most 1,048,576 bytes"),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name, content, message", LARGE, ids=lambda row: str(row)[:40])
def test_a_file_that_is_larger_than_a_config_is_refused_soon(file, name, content, message):
    path = file(name, content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {pattern(message)}"):
        build(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name, content",
    [
        ("run.json", " " * (2**23 - 19) + '{"fields":{"lr":1}}'),
        ("run.toml", f"[fields]\nlr = 1 {'':{2**20 - 16}}"),
        ("run.yaml", f"fields: {{lr: 1{'0' * 199}}}"),
    ],
)
def test_a_file_at_a_limit_is_read(file, name, content):
    assert ["lr"] == [*files.read(file(name, content)).config.fields]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("run.toml", "a" + ".a" * 64 + "=1", "config: is nested deeper than 32"),
        ("run.yaml", f"{{{2**60 - 1}: 1}}", f"{2**60 - 1} is not known here"),
        ("run.yaml", f"{{{2**60}: 1}}", "is not valid: a key is a number above 2**60"),
    ],
)
def test_a_name_at_a_limit_is_read_and_refused_for_what_it_is(file, name, content, message):
    path = file(name, content)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {message}')}"):
        build(path)


@pytest.mark.timeout(20)
def test_a_mapping_that_holds_itself_is_refused():
    source = {"fields": {}}
    source["fields"]["lr"] = source
    with pytest.raises(
        ConfigError, match="config: is nested deeper than 32 levels, or contains itself"
    ):
        build(source)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("ending", ["json", "yaml", "toml"])
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path, ending):
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"zero.{ending}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ConfigError, match=f"{name}.{ending}: must be a file, not a pipe"):
            build(tmp_path / f"{name}.{ending}")


@pytest.mark.parametrize(
    "source",
    [
        {"fields": {"x" * 10**7: -1}},
        {"fields": {"lr": 1}, "groups": {"x" * 10**7: {"lr": -1}}},
        {"fields": {"lr": {"schedule": "linear", "peak": 1, "x" * 10**7: 1}}},
        {"fields": {"lr": 1}, "policy": {"x" * 10**7: "x" * 10**7}},
        {**CONFIG, **{f"{'x' * 100}{index}": 1 for index in range(10**4)}},
        {**CONFIG, "max_lr": [["x" * 10**6] * 100] * 100},
    ],
    ids=range(6),
)
def test_a_message_quotes_little_of_what_was_read(source):
    with pytest.raises(ConfigError) as refused:
        build(source)
    assert 4_000 >= len(str(refused.value))


ROOT = Path(__file__).parents[2]


PAGE = (ROOT / "docs/configuration.md").read_text()


BLOCKS = re.findall(r"```(yaml|toml|json)\n(.*?)```", PAGE, re.DOTALL)


def values(scheduler, key, *positions):
    found = []
    for position in positions:
        scheduler.seek(position)
        found.append(scheduler.optimizer.param_groups[1][key])
    return found


@pytest.mark.parametrize("ending, text", BLOCKS)
def test_what_the_page_shows_gives_a_scheduler(file, ending, text):
    found = build(file(f"run.{ending}", text))
    assert ("fields" in text) is isinstance(found, ParamScheduler)
    assert found.to_config() == build(found.to_config()).to_config()


def test_the_pages_recipe_has_the_values_that_it_says(file):
    scheduler = build(file("run.yaml", BLOCKS[1][1]))
    lr = values(scheduler, "lr", 0, 2_000, 90_000, 95_000, 100_000)
    assert [0.0, 3e-4, 3e-5, 1.5e-5, 0.0] == pytest.approx(lr)
    momentum = values(scheduler, "momentum", 0, 150, 300, 100_000)
    assert [0.85, 0.9, 0.95, 0.95] == pytest.approx(momentum)
    decay = values(scheduler, "weight_decay", 0, 50_000, 100_000)
    assert [0.1, 0.05, 0.0] == pytest.approx(decay)


def test_the_pages_batch_ramp_has_the_values_that_it_says(file):
    scheduler = build(
        file("run.yaml", next(text for _, text in BLOCKS if "lr: {to: batch" in text))
    )
    lr = values(scheduler, "lr", 0, 10**10, 3 * 10**10)
    assert [1.5e-4, 3e-4 * 0.5**0.5, 3e-4] == pytest.approx(lr)
    scheduler.seek(0)
    assert {"batch_size": 256.0, "aux_loss_weight": 0.01} == scheduler.extras


def test_the_page_shows_each_format():
    assert {"yaml", "toml", "json"} == {ending for ending, _ in BLOCKS}


def test_the_page_names_every_length():
    assert [] == [name for name in schedules.LENGTHS if f"`{name}`" not in PAGE]


# Findings

HOLD = {"shape": "constant", "steps": 400, "start": 0.9, "end": 0.9}
PHASES = [HOLD, {"shape": "linear", "steps": "500", "end": 0.0}]


def findings(source):
    found = files.read(source).findings
    assert {"horizon-mismatch"} >= {one.code for one in found}
    return [str(one).partition(" of the config")[0] for one in found]


@pytest.mark.parametrize(
    "horizon, expected",
    [
        (1000, ["position 900: lr: the phases end at 900, 100 units before the horizon 1000"]),
        ("0.8k", ["position 800: lr: the phases end at 900, 100 units after the horizon 800"]),
        (900, []),
        (None, []),
    ],
)
@pytest.mark.parametrize("is_beside", [True, False], ids=["beside", "outer"])
def test_phases_of_lr_that_do_not_fill_a_horizon_are_found(horizon, expected, is_beside):
    lr = {"phases": PHASES, **({"horizon": horizon} if is_beside else {})}
    outer = {} if is_beside else {"horizon": horizon}
    assert expected == findings({**outer, "fields": {"lr": lr}})


@pytest.mark.parametrize("own, expected", [("50%", ["1000"]), ("25%", ["500"]), ("45%", [])])
def test_a_horizon_beside_phases_counts_before_the_outer_one(own, expected):
    phases = {"phases": PHASES, "horizon": own}
    found = findings({"horizon": 2000, "fields": {"lr": 0.5, "momentum": phases}})
    assert expected == [one.split()[-1] for one in found]


def test_phases_of_an_extra_that_do_not_fill_a_horizon_of_their_own_are_found():
    extras = {"a": {"phases": PHASES}, "b": {"phases": PHASES, "horizon": 800}}
    assert ["position 800: b: the phases end at 900"] == [
        one.split(",")[0] for one in findings({"horizon": 1000, "extras": extras})
    ]


def test_phases_of_a_group_that_do_not_fill_a_horizon_are_found():
    source = {"horizon": 1000, "fields": {"lr": 0.5}, "groups": {"a*": {"lr": {"phases": PHASES}}}}
    assert ["position 900: groups[a*].lr: the phases end at 900"] == [
        one.split(",")[0] for one in findings(source)
    ]


def test_the_outer_horizon_is_for_no_phases_but_those_of_lr():
    fields = {"lr": {"schedule": "linear", "peak": 0.5}, "momentum": {"phases": PHASES}}
    assert [] == findings({"horizon": 1000, "fields": fields})
    assert [] == findings({**ENTRIES, "policy": "config"})


def test_thirds_of_a_horizon_fill_it():
    third = {"shape": "linear", "steps": "33.3333333333333333%", "end": 0.5}
    phases = [{**third, "start": 1.0}, third, third]
    assert [] == findings({"horizon": 1000, "fields": {"lr": {"phases": phases}}})


@pytest.mark.parametrize(
    "written, expected",
    [
        ("3e-4", 3e-4),
        ("head", "head"),
        (0.5, 0.5),
        (None, None),
        ({"lr": "3e-4", "weight_decay": "head"}, {"lr": 3e-4, "weight_decay": "head"}),
    ],
)
def test_a_reference_is_a_number_a_name_or_either_for_each_field(written, expected):
    assert expected == files.read({**CONFIG, "reference": written}).reference


@pytest.mark.parametrize("digits", ["1" * 201, "1." + "1" * 200])
def test_a_very_long_number_in_yaml_is_refused(file, digits):
    with pytest.raises(ConfigError, match=r"is not valid: '?1.*is too long for a number"):
        files.read(file("run.yaml", f"fields: {{lr: {digits}}}"))
    assert files.read(file("run.yaml", f"fields: {{lr: 0.{'1' * 198}}}")).config


def test_a_schedule_that_says_nothing_of_its_kind_is_refused():
    with pytest.raises(ConfigError, match=r"^lr: schedule=.* must have one of schedule, phases"):
        files.read({"fields": {"lr": {"horizon": 100}}})


@pytest.mark.parametrize("name", ["groups", "horizon", "per_update"])
def test_what_is_for_fields_is_refused_beside_entries(name):
    with pytest.raises(ConfigError, match=f"{name}.*is not allowed without 'fields'"):
        files.read({**CONFIG, name: {}})


def test_groups_must_be_a_mapping():
    with pytest.raises(ConfigError, match=r"^groups=\[1\]: must be a mapping"):
        files.read({"fields": {"lr": 1.0}, "groups": [1]})
