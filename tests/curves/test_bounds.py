"""Schedules between the bounds of a group."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError, Phase, Schedule, schedules
from dist_sched._curves.bounds import BoundedSchedule, Point
from dist_sched._curves.proportional import ProportionalTo

RISE_AND_FALL = Schedule([Phase("linear", 10, end=1.0, start=0.2), Phase("linear", 10, end=0.5)])


def between(schedule, positions, high, low, *, is_rise=False):
    bounded = BoundedSchedule.of(schedule, is_rise=is_rise)
    return [bounded.at(position)(high, low) for position in positions]


@pytest.mark.parametrize(
    "schedule, is_rise, expected",
    [
        (RISE_AND_FALL, False, [0.2, 1.1, 2.0, 1.2, 0.4, 0.4]),
        (
            Schedule([*RISE_AND_FALL.phases, Phase("linear", 10, end=0.3)]),
            False,
            [0.2, 1.1, 2.0, 1.43, 0.86, 0.4],
        ),
        (Schedule([Phase("constant", 20, 0.0, 0.0)]), False, [2.0] * 6),
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
    with pytest.raises(ConfigError, match=r"needs equal bounds, got 0\.2 and 0\.3"):
        between(bump, (0,), 0.3, 0.2, is_rise=True)


FLAT = Schedule([Phase("linear", 10, end=1.0, start=0.2), Phase("constant", 20, end=1.0)])
JUMP = Schedule([*RISE_AND_FALL.phases[:1], Phase("linear", 10, end=0.5, start=0.8)])
THREE = Schedule([*RISE_AND_FALL.phases, Phase("cosine", 10, end=0.3)])
CHANGES = [
    ("cooldown at a jump", "cooldown", JUMP, 10, {"steps": 8}),
    ("cooldown past three phases", "cooldown", THREE, 35, {"steps": 8}),
    ("rise in the last of three phases", "rewarm", THREE, 24, {"steps": 8}),
    ("extended in the second of three", "extend", THREE, 14, {"horizon": 45, "keep": "value"}),
    ("extended past three phases", "extend", THREE, 35, {"horizon": 45, "keep": "value"}),
    ("scaled in the second of three", "scale", THREE, 14, {"factor": 3.0}),
    ("scaled past three phases", "scale", THREE, 35, {"factor": 3.0}),
    ("cooldown in a phase", "cooldown", RISE_AND_FALL, 14, {"steps": 8}),
    ("cooldown at a boundary", "cooldown", RISE_AND_FALL, 10, {"steps": 8}),
    ("cooldown past the end", "cooldown", RISE_AND_FALL, 25, {"steps": 8}),
    ("rise to a known value", "rewarm", RISE_AND_FALL, 20, {"steps": 5, "peak": 1.0}),
    ("extended in a fall", "extend", RISE_AND_FALL, 14, {"horizon": 30, "keep": "value"}),
    ("extended whole", "extend", RISE_AND_FALL, 14, {"horizon": 30}),
    ("extended in a constant phase", "extend", FLAT, 20, {"horizon": 40}),
    ("extended past the end", "extend", RISE_AND_FALL, 25, {"horizon": 40}),
    ("extended past the end", "extend", RISE_AND_FALL, 25, {"horizon": 40, "keep": "value"}),
    ("scaled in a phase", "scale", RISE_AND_FALL, 14, {"factor": 3.0}),
    ("scaled at a boundary", "scale", RISE_AND_FALL, 10, {"factor": 3.0}),
    ("scaled past the end", "scale", RISE_AND_FALL, 25, {"factor": 3.0}),
    ("scaled at the end", "scale", RISE_AND_FALL, 20, {"factor": 3.0}),
]


def changed(schedule, operation, position, arguments):
    """Return a schedule after a late change, mapped after it."""
    after = getattr(schedule, operation)(position, **arguments)
    before = BoundedSchedule.of(schedule, is_rise=False)
    return before.changed(after, position, operation, factor=arguments.get("factor", 1.0))


@pytest.mark.parametrize(
    "operation, schedule, position, arguments",
    [row[1:] for row in CHANGES],
    ids=[r[0] for r in CHANGES],
)
def test_after_a_late_change_the_declared_bounds_give_the_changed_schedule(
    operation, schedule, position, arguments
):
    bounded = changed(schedule, operation, position, arguments)
    for at in range(50):
        own = bounded.at(at)(bounded.max_value, bounded.min_value)
        assert pytest.approx(bounded.curve(at), abs=1e-12) == own


def test_a_scale_multiplies_whatever_the_bounds_are():
    bounded = changed(RISE_AND_FALL, "scale", 10, {"factor": 3.0})
    assert pytest.approx([1.91, 6.0, 3.6, 1.2]) == [
        bounded.at(n)(2.0, 0.4) for n in (9.5, 10, 15, 20)
    ]


def test_a_cooldown_ends_at_its_point_whatever_the_bounds_are():
    after = RISE_AND_FALL.cooldown(10, 10, "linear", 0.25)
    bounded = BoundedSchedule.of(RISE_AND_FALL, is_rise=False).changed(
        after, 10, "cooldown", end=Point(0.0, 0.25, 0.0)
    )
    assert pytest.approx([2.0, 1.25, 0.5, 0.5]) == [
        bounded.at(n)(2.0, 0.4) for n in (10, 15, 20, 30)
    ]


def test_a_value_that_the_schedule_did_not_have_maps_to_itself():
    bounded = changed(RISE_AND_FALL, "rewarm", 20, {"steps": 5, "peak": 0.7})
    assert pytest.approx(0.7) == bounded.at(25)(2.0, 0.4)


def test_a_value_that_the_schedule_had_maps_to_its_point():
    bounded = changed(RISE_AND_FALL, "rewarm", 20, {"steps": 5, "peak": 1.0})
    assert pytest.approx([0.4, 2.0]) == [bounded.at(position)(2.0, 0.4) for position in (20, 25)]


def test_the_highest_value_is_that_of_the_upper_bound():
    bounded = BoundedSchedule.of(RISE_AND_FALL, is_rise=False)
    assert (2.0, 1.0, None) == (bounded.highest(2.0, 0.4), bounded.factor, bounded.end_share)


def test_the_highest_value_is_the_lower_bound_or_a_kept_start_where_that_is_higher():
    bounded = BoundedSchedule.of(RISE_AND_FALL, is_rise=False)
    assert [3.0, 0.2] == [bounded.highest(2.0, 3.0), bounded.highest(0.1, 0.05)]


@pytest.mark.parametrize(
    "curve, expected",
    [
        (RISE_AND_FALL, (0.0, 1.0, 0.0)),
        (ProportionalTo(at_max=0.5, power=0.5).following(RISE_AND_FALL), (0.0, 1.0, 0.0)),
        (ProportionalTo(at_max=0.5, power=-1).following(RISE_AND_FALL), (0.0, -1 / 3, 4 / 3)),
    ],
    ids=["schedule", "root", "inverse"],
)
def test_the_peak_is_the_point_where_the_schedule_is_highest(curve, expected):
    assert pytest.approx(expected) == BoundedSchedule.of(curve, is_rise=False).peak


@pytest.mark.parametrize(
    "phases, position, expected",
    [
        ([Phase("linear", 5, end=0.5, start=0.2), Phase("linear", 5, end=1.0)], 5, 0.875),
        ([Phase("linear", 10, end=1.0, start=0.2), Phase("step", 5, 0.5, 0.6)], 10, 0.72),
    ],
)
def test_the_upper_bound_is_reached_at_the_highest_value(phases, position, expected):
    schedule = Schedule([*phases, Phase("linear", 10, end=0.5)])
    assert pytest.approx([expected]) == between(schedule, [position], 2.0, 0.4)


def test_a_phase_without_slope_goes_to_its_point_and_stays_there():
    after = FLAT.cooldown(20, 10, "linear", 1.0)
    bounded = BoundedSchedule.of(FLAT, is_rise=False).changed(
        after, 20, "cooldown", end=Point(0.0, 0.5, 0.0)
    )
    assert [2.0, 1.5, 1.0, 1.0] == [bounded.at(position)(2.0, 0.4) for position in (20, 25, 30, 40)]
