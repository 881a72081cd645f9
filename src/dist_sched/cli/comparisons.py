"""Comparisons: what a resume from one schedule to another changes, and because of which entries."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from dist_sched._config import views
from dist_sched._config.config import ABSENT, Config, Sides, with_history
from dist_sched._config.history import HISTORY
from dist_sched._config.path import Path
from dist_sched._config.plan import value_at
from dist_sched._config.policy import CONFIG
from dist_sched._state.reconciliation import reconcile_checkpoint, saved_curve
from dist_sched.cli.inputs import CheckpointInput
from dist_sched.errors import ConfigError, ReconcileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dist_sched._config.policy import Policy
    from dist_sched._rules import Number
    from dist_sched._state.format import Checkpoint
    from dist_sched._state.report import Reconciliation, Row
    from dist_sched.cli.inputs import Input

_MOST_TRIED = 40
"""Maximum number of different entries that are tried one by one."""

SAME, DIFFERENT, UNKNOWN = "same", "different", "unknown"


@dataclass(frozen=True, slots=True)
class Value:
    """A field's value at a position. None for a side that does not schedule the field."""

    position: int
    field: str
    old: float | None
    new: float | None
    used: float | None

    @property
    def moves(self) -> bool:
        """Whether the resume changes it, by more than rounding."""
        return None not in (self.old, self.used) and not _is_close(self.old, self.used)

    @property
    def differs(self) -> bool:
        """Whether the two sides have different values, or the resume changes the value."""
        return self.moves or not _is_close(self.old, self.new)


def _is_close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    # A config that fork wrote in phases agrees with upstream's formulas only up to rounding.
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-300)


class Extension(NamedTuple):
    """A later horizon of the new side that the policy drops."""

    field: str
    asked: Number
    kept: Number
    entry: str | None
    """The entry whose policy would keep it. None if there is no single one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What would change if a run with the schedule new resumed from old."""

    old: Input
    new: Input
    policy: Policy
    report: Reconciliation
    reasons: tuple[str, ...]
    """Why the resume would be refused, if it would be."""
    checkpoint: Checkpoint
    """The checkpoint of old."""
    sides: Mapping[Path, Sides]
    """New's and old's values, entry by entry."""
    declared: Config
    """New's config."""
    saved: Config | None
    """Old's config. None if old has only a position."""
    used: Config | None
    """The outcome. None if it was refused."""

    @property
    def is_entrywise(self) -> bool:
        """Whether old has entries of new's scheduler."""
        return bool(self.checkpoint.parts)

    @property
    def result(self) -> str:
        """Whether the two sides are the same, different, or that is unknown."""
        if self.reasons:
            return DIFFERENT
        if not self.is_entrywise:
            return UNKNOWN if self.saved is None else DIFFERENT
        return DIFFERENT if self.differing() else SAME

    def differing(self) -> list[Row]:
        """Return the rows of entries that differ, or that only new has."""
        # Entries that Megatron and NeMo never save do not count as differences.
        is_whole = self.is_entrywise and self.checkpoint.unit is not None
        return [
            row
            for row in self.report.rows
            if row.changed or (is_whole and self.only_side(row.name) is self.new)
        ]

    @property
    def labels(self) -> tuple[str, str]:
        """The labels of old and new."""
        old, new = self.old.label, self.new.label
        if old != new:
            return old, new
        return f"old: {old}", f"new: {new}"

    def label(self, side: Input) -> str:
        """Return the label of a side."""
        return self.labels[side is self.new]

    def only_side(self, entry: str) -> Input | None:
        """Return the only side that has an entry, or None if both have it."""
        both = self.sides.get(Path.parse(entry))
        if both is None or ABSENT not in both[:2]:
            return None
        return self.old if both.config is ABSENT else self.new

    def lacking_side(self, value: Value) -> Input | None:
        """Return the side that does not schedule a value's field, or None if both may."""
        if value.new is None:
            return self.new
        return self.old if value.old is None and self.saved is not None else None

    def values(self, positions: Iterable[int], used: Config | None = None) -> list[Value]:
        """Return each field's values at positions, under the outcome or another config."""
        configs = (self.saved, self.declared, used or self.used)
        found = []
        for position in positions:
            old, new, after = (
                {} if config is None else config.plan.values(position) for config in configs
            )
            # A state of torch has no schedule, but it has the lr for the next update.
            if self.saved is None and position == self.report.position:
                old = dict(self.checkpoint.values)
            found += [
                Value(position, str(path), *(value_at(side, path) for side in (old, new, after)))
                for path in dict.fromkeys((*old, *new, *after))
            ]
        return found

    def moved_under(self, used: Config) -> list[Value]:
        """Return the values that move at old's position under a config."""
        return [value for value in self.values([self.report.position], used) if value.moves]

    def moved_by(self, entry: str) -> list[Value] | None:
        """Return the values that change at old's position if one entry is new's and the rest old's.

        Return None if these entries are not a valid config.
        """
        # An entry that only one side has cannot be the other's.
        used = {
            path: both.config if ABSENT in both[:2] or str(path) == entry else both.checkpoint
            for path, both in self.sides.items()
        }
        history = () if entry == HISTORY else self.checkpoint.history
        try:
            return self.moved_under(
                with_history(self.declared.merge(self.checkpoint.parts, used), history)
            )
        except ConfigError:
            return None

    def dropped_extensions(self) -> list[Extension]:
        """Return the later horizons of new that the policy drops."""
        if self.used is None or not self.is_entrywise:
            return []
        asked, kept = _horizons(self.declared), _horizons(self.used)
        return [
            Extension(field, asked[field], kept[field], self._entry_for(field, asked[field]))
            for field in asked
            if asked[field] > kept.get(field, math.inf)
        ]

    def _entry_for(self, field: str, horizon: Number) -> str | None:
        """Return the entry with which a field ends at a horizon, if new's value is used."""
        names = [
            row.name
            for row in self.differing()
            if (both := self.sides.get(Path.parse(row.name))) is not None and both.field == field
        ]
        for name in [*names[:_MOST_TRIED], field]:
            try:
                tried = self.declared.parse_policy({**self.policy.words, name: CONFIG})
                unit = self.new.unit or self.checkpoint.unit or "steps"
                outcome = reconcile_checkpoint(self.declared, unit, self.checkpoint, tried)
            except (ConfigError, ReconcileError):
                continue
            if _horizons(outcome.effective).get(field) == horizon:
                return name
        return None


def _horizons(config: Config) -> dict[str, Number]:
    return {track.label: track.horizon for track in views.tracks(config)}


def compare(old: Input, new: Input, policy: Policy) -> Comparison:
    """Reconcile new's config with old's state, as a resume would.

    Raises:
        StateError: New has no schedule.
    """
    declared = new.config
    checkpoint = old.saved.for_kind(type(declared))
    # New's late changes are part of its entries, so old's must be, too.
    is_changed = isinstance(new, CheckpointInput) and bool(new.saved.history)
    if is_changed and checkpoint.parts and old.known_config is not None:
        checkpoint = replace(checkpoint, parts=old.known_config.parts(), history=())
    # A state of another library has no unit, which is not a difference.
    unit = new.unit or checkpoint.unit or "steps"
    used: Config | None
    reasons: tuple[str, ...] = ()
    try:
        _, _, used, report = reconcile_checkpoint(declared, unit, checkpoint, policy)
    except ReconcileError as error:
        if error.reconciliation is None:
            raise
        used, report, reasons = None, error.reconciliation, error.reasons
    return Comparison(
        old=old,
        new=new,
        policy=policy,
        report=report,
        reasons=reasons,
        checkpoint=checkpoint,
        sides=declared.compare(checkpoint.parts),
        declared=declared,
        saved=saved_curve(declared, checkpoint) if checkpoint.parts else old.known_config,
        used=used,
    )
