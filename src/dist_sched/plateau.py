"""Cutting a schedule when a metric stops improving, like torch's `ReduceLROnPlateau`."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, final

from dist_sched import _rules as rules
from dist_sched._optim import process_groups
from dist_sched._optim.base import Scheduler
from dist_sched._state.format import parse
from dist_sched.errors import ConfigError, RankMismatchError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Plateau"]

logger = logging.getLogger("dist_sched")

T = TypeVar("T")

_VERSION = 1
_TEXT_KEY = "plateau"
_SAME = 1e-12
"""Relative difference that rounding can make after several factors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """The checked arguments of the constructor, which `Plateau` documents."""

    factor: float
    patience: int
    threshold: float
    mode: str
    cooldown: int
    min_value: float
    threshold_mode: str
    eps: float
    field: str
    reduce: str | None

    def __post_init__(self) -> None:
        checks: dict[str, Callable[[str, object], object]] = {
            "factor": _share,
            "patience": rules.count,
            "threshold": rules.rate,
            "mode": rules.one_of(("min", "max")),
            "cooldown": rules.count,
            "min_value": rules.rate,
            "threshold_mode": rules.one_of(("rel", "abs")),
            "eps": rules.rate,
            "field": rules.text,
            "reduce": rules.optional(rules.one_of(("mean",))),
        }
        for name, rule in checks.items():
            object.__setattr__(self, name, rule(name, getattr(self, name)))
        if self.threshold >= 1 and (self.mode, self.threshold_mode) == ("min", "rel"):
            problem = "must be below 1, because it is the fraction by which a metric must improve"
            raise rules.illegal("threshold", self.threshold, problem)

    @property
    def worst(self) -> float:
        """A metric that every other one is better than."""
        return math.inf if self.mode == "min" else -math.inf

    def is_better(self, metric: float, best: float) -> bool:
        """Return whether a metric is better than the best one. NaN is never better."""
        sign = 1 if self.mode == "max" else -1
        is_share = self.threshold_mode == "rel"
        bound = best * (1 + sign * self.threshold) if is_share else best + sign * self.threshold
        return metric > bound if self.mode == "max" else metric < bound

    def cut(self, value: float) -> float | None:
        """Return the factor that cuts a value, or None if the cut would be too small."""
        lower = max(value * self.factor, self.min_value)
        # A value at min_value must not be cut again and again by a rounding error.
        if lower == 0 or value - lower <= max(self.eps, value * _SAME):
            return None
        return self.factor if lower > self.min_value else lower / value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """The counts after the metrics so far."""

    best: float
    num_bad_epochs: int = 0
    cooldown_counter: int = 0
    num_updates: int = 0

    def after(self, metric: float, settings: _Settings) -> tuple[_Counts, bool]:
        """Return the counts after another metric, and whether a cut is due."""
        is_better = settings.is_better(metric, self.best)
        bad = 0 if is_better or self.cooldown_counter else self.num_bad_epochs + 1
        is_due = bad > settings.patience
        left = settings.cooldown if is_due else max(self.cooldown_counter - 1, 0)
        counts = _Counts(
            best=metric if is_better else self.best,
            num_bad_epochs=0 if is_due else bad,
            cooldown_counter=left,
            num_updates=self.num_updates + 1,
        )
        return counts, is_due


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    """The parts of a loaded state beside the counts."""

    position: int
    """Position of the scheduler."""
    scales: int
    """Number of scales of the field in its history."""
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """The values that a rank sends to the others."""

    metric: float
    """NaN if it is not read."""
    value: float
    """The schedule's value."""
    counts: _Counts
    common: dict[str, Any]
    """Values that must be equal on all ranks."""


@final
class Plateau:
    """Multiply a scheduler's values by a factor when a metric stops improving.

    With the best metric so far `b` and the threshold `t`, a metric `m` is better if

    - mode "min", threshold_mode "rel": `m < b (1 - t)`;
    - mode "min", threshold_mode "abs": `m < b - t`;
    - mode "max", threshold_mode "rel": `m > b (1 + t)`;
    - mode "max", threshold_mode "abs": `m > b + t`.

    After more than `patience` updates in a row without an improvement, the schedule's value `v` is
    cut to `max(v factor, min_value)`, if this lowers it by more than `eps`. In the `cooldown`
    updates after a cut, missing improvements do not count. NaN is never better.

    With a constant schedule, the values are the same as with torch's `ReduceLROnPlateau`. There are
    two differences:

    - A cut multiplies all groups by the same factor, so that their ratios stay the same.
      `min_value` and `eps` are compared with the schedule's value. torch compares the value of each
      group.
    - A cut is a `scale` in `scheduler.history`. The rest of the schedule is multiplied, the cut is
      saved with the scheduler, and you can repeat a run without its metrics. `min_value` limits
      cuts, but not the schedule.

    A `Plateau` has its own state, which docs/state.md describes. Save and load it together with the
    scheduler's.

    Args:
        scheduler: The scheduler, an `OptimizerParamScheduler` or a `ParamScheduler`.
        factor: Factor of a cut, more than 0 and less than 1.
        patience: Number of updates in a row without an improvement before a cut, at least 0.
        threshold: How much better a metric must be to count as an improvement, at least 0.
        mode: "min" if lower metrics are better, "max" if higher metrics are better.
        cooldown: Number of updates after a cut in which missing improvements do not count, at
            least 0.
        min_value: Lowest value of a cut, at least 0 (torch's `min_lr`).
        threshold_mode: "rel" if the threshold is a fraction of the best metric, "abs" if it is a
            difference. Use "abs" for metrics that may be negative.
        eps: A cut is skipped if it lowers the value by at most this much, at least 0.
        field: The field or extra to change.
        reduce: None to use the first rank's metric, "mean" to use the mean over all ranks.

    Raises:
        ConfigError: An argument is invalid. The message has the argument, its value and the rule.

    Examples:
        >>> import torch
        >>> from dist_sched import ParamScheduler
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = ParamScheduler(optimizer, {"lr": 1.0})
        >>> plateau = Plateau(scheduler, factor=0.5, patience=1)
        >>> for loss in (0.9, 0.8, 0.8, 0.8, 0.7):
        ...     scheduler.step()
        ...     print(plateau.update(loss), optimizer.param_groups[0]["lr"])
        False 1.0
        False 1.0
        False 1.0
        True 0.5
        False 0.5
        >>> print(scheduler.history[0])
        scale at 4 (field=lr, factor=0.5)
    """

    @rules.known_arguments
    def __init__(
        self,
        scheduler: Scheduler,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        mode: str = "min",
        cooldown: int = 0,
        min_value: float = 0.0,
        *,
        threshold_mode: str = "rel",
        eps: float = 1e-8,
        field: str = "lr",
        reduce: str | None = None,
    ) -> None:
        if not isinstance(scheduler, Scheduler):
            rule = "must be a scheduler of dist_sched; build one for the optimizer, and pass it"
            raise rules.illegal("scheduler", scheduler, rule)
        self._settings = _Settings(
            factor=factor,
            patience=patience,
            threshold=threshold,
            mode=mode,
            cooldown=cooldown,
            min_value=min_value,
            threshold_mode=threshold_mode,
            eps=eps,
            field=field,
            reduce=reduce,
        )
        self.scheduler = scheduler
        """The scheduler whose values are cut."""
        self._counts = _Counts(best=self._settings.worst)
        self._saved: _Saved | None = None
        """The loaded state, until an update has compared it with the scheduler."""
        self._is_compared = False
        """Whether an update has compared the loads of this and of the scheduler."""
        self._has_named_nan = self._has_named_sign = False
        """Whether these warnings were logged, each of which is logged once."""
        # A field that cannot be scaled is an error here, not at the first cut.
        self._prepare(self._settings.factor)

    @property
    def best(self) -> float:
        """The best metric so far. Infinite before the first one."""
        return self._counts.best

    @property
    def num_bad_epochs(self) -> int:
        """Number of updates in a row without an improvement."""
        return self._counts.num_bad_epochs

    @property
    def cooldown_counter(self) -> int:
        """Number of further updates in which missing improvements do not count."""
        return self._counts.cooldown_counter

    @property
    def num_updates(self) -> int:
        """Number of metrics so far."""
        return self._counts.num_updates

    def update(self, metric: Any) -> bool:
        """Record a metric, for example after an evaluation, and cut the values if it is time.

        With a process group, call it on every rank at the same position. Either all ranks cut or
        none does, and all ranks use the first rank's counts. It communicates one small gather, and
        a second one for a cut.

        Args:
            metric: A number, or a tensor or numpy array with a single number. With `reduce=None`,
                only the first rank's metric is read, and other ranks may pass None.

        Returns:
            Whether the values were cut.

        Raises:
            ConfigError: The metric is not a number, or a rank's groups cannot hold the new values.
            RankMismatchError: Ranks have different arguments, positions or histories. Every rank
                raises the same error, and nothing has changed.
        """
        scheduler, settings = self.scheduler, self._settings
        about = f"the update of a Plateau over {scheduler._label}"
        sent = process_groups.gather(
            lambda: self._report(metric), scheduler.process_group, about=about
        )
        reports = [one.value() for one in sent]
        _refuse_differences(reports)
        first = reports[0]
        found = first.metric
        if settings.reduce == "mean":
            found = sum(report.metric for report in reports) / len(reports)
        scales = self._num_scales()
        counts, is_due = first.counts.after(found, settings)
        factor = settings.cut(first.value) if is_due else None
        if factor is not None:
            prepared, _ = process_groups.prepared(
                lambda: (self._prepare(factor), None), scheduler.process_group, about=about
            )
            scheduler._apply_change(prepared)
        self._name_surprises(found, first.counts, scales)
        self._counts, self._saved, self._is_compared = counts, None, True
        return factor is not None

    def state_dict(self) -> dict[str, int | float | str]:
        """Return the checkpoint state: a new dict of int, float and str, equal on every rank."""
        text = {
            "version": _VERSION,
            "position": self.scheduler.num_steps,
            "scales": self._num_scales(),
            "arguments": dataclasses.asdict(self._settings),
        }
        return {
            **dataclasses.asdict(self._counts),
            _TEXT_KEY: json.dumps(text, allow_nan=False),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a checkpoint state, without communication.

        The arguments stay the script's. Differences are logged. Load the scheduler separately,
        before or after.

        Args:
            state_dict: The result of `state_dict()`.

        Raises:
            StateError: The state is malformed, from a newer version, or for another field or mode.
                The message has the key. Nothing has changed.
        """
        counts, saved = _read(state_dict)
        mine = dataclasses.asdict(self._settings)
        for name in ("mode", "field"):
            if saved.arguments.get(name) != mine[name]:
                theirs = rules.shown(saved.arguments.get(name))
                raise StateError(
                    f"key {_TEXT_KEY!r} of the checkpoint state: {name} is {theirs} in the "
                    f"checkpoint, but {mine[name]!r} here; load the state of the same Plateau, or "
                    "none to start again"
                )
        self._counts, self._saved, self._is_compared = counts, saved, False
        differing = [
            f"{name} is {mine[name]!r} (the checkpoint has {rules.shown(theirs)})"
            for name, theirs in saved.arguments.items()
            if name in mine and mine[name] != theirs
        ]
        if differing:
            lines = rules.joined(differing, "; ", rules.MOST)
            self._warn(f"loaded a Plateau; the script's arguments are used: {lines}")

    def __repr__(self) -> str:
        known = {**dataclasses.asdict(self._settings), **dataclasses.asdict(self._counts)}
        return f"Plateau({', '.join(f'{name}={value!r}' for name, value in known.items())})"

    def _prepare(self, factor: float) -> Any:
        """Check a cut against this rank's groups, without changing anything."""
        scheduler, field = self.scheduler, self._settings.field
        arguments = {"factor": factor, "field": field}
        return scheduler._prepare_change("scale", arguments, allow_jump=True)

    def _report(self, metric: object) -> _Report:
        """Return this rank's values for the decision, or raise a ConfigError."""
        scheduler, settings = self.scheduler, self._settings
        is_read = settings.reduce is not None or process_groups.rank(scheduler.process_group) == 0
        common = {
            "scheduler": scheduler._label,
            "unit": scheduler.unit,
            "position": scheduler.num_steps,
            "history": [change.to_dict() for change in scheduler.history],
            **dataclasses.asdict(settings),
        }
        return _Report(
            metric=_number(metric) if is_read else math.nan,
            value=scheduler._value(settings.field),
            counts=self._counts,
            common=common,
        )

    def _num_scales(self) -> int:
        """Return the number of scales of the field in the scheduler's history."""
        field = self._settings.field
        changes = self.scheduler.history
        return sum(one.operation == "scale" and one.field == field for one in changes)

    def _name_surprises(self, metric: float, counts: _Counts, scales: int) -> None:
        """Warn, once each, about things that are probably mistakes.

        Args:
            metric: The metric that was used.
            counts: The first rank's counts before the update.
            scales: Number of scales in the history before the update.
        """
        scheduler, settings, saved = self.scheduler, self._settings, self._saved
        if counts != self._counts:
            logger.warning(
                "rank %d adopts rank 0's counts of a Plateau: %s instead of %s",
                process_groups.rank(scheduler.process_group),
                dataclasses.asdict(counts),
                dataclasses.asdict(self._counts),
            )
        which = f"the metric of update {counts.num_updates + 1}"
        if math.isnan(metric) and not self._has_named_nan:
            self._has_named_nan = True
            self._warn(f"{which} is nan, which never counts as an improvement")
        is_reversed = metric < 0 and settings.threshold_mode == "rel" and settings.threshold > 0
        if is_reversed and not self._has_named_sign:
            self._has_named_sign = True
            self._warn(
                f"{which} is {metric!r}: for metrics below 0, a relative threshold counts worse "
                "ones as better; use threshold_mode='abs'"
            )
        if self._is_compared:
            return
        here = scheduler.num_steps
        if saved is not None and (here < saved.position or scales < saved.scales):
            self._warn(
                f"the Plateau was saved at position {saved.position} with {saved.scales} scales of "
                f"{settings.field} in the history, but its scheduler is at position {here} with "
                f"{scales} scales; load the scheduler's state from the same checkpoint, too (a "
                "policy of 'config' drops late changes)"
            )
        if saved is None and scheduler.last_reconciliation is not None:
            self._warn(
                f"the scheduler was loaded and its Plateau was not, so the Plateau starts again at "
                f"position {here} without a best metric; load its state, too"
            )

    def _warn(self, message: str) -> None:
        if process_groups.rank(self.scheduler.process_group) == 0:
            logger.warning("%s", message)


def _share(name: str, value: object) -> float:
    found = rules.positive(name, value)
    if found >= 1:
        raise rules.illegal(name, value, "must be below 1, because a cut multiplies by it")
    return found


def _number(metric: object) -> float:
    """Return a metric as a float, or raise a ConfigError."""
    if hasattr(metric, "full_tensor"):  # a rank has only a part of it
        rule = "must be a number; for a DTensor, call full_tensor() on every rank and pass that"
        raise rules.illegal("metric", metric, rule)
    return rules.real("metric", metric)


def _best(name: str, value: object) -> float:
    found = rules.real(name, value)
    if math.isnan(found):
        raise rules.illegal(name, value, "must be a number, or infinite before the first metric")
    return found


def _refuse_differences(reports: Sequence[_Report]) -> None:
    """Raise a RankMismatchError, the same on every rank, if ranks differ."""
    first = reports[0].common
    lines = [
        f"rank {rank}: {name} is {rules.shown(value)}, rank 0 has {rules.shown(first.get(name))}"
        for rank, report in enumerate(reports)
        for name, value in report.common.items()
        if value != first.get(name)
    ]
    if lines:
        cause = (
            "ranks disagree about the update of a Plateau, and nothing has changed; build it with "
            "the same arguments and call update() at the same position on every rank (the "
            "scheduler's synchronize() makes positions equal):"
        )
        message = rules.joined([cause, *lines], "\n", most=rules.MOST)
        ranks = {rank: report.common for rank, report in enumerate(reports)}
        raise RankMismatchError(message, ranks=ranks)


def _read(state: object) -> tuple[_Counts, _Saved]:
    """Return the parts of a state, or raise a StateError."""
    if not isinstance(state, Mapping):
        raise StateError(f"key 'state': must be a dict, not {type(state).__name__}")
    checks: dict[str, Callable[[str, object], Any]] = {
        "best": _best,
        "num_bad_epochs": rules.count,
        "cooldown_counter": rules.count,
        "num_updates": rules.count,
    }
    for key in (*checks, _TEXT_KEY):
        if key not in state:
            raise StateError(
                f"key {key!r} of the checkpoint state is missing; check that it is a Plateau's"
            )
    text = parse(state[_TEXT_KEY], _TEXT_KEY)
    version = _checked(_TEXT_KEY, rules.count, "version", text.get("version"))
    if version > _VERSION:
        raise StateError(
            f"key {_TEXT_KEY!r} of the checkpoint state: version {version} is newer than this "
            f"release can read ({_VERSION}); upgrade dist-sched"
        )
    counts = _Counts(**{key: _checked(key, rule, key, state[key]) for key, rule in checks.items()})
    saved = _Saved(
        position=_checked(_TEXT_KEY, rules.whole, "position", text.get("position")),
        scales=_checked(_TEXT_KEY, rules.count, "scales", text.get("scales")),
        arguments=_checked(_TEXT_KEY, rules.mapping, "arguments", text.get("arguments")),
    )
    return counts, saved


def _checked(key: str, rule: Callable[[str, object], T], name: str, value: object) -> T:
    try:
        return rule(name, value)
    except ConfigError as error:
        raise StateError(f"key {key!r} of the checkpoint state: {error}") from error
