"""`dist-sched inspect`: what a checkpoint holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from dist_sched.cli import inputs, options, output
from dist_sched.state import TEXT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched.cli.inputs import CheckpointInput
    from dist_sched.lineage import Change


@click.command(
    epilog=f"""\b
Examples:  dist-sched inspect runs/7b
           dist-sched inspect s3://bucket/run/step-2000 --key app.scheduler

\b
{options.JSON_KEYS}
  {options.JSON_ORIGIN}; null where not known
  torn: keys that differ from the text; entries: by name
  history: position, operation, arguments
  next_update: values by field; notes; state: as it stands"""
)
@click.argument("path", metavar="CHECKPOINT", type=click.Path())
@options.key
@options.as_json
def command(path: str, key: str | None, as_json: bool) -> None:
    """Print what a checkpoint holds of its scheduler, and where.

    Nothing in it is executed, and torch is not needed.
    """
    source = inputs.read_checkpoint(path, key)
    entries, values = _entries(source), _next_update(source)
    if not as_json:
        _print(source, entries, values)
        return
    output.print_json(
        {
            **inputs.origin(source),
            "torn": list(source.saved.torn),
            "entries": _to_json(entries),
            "history": [change.to_dict() for change in source.saved.lineage],
            "next_update": values,
            "notes": list(source.notes),
            "state": _to_json(source.state),
        }
    )


def _entries(source: CheckpointInput) -> Mapping[str, Any]:
    """Return the entries with the late changes, without those that had to be assumed."""
    saved = source.saved.entries
    if source.known_config is None:
        return saved
    found = source.known_config.entries()
    # Upstream's entries can be assumed one by one; a specification is saved whole or not at all.
    is_flat = bool(source.kind.STATE_KEYS)
    return {name: one for name, one in found.items() if name in saved or not is_flat}


def _next_update(source: CheckpointInput) -> Mapping[str, float]:
    if source.known_config is None:
        return source.saved.values
    return source.known_config.courses().values(source.position)


def _to_json(found: Any) -> Any:
    """Return what a checkpoint holds as data for JSON: as a text what JSON cannot express."""
    if isinstance(found, dict):
        return {str(name): _to_json(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_to_json(value) for value in found]
    if hasattr(found, "to_dict"):
        return found.to_dict()
    # torch saves infinities, for which JSON has no number.
    is_odd = isinstance(found, float) and not math.isfinite(found)
    return (
        found if isinstance(found, bool | int | float | str | None) and not is_odd else repr(found)
    )


def _print(
    source: CheckpointInput, entries: Mapping[str, Any], values: Mapping[str, float]
) -> None:
    saved, where = source.saved, source.where
    about = {
        "found in": where.path,
        "key": where.key or "(the file is the state)",
        "format": where.dialect,
        "scheduler": "(not known)" if source.known_config is None else source.kind.KIND,
        "position": source.position,
        "unit": source.unit or "(not known)",
        "torn": ", ".join(saved.torn) or "no",
    }
    output.table(("", ""), about.items())
    for note in source.notes:
        output.say(f"note: {note}")
    if entries:
        output.heading("entries" + (", after the late changes" if saved.lineage else ""))
        rows = [
            (name, output.exact(value), output.exact(source.state.get(name)))
            for name, value in entries.items()
        ]
        if saved.torn:
            header = ("entry", "text (trusted)", "key")
            output.table(header, rows, lambda row: row[0] in saved.torn)
        else:
            output.table(("entry", "value"), [row[:2] for row in rows])
    if saved.lineage:
        output.heading("late changes")
        output.table(("position", "what", "with"), map(_change_row, saved.lineage))
    if TEXT_KEY not in source.state:
        output.heading("the state as it stands")
        output.table(("key", "value"), source.state.items())
    if values:
        output.heading(f"values of the next update, at position {source.position}")
        output.table(("field", "value"), values.items())


def _change_row(change: Change) -> tuple[int, str, str]:
    given = ", ".join(f"{name}={output.exact(one)}" for name, one in change.arguments.items())
    return change.position, change.operation, given
