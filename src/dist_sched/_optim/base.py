"""The base of every scheduler: it binds an agreement to the groups of some optimizers."""

from __future__ import annotations

import gc
import logging
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from dist_sched import _rules as rules
from dist_sched._config import files, views
from dist_sched._config.config import unit_word, with_change
from dist_sched._config.history import Change
from dist_sched._config.path import Path
from dist_sched._curves.lint import in_order
from dist_sched._optim import frameworks, missed_loads, process_groups, wrappers
from dist_sched._optim.agreement import NOTHING, Agreement
from dist_sched._optim.stages import Stage, common_names, common_references, lost_groups
from dist_sched._optim.writer import Writer
from dist_sched._state.format import POSITION_KEY, unpack
from dist_sched._state.reconciliation import reconcile_checkpoint, saved_curve
from dist_sched._state.report import WIDTH
from dist_sched.errors import ConfigError, RankMismatchError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.distributed import ProcessGroup
    from torch.optim import Optimizer

    from dist_sched._config.config import Config
    from dist_sched._config.history import History
    from dist_sched._config.policy import Policy
    from dist_sched._curves.lint import Finding
    from dist_sched._optim.description import GroupTable
    from dist_sched._optim.ratios import Missing, Reference
    from dist_sched._state.format import State
    from dist_sched._state.report import Reconciliation

logger = logging.getLogger("dist_sched")

T = TypeVar("T")

_REFERENCE = "reference "

_MOST_LINES = 15
"""Of one record of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """The outcome of a load, as the first rank decided it; one broadcast carries it."""

    agreement: Agreement
    report: Reconciliation
    saved: Config | None
    """The config that the checkpoint's run had, late changes included."""
    text: str | None
    """Of the loaded state, by which it is recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """What this rank will apply, once every rank can."""

    writer: Writer
    agreement: Agreement
    differences: list[str]
    """What this rank's script declares otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedChange:
    """A late change that this rank can apply."""

    writer: Writer
    agreement: Agreement


_LIVE: weakref.WeakSet[Scheduler] = weakref.WeakSet()
"""The schedulers of this process, by which one is recognised whose turn it is not."""


class Scheduler:
    """The base of every scheduler: one config, one position, and the groups that follow them.

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
        reference: Reference = None,
        name: str | None = None,
    ) -> None:
        rules.optional(rules.text)("name", name)
        unit_word("unit", unit)
        rules.flag("keep_group_ratios", keep_group_ratios)
        process_groups.check(process_group)
        self._optimizer = optimizer
        self.process_group = process_group
        self.last_reconciliation: Reconciliation | None = None
        """The outcome of the latest load; None until one succeeds."""
        # Kept to be removed when another optimizer is assigned, and when this object goes.
        self._hooks: list[weakref.finalize[..., Any]] = []
        self._loaded_text: str | None = None
        self._saved: tuple[int, Config] | None = None
        """Position and config of the latest load's checkpoint, where they are known."""
        self._updated_at: int | None = None
        """Position of the update just made; None before a step, and after a load or a seek."""
        self._update_values: dict[str, float] = {}
        """Its values, where a late change has moved the curves since."""
        self._is_unplaced: bool = True
        """Whether neither a load nor a seek has said where the run is."""
        self._may_miss_loads = False
        """Whether an optimizer may be loaded without hooks."""
        self._has_named_values = False
        """Whether the log has named values that groups held in place of those last written."""
        missed_loads.check_groups(optimizer, config.plan.fields)
        # Ranks of a pipeline share one table, of which each has a part of the groups.
        self._has_other_ranks = process_groups.size(process_group) > 1
        self._unmatched: tuple[Missing, ...] = ()
        """What this rank's groups lack, until another rank is found that has it."""
        self._writer, self._unmatched = Writer.build(
            optimizer,
            config.plan,
            keep_ratios=keep_group_ratios,
            reference=reference,
            is_part=self._has_other_ranks,
        )
        self._agreed = Agreement(
            declared=config,
            config=config,
            unit=unit,
            policy=policy,
            keep_group_ratios=keep_group_ratios,
            reference=reference,
            references=self._writer.references,
            name=name,
        )
        # The position is the writer's: a new frozen agreement at each step would take longer than
        # all that a step does to one group.
        self._writer.write(0)
        self._writer.tracker.is_waiting |= bool(self._unmatched) or frameworks.may_accumulate()
        _LIVE.add(self)
        self._hook_optimizer_loads()
        self._note_writes()
        if logger.isEnabledFor(logging.INFO) and process_groups.rank(process_group) == 0:
            if self.extras:
                logger.info("extras at position 0: %s", self._extras_text())
            if config.plan.fields:
                logger.info("each group gets:\n%s", self._writer.describe().brief())

    def __copy__(self) -> NoReturn:
        raise ConfigError(
            "a scheduler cannot be copied without its optimizer, as both would write its groups: "
            "copy the two together, as in copy.deepcopy((optimizer, scheduler))"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Hooks are the optimizer's own; a copy registers them anew.
        return {**self.__dict__, "_hooks": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _LIVE.add(self)
        self._hook_optimizer_loads()
        self._note_writes()

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
        missed_loads.check_groups(optimizer, self._writer.plan.fields)
        self._writer.turn_to(optimizer)
        self._optimizer = optimizer
        self._writer.write(self.num_steps)
        self._hook_optimizer_loads()
        self._note_writes()

    @property
    def unit(self) -> str:
        """What a position counts: steps, samples or tokens."""
        return self._agreed.unit

    @property
    def keep_group_ratios(self) -> bool:
        """Whether each group keeps the ratio of its own values to the reference's."""
        return self._agreed.keep_group_ratios

    @property
    def num_steps(self) -> int:
        """The position, in units. Assigning to it is `seek`, and raises what that raises."""
        return self._writer.position

    @num_steps.setter
    def num_steps(self, position: int) -> None:
        self.seek(position)

    @property
    def extras(self) -> dict[str, float]:
        """The value of each extra at the position, by name: a fresh dict.

        As with what groups hold, the values at a position are those of the update that is next.
        """
        return self._agreed.plan.extra_values(self._writer.position)

    def step(self, increment: int = 1) -> None:
        """Advance the position, and write the values there into every group.

        Args:
            increment: Units completed since the last call: 1 for one optimizer update, or the
                samples or tokens that it took over all ranks. A whole number >= 0.

        Raises:
            ConfigError: The increment is something else, or a group has an illegal bound or
                multiplier. Position and groups are as before.
        """
        if type(increment) is not int or increment < 0:  # else it needs no rule
            increment = rules.whole("increment", increment)
        position = self._writer.position + increment
        if position > rules.MAX_LENGTH:
            rules.whole("position", position)
        if self._writer.tracker.is_waiting:
            self._stop_waiting()
        used = self._writer.position
        self._go(position, is_step=True)
        self._updated_at, self._update_values = used, {}

    def seek(self, position: int) -> None:
        """Go to an absolute position, and write the values there into every group.

        Args:
            position: Units completed since the run began.

        Raises:
            ConfigError: As for `step`.
        """
        self._go(rules.whole("position", position))
        self._is_unplaced = False
        self._updated_at, self._update_values = None, {}

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of every group, as a float and in the optimizers' order.

        Where none is scheduled, it is what the group holds.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        return self._writer.held("lr", self._writer.position)

    def metrics(self) -> dict[str, float]:
        """Return the values of the update just made, by field and group, for a logger.

        Called after `step()`, they are those that the optimizer used, and not those of the next
        update. Before the first step, and after a load or a seek, they are what the groups hold.

        Returns:
            `lr/<group>`, `weight_decay/<group>`, ... with a group's name, or its index where it has
            none; both with the optimizer's, as `name.1.0`, where several are equal. Extras stand
            under their own names.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        if self._update_values:
            return {**self._update_values}
        position = self._writer.position if self._updated_at is None else self._updated_at
        return self._metrics_at(position)

    def _metrics_at(self, position: int) -> dict[str, float]:
        """Return the values at a position, for frameworks that log before they update."""
        return {**self._writer.metrics(position), **self._agreed.plan.extra_values(position)}

    def describe_groups(self) -> GroupTable:
        """Return what each group gets for each field, and why.

        Returns:
            A row for each group and field: index, name, optimizer, number of parameters, the value
            now and at its highest, and where it comes from. Printed, they are a table.

        Raises:
            ConfigError: A group has an illegal bound or multiplier.
        """
        return self._writer.describe()

    def state_dict(self) -> State:
        """Return the state: a fresh dict of int, float and str, the same on every rank.

        The format is described in docs/state.md.
        """
        return self._current().state_dict()

    def to_config(self) -> dict[str, Any]:
        """Return the schedule as used, late changes included, as data for `from_config`."""
        effective = self._agreed.effective
        return files.to_mapping(
            effective,
            unit=self.unit,
            policy=self._agreed.policy.restricted_to(effective.entries()).to_dict(),
            keep_group_ratios=self.keep_group_ratios,
            reference=self._agreed.reference,
            name=self.name,
        )

    @property
    def history(self) -> History:
        """The late changes that were made: position, operation and arguments of each."""
        return self._agreed.history

    @rules.typed_lengths("steps")
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
            shape: A name of `dist_sched.schedules.shapes()`.
            end: Value at its end, and from there on, not above the current one; if None, the
                schedule's present end value where that is lower, else 0 (`min_lr` in
                `OptimizerParamScheduler`).
            field: The field, or the extra, to change; overrides of a field's schedule change too.
            allow_jump: Do it even if the value jumps here.

        Raises:
            ConfigError: An argument is illegal, the value would jump or, in a cooldown, rise, or
                the entries of `OptimizerParamScheduler` cannot express it. Nothing has changed.
        """
        arguments = {"steps": steps, "shape": shape, "end": end, "field": field}
        self._change("cooldown", arguments, allow_jump=allow_jump)

    @rules.typed_lengths("horizon")
    def extend(
        self,
        horizon: float,
        *,
        keep: str | None = None,
        field: str = "lr",
        allow_jump: bool = False,
    ) -> None:
        """Extend the schedule to a later horizon, and record it in `history`.

        The first constant phase that has not ended is lengthened, or the one that ends exactly
        here, where a decay begins. If there is none, the longest that has not ended is; this moves
        the value here and is a jump, unless `keep="value"`. The log says which phase it was.

        Args:
            horizon: Position at which the schedule shall end, later than now, in units.
            keep: "value" stretches what is left of the phase, so that the value goes on from where
                it is: a line from 1 to 0 over 100 units, extended at 60 to 160, is at 0.2 at 110.
            field: As for `cooldown`.
            allow_jump: As for `cooldown`.

        Raises:
            ConfigError: As for `cooldown`.
        """
        arguments = {"horizon": horizon, "field": field}
        if keep is not None:
            arguments["keep"] = keep
        self._change("extend", arguments, allow_jump=allow_jump)

    @rules.typed_lengths("steps")
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

    def scale(self, factor: float, *, field: str = "lr") -> None:
        """Multiply the values from here on, as after a spike, and record it in `history`.

        Whatever a group follows is multiplied: schedules and bounds of its own too. What follows
        the field, as `proportional_to` does, keeps its proportion.

        Args:
            factor: More than 0.
            field: The field to change.

        Raises:
            ConfigError: An argument is illegal, or a value would leave its range. Nothing has
                changed.
        """
        self._change("scale", {"factor": factor, "field": field}, allow_jump=True)

    def _change(self, operation: str, arguments: dict[str, Any], *, allow_jump: bool) -> None:
        rules.flag("allow_jump", allow_jump)
        self._apply_change(self._prepare_change(operation, arguments, allow_jump=allow_jump))

    def _prepare_change(
        self, operation: str, arguments: dict[str, Any], *, allow_jump: bool
    ) -> _PreparedChange:
        """Check a late change against this rank's groups, and change nothing.

        Raises:
            ConfigError: It is illegal, or its values jump, or a group cannot be given them.
        """
        self._resolve_missed_loads()
        before = self._agreed.effective
        effective, change = with_change(before, Change(self.num_steps, operation, arguments))
        jumps = effective.plan.jumps(self._agreed.plan, self.num_steps)
        if jumps and not allow_jump:
            raise ConfigError(f"{change}: {jumps}; allow_jump=True does it all the same")
        # Other ranks' groups may have what these lack, so only what is new is checked.
        writer = self._writer.with_plan(effective.plan)
        writer.check_names(known=self._agreed.plan)
        writer.check_groups()
        history = (*self._agreed.history, change)
        agreement = self._agreed.replace(
            effective=effective, history=history, position=self.num_steps
        )
        return _PreparedChange(writer=writer, agreement=agreement)

    def _apply_change(self, prepared: _PreparedChange) -> None:
        before, after = self._agreed.effective, prepared.agreement.effective
        made = {} if self._updated_at is None else self.metrics()
        self._swap(prepared.writer, prepared.agreement)
        self._update_values = made
        if process_groups.rank(self.process_group) == 0:
            logger.info("%s", views.late_change(self._agreed.history[-1], before, after))

    def _value(self, field: str) -> float:
        """Return what the schedule of a field has here, without ratios and overrides."""
        return self._agreed.plan.values(self.num_steps)[Path(field)]

    def lint(self, *, updates: int | None = None, increment: float = 1) -> tuple[Finding, ...]:
        """Return what is valid and probably a mistake, of schedules and groups, before the run.

        Args:
            updates: Length of the run in optimizer updates, to be compared with the horizon.
            increment: Units that an update completes, to be compared with phases and horizon; in
                steps it is 1.

        Returns:
            Each with a code, a level and values, sorted by position. docs/cli.md lists the codes.

        Raises:
            ConfigError: `updates` or `increment` is illegal, or a group's bound or multiplier.
        """
        agreed = self._agreed
        found = agreed.effective.lint(updates=updates, increment=increment, unit=self.unit)
        return in_order([*self._writer.findings(agreed.declared.plan), *found])

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        *,
        expected_position: int | None = None,
        local: bool = False,
    ) -> None:
        """Load a checkpoint state, reconciled with the script's config by the policy.

        With a process group this is collective: its first rank alone reads its state and decides,
        and all ranks apply the same outcome or raise the same error. A rank with another config
        adopts the first rank's, and logs the differences.

        The position is set, never added to, so that loading twice is the same as loading once. The
        config side of every load is what the constructor was given.

        Args:
            state_dict: What `state_dict` returned, or what Megatron's or NeMo's class saved. Only
                the first rank's is read; the others may pass `{}`.
            expected_position: The trainer's own count, if it has one. As with the state, the first
                rank's counts.
            local: Decide on this rank alone, without communication. A collective load that only
                some ranks join is not always a hang: on gloo, the next broadcast may silently
                receive its bytes.

        Raises:
            StateError: The state is malformed, or at another position than expected.
            ReconcileError: Strict entries or units differ, or the outcome is an illegal config.
            ConfigError: A rank's groups cannot be given the outcome; names ranks and reasons.
            RankMismatchError: The ranks have different schedulers, or load them in another order.
                Every rank raises the same error, and is as before.
        """
        self.load_with(lambda: (state_dict, None), expected_position=expected_position, local=local)

    def load_with(
        self,
        reader: Callable[[], tuple[Mapping[str, Any], T]],
        *,
        expected_position: int | None = None,
        local: bool = False,
    ) -> T:
        """Load a checkpoint state as `load_state_dict` does, from storage of one's own.

        Args:
            reader: Returns the state and where it was found, which the log names unless it is None.
                Called on the first rank alone; what it raises is raised on every rank.
            expected_position: As for `load_state_dict`.
            local: As for `load_state_dict`.

        Returns:
            Where the first rank found the state.

        Raises:
            BaseException: What `reader` raised, and what `load_state_dict` raises.
        """
        self._resolve_missed_loads(is_load=True)
        is_first = local or process_groups.rank(self.process_group) == 0

        def decision() -> tuple[_Load, T]:
            state, location = reader()
            return self._reconcile(state, expected_position), location

        (load, location), prepared, stages = process_groups.agree(
            decision,
            lambda decided: self._prepare(
                decided[0].agreement, is_own=is_first, load=decided[0], is_local=local
            ),
            self.process_group,
            about=f"the load of {self._label}",
            local=local,
        )
        self._apply(prepared, stages, is_local=local)
        self.last_reconciliation = load.report
        self._saved = None if load.saved is None else (load.report.position, load.saved)
        self._loaded_text = load.text
        self._is_unplaced = False
        if self._measure_late():
            self._writer.write(load.report.position)
        self._writer.tracker.forget_carried()
        if is_first:
            _log(load.report, location)
        self._warn_of_lost_writes()
        return location

    def synchronize(self) -> None:
        """Make every rank adopt the first rank's config and position; for a fresh start.

        What other ranks alone schedule, since the first rank's groups do not have it (a field, a
        name of groups), is adopted from them, in the order of ranks.

        Collective: two gathers. All ranks apply the same outcome or raise the same error. Pipeline
        stages need it: their ratios are then those of one process, and patterns, fields and
        references that one stage lacks are looked for on the others.

        Raises:
            ConfigError: A rank's groups cannot be given what was agreed on, or no rank has a name
                or field. Nothing has changed on any rank.
            RankMismatchError: The ranks have different schedulers, or call this in another order.
        """
        self._resolve_missed_loads()
        about = f"the synchronization of {self._label}"
        # Where a rank's groups cannot be read, the others must hear of it.
        sent = process_groups.gather(
            lambda: (self._current(), self._writer.inventory()), self.process_group, about=about
        )

        def prepare() -> tuple[_Prepared, Stage]:
            received = [one.value() for one in sent]
            first, inventory = received[0]
            others = [agreement for agreement, _ in received]
            for rank, other in enumerate(others):
                _check_kinds(rank, other.declared, first.declared)
            is_own = process_groups.rank(self.process_group) == 0
            if not is_own:
                self._check_identity(first)  # united, it may be no scheduler of any script
            united = first.unite(others, inventory)
            return self._prepare(united, is_own=is_own and united is first)

        prepared, stages = process_groups.prepared(prepare, self.process_group, about=about)
        self._apply(prepared, stages)

    def verify(self) -> None:
        """Check that all ranks agree and that their groups hold what they should.

        Collective: one gather, of a few hundred bytes where all is well. Compared are config,
        unit, policy, position and the reference values of the ratios. Read back are the scheduled
        fields of every group that is stepped, and compared with what this rank's group should
        hold; groups are not compared across ranks, as pipeline stages have other ones.

        Where an optimizer may have been loaded without hooks, what the load changed is resolved by
        the policy, written again and logged, and is no error.

        Raises:
            RankMismatchError: On every rank, naming rank, entry and both values.
        """
        about = f"the verification of {self._label}"
        sent = process_groups.gather(self._own_report, self.process_group, about=about)
        reports = [one.value() for one in sent]
        lines = [line for rank in range(len(reports)) for line in _disagreements(reports, rank)]
        if lines:
            cause = "ranks disagree:"
            if len(reports) == 1:
                cause = "something else writes what this scheduler writes:"
            message = rules.joined([cause, *lines], "\n", most=rules.MOST)
            raise RankMismatchError(message, ranks=dict(enumerate(reports)))

    def check_position(self, position: int) -> None:
        """Check that the scheduler is where the trainer is.

        Args:
            position: The trainer's own count, in the scheduler's unit.

        Raises:
            StateError: The positions differ.
        """
        _check_position(self.num_steps, rules.whole("position", position))

    def __repr__(self) -> str:
        agreed = self._agreed
        lines = [
            f"position: {self.num_steps} {agreed.unit}",
            *(f"{name}: {line}" for name, line in agreed.effective.summary().items()),
            *([f"extras: {self._extras_text()}"] if self.extras else []),
            *(f"late change: {change}" for change in agreed.history),
            f"policy: {dict(agreed.policy.words)!r}",
        ]
        try:
            if agreed.plan.fields:
                lines += self._writer.describe().brief().splitlines()
        except ConfigError as error:
            lines.append(f"groups: {error}")
        return "\n    ".join([f"{type(self).__name__}(", *lines]) + "\n)"

    @property
    def name(self) -> str | None:
        """What tells this scheduler from others on the same ranks."""
        return self._agreed.name

    @property
    def _label(self) -> str:
        """What messages call this scheduler."""
        named = "" if self._agreed.name is None else f" {self._agreed.name!r}"
        return f"{type(self).__name__}{named}"

    def _extras_text(self) -> str:
        shown = [f"{name}={value:.15g}" for name, value in self.extras.items()]
        return rules.joined(shown, ", ", rules.MOST)

    def _current(self) -> Agreement:
        """Return the agreement at the present position."""
        return self._agreed.replace(position=self.num_steps)

    def _go(self, position: int, *, is_step: bool = False) -> None:
        """Write the values at a position, or leave everything as it was."""
        if self._may_miss_loads:
            # An update has used them. Something that writes at each step is named once.
            self._resolve_missed_loads(names_values=is_step and not self._has_named_values)
            if is_step:
                self._writer.tracker.forget_carried()
        try:
            self._writer.write(position)
        except Exception:
            with suppress(ConfigError):  # the same group is illegal at the old position too
                self._writer.write(self.num_steps)
            raise
        if self._may_miss_loads:
            self._note_writes()

    def _swap(self, writer: Writer, agreed: Agreement) -> None:
        """Apply another agreement through its writer, or leave everything as it was."""
        before = self._writer
        # Fields that are not scheduled any more are restored before anything is written.
        writer.take_over_from(before)
        try:
            writer.write(agreed.position)
        except Exception:
            before.take_over_from(writer)
            with suppress(ConfigError):  # the same group is illegal at the old position too
                before.write(before.position)
            raise
        self._writer, self._agreed = writer, agreed
        self._note_writes()

    def _reconcile(self, state: Mapping[str, Any], expected_position: int | None) -> _Load:
        """Decide on the first rank what a checkpoint state leads to; changes nothing."""
        current = self._current()
        declared = current.declared
        # Our own state and the text loaded last distinguish a state that was read from one that DCP
        # left untouched.
        checkpoint = unpack(
            state, type(declared), own=current.state_dict(), loaded=self._loaded_text
        )
        if expected_position is not None:
            expected = rules.whole("expected_position", expected_position)
            _check_position(checkpoint.position, expected)
        saved = saved_curve(declared, checkpoint) if checkpoint.parts else None
        if saved is not None:
            carried = self._writer.carried_differences(saved.plan, checkpoint.position)
            checkpoint = checkpoint.replace(warnings=(*checkpoint.warnings, *carried))
        outcome = reconcile_checkpoint(declared, current.unit, checkpoint, current.policy)
        agreement = current.replace(
            effective=outcome.effective,
            config=outcome.config,
            history=outcome.history,
            position=checkpoint.position,
        )
        return _Load(agreement=agreement, report=outcome.report, saved=saved, text=checkpoint.text)

    def _prepare(
        self,
        theirs: Agreement,
        *,
        is_own: bool,
        load: _Load | None = None,
        is_local: bool = False,
    ) -> tuple[_Prepared, Stage]:
        """Check an agreement against this rank's groups, and change nothing.

        Args:
            theirs: The agreement.
            is_own: Whether this rank made it.
            load: The load that it is of, whose position and late changes are another's in any case.
            is_local: Whether no other rank is asked.

        Returns:
            What to apply, and what the other ranks should know of it.

        Raises:
            RankMismatchError: It is another scheduler's.
            ConfigError: This rank's groups cannot be given it.
        """
        mine = self._current()
        if not is_own:
            if load is not None:
                self._check_identity(theirs)
            # A rank without groups, or with no-decay groups alone, has no reference to bring.
            known = {key: value for key, value in theirs.references.items() if value is not None}
            theirs = theirs.replace(references={**mine.references, **known})
        writer = self._writer.with_plan(
            theirs.plan, theirs.references, keep_ratios=theirs.keep_group_ratios
        )
        writer.check_fields()
        try:
            writer.check_groups()
            if is_local or not self._has_other_ranks:
                writer.check_names(known=mine.declared.plan)
        except ConfigError as error:
            if load is None or theirs.effective == mine.effective:
                raise  # no fault of the checkpoint
            raise ConfigError(
                f"what the checkpoint has does not fit these groups: {error} (a policy of 'config' "
                "for that entry leaves it out)"
            ) from error
        writer.values(theirs.position)
        if load is not None and load.saved is not None:
            writer.check_late(load.saved.plan, load.report.position)
        theirs = theirs.replace(references=writer.references)
        differences = []
        if not is_own:
            if load is not None:
                mine = mine.replace(position=theirs.position, history=theirs.history)
            differences = _differences(
                {**mine.describe(mine.declared), "reference": mine.reference},
                {**theirs.describe(theirs.declared), "reference": theirs.reference},
            )
        # What was found once is not looked for again: groups may have left since.
        is_found = not self._unmatched and bool(writer.tracker.tracked)
        found = mine.declared.plan if is_found else None
        stage = Stage.of(writer, self._agreed.reference, found)
        return _Prepared(writer=writer, agreement=theirs, differences=differences), stage

    def _check_identity(self, theirs: Agreement) -> None:
        """Check that an agreement of the first rank is one of this scheduler.

        Raises:
            RankMismatchError: It is another's, perhaps since the ranks' calls are in another order.
        """
        mine = self._agreed
        rank = process_groups.rank(self.process_group)
        if theirs.is_of(mine):
            return
        if self._rivals(theirs):
            gc.collect()  # one that a script has dropped may still be there
        for label in self._rivals(theirs):
            raise RankMismatchError(
                f"this rank is about to change {self._label}, and rank 0 {label}: call loads and "
                "synchronize() of several schedulers in the same order on every rank, and give "
                "each a name= of its own"
            )
        if theirs.name != mine.name:
            raise RankMismatchError(
                f"this scheduler's name is {mine.name!r}, and rank 0's is {theirs.name!r}: give it "
                "the same name= on every rank"
            )
        _check_kinds(rank, mine.declared, theirs.declared)

    def _rivals(self, theirs: Agreement) -> list[str]:
        """Return what messages call the other schedulers here that an agreement may be of."""
        return [
            other._label  # noqa: SLF001 - of this class
            for other in _LIVE
            if other is not self
            and other.process_group is self.process_group
            and theirs.is_of(other._agreed)  # noqa: SLF001 - of this class
            # One that a newer scheduler has replaced has no turn any more.
            and not other._writer.tracker.is_replaced  # noqa: SLF001 - of this class
        ]

    def _apply(
        self, prepared: _Prepared, stages: Sequence[Stage], *, is_local: bool = False
    ) -> None:
        """Apply what every rank can apply, and has now agreed to.

        Raises:
            ConfigError: No rank has a name, or a group's ratio to another rank's reference is
                illegal. All ranks raise it, since all know the same, and nothing has changed.
        """
        writer, agreed = prepared.writer, prepared.agreement
        found = common_references(stages)
        # A rank alone cannot know what others have.
        missing = "" if is_local and self._has_other_ranks else common_names(stages)
        problem = missing or lost_groups(stages, found)
        if problem:
            raise ConfigError(problem)
        references = {key: found.get(key) for key in agreed.references}
        if references != agreed.references:  # that only another rank could measure
            writer = self._writer.with_plan(
                agreed.plan, references, keep_ratios=agreed.keep_group_ratios
            )
            agreed = agreed.replace(references=references)
        if not is_local:
            self._unmatched = ()
        self._swap(writer, agreed)
        self._updated_at, self._update_values = None, {}
        if prepared.differences:
            rank = process_groups.rank(self.process_group)
            whose = "rank 0 has" if rank else "other ranks alone have"
            differences = rules.joined(prepared.differences, "; ", rules.MOST)
            logger.warning("rank %d adopts what %s: %s", rank, whose, differences)

    def _own_report(self) -> dict[str, Any]:
        """Return what this rank has, and which of its groups hold something else."""
        try:
            self._resolve_missed_loads(names_values=True)
            wrong = self._writer.wrong_values(self.num_steps)
        except ConfigError as error:
            wrong = [str(error)]
        except Exception as error:  # noqa: BLE001 - the other ranks wait for this one's report
            wrong = [f"its groups cannot be read: {error!r}"]
        current = self._current()
        references = {
            f"{_REFERENCE}{key}": value
            for key, value in self._writer.references.items()
            if self._writer.tracker.tracked and self._writer.keep_ratios
        }
        return {**current.describe(current.config), **references, "groups": wrong}

    def _hook_optimizer_loads(self) -> None:
        """Follow loads of the optimizers, without keeping this scheduler alive."""
        for remove in self._hooks:
            remove()
        self._hooks = []
        optimizers = self._writer.tracker.optimizers()
        self._may_miss_loads = not all(map(wrappers.runs_load_hooks, optimizers))
        for optimizer in optimizers:
            if wrappers.has_hooks(optimizer):
                is_enough = wrappers.runs_load_hooks(optimizer)
                before = wrappers.weakly(self._before_optimizer_load)
                after = self._after_optimizer_load if is_enough else self._after_own_load
                handles = [
                    optimizer.register_load_state_dict_pre_hook(before),
                    optimizer.register_load_state_dict_post_hook(wrappers.weakly(after)),
                ]
                if self._unmatched:
                    update = wrappers.weakly(self._before_update)
                    handles.append(optimizer.register_step_pre_hook(update))
                if not is_enough:
                    step = wrappers.weakly(self._before_optimizer_step)
                    handles.append(optimizer.register_step_pre_hook(step))
                # The optimizer outlives the scheduler in many scripts; its hooks must not.
                self._hooks += [weakref.finalize(self, handle.remove) for handle in handles]

    def _stop_waiting(self) -> None:
        """Go on: what was loaded or added before this step is all that there is.

        Raises:
            ConfigError: No rank was looked for that has what this one's groups lack.
        """
        self._refuse_unmatched()
        if self.unit == "steps" and (problem := frameworks.step_of_micro_batch()):
            logger.warning("%s", problem)
        carried = self._writer.carried_lr() if self._is_unplaced else None
        if carried is not None:
            one, lr = carried
            logger.warning(
                "the optimizer was loaded and the scheduler was not: %s carried lr=%r, and at "
                "position %d the schedule has %r and goes on from there: load the scheduler's "
                "state too (load_state_dict, or dist_sched.checkpoint.load), or seek(position) to "
                "where the run is%s",
                one,
                lr,
                self.num_steps,
                self._writer.values(self.num_steps)[one.place]["lr"],
                frameworks.advice(self._writer.tracker.sources),
            )
            self._is_unplaced = False
        self._writer.stop_waiting()

    def _refuse_unmatched(self) -> None:
        if self._unmatched:
            # Groups may have come since, but a reference that came so late was never measured.
            names = [one for one in self._unmatched if isinstance(one, str)]
            self._writer.inventory()
            self._unmatched = (*names, *self._writer.missing())
        if self._unmatched:
            sentences = self._writer.say_missing(self._unmatched)
            raise ConfigError(
                f"{rules.joined(sentences, '; ', rules.MOST)}; if another rank has it, call "
                "synchronize() on every rank before the first step, or load a checkpoint"
            )

    def _before_update(self, optimizer: Optimizer, *_: Any) -> None:
        """Let no update run without what this rank's groups lack, but for one that changes nothing.

        DCP steps an optimizer at an lr of 0 to make its state.
        """
        if self._unmatched and any(group.get("lr") for group in optimizer.param_groups):
            self._refuse_unmatched()

    def _measure_late(self) -> bool:
        """Measure late groups, where both checkpoints are loaded and of one position."""
        if self._saved is None or self._saved[0] != self.num_steps:
            return False
        position, saved = self._saved
        return self._writer.measure_late(saved.plan, position)

    def _before_optimizer_load(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        if self._writer.tracker.is_replaced:
            return
        self._writer.note_load(optimizer, state.get("param_groups", ()))

    def _after_optimizer_load(self, optimizer: Optimizer) -> None:
        """Make the load order irrelevant: resolve what the load brought, and write again."""
        if self._writer.tracker.is_replaced:
            return
        differences = self._writer.resolve_load(optimizer, self._agreed.policy)
        try:
            # Only while both checkpoints are of one position: after a step or a seek, other values
            # are no surprise.
            if self._saved is not None and self._saved[0] == self.num_steps:
                self._measure_late()
                position, saved = self._saved
                differences += self._writer.carried_differences(saved.plan, position, optimizer)
                self._writer.tracker.forget_carried()
            else:
                self._writer.forget_equal(optimizer)
            self._writer.write(self.num_steps)
        except ConfigError:
            self._writer.undo_load(optimizer)
            self._writer.write(self.num_steps)
            raise
        self._note_writes()
        self._log_differences(differences)

    def _after_own_load(self, optimizer: Optimizer) -> None:
        """Do the same where the optimizer's own `load_state_dict` may go on to change groups."""
        self._after_optimizer_load(optimizer)
        self._writer.tracker.doubt(optimizer)

    def _before_optimizer_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Let no update use what a load has brought since the hooks ran, or without them.

        After nothing but a load: DCP steps an optimizer at an lr of 0, which has to stay.
        """
        if self._writer.tracker.is_in_doubt(optimizer):
            self._resolve_missed_loads()

    def _resolve_missed_loads(self, *, is_load: bool = False, names_values: bool = False) -> None:
        """Do what the hooks do, where an optimizer was perhaps loaded without them.

        Args:
            is_load: As for `Snapshot.was_loaded`.
            names_values: Whether the log names values that differ from those last written.
        """
        if not self._may_miss_loads:
            return
        for optimizer in self._writer.tracker.optimizers():
            if wrappers.runs_load_hooks(optimizer):
                continue
            # What is raised here would leave other ranks waiting for this one.
            try:
                values = self._writer.note_missed_load(optimizer, is_load=is_load)
            except ConfigError:
                continue  # of an illegal new group, which the next write raises again
            if values is None:
                continue
            try:
                self._after_optimizer_load(optimizer)
            except ConfigError as error:
                self._log_differences([f"{error}; what the group had before is put back"])
            if names_values and values:
                self._has_named_values = True
                self._log_differences([f"{line}, and is written again" for line in values])

    def _note_writes(self) -> None:
        """Remember what was written, where it will be compared."""
        if self._may_miss_loads:
            self._writer.tracker.note_writes(self._writer.plan.fields)

    def _warn_of_lost_writes(self) -> None:
        """Read back what a load wrote where that may be lost, so that no report is wrong."""
        wrong = self._writer.wrong_values(self.num_steps) if self._may_miss_loads else []
        if wrong:
            logger.warning(_short(["the groups do not hold what was loaded:", *wrong]))

    def _log_differences(self, lines: list[str]) -> None:
        if lines:
            is_first = process_groups.rank(self.process_group) == 0
            logger.log(logging.WARNING if is_first else logging.INFO, _short(lines))


def _short(lines: list[str]) -> str:
    """Return the first of some lines, and how many there are beside them."""
    more = [f"... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    return "\n".join([*lines[:_MOST_LINES], *more])


def _check_kinds(rank: int, mine: Config, first: Config) -> None:
    if type(mine) is not type(first):
        raise RankMismatchError(
            f"rank {rank} has {mine.KIND}, rank 0 {first.KIND}: build the same on every rank"
        )


def _text(value: Any) -> str:
    return NOTHING if value is NOTHING else repr(value)


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    pairs = {
        name: (mine.get(name, NOTHING), theirs.get(name, NOTHING)) for name in {**theirs, **mine}
    }
    return [
        f"{name} {_text(other)} instead of {_text(own)}"
        for name, (own, other) in pairs.items()
        if own != other
    ]


def _disagreements(reports: list[dict[str, Any]], rank: int) -> list[str]:
    """Return in what a rank differs from the first, and which of its groups hold other values."""
    mine, first = reports[rank], reports[0]
    lines = []
    for name in {**first, **mine}:
        own, other = mine.get(name, NOTHING), first.get(name, NOTHING)
        if name.startswith(_REFERENCE):  # which ranks without groups do not have
            other = next(report[name] for report in reports if name in report)
            own = mine.get(name, other)
        if own != other and name != "groups":
            lines.append(f"rank {rank}: {name} is {_text(own)}, rank 0 has {_text(other)}")
    return [*lines, *(f"rank {rank}: {line}" for line in mine["groups"])]


def _check_position(found: int, expected: int) -> None:
    if found != expected:
        raise StateError(
            f"key {POSITION_KEY!r}: the scheduler's position is {found}, the trainer's is "
            f"{expected}: they are not of the same checkpoint, or count different units"
        )


def _log(report: Reconciliation, where: object) -> None:
    """Report a load once: in one line if nothing differs."""
    origin = "" if where is None else f" from {where}"
    if report.is_equal:
        logger.info("loaded the scheduler%s at %s", origin, report)
        return
    # Of a long path, the end says which checkpoint it is.
    most = WIDTH - len("loaded the scheduler from ")
    if len(origin) > WIDTH - len("loaded the scheduler"):
        origin = f" from ...{str(where)[3 - most :]}"
    logger.warning("loaded the scheduler%s%sat %s", origin, "\n" if origin else " ", report)
    if logger.isEnabledFor(logging.DEBUG):
        of = "" if where is None else f" of {where}"
        logger.debug("the whole report%s:\n%s", of, report.table())
