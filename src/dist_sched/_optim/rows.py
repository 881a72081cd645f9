"""Rows: one field of several groups that follow one curve."""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from dist_sched._curves.compiled import compiled
from dist_sched._curves.megatron import LrCurve, WdCurve
from dist_sched._optim import fields as group_fields
from dist_sched._optim.buffers import release
from dist_sched._optim.fillers import (
    Fill,
    Keys,
    Override,
    fill_between,
    fill_buffered,
    fill_overridden,
    fill_parts,
    fill_shared,
    joined,
    never,
)
from dist_sched._rules import rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._config.plan import Followed
    from dist_sched._curves.curve import Bounded
    from dist_sched._optim.buffers import Buffer, Slot
    from dist_sched._optim.fields import Group
    from dist_sched._optim.tracking import TrackedGroup


class Member(NamedTuple):
    """A group and its curve for one field."""

    one: TrackedGroup
    followed: Followed
    ratio: float


class Written(NamedTuple):
    """A value that something else has written since our last write."""

    one: TrackedGroup
    key: str
    found: Any
    ours: Any


_FIXED = frozenset({int, float, type(None)})
"""Types of overrides whose meaning cannot change while the object is the same."""


class _CarefulWrite:
    """Writes one field of a group that holds another object than our last float."""

    __slots__ = ("by_others", "key", "members", "slots", "tensors")

    def __init__(self, key: str, by_others: list[Written], slots: dict[int, Slot]) -> None:
        self.key = key
        self.slots = slots
        self.by_others = by_others
        self.members: list[Member] = []
        self.tensors: dict[int, tuple[torch.Tensor, int | None]] = {}
        """Tensor of each group, by the group's identity, and its version after the last write."""

    def __call__(self, group: Group, value: float, written: Any) -> None:
        """Write a value, and note what something else has written since our last write."""
        key = self.key
        found = group_fields.get(group, key)
        if found is None:
            raise removed(self._group(group), key)
        if isinstance(found, torch.Tensor):
            # Compared by object and version, because reading a tensor would wait for its device.
            written = self.tensors.get(id(group))
            is_other = written is not None and (
                written[0] is not found or written[1] != version(found)
            )
            if is_other and not self.by_others:
                theirs = found.detach().clone()
                self.by_others.append(Written(self._group(group), key, theirs, written))
            slot = self.slots.get(id(found))
            if slot is not None and slot.holds(found):
                slot.buffer.numbers[slot.index] = value
            else:
                found.detach().fill_(value)
            self.tensors[id(group)] = found, version(found)
        else:
            # Also compared by value, because copies and pickles make new objects.
            is_other = type(written) is float and found is not written and found != written
            if is_other and not self.by_others:
                self.by_others.append(Written(self._group(group), key, found, written))
            group_fields.assign(group, key, value)

    def _group(self, group: Group) -> TrackedGroup:
        return next(member.one for member in self.members if member.one.group is group)


class Row:
    """One field of several groups that follow one curve.

    A step calls `fill`, and `write` where that returns False.
    """

    __slots__ = (
        "_bounded",
        "_changed",
        "_found",
        "_keys",
        "_settled",
        "_unsettled",
        "_write",
        "curve",
        "field",
        "fill",
    )

    def __init__(
        self,
        followed: Followed,
        by_others: list[Written] | None = None,
        slots: dict[int, Slot] | None = None,
    ) -> None:
        field = self.field = followed.field
        self.curve = followed.curve
        # For a schedule in groups=, bounds are ignored, and a multiplier must be 1.
        bounds = ("", "") if followed.own is not None else (field.upper, field.lower)
        self._keys = Keys(field.key, *bounds, field.multiplier)
        is_upstream = isinstance(self.curve, LrCurve | WdCurve)
        self._bounded = cast("Bounded", self.curve) if is_upstream else None
        """The curve between bounds, as soon as it is needed."""
        self._write = _CarefulWrite(
            field.key,
            [] if by_others is None else by_others,
            {} if slots is None else slots,
        )
        self.fill: Fill = never
        """Write the values at a position, if all groups are as they were."""
        self._settled: Fill = never
        """The same for the groups whose overrides rarely change."""
        self._unsettled: list[list[Any]] = []
        """The other groups: each member, and the float that was written last."""
        self._found: dict[int, tuple[Any, ...]] = {}
        """The overrides of groups that have some, by the group's identity."""
        self._changed: set[int] = set()
        """Groups whose overrides have changed once."""

    def add(self, member: Member) -> None:
        """Add a group."""
        self._write.members.append(member)
        self.fill = self._settled = never

    def exchange(self, former: Group, one: TrackedGroup) -> None:
        """Follow a group whose dict a load has replaced."""
        if any(member.one is one for member in self._write.members):
            self._found.pop(id(former), None)
            self._write.tensors.pop(id(former), None)
            self.fill = self._settled = never

    def check(self, position: int) -> None:
        """Raise the error that `write` would raise.

        Raises:
            ConfigError: A group has an invalid bound or multiplier, or has lost the field in a way
                that a write cannot undo.
        """
        key, upper, lower, multiplier = self._keys
        value = self.curve(position)
        for member in self._write.members:
            group = member.one.group
            if is_removed(group, key):
                raise removed(member.one, key)
            if upper in group or lower in group or multiplier in group:
                self._value(member, position, value)

    def write(self, position: int) -> None:
        """Write the values at a position, whatever has changed in the groups since the last one."""
        if self._settled is never or not self._settled(position):
            self._put_back()
            self._sort()
            self._settled(position)
        value = self.curve(position) if self._unsettled else 0.0
        for row in self._unsettled:
            member, written = row
            row[1] = scaled = self._value(member, position, value)
            self._write(member.one.group, scaled, written)

    def write_back(self, position: int) -> None:
        """Write the values at a position into the groups that a failed `fill` has written."""
        self._settled(position)

    def _put_back(self) -> None:
        """Restore the key in groups from which something else has removed it."""
        key = self.field.key
        for one, _, _ in self._write.members:
            if key not in one.group and group_fields.split(key)[1] is None:
                one.group[key] = one.tensors.get(key, 0.0)

    def _sort(self) -> None:
        """Build `fill` for the groups as they are now."""
        _, upper, lower, multiplier = self._keys
        cohorts: dict[float, list[Group]] = {}
        buffered: dict[Buffer, list[tuple[Group, float, int]]] = {}
        between, overridden = [], []
        self._unsettled = []
        for member in self._write.members:
            group, known = member.one.group, id(member.one.group)
            slot = self._slot(member.one)
            if upper not in group and lower not in group and multiplier not in group:
                self._found.pop(known, None)
                factor = member.ratio * member.followed.number
                if slot is None:
                    cohorts.setdefault(factor, []).append(group)
                else:
                    buffered.setdefault(slot.buffer, []).append((group, factor, slot.index))
                continue
            found = group.get(upper), group.get(lower), group.get(multiplier)
            override = self._override(member, found)
            # By the keys, because one may hold None.
            is_upper_alone = lower not in group and multiplier not in group
            if override is None:
                self._unsettled.append([member, None])
            elif override.bounds and is_upper_alone and override.factor == 1.0:
                between.append(override)
            else:
                overridden.append(override)
        value_at = compiled(self.curve)
        fills: list[Fill] = []
        if cohorts:
            is_part = group_fields.split(self.field.key)[1] is not None
            build = fill_parts if is_part else fill_shared
            fills.append(build(self._keys, cohorts, value_at, self._write))
        fills += [
            fill_buffered(self._keys, some, buffer, value_at) for buffer, some in buffered.items()
        ]
        if between:
            fills.append(fill_between(self._keys, between, self.between(), self._write))
        if overridden:
            fills.append(
                fill_overridden(self._keys, overridden, value_at, self._bounded, self._write)
            )
        self._settled = joined(fills)
        self.fill = never if self._unsettled else self._settled

    def _slot(self, one: TrackedGroup) -> Slot | None:
        """Return the place of a group's tensor in a buffer, if it is in one."""
        found, script = one.group.get(self.field.key), one.tensors.get(self.field.key)
        slots = self._write.slots
        if script is not None and script is not found and id(script) in slots:
            release(script, slots)  # something else may use it now
            if found is not None and not self._write.by_others:
                theirs = found.detach().clone() if isinstance(found, torch.Tensor) else found
                self._write.by_others.append(Written(one, self.field.key, theirs, (script, None)))
        if not isinstance(found, torch.Tensor):
            return None
        slot = slots.get(id(found))
        return slot if slot is not None and slot.holds(found) else None

    def _override(self, member: Member, found: tuple[Any, Any, Any]) -> Override | None:
        """Return the overrides of a group, or None if they may change at every step."""
        group, known = member.one.group, id(member.one.group)
        before = self._found.get(known)
        self._found[known] = found
        if before is not None and not all(map(is_, before, found)):
            if known in self._changed:
                return None
            self._changed.add(known)
        if any(type(one) not in _FIXED for one in found):
            return None
        bounds, factor = self._meaning(member)
        return Override(group, found, bounds, factor)

    def values(self, position: int) -> list[tuple[int, float]]:
        """Return the place of each group, and the value that would be written.

        Raises:
            ConfigError: A group has an invalid bound or multiplier.
        """
        value = self.curve(position)
        return [
            (member.one.place, self._value(member, position, value))
            for member in self._write.members
        ]

    def _value(self, member: Member, position: int, value: float) -> float:
        """Return the value of a group where the curve has some value."""
        try:
            bounds, factor = self._meaning(member)
            if bounds is not None:
                value = self.between().at(position)(*bounds)
        except ConfigError as error:
            raise ConfigError(f"{member.one}: {error}") from error
        return value * factor

    def between(self) -> Bounded:
        """Return the curve between bounds. It is built when a group first needs it."""
        if self._bounded is None:
            found = self._write.members[0].followed.bounded
            self._bounded = None if found is None else found()
        return cast("Bounded", self._bounded)

    def _meaning(self, member: Member) -> tuple[tuple[float, float] | None, float]:
        """Return a group's bounds, if it has some, and the factor of the value.

        Raises:
            ConfigError: A bound or the multiplier is invalid.
        """
        one, followed, ratio = member
        multiplier = multiplier_of(one, followed)
        bounds = None if followed.own is not None else self.bounds_of(one)
        if bounds is not None:
            return bounds, (1.0 if multiplier is None else multiplier) * followed.number
        return None, (ratio if multiplier is None else multiplier) * followed.number

    def bounds_of(self, one: TrackedGroup) -> tuple[float, float] | None:
        """Return the upper and the lower bound of a group, or None if it has none.

        Raises:
            ConfigError: A bound is invalid.
        """
        _, upper, lower, _ = self._keys
        high, low = one.override(upper), one.override(lower)
        if high is None and low is None:
            return None
        bounded = self.between()
        high = bounded.max_value if high is None else rate(upper, high) * bounded.factor
        low = bounded.min_value if low is None else rate(lower, low) * bounded.factor
        return high, low if bounded.end_share is None else high * bounded.end_share


def multiplier_of(one: TrackedGroup, followed: Followed) -> float | None:
    """Return the multiplier of a group, or None if it has none.

    Raises:
        ConfigError: It is invalid, or the group also has a schedule in `groups=`.
    """
    key = followed.field.multiplier
    found = one.override(key)
    if found is None:
        return None
    multiplier = rate(key, found)
    if followed.own is not None and multiplier != 1.0:
        raise ConfigError(
            f"{key}={multiplier!r}: not allowed for a group with a schedule, {followed.own.path}; "
            "remove one of the two"
        )
    return multiplier


def is_removed(group: Group, key: str) -> bool:
    """Return whether a field was removed from a group in a way that a write cannot undo."""
    name, index = group_fields.split(key)
    return group_fields.get(group, key) is None and (index is not None or name in group)


def removed(one: TrackedGroup, key: str) -> ConfigError:
    """Return the error of a field that cannot be written."""
    return ConfigError(f"{one}: {key} was removed from the group; add it again")


def version(tensor: torch.Tensor) -> int | None:
    """Return how often a tensor was written in place, or None if torch does not count."""
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001 - not public in torch


def row_of(member: Member) -> Row:
    """Return a row with one group, to compute its values."""
    row = Row(member.followed)
    row.add(member)
    return row


def highest(member: Member) -> float:
    """Return a group's value where its curve is highest.

    Raises:
        ConfigError: The group has an invalid bound or multiplier.
    """
    one, followed, ratio = member
    keys = () if followed.own is not None else (followed.field.upper, followed.field.lower)
    try:
        multiplier = multiplier_of(one, followed)
        has_bounds = any(one.override(key) is not None for key in keys)
        row = row_of(member) if has_bounds else None
        bounds = None if row is None else row.bounds_of(one)
    except ConfigError as error:
        raise ConfigError(f"{one}: {error}") from error
    if row is not None and bounds is not None:
        factor = (1.0 if multiplier is None else multiplier) * followed.number
        return row.between().highest(*bounds) * factor
    factor = ratio if multiplier is None else multiplier
    return followed.curve.max_value * (factor * followed.number)
