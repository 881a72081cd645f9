"""Lineage: the late changes of a schedule, in the order in which they were made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dist_sched.rules import illegal, listed, one_of, optional, rate, some, text, whole
from dist_sched.shapes import shape_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _field_arguments(**others: Callable[[str, Any], Any]) -> dict[str, Callable[[str, Any], Any]]:
    return {"field": text, **others}


_OPERATIONS = {
    "cooldown": _field_arguments(steps=some, shape=shape_name, end=optional(rate)),
    "extend": _field_arguments(horizon=some),
    "rewarm": _field_arguments(steps=some, peak=optional(rate)),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A late change of a schedule: what was done, and at which position.

    Raises:
        ConfigError: An argument is illegal, missing or unknown.
    """

    position: int
    """Where the run was, in units."""
    operation: str
    """cooldown, extend or rewarm."""
    arguments: Mapping[str, Any]
    """What the operation was given, and which field it was for."""

    def __post_init__(self) -> None:
        whole("position", self.position)
        rules = _OPERATIONS[one_of(tuple(_OPERATIONS))("operation", self.operation)]
        if self.arguments.keys() != rules.keys():
            raise illegal("arguments", dict(self.arguments), f"must be {listed(rules)}")
        checked = {name: rule(name, self.arguments[name]) for name, rule in rules.items()}
        object.__setattr__(self, "arguments", checked)

    @property
    def field(self) -> str:
        """The field whose schedule was changed."""
        return str(self.arguments["field"])

    def to_dict(self) -> dict[str, Any]:
        """Give it as data for JSON."""
        return {**asdict(self), "arguments": dict(self.arguments)}

    def applied(self, curve: Any) -> Any:
        """Give the schedule that a schedule becomes."""
        given = {name: value for name, value in self.arguments.items() if name != "field"}
        return getattr(curve, self.operation)(self.position, **given)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.operation} at {self.position} ({given})"


Lineage = tuple[Change, ...]
