"""What many tests share: a config, optimizers, and what schedulers wrote, read back."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import pathlib

import pytest
import torch
import torch.distributed.checkpoint as dcp

from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule
from dist_sched._config.path import Path

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


UP = Schedule([Phase("linear", 8, end=0.75, start=0.25)])
"""0.25, 0.5 at 4, 0.75 from 8 on."""
HILL = Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("linear", 32, end=0.5)])
"""0, 0.5 at 4, 1 at 8, 0.75 at 24, 0.5 from 40 on."""
OTHER_HILL = Schedule([Phase("linear", 4, end=2.0, start=0.0), Phase("linear", 32, end=1.0)])
"""0, 2 at 4, 1 from 36 on: shorter and higher."""


def adamw(*groups, lr=1.0, weight_decay=0.1, **arguments):
    """Return an AdamW with a parameter of its own for each group; one plain group by default."""
    return optimizer_of(torch.optim.AdamW, *groups, lr=lr, weight_decay=weight_decay, **arguments)


def adamw_of_tensors(*groups, lr=1.0, **arguments):
    """Return an AdamW whose groups hold lr as float32 tensors, each group its own."""
    optimizer = adamw(*groups, lr=lr, **arguments)
    for group in [*optimizer.param_groups, optimizer.defaults]:
        group["lr"] = torch.tensor(group["lr"])
    return optimizer


FLOAT_AND_TENSOR_LR = pytest.mark.parametrize(
    "build", [adamw, adamw_of_tensors], ids=["float", "tensor"]
)
"""For tests of what is written, put back or copied: optimizers whose lr is of either kind."""


def new_group(**changes):
    """Return a param group with a parameter of its own, to be added to an optimizer."""
    return {"params": [torch.nn.Parameter(torch.ones(2))], **changes}


def sgd(*groups, lr=1.0, momentum=0.5, **arguments):
    """Return an SGD with a parameter of its own for each group; one plain group by default."""
    return optimizer_of(torch.optim.SGD, *groups, lr=lr, momentum=momentum, **arguments)


def optimizer_of(cls, *groups, **arguments):
    """Return an optimizer of a class with a parameter of its own for each group."""
    return cls([new_group(**group) for group in groups or ({},)], **arguments)


def opt_param_scheduler(optimizer=None, **changes):
    """Return an OptimizerParamScheduler of CONFIG with some entries or arguments changed."""
    optimizer = adamw() if optimizer is None else optimizer
    return OptimizerParamScheduler(optimizer, **{**CONFIG, **changes})


def param_scheduler(optimizer=None, fields=None, **arguments):
    """Return a ParamScheduler; by default lr of an SGD follows HILL."""
    return ParamScheduler(optimizer or sgd(), fields or {"lr": HILL}, **arguments)


def saved_state(position=24, fields=None, **arguments):
    """Return the state of a ParamScheduler over an AdamW with one group, `body`."""
    scheduler = param_scheduler(adamw({"name": "body"}), fields, **arguments)
    scheduler.seek(position)
    return scheduler.state_dict()


def held(driven, key="lr"):
    """Return what every group holds, as plain numbers, and None where one lacks it."""
    optimizer = driven if hasattr(driven, "param_groups") else driven.optimizer
    name, _, index = key.rstrip("]").partition("[")
    values = [group.get(name) for group in optimizer.param_groups]
    values = [value[int(index)] for value in values] if index else values
    return [value.item() if isinstance(value, torch.Tensor) else value for value in values]


def contents(driven):
    """Return everything that the groups hold but parameters, as a copy."""
    optimizer = driven if hasattr(driven, "param_groups") else driven.optimizer
    return [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


def text_of(state):
    """Return what the text of a checkpoint state says."""
    return json.loads(state["dist_sched"])


def with_text(state, text):
    """Return a checkpoint state that says something else in its text."""
    return {**state, "dist_sched": json.dumps(text)}


def by_name(values):
    """Return a mapping from paths under the names that people read."""
    return {str(path): value for path, value in values.items()}


def by_path(values):
    """Return a mapping from names under the paths that they stand for."""
    return {Path.parse(name): value for name, value in values.items()}


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


def load_script(name):
    """Return the module of a program in scripts/."""
    path = pathlib.Path(__file__).parents[1] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Runs:
    """Pickles as code that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)
