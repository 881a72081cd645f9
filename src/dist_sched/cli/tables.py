"""Tables: rows that people read, folded to a terminal's width, and never cut when piped."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

_DIGITS = 8
"""Digits to which a long value is rounded for people."""
_EXACT = 15
"""Digits of what is at least 1, as positions are."""
_NAMES, _NARROW = 2, 24
"""How many columns, of how many characters, are not folded while others can be."""
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


def say(text: str, *, is_strong: bool = False) -> None:
    """Print a text, wrapped at the terminal's width."""
    from rich.text import Text

    _print(Text(printable(text), style="bold" if is_strong else "", overflow="fold"))


def heading(text: str) -> None:
    """Print the line above a table."""
    click.echo()
    say(text, is_strong=True)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], marked: Iterable[int] = ()) -> None:
    """Print rows under a header; those that are marked stand out in a terminal."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    cells = [[shown(cell) for cell in row] for row in rows]
    for index, name in enumerate(header):
        is_name = index < _NAMES and all(len(row[index]) <= _NARROW for row in cells)
        found.add_column(Text(name), overflow="fold", no_wrap=is_name)
    marks = set(marked)
    for index, row in enumerate(cells):
        style = "bold yellow" if index in marks else None
        found.add_row(*map(Text, row), style=style)
    _print(found)


def pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    found.add_column(no_wrap=True)
    found.add_column(overflow="fold")
    for name, value in rows:
        found.add_row(Text(name, style="bold"), Text(shown(value)))
    _print(found)


def is_wide(lines: Iterable[str]) -> bool:
    """Tell whether lines are wider than the terminal; what is piped has no width."""
    return sys.stdout.isatty() and max(map(len, lines)) > _console().width


def _print(renderable: Any) -> None:
    console = _console()
    with console.capture() as captured:
        console.print(renderable)
    lines = captured.get().splitlines()
    click.echo("\n".join(line.rstrip() for line in lines), color=_has_colour())


def _console() -> Console:
    from rich.console import Console

    is_folded = sys.stdout.isatty()
    has_colour = _has_colour()
    return Console(
        width=None if is_folded else _UNBOUNDED,
        force_terminal=has_colour,
        color_system="standard" if has_colour else None,
        highlight=False,
    )


def _has_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
