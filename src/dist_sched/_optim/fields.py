"""Fields of groups: one value of one param group, read and written."""

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

Group = dict[str, Any]


@functools.cache
def split(key: str) -> tuple[str, int | None]:
    """Return the key of a param group, and the index of the part of its tuple that is meant.

    Examples:
        >>> split("betas[0]"), split("lr")
        (('betas', 0), ('lr', None))
    """
    found = _PART.fullmatch(key)
    return (found[1], int(found[2])) if found else (key, None)


def get(group: Group, key: str) -> Any:
    """Return a field of a group; None where it has none."""
    name, index = split(key)
    found = group.get(name)
    if index is None:
        return found
    return found[index] if isinstance(found, tuple | list) and index < len(found) else None


def assign(group: Group, key: str, value: Any) -> None:
    """Replace the object that a field holds; a tuple becomes another, since groups may share it."""
    name, index = split(key)
    if index is None:
        group[name] = value
        return
    parts = list(group[name])
    parts[index] = value
    group[name] = parts if isinstance(group[name], list) else tuple(parts)


def write(group: Group, key: str, value: float) -> None:
    """Write one value; a tensor is filled in place, so that whoever holds it sees the change."""
    found = get(group, key)
    if isinstance(found, torch.Tensor):
        found.detach().fill_(value)
    else:
        assign(group, key, value)


def assign_or_drop(group: Group, key: str, values: Group) -> None:
    """Set a key to the value that a dict has for it, or remove the key where it has none."""
    if key in values:
        group[key] = values[key]
    else:
        group.pop(key, None)


def names_in(group: Group) -> Iterator[str]:
    """Yield the fields that could be scheduled in a group."""
    for key, found in group.items():
        parts = found if isinstance(found, tuple | list) and key != "params" else ()
        names = [f"{key}[{index}]" for index in range(len(parts))] or [key]
        yield from (name for name in names if type(get(group, name)) in {int, float, torch.Tensor})


def tensors_in(group: Group, fields: Iterable[Field]) -> dict[str, torch.Tensor]:
    """Return the tensors that a group holds for some fields, by key."""
    held = {field.key: get(group, field.key) for field in fields}
    return {key: found for key, found in held.items() if isinstance(found, torch.Tensor)}


def unshare(holders: Iterable[Group], key: str) -> None:
    """Leave a tensor that several dicts share to the first, and give the others copies."""
    seen = set()
    for holder in holders:
        found = get(holder, key)
        if isinstance(found, torch.Tensor):
            # By address, not by object: two views of one number are shared as well.
            if found.data_ptr() in seen:
                assign(holder, key, found.detach().clone())
            seen.add(found.data_ptr())


def shortest_decimal(key: str, tensor: torch.Tensor) -> float:
    """Return the shortest decimal that a tensor's dtype rounds to the value that it holds.

    This is what the script wrote: 0.001, not the 0.0010000000474974513 that float32 makes of it.
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
    """Return the number that a tensor holds; other things as they are."""
    is_scalar = isinstance(found, torch.Tensor) and found.numel() == 1 and not found.is_meta
    return found.item() if is_scalar else found


def holds(found: Any, value: float, rel_tol: float = 1e-12) -> bool:
    """Return whether something read from a group is a value, as its dtype rounds it."""
    if isinstance(found, torch.Tensor):
        if found.numel() != 1 or not found.is_floating_point() or found.is_meta:
            return False
        rounded = torch.tensor(value, dtype=found.dtype).item()
        return math.isclose(found.item(), rounded, rel_tol=torch.finfo(found.dtype).eps)
    return isinstance(found, int | float) and math.isclose(found, value, rel_tol=rel_tol)
