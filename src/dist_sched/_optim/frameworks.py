"""Frameworks that need an adapter, recognised without importing them."""

from __future__ import annotations

import sys
from typing import Any

from dist_sched._optim.wrappers import attribute

_AS_LR_SCHEDULER = "pass dist_sched.adapters.as_lr_scheduler(scheduler)"
_STEPS_AND_SAVES = "steps and saves only an LRScheduler; " + _AS_LR_SCHEDULER

_ADVICE = {
    "nemo_automodel": "AutoModel's recipes recognise schedulers by class; call "
    "dist_sched.adapters.nemo.install() so that they save this one",
    "torchtitan": "torchtitan's Trainer needs the container of dist_sched.adapters.torchtitan",
    "transformers": "transformers' Trainer builds its own scheduler unless you pass one: "
    "Trainer(optimizers=(optimizer, dist_sched.adapters.as_lr_scheduler(scheduler)))",
    "accelerate": f"accelerate's prepare() {_STEPS_AND_SAVES}",
    "lightning": f"Lightning's Trainer {_STEPS_AND_SAVES}",
    "pytorch_lightning": f"Lightning's Trainer {_STEPS_AND_SAVES}",
}
"""Advice by package, most specific first: earlier packages import or use later ones."""

_TRAINERS = {
    "nemo_automodel": "nemo_automodel.recipes",
    "torchtitan": "torchtitan.trainer",
    "transformers": "transformers.trainer",
}
"""Modules that are imported if the training loop of a package is used."""


def advice(optimizers: list[Any]) -> str:
    """Return advice for the framework that trains here, as the end of a message.

    Args:
        optimizers: The scheduler's optimizers, which a framework may have wrapped.
    """
    packages = [type(one).__module__.partition(".")[0] for one in optimizers]
    packages += [name for name in _ADVICE if _is_used(name)]
    found = next((package for package in packages if package in _ADVICE), None)
    return "" if found is None else f" ({_ADVICE[found]})"


def _is_used(package: str) -> bool:
    if package in ("accelerate", "transformers") and not _shared("AcceleratorState"):
        return False  # many packages import them, but only trainers create an `Accelerator`
    return _TRAINERS.get(package, package) in sys.modules


def may_accumulate() -> bool:
    """Return whether accelerate may call step() without an update."""
    return bool(_shared("GradientState"))


def step_of_micro_batch() -> str:
    """Return a warning about a step for which accelerate makes no update, or ""."""
    if _shared("GradientState").get("sync_gradients", True):
        return ""
    return (
        "step() was called for a micro-batch, for which accelerate makes no update, so the "
        f"position is too high ({_ADVICE['accelerate']})"
    )


def _shared(name: str) -> dict[str, Any]:
    """Return the values of accelerate's state of this name, or an empty dict."""
    kind = attribute(sys.modules.get("accelerate.state"), name)
    found = attribute(kind, "_shared_state")
    return found if isinstance(found, dict) else {}
