"""Views: what people are shown of a config, as plain data: its curves, and their phases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dist_sched._curves.megatron import LrCurve, WdCurve
from dist_sched._curves.phases import Schedule
from dist_sched._curves.proportional import ProportionalCurve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dist_sched._config.entries import Config
    from dist_sched._config.plan import Override
    from dist_sched._curves.curve import Curve
    from dist_sched._rules import Number


@dataclass(frozen=True, slots=True)
class Span:
    """A phase as people see it."""

    name: str
    begin: Number
    """Its first position, in units."""
    end: Number
    """The position at which it ends, in units. One that ends where it begins, after others, is what
    holds past that position, to which the curve jumps."""
    first: float
    """The value at its beginning."""
    last: float
    """The value that it has reached at its end."""


@dataclass(frozen=True, slots=True)
class Track:
    """One curve over the run, with its name and its phases."""

    label: str
    """A field, or `groups[...].` and a field."""
    field: str
    curve: Curve
    spans: tuple[Span, ...]
    factor: float = 1.0
    """What multiplies the curve, where a named group has a multiplier."""

    @property
    def horizon(self) -> Number:
        """The position past which the value stays the last span's, in units."""
        return self.spans[-1].end

    def value(self, position: int) -> float:
        """Give the value at a position: by the very function that trains."""
        return self.curve(position) * self.factor

    def phase(self, position: int) -> str | None:
        """Name the phase that a position is in; None past the last one, where nothing changes."""
        return next((span.name for span in self.spans if span.begin <= position < span.end), None)

    def values(self, positions: Iterable[int]) -> list[float]:
        """Give the values at many positions, each that which `value` gives."""
        return [self.curve(position) * self.factor for position in positions]


def tracks(config: Config, *, groups: bool = False) -> tuple[Track, ...]:
    """Give the curve of each field, and with `groups` those of named groups."""
    plan = config.plan()
    found = [
        Track(field.key, field.key, curve, tuple(_spans(curve)))
        for field, curve in zip(plan.fields, plan.curves, strict=False)
    ]
    base = {track.field: track for track in found}
    return (*found, *(_override_track(own, base[own.field]) for own in plan.own if groups))


def _override_track(own: Override, base: Track) -> Track:
    if own.curve is None:
        factor = 1.0 if own.multiplier is None else own.multiplier
        return Track(own.label, own.field, base.curve, base.spans, factor)
    return Track(own.label, own.field, own.curve, tuple(_spans(own.curve)))


def _spans(curve: Any) -> Iterator[Span]:
    if isinstance(curve, Schedule):
        yield from _schedule_spans(curve)
    elif isinstance(curve, ProportionalCurve):
        for span in _schedule_spans(curve.schedule):
            yield Span(span.name, span.begin, span.end, *_scaled(curve, span))
    else:
        yield from _seeds_spans(curve)


def _schedule_spans(schedule: Schedule) -> Iterator[Span]:
    ends = (*schedule.boundaries[1:], schedule.horizon)
    rows = zip(schedule.phases, schedule.boundaries, ends, schedule.spans(), strict=True)
    for phase, begin, end, (first, last) in rows:
        yield Span(phase.shape, begin, end, first, last)


def _scaled(curve: ProportionalCurve, span: Span) -> tuple[float, float]:
    scale = curve.max_value / curve.schedule.max_value
    return span.first * scale, span.last * scale


def _seeds_spans(curve: LrCurve | WdCurve) -> Iterator[Span]:
    """Give the parts of a seeds' curve; values at their ends are those that the curve gives."""
    if isinstance(curve, WdCurve):
        end = 0 if curve.style == "constant" else curve.length
        yield Span(curve.style, 0, end, _at(curve, 0), _at(curve, end))
        return
    begin: Number = 0
    last = _at(curve, 0)
    for name, end in [("warmup", curve.warmup), *_decay_joins(curve)]:
        if end > begin:
            is_late = name.endswith(_TAIL) and begin > curve.horizon - curve.decay
            first = _at(curve, _after(begin) if is_late else begin)
            last = _at(curve, end)
            yield Span(name, begin, end, first, last)
            begin = end
    if (floor := _at(curve, _after(begin))) != last and curve.style != "constant":
        yield Span("floor", begin, begin, floor, floor)


_TAIL = " tail"


def _decay_joins(curve: LrCurve) -> list[tuple[str, Number]]:
    if curve.style != "WSD":
        return [(curve.style, curve.horizon)]
    tail = f"{curve.decay_style}{_TAIL}"
    return [("stable", curve.horizon - curve.decay), (tail, curve.horizon)]


def _at(curve: LrCurve | WdCurve, position: Number) -> float:
    """Give the value at a position that need not be whole, as the seeds' joins need not be."""
    return curve(position)


def _after(join: Number) -> int:
    """Give the first whole position past a join."""
    return math.floor(join) + 1


def sampled(end: int, joins: Iterable[Number], most: int = 2000) -> list[int]:
    """Give the positions at which to draw a curve from 0 to `end`, in order.

    All there are, if those are few; else evenly spread ones, and at each join the whole positions
    beside it, from the one before to the one after.

    >>> sampled(4, [])
    [0, 1, 2, 3, 4]
    >>> sampled(1000, [100.5], most=7)
    [0, 99, 100, 101, 102, 500, 1000]
    """
    if end < most:
        return list(range(end + 1))
    beside = {
        position
        for join in joins
        for position in range(math.floor(join) - 1, math.ceil(join) + 2)
        if 0 <= position <= end
    }
    pieces = max(most - len(beside), most // 3, 2) - 1
    return sorted({*beside, *(end * index // pieces for index in range(pieces + 1))})


_PLAIN = 1e-2, 1e5
"""Values from the one to the other are written without an exponent."""
_POWERS = {"T": 12, "B": 9, "M": 6, "k": 3}


def short(position: Number) -> str:
    """Write a position for an axis.

    >>> short(500), short(12_500), short(1_500_000_000)
    ('500', '12.5k', '1.5B')
    """
    for suffix, power in _POWERS.items():
        if position >= 10**power:
            return f"{position / 10**power:.4g}{suffix}" if position < 10**16 else f"{position:.3g}"
    return f"{position:.4g}"


def brief(value: float) -> str:
    """Write a value for an axis.

    >>> brief(0.05), brief(3e-4), brief(1.25e-05)
    ('0.05', '3e-4', '1.25e-5')
    """
    if value == 0 or _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return f"{value:.4g}"
    digits, power = f"{value:.3e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
