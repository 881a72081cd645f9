"""Rows: one field of several groups that follow one curve, and the loop that writes it."""

from __future__ import annotations

import math
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from dist_sched._curves.megatron import LrCurve, WdCurve
from dist_sched._optim import fields as group_fields
from dist_sched._rules import MAX_RATE, rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dist_sched._config.plan import Followed
    from dist_sched._curves.curve import Between, Bounded
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


Overridden = tuple["Row", list["Group"], list[float]]
"""Groups with overrides of a row's field, and their values."""


class Row:
    """One field of several groups that follow one curve."""

    __slots__ = (
        "_bounded",
        "_by_others",
        "_cohorts",
        "_is_simple",
        "_keys",
        "_members",
        "_overridden_groups",
        "_overridden_last",
        "_places",
        "_tensors",
        "_upstream",
        "curve",
        "field",
    )

    def __init__(self, followed: Followed, by_others: list[Written] | None = None) -> None:
        field = self.field = followed.field
        self.curve = followed.curve
        # For a schedule in groups=, bounds are ignored, and a multiplier must be 1.
        bounds = ("", "") if followed.own is not None else (field.upper, field.lower)
        self._keys = (field.key, *bounds, field.multiplier)
        is_upstream = isinstance(self.curve, LrCurve | WdCurve)
        self._upstream = cast("Bounded", self.curve) if is_upstream else None
        """Megatron's curve, whose formula has bounds."""
        self._bounded = self._upstream
        """The curve between bounds, as soon as it is needed."""
        self._by_others = [] if by_others is None else by_others
        self._members: dict[int, Member] = {}
        """Members by identity of the group."""
        self._is_simple = True
        """Whether overrides are only keys of the groups."""
        self._places: dict[float, int] = {}
        """Index of the cohort of each factor."""
        self._cohorts: list[list[Any]] = []
        """For each factor: the factor, its groups, and the float object that was written last.

        These are lists, because unpacking a list at each step is faster than reading attributes."""
        self._overridden_groups: list[Group] = []
        """Groups that had overrides at the last write."""
        self._overridden_last: list[float | None] = []
        """Values that were written into them."""
        self._tensors: dict[int, tuple[torch.Tensor, int | None]] = {}
        """Tensor of each group, by the group's identity, and its version after the last write."""

    def add(self, member: Member) -> None:
        """Add a group."""
        one, followed, ratio = member
        factor = ratio * followed.number
        index = self._places.setdefault(factor, len(self._places))
        if index == len(self._cohorts):
            self._cohorts.append([factor, [], None])
        self._cohorts[index][1].append(one.group)
        self._cohorts[index][2] = None  # not what the new group holds
        self._members[id(one.group)] = member
        if one.not_ours or one.leftovers or followed.number != 1.0 or followed.own is not None:
            self._is_simple = False

    def exchange(self, former: Group, group: Group) -> None:
        """Replace the dict of a group, which a load has replaced."""
        member = self._members.pop(id(former), None)
        if member is None:
            return
        self._members[id(group)] = member
        for cohort in self._cohorts:
            cohort[1] = [group if one is former else one for one in cohort[1]]
            cohort[2] = None  # not what the loaded dict holds
        self._overridden_groups, self._overridden_last = [], []

    def fill(self, position: int) -> Overridden | None:
        """Write the values at a position into the groups without overrides.

        Returns:
            The groups with overrides and their values, or None. They are written after all rows, so
            that an invalid override leaves them unchanged.

        Raises:
            ConfigError: A group has an invalid bound or multiplier.
        """
        key, upper, lower, multiplier = self._keys
        curve = self._upstream
        if curve is None:
            between, value = None, self.curve(position)
        else:
            # Groups with bounds share the work that depends on the position alone.
            between = curve.at(position)
            value = between(curve.max_value, curve.min_value)
        overridden: list[Group] = []
        for cohort in self._cohorts:
            factor, groups, written = cohort
            cohort[2] = scaled = value * factor
            try:
                for group in groups:
                    # Checked at every step, because overrides may be added and removed.
                    if upper in group or lower in group or multiplier in group:
                        overridden.append(group)
                    elif group[key] is written:  # our own float, so its type is known
                        group[key] = scaled
                    else:
                        self._write(group, scaled, written)
            except KeyError:
                self._put_back(groups)
                return self.fill(position)
        if not overridden:
            if self._overridden_groups:
                self._overridden_groups, self._overridden_last = [], []
            return None
        return self, overridden, self.overridden_values(overridden, position, value, between)

    def write_overridden(self, groups: list[Group], values: list[float]) -> None:
        """Write the values of groups with overrides."""
        key, last = self.field.key, self._overridden_last
        if len(groups) != len(self._overridden_groups) or not all(
            map(is_, groups, self._overridden_groups)
        ):
            last = [None] * len(groups)
        try:
            for group, value, written in zip(groups, values, last, strict=True):
                if group[key] is written:
                    group[key] = value
                else:
                    self._write(group, value, written)
        except KeyError:
            self._put_back(groups)
            for group, value in zip(groups, values, strict=True):
                self._write(group, value, None)
        self._overridden_groups, self._overridden_last = groups, [*values]

    def _put_back(self, groups: Iterable[Group]) -> None:
        """Restore the key in groups from which something else has removed it."""
        key = self.field.key
        for group in groups:
            if key not in group:
                group[key] = self._members[id(group)].one.tensors.get(key, 0.0)
        # Groups now hold different values, some of them 0.
        for cohort in self._cohorts:
            cohort[2] = None

    def _write(self, group: Group, value: float, written: Any) -> None:
        """Write a value into a group that holds another object than our last float."""
        key = self.field.key
        found = group_fields.get(group, key)
        if found is None:
            raise removed(self._members[id(group)].one, key)
        if isinstance(found, torch.Tensor):
            # Compared by object and version, because reading a tensor would wait for its device.
            written = self._tensors.get(id(group))
            is_other = written is not None and (
                written[0] is not found or written[1] != version(found)
            )
            if is_other and not self._by_others:
                theirs = found.detach().clone()
                self._by_others.append(Written(self._members[id(group)].one, key, theirs, written))
            found.detach().fill_(value)
            self._tensors[id(group)] = found, version(found)
        else:
            # Also compared by value, because copies and pickles make new objects.
            is_other = type(written) is float and found is not written and found != written
            # A group that has lost its override still holds the value from the override.
            is_other = is_other and not any(found is last for last in self._overridden_last)
            if is_other and not self._by_others:
                self._by_others.append(Written(self._members[id(group)].one, key, found, written))
            group_fields.assign(group, key, value)

    def overridden_values(
        self,
        groups: Sequence[Group],
        position: int,
        value: float | None = None,
        between: Between | None = None,
    ) -> list[float]:
        """Return the values of groups that may have bounds or a multiplier.

        Args:
            groups: Groups of this row.
            position: Units completed.
            value: The curve's value at the position, if it is known.
            between: The curve between bounds at the position, if it is known.
        """
        _, upper, lower, multiplier_key = self._keys
        if value is None:
            value = self.curve(position)
        bounded = self._bounded
        if bounded is None and any(upper in group or lower in group for group in groups):
            bounded = self.between()
        high_value = low_value = math.nan  # within no bounds
        if bounded is not None:
            between = bounded.at(position) if between is None else between
            high_value, low_value = bounded.max_value, bounded.min_value
        is_simple = self._is_simple and (
            bounded is None or (bounded.end_share is None and bounded.factor == 1.0)
        )
        values = []
        for group in groups:  # subscripts, because .get takes twice as long
            try:
                high = group[upper] if upper in group else high_value  # noqa: SIM401
                low = group[lower] if lower in group else low_value  # noqa: SIM401
                multiplier = group[multiplier_key] if multiplier_key in group else 1.0  # noqa: SIM401
                # The fast case: valid floats need no further checks.
                if (
                    is_simple
                    and between is not None
                    and type(high) is type(low) is type(multiplier) is float
                    and 0.0 <= high <= MAX_RATE
                    and 0.0 <= low <= MAX_RATE
                    and 0.0 <= multiplier <= MAX_RATE
                    and (upper in group or lower in group)
                ):
                    values.append(between(high, low) * multiplier)
                else:
                    member = self._members[id(group)]
                    values.append(self._overridden_value(member, value, between))
            except ConfigError as error:
                raise ConfigError(f"{self._members[id(group)].one}: {error}") from error
        return values

    def values(self, position: int) -> list[tuple[int, float]]:
        """Return the place of each group, and the value that would be written."""
        groups = [member.one.group for member in self._members.values()]
        places = [member.one.place for member in self._members.values()]
        return list(zip(places, self.overridden_values(groups, position), strict=True))

    def between(self) -> Bounded:
        """Return the curve between bounds. It is built when a group first needs it."""
        if self._bounded is None:
            found = next(iter(self._members.values())).followed.bounded
            self._bounded = None if found is None else found()
        return cast("Bounded", self._bounded)

    def _overridden_value(self, member: Member, value: float, between: Between | None) -> float:
        """Return the value of a group by the first of bounds, multiplier and ratio that it has."""
        one, followed, ratio = member
        multiplier = multiplier_of(one, followed)
        bounds = None if followed.own is not None else self.bounds_of(one)
        if bounds is not None and between is not None:
            factor = 1.0 if multiplier is None else multiplier
            return between(*bounds) * (factor * followed.number)
        return value * ((ratio if multiplier is None else multiplier) * followed.number)

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


class PartRow(Row):
    """One part of a tuple, such as `betas[0]`, of several groups that follow one curve."""

    __slots__ = ()

    def fill(self, position: int) -> None:
        """Write the values at a position into the groups. Parts have no overrides."""
        value = self.curve(position)
        for cohort in self._cohorts:
            factor, groups, written = cohort
            cohort[2] = scaled = value * factor
            for group in groups:
                self._write(group, scaled, written)


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
    try:
        multiplier = multiplier_of(one, followed)
        row = row_of(member)
        bounds = None if followed.own is not None else row.bounds_of(one)
    except ConfigError as error:
        raise ConfigError(f"{one}: {error}") from error
    if bounds is not None:
        factor = (1.0 if multiplier is None else multiplier) * followed.number
        return row.between().highest(*bounds) * factor
    factor = ratio if multiplier is None else multiplier
    return followed.curve.max_value * (factor * followed.number)
