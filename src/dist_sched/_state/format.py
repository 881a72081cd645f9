"""The checkpoint state: how a config and a position are written, and how a state is read.

A state is a flat dict of primitives: the keys of Megatron and NeMo, for them and for people, and
one JSON text, which is the authority. It is one value because DCP writes each key from whichever
rank it balances to: ranks that disagree leave a state mixed key by key; one value stays whole.

Version 2 adds extras, powers of proportions, and arguments of late changes to version 1. A state is
written in the lowest version that can express it, so that older releases load it wherever they can.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from dist_sched._config.config import Config, Misfit, unit_word, with_history
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.history import Change, History
from dist_sched._config.specification import Specification
from dist_sched._rules import SHOWN, Entry, brief, distinct, refuse_large, shown, whole
from dist_sched._state import foreign
from dist_sched.errors import ConfigError, StateError

if TYPE_CHECKING:
    from dist_sched._config.path import Path

VERSION = 2
"""The newest version that this release reads and writes."""
TEXT_KEY = "dist_sched"
POSITION_KEY = "num_steps"
UNIT_KEY = "unit"
_HISTORY_KEY = "lineage"
"""Of the late changes in the text: version 1 is frozen, so the key keeps its first name."""

OLD_NAMES = {
    "start_lr": "max_lr",
    "warmup_iter": "lr_warmup_steps",
    "warmup_steps": "lr_warmup_steps",
    "end_iter": "lr_decay_steps",
    "decay_steps": "lr_decay_steps",
    "decay_style": "lr_decay_style",
    "num_iters": POSITION_KEY,
}
"""Keys of older releases of Megatron-LM, by their present names."""

KINDS: tuple[type[Config], ...] = (OptimizerParamConfig, Specification)
"""The kinds of config that a state of ours may hold."""

DIST_SCHED = "dist_sched"
UPSTREAM = "OptimizerParamScheduler"
"""The format of Megatron-LM and NeMo AutoModel; nothing in a state says which of them wrote it."""

WD_KEYS = ("start_wd", "end_wd", "wd_incr_style", "wd_incr_steps")
"""Keys that the oldest states of Megatron-LM lack, all four together."""

_LONGEST = 1000
"""Characters of a reason, in which the names that a state has may stand."""

State = dict[str, int | float | str]
T = TypeVar("T")


# No slots, so that the saved config can be cached: it is asked for by the check of the history, the
# comparison of values and the command line.
@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint state says, after it was found to be well formed."""

    format: str = DIST_SCHED
    """Which library saved it."""
    kind: type[Config]
    """Whose parts it has."""
    parts: Mapping[str, Any]
    """Of the saved config; of a foreign state, the entries that it has."""
    position: int
    unit: str | None
    """None where the state is foreign: upstream does not save what a position counts."""
    history: History = ()
    """The late changes that were made, after which the curve is not the config's alone."""
    text: str | None = None
    """As it was saved; None where the state is foreign."""
    warnings: tuple[str, ...] = ()
    """What a person should know of this state before trusting it."""
    torn: tuple[str, ...] = ()
    """Keys that differ from the text, which is trusted."""
    values: Mapping[Path, float] = field(default_factory=dict)
    """The values that another scheduler had for the next update, where it says so."""

    @classmethod
    def of_config(cls, config: Config, unit: str) -> Checkpoint:
        """Return what a new run of a config would save, at position 0."""
        return cls(kind=type(config), parts=config.parts(), position=0, unit=unit)

    @functools.cached_property
    def config(self) -> Config | None:
        """The saved config before late changes; None where the parts alone make none."""
        if not self.parts:
            return None
        try:
            return self.kind.from_parts(self.parts)
        except ConfigError:
            return None

    @functools.cached_property
    def effective(self) -> Config | None:
        """The saved config after late changes; None where there is none."""
        return None if self.config is None else with_history(self.config, self.history)

    def replace(self, **changes: Any) -> Checkpoint:
        """Return a checkpoint that differs in some fields, without building its config anew."""
        other = replace(self, **changes)
        if changes.keys().isdisjoint({"kind", "parts", "history"}):
            cached = {"config", "effective"} & self.__dict__.keys()
            other.__dict__.update({name: self.__dict__[name] for name in cached})
        return other

    def for_kind(self, kind: type[Config]) -> Checkpoint:
        """Return what this says for another kind of scheduler: the position alone."""
        if kind is self.kind:
            return self
        values, warnings = self.values, self.warnings
        if self.format in {DIST_SCHED, UPSTREAM}:
            warnings = (
                *warnings,
                (
                    f"the state is {self.kind.KIND}'s: it has the position alone, and the curve is "
                    f"the config's ({kind.KIND}'s)"
                ),
            )
            saved = self.effective
            values = {} if saved is None else saved.plan.values(self.position)
        return self.replace(
            kind=kind, parts={}, history=(), torn=(), warnings=warnings, values=values
        )


def pack(
    config: Config,
    position: int,
    unit: str,
    history: History = (),
    effective: Config | None = None,
) -> State:
    """Return the state as a fresh dict of primitives, in the lowest version that can express it.

    Args:
        config: What is used, before late changes.
        position: Units completed.
        unit: What a position counts.
        history: The late changes.
        effective: The config after them, where it is at hand.
    """
    keys = {}
    if config.STATE_KEYS:
        entries = (effective or with_history(config, history)).to_dict()
        keys = {key: entries[key] for key in config.STATE_KEYS}
    text = {
        "version": max([config.version, *(change.version for change in history)]),
        UNIT_KEY: unit,
        "position": position,
        config.TEXT_NAME: config.to_dict(),
        _HISTORY_KEY: [change.to_dict() for change in history],
    }
    return {**keys, POSITION_KEY: position, TEXT_KEY: json.dumps(text, allow_nan=False)}


def unpack(
    state: object, kind: type[Config], own: State | None = None, loaded: object = None
) -> Checkpoint:
    """Read a checkpoint state for a scheduler of some kind.

    Args:
        state: What `load_state_dict` was given.
        kind: The config whose entries are expected.
        own: What the scheduler would save now. It distinguishes a state that was read from one
            that DCP left as it was. None where there is no scheduler.
        loaded: The text that the scheduler has loaded before, if any: that one was read.

    Raises:
        StateError: The state is malformed, incomplete or from a newer version; names the key.
    """
    return read(state, kind, own, loaded).for_kind(kind)


def read(
    state: object,
    kind: type[Config] | None = None,
    own: State | None = None,
    loaded: object = None,
) -> Checkpoint:
    """Read a checkpoint state by itself: its parts are of whichever kind it says.

    Args:
        state: As for `unpack`.
        kind: As for `unpack`; of another kind, plain keys may be missing, because DCP reads no
            more than the keys that the target of a load has.
        own: As for `unpack`.
        loaded: As for `unpack`.

    Raises:
        StateError: As for `unpack`.
    """
    try:
        return _read(state, kind, own, loaded)
    except (StateError, ConfigError):
        raise
    except Exception as error:  # what is malformed can fail in any way
        raise StateError(
            f"the checkpoint state is malformed: {type(error).__name__}: {brief(str(error))}"
        ) from error


def _read(
    state: object, kind: type[Config] | None, own: State | None, loaded: object
) -> Checkpoint:
    if not isinstance(state, Mapping):
        is_path = isinstance(state, str | os.PathLike)
        advice = (
            ": dist_sched.checkpoint.load(scheduler, path) loads from a path" if is_path else ""
        )
        _refuse("state", f"must be a dict, not {type(state).__name__}{advice}")
    if not state:
        _refuse("state", "is empty: was the scheduler saved in this checkpoint?")
    # Ours and upstream's come first: Megatron's own keys beside others' are still Megatron's.
    if format_of(state.keys()) not in {DIST_SCHED, UPSTREAM}:
        other = foreign.read(state)
        if other is not None:
            return Checkpoint(
                format=other.format,
                kind=OptimizerParamConfig,
                parts=other.entries,
                position=other.position,
                unit=None,
                warnings=(other.warning,),
                values=other.values,
            )
        _refuse_others(state)
    if TEXT_KEY not in state:
        if kind is not None and not kind.STATE_KEYS and format_of(state.keys()) != UPSTREAM:
            _refuse(TEXT_KEY, f"is missing: is it {kind.KIND}'s?")
        checkpoint = _from_keys(state, OptimizerParamConfig, ())
        return checkpoint.replace(
            warnings=(*checkpoint.warnings, *_doubts(state, own or {}, checkpoint.position))
        )
    text = parse(state[TEXT_KEY])
    found = next((one for one in KINDS if one.TEXT_NAME in text), kind or OptimizerParamConfig)
    checkpoint = _read_text(text, found).replace(text=state[TEXT_KEY])
    is_partial = kind is not None and kind is not found
    if is_partial and not all(key in state for key in found.STATE_KEYS):
        return checkpoint
    return _compare_with_keys(state, checkpoint, own or {}, loaded)


def _refuse_others(state: Mapping[Any, Any]) -> None:
    """Raise where a state is no scheduler's, and it can be said whose it is."""
    advice = "pass what scheduler.state_dict() returned"
    if "param_groups" in state:
        raise StateError(f"the state is an optimizer's (it has 'param_groups'): {advice}")
    if any(hasattr(value, "dtype") and hasattr(value, "shape") for value in state.values()):
        raise StateError(f"the state is a model's (it has tensors): {advice}")
    parts = (key for key, value in state.items() if isinstance(value, Mapping))
    inner = [key for key in parts if format_of(state[key].keys(), str(key)) is not None]
    if inner:
        raise StateError(
            f"the state is a whole checkpoint: pass what it has under {shown(inner[0])}, or load "
            "it with dist_sched.checkpoint.load(scheduler, path)"
        )


def _compare_with_keys(
    state: Mapping[Any, Any], checkpoint: Checkpoint, own: State, loaded: object
) -> Checkpoint:
    """Compare the text with the plain keys beside it, and say what to believe."""
    kind = checkpoint.kind
    keys, warnings = _read_keys(state, kind), _name_ignored(state, kind)
    _require(keys, (*kind.STATE_KEYS, POSITION_KEY))
    saved: Mapping[str, Any] = {}
    if kind.STATE_KEYS:
        # An illegal whole is no reason to refuse: by policy the config may replace parts of it.
        effective = checkpoint.effective if checkpoint.history else None
        saved = checkpoint.parts if effective is None else effective.to_dict()
    expected = {**saved, POSITION_KEY: checkpoint.position}
    torn = [key for key, value in keys.items() if expected[key] != value]
    if torn and checkpoint.text == own.get(TEXT_KEY) and checkpoint.text != loaded:
        # DCP keeps a target's own value for what a checkpoint lacks: the text is ours, and the keys
        # beside it are from a state that has no text.
        warnings.append("its text is this scheduler's own, so it was never read")
        return _from_keys(state, kind, warnings)
    if torn:
        warnings.append(
            f"the state is torn: {', '.join(torn)} differ from its text, which is trusted "
            "(ranks that disagreed saved it)"
        )
    warnings += _doubts(state, own or {}, checkpoint.position)
    return checkpoint.replace(warnings=tuple(warnings), torn=tuple(torn))


def _doubts(state: Mapping[Any, Any], own: State, position: int) -> list[str]:
    """Say whether a state, with or without its text, is perhaps what DCP was given as the target."""
    keys = {key: value for key, value in own.items() if key != TEXT_KEY or key in state}
    if position != 0 or dict(state) != keys:
        return []
    return [
        "the state equals this scheduler's own at position 0: "
        "perhaps nothing was read from the checkpoint"
    ]


def format_of(keys: Collection[object], name: str = "") -> str | None:
    """Return whose scheduler saved a state of these keys; None if it is not known.

    Args:
        keys: The state's keys.
        name: Under which the state stands; torchtitan's is known by that alone.
    """
    if TEXT_KEY in keys:
        return DIST_SCHED
    has_position = "num_steps" in keys or "num_iters" in keys
    if has_position and ("max_lr" in keys or "start_lr" in keys):
        return UPSTREAM
    return foreign.format_of(keys, name)


def to_upstream(state: object) -> tuple[State, dict[str, Entry]]:
    """Return the ten keys that Megatron and NeMo load, and what they cannot carry.

    Raises:
        StateError: The state is malformed, or lacks something that they require.
    """
    checkpoint = read(state)
    kind = OptimizerParamConfig
    if checkpoint.kind is not kind:
        _refuse(TEXT_KEY, f"is {checkpoint.kind.KIND}'s: upstream has no such curves")
    effective = checkpoint.effective if checkpoint.history else None
    saved = dict(checkpoint.parts if effective is None else effective.to_dict())
    _require(saved, kind.STATE_KEYS)
    keys = {name: saved.pop(name) for name in kind.STATE_KEYS}
    left = {**saved, UNIT_KEY: checkpoint.unit}
    return {**keys, POSITION_KEY: checkpoint.position}, left


def _from_keys(state: Mapping[Any, Any], kind: type[Config], warnings: Iterable[str]) -> Checkpoint:
    """Read the plain keys alone, as of a state that upstream wrote."""
    keys = _read_keys(state, kind)
    is_old = set(WD_KEYS).isdisjoint(keys)  # from before weight decay was scheduled
    required = [key for key in kind.STATE_KEYS if not (is_old and key in WD_KEYS)]
    _require(keys, (*required, POSITION_KEY))
    position = keys.pop(POSITION_KEY)
    return Checkpoint(
        format=UPSTREAM,
        kind=kind,
        parts=keys,
        position=position,
        unit=None,
        text=state.get(TEXT_KEY),
        warnings=(
            *(warnings or _name_ignored(state, kind)),
            (
                "the state is foreign (another library's): it does not say what its position "
                "counts; make sure that it is this scheduler's unit (Megatron-LM counts samples)"
            ),
        ),
    )


def _read_keys(state: Mapping[Any, Any], kind: type[Config]) -> dict[str, Any]:
    """Return the plain keys under their present names, each checked."""
    found: dict[str, Any] = {}
    for key, name in _known_keys(kind).items():
        if key not in state:
            continue
        rule = whole if name == POSITION_KEY else kind.check_entry
        value = _checked(repr(key), rule, name, state[key])
        if found.setdefault(name, value) != value:
            _refuse(key, f"is {value!r}, but {name}, the same under its new name, {found[name]!r}")
    return found


def _known_keys(kind: type[Config]) -> dict[str, str]:
    names = (*kind.STATE_KEYS, POSITION_KEY)
    old = {key: name for key, name in OLD_NAMES.items() if name in names}
    return {**{name: name for name in names}, **old}


def _name_ignored(state: Mapping[Any, Any], kind: type[Config]) -> list[str]:
    known = {*_known_keys(kind), TEXT_KEY}
    unknown = (key for key in state if key not in known)
    names = (key if isinstance(key, str) else shown(key) for key in islice(unknown, SHOWN))
    ignored = ", ".join(name[:SHOWN] for name in names)
    return [f"unknown keys are ignored: {brief(ignored)}"] if ignored else []


def _require(found: Iterable[str], keys: Iterable[str]) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        _refuse(missing[0], f"is missing (missing in all: {', '.join(missing)})")


def _read_text(text: dict[str, Any], kind: type[Config]) -> Checkpoint:
    """Read the parsed JSON text; it is believed only whole."""
    version = text.get("version")
    # Before all else: a newer version may have other parts.
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        _refuse(TEXT_KEY, f"has no valid version: {shown(version)}")
    if version > VERSION:
        _refuse(
            TEXT_KEY,
            f"is of version {version}, and this release knows versions up to {VERSION}: "
            "upgrade dist-sched",
        )
    known = {"version", UNIT_KEY, "position", kind.TEXT_NAME, _HISTORY_KEY}
    for name in sorted(text.keys() ^ known):
        reason = "is missing" if name in known else f"is not known to version {version}"
        _refuse(f"{TEXT_KEY}.{name}", reason)
    checkpoint = Checkpoint(
        kind=kind,
        parts=_read_config(text[kind.TEXT_NAME], kind),
        position=_checked(f"'{TEXT_KEY}.position'", whole, "position", text["position"]),
        unit=_checked(f"'{TEXT_KEY}.{UNIT_KEY}'", unit_word, UNIT_KEY, text[UNIT_KEY]),
        history=tuple(_read_history(text[_HISTORY_KEY], version)),
    )
    _check_whole(checkpoint)
    if checkpoint.config is not None and checkpoint.config.version > version:
        reason = f"has what version {checkpoint.config.version} added in a text of {version}"
        _refuse(f"{TEXT_KEY}.{kind.TEXT_NAME}", reason)
    return checkpoint


def _read_config(data: object, kind: type[Config]) -> dict[str, Any]:
    if not isinstance(data, dict):
        _refuse(f"{TEXT_KEY}.{kind.TEXT_NAME}", f"must be an object, not {shown(data)}")
    try:
        return kind.read(data)
    except Misfit as misfit:
        key = f"{TEXT_KEY}.{kind.TEXT_NAME}.{misfit.part}"
        reason = brief(misfit.reason, _LONGEST)
        raise StateError(f"key {shown(key)} of the checkpoint state: {reason}") from misfit


def _read_history(data: object, version: int) -> Iterator[Change]:
    if not isinstance(data, list):
        _refuse(f"{TEXT_KEY}.{_HISTORY_KEY}", "must be a list")
    for index, change in enumerate(data):
        key = f"{TEXT_KEY}.{_HISTORY_KEY}[{index}]"
        if not isinstance(change, dict) or change.keys() != {"position", "operation", "arguments"}:
            _refuse(key, "must have position, operation and arguments")
        if not isinstance(change["arguments"], dict):
            _refuse(key, "must have an object as arguments")
        try:
            found = Change(**change)
        except ConfigError as error:
            raise StateError(f"key {key!r} of the checkpoint state: {error}") from error
        if found.version > version:
            _refuse(key, f"has arguments of version {found.version} in a text of {version}")
        yield found


def _check_whole(checkpoint: Checkpoint) -> None:
    """Check that the parts make a config, and that the late changes can be made again."""
    kind, key = checkpoint.kind, f"{TEXT_KEY}.{_HISTORY_KEY}"
    try:
        if checkpoint.history:
            _ = checkpoint.effective or kind.from_parts(checkpoint.parts)
        elif kind is Specification and checkpoint.config is None:
            # Entries of Megatron's may be replaced one by one, by policy; phases may not.
            key = f"{TEXT_KEY}.{kind.TEXT_NAME}.fields"
            kind.from_parts(checkpoint.parts)
    except ConfigError as error:
        reason = brief(str(error), _LONGEST)
        raise StateError(f"key {key!r} of the checkpoint state: {reason}") from error


def _checked(key: str, rule: Callable[[str, object], T], name: str, value: object) -> T:
    try:
        return rule(name, value)
    except ConfigError as error:
        raise StateError(f"key {key} of the checkpoint state: {error}") from error


def parse(text: object, key: str = TEXT_KEY) -> dict[str, Any]:
    """Return the JSON object that a state has under a key, or raise a StateError."""
    if not isinstance(text, str):
        _refuse(key, f"must be a text, not {type(text).__name__}")
    try:
        # Python reads NaN and a name given twice, and would go on with the last one.
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise StateError(
            f"key {key!r} of the checkpoint state is not valid JSON: {error}"
        ) from error
    try:
        refuse_large(data)
    except ConfigError as error:
        raise StateError(f"key {key!r} of the checkpoint state {error}") from error
    if not isinstance(data, dict):
        _refuse(key, f"must be a JSON object, not {type(data).__name__}")
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _refuse(key: str, reason: str) -> NoReturn:
    raise StateError(f"key {shown(key)} of the checkpoint state {reason}")
