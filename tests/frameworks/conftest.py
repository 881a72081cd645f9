"""Tests with the real frameworks, in the environment of constraints-frameworks.txt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dist_sched import schedules
from launcher import launch

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def torchrun(tmp_path_factory):
    """Return `launch` of one of the programs: every launch gets a folder of its own."""

    def run(program, world_size, *args, **options):
        __tracebackhide__ = True
        folder = tmp_path_factory.mktemp(Path(program).stem)
        return launch(folder, PROGRAMS / program, world_size, *args, **options)

    return run


@pytest.fixture
def run_example(tmp_path):
    """Return what runs an example in a folder, and returns what each update of each rank used."""

    def run(name, runs, *arguments, world_size=1):
        __tracebackhide__ = True
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
        command = [sys.executable, *(several if world_size > 1 else [])]
        command += [str(PROGRAMS / "record.py"), str(folder), str(EXAMPLES / name)]
        command += ["--folder", str(tmp_path / runs), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, stderr=subprocess.PIPE, text=True, check=False
        )
        assert 0 == done.returncode, done.stderr[-4000:]
        return [json.loads(file.read_text()) for file in sorted(folder.glob("rank*.json"))]

    return run


@pytest.fixture
def check_example(run_example):
    """Return what runs an example in one go and in two processes, and compares with its curves."""

    def check(name, world_size=1):
        __tracebackhide__ = True
        lr = schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4)
        weight_decay = schedules.linear(0.1, horizon=16, floor=0.01)
        curve = [[[lr(position), weight_decay(position)]] for position in range(16)]
        options = {"world_size": world_size}
        whole = run_example(name, "whole", "--updates", "16", **options)
        first = run_example(name, "parts", "--updates", "7", **options)
        second = run_example(name, "parts", "--updates", "16", "--resume", **options)
        assert [curve] * world_size == whole
        assert [curve[:7]] * world_size == first
        assert [curve[7:]] * world_size == second

    return check


@pytest.fixture
def used():
    """Return a list of the lr of every group that each update of any optimizer uses."""
    recorded = []

    def record(optimizer, *_):
        recorded.append([float(group["lr"]) for group in optimizer.param_groups])

    handle = register_optimizer_step_pre_hook(record)
    yield recorded
    handle.remove()
