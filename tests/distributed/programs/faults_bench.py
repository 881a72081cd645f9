"""What every case needs: a place, a scheduler in it, and a record of what became of an attempt."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from dist_sched import OptimizerParamScheduler

if TYPE_CHECKING:
    from pathlib import Path

    from torch.distributed import ProcessGroup

POSITION = 72
"""Where the checkpoints of the cases stand: lr is 0.5 there and weight decay 0.28125, exactly."""

CONFIG = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.0,
    "lr_warmup_steps": 8,
    "lr_decay_steps": 136,
    "lr_decay_style": "linear",
    "start_wd": 0.0,
    "end_wd": 0.5,
    "wd_incr_steps": 128,
    "wd_incr_style": "linear",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The ranks among which a case runs, seen from one of them."""

    group: ProcessGroup | None
    ranks: tuple[int, ...]
    """The job's ranks that are in the group, in its order."""
    device: torch.device
    folder: Path
    """For what the groups of this name save."""

    @property
    def rank(self):
        """Give this rank's place within the group."""
        return self.ranks.index(dist.get_rank())

    @property
    def size(self):
        return len(self.ranks)

    @property
    def is_first(self):
        return self.rank == 0

    @property
    def is_another(self):
        """Tell whether this is the one rank that has a fault; a group of one has none."""
        return 0 < self.rank == self.size - 1


def places(device, folder):
    """Give, by name, the groups that this rank is in: all ranks, a part, a mesh dimension.

    The first rank of the part is not the job's first, unless the job has no other.
    """
    size = dist.get_world_size()
    mesh_shape = (size // 2, 2) if size % 4 == 0 else (size, 1)
    mesh = init_device_mesh(device.type, mesh_shape, mesh_dim_names=("across", "within"))
    groups = {
        "all": None,
        "part": dist.new_group(list(range(min(1, size - 1), size))),
        "mesh": mesh.get_group("across"),
    }
    return {
        name: Place(
            group=group,
            ranks=tuple(dist.get_process_group_ranks(group)),
            device=device,
            folder=folder / name,
        )
        for name, group in groups.items()
        if group is not dist.GroupMember.NON_GROUP_MEMBER
    }


class Log(logging.Handler):
    """What the library logged since it was last asked."""

    def __init__(self):
        super().__init__()
        self.told = []

    def emit(self, record):
        self.told.append([record.levelname, record.getMessage()])

    def take(self):
        told, self.told = self.told, []
        return told


LOG = Log()


def optimizer(place, *groups, lr=1.0):
    """Make an AdamW at lr 1.0 and weight decay 0.5; its parameters have one element each."""
    made = [
        {"params": [torch.nn.Parameter(torch.ones(1, device=place.device))], **group}
        for group in groups or [{}]
    ]
    return torch.optim.AdamW(made, lr=lr, weight_decay=0.5, foreach=False)


def build(place, optimizers=None, **changes):
    """Make a scheduler, and optimizers that have made an update."""
    optimizers = optimizer(place) if optimizers is None else optimizers
    scheduler = OptimizerParamScheduler(
        optimizers, **{**CONFIG, "process_group": place.group, **changes}
    )
    for group in groups_of(scheduler):
        group["params"][0].grad = torch.ones_like(group["params"][0])
    for each in stepped(scheduler):
        each.step()
    return scheduler


def stepped(scheduler):
    """Give the optimizers inside of whatever the scheduler was built on."""
    found = scheduler._writer.tracker.optimizers()
    return [each for each in found if isinstance(each, torch.optim.Optimizer)]


def saved(place, position=POSITION, **changes):
    """Give the state of a scheduler that was built with these changes, at a position."""
    scheduler = build(place, **changes)
    scheduler.seek(position)
    return scheduler.state_dict()


def groups_of(scheduler):
    return [group for each in stepped(scheduler) for group in each.param_groups]


def values(scheduler):
    lrs, wds = (
        [float(group[key]).hex() for group in groups_of(scheduler)]
        for key in ("lr", "weight_decay")
    )
    return {"position": scheduler.num_steps, "lr": lrs, "wd": wds}


def snapshot(scheduler):
    """Copy all that an error must not change, with the identity of tensors."""
    return {
        "scheduler": dict(vars(scheduler)),
        "ratios": (dict(scheduler._writer.references), scheduler._writer.keep_ratios),
        "state": scheduler.state_dict(),
        "groups": [
            (id(group), {key: held(value) for key, value in group.items()})
            for group in groups_of(scheduler)
        ],
        "optimizers": [
            {param: {key: held(value) for key, value in state.items()} for param, state in found}
            for found in ([*each.state.items()] for each in stepped(scheduler))
        ],
    }


def held(value):
    return (id(value), value.tolist()) if isinstance(value, torch.Tensor) else value


def attempt(scheduler, action, *args, **options):
    """Do something that may fail, and tell how that ended, what changed and what was logged."""
    before = snapshot(scheduler)
    LOG.take()
    record = timed(lambda: action(*args, **options) and None)
    after = snapshot(scheduler)
    changed = [name for name in before if before[name] != after[name]]
    ended = {"ended": values(scheduler)} if "error" not in record["ended"] else {}
    return {**record, **ended, "changed": changed, "log": LOG.take()}


def timed(action):
    started = time.monotonic()
    try:
        ended = {"returned": action()}
    except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
        ended = {"error": type(error).__name__, "message": str(error)}
    return {"ended": ended, "seconds": time.monotonic() - started}


def load(scheduler, state, **options):
    return attempt(scheduler, scheduler.load_state_dict, state, **options)
