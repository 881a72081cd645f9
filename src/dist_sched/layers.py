"""Layers: what pictures and charts draw alike, as plain data: curves, phases, marks and scales."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dist_sched._config import files
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.specification import Specification
from dist_sched._config.views import Span, Track, sampled, short, tracks
from dist_sched._curves.phases import Schedule
from dist_sched._rules import MAX_LENGTH, Number, illegal, whole
from dist_sched.errors import ConfigError

_BARE = "value"
"""What a schedule is drawn as that stands for no field."""
_CONFIG_NAMES = frozenset(
    {"fields", "groups", "horizon", *files.SETTINGS, *OptimizerParamConfig.entry_names()}
)
_DECADES = 5
"""How far down an axis of logarithms goes at most."""
_STEPS = 1, 2, 2.5, 5, 10
"""What lies between ticks, but for a power of ten."""

Points = tuple[list[int], list[float]]
"""Positions, and the values there."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What is drawn over others: a schedule for each field, and positions."""

    name: str
    tracks: tuple[Track, ...]
    unit: str | None = None
    position: int | None = None
    """Its own, where it is a checkpoint or a scheduler."""
    kind: str = "checkpoint"
    """What has that position."""
    asked: tuple[int, ...] = ()
    """Positions to mark besides."""

    @property
    def horizon(self) -> Number:
        """The position past which none of its fields changes."""
        return max(track.horizon for track in self.tracks)


@dataclass(frozen=True, slots=True)
class Mark:
    """A position that every curve is marked at."""

    position: int
    owners: tuple[Layer, ...] = ()
    """The layers whose own it is; none where it was asked for."""

    @property
    def told(self) -> str:
        """Whose it is, and where.

        >>> Mark(2000, (Layer("step_2000", (), position=2000),)).told, Mark(2000).told
        ('checkpoint step_2000 at 2,000', 'at 2,000')
        """
        owners = [f"{owner.kind} {owner.name}".rstrip() for owner in self.owners]
        return f"{', '.join(owners)} at {self.position:,}".lstrip()


@dataclass(frozen=True, slots=True)
class Line:
    """A curve of a panel."""

    name: str
    """For the legend."""
    track: Track
    layer: str
    """The name of what it is of."""


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves of a field, on an axis of positions that all panels share."""

    field: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    end: int
    """The last position."""

    @property
    def joins(self) -> list[Number]:
        """The positions near which no curve may be left out."""
        spans = (span for line in self.lines for span in line.track.spans)
        ends = (join for span in spans for join in (span.begin, span.end))
        return [*(mark.position for mark in self.marks), *ends]

    def curves(self, at: Sequence[int] | None = None) -> list[Points]:
        """Give the points of each line, at positions or at enough of them."""
        given = sampled(self.end, self.joins) if at is None else at
        return [points(line.track, given) for line in self.lines]

    def rows(self) -> dict[tuple[Span, ...], Line]:
        """Give the phases that lines have, those that several share once, with the first of them.

        A curve without a length, which is a constant, duration throughout.
        """
        found: dict[tuple[tuple[Any, ...], ...], tuple[tuple[Span, ...], Line]] = {}
        for line in self.lines:
            spans = tuple(span for span in line.track.spans if span.end > span.begin)
            if not spans:
                spans = (replace(line.track.spans[-1], end=self.end),)
            key = tuple((span.name, span.begin, span.end) for span in spans)
            found.setdefault(key, (spans, line))
        return dict(found.values())


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis of values."""

    low: float
    """The lowest that is shown."""
    high: float
    """The highest."""
    is_log: bool = False
    """Whether the axis is one of logarithms."""
    is_below: bool = False
    """Whether some value is too low to be shown."""

    @property
    def note(self) -> str:
        """What to say of the axis beside the field's name."""
        return "(log, 0 off axis)" if self.is_below else "(log)" * self.is_log

    @property
    def is_decades(self) -> bool:
        """Whether the ticks are powers of ten."""
        return self.is_log and len(_powers(self.low, self.high)) > 1

    def scaled(self, values: Iterable[float]) -> list[float]:
        """Give what lies evenly along the axis; what is off it is not far off.

        >>> Scale(1.0, 100.0, is_log=True).scaled([0, 1, 10, 100])
        [-1.0, 0.0, 1.0, 2.0]
        """
        if not self.is_log:
            return list(values)
        return [math.log10(max(value, self.low / 10)) for value in values]

    def parts(self, values: Iterable[float]) -> list[float]:
        """Give how far along the axis values are, from 0 to 1."""
        low, high = self.scaled([self.low, self.high])
        return [(value - low) / (high - low) for value in self.scaled(values)]

    def ticks(self) -> list[float]:
        """Give powers of ten, or round numbers where there are too few.

        >>> Scale(0.0, 1.1).ticks(), Scale(0.001, 1.0, is_log=True).ticks()
        ([0.0, 0.25, 0.5, 0.75, 1.0], [0.001, 0.01, 0.1, 1.0])
        """
        if self.is_decades:
            return _powers(self.low, self.high)
        return round_numbers(max(self.low, 0.0), self.high)


def of(
    what: Any,
    *,
    at: int | Iterable[int] | None = None,
    groups: bool = False,
    names: Sequence[str] | None = None,
) -> tuple[Layer, ...]:
    """Give what `dist_sched.plot` draws; its arguments are that one's.

    Raises:
        ConfigError: As for `dist_sched.plot`.
    """
    told = _named(what)
    if names is not None:
        if isinstance(names, str) or len(names) != len(told):
            raise illegal("names", names, f"must be a list of {len(told)}, one for each")
        unique = numbered([str(name) for name in names])
        told = [(name, one) for name, (_, one) in zip(unique, told, strict=True)]
    is_alone = all(isinstance(one, Schedule) for _, one in told)
    found = [_layer(name, one, groups, _BARE if is_alone else "lr") for name, one in told]
    return marked(found, positions("at", at))


def marked(found: Iterable[Layer], at: Iterable[int]) -> tuple[Layer, ...]:
    """Give the layers with positions that all of them are marked at.

    Raises:
        ConfigError: Their units differ.
    """
    asked = tuple(sorted({*at}))
    given = [replace(layer, asked=asked) for layer in found]
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


def numbered(names: Sequence[str]) -> list[str]:
    """Number names that come several times.

    >>> numbered(["a", "b", "a"])
    ['a (1)', 'b', 'a (2)']
    """
    count = Counter(names)
    return [
        f"{name} ({names[: index + 1].count(name)})" if count[name] > 1 else name
        for index, name in enumerate(names)
    ]


def shortened(
    names: Sequence[str], room: float, width_of: Callable[[str], float] = len
) -> dict[str, str]:
    """Shorten names that are too wide, so that they still differ.

    The middle is left out; of those that differ there alone, what differs is kept.

    >>> shortened(["lr", "a" * 30, "b" * 30], 9)
    {'lr': 'lr', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa': 'aaaa…aaaa', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb': 'bbbb…bbbb'}
    >>> [*shortened(["run/lr_1/decay.yaml", "run/lr_2/decay.yaml"], 10).values()]
    ['r…_1/de…ml', 'r…_2/de…ml']
    """  # noqa: E501 - a result is one line
    found = {name: _cut(name, room, width_of) for name in names}
    alike: dict[str, list[str]] = {}
    for name, text in found.items():
        alike.setdefault(text, []).append(name)
    for group in alike.values():
        if len(group) > 1:
            found.update(_told_apart(group, room, width_of))
    if len({*found.values()}) == len(found):
        return found
    numbers = {name: f"{index} " for index, name in enumerate(found, start=1)}
    return {
        name: number + _cut(name, room - width_of(number), width_of)
        for name, number in numbers.items()
    }


def _cut(name: str, room: float, width_of: Callable[[str], float]) -> str:
    """Leave out the middle of a name."""
    if width_of(name) <= room:
        return name
    for most in range(len(name) - 1, 1, -1):
        text = f"{name[: (most + 1) // 2]}…{name[len(name) - most // 2 :]}"
        if width_of(text) <= room:
            return text
    return f"{name[:1]}…"


def _told_apart(
    names: Sequence[str], room: float, width_of: Callable[[str], float]
) -> dict[str, str]:
    """Shorten names around the place from which they differ."""
    columns = enumerate(zip(*names, strict=False))
    shortest = min(map(len, names))
    begin = next((index for index, letters in columns if len({*letters}) > 1), shortest)
    for most in range(max(map(len, names)), 2, -1):
        before = most // 4
        kept = {
            name: f"{name[:before]}…{name[max(begin - 1, before) :][: most - 2 * before]}"
            + (f"…{name[-before - 1 :]}" if before else "…")
            for name in names
        }
        if all(width_of(text) <= room for text in kept.values()):
            return kept
    return {name: _cut(name, room, width_of) for name in names}


def _named(what: Any) -> list[tuple[str, Any]]:
    """Give the things to draw, with what to call them."""
    if isinstance(what, Mapping) and not _is_config(what):
        return [(str(name), one) for name, one in what.items()]
    if not isinstance(what, list | tuple):
        return [("", what)]
    if not what:
        raise illegal("what", what, "must hold at least one thing to draw")
    names = numbered([_name(one, index) for index, one in enumerate(what, start=1)])
    return list(zip(names, what, strict=True))


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
        told = files.read(what)
        return Layer(name, tracks(told.config, groups=groups), told.unit)
    from dist_sched._optim.base import Scheduler  # torch comes with it

    if not isinstance(what, Scheduler):
        rule = "must be a Schedule, a scheduler, a config, its path, or several of them"
        raise illegal("what", what, rule)
    used = files.read(what.to_config()).config
    return Layer(name, tracks(used, groups=groups), what.unit, what.num_steps, "scheduler")


def panels(given: Sequence[Layer]) -> list[Panel]:
    """Give the panels of all fields, in the order in which fields first come."""
    found: dict[str, list[Line]] = {}
    for layer in given:
        has_own = any(track.label != track.field for track in layer.tracks)
        for track in layer.tracks:
            name = _line_name(layer.name, track, has_own=has_own, is_alone=len(given) == 1)
            found.setdefault(track.field, []).append(Line(name, track, layer.name))
    marks, end = marks_of(given), _end_of(given)
    return [Panel(field, tuple(lines), marks, end) for field, lines in found.items()]


def _line_name(layer: str, track: Track, *, has_own: bool, is_alone: bool) -> str:
    pattern = track.label.removesuffix(track.field).rstrip(".")
    if is_alone:
        return pattern or ("all other groups" if has_own else layer)
    return f"{layer}: {pattern}" if pattern else layer


def marks_of(given: Sequence[Layer]) -> tuple[Mark, ...]:
    """Give the marks, in order."""
    asked = {position for layer in given for position in layer.asked}
    own = {layer.position for layer in given if layer.position is not None}
    return tuple(
        Mark(position, tuple(layer for layer in given if layer.position == position))
        for position in sorted(asked | own)
    )


def _end_of(given: Sequence[Layer]) -> int:
    """Give the last position to draw: a little past every horizon and mark."""
    last = int(max(*(layer.horizon for layer in given), 0, *_marked(given)))
    return last + max(2, last // 20) if last else 10


def _marked(given: Sequence[Layer]) -> Iterator[int]:
    return (mark.position for mark in marks_of(given))


def x_label(given: Sequence[Layer]) -> str:
    """Name the axis of positions, with the unit and the horizon."""
    unit = next((layer.unit for layer in given if layer.unit is not None), "units")
    horizons = {layer.horizon for layer in given}
    horizon = horizons.pop() if len(horizons) == 1 else 0
    return f"position ({unit}){f'; horizon {short(horizon)}' if horizon else ''}"


def points(track: Track, given: Sequence[int]) -> Points:
    """Give the points of a curve at positions. Where it jumps, the value holds until the jump.

    >>> from dist_sched import Phase, Schedule
    >>> schedule = Schedule([Phase("constant", 2, 1.0, 1.0), Phase("constant", 2, 0.5, 0.5)])
    >>> points(of(schedule)[0].tracks[0], range(4))
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


def scale_of(curves: Iterable[Points], *, log: bool) -> Scale:
    """Give the axis for curves: of logarithms where that is asked for and some value is not 0."""
    values = [value for _, ys in curves for value in ys]
    high, low = max(values), min(values)
    if log and high > 0:
        least = min(value for value in values if value > 0)
        least = max(least, high / 10**_DECADES) / 1.5
        return Scale(least, high * 1.5, is_log=True, is_below=low < least)
    if low == high:
        low, high = (0.0, high * 1.25) if high else (0.0, 1.0)
    low = 0.0 if low < 0.4 * high else low
    margin = 0.05 * (high - low)
    return Scale(low - margin, high + margin)


def round_numbers(low: float, high: float, most: int = 5) -> list[float]:
    """Give round numbers from `low` to `high`, about `most` of them.

    >>> round_numbers(0, 105_000)
    [0.0, 25000.0, 50000.0, 75000.0, 100000.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * power for step in _STEPS if step * power * most >= (high - low) * 0.99)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def whole_numbers(end: int, most: int) -> list[float]:
    """Give round positions from 0 to `end`, about `most` of them."""
    return [number for number in round_numbers(0, end, most) if number == int(number)]


def _powers(low: float, high: float) -> list[float]:
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [10.0**power for power in powers]
