"""A scheduler as a handler of ignite's, for `add_event_handler` and `Checkpoint`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_sched.adapters.lr_scheduler import as_lr_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dist_sched._optim.base import Scheduler


def handler(scheduler: Scheduler, *, increment: int | Callable[[], int] = 1) -> Handler:
    """Return a scheduler as a handler, in place of ignite's `LRScheduler`.

        handler = adapters.ignite.handler(scheduler)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, handler)
        saver = Checkpoint({"scheduler": handler, ...}, folder)

    ignite's own accepts only classes of torch's, and drives lr alone. It is attached to
    `ITERATION_STARTED`, and this one may be, too.

    Args:
        scheduler: An `OptimizerParamScheduler` or a `ParamScheduler`.
        increment: Units that an update completes, or a function that returns those of the update
            just made.

    Raises:
        ConfigError: As `as_lr_scheduler` raises it.
    """
    return Handler(scheduler, increment=increment)


class Handler:
    """A scheduler that ignite's engine advances; `handler` makes it."""

    scheduler: Scheduler
    """The scheduler that is stepped."""

    def __init__(self, scheduler: Scheduler, *, increment: int | Callable[[], int] = 1) -> None:
        self.scheduler = scheduler
        self._adapter = as_lr_scheduler(scheduler, increment=increment)

    def __call__(self, _engine: Any = None) -> None:
        """Advance the scheduler, if an update was made since it was advanced last."""
        self._adapter.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's own state, with the update just made counted.

        Where the handler is called at the start of iterations, that update was not counted yet, and
        a checkpoint at the end of its iteration would repeat it.
        """
        self._adapter.step()
        return self._adapter.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the scheduler's own state; collective as its own load is.

        Raises:
            StateError: As `load_state_dict` of the scheduler raises it; so are others.
        """
        self._adapter.load_state_dict(state_dict)
