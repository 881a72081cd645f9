"""Comparisons: what a resume of one schedule from another changes, and which entries move it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dist_sched._config.config import ABSENT, Config, Sides, with_history
from dist_sched._config.history import HISTORY
from dist_sched._config.plan import value_at
from dist_sched._state.reconciliation import reconcile_checkpoint, saved_curve
from dist_sched.cli.inputs import CheckpointInput
from dist_sched.errors import ConfigError, ReconcileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dist_sched._config.path import Path
    from dist_sched._config.plan import Plan
    from dist_sched._config.policy import Policy
    from dist_sched._state.format import Checkpoint
    from dist_sched._state.report import Reconciliation, Row
    from dist_sched.cli.inputs import Input

SAME, DIFFERENT, UNKNOWN = RESULTS = ("same", "different", "unknown")


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
    declared: Config
    """A's config."""
    checkpoint: Checkpoint
    """What a load of B finds."""
    sides: Mapping[Path, Sides]
    """What A and B have, entry by entry."""
    saved: Config | None
    """B's config; None where B has only a position."""
    b_plan: Plan | None
    a_plan: Plan
    used_plan: Plan | None
    """The outcome's; None where it was refused."""

    @property
    def is_entrywise(self) -> bool:
        """Whether B has entries of A's scheduler."""
        return bool(self.checkpoint.parts)

    @property
    def added(self) -> frozenset[str]:
        """Entries that only A has, where B has all the entries of its run."""
        # What Megatron and NeMo never save is no difference where it is missing.
        is_whole = self.is_entrywise and self.checkpoint.unit is not None
        absent = (str(path) for path, both in self.sides.items() if both.checkpoint is ABSENT)
        return frozenset(absent if is_whole else ())

    @property
    def result(self) -> str:
        """One of `RESULTS`."""
        if self.reasons:
            return DIFFERENT
        if not self.is_entrywise:
            return UNKNOWN if self.saved is None else DIFFERENT
        return DIFFERENT if self.report.changed or self.added else SAME

    def differing(self) -> list[Row]:
        """Return the rows of entries that differ, or that only A has."""
        return [row for row in self.report.rows if row.changed or row.name in self.added]

    def only_side(self, entry: str) -> str | None:
        """Return which side has an entry; None if both have it."""
        both = next((both for path, both in self.sides.items() if str(path) == entry), None)
        if both is None or ABSENT not in both[:2]:
            return None
        return "B" if both.config is ABSENT else "A"

    def lacking_side(self, value: Value) -> str | None:
        """Return which side does not schedule a value's field; None if both do, or may."""
        if value.a is None:
            return "A"
        return "B" if value.b is None and self.saved is not None else None

    def values(self, positions: Iterable[int], used: Plan | None = None) -> list[Value]:
        """Return each field's values at positions, under the outcome's plan or another one."""
        found = []
        for position in positions:
            b, a, after = (
                {} if plan is None else plan.values(position)
                for plan in (self.b_plan, self.a_plan, used or self.used_plan)
            )
            # A state of torch has no schedule, but the lr that it had for the next update.
            if self.saved is None and position == self.report.position:
                b = dict(self.checkpoint.values)
            found += [
                Value(position, str(path), *(value_at(side, path) for side in (b, a, after)))
                for path in dict.fromkeys((*b, *a, *after))
            ]
        return found

    def moved_under(self, used: Plan) -> list[Value]:
        """Return the values that move at B's position under a plan."""
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
            config = with_history(self.declared.merge(self.checkpoint.parts, used), history)
        except ConfigError:
            return None
        return self.moved_under(config.plan)


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
        outcome = reconcile_checkpoint(declared, unit, checkpoint, policy)
        used, report = outcome.effective, outcome.report
    except ReconcileError as error:
        if error.reconciliation is None:
            raise
        used, report, reasons = None, error.reconciliation, error.reasons
    saved = saved_curve(declared, checkpoint) if checkpoint.parts else b.known_config
    return Comparison(
        report=report,
        reasons=reasons,
        declared=declared,
        checkpoint=checkpoint,
        sides=declared.compare(checkpoint.parts),
        saved=saved,
        b_plan=None if saved is None else saved.plan,
        a_plan=declared.plan,
        used_plan=None if used is None else used.plan,
    )
