"""The values of the update just made, written to a logger in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from dist_sched import _rules as rules
from dist_sched.adapters.lr_scheduler import LRSchedulerAdapter
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._optim.base import Scheduler


class SummaryWriter(Protocol):
    """What TensorBoard's `SummaryWriter` has, and whatever else takes one number at a time."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, /) -> object:
        """Write one number."""


Logger = SummaryWriter | Callable[[dict[str, float]], object] | str | os.PathLike[str] | TextIO


def metrics(
    scheduler: Scheduler | LRSchedulerAdapter, *loggers: Logger, step: int | None = None
) -> dict[str, float]:
    """Return the values of the update just made, and write them to loggers.

    To be called after `step()`, on the rank that logs. Names and values are those of
    `scheduler.metrics()`.

    Examples:
        >>> import torch
        >>> from dist_sched import ParamScheduler, adapters, schedules
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0)
        >>> scheduler = ParamScheduler(optimizer, {"lr": schedules.linear(1.0, 10)})
        >>> scheduler.step()
        >>> used = adapters.metrics(scheduler, print)
        {'lr/0': 1.0}

    Args:
        scheduler: A scheduler, or its adapter.
        *loggers: Each a `SummaryWriter` of TensorBoard, a function of a dict such as `wandb.log`,
            or a text file or its path, to which one line of JSON is added, with `step` first.
        step: What the values stand at, for TensorBoard and JSON; the scheduler's position, if None.

    Raises:
        ConfigError: A logger is nothing of these, or `step` is no whole number >= 0.
    """
    owner = scheduler.scheduler if isinstance(scheduler, LRSchedulerAdapter) else scheduler
    at = owner.num_steps if step is None else rules.whole("step", step)
    values = owner.metrics()
    for logger in loggers:
        _write(logger, values, at)
    return values


def _write(logger: Any, values: dict[str, float], step: int) -> None:
    if hasattr(logger, "add_scalar"):
        for name, value in values.items():
            logger.add_scalar(name, value, step)
    elif isinstance(logger, str | os.PathLike):
        with Path(logger).open("a", encoding="utf-8") as file:
            file.write(_line(values, step))
    elif hasattr(logger, "write"):
        logger.write(_line(values, step))
    elif callable(logger):
        logger({**values})
    else:
        raise ConfigError(
            "loggers: must be a SummaryWriter, a function of a dict, or a file or path for lines "
            f"of JSON, not {type(logger).__name__}"
        )


def _line(values: dict[str, float], step: int) -> str:
    return json.dumps({"step": step, **values}) + "\n"
