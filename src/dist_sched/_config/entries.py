"""The entries of `OptimizerParamScheduler`, with the rules for single and combined entries."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from dist_sched._config.config import ABSENT, Config, Sides, fitting
from dist_sched._config.path import Path
from dist_sched._config.plan import Field, Plan
from dist_sched._curves.lint import (
    Finding,
    end_of_run,
    idle_start,
    other_end,
    short_horizon,
    short_phase,
)
from dist_sched._curves.megatron import (
    LR_DECAY_STYLES,
    LR_WSD_DECAY_STYLES,
    WD_INCR_STYLES,
    LrCurve,
    WdCurve,
)
from dist_sched._rules import (
    Entry,
    Number,
    illegal,
    length,
    listed,
    near_miss,
    one_of,
    optional,
    rate,
    refuse,
    shown,
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dist_sched._config.history import Change
    from dist_sched._curves.curve import Bounded


class InexpressibleChangeError(ConfigError):
    """The entries of `OptimizerParamScheduler` cannot express a late change."""

    def __init__(self, change: Change, reason: str) -> None:
        super().__init__(change, reason)
        self.change = change
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.change}: {OptimizerParamConfig.KIND} cannot do this, because {self.reason}; "
            "use ParamScheduler"
        )


_TAIL_STYLES = {
    "linear": "linear",
    "cosine": "cosine",
    # Megatron's is 2 * 0.5**t - 1, which is not what others call an exponential decay.
    "halving": "exponential",
    "minus_sqrt": "minus_sqrt",
}
"""Megatron's names of shapes, for a WSD decay."""
_FIELDS = (
    # Megatron and NeMo write both into every group, even if it did not have them.
    Field("lr", "max_lr", "min_lr", "lr_mult", is_added=True),
    Field("weight_decay", "end_wd", "start_wd", "wd_mult", is_added=True),
)
_RATES = {"lr": ("init_lr", "max_lr", "min_lr"), "weight_decay": ("start_wd", "end_wd")}
"""The entries that are values of a field."""
_WD_ENTRIES = ("start_wd", "end_wd", "wd_incr_steps", "wd_incr_style")
_WSD_ENTRIES = ("wsd_decay_steps", "lr_wsd_decay_style")


def _same(curve: Bounded) -> Bounded:
    return curve


@dataclass(frozen=True, kw_only=True)
class OptimizerParamConfig(Config):
    """The entries of `OptimizerParamScheduler`. They are checked when it is built.

    Lengths are in the scheduler's unit.

    Raises:
        ConfigError: Entries break a rule. The message has each such entry, its value and the rule.
    """

    init_lr: float
    """Learning rate at position 0 if there is a warmup, at most `max_lr`."""
    max_lr: float
    """Peak learning rate, at least `min_lr`."""
    min_lr: float
    """Learning rate at the horizon and after it."""
    lr_warmup_steps: float
    """Length of the linear warmup, less than `lr_decay_steps`. 0 for no warmup."""
    lr_decay_steps: float
    """The horizon: the position at which the decay ends, including the warmup."""
    lr_decay_style: str
    """constant, linear, cosine, inverse-square-root or WSD."""
    start_wd: float
    """Weight decay at position 0."""
    end_wd: float
    """Weight decay from `wd_incr_steps` on, at least `start_wd`."""
    wd_incr_steps: float
    """Length of the rise of weight decay. With 0 it is always `end_wd`."""
    wd_incr_style: str
    """constant, linear or cosine."""
    wsd_decay_steps: float | None = None
    """Length of the WSD decay, which ends at the horizon. For WSD only."""
    lr_wsd_decay_style: str | None = None
    """linear, cosine, exponential or minus_sqrt. For WSD only."""

    RULES: ClassVar[dict[str, Callable[[str, object], Entry]]] = {
        "init_lr": rate,
        "max_lr": rate,
        "min_lr": rate,
        "lr_warmup_steps": length,
        "lr_decay_steps": length,
        "lr_decay_style": one_of(LR_DECAY_STYLES),
        "start_wd": rate,
        "end_wd": rate,
        "wd_incr_steps": length,
        "wd_incr_style": one_of(WD_INCR_STYLES),
        "wsd_decay_steps": optional(length),
        "lr_wsd_decay_style": optional(one_of(LR_WSD_DECAY_STYLES)),
    }
    STATE_KEYS: ClassVar[tuple[str, ...]] = (
        "max_lr",
        "lr_warmup_steps",
        "lr_decay_style",
        "lr_decay_steps",
        "min_lr",
        "start_wd",
        "end_wd",
        "wd_incr_style",
        "wd_incr_steps",
    )
    KIND: ClassVar[str] = "OptimizerParamScheduler"
    TEXT_NAME: ClassVar[str] = "config"

    def __post_init__(self) -> None:
        # All problems in one error, because each attempt may wait in a cluster's queue.
        problems = []
        for name in self.entry_names():
            try:
                object.__setattr__(self, name, self.check_entry(name, getattr(self, name)))
            except ConfigError as problem:
                problems.append(str(problem))
        # Separately, because rules between entries need valid entries.
        refuse(problems)
        refuse(self._broken_rules())

    @classmethod
    def entry_names(cls) -> tuple[str, ...]:
        """Return the names of the entries, in order."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def check_entry(cls, name: str, value: object) -> Entry:
        """Return one entry as a plain value, or raise a ConfigError."""
        return cls.RULES[name](name, value)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any]) -> OptimizerParamConfig:
        """Build a config from its entries. Only the WSD entries may be missing."""
        known = cls.entry_names()
        unknown = (name for name in parts if name not in known)
        missing = (name for name in known if name not in {*parts, *_WSD_ENTRIES})
        refuse(
            itertools.chain(
                (f"{shown(name)} is not an entry{near_miss(name, known)}" for name in unknown),
                (f"{name} is missing" for name in missing),
            )
        )
        return cls(**parts)

    @classmethod
    def _read_part(cls, name: str, data: Any) -> Entry:
        return fitting(name, cls.check_entry, name, data)

    def summary(self) -> dict[str, str]:
        """Return the entries as text."""
        return {name: repr(value) for name, value in self.parts().items()}

    def compare(self, saved: Mapping[str, Any]) -> dict[Path, Sides]:
        """Return this config's and a checkpoint's values, entry by entry."""
        # Foreign states may lack entries, such as Megatron's from before WSD.
        return {
            Path(name): Sides(
                mine, saved.get(name, ABSENT), "weight_decay" if name in _WD_ENTRIES else "lr"
            )
            for name, mine in self.parts().items()
        }

    def merge(
        self,
        saved: Mapping[str, Any],  # noqa: ARG002 - a specification needs it
        used: Mapping[Path, Any],
    ) -> OptimizerParamConfig:
        """Build a config from the entries to use, or return this one if they are the same."""
        parts = {path.field: value for path, value in used.items()}
        # The same object keeps its plan.
        return self if parts == self.parts() else self.from_parts(parts)

    def unused(self) -> frozenset[Path]:
        """Return the entries without an effect on the curves."""
        return frozenset(() if self.lr_decay_style == "WSD" else map(Path, _WSD_ENTRIES))

    def _build_plan(self) -> Plan:
        lr = LrCurve(
            start=self.init_lr,
            max_value=self.max_lr,
            min_value=self.min_lr,
            warmup=self.lr_warmup_steps,
            horizon=self.lr_decay_steps,
            style=self.lr_decay_style,
            decay=self.wsd_decay_steps or 0,
            decay_style=self.lr_wsd_decay_style or "linear",
            end_share=self._end_share(),
            factor=self._factor("lr"),
        )
        weight_decay = WdCurve(
            max_value=self.end_wd,
            min_value=self.start_wd,
            length=self.wd_incr_steps,
            style=self.wd_incr_style,
            factor=self._factor("weight_decay"),
        )
        curves = lr, weight_decay
        return Plan.of(
            _FIELDS, curves, bounded=(partial(_same, curve) for curve in curves), follows_first=True
        )

    def _end_share(self) -> float | None:
        """Return the `end` of the last cooldown that had one, as a fraction of `max_lr`."""
        shares = [
            end / config.max_lr
            for config, change in self.made_by()
            if (end := change.arguments.get("end")) is not None and config.max_lr
        ]
        return shares[-1] if shares else None

    def _factor(self, field: str) -> float:
        """Return the factor by which late changes multiply a field in groups with bounds."""
        changes = (change for _, change in self.made_by() if change.field == field)
        factors: Iterator[float] = (change.arguments.get("factor", 1.0) for change in changes)
        return math.prod(factors)

    def _changed(self, change: Change) -> OptimizerParamConfig:
        """Return the config after a late change.

        Raises:
            InexpressibleChangeError: These entries cannot express the change.
            ConfigError: The change is invalid.
        """
        if change.operation == "scale" and change.field in _RATES:
            scaled = {
                name: getattr(self, name) * change.arguments["factor"]
                for name in _RATES[change.field]
            }
            return replace(self, **scaled)
        if change.field == "lr" and change.operation == "cooldown":
            return self._cooled(change)
        if change.field != "lr" or change.operation != "extend":
            raise InexpressibleChangeError(change, "its entries cannot express this change")
        horizon = change.arguments["horizon"]
        if horizon <= self.lr_decay_steps:
            rule = f"must be more than the present lr_decay_steps={self.lr_decay_steps!r}"
            raise illegal("horizon", horizon, rule)
        if change.arguments.get("keep") and not self._is_stable(change.position):
            reason = "its entries cannot express a decay that was stretched half-way"
            raise InexpressibleChangeError(change, reason)
        return replace(self, lr_decay_steps=horizon)

    def _is_stable(self, position: int) -> bool:
        """Return whether a longer horizon does not change lr at a position."""
        tail_begins = self.lr_decay_steps - (self.wsd_decay_steps or 0)
        return (
            position <= self.lr_warmup_steps
            or self.lr_decay_style == "constant"
            or (self.lr_decay_style == "inverse-square-root" and position <= self.lr_decay_steps)
            or (self.lr_decay_style == "WSD" and position <= tail_begins)
        )

    def _cooled(self, change: Change) -> OptimizerParamConfig:
        style = _TAIL_STYLES.get(change.arguments["shape"])
        if style is None:
            reason = f"the shape of its decay must be one of {listed(_TAIL_STYLES)}"
            raise InexpressibleChangeError(change, reason)
        # Megatron's decay starts at max_lr. From another value, lr would jump to max_lr first.
        tail_begins = self.lr_decay_steps - (self.wsd_decay_steps or 0)
        is_stable = change.position >= self.lr_warmup_steps and (
            self.lr_decay_style == "constant"
            or (self.lr_decay_style == "WSD" and change.position <= tail_begins)
        )
        if not is_stable:
            reason = "its decay can only begin while lr is constant at max_lr"
            raise InexpressibleChangeError(change, reason)
        steps, end = change.arguments["steps"], change.arguments["end"]
        return replace(
            self,
            lr_decay_style="WSD",
            lr_decay_steps=change.position + steps,
            wsd_decay_steps=steps,
            lr_wsd_decay_style=style,
            min_lr=self.min_lr if end is None else end,
        )

    def _findings(self, updates: int | None, increment: Number) -> Iterator[tuple[Path, Finding]]:
        lr, weight_decay = self.plan.curves
        found = [*idle_start(lr), *self._odd_tail(lr), *self._cliff(lr)]
        found += self._short_phases(increment)
        if self.lr_decay_style != "constant":
            found += short_horizon(self.lr_decay_steps, increment)
            if updates is not None:
                found += end_of_run(lr, self.lr_decay_steps, updates, increment)
        yield from ((Path("lr"), finding) for finding in found)
        rise = self.wd_incr_steps
        if self.start_wd != self.end_wd and rise > 0:
            found = [*short_phase("the rise (wd_incr_steps)", 0, rise, increment)]
            # A constant lr has no end.
            if self.lr_decay_style != "constant":
                found += other_end(weight_decay, rise, self.lr_decay_steps)
            yield from ((Path("weight_decay"), finding) for finding in found)

    def _short_phases(self, increment: Number) -> Iterator[Finding]:
        """Yield a warning if the warmup or the WSD decay is shorter than one update."""
        yield from short_phase("the warmup (lr_warmup_steps)", 0, self.lr_warmup_steps, increment)
        if self.lr_decay_style == "WSD" and self.wsd_decay_steps is not None:
            tail = self.wsd_decay_steps
            begin = self.lr_decay_steps - tail
            yield from short_phase("the WSD decay (wsd_decay_steps)", begin, tail, increment)

    def _odd_tail(self, lr: Callable[[int], float]) -> Iterator[Finding]:
        """Yield a warning if a WSD decay begins during the warmup, because lr then jumps."""
        if self.lr_decay_style != "WSD" or self.wsd_decay_steps is None:
            return
        begin, warmup = self.lr_decay_steps - self.wsd_decay_steps, self.lr_warmup_steps
        if self.wsd_decay_steps == 0:
            yield Finding(begin, "the WSD decay has length 0", "empty-phase")
        if begin < warmup:
            after = int(warmup) + 1
            yield Finding(
                warmup,
                f"the WSD decay begins at {begin:g}, during the warmup: the value jumps from "
                f"{lr(int(warmup)):g} to {lr(after):g} at the end of the warmup",
                "tail-in-warmup",
            )

    def _cliff(self, lr: Callable[[int], float]) -> Iterator[Finding]:
        """Yield a warning about Megatron's jump after the horizon of an inverse square root."""
        last, after = lr(int(self.lr_decay_steps)), lr(int(self.lr_decay_steps) + 1)
        if self.lr_decay_style == "inverse-square-root" and last != after:
            yield Finding(
                self.lr_decay_steps,
                f"jumps from {last:g} to {after:g} after the horizon, as in Megatron-LM's style "
                "inverse-square-root",
                "drop-past-horizon",
            )

    def _broken_rules(self) -> Iterator[str]:
        """Yield a text for each broken rule between entries."""
        yield from self._above("min_lr", "max_lr")
        yield from self._above("init_lr", "max_lr")
        yield from self._above("start_wd", "end_wd")
        # Megatron asserts these without a message.
        if self.lr_decay_steps == 0:
            yield f"lr_decay_steps={self.lr_decay_steps!r}: must be greater than 0"
        elif self.lr_warmup_steps >= self.lr_decay_steps:
            yield (
                f"lr_warmup_steps={self.lr_warmup_steps!r}: must be less than "
                f"lr_decay_steps={self.lr_decay_steps!r}"
            )
        # Megatron asserts this at the first step only.
        if self.wd_incr_style == "constant" and self.start_wd != self.end_wd:
            yield (
                f"start_wd={self.start_wd!r}: must be equal to end_wd={self.end_wd!r} for "
                "wd_incr_style='constant'"
            )
        if self.lr_decay_style != "WSD":
            return
        required = "is required for lr_decay_style='WSD'"
        if self.wsd_decay_steps is None:
            yield f"wsd_decay_steps=None: {required}; pass the length of the decay"
        else:
            yield from self._above("wsd_decay_steps", "lr_decay_steps")
        if self.lr_wsd_decay_style is None:
            styles = listed(LR_WSD_DECAY_STYLES)
            yield f"lr_wsd_decay_style=None: {required}; pass one of {styles}"

    def _above(self, name: str, limit: str) -> Iterator[str]:
        found, most = getattr(self, name), getattr(self, limit)
        if found > most:
            yield f"{name}={found!r}: must be at most {limit}={most!r}"
