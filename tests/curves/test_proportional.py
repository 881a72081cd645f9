"""Fields that follow another's schedule: their values and data."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._curves.proportional import ProportionalTo

HILL = Schedule([Phase("linear", 4, end=2.0, start=0.5), Phase("linear", 4, end=1.0)])


def test_a_curve_is_at_max_where_the_schedule_is_at_its_highest():
    curve = ProportionalTo(at_max=0.1).following(HILL)
    assert [0.025, 0.1, 0.05, 0.05] == [curve(position) for position in (0, 4, 8, 9)]


def test_a_field_follows_lr_by_default():
    assert ProportionalTo("lr", at_max=0.1) == ProportionalTo(at_max=0.1)


def test_at_max_is_passed_by_name():
    with pytest.raises(TypeError, match="at_max"):
        ProportionalTo(0.1)


@pytest.mark.parametrize("value", [-1.0, float("nan"), "high", None, True])
def test_an_illegal_at_max_is_refused_by_name(value):
    with pytest.raises(ConfigError, match="at_max="):
        ProportionalTo(at_max=value)


@pytest.mark.parametrize("field", ["", None, 3])
def test_a_field_that_is_no_text_is_refused(field):
    with pytest.raises(ConfigError, match=r"field=.*must be a text"):
        ProportionalTo(field, at_max=0.1)


def test_the_data_has_the_keys_of_files_and_states():
    follows = ProportionalTo("momentum", at_max=0.1)
    assert {"peak": 0.1, "to": "momentum"} == follows.to_dict()
    assert follows == ProportionalTo.from_dict(follows.to_dict())


@pytest.mark.parametrize(
    "data, message",
    [
        ({"peak": -1, "to": "lr"}, "peak=-1: must be"),
        ({"peak": 1, "to": 3}, "to=3: must be a text"),
    ],
)
def test_illegal_data_is_refused_by_its_own_key(data, message):
    with pytest.raises(ConfigError, match=message):
        ProportionalTo.from_dict(data)


def test_a_text_says_what_is_followed():
    assert "follows lr, 0.1 where that is highest" == str(ProportionalTo(at_max=0.1))
