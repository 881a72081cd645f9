"""Wrappers and containers of optimizers, and the optimizers that are stepped inside them."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from dist_sched.errors import ConfigError


def innermost(optimizer: Any) -> list[Any]:
    """Return the optimizers that are stepped inside a wrapper or container, or the one itself.

    accelerate's and Megatron's wrappers have an `optimizer`, torchtitan's container `optimizers`,
    Megatron's `chained_optimizers`. The groups of the outer one may be those of an optimizer that
    nobody steps.
    """
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(getattr(inner, "param_groups", None), list) and inner is not optimizer:
        return innermost(inner)
    for name in ("optimizers", "chained_optimizers"):
        several = getattr(optimizer, name, None)
        if isinstance(several, list | tuple) and several:
            return [leaf for one in several for leaf in innermost(one)]
    return [optimizer]


def as_list(optimizer: Any) -> list[Any]:
    """Return one optimizer, or several, as a list.

    Raises:
        ConfigError: There is none, one is in the list twice, or one has no param groups.
    """
    optimizers = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    if not optimizers:
        raise ConfigError("optimizer=[]: give at least one optimizer")
    for one in optimizers:
        if not hasattr(one, "param_groups"):
            raise ConfigError(f"optimizer={one!r}: must be an optimizer, or a list of them")
    leaves = [id(leaf) for one in optimizers for leaf in innermost(one)]
    if len(set(leaves)) < len(leaves):
        raise ConfigError("optimizer: the same optimizer is in the list twice")
    return optimizers


def was_used(optimizer: Any) -> bool:
    """Return whether an optimizer was loaded or stepped.

    Adagrad has state at step 0 when it is new, so state alone does not say so.
    """
    if not isinstance(optimizer, Optimizer):
        return False
    return any(_has_steps(state) for state in optimizer.state.values())


def _has_steps(state: Any) -> bool:
    if not isinstance(state, dict):
        return True
    step = state.get("step")
    is_number = isinstance(step, int | float | torch.Tensor)
    is_at_0 = is_number and bool((torch.as_tensor(step) == 0).all())
    return bool(state) and not is_at_0
