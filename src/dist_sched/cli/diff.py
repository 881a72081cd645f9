"""`dist-sched diff`: what a resume would change, of configs and checkpoints in any mix."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dist_sched._config import views
from dist_sched._config.history import HISTORY
from dist_sched._config.policy import CHECKPOINT, CONFIG, POLICY_WORDS
from dist_sched.cli import comparisons, inputs, options, output
from dist_sched.cli.comparisons import DIFFERENT, SAME, UNKNOWN
from dist_sched.cli.inputs import CheckpointInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dist_sched._config.policy import Policy
    from dist_sched._state.report import Row
    from dist_sched.cli.comparisons import Comparison, Value
    from dist_sched.cli.inputs import Input

_MOST_ENDS = 8
"""More ends of phases are not compared unless --at asks for them."""
_MOST_ROWS = 60
"""Of a longer report, the entries that do not differ are left out, as in a resume's log."""
_MOST_CAUSES = 8
"""More entries that differ are counted below the verdict, not named."""
_MOST_TRIED = 40
"""More entries that differ are not tried one by one, and more ends of phases not looked at."""
_LONG = 60
"""Characters of an entry, at most, below the verdict."""
_SIDES = ("A (script)", "B (checkpoint)", "used")


@click.command(
    epilog=f"""\b
What would a resume change?   dist-sched diff run.yaml runs/7b
Why did lr jump at a resume?  dist-sched diff runs/after runs/before
Go on with a longer horizon?  dist-sched diff run.yaml runs/7b \\
                                --policy lr_decay_steps=config \\
                                --policy '*=checkpoint'

\b
{options.JSON_KEYS}
  a, b: the two sides, each with {options.JSON_ORIGIN}
  policy; result: same, different or unknown; refused
  reconciliation: rows (name, config, checkpoint, used, why, changed),
    position, next_update (field, config, checkpoint, used), warnings
  values: position, field, b, a, used; null where not known"""
)
@click.argument("a_path", metavar="A", type=click.Path())
@click.argument("b_path", metavar="B", type=click.Path())
@click.option(
    "--policy",
    "words",
    multiple=True,
    metavar="WORD",
    shell_complete=lambda *typed: [word for word in POLICY_WORDS if word.startswith(typed[-1])],
    help="Who wins where they differ: checkpoint (B), config (A) or strict; or, repeated for "
    "each, entry=word, with * for the rest. Default: the policy of A's file, else checkpoint; "
    "where A is a checkpoint, config, so that its schedule is compared with B's.",
)
@click.option(
    "--at",
    "positions",
    multiple=True,
    metavar="POSITION",
    type=options.position,
    help="Compare the values there, too, such as 60 or 2k; may be repeated. The resume stays "
    "at B's position.",
)
@click.option("--key-a", metavar="KEY", help="The state's name in A, where there are several.")
@click.option("--key-b", metavar="KEY", help="The state's name in B, where there are several.")
@options.as_json
def command(
    a_path: str,
    b_path: str,
    words: tuple[str, ...],
    positions: tuple[int, ...],
    key_a: str | None,
    key_b: str | None,
    as_json: bool,
) -> int:
    """Print what would change if the script that declares A loaded B.

    A and B are configs or checkpoints. A is the running script's side: a config, or a checkpoint
    that was saved later, whose schedule includes its late changes. B is what is loaded: a
    checkpoint, or a config as a run of it starts, at position 0. Swapped, they answer the
    opposite: what would change if B's script loaded A.

    The status is 0 if they are the same, 1 if they differ, 2 if that is unknown.
    """
    a, b = inputs.read(a_path, key_a), inputs.read(b_path, key_b)
    policy, origin = _policy(words, a)
    found = comparisons.compare(a, b, policy)
    # A config starts at 0, where a warmup from 0 hides every difference.
    ends = [] if isinstance(b, CheckpointInput) else _ends(found)[:_MOST_ENDS]
    values = found.values(sorted({found.report.position, *ends, *positions}))
    if as_json:
        output.print_json(
            {
                "a": inputs.origin(a),
                "b": inputs.origin(b),
                "policy": policy.to_dict(),
                "result": found.result,
                "refused": bool(found.reasons),
                "reconciliation": found.report,
                "values": [asdict(value) for value in values],
            }
        )
    else:
        _print_sides(a, b, policy, origin, found)
        _print_report(found)
        header = ("position", "field", *_SIDES, "change")
        rows = [_value_row(value, found) for value in values]
        output.table(header, rows, lambda row: row[-1] != "", "values at positions")
        _print_verdict(a, b, found, values)
    if found.result == UNKNOWN:
        raise click.ClickException(
            f"unknown whether they differ: {b_path} has none of {a.config.KIND}'s entries, so only "
            f"the position was compared; compare with its run's config instead of {b_path}"
        )
    return int(found.result == DIFFERENT)


def _policy(words: tuple[str, ...], a: Input) -> tuple[Policy, str]:
    """Return the policy, and where it comes from if not from `--policy`."""
    parse = a.config.parse_policy
    if len(words) == 1 and "=" not in words[0]:
        return parse(words[0]), ""
    if words:
        # From the right: a pattern of group names may contain "=".
        pairs = dict(word.rsplit("=", 1) for word in words if "=" in word)
        if len(pairs) < len(words):
            raise click.UsageError("--policy: use one word, or entry=word pairs, each entry once")
        return parse(pairs), ""
    if isinstance(a, CheckpointInput):
        return parse(CONFIG), (
            " (of this comparison, so that A's schedule is compared with B's; the policy of A's "
            "own run is not recorded)"
        )
    return (parse(CHECKPOINT), " (the default)") if a.policy is None else (a.policy, " (of A)")


def _ends(found: Comparison) -> list[int]:
    """Return the positions past B's at which phases end."""
    configs = [config for config in (found.declared, found.saved) if config is not None]
    tracks = [track for config in configs for track in views.tracks(config)]
    ends = {int(span.end) for track in tracks for span in track.spans}
    return sorted(end for end in ends if end > found.report.position)


def _print_sides(a: Input, b: Input, policy: Policy, origin: str, found: Comparison) -> None:
    """Print what is compared, and what a person should know of it."""
    position, words = found.report.position, policy.to_dict()
    if not isinstance(words, str):
        words = ", ".join(f"{entry}={word}" for entry, word in words.items())
    meaning = f"a script that declares A loads B, at position {position}; swap them for the reverse"
    about = ((_SIDES[0], a), (_SIDES[1], b), ("policy", words + origin), ("meaning", meaning))
    output.table(("", ""), about)
    notes = [*found.report.warnings]
    for name, side in (("A", a), ("B", b)):
        notes += [f"{name}: {note}" for note in side.notes if note not in found.report.warnings]
        if isinstance(side, CheckpointInput):
            notes += [f"{name}: late change: {change}" for change in side.saved.history]
    if a.position is not None and b.position is not None and a.position < b.position:
        notes.append(
            f"A is at position {a.position}, before B's {b.position}: if A was saved later, its "
            "run did not resume at B's position"
        )
    output.say_notes(notes)
    click.echo()


def _print_report(found: Comparison) -> None:
    """Print the entries as a resume reports them, and why it would be refused."""
    report = found.report
    for line in ("cannot load the scheduler:", *found.reasons) if found.reasons else ():
        output.say(line)
    if not found.is_entrywise and found.saved is not None:
        output.say(
            "A and B are of different schedulers, whose entries are not compared one by one: the "
            "position is B's, the schedule A's, and the values below are compared"
        )
        return
    shown = report.rows if len(report.rows) <= _MOST_ROWS else report.changed
    num_changed, num_left = len(report.changed), len(report.rows) - len(shown)
    differ = "1 entry differs" if num_changed == 1 else f"{num_changed or 'no'} entries differ"
    left = f"; {num_left} that do not are left out here" if num_left else ""
    output.say(f"position {report.position}; {differ} (*){left}")
    rows = [
        (
            "*" * row.changed,
            row.name,
            *map(output.exact, (row.config, row.checkpoint, row.used)),
            row.why,
        )
        for row in shown
    ]
    output.table(("", "entry", *_SIDES, "why"), rows, lambda row: row[0] == "*")


def _value_row(value: Value, found: Comparison) -> tuple[Any, ...]:
    """Return a value's sides, and how the resume changes it."""
    side, change = found.lacking_side(value), ""
    if side is not None:
        change = f"{side} does not schedule it"
    elif found.reasons:
        change = "refused"
    elif value.b is not None and value.used is not None and value.moves:
        ratio = f"{value.used / value.b:.4g}" if value.b else "inf"
        change = f"x {ratio}" if ratio not in {"1", "inf"} else f"{value.used - value.b:+.4g}"
    sides = map(_form(value), (value.a, value.b, value.used))
    return value.position, value.field, *sides, change


def _form(value: Value) -> Callable[[Any], str]:
    """Return how a value is written: exactly, where the two sides would else look alike."""
    looks_same = output.shown(value.b) == output.shown(value.used)
    return output.exact if value.moves and looks_same else output.shown


def _print_verdict(a: Input, b: Input, found: Comparison, values: list[Value]) -> None:
    """Print in a sentence whether they differ, and below it why."""
    if found.result == UNKNOWN:
        return
    output.heading(_verdict(a, b, found, values))
    causes = _causes(found)
    if not found.is_entrywise:
        sides = {value.field: found.lacking_side(value) for value in values}
        lone = [f"{field}: {side} does not schedule it" for field, side in sides.items() if side]
        causes = lone + causes
    for line in causes:
        output.say(f"  {line}")


def _verdict(a: Input, b: Input, found: Comparison, values: list[Value]) -> str:
    """Say in a sentence whether they differ, and which values jump."""
    if found.result == SAME and (a.position is None or b.position is None):
        return "the same schedule"
    if found.result == SAME:
        return (
            f"the same schedule; A is at position {a.position}, B at {b.position}. If lr jumped "
            "all the same, the cause is elsewhere: the position at which the run resumed, or the "
            "optimizer's own state"
        )
    if found.reasons:
        return "different, and the resume would be refused"
    position = found.report.position
    # B's position comes first, because what moves there moves at the resume.
    at = sorted({value.position for value in values} | {*_ends(found)[:_MOST_TRIED]})
    moved = [value for value in found.values(dict.fromkeys((position, *at))) if value.moves]
    first = [value for value in moved if value.position == moved[0].position]
    if first and first[0].position == position:
        return f"different: at position {position} the resume moves {_moves(first)}"
    where = f"different, but no value moves at position {position}"
    if first:
        return f"{where}; at {first[0].position} it would move {_moves(first)}"
    # The policy hides what A's schedule would do, which is often the question.
    kept = found.moved_under(found.declared)
    if kept:
        where += f"; A's own schedule (--policy config) would move {_moves(kept)}"
    return where


def _moves(values: Iterable[Value]) -> str:
    return ", ".join(
        f"{value.field} from {_form(value)(value.b)} to {_form(value)(value.used)}"
        for value in values
    )


def _causes(found: Comparison) -> list[str]:
    """Name the entries that differ; those first that move a value by themselves."""
    rows = found.differing()
    causes = [_cause(row, found, is_tried=len(rows) <= _MOST_TRIED) for row in rows]
    lines = [text for _, text in sorted(causes, key=lambda cause: not cause[0])]
    if len(lines) > _MOST_CAUSES:
        lines[_MOST_CAUSES:] = [f"and {len(lines) - _MOST_CAUSES} more entries, starred (*) above"]
    return lines


def _cause(row: Row, found: Comparison, *, is_tried: bool) -> tuple[bool, str]:
    """Return whether an entry moves a value by itself, and what it was and is."""
    name, a, b = row.name, _cut(row.config), _cut(row.checkpoint)
    is_kept = row.used == row.checkpoint
    side = found.only_side(name)
    if side is not None:
        return False, f"{name}: only {side} has it"
    if name == HISTORY and is_kept:
        return False, f"{name}: {b}; kept"
    if found.reasons or is_kept:
        outcome = "" if found.reasons else "; B's is used"
        return False, f"{name}: {b} in B, {a} in A{outcome}"
    change = f"{name}: {b} -> {'dropped' if name == HISTORY else _cut(row.used)}"
    moved = found.moved_by(name) if is_tried else None
    if moved is None:
        return False, change
    if not moved:
        return False, f"{change}, which by itself moves no value at this position"
    return True, f"{change}, which by itself moves {_moves(moved)}"


def _cut(value: Any) -> str:
    text = output.exact(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
