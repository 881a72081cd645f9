"""The peers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_sched._peers import deepspeed, nanotron, olmo_core, torchtitan, transformers
from dist_sched._rules import one_of, refuse_large, within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dist_sched._curves.schedule import Schedule

PEERS: dict[str, Callable[[object], Schedule]] = {
    "transformers": transformers.schedule,
    "torchtitan": torchtitan.schedule,
    "olmo_core": olmo_core.schedule,
    "nanotron": nanotron.schedule,
    "deepspeed": deepspeed.schedule,
}
"""The libraries whose words `from_peer` reads."""


def from_peer(name: str, mapping: Mapping[str, Any]) -> Schedule:
    """Build the schedule of lr that another library has for a block of its config.

    Positions are optimizer updates, and tokens where OLMo-core's `units` says so. Update `n + 1`
    uses the value at position `n`, which is the peer's own value for that update:

    - transformers, torchtitan, nanotron: what their `LambdaLR` passes is `n`. torchtitan's warmup
      is one ahead: its first update is at `lr / warmup_steps`.
    - OLMo-core: its `current` is `n + 1`, because it counts an update before it makes it.
    - DeepSpeed: its `last_batch_iteration` is `n - 1`. Its warmups are at their least value for two
      updates.

    Keys are the peer's own. A missing one has the peer's default, which may be a warmup.

    Args:
        name: "transformers", "torchtitan", "olmo_core", "nanotron" or "deepspeed".
        mapping: The peer's block, and beside its keys the lr and the length of the run where the
            block has none; docs/schedules.md lists the keys.

    Raises:
        ConfigError: A key is unknown, missing or illegal, or has a meaning that a schedule of lr
            cannot have; names it, its value and the rule.

    Examples:
        >>> config = {"lr": 1.0, "training_steps": 100, "warmup_steps": 10}
        >>> schedule = from_peer("torchtitan", config)
        >>> [schedule(position) for position in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    build = PEERS[one_of(tuple(PEERS))("name", name)]
    with within(name):
        refuse_large(mapping)
        return build(mapping)
