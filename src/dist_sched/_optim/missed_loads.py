"""Loads of optimizers that run no hooks, found by comparing groups with the last written values."""

from __future__ import annotations

from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any

import torch

from dist_sched._optim import fields as group_fields
from dist_sched._optim.wrappers import as_list, innermost, warn_of_two_groups
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dist_sched._config.plan import Field
    from dist_sched._optim.fields import Group


@dataclass(slots=True)
class Snapshot:
    """The contents of a group at some time, such as after our last write."""

    group: Group
    """The dict itself, because a load may replace it."""
    values: Group
    """Values by field key. Tensors are cloned."""
    tensors: dict[str, torch.Tensor]
    """The tensors themselves, by field key."""
    overrides: Group
    """The bounds and multipliers."""
    is_in_doubt: bool = False
    """Whether an optimizer was loaded since that may change its groups after its load hooks."""

    @classmethod
    def of(cls, group: Group, fields: Sequence[Field]) -> Snapshot:
        """Return the present contents of a group."""
        held = {field.key: group_fields.get(group, field.key) for field in fields}
        values = {
            # A clone, because the next write fills the tensor that the group has.
            key: found.detach().clone() if isinstance(found, torch.Tensor) else found
            for key, found in held.items()
            if found is not None
        }
        keys = (key for field in fields for key in field.override_keys())
        overrides = {key: group[key] for key in keys if key in group}
        return cls(group, values, group_fields.tensors_in(group, fields), overrides)

    def was_loaded(self, now: Snapshot, *, is_load: bool) -> bool:
        """Return whether a load has changed the group since this snapshot.

        Args:
            now: The present contents.
            is_load: Whether new overrides or tensors are from a load even if every value is the
                same. Otherwise they are a change of the script, which is kept.
        """
        if now.group is not self.group or _differ(self.values, now.values):
            return True
        has_others = _differ(self.overrides, now.overrides) or not _same(self.tensors, now.tensors)
        return (is_load or self.is_in_doubt) and has_others

    def differences(self, now: Snapshot) -> list[str]:
        """Return a text for each field that has another value now."""
        return [
            f"{key} was {group_fields.plain(now.values.get(key))!r} instead of the written "
            f"{group_fields.plain(found)!r}"
            for key, found in self.values.items()
            if group_fields.plain(now.values.get(key)) != group_fields.plain(found)
        ]


def _differ(before: Group, now: Group) -> bool:
    return any(
        group_fields.plain(before.get(key)) != group_fields.plain(now.get(key))
        for key in {**before, **now}
    )


def _same(before: dict[str, torch.Tensor], now: dict[str, torch.Tensor]) -> bool:
    return before.keys() == now.keys() and all(now[key] is found for key, found in before.items())


def check_groups(optimizer: Any, fields: Sequence[Field]) -> None:
    """Check that there are optimizers, and that writes into their groups are kept.

    Raises:
        ConfigError: There is no optimizer, or `param_groups` is a property that returns new dicts.
    """
    for one in as_list(optimizer, fields):
        warn_of_two_groups(one)
        for leaf in innermost(one):
            if all(map(is_, list(leaf.param_groups), list(leaf.param_groups))):
                continue
            for index in range(len(leaf.param_groups)):
                for field in fields:
                    _check_kept(leaf, index, field.key)


def _check_kept(optimizer: Any, index: int, key: str) -> None:
    """Write another number into a field, read it back through `param_groups`, and undo it."""
    group = optimizer.param_groups[index]
    found = group_fields.get(group, key)
    value = group_fields.plain(found)
    if not isinstance(value, int | float):
        return
    group_fields.write(group, key, value + 1.0)
    if group_fields.plain(group_fields.get(optimizer.param_groups[index], key)) == value:
        raise ConfigError(
            f"optimizer: values written into group {index} of {type(optimizer).__name__} are lost "
            f"({key} is {value!r} again when it is read), because its param_groups returns new "
            "dicts; pass the optimizers inside it to the scheduler"
        )
    if isinstance(found, torch.Tensor):
        group_fields.write(group, key, value)
    else:
        group_fields.assign(group, key, found)
