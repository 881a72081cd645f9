"""The schedulers: they bind config, state, reconciliation and groups to an optimizer."""

from __future__ import annotations

import logging
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final, overload

from torch.optim import Optimizer

from dist_sched import config as rules
from dist_sched import ranks
from dist_sched import state as states
from dist_sched.config import CHECKPOINT, CONFIG, REST, STRICT, Config, OptimizerParamConfig, Policy
from dist_sched.curves import value as curve_value
from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError
from dist_sched.groups import Curves, Group, Groups
from dist_sched.reconciliation import Reconciliation, reconcile_checkpoint, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.distributed import ProcessGroup

logger = logging.getLogger("dist_sched")

T = TypeVar("T")


class Scheduler:
    """The engine under every scheduler: one config, one position, and the groups that follow them.

    Convention: after construction the groups hold the values at position 0; the k-th optimizer
    update uses those at position k - 1 when each update advances the position by one.
    """

    def __init__(
        self,
        optimizer: Any,
        config: Config,
        *,
        policy: Policy,
        unit: str,
        keep_group_ratios: bool,
        process_group: ProcessGroup | None,
    ) -> None:
        self._optimizer = optimizer
        self.unit = rules.unit_word("unit", unit)
        self.keep_group_ratios = rules.flag("keep_group_ratios", keep_group_ratios)
        self.process_group = process_group
        self.last_reconciliation: Reconciliation | None = None
        """The outcome of the latest load; None until one succeeds."""
        ranks.check(process_group)
        self._policy = policy
        self._declared = config
        self._config = config
        self._curves = config.curves()
        self._position = 0
        self._hooks: list[weakref.finalize[..., Any]] = []
        self._loaded_text: object = None
        self._saved: tuple[int, Curves] | None = None
        """Position and curves that the latest load's checkpoint had, where they are known."""
        self._groups = Groups(optimizer, config.FIELDS, self._curves, keep_ratios=keep_group_ratios)
        self._groups.write(0, self._curves)
        self._hook_optimizer_loads()

    @property
    def optimizer(self) -> Any:
        """What the constructor was given. Another may be assigned, such as one that wraps it.

        Groups with the same parameters keep their ratios; the values are written at once.

        Raises:
            ConfigError: On assignment, where it is no optimizer or one of its groups is illegal.
                The former one is scheduled on.
        """
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        self._groups.follow(optimizer)
        self._optimizer = optimizer
        self._groups.write(self._position, self._curves)
        self._hook_optimizer_loads()

    @property
    def num_steps(self) -> int:
        """The position, in units. Assigning to it is `seek`, and raises what that raises."""
        return self._position

    @num_steps.setter
    def num_steps(self, position: int) -> None:
        self.seek(position)

    def step(self, increment: int = 1) -> None:
        """Advance the position, and write the values there into every group.

        Args:
            increment: Units completed since the last call: 1 for one optimizer update, or the
                samples or tokens that it took over all ranks. A whole number >= 0.

        Raises:
            ConfigError: The increment is something else, or a group has an illegal bound or
                multiplier. Position and groups are as before.
        """
        if type(increment) is not int or increment < 0:
            increment = rules.whole("increment", increment)
        position = self._position + increment
        if position > rules.MAX_LENGTH:
            rules.whole("position", position)
        self._go(position, self._curves)

    def seek(self, position: int) -> None:
        """Go to an absolute position, and write the values there into every group.

        Args:
            position: Units completed since the run began.

        Raises:
            ConfigError: As for `step`.
        """
        self._go(rules.whole("position", position), self._curves)

    def get_last_lr(self) -> list[float]:
        """Give the learning rate of every group, as a float and in the optimizers' order.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        return [values["lr"] for values in self._groups.values(self._position, self._curves)]

    def state_dict(self) -> states.State:
        """Give the state: a fresh dict of int, float and str, the same on every rank.

        The format is described in docs/state.md.
        """
        return states.pack(self._config, self._position, self.unit)

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        *,
        expected_position: int | None = None,
        local: bool = False,
    ) -> None:
        """Take up a checkpoint state, reconciled with the script's config by the policy.

        With a process group this is collective: its first rank alone reads its state and decides,
        and every rank applies the same outcome or raises the same error. A rank whose config is
        another adopts the first rank's, and says so.

        The position is set, never added to, and loading twice is loading once. What the
        constructor was given is the config side of every load.

        Args:
            state: What `state_dict` gave, or what one of the seeds saved. Only the first rank's
                is read; the others may give `{}`.
            expected_position: The position that the trainer believes in, if it has one. As with
                the state, the first rank's counts.
            local: Decide on this rank alone, without communication. A collective load that only
                some ranks join is not always a hang: on gloo, the next broadcast may silently
                receive its bytes.

        Raises:
            StateError: The state is malformed, or at another position than expected.
            ReconcileError: Strict entries or units differ, or the outcome is an illegal config.
            ConfigError: A group of this rank has an illegal bound or multiplier.
                That is this rank's alone, since the decision was already taken.
                On every error scheduler and groups are as before.
        """
        self.load_from(lambda: (state, None), expected_position=expected_position, local=local)

    def load_from(
        self,
        read: Callable[[], tuple[Mapping[str, Any], T]],
        *,
        expected_position: int | None = None,
        local: bool = False,
    ) -> T:
        """Take up a checkpoint state as `load_state_dict` does, from storage of one's own.

        Args:
            read: Gives the state and where it was found, which the log names unless it is None.
                Called on the first rank alone; what it raises is raised on every rank.
            expected_position: As for `load_state_dict`.
            local: As for `load_state_dict`.

        Returns:
            Where the first rank found the state.

        Raises:
            BaseException: What `read` raised, and what `load_state_dict` raises.
        """

        def decision() -> tuple[_Terms, T]:
            state, where = read()
            return self._reconcile(state, expected_position), where

        terms, where = ranks.decide(decision, self.process_group, local=local)
        self._adopt(terms)
        self.last_reconciliation = terms.outcome
        self._saved = terms.saved
        self._loaded_text = terms.text
        self._groups.forget_carried()
        if terms.outcome is not None and (local or ranks.rank(self.process_group) == 0):
            _log(terms.outcome, where)
        return where

    def synchronize(self) -> None:
        """Make every rank adopt the first rank's config and position; for a fresh start.

        Collective: one gather. Pipeline stages whose first groups differ in lr or weight decay
        need it, for their ratios to be those of one process: measured against the first value
        that is not zero, in the order of ranks.

        Raises:
            ConfigError: A group of this rank has an illegal bound or multiplier.
        """
        told = ranks.gather(self._terms(), self.process_group)
        references = {
            key: next((terms.references[key] for terms in told if terms.references[key]), None)
            for key in told[0].references
        }
        self._adopt(replace(told[0], references=references))

    def verify(self) -> None:
        """Check that all ranks agree and that their groups hold what they should.

        Collective: one gather, of a few hundred bytes where all is well. Compared are config,
        unit, policy, position and the reference values of the ratios. Read back are lr and weight
        decay of every group that is stepped, and compared with what this rank's group should
        hold; groups are not compared across ranks, as pipeline stages have other ones.

        Raises:
            RankMismatchError: On every rank, naming rank, entry and both values.
        """
        told = ranks.gather(self._testimony(), self.process_group)
        lines = [line for rank in range(len(told)) for line in _disagreements(told, rank)]
        if lines:
            raise RankMismatchError(
                "\n".join(["ranks disagree:", *lines]), ranks=dict(enumerate(told))
            )

    def check_position(self, position: int) -> None:
        """Make sure that the scheduler is where the trainer is.

        Args:
            position: The trainer's own count, in the scheduler's unit.

        Raises:
            StateError: The positions differ.
        """
        _check_position(self._position, rules.whole("position", position))

    def __repr__(self) -> str:
        lines = [
            f"position: {self._position} {self.unit}",
            *(f"{name}: {value!r}" for name, value in self._config.entries().items()),
            f"policy: {dict(self._policy.words)!r}",
            *(
                f"next {field.key}: {curve_value(curve, self._position)!r}"
                for field, curve in zip(self._config.FIELDS, self._curves, strict=True)
            ),
        ]
        return "\n    ".join([f"{type(self).__name__}(", *lines]) + "\n)"

    def _reconcile(self, state: Mapping[str, Any], expected_position: int | None) -> _Terms:
        checkpoint = states.unpack(
            state, type(self._declared), own=self.state_dict(), loaded=self._loaded_text
        )
        if expected_position is not None:
            expected = rules.whole("expected_position", expected_position)
            _check_position(checkpoint.position, expected)
        saved = self._saved_curves(checkpoint)
        if saved is not None:
            carried = self._groups.carried_differences(*saved)
            checkpoint = replace(checkpoint, warnings=(*checkpoint.warnings, *carried))
        config, outcome = reconcile_checkpoint(self._declared, self.unit, checkpoint, self._policy)
        self._groups.values(outcome.position, config.curves())  # or raise it on every rank
        return replace(
            self._terms(),
            used=config,
            position=outcome.position,
            outcome=outcome,
            saved=saved,
            text=states.text_of(state),
        )

    def _saved_curves(self, checkpoint: states.Checkpoint) -> tuple[int, Curves] | None:
        entries = {**self._declared.entries(), **checkpoint.entries}
        try:
            return checkpoint.position, self._declared.from_entries(entries).curves()
        except ConfigError:
            return None

    def _terms(self) -> _Terms:
        return _Terms(
            declared=self._declared,
            used=self._config,
            position=self._position,
            unit=self.unit,
            policy=self._policy,
            keep_group_ratios=self.keep_group_ratios,
            references=self._groups.references,
        )

    def _adopt(self, terms: _Terms) -> None:
        """Take up terms that may be another rank's, or leave everything as it was."""
        mine = self._terms()
        theirs = {key: value for key, value in terms.references.items() if value is not None}
        self._groups.measure_against(
            {**mine.references, **theirs}, keep_ratios=terms.keep_group_ratios
        )
        try:
            self._go(terms.position, terms.used.curves())
        except ConfigError:
            self._groups.measure_against(mine.references, keep_ratios=mine.keep_group_ratios)
            with suppress(ConfigError):
                self._groups.write(self._position, self._curves)
            raise
        self._declared, self._config = terms.declared, terms.used
        self._policy, self.unit = terms.policy, terms.unit
        self.keep_group_ratios = terms.keep_group_ratios
        if terms.outcome is not None:  # a load changes the position in any case
            mine = replace(mine, position=terms.position)
        differences = _differences(mine.told(), terms.told())
        if differences:
            logger.warning(
                "rank %d adopts what rank 0 has: %s",
                ranks.rank(self.process_group),
                "; ".join(differences),
            )

    def _testimony(self) -> dict[str, Any]:
        """Tell what this rank has, and which of its groups hold something else."""
        try:
            wrong = self._groups.wrong_values(self._position, self._curves)
        except ConfigError as error:
            wrong = [str(error)]
        except Exception as error:  # noqa: BLE001 - the other ranks wait for what this one tells
            wrong = [f"its groups cannot be read: {error!r}"]
        told = replace(self._terms(), declared=self._config).told()
        references = {
            f"reference {key}": value
            for key, value in self._groups.references.items()
            if self._groups.members
        }
        return {**told, **references, "groups": wrong}

    def _go(self, position: int, curves: Curves) -> None:
        """Write the values at a position, or leave everything as it was."""
        try:
            self._groups.write(position, curves)
        except ConfigError:
            with suppress(ConfigError):  # the same group is illegal at the old position too
                self._groups.write(self._position, self._curves)
            raise
        self._position, self._curves = position, curves

    def _hook_optimizer_loads(self) -> None:
        """Follow loads of the optimizers, without keeping this scheduler alive."""
        for remove in self._hooks:
            remove()
        self._hooks = []
        for optimizer in self._groups.optimizers():
            if isinstance(optimizer, Optimizer):
                before = _weakly(self._before_optimizer_load)
                after = _weakly(self._after_optimizer_load)
                handles = (
                    optimizer.register_load_state_dict_pre_hook(before),
                    optimizer.register_load_state_dict_post_hook(after),
                )
                self._hooks += [weakref.finalize(self, handle.remove) for handle in handles]

    def _before_optimizer_load(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        self._groups.expect_load(optimizer, state.get("param_groups", ()))

    def _after_optimizer_load(self, optimizer: Optimizer) -> None:
        """Make the load order irrelevant: settle what the load brought, and write again."""
        differences = self._groups.settle_overrides(optimizer, self._policy)
        try:
            if self._saved is not None and self._saved[0] == self._position:
                differences += self._groups.carried_differences(*self._saved)
                self._groups.forget_carried()
            self._groups.write(self._position, self._curves)
        except ConfigError:
            self._groups.put_back_overrides(optimizer)
            self._groups.write(self._position, self._curves)
            raise
        if differences:
            is_first = ranks.rank(self.process_group) == 0
            logger.log(logging.WARNING if is_first else logging.INFO, "\n".join(differences))


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Make a function that calls a method for as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        found = reference()
        if found is not None:
            found(*arguments)

    return call


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What the ranks have to share; one broadcast carries it."""

    declared: Config
    used: Config
    position: int
    unit: str
    policy: Policy
    keep_group_ratios: bool
    references: dict[str, float | None]
    outcome: Reconciliation | None = None
    saved: tuple[int, Curves] | None = None
    text: object = None
    """The loaded state's, by which it is known again."""

    def told(self) -> dict[str, Any]:
        """Give by name what two ranks can differ in, other than by their groups."""
        return {
            **self.declared.entries(),
            "position": self.position,
            "unit": self.unit,
            "policy": dict(self.policy.words),
            "keep_group_ratios": self.keep_group_ratios,
        }


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {theirs[name]!r} instead of {mine[name]!r}"
        for name in mine
        if mine[name] != theirs.get(name)
    ]


def _disagreements(told: list[dict[str, Any]], rank: int) -> list[str]:
    """Say in what a rank differs from the first, and which of its groups hold other values."""
    mine = told[rank]
    first = {name: value for testimony in reversed(told) for name, value in testimony.items()}
    differ = [name for name in mine if name != "groups" and mine[name] != first[name]]
    return [
        *(f"rank {rank}: {name} is {mine[name]!r}, rank 0 has {first[name]!r}" for name in differ),
        *(f"rank {rank}: {line}" for line in mine["groups"]),
    ]


def _check_position(found: int, expected: int) -> None:
    if found != expected:
        raise StateError(
            f"key {states.POSITION_KEY!r}: the scheduler's position is {found}, the trainer's is "
            f"{expected}: they are not of the same checkpoint, or count different units"
        )


def _log(outcome: Reconciliation, where: object) -> None:
    """Report a load once: one line if nothing differs, else the whole table."""
    origin = "" if where is None else f" from {where}"
    if outcome.changed or outcome.warnings:
        logger.warning("loaded the scheduler%s at %s", origin, outcome)
    else:
        logger.info(
            "loaded the scheduler%s at position %d; config and checkpoint are equal",
            origin,
            outcome.position,
        )


_SEEDS_LABELS = {
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
"""What the seeds call an entry where they settle it."""


class _Entry(Generic[T]):
    """A readable attribute for one config entry, as used: the seeds' callers read them."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Entry[T]: ...

    @overload
    def __get__(self, instance: Scheduler, owner: type) -> T: ...

    def __get__(self, instance: Scheduler | None, owner: type) -> _Entry[T] | T:
        if instance is None:
            return self
        value: T = getattr(instance._config, self._name)  # noqa: SLF001 - a part of the class
        return value

    def __set__(self, instance: Scheduler, value: T) -> None:
        raise AttributeError(
            f"{self._name} cannot be assigned, because a schedule changed in mid-run would not be "
            "the one that was declared: build the scheduler with it"
        )


@final
class OptimizerParamScheduler(Scheduler):
    """Learning rate and weight decay as pure functions of one position, as the seeds have them.

    Constructor, methods, state keys and values are those of `OptimizerParamScheduler` in
    megatron-core 0.16.1 and nemo-automodel 0.7.0. The curves are described under
    `dist_sched.curves.LrCurve` and `WdCurve`.

    Args:
        optimizer: An optimizer, a list of them, or anything with `param_groups`. A group keeps
            the ratio of its own values to the first group's; it may carry bounds (`max_lr`,
            `min_lr`, `start_wd`, `end_wd`) or multipliers (`lr_mult`, `wd_mult`) instead, which
            are read at every step.
        init_lr: Learning rate at position 0 where there is a warmup, at most `max_lr`.
        max_lr: Peak learning rate.
        min_lr: Learning rate at and past the horizon, at most `max_lr`.
        lr_warmup_steps: Length of the linear warmup in units, less than `lr_decay_steps`.
        lr_decay_steps: The horizon, in units: where the decay ends, warmup included.
        lr_decay_style: constant, linear, cosine, inverse-square-root or WSD.
        start_wd: Weight decay at position 0.
        end_wd: Weight decay from `wd_incr_steps` on, at least `start_wd`.
        wd_incr_steps: Length of the rise in weight decay, in units.
        wd_incr_style: constant, linear or cosine.
        use_checkpoint_opt_param_scheduler: The checkpoint wins where it differs from the script.
        override_opt_param_scheduler: The script wins. With both False they must be equal.
        wsd_decay_steps: Length of the tail in which WSD anneals, in units.
        lr_wsd_decay_style: linear, cosine, exponential or minus_sqrt.
        policy: Instead of the two booleans: "checkpoint", "config" or "strict", or a mapping
            from entry name to such a word, with "*" for the rest.
        unit: What a position counts: steps, samples or tokens.
        keep_group_ratios: False gives every group the same values.
        process_group: The ranks that decide together; the default group if None.

    Raises:
        ConfigError: An entry, a group or an argument is illegal; names it, its value and the rule.

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

    _config: OptimizerParamConfig

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
        policy: str | Mapping[str, str] | None = None,
        unit: str = "steps",
        keep_group_ratios: bool = True,
        process_group: ProcessGroup | None = None,
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
            policy=Policy.parse(
                policy,
                config.entry_names(),
                use_checkpoint=use_checkpoint_opt_param_scheduler,
                override=override_opt_param_scheduler,
            ),
            unit=unit,
            keep_group_ratios=keep_group_ratios,
            process_group=process_group,
        )

    @property
    def use_checkpoint_opt_param_scheduler(self) -> bool:
        """Whether the checkpoint wins for every entry."""
        return self._policy.words == {REST: CHECKPOINT}

    @property
    def override_opt_param_scheduler(self) -> bool:
        """Whether the script's config wins for every entry."""
        return self._policy.words == {REST: CONFIG}

    def get_lr(self, param_group: Group) -> float:
        """Give the learning rate under a group's bounds, without its ratio and `lr_mult`.

        Raises:
            ConfigError: The group has an illegal bound.
        """
        return self._groups.bounded(param_group, "lr", self._position, self._curves)

    def get_wd(self, param_group: Group | None = None) -> float:
        """Give the weight decay under a group's bounds, without its ratio and `wd_mult`.

        Raises:
            ConfigError: The group has an illegal bound.
        """
        return self._groups.bounded(param_group or {}, "weight_decay", self._position, self._curves)

    def _check_and_set(self, cls_value: T, sd_value: T, name: str) -> T:
        """Settle one entry between config and checkpoint, as the seeds' method of this name does.

        Raises:
            ReconcileError: The policy is strict and the values differ.
        """
        word = self._policy.word(_SEEDS_LABELS.get(name, name))
        used, why = settle(cls_value, sd_value, word)
        if word == STRICT and cls_value != sd_value:
            raise ReconcileError(
                f"{name} is {cls_value!r} in the config and {sd_value!r} in the checkpoint, "
                "and its policy is 'strict'"
            )
        logger.info("%s: %s %r", name, why, used)
        return used
