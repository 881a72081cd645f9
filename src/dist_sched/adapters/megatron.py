"""A scheduler for Megatron-LM's training loop, and for checkpoints that lack our text."""

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
    """Return a scheduler whose state is Megatron's ten keys and no other.

    DCP refuses a checkpoint that lacks a key of the target, and Megatron-LM and NeMo AutoModel save
    no text of ours. With these keys plain `dcp.load` loads their folders, and theirs loads ours.

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
        scheduler: An `OptimizerParamScheduler`; the curves of other schedulers have no such keys.

    Raises:
        ConfigError: It is something else.
    """
    return TenKeys(scheduler)


class TenKeys:
    """A scheduler with a state of Megatron's ten keys; `ten_keys` makes it.

    It is what Megatron-LM calls `opt_param_scheduler`, and all that it lacks is the scheduler's.
    """

    scheduler: OptimizerParamScheduler
    """The scheduler that is stepped, saved and loaded."""

    def __init__(self, scheduler: OptimizerParamScheduler) -> None:
        if not isinstance(scheduler, OptimizerParamScheduler):
            raise ConfigError(
                "scheduler: Megatron's ten keys can express an OptimizerParamScheduler alone, not "
                f"a {type(scheduler).__name__}; dist_sched.checkpoint.load loads its checkpoints "
                "into any scheduler"
            )
        self.scheduler = scheduler
        self._named_lost: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "scheduler":  # asked for by copies, before it is there
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def __repr__(self) -> str:
        return f"ten_keys({self.scheduler!r})"

    @property
    def num_steps(self) -> int:
        """The position, in units. Assigning to it is `seek`, as Megatron's training loop does."""
        return self.scheduler.num_steps

    @num_steps.setter
    def num_steps(self, position: int) -> None:
        self.scheduler.seek(position)

    def step(self, increment: int = 1) -> None:
        """Advance the position, and write the values there into every group.

        Raises:
            ConfigError: As `step` of the scheduler raises it.
        """
        self.scheduler.step(increment)

    def get_lr(self, param_group: Group) -> float:
        """Return the learning rate under a group's bounds, without its ratio and `lr_mult`."""
        return self.scheduler.get_lr(param_group)

    def get_wd(self, param_group: Group | None = None) -> float:
        """Return the weight decay under a group's bounds, without its ratio and `wd_mult`."""
        return self.scheduler.get_wd(param_group)

    def state_dict(self) -> State:
        """Return Megatron's ten keys.

        What differs from the script's own config and has no key, such as the tail that a
        `cooldown` made, is logged at WARNING, because a resume will not bring it back.
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
                "Megatron's ten keys do not carry %s, which is not what the script declares: "
                "declare it, or save the scheduler's own state",
                ", ".join(f"{name}={value!r}" for name, value in lost.items()),
            )
        return keys

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state of ten keys, or any other that the scheduler loads; collective as that is.

        Raises:
            StateError: As `load_state_dict` of the scheduler raises it; so are others.
        """
        self.scheduler.load_state_dict(state_dict)
