"""nanotron: the block `learning_rate_scheduler`, with the number of training steps."""

from __future__ import annotations

from dist_sched._curves.phases import phase_of
from dist_sched._curves.schedule import Schedule
from dist_sched._peers.block import REQUIRED, Key, read, steps
from dist_sched._peers.pieces import flat, hold, padded, through
from dist_sched._rules import illegal, one_of, positive, rate, whole
from dist_sched.errors import ConfigError

_SHAPES = {"linear": "linear", "cosine": "cosine", "1-sqrt": "minus_sqrt"}

_KEYS = {
    "learning_rate": Key(positive, REQUIRED),
    "train_steps": Key(steps),
    "lr_warmup_steps": Key(whole, 0),
    "lr_warmup_style": Key(one_of(("linear", "constant")), REQUIRED),
    "lr_decay_style": Key(one_of(tuple(_SHAPES)), "linear"),
    "lr_decay_steps": Key(whole),
    "lr_decay_starting_step": Key(whole),
    "min_decay_lr": Key(rate),
}


def schedule(block: object) -> Schedule:
    """Return the schedule of a block.

    The warmup applies up to and including position `lr_warmup_steps`. If a decay starts earlier,
    its beginning is skipped.
    """
    words = read(block, _KEYS)
    lr, warmup, total = words["learning_rate"], words["lr_warmup_steps"], words["train_steps"]
    floor = lr if words["min_decay_lr"] is None else words["min_decay_lr"]
    start, decay = words["lr_decay_starting_step"], words["lr_decay_steps"]
    if decay is None:
        if total is None:
            raise ConfigError("lacks train_steps or lr_decay_steps")
        # nanotron subtracts both, although the decay begins at only one of them.
        decay = total - warmup - (start or 0)
    if warmup == decay == 0:
        rule = "without a warmup, nanotron would square lr; use schedules.constant"
        raise illegal("lr_decay_steps", decay, rule)
    is_linear = words["lr_warmup_style"] == "linear"
    # Without a warmup, a linear one is still 0 at position 0.
    rise = phase_of("linear", warmup, lr, 0.0) if warmup else hold(0, 0.0)
    begin = warmup if start is None else start
    falls = [phase_of(_SHAPES[words["lr_decay_style"]], decay, floor, lr)] if decay > 0 else []
    after = Schedule([hold(begin, lr), *falls, *([] if falls else [hold(0, floor)])])
    found = through(Schedule([rise]) if is_linear else flat(lr), warmup, after)
    return padded(found, total)
