"""Config x checkpoint x policy: what wins, entry by entry, and the report that says so.

Pure: the outcome is a frozen value that can be printed, sent to other ranks, or thrown away.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dist_sched import curves
from dist_sched.config import (
    CHECKPOINT,
    CONFIG,
    STRICT,
    Config,
    Entry,
    OptimizerParamConfig,
    Policy,
    unit_word,
)
from dist_sched.errors import ConfigError, ReconcileError
from dist_sched.state import UNIT_KEY, Checkpoint, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One entry: what each side had, what is used, and why."""

    name: str
    config: Entry
    checkpoint: Entry
    """None where the checkpoint lacks the entry."""
    used: Entry
    """None where the two had to be equal and are not."""
    why: str
    changed: bool
    """Both sides have the entry, it matters, and they differ."""


@dataclass(frozen=True, slots=True)
class NextValue:
    """A field's value for the next update, before ratios and multipliers of groups."""

    field: str
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
    def used(self) -> dict[str, Entry]:
        """The config entries as used."""
        return {row.name: row.used for row in self.rows if row.name != UNIT_KEY}

    def to_dict(self) -> dict[str, Any]:
        """Give rows, position, values of the next update and warnings as JSON-ready data."""
        told = asdict(self)
        return {
            name: list(part) if isinstance(part, tuple) else part for name, part in told.items()
        }

    def __str__(self) -> str:
        header = ("", "entry", "config", "checkpoint", "used", "why")
        rows = [
            ("*" if row.changed else "", row.name, *map(_shown, _sides(row)), row.why)
            for row in self.rows
        ]
        values = [
            ("", value.field, *map(_short, _sides(value)), "next update")
            for value in self.next_update
        ]
        summary = f"position {self.position}; {_count(len(self.changed))}"
        return "\n".join([summary, *self.warnings, *_aligned([header, *rows, *values])])


def _sides(row: Row | NextValue) -> tuple[Entry, Entry, Entry]:
    return row.config, row.checkpoint, row.used


def _shown(value: Entry) -> str:
    return "-" if value is None else str(value)


def _short(value: Entry) -> str:
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
) -> tuple[Config, Reconciliation]:
    """Bring a declared config and a checkpoint together.

    Returns:
        The config to use, and the report.

    Raises:
        ReconcileError: Strict entries or the units differ, or the outcome is an illegal config.
            Carries the report with all rows.
    """
    mine, theirs = declared.entries(), checkpoint.entries
    settled = {name: _settle_entry(name, mine[name], theirs, policy) for name in mine}
    config, problem = _built(declared, {name: used for name, (used, _) in settled.items()})
    unused = (config or declared).unused()
    next_update = _next_update(
        declared, _built(declared, {**mine, **theirs})[0], config, checkpoint.position
    )
    report = Reconciliation(
        rows=(
            *(
                _entry_row(name, mine[name], theirs, *settled[name], is_unused=name in unused)
                for name in mine
            ),
            _unit_row(unit, checkpoint.unit),
        ),
        position=checkpoint.position,
        next_update=next_update,
        warnings=(*checkpoint.warnings, *_breaks(next_update, checkpoint.values)),
    )
    refusals = [*_strict_refusals(report, policy), *problem, *_sides_of(report, problem)]
    if refusals or config is None:
        refused = _refused(report, policy)
        message = "\n".join(["cannot load the scheduler:", *refusals, str(refused)])
        raise ReconcileError(message, refused)
    return config, report


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
    return row.changed and (row.name == UNIT_KEY or policy.word(row.name) == STRICT)


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
    entries = dict(config)
    unit = unit_word(UNIT_KEY, entries.pop(UNIT_KEY, "steps"))
    declared = OptimizerParamConfig.from_entries(entries)
    words = Policy.parse(policy, declared.entry_names())
    checkpoint = unpack(state, OptimizerParamConfig, own=pack(declared, 0, unit))
    return reconcile_checkpoint(declared, unit, checkpoint, words)[1]


def _settle_entry(
    name: str, config: Entry, checkpoint: Mapping[str, Entry], policy: Policy
) -> tuple[Entry, str]:
    if name not in checkpoint:
        return config, "not in the checkpoint: using config value"
    return settle(config, checkpoint[name], policy.word(name))


def _entry_row(
    name: str,
    config: Entry,
    checkpoint: Mapping[str, Entry],
    used: Entry,
    why: str,
    *,
    is_unused: bool,
) -> Row:
    found = checkpoint.get(name)
    if is_unused:
        return Row(name, config, found, used, "not used by lr_decay_style", changed=False)
    return Row(name, config, found, used, why, changed=name in checkpoint and found != config)


def _unit_row(config: str, checkpoint: str | None) -> Row:
    changed = checkpoint not in (None, config)
    why = "not in the checkpoint: using config value"
    if checkpoint is not None:
        why = "units must be equal" if changed else "equal"
    return Row(UNIT_KEY, config, checkpoint, config, why, changed)


def _built(kind: Config, entries: Mapping[str, Entry]) -> tuple[Config | None, list[str]]:
    """Build a config, or say why the entries make none."""
    try:
        return kind.from_entries(entries), []
    except ConfigError as error:
        advice = "give the entries that belong together the same policy, or change the config's"
        return None, [f"the outcome is not a legal config: {error}; {advice}"]


def _next_update(
    declared: Config, saved: Config | None, used: Config | None, position: int
) -> tuple[NextValue, ...]:
    def values(config: Config | None) -> list[float | None]:
        if config is None:
            return [None] * len(declared.FIELDS)
        return [curves.value(curve, position) for curve in config.curves()]

    keys = [field.key for field in declared.FIELDS]
    sides = (values(declared), values(saved), values(used))
    return tuple(NextValue(*row) for row in zip(keys, *sides, strict=True))


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


def _strict_refusals(report: Reconciliation, policy: Policy) -> list[str]:
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
        elif _must_be_equal(row, policy):
            refusals.append(
                f"{both}, and its policy is 'strict': set {row.name}={row.checkpoint!r}, or choose "
                f"a side with policy={{{row.name!r}: 'checkpoint' or 'config', ...}}"
            )
    return refusals
