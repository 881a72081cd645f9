"""Loads checkpoints on several ranks, and saves them while training goes on.

    checkpoints.py FOLDER

The folder is shared by all ranks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import worker
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

from dist_sched import OptimizerParamScheduler, checkpoint

CONFIG = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "lr_decay_style": "linear",
    "start_wd": 0.0,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "linear",
}


def scheduler(**changes):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return OptimizerParamScheduler(optimizer, **{**CONFIG, **changes})


def seeds_state(position):
    built = scheduler(max_lr=0.5)
    built.seek(position)
    return {key: value for key, value in built.state_dict().items() if key != "dist_sched"}


class Opens:
    """Counts what this process opens in a folder, from within the interpreter."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.count = 0
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if event in {"open", "os.listdir", "os.scandir"}:
            self.count += str(arguments[0]).startswith(self.folder)


def load(path, *, key=None, **changes):
    """Load, and tell what came of it."""
    built = scheduler(**changes)
    try:
        where = checkpoint.load(built, path, key)
    except Exception as error:  # noqa: BLE001 - what it is, is what is told
        return {"error": f"{type(error).__name__}: {error}", "position": built.num_steps}
    return {"position": built.num_steps, "lr": built.get_last_lr(), "key": where.key}


def many_opens(folder):
    built = scheduler()
    built.seek(60)
    dcp.save({"w": torch.zeros(8), "scheduler": built}, checkpoint_id=folder / "opens")
    opens = Opens(folder / "opens")
    found = load(folder / "opens")
    return {**found, "opens": opens.count}


def seeds_checkpoint(folder):
    dcp.save({"app": {"opt_param_scheduler": seeds_state(60)}}, checkpoint_id=folder / "seed")
    return load(folder / "seed")


def two_states(folder):
    tree = {"a": {"sched": seeds_state(60)}, "b": {"sched": seeds_state(70)}}
    dcp.save(tree, checkpoint_id=folder / "two")
    return {"unnamed": load(folder / "two"), "named": load(folder / "two", key="b.sched")}


def other_rank_elsewhere(folder):
    """Only the first rank's path is looked at, and its config adopted."""
    dcp.save({"sched": seeds_state(60)}, checkpoint_id=folder / "here")
    rank = dist.get_rank()
    return load(folder / ("here" if rank == 0 else "nowhere"), max_lr=1.0 + rank, policy="config")


def partial(folder):
    """What plain DCP leaves as it was is known for it, on every rank."""
    dcp.save({"scheduler": seeds_state(60)}, checkpoint_id=folder / "partial")
    dcp.save({"w": torch.zeros(2)}, checkpoint_id=folder / "none")
    found = {}
    for name in ("partial", "none"):
        built = scheduler()
        planner = DefaultLoadPlanner(allow_partial_load=True)
        dcp.load({"scheduler": built}, checkpoint_id=folder / name, planner=planner)
        found[name] = {"position": built.num_steps, "max_lr": built.max_lr}
        found[name]["warnings"] = list(built.last_reconciliation.warnings)
    return found


def asynchronous(folder):
    """Save at each of some positions, and train on meanwhile over the default group."""
    group = dist.new_group(backend="gloo")
    built = scheduler()
    positions = []
    for save in range(4):
        path = folder / f"async-{save}"
        tree = {"w": torch.zeros(2**20), "scheduler": built}
        at_call = built.num_steps
        pending = dcp.async_save(tree, checkpoint_id=path, process_group=group)
        for _ in range(7):
            built.optimizer.step()
            built.step()
            dist.all_reduce(torch.ones(1000))
        pending.result()
        dist.barrier()
        state, _ = checkpoint.read_state(path)
        again = scheduler()
        dcp.load({"scheduler": again}, checkpoint_id=path)
        positions.append([at_call, state["num_steps"], again.num_steps, built.num_steps])
    dist.destroy_process_group(group)
    return positions


def main():
    folder = Path(sys.argv[1])
    cases = [many_opens, seeds_checkpoint, two_states, other_rank_elsewhere, partial, asynchronous]
    with worker.joined():
        found = {case.__name__: case(folder) for case in cases}
        found["missing"] = load(folder / "missing")
        worker.write(found)


if __name__ == "__main__":
    main()
