"""The report of a reconciliation: rows, values of the next update, and both as text."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from dist_sched._config.history import HISTORY
from dist_sched._state.format import UNIT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

EQUAL = "equal"
MISSING = "not in the checkpoint: using config value"

WIDTH = 99
"""Columns of a line of the text, at most."""
_MOST_VALUES = 6
_MOST_WARNING_LINES = 8
_MOST_ROW_LINES = 10
"""More are counted in the text, so that it stays under 4,000 characters."""
_MOST_ADVICE_LINES = 4
_MOST_NAMED = 8
_LONG_NAME = 60
_LONG = 40
"""Characters of a value in the text, at most."""


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
    """A field's or an extra's value for the next update, without groups' ratios and multipliers."""

    field: str
    """A field, an extra, or `groups[...].` and a field for an override; a side that does not
    override it has the field's value there."""
    config: float | None
    checkpoint: float | None
    """None where the checkpoint's entries alone make no legal config."""
    used: float | None
    """None where the outcome was refused, or does not schedule it."""

    @property
    def moves(self) -> bool:
        """Whether the run goes on with another value than it had, by more than rounding."""
        if self.checkpoint is None or self.used is None:
            return False
        # Other libraries compute their values by other formulas, or in float32.
        return not math.isclose(self.used, self.checkpoint, rel_tol=1e-6, abs_tol=1e-15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The outcome of reconciling a config with a checkpoint.

    `str()` returns what a person should know, in lines of under 100 columns; `table()` returns
    every row, and `to_dict()` returns all of it as data for JSON.
    """

    rows: tuple[Row, ...]
    """One for each entry, and one for the unit, whether they differ or not."""
    position: int
    """The checkpoint's position, in units."""
    next_update: tuple[NextValue, ...]
    """Each field's value at that position."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the checkpoint state."""
    alternative: str | dict[str, str] | None = None
    """A policy by which the other side wins wherever the two differ; of an outcome that was
    refused, one by which the state can be loaded. None where no short one is known to do that."""

    @property
    def changed(self) -> tuple[Row, ...]:
        """The rows in which config and checkpoint differ."""
        return tuple(row for row in self.rows if row.changed)

    @property
    def is_equal(self) -> bool:
        """Whether config and checkpoint have the same entries, and there is nothing to say."""
        missing = any(row.why == MISSING for row in self.rows)
        moves = any(value.moves for value in self.next_update)
        return not (self.changed or self.warnings or missing or moves)

    @property
    def used(self) -> dict[str, Any]:
        """The config entries as used."""
        return {row.name: row.used for row in self.rows if row.name not in {UNIT_KEY, HISTORY}}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as data for JSON."""
        return {
            "rows": [
                {part.name: _json(getattr(row, part.name)) for part in fields(row)}
                for row in self.rows
            ],
            "position": self.position,
            "next_update": [asdict(value) for value in self.next_update],
            "warnings": list(self.warnings),
            "alternative": self.alternative,
        }

    def table(self) -> str:
        """Return every row and every value of the next update as an aligned table."""
        rows: list[tuple[str, ...]] = [("", "entry", "config", "checkpoint", "used", "why")]
        for row in self.rows:
            sides = map(_text, (row.config, row.checkpoint, row.used))
            rows.append(("*" * row.changed, row.name, *sides, row.why))
        for value in self.next_update:
            sides = map(short, (value.config, value.checkpoint, value.used))
            rows.append(("", value.field, *sides, "next update"))
        return "\n".join(aligned(rows))

    def __str__(self) -> str:
        if self.is_equal:
            return f"position {self.position}; config and checkpoint are equal"
        changed = len(self.changed)
        count = "1 entry differs" if changed == 1 else f"{changed or 'no'} entries differ"
        values = [_value_line(value, is_refused=self._is_refused) for value in self._values_shown()]
        equal = sum(row.why == EQUAL for row in self.rows)
        return "\n".join(
            [
                f"position {self.position}; {count}",
                *_limited(values, _MOST_VALUES, "values move"),
                *_limited(self.warnings, _MOST_WARNING_LINES, "warnings"),
                *_limited(self.changed, _MOST_ROW_LINES, "entries differ", _row_line),
                *self._missing(),
                "1 entry is equal" if equal == 1 else f"{equal or 'no'} entries are equal",
                *self._advice(),
            ]
        )

    @property
    def _is_refused(self) -> bool:
        # A scheduler has at least one field or extra, of which a used outcome has a value.
        return bool(self.next_update) and all(one.used is None for one in self.next_update)

    def _values_shown(self) -> list[NextValue]:
        """Return lr, and what moves or is scheduled no more; of a refusal, where the sides part."""
        return [
            value
            for value in sorted(self.next_update, key=lambda value: value.field != "lr")
            if value.field == "lr"
            or value.moves
            or (value.used is None and value.checkpoint not in (None, value.config))
        ]

    def _missing(self) -> list[str]:
        names = [row.name for row in self.rows if row.why == MISSING]
        if not names:
            return []
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        listed = ", ".join(_cut(name, _LONG_NAME) for name in names[:_MOST_NAMED])
        return _folded(f"not in the checkpoint, and used as the config has it: {listed}{more}")

    def _advice(self) -> list[str]:
        if self.alternative is None:
            return []
        policy = json.dumps(self.alternative, ensure_ascii=False)
        purpose = "to load it" if self._is_refused else "for the other side"
        return _folded(f"{purpose}: policy={policy}", most=_MOST_ADVICE_LINES)


def _value_line(value: NextValue, *, is_refused: bool) -> str:
    """Return what the checkpoint's run had next, what is used, and the factor."""
    name = f"{_cut(value.field, _LONG_NAME)} for the next update"
    config, checkpoint, used = map(short, (value.config, value.checkpoint, value.used))
    if is_refused:
        checkpoint = "not known" if value.checkpoint is None else checkpoint
        return f"{name}: {checkpoint} in the checkpoint, {config} in the config"
    if value.checkpoint is None:
        return f"{name}: {used}; the checkpoint does not say what its run had"
    if value.used is None:
        return f"{name}: {checkpoint} → not scheduled"
    if value.moves:
        factor = f" (× {value.used / value.checkpoint:.4g})" if value.checkpoint else ""
        return f"{name}: {checkpoint} → {used}{factor}"
    other = f" (the config has {config})" if config not in {used, "-"} else ""
    return f"{name}: {used}, as in the checkpoint's run{other}"


def _row_line(row: Row) -> str:
    """Return what both sides have for an entry, and who wins."""
    if row.name == HISTORY:  # a script cannot declare late changes
        return f"{row.name}: {_cut(str(row.checkpoint), 2 * WIDTH)}; {row.why}"
    checkpoint, config = (_cut(short(one)) for one in (row.checkpoint, row.config))
    if checkpoint == config:  # they differ in later digits
        checkpoint, config = (_cut(_text(one)) for one in (row.checkpoint, row.config))
    # A side that lacks the entry has None, too.
    checkpoint, config = (
        "none" if one is None else text
        for one, text in ((row.checkpoint, checkpoint), (row.config, config))
    )
    return f"{_cut(row.name, _LONG_NAME)}: checkpoint {checkpoint}, config {config}; {row.why}"


def _limited(items: Sequence[T], most: int, what: str, line: Callable[[T], str] = str) -> list[str]:
    """Return the lines of the first items, and how many items are left out."""
    lines: list[str] = []
    for index, item in enumerate(items):
        folded = _folded(line(item))
        if len(lines) + len(folded) > most:
            return [*lines, f"and {len(items) - index} more {what}"]
        lines += folded
    return lines


def _folded(text: str, most: int = 3) -> list[str]:
    """Return a text as lines of at most `WIDTH` columns, cut short where they are too many."""
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent="  ",
        break_on_hyphens=False,
        max_lines=most,
        placeholder=" ...",
    )


def _json(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _cut(text: str, most: int = _LONG) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def short(value: Any) -> str:
    """Return a value as a table shows it: floats to eight digits, None as a dash."""
    return f"{value:.8g}" if isinstance(value, float) else _text(value)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines whose columns begin at the same places."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
