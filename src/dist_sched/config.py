"""What the running script declares: the entries, their rules, and who wins for each of them.

A config is a flat set of named entries. The machinery (state, reconciliation, groups) sees it
through the `Config` protocol alone and never asks which entries there are.
"""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol

from dist_sched import curves
from dist_sched.errors import ConfigError

Entry = int | float | str | None

MAX_LENGTH = 2**53
"""The largest length and position: beyond it a float no longer tells neighbours apart."""

UNITS = ("steps", "samples", "tokens")
CHECKPOINT, CONFIG, STRICT = POLICY_WORDS = ("checkpoint", "config", "strict")
REST = "*"

SHOWN = 200
"""Characters of an illegal value that a message shows."""


@dataclass(frozen=True, slots=True)
class Field:
    """A param-group key that is scheduled, and the keys by which a group changes its schedule."""

    key: str
    high: str
    """Key of a group's own upper bound; the name of a config entry too."""
    low: str
    """Key of a group's own lower bound; the name of a config entry too."""
    multiplier: str
    """Key of a factor that a group puts on the value."""

    def is_overridden(self, group: Mapping[str, object]) -> bool:
        """Tell whether a group has a bound or multiplier of its own."""
        return self.high in group or self.low in group or self.multiplier in group


class Config(Protocol):
    """What the machinery asks of a config, whatever its entries are."""

    STATE_KEYS: ClassVar[tuple[str, ...]]
    """Entries that also stand in the checkpoint state under their own names, for the seeds."""
    FIELDS: ClassVar[tuple[Field, ...]]

    @classmethod
    def entry_names(cls) -> tuple[str, ...]:
        """Name the entries, in order."""

    @classmethod
    def check_entry(cls, name: str, value: object) -> Entry:
        """Check one entry by itself and give it as a plain value, or raise a ConfigError."""

    @classmethod
    def from_entries(cls, entries: Mapping[str, object]) -> Config:
        """Build a config from a mapping of entry names, or raise a ConfigError."""

    def entries(self) -> dict[str, Entry]:
        """Give the entries by name."""

    def unused(self) -> frozenset[str]:
        """Name the entries that have no influence on this config's curves."""

    def curves(self) -> tuple[curves.Curve, ...]:
        """Give the curve of each of `FIELDS`, in that order."""


def plain(value: object) -> object:
    """Turn a numpy or 0-dim tensor scalar into the Python number that it holds."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except RuntimeError:  # a tensor without data, on the meta device
        return value


def number(name: str, value: object) -> int | float:
    """Check one finite number >= 0 and give it as a plain int or float.

    Raises:
        ConfigError: It is something else.
    """
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        raise _illegal(name, value, "must be a number")
    try:
        exact = int(found) if isinstance(found, numbers.Integral) else float(found)
        is_legal = exact >= 0 and math.isfinite(exact)
    except OverflowError:
        is_legal = False
    if not is_legal:
        raise _illegal(name, value, "must be a finite number >= 0")
    return exact


def rate(name: str, value: object) -> float:
    """Check a finite number >= 0 and give it as a float."""
    return float(number(name, value))


def length(name: str, value: object) -> int | float:
    """Check a length in units; fractions are legal, as Megatron's warmup fraction gives such."""
    found = number(name, value)
    if found > MAX_LENGTH:
        raise _illegal(name, value, "must be at most 2**53 units")
    return found


def whole(name: str, value: object) -> int:
    """Check a whole number of units, such as a position or an increment.

    >>> whole("position", 7)
    7
    """
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, numbers.Integral):
        raise _illegal(name, value, "must be a whole number of units")
    found = operator.index(found)
    if not 0 <= found <= MAX_LENGTH:
        raise _illegal(name, value, "must be from 0 to 2**53 units")
    return found


def one_of(words: tuple[str, ...]) -> Callable[[str, object], str]:
    """Make the rule that a value is one of some words."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise _illegal(name, value, f"must be one of {_listed(words)}{near_miss(value, words)}")
        return str(value)

    return check


def optional(rule: Callable[[str, object], Entry]) -> Callable[[str, object], Entry]:
    """Make a rule that admits None too."""

    def check(name: str, value: object) -> Entry:
        return None if value is None else rule(name, value)

    return check


def flag(name: str, value: object) -> bool:
    """Check a bool."""
    if not isinstance(value, bool):
        raise _illegal(name, value, "must be True or False")
    return value


def near_miss(value: object, known: Iterable[str]) -> str:
    """Name the known word that was probably meant, or give an empty text."""
    close = difflib.get_close_matches(str(value)[:100], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(repr(word) for word in words)


def _illegal(name: str, value: object, rule: str) -> ConfigError:
    return ConfigError(f"{name}={_shown(value)}: {rule}")


def _shown(value: object) -> str:
    """Give a value's repr, cut short, since a checkpoint can hold anything."""
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - a number of over 4,300 digits, for one
        return f"({type(value).__name__})"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


unit_word = one_of(UNITS)


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
        "lr_decay_style": one_of(curves.LR_DECAY_STYLES),
        "start_wd": rate,
        "end_wd": rate,
        "wd_incr_steps": length,
        "wd_incr_style": one_of(curves.WD_INCR_STYLES),
        "wsd_decay_steps": optional(length),
        "lr_wsd_decay_style": optional(one_of(curves.LR_WSD_DECAY_STYLES)),
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
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("lr", high="max_lr", low="min_lr", multiplier="lr_mult"),
        Field("weight_decay", high="end_wd", low="start_wd", multiplier="wd_mult"),
    )

    def __post_init__(self) -> None:
        problems = []
        for name in self.entry_names():
            try:
                object.__setattr__(self, name, self.check_entry(name, getattr(self, name)))
            except ConfigError as problem:
                problems.append(str(problem))
        _refuse(problems)
        _refuse(list(self._broken_rules()))

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
        _refuse(
            [
                f"{name!r} is not an entry{near_miss(name, known)}"
                for name in entries
                if name not in known
            ]
            + [f"{name} is missing" for name in known if name not in {*entries, *optional_names}]
        )
        return cls(**entries)

    def entries(self) -> dict[str, Entry]:
        """Give the entries by name."""
        return asdict(self)

    def unused(self) -> frozenset[str]:
        """Name the entries that have no influence on this config's curves."""
        names = {"wsd_decay_steps", "lr_wsd_decay_style"}
        return frozenset(() if self.lr_decay_style == "WSD" else names)

    def curves(self) -> tuple[curves.LrCurve, curves.WdCurve]:
        """Give the curve of each of `FIELDS`, in that order."""
        lr = curves.LrCurve(
            start=self.init_lr,
            high=self.max_lr,
            low=self.min_lr,
            warmup=self.lr_warmup_steps,
            horizon=self.lr_decay_steps,
            style=self.lr_decay_style,
            tail=self.wsd_decay_steps or 0,
            tail_style=self.lr_wsd_decay_style or "linear",
        )
        wd = curves.WdCurve(
            high=self.end_wd,
            low=self.start_wd,
            length=self.wd_incr_steps,
            style=self.wd_incr_style,
        )
        return lr, wd

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
            styles = _listed(curves.LR_WSD_DECAY_STYLES)
            yield f"lr_wsd_decay_style=None: {required}: give one of {styles}"

    def _above(self, name: str, limit: str) -> Iterator[str]:
        found, most = getattr(self, name), getattr(self, limit)
        if found > most:
            yield f"{name}={found!r}: must be at most {limit}={most!r}"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("; ".join(problems))


@dataclass(frozen=True, slots=True)
class Policy:
    """Who wins for each config entry where script and checkpoint differ."""

    words: Mapping[str, str]
    """A word for each entry, with `"*"` for those that are not named."""

    @classmethod
    def parse(
        cls,
        policy: str | Mapping[str, str] | None,
        entry_names: tuple[str, ...],
        *,
        use_checkpoint: bool | None = True,
        override: bool | None = False,
    ) -> Policy:
        """Read the `policy` argument, or else the seeds' two booleans.

        Raises:
            ConfigError: An unknown entry or word, entries left without a word, or booleans that
                contradict each other or stand beside a policy.
        """
        booleans = ("use_checkpoint_opt_param_scheduler", "override_opt_param_scheduler")
        for name, value in zip(booleans, (use_checkpoint, override), strict=True):
            optional(flag)(name, value)
        if use_checkpoint and override:
            message = "both override and use-checkpoint are set."
            raise ConfigError(
                f"{message} Set one of {' and '.join(booleans)} to False, or use policy="
            )
        if policy is None:
            return cls({REST: CONFIG if override else CHECKPOINT if use_checkpoint else STRICT})
        if not use_checkpoint or override:
            raise ConfigError(
                f"policy={policy!r} replaces {' and '.join(booleans)}: leave those out"
            )
        words = {REST: policy} if isinstance(policy, str) else policy
        _check_words(words, entry_names)
        return cls(dict(words))

    def word(self, entry: str) -> str:
        """Give the word for an entry; what no word was given for follows the checkpoint."""
        return self.words.get(entry, self.words.get(REST, CHECKPOINT))


def _check_words(words: object, entry_names: tuple[str, ...]) -> None:
    if not isinstance(words, Mapping):
        raise _illegal("policy", words, f"must be one of {_listed(POLICY_WORDS)} or a mapping")
    problems = [
        f"policy names {entry!r}, which is not an entry{near_miss(entry, entry_names)}"
        for entry in words
        if entry not in (*entry_names, REST)
    ]
    unknown = [entry for entry, word in words.items() if word not in POLICY_WORDS]
    problems += [
        f"policy={words[entry]!r} for {entry!r}: must be one of {_listed(POLICY_WORDS)}"
        + near_miss(words[entry], POLICY_WORDS)
        for entry in unknown
    ]
    unnamed = [entry for entry in entry_names if entry not in words]
    if unnamed and REST not in words:
        problems.append(f"policy has no word for {', '.join(unnamed)}: name them, or add '*'")
    _refuse(problems)
