"""A model of groups, loads and late changes: what must be true after each call."""

from __future__ import annotations

import dataclasses
import math
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from dist_sched import ConfigError, ReconcileError

RUNS = int(os.environ.get("STATE_MACHINE_RUNS", "0"))
"""How many sequences each machine draws on demand. 0 for the few of the ordinary tests."""
SEED = int(os.environ.get("STATE_MACHINE_SEED", "0")) or random.randrange(1, 2**31)
"""From what they are drawn on demand."""
KEYS = {"lr": ("max_lr", "min_lr", "lr_mult"), "weight_decay": ("end_wd", "start_wd", "wd_mult")}
"""The keys by which a group overrides a field: upper bound, lower bound, multiplier."""
OVERRIDES = [(name, key) for name, keys in KEYS.items() for key in keys]


class Refused(Exception):  # noqa: N818 - not an error here, but what is expected
    """The model expects the library to raise one of these errors."""

    def __init__(self, *errors: type[Exception]) -> None:
        super().__init__(errors)
        self.errors = errors


def rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def single(value: float) -> float:
    """Return the number that a float32 tensor holds."""
    return torch.tensor(value, dtype=torch.float32).item()


@dataclass
class Group:
    """What the model knows of one param group."""

    own: dict[str, float]
    """What it held when it was first seen, by field."""
    held: dict[str, float]
    """What it must hold, as Python floats: what was written last."""
    overrides: dict[str, Any]
    name: str | None = None
    """Its name when it was first seen."""
    name_held: str | None = None
    """Its name in the dict, which an optimizer's load may replace."""
    is_tensor: bool = False
    """Whether its lr is a float32 tensor."""
    is_late: bool = False
    is_open: bool = False
    """Whether loads before the next step may still decide its ratio."""
    is_pending: bool = False
    """Whether the scheduler has not seen it yet."""
    ratios: dict[str, float] = field(default_factory=dict)
    carried: dict[str, tuple[float, int]] = field(default_factory=dict)
    """What the optimizer's checkpoint had, and how many digits of it count, while it is open."""

    def __repr__(self) -> str:
        changed = {
            one.name: value
            for one in dataclasses.fields(self)
            if one.repr and (value := getattr(self, one.name))
        }
        return f"Group({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(repr(self))

    def digits(self, key: str) -> int:
        """Return how many digits a ratio has that is measured from what it holds."""
        return 6 if self.is_tensor and key == "lr" else 12

    def holds(self, key: str) -> float:
        """Return the number that is read from it."""
        is_single = self.is_tensor and key == "lr"
        return single(self.held[key]) if is_single else self.held[key]

    def has_override(self, key: str) -> bool:
        return any(one in self.overrides for one in KEYS.get(key, ()))


@dataclass
class Save:
    """A checkpoint: what the library saved, and what the model knew then."""

    state: dict[str, Any]
    optimizer: dict[str, Any]
    groups: list[Group]
    position: int
    config: Any
    """Its config before late changes."""
    history: tuple[Any, ...]
    unit: str


@dataclass
class Model:
    """What must be true of a scheduler and its groups."""

    declared: Any
    """The constructor's config."""
    policy: dict[str, str]
    groups: list[Group]
    fields: tuple[str, ...]
    defaults: dict[str, float]
    reference: dict[str, float] = field(default_factory=dict)
    """The argument `reference=`."""
    unit: str = "steps"
    keeps: bool = True
    config: Any = None
    """The config in force, before late changes."""
    history: tuple[Any, ...] = ()
    position: int = 0
    references: dict[str, float | None] = field(default_factory=dict)
    updated_at: int | None = None
    update_values: dict[str, float] | None = None
    saved: tuple[int, Any] | None = None
    """Position and config of the checkpoint that was loaded last."""
    loaded_text: str | None = None
    is_waiting: bool = False
    is_written: bool = True
    """Whether the present rows were written, so that what something else writes is noticed."""
    is_named: bool = False
    """Whether the WARNING about something else that writes was logged."""

    def start(self) -> None:
        """Become what a scheduler is just after construction."""
        self.config = self.declared
        if not self.declared.is_legal():
            raise Refused(ConfigError)
        for group in self.groups:
            group.is_pending = False
        self.is_waiting = any(group.is_open for group in self.groups)
        self.declared.check(self.groups, None)
        if self.keeps:
            self.references = {key: self._reference(key) for key in self.fields}
        self.write(0)

    def _reference(self, key: str) -> float | None:
        if key in self.reference:
            return self.reference[key]
        return self.declared.reference(key, self.groups)

    @property
    def effective(self) -> Any:
        return self.config.after(self.history)

    def ratio(self, group: Group, key: str) -> float:
        if not self.keeps:
            return 1.0
        if key in group.ratios:
            return group.ratios[key]
        reference = self.references.get(key)
        if reference is None:
            return 1.0
        ratio = group.own[key] / reference
        return rounded(ratio, group.digits(key)) if group.is_late else ratio

    def value(self, group: Group, key: str, position: int) -> float:
        return self.effective.value(key, position, group, self.ratio(group, key))

    def values(self, position: int) -> list[dict[str, float]]:
        """Return what the groups get at a position, by the overrides that they have now."""
        return [{key: self.value(one, key, position) for key in self.fields} for one in self.groups]

    def metrics(self) -> dict[str, float]:
        if self.update_values is not None:
            return self.update_values
        return self.metrics_at(self.position if self.updated_at is None else self.updated_at)

    def metrics_at(self, position: int) -> dict[str, float]:
        names = [one.name or str(index) for index, one in enumerate(self.groups)]
        counts = Counter(names)
        return {
            f"{key}/{name if counts[name] == 1 else self._long(index)}": value
            for index, (name, values) in enumerate(zip(names, self.values(position), strict=True))
            for key, value in values.items()
        }

    def _long(self, index: int) -> str:
        name = self.groups[index].name
        return f"{name}.0.{index}" if name else f"0.{index}"

    def write(self, position: int) -> None:
        """Write every group, after new groups were seen."""
        self.admit()
        for group, values in zip(self.groups, self.values(position), strict=True):
            group.held.update(values)
        self.position = position
        self.is_written = True

    def admit(self) -> None:
        """See the groups that were added: what they hold now moves with the curve."""
        effective = self.effective
        start = [one for one in self.groups if not (one.is_late or one.is_pending)]
        for one in (one for one in self.groups if one.is_pending):
            one.is_pending, one.is_late, one.is_open = False, True, True
            self.is_waiting = True
            for key in self.fields if self.position and self.keeps else ():
                present = effective.base(key, self.position, one)
                is_default = math.isclose(one.own[key], self.defaults[key], rel_tol=1e-7)
                if not present or is_default or not effective.takes_part(key, one):
                    continue
                ratio = rounded(one.own[key] / present, one.digits(key))
                ratios = (
                    self.ratio(other, key) if effective.has_ratio(key, other) else 1.0
                    for other in start
                )
                if ratio <= max(ratios, default=1.0):
                    one.ratios[key] = ratio

    # What users do ------------------------------------------------------------------------------

    def step(self, increment: int) -> None:
        if self.position + increment > 2**53:
            raise Refused(ConfigError)
        if self.is_waiting:
            self.is_waiting = False
            for group in self.groups:
                group.is_open, group.carried = False, {}
        used = self.position
        self.write(self.position + increment)
        self.updated_at, self.update_values = used, None

    def seek(self, position: int) -> None:
        self.write(position)
        self.updated_at = self.update_values = None

    def load(
        self,
        position: int,
        parts: Any,
        history: tuple[Any, ...] = (),
        *,
        unit: str | None = None,
        text: str | None = None,
        curve: Any = None,
    ) -> None:
        """Load a state.

        Args:
            position: Its position.
            parts: Its config, or as much of it as it has.
            history: Its late changes.
            unit: Its unit, if it says one.
            text: Its text, if it has one.
            curve: The config of the run that saved it, after late changes, if that is known.
        """
        self.admit()
        config, history = self.declared.decide(parts, history, self.policy)
        if unit not in (None, self.unit) and self.policy.get("unit") != "config":
            raise Refused(ReconcileError)
        self.config, self.history = config, history
        config.check(self.groups, self.declared)
        self.write(position)
        self.updated_at = self.update_values = None
        self.saved = None if curve is None else (position, curve)
        self.loaded_text = text
        self.measure()
        self.forget_carried()
        self.write(position)

    def measure(self) -> None:
        """Take ratios of open groups from both checkpoints, where both are loaded."""
        if self.saved is None or self.saved[0] != self.position or not self.keeps:
            return
        position, curve = self.saved
        for group in self.groups:
            if not group.is_open or not group.carried:
                continue
            for key in curve.fields_of(self.fields):
                carried, digits = group.carried[key]
                present = curve.base(key, position, group)
                if present and curve.takes_part(key, group):
                    group.ratios[key] = rounded(carried / present, digits)
            group.is_open = False

    def forget_carried(self) -> None:
        for group in self.groups:
            group.carried = {}

    def change(self, operation: str, arguments: dict[str, Any], *, allow_jump: bool) -> None:
        """Make a late change."""
        self.admit()
        before = self.effective
        one = self.position, operation, tuple(arguments.items())
        before.check_change(one)
        history = (*self.history, one)
        after = self.config.after(history)
        if not allow_jump and operation != "scale" and before.jumps(after, self.position):
            raise Refused(ConfigError)
        made = None if self.updated_at is None else self.metrics()
        self.history = history
        self.write(self.position)
        self.update_values = made

    def load_optimizer(self, saved: list[Group]) -> None:
        self.admit()
        if len(saved) != len(self.groups):
            raise Refused(ValueError)
        self.is_waiting = True
        for group, other in zip(self.groups, saved, strict=True):
            group.name_held = other.name_held
            for name, key in OVERRIDES:
                if name in self.fields and self.policy.get(key, self.policy["*"]) == "config":
                    continue
                group.overrides.pop(key, None)
                if key in other.overrides:
                    group.overrides[key] = other.overrides[key]
            group.held.update(other.held)
            if group.is_open:
                group.carried = {
                    key: (other.holds(key), other.digits(key)) for key in self.defaults
                }
        if self.saved is not None and self.saved[0] == self.position:
            self.measure()
            self.forget_carried()
        self.write(self.position)
