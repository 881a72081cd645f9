"""What every fault case needs: ranks, a scheduler on them, and a record of each attempt."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import helpers
from dist_sched import OptimizerParamScheduler

if TYPE_CHECKING:
    from pathlib import Path

    from torch.distributed import ProcessGroup

POSITION = 72
"""Position of the saved states: lr is 0.5 there and weight decay 0.28125, exactly."""

CONFIG = {
    **helpers.CONFIG,
    "min_lr": 0.0,
    "lr_warmup_steps": 8,
    "lr_decay_steps": 136,
    "end_wd": 0.5,
    "wd_incr_steps": 128,
}

CASES = {}
"""By name, a generator function of the records of what it attempts, called with `Ranks`.

The name says what the fault is, and which rank of the group has it: the first, or "another", which
is the last one.
"""


def case(function):
    CASES[function.__name__] = function
    return function


def cases(prefix, faults):
    """Add one case for each fault: the decorated function, called with it."""

    def add(function):
        for name, fault in faults.items():
            CASES[f"{prefix}_{name}"] = functools.partial(function, fault=fault)
        return function

    return add


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The ranks that take part in a case, as one of them sees them."""

    group: ProcessGroup | None
    ranks: tuple[int, ...]
    """The job's ranks that are in the group, in its order."""
    device: torch.device
    folder: Path
    """Where the groups of this name save checkpoints."""

    @property
    def rank(self):
        """This rank's number within the group."""
        return self.ranks.index(dist.get_rank())

    @property
    def size(self):
        return len(self.ranks)

    @property
    def is_first(self):
        return self.rank == 0

    @property
    def is_another(self):
        """Whether this is the one rank that has the fault; a group of one has no such rank."""
        return 0 < self.rank == self.size - 1


GROUPS = ("all", "part", "mesh")


def groups_of_ranks(device, folder):
    """Return, by name, the process groups of this rank: all ranks, a part, a mesh dimension.

    The first rank of the part is not the job's first, unless the job has only one.
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
        name: Ranks(
            group=group,
            ranks=tuple(dist.get_process_group_ranks(group)),
            device=device,
            folder=folder / name,
        )
        for name, group in groups.items()
        if group is not dist.GroupMember.NON_GROUP_MEMBER
    }


class Log(logging.Handler):
    """What the library logged since `take` was last called."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append([record.levelname, record.getMessage()])

    def take(self):
        taken, self.messages = self.messages, []
        return taken


LOG = Log()


def adamw(ranks, *groups, lr=1.0):
    """Return an AdamW at weight decay 0.5; its parameters have one element each."""
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1, device=ranks.device))], **group}
        for group in groups or [{}]
    ]
    return helpers.adamw(*groups, lr=lr, weight_decay=0.5, foreach=False)


def pipeline_stage(ranks):
    """Return two groups: lr 1 and 1/2 on the first stage, 1/2 and 1/4 on the next, and so on."""
    return adamw(ranks, {"lr": 2.0**-ranks.rank}, {"lr": 2.0 ** -(ranks.rank + 1)})


def build(ranks, optimizer=None, **changes):
    """Return a scheduler whose optimizers have made an update."""
    config = {**CONFIG, "process_group": ranks.group, **changes}
    optimizer = adamw(ranks) if optimizer is None else optimizer
    scheduler = OptimizerParamScheduler(optimizer, **config)
    for group in param_groups(scheduler):
        group["params"][0].grad = torch.ones_like(group["params"][0])
    for each in optimizers(scheduler):
        each.step()
    return scheduler


def optimizers(scheduler):
    """Return torch's optimizers, out of lists and wrappers."""
    found = scheduler.optimizer if isinstance(scheduler.optimizer, list) else [scheduler.optimizer]
    unwrapped = [getattr(each, "optimizer", each) for each in found]
    return [each for each in unwrapped if isinstance(each, torch.optim.Optimizer)]


def param_groups(scheduler):
    return [group for each in optimizers(scheduler) for group in each.param_groups]


def saved_state(ranks, position=POSITION, **changes):
    """Return the state, at a position, of a scheduler that was built with these changes."""
    scheduler = build(ranks, **changes)
    scheduler.seek(position)
    return scheduler.state_dict()


def values(scheduler):
    lrs, wds = (
        [float(group[key]).hex() for group in param_groups(scheduler)]
        for key in ("lr", "weight_decay")
    )
    return {"position": scheduler.num_steps, "lr": lrs, "wd": wds}


def snapshot(scheduler):
    """Copy everything that an error must not change, with the identity of tensors."""
    return {
        "scheduler": dict(vars(scheduler)),
        "state": scheduler.state_dict(),
        "groups": [
            (id(group), {key: identified(value) for key, value in group.items()})
            for group in param_groups(scheduler)
        ],
        "optimizers": [
            {
                param: {key: identified(value) for key, value in state.items()}
                for param, state in optimizer.state.items()
            }
            for optimizer in optimizers(scheduler)
        ],
    }


def identified(value):
    return (id(value), value.tolist()) if isinstance(value, torch.Tensor) else value


def attempt(scheduler, action, *args, **options):
    """Record how an action that may fail ends, what it changes and what it logs."""
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
    except Exception as error:  # noqa: BLE001 - the test decides which error is right
        ended = {"error": type(error).__name__, "message": str(error)}
    return {"ended": ended, "seconds": time.monotonic() - started}


def load(scheduler, state, **options):
    return attempt(scheduler, scheduler.load_state_dict, state, **options)
