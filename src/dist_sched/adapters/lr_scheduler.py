"""A scheduler as a `torch.optim.lr_scheduler.LRScheduler`, for frameworks that accept no other."""

from __future__ import annotations

import logging
import sys
import weakref
from operator import is_
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.optim.lr_scheduler import LRScheduler

from dist_sched import _rules as rules
from dist_sched._optim.base import Scheduler
from dist_sched._optim.wrappers import has_hooks, weakly
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.optim import Optimizer

logger = logging.getLogger("dist_sched")

_CALLS_BEFORE_AN_UPDATE = 100
"""Calls of `step()` before the first update, after which it is probably one that runs no hooks. A
GradScaler skips fewer while it looks for its scale."""


def as_lr_scheduler(
    scheduler: Scheduler, *, increment: int | Callable[[], int] = 1
) -> LRSchedulerAdapter:
    """Return a scheduler as an `LRScheduler`, for frameworks that pace and save only those.

    `step()` advances the scheduler at most once for each optimizer update, whoever calls it and how
    often: once for each process, for each micro-batch, or after an update that a `GradScaler` has
    skipped.

    Examples:
        >>> import torch
        >>> from dist_sched import ParamScheduler, adapters, schedules
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0)
        >>> scheduler = ParamScheduler(optimizer, {"lr": schedules.linear(1.0, 10)})
        >>> adapter = adapters.as_lr_scheduler(scheduler)
        >>> isinstance(adapter, torch.optim.lr_scheduler.LRScheduler)
        True
        >>> optimizer.step()
        >>> adapter.step()
        >>> adapter.step()
        >>> adapter.get_last_lr()
        [0.9]

    Args:
        scheduler: An `OptimizerParamScheduler` or a `ParamScheduler`.
        increment: Units that an update completes, or a function that returns those of the update
            just made: samples or tokens, over all ranks.

    Raises:
        ConfigError: It is no such scheduler, it schedules no optimizer, or the increment is no
            whole number >= 0.
    """
    return LRSchedulerAdapter(scheduler, increment=increment)


class LRSchedulerAdapter(LRScheduler):
    """A scheduler as an `LRScheduler`; `as_lr_scheduler` makes it.

    Nothing of torch's constructor is done: no optimizer is patched, and no group gets `initial_lr`.
    State is the scheduler's own, and loads are collective as its are.
    """

    scheduler: Scheduler
    """The scheduler that is stepped, for all that an `LRScheduler` has not."""

    def __init__(self, scheduler: Scheduler, *, increment: int | Callable[[], int] = 1) -> None:
        # `LRScheduler.__init__` would write into groups and patch `optimizer.step`.
        if not isinstance(scheduler, Scheduler):
            raise ConfigError(
                "scheduler: must be an OptimizerParamScheduler or a ParamScheduler, not "
                f"{type(scheduler).__name__}"
            )
        if not scheduler._writer.tracker.optimizers():  # noqa: SLF001 - of this library
            raise ConfigError("scheduler: it has no optimizer, whose updates could be counted")
        if not callable(increment):
            increment = rules.whole("increment", increment)
        self.scheduler = scheduler
        self._increment = increment
        self._step_count = 0  # accelerate writes it
        self._has_seen_update = False
        self._calls_before_update = 0
        self._has_named_missing_steps = False
        self._hooked: list[Any] = []
        self._hooks: list[weakref.finalize[..., Any]] = []
        self._forget_update()
        self._follow_updates()

    def __copy__(self) -> NoReturn:
        raise ConfigError(
            "an adapter cannot be copied without its scheduler and optimizer: copy them together, "
            "as in copy.deepcopy((optimizer, adapter))"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Hooks are the optimizer's own; a copy registers them anew.
        return {**self.__dict__, "_hooks": [], "_hooked": [], "_updaters": set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._follow_updates()

    @property
    def optimizer(self) -> Optimizer:  # type: ignore[override]
        """The first optimizer that is stepped, which is the innermost where it is wrapped."""
        first: Optimizer = self._optimizers()[0]
        return first

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """The position."""
        return self.scheduler.num_steps

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]
        """The highest lr of each group of `optimizer`; what it holds, if none is scheduled."""
        highest = {
            row.group: row.highest for row in self.scheduler.describe_groups() if row.field == "lr"
        }
        number = len(self.optimizer.param_groups)
        return [highest.get(place, lr) for place, lr in enumerate(self.get_last_lr()[:number])]

    def get_last_lr(self) -> list[float]:  # type: ignore[override]
        """Return the lr of every group, of all optimizers, that the next update uses."""
        return self.scheduler.get_last_lr()

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return what `get_last_lr` returns."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's own state."""
        return {**self.scheduler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the scheduler's own state, or another library's; collective as its own load is.

        Raises:
            StateError: As `load_state_dict` of the scheduler raises it; so are others.
        """
        self.scheduler.load_state_dict(state_dict)
        self._forget_update()

    def step(self, epoch: int | None = None) -> None:
        """Advance the scheduler, if an update was made since it was advanced last.

        Raises:
            ConfigError: An epoch is given, or as `step` of the scheduler raises it.
        """
        if epoch is not None:
            raise ConfigError(
                f"step(epoch={epoch!r}): call step() after each optimizer update, or seek(position)"
                " on the scheduler to go to a position"
            )
        self._step_count += 1
        optimizers = self._optimizers()
        if len(optimizers) != len(self._hooked) or not all(map(is_, optimizers, self._hooked)):
            self._follow_updates()  # of another optimizer, which was assigned
        if not self._was_updated():
            self._warn_of_unseen_updates()
            return
        increment = self._increment
        self.scheduler.step(increment() if callable(increment) else increment)
        self._forget_update()

    def _optimizers(self) -> list[Any]:
        return self.scheduler._writer.tracker.optimizers()  # noqa: SLF001 - of this library

    def _follow_updates(self) -> None:
        """Register hooks, which keep nothing alive, on the optimizers that are stepped."""
        for remove in self._hooks:
            remove()
        self._hooks = []
        self._hooked = list(self._optimizers())
        hooked = [one for one in self._hooked if has_hooks(one)]
        self._counts_calls = not hooked
        if not hooked:
            logger.warning(
                "%s runs no hooks, so that its updates cannot be seen: every call of step() "
                "advances the scheduler; call it once for each update",
                type(self._hooked[0]).__name__,
            )
        for optimizer in hooked:
            forget = weakly(self._forget_update)
            handles = [
                optimizer.register_step_post_hook(weakly(self._after_update)),
                optimizer.register_load_state_dict_post_hook(forget),
            ]
            self._hooks += [weakref.finalize(self, handle.remove) for handle in handles]

    def _forget_update(self, *_: Any) -> None:
        self._updated_in: tuple[int, object] | None = None
        """Where the scheduler was when an update was made that it has not been advanced for."""
        self._was_surely_made = False
        self._found_inf: torch.Tensor | None = None
        """Of the updates since that a GradScaler may have skipped: 0 if one of them was made."""
        self._updaters: set[int] = set()
        """Identities of the optimizers that have made one since."""

    def _is_current(self, place: tuple[int, object] | None) -> bool:
        """Return whether the scheduler was neither stepped nor moved nor loaded since."""
        return place is not None and place[0] == self._place[0] and place[1] is self._place[1]

    @property
    def _place(self) -> tuple[int, object]:
        return self.scheduler.num_steps, self.scheduler.last_reconciliation

    def _after_update(self, optimizer: Optimizer, *_: Any) -> None:
        if not self._is_update(optimizer):
            return
        if not self._is_current(self._updated_in):
            self._forget_update()
            self._updated_in = self._place
        self._has_seen_update = True
        # A GradScaler sets it while it steps an optimizer that skips updates by itself, as fused
        # ones do. It is read in `step()` alone, because that waits for the device.
        found_inf = getattr(optimizer, "found_inf", None)
        if not isinstance(found_inf, torch.Tensor):
            self._was_surely_made = True
        elif self._found_inf is None:
            self._found_inf = found_inf.detach().clone()
        else:
            other = found_inf.detach().to(self._found_inf.device)
            self._found_inf = torch.minimum(self._found_inf, other)
        if id(optimizer) in self._updaters:
            self._warn_of_missing_steps()
        self._updaters.add(id(optimizer))

    def _is_update(self, optimizer: Optimizer) -> bool:
        """Return whether a step was an update, and not DCP's at an lr of 0, which makes state."""
        return any(map(_may_be_above_0, optimizer.param_groups)) or not any(self.get_last_lr())

    def _was_updated(self) -> bool:
        if self._counts_calls:
            return True
        if not self._is_current(self._updated_in):
            return False
        return self._was_surely_made or (self._found_inf is not None and not bool(self._found_inf))

    def _warn_of_unseen_updates(self) -> None:
        self._calls_before_update += 1
        if not self._has_seen_update and self._calls_before_update == _CALLS_BEFORE_AN_UPDATE:
            logger.warning(
                "step() was called %d times, and no update of %s was seen, so the scheduler is "
                "still at position %d: if updates were made, they ran no hooks, as a CUDA graph "
                "runs none; call step() of the scheduler itself once for each update",
                _CALLS_BEFORE_AN_UPDATE,
                type(self._hooked[0]).__name__,
                self.scheduler.num_steps,
            )

    def _warn_of_missing_steps(self) -> None:
        """Name Lightning's default, by which a scheduler is stepped once for each epoch."""
        is_lightning = "lightning" in sys.modules or "pytorch_lightning" in sys.modules
        if is_lightning and not self._has_named_missing_steps:
            self._has_named_missing_steps = True
            logger.warning(
                "a second update was made at position %d without a step() of the scheduler: return "
                '{"scheduler": adapter, "interval": "step"} from configure_optimizers, because '
                "Lightning calls step() once for each epoch otherwise",
                self.scheduler.num_steps,
            )


def _may_be_above_0(group: dict[str, Any]) -> bool:
    lr = group.get("lr")
    if isinstance(lr, torch.Tensor) and lr.device.type != "cpu":
        return True  # to read it would wait for the device, and DCP's 0 is on the CPU
    return lr is None or bool(lr != 0)
