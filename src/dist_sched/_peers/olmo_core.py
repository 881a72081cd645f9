"""OLMo-core: its schedulers, with the optimizer's lr and the length of the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dist_sched._curves.phases import Phase, phase_of
from dist_sched._curves.schedule import Schedule
from dist_sched._peers.block import REQUIRED, Key, entries, one_given, read, share, steps
from dist_sched._peers.pieces import chained, flat, hold, lasting, padded, since, through, up_to
from dist_sched._rules import (
    illegal,
    listed,
    mapping,
    near_miss,
    one_of,
    plain,
    positive,
    rate,
    refuse_unknown,
    whole,
    within,
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UNITS = {"steps": "max_steps", "tokens": "max_tokens"}

_RUN = {
    "lr": Key(positive, REQUIRED),
    "units": Key(one_of(tuple(_UNITS)), "steps"),
    "max_steps": Key(steps),
    "max_tokens": Key(steps),
    "global_batch_size": Key(steps),
}


def schedule(block: object) -> Schedule:
    """Return the schedule of a block.

    OLMo-core counts an update before the update. So its `current` at position n is n + 1 or, in
    tokens, n plus the tokens of one batch.
    """
    given = mapping("block", block)
    refuse_unknown(given, _KNOWN, "is not known here")
    words = read({name: given[name] for name in given if name in _RUN}, _RUN)
    ahead = 1
    if words["units"] == "tokens":
        ahead = words["global_batch_size"]
        if ahead is None:
            raise ConfigError("lacks global_batch_size, the number of tokens of an update")
    own = {name: value for name, value in given.items() if name not in _RUN}
    return since(_built(own, words["lr"], words[_UNITS[words["units"]]]), ahead)


def _built(block: object, lr: float, t_max: int | None) -> Schedule:
    """Return the schedule of a scheduler, as a function of its `current`."""
    own = dict(mapping("block", block))
    # A saved config has both, of which OLMo-core reads the class.
    by_class, by_type = own.pop("_CLASS_", None), own.pop("type", None)
    for name, value in {"_CLASS_": by_class, "type": by_type}.items():
        if value is not None:
            build = _scheduler(name, value)
            with within(str(value).rpartition(".")[2]):
                return build(own, lr, t_max)
    raise ConfigError(f"lacks type, the kind of scheduler; must be one of {listed(_TYPES)}")


def _scheduler(name: str, value: object) -> Callable[..., Schedule]:
    word = value.rpartition(".")[2] if isinstance(value, str) else ""
    found = _TYPES.get(_CLASSES.get(word, word))
    if found is None:
        known = [*_TYPES, *_CLASSES]
        raise illegal(name, value, f"must be one of {listed(_TYPES)}{near_miss(value, known)}")
    return found


_COMMON = {
    # Also in schedulers inside a sequential one. The outermost unit is used.
    "units": Key(one_of(tuple(_UNITS))),
    "lr_field": Key(one_of(("lr",))),
    "initial_lr_field": Key(one_of(("initial_lr",))),
}
_WARMUP = {
    **_COMMON,
    "warmup": Key(whole),
    "warmup_steps": Key(whole),
    "warmup_fraction": Key(share),
    "warmup_min_lr": Key(rate, 0.0),
}
_DECAY = {
    "decay": Key(whole),
    "decay_steps": Key(whole),
    "decay_fraction": Key(share),
    "decay_min_lr": Key(rate, 0.0),
}
_FALL = {**_WARMUP, "alpha_f": Key(rate, 0.1)}


def _end(t_max: int | None) -> int:
    if t_max is None:
        raise ConfigError("lacks max_steps, or max_tokens if units is tokens")
    return t_max


def _given(words: Mapping[str, Any], name: str) -> str:
    """Return the key of a length: its name, its old name, or the fraction of the run."""
    return one_given(words, name, f"{name}_steps", f"{name}_fraction")


def _length(words: Mapping[str, Any], name: str, t_max: int | None) -> int:
    """Return a length, in units. A fraction of the run is rounded like in OLMo-core."""
    given = _given(words, name)
    found: int = words[given]
    return round(_end(t_max) * found) if given.endswith("fraction") else found


def _rise(words: Mapping[str, Any], steps: int, peak: float) -> list[Phase]:
    """Return the warmup, if there is one."""
    start = words["warmup_min_lr"]
    if steps and start >= peak:
        raise illegal("warmup_min_lr", start, f"must be below the peak, {peak!r}")
    return lasting(phase_of("linear", steps, peak, start))


def _tail(
    words: Mapping[str, Any], t_max: int, start_at: Callable[[int], float]
) -> tuple[int, Phase]:
    """Return where the linear decay begins, and the decay."""
    if words["decay"] is words["decay_steps"] is words["decay_fraction"] is None:
        words = {**words, "decay_fraction": 0.1}
    steps, low = _length(words, "decay", t_max), words["decay_min_lr"]
    if not 0 < steps <= t_max:
        given = _given(words, "decay")
        rule = f"is {steps} units; must be from 1 to the length of the run, {t_max!r}"
        raise illegal(given, words[given], rule)
    start = start_at(t_max - steps)
    if low >= start:
        raise illegal("decay_min_lr", low, f"must be below {start!r}, where the decay begins")
    return t_max - steps, phase_of("linear", steps, low, start)


def _constant(block: object, lr: float, t_max: int | None) -> Schedule:
    read(block, _COMMON)
    return padded(flat(lr), t_max)


def _constant_with_warmup(block: object, lr: float, t_max: int | None) -> Schedule:
    words = read(block, _WARMUP)
    rise = _rise(words, _length(words, "warmup", t_max), lr)
    return padded(Schedule([*rise, hold(0, lr)]), t_max)


def _wsd(block: object, lr: float, t_max: int | None) -> Schedule:
    words, end = read(block, {**_WARMUP, **_DECAY}), _end(t_max)
    warmup = _length(words, "warmup", end)
    begin, tail = _tail(words, end, flat(lr))
    return _warmed(words, warmup, lr, Schedule([*lasting(hold(begin, lr)), tail]))


def _warmed(words: Mapping[str, Any], steps: int, lr: float, after: Schedule) -> Schedule:
    """Return a warmup that includes its last position, and the schedule after it."""
    rise = _rise(words, steps, lr)
    return through(Schedule(rise), steps, after) if rise else after


def _power_lr(block: object, lr: float, t_max: int | None) -> Schedule:
    words, end = read(block, {**_WARMUP, **_DECAY, "b": Key(_negative, -0.51)}), _end(t_max)
    warmup, power = _length(words, "warmup", end), words["b"]
    if not warmup:
        given = _given(words, "warmup")
        raise illegal(given, words[given], "must be at least 1 unit, because the formula needs it")

    def law(position: int) -> float:
        if not position:
            given = _given(words, "decay")
            rule = "must be less than the run, because the formula is infinite at position 0"
            raise illegal(given, words[given], rule)
        return float(lr * (position / warmup) ** power)

    begin, tail = _tail(words, end, law)
    if begin <= warmup:
        return _warmed(words, warmup, lr, Schedule([hold(begin, law(begin)), tail]))
    fall = phase_of("power_law", begin - warmup, law(begin), lr, power=-power)
    return Schedule([*_rise(words, warmup, lr), fall, tail])


def _negative(name: str, value: object) -> float:
    found = plain(value)
    if not isinstance(found, int | float) or not -math.inf < found < 0:
        raise illegal(name, value, "must be a number below 0")
    return float(found)


def _inv_sqrt(block: object, lr: float, t_max: int | None) -> Schedule:
    words, end = read(block, _FALL), _end(t_max)
    warmup, low = _length(words, "warmup", end), lr * words["alpha_f"]
    if not warmup:
        # The square root of warmup / current is 0.
        return padded(flat(low), end)
    rise = _rise(words, warmup, lr)
    if end <= warmup:
        return Schedule(rise)
    last = low + (lr - low) * math.sqrt(warmup / end)
    return Schedule([*rise, phase_of("inverse_sqrt", end - warmup, last, lr, timescale=warmup)])


def _decayed(
    words: Mapping[str, Any], t_max: int | None, peak: float, fall: Callable[[int], Phase]
) -> Schedule:
    """Return the warmup and a fall over the rest, or its last value if there is no rest."""
    end = words["t_max"] or _end(t_max)
    warmup = _length(words, "warmup", end)
    last = fall(end - warmup) if end > warmup else hold(0, fall(1).end)
    return Schedule([*_rise(words, warmup, peak), last])


_OWN_END = {**_FALL, "t_max": Key(steps)}


def _cosine(block: object, lr: float, t_max: int | None) -> Schedule:
    words = read(block, _OWN_END)
    low = lr * words["alpha_f"]
    return _decayed(words, t_max, lr, lambda rest: phase_of("cosine", rest, low, lr))


def _linear(block: object, lr: float, t_max: int | None) -> Schedule:
    words = read(block, _OWN_END)
    low = lr * words["alpha_f"]
    return _decayed(words, t_max, lr, lambda rest: phase_of("linear", rest, low, lr))


def _half_cosine(block: object, lr: float, t_max: int | None) -> Schedule:
    words = read(block, _OWN_END)
    low = lr * words["alpha_f"]

    def fall(rest: int) -> Phase:
        return phase_of("cosine", 2 * rest, low, lr, since=rest)

    return _decayed(words, t_max, low + (lr - low) / 2, fall)


def _cosine_and_tail(block: object, lr: float, t_max: int | None) -> Schedule:
    given = mapping("block", block)
    words, end = read(given, {**_OWN_END, **_DECAY}), _end(t_max)
    cosine = _cosine({name: given[name] for name in given if name in _OWN_END}, lr, end)
    begin, tail = _tail(words, end, cosine)
    return Schedule([*up_to(cosine, begin), tail])


_PERIODS = {
    **_COMMON,
    "period_lengths": Key(entries, REQUIRED),
    "period_lr_multipliers": Key(entries),
    "warmup": Key(whole),
    "warmup_fraction": Key(share),
    "decay": Key(whole),
    "decay_fraction": Key(share),
    "warmup_min_lr": Key(rate, 0.0),
    "decay_min_lr": Key(rate, 0.0),
}


def _wsds(block: object, lr: float, t_max: int | None) -> Schedule:
    words = {"warmup_steps": None, "decay_steps": None, **read(block, _PERIODS)}
    lengths = [steps("period_lengths", one) for one in words["period_lengths"]]
    factors = [
        positive("period_lr_multipliers", one)
        for one in words["period_lr_multipliers"] or [1.0] * len(lengths)
    ]
    if len(factors) != len(lengths):
        rule = f"must be a list of {len(lengths)} numbers, one for each of period_lengths"
        raise illegal("period_lr_multipliers", words["period_lr_multipliers"], rule)
    warmup = _length(words, "warmup", lengths[0])
    periods = []
    for index, (length, factor) in enumerate(zip(lengths, factors, strict=True)):
        peak, used = lr * factor, 0 if index else warmup
        with within(f"period {index}"):
            begin, tail = _tail(words, length, flat(peak))
            if begin < used:
                given = _given(words, "decay")
                rule = f"is too long beside the warmup of {warmup} in {length} units"
                raise illegal(given, words[given], rule)
        rise = _rise(words, used, peak)
        periods.append(Schedule([*rise, *lasting(hold(begin - used, peak)), tail]))
    return padded(chained(periods), t_max)


def _exponential(block: object, lr: float, t_max: int | None) -> Schedule:
    words = read(block, {**_COMMON, "lr_min": Key(positive, 1e-9)})
    return Schedule([phase_of("exponential", _end(t_max), lr, words["lr_min"])])


_STAGE = {
    "duration": Key(steps, REQUIRED),
    "shape": Key(one_of(("linear", "cosine")), "linear"),
    "end_lr": Key(rate),
    "end_lr_fraction": Key(rate),
}


def _reached(words: Mapping[str, Any], lr: float) -> float:
    name = one_given(words, "end_lr", "end_lr_fraction")
    found: float = words[name] if name == "end_lr" else lr * words[name]
    return found


def _composable(block: object, lr: float, t_max: int | None) -> Schedule:
    keys = {**_COMMON, "stages": Key(entries, REQUIRED), "override_decay": Key(mapping)}
    words = read(block, keys)
    phases: list[Phase] = []
    before = lr
    for index, stage in enumerate(words["stages"]):
        with within(f"stages[{index}]"):
            own = read(stage, {**_STAGE, "start_lr": Key(rate), "start_lr_fraction": Key(rate)})
            start = before
            if own["start_lr"] is not None or own["start_lr_fraction"] is not None:
                name = one_given(own, "start_lr", "start_lr_fraction")
                start = own[name] if name == "start_lr" else lr * own[name]
            before = _reached(own, lr)
            phases.append(phase_of(own["shape"], own["duration"], before, start))
    return _overridden(padded(Schedule(phases), t_max), words["override_decay"], lr)


def _overridden(main: Schedule, block: object, lr: float) -> Schedule:
    """Return the schedule with a late decay, which replaces the rest from its start on."""
    if block is None:
        return main
    with within("override_decay"):
        words = read(block, {**_STAGE, "start": Key(whole, REQUIRED)})
        begin, end = words["start"], _reached(words, lr)
    fall = phase_of(words["shape"], words["duration"], end, main(begin))
    return Schedule([*up_to(main, begin), fall])


_SEQUENCE = {
    **_COMMON,
    "schedulers": Key(entries, REQUIRED),
    "schedulers_max": Key(entries),
    "schedulers_max_steps": Key(entries),
    "override_decay": Key(mapping),
}


def _sequential(block: object, lr: float, t_max: int | None) -> Schedule:
    words, left = read(block, _SEQUENCE), _end(t_max)
    name = one_given(words, "schedulers_max", "schedulers_max_steps")
    blocks, ends = words["schedulers"], [steps(name, one) for one in words[name]]
    if len(ends) not in {len(blocks), len(blocks) - 1}:
        rule = f"must be a list of {len(blocks) - 1}, one for each scheduler except the last"
        raise illegal(name, words[name], rule)
    peak = lr
    parts = []
    for index, one in enumerate(blocks):
        is_last = index == len(blocks) - 1 or left <= ends[index]
        end = left if is_last else ends[index]
        with within(f"schedulers[{index}]"):
            built = _built(one, peak, end)
        if is_last:
            parts.append(built)
            break
        parts.append(Schedule(up_to(built, end)))
        peak, left = parts[-1].end_value, left - end
    return _overridden(chained(parts), words["override_decay"], lr)


_TYPES: dict[str, Callable[[object, float, int | None], Schedule]] = {
    "constant": _constant,
    "constant_with_warmup": _constant_with_warmup,
    "wsd": _wsd,
    "power_lr": _power_lr,
    "linear_with_warmup": _linear,
    "inv_sqrt_with_warmup": _inv_sqrt,
    "cos_with_warmup": _cosine,
    "half_cos_with_warmup": _half_cosine,
    "cos_with_warmup_and_linear_decay": _cosine_and_tail,
    "composable": _composable,
    "sequential": _sequential,
    "wsds": _wsds,
    "exponential": _exponential,
}
_CLASSES = {
    "ConstantScheduler": "constant",
    "ConstantWithWarmup": "constant_with_warmup",
    "WSD": "wsd",
    "PowerLR": "power_lr",
    "LinearWithWarmup": "linear_with_warmup",
    "InvSqrtWithWarmup": "inv_sqrt_with_warmup",
    "CosWithWarmup": "cos_with_warmup",
    "HalfCosWithWarmup": "half_cos_with_warmup",
    "CosWithWarmupAndLinearDecay": "cos_with_warmup_and_linear_decay",
    "ComposableScheduler": "composable",
    "SequentialScheduler": "sequential",
    "WSDS": "wsds",
    "ExponentialScheduler": "exponential",
}

_KNOWN = (
    *("type", "_CLASS_", "b", "lr_min", "stages"),
    *_RUN,
    *_OWN_END,
    *_DECAY,
    *_PERIODS,
    *_SEQUENCE,
)
"""The keys of all schedulers, to suggest similar ones."""
