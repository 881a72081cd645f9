"""What many tests share: a config, optimizers, checkpoints, and what schedulers wrote."""

from __future__ import annotations

import json
import os

import torch
import torch.distributed.checkpoint as dcp

from dist_sched import OptimizerParamScheduler

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
"""Ten entries of `OptimizerParamScheduler`: lr is 0.55 at position 60, weight decay 0.05 at 50."""


def adamw(*groups, lr=1.0, weight_decay=0.1, **arguments):
    """Return an AdamW with a parameter of its own for each group; one plain group by default."""
    return _optimizer(torch.optim.AdamW, groups, lr=lr, weight_decay=weight_decay, **arguments)


def sgd(*groups, lr=1.0, **arguments):
    """Return an SGD with a parameter of its own for each group; one plain group by default."""
    return _optimizer(torch.optim.SGD, groups, lr=lr, **arguments)


def _optimizer(cls, groups, **arguments):
    built = [{"params": [torch.nn.Parameter(torch.ones(2))], **group} for group in groups or ({},)]
    return cls(built, **arguments)


def held(driven, key="lr"):
    """Return what every group holds, as plain numbers; of a scheduler, its optimizer's groups."""
    optimizer = getattr(driven, "optimizer", driven)
    name, _, index = key.rstrip("]").partition("[")
    values = [group[name] for group in optimizer.param_groups]
    values = [value[int(index)] for value in values] if index else values
    return [value.item() if isinstance(value, torch.Tensor) else value for value in values]


def text_of(state):
    """Return what the text of a checkpoint state says."""
    return json.loads(state["dist_sched"])


def state_at(position, **changes):
    """Return the state of an `OptimizerParamScheduler` over `CONFIG` at a position."""
    scheduler = OptimizerParamScheduler(adamw(), **{**CONFIG, **changes})
    scheduler.seek(position)
    return scheduler.state_dict()


def save_dcp(tree, folder):
    """Save a tree as a DCP folder, and return the folder."""
    dcp.save(tree, checkpoint_id=folder)
    return folder


def save_torch(tree, path):
    """Save a tree as a file of `torch.save`, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tree, path)
    return path


class Runs:
    """Pickles as code that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)
