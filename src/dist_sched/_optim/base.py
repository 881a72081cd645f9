"""The engine under every scheduler: it binds config, state, groups and ranks to an optimizer."""

from __future__ import annotations

import logging
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from torch.optim import Optimizer

from dist_sched import _rules as rules
from dist_sched._config import files
from dist_sched._config.entries import Config, unit_word, with_history
from dist_sched._config.history import Change, History
from dist_sched._config.policy import HISTORY, Policy
from dist_sched._optim import process_groups
from dist_sched._optim.writer import Groups
from dist_sched._state import format as states
from dist_sched._state.reconciliation import Reconciliation, reconcile_checkpoint, saved_curve
from dist_sched.errors import ConfigError, RankMismatchError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.distributed import ProcessGroup

    from dist_sched._config.plan import Plan
    from dist_sched._curves.lint import Finding

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
        self.unit = unit_word("unit", unit)
        self.keep_group_ratios = rules.flag("keep_group_ratios", keep_group_ratios)
        self.process_group = process_group
        self.last_reconciliation: Reconciliation | None = None
        """The outcome of the latest load; None until one succeeds."""
        process_groups.check(process_group)
        self._policy = policy
        self._declared = config
        """What the constructor was given: the config side of every load."""
        self._base = config
        """What is used, before late changes."""
        self._lineage: History = ()
        self._config = config
        """What is used."""
        self._courses = config.plan()
        self._position = 0
        self._hooks: list[weakref.finalize[..., Any]] = []
        self._loaded_text: object = None
        self._saved: tuple[int, Plan] | None = None
        """Position and curves that the latest load's checkpoint had, where they are known."""
        self._groups = Groups(optimizer, self._courses, keep_ratios=keep_group_ratios)
        self._groups.write(0, self._courses)
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
        self._groups.write(self._position, self._courses)
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
        self._go(position, self._courses)

    def seek(self, position: int) -> None:
        """Go to an absolute position, and write the values there into every group.

        Args:
            position: Units completed since the run began.

        Raises:
            ConfigError: As for `step`.
        """
        self._go(rules.whole("position", position), self._courses)

    def get_last_lr(self) -> list[float]:
        """Give the learning rate of every group, as a float and in the optimizers' order.

        Where none is scheduled, it is what the group holds.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        return self._groups.held("lr", self._position, self._courses)

    def state_dict(self) -> states.State:
        """Give the state: a fresh dict of int, float and str, the same on every rank.

        The format is described in docs/state.md.
        """
        return states.pack(self._base, self._position, self.unit, self._lineage)

    def to_config(self) -> dict[str, Any]:
        """Give the schedule as used, late changes included, as data that `from_config` reads."""
        return files.to_mapping(
            self._config,
            unit=self.unit,
            policy=self._policy.of(tuple(self._config.entries())).told(),
            keep_group_ratios=self.keep_group_ratios,
        )

    @property
    def history(self) -> History:
        """The late changes that were made: position, operation and arguments of each."""
        return self._lineage

    def cooldown(
        self,
        steps: float,
        shape: str = "minus_sqrt",
        end: float | None = None,
        *,
        field: str = "lr",
        allow_jump: bool = False,
    ) -> None:
        """Start to anneal here, from the current value, and record it in `history`.

        Late changes do not communicate: make them on every rank, or `synchronize()` afterwards.

        Args:
            steps: Length, in units.
            shape: A name of `dist_sched._curves.shapes.shapes()`.
            end: Value at its end, and from there on; if None, the schedule's present last value
                where that is lower, else 0 (`min_lr` in `OptimizerParamScheduler`).
            field: Whose schedule. Those that named groups have of their own change with it.
            allow_jump: Do it even if the value jumps here.

        Raises:
            ConfigError: An argument is illegal, the value would jump, or the entries of
                `OptimizerParamScheduler` cannot express it. Nothing has changed.
        """
        arguments = {"steps": steps, "shape": shape, "end": end, "field": field}
        self._change("cooldown", arguments, allow_jump=allow_jump)

    def extend(self, horizon: float, *, field: str = "lr", allow_jump: bool = False) -> None:
        """Let the schedule end later, and record it in `history`.

        Lengthened is the first constant phase that has not ended; if there is none, the longest
        that has not ended, which moves the value here and is a jump.

        Args:
            horizon: Position at which the schedule shall end, later than now, in units.
            field: As for `cooldown`.
            allow_jump: As for `cooldown`.

        Raises:
            ConfigError: As for `cooldown`.
        """
        arguments = {"horizon": horizon, "field": field}
        self._change("extend", arguments, allow_jump=allow_jump)

    def rewarm(
        self,
        steps: float,
        peak: float | None = None,
        *,
        field: str = "lr",
        allow_jump: bool = False,
    ) -> None:
        """Rise again in a straight line from the current value, and record it in `history`.

        Args:
            steps: Length, in units.
            peak: Value at its end, and from there on; the schedule's highest, if None.
            field: As for `cooldown`.
            allow_jump: As for `cooldown`.

        Raises:
            ConfigError: As for `cooldown`.
        """
        arguments = {"steps": steps, "peak": peak, "field": field}
        self._change("rewarm", arguments, allow_jump=allow_jump)

    def _change(self, operation: str, arguments: dict[str, Any], *, allow_jump: bool) -> None:
        rules.flag("allow_jump", allow_jump)
        change = Change(self._position, operation, arguments)
        config = self._config.changed(change)
        plan = config.plan()
        jumps = plan.jumps(self._courses, self._position)
        if jumps and not allow_jump:
            raise ConfigError(f"{change}: {'; '.join(jumps)}; allow_jump=True does it all the same")
        self._groups.check(plan, known=self._courses)
        self._go(self._position, plan)
        self._config, self._lineage = config, (*self._lineage, change)

    def lint(self, *, updates: int | None = None, increment: float = 1) -> tuple[Finding, ...]:
        """Name what is legal and yet probably not meant, before anything runs.

        Args:
            updates: Length of the run in optimizer updates, to be compared with the horizon.
            increment: Units that an update completes.

        Returns:
            Warnings, each with a position and values: jumps, a first learning rate of 0, phases
            of no length, a floor above the peak, a horizon that is not the run's end.
        """
        return self._config.lint(updates=updates, increment=increment)

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
        self.load_with(lambda: (state, None), expected_position=expected_position, local=local)

    def load_with(
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

        terms, where = process_groups.decide(decision, self.process_group, local=local)
        self._adopt(terms)
        self.last_reconciliation = terms.outcome
        self._saved = terms.saved
        self._loaded_text = terms.text
        self._groups.forget_carried()
        if terms.outcome is not None and (local or process_groups.rank(self.process_group) == 0):
            _log(terms.outcome, where)
        return where

    def synchronize(self) -> None:
        """Make every rank adopt the first rank's config and position; for a fresh start.

        What other ranks alone schedule, since the first rank's groups do not have it (a field, a
        named group), is adopted from them, in the order of ranks.

        Collective: one gather. Pipeline stages whose first groups differ in lr or weight decay
        need it, for their ratios to be those of one process: measured against the first value
        that is not zero, in the order of ranks.

        Raises:
            ConfigError: A group of this rank has an illegal bound or multiplier.
        """
        gathered = process_groups.gather(
            (self._terms(), self._groups.inventory()), self.process_group
        )
        told, inventory = [terms for terms, _ in gathered], gathered[0][1]
        for rank, terms in enumerate(told):
            _check_kinds(rank, terms.declared, told[0].declared)
        declared, used = told[0].declared, told[0].used
        for terms in told[1:]:
            declared = declared.united(terms.declared, inventory)
            used = used.united(terms.used, inventory)
        references = {
            key: next((found for terms in told if (found := terms.references.get(key))), None)
            for key in dict.fromkeys(key for terms in told for key in terms.references)
        }
        self._adopt(replace(told[0], declared=declared, used=used, references=references))

    def verify(self) -> None:
        """Check that all ranks agree and that their groups hold what they should.

        Collective: one gather, of a few hundred bytes where all is well. Compared are config,
        unit, policy, position and the reference values of the ratios. Read back are lr and weight
        decay of every group that is stepped, and compared with what this rank's group should
        hold; groups are not compared across ranks, as pipeline stages have other ones.

        Raises:
            RankMismatchError: On every rank, naming rank, entry and both values.
        """
        told = process_groups.gather(self._testimony(), self.process_group)
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
            *(f"{name}: {line}" for name, line in self._config.summary().items()),
            *(f"late change: {change}" for change in self._lineage),
            f"policy: {dict(self._policy.words)!r}",
            *(
                f"next {label}: {value!r}"
                for label, value in self._courses.values(self._position).items()
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
        saved = self._saved_plan(checkpoint)
        if saved is not None:
            carried = self._groups.carried_differences(*saved)
            checkpoint = replace(checkpoint, warnings=(*checkpoint.warnings, *carried))
        config, history, outcome = reconcile_checkpoint(
            self._declared, self.unit, checkpoint, self._policy
        )
        plan = with_history(config, history).plan()
        self._check_groups(plan)  # or raise it on every rank
        self._groups.values(outcome.position, plan)
        return replace(
            self._terms(),
            used=config,
            history=history,
            position=outcome.position,
            outcome=outcome,
            saved=saved,
            text=states.text_of(state),
        )

    def _check_groups(self, plan: Plan) -> None:
        try:
            self._groups.check(plan, known=self._declared.plan())
        except ConfigError as error:
            raise ConfigError(
                f"what the checkpoint has does not fit these groups: {error} (a policy of 'config' "
                "for that entry leaves it out)"
            ) from error

    def _saved_plan(self, checkpoint: states.Checkpoint) -> tuple[int, Plan] | None:
        saved = saved_curve(self._declared, checkpoint) if checkpoint.entries else None
        return None if saved is None else (checkpoint.position, saved.plan())

    def _terms(self) -> _Terms:
        return _Terms(
            declared=self._declared,
            used=self._base,
            history=self._lineage,
            position=self._position,
            unit=self.unit,
            policy=self._policy,
            keep_group_ratios=self.keep_group_ratios,
            references=self._groups.references,
        )

    def _adopt(self, terms: _Terms) -> None:
        """Take up terms that may be another rank's, or leave everything as it was."""
        mine = self._terms()
        _check_kinds(process_groups.rank(self.process_group), mine.declared, terms.declared)
        theirs = {key: value for key, value in terms.references.items() if value is not None}
        self._groups.measure_against(
            {**mine.references, **theirs}, keep_ratios=terms.keep_group_ratios
        )
        try:
            config = with_history(terms.used, terms.history)
            self._go(terms.position, config.plan())
        except Exception:
            self._groups.measure_against(mine.references, keep_ratios=mine.keep_group_ratios)
            with suppress(ConfigError):
                self._groups.write(self._position, self._courses)
            raise
        self._declared, self._base, self._config = terms.declared, terms.used, config
        self._lineage = terms.history
        self._policy, self.unit = terms.policy, terms.unit
        self.keep_group_ratios = terms.keep_group_ratios
        if terms.outcome is not None:  # a load changes position and late changes in any case
            mine = replace(mine, position=terms.position, history=terms.history)
        differences = _differences(mine.told(), terms.told())
        if differences:
            rank = process_groups.rank(self.process_group)
            whose = "rank 0 has" if rank else "other ranks alone have"
            logger.warning("rank %d adopts what %s: %s", rank, whose, "; ".join(differences))

    def _testimony(self) -> dict[str, Any]:
        """Tell what this rank has, and which of its groups hold something else."""
        try:
            wrong = self._groups.wrong_values(self._position, self._courses)
        except ConfigError as error:
            wrong = [str(error)]
        except Exception as error:  # noqa: BLE001 - the other ranks wait for what this one tells
            wrong = [f"its groups cannot be read: {error!r}"]
        told = replace(self._terms(), declared=self._base).told()
        references = {
            f"{_REFERENCE}{key}": value
            for key, value in self._groups.references.items()
            if self._groups.members
        }
        return {**told, **references, "groups": wrong}

    def _go(self, position: int, plan: Plan) -> None:
        """Write the values at a position, or leave everything as it was."""
        try:
            self._groups.write(position, plan)
        except Exception:
            with suppress(ConfigError):  # the same group is illegal at the old position too
                self._groups.write(self._position, self._courses)
            raise
        self._position, self._courses = position, plan

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
            self._groups.write(self._position, self._courses)
        except ConfigError:
            self._groups.put_back_overrides(optimizer)
            self._groups.write(self._position, self._courses)
            raise
        if differences:
            is_first = process_groups.rank(self.process_group) == 0
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
    history: History
    position: int
    unit: str
    policy: Policy
    keep_group_ratios: bool
    references: dict[str, float | None]
    outcome: Reconciliation | None = None
    saved: tuple[int, Plan] | None = None
    text: object = None
    """The loaded state's, by which it is known again."""

    def told(self) -> dict[str, Any]:
        """Give by name what two ranks can differ in, other than by their groups."""
        return {
            "scheduler": self.declared.KIND,
            **self.declared.entries(),
            HISTORY: [change.to_dict() for change in self.history],
            "position": self.position,
            "unit": self.unit,
            "policy": dict(self.policy.words),
            "keep_group_ratios": self.keep_group_ratios,
        }


def _check_kinds(rank: int, mine: Config, first: Config) -> None:
    if type(mine) is not type(first):
        raise RankMismatchError(
            f"rank {rank} has {mine.KIND}, rank 0 {first.KIND}: build the same on every rank"
        )


_NOTHING = "nothing"
"""What a rank has for a name that it does not know."""
_REFERENCE = "reference "


def _shown(value: Any) -> str:
    return value if value is _NOTHING else repr(value)


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    pairs = {
        name: (mine.get(name, _NOTHING), theirs.get(name, _NOTHING)) for name in {**theirs, **mine}
    }
    return [
        f"{name} {_shown(other)} instead of {_shown(own)}"
        for name, (own, other) in pairs.items()
        if own != other
    ]


def _disagreements(told: list[dict[str, Any]], rank: int) -> list[str]:
    """Say in what a rank differs from the first, and which of its groups hold other values."""
    mine, first = told[rank], told[0]
    lines = []
    for name in {**first, **mine}:
        own, other = mine.get(name, _NOTHING), first.get(name, _NOTHING)
        if name.startswith(_REFERENCE):  # which ranks without groups do not have
            other = next(testimony[name] for testimony in told if name in testimony)
            own = mine.get(name, other)
        if own != other and name != "groups":
            lines.append(f"rank {rank}: {name} is {_shown(own)}, rank 0 has {_shown(other)}")
    return [*lines, *(f"rank {rank}: {line}" for line in mine["groups"])]


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
