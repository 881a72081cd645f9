"""Plotting: pictures of schedules, one panel a field, with phases and positions."""

from __future__ import annotations

import functools
import html
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dist_sched import declarations
from dist_sched.config import OptimizerParamConfig
from dist_sched.errors import ConfigError
from dist_sched.phases import Schedule
from dist_sched.rules import MAX_LENGTH, Number, illegal, listed, whole
from dist_sched.specification import Specification
from dist_sched.views import Span, Track, brief, sampled, short, tracks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".html")
"""The pictures that can be written."""

_BARE = "value"
"""What a schedule is drawn as that stands for no field."""

_CONFIG_NAMES = frozenset(
    {"fields", "groups", "horizon", *declarations.SETTINGS, *OptimizerParamConfig.entry_names()}
)

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito, which people with colour blindness tell apart; yellow is too pale."""
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.2), (6, 1.5, 1.2, 1.5), (2.6, 1.3))
_INK, _FAINT = "#333333", "#8a8a8a"

_WIDTH, _PANEL, _LEFT, _RIGHT, _ROW = 7.0, 1.72, 0.92, 0.18, 0.19
_GAP, _BOTTOM, _TOP, _LEGEND_ROW = 0.22, 0.52, 0.1, 0.2
"""Lengths on the page, in inches."""
_SMALL, _NORMAL = 7.5, 9.0
"""Sizes of letters, in points."""

_MOST_ROWS = 7
"""Phases of more schedules than this are not named."""
_DOT = 0.02
"""Inches between the points that stand for a curve where room for a text is sought."""
_AWAY = (0.07, 0.2, 0.35, 0.55, 0.8, 1.1)
"""Inches from a point to a text about it."""
_MOST_DOTS = 60
"""Up to so many positions each has its own dot."""
_DECADES = 5
"""How far down an axis of logarithms goes at most."""
_FEW_DECADES = 50
"""Powers of ten alone are ticks where the highest value is more than this times the lowest."""
_MOST_SPANS = 300
"""More phases than this have no width on a page."""
_LEAST = 3
"""Letters that are left of a name at least."""
_MOST_TOLD = 12
"""A caption names no more phases than this."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What is drawn in one colour: a schedule for each field, and positions of its own."""

    name: str
    tracks: tuple[Track, ...]
    unit: str | None = None
    marks: tuple[int, ...] = ()

    @property
    def horizon(self) -> Number:
        """The position past which none of its fields changes."""
        return max(track.horizon for track in self.tracks)


@dataclass(frozen=True, slots=True)
class Line:
    """A curve of a panel."""

    name: str
    """For the legend."""
    track: Track
    marks: tuple[int, ...]


def plot(
    what: Any,
    *,
    at: int | Iterable[int] | None = None,
    groups: bool = False,
    log: bool = False,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw every field over the run: phases shaded and named, positions marked.

    The values are those that train. Nothing is shown or written: the figure does that, for
    instance `figure.savefig("lr.png")`; notebooks show it.

    Args:
        what: A `Schedule`, a scheduler, whose position is marked, a config as a mapping or as the
            path of its file; or several in a list, or by name, which are laid over each other.
            A `Schedule` beside others is taken to be of their `lr`.
        at: Positions to mark.
        groups: Draw what named groups have of their own too.
        log: Draw the values on a logarithmic axis.
        names: What to call them, one for each.

    Raises:
        ConfigError: It is something else, a config is illegal, a position is no whole number
            >= 0, the units differ, or the names are too few or too many.
        ImportError: matplotlib is not installed.
    """
    return drawn(layers(what, at=at, groups=groups, names=names), log=log)


def layers(
    what: Any,
    *,
    at: int | Iterable[int] | None = None,
    groups: bool = False,
    names: Sequence[str] | None = None,
) -> tuple[Layer, ...]:
    """Give what `plot` draws; its arguments are `plot`'s."""
    told = _named(what)
    if names is not None:
        if isinstance(names, str) or len(names) != len(told):
            raise illegal("names", names, f"must be a list of {len(told)}, one for each")
        told = [(str(name), one) for name, (_, one) in zip(names, told, strict=True)]
    is_alone = all(isinstance(one, Schedule) for _, one in told)
    found = [_layer(name, one, groups, _BARE if is_alone else "lr") for name, one in told]
    return marked(found, positions("at", at))


def marked(found: Iterable[Layer], at: Iterable[int]) -> tuple[Layer, ...]:
    """Give the layers with positions that all of them are marked at.

    Raises:
        ConfigError: Their units differ.
    """
    more = tuple(at)
    given = [replace(layer, marks=tuple(sorted({*layer.marks, *more}))) for layer in found]
    by_unit = {layer.unit: layer.name for layer in given if layer.unit is not None}
    if len(by_unit) > 1:
        told = "; ".join(f"{name or 'one'} counts {unit}" for unit, name in by_unit.items())
        raise ConfigError(f"unit: {told}: they have no axis in common, so draw them one by one")
    return tuple(given)


def positions(name: str, given: int | Iterable[int] | None) -> tuple[int, ...]:
    """Check positions to mark: none, one or several.

    Raises:
        ConfigError: One is no whole number from 0 to 2**53.
    """
    if given is None:
        return ()
    is_several = isinstance(given, Iterable) and not isinstance(given, str)
    found = tuple(whole(name, one) for one in (given if is_several else [given]))  # type: ignore[union-attr] # it is one
    for position in found:
        if position > MAX_LENGTH:
            raise illegal(name, position, "must be at most 2**53")
    return found


def _named(what: Any) -> list[tuple[str, Any]]:
    """Give the things to draw, with what to call them."""
    if isinstance(what, Mapping) and not _is_config(what):
        return [(str(name), one) for name, one in what.items()]
    if not isinstance(what, list | tuple):
        return [("", what)]
    if not what:
        raise illegal("what", what, "must hold at least one thing to draw")
    return [(_name(one, index), one) for index, one in enumerate(what, start=1)]


def _is_config(what: Mapping[Any, Any]) -> bool:
    return not what or not _CONFIG_NAMES.isdisjoint(map(str, what))


def _name(what: Any, index: int) -> str:
    if isinstance(what, str | os.PathLike):
        return Path(what).name
    return f"{'config' if isinstance(what, Mapping) else type(what).__name__} {index}"


def _layer(name: str, what: Any, groups: bool, bare: str) -> Layer:
    if isinstance(what, Schedule):
        (track,) = tracks(Specification.of({bare: what}))
        return Layer(name, (track,))
    if isinstance(what, Mapping | str | os.PathLike):
        told = declarations.read(what)
        return Layer(name, tracks(told.config, groups=groups), told.unit)
    from dist_sched.engine import Scheduler  # torch comes with it

    if not isinstance(what, Scheduler):
        rule = "must be a Schedule, a scheduler, a config, its path, or several of them"
        raise illegal("what", what, rule)
    used = declarations.read(what.to_config()).config
    return Layer(name, tracks(used, groups=groups), what.unit, (what.num_steps,))


def end_of(given: Iterable[Layer]) -> int:
    """Give the last position to draw: a little past every horizon and mark."""
    ends = [end for layer in given for end in (layer.horizon, *layer.marks)]
    last = int(max(ends))
    return last + max(2, last // 20) if last else 10


def panels(given: Sequence[Layer]) -> dict[str, list[Line]]:
    """Give the curves of each field, in the order in which fields first come."""
    found: dict[str, list[Line]] = {}
    for layer in given:
        has_own = any(track.label != track.field for track in layer.tracks)
        for track in layer.tracks:
            name = _line_name(layer.name, track, has_own=has_own, is_alone=len(given) == 1)
            found.setdefault(track.field, []).append(Line(name, track, layer.marks))
    return found


def _line_name(layer: str, track: Track, *, has_own: bool, is_alone: bool) -> str:
    pattern = track.label.removesuffix(track.field).rstrip(".")
    if is_alone:
        return pattern or ("all other groups" if has_own else layer)
    return f"{layer}: {pattern}" if pattern else layer


def rows(lines: Iterable[Line], end: int) -> dict[tuple[Span, ...], Line]:
    """Give the phases that lines have, those that several share once, with the first of them.

    A curve without a length, which is a constant, lasts throughout.
    """
    found: dict[tuple[tuple[Any, ...], ...], tuple[tuple[Span, ...], Line]] = {}
    for line in lines:
        spans = tuple(span for span in line.track.spans if span.end > span.begin)
        if not spans:
            spans = (replace(line.track.spans[-1], end=end),)
        key = tuple((span.name, span.begin, span.end) for span in spans)
        found.setdefault(key, (spans, line))
    return dict(found.values())


def x_label(given: Sequence[Layer]) -> str:
    """Name the axis of positions, with the unit and the horizon."""
    unit = next((layer.unit for layer in given if layer.unit is not None), "units")
    horizons = {layer.horizon for layer in given}
    horizon = horizons.pop() if len(horizons) == 1 else 0
    return f"position ({unit}){f'; horizon {short(horizon)}' if horizon else ''}"


def points(track: Track, given: Sequence[int]) -> tuple[list[int], list[float]]:
    """Give the points of a curve at positions. Where it jumps, the value holds until the jump.

    >>> from dist_sched import Phase, Schedule
    >>> schedule = Schedule([Phase("constant", 2, 1.0, 1.0), Phase("constant", 2, 0.5, 0.5)])
    >>> points(layers(schedule)[0].tracks[0], range(4))
    ([0, 1, 2, 2, 3], [1.0, 1.0, 1.0, 0.5, 0.5])
    """
    xs, ys = list(given), track.values(given)
    slopes = [
        abs(after - before) / (right - left)
        for (left, right), (before, after) in zip(
            itertools.pairwise(xs), itertools.pairwise(ys), strict=True
        )
    ]
    drawn_xs, drawn_ys = xs[:1], ys[:1]
    for index, slope in enumerate(slopes):
        left, right = index and slopes[index - 1], slopes[index + 1 : index + 2]
        before, after = ys[index : index + 2]
        is_large = slope > 0.01 * max(abs(before), abs(after))
        if xs[index] + 1 == xs[index + 1] and is_large and slope > 4 * max(left, *right, 0):
            drawn_xs.append(xs[index + 1])
            drawn_ys.append(before)
        drawn_xs.append(xs[index + 1])
        drawn_ys.append(after)
    return drawn_xs, drawn_ys


def joins_of(lines: Iterable[Line]) -> Iterator[Number]:
    """Give the positions near which no curve may be left out."""
    for line in lines:
        yield from line.marks
        yield from (join for span in line.track.spans for join in (span.begin, span.end))


def limits(values: Sequence[float], *, log: bool) -> tuple[float, float, bool]:
    """Give the lowest and highest value to show, and whether logarithms fit.

    They do not where every value is 0; a single 0 is below the axis.
    """
    high, low = max(values), min(values)
    if log and high > 0:
        least = min(value for value in values if value > 0)
        return max(least, high / 10**_DECADES) / 1.5, high * 1.5, True
    if low == high:
        low, high = (0.0, high * 1.25) if high else (0.0, 1.0)
    low = 0.0 if low < 0.4 * high else low
    margin = 0.05 * (high - low)
    return low - margin, high + margin, False


def drawn(given: Sequence[Layer], *, log: bool = False) -> Figure:
    """Draw layers.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "pictures need matplotlib: pip install 'dist-sched[plot]'"
        raise ImportError(message) from error
    end, fields = end_of(given), panels(given)
    phases = {field: rows(lines, end) for field, lines in fields.items()}
    names = [*dict.fromkeys(line.name for lines in fields.values() for line in lines)]
    figure = Figure(facecolor="white")
    FigureCanvasAgg(figure)
    header = _Header.of(figure, names)
    strips = {field: _strips(figure, phases[field], end) for field in fields}
    height = _TOP + header.height + _BOTTOM - _GAP
    height += sum(_PANEL + _GAP + sum(strip.height for strip in found) for found in strips.values())
    figure.set_size_inches(_WIDTH, height)
    styles = {name: _style(index, len(names)) for index, name in enumerate(names)}
    header.draw(styles)
    top, first = height - _TOP - header.height, None
    for field, lines in fields.items():
        top -= sum(strip.height for strip in strips[field]) + _PANEL
        box = (_LEFT / _WIDTH, top / height, _inner_width() / _WIDTH, _PANEL / height)
        axes = figure.add_axes(box, sharex=first)
        first = first or axes
        _Panel(axes, lines, styles, end).draw(field, strips[field], log=log)
        axes.tick_params(labelbottom=False)
        top -= _GAP
    axes.tick_params(labelbottom=True)
    axes.set_xlabel(x_label(given), fontsize=_NORMAL, color=_INK)
    return figure


def _inner_width() -> float:
    return _WIDTH - _LEFT - _RIGHT


def _style(index: int, number: int) -> dict[str, Any]:
    """Give the looks of a line; earlier ones are wider, to show below those that cover them."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "dashes": _DASHES[index % len(_DASHES)],
        "linewidth": 1.8 if number == 1 else max(2.8 - 0.5 * index, 1.3),
    }


def _width_of(figure: Figure, text: str, size: float) -> float:
    """Give the width of a text on the page, in inches."""
    from matplotlib.font_manager import FontProperties

    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined] # Agg's has one
    font = FontProperties(size=size)
    width, _, _ = renderer.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / figure.dpi


@dataclass(frozen=True, slots=True)
class _Header:
    """The title of one line's picture, or the legend of several, above all panels."""

    figure: Figure
    rows: tuple[tuple[str, ...], ...]
    width: float
    """Of a column, in inches."""

    @property
    def height(self) -> float:
        return len(self.rows) * _LEGEND_ROW + (0.06 if self.rows else 0)

    @classmethod
    def of(cls, figure: Figure, names: Sequence[str]) -> _Header:
        if len(names) == 1:
            return cls(figure, ((names[0],),) if names[0] else (), _inner_width())
        widest = max(_width_of(figure, _cut(name), _NORMAL - 0.5) for name in names) + 0.6
        columns = max(1, int(_inner_width() / widest))
        lines = tuple(tuple(names[at : at + columns]) for at in range(0, len(names), columns))
        return cls(figure, lines, widest)

    def draw(self, styles: Mapping[str, dict[str, Any]]) -> None:
        from matplotlib.lines import Line2D

        height = self.figure.get_size_inches()[1]
        is_legend = len(styles) > 1
        for row, names in enumerate(self.rows):
            y = (height - _TOP - (row + 0.5) * _LEGEND_ROW) / height
            for column, name in enumerate(names):
                x = _LEFT + column * self.width
                if is_legend:
                    ends = [x / _WIDTH, (x + 0.34) / _WIDTH]
                    self.figure.add_artist(Line2D(ends, [y, y], **styles[name]))
                _text(
                    self.figure,
                    (x + (0.42 if is_legend else 0)) / _WIDTH,
                    y,
                    _cut(name),
                    fontsize=_NORMAL - 0.5,
                    va="center",
                )


@dataclass(frozen=True, slots=True)
class _Strip:
    """Phases above a panel, with their names where there is room."""

    spans: tuple[Span, ...]
    line: Line
    names: tuple[tuple[str, float, str], ...]
    """Text, place and alignment of each."""
    caption: str
    """All names, where one is nowhere on the strip."""

    @property
    def height(self) -> float:
        return 2 * _ROW if self.caption else _ROW


def _strips(figure: Figure, phases: dict[tuple[Span, ...], Line], end: int) -> list[_Strip]:
    if len(phases) > _MOST_ROWS:
        return []
    found = []
    for spans, line in phases.items():
        if len(spans) > _MOST_SPANS:
            told = _caption(figure, [span.name for span in spans[: _MOST_TOLD + 1]], len(spans))
            found.append(_Strip((), line, (), told))
            continue
        names = tuple(_names(figure, spans, end))
        written = "".join(name for name, _, _ in names)
        is_told = all(span.name[:_LEAST] in written for span in spans)
        caption = "" if is_told else _caption(figure, [span.name for span in spans], len(spans))
        found.append(_Strip(spans, line, names, caption))
    return found


def _caption(figure: Figure, names: Sequence[str], total: int) -> str:
    """Name phases in order, as many as there is room for."""
    for number in range(min(len(names), _MOST_TOLD), 0, -1):
        told = ", ".join(names[:number]) + (", …" if number < total else "")
        text = f"{total:,} phases: {told}"
        if _width_of(figure, text, _SMALL) <= _inner_width():
            return text
    return f"{total:,} phases"


def _names(figure: Figure, spans: Sequence[Span], end: int) -> Iterator[tuple[str, float, str]]:
    """Give the names of phases that fit, each with its place in inches.

    What is wide enough has its name in it; a narrow one is pointed at from a neighbour, or has the
    beginning of its name.
    """
    scale = _inner_width() / end
    width_of = functools.cache(lambda name: _width_of(figure, name, _SMALL) + 0.05)
    bounds = [(span.begin * scale, span.end * scale) for span in spans]
    taken: list[tuple[float, float]] = []
    narrow = []
    for index, (span, (left, right)) in enumerate(zip(spans, bounds, strict=True)):
        width = width_of(span.name)
        if width <= right - left:
            middle = (left + right) / 2
            taken.append((middle - width / 2, middle + width / 2))
            yield span.name, middle, "center"
        else:
            narrow.append(index)
    for index in narrow:
        name, (left, right) = spans[index].name, bounds[index]
        after = bounds[index + 1][1] if index + 1 < len(spans) else _inner_width()
        before = bounds[index - 1][0] if index else 0.0
        width = width_of(f"◂ {name}")
        places = ((right + 0.02, f"◂ {name}", "left"), (left - 0.02 - width, f"{name} ▸", "right"))
        for begin, text, align in places:
            is_free = all(begin + width < one or begin > other for one, other in taken)
            if is_free and before <= begin and begin + width <= after:
                taken.append((begin, begin + width))
                yield text, begin if align == "left" else begin + width, align
                break
        else:
            cut = (f"{name[:most]}…" for most in range(len(name) - 1, _LEAST - 1, -1))
            fitting = [text for text in cut if width_of(text) <= right - left][:1]
            is_free = all(right <= one or left >= other for one, other in taken)
            if fitting and is_free:
                taken.append((left, right))
                yield fitting[0], (left + right) / 2, "center"


def _cut(name: str, most: int = 60) -> str:
    half = most // 2 - 1
    return name if len(name) <= most else f"{name[:half]} … {name[-half:]}"


def _text(where: Any, x: float, y: float, text: str, **looks: Any) -> Any:
    """Write a text as it stands: what looks like a formula is none."""
    return where.text(x, y, text, **{"color": _INK, "parse_math": False, **looks})


@dataclass(frozen=True, slots=True)
class _Panel:
    """The drawing of one field."""

    axes: Axes
    lines: Sequence[Line]
    styles: Mapping[str, dict[str, Any]]
    end: int

    def draw(self, field: str, strips: Sequence[_Strip], *, log: bool) -> None:
        at = sampled(self.end, joins_of(self.lines))
        curves = [points(line.track, at) for line in self.lines]
        for line, curve in zip(self.lines, curves, strict=True):
            (curve_line,) = self.axes.plot(*curve, label=f" {line.name}", **self.styles[line.name])
            if self.end <= _MOST_DOTS:
                curve_line.set(marker="o", markersize=3)
        low, high, is_log = limits([value for _, ys in curves for value in ys], log=log)
        self._axes(field, low, high, is_log=is_log)
        is_below = is_log and any(value < low for _, ys in curves for value in ys)
        label = f"{field}\n(log, 0 off axis)" if is_below else field
        self.axes.set_ylabel(label, fontsize=_NORMAL, color=_INK, parse_math=False, va="top")
        self.axes.yaxis.set_label_coords((0.05 - _LEFT) / _inner_width(), 0.5)
        if len(strips) == 1:
            self._shade(strips[0].spans)
        below = 0.0
        for strip in reversed(strips):
            colour = self.styles[strip.line.name]["color"] if len(strips) > 1 else "#777777"
            self._strip(below, strip, colour)
            below += strip.height
        self._mark(curves)

    def _axes(self, field: str, low: float, high: float, *, is_log: bool) -> None:
        from matplotlib.ticker import (
            FuncFormatter,
            LogLocator,
            MaxNLocator,
            NullFormatter,
            NullLocator,
        )

        axes = self.axes
        if is_log:
            axes.set_yscale("log", nonpositive="clip")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(which="minor", color=_FAINT, length=2)
        if is_log and high > _FEW_DECADES * low:
            axes.yaxis.set_major_locator(LogLocator(numticks=6))
        else:
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: brief(value)))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda position, _: short(position)))
        axes.set_ylim(low, high)
        axes.set_xlim(0, self.end)
        axes.tick_params(labelsize=_NORMAL - 0.5, colors=_INK, color=_FAINT, length=3)
        axes.grid(visible=True, axis="y", color="#000000", alpha=0.08, linewidth=0.6)
        axes.set_facecolor("white")
        axes.set_gid(field)
        for side, spine in axes.spines.items():
            spine.set_visible(side in {"left", "bottom"})
            spine.set_color(_FAINT)

    def _shade(self, spans: Sequence[Span]) -> None:
        for index, span in enumerate(spans):
            if index % 2 == 0:
                self.axes.axvspan(span.begin, span.end, color="#000000", alpha=0.05, linewidth=0)

    def _strip(self, below: float, strip: _Strip, colour: str) -> None:
        """Draw phases above the panel, `below` inches above it."""
        from matplotlib.patches import Rectangle

        bottom, height = 1 + (below + 0.025) / _PANEL, (_ROW - 0.03) / _PANEL
        transform = self.axes.get_xaxis_transform()
        for index, span in enumerate(strip.spans):
            alpha = 0.34 if index % 2 == 0 else 0.17
            corner, width = (float(span.begin), bottom), float(span.end - span.begin)
            box = Rectangle(corner, width, height, facecolor=colour, alpha=alpha, clip_on=False)
            box.set_transform(transform)
            self.axes.add_patch(box)
        looks = {"fontsize": _SMALL, "va": "center", "transform": self.axes.transAxes}
        for name, x, align in strip.names:
            _text(self.axes, x / _inner_width(), bottom + height * 0.46, name, ha=align, **looks)
        _text(self.axes, 0, bottom + height * 1.6, strip.caption, ha="left", **looks)

    def _mark(self, curves: Sequence[tuple[list[int], list[float]]]) -> None:
        """Mark positions: a dot with its value on each curve, where it hides no other."""
        taken: list[tuple[float, float, float, float]] = []
        inked = self._inked(curves)
        told: set[tuple[int, str]] = set()
        for position in sorted({mark for line in self.lines for mark in line.marks}):
            self.axes.axvline(position, color=_INK, linewidth=0.8, linestyle=(0, (1, 2)))
            marked_ones = [line for line in self.lines if position in line.marks]
            for line in sorted(marked_ones, key=lambda line: -line.track.value(position)):
                value, colour = line.track.value(position), self.styles[line.name]["color"]
                (dot,) = self.axes.plot([position], [value], "o", markersize=6, color=colour)
                dot.set(markeredgecolor="white", clip_on=False, zorder=5, label="_position")
                text = f"{brief(value)} at {position:,}"
                if (position, text) not in told:
                    told.add((position, text))
                    place = self._on_page([position], [value])[0]
                    self._place(text, place, taken, inked, colour)

    def _on_page(self, xs: Sequence[float], ys: Sequence[float]) -> Any:
        """Give points as inches from the panel's lower left corner."""
        import numpy as np

        low, high = self.axes.get_ylim()
        heights = np.maximum(np.asarray(ys, float), min(low, 0) if low <= 0 else low)
        if low > 0 and self.axes.get_yscale() == "log":
            low, high, heights = np.log(low), np.log(high), np.log(heights)
        places = np.asarray(xs, float) / self.end * _inner_width()
        return np.stack([places, (heights - low) / (high - low) * _PANEL], axis=-1)

    def _inked(self, curves: Sequence[tuple[list[int], list[float]]]) -> Any:
        """Give points all along the curves and the marks, in inches."""
        import numpy as np

        marks = {mark for line in self.lines for mark in line.marks}
        found = [self._on_page(xs, ys) for xs, ys in curves]
        found += [
            np.asarray([(x, 0.0), (x, _PANEL)])
            for x in (mark / self.end * _inner_width() for mark in marks)
        ]
        pieces = []
        for places in found:
            lengths = np.hypot(*np.diff(places, axis=0).T)
            along = np.concatenate([[0.0], np.cumsum(lengths)])
            at = np.arange(0, along[-1], _DOT)
            pieces.append(np.stack([np.interp(at, along, one) for one in places.T], axis=-1))
        return np.concatenate(pieces)

    def _place(self, text: str, point: Any, taken: list[Any], inked: Any, colour: str) -> None:
        """Write the value of a point where little is covered, and never another's value."""
        width, height = _width_of(self.axes.figure, text, _SMALL) + 0.1, 0.16  # type: ignore[arg-type] # root
        best: tuple[float, tuple[float, float, float, float]] | None = None
        for right, up in itertools.product(_AWAY, _AWAY):
            for left, low in itertools.product((right, -right - width), (up, -up - height)):
                x, y = point[0] + left, point[1] + low
                box = x, y, x + width, y + height
                is_inside = x >= 0 and y >= 0 and box[2] <= _inner_width() and box[3] <= _PANEL
                if not is_inside or any(_overlap(box, other) for other in taken):
                    continue
                covered = ((inked > box[:2]) & (inked < box[2:])).all(axis=1).sum() * _DOT
                cost = 4 * float(covered) + right + up
                if best is None or cost < best[0]:
                    best = cost, box
        if best is None:
            return
        taken.append(best[1])
        self._write(text, point, best[1], colour)

    def _write(
        self, text: str, point: Any, box: tuple[float, float, float, float], colour: str
    ) -> None:
        """Write a text in a box, which a line joins to its point."""
        middle = (box[1] + box[3]) / 2
        nearest = box[0] if box[0] > point[0] else box[2]
        xs, ys = (point[0], nearest), (point[1], middle)
        self.axes.plot(
            [x / _inner_width() for x in xs],
            [y / _PANEL for y in ys],
            color=colour,
            linewidth=0.7,
            transform=self.axes.transAxes,
            label="_leader",
            zorder=4,
        )
        edge = 0.7 if len(self.lines) > 1 else 0
        behind = {"facecolor": "white", "edgecolor": colour, "linewidth": edge, "pad": 1.2}
        looks = {"fontsize": _SMALL, "va": "center", "ha": "left", "zorder": 6}
        x, y = (box[0] + 0.05) / _inner_width(), middle / _PANEL
        _text(self.axes, x, y, text, transform=self.axes.transAxes, bbox=behind, **looks)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def write(path: str | os.PathLike[str], given: Sequence[Layer], *, log: bool = False) -> None:
    """Write a picture of layers: `.png`, `.svg`, or `.html`, which has a table of the phases too.

    Raises:
        ConfigError: The name ends otherwise, or the file cannot be written.
        ImportError: matplotlib is not installed.
    """
    ending = Path(path).suffix.lower()
    check_ending(path)
    figure = drawn(given, log=log)
    if ending == ".png":
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=200)
        content = buffer.getvalue()
    elif ending == ".svg":
        content = f'<?xml version="1.0" encoding="utf-8"?>\n{_svg(figure)}'.encode()
    else:
        content = _page(_svg(figure), given).encode()
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{os.fspath(path)}: cannot be written: {reason}") from error


def check_ending(path: str | os.PathLike[str]) -> None:
    """Make sure that a file's name ends in what can be written.

    Raises:
        ConfigError: It does not.
    """
    if Path(path).suffix.lower() not in ENDINGS:
        raise ConfigError(f"{os.fspath(path)}: the name must end in one of {listed(ENDINGS)}")


def _svg(figure: Figure) -> str:
    """Give a figure as an svg element that refers to nothing outside."""
    import matplotlib as mpl

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": "dist_sched", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; max-width: 56em; margin: 1em auto; padding: 0 1em; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2em .9em .2em 0; border-bottom: 1px solid #ddd; text-align: left; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{title}</h1>
{svg}
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</body>
</html>
"""

_COLUMNS = ("", "field", "phase", "begins", "ends", "first value", "last value")
_NUMBERS = 3
"""From this column on there are numbers."""
_CLASS = ' class="number"'


def _page(svg: str, given: Sequence[Layer]) -> str:
    """Give a page with a picture, and a table of the phases."""
    told = [
        (layer.name, track.label, span.name, *_numbers(span, track.factor))
        for layer in given
        for track in layer.tracks
        for span in track.spans
    ]
    first = 0 if len(given) > 1 else 1
    title = ", ".join(layer.name for layer in given if layer.name) or "schedule"
    return _PAGE.format(
        title=html.escape(title),
        svg=svg,
        head=_cells("th", _COLUMNS, first),
        body="\n".join(f"<tr>{_cells('td', row, first)}</tr>" for row in told),
    )


def _numbers(span: Span, factor: float) -> tuple[str, ...]:
    values = brief(span.first * factor), brief(span.last * factor)
    return f"{span.begin:,}", f"{span.end:,}", *values


def _cells(tag: str, row: Sequence[str], first: int) -> str:
    return "".join(
        f"<{tag}{_CLASS if index >= _NUMBERS else ''}>{html.escape(text)}</{tag}>"
        for index, text in enumerate(row)
        if index >= first
    )
