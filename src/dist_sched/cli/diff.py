"""`dist-sched diff`: what a resume would change, of configs and checkpoints in any mix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dist_sched import views
from dist_sched.cli import options, subjects, tables
from dist_sched.config import ABSENT, Config, evolved
from dist_sched.errors import ReconcileError
from dist_sched.policies import CHECKPOINT, CONFIG, POLICY_WORDS, Policy
from dist_sched.reconciliation import Reconciliation, reconcile_checkpoint, saved_curve
from dist_sched.state import TEXT_KEY, Checkpoint, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dist_sched.cli.subjects import Subject

STATUS = {"same": 0, "different": 1, "cannot tell": 2}
_MOST_JOINS = 8
"""More ends of phases are not compared unless they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a resume of one schedule from another would change."""

    report: Reconciliation
    refusal: str | None
    """Why the resume would be refused, the report included; None if it would not."""
    result: str
    """same, different, or cannot tell."""
    declared: Config
    """A's curve."""
    saved: Config | None
    """B's curve; None where it tells none."""
    used: Config | None
    """The outcome's curve; None where it was refused."""
    known: Mapping[str, float]
    """By field, B's values at its position, where it tells no curve."""

    def values(self, positions: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Give each field's values at positions, before and after."""
        for position in positions:
            after, before, used = (
                {} if config is None else config.courses().values(position)
                for config in (self.declared, self.saved, self.used)
            )
            if self.saved is None and position == self.report.position:
                before = dict(self.known)
            for field in dict.fromkeys((*before, *after)):
                sides = {"b": before.get(field), "a": after.get(field), "used": used.get(field)}
                yield {"position": position, "field": field, **sides}


def _complete(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    entry, is_pair, begun = incomplete.rpartition("=")
    return [
        CompletionItem(f"{entry}{is_pair}{word}") for word in POLICY_WORDS if word.startswith(begun)
    ]


@click.command(
    epilog="""\b
What would a resume change?   dist-sched diff run.yaml runs/7b
Why did lr jump at a resume?  dist-sched diff runs/after runs/before
Go on with a longer horizon?  dist-sched diff run.yaml runs/7b \\
                                --policy lr_decay_steps=config \\
                                --policy '*=checkpoint'"""
)
@click.argument("a", metavar="A", type=click.Path())
@click.argument("b", metavar="B", type=click.Path())
@click.option(
    "--policy",
    "words",
    multiple=True,
    metavar="WORD",
    shell_complete=_complete,
    help="Who wins where they differ: checkpoint, config (A) or strict; or, given again for each, "
    "entry=word, with * for the rest. Default: what A's file says, else checkpoint; where A is a "
    "checkpoint, config, since its curve is the one that was used.",
)
@options.at
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
    """Print what would change if the script that A declares went on from B.

    A and B are configs or checkpoints. A is the running script's side: a config, or a checkpoint
    that was saved later, whose curve counts with its late changes. B is the checkpoint's side.
    Ends with 0 if they are the same, 1 if they differ, 2 if that cannot be told.
    """
    mine, theirs = subjects.read(a, key_a, "--key-a"), subjects.read(b, key_b, "--key-b")
    policy = _policy(words, mine)
    found = compare(mine, theirs, policy, positions[0] if positions else None)
    values = list(found.values(positions or _positions(theirs, found)))
    if as_json:
        options.print_json(_told(mine, theirs, policy, found, values))
    else:
        _print(mine, theirs, _said(words, mine, policy), found, values)
    if found.result == "cannot tell":
        raise click.ClickException(
            f"cannot tell whether they differ: of {_kind(mine)}'s entries, {b} tells none; "
            "the position alone was compared"
        )
    return STATUS[found.result]


def _kind(subject: Subject) -> str:
    return type(subject.curve()).KIND


def _policy(words: tuple[str, ...], mine: Subject) -> str | Mapping[str, str]:
    """Read what `--policy` says, as scripts/train_fsdp.py does; else what A's file says."""
    if not words:
        return mine.policy or (CHECKPOINT if mine.checkpoint is None else CONFIG)
    if len(words) == 1 and "=" not in words[0]:
        return words[0]
    pairs = dict(word.rsplit("=", 1) for word in words if "=" in word)
    if len(pairs) < len(words):
        told = " ".join(words)
        raise click.UsageError(
            f"--policy {told}: give one word, or entry=word pairs, each entry once"
        )
    return pairs


def compare(
    mine: Subject, theirs: Subject, policy: str | Mapping[str, str], position: int | None = None
) -> Comparison:
    """Bring A's config and B's state together as a resume would.

    Args:
        mine: A.
        theirs: B.
        policy: Who wins.
        position: Where to compare the values; B's position if None.

    Raises:
        ConfigError: The policy is illegal.
        StateError: A tells no curve.
    """
    declared = mine.curve()
    told = _as_found(mine, theirs, declared)
    if position is not None and position != told.position:
        told = replace(told, position=position, values={})
    saved = saved_curve(declared, told) if told.entries else theirs.config
    parsed = Policy.parse(policy, tuple(declared.entries()))
    used, report, refusal = _settled(declared, mine.unit or told.unit or "steps", told, parsed)
    return Comparison(
        report=report,
        refusal=refusal,
        result="different" if refusal is not None else _result(declared, told, report),
        declared=declared,
        saved=saved,
        used=used,
        known=told.values,
    )


def _settled(
    declared: Config, unit: str, told: Checkpoint, policy: Policy
) -> tuple[Config | None, Reconciliation, str | None]:
    """Give the curve to use, the report, and why a resume would be refused."""
    try:
        config, lineage, report = reconcile_checkpoint(declared, unit, told, policy)
    except ReconcileError as error:
        if error.reconciliation is None:
            raise
        return None, error.reconciliation, str(error)
    return evolved(config, lineage), report, None


def _as_found(mine: Subject, theirs: Subject, declared: Config) -> Checkpoint:
    """Give what a load of B would find; late changes as part of the curve where they are of A's."""
    told = unpack(theirs.as_state(), type(declared), own={TEXT_KEY: ""})
    is_changed = mine.checkpoint is not None and bool(mine.checkpoint.lineage)
    if is_changed and told.entries and theirs.config is not None:
        return replace(told, entries=theirs.config.parts(), lineage=())
    return told


def _result(declared: Config, told: Checkpoint, report: Reconciliation) -> str:
    if not told.entries:
        return "cannot tell"
    sides = declared.sides(told.entries).values()
    is_added = told.unit is not None and any(both.checkpoint is ABSENT for both in sides)
    return "different" if report.changed or is_added else "same"


def _positions(theirs: Subject, found: Comparison) -> list[int]:
    """Give the positions at which values are compared: B's; of a config, where phases end."""
    if theirs.position is not None:
        return [theirs.position]
    sides = [config for config in (found.declared, found.saved) if config is not None]
    ends = {
        int(span.end) for config in sides for track in views.tracks(config) for span in track.spans
    }
    return [0, *sorted(ends - {0})[:_MOST_JOINS]]


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
        return f"{told} (A is a checkpoint: its curve is the one that was used)"
    return f"{told} ({'as A says' if mine.policy else 'the default'})"


def _print(
    mine: Subject,
    theirs: Subject,
    policy: str,
    found: Comparison,
    values: list[dict[str, Any]],
) -> None:
    sides = [("A, the script's side", mine), ("B, the checkpoint's side", theirs)]
    tables.pairs([*((name, side.described()) for name, side in sides), ("policy", policy)])
    for line in _remarks(mine, theirs, found.report):
        tables.say(f"note: {line}")
    click.echo()
    _print_report(found)
    tables.heading("values before (B), as A has them, and after, by the policy")
    rows = [
        (row["position"], row["field"], row["b"], row["a"], row["used"], _changed(row))
        for row in values
    ]
    marked = [index for index, row in enumerate(rows) if row[-1]]
    tables.table(("position", "field", "before (B)", "A", "after", ""), rows, marked=marked)
    if found.result != "cannot tell":
        tables.heading(_verdict(found, values))


def _remarks(mine: Subject, theirs: Subject, report: Reconciliation) -> Iterator[str]:
    """Give what a person should know of the sides, but for what the report says."""
    for name, side in (("A", mine), ("B", theirs)):
        yield from (f"{name}: {note}" for note in side.notes if note not in report.warnings)
        if side.checkpoint is not None:
            yield from (f"{name}: late change: {change}" for change in side.checkpoint.lineage)
    after, before = mine.position, theirs.position
    if after is not None and before is not None and after < before:
        yield (
            f"A is at position {after}, before B's {before}: if A was saved "
            "later, its run did not take up B's position"
        )


def _print_report(found: Comparison) -> None:
    """Print the report as a resume does; folded where a terminal is too narrow for its table."""
    lines = [tables.printable(line) for line in (found.refusal or str(found.report)).splitlines()]
    begin = next(index for index, line in enumerate(lines) if line.split()[:1] == ["entry"])
    is_folded = tables.is_wide(lines[begin:])
    for line in lines[:begin] if is_folded else lines:
        tables.say(line, is_strong=line.startswith("*"))
    if is_folded:
        header = ("", "entry", "config", "checkpoint", "used", "why")
        rows = list(_rows(found.report))
        marked = [index for index, row in enumerate(rows) if row[0]]
        tables.table(header, rows, marked=marked)


def _rows(report: Reconciliation) -> Iterator[tuple[Any, ...]]:
    for row in report.rows:
        yield "*" * row.changed, row.name, row.config, row.checkpoint, row.used, row.why
    for value in report.next_update:
        yield "", value.field, value.config, value.checkpoint, value.used, "next update"


def _changed(row: dict[str, Any]) -> str:
    before, after = row["b"], row["used"]
    if after is None:
        return "refused"
    if before is None or before == after:
        return ""
    return f"x {after / before:.4g}" if before else "from 0"


def _verdict(found: Comparison, values: list[dict[str, Any]]) -> str:
    """Say in a sentence what was found, and which values jump."""
    if found.refusal is not None:
        return "different, and the resume would be refused"
    if found.result == "same":
        return "the same"
    changed = [row for row in values if _changed(row)]
    if not changed:
        return "different, but the values are the same at the positions above"
    position = changed[0]["position"]
    moves = [
        f"{row['field']} from {tables.shown(row['b'])} to {tables.shown(row['used'])}"
        for row in changed
        if row["position"] == position
    ]
    return f"different: at position {position} the resume moves {', '.join(moves)}"
