"""How tests start real processes: one torchrun for many cases, judged by what each rank wrote."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from functools import cache
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
    folder,
    program,
    world_size,
    *args,
    timeout=60,
    aborts=False,
    options=(),
    cwd=".",
    variables=None,
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
        cwd: The current folder of the workers.
        variables: Further environment variables, by name.

    Raises:
        LaunchError: Past the time, a process failed, or a rank wrote no result; carries the output.
    """
    __tracebackhide__ = True
    printed = folder / "output.txt"
    arguments = ["--standalone", f"--nproc-per-node={world_size}", *options, program, *args]
    status = run_torchrun(
        arguments=[*map(str, arguments)],
        environment={
            "WORKER_RESULTS": str(folder),
            "WORKER_TIMEOUT": str(timeout),
            **(variables or {}),
        },
        folder=str(Path(cwd).absolute()),
        programs=str(program.parent),
        output=str(printed),
        timeout=timeout + GRACE,
    )
    output = printed.read_text(errors="replace")
    files = [folder / f"rank{rank}.json" for rank in range(world_size)]
    silent = [rank for rank, file in enumerate(files) if not file.exists()]
    problem = ""
    if status is None:
        problem = f"ran past {timeout} s"
    elif silent:
        problem = f"left no result of ranks {silent} and ended with status {status}"
    elif status and not (aborts and ABORT in output):
        problem = f"ended with status {status}"
    if problem:
        raise LaunchError(f"{program.name} on {world_size} ranks {problem}\n{output}")
    return [json.loads(file.read_text()) for file in files]


@cache
def server():
    """Start the process that torchrun runs in forks of; it ends with this one."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    # TESTS has helpers.py and worker.py. Absolute, because the workers may be in another folder.
    search_path = [str(TESTS), *map(os.path.abspath, given)]
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "torchrun_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(search_path)},
    )
    atexit.register(process.communicate)  # closes its stdin
    return process


def run_torchrun(*, timeout, **request):
    """Return the status of torchrun, or None if it was killed because it was late."""
    process = server()
    process.stdin.write(json.dumps(request).encode() + b"\n")
    torchrun, is_late = int(process.stdout.readline()), True
    try:
        is_late = not select.select([process.stdout], [], [], timeout)[0]
    finally:
        if is_late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(torchrun, signal.SIGKILL)
        status = int(process.stdout.readline())
    return None if is_late else status
