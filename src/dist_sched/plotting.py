"""Plotting: pictures of layers by matplotlib, one panel a field, with phases and positions."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dist_sched import layers, placement
from dist_sched._config.views import Span, brief, short
from dist_sched.layers import Layer, Line, Panel, Points, Scale, shortened
from dist_sched.placement import Box, Label, Placed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito, which people with colour blindness tell apart; yellow is too pale."""
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.2), (6, 1.5, 1.2, 1.5), (2.6, 1.3))
"""As many as have no divisor in common with the colours, so that all pairs come."""
_INK, _FAINT = "#333333", "#8a8a8a"

_WIDTH, _PANEL, _LEFT, _RIGHT, _ROW = 7.0, 1.72, 0.92, 0.18, 0.19
_GAP, _BOTTOM, _TOP, _LEGEND_ROW, _NOTE_ROW = 0.22, 0.52, 0.1, 0.2, 0.15
"""Lengths on the page, in inches."""
_INNER = _WIDTH - _LEFT - _RIGHT
_SMALL, _NORMAL = 7.5, 9.0
"""Sizes of letters, in points."""
_LEGEND = _NORMAL - 0.5

_MOST_ROWS = 7
"""Phases of more schedules than this have no bars."""
_MOST_DOTS = 60
"""Up to so many positions each has its own dot."""
_MOST_SPANS = 300
"""More phases than this have no width on a page."""
_MOST_TOLD = 12
"""A caption names no more phases than this."""
_MOST_NOTES = 20
"""Lines below a panel."""
_NAME = 1.4
"""Inches of a name in a note or a caption."""


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
    return drawn(layers.of(what, at=at, groups=groups, names=names), log=log)


def drawn(given: Sequence[Layer], *, log: bool = False) -> Figure:
    """Draw layers.

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
    with mpl.rc_context({"font.family": _families(_letters(given))}):
        figure = Figure(facecolor="white")
        FigureCanvasAgg(figure)
        _Page.of(given, log=log).draw(figure)
    return figure


def lacking(given: Sequence[Layer]) -> str:
    """Give the letters of names that no installed font has."""
    letters = _letters(given)
    return "".join(sorted(_missing(_families(letters), letters)))


def _letters(given: Sequence[Layer]) -> str:
    names = {
        text for layer in given for track in layer.tracks for text in (layer.name, track.label)
    }
    return "".join(sorted(set("".join(names)) - {"\n"}))


def _missing(families: Sequence[str], letters: str) -> set[str]:
    """Give the letters that none of some fonts has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    left = set(letters)
    for family in families:
        font = get_font(findfont(FontProperties(family=[family])))
        left = {letter for letter in left if not font.get_char_index(ord(letter))}
    return left


def _families(letters: str) -> list[str]:
    """Give the fonts to write with: matplotlib's, and for what those lack an installed one."""
    import matplotlib as mpl

    usual = list(mpl.rcParams["font.family"])
    left = _missing(usual, letters)
    return [*usual, *(_having("".join(sorted(left))) if left else ())]


@functools.cache
def _having(letters: str) -> tuple[str, ...]:
    """Give the first installed font that has some letters, if one has."""
    from matplotlib.font_manager import fontManager, get_font

    for entry in fontManager.ttflist:
        is_text = entry.style == "normal" and "Last Resort" not in entry.name
        if is_text and all(get_font(entry.fname).get_char_index(ord(one)) for one in letters):
            return (entry.name,)
    return ()


def _width(size: float) -> placement.Width:
    """Give what measures a text of some size, in inches; a letter that fonts lack is a wide box."""
    import matplotlib as mpl

    return functools.partial(_width_of, size=size, families=tuple(mpl.rcParams["font.family"]))


@functools.lru_cache(maxsize=4096)
def _width_of(text: str, size: float, families: tuple[str, ...]) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    for letter in set() if text.isascii() else _missing(families, text):
        text = text.replace(letter, "—.")
    font = FontProperties(family=list(families), size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def _text(where: Any, x: float, y: float, text: str, **looks: Any) -> Any:
    """Write a text as it stands: what looks like a formula is none."""
    usual = {"color": _INK, "parse_math": False, "va": "center", "ha": "left", "fontsize": _SMALL}
    return where.text(x, y, text, **{**usual, **looks})


def _style(index: int, number: int) -> dict[str, Any]:
    """Give the looks of a line; earlier ones are wider, to show below those that cover them."""
    dashes, rounds = _DASHES[index % len(_DASHES)], index // (len(_DASHES) * len(_COLOURS))
    if rounds:
        dashes = tuple(length * (1 + 0.8 * rounds) for length in dashes or (9, 0.8))
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "dashes": dashes,
        "linewidth": 1.8 if number == 1 else max(2.8 - 0.5 * index, 1.3),
    }


@dataclass(frozen=True, slots=True)
class _Page:
    """All of a picture, before it is drawn."""

    plans: Sequence[_Plan]
    legend: _Rows
    keys: _Rows
    """Whose the positions are."""
    styles: Mapping[str, dict[str, Any]]
    x_label: str

    @classmethod
    def of(cls, given: Sequence[Layer], *, log: bool) -> _Page:
        panels = layers.panels(given)
        names = [*dict.fromkeys(line.name for panel in panels for line in panel.lines)]
        styles = {name: _style(index, len(names)) for index, name in enumerate(names)}
        plans = [_Plan.of(panel, log=log, is_alone=len(panels) == 1) for panel in panels]
        fields = shortened([panel.field for panel in panels], 1.9 * _PANEL, _width(_NORMAL))
        plans = [plan.labelled(fields[plan.panel.field]) for plan in plans]
        own = {mark.told: mark.owners for mark in layers.marks_of(given) if mark.owners}
        lines = {line.layer: line.name for panel in reversed(panels) for line in panel.lines[::-1]}
        keys = {told: styles[lines[owners[0].name]]["color"] for told, owners in own.items()}
        is_legend = len(names) > 1
        legend = {name: styles[name] if is_legend else {} for name in names if name}
        looks = {told: {"marker": "D", "markersize": 5, "color": one} for told, one in keys.items()}
        return cls(plans, _Rows.of(legend), _Rows.of(looks), styles, layers.x_label(given))

    @property
    def height(self) -> float:
        return _TOP + self.legend.height + sum(plan.height for plan in self.plans) + self.below

    @property
    def below(self) -> float:
        """Of what is below the last panel's notes, in inches."""
        return _BOTTOM - _GAP + self.keys.height

    def draw(self, figure: Figure) -> None:
        height, first = self.height, None
        figure.set_size_inches(_WIDTH, height)
        top = height - _TOP
        self.legend.draw(figure, top)
        top -= self.legend.height
        for plan in self.plans:
            bottom = top - plan.above - _PANEL
            box = (_LEFT / _WIDTH, bottom / height, _INNER / _WIDTH, _PANEL / height)
            axes = figure.add_axes(box, sharex=first)
            first = first or axes
            is_last = plan is self.plans[-1]
            _Drawing(axes, plan, self.styles).draw(below=_BOTTOM - _GAP if is_last else 0.0)
            axes.tick_params(labelbottom=is_last)
            top -= plan.height
        axes.set_xlabel(self.x_label, fontsize=_NORMAL, color=_INK)
        self.keys.draw(figure, self.keys.height)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Names in columns, each beside its look: a legend, or a title where there is no look."""

    rows: tuple[tuple[tuple[str, dict[str, Any]], ...], ...]
    """Short names and looks."""
    column: float
    """Its width, in inches."""

    @property
    def height(self) -> float:
        return len(self.rows) * _LEGEND_ROW + (0.06 if self.rows else 0)

    @classmethod
    def of(cls, looks: Mapping[str, dict[str, Any]]) -> _Rows:
        if not looks:
            return cls((), _INNER)
        width_of = _width(_LEGEND)
        texts = shortened([*looks], _INNER - 0.45, width_of)
        column = max(map(width_of, texts.values())) + 0.6
        number = max(1, int(_INNER / column))
        cells = [(texts[name], look) for name, look in looks.items()]
        return cls(
            tuple(tuple(cells[i : i + number]) for i in range(0, len(cells), number)), column
        )

    def draw(self, figure: Figure, top: float) -> None:
        from matplotlib.lines import Line2D

        height = figure.get_size_inches()[1]
        for row, cells in enumerate(self.rows):
            y = (top - (row + 0.5) * _LEGEND_ROW) / height
            for column, (name, look) in enumerate(cells):
                x = _LEFT + column * self.column
                if look:
                    ends = [x, x + 0.34] if "marker" not in look else [x + 0.17]
                    figure.add_artist(
                        Line2D([one / _WIDTH for one in ends], [y] * len(ends), **look)
                    )
                _text(figure, (x + (0.42 if look else 0)) / _WIDTH, y, name, fontsize=_LEGEND)


@dataclass(frozen=True, slots=True)
class _Strip:
    """Phases above a panel, with their names where there is room."""

    spans: tuple[Span, ...]
    line: Line
    names: tuple[placement.Written, ...]
    caption: str
    """All names, where one is nowhere on the bars."""

    @property
    def height(self) -> float:
        return _ROW * (bool(self.spans) + bool(self.caption))

    @classmethod
    def of(cls, spans: tuple[Span, ...], line: Line, owner: str, end: int) -> _Strip:
        names = [span.name for span in spans]
        if len(spans) > _MOST_SPANS:
            return cls((), line, (), _caption(owner, names))
        bounds = [(span.begin / end * _INNER, span.end / end * _INNER) for span in spans]
        width_of = _width(_SMALL)
        found = placement.along(names, bounds, _INNER, lambda name: width_of(name) + 0.05)
        is_told = {*names} <= {names[index] for index in found}
        return cls(spans, line, tuple(found.values()), "" if is_told else _caption(owner, names))


def _strips(panel: Panel) -> list[_Strip]:
    rows = panel.rows()
    if len(rows) > _MOST_ROWS:
        return []
    names = _noted_names(panel)
    owners = {line.name: names[line.name] if len(rows) > 1 else "" for line in rows.values()}
    return [_Strip.of(spans, line, owners[line.name], panel.end) for spans, line in rows.items()]


def _noted_names(panel: Panel) -> dict[str, str]:
    """Give names of lines that are short enough for a note."""
    return shortened([line.name for line in panel.lines], _NAME, _width(_SMALL))


def _caption(owner: str, names: Sequence[str]) -> str:
    """Name phases in order, as many as there is room for."""
    whose, total = f"{owner}: " if owner else "", len(names)
    for number in range(min(total, _MOST_TOLD), 0, -1):
        told = ", ".join(names[:number]) + (", …" if number < total else "")
        text = f"{whose}{total:,} phase{'s' * (total > 1)}: {told}"
        if _width(_SMALL)(text) <= _INNER - 0.2:
            return text
    return f"{whose}{total:,} phases"


@dataclass(frozen=True, slots=True)
class _Dot:
    """A point of a curve at a mark."""

    line: Line
    position: int
    value: float
    is_own: bool

    @property
    def text(self) -> str:
        return f"{brief(self.value)} at {self.position:,}"


def _dots(panel: Panel) -> list[_Dot]:
    """Give what each curve has at each mark; what coincides is its owner's, or the first's."""
    found: dict[tuple[int, str], _Dot] = {}
    for mark in panel.marks:
        own = {owner.name for owner in mark.owners}
        for line in sorted(panel.lines, key=lambda line: line.layer not in own):
            value = line.track.value(mark.position)
            dot = _Dot(line, mark.position, value, line.layer in own)
            found.setdefault((mark.position, dot.text), dot)
    return sorted(found.values(), key=lambda dot: (dot.position, not dot.is_own, -dot.value))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is in a panel and about it, before it is drawn."""

    panel: Panel
    scale: Scale
    curves: Sequence[Points]
    strips: Sequence[_Strip]
    dots: Sequence[_Dot]
    placed: Sequence[tuple[Placed, _Dot]]
    notes: Sequence[str]
    label: str = ""

    @classmethod
    def of(cls, panel: Panel, *, log: bool, is_alone: bool) -> _Plan:
        curves = panel.curves()
        scale = layers.scale_of(curves, log=log)
        strips, dots = _strips(panel), _dots(panel)
        placed, dropped = _place(dots, panel, curves, scale)
        pieces = [*_unplaced(dropped, panel), *_without_bars(panel, strips)]
        text = "; ".join(pieces)
        text = text if is_alone or not pieces else f"{panel.field}: {text}"
        notes = [
            line.replace("\0", " ")
            for line in placement.folded(text.split(" "), _INNER, _width_of_note)
            if line
        ]
        if len(notes) > _MOST_NOTES:
            notes[_MOST_NOTES - 1 :] = [f"… and {len(notes) - _MOST_NOTES + 1} lines more"]
        return cls(panel, scale, curves, strips, dots, placed, notes)

    def labelled(self, field: str) -> _Plan:
        """Give it with a name of the field that is no longer than the panel is high."""
        rest = (
            self.panel,
            self.scale,
            self.curves,
            self.strips,
            self.dots,
            self.placed,
            self.notes,
        )
        return _Plan(*rest, label="\n".join([*_lines_of(field, self.scale.note)]))

    @property
    def above(self) -> float:
        return sum(strip.height for strip in self.strips)

    @property
    def height(self) -> float:
        below = len(self.notes) * _NOTE_ROW + (0.08 if self.notes else 0)
        return self.above + _PANEL + below + _GAP


def _lines_of(field: str, note: str) -> Iterator[str]:
    """Fold a field's name to two lines, or shorten it to one where a note is the other."""
    width_of, is_low = _width(_NORMAL), "0" in note
    if width_of(field) <= _PANEL:
        yield field
    elif is_low:
        yield shortened([field], _PANEL, width_of)[field]
    else:
        fitting = [
            index
            for index in range(1, len(field))
            if max(width_of(field[:index]), width_of(field[index:])) <= _PANEL
        ]
        is_good = [index for index in fitting if field[index - 1] in "_.-/ "]
        middle = min(is_good or fitting, key=lambda index: abs(index - len(field) / 2))
        yield from (field[:middle], field[middle:])
    if is_low:
        yield note


def _on_page(scale: Scale, end: int, points: Points) -> list[placement.Point]:
    """Give points as inches from a panel's lower left corner."""
    heights = (max(part, 0.0) * _PANEL for part in scale.parts(points[1]))
    return [(x / end * _INNER, y) for x, y in zip(points[0], heights, strict=True)]


def _place(
    dots: Sequence[_Dot], panel: Panel, curves: Sequence[Points], scale: Scale
) -> tuple[list[tuple[Placed, _Dot]], list[_Dot]]:
    """Find room for the values of dots."""
    width_of, end = _width(_SMALL), panel.end
    points = _on_page(scale, end, ([dot.position for dot in dots], [dot.value for dot in dots]))
    labels = {
        Label(dot.text, point, width_of(dot.text) + 0.1, 0.16): dot
        for dot, point in zip(dots, points, strict=True)
    }
    lines = [_on_page(scale, end, curve) for curve in curves]
    for mark in panel.marks:
        x = mark.position / end * _INNER
        lines.append([(x, 0.0), (x, _PANEL)])
    placed, dropped = placement.place([*labels], lines, Box(0.0, 0.0, _INNER, _PANEL))
    return [(one, labels[one.label]) for one in placed], [labels[label] for label in dropped]


def _unplaced(dropped: Sequence[_Dot], panel: Panel) -> Iterator[str]:
    """Write the values that found no room."""
    names = _noted_names(panel)
    for position in dict.fromkeys(dot.position for dot in dropped):
        told = [
            brief(dot.value) + (f"\0({_whole(names[dot.line.name])})" if len(names) > 1 else "")
            for dot in dropped
            if dot.position == position
        ]
        yield f"at\0{position:,}: {', '.join(told)}"


def _whole(name: str) -> str:
    """Mark a name as not to be folded."""
    return name.replace(" ", "\0")


def _width_of_note(text: str) -> float:
    return _width(_SMALL)(text.replace("\0", " "))


def _without_bars(panel: Panel, strips: Sequence[_Strip]) -> Iterator[str]:
    """Name the phases of lines that are too many for bars, those of the same names once."""
    if strips:
        return
    names = _noted_names(panel)
    found: dict[str, list[str]] = {}
    for spans, line in panel.rows().items():
        told = [span.name for span in spans[:_MOST_TOLD]] + ["…"] * (len(spans) > _MOST_TOLD)
        found.setdefault(", ".join(told), []).append(_whole(names[line.name]))
    for phases, owners in found.items():
        whose = f" ({', '.join(owners)})" if len(found) > 1 else ""
        yield f"phases{whose or ' of all'}: {phases}"


@dataclass(frozen=True, slots=True)
class _Drawing:
    """The drawing of a panel."""

    axes: Axes
    plan: _Plan
    styles: Mapping[str, dict[str, Any]]

    def draw(self, *, below: float) -> None:
        """Draw all; notes come `below` inches under the panel."""
        self._axes()
        self._ticks()
        for line, points in zip(self.plan.panel.lines, self.plan.curves, strict=True):
            self._curve(line, points)
        strips, above = self.plan.strips, 0.0
        if len(strips) == 1:
            for span in strips[0].spans[::2]:
                self.axes.axvspan(span.begin, span.end, color="#000000", alpha=0.05, linewidth=0)
        for strip in reversed(strips):
            colour = self._colour(strip.line) if len(strips) > 1 else "#777777"
            self._strip(above, strip, colour)
            above += strip.height
        self._marks()
        for placed, dot in self.plan.placed:
            self._label(placed, self._colour(dot.line))
        for row, note in enumerate(self.plan.notes):
            y = -(below + 0.12 + (row + 0.5) * _NOTE_ROW) / _PANEL
            _text(self.axes, 0, y, note, transform=self.axes.transAxes)

    def _colour(self, line: Line) -> str:
        return str(self.styles[line.name]["color"])

    def _axes(self) -> None:
        axes, scale = self.axes, self.plan.scale
        if scale.is_log:
            axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(scale.low, scale.high)
        axes.set_xlim(0, self.plan.panel.end)
        axes.grid(visible=True, axis="y", color="#000000", alpha=0.08, linewidth=0.6)
        axes.set_facecolor("white")
        axes.set_gid(self.plan.panel.field)
        for side, spine in axes.spines.items():
            spine.set_visible(side in {"left", "bottom"})
            spine.set_color(_FAINT)
        looks: dict[str, Any] = {"fontsize": _NORMAL, "color": _INK, "va": "top"}
        axes.set_ylabel(self.plan.label, parse_math=False, **looks)
        axes.yaxis.set_label_coords((0.05 - _LEFT) / _INNER, 0.5)

    def _ticks(self) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

        x, y, scale = self.axes.xaxis, self.axes.yaxis, self.plan.scale
        self.axes.tick_params(labelsize=_LEGEND, colors=_INK, color=_FAINT, length=3)
        self.axes.tick_params(which="minor", color=_FAINT, length=2)
        y.set_minor_formatter(NullFormatter())
        if not scale.is_decades:
            y.set_minor_locator(NullLocator())
        y.set_major_locator(FixedLocator(scale.ticks()))
        y.set_major_formatter(FuncFormatter(lambda value, _: brief(value)))
        x.set_major_locator(FixedLocator(layers.whole_numbers(self.plan.panel.end, 8)))
        x.set_major_formatter(FuncFormatter(lambda position, _: short(position)))

    def _curve(self, line: Line, points: Points) -> None:
        style = self.styles[line.name]
        self.axes.plot(*points, label=f" {line.name}", **style)
        if self.plan.panel.end <= _MOST_DOTS:
            visible = [(x, y) for x, y in zip(*points, strict=True) if y >= self.plan.scale.low]
            looks: dict[str, Any] = {"color": style["color"], "markersize": 3, "clip_on": False}
            self.axes.plot(*zip(*visible, strict=True), "o", label="_point", **looks)

    def _strip(self, above: float, strip: _Strip, colour: str) -> None:
        """Draw phases over the panel, `above` inches over it."""
        bottom, height = 1 + (above + 0.025) / _PANEL, (_ROW - 0.03) / _PANEL
        end = self.plan.panel.end
        for index, span in enumerate(strip.spans):
            ends = float(span.begin / end), float(span.end / end)
            self._bar(*ends, bottom, colour, 0.34 if index % 2 == 0 else 0.17)
        looks: dict[str, Any] = {"transform": self.axes.transAxes}
        for name in strip.names:
            middle = (name.left + name.right) / 2 / _INNER
            _text(self.axes, middle, bottom + height * 0.46, name.text, ha="center", **looks)
        if strip.caption:
            bottom += _ROW / _PANEL * bool(strip.spans)
            self._bar(0.0, 0.12 / _INNER, bottom, colour, 1.0)
            _text(self.axes, 0.17 / _INNER, bottom + height * 0.46, strip.caption, **looks)

    def _bar(self, begin: float, end: float, bottom: float, colour: str, alpha: float) -> None:
        """Draw a bar; lengths are parts of the panel's."""
        from matplotlib.patches import Rectangle

        bar = Rectangle((begin, bottom), end - begin, (_ROW - 0.03) / _PANEL)
        bar.set(facecolor=colour, alpha=alpha, clip_on=False, transform=self.axes.transAxes)
        self.axes.add_patch(bar)

    def _marks(self) -> None:
        """Mark positions: a checkpoint's own by a dashed line and a diamond, others by dots."""
        for mark in self.plan.panel.marks:
            looks = ("--", 1.0) if mark.owners else ((0, (1, 2)), 0.8)
            self.axes.axvline(mark.position, color=_INK, linestyle=looks[0], linewidth=looks[1])
        for dot in reversed(self.plan.dots):
            (drawn_dot,) = self.axes.plot([dot.position], [dot.value], "D" if dot.is_own else "o")
            drawn_dot.set(color=self._colour(dot.line), markersize=6, markeredgecolor="white")
            is_shown = dot.value >= self.plan.scale.low
            drawn_dot.set(clip_on=not is_shown, zorder=5, label="_position")

    def _label(self, placed: Placed, colour: str) -> None:
        """Write a text in its box, which a line joins to its point."""
        (x, y), (near, middle) = placed.leader
        ends = [x / _INNER, near / _INNER], [y / _PANEL, middle / _PANEL]
        looks: dict[str, Any] = {"color": colour, "linewidth": 0.7, "label": "_leader", "zorder": 4}
        self.axes.plot(*ends, transform=self.axes.transAxes, **looks)
        edge = 0.7 if len(self.plan.panel.lines) > 1 else 0
        behind = {"facecolor": "white", "edgecolor": colour, "linewidth": edge, "pad": 1.2}
        at = (placed.box.left + 0.05) / _INNER, middle / _PANEL
        _text(
            self.axes,
            *at,
            placed.label.text,
            transform=self.axes.transAxes,
            bbox=behind,
            zorder=6,
        )
