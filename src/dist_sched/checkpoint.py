"""Read and load a scheduler's state from a checkpoint on disk, and write it for Megatron-LM."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dist_sched._rules import brief
from dist_sched._state.format import State, to_upstream
from dist_sched._storage.finding import StateLocation, find
from dist_sched._storage.places import Place
from dist_sched.errors import StateError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from dist_sched._optim.base import Scheduler

__all__ = ["StateLocation", "load", "read_state", "to_megatron_state"]

logger = logging.getLogger("dist_sched")


def read_state(
    path: str | os.PathLike[str], key: str | None = None
) -> tuple[dict[str, Any], StateLocation]:
    """Read a scheduler's state from a checkpoint, without a training job.

    It needs no process group, no GPU and no model code. In a DCP folder it reads only the index and
    the scheduler's items. Pickles are read as data, and no code in them runs.

    Args:
        path: A DCP folder, a file written by `torch.save`, or a checkpoint folder of Megatron-LM,
            NeMo AutoModel, transformers, accelerate or DeepSpeed. In a folder of numbered
            checkpoints, the newest complete one is read. The path is local, or an address that
            fsspec can open, such as `s3://bucket/run`.
        key: Name of the state in the checkpoint, with parts joined by dots, such as
            `app.scheduler`. You need it only if the checkpoint has several states.

    Returns:
        The state, and where it was found.

    Raises:
        StateError: There is no checkpoint, it has no state or several, it is damaged, or it has a
            pickle that could run code.
    """
    place = Place.at(path)
    try:
        return find(place, key)
    except StateError:
        raise
    except (OSError, ValueError) as error:  # a ValueError for an invalid path
        raise StateError(f"{place}: cannot be read: {brief(str(error))}") from error


def load(
    scheduler: Scheduler,
    path: str | os.PathLike[str],
    key: str | None = None,
    *,
    expected_position: int | None = None,
    local: bool = False,
) -> StateLocation:
    """Load a scheduler's state from a checkpoint into a running job.

    Use it for checkpoints that `dcp.load` cannot load: Megatron-LM's, another library's, or a state
    under another key. With a process group, call it on every rank. The first rank of the group
    reads the checkpoint and decides. All ranks apply the same outcome or raise the same error.

    Args:
        scheduler: The scheduler that loads the state, by its policy.
        path: As for `read_state`.
        key: As for `read_state`.
        expected_position: The trainer's own count of units. If the checkpoint has another position,
            it is an error. None for no check.
        local: Load on this rank only, without communication.

    Returns:
        Where the state was found.

    Raises:
        StateError: As for `read_state`, or the position is not the expected one.
        ReconcileError: Strict entries or units differ, or the outcome is not a valid config.
        RankMismatchError: Some ranks cannot apply the outcome.
    """
    return scheduler.load_with(
        lambda: read_state(path, key), expected_position=expected_position, local=local
    )


def to_megatron_state(state: Mapping[str, Any]) -> State:
    """Return a state as Megatron-LM and NeMo AutoModel save it, with their ten keys only.

    Both can also load an unconverted state of `OptimizerParamScheduler`. Entries without one of the
    ten keys are logged at WARNING.

    Args:
        state: A state of `OptimizerParamScheduler`.

    Returns:
        A dict of the ten keys.

    Raises:
        StateError: The state is malformed, one of the ten keys is missing, or it is a state of
            `ParamScheduler`.
    """
    keys, left = to_upstream(state)
    lost = ", ".join(f"{name}={value!r}" for name, value in left.items() if value is not None)
    if lost:
        logger.warning(
            "Megatron's ten keys do not include %s; pass them to the constructor of the scheduler "
            "that loads these keys",
            lost,
        )
    return keys
