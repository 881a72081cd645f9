"""`dist-sched inspect`: print the scheduler's state in a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dist_sched._curves.shapes import stand_ins
from dist_sched._state.format import DIST_SCHED, TEXT_KEY
from dist_sched.cli import inputs, options, output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_sched.cli.inputs import CheckpointInput


@click.command(
    epilog=f"""\b
Examples:  dist-sched inspect runs/7b
           dist-sched inspect s3://bucket/run/step-2000 --key app.scheduler

\b
{options.JSON_KEYS}
  {options.JSON_ORIGIN} (null if unknown), notes
  torn: keys that differ from the text
  entries: by name
  history: a list of position, operation, arguments
  next_update: values by field (null if a shape is unknown)
  state: the state, unchanged"""
)
@options.checkpoint
@options.key
@options.as_json
def command(path: str, key: str | None, as_json: bool) -> None:
    """Print the scheduler's state in a checkpoint, and where it is.

    No code in the checkpoint runs, and torch is not needed. If the state has a shape that is not
    registered here, everything except values is printed.
    """
    with stand_ins() as unknown:
        source = inputs.read_checkpoint(path, key)
        saved, config = source.saved, source.known_config
        entries = _entries(source, before_changes=bool(unknown))
    notes = [*source.notes]
    if unknown:
        names = ", ".join(sorted(unknown))
        notes.append(
            f"there are no values, because shapes are not registered here: {names}; use --import "
            "MODULE to import the module that registers them"
        )
        values = None
    else:
        found = saved.values if config is None else config.plan.values(saved.position)
        values = {str(path): value for path, value in found.items()}
    if not as_json:
        _print(source, entries, values, notes)
        return
    output.print_json(
        {
            **inputs.origin(source),
            "torn": saved.torn,
            "entries": entries,
            "history": saved.history,
            "next_update": values,
            "notes": notes,
            "state": source.state,
        }
    )


def _entries(source: CheckpointInput, *, before_changes: bool) -> Mapping[str, Any]:
    """Return the entries, with late changes if possible, and without assumed entries."""
    saved = source.saved
    # Late changes need values, which unknown shapes do not have.
    config = saved.config if before_changes else source.known_config
    if config is None:
        return saved.parts
    found = {str(path): one for path, one in config.entries().items()}
    # Some entries of a foreign state may be assumed. Our own states are complete.
    is_whole = saved.format == DIST_SCHED
    return {name: one for name, one in found.items() if name in saved.parts or is_whole}


def _print(
    source: CheckpointInput,
    entries: Mapping[str, Any],
    values: Mapping[str, float] | None,
    notes: Sequence[str],
) -> None:
    saved, location = source.saved, source.location
    about = {
        "found in": location.path,
        "key": location.key or "(the file is the state)",
        "format": location.format,
        "scheduler": "(unknown)" if source.known_config is None else saved.kind.KIND,
        "position": saved.position,
        "unit": saved.unit or "(unknown)",
        "inconsistent": ", ".join(saved.torn) or "no",
    }
    output.table(("", ""), about.items())
    output.say_notes(notes)
    if entries:
        header = ("entry", "text (used)", "key") if saved.torn else ("entry", "value")
        rows = [
            (name, output.exact(value), output.exact(source.state.get(name)))[: len(header)]
            for name, value in entries.items()
        ]
        when = "before" if values is None else "after"
        title = "entries" + (f", {when} the late changes" if saved.history else "")
        output.table(header, rows, lambda row: row[0] in saved.torn, title)
    if saved.history:
        changes = []
        for change in saved.history:
            pairs = [f"{name}={output.exact(one)}" for name, one in change.arguments.items()]
            changes.append((change.position, change.operation, ", ".join(pairs)))
        output.table(("position", "change", "arguments"), changes, title="late changes")
    if TEXT_KEY not in source.state:
        output.table(("key", "value"), source.state.items(), title="the state, unchanged")
    if values:
        title = f"values for the next update, at position {saved.position}"
        output.table(("field", "value"), values.items(), title=title)
