"""Count how often a load opens files of a checkpoint, on all ranks together."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save

from benchmarks import peers, ranks
from benchmarks.table import Result, Row
from dist_sched import checkpoint

RANKS = (1, 4)


class Opens:
    """Counts the files in a folder that this process opens for reading."""

    def __init__(self, folder: str) -> None:
        """Count from now on, until the process ends."""
        self.folder = folder
        self.names: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[0])
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if path.startswith(self.folder) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY):
            self.names.append(Path(path).name)

    def taken(self) -> list[str]:
        """Return the files that all ranks opened since the last call."""
        everywhere: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, self.names)
        self.names = []
        return [name for names in everywhere for name in names]


def work(folder: str) -> dict[str, list[str]]:
    """Save, and load in both ways; return the files that were opened in each."""
    warnings.simplefilter("ignore")  # torch warns of what it will change
    path = f"{folder}/saved"
    scheduler = peers.phases(peers.adamw(2))
    scheduler.seek(peers.START)
    save({"model": {"weight": torch.zeros(8)}, "scheduler": scheduler}, checkpoint_id=path)
    dist.barrier()
    opens = Opens(path)
    checkpoint.load(scheduler, path)
    ours = opens.taken()
    dcp_load({"scheduler": scheduler}, checkpoint_id=path)
    return {"ours": ours, "dcp.load": opens.taken()}


def result(*, is_quick: bool) -> Result:
    """Count on one rank and on several."""
    rows = []
    for size in RANKS[: 1 if is_quick else None]:
        found = ranks.run(size, work)
        indexes = found["ours"].count(".metadata")
        counts = {"the index": indexes, "items": len(found["ours"]) - indexes}
        wanted = {"the index": 1, "items": 2}
        rows += [
            Row(
                what=f"opens of {name} in `checkpoint.load`, ranks: {size}",
                ours=number,
                unit="",
                most=wanted[name],
            )
            for name, number in counts.items()
        ]
        rows.append(
            Row(
                what=f"opens in `checkpoint.load`, ranks: {size}",
                ours=len(found["ours"]),
                unit="",
                against="in `dcp.load`",
                theirs=len(found["dcp.load"]),
            )
        )
    return Result(title="Storage", rows=rows)
