"""Subjects: what the arguments of a command name, a config file or a checkpoint, read alike."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dist_sched import checkpoint as checkpoints
from dist_sched._config import files
from dist_sched._config.entries import Config, OptimizerParamConfig, with_history
from dist_sched._config.policy import Policy
from dist_sched._state.format import Checkpoint, State, pack, tell
from dist_sched.errors import ConfigError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched._config.policy import Policy

CONFIG_ENDINGS = (".json", ".yaml", ".yml", ".toml")
_CHECKPOINT_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", "")

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
    where: checkpoints.StateLocation | None = None
    """Where in the checkpoint it was found."""
    state: Mapping[str, Any] | None = None
    """The checkpoint's state as it stands there."""
    checkpoint: Checkpoint | None = None
    """What the state says."""
    kind: type[Config] | None = None
    """Which scheduler's the state is."""
    policy: Policy | None = None
    """A config file's; None where it has none."""
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
                f"{self.path}: tells the position {self.position} alone, and no curve: use the "
                f"config that the run had, as in dist-sched show CONFIG --at {self.position}, or "
                f"bring both together with dist-sched convert {self.path} DST --to dist-sched "
                "--config CONFIG, and use DST"
            )
        return self.config

    def as_state(self) -> Mapping[str, Any] | State:
        """Give a state that a load would find: the checkpoint's, or a config's at position 0."""
        if self.state is not None:
            return self.state
        return pack(self.curve(), 0, self.unit or "steps")

    def origin(self) -> dict[str, Any]:
        """Give what and where it is, as data for JSON."""
        kind = type(self.config) if self.config is not None else self.kind
        return {
            "path": self.path,
            "found": None if self.where is None else asdict(self.where),
            "scheduler": None if kind is None else kind.KIND,
            "unit": self.unit,
            "position": self.position,
        }

    def described(self) -> str:
        """Say in a line what and where it is."""
        if self.where is None:
            return f"{self.path} (a config, in {self.unit})"
        unit = self.unit or "units that it does not tell"
        return f"{self.where}, at position {self.position} in {unit}"


def read(path: str, key: str | None = None, option: str = "--key") -> Subject:
    """Read a config file or a checkpoint, told apart by how the name ends.

    Args:
        path: As it was given.
        key: The state's name in a checkpoint.
        option: By which the key is given, for errors.

    Raises:
        ConfigError: The path is empty, the config file is illegal, or a key was given for it.
        StateError: The checkpoint is damaged, or holds no scheduler's state.
    """
    _refuse_empty(path)
    if not is_config(path):
        return _checkpoint(path, key)
    if key is not None:
        raise ConfigError(f"{path}: is a config file, where {option} means nothing: leave it out")
    return _config_file(path)


def read_checkpoint(path: str, key: str | None = None) -> Subject:
    """Read a checkpoint.

    Raises:
        ConfigError: It is a config file, or the path is empty.
        StateError: As for `read`.
    """
    _refuse_empty(path)
    if is_config(path):
        raise ConfigError(
            f"{path}: is a config file, and this takes a checkpoint; see dist-sched show {path}"
        )
    return _checkpoint(path, key)


def _refuse_empty(path: str) -> None:
    if not path.strip():
        raise ConfigError(
            f"{path!r}: is no path: give a config file's or a checkpoint's (is a variable of the "
            "shell empty?)"
        )


def is_config(path: str) -> bool:
    """Tell by how its name ends whether a path is a config file's."""
    return os.fspath(path).lower().endswith(CONFIG_ENDINGS)


def _config_file(path: str) -> Subject:
    told = files.read(path)
    return Subject(
        path=path,
        config=told.config,
        base=told.config,
        unit=told.unit,
        policy=told.policy,
    )


def _checkpoint(path: str, key: str | None) -> Subject:
    state, where = _read_state(path, key)
    try:
        kind, told = tell(state)
    except StateError as error:
        raise StateError(f"{where}: {error}") from error
    base, notes = _base(kind, told)
    return Subject(
        path=path,
        config=None if base is None else with_history(base, told.history),
        base=base,
        unit=told.unit,
        position=told.position,
        where=where,
        state=state,
        checkpoint=told,
        kind=kind,
        notes=(*told.warnings, *notes),
    )


def _read_state(path: str, key: str | None) -> tuple[dict[str, Any], checkpoints.StateLocation]:
    try:
        return checkpoints.read_state(path, key)
    except StateError as error:
        is_odd = Path(path).is_file() and Path(path).suffix not in _CHECKPOINT_ENDINGS
        hint = f"; the name of a config ends in {', '.join(CONFIG_ENDINGS)}" if is_odd else ""
        raise StateError(f"{error}{hint}") from error


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
