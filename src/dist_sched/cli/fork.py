"""`dist-sched fork`: the config that anneals from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from dist_sched._config import files, views
from dist_sched._config.entries import InexpressibleChangeError, OptimizerParamConfig
from dist_sched._config.history import Change
from dist_sched._config.policy import CONFIG
from dist_sched._config.translation import to_specification
from dist_sched._curves.shapes import shape_of, shapes
from dist_sched._rules import listed, near_miss, refuse_shares
from dist_sched.cli import inputs, options, output
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._config.config import Config


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
Write it:               dist-sched fork runs/7b --cooldown 2k -o cool.yaml
See what will happen:   dist-sched diff cool.yaml runs/7b
                        dist-sched plot cool.yaml runs/7b"""
)
@options.checkpoint
@click.option(
    "--cooldown",
    "steps",
    metavar="STEPS",
    required=True,
    type=options.length,
    help="Length, in the checkpoint's unit.",
)
@click.option(
    "--shape",
    metavar="SHAPE",
    type=_shape,
    shell_complete=lambda *typed: [one for one in _plain_shapes() if one.startswith(typed[-1])],
    default="minus_sqrt",
    show_default=True,
    help=f"One of {', '.join(_plain_shapes())}. exponential needs --end above 0.",
)
@click.option(
    "--end",
    metavar="VALUE",
    type=options.rate,
    help="Value at its end. Default: the schedule's last one where that is lower, else 0.",
)
@click.option("--field", default="lr", show_default=True, help="The field that anneals.")
@options.key
@options.unit
@options.destination("CONFIG", "A .yaml, .json or .toml file; without it, YAML is printed.")
@options.force
def command(
    path: str,
    steps: float,
    shape: str,
    end: float | None,
    field: str,
    key: str | None,
    unit: str | None,
    destination: str | None,
    force: bool,
) -> None:
    """Write the config that anneals from a checkpoint's position.

    The checkpoint is left as it is. A run that resumes from it with this config, whose policy is
    "config", goes on as after scheduler.cooldown(...) there.

    Where the entries of OptimizerParamScheduler cannot express the cooldown, it is a config of
    ParamScheduler (with "fields"), whose values agree with the run's up to rounding.
    """
    # Before the checkpoint is read, which may take long, only for a wrong ending.
    write = output.config_writer(destination)
    source = inputs.read_checkpoint(path, key)
    refuse_shares({"--cooldown": steps})
    arguments = {"field": field, "steps": steps, "shape": shape, "end": end}
    change = Change(source.position, "cooldown", arguments)
    config, notes = _fork(source.config, change)
    unit = inputs.require_unit(path, inputs.agreed_unit(source, {"--unit": unit}))
    mapping = files.to_mapping(config, unit=unit, policy=CONFIG)
    text = write({name: value for name, value in mapping.items() if value != {}})
    for note in (*source.notes, *notes):
        output.warn(f"note: {note}")
    if destination is None:
        click.echo(text, nl=False)
        return
    output.write_file(destination, text.encode(), force=force)
    output.say(f"{destination}: {_summary(change, config)}")
    output.say(f"resume with it from {source.location}")


def _fork(config: Config, change: Change) -> tuple[Config, list[str]]:
    """Return the changed config, a `ParamScheduler`'s if need be, and notes on it.

    Raises:
        ConfigError: The change is illegal, or makes a value jump.
    """
    notes = []
    try:
        changed = config.apply(change)
    except InexpressibleChangeError as error:
        try:
            # Only entries raise that error.
            config = to_specification(cast("OptimizerParamConfig", config))
        except ConfigError:
            raise error from None
        changed = config.apply(change)
        notes.append(
            "this is a ParamScheduler's config, whose values agree with the run's up to rounding: "
            f"{OptimizerParamConfig.KIND} cannot express the cooldown, {error.reason}"
        )
    jumps = changed.plan.jumps(config.plan, change.position)
    if jumps:
        raise ConfigError(f"{change}: {'; '.join(jumps)}: fork where the values are steady")
    return changed, notes


def _summary(change: Change, config: Config) -> str:
    """Say what will happen."""
    end = change.position + change.arguments["steps"]
    track = next(track for track in views.tracks(config) if track.label == change.field)
    first, last = (output.shown(track.value(int(where))) for where in (change.position, end))
    return (
        f"{change.field} goes from {first} at position {change.position} to {last} at "
        f"{output.shown(end)} ({change.arguments['shape']})"
    )
