"""DeepSpeed: the block `scheduler`, with the optimizer's lr and the length of the run."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dist_sched._curves.phases import Phase, phase_of
from dist_sched._curves.schedule import Schedule
from dist_sched._peers.block import REQUIRED, Key, read, steps
from dist_sched._peers.pieces import flat, hold, lasting, padded, refuse_many, through
from dist_sched._rules import (
    flag,
    illegal,
    mapping,
    number,
    one_of,
    positive,
    rate,
    whole,
    within,
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_AUTO = "auto"
_REFUSED = {
    "last_batch_iteration": "is the position of a resume, not a part of the schedule; leave it out"
}


def _written(rule: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """Return a rule with advice for values that transformers fills in."""

    def check(name: str, value: object) -> Any:
        if isinstance(value, str) and value == _AUTO:
            raise illegal(name, value, "is filled in by transformers; write the number")
        if isinstance(value, list | tuple):
            of_groups = "must be a single number; for several groups, give each its own lr"
            raise illegal(name, value, of_groups)
        return rule(name, value)

    return check


def _type(name: str, value: object) -> str:
    return one_of(tuple(_TYPES))(name, value)


_BLOCK = {
    "type": Key(_type, REQUIRED),
    "params": Key(mapping, REQUIRED),
    "lr": Key(_written(positive)),
    "total_num_steps": Key(_written(steps)),
}


def schedule(block: object) -> Schedule:
    """Return the schedule of a block.

    `last_batch_iteration` is -1 at position 0 and n - 1 at position n.
    """
    words = read(block, _BLOCK)
    with within(words["type"]):
        return _TYPES[words["type"]](words["params"], words["lr"], words["total_num_steps"])


_WARMUP = {
    "warmup_num_steps": Key(_written(steps), 1000),
    "warmup_type": Key(one_of(("log", "linear")), "log"),
}
_LINEAR = {**_WARMUP, "warmup_min_lr": Key(_written(rate), 0.0)}
_TOTAL = {"total_num_steps": Key(_written(steps), REQUIRED)}


def _read(params: object, keys: dict[str, Key]) -> dict[str, Any]:
    with within("params"):
        return read(params, keys, refused=_REFUSED)


def _warmup_lr(params: object, lr: float | None, total: int | None) -> Schedule:
    words = _read(params, {**_LINEAR, "warmup_max_lr": Key(_written(rate))})
    low, high = words["warmup_min_lr"], words["warmup_max_lr"]
    if high is None:
        high = _needed(lr, "warmup_max_lr, or lr of the optimizer beside type and params")
    return padded(Schedule([hold(1, low), _rise(words, low, high)]), total)


def _warmup_decay_lr(params: object, _lr: float | None, total: int | None) -> Schedule:
    keys = {**_LINEAR, **_TOTAL, "warmup_max_lr": Key(_written(rate), 0.001)}
    words = _read(params, keys)
    low, high, warmup = words["warmup_min_lr"], words["warmup_max_lr"], _length(words)
    left = words["total_num_steps"] - warmup
    fall = flat(low)
    if left > 0:
        fall = Schedule([hold(warmup, high), phase_of("linear", left, low, high)])
    return padded(_decayed(low, _rise(words, low, high), warmup, fall), total)


def _warmup_cosine_lr(params: object, lr: float | None, total: int | None) -> Schedule:
    keys = {
        **_WARMUP,
        **_TOTAL,
        "warmup_min_ratio": Key(_written(rate), 0.0),
        "cos_min_ratio": Key(_written(rate), 0.0001),
    }
    words = _read(params, keys)
    high = _needed(lr, "lr of the optimizer, beside type and params")
    low, floor = high * words["warmup_min_ratio"], high * words["cos_min_ratio"]
    warmup = _length(words)
    left = words["total_num_steps"] - warmup
    fall = flat(floor)
    if left > 0:
        # The decay is one update ahead of the warmup.
        fall = Schedule([hold(warmup - 1, high), phase_of("cosine", left, floor, high)])
    # Before its first step the ratio is always 0.
    return padded(_decayed(0.0, _rise(words, low, high), warmup, fall), total)


def _rise(words: dict[str, Any], low: float, high: float) -> Phase:
    """Return the warmup, which begins at `last_batch_iteration` 0."""
    if words["warmup_type"] == "linear":
        return phase_of("linear", _length(words), high, low)
    return phase_of("log", _length(words) - 1, high, low)


def _length(words: dict[str, Any]) -> int:
    found: int = words["warmup_num_steps"]
    return max(2, found)


def _decayed(first: float, rise: Phase, warmup: int, fall: Schedule) -> Schedule:
    """Return the warmup and a decay by `last_batch_iteration`, which begins at -1."""
    return Schedule([hold(1, first), *through(Schedule([rise]), warmup - 1, fall).phases])


_ONE_CYCLE = {
    "cycle_min_lr": Key(_written(rate), REQUIRED),
    "cycle_max_lr": Key(_written(rate), REQUIRED),
    "decay_lr_rate": Key(_written(rate), 0.0),
    "cycle_first_step_size": Key(_written(steps), 2000),
    "cycle_second_step_size": Key(_written(whole)),
    "cycle_first_stair_count": Key(_written(whole), 0),
    "cycle_second_stair_count": Key(_written(whole)),
    "decay_step_size": Key(_written(whole), 0),
    "cycle_momentum": Key(flag, True),
    # Without an effect if the momentum does not cycle.
    "cycle_min_mom": Key(number),
    "cycle_max_mom": Key(number),
    "decay_mom_rate": Key(number),
}


def _one_cycle(params: object, _lr: float | None, total: int | None) -> Schedule:
    words = _read(params, _ONE_CYCLE)
    if words["cycle_momentum"]:
        rule = (
            "also changes betas[0], but this is a schedule of lr; write False, and schedule the "
            "field 'betas[0]' separately"
        )
        raise illegal("cycle_momentum", True, rule)
    low, high = words["cycle_min_lr"], words["cycle_max_lr"]
    first, second = words["cycle_first_step_size"], words["cycle_second_step_size"]
    up, down = words["cycle_first_stair_count"], words["cycle_second_stair_count"]
    second, down = first if second is None else second, up if down is None else down
    cycle = first + second
    stairs = [*_stairs_up(first, up, low, high), *_stairs_down(first, second, down, low, high)]
    # If the fall has length 0, or its stairs end above the lowest value.
    phases = stairs if stairs[-1].end == low else [*stairs, hold(0, low)]
    interval, falling = words["decay_step_size"], words["decay_lr_rate"]
    if interval and falling and low:
        if total is None:
            rule = "never ends; pass total_num_steps beside type and params"
            raise illegal("decay_lr_rate", falling, rule)
        if total > cycle:
            end = low / (1 + falling * (total - cycle) / interval)
            phases = [*stairs, phase_of("inverse", total - cycle, end, low)]
    return padded(Schedule(phases), total)


def _stairs_up(units: int, count: int, low: float, high: float) -> list[Phase]:
    """Return the rise. With stairs, stair k of `count` begins at `k / count` of its length."""
    if not count:
        return [phase_of("linear", units, high, low)]
    refuse_many("cycle_first_stair_count", count, count)
    begins = [-(-index * units // count) for index in range(count + 1)]
    return [
        hold(end - begin, low + (high - low) * index / count)
        for index, (begin, end) in enumerate(pairwise(begins))
        if end > begin
    ]


def _stairs_down(before: int, units: int, count: int, low: float, high: float) -> list[Phase]:
    """Return the fall. With stairs, only its first position has the highest value."""
    if not units:
        return []
    if not count:
        return [phase_of("linear", units, low, high)]
    refuse_many("cycle_second_stair_count", count, count)
    end = before + units
    phases, begin = [hold(1, high)], before + 1
    for index in reversed(range(count)):
        after = min(end - -(-index * units // count) + 1, end)
        phases += lasting(hold(after - begin, low + (high - low) * index / count))
        begin = after
    return phases


_RANGE_TEST = {
    "lr_range_test_min_lr": Key(_written(positive), 1e-3),
    "lr_range_test_step_size": Key(_written(steps), 2000),
    "lr_range_test_step_rate": Key(_written(rate), 1.0),
    "lr_range_test_staircase": Key(flag, False),
}


def _range_test(params: object, _lr: float | None, total: int | None) -> Schedule:
    words = _read(params, _RANGE_TEST)
    end = _needed(total, "total_num_steps beside type and params, because the test has no end")
    low, size = words["lr_range_test_min_lr"], words["lr_range_test_step_size"]
    slope = low * words["lr_range_test_step_rate"]
    if not words["lr_range_test_staircase"]:
        return Schedule([phase_of("linear", end, low + slope * end / size, low)])
    refuse_many("lr_range_test_step_size", size, end / size)
    last = end // size
    stairs = [hold(size, low + slope * index) for index in range(last)]
    return Schedule([*stairs, hold(end - last * size, low + slope * last)])


def _needed(value: Any, words: str) -> Any:
    if value is None:
        raise ConfigError(f"lacks {words}")
    return value


_TYPES: dict[str, Callable[[object, float | None, int | None], Schedule]] = {
    "WarmupLR": _warmup_lr,
    "WarmupDecayLR": _warmup_decay_lr,
    "WarmupCosineLR": _warmup_cosine_lr,
    "OneCycle": _one_cycle,
    "LRRangeTest": _range_test,
}
