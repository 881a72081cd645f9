"""Reconciliation: choosing between config and checkpoint by policy, entry by entry.

These are pure functions. Their outcome is a frozen value that can be printed or sent to other
ranks.
"""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dist_sched._config import files
from dist_sched._config.config import ABSENT, Config, Sides, with_history
from dist_sched._config.history import HISTORY, Change, History
from dist_sched._config.path import Path
from dist_sched._config.plan import value_at
from dist_sched._config.policy import CHECKPOINT, CONFIG, REST, STRICT, UNIT, Policy
from dist_sched._rules import shown
from dist_sched._state.format import UNIT_KEY, Checkpoint, pack, unpack
from dist_sched._state.report import EQUAL, MISSING, NextValue, Reconciliation, Row
from dist_sched.errors import ConfigError, ReconcileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")

_HISTORY = Path(HISTORY)
_MOST_FLIPS = 4
"""Maximum number of entries in a policy that the report suggests."""
_MOST_TEXT = 3900
_MOST_REASON = 400
"""Maximum number of characters of an error and of its first reason. An attribute has them all."""


class Outcome(NamedTuple):
    """The config, history and report after a load."""

    config: Config
    """The config before late changes."""
    history: History
    effective: Config
    """The config after late changes."""
    report: Reconciliation


class _Choice(NamedTuple):
    """The value that is used for one entry, and why."""

    sides: Sides
    used: Any
    why: str
    word: str

    @property
    def is_refused(self) -> bool:
        return self.sides.differ and self.word == STRICT


def choose(config: T, checkpoint: T, word: str) -> tuple[T, str]:
    """Return which of two values to use, and why.

    With `"strict"` it is the config's. The caller, which sees every entry, raises the error.
    """
    if config == checkpoint:
        return checkpoint, EQUAL
    if word == STRICT:
        return config, "strict: must be equal"
    if word == CONFIG:
        return config, "overriding with config value"
    return checkpoint, "using checkpoint value"


def reconcile(
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    policy: str | Mapping[str, str] | None = None,
) -> Reconciliation:
    """Return the report of a load without loading anything: a dry run.

    Args:
        config: A config as a mapping, as for `from_config`. It may have `unit` and `policy`.
        state: A checkpoint state: the result of `state_dict()` or `checkpoint.read_state()`.
        policy: `"checkpoint"`, `"config"` or `"strict"`, or a mapping from entries to these. If
            None, the policy of the config, or else `"checkpoint"`.

    Returns:
        The report that `scheduler.last_reconciliation` would have after the load.

    Raises:
        ConfigError: The config or the policy is invalid.
        StateError: The state is malformed.
        ReconcileError: The load would be refused. Its attribute `reconciliation` has the report.
    """
    declared = files.read(config)
    parsed = None if policy is None else declared.config.parse_policy(policy)
    parsed = parsed or declared.policy or declared.config.parse_policy(None)
    own = pack(declared.config, 0, declared.unit)
    checkpoint = unpack(state, type(declared.config), own=own)
    return reconcile_checkpoint(declared.config, declared.unit, checkpoint, parsed).report


def reconcile_checkpoint(
    declared: Config, unit: str, checkpoint: Checkpoint, policy: Policy
) -> Outcome:
    """Reconcile a declared config with a checkpoint.

    Raises:
        ReconcileError: Strict entries or the units differ, or the outcome is not a valid config.
            Its attribute `reconciliation` has the report.
    """
    # All entries are compared before anything is refused, so that one error has all differences.
    sides = declared.compare(checkpoint.parts)
    found = _decide(declared, checkpoint, sides, policy)
    has_other_unit = checkpoint.unit not in (None, unit)
    relabels = has_other_unit and policy.relabels
    report = Reconciliation(
        rows=(
            *(
                _row(path, choice, is_unused=path in found.unused)
                for path, choice in found.choices.items()
            ),
            *_history_rows(checkpoint.history, found.history),
            _unit_row(unit, checkpoint.unit, policy),
        ),
        position=checkpoint.position,
        next_update=_next_update(declared, checkpoint, found.effective),
        warnings=(
            *checkpoint.warnings,
            *((_relabelling(unit, checkpoint),) if relabels else ()),
            *_without_effect(declared, sides, policy),
        ),
    )
    reasons = [_refusal(path, found.choices[path], policy) for path in found.refused]
    if has_other_unit and not relabels:
        reasons.append(
            f"unit is {unit!r} in the config and {checkpoint.unit!r} in the checkpoint, and "
            f"positions cannot be converted; build the scheduler with unit={checkpoint.unit!r}, "
            f"or, if the run counted {unit} and only the saved name of the unit is wrong, add "
            f"{{'unit': 'config'}} to the policy"
        )
    if found.error is not None:
        advice = "use the same policy for entries that belong together, or change the config"
        reasons.append(f"the result is not a valid config: {found.error}; {advice}")
        reasons += [_origins(report)] if report.changed else []
    if relabels or not has_other_unit:
        alternative = _alternative(declared, checkpoint, sides, policy, found)
        report = replace(report, alternative=alternative)
    if reasons or found.config is None or found.effective is None:
        unused = {UNIT_KEY} if has_other_unit and not relabels else set()
        raise _error(reasons, report, unused | {str(path) for path in found.refused})
    return Outcome(found.config, found.history, found.effective, report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    """The result of a policy for a config and a checkpoint, which may be invalid."""

    choices: Mapping[Path, _Choice]
    history: History
    """The late changes that are kept."""
    config: Config | None
    effective: Config | None
    error: ConfigError | None
    """Why there is no valid config."""
    unused: frozenset[Path]
    """Entries without an effect, which upstream saves, too. They do not count as differences."""
    differing: Sequence[Path]
    """Entries that differ and have an effect."""

    @property
    def refused(self) -> list[Path]:
        return [path for path in self.differing if self.choices[path].is_refused]


def _decide(
    declared: Config, checkpoint: Checkpoint, compared: Mapping[Path, Sides], policy: Policy
) -> _Decision:
    choices = {path: _chosen(sides, policy.word_of_row(path)) for path, sides in compared.items()}
    history = _kept_history(checkpoint.history, choices, policy)
    config = effective = error = None
    try:
        used = {path: choice.used for path, choice in choices.items()}
        config = declared.merge(checkpoint.parts, used)
        effective = with_history(config, history)
    except ConfigError as found:
        error = found
    unused = (config or declared).unused()
    return _Decision(
        choices=choices,
        history=history,
        config=config,
        effective=effective,
        error=error,
        unused=unused,
        differing=[path for path, sides in compared.items() if sides.differ and path not in unused],
    )


def _alternative(
    declared: Config,
    checkpoint: Checkpoint,
    compared: Mapping[Path, Sides],
    policy: Policy,
    found: _Decision,
) -> str | dict[str, str] | None:
    """Return a policy with which the other side wins or, after a refusal, the load works."""
    is_refused = bool(found.error or found.refused)
    opposite = {CHECKPOINT: CONFIG, CONFIG: CHECKPOINT, STRICT: CHECKPOINT}
    paths = found.refused if is_refused else found.differing
    flips = {str(path): opposite[found.choices[path].word] for path in paths}
    if checkpoint.history and not is_refused:
        flips[HISTORY] = CONFIG if found.history == checkpoint.history else CHECKPOINT
    for words in _candidates(flips, policy, is_refused=is_refused):
        # Tried out, because the other side's entries may not be a valid config.
        try:
            tried = declared.parse_policy(words)
        except ConfigError:
            continue
        other = _decide(declared, checkpoint, compared, tried)
        if other.error or other.refused:
            continue
        if is_refused or (
            all(other.choices[path].used != found.choices[path].used for path in found.differing)
            and (not checkpoint.history or other.history != found.history)
        ):
            return tried.to_dict()
    return None


def _candidates(
    flips: Mapping[str, str], policy: Policy, *, is_refused: bool
) -> Iterator[dict[str, str]]:
    """Yield short policies with which the other side may win."""
    others = {name: word for name, word in policy.words.items() if name not in flips}
    unit = {UNIT: CONFIG} if policy.relabels else {}
    if flips and len(flips) <= _MOST_FLIPS and len(others) <= _MOST_FLIPS:
        rest = policy.words.get(REST)
        yield {**{name: word for name, word in flips.items() if word != rest}, **others}
        yield {**flips, **others}
    if flips:
        [(commonest, _)] = Counter(flips.values()).most_common(1)
        rarer = {name: word for name, word in flips.items() if word != commonest}
        if len(rarer) <= _MOST_FLIPS:
            yield {**rarer, **unit, REST: commonest}
    if is_refused:
        yield from ({**unit, REST: word} for word in (CHECKPOINT, CONFIG))


def _error(reasons: list[str], report: Reconciliation, refused: set[str]) -> ReconcileError:
    """Return the error of a refused load, with its report."""
    outcome = replace(
        report,
        rows=tuple(replace(row, used=None) if row.name in refused else row for row in report.rows),
        next_update=tuple(replace(value, used=None) for value in report.next_update),
    )
    text = str(outcome)
    # The first reason is always shown. The attribute has all of them.
    lengths = itertools.accumulate(len(shown) + 1 for shown in reasons)
    num_shown = max(1, sum(length < _MOST_TEXT - len(text) for length in lengths))
    lines = [textwrap.shorten(reasons[0], _MOST_REASON), *reasons[1:num_shown]]
    if num_shown < len(reasons):
        lines.append(f"and {len(reasons) - num_shown} more reasons")
    message = "\n".join(["cannot load the scheduler:", *lines, f"at {text}"])
    return ReconcileError(message, outcome, tuple(reasons))


def _chosen(sides: Sides, word: str) -> _Choice:
    if sides.checkpoint is ABSENT:
        return _Choice(sides, sides.config, MISSING, word)
    return _Choice(sides, *choose(sides.config, sides.checkpoint, word), word)


def _row(path: Path, choice: _Choice, *, is_unused: bool) -> Row:
    sides = choice.sides
    config = None if sides.config is ABSENT else sides.config
    checkpoint = None if sides.checkpoint is ABSENT else sides.checkpoint
    used = None if choice.used is ABSENT else choice.used
    why = "has no effect with this lr_decay_style" if is_unused else choice.why
    changed = sides.differ and not is_unused
    return Row(str(path), config, checkpoint, used, why, changed=changed)


def _unit_row(config: str, checkpoint: str | None, policy: Policy) -> Row:
    if checkpoint is None:
        why = MISSING
    elif checkpoint == config:
        why = EQUAL
    else:
        why = "relabelled, not converted" if policy.relabels else "units must be equal"
    return Row(UNIT_KEY, config, checkpoint, config, why, checkpoint not in (None, config))


def _relabelling(unit: str, checkpoint: Checkpoint) -> str:
    return (
        f"position {checkpoint.position} was saved in {checkpoint.unit} and is used as {unit}, as "
        "the policy says; it is not converted, and neither are the checkpoint's lengths"
    )


def _without_effect(
    declared: Config, compared: Mapping[Path, Sides], policy: Policy
) -> Iterator[str]:
    # Bounds and multipliers of groups have a policy too, for what an optimizer's load brings.
    of_groups = [Path(key) for field in declared.plan.fields for key in field.override_keys()]
    names = policy.without_effect([*compared, *of_groups])
    if names:
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        yield (
            f"policy[{shown(names[0])}]{more} has no effect: there is no such entry in the config "
            "or the checkpoint"
        )


def _kept_history(history: History, choices: Mapping[Path, _Choice], policy: Policy) -> History:
    """Return the late changes to keep. They are dropped if the checkpoint's curve is not used."""
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
        why = "late changes dropped: using the config's curve"
    return [Row(HISTORY, None, _joined(saved), _joined(kept) or None, why, changed=True)]


def _joined(history: Iterable[Change]) -> str:
    return "; ".join(map(str, history))


def saved_curve(declared: Config, checkpoint: Checkpoint) -> Config | None:
    """Return the config of a checkpoint's run, with missing entries from the declared config.

    Return None if the two together are not a valid config.
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
    # Saved values of another library are more reliable than values of the entries read from it.
    sides = (mine, {**saved_values, **checkpoint.values}, used_values)
    paths = dict.fromkeys(path for values in sides for path in values)
    return tuple(NextValue(str(path), *(value_at(one, path) for one in sides)) for path in paths)


def _origins(report: Reconciliation) -> str:
    """Return a text about which side each entry of an invalid outcome is from."""
    origins = [
        f"{row.name}={row.used!r} from the {'config' if row.used == row.config else 'checkpoint'}"
        for row in report.changed
    ]
    return f"entries that differ were used as follows: {', '.join(origins)}"


def _refusal(path: Path, choice: _Choice, policy: Policy) -> str:
    """Return the reason for refusing a difference, and what to do."""
    config, checkpoint, _ = choice.sides
    if config is ABSENT:
        return (
            f"{path} is only in the checkpoint, and its policy is 'strict'; add it to the config, "
            f"or ignore the checkpoint's with policy={{{str(path)!r}: 'config', ...}}"
        )
    if policy.word(path) != STRICT:
        return (
            f"{path}: config and checkpoint have different phases, and the policy is not the same "
            f"for all of them; choose a side with policy={{{str(path)!r}: ...}}"
        )
    return (
        f"{path} is {config!r} in the config and {checkpoint!r} in the checkpoint, and its policy "
        f"is 'strict'; set {path}={checkpoint!r}, or choose a side with "
        f"policy={{{str(path)!r}: 'checkpoint' or 'config', ...}}"
    )
