"""An adapter for frameworks that accept only a `torch.optim.lr_scheduler.LRScheduler`."""

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
"""Calls of `step()` without an update after which updates probably run no hooks. A GradScaler skips
fewer updates while it searches its scale."""


def as_lr_scheduler(
    scheduler: Scheduler, *, increment: int | Callable[[], int] = 1
) -> LRSchedulerAdapter:
    """Return a scheduler as an `LRScheduler`, for frameworks that step and save only those.

    The adapter's `step()` advances the scheduler once per optimizer update, even if a framework
    calls it more often: once per process, once per micro-batch, or after an update that a
    `GradScaler` has skipped.

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
        increment: Units per update, a whole number >= 0, or a function that returns the units of
            the latest update, such as its samples or tokens on all ranks together.

    Returns:
        The adapter, an `LRScheduler`.

    Raises:
        ConfigError: The scheduler is not one of this library, it has no optimizer, or the increment
            is invalid.
    """
    return LRSchedulerAdapter(scheduler, increment=increment)


class LRSchedulerAdapter(LRScheduler):
    """A scheduler as an `LRScheduler`, as `as_lr_scheduler` returns it.

    Unlike torch's schedulers, it does not patch the optimizer and does not write `initial_lr` into
    groups. Its state is the scheduler's state.
    """

    scheduler: Scheduler
    """The scheduler that is stepped. Use it for everything that an `LRScheduler` does not have."""

    def __init__(self, scheduler: Scheduler, *, increment: int | Callable[[], int] = 1) -> None:
        # `LRScheduler.__init__` would write into groups and patch `optimizer.step`.
        if not isinstance(scheduler, Scheduler):
            raise ConfigError(
                "scheduler: must be an OptimizerParamScheduler or a ParamScheduler, not "
                f"{type(scheduler).__name__}"
            )
        if not scheduler._writer.tracker.optimizers():  # noqa: SLF001 - of this library
            raise ConfigError(
                "scheduler: it has no optimizer, so updates cannot be counted; step it directly"
            )
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
            "an adapter cannot be copied without its scheduler and optimizer; copy them together: "
            "copy.deepcopy((optimizer, adapter))"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Hooks belong to the optimizer, so a copy registers its own.
        return {**self.__dict__, "_hooks": [], "_hooked": [], "_updaters": set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._follow_updates()

    @property
    def optimizer(self) -> Optimizer:  # type: ignore[override]
        """The first optimizer that is stepped. If it is wrapped, the innermost one."""
        first: Optimizer = self._optimizers()[0]
        return first

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """The position."""
        return self.scheduler.num_steps

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]
        """The highest lr of each group of `optimizer`, or its present lr if lr is not scheduled."""
        highest = {
            row.group: row.highest for row in self.scheduler.describe_groups() if row.field == "lr"
        }
        number = len(self.optimizer.param_groups)
        return [highest.get(place, lr) for place, lr in enumerate(self.get_last_lr()[:number])]

    def get_last_lr(self) -> list[float]:  # type: ignore[override]
        """Return the lr of every group of all optimizers for the next update."""
        return self.scheduler.get_last_lr()

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the same as `get_last_lr`."""
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state."""
        return {**self.scheduler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state, as the scheduler's `load_state_dict` does.

        Args:
            state_dict: The scheduler's state, or another library's.

        Raises:
            StateError: As for the scheduler's `load_state_dict`, like its other errors.
        """
        self.scheduler.load_state_dict(state_dict)
        self._forget_update()

    def step(self, epoch: int | None = None) -> None:
        """Advance the scheduler if there was an update since the last call.

        Args:
            epoch: Must be None.

        Raises:
            ConfigError: An epoch is passed, or as for the scheduler's `step`.
        """
        if epoch is not None:
            raise ConfigError(
                f"step(epoch={epoch!r}): must be None; call step() after each optimizer update, "
                "or scheduler.seek(position) to set the position"
            )
        self._step_count += 1
        optimizers = self._optimizers()
        if len(optimizers) != len(self._hooked) or not all(map(is_, optimizers, self._hooked)):
            self._follow_updates()  # another optimizer was assigned
        if not self._was_updated():
            self._warn_of_unseen_updates()
            return
        increment = self._increment
        self.scheduler.step(increment() if callable(increment) else increment)
        self._forget_update()

    def _optimizers(self) -> list[Any]:
        return self.scheduler._writer.tracker.optimizers()  # noqa: SLF001 - of this library

    def _follow_updates(self) -> None:
        """Register hooks on the optimizers that are stepped, without keeping this alive."""
        for remove in self._hooks:
            remove()
        self._hooks = []
        self._hooked = list(self._optimizers())
        hooked = [one for one in self._hooked if has_hooks(one)]
        self._counts_calls = not hooked
        if not hooked:
            logger.warning(
                "%s runs no hooks, so its updates cannot be counted, and every call of step() "
                "advances the scheduler; call step() once per update",
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
        """Place of the scheduler at an update for which it was not yet advanced."""
        self._was_surely_made = False
        self._found_inf: torch.Tensor | None = None
        """For updates that a GradScaler may have skipped: 0 if one of them was made."""
        self._updaters: set[int] = set()
        """Identities of the optimizers that made an update since the last call."""

    def _is_current(self, place: tuple[int, object] | None) -> bool:
        """Return whether the scheduler was not stepped, moved or loaded since."""
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
        # A GradScaler sets it for fused optimizers, which skip updates themselves. It is read only
        # in `step()`, because reading waits for the device.
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
        """Return whether a step was an update, not DCP's step with lr 0 that creates state."""
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
                "step() was called %d times, but %s ran no hooks of updates, so the scheduler is "
                "still at position %d; if there were updates, for example in a CUDA graph, call "
                "the scheduler's own step() once per update",
                _CALLS_BEFORE_AN_UPDATE,
                type(self._hooked[0]).__name__,
                self.scheduler.num_steps,
            )

    def _warn_of_missing_steps(self) -> None:
        """Warn about Lightning's default, which steps a scheduler once per epoch."""
        is_lightning = "lightning" in sys.modules or "pytorch_lightning" in sys.modules
        if is_lightning and not self._has_named_missing_steps:
            self._has_named_missing_steps = True
            logger.warning(
                "there were two updates at position %d without a step() of the scheduler; return "
                '{"scheduler": adapter, "interval": "step"} from configure_optimizers, because '
                "Lightning otherwise calls step() once per epoch",
                self.scheduler.num_steps,
            )


def _may_be_above_0(group: dict[str, Any]) -> bool:
    lr = group.get("lr")
    if isinstance(lr, torch.Tensor) and lr.device.type != "cpu":
        return True  # reading it would wait for the device, and DCP's 0 is on the CPU
    return lr is None or bool(lr != 0)
