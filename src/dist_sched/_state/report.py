"""The report of a reconciliation: rows, values of the next update, and both as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from dist_sched._config.history import HISTORY
from dist_sched._state.format import UNIT_KEY

_MOST_ROWS = 60
"""Of a longer report, the text leaves out the entries that do not differ."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry: what each side had, what is used, and why."""

    name: str
    config: Any
    """An int, float, str or None; a whole schedule where its phases are not compared."""
    checkpoint: Any
    """None where the checkpoint lacks the entry."""
    used: Any
    """None where the two had to be equal and are not."""
    why: str
    changed: bool
    """Both sides have the entry, it matters, and they differ; or the checkpoint alone has it."""


@dataclass(frozen=True, slots=True)
class NextValue:
    """A field's value for the next update, before ratios and multipliers of groups."""

    field: str
    """A field, or `groups[...].` and a field for an override; a side that does not override it has
    the field's value there."""
    config: float | None
    checkpoint: float | None
    """None where the checkpoint's entries alone make no legal config."""
    used: float | None
    """None where the outcome was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The outcome of reconciling a config with a checkpoint.

    `str()` returns the table, `to_dict()` the same as data for JSON.
    """

    rows: tuple[Row, ...]
    """One for each entry, and one for the unit, whether they differ or not."""
    position: int
    """The checkpoint's position, in units."""
    next_update: tuple[NextValue, ...]
    """Each field's value at that position."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the checkpoint state."""

    @property
    def changed(self) -> tuple[Row, ...]:
        """The rows in which config and checkpoint differ."""
        return tuple(row for row in self.rows if row.changed)

    @property
    def used(self) -> dict[str, Any]:
        """The config entries as used."""
        return {row.name: row.used for row in self.rows if row.name not in {UNIT_KEY, HISTORY}}

    def to_dict(self) -> dict[str, Any]:
        """Return rows, position, values of the next update and warnings as data for JSON."""
        return {
            "rows": [
                {part.name: _json(getattr(row, part.name)) for part in fields(row)}
                for row in self.rows
            ],
            "position": self.position,
            "next_update": [asdict(value) for value in self.next_update],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        shown = self.rows if len(self.rows) <= _MOST_ROWS else self.changed
        header = "", "entry", "config", "checkpoint", "used", "why"
        rows: list[tuple[str, ...]] = [header]
        for row in shown:
            sides = map(_text, (row.config, row.checkpoint, row.used))
            rows.append(("*" * row.changed, row.name, *sides, row.why))
        for value in self.next_update:
            sides = map(short, (value.config, value.checkpoint, value.used))
            rows.append(("", value.field, *sides, "next update"))
        changed = len(self.changed)
        count = "1 entry differs" if changed == 1 else f"{changed or 'no'} entries differ"
        summary = f"position {self.position}; {count} (*)"
        if len(shown) < len(self.rows):
            summary += f"; {len(self.rows) - len(shown)} that do not are left out here"
        return "\n".join([summary, *self.warnings, *_aligned(rows)])


def _json(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def short(value: Any) -> str:
    """Return a value as a table shows it: floats to eight digits, None as a dash."""
    return f"{value:.8g}" if isinstance(value, float) else _text(value)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
