"""The plan: which curve every group follows for every field, what groups override, and extras."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from fnmatch import translate
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dist_sched._config.path import Path
from dist_sched._rules import MOST, joined, listed
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dist_sched._curves.curve import Bounded, Curve


@dataclass(frozen=True, slots=True)
class Field:
    """A param-group key that is scheduled, and the keys by which a group changes its schedule."""

    key: str
    """Such as `lr`, or `betas[0]` for a part of a tuple."""
    upper: str = ""
    """Key of a group's own upper bound; the name of a config entry too."""
    lower: str = ""
    """Key of a group's own lower bound; the name of a config entry too."""
    multiplier: str = ""
    """Key of a factor that a group puts on the value."""
    is_added: bool = False
    """Whether groups that lack the key get it, as upstream does; else they are left alone."""

    @property
    def is_weight(self) -> bool:
        """Whether it is the weight of a running mean, which must stay below 1."""
        return self.key.partition("[")[0] in {"betas", "momentum"}

    def override_keys(self) -> list[str]:
        """Return the keys by which a group changes its schedule."""
        return [name for name in (self.upper, self.lower, self.multiplier) if name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The names and fields that a rank's groups have."""

    names: frozenset[str]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What the groups of some names have instead of a field's schedule, or on top of it."""

    pattern: str
    """Of the names, as `fnmatch` reads it."""
    field: str
    curve: Curve | None = None
    """Instead of the field's."""
    bounded: Callable[[], Bounded] | None = None
    """Returns the curve as it goes between a group's bounds; None where these are passed over."""
    multiplier: float | None = None
    """On top of what the group would have without it."""
    follows: str = ""
    """The field whose schedule of the whole run, and not of these groups, the curve follows."""
    is_implied: bool = False
    """Whether it follows from another override of these groups: it yields, and keeps ratios."""

    def matches(self, name: object) -> bool:
        """Return whether a group of this name is meant."""
        return isinstance(name, str) and _matcher(self.pattern)(name) is not None

    @property
    def path(self) -> Path:
        """What reports call it."""
        return Path(self.field, pattern=self.pattern)


_WILDCARD = re.compile(r"[*?\[]")


@cache
def _matcher(pattern: str) -> Callable[[str], object]:
    # Not fnmatch, which ignores case on Windows: ranks and machines must agree. Nor fnmatchcase,
    # which compiles anew where there are more patterns than it keeps.
    return re.compile(translate(pattern)).match


class Followed(NamedTuple):
    """What the groups of a name follow for a field."""

    field: Field
    curve: Curve
    bounded: Callable[[], Bounded] | None
    """Returns the curve as it goes between a group's bounds; None where these are passed over."""
    number: float
    """What a number of `groups=` multiplies by; 1 where there is none."""
    own: Override | None
    """The schedule of `groups=` that these groups have; None where they have none."""
    pattern: str = ""
    """Of the override, if there is one."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which curve every group follows for every field, and the curves that no group has."""

    fields: tuple[Field, ...]
    curves: tuple[Curve, ...]
    """One for each field, and then those of the overrides."""
    bounded: tuple[Callable[[], Bounded] | None, ...]
    """For each field, what returns its curve between a group's bounds; few groups have any."""
    overrides: tuple[Override, ...] = ()
    follows_first: bool = False
    """Whether ratios are to the first group, as in NeMo; else to the one that has the peak."""
    extras: Mapping[str, Curve] = dataclass_field(default_factory=dict)
    """By name, apart from the fields, so that nothing looks for them in groups."""
    _known: dict[tuple[str, int], Followed] = dataclass_field(default_factory=dict, repr=False)
    """What groups of a name follow, once it was asked for: each group asks several times."""
    _by_beginning: dict[str, list[int]] = dataclass_field(default_factory=dict, repr=False)
    """The overrides' indices by what their patterns begin with, up to the first wildcard."""

    def __post_init__(self) -> None:
        for index, one in enumerate(self.overrides):
            beginning = _WILDCARD.split(one.pattern, maxsplit=1)[0]
            self._by_beginning.setdefault(beginning, []).append(index)

    @classmethod
    def of(
        cls,
        fields: tuple[Field, ...],
        base: Iterable[Curve],
        overrides: Iterable[Override] = (),
        bounded: Iterable[Callable[[], Bounded] | None] = (),
        *,
        follows_first: bool = False,
        extras: Mapping[str, Curve] | None = None,
    ) -> Plan:
        """Build a plan from the fields' curves, the overrides and the curves of extras."""
        overrides = tuple(overrides)
        # One tuple of all curves, so that the writer evaluates each once a step.
        own = (one.curve for one in overrides if one.curve is not None)
        bounded = tuple(bounded) or (None,) * len(fields)
        return cls(fields, (*base, *own), bounded, overrides, follows_first, extras or {})

    def values(self, position: int) -> dict[Path, float]:
        """Return the value of each field, extra and override at a position, without ratios."""
        values = {
            Path(field.key): curve(position)
            for field, curve in zip(self.fields, self.curves, strict=False)
        }
        values |= {Path(name): value for name, value in self.extra_values(position).items()}
        for one in self.overrides:
            if one.curve is not None:
                values[one.path] = one.curve(position)
            else:
                values.setdefault(one.path, values[one.path.base])
        # Last, since a multiplier and a curve that is implied may have the same path.
        for one in self.overrides:
            if one.multiplier is not None:
                values[one.path] *= one.multiplier
        return values

    def extra_values(self, position: int) -> dict[str, float]:
        """Return the value of each extra at a position."""
        return {name: curve(position) for name, curve in self.extras.items()}

    def jumps(self, before: Plan, position: int) -> str:
        """Say which values another plan had differently at a position; an empty text for none."""
        old = before.values(position)
        # A cut phase may round otherwise in its last bit, which is no jump.
        found = [
            f"{path} would jump from {old[path]!r} to {value!r} at position {position}, by "
            f"{value - old[path]:+g}"
            for path, value in self.values(position).items()
            if not math.isclose(value, old[path], rel_tol=1e-9, abs_tol=1e-300)
        ]
        return joined(found, "; ", most=MOST)

    def matching(self, name: object) -> list[Override]:
        """Return the overrides for the groups of a name, in order."""
        if not isinstance(name, str):
            return []
        # By their beginnings, since thousands of patterns times thousands of names take seconds.
        ends = range(len(name) + 1)
        found = sorted(index for end in ends for index in self._by_beginning.get(name[:end], ()))
        return [one for index in found if (one := self.overrides[index]).matches(name)]

    def unmatched(self, names: Iterable[str]) -> list[Override]:
        """Return the overrides that are for none of these names."""
        used = {id(one) for name in names for one in self.matching(name)}
        return [one for one in self.overrides if id(one) not in used]

    def override_of(self, name: object, field: Field) -> Override | None:
        """Return what the groups of a name override for a field.

        Raises:
            ConfigError: Two patterns are for it.
        """
        matching = [one for one in self.matching(name) if one.field == field.key]
        explicit = [one for one in matching if not one.is_implied] or matching
        if len(explicit) > 1:
            patterns = listed(one.pattern for one in explicit)
            raise ConfigError(f"groups: {patterns} are all for {field.key} of group {name!r}")
        return explicit[0] if explicit else None

    def followed(self, name: object, index: int) -> Followed:
        """Return what the groups of a name follow for the field at an index.

        Raises:
            ConfigError: Two patterns are for it, or two that depend on each other match the name.
        """
        if not isinstance(name, str):
            return self._find_followed(name, index)
        if (name, index) not in self._known:
            self._known[name, index] = self._find_followed(name, index)
        return self._known[name, index]

    def _find_followed(self, name: object, index: int) -> Followed:
        field, base, bounded = self.fields[index], self.curves[index], self.bounded[index]
        found = self.override_of(name, field)
        if found is None:
            return Followed(field, base, bounded, 1.0, None)
        theirs = self.matching(name)
        for one in theirs:
            if one.field == found.follows and one.curve is not None:
                raise ConfigError(
                    f"{found.path} follows {found.follows}, which {one.path} schedules for group "
                    f"{name!r}: put both under one pattern"
                )
        if found.curve is not None and not found.is_implied:
            return Followed(field, found.curve, None, 1.0, found, found.pattern)
        # A multiplier acts on what the field is in this group, which another pattern may imply.
        implied = next((one for one in theirs if one.is_implied and one.field == field.key), None)
        number = 1.0 if found.multiplier is None else found.multiplier
        if implied is None or implied.curve is None:
            return Followed(field, base, bounded, number, None, found.pattern)
        return Followed(field, implied.curve, implied.bounded, number, None, found.pattern)


def value_at(values: Mapping[Path, float], path: Path) -> float | None:
    """Return a value of `Plan.values`; of groups without an override, the field's.

    >>> value_at({Path("lr"): 0.5}, Path("lr", pattern="embed"))
    0.5
    """
    return values.get(path, values.get(path.base))
