"""Load checkpoints on several ranks, and save one while training goes on.

    load_checkpoints.py FOLDER

The folder is shared by all ranks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

import worker
from dist_sched import OptimizerParamScheduler, checkpoint
from helpers import CONFIG, adamw


def build(**changes):
    return OptimizerParamScheduler(adamw(), **{**CONFIG, **changes})


def megatron_state(position):
    scheduler = build(max_lr=0.5)
    scheduler.seek(position)
    return checkpoint.to_megatron_state(scheduler.state_dict())


class Opens:
    """Counts what this process opens in a folder, by an audit hook of the interpreter."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.count = 0
        sys.addaudithook(self._count)

    def _count(self, event, arguments):
        if event in {"open", "os.listdir", "os.scandir"}:
            self.count += str(arguments[0]).startswith(self.folder)


def load(path, *, key=None, **changes):
    """Load, and return where the scheduler stands then, or the error."""
    scheduler = build(**changes)
    try:
        location = checkpoint.load(scheduler, path, key)
    except Exception as error:  # noqa: BLE001 - the test decides which error is right
        return {"error": f"{type(error).__name__}: {error}", "position": scheduler.num_steps}
    lr = scheduler.get_last_lr()
    return {"position": scheduler.num_steps, "lr": lr, "key": location.key}


def counted_opens(folder):
    scheduler = build()
    scheduler.seek(60)
    dcp.save({"w": torch.zeros(8), "scheduler": scheduler}, checkpoint_id=folder / "opens")
    opens = Opens(folder / "opens")
    return {"loaded": load(folder / "opens"), "opens": opens.count}


def megatron_checkpoint(folder):
    tree = {"app": {"opt_param_scheduler": megatron_state(60)}}
    dcp.save(tree, checkpoint_id=folder / "nested")
    return load(folder / "nested")


def two_states(folder):
    tree = {"a": {"sched": megatron_state(60)}, "b": {"sched": megatron_state(70)}}
    dcp.save(tree, checkpoint_id=folder / "two")
    return {
        "without a key": load(folder / "two"),
        "with a key": load(folder / "two", key="b.sched"),
    }


def another_path_and_config(folder):
    """Load with a path and a config that only the first rank has."""
    dcp.save({"sched": megatron_state(60)}, checkpoint_id=folder / "here")
    rank = dist.get_rank()
    return load(folder / ("here" if rank == 0 else "nowhere"), max_lr=1.0 + rank, policy="config")


def partial(folder):
    """Load by plain DCP what it lets pass: a state without our key, and no state at all."""
    trees = {"megatron": {"scheduler": megatron_state(60)}, "model alone": {"w": torch.zeros(2)}}
    found = {}
    for name, tree in trees.items():
        dcp.save(tree, checkpoint_id=folder / name)
        scheduler = build()
        planner = DefaultLoadPlanner(allow_partial_load=True)
        dcp.load({"scheduler": scheduler}, checkpoint_id=folder / name, planner=planner)
        warnings = list(scheduler.last_reconciliation.warnings)
        found[name] = {"max_lr": scheduler.max_lr, "warnings": warnings}
        found[name]["position"] = scheduler.num_steps
    return found


def missing(folder):
    return load(folder / "missing")


def asynchronous(folder):
    """Save asynchronously at four positions, and train on meanwhile over the default group."""
    group = dist.new_group(backend="gloo")
    scheduler = build()
    positions = []
    for save in range(4):
        path = folder / f"async-{save}"
        tree = {"w": torch.zeros(2**20), "scheduler": scheduler}
        at_call = scheduler.num_steps
        saving = dcp.async_save(tree, checkpoint_id=path, process_group=group)
        for _ in range(7):
            scheduler.optimizer.step()
            scheduler.step()
            dist.all_reduce(torch.ones(1000))
        saving.result()
        dist.barrier()
        state, _ = checkpoint.read_state(path)
        loaded = build()
        dcp.load({"scheduler": loaded}, checkpoint_id=path)
        positions.append([at_call, state["num_steps"], loaded.num_steps, scheduler.num_steps])
    dist.destroy_process_group(group)
    return positions


CASES = [
    counted_opens,
    megatron_checkpoint,
    two_states,
    another_path_and_config,
    partial,
    missing,
    asynchronous,
]


def main():
    folder = Path(sys.argv[1])
    with worker.joined():
        worker.write({case.__name__: case(folder) for case in CASES})


if __name__ == "__main__":
    main()
