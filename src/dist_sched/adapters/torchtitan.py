"""torchtitan: a scheduler of this library in its `Trainer`, and its own checkpoints.

Written for torchtitan 0.3.0. Its `Trainer` builds what `config.lr_scheduler` says, so one entry of
a config function is enough:

    lr_scheduler=adapters.torchtitan.SchedulersContainer.Config(file="schedule.yaml")
"""

from __future__ import annotations

# tyro reads the types of a Config while torchtitan runs, so they are imported in earnest.
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any

import tyro  # pyright: ignore[reportMissingImports]
from torchtitan.components import checkpointer  # pyright: ignore[reportMissingImports]
from torchtitan.components.optimizer import (  # pyright: ignore[reportMissingImports]
    LRSchedulersContainer,
    OptimizersContainer,
)

from dist_sched import _rules as rules
from dist_sched import checkpoint
from dist_sched._optim.base import Scheduler
from dist_sched.errors import ConfigError
from dist_sched.scheduler import from_config

__all__ = ["CheckpointManager", "SchedulersContainer"]

_Make = Callable[[OptimizersContainer, int], Scheduler]


class SchedulersContainer(LRSchedulersContainer):  # type: ignore[misc]
    """One scheduler of this library over all optimizers, as torchtitan's `lr_schedulers`.

    Args:
        scheduler: Drives the optimizers of the run.
        increment: Units of one optimizer update: 1 for steps, else the samples or tokens of a
            global batch. torchtitan keeps it constant during a run.

    Raises:
        ConfigError: `increment` is no positive whole number, or is missing where the unit is not
            steps.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):  # type: ignore[misc]
        """What a config function puts in place of `LRSchedulersContainer.Config`.

        torchtitan's own entries (`warmup_steps`, `decay_ratio`, ...) must stay as they are,
        because the schedule comes from `file` or `make`.
        """

        file: str | None = None
        """A file for `from_config`. On the command line: `--lr_scheduler.file schedule.yaml`."""

        make: Annotated[_Make | None, tyro.conf.Suppress] = None
        """Returns the scheduler, of the optimizers and of `training.steps`."""

        increment: int | None = None
        """Units of one optimizer update; 1 if None, which is legal for the unit steps alone."""

        def build(self, *, optimizers: Any, training_steps: int) -> SchedulersContainer:
            """Build the container, as torchtitan's `Trainer` asks for it.

            Raises:
                ConfigError: Neither `file` nor `make` is given, or both, or an entry of
                    torchtitan's own beside them; or the schedule is illegal.
            """
            _refuse_own_entries(self)
            if self.file is not None and self.make is None:
                scheduler: Scheduler = from_config(optimizers, self.file)
            elif self.make is not None and self.file is None:
                scheduler = self.make(optimizers, training_steps)
            else:
                raise ConfigError(
                    f"lr_scheduler: file={rules.shown(self.file)}, make={rules.shown(self.make)}: "
                    "exactly one must be given: a file for from_config, or a function of the "
                    "optimizers and training.steps that returns a scheduler"
                )
            return SchedulersContainer(scheduler, increment=self.increment)

    def __init__(self, scheduler: Scheduler, *, increment: int | None = None) -> None:
        # The base class would build a LambdaLR for each optimizer.
        self.scheduler = scheduler
        self.schedulers = [scheduler]
        self.increment = _increment(scheduler, increment)

    def __iter__(self) -> Iterator[Scheduler]:
        return iter(self.schedulers)

    def __len__(self) -> int:
        return len(self.schedulers)

    def step(self) -> None:
        """Advance by one optimizer update."""
        self.scheduler.step(self.increment)

    def get_metrics(self) -> dict[str, float]:
        """Return the values of the update that comes next, as `scheduler.metrics()` names them.

        torchtitan asks before it makes the update with which it logs them.
        """
        return self.scheduler._metrics_at(self.scheduler.num_steps)  # noqa: SLF001 - a part of it

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the scheduler's state, or that of torchtitan's own container.

        Raises:
            StateError: As for the scheduler.
            ReconcileError: As for the scheduler.
        """
        self.scheduler.load_state_dict(state_dict)


class CheckpointManager(checkpointer.CheckpointManager):  # type: ignore[misc]
    """torchtitan's `CheckpointManager`, which also resumes a run of torchtitan's own scheduler.

    Plain DCP refuses a checkpoint that lacks a key which is asked for, and what
    `LRSchedulersContainer` saved has `last_epoch` alone. Here the scheduler is read by
    `checkpoint.load` instead, from either.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(checkpointer.CheckpointManager.Config):  # type: ignore[misc]
        """The entries are torchtitan's."""

    def dcp_load(
        self, state_dict: dict[str, Any], checkpoint_id: str, from_hf: bool, from_quantized: bool
    ) -> None:
        """Load as torchtitan does, and then the scheduler.

        Raises:
            StateError: As for `checkpoint.load`.
            ReconcileError: As for `checkpoint.load`.
        """
        container = state_dict.get(checkpointer.LR_SCHEDULER)
        if from_hf or not isinstance(container, SchedulersContainer):
            super().dcp_load(state_dict, checkpoint_id, from_hf, from_quantized)
            return
        rest = {k: v for k, v in state_dict.items() if k != checkpointer.LR_SCHEDULER}
        super().dcp_load(rest, checkpoint_id, from_hf, from_quantized)
        checkpoint.load(container.scheduler, checkpoint_id, checkpointer.LR_SCHEDULER)


def _refuse_own_entries(config: SchedulersContainer.Config) -> None:
    """Raise where an entry of torchtitan's own schedule is given, because nothing reads it."""
    for field in fields(LRSchedulersContainer.Config):
        value = getattr(config, field.name)
        if value != field.default:
            raise ConfigError(
                f"lr_scheduler: {field.name}={rules.shown(value)}: is an entry of torchtitan's own "
                "schedule and would have no effect; say it in the schedule "
                "(schedules.from_peer('torchtitan', ...) reads torchtitan's entries)"
            )


def _increment(scheduler: Scheduler, increment: int | None) -> int:
    if increment is None and scheduler.unit == "steps":
        return 1
    if type(increment) is not int or increment < 1:
        raise ConfigError(
            f"increment={rules.shown(increment)}: must be a positive whole number, the "
            f"{scheduler.unit} of one optimizer update, as the scheduler counts {scheduler.unit}"
        )
    return increment
