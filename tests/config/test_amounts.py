"""Numbers, lengths and paces as people write them."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError, schedules
from dist_sched._config.amounts import Budget, Scope, amount, number, read_pace

STAGES = schedules.piecewise([(0, 2), (10, 4)], shape="step")
"""2 for five updates, up to position 10, and then 4."""
EXTRAS = {
    "batch_size": STAGES,
    "seq": 3,
    "half": 0.5,
    "tied": schedules.proportional_to("lr", at_max=1),
}


@pytest.mark.parametrize(
    "written, expected",
    [("3e-4", 3e-4), (" 12 ", 12), ("1e3", 1000.0), (0.5, 0.5), ("2k", "2k"), (None, None)],
)
def test_a_text_is_a_number_where_float_reads_it(written, expected):
    assert expected == number(written)


@pytest.mark.parametrize("text", ["x" * 1000, "9" * 1000])
def test_a_long_text_is_no_number(text):
    assert text == number(text)


@pytest.mark.parametrize(
    "written, expected",
    [
        (1, 1),
        (37.5, 37.5),
        (0.07, 7),
        ("7%", 7),
        ("0.5", 0.5),
        ("2k", 2_000),
        ("1.5M", 1_500_000),
        ("1.5B", 1_500_000_000),
        ("2T", 2_000_000_000_000),
    ],
)
def test_a_length_is_units_or_a_part_of_a_horizon_of_100(written, expected):
    assert expected == amount("warmup", written, 100)


@pytest.mark.parametrize("written", ["1e999999999", "NaN", "x", "2q", "", "%", "9" * 1000])
def test_a_text_that_is_no_length_is_refused(written):
    with pytest.raises(ConfigError, match=r"warmup=.*: must be a number of units, which may"):
        amount("warmup", written, 100)


@pytest.mark.parametrize(
    "data, expected",
    [
        (10, 70),
        ("1k", 7_000),
        ({"extra": "batch_size"}, 18),
        ({"extra": "batch_size", "times": 3}, 72),
        ({"extra": "batch_size", "times": "3"}, 72),
        ({"extra": "batch_size", "times": "seq"}, 72),
        ({"extra": "seq", "times": "batch_size"}, 72),
        ({"extra": "seq"}, 21),
    ],
)
def test_a_pace_is_a_number_or_an_extra_times_a_number_or_another_extra(data, expected):
    assert expected == read_pace(data, EXTRAS, EXTRAS).position_after(7)


@pytest.mark.parametrize(
    "data, message",
    [
        ("batch_size", "per_update='batch_size': must be a number of units, or a mapping such as"),
        (0, "per_update=0: must be greater than 0"),
        (2.5, "per_update=2.5: must be a whole number"),
        (True, "per_update=True: must be a whole number"),
        ({"times": 4}, "per_update: extra is missing"),
        ({"extr": "seq"}, "per_update: 'extr' is not known here; did you mean 'extra'?"),
        ({"extra": "batch_siz"}, "per_update: extra='batch_siz': must be the name of an extra"),
        ({"extra": "batch_siz"}, "did you mean 'batch_size'?"),
        ({"extra": ["seq"]}, r"per_update: extra=\['seq'\]: must be the name of an extra"),
        ({"extra": "seq", "times": "sq"}, "per_update: times='sq': must be the name of an extra"),
        ({"extra": "seq", "times": 0}, "per_update: times=0: must be greater than 0"),
        ({"extra": "seq", "times": 0.5}, "per_update: times=0.5: must be a whole number"),
        ({"extra": "half"}, "per_update: half=0.5: must be a whole number"),
        ({"extra": "tied"}, "extra='tied': must be an extra with a schedule that does"),
    ],
)
def test_a_pace_that_cannot_be_used_is_refused_by_its_place(data, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        read_pace(data, EXTRAS, EXTRAS)


@pytest.mark.parametrize("found", [float("inf"), float("nan"), 10**400, -1])
def test_an_extra_that_is_a_number_must_be_a_whole_one(found):
    with pytest.raises(ConfigError, match="per_update: items="):
        read_pace({"extra": "items"}, {"items": found}, ["items"])


SCOPE = Scope(horizon=100, pace=read_pace({"extra": "batch_size"}, EXTRAS, EXTRAS))


@pytest.mark.parametrize("updates", [7, 7.0, "7", " 7 "])
def test_a_length_in_updates_is_counted_by_the_pace(updates):
    assert 18 == SCOPE.length("warmup", {"updates": updates})


def test_a_length_in_updates_is_counted_from_where_it_begins():
    assert 12 == SCOPE.at(6).length("steps", {"updates": 4})


def test_a_length_in_updates_that_ends_somewhere_is_counted_back_from_there():
    assert 12 == SCOPE.length("decay", {"updates": 3}, ends=30)
    assert 22 == SCOPE.length("decay", {"updates": 6}, ends=30)


@pytest.mark.parametrize(
    "value, message",
    [
        ({"updates": 2.5}, "warmup.updates=2.5: must be a whole number"),
        ({"updates": "3%"}, "warmup.updates='3%': must be a whole number"),
        ({"updates": 0.5}, "warmup.updates=0.5: must be a whole number"),
        ({"updates": {"updates": 1}}, "warmup.updates={'updates': 1}: must be a whole number"),
        ({"updates": -1}, "warmup.updates=-1: must be a whole number >= 0"),
        ({"updats": 1}, "warmup: 'updats' is not known here; did you mean 'updates'"),
        ({"updates": 1, "x": 2}, "warmup: 'x' is not known here"),
        ({}, "warmup={}: must be a length in units, or a mapping with updates"),
    ],
)
def test_a_length_in_updates_that_cannot_be_counted_is_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        SCOPE.length("warmup", value)


def test_a_length_that_ends_before_so_many_updates_is_refused():
    with pytest.raises(ConfigError, match=r"decay.updates=11: must be at most 10, .* up to .* 30"):
        SCOPE.length("decay", {"updates": 11}, ends=30)


def test_updates_that_begin_within_a_unit_are_refused():
    with pytest.raises(ConfigError, match=r"cannot count updates from the fraction 0.5"):
        SCOPE.at(0.5).length("steps", {"updates": 4})


def test_updates_without_a_pace_say_what_to_add():
    with pytest.raises(ConfigError, match=r"the units per update; add per_update at the"):
        Scope(horizon=100).length("warmup", {"updates": 4})


def test_the_scopes_of_a_config_share_one_budget():
    scope = Scope(budget=Budget(left=10))
    scope.at(5).within(20).budget.spend(10)
    with pytest.raises(ConfigError, match="have more than 500,000 phases"):
        scope.budget.spend(1)
