"""`dist-sched diff`: what a resume would change, of configs and checkpoints in any mix."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dist_sched import views
from dist_sched.cli import comparisons, options, subjects, tables
from dist_sched.cli.comparisons import CANNOT_TELL, SAME, Comparison, moves
from dist_sched.errors import ConfigError, StateError
from dist_sched.policies import CHECKPOINT, CONFIG, LINEAGE, POLICY_WORDS, REST, covers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dist_sched.cli.subjects import Subject
    from dist_sched.policies import Policy
    from dist_sched.reconciliation import Reconciliation, Row

STATUS = dict(zip(comparisons.RESULTS, (0, 1, 2), strict=True))
_MOST_JOINS = 8
"""More ends of phases are not compared unless they are asked for."""
_MOST_ROWS = 60
"""Of a longer report, the entries that do not differ are left out, as a resume does."""
_MOST_CAUSES = 8
"""More entries that differ are counted beside the verdict, not named."""
_MOST_TRIED = 40
"""More entries that differ are not tried one by one."""
_MOST_NAMES = 6
"""More names are not listed in an error."""
_LONG = 60
"""Characters of an entry, at most, beside the verdict."""
_LONE = "does not schedule it"
_SIDES = ("A (script)", "B (checkpoint)", "used")


def _complete(ctx: click.Context, param: Any, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete a word, or the word of an entry of A's."""
    entry, is_pair, begun = incomplete.rpartition("=")
    if is_pair:
        return [CompletionItem(f"{entry}={word}") for word in _words(begun)]
    path = ctx.params.get("a") or next(iter(ctx.args), None)
    named = [name for name in _entries(path) if name.startswith(incomplete)]
    pairs = [f"{name}={word}" for name in named if incomplete for word in POLICY_WORDS]
    return [CompletionItem(word) for word in (*_words(incomplete), *pairs)]


def _words(begun: str) -> list[str]:
    return [word for word in POLICY_WORDS if word.startswith(begun)]


def _entries(path: str | None) -> list[str]:
    """Name the entries of a config file, while a command line is typed: a checkpoint is slow."""
    if path is None or not subjects.is_config(path) or not os.path.isfile(path):  # noqa: PTH113
        return []
    try:
        return [REST, *subjects.read(path).curve().entries()]
    except (ConfigError, StateError):
        return []


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
  policy; result: same, different or cannot tell; refused
  reconciliation: rows (name, config, checkpoint, used, why, changed),
    position, next_update (field, config, checkpoint, used), warnings
  values: position, field, b, a, used; null where not known"""
)
@click.argument("a", metavar="A", type=click.Path())
@click.argument("b", metavar="B", type=click.Path())
@click.option(
    "--policy",
    "words",
    multiple=True,
    metavar="WORD",
    shell_complete=_complete,
    help="Who wins where they differ: checkpoint (B), config (A) or strict; or, given again for "
    "each, entry=word, with * for the rest. Default: what A's file says, else checkpoint; where A "
    "is a checkpoint, config, so that its curve is set against B's.",
)
@click.option(
    "--at",
    "positions",
    multiple=True,
    metavar="POSITION",
    callback=options.amount(),
    help="Compare the values there, too, such as 60 or 2k; may be given again. The resume stays "
    "at B's position.",
)
@click.option("--key-a", metavar="KEY", help="The state's name in A, where there are several.")
@click.option("--key-b", metavar="KEY", help="The state's name in B, where there are several.")
@options.as_json
def command(
    a: str,
    b: str,
    words: tuple[str, ...],
    positions: tuple[int, ...],
    key_a: str | None,
    key_b: str | None,
    as_json: bool,
) -> int:
    """Print what would change if the script that declares A loaded B.

    A and B are configs or checkpoints. A is the running script's side: a config, or a checkpoint
    that was saved later, whose curve counts with its late changes. B is what is loaded: a
    checkpoint, or a config as a run of it starts, at position 0. Swapped, they answer the
    opposite: what would change if B's script loaded A.

    Ends with 0 if they are the same, 1 if they differ, 2 if that cannot be told.
    """
    mine, theirs = subjects.read(a, key_a, "--key-a"), subjects.read(b, key_b, "--key-b")
    parsed = _policy(words, mine)
    policy = parsed.told()
    found = comparisons.compare(mine, theirs, parsed)
    values = list(found.values(_positions(theirs, found, positions)))
    if as_json:
        options.print_json(_told(mine, theirs, policy, found, values))
    else:
        _print(mine, theirs, _said(words, mine, policy), found, values)
    if found.result == CANNOT_TELL:
        raise click.ClickException(
            f"cannot tell whether they differ: of {_kind(mine)}'s entries, {b} tells none; the "
            f"position alone was compared; compare with the config that its run had instead of {b}"
        )
    return STATUS[found.result]


def _kind(subject: Subject) -> str:
    return type(subject.curve()).KIND


def _policy(words: tuple[str, ...], mine: Subject) -> Policy:
    """Read what `--policy` says, as scripts/train_fsdp.py does; else what A's file says."""
    parse = mine.curve().parse_policy
    if not words:
        return mine.policy or parse(CHECKPOINT if mine.checkpoint is None else CONFIG)
    if len(words) == 1 and "=" not in words[0]:
        return parse(words[0])
    pairs = dict(word.rsplit("=", 1) for word in words if "=" in word)
    if len(pairs) < len(words):
        told = " ".join(words)
        raise click.UsageError(
            f"--policy {told}: give one word, or entry=word pairs, each entry once"
        )
    _refuse_unnamed(pairs, mine.curve().entries())
    return parse(pairs)


def _refuse_unnamed(pairs: Mapping[str, str], entries: Iterable[str]) -> None:
    """Refuse a policy that leaves entries without a word; a long schedule has hundreds."""
    left = [name for name in entries if not any(covers(begun, name) for begun in pairs)]
    if left and REST not in pairs:
        more = len(left) - _MOST_NAMES
        others = f" and {more} more" if more > 0 else ""
        raise click.UsageError(
            f"--policy has no word for {', '.join(left[:_MOST_NAMES])}{others}: name them, or add "
            f"--policy '{REST}=checkpoint'"
        )


def _positions(theirs: Subject, found: Comparison, asked: Iterable[int]) -> list[int]:
    """Give the positions at which values are compared: B's; of a config, where phases end."""
    is_config = theirs.position is None
    joins = _joins(found)[:_MOST_JOINS] if is_config else []
    return sorted({found.report.position, *joins, *asked})


def _joins(found: Comparison) -> list[int]:
    """Give the positions past B's at which phases end."""
    sides = [config for config in (found.declared, found.saved) if config is not None]
    ends = {
        int(span.end) for config in sides for track in views.tracks(config) for span in track.spans
    }
    return sorted(end for end in ends if end > found.report.position)


def _told(
    mine: Subject,
    theirs: Subject,
    policy: str | Mapping[str, str],
    found: Comparison,
    values: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "a": mine.origin(),
        "b": theirs.origin(),
        "policy": policy,
        "result": found.result,
        "refused": found.refusal is not None,
        "reconciliation": found.report.to_dict(),
        "values": values,
    }


def _said(words: tuple[str, ...], mine: Subject, policy: str | Mapping[str, str]) -> str:
    """Say which policy is used, and who says so."""
    told = policy if isinstance(policy, str) else ", ".join(f"{k}={v}" for k, v in policy.items())
    if words:
        return told
    if mine.checkpoint is not None:
        return (
            f"{told} (of this comparison, so that A's curve is set against B's; the policy of A's "
            "own run is not recorded)"
        )
    return f"{told} ({'as A says' if mine.policy else 'the default'})"


def _print(
    mine: Subject,
    theirs: Subject,
    policy: str,
    found: Comparison,
    values: list[dict[str, Any]],
) -> None:
    position = found.report.position
    read_as = f"a script that declares A loads B, at position {position}; swap them for the reverse"
    sides = [(name, side.described()) for name, side in zip(_SIDES, (mine, theirs), strict=False)]
    tables.pairs([*sides, ("policy", policy), ("read as", read_as)])
    for line in _remarks(mine, theirs, found):
        tables.say(f"note: {line}")
    click.echo()
    _print_report(found)
    tables.heading("values at positions")
    rows = [_value_row(row, found) for row in values]
    marked = [index for index, row in enumerate(rows) if row[-1]]
    tables.table(("position", "field", *_SIDES, "change"), rows, marked=marked)
    if found.result != CANNOT_TELL:
        tables.heading(_verdict(mine, theirs, found, values))
        for line in (*_lone(found, values), *_causes(found)):
            tables.say(f"  {line}")


def _remarks(mine: Subject, theirs: Subject, found: Comparison) -> Iterator[str]:
    """Give what a person should know of the sides, but for what the report says."""
    yield from found.report.warnings
    for name, side in (("A", mine), ("B", theirs)):
        yield from (f"{name}: {note}" for note in side.notes if note not in found.report.warnings)
        if side.checkpoint is not None:
            yield from (f"{name}: late change: {change}" for change in side.checkpoint.lineage)
    after, before = mine.position, theirs.position
    if after is not None and before is not None and after < before:
        yield (
            f"A is at position {after}, before B's {before}: if A was saved "
            "later, its run did not take up B's position"
        )


def _print_report(found: Comparison) -> None:
    """Print the entries as a resume settles them, and why it would be refused."""
    if found.refusal is not None:
        for line in ("cannot load the scheduler:", *found.refusal):
            tables.say(line)
    if not found.is_entrywise and found.saved is not None:
        tables.say(
            "A and B are of different schedulers, whose entries are not compared one by one: B "
            "gives the position alone, the curve is A's, and the values below are compared"
        )
        return
    tables.say(str(found.report).partition("\n")[0])
    rows = list(_rows(found.report))
    marked = [index for index, row in enumerate(rows) if row[0]]
    tables.table(("", "entry", *_SIDES, "why"), rows, marked=marked)


def _rows(report: Reconciliation) -> Iterator[tuple[str, ...]]:
    for row in report.rows if len(report.rows) <= _MOST_ROWS else report.changed:
        sides = (tables.exact(value) for value in (row.config, row.checkpoint, row.used))
        yield "*" * row.changed, row.name, *sides, row.why


def _value_row(row: dict[str, Any], found: Comparison) -> tuple[Any, ...]:
    sides = (row["a"], row["b"], row["used"])
    is_exact = moves(row) and tables.shown(row["b"]) == tables.shown(row["used"])
    told = (tables.exact(side) if is_exact else side for side in sides)
    return row["position"], row["field"], *told, _changed(row, found)


def _changed(row: dict[str, Any], found: Comparison) -> str:
    """Say what becomes of a value."""
    before, after = row["b"], row["used"]
    if row["a"] is None:
        return f"A {_LONE}"
    if before is None and found.saved is not None:
        return f"B {_LONE}"
    if found.refusal is not None:
        return "refused"
    if not moves(row):
        return ""
    ratio = f"{after / before:.4g}" if before else "inf"
    return f"x {ratio}" if ratio not in {"1", "inf"} else f"{after - before:+.4g}"


def _verdict(
    mine: Subject, theirs: Subject, found: Comparison, values: list[dict[str, Any]]
) -> str:
    """Say in a sentence what was found, and which values jump."""
    if found.result == SAME:
        return "the same schedule" + _elsewhere(mine, theirs)
    if found.refusal is not None:
        return "different, and the resume would be refused"
    position = found.report.position
    moved = [row for row in values if row["position"] == position and moves(row)]
    if moved:
        return f"different: at position {position} the resume moves {_moves(moved)}"
    return (
        f"different, but no value moves at position {position}"
        f"{_later(found, values) or _otherwise(found)}"
    )


def _elsewhere(mine: Subject, theirs: Subject) -> str:
    """Say where else to look if the schedule is the same, and yet something jumped."""
    if mine.position is None or theirs.position is None:
        return ""
    at = f"both are at position {mine.position}"
    if mine.position != theirs.position:
        at = f"A is at position {mine.position}, B at {theirs.position}"
    return (
        f"; {at}. If lr jumped all the same, the cause is elsewhere: the position that the run "
        "went on from, or the optimizer's own state"
    )


def _later(found: Comparison, values: list[dict[str, Any]]) -> str:
    """Say where values part, if the resume's own position is none of those."""
    positions = {row["position"] for row in values} | {*_joins(found)[:_MOST_TRIED]}
    moved = [row for row in found.values(sorted(positions)) if moves(row)]
    if not moved:
        return ""
    first = moved[0]["position"]
    return f"; at {first} it would move {_moves(row for row in moved if row['position'] == first)}"


def _otherwise(found: Comparison) -> str:
    """Say what A's own curve would move, where the policy keeps B's."""
    moved = found.moved_to(found.declared)
    return f"; A's own schedule (--policy config) would move {_moves(moved)}" if moved else ""


def _moves(rows: Iterable[dict[str, Any]]) -> str:
    return ", ".join(f"{row['field']} from {_both(row['b'], row['used'])}" for row in rows)


def _both(before: Any, after: Any) -> str:
    """Write two values so that they can be told apart."""
    told = tables.shown(before), tables.shown(after)
    first, second = told if told[0] != told[1] else (tables.exact(before), tables.exact(after))
    return f"{first} to {second}"


def _lone(found: Comparison, values: list[dict[str, Any]]) -> list[str]:
    """Name the fields that one side alone schedules, where entries are not compared."""
    if found.is_entrywise or found.saved is None:
        return []
    told = {row["field"]: _changed(row, found) for row in values}
    return [f"{field}: {about}" for field, about in told.items() if about.endswith(_LONE)]


def _causes(found: Comparison) -> Iterator[str]:
    """Name the entries that differ; those first that move a value by themselves."""
    rows, lone = found.differing(), found.lone()
    is_few = len(rows) <= _MOST_TRIED
    told = [
        (False, f"{row.name}: {lone[row.name]} alone has it")
        if row.name in lone
        else _cause(row, found, is_tried=is_few)
        for row in rows
    ]
    told.sort(key=lambda cause: not cause[0])
    yield from (line for _, line in told[:_MOST_CAUSES])
    if len(told) > _MOST_CAUSES:
        yield f"and {len(told) - _MOST_CAUSES} more entries, starred (*) above"


def _cause(row: Row, found: Comparison, *, is_tried: bool) -> tuple[bool, str]:
    """Tell whether an entry moves a value by itself, and say what it was and is."""
    name, (mine, theirs) = row.name, map(_cut, (row.config, row.checkpoint))
    if row.name == LINEAGE and row.used == row.checkpoint:
        return False, f"{name}: {theirs}; kept"
    if found.refusal is not None:
        return False, f"{name}: {theirs} in B, {mine} in A"
    if row.used == row.checkpoint:
        return False, f"{name}: {theirs} in B, {mine} in A; B's is used"
    moved = found.moved_by(name) if is_tried else None
    outcome = "dropped" if name == LINEAGE else _cut(row.used)
    change = f"{name}: {theirs} -> {outcome}"
    if moved is None:
        return False, change
    if not moved:
        return False, f"{change}, which by itself moves no value at this position"
    return True, f"{change}, which by itself moves {_moves(moved)}"


def _cut(value: Any) -> str:
    told = tables.exact(value)
    return told if len(told) <= _LONG else f"{told[:_LONG]}..."
