"""`dist-sched show`: the phases of a schedule, and its values at positions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dist_sched._config import views
from dist_sched.cli import options, subjects, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dist_sched._config.views import Span, Track
    from dist_sched.cli.subjects import Subject

_PAST = "past the end"


@click.command(
    epilog=f"""\b
Example:  dist-sched show run.yaml --at 0 --at 2k

\b
{options.JSON_KEYS}
  {options.JSON_ORIGIN}; null where not told
  fields: by name,
    phases: name, begin, end, first, last
    values: position, value
  notes"""
)
@click.argument("path", metavar="CONFIG|CHECKPOINT", type=click.Path())
@options.at
@click.option("--groups", is_flag=True, help="Show what named groups have of their own, too.")
@options.key
@options.as_json
def command(
    path: str, positions: tuple[int, ...], groups: bool, key: str | None, as_json: bool
) -> None:
    """Print the phases of every field, and its values at positions.

    Of a checkpoint, that is the schedule that its run had, late changes included, and the values
    of the next update.
    """
    subject = subjects.read(path, key)
    tracks = views.tracks(subject.curve(), groups=groups)
    wanted = sorted({*positions, *([] if subject.position is None else [subject.position])})
    if as_json:
        options.print_json(_told(subject, tracks, wanted))
    else:
        _print(subject, tracks, wanted)


def _told(subject: Subject, tracks: Iterable[Track], positions: Iterable[int]) -> dict[str, Any]:
    return {
        **subject.origin(),
        "fields": {
            track.label: {
                "phases": [_scaled(track, span) for span in track.spans],
                "values": [
                    {"position": position, "value": track.value(position)} for position in positions
                ],
            }
            for track in tracks
        },
        "notes": list(subject.notes),
    }


def _scaled(track: Track, span: Span) -> dict[str, Any]:
    scaled = {"first": span.first * track.factor, "last": span.last * track.factor}
    return {**asdict(span), **scaled}


def _print(subject: Subject, tracks: tuple[Track, ...], positions: list[int]) -> None:
    kind = type(subject.curve()).KIND
    tables.say(f"{subject.described()}: {kind}")
    for note in subject.notes:
        tables.say(f"note: {note}")
    tables.heading(
        f"phases, in {subject.unit or 'units'}; past the last one a field keeps its last value"
    )
    header = ("field", "phase", "from", "to", "first value", "last value")
    tables.table(header, [row for track in tracks for row in _phases(track)])
    if positions:
        tables.heading("values at positions: those of the next update")
        tables.table(("position", "field", "value", "phase"), _values(tracks, positions))


def _phases(track: Track) -> Iterator[tuple[Any, ...]]:
    for span in track.spans:
        is_endless = span.begin == span.end and len(track.spans) == 1
        end = None if is_endless else span.end
        told = _scaled(track, span)
        yield track.label, span.name, span.begin, end, told["first"], told["last"]


def _values(tracks: Iterable[Track], positions: Iterable[int]) -> Iterator[tuple[Any, ...]]:
    tracks = list(tracks)
    for position in positions:
        for track in tracks:
            is_endless = track.horizon == 0 and len(track.spans) == 1
            phase = track.spans[0].name if is_endless else track.phase(position) or _PAST
            yield position, track.label, track.value(position), phase
