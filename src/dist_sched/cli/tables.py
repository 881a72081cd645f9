"""Tables: rows that people read, folded to a terminal's width, and never cut when piped."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from rich.console import Console
    from rich.table import Table

_DIGITS = 8
"""Digits to which a long value is rounded for people."""
_EXACT = 15
"""Digits of what is at least 1, as positions are."""
_NAMES, _NARROW = 2, 24
"""How many columns, of how many characters, are not folded while others can be."""
_LEAST = 12
"""Characters of a column, at least: where that cannot be, each row is a block of lines."""
_GAP = 2
"""Spaces between columns."""
_UNBOUNDED = 1_000_000
"""Characters in a line that is piped: nothing is folded."""


def printable(text: str) -> str:
    """Write characters that would steer a terminal as escapes: a checkpoint can hold anything."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def shown(value: Any) -> str:
    """Give a value as a cell: floats below 1 to eight digits, nothing as a dash.

    >>> shown(None), shown(0.1), shown(0.1 + 0.2), shown(3e-05), shown(100000)
    ('-', '0.1', '0.3', '3e-05', '100000')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{_DIGITS if abs(value) < 1 else _EXACT}g}"
    return printable(str(value))


def exact(value: Any) -> str:
    """Give an entry as a cell: a float by the fewest digits that tell it from all others.

    >>> exact(1.0), exact(0.1 + 0.2), exact(100), exact(None)
    ('1', '0.30000000000000004', '100', '-')
    """
    return repr(value).removesuffix(".0") if isinstance(value, float) else shown(value)


def say(text: str, *, is_strong: bool = False) -> None:
    """Print a text, wrapped at the terminal's width."""
    from rich.text import Text

    _print(Text(printable(text), style="bold" if is_strong else "", overflow="fold"))


def heading(text: str) -> None:
    """Print the line above a table."""
    click.echo()
    say(text, is_strong=True)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], marked: Iterable[int] = ()) -> None:
    """Print rows under a header; those that are marked stand out in a terminal.

    Where the terminal is too narrow for the columns, each row is a block of lines.
    """
    cells = [[shown(cell) for cell in row] for row in rows]
    marks = set(marked)
    if not _fits(header, cells):
        _blocks(header, cells, marks)
        return
    found = _grid(show_header=True)
    for name, column in zip(header, _columns(header, cells), strict=True):
        found.add_column(name, overflow="fold", no_wrap=column.is_whole)
    for index, row in enumerate(cells):
        _add(found, row, "bold yellow" if index in marks else None)
    _print(found)


def pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values; in a narrow terminal, each value below its name."""
    cells = [(name, shown(value)) for name, value in rows]
    if max(len(name) for name, _ in cells) + _GAP > _width() // 2:
        for name, value in cells:
            say(name, is_strong=True)
            say(value)
        return
    found = _grid(show_header=False)
    found.add_column(no_wrap=True, style="bold")
    found.add_column(overflow="fold")
    for row in cells:
        _add(found, row, None)
    _print(found)


class _Column(NamedTuple):
    """How wide a column is."""

    natural: int
    """Characters, where nothing is folded."""
    is_whole: bool
    """Whether it is not folded, as a short name is not."""

    @property
    def least(self) -> int:
        """Characters, at least."""
        return self.natural if self.is_whole else min(self.natural, _LEAST)


def _columns(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[_Column]:
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    return [
        _Column(width, index < _NAMES and width <= _NARROW) for index, width in enumerate(widths)
    ]


def _fits(header: Sequence[str], cells: Sequence[Sequence[str]]) -> bool:
    columns = _columns(header, cells)
    return sum(column.least + _GAP for column in columns) - _GAP <= _width()


def _blocks(header: Sequence[str], cells: Sequence[Sequence[str]], marks: Container[int]) -> None:
    """Print each row as lines of a column's name and value."""
    for index, row in enumerate(cells):
        if index:
            click.echo()
        for name, cell in zip(header, row, strict=True):
            if cell:
                say(f"{name}: {cell}" if name else cell, is_strong=index in marks)


def _grid(*, show_header: bool) -> Table:
    from rich.table import Table

    return Table(
        box=None,
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
        show_header=show_header,
        header_style="bold",
    )


def _add(found: Table, row: Sequence[str], style: str | None) -> None:
    from rich.text import Text

    found.add_row(*map(Text, row), style=style)


def _print(renderable: Any) -> None:
    console = _console()
    with console.capture() as captured:
        console.print(renderable)
    lines = captured.get().splitlines()
    click.echo("\n".join(line.rstrip() for line in lines), color=_has_colour())


def _console() -> Console:
    from rich.console import Console

    has_colour = _has_colour()
    return Console(
        width=_width(),
        force_terminal=has_colour,
        color_system="standard" if has_colour else None,
        highlight=False,
    )


def _width() -> int:
    """Give the terminal's width; what is piped has none."""
    return shutil.get_terminal_size().columns if _is_terminal() else _UNBOUNDED


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _has_colour() -> bool:
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in {"dumb", "unknown"}
    return _is_terminal() and not is_plain
