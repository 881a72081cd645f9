"""`dist-sched diff`: print what a resume would change, for configs and checkpoints."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dist_sched._config import views
from dist_sched._config.history import HISTORY
from dist_sched._config.policy import CHECKPOINT, CONFIG, POLICY_WORDS
from dist_sched._state.report import EQUAL
from dist_sched.cli import comparisons, inputs, options, output
from dist_sched.cli.comparisons import DIFFERENT, SAME, UNKNOWN
from dist_sched.cli.inputs import CheckpointInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from dist_sched._config.policy import Policy
    from dist_sched._state.report import Row
    from dist_sched.cli.comparisons import Comparison, Value
    from dist_sched.cli.inputs import Input

_MOST_ENDS = 8
"""Maximum number of ends of phases at which values are compared without --at."""
_MOST_CAUSES = 20
"""Maximum number of different entries that are listed. The rest is counted."""
_MOST_MOVES = 4
"""Maximum number of changed values in a sentence. The rest is counted."""
_MOST_TRIED = 40
"""Maximum number of different entries that are tried one by one, and of ends of phases."""
_LONG = 60
"""Maximum number of characters of an entry's value in the list."""


@click.command(
    epilog=f"""\b
What would a resume change?   dist-sched diff runs/7b run.yaml
Why did lr jump at a resume?  dist-sched diff runs/before runs/after
Resume, longer horizon only:  dist-sched diff runs/7b run.yaml \\
                                --policy lr_decay_steps=config \\
                                --policy '*=checkpoint'

\b
{options.JSON_KEYS}
  old, new: each with {options.JSON_ORIGIN}
  policy, refused
  result: same, different or unknown
  reconciliation: rows (name, config, checkpoint, used, why, changed),
    position, next_update (field, config, checkpoint, used), warnings,
    alternative (a policy with which the other side would win)
  values: a list of position, field, old, new, used (null if unknown)"""
)
@click.argument("old_path", metavar="OLD", type=click.Path())
@click.argument("new_path", metavar="NEW", type=click.Path())
@click.option(
    "--policy",
    "words",
    multiple=True,
    metavar="WORD",
    shell_complete=lambda *typed: [word for word in POLICY_WORDS if word.startswith(typed[-1])],
    help="Which side wins if they differ: checkpoint (OLD), config (NEW), or strict (neither). For "
    "single entries, repeat --policy ENTRY=WORD, with * for all other entries. Default: the policy "
    "in NEW's file, or else checkpoint. If NEW is a checkpoint: config.",
)
@click.option(
    "--at",
    "positions",
    multiple=True,
    metavar="POSITION",
    type=options.position,
    help="Also print the values at this position, such as 60 or 2k. Can be repeated. The resume "
    "itself is always at OLD's position.",
)
@click.option("--all", "is_all", is_flag=True, help="Also print everything that is equal.")
@click.option("--key-old", metavar="KEY", help="Name of the state in OLD, if it has several.")
@click.option("--key-new", metavar="KEY", help="Name of the state in NEW, if it has several.")
@options.as_json
def command(
    old_path: str,
    new_path: str,
    words: tuple[str, ...],
    positions: tuple[int, ...],
    is_all: bool,
    key_old: str | None,
    key_new: str | None,
    as_json: bool,
) -> int:
    """Print what would change if a run with the schedule NEW resumed from OLD.

    OLD and NEW are configs or checkpoints. OLD is the checkpoint that is loaded. A config as OLD
    stands for a checkpoint of its run at position 0. NEW is the config of the script that resumes.
    A checkpoint as NEW stands for the config of its run, including late changes.

    The exit status is 0 if they are the same, 1 if they differ, and 2 if this is unknown.
    """
    old, new = inputs.read(old_path, key_old), inputs.read(new_path, key_new)
    policy, origin = _policy(words, new)
    found = comparisons.compare(old, new, policy)
    # A config starts at 0, where a warmup from 0 hides every difference.
    ends = [] if isinstance(old, CheckpointInput) else _ends(found)[:_MOST_ENDS]
    values = found.values(sorted({found.report.position, *ends, *positions}))
    if as_json:
        output.print_json(
            {
                "old": inputs.origin(old),
                "new": inputs.origin(new),
                "policy": policy.to_dict(),
                "result": found.result,
                "refused": bool(found.reasons),
                "reconciliation": found.report,
                "values": [asdict(value) for value in values],
            }
        )
    else:
        _print_verdict(found, values, is_all=is_all)
        _print_sides(found, origin)
        if is_all and found.is_entrywise:
            _print_rows(found)
        asked = [one for one in values if is_all or one.differs or one.position in positions]
        _print_values(asked, found)
    if found.result == UNKNOWN:
        raise click.ClickException(
            f"it is unknown whether they differ: {old_path} has no entries of {new.config.KIND}, "
            f"so only the position was compared; use the config of its run instead of {old_path}"
        )
    return int(found.result == DIFFERENT)


def _policy(words: tuple[str, ...], new: Input) -> tuple[Policy, str]:
    """Return the policy, and a text about its origin if it is not `--policy`."""
    parse = new.config.parse_policy
    if len(words) == 1 and "=" not in words[0]:
        return parse(words[0]), ""
    if words:
        # From the right: a pattern of group names may contain "=".
        pairs = dict(word.rsplit("=", 1) for word in words if "=" in word)
        if len(pairs) < len(words):
            raise click.UsageError("--policy: use one WORD, or ENTRY=WORD with each entry once")
        return parse(pairs), ""
    if isinstance(new, CheckpointInput):
        return parse(CONFIG), (
            " (for this comparison of two schedules; checkpoints do not record the policy of "
            "their run)"
        )
    if new.policy is None:
        return parse(CHECKPOINT), " (the default)"
    return new.policy, f" (of {new.path})"


def _ends(found: Comparison) -> list[int]:
    """Return the positions after old's at which phases end."""
    configs = [config for config in (found.declared, found.saved) if config is not None]
    tracks = [track for config in configs for track in views.tracks(config)]
    ends = {int(span.end) for track in tracks for span in track.spans}
    return sorted(end for end in ends if end > found.report.position)


def _print_verdict(found: Comparison, values: list[Value], *, is_all: bool) -> None:
    """Print whether they differ, and why."""
    if found.result == UNKNOWN:
        return
    output.headline(_verdict(found, values))
    for line in (*found.reasons, *_dropped(found)):
        output.say(line)
    causes = _causes(found)
    if not found.is_entrywise:
        output.say(
            "they are from different schedulers, so only values are compared, not entries: a "
            "resume would use the old position and the new schedule"
        )
        sides = {value.field: found.lacking_side(value) for value in values}
        causes = [
            f"{field}: {found.label(side)} does not schedule it"
            for field, side in sides.items()
            if side is not None
        ]
    for line in causes:
        output.say(f"  {line}")
    if found.is_entrywise and not is_all:
        equal = sum(row.why == EQUAL for row in found.report.rows)
        output.say(f"equal entries: {equal} (use --all to print them)")
    click.echo()


def _print_sides(found: Comparison, origin: str) -> None:
    """Print the two sides, the policy and notes."""
    old, new, words = found.old, found.new, found.policy.to_dict()
    if not isinstance(words, str):
        words = ", ".join(f"{entry}={word}" for entry, word in words.items())
    about = (
        ("old", f"{old.label}, in {old.unit or 'an unknown unit'}"),
        ("new", f"{new.label}, in {new.unit or 'an unknown unit'}"),
        ("policy", words + origin),
    )
    output.table(("", ""), about)
    notes = [*found.report.warnings]
    for side in (old, new):
        notes += [
            f"{side.path}: {note}" for note in side.notes if note not in found.report.warnings
        ]
        if isinstance(side, CheckpointInput):
            notes += [f"{side.path}: late change: {change}" for change in side.saved.history]
    if old.position is not None and new.position is not None and new.position < old.position:
        notes.append(
            f"NEW is at position {new.position}, before OLD's {old.position}; if NEW was saved "
            "later, its run did not resume from OLD, else swap the two"
        )
    if old.position is None and new.position is not None:
        notes.append(
            f"OLD is a config and NEW is a checkpoint; to see what a resume from {new.path} with "
            f"{old.path} would change, swap the two"
        )
    output.say_notes(dict.fromkeys(notes))


def _print_rows(found: Comparison) -> None:
    """Print every entry, with the value that a resume would use."""
    rows = [
        (
            "*" * row.changed,
            row.name,
            *map(output.exact, (row.checkpoint, row.config, row.used)),
            row.why,
        )
        for row in found.report.rows
    ]
    header = ("", "entry", *found.labels, "used", "why")
    output.table(header, rows, lambda row: row[0] == "*", "entries (* differ)")


def _print_values(values: list[Value], found: Comparison) -> None:
    if not values:
        return
    header = ("position", "field", *found.labels, "used", "change")
    rows = [_value_row(value, found) for value in values]
    output.table(header, rows, lambda row: row[-1] != "", "values at positions")


def _value_row(value: Value, found: Comparison) -> tuple[Any, ...]:
    """Return a row with a value's sides, and its change by the resume."""
    side, change = found.lacking_side(value), ""
    if side is not None:
        change = f"{'new' if side is found.new else 'old'} does not schedule it"
    elif found.reasons:
        change = "refused"
    elif value.moves:
        change = _change(value)
    sides = map(_form(value), (value.old, value.new, value.used))
    return value.position, value.field, *sides, change


def _change(value: Value) -> str:
    """Return the factor of a change, or the difference if the factor is rounded to 1."""
    old, used = value.old or 0.0, value.used or 0.0
    ratio = f"{used / old:.4g}" if old else "1"
    return f"{used - old:+.4g}" if ratio == "1" else f"× {ratio}"


def _form(value: Value) -> Callable[[Any], str]:
    """Return the function that writes a value: with all digits if both sides would look equal."""
    looks_same = output.shown(value.old) == output.shown(value.used)
    return output.exact if value.moves and looks_same else output.shown


def _verdict(found: Comparison, values: list[Value]) -> str:
    """Return a sentence about whether they differ, and which values jump."""
    old, new = found.old, found.new
    if found.result == SAME and (old.position is None or new.position is None):
        return "the same schedule"
    if found.result == SAME:
        return (
            f"the same schedule, at positions {old.position} and {new.position}. If lr jumped "
            "anyway, look for another cause: the position at which the run resumed, or the "
            "optimizer's state"
        )
    if found.reasons:
        return "different, and the resume would be refused"
    position = found.report.position
    # The old position comes first, because values there change at the resume.
    at = sorted({value.position for value in values} | {*_ends(found)[:_MOST_TRIED]})
    moved = [value for value in found.values(dict.fromkeys((position, *at))) if value.moves]
    first = [value for value in moved if value.position == moved[0].position]
    if first and first[0].position == position:
        return f"different: at position {position} the resume changes {_moves(first)}"
    where = f"different, but no value changes at position {position}"
    if first:
        return f"{where}; at {first[0].position} it would change {_moves(first)}"
    # With this policy the new schedule is not used, but its values are often the question.
    kept = found.moved_under(found.declared)
    if kept:
        where += f"; the schedule of {new.path} (--policy config) would change {_moves(kept)}"
    return where


def _moves(values: list[Value]) -> str:
    texts = [
        f"{value.field} from {_form(value)(value.old)} to {_form(value)(value.used)} "
        f"({_change(value)})"
        for value in values
    ]
    if len(texts) > _MOST_MOVES:
        texts[_MOST_MOVES:] = [f"and {len(texts) - _MOST_MOVES} more values"]
    return ", ".join(texts)


def _dropped(found: Comparison) -> list[str]:
    """Return lines about later horizons that the policy drops, and a policy that keeps them."""
    dropped = found.dropped_extensions()
    if not dropped:
        return []
    words = found.policy.to_dict()
    policy = f"the policy {words!r}" if isinstance(words, str) else "the policy"
    lines = [
        f"{found.new.path} has horizon {output.shown(one.asked)}"
        f"{'' if one.field == 'lr' else f' for {one.field}'}, but {policy} keeps "
        f"{output.shown(one.kept)}"
        for one in dropped
    ]
    advice = "--policy config"
    mine = {one.entry: CONFIG for one in dropped if one.entry is not None}
    if len(mine) == len(dropped):
        rest = {name: word for name, word in found.policy.words.items() if name not in mine}
        pairs = (f"{name}={word}" for name, word in {**mine, **rest}.items())
        advice = " ".join(f"--policy {shlex.quote(pair)}" for pair in pairs)
    return [*lines[:-1], f"{lines[-1]}; for the later horizon use {advice}"]


def _causes(found: Comparison) -> list[str]:
    """Return lines about different entries, first the entries that change a value by themselves."""
    rows = found.differing()
    causes = [_cause(row, found, is_tried=len(rows) <= _MOST_TRIED) for row in rows]
    lines = [text for _, text in sorted(causes, key=lambda cause: not cause[0])]
    if len(lines) > _MOST_CAUSES:
        more = len(lines) - _MOST_CAUSES
        lines[_MOST_CAUSES:] = [f"and {more} more entries (use --all to print them)"]
    return lines


def _cause(row: Row, found: Comparison, *, is_tried: bool) -> tuple[bool, str]:
    """Return whether an entry changes a value by itself, and a line about it."""
    name, old, new = row.name, _cut(row.checkpoint), _cut(row.config)
    is_kept = row.used == row.checkpoint
    side = found.only_side(name)
    if side is not None:
        return False, f"{name}: only {found.label(side)} has it"
    if name == HISTORY and is_kept:
        return False, f"{name}: {old}; kept"
    if found.reasons or is_kept:
        return False, f"{name}: {old} → {new}{'' if found.reasons else f'; {old} is kept'}"
    change = f"{name}: {old} → {'dropped' if name == HISTORY else _cut(row.used)}"
    moved = found.moved_by(name) if is_tried else None
    if moved is None:
        return False, change
    if not moved:
        return False, f"{change} (changes no value at this position by itself)"
    return True, f"{change} (changes {_moves(moved)} by itself)"


def _cut(value: Any) -> str:
    text = output.exact(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
