"""`dist-sched fork`: the config of a run that goes on from a checkpoint with a late change."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from dist_sched._config import amounts, files, views
from dist_sched._config.config import with_change
from dist_sched._config.entries import InexpressibleChangeError, OptimizerParamConfig
from dist_sched._config.history import Change
from dist_sched._config.policy import CONFIG
from dist_sched._config.translation import to_specification
from dist_sched._curves.schedule import KEEP_VALUE
from dist_sched._curves.shapes import shape_of, shapes
from dist_sched._rules import listed, near_miss
from dist_sched.cli import inputs, options, output
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._config.config import Config

_SHAPE = "minus_sqrt"
_TAKES = {
    "cooldown": ("steps", "shape", "end"),
    "extend": ("horizon", "keep"),
    "rewarm": ("steps", "peak"),
    "scale": ("factor",),
}
"""The arguments of each late change: first the length, the horizon or the factor."""


def _plain_shapes() -> list[str]:
    """Return the shapes that need no parameter, for which there is no option, and that move."""
    found = {name: shape_of(name) for name in shapes() if name != "constant"}
    return [name for name, shape in found.items() if set(shape.rules) <= set(shape.defaults)]


def _shape(value: str) -> str:
    """Read the name of a shape; one that --import registered is among them."""
    known = _plain_shapes()
    if value not in known:
        message = f"{value!r} is not one of {listed(known)}{near_miss(value, known)}"
        raise click.BadParameter(message)
    return value


@click.command(
    epilog="""\b
Write it:               dist-sched fork runs/7b --cooldown 20% -o cool.yaml
                        dist-sched fork runs/7b --extend 200k -o longer.yaml
See what will happen:   dist-sched diff runs/7b cool.yaml
                        dist-sched plot cool.yaml runs/7b"""
)
@options.checkpoint
@click.option(
    "--cooldown",
    metavar="LENGTH",
    type=options.written_length,
    help="Anneal over this length, in the checkpoint's unit: 2k, 1.5B, or 20% of the horizon.",
)
@click.option(
    "--extend",
    metavar="HORIZON",
    type=options.written_length,
    help="End at this later position, with a longer stable phase: 200k, or 150% of the horizon.",
)
@click.option(
    "--rewarm",
    metavar="LENGTH",
    type=options.written_length,
    help="Rise in a line over this length, written as for --cooldown.",
)
@click.option(
    "--scale",
    metavar="FACTOR",
    type=options.factor,
    help="Multiply the values from here on, as after a spike: 0.5.",
)
@click.option(
    "--keep",
    metavar="value",
    type=click.Choice([KEEP_VALUE]),
    help="Of --extend: stretch what is left of the phase, so that the value does not jump.",
)
@click.option(
    "--shape",
    metavar="SHAPE",
    type=_shape,
    shell_complete=lambda *typed: [one for one in _plain_shapes() if one.startswith(typed[-1])],
    help=f"Of a cooldown. Default: {_SHAPE}. One of {', '.join(_plain_shapes())}. exponential "
    "needs --end above 0.",
)
@click.option(
    "--end",
    metavar="VALUE",
    type=options.rate,
    help="Last value of a cooldown. Default: the schedule's where that is lower, else 0.",
)
@click.option(
    "--peak",
    metavar="VALUE",
    type=options.rate,
    help="Last value of a rewarm. Default: the schedule's highest.",
)
@click.option(
    "--at",
    metavar="POSITION",
    type=options.position,
    help="Where the change begins. Default: the checkpoint's position. It may be earlier or later "
    "if no value jumps there or at the checkpoint. Where a change that begins earlier would make "
    "the run jump at the checkpoint, fork from an earlier checkpoint.",
)
@click.option(
    "--field",
    metavar="FIELD",
    default="lr",
    show_default=True,
    help="The field, or extra, that changes.",
)
@options.key
@options.unit
@options.destination("CONFIG", "A .yaml, .json or .toml file; without it, YAML is printed.")
@options.force
def command(
    path: str,
    cooldown: str | None,
    extend: str | None,
    rewarm: str | None,
    scale: float | None,
    keep: str | None,
    shape: str | None,
    end: float | None,
    peak: float | None,
    at: int | None,
    field: str,
    key: str | None,
    unit: str | None,
    destination: str | None,
    force: bool,
) -> None:
    """Write the config of a run that goes on from a checkpoint with a late change.

    Exactly one of --cooldown, --extend, --rewarm and --scale. The checkpoint is left as it is. A
    run that resumes from it with this config, whose policy is "config", goes on as after
    scheduler.cooldown(...), extend(...), rewarm(...) or scale(...) there. A cooldown never rises:
    see --rewarm.

    Where the entries of OptimizerParamScheduler cannot express the change, it is a config of
    ParamScheduler (with "fields"), whose values agree with the run's up to rounding.
    """
    changes = {"cooldown": cooldown, "extend": extend, "rewarm": rewarm, "scale": scale}
    operation, written = _operation(changes)
    given = _checked(operation, {"shape": shape, "end": end, "peak": peak, "keep": keep})
    # Before the checkpoint is read, which may take long, only for a wrong ending.
    write = output.config_writer(destination)
    source = inputs.read_checkpoint(path, key)
    # A factor is a number already; a length may be a part of the horizon that was read.
    amount = (
        _units(f"--{operation}", written, source.config, field)
        if isinstance(written, str)
        else written
    )
    position = source.position if at is None else at
    arguments = {"field": field, _TAKES[operation][0]: amount, **given}
    change = Change(position, operation, arguments)
    before, after, notes = _fork(source.config, change, source.position)
    unit = inputs.require_unit(path, inputs.agreed_unit(source, {"--unit": unit}))
    mapping = files.to_mapping(after, unit=unit, policy=CONFIG)
    summary = views.late_change(change, before, after)
    today = dt.datetime.now(dt.UTC).date()
    origin = f"forked from {source.location.checkpoint}, at position {source.position} in {unit}"
    text = write(
        {name: value for name, value in mapping.items() if value != {}},
        [f"{origin}, on {today}", summary],
    )
    for note in (*source.notes, *notes):
        output.warn(f"note: {note}")
    if destination is None:
        click.echo(text, nl=False)
        return
    output.write_file(destination, text.encode(), force=force)
    output.say(f"{destination}: {summary}")
    output.say(f"resume with it from {source.location.checkpoint}")


def _operation(given: dict[str, str | float | None]) -> tuple[str, str | float]:
    """Return the one late change that is asked for, and its first argument.

    A length and a horizon are as they were written.
    """
    found = [(name, written) for name, written in given.items() if written is not None]
    if len(found) != 1:
        names = [f"--{name}" for name in given]
        _misused(f"give exactly one of {', '.join(names[:-1])} and {names[-1]}")
    return found[0]


def _checked(operation: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a late change takes beside its length, or raise for one of others."""
    taken = _TAKES[operation][1:]
    for name, value in given.items():
        if value is not None and name not in taken:
            owner = next(one for one, names in _TAKES.items() if name in names)
            _misused(f"--{name} is for --{owner}, not for --{operation}")
    # What is kept is an argument only where it is asked for.
    found = {name: given[name] for name in taken if name != "keep" or given[name] is not None}
    return {**found, "shape": found["shape"] or _SHAPE} if "shape" in found else found


def _misused(message: str) -> NoReturn:
    raise click.UsageError(message, click.get_current_context())


def _units(option: str, written: str, config: Config, field: str) -> int | float:
    """Return a length or horizon in units; a part is of the horizon of the field's schedule."""
    tracks = {track.label: track for track in views.tracks(config)}
    horizon = tracks[field].horizon if field in tracks else None
    found: int | float = amounts.amount(option, written, horizon or None)
    if found < 1:
        part = f"{100 * found:.15g}%"
        raise ConfigError(
            f"{option} {written}: must be at least 1 unit; a part of the horizon is written {part}"
        )
    return found


def _fork(config: Config, change: Change, position: int) -> tuple[Config, Config, list[str]]:
    """Return the config before and after a late change, and notes.

    Args:
        config: That of the checkpoint's run.
        change: The late change.
        position: The checkpoint's.

    Raises:
        ConfigError: The change is illegal, or makes a value jump where it begins, or where the run
            goes on.
    """
    notes = []
    try:
        changed, _ = with_change(config, change)
    except InexpressibleChangeError as error:
        try:
            # Only entries raise that error.
            config = to_specification(cast("OptimizerParamConfig", config))
        except ConfigError:
            raise error from None
        changed, _ = with_change(config, change)
        notes.append(
            "this is a ParamScheduler's config, whose values agree with the run's up to rounding: "
            f"{OptimizerParamConfig.KIND} cannot express the {change.operation}, {error.reason}"
        )
    jumps = changed.plan.jumps(config.plan, change.position)
    if jumps and change.operation != "scale":
        raise ConfigError(f"{change}: {jumps}: fork where the values are steady")
    jumps = changed.plan.jumps(config.plan, position)
    # A scale that begins there is a jump that is asked for.
    if jumps and not (change.operation == "scale" and change.position == position):
        raise ConfigError(
            f"{change}: {jumps}, where the run would go on: leave out --at, or fork "
            f"from a checkpoint at {change.position} or before"
        )
    return config, changed, notes
