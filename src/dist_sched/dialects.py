"""Dialects: what the states of other libraries' schedulers tell, in our words.

Told is only what the state says and what our entries can express exactly; everything else is the
config's, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dist_sched.config import Entry, OptimizerParamConfig, whole
from dist_sched.errors import ConfigError, StateError

TORCH = "torch LRScheduler"
DEEPSPEED = "DeepSpeed"

_TORCH_KEYS = {"_last_lr", "_schedulers", "_step_count", "base_lrs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What another library's state tells."""

    dialect: str
    position: int
    warning: str
    """How far the position can be trusted."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    """By field, what the source's first scheduled group had for its next update."""


def dialect_of(keys: Collection[object], name: str = "") -> str | None:
    """Tell from its keys whose scheduler a state is; None if no known one's.

    Args:
        keys: The state's keys.
        name: Under which the state stands: torchtitan saves `last_epoch` alone, so that nothing
            but a name such as `lr_scheduler` tells it from a trainer's own count.
    """
    if "last_batch_iteration" in keys:
        return DEEPSPEED
    has_count = "last_epoch" in keys
    if "_schedulers" in keys or (has_count and not _TORCH_KEYS.isdisjoint(keys)):
        return TORCH
    return TORCH if has_count and "sched" in name.lower() else None


def tell(state: Mapping[Any, Any]) -> Told | None:
    """Say what a state tells, or None if it is none of another library.

    Raises:
        StateError: Its position is none, or it does not follow from the position at all.
    """
    dialect = dialect_of(state.keys(), "scheduler")
    if dialect == DEEPSPEED:
        return _deepspeed(state)
    return _torch(state) if dialect == TORCH else None


def _deepspeed(state: Mapping[Any, Any]) -> Told:
    """Read DeepSpeed's count, which starts at -1: it is the number of updates less one."""
    last = state["last_batch_iteration"]
    is_new = type(last) is int and last == -1
    return Told(
        dialect=DEEPSPEED,
        position=0 if is_new else _count("last_batch_iteration", last) + 1,
        warning="the state is DeepSpeed's: it tells the position alone (last_batch_iteration + 1); "
        "DeepSpeed's own curves are one update behind: they use for update k what was for k - 1",
    )


def _torch(state: Mapping[Any, Any]) -> Told:
    if "num_bad_epochs" in state:
        raise StateError(
            "the state is a ReduceLROnPlateau's, which counts evaluations and follows a metric: "
            "no position can be told from it; call seek(position) with the trainer's own count"
        )
    position = _torch_position(state)
    entries = _legal(_curve(state, position))
    told = f"the position, {', '.join(entries)}" if entries else "the position alone"
    return Told(
        dialect=TORCH,
        position=position,
        entries=entries,
        values=_last_lr(state),
        warning=f"the state is a torch LRScheduler's: it tells {told}; its position is how often "
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
            f"{sorted(positions)}; no one position can be told"
        )
    return positions.pop()


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
    """Give a list of finite numbers, or an empty one if it is anything else."""
    if not isinstance(found, list | tuple):
        return []
    is_legal = all(type(value) in {int, float} and math.isfinite(value) for value in found)
    return list(found) if is_legal else []


def _last_lr(state: Mapping[Any, Any]) -> dict[str, float]:
    """Give the lr that torch's scheduler had for the first group that is scheduled."""
    pairs = zip(_numbers(state.get("_last_lr")), _base_lrs(state), strict=False)
    found = next((float(lr) for lr, base in pairs if base), None)
    return {} if found is None else {"lr": found}


def _base_lrs(state: Mapping[Any, Any]) -> list[float]:
    parts = _parts(state)
    return _numbers((parts[0] if parts else state).get("base_lrs"))


def _curve(state: Mapping[Any, Any], position: int) -> dict[str, Any]:
    """Tell torch's curve in our entries, where they can express it to its end."""
    bases = {base for base in _base_lrs(state) if base}
    if len(bases) != 1:
        return {}  # torch's floors are absolute for each group, ours follow the ratio
    base = bases.pop()
    parts = _parts(state)
    if "_schedulers" not in state:
        return _decay(state, base, 0, position)
    joins = _numbers(state.get("_milestones"))
    if len(joins) != 1 or len(parts) != len(joins) + 1:
        return {}
    (join,), (rise, fall) = joins, parts
    is_warmup = rise.get("total_iters") == join and rise.get("end_factor") == 1
    start = _numbers([rise.get("start_factor")])
    decay = _decay(fall, base, join, position)
    if not (is_warmup and start and decay):
        return {}
    return {**decay, "init_lr": start[0] * base}


def _decay(state: Mapping[Any, Any], base: float, start: float, position: int) -> dict[str, Any]:
    """Tell a fall from the base lr that begins at a position, by torch's own parameters."""
    told: dict[str, Any] = {}
    if {"T_max", "eta_min"} <= state.keys() and position <= start + _length(state["T_max"]):
        # past T_max, torch's cosine climbs again
        told = {"lr_decay_style": "cosine", "min_lr": state["eta_min"], "max_lr": base}
        told["lr_decay_steps"] = start + _length(state["T_max"])
    elif {"start_factor", "end_factor", "total_iters"} <= state.keys():
        ends = _numbers([state["start_factor"], state["end_factor"]])
        if ends and (ends[0] == 1 or not start):
            told = {"lr_decay_style": "linear", "min_lr": ends[1] * base, "max_lr": ends[0] * base}
            told["lr_decay_steps"] = start + _length(state["total_iters"])
    elif state.get("power") == 1 and "total_iters" in state:
        told = {"lr_decay_style": "linear", "min_lr": 0.0, "max_lr": base}
        told["lr_decay_steps"] = start + _length(state["total_iters"])
    return {**told, "init_lr": told["max_lr"], "lr_warmup_steps": start} if told else {}


def _length(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _legal(entries: Mapping[str, Any]) -> dict[str, Entry]:
    """Give the entries if each is legal here and they fit together, else none."""
    names = OptimizerParamConfig.entry_names()
    told = {name: entries[name] for name in names if name in entries}
    try:
        checked = {name: OptimizerParamConfig.check_entry(name, told[name]) for name in told}
    except ConfigError:
        return {}
    is_whole = not checked or entries["lr_warmup_steps"] < entries["lr_decay_steps"]
    return checked if is_whole and _fits(checked) else {}


def _fits(checked: Mapping[str, Any]) -> bool:
    return not checked or max(checked["init_lr"], checked["min_lr"]) <= checked["max_lr"]
