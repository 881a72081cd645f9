"""Param groups, and the values that curves give them.

This room, `members` and `cells` are the only code that reads or writes param groups.

What a group had when the scheduler was built (its own value of each field, its own tensors) is
remembered here, never in the group: DCP refuses to load a checkpoint that lacks a key which the
current groups have.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

from dist_sched._config.plan import Inventory
from dist_sched._optim import fields as group_fields
from dist_sched._optim.tracking import (
    Recogniser,
    TrackedGroup,
    as_sources,
    innermost,
    memory_of,
    own_value,
    put_back_tensors,
    recalled,
    remember,
    settle_override,
    was_used,
)
from dist_sched._rules import listed, near_miss, rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch.optim import Optimizer

    from dist_sched._config.plan import Field, Plan
    from dist_sched._config.policy import Policy
    from dist_sched._curves.curve import Between, Curve
    from dist_sched._optim.fields import Group

logger = logging.getLogger("dist_sched")

_INFINITY = float("inf")

_BLOCK = 256
"""Groups that are written for every field before the next: they stay in the processor's cache."""


Cohorts = list[tuple[float, list["Group"]]]

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


class _Followed(NamedTuple):
    """What a group follows for one field."""

    field: Field
    curve: int
    """Index among the plan' curves."""
    factor: float


class Groups:
    """The param groups of some optimizers, and the values that curves give them.

    Raises:
        ConfigError: A group has an illegal value, bound or multiplier, or its ratios are lost.
            Nothing has been changed then.
    """

    def __init__(self, optimizer: Any, plan: Plan, *, keep_ratios: bool) -> None:
        self._turn_to(optimizer)
        self.fields = plan.fields
        self.keep_ratios = keep_ratios
        recalled, known = self._recall()
        self.members = self._recognise(recalled)
        measured = {field.key: self._reference(field.key) for field in self.fields}
        self.references = {**measured, **known}
        self._refuse_lost_ratios(plan, known={member.source for member in recalled})
        self.check(plan)
        self._plan(plan)
        self.values(0, plan)
        self._own_tensors(recalled)
        self._remember()

    def _recall(self) -> tuple[list[TrackedGroup], dict[str, float | None]]:
        """Give the members and references that an earlier scheduler left with the optimizers."""
        members: list[TrackedGroup] = []
        references: dict[str, float | None] = {}
        for source, optimizer in enumerate(self.optimizers()):
            memory = memory_of(optimizer)
            if memory is not None:
                members += recalled(memory, optimizer, source)
                references = {**memory.references, **references}
        return members, references

    def _remember(self) -> None:
        """Leave members and references with the optimizers, for a later scheduler."""
        by_source: dict[int, list[TrackedGroup]] = {}
        for member in self.members:
            by_source.setdefault(member.source, []).append(member)
        for source, optimizer in enumerate(self.optimizers()):
            remember(optimizer, by_source.get(source, []), self.references)

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

    def write(self, position: int, plan: Plan) -> None:  # noqa: C901, PLR0912 - the hot loop
        """Give every group its values at a position.

        Raises:
            ConfigError: A group has an illegal bound or multiplier. Groups that have none may
                have been written by then.
        """
        self._refresh()
        if plan is not self._courses:
            self._plan(plan)
        curves = plan.curves
        evaluated = []
        for curve in curves:
            between = curve.at(position)
            evaluated.append((between, between(curve.max_value, curve.min_value)))
        special = []
        for index, field, high, low, multiplier, key, cohorts in self._rows:
            between, value = evaluated[index]
            overridden = []
            for ratio, groups in cohorts:
                scaled = value * ratio
                for group in groups:
                    if high in group or low in group or multiplier in group:
                        overridden.append(group)
                    elif type(group[key]) is float:
                        group[key] = scaled
                    else:
                        group_fields.put(group, key, scaled)
            if overridden:
                values = self._special_values(overridden, field, curves[index], between)
                special.append((key, overridden, values))
        for key, overridden, values in special:
            for group, own in zip(overridden, values, strict=True):
                if type(group[key]) is float:
                    group[key] = own
                else:
                    group_fields.put(group, key, own)
        for index, key, cohorts in self._part_rows:
            for ratio, groups in cohorts:
                for group in groups:
                    group_fields.put(group, key, evaluated[index][1] * ratio)

    def values(self, position: int, plan: Plan) -> list[dict[str, float]]:
        """Give what `write` would write, by field key, for each group.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        self._refresh()
        evaluated = _evaluated(position, plan)
        return [
            {
                field.key: self._value(member.group, field, ratio, *evaluated[index])
                for field, index, ratio in self._followed(member, plan)
            }
            for member in self.members
        ]

    def held(self, key: str, position: int, plan: Plan) -> list[float]:
        """Give one field of every group: what `write` would write, or else what it holds."""
        return [
            values[key]
            if key in values
            else group_fields.plain(group_fields.get(member.group, key))
            for values, member in zip(self.values(position, plan), self.members, strict=True)
        ]

    def bounded(self, group: Group, key: str, position: int, plan: Plan) -> float:
        """Give one field's curve under a group's bounds, without its ratio and multiplier."""
        index = [field.key for field in self.fields].index(key)
        field, curve = self.fields[index], plan.curves[index]
        bounds = {name: group[name] for name in (field.high, field.low) if name in group}
        return self._special_values([bounds], field, curve, curve.at(position))[0]

    def check(self, plan: Plan, known: Plan | None = None) -> None:
        """Make sure that the groups have what is scheduled, and can be given it.

        Args:
            plan: What shall be scheduled.
            known: What is scheduled already. Groups may lack its fields and names: another rank's
                have them.

        Raises:
            ConfigError: No group has a field, no or two patterns match, a group has a multiplier
                twice, or a mean's weight would reach 1.
        """
        if not self.members:
            return
        fields = known.fields if known is not None else ()
        for field in plan.fields:
            if field in fields:
                continue
            if not (
                field.is_added or any(own_value(one, field.key) is not None for one in self.members)
            ):
                raise ConfigError(self._missing(field.key))
        names = [member.name for member in self.members]
        labels = {own.label for own in known.own} if known is not None else set()
        for own in plan.own:
            if own.label not in labels and not any(own.matches(name) for name in names):
                has = listed(dict.fromkeys(name for name in names if isinstance(name, str)))
                raise ConfigError(
                    f"{own.label}: no group's name matches {own.pattern!r}; "
                    f"the groups are named {has or 'nothing'}"
                )
        for member in self.members:
            self._check_member(member, plan)

    def inventory(self) -> Inventory:
        """Say what the groups are named, and which fields they have."""
        self._refresh()
        names = frozenset(one.name for one in self.members if isinstance(one.name, str))
        fields = (key for one in self.members for key in group_fields.fields_of(one.group))
        return Inventory(names=names, fields=frozenset(fields))

    def _missing(self, key: str) -> str:
        """Say that no group has a field, and what groups have."""
        has = dict.fromkeys(
            key for member in self.members for key in group_fields.fields_of(member.group)
        )
        alias = _ALIASES.get(key)
        close = f"; did you mean {alias!r}?" if alias in has else near_miss(key, has)
        return f"{key}: no group of the optimizer has this field{close} (they have {listed(has)})"

    def _check_member(self, member: TrackedGroup, plan: Plan) -> None:
        for field, index, ratio in self._followed(member, plan):
            _refuse_second_multiplier(member, field, plan)
            highest = plan.curves[index].max_value * ratio
            if field.is_weight and highest >= 1:
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
            member.tensors = group_fields.tensors_of(member.group, self.fields)
            member.overrides = {
                name: member.group[name] for name in self._override_names() if name in member.group
            }
            group = saved[member.index] if member.index < len(saved) else {}
            carried = {key: group_fields.get(group, key) for key in keys}
            member.carried = {
                key: group_fields.copied(found)
                for key, found in carried.items()
                if found is not None
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
            if (line := settle_override(member, name, policy.word(name)))
        ]

    def put_back_overrides(self, optimizer: Optimizer) -> None:
        """Give the groups the bounds and multipliers that they had before the load."""
        for member in self._members_of(optimizer):
            for name in self._override_names():
                group_fields.assign_or_drop(member.group, name, member.overrides)

    def carried_differences(self, position: int, plan: Plan) -> list[str]:
        """Say where a loaded optimizer carried other values than curves have at a position."""
        self._refresh()
        evaluated = _evaluated(position, plan)
        return [
            f"{member}: the optimizer checkpoint carried {field.key}={group_fields.plain(found)!r}, where "
            f"the scheduler's checkpoint has {value!r} at position {position}"
            for member in self.members
            for field, index, ratio in self._followed(member, plan)
            if (found := member.carried.get(field.key)) is not None
            and not group_fields.holds(
                found,
                value := self._value(member.carried, field, ratio, *evaluated[index]),
                rel_tol=1e-6,
            )
        ]

    def forget_carried(self) -> None:
        """Drop what loaded optimizers carried, once it was compared."""
        for member in self.members:
            member.carried = {}

    def wrong_values(self, position: int, plan: Plan) -> list[str]:
        """Read every group back, and say where it holds something else than it should."""
        expected = self.values(position, plan)
        return [
            f"{member}: {key} holds {group_fields.plain(group_fields.get(member.group, key))!r} and should hold "
            f"{value!r}"
            for member, values in zip(self.members, expected, strict=True)
            for key, value in values.items()
            if not group_fields.holds(group_fields.get(member.group, key), value)
        ]

    def measure_against(self, references: dict[str, float | None], *, keep_ratios: bool) -> None:
        """Measure the ratios anew, such as against another rank's references."""
        self.references = references
        self.keep_ratios = keep_ratios
        self._remember()
        self._plan(self._courses)

    def _override_names(self) -> list[str]:
        return [name for field in self.fields for name in field.overrides()]

    def _followed(self, member: TrackedGroup, plan: Plan) -> Iterator[_Followed]:
        """Give what a group follows, for each field that it has."""
        for place, field in enumerate(plan.fields):
            if field.is_added or own_value(member, field.key) is not None:
                curve, multiplier = plan.of_group(member.name, place)
                ratio = self._ratio(member, field.key) if multiplier is None else multiplier
                yield _Followed(field, curve, ratio)

    def _members_of(self, optimizer: Optimizer) -> list[TrackedGroup]:
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

    def _name_zeros(self, late: list[TrackedGroup]) -> None:
        """Warn of a late group with a ratio of 0: perhaps it was read in a warmup's first step."""
        for member in late:
            followed = self._followed(member, self._courses)
            zeros = [field.key for field, _, ratio in followed if ratio == 0]
            if zeros:
                logger.warning(
                    "%s was added with %s=0, and stays at 0", member, "=0 and ".join(zeros)
                )

    def _plan(self, plan: Plan) -> None:
        """Sort the groups by curve and ratio, so that those of one ratio share a multiplication."""
        if plan.fields != self.fields:  # another rank's, or a checkpoint's
            self._give_back(field for field in self.fields if field not in plan.fields)
            self.fields = plan.fields
            self._own_tensors(self.members)
        rows, part_rows = [], []
        for start in range(0, len(self.members), _BLOCK):
            members = self.members[start : start + _BLOCK]
            for (field, index), cohorts in self._cohorts(members, plan).items():
                if group_fields.split(field.key)[1] is None:
                    keys = field.high, field.low, field.multiplier, field.key
                    rows.append((index, field, *keys, cohorts))
                else:
                    part_rows.append((index, field.key, cohorts))
        self._courses, self._rows, self._part_rows = plan, rows, part_rows
        self._known = [member.group for member in self.members]

    def _give_back(self, fields: Iterable[Field]) -> None:
        """Give the groups what they had of fields that are scheduled no more."""
        for field in fields:
            for member in self.members:
                own = own_value(member, field.key)
                if own is not None:
                    group_fields.put(member.group, field.key, own)

    def _cohorts(self, members: list[TrackedGroup], plan: Plan) -> dict[tuple[Field, int], Cohorts]:
        """Sort members by field and curve, and then by ratio."""
        found: dict[tuple[Field, int], dict[float, list[Group]]] = {}
        for member in members:
            for field, index, ratio in self._followed(member, plan):
                found.setdefault((field, index), {}).setdefault(ratio, []).append(member.group)
        return {
            place: list(cohorts.items())
            for place, cohorts in sorted(found.items(), key=lambda pair: pair[0][1])
        }

    def _recognise(self, previous: list[TrackedGroup]) -> list[TrackedGroup]:
        """Find each present group among the previous members, or measure it as a new one."""
        recogniser = Recogniser(previous)
        members = []
        for source, optimizer in enumerate(self.optimizers()):
            for index, group in enumerate(optimizer.param_groups):
                known = recogniser.find(source, index, group)
                member = known or TrackedGroup(
                    group,
                    source,
                    index,
                    group.get("name"),
                    tensors=group_fields.tensors_of(group, self.fields),
                )
                members.append(replace(member, group=group, source=source, index=index))
        for member in members:
            for field in self.fields:
                own_value(member, field.key)
        return members

    def _own_tensors(self, previous: list[TrackedGroup], loaded: Optimizer | None = None) -> None:
        """Give each group tensors of its own: the script's, where a load has replaced them."""
        optimizers = self.optimizers()
        known = {id(member.group) for member in previous}
        for member in self.members:
            if id(member.group) not in known or optimizers[member.source] is loaded:
                put_back_tensors(member, self.fields)
        holders = [member.group for member in self.members]
        defaults = (getattr(optimizer, "defaults", None) for optimizer in optimizers)
        holders += [holder for holder in defaults if isinstance(holder, dict)]
        for field in self.fields:
            group_fields.unshare(holders, field.key)
        for member in self.members:
            member.tensors = group_fields.tensors_of(member.group, self.fields)

    def _reference(self, key: str) -> float | None:
        return next((own for member in self.members if (own := own_value(member, key))), None)

    def _ratio(self, member: TrackedGroup, key: str) -> float:
        if key not in self.references:
            self.references[key] = self._reference(key)
        own, reference = own_value(member, key), self.references[key]
        if not self.keep_ratios or own is None or reference is None:
            return 1.0
        if math.isinf(own / reference):
            raise ConfigError(f"{member}: {key}={own!r} is too large a multiple of {reference!r}")
        return own / reference

    def _value(
        self, group: Group, field: Field, ratio: float, curve: Curve, between: Between
    ) -> float:
        """Give a field's value under the bounds and multipliers that a dict has, or a ratio."""
        if field.is_overridden(group):
            return self._special_values([group], field, curve, between)[0]
        return between(curve.max_value, curve.min_value) * ratio

    def _special_values(
        self, groups: list[Group], field: Field, curve: Curve, between: Between
    ) -> list[float]:
        """Give a field's value for groups that have bounds or a multiplier of their own."""
        if self._courses.own:
            self._refuse_second_multipliers(groups, field)
        high_key, low_key, multiplier_key = field.high, field.low, field.multiplier
        curve_high, curve_low = curve.max_value, curve.min_value
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
                values.append(between(high, low) * multiplier)
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

    def _refuse_lost_ratios(self, plan: Plan, known: set[int]) -> None:
        """Say which ratios were read from an optimizer that was loaded before; refuse zeros."""
        loaded = [
            source
            for source, optimizer in enumerate(self.optimizers())
            if source not in known and was_used(optimizer)
        ]
        if not (loaded and self.keep_ratios and len(self.members) > 1):
            return
        for place, field in enumerate(self.fields):
            having = [member for member in self.members if self._has_ratio(member, field, plan)]
            is_needed = plan.curves[place].max_value > 0 and bool(having)
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

    def _has_ratio(self, member: TrackedGroup, field: Field, plan: Plan) -> bool:
        """Tell whether a group has neither bounds, nor a multiplier, nor a curve of its own."""
        own = plan.override_of(member.name, field)
        is_ratio = own is None or own.is_implied
        return is_ratio and not field.is_overridden(member.group)


def _refuse_bounds(group: Group, field: Field) -> None:
    for key in (field.high, field.low):
        if key in group:
            raise ConfigError(
                f"{key}={group[key]!r}: bounds of a group mean nothing to phases: give the group a "
                f"schedule of its own (groups=), or {field.multiplier!r}"
            )


def _refuse_second_multiplier(member: TrackedGroup, field: Field, plan: Plan) -> None:
    own = plan.override_of(member.name, field)
    if own is not None and own.multiplier is not None and field.multiplier in member.group:
        raise ConfigError(
            f"{member}: has {field.multiplier!r}, and {own.label} says another multiplier: "
            "remove one of them"
        )


def _evaluated(position: int, plan: Plan) -> list[tuple[Curve, Between]]:
    return [(curve, curve.at(position)) for curve in plan.curves]
