"""`dist-sched plot`: schedules over a run, as a picture or in the terminal."""

from __future__ import annotations

import os
import shutil
import string
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dist_sched import layers, views
from dist_sched.cli import inputs, options
from dist_sched.cli.output import printable, write_file
from dist_sched.errors import ConfigError
from dist_sched.layers import Layer, Panel, Scale, shortened
from dist_sched.views import brief, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dist_sched.cli.inputs import Input
    from dist_sched.layers import Line, Points
    from dist_sched.views import Span, Track

_PIPED = 80
"""Columns, where the output is no terminal."""
_LEAST, _MOST = 40, 160
"""Columns, at least and at most."""
_HEIGHT = 16
"""Lines of a chart, its axes included."""
_LOW = 9
"""The same, of what never changes."""
_MARKERS = "ox+*#@%&" + "".join(
    letter for letter in string.ascii_letters + string.digits if letter not in "oOxX0"
)
_COLOURS = (32, 166, 36, 175, 172, 74)
"""Of the 256: those nearest to Okabe's and Ito's."""
_BRAILLE = range(0x2801, 0x2900)
_POINTS = 400
"""Points of a curve, about."""
_MOST_STRIPS = 8
"""Phases of more curves than this are only written."""
_LEAST_LETTERS = 3
"""Columns that are too few for the beginning of a name."""
_MOST_PHASES = 8
"""More phases than this are not all written."""
_OWN = ":"
"""What the line at a checkpoint's own position is made of."""


@click.command()
@click.argument("paths", metavar="CONFIG|CHECKPOINT...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Write a picture: .png, .svg or .html.",
)
@options.at
@click.option("--groups", is_flag=True, help="Draw what named groups have of their own, too.")
@click.option("--log", is_flag=True, help="Draw the values on a logarithmic axis.")
@click.option("--terminal", is_flag=True, help="Draw in the terminal; so it is without -o.")
@options.key
@options.force
def command(
    paths: tuple[str, ...],
    output: str | None,
    positions: tuple[int, ...],
    groups: bool,
    log: bool,
    terminal: bool,
    key: str | None,
    force: bool,
) -> None:
    """Draw every field over the run, with its phases.

    Several are laid over each other. A checkpoint's position is marked, and those of --at are.

    \b
    dist-sched plot run.yaml
    dist-sched plot run.yaml checkpoints/step_2000 -o lr.png
    """  # noqa: D301 - click's mark for lines that stay as they are
    if output is not None:
        from dist_sched import pages

        pages.check_ending(output)
    given, notes = _read(paths, key, layers.positions("--at", positions), groups=groups)
    if output is not None:
        notes += [f"{output}: {note}" for note in _write(output, given, log=log, force=force)]
    for note in notes:
        click.echo(printable(f"note: {note}"), err=True)
    if output is not None:
        click.echo(f"wrote {printable(output)}")
    if output is None or terminal:
        _show(given, log=log)


def _read(
    paths: Sequence[str], key: str | None, at: Sequence[int], *, groups: bool
) -> tuple[Sequence[Layer], list[str]]:
    """Read what is to be drawn, and give notes on it."""
    read = [inputs.read(path, one) for path, one in zip(paths, _keys(paths, key), strict=True)]
    named = zip(read, map(printable, _names(paths)), strict=True)
    given = layers.marked([_layer(one, name, groups=groups) for one, name in named], at)
    return given, [f"{subject.path}: {note}" for subject in read for note in subject.notes]


def _write(output: str, given: Sequence[Layer], *, log: bool, force: bool) -> list[str]:
    """Write a picture, and give notes on it."""
    from dist_sched import pages

    try:
        content, notes = pages.rendered(output, given, log=log)
        write_file(output, content, force=force)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror or error}") from error
    return notes


def _keys(paths: Sequence[str], key: str | None) -> list[str | None]:
    """Give the key to checkpoints alone, or, where there is none, to all, to be refused."""
    is_config = [path.lower().endswith(inputs.CONFIG_ENDINGS) for path in paths]
    return [None if one and not all(is_config) else key for one in is_config]


def _layer(subject: Input, name: str, *, groups: bool) -> Layer:
    tracks = views.tracks(subject.config, groups=groups)
    return Layer(name, tracks, subject.unit, subject.position)


def _names(paths: Sequence[str]) -> list[str]:
    """Name files by the ends of their paths, as long as it takes to tell them apart."""
    parts = [Path(path).parts or (path,) for path in paths]
    lengths = [1] * len(parts)
    while True:
        names = ["/".join(part[-n:]) for part, n in zip(parts, lengths, strict=True)]
        count = Counter(names)
        longer = [
            min(n + (count[name] > 1), len(part))
            for name, part, n in zip(names, parts, lengths, strict=True)
        ]
        if longer == lengths:
            return layers.numbered(names)
        lengths = longer


def _show(given: Sequence[Layer], *, log: bool) -> None:
    """Print a chart for each field."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_PIPED, 24)).columns if is_terminal else _PIPED
    width = min(max(width, _LEAST), _MOST)
    label = layers.x_label(given)
    charts = [_Chart(panel, width).text(label, log=log) for panel in layers.panels(given)]
    text = "\n\n".join(charts)
    is_coloured = is_terminal and not os.environ.get("NO_COLOR")
    if not is_coloured:
        text = "\n".join(line.rstrip() for line in click.unstyle(text).split("\n"))
    click.echo(_encodable(text), color=is_coloured)


def _encodable(text: str) -> str:
    """Give a text that the terminal's encoding has letters for."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        frame = str.maketrans("┌┐└┘├┤┬┴┼─│…", "+++++++++-|~")
        plain = text.translate({**frame, **dict.fromkeys(_BRAILLE, "o")})
        return plain.encode(encoding, "replace").decode(encoding)
    return text


@dataclass(frozen=True, slots=True)
class _Chart:
    """The chart of one field."""

    panel: Panel
    width: int

    @property
    def lines(self) -> Sequence[Line]:
        return self.panel.lines

    @property
    def end(self) -> int:
        return self.panel.end

    def text(self, x_label: str, *, log: bool) -> str:
        """Give the chart, with phases above its frame, and below it what is in words."""
        joins = self.panel.joins
        # More phases than there are columns cannot be seen one by one.
        at = views.sampled(self.end, joins if len(joins) < _POINTS else [], 5 * _POINTS)
        curves = self.panel.curves(at)
        scale = layers.scale_of(curves, log=log)
        indent = max(len(brief(tick)) for tick in scale.ticks()) + 1
        inner = self.width - indent - 1
        told = [
            f"{printable(self.panel.field)} {scale.note}",
            *self._legend(),
            *self._strips(indent, inner),
            self._frame(curves, scale, inner),
            " " * indent + x_label.center(inner),
            *self._phases(),
            *self._marks(),
        ]
        return "\n".join(line.rstrip() for line in told)

    def _markers(self) -> Iterator[tuple[str, int | str, Line]]:
        for index, line in enumerate(self.lines):
            colour = _COLOURS[index % len(_COLOURS)]
            yield _MARKERS[index % len(_MARKERS)], colour, line

    def _legend(self) -> list[str]:
        if len(self.lines) == 1:
            return [f"  {self.lines[0].name}"] if self.lines[0].name else []
        names = shortened([line.name for line in self.lines], self.width - 8)
        told = [f"{marker} {names[line.name]}" for marker, _, line in self._markers()]
        return self._folded("   ".join(name.replace(" ", "\0") for name in told))

    def _folded(self, text: str) -> list[str]:
        """Fold a text to the width; what is joined by a NUL stays together."""
        folds = {"initial_indent": "  ", "subsequent_indent": "  ", "break_on_hyphens": False}
        found = textwrap.wrap(text, self.width, **folds)  # type: ignore[arg-type] # a bool among texts
        return [line.replace("\0", " ") for line in found]

    def _frame(self, curves: Sequence[Points], scale: Scale, inner: int) -> str:
        import plotext

        plotext.clear_figure()
        plotext.theme("clear")
        plotext.limit_size(False, False)
        is_flat = len({value for _, ys in curves for value in ys}) == 1
        plotext.plot_size(self.width, _LOW if is_flat else _HEIGHT)
        plotext.xlim(0, self.end)
        plotext.ylim(*scale.scaled([scale.low, scale.high]))
        ticks = scale.ticks()
        plotext.yticks(scale.scaled(ticks), [brief(tick) for tick in ticks])
        positions = layers.whole_numbers(self.end, max(inner // 12, 2))
        plotext.xticks(positions, [short(position) for position in positions])
        self._draw(plotext, curves, scale, inner)
        built: str = plotext.build()
        return "\n".join(line.rstrip() for line in built.rstrip("\n").split("\n"))

    def _draw(self, plotext: Any, curves: Sequence[Points], scale: Scale, inner: int) -> None:
        """Draw marks, and curves over them."""
        for mark in self.panel.marks:
            if mark.owners:
                ends = scale.scaled([scale.low, scale.high])
                plotext.plot([mark.position] * 2, ends, marker=_OWN)
            else:
                plotext.vertical_line(mark.position)
        is_one = len(curves) == 1
        for (marker, colour, _), (xs, ys) in zip(self._markers(), curves, strict=True):
            looks = {"marker": "braille" if is_one else marker, "color": colour}
            plotext.plot(xs, scale.scaled(ys), **looks)
        for index, (marker, colour, line) in enumerate(self._markers() if not is_one else ()):
            # Where curves are the same, each has its columns.
            columns = range(index, inner, len(curves))
            xs = [round(column * self.end / (inner - 1)) for column in columns]
            plotext.scatter(xs, scale.scaled(line.track.values(xs)), marker=marker, color=colour)

    def _strips(self, indent: int, inner: int) -> Iterator[str]:
        """Give the phases in columns of the chart, those that lines share once."""
        found = self.panel.rows()
        for spans, line in found.items() if len(found) <= _MOST_STRIPS else ():
            row = [" "] * inner
            for span in spans:
                begin, end = (self._column(at, inner) for at in (span.begin, span.end))
                row[begin] = row[end] = "|"
                row[begin + 1 : end] = _fitting(span.name, max(end - begin - 1, 0))
            marker = next(marker for marker, _, one in self._markers() if one is line)
            yield f"{marker if len(found) > 1 else '':<{indent}}{''.join(row)[:inner]}"

    def _column(self, position: float, inner: int) -> int:
        return min(round(position / self.end * (inner - 1)), inner - 1)

    def _phases(self) -> Iterator[str]:
        """Write the phases with their ends and values, those that lines share once."""
        told: dict[str, list[str]] = {}
        for marker, _, line in self._markers():
            told.setdefault(_phases_of(line.track), []).append(marker)
        for text, markers in told.items():
            name = f" {''.join(markers)}" if len(told) > 1 else ""
            yield from self._folded(f"phases{name}: {text}")

    def _marks(self) -> Iterator[str]:
        is_one = len(self.lines) == 1
        for mark in self.panel.marks:
            told = [
                brief(line.track.value(mark.position)) + ("" if is_one else f" ({marker})")
                for marker, _, line in self._markers()
            ]
            yield from self._folded(f"{mark.told}: {', '.join(told)}")


def _fitting(name: str, room: int) -> str:
    """Write a name in the middle of some columns, or its beginning, or nothing."""
    cut = f"{name[: room - 1]}…" if room > _LEAST_LETTERS else ""
    return f"{name if len(name) <= room else cut:^{room}}"


def _phases_of(track: Track) -> str:
    """Write the phases of a curve."""
    factor, spans = track.factor, track.spans
    told = [_phase(span, factor) for span in spans[:_MOST_PHASES]]
    more = len(spans) - _MOST_PHASES
    return "; ".join([*told, *([f"and {more} more"] if more > 0 else [])])


def _phase(span: Span, factor: float) -> str:
    first, last = brief(span.first * factor), brief(span.last * factor)
    values = first if first == last else f"{first} to {last}"
    where = f"\0{short(span.begin)}-{short(span.end)}" if span.end > span.begin else ""
    where = f"\0past\0{short(span.end)}" if span.end == span.begin > 0 else where
    return f"{span.name}{where} ({values.replace(' ', chr(0))})".replace(" ", "\0")
