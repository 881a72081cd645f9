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
"""What may stand beside any schedule, and changes it."""
LENGTHENS = frozenset({"repeat", *CUTS})
"""Those that change the horizon."""
_FOLLOWS = ("to", "peak", "power")
_FROM_END = frozenset({"decay"})
"""Lengths that end at the horizon."""
_FROM_BEGINNING = frozenset(
    {"horizon", "warmup", "steps", "points", "milestones", "decay_ends", *CUTS}
)
"""Lengths from the beginning, and positions."""
_IN_UPDATES = _FROM_BEGINNING | _FROM_END
"""Lengths that may be in updates, since it is known where they begin or end."""


def read(data: Any, scope: Scope) -> Any:
    """Read a schedule: by name, by phases, by points, as a product, in proportion, or a number.

    Args:
        data: As a file has it.
        scope: What its lengths are parts of.

    Raises:
        ConfigError: A name is unknown or missing, or a value is illegal.
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
        raise illegal(
            "schedule", data, "must have schedule, phases (a list), points, product, or peak and to"
        )
    found = _changed(found, changes, scope)
    scope.budget.spend(READ_COST + len(found.phases))
    return found


def horizon(data: Mapping[str, Any], outer: Scope, name: str = "horizon") -> Number | None:
    """Return the horizon of a mapping, or else the one around it."""
    given = data.get(name)
    return outer.horizon if given is None else some(name, outer.length(name, given))


def _follower(data: Mapping[str, Any]) -> ProportionalTo:
    refuse_unknown(data, _FOLLOWS)
    if "peak" not in data:
        raise ConfigError("peak is missing")
    return ProportionalTo.from_dict(
        {**data, **{name: number(data[name]) for name in ("peak", "power") if name in data}}
    )


def _joined(phases: Any, scope: Scope) -> Schedule:
    """Read a list of phases; a schedule among them stands for its phases."""
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
                raise illegal("schedule", one, "must be a phase, or a schedule of its own")
        found.append(part)
        begin += part.duration if isinstance(part, Phase) else part.horizon
    return Schedule(found)


def _plain_phase(data: Any, scope: Scope, where: str = "") -> Any:
    """Read the numbers and lengths of a phase; `where` is how errors begin."""
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
    """Read a point: a position, which is a length, and a value."""
    match point:
        case [position, value]:
            return [scope.length(name, position), number(value)]
        case _:
            raise illegal(name, point, "must be a pair: a position and the value there")


def _plain(name: str, value: Any, scope: Scope, where: str = "", *, is_length: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(name, one, scope, where, is_length=is_length) for one in value]
    if not is_length:
        return number(value)
    if isinstance(value, Mapping) and name in _FROM_END:
        if scope.horizon is None:
            raise illegal(name, dict(value), "ends at the horizon, which is missing")
        return scope.length(name, value, ends=some("horizon", scope.horizon))
    if isinstance(value, Mapping) and name not in _IN_UPDATES:
        rule = f"cannot be in updates ({listed(sorted(_IN_UPDATES))} can): write units, or phases"
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
    """Return what follows an extra as a schedule by itself, since a product knows no other."""
    followed = scope.schedules.get(one.field)
    if not isinstance(followed, Schedule):
        rule = "must be an extra that has a schedule of its own"
        raise illegal("to", one.field, rule)
    if followed.max_value == 0:
        raise illegal("to", one.field, "is 0 throughout, so nothing can be in proportion to it")
    one.following(followed)  # raises where the power is illegal
    # The quotient first, as a power of the value itself may leave the range of floats.
    share = product(1 / followed.max_value, followed)
    return product(one.at_max, raised_to(share, one.power))


def _changed(schedule: Schedule, changes: Mapping[str, Any], scope: Scope) -> Schedule:
    """Return a schedule as what stands beside it changes it: repeated, then cut, then rounded."""
    if "factors" in changes and "repeat" not in changes:
        raise ConfigError("factors are for the cycles of repeat, which is missing: add repeat")
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
