"""What the running script declares, as the machinery sees it, and the config of the seeds' class.

State, reconciliation, groups and ranks see a config through the `Config` protocol alone: named
entries, and a curve for each field. They never ask which entries and fields there are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from dist_sched._config.plan import Field, Inventory, Plan
from dist_sched._config.policy import Policy
from dist_sched._curves import megatron
from dist_sched._curves.lint import Finding, end_of_run, idle_start
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
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dist_sched._config.history import Change

UNITS = ("steps", "samples", "tokens")
unit_word = one_of(UNITS)


class _Absence(Enum):
    ABSENT = "absent"


ABSENT = _Absence.ABSENT
"""What a side has for an entry that it lacks; not None, which an entry may be."""


class Misfit(ConfigError):  # noqa: N818 - a ConfigError that knows more
    """A part of a saved config is illegal; the message does not name it."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.part = part
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}"


class InexpressibleChangeError(ConfigError):
    """The entries of `OptimizerParamScheduler` cannot express a late change."""

    def __init__(self, change: Change, reason: str) -> None:
        super().__init__(change, reason)
        self.change = change
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.change}: {OptimizerParamConfig.KIND} cannot express it, {self.reason}: "
            "schedule with ParamScheduler"
        )


class Sides(NamedTuple):
    """What config and checkpoint have for one entry."""

    config: Any
    checkpoint: Any
    field: str = "lr"
    """Whose curve the entry is part of."""


class Config(Protocol):
    """What the machinery asks of a config, whatever its entries and fields are."""

    KIND: ClassVar[str]
    """The scheduler that it is for."""
    TEXT_NAME: ClassVar[str]
    """What it is called in the text of a checkpoint state."""
    STATE_KEYS: ClassVar[tuple[str, ...]]
    """Entries that also stand in the checkpoint state under their own names, for the seeds."""

    @classmethod
    def check_entry(cls, name: str, value: object) -> Entry:
        """Check one of `STATE_KEYS` by itself and give it as a plain value."""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> dict[str, Any]:
        """Check, part by part, what `told` once gave, or raise a `Misfit`."""

    @classmethod
    def of_parts(cls, read: Mapping[str, Any]) -> Config:
        """Build a config of what was read, or raise a ConfigError."""

    def parts(self) -> dict[str, Any]:
        """Give what `of_parts` takes."""

    def told(self) -> dict[str, Any]:
        """Give the whole as data for JSON."""

    def entries(self) -> dict[str, Any]:
        """Give the entries by name."""

    def summary(self) -> dict[str, str]:
        """Say in a line each what is scheduled, for people."""

    def sides(self, theirs: Mapping[str, Any]) -> dict[str, Sides]:
        """Give what this config and what was read of a checkpoint have, entry by entry."""

    def united(self, other: Any, inventory: Inventory) -> Config:
        """Give this config, with what another rank's has and this rank's groups have no use for."""

    def merged(self, theirs: Mapping[str, Any], used: Mapping[str, Any]) -> Config:
        """Build a config of the entries to use, named as in `sides`, or raise a ConfigError."""

    def parse_policy(
        self,
        policy: str | Mapping[str, str] | None,
        *,
        use_checkpoint: bool | None = True,
        override: bool | None = False,
    ) -> Policy:
        """Parse a policy for this config's entries, or raise a ConfigError."""

    def unused(self) -> frozenset[str]:
        """Name the entries that have no influence on this config's megatron."""

    def plan(self) -> Plan:
        """Give the curve of each field."""

    def changed(self, change: Change) -> Config:
        """Give the config that a late change makes of this one, or raise a ConfigError."""

    def lint(self, *, updates: int | None = None, increment: Number = 1) -> tuple[Finding, ...]:
        """Name what is legal and yet probably not meant."""


def _fitting(name: str, rule: Callable[[str, object], Entry], value: object) -> Entry:
    try:
        return rule(name, value)
    except ConfigError as error:
        raise Misfit(name, str(error)) from error


def with_history(config: Config, history: Iterable[Change]) -> Config:
    """Give the config that late changes make of one."""
    for change in history:
        config = config.changed(change)
    return config


_TAIL_STYLES = {
    "linear": "linear",
    "cosine": "cosine",
    "halving": "exponential",
    "minus_sqrt": "minus_sqrt",
}
"""What the seeds call a shape, as a WSD tail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerParamConfig:
    """The entries of `OptimizerParamScheduler`, checked one by one and as a whole when built.

    Rates are fractions of nothing but themselves (the optimizer's own lr and wd are not read);
    lengths are in the scheduler's unit.

    Raises:
        ConfigError: Naming every entry that breaks a rule, its value and the rule.
    """

    init_lr: float
    """Learning rate at position 0 where there is a warmup; at most `max_lr`."""
    max_lr: float
    """Peak learning rate, at least `min_lr`."""
    min_lr: float
    """Learning rate at and past the horizon."""
    lr_warmup_steps: float
    """Length of the linear warmup; less than `lr_decay_steps`, 0 for none."""
    lr_decay_steps: float
    """The horizon: the position at which the decay ends, warmup included."""
    lr_decay_style: str
    """constant, linear, cosine, inverse-square-root or WSD."""
    start_wd: float
    """Weight decay at position 0."""
    end_wd: float
    """Weight decay from `wd_incr_steps` on, at least `start_wd`."""
    wd_incr_steps: float
    """Length of the rise in weight decay; 0 means `end_wd` throughout."""
    wd_incr_style: str
    """constant, linear or cosine."""
    wsd_decay_steps: float | None = None
    """Length of the WSD tail, which ends at the horizon; for WSD only."""
    lr_wsd_decay_style: str | None = None
    """linear, cosine, exponential or minus_sqrt; for WSD only."""

    RULES: ClassVar[dict[str, Callable[[str, object], Entry]]] = {
        "init_lr": rate,
        "max_lr": rate,
        "min_lr": rate,
        "lr_warmup_steps": length,
        "lr_decay_steps": length,
        "lr_decay_style": one_of(megatron.LR_DECAY_STYLES),
        "start_wd": rate,
        "end_wd": rate,
        "wd_incr_steps": length,
        "wd_incr_style": one_of(megatron.WD_INCR_STYLES),
        "wsd_decay_steps": optional(length),
        "lr_wsd_decay_style": optional(one_of(megatron.LR_WSD_DECAY_STYLES)),
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
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("lr", high="max_lr", low="min_lr", multiplier="lr_mult", is_added=True),
        Field("weight_decay", high="end_wd", low="start_wd", multiplier="wd_mult", is_added=True),
    )
    WD_ENTRIES: ClassVar[tuple[str, ...]] = (
        "start_wd",
        "end_wd",
        "wd_incr_steps",
        "wd_incr_style",
    )

    def __post_init__(self) -> None:
        problems = []
        for name in self.entry_names():
            try:
                object.__setattr__(self, name, self.check_entry(name, getattr(self, name)))
            except ConfigError as problem:
                problems.append(str(problem))
        refuse(problems)
        refuse(list(self._broken_rules()))

    @classmethod
    def entry_names(cls) -> tuple[str, ...]:
        """Name the entries, in order."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def check_entry(cls, name: str, value: object) -> Entry:
        """Check one entry by itself and give it as a plain value."""
        return cls.RULES[name](name, value)

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> OptimizerParamConfig:
        """Build a config from a mapping of entry names, strict about the names."""
        known = cls.entry_names()
        optional_names = {"wsd_decay_steps", "lr_wsd_decay_style"}
        refuse(
            [
                f"{name!r} is not an entry{near_miss(name, known)}"
                for name in entries
                if name not in known
            ]
            + [f"{name} is missing" for name in known if name not in {*entries, *optional_names}]
        )
        return cls(**entries)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> dict[str, Entry]:
        """Check, entry by entry, what `told` once gave.

        Raises:
            Misfit: An entry is missing, unknown or illegal by itself.
        """
        known = set(cls.entry_names())
        for name in sorted(told.keys() ^ known, key=str):
            reason = "is missing" if name in known else "is not known to this release"
            raise Misfit(str(name), reason)
        return {name: _fitting(name, cls.check_entry, told[name]) for name in cls.entry_names()}

    @classmethod
    def of_parts(cls, read: Mapping[str, Any]) -> OptimizerParamConfig:
        """Build a config of what was read."""
        return cls.from_entries(read)

    def parts(self) -> dict[str, Entry]:
        """Give what `of_parts` takes."""
        return self.entries()

    def told(self) -> dict[str, Entry]:
        """Give the whole as data for JSON."""
        return self.entries()

    def entries(self) -> dict[str, Entry]:
        """Give the entries by name."""
        return asdict(self)

    def summary(self) -> dict[str, str]:
        """Say in a line each what is scheduled, for people."""
        return {name: repr(value) for name, value in self.entries().items()}

    def sides(self, theirs: Mapping[str, Any]) -> dict[str, Sides]:
        """Give what this config and what was read of a checkpoint have, entry by entry."""
        return {
            name: Sides(
                mine,
                theirs.get(name, ABSENT),
                "weight_decay" if name in self.WD_ENTRIES else "lr",
            )
            for name, mine in self.entries().items()
        }

    def united(self, other: Any, inventory: Inventory) -> OptimizerParamConfig:  # noqa: ARG002
        """Give this config: its entries are for the groups of every rank."""
        return self

    def merged(self, theirs: Mapping[str, Any], used: Mapping[str, Any]) -> OptimizerParamConfig:  # noqa: ARG002
        """Build a config of the entries to use."""
        return self.from_entries(used)

    def parse_policy(
        self,
        policy: str | Mapping[str, str] | None,
        *,
        use_checkpoint: bool | None = True,
        override: bool | None = False,
    ) -> Policy:
        """Parse a policy, which may name these entries only."""
        return Policy.parse(
            policy,
            self.entry_names(),
            lambda _: False,
            use_checkpoint=use_checkpoint,
            override=override,
        )

    def unused(self) -> frozenset[str]:
        """Name the entries that have no influence on this config's megatron."""
        names = {"wsd_decay_steps", "lr_wsd_decay_style"}
        return frozenset(() if self.lr_decay_style == "WSD" else names)

    def plan(self) -> Plan:
        """Give the curve of each field."""
        return Plan.of(self.FIELDS, (self.lr_curve(), self.wd_curve()))

    def lr_curve(self) -> megatron.LrCurve:
        """Give the curve of the learning rate."""
        return megatron.LrCurve(
            start=self.init_lr,
            max_value=self.max_lr,
            min_value=self.min_lr,
            warmup=self.lr_warmup_steps,
            horizon=self.lr_decay_steps,
            style=self.lr_decay_style,
            decay=self.wsd_decay_steps or 0,
            decay_style=self.lr_wsd_decay_style or "linear",
        )

    def wd_curve(self) -> megatron.WdCurve:
        """Give the curve of the weight decay."""
        return megatron.WdCurve(
            max_value=self.end_wd,
            min_value=self.start_wd,
            length=self.wd_incr_steps,
            style=self.wd_incr_style,
        )

    def changed(self, change: Change) -> OptimizerParamConfig:
        """Give the config that a late change makes of this one.

        Raises:
            ConfigError: These entries cannot express it, or it is illegal.
        """
        if change.field == "lr" and change.operation == "cooldown":
            return self._cooled(change, **change.arguments)
        if change.field == "lr" and change.operation == "extend":
            return self._extended(**change.arguments)
        raise InexpressibleChangeError(change, "as its entries have no place for it")

    def _cooled(
        self, change: Change, *, steps: Number, shape: str, end: float | None, **_: Any
    ) -> OptimizerParamConfig:
        style = _TAIL_STYLES.get(shape)
        if style is None:
            raise InexpressibleChangeError(
                change, f"as its tail must be one of {listed(_TAIL_STYLES)}"
            )
        is_stable = self.lr_decay_style in {"constant", "WSD"} and change.position >= (
            self.lr_warmup_steps
        )
        begun = self.lr_decay_steps - (self.wsd_decay_steps or 0)
        if not is_stable or (self.lr_decay_style == "WSD" and change.position > begun):
            raise InexpressibleChangeError(
                change, "as it can only begin where lr is constant at max_lr"
            )
        return replace(
            self,
            lr_decay_style="WSD",
            lr_decay_steps=change.position + steps,
            wsd_decay_steps=steps,
            lr_wsd_decay_style=style,
            min_lr=self.min_lr if end is None else end,
        )

    def _extended(self, *, horizon: Number, **_: Any) -> OptimizerParamConfig:
        if horizon <= self.lr_decay_steps:
            rule = f"must be more than the present lr_decay_steps={self.lr_decay_steps!r}"
            raise illegal("horizon", horizon, rule)
        return replace(self, lr_decay_steps=horizon)

    def lint(self, *, updates: int | None = None, increment: Number = 1) -> tuple[Finding, ...]:
        """Name what is legal and yet probably not meant.

        Args:
            updates: Length of the run in optimizer updates, to be compared with the horizon.
            increment: Units that an update completes.
        """
        lr = self.lr_curve()
        found = [*idle_start(lr), *self._odd_tail(lr), *self._cliff(lr)]
        if updates is not None and self.lr_decay_style != "constant":
            found += end_of_run(lr, self.lr_decay_steps, updates, increment)
        return tuple(
            Finding(finding.position, f"lr: {finding.message}")
            for finding in sorted(found, key=lambda finding: finding.position)
        )

    def _odd_tail(self, lr: Callable[[int], float]) -> Iterator[Finding]:
        """Name a WSD tail that begins in the warmup, so that lr jumps where the warmup ends."""
        if self.lr_decay_style != "WSD" or self.wsd_decay_steps is None:
            return
        begin, warmup = self.lr_decay_steps - self.wsd_decay_steps, self.lr_warmup_steps
        if self.wsd_decay_steps == 0:
            yield Finding(begin, "the WSD tail has length 0")
        if begin < warmup:
            after = int(warmup) + 1
            yield Finding(
                warmup,
                f"the WSD tail begins at {begin:g} and overlaps the warmup: jumps from "
                f"{lr(int(warmup)):g} to {lr(after):g} where the warmup ends",
            )

    def _cliff(self, lr: Callable[[int], float]) -> Iterator[Finding]:
        """Name the fall of the seeds' inverse square root, one unit past the horizon."""
        last, after = lr(int(self.lr_decay_steps)), lr(int(self.lr_decay_steps) + 1)
        if self.lr_decay_style == "inverse-square-root" and last != after:
            yield Finding(
                self.lr_decay_steps,
                f"jumps from {last:g} to {after:g} past the horizon, as the style "
                "inverse-square-root does in the seeds",
            )

    def _broken_rules(self) -> Iterator[str]:
        """Say which rules between entries are broken."""
        yield from self._above("min_lr", "max_lr")
        yield from self._above("init_lr", "max_lr")
        yield from self._above("start_wd", "end_wd")
        if self.lr_decay_steps == 0:
            yield f"lr_decay_steps={self.lr_decay_steps!r}: must be greater than 0"
        elif self.lr_warmup_steps >= self.lr_decay_steps:
            yield (
                f"lr_warmup_steps={self.lr_warmup_steps!r}: must be less than "
                f"lr_decay_steps={self.lr_decay_steps!r}"
            )
        if self.wd_incr_style == "constant" and self.start_wd != self.end_wd:
            yield (
                f"start_wd={self.start_wd!r}: must, for wd_incr_style='constant', equal "
                f"end_wd={self.end_wd!r}"
            )
        if self.lr_decay_style == "WSD":
            yield from self._broken_wsd_rules()

    def _broken_wsd_rules(self) -> Iterator[str]:
        required = "is required for lr_decay_style='WSD'"
        if self.wsd_decay_steps is None:
            yield f"wsd_decay_steps=None: {required}: give the length of the tail"
        else:
            yield from self._above("wsd_decay_steps", "lr_decay_steps")
        if self.lr_wsd_decay_style is None:
            styles = listed(megatron.LR_WSD_DECAY_STYLES)
            yield f"lr_wsd_decay_style=None: {required}: give one of {styles}"

    def _above(self, name: str, limit: str) -> Iterator[str]:
        found, most = getattr(self, name), getattr(self, limit)
        if found > most:
            yield f"{name}={found!r}: must be at most {limit}={most!r}"
