"""A metric that drives a schedule: what torch's `ReduceLROnPlateau` does, as late changes."""

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
"""Relative difference that the rounding of several factors can make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What the constructor was given, checked; `Plateau` describes it."""

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
            problem = "must be below 1, the share of the best metric by which one must be lower"
            raise rules.illegal("threshold", self.threshold, problem)

    @property
    def worst(self) -> float:
        """What every other metric is better than."""
        return math.inf if self.mode == "min" else -math.inf

    def is_better(self, metric: float, best: float) -> bool:
        """Return whether a metric is better than the best one; NaN never is."""
        sign = 1 if self.mode == "max" else -1
        is_share = self.threshold_mode == "rel"
        bound = best * (1 + sign * self.threshold) if is_share else best + sign * self.threshold
        return metric > bound if self.mode == "max" else metric < bound

    def cut(self, value: float) -> float | None:
        """Return the factor that cuts a value; None where the cut would be too small."""
        lower = max(value * self.factor, self.min_value)
        # A value that stands at min_value, up to rounding, is not cut by that rounding each time.
        if lower == 0 or value - lower <= max(self.eps, value * _SAME):
            return None
        return self.factor if lower > self.min_value else lower / value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What the metrics so far have left."""

    best: float
    num_bad_epochs: int = 0
    cooldown_counter: int = 0
    num_updates: int = 0

    def after(self, metric: float, settings: _Settings) -> tuple[_Counts, bool]:
        """Return the counts after one more metric, and whether a cut is due."""
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
    """What a loaded state says of the run beside the counts."""

    position: int
    """Where the scheduler was."""
    scales: int
    """How many scales of the field its history had."""
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What a rank sends to the others."""

    metric: float
    """NaN where it is not read."""
    value: float
    """The schedule's."""
    counts: _Counts
    common: dict[str, Any]
    """What all ranks must have alike."""


@final
class Plateau:
    """Multiply a scheduler's values by a factor when a metric stops getting better.

    With the best metric so far `b` and the threshold `t`, a metric `m` is better if

    - mode "min", threshold_mode "rel": `m < b (1 - t)`;
    - mode "min", threshold_mode "abs": `m < b - t`;
    - mode "max", threshold_mode "rel": `m > b (1 + t)`;
    - mode "max", threshold_mode "abs": `m > b + t`.

    After more than `patience` updates in a row that are not better, the schedule's value `v` is cut
    to `max(v factor, min_value)`, if that is lower by more than `eps`. In the `cooldown` updates
    after a cut, none counts as bad. NaN is never better.

    Over a constant schedule the values are those of torch's `ReduceLROnPlateau`. Two things differ.
    A cut is one factor for all groups, so their ratios stay: `min_value` and `eps` are compared
    with the schedule's own value, where torch compares each group's. And a cut is a `scale` in
    `scheduler.history`: the rest of the schedule goes on from there, it is saved with the
    scheduler, and a run can be repeated without the metrics. `min_value` limits cuts, and not the
    schedule.

    A `Plateau` has a state of its own, which docs/state.md describes: save and load it beside the
    scheduler's.

    Args:
        scheduler: What is driven: an `OptimizerParamScheduler` or a `ParamScheduler`.
        factor: What a cut multiplies by, between 0 and 1.
        patience: How many updates in a row may be no better.
        threshold: How much better a metric must be to count.
        mode: "min" if lower metrics are better, "max" if higher ones are.
        cooldown: How many updates after a cut count no bad ones.
        min_value: No cut goes below it; torch's `min_lr`.
        threshold_mode: "rel" for a share of the best metric, which is meant for metrics above 0, or
            "abs".
        eps: A cut that lowers the value by no more than this is left out.
        field: The field to change.
        reduce: None to decide by the first rank's metric, "mean" by the mean of all ranks'.

    Raises:
        ConfigError: An argument is illegal; names it, its value and the rule.

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
            rule = "must be a scheduler of dist_sched: build one over the optimizer, and pass that"
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
        """What is driven."""
        self._counts = _Counts(best=self._settings.worst)
        self._saved: _Saved | None = None
        """What was loaded, until an update has compared it with the scheduler."""
        self._is_compared = False
        """Whether an update has seen how this and the scheduler were loaded."""
        self._has_named_nan = self._has_named_sign = False
        """Whether the log has named what is named once."""
        # A field that cannot be scaled is an error here, and not at the first cut.
        self._prepare(self._settings.factor)

    @property
    def best(self) -> float:
        """The best metric so far; an infinity before the first."""
        return self._counts.best

    @property
    def num_bad_epochs(self) -> int:
        """How many updates in a row were no better, as torch calls it."""
        return self._counts.num_bad_epochs

    @property
    def cooldown_counter(self) -> int:
        """How many more updates count no bad ones."""
        return self._counts.cooldown_counter

    @property
    def num_updates(self) -> int:
        """How many metrics there were."""
        return self._counts.num_updates

    def update(self, metric: Any) -> bool:
        """Take a metric, as of an evaluation, and cut the values if it is time.

        Collective over the scheduler's process group: one small gather, and a second one for a cut.
        Call it on every rank, at the same position. All ranks cut or none, and the first rank's
        counts are everybody's. Without a process group there is no communication.

        Args:
            metric: A number, or a tensor or numpy array without dimensions. If the first rank
                decides, the other ranks' is not read, and may be None.

        Returns:
            Whether the values were cut.

        Raises:
            ConfigError: The metric is no number, or a rank's groups cannot be given the new values.
            RankMismatchError: The ranks have different arguments, positions or histories.
                Every rank raises the same error, and is as before.
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
        """Return the state: a fresh dict of int, float and str, the same on every rank."""
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
        """Load the state; twice is the same as once. Does not communicate.

        The arguments are always the script's, and the log names those that differ. The scheduler is
        loaded for itself, before or after.

        Raises:
            StateError: The state is malformed, from a newer version, or of another field or mode;
                names the key. Nothing has changed.
        """
        counts, saved = _read(state_dict)
        mine = dataclasses.asdict(self._settings)
        for name in ("mode", "field"):
            if saved.arguments.get(name) != mine[name]:
                theirs = rules.shown(saved.arguments.get(name))
                raise StateError(
                    f"key {_TEXT_KEY!r} of the checkpoint state: {name} is {theirs} there and "
                    f"{mine[name]!r} here: it is another Plateau's; to start afresh, load none"
                )
        self._counts, self._saved, self._is_compared = counts, saved, False
        differing = [
            f"{name} is {mine[name]!r} (the checkpoint has {rules.shown(theirs)})"
            for name, theirs in saved.arguments.items()
            if name in mine and mine[name] != theirs
        ]
        if differing:
            lines = rules.joined(differing, "; ", rules.MOST)
            self._warn(f"loaded a Plateau, with the script's arguments: {lines}")

    def __repr__(self) -> str:
        known = {**dataclasses.asdict(self._settings), **dataclasses.asdict(self._counts)}
        return f"Plateau({', '.join(f'{name}={value!r}' for name, value in known.items())})"

    def _prepare(self, factor: float) -> Any:
        """Check a cut against this rank's groups, and change nothing."""
        scheduler, field = self.scheduler, self._settings.field
        arguments = {"factor": factor, "field": field}
        return scheduler._prepare_change("scale", arguments, allow_jump=True)

    def _report(self, metric: object) -> _Report:
        """Return what the ranks decide by, or raise a ConfigError."""
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
        """Return how many scales of the field the scheduler's history has."""
        field = self._settings.field
        changes = self.scheduler.history
        return sum(one.operation == "scale" and one.field == field for one in changes)

    def _name_surprises(self, metric: float, counts: _Counts, scales: int) -> None:
        """Name at WARNING, once, what may not be meant.

        Args:
            metric: The one that decided.
            counts: The first rank's, before it.
            scales: How many the history had, before it.
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
            self._warn(f"{which} is nan, which is never better: such metrics count as bad ones")
        is_reversed = metric < 0 and settings.threshold_mode == "rel" and settings.threshold > 0
        if is_reversed and not self._has_named_sign:
            self._has_named_sign = True
            self._warn(
                f"{which} is {metric!r}: below 0, a relative threshold takes for better what is "
                "worse by that share: use threshold_mode='abs'"
            )
        if self._is_compared:
            return
        here = scheduler.num_steps
        if saved is not None and (here < saved.position or scales < saved.scales):
            self._warn(
                f"the Plateau was loaded from position {saved.position}, where the history had "
                f"{saved.scales} scales of {settings.field}, and its scheduler is at {here} and "
                f"has {scales}: load the scheduler's state of the same checkpoint too (a policy of "
                "'config' drops late changes)"
            )
        if saved is None and scheduler.last_reconciliation is not None:
            self._warn(
                f"the scheduler was loaded and its Plateau was not, which starts afresh at {here}, "
                "without a best metric: load its state too"
            )

    def _warn(self, message: str) -> None:
        if process_groups.rank(self.scheduler.process_group) == 0:
            logger.warning("%s", message)


def _share(name: str, value: object) -> float:
    found = rules.positive(name, value)
    if found >= 1:
        raise rules.illegal(name, value, "must be below 1, as it is what a cut multiplies by")
    return found


def _number(metric: object) -> float:
    """Return a metric as a float, or raise a ConfigError."""
    if hasattr(metric, "full_tensor"):  # of which a rank has a part, and to read it is collective
        rule = "must be a number: pass full_tensor() of a DTensor, called on every rank"
        raise rules.illegal("metric", metric, rule)
    return rules.real("metric", metric)


def _best(name: str, value: object) -> float:
    found = rules.real(name, value)
    if math.isnan(found):
        raise rules.illegal(name, value, "must be a number, or an infinity where there is none yet")
    return found


def _refuse_differences(reports: Sequence[_Report]) -> None:
    """Raise a RankMismatchError, the same on every rank, where ranks differ."""
    first = reports[0].common
    lines = [
        f"rank {rank}: {name} is {rules.shown(value)}, rank 0 has {rules.shown(first.get(name))}"
        for rank, report in enumerate(reports)
        for name, value in report.common.items()
        if value != first.get(name)
    ]
    if lines:
        cause = (
            "ranks disagree about the update of a Plateau, and nothing has changed: build it alike "
            "and call update() at the same position on every rank (the scheduler's synchronize() "
            "makes positions equal)"
        )
        message = rules.joined([cause, *lines], "\n", most=rules.MOST)
        ranks = {rank: report.common for rank, report in enumerate(reports)}
        raise RankMismatchError(message, ranks=ranks)


def _read(state: object) -> tuple[_Counts, _Saved]:
    """Return what a state says, or raise a StateError."""
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
            raise StateError(f"key {key!r} of the checkpoint state is missing: it is no Plateau's")
    text = parse(state[_TEXT_KEY], _TEXT_KEY)
    version = _checked(_TEXT_KEY, rules.count, "version", text.get("version"))
    if version > _VERSION:
        raise StateError(
            f"key {_TEXT_KEY!r} of the checkpoint state: version {version} is newer than this "
            f"release reads ({_VERSION}): upgrade dist-sched"
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
