"""DeepSpeed's blocks give DeepSpeed's values."""

from __future__ import annotations

import math

import pytest

from dist_sched import ConfigError, schedules
from peer_helpers import differing


def warmed(ratio, warmup, kind, after):
    """Return a value by position, of functions of the last iteration, which is one behind."""
    warmup = max(2, warmup)

    def value(position):
        last = position - 1
        if last < 0:
            return ratio(None)
        if last >= warmup:
            return after(last)
        return ratio(last / warmup if kind == "linear" else math.log(last + 1) / math.log(warmup))

    return value


def build(kind, params, **beside):
    return schedules.from_peer("deepspeed", {"type": kind, "params": params, **beside})


KINDS = pytest.mark.parametrize("kind", ["log", "linear"])
WARMUPS = pytest.mark.parametrize("warmup", [1, 2, 3, 30, 60])
TOTALS = pytest.mark.parametrize("total", [2, 31, 32, 50])
LOWS = pytest.mark.parametrize("low", [0.0, 0.25])


@WARMUPS
@KINDS
@LOWS
def test_a_warmup_has_the_values_of_the_peer(low, kind, warmup):
    params = {"warmup_min_lr": low, "warmup_num_steps": warmup, "warmup_type": kind}
    peer = warmed(lambda r: low + (1 - low) * (r or 0.0), warmup, kind, lambda _last: 1.0)
    assert [] == differing(build("WarmupLR", params, lr=1.0), peer, 80)


@WARMUPS
@KINDS
@TOTALS
@LOWS
def test_a_linear_decay_has_the_values_of_the_peer(low, total, kind, warmup):
    params = {
        "warmup_min_lr": low,
        "warmup_max_lr": 1.0,
        "warmup_num_steps": warmup,
        "warmup_type": kind,
        "total_num_steps": total,
    }

    def after(last):
        left = (total - last) / max(1, total - max(2, warmup))
        return low + (1 - low) * max(0.0, left)

    peer = warmed(lambda r: low + (1 - low) * (r or 0.0), warmup, kind, after)
    assert [] == differing(build("WarmupDecayLR", params), peer, 80)


@WARMUPS
@KINDS
@TOTALS
@LOWS
def test_a_cosine_decay_has_the_values_of_the_peer(low, total, kind, warmup):
    params = {
        "warmup_min_ratio": low,
        "cos_min_ratio": 0.1,
        "warmup_num_steps": warmup,
        "warmup_type": kind,
        "total_num_steps": total,
    }

    def after(last):
        length = max(2, warmup)
        progress = min(1.0, (last - length + 1) / max(1, total - length))
        return 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2

    # Before the first iteration it is 0, whatever the least ratio is.
    peer = warmed(lambda r: 0.0 if r is None else low + (1 - low) * r, warmup, kind, after)
    assert [] == differing(build("WarmupCosineLR", params, lr=1.0), peer, 80)


def test_defaults_are_those_of_the_peer():
    params = {"total_num_steps": 2000}
    same = {"warmup_num_steps": 1000, "warmup_type": "log", "warmup_max_lr": 0.001}
    assert build("WarmupDecayLR", params) == build("WarmupDecayLR", {**params, **same})


def test_a_warmup_of_its_own_peak_needs_no_lr():
    assert 0.5 == build("WarmupLR", {"warmup_max_lr": 0.5}).max_value


def cycled(low, high, first, second, stairs, stairs_back, falling, interval):
    """Return the value of one cycle and what comes after it, by position."""

    def value(position):
        after = position - first - second
        if after >= 0:
            return low / (1 + falling * after / interval) if interval else low
        if position <= first:
            part = position / first
            part = math.floor(position * stairs / first) / stairs if stairs else part
        else:
            left = first + second - position
            part = left / second
            part = math.floor(left * stairs_back / second) / stairs_back if stairs_back else part
        return low + (high - low) * part

    return value


@pytest.mark.parametrize("falling, interval", [(0.0, 3), (0.5, 0), (0.5, 3)])
@pytest.mark.parametrize("stairs, stairs_back", [(0, 0), (3, 0), (0, 4), (1, 1), (20, 20)])
@pytest.mark.parametrize("first, second", [(10, 10), (1, 1), (7, 0), (5, 13)])
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_one_cycle_has_the_values_of_the_peer(
    low, first, second, stairs, stairs_back, falling, interval
):
    params = {
        "cycle_min_lr": low,
        "cycle_max_lr": 1.0,
        "cycle_first_step_size": first,
        "cycle_second_step_size": second,
        "cycle_first_stair_count": stairs,
        "cycle_second_stair_count": stairs_back,
        "decay_lr_rate": falling,
        "decay_step_size": interval,
        "cycle_momentum": False,
    }
    ours = build("OneCycle", params, total_num_steps=60)
    peer = cycled(low, 1.0, first, second, stairs, stairs_back, falling, interval)
    assert [] == differing(ours, peer, 60)


def test_the_second_half_of_a_cycle_is_as_the_first():
    params = {"cycle_min_lr": 0.0, "cycle_max_lr": 1.0, "cycle_momentum": False}
    ours = build("OneCycle", {**params, "cycle_first_step_size": 4, "cycle_first_stair_count": 2})
    expected = [0.0, 0.0, 0.5, 0.5, 1.0, 0.5, 0.5, 0.0, 0.0]
    assert expected == [ours(position) for position in range(9)]


@pytest.mark.parametrize("is_staircase", [True, False])
@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_a_range_test_has_the_values_of_the_peer(size, is_staircase):
    params = {
        "lr_range_test_min_lr": 0.01,
        "lr_range_test_step_size": size,
        "lr_range_test_step_rate": 0.5,
        "lr_range_test_staircase": is_staircase,
    }
    ours = build("LRRangeTest", params, total_num_steps=50)
    whole = math.floor if is_staircase else float
    assert [] == differing(ours, lambda n: 0.01 * (1 + 0.5 * whole(n / size)), 50)


CYCLE = {"cycle_min_lr": 0.1, "cycle_max_lr": 1.0}


@pytest.mark.parametrize(
    "kind, params, words",
    [
        ("WarmupLR", {}, "WarmupLR: lacks warmup_max_lr, or lr of the optimizer"),
        ("WarmupLR", {"warmup_max_lr": "auto"}, "'auto': is filled in by transformers"),
        ("WarmupLR", {"warmup_max_lr": [1.0, 2.0]}, r"=\[1.0, 2.0\]: must be a single number"),
        ("WarmupLR", {"warmup_num_steps": 0}, "warmup_num_steps=0: must be at least 1"),
        (
            "WarmupLR",
            {"last_batch_iteration": 7},
            "last_batch_iteration=7: is the position of a resume",
        ),
        ("WarmupLR", {"warmup_steps": 7}, "did you mean 'warmup_num_steps'"),
        ("WarmupDecayLR", {}, "params: lacks total_num_steps"),
        ("WarmupCosineLR", {"total_num_steps": 9}, "lacks lr of the optimizer"),
        ("OneCycle", CYCLE, r"cycle_momentum=True: also changes betas\[0\]"),
        (
            "LRRangeTest",
            {},
            "lacks total_num_steps beside type and params, because the test has no end",
        ),
        ("WarmupCosine", {}, "did you mean 'WarmupCosineLR'"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(kind, params, words):
    with pytest.raises(ConfigError, match=words):
        build(kind, params)


def test_a_decay_for_ever_needs_an_end():
    decay = {"cycle_momentum": False, "decay_lr_rate": 0.1, "decay_step_size": 5}
    with pytest.raises(ConfigError, match="never ends; pass total_num_steps"):
        build("OneCycle", {**CYCLE, **decay})


def test_more_stairs_than_a_schedule_can_have_are_refused():
    staircase = {"lr_range_test_step_size": 1, "lr_range_test_staircase": True}
    with pytest.raises(
        ConfigError, match="lr_range_test_step_size=1: is too large: it makes more than 50,000"
    ):
        build("LRRangeTest", staircase, total_num_steps=10**9)
