"""The writer: the values of one plan, in every param group.

This module, `tracking` and `fields` are the only code that reads or writes param groups.
"""

from __future__ import annotations

import logging
import math
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

from dist_sched._optim import fields as group_fields
from dist_sched._optim.tracking import TrackedGroup, Tracker
from dist_sched._optim.wrappers import was_used
from dist_sched._rules import MAX_RATE, listed, near_miss, rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch.optim import Optimizer

    from dist_sched._config.plan import Field, Inventory, Override, Plan
    from dist_sched._config.policy import Policy
    from dist_sched._curves.curve import Between, Curve
    from dist_sched._optim.fields import Group

logger = logging.getLogger("dist_sched")


_BLOCK = 256
"""Groups that are written for every field before the next: they stay in the processor's cache."""

_ALIASES = {
    "momentum": "betas[0]",
    "betas[0]": "momentum",
    "beta1": "betas[0]",
    "beta2": "betas[1]",
    "betas": "betas[0]",
}
"""What people call a field that an optimizer has under another name."""


_Late = tuple[str, list["Group"], list[float]]
"""A field's key, groups with overrides of it, and their values."""


class _Followed(NamedTuple):
    """What a group follows for one field."""

    field: Field
    curve: Curve
    factor: float
    override: Override | None


class _Row:
    """One field of some groups that follow one curve."""

    __slots__ = ("_cohorts", "_keys", "_places", "_tracked", "curve", "field", "overrides")

    def __init__(self, field: Field, curve: Curve, tracked: Mapping[int, TrackedGroup]) -> None:
        self.field = field
        self.curve = curve
        self.overrides: dict[int, Override] = {}
        """By identity of a group, the override whose multiplier is in its factor."""
        self._tracked = tracked
        self._keys = field.key, field.upper, field.lower, field.multiplier, field.has_bounds
        self._places: dict[float, int] = {}
        """By factor, the index of its cohort."""
        self._cohorts: list[list[Any]] = []
        """For each factor: the factor, its groups, and the very float that was written last.

        Lists, because unpacking one at each step is faster than asking an object."""

    def add(self, group: Group, followed: _Followed) -> None:
        """Let a group be filled."""
        index = self._places.setdefault(followed.factor, len(self._places))
        if index == len(self._cohorts):
            self._cohorts.append([followed.factor, [], None])
        self._cohorts[index][1].append(group)
        if followed.override is not None and followed.override.multiplier is not None:
            self.overrides[id(group)] = followed.override

    def fill(self, position: int) -> _Late | None:
        """Write the values at a position into the groups that have no overrides.

        Returns:
            The others, with their values. They are written after every row, so that an illegal
            override leaves all of them as they were. None where there are none.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        key, upper, lower, multiplier, has_bounds = self._keys
        curve = self.curve
        if has_bounds:
            # Groups with bounds of their own share what depends on the position alone.
            between = curve.at(position)
            value = between(curve.max_value, curve.min_value)
        else:
            between, value = None, curve(position)
        overridden: list[Group] = []
        for cohort in self._cohorts:
            factor, groups, written = cohort
            cohort[2] = scaled = value * factor
            for group in groups:
                # Overrides are looked for at every step: they may be added and removed meanwhile.
                if upper in group or lower in group or multiplier in group:
                    overridden.append(group)
                elif group[key] is written:  # a float, and ours: no look at its type
                    group[key] = scaled
                else:
                    group_fields.write(group, key, scaled)
        if not overridden:
            return None
        return key, overridden, self.overridden_values(overridden, between or curve.at(position))

    def overridden_values(self, groups: Iterable[Group], between: Between) -> list[float]:
        """Return the values of groups that have bounds or a multiplier of their own."""
        curve, field = self.curve, self.field
        upper, lower, multiplier_key = field.upper, field.lower, field.multiplier
        curve_high, curve_low = curve.max_value, curve.min_value
        values = []
        for group in groups:  # subscripts, because .get takes twice as long
            high = group[upper] if upper in group else curve_high  # noqa: SIM401
            low = group[lower] if lower in group else curve_low  # noqa: SIM401
            multiplier = group[multiplier_key] if multiplier_key in group else 1.0  # noqa: SIM401
            try:
                # A multiplier may be written into a group after its plan was checked.
                if self.overrides or not field.has_bounds:
                    self._refuse(group)
                # What is a legal float already, as nearly always, needs no rule.
                if not (
                    type(high) is type(low) is type(multiplier) is float
                    and 0.0 <= high <= MAX_RATE
                    and 0.0 <= low <= MAX_RATE
                    and 0.0 <= multiplier <= MAX_RATE
                ):
                    high, low = rate(upper, high), rate(lower, low)
                    multiplier = rate(multiplier_key, multiplier)
                values.append(between(high, low) * multiplier)
            except ConfigError as error:
                name = self._tracked.get(id(group), "param group")
                raise ConfigError(f"{name}: {error}") from error
        return values

    def _refuse(self, group: Group) -> None:
        """Raise where a group has an override that its plan has no place for."""
        field = self.field
        for key in (field.upper, field.lower):
            if key in group and not field.has_bounds:
                raise ConfigError(
                    f"{key}={group[key]!r}: bounds of a group mean nothing to phases: give the "
                    f"group a schedule of its own (groups=), or {field.multiplier!r}"
                )
        override = self.overrides.get(id(group))
        if override is not None and field.multiplier in group:
            raise ConfigError(_second_multiplier(field, override))


def _second_multiplier(field: Field, override: Override) -> str:
    return (
        f"has {field.multiplier!r}, and {override.path} has another multiplier: remove one of them"
    )


class _PartRow(_Row):
    """One part of a tuple, such as `betas[0]`, of some groups that follow one curve."""

    __slots__ = ()

    def fill(self, position: int) -> None:
        """Write the values at a position into the groups; a part has no overrides."""
        value = self.curve(position)
        for factor, groups, _ in self._cohorts:
            for group in groups:
                group_fields.write(group, self.field.key, value * factor)


class Writer:
    """Writes the values of one plan into the groups of some optimizers.

    A writer keeps one plan for life. For another plan, `with_plan` returns another writer over the
    same groups, which can be checked before it takes over.
    """

    def __init__(
        self,
        tracker: Tracker,
        plan: Plan,
        references: Mapping[str, float | None],
        *,
        keep_ratios: bool,
    ) -> None:
        self.tracker = tracker
        self.plan = plan
        self.keep_ratios = keep_ratios
        # What an earlier scheduler or another rank measured wins: the groups hold scheduled values
        # by now, or this rank has none of the group that it was measured from.
        measured = {field.key: self._first_value(field.key) for field in plan.fields}
        self.references: dict[str, float | None] = {**measured, **references}
        """The own value that each field's ratios are to."""
        self._rows: list[_Row] = []
        self._followed: list[list[_Followed]] = []
        """What each tracked group follows."""
        self._by_identity: dict[int, TrackedGroup] = {}
        self._known: list[Group] = []
        """The groups that the rows were made of."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._known = []  # rows find groups by identity, and a copy has others

    @classmethod
    def build(cls, optimizer: Any, plan: Plan, *, keep_ratios: bool) -> Writer:
        """Return the writer of a new scheduler.

        Raises:
            ConfigError: A group has an illegal value, bound or multiplier, or its ratios are lost.
                Nothing has changed then.
        """
        tracker = Tracker(optimizer, plan.fields)
        writer = cls(tracker, plan, tracker.known_references, keep_ratios=keep_ratios)
        writer._refuse_lost_ratios()
        writer.check()
        writer._build_rows()
        writer.values(0)  # raises where a group's own bounds are illegal
        # From here on groups change, and nothing raises.
        tracker.own_tensors(plan.fields, tracker.recalled)
        tracker.remember(writer.references)
        return writer

    def with_plan(
        self,
        plan: Plan,
        references: Mapping[str, float | None] | None = None,
        *,
        keep_ratios: bool | None = None,
    ) -> Writer:
        """Return a writer of another plan, or with other references, over the same groups.

        Raises:
            ConfigError: A ratio is not finite.
        """
        other = Writer(
            self.tracker,
            plan,
            self.references if references is None else references,
            keep_ratios=self.keep_ratios if keep_ratios is None else keep_ratios,
        )
        self._refresh()  # so that both see the same groups
        other._build_rows()
        return other

    def take_over_from(self, other: Writer) -> None:
        """Begin to write in place of another writer over the same groups.

        Groups get back what they had of fields that are not scheduled any more.
        """
        fields = self.plan.fields
        if fields != other.plan.fields:
            for field in other.plan.fields:
                if field not in fields:
                    self._restore(field)
            self.tracker.own_tensors(fields, self.tracker.tracked)
        self.tracker.remember(self.references)

    def _restore(self, field: Field) -> None:
        for one in self.tracker.tracked:
            own = one.own_value(field.key)
            if own is not None:
                group_fields.write(one.group, field.key, own)

    def turn_to(self, optimizer: Any) -> None:
        """Follow another optimizer; groups with the same parameters keep their ratios.

        Raises:
            ConfigError: It is none, or one of its groups is illegal. Nothing has changed then.
        """

        def rebind() -> None:
            self._rebind()
            self.values(0)

        try:
            self.tracker.turn_to(optimizer, rebind)
        except ConfigError:
            self._build_rows()
            raise

    def write(self, position: int) -> None:
        """Write the values at a position into every group.

        Raises:
            ConfigError: A group has an illegal bound or multiplier. Others may have been written
                by then.
        """
        # `_refresh` written out: at one group, calls are what a step costs.
        sole = self.tracker.sole
        groups = self.tracker.groups() if sole is None else sole.param_groups
        known = self._known
        if len(groups) != len(known) or not all(map(is_, groups, known)):
            self._rebind()
        late = []
        for row in self._rows:
            found = row.fill(position)
            if found is not None:
                late.append(found)
        for key, overridden, values in late:
            for group, value in zip(overridden, values, strict=True):
                if type(group[key]) is float:
                    group[key] = value
                else:
                    group_fields.write(group, key, value)

    def values(self, position: int) -> list[dict[str, float]]:
        """Return what `write` would write, by field key, for each group.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        self._refresh()
        # By identity: a hash of a schedule would go through all its phases.
        at = {id(curve): curve.at(position) for curve in self.plan.curves}
        return [
            {
                followed.field.key: self._value(one.group, followed, at[id(followed.curve)])
                for followed in self._followed[index]
            }
            for index, one in enumerate(self.tracker.tracked)
        ]

    def held(self, key: str, position: int) -> list[float]:
        """Return one field of every group: what `write` would write, or else what it holds."""
        return [
            values[key] if key in values else group_fields.plain(group_fields.get(one.group, key))
            for values, one in zip(self.values(position), self.tracker.tracked, strict=True)
        ]

    def bounded(self, group: Group, key: str, position: int) -> float:
        """Return one field's value under a group's bounds, without its ratio and multiplier."""
        index = [field.key for field in self.plan.fields].index(key)
        field, curve = self.plan.fields[index], self.plan.curves[index]
        bounds = {name: group[name] for name in (field.upper, field.lower) if name in group}
        return _Row(field, curve, {}).overridden_values([bounds], curve.at(position))[0]

    def check(self, known: Plan | None = None) -> None:
        """Check that the groups have what is scheduled, and that it is legal for them.

        Args:
            known: What is scheduled already. Groups may lack its fields and names: another rank's
                have them.

        Raises:
            ConfigError: No group has a field, no or two patterns match, a group has a multiplier
                twice, or a mean's weight would reach 1.
        """
        tracked = self.tracker.tracked
        if not tracked:
            return
        for field in self.plan.fields:
            # On a pipeline stage, what is scheduled already may be for another stage's groups.
            if known is not None and field in known.fields:
                continue
            if not (field.is_added or any(one.own_value(field.key) is not None for one in tracked)):
                raise ConfigError(self._missing(field.key))
        paths = {one.path for one in known.overrides} if known is not None else set()
        for own in self.plan.overrides:
            if own.path not in paths and not any(own.matches(one.name) for one in tracked):
                names = dict.fromkeys(one.name for one in tracked if isinstance(one.name, str))
                raise ConfigError(
                    f"{own.path}: no group's name matches {own.pattern!r}; "
                    f"the groups are named {listed(names) or 'nothing'}"
                )
        for one in tracked:
            self._check_group(one)

    def _missing(self, key: str) -> str:
        """Say that no group has a field, and what groups have."""
        names = (group_fields.names_in(one.group) for one in self.tracker.tracked)
        has = dict.fromkeys(name for group in names for name in group)
        alias = _ALIASES.get(key)
        close = f"; did you mean {alias!r}?" if alias in has else near_miss(key, has)
        return f"{key}: no group of the optimizer has this field{close} (they have {listed(has)})"

    def _check_group(self, one: TrackedGroup) -> None:
        for field, curve, factor, override in self._follow(one):
            has_two = override is not None and override.multiplier is not None
            if override is not None and has_two and field.multiplier in one.group:
                raise ConfigError(f"{one}: {_second_multiplier(field, override)}")
            highest = curve.max_value * factor
            if field.is_weight and highest >= 1:
                raise ConfigError(
                    f"{one}: {field.key} would reach {highest!r} (its ratio to the first group "
                    f"is {factor!r}), and must be below 1: lower the schedule, or give the group "
                    "one of its own"
                )

    def inventory(self) -> Inventory:
        """Return how the groups are named, and which fields they have."""
        self._refresh()
        return self.tracker.inventory()

    def note_load(self, optimizer: Optimizer, saved: Sequence[Group]) -> None:
        """Remember what groups have just before their optimizer is loaded."""
        self._refresh()
        self.tracker.note_load(optimizer, saved, self.plan.fields)

    def resolve_load(self, optimizer: Optimizer, policy: Policy) -> list[str]:
        """Resolve by policy the bounds and multipliers that an optimizer's load brought.

        Returns:
            A sentence for each difference.
        """
        self._rebind(loaded=optimizer)
        return self.tracker.resolve_overrides(optimizer, self.plan.fields, policy)

    def undo_load(self, optimizer: Optimizer) -> None:
        """Restore the bounds and multipliers that the groups had before the load."""
        self.tracker.put_back_overrides(optimizer, self.plan.fields)

    def carried_differences(self, position: int) -> list[str]:
        """Return where loaded optimizers carried other values than the plan has at a position."""
        self._refresh()
        at = {id(curve): curve.at(position) for curve in self.plan.curves}
        lines = []
        for one, follows in zip(self.tracker.tracked, self._followed, strict=True):
            for followed in follows if one.carried else ():
                key = followed.field.key
                found = one.carried.get(key)
                if found is None:
                    continue
                try:
                    value = self._carried_value(one.carried, followed, at[id(followed.curve)])
                except ConfigError:
                    continue  # an illegal override that policy may have dropped by now
                if not group_fields.holds(found, value, rel_tol=1e-6):
                    lines.append(
                        f"{one}: the optimizer checkpoint carried {key}="
                        f"{group_fields.plain(found)!r}, where the scheduler's checkpoint has "
                        f"{value!r} at position {position}"
                    )
        return lines

    def _carried_value(self, carried: Group, followed: _Followed, between: Between) -> float:
        """Return what a loaded optimizer should carry, under the overrides that it carries."""
        if not followed.field.has_bounds:
            bounds = {followed.field.upper, followed.field.lower}
            carried = {key: found for key, found in carried.items() if key not in bounds}
        # Without the plan's multiplier, which a carried one may stand beside.
        return self._value(carried, followed._replace(override=None), between)

    def wrong_values(self, position: int) -> list[str]:
        """Read every group back, and return where it holds something else than it should."""
        expected = self.values(position)  # first, since it follows exchanged groups
        return [
            f"{one}: {key} holds {group_fields.plain(group_fields.get(one.group, key))!r} and "
            f"should hold {value!r}"
            for one, values in zip(self.tracker.tracked, expected, strict=True)
            for key, value in values.items()
            if not group_fields.holds(group_fields.get(one.group, key), value)
        ]

    def _refresh(self) -> None:
        """Follow the optimizers' present groups, where they are not those already known.

        By identity: comparing dicts would compare their parameters.
        """
        groups, known = self.tracker.groups(), self._known
        if len(groups) != len(known) or not all(map(is_, groups, known)):
            self._rebind()

    def _rebind(self, loaded: Optimizer | None = None) -> None:
        late = self.tracker.rebind(self.plan.fields, self._check_group, loaded)
        self._build_rows()
        self.tracker.remember(self.references)
        for one in late:
            # Perhaps it was read in a warmup's first step.
            zeros = [found.field.key for found in self._follow(one) if found.factor == 0]
            if zeros:
                logger.warning("%s was added with %s=0, and stays at 0", one, "=0 and ".join(zeros))

    def _build_rows(self) -> None:
        """Sort the groups by field, curve and factor: those of one factor share a product."""
        self._rows = []
        tracked = self.tracker.tracked
        self._followed = [list(self._follow(one)) for one in tracked]
        self._by_identity = {id(one.group): one for one in tracked}
        for start in range(0, len(tracked), _BLOCK):
            rows: dict[tuple[str, int], _Row] = {}
            block = slice(start, start + _BLOCK)
            for one, follows in zip(tracked[block], self._followed[block], strict=True):
                for followed in follows:
                    place = followed.field.key, id(followed.curve)
                    if place not in rows:
                        rows[place] = self._row(followed)
                    rows[place].add(one.group, followed)
            self._rows += rows.values()
        self._known = [one.group for one in tracked]

    def _row(self, followed: _Followed) -> _Row:
        is_part = group_fields.split(followed.field.key)[1] is not None
        kind = _PartRow if is_part else _Row
        return kind(followed.field, followed.curve, self._by_identity)

    def _follow(self, one: TrackedGroup) -> Iterator[_Followed]:
        """Yield what a group follows, for each field that it has."""
        for index, field in enumerate(self.plan.fields):
            if field.is_added or one.own_value(field.key) is not None:
                curve, multiplier, override = self.plan.of_group(one.name, index)
                factor = self._ratio(one, field.key) if multiplier is None else multiplier
                yield _Followed(field, curve, factor, override)

    def _first_value(self, key: str) -> float | None:
        own_values = (one.own_value(key) for one in self.tracker.tracked)
        return next((own for own in own_values if own), None)

    def _ratio(self, one: TrackedGroup, key: str) -> float:
        """Return a group's own value over the reference: 0 for a no-decay group, which stays so."""
        own, reference = one.own_value(key), self.references[key]
        if not self.keep_ratios or own is None or reference is None:
            return 1.0
        if math.isinf(own / reference):
            raise ConfigError(f"{one}: {key}={own!r} is too large a multiple of {reference!r}")
        return own / reference

    def _value(self, group: Group, followed: _Followed, between: Between) -> float:
        """Return a field's value under the bounds and multiplier that a dict has, or a factor."""
        field, curve, factor, override = followed
        if not field.is_overridden(group):
            return between(curve.max_value, curve.min_value) * factor
        row = _Row(field, curve, self._by_identity)
        if override is not None and override.multiplier is not None:
            row.overrides[id(group)] = override
        return row.overridden_values([group], between)[0]

    def _refuse_lost_ratios(self) -> None:
        """Warn of ratios that were read from an optimizer that was loaded before; refuse zeros."""
        tracked = self.tracker.tracked
        # An optimizer that an earlier scheduler drove is not measured again, so it may be loaded.
        loaded = any(was_used(one) for _, one in self.tracker.sources_without_memory())
        if not (loaded and self.keep_ratios and len(tracked) > 1):
            return
        for index, field in enumerate(self.plan.fields):
            having = [one for one in tracked if self._has_ratio(one, field)]
            is_needed = self.plan.curves[index].max_value > 0 and bool(having)
            if is_needed and all(one.own[field.key] == 0 for one in tracked):
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
                [self._ratio(one, field.key) for one in tracked],
            )

    def _has_ratio(self, one: TrackedGroup, field: Field) -> bool:
        """Return whether a group has neither bounds, nor a multiplier, nor a curve of its own."""
        override = self.plan.override_of(one.name, field)
        is_ratio = override is None or override.is_implied
        return is_ratio and not field.is_overridden(one.group)
