"""A scheduler in the recipes of NeMo AutoModel, which know schedulers by their class."""

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
"""Attribute of a replacement, in which what it replaces is kept."""


def install(build: Build | None = None, *, multipliers: bool = True) -> None:
    """Make the recipes of NeMo AutoModel train with schedulers of this library, and save them.

    A recipe decides by class what it saves, so that a scheduler of ours is silently not in its
    checkpoints without this. Call it before the recipe is built. Another call replaces the first.

    - `lr_scheduler:` of the recipe's config makes an `OptimizerParamScheduler` of ours, with the
      values that AutoModel's own class has.
    - Checkpoints have our whole state under AutoModel's key `sched`. AutoModel's own class loads
      them, and ours loads those that AutoModel's class saved.

    Args:
        build: Builds the scheduler from all optimizers, instead of the class with the entries of
            `lr_scheduler:`, a section that the config must still have.
        multipliers: Whether every group gets `lr_mult` and `wd_mult`, as by `add_multipliers`.
            Without them AutoModel's own class cannot load what is saved; with them, a checkpoint
            that lacks them cannot be loaded.

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
    """Write `lr_mult` and `wd_mult` into every group, as AutoModel's class does; no value changes.

    AutoModel's groups have both keys, so that DCP loads only optimizer checkpoints that have them:
    call this before a checkpoint for AutoModel is saved. A group that has its own is left alone,
    and one with `max_lr` or `min_lr` gets no `lr_mult`, as there.

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
        # Not by DCP, which refuses a checkpoint of AutoModel's class: our text is not in it.
        for one in found:
            checkpoint.load(one, posixpath.join(weights_path, "optim"), key="sched")

    return load_optimizer


def _ours(value: object) -> Sequence[Scheduler]:
    """Return the schedulers of this library that a recipe has; none where any is another's."""
    several = value if isinstance(value, list) else [value]
    found = [one for one in several if isinstance(one, Scheduler)]
    return found if len(found) == len(several) else []


def _is_one(optimizer: Any) -> bool:
    return hasattr(optimizer, "param_groups")


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what is made of the original, however often this is called."""
    found = getattr(owner, name)
    original = getattr(found, _ORIGINAL, found)
    replacement = make(original)
    if replacement is not original:
        setattr(replacement, _ORIGINAL, original)
    setattr(owner, name, replacement)
