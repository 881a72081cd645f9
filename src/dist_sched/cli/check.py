"""`dist-sched check`: what is legal in a config and yet probably not meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dist_sched import _rules as rules
from dist_sched.cli import options, subjects, tables
from dist_sched.errors import ConfigError, StateError

if TYPE_CHECKING:
    from dist_sched._curves.lint import Finding

FOUND, ILLEGAL = 1, 2


@click.command(
    epilog=f"""\b
Before a launch:  dist-sched check *.yaml --updates 100k
In tokens:        dist-sched check run.toml --updates 5k --increment 4M
Before a resume:  dist-sched check runs/7b --updates 100k

\b
{options.JSON_KEYS}
  configs: path, findings (position, message), error (null if it is legal)"""
)
@click.argument("paths", metavar="CONFIG|CHECKPOINT...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--updates",
    metavar="N",
    callback=options.amount(),
    help="Length of the run in optimizer updates, to be compared with the horizon.",
)
@click.option(
    "--increment",
    metavar="M",
    callback=options.amount(rules.some),
    default="1",
    show_default=True,
    help="Units that an update completes: samples or tokens over all ranks.",
)
@options.as_json
def command(paths: tuple[str, ...], updates: int | None, increment: float, as_json: bool) -> int:
    """Name what is legal in a config and yet probably not meant.

    Jumps, a first learning rate of 0, phases of no length, a floor above the peak, a horizon that
    is not the run's end. Of a checkpoint, it is the schedule that its run had that is checked,
    late changes included. Ends with 0 if there is nothing, 1 if something was found, 2 if a
    config is illegal.
    """
    results = [_checked(path, updates, increment) for path in paths]
    if as_json:
        options.print_json({"configs": results})
    else:
        for result in results:
            _print(result)
    if any(result["error"] for result in results):
        return ILLEGAL
    return FOUND if any(result["findings"] for result in results) else 0


def _checked(path: str, updates: int | None, increment: float) -> dict[str, Any]:
    try:
        found = subjects.read(path).curve().lint(updates=updates, increment=increment)
    except (ConfigError, StateError) as error:
        return {"path": path, "findings": [], "error": " ".join(str(error).split())}
    return {"path": path, "findings": [_told(finding) for finding in found], "error": None}


def _told(finding: Finding) -> dict[str, Any]:
    return {"position": finding.position, "message": finding.message}


def _print(result: dict[str, Any]) -> None:
    if result["error"]:
        click.echo(f"dist-sched: error: {tables.printable(result['error'])}", err=True)
        return
    path = tables.printable(result["path"])
    for finding in result["findings"]:
        position = tables.shown(finding["position"])
        click.echo(f"{path}: position {position}: {tables.printable(finding['message'])}")
    if not result["findings"]:
        click.echo(f"{path}: no findings")
