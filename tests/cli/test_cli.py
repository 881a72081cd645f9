"""The command line: what it prints of real configs and checkpoints, and its status."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml

import dist_sched
from dist_sched import OptimizerParamScheduler, ParamScheduler, checkpoint, from_config, schedules
from dist_sched._curves.lint import LEVELS
from dist_sched.cli import application, fork, output
from helpers import CONFIG

KEYS = [name for name in CONFIG if name != "init_lr"]
SPECIFICATION = """
horizon: 100k
unit: tokens
fields:
  lr: {schedule: wsd, peak: 3e-4, start: 1e-6, warmup: 3%, decay: 20%, decay_shape: linear}
  weight_decay: {peak: 0.1, to: lr}
groups:
  "embed*": {lr: 0.1}
"""


class Runs:
    """Pickles as code that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def optimizer(groups=1):
    made = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(groups)]
    return torch.optim.AdamW(made, lr=1.0, weight_decay=0.1)


def scheduler(**changes):
    return OptimizerParamScheduler(optimizer(), **{**CONFIG, **changes})


def save(scheduler, path, position):
    scheduler.seek(position)
    dcp.save({"app": {"scheduler": scheduler.state_dict()}}, checkpoint_id=path)


def save_foreign(home):
    state = scheduler().state_dict()
    keys = {name: state[name] for name in KEYS}
    torch.save({"opt_param_scheduler": {**keys, "num_steps": 60}}, home / "megatron.pt")
    made = optimizer()
    torchs = torch.optim.lr_scheduler.LambdaLR(made, lambda step: 1 / (1 + step))
    for _ in range(4):
        made.step()
        torchs.step()
    torch.save(torchs.state_dict(), home / "scheduler.pt")
    torch.save({"lr_scheduler": {"last_batch_iteration": 41}}, home / "deepspeed.pt")
    torch.save({"a": {**keys, "num_steps": 1}, "b": {**keys, "num_steps": 2}}, home / "two.pt")
    torch.save({**state, "max_lr": 7.0}, home / "torn.pt")
    (home / "hostile.pt").write_bytes(pickle.dumps({"scheduler": Runs(home / "ran")}))


def save_configs(home):
    (home / "run.json").write_text(json.dumps(CONFIG))
    (home / "same.yaml").write_text(yaml.safe_dump(CONFIG))
    (home / "lower.yaml").write_text(yaml.safe_dump({**CONFIG, "max_lr": 0.5}))
    policy = {"max_lr": "config", "*": "checkpoint"}
    (home / "policy.yaml").write_text(yaml.safe_dump({**CONFIG, "policy": policy}))
    strict = {"use_checkpoint_opt_param_scheduler": False}
    (home / "strict.yaml").write_text(yaml.safe_dump({**CONFIG, **strict}))
    clean = {**CONFIG, "init_lr": 0.01, "wd_incr_steps": 110}
    (home / "clean.yaml").write_text(yaml.safe_dump(clean))
    (home / "samples.yaml").write_text(yaml.safe_dump({**clean, "unit": "samples"}))
    (home / "zero.yaml").write_text(yaml.safe_dump({**clean, "init_lr": 0.0}))
    tail = {"lr_decay_style": "WSD", "wsd_decay_steps": 105, "lr_wsd_decay_style": "linear"}
    (home / "jump.yaml").write_text(yaml.safe_dump({**clean, **tail}))
    (home / "spec.yaml").write_text(SPECIFICATION)
    (home / "illegal.yaml").write_text(yaml.safe_dump({**CONFIG, "min_lr": 2.0}))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    made = tmp_path_factory.mktemp("home")
    save(scheduler(max_lr=0.5), made / "before" / "step-60", 60)
    save(scheduler(), made / "after" / "step-80", 80)
    stable = scheduler(lr_decay_style="constant")
    save(stable, made / "stable", 60)
    stable.cooldown(20)
    save(stable, made / "cooled", 70)
    fields = {"lr": schedules.wsd(3e-4, 1000, warmup=20, decay=200), "betas[0]": 0.9}
    save(ParamScheduler(optimizer(), fields), made / "spec", 500)
    save(scheduler(unit="samples"), made / "samples", 60)
    save_foreign(made)
    save_configs(made)
    return made


@pytest.fixture
def cli(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("FORCE_COLOR", "1")

    def call(*arguments):
        status = application.run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "\x1b" not in printed.out + printed.err
        return status, printed.out, printed.err

    return call


@pytest.fixture
def as_json(cli):
    def call(*arguments):
        return json.loads(cli(*arguments, "--json")[1])

    return call


def rows(out):
    return [line.split() for line in out.splitlines()]


# show


def test_show_prints_every_phase_and_the_values_at_positions(cli):
    status, out, err = cli("show", "run.json", "--at", 60, "--at", "2k")
    assert (0, "") == (status, err)
    assert ["lr", "linear", "10", "110", "1", "0.1"] in rows(out)
    assert ["weight_decay", "linear", "0", "100", "0", "0.1"] in rows(out)
    assert ["60", "lr", "0.55", "linear"] in rows(out)
    assert ["2000", "lr", "0.1", "past", "the", "end"] in rows(out)


def test_show_prints_a_checkpoints_schedule_as_it_was_used_and_the_values_there(cli):
    status, out, _ = cli("show", "cooled")
    assert 0 == status
    assert ["lr", "minus_sqrt", "tail", "60", "80", "1", "0.1"] in rows(out)
    assert ["70", "lr", "0.3636039", "minus_sqrt", "tail"] in rows(out)


def test_show_prints_what_named_groups_have_only_when_it_is_asked(cli):
    assert "embed" not in cli("show", "spec.yaml")[1]
    out = cli("show", "spec.yaml", "--groups")[1]
    assert ["groups[embed*].lr", "constant", "3000", "80000", "3e-05", "3e-05"] in rows(out)


def test_show_prints_json_with_a_version(as_json):
    found = as_json("show", "before", "--at", 10)
    assert 1 == found["version"]
    assert ("steps", 60, "OptimizerParamScheduler") == (
        found["unit"],
        found["position"],
        found["scheduler"],
    )
    assert ["app.scheduler", "dist_sched"] == [found["found"]["key"], found["found"]["format"]]
    values = {row["position"]: row["value"] for row in found["fields"]["lr"]["values"]}
    assert {10: 0.5, 60: pytest.approx(0.3)} == values
    phase = {"name": "linear", "begin": 10, "end": 110, "first": 0.5, "last": 0.1}
    assert phase == found["fields"]["lr"]["phases"][1]


def test_show_says_what_a_state_of_megatron_lacks(cli):
    out = cli("show", "megatron.pt")[1]
    assert "note: not in the state, so assumed: init_lr=0.0" in out
    assert "at position 60 in an unknown unit" in out


# inspect


def test_inspect_prints_where_what_and_every_entry(cli, home):
    status, out, _ = cli("inspect", "before")
    assert 0 == status
    assert ["found", "in", str(home / "before" / "step-60" / ".metadata")] in rows(out)
    assert {
        ("position", "60"),
        ("unit", "steps"),
        ("inconsistent", "no"),
        ("key", "app.scheduler"),
    } <= {tuple(row) for row in rows(out)}
    assert {("max_lr", "0.5"), ("lr", "0.3")} <= {tuple(row) for row in rows(out)}


def test_inspect_sets_the_keys_of_a_torn_state_beside_its_text(cli):
    out = cli("inspect", "torn.pt")[1]
    assert ["inconsistent", "max_lr"] in rows(out)
    assert ["max_lr", "1", "7"] in rows(out)


def test_inspect_prints_late_changes(cli):
    out = cli("inspect", "cooled")[1]
    assert "entries, after the late changes" in out
    assert ["lr_decay_style", "WSD"] in rows(out)
    assert ["60", "cooldown", "field=lr,", "steps=20,", "shape=minus_sqrt,", "end=-"] in rows(out)


@pytest.mark.parametrize(
    "path, kind, position",
    [
        ("megatron.pt", "OptimizerParamScheduler", 60),
        ("scheduler.pt", "torch LRScheduler", 4),
        ("deepspeed.pt", "DeepSpeed", 42),
    ],
)
def test_inspect_reads_the_states_of_other_libraries(as_json, path, kind, position):
    found = as_json("inspect", path)
    assert (kind, position, None) == (found["found"]["format"], found["position"], found["unit"])


def test_inspect_prints_json_with_the_state_as_it_stands(as_json):
    found = as_json("inspect", "torn.pt")
    assert ["max_lr"] == found["torn"]
    assert (1.0, 7.0) == (found["entries"]["max_lr"], found["state"]["max_lr"])
    assert [] == found["history"]
    assert {"lr": 0.0, "weight_decay": 0.0} == found["next_update"]


def test_inspect_reads_an_address(as_json, home):
    memory = fsspec.filesystem("memory")
    memory.pipe("/cli/megatron.pt", (home / "megatron.pt").read_bytes())
    try:
        assert 60 == as_json("inspect", "memory://cli/megatron.pt")["position"]
    finally:
        memory.rm("/cli", recursive=True)
    assert 60 == as_json("inspect", f"file://{home}/megatron.pt")["position"]


def test_inspect_shows_characters_that_would_steer_a_terminal_as_escapes(cli, home):
    keys = scheduler().state_dict()
    torch.save({**keys, "\x1b[31mred": 1}, home / "red.pt")
    assert r"unknown keys are ignored: \x1b[31mred" in cli("inspect", "red.pt")[1]


# diff


def test_diff_prints_all_entries_that_a_resume_reports_where_it_is_asked(cli):
    status, out, err = cli("diff", "before", "run.json", "--all")
    report = dist_sched.reconcile(CONFIG, checkpoint.read_state("before")[0])
    assert (1, "") == (status, err)
    for row in report.rows:
        sides = [output.exact(value) for value in (row.checkpoint, row.config, row.used)]
        assert ["*"] * row.changed + [row.name, *sides, *row.why.split()] in rows(out)
    assert ["60", "lr", "0.3", "0.55", "0.3"] in rows(out)
    assert ["60", "weight_decay", "0.06", "0.06", "0.06"] in rows(out)


def test_diff_prints_the_verdict_first_then_what_differs_and_counts_the_rest(cli):
    status, out, err = cli("diff", "before", "run.json")
    assert (1, "") == (status, err)
    assert [
        (
            "different, but no value changes at position 60; the schedule of run.json "
            "(--policy config) would change lr from 0.3 to 0.55 (× 1.833)"
        ),
        "  max_lr: 0.5 → 1; 0.5 is kept",
        "equal entries: 10 (use --all to print them)",
    ] == out.splitlines()[:3]
    assert "min_lr" not in out
    assert ["60", "lr", "0.3", "0.55", "0.3"] == rows(out)[-1]


def test_diff_calls_configs_and_checkpoints_by_what_they_are(cli):
    out = cli("diff", "before", "run.json")[1]
    assert "old     before/step-60 (checkpoint at 60), in steps" in out
    assert "new     run.json (config), in steps" in out
    assert "policy  checkpoint (the default)" in out
    assert "field  before/step-60 (checkpoint at 60)  run.json (config)  used  change" in out


def test_diff_tells_two_sides_of_one_name_apart(cli):
    out = cli("diff", "two.pt", "two.pt", "--key-old", "a", "--key-new", "a", "--all")[1]
    assert "old: two.pt (checkpoint at 1)  new: two.pt (checkpoint at 1)" in out


OPTIONAL = {"momentum": "config", "*": "checkpoint"}
READERS = [
    ("show", "CONFIG"),
    ("check", "CONFIG"),
    ("plot", "CONFIG"),
    ("diff", "spec", "CONFIG"),
    ("convert", "deepspeed.pt", "DST", "--to", "dist-sched", "--config", "CONFIG"),
]


@pytest.mark.parametrize("arguments", READERS, ids=lambda arguments: arguments[0])
def test_every_command_accepts_a_policy_for_a_field_that_only_a_checkpoint_may_have(
    cli, tmp_path, arguments
):
    path = tmp_path / "run.yaml"
    path.write_text(f"{SPECIFICATION}\npolicy: {json.dumps(OPTIONAL)}\n")
    assert OPTIONAL == from_config(named(), path)._agreed.policy.to_dict()
    paths = {"CONFIG": path, "DST": tmp_path / "a.pt"}
    status, _, err = cli(*[paths.get(word, word) for word in arguments])
    assert ("", True) == (err, status in {0, 1})


@pytest.mark.parametrize("arguments", READERS, ids=lambda arguments: arguments[0])
def test_every_command_refuses_a_policy_for_a_misspelt_field(cli, tmp_path, arguments):
    path = tmp_path / "run.yaml"
    path.write_text(f"{SPECIFICATION}\npolicy: {{lrr: config, '*': checkpoint}}\n")
    paths = {"CONFIG": path, "DST": tmp_path / "a.pt"}
    status, _, err = cli(*[paths.get(word, word) for word in arguments])
    assert 2 == status
    assert "policy has the key 'lrr', which is not an entry; did you mean 'lr'?" in err


def test_diff_does_not_say_that_a_checkpoints_run_had_policy_config(cli):
    out = cli("diff", "before", "after")[1]
    assert "checkpoints do not record the policy" in out


@pytest.mark.parametrize(
    "old, new, status",
    [
        ("after", "run.json", 0),
        ("same.yaml", "run.json", 0),
        ("lower.yaml", "run.json", 1),
        ("before", "lower.yaml", 0),
        ("after", "before", 1),
        ("cooled", "cooled", 0),
        ("cooled", "stable", 1),
        ("megatron.pt", "run.json", 0),
        ("samples", "run.json", 1),
        ("scheduler.pt", "run.json", 2),
        ("spec", "run.json", 1),
        ("megatron.pt", "spec.yaml", 1),
        ("scheduler.pt", "spec.yaml", 2),
        ("run.json", "after", 0),
        ("after", "megatron.pt", 0),
    ],
)
def test_the_status_of_diff_is_0_for_the_same_1_for_different_and_2_for_unknown(
    cli, old, new, status
):
    assert status == cli("diff", old, new)[0]


def test_diff_follows_the_policy(cli):
    policy = ("--policy", "max_lr=config", "--policy", "*=checkpoint")
    out = cli("diff", "before", "run.json", *policy)[1]
    assert ["60", "lr", "0.3", "0.55", "0.55", "×", "1.833"] in rows(out)
    assert "different: at position 60 the resume changes lr from 0.3 to 0.55 (× 1.833)" in out


def test_diff_uses_the_policy_of_a_config_file(cli):
    out = cli("diff", "before", "policy.yaml")[1]
    assert "*=checkpoint, max_lr=config (of policy.yaml)" in out
    assert ["60", "lr", "0.3", "0.55", "0.55", "×", "1.833"] in rows(out)


def test_diff_reads_the_policy_from_megatrons_booleans(cli):
    status, out, _ = cli("diff", "before", "strict.yaml")
    assert 1 == status
    assert "policy  strict (of strict.yaml)" in out


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("before", "run.json", "--policy", "strict"), "max_lr is 1.0 in the config and 0.5 in"),
        (("samples", "run.json"), "unit is 'steps' in the config and 'samples' in"),
    ],
)
def test_diff_prints_first_that_the_resume_would_be_refused_and_why(cli, arguments, reason):
    status, out, err = cli("diff", *arguments)
    assert (1, "") == (status, err)
    first, second, *_ = out.splitlines()
    assert "different, and the resume would be refused" == first
    assert second.startswith(reason)


def test_diff_relabels_a_unit_by_policy(cli):
    status, out, _ = cli("diff", "samples", "run.json", "--policy", "unit=config")
    assert 1 == status
    assert "unit: samples → steps" in out
    assert "refused" not in out
    assert "note: position 60 was saved in samples and is used as steps" in out


@pytest.mark.parametrize(
    "policy, said",
    [
        (
            (),
            (
                "run.json has horizon 200, but the policy 'checkpoint' keeps 110; for the later "
                "horizon use --policy lr_decay_steps=config --policy '*=checkpoint'"
            ),
        ),
        (
            ("--policy", "max_lr=config", "--policy", "*=checkpoint"),
            "the policy keeps 110; for the later horizon use",
        ),
        (("--policy", "config"), None),
    ],
    ids=str,
)
def test_diff_says_that_the_policy_drops_a_longer_horizon_and_what_to_write(
    cli, tmp_path, policy, said
):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**CONFIG, "max_lr": 0.5, "lr_decay_steps": 200}))
    out = cli("diff", "after", path, *policy)[1]
    assert (said is None) == ("has horizon" not in out)
    assert (said or "") in out


def test_the_policy_that_diff_names_for_a_longer_horizon_brings_it(cli, tmp_path):
    fields = {"lr": {"schedule": "wsd", "peak": 3e-4, "horizon": 1500, "warmup": 20, "decay": 200}}
    fields |= {"betas[0]": 0.9}
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"fields": fields}))
    (line,) = [
        one for one in cli("diff", "spec", path)[1].splitlines() if "for the later horizon" in one
    ]
    assert "has horizon 1500, but the policy 'checkpoint' keeps 1000" in line
    words = shlex.split(line.partition("horizon use ")[2])
    out = cli("diff", "spec", path, *words)[1]
    assert "  lr.phases[1].steps: 780 → 1280" in out
    assert "for the later horizon" not in out


def test_diff_compares_values_at_the_positions_that_are_asked_for(as_json):
    found = as_json("diff", "lower.yaml", "run.json", "--at", 10, "--at", "110")
    lr = [row for row in found["values"] if row["field"] == "lr"]
    assert {"position": 10, "field": "lr", "old": 0.5, "new": 1.0, "used": 0.5} in lr
    assert {"position": 110, "field": "lr", "old": 0.1, "new": 0.1, "used": 0.1} in lr


def test_diff_prints_the_values_that_are_asked_for_even_where_they_are_equal(cli):
    assert ["110", "lr", "0.1", "0.1", "0.1"] in rows(
        cli("diff", "after", "run.json", "--at", 110)[1]
    )
    assert "values at positions" not in cli("diff", "after", "run.json")[1]


@pytest.mark.parametrize("old, position", [("before", 60), ("lower.yaml", 0)])
def test_diff_resumes_at_the_position_of_old_whatever_else_is_compared(cli, as_json, old, position):
    found = as_json("diff", old, "run.json", "--at", 10)
    assert position == found["reconciliation"]["position"]
    assert {position, 10} <= {row["position"] for row in found["values"]}
    out = cli("diff", old, "run.json", "--at", 10)[1]
    assert f"no value changes at position {position}" in out


def test_diff_compares_the_values_of_different_schedulers_and_not_their_entries(cli):
    status, out, err = cli("diff", "spec", "run.json")
    assert (1, "") == (status, err)
    assert "only values are compared, not entries" in out
    assert "different: at position 500 the resume changes lr from 0.0003 to 0.1" in out
    assert "betas[0]: run.json (config) does not schedule it" in out
    assert "weight_decay: spec (checkpoint at 500) does not schedule it" in out
    assert "refused" not in out


def test_diff_says_which_side_alone_schedules_a_field(cli, tmp_path):
    path = tmp_path / "two.yaml"
    lr = {"schedule": "wsd", "peak": 3e-4, "horizon": 1000, "warmup": 20, "decay": 200}
    path.write_text(yaml.safe_dump({"fields": {"lr": lr, "weight_decay": 0.1}}))
    status, out, _ = cli("diff", "spec", path, "--policy", "config")
    assert 1 == status
    assert "refused" not in out
    assert ["500", "betas[0]", "0.9", "-", "-", "new", "does", "not", "schedule", "it"] in rows(out)
    assert {
        "  betas[0]: only spec (checkpoint at 500) has it",
        f"  weight_decay: only {path} (config) has it",
    } <= set(out.splitlines())


@pytest.mark.parametrize("old, positions", [("before", {60}), ("lower.yaml", {0, 10, 100, 110})])
def test_diff_compares_values_at_a_checkpoints_position_and_at_the_ends_of_a_configs_phases(
    as_json, old, positions
):
    found = as_json("diff", old, "run.json")
    assert positions == {row["position"] for row in found["values"]}


def test_a_field_that_only_the_new_side_schedules_is_a_difference(cli, tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps({"fields": {"lr": 0.5}}))
    new.write_text(json.dumps({"fields": {"lr": 0.5, "weight_decay": 0.25}}))
    status, out, _ = cli("diff", old, new)
    assert 1 == status
    assert f"  weight_decay: only {new} (config) has it" in out.splitlines()


def test_diff_names_the_entries_that_move_a_value(cli, tmp_path):
    path = tmp_path / "more.json"
    path.write_text(json.dumps({**CONFIG, "init_lr": 0.05}))
    lines = cli("diff", "before", path, "--policy", "config")[1].splitlines()
    assert [
        "  max_lr: 0.5 → 1 (changes lr from 0.3 to 0.55 (× 1.833) by itself)",
        "  init_lr: 0 → 0.05 (changes no value at this position by itself)",
    ] == lines[1:3]


def test_diff_says_at_which_later_position_values_part(cli):
    out = cli("diff", "lower.yaml", "run.json", "--policy", "config")[1]
    assert "no value changes at position 0; at 10 it would change lr from 0.5 to 1" in out


def test_diff_says_that_late_changes_are_dropped_and_what_that_moves(cli):
    out = cli("diff", "cooled", "stable")[1]
    assert "→ dropped (changes lr from 0.3636039 to 1" in out


def test_diff_hints_at_other_causes_where_schedules_are_the_same(cli, home):
    save(scheduler(), home / "later" / "step-90", 90)
    status, out, _ = cli("diff", "after", "later")
    assert 0 == status
    assert "the same schedule, at positions 80 and 90. If lr jumped anyway" in out
    assert "the optimizer's state" in out


def test_an_entry_is_written_alike_by_inspect_and_diff(cli, home):
    save(scheduler(max_lr=0.1 + 0.2), home / "odd", 60)
    assert ["max_lr", "0.30000000000000004"] in rows(cli("inspect", "odd")[1])
    out = cli("diff", "odd", "run.json", "--all")[1]
    assert ["*", "max_lr", "0.30000000000000004", "1"] in [row[:4] for row in rows(out)]


def test_diff_names_the_entries_that_the_policy_has_no_word_for(cli):
    status, _, err = cli("diff", "spec", "spec.yaml", "--policy", "weight_decay=config")
    assert (2, 1) == (status, err.count("lr.phases[1].steps"))
    assert "groups[embed*].lr; add these entries, or '*'" in err


def test_diff_prints_json_with_both_sides_and_the_reconciliation(as_json):
    found = as_json("diff", "before", "run.json", "--policy", "strict")
    assert (1, "different", True) == (found["version"], found["result"], found["refused"])
    assert ("run.json", None, 60) == (
        found["new"]["path"],
        found["new"]["found"],
        found["old"]["position"],
    )
    changed = [row["name"] for row in found["reconciliation"]["rows"] if row["changed"]]
    assert ["max_lr"] == changed


def test_diff_shows_the_lr_that_torchs_scheduler_had(as_json):
    found = as_json("diff", "scheduler.pt", "run.json")
    assert "unknown" == found["result"]
    lr = {"position": 4, "field": "lr", "old": 0.2, "new": 0.4, "used": 0.4}
    assert lr == found["values"][0]


def test_diff_reads_each_side_under_its_key(cli):
    keys = ("--key-old", "a", "--key-new", "b")
    assert 0 == cli("diff", "two.pt", "two.pt", *keys)[0]


# check


def test_check_finds_nothing_in_a_good_config_and_ends_with_0(cli):
    assert (0, "clean.yaml: no findings\n", "") == cli("check", "clean.yaml", "--updates", 110)


def test_check_names_path_position_and_values_and_ends_with_1(cli):
    status, out, err = cli("check", "clean.yaml", "jump.yaml")
    assert (1, "") == (status, err)
    first, second = out.splitlines()
    assert "clean.yaml: no findings" == first
    assert second.startswith("jump.yaml: warning: position 10: lr: the WSD decay begins at 5,")
    assert second.endswith(" at the end of the warmup [tail-in-warmup]")


def test_check_ends_with_0_if_there_are_only_notes_and_with_1_if_they_are_to_count(cli):
    line = "zero.yaml: note: position 0: lr: the first update has lr 0 and changes nothing"
    assert (0, f"{line} [first-lr-zero]\n", "") == cli("check", "zero.yaml")
    assert 1 == cli("check", "zero.yaml", "--strict")[0]
    assert 0 == cli("check", "clean.yaml", "--strict")[0]
    assert 1 == cli("check", "jump.yaml", "--strict")[0]


def test_check_ends_with_2_if_a_finding_is_an_error(cli, monkeypatch):
    monkeypatch.setitem(LEVELS, "tail-in-warmup", "error")
    status, out, err = cli("check", "jump.yaml", "zero.yaml")
    assert (2, "") == (status, err)
    assert out.startswith("jump.yaml: error: position 10: lr: ")


def test_check_passes_over_the_codes_that_are_to_be_ignored(cli):
    status, out, _ = cli("check", "zero.yaml", "jump.yaml", "--ignore", "tail-in-warmup")
    assert (0, ["note", "no findings"]) == (
        status,
        [one.split(": ")[1] for one in out.splitlines()],
    )
    both = ("--ignore", "tail-in-warmup", "--ignore", "first-lr-zero")
    assert 0 == cli("check", "zero.yaml", "jump.yaml", "--strict", *both)[0]


def test_check_names_the_near_miss_of_an_unknown_code(cli):
    status, out, err = cli("check", "clean.yaml", "--ignore", "first-lr-0")
    assert (2, "") == (status, out)
    assert "Invalid value for '--ignore': code='first-lr-0': must be one of 'first-lr-zero'" in err
    assert "; did you mean 'first-lr-zero'? (see dist-sched check --help)" in err


def test_check_compares_the_horizon_with_the_length_of_the_run(cli):
    assert 0 == cli("check", "samples.yaml", "--updates", 55, "--increment", 2)[0]
    status, out, _ = cli("check", "clean.yaml", "--updates", 100)
    assert 1 == status
    assert out.startswith("clean.yaml: warning: position 100: lr: the run ends after 100 updates")


def test_check_finds_a_warmup_and_a_horizon_that_are_short_for_the_increment(cli, tmp_path):
    path = tmp_path / "run.yaml"
    lr = "{schedule: cosine, peak: 1.0, start: 0.1, warmup: 2k}"
    path.write_text(f"{{horizon: 30M, unit: tokens, fields: {{lr: {lr}}}}}")
    assert 0 == cli("check", path)[0]
    status, out, _ = cli("check", path, "--increment", "4M")
    assert 1 == status
    assert ["[phase-below-update]", "[short-horizon]"] == [row[-1] for row in rows(out)]


@pytest.mark.parametrize("path", ["clean.yaml", "before"])
def test_check_refuses_an_increment_in_steps(cli, path):
    status, out, err = cli("check", path, "samples.yaml", "--increment", 2)
    assert (2, "samples.yaml: no findings\n") == (status, out)
    rule = "must be 1 for unit 'steps', where an update is one step; leave it out"
    assert err.startswith(f"dist-sched: error: {path}: increment=2: {rule}, or use unit 'samples'")


def test_check_finds_phases_that_do_not_fill_the_horizon_beside_them(cli, tmp_path):
    path = tmp_path / "run.yaml"
    phase = "{shape: cosine, steps: 90%, start: 1.0, end: 0.1}"
    path.write_text(f"{{horizon: 1000, fields: {{lr: {{phases: [{phase}]}}}}}}")
    status, out, _ = cli("check", path)
    assert 1 == status
    assert out.startswith(f"{path}: warning: position 900: lr: the phases end at 900, 100 units")
    assert (0, f"{path}: no findings\n", "") == cli("check", path, "--ignore", "horizon-mismatch")


def test_check_says_each_illegal_config_in_a_line_and_goes_on(cli):
    status, out, err = cli("check", "illegal.yaml", "missing.yaml", "clean.yaml")
    assert (2, "clean.yaml: no findings\n") == (status, out)
    first, second = err.splitlines()
    assert "dist-sched: error: illegal.yaml: min_lr=2.0: must be at most max_lr=1.0" == first
    assert "dist-sched: error: missing.yaml: cannot be read: No such file or directory" == second


def test_check_takes_a_checkpoint(cli):
    status, out, _ = cli("check", "before", "--updates", 100)
    assert 1 == status
    assert all(row[:1] == ["before:"] for row in rows(out))
    assert ["[first-lr-zero]", "[horizon-after-end]", "[field-ends-elsewhere]"] == [
        row[-1] for row in rows(out)
    ]


def test_check_prints_json(as_json):
    found = as_json("check", "jump.yaml", "illegal.yaml")
    assert 1 == found["version"]
    jump, illegal = found["configs"]
    assert ("jump.yaml", None) == (jump["path"], jump["error"])
    (finding,) = jump["findings"]
    assert finding.pop("message").startswith("lr: the WSD decay begins at 5")
    assert {"position": 10, "code": "tail-in-warmup", "level": "warning"} == finding
    assert [] == illegal["findings"]
    assert "min_lr=2.0" in illegal["error"]


# convert


def loaded(path):
    return torch.load(path, weights_only=True)


def test_convert_completes_a_state_of_megatron_from_a_config(cli, tmp_path):
    out = cli(
        "convert", "megatron.pt", tmp_path / "a.pt", "--to", "dist-sched", "--config", "run.json"
    )
    assert 0 == out[0]
    assert "from --config: init_lr" in out[1]
    expected = scheduler()
    expected.seek(60)
    assert expected.state_dict() == loaded(tmp_path / "a.pt")


def test_convert_keeps_a_state_of_ours_with_its_late_changes(cli, tmp_path):
    assert 0 == cli("convert", "cooled", tmp_path / "a.pt", "--to", "dist-sched")[0]
    assert checkpoint.read_state("cooled")[0] == loaded(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "source, missing", [("megatron.pt", "init_lr"), ("deepspeed.pt", "max_lr")]
)
def test_convert_names_what_the_source_lacks(cli, tmp_path, source, missing):
    status, out, err = cli("convert", source, tmp_path / "a.pt", "--to", "dist-sched")
    assert (2, "") == (status, out)
    assert missing in err
    assert "--config" in err
    assert not (tmp_path / "a.pt").exists()


def test_convert_adds_the_configs_schedule_to_a_state_of_only_a_position(cli, tmp_path):
    arguments = ("--to", "dist-sched", "--config", "spec.yaml")
    assert 0 == cli("convert", "deepspeed.pt", tmp_path / "a.pt", *arguments)[0]
    scheduler = from_config(named(), "spec.yaml")
    scheduler.load_state_dict(loaded(tmp_path / "a.pt"))
    assert ("tokens", 42) == (scheduler.unit, scheduler.num_steps)


def named():
    embed = {"params": [torch.nn.Parameter(torch.ones(1))], "name": "embedding"}
    return torch.optim.AdamW([embed], lr=1.0, weight_decay=0.1)


@pytest.mark.parametrize(
    "target, name", [("megatron", "opt_param_scheduler"), ("nemo", "scheduler")]
)
def test_convert_writes_the_ten_keys_of_upstream_and_says_what_is_lost(cli, tmp_path, target, name):
    status, out, _ = cli("convert", "cooled", tmp_path / "a.pt", "--to", target)
    assert 0 == status
    found = loaded(tmp_path / "a.pt")
    assert [name] == list(found)
    assert {*KEYS, "num_steps"} == set(found[name])
    assert ("WSD", 80, 70) == tuple(
        found[name][key] for key in ("lr_decay_style", "lr_decay_steps", "num_steps")
    )
    lost = ("init_lr=0.0", "wsd_decay_steps=20", "unit='steps'", "the history")
    assert all(f"not converted: {entry}" in out for entry in lost)
    (unit,) = [line for line in out.splitlines() if "unit=" in line]
    assert "constructor" not in unit
    assert "call its step(increment) with increments in steps" in unit


def test_convert_writes_a_state_that_torchs_lambda_scheduler_loads(cli, tmp_path):
    arguments = ("--to", "torch", "--num-groups", 2)
    status, out, _ = cli("convert", "after", tmp_path / "a.pt", *arguments)
    assert 0 == status
    assert "not converted: weight_decay" in out
    made = optimizer(groups=2)
    theirs = torch.optim.lr_scheduler.LambdaLR(made, lambda step: (110 - step) * 0.009 + 0.1)
    theirs.load_state_dict(loaded(tmp_path / "a.pt"))
    assert 80 == theirs.last_epoch
    assert [0.37, 0.37] == pytest.approx(theirs.get_last_lr())
    made.step()
    theirs.step()
    assert [0.361, 0.361] == pytest.approx(theirs.get_last_lr())


@pytest.mark.parametrize(
    "source, options, reason",
    [
        ("samples", ("--to", "torch"), "only steps can be converted"),
        ("spec", ("--to", "nemo"), "was saved by ParamScheduler, whose curves Megatron-LM"),
        ("samples", ("--to", "dist-sched", "--unit", "steps"), "the unit of samples is samples"),
        ("scheduler.pt", ("--to", "megatron"), "add the run's with --config"),
        ("run.json", ("--to", "megatron"), "is a config file, but this command needs a checkpoint"),
    ],
)
def test_convert_refuses_what_it_cannot_write(cli, tmp_path, source, options, reason):
    status, _, err = cli("convert", source, tmp_path / "a.pt", *options)
    assert 2 == status
    assert reason in err
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("convert", "after", "--to", "nemo"), ("fork", "stable", "--cooldown", 20, "-o")],
)
def test_a_file_is_overwritten_only_by_force(cli, tmp_path, arguments):
    path = tmp_path / "there.yaml"
    path.write_text("mine")
    given = (
        [*arguments[:2], path, *arguments[2:]] if arguments[0] == "convert" else [*arguments, path]
    )
    status, _, err = cli(*given)
    assert (2, "mine") == (status, path.read_text())
    assert f"{path}: already exists; use --force to overwrite" in err
    assert 0 == cli(*given, "--force")[0]
    assert b"mine" != path.read_bytes()


# fork


@pytest.mark.parametrize(
    "source, ending", [("stable", "yaml"), ("stable", "toml"), ("spec", "json"), ("spec", "toml")]
)
def test_a_run_that_resumes_from_a_forked_config_anneals_as_after_a_cooldown(
    cli, tmp_path, source, ending
):
    path = tmp_path / f"cool.{ending}"
    arguments = ("--cooldown", 20, "--shape", "linear", "--end", "1e-5", "-o", path)
    assert 0 == cli("fork", source, *arguments)[0]
    state = checkpoint.read_state(source)[0]
    forked = from_config(optimizer(), path)
    forked.load_state_dict(state)
    expected = original(source)
    expected.load_state_dict(state)
    expected.cooldown(20, "linear", 1e-5)
    for _ in range(25):
        assert expected.get_last_lr() == forked.get_last_lr()
        expected.step()
        forked.step()
    assert [1e-5] == forked.get_last_lr()


LATE_CHANGES = {
    "extended": (("--extend", "2k"), lambda one: one.extend(2000)),
    "extended by a part": (("--extend", "150%"), lambda one: one.extend(1500)),
    "rewarmed": (("--rewarm", "2%", "--peak", "6e-4"), lambda one: one.rewarm(20, 6e-4)),
    "rewarmed to the highest": (("--rewarm", 20), lambda one: one.rewarm(20)),
    "scaled": (("--scale", 0.5), lambda one: one.scale(0.5)),
    "stretched": (
        ("--extend", "2k", "--keep", "value"),
        lambda one: one.extend(2000, keep="value"),
    ),
    "cooled for a part": (("--cooldown", "2%"), lambda one: one.cooldown(20)),
}


@pytest.mark.parametrize("name", LATE_CHANGES)
def test_a_run_that_resumes_from_a_forked_config_goes_on_as_after_the_late_change(
    cli, tmp_path, name
):
    arguments, change = LATE_CHANGES[name]
    source, path = tmp_path / "step-800", tmp_path / "late.yaml"
    save(original("spec"), source, 800)
    assert 0 == cli("fork", source, *arguments, "-o", path)[0]
    state = checkpoint.read_state(source)[0]
    expected, forked = original("spec"), from_config(optimizer(), path)
    expected.load_state_dict(state)
    forked.load_state_dict(state)
    change(expected)
    for position in (800, 801, 810, 820, 1000, 1300, 1999):
        expected.seek(position)
        forked.seek(position)
        assert expected.get_last_lr() == forked.get_last_lr()


def test_fork_stretches_what_is_left_of_a_decay_of_entries_as_a_param_schedulers(cli, tmp_path):
    path = tmp_path / "longer.yaml"
    status, _, err = cli("fork", "before", "--extend", 160, "--keep", "value", "-o", path)
    assert (0, True) == (status, "a decay that was stretched half-way" in err)
    forked = from_config(optimizer(), path)
    forked.load_state_dict(checkpoint.read_state("before")[0])
    forked.seek(110)
    assert [pytest.approx(0.2)] == forked.get_last_lr()


def test_fork_scales_a_config_of_entries_as_one_of_entries(cli):
    status, out, err = cli("fork", "stable", "--scale", 0.5)
    found = yaml.safe_load(out)
    assert (0, "", 0.5) == (status, err, found["max_lr"])


def test_fork_extends_a_config_of_entries_as_one_of_entries(cli):
    status, out, err = cli("fork", "stable", "--extend", "200%")
    assert (0, "") == (status, err)
    assert 220 == yaml.safe_load(out)["lr_decay_steps"]


def test_fork_rewarms_what_entries_cannot_as_a_param_schedulers_config(cli, tmp_path):
    path = tmp_path / "warm.yaml"
    status, _, err = cli("fork", "before", "--rewarm", 20, "--peak", 0.5, "-o", path)
    assert 0 == status
    assert "because with OptimizerParamScheduler" in err
    forked = from_config(optimizer(), path)
    forked.load_state_dict(checkpoint.read_state("before")[0])
    forked.step(10)
    assert [pytest.approx(0.4)] == forked.get_last_lr()


@pytest.mark.parametrize("ending", ["yaml", "toml"])
def test_a_forked_file_says_where_it_comes_from(cli, home, tmp_path, ending):
    path = tmp_path / f"cool.{ending}"
    assert 0 == cli("fork", "stable", "--cooldown", 20, "-o", path)[0]
    first, second, third = path.read_text().splitlines()[:3]
    today = r"\d{4}-\d\d-\d\d"
    origin = f"# forked from {home / 'stable'}, at position 60 in steps, on "
    assert re.fullmatch(re.escape(origin) + today, first)
    assert "# cooldown at 60: lr goes from 1 to 0.1 over 20 units (minus_sqrt)" in second
    assert not third.startswith("#")


def test_a_forked_file_of_json_has_no_comments(cli, tmp_path):
    path = tmp_path / "cool.json"
    assert 0 == cli("fork", "stable", "--cooldown", 20, "-o", path)[0]
    assert "WSD" == json.loads(path.read_text())["lr_decay_style"]


def test_a_comment_of_a_forked_file_is_one_line_whatever_the_folder_is_called(cli, tmp_path):
    source = tmp_path / "a\nmax_lr: 7"
    save(scheduler(lr_decay_style="constant"), source, 60)
    lines = cli("fork", source, "--cooldown", 20)[1].splitlines()
    assert ["#", "#", "p"] == [line[0] for line in lines[:3]]


def test_fork_names_the_folder_to_resume_from(cli, home, tmp_path):
    out = cli("fork", "spec", "--extend", "2k", "-o", tmp_path / "a.yaml")[1]
    assert f"to continue, resume from {home / 'spec'} with this config\n" in out


def test_a_change_may_begin_before_the_checkpoint_where_nothing_jumps(cli, tmp_path):
    source = tmp_path / "step-850"
    save(original("spec"), source, 850)
    arguments = ("--cooldown", 400, "--shape", "linear", "--at", 800)
    assert "would jump" in cli("fork", source, *arguments)[2]
    assert 0 == cli("fork", "spec", "--extend", "2k", "--at", 30)[0]


def test_a_change_may_begin_after_the_checkpoint(cli):
    found = yaml.safe_load(cli("fork", "stable", "--cooldown", 20, "--at", 80)[1])
    assert (100, 20) == (found["lr_decay_steps"], found["wsd_decay_steps"])


def original(source):
    if source == "stable":
        return scheduler(lr_decay_style="constant")
    fields = {"lr": schedules.wsd(3e-4, 1000, warmup=20, decay=200), "betas[0]": 0.9}
    return ParamScheduler(optimizer(), fields)


def test_fork_prints_yaml_where_no_file_is_named(cli):
    status, out, err = cli("fork", "stable", "--cooldown", "2k")
    assert (0, "") == (status, err)
    found = yaml.safe_load(out)
    assert ("config", "WSD", 2060) == (
        found["policy"],
        found["lr_decay_style"],
        found["lr_decay_steps"],
    )


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("megatron.pt", "--cooldown", 20), "use --unit"),
        (("stable", "--cooldown", 20, "--end", 2), "so 2.0 would be a rise; use rewarm"),
        (("spec", "--cooldown", 20, "--end", "4e-4"), "so 0.0004 would be a rise; use rewarm"),
        (("spec",), "use exactly one of --cooldown, --extend, --rewarm and --scale (see"),
        (("spec", "--scale", 0), "must be greater than 0"),
        (("spec", "--scale", "half"), "must be a number"),
        (("spec", "--scale", 2, "--extend", "2k"), "use exactly one of"),
        (("spec", "--scale", 2, "--keep", "value"), "--keep is for --extend, not for --scale"),
        (("spec", "--extend", "2k", "--keep", "slope"), "'slope' is not 'value'"),
        (("stable", "--scale", 0.5, "--at", 80), "leave out --at"),
        (("spec", "--cooldown", 20, "--extend", "2k"), "use exactly one of"),
        (("spec", "--extend", "2k", "--end", 1), "--end is for --cooldown, not for --extend"),
        (("spec", "--cooldown", 2, "--peak", 1), "--peak is for --rewarm, not for --cooldown"),
        (("spec", "--rewarm", 20, "--shape", "linear"), "--shape is for --cooldown"),
        (("spec", "--cooldown", "0.2"), "at least 1 unit; for a share of the horizon write 20%"),
        (("spec", "--cooldown", "x%"), "must be a number of units, which may have a suffix"),
        (
            ("spec", "--cooldown", "20%", "--field", "betas[0]"),
            "is a fraction of the horizon, which",
        ),
        (
            ("spec", "--extend", 900),
            "horizon=900: must be more than the present horizon, 1000 units",
        ),
        (
            ("spec", "--extend", "90%"),
            "horizon=900: must be more than the present horizon, 1000 units",
        ),
        (("before", "--extend", 200), "fork where the value is constant"),
        (
            ("stable", "--cooldown", 20, "--at", 50),
            "lr would jump from 1.0 to 0.36360389693",
        ),
        (("stable", "--cooldown", 20, "--at", 50), "fork from a checkpoint at 50 or before"),
        (("stable", "--cooldown", 20, "--shape", "polynomia"), "polynomial"),
        (("scheduler.pt", "--cooldown", 20), "has only the position 4"),
        (("stable", "--cooldown", 0), "must be greater than 0"),
        (("stable", "--cooldown", 20, "--end", "-1"), "must be a finite number >= 0"),
        (("stable", "--cooldown", 20, "--unit", "tokens"), "the unit of stable is steps"),
        (("spec", "--cooldown", 20, "--field", "lrr"), "did you mean 'lr'?"),
        (("stable", "--cooldown", 20, "-o", "cool.ini"), "must end in one of .yaml"),
    ],
)
def test_fork_refuses_what_cannot_be(cli, arguments, reason):
    status, out, err = cli("fork", *arguments)
    assert (2, "", 1) == (status, out, err.count("\n"))
    assert reason in err


def test_fork_writes_a_param_schedulers_config_where_the_entries_cannot_say_it(cli, tmp_path):
    path = tmp_path / "cool.yaml"
    status, _, err = cli("fork", "before", "--cooldown", 20, "--shape", "linear", "-o", path)
    assert 0 == status
    assert "its values agree with the run's up to rounding" in err
    forked = from_config(optimizer(), path)
    forked.load_state_dict(checkpoint.read_state("before")[0])
    forked.step()
    assert [pytest.approx(0.29)] == forked.get_last_lr()
    out = cli("diff", "before", path)[1]
    assert "no value changes at position 60" in out


def test_fork_offers_the_shapes_that_need_no_parameter(cli):
    for shape in fork._plain_shapes():
        arguments = ("--cooldown", 20, "--shape", shape, "--end", "1e-6")
        assert 0 == cli("fork", "spec", *arguments)[0]
    assert "exponential needs --end above 0" in " ".join(cli("fork", "--help")[1].split())


# what is wrong


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("show", "nowhere"), "nowhere: does not exist"),
        (("show", "illegal.yaml"), "illegal.yaml: min_lr=2.0: must be at most max_lr=1.0"),
        (("show", "scheduler.pt"), "has only the position 4 and no schedule"),
        (("show", ""), "'' is not a path; check for an empty shell variable"),
        (("plot", "scheduler.pt"), "dist-sched show CONFIG --at 4"),
        (("fork", "scheduler.pt", "--cooldown", 9), "convert scheduler.pt DST --to dist-sched"),
        (("show", "run.json", "--at", "1e999999999"), "Invalid value for '--at'"),
        (("fork", "stable", "--cooldown", "1e999999999"), "Invalid value for '--cooldown'"),
        (("show", "run.json", "--at", "-5"), "must be from 0 to 2**53 units"),
        (("show", "run.json", "--key", "a"), "is a config file, which has no keys"),
        (("inspect", "before", "--key", "x"), "no key 'x'; scheduler states have the keys: 'app."),
        (("inspect", "two.pt"), "choose one with its key"),
        (("inspect", "hostile.pt"), "hostile.pt"),
        (("inspect", "run.json"), "is a config file, but this command needs a checkpoint"),
        (("diff", "two.pt", "run.json"), "choose one with its key"),
        (("diff", "before", "run.json", "--policy", "both"), "policy='both'"),
        (("diff", "before", "run.json", "--policy", "a", "--policy", "b=c"), "ENTRY=WORD with"),
        (("show", "run.json", "--colour"), "No such option '--colour'"),
        (("sho", "run.json"), "No such command 'sho'"),
        (("show",), "Missing argument 'CONFIG|CHECKPOINT'"),
        (
            ("convert", "after", "s3://there/a.pt", "--to", "nemo"),
            "only local files can be written",
        ),
        (
            ("convert", "after", "no/a.pt", "--to", "nemo"),
            "no/a.pt: cannot be written: No such file",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(cli, arguments, reason):
    status, out, err = cli(*arguments)
    assert (2, "", 1) == (status, out, err.count("\n"))
    assert err.startswith("dist-sched: error: ")
    assert reason in err


def test_a_hostile_pickle_is_not_executed(cli, home):
    cli("inspect", "hostile.pt")
    assert not (home / "ran").exists()


@pytest.mark.parametrize("place", [0, 2])
def test_debug_shows_the_traceback_wherever_it_stands_and_ends_as_else(cli, place):
    arguments = ["show", "nowhere"]
    arguments.insert(place, "--debug")
    status, out, err = cli(*arguments)
    assert (2, "") == (status, out)
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("dist-sched: error: ")
    assert "does not exist" in err


def test_a_fault_of_our_own_is_one_line_too(cli, monkeypatch):
    monkeypatch.setattr("dist_sched.cli.inputs.read", lambda *_: 1 // 0)
    status, out, err = cli("show", "run.json")
    assert (2, "") == (status, out)
    assert "unexpected ZeroDivisionError" in err
    assert "use --debug to see where" in err


def test_a_checkpoint_that_was_not_finished_is_skipped_and_named(cli, home):
    (home / "after" / "step-90").mkdir(exist_ok=True)
    status, out, err = cli("inspect", "after")
    (home / "after" / "step-90").rmdir()
    assert 0 == status
    assert ["position", "80"] in rows(out)
    assert err.startswith("dist-sched: warning: skipped an incomplete checkpoint: ")


def test_help_names_every_command_and_needs_none_of_them(cli):
    status, out, _ = cli()
    assert 0 == status
    assert all(f"  {name} " in out for name in application.COMMANDS)


@pytest.mark.parametrize("name", sorted({*application.COMMANDS} - {"plot"}))
def test_help_of_each_command_fits_80_columns(cli, name):
    status, out, _ = cli(name, "--help")
    assert 0 == status
    assert max(map(len, out.splitlines())) <= 80


# what people see


def test_a_table_in_a_terminal_is_folded_and_loses_nothing(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    long = "x" * 200
    output.table(("entry", "value"), [("max_lr", long)])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert 200 == out.count("x") - "max_lr".count("x")
    assert "\x1b" not in out


def test_a_table_in_a_narrow_terminal_loses_nothing_either(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    header = ("entry", "A (script)", "B (checkpoint)", "used", "change")
    output.table(header, [("q" * 30, "v" * 20, "w" * 20, "x" * 20, "z" * 20)])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    assert [30, 20, 20, 20, 20] == [out.count(letter) for letter in "qvwxz"]


def test_a_piped_table_is_neither_folded_nor_padded(capsys):
    output.table(("entry", "value"), [("a", "x" * 500), ("b", "y")])
    assert [
        "entry  value",
        "a      " + "x" * 500,
        "b      y",
    ] == capsys.readouterr().out.splitlines()


def test_a_dumb_terminal_gets_no_escapes(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "dumb")
    output.heading("values")
    assert "\nvalues\n" == capsys.readouterr().out


def test_a_terminal_has_colour(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    output.heading("values")
    assert "\x1b[1mvalues" in capsys.readouterr().out


# scenarios


def test_two_checkpoints_explain_why_lr_jumped_after_a_resume(cli):
    status, out, _ = cli("diff", "before", "after")
    assert 1 == status
    assert "  max_lr: 0.5 → 1 (changes lr from 0.3 to 0.55 (× 1.833) by itself)" in out
    assert "different: at position 60 the resume changes lr from 0.3 to 0.55" in out


def test_a_cooldown_is_planned_written_and_seen_before_the_run(cli, tmp_path):
    path = tmp_path / "cool.yaml"
    said = cli("fork", "stable", "--cooldown", 40, "-o", path)[1]
    assert f"{path}: cooldown at 60: lr goes from 1 to 0.1 over 40 units (minus_sqrt)" in said
    status, out, _ = cli("diff", "stable", path)
    assert 1 == status
    assert "no value changes at position 60; at 100 it would change lr from 1 to 0.1" in out
    assert ["100", "lr", "0.1", "past", "the", "end"] in rows(cli("show", path, "--at", 100)[1])


def test_the_broken_config_among_three_is_spotted(cli):
    status, out, _ = cli("check", "clean.yaml", "jump.yaml", "policy.yaml", "--updates", 110)
    assert 1 == status
    jumps = [line for line in out.splitlines() if "jumps from" in line]
    assert ["jump.yaml"] == [line.partition(":")[0] for line in jumps]


# the process


def process(*arguments, program="from dist_sched.cli.application import run", environment=None):
    source = Path(dist_sched.__file__).parents[1]
    code = f"import sys\n{program}\nstatus = run(sys.argv[1:])\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(source), **(environment or {})},
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def shell(line):
    """Run `$D`, which is the command, in bash; return the status and what it prints on stderr."""
    python = f"{sys.executable} -m dist_sched.cli"
    source = str(Path(dist_sched.__file__).parents[1])
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        # Unbuffered output would hide what the interpreter does with its buffer as it ends.
        env={**os.environ, "PYTHONPATH": source, "D": python, "PYTHONUNBUFFERED": ""},
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    "line, status, reason",
    [
        ("$D show run.json >&-", 2, "standard output is closed"),
        ("$D show run.json > /dev/full", 2, "the output cannot be written"),
        ("$D --help > /dev/full", 2, "the output cannot be written"),
    ],
)
def test_what_cannot_be_printed_is_an_error_in_one_line(home, monkeypatch, line, status, reason):
    monkeypatch.chdir(home)
    found, err = shell(line)
    assert (status, 1) == (found, err.count("\n"))
    assert reason in err


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_reader_that_leaves_ends_it_quietly_as_it_ends_others(home, monkeypatch):
    monkeypatch.chdir(home)
    many = " ".join(f"--at {position}" for position in range(3000))
    assert (141, "") == shell(f"set -o pipefail; $D show run.json {many} | head -1 > /dev/null")


def test_ctrl_c_ends_it_with_130_and_without_a_traceback(cli, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dist_sched.cli.inputs.read", interrupted)
    status, out, err = cli("show", "run.json")
    assert (130, "") == (status, out)
    assert "dist-sched: error: interrupted" == err.strip()


LIGHT = [
    ("show", "run.json"),
    ("show", "spec.yaml"),
    ("check", "run.json"),
    ("diff", "lower.yaml", "run.json"),
    ("inspect", "before"),
    ("diff", "before", "run.json"),
    ("fork", "stable", "--cooldown", "5"),
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_what_needs_no_torch_does_not_import_it(home, monkeypatch, arguments):
    monkeypatch.chdir(home)
    assert "False" == process(*arguments).splitlines()[-1]


def seconds(*command):
    spent = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=False)
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def test_a_light_command_takes_at_most_a_third_of_importing_torch(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("PYTHONPATH", str(Path(dist_sched.__file__).parents[1]))
    light = (("show", "run.json"), ("check", "run.json"), ("diff", "lower.yaml", "run.json"))
    attempts = (
        (max(seconds("-m", "dist_sched.cli", *one) for one in light), seconds("-c", "import torch"))
        for _ in range(4)  # another program may have been busy
    )
    assert any(3 * spent <= limit for spent, limit in attempts)


def completed(words, environment):
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), **environment}
    return subprocess.run(
        [sys.executable, "-m", "dist_sched.cli"],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(dist_sched.__file__).parents[1]),
            **environment,
        },
    ).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_made_for_a_shell(shell):
    if shutil.which(shell) is None and shell == "bash":
        pytest.skip("there is no bash")
    out = completed("", {"_DIST_SCHED_COMPLETE": f"{shell}_source"})
    assert f"_DIST_SCHED_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    "words, found",
    [
        ("dist-sched in", "plain,inspect\n"),
        ("dist-sched show run", "file,run\n"),
        ("dist-sched convert a b --to n", "plain,nemo\n"),
        ("dist-sched diff a b --policy c", "plain,checkpoint\nplain,config\n"),
        ("dist-sched check a --ignore ta", "plain,tail-in-warmup\n"),
    ],
)
def test_completion_knows_commands_paths_choices_and_policies(words, found):
    assert found == completed(words, {"_DIST_SCHED_COMPLETE": "bash_complete"})


@pytest.mark.parametrize("name", ["show", "inspect", "diff", "check"])
def test_help_names_what_json_has(cli, as_json, name):
    path = {"diff": ("before", "run.json")}.get(name, ("before",))
    help_text = cli(name, "--help")[1]
    assert all(key in help_text for key in as_json(name, *path))


def test_convert_doubts_the_tail_of_a_config_whose_run_ended_elsewhere(cli, tmp_path):
    tail = {"lr_decay_style": "WSD", "wsd_decay_steps": 10, "lr_wsd_decay_style": "cosine"}
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**CONFIG, **tail}))
    run = scheduler(**tail)
    run.seek(60)
    run.cooldown(15, "linear")
    state = checkpoint.to_megatron_state(run.state_dict())
    torch.save({"scheduler": state}, tmp_path / "m.pt")
    paths = (tmp_path / "m.pt", tmp_path / "back.pt")
    status, out, _ = cli("convert", *paths, "--to", "dist-sched", "--config", path)
    assert 0 == status
    assert "check wsd_decay_steps and lr_wsd_decay_style" in out
    assert "lr_decay_steps is 75 in the state, but 110 in the config" in out


def test_check_refuses_a_momentum_that_reaches_1(cli, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"fields": {"lr": 0.1, "momentum": 1.5}}))
    status, _, err = cli("check", path)
    assert 2 == status
    assert "momentum would reach 1.5: must be below 1" in err


@pytest.mark.parametrize("groups, lr", [({"head": {"lr": 5}}, "5"), ({}, "1")])
def test_diff_prints_what_a_groups_multiplier_moves(cli, tmp_path, groups, lr):
    fields = {"lr": {"schedule": "linear", "peak": 1.0, "horizon": 100}}
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps({"fields": fields, "groups": {"head": {"lr": 0.5}}}))
    new.write_text(json.dumps({"fields": fields, "groups": groups}))
    status, out, _ = cli("diff", old, new, "--policy", "config")
    assert 1 == status
    assert f"changes groups[head].lr from 0.5 to {lr}" in out


def test_diff_prints_two_values_that_differ_by_less_than_is_shown_with_all_digits(cli, tmp_path):
    path = tmp_path / "near.json"
    path.write_text(json.dumps({**CONFIG, "max_lr": 0.500000001}))
    out = cli("diff", "lower.yaml", path, "--policy", "config", "--at", 10)[1]
    assert ["10", "lr", "0.5", "0.500000001", "0.500000001"] in [row[:5] for row in rows(out)]


def test_diff_names_the_entry_that_the_policy_refuses_and_both_sides(cli):
    out = cli("diff", "before", "run.json", "--policy", "strict")[1]
    assert "  max_lr: 0.5 → 1" in out.splitlines()


def test_diff_warns_where_new_is_before_old(cli):
    out = cli("diff", "after", "before")[1]
    assert "note: NEW is at position 60, before OLD's 80" in out


def test_diff_warns_where_a_config_is_old_and_a_checkpoint_new(cli):
    out = cli("diff", "run.json", "before")[1]
    assert "note: OLD is a config and NEW is a checkpoint; to see what a resume from" in out


def test_diff_leaves_equal_entries_out_and_counts_them(cli, tmp_path):
    phases = [{"shape": "linear", "steps": 10, "start": 0, "end": 1}]
    phases += [{"shape": "linear", "steps": 10, "end": 1}] * 30
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps({"fields": {"lr": {"phases": phases}}}))
    phases[-1] = {"shape": "linear", "steps": 20, "end": 1}
    new.write_text(json.dumps({"fields": {"lr": {"phases": phases}}}))
    out = cli("diff", old, new)[1]
    assert "  lr.phases[30].steps: 10 → 20; 10 is kept" in out
    assert "equal entries: 94 (use --all to print them)" in out
    assert "lr.phases[3].steps" not in out
    assert "lr.phases[3].steps" in cli("diff", old, new, "--all")[1]


def test_an_unreadable_file_with_an_odd_ending_may_be_a_config(cli, home):
    (home / "run.ini").write_text("max_lr = 1")
    status, _, err = cli("show", "run.ini")
    assert 2 == status
    assert "a config file must end in .json, .yaml, .yml, .toml" in err


def test_inspect_leaves_assumed_entries_out(as_json):
    assert {*KEYS} == as_json("inspect", "megatron.pt")["entries"].keys()


def test_convert_writes_torch_the_lr_after_the_late_changes(cli, tmp_path):
    assert 0 == cli("convert", "cooled", tmp_path / "a.pt", "--to", "torch")[0]
    assert [pytest.approx(0.3636039)] == loaded(tmp_path / "a.pt")["_last_lr"]


def test_convert_takes_the_position_alone_where_the_config_is_of_another_scheduler(cli, tmp_path):
    config, path = tmp_path / "run.json", tmp_path / "a.pt"
    config.write_text(json.dumps({"fields": {"lr": 0.5}}))
    assert 0 == cli("convert", "before", path, "--to", "dist-sched", "--config", config)[0]
    resumed = ParamScheduler(optimizer(), {"lr": 0.5})
    resumed.load_state_dict(loaded(path))
    assert 60 == resumed.num_steps


def test_fork_refuses_to_make_a_value_jump(cli, tmp_path):
    path = tmp_path / "warmup"
    save(from_config(named(), "spec.yaml"), path, 1000)
    status, _, err = cli("fork", path, "--cooldown", 20)
    assert 2 == status
    assert "weight_decay would jump from" in err
    assert "fork where the value is constant" in err


LONG = "x" * 10**7


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "words",
    [
        ["show", "CONFIG", "--at", "1e999999"],
        ["show", "CONFIG", "--at", LONG],
        ["show", "CONFIG", "--key", LONG],
        ["diff", "CONFIG", "CONFIG", "--policy", LONG],
        ["diff", "CONFIG", "CONFIG", "--policy", f"{LONG}={LONG}"],
        ["show", LONG],
        ["show", f"{LONG}.json"],
        ["show", f"s3://{LONG}"],
        ["show", "CONFIG", "--import", LONG],
        [LONG],
    ],
    ids=range(10),
)
def test_an_argument_of_any_length_ends_in_one_line(tmp_path, capsys, words):
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"fields": {"lr": 1.0}}))
    assert 2 == application.run([str(config) if word == "CONFIG" else word for word in words])
    said = capsys.readouterr().err
    assert (1, True) == (said.count("\n"), len(said) < 4_100)
