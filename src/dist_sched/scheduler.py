"""The two schedulers, and how to build one from a config file."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final, overload

from dist_sched._config import files
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._config.policy import CHECKPOINT, CONFIG, STRICT
from dist_sched._config.specification import Specification
from dist_sched._optim.base import Scheduler
from dist_sched._rules import known_arguments, typed_lengths
from dist_sched._state.reconciliation import choose
from dist_sched.errors import ConfigError, ReconcileError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from dist_sched._curves.proportional import ProportionalTo
    from dist_sched._curves.schedule import Schedule
    from dist_sched._optim.fields import Group

logger = logging.getLogger("dist_sched")

T = TypeVar("T")

_LENGTHS = "lr_warmup_steps", "lr_decay_steps", "wd_incr_steps", "wsd_decay_steps"
_LABELS = {
    "learning rate": "max_lr",
    "minimum learning rate": "min_lr",
    "warmup iterations": "lr_warmup_steps",
    "total number of iterations": "lr_decay_steps",
    "learning rate decay style": "lr_decay_style",
    "start weight decay": "start_wd",
    "end weight decay": "end_wd",
    "total number of weight decay iterations": "wd_incr_steps",
    "weight decay incr style": "wd_incr_style",
}
"""Megatron's names of entries in calls of `_check_and_set`."""


class _Entry(Generic[T]):
    """A read-only attribute for one config entry, because Megatron's callers read them."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Entry[T]: ...

    @overload
    def __get__(self, instance: Scheduler, owner: type) -> T: ...

    def __get__(self, instance: Scheduler | None, owner: type) -> _Entry[T] | T:
        if instance is None:
            return self
        effective = instance._agreed.effective  # noqa: SLF001 - a part of the class
        value: T = getattr(effective, self._name)
        return value

    def __set__(self, instance: Scheduler, value: T) -> None:
        raise AttributeError(
            f"{self._name} cannot be assigned; pass it to the constructor, or use cooldown(), "
            "extend(), rewarm() or scale() to change the schedule during a run"
        )


@final
class OptimizerParamScheduler(Scheduler):
    """Schedule learning rate and weight decay as Megatron-LM and NeMo AutoModel do.

    Constructor, methods, state keys and values are those of `OptimizerParamScheduler` in
    megatron-core 0.16.1 and nemo-automodel 0.7.0.

    With warmup `w`, horizon `h` and `r = (position - w) / (h - w)`, lr rises linearly from
    `init_lr` to `max_lr` and then follows `lr_decay_style`:

    - constant: `max_lr`;
    - linear: `min_lr + (1 - r) (max_lr - min_lr)`;
    - cosine: `min_lr + (1 + cos(pi r)) / 2 (max_lr - min_lr)`;
    - inverse-square-root: `max(min_lr, max_lr sqrt(max(w, 1)) / sqrt(position))`;
    - WSD: `max_lr` until `wsd_decay_steps` before `h`, then a decay by `lr_wsd_decay_style`.

    Past the horizon lr is `min_lr`, except for constant. Weight decay rises from `start_wd` to
    `end_wd` over `wd_incr_steps`.

    Build the scheduler before the optimizer is loaded. Afterwards the groups hold the values at
    position 0. Call `step()` after each optimizer update.

    Args:
        optimizer: An optimizer, a list of optimizers, or any object with `param_groups`. A group
            keeps the ratio of its own values to the reference. It may have bounds (`max_lr`,
            `min_lr`, `start_wd`, `end_wd`) or multipliers (`lr_mult`, `wd_mult`) instead, which
            are read at every step. `describe_groups()` shows what each group gets.
        init_lr: Learning rate at position 0, from 0 to `max_lr`. Used only with a warmup.
        max_lr: Peak learning rate, at least `min_lr`.
        min_lr: Learning rate at the horizon and after it, from 0 to `max_lr`.
        lr_warmup_steps: Length of the linear warmup, in units, from 0 to less than
            `lr_decay_steps`.
        lr_decay_steps: The horizon, in units, more than 0: the position at which the decay ends,
            including the warmup.
        lr_decay_style: "constant", "linear", "cosine", "inverse-square-root" or "WSD".
        start_wd: Weight decay at position 0, from 0 to `end_wd`.
        end_wd: Weight decay from position `wd_incr_steps` on, at least `start_wd`.
        wd_incr_steps: Length of the rise of weight decay, in units. With 0 it is always `end_wd`.
        wd_incr_style: "constant", "linear" or "cosine". With "constant", `start_wd` must equal
            `end_wd`.
        use_checkpoint_opt_param_scheduler: If True, the checkpoint wins for entries that differ
            from the script.
        override_opt_param_scheduler: If True, the script wins. If both are False, entries must be
            equal.
        wsd_decay_steps: Length of WSD's decay, in units, from 0 to `lr_decay_steps`. Required for
            WSD.
        lr_wsd_decay_style: "linear", "cosine", "exponential" or "minus_sqrt". Required for WSD.
        reference: The own value that follows the schedule without a ratio: a group's name for all
            fields, a number for lr, or a mapping from fields to names or numbers. If None, the
            first group's own value that is not 0.
        policy: Replaces the two booleans: "checkpoint", "config" or "strict", or a mapping from
            entry names to these words, with "*" for all other entries. With `"unit": "config"`, a
            checkpoint's position is used without conversion even if it was saved in another unit.
        unit: What a position counts: "steps" (optimizer updates), "samples" or "tokens".
        keep_group_ratios: If False, all groups get the same values.
        process_group: The ranks that load and synchronize together. If None, the default group.
        name: Name that distinguishes this scheduler from others on the same ranks, such as
            "generator".

    Raises:
        ConfigError: An entry, a group or an argument is invalid. The message has its name, its
            value and the rule.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = OptimizerParamScheduler(
        ...     optimizer, init_lr=0.0, max_lr=1.0, min_lr=0.1, lr_warmup_steps=10,
        ...     lr_decay_steps=110, lr_decay_style="linear",
        ...     start_wd=0.1, end_wd=0.1, wd_incr_steps=110, wd_incr_style="constant",
        ... )
        >>> for position in (0, 10, 60, 110, 111):
        ...     scheduler.seek(position)
        ...     print(position, optimizer.param_groups[0]["lr"])
        0 0.0
        10 1.0
        60 0.55
        110 0.1
        111 0.1
    """

    init_lr = _Entry[float]()
    max_lr = _Entry[float]()
    min_lr = _Entry[float]()
    lr_warmup_steps = _Entry[float]()
    lr_decay_steps = _Entry[float]()
    lr_decay_style = _Entry[str]()
    start_wd = _Entry[float]()
    end_wd = _Entry[float]()
    wd_incr_steps = _Entry[float]()
    wd_incr_style = _Entry[str]()
    wsd_decay_steps = _Entry["float | None"]()
    lr_wsd_decay_style = _Entry["str | None"]()

    @typed_lengths(*_LENGTHS, horizon="lr_decay_steps")
    @known_arguments
    def __init__(
        self,
        optimizer: Any,
        init_lr: float,
        max_lr: float,
        min_lr: float,
        lr_warmup_steps: float,
        lr_decay_steps: float,
        lr_decay_style: str,
        start_wd: float,
        end_wd: float,
        wd_incr_steps: float,
        wd_incr_style: str,
        use_checkpoint_opt_param_scheduler: bool | None = True,
        override_opt_param_scheduler: bool | None = False,
        wsd_decay_steps: float | None = None,
        lr_wsd_decay_style: str | None = None,
        *,
        reference: str | float | Mapping[str, str | float] | None = None,
        policy: str | Mapping[str, str] | None = None,
        unit: str = "steps",
        keep_group_ratios: bool = True,
        process_group: ProcessGroup | None = None,
        name: str | None = None,
    ) -> None:
        config = OptimizerParamConfig(
            init_lr=init_lr,
            max_lr=max_lr,
            min_lr=min_lr,
            lr_warmup_steps=lr_warmup_steps,
            lr_decay_steps=lr_decay_steps,
            lr_decay_style=lr_decay_style,
            start_wd=start_wd,
            end_wd=end_wd,
            wd_incr_steps=wd_incr_steps,
            wd_incr_style=wd_incr_style,
            wsd_decay_steps=wsd_decay_steps,
            lr_wsd_decay_style=lr_wsd_decay_style,
        )
        super().__init__(
            optimizer,
            config,
            policy=config.parse_policy(
                policy,
                use_checkpoint=use_checkpoint_opt_param_scheduler,
                override=override_opt_param_scheduler,
            ),
            unit=unit,
            keep_group_ratios=keep_group_ratios,
            process_group=process_group,
            reference=reference,
            name=name,
        )

    @property
    def use_checkpoint_opt_param_scheduler(self) -> bool:
        """Whether the policy is "checkpoint" for every entry."""
        return self._agreed.policy.is_all(CHECKPOINT)

    @property
    def override_opt_param_scheduler(self) -> bool:
        """Whether the policy is "config" for every entry."""
        return self._agreed.policy.is_all(CONFIG)

    def get_lr(self, param_group: Group) -> float:
        """Return the learning rate between a group's bounds, without its ratio and `lr_mult`.

        Args:
            param_group: A dict that may have `max_lr` and `min_lr`.

        Raises:
            ConfigError: The group has an invalid bound.
        """
        return self._writer.bounded(param_group, "lr", self.num_steps)

    def get_wd(self, param_group: Group | None = None) -> float:
        """Return the weight decay between a group's bounds, without its ratio and `wd_mult`.

        Args:
            param_group: A dict that may have `start_wd` and `end_wd`. None for no bounds.

        Raises:
            ConfigError: The group has an invalid bound.
        """
        return self._writer.bounded(param_group or {}, "weight_decay", self.num_steps)

    def _check_and_set(self, cls_value: T, sd_value: T, name: str) -> T:
        """Return the value to use for one entry, like Megatron's method of this name.

        Raises:
            ReconcileError: The policy is strict and the values differ.
        """
        word = self._agreed.policy.word(Path(_LABELS.get(name, name)))
        used, why = choose(cls_value, sd_value, word)
        if word == STRICT and cls_value != sd_value:
            raise ReconcileError(
                f"{name} is {cls_value!r} in the config and {sd_value!r} in the checkpoint, and "
                "its policy is 'strict'; make them equal, or choose another policy"
            )
        logger.info("%s: %s %r", name, why, used)
        return used


@final
class ParamScheduler(Scheduler):
    """Schedule any hyper-parameters of the param groups, and other values such as a batch size.

    Build the scheduler before the optimizer is loaded. Afterwards the groups hold the values at
    position 0. Call `step()` after each optimizer update.

    Args:
        optimizer: An optimizer, a list of optimizers, or any object with `param_groups`. Ratios,
            bounds and multipliers of groups work as in `OptimizerParamScheduler`. A group that
            lacks a field is skipped. With extras alone you may pass `[]`.
        fields: A mapping from param-group keys (`lr`, `weight_decay`, `momentum`, `betas[0]`, ...)
            to schedules. A schedule is a `Schedule`, a number for a constant, or a
            `schedules.proportional_to(...)` that follows another field or an extra. May be `{}` if
            there are extras.
        groups: Overrides for some groups: a mapping from patterns of group names
            (`param_group["name"]`, matched as `fnmatch` does) to mappings from fields to a schedule
            for these groups, or to a number that multiplies their value.
        extras: A mapping from names (`batch_size`, `sequence_length`, `aux_loss_weight`, ...) to
            schedules of values that no group holds. `scheduler.extras` has their present values.
        reference: The own value that follows the schedule without a ratio: a group's name for all
            fields, a number for lr, or a mapping from fields to names or numbers. If None, the own
            value of all groups if it is the same, else the own value that equals the schedule's
            highest value.
        policy: "checkpoint", "config" or "strict", or a mapping from entries to these words, with
            "*" for all other entries. If None, "checkpoint". Entries are paths such as
            `lr.phases[1].steps`, and the beginning of a path covers all entries below it. With
            `"unit": "config"`, a checkpoint's position is used without conversion even if it was
            saved in another unit.
        unit: What a position counts: "steps" (optimizer updates), "samples" or "tokens".
        keep_group_ratios: If False, all groups get the same values.
        process_group: The ranks that load and synchronize together. If None, the default group.
        name: Name that distinguishes this scheduler from others on the same ranks, such as
            "generator".

    Raises:
        ConfigError: No group has a field, a pattern matches no name, two patterns set one field of
            a group, a name is both a field and an extra, or a value is invalid. The message has the
            name, the value and the rule.

    Examples:
        >>> import torch
        >>> from dist_sched import Phase, Schedule
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        >>> scheduler = ParamScheduler(optimizer, {
        ...     "lr": Schedule([
        ...         Phase("linear", 10, end=1.0, start=0.0),
        ...         Phase("cosine", 90, end=0.1),
        ...     ]),
        ...     "momentum": Schedule([Phase("linear", 20, end=0.75, start=0.5)]),
        ... })
        >>> for position in (0, 10, 100, 101):
        ...     scheduler.seek(position)
        ...     group = optimizer.param_groups[0]
        ...     print(position, group["lr"], group["momentum"])
        0 0.0 0.5
        10 1.0 0.625
        100 0.1 0.75
        101 0.1 0.75
    """

    @known_arguments
    def __init__(
        self,
        optimizer: Any,
        fields: Mapping[str, Schedule | ProportionalTo | float],
        *,
        groups: Mapping[str, Mapping[str, Schedule | ProportionalTo | float]] | None = None,
        extras: Mapping[str, Schedule | ProportionalTo | float] | None = None,
        reference: str | float | Mapping[str, str | float] | None = None,
        policy: str | Mapping[str, str] | None = None,
        unit: str = "steps",
        keep_group_ratios: bool = True,
        process_group: ProcessGroup | None = None,
        name: str | None = None,
    ) -> None:
        config = Specification.of(fields, groups, extras)
        super().__init__(
            optimizer,
            config,
            policy=config.parse_policy(policy),
            unit=unit,
            keep_group_ratios=keep_group_ratios,
            process_group=process_group,
            reference=reference,
            name=name,
        )


def from_config(
    optimizer: Any,
    source: Mapping[str, Any] | str | os.PathLike[str],
    *,
    policy: str | Mapping[str, str] | None = None,
    process_group: ProcessGroup | None = None,
) -> OptimizerParamScheduler | ParamScheduler:
    """Build a scheduler from a JSON, YAML or TOML file, or from a mapping.

    docs/configuration.md describes the format. `scheduler.to_config()` returns such a mapping.

    Args:
        optimizer: An optimizer, a list of optimizers, or any object with `param_groups`.
        source: The path of the file, or the mapping.
        policy: Replaces the policy of the config.
        process_group: The ranks that load and synchronize together. If None, the default group.

    Returns:
        A `ParamScheduler` if the config has `fields` or `extras`, else an
        `OptimizerParamScheduler`.

    Raises:
        ConfigError: A key is unknown or missing, a value is invalid, or the file cannot be read.
    """
    declaration = files.read(source)
    config = declaration.config
    kind: type[OptimizerParamScheduler | ParamScheduler] = (
        ParamScheduler if isinstance(config, Specification) else OptimizerParamScheduler
    )
    scheduler = kind.__new__(kind)
    try:
        parsed = None if policy is None else config.parse_policy(policy)
        # Not the class's own constructor, which would build config and policy again.
        Scheduler.__init__(
            scheduler,
            optimizer,
            config,
            policy=parsed or declaration.policy or config.parse_policy(None),
            unit=declaration.unit,
            keep_group_ratios=declaration.keep_group_ratios,
            process_group=process_group,
            reference=declaration.reference,
            name=declaration.name,
        )
    except ConfigError as error:
        if isinstance(source, Mapping):
            raise
        raise ConfigError(f"{os.fspath(source)}: {error}") from error
    return scheduler
