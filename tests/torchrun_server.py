"""Run torchrun as often as asked, each time in a fork of this process, which has imported torch.

A launch of two ranks in processes of their own would import torch three times, which takes longer
than most of what is tested. torchrun's options `--run-path --start-method fork` make its workers
forks too. With OMP_NUM_THREADS=1 no import starts a thread, so that a fork is safe.

Each line of stdin is a JSON object with the arguments of `run`. Two lines answer it: the id of the
fork, and at its end its status.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.optim
import torch.distributed.pipelining
import torch.distributed.run


def main():
    assert len([*Path("/proc/self/task").iterdir()]) == 1
    for line in sys.stdin:
        fork = os.fork()
        if not fork:
            run(**json.loads(line))
        answer(fork)
        _, status = os.waitpid(fork, 0)
        answer(os.waitstatus_to_exitcode(status))


def answer(number):
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def run(arguments, environment, folder, programs, output):
    """Become torchrun, and end with its status.

    Args:
        arguments: torchrun's.
        environment: What to add to the environment.
        folder: The current folder.
        programs: Where workers import from first, as `python PROGRAM` would.
        output: The file to print into.
    """
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        with Path(output).open("wb") as printed:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
        os.environ.update(environment)
        sys.path[0] = programs
        torch.distributed.run.main(["--run-path", "--start-method", "fork", *arguments])
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
