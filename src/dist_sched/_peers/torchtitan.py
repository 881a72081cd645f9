"""torchtitan: the block `lr_scheduler`, with the optimizer's lr and the training steps."""

from __future__ import annotations

from dist_sched._curves.phases import phase_of
from dist_sched._curves.schedule import Schedule
from dist_sched._peers.block import REQUIRED, Key, one_given, read, share, steps
from dist_sched._peers.pieces import hold, lasting
from dist_sched._rules import one_of, positive, rate, whole

_SHAPES = {"linear": "linear", "sqrt": "minus_sqrt", "cosine": "cosine"}

_KEYS = {
    "lr": Key(positive, REQUIRED),
    "training_steps": Key(steps),
    "total_steps": Key(steps),
    "warmup_steps": Key(whole, 200),
    "decay_ratio": Key(share),
    "decay_type": Key(one_of(tuple(_SHAPES)), "linear"),
    "min_lr_factor": Key(rate, 0.0),
}


def schedule(block: object) -> Schedule:
    """Return the schedule of a block.

    At position n the factor of the warmup is `(n + 1) / warmup_steps`, and the progress of the
    decay is `(n - (total - decay)) / decay`.
    """
    words = read(block, _KEYS)
    lr, total = words["lr"], words["total_steps"] or words["training_steps"]
    if total is None:
        one_given(words, "training_steps", "total_steps")
    # Like torchtitan, which shortens lengths that do not fit, with a warning.
    warmup = min(words["warmup_steps"], total)
    decay = total - warmup
    if words["decay_ratio"] is not None:
        decay = min(round(total * words["decay_ratio"]), decay)
    rise = max(warmup - 1, 0)
    shape, floor = _SHAPES[words["decay_type"]], lr * words["min_lr_factor"]
    return Schedule(
        lasting(
            phase_of("linear", rise, lr, lr / max(warmup, 1)),
            hold(total - decay - rise, lr),
            phase_of(shape, decay, floor, lr),
        )
    )
