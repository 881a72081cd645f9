"""Config x checkpoint x policy: what wins, entry by entry, and the report that says so.

Pure: the outcome is a frozen value that can be printed, sent to other ranks, or thrown away.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dist_sched import declarations
from dist_sched.config import ABSENT, Config, Sides, evolved
from dist_sched.courses import value_of
from dist_sched.errors import ConfigError, ReconcileError
from dist_sched.policies import CHECKPOINT, CONFIG, LINEAGE, STRICT, Policy
from dist_sched.state import UNIT_KEY, Checkpoint, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dist_sched.lineage import Change, Lineage

T = TypeVar("T")

_MOST_ROWS = 60
"""Of a longer report, the text leaves out the entries that do not differ."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry: what each side had, what is used, and why."""

    name: str
    config: Any
    """An int, float, str or None; a whole schedule where its phases are not compared."""
    checkpoint: Any
    """None where the checkpoint lacks the entry."""
    used: Any
    """None where the two had to be equal and are not."""
    why: str
    changed: bool
    """Both sides have the entry, it matters, and they differ; or the checkpoint alone has it."""


@dataclass(frozen=True, slots=True)
class NextValue:
    """A field's value for the next update, before ratios and multipliers of groups."""

    field: str
    """A field, or `groups[...].` and a field, where named groups have something of their own; a
    side that says nothing of them has the field's value there."""
    config: float | None
    checkpoint: float | None
    """None where the checkpoint's entries alone make no legal config."""
    used: float | None
    """None where the outcome was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The outcome of bringing a config and a checkpoint together.

    `str()` gives the table, `to_dict()` the same as JSON-ready data.
    """

    rows: tuple[Row, ...]
    """One for each entry, and one for the unit, whether they differ or not."""
    position: int
    """The checkpoint's position, in units."""
    next_update: tuple[NextValue, ...]
    """Each field's value at that position."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the checkpoint state."""

    @property
    def changed(self) -> tuple[Row, ...]:
        """The rows in which config and checkpoint differ."""
        return tuple(row for row in self.rows if row.changed)

    @property
    def used(self) -> dict[str, Any]:
        """The config entries as used."""
        return {row.name: row.used for row in self.rows if row.name not in {UNIT_KEY, LINEAGE}}

    def to_dict(self) -> dict[str, Any]:
        """Give rows, position, values of the next update and warnings as JSON-ready data."""
        return {
            "rows": [{name: _json(value) for name, value in _told(row)} for row in self.rows],
            "position": self.position,
            "next_update": [asdict(value) for value in self.next_update],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        header = ("", "entry", "config", "checkpoint", "used", "why")
        told = self.rows if len(self.rows) <= _MOST_ROWS else self.changed
        rows = [
            ("*" if row.changed else "", row.name, *map(_shown, _sides(row)), row.why)
            for row in told
        ]
        values = [
            ("", value.field, *map(_short, _sides(value)), "next update")
            for value in self.next_update
        ]
        summary = f"position {self.position}; {_count(len(self.changed))}"
        left = len(self.rows) - len(told)
        summary += f"; {left} that do not are left out here" if left else ""
        return "\n".join([summary, *self.warnings, *_aligned([header, *rows, *values])])


def _told(row: Row) -> list[tuple[str, Any]]:
    return [(part.name, getattr(row, part.name)) for part in fields(row)]


def _json(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _sides(row: Row | NextValue) -> tuple[Any, Any, Any]:
    return row.config, row.checkpoint, row.used


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


def _short(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, float) else _shown(value)


def _count(changed: int) -> str:
    return (
        f"{changed} entry differs (*)" if changed == 1 else f"{changed or 'no'} entries differ (*)"
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def settle(config: T, checkpoint: T, word: str) -> tuple[T, str]:
    """Settle one entry that both sides have: the value to use, and why.

    Under `"strict"` the config's value is given; refusing is the caller's, who sees every entry.
    """
    if config == checkpoint:
        return checkpoint, "equal"
    if word == STRICT:
        return config, "strict: must be equal"
    if word == CONFIG:
        return config, "overriding with config value"
    return checkpoint, "using checkpoint value"


def reconcile_checkpoint(
    declared: Config, unit: str, checkpoint: Checkpoint, policy: Policy
) -> tuple[Config, Lineage, Reconciliation]:
    """Bring a declared config and a checkpoint together.

    Returns:
        The config to use, the late changes that are made of it, and the report.

    Raises:
        ReconcileError: Strict entries or the units differ, or the outcome is an illegal config.
            Carries the report with all rows.
    """
    sides = declared.sides(checkpoint.entries)
    settled = {name: _settle_entry(name, both, policy) for name, both in sides.items()}
    lineage = _kept(checkpoint.lineage, sides, settled, policy)
    used = {name: value for name, (value, _) in settled.items()}
    config, curve, problem = _built(declared, checkpoint, used, lineage)
    unused = (config or declared).unused()
    next_update = _next_update(declared, checkpoint, curve)
    report = Reconciliation(
        rows=(
            *(
                _entry_row(name, both, *settled[name], is_unused=name in unused)
                for name, both in sides.items()
            ),
            *_lineage_rows(checkpoint.lineage, lineage),
            _unit_row(unit, checkpoint.unit),
        ),
        position=checkpoint.position,
        next_update=next_update,
        warnings=(
            *checkpoint.warnings,
            *_named_absences(sides, checkpoint),
            *_breaks(next_update, checkpoint.values),
        ),
    )
    refusals = [*_strict_refusals(report, policy, sides), *problem, *_sides_of(report, problem)]
    if refusals or config is None:
        refused = _refused(report, policy)
        message = "\n".join(["cannot load the scheduler:", *refusals, str(refused)])
        raise ReconcileError(message, refused, tuple(refusals))
    return config, lineage, report


def _refused(report: Reconciliation, policy: Policy) -> Reconciliation:
    """Give the report of an outcome that nothing uses."""
    return replace(
        report,
        rows=tuple(
            replace(row, used=None) if _must_be_equal(row, policy) else row for row in report.rows
        ),
        next_update=tuple(replace(value, used=None) for value in report.next_update),
    )


def _must_be_equal(row: Row, policy: Policy) -> bool:
    is_strict = row.name == UNIT_KEY or policy.word_of_row(row.name) == STRICT
    return row.changed and is_strict and row.name != LINEAGE


def _sides_of(report: Reconciliation, problem: list[str]) -> list[str]:
    """Say of an illegal outcome which side each entry that differs was taken from."""
    sides = [
        f"{row.name}={row.used!r} is the {'config' if row.used == row.config else 'checkpoint'}'s"
        for row in report.changed
    ]
    return [f"of the entries that differ, {', '.join(sides)}"] if problem and sides else []


def reconcile(
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    policy: str | Mapping[str, str] = CHECKPOINT,
) -> Reconciliation:
    """Say what a load would do, without a scheduler: a dry run.

    Args:
        config: The entries of `OptimizerParamScheduler` by name, and `unit` if it is not steps.
        state: A checkpoint state.
        policy: As for the scheduler.

    Returns:
        What `last_reconciliation` would be after the load.

    Raises:
        ConfigError: The config or the policy is illegal.
        StateError: The state is malformed.
        ReconcileError: The load would be refused; carries the outcome with all rows.
    """
    declared = declarations.read(config)
    words = declared.config.parse_policy(policy)
    own = pack(declared.config, 0, declared.unit)
    checkpoint = unpack(state, type(declared.config), own=own)
    return reconcile_checkpoint(declared.config, declared.unit, checkpoint, words)[2]


def _settle_entry(name: str, both: Sides, policy: Policy) -> tuple[Any, str]:
    if both.checkpoint is ABSENT:
        return both.config, "not in the checkpoint: using config value"
    return settle(both.config, both.checkpoint, policy.word_of_row(name))


def _entry_row(name: str, both: Sides, used: Any, why: str, *, is_unused: bool) -> Row:
    config, found, used = (None if value is ABSENT else value for value in (*both[:2], used))
    if is_unused:
        return Row(name, config, found, used, "not used by lr_decay_style", changed=False)
    changed = both.checkpoint is not ABSENT and both.checkpoint != both.config
    return Row(name, config, found, used, why, changed=changed)


def _kept(
    lineage: Lineage,
    sides: Mapping[str, Sides],
    settled: Mapping[str, tuple[Any, str]],
    policy: Policy,
) -> Lineage:
    """Give the late changes that stay: they belong to the checkpoint's curve, and go without it."""
    if LINEAGE in policy.words:
        return () if policy.word(LINEAGE) == CONFIG else lineage
    kept = {both.field for name, both in sides.items() if policy.word_of_row(name) != CONFIG}
    left = {
        both.field
        for name, both in sides.items()
        if both.checkpoint not in (ABSENT, both.config) and settled[name][0] != both.checkpoint
    }
    return tuple(change for change in lineage if change.field in kept - left)


def _lineage_rows(saved: Lineage, kept: Lineage) -> list[Row]:
    if not saved:
        return []
    why = "late changes of the checkpoint's curve"
    if kept != saved:
        why = "late changes dropped: using config value for their curve"
    return [Row(LINEAGE, None, _listed(saved), _listed(kept) or None, why, changed=True)]


def _listed(lineage: Iterable[Change]) -> str:
    return "; ".join(map(str, lineage))


def _named_absences(sides: Mapping[str, Sides], checkpoint: Checkpoint) -> list[str]:
    """Name what the script alone has, where the checkpoint tells all that its own run had."""
    added = [name for name, both in sides.items() if both.checkpoint is ABSENT]
    if not added or not checkpoint.entries or checkpoint.unit is None:
        return []
    return [f"not in the checkpoint, and used as the config has it: {', '.join(added)}"]


def _unit_row(config: str, checkpoint: str | None) -> Row:
    changed = checkpoint not in (None, config)
    why = "not in the checkpoint: using config value"
    if checkpoint is not None:
        why = "units must be equal" if changed else "equal"
    return Row(UNIT_KEY, config, checkpoint, config, why, changed)


def _built(
    declared: Config, checkpoint: Checkpoint, used: Mapping[str, Any], lineage: Lineage
) -> tuple[Config | None, Config | None, list[str]]:
    """Build a config and what late changes make of it, or say why the entries make none."""
    try:
        config = declared.merged(checkpoint.entries, used)
        return config, evolved(config, lineage), []
    except ConfigError as error:
        advice = "give the entries that belong together the same policy, or change the config's"
        return None, None, [f"the outcome is not a legal config: {error}; {advice}"]


def saved_curve(declared: Config, checkpoint: Checkpoint) -> Config | None:
    """Give the config that a checkpoint's run had, completed by the declared one; None if none."""
    try:
        complete = declared.of_parts({**declared.parts(), **checkpoint.entries})
        return evolved(complete, checkpoint.lineage)
    except ConfigError:
        return None


def _next_update(
    declared: Config, checkpoint: Checkpoint, used: Config | None
) -> tuple[NextValue, ...]:
    sides: list[Mapping[str, float]] = [
        config.courses().values(checkpoint.position) if config is not None else {}
        for config in (declared, saved_curve(declared, checkpoint), used)
    ]
    if not checkpoint.entries:
        sides[1] = checkpoint.values
    labels = dict.fromkeys(label for values in sides for label in values)
    return tuple(NextValue(label, *(value_of(side, label) for side in sides)) for label in labels)


def _breaks(next_update: tuple[NextValue, ...], values: Mapping[str, float]) -> list[str]:
    """Name each field that goes on with another value than its former scheduler had."""
    return [
        f"the checkpoint's own scheduler had {value.field} {_short(values[value.field])} for the "
        f"next update; what is used here has {_short(value.used)}"
        for value in next_update
        if value.field in values
        and value.used is not None
        and not math.isclose(value.used, values[value.field], rel_tol=1e-6, abs_tol=1e-15)
    ]


def _strict_refusals(
    report: Reconciliation, policy: Policy, sides: Mapping[str, Sides]
) -> list[str]:
    """Say for each difference that must not be what to change to what."""
    refusals = []
    for row in report.changed:
        both = (
            f"{row.name} is {row.config!r} in the config and {row.checkpoint!r} in the checkpoint"
        )
        if row.name == UNIT_KEY:
            refusals.append(
                f"{both}: positions in one unit mean nothing in another; "
                f"build the scheduler with unit={row.checkpoint!r}"
            )
        elif _must_be_equal(row, policy) and sides[row.name].config is ABSENT:
            refusals.append(
                f"{row.name} is in the checkpoint alone, and its policy is 'strict': add it to the "
                f"config, or leave it alone with policy={{{row.name!r}: 'config', ...}}"
            )
        elif _must_be_equal(row, policy) and policy.word(row.name) != STRICT:
            refusals.append(
                f"{row.name}: config and checkpoint have other phases, and the policy has no one "
                f"word for all of them: choose a side with policy={{{row.name!r}: ...}}"
            )
        elif _must_be_equal(row, policy):
            refusals.append(
                f"{both}, and its policy is 'strict': set {row.name}={row.checkpoint!r}, or choose "
                f"a side with policy={{{row.name!r}: 'checkpoint' or 'config', ...}}"
            )
    return refusals
