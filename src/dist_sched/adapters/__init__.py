"""Adapters with which training frameworks can step, save and log a scheduler of this library.

There is one module for each framework. It is imported on first use, and only it imports the
framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_sched import _lazy

if TYPE_CHECKING:
    from dist_sched.adapters import ignite, loggers, lr_scheduler, megatron, nemo, torchtitan
    from dist_sched.adapters.loggers import metrics
    from dist_sched.adapters.lr_scheduler import as_lr_scheduler

__all__ = [
    "as_lr_scheduler",
    "ignite",
    "loggers",
    "lr_scheduler",
    "megatron",
    "metrics",
    "nemo",
    "torchtitan",
]

_MODULES = {
    "as_lr_scheduler": "lr_scheduler",
    "ignite": "ignite",
    "loggers": "loggers",
    "lr_scheduler": "lr_scheduler",
    "megatron": "megatron",
    "metrics": "loggers",
    "nemo": "nemo",
    "torchtitan": "torchtitan",
}


def __getattr__(name: str) -> Any:
    """Import a public name or a framework's module on first use."""
    return _lazy.find(name, __name__, _MODULES, globals())


def __dir__() -> list[str]:
    return sorted(__all__)
