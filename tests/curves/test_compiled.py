"""Curves made ready for many calls: the bits of the curves, in any order of positions."""

from __future__ import annotations

import random

import pytest

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._curves.compiled import compiled
from dist_sched._curves.megatron import LR_DECAY_STYLES, LrCurve, WdCurve
from dist_sched._curves.operations import raised_to
from dist_sched._curves.proportional import ProportionalTo

BOUNDS = [(0.7, 0.1), (0.9, 0.35), (1.1, 0.3)]
PHASES = [
    Phase("linear", 11, end=0.7, start=0.1),
    Phase("cosine", 23, end=0.35),
    Phase("cosine", 9, end=0.9, exponent=2.0),
    Phase("step", 4, end=0.3, start=1.1),
    Phase("linear", 30, end=0.2, start=0.6, since=7, until=19),
    Phase("cosine", 30, end=0.2, start=0.6, since=7, until=20),
    Phase("linear", 9, end=0.03, start=0.01),
    Phase("minus_sqrt", 13.5, end=0.1),
    Phase("cosine", 30, end=0.2, start=0.6, since=7.25),
]
MIXED = Schedule(PHASES)
CURVES = {
    **{
        f"lr-{style}-{high}-{warmup}": LrCurve(
            start=0.05,
            max_value=high,
            min_value=low,
            warmup=warmup,
            horizon=90,
            style=style,
            decay=30,
        )
        for style in LR_DECAY_STYLES
        for high, low in BOUNDS
        for warmup in (0, 7)
    },
    **{
        f"wd-{style}-{length}": WdCurve(max_value=0.7, min_value=0.1, length=length, style=style)
        for style in ("linear", "cosine")
        for length in (0, 80)
    },
    "wd-constant": WdCurve(max_value=0.7, min_value=0.7, length=80, style="constant"),
    "mixed": MIXED,
    "rise": Schedule([Phase("cosine", 77, end=0.7, start=0.1)]),
    "root": raised_to(MIXED, 0.5),
    "rounded": Schedule([Phase("linear", 77, end=70.0, start=10.0)], multiple_of=4),
    "proportional": ProportionalTo(at_max=0.3).following(MIXED),
    "square": ProportionalTo(at_max=0.3, power=2).following(MIXED),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_compiled_curve_has_the_bits_of_the_curve_in_any_order(curve):
    quick, positions = compiled(curve), [*range(120)] * 3
    random.Random(1).shuffle(positions)
    for each in ([*range(120)], positions):
        assert [curve(position) for position in each] == [quick(position) for position in each]


def test_a_compiled_constant_weight_decay_refuses_bounds_that_differ():
    curve = WdCurve(max_value=0.7, min_value=0.1, length=80, style="constant")
    with pytest.raises(ConfigError, match="needs equal bounds"):
        compiled(curve)(3)


def test_what_is_no_curve_of_this_library_is_called_as_it_is():
    assert len is compiled(len)
