"""One rank of a job of chaos.py: the training script, stopped at a point of its program.

It says through a FIFO that it has started, each update that it makes, and that it has come to the
point. There it waits until chaos.py has done what it wants, and the file "go" exists.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(os.environ["CHAOS_FOLDER"])
POINT, RANK, PASSAGE = json.loads(os.environ["CHAOS_POINT"])
SCRIPT = os.environ["CHAOS_SCRIPT"]

_passages = 0


def say(event: str, **more: Any) -> None:
    """Write an event for chaos.py."""
    # A single write of less than a pipe's 4 kB comes in one piece, whatever the other ranks write.
    text = json.dumps({"event": event, "rank": int(os.environ["RANK"]), **more}) + "\n"
    os.write(_fifo, text.encode())


_fifo = os.open(FOLDER / "events", os.O_WRONLY)


def come_to(point: str) -> None:
    """Wait for the fault, if this is where and when it is to come."""
    global _passages  # noqa: PLW0603 - this is a program of one process
    if point != POINT or int(os.environ["RANK"]) != RANK:
        return
    _passages += 1
    if _passages == PASSAGE:
        say("reached")
        while not (FOLDER / "go").exists():
            time.sleep(0.01)


def around(
    owner: Any, name: str, before: str, after: str = "", *, of: str = "", when: Any = None
) -> None:
    """Come to a point before and after each call of a function.

    Args:
        owner: The module or class that has the function.
        name: The function's name.
        before: The point before it.
        after: The point after it.
        of: Only for calls from modules whose names begin so.
        when: Only for calls whose arguments it accepts.
    """
    function: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]  # noqa: SLF001 - the only way to know
        is_here = caller.startswith(of) and (when is None or when(*args))
        if is_here:
            come_to(before)
        result = function(*args, **options)
        if is_here:
            come_to(after)
        return result

    setattr(owner, name, wrapped)


def add_points() -> None:
    """Add the points of `chaos_plan.MOMENTS`."""
    import torch.distributed as dist
    from torch.distributed import fsdp
    from torch.distributed.checkpoint import filesystem

    import dist_sched

    around(dist, "init_process_group", "before process group", "after process group")
    around(fcntl, "flock", "lock")
    around(fsdp, "fully_shard", "model")
    around(filesystem.FileSystemReader, "read_metadata", "before index read")
    around(filesystem.FileSystemReader, "read_data", "before read", "after read")
    around(dist, "broadcast_object_list", "before broadcast", "after broadcast", of="dist_sched.")
    around(dist, "all_gather_object", "before gather", "after gather", of="dist_sched.")
    around(filesystem.FileSystemWriter, "write_data", "before write", "after write")
    around(os, "fsync", "before fsync", of="torch.distributed.checkpoint")
    around(filesystem.FileSystemWriter, "finish", "before index write")
    around(filesystem.FileSystem, "rename", "before index rename", "after index rename")
    around(
        Path,
        "rename",
        "before final rename",
        "after final rename",
        when=lambda old, _: is_part(old),
    )
    around(Path, "rename", "before old rename", when=lambda _, new: is_part(Path(new)))
    around(shutil, "rmtree", "before delete", "after delete")
    around(os, "unlink", "in delete", of="shutil")
    around(dist, "all_reduce", "before reduce", "after reduce", of="train_fsdp")
    for kind in (dist_sched.OptimizerParamScheduler, dist_sched.ParamScheduler):
        around(kind, "step", "before step", "after step", of="train_fsdp")


def is_part(path: Path) -> bool:
    """Return whether a checkpoint's name says that it is incomplete."""
    return path.name.startswith("step-") and path.suffix == ".tmp"


def load_script() -> Any:
    """Return the training script as a module, which says what each update used."""
    spec = importlib.util.spec_from_file_location("train_fsdp", SCRIPT)
    if spec is None or spec.loader is None:
        raise ImportError(SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    update = module.Run.update

    def told(run: Any, *, stop: bool) -> Any:
        record, is_stopping = update(run, stop=stop)
        say("update", record=record)
        return record, is_stopping

    module.Run.update = told
    return module


def main() -> None:
    """Run the training script in this process."""
    # A fork inherits torchrun's handlers; a program that it starts does not.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    say("started", process=os.getpid())
    come_to("first line")
    add_points()
    sys.argv[0] = SCRIPT
    load_script().main()
    # As forks, torchrun's ranks wait for it before they exit, also where it waits for their end.
    if (FOLDER / "leave").exists():
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
