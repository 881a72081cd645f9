"""`dist-sched convert`: a scheduler's state for another library."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dist_sched._config import files, views
from dist_sched._config.entries import Config, OptimizerParamConfig, with_history
from dist_sched._state.format import TEXT_KEY, UNIT_KEY, Checkpoint, pack, to_upstream, unpack
from dist_sched.cli import documents, options, subjects, tables
from dist_sched.errors import ConfigError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dist_sched.cli.subjects import Subject

_WSD = ("wsd_decay_steps", "lr_wsd_decay_style")
Written = tuple[dict[str, Any], list[str]]
"""What is written, and what is to be said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a state tells, and what is given beside it."""

    path: str
    state: Mapping[str, Any]
    kind: type[Config]
    told: Checkpoint
    declared: Config | None
    """What `--config` gave."""
    unit: str | None
    """None where nobody tells."""
    num_groups: int
    """Of the optimizer, for torch."""

    def base(self) -> Config:
        """Give the config before late changes.

        Raises:
            StateError: Something is not told; names it.
        """
        given = {} if self.declared is None else self.declared.parts()
        parts = {**given, **self.told.entries}
        missing = self._missing(parts)
        if missing:
            raise StateError(
                f"{self.path}: does not tell {', '.join(missing)}: give the config that the run "
                "had with --config"
            )
        return self.kind.of_parts(parts)

    def counted(self) -> str:
        """Give the unit.

        Raises:
            StateError: It is not told.
        """
        if self.unit is None:
            raise StateError(
                f"{self.path}: does not tell what its position counts: say it with --unit"
            )
        return self.unit

    def taken(self) -> list[str]:
        """Say what is not the state's."""
        if self.declared is None:
            return []
        names = [name for name in self.declared.parts() if name not in self.told.entries]
        said = [f"taken from --config: {', '.join(names)}"] if names else []
        return said + self._doubts(names)

    def _doubts(self, taken: list[str]) -> list[str]:
        """Name a tail that is taken from a config whose run ended elsewhere."""
        own, other = (
            parts.get("lr_decay_steps") for parts in (self.told.entries, self.declared_parts())
        )
        is_wsd = self.told.entries.get("lr_decay_style") == "WSD"
        if not is_wsd or own == other or set(_WSD).isdisjoint(taken):
            return []
        doubt = f"the state's lr_decay_steps={own!r} is not the config's {other!r}"
        return [f"make sure of {' and '.join(_WSD)}: {doubt}, so its tail may be another too"]

    def declared_parts(self) -> Mapping[str, Any]:
        """Give what --config has."""
        return {} if self.declared is None else self.declared.parts()

    def _missing(self, parts: Mapping[str, Any]) -> list[str]:
        if self.kind is not OptimizerParamConfig:
            return []
        optional = () if parts.get("lr_decay_style") == "WSD" else _WSD
        names = OptimizerParamConfig.entry_names()
        return [name for name in names if name not in parts and name not in optional]


def _dist_sched(source: Source) -> Written:
    base = source.base()
    state = pack(base, source.told.position, source.counted(), source.told.history)
    return dict(state), []


def _seeds(name: str) -> Callable[[Source], Written]:
    """Make what writes the seeds' ten keys, under the name by which a checkpoint has them."""

    def write(source: Source) -> Written:
        state = source.state
        if source.declared is not None:
            position, unit = source.told.position, source.unit or "steps"
            state = pack(source.base(), position, unit, source.told.history)
        try:
            keys, left = to_upstream(state, OptimizerParamConfig)
        except StateError as error:
            hint = "" if source.declared or TEXT_KEY in state else "; give it with --config"
            raise StateError(f"{source.path}: {error}{hint}") from error
        lost = [
            f"not carried: {entry}={value!r}; give it to the constructor that loads this"
            for entry, value in left.items()
            if value is not None and entry != UNIT_KEY
        ]
        if source.unit is not None:
            lost.append(_uncounted(source.unit))
        return {name: dict(keys)}, lost + _late(source, "stand in the entries as they changed them")

    return write


def _uncounted(unit: str) -> str:
    """Say what to do where the seeds have no word for the unit."""
    hint = "" if unit == "samples" else "; Megatron-LM's training loop counts samples"
    return (
        f"not carried: unit={unit!r}, for which theirs has no argument: call its step(increment) "
        f"with increments in {unit}, too{hint}"
    )


def _torch(source: Source) -> Written:
    """Give what `LambdaLR.state_dict` gives where its lambdas are functions."""
    unit = source.counted()
    if unit != "steps":
        raise StateError(
            f"{source.path}: counts {unit}, and torch's schedulers count calls of step(): only "
            "steps can be converted"
        )
    config = with_history(source.base(), source.told.history)
    track = next((track for track in views.tracks(config) if track.label == "lr"), None)
    if track is None:
        raise StateError(f"{source.path}: schedules no lr, which is all that torch's would take up")
    position, groups = source.told.position, source.num_groups
    state = {
        "base_lrs": [float(track.curve.max_value)] * groups,
        "last_epoch": position,
        "_step_count": position + 1,
        "_is_initial": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [track.value(position)] * groups,
        "lr_lambdas": [None] * groups,
    }
    others = [name for name in config.plan().values(0) if name != "lr"]
    lost = ["the curve of lr: the lambda of the script that loads this has to give it", *others]
    about = f"written for {groups} param group{'s' * (groups != 1)}, all with the same lr"
    said = [about, *(f"not carried: {name}" for name in lost)]
    return state, said + _late(source, "are part of the curve")


def _late(source: Source, what: str) -> list[str]:
    if not source.told.history:
        return []
    changes = "; ".join(map(str, source.told.history))
    return [f"not carried: the record of late changes, which {what}: {changes}"]


_TARGETS: dict[str, Callable[[Source], Written]] = {
    "dist-sched": _dist_sched,
    "megatron": _seeds("opt_param_scheduler"),
    "nemo": _seeds("scheduler"),
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
    help="The config that the run had, for what SRC does not tell.",
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
    """Read a scheduler's state out of checkpoint SRC, and write it to file DST for another library.

    DST is a file of torch.save, which torch.load(DST, weights_only=True) reads. What could not be
    carried is said line by line.
    """
    source = _source(subjects.read_checkpoint(path, key), config_path, unit, num_groups)
    state, said = _TARGETS[target](source)
    documents.write(destination, _saved(state), force=force)
    position = source.told.position
    tables.say(f"{destination}: the state of {path} at position {position}")
    for line in (*source.told.warnings, *source.taken(), *said):
        tables.say(line)


def _source(subject: Subject, config_path: str | None, unit: str | None, num_groups: int) -> Source:
    """Bring together what a checkpoint tells and what is given beside it."""
    state, kind, told = subject.state or {}, subject.kind, subject.checkpoint
    declared = None if config_path is None else files.read(config_path)
    if declared is not None or kind is None or told is None:
        kind = OptimizerParamConfig if declared is None else type(declared.config)
        told = unpack(state, kind, own={TEXT_KEY: ""})
    for name, given in (("--unit", unit), ("--config", declared and declared.unit)):
        if given is not None and told.unit not in (None, given):
            raise ConfigError(f"{name}: says {given}, and {subject.path} counts {told.unit}")
    return Source(
        path=subject.path,
        state=state,
        kind=kind,
        told=told,
        declared=None if declared is None else declared.config,
        unit=told.unit or unit or (None if declared is None else declared.unit),
        num_groups=num_groups,
    )


def _saved(state: dict[str, Any]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
