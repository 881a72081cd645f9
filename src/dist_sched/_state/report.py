"""The report of a reconciliation: rows and values for the next update, as data and as text."""

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
"""Maximum number of columns of a line of the text."""
_MOST_VALUES = 6
_MOST_WARNING_LINES = 8
_MOST_ROW_LINES = 10
"""Maximum number of lines of each kind. The rest is counted, to stay under 4,000 characters."""
_MOST_ADVICE_LINES = 4
_MOST_NAMED = 8
_LONG_NAME = 60
_LONG = 40
"""Maximum number of characters of a value in the text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry: its value in the config and in the checkpoint, the value that is used, and why."""

    name: str
    """Path of the entry, such as `lr.phases[0].steps`."""
    config: Any
    """Value in the config: an int, float, str or None, or a whole schedule."""
    checkpoint: Any
    """Value in the checkpoint. None if it does not have the entry."""
    used: Any
    """Value that is used. None if the load was refused because of this entry."""
    why: str
    """Why this value is used, such as "using checkpoint value"."""
    changed: bool
    """Whether the checkpoint has another value than the config, and the entry has an effect."""


@dataclass(frozen=True, slots=True)
class NextValue:
    """The value of a field or extra for the next update, without ratios and multipliers."""

    field: str
    """A field, an extra, or `groups[...].` and a field for an override. A side without the override
    has the field's value here."""
    config: float | None
    """Value of the config."""
    checkpoint: float | None
    """Value of the checkpoint. None if its entries are not a complete valid config."""
    used: float | None
    """Value that is used. None if the load was refused, or if the field is no longer scheduled."""

    @property
    def moves(self) -> bool:
        """Whether the value differs from the checkpoint's, by more than rounding."""
        if self.checkpoint is None or self.used is None:
            return False
        # Other libraries have other formulas, or compute in float32.
        return not math.isclose(self.used, self.checkpoint, rel_tol=1e-6, abs_tol=1e-15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The outcome of reconciling a config with a checkpoint: the report of a load.

    `str()` returns a short text with the differences. `table()` returns all rows as a table.
    `to_dict()` returns everything as JSON data.
    """

    rows: tuple[Row, ...]
    """One row for each entry and one for the unit, including equal ones."""
    position: int
    """Position of the checkpoint, in units."""
    next_update: tuple[NextValue, ...]
    """The value of each field and extra at this position."""
    warnings: tuple[str, ...] = ()
    """Warnings about the checkpoint state."""
    alternative: str | dict[str, str] | None = None
    """A policy with which the other side wins wherever the two differ. If the load was refused, a
    policy with which it works. None if there is no short one."""

    @property
    def changed(self) -> tuple[Row, ...]:
        """The rows in which config and checkpoint differ."""
        return tuple(row for row in self.rows if row.changed)

    @property
    def is_equal(self) -> bool:
        """Whether config and checkpoint are equal, and there is no warning."""
        missing = any(row.why == MISSING for row in self.rows)
        moves = any(value.moves for value in self.next_update)
        return not (self.changed or self.warnings or missing or moves)

    @property
    def used(self) -> dict[str, Any]:
        """The values that are used, by entry."""
        return {row.name: row.used for row in self.rows if row.name not in {UNIT_KEY, HISTORY}}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON data."""
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
        """Return all rows, and the values for the next update, as an aligned table."""
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
        return "\n".join(
            [
                f"position {self.position}; {count}",
                *_limited(values, _MOST_VALUES, "values"),
                *_limited(self.warnings, _MOST_WARNING_LINES, "warnings"),
                *_limited(self.changed, _MOST_ROW_LINES, "entries that differ", _row_line),
                *self._missing(),
                *self._equal(),
                *self._advice(),
            ]
        )

    @property
    def _is_refused(self) -> bool:
        # A scheduler has at least one field or extra, and an outcome in use has its value.
        return bool(self.next_update) and all(one.used is None for one in self.next_update)

    def _values_shown(self) -> list[NextValue]:
        """Return lr, and the values that change. After a refusal, also values that differ."""
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
        return _folded(f"not in the checkpoint, so the config's are used: {listed}{more}")

    def _equal(self) -> list[str]:
        equal = sum(row.why == EQUAL for row in self.rows)
        if not equal and not self.changed:  # nothing was compared, as with a position alone
            return []
        return ["1 entry is equal" if equal == 1 else f"{equal or 'no'} entries are equal"]

    def _advice(self) -> list[str]:
        if self.alternative is None:
            return []
        policy = json.dumps(self.alternative, ensure_ascii=False)
        purpose = "to load the checkpoint" if self._is_refused else "to use the other values"
        return _folded(f"{purpose}: policy={policy}", most=_MOST_ADVICE_LINES)


def _value_line(value: NextValue, *, is_refused: bool) -> str:
    """Return the line about a value: the checkpoint's, the one that is used, and the factor."""
    name = f"{_cut(value.field, _LONG_NAME)} for the next update"
    config, checkpoint, used = map(short, (value.config, value.checkpoint, value.used))
    if is_refused:
        checkpoint = "unknown" if value.checkpoint is None else checkpoint
        return f"{name}: {checkpoint} in the checkpoint, {config} in the config"
    if value.checkpoint is None:
        return f"{name}: {used}; the checkpoint's value is unknown"
    if value.used is None:
        return f"{name}: {checkpoint} → not scheduled"
    if value.moves:
        factor = f" (× {value.used / value.checkpoint:.4g})" if value.checkpoint else ""
        return f"{name}: {checkpoint} → {used}{factor}"
    other = f" (the config has {config})" if config not in {used, "-"} else ""
    return f"{name}: {used}, as in the checkpoint's run{other}"


def _row_line(row: Row) -> str:
    """Return the line about an entry: both values, and which one is used."""
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
    """Return the lines of the first items, and a line with the number of the others."""
    lines: list[str] = []
    for index, item in enumerate(items):
        folded = _folded(line(item))
        if len(lines) + len(folded) > most:
            return [*lines, f"and {len(items) - index} more {what}"]
        lines += folded
    return lines


def _folded(text: str, most: int = 3) -> list[str]:
    """Return a text as lines of at most `WIDTH` columns, cut if there are too many."""
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
    """Return a value as text for a table: floats with eight digits, None as a dash."""
    return f"{value:.8g}" if isinstance(value, float) else _text(value)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
