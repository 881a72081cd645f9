"""`dist-sched inspect`: what a checkpoint holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from dist_sched._state.format import DIST_SCHED, TEXT_KEY
from dist_sched.cli import inputs, options, output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched._config.history import Change
    from dist_sched.cli.inputs import CheckpointInput


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
            "history": [change.to_dict() for change in source.saved.history],
            "next_update": values,
            "notes": list(source.notes),
            "state": _to_json(source.state),
        }
    )


def _entries(source: CheckpointInput) -> Mapping[str, Any]:
    """Return the entries with the late changes, without those that had to be assumed."""
    saved = source.saved
    if source.known_config is None:
        return saved.parts
    found = {str(path): one for path, one in source.known_config.entries().items()}
    # A foreign state's entries can be assumed one by one; ours are saved whole.
    is_whole = saved.format == DIST_SCHED
    return {name: one for name, one in found.items() if name in saved.parts or is_whole}


def _next_update(source: CheckpointInput) -> Mapping[str, float]:
    config, saved = source.known_config, source.saved
    values = saved.values if config is None else config.plan.values(source.position)
    return {str(path): value for path, value in values.items()}


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
    saved, location = source.saved, source.location
    about = {
        "found in": location.path,
        "key": location.key or "(the file is the state)",
        "format": location.format,
        "scheduler": "(not known)" if source.known_config is None else saved.kind.KIND,
        "position": source.position,
        "unit": source.unit or "(not known)",
        "torn": ", ".join(saved.torn) or "no",
    }
    output.table(("", ""), about.items())
    for note in source.notes:
        output.say(f"note: {note}")
    if entries:
        output.heading("entries" + (", after the late changes" if saved.history else ""))
        rows = [
            (name, output.exact(value), output.exact(source.state.get(name)))
            for name, value in entries.items()
        ]
        if saved.torn:
            header = ("entry", "text (trusted)", "key")
            output.table(header, rows, lambda row: row[0] in saved.torn)
        else:
            output.table(("entry", "value"), [row[:2] for row in rows])
    if saved.history:
        output.heading("late changes")
        output.table(("position", "what", "with"), map(_change_row, saved.history))
    if TEXT_KEY not in source.state:
        output.heading("the state as it stands")
        output.table(("key", "value"), source.state.items())
    if values:
        output.heading(f"values of the next update, at position {source.position}")
        output.table(("field", "value"), values.items())


def _change_row(change: Change) -> tuple[int, str, str]:
    given = ", ".join(f"{name}={output.exact(one)}" for name, one in change.arguments.items())
    return change.position, change.operation, given
