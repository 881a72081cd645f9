"""`dist-sched convert`: a scheduler's state for another library."""

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
"""What is written, and notes on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint's state, and what the command line adds to it."""

    checkpoint: CheckpointInput
    saved: Checkpoint
    """What the state says, read as of the kind of scheduler that `--config` is for."""
    added: Mapping[str, Any]
    """The parts of `--config`'s config."""
    unit: str | None
    """None where neither the state nor the command line says."""
    num_groups: int
    """Param groups of the optimizer, for torch."""

    @property
    def path(self) -> str:
        """The checkpoint's, as the command line has it."""
        return self.checkpoint.path

    def config(self) -> Config:
        """Return the config before late changes.

        Raises:
            StateError: Entries are missing; names them.
        """
        parts = {**self.added, **self.saved.parts}
        if self.saved.kind is OptimizerParamConfig:
            unused = () if parts.get("lr_decay_style") == "WSD" else _WSD
            names = OptimizerParamConfig.entry_names()
            missing = [name for name in names if name not in (*parts, *unused)]
            if missing:
                raise StateError(
                    f"{self.path}: does not have {', '.join(missing)}: add the run's config with "
                    "--config"
                )
        return self.saved.kind.from_parts(parts)

    def notes(self) -> list[str]:
        """Say which entries are not the state's, and which of those are in doubt."""
        saved = self.saved.parts
        taken = [name for name in self.added if name not in saved]
        notes = [f"taken from --config: {', '.join(taken)}"] if taken else []
        # A run that was cooled down ends elsewhere than its config says, and so does its tail.
        ends = saved.get("lr_decay_steps"), self.added.get("lr_decay_steps")
        if saved.get("lr_decay_style") == "WSD" and ends[0] != ends[1] and {*_WSD} & {*taken}:
            notes.append(
                f"make sure of {' and '.join(_WSD)}: the state's lr_decay_steps={ends[0]!r} is not "
                f"the config's {ends[1]!r}, so its tail may differ, too"
            )
        return notes

    def late_changes(self, where: str) -> list[str]:
        """Say where the late changes are, of which no record is carried."""
        changes = "; ".join(map(str, self.saved.history))
        return [f"not carried: the history, {where}: {changes}"] if changes else []


def _dist_sched(source: Source) -> Converted:
    config, unit = source.config(), inputs.require_unit(source.path, source.unit)
    return dict(pack(config, source.saved.position, unit, source.saved.history)), []


def _upstream(name: str, source: Source) -> Converted:
    """Write the ten keys of Megatron and NeMo under the name that their checkpoints have."""
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
        f"not carried: {entry}={value!r}; pass it to the constructor that loads this"
        for entry, value in left.items()
        if value is not None and entry != UNIT_KEY
    ]
    if unit is not None:
        # Upstream counts what its caller passes to step(), so the unit is the script's affair.
        hint = "" if unit == "samples" else "; Megatron-LM's training loop counts samples"
        notes.append(
            f"not carried: unit={unit!r}, for which theirs has no argument: call its "
            f"step(increment) with increments in {unit}, too{hint}"
        )
    return {name: dict(keys)}, notes + source.late_changes("which is part of the entries")


def _torch(source: Source) -> Converted:
    """Write what `LambdaLR.state_dict` returns where its lambdas are functions."""
    unit = inputs.require_unit(source.path, source.unit)
    if unit != "steps":
        raise StateError(
            f"{source.path}: counts {unit}, and torch's schedulers count calls of step(): only "
            "steps can be converted"
        )
    config = with_history(source.config(), source.saved.history)
    track = next((track for track in views.tracks(config) if track.label == "lr"), None)
    if track is None:
        raise StateError(f"{source.path}: schedules no lr, and torch's schedules nothing else")
    position, groups = source.saved.position, source.num_groups
    state = {
        # LambdaLR multiplies these by what its lambdas return.
        "base_lrs": [float(track.curve.max_value)] * groups,
        "last_epoch": position,
        "_step_count": position + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [track.value(position)] * groups,
        # It saves None for a function: only callable objects have a state.
        "lr_lambdas": [None] * groups,
    }
    notes = [
        f"written for {groups} param group{'s' * (groups != 1)}, all with the same lr",
        "not carried: the curve of lr, which the lambda of the script that loads this must have",
        *(f"not carried: {name}" for name in map(str, config.plan.values(0)) if name != "lr"),
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
    "--to", "target", required=True, type=click.Choice(list(_TARGETS)), help="Whose state to write."
)
@options.key
@click.option(
    "--config",
    "config_path",
    metavar="CONFIG",
    type=click.Path(),
    help="The run's config, for what SRC does not have.",
)
@options.unit
@click.option(
    "--num-groups",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="For torch: how many param groups the optimizer has.",
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
    """Read a scheduler's state from checkpoint SRC, and write it to file DST for another library.

    DST is a file of torch.save, which torch.load(DST, weights_only=True) reads. What cannot be
    carried is printed line by line.
    """
    import torch  # no other command needs it, or could wait for it

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
