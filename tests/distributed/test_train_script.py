"""The training script with a config file, and every command on a checkpoint that it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dist_sched.cli.application import run as dist_sched

pytestmark = pytest.mark.distributed

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_fsdp.py"
CONFIG = """
unit: tokens
horizon: "7.68k"
fields:
  lr: {schedule: wsd, peak: 3e-3, warmup: 10%, decay: 20%}
  weight_decay: {peak: 0.1, to: lr}
  betas[0]: {phases: [{shape: linear, steps: 20%, start: 0.8, end: 0.9}]}
groups:
  no_decay: {lr: 0.5}
"""
ABORT = "terminate called without an active exception"
"""What a process with FSDP sometimes says when it leaves, after its work."""
TOKENS = 12 * 16
"""Of an update: samples times bytes."""


def train(folder, *options, processes=2, check=True):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(SCRIPT), "--device", "cpu"]
    command += ["--width", "16", "--layers", "1", "--heads", "2", "--sequence-length", "16"]
    command += [
        "--checkpoint-dir",
        str(folder / "run"),
        "--checkpoint-every",
        "10",
        "--keep",
        "9",
        *options,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=100
    )
    if (
        check
        and done.returncode
        and not (ABORT in done.stderr and "done at position" in done.stderr)
    ):
        done.check_returncode()
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("train")
    (made / "schedule.yaml").write_text(CONFIG)
    (made / "other.yaml").write_text(CONFIG.replace("3e-3", "2e-3"))
    train(made, "--updates", "20", "--config", str(made / "schedule.yaml"))
    return made


@pytest.fixture(scope="module")
def lines(folder):
    """Give the metrics after the run went on, on one process more."""
    options = ("--updates", "40", "--config", str(folder / "schedule.yaml"), "--resume")
    train(folder, *options, processes=3)
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def of_run(folder, step=20):
    return str(folder / "run" / f"step-{step:08d}")


def said(capsys, *arguments, status=0):
    found = dist_sched([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert status == found, err
    return out


def test_a_run_in_tokens_follows_its_file_across_a_resume(lines):
    assert list(range(40)) == [line["position"] for line in lines]
    for update, lr in ((0, 0.0), (2, 3e-3 * 2 * TOKENS / 768), (4, 3e-3), (31, 3e-3)):
        assert lr == pytest.approx(lines[update]["lr"]["decay"], rel=1e-12)
        assert lr / 2 == pytest.approx(lines[update]["lr"]["no_decay"], rel=1e-12)
    assert 0.1 == lines[20]["wd"]["decay"]
    assert 0.0 == lines[20]["wd"]["no_decay"]
    assert [2, 3] == [lines[19]["world_size"], lines[20]["world_size"]]


def test_a_dry_run_prints_the_schedule_its_oddities_and_what_a_resume_would_change(folder):
    command = [sys.executable, str(SCRIPT), "--checkpoint-dir", str(folder / "run"), "--dry-run"]
    command += ["--sequence-length", "16", "--updates", "40", "--config"]
    done = subprocess.run(
        [*command, str(folder / "other.yaml")], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    for told in ("minus_sqrt", "the first update has lr 0", "lr.phases[0].end", "0.002", "0.003"):
        assert told in done.stdout
    assert "updates before the end" not in done.stdout


def test_a_dry_run_of_the_options_needs_no_file(tmp_path):
    command = [sys.executable, str(SCRIPT), "--checkpoint-dir", str(tmp_path), "--dry-run"]
    done = subprocess.run([*command, "--max-lr", "0.5"], capture_output=True, text=True, check=True)
    assert "0.5" in done.stdout
    assert [] == list(tmp_path.iterdir())


def test_a_dry_run_of_a_broken_file_says_so_in_one_line(tmp_path):
    (tmp_path / "broken.yaml").write_text(CONFIG.replace("peak", "peek"))
    command = [sys.executable, str(SCRIPT), "--checkpoint-dir", str(tmp_path), "--dry-run"]
    command += ["--config", str(tmp_path / "broken.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "did you mean 'peak'" in done.stderr


def test_options_of_the_schedule_beside_a_file_are_refused(folder):
    command = [sys.executable, str(SCRIPT), "--checkpoint-dir", str(folder / "new")]
    command += ["--config", str(folder / "schedule.yaml"), "--max-lr", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 2 == done.returncode
    assert "leave out --max-lr" in done.stderr


def test_inspect_tells_the_checkpoint(folder, capsys):
    told = json.loads(said(capsys, "inspect", of_run(folder), "--json"))
    assert (20 * TOKENS, "tokens") == (told["position"], told["unit"])


def test_show_gives_the_values_at_its_position(folder, capsys):
    assert "0.003" in said(capsys, "show", of_run(folder))


def test_diff_tells_what_another_file_would_change(folder, capsys):
    told = said(capsys, "diff", folder / "other.yaml", of_run(folder), status=1)
    assert "lr.phases[0].end" in told
    assert "0.002" in told
    said(capsys, "diff", folder / "schedule.yaml", of_run(folder))


def test_check_lints_the_file(folder, capsys):
    arguments = ("--updates", 40, "--increment", TOKENS)
    told = said(capsys, "check", folder / "schedule.yaml", *arguments, status=1)
    assert 1 == len(told.splitlines())
    assert "lr 0" in told


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_plot_draws_the_file_and_the_checkpoint(folder, capsys, ending):
    picture = folder / f"lr.{ending}"
    said(capsys, "plot", folder / "schedule.yaml", of_run(folder), "-o", picture)
    assert 1000 < picture.stat().st_size


def test_plot_draws_in_the_terminal(folder, capsys):
    told = said(capsys, "plot", folder / "schedule.yaml", of_run(folder))
    assert "position (tokens)" in told
    assert 80 >= max(map(len, told.splitlines()))


def test_convert_writes_what_our_own_scheduler_loads(folder, capsys, tmp_path):
    said(capsys, "convert", of_run(folder), tmp_path / "state.pt", "--to", "dist-sched")
    told = json.loads(said(capsys, "inspect", tmp_path / "state.pt", "--json"))
    assert 20 * TOKENS == told["position"]


def test_a_fork_is_trained_from_the_checkpoint(folder, lines, capsys):  # noqa: ARG001 - goes on first
    fork = folder / "fork.yaml"
    told = said(capsys, "fork", of_run(folder, 40), "--cooldown", "960", "-o", fork)
    assert "anneal" in told or "lr goes" in told
    options = ("--updates", "42", "--config", str(fork), "--resume")
    train(folder, *options)
    last = json.loads((folder / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert (41, 40) == (last["position"], last["start"])
