"""The base class of configs, which have named entries, a policy for them, and a plan.

State, reconciliation and the base of schedulers use only this class. They do not know the entries
and fields.
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
"""Relative difference that a value copied by a person may have from the exact one."""

UNITS = ("steps", "samples", "tokens")
unit_word = one_of(UNITS)


class _Absence(Enum):
    ABSENT = "absent"


ABSENT = _Absence.ABSENT
"""The value of an entry that a side lacks. Not None, which is a valid value."""


class Misfit(ConfigError):  # noqa: N818 - a ConfigError with attributes
    """A part of a saved config is invalid."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.part = part
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}"


def fitting(part: str, read: Callable[..., T], *data: object) -> T:
    """Return what a function returns, and turn its `ConfigError` into a `Misfit` of a part."""
    try:
        return read(*data)
    except ConfigError as error:
        raise Misfit(part, str(error)) from error


class Sides(NamedTuple):
    """The values of one entry in the config and in the checkpoint."""

    config: Any
    checkpoint: Any
    field: str = "lr"
    """The field whose curve the entry belongs to. Empty if it does not belong to a curve."""

    @property
    def differ(self) -> bool:
        """Whether the checkpoint has the entry, with another value than the config."""
        return self.checkpoint is not ABSENT and self.checkpoint != self.config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(abc.ABC):
    """The schedule that a script declares."""

    KIND: ClassVar[str]
    """Name of the scheduler's class."""
    TEXT_NAME: ClassVar[str]
    """Key of the config in the text of a checkpoint state."""
    STATE_KEYS: ClassVar[tuple[str, ...]] = ()
    """Entries that are also keys of the checkpoint state, for upstream."""

    @classmethod
    def check_entry(cls, name: str, value: object) -> Entry:  # noqa: ARG003 - there is none
        """Return one of `STATE_KEYS` as a plain value, or raise a ConfigError."""
        raise ConfigError(f"{name}: is not known")

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checked parts of data from `to_dict`.

        Raises:
            Misfit: A part is missing, unknown or invalid.
        """
        # An unknown part is an error, because a newer release may compute values with it.
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
        """Build a config from its parts, or raise a ConfigError."""
        return cls(**parts)

    def parts(self) -> dict[str, Any]:
        """Return the parts, from which `from_parts` builds an equal config."""
        # dataclasses.asdict would copy each schedule.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Return the parts as JSON data."""
        return self.parts()

    @abc.abstractmethod
    def summary(self) -> dict[str, str]:
        """Return the schedules or entries as text."""

    @abc.abstractmethod
    def compare(self, saved: Mapping[str, Any]) -> dict[Path, Sides]:
        """Return this config's and a checkpoint's values, entry by entry."""

    @abc.abstractmethod
    def merge(self, saved: Mapping[str, Any], used: Mapping[Path, Any]) -> Self:
        """Build a config from the entries to use, or return this one if they are the same.

        Args:
            saved: The checkpoint's parts.
            used: A value for each entry that `compare` returns.

        Raises:
            ConfigError: The entries are not a valid config.
        """

    def apply(self, change: Change) -> Self:
        """Return the config after a late change, or raise a ConfigError."""
        changed = self._changed(change)
        # Kept beside the entries, because groups with bounds need the config before the change.
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
        """Warn about valid entries that are probably mistakes.

        Args:
            updates: Length of the run in optimizer updates. If None, the end of the run is not
                checked.
            increment: Units per update, more than 0.
            unit: The unit of positions. None if it is not known.

        Returns:
            The findings, sorted by position.

        Raises:
            ConfigError: `updates` or `increment` is invalid, or not 1 with the unit `"steps"`.
        """
        updates, increment = checked_run(updates, increment)
        if unit == "steps" and increment != 1:
            rule = "must be 1 for unit 'steps', where an update is one step; leave it out"
            raise illegal("increment", increment, f"{rule}, or use unit 'samples' or 'tokens'")
        return in_order(
            dataclasses.replace(finding, message=f"{path}: {finding.message}")
            for path, finding in self._findings(updates, increment)
        )

    @abc.abstractmethod
    def _findings(self, updates: int | None, increment: Number) -> Iterator[tuple[Path, Finding]]:
        """Yield the findings, each with the path of its schedule."""

    @abc.abstractmethod
    def _build_plan(self) -> Plan: ...

    @functools.cached_property
    def plan(self) -> Plan:
        """The curves of fields, overrides and extras. It is built once."""
        return self._build_plan()

    def __getstate__(self) -> dict[str, Any]:
        # Every rank builds the plan itself.
        made = {"_before": self.__dict__["_before"]} if "_before" in self.__dict__ else {}
        return {**self.parts(), **made}

    @functools.cached_property
    def version(self) -> int:
        """The lowest version of the state format that can store this config."""
        return 1

    def entries(self) -> dict[Path, Any]:
        """Return the entries."""
        return {path: sides.config for path, sides in self.compare(self.parts()).items()}

    def unite(self, other: Any, inventory: Inventory) -> Self:  # noqa: ARG002
        """Return this config with the parts of another rank's that do not concern this rank."""
        return self

    def unused(self) -> frozenset[Path]:
        """Return the entries without an effect on the curves."""
        return frozenset()

    def may_name(self, path: Path) -> bool:  # noqa: ARG002
        """Return whether a checkpoint may have an entry that this config lacks."""
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
    """Return a config after late changes, or the same object if there are none."""
    # In order, because each change applies to the result of the one before.
    for change in history:
        config = config.apply(change)
    return config


def with_change(config: AnyConfig, change: Change) -> tuple[AnyConfig, Change]:
    """Return a config after a new late change, and the change to record.

    The arguments of today's behaviour are recorded only if they make a difference. Otherwise older
    releases can still read the state.

    Raises:
        ConfigError: The change is invalid, or is a cooldown that would rise. Only new cooldowns are
            checked for a rise, not recorded ones.
    """
    if change.operation == "cooldown" and change.arguments["end"] is not None:
        # Checked first, because Megatron's entries would raise a less clear error.
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
    """Raise if a cooldown would end above the present value of the field."""
    now = config.plan.values(change.position)
    for path, end in ends.items():
        if path.field == change.field and path in now and end > now[path] * (1 + _TYPED):
            raise ConfigError(
                f"{change}: {path} is {now[path]!r} at this position, so {end!r} would be a rise; "
                "use rewarm, or a lower end"
            )
