"""Tests with the real frameworks, in the environment of constraints-frameworks.txt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    """Return what runs an example, and returns what each update of each rank used."""

    def run(name, *arguments, world_size=1):
        __tracebackhide__ = True
        folder = tmp_path / f"used{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
        command = [sys.executable, *(several if world_size > 1 else [])]
        command += [str(PROGRAMS / "record.py"), str(folder), str(EXAMPLES / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            text=True,
            timeout=100,
        )
        assert 0 == done.returncode, done.stderr[-4000:]
        return [json.loads(file.read_text()) for file in sorted(folder.glob("rank*.json"))]

    return run
