"""The training script with a config file, its faults, and every command on its checkpoints."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
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


def run(*command, **options):
    command = [sys.executable, *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=100,
        **options,
    )


def train_command(folder, *options, processes=2):
    """Return what `run` takes; a single process has no launcher."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    saves = ["--checkpoint-dir", folder / "run", "--checkpoint-every", "10", "--keep", "9"]
    return [
        *(launcher if processes > 1 else ()),
        SCRIPT,
        "--device",
        "cpu",
        *SIZES,
        *saves,
        *options,
    ]


def train(folder, *options, processes=2):
    done = run(*train_command(folder, *options, processes=processes))
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


# Faults: other jobs, killed launchers and disks

FOREVER = ("--updates", "1000000")


@contextlib.contextmanager
def started(folder, processes):
    """Start a run without end, and print into a file beside it."""
    command = [sys.executable, *map(str, train_command(folder, *FOREVER, processes=processes))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        (folder / "printed.txt").open("wb") as printed,
        subprocess.Popen(command, stdout=printed, stderr=printed, env=environment) as launcher,
    ):
        try:
            yield launcher
        finally:
            for process in (launcher.pid, *workers_on(folder)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def workers_on(folder):
    """Return the processes that train in a folder, without launchers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            is_launcher = "torch.distributed.run" in words
            if str(folder / "run") in words and str(SCRIPT) in words and not is_launcher:
                found.append(int(process.name))
    return found


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def errors(printed):
    """Return the lines in which the script says why it fails."""
    assert "Error:" not in printed.replace("ChildFailedError:", ""), printed
    return [line for line in printed.splitlines() if line.startswith("train_fsdp.py: error: ")]


def statuses(printed):
    """Return the exit statuses of the ranks that torchrun reports."""
    lines = [line.split() for line in printed.splitlines()]
    return [words[2] for words in lines if words[:2] == ["exitcode", ":"]]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return a folder whose launcher was killed, and what a second job had printed before."""
    folder = tmp_path_factory.mktemp("killed")
    with started(folder, processes=2) as launcher:
        wait_for(checkpoint(folder, 10).exists)
        second = run(*train_command(folder, *FOREVER, "--resume"))
        after = len(metrics(folder))
        wait_for(lambda: len(metrics(folder)) > after)
        launcher.kill()
        wait_for(lambda: not workers_on(folder), 5)
    return folder, second.stderr


def test_a_second_job_on_the_folder_ends_in_one_line_and_the_first_goes_on(killed):
    _, printed = killed
    [error] = errors(printed)
    assert "is in use by another job" in error
    assert printed.startswith(error)
    assert ["2", "2"] == statuses(printed)


def test_the_processes_of_a_killed_launcher_end_and_the_run_can_be_resumed(killed):
    folder, _ = killed
    newest = max(path for path in (folder / "run").glob("step-*") if path.suffix != ".tmp")
    position = int(newest.name.removeprefix("step-"))
    train(folder, "--updates", str(position + 1), "--resume", processes=1)
    assert list(range(position + 1)) == [line["position"] for line in metrics(folder)]


def test_processes_end_whose_launcher_is_killed_before_their_first_line(tmp_path):
    with started(tmp_path, processes=2) as launcher:
        wait_for(lambda: workers_on(tmp_path))
        launcher.kill()
        wait_for(lambda: not workers_on(tmp_path))
    assert [] == [*tmp_path.glob("run")]


def limit_files(size):
    """Let no file grow beyond a size, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_ends_every_rank_and_leaves_the_checkpoint_that_is_named(folder, lines):  # noqa: ARG001 - it comes after
    options = ("--updates", "60", "--config", folder / "schedule.yaml", "--resume")
    printed = run(*train_command(folder, *options), preexec_fn=limit_files(30_000)).stderr
    [error] = errors(printed)
    assert f"error: saving {checkpoint(folder, 50)}: " in error
    assert "File too large" in error
    named = error.removesuffix(" is complete, and --resume goes on from it").rpartition("; ")[2]
    assert named in {str(checkpoint(folder, step)) for step in (40, 42)}
    assert Path(named).exists()
    assert ["2", "2"] == statuses(printed)


def test_metrics_that_cannot_be_written_end_the_run_at_the_next_update(tmp_path):
    options = (*FOREVER, "--checkpoint-every", "1000000")
    command = train_command(tmp_path, *options, processes=1)
    done = run(*command, preexec_fn=limit_files(3_000))
    [error] = errors(done.stderr)
    assert f"error: writing {tmp_path}/run/metrics.jsonl: " in error
    assert error.endswith(f"{tmp_path}/run holds no complete checkpoint")
    assert 2 == done.returncode


def test_a_deleted_folder_ends_the_run_and_is_not_made_again(tmp_path):
    with started(tmp_path, processes=1) as process:
        wait_for(checkpoint(tmp_path, 10).exists)
        (tmp_path / "run").rename(tmp_path / "moved")
        assert 2 == process.wait(60)
    [error] = errors((tmp_path / "printed.txt").read_text())
    assert "No such file or directory" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [("/proc/run",), ("typo", "--resume")])
def test_a_folder_that_cannot_be_used_is_named_in_one_line_and_not_made(tmp_path, options):
    done = run(SCRIPT, "--device", "cpu", "--checkpoint-dir", *options, cwd=tmp_path)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert f" {options[0]}" in done.stderr
    assert [] == [*tmp_path.iterdir()]


@pytest.fixture
def script(monkeypatch):
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("train_fsdp", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_fsdp", module)
    spec.loader.exec_module(module)
    return module


def test_a_file_system_without_locks_is_named_and_the_run_goes_on(
    script, tmp_path, monkeypatch, caplog
):
    def refuse(_file, _operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    script.FolderLock(tmp_path).check()
    [record] = caplog.records
    assert "No locks available" in record.getMessage()


def test_a_folder_that_was_made_again_is_no_longer_ours(script, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lock = script.FolderLock(folder)
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    script.FolderLock(folder)
    with pytest.raises(script.Failure, match="made again"):
        lock.check()


def test_a_rank_that_waits_for_the_others_is_ended_by_sigterm(script, tmp_path, monkeypatch):
    handlers = []

    def wait(_device):
        handlers.append(signal.getsignal(signal.SIGTERM))
        raise script.Failure

    monkeypatch.setattr(script, "process_group", wait)
    monkeypatch.setattr(script, "start_logging", lambda: None)
    monkeypatch.setattr(sys, "argv", ["train_fsdp.py", "--checkpoint-dir", str(tmp_path)])
    with pytest.raises(script.Failure):
        script.run_program()
    assert [signal.SIG_DFL] == handlers
