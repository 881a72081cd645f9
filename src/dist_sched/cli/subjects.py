"""Subjects: what the arguments of a command name, a config file or a checkpoint, read alike."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dist_sched import checkpoint as checkpoints
from dist_sched import declarations
from dist_sched.config import Config, OptimizerParamConfig, evolved
from dist_sched.errors import ConfigError, StateError
from dist_sched.state import Checkpoint, State, pack, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_ENDINGS = (".json", ".yaml", ".yml", ".toml")

_ASSUMED = {"init_lr": 0.0, "wsd_decay_steps": None, "lr_wsd_decay_style": None}
"""What a seed does not save, and what it is taken to be where it must be something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A schedule, and where it came from."""

    path: str
    """As it was given."""
    config: Config | None
    """As used, late changes included; None where the state tells no curve."""
    base: Config | None
    """Before late changes."""
    unit: str | None
    """None where a checkpoint does not tell."""
    position: int | None = None
    """The checkpoint's; None for a config file."""
    where: checkpoints.Where | None = None
    """Where in the checkpoint it was found."""
    state: Mapping[str, Any] | None = None
    """The checkpoint's state as it stands there."""
    checkpoint: Checkpoint | None = None
    """What the state says."""
    kind: type[Config] | None = None
    """Which scheduler's the state is."""
    policy: str | Mapping[str, str] | None = None
    """What a config file says of it."""
    notes: tuple[str, ...] = ()
    """What a person should know."""

    @property
    def name(self) -> str:
        """A short name, for legends."""
        return Path(self.path).name or self.path

    def curve(self) -> Config:
        """Give the config.

        Raises:
            StateError: The state tells none.
        """
        if self.config is None:
            raise StateError(
                f"{self.path}: tells the position {self.position} alone, and no curve: "
                "give the config that the run had"
            )
        return self.config

    def as_state(self) -> Mapping[str, Any] | State:
        """Give a state that a load would find: the checkpoint's, or a config's at position 0."""
        if self.state is not None:
            return self.state
        return pack(self.curve(), 0, self.unit or "steps")


def read(path: str, key: str | None = None) -> Subject:
    """Read a config file or a checkpoint, told apart by how the name ends.

    Raises:
        ConfigError: The config file is illegal.
        StateError: The checkpoint is damaged, or holds no scheduler's state.
    """
    if os.fspath(path).lower().endswith(CONFIG_ENDINGS):
        return _config_file(path)
    return _checkpoint(path, key)


def _config_file(path: str) -> Subject:
    told = declarations.read(path)
    return Subject(
        path=path, config=told.config, base=told.config, unit=told.unit, policy=told.policy
    )


def _checkpoint(path: str, key: str | None) -> Subject:
    state, where = checkpoints.read_state(path, key)
    kind, told = tell(state)
    base, notes = _base(kind, told)
    return Subject(
        path=path,
        config=None if base is None else evolved(base, told.lineage),
        base=base,
        unit=told.unit,
        position=told.position,
        where=where,
        state=state,
        checkpoint=told,
        kind=kind,
        notes=(*told.warnings, *notes),
    )


def _base(kind: type[Config], told: Checkpoint) -> tuple[Config | None, list[str]]:
    """Build what a state tells of the curve, and say what had to be assumed."""
    if kind is not OptimizerParamConfig:
        return kind.of_parts(told.entries), []
    assumed = {name: value for name, value in _ASSUMED.items() if name not in told.entries}
    try:
        found = kind.of_parts({**assumed, **told.entries})
    except ConfigError:
        return None, []
    is_used = assumed.keys() - found.unused()
    told_of = ", ".join(f"{name}={assumed[name]!r}" for name in sorted(is_used))
    return found, [f"not in the state, and assumed: {told_of}"] if is_used else []
