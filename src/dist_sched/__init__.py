"""Learning-rate and other optimizer schedules for distributed PyTorch, saved in the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_sched import _lazy

if TYPE_CHECKING:
    from dist_sched import adapters, checkpoint, schedules
    from dist_sched._curves.phases import Phase
    from dist_sched._curves.schedule import Schedule
    from dist_sched._curves.shapes import register_shape
    from dist_sched._state.reconciliation import reconcile
    from dist_sched._state.report import Reconciliation
    from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError
    from dist_sched.plateau import Plateau
    from dist_sched.plotting import plot
    from dist_sched.scheduler import OptimizerParamScheduler, ParamScheduler, from_config

__all__ = [
    "ConfigError",
    "OptimizerParamScheduler",
    "ParamScheduler",
    "Phase",
    "Plateau",
    "RankMismatchError",
    "ReconcileError",
    "Reconciliation",
    "Schedule",
    "StateError",
    "__version__",
    "adapters",
    "checkpoint",
    "from_config",
    "plot",
    "reconcile",
    "register_shape",
    "schedules",
]

__version__ = "0.2.0"

_MODULES = {
    "ConfigError": "errors",
    "adapters": "adapters",
    "checkpoint": "checkpoint",
    "OptimizerParamScheduler": "scheduler",
    "ParamScheduler": "scheduler",
    "Phase": "_curves.phases",
    "Plateau": "plateau",
    "RankMismatchError": "errors",
    "ReconcileError": "errors",
    "Reconciliation": "_state.report",
    "Schedule": "_curves.schedule",
    "StateError": "errors",
    "from_config": "scheduler",
    "plot": "plotting",
    "reconcile": "_state.reconciliation",
    "register_shape": "_curves.shapes",
    "schedules": "schedules",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import dist_sched` stays fast."""
    return _lazy.find(name, __name__, _MODULES, globals())


def __dir__() -> list[str]:
    return sorted(__all__)
