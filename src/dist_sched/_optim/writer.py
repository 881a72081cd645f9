"""The writer: it writes the values of one plan into every param group.

Only this module, `tracking` and `fields` read and write param groups.
"""

from __future__ import annotations

import itertools
import logging
import math
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import is_
from typing import TYPE_CHECKING, Any

import torch

from dist_sched._config.path import Path
from dist_sched._optim import fields as group_fields
from dist_sched._optim import notices, ratios
from dist_sched._optim.description import GroupRow, GroupTable, source
from dist_sched._optim.missed_loads import Snapshot
from dist_sched._optim.rows import (
    Member,
    Row,
    Written,
    highest,
    is_removed,
    removed,
    row_of,
)
from dist_sched._optim.tracking import TrackedGroup, Tracker
from dist_sched._optim.wrappers import was_used
from dist_sched._rules import listed, near_miss, refuse
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch.optim import Optimizer

    from dist_sched._config.plan import Field, Followed, Inventory, Plan
    from dist_sched._config.policy import Policy
    from dist_sched._curves.lint import Finding
    from dist_sched._optim.fields import Group

logger = logging.getLogger("dist_sched")

_BLOCK = 256
"""Number of groups that are written together, so that they stay in the processor's cache."""

_ALIASES = {
    "momentum": "betas[0]",
    "betas[0]": "momentum",
    "beta1": "betas[0]",
    "beta2": "betas[1]",
    "betas": "betas[0]",
}
"""Other names for fields, which optimizers differ in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How high the groups of one rank come in a field, depending on the reference."""

    key: str
    group: str
    """The group that comes highest."""
    own: float
    """Its own value."""
    peak: float
    """The highest value of its curve, times its multiplier of `groups=`."""
    is_weight: bool
    limit: float
    """The largest number that it can hold."""

    def problem(self, reference: float | None) -> str:
        """Return why the group cannot use a reference, or ""."""
        ratio = self.own / reference if reference else 1.0
        reached = self.peak * ratio
        if math.isfinite(ratio) and reached <= self.limit and not (self.is_weight and reached >= 1):
            return ""
        most = "must be below 1" if self.is_weight else f"can be at most {self.limit!r}"
        return (
            f"{self.group}: {self.key} would reach {reached!r} (own value {self.own!r}, reference "
            f"{reference!r} from another rank), and {most}; use a lower schedule, or pass a number "
            "as reference="
        )


class Writer:
    """Writes the values of one plan into the groups of optimizers.

    A writer has one plan. For another plan, `with_plan` returns another writer over the same
    groups, which can be checked before it takes over.
    """

    def __init__(
        self,
        tracker: Tracker,
        plan: Plan,
        references: Mapping[str, float | None],
        *,
        keep_ratios: bool,
        has_reference: bool,
        position: int = 0,
    ) -> None:
        self.tracker = tracker
        self.plan = plan
        self.keep_ratios = keep_ratios
        self.has_reference = has_reference
        """Whether the script passes a reference."""
        self.position = position
        """Position of the latest write, in units."""
        # Known references are kept, because groups now hold scheduled values, and the group of a
        # reference may be on another rank.
        new = [field.key for field in plan.fields if field.key not in references]
        measured = ratios.references(tracker.tracked, plan, None, new) if new else {}
        self.references: dict[str, float | None] = {**measured, **references}
        """The reference of each field, an own value."""
        self._rows: list[Row] = []
        self._block: dict[tuple[str, int, bool], Row] = {}
        """The rows of the last block, to which new groups are added."""
        self._largest: dict[str, float] | None = None
        """The largest ratio of the start by field, as soon as it is needed."""
        self._followed: list[tuple[Member, ...]] = []
        """The curves of each tracked group."""
        self._known: list[Group] = []
        """The groups in the rows."""
        self._is_fresh = True
        """Whether the rows are new, so that a load may have written tensors."""
        self._by_others: list[Written] = []
        """Values that something else has written, until they are logged."""

    def __getstate__(self) -> dict[str, Any]:
        # Rows find groups by identity, and a copy has different ones.
        return {**self.__dict__, "_rows": [], "_block": {}, "_followed": [], "_known": []}

    @classmethod
    def build(
        cls,
        optimizer: Any,
        plan: Plan,
        *,
        keep_ratios: bool,
        reference: ratios.Reference,
        is_part: bool,
    ) -> tuple[Writer, tuple[ratios.Missing, ...]]:
        """Return the writer of a new scheduler.

        Args:
            optimizer: One optimizer, or several.
            plan: The declared plan.
            keep_ratios: Whether groups keep the ratios of their own values.
            reference: The constructor's argument.
            is_part: Whether other ranks may have names and fields that these groups lack.

        Returns:
            The writer, and the names and fields that these groups lack.

        Raises:
            ConfigError: A group has an invalid value, bound or multiplier, the ratios are lost, or
                the reference is not clear. Nothing has changed.
        """
        tracker = Tracker(optimizer, plan.fields)
        keys = [field.key for field in plan.fields]
        if not keep_ratios and reference is not None:
            raise ConfigError(
                "reference: has no effect with keep_group_ratios=False; remove one of the two"
            )
        lost = ratios.missing_names(tracker.tracked, plan, reference) if is_part else {}
        missing: list[ratios.Missing] = [*lost]
        found: dict[str, float | None] = dict.fromkeys(keys)
        if keep_ratios:
            here = [key for key in keys if not any(key in fields for fields in lost.values())]
            found |= ratios.references(tracker.tracked, plan, reference, here)
        has_reference = reference is not None
        writer = cls(tracker, plan, found, keep_ratios=keep_ratios, has_reference=has_reference)
        writer._refuse_lost_ratios()
        if is_part:
            missing += writer.missing() if tracker.tracked else []
        else:
            writer.check_names()
        writer._build_rows()
        writer.check_groups()
        writer.values(0)  # raises if a group's bounds are invalid
        # From here on groups change, and nothing raises an error.
        notices.name_start(tracker, writer._followed)
        if keep_ratios:
            notices.name_zeros(tracker.tracked, plan)
        tracker.own_tensors(plan.fields, tracker.recalled)
        tracker.take_over()
        tracker.remember()
        return writer, tuple(missing)

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
        self._refresh()  # so that both have the same groups
        other = Writer(
            self.tracker,
            plan,
            self.references if references is None else references,
            keep_ratios=self.keep_ratios if keep_ratios is None else keep_ratios,
            position=self.position,
            has_reference=self.has_reference,
        )
        other._build_rows()
        return other

    def take_over_from(self, other: Writer) -> None:
        """Begin to write in place of another writer over the same groups.

        Fields that are no longer scheduled get their own values again.
        """
        fields = self.plan.fields
        if fields != other.plan.fields:
            for field in other.plan.fields:
                if field not in fields:
                    self._restore(field)
            self.tracker.own_tensors(fields, self.tracker.tracked)
            self.tracker.driven = frozenset(field.key for field in fields)
        self.tracker.remember()

    def _restore(self, field: Field) -> None:
        for one in self.tracker.tracked:
            own = one.own_value(field.key)
            if own is not None:
                group_fields.write(one.group, field.key, own)

    def turn_to(self, optimizer: Any) -> None:
        """Switch to another optimizer. Groups with the same parameters keep their ratios.

        Raises:
            ConfigError: It is not an optimizer, or has an invalid group. Nothing has changed.
        """

        def rebind() -> None:
            self._rebind(self.position)
            self.values(0)

        try:
            self.tracker.turn_to(optimizer, self.plan.fields, rebind)
        except ConfigError:
            self._build_rows()
            raise
        self.tracker.take_over()

    def write(self, position: int) -> None:
        """Write the values at a position into every group.

        Raises:
            ConfigError: A group has an invalid bound or multiplier, in which case other groups may
                have been written. Or a newer scheduler writes these groups.
        """
        # `_refresh` is inlined, because with one group, calls take most of the time.
        sole = self.tracker.sole
        groups = self.tracker.groups() if sole is None else sole.param_groups
        known = self._known
        if len(groups) == len(known) == 1:
            is_same = groups[0] is known[0]
        else:
            is_same = len(groups) == len(known) and all(map(is_, groups, known))
        if not is_same:
            self._rebind(position)
        for row in self._rows:
            if not row.fill(position):
                self._write_changed(position)
                break
        if self.tracker.buffers:
            self._write_buffers()
        self.position = position
        if self._by_others:
            notices.name_other_writes(self._by_others, self.tracker)

    def _write_changed(self, position: int) -> None:
        """Write all rows, after a check, because something has changed in one."""
        for row in self._rows:
            row.check(position)
        for row in self._rows:
            if not row.fill(position):
                row.write(position)

    def _write_buffers(self) -> None:
        """Copy the numbers of the rows into the tensors, and note what others have written."""
        for buffer in self.tracker.buffers:
            index = None if self.tracker.has_named_writes else buffer.changed()
            if index is not None and not self._is_fresh and not self._by_others:
                tensor = buffer.tensors[index]
                self._by_others += [
                    Written(one, key, tensor.detach().clone(), (tensor, None))
                    for one in self.tracker.tracked
                    for key, held in one.tensors.items()
                    if held is tensor
                ]
            buffer.write()
        self._is_fresh = False

    def write_back(self) -> None:
        """Undo a failed `write`, by writing the present values again."""
        if not self.tracker.is_replaced:  # else a newer scheduler writes these groups
            for row in self._rows:
                with suppress(ConfigError):
                    row.write_back(self.position)

    def values(self, position: int) -> list[dict[str, float]]:
        """Return the values that `write` would write, by field key, for each group.

        Raises:
            ConfigError: A group has an invalid bound or multiplier.
        """
        self._refresh()
        found: list[dict[str, float]] = [{} for _ in self.tracker.tracked]
        for row in self._rows:
            for place, value in row.values(position):
                found[place][row.field.key] = value
        return found

    def metrics(self, position: int) -> dict[str, float]:
        """Return the values that `write` would write, as a flat dict by field and group."""
        values = self.values(position)
        labels = self.tracker.labels()
        return {
            f"{key}/{label}": value
            for label, one in zip(labels, values, strict=True)
            for key, value in one.items()
        }

    def held(self, key: str, position: int) -> list[float]:
        """Return one field of every group: the scheduled value, or else the value it holds."""
        return [
            values[key] if key in values else group_fields.plain(group_fields.get(one.group, key))
            for values, one in zip(self.values(position), self.tracker.tracked, strict=True)
        ]

    def bounded(self, group: Group, key: str, position: int) -> float:
        """Return one field's value between a group's bounds, without its ratio and multiplier."""
        index = [field.key for field in self.plan.fields].index(key)
        followed = self.plan.followed(None, index)
        row = Row(followed)
        bounds = row.bounds_of(TrackedGroup(group, 0, 0))
        if bounds is None:
            return followed.curve(position)
        return row.between().at(position)(*bounds)

    def write_multipliers(self) -> None:
        """Write into each group the multiplier that results in its present values.

        As in NeMo, groups with a multiplier, or with bounds of lr, are not changed.
        """
        self._refresh()
        for members in self._followed:
            for one, followed, ratio in members:
                field, group = followed.field, one.group
                bounds = {field.upper, field.lower} if field.key == "lr" else set()
                if field.multiplier and group.keys().isdisjoint({field.multiplier, *bounds}):
                    group[field.multiplier] = ratio

    def check_names(self, known: Plan | None = None) -> None:
        """Check that the groups have the fields and names of the plan.

        Args:
            known: A plan whose fields and names groups may lack, because another rank has them.

        Raises:
            ConfigError: No group has a field, or no name matches a pattern.
        """
        if self.tracker.tracked:
            refuse(self.say_missing(self.missing(known)))

    def missing(self, known: Plan | None = None) -> list[Path]:
        """Return the fields that no group has, and the patterns that no name matches."""
        tracked = self.tracker.tracked
        fields = [
            Path(field.key)
            for field in self.plan.fields
            # On a pipeline stage, known fields may belong to another stage's groups.
            if not (known is not None and field in known.fields)
            and not (field.is_added or any(one.own_value(field.key) is not None for one in tracked))
        ]
        paths = set() if known is None else {one.path for one in known.overrides}
        unmatched = self.plan.unmatched(self.tracker.names())
        return fields + [one.path for one in unmatched if one.path not in paths]

    def say_missing(self, missing: Iterable[ratios.Missing]) -> list[str]:
        """Return a sentence for each name or field that no group has."""
        names = self.tracker.names()
        has = ratios.named_groups(names)
        sentences = []
        for one in missing:
            if isinstance(one, str):
                sentences.append(f"reference={one!r}: no group has this name; {has}")
            elif one.pattern is None:
                sentences.append(self._missing(one.field))
            else:
                close = near_miss(one.pattern, names)
                rule = f"no group's name matches {one.pattern!r}{close}"
                sentences.append(f"{one}: {rule}; {has}")
        return sentences

    def check_groups(self) -> None:
        """Check that every group can hold its scheduled values.

        Raises:
            ConfigError: Several patterns set one field of a group, a value is out of range, or the
                weight of a running mean would reach 1.
        """
        for members in self._followed:
            self._check_group(members)

    def check_fields(self) -> None:
        """Check that every group still has its scheduled fields.

        Raises:
            ConfigError: A part of a tuple was removed, or a field is None.
        """
        for one, followed, _ in itertools.chain.from_iterable(self._followed):
            if is_removed(one.group, followed.field.key):
                raise removed(one, followed.field.key)

    def reaches(self) -> Iterator[Reach]:
        """Yield for each field how high the groups with a ratio come."""
        for index, field in enumerate(self.plan.fields if self.keep_ratios else ()):
            found: dict[float, Reach] = {}
            for one in self.tracker.tracked:
                own = one.own_value(field.key)
                if not own or field.key in one.ratios:
                    continue
                if not ratios.takes_part(one, self.plan, index):
                    continue
                followed = self.plan.followed(one.name, index)
                peak, limit = followed.curve.max_value * followed.number, _limit(one, field)
                # Among groups with one limit, the same group is highest for every reference.
                if limit not in found or own * peak > found[limit].own * found[limit].peak:
                    found[limit] = Reach(
                        key=field.key,
                        group=str(one),
                        own=own,
                        peak=peak,
                        is_weight=field.is_weight,
                        limit=limit,
                    )
            yield from found.values()

    def _missing(self, key: str) -> str:
        """Return a text about a field that no group has, with the fields of the groups."""
        names = (group_fields.names_in(one.group) for one in self.tracker.tracked)
        has = dict.fromkeys(name for group in names for name in group)
        alias = _ALIASES.get(key)
        close = f"; did you mean {alias!r}?" if alias in has else near_miss(key, has)
        return f"{key}: no group of the optimizer has this field{close} (they have {listed(has)})"

    def _check_group(self, members: Iterable[Member]) -> None:
        for member in members:
            one, field, reached = member.one, member.followed.field, highest(member)
            if field.is_weight and reached >= 1:
                raise ConfigError(
                    f"{self._would_reach(member, reached)}: must be below 1, as the weight of a "
                    "running mean; use a lower schedule, or another one for this group in groups="
                )
            if not reached <= _limit(one, field):
                found = group_fields.get(one.group, field.key)
                is_tensor = isinstance(found, torch.Tensor)
                holder = f"a tensor of {found.dtype}" if is_tensor else "a float"
                raise ConfigError(
                    f"{self._would_reach(member, reached)}, which {holder} cannot hold; use a "
                    "lower schedule or multiplier"
                )

    def _would_reach(self, member: Member, reached: float) -> str:
        # Slow, because it checks every group, so only for errors.
        key, came = member.followed.field.key, self._source(member)
        return f"{member.one}: {key} would reach {reached!r} ({came})"

    def _source(self, member: Member) -> str:
        return source(member, self._reference_text(member.followed.field))

    def _reference_text(self, field: Field) -> str:
        """Return the reference of a field as text."""
        reference = self.references.get(field.key)
        index = [one.key for one in self.plan.fields].index(field.key)
        same = [one for one in self.tracker.tracked if one.own_value(field.key) == reference]
        # Preferably a group without an override.
        is_plain = [self.plan.followed(one.name, index).pattern == "" for one in same]
        found = same[is_plain.index(True) if True in is_plain else 0] if same else None
        if found is None:
            return "no group" if reference is None else f"{reference:g}"
        return f"group {found.name!r}" if isinstance(found.name, str) else f"group {found.place}"

    def inventory(self) -> Inventory:
        """Return the names and fields of the groups."""
        self._refresh()
        return self.tracker.inventory()

    def describe(self) -> GroupTable:
        """Return the value of each field in each group, and its source."""
        values = self.values(self.position)
        texts = {field.key: self._reference_text(field) for field in self.plan.fields}
        return GroupTable(
            GroupRow(
                group=one.place,
                name="" if one.name is None else str(one.name),
                optimizer=one.optimizer,
                parameters=sum(param.numel() for param in one.group.get("params", ())),
                field=member.followed.field.key,
                value=values[one.place][member.followed.field.key],
                highest=highest(member),
                source=source(member, texts[member.followed.field.key]),
            )
            for one, members in zip(self.tracker.tracked, self._followed, strict=True)
            for member in members
        )

    def findings(self, declared: Plan) -> list[Finding]:
        """Return warnings about valid groups that are probably mistakes.

        Args:
            declared: The plan of the constructor's config.
        """
        self._refresh()
        is_measured = self.keep_ratios and not self.has_reference
        found = notices.findings(
            self.tracker.tracked, self._followed, declared, is_measured=is_measured
        )
        return list(found)

    def note_load(self, optimizer: Optimizer, saved: Sequence[Group]) -> None:
        """Remember the groups' contents just before their optimizer is loaded."""
        self._refresh()
        self.tracker.note_load(optimizer, saved, self.plan.fields)

    def note_missed_load(self, optimizer: Any, *, is_load: bool) -> list[str] | None:
        """Find out whether an optimizer was loaded without hooks, and remember the loaded values.

        Returns:
            A sentence for each value that differs from the last write. None if there was no load.
        """
        # Before `_refresh`, which restores the script's tensors.
        now = [Snapshot.of(group, self.plan.fields) for group in optimizer.param_groups]
        self._refresh()
        return self.tracker.note_missed_load(optimizer, now, is_load=is_load)

    def resolve_load(self, optimizer: Optimizer, policy: Policy) -> list[str]:
        """Choose by policy between the script's bounds and multipliers and the loaded ones.

        Returns:
            A sentence for each difference.
        """
        self._rebind(self.position, loaded=optimizer)
        tracked = self.tracker.tracked_of(optimizer)
        named = any(one.leftovers for one in self.tracker.tracked)
        lines = self.tracker.resolve_overrides(optimizer, self.plan.fields, policy)
        if not named and any(one.leftovers for one in tracked):
            notices.name_leftovers(tracked)
            self._build_rows()  # some keys are no longer overrides
        return lines

    def undo_load(self, optimizer: Optimizer) -> None:
        """Restore the bounds and multipliers from before the load."""
        self.tracker.put_back_overrides(optimizer, self.plan.fields)

    def carried_differences(
        self, saved: Plan, position: int, optimizer: Optimizer | None = None
    ) -> list[str]:
        """Return a text for each loaded value that differs from a plan's value at a position.

        Args:
            saved: The plan of the run that saved the optimizers.
            position: Position of that run, in units.
            optimizer: The loaded optimizer. None for all.
        """
        self._refresh()
        lines = []
        tracker = self.tracker
        tracked = tracker.tracked if optimizer is None else tracker.tracked_of(optimizer)
        for one in tracked:
            for member in self._follow(one, saved) if one.carried else ():
                key = member.followed.field.key
                found = one.carried.get(key)
                is_open = one.is_late and key not in one.ratios
                if found is None or is_open or key not in self.references:
                    continue
                try:
                    value = self._carried_value(one, member, position)
                except ConfigError:
                    continue  # an invalid override, which the policy may have dropped since
                if not group_fields.holds(found, value, rel_tol=1e-6):
                    lines.append(
                        f"{one}: {key} is {group_fields.plain(found)!r} in the optimizer "
                        f"checkpoint, but {value!r} by the scheduler's checkpoint at position "
                        f"{position} (this script's source of the group's value: "
                        f"{source(member, self._reference_text(member.followed.field))})"
                    )
        return lines

    def _carried_value(self, one: TrackedGroup, member: Member, position: int) -> float:
        """Return the value that a loaded optimizer should have, with its loaded overrides."""
        carrying = replace(one, group=one.carried)
        row = row_of(member._replace(one=carrying))
        return row.values(position)[0][1]

    def measure_late(self, saved: Plan, position: int) -> bool:
        """Compute the ratios of groups that were added late, from their optimizer's checkpoint.

        Args:
            saved: The plan of the run that saved it.
            position: Position of that run, in units.

        Returns:
            Whether a ratio was computed.

        Raises:
            ConfigError: As for `check_groups`, for a group with its ratio. Nothing has changed.
        """
        measured = self._late_ratios(saved, position)
        for one, found, unmeasurable in measured:
            for field in unmeasurable:
                notices.name_unmeasurable(one, field.key, field.multiplier, position)
            one.ratios = {**one.ratios, **found}
            one.is_open = False
        if measured:
            self.tracker.remember()
        is_any = any(found for _, found, _ in measured)
        if is_any:
            self._build_rows()
        return is_any

    def check_late(self, saved: Plan, position: int) -> None:
        """Raise what `measure_late` would raise, without changing anything."""
        self._late_ratios(saved, position)

    def _late_ratios(
        self, saved: Plan, position: int
    ) -> list[tuple[TrackedGroup, dict[str, float], list[Field]]]:
        """Return each open group, its ratios, and its fields that are 0 at the position."""
        measured = []
        for one in self.tracker.tracked if self.keep_ratios else ():
            if not one.is_open or not one.carried:
                continue
            found: dict[str, float] = {}
            unmeasurable = []
            for index, field in enumerate(saved.fields):
                carried = one.carried.get(field.key)
                number = group_fields.plain(carried)
                if not isinstance(number, int | float) or not ratios.takes_part(one, saved, index):
                    continue
                followed = saved.followed(one.name, index)
                value = followed.curve(position) * followed.number
                if value == 0:
                    unmeasurable.append(field)
                    continue
                found[field.key] = ratios.measured(number / value, carried)
            with_ratios = replace(one, ratios={**one.ratios, **found})
            self._check_group(self._follow(with_ratios, self.plan))
            measured.append((one, found, unmeasurable))
        return measured

    def forget_equal(self, optimizer: Optimizer) -> None:
        """Forget loaded values that equal the written ones, because they may not be from a run.

        Accelerate's `prepare` loads every new optimizer into itself.
        """
        tracked = self.tracker.tracked_of(optimizer)
        if all(
            group_fields.holds(
                one.carried.get(member.followed.field.key),
                row_of(member).values(self.position)[0][1],
                rel_tol=1e-6,
            )
            for one in tracked
            for member in self._followed[one.place]
        ):
            for one in tracked:
                if not one.is_open:  # else its ratio may still be computed from them
                    one.carried = {}

    def carried_lr(self) -> tuple[TrackedGroup, float] | None:
        """Return the first group whose loaded lr differs from the written one, and that lr."""
        self._refresh()
        if not any(one.carried for one in self.tracker.tracked):
            return None
        for one, values in zip(self.tracker.tracked, self.values(self.position), strict=True):
            found = one.carried.get("lr")
            is_other = found is not None and "lr" in values
            if is_other and not group_fields.holds(found, values["lr"], rel_tol=1e-6):
                return one, group_fields.plain(found)
        return None

    def wrong_values(self, position: int) -> list[str]:
        """Read every group, and return a text for each value that is not the scheduled one."""
        expected = self.values(position)  # first, because it recognises replaced groups
        return [
            f"{one}: {key} is {group_fields.plain(group_fields.get(one.group, key))!r} and should "
            f"be {value!r}"
            for one, values in zip(self.tracker.tracked, expected, strict=True)
            for key, value in values.items()
            if not group_fields.holds(group_fields.get(one.group, key), value)
        ]

    def _refresh(self) -> None:
        """Track the optimizers' present groups, if they are not the known ones.

        Groups are compared by identity, because comparing dicts would compare their parameters.
        """
        groups, known = self.tracker.groups(), self._known
        if len(groups) != len(known) or not all(map(is_, groups, known)):
            self._rebind(self.position)

    def _rebind(self, position: int, loaded: Optimizer | None = None) -> None:
        """Track the present groups.

        Args:
            position: The position that is written next.
            loaded: An optimizer whose groups a load has just replaced.
        """
        if self.tracker.is_replaced:
            raise ConfigError(
                "a newer scheduler writes the groups of this scheduler; step only the newer one, "
                "or delete it and build this one again"
            )
        if loaded is not None and self._follow_load(loaded):
            return
        late = self.tracker.new_groups(self.plan.fields) if loaded is None and self._known else None
        if late is not None:
            for one in late:
                self._admit(one)
            self.tracker.append(late, self.plan.fields)
            for one in late:
                self._add(one)
        else:
            late = self.tracker.rebind(self.plan.fields, self._admit, loaded)
            self._build_rows()
            self.tracker.remember()
        for one in late:
            members = self._followed[one.place]
            notices.name_late(one, members, self.plan, self.position, position)

    def _follow_load(self, loaded: Optimizer) -> bool:
        """Track the groups of one optimizer, if a load has only replaced their dicts.

        This is faster for a job with hundreds of optimizers.
        """
        if len(self._known) != len(self.tracker.tracked):
            return False
        former = self.tracker.follow_load(loaded, self.plan.fields)
        for group, one in former or ():
            self._known[one.place] = one.group
            for row in self._rows:
                row.exchange(group, one)
        groups = self.tracker.groups()
        is_same = len(groups) == len(self._known) and all(map(is_, groups, self._known))
        return former is not None and is_same

    def _admit(self, one: TrackedGroup) -> None:
        """Set the ratios of a group that was added during the run, by the schedule's present value.

        A group that counts as one from the start has the ratio of its own value to the reference.
        """
        defaults = getattr(self.tracker.optimizers()[one.source], "defaults", None)
        for index, field in enumerate(self.plan.fields):
            own = one.own_value(field.key)
            is_of_start = (
                self.position == 0
                or not self.keep_ratios
                or own is None
                or (field.key == "lr" and one.has_initial_lr)
                or ratios.is_default(one, field.key, defaults)
                or not ratios.takes_part(one, self.plan, index)
            )
            followed = self.plan.followed(one.name, index)
            present = followed.curve(self.position) * followed.number
            if is_of_start or own is None or present == 0:
                continue
            ratio = ratios.measured(own / present, group_fields.get(one.group, field.key))
            if ratio <= self._largest_ratio(field.key):
                one.ratios = {**one.ratios, field.key: ratio}
        one.is_open = self.tracker.is_waiting = True
        self._check_group(self._follow(one, self.plan))

    def _largest_ratio(self, key: str) -> float:
        """Return the largest ratio of the groups from the start."""
        if self._largest is None:
            self._largest = {}
            for member in (member for members in self._followed for member in members):
                if not member.one.is_late:
                    known = self._largest.get(member.followed.field.key, member.ratio)
                    self._largest[member.followed.field.key] = max(known, member.ratio)
        return self._largest.get(key, 1.0)

    def _build_rows(self) -> None:
        """Sort the groups by field, curve and factor. Groups with one factor share a product."""
        self._rows, self._block, self._followed, self._known = [], {}, [], []
        self._is_fresh = True
        self._largest = None
        for one in self.tracker.tracked:
            self._add(one)

    def _add(self, one: TrackedGroup) -> None:
        """Add a group to the rows of its block."""
        if len(self._known) % _BLOCK == 0:
            self._block = {}
        members = (*self._follow(one, self.plan),)
        for member in members:
            followed = member.followed
            place = followed.field.key, id(followed.curve), followed.own is None
            if place not in self._block:
                self._block[place] = self._row(followed)
                self._rows.append(self._block[place])
            self._block[place].add(member)
        self._followed.append(members)
        self._known.append(one.group)

    def _row(self, followed: Followed) -> Row:
        return Row(followed, self._by_others, self.tracker.slots)

    def _follow(self, one: TrackedGroup, plan: Plan) -> Iterator[Member]:
        """Yield the curve of each field that a group has."""
        for index, field in enumerate(plan.fields):
            if field.is_added or one.own_value(field.key) is not None:
                followed = plan.followed(one.name, index)
                ratio = 1.0 if followed.own is not None else self._ratio(one, field.key)
                yield Member(one, followed, ratio)

    def _ratio(self, one: TrackedGroup, key: str) -> float:
        """Return a group's own value over the reference, such as 0 for a no-decay group."""
        if self.keep_ratios and key in one.ratios:
            return one.ratios[key]
        own, reference = one.own_value(key), self.references.get(key)
        if not self.keep_ratios or own is None or reference is None or own == reference:
            return 1.0
        if math.isinf(own / reference):
            raise ConfigError(
                f"{one}: {key}={own!r} is too large for the reference {reference!r}; pass another "
                "reference="
            )
        if one.is_late:  # rounded, so that a resume computes it from the optimizer's checkpoint
            return ratios.measured(own / reference, group_fields.get(one.group, key))
        return own / reference

    def _refuse_lost_ratios(self) -> None:
        """Warn about ratios from an optimizer that was loaded before, and refuse zeros."""
        tracked = self.tracker.tracked
        # Own values of an optimizer with an earlier scheduler are known, so it may be loaded.
        loaded = any(was_used(one) for _, one in self.tracker.sources_without_memory())
        if not (loaded and self.keep_ratios and len(tracked) > 1):
            return
        for index, field in enumerate(self.plan.fields):
            having = [one for one in tracked if ratios.takes_part(one, self.plan, index)]
            is_needed = self.plan.curves[index].max_value > 0 and bool(having)
            if is_needed and all(one.own[field.key] == 0 for one in tracked):
                way = repr(field.multiplier) if field.multiplier else "a schedule in groups="
                raise ConfigError(
                    f"every group's {field.key} is 0 in an optimizer that was loaded (or stepped) "
                    "before the scheduler was built, so the ratios between the groups are lost; "
                    f"build the scheduler first, or give each group {way}"
                )
            logger.warning(
                "the optimizer was loaded (or stepped) before the scheduler was built, so the "
                "ratios of its groups are computed from its present values: %s %s",
                field.key,
                [self._ratio(one, field.key) for one in tracked],
            )


def _limit(one: TrackedGroup, field: Field) -> float:
    """Return the largest number that a group can hold for a field."""
    found = group_fields.get(one.group, field.key)
    if isinstance(found, torch.Tensor):
        return float(torch.finfo(found.dtype).max)
    return sys.float_info.max
