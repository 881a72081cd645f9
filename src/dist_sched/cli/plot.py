"""`dist-sched plot`: draw schedules as a picture or in the terminal."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import string
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dist_sched import _drawing, plotting
from dist_sched._config import views
from dist_sched._config.views import brief, short
from dist_sched._drawing import Drawing, Layer, columns, shortened
from dist_sched.cli import inputs, options, output
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dist_sched._config.views import Span
    from dist_sched._drawing import Axis, Line, Panel

    _Curve = tuple[str, int, Line]  # with its letter and colour

_PIPED = 80  # columns if the output is not a terminal
_LEAST, _MOST = 40, 160  # columns, at least and at most
_HEIGHT = 16  # lines of a chart, its axes included
_LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
_COLOURS = (32, 166, 36, 175, 172, 74)  # of 256, those nearest to Okabe's and Ito's
# For terminals whose encoding lacks what frames and curves are drawn with, as on Windows.
_PLAIN = str.maketrans("┌┐└┘├┤┬┴┼─│…", "+++++++++-|~") | dict.fromkeys(range(0x2801, 0x2900), "o")
_LEAST_ROOM = 3  # columns of a phase that are too few for a name
_MOST_STRIPS = 6  # more rows of phases than this are only written below


@click.command()
@options.paths
@options.destination("FILE", "The .png or .svg file to write, instead of drawing in the terminal.")
@options.at
@click.option("--groups", is_flag=True, help="Also draw the schedules of named groups.")
@click.option("--log", is_flag=True, help="Use a logarithmic axis for the values.")
@click.option("--terminal", is_flag=True, help="Draw in the terminal even with -o.")
@options.key
@options.force
def command(
    paths: tuple[str, ...],
    destination: str | None,
    positions: tuple[int, ...],
    groups: bool,
    log: bool,
    terminal: bool,
    key: str | None,
    force: bool,
) -> None:
    """Draw every field of one or more schedules over the run.

    Several schedules are drawn in one picture. The positions of checkpoints and of --at are marked.

    \b
    dist-sched plot run.yaml
    dist-sched plot run.yaml checkpoints/step_2000 -o lr.png
    """  # noqa: D301 - click's mark for lines that are not folded
    if destination is not None and not destination.lower().endswith(plotting.ENDINGS):
        raise ConfigError(f"{destination}: the name must end in {' or '.join(plotting.ENDINGS)}")
    # A key is refused if there are only configs, which have none.
    is_config = [path.lower().endswith(inputs.CONFIG_ENDINGS) for path in paths]
    keys = [None if one and not all(is_config) else key for one in is_config]
    read = [inputs.read(path, one) for path, one in zip(paths, keys, strict=True)]
    layers = [
        Layer(name, views.tracks(one.config, groups=groups), one.unit, one.position)
        for name, one in zip(_names(paths), read, strict=True)
    ]
    drawing = Drawing(tuple(layers), positions)
    notes = [f"{one.path}: {note}" for one in read for note in one.notes]
    if destination is not None:
        content, lacking = plotting.render(drawing, Path(destination).suffix.lower(), log=log)
        output.write_file(destination, content, force=force)
        notes += [f"{destination}: {note}" for note in lacking]
    for note in notes:
        output.warn(f"note: {note}")
    if destination is not None:
        output.say(f"wrote {destination}")
    if destination is None or terminal:
        _show(drawing, log=log)


def _names(paths: Sequence[str]) -> list[str]:
    """Return the ends of the paths, as long as is needed for different paths to differ."""
    parts = [Path(path).parts or (path,) for path in paths]
    names = [part[-1] for part in parts]
    for length in range(2, max(map(len, parts)) + 1):
        if len({*names}) < len({*paths}):
            names = ["/".join(part[-length:]) for part in parts]
    # Paths alone can hold control characters: configs refuse them in names.
    return _drawing.numbered([*map(_drawing.printable, names)])


def _show(drawing: Drawing, *, log: bool) -> None:
    """Print a chart for each field that changes, and a line for each that does not."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_PIPED, 24)).columns if is_terminal else _PIPED
    width = min(max(width, _LEAST), _MOST)
    panels = drawing.panels()
    blocks = [
        "\n".join(_chart(panel, drawing, width, log=log))
        for panel in panels
        if not panel.is_constant
    ]
    constants = [panel.constant() for panel in panels if panel.is_constant]
    below = [line for text in [*drawing.owners, *constants] for line in _wrapped(text, width, "")]
    text = "\n\n".join([*blocks, *(["\n".join(below)] if below else [])])
    is_coloured = is_terminal and not os.environ.get("NO_COLOR")
    if not is_coloured:
        text = click.unstyle(text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(_PLAIN)
    click.echo("\n".join(line.rstrip() for line in text.split("\n")), color=is_coloured)


def _wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    """Fold a text to the width; what a NUL joins stays together."""
    looks: Any = {"initial_indent": indent, "subsequent_indent": indent, "break_on_hyphens": False}
    return [line.replace("\0", " ") for line in textwrap.wrap(text, width, **looks)]


def _chart(panel: Panel, drawing: Drawing, width: int, *, log: bool) -> Iterator[str]:
    """Yield the parts of a chart: phases above its frame, words and values below it."""
    axis = panel.axis(log=log)
    indent = max(len(brief(tick)) for tick in _ticks(axis)) + 1
    inner = width - indent - 1
    curves = list(zip(itertools.cycle(_LETTERS), itertools.cycle(_COLOURS), panel.lines))
    is_alone = len(curves) == 1
    letters = {line.name: letter for letter, _, line in curves}
    yield f"{panel.field} {axis.note}"
    for name, (letter, colour, _) in zip(shortened([*letters], width - 4), curves, strict=True):
        if name:
            yield f"  {'' if is_alone else click.style(letter, fg=colour) + ' '}{name}"
    rows = panel.phases()
    for spans, lines in rows if len(rows) <= _MOST_STRIPS else ():
        owner = letters[lines[0].name] if len(rows) > 1 else ""
        yield f"{owner:<{indent}}{_strip(spans, panel.end, inner)}"
    yield _frame(panel, curves, drawing, axis, width, max(inner // 12, 2))
    yield " " * indent + drawing.x_label.center(inner)
    texts: dict[str, list[str]] = {}
    for letter, _, line in curves:
        phases = [_phase(span, line.track.factor).replace(" ", "\0") for span in line.track.spans]
        texts.setdefault(_drawing.listed(phases, "; "), []).append(letter)
    for text, owners in texts.items():
        whose = f" of {', '.join(owners)}" if len(texts) > 1 else ""
        yield from _wrapped(f"phases{whose}: {text}", width)
    # Values distinguish several curves without colours.
    usual = [] if is_alone else map(int, _round_numbers(0, panel.end, 4))
    names = [panel.field if is_alone else f"{letter} {line.name}" for letter, _, line in curves]
    yield from _table(panel, names, [*drawing.marks] or sorted({*usual}), width)


def _phase(span: Span, factor: float) -> str:
    """Return a phase's name, positions and values."""
    first, last = brief(span.first * factor), brief(span.last * factor)
    where = f" {short(span.begin)}-{short(span.end)}" if span.end > span.begin else ""
    where = f" past {short(span.end)}" if span.end == span.begin > 0 else where
    return f"{span.name}{where} ({first if first == last else f'{first} to {last}'})"


def _strip(spans: Sequence[Span], end: int, inner: int) -> str:
    """Return the phases in columns of the chart, with the names that find room."""
    row = [" "] * inner
    for span in spans:
        begin, last = (round(float(at / end) * (inner - 1)) for at in (span.begin, span.end))
        room = max(last - begin - 1, 0)
        (name,) = shortened([span.name], room)
        row[begin] = row[last] = "|"
        row[begin + 1 : last] = f"{name if room > _LEAST_ROOM else '':^{room}}"
    return "".join(row)


def _frame(
    panel: Panel, curves: Sequence[_Curve], drawing: Drawing, axis: Axis, width: int, most: int
) -> str:
    """Draw the curves, the marks, and the axes around them with at most so many positions."""
    import plotext

    low, high = _scaled(axis, [axis.low, axis.high])
    ticks, positions = _ticks(axis), _round_numbers(0, panel.end, most)
    positions = [position for position in positions if position == int(position)]
    plotext.clear_figure()
    # Other themes paint a background, whatever the terminal's is.
    plotext.theme("clear")
    # Else plotext cuts a chart that is piped to the size that it takes the terminal to have.
    plotext.limit_size(False, False)
    plotext.plot_size(width, _HEIGHT)
    plotext.xlim(0, panel.end)
    plotext.ylim(low, high)
    plotext.yticks(_scaled(axis, ticks), [brief(tick) for tick in ticks])
    plotext.xticks(positions, [short(position) for position in positions])
    for position, owners in drawing.marks.items():
        if owners:
            plotext.plot([position] * 2, [low, high], marker=":")
        else:
            plotext.vertical_line(position)
    for _, colour, line in curves:
        xs, ys = line.points
        plotext.plot(xs, _scaled(axis, ys), marker="braille", color=colour)
    # The letters of curves are at different places, so that equal curves are visible.
    lettered = [*curves] * 3 if len(curves) > 1 else []
    for place, (letter, colour, line) in enumerate(lettered):
        at = round((place + 0.5) / len(lettered) * panel.end)
        values = _scaled(axis, line.track.values([at]))
        plotext.scatter([at], values, marker=letter, color=colour)
    built: str = plotext.build()
    return built.rstrip("\n")


def _table(panel: Panel, names: Sequence[str], at: Sequence[int], width: int) -> Iterator[str]:
    """Yield the values of the curves at positions, as many in a row as find room."""
    names = shortened(names, max(width // 3, 12))
    named = zip(names, (line.track for line in panel.lines), strict=True)
    label = max(map(columns, ("position", *names)))
    cell = max((9, *(len(f"{position:,}") for position in at))) + 2
    for name, *values in _drawing.table(named, at, max((width - label - 2) // cell, 1)):
        indent = " " * (label - columns(name))
        yield f"  {name}{indent}{''.join(f'{value:>{cell}}' for value in values)}"


def _ticks(axis: Axis) -> list[float]:
    """Return round values, or powers of ten where there are some."""
    if axis.is_log:
        powers = range(math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high)) + 1)
        if len(powers) > 1:
            return [10.0**power for power in powers]
    return _round_numbers(max(axis.low, 0.0), axis.high, 5)


def _scaled(axis: Axis, values: Sequence[float]) -> list[float]:
    """Return what lies evenly along the axis; what is off a logarithmic one is not far off."""
    if not axis.is_log:
        return list(values)
    return [math.log10(max(value, axis.low / 10)) for value in values]


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from `low` to `high`, about `most` of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = (power, 2 * power, 2.5 * power, 5 * power, 10 * power)
    step = next(step for step in steps if step * most >= (high - low) * 0.99)
    # A multiple may miss a limit by rounding alone, as 3 * 0.1 misses 0.3.
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
