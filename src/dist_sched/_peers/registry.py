"""The other libraries whose configs can be read, by name."""

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
"""The libraries whose configs `from_peer` reads."""


def from_peer(name: str, mapping: Mapping[str, Any]) -> Schedule:
    """Build the learning-rate schedule that another library builds from a block of its config.

    Every update has the same value as in the other library. Positions count optimizer updates, or
    tokens with OLMo-core's `units`. Update `n + 1` uses the value at position `n`, which is:

    - transformers, torchtitan, nanotron: the argument `n` of their `LambdaLR`. torchtitan's warmup
      is one update ahead, so its first update has `lr / warmup_steps`.
    - OLMo-core: its `current` minus 1, because it counts an update before the update.
    - DeepSpeed: its `last_batch_iteration` plus 1. Its warmups have their lowest value for two
      updates.

    The keys are the other library's. A missing key has the other library's default, which may be a
    warmup.

    Args:
        name: "transformers", "torchtitan", "olmo_core", "nanotron" or "deepspeed".
        mapping: The block of the other library's config. Add the lr and the length of the run if
            the block does not have them. docs/schedules.md lists the keys.

    Returns:
        The schedule.

    Raises:
        ConfigError: A key is unknown, missing or invalid, or is not supported. The message has the
            key, its value and the rule.

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
