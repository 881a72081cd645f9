"""`dist-sched fork`: write a config that continues a checkpoint with a changed schedule."""

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
"""The arguments of each late change, first the length, the horizon or the factor."""


def _plain_shapes() -> list[str]:
    """Return the shapes that need no parameter, except constant."""
    found = {name: shape_of(name) for name in shapes() if name != "constant"}
    return [name for name, shape in found.items() if set(shape.rules) <= set(shape.defaults)]


def _shape(value: str) -> str:
    """Read the name of a shape, including shapes from --import."""
    known = _plain_shapes()
    if value not in known:
        message = f"{value!r} is not one of {listed(known)}{near_miss(value, known)}"
        raise click.BadParameter(message)
    return value


@click.command(
    epilog="""\b
Write a config:  dist-sched fork runs/7b --cooldown 20% -o cool.yaml
                 dist-sched fork runs/7b --extend 200k -o longer.yaml
Look at it:      dist-sched diff runs/7b cool.yaml
                 dist-sched plot cool.yaml runs/7b"""
)
@options.checkpoint
@click.option(
    "--cooldown",
    metavar="LENGTH",
    type=options.written_length,
    help="Decay from the current value over this length: 2k, 1.5B, or 20% (of the horizon).",
)
@click.option(
    "--extend",
    metavar="HORIZON",
    type=options.written_length,
    help="Move the horizon to this later position: 200k, or 150% (of the horizon). It makes the "
    "stable phase longer.",
)
@click.option(
    "--rewarm",
    metavar="LENGTH",
    type=options.written_length,
    help="Rise linearly over this length, written as for --cooldown.",
)
@click.option(
    "--scale",
    metavar="FACTOR",
    type=options.factor,
    help="Multiply all later values by this factor, for example by 0.5 after a loss spike.",
)
@click.option(
    "--keep",
    metavar="value",
    type=click.Choice([KEEP_VALUE]),
    help="For --extend: stretch only the rest of the phase, so that the value does not jump.",
)
@click.option(
    "--shape",
    metavar="SHAPE",
    type=_shape,
    shell_complete=lambda *typed: [one for one in _plain_shapes() if one.startswith(typed[-1])],
    help=f"For --cooldown: its shape, one of {', '.join(_plain_shapes())}. Default: {_SHAPE}. "
    "exponential needs --end above 0.",
)
@click.option(
    "--end",
    metavar="VALUE",
    type=options.rate,
    help="For --cooldown: its last value. Default: the schedule's last value if it is lower than "
    "the current one, else 0.",
)
@click.option(
    "--peak",
    metavar="VALUE",
    type=options.rate,
    help="For --rewarm: its last value. Default: the schedule's highest value.",
)
@click.option(
    "--at",
    metavar="POSITION",
    type=options.position,
    help="Position at which the change begins. Default: the checkpoint's position. With another "
    "position, no value may jump there or at the checkpoint's position.",
)
@click.option(
    "--field",
    metavar="FIELD",
    default="lr",
    show_default=True,
    help="The field or extra to change.",
)
@options.key
@options.unit
@options.destination(
    "CONFIG", "The .yaml, .yml, .json or .toml file to write. Without it, YAML is printed."
)
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
    """Write a config that continues a checkpoint with a changed schedule.

    Use exactly one of --cooldown, --extend, --rewarm and --scale. Then resume from the checkpoint
    with the new config. The effect is the same as of scheduler.cooldown(...), extend(...),
    rewarm(...) or scale(...) at this position. The policy of the new config is "config", so that
    it wins over the checkpoint. The checkpoint does not change.

    If the entries of OptimizerParamScheduler cannot express the change, the new config is for
    ParamScheduler (with "fields"). Its values agree with the run's up to rounding.
    """
    changes = {"cooldown": cooldown, "extend": extend, "rewarm": rewarm, "scale": scale}
    operation, written = _operation(changes)
    given = _checked(operation, {"shape": shape, "end": end, "peak": peak, "keep": keep})
    # Checked before the checkpoint is read, which may take long.
    write = output.config_writer(destination)
    source = inputs.read_checkpoint(path, key)
    # A factor is a number already. A length may be a percent of the horizon.
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
    output.say(f"to continue, resume from {source.location.checkpoint} with this config")


def _operation(given: dict[str, str | float | None]) -> tuple[str, str | float]:
    """Return the late change and its first argument, as it was written."""
    found = [(name, written) for name, written in given.items() if written is not None]
    if len(found) != 1:
        names = [f"--{name}" for name in given]
        _misused(f"use exactly one of {', '.join(names[:-1])} and {names[-1]}")
    return found[0]


def _checked(operation: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the other options of a late change, or raise if an option is for another change."""
    taken = _TAKES[operation][1:]
    for name, value in given.items():
        if value is not None and name not in taken:
            owner = next(one for one, names in _TAKES.items() if name in names)
            _misused(f"--{name} is for --{owner}, not for --{operation}")
    # `keep` is an argument only if it is used.
    found = {name: given[name] for name in taken if name != "keep" or given[name] is not None}
    return {**found, "shape": found["shape"] or _SHAPE} if "shape" in found else found


def _misused(message: str) -> NoReturn:
    raise click.UsageError(message, click.get_current_context())


def _units(option: str, written: str, config: Config, field: str) -> int | float:
    """Return a length or horizon in units. A percent is of the horizon of the field."""
    tracks = {track.label: track for track in views.tracks(config)}
    horizon = tracks[field].horizon if field in tracks else None
    found: int | float = amounts.amount(option, written, horizon or None)
    if found < 1:
        part = f"{100 * found:.15g}%"
        raise ConfigError(
            f"{option} {written}: must be at least 1 unit; for a share of the horizon write {part}"
        )
    return found


def _fork(config: Config, change: Change, position: int) -> tuple[Config, Config, list[str]]:
    """Return the config before and after a late change, and notes.

    Args:
        config: The config of the checkpoint's run.
        change: The late change.
        position: The checkpoint's position.

    Raises:
        ConfigError: The change is invalid, or makes a value jump where it begins or at the
            checkpoint's position.
    """
    notes = []
    try:
        changed, _ = with_change(config, change)
    except InexpressibleChangeError as error:
        try:
            # Only OptimizerParamConfig raises this error.
            config = to_specification(cast("OptimizerParamConfig", config))
        except ConfigError:
            raise error from None
        changed, _ = with_change(config, change)
        notes.append(
            f"the new config is for ParamScheduler, because with {OptimizerParamConfig.KIND} "
            f"{error.reason}; its values agree with the run's up to rounding"
        )
    jumps = changed.plan.jumps(config.plan, change.position)
    if jumps and change.operation != "scale":
        raise ConfigError(f"{change}: {jumps}; fork where the value is constant")
    jumps = changed.plan.jumps(config.plan, position)
    # A scale at the checkpoint's position is an intended jump.
    if jumps and not (change.operation == "scale" and change.position == position):
        raise ConfigError(
            f"{change}: {jumps}, where the run would continue; leave out --at, or fork from a "
            f"checkpoint at {change.position} or before"
        )
    return config, changed, notes
