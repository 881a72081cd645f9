"""Jobs under torchrun for chaos.py, and what is done to them. Linux only.

This process imports torch once, and each torchrun with its ranks is a fork of it, because imports
would take longer than the jobs. Whatever a job leaves becomes a child of this process, so nothing
can hide from it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RANK_PROGRAM = Path(__file__).with_name("chaos_rank.py")
PR_SET_CHILD_SUBREAPER = 36  # from <linux/prctl.h>
PR_SET_PDEATHSIG = 1
LIMIT = 120
"""Seconds after which a job hangs."""
GRACE = 5
"""Seconds that the ranks have to end after their launcher."""
IMPORTS = 60
"""Seconds that they have beside, where they may just be importing torch."""

NOWHERE = ("", 0, 0)
"""The point of a job that is left alone."""


def libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None)


def prepare() -> None:
    """Import everything that the jobs need, and adopt the processes that they leave.

    Raises:
        SystemExit: An import started a thread, which makes forks unsafe.
    """
    libc().prctl(PR_SET_CHILD_SUBREAPER, 1)
    import tqdm.contrib.logging  # noqa: F401

    import dist_sched.scheduler  # noqa: F401

    # A fork shares the memory, which a collection would write to and so copy.
    gc.collect()
    gc.freeze()
    if len([*Path("/proc/self/task").iterdir()]) > 1:
        raise SystemExit("chaos.py: an import started a thread; set OMP_NUM_THREADS=1")


class Job:
    """One job: torchrun, its ranks, and what they said."""

    are_forks: ClassVar[bool] = True
    """Whether torchrun and its ranks are forks of this process, without imports of their own."""

    def __init__(
        self,
        folder: Path,
        script: Path,
        arguments: Sequence[str],
        world_size: int,
        point: tuple[str, int, int] = NOWHERE,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.world_size = world_size
        self.ranks: dict[int, int] = {}
        """The process of each rank that has started."""
        self.is_reached = False
        self.updates: list[dict[str, Any]] = []
        """The metrics of each update, as each rank had them."""
        self.status: int | None = None
        self.started = time.monotonic()
        self.seconds = 0.0
        os.mkfifo(folder / "events")
        # Both ends, so that it does not end with the last rank.
        self._events = os.open(folder / "events", os.O_RDWR | os.O_NONBLOCK)
        # A pipe, because a full disk must not stop what is printed.
        self._printed, printed = os.pipe2(os.O_NONBLOCK)
        os.set_blocking(printed, True)
        self._buffers = {self._events: b"", self._printed: b""}
        environment = {
            "CHAOS_FOLDER": str(folder),
            "CHAOS_POINT": json.dumps(point),
            "CHAOS_SCRIPT": str(script),
            # Seconds that the ranks have to end after a SIGTERM to torchrun: for busy machines.
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "90",
        }
        self.launcher = os.fork()
        if not self.launcher:
            _become_torchrun(printed, environment, world_size, arguments)
        _ended.pop(self.launcher, None)  # of an earlier process with this id
        os.close(printed)

    @property
    def output(self) -> str:
        """What the job has printed."""
        return self._buffers[self._printed].decode(errors="replace").replace("\r", "\n")

    def poll(self) -> None:
        """Read what there is to read."""
        for handle in self._buffers:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(handle, 1 << 16):
                    self._buffers[handle] += data
        *lines, rest = self._buffers[self._events].split(b"\n")
        self._buffers[self._events] = rest
        for line in lines:
            event = json.loads(line)
            match event["event"]:
                case "started":
                    self.ranks[event["rank"]] = event["process"]
                case "reached":
                    self.is_reached = True
                case "update":
                    self.updates.append({**event["record"], "rank": event["rank"]})

    def has_ended(self) -> bool:
        """Read what there is to read, and return whether torchrun has ended."""
        self.poll()
        if self.status is None and self.launcher in _reap():
            self.status = _ended[self.launcher]
            self.seconds = time.monotonic() - self.started
            self.poll()
        return self.status is not None

    def wait(self, is_met: Callable[[], bool] = lambda: False, seconds: float = LIMIT) -> bool:
        """Wait until a condition holds or the job has ended; return False if it took too long."""
        deadline = time.monotonic() + seconds
        while not (self.has_ended() or is_met()):
            if time.monotonic() > deadline:
                return False
            select.select([self._events, self._printed], [], [], 0.02)
        return True

    def go_on(self) -> None:
        """Let the rank go on that waits at the point."""
        (self.folder / "go").touch()

    def leave(self) -> None:
        """Let the ranks exit by themselves when they are done, without their launcher."""
        (self.folder / "leave").touch()

    def signal(self, number: signal.Signals, processes: Sequence[int]) -> None:
        """Send a signal to processes that may have ended."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def limit_files(self, size: int, processes: Sequence[int]) -> None:
        """Let no file of some processes grow beyond a size, as on a full disk."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process, resource.RLIMIT_FSIZE, (size, size))

    def close(self) -> None:
        """Close the pipes, and keep what was printed."""
        self.poll()
        (self.folder / "output.txt").write_text(self.output)
        for handle in self._buffers:
            os.close(handle)


def _become_torchrun(
    printed: int, environment: dict[str, str], world_size: int, arguments: Sequence[str]
) -> None:
    """Run torchrun in this process, and end it."""
    status = 1
    try:
        os.setsid()
        libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # this process may be killed as well
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.environ.update(environment)
        sys.path[0] = str(RANK_PROGRAM.parent)
        import torch.distributed.run

        program = [f"--nproc-per-node={world_size}", str(RANK_PROGRAM), *arguments]
        options = ["--standalone", "--monitor-interval=0.05"]
        if not Job.are_forks:
            command = [sys.executable, "-m", "torch.distributed.run", *options, *program]
            os.execv(sys.executable, command)  # noqa: S606 - there is nothing for a shell to do
        torch.distributed.run.main([*options, "--run-path", "--start-method=fork", *program])
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process must end here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


_ended: dict[int, int] = {}


def _reap() -> dict[int, int]:
    """Return the exit status of every child that has ended, by process."""
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            _ended[process] = os.waitstatus_to_exitcode(status)
    return _ended


def left_processes() -> list[int]:
    """Return the processes of all jobs that are still there after a time of grace."""
    deadline = time.monotonic() + GRACE + (0 if Job.are_forks else IMPORTS)
    while True:
        _reap()
        left = descendants(os.getpid())
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def kill_left() -> None:
    """End the processes of all jobs."""
    while left := descendants(os.getpid()):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        _reap()


def descendants(process: int) -> list[int]:
    """Return the children of a process, and theirs; not those that have ended."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold spaces.
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]
