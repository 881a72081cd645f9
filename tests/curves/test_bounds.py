"""Schedules between the bounds of a group."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError, Phase, Schedule, schedules
from dist_sched._curves.bounds import BoundedSchedule
from dist_sched._curves.proportional import ProportionalTo

RISE_AND_FALL = Schedule([Phase("linear", 10, end=1.0, start=0.2), Phase("linear", 10, end=0.5)])


def between(schedule, positions, high, low, *, is_rise=False):
    bounded = BoundedSchedule.of(schedule, is_rise=is_rise)
    return [bounded.at(position)(high, low) for position in positions]


@pytest.mark.parametrize(
    "schedule, is_rise, expected",
    [
        (RISE_AND_FALL, False, [0.2, 1.1, 2.0, 1.2, 0.4, 0.4]),
        (RISE_AND_FALL, True, [0.4, 2.53, 4.67, 3.33, 2.0, 2.0]),
        (schedules.constant(1.0, 20, warmup=10), False, [0.0, 1.0, 2.0, 2.0, 2.0, 2.0]),
        (schedules.linear(1.0, 20), False, [2.0, 1.6, 1.2, 0.8, 0.4, 0.4]),
        (Schedule([Phase("linear", 20, end=1.0, start=0.0)]), True, [0.4, 0.8, 1.2, 1.6, 2.0, 2.0]),
    ],
)
def test_highest_and_last_or_first_and_last_map_to_the_bounds(schedule, is_rise, expected):
    positions = (0, 5, 10, 15, 20, 99)
    assert pytest.approx(expected, abs=5e-3) == between(
        schedule, positions, 2.0, 0.4, is_rise=is_rise
    )


def test_the_schedules_own_bounds_give_its_own_values():
    for schedule in (RISE_AND_FALL, schedules.cosine_with_restarts(1.0, 100, cycles=3, floor=0.1)):
        bounded = BoundedSchedule.of(schedule, is_rise=False)
        for position in range(120):
            own = bounded.at(position)(bounded.max_value, bounded.min_value)
            assert pytest.approx(schedule(position), rel=1e-12) == own


def test_a_curve_that_follows_lr_maps_its_own_values():
    curve = ProportionalTo(at_max=0.5).following(RISE_AND_FALL)
    assert pytest.approx([0.1, 2.0, 0.4]) == between(curve, (0, 10, 20), 2.0, 0.4)


def test_a_value_that_would_map_below_0_is_0():
    dip = Schedule([Phase("linear", 10, end=0.0, start=1.0), Phase("linear", 10, end=0.5)])
    assert [2.0, 0.0, 0.5] == between(dip, (0, 10, 20), 2.0, 0.5)


def test_a_weight_decay_that_ends_where_it_began_needs_equal_bounds():
    bump = Schedule([Phase("linear", 10, end=0.2, start=0.1), Phase("linear", 10, end=0.1)])
    assert pytest.approx([0.3, 0.6, 0.3]) == between(bump, (0, 10, 20), 0.3, 0.3, is_rise=True)
    with pytest.raises(ConfigError, match="needs equal bounds"):
        between(bump, (0,), 0.3, 0.2, is_rise=True)
