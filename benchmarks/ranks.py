"""Run a function on several ranks of a gloo group on this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def run(size: int, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function of a module returns on the first rank.

    The ranks are forks of one process that has imported torch and the function's module, so that
    imports are paid once. With one thread no import starts another, so a fork is safe.

    Args:
        size: How many ranks.
        function: Called on each rank with a folder that all ranks share, and the arguments.
        *arguments: Further arguments, which can be pickled.

    Raises:
        RuntimeError: A rank ended with an error, which it has printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, function.__module__])
        ranks = [
            context.Process(target=_work, args=(rank, size, folder, function, arguments))
            for rank in range(size)
        ]
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
            for one in ranks:
                one.start()
        for one in ranks:
            one.join()
        if any(one.exitcode for one in ranks):
            raise RuntimeError(f"a rank ended with status {[one.exitcode for one in ranks]}")
        found: T = pickle.loads(Path(folder, "found").read_bytes())  # noqa: S301 - our own bytes
        return found


def _work(
    rank: int, size: int, folder: str, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    found = function(folder, *arguments)
    if rank == 0:
        Path(folder, "found").write_bytes(pickle.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
