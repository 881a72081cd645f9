"""torchtitan's block gives torchtitan's values."""

from __future__ import annotations

import math

import pytest

from dist_sched import ConfigError, schedules
from peer_helpers import differing

FALLS = {
    "linear": lambda r: 1 - r,
    "sqrt": lambda r: 1 - math.sqrt(r),
    "cosine": lambda r: (1 + math.cos(math.pi * r)) / 2,
}


def peer(total, warmup=200, ratio=None, kind="linear", floor=0.0):
    """Return the factor by torchtitan's step: one ahead in the warmup, and a virtual last step."""
    warmup = min(warmup, total)
    decay = total - warmup if ratio is None else min(round(total * ratio), total - warmup)

    def factor(step):
        if step < warmup:
            return (step + 1) / warmup
        if step <= total - decay:
            return 1.0
        return floor + (1 - floor) * FALLS[kind]((step - (total - decay)) / decay)

    return factor


def build(**block):
    return schedules.from_peer("torchtitan", {"lr": 1.0, "training_steps": 100, **block})


@pytest.mark.parametrize("kind", FALLS)
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ratio", [None, 0.0, 0.015, 0.33, 1.0])
@pytest.mark.parametrize("warmup", [0, 1, 2, 30, 100, 200])
def test_values_are_those_of_the_peer(warmup, ratio, floor, kind):
    ours = build(warmup_steps=warmup, decay_ratio=ratio, decay_type=kind, min_lr_factor=floor)
    assert [] == differing(ours, peer(100, warmup, ratio, kind, floor), 100)


def test_defaults_are_those_of_the_peer():
    assert [] == differing(build(training_steps=1000), peer(1000), 1000)


def test_the_schedule_may_be_longer_than_the_training():
    assert build(total_steps=500, warmup_steps=3) == build(training_steps=500, warmup_steps=3)


def test_a_short_warmup_and_decay_are_a_wsd():
    ours = build(lr=3e-4, warmup_steps=1, decay_ratio=0.2, decay_type="sqrt")
    assert schedules.wsd(3e-4, 100, decay=20) == ours


@pytest.mark.parametrize(
    "block, words",
    [
        ({"training_steps": None}, "has none of 'training_steps', 'total_steps'"),
        ({"lr": None}, "torchtitan: lacks lr"),
        ({"lr_min": 0.1}, "'lr_min' is not known here"),
        ({"warmup": 5}, "did you mean 'warmup_steps'"),
        ({"decay_type": "1-sqrt"}, "decay_type='1-sqrt': must be one of"),
        ({"decay_ratio": 1.5}, "decay_ratio=1.5: must be from 0 to 1"),
        ({"warmup_steps": 2.5}, "warmup_steps=2.5: must be a whole number"),
    ],
)
def test_what_is_illegal_is_refused_by_name(block, words):
    with pytest.raises(ConfigError, match=words):
        build(**block)
