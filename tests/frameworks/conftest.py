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
    """Return what makes runs of an example in one process, and returns what each update used."""

    def run(name, *runs):
        __tracebackhide__ = True
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        command = [sys.executable, PROGRAMS / "record.py", folder, EXAMPLES / name, *runs]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr[-4000:]
        return json.loads((folder / "results.json").read_text())

    return run


@pytest.fixture
def check_example(run_example, tmp_path):
    """Return what runs an example in one go and in two processes, and compares with its curves."""

    def check(name):
        __tracebackhide__ = True
        lr = schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4)
        weight_decay = schedules.linear(0.1, horizon=16, floor=0.01)
        curve = [[[lr(position), weight_decay(position)]] for position in range(16)]
        parts = f"--folder {tmp_path}/parts --updates"
        first = run_example(name, f"--folder {tmp_path}/whole --updates 16", f"{parts} 7")
        assert [curve, curve[:7]] == first
        assert [curve[7:]] == run_example(name, f"{parts} 16 --resume")

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
