"""nanotron's block gives nanotron's values."""

from __future__ import annotations

import math

import pytest

from dist_sched import ConfigError, schedules
from peer_helpers import differing

TOTAL = 50
FALLS = {
    "linear": lambda r: 1 - r,
    "1-sqrt": lambda r: 1 - math.sqrt(r),
    "cosine": lambda r: (1 + math.cos(math.pi * r)) / 2,
}


def peer(warmup, style, start, decay, kind, floor):
    """Return the value by nanotron's step, whose warmup has its last step too; the peak is 1."""
    if decay is None:
        decay = TOTAL - warmup - (start or 0)
    begin = warmup if start is None else start

    def value(step):
        if step <= warmup:
            return step / max(warmup, 1) if style == "linear" else 1.0
        if step < begin:
            return 1.0
        if step < begin + decay:
            return floor + (1 - floor) * FALLS[kind]((step - begin) / decay)
        return floor

    return value


def build(**block):
    common = {"learning_rate": 1.0, "lr_warmup_style": "linear", "train_steps": TOTAL}
    return schedules.from_peer("nanotron", {**common, **block})


@pytest.mark.parametrize("kind", FALLS)
@pytest.mark.parametrize("decay", [None, 1, 10, 60])
@pytest.mark.parametrize("start", [None, 3, 20])
@pytest.mark.parametrize("style", ["linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 7, 60])
def test_values_are_those_of_the_peer(warmup, style, start, decay, kind):
    ours = build(
        lr_warmup_steps=warmup,
        lr_warmup_style=style,
        lr_decay_starting_step=start,
        lr_decay_steps=decay,
        lr_decay_style=kind,
        min_decay_lr=0.1,
    )
    assert [] == differing(ours, peer(warmup, style, start, decay, kind, 0.1), TOTAL + 30)


def test_no_decay_is_a_fall_at_once():
    ours = build(lr_warmup_steps=2, lr_decay_steps=0, min_decay_lr=0.5)
    assert [0.0, 0.5, 1.0, 0.5] == [ours(position) for position in range(4)]


def test_a_decay_may_end_at_zero():
    ours = build(lr_warmup_steps=7, min_decay_lr=0.0)
    assert [] == differing(ours, peer(7, "linear", None, None, "linear", 0.0), TOTAL)


def test_without_a_lowest_value_lr_stays():
    assert [] == differing(build(lr_warmup_steps=5), schedules.constant(1.0, TOTAL, 5), TOTAL)


@pytest.mark.parametrize(
    "block, words",
    [
        ({"lr_warmup_style": None}, "nanotron: lacks lr_warmup_style"),
        ({"lr_warmup_style": "cosine"}, "lr_warmup_style='cosine': must be one of"),
        ({"train_steps": None}, "lacks train_steps or lr_decay_steps"),
        ({"lr_decay_steps": 0}, "lr_decay_steps=0: without a warmup, nanotron would square lr"),
        ({"weight_decay": 0.1}, "'weight_decay' is not known here"),
    ],
)
def test_what_is_illegal_is_refused_by_name(block, words):
    with pytest.raises(ConfigError, match=words):
        build(**block)
