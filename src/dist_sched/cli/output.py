"""Output: tables and JSON on standard output, notes on stderr, and files."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dist_sched._curves.shapes import UnknownShapeError
from dist_sched._drawing import printable
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

VERSION = 1
"""Version of the output of `--json`."""
_DIGITS = 8
"""Number of digits of values below 1."""
_EXACT = 15
"""Number of digits of values from 1 on, such as positions."""
_UNBOUNDED = 1_000_000
"""Width of output that is not a terminal, where lines are not folded."""


def shown(value: Any) -> str:
    """Return a value as text for a table: floats below 1 with eight digits, None as a dash.

    Examples:
        >>> shown(None), shown(0.1), shown(0.1 + 0.2), shown(3e-05), shown(100000)
        ('-', '0.1', '0.3', '3e-05', '100000')
    """
    if isinstance(value, float):
        return f"{value:.{_DIGITS if abs(value) < 1 else _EXACT}g}"
    return "-" if value is None else printable(str(value))


def exact(value: Any) -> str:
    """Return an entry as text for a table: floats with all digits.

    Examples:
        >>> exact(1.0), exact(0.1 + 0.2), exact(100), exact(None)
        ('1', '0.30000000000000004', '100', '-')
    """
    return repr(value).removesuffix(".0") if isinstance(value, float) else shown(value)


def say(text: str) -> None:
    """Print a text, folded to the terminal's width."""
    _print(printable(text))


def say_notes(notes: Iterable[str]) -> None:
    """Print notes."""
    for note in notes:
        say(f"note: {note}")


def hint(error: BaseException) -> str:
    """Return advice for an error about an unknown shape, else ""."""
    if not UnknownShapeError.is_behind(error):
        return ""
    return "; use --import MODULE to import the module that registers it"


def warn(text: str) -> None:
    """Print a line on stderr."""
    click.echo(printable(text), err=True)


def headline(text: str) -> None:
    """Print the most important line."""
    _print(printable(text), style="bold")


def heading(text: str) -> None:
    """Print a blank line and the title of a table."""
    click.echo()
    headline(text)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    is_marked: Callable[[Sequence[Any]], bool] = lambda _: False,
    title: str = "",
) -> None:
    """Print rows below a header, folded to the terminal's width, with marked rows highlighted."""
    from rich.table import Table

    if title:
        heading(title)
    found = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(header), header_style="bold"
    )
    for name in header:
        found.add_column(name, overflow="fold")
    for row in rows:
        found.add_row(*map(shown, row), style="bold yellow" if is_marked(row) else None)
    _print(found)


def _print(renderable: Any, style: str | None = None) -> None:
    from rich.console import Console

    console = Console(
        width=None if sys.stdout.isatty() else _UNBOUNDED,
        # With NO_COLOR, rich would still use bold text.
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        emoji=False,
        highlight=False,
        markup=False,
    )
    with console.capture() as captured:
        console.print(renderable, style=style, overflow="fold")
    # rich fills lines with blanks. click removes styles from output that is not a terminal.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_json(found: dict[str, Any]) -> None:
    """Print the result of a command as JSON."""
    click.echo(json.dumps(_to_json({"version": VERSION, **found}), indent=2))


def _to_json(found: Any) -> Any:
    """Return data for JSON. Values that JSON cannot express become strings."""
    if isinstance(found, dict):
        return {str(name): _to_json(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [_to_json(value) for value in found]
    if hasattr(found, "to_dict"):
        return found.to_dict()
    # torch may save infinities, which JSON does not have.
    is_odd = isinstance(found, float) and not math.isfinite(found)
    return found if isinstance(found, int | float | str | None) and not is_odd else repr(found)


def config_writer(path: str | None) -> Callable[[Mapping[str, Any], Iterable[str]], str]:
    """Return a function that writes a config as text, by the suffix of a file, YAML by default.

    The function takes the config, and lines for comments above it, which JSON does not have.

    Raises:
        ConfigError: The suffix is unknown.
    """
    ending = ".yaml" if path is None else Path(path).suffix.lower()
    write = _WRITERS.get(ending)
    if write is None:
        raise ConfigError(f"{path}: the name must end in one of {', '.join(_WRITERS)}")

    def found(config: Mapping[str, Any], comments: Iterable[str]) -> str:
        above = "" if ending == ".json" else "".join(f"# {printable(one)}\n" for one in comments)
        return above + write(config)

    return found


def _to_yaml(config: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _to_toml(config: Mapping[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(config)


_WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    ".yaml": _to_yaml,
    ".yml": _to_yaml,
    ".json": lambda config: json.dumps(config, indent=2, ensure_ascii=False) + "\n",
    ".toml": _to_toml,
}


def write_file(path: str, content: bytes, *, force: bool) -> None:
    """Write a file. Overwrite an existing one only with `force`.

    Raises:
        ConfigError: The file already exists, cannot be written, or is not a local one.
    """
    if "://" in path:
        raise ConfigError(f"{path}: only local files can be written; copy the file there later")
    try:
        with Path(path).open("wb" if force else "xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(f"{path}: already exists; use --force to overwrite") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
