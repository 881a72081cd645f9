"""References and ratios: whose own value of a field follows the schedule as it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from dist_sched._config.path import Path
from dist_sched._optim import fields as group_fields
from dist_sched._optim.description import own_values
from dist_sched._rules import listed, near_miss, positive, refuse_unknown
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from dist_sched._config.plan import Field, Plan
    from dist_sched._optim.tracking import TrackedGroup

logger = logging.getLogger("dist_sched")

Reference = str | float | Mapping[str, str | float] | None
"""A group's name, for every field; a number, for lr; or either by field."""

Missing = Path | str
"""What no group has: a field, or a pattern's path; or, as a text, the name of a reference."""

_NEAR = 1e-6
"""How far a peak may be from the own value that it is, relative to it: `1e-4 * 3` is not 3e-4."""
_DIGITS = 12
"""To how many significant digits the ratio of a group that was added in mid-run is rounded."""


def by_field(reference: Reference, plan: Plan) -> dict[str, str | float]:
    """Return what `reference=` says for each field.

    Raises:
        ConfigError: It is none of what it may be; names the entry and the rule.
    """
    keys = [field.key for field in plan.fields]
    if reference is None:
        return {}
    if isinstance(reference, str):
        return dict.fromkeys(keys, reference)
    if not isinstance(reference, Mapping):
        reference = {"lr": reference}
    refuse_unknown(reference, keys, "in reference= is not among the scheduled fields")
    return {
        key: one if isinstance(one, str) else positive(f"reference[{key!r}]", one)
        for key, one in reference.items()
    }


def references(
    tracked: Sequence[TrackedGroup], plan: Plan, given: Reference, keys: Iterable[str]
) -> dict[str, float | None]:
    """Return for some fields the own value that ratios are to; None where there is none.

    Args:
        tracked: All groups.
        plan: What was declared.
        given: The argument `reference`.
        keys: The fields.

    Raises:
        ConfigError: No group has the name, groups of the name differ or are 0, or it is not clear
            whose the schedule is.
    """
    chosen = by_field(given, plan)
    found: dict[str, float | None] = {}
    for index, field in enumerate(plan.fields):
        if field.key not in keys:
            continue
        choice = chosen.get(field.key)
        if isinstance(choice, str):
            found[field.key] = _of_name(tracked, field, choice, is_for_all=isinstance(given, str))
        elif choice is not None:
            found[field.key] = choice
        elif plan.follows_first:
            found[field.key] = _first(tracked, field, plan.curves[index].max_value)
        else:
            found[field.key] = _of_peak(tracked, plan, index)
    return found


def missing_names(
    tracked: Sequence[TrackedGroup], plan: Plan, given: Reference
) -> dict[str, list[str]]:
    """Return the names of a reference that no group has, with the fields that each is for.

    Another rank may have them, and brings their values.
    """
    names = {one.name for one in tracked}
    missing: dict[str, list[str]] = {}
    for key, one in by_field(given, plan).items():
        if isinstance(one, str) and one not in names:
            missing.setdefault(one, []).append(key)
    return missing


def _of_name(
    tracked: Sequence[TrackedGroup], field: Field, name: str, *, is_for_all: bool
) -> float | None:
    """Return the own value of the groups of a name."""
    named = [one for one in tracked if one.name == name]
    if not named:
        names = [one.name for one in tracked if isinstance(one.name, str)]
        raise ConfigError(
            f"reference={name!r}: no group has this name{near_miss(name, names)}; "
            f"{named_groups(names)}"
        )
    own = {value for one in named if (value := one.own_value(field.key)) is not None}
    if is_for_all and not (own and any(one.own_value(field.key) for one in tracked)):
        return None
    if len(own) != 1:
        values = listed(map(str, sorted(own))) or "none"
        raise ConfigError(
            f"reference={name!r}: the groups of this name must have one own {field.key} (they have "
            f"{values}): give a number, as in reference={{{field.key!r}: ...}}"
        )
    (value,) = own
    if value == 0:
        raise ConfigError(
            f"reference={name!r}: its own {field.key} is 0, and no ratio is to 0: name another "
            f"group for {field.key}, as in reference={{{field.key!r}: ..., ...}}"
        )
    return value


def named_groups(names: Collection[str]) -> str:
    """Say how the groups are named; ends an error."""
    if not names:
        return 'the groups have no names: add "name" to each, as in {"params": ..., "name": "head"}'
    return f"the groups are named {listed(names)}"


def _first(tracked: Sequence[TrackedGroup], field: Field, peak: float) -> float | None:
    """Return the first own value that is not 0, as NeMo measures; warn where it is not the peak."""
    having = [(one, own) for one in tracked if (own := one.own_value(field.key))]
    if not having:
        return None
    first, reference = having[0]
    others = [one for one, own in having if is_near(own, peak)]
    if others and not is_near(reference, peak):
        logger.warning(
            "%s=%r is the own %s of %s, but ratios are to the first group (%s, %r), so %s gets %g "
            "times as much: pass reference=%r, or another %s",
            field.upper,
            peak,
            field.key,
            others[0],
            first,
            reference,
            others[0],
            peak / reference,
            others[0].name if isinstance(others[0].name, str) else peak,
            field.upper,
        )
    return reference


def _of_peak(tracked: Sequence[TrackedGroup], plan: Plan, index: int) -> float | None:
    """Return the own value that all groups have, or else the one that is the schedule's highest."""
    field, peak = plan.fields[index], plan.curves[index].max_value
    part = [one for one in tracked if takes_part(one, plan, index)]
    own = [value for one in part if (value := one.own_value(field.key))]
    if len(set(own)) <= 1 or peak == 0:
        return max(own, default=None)
    near = [value for value in own if is_near(value, peak)]
    if near:
        return min(near, key=lambda value: abs(value - peak))
    key = field.key
    multiplier = repr(field.multiplier) if field.multiplier else "schedules of their own (groups=)"
    raise ConfigError(
        f"{key}: whose schedule is it? No group's own {key} is its highest value, {peak:g}, and "
        f"they differ:\n{own_values(tracked, key)}\nMake the highest value one of these; or say "
        "which of them follows the schedule as it is, by a group's name or a number, as in "
        f"reference={{{key!r}: {max(own):g}}}; or give groups {multiplier} "
        "(keep_group_ratios=False gives all of them the same)"
    )


def is_near(own: float, peak: float) -> bool:
    """Return whether an own value is a schedule's highest, which may have been computed."""
    return math.isclose(own, peak, rel_tol=_NEAR)


def takes_part(one: TrackedGroup, plan: Plan, index: int) -> bool:
    """Return whether a group has a ratio: neither a schedule, nor bounds, nor a multiplier."""
    if plan.followed(one.name, index).own is not None:
        return False
    return all(one.override(key) is None for key in plan.fields[index].override_keys())


def measured(value: float, found: Any) -> float:
    """Return a ratio as it can be found again from what an optimizer's checkpoint carries.

    Args:
        value: The exact ratio.
        found: What the group holds: a float, or a tensor of few digits.
    """
    eps = torch.finfo(found.dtype).eps if isinstance(found, torch.Tensor) else 0.0
    digits = min(_DIGITS, math.floor(-math.log10(eps))) if eps else _DIGITS
    return float(f"{value:.{digits}g}")


def is_default(one: TrackedGroup, key: str, defaults: Any) -> bool:
    """Return whether a group's own value is what its optimizer gives to every new group."""
    if not isinstance(defaults, dict):
        return False
    default = group_fields.get(defaults, key)
    if isinstance(default, torch.Tensor):
        default = default.item() if default.numel() == 1 and not default.is_meta else None
    own = one.own_value(key)
    return default is not None and own is not None and math.isclose(own, default, rel_tol=1e-7)
