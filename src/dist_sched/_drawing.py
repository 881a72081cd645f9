"""The common data of pictures and terminal charts: curves, phases, marks, axes and names."""

from __future__ import annotations

import itertools
import math
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from dist_sched._config.path import Path
from dist_sched._config.views import Span, Track, brief, sampled, short
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dist_sched._rules import Number


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the schedules of a drawing."""

    name: str
    tracks: tuple[Track, ...]
    unit: str | None = None
    position: int | None = None
    """Position of a checkpoint or scheduler. None for a config."""
    kind: str = "checkpoint"
    """The kind of object that has the position."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve as it is drawn."""

    name: str
    """For the legend."""
    layer: Layer
    track: Track
    points: tuple[list[int], list[float]]
    """Positions, and the values there."""

    @property
    def jumps(self) -> list[tuple[int, float, float]]:
        """The positions at which it jumps, each with the value before and from there on."""
        pairs = itertools.pairwise(zip(*self.points, strict=True))
        return [(x, before, after) for (x, before), (right, after) in pairs if x == right]


class Axis(NamedTuple):
    """An axis of values, and what to write of it beside the field's name."""

    low: float
    high: float
    is_log: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves of one field, up to the last position of the axis."""

    field: str
    lines: tuple[Line, ...]
    end: int

    @property
    def is_constant(self) -> bool:
        """Whether all curves are constant, as far as a picture can show."""
        values = [line.points[1] for line in self.lines]
        return all(math.isclose(min(ys), max(ys), rel_tol=1e-9) for ys in values)

    def constant(self) -> str:
        """Return a sentence instead of a panel, for a field that never changes."""
        names: dict[str, list[str]] = {}
        for line in self.lines:
            names.setdefault(brief(line.points[1][0]), []).append(line.name)
        is_same = len(names) == 1
        parts = [value if is_same else f"{value} ({listed(own)})" for value, own in names.items()]
        return f"{self.field}: {', '.join(parts)} throughout"

    def axis(self, *, log: bool) -> Axis:
        """Return the axis. It is logarithmic only if some value is positive."""
        values = [value for line in self.lines for value in line.points[1]]
        low, high = min(values), max(values)
        if log and high > 0:
            # More than five powers of ten would leave no room for what matters.
            least = max(min(value for value in values if value > 0), high / 1e5) / 1.5
            hidden = "0" if low <= 0 else f"less than {brief(least)}"
            note = f"(log, {hidden} off axis)" if low < least else "(log)"
            return Axis(least, high * 1.5, is_log=True, note=note)
        low = 0.0 if 0 <= low < 0.4 * high else low
        margin = 0.05 * (high - low)
        return Axis(low - margin, high + margin)

    def phases(self) -> list[tuple[tuple[Span, ...], list[Line]]]:
        """Return the different rows of phases, each with its curves.

        The value after the last phase is not a phase. A constant lasts to the end of the axis.
        """
        rows: dict[tuple[object, ...], tuple[tuple[Span, ...], list[Line]]] = {}
        for line in self.lines:
            spans = tuple(span for span in line.track.spans if span.end > span.begin)
            spans = spans or (replace(line.track.spans[-1], end=self.end),)
            key = tuple((span.name, span.begin, span.end) for span in spans)
            rows.setdefault(key, (spans, []))[1].append(line)
        return list(rows.values())


@dataclass(frozen=True, slots=True)
class Drawing:
    """The contents of a picture: schedules over one axis of positions, and positions to mark.

    Raises:
        ConfigError: The units of the schedules differ.
    """

    layers: tuple[Layer, ...]
    at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        by_unit = {layer.unit: layer.name for layer in self.layers if layer.unit is not None}
        if len(by_unit) > 1:
            each = "; ".join(f"{name or 'one'} counts {unit}" for unit, name in by_unit.items())
            raise ConfigError(f"unit: {each}; draw schedules of different units separately")

    def renamed(self, rename: Callable[[str], str]) -> Drawing:
        """Return the same drawing with other names."""

        def track(one: Track) -> Track:
            spans = tuple(replace(span, name=rename(span.name)) for span in one.spans)
            pattern = None if one.path.pattern is None else rename(one.path.pattern)
            return replace(one, path=Path(rename(one.field), pattern=pattern), spans=spans)

        layers = (
            replace(layer, name=rename(layer.name), tracks=tuple(map(track, layer.tracks)))
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))

    @property
    def marks(self) -> dict[int, list[Layer]]:
        """The positions to mark, in order, each with the layers at this position."""
        own = {layer.position for layer in self.layers if layer.position is not None}
        return {
            position: [layer for layer in self.layers if layer.position == position]
            for position in sorted({*self.at, *own})
        }

    @property
    def owners(self) -> list[str]:
        """The names of checkpoints and schedulers, with their positions."""
        return [
            f"{layer.kind} {layer.name}".rstrip() + f" at {layer.position:,}"
            for layer in self.layers
            if layer.position is not None
        ]

    @property
    def x_label(self) -> str:
        """The name of the axis of positions, with the unit and the horizon."""
        unit = next((layer.unit for layer in self.layers if layer.unit is not None), "units")
        horizons = self._horizons()
        is_said = horizons[0] > 0 and len({*horizons}) == 1
        return f"position ({unit})" + (f"; horizon {short(horizons[0])}" if is_said else "")

    def _horizons(self) -> list[Number]:
        """Return the position of each layer after which no field changes."""
        return [max(track.horizon for track in layer.tracks) for layer in self.layers]

    def panels(self) -> list[Panel]:
        """Return the curves of each field, in the order of the fields."""
        # The axis ends past the last horizon, to show which value holds from there on.
        last = int(max(*self._horizons(), 0, *self.marks))
        end = last + max(2, last // 20) if last else 10
        by_field: dict[str, list[tuple[Layer, Track]]] = {}
        for layer in self.layers:
            for track in layer.tracks:
                by_field.setdefault(track.field, []).append((layer, track))
        panels = []
        for field, rows in by_field.items():
            spans = [span for _, track in rows for span in track.spans]
            joins = [*self.marks, *(join for span in spans for join in (span.begin, span.end))]
            at = sampled(end, joins)
            lines = [
                Line(self._line_name(layer, track), layer, track, points(track, at))
                for layer, track in rows
            ]
            panels.append(Panel(field, tuple(lines), end))
        return panels

    def _line_name(self, layer: Layer, track: Track) -> str:
        pattern = track.path.pattern
        groups = "" if pattern is None else f"groups[{pattern}]"
        if len(self.layers) > 1:
            return f"{layer.name}: {groups}" if groups else layer.name
        has_overrides = any(one.path.pattern is not None for one in layer.tracks)
        if groups or not has_overrides:
            return groups or layer.name
        return "extra" if track.is_extra else "all other groups"


def points(track: Track, positions: Sequence[int]) -> tuple[list[int], list[float]]:
    """Return the points of a curve. At a jump, the value stays constant until the jump.

    A jump is a change within one unit that is much larger than those before and after it.

    Examples:
        >>> from dist_sched import Phase, Schedule
        >>> from dist_sched._config.specification import Specification
        >>> from dist_sched._config.views import tracks
        >>> schedule = Schedule([Phase("constant", 2, 1.0, 1.0), Phase("constant", 2, 0.5, 0.5)])
        >>> points(*tracks(Specification.of({"lr": schedule})), range(4))
        ([0, 1, 2, 2, 3], [1.0, 1.0, 1.0, 0.5, 0.5])
    """
    found = list(zip(positions, track.values(positions), strict=True))
    xs, ys = [found[0][0]], [found[0][1]]
    for (left, before), (right, after) in itertools.pairwise(found):
        step = abs(after - before)
        if left + 1 == right and step > 0.01 * max(abs(before), abs(after)):
            # A steep schedule changes as much before and after, which a jump does not.
            earlier, later = track.values([max(left - 1, 0), right + 1])
            if step > 4 * max(abs(before - earlier), abs(later - after)):
                xs.append(right)
                ys.append(before)
        xs.append(right)
        ys.append(after)
    return xs, ys


def table(tracks: Iterable[tuple[str, Track]], at: Sequence[int], most: int) -> list[list[str]]:
    """Return a row of values for each named curve, below a row of positions.

    A row has at most so many positions. Further ones are in rows below.
    """
    rows, tracks = [], list(tracks)
    for part in (at[begin : begin + most] for begin in range(0, len(at), most)):
        rows.append(["position", *(f"{position:,}" for position in part)])
        rows += [[name, *map(brief, track.values(part))] for name, track in tracks]
    return rows


def listed(names: Sequence[str], separator: str = ", ", most: int = 8) -> str:
    """Return names for a sentence: the first ones, cut if long, and the number of others."""
    text = separator.join(shortened(names[:most], 32))
    return f"{text} and {len(names) - most:,} more" if len(names) > most else text


def printable(text: str) -> str:
    """Return a text with control characters escaped, so that names are one line."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def numbered(names: Sequence[str]) -> list[str]:
    """Return names, with numbers added to repeated ones.

    Examples:
        >>> numbered(["a", "b", "a"])
        ['a (1)', 'b', 'a (2)']
    """
    if len({*names}) == len(names):
        return [*names]
    found = [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]
    return numbered(found)  # a number can make a name that was there


def columns(text: str) -> int:
    """Return the number of columns of a text, in which wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def shortened(names: Sequence[str], room: int) -> list[str]:
    """Return names cut to a number of columns, so that different names stay different.

    The middle is left out, or a common beginning, or numbers are added.

    Examples:
        >>> shortened(["lr", "a" * 30, "b" * 30], 9)
        ['lr', 'aaaa…aaaa', 'bbbb…bbbb']
        >>> shortened(["run/lr_1/decay.yaml", "run/lr_2/decay.yaml"], 10)
        ['…r_1/…yaml', '…r_2/…yaml']
    """
    letters = itertools.takewhile(lambda column: len({*column}) == 1, zip(*names, strict=False))
    begin = max(len([*letters]) - 2, 0)
    attempts = (
        names,
        [f"…{name[begin:]}" if columns(name) > room else name for name in names],
        [f"{index} {name}" for index, name in enumerate(names, start=1)],
    )
    cut = [[_cut(name, room) for name in attempt] for attempt in attempts]
    return next((found for found in cut if len({*found}) == len({*names})), cut[-1])


def _cut(name: str, room: int) -> str:
    """Leave out the middle of a name."""
    if columns(name) <= room:
        return name
    for letters in range(room - 1, 0, -1):
        text = f"{name[: (letters + 1) // 2]}…{name[len(name) - letters // 2 :]}"
        if columns(text) <= room:
            return text
    return "…"
