"""An adapter for PyTorch-Ignite: a scheduler as a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_sched.adapters.lr_scheduler import as_lr_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dist_sched._optim.base import Scheduler


def handler(scheduler: Scheduler, *, increment: int | Callable[[], int] = 1) -> Handler:
    """Return a scheduler as a handler, to use instead of ignite's `LRScheduler`.

        handler = adapters.ignite.handler(scheduler)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, handler)
        saver = Checkpoint({"scheduler": handler, ...}, folder)

    Like ignite's `LRScheduler`, you may also attach it to `ITERATION_STARTED`.

    Args:
        scheduler: An `OptimizerParamScheduler` or a `ParamScheduler`.
        increment: Units per update, a whole number >= 0, or a function that returns the units of
            the latest update, such as its samples or tokens on all ranks together.

    Returns:
        A handler, which also has `state_dict` and `load_state_dict`.

    Raises:
        ConfigError: As for `as_lr_scheduler`.
    """
    return Handler(scheduler, increment=increment)


class Handler:
    """A scheduler as a handler of ignite's engine, as `handler` returns it."""

    scheduler: Scheduler
    """The scheduler that is stepped."""

    def __init__(self, scheduler: Scheduler, *, increment: int | Callable[[], int] = 1) -> None:
        self.scheduler = scheduler
        self._adapter = as_lr_scheduler(scheduler, increment=increment)

    def __call__(self, _engine: Any = None) -> None:
        """Advance the scheduler if there was an update since the last call."""
        self._adapter.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state, which includes the latest update.

        A handler that is called at the start of iterations has not counted that update yet.
        """
        self._adapter.step()
        return self._adapter.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the scheduler's state, as the scheduler's `load_state_dict` does.

        Args:
            state_dict: The state.

        Raises:
            StateError: As for the scheduler's `load_state_dict`, like its other errors.
        """
        self._adapter.load_state_dict(state_dict)
