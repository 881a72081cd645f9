"""How tests start real processes: one torchrun for many cases, judged by what each rank wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
ABORT = "terminate called without an active exception"
"""Printed by processes with FSDP that abort at exit, after their work.

A thread of torch's is still running then. All ranks meet in a barrier after they wrote, so what
they wrote is complete.
"""
GRACE = 10
"""Seconds that torchrun has to end after the time of its workers."""


class LaunchError(RuntimeError):
    """A launch ran past its time, failed, or left a rank without a result."""


def launch(
    folder, program, world_size, *args, timeout=60, aborts=False, options=(), variables=None
):
    """Run a program under torchrun, and return the result of each rank.

    Args:
        folder: An empty folder, for the results and the output.
        program: Path of the program; it writes its results with `worker.write`.
        world_size: How many processes on this machine.
        *args: The program's own arguments.
        timeout: Seconds that a worker has: past them it prints its stack and ends itself.
        aborts: Accept ranks that abort at exit after all have written, for programs with FSDP.
            They must write once, at their end.
        options: Further options of torchrun.
        variables: Further environment variables, by name.

    Raises:
        LaunchError: Past the time, a process failed, or a rank wrote no result; carries the output.
    """
    __tracebackhide__ = True
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={world_size}", *options, str(program), *map(str, args)]
    # TESTS has helpers.py and worker.py.
    search_path = filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(search_path),
        "WORKER_RESULTS": str(folder),
        "WORKER_TIMEOUT": str(timeout),
        **(variables or {}),
    }
    printed = folder / "output.txt"
    with (
        printed.open("wb") as file,
        subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout + GRACE)
        finally:
            is_late = process.poll() is None
            if is_late:
                stop(process, folder)
    output = printed.read_text(errors="replace")
    files = [folder / f"rank{rank}.json" for rank in range(world_size)]
    silent = [rank for rank, file in enumerate(files) if not file.exists()]
    problem = ""
    if is_late:
        problem = f"ran past {timeout} s"
    elif silent:
        problem = f"left no result of ranks {silent} and ended with status {process.returncode}"
    elif process.returncode and not (aborts and ABORT in output):
        problem = f"ended with status {process.returncode}"
    if problem:
        raise LaunchError(f"{program.name} on {world_size} ranks {problem}\n{output}")
    return [json.loads(file.read_text()) for file in files]


def stop(process, folder):
    """Kill torchrun, and its workers, which are in sessions of their own and wrote their ids."""
    workers = [int(file.read_text()) for file in folder.glob("rank*.pid")]
    for leader in (process.pid, *workers):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
