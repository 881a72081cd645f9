"""`dist-sched check`: warn about valid configs that are probably mistakes, before a launch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from dist_sched import _rules as rules
from dist_sched._curves.lint import LEVELS, in_order
from dist_sched.cli import inputs, options, output
from dist_sched.errors import ConfigError, StateError

if TYPE_CHECKING:
    from collections.abc import Collection

    from dist_sched._curves.lint import Finding, Level

_STATUS = {"note": 0, "warning": 1, "error": 2}


@click.command(
    epilog=f"""\b
Before a launch:  dist-sched check *.yaml --updates 100k
In tokens:        dist-sched check run.toml --updates 5k --increment 4M
Before a resume:  dist-sched check runs/7b --updates 100k
In CI:            dist-sched check *.yaml --strict --ignore first-lr-zero

\b
{options.JSON_KEYS}
  configs: a list of path, findings, error (null if the config is valid)
  findings: a list of position (may be null), message, code, level"""
)
@options.paths
@click.option(
    "--updates",
    metavar="N",
    type=options.position,
    help="Length of the run in optimizer updates. Without it, the end of the run is not checked.",
)
@click.option(
    "--increment",
    metavar="M",
    type=options.length,
    default="1",
    show_default=True,
    help="Units per update: the samples or tokens of an update on all ranks together. 1 if the "
    "unit is steps.",
)
@click.option(
    "--ignore",
    "ignored",
    metavar="CODE",
    type=options.code,
    multiple=True,
    shell_complete=lambda *typed: [code for code in LEVELS if code.startswith(typed[-1])],
    help="Ignore findings with this code, such as first-lr-zero. Can be repeated.",
)
@click.option("--strict", is_flag=True, help="Treat notes like warnings in the exit status.")
@options.as_json
def command(
    paths: tuple[str, ...],
    updates: int | None,
    increment: float,
    ignored: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> int:
    """Warn about valid configs that are probably mistakes.

    It finds jumps, phases that are shorter than an update, phases that do not end at the horizon, a
    floor above the peak, a horizon that is not the end of the run, and more. For a checkpoint, it
    checks the schedule of its run, including late changes.

    The exit status is 0 without findings or with notes only, 1 with a warning, and 2 with an error
    or an invalid config.
    """
    results = [_check(path, updates, increment, ignored) for path in paths]
    if as_json:
        output.print_json({"configs": [result.to_dict() for result in results]})
    else:
        for result in results:
            _print(result)
    lowest = 1 if strict else 0
    levels = {level for result in results for level in result.levels()}
    return max((max(lowest, _STATUS[level]) for level in levels), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """The result for one config or checkpoint."""

    path: str
    findings: tuple[Finding, ...] = ()
    error: str | None = None
    """Why it is invalid, or None."""

    def levels(self) -> list[Level]:
        """Return the levels of the findings, or "error" for an invalid config."""
        return [one.level for one in self.findings] if self.error is None else ["error"]

    def to_dict(self) -> dict[str, Any]:
        findings = [{**asdict(one), "level": one.level} for one in self.findings]
        return {"path": self.path, "findings": findings, "error": self.error}


def _check(path: str, updates: int | None, increment: float, ignored: Collection[str]) -> _Result:
    try:
        source = inputs.read(path)
        config = source.config
        with rules.within(path):
            found = config.lint(updates=updates, increment=increment, unit=source.unit)
    except (ConfigError, StateError) as error:
        # Collected, so that the other configs are checked, too.
        message = f"{error}{output.hint(error)}"
        return _Result(path=path, error=" ".join(message.split()))
    kept = [one for one in (*found, *source.findings) if one.code not in ignored]
    return _Result(path=path, findings=in_order(kept))


def _print(result: _Result) -> None:
    if result.error is not None:
        output.warn(f"dist-sched: error: {result.error}")
        return
    for line in [f"{one.level}: {one}" for one in result.findings] or ["no findings"]:
        output.say(f"{result.path}: {line}")
