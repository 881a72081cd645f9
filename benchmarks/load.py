"""Measure a load by the number of ranks: its collectives, what they carry, and how long it takes.

    python benchmarks/load.py --ranks 1 2 4 8

Processes of this machine join a gloo group, so the times are those of processes that share its
cores. Counts and bytes are the same on any machine. A last table has the size of the state by the
number of groups, and what every rank computes from the answers of many ranks, with answers that one
process makes up.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import os
import pickle
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import save

from dist_sched import ParamScheduler, schedules
from dist_sched._optim.process_groups import Vote
from dist_sched._optim.stages import Stage, common_names, common_references, lost_groups

if TYPE_CHECKING:
    from collections.abc import Callable

HORIZON = 100_000
ROUNDS = 10
GROUPS = (1, 10, 100, 1_000, 10_000)


def build(num_groups: int) -> ParamScheduler:
    """Return a scheduler of lr and weight decay over named groups, half of them without decay."""
    groups = [
        {
            "params": [torch.nn.Parameter(torch.ones(1))],
            "name": f"layer.{index}",
            "weight_decay": 0.0 if index % 2 else 0.1,
        }
        for index in range(num_groups)
    ]
    optimizer = torch.optim.AdamW(groups[:1], lr=3e-4)
    # One by one, torch compares each new group with all before it.
    optimizer.param_groups += [{**optimizer.param_groups[0], **group} for group in groups[1:]]
    lr = schedules.wsd(3e-4, HORIZON, warmup=2_000, decay=20_000)
    return ParamScheduler(optimizer, {"lr": lr, "weight_decay": 0.1})


class Collectives:
    """Counts object collectives, and the bytes that this rank puts into each."""

    def __init__(self) -> None:
        """Start at none."""
        self.calls: dict[str, int] = {}
        self.payload: dict[str, int] = {}

    def of(self, name: str, position: int) -> Callable[..., None]:
        """Return a function of torch's that is counted.

        Args:
            name: The function.
            position: Of the argument that is sent.
        """
        real = getattr(dist, name)

        def call(*args: Any, **options: Any) -> None:
            self.calls[name] = self.calls.get(name, 0) + 1
            self.payload[name] = len(pickle.dumps(args[position]))
            real(*args, **options)

        return call


def count(action: Callable[[], None]) -> Collectives:
    """Run an action once, and return what it sent."""
    found = Collectives()
    counted = {"broadcast_object_list": 0, "all_gather_object": 1}
    patches: dict[str, Any] = {name: found.of(name, position) for name, position in counted.items()}
    with mock.patch.multiple(dist, **patches):
        action()
    return found


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return milliseconds: until the last rank has finished, and of this rank's CPU time.

    Of the first, it is the fastest round, because others may use the machine too; of the second the
    median.
    """
    walls, own = [], []
    for _ in range(ROUNDS):
        dist.barrier()
        begin, used = time.perf_counter(), time.process_time()
        action()
        own.append(1e3 * (time.process_time() - used))
        slowest = torch.tensor(time.perf_counter() - begin)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        walls.append(1e3 * slowest.item())
    return min(walls), statistics.median(own)


def work(rank: int, size: int, num_groups: int, folder: str) -> None:
    """Measure as one rank; the first one writes the result."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    scheduler = build(num_groups)
    scheduler.seek(50_000)
    state = scheduler.state_dict()

    def load() -> None:
        scheduler.load_state_dict(state if rank == 0 else {})

    load()  # what only a first load does is no part of it
    sent = count(load)
    payload = [b"x" * sent.payload["broadcast_object_list"]]
    vote = b"x" * sent.payload["all_gather_object"]

    def bare() -> None:
        dist.broadcast_object_list(list(payload), src=0)
        dist.all_gather_object([None] * size, vote)

    wall, own = timed(load)
    row = {
        "ranks": size,
        "groups": num_groups,
        "broadcasts": sent.calls["broadcast_object_list"],
        "gathers": sent.calls["all_gather_object"],
        "broadcast, bytes": sent.payload["broadcast_object_list"],
        "each answer, bytes": sent.payload["all_gather_object"],
        "load, ms": wall,
        "bare collectives, ms": timed(bare)[0],
        "CPU of a rank, ms": own,
    }
    if rank == 0:
        Path(folder, "row.json").write_text(json.dumps(row), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def measure(size: int, num_groups: int) -> dict[str, Any]:
    """Return what a load takes on a number of ranks."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        ranks = [
            context.Process(target=work, args=(rank, size, num_groups, folder))
            for rank in range(size)
        ]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join()
        row: dict[str, Any] = json.loads(Path(folder, "row.json").read_text(encoding="utf-8"))
        return row


def sizes(num_groups: int) -> dict[str, Any]:
    """Return the size of the state, and of a checkpoint that holds nothing else."""
    scheduler = build(num_groups)
    state = scheduler.state_dict()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it saves in one process
        save({"scheduler": scheduler}, checkpoint_id=folder, no_dist=True)
        files = [path for path in Path(folder).iterdir() if path.is_file()]
        saved = sum(path.stat().st_size for path in files)
    return {
        "groups": num_groups,
        "state, bytes of JSON": len(json.dumps(state)),
        "DCP folder, bytes": saved,
        "optimizer's param_groups, bytes": len(pickle.dumps(scheduler.optimizer.state_dict())),
    }


def answer(scheduler: ParamScheduler) -> bytes:
    """Return what a rank of such groups would tell the others in a load."""
    writer = scheduler._writer  # noqa: SLF001 - what a rank would say
    return pickle.dumps(Vote(None, "", Stage.of(writer, None, writer.plan)))


def answers(size: int) -> dict[str, Any]:
    """Return what one rank does with the answers of many, which this process makes up."""
    data = answer(build(2))
    begin = time.process_time()
    votes = [pickle.loads(data) for _ in range(size)]  # noqa: S301 - our own bytes
    read = time.process_time()
    stages = [one.report for one in votes]
    common_names(stages)
    lost_groups(stages, common_references(stages))
    done = time.process_time()
    return {
        "ranks": size,
        "bytes gathered on each rank": size * len(data),
        "read them, CPU ms": 1e3 * (read - begin),
        "compare them, CPU ms": 1e3 * (done - read),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a table of Markdown."""
    names = list(rows[0])
    cells = [
        [
            f"{row[name]:,.1f}" if isinstance(row[name], float) else f"{row[name]:,}"
            for name in names
        ]
        for row in rows
    ]
    lines = [names, ["---:"] * len(names), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure a load by the number of ranks.")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--groups", type=int, nargs="+", default=[2, 1_000])
    chosen = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC).date()
    print(f"{today}, {os.cpu_count()} cores, torch {torch.__version__}, {platform.system()}\n")
    print(table([measure(size, groups) for groups in chosen.groups for size in chosen.ranks]))
    print(f"\n{table([sizes(groups) for groups in GROUPS])}")
    print(f"\n{table([answers(size) for size in (1_000, 10_000, 100_000)])}")


if __name__ == "__main__":
    main()
