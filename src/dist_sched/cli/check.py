"""`dist-sched check`: warn about valid configs that are probably mistakes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from dist_sched.cli import inputs, options, output
from dist_sched.errors import ConfigError, StateError


@click.command(
    epilog=f"""\b
Before a launch:  dist-sched check *.yaml --updates 100k
In tokens:        dist-sched check run.toml --updates 5k --increment 4M
Before a resume:  dist-sched check runs/7b --updates 100k

\b
{options.JSON_KEYS}
  configs: path, findings (position, message), error (null if it is legal)"""
)
@options.paths
@click.option(
    "--updates",
    metavar="N",
    type=options.position,
    help="Length of the run in optimizer updates, to compare with the horizon.",
)
@click.option(
    "--increment",
    metavar="M",
    type=options.length,
    default="1",
    show_default=True,
    help="Units that an update completes: samples or tokens over all ranks.",
)
@options.as_json
def command(paths: tuple[str, ...], updates: int | None, increment: float, as_json: bool) -> int:
    """Warn about valid configs that are probably mistakes.

    Jumps, a first learning rate of 0, phases of no length, a floor above the peak, a horizon that
    is not the run's end. Of a checkpoint, the schedule of its run is checked, late changes
    included. The status is 0 if nothing was found, 1 if something was, 2 if a config is illegal.
    """
    results = [_check(path, updates, increment) for path in paths]
    if as_json:
        output.print_json({"configs": results})
    else:
        for result in results:
            _print(**result)
    return max(2 if result["error"] else bool(result["findings"]) for result in results)


def _check(path: str, updates: int | None, increment: float) -> dict[str, Any]:
    found: tuple[Any, ...] = ()
    message = None
    try:
        found = inputs.read(path).config.lint(updates=updates, increment=increment)
    except (ConfigError, StateError) as error:
        # Collected, so that the other configs are checked all the same.
        message = " ".join(f"{error}{output.hint(error)}".split())
    return {"path": path, "findings": [asdict(finding) for finding in found], "error": message}


def _print(path: str, findings: list[dict[str, Any]], error: str | None) -> None:
    if error is not None:
        output.warn(f"dist-sched: error: {error}")
        return
    lines = [f"position {output.shown(one['position'])}: {one['message']}" for one in findings]
    for line in lines or ["no findings"]:
        output.say(f"{path}: {line}")
