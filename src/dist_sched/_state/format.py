"""The format of the checkpoint state: writing a config and a position, and reading a state.

A state is a flat dict of primitives. It has the keys of Megatron and NeMo, so that they can load
it, and one JSON text, which is the authority. The text is a single value because DCP writes each
key from some rank. If ranks disagree, the keys of a state are mixed, but the text is consistent.

Version 2 adds extras, powers of proportions, and arguments of late changes to version 1. A state is
written in the lowest version that can store it, so that older releases can load it if possible.
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
"""Key of the late changes in the text. It keeps its first name because version 1 is frozen."""

OLD_NAMES = {
    "start_lr": "max_lr",
    "warmup_iter": "lr_warmup_steps",
    "warmup_steps": "lr_warmup_steps",
    "end_iter": "lr_decay_steps",
    "decay_steps": "lr_decay_steps",
    "decay_style": "lr_decay_style",
    "num_iters": POSITION_KEY,
}
"""Keys of older releases of Megatron-LM, and their present names."""

KINDS: tuple[type[Config], ...] = (OptimizerParamConfig, Specification)
"""The kinds of config that a state may have."""

DIST_SCHED = "dist_sched"
UPSTREAM = "OptimizerParamScheduler"
"""The format of Megatron-LM and NeMo AutoModel, whose states look the same."""

WD_KEYS = ("start_wd", "end_wd", "wd_incr_style", "wd_incr_steps")
"""Keys that are all missing from the oldest states of Megatron-LM."""

_LONGEST = 1000
"""Maximum number of characters of a reason, since it may quote names from the state."""

State = dict[str, int | float | str]
T = TypeVar("T")


# No slots, so that cached_property can cache the saved config.
@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The contents of a well-formed checkpoint state."""

    format: str = DIST_SCHED
    """The library that saved it."""
    kind: type[Config]
    """The class of the saved config."""
    parts: Mapping[str, Any]
    """The parts of the saved config. A foreign state may have only some entries."""
    position: int
    unit: str | None
    """None for a foreign state: upstream does not save the unit."""
    history: History = ()
    """The late changes, which apply to the saved config."""
    text: str | None = None
    """The saved text. None for a foreign state."""
    warnings: tuple[str, ...] = ()
    """Warnings about this state."""
    torn: tuple[str, ...] = ()
    """Keys that differ from the text. The text is trusted."""
    values: Mapping[Path, float] = field(default_factory=dict)
    """The values of another scheduler for the next update, if the state has them."""

    @classmethod
    def of_config(cls, config: Config, unit: str) -> Checkpoint:
        """Return the checkpoint of a new run of a config, at position 0."""
        return cls(kind=type(config), parts=config.parts(), position=0, unit=unit)

    @functools.cached_property
    def config(self) -> Config | None:
        """The saved config before late changes, or None if the parts are not a complete config."""
        if not self.parts:
            return None
        try:
            return self.kind.from_parts(self.parts)
        except ConfigError:
            return None

    @functools.cached_property
    def effective(self) -> Config | None:
        """The saved config after late changes, or None if there is no config."""
        return None if self.config is None else with_history(self.config, self.history)

    def replace(self, **changes: Any) -> Checkpoint:
        """Return a copy with some attributes changed. It keeps the cached config if possible."""
        other = replace(self, **changes)
        if changes.keys().isdisjoint({"kind", "parts", "history"}):
            cached = {"config", "effective"} & self.__dict__.keys()
            other.__dict__.update({name: self.__dict__[name] for name in cached})
        return other

    def for_kind(self, kind: type[Config]) -> Checkpoint:
        """Return the checkpoint for a kind of scheduler. Another kind only uses the position."""
        if kind is self.kind:
            return self
        values, warnings = self.values, self.warnings
        if self.format in {DIST_SCHED, UPSTREAM}:
            warnings = (
                *warnings,
                (
                    f"the state was saved by {self.kind.KIND}: only its position is used, and the "
                    f"curve is the config's ({kind.KIND})"
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
    """Return the state as a new dict of primitives, in the lowest version that can store it.

    Args:
        config: The config before late changes.
        position: Units completed.
        unit: What a position counts.
        history: The late changes.
        effective: The config after late changes, if it is known already.
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
    """Read a checkpoint state for one kind of scheduler.

    Args:
        state: The argument of `load_state_dict`.
        kind: The expected class of the config.
        own: The state that the scheduler would save now, to detect that DCP returned it instead of
            a state from the checkpoint. None without a scheduler.
        loaded: The text that the scheduler loaded before, if any.

    Raises:
        StateError: The state is malformed, incomplete or from a newer version. The message has the
            key.
    """
    return read(state, kind, own, loaded).for_kind(kind)


def read(
    state: object,
    kind: type[Config] | None = None,
    own: State | None = None,
    loaded: object = None,
) -> Checkpoint:
    """Read a checkpoint state of any kind.

    Args:
        state: As for `unpack`.
        kind: As for `unpack`. A state of another kind may lack keys, because DCP reads only the
            keys that the target of a load has.
        own: As for `unpack`.
        loaded: As for `unpack`.

    Raises:
        StateError: As for `unpack`.
    """
    try:
        return _read(state, kind, own, loaded)
    except (StateError, ConfigError):
        raise
    except Exception as error:  # a malformed state can fail in any way
        raise StateError(
            f"the checkpoint state is malformed: {type(error).__name__}: {brief(str(error))}"
        ) from error


def _read(
    state: object, kind: type[Config] | None, own: State | None, loaded: object
) -> Checkpoint:
    if not isinstance(state, Mapping):
        is_path = isinstance(state, str | os.PathLike)
        advice = (
            "; use dist_sched.checkpoint.load(scheduler, path) to load from a path"
            if is_path
            else ""
        )
        _refuse("state", f"must be a dict, not {type(state).__name__}{advice}")
    if not state:
        _refuse("state", "is empty; check that this checkpoint has the scheduler")
    # Ours and upstream's are checked first, because Megatron's states may have foreign keys, too.
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
            _refuse(TEXT_KEY, f"is missing; check that the state was saved by {kind.KIND}")
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
    """Raise a helpful error if a state is an optimizer's, a model's or a whole checkpoint."""
    advice = "pass the result of scheduler.state_dict()"
    if "param_groups" in state:
        raise StateError(f"the state is an optimizer's (it has 'param_groups'); {advice}")
    if any(hasattr(value, "dtype") and hasattr(value, "shape") for value in state.values()):
        raise StateError(f"the state is a model's (it has tensors); {advice}")
    parts = (key for key, value in state.items() if isinstance(value, Mapping))
    inner = [key for key in parts if format_of(state[key].keys(), str(key)) is not None]
    if inner:
        raise StateError(
            f"the state is a whole checkpoint; pass its value of {shown(inner[0])}, or use "
            "dist_sched.checkpoint.load(scheduler, path)"
        )


def _compare_with_keys(
    state: Mapping[Any, Any], checkpoint: Checkpoint, own: State, loaded: object
) -> Checkpoint:
    """Compare the text with the plain keys beside it, and return what can be trusted."""
    kind = checkpoint.kind
    keys, warnings = _read_keys(state, kind), _name_ignored(state, kind)
    _require(keys, (*kind.STATE_KEYS, POSITION_KEY))
    saved: Mapping[str, Any] = {}
    if kind.STATE_KEYS:
        # Entries that are invalid together are allowed: the policy may replace some of them.
        effective = checkpoint.effective if checkpoint.history else None
        saved = checkpoint.parts if effective is None else effective.to_dict()
    expected = {**saved, POSITION_KEY: checkpoint.position}
    torn = [key for key, value in keys.items() if expected[key] != value]
    if torn and checkpoint.text == own.get(TEXT_KEY) and checkpoint.text != loaded:
        # DCP leaves the target's value for a key that the checkpoint lacks. So the text is our own,
        # and the keys beside it are from a state without a text.
        warnings.append(
            "the checkpoint has no text, only plain keys (the text here is this scheduler's own)"
        )
        return _from_keys(state, kind, warnings)
    if torn:
        warnings.append(
            f"the state is inconsistent: {', '.join(torn)} differ from its text, which is used "
            "(the ranks that saved it disagreed)"
        )
    warnings += _doubts(state, own or {}, checkpoint.position)
    return checkpoint.replace(warnings=tuple(warnings), torn=tuple(torn))


def _doubts(state: Mapping[Any, Any], own: State, position: int) -> list[str]:
    """Return a warning if a state is perhaps the target of a load, and not from a checkpoint."""
    keys = {key: value for key, value in own.items() if key != TEXT_KEY or key in state}
    if position != 0 or dict(state) != keys:
        return []
    warning = (
        "the state equals this scheduler's own state at position 0: "
        "perhaps nothing was read from the checkpoint"
    )
    return [warning]


def format_of(keys: Collection[object], name: str = "") -> str | None:
    """Return which library's scheduler saved a state with these keys, or None.

    Args:
        keys: Keys of the state.
        name: Name of the state in the checkpoint, by which torchtitan's is recognised.
    """
    if TEXT_KEY in keys:
        return DIST_SCHED
    has_position = "num_steps" in keys or "num_iters" in keys
    if has_position and ("max_lr" in keys or "start_lr" in keys):
        return UPSTREAM
    return foreign.format_of(keys, name)


def to_upstream(state: object) -> tuple[State, dict[str, Entry]]:
    """Return the ten keys that Megatron and NeMo load, and the entries without such a key.

    Raises:
        StateError: The state is malformed, or one of the ten keys is missing.
    """
    checkpoint = read(state)
    kind = OptimizerParamConfig
    if checkpoint.kind is not kind:
        _refuse(
            TEXT_KEY,
            f"was saved by {checkpoint.kind.KIND}, whose curves Megatron-LM and NeMo do not have",
        )
    effective = checkpoint.effective if checkpoint.history else None
    saved = dict(checkpoint.parts if effective is None else effective.to_dict())
    _require(saved, kind.STATE_KEYS)
    keys = {name: saved.pop(name) for name in kind.STATE_KEYS}
    left = {**saved, UNIT_KEY: checkpoint.unit}
    return {**keys, POSITION_KEY: checkpoint.position}, left


def _from_keys(state: Mapping[Any, Any], kind: type[Config], warnings: Iterable[str]) -> Checkpoint:
    """Read the plain keys only, as in a state of upstream."""
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
                "the state is from Megatron-LM or NeMo, which do not save the unit of the "
                "position; make sure that it is this scheduler's unit (Megatron-LM counts samples)"
            ),
        ),
    )


def _read_keys(state: Mapping[Any, Any], kind: type[Config]) -> dict[str, Any]:
    """Return the checked plain keys under their present names."""
    found: dict[str, Any] = {}
    for key, name in _known_keys(kind).items():
        if key not in state:
            continue
        rule = whole if name == POSITION_KEY else kind.check_entry
        value = _checked(repr(key), rule, name, state[key])
        if found.setdefault(name, value) != value:
            reason = f"is {value!r}, but {name}, its newer name, is {found[name]!r}; remove one"
            _refuse(key, reason)
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
        _refuse(missing[0], f"is missing (all missing keys: {', '.join(missing)})")


def _read_text(text: dict[str, Any], kind: type[Config]) -> Checkpoint:
    """Read the parsed JSON text, which must be complete."""
    version = text.get("version")
    # Checked first, because a newer version may have other parts.
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        _refuse(TEXT_KEY, f"has no valid version: {shown(version)}")
    if version > VERSION:
        _refuse(
            TEXT_KEY,
            f"has version {version}, but this release reads versions up to {VERSION}; "
            "upgrade dist-sched",
        )
    known = {"version", UNIT_KEY, "position", kind.TEXT_NAME, _HISTORY_KEY}
    for name in sorted(text.keys() ^ known):
        reason = "is missing" if name in known else f"is not a key of version {version}"
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
        reason = f"needs version {checkpoint.config.version}, but its text has version {version}"
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
            _refuse(key, "must have the keys position, operation and arguments")
        if not isinstance(change["arguments"], dict):
            _refuse(key, "must have a JSON object as arguments")
        try:
            found = Change(**change)
        except ConfigError as error:
            raise StateError(f"key {key!r} of the checkpoint state: {error}") from error
        if found.version > version:
            _refuse(key, f"needs version {found.version}, but its text has version {version}")
        yield found


def _check_whole(checkpoint: Checkpoint) -> None:
    """Check that the parts are a valid config, and that the late changes apply to it."""
    kind, key = checkpoint.kind, f"{TEXT_KEY}.{_HISTORY_KEY}"
    try:
        if checkpoint.history:
            _ = checkpoint.effective or kind.from_parts(checkpoint.parts)
        elif kind is Specification and checkpoint.config is None:
            # The policy may replace single entries of Megatron's, but not single phases.
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
    """Return the JSON object in the text of a state's key, or raise a StateError."""
    if not isinstance(text, str):
        _refuse(key, f"must be a string, not {type(text).__name__}")
    try:
        # By default, Python accepts NaN and repeated names.
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
