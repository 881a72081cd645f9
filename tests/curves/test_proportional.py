"""Fields that follow another's schedule: their values and data."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError, Phase, Schedule, register_shape
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
    with pytest.raises(ConfigError, match=r"^at_max="):
        ProportionalTo(at_max=value)


@pytest.mark.parametrize("field", ["", None, 3])
def test_a_field_that_is_no_text_is_refused(field):
    with pytest.raises(ConfigError, match=r"^field=.*must be a non-empty string"):
        ProportionalTo(field, at_max=0.1)


def test_the_data_has_the_keys_of_files_and_states():
    follows = ProportionalTo("momentum", at_max=0.1)
    assert {"peak": 0.1, "to": "momentum"} == follows.to_dict()
    assert follows == ProportionalTo.from_dict(follows.to_dict())


@pytest.mark.parametrize(
    "data, message",
    [
        ({"peak": -1, "to": "lr"}, "peak=-1: must be"),
        ({"peak": 1, "to": 3}, "to=3: must be a non-empty string"),
    ],
)
def test_illegal_data_is_refused_by_its_own_key(data, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        ProportionalTo.from_dict(data)


def test_a_text_says_what_is_followed():
    assert "follows lr, 0.1 where that is highest" == str(ProportionalTo(at_max=0.1))


# Powers


@pytest.mark.parametrize(
    "power, expected",
    [
        (0.5, [0.5, 1.0, 0.5**0.5]),
        (2, [0.0625, 1.0, 0.25]),
        (-1, [4.0, 1.0, 2.0]),
        (-0.5, [2.0, 1.0, 2.0**0.5]),
        (0, [1.0, 1.0, 1.0]),
    ],
)
def test_a_curve_follows_a_power_of_the_proportion(power, expected):
    curve = ProportionalTo(at_max=1.0, power=power).following(HILL)
    assert expected == pytest.approx([curve(position) for position in (0, 4, 8)], rel=1e-15)
    assert max(expected) == curve.max_value


def test_a_power_of_1_has_the_bits_of_the_proportion():
    curve = ProportionalTo(at_max=0.3).following(HILL)
    positions = [0.1 * step for step in range(90)]
    assert [0.3 * (HILL(one) / 2.0) for one in positions] == [curve(one) for one in positions]


def test_a_power_of_what_ends_at_0_is_0_there():
    fall = Schedule([Phase("linear", 4, end=0.0, start=1.0)])
    assert 0.0 == ProportionalTo(at_max=1.0, power=0.5).following(fall)(4)


@pytest.mark.parametrize(
    "low, power, message",
    [
        (0.0, -1, r"power=-1\.0: a negative power needs values above 0, and lr is 0 somewhere"),
        (1e-300, -1, r"power=-1\.0: the value where lr is lowest would be 1e\+300"),
        (1e-300, -2, r"power=-2\.0: the result leaves the range of floats"),
    ],
)
def test_a_negative_power_of_what_comes_too_near_to_0_is_refused(low, power, message):
    fall = Schedule([Phase("linear", 4, end=low, start=1.0)])
    with pytest.raises(ConfigError, match=f"^{message}"):
        ProportionalTo(at_max=1.0, power=power).following(fall)


def test_a_shape_that_is_0_between_its_ends_has_no_negative_power_there():
    register_shape("dip")(lambda progress: -1.0 if 0.3 < progress < 0.4 else 1 - progress)
    dip = Schedule([Phase("dip", 8, end=0.5, start=1.0)])
    curve = ProportionalTo(at_max=1.0, power=-1).following(dip)
    with pytest.raises(ConfigError, match=r"^power=-1\.0: the result leaves the range of floats"):
        curve(3)


@pytest.mark.parametrize("power", [float("nan"), float("inf"), 10**400, "high", None, True])
def test_an_illegal_power_is_refused_by_name(power):
    with pytest.raises(ConfigError, match=r"^power="):
        ProportionalTo(at_max=0.1, power=power)


def test_the_data_has_a_power_only_where_it_is_not_1():
    follows = ProportionalTo(at_max=0.1, power=-1)
    assert {"peak": 0.1, "to": "lr", "power": -1.0} == follows.to_dict()
    assert follows == ProportionalTo.from_dict(follows.to_dict())
    assert {"peak", "to"} == ProportionalTo(at_max=0.1, power=1).to_dict().keys()


def test_a_text_says_the_power():
    follows = ProportionalTo("batch_size", at_max=0.1, power=0.5)
    assert "follows batch_size to the power of 0.5, 0.1 where that is highest" == str(follows)
