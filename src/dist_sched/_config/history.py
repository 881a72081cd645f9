"""The history of a run: the late changes of its schedule, in order."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dist_sched._curves.schedule import KEEP_VALUE, STABLE
from dist_sched._curves.shapes import shape_name, shape_of
from dist_sched._rules import illegal, listed, one_of, optional, positive, rate, some, text, whole
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dist_sched._curves.schedule import Schedule

HISTORY = "history"
"""The name of the late changes in reports and policies."""


_RULES: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "cooldown": {"field": text, "steps": some, "shape": shape_name, "end": optional(rate)},
    "extend": {"field": text, "horizon": some},
    "rewarm": {"field": text, "steps": some, "peak": optional(rate)},
    "scale": {"field": text, "factor": positive},
}
_FIRST_VERSIONS = {"scale": 2}
"""The version of the state format that added an operation, if it is not 1."""
_LATER_RULES: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "extend": {"lengthen": one_of((STABLE,)), "keep": one_of((KEEP_VALUE,))},
}
"""Arguments that version 2 of the state format added. A recorded change must have the same effect
for ever. A new behaviour is therefore a new argument, and without it the old behaviour applies."""
_LATEST: dict[str, dict[str, Any]] = {"extend": {"lengthen": STABLE}}
"""The arguments that select today's behaviour."""


@dataclass(frozen=True, slots=True)
class Change:
    """A late change of a schedule: an operation at a position.

    Raises:
        ConfigError: An argument is invalid, missing or unknown.
    """

    position: int
    """Position of the change, in units."""
    operation: str
    """`"cooldown"`, `"extend"`, `"rewarm"` or `"scale"`."""
    arguments: Mapping[str, Any] = dataclass_field(hash=False)
    """Arguments of the operation, and the field that it changes."""

    def __post_init__(self) -> None:
        whole("position", self.position)
        needed = _RULES[one_of(tuple(_RULES))("operation", self.operation)]
        rules = {**needed, **_LATER_RULES.get(self.operation, {})}
        if not needed.keys() <= self.arguments.keys() <= rules.keys():
            raise illegal("arguments", dict(self.arguments), f"must have the keys {listed(needed)}")
        checked = {
            name: rule(name, self.arguments[name])
            for name, rule in rules.items()
            if name in self.arguments
        }
        object.__setattr__(self, "arguments", MappingProxyType(checked))

    # A MappingProxyType cannot be pickled, and a history travels between ranks.
    def __reduce__(self) -> tuple[type[Change], tuple[int, str, dict[str, Any]]]:
        return Change, (self.position, self.operation, dict(self.arguments))

    @property
    def field(self) -> str:
        """The field whose schedule was changed."""
        return str(self.arguments["field"])

    @property
    def version(self) -> int:
        """The lowest version of the state format that can store the change."""
        if not self.arguments.keys() <= _RULES[self.operation].keys():
            return 2
        shape = self.arguments.get("shape", "linear")
        return max(_FIRST_VERSIONS.get(self.operation, 1), shape_of(shape).version)

    def latest(self) -> Change:
        """Return the change with the arguments that select today's behaviour."""
        arguments = {**self.arguments, **_LATEST.get(self.operation, {})}
        return Change(self.position, self.operation, arguments)

    def to_dict(self) -> dict[str, Any]:
        """Return the change as JSON data."""
        return {
            "position": self.position,
            "operation": self.operation,
            "arguments": dict(self.arguments),
        }

    def apply(self, schedule: Schedule, scale: float = 1.0) -> Schedule:
        """Return the changed schedule.

        Args:
            schedule: The schedule to change.
            scale: Factor for `end` and `peak`, if the schedule is an override: its highest value
                divided by the highest value of the field's schedule.

        Raises:
            ConfigError: The schedule cannot be changed in this way.
        """
        # None for arguments that were not recorded: the method's defaults are today's behaviour.
        given = {**dict.fromkeys(_LATER_RULES.get(self.operation, ())), **self.arguments}
        del given["field"]
        for name in ("end", "peak"):
            if given.get(name) is not None:
                given[name] *= scale
        try:
            # Unwrapped, because recorded lengths were checked when they were typed.
            operation = inspect.unwrap(getattr(type(schedule), self.operation))
            changed: Schedule = operation(schedule, self.position, **given)
        except ConfigError as error:
            raise ConfigError(f"{self}: {error}") from error
        return changed

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.operation} at {self.position} ({given})"


History = tuple[Change, ...]
