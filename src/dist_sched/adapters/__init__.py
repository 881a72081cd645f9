"""What other frameworks need to drive, save and log a scheduler of this library.

There is one module for each framework. It is imported when it is first asked for, and only it
imports the framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    """Import a public name or a framework's module when it is first asked for."""
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    found = module if name == _MODULES[name] else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
