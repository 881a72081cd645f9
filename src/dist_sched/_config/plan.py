"""The plan: the curve of every group and field, the overrides of groups, and the extras."""

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
    """A param-group key that is scheduled, and the group keys that change its schedule."""

    key: str
    """Such as `lr`, or `betas[0]` for a part of a tuple."""
    upper: str = ""
    """Group key of the upper bound, which is also the name of a config entry."""
    lower: str = ""
    """Group key of the lower bound, which is also the name of a config entry."""
    multiplier: str = ""
    """Group key of a multiplier."""
    is_added: bool = False
    """Whether groups that lack the field get it, as upstream does. Otherwise they are skipped."""

    @property
    def is_weight(self) -> bool:
        """Whether it is the weight of a running mean, which must stay below 1."""
        return self.key.partition("[")[0] in {"betas", "momentum"}

    def override_keys(self) -> list[str]:
        """Return the group keys that change the schedule."""
        return [name for name in (self.upper, self.lower, self.multiplier) if name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The names and fields of a rank's groups."""

    names: frozenset[str]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A schedule or a multiplier for the groups whose names match a pattern."""

    pattern: str
    """Pattern of group names, as `fnmatch` reads it."""
    field: str
    curve: Curve | None = None
    """The curve that replaces the field's."""
    bounded: Callable[[], Bounded] | None = None
    """Returns the curve between a group's bounds. None if bounds are ignored."""
    multiplier: float | None = None
    """The factor that multiplies the value."""
    follows: str = ""
    """The field whose schedule for the whole run the curve follows, if these groups have none."""
    is_implied: bool = False
    """Whether another override of these groups implies it. Ratios then still apply, and an
    explicit override has precedence."""

    def matches(self, name: object) -> bool:
        """Return whether the pattern matches a group's name."""
        return isinstance(name, str) and _matcher(self.pattern)(name) is not None

    @property
    def path(self) -> Path:
        """The path of the override in reports."""
        return Path(self.field, pattern=self.pattern)


_WILDCARD = re.compile(r"[*?\[]")


@cache
def _matcher(pattern: str) -> Callable[[str], object]:
    # fnmatch ignores case on Windows, and fnmatchcase caches too few patterns.
    return re.compile(translate(pattern)).match


class Followed(NamedTuple):
    """The curve and the multiplier of a field for the groups of one name."""

    field: Field
    curve: Curve
    bounded: Callable[[], Bounded] | None
    """Returns the curve between a group's bounds. None if bounds are ignored."""
    number: float
    """The multiplier of `groups=`, or 1."""
    own: Override | None
    """The override of `groups=` that is a schedule, if there is one."""
    pattern: str = ""
    """The pattern of the override, if there is one."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The curve of every field for every group, and the curves of extras."""

    fields: tuple[Field, ...]
    curves: tuple[Curve, ...]
    """The curves of the fields, then the curves of the overrides."""
    bounded: tuple[Callable[[], Bounded] | None, ...]
    """For each field, a function that returns its curve between a group's bounds."""
    overrides: tuple[Override, ...] = ()
    follows_first: bool = False
    """Whether the reference is the first group, as in NeMo. Else it is the group with the peak."""
    extras: Mapping[str, Curve] = dataclass_field(default_factory=dict)
    """The curves of extras, by name."""
    _known: dict[tuple[str | None, int], Followed] = dataclass_field(
        default_factory=dict, repr=False
    )
    """Earlier results of `followed`, which every group needs several times."""
    _by_beginning: dict[str, list[int]] = dataclass_field(default_factory=dict, repr=False)
    """Indices of the overrides, by the part of the pattern before its first wildcard."""

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
        """Build a plan from the curves of fields, overrides and extras."""
        overrides = tuple(overrides)
        # One tuple of all curves, so that the writer evaluates each curve once a step.
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
        # Last, because a multiplier and an implied curve may have the same path.
        for one in self.overrides:
            if one.multiplier is not None:
                values[one.path] *= one.multiplier
        return values

    def extra_values(self, position: int) -> dict[str, float]:
        """Return the value of each extra at a position."""
        return {name: curve(position) for name, curve in self.extras.items()}

    def jumps(self, before: Plan, position: int) -> str:
        """Return a text about the values that differ from another plan's at a position, or ""."""
        old = before.values(position)
        # A cut phase may round differently in its last bit, which is not a jump.
        found = [
            f"{path} would jump from {old[path]!r} to {value!r} at position {position} "
            f"({value - old[path]:+g})"
            for path, value in self.values(position).items()
            if not math.isclose(value, old[path], rel_tol=1e-9, abs_tol=1e-300)
        ]
        return joined(found, "; ", most=MOST)

    def matching(self, name: object) -> list[Override]:
        """Return the overrides for the groups of a name, in order."""
        if not isinstance(name, str):
            return []
        # Looked up by prefix: thousands of patterns times thousands of names would take seconds.
        ends = range(len(name) + 1)
        found = sorted(index for end in ends for index in self._by_beginning.get(name[:end], ()))
        return [one for index in found if (one := self.overrides[index]).matches(name)]

    def unmatched(self, names: Iterable[str]) -> list[Override]:
        """Return the overrides that match no name."""
        used = {id(one) for name in names for one in self.matching(name)}
        return [one for one in self.overrides if id(one) not in used]

    def override_of(self, name: object, field: Field) -> Override | None:
        """Return the override of a field for the groups of a name, if there is one.

        Raises:
            ConfigError: Several patterns match.
        """
        matching = [one for one in self.matching(name) if one.field == field.key]
        explicit = [one for one in matching if not one.is_implied] or matching
        if len(explicit) > 1:
            patterns = listed(one.pattern for one in explicit)
            raise ConfigError(
                f"groups: the patterns {patterns} all set {field.key} of group {name!r}; change "
                "them so that only one matches"
            )
        return explicit[0] if explicit else None

    def followed(self, name: object, index: int) -> Followed:
        """Return the curve and the multiplier of a field for the groups of a name.

        Raises:
            ConfigError: Several patterns set the field, or one pattern depends on another one.
        """
        known = name if isinstance(name, str) else None, index
        if known not in self._known:
            self._known[known] = self._find_followed(*known)
        return self._known[known]

    def _find_followed(self, name: str | None, index: int) -> Followed:
        field, base, bounded = self.fields[index], self.curves[index], self.bounded[index]
        found = self.override_of(name, field)
        if found is None:
            return Followed(field, base, bounded, 1.0, None)
        theirs = self.matching(name)
        for one in theirs:
            if one.field == found.follows and one.curve is not None:
                raise ConfigError(
                    f"{found.path} follows {found.follows}, but {one.path} has another schedule "
                    f"for it in group {name!r}; put both under one pattern"
                )
        if found.curve is not None and not found.is_implied:
            return Followed(field, found.curve, None, 1.0, found, found.pattern)
        # A multiplier applies to the group's curve, which another pattern may imply.
        implied = next((one for one in theirs if one.is_implied and one.field == field.key), None)
        number = 1.0 if found.multiplier is None else found.multiplier
        if implied is None or implied.curve is None:
            return Followed(field, base, bounded, number, None, found.pattern)
        return Followed(field, implied.curve, implied.bounded, number, None, found.pattern)


def value_at(values: Mapping[Path, float], path: Path) -> float | None:
    """Return a value of `Plan.values`, or the field's value if there is no override.

    Examples:
        >>> value_at({Path("lr"): 0.5}, Path("lr", pattern="embed"))
        0.5
    """
    return values.get(path, values.get(path.base))
