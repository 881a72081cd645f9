"""Foreign formats: reading the states of other libraries' schedulers into our entries.

An entry is read only if the state has it and our entries express it exactly. All others come from
the config, and the report tells which.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._rules import Entry, plain, shown, whole
from dist_sched.errors import ConfigError, StateError

TORCH = "torch LRScheduler"
DEEPSPEED = "DeepSpeed"

_TORCH_KEYS = {"_last_lr", "_step_count", "base_lrs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """The contents of another library's state."""

    format: str
    position: int
    warning: str
    """A warning about the position."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    values: Mapping[Path, float] = field(default_factory=dict)
    """The first scheduled group's value for the next update, by field."""


def format_of(keys: Collection[object], name: str = "") -> str | None:
    """Return which library's scheduler saved a state with these keys, or None.

    Args:
        keys: Keys of the state.
        name: Name of the state in the checkpoint. torchtitan saves `last_epoch` alone, and only a
            name such as `lr_scheduler` distinguishes it from a trainer's counter.
    """
    if "last_batch_iteration" in keys:
        return DEEPSPEED
    has_count = "last_epoch" in keys
    if "_schedulers" in keys or (has_count and not _TORCH_KEYS.isdisjoint(keys)):
        return TORCH
    return TORCH if has_count and "sched" in name.lower() else None


def read(state: Mapping[Any, Any]) -> Foreign | None:
    """Read the state of another library, or return None if the library is not known.

    Raises:
        StateError: The state does not have a single position.
    """
    found = format_of(state.keys(), "scheduler")
    if found == DEEPSPEED:
        return _deepspeed(state)
    return _torch(state) if found == TORCH else None


def _deepspeed(state: Mapping[Any, Any]) -> Foreign:
    """Read DeepSpeed's count, which starts at -1 and is the number of updates minus one."""
    last = state["last_batch_iteration"]
    is_new = type(last) is int and last == -1
    return Foreign(
        format=DEEPSPEED,
        position=0 if is_new else _count("last_batch_iteration", last) + 1,
        warning="the state is DeepSpeed's: only its position is used (last_batch_iteration + 1); "
        "DeepSpeed's schedules are one update late, so values can differ by one update",
    )


def _torch(state: Mapping[Any, Any]) -> Foreign:
    if "num_bad_epochs" in state:
        raise StateError(
            "the state is from torch's ReduceLROnPlateau, which follows a metric and has no "
            "position; call scheduler.seek(position) with the trainer's count of updates, and use "
            "dist_sched.Plateau for the metric"
        )
    position = _torch_position(state)
    entries = _legal(_curve(state, position))
    content = f"its position and {', '.join(entries)} are" if entries else "only its position is"
    return Foreign(
        format=TORCH,
        position=position,
        entries=entries,
        values=_last_lr(state),
        warning=f"the state is a torch LRScheduler's: {content} used; the position is the number "
        "of its step() calls, so check that step() was called once per optimizer update "
        "(accelerate calls it once per process, many scripts once per epoch)",
    )


def _torch_position(state: Mapping[Any, Any]) -> int:
    if "last_epoch" in state:
        return _count("last_epoch", state["last_epoch"])
    parts = _parts(state)
    positions = {_count("_schedulers.last_epoch", part.get("last_epoch")) for part in parts}
    if len(positions) != 1:
        raise StateError(
            "key '_schedulers' of the checkpoint state: its schedulers are at the positions "
            f"{shown(sorted(positions))}, which must be equal; call scheduler.seek(position) with "
            "the trainer's count of updates instead"
        )
    return positions.pop()


def _number(value: object) -> float | None:
    """Return a finite number, or None for anything else, such as a tensor."""
    found = _numbers([plain(value)])
    return found[0] if found else None


def _count(key: str, value: object) -> int:
    try:
        return whole(key, value)
    except ConfigError as error:
        raise StateError(f"key {key!r} of the checkpoint state: {error}") from error


def _parts(state: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    found = state.get("_schedulers")
    if not isinstance(found, list | tuple):
        return []
    return [part for part in found if isinstance(part, Mapping)]


def _numbers(found: object) -> list[float]:
    """Return a list of finite numbers, or an empty list for anything else."""
    if not isinstance(found, list | tuple):
        return []
    try:
        is_legal = all(type(value) in {int, float} and math.isfinite(value) for value in found)
    except OverflowError:
        return []
    return list(found) if is_legal else []


def _last_lr(state: Mapping[Any, Any]) -> dict[Path, float]:
    """Return the last lr of the first group whose base lr is not 0."""
    pairs = zip(_numbers(state.get("_last_lr")), _base_lrs(state), strict=False)
    found = next((float(lr) for lr, base in pairs if base), None)
    return {} if found is None else {Path("lr"): found}


def _base_lrs(state: Mapping[Any, Any]) -> list[float]:
    parts = _parts(state)
    return _numbers((parts[0] if parts else state).get("base_lrs"))


def _curve(state: Mapping[Any, Any], position: int) -> dict[str, Any]:
    """Return torch's curve as our entries, or nothing if they cannot express it."""
    bases = {base for base in _base_lrs(state) if base}
    if len(bases) != 1:
        return {}  # torch has one floor for all groups, and ours is in proportion to the ratio
    base = bases.pop()
    parts = _parts(state)
    if "_schedulers" not in state:
        return _decay(state, base, 0, position)
    milestones = _numbers(state.get("_milestones"))
    if len(milestones) != 1 or len(parts) != len(milestones) + 1:
        return {}
    (warmup,), (rise, fall) = milestones, parts
    is_warmup = _number(rise.get("total_iters")) == warmup and _number(rise.get("end_factor")) == 1
    start = _number(rise.get("start_factor"))
    decay = _decay(fall, base, warmup, position)
    if not is_warmup or start is None or not decay:
        return {}
    return {**decay, "init_lr": start * base}


def _decay(state: Mapping[Any, Any], base: float, start: float, position: int) -> dict[str, Any]:
    """Return the entries of a decay that begins at `start`."""
    fall = _fall(state, base)
    if fall is None:
        return {}
    style, peak, floor, length = fall
    climbs_again = style == "cosine" and position > start + length
    jumps = start > 0 and peak != base
    if climbs_again or jumps:
        return {}
    return {
        "init_lr": peak,
        "max_lr": peak,
        "min_lr": floor,
        "lr_warmup_steps": start,
        "lr_decay_steps": start + length,
        "lr_decay_style": style,
    }


def _fall(state: Mapping[Any, Any], base: float) -> tuple[str, float, Any, int] | None:
    """Return style, peak, floor and length of a scheduler that decays from a base lr."""
    if {"T_max", "eta_min"} <= state.keys():
        return "cosine", base, state["eta_min"], _length(state["T_max"])
    ends = _numbers([state.get("start_factor"), state.get("end_factor")])
    if ends:
        return "linear", ends[0] * base, ends[1] * base, _length(state.get("total_iters"))
    if _number(state.get("power")) == 1:
        return "linear", base, 0.0, _length(state.get("total_iters"))
    return None


def _length(value: object) -> int:
    return value if type(value) is int else 0


_NO_DECAY = {"start_wd": 0.0, "end_wd": 0.0, "wd_incr_steps": 0, "wd_incr_style": "constant"}


def _legal(entries: Mapping[str, Any]) -> dict[str, Entry]:
    """Return the entries as plain values if they are valid here, or nothing."""
    try:
        config = OptimizerParamConfig.from_parts({**entries, **_NO_DECAY})
    except ConfigError:
        return {}
    return {name: value for name, value in config.parts().items() if name in entries}
