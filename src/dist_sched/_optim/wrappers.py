"""Wrappers and containers of optimizers, and the optimizers inside them that are stepped."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Mapping
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dist_sched._config.plan import Field

logger = logging.getLogger("dist_sched")

_SEVERAL = ("chained_optimizers", "optimizers", "optimizer_dict", "optim_dict")
"""Attributes in which containers keep their optimizers: Megatron's, torchtitan's, transformers'
`LayerWiseDummyOptimizer` and torchao's `CPUOffloadOptimizer`."""

_ONE = (
    "optimizer",  # accelerate, Megatron, DeepSpeed, apex, fairseq, Lightning
    "optim",  # torch's PostLocalSGDOptimizer and ZeroRedundancyOptimizer, torchft
    "base_optimizer",  # SAM
    "_optimizer",  # torch's _NamedOptimizer
    "_base_optimizer",  # timm's Lookahead
    "original_optimizer",  # opacus
    "base",  # schedule-free's wrapper
)
"""Attributes in which wrappers keep their one optimizer."""

_ATTRIBUTES = frozenset({*_SEVERAL, *_ONE})

_POST_HOOKS = "_optimizer_load_state_dict_post_hooks"


def innermost(optimizer: Any) -> list[Any]:
    """Return the optimizers that are stepped in a wrapper or container, or the optimizer itself.

    A wrapper may have groups that no step uses. The exception is `ZeroRedundancyOptimizer`, which
    copies its own groups to the optimizer inside at each step.
    """
    if not may_wrap(optimizer):
        return [optimizer]
    return list(_innermost(optimizer, frozenset()))


def may_wrap(optimizer: Any) -> bool:
    """Return whether an object may have any of the attributes of wrappers.

    It is called at every step, and trying each attribute would be slow.
    """
    own = getattr(optimizer, "__dict__", ())
    # mypy mistakes the hash of a class for the hash of its instances.
    return _class_may_wrap(type(optimizer)) or not _ATTRIBUTES.isdisjoint(own)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=256)
def _class_may_wrap(kind: type) -> bool:
    return any(hasattr(kind, name) for name in ("__getattr__", *_ATTRIBUTES))


def _innermost(optimizer: Any, outer: frozenset[int]) -> Iterator[Any]:
    outer |= {id(optimizer)}
    inside = [one for one in _inside(optimizer) if id(one) not in outer]
    if not inside:
        yield optimizer
    for one in inside:
        yield from _innermost(one, outer)


def _inside(optimizer: Any) -> list[Any]:
    """Return the optimizers directly inside a wrapper or container. Else the list is empty."""
    for name in _SEVERAL:
        several = attribute(optimizer, name)
        if isinstance(several, Mapping):
            several = list(several.values())
        if isinstance(several, list | tuple):
            inside = [one for one in several if _has_groups(one)]
            if inside:
                return inside
    name, one = _wrapped(optimizer)
    return [] if one is None or _copies_its_groups(optimizer, name, one) else [one]


def _wrapped(optimizer: Any) -> tuple[str, Any]:
    """Return the attribute of a wrapper that holds an optimizer, and the optimizer or None."""
    for name in _ONE:
        one = attribute(optimizer, name)
        if one is not optimizer and _has_groups(one):
            return name, one
    return "", None


def attribute(owner: Any, name: str) -> Any:
    """Return an attribute, or None if there is none or reading it raises.

    Megatron-LM's `ChainedOptimizer.optimizer` is a property that may raise.
    """
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001 - a property may raise anything
        return None


def _has_groups(one: Any) -> bool:
    return isinstance(attribute(one, "param_groups"), list | tuple)


def _has_own_groups(outer: Any, inner: Any) -> bool:
    """Return whether an optimizer has other groups than the optimizer inside it."""
    if not has_hooks(outer):
        return False
    groups, others = outer.param_groups, inner.param_groups
    # Lightning's wrapper copies the attributes of the optimizer inside, including hooks. After a
    # load the optimizer inside has new groups, but the wrapper still has the old ones.
    is_copy = vars(outer).get(_POST_HOOKS) is attribute(inner, _POST_HOOKS)
    is_same = len(groups) == len(others) and all(map(is_, groups, others))
    return bool(groups) and not is_copy and not is_same


def _copies_its_groups(outer: Any, name: str, inner: Any) -> bool:
    """Return whether an optimizer copies its own groups to the optimizer inside it."""
    return (name == "optim" or _is_known_to_copy(outer)) and _has_own_groups(outer, inner)


def _is_known_to_copy(optimizer: Any) -> bool:
    # The method of `ZeroRedundancyOptimizer` in torch, torch_xla and fairscale.
    return attribute(type(optimizer), "_sync_param_groups") is not None


def has_hooks(optimizer: Any) -> bool:
    """Return whether hooks can be registered on an optimizer.

    A subclass that does not call `Optimizer.__init__`, such as a wrapper, cannot have hooks.
    """
    is_optimizer = isinstance(optimizer, Optimizer)
    return is_optimizer and _POST_HOOKS in vars(optimizer)


def runs_load_hooks(optimizer: Any) -> bool:
    """Return whether every load of an optimizer ends with its hooks.

    An overridden `load_state_dict` may skip them, like bitsandbytes', or change the groups after
    them, like `ZeroRedundancyOptimizer`'s.
    """
    if not has_hooks(optimizer) or "load_state_dict" in vars(optimizer):
        return False
    return type(optimizer).load_state_dict is Optimizer.load_state_dict


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return a hook that calls a method as long as its object exists."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        found = reference()
        if found is not None:
            found(*arguments)

    return call


def as_list(optimizer: Any, fields: Sequence[Field]) -> list[Any]:
    """Return one optimizer, or several, as a list.

    Args:
        optimizer: The constructor's argument.
        fields: The scheduled fields. Without fields, the list of optimizers may be empty.

    Raises:
        ConfigError: There is no optimizer for the fields, an optimizer is in the list twice, or one
            has no param groups.
    """
    is_list = isinstance(optimizer, list | tuple)
    optimizers = list(optimizer) if is_list else [optimizer]
    if not optimizers and fields:
        raise ConfigError("optimizer=[]: pass at least one optimizer (only extras need none)")
    for index, one in enumerate(optimizers):
        _check_groups(one, f"optimizer[{index}]" if is_list else "optimizer")
    leaves = [id(leaf) for one in optimizers for leaf in innermost(one)]
    if len(set(leaves)) < len(leaves):
        raise ConfigError("optimizer: the same optimizer is in the list twice; remove one")
    return optimizers


def _check_groups(one: Any, name: str) -> None:
    try:
        groups = getattr(one, "param_groups", None)
    except Exception as error:
        raise ConfigError(
            f"{name}: the param_groups of {type(one).__name__} cannot be read: {error!r:.200}"
        ) from error
    if groups is None or isinstance(one, type):
        what = f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__
        several = " or a list of them" if name == "optimizer" else ""
        raise ConfigError(f"{name}: must be an optimizer (with param_groups){several}, not {what}")


def warn_of_two_groups(optimizer: Any) -> None:
    """Warn about a wrapper with its own groups, unless it is known to copy them."""
    name, inner = _wrapped(optimizer)
    if inner is None or _is_known_to_copy(optimizer) or not _has_own_groups(optimizer, inner):
        return
    used = optimizer if _copies_its_groups(optimizer, name, inner) else inner
    logger.warning(
        "optimizer: %s has other param groups than the %s inside it; the groups of %s are "
        "scheduled (if these are the wrong ones, pass the optimizer that is stepped)",
        type(optimizer).__name__,
        type(inner).__name__,
        type(used).__name__,
    )


def was_used(optimizer: Any) -> bool:
    """Return whether an optimizer was loaded or stepped.

    Having state is not enough, because a new Adagrad has state at step 0.
    """
    state = attribute(optimizer, "state")
    if not (isinstance(optimizer, Optimizer) and isinstance(state, Mapping)):
        return False
    return any(_has_steps(one) for one in state.values())


def _has_steps(state: Any) -> bool:
    if not isinstance(state, dict):
        return True
    step = state.get("step")
    is_number = isinstance(step, int | float | torch.Tensor)
    is_at_0 = is_number and bool((torch.as_tensor(step) == 0).all())
    return bool(state) and not is_at_0
