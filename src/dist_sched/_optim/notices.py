"""Notices: log messages about groups that a user should know about."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from dist_sched._curves.lint import Finding
from dist_sched._optim import fields as group_fields
from dist_sched._optim import frameworks, ratios
from dist_sched._optim.rows import highest, row_of
from dist_sched._rules import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dist_sched._config.plan import Plan
    from dist_sched._optim.rows import Member, Written
    from dist_sched._optim.tracking import TrackedGroup, Tracker

logger = logging.getLogger("dist_sched")

_LOOKS = 100
"""Number of positions at which values are checked."""


def name_start(tracker: Tracker, members: Sequence[Sequence[Member]]) -> None:
    """Log keys of new groups that have no effect, or an unexpected one."""
    tracked = tracker.tracked
    name_leftovers(tracked)
    new = [one for one in tracked if id(one.own) not in tracker.known_lr]
    drifted = [one for one in new if one.has_initial_lr and _has_moved(one)]
    if drifted:
        logger.warning(
            "an earlier scheduler has left initial_lr in %s; it is used as the group's own lr (%r, "
            "while the group's lr is %r)",
            _several(drifted),
            drifted[0].own["lr"],
            group_fields.plain(drifted[0].group["lr"]),
        )
    scaled = [one for one in tracked if has_lr_scale(one)]
    if scaled:
        logger.warning(
            "%s has lr_scale=%r, which has no effect; rename it to 'lr_mult'",
            _several(scaled),
            scaled[0].group["lr_scale"],
        )
    for one, follows in zip(tracked, members, strict=True):
        for _, followed, _ in follows:
            keys = (followed.field.upper, followed.field.lower)
            bounds = [key for key in keys if one.override(key) is not None]
            if followed.own is not None and bounds:
                logger.info(
                    "%s: %s has no effect, because the group has the schedule %s",
                    one,
                    listed(bounds),
                    followed.own.path,
                )


def name_zeros(tracked: Sequence[TrackedGroup], plan: Plan) -> None:
    """Warn about a field that is 0 in all of several groups, and whose schedule is not 0."""
    for index in zeros(tracked, plan):
        field = plan.fields[index]
        logger.warning(
            "%s is 0 in every group, so every group gets the schedule (up to %g), including biases "
            "and norms; to keep a group at 0, give it %s",
            field.key,
            plan.curves[index].max_value,
            f"{field.multiplier}=0.0" if field.multiplier else "a schedule in groups=",
        )


def zeros(tracked: Sequence[TrackedGroup], plan: Plan) -> list[int]:
    """Return the indices of fields that are 0 in all of several groups, and get a schedule."""
    found = []
    for index, field in enumerate(plan.fields):
        own = [one.own_value(field.key) for one in tracked if ratios.takes_part(one, plan, index)]
        is_all_0 = len(own) > 1 and all(value == 0 for value in own)
        if is_all_0 and plan.curves[index].max_value > 0:
            found.append(index)
    return found


def name_leftovers(tracked: Sequence[TrackedGroup]) -> None:
    """Warn about bounds that torch's OneCycleLR has left."""
    having = [one for one in tracked if one.leftovers]
    if having:
        named = ", ".join(f"{key}={value!r}" for key, value in having[0].leftovers.items())
        logger.warning(
            "%s has %s from torch's OneCycleLR (it also has initial_lr); they are ignored; remove "
            "the keys, or set them to the bounds that you want",
            _several(having),
            named,
        )


def name_late(
    one: TrackedGroup, members: Sequence[Member], plan: Plan, now: int, next_: int
) -> None:
    """Log the values of a group that was added during the run.

    Args:
        one: The group.
        members: The group's curves.
        plan: The plan.
        now: The present position.
        next_: The position that is written next.
    """
    if one.leftovers:
        name_leftovers([one])
    takes_part = {
        field.key for index, field in enumerate(plan.fields) if ratios.takes_part(one, plan, index)
    }
    by_field = {member.followed.field.key: member for member in members}
    # An lr of 0 may be a mistake. A weight decay of 0 is usually intended.
    stays_at_0 = "lr" in by_field and "lr" in takes_part and by_field["lr"].ratio == 0
    if stays_at_0:
        logger.warning("%s was added with lr=0, so its lr stays at 0", one)
    values = {key: row_of(member).values(next_)[0][1] for key, member in by_field.items()}
    measured = [key for key, ratio in one.ratios.items() if ratio]
    if measured:
        texts = [
            f"{key}={one.own_value(key):g} has the ratio {one.ratios[key]:g} to the schedule, and "
            f"its next {key} is {values[key]:g}"
            for key in measured
        ]
        logger.warning("%s was added at position %d: %s", one, now, "; ".join(texts))
    elif now and not stays_at_0:
        texts = [f"{key} {value:g}" for key, value in values.items()]
        logger.info("%s was added at position %d; its next %s", one, now, ", ".join(texts))


def name_unmeasurable(one: TrackedGroup, field: str, multiplier: str, position: int) -> None:
    """Warn that a late group's ratio cannot be computed from its optimizer's checkpoint."""
    logger.warning(
        "%s was added after the scheduler was built, and %s is 0 at position %d, so its ratio "
        "cannot be computed from the optimizer checkpoint; give the group %r",
        one,
        field,
        position,
        multiplier or "a schedule in groups=",
    )


def name_other_writes(written: list[Written], tracker: Tracker) -> None:
    """Warn, once for each scheduler, that something else writes a scheduled value."""
    (one, key, found, ours), *_ = written
    written.clear()
    if tracker.has_named_writes:
        return
    tracker.has_named_writes = True
    was = "" if isinstance(ours, tuple) else f" instead of the scheduled {ours!r}"
    logger.warning(
        "something else writes %s of %s: its value was %r%s; the scheduled value was written "
        "again; let only one of the two write %s%s",
        key,
        one,
        group_fields.plain(found),
        was,
        key,
        frameworks.advice(tracker.sources),
    )


def has_lr_scale(one: TrackedGroup) -> bool:
    """Return whether a group has timm's and BEiT's factor, and the optimizer does not use it."""
    found = one.group.get("lr_scale")
    return isinstance(found, int | float) and found != 1 and "lr_scale" not in one.not_ours


def _has_moved(one: TrackedGroup) -> bool:
    own = one.own.get("lr")
    return own is not None and not group_fields.holds(one.group.get("lr"), own)


def _several(groups: Sequence[TrackedGroup]) -> str:
    """Return the first group and the number of the others as a text."""
    more = f" (and {len(groups) - 1} more)" if len(groups) > 1 else ""
    return f"{groups[0]}{more}"


def findings(
    tracked: Sequence[TrackedGroup],
    members: Sequence[Sequence[Member]],
    plan: Plan,
    *,
    is_measured: bool,
) -> Iterator[Finding]:
    """Yield warnings about valid groups that are probably mistakes.

    Args:
        tracked: The groups.
        members: The groups' curves.
        plan: The declared plan.
        is_measured: Whether the reference is a group's own value that the script does not name.
    """
    for one in tracked:
        if has_lr_scale(one):
            message = f"{one}: lr_scale has no effect; rename it to 'lr_mult'"
            yield Finding(None, message, "lr-scale")
    for index in zeros(tracked, plan) if is_measured else ():
        key, peak = plan.fields[index].key, plan.curves[index].max_value
        message = f"{key} is 0 in every group, so every group gets the schedule, up to {peak:g}"
        yield Finding(None, message, "decay-of-zeros")
    if is_measured:
        yield from _peaks_of_no_group(tracked, plan)
    for follows in members:
        for member in follows:
            number = member.followed.number
            if number > 1 and highest(member) > member.followed.curve.max_value:
                message = (
                    f"{member.one}: groups[{member.followed.pattern}] multiplies "
                    f"{member.followed.field.key} by {number:g}, up to {highest(member):g}, which "
                    f"is above the schedule's highest value {member.followed.curve.max_value:g}"
                )
                yield Finding(None, message, "factor-above-one")
            yield from _underflow(member)


def _peaks_of_no_group(tracked: Sequence[TrackedGroup], plan: Plan) -> Iterator[Finding]:
    for index, field in enumerate(plan.fields):
        peak = plan.curves[index].max_value
        part = (one.own_value(field.key) for one in tracked if ratios.takes_part(one, plan, index))
        own = sorted({value for value in part if value})
        if field.key == "lr" and own and not any(ratios.is_near(value, peak) for value in own):
            values = ", ".join(f"{value:g}" for value in own[:4])
            message = f"lr's highest value {peak:g} is not the own lr of any group ({values})"
            yield Finding(None, message, "peak-of-no-group")


def _underflow(member: Member) -> Iterator[Finding]:
    """Yield a warning if the group's tensor would round a value above 0 to 0."""
    found = group_fields.get(member.one.group, member.followed.field.key)
    if not isinstance(found, torch.Tensor):
        return
    row, end = row_of(member), int(member.followed.curve.horizon)
    for position in sorted({end * part // _LOOKS for part in range(_LOOKS + 1)}):
        value = row.values(position)[0][1]
        if value > 0 and torch.tensor(value, dtype=found.dtype).item() == 0:
            message = (
                f"{member.one}: {member.followed.field.key} {value:g} becomes 0 in a tensor of "
                f"{found.dtype}"
            )
            yield Finding(position, message, "underflow")
            return
