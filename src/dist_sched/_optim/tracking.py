"""Members: what is remembered of each param group, and how one is recognised."""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from dist_sched._config.policy import CONFIG
from dist_sched._optim import fields as group_fields
from dist_sched._rules import rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dist_sched._config.plan import Field
    from dist_sched._optim.fields import Group

logger = logging.getLogger("dist_sched")


@dataclass(slots=True, eq=False)
class TrackedGroup:
    """What is remembered of one group; it outlives the group's dict object."""

    group: Group
    source: int
    """Index of the optimizer."""
    index: int
    """Index of the group within its optimizer."""
    name: object = None
    """The group's name when it was first seen; with another, as of a load, it is no other group."""
    own: dict[str, float | None] = dataclass_field(default_factory=dict)
    """The group's own value of each field when it was first seen; None where it had none."""
    tensors: dict[str, torch.Tensor] = dataclass_field(default_factory=dict)
    """The script's own tensor objects, by field key."""
    overrides: Group = dataclass_field(default_factory=dict)
    """Bounds and multipliers as they stood just before the optimizer was loaded."""
    carried: Group = dataclass_field(default_factory=dict)
    """What an optimizer's checkpoint had for this group, until it was compared."""

    def __str__(self) -> str:
        return (
            f"optimizer {self.source}, group {self.index}" if self.source else f"group {self.index}"
        )


@dataclass(frozen=True, slots=True)
class _Memory:
    """What schedulers on one optimizer saw before they changed it, and what they measure against.

    Parameters are held weakly: one may refer to its optimizer, and would keep it alive from here.
    """

    members: list[tuple[TrackedGroup, int, list[weakref.ref[Any]]]]
    """For each group what is known of it, its identity, and its parameters."""
    references: dict[str, float | None]


_MEMORIES: weakref.WeakKeyDictionary[Any, _Memory] = weakref.WeakKeyDictionary()


def innermost(optimizer: Any) -> list[Any]:
    """Give the optimizers that are stepped inside a wrapper or container, or the one itself.

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


def as_sources(optimizer: Any) -> list[Any]:
    """Give one optimizer, or several, as a list.

    Raises:
        ConfigError: There is none, one stands twice, or one has no param groups.
    """
    sources = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    if not sources:
        raise ConfigError("optimizer=[]: give at least one optimizer")
    for source in sources:
        if not hasattr(source, "param_groups"):
            raise ConfigError(f"optimizer={source!r}: must be an optimizer, or a list of them")
    leaves = [id(leaf) for source in sources for leaf in innermost(source)]
    if len(set(leaves)) < len(leaves):
        raise ConfigError("optimizer: the same optimizer stands twice in the list")
    return sources


class Recogniser:
    """Finds the member that a present group was before: the same dict, or the same parameters.

    A group without parameters is recognised by its place.
    """

    def __init__(self, previous: list[TrackedGroup]) -> None:
        self._by_group = {id(member.group): member for member in previous}
        self._by_param = {
            id(param): member for member in previous for param in _params(member.group)
        }
        self._by_place = {
            (member.source, member.index): member
            for member in previous
            if not _params(member.group)
        }

    def find(self, source: int, index: int, group: Group) -> TrackedGroup | None:
        """Give the member, or None if the group was not known before."""
        if id(group) in self._by_group:
            return self._by_group[id(group)]
        params = _params(group)
        if not params:
            return self._by_place.get((source, index))
        return next(filter(None, (self._by_param.get(id(param)) for param in params)), None)


def memory_of(optimizer: Any) -> _Memory | None:
    """Give what earlier schedulers left with an optimizer."""
    try:
        return _MEMORIES.get(optimizer)
    except TypeError:  # neither hashable nor weakly referable, which only stand-ins are
        return None


def recalled(memory: _Memory, optimizer: Any, source: int) -> list[TrackedGroup]:
    """Make members of a memory: with their groups' own dicts, where those still are the same."""
    present = {id(group): group for group in optimizer.param_groups}
    members = []
    for member, identity, references in memory.members:
        params = [param for reference in references if (param := reference()) is not None]
        group = present.get(identity, {})
        is_same = [*map(id, _params(group))][:1] == [*map(id, params)][:1]
        members.append(
            replace(member, group=group, name=group.get("name"), source=source)
            if is_same
            else replace(member, group={"params": params}, source=source)
        )
    return members


def remember(
    optimizer: Any, members: list[TrackedGroup], references: dict[str, float | None]
) -> None:
    """Leave members and references with an optimizer, for a later scheduler."""
    try:
        told = [
            (
                replace(member, group={}),
                id(member.group),
                [*map(weakref.ref, _params(member.group))],
            )
            for member in members
        ]
        _MEMORIES[optimizer] = _Memory(told, references)
    except TypeError:
        logger.debug("%s cannot be referred to weakly", type(optimizer).__name__)


def was_used(optimizer: Any) -> bool:
    """Tell whether an optimizer was loaded or stepped; some have state at step 0 when new."""
    if not isinstance(optimizer, Optimizer):
        return False
    return any(not _is_new(state) for state in optimizer.state.values())


def _is_new(state: Any) -> bool:
    """Tell whether one parameter's state says that no step was made."""
    if not isinstance(state, dict):
        return False
    step = state.get("step")
    is_number = isinstance(step, int | float | torch.Tensor)
    return not state or (is_number and bool((torch.as_tensor(step) == 0).all()))


def own_value(member: TrackedGroup, key: str) -> float | None:
    """Give what a group had when it was first asked for a field; None where it had none."""
    if key not in member.own:
        member.own[key] = _own_value(member, key)
    return member.own[key]


def _own_value(member: TrackedGroup, key: str) -> float | None:
    """Read the value that a group was built with."""
    found = group_fields.get(member.group, key)
    try:
        if isinstance(found, torch.Tensor):
            found = group_fields.declared(key, found)
        is_whole = isinstance(found, tuple | list)  # its parts can be scheduled
        return None if found is None or is_whole else rate(key, found)
    except ConfigError as error:
        raise ConfigError(f"{member}: {error}") from error


def put_back_tensors(member: TrackedGroup, fields: Iterable[Field]) -> None:
    """Put back the script's own objects where a load has replaced them."""
    for field in fields:
        found = group_fields.get(member.group, field.key)
        if field.key in member.tensors:
            group_fields.assign(member.group, field.key, member.tensors[field.key])
        elif found is None and _is_lacking(member, field):
            group_fields.assign(member.group, field.key, 0.0)  # to be written at once
        elif found is not None and not isinstance(found, float):
            group_fields.assign(member.group, field.key, float(found))


def _is_lacking(member: TrackedGroup, field: Field) -> bool:
    """Tell whether a group lacks a field that it should have: a load may bring groups without."""
    had_it = member.own.get(field.key) is not None and group_fields.split(field.key)[1] is None
    return field.is_added or had_it


def settle_override(member: TrackedGroup, name: str, word: str) -> str:
    """Settle one bound or multiplier after a load, and say so where the two sides differ."""
    group = member.group
    script, loaded = member.overrides.get(name), group.get(name)
    if script == loaded:
        return ""
    if word == CONFIG:
        group_fields.assign_or_drop(group, name, member.overrides)
    used = "script's" if word == CONFIG else "optimizer checkpoint's"
    return (
        f"{member}: {name} is {script!r} in the script and {loaded!r} in the optimizer checkpoint; "
        f"using the {used} value (policy {word!r})"
    )


def _params(group: Group) -> Sequence[Any]:
    params: Sequence[Any] = group.get("params", ())
    return params
