"""An adapter for the recipes of NeMo AutoModel, which recognise schedulers by class."""

from __future__ import annotations

import functools
import posixpath
from typing import TYPE_CHECKING, Any

from dist_sched import checkpoint
from dist_sched._optim.base import Scheduler
from dist_sched.errors import ConfigError
from dist_sched.scheduler import OptimizerParamScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.optim import Optimizer

    Build = Callable[[list[Optimizer]], Scheduler]

_ORIGINAL = "_replaced_by_dist_sched"
"""Attribute in which a replacement keeps the original."""


def install(build: Build | None = None, *, multipliers: bool = True) -> None:
    """Make the recipes of NeMo AutoModel use schedulers of this library, and save them.

    Call it before the recipe is built. A recipe decides by class what to save. Without this call,
    a scheduler of this library would silently be missing from its checkpoints.

    - The section `lr_scheduler:` of the recipe's config builds our `OptimizerParamScheduler`. Its
      values are the same as with AutoModel's own class.
    - Checkpoints have our state under AutoModel's key `sched`. AutoModel's own class can load them,
      and our scheduler loads checkpoints of AutoModel's class.

    Another call replaces an earlier one.

    Args:
        build: Builds the scheduler from a list of all optimizers. If None, the section
            `lr_scheduler:` is used. The config must have this section in any case.
        multipliers: If True, every group gets `lr_mult` and `wd_mult`, as with `add_multipliers`.
            AutoModel's own class can load a checkpoint only if it has them. With them, you cannot
            load a checkpoint that lacks them.

    Raises:
        ImportError: NeMo AutoModel is not installed.
    """
    from nemo_automodel.components.checkpoint.checkpointing import Checkpointer
    from nemo_automodel.components.optim import optimizer as configs
    from nemo_automodel.recipes import base_recipe

    def built(scheduler: Scheduler) -> Scheduler:
        if multipliers:
            add_multipliers(scheduler)
        return scheduler

    def from_entries(**entries: Any) -> Scheduler:
        return built(OptimizerParamScheduler(**entries))

    def build_all(_: Callable[..., Any]) -> Callable[..., Any]:
        def built_by_user(config: Any, optimizer: Any, step_scheduler: Any) -> list[Scheduler]:
            del config, step_scheduler
            made = build([optimizer] if _is_one(optimizer) else list(optimizer))  # type: ignore[misc]
            if not isinstance(made, Scheduler):
                raise ConfigError(
                    "build: must return an OptimizerParamScheduler or a ParamScheduler, not "
                    f"{type(made).__name__}"
                )
            return [built(made)]

        return built_by_user

    _replace(base_recipe, "is_lr_scheduler", _knowing_ours)
    _replace(Checkpointer, "load_optimizer", _loading_ours)
    _replace(configs, "OptimizerParamScheduler", lambda _: from_entries)
    _replace(configs.LRSchedulerConfig, "build", build_all if build else lambda original: original)


def add_multipliers(scheduler: Scheduler) -> None:
    """Write `lr_mult` and `wd_mult` into every group, as AutoModel's own class does.

    No scheduled value changes. Call it before you save a checkpoint for AutoModel, whose groups
    have both keys, because DCP can then load only optimizer checkpoints with these keys. A group
    that has one of the keys keeps it, and a group with `max_lr` or `min_lr` gets no `lr_mult`.

    Examples:
        >>> import torch
        >>> from dist_sched import ParamScheduler, adapters, schedules
        >>> body, head = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        >>> optimizer = torch.optim.AdamW(
        ...     [{"params": [body]}, {"params": [head], "weight_decay": 0.0, "lr": 0.5}],
        ...     lr=1.0, weight_decay=0.1,
        ... )
        >>> fields = {"lr": schedules.linear(1.0, 10), "weight_decay": 0.1}
        >>> adapters.nemo.add_multipliers(ParamScheduler(optimizer, fields))
        >>> [(group["lr_mult"], group["wd_mult"]) for group in optimizer.param_groups]
        [(1.0, 1.0), (0.5, 0.0)]

    Args:
        scheduler: An `OptimizerParamScheduler` or a `ParamScheduler`.
    """
    scheduler._writer.write_multipliers()  # noqa: SLF001 - of this library


def _knowing_ours(original: Callable[[object], bool]) -> Callable[[object], bool]:
    def is_lr_scheduler(value: object) -> bool:
        return bool(_ours(value)) or original(value)

    return is_lr_scheduler


def _loading_ours(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def load_optimizer(
        self: Any,
        optimizer: Any,
        model: Any,
        weights_path: str,
        scheduler: Any = None,
        **options: Any,
    ) -> None:
        found = _ours(scheduler)
        original(self, optimizer, model, weights_path, None if found else scheduler, **options)
        # Not with DCP, which cannot load a checkpoint of AutoModel's class, without our text.
        for one in found:
            checkpoint.load(one, posixpath.join(weights_path, "optim"), key="sched")

    return load_optimizer


def _ours(value: object) -> Sequence[Scheduler]:
    """Return the recipe's schedulers if all are of this library, else an empty list."""
    several = value if isinstance(value, list) else [value]
    found = [one for one in several if isinstance(one, Scheduler)]
    return found if len(found) == len(several) else []


def _is_one(optimizer: Any) -> bool:
    return hasattr(optimizer, "param_groups")


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by a function of the original, even if it was replaced before."""
    found = getattr(owner, name)
    original = getattr(found, _ORIGINAL, found)
    replacement = make(original)
    if replacement is not original:
        setattr(replacement, _ORIGINAL, original)
    setattr(owner, name, replacement)
