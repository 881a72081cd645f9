"""Process groups: the only code that asks whether there is one."""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist

from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.distributed import ProcessGroup

logger = logging.getLogger("dist_sched")

T = TypeVar("T")


def check(process_group: ProcessGroup | None) -> None:
    """Check that this rank can decide in a group.

    Raises:
        ConfigError: It is no process group, or this rank is not in it.
    """
    # torch gives non-members this object, and its collectives then warn and return at once.
    outside: object = dist.GroupMember.NON_GROUP_MEMBER if dist.is_available() else ...
    if process_group is outside:
        raise ConfigError(
            "process_group: this rank is not in it; build the scheduler on its ranks only"
        )
    if not (process_group is None or isinstance(process_group, dist.ProcessGroup)):
        raise ConfigError(
            f"process_group={process_group!r}: must be a ProcessGroup; of a device mesh, "
            "mesh.get_group(dimension)"
        )


def rank(process_group: ProcessGroup | None = None) -> int:
    """Return this process's rank in a group, the default group if None; 0 where there is none."""
    return dist.get_rank(process_group) if _is_one_of_many() else 0


def decide(
    decision: Callable[[], T], process_group: ProcessGroup | None = None, *, local: bool = False
) -> T:
    """Run a decision on a group's first rank and return its outcome on every rank.

    One broadcast carries what the decision returned or raised, so that no rank is left waiting.
    Every rank of the group must call this. On gloo, a broadcast that only some ranks join may
    silently be received by a later one.

    Args:
        decision: Called on the first rank alone.
        process_group: The group, the default group if None. Whether there is one is asked at each
            call; without one the decision is this process's own.
        local: Decide here, without communication.

    Raises:
        BaseException: What the decision raised, on every rank, with type and message.
    """
    if local or not _is_one_of_many():
        return decision()
    is_first = rank(process_group) == 0
    sent: list[Any] = [_attempt(decision) if is_first else None]
    # A broadcast wants the global rank of the group's first one.
    first = 0 if process_group is None else dist.get_global_rank(process_group, 0)
    dist.broadcast_object_list(sent, src=first, group=process_group)
    outcome, error = sent[0]
    if error is not None:
        raise error
    result: T = outcome
    return result


def gather(value: T, process_group: ProcessGroup | None = None) -> list[T]:
    """Return every rank's value on every rank of a group, in the order of ranks. Collective."""
    if not _is_one_of_many():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size(process_group)
    dist.all_gather_object(gathered, value, group=process_group)
    return gathered


def _is_one_of_many() -> bool:
    return dist.is_available() and dist.is_initialized()


def _attempt(decision: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Run a decision and return its outcome and its error, in a form that can be sent."""
    try:
        outcome = decision(), None
        # A broadcast that fails to pickle raises here alone, and the other ranks would wait.
        pickle.loads(pickle.dumps(outcome))  # noqa: S301 - our own bytes
    except BaseException as error:  # noqa: BLE001 - the other ranks must hear of whatever it is
        return None, _sendable(error)
    return outcome


def _sendable(error: BaseException) -> BaseException:
    """Return an error that every rank can raise: itself, or one with its type and message."""
    try:
        sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        if (type(sent), str(sent)) == (type(error), str(error)):
            return error
    except Exception:  # noqa: BLE001 - an error may be made of anything
        logger.debug("an error of type %s cannot be sent", type(error).__name__)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - as above
        message = "(its message cannot be read)"
    return RuntimeError(f"{type(error).__name__}: {message}")
