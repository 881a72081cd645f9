"""An adapter for Megatron-LM's training loop and for its checkpoints."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dist_sched._state.format import UNIT_KEY, to_upstream
from dist_sched.errors import ConfigError
from dist_sched.scheduler import OptimizerParamScheduler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched._optim.fields import Group
    from dist_sched._state.format import State

logger = logging.getLogger("dist_sched")


def ten_keys(scheduler: OptimizerParamScheduler) -> TenKeys:
    """Return a scheduler whose state has only the ten keys that Megatron-LM saves.

    DCP cannot load a checkpoint that lacks a key of the target, and checkpoints of Megatron-LM and
    NeMo AutoModel lack our key `dist_sched`. With the ten keys, `dcp.load` loads their checkpoints,
    and they load ours.

    Examples:
        >>> import torch
        >>> from dist_sched import OptimizerParamScheduler, adapters
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0)
        >>> scheduler = OptimizerParamScheduler(
        ...     optimizer, init_lr=0.0, max_lr=1.0, min_lr=0.1, lr_warmup_steps=10,
        ...     lr_decay_steps=100, lr_decay_style="linear",
        ...     start_wd=0.1, end_wd=0.1, wd_incr_steps=100,
        ...     wd_incr_style="constant", unit="samples",
        ... )
        >>> opt_param_scheduler = adapters.megatron.ten_keys(scheduler)
        >>> opt_param_scheduler.step(increment=8)
        >>> sorted(opt_param_scheduler.state_dict())  # doctest: +NORMALIZE_WHITESPACE
        ['end_wd', 'lr_decay_steps', 'lr_decay_style', 'lr_warmup_steps', 'max_lr', 'min_lr',
         'num_steps', 'start_wd', 'wd_incr_steps', 'wd_incr_style']

    Args:
        scheduler: An `OptimizerParamScheduler`. The ten keys cannot express other schedulers.

    Returns:
        An object for Megatron-LM's `opt_param_scheduler`.

    Raises:
        ConfigError: The scheduler is not an `OptimizerParamScheduler`.
    """
    return TenKeys(scheduler)


class TenKeys:
    """A scheduler whose state has Megatron's ten keys, as `ten_keys` returns it.

    Attributes that it does not have are the scheduler's.
    """

    scheduler: OptimizerParamScheduler
    """The scheduler that is stepped, saved and loaded."""

    def __init__(self, scheduler: OptimizerParamScheduler) -> None:
        if not isinstance(scheduler, OptimizerParamScheduler):
            raise ConfigError(
                "scheduler: must be an OptimizerParamScheduler, because Megatron's ten keys cannot "
                f"express a {type(scheduler).__name__}; to load Megatron's checkpoints, use "
                "dist_sched.checkpoint.load"
            )
        self.scheduler = scheduler
        self._named_lost: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "scheduler":  # copies read it before it is set
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def __repr__(self) -> str:
        return f"ten_keys({self.scheduler!r})"

    @property
    def num_steps(self) -> int:
        """The position, in units. Assigning to it is the same as `seek`."""
        return self.scheduler.num_steps

    @num_steps.setter
    def num_steps(self, position: int) -> None:
        self.scheduler.seek(position)

    def step(self, increment: int = 1) -> None:
        """Advance the position, and write the new values into every group.

        Args:
            increment: As for the scheduler's `step`.

        Raises:
            ConfigError: As for the scheduler's `step`.
        """
        self.scheduler.step(increment)

    def get_lr(self, param_group: Group) -> float:
        """Return the learning rate between a group's bounds, without its ratio and `lr_mult`."""
        return self.scheduler.get_lr(param_group)

    def get_wd(self, param_group: Group | None = None) -> float:
        """Return the weight decay between a group's bounds, without its ratio and `wd_mult`."""
        return self.scheduler.get_wd(param_group)

    def state_dict(self) -> State:
        """Return Megatron's ten keys.

        Entries that have no key and differ from the script's config, such as the decay of a
        `cooldown`, are logged at WARNING, because a resume cannot restore them.
        """
        keys, left = to_upstream(self.scheduler.state_dict())
        declared = self.scheduler._agreed.declared.to_dict()  # noqa: SLF001 - of this library
        lost = {
            name: value
            for name, value in left.items()
            if name != UNIT_KEY and value != declared.get(name)
        }
        if lost and lost != self._named_lost:
            self._named_lost = lost
            logger.warning(
                "Megatron's ten keys do not include %s, which differs from the script's config; "
                "change the config, or save the scheduler's own state",
                ", ".join(f"{name}={value!r}" for name, value in lost.items()),
            )
        return keys

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state of ten keys, or any other state that the scheduler can load.

        Args:
            state_dict: The state.

        Raises:
            StateError: As for the scheduler's `load_state_dict`, like its other errors.
        """
        self.scheduler.load_state_dict(state_dict)
