"""Comparisons: what a resume of one schedule from another changes, and which entries move it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dist_sched.config import ABSENT, Config, evolved
from dist_sched.courses import value_of
from dist_sched.errors import ConfigError, ReconcileError
from dist_sched.policies import LINEAGE
from dist_sched.reconciliation import Reconciliation, Row, reconcile_checkpoint, saved_curve
from dist_sched.state import TEXT_KEY, Checkpoint, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dist_sched.cli.subjects import Subject
    from dist_sched.policies import Policy

SAME, DIFFERENT, CANNOT_TELL = RESULTS = ("same", "different", "cannot tell")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a resume of one schedule from another would change."""

    report: Reconciliation
    refusal: tuple[str, ...] | None
    """Why the resume would be refused; None if it would not."""
    result: str
    """One of `RESULTS`."""
    declared: Config
    """A's curve."""
    told: Checkpoint
    """What a load of B finds."""
    saved: Config | None
    """B's curve; None where it tells none."""
    used: Config | None
    """The outcome's curve; None where it was refused."""

    @property
    def is_entrywise(self) -> bool:
        """Whether B tells entries of A's scheduler."""
        return bool(self.told.entries)

    def values(self, positions: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Give each field's values at positions, before and after."""
        for position in positions:
            after, before, used = (
                {} if config is None else config.courses().values(position)
                for config in (self.declared, self.saved, self.used)
            )
            if self.saved is None and position == self.report.position:
                before = dict(self.told.values)
            for field in dict.fromkeys((*before, *after, *used)):
                sides = {
                    "b": value_of(before, field),
                    "a": value_of(after, field),
                    "used": value_of(used, field),
                }
                yield {"position": position, "field": field, **sides}

    def differing(self) -> list[Row]:
        """Give the rows of entries that differ; those that A alone has, where B tells all it had.

        Those of different schedulers are not compared.
        """
        sides = self.declared.sides(self.told.entries)
        is_whole = self.is_entrywise and self.told.unit is not None
        added = {name for name, both in sides.items() if is_whole and both.checkpoint is ABSENT}
        return [row for row in self.report.rows if row.changed or row.name in added]

    def lone(self) -> dict[str, str]:
        """Name the entries that one side alone has, and that side."""
        sides = self.declared.sides(self.told.entries)
        return {
            name: "B" if both.config is ABSENT else "A"
            for name, both in sides.items()
            if ABSENT in both[:2]
        }

    def moved_by(self, name: str) -> list[dict[str, Any]] | None:
        """Give the values that move at B's position if one entry of B's is A's, the rest B's.

        Returns:
            Rows as of `values`; None where the entries make no legal config.
        """
        sides = self.declared.sides(self.told.entries)
        used = {
            entry: both.checkpoint if ABSENT not in both[:2] else both.config
            for entry, both in sides.items()
        }
        if name in sides:
            used[name] = sides[name].config
        lineage = () if name == LINEAGE else self.told.lineage
        try:
            config = evolved(self.declared.merged(self.told.entries, used), lineage)
        except ConfigError:
            return None
        return self.moved_to(config)

    def moved_to(self, used: Config) -> list[dict[str, Any]]:
        """Give the values that move at B's position if a curve is used; rows as of `values`."""
        found = replace(self, used=used).values([self.report.position])
        return [row for row in found if moves(row)]


def moves(row: Mapping[str, Any]) -> bool:
    """Tell whether a value is another one afterwards, by more than rounding."""
    before, after = row["b"], row["used"]
    if before is None or after is None:
        return False
    return not math.isclose(before, after, rel_tol=1e-9, abs_tol=1e-300)


def compare(mine: Subject, theirs: Subject, policy: Policy) -> Comparison:
    """Bring A's config and B's state together as a resume would.

    Args:
        mine: A.
        theirs: B.
        policy: Who wins.

    Raises:
        StateError: A tells no curve.
    """
    declared = mine.curve()
    told = _as_found(mine, theirs, declared)
    used, report, refusal = _settled(declared, mine.unit or told.unit or "steps", told, policy)
    saved = saved_curve(declared, told) if told.entries else theirs.config
    return Comparison(
        report=report,
        refusal=refusal,
        result=DIFFERENT if refusal is not None else _result(declared, told, saved, report),
        declared=declared,
        told=told,
        saved=saved,
        used=used,
    )


def _settled(
    declared: Config, unit: str, told: Checkpoint, policy: Policy
) -> tuple[Config | None, Reconciliation, tuple[str, ...] | None]:
    """Give the curve to use, the report, and why a resume would be refused."""
    try:
        config, lineage, report = reconcile_checkpoint(declared, unit, told, policy)
    except ReconcileError as error:
        if error.reconciliation is None:
            raise
        return None, error.reconciliation, error.reasons
    return evolved(config, lineage), report, None


def _as_found(mine: Subject, theirs: Subject, declared: Config) -> Checkpoint:
    """Give what a load of B would find; late changes as part of the curve where they are of A's."""
    told = unpack(theirs.as_state(), type(declared), own={TEXT_KEY: ""})
    is_changed = mine.checkpoint is not None and bool(mine.checkpoint.lineage)
    if is_changed and told.entries and theirs.config is not None:
        return replace(told, entries=theirs.config.parts(), lineage=())
    return told


def _result(
    declared: Config, told: Checkpoint, saved: Config | None, report: Reconciliation
) -> str:
    if not told.entries:
        return CANNOT_TELL if saved is None else DIFFERENT
    sides = declared.sides(told.entries).values()
    is_added = told.unit is not None and any(both.checkpoint is ABSENT for both in sides)
    return DIFFERENT if report.changed or is_added else SAME
