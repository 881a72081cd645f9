"""`dist-sched show`: the phases of a schedule, and its values at positions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dist_sched._config import views
from dist_sched.cli import inputs, options, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dist_sched._config.views import Track
    from dist_sched.cli.inputs import Input


@click.command(
    epilog=f"""\b
Example:  dist-sched show run.yaml --at 0 --at 2k

\b
{options.JSON_KEYS}
  {options.JSON_ORIGIN} (null if unknown), notes
  fields: by name, phases and values
  phases: a list of name, begin, end, first, last
  values: a list of position, value"""
)
@click.argument("path", metavar="CONFIG|CHECKPOINT", type=click.Path())
@options.at
@click.option("--groups", is_flag=True, help="Also show the schedules of named groups.")
@options.key
@options.as_json
def command(
    path: str, positions: tuple[int, ...], groups: bool, key: str | None, as_json: bool
) -> None:
    """Print the phases of every field, and values at positions.

    For a checkpoint, it prints the schedule of its run, including late changes, and the values for
    the next update.
    """
    source = inputs.read(path, key)
    tracks = views.tracks(source.config, groups=groups)
    own = () if source.position is None else (source.position,)
    at = sorted({*positions, *own})
    if not as_json:
        _print(source, tracks, at)
        return
    fields = {
        track.label: {
            "phases": _phases(track),
            "values": [{"position": where, "value": track.value(where)} for where in at],
        }
        for track in tracks
    }
    output.print_json({**inputs.origin(source), "fields": fields, "notes": source.notes})


def _phases(track: Track) -> list[dict[str, Any]]:
    return [
        {**asdict(span), "first": span.first * track.factor, "last": span.last * track.factor}
        for span in track.spans
    ]


def _print(source: Input, tracks: Sequence[Track], positions: Sequence[int]) -> None:
    output.say(f"{source}: {source.config.KIND}")
    output.say_notes(source.notes)
    rows: list[tuple[Any, ...]] = []
    for track in tracks:
        for phase in _phases(track):
            # A constant schedule has one phase of length 0, which never ends.
            end = phase["end"] if track.horizon else None
            rows.append(
                (track.label, phase["name"], phase["begin"], end, phase["first"], phase["last"])
            )
    title = f"phases, in {source.unit or 'units'}; after the last one the value stays constant"
    header = ("field", "phase", "from", "to", "first value", "last value")
    output.table(header, rows, title=title)
    if positions:
        rows = []
        for position in positions:
            for track in tracks:
                name = track.phase(position) if track.horizon else track.spans[-1].name
                rows.append((position, track.label, track.value(position), name or "past the end"))
        title = "values for the update at each position"
        output.table(("position", "field", "value", "phase"), rows, title=title)
