"""Coefficients at their ends and in the middle, and in the arithmetic that Megatron-LM has."""

from __future__ import annotations

import math

import pytest

from dist_sched._curves import coefficients


@pytest.mark.parametrize(
    "coefficient, quarter, half",
    [
        (coefficients.linear, 0.75, 0.5),
        (coefficients.cosine, 0.8535533905932737, 0.5),
        (coefficients.halving, 0.681792830507429, 0.41421356237309515),
        (coefficients.minus_sqrt, 0.5, 0.2928932188134524),
        (coefficients.sine, 0.6173165676349102, 0.2928932188134524),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fall_goes_from_1_to_0(coefficient, quarter, half):
    assert [1.0, 0.0] == [coefficient(0.0), coefficient(1.0)]
    assert [quarter, half] == pytest.approx([coefficient(0.25), coefficient(0.5)], rel=1e-15)


@pytest.mark.parametrize(
    "coefficient, quarter",
    [(coefficients.linear_rise, 0.25), (coefficients.cosine_rise, 0.14644660940672627)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_rise_goes_from_0_to_1(coefficient, quarter):
    assert [0.0, 1.0] == [coefficient(0.0), coefficient(1.0)]
    assert quarter == pytest.approx(coefficient(0.25), rel=1e-15)


def test_a_linear_rise_is_not_rounded():
    assert 0.1 == coefficients.linear_rise(0.1)
    assert 0.1 != 1.0 - coefficients.linear(0.1)


def test_a_cosine_adds_before_it_halves():
    progress = 0.3
    assert 0.5 * (math.cos(math.pi * progress) + 1.0) == coefficients.cosine(progress)


@pytest.mark.parametrize("fraction, value", [(0.0, 2.0), (0.25, 2.5), (1.0, 4.0)])
def test_between_counts_from_the_low_bound(fraction, value):
    assert value == coefficients.between(fraction, high=4.0, low=2.0)
