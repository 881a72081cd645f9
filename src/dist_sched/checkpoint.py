"""Checkpoints, whoever wrote them: a scheduler's state read, loaded, and written for Megatron."""

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
    """Read a scheduler's state from a checkpoint, without a job.

    Needs no process group, no GPU, no model code. Of a DCP folder, only the index and the
    scheduler's own items are read. What is pickled is read as data and never executed.

    Args:
        path: A DCP folder, a file of `torch.save`, a checkpoint's folder of Megatron-LM, NeMo
            AutoModel, transformers, accelerate or DeepSpeed, or a folder of numbered ones, of
            which the newest complete one is read; local, or any address that fsspec serves.
        key: The state's name in the checkpoint, parts joined by dots, such as `app.scheduler`.
            Needed only if there are several.

    Returns:
        The state as it stands there, and where it was found.

    Raises:
        StateError: Nothing is there, or no scheduler's state, or several; or the checkpoint is
            damaged, or holds pickles that could run code.
    """
    place = Place.at(path)
    try:
        return find(place, key)
    except StateError:
        raise
    except (OSError, ValueError) as error:  # a ValueError, where no path can be so
        raise StateError(f"{place}: cannot be read: {brief(str(error))}") from error


def load(
    scheduler: Scheduler,
    path: str | os.PathLike[str],
    key: str | None = None,
    *,
    expected_position: int | None = None,
    local: bool = False,
) -> StateLocation:
    """Load a scheduler's state from a checkpoint, in a running job.

    Collective unless local: the first rank of the scheduler's group alone touches storage and
    decides, and all ranks apply the same outcome or raise the same error. Loads what plain
    `dcp.load` cannot: Megatron's checkpoints, another library's, a state under another key.

    Args:
        scheduler: Loads the state, by its policy.
        path: As for `read_state`.
        key: As for `read_state`.
        expected_position: The trainer's own count, if it has one.
        local: Load on this rank alone, without communication.

    Returns:
        Where the state was found.

    Raises:
        StateError: As for `read_state`, or the position is another than expected.
        ReconcileError: Strict entries or units differ, or the outcome is an illegal config.
    """
    return scheduler.load_with(
        lambda: read_state(path, key), expected_position=expected_position, local=local
    )


def to_megatron_state(state: Mapping[str, Any]) -> State:
    """Return a state as Megatron-LM and NeMo AutoModel save it: their ten keys and no other.

    A state of ours loads in both as it is; this is for those who want nothing else in it. The
    values are those of the state's text, if it has one. Entries that the ten keys cannot carry are
    logged at WARNING.

    Raises:
        StateError: The state is malformed, or lacks one of the ten.
    """
    keys, left = to_upstream(state)
    lost = ", ".join(f"{name}={value!r}" for name, value in left.items() if value is not None)
    if lost:
        logger.warning(
            "Megatron's ten keys do not carry %s: pass them to the constructor of the scheduler "
            "that loads these keys",
            lost,
        )
    return keys
