"""The agreement: everything that the ranks must have in common, as one frozen value."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dist_sched._config.config import Config, with_history
from dist_sched._config.history import HISTORY
from dist_sched._state.format import State, pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_sched._config.history import History
    from dist_sched._config.plan import Inventory, Plan
    from dist_sched._config.policy import Policy
    from dist_sched._optim.ratios import Reference

NOTHING = "nothing"
"""The value of a name that a rank does not have."""


# No slots, so that the effective config can be cached.
@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Config, history, position, unit, policy and references. A load replaces it as a whole."""

    declared: Config
    """The config of the constructor, which every load compares with the checkpoint."""
    config: Config
    """The config in use, before late changes."""
    history: History = ()
    """The late changes."""
    position: int = 0
    """The position at the time of the agreement, in units."""
    unit: str
    policy: Policy
    keep_group_ratios: bool
    reference: Reference = None
    """The argument `reference` of the constructor."""
    references: Mapping[str, float | None]
    """The reference of each field, an own value."""
    name: str | None = None
    """Name that distinguishes this scheduler from others on the same ranks."""

    @functools.cached_property
    def effective(self) -> Config:
        """The config in use, after late changes."""
        return with_history(self.config, self.history)

    @property
    def plan(self) -> Plan:
        """The plan in use."""
        return self.effective.plan

    def __getstate__(self) -> dict[str, Any]:
        # Every rank builds cached values itself, so that a broadcast stays small.
        return {name: value for name, value in self.__dict__.items() if name != "effective"}

    def replace(self, *, effective: Config | None = None, **changes: Any) -> Agreement:
        """Return a copy with some attributes changed.

        Args:
            effective: The effective config of the copy, if it is known already.
            **changes: The changed attributes.
        """
        other = replace(self, **changes)
        if effective is None and changes.keys().isdisjoint({"config", "history"}):
            effective = self.effective
        if effective is not None:
            other.__dict__["effective"] = effective
        return other

    def unite(self, others: Sequence[Agreement], inventory: Inventory) -> Agreement:
        """Return this agreement with the parts that only other ranks have.

        Args:
            others: The agreements of all ranks, in the order of ranks.
            inventory: The names and fields of this rank's groups.
        """
        declared, config = self.declared, self.config
        for other in others:
            declared = declared.unite(other.declared, inventory)
            config = config.unite(other.config, inventory)
        keys = dict.fromkeys(key for other in others for key in other.references)
        references = {
            key: next((found for one in others if (found := one.references.get(key))), None)
            for key in keys
        }
        return self.replace(declared=declared, config=config, references=references)

    def is_of(self, other: Agreement) -> bool:
        """Return whether both are agreements of the same scheduler."""
        return (self.name, self.unit, self.declared) == (other.name, other.unit, other.declared)

    def state_dict(self) -> State:
        """Return the checkpoint state: a new dict of int, float and str."""
        return pack(self.config, self.position, self.unit, self.history, self.effective)

    def describe(self, config: Config) -> dict[str, Any]:
        """Return the values in which ranks can differ, by name, except for groups.

        Args:
            config: `declared` to compare scripts, or `config` to compare what is in use.
        """
        return {
            "scheduler": config.KIND,
            **{str(path): value for path, value in config.entries().items()},
            HISTORY: [change.to_dict() for change in self.history],
            "position": self.position,
            "unit": self.unit,
            "policy": dict(self.policy.words),
            "keep_group_ratios": self.keep_group_ratios,
        }
