"""Options: those that several commands have, and how what is given to them is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dist_sched import _rules as rules
from dist_sched._config import files
from dist_sched._config.entries import UNITS
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
"""Of what `--json` prints."""
JSON_KEYS = f"--json prints one object, whose version is {VERSION}:"
JSON_ORIGIN = "path, found, scheduler, unit, position"
"""Names that tell where a config or checkpoint came from."""


def amount(rule: Callable[[str, object], float] = rules.whole) -> Callable[..., Any]:
    """Make what reads an option's units as people write them: 2000, 2k, 1.5B."""

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(read(ctx, param, one) for one in value)
        name = param.opts[0].lstrip("-")
        try:
            return None if value is None else rule(name, files.amount(name, value, None))
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from error
        except ArithmeticError as error:  # what decimals raise where a number has no end
            told = f"{rules.shown(value)} is too large: give at most 2**53 units"
            raise click.BadParameter(told, ctx, param) from error

    return read


key = click.option(
    "--key", metavar="KEY", help="The state's name in the checkpoint, where there are several."
)
at = click.option(
    "--at",
    "positions",
    multiple=True,
    metavar="POSITION",
    callback=amount(),
    help="A position, such as 60 or 2k; may be given again.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, whose names are listed below."
)
force = click.option("--force", is_flag=True, help="Overwrite a file that is there.")
unit = click.option(
    "--unit",
    type=click.Choice(UNITS),
    help="What the position counts, where the checkpoint does not tell.",
)


def print_json(told: dict[str, Any]) -> None:
    """Print what a command found, for programs."""
    click.echo(json.dumps({"version": VERSION, **told}, indent=2, default=str))
