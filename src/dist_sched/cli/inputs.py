"""Inputs: the config files and checkpoints that commands read."""

from __future__ import annotations

import posixpath
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dist_sched import checkpoint as checkpoints
from dist_sched._config import files
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path as EntryPath
from dist_sched._rules import brief, shown
from dist_sched._state.format import Checkpoint
from dist_sched._state.format import read as read_state
from dist_sched.errors import ConfigError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_sched._config.config import Config
    from dist_sched._config.policy import Policy
    from dist_sched._curves.lint import Finding

CONFIG_ENDINGS = (".json", ".yaml", ".yml", ".toml")
_INDEX = ".metadata"
_CHECKPOINT_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", "")

_ASSUMED = {"init_lr": 0.0, "wsd_decay_steps": None, "lr_wsd_decay_style": None}
"""Entries that Megatron and NeMo do not save, and the values assumed to show the schedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigInput:
    """A config file: the schedule of a run at its start."""

    path: str
    """The path on the command line."""
    config: Config
    unit: str
    policy: Policy | None
    findings: tuple[Finding, ...] = ()
    """Findings of `check` that only the file shows."""
    location: ClassVar[None] = None
    position: ClassVar[None] = None
    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def known_config(self) -> Config:
        """The config. A checkpoint may have none."""
        return self.config

    @property
    def saved(self) -> Checkpoint:
        """The checkpoint of a run with this config, at position 0."""
        return Checkpoint.of_config(self.config, self.unit)

    @property
    def label(self) -> str:
        """The config's label in tables."""
        return f"{self.path} (config)"

    def __str__(self) -> str:
        return f"{self.path} (a config, in {self.unit})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInput:
    """A scheduler's state in a checkpoint."""

    path: str
    """The path on the command line."""
    location: checkpoints.StateLocation
    """Where in the checkpoint the state was found."""
    state: Mapping[str, Any]
    """The state, unchanged."""
    saved: Checkpoint
    """The contents of the state."""
    known_config: Config | None
    """The config with late changes. None if the state has only a position."""
    notes: tuple[str, ...]
    """Notes for the user."""
    findings: ClassVar[tuple[Finding, ...]] = ()

    @property
    def config(self) -> Config:
        """The config with the late changes.

        Raises:
            StateError: The state has only a position.
        """
        if self.known_config is None:
            raise StateError(
                f"{self.path}: has only the position {self.position} and no schedule; use the "
                f"run's config (dist-sched show CONFIG --at {self.position}), or combine both into "
                f"DST with dist-sched convert {self.path} DST --to dist-sched --config CONFIG"
            )
        return self.known_config

    @property
    def unit(self) -> str | None:
        """The unit of the position. None if it is unknown."""
        return self.saved.unit

    @property
    def position(self) -> int:
        """The run's position, in units."""
        return self.saved.position

    @property
    def label(self) -> str:
        """The checkpoint's label in tables, with the path as it was typed."""
        base = self.path if "://" in self.path else str(Path(self.path).absolute())
        found, base = self.location.path, base.rstrip("/")
        rest = found[len(base) :] if found.startswith(f"{base}/") else ""
        # Users do not know the index of a folder.
        if posixpath.basename(rest) == _INDEX:
            rest = posixpath.dirname(rest)
        return f"{self.path.rstrip('/')}{rest.rstrip('/')} (checkpoint at {self.position})"

    def __str__(self) -> str:
        return f"{self.location}, at position {self.position} in {self.unit or 'an unknown unit'}"


Input = ConfigInput | CheckpointInput


def origin(source: Input) -> dict[str, Any]:
    """Return the origin of a config or checkpoint as JSON data."""
    config, location = source.known_config, source.location
    return {
        "path": source.path,
        "found": None if location is None else asdict(location),
        "scheduler": None if config is None else config.KIND,
        "unit": source.unit,
        "position": source.position,
    }


def read(path: str, key: str | None = None) -> Input:
    """Read a config file or a checkpoint, depending on the suffix of the name.

    Raises:
        ConfigError: The path is empty, the config is invalid, or a key was passed for it.
        StateError: The checkpoint is damaged, or has no scheduler's state.
    """
    if not path.strip():
        raise ConfigError(f"{shown(path)} is not a path; check for an empty shell variable")
    # By suffix only, so that a remote file is not opened twice.
    if not path.lower().endswith(CONFIG_ENDINGS):
        return _read_checkpoint(path, key)
    if key is not None:
        raise ConfigError(f"{brief(path)}: is a config file, which has no keys; leave out the key")
    declared = files.read(path)
    return ConfigInput(
        path=path,
        config=declared.config,
        unit=declared.unit,
        policy=declared.policy,
        findings=declared.findings,
    )


def read_checkpoint(path: str, key: str | None = None) -> CheckpointInput:
    """Read a checkpoint.

    Raises:
        ConfigError: It is a config file, or the path is empty.
        StateError: As for `read`.
    """
    found = read(path, key)
    if isinstance(found, ConfigInput):
        raise ConfigError(
            f"{path}: is a config file, but this command needs a checkpoint; to see the config, "
            f"use dist-sched show {path}"
        )
    return found


def agreed_unit(source: CheckpointInput, options: Mapping[str, str | None]) -> str | None:
    """Return the unit of a checkpoint, else the unit of an option, else None.

    Raises:
        ConfigError: An option has another unit than the checkpoint.
    """
    for option, unit in options.items():
        if unit is not None and source.unit not in (None, unit):
            raise ConfigError(
                f"{option}: is {unit}, but the unit of {source.path} is {source.unit}"
            )
    return next((unit for unit in (source.unit, *options.values()) if unit is not None), None)


def require_unit(path: str, unit: str | None) -> str:
    """Return the unit of a checkpoint.

    Raises:
        StateError: It is not known.
    """
    if unit is None:
        raise StateError(f"{path}: does not have the unit of its position; use --unit")
    return unit


def _read_checkpoint(path: str, key: str | None) -> CheckpointInput:
    try:
        state, location = checkpoints.read_state(path, key)
    except StateError as error:
        is_odd = Path(path).suffix not in _CHECKPOINT_ENDINGS
        hint = f" (a config file must end in {', '.join(CONFIG_ENDINGS)})" if is_odd else ""
        raise StateError(f"{error}{hint}") from error
    try:
        saved = read_state(state)
    except StateError as error:
        raise StateError(f"{location}: {error}") from error
    config, notes = _complete(saved)
    return CheckpointInput(
        path=path,
        location=location,
        state=state,
        saved=saved,
        known_config=config,
        notes=(*saved.warnings, *notes),
    )


def _complete(saved: Checkpoint) -> tuple[Config | None, list[str]]:
    """Return the saved config with its late changes, and notes about assumed entries."""
    if saved.effective is not None:
        return saved.effective, []
    assumed = {name: value for name, value in _ASSUMED.items() if name not in saved.parts}
    try:
        config = OptimizerParamConfig.from_parts({**assumed, **saved.parts})
    except ConfigError:
        return None, []
    # With most styles the WSD entries have no effect, and need no note.
    used = sorted(name for name in assumed if EntryPath(name) not in config.unused())
    named = ", ".join(f"{name}={assumed[name]!r}" for name in used)
    return config, [f"not in the state, so assumed: {named}"] if used else []
