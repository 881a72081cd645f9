"""An adapter for torchtitan's `Trainer`, and for checkpoints of torchtitan's own scheduler.

Written for torchtitan 0.3.0. Its `Trainer` builds the scheduler from `config.lr_scheduler`, so one
entry in a config function is enough:

    lr_scheduler=adapters.torchtitan.SchedulersContainer.Config(file="schedule.yaml")
"""

from __future__ import annotations

# tyro reads the types of a Config at run time, so they are imported here.
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
    """One scheduler of this library for all optimizers, as torchtitan's `lr_schedulers`.

    Args:
        scheduler: The scheduler of the run's optimizers.
        increment: Units per optimizer update, a whole number above 0: the samples or tokens of a
            global batch. If None, 1, which is allowed for the unit steps only.

    Raises:
        ConfigError: `increment` is invalid, or missing for another unit than steps.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):  # type: ignore[misc]
        """The entry `lr_scheduler` of a config function, instead of torchtitan's own.

        Do not set torchtitan's own entries (`warmup_steps`, `decay_ratio`, ...), because the
        schedule comes from `file` or `make`.
        """

        file: str | None = None
        """A config file for `from_config`. Command line: `--lr_scheduler.file schedule.yaml`."""

        make: Annotated[_Make | None, tyro.conf.Suppress] = None
        """A function of the optimizers and `training.steps` that returns the scheduler."""

        increment: int | None = None
        """Units per optimizer update. If None, 1, which is allowed for the unit steps only."""

        def build(self, *, optimizers: Any, training_steps: int) -> SchedulersContainer:
            """Build the container. torchtitan's `Trainer` calls it.

            Raises:
                ConfigError: Not exactly one of `file` and `make` is set, an entry of torchtitan's
                    own schedule is set, or the schedule is invalid.
            """
            _refuse_own_entries(self)
            if self.file is not None and self.make is None:
                scheduler: Scheduler = from_config(optimizers, self.file)
            elif self.make is not None and self.file is None:
                scheduler = self.make(optimizers, training_steps)
            else:
                raise ConfigError(
                    f"lr_scheduler: file={rules.shown(self.file)}, make={rules.shown(self.make)}: "
                    "set exactly one of the two: file is a config file, and make is a function of "
                    "the optimizers and training.steps that returns a scheduler"
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
        """Advance the scheduler by one optimizer update."""
        self.scheduler.step(self.increment)

    def get_metrics(self) -> dict[str, float]:
        """Return the values for the next update, with the names of `scheduler.metrics()`.

        torchtitan calls it before the update with which it logs the values.
        """
        return self.scheduler._metrics_at(self.scheduler.num_steps)  # noqa: SLF001 - a part of it

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the scheduler's state, or the state of torchtitan's own container.

        Raises:
            StateError: As for the scheduler.
            ReconcileError: As for the scheduler.
        """
        self.scheduler.load_state_dict(state_dict)


class CheckpointManager(checkpointer.CheckpointManager):  # type: ignore[misc]
    """torchtitan's `CheckpointManager`, which can also resume a run with torchtitan's scheduler.

    DCP cannot load a checkpoint of torchtitan's own scheduler, because it lacks our keys. This
    class loads the scheduler with `checkpoint.load` instead, from both kinds of checkpoints.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(checkpointer.CheckpointManager.Config):  # type: ignore[misc]
        """torchtitan's entries."""

    def dcp_load(
        self, state_dict: dict[str, Any], checkpoint_id: str, from_hf: bool, from_quantized: bool
    ) -> None:
        """Load a checkpoint as torchtitan does, except for the scheduler, which is loaded last.

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
    """Raise if an entry of torchtitan's own schedule is set, because nothing reads it."""
    for field in fields(LRSchedulersContainer.Config):
        value = getattr(config, field.name)
        if value != field.default:
            raise ConfigError(
                f"lr_scheduler: {field.name}={rules.shown(value)}: is an entry of torchtitan's own "
                "schedule and would have no effect; remove it, and write it in the schedule "
                "(schedules.from_peer('torchtitan', ...) reads torchtitan's entries)"
            )


def _increment(scheduler: Scheduler, increment: int | None) -> int:
    if increment is None and scheduler.unit == "steps":
        return 1
    if type(increment) is not int or increment < 1:
        raise ConfigError(
            f"increment={rules.shown(increment)}: must be a whole number above 0, the number of "
            f"{scheduler.unit} of one optimizer update"
        )
    return increment
