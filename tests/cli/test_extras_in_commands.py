"""Extras in the command line: shown, drawn, checked, compared, forked and converted like fields."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from dist_sched import from_config
from dist_sched.cli import application

RUN = """
unit: samples
fields:
  lr: {to: batch_size, peak: 0.5, power: 0.5}
extras:
  batch_size: {phases: [{shape: linear, steps: 1k, start: 16, end: 64}]}
"""
LARGER = RUN.replace("start: 16", "start: 32")
ALONE = "extras: {batch_size: 32, loss_weight: {to: batch_size, peak: 2, power: -1}}"


@pytest.fixture
def cli(tmp_path, capsys, monkeypatch):
    """Run a command beside three configs and the checkpoint of a run at position 500."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"run": RUN, "larger": LARGER, "alone": ALONE}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = from_config(optimizer, tmp_path / "run.yaml")
    scheduler.seek(500)
    torch.save({"scheduler": scheduler.state_dict()}, tmp_path / "run.pt")

    def call(*arguments):
        status = application.run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def rows(out):
    return [line.split() for line in out.splitlines()]


def test_show_prints_the_phases_of_an_extra_and_its_values(cli):
    out = cli("show", "run.yaml", "--at", 500)[1]
    assert ["batch_size", "linear", "0", "1000", "16", "64"] in rows(out)
    assert ["lr", "linear", "0", "1000", "0.25", "0.5"] in rows(out)
    assert ["500", "batch_size", "40", "linear"] in rows(out)


@pytest.mark.parametrize("source", ["run.yaml", "alone.yaml", "run.pt"])
def test_a_plot_in_the_terminal_has_a_chart_or_a_line_for_an_extra(cli, source):
    status, out, err = cli("plot", source)
    assert (0, "") == (status, err)
    assert any(line.startswith("batch_size") for line in out.splitlines())


def test_a_check_of_extras_alone_finds_nothing(cli):
    assert (0, "alone.yaml: no findings\n", "") == cli("check", "alone.yaml")


def test_a_check_has_no_finding_for_an_extra_that_ends_before_lr(cli, tmp_path):
    lr = {"schedule": "linear", "peak": 1.0, "horizon": 9000}
    config = {**yaml.safe_load(RUN), "fields": {"lr": lr}}
    (tmp_path / "longer.json").write_text(json.dumps(config))
    assert (0, "longer.json: no findings\n", "") == cli("check", "longer.json")


def test_inspect_prints_an_extras_entries_and_its_next_value(cli):
    out = cli("inspect", "run.pt")[1]
    assert ["batch_size.phases[0].end", "64"] in rows(out)
    assert ["lr.power", "0.5"] in rows(out)
    assert ["batch_size", "40"] in rows(out)


def test_diff_names_the_extra_that_the_resume_moves_and_what_follows_it(cli):
    status, out, _ = cli("diff", "run.pt", "larger.yaml", "--policy", "config")
    assert 1 == status
    assert "batch_size from 40 to 48 (× 1.2)" in out
    assert "lr from 0.39528471 to 0.4330127 (× 1.095)" in out
    assert "batch_size.phases[0].start: 16 → 32 (changes" in out


def test_fork_changes_an_extra_late(cli, tmp_path):
    path = tmp_path / "cool.yaml"
    arguments = ("--cooldown", "10%", "--shape", "linear", "--end", 20, "-o", path)
    assert 0 == cli("fork", "run.pt", "--field", "batch_size", "--at", "1k", *arguments)[0]
    forked = from_config(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5), path)
    forked.seek(1050)
    assert {"batch_size": 42.0} == forked.extras


def test_a_fork_of_extras_alone_is_a_config_of_extras_alone(cli, tmp_path):
    scheduler = from_config([], tmp_path / "alone.yaml")
    torch.save({"scheduler": scheduler.state_dict()}, tmp_path / "alone.pt")
    path = tmp_path / "more.yaml"
    arguments = ("--rewarm", 10, "--peak", 64, "--field", "loss_weight", "-o", path)
    assert "follows batch_size; change that one" in cli("fork", "alone.pt", *arguments)[2]
    arguments = ("--cooldown", 10, "--shape", "linear", "--end", 16, "--field", "batch_size")
    assert 0 == cli("fork", "alone.pt", *arguments, "-o", path)[0]
    forked = from_config([], path)
    forked.seek(10)
    assert {"batch_size": 16.0, "loss_weight": 4.0} == forked.extras


def test_convert_keeps_extras_in_a_state_of_ours_and_names_them_where_they_are_lost(cli):
    assert 0 == cli("convert", "run.pt", "ours.pt", "--to", "dist-sched")[0]
    assert ["batch_size", "40"] in rows(cli("inspect", "ours.pt")[1])
    assert "saved by ParamScheduler" in cli("convert", "run.pt", "theirs.pt", "--to", "megatron")[2]


def test_convert_to_torch_says_that_extras_are_not_carried(cli, tmp_path):
    (tmp_path / "steps.yaml").write_text(RUN.replace("samples", "steps"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    state = from_config(optimizer, tmp_path / "steps.yaml").state_dict()
    torch.save({"scheduler": state}, tmp_path / "steps.pt")
    out = cli("convert", "steps.pt", "torch.pt", "--to", "torch")[1]
    assert "not converted: batch_size" in out
