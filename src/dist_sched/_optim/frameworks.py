"""Frameworks that need an adapter, recognised without importing them."""

from __future__ import annotations

import sys
from typing import Any

from dist_sched._optim.wrappers import attribute

_AS_LR_SCHEDULER = "give it dist_sched.adapters.as_lr_scheduler(scheduler)"
_PACES_AND_SAVES = "paces and saves nothing but an LRScheduler: " + _AS_LR_SCHEDULER

_ADVICE = {
    "nemo_automodel": "AutoModel's recipes know schedulers by class, and save ours only after "
    "dist_sched.adapters.nemo.install()",
    "torchtitan": "torchtitan's Trainer takes the container of dist_sched.adapters.torchtitan",
    "transformers": "transformers' Trainer makes a scheduler of its own unless it gets one: "
    "Trainer(optimizers=(optimizer, dist_sched.adapters.as_lr_scheduler(scheduler)))",
    "accelerate": f"accelerate's prepare() {_PACES_AND_SAVES}",
    "lightning": f"Lightning's Trainer {_PACES_AND_SAVES}",
    "pytorch_lightning": f"Lightning's Trainer {_PACES_AND_SAVES}",
}
"""By package, the surest first: those above import or use those below."""

_TRAINERS = {
    "nemo_automodel": "nemo_automodel.recipes",
    "torchtitan": "torchtitan.trainer",
    "transformers": "transformers.trainer",
}
"""Modules without which a package was imported for something else than its training loop."""


def advice(optimizers: list[Any]) -> str:
    """Return what to give the framework that trains here, as the end of a message.

    Args:
        optimizers: As the scheduler was given them. A framework may have wrapped one.
    """
    packages = [type(one).__module__.partition(".")[0] for one in optimizers]
    packages += [name for name in _ADVICE if _is_used(name)]
    found = next((package for package in packages if package in _ADVICE), None)
    return "" if found is None else f" ({_ADVICE[found]})"


def _is_used(package: str) -> bool:
    if package in ("accelerate", "transformers") and not _shared("AcceleratorState"):
        return False  # many packages import them, and their trainers make an `Accelerator`
    return _TRAINERS.get(package, package) in sys.modules


def may_accumulate() -> bool:
    """Return whether accelerate may call a step where it makes no update."""
    return bool(_shared("GradientState"))


def step_of_micro_batch() -> str:
    """Return what to say of a step where accelerate makes no update; empty where it makes one."""
    if _shared("GradientState").get("sync_gradients", True):
        return ""
    return (
        "step() was called for a micro-batch, after which accelerate makes no update, and the "
        f"position counts it ({_ADVICE['accelerate']})"
    )


def _shared(name: str) -> dict[str, Any]:
    """Return what accelerate's state of this name holds; nothing before there is one."""
    kind = attribute(sys.modules.get("accelerate.state"), name)
    found = attribute(kind, "_shared_state")
    return found if isinstance(found, dict) else {}
