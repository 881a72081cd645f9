"""The base class of the schedulers, which applies an agreement to the groups of optimizers."""

from __future__ import annotations

import gc
import logging
import weakref
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

_MAX_LENGTH = rules.MAX_LENGTH
"""A global of this module, because every step reads it."""

T = TypeVar("T")

_REFERENCE = "reference "

_MOST_LINES = 15
"""Maximum number of lines of one log record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """The outcome of a load as the first rank decided it, which it broadcasts."""

    agreement: Agreement
    report: Reconciliation
    saved: Config | None
    """The config of the checkpoint's run, after late changes."""
    text: str | None
    """The text of the loaded state, by which the state is recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A checked outcome that this rank applies as soon as every rank can."""

    writer: Writer
    agreement: Agreement
    differences: list[str]
    """Differences between this rank's script and the outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedChange:
    """A late change that this rank can apply."""

    writer: Writer
    agreement: Agreement


_LIVE: weakref.WeakSet[Scheduler] = weakref.WeakSet()
"""The schedulers of this process, to detect that ranks load them in different orders."""


class Scheduler:
    """The base class of the schedulers: one config, one position, and the groups that follow them.

    After construction the groups hold the values at position 0. The k-th optimizer update uses the
    values at position k - 1 if each update advances the position by one.
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
        """The report of the latest load, or None before the first one."""
        # Kept to remove them when another optimizer is assigned, and when this object is deleted.
        self._hooks: list[weakref.finalize[..., Any]] = []
        self._loaded_text: str | None = None
        self._saved: tuple[int, Config] | None = None
        """Position and config of the latest load's checkpoint, if they are known."""
        self._updated_at: int | None = None
        """Position of the latest update. None before a step, and after a load or a seek."""
        self._update_values: dict[str, float] = {}
        """Values of the latest update, if a late change has changed the curves since."""
        self._is_unplaced: bool = True
        """Whether there was neither a load nor a seek."""
        self._may_miss_loads = False
        """Whether an optimizer may be loaded without hooks."""
        self._has_named_values = False
        """Whether a warning about values that something else wrote was logged."""
        missed_loads.check_groups(optimizer, config.plan.fields)
        # Pipeline stages have the same arguments, and different groups.
        self._has_other_ranks = process_groups.size(process_group) > 1
        self._unmatched: tuple[Missing, ...] = ()
        """Names and fields that this rank's groups lack, until another rank has them."""
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
        # The writer has the present position, because a new agreement at each step would be slow.
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
            "a scheduler cannot be copied without its optimizer, because both copies would write "
            "the same groups; copy both together: copy.deepcopy((optimizer, scheduler))"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Hooks belong to the optimizer, so a copy registers its own.
        return {**self.__dict__, "_hooks": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _LIVE.add(self)
        # A later scheduler of the copied optimizer needs the own values, too.
        if not self._writer.tracker.is_replaced:
            self._writer.tracker.remember()
        self._hook_optimizer_loads()
        self._note_writes()

    @property
    def optimizer(self) -> Any:
        """The optimizer of the constructor. You may assign another one, such as a wrapper.

        Groups with the same parameters keep their ratios. The present values are written into the
        groups of the new optimizer.

        Raises:
            ConfigError: The assigned object is not an optimizer, or has an invalid group. The
                scheduler then keeps the former optimizer.
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
        """What a position counts: "steps", "samples" or "tokens"."""
        return self._agreed.unit

    @property
    def keep_group_ratios(self) -> bool:
        """Whether each group keeps the ratio of its own values to the reference."""
        return self._agreed.keep_group_ratios

    @property
    def num_steps(self) -> int:
        """The position, in units. Assigning to it is the same as `seek`."""
        return self._writer.position

    @num_steps.setter
    def num_steps(self, position: int) -> None:
        self.seek(position)

    @property
    def extras(self) -> dict[str, float]:
        """The present value of each extra, by name, as a new dict.

        Like the values in the groups, these are the values for the next update.
        """
        return self._agreed.plan.extra_values(self._writer.position)

    def step(self, increment: int = 1) -> None:
        """Advance the position, and write the new values into every group.

        Call it after each optimizer update.

        Args:
            increment: Units completed since the last call, a whole number >= 0: 1 for an update if
                the unit is steps, else the samples or tokens of the update on all ranks together.

        Raises:
            ConfigError: The increment is invalid, or a group has an invalid bound or multiplier.
                Position and groups are unchanged.
        """
        if type(increment) is not int or increment < 0:  # the slow check, for rare cases
            increment = rules.whole("increment", increment)
        writer = self._writer
        used = writer.position
        position = used + increment
        if position > _MAX_LENGTH:
            rules.whole("position", position)
        wait_again = self._stop_waiting() if writer.tracker.is_waiting else None
        try:
            if self._may_miss_loads:
                self._go(position, is_step=True)
            else:  # `_go` is inlined, because with one group, calls take most of the time
                writer.write(position)
        except Exception:
            writer.write_back()
            if wait_again is not None:
                wait_again()
            raise
        self._updated_at = used
        if self._update_values:
            self._update_values = {}

    def seek(self, position: int) -> None:
        """Set the position, and write the values there into every group.

        Args:
            position: Units completed since the beginning of the run, a whole number >= 0.

        Raises:
            ConfigError: As for `step`.
        """
        self._go(rules.whole("position", position))
        self._is_unplaced = False
        self._updated_at, self._update_values = None, {}

    def get_last_lr(self) -> list[float]:
        """Return the present learning rate of every group, as floats, in the optimizers' order.

        If lr is not scheduled, these are the values that the groups hold.

        Raises:
            ConfigError: A group has an invalid bound or multiplier.
        """
        return self._writer.held("lr", self._writer.position)

    def metrics(self) -> dict[str, float]:
        """Return the values of the latest update, by field and group, for a logger.

        Call it after `step()`. These are the values that the optimizer used, not the values for the
        next update. Before the first step, and after a load or a seek, they are the values that the
        groups hold.

        Returns:
            A dict with the keys `lr/<group>`, `weight_decay/<group>` and so on. `<group>` is the
            name of the group, or its index without a name. If several are equal, the indices of
            optimizer and group are added, as in `name.1.0`. Extras have their names as keys.

        Raises:
            ConfigError: A group has an invalid bound or multiplier.
        """
        if self._update_values:
            return {**self._update_values}
        position = self._writer.position if self._updated_at is None else self._updated_at
        return self._metrics_at(position)

    def _metrics_at(self, position: int) -> dict[str, float]:
        """Return the values at a position, for frameworks that log before they update."""
        return {**self._writer.metrics(position), **self._agreed.plan.extra_values(position)}

    def describe_groups(self) -> GroupTable:
        """Return the value of each field in each group, and where it comes from.

        Returns:
            A row for each group and field, with index, name, optimizer, number of parameters,
            present and highest value, and the source of the value. `print` shows a table.

        Raises:
            ConfigError: A group has an invalid bound or multiplier.
        """
        return self._writer.describe()

    def state_dict(self) -> State:
        """Return the checkpoint state: a new dict of int, float and str, equal on every rank.

        docs/state.md describes the format.
        """
        return self._current().state_dict()

    def to_config(self) -> dict[str, Any]:
        """Return the schedule in use, including late changes, as a mapping for `from_config`."""
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
        """The late changes, each with `position`, `operation` and `arguments`."""
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
        """Decay from the current value, starting at the current position.

        The change is recorded in `history`. Late changes do not communicate. Make them on every
        rank, or call `synchronize()` afterwards.

        Args:
            steps: Length of the cooldown, in units, at least 1.
            shape: Name of a shape, one of `dist_sched.schedules.shapes()`.
            end: Value at the end and after it, from 0 to the current value. If None, the schedule's
                last value if that is lower than the current one, else 0. In
                `OptimizerParamScheduler` None means `min_lr`.
            field: Field or extra to change. Per-group schedules of the field change, too.
            allow_jump: If True, the change is made even if the current value would jump.

        Raises:
            ConfigError: An argument is invalid, the value would jump, a cooldown would rise, or the
                entries of `OptimizerParamScheduler` cannot express the change. Nothing has changed.
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
        """Move the horizon to a later position, by making one phase longer.

        The phase is the constant phase that ends exactly here, if a decay begins. Otherwise it is
        the first constant phase that has not ended. If there is none, it is the longest phase that
        has not ended. This changes the current value and is refused as a jump, unless you pass
        `keep="value"`. The change is recorded in `history`, and the log has the phase.

        Args:
            horizon: New horizon, in units, later than the present one.
            keep: `"value"` stretches only the rest of the phase, so that the current value stays
                the same. For example, a line from 1 to 0 over 100 units is at 0.4 at position 60.
                Extended there to 160, it is at 0.2 at position 110. None stretches all of the
                phase.
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
        """Rise linearly from the current value, starting at the current position.

        The change is recorded in `history`.

        Args:
            steps: Length of the rise, in units, at least 1.
            peak: Value at the end and after it. If None, the highest value of the schedule.
            field: As for `cooldown`.
            allow_jump: As for `cooldown`.

        Raises:
            ConfigError: As for `cooldown`.
        """
        arguments = {"steps": steps, "peak": peak, "field": field}
        self._change("rewarm", arguments, allow_jump=allow_jump)

    def scale(self, factor: float, *, field: str = "lr") -> None:
        """Multiply all values from the current position on, for example after a loss spike.

        Schedules and bounds of groups are multiplied, too. A field that follows this one with
        `proportional_to` keeps its proportion. The change is recorded in `history`.

        Args:
            factor: The factor, more than 0.
            field: Field or extra to change.

        Raises:
            ConfigError: An argument is invalid, or a value would be out of range. Nothing has
                changed.
        """
        self._change("scale", {"factor": factor, "field": field}, allow_jump=True)

    def _change(self, operation: str, arguments: dict[str, Any], *, allow_jump: bool) -> None:
        rules.flag("allow_jump", allow_jump)
        self._apply_change(self._prepare_change(operation, arguments, allow_jump=allow_jump))

    def _prepare_change(
        self, operation: str, arguments: dict[str, Any], *, allow_jump: bool
    ) -> _PreparedChange:
        """Check a late change against this rank's groups, without changing anything.

        Raises:
            ConfigError: The change is invalid, a value would jump, or a group cannot hold a value.
        """
        self._resolve_missed_loads()
        before = self._agreed.effective
        effective, change = with_change(before, Change(self.num_steps, operation, arguments))
        jumps = effective.plan.jumps(self._agreed.plan, self.num_steps)
        if jumps and not allow_jump:
            raise ConfigError(f"{change}: {jumps}; pass allow_jump=True to make it anyway")
        # Only new names are checked, because other ranks' groups may have names that these lack.
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
        """Return the current value of a field's schedule, without ratios and overrides."""
        return self._agreed.plan.values(self.num_steps)[Path(field)]

    def lint(self, *, updates: int | None = None, increment: float = 1) -> tuple[Finding, ...]:
        """Warn about valid schedules and groups that are probably mistakes.

        Args:
            updates: Length of the run in optimizer updates. If None, the end of the run is not
                checked.
            increment: Units per update, more than 0. Must be 1 if the unit is steps.

        Returns:
            Findings with a code, a level, a message and a position, sorted by position.
            docs/cli.md lists the codes.

        Raises:
            ConfigError: `updates`, `increment`, or a group's bound or multiplier is invalid.
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
        """Load a checkpoint state and reconcile it with the script's config, by the policy.

        The position is set to the checkpoint's. `last_reconciliation` has the report, which is also
        logged. Loading a state twice is the same as loading it once, because every load compares
        the state with the constructor's config.

        With a process group, call it on every rank. The first rank reads its state and decides. All
        ranks apply the same outcome or raise the same error, after which nothing has changed. A
        rank whose config differs adopts the first rank's and logs the differences.

        Args:
            state_dict: The result of `state_dict()`, or a state of Megatron-LM's or NeMo's class.
                Only the first rank's state is read, so other ranks may pass `{}`.
            expected_position: The trainer's own count of units. If the checkpoint has another
                position, it is an error. None for no check. Only the first rank's is used.
            local: If True, load on this rank only, without communication. Never load on some ranks
                only without it: on gloo the next broadcast may silently receive the data.

        Raises:
            StateError: The state is malformed, or is not at the expected position.
            ReconcileError: Strict entries or units differ, or the outcome is not a valid config.
            ConfigError: Groups of some ranks cannot hold the values. The message has ranks and
                reasons.
            RankMismatchError: Ranks have different schedulers, or load them in different orders.
        """
        self.load_with(lambda: (state_dict, None), expected_position=expected_position, local=local)

    def load_with(
        self,
        reader: Callable[[], tuple[Mapping[str, Any], T]],
        *,
        expected_position: int | None = None,
        local: bool = False,
    ) -> T:
        """Load a checkpoint state as `load_state_dict` does, from your own storage.

        Args:
            reader: Returns the state and its place, which the log shows unless it is None. It is
                called on the first rank only. An error of it is raised on every rank.
            expected_position: As for `load_state_dict`.
            local: As for `load_state_dict`.

        Returns:
            The place that `reader` returned on the first rank.

        Raises:
            BaseException: The error of `reader`, or an error of `load_state_dict`.
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
        """Make every rank adopt the first rank's config and position.

        Call it on every rank after construction, in a new run whose ranks have different groups,
        such as pipeline stages. Ratios are then the same as in one process. Patterns, fields and
        reference names that this rank's groups lack are searched on the other ranks. Schedules of
        fields and groups that only other ranks have are adopted from them.

        All ranks apply the same outcome or raise the same error, after which nothing has changed.

        Raises:
            ConfigError: Groups of some ranks cannot hold the values, or no rank has a name or
                field.
            RankMismatchError: Ranks have different schedulers, or call this in different orders.
        """
        self._resolve_missed_loads()
        about = f"the synchronization of {self._label}"
        # If one rank's groups cannot be read, all ranks raise the error.
        sent = process_groups.gather(
            lambda: (self._current(), self._writer.inventory()), self.process_group, about=about
        )

        def prepare() -> tuple[_Prepared, Stage]:
            received = [one.value() for one in sent]
            first, inventory = received[0]
            others = [agreement for agreement, _ in received]
            for rank, other in enumerate(others):
                _check_kinds(rank, other.declared, first.declared)
            if process_groups.rank(self.process_group) != 0:
                self._check_identity(first)  # before uniting, which changes the config
            return self._prepare(first.unite(others, inventory), is_own=False)

        prepared, stages = process_groups.prepared(prepare, self.process_group, about=about)
        self._apply(prepared, stages)

    def verify(self) -> None:
        """Check that all ranks agree, and that their groups hold the scheduled values.

        Call it on every rank. It compares config, unit, policy, position and references across
        ranks with one small gather. On each rank it reads the scheduled fields of every group and
        compares them with the scheduled values. Groups are not compared across ranks, because
        pipeline stages have different ones. A load of an optimizer that ran no hooks is resolved by
        the policy and logged, and is not an error.

        Raises:
            RankMismatchError: Ranks or values differ. Every rank raises the same error. The message
                has rank, entry and both values.
        """
        about = f"the verification of {self._label}"
        sent = process_groups.gather(self._own_report, self.process_group, about=about)
        reports = [one.value() for one in sent]
        lines = [line for rank in range(len(reports)) for line in _disagreements(reports, rank)]
        if lines:
            cause = "ranks disagree:"
            if len(reports) == 1:
                cause = "something else has written values that this scheduler writes:"
            message = rules.joined([cause, *lines], "\n", most=rules.MOST)
            raise RankMismatchError(message, ranks=dict(enumerate(reports)))

    def check_position(self, position: int) -> None:
        """Check that the scheduler's position equals the trainer's own count.

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
        """Name that distinguishes this scheduler from others on the same ranks."""
        return self._agreed.name

    @property
    def _label(self) -> str:
        """The scheduler's class and name, for messages."""
        named = "" if self._agreed.name is None else f" {self._agreed.name!r}"
        return f"{type(self).__name__}{named}"

    def _extras_text(self) -> str:
        shown = [f"{name}={value:.15g}" for name, value in self.extras.items()]
        return rules.joined(shown, ", ", rules.MOST)

    def _current(self) -> Agreement:
        """Return the agreement with the present position."""
        return self._agreed.replace(position=self.num_steps)

    def _go(self, position: int, *, is_step: bool = False) -> None:
        """Write the values at a position, or leave everything unchanged."""
        if self._may_miss_loads:
            # Warned about only once, because something may write other values at each step.
            self._resolve_missed_loads(names_values=is_step and not self._has_named_values)
            if is_step:
                self._writer.tracker.forget_carried()
        try:
            self._writer.write(position)
        except Exception:
            self._writer.write_back()
            raise
        if self._may_miss_loads:
            self._note_writes()

    def _swap(self, writer: Writer, agreed: Agreement) -> None:
        """Apply another agreement with its writer, or leave everything unchanged."""
        before = self._writer
        # Fields that are no longer scheduled are restored first.
        writer.take_over_from(before)
        try:
            writer.write(agreed.position)
        except Exception:
            before.take_over_from(writer)
            before.write_back()
            raise
        self._writer, self._agreed = writer, agreed
        self._note_writes()

    def _reconcile(self, state: Mapping[str, Any], expected_position: int | None) -> _Load:
        """Return the outcome of a load, on the first rank, without changing anything."""
        current = self._current()
        declared = current.declared
        # Our own state and the text loaded last show whether DCP has really read this state.
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
        """Check an agreement against this rank's groups, without changing anything.

        Args:
            theirs: The agreement.
            is_own: Whether it is this rank's.
            load: The load, if it comes from one.
            is_local: Whether other ranks take no part.

        Returns:
            The prepared outcome, and this rank's information for the other ranks.

        Raises:
            RankMismatchError: It belongs to another scheduler.
            ConfigError: This rank's groups cannot hold the values.
        """
        mine = self._current()
        if not is_own:
            if load is not None:
                self._check_identity(theirs)
            # A rank without groups, or with no-decay groups only, has no references.
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
                raise  # not because of the checkpoint
            raise ConfigError(
                f"the checkpoint's schedule does not fit these groups: {error} (to ignore the "
                "checkpoint's entry, set its policy to 'config')"
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
        # Names that were found before are not searched again, because groups may have left.
        is_found = not self._unmatched and bool(writer.tracker.tracked)
        found = mine.declared.plan if is_found else None
        stage = Stage.of(writer, self._agreed.reference, found)
        return _Prepared(writer=writer, agreement=theirs, differences=differences), stage

    def _check_identity(self, theirs: Agreement) -> None:
        """Check that the first rank's agreement belongs to this scheduler.

        Raises:
            RankMismatchError: It belongs to another one, perhaps because of the order of calls.
        """
        mine = self._agreed
        rank = process_groups.rank(self.process_group)
        if theirs.is_of(mine):
            return
        if self._rivals(theirs):
            gc.collect()  # a deleted scheduler may still be in memory
        for label in self._rivals(theirs):
            raise RankMismatchError(
                f"this rank loads or synchronizes {self._label}, but rank 0 {label}; call loads "
                "and synchronize() of several schedulers in the same order on every rank, and pass "
                "a different name= to each"
            )
        if theirs.name != mine.name:
            raise RankMismatchError(
                f"this scheduler's name is {mine.name!r}, but rank 0's is {theirs.name!r}; pass "
                "the same name= on every rank"
            )
        _check_kinds(rank, mine.declared, theirs.declared)

    def _rivals(self, theirs: Agreement) -> list[str]:
        """Return the labels of other schedulers of this process that an agreement may belong to."""
        return [
            other._label  # noqa: SLF001 - of this class
            for other in _LIVE
            if other is not self
            and other.process_group is self.process_group
            and theirs.is_of(other._agreed)  # noqa: SLF001 - of this class
            # Not a scheduler that a newer one has replaced.
            and not other._writer.tracker.is_replaced  # noqa: SLF001 - of this class
        ]

    def _apply(
        self, prepared: _Prepared, stages: Sequence[Stage], *, is_local: bool = False
    ) -> None:
        """Apply a prepared outcome after every rank has agreed.

        Raises:
            ConfigError: No rank has a name, or a group's ratio to another rank's reference is
                invalid. All ranks raise it, because all have the same information, and nothing has
                changed.
        """
        writer, agreed = prepared.writer, prepared.agreement
        found = common_references(stages)
        # In a local load, the names of other ranks are unknown.
        missing = "" if is_local and self._has_other_ranks else common_names(stages)
        problem = missing or lost_groups(stages, found)
        if problem:
            raise ConfigError(problem)
        references = {key: found.get(key) for key in agreed.references}
        if references != agreed.references:  # some are from other ranks
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
            whose = "rank 0's config" if rank else "config that only other ranks have"
            differences = rules.joined(prepared.differences, "; ", rules.MOST)
            logger.warning("rank %d adopts %s: %s", rank, whose, differences)

    def _own_report(self) -> dict[str, Any]:
        """Return this rank's values for `verify`, and the groups that hold other values."""
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
        """Register hooks on the optimizers, without keeping this scheduler alive."""
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
                # In many scripts the optimizer lives longer than the scheduler.
                self._hooks += [weakref.finalize(self, handle.remove) for handle in handles]

    def _stop_waiting(self) -> Callable[[], None]:
        """Stop waiting for loads of optimizers, at the first step.

        Returns:
            A function that waits again, for a step that fails.

        Raises:
            ConfigError: This rank's groups lack names or fields, and other ranks were not asked.
        """
        self._refuse_unmatched()
        if self.unit == "steps" and (problem := frameworks.step_of_micro_batch()):
            logger.warning("%s", problem)
        carried = self._writer.carried_lr() if self._is_unplaced else None
        if carried is not None:
            one, lr = carried
            logger.warning(
                "the optimizer was loaded and the scheduler was not: %s was loaded with lr=%r, but "
                "the scheduler is at position %d and writes lr=%r; also load the scheduler's state "
                "(load_state_dict, or dist_sched.checkpoint.load), or call seek(position) with the "
                "position of the run%s",
                one,
                lr,
                self.num_steps,
                self._writer.values(self.num_steps)[one.place]["lr"],
                frameworks.advice(self._writer.tracker.sources),
            )
            self._is_unplaced = False
        return self._writer.tracker.stop_waiting()

    def _refuse_unmatched(self) -> None:
        if self._unmatched:
            # Groups may have been added, but it is too late to measure a reference.
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
        """Refuse an update while this rank's groups lack names or fields.

        Updates with lr 0 are allowed, because DCP makes one to create the optimizer's state.
        """
        if self._unmatched and any(group.get("lr") for group in optimizer.param_groups):
            self._refuse_unmatched()

    def _measure_late(self) -> bool:
        """Measure groups that were added late, if both checkpoints are loaded."""
        if self._saved is None or self._saved[0] != self.num_steps:
            return False
        position, saved = self._saved
        return self._writer.measure_late(saved.plan, position)

    def _before_optimizer_load(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        if self._writer.tracker.is_replaced:
            return
        self._writer.note_load(optimizer, state.get("param_groups", ()))

    def _after_optimizer_load(self, optimizer: Optimizer) -> None:
        """Resolve overrides from the load of an optimizer, and write the scheduled values again."""
        if self._writer.tracker.is_replaced:
            return
        differences = self._writer.resolve_load(optimizer, self._agreed.policy)
        try:
            # Compared only if both checkpoints have the same position: after a step or a seek,
            # other values are expected.
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
        """Do the same for an optimizer whose load may change groups after its hooks."""
        self._after_optimizer_load(optimizer)
        self._writer.tracker.doubt(optimizer)

    def _before_optimizer_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Write the scheduled values again before an update, if a load may have changed them.

        Not otherwise, because DCP makes an update with lr 0, which must stay 0.
        """
        if self._writer.tracker.is_in_doubt(optimizer):
            self._resolve_missed_loads()

    def _resolve_missed_loads(self, *, is_load: bool = False, names_values: bool = False) -> None:
        """Do the work of the hooks, if an optimizer may have been loaded without them.

        Args:
            is_load: As for `Snapshot.was_loaded`.
            names_values: Whether to log values that differ from the last write.
        """
        if not self._may_miss_loads:
            return
        for optimizer in self._writer.tracker.optimizers():
            if wrappers.runs_load_hooks(optimizer):
                continue
            # Raising here would leave other ranks waiting for this one.
            try:
                values = self._writer.note_missed_load(optimizer, is_load=is_load)
            except ConfigError:
                continue  # an invalid new group, for which the next write raises again
            if values is None:
                continue
            try:
                self._after_optimizer_load(optimizer)
            except ConfigError as error:
                self._log_differences([f"{error}; the group's former values are restored"])
            if names_values and values:
                self._has_named_values = True
                self._log_differences([f"{line}; it was written again" for line in values])

    def _note_writes(self) -> None:
        """Remember the written values, if they must be compared later."""
        if self._may_miss_loads:
            self._writer.tracker.note_writes(self._writer.plan.fields)

    def _warn_of_lost_writes(self) -> None:
        """Warn if groups do not hold the values that a load has written."""
        wrong = self._writer.wrong_values(self.num_steps) if self._may_miss_loads else []
        if wrong:
            logger.warning(_short(["the groups do not hold the loaded values:", *wrong]))

    def _log_differences(self, lines: list[str]) -> None:
        if lines:
            is_first = process_groups.rank(self.process_group) == 0
            logger.log(logging.WARNING if is_first else logging.INFO, _short(lines))


def _short(lines: list[str]) -> str:
    """Return the first lines, and the number of the others."""
    more = [f"... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    return "\n".join([*lines[:_MOST_LINES], *more])


def _check_kinds(rank: int, mine: Config, first: Config) -> None:
    if type(mine) is not type(first):
        raise RankMismatchError(
            f"rank {rank} has {mine.KIND}, but rank 0 has {first.KIND}; build the same scheduler "
            "on every rank"
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
    """Return the differences between a rank and the first one, and its groups' wrong values."""
    mine, first = reports[rank], reports[0]
    lines = []
    for name in {**first, **mine}:
        own, other = mine.get(name, NOTHING), first.get(name, NOTHING)
        if name.startswith(_REFERENCE):  # ranks without groups do not have one
            other = next(report[name] for report in reports if name in report)
            own = mine.get(name, other)
        if own != other and name != "groups":
            lines.append(f"rank {rank}: {name} is {_text(own)}, rank 0 has {_text(other)}")
    return [*lines, *(f"rank {rank}: {line}" for line in mine["groups"])]


def _check_position(found: int, expected: int) -> None:
    if found != expected:
        raise StateError(
            f"key {POSITION_KEY!r}: the scheduler's position is {found}, but the trainer's is "
            f"{expected}; check that both are from the same checkpoint and count the same unit"
        )


def _log(report: Reconciliation, where: object) -> None:
    """Log the report of a load, in one line if nothing differs."""
    origin = "" if where is None else f" from {where}"
    if report.is_equal:
        logger.info("loaded the scheduler%s at %s", origin, report)
        return
    # A long path is cut at its beginning, because its end identifies the checkpoint.
    most = WIDTH - len("loaded the scheduler from ")
    if len(origin) > WIDTH - len("loaded the scheduler"):
        origin = f" from ...{str(where)[3 - most :]}"
    logger.warning("loaded the scheduler%s%sat %s", origin, "\n" if origin else " ", report)
    if logger.isEnabledFor(logging.DEBUG):
        of = "" if where is None else f" of {where}"
        logger.debug("the whole report%s:\n%s", of, report.table())
