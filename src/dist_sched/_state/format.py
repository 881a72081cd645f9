"""The checkpoint state: how a config and a position are packed, and what is believed of a state.

Version 1 is a flat dict of primitives: the seeds' keys, for the seeds and for people, and one JSON
text, which is the authority. It is one value because DCP writes each key from whichever rank it
balances to: ranks that disagree leave a state mixed key by key, while one value stays whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeVar

from dist_sched._config.entries import Config, Misfit, OptimizerParamConfig, unit_word, with_history
from dist_sched._config.history import Change, History
from dist_sched._config.specification import Specification
from dist_sched._rules import Entry, whole
from dist_sched._state import foreign
from dist_sched.errors import ConfigError, StateError

VERSION = 1
TEXT_KEY = "dist_sched"
POSITION_KEY = "num_steps"
UNIT_KEY = "unit"
_HISTORY_KEY = "lineage"
"""In the text; version 1 is frozen, so the key keeps its first name."""

OLD_NAMES = {
    "start_lr": "max_lr",
    "warmup_iter": "lr_warmup_steps",
    "warmup_steps": "lr_warmup_steps",
    "end_iter": "lr_decay_steps",
    "decay_steps": "lr_decay_steps",
    "decay_style": "lr_decay_style",
    "num_iters": POSITION_KEY,
}
"""Names that older releases of the seeds gave to a key."""

KINDS: tuple[type[Config], ...] = (OptimizerParamConfig, Specification)
"""The kinds of config that a state of ours may hold."""

DIST_SCHED = "dist_sched"
SEED = "OptimizerParamScheduler"
"""What the two seeds' states are called; nothing in them tells the one from the other."""

WD_KEYS = ("start_wd", "end_wd", "wd_incr_style", "wd_incr_steps")
"""Keys that the oldest seeds' states lack, all four together."""

State = dict[str, int | float | str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint state says, after it was found to be well formed."""

    entries: Mapping[str, Any]
    """What the config's `read` made of it; of a foreign state, the entries that it has."""
    position: int
    unit: str | None
    """None where the state is foreign: the seeds do not save what a position counts."""
    history: History = ()
    """The late changes that were made, after which the curve is not the config's alone."""
    warnings: tuple[str, ...] = ()
    """What a person should know of this state before trusting it."""
    torn: tuple[str, ...] = ()
    """Keys that differ from the text, which is trusted."""
    values: Mapping[str, float] = field(default_factory=dict)
    """By field, what a scheduler of another library says that it had for the next update."""


def pack(config: Config, position: int, unit: str, history: History = ()) -> State:
    """Give the state of version 1 as a fresh dict of primitives."""
    entries = with_history(config, history).entries() if config.STATE_KEYS else {}
    keys = {key: entries[key] for key in config.STATE_KEYS}
    text = {
        "version": VERSION,
        UNIT_KEY: unit,
        "position": position,
        config.TEXT_NAME: config.told(),
        _HISTORY_KEY: [change.to_dict() for change in history],
    }
    return {**keys, POSITION_KEY: position, TEXT_KEY: json.dumps(text, allow_nan=False)}


def unpack(
    state: object, config: type[Config], own: State | None = None, loaded: object = None
) -> Checkpoint:
    """Read a checkpoint state.

    Args:
        state: What `load_state_dict` was given.
        config: The kind of config whose entries are expected.
        own: What the scheduler would save now, which tells a state that was read from one that
            DCP left as it was; None where there is no scheduler.
        loaded: The text that the scheduler has loaded before, if any: that one was read.

    Raises:
        StateError: The state is malformed, incomplete or from a newer version; names the key.
    """
    if not isinstance(state, Mapping):
        _refuse("state", f"must be a dict, not {type(state).__name__}")
    if not state:
        _refuse("state", "is empty: was the scheduler saved in this checkpoint?")
    is_ours = dialect_of(state.keys()) in {DIST_SCHED, SEED}
    other = None if is_ours else foreign.tell(state)
    if other is not None:
        return _of_another_library(other, config)
    kind = _kind_of(state)
    if kind is not None and kind is not config:
        # Plain DCP asks for no more than the keys of its target, which may lack this kind's.
        is_whole = TEXT_KEY not in state or all(key in state for key in kind.STATE_KEYS)
        found = unpack(state, kind) if is_whole else _read_text(state[TEXT_KEY], kind)
        return _of_another_kind(found, kind, config)
    return _unpack_own(state, config, own or {TEXT_KEY: ""}, loaded)


def _unpack_own(
    state: Mapping[Any, Any], config: type[Config], own: State, loaded: object
) -> Checkpoint:
    """Read a state of the kind that is expected, or one of a seed."""
    keys = _read_keys(state, config)
    warnings = _name_ignored(state, config)
    if TEXT_KEY not in state:
        if not config.STATE_KEYS:
            _refuse(TEXT_KEY, f"is missing: is it {config.KIND}'s?")
        return _foreign(keys, config, warnings)
    text = state[TEXT_KEY]
    checkpoint = _read_text(text, config)
    _require(keys, (*config.STATE_KEYS, POSITION_KEY))
    told = {**_as_saved(checkpoint, config), POSITION_KEY: checkpoint.position}
    torn = [key for key, value in keys.items() if told[key] != value]
    if torn and text == own[TEXT_KEY] and text != loaded:
        warnings.append("its text is this scheduler's own, so it was never read")
        return _foreign(keys, config, warnings)
    if torn:
        warnings.append(
            f"the state is torn: {', '.join(torn)} differ from its text, which is trusted "
            "(ranks that disagreed saved it)"
        )
    if dict(state) == own and checkpoint.position == 0:
        warnings.append(
            "the state equals this scheduler's own at position 0: "
            "perhaps nothing was read from the checkpoint"
        )
    return replace(checkpoint, warnings=tuple(warnings), torn=tuple(torn))


def tell(state: object) -> tuple[type[Config], Checkpoint]:
    """Read a checkpoint state by itself: which scheduler's it is, and what it says.

    What another library's scheduler saved is read as `OptimizerParamScheduler`'s.

    Raises:
        StateError: As for `unpack`.
    """
    kind = _kind_of(state) if isinstance(state, Mapping) else None
    kind = kind or OptimizerParamConfig
    return kind, unpack(state, kind)


def text_of(state: object) -> object:
    """Give a state's text as it stands, or None where there is none."""
    return state.get(TEXT_KEY) if isinstance(state, Mapping) else None


def dialect_of(keys: Collection[object], name: str = "") -> str | None:
    """Tell from its keys whose scheduler a state is; None if no known one's.

    Args:
        keys: The state's keys.
        name: Under which the state stands; torchtitan's is known by that alone.
    """
    if TEXT_KEY in keys:
        return DIST_SCHED
    has_position = "num_steps" in keys or "num_iters" in keys
    if has_position and ("max_lr" in keys or "start_lr" in keys):
        return SEED
    return foreign.dialect_of(keys, name)


def to_upstream(state: object, config: type[Config]) -> tuple[State, dict[str, Entry]]:
    """Give the keys that the seeds load, and what they cannot carry.

    Raises:
        StateError: The state is malformed, or does not tell all that the seeds require.
    """
    kind = _kind_of(state) if isinstance(state, Mapping) else None
    if kind is not None and kind is not config:
        _refuse(TEXT_KEY, f"is {kind.KIND}'s: its curves are none that the seeds have")
    checkpoint = unpack(state, config)
    told = dict(_as_saved(checkpoint, config))
    _require(told, config.STATE_KEYS)
    keys = {name: told.pop(name) for name in config.STATE_KEYS}
    left = {**told, UNIT_KEY: checkpoint.unit}
    return {**keys, POSITION_KEY: checkpoint.position}, left


def _kind_of(state: Mapping[Any, Any]) -> type[Config] | None:
    """Tell which scheduler's config a state holds; None where it must be looked at closely."""
    if TEXT_KEY not in state:
        return OptimizerParamConfig if dialect_of(state.keys()) == SEED else None
    told = _parse(state[TEXT_KEY])
    return next((kind for kind in KINDS if kind.TEXT_NAME in told), None)


def _of_another_kind(
    checkpoint: Checkpoint, kind: type[Config], config: type[Config]
) -> Checkpoint:
    """Take the position of a state of our own that another scheduler saved."""
    warning = (
        f"the state is {kind.KIND}'s: it tells the position alone, and the curve is the config's "
        f"({config.KIND}'s)"
    )
    return Checkpoint(
        entries={},
        position=checkpoint.position,
        unit=checkpoint.unit,
        warnings=(*checkpoint.warnings, warning),
        values=_values(checkpoint, kind),
    )


def _values(checkpoint: Checkpoint, kind: type[Config]) -> dict[str, float]:
    """Give the values that a state's own scheduler had for the next update, if it tells all."""
    try:
        saved = with_history(kind.of_parts(checkpoint.entries), checkpoint.history)
    except ConfigError:
        return {}
    return saved.plan().values(checkpoint.position)


def _as_saved(checkpoint: Checkpoint, config: type[Config]) -> Mapping[str, Any]:
    """Give the entries after the late changes, which is how they stand in the state's own keys."""
    if not (config.STATE_KEYS and checkpoint.history):
        return checkpoint.entries
    return with_history(config.of_parts(checkpoint.entries), checkpoint.history).entries()


def _of_another_library(told: foreign.Told, config: type[Config]) -> Checkpoint:
    return Checkpoint(
        entries=told.entries if config is OptimizerParamConfig else {},
        position=told.position,
        unit=None,
        warnings=(told.warning,),
        values=told.values,
    )


def _foreign(keys: dict[str, Any], config: type[Config], warnings: list[str]) -> Checkpoint:
    """Take the plain keys alone, as of a state that one of the seeds wrote."""
    old = set(WD_KEYS).isdisjoint(keys)
    required = [key for key in config.STATE_KEYS if not (old and key in WD_KEYS)]
    _require(keys, (*required, POSITION_KEY))
    warnings.append(
        "the state is foreign (another library's): it does not say what its position counts; "
        "make sure that it is this scheduler's unit (Megatron-LM counts samples)"
    )
    entries = {key: value for key, value in keys.items() if key != POSITION_KEY}
    return Checkpoint(
        entries=entries, position=keys[POSITION_KEY], unit=None, warnings=tuple(warnings)
    )


def _read_keys(state: Mapping[Any, Any], config: type[Config]) -> dict[str, Any]:
    """Check the plain keys, under their present names."""
    found: dict[str, Any] = {}
    for key, name in _known_keys(config).items():
        if key not in state:
            continue
        value = _checked(key, name, state[key], config)
        if found.setdefault(name, value) != value:
            _refuse(key, f"is {value!r}, but {name}, the same under its new name, {found[name]!r}")
    return found


def _known_keys(config: type[Config]) -> dict[str, str]:
    names = (*config.STATE_KEYS, POSITION_KEY)
    old = {key: name for key, name in OLD_NAMES.items() if name in names}
    return {**{name: name for name in names}, **old}


def _checked(key: str, name: str, value: object, config: type[Config]) -> Entry:
    try:
        return whole(name, value) if name == POSITION_KEY else config.check_entry(name, value)
    except ConfigError as error:
        raise StateError(f"key {key!r} of the checkpoint state: {error}") from error


def _name_ignored(state: Mapping[Any, Any], config: type[Config]) -> list[str]:
    known = {*_known_keys(config), TEXT_KEY}
    ignored = [str(key) for key in state if key not in known]
    return [f"unknown keys are ignored: {', '.join(ignored)}"] if ignored else []


def _require(found: Iterable[str], keys: Iterable[str]) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        _refuse(missing[0], f"is missing (missing in all: {', '.join(missing)})")


def _read_text(text: object, config: type[Config]) -> Checkpoint:
    """Read the JSON text; what it says is believed only whole."""
    told = _parse(text)
    version = told.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        _refuse(TEXT_KEY, f"has no valid version: {version!r}")
    if version > VERSION:
        _refuse(
            TEXT_KEY,
            f"is of version {version}, and this release knows versions up to {VERSION}: "
            "upgrade dist-sched",
        )
    _require_exactly(told, ("version", UNIT_KEY, "position", config.TEXT_NAME, _HISTORY_KEY))
    checkpoint = Checkpoint(
        entries=_read_config(told[config.TEXT_NAME], config),
        position=_within_text("position", whole, told["position"]),
        unit=_within_text(UNIT_KEY, unit_word, told[UNIT_KEY]),
        history=tuple(_read_history(told[_HISTORY_KEY])),
    )
    _check_history(checkpoint, config)
    return checkpoint


def _read_config(told: object, config: type[Config]) -> dict[str, Any]:
    if not isinstance(told, dict):
        _refuse(f"{TEXT_KEY}.{config.TEXT_NAME}", f"must be an object, not {told!r}")
    try:
        return config.read(told)
    except Misfit as misfit:
        key = f"{TEXT_KEY}.{config.TEXT_NAME}.{misfit.part}"
        raise StateError(f"key {key!r} of the checkpoint state: {misfit.reason}") from misfit


def _read_history(told: object) -> Iterator[Change]:
    if not isinstance(told, list):
        _refuse(f"{TEXT_KEY}.{_HISTORY_KEY}", "must be a list")
    for index, change in enumerate(told):
        key = f"{TEXT_KEY}.{_HISTORY_KEY}[{index}]"
        if not isinstance(change, dict) or change.keys() != {"position", "operation", "arguments"}:
            _refuse(key, "must have position, operation and arguments")
        if not isinstance(change["arguments"], dict):
            _refuse(key, "must have an object as arguments")
        try:
            yield Change(**change)
        except ConfigError as error:
            raise StateError(f"key {key!r} of the checkpoint state: {error}") from error


def _check_history(checkpoint: Checkpoint, config: type[Config]) -> None:
    """Make sure that the late changes can be made again."""
    try:
        if checkpoint.history:
            with_history(config.of_parts(checkpoint.entries), checkpoint.history)
    except ConfigError as error:
        key = f"{TEXT_KEY}.{_HISTORY_KEY}"
        raise StateError(f"key {key!r} of the checkpoint state: {error}") from error


def _within_text(name: str, rule: Callable[[str, object], T], value: object) -> T:
    try:
        return rule(name, value)
    except ConfigError as error:
        raise StateError(f"key '{TEXT_KEY}.{name}' of the checkpoint state: {error}") from error


def _parse(text: object) -> dict[str, Any]:
    if not isinstance(text, str):
        _refuse(TEXT_KEY, f"must be a text, not {type(text).__name__}")
    try:
        told = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise StateError(
            f"key {TEXT_KEY!r} of the checkpoint state is not valid JSON: {error}"
        ) from error
    if not isinstance(told, dict):
        _refuse(TEXT_KEY, f"must be a JSON object, not {type(told).__name__}")
    return told


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _require_exactly(told: Mapping[str, Any], names: Iterable[str]) -> None:
    known = set(names)
    for name in sorted(told.keys() ^ known):
        reason = "is missing" if name in known else f"is not known to version {VERSION}"
        _refuse(f"{TEXT_KEY}.{name}", reason)


def _refuse(key: str, reason: str) -> NoReturn:
    raise StateError(f"key {key!r} of the checkpoint state {reason}")
