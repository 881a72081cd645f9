"""Stages: what the ranks of a job say of their groups, which may be parts of one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_sched._config.path import Path
from dist_sched._optim import ratios
from dist_sched._rules import MOST, joined, near_miss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_sched._config.plan import Plan
    from dist_sched._optim.ratios import Missing, Reference
    from dist_sched._optim.writer import Reach, Writer

_MOST_NAMES = 50
"""Names of groups that a rank tells the others, for the error that no rank has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One rank's part of the groups."""

    lacks: tuple[Missing, ...]
    """Fields, patterns and reference names that its groups do not have."""
    names: tuple[str, ...]
    """How its groups are named, the first of them."""
    fields: tuple[str, ...]
    """What its groups have."""
    references: Mapping[str, float | None]
    """By field, the own value that its ratios are to."""
    reaches: tuple[Reach, ...]
    """What its groups would reach if ratios were to another rank's reference."""

    @classmethod
    def of(cls, writer: Writer, reference: Reference, known: Plan | None) -> Stage:
        """Return what a rank's groups have of a plan.

        Args:
            writer: Of the plan.
            reference: The constructor's argument.
            known: The plan whose names and fields were found; None if none were.
        """
        tracker = writer.tracker
        lost = (
            ratios.missing_names(tracker.tracked, writer.plan, reference)
            if writer.keep_ratios and known is None
            else {}
        )
        inventory = tracker.inventory()
        return cls(
            lacks=(*writer.missing(known), *lost),
            names=tuple(sorted(inventory.names)[:_MOST_NAMES]),
            fields=tuple(sorted(inventory.fields)),
            references=dict(writer.references),
            reaches=tuple(writer.reaches()),
        )


def common_references(stages: Sequence[Stage]) -> dict[str, float | None]:
    """Return by field the first own value, in the order of ranks, that ratios can be to."""
    keys = dict.fromkeys(key for stage in stages for key in stage.references)
    return {
        key: next((one for stage in stages if (one := stage.references.get(key))), None)
        for key in keys
    }


def lost_groups(stages: Sequence[Stage], references: Mapping[str, float | None]) -> str:
    """Return which groups cannot have their ratio to what all ranks have, as a sentence.

    Every rank computes the same from what all have said.
    """
    lines = [
        f"rank {rank}: {problem}"
        for rank, stage in enumerate(stages)
        for reach in stage.reaches
        if stage.references.get(reach.key) != (reference := references.get(reach.key))
        and (problem := reach.problem(reference))
    ]
    return joined([*lines, "nothing has changed on any rank"], "\n", MOST) if lines else ""


def common_names(stages: Sequence[Stage]) -> str:
    """Return which fields and names no rank's groups have, as a sentence; empty if there are none.

    Every rank computes the same from what all have said.
    """
    lacking = set.intersection(*(set(stage.lacks) for stage in stages))
    # One of a job without groups has nothing to be missed.
    if not lacking or not any(stage.fields for stage in stages):
        return ""
    names = dict.fromkeys(name for stage in stages for name in stage.names)
    fields = dict.fromkeys(field for stage in stages for field in stage.fields)
    has = ratios.named_groups(names)
    lines = []
    for one in dict.fromkeys(one for stage in stages for one in stage.lacks if one in lacking):
        if isinstance(one, Path) and one.pattern is None:
            close = near_miss(one.field, fields)
            lines.append(f"{one}: no group of any rank has this field{close}")
            continue
        where, name = (one, one.pattern) if isinstance(one, Path) else (f"reference={one!r}", one)
        lines.append(f"{where}: no group of any rank has this name{near_miss(name, names)}; {has}")
    return joined(lines, "; ", MOST)
