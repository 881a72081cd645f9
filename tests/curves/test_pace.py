"""The pace of a run: positions after updates, against counting them one by one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_sched import ConfigError, Phase, Schedule, schedules
from dist_sched._curves.pace import Pace

RAMP = schedules.whole(schedules.piecewise([(0, 2), (50, 4)]))
"""2, 3 from 25 on, 4 from 50 on."""
STAGES = schedules.piecewise([(0, 2), (10, 4), (30, 1)], shape="step")

counts = st.integers(1, 40)
points = st.lists(st.tuples(st.integers(1, 60), counts), min_size=1, max_size=5)


@st.composite
def batch_sizes(draw):
    """Return a ramp, or a table of stages, of whole numbers."""
    position, found = 0, [(0, draw(counts))]
    for width, value in draw(points):
        position += width
        found.append((position, value))
    shape = draw(st.sampled_from(["linear", "step", "cosine"]))
    return schedules.whole(schedules.piecewise(found, shape=shape))


def one_by_one(updates, begin, number, curves):
    position = begin
    for _ in range(updates):
        position += number * math.prod(curve(position) for curve in curves)
    return position


@given(st.lists(batch_sizes(), max_size=2), counts, st.integers(0, 80), st.integers(0, 200))
def test_positions_are_those_of_updates_that_are_counted_one_by_one(curves, number, updates, begin):
    pace = Pace.of(number, *curves)
    assert one_by_one(updates, begin, number, curves) == pace.position_after(updates, begin)
    assert one_by_one(updates, 0, number, curves) == pace.position_after(updates)


@given(st.lists(batch_sizes(), max_size=2), counts, st.integers(0, 400))
def test_updates_until_a_position_are_the_first_that_reach_it(curves, number, end):
    pace = Pace.of(number, *curves)
    updates = pace.updates_until(end)
    assert pace.position_after(updates) >= end
    assert updates == 0 or pace.position_after(updates - 1) < end


@pytest.mark.parametrize(
    "pace, expected",
    [
        (Pace.of(5), [0, 5, 10, 15]),
        (Pace.of(STAGES), [0, 2, 4, 6]),
        (Pace.of(STAGES, 10), [0, 20, 60, 70]),
        (Pace.of(RAMP, STAGES), [0, 4, 8, 12]),
        (Pace.of(20, RAMP), [0, 40, 100, 180]),
        (Pace.of(2, 3), [0, 6, 12, 18]),
    ],
)
def test_an_update_completes_the_product_of_all_factors(pace, expected):
    assert expected == [pace.position_after(updates) for updates in range(4)]


@pytest.mark.parametrize("end, expected", [(0, 0), (1, 1), (10, 5), (10.5, 6), (30, 10), (33, 13)])
def test_an_update_that_is_not_complete_counts(end, expected):
    assert expected == Pace.of(STAGES).updates_until(end)


@pytest.mark.timeout(20)
def test_stages_of_any_length_are_counted_at_once():
    stages = schedules.piecewise([(0, 1), (2**50, 2)], shape="step")
    assert 2**50 + 2**40 == Pace.of(stages).position_after(2**50 + 2**39)
    assert 2**50 + 2**39 == Pace.of(stages).updates_until(2**50 + 2**40)


def test_a_line_that_stays_level_is_counted_at_once():
    level = schedules.piecewise([(0, 4), (2**50, 4), (2**50 + 8, 8)])
    assert 2**50 == Pace.of(schedules.whole(level)).position_after(2**48)


@pytest.mark.timeout(60)
def test_a_batch_that_grows_for_too_long_is_refused_once_and_for_all():
    pace = Pace.of(schedules.whole(schedules.piecewise([(0, 1), (10**15, 10**6)])))
    for updates in (10**9, 10**8):
        with pytest.raises(ConfigError, match="more than 1,000,000 updates of a growing batch"):
            pace.position_after(updates)


@pytest.mark.parametrize(
    "call, legal, more, found", [("position_after", 3, 4, 7), ("updates_until", 7, 8, 3)]
)
def test_as_many_updates_as_are_left_are_counted_and_one_more_is_refused(call, legal, more, found):
    doubling = schedules.whole(schedules.piecewise([(0, 1), (100, 101)]))
    assert found == getattr(Pace(1, (doubling,), 3), call)(legal)
    with pytest.raises(ConfigError, match=r"^position 7: it takes more than 1,000,000 updates"):
        getattr(Pace(1, (doubling,), 3), call)(more)


def test_what_was_counted_is_not_counted_again():
    pace = Pace.of(schedules.whole(schedules.piecewise([(0, 1), (10**9, 10**6)])))
    first = pace.position_after(5_000), pace.updates_until(10**6)
    left = pace._left
    assert first == (pace.position_after(5_000), pace.updates_until(10**6))
    assert left == pace._left


def test_a_position_beyond_the_largest_is_refused():
    with pytest.raises(ConfigError, match=r"^position=.*must be from 0 to 2\*\*53"):
        Pace.of(2**40).position_after(2**20)


@pytest.mark.parametrize("value", [0.0, 2.5, 0.9])
def test_a_batch_that_is_no_whole_number_is_refused_where_it_is(value):
    batch_size = Schedule(
        [Phase("constant", 4, end=2.0, start=2.0), Phase("constant", 9, value, value)]
    )
    with pytest.raises(ConfigError, match=f"^batch_size={value} at position 4: must be a"):
        Pace.of(batch_size).position_after(3)


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "4"])
def test_a_number_that_is_no_whole_one_above_0_is_refused(number):
    with pytest.raises(ConfigError, match=r"^per_item="):
        Pace.of(number)
