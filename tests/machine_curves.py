"""An evaluator of schedules, between the bounds of groups and after late changes, of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest

from dist_sched import ConfigError, Phase, ReconcileError, Schedule
from machine_model import KEYS, Refused

PATTERN, NAME = "head*", "head"


@dataclass(frozen=True)
class Line:
    """A phase: a line from a value to another, and what both are between a group's bounds."""

    steps: int
    start: float
    end: float
    low: float
    high: float
    is_constant: bool = False
    is_cut: bool = False
    """Whether a late change has cut off its end."""
    is_rest: bool = False
    """Whether a late change has cut off its beginning."""

    def at(self, units, *, is_mapped=False):
        start, end = (self.low, self.high) if is_mapped else (self.start, self.end)
        if units >= self.steps:
            return end
        return start + (end - start) * units / self.steps

    def times(self, factor):
        numbers = {name: getattr(self, name) * factor for name in ("start", "end", "low", "high")}
        return replace(self, **numbers)


def line(steps, start, end):
    return Line(steps, start, end, start, end, is_constant=start == end)


@dataclass(frozen=True)
class Curve:
    """Lines joined end to end; with numbers that floats hold exactly, every order of arithmetic
    gives the same bits."""

    lines: tuple[Line, ...]
    is_exact: bool = True

    def _repr_pretty_(self, printer, _):
        printer.text(repr(self))

    def __repr__(self):
        return repr([(one.steps, one.start, one.end) for one in self.lines])

    @property
    def begins(self):
        return [sum(one.steps for one in self.lines[:at]) for at in range(len(self.lines) + 1)]

    @property
    def horizon(self):
        return self.begins[-1]

    @property
    def highest(self):
        return max(value for one in self.lines for value in (one.start, one.end))

    def index(self, position):
        return max(at for at, begin in enumerate(self.begins[:-1]) if begin <= position)

    def at(self, position, *, is_mapped=False):
        index = self.index(position)
        return self.lines[index].at(position - self.begins[index], is_mapped=is_mapped)

    def mapped(self, upper, lower, *, is_rise):
        """Return the curve between a group's bounds, as rule 4 says."""
        first, last, highest = self.lines[0].start, self.lines[-1].end, self.highest
        found, is_before = [], not is_rise

        def between(value, low, high):
            if low == high:
                return upper * (value / high if high else 1.0)
            return lower + (upper - lower) * (value - low) / (high - low)

        def before(value):
            return first + (upper - first) * (value - first) / (highest - first)

        for one in self.lines:
            is_before = is_before and one.start != highest
            ends = [
                between(value, first, last)
                if is_rise
                else (before(value) if is_before else between(value, last, highest))
                for value in (one.start, one.end)
            ]
            found.append(replace(one, low=ends[0], high=ends[1]))
            is_before = is_before and one.end != highest
        return Curve(tuple(found))

    def known(self, value):
        """Return what a first or last value is between the bounds."""
        ends = [(one.start, one.low) for one in self.lines]
        joined = [
            pair for one in self.lines for pair in ((one.start, one.low), (one.end, one.high))
        ]
        return dict(joined or ends).get(value, value)

    def until(self, position):
        """Return the lines before a position, of which the last may be cut or hold the end."""
        if position >= self.horizon:
            last = self.lines[-1]
            hold = Line(position - self.horizon, last.end, last.end, last.high, last.high, True)
            return (*self.lines, *([hold] if hold.steps else []))
        index = self.index(position)
        used = position - self.begins[index]
        one = self.lines[index]
        cut = replace(
            one, steps=used, end=one.at(used), high=one.at(used, is_mapped=True), is_cut=True
        )
        return (*self.lines[:index], *([cut] if used else []))

    def going(self, position, steps, goal, mapped_goal):
        """Return the curve whose rest is one line to a goal."""
        here, mapped = self.at(position), self.at(position, is_mapped=True)
        rest = Line(steps, here, goal, mapped, mapped_goal)
        return replace(self, lines=(*self.until(position), rest))

    def scaled(self, position, factor):
        if position >= self.horizon:
            last = self.lines[-1]
            end = Line(0, last.end, last.end, last.high, last.high, True).times(factor)
            return replace(self, lines=(*self.until(position), end))
        index = self.index(position)
        used, one = position - self.begins[index], self.lines[index]
        rest = one
        if used:
            rest = replace(
                one,
                steps=one.steps - used,
                start=one.at(used),
                low=one.at(used, is_mapped=True),
                is_rest=not one.is_constant,
            )
        after = (rest, *self.lines[index + 1 :])
        return replace(self, lines=(*self.until(position), *(one.times(factor) for one in after)))

    def extended(self, position, horizon, keep):
        more = horizon - self.horizon
        if more <= 0:
            raise Refused(ConfigError)
        index = self._to_extend(position)
        one, used = self.lines[index], position - self.begins[index]
        is_inside = keep and 0 < used < one.steps
        if one.is_constant:
            longer, is_exact = [replace(one, steps=one.steps + more, is_cut=False)], True
        elif is_inside:
            here, mapped = one.at(used), one.at(used, is_mapped=True)
            first = replace(one, steps=used, end=here, high=mapped, is_cut=True)
            rest = replace(one, steps=one.steps - used + more, start=here, low=mapped, is_rest=True)
            longer, is_exact = [first, rest], False
        elif one.is_cut or (keep and used >= one.steps) or not one.steps:
            longer = [one, Line(more, one.end, one.end, one.high, one.high, True)]
            is_exact = True
        else:
            longer, is_exact = [replace(one, steps=one.steps + more)], False
        lines = (*self.lines[:index], *longer, *self.lines[index + 1 :])
        return Curve(lines, self.is_exact and is_exact)

    def _to_extend(self, position):
        begins = self.begins
        running = [at for at in range(len(self.lines)) if begins[at + 1] > position]
        if running and running[0] and begins[running[0]] == position:
            before, one = self.lines[running[0] - 1 : running[0] + 1]
            if before.is_constant and before.end == one.start > one.end:
                return running[0] - 1
        constant = [at for at in running if self.lines[at].is_constant]
        if constant:
            return constant[0]
        last = len(self.lines) - 1
        return max(running, key=lambda at: self.lines[at].steps, default=last)

    def schedule(self):
        return Schedule(
            [
                Phase("constant" if one.is_constant else "linear", one.steps, one.end, one.start)
                for one in self.lines
            ]
        )


@dataclass(frozen=True)
class Spec:
    """What a `ParamScheduler` is declared with, and the late changes since."""

    curves: dict[str, Curve]
    own: dict[str, Curve | float]
    """What groups of the pattern have of their own: a schedule, or a number."""
    history: tuple[Any, ...] = ()

    def __deepcopy__(self, memo):
        return self

    def _repr_pretty_(self, printer, _):
        printer.text(f"Spec({self.curves!r}, {self.own!r})")

    def parts(self):
        return self

    def keys(self):
        return {}

    def fields_of(self, fields):
        return [key for key in fields if key in self.curves]

    def is_legal(self):
        return self.own.keys() <= self.curves.keys()

    def check(self, groups, declared):
        """Raise if no group has the pattern's name, unless that is the script's own pattern."""
        new = self.own.keys() - (set() if declared is None else declared.own.keys())
        if new and not any(one.name == NAME for one in groups):
            raise Refused(ConfigError)

    def reference(self, key, groups):
        part = [one for one in groups if self.takes_part(key, one)]
        own, peak = [one.own[key] for one in part if one.own[key]], self.curves[key].highest
        if len(set(own)) <= 1 or not peak:
            return max(own, default=None)
        if peak not in own:
            raise Refused(ConfigError)
        return peak

    def own_of(self, key, group):
        return self.own.get(key) if group.name == NAME else None

    def takes_part(self, key, group):
        return not group.has_override(key) and self.has_ratio(key, group)

    def has_ratio(self, key, group):
        return not isinstance(self.own_of(key, group), Curve)

    def after(self, history):
        """Return the specification after late changes, or raise what a change raises."""
        made = self.__dict__.setdefault("_made", {})
        if history not in made:
            found = replace(self, history=history)
            _ = found.now
            made[history] = found
        return made[history]

    @cached_property
    def now(self):
        """Return the curves and the groups' own ones after the late changes."""
        curves, own = dict(self.curves), dict(self.own)
        for position, operation, arguments in self.history:
            given = dict(arguments)
            key = given.pop("field")
            if key not in curves:
                raise Refused(ConfigError)
            base, mine = curves[key], own.get(key)
            curves[key] = changed(base, position, operation, given)
            if isinstance(mine, Curve):
                is_longer = operation == "extend" and mine.horizon >= given["horizon"]
                share = mine.highest / base.highest if base.highest else 1.0
                if not is_longer:
                    own[key] = changed(mine, position, operation, given, share)
            if key == "momentum" and curves[key].highest >= 1:
                raise Refused(ConfigError)
        return curves, own

    def base_value(self, key, position):
        return self.now[0][key].at(position)

    def base(self, key, position, group):
        own = self.now[1].get(key) if group.name == NAME else None
        if isinstance(own, Curve):
            return own.at(position)
        return self.base_value(key, position) * (1.0 if own is None else own)

    def value(self, key, position, group, ratio):
        own = self.now[1].get(key) if group.name == NAME else None
        upper, lower, multiplier = KEYS.get(key, ("", "", ""))
        overrides = group.overrides
        if isinstance(own, Curve):
            if overrides.get(multiplier, 1.0) != 1.0:
                raise Refused(ConfigError)
            return own.at(position)
        number = 1.0 if own is None else own
        if overrides.keys() & {upper, lower}:
            value = self.bounded(key, overrides.get(upper), overrides.get(lower)).at(
                position, is_mapped=True
            )
            return max(0.0, value) * (overrides.get(multiplier, 1.0) * number)
        return self.base_value(key, position) * (overrides.get(multiplier, ratio) * number)

    def bounded(self, key, upper, lower):
        """Return the field's curve between bounds, after the late changes."""
        curve, is_rise = self.curves[key], key == "weight_decay"
        first, last, highest = curve.lines[0].start, curve.lines[-1].end, curve.highest
        ends = (last, first) if is_rise else (highest, last)
        upper, lower = (
            end if one is None else one for one, end in zip((upper, lower), ends, strict=True)
        )
        if is_rise and first == last and upper != lower:
            raise Refused(ConfigError)
        found = curve.mapped(upper, lower, is_rise=is_rise)
        peak = max(
            (pair for one in found.lines for pair in ((one.start, one.low), (one.end, one.high))),
            key=lambda pair: pair[0],
        )[1]
        for position, operation, arguments in self.history:
            given = dict(arguments)
            if given.pop("field") == key:
                goal = given.get("end", given.get("peak"))
                share = None if goal is None or not highest else peak * (goal / highest)
                found = changed(found, position, operation, given, goal=share)
        return found

    def decide(self, parts, history, policy):
        """Return the config and the late changes after a load."""
        word = policy["*"]
        theirs = parts if isinstance(parts, Spec) else Spec({}, {})
        if word == "config" or not isinstance(parts, Spec):
            return self, ()
        if not theirs.curves.keys() <= self.curves.keys():
            raise Refused(ReconcileError)
        own = {**self.own, **theirs.own}
        curves = {**self.curves, **theirs.curves}
        if word == "strict" and (own, curves) != (self.own, self.curves):
            raise Refused(ReconcileError)
        found = self if (own, curves) == (self.own, self.curves) else Spec(curves, own)
        try:
            found.after(history)
        except Refused as error:
            raise Refused(ReconcileError) from error
        return found, history

    def check_change(self, change):
        """Raise where a new cooldown would rise, in groups of the pattern too."""
        position, operation, arguments = change
        given = dict(arguments)
        key, end = given["field"], given.get("end")
        if operation != "cooldown" or key not in self.curves:
            return
        if end is not None and end > self.base_value(key, position) * (1 + 1e-6):
            raise Refused(ConfigError)
        mine = self.now[1].get(key)
        if isinstance(mine, Curve):
            after = self.after((*self.history, change)).now[1][key]
            if after.lines[-1].end > mine.at(position) * (1 + 1e-6):
                raise Refused(ConfigError)

    def jumps(self, after, position):
        before, later = self.now, after.now
        pairs = [(before[0][key], later[0][key]) for key in before[0]]
        pairs += [(one, later[1][key]) for key, one in before[1].items() if isinstance(one, Curve)]
        return any(
            other.at(position) != pytest.approx(one.at(position), rel=1e-9, abs=1e-300)
            for one, other in pairs
        )

    def is_exact(self, key, group):
        """Return whether every number on the way is one that a float holds."""
        if key not in self.curves:
            return True
        own = self.now[1].get(key) if group.name == NAME else None
        curve = own if isinstance(own, Curve) else self.now[0][key]
        has_bounds = any(one in group.overrides for one in KEYS.get(key, ("", ""))[:2])
        return curve.is_exact and not (has_bounds and self.history)


def changed(curve, position, operation, given, share=1.0, goal=None):
    """Return a curve after a late change; `share` is for `end` and `peak` of a group's own."""
    if operation == "scale":
        return curve.scaled(position, given["factor"])
    if operation == "extend":
        return curve.extended(position, given["horizon"], given.get("keep"))
    end = given.get("end", given.get("peak"))
    if end is not None:
        value = end * share
        return curve.going(position, given["steps"], value, value if goal is None else goal)
    if operation == "rewarm":
        value = curve.highest
    else:
        last = curve.lines[-1].end
        value = last if last < curve.at(position) else 0.0
    return curve.going(position, given["steps"], value, curve.known(value))
