"""Writing the values of the latest update to loggers."""

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
    """Any object with TensorBoard's `SummaryWriter.add_scalar`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, /) -> object:
        """Write one number."""


Logger = SummaryWriter | Callable[[dict[str, float]], object] | str | os.PathLike[str] | TextIO


def metrics(
    scheduler: Scheduler | LRSchedulerAdapter, *loggers: Logger, step: int | None = None
) -> dict[str, float]:
    """Return the values of the latest update, and write them to loggers.

    Call it after `step()`, on the rank that logs. It writes the names and values of
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
        scheduler: A scheduler, or its `as_lr_scheduler` adapter.
        *loggers: Each is a TensorBoard `SummaryWriter`, a function that takes a dict such as
            `wandb.log`, or an open text file or a path, to which a line of JSON is appended.
        step: Step for TensorBoard and JSON, a whole number >= 0. If None, the scheduler's position.

    Returns:
        The dict of `scheduler.metrics()`.

    Raises:
        ConfigError: A logger is none of these, or `step` is invalid.
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
            "loggers: must be a SummaryWriter, a function that takes a dict, or a file or path for "
            f"lines of JSON, not {type(logger).__name__}"
        )


def _line(values: dict[str, float], step: int) -> str:
    return json.dumps({"step": step, **values}) + "\n"
