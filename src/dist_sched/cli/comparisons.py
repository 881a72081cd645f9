"""Comparisons: what a resume of one schedule from another changes, and which entries move it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dist_sched._config.config import ABSENT, Config, Sides, with_history
from dist_sched._config.history import HISTORY
from dist_sched._config.path import Path
from dist_sched._config.plan import value_at
from dist_sched._state.reconciliation import reconcile_checkpoint, saved_curve
from dist_sched.cli.inputs import CheckpointInput
from dist_sched.errors import ConfigError, ReconcileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dist_sched._config.policy import Policy
    from dist_sched._state.format import Checkpoint
    from dist_sched._state.report import Reconciliation, Row
    from dist_sched.cli.inputs import Input

SAME, DIFFERENT, UNKNOWN = "same", "different", "unknown"


@dataclass(frozen=True, slots=True)
class Value:
    """A field's value at a position; None for a side that does not schedule it."""

    position: int
    field: str
    b: float | None
    a: float | None
    used: float | None

    @property
    def moves(self) -> bool:
        """Whether the resume changes it, by more than rounding."""
        if self.b is None or self.used is None:
            return False
        # A config that fork wrote in phases agrees with upstream's formulas only up to rounding.
        return not math.isclose(self.b, self.used, rel_tol=1e-9, abs_tol=1e-300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a resume of A from B would change."""

    report: Reconciliation
    reasons: tuple[str, ...]
    """Why the resume would be refused; empty if it would not."""
    checkpoint: Checkpoint
    """What a load of B finds."""
    sides: Mapping[Path, Sides]
    """What A and B have, entry by entry."""
    declared: Config
    """A's config."""
    saved: Config | None
    """B's config; None where B has only a position."""
    used: Config | None
    """The outcome; None where it was refused."""

    @property
    def is_entrywise(self) -> bool:
        """Whether B has entries of A's scheduler."""
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
        """Return the rows of entries that differ, or that only A has."""
        # What Megatron and NeMo never save is no difference where it is missing.
        is_whole = self.is_entrywise and self.checkpoint.unit is not None
        return [
            row
            for row in self.report.rows
            if row.changed or (is_whole and self.only_side(row.name) == "A")
        ]

    def only_side(self, entry: str) -> str | None:
        """Return which side has an entry; None if both have it."""
        both = self.sides.get(Path.parse(entry))
        if both is None or ABSENT not in both[:2]:
            return None
        return "B" if both.config is ABSENT else "A"

    def lacking_side(self, value: Value) -> str | None:
        """Return which side does not schedule a value's field; None if both do, or may."""
        if value.a is None:
            return "A"
        return "B" if value.b is None and self.saved is not None else None

    def values(self, positions: Iterable[int], used: Config | None = None) -> list[Value]:
        """Return each field's values at positions, under the outcome or another config."""
        configs = (self.saved, self.declared, used or self.used)
        found = []
        for position in positions:
            b, a, after = (
                {} if config is None else config.plan.values(position) for config in configs
            )
            # A state of torch has no schedule, but the lr that it had for the next update.
            if self.saved is None and position == self.report.position:
                b = dict(self.checkpoint.values)
            found += [
                Value(position, str(path), *(value_at(side, path) for side in (b, a, after)))
                for path in dict.fromkeys((*b, *a, *after))
            ]
        return found

    def moved_under(self, used: Config) -> list[Value]:
        """Return the values that move at B's position under a config."""
        return [value for value in self.values([self.report.position], used) if value.moves]

    def moved_by(self, entry: str) -> list[Value] | None:
        """Return the values that move at B's position if one entry is A's and the rest B's.

        None where those entries make no legal config.
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


def compare(a: Input, b: Input, policy: Policy) -> Comparison:
    """Reconcile A's config and B's state as a resume would.

    Raises:
        StateError: A has no schedule.
    """
    declared = a.config
    checkpoint = b.saved.for_kind(type(declared))
    # A's late changes are part of its entries, so B's have to be part of B's.
    is_changed = isinstance(a, CheckpointInput) and bool(a.saved.history)
    if is_changed and checkpoint.parts and b.known_config is not None:
        checkpoint = replace(checkpoint, parts=b.known_config.parts(), history=())
    # A state of another library has no unit; then the units are not what differs.
    unit = a.unit or checkpoint.unit or "steps"
    used: Config | None
    reasons: tuple[str, ...] = ()
    try:
        _, _, used, report = reconcile_checkpoint(declared, unit, checkpoint, policy)
    except ReconcileError as error:
        if error.reconciliation is None:
            raise
        used, report, reasons = None, error.reconciliation, error.reasons
    return Comparison(
        report=report,
        reasons=reasons,
        checkpoint=checkpoint,
        sides=declared.compare(checkpoint.parts),
        declared=declared,
        saved=saved_curve(declared, checkpoint) if checkpoint.parts else b.known_config,
        used=used,
    )
