"""Foreign formats: what the states of other libraries' schedulers say, in our entries.

Only what a state says and what our entries express exactly is read. Everything else comes from the
config, and the report says so.
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

_TORCH_KEYS = {"_last_lr", "_schedulers", "_step_count", "base_lrs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What another library's state says."""

    format: str
    position: int
    warning: str
    """How far the position can be trusted."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    values: Mapping[Path, float] = field(default_factory=dict)
    """By field, the value that its first scheduled group had for the next update."""


def format_of(keys: Collection[object], name: str = "") -> str | None:
    """Return whose scheduler saved a state of these keys; None if it is not known.

    Args:
        keys: The state's keys.
        name: Under which the state stands. torchtitan saves `last_epoch` alone, so that only a name
            such as `lr_scheduler` distinguishes it from a trainer's own count.
    """
    if "last_batch_iteration" in keys:
        return DEEPSPEED
    has_count = "last_epoch" in keys
    if "_schedulers" in keys or (has_count and not _TORCH_KEYS.isdisjoint(keys)):
        return TORCH
    return TORCH if has_count and "sched" in name.lower() else None


def read(state: Mapping[Any, Any]) -> Foreign | None:
    """Read the state of another library, or return None if it is not known.

    Raises:
        StateError: It has no one position.
    """
    found = format_of(state.keys(), "scheduler")
    if found == DEEPSPEED:
        return _deepspeed(state)
    return _torch(state) if found == TORCH else None


def _deepspeed(state: Mapping[Any, Any]) -> Foreign:
    """Read DeepSpeed's count, which starts at -1: it is the number of updates less one."""
    last = state["last_batch_iteration"]
    is_new = type(last) is int and last == -1
    return Foreign(
        format=DEEPSPEED,
        position=0 if is_new else _count("last_batch_iteration", last) + 1,
        warning="the state is DeepSpeed's: it has the position alone (last_batch_iteration + 1); "
        "DeepSpeed's own curves are one update behind: they use for update k what was for k - 1",
    )


def _torch(state: Mapping[Any, Any]) -> Foreign:
    if "num_bad_epochs" in state:
        raise StateError(
            "the state is a ReduceLROnPlateau's, which counts evaluations and follows a metric: "
            "it has no position; call seek(position) with the trainer's own count, and let a "
            "dist_sched.Plateau follow the metric"
        )
    position = _torch_position(state)
    entries = _legal(_curve(state, position))
    content = f"the position, {', '.join(entries)}" if entries else "the position alone"
    return Foreign(
        format=TORCH,
        position=position,
        entries=entries,
        values=_last_lr(state),
        warning=f"the state is a torch LRScheduler's: it has {content}; its position is how often "
        "step() was called: make sure that this was once for each optimizer update (accelerate "
        "calls it once for each process, many scripts once for each epoch)",
    )


def _torch_position(state: Mapping[Any, Any]) -> int:
    if "last_epoch" in state:
        return _count("last_epoch", state["last_epoch"])
    parts = _parts(state)
    positions = {_count("_schedulers.last_epoch", part.get("last_epoch")) for part in parts}
    if len(positions) != 1:
        raise StateError(
            "key '_schedulers' of the checkpoint state: its schedulers are at positions "
            f"{shown(sorted(positions))}; they must be at one"
        )
    return positions.pop()


def _number(value: object) -> float | None:
    """Return a finite number, or None for anything else: what a tensor equals may be no bool."""
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
    """Return a list of finite numbers, or an empty one if it is anything else."""
    if not isinstance(found, list | tuple):
        return []
    try:
        is_legal = all(type(value) in {int, float} and math.isfinite(value) for value in found)
    except OverflowError:
        return []
    return list(found) if is_legal else []


def _last_lr(state: Mapping[Any, Any]) -> dict[Path, float]:
    """Return the lr that torch's scheduler had for the first group whose base lr is not 0."""
    pairs = zip(_numbers(state.get("_last_lr")), _base_lrs(state), strict=False)
    found = next((float(lr) for lr, base in pairs if base), None)
    return {} if found is None else {Path("lr"): found}


def _base_lrs(state: Mapping[Any, Any]) -> list[float]:
    parts = _parts(state)
    return _numbers((parts[0] if parts else state).get("base_lrs"))


def _curve(state: Mapping[Any, Any], position: int) -> dict[str, Any]:
    """Return torch's curve in our entries, where they express it to its end."""
    bases = {base for base in _base_lrs(state) if base}
    if len(bases) != 1:
        return {}  # torch's floors are absolute for each group, ours follow the ratio
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
    """Return the entries of a fall that begins at a position, by torch's own parameters."""
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
    """Return style, peak, floor and length of a scheduler that falls from a base lr."""
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
    """Return the entries as plain values if they are legal here, else none."""
    try:
        config = OptimizerParamConfig.from_parts({**entries, **_NO_DECAY})
    except ConfigError:
        return {}
    return {name: value for name, value in config.parts().items() if name in entries}
