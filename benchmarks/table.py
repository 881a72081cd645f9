"""Rows of figures beside their bars, and tables of them as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEAD = ("ratio", "wanted", "", "what", "ours", "against")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, what it is compared with, and its bar."""

    what: str
    ours: float | None
    """None if it was not measured."""

    unit: str = "µs"
    against: str = ""
    """The name of what it is compared with."""

    theirs: float | None = None
    most: float | None = None
    """The highest ratio that is wanted; without `theirs` the highest figure. None without a bar."""

    reason: str = ""
    """Why it was not measured."""

    @property
    def value(self) -> float | None:
        """What the bar is for: the ratio, or the figure if there is nothing to compare with."""
        if self.ours is None or self.theirs is None:
            return self.ours
        return self.ours / self.theirs

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met. None without a bar or a figure."""
        return None if self.value is None or self.most is None else self.value <= self.most

    def cells(self) -> list[str]:
        """Return the row as text, in the order of `HEAD`."""
        is_ratio = self.ours is not None and self.theirs is not None
        verdict = {None: "", True: "met", False: "MISSED"}[self.is_met]
        if self.ours is None:
            verdict = f"not measured: {self.reason}"
        wanted = "" if self.most is None else f"≤ {show(self.most)}"
        if wanted and not is_ratio:
            wanted += f" {self.unit}"
        return [
            ratio_text(self.value) if is_ratio and self.value is not None else "",
            wanted,
            verdict,
            self.what,
            _figure(self.ours, self.unit),
            f"{_figure(self.theirs, self.unit)} {self.against}".strip(),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one subject measured."""

    title: str
    rows: list[Row]
    details: str = ""
    """Further tables, in Markdown."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as text."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def show(figure: float) -> str:
    """Return a figure with about three digits, as text."""
    if figure == int(figure):
        return f"{figure:,.0f}"
    digits = next((n for n, above in enumerate((100, 10, 0.1, 0.01)) if abs(figure) >= above), 4)
    return f"{figure:,.{digits}f}"


def ratio_text(ratio: float) -> str:
    """Return a ratio with two digits behind the point, or with two that are not zero."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"  # noqa: PLR2004


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, its columns aligned: numbers to the right, words to the left."""
    columns = [list(column) for column in zip(*table, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    are_numbers = [all(map(_is_number, column[1:])) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, are_numbers, strict=True)
        ).rstrip()
        for line in table
    ]


def mark_down(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines in Markdown."""
    columns = [column[1:] for column in zip(*table, strict=True)]
    rule = ["---:" if all(map(_is_number, column)) else "---" for column in columns]
    return [f"| {' | '.join(line)} |" for line in (table[0], rule, *table[1:])]


def of_dicts(rows: Sequence[dict[str, float]]) -> list[list[str]]:
    """Return rows with the same keys as a table."""
    return [list(rows[0]), *([show(value) for value in row.values()] for row in rows)]


def of_rows(rows: Iterable[Row]) -> list[list[str]]:
    """Return rows as a table with a head."""
    return [list(HEAD), *(row.cells() for row in rows)]


def _figure(figure: float | None, unit: str) -> str:
    return "" if figure is None else f"{show(figure)} {unit}"


def _is_number(text: str) -> bool:
    return not text.strip("0123456789.,e- ")
