"""The pieces of peers' schedules join as their clocks say."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._peers.pieces import chained, flat, hold, padded, refuse_many, since, through, waves

RISE = Schedule([Phase("linear", 4, end=4.0, start=0.0)])
FALL = Schedule([Phase("linear", 4, end=0.0, start=4.0)])


def values(schedule, last):
    return [schedule(position) for position in range(last + 1)]


def test_a_padded_schedule_stays_at_its_last_value():
    assert (9, 4.0) == (padded(RISE, 9).horizon, padded(RISE, 9)(9))


@pytest.mark.parametrize("horizon", [None, 3, 4])
def test_a_schedule_is_not_padded_to_an_earlier_horizon(horizon):
    assert RISE == padded(RISE, horizon)


def test_padding_takes_the_place_of_a_phase_without_length():
    assert Schedule([hold(3, 1.0)]) == padded(flat(1.0), 3)


@pytest.mark.parametrize("position, first", [(0, 4.0), (3, 1.0), (4, 0.0), (9, 0.0)])
def test_a_schedule_goes_on_from_a_position(position, first):
    assert first == since(FALL, position)(0)


def test_the_last_position_of_what_comes_before_keeps_its_value():
    found = through(RISE, 2, Schedule([hold(2, 9.0), *FALL.phases]))
    assert [0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0] == values(found, 6)


def test_schedules_that_agree_where_they_meet_have_no_gap():
    after = Schedule([hold(4, 4.0), Phase("linear", 4, end=0.0, start=4.0)])
    assert Schedule([*RISE.phases, *FALL.phases]) == through(RISE, 4, after)


def test_a_join_of_chained_schedules_belongs_to_the_earlier_one():
    assert [4.0, 3.0, 2.0, 1.0, 0.0, 3.0, 2.0, 1.0, 0.0] == values(chained([FALL, FALL]), 8)


def test_chained_schedules_that_agree_where_they_meet_have_no_gap():
    assert Schedule([*RISE.phases, *FALL.phases]) == chained([RISE, FALL])


def test_waves_go_down_and_up_and_may_be_cut():
    found = Schedule(waves(1.0, 0.0, 4, 10))
    expected = [1.0, 0.5, 0.0, 0.5, 1.0, 0.5]
    assert expected == pytest.approx([found(position) for position in (0, 2, 4, 6, 8, 10)])
    assert 10 == found.horizon


def test_more_phases_than_a_schedule_can_have_are_refused_before_they_are_built():
    with pytest.raises(
        ConfigError, match=r"num_cycles=1000000.0: .* makes more than 50,000 phases"
    ):
        refuse_many("num_cycles", 1e6, 2e6)
