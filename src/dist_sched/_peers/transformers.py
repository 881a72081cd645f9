"""transformers: the learning-rate arguments of `TrainingArguments`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dist_sched._curves.named import cosine_with_restarts
from dist_sched._curves.phases import Phase, phase_of
from dist_sched._curves.schedule import Schedule
from dist_sched._peers.block import REQUIRED, Key, one_given, read, share, steps
from dist_sched._peers.pieces import flat, hold, lasting, padded, refuse_many, since, waves
from dist_sched._rules import (
    MAX_LENGTH,
    illegal,
    length,
    mapping,
    one_of,
    plain,
    positive,
    rate,
    whole,
    within,
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_METRIC = (
    "depends on a metric, but a schedule depends on the position only; use dist_sched.Plateau "
    "with lr_scheduler_type='constant'"
)
_BY_METRIC = ("reduce_lr_on_plateau", "greedy")


def _type(name: str, value: object) -> str:
    if isinstance(value, str) and value in _BY_METRIC:
        raise illegal(name, value, _METRIC)
    one_of(tuple(_TYPES))(name, value)
    # Not str(value): transformers' enumeration is a str that prints differently.
    return next(word for word in _TYPES if word == value)


def _max_steps(name: str, value: object) -> int | None:
    found = plain(value)
    # In TrainingArguments, -1 means that epochs set the length.
    return None if isinstance(found, int) and found == -1 else steps(name, found)


_KEYS = {
    "learning_rate": Key(positive, REQUIRED),
    "lr_scheduler_type": Key(_type, "linear"),
    "lr_scheduler_kwargs": Key(mapping),
    "warmup_steps": Key(length, 0),
    "warmup_ratio": Key(share, 0.0),
    "max_steps": Key(_max_steps),
    "num_training_steps": Key(steps),
}


def schedule(block: object) -> Schedule:
    """Return the schedule of the arguments. Position n is the argument n of `LambdaLR`."""
    words = read(block, _KEYS)
    total = words["max_steps"] or words["num_training_steps"]
    if words["num_training_steps"] not in {None, total}:
        rule = f"must be equal to max_steps={total}; leave one of them out"
        raise illegal("num_training_steps", words["num_training_steps"], rule)
    kind = words["lr_scheduler_type"]
    run = _Run(words["learning_rate"], _warmup(words, total), total)
    kwargs = words["lr_scheduler_kwargs"] or {}
    with within(kind):
        return _TYPES[kind](run, kwargs)


def _warmup(words: dict[str, Any], total: int | None) -> int:
    """Return the length of the warmup. A fraction of the run is rounded up."""
    given: float = words["warmup_steps"]
    if given >= 1:
        return int(given)
    # In transformers 5, steps below 1 are a ratio. In 4, steps have precedence over the ratio.
    name, ratio = ("warmup_steps", given) if given else ("warmup_ratio", words["warmup_ratio"])
    if ratio and total is None:
        rule = "is a fraction of the run; also pass max_steps or num_training_steps"
        raise illegal(name, ratio, rule)
    return math.ceil((total or 0) * ratio)


class _Run:
    """The peak, the warmup, and the length of the run if it is known."""

    def __init__(self, lr: float, warmup: int, total: int | None) -> None:
        self.lr = lr
        self.warmup = warmup
        self.known_total = total

    @property
    def total(self) -> int:
        if self.known_total is None:
            raise ConfigError("lacks max_steps or num_training_steps")
        return self.known_total

    @property
    def rest(self) -> int:
        """Steps after the warmup, 0 or less if there are none."""
        return self.total - self.warmup

    def rise(self, shape: str = "linear", start: float = 0.0, **parameters: Any) -> list[Phase]:
        return lasting(phase_of(shape, self.warmup, self.lr, start, **parameters))

    def cosine(self, words: dict[str, Any], low: float, span: int, steps: int) -> list[Phase]:
        """Return a number of steps of a cosine with `num_cycles` waves in a span."""
        cycles = words["num_cycles"]
        if not cycles:
            return lasting(hold(max(steps, 0), self.lr))
        refuse_many("num_cycles", cycles, 2 * cycles * steps / span)
        half = span / (2 * cycles)
        if half > MAX_LENGTH:
            rule = "is too small: half a wave must be at most 2**53 steps; use 0 for no waves"
            raise illegal("num_cycles", cycles, rule)
        return waves(self.lr, low, half, steps)


_REFUSED = {"last_epoch": "is the position of a resume, not a part of the schedule; leave it out"}
_CYCLES = {"num_cycles": Key(rate, 0.5)}
_MIN_LR = {**_CYCLES, "min_lr": Key(rate), "min_lr_rate": Key(rate)}


def _read(kwargs: object, keys: dict[str, Key]) -> dict[str, Any]:
    with within("lr_scheduler_kwargs"):
        return read(kwargs, keys, refused=_REFUSED)


def _constant(run: _Run, kwargs: object) -> Schedule:
    _read(kwargs, {})
    # transformers ignores a warmup here.
    return padded(flat(run.lr), run.known_total)


def _constant_with_warmup(run: _Run, kwargs: object) -> Schedule:
    _read(kwargs, {})
    return padded(Schedule([*run.rise(), hold(0, run.lr)]), run.known_total)


def _linear(run: _Run, kwargs: object) -> Schedule:
    _read(kwargs, {})
    if run.rest <= 0:
        return Schedule([*run.rise(), hold(0, 0.0)])
    return Schedule([*run.rise(), phase_of("linear", run.rest, 0.0, run.lr)])


def _cosine(run: _Run, kwargs: object) -> Schedule:
    words = _read(kwargs, _CYCLES)
    return Schedule([*run.rise(), *run.cosine(words, 0.0, max(1, run.rest), run.rest)])


def _cosine_with_restarts(run: _Run, kwargs: object) -> Schedule:
    words = _read(kwargs, {"num_cycles": Key(steps, 1)})
    refuse_many("num_cycles", words["num_cycles"], words["num_cycles"])
    end = max(run.total, run.warmup)
    return cosine_with_restarts(run.lr, end, run.warmup, cycles=words["num_cycles"])


def _polynomial(run: _Run, kwargs: object) -> Schedule:
    words = _read(kwargs, {"lr_end": Key(rate, 1e-7), "power": Key(positive, 1.0)})
    if words["lr_end"] >= run.lr:
        raise illegal("lr_end", words["lr_end"], f"must be below learning_rate={run.lr!r}")
    if run.rest <= 0:
        rule = f"must be less than the {run.total} steps of the run, because the rest is the decay"
        raise illegal("warmup_steps", run.warmup, rule)
    fall = phase_of("polynomial", run.rest, words["lr_end"], run.lr, power=words["power"])
    return Schedule([*run.rise(), fall])


def _inverse_sqrt(run: _Run, kwargs: object) -> Schedule:
    words = _read(kwargs, {"timescale": Key(positive)})
    scale = words["timescale"] or run.warmup or 10_000
    rest = max(run.rest, 0)
    end = run.lr / math.sqrt(1 + rest / scale)
    return Schedule([*run.rise(), *lasting(phase_of("inverse_sqrt", rest, end, run.lr))])


def _floor(run: _Run, words: dict[str, Any]) -> float:
    with within("lr_scheduler_kwargs"):
        name = one_given(words, "min_lr", "min_lr_rate")
    found: float = words[name] if name == "min_lr" else words[name] * run.lr
    return found


def _cosine_with_min_lr(run: _Run, kwargs: object) -> Schedule:
    words = _read(kwargs, _MIN_LR)
    span = max(1, run.rest)
    return Schedule([*run.rise(), *run.cosine(words, _floor(run, words), span, run.rest)])


def _cosine_warmup_with_min_lr(run: _Run, kwargs: object) -> Schedule:
    """Return the schedule, which is one update ahead in warmup and decay."""
    words = _read(kwargs, {**_MIN_LR, "warmup_lr_rate": Key(rate)})
    start = words["warmup_lr_rate"]
    first = run.lr * start if start is not None else run.lr / max(1, run.warmup)
    rise = lasting(phase_of("linear", max(run.warmup - 1, 0), run.lr, first))
    if run.warmup == 1 and start is not None:
        rise = [hold(1, first)]
    if run.rest < 0:
        return Schedule(rise)
    falls = Schedule(run.cosine(words, _floor(run, words), max(1, run.rest), run.rest + 1))
    # The decay begins at the last position of the warmup.
    ahead = 1 - run.warmup + sum(phase.steps for phase in rise)
    return Schedule([*rise, *since(falls, ahead).phases])


_RISES: dict[str, tuple[str, dict[str, float]]] = {
    "linear": ("linear", {}),
    "cosine": ("cosine", {}),
    # 1 - sqrt(1 - r) of the way up, which is sqrt(1 - r) of it left.
    "1-sqrt": ("polynomial", {"power": 0.5}),
}
_WSD = {
    **_CYCLES,
    "num_decay_steps": Key(whole, REQUIRED),
    "num_stable_steps": Key(whole),
    "warmup_type": Key(one_of(tuple(_RISES)), "linear"),
    "decay_type": Key(one_of(tuple(_RISES)), "cosine"),
    "min_lr_ratio": Key(rate, 0.0),
}


def _warmup_stable_decay(run: _Run, kwargs: object) -> Schedule:
    words = _read(kwargs, _WSD)
    low, decay, stable = (
        run.lr * words["min_lr_ratio"],
        words["num_decay_steps"],
        words["num_stable_steps"],
    )
    if stable is None:
        stable = run.rest - decay
    shape, parameters = _RISES[words["warmup_type"]]
    found = [*run.rise(shape, low, **parameters), *lasting(hold(max(stable, 0), run.lr))]
    # A warmup that is too long hides the beginning of the decay.
    hidden = max(-stable, 0)
    if hidden < decay:
        falls = {
            "linear": [phase_of("linear", decay, low, run.lr)],
            "cosine": run.cosine(words, low, decay, decay),
            "1-sqrt": [phase_of("minus_sqrt", decay, low, run.lr)],
        }
        found += since(Schedule(falls[words["decay_type"]]), hidden).phases
    # After the decay, the value is the lowest one.
    is_low = bool(found) and Schedule(found).end_value == low
    return Schedule(found if is_low else [*found, hold(0, low)])


_TYPES: dict[str, Callable[[_Run, object], Schedule]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
    "constant": _constant,
    "constant_with_warmup": _constant_with_warmup,
    "inverse_sqrt": _inverse_sqrt,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "cosine_warmup_with_min_lr": _cosine_warmup_with_min_lr,
    "warmup_stable_decay": _warmup_stable_decay,
}
