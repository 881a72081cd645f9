"""The loops that write one field of many groups at every step.

Each is a closure over the groups as they are, so that a step looks up nothing else. A loop returns
False as soon as a group is not as it was. It must then be built anew.

The loops repeat each other, because a call for each group would take as long as the loop itself.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dist_sched._optim import fields as group_fields
from dist_sched._optim.fields import Group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dist_sched._curves.curve import Bounded
    from dist_sched._optim.buffers import Buffer

Fill = Callable[[int], bool]
"""`fill(position)` writes the values at a position and returns True. If a group has changed, it
returns False, and may have written the groups before that one."""
Write = Callable[[Group, float, Any], None]
"""`write(group, value, last)` writes into a group that does not hold the object `last`."""


class Keys(NamedTuple):
    """The keys of a group that determine one field. An empty key is in no group."""

    field: str
    upper: str
    lower: str
    multiplier: str


class Override(NamedTuple):
    """A group with bounds or a multiplier, and their meaning."""

    group: Group
    found: tuple[Any, Any, Any]
    """The objects under the keys `upper`, `lower` and `multiplier`, or None."""
    bounds: tuple[float, float] | None
    """The upper and the lower bound."""
    factor: float


def never(_position: int) -> bool:
    """Return False: the loop must be built first."""
    return False


def joined(fills: Sequence[Fill]) -> Fill:
    """Return one loop for several."""
    if len(fills) == 1:
        return fills[0]
    return lambda position: all(fill(position) for fill in fills)


def fill_shared(
    keys: Keys, cohorts: Mapping[float, list[Group]], value_at: Callable[[int], float], write: Write
) -> Fill:
    """Return the loop over groups without overrides.

    Args:
        keys: The keys of the field.
        cohorts: The groups of each factor.
        value_at: The curve.
        write: Called for groups that do not hold our last float.
    """
    if len(cohorts) == 1:
        return _fill_equal(keys, *next(iter(cohorts.items())), value_at, write)
    if all(len(groups) == 1 for groups in cohorts.values()):
        return _fill_distinct(keys, cohorts, value_at, write)
    key, upper, lower, multiplier = keys
    # Lists, because unpacking a list is faster than reading attributes.
    rows: list[list[Any]] = [[factor, groups, None] for factor, groups in cohorts.items()]

    def fill(position: int) -> bool:
        value = value_at(position)
        try:
            for row in rows:
                factor, groups, written = row
                row[2] = scaled = value * factor
                for group in groups:
                    if upper in group or lower in group or multiplier in group:
                        return False
                    if group[key] is written:
                        group[key] = scaled
                    else:
                        write(group, scaled, written)
        except KeyError:
            return False
        return True

    return fill


def _fill_equal(
    keys: Keys, factor: float, groups: list[Group], value_at: Callable[[int], float], write: Write
) -> Fill:
    """Return the loop over groups without overrides that have one factor."""
    key, upper, lower, multiplier = keys
    last: float | None = None

    def fill(position: int) -> bool:
        nonlocal last
        written = last
        last = value = value_at(position) * factor
        try:
            for group in groups:
                # Checked at every step, because overrides may be added and removed.
                if upper in group or lower in group or multiplier in group:
                    return False
                if group[key] is written:  # our own float, so its type is known
                    group[key] = value
                else:
                    write(group, value, written)
        except KeyError:
            return False
        return True

    return fill


def _fill_distinct(
    keys: Keys, cohorts: Mapping[float, list[Group]], value_at: Callable[[int], float], write: Write
) -> Fill:
    """Return the loop over groups without overrides that each have another factor."""
    key, upper, lower, multiplier = keys
    rows: list[list[Any]] = [[factor, group, None] for factor, (group,) in cohorts.items()]

    def fill(position: int) -> bool:
        value = value_at(position)
        try:
            for row in rows:
                factor, group, written = row
                if upper in group or lower in group or multiplier in group:
                    return False
                row[2] = scaled = value * factor
                if group[key] is written:
                    group[key] = scaled
                else:
                    write(group, scaled, written)
        except KeyError:
            return False
        return True

    return fill


def fill_parts(
    keys: Keys, cohorts: Mapping[float, list[Group]], value_at: Callable[[int], float], write: Write
) -> Fill:
    """Return the loop over one part of tuples, such as `betas[0]`, which has no overrides."""
    name, index = group_fields.split(keys.field)
    part = index or 0
    rows: list[list[Any]] = [[factor, groups, None] for factor, groups in cohorts.items()]

    def fill(position: int) -> bool:
        value = value_at(position)
        for row in rows:
            factor, groups, written = row
            row[2] = scaled = value * factor
            seen = whole = None
            for group in groups:
                found = group.get(name)
                if found is seen is not None:
                    group[name] = whole  # groups that shared a tuple share the next one
                    continue
                seen = found
                if type(found) is tuple and len(found) > part and found[part] is written:
                    group[name] = whole = (*found[:part], scaled, *found[part + 1 :])
                else:
                    write(group, scaled, written)
                    whole = group[name]
        return True

    return fill


def fill_buffered(
    keys: Keys,
    buffered: Sequence[tuple[Group, float, int]],
    buffer: Buffer,
    value_at: Callable[[int], float],
) -> Fill:
    """Return the loop over groups without overrides whose tensors are in a buffer.

    It changes the buffer's numbers. `Buffer.write` copies them into the tensors.

    Args:
        keys: The keys of the field.
        buffered: Each group, its factor, and the index of its tensor.
        buffer: The buffer.
        value_at: The curve.
    """
    key, upper, lower, multiplier = keys
    groups = [group for group, _, _ in buffered]
    factors = torch.tensor([factor for _, factor, _ in buffered], dtype=torch.float64, device="cpu")
    indices = [index for _, _, index in buffered]
    numbers, part = buffer.numbers, buffer.part(indices)
    addresses = [buffer.addresses[index] for index in indices]
    held, address_of = itemgetter(key), torch.Tensor.data_ptr

    def fill(position: int) -> bool:
        for group in groups:
            if upper in group or lower in group or multiplier in group:
                return False
        try:
            # Also finds a tensor that a user has moved, unlike a comparison of objects.
            if [*map(address_of, map(held, groups))] != addresses:
                return False
        except (KeyError, TypeError, RuntimeError):  # removed, a float, or without memory
            return False
        value = value_at(position)
        if part is not None:
            torch.mul(factors, value, out=part)
        else:
            for index, number in zip(indices, (factors * value).tolist(), strict=True):
                numbers[index] = number
        return True

    return fill


def fill_between(keys: Keys, overrides: Iterable[Override], bounded: Bounded, write: Write) -> Fill:
    """Return the loop over groups that have an upper bound, and no other override."""
    key, upper, lower, multiplier = keys
    rows: list[list[Any]] = [
        [one.group, one.found[0], *one.bounds, one.bounds[0] - one.bounds[1], None]
        for one in overrides
        if one.bounds is not None
    ]

    def fill(position: int) -> bool:
        part = bounded.part(position)
        between: Any = bounded.at(position) if part is None else None
        try:
            for row in rows:
                group, bound, high, low, difference, written = row
                if group[upper] is not bound or lower in group or multiplier in group:
                    return False
                row[5] = value = between(high, low) if part is None else low + part * difference
                if group[key] is written:
                    group[key] = value
                else:
                    write(group, value, written)
        except KeyError:
            return False
        return True

    return fill


def fill_overridden(
    keys: Keys,
    overrides: Iterable[Override],
    value_at: Callable[[int], float],
    bounded: Bounded | None,
    write: Write,
) -> Fill:
    """Return the loop over groups with any overrides."""
    key, upper, lower, multiplier = keys
    rows: list[list[Any]] = [[*one, None] for one in overrides]

    def fill(position: int) -> bool:
        value = value_at(position)
        between = None if bounded is None else bounded.at(position)
        try:
            for row in rows:
                group, found, bounds, factor, written = row
                get = group.get
                if (
                    get(upper) is not found[0]
                    or get(lower) is not found[1]
                    or get(multiplier) is not found[2]
                ):
                    return False
                scaled = value if bounds is None or between is None else between(*bounds)
                row[4] = scaled = scaled * factor
                if group[key] is written:
                    group[key] = scaled
                else:
                    write(group, scaled, written)
        except KeyError:
            return False
        return True

    return fill
