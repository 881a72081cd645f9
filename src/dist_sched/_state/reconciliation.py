"""Reconciliation: config x checkpoint x policy, and what wins, entry by entry.

Pure: the outcome is a frozen value that can be printed, sent to other ranks, or thrown away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dist_sched._config import files
from dist_sched._config.config import ABSENT, Config, Sides, with_history
from dist_sched._config.history import HISTORY, Change, History
from dist_sched._config.path import Path
from dist_sched._config.plan import value_at
from dist_sched._config.policy import CHECKPOINT, CONFIG, STRICT, Policy
from dist_sched._state.format import UNIT_KEY, Checkpoint, pack, unpack
from dist_sched._state.report import NextValue, Reconciliation, Row, short
from dist_sched.errors import ConfigError, ReconcileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

_HISTORY = Path(HISTORY)


class Outcome(NamedTuple):
    """What to use after a load."""

    config: Config
    """Before late changes."""
    history: History
    effective: Config
    """After late changes."""
    report: Reconciliation


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is used for one entry, and why."""

    sides: Sides
    used: Any
    why: str
    word: str

    @property
    def is_refused(self) -> bool:
        return self.sides.differ and self.word == STRICT


def choose(config: T, checkpoint: T, word: str) -> tuple[T, str]:
    """Return which of two values to use, and why.

    Under `"strict"` that is the config's; refusing is up to the caller, who sees every entry.
    """
    if config == checkpoint:
        return checkpoint, "equal"
    if word == STRICT:
        return config, "strict: must be equal"
    if word == CONFIG:
        return config, "overriding with config value"
    return checkpoint, "using checkpoint value"


def reconcile(
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    policy: str | Mapping[str, str] = CHECKPOINT,
) -> Reconciliation:
    """Return what a load would do, without a scheduler: a dry run.

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
    declared = files.read(config)
    parsed = declared.config.parse_policy(policy)
    own = pack(declared.config, 0, declared.unit)
    checkpoint = unpack(state, type(declared.config), own=own)
    return reconcile_checkpoint(declared.config, declared.unit, checkpoint, parsed).report


def reconcile_checkpoint(
    declared: Config, unit: str, checkpoint: Checkpoint, policy: Policy
) -> Outcome:
    """Reconcile a declared config with a checkpoint.

    Raises:
        ReconcileError: Strict entries or the units differ, or the outcome is an illegal config.
            Carries the report with all rows.
    """
    # Every entry is looked at before anything is refused, so that one error names all of them.
    choices = {
        path: _chosen(sides, policy.word_of_row(path))
        for path, sides in declared.compare(checkpoint.parts).items()
    }
    history = _kept_history(checkpoint.history, choices, policy)
    reasons: list[str] = []
    config = effective = None
    try:
        used = {path: choice.used for path, choice in choices.items()}
        config = declared.merge(checkpoint.parts, used)
        effective = with_history(config, history)
    except ConfigError as error:
        advice = "give the entries that belong together the same policy, or change the config's"
        reasons.append(f"the outcome is not a legal config: {error}; {advice}")
    # Upstream saves entries that its style does not use; they are no difference.
    unused = (config or declared).unused()
    next_update = _next_update(declared, checkpoint, effective)
    report = Reconciliation(
        rows=(
            *(_row(path, choice, is_unused=path in unused) for path, choice in choices.items()),
            *_history_rows(checkpoint.history, history),
            _unit_row(unit, checkpoint.unit),
        ),
        position=checkpoint.position,
        next_update=next_update,
        warnings=(
            *checkpoint.warnings,
            *_absences(choices, checkpoint),
            *_breaks(next_update, checkpoint.values),
        ),
    )
    if reasons and report.changed:
        reasons.append(_origins(report))
    refused = {
        path: choice for path, choice in choices.items() if choice.is_refused and path not in unused
    }
    refusals = [_refusal(path, choice, policy) for path, choice in refused.items()]
    # No policy can help: a position in samples means nothing in steps.
    if checkpoint.unit not in (None, unit):
        refusals.append(
            f"unit is {unit!r} in the config and {checkpoint.unit!r} in the checkpoint: positions "
            f"in one unit mean nothing in another; build the scheduler with "
            f"unit={checkpoint.unit!r}"
        )
    if refusals or reasons or config is None or effective is None:
        raise _error([*refusals, *reasons], report, {str(path) for path in refused})
    return Outcome(config, history, effective, report)


def _error(reasons: list[str], report: Reconciliation, refused: set[str]) -> ReconcileError:
    """Return the error with the report of an outcome that nothing uses."""
    outcome = replace(
        report,
        rows=tuple(
            replace(row, used=None)
            if row.name in refused or (row.name == UNIT_KEY and row.changed)
            else row
            for row in report.rows
        ),
        next_update=tuple(replace(value, used=None) for value in report.next_update),
    )
    message = "\n".join(["cannot load the scheduler:", *reasons, str(outcome)])
    return ReconcileError(message, outcome, tuple(reasons))


def _chosen(sides: Sides, word: str) -> _Choice:
    if sides.checkpoint is ABSENT:
        return _Choice(sides, sides.config, "not in the checkpoint: using config value", word)
    return _Choice(sides, *choose(sides.config, sides.checkpoint, word), word)


def _row(path: Path, choice: _Choice, *, is_unused: bool) -> Row:
    sides = choice.sides
    config, checkpoint, used = (
        None if value is ABSENT else value
        for value in (sides.config, sides.checkpoint, choice.used)
    )
    why = "not used by lr_decay_style" if is_unused else choice.why
    changed = sides.differ and not is_unused
    return Row(str(path), config, checkpoint, used, why, changed=changed)


def _unit_row(config: str, checkpoint: str | None) -> Row:
    if checkpoint is None:
        why = "not in the checkpoint: using config value"
    else:
        why = "equal" if checkpoint == config else "units must be equal"
    return Row(UNIT_KEY, config, checkpoint, config, why, checkpoint not in (None, config))


def _kept_history(history: History, choices: Mapping[Path, _Choice], policy: Policy) -> History:
    """Return the late changes to keep: they belong to the checkpoint's curve, and go with it."""
    if HISTORY in policy.words:
        return () if policy.word(_HISTORY) == CONFIG else history
    kept = {choice.sides.field for choice in choices.values() if choice.word != CONFIG}
    left = {
        choice.sides.field
        for choice in choices.values()
        if choice.sides.differ and choice.used != choice.sides.checkpoint
    }
    return tuple(change for change in history if change.field in kept - left)


def _history_rows(saved: History, kept: History) -> list[Row]:
    if not saved:
        return []
    why = "late changes of the checkpoint's curve"
    if kept != saved:
        why = "late changes dropped: using config value for their curve"
    return [Row(HISTORY, None, _joined(saved), _joined(kept) or None, why, changed=True)]


def _joined(history: Iterable[Change]) -> str:
    return "; ".join(map(str, history))


def _absences(choices: Mapping[Path, _Choice], checkpoint: Checkpoint) -> list[str]:
    """Name what the script alone has, where the checkpoint has all that its own run had."""
    added = [str(path) for path, one in choices.items() if one.sides.checkpoint is ABSENT]
    if not added or not checkpoint.parts or checkpoint.unit is None:
        return []
    return [f"not in the checkpoint, and used as the config has it: {', '.join(added)}"]


def saved_curve(declared: Config, checkpoint: Checkpoint) -> Config | None:
    """Return the config that a checkpoint's run had, completed by the declared one.

    None where a foreign state's entries and the declared ones make no legal config.
    """
    if checkpoint.effective is not None:
        return checkpoint.effective
    try:
        return declared.from_parts({**declared.parts(), **checkpoint.parts})
    except ConfigError:
        return None


def _next_update(
    declared: Config, checkpoint: Checkpoint, used: Config | None
) -> tuple[NextValue, ...]:
    saved = saved_curve(declared, checkpoint) if checkpoint.parts else None
    mine, saved_values, used_values = (
        {} if config is None else config.plan.values(checkpoint.position)
        for config in (declared, saved, used)
    )
    sides = (mine, saved_values if checkpoint.parts else checkpoint.values, used_values)
    paths = dict.fromkeys(path for values in sides for path in values)
    return tuple(NextValue(str(path), *(value_at(one, path) for one in sides)) for path in paths)


def _breaks(next_update: tuple[NextValue, ...], values: Mapping[Path, float]) -> list[str]:
    """Name each field that goes on with another value than its former scheduler had."""
    before = {str(path): value for path, value in values.items()}
    return [
        f"the checkpoint's own scheduler had {value.field} {short(before[value.field])} for the "
        f"next update; what is used here has {short(value.used)}"
        for value in next_update
        if value.field in before
        and value.used is not None
        and not math.isclose(value.used, before[value.field], rel_tol=1e-6, abs_tol=1e-15)
    ]


def _origins(report: Reconciliation) -> str:
    """Say from which side each entry of an illegal outcome was taken."""
    origins = [
        f"{row.name}={row.used!r} is the {'config' if row.used == row.config else 'checkpoint'}'s"
        for row in report.changed
    ]
    return f"of the entries that differ, {', '.join(origins)}"


def _refusal(path: Path, choice: _Choice, policy: Policy) -> str:
    """Say of a difference that must not be what to change."""
    config, checkpoint, _ = choice.sides
    if config is ABSENT:
        return (
            f"{path} is in the checkpoint alone, and its policy is 'strict': add it to the "
            f"config, or leave it alone with policy={{{str(path)!r}: 'config', ...}}"
        )
    if policy.word(path) != STRICT:
        return (
            f"{path}: config and checkpoint have other phases, and the policy has no one "
            f"word for all of them: choose a side with policy={{{str(path)!r}: ...}}"
        )
    return (
        f"{path} is {config!r} in the config and {checkpoint!r} in the checkpoint, and its policy "
        f"is 'strict': set {path}={checkpoint!r}, or choose a side with "
        f"policy={{{str(path)!r}: 'checkpoint' or 'config', ...}}"
    )
