"""Count what a scheduler's state adds to a checkpoint of DCP's, beside its peers'."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_saver import save

from benchmarks import peers
from benchmarks.table import Result, Row, mark_down

GROUPS = (1, 10, 1_000)
MOST_ITEMS = {peers.OURS: 11, peers.PHASES: 2}
MOST_BYTES = {peers.OURS: 2_000}
NAMES = (
    peers.OURS,
    peers.PHASES,
    peers.MEGATRON,
    peers.NEMO,
    peers.LAMBDA,
    peers.COSINE,
    peers.SEQUENTIAL,
)


def measure(name: str, groups: int) -> tuple[int, int, int]:
    """Return the items of a scheduler's state in a checkpoint, its bytes, and theirs there.

    DCP writes each item as a zip archive of its own, of more than a kilobyte.
    """
    scheduler: Any = peers.started(name, peers.adamw(groups))
    state = scheduler.state_dict()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it saves in one process
        # A state dict, because upstream's classes lack annotations that DCP looks for.
        save({"scheduler": state}, checkpoint_id=folder, no_dist=True)
        stored = FileSystemReader(folder).read_metadata().storage_data or {}
    return len(stored), len(pickle.dumps(state)), sum(one.length for one in stored.values())


def result(*, is_quick: bool) -> Result:
    """Count for several numbers of groups."""
    counts = GROUPS[: 2 if is_quick else None]
    found = {(name, groups): measure(name, groups) for name in NAMES for groups in counts}
    rows = []
    for name, most in MOST_ITEMS.items():
        items, size = (max(found[name, groups][index] for groups in counts) for index in (0, 1))
        what = f"state of {name}, up to {counts[-1]:,} groups"
        rows += [
            Row(what=f"{what}: items", ours=items, unit="", most=most),
            Row(
                what=f"{what}: bytes",
                ours=size,
                unit="B",
                most=MOST_BYTES.get(name),
            ),
        ]
    head = ["scheduler", "groups", "items", "bytes", "bytes in DCP's folder"]
    cells = [
        [name, *(f"{one:,}" for one in (groups, *sizes))] for (name, groups), sizes in found.items()
    ]
    lines = ["### State in a checkpoint of DCP's", "", *mark_down([head, *cells]), ""]
    return Result(title="State in a checkpoint", rows=rows, details="\n".join(lines))
