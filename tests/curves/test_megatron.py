"""Megatron-LM's curves at values written by hand; tests/oracle compares them with the package."""

from __future__ import annotations

import math

import pytest

from dist_sched import ConfigError
from dist_sched._curves.megatron import (
    LR_DECAY_STYLES,
    LR_WSD_DECAY_STYLES,
    WD_INCR_STYLES,
    LrCurve,
    WdCurve,
)

LR = {
    # n:       0     5     10    60     110    111
    "constant": [0.0, 0.5, 1.0, 1.0, 1.0, 1.0],
    "linear": [0.0, 0.5, 1.0, 0.6, 0.2, 0.2],
    "cosine": [0.0, 0.5, 1.0, 0.6, 0.2, 0.2],
    "inverse-square-root": [0.0, 0.5, 1.0, math.sqrt(10 / 60), math.sqrt(10 / 110), 0.2],
    "WSD": [0.0, 0.5, 1.0, 1.0, 0.2, 0.2],
}
HALFWAY = {
    "linear": 0.6,
    "cosine": 0.6,
    "exponential": 0.2 + 0.8 * (math.sqrt(2) - 1),
    "minus_sqrt": 0.2 + 0.8 * (1 - math.sqrt(0.5)),
}
WD = {"constant": [0.2, 0.2, 0.2, 0.2], "linear": [0.1, 0.15, 0.2, 0.2]}
WD["cosine"] = WD["linear"]

BOUNDS = [(1.0, 0.0), (3e-4, 3e-5), (0.1, 0.1), (1e-8, 0.0)]


def lr_curve(style, **changes):
    settings = {"start": 0.0, "max_value": 1.0, "min_value": 0.2, "warmup": 10, "horizon": 110}
    return LrCurve(**{**settings, "style": style, "decay": 40, **changes})


def wd_curve(style, **changes):
    low = 0.2 if style == "constant" else 0.1
    settings = {"max_value": 0.2, "min_value": low, "length": 100, "style": style}
    return WdCurve(**{**settings, **changes})


@pytest.mark.parametrize("style", LR_DECAY_STYLES)
def test_a_learning_rate_has_the_values_written_by_hand(style):
    curve = lr_curve(style)
    assert LR[style] == pytest.approx([curve(n) for n in (0, 5, 10, 60, 110, 111)], rel=1e-15)


@pytest.mark.parametrize("decay_style", LR_WSD_DECAY_STYLES)
def test_a_wsd_decay_begins_at_the_peak_and_ends_at_the_floor(decay_style):
    curve = lr_curve("WSD", decay_style=decay_style)
    expected = [1.0, 1.0, HALFWAY[decay_style], 0.2, 0.2]
    assert expected == pytest.approx([curve(n) for n in (69, 70, 90, 110, 111)], rel=1e-15)


def test_a_wsd_decay_of_length_0_drops_after_the_horizon():
    assert [1.0, 0.2] == [lr_curve("WSD", decay=0)(n) for n in (110, 111)]


def test_a_wsd_decay_that_begins_in_the_warmup_jumps_down_where_that_ends():
    curve = lr_curve("WSD", decay=105)
    assert [1.0, 0.2 + 0.8 * (1 - 6 / 105)] == pytest.approx([curve(10), curve(11)], rel=1e-15)


@pytest.mark.parametrize("style", LR_DECAY_STYLES)
def test_without_a_warmup_a_learning_rate_begins_at_the_peak(style):
    assert 1.0 == lr_curve(style, warmup=0, start=0.5)(0)


def test_without_a_warmup_an_inverse_square_root_counts_from_1():
    curve = lr_curve("inverse-square-root", warmup=0, min_value=0.0)
    assert [1.0, 1.0, 0.5] == [curve(n) for n in (0, 1, 4)]


def test_a_warmup_may_end_between_positions():
    curve = lr_curve("linear", warmup=37.5, start=0.25)
    after = 0.2 + 0.8 * (1 - 0.5 / 72.5)
    assert [0.25, 0.25 + 0.75 * 37 / 37.5, after] == pytest.approx([curve(n) for n in (0, 37, 38)])


@pytest.mark.parametrize("style", LR_DECAY_STYLES)
def test_other_bounds_replace_those_of_a_learning_rate(style):
    curve, other = lr_curve(style), lr_curve(style, max_value=3.0, min_value=0.5)
    positions = (0, 5, 10, 60, 90, 110, 111)
    assert [other(n) for n in positions] == [curve.at(n)(3.0, 0.5) for n in positions]


@pytest.mark.parametrize("style", WD_INCR_STYLES)
def test_a_weight_decay_has_the_values_written_by_hand(style):
    curve = wd_curve(style)
    assert WD[style] == pytest.approx([curve(n) for n in (0, 50, 100, 101)], rel=1e-15)


def test_a_cosine_rise_of_weight_decay_is_slow_at_first():
    rise = 0.5 * (1 - math.cos(math.pi / 4))
    assert 0.1 + 0.1 * rise == pytest.approx(wd_curve("cosine")(25), rel=1e-15)


@pytest.mark.parametrize("style", ["linear", "cosine"])
def test_a_rise_of_length_0_is_at_its_end_at_once(style):
    assert 0.2 == wd_curve(style, length=0)(0)


def test_other_bounds_replace_those_of_a_weight_decay():
    assert [1.0, 2.0, 3.0] == [wd_curve("linear").at(n)(3.0, 1.0) for n in (0, 50, 101)]


def test_a_constant_weight_decay_refuses_bounds_that_differ():
    with pytest.raises(ConfigError, match=r"needs equal bounds, got 0\.1 and 0\.2"):
        wd_curve("constant").at(0)(0.2, 0.1)


@pytest.mark.parametrize("style", LR_WSD_DECAY_STYLES)
@pytest.mark.parametrize("percent", range(1, 60))
def test_a_wsd_tail_of_any_percent_stays_at_or_above_the_lower_bound(style, percent):
    curve = lr_curve("WSD", decay_style=style, min_value=0.0, decay=110 * percent / 100)
    ends = [curve.at(position)(high, low) for position in (109, 110, 111) for high, low in BOUNDS]
    assert all(value >= low for value, (_, low) in zip(ends, BOUNDS * 3, strict=True))


@pytest.mark.parametrize(
    "curve, expected", [(lr_curve("cosine"), (110, 3.0)), (wd_curve("linear"), (100, 3.0))]
)
def test_a_curve_has_its_horizon_and_its_highest_value_between_two_bounds(curve, expected):
    assert expected == (curve.horizon, curve.highest(3.0, 1.0))
