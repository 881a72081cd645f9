"""Fields of groups: reading and writing one value of one param group."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any

import torch

from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dist_sched._config.plan import Field

_PART = re.compile(r"(.+)\[(\d+)\]")
_NUMBERS = frozenset({int, float, torch.Tensor})
"""Types of what can be scheduled."""

Group = dict[str, Any]


@functools.cache
def split(key: str) -> tuple[str, int | None]:
    """Return the key of a param group, and the index of a part of its tuple, or None.

    Examples:
        >>> split("betas[0]"), split("lr")
        (('betas', 0), ('lr', None))
    """
    found = _PART.fullmatch(key)
    return (found[1], int(found[2])) if found else (key, None)


def get(group: Group, key: str) -> Any:
    """Return a field of a group, or None if the group does not have it."""
    name, index = split(key)
    found = group.get(name)
    if index is None:
        return found
    return found[index] if isinstance(found, tuple | list) and index < len(found) else None


def assign(group: Group, key: str, value: Any) -> None:
    """Replace the object of a field. A tuple is replaced, not changed: groups may share it."""
    name, index = split(key)
    if index is None:
        group[name] = value
        return
    parts = list(group[name])
    parts[index] = value
    group[name] = parts if isinstance(group[name], list) else tuple(parts)


def write(group: Group, key: str, value: float) -> None:
    """Write one value. A tensor is filled in place, so that others who hold it see the change."""
    found = get(group, key)
    if isinstance(found, torch.Tensor):
        found.detach().fill_(value)
    else:
        assign(group, key, value)


def assign_or_drop(group: Group, key: str, values: Group) -> None:
    """Set a key to its value in another dict, or remove the key if that dict does not have it."""
    if key in values:
        group[key] = values[key]
    else:
        group.pop(key, None)


def names_in(group: Group) -> Iterator[str]:
    """Yield the fields of a group that could be scheduled."""
    for key, found in group.items():
        if type(found) in _NUMBERS:
            yield key
        elif isinstance(found, tuple | list) and key != "params":
            for index, part in enumerate(found):
                if type(part) in _NUMBERS:
                    yield f"{key}[{index}]"


def tensors_in(group: Group, fields: Iterable[Field]) -> dict[str, torch.Tensor]:
    """Return the tensors of a group for some fields, by key."""
    held = {field.key: get(group, field.key) for field in fields}
    return {key: found for key, found in held.items() if isinstance(found, torch.Tensor)}


def unshare(holders: Iterable[Group], key: str) -> None:
    """If several dicts share a tensor, replace it by copies in all but the first."""
    seen = set()
    for holder in holders:
        found = get(holder, key)
        if isinstance(found, torch.Tensor):
            # Compared by address, because two views may share one number.
            if found.data_ptr() in seen:
                assign(holder, key, found.detach().clone())
            seen.add(found.data_ptr())


def shortest_decimal(key: str, tensor: torch.Tensor) -> float:
    """Return the shortest decimal that a tensor's dtype rounds to the tensor's value.

    This is the number in the script, such as 0.001, which float32 stores as 0.0010000000474974513.
    Ratios are then the same as with floats.

    Raises:
        ConfigError: The tensor does not hold one floating-point number.
    """
    if tensor.numel() != 1 or not tensor.is_floating_point() or tensor.is_meta:
        raise ConfigError(f"{key}={tensor!r}: a tensor must hold one floating-point number")
    held = float(tensor.item())
    decimals = (float(f"{held:.{digits}g}") for digits in range(1, 17))
    return next((d for d in decimals if torch.tensor(d, dtype=tensor.dtype).item() == held), held)


def plain(found: Any) -> Any:
    """Return the number in a tensor, and other values unchanged."""
    is_scalar = isinstance(found, torch.Tensor) and found.numel() == 1 and not found.is_meta
    return found.item() if is_scalar else found


def holds(found: Any, value: float, rel_tol: float = 1e-12) -> bool:
    """Return whether a value read from a group equals a number, up to its dtype's rounding."""
    if isinstance(found, torch.Tensor):
        if found.numel() != 1 or not found.is_floating_point() or found.is_meta:
            return False
        rounded = torch.tensor(value, dtype=found.dtype).item()
        return math.isclose(found.item(), rounded, rel_tol=torch.finfo(found.dtype).eps)
    return isinstance(found, int | float) and math.isclose(found, value, rel_tol=rel_tol)
