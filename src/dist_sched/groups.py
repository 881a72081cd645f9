"""Param groups: the only code that reads or writes them.

What a group had when the scheduler was built (its own value of each field, its own tensors) is
remembered here, never in the group: DCP refuses to load a checkpoint that lacks a key which the
current groups have.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import weakref
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.optim import Optimizer

from dist_sched.errors import ConfigError
from dist_sched.policies import CONFIG, Policy
from dist_sched.rules import listed, near_miss, rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dist_sched.courses import Courses, Field
    from dist_sched.curves import Blend, Curve

logger = logging.getLogger("dist_sched")

_INFINITY = float("inf")

_BLOCK = 256
"""Groups that are written for every field before the next: they stay in the processor's cache."""

_PART = re.compile(r"(.+)\[(\d+)\]")

Group = dict[str, Any]
Cohorts = list[tuple[float, list[Group]]]

_ALIASES = {
    "momentum": "betas[0]",
    "betas[0]": "momentum",
    "beta1": "betas[0]",
    "beta2": "betas[1]",
    "betas": "betas[0]",
    "learning_rate": "lr",
    "wd": "weight_decay",
}
"""What people call a field that an optimizer has under another name."""
_BELOW_ONE = frozenset({"betas", "momentum"})
"""Fields that are weights of a running mean."""


@dataclass(slots=True, eq=False)
class Member:
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


class _Followed(NamedTuple):
    """What a group follows for one field."""

    field: Field
    curve: int
    """Index among the courses' curves."""
    factor: float


@dataclass(frozen=True, slots=True)
class _Memory:
    """What schedulers on one optimizer saw before they changed it, and what they measure against.

    Parameters are held weakly: one may refer to its optimizer, and would keep it alive from here.
    """

    members: list[tuple[Member, int, list[weakref.ref[Any]]]]
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


class Groups:
    """The param groups of some optimizers, and the values that curves give them.

    Raises:
        ConfigError: A group has an illegal value, bound or multiplier, or its ratios are lost.
            Nothing has been changed then.
    """

    def __init__(self, optimizer: Any, courses: Courses, *, keep_ratios: bool) -> None:
        self._turn_to(optimizer)
        self.fields = courses.fields
        self.keep_ratios = keep_ratios
        recalled, known = self._recall()
        self.members = self._recognise(recalled)
        measured = {field.key: self._reference(field.key) for field in self.fields}
        self.references = {**measured, **known}
        self._refuse_lost_ratios(courses, known={member.source for member in recalled})
        self.check(courses)
        self._plan(courses)
        self.values(0, courses)
        self._own_tensors(recalled)
        self._remember()

    def _recall(self) -> tuple[list[Member], dict[str, float | None]]:
        """Give the members and references that an earlier scheduler left with the optimizers."""
        members: list[Member] = []
        references: dict[str, float | None] = {}
        for source, optimizer in enumerate(self.optimizers()):
            memory = _memory_of(optimizer)
            if memory is not None:
                members += _recalled(memory, optimizer, source)
                references = {**memory.references, **references}
        return members, references

    def _remember(self) -> None:
        """Leave members and references with the optimizers, for a later scheduler."""
        by_source: dict[int, list[Member]] = {}
        for member in self.members:
            by_source.setdefault(member.source, []).append(member)
        for source, optimizer in enumerate(self.optimizers()):
            _remember(optimizer, by_source.get(source, []), self.references)

    def follow(self, optimizer: Any) -> None:
        """Turn to another optimizer; groups with the same parameters keep their ratios.

        Raises:
            ConfigError: It is none, or one of its groups is illegal. Nothing has changed then.
        """
        sources, members = self.sources, self.members
        self._turn_to(optimizer)
        try:
            self._bind()
            self.values(0, self._courses)
        except ConfigError:
            self._turn_to(sources)
            self.members = members
            self._plan(self._courses)
            raise

    def _turn_to(self, optimizer: Any) -> None:
        self.sources = as_sources(optimizer)
        self._sole = self.sources[0] if self.optimizers() == self.sources[:1] else None

    def optimizers(self) -> list[Any]:
        """Give the optimizers that are stepped, without what wraps them."""
        return [leaf for source in self.sources for leaf in innermost(source)]

    def write(self, position: int, courses: Courses) -> None:  # noqa: C901, PLR0912 - the hot loop
        """Give every group its values at a position.

        Raises:
            ConfigError: A group has an illegal bound or multiplier. Groups that have none may
                have been written by then.
        """
        self._refresh()
        if courses is not self._courses:
            self._plan(courses)
        curves = courses.curves
        evaluated = []
        for curve in curves:
            blend, argument = curve.at(position)
            evaluated.append((blend, argument, blend(argument, curve.high, curve.low)))
        special = []
        for index, field, high, low, multiplier, key, cohorts in self._rows:
            blend, argument, value = evaluated[index]
            overridden = []
            for ratio, groups in cohorts:
                scaled = value * ratio
                for group in groups:
                    if high in group or low in group or multiplier in group:
                        overridden.append(group)
                    elif type(group[key]) is float:
                        group[key] = scaled
                    else:
                        _put(group, key, scaled)
            if overridden:
                values = self._special_values(overridden, field, curves[index], blend, argument)
                special.append((key, overridden, values))
        for key, overridden, values in special:
            for group, own in zip(overridden, values, strict=True):
                if type(group[key]) is float:
                    group[key] = own
                else:
                    _put(group, key, own)
        for index, key, cohorts in self._part_rows:
            for ratio, groups in cohorts:
                for group in groups:
                    _put(group, key, evaluated[index][2] * ratio)

    def values(self, position: int, courses: Courses) -> list[dict[str, float]]:
        """Give what `write` would write, by field key, for each group.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        self._refresh()
        evaluated = _evaluated(position, courses)
        return [
            {
                field.key: self._value(member.group, field, ratio, *evaluated[index])
                for field, index, ratio in self._followed(member, courses)
            }
            for member in self.members
        ]

    def held(self, key: str, position: int, courses: Courses) -> list[float]:
        """Give one field of every group: what `write` would write, or else what it holds."""
        return [
            values[key] if key in values else _plain(_get(member.group, key))
            for values, member in zip(self.values(position, courses), self.members, strict=True)
        ]

    def bounded(self, group: Group, key: str, position: int, courses: Courses) -> float:
        """Give one field's curve under a group's bounds, without its ratio and multiplier."""
        index = [field.key for field in self.fields].index(key)
        field, curve = self.fields[index], courses.curves[index]
        bounds = {name: group[name] for name in (field.high, field.low) if name in group}
        return self._special_values([bounds], field, curve, *curve.at(position))[0]

    def check(self, courses: Courses) -> None:
        """Make sure that the groups have what is scheduled, and can be given it.

        Raises:
            ConfigError: No group has a field, no or two patterns match, a group has a multiplier
                twice, or a mean's weight would reach 1.
        """
        if not self.members:
            return
        for field in courses.fields:
            if not (
                field.is_added or any(_own(one, field.key) is not None for one in self.members)
            ):
                raise ConfigError(self._missing(field.key))
        names = [member.name for member in self.members]
        for own in courses.own:
            if not any(own.matches(name) for name in names):
                has = listed(dict.fromkeys(name for name in names if isinstance(name, str)))
                raise ConfigError(
                    f"{own.label}: no group's name matches {own.pattern!r}; "
                    f"the groups are named {has or 'nothing'}"
                )
        for member in self.members:
            self._check_member(member, courses)

    def _missing(self, key: str) -> str:
        """Say that no group has a field, and what groups have."""
        has = dict.fromkeys(key for member in self.members for key in _fields_of(member.group))
        alias = _ALIASES.get(key)
        close = f"; did you mean {alias!r}?" if alias in has else near_miss(key, has)
        return f"{key}: no group of the optimizer has this field{close} (they have {listed(has)})"

    def _check_member(self, member: Member, courses: Courses) -> None:
        for field, index, ratio in self._followed(member, courses):
            _refuse_second_multiplier(member, field, courses)
            highest = courses.curves[index].high * ratio
            if _split(field.key)[0] in _BELOW_ONE and highest >= 1:
                raise ConfigError(
                    f"{member}: {field.key} would reach {highest!r} (its ratio to the first group "
                    f"is {ratio!r}), and must be below 1: lower the schedule, or give the group "
                    "one of its own"
                )

    def expect_load(self, optimizer: Optimizer, saved: Sequence[Group]) -> None:
        """Note what a group has just before its optimizer is loaded, and what the load carries.

        Args:
            optimizer: The optimizer that is about to be loaded.
            saved: The param groups of its checkpoint.
        """
        self._refresh()
        keys = [*self._override_names(), *(field.key for field in self.fields)]
        for member in self._members_of(optimizer):
            member.tensors = _tensors(member.group, self.fields)
            member.overrides = {
                name: member.group[name] for name in self._override_names() if name in member.group
            }
            group = saved[member.index] if member.index < len(saved) else {}
            carried = {key: _get(group, key) for key in keys}
            member.carried = {
                key: _copied(found) for key, found in carried.items() if found is not None
            }

    def settle_overrides(self, optimizer: Optimizer, policy: Policy) -> list[str]:
        """Settle by policy the bounds and multipliers that an optimizer's load brought.

        Returns:
            A line for each difference.
        """
        self._bind(loaded=optimizer)
        return [
            line
            for member in self._members_of(optimizer)
            for name in self._override_names()
            if (line := _settle_override(member, name, policy.word(name)))
        ]

    def put_back_overrides(self, optimizer: Optimizer) -> None:
        """Give the groups the bounds and multipliers that they had before the load."""
        for member in self._members_of(optimizer):
            for name in self._override_names():
                _set_or_drop(member.group, name, member.overrides)

    def carried_differences(self, position: int, courses: Courses) -> list[str]:
        """Say where a loaded optimizer carried other values than curves have at a position."""
        self._refresh()
        evaluated = _evaluated(position, courses)
        return [
            f"{member}: the optimizer checkpoint carried {field.key}={_plain(found)!r}, where the "
            f"scheduler's checkpoint has {value!r} at position {position}"
            for member in self.members
            for field, index, ratio in self._followed(member, courses)
            if (found := member.carried.get(field.key)) is not None
            and not _holds(
                found,
                value := self._value(member.carried, field, ratio, *evaluated[index]),
                rel_tol=1e-6,
            )
        ]

    def forget_carried(self) -> None:
        """Drop what loaded optimizers carried, once it was compared."""
        for member in self.members:
            member.carried = {}

    def wrong_values(self, position: int, courses: Courses) -> list[str]:
        """Read every group back, and say where it holds something else than it should."""
        expected = self.values(position, courses)
        return [
            f"{member}: {key} holds {_plain(_get(member.group, key))!r} and should hold {value!r}"
            for member, values in zip(self.members, expected, strict=True)
            for key, value in values.items()
            if not _holds(_get(member.group, key), value)
        ]

    def measure_against(self, references: dict[str, float | None], *, keep_ratios: bool) -> None:
        """Measure the ratios anew, such as against another rank's references."""
        self.references = references
        self.keep_ratios = keep_ratios
        self._remember()
        self._plan(self._courses)

    def _override_names(self) -> list[str]:
        return [name for field in self.fields for name in field.overrides()]

    def _followed(self, member: Member, courses: Courses) -> Iterator[_Followed]:
        """Give what a group follows, for each field that it has."""
        for place, field in enumerate(courses.fields):
            if field.is_added or _own(member, field.key) is not None:
                curve, multiplier = courses.of_group(member.name, place)
                ratio = self._ratio(member, field.key) if multiplier is None else multiplier
                yield _Followed(field, curve, ratio)

    def _members_of(self, optimizer: Optimizer) -> list[Member]:
        optimizers = self.optimizers()
        return [member for member in self.members if optimizers[member.source] is optimizer]

    def _refresh(self) -> None:
        """Take up the optimizers' present groups, where they are not those already known."""
        if self._sole is not None:
            groups = self._sole.param_groups
        else:
            groups = [group for leaf in self.optimizers() for group in leaf.param_groups]
        known = self._known
        if len(groups) != len(known) or not all(map(is_, groups, known)):
            self._bind()

    def _bind(self, loaded: Optimizer | None = None) -> None:
        previous = self.members
        members = self._recognise(previous)
        known = {id(member.own) for member in previous}
        late = [member for member in members if id(member.own) not in known]
        for member in late:
            self._check_member(member, self._courses)
        self.members = members
        self._own_tensors(previous, loaded)
        self._plan(self._courses)
        self._remember()
        self._name_zeros(late)

    def _name_zeros(self, late: list[Member]) -> None:
        """Warn of a late group with a ratio of 0: perhaps it was read in a warmup's first step."""
        for member in late:
            followed = self._followed(member, self._courses)
            zeros = [field.key for field, _, ratio in followed if ratio == 0]
            if zeros:
                logger.warning(
                    "%s was added with %s=0, and stays at 0", member, "=0 and ".join(zeros)
                )

    def _plan(self, courses: Courses) -> None:
        """Sort the groups by curve and ratio, so that those of one ratio share a multiplication."""
        if courses.fields != self.fields:  # another rank's, or a checkpoint's
            self.fields = courses.fields
            self._own_tensors(self.members)
        rows, part_rows = [], []
        for start in range(0, len(self.members), _BLOCK):
            members = self.members[start : start + _BLOCK]
            for (field, index), cohorts in self._cohorts(members, courses).items():
                if _split(field.key)[1] is None:
                    keys = field.high, field.low, field.multiplier, field.key
                    rows.append((index, field, *keys, cohorts))
                else:
                    part_rows.append((index, field.key, cohorts))
        self._courses, self._rows, self._part_rows = courses, rows, part_rows
        self._known = [member.group for member in self.members]

    def _cohorts(self, members: list[Member], courses: Courses) -> dict[tuple[Field, int], Cohorts]:
        """Sort members by field and curve, and then by ratio."""
        found: dict[tuple[Field, int], dict[float, list[Group]]] = {}
        for member in members:
            for field, index, ratio in self._followed(member, courses):
                found.setdefault((field, index), {}).setdefault(ratio, []).append(member.group)
        return {
            place: list(cohorts.items())
            for place, cohorts in sorted(found.items(), key=lambda pair: pair[0][1])
        }

    def _recognise(self, previous: list[Member]) -> list[Member]:
        """Find each present group among the previous members, or measure it as a new one."""
        recogniser = _Recogniser(previous)
        members = []
        for source, optimizer in enumerate(self.optimizers()):
            for index, group in enumerate(optimizer.param_groups):
                known = recogniser.find(source, index, group)
                member = known or Member(
                    group, source, index, group.get("name"), tensors=_tensors(group, self.fields)
                )
                members.append(replace(member, group=group, source=source, index=index))
        for member in members:
            for field in self.fields:
                _own(member, field.key)
        return members

    def _own_tensors(self, previous: list[Member], loaded: Optimizer | None = None) -> None:
        """Give each group tensors of its own: the script's, where a load has replaced them."""
        optimizers = self.optimizers()
        known = {id(member.group) for member in previous}
        for member in self.members:
            if id(member.group) not in known or optimizers[member.source] is loaded:
                _put_back_tensors(member, self.fields)
        holders = [member.group for member in self.members]
        defaults = (getattr(optimizer, "defaults", None) for optimizer in optimizers)
        holders += [holder for holder in defaults if isinstance(holder, dict)]
        for field in self.fields:
            _unshare(holders, field.key)
        for member in self.members:
            member.tensors = _tensors(member.group, self.fields)

    def _reference(self, key: str) -> float | None:
        return next((own for member in self.members if (own := _own(member, key))), None)

    def _ratio(self, member: Member, key: str) -> float:
        if key not in self.references:
            self.references[key] = self._reference(key)
        own, reference = _own(member, key), self.references[key]
        if not self.keep_ratios or own is None or reference is None:
            return 1.0
        if math.isinf(own / reference):
            raise ConfigError(f"{member}: {key}={own!r} is too large a multiple of {reference!r}")
        return own / reference

    def _value(
        self, group: Group, field: Field, ratio: float, curve: Curve, blend: Blend, argument: float
    ) -> float:
        """Give a field's value under the bounds and multipliers that a dict has, or a ratio."""
        if field.is_overridden(group):
            return self._special_values([group], field, curve, blend, argument)[0]
        return blend(argument, curve.high, curve.low) * ratio

    def _special_values(
        self, groups: list[Group], field: Field, curve: Curve, blend: Blend, argument: float
    ) -> list[float]:
        """Give a field's value for groups that have bounds or a multiplier of their own."""
        if self._courses.own:
            self._refuse_second_multipliers(groups, field)
        high_key, low_key, multiplier_key = field.high, field.low, field.multiplier
        curve_high, curve_low = curve.high, curve.low
        has_bounds = field.has_bounds
        values = []
        for group in groups:  # subscripts, because .get takes twice as long
            high = group[high_key] if high_key in group else curve_high  # noqa: SIM401
            low = group[low_key] if low_key in group else curve_low  # noqa: SIM401
            multiplier = group[multiplier_key] if multiplier_key in group else 1.0  # noqa: SIM401
            try:
                if not has_bounds:
                    _refuse_bounds(group, field)
                if not (
                    type(high) is type(low) is type(multiplier) is float
                    and 0.0 <= high < _INFINITY
                    and 0.0 <= low < _INFINITY
                    and 0.0 <= multiplier < _INFINITY
                ):
                    high, low = rate(high_key, high), rate(low_key, low)
                    multiplier = rate(multiplier_key, multiplier)
                values.append(blend(argument, high, low) * multiplier)
            except ConfigError as error:
                raise ConfigError(f"{self._name(group)}: {error}") from error
        return values

    def _refuse_second_multipliers(self, groups: list[Group], field: Field) -> None:
        meant = {id(group) for group in groups}
        for member in self.members:
            if id(member.group) in meant:
                _refuse_second_multiplier(member, field, self._courses)

    def _name(self, group: Group) -> str:
        return next(
            (str(member) for member in self.members if member.group is group), "param group"
        )

    def _refuse_lost_ratios(self, courses: Courses, known: set[int]) -> None:
        """Say which ratios were read from an optimizer that was loaded before; refuse zeros."""
        loaded = [
            source
            for source, optimizer in enumerate(self.optimizers())
            if source not in known and _was_used(optimizer)
        ]
        if not (loaded and self.keep_ratios and len(self.members) > 1):
            return
        for place, field in enumerate(self.fields):
            having = [member for member in self.members if self._has_ratio(member, field, courses)]
            is_needed = courses.curves[place].high > 0 and bool(having)
            if is_needed and all(member.own[field.key] == 0 for member in self.members):
                way = repr(field.multiplier) if field.multiplier else "a schedule of its own"
                raise ConfigError(
                    f"every group's {field.key} is 0 in an optimizer that was loaded (or stepped) "
                    "before the scheduler was built, so the ratios between the groups are lost: "
                    f"build the scheduler first, or give each group {way}"
                )
            logger.warning(
                "the optimizer was loaded (or stepped) before the scheduler was built: the ratios "
                "of its groups are those of the values that it then had: %s %s",
                field.key,
                [self._ratio(member, field.key) for member in self.members],
            )

    def _has_ratio(self, member: Member, field: Field, courses: Courses) -> bool:
        """Tell whether a group has neither bounds, nor a multiplier, nor a curve of its own."""
        own = courses.own_of(member.name, field)
        is_ratio = own is None or own.is_implied
        return is_ratio and not field.is_overridden(member.group)


class _Recogniser:
    """Finds the member that a present group was before: the same dict, or the same parameters.

    A group without parameters is recognised by its place.
    """

    def __init__(self, previous: list[Member]) -> None:
        self._by_group = {id(member.group): member for member in previous}
        self._by_param = {
            id(param): member for member in previous for param in _params(member.group)
        }
        self._by_place = {
            (member.source, member.index): member
            for member in previous
            if not _params(member.group)
        }

    def find(self, source: int, index: int, group: Group) -> Member | None:
        if id(group) in self._by_group:
            return self._by_group[id(group)]
        params = _params(group)
        if not params:
            return self._by_place.get((source, index))
        return next(filter(None, (self._by_param.get(id(param)) for param in params)), None)


def _refuse_bounds(group: Group, field: Field) -> None:
    for key in (field.high, field.low):
        if key in group:
            raise ConfigError(
                f"{key}={group[key]!r}: bounds of a group mean nothing to phases: give the group a "
                f"schedule of its own (groups=), or {field.multiplier!r}"
            )


def _refuse_second_multiplier(member: Member, field: Field, courses: Courses) -> None:
    own = courses.own_of(member.name, field)
    if own is not None and own.multiplier is not None and field.multiplier in member.group:
        raise ConfigError(
            f"{member}: has {field.multiplier!r}, and {own.label} says another multiplier: "
            "remove one of them"
        )


def _params(group: Group) -> Sequence[Any]:
    params: Sequence[Any] = group.get("params", ())
    return params


def _memory_of(optimizer: Any) -> _Memory | None:
    try:
        return _MEMORIES.get(optimizer)
    except TypeError:  # neither hashable nor weakly referable, which only stand-ins are
        return None


def _recalled(memory: _Memory, optimizer: Any, source: int) -> list[Member]:
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


def _remember(optimizer: Any, members: list[Member], references: dict[str, float | None]) -> None:
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


def _was_used(optimizer: Any) -> bool:
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


def _own(member: Member, key: str) -> float | None:
    """Give what a group had when it was first asked for a field; None where it had none."""
    if key not in member.own:
        member.own[key] = _own_value(member, key)
    return member.own[key]


def _own_value(member: Member, key: str) -> float | None:
    """Read the value that a group was built with."""
    found = _get(member.group, key)
    try:
        if isinstance(found, torch.Tensor):
            found = _declared(key, found)
        is_whole = isinstance(found, tuple | list)  # its parts can be scheduled
        return None if found is None or is_whole else rate(key, found)
    except ConfigError as error:
        raise ConfigError(f"{member}: {error}") from error


def _declared(key: str, tensor: torch.Tensor) -> float:
    """Give the shortest decimal that a tensor's dtype rounds to the value that it holds.

    This is what the script wrote: 0.001, not the 0.0010000000474974513 that float32 makes of it.
    Ratios are then the same as with floats.
    """
    if tensor.numel() != 1 or not tensor.is_floating_point() or tensor.is_meta:
        raise ConfigError(f"{key}={tensor!r}: a tensor must hold one floating-point number")
    held = float(tensor.item())
    decimals = (float(f"{held:.{digits}g}") for digits in range(1, 17))
    return next((d for d in decimals if torch.tensor(d, dtype=tensor.dtype).item() == held), held)


def _tensors(group: Group, fields: Iterable[Field]) -> dict[str, torch.Tensor]:
    held = {field.key: _get(group, field.key) for field in fields}
    return {key: found for key, found in held.items() if isinstance(found, torch.Tensor)}


def _put_back_tensors(member: Member, fields: Iterable[Field]) -> None:
    """Put back the script's own objects where a load has replaced them."""
    for field in fields:
        found = _get(member.group, field.key)
        if field.key in member.tensors:
            _set(member.group, field.key, member.tensors[field.key])
        elif found is None and _is_lacking(member, field):
            _set(member.group, field.key, 0.0)  # to be written at once
        elif found is not None and not isinstance(found, float):
            _set(member.group, field.key, float(found))


def _is_lacking(member: Member, field: Field) -> bool:
    """Tell whether a group lacks a field that it should have: a load may bring groups without."""
    had_it = member.own.get(field.key) is not None and _split(field.key)[1] is None
    return field.is_added or had_it


def _unshare(holders: Iterable[Group], key: str) -> None:
    """Leave a tensor that several have to the first, and give the others copies."""
    seen = set()
    for holder in holders:
        found = _get(holder, key)
        if isinstance(found, torch.Tensor):
            if found.data_ptr() in seen:
                _set(holder, key, found.detach().clone())
            seen.add(found.data_ptr())


@functools.cache
def _split(key: str) -> tuple[str, int | None]:
    """Give the key of a param group, and the index of the part of its tuple that is meant.

    >>> _split("betas[0]"), _split("lr")
    (('betas', 0), ('lr', None))
    """
    found = _PART.fullmatch(key)
    return (found[1], int(found[2])) if found else (key, None)


def _get(group: Group, key: str) -> Any:
    """Read a field; None where the group has none."""
    name, index = _split(key)
    found = group.get(name)
    if index is None:
        return found
    return found[index] if isinstance(found, tuple | list) and index < len(found) else None


def _set(group: Group, key: str, value: Any) -> None:
    """Put something in a field's place; a tuple becomes another, since groups may share it."""
    name, index = _split(key)
    if index is None:
        group[name] = value
        return
    parts = list(group[name])
    parts[index] = value
    group[name] = parts if isinstance(group[name], list) else tuple(parts)


def _fields_of(group: Group) -> Iterator[str]:
    """Name what could be scheduled in a group."""
    for key, found in group.items():
        parts = found if isinstance(found, tuple | list) and key != "params" else ()
        names = [f"{key}[{index}]" for index in range(len(parts))] or [key]
        yield from (name for name in names if type(_get(group, name)) in {int, float, torch.Tensor})


def _evaluated(position: int, courses: Courses) -> list[tuple[Curve, Blend, float]]:
    return [(curve, *curve.at(position)) for curve in courses.curves]


def _copied(found: Any) -> Any:
    return found.clone() if isinstance(found, torch.Tensor) else found


def _plain(found: Any) -> Any:
    is_scalar = isinstance(found, torch.Tensor) and found.numel() == 1 and not found.is_meta
    return found.item() if is_scalar else found


def _holds(found: Any, value: float, rel_tol: float = 1e-12) -> bool:
    """Tell whether something read from a group is a value, as its dtype rounds it."""
    if isinstance(found, torch.Tensor):
        if found.numel() != 1 or not found.is_floating_point() or found.is_meta:
            return False
        rounded = torch.tensor(value, dtype=found.dtype).item()
        return math.isclose(found.item(), rounded, rel_tol=torch.finfo(found.dtype).eps)
    return isinstance(found, int | float) and math.isclose(found, value, rel_tol=rel_tol)


def _put(group: Group, key: str, value: float) -> None:
    """Write one value: a tensor is filled in place, so that who holds it sees the change."""
    found = _get(group, key)
    if isinstance(found, torch.Tensor):
        found.detach().fill_(value)
    else:
        _set(group, key, value)


def _settle_override(member: Member, name: str, word: str) -> str:
    """Settle one bound or multiplier after a load, and say so where the two sides differ."""
    group = member.group
    script, loaded = member.overrides.get(name), group.get(name)
    if script == loaded:
        return ""
    if word == CONFIG:
        _set_or_drop(group, name, member.overrides)
    used = "script's" if word == CONFIG else "optimizer checkpoint's"
    return (
        f"{member}: {name} is {script!r} in the script and {loaded!r} in the optimizer checkpoint; "
        f"using the {used} value (policy {word!r})"
    )


def _set_or_drop(group: Group, name: str, values: Group) -> None:
    """Give a group a key's value, or take the key away where there is none."""
    if name in values:
        group[name] = values[name]
    else:
        group.pop(name, None)
