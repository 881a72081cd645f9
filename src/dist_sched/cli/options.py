"""Options that several commands have, and how their numbers are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from dist_sched import _rules as rules
from dist_sched._config import files
from dist_sched._config.config import UNITS
from dist_sched.cli.output import VERSION
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

JSON_KEYS = f"--json prints one object, whose version is {VERSION}:"
JSON_ORIGIN = "path, found, scheduler, unit, position"
"""Names that say where a config or checkpoint came from."""


def position(value: str) -> int:
    """Read a position as people write it: 2000, 2k, 1.5B."""
    return _checked(rules.whole, "position", files.amount, value)


def length(value: str) -> float:
    """Read a length of more than 0 units, written like a position."""
    return _checked(rules.some, "length", files.amount, value)


def rate(value: str) -> float:
    """Read a value of a field."""
    return _checked(rules.rate, "value", lambda _, text, __: files.number(text), value)


def _checked(
    rule: Callable[[str, object], T], name: str, read: Callable[..., object], value: str
) -> T:
    try:
        return rule(name, read(name, value, None))
    except ConfigError as error:
        # Of a ValueError, click would show the value and not the message.
        raise click.BadParameter(str(error)) from error


key = click.option(
    "--key", metavar="KEY", help="The state's name in the checkpoint, where there are several."
)
at = click.option(
    "--at",
    "positions",
    multiple=True,
    metavar="POSITION",
    type=position,
    help="A position, such as 60 or 2k; may be repeated.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, whose names are listed below."
)
force = click.option("--force", is_flag=True, help="Overwrite a file that already exists.")
unit = click.option(
    "--unit",
    type=click.Choice(UNITS),
    help="What the position counts, where the checkpoint does not say.",
)
