"""Schedules as people write them in mappings and files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dist_sched._config.amounts import PRODUCT_COST, READ_COST, Scope, number
from dist_sched._curves import named
from dist_sched._curves.operations import product, raised_to, repeat, whole_multiples
from dist_sched._curves.phases import Phase
from dist_sched._curves.proportional import ProportionalTo
from dist_sched._curves.schedule import Schedule
from dist_sched._rules import Number, illegal, listed, rate, refuse_unknown, some, within
from dist_sched.errors import ConfigError

PHASE_LENGTHS = frozenset({"steps", "since", "until", "timescale", "milestones"})
"""The keys of a phase that are lengths."""
CUTS = "since", "until"
_CHANGES = ("repeat", "factors", *CUTS, "multiple_of")
"""The keys that change a schedule."""
LENGTHENS = frozenset({"repeat", *CUTS})
"""The keys that change the horizon of a schedule."""
_FOLLOWS = ("to", "peak", "power")
_FROM_END = frozenset({"decay"})
"""Lengths that end at the horizon."""
_FROM_BEGINNING = frozenset(
    {"horizon", "warmup", "steps", "points", "milestones", "decay_ends", *CUTS}
)
"""Positions, and lengths from the beginning of a schedule."""
_IN_UPDATES = _FROM_BEGINNING | _FROM_END
"""Lengths that may be in updates, because their beginning or end is known."""


def read(data: Any, scope: Scope) -> Any:
    """Read a schedule: a number, or a mapping with a name, phases, points, a product, or `to`.

    Args:
        data: The value in the file.
        scope: The horizon and the units per update for its lengths.

    Raises:
        ConfigError: A key is unknown or missing, or a value is invalid.
    """
    if not isinstance(data, Mapping):
        return number(data)
    if "to" in data:
        return _follower(data)
    refuse_unknown([name for name in data if not isinstance(name, str)], ())
    changes = {name: data[name] for name in _CHANGES if data.get(name) is not None}
    scope = scope.within(horizon(data, scope))
    rest = {name: one for name, one in data.items() if name not in (*_CHANGES, "horizon")}
    if "product" in data:
        refuse_unknown(rest, ("product", "horizon", *_CHANGES))
        found = _product(data["product"], scope)
    elif "phases" in data:
        refuse_unknown(rest, ("phases", "horizon", *_CHANGES))
        found = _joined(data["phases"], scope)
    elif "schedule" in data or "points" in data:
        found = _named({"schedule": "piecewise", **rest}, scope)
    else:
        known = ("schedule", "phases", "points", "product", *_FOLLOWS, "horizon", *_CHANGES)
        refuse_unknown(rest, known)
        rule = "must have one of schedule, phases (a list), points, product, or both peak and to"
        raise illegal("schedule", data, rule)
    found = _changed(found, changes, scope)
    scope.budget.spend(READ_COST + len(found.phases))
    return found


def horizon(data: Mapping[str, Any], outer: Scope, name: str = "horizon") -> Number | None:
    """Return the horizon of a mapping, or the horizon around it."""
    given = data.get(name)
    return outer.horizon if given is None else some(name, outer.length(name, given))


def _follower(data: Mapping[str, Any]) -> ProportionalTo:
    refuse_unknown(data, _FOLLOWS)
    if "peak" not in data:
        raise ConfigError("peak is missing; write the highest value beside to")
    return ProportionalTo.from_dict(
        {**data, **{name: number(data[name]) for name in ("peak", "power") if name in data}}
    )


def _joined(phases: Any, scope: Scope) -> Schedule:
    """Read a list of phases. A schedule in the list stands for its phases."""
    if not isinstance(phases, list | tuple):
        raise illegal("phases", phases, "must be a list of phases")
    found: list[Phase | Schedule] = []
    begin: Number = 0
    for index, one in enumerate(phases):
        at = scope.at(scope.begin + begin)
        where = f"phases[{index}]"
        is_phase = not isinstance(one, Mapping) or ("shape" in one and "points" not in one)
        plain = _plain_phase(one, at, f"{where}.") if is_phase else one
        with within(where):
            part: Any = Phase.from_dict(plain) if is_phase else read(one, at)
            if not isinstance(part, Phase | Schedule):
                raise illegal("schedule", one, "must be a phase or a schedule")
        found.append(part)
        begin += part.duration if isinstance(part, Phase) else part.horizon
    return Schedule(found)


def _plain_phase(data: Any, scope: Scope, where: str = "") -> Any:
    """Read the numbers and lengths of a phase. Errors begin with `where`."""
    if not isinstance(data, Mapping):
        return data
    return {
        name: _plain(name, one, scope, where, is_length=name in PHASE_LENGTHS)
        for name, one in data.items()
        if one is not None
    }


def _named(data: Mapping[str, Any], scope: Scope) -> Schedule:
    given: dict[str, Any] = {} if scope.horizon is None else {"horizon": scope.horizon}
    for name, one in data.items():
        if one is not None and name != "schedule":
            given[name] = _argument(name, one, scope)
    build = inspect.unwrap(named.build)
    schedule: Schedule = build(data["schedule"], **given)
    return schedule


def _argument(name: str, value: Any, scope: Scope) -> Any:
    """Read an argument of a named schedule."""
    if name == "points":
        if not isinstance(value, list | tuple):
            raise illegal(name, value, "must be a list of pairs of position and value")
        return [_point(f"points[{index}]", one, scope) for index, one in enumerate(value)]
    if name == "warmup_shape" and isinstance(value, Mapping):
        return _plain_phase(value, scope)
    return _plain(name, value, scope, is_length=name in named.LENGTHS)


def _point(name: str, point: Any, scope: Scope) -> Any:
    """Read a point: a position and a value."""
    match point:
        case [position, value]:
            return [scope.length(name, position), number(value)]
        case _:
            raise illegal(name, point, "must be a pair of position and value")


def _plain(name: str, value: Any, scope: Scope, where: str = "", *, is_length: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(name, one, scope, where, is_length=is_length) for one in value]
    if not is_length:
        return number(value)
    if isinstance(value, Mapping) and name in _FROM_END:
        if scope.horizon is None:
            raise illegal(name, dict(value), "ends at the horizon, which is missing; add horizon")
        return scope.length(name, value, ends=some("horizon", scope.horizon))
    if isinstance(value, Mapping) and name not in _IN_UPDATES:
        rule = f"cannot be in updates (only {listed(sorted(_IN_UPDATES))} can); write units"
        raise illegal(f"{where}{name}", dict(value), rule)
    return scope.length(f"{where}{name}", value)


def _product(factors: Any, scope: Scope) -> Schedule:
    if not isinstance(factors, list | tuple):
        raise illegal("product", factors, "must be a list of schedules and numbers")
    found = []
    for index, one in enumerate(factors):
        with within(f"product[{index}]"):
            factor = read(one, scope)
            found.append(_followed(factor, scope) if isinstance(factor, ProportionalTo) else factor)
    with within("product"):
        made = product(*found)
    scope.budget.spend(PRODUCT_COST * len(found) * len(made.phases))
    return made


def _followed(one: ProportionalTo, scope: Scope) -> Schedule:
    """Return a schedule with the values of one that follows an extra, for use in a product."""
    followed = scope.schedules.get(one.field)
    if not isinstance(followed, Schedule):
        rule = "must be an extra with a schedule that does not follow another"
        raise illegal("to", one.field, rule)
    if followed.max_value == 0:
        raise illegal("to", one.field, "is always 0, so nothing can be in proportion to it")
    one.following(followed)  # raises if the power is invalid
    # The quotient first, because a power of the value itself may leave the range of floats.
    share = product(1 / followed.max_value, followed)
    return product(one.at_max, raised_to(share, one.power))


def _changed(schedule: Schedule, changes: Mapping[str, Any], scope: Scope) -> Schedule:
    """Return a schedule that is first repeated, then cut, then rounded."""
    if "factors" in changes and "repeat" not in changes:
        raise ConfigError("factors needs repeat, whose cycles it multiplies; add repeat")
    if "repeat" in changes:
        factors = changes.get("factors")
        with within("repeat"):
            if isinstance(factors, list | tuple):
                factors = [number(one) for one in factors]
            elif factors is not None:
                factors = rate("factors", number(factors))
            schedule = repeat(schedule, number(changes["repeat"]), factors)
    cuts = {name: scope.length(name, changes[name]) for name in CUTS if name in changes}
    if cuts:
        schedule = schedule.cut(**cuts)
    if "multiple_of" in changes:
        schedule = whole_multiples(schedule, number(changes["multiple_of"]))
    return schedule
