"""The training script with a config file, and every command on a checkpoint that it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

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
"""Printed by processes with FSDP that abort at exit, after their work."""
TOKENS = 12 * 16
"""Of an update: samples times bytes."""
SIZES = ["--width", "16", "--layers", "1", "--heads", "2", "--sequence-length", "16"]


def run(*command):
    command = [sys.executable, *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=100
    )


def train(folder, *options, processes=2):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    saves = ["--checkpoint-dir", folder / "run", "--checkpoint-every", "10", "--keep", "9"]
    done = run(*launcher, SCRIPT, "--device", "cpu", *SIZES, *saves, *options)
    assert "done at position" in done.stderr, done.stderr
    assert done.returncode == 0 or ABORT in done.stderr, done.stderr


def dry_run(folder, *options):
    return run(SCRIPT, "--checkpoint-dir", folder, "--dry-run", *options)


def dist_sched(*arguments, status=0):
    """Run a command of dist-sched, and return what it prints."""
    done = run("-m", "dist_sched.cli", *arguments)
    assert status == done.returncode, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    (folder / "schedule.yaml").write_text(CONFIG)
    (folder / "other.yaml").write_text(CONFIG.replace("3e-3", "2e-3"))
    train(folder, "--updates", "20", "--config", folder / "schedule.yaml")
    return folder


@pytest.fixture(scope="module")
def lines(folder):
    """Return the metrics of the run after it was resumed, with one process more."""
    options = ("--updates", "40", "--config", folder / "schedule.yaml", "--resume")
    train(folder, *options, processes=3)
    return metrics(folder)


def metrics(folder):
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def checkpoint(folder, step=20):
    return folder / "run" / f"step-{step:08d}"


def test_a_run_in_tokens_follows_its_file_across_a_resume(lines):
    assert list(range(40)) == [line["position"] for line in lines]
    for update, lr in ((0, 0.0), (2, 3e-3 * 2 * TOKENS / 768), (4, 3e-3), (31, 3e-3)):
        assert lr == pytest.approx(lines[update]["lr"]["decay"], rel=1e-12)
        assert lr / 2 == pytest.approx(lines[update]["lr"]["no_decay"], rel=1e-12)
    assert 0.1 == lines[20]["wd"]["decay"]
    assert 0.0 == lines[20]["wd"]["no_decay"]
    assert [2, 3] == [lines[19]["world_size"], lines[20]["world_size"]]


def test_a_dry_run_prints_the_schedule_its_oddities_and_what_a_resume_would_change(folder):
    options = ("--sequence-length", "16", "--updates", "40", "--config", folder / "other.yaml")
    done = dry_run(folder / "run", *options)
    assert (0, "") == (done.returncode, done.stderr)
    expected = ("minus_sqrt", "the first update has lr 0", "lr.phases[0].end", "0.002", "0.003")
    assert [] == [text for text in expected if text not in done.stdout]
    assert "updates before the end" not in done.stdout


def test_a_dry_run_of_the_options_needs_no_file(tmp_path):
    done = dry_run(tmp_path, "--max-lr", "0.5")
    assert (0, []) == (done.returncode, [*tmp_path.iterdir()])
    assert "0.5" in done.stdout


def test_a_dry_run_of_a_broken_file_says_so_in_one_line(tmp_path):
    (tmp_path / "broken.yaml").write_text(CONFIG.replace("peak", "peek"))
    done = dry_run(tmp_path, "--config", tmp_path / "broken.yaml")
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "did you mean 'peak'" in done.stderr


def test_options_of_the_schedule_beside_a_file_are_refused(folder):
    done = dry_run(folder / "new", "--config", folder / "schedule.yaml", "--max-lr", "1")
    assert 2 == done.returncode
    assert "leave out --max-lr" in done.stderr


def test_inspect_shows_position_and_unit_of_the_checkpoint(folder):
    found = json.loads(dist_sched("inspect", checkpoint(folder), "--json"))
    assert (20 * TOKENS, "tokens") == (found["position"], found["unit"])


def test_show_prints_the_values_at_the_checkpoints_position(folder):
    assert "0.003" in dist_sched("show", checkpoint(folder))


def test_diff_prints_what_another_file_would_change(folder):
    printed = dist_sched("diff", checkpoint(folder), folder / "other.yaml", status=1)
    assert "lr.phases[0].end" in printed
    assert "0.002" in printed


def test_diff_finds_nothing_with_the_file_of_the_run(folder):
    dist_sched("diff", checkpoint(folder), folder / "schedule.yaml", status=0)


def test_check_lints_the_file(folder):
    arguments = ("--updates", 40, "--increment", TOKENS)
    printed = dist_sched("check", folder / "schedule.yaml", *arguments)
    codes = ["[first-lr-zero]", "[field-ends-elsewhere]"]
    assert codes == [line.split()[-1] for line in printed.splitlines()]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_plot_draws_the_file_and_the_checkpoint(folder, ending):
    picture = folder / f"lr.{ending}"
    dist_sched("plot", folder / "schedule.yaml", checkpoint(folder), "-o", picture)
    assert 1000 < picture.stat().st_size


def test_plot_draws_in_the_terminal(folder):
    printed = dist_sched("plot", folder / "schedule.yaml", checkpoint(folder))
    assert "position (tokens)" in printed
    assert 80 >= max(map(len, printed.splitlines()))


def test_convert_writes_what_our_own_scheduler_loads(folder, tmp_path):
    dist_sched("convert", checkpoint(folder), tmp_path / "state.pt", "--to", "dist-sched")
    found = json.loads(dist_sched("inspect", tmp_path / "state.pt", "--json"))
    assert 20 * TOKENS == found["position"]


def test_a_fork_is_trained_from_the_checkpoint(folder, lines):  # noqa: ARG001 - it comes after
    fork = folder / "fork.yaml"
    printed = dist_sched("fork", checkpoint(folder, 40), "--cooldown", "960", "-o", fork)
    assert "anneal" in printed or "lr goes" in printed
    train(folder, "--updates", "42", "--config", fork, "--resume")
    last = metrics(folder)[-1]
    assert (41, 40) == (last["position"], last["start"])
