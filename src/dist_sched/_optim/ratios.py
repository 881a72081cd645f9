"""References and ratios of groups."""

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
"""A group's name for all fields, a number for lr, or a mapping from fields to either."""

Missing = Path | str
"""Something that no group has: a field's or a pattern's path, or the name of a reference."""

_NEAR = 1e-6
"""Relative difference that a peak may have from an own value: `1e-4 * 3` is not 3e-4."""
_DIGITS = 12
"""Number of significant digits of the ratio of a group that was added during the run."""


def by_field(reference: Reference, plan: Plan) -> dict[str, str | float]:
    """Return the value of `reference=` for each field.

    Raises:
        ConfigError: The argument is invalid. The message has the entry and the rule.
    """
    keys = [field.key for field in plan.fields]
    if reference is None:
        return {}
    if isinstance(reference, str):
        return dict.fromkeys(keys, reference)
    if not isinstance(reference, Mapping):
        reference = {"lr": reference}
    refuse_unknown(reference, keys, "in reference= is not a scheduled field")
    return {
        key: one if isinstance(one, str) else positive(f"reference[{key!r}]", one)
        for key, one in reference.items()
    }


def references(
    tracked: Sequence[TrackedGroup], plan: Plan, given: Reference, keys: Iterable[str]
) -> dict[str, float | None]:
    """Return the reference of some fields, an own value, or None if there is none.

    Args:
        tracked: All groups.
        plan: The declared plan.
        given: The argument `reference`.
        keys: The fields.

    Raises:
        ConfigError: No group has the name, groups of the name differ or are 0, or no group's own
            value is the schedule's highest.
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
    """Return the names in a reference that no group has, with their fields.

    Another rank may have groups of these names.
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
            f"reference={name!r}: the groups of this name have different values of {field.key} "
            f"({values}); pass a number instead, as in reference={{{field.key!r}: ...}}"
        )
    (value,) = own
    if value == 0:
        raise ConfigError(
            f"reference={name!r}: its own {field.key} is 0, which cannot be a reference; choose "
            f"another group for {field.key}, as in reference={{{field.key!r}: ..., ...}}"
        )
    return value


def named_groups(names: Collection[str]) -> str:
    """Return a text with the names of the groups, for the end of an error."""
    if not names:
        return 'the groups have no names; add them, as in {"params": ..., "name": "head"}'
    return f"the groups are named {listed(names)}"


def _first(tracked: Sequence[TrackedGroup], field: Field, peak: float) -> float | None:
    """Return the first own value that is not 0, as in NeMo. Warn if it is not the peak."""
    having = [(one, own) for one in tracked if (own := one.own_value(field.key))]
    if not having:
        return None
    first, reference = having[0]
    others = [one for one, own in having if is_near(own, peak)]
    if others and not is_near(reference, peak):
        logger.warning(
            "%s=%r is the own %s of %s, but the reference is the first group (%s, %r), so %s gets "
            "%g times its own value; pass reference=%r, or another %s",
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
    """Return the own value of all groups, or else the one that is the schedule's highest value."""
    field, peak = plan.fields[index], plan.curves[index].max_value
    part = [one for one in tracked if takes_part(one, plan, index)]
    own = [value for one in part if (value := one.own_value(field.key))]
    if len(set(own)) <= 1 or peak == 0:
        return max(own, default=None)
    near = [value for value in own if is_near(value, peak)]
    if near:
        return min(near, key=lambda value: abs(value - peak))
    key = field.key
    multiplier = repr(field.multiplier) if field.multiplier else "schedules in groups="
    raise ConfigError(
        f"{key}: the groups have different values, and none is the schedule's highest value, "
        f"{peak:g}, so their ratios are not clear:\n{own_values(tracked, key)}\nMake one of these "
        "the highest value; or pass the group or the value that follows the schedule, as in "
        f"reference={{{key!r}: {max(own):g}}}; or give groups {multiplier} "
        "(with keep_group_ratios=False all groups get the same values)"
    )


def is_near(own: float, peak: float) -> bool:
    """Return whether an own value is a schedule's highest value, up to rounding."""
    return math.isclose(own, peak, rel_tol=_NEAR)


def takes_part(one: TrackedGroup, plan: Plan, index: int) -> bool:
    """Return whether a group has a ratio: it has no schedule, no bounds and no multiplier."""
    if plan.followed(one.name, index).own is not None:
        return False
    return all(one.override(key) is None for key in plan.fields[index].override_keys())


def measured(value: float, found: Any) -> float:
    """Return a rounded ratio, which can be computed again from an optimizer's checkpoint.

    Args:
        value: The exact ratio.
        found: The value in the group: a float, or a tensor with fewer digits.
    """
    eps = torch.finfo(found.dtype).eps if isinstance(found, torch.Tensor) else 0.0
    digits = min(_DIGITS, math.floor(-math.log10(eps))) if eps else _DIGITS
    return float(f"{value:.{digits}g}")


def is_default(one: TrackedGroup, key: str, defaults: Any) -> bool:
    """Return whether a group's own value is its optimizer's default."""
    if not isinstance(defaults, dict):
        return False
    default = group_fields.get(defaults, key)
    if isinstance(default, torch.Tensor):
        default = default.item() if default.numel() == 1 and not default.is_meta else None
    own = one.own_value(key)
    return default is not None and own is not None and math.isclose(own, default, rel_tol=1e-7)
