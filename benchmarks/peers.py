"""The schedulers that are measured: ours, upstream's, PyTorch's, and the least that any must do.

Each follows a cosine, half-way to a horizon that is far away, so that each step computes a new
value. `dist_sched` is imported when it is first used, so that a process can choose which one.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from benchmarks import timing

if TYPE_CHECKING:
    import timeit
    from collections.abc import Callable, Iterable

PEAK = 1e-3
HORIZON = 1_000_000_000
START = HORIZON // 2
WARMUP = 10

MEGATRON, NEMO, OURS, FLOOR = "Megatron-LM", "NeMo AutoModel", "dist_sched", "floor"
LAMBDA, COSINE, SEQUENTIAL = "LambdaLR", "CosineAnnealingLR", "SequentialLR"
TRANSFORMERS = "transformers' cosine"
PHASES, FIELDS = "ParamScheduler", "ParamScheduler, three fields"

INSTALL = "source scripts/env.sh && make_environment dev && install_upstream"


def is_here(name: str) -> bool:
    """Return whether a scheduler can be measured: transformers may be absent."""
    return name != TRANSFORMERS or importlib.util.find_spec("transformers") is not None


@cache
def megatron() -> Any:
    """Import Megatron-LM's class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of optional packages that are absent
        return importlib.import_module(
            "megatron.core.optimizer_param_scheduler"
        ).OptimizerParamScheduler


@cache
def nemo() -> Any:
    """Load NeMo AutoModel's class from its one file, without the package's many requirements."""
    package = importlib.util.find_spec("nemo_automodel")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'nemo_automodel'")
    path = Path(package.submodule_search_locations[0], "components", "optim", "scheduler.py")
    spec = importlib.util.spec_from_file_location("nemo_scheduler", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OptimizerParamScheduler


def built(cls: Any, optimizer: Any) -> Any:
    """Return Megatron's, NeMo's or our `OptimizerParamScheduler` over an optimizer."""
    return cls(
        optimizer,
        init_lr=0.0,
        max_lr=PEAK,
        min_lr=PEAK / 100,
        lr_warmup_steps=WARMUP,
        lr_decay_steps=HORIZON,
        lr_decay_style="cosine",
        start_wd=0.01,
        end_wd=0.1,
        wd_incr_steps=HORIZON,
        wd_incr_style="linear",
    )


def ours(optimizer: Any) -> Any:
    """Return our `OptimizerParamScheduler`."""
    from dist_sched import OptimizerParamScheduler

    return built(OptimizerParamScheduler, optimizer)


def phases(optimizer: Any, **more: Any) -> Any:
    """Return our `ParamScheduler` of lr and weight decay on the same curves, and of more fields."""
    from dist_sched import ParamScheduler, Phase, Schedule, schedules

    fields = {
        "lr": schedules.cosine(PEAK, HORIZON, WARMUP, floor=PEAK / 100),
        "weight_decay": Schedule([Phase("linear", HORIZON, end=0.1, start=0.01)]),
    }
    return ParamScheduler(optimizer, {**fields, **more})


def three_fields(optimizer: Any) -> Any:
    """Return our `ParamScheduler` of lr, weight decay and the first of the betas."""
    from dist_sched import Phase, Schedule

    momentum = Schedule([Phase("linear", HORIZON, end=0.95, start=0.85)])
    return phases(optimizer, **{"betas[0]": momentum})


def cosine_after_warmup(position: int) -> float:
    """Return the same curve as a fraction of the peak."""
    if position <= WARMUP:
        return position / WARMUP
    return 0.5 * (math.cos(math.pi * (position - WARMUP) / (HORIZON - WARMUP)) + 1.0)


def sequential(optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Return a warmup and a cosine, joined as PyTorch joins them."""
    rise = LinearLR(optimizer, 0.1, total_iters=WARMUP)
    fall = CosineAnnealingLR(optimizer, HORIZON - WARMUP, PEAK / 100)
    joined = SequentialLR(optimizer, [rise, fall], [WARMUP])
    rise.last_epoch = fall.last_epoch = START
    return joined


def transformers_cosine(optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Return the scheduler that Hugging Face's Trainer uses for `cosine`."""
    make = importlib.import_module("transformers.optimization").get_cosine_schedule_with_warmup
    scheduler: LRScheduler = make(optimizer, WARMUP, HORIZON)
    return scheduler


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    OURS: ours,
    PHASES: phases,
    FIELDS: three_fields,
    MEGATRON: lambda optimizer: built(megatron(), optimizer),
    NEMO: lambda optimizer: built(nemo(), optimizer),
    LAMBDA: lambda optimizer: LambdaLR(optimizer, cosine_after_warmup),
    # Computed from the value before, and without a warmup.
    COSINE: lambda optimizer: CosineAnnealingLR(optimizer, HORIZON, PEAK / 100),
    SEQUENTIAL: sequential,
    TRANSFORMERS: transformers_cosine,
}
"""What builds each scheduler over an optimizer."""


def started(name: str, optimizer: Any) -> Any:
    """Return a scheduler that is half-way to the horizon."""
    scheduler = SCHEDULERS[name](optimizer)
    if isinstance(scheduler, LRScheduler):
        scheduler.optimizer.step()  # or the first scheduler.step() warns that it came too early
        scheduler.last_epoch = START
    else:
        scheduler.step(START)
    return scheduler


def step_of(name: str, optimizer: Any) -> Callable[[], None]:
    """Return one step of a scheduler, as a function, where many are called in a loop."""
    scheduler = started(name, optimizer)
    if isinstance(scheduler, LRScheduler):
        return scheduler.step
    return lambda: scheduler.step(1)


def timer(name: str, optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Return a timer of one step of a scheduler, in CPU time."""
    if name == FLOOR:
        return floor(optimizer)
    scheduler = started(name, optimizer)
    argument = "" if isinstance(scheduler, LRScheduler) else "1"
    return timing.cpu(f"scheduler.step({argument})", scheduler=scheduler)


def assign(groups: Iterable[dict[str, Any]], lr: float, weight_decay: float) -> None:
    """Do the least that any scheduler of lr and weight decay must do."""
    for group in groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay


def fill(groups: Iterable[dict[str, Any]], lr: float, weight_decay: float) -> None:
    """Do the least where lr is a tensor."""
    for group in groups:
        group["lr"].fill_(lr)
        group["weight_decay"] = weight_decay


def floor(optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Return a timer of two bare assignments a group."""
    groups = optimizer.param_groups
    write = fill if isinstance(groups[0]["lr"], torch.Tensor) else assign
    return timing.cpu("write(groups, 1e-3, 0.1)", write=write, groups=groups)


def adamw(
    groups: int, own: Callable[[int], dict[str, Any]] = lambda _: {}, **options: Any
) -> torch.optim.AdamW:
    """Return an AdamW with so many groups, each of one parameter of one element.

    Args:
        groups: How many.
        own: From a group's index to the keys that only this group has.
        **options: AdamW's.
    """
    device = options.pop("device", "cpu")

    def parameter() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.zeros(1, device=device))

    first = {"params": [parameter()], **own(0)}
    optimizer = torch.optim.AdamW([first], **{"lr": PEAK, **options})
    template = optimizer.param_groups[0]
    # add_param_group compares with all parameters so far, which takes minutes at 10,000 groups.
    optimizer.param_groups.extend(
        {**template, "params": [parameter()], **own(index)} for index in range(1, groups)
    )
    return optimizer
