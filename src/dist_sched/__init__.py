"""Schedules of optimizer hyper-parameters that stop, resume and agree across ranks exactly."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_sched import checkpoint, schedules
    from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError
    from dist_sched.phases import Phase, Schedule
    from dist_sched.plotting import plot
    from dist_sched.reconciliation import Reconciliation, reconcile
    from dist_sched.scheduler import OptimizerParamScheduler, ParamScheduler, from_config
    from dist_sched.shapes import register_shape

__all__ = [
    "ConfigError",
    "OptimizerParamScheduler",
    "ParamScheduler",
    "Phase",
    "RankMismatchError",
    "ReconcileError",
    "Reconciliation",
    "Schedule",
    "StateError",
    "checkpoint",
    "from_config",
    "plot",
    "reconcile",
    "register_shape",
    "schedules",
]

_HOMES = {
    "ConfigError": "errors",
    "checkpoint": "checkpoint",
    "OptimizerParamScheduler": "scheduler",
    "ParamScheduler": "scheduler",
    "Phase": "phases",
    "RankMismatchError": "errors",
    "ReconcileError": "errors",
    "Reconciliation": "reconciliation",
    "Schedule": "phases",
    "StateError": "errors",
    "from_config": "scheduler",
    "plot": "plotting",
    "reconcile": "reconciliation",
    "register_shape": "shapes",
    "schedules": "schedules",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import dist_sched` is cheap."""
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    found = home if name == _HOMES[name] else getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
