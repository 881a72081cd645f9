"""Measure how long it takes to read the index of a large checkpoint, and how much memory.

Each reading happens in a process of its own, whose peak of memory is its own:

    python -m benchmarks.index OURS-OR-PICKLE FOLDER
"""

from __future__ import annotations

import gc
import json
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Result, Row, mark_down, show

SHARDS = (100_000, 1_000_000)
SHARDS_OF_A_TENSOR = 64
MOST = 1.5
MOST_MEMORY = 2.0
"""GiB at the largest number of shards."""

OURS, PICKLE = "read_state", "pickle.load under gc.disable()"


def write(folder: Path, shards: int) -> None:
    """Write the index of a model with so many shards and a scheduler, and the scheduler's items."""
    import torch
    from torch.distributed.checkpoint import metadata
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.state_dict_saver import save

    from benchmarks import peers

    scheduler = peers.phases(peers.adamw(1))
    save({"scheduler": scheduler}, checkpoint_id=folder, no_dist=True)
    path = folder / ".metadata"
    index = pickle.loads(path.read_bytes())  # noqa: S301 - our own bytes
    rows = 128
    tensors = -(-shards // SHARDS_OF_A_TENSOR)
    for number in range(tensors):
        name = f"model.layers.{number}.attention.weight"
        parts = min(SHARDS_OF_A_TENSOR, shards - number * SHARDS_OF_A_TENSOR)
        size = torch.Size([rows])
        chunks = [
            metadata.ChunkStorageMetadata(torch.Size([part * rows, 0]), torch.Size([rows, 4096]))
            for part in range(parts)
        ]
        index.state_dict_metadata[name] = metadata.TensorStorageMetadata(
            metadata.TensorProperties(), torch.Size([parts * rows, 4096]), chunks
        )
        index.planner_data[name] = tuple(name.split("."))
        for part, chunk in enumerate(chunks):
            key = metadata.MetadataIndex(name, chunk.offsets, part)
            place = _StorageInfo(f"__{part}_{number % 8}.distcp", number * 2**21, size.numel())
            index.storage_data[key] = place
    with path.open("wb") as file:
        pickle.dump(index, file)


def read(how: str, folder: Path) -> dict[str, float | str]:
    """Read the index in this process; return seconds, and the peak of memory in GiB."""
    gc.disable()
    if how == OURS:
        from dist_sched.checkpoint import read_state
        from dist_sched.errors import StateError

        gc.enable()
        begin = time.perf_counter()
        try:
            read_state(folder)
        except StateError as error:
            return {"error": str(error).replace(str(folder), "")[:120]}
    else:
        import torch.distributed.checkpoint  # noqa: F401 - its classes are not part of the time

        begin = time.perf_counter()
        with (folder / ".metadata").open("rb") as file:
            pickle.load(file)  # noqa: S301 - our own bytes
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "GiB": _peak() / 2**20}


def _peak() -> int:
    """Return the highest memory of this process, or of one that it started, in KiB."""
    # Of this process, getrusage has the memory of the one that started it, if that was higher.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own = int(status["VmHWM"].split()[0])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def measure(shards: int, rounds: int) -> dict[str, dict[str, float | str]]:
    """Return the median of seconds and the highest memory of both, read in turn."""
    with tempfile.TemporaryDirectory() as folder:
        _call("write", folder, str(shards))
        mebibytes = Path(folder, ".metadata").stat().st_size / 2**20
        found: dict[str, list[dict[str, float | str]]] = {OURS: [], PICKLE: []}
        for _ in range(rounds):
            for how, taken in found.items():
                if not (taken and "error" in taken[0]):
                    taken.append(json.loads(_call(how, folder)))
    medians: dict[str, dict[str, float | str]] = {}
    for how, taken in found.items():
        medians[how] = taken[0]
        if "error" not in taken[0]:
            seconds = statistics.median(float(one["seconds"]) for one in taken)
            peak = max(float(one["GiB"]) for one in taken)
            medians[how] = {"seconds": seconds, "GiB": peak, "MiB": mebibytes}
    return medians


def _call(*arguments: str) -> str:
    """Run this program in a process of its own, and return what it prints."""
    command = [sys.executable, "-m", "benchmarks.index", *arguments]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)  # noqa: S603 - this program
    return done.stdout


def result(*, is_quick: bool) -> Result:
    """Measure every number of shards."""
    rows, details = [], [["shards", "index, MiB", "", "seconds", "peak of memory, GiB"]]
    for shards in (1_000,) if is_quick else SHARDS:
        found = measure(shards, 1 if is_quick or shards == max(SHARDS) else 5)
        ours, theirs = found[OURS], found[PICKLE]
        what = f"index of {shards:,} shards"
        reason = str(ours.get("error", ""))
        rows.append(
            Row(
                what=what,
                ours=None if reason else float(ours["seconds"]),
                unit="s",
                against=PICKLE,
                theirs=float(theirs["seconds"]),
                most=MOST,
                reason=reason,
            )
        )
        rows.append(
            Row(
                what=f"{what}: peak of memory",
                ours=None if reason else float(ours["GiB"]),
                unit="GiB",
                most=MOST_MEMORY,
                reason=reason,
            )
        )
        details += [
            [f"{shards:,}", *(show(float(one[name])) for name in ("MiB",)), how]
            + [show(float(one[name])) for name in ("seconds", "GiB")]
            for how, one in found.items()
            if "error" not in one
        ]
    lines = ["### Index of a checkpoint", "", *mark_down(details), ""]
    return Result(title="Index of a checkpoint", rows=rows, details="\n".join(lines))


def main() -> None:
    """Write an index, or read one and print what that took."""
    how, folder, *shards = sys.argv[1:]
    if how == "write":
        write(Path(folder), int(shards[0]))
    else:
        print(json.dumps(read(how, Path(folder))))


if __name__ == "__main__":
    main()
