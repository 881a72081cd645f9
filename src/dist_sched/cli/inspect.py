"""`dist-sched inspect`: what a checkpoint holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from dist_sched._state.format import TEXT_KEY
from dist_sched.cli import options, subjects, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dist_sched._state.format import Checkpoint
    from dist_sched.cli.subjects import Subject


@click.command(
    epilog=f"""\b
Examples:  dist-sched inspect runs/7b
           dist-sched inspect s3://bucket/run/step-2000 --key app.scheduler

\b
{options.JSON_KEYS}
  {options.JSON_ORIGIN}; null where not told
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
    subject = subjects.read_checkpoint(path, key)
    told, state = subject.checkpoint, subject.state
    if told is None or state is None:
        return
    if as_json:
        options.print_json(_told(subject, told, state))
    else:
        _print(subject, told, state)


def _told(subject: Subject, told: Checkpoint, state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **subject.origin(),
        "scheduler": _scheduler(subject),
        "torn": list(told.torn),
        "entries": _jsonable(_entries(subject, told)),
        "history": [change.to_dict() for change in told.history],
        "next_update": _next_update(subject, told),
        "notes": list(subject.notes),
        "state": _jsonable(dict(state)),
    }


def _scheduler(subject: Subject) -> str | None:
    """Name the scheduler; None where the state does not even tell an entry."""
    is_told = subject.kind is not None and subject.config is not None
    return subject.kind.KIND if subject.kind is not None and is_told else None


def _entries(subject: Subject, told: Checkpoint) -> Mapping[str, Any]:
    """Give the entries as used, late changes included; those alone that the state tells."""
    if subject.config is None:
        return told.entries
    found = subject.config.entries()
    if subject.config.STATE_KEYS:
        return {name: value for name, value in found.items() if name in told.entries}
    return found


def _next_update(subject: Subject, told: Checkpoint) -> dict[str, float]:
    if subject.config is None:
        return dict(told.values)
    return subject.config.plan().values(told.position)


def _jsonable(found: Any) -> Any:
    """Give what a checkpoint holds as data for JSON; what JSON has no word for, as a text."""
    if isinstance(found, dict):
        return {str(name): _jsonable(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_jsonable(value) for value in found]
    if isinstance(found, float) and not math.isfinite(found):
        return repr(found)
    if hasattr(found, "to_dict"):
        return found.to_dict()
    return found if found is None or isinstance(found, bool | int | float | str) else repr(found)


def _print(subject: Subject, told: Checkpoint, state: Mapping[str, Any]) -> None:
    tables.pairs(_origin(subject, told))
    for note in subject.notes:
        tables.say(f"note: {note}")
    entries = _entries(subject, told)
    if entries:
        tables.heading("entries" + (", after the late changes" if told.history else ""))
        _print_entries(entries, told, state)
    if told.history:
        tables.heading("late changes")
        header = ("position", "what", "with")
        tables.table(header, [_change(change.to_dict()) for change in told.history])
    if TEXT_KEY not in state:
        tables.heading("the state as it stands")
        tables.table(("key", "value"), state.items())
    values = _next_update(subject, told)
    if values:
        tables.heading(f"values of the next update, at position {told.position}")
        tables.table(("field", "value"), values.items())


def _origin(subject: Subject, told: Checkpoint) -> Iterator[tuple[str, Any]]:
    where = subject.where
    if where is not None:
        yield "found in", where.path
        yield "key", where.key or "(the file is the state)"
        yield "dialect", where.format
    yield "scheduler", _scheduler(subject) or "(not told)"
    yield "position", told.position
    yield "unit", told.unit or "(not told)"
    yield "torn", ", ".join(told.torn) or "no"


def _print_entries(entries: Mapping[str, Any], told: Checkpoint, state: Mapping[str, Any]) -> None:
    exact = {name: tables.exact(value) for name, value in entries.items()}
    if not told.torn:
        tables.table(("entry", "value"), exact.items())
        return
    rows = [(name, value, tables.exact(state.get(name))) for name, value in exact.items()]
    torn = [index for index, (name, _, _) in enumerate(rows) if name in told.torn]
    tables.table(("entry", "text (trusted)", "key"), rows, marked=torn)


def _change(told: dict[str, Any]) -> tuple[int, str, str]:
    given = ", ".join(f"{name}={tables.exact(value)}" for name, value in told["arguments"].items())
    return told["position"], told["operation"], given
