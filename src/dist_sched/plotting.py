"""Plotting: pictures of schedules with matplotlib, one panel per field, with phases."""

from __future__ import annotations

import io
import math
import os
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dist_sched import _drawing
from dist_sched._config import files
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.specification import Specification
from dist_sched._config.views import Span, brief, short, tracks
from dist_sched._curves.schedule import Schedule
from dist_sched._drawing import Drawing, Layer, Panel, columns, listed, shortened
from dist_sched._rules import illegal, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    _Styles = Mapping[str, dict[str, Any]]

ENDINGS = (".png", ".svg")
"""The files that can be written."""

# Okabe's and Ito's, which people with colour blindness can distinguish; yellow is too pale.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# As many as have no divisor in common with the colours, so that all pairs come.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.2), (6, 1.5, 1.2, 1.5), (2.6, 1.3))
_INK, _FAINT = "#333333", "#8a8a8a"
# For letters that the usual font lacks, where they are installed.
_FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Arial Unicode MS", "Microsoft YaHei")
_SMALL, _NORMAL = 7.5, 9.0  # points
_LETTERS = 100  # small letters across the page; a panel has room for five sixths of them
_WIDTH, _PANEL, _ROW = 7.0, 1.8, 0.18  # inches: the page, about a panel, a row of small letters
_MOST_BARS = 6  # more rows of phases than this are written below instead
_CLOSE = 100  # more phases, jumps or positions are too close to be drawn one by one
_MOST_ROWS = 80  # rows of the table, and lines below it, at most
_CONFIG_NAMES = frozenset(
    {"fields", "groups", "extras", "horizon", *files.SETTINGS, *OptimizerParamConfig.entry_names()}
)


def plot(
    what: Any,
    *,
    at: int | Iterable[int] | None = None,
    groups: bool = False,
    log: bool = False,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw every field of one or more schedules over the run, with their phases.

    The figure is returned, not shown or saved. Notebooks show it, and `figure.savefig("lr.png")`
    saves it. The drawn values are the values that training uses.

    Args:
        what: A `Schedule`, a scheduler, or a config as a mapping or a path. To compare several,
            pass a list, or a mapping from names. The position of a scheduler is marked. A
            `Schedule` beside schedulers or configs is drawn with their `lr`.
        at: A position to mark, or several. A table below the picture has the values there.
        groups: Also draw the schedules of named groups.
        log: Use a logarithmic axis for the values.
        names: Names for the legend, one for each.

    Returns:
        A matplotlib figure.

    Raises:
        ConfigError: `what` has another type, a config is invalid, a position is not a whole number
            >= 0, the units differ, or the number of names is wrong.
        ImportError: matplotlib is not installed.
    """
    pairs = _pairs(what)
    if names is not None:
        if isinstance(names, str) or len(names) != len(pairs):
            raise illegal("names", names, f"must be a list of {len(pairs)} names, one for each")
        pairs = [(str(name), one) for name, (_, one) in zip(names, pairs, strict=True)]
    field = "value" if all(isinstance(one, Schedule) for _, one in pairs) else "lr"
    is_several = isinstance(at, Iterable) and not isinstance(at, str)
    positions: Any = () if at is None else at if is_several else [at]
    unique = _drawing.numbered([name for name, _ in pairs])
    layers = [
        _layer(name, one, field, groups) for name, (_, one) in zip(unique, pairs, strict=True)
    ]
    return draw(Drawing(tuple(layers), tuple(whole("at", one) for one in positions)), log=log)


def _pairs(what: Any) -> list[tuple[str, Any]]:
    """Return the names and objects to draw."""
    if isinstance(what, Mapping) and what and _CONFIG_NAMES.isdisjoint(map(str, what)):
        return [(str(name), one) for name, one in what.items()]
    if not isinstance(what, list | tuple):
        return [("", what)]
    if not what:
        raise illegal("what", what, "must have at least one schedule to draw")
    names = [
        Path(one).name
        if isinstance(one, str | os.PathLike)
        else f"{'config' if isinstance(one, Mapping) else type(one).__name__} {index}"
        for index, one in enumerate(what, start=1)
    ]
    return list(zip(names, what, strict=True))


def _layer(name: str, what: Any, field: str, groups: bool) -> Layer:
    if isinstance(what, Schedule):
        return Layer(name, tracks(Specification.of({field: what})))
    if isinstance(what, Mapping | str | os.PathLike):
        declaration = files.read(what)
        return Layer(name, tracks(declaration.config, groups=groups), declaration.unit)
    from dist_sched._optim.base import Scheduler  # imports torch, which whoever has one already did

    if not isinstance(what, Scheduler):
        rule = "must be a Schedule, a scheduler, a config, its path, or several of them"
        raise illegal("what", what, rule)
    used = files.read(what.to_config()).config
    return Layer(name, tracks(used, groups=groups), what.unit, what.num_steps, "scheduler")


def render(drawing: Drawing, ending: str, *, log: bool = False) -> tuple[bytes, list[str]]:
    """Return the content of a picture's file, and notes about it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    is_png = ending == ".png"
    figure = draw(drawing, log=log, keep_letters=not is_png)
    import matplotlib as mpl

    buffer = io.BytesIO()
    if is_png:
        figure.savefig(buffer, format="png", dpi=200)
        lacking = _lacking(drawing)
        remedy = "so they are written as numbers; install such a font, or write .svg"
        notes = [f"no installed font has the letters {lacking}, {remedy}"] if lacking else []
        return buffer.getvalue(), notes
    looks: Any = {"svg.hashsalt": "dist_sched", "svg.fonttype": "none"}
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(looks), warnings.catch_warnings():
        # Text stays text in .svg, so that the viewer's fonts are used.
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    # The document type before it refers to an address.
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + svg[svg.index(b"<svg") :], []


def draw(drawing: Drawing, *, log: bool = False, keep_letters: bool = False) -> Figure:
    """Draw schedules. `keep_letters` keeps letters that no font has.

    Otherwise these letters are written as numbers, because matplotlib would warn about each.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "pictures need matplotlib: pip install 'dist-sched[plot]'"
        raise ImportError(message) from error
    letters = "" if keep_letters else _lacking(drawing)
    numbers = {ord(letter): letter.encode("unicode_escape").decode() for letter in letters}
    drawing = drawing.renamed(lambda name: _drawing.printable(name).translate(numbers))
    # Names such as "$x" are not formulas.
    looks: Any = {"font.family": _families(), "font.size": _NORMAL, "text.parse_math": False}
    looks |= dict.fromkeys(("text.color", "axes.labelcolor"), _INK)
    looks |= dict.fromkeys(("axes.spines.top", "axes.spines.right"), False)
    looks |= {"axes.edgecolor": _FAINT, "axes.facecolor": "white"}
    with mpl.rc_context(looks):
        figure = Figure(facecolor="white", layout="constrained")
        # An own canvas works without pyplot, its state and a display.
        FigureCanvasAgg(figure)
        _fill(figure, drawing, log=log)
    return figure


def _families() -> list[str]:
    """Return the fonts to use, in order, without uninstalled ones, about which matplotlib warns."""
    import matplotlib as mpl
    from matplotlib.font_manager import fontManager

    installed = fontManager.get_font_names()
    return [*mpl.rcParams["font.family"], *(font for font in _FONTS if font in installed)]


def _lacking(drawing: Drawing) -> str:
    """Return the letters of names that no font has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    tracks = [track for layer in drawing.layers for track in layer.tracks]
    phases = [span.name for track in tracks for span in track.spans]
    names = [*(layer.name for layer in drawing.layers), *(one.label for one in tracks), *phases]
    letters = {letter for letter in "".join(names) if letter.isprintable()}
    for family in [] if "".join(letters).isascii() else _families():
        letters -= {*map(chr, get_font(findfont(FontProperties(family=[family]))).get_charmap())}
    return "".join(sorted(letter for letter in letters if not letter.isascii()))


def _fill(figure: Figure, drawing: Drawing, *, log: bool) -> None:
    """Draw the legend, the panels, the table of values, and lines of text."""
    panels = drawing.panels()
    shown = [panel for panel in panels if not panel.is_constant]
    names = [*dict.fromkeys(line.name for panel in shown for line in panel.lines)]
    styles = {name: _style(index, len(names)) for index, name in enumerate(names)}
    values = _values(shown, drawing)
    ratios = [_PANEL] * len(shown) + [_ROW * max(len(values), 1)] * bool(values or not shown)
    grid = figure.add_gridspec(len(ratios), height_ratios=ratios)
    height = 0.2 + _legend(figure, drawing, styles)
    notes = [f"◆ {owner}" for owner in drawing.owners]
    axes: Axes | None = None
    for index, panel in enumerate(shown):
        axes = figure.add_subplot(grid[index], sharex=axes)
        _draw_axes(axes, panel, log=log)
        _draw_curves(axes, panel, drawing, styles)
        notes += _draw_phases(axes, panel, styles)
        axes.tick_params(labelbottom=panel is shown[-1])
        height += _PANEL + 0.1 + _ROW * min(len(panel.phases()), _MOST_BARS)
    if axes is not None:
        axes.set_xlabel(drawing.x_label)
        height += 0.4
    if len(ratios) > len(shown):
        _draw_table(figure.add_subplot(grid[-1]), values)
    figure.align_ylabels()
    notes += [panel.constant() for panel in panels if panel.is_constant]
    if len(notes) > _MOST_ROWS:
        notes[_MOST_ROWS - 1 :] = [f"… and {len(notes) - _MOST_ROWS + 1:,} lines more"]
    looks: dict[str, Any] = {"ha": "left", "fontsize": _SMALL, "linespacing": 1.4, "wrap": True}
    # Constrained layout makes room for this label, as it would not for a text of the figure.
    figure.supxlabel("\n".join(notes), x=0.015, **looks)
    rows = len(values) + sum(math.ceil(columns(note) / _LETTERS) for note in notes)
    figure.set_size_inches(_WIDTH, height + _ROW * rows)


def _style(index: int, number: int) -> dict[str, Any]:
    """Return the style of a curve. Earlier curves are wider, so that later ones do not hide it."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "dashes": _DASHES[index % len(_DASHES)],
        "linewidth": 1.8 if number == 1 else max(2.8 - 0.5 * index, 1.3),
    }


def _legend(figure: Figure, drawing: Drawing, styles: _Styles) -> float:
    """Draw the legend, or the name of a single schedule, and return the height in inches."""
    from matplotlib.lines import Line2D

    if len(styles) < 2:  # noqa: PLR2004 - one curve needs no legend
        title = drawing.layers[0].name if len(drawing.layers) == 1 else ""
        figure.suptitle(*shortened([title], 80), x=0.015, ha="left", fontsize=_NORMAL)
        return 0.2 * bool(title)
    texts = shortened([*styles], 70)
    number = max(1, 84 // (max(map(columns, texts)) + 9))
    handles = [Line2D([], [], **style) for style in styles.values()]
    looks: dict[str, Any] = {"ncols": number, "handlelength": 3, "frameon": False}
    legend = figure.legend(handles, ["name"] * len(texts), loc="outside upper left", **looks)
    for text, name in zip(legend.get_texts(), texts, strict=True):
        text.set_text(name)  # figure.legend leaves out names that begin with "_"
    return 0.1 + 0.2 * math.ceil(len(texts) / number)


def _draw_axes(axes: Axes, panel: Panel, *, log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    axis, steps = panel.axis(log=log), [1, 2, 2.5, 5, 10]
    # A little before 0, so that the dots there are whole.
    axes.set_xlim(-panel.end / 100, panel.end)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda position, _: short(position)))
    if axis.is_log:
        axes.set_yscale("log", nonpositive="clip")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=steps))
    axes.set_ylim(axis.low, axis.high)
    values = FuncFormatter(lambda value, _: brief(value))
    axes.yaxis.set_major_formatter(values)
    # Less than two powers of ten say too little.
    axes.yaxis.set_minor_formatter(values if axis.high < 30 * axis.low else NullFormatter())
    (field,) = shortened([panel.field], 40)
    axes.set_ylabel("\n".join([*textwrap.wrap(field, 22), axis.note]).rstrip())
    axes.tick_params(which="both", labelsize=8.5, labelcolor=_INK, color=_FAINT)
    axes.grid(axis="y", color="black", alpha=0.08, linewidth=0.6)


def _draw_curves(axes: Axes, panel: Panel, drawing: Drawing, styles: _Styles) -> None:
    """Draw the curves of a field, their jumps, and their dots at positions."""
    for line in panel.lines:
        axes.plot(*line.points, label=f" {line.name}", **styles[line.name])
        looks: dict[str, Any] = {"color": styles[line.name]["color"], "linestyle": "none"}
        if panel.end <= _CLOSE:
            at = range(panel.end)
            axes.plot(at, line.track.values(at), marker="o", markersize=3, **looks)
        jumps = line.jumps
        if 0 < len(jumps) <= _CLOSE:
            xs, before, after = zip(*jumps, strict=True)
            looks |= {"marker": "o", "markersize": 4.5}
            axes.plot(xs, before, markerfacecolor="white", label="_before", **looks)
            axes.plot(xs, after, label="_after", **looks)
    for position, owners in drawing.marks.items():
        axes.axvline(position, color=_INK, linestyle="--" if owners else ":", linewidth=1)
        for line in panel.lines:
            is_own = line.layer in owners
            looks = {"color": styles[line.name]["color"], "marker": "D" if is_own else "o"}
            looks |= {"markersize": 6, "markeredgecolor": "white", "zorder": 5 + is_own}
            axes.plot([position], line.track.values([position]), label="_mark", **looks)


def _draw_phases(axes: Axes, panel: Panel, styles: _Styles) -> Iterator[str]:
    """Draw the phases as bars above a panel, and yield a text about phases that do not fit."""
    rows = panel.phases()
    is_alone = len(rows) == 1
    for index, (spans, lines) in enumerate(rows):
        written: set[str] = set()
        if len(rows) <= _MOST_BARS and len(spans) <= _CLOSE:
            bottom = 1.02 + 0.1 * (len(rows) - 1 - index)
            colour = "#777777" if is_alone else styles[lines[0].name]["color"]
            looks: dict[str, Any] = {"color": colour, "linewidth": 0}
            for number, span in enumerate(spans):
                place, alpha = (span.begin, span.end), 0.17 if number % 2 else 0.34
                axes.axvspan(*place, bottom, bottom + 0.085, clip_on=False, alpha=alpha, **looks)
                if is_alone and number % 2 == 0:
                    axes.axvspan(*place, alpha=0.08, **looks)
            for name, text, x, align in _labels(spans, panel.end):
                looks = {"ha": align, "va": "center_baseline", "fontsize": _SMALL}
                axes.text(x, bottom + 0.042, text, transform=axes.get_xaxis_transform(), **looks)
                written.add(name)
        if {span.name for span in spans} != written:
            whose = "" if is_alone else f", {listed([line.name for line in lines])}"
            phases = [f"{one.name} {short(one.begin)}-{short(one.end)}" for one in spans]
            yield f"{panel.field}{whose}: {listed(phases)}"


def _labels(spans: Sequence[Span], end: int) -> Iterator[tuple[str, str, float, str]]:
    """Yield the names that fit, each with its text, its place and its alignment.

    A name is in the middle of its phase, or in the free half of a neighbour.
    """
    rooms = [float((span.end - span.begin) / end) * _LETTERS * 5 / 6 for span in spans]
    free = [(room - columns(span.name)) / 2 for room, span in zip(rooms, spans, strict=True)]
    for index, span in enumerate(spans):
        need = columns(span.name) + 3
        if free[index] >= 0:
            yield span.name, span.name, float(span.begin + span.end) / 2, "center"
        elif index + 1 < len(spans) and free[index + 1] >= need:
            yield span.name, f" ◂ {span.name}", float(span.end), "left"
        elif index and free[index - 1] >= need:
            yield span.name, f"{span.name} ▸ ", float(span.begin), "right"


def _values(shown: Sequence[Panel], drawing: Drawing) -> list[list[str]]:
    """Return the rows of the table: the values of each curve at the marked positions."""
    lines = [(panel.field, line) for panel in shown for line in panel.lines]
    names = shortened([f"{field}  {line.name}".rstrip() for field, line in lines], 36)
    named = [(name, line.track) for name, (_, line) in zip(names, lines, strict=True)]
    rows = _drawing.table(named, [*drawing.marks], 5) if lines else []
    if len(rows) > _MOST_ROWS:
        rows[_MOST_ROWS - 1 :] = [[f"… and {len(rows) - _MOST_ROWS + 1:,} rows more"]]
    return rows


def _draw_table(axes: Axes, values: Sequence[Sequence[str]]) -> None:
    from matplotlib.transforms import Bbox

    axes.axis("off")
    if not values:
        return
    cells = [[*row, *[""] * (len(values[0]) - len(row))] for row in values]
    widths = [max(map(columns, column)) + 3 for column in zip(*cells, strict=True)]
    place = Bbox.from_bounds(0, 0, sum(widths) / _LETTERS, 1)
    table = axes.table(cells, colWidths=widths, bbox=place)
    table.auto_set_font_size(False)
    table.set_fontsize(_SMALL)
    for (row, column), cell in table.get_celld().items():
        cell.visible_edges = "B" if cells[row][0] == "position" else ""
        cell.set(edgecolor=_FAINT, linewidth=0.6)
        cell.set_text_props(ha="right" if column else "left")
