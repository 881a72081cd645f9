"""What every config has in common: named entries, a policy for them, and a plan.

State, reconciliation and the schedulers' base see a config through this class alone. They do not
know which entries and which fields there are.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from dist_sched._config import policy as policies
from dist_sched._config.path import Path
from dist_sched._curves.lint import checked_run, in_order
from dist_sched._curves.schedule import Schedule
from dist_sched._rules import illegal, one_of
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Self

    from dist_sched._config.history import Change
    from dist_sched._config.plan import Inventory, Plan
    from dist_sched._config.policy import Policy
    from dist_sched._curves.lint import Finding
    from dist_sched._rules import Entry, Number

T = TypeVar("T")
AnyConfig = TypeVar("AnyConfig", bound="Config")

_TYPED = 1e-6
"""By how much a value that a person copied may differ from the exact one."""

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


def fitting(part: str, read: Callable[..., T], *data: object) -> T:
    """Return what a function reads; its `ConfigError` becomes a `Misfit` of this part."""
    try:
        return read(*data)
    except ConfigError as error:
        raise Misfit(part, str(error)) from error


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(abc.ABC):
    """What the scheduler of a script declares."""

    KIND: ClassVar[str]
    """The scheduler's class."""
    TEXT_NAME: ClassVar[str]
    """Its key in the text of a checkpoint state."""
    STATE_KEYS: ClassVar[tuple[str, ...]] = ()
    """Entries that also stand in the checkpoint state under their own names, for upstream."""

    @classmethod
    def check_entry(cls, name: str, value: object) -> Entry:  # noqa: ARG003 - there is none
        """Return one of `STATE_KEYS` as a plain value, or raise a ConfigError."""
        raise ConfigError(f"{name}: is not known")

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of what `to_dict` returned, each checked by itself.

        Raises:
            Misfit: A part is missing, unknown or illegal.
        """
        # An unknown part is refused, as it may be what a newer release computes values by.
        known = [field.name for field in dataclasses.fields(cls)]
        for name in sorted(data.keys() ^ set(known), key=str):
            reason = "is missing" if name in known else "is not known to this release"
            raise Misfit(str(name), reason)
        return {name: cls._read_part(name, data[name]) for name in known}

    @classmethod
    @abc.abstractmethod
    def _read_part(cls, name: str, data: Any) -> Any: ...

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any]) -> Self:
        """Build a config of its parts, or raise a ConfigError."""
        return cls(**parts)

    def parts(self) -> dict[str, Any]:
        """Return what `from_parts` needs."""
        # Not dataclasses.asdict, which would copy each schedule.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Return the parts as data for JSON."""
        return self.parts()

    @abc.abstractmethod
    def summary(self) -> dict[str, str]:
        """Return a line for each schedule or entry, for people."""

    @abc.abstractmethod
    def compare(self, saved: Mapping[str, Any]) -> dict[Path, Sides]:
        """Return what this config and a checkpoint's parts have, entry by entry."""

    @abc.abstractmethod
    def merge(self, saved: Mapping[str, Any], used: Mapping[Path, Any]) -> Self:
        """Build a config of the entries to use; this very one where they are the same.

        Args:
            saved: As for `compare`.
            used: A value for each entry that `compare` returns.

        Raises:
            ConfigError: They make no legal config.
        """

    def apply(self, change: Change) -> Self:
        """Return the config after a late change, or raise a ConfigError."""
        changed = self._changed(change)
        # Beside the entries, which cannot say what groups with bounds had before.
        object.__setattr__(changed, "_before", (self, change))
        return changed

    @abc.abstractmethod
    def _changed(self, change: Change) -> Self: ...

    def made_by(self) -> list[tuple[Self, Change]]:
        """Return the late changes that made this config, each with the config before it."""
        before = self.__dict__.get("_before")
        return [] if before is None else [*before[0].made_by(), before]

    def lint(
        self, *, updates: int | None = None, increment: Number = 1, unit: str | None = None
    ) -> tuple[Finding, ...]:
        """Return findings about valid entries that are probably mistakes.

        Args:
            updates: Length of the run in optimizer updates, to be compared with the horizon.
            increment: Units that an update completes.
            unit: What a position counts; None if it is not known.

        Raises:
            ConfigError: `updates` or `increment` is illegal, or an update completes several steps.
        """
        updates, increment = checked_run(updates, increment)
        if unit == "steps" and increment != 1:
            rule = "must be 1 where the unit is steps, since a step is an update: leave it out"
            raise illegal("increment", increment, f"{rule}, or use unit 'samples' or 'tokens'")
        return in_order(
            dataclasses.replace(finding, message=f"{path}: {finding.message}")
            for path, finding in self._findings(updates, increment)
        )

    @abc.abstractmethod
    def _findings(self, updates: int | None, increment: Number) -> Iterator[tuple[Path, Finding]]:
        """Yield the findings, each with the path of the schedule that it is about."""

    @abc.abstractmethod
    def _build_plan(self) -> Plan: ...

    @functools.cached_property
    def plan(self) -> Plan:
        """The curve of each field, and what groups override; built once."""
        return self._build_plan()

    def __getstate__(self) -> dict[str, Any]:
        # Without the plan, which every rank builds for itself.
        made = {"_before": self.__dict__["_before"]} if "_before" in self.__dict__ else {}
        return {**self.parts(), **made}

    @functools.cached_property
    def version(self) -> int:
        """The lowest version of the state's format that can say this config."""
        return 1

    def entries(self) -> dict[Path, Any]:
        """Return the entries."""
        return {path: sides.config for path, sides in self.compare(self.parts()).items()}

    def unite(self, other: Any, inventory: Inventory) -> Self:  # noqa: ARG002
        """Return this config with what another rank schedules and this rank's groups lack."""
        return self

    def unused(self) -> frozenset[Path]:
        """Return the entries that have no influence on the curves."""
        return frozenset()

    def may_name(self, path: Path) -> bool:  # noqa: ARG002
        """Return whether a policy may name what this config lacks, as a checkpoint may have it."""
        return False

    def parse_policy(
        self,
        policy: str | Mapping[str, str] | None,
        *,
        use_checkpoint: bool | None = True,
        override: bool | None = False,
    ) -> Policy:
        """Parse a policy for this config's entries, or raise a ConfigError."""
        return policies.parse(
            policy,
            self.entries,
            self.may_name,
            use_checkpoint=use_checkpoint,
            override=override,
        )


def with_history(config: Config, history: Iterable[Change]) -> Config:
    """Return a config after late changes; the same object where there are none."""
    # In order, since each was made of the schedule that those before it had left.
    for change in history:
        config = config.apply(change)
    return config


def with_change(config: AnyConfig, change: Change) -> tuple[AnyConfig, Change]:
    """Make a late change today, and return the config after it and what to record.

    A change means today what its latest arguments say. They are recorded only where they make a
    difference, so that older releases read the state wherever they do the same.

    Raises:
        ConfigError: The change is illegal, or a cooldown that rises. A recorded one that rises is
            made again all the same.
    """
    if change.operation == "cooldown" and change.arguments["end"] is not None:
        # First by itself, since the entries of Megatron's have no words for a rise.
        _refuse_rise(config, change, {Path(change.field): change.arguments["end"]})
    first, latest = config.apply(change), change.latest()
    after = first if latest == change else config.apply(latest)
    if change.operation == "cooldown":
        last = math.ceil(change.position + change.arguments["steps"])
        curves = [(one.path, one.curve) for one in after.plan.overrides]
        own = {path: one(last) for path, one in curves if isinstance(one, Schedule)}
        _refuse_rise(config, change, own)
    return (first, change) if first == after else (after, latest)


def _refuse_rise(config: Config, change: Change, ends: Mapping[Path, float]) -> None:
    """Raise where a cooldown would end above the value that the field has now."""
    now = config.plan.values(change.position)
    for path, end in ends.items():
        if path.field == change.field and path in now and end > now[path] * (1 + _TYPED):
            raise ConfigError(
                f"{change}: {path} is {now[path]!r} here, so {end!r} is a rise: use rewarm, or a "
                "lower end"
            )
