"""`dist-sched fork`: the config that anneals from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dist_sched import declarations, rules, views
from dist_sched.cli import documents, options, subjects, tables
from dist_sched.config import InexpressibleChangeError, OptimizerParamConfig
from dist_sched.errors import ConfigError
from dist_sched.lineage import Change
from dist_sched.policies import CONFIG
from dist_sched.shapes import shape_of, shapes
from dist_sched.translation import of_seeds

if TYPE_CHECKING:
    from dist_sched.cli.subjects import Subject
    from dist_sched.config import Config


def _plain_shapes() -> list[str]:
    """Name the shapes that need no parameter, as none can be given, and that go somewhere."""
    found = {name: shape_of(name) for name in shapes() if name != "constant"}
    return [name for name, shape in found.items() if set(shape.rules) <= set(shape.defaults)]


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else rules.rate("end", declarations.number(value))
    except (ConfigError, ArithmeticError) as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command(
    epilog="""\b
Write it:               dist-sched fork runs/7b --cooldown 2k -o cool.yaml
See what will happen:   dist-sched diff cool.yaml runs/7b
                        dist-sched plot cool.yaml runs/7b"""
)
@click.argument("path", metavar="CHECKPOINT", type=click.Path())
@click.option(
    "--cooldown",
    "steps",
    metavar="STEPS",
    required=True,
    callback=options.amount(rules.some),
    help="Length, in the checkpoint's unit.",
)
@click.option(
    "--shape",
    metavar="SHAPE",
    type=click.Choice(_plain_shapes()),
    default="minus_sqrt",
    show_default=True,
    help=f"How: {', '.join(_plain_shapes())}. exponential needs --end above 0.",
)
@click.option(
    "--end",
    metavar="VALUE",
    callback=_rate,
    help="Value at its end. Default: the schedule's last one where that is lower, else 0.",
)
@click.option("--field", default="lr", show_default=True, help="Whose schedule.")
@options.key
@options.unit
@click.option(
    "-o",
    "--output",
    metavar="CONFIG",
    type=click.Path(),
    help="A .yaml, .json or .toml file; without it, YAML is printed.",
)
@options.force
def command(
    path: str,
    steps: float,
    shape: str,
    end: float | None,
    field: str,
    key: str | None,
    unit: str | None,
    output: str | None,
    force: bool,
) -> None:
    """Write the config that anneals from a checkpoint's position.

    The checkpoint is left as it is. A run that resumes from it with this config, whose policy is
    "config", goes on as after scheduler.cooldown(...) there.

    Where the entries of OptimizerParamScheduler cannot express the cooldown, it is a config of
    ParamScheduler (with "fields"), whose values agree with the run's up to rounding.
    """
    write = documents.to_yaml if output is None else documents.writer(output)
    subject = subjects.read_checkpoint(path, key)
    arguments = {"field": field, "steps": steps, "shape": shape, "end": end}
    change = _change(subject, arguments)
    after, said = _forked(subject.curve(), change)
    mapping = declarations.to_mapping(after, unit=_unit(subject, unit), policy=CONFIG)
    told = {name: value for name, value in mapping.items() if value != {}}
    _note(*subject.notes, *said)
    if output is None:
        click.echo(write(told), nl=False)
        return
    documents.write(output, write(told).encode(), force=force)
    tables.say(f"{output}: {_summary(change, after)}")
    tables.say(f"resume with it from {subject.where}")


def _change(subject: Subject, arguments: dict[str, Any]) -> Change:
    position = subject.position
    return Change(0 if position is None else position, "cooldown", arguments)


def _forked(before: Config, change: Change) -> tuple[Config, list[str]]:
    """Make a late change, of a `ParamScheduler`'s config where the entries cannot express it.

    Returns:
        The config, and what a person should know of it.

    Raises:
        ConfigError: Neither can express it.
    """
    try:
        return _changed(before, change), []
    except InexpressibleChangeError as error:
        other, reason = _as_specification(before), error.reason
        if other is None:
            raise
    about = (
        "this is a ParamScheduler's config, whose values agree with the run's up to rounding: "
        f"OptimizerParamScheduler cannot express the cooldown, {reason}"
    )
    return _changed(other, change), [about]


def _as_specification(config: Config) -> Config | None:
    """Give the same curves as a `ParamScheduler`'s config; None where phases cannot say them."""
    if not isinstance(config, OptimizerParamConfig):
        return None
    try:
        return of_seeds(config)
    except ConfigError:
        return None


def _changed(before: Config, change: Change) -> Config:
    """Make a late change, and make sure that no value jumps where it is made."""
    after = before.changed(change)
    found = after.courses().jumps(before.courses(), change.position)
    if found:
        raise ConfigError(f"{change}: {'; '.join(found)}: fork where the values are steady")
    return after


def _unit(subject: Subject, given: str | None) -> str:
    """Give what the position counts.

    Raises:
        ConfigError: Nobody tells, or the checkpoint tells another than was given.
    """
    if given is not None and subject.unit not in (None, given):
        raise ConfigError(f"--unit {given}: {subject.path} counts {subject.unit}")
    found = subject.unit or given
    if found is None:
        raise ConfigError(
            f"{subject.path}: does not tell what its position {subject.position} counts: "
            "say it with --unit"
        )
    return found


def _note(*notes: str) -> None:
    for note in notes:
        click.echo(f"note: {tables.printable(note)}", err=True)


def _summary(change: Change, after: Config) -> str:
    """Say what will happen."""
    end = change.position + change.arguments["steps"]
    curves = {track.label: track for track in views.tracks(after)}
    track = curves[change.field]
    values = (tables.shown(track.value(int(position))) for position in (change.position, end))
    first, last = values
    return (
        f"{change.field} goes from {first} at position {change.position} to {last} at "
        f"{tables.shown(end)} ({change.arguments['shape']})"
    )
