"""Phases: their arguments, parts, products, and what they are as data."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._curves.phases import Factor, factors_of, multiplied, part, scaled, stretched

RISE = Phase("linear", 10, end=1.0, start=0.0)
FALL = Phase("cosine", 100, end=0.1)
LATE = Phase("linear", 100, end=0.0, start=1.0, since=40, until=80)
NO_NUMBERS = [True, "1", [1], 1j, np.bool_(True)]
NO_RATES = [-1, -1e-9, math.nan, math.inf, -math.inf, 10**400]
HILL = {
    "shape": "product",
    "steps": 10,
    "end": 0.0,
    "start": 0.0,
    "factors": [
        {"shape": "linear", "steps": 10, "end": 1.0, "start": 0.0},
        {"shape": "linear", "steps": 10, "end": 0.0, "start": 1.0},
    ],
}
"""A rise from 0 to 1 times a fall from 1 to 0: 0.25 in the middle."""


def values(phase, *positions):
    return [Schedule([phase])(position) for position in positions]


@pytest.mark.parametrize("name", ["shape", "steps", "end", "start", "until", "parameters"])
def test_a_phase_is_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(copy.copy(RISE), name, 1)


@pytest.mark.parametrize("value", [*NO_NUMBERS, None, *NO_RATES], ids=str)
def test_what_is_no_finite_number_above_0_is_refused(value):
    with pytest.raises(ConfigError, match=r"^end=.*must be a (finite )?number"):
        Phase("linear", 10, end=value)


@pytest.mark.parametrize("name", ["steps", "end", "start", "until"])
def test_an_illegal_number_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=rf"^{name}=-1: must be a finite number >= 0"):
        Phase(**{"shape": "linear", "steps": 10, "end": 0.1, name: -1})


@pytest.mark.parametrize("name", ["steps", "until"])
def test_a_length_over_2_to_the_53_is_refused(name):
    with pytest.raises(ConfigError, match=rf"^{name}=9007199254740993: must be at most 2\*\*53"):
        Phase(**{"shape": "linear", "steps": 10, "end": 0.1, name: 2**53 + 1})


def test_an_until_past_the_end_is_refused():
    with pytest.raises(ConfigError, match=r"^until=11: must be at most steps=10"):
        Phase("linear", 10, end=0.0, until=11)


@pytest.mark.parametrize(
    "value, kind",
    [
        (np.float64(1.5), float),
        (np.float32(1.5), float),
        (torch.tensor(1.5), float),
        (Fraction(3, 2), float),
        (np.int64(2), int),
        (torch.tensor(2), int),
    ],
    ids=repr,
)
def test_a_scalar_of_another_library_is_stored_as_a_plain_number(value, kind):
    phase = Phase("linear", value, end=value, start=value, until=value)
    found = [type(one) for one in (phase.steps, phase.until, phase.end, phase.start)]
    assert [kind, kind, float, float] == found


def test_the_parameters_of_a_phase_are_frozen_too():
    phase = Phase("cosine", 10, end=0.0, start=1.0)
    with pytest.raises(TypeError):
        phase.parameters["exponent"] = 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"shape": "halving"},
        {"steps": 11},
        {"end": 0.5},
        {"start": 0.5},
        {"start": None},
        {"until": 5},
    ],
    ids=str,
)
def test_phases_that_differ_are_not_equal(change):
    assert RISE != RISE.replace(**change)


def test_phases_that_differ_in_a_parameter_are_not_equal():
    assert FALL != FALL.replace(exponent=2)
    assert FALL == FALL.replace(exponent=1)


def test_defaults_of_parameters_are_saved():
    assert {"shape": "cosine", "steps": 100, "end": 0.1, "exponent": 1.0} == FALL.to_dict()


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "phase=None: must be a mapping"),
        ([], r"phase=\[\]: must be a mapping"),
        ({3: 1}, r"phase=\{3: 1\}: must be a mapping"),
        ({}, r"phase=\{\}: lacks shape, steps, end"),
        ({"shape": "linear", "end": 1}, "phase=.*: lacks steps"),
        ({"shape": "linear", "steps": 5}, "phase=.*: lacks end"),
        ({"shape": "linear", "setps": 5, "end": 1}, r".* lacks steps; did you mean 'steps'\?"),
        ({**RISE.to_dict(), 7: 1}, "phase=.*: must be a mapping"),
        ({**RISE.to_dict(), "stop": 1}, "'stop' is not a parameter of shape 'linear'"),
        ({**RISE.to_dict(), "strat": 1}, r"'strat' .*did you mean 'start'\?"),
        ({**RISE.to_dict(), "parameters": {}}, "'parameters' is not a parameter"),
        ({**RISE.to_dict(), "self": 1}, "'self' is not a parameter"),
        ({**RISE.to_dict(), "steps": "10"}, "steps='10': must be a number"),
        ({**RISE.to_dict(), "shape": "up"}, "shape='up': must be one of"),
    ],
    ids=str,
)
def test_data_that_is_no_phase_is_refused(data, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Phase.from_dict(data)


# Parts.


def test_a_phase_that_begins_in_its_middle_goes_on_from_there():
    assert [0.6, 0.4, 0.2, 0.2] == pytest.approx(values(LATE, 0, 20, 40, 99))
    assert 40 == LATE.duration


def test_a_phase_may_begin_or_end_where_its_shape_ends():
    assert (10, 0) == (RISE.replace(until=10).duration, RISE.replace(since=10).duration)


def test_a_phase_that_begins_at_0_is_the_whole():
    assert RISE == RISE.replace(since=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"since": 81}, "since=81: must be at most until=80"),
        ({"since": 101, "until": None}, "since=101: must be at most steps=100"),
        ({"start": None}, "since=40: also needs start=, the value at the beginning"),
    ],
)
def test_a_beginning_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        LATE.replace(**change)


def test_a_beginning_below_one_unit_is_refused_with_both_meanings():
    with pytest.raises(ConfigError, match=r"^since=0\.25: .* 25% of .* or 0\.25 units"):
        RISE.replace(since=0.25)


def test_a_part_of_a_part_is_a_part_of_the_whole():
    assert LATE.replace(since=50, until=60) == part(LATE, 10, 20)
    assert LATE.replace(since=50) == part(LATE, 10)
    assert LATE.replace(since=50, until=None) == part(LATE.replace(until=None), 10, 60)


def test_a_part_of_a_constant_phase_is_a_shorter_one():
    assert Phase("constant", 3, 0.5, 0.5) == part(Phase("constant", 10, 0.5, 0.5), 4, 7)


def test_a_scaled_phase_has_all_values_multiplied():
    assert LATE.replace(end=0.0, start=3.0) == scaled(LATE, 3.0)
    assert RISE.replace(start=None, end=3.0) == scaled(RISE.replace(start=None), 3.0)


def test_a_phase_that_is_scaled_by_1_is_itself_whatever_its_shape():
    half_life = Phase("half_life", 10, end=0.9, start=0.5)
    assert [LATE, half_life] == [scaled(one, 1.0) for one in (LATE, half_life)]


def test_a_phase_that_is_scaled_by_0_is_constant():
    geometric = Phase("exponential", 10, end=0.1, start=1.0)
    assert Phase("constant", 10, 0.0, 0.0) == scaled(geometric, 0.0)


def test_a_stretched_phase_takes_another_time_along_the_same_values():
    longer = stretched(LATE, 80)
    assert LATE.replace(steps=200, since=80, until=160) == longer
    assert values(LATE, 0, 10, 40) == pytest.approx(values(longer, 0, 20, 80))


def test_lengths_among_the_parameters_are_stretched_and_numbers_are_not():
    law = Phase("power_law", 10, end=0.1, start=1.0, timescale=5, power=2)
    assert law.replace(steps=30, timescale=15.0) == stretched(law, 30)
    steps = Phase("multistep", 10, end=0.1, start=1.0, milestones=[5, 10])
    assert steps.replace(steps=30, milestones=[15, 30]) == stretched(steps, 30)


# Products.


def test_a_product_has_the_values_of_its_factors_multiplied():
    assert [0.0, 0.1875, 0.25, 0.0] == values(Phase.from_dict(HILL), 0, 2.5, 5, 10)


def test_a_scaled_product_and_a_stretched_one_are_that_of_their_values():
    hill = Phase.from_dict(HILL)
    assert [0.5] == values(scaled(hill, 2.0), 5)
    assert [0.25, 0.0] == values(stretched(hill, 40), 20, 40)
    assert [0.25, 0.1875] == pytest.approx(values(part(hill, 5, 8), 0, 2.5))
    assert [0.25, 0.1875] == pytest.approx(values(stretched(part(hill, 5, 8), 6), 0, 5))


def test_a_product_comes_back_from_json_pickle_and_repr():
    hill = Phase.from_dict(HILL)
    loaded = Phase.from_dict(json.loads(json.dumps(hill.to_dict())))
    pickled = pickle.loads(pickle.dumps(hill))  # noqa: S301
    evaluated = eval(repr(hill), {"Phase": Phase})  # noqa: S307
    assert [hill] * 4 == [loaded, pickled, copy.deepcopy(hill), evaluated]


@pytest.mark.parametrize(
    "factors, message",
    [
        (3, "factors=.*: must be a list of phases"),
        ([], "factors=.*: must be a list of phases"),
        ([RISE, FALL], "factors=.*: must be phases with a start"),
        ([RISE, RISE.replace(steps=11)], "factors=.*: must be phases of equal length"),
        ([HILL, RISE], "factors=.*: must not contain products"),
        ([RISE, {}], "phase=.*: lacks shape, steps, end"),
    ],
    ids=str,
)
def test_factors_that_make_no_product_are_refused(factors, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Phase.from_dict({**HILL, "factors": factors})


@pytest.mark.parametrize(
    "powers, message",
    [
        (2.0, r"powers=2\.0: must be a list of numbers, one for each factor"),
        ([], r"powers=\[\]: must be a list of numbers, one for each factor"),
        ([1, 0], r"powers=\[1, 0\]: must not be 0"),
        ([1, math.nan], "powers=nan: must be a finite number"),
        ([2], r"phases\[0\] \(product\): powers=\(2\.0,\): must be 2 numbers, one for each"),
        ([2, 1, 1], r"phases\[0\] \(product\): powers=.*: must be 2 numbers, one for each"),
    ],
    ids=str,
)
def test_powers_that_do_not_fit_the_factors_are_refused(powers, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Schedule([Phase(**{**HILL, "powers": powers})])


@pytest.mark.parametrize(
    "powers, kept, middle",
    [(None, None, 0.25), ([1, 1], None, 0.25), ([1, 2], (1.0, 2.0), 0.125)],
    ids=str,
)
def test_powers_are_kept_where_one_is_not_1(powers, kept, middle):
    phase = Phase(**{**HILL, "powers": powers})
    assert (kept, [middle]) == (phase.parameters["powers"], values(phase, 5))


def test_a_phase_that_is_no_product_is_its_only_factor():
    assert [Factor(RISE, 1.0)] == factors_of(RISE)


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_product_that_begins_or_ends_elsewhere_than_its_factors_is_refused(name):
    with pytest.raises(
        ConfigError,
        match=rf"^phases\[0\] \(product\): {name}=0.5: must be the product of its factors'",
    ):
        Schedule.from_dict({"phases": [{**HILL, name: 0.5}]})


def test_products_in_products_are_refused_however_deep():
    data = HILL
    for _ in range(400):
        data = {**HILL, "factors": [data]}
    with pytest.raises(ConfigError, match="must not contain products"):
        Phase.from_dict(data)


@pytest.mark.parametrize("number, count", [(1.0, 1), (2.0, 2)])
def test_a_product_without_a_plain_factor_is_multiplied_by_a_constant_one(number, count):
    factors = multiplied([Factor(Phase("linear", 8, end=1.0, start=0.0), 0.5)], number)
    assert count == len(factors)
    assert [(number, 1.0)][: count - 1] == [(one.end, power) for one, power in factors[1:]]


def test_the_first_plain_factor_of_a_product_is_multiplied_in_its_place():
    fall = RISE.replace(start=1.0, end=0.0)
    factors = [Factor(RISE, 0.5), Factor(fall, 1.0), Factor(RISE, 1.0)]
    expected = [factors[0], Factor(fall.replace(start=2.0), 1.0), factors[2]]
    assert expected == multiplied(factors, 2.0)


def test_a_repr_of_a_phase_leaves_out_what_is_not_set():
    expected = "Phase('cosine', 100, end=0.1)", "Phase('linear', 10, end=1.0, start=0.0)"
    assert expected == (repr(FALL), repr(RISE))
