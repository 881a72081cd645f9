"""Descriptions: the value of each field in each group and its source, as rows and as a table."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from dist_sched._optim.fields import plain
from dist_sched._rules import shown
from dist_sched._state.report import aligned

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dist_sched._optim.rows import Member
    from dist_sched._optim.tracking import TrackedGroup

_MOST_LINES = 30


class GroupRow(NamedTuple):
    """The value of one field in one group."""

    group: int
    """Index of the group among the groups of all optimizers."""
    name: str
    """`param_group["name"]`, or an empty string."""
    optimizer: str
    """Class of the optimizer, with its index if there are several."""
    parameters: int
    """Number of elements of the group's parameters."""
    field: str
    """The field, such as `lr`."""
    value: float
    """Value at the present position."""
    highest: float
    """Value where the group's curve is highest."""
    source: str
    """Where the value comes from, such as "ratio 0.1 to group 'head'"."""


class GroupTable(tuple[GroupRow, ...]):
    """Rows, one for each group and field. In the table of `str()`, equal groups share rows."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__

    def lines(self, most: int | None = None) -> list[str]:
        """Return the lines of the table, with at most so many rows."""
        header = ("group", "name", "optimizer", "parameters", "field", "now", "highest", "from")
        groups = [tuple(rows) for _, rows in groupby(self, key=lambda row: row.group)]
        folded = [tuple(same) for _, same in groupby(groups, key=_likeness)]
        rows = [row for same in folded for row in _folded(same)]
        shown = rows if most is None or len(rows) <= most else rows[: most - 1]
        lines = aligned([header, *shown])
        return [*lines, f"and {len(rows) - len(shown)} more rows"] if shown != rows else lines

    def brief(self) -> str:
        """Return the table with at most thirty rows."""
        return "\n".join(self.lines(_MOST_LINES))


def _likeness(rows: tuple[GroupRow, ...]) -> tuple[object, ...]:
    return rows[0].optimizer, tuple(row[4:] for row in rows)


def _folded(same: Sequence[tuple[GroupRow, ...]]) -> Iterable[tuple[str, ...]]:
    """Yield the lines of groups that differ only in names and parameters."""
    first, last = same[0][0], same[-1][0]
    names = list(dict.fromkeys(rows[0].name for rows in same))
    name = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    index = str(first.group) if len(same) == 1 else f"{first.group}-{last.group}"
    count = f"{sum(rows[0].parameters for rows in same):,}"
    about = (index, name[:24], first.optimizer, count)
    for row in same[0]:
        yield (*about, row.field, f"{row.value:.6g}", f"{row.highest:.6g}", row.source)
        about = ("",) * 4


def source(member: Member, reference: str) -> str:
    """Return a text about the source of a group's value of a field.

    Args:
        member: The group and its curve.
        reference: The reference as text.
    """
    one, followed, ratio = member
    field = followed.field
    if followed.own is not None:
        return f"the schedule of groups[{followed.pattern}]"
    bounds = [key for key in (field.upper, field.lower) if one.override(key) is not None]
    multiplier = one.override(field.multiplier)
    parts = [f"own {' and '.join(bounds)}"] if bounds else []
    if multiplier is not None:
        number = plain(multiplier)
        is_number = isinstance(number, int | float)  # else the next write raises
        parts.append(f"{field.multiplier} {f'{number:g}' if is_number else shown(number)}")
    elif not bounds:
        parts.append(_ratio_source(one, field.key, ratio, reference))
    if followed.pattern and followed.number != 1:
        parts.append(f"groups[{followed.pattern}] × {followed.number:g}")
    return ", ".join(parts)


def _ratio_source(one: TrackedGroup, key: str, ratio: float, reference: str) -> str:
    if key in one.ratios:
        return f"ratio {ratio:g}, from its value when it was added"
    if one.own_value(key) == 0 and ratio == 0:
        return "own value 0, stays 0"
    return "the schedule" if ratio == 1 else f"ratio {ratio:g} to {reference}"


def own_values(tracked: Sequence[TrackedGroup], key: str) -> str:
    """Return a table of the groups' own values of a field, in which equal groups share a row."""
    same = groupby(tracked, key=lambda one: (one.name, one.optimizer, one.own_value(key)))
    rows: list[tuple[str, ...]] = [("group", "name", "optimizer", f"own {key}")]
    for (name, optimizer, own), members in same:
        places = [one.place for one in members]
        index = str(places[0]) if len(places) == 1 else f"{places[0]}-{places[-1]}"
        rows.append((index, str(name or "")[:24], optimizer, "-" if own is None else f"{own:.6g}"))
    more = len(rows) - 1 - _MOST_LINES
    return "\n".join(
        [*aligned(rows[: _MOST_LINES + 1]), *([f"and {more} more"] if more > 0 else [])]
    )
