"""Stages: information that ranks exchange about their groups, such as pipeline stages have."""

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
"""Maximum number of group names that a rank sends, for an error about a missing name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Information about one rank's groups."""

    lacks: tuple[Missing, ...]
    """Fields, patterns and reference names that its groups do not have."""
    names: tuple[str, ...]
    """Names of its groups, or the first ones of very many."""
    fields: tuple[str, ...]
    """Fields of its groups."""
    references: Mapping[str, float | None]
    """The reference of each field."""
    reaches: tuple[Reach, ...]
    """How high its groups would come with another rank's reference."""

    @classmethod
    def of(cls, writer: Writer, reference: Reference, known: Plan | None) -> Stage:
        """Return the information about this rank's groups.

        Args:
            writer: The writer of the plan.
            reference: The constructor's argument.
            known: A plan whose names and fields were found before, if there is one.
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
    """Return the reference of each field from the first rank that has one."""
    keys = dict.fromkeys(key for stage in stages for key in stage.references)
    return {
        key: next((one for stage in stages if (one := stage.references.get(key))), None)
        for key in keys
    }


def lost_groups(stages: Sequence[Stage], references: Mapping[str, float | None]) -> str:
    """Return an error text about groups that cannot use the common references, or "".

    Every rank computes the same text.
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
    """Return an error text about fields and names that no rank's groups have, or "".

    Every rank computes the same text.
    """
    lacking = set.intersection(*(set(stage.lacks) for stage in stages))
    # A job without groups cannot lack anything.
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
