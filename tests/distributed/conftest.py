"""How tests start real processes: one torchrun for many cases, judged by what each rank wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent / "programs"
ABORT = "terminate called without an active exception"
"""What a process with FSDP sometimes says when it leaves, after its work: a thread of torch's is
still there. All ranks meet in a barrier after they wrote, so that what was written is whole."""
GRACE = 10
"""Seconds that torchrun has to end after its workers should have."""


class LaunchError(RuntimeError):
    """A launch ran past its time, failed, or left a rank without a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What one torchrun left behind."""

    returncode: int
    seconds: float
    output: str
    """Standard output and error of torchrun and all its workers."""
    results: dict[int, Any]
    """By rank, what it wrote; a rank that wrote nothing is absent."""


def launch(folder, program, world_size, *args, timeout=60, check=True, options=(), aborts=False):
    """Run one of the programs under torchrun, and collect what its ranks wrote.

    Args:
        folder: An empty folder, for the results and the output.
        program: File name in `programs`; it writes its results with `worker.write`.
        world_size: How many processes on this machine.
        *args: The program's own arguments.
        timeout: Seconds that a worker has: past them it prints its stack and ends itself.
        check: Raise unless every process ended well and every rank wrote its result. False is for
            programs in which ranks are meant to die.
        aborts: Pass over ranks that abort when they leave, after all have written. For programs
            with FSDP that write once, as the last thing that they do.
        options: Options for torchrun itself, such as `--monitor-interval=20`, with which workers
            outlive one that died for so long.

    Raises:
        LaunchError: Past its time always, else as `check` says; carries the output.
    """
    __tracebackhide__ = True
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={world_size}", *options, str(PROGRAMS / program)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORKER_RESULTS": str(folder),
        "WORKER_TIMEOUT": str(timeout),
    }
    printed = folder / "output.txt"
    started = time.monotonic()
    with (
        printed.open("wb") as file,
        subprocess.Popen(
            [*command, *map(str, args)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout + GRACE)
        finally:
            is_late = process.poll() is None
            if is_late:
                stop(process, folder)
    outcome = Launch(
        returncode=process.returncode,
        seconds=time.monotonic() - started,
        output=printed.read_text(errors="replace"),
        results=read_results(folder),
    )
    problem = f"ran past {timeout} s" if is_late else check and shortcoming(outcome, world_size)
    is_whole = len(outcome.results) == world_size and ABORT in outcome.output
    if aborts and not is_late and is_whole:
        problem = ""
    if problem:
        raise LaunchError(f"{program} on {world_size} ranks {problem}\n{outcome.output}")
    return outcome


def stop(process, folder):
    """Kill torchrun, and its workers, which are in sessions of their own and say which."""
    workers = [int(file.read_text()) for file in folder.glob("rank*.pid")]
    for leader in (process.pid, *workers):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


def read_results(folder):
    files = folder.glob("rank*.json")
    return {int(file.stem.removeprefix("rank")): json.loads(file.read_text()) for file in files}


def shortcoming(outcome, world_size):
    """Say what is missing in a launch of which all ranks should have ended well."""
    if outcome.returncode:
        return f"ended with status {outcome.returncode}"
    silent = sorted(set(range(world_size)) - outcome.results.keys())
    return f"left no result of ranks {silent}" if silent else ""


@pytest.fixture(scope="session")
def torchrun(tmp_path_factory):
    """Give `launch` without its first argument: every launch gets a folder of its own."""

    def run(program, world_size, *args, **options):
        __tracebackhide__ = True
        folder = tmp_path_factory.mktemp(Path(program).stem)
        return launch(folder, program, world_size, *args, **options)

    return run
