"""The example for Megatron-LM trains, and goes on in new processes, also of another number."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import adamw

pytestmark = [pytest.mark.frameworks, pytest.mark.distributed]

EXAMPLE = Path(__file__).parents[2] / "examples/megatron.py"


def run(folder, updates, world_size):
    """Run the example under torchrun; return lr and weight decay of the groups at each update."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={world_size}", EXAMPLE, folder, str(updates)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # Judged by what it wrote, because processes with FSDP sometimes abort at exit, after their work.
    assert list(folder.glob(f"iter_{updates:07d}/.metadata")), done.stdout + done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]


def test_the_example_resumes_with_the_bits_of_megatrons_own_class(tmp_path):
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    example = runpy.run_path(str(EXAMPLE))
    optimizer = adamw({}, {"wd_mult": 0.0})
    scheduler = OptimizerParamScheduler(optimizer, **example["ENTRIES"])
    expected = []
    for _ in range(16):
        expected.append([[group["lr"], group["weight_decay"]] for group in optimizer.param_groups])
        scheduler.step(increment=example["BATCH"])
    assert expected == run(tmp_path / "whole", 16, 2)
    assert expected == run(tmp_path / "parts", 7, 2) + run(tmp_path / "parts", 16, 1)
