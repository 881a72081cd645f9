"""`dist-sched convert`: convert a scheduler's state for another library."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dist_sched._config import files, views
from dist_sched._config.config import Config, with_history
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._state.format import TEXT_KEY, UNIT_KEY, Checkpoint, pack, to_upstream
from dist_sched.cli import inputs, options, output
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dist_sched.cli.inputs import CheckpointInput

_WSD = ("wsd_decay_steps", "lr_wsd_decay_style")
Converted = tuple[dict[str, Any], list[str]]
"""The state to write, and notes about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint's state, with additions from the command line."""

    checkpoint: CheckpointInput
    saved: Checkpoint
    """The contents of the state, for the kind of scheduler of `--config`."""
    added: Mapping[str, Any]
    """The parts of the config of `--config`."""
    unit: str | None
    """None if it is unknown."""
    num_groups: int
    """Number of param groups of the optimizer, for torch."""

    @property
    def path(self) -> str:
        """The path of the checkpoint on the command line."""
        return self.checkpoint.path

    def config(self) -> Config:
        """Return the config before late changes.

        Raises:
            StateError: Entries are missing.
        """
        parts = {**self.added, **self.saved.parts}
        if self.saved.kind is OptimizerParamConfig:
            unused = () if parts.get("lr_decay_style") == "WSD" else _WSD
            names = OptimizerParamConfig.entry_names()
            missing = [name for name in names if name not in (*parts, *unused)]
            if missing:
                raise StateError(
                    f"{self.path}: does not have {', '.join(missing)}; add the run's config with "
                    "--config"
                )
        return self.saved.kind.from_parts(parts)

    def notes(self) -> list[str]:
        """Return notes about entries that are from `--config`."""
        saved = self.saved.parts
        taken = [name for name in self.added if name not in saved]
        notes = [f"from --config: {', '.join(taken)}"] if taken else []
        # A run with a cooldown has another end and another decay than its config.
        ends = saved.get("lr_decay_steps"), self.added.get("lr_decay_steps")
        if saved.get("lr_decay_style") == "WSD" and ends[0] != ends[1] and {*_WSD} & {*taken}:
            notes.append(
                f"check {' and '.join(_WSD)}: lr_decay_steps is {ends[0]!r} in the state, but "
                f"{ends[1]!r} in the config, so the decay may differ, too"
            )
        return notes

    def late_changes(self, where: str) -> list[str]:
        """Return a note about the late changes, whose record is lost."""
        changes = "; ".join(map(str, self.saved.history))
        return [f"not converted: the history, {where}: {changes}"] if changes else []


def _dist_sched(source: Source) -> Converted:
    config, unit = source.config(), inputs.require_unit(source.path, source.unit)
    return dict(pack(config, source.saved.position, unit, source.saved.history)), []


def _upstream(name: str, source: Source) -> Converted:
    """Return the ten keys of Megatron and NeMo, under the name in their checkpoints."""
    state, unit = source.checkpoint.state, source.unit
    if source.added:
        saved = source.saved
        state = pack(source.config(), saved.position, unit or "steps", saved.history)
    try:
        keys, left = to_upstream(state)
    except StateError as error:
        hint = "" if source.added or TEXT_KEY in state else "; add the run's with --config"
        raise StateError(f"{source.path}: {error}{hint}") from error
    notes = [
        f"not converted: {entry}={value!r}; pass it to the constructor of the new scheduler"
        for entry, value in left.items()
        if value is not None and entry != UNIT_KEY
    ]
    if unit is not None:
        # Upstream has no unit: it counts the increments of its caller.
        hint = "" if unit == "samples" else " (Megatron-LM's training loop counts samples)"
        notes.append(
            f"not converted: unit={unit!r}, which theirs does not have; call its step(increment) "
            f"with increments in {unit}{hint}"
        )
    return {name: dict(keys)}, notes + source.late_changes("which is part of the entries")


def _torch(source: Source) -> Converted:
    """Return a state as of a `LambdaLR` whose lambdas are functions."""
    unit = inputs.require_unit(source.path, source.unit)
    if unit != "steps":
        raise StateError(
            f"{source.path}: has the unit {unit}, but torch's schedulers count calls of step(); "
            "only steps can be converted"
        )
    config = with_history(source.config(), source.saved.history)
    track = next((track for track in views.tracks(config) if track.label == "lr"), None)
    if track is None:
        raise StateError(f"{source.path}: does not schedule lr, as torch's schedulers do")
    position, groups = source.saved.position, source.num_groups
    state = {
        # LambdaLR multiplies these by the results of its lambdas.
        "base_lrs": [float(track.curve.max_value)] * groups,
        "last_epoch": position,
        "_step_count": position + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [track.value(position)] * groups,
        # LambdaLR saves None for a function.
        "lr_lambdas": [None] * groups,
    }
    notes = [
        f"written for {groups} param group{'s' * (groups != 1)}, all with the same lr",
        "not converted: the curve of lr; the lambda of the new script must have it",
        *(f"not converted: {name}" for name in map(str, config.plan.values(0)) if name != "lr"),
    ]
    return state, notes + source.late_changes("which is part of the curve")


_TARGETS: dict[str, Callable[[Source], Converted]] = {
    "dist-sched": _dist_sched,
    "megatron": functools.partial(_upstream, "opt_param_scheduler"),
    "nemo": functools.partial(_upstream, "scheduler"),
    "torch": _torch,
}


@click.command(
    epilog="""\b
From Megatron-LM:  dist-sched convert iter_0001000 ours.pt --to dist-sched \\
                     --config run.yaml
To Megatron-LM:    dist-sched convert runs/7b theirs.pt --to megatron"""
)
@click.argument("path", metavar="SRC", type=click.Path())
@click.argument("destination", metavar="DST", type=click.Path())
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Choice(list(_TARGETS)),
    help="The library to write the state for.",
)
@options.key
@click.option(
    "--config",
    "config_path",
    metavar="CONFIG",
    type=click.Path(),
    help="The run's config, for entries that SRC does not have.",
)
@options.unit
@click.option(
    "--num-groups",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="For torch: number of param groups of the optimizer.",
)
@options.force
def command(
    path: str,
    destination: str,
    target: str,
    key: str | None,
    config_path: str | None,
    unit: str | None,
    num_groups: int,
    force: bool,
) -> None:
    """Convert the scheduler's state in checkpoint SRC for another library, and write it to DST.

    DST is a file of torch.save, which you can read with torch.load(DST, weights_only=True).
    Everything that cannot be converted is printed.
    """
    import torch  # other commands do not need it, and start faster without it

    checkpoint = inputs.read_checkpoint(path, key)
    declared = None if config_path is None else files.read(config_path)
    units = {"--unit": unit, "--config": None if declared is None else declared.unit}
    source = Source(
        checkpoint=checkpoint,
        saved=checkpoint.saved.for_kind(
            type(declared.config) if declared else checkpoint.saved.kind
        ),
        added={} if declared is None else declared.config.parts(),
        unit=inputs.agreed_unit(checkpoint, units),
        num_groups=num_groups,
    )
    state, notes = _TARGETS[target](source)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    output.write_file(destination, buffer.getvalue(), force=force)
    output.say(f"{destination}: the state of {path} at position {source.saved.position}")
    for line in (*source.saved.warnings, *source.notes(), *notes):
        output.say(line)
