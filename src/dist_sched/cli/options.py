"""Arguments and options of several commands, and how their numbers are read."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from dist_sched import _rules as rules
from dist_sched._config import amounts
from dist_sched._config.config import UNITS
from dist_sched._curves.lint import LEVELS
from dist_sched.cli.output import VERSION
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JSON_KEYS = f"Keys of --json (version {VERSION}):"
JSON_ORIGIN = "path, found, scheduler, unit, position"
"""Keys that describe a config or checkpoint."""


@contextlib.contextmanager
def _as_usage_error() -> Iterator[None]:
    # A ConfigError is a ValueError, for which click would show the value instead of the message.
    try:
        yield
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


@_as_usage_error()
def position(value: str) -> int:
    """Read a position such as 2000, 2k or 1.5B."""
    return rules.whole("position", amounts.amount("position", value, None))


@_as_usage_error()
def length(value: str) -> float:
    """Read a length of more than 0 units, written like a position."""
    return rules.some("length", amounts.amount("length", value, None))


@_as_usage_error()
def written_length(value: str) -> str:
    """Check a length, which may be a percent of the horizon, and return it unchanged."""
    rules.some("length", amounts.amount("length", value, 1000))
    return value


@_as_usage_error()
def rate(value: str) -> float:
    """Read a value of a field."""
    return rules.rate("value", amounts.number(value))


@_as_usage_error()
def factor(value: str) -> float:
    """Read a factor."""
    return rules.positive("factor", amounts.number(value))


@_as_usage_error()
def code(value: str) -> str:
    """Read the code of a finding."""
    return rules.one_of(tuple(LEVELS))("code", value)


def destination(metavar: str, text: str) -> Callable[[Any], Any]:
    """Return the option for the file to write."""
    return click.option(
        "-o", "--output", "destination", metavar=metavar, type=click.Path(), help=text
    )


paths = click.argument(
    "paths", metavar="CONFIG|CHECKPOINT...", nargs=-1, required=True, type=click.Path()
)
checkpoint = click.argument("path", metavar="CHECKPOINT", type=click.Path())
key = click.option(
    "--key",
    metavar="KEY",
    help="Name of the state in the checkpoint, such as app.scheduler. Needed only if there are "
    "several.",
)
at = click.option(
    "--at",
    "positions",
    multiple=True,
    metavar="POSITION",
    type=position,
    help="A position, such as 60 or 2k. Can be repeated.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, with the keys below.")
force = click.option("--force", is_flag=True, help="Overwrite a file that already exists.")
unit = click.option(
    "--unit",
    type=click.Choice(UNITS),
    help="Unit of the position, if the checkpoint does not have it.",
)
