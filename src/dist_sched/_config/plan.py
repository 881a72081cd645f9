"""Plan: which curve every group follows for every field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dist_sched._curves.curve import Curve
from dist_sched._rules import listed
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Field:
    """A param-group key that is scheduled, and the keys by which a group changes its schedule."""

    key: str
    """Such as `lr`, or `betas[0]` for a part of a tuple."""
    high: str = ""
    """Key of a group's own upper bound; the name of a config entry too."""
    low: str = ""
    """Key of a group's own lower bound; the name of a config entry too."""
    multiplier: str = ""
    """Key of a factor that a group puts on the value."""
    has_bounds: bool = True
    """Whether the curve is one between bounds, so that a group may have others."""
    is_added: bool = False
    """Whether groups that lack the key are given it, as the seeds do; else they are passed over."""

    @property
    def is_weight(self) -> bool:
        """Whether it is the weight of a running mean, which must stay below 1."""
        return self.key.partition("[")[0] in {"betas", "momentum"}

    def overrides(self) -> list[str]:
        """Name the keys by which a group changes its schedule."""
        return [name for name in (self.high, self.low, self.multiplier) if name]

    def is_overridden(self, group: Mapping[str, object]) -> bool:
        """Tell whether a group has a bound or multiplier of its own."""
        return self.high in group or self.low in group or self.multiplier in group


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a rank's groups have."""

    names: frozenset[str]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What groups of some names have of their own, for one field."""

    pattern: str
    """Of the names, as `fnmatch` reads it."""
    field: str
    curve: Curve | None = None
    """Instead of the field's; it has no ratio then."""
    multiplier: float | None = None
    """Instead of the group's ratio."""
    follows: str = ""
    """The field whose schedule of the whole run, and not of these groups, the curve follows."""
    is_implied: bool = False
    """Whether it follows from something else that the group has: it yields, and keeps the ratio."""

    def matches(self, name: object) -> bool:
        """Tell whether a group's name is meant."""
        return isinstance(name, str) and fnmatchcase(name, self.pattern)

    @property
    def label(self) -> str:
        """What reports call it."""
        return f"groups[{self.pattern}].{self.field}"


def value_of(values: Mapping[str, float], label: str) -> float | None:
    """Give a value by its label: of named groups of which nothing is said, the field's.

    >>> value_of({"lr": 0.5, "groups[a].lr": 0.25}, "groups[b].lr")
    0.5
    """
    return values.get(label, values.get(label.rpartition("].")[2]))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which curve every group follows for every field."""

    fields: tuple[Field, ...]
    curves: tuple[Curve, ...]
    """One for each field, and then those of `own`."""
    own: tuple[Override, ...] = ()

    @classmethod
    def of(
        cls, fields: tuple[Field, ...], base: Iterable[Curve], own: Iterable[Override] = ()
    ) -> Plan:
        """Join the fields' curves and those that groups have of their own."""
        own = tuple(own)
        return cls(fields, (*base, *(one.curve for one in own if one.curve is not None)), own)

    def values(self, position: int) -> dict[str, float]:
        """Give the value of each field at a position, and of what named groups have, by label."""
        base = {
            field.key: curve(position)
            for field, curve in zip(self.fields, self.curves, strict=False)
        }
        curves = {one.label: one.curve for one in self.own if one.curve is not None}
        found = {
            label: curves[label](position) if label in curves else base[field]
            for label, field in {one.label: one.field for one in self.own}.items()
        }
        for one in self.own:
            found[one.label] *= 1.0 if one.multiplier is None else one.multiplier
        return {**base, **found}

    def jumps(self, before: Plan, position: int) -> list[str]:
        """Say which curves have another value at a position than they had in other plan."""
        held = before.values(position)
        return [
            f"{label} would jump from {held[label]!r} to {value!r} at position {position}, by "
            f"{value - held[label]:+g}"
            for label, value in self.values(position).items()
            if not math.isclose(value, held[label], rel_tol=1e-9, abs_tol=1e-300)
        ]

    def override_of(self, name: object, field: Field) -> Override | None:
        """Say what the groups of a name have of their own for a field.

        Raises:
            ConfigError: Two patterns are for it.
        """
        if not self.own:
            return None
        matching = [one for one in self.own if one.field == field.key and one.matches(name)]
        told = [one for one in matching if not one.is_implied] or matching
        if len(told) > 1:
            patterns = listed(one.pattern for one in told)
            raise ConfigError(f"groups: {patterns} are all for {field.key} of group {name!r}")
        return told[0] if told else None

    def of_group(self, name: object, place: int) -> tuple[int, float | None]:
        """Say which curve the groups of a name follow for the field at a place, and how.

        Returns:
            The index of the curve, and what multiplies it; None for the group's own ratio.
        """
        own = self.override_of(name, self.fields[place])
        if own is None:
            return place, None
        self._check_followed(name, own)
        curve = own.curve or self._implied(name, self.fields[place])
        index = next((at for at, found in enumerate(self.curves) if found is curve), place)
        if own.is_implied:
            return index, None
        return index, 1.0 if own.multiplier is None else own.multiplier

    def _check_followed(self, name: object, own: Override) -> None:
        """Make sure that what one pattern couples is no other pattern's to schedule."""
        for one in self.own:
            if one.field == own.follows and one.curve is not None and one.matches(name):
                raise ConfigError(
                    f"{own.label} follows {own.follows}, to which {one.label} gives group {name!r} "
                    "a schedule of its own: say both under one pattern"
                )

    def _implied(self, name: object, field: Field) -> Curve | None:
        """Give the curve that follows from what else the groups of a name have."""
        implied = (one for one in self.own if one.is_implied and one.field == field.key)
        return next((one.curve for one in implied if one.matches(name)), None)
