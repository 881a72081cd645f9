"""The curves of a config and their phases as plain data, for tables and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dist_sched._config.path import Path
from dist_sched._curves.megatron import LrCurve, WdCurve
from dist_sched._curves.proportional import ProportionalCurve
from dist_sched._curves.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dist_sched._config.config import Config
    from dist_sched._config.history import Change
    from dist_sched._curves.curve import Curve
    from dist_sched._rules import Number


_NAMED = 12
"""Maximum number of curves in the line about a late change."""


@dataclass(frozen=True, slots=True)
class Span:
    """A phase in tables and pictures."""

    name: str
    begin: Number
    """Position at which the phase begins, in units."""
    end: Number
    """Position at which the phase ends, in units. A last phase of length 0 is the value after the
    end, to which the curve jumps."""
    first: float
    """Value at the beginning."""
    last: float
    """Value at the end."""


@dataclass(frozen=True, slots=True)
class Track:
    """One curve over the run, with its name and its phases."""

    path: Path
    """Path of the field, extra or override."""
    curve: Curve
    spans: tuple[Span, ...]
    factor: float = 1.0
    """Multiplier of an override, else 1."""
    is_extra: bool = False
    """Whether it is an extra."""

    @property
    def label(self) -> str:
        """The path as text."""
        return str(self.path)

    @property
    def field(self) -> str:
        """The field or the extra, such as `lr`."""
        return self.path.field

    @property
    def horizon(self) -> Number:
        """The position after which the value stays constant, in units."""
        return self.spans[-1].end

    def value(self, position: int) -> float:
        """Return the value at a position, from the function that training uses."""
        return self.curve(position) * self.factor

    def phase(self, position: int) -> str | None:
        """Return the name of the phase at a position, or None after the last phase."""
        return next((span.name for span in self.spans if span.begin <= position < span.end), None)

    def values(self, positions: Iterable[int]) -> list[float]:
        """Return the values at many positions."""
        return [self.value(position) for position in positions]


def tracks(config: Config, *, groups: bool = False) -> tuple[Track, ...]:
    """Return the curves of fields and extras, and with `groups` also of overrides."""
    plan = config.plan
    found = [
        Track(Path(field.key), curve, tuple(_spans(curve)))
        for field, curve in zip(plan.fields, plan.curves, strict=False)
    ]
    found += [
        Track(Path(name), curve, tuple(_spans(curve)), is_extra=True)
        for name, curve in plan.extras.items()
    ]
    base = {track.field: track for track in found}
    for one in plan.overrides if groups else ():
        if one.curve is not None:
            found.append(Track(one.path, one.curve, tuple(_spans(one.curve))))
        else:
            factor = 1.0 if one.multiplier is None else one.multiplier
            followed = base[one.field]
            found.append(Track(one.path, followed.curve, followed.spans, factor))
    return tuple(found)


def late_change(change: Change, before: Config, after: Config) -> str:
    """Return one line about the effect of a late change, for the log and the command line."""
    pairs = zip(tracks(before, groups=True), tracks(after, groups=True), strict=True)
    changed: dict[int, tuple[Track, Track]] = {}
    for old, new in pairs:
        if new.field == change.field and old.spans != new.spans:
            # By curve, because an override that is a multiplier has the field's curve.
            changed.setdefault(id(new.curve), (old, new))
    done = [_done(change, old, new) + _moved_horizon(old, new) for old, new in changed.values()]
    more = [f"and {len(done) - _NAMED} more"] if len(done) > _NAMED else []
    text = "; ".join([*done[:_NAMED], *more]) or "changes nothing"
    return f"{change.operation} at {change.position}: {text}"


def _moved_horizon(old: Track, new: Track) -> str:
    if old.horizon == new.horizon:
        return ""
    return f"; horizon {_number(old.horizon)} → {_number(new.horizon)}"


def _done(change: Change, old: Track, new: Track) -> str:
    """Return a text about the change of one curve."""
    if change.operation == "scale":
        before, after = (f"{one.curve(change.position):.8g}" for one in (old, new))
        return f"{new.label} changes from {before} to {after}, and later values in proportion"
    if change.operation != "extend":
        steps = change.arguments["steps"]
        ends = change.position, math.ceil(change.position + steps)
        first, last = (f"{new.curve(at):.8g}" for at in ends)
        shape = change.arguments.get("shape", "linear")
        return f"{new.label} goes from {first} to {last} over {_number(steps)} units ({shape})"
    index, span = next(
        (index, span)
        for index, span in enumerate(new.spans)
        if index == len(old.spans) or span != old.spans[index]
    )
    name = f"{new.label} phase {index} ({span.name})"
    is_stretched = index < len(old.spans) and len(new.spans) > len(old.spans)
    if is_stretched and span.end == change.position:
        left, longer = old.spans[index].end - span.end, _length(new.spans[index + 1])
        rest = f"{_number(left)} to {_number(longer)} units"
        return f"{name}: its rest stretched from {rest}"
    if len(new.spans) > len(old.spans):
        return f"{name} of {_number(_length(span))} units added"
    return (
        f"{name} lengthened from {_number(_length(old.spans[index]))} to "
        f"{_number(_length(span))} units"
    )


def _length(span: Span) -> Number:
    return span.end - span.begin


def _number(value: Number) -> str:
    return f"{value:.15g}"


def _spans(curve: Any) -> Iterator[Span]:
    if isinstance(curve, Schedule):
        ends = (*curve.boundaries[1:], curve.horizon)
        rows = zip(curve.phases, curve.boundaries, ends, curve.spans(), strict=True)
        for phase, begin, end, values in rows:
            yield Span(phase.shape, begin, end, *values)
    elif isinstance(curve, ProportionalCurve):
        for span in _spans(curve.schedule):
            yield replace(span, first=curve.of(span.first), last=curve.of(span.last))
    elif isinstance(curve, WdCurve):
        end = 0 if curve.style == "constant" else curve.length
        yield Span(curve.style, 0, end, curve(0), curve(end))
    else:
        yield from _lr_spans(curve)


def _lr_spans(curve: LrCurve) -> Iterator[Span]:
    """Yield the parts of Megatron's lr. Values at their ends are the curve's own."""
    tail_begins = curve.horizon - curve.decay
    parts: list[tuple[str, Number]] = [("warmup", curve.warmup)]
    if curve.style == "WSD":
        parts += [("stable", tail_begins), (f"{curve.decay_style} tail", curve.horizon)]
    else:
        parts += [(curve.style, curve.horizon)]
    begin: Number = 0
    last = curve(0)
    for name, end in parts:
        if end > begin:
            # A decay that begins during the warmup makes lr jump at the end of the warmup.
            is_cut = curve.style == "WSD" and end == curve.horizon and begin > tail_begins
            last = curve(end)
            yield Span(name, begin, end, curve(_after(begin) if is_cut else begin), last)
            begin = end
    if (floor := curve(_after(begin))) != last and curve.style != "constant":
        yield Span("floor", begin, begin, floor, floor)


def _after(boundary: Number) -> int:
    """Return the first whole position after a boundary."""
    return math.floor(boundary) + 1


def sampled(end: int, joins: Iterable[Number], most: int = 2000) -> list[int]:
    """Return the positions at which to draw a curve from 0 to `end`, in order.

    If there are few positions, these are all of them. Otherwise they are evenly spread, with the
    whole positions around each join.

    Examples:
        >>> sampled(4, [])
        [0, 1, 2, 3, 4]
        >>> sampled(1000, [100.5], most=7)
        [0, 99, 100, 101, 102, 500, 1000]
    """
    if end < most:
        return list(range(end + 1))
    # Without the positions around a jump, it would be drawn as a slope.
    beside = {
        position
        for join in joins
        for position in range(math.floor(join) - 1, math.ceil(join) + 2)
        if 0 <= position <= end
    }
    pieces = max(most - len(beside), most // 3, 2) - 1
    return sorted({*beside, *(end * index // pieces for index in range(pieces + 1))})


_PLAIN = 1e-2, 1e5
"""Values between these are written without an exponent."""
_POWERS = {"T": 12, "B": 9, "M": 6, "k": 3}


def short(position: Number) -> str:
    """Return a short text of a position, for an axis.

    Examples:
        >>> short(500), short(12_500), short(1_500_000_000)
        ('500', '12.5k', '1.5B')
    """
    for suffix, power in _POWERS.items():
        if position >= 10**power:
            return f"{position / 10**power:.4g}{suffix}" if position < 10**16 else f"{position:.3g}"
    return f"{position:.4g}"


def brief(value: float) -> str:
    """Return a short text of a value, for an axis.

    Examples:
        >>> brief(0.05), brief(3e-4), brief(1.25e-05)
        ('0.05', '3e-4', '1.25e-5')
    """
    if value == 0 or _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return f"{value:.4g}"
    digits, power = f"{value:.3e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
