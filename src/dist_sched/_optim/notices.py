"""Notices: what a person should hear of groups, logged when it is found."""

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
"""At how many parts of the horizon values are looked at."""


def name_start(tracker: Tracker, members: Sequence[Sequence[Member]]) -> None:
    """Log what new groups have that has no effect, or another one than it looks like."""
    tracked = tracker.tracked
    name_leftovers(tracked)
    new = [one for one in tracked if id(one.own) not in tracker.known_lr]
    drifted = [one for one in new if one.has_initial_lr and _has_moved(one)]
    if drifted:
        logger.warning(
            "an earlier scheduler has left initial_lr in %s: it is taken for the group's own lr "
            "(%r, where the group held %r)",
            _several(drifted),
            drifted[0].own["lr"],
            group_fields.plain(drifted[0].group["lr"]),
        )
    scaled = [one for one in tracked if has_lr_scale(one)]
    if scaled:
        logger.warning(
            "%s has lr_scale=%r, which has no effect here: call it 'lr_mult'",
            _several(scaled),
            scaled[0].group["lr_scale"],
        )
    for one, follows in zip(tracked, members, strict=True):
        for _, followed, _ in follows:
            keys = (followed.field.upper, followed.field.lower)
            bounds = [key for key in keys if one.override(key) is not None]
            if followed.own is not None and bounds:
                logger.info(
                    "%s: %s has no effect beside %s, which is a schedule of its own",
                    one,
                    listed(bounds),
                    followed.own.path,
                )


def name_zeros(tracked: Sequence[TrackedGroup], plan: Plan) -> None:
    """Warn where all of several groups are 0 for a field whose schedule is not."""
    for index in zeros(tracked, plan):
        field = plan.fields[index]
        logger.warning(
            "%s is 0 in every group, and the schedule's highest is %g: all of them get it, biases "
            "and norms too; give those that shall stay at 0 %s",
            field.key,
            plan.curves[index].max_value,
            f"{field.multiplier}=0.0" if field.multiplier else "a schedule of their own",
        )


def zeros(tracked: Sequence[TrackedGroup], plan: Plan) -> list[int]:
    """Return the indices of the fields that are 0 in several groups which now get a schedule."""
    found = []
    for index, field in enumerate(plan.fields):
        own = [one.own_value(field.key) for one in tracked if ratios.takes_part(one, plan, index)]
        is_all_0 = len(own) > 1 and all(value == 0 for value in own)
        if is_all_0 and plan.curves[index].max_value > 0:
            found.append(index)
    return found


def name_leftovers(tracked: Sequence[TrackedGroup]) -> None:
    """Warn of bounds that torch's OneCycleLR has left."""
    having = [one for one in tracked if one.leftovers]
    if having:
        named = ", ".join(f"{key}={value!r}" for key, value in having[0].leftovers.items())
        logger.warning(
            "%s has %s of torch's OneCycleLR, beside its initial_lr: they are passed over, and no "
            "bounds; remove the keys, or write bounds of your own into them",
            _several(having),
            named,
        )


def name_late(
    one: TrackedGroup, members: Sequence[Member], plan: Plan, now: int, next_: int
) -> None:
    """Log what a group gets that was added in mid-run.

    Args:
        one: The group.
        members: What it follows.
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
    # Perhaps it was read in a warmup's first step; weight decay of 0 is meant.
    stays_at_0 = "lr" in by_field and "lr" in takes_part and by_field["lr"].ratio == 0
    if stays_at_0:
        logger.warning("%s was added with lr=0, and stays at 0", one)
    values = {key: row_of(member).values(next_)[0][1] for key, member in by_field.items()}
    measured = [key for key, ratio in one.ratios.items() if ratio]
    if measured:
        texts = [
            f"{key}={one.own_value(key):g} has the ratio {one.ratios[key]:g} to the schedule, so "
            f"that its next {key} is {values[key]:g}"
            for key in measured
        ]
        logger.warning("%s was added at position %d: %s", one, now, "; ".join(texts))
    elif now and not stays_at_0:
        texts = [f"{key} {value:g}" for key, value in values.items()]
        logger.info("%s was added at position %d; it has next %s", one, now, ", ".join(texts))


def name_unmeasurable(one: TrackedGroup, field: str, multiplier: str, position: int) -> None:
    """Warn that what a load carried does not say a late group's ratio."""
    logger.warning(
        "%s was added after the scheduler was built, and %s is 0 at position %d: its ratio cannot "
        "be read from the optimizer checkpoint; give the group %r",
        one,
        field,
        position,
        multiplier or "a schedule of its own (groups=)",
    )


def name_other_writes(written: list[Written], tracker: Tracker) -> None:
    """Log once in a scheduler's life that something else writes what it writes."""
    (one, key, found, ours), *_ = written
    written.clear()
    if tracker.has_named_writes:
        return
    tracker.has_named_writes = True
    was = "" if isinstance(ours, tuple) else f" instead of {ours!r}, which was written last"
    logger.warning(
        "something else writes %s of %s: it held %r%s; it has the schedule's value again: leave %s "
        "to one of the two%s",
        key,
        one,
        group_fields.plain(found),
        was,
        key,
        frameworks.advice(tracker.sources),
    )


def has_lr_scale(one: TrackedGroup) -> bool:
    """Return whether a group has timm's and BEiT's factor, and not the optimizer itself."""
    found = one.group.get("lr_scale")
    return isinstance(found, int | float) and found != 1 and "lr_scale" not in one.not_ours


def _has_moved(one: TrackedGroup) -> bool:
    own = one.own.get("lr")
    return own is not None and not group_fields.holds(one.group.get("lr"), own)


def _several(groups: Sequence[TrackedGroup]) -> str:
    """Name the first of some groups, and count the others."""
    more = f" (and {len(groups) - 1} more)" if len(groups) > 1 else ""
    return f"{groups[0]}{more}"


def findings(
    tracked: Sequence[TrackedGroup],
    members: Sequence[Sequence[Member]],
    plan: Plan,
    *,
    is_measured: bool,
) -> Iterator[Finding]:
    """Yield what is legal of groups and probably a mistake.

    Args:
        tracked: The groups.
        members: What they follow.
        plan: What was declared.
        is_measured: Whether ratios are to a group's own value, which nobody has named.
    """
    for one in tracked:
        if has_lr_scale(one):
            message = f"{one}: lr_scale has no effect here: call it 'lr_mult'"
            yield Finding(None, message, "lr-scale")
    for index in zeros(tracked, plan) if is_measured else ():
        key, peak = plan.fields[index].key, plan.curves[index].max_value
        message = f"{key} is 0 in every group, and all of them get the schedule, up to {peak:g}"
        yield Finding(None, message, "decay-of-zeros")
    if is_measured:
        yield from _peaks_of_no_group(tracked, plan)
    for follows in members:
        for member in follows:
            number = member.followed.number
            if number > 1 and highest(member) > member.followed.curve.max_value:
                message = (
                    f"{member.one}: groups[{member.followed.pattern}] multiplies "
                    f"{member.followed.field.key} by {number:g}, to {highest(member):g} at its "
                    f"highest, above the schedule's {member.followed.curve.max_value:g}"
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
            message = f"lr's highest value {peak:g} is no group's own lr ({values})"
            yield Finding(None, message, "peak-of-no-group")


def _underflow(member: Member) -> Iterator[Finding]:
    """Warn of a value above 0 that the group's tensor rounds to 0."""
    found = group_fields.get(member.one.group, member.followed.field.key)
    if not isinstance(found, torch.Tensor):
        return
    row, end = row_of(member), int(member.followed.curve.horizon)
    for position in sorted({end * part // _LOOKS for part in range(_LOOKS + 1)}):
        value = row.values(position)[0][1]
        if value > 0 and torch.tensor(value, dtype=found.dtype).item() == 0:
            message = (
                f"{member.one}: {member.followed.field.key} {value:g} is 0 in a tensor of "
                f"{found.dtype}"
            )
            yield Finding(position, message, "underflow")
            return
