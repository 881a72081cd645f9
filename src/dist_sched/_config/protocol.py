"""What every config has in common: named entries, and a plan.

State, reconciliation and the schedulers' base see a config through this protocol alone. They do not
know which entries and which fields there are.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from dist_sched._rules import one_of
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dist_sched._config.history import Change
    from dist_sched._config.path import Path
    from dist_sched._config.plan import Inventory, Plan
    from dist_sched._config.policy import Policy
    from dist_sched._curves.lint import Finding
    from dist_sched._rules import Entry, Number

UNITS = ("steps", "samples", "tokens")
unit_word = one_of(UNITS)


class _Absence(Enum):
    ABSENT = "absent"


ABSENT = _Absence.ABSENT
"""What a side has for an entry that it lacks; not None, which an entry may be."""


class Misfit(ConfigError):  # noqa: N818 - a ConfigError that knows more
    """A part of a saved config is illegal."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.part = part
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}"


class Sides(NamedTuple):
    """What config and checkpoint have for one entry."""

    config: Any
    checkpoint: Any
    field: str = "lr"
    """The field whose curve the entry is part of; empty where it is no part of a curve."""

    @property
    def differ(self) -> bool:
        """Whether both have the entry, or the checkpoint alone, and not the same."""
        return self.checkpoint is not ABSENT and self.checkpoint != self.config


class Config(Protocol):
    """What the scheduler of a script declares."""

    KIND: ClassVar[str]
    """The scheduler's class."""
    TEXT_NAME: ClassVar[str]
    """Its key in the text of a checkpoint state."""
    STATE_KEYS: ClassVar[tuple[str, ...]]
    """Entries that also stand in the checkpoint state under their own names, for upstream."""

    @classmethod
    def check_entry(cls, name: str, value: object) -> Entry:
        """Return one of `STATE_KEYS` as a plain value, or raise a ConfigError."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of what `to_dict` returned, each checked, or raise a `Misfit`."""

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any]) -> Config:
        """Build a config of its parts, or raise a ConfigError."""

    def parts(self) -> dict[str, Any]:
        """Return what `from_parts` needs."""

    def to_dict(self) -> dict[str, Any]:
        """Return the whole as data for JSON."""

    def entries(self) -> dict[Path, Any]:
        """Return the entries."""

    def summary(self) -> dict[str, str]:
        """Return a line for each schedule or entry, for people."""

    def compare(self, saved: Mapping[str, Any]) -> dict[Path, Sides]:
        """Return what this config and a checkpoint's parts have, entry by entry."""

    def merge(self, saved: Mapping[str, Any], used: Mapping[Path, Any]) -> Config:
        """Build a config of the entries to use, or raise a ConfigError.

        Args:
            saved: As for `compare`.
            used: A value for each entry that `compare` returns.
        """

    def unite(self, other: Any, inventory: Inventory) -> Config:
        """Return this config with what another rank schedules and this rank's groups lack."""

    def parse_policy(
        self,
        policy: str | Mapping[str, str] | None,
        *,
        use_checkpoint: bool | None = True,
        override: bool | None = False,
    ) -> Policy:
        """Parse a policy for this config's entries, or raise a ConfigError."""

    def unused(self) -> frozenset[Path]:
        """Return the entries that have no influence on the curves."""

    @property
    def plan(self) -> Plan:
        """The curve of each field, and what groups override; built once."""

    def apply(self, change: Change) -> Config:
        """Return the config after a late change, or raise a ConfigError."""

    def lint(self, *, updates: int | None = None, increment: Number = 1) -> tuple[Finding, ...]:
        """Return warnings about what is valid and probably a mistake."""


def with_history(config: Config, history: Iterable[Change]) -> Config:
    """Return a config after late changes; the same object where there are none."""
    for change in history:
        config = config.apply(change)
    return config
