"""Every shape at values written by hand, its parameters, and registered shapes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_sched import ConfigError, Phase, Schedule, register_shape
from dist_sched._curves.shapes import shape_of, shapes, stand_ins

BUILT_IN = (
    "constant",
    "linear",
    "cosine",
    "polynomial",
    "exponential",
    "halving",
    "minus_sqrt",
    "inverse_sqrt",
    "power_law",
    "inverse",
    "step",
    "multistep",
    "minus_power",
    "exponential_to_zero",
    "rex",
    "log",
    "sine",
    "half_life",
)
NEEDED = {"minus_power": {"power": 2}, "exponential_to_zero": {"ratio": 0.25}}
"""Parameters that have no default."""
ROOT = 0.7071067811865476  # of a half
TABLE = [
    # shape, parameters, steps, start, end, position: value
    ("constant", {}, 10, 0.5, 0.5, {0: 0.5, 1: 0.5, 5: 0.5, 9: 0.5, 10: 0.5, 11: 0.5}),
    ("linear", {}, 10, 1.0, 0.0, {0: 1.0, 1: 0.9, 5: 0.5, 9: 0.1, 10: 0.0, 11: 0.0}),
    ("linear", {}, 4, 0.2, 1.0, {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 1.0, 5: 1.0}),
    ("linear", {}, 1.5, 1.0, 0.0, {0: 1.0, 0.75: 0.5, 1.5: 0.0, 2: 0.0}),
    ("cosine", {}, 6, 1.0, 0.0, {0: 1.0, 1: 0.9330127018922193, 2: 0.75, 3: 0.5, 4: 0.25, 6: 0.0}),
    ("cosine", {}, 6, 1.0, 0.2, {0: 1.0, 2: 0.8, 3: 0.6, 4: 0.4, 6: 0.2, 7: 0.2}),
    ("cosine", {"exponent": 2}, 6, 1.0, 0.0, {0: 1.0, 2: 0.5625, 3: 0.25, 4: 0.0625, 6: 0.0}),
    ("cosine", {"exponent": 0.5}, 6, 1.0, 0.0, {0: 1.0, 3: ROOT, 4: 0.5, 6: 0.0, 7: 0.0}),
    ("polynomial", {}, 4, 1.0, 0.0, {0: 1.0, 1: 0.75, 2: 0.5, 3: 0.25, 4: 0.0, 5: 0.0}),
    ("polynomial", {"power": 2}, 4, 1.0, 0.0, {0: 1.0, 1: 0.5625, 2: 0.25, 3: 0.0625, 4: 0.0}),
    ("polynomial", {"power": 0.5}, 4, 3.0, 1.0, {0: 3.0, 2: 1 + 2 * ROOT, 3: 2.0, 4: 1.0, 5: 1.0}),
    ("exponential", {}, 4, 1.0, 0.0625, {0: 1.0, 1: 0.5, 2: 0.25, 3: 0.125, 4: 0.0625, 5: 0.0625}),
    ("exponential", {}, 2, 0.01, 1.0, {0: 0.01, 1: 0.1, 2: 1.0, 3: 1.0}),
    ("halving", {}, 2, 1.0, 0.0, {0: 1.0, 1: 2 * ROOT - 1, 2: 0.0, 3: 0.0}),
    ("halving", {}, 2, 0.0, 1.0, {0: 0.0, 1: 2 - 2 * ROOT, 2: 1.0, 3: 1.0}),
    ("minus_sqrt", {}, 4, 1.0, 0.0, {0: 1.0, 1: 0.5, 2: 1 - ROOT, 3: 0.1339745962155614, 4: 0.0}),
    ("minus_sqrt", {}, 4, 1.0, 0.2, {0: 1.0, 1: 0.6, 4: 0.2, 5: 0.2}),
    ("inverse_sqrt", {}, 3, 1.0, 0.5, {0: 1.0, 1: ROOT, 2: 0.5773502691896258, 3: 0.5, 4: 0.5}),
    (
        "inverse_sqrt",
        {"timescale": 1},
        3,
        1.0,
        0.0,
        {0: 1.0, 1: 2 * ROOT - 1, 2: 0.1547005383792515, 3: 0.0, 4: 0.0},
    ),
    ("power_law", {}, 3, 1.0, 0.25, {0: 1.0, 1: 0.5, 2: 1 / 3, 3: 0.25, 4: 0.25}),
    ("power_law", {"power": 2}, 3, 1.0, 0.0625, {0: 1.0, 1: 0.25, 2: 1 / 9, 3: 0.0625, 4: 0.0625}),
    (
        "power_law",
        {"power": 2, "timescale": 1},
        3,
        1.0,
        0.0,
        {0: 1.0, 1: 0.2, 2: 7 / 135, 3: 0.0, 4: 0.0},
    ),
    ("inverse", {}, 3, 1.0, 0.25, {0: 1.0, 1: 0.5, 2: 1 / 3, 3: 0.25, 4: 0.25}),
    ("inverse", {}, 3, 0.25, 1.0, {0: 0.25, 1: 1 / 3, 2: 0.5, 3: 1.0, 4: 1.0}),
    ("inverse", {"timescale": 1}, 3, 1.0, 0.0, {0: 1.0, 1: 1 / 3, 2: 1 / 9, 3: 0.0, 4: 0.0}),
    ("inverse", {"timescale": 2}, 6, 2.0, 0.5, {0: 2.0, 2: 1.0, 4: 2 / 3, 6: 0.5, 7: 0.5}),
    ("step", {}, 10, 1.0, 0.1, {0: 1.0, 1: 1.0, 5: 1.0, 9: 1.0, 9.999: 1.0, 10: 0.1, 11: 0.1}),
    (
        "multistep",
        {"milestones": [4, 8]},
        10,
        1.0,
        0.01,
        {0: 1.0, 3: 1.0, 4: 0.1, 7: 0.1, 8: 0.01, 9: 0.01, 10: 0.01, 11: 0.01},
    ),
    (
        "multistep",
        {"milestones": [4, 4, 10]},
        10,
        1.0,
        0.125,
        {0: 1.0, 3: 1.0, 4: 0.25, 9: 0.25, 10: 0.125, 11: 0.125},
    ),
    ("minus_power", {"power": 2}, 4, 1.0, 0.0, {0: 1.0, 1: 0.9375, 2: 0.75, 3: 0.4375, 4: 0.0}),
    ("minus_power", {"power": 2}, 4, 0.0, 1.0, {0: 0.0, 1: 0.0625, 2: 0.25, 3: 0.5625, 4: 1.0}),
    ("minus_power", {"power": 0.5}, 4, 1.0, 0.2, {0: 1.0, 1: 0.6, 4: 0.2, 5: 0.2}),
    ("exponential_to_zero", {"ratio": 0.25}, 2, 1.0, 0.0, {0: 1.0, 1: 1 / 3, 2: 0.0, 3: 0.0}),
    ("exponential_to_zero", {"ratio": 0.5}, 2, 1.0, 0.0, {0: 1.0, 1: 2 * ROOT - 1, 2: 0.0}),
    ("exponential_to_zero", {"ratio": 1e-4}, 4, 1.0, 0.0, {1: 0.0999 / 0.9999, 2: 1 / 101, 4: 0.0}),
    ("exponential_to_zero", {"ratio": 4}, 2, 0.0, 1.0, {0: 0.0, 1: 1 / 3, 2: 1.0, 3: 1.0}),
    ("rex", {}, 4, 1.0, 0.0, {0: 1.0, 1: 6 / 7, 2: 2 / 3, 3: 0.4, 4: 0.0, 5: 0.0}),
    ("rex", {"beta": 0.9}, 4, 1.0, 0.0, {0: 1.0, 2: 10 / 11, 3: 10 / 13, 4: 0.0}),
    ("rex", {"beta": 0}, 4, 0.0, 1.0, {0: 0.0, 1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}),
    ("log", {}, 7, 1.0, 0.0, {0: 1.0, 1: 2 / 3, 3: 1 / 3, 7: 0.0, 8: 0.0}),
    ("log", {}, 7, 0.0, 1.0, {0: 0.0, 1: 1 / 3, 3: 2 / 3, 7: 1.0, 8: 1.0}),
    ("log", {"timescale": 2}, 14, 0.0, 1.0, {0: 0.0, 2: 1 / 3, 6: 2 / 3, 14: 1.0}),
    ("sine", {}, 3, 1.0, 0.0, {0: 1.0, 1: 0.5, 2: 0.1339745962155614, 3: 0.0, 4: 0.0}),
    ("sine", {}, 3, 0.0, 1.0, {0: 0.0, 1: 0.5, 2: 0.8660254037844386, 3: 1.0, 4: 1.0}),
    # Half-lives of 1, 2, 3 and 4 units.
    (
        "half_life",
        {},
        3,
        0.5,
        0.8408964152537145,
        {0: 0.5, 1: ROOT, 2: 0.7937005259840998, 4: 0.8408964152537145},
    ),
]
NAMES = [f"{shape}-{start:g}-{end:g}-{given}" for shape, given, _, start, end, _ in TABLE]
SMOOTH = [row for row in TABLE if row[0] not in {"constant", "step", "multistep"}]


def alone(shape, steps=10, start=1.0, end=0.0, **parameters):
    return Schedule([Phase(shape, steps, end=end, start=start, **parameters)])


def straight(progress):
    return 1 - progress


def sagging(progress, depth=2.0, *, weights=(1, 2)):
    return (1 - progress) ** depth + 0 * sum(weights)


def test_the_built_in_shapes_are_named():
    assert shapes() == BUILT_IN


def test_the_table_knows_every_built_in_shape():
    assert set(BUILT_IN) == {row[0] for row in TABLE}


@pytest.mark.parametrize("shape, given, steps, start, end, values", TABLE, ids=NAMES)
def test_a_shape_has_the_values_written_by_hand(shape, given, steps, start, end, values):
    schedule = alone(shape, steps, start, end, **given)
    found = {position: schedule(position) for position in values}
    assert values == pytest.approx(found, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("shape, given, steps, start, end, values", TABLE, ids=NAMES)
def test_a_phase_begins_and_ends_at_exactly_its_start_and_end(
    shape, given, steps, start, end, values
):
    schedule = alone(shape, steps, start, end, **given)
    assert [start, end, end] == [schedule(0), schedule(steps), schedule(max(values))]


@pytest.mark.parametrize("shape, given, steps, start, end, values", TABLE[:-1], ids=NAMES[:-1])
def test_a_shape_scales_with_its_values(shape, given, steps, start, end, values):
    scaled = alone(shape, steps, start, end, **given).scale(0, 3.0)
    for schedule in (alone(shape, steps, 3 * start, 3 * end, **given), scaled):
        assert {at: 3 * value for at, value in values.items()} == pytest.approx(
            {at: schedule(at) for at in values}, rel=1e-14, abs=1e-15
        )


@pytest.mark.parametrize("value", [0.3, 0.9])
@pytest.mark.parametrize("shape", [shape for shape in BUILT_IN if shape != "multistep"])
def test_a_shape_that_ends_where_it_starts_is_flat(shape, value):
    schedule = alone(shape, 7, value, value, **NEEDED.get(shape, {}))
    assert [value] * 8 == pytest.approx([schedule(at) for at in range(8)], rel=1e-15)


@pytest.mark.parametrize("shape", ["linear", "cosine", "halving", "minus_sqrt", "step"])
def test_a_shape_of_length_0_is_at_its_end_at_once(shape):
    assert 0.25 == alone(shape, 0, 1.0, 0.25)(0)


@pytest.mark.parametrize(
    "shape, given",
    [("linear", {}), ("cosine", {}), ("polynomial", {"power": 3}), ("halving", {})]
    + [("minus_sqrt", {}), ("minus_power", {"power": 3}), ("exponential_to_zero", {"ratio": 0.1})]
    + [("rex", {}), ("log", {}), ("sine", {}), ("inverse", {"timescale": 2})],
    ids=str,
)
def test_a_rise_is_what_a_fall_leaves(shape, given):
    fall = alone(shape, 10, 1.0, 0.0, **given)
    rise = alone(shape, 10, 0.0, 1.0, **given)
    assert [1.0] * 11 == pytest.approx([fall(at) + rise(at) for at in range(11)], rel=1e-15)


def test_an_exponential_to_zero_of_one_half_is_halving():
    parts = [alone("exponential_to_zero", 9, ratio=0.5), alone("halving", 9)]
    first, second = ([part(at) for at in range(10)] for part in parts)
    assert first == pytest.approx(second, rel=1e-14)


def test_a_ratio_near_one_gives_nearly_a_line():
    schedule = alone("exponential_to_zero", 10, ratio=1 - 1e-12)
    assert [0.9, 0.5, 0.1] == pytest.approx([schedule(at) for at in (1, 5, 9)], rel=1e-11)


def test_a_minus_power_of_one_half_is_minus_sqrt():
    parts = [alone("minus_power", 9, power=0.5), alone("minus_sqrt", 9)]
    first, second = ([part(at) for at in range(10)] for part in parts)
    assert first == pytest.approx(second, rel=1e-15)


def test_a_log_rise_of_the_same_updates_is_the_same_in_any_unit():
    steps = alone("log", 999, 0.0, 1.0)
    tokens = alone("log", 999 * 4096, 0.0, 1.0, timescale=4096)
    found = [tokens(update * 4096) for update in range(1000)]
    assert [steps(update) for update in range(1000)] == pytest.approx(found, rel=1e-14)


def test_only_the_new_shapes_need_version_2_of_the_state_format():
    new = {"minus_power", "exponential_to_zero", "rex", "log", "sine", "half_life"}
    assert {2: new, 1: set(BUILT_IN) - new} == {
        version: {name for name in BUILT_IN if shape_of(name).version == version}
        for version in (2, 1)
    }


def test_an_inverse_sqrt_meets_the_law_of_attention_is_all_you_need():
    schedule = alone("inverse_sqrt", 900, 1.0, math.sqrt(100 / 1000))
    found = [schedule(position - 100) for position in (100, 400, 900, 1000)]
    assert [1.0, 0.5, 1 / 3, math.sqrt(0.1)] == pytest.approx(found)


def test_a_power_law_of_power_one_half_is_inverse_sqrt():
    parts = [
        alone(shape, 9, 1.0, 0.2, **more)
        for shape, more in (("inverse_sqrt", {}), ("power_law", {"power": 0.5}))
    ]
    assert [parts[0](at) for at in range(10)] == [parts[1](at) for at in range(10)]


@settings(max_examples=300, deadline=None, database=None)
@given(
    row=st.sampled_from(SMOOTH),
    steps=st.integers(2, 2**40),
    bounds=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)),
    places=st.lists(st.floats(0, 1), max_size=20),
)
def test_a_smooth_shape_is_monotone_and_stays_between_start_and_end(row, steps, bounds, places):
    shape, given, *_ = row
    start, end = bounds
    schedule = alone(shape, steps, start, end, **given)
    positions = sorted({0, 1, steps - 1, steps, *(int(place * steps) for place in places)})
    found = [schedule(position) for position in positions]
    assert sorted(found, reverse=start > end) == found
    assert min(bounds) <= min(found)
    assert max(bounds) >= max(found)


@pytest.mark.parametrize("shape", ["exponential", "power_law", "inverse", "inverse_sqrt"])
@pytest.mark.parametrize("start, end", [(0.3, 0.1), (0.1, 0.3), (0.7, 0.0007), (1e-5, 6e-4)])
def test_rounding_does_not_leave_the_bounds_at_the_edges_of_a_long_phase(shape, start, end):
    steps = 2**50
    schedule = alone(shape, steps, start, end)
    edges = [schedule(at) for at in (*range(1, 200), *range(steps - 200, steps))]
    assert min(start, end) <= min(edges)
    assert max(start, end) >= max(edges)


def test_rounding_does_not_take_a_blend_below_its_start():
    assert 0.1 == alone("cosine", 2**40, 0.1, 0.7)(1)


@pytest.mark.parametrize("value", ["", "Cosine", "wsd", 3, None, True, ["cosine"]], ids=repr)
def test_an_unknown_shape_is_refused_and_the_known_are_listed(value):
    with pytest.raises(ConfigError, match=r"^shape=.*must be one of 'constant', .*'multistep'"):
        Phase(value, 10, end=0.0)


@pytest.mark.parametrize(
    "wrong, meant",
    [
        ("cosin", "cosine"),
        ("minus-sqrt", "minus_sqrt"),
        ("Linear", "linear"),
        ("steps", "step"),
        ("rsqrt", "inverse_sqrt"),
        ("1/x", "inverse"),
    ],
)
def test_a_misspelt_shape_names_the_near_miss(wrong, meant):
    with pytest.raises(ConfigError, match=rf"^shape='{wrong}'.*did you mean '{meant}'\?"):
        Phase(wrong, 10, end=0.0)


@pytest.mark.parametrize(
    "shape, given, message",
    [
        ("linear", {"power": 2}, r"'power' is not a parameter of shape 'linear' \(it has none\)"),
        ("cosine", {"exponant": 2}, r"'exponant'.*'cosine'.*has 'exponent'.*mean 'exponent'\?"),
        ("power_law", {"power": 1, "scale": 2}, r"'scale'.*\(it has 'power', 'timescale'\)"),
        ("linear", {"untl": 2}, r"'untl' is not .*did you mean 'until'\?"),
        ("multistep", {}, r"shape 'multistep' needs milestones"),
        ("cosine", {"exponent": 0}, r"exponent=0: must be greater than 0"),
        ("cosine", {"exponent": -1}, r"exponent=-1: must be a finite number >= 0"),
        ("cosine", {"exponent": "2"}, r"exponent='2': must be a number"),
        ("cosine", {"exponent": None}, r"exponent=None: must be a number"),
        ("polynomial", {"power": math.nan}, r"power=nan: must be a finite number"),
        ("polynomial", {"power": True}, r"power=True: must be a number"),
        ("power_law", {"power": math.inf}, r"power=inf: must be a finite number"),
        ("inverse", {"timescale": 0}, r"timescale=0: must be greater than 0"),
        ("inverse_sqrt", {"timescale": -2}, r"timescale=-2: must be a finite number >= 0"),
        ("multistep", {"milestones": []}, r"milestones=\[\]: must be above 0 and in"),
        ("multistep", {"milestones": [0, 5]}, r"milestones=\[0, 5\]: must be above 0 and in"),
        ("multistep", {"milestones": [5, 4]}, r"milestones=\[5, 4\]: must be above 0 and in"),
        ("multistep", {"milestones": 5}, r"milestones=5: must be a list of lengths"),
        ("multistep", {"milestones": "58"}, r"milestones='58': must be a list of lengths"),
        ("multistep", {"milestones": {5: 8}}, r"milestones=\{5: 8\}: must be a list of lengths"),
        ("multistep", {"milestones": [5, math.nan]}, r"milestones=nan: must be a finite number"),
        ("multistep", {"milestones": [True]}, r"milestones=True: must be a number"),
        ("minus_power", {}, r"shape 'minus_power' needs power"),
        ("minus_power", {"power": 0}, r"power=0: must be greater than 0"),
        ("exponential_to_zero", {}, r"shape 'exponential_to_zero' needs ratio"),
        ("exponential_to_zero", {"ratio": 0}, r"ratio=0: must be greater than 0"),
        ("exponential_to_zero", {"ratio": 1.0}, r"ratio=1.0: must not be 1; use shape 'linear'"),
        ("rex", {"beta": 1}, r"beta=1: must be less than 1"),
        ("rex", {"beta": -0.5}, r"beta=-0.5: must be a finite number >= 0"),
        ("log", {"timescale": 0}, r"timescale=0: must be greater than 0"),
        ("sine", {"power": 2}, r"'power' is not a parameter of shape 'sine' \(it has none\)"),
    ],
)
def test_an_unknown_missing_or_illegal_parameter_is_refused_by_name(shape, given, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Phase(shape, 10, end=0.1, **given)


@pytest.mark.parametrize(
    "shape, start, end, given, message",
    [
        ("exponential", 1.0, 0.0, {}, r"end=0.0: must be greater than 0"),
        ("exponential", 0.0, 1.0, {}, r"start=0.0: must be greater than 0"),
        ("multistep", 1.0, 0.0, {"milestones": [5]}, r"end=0.0: must be greater than 0"),
        ("multistep", 0.0, 1.0, {"milestones": [5]}, r"start=0.0: must be greater than 0"),
        (
            "inverse",
            1.0,
            0.0,
            {},
            r"end=0.0: must be greater than 0, unless you pass timescale=",
        ),
        ("inverse_sqrt", 0.0, 1.0, {}, r"start=0.0: must be greater than 0"),
        (
            "power_law",
            1.0,
            0.0,
            {},
            r"end=0.0: must be greater than 0, unless you pass timescale=",
        ),
        (
            "multistep",
            1.0,
            0.1,
            {"milestones": [5, 11]},
            r"milestones=.*must be at most the length of the phase, steps=10",
        ),
        ("exponential", 1e-300, 1e290, {}, "end / start=inf: must be"),
    ],
)
def test_bounds_that_a_shape_cannot_go_between_are_refused_with_the_phase(
    shape, start, end, given, message
):
    with pytest.raises(ConfigError, match=rf"^phases\[0\] \({shape}\): {message}"):
        alone(shape, 10, start, end, **given)


def test_a_milestone_past_a_phase_of_length_0_is_refused():
    with pytest.raises(ConfigError, match=r"milestones=.*must be at most the length of the phase"):
        alone("multistep", 0, 1.0, 0.1, milestones=[1.5])


@pytest.mark.parametrize("shape", ["power_law", "inverse", "inverse_sqrt"])
def test_with_a_timescale_a_power_law_reaches_and_leaves_0(shape):
    fall, rise = alone(shape, timescale=3), alone(shape, start=0.0, end=1.0, timescale=3)
    assert [1.0, 0.0, 0.0, 1.0] == [fall(0), fall(10), rise(0), rise(10)]


@pytest.mark.parametrize("shape", ["power_law", "inverse", "inverse_sqrt"])
def test_a_timescale_far_over_the_length_gives_nearly_a_line(shape):
    schedule = alone(shape, 1000, 1.0, 0.0, timescale=1e9)
    assert [0.9, 0.5, 0.1] == pytest.approx([schedule(at) for at in (100, 500, 900)], rel=1e-5)


def test_a_registered_shape_is_used_by_its_name():
    register_shape("straight")(straight)
    schedule = alone("straight", 4)
    assert [1.0, 0.75, 0.5, 0.25, 0.0, 0.0] == [schedule(at) for at in range(6)]


def test_a_registered_shape_blends_start_and_end():
    register_shape("sagging")(sagging)
    schedule = Schedule([Phase("linear", 10, end=1.0, start=0.0), Phase("sagging", 4, end=0.5)])
    assert [1.0, 0.78125, 0.625, 0.5] == [schedule(at) for at in (10, 11, 12, 14)]


def test_registering_returns_the_function():
    assert straight is register_shape("given back")(straight)


def test_a_registered_shape_is_listed_after_the_built_in_ones():
    register_shape("listed last")(straight)
    assert (*BUILT_IN, "listed last") == shapes()


def test_the_parameters_of_a_registered_shape_are_saved_with_their_defaults():
    register_shape("sagging")(sagging)
    data = Phase("sagging", 4, end=0.5, depth=3).to_dict()
    expected = {"shape": "sagging", "steps": 4, "end": 0.5, "depth": 3, "weights": [1, 2]}
    assert expected == data
    assert Phase("sagging", 4, end=0.5, depth=3) == Phase.from_dict(data)


def test_a_saved_default_outlives_a_new_default():
    @register_shape("changing")
    def changing(progress, depth=2.0):
        return (1 - progress) ** depth

    saved = alone("changing").to_dict()
    changing.__defaults__ = (1.0,)
    register_shape("changing")(changing)
    assert [0.25, 0.5] == [Schedule.from_dict(saved)(5), alone("changing")(5)]


def test_a_parameter_without_default_is_needed():
    register_shape("needy")(lambda progress, depth: (1 - progress) ** depth)
    with pytest.raises(ConfigError, match=r"^shape 'needy' needs depth"):
        Phase("needy", 4, end=0.5)
    assert 0.25 == alone("needy", depth=2)(5)


@pytest.mark.parametrize(
    "value", [None, "2", True, math.nan, math.inf, [1, "2"], {"a": 1}], ids=repr
)
def test_a_parameter_that_is_no_number_or_list_of_such_is_refused(value):
    register_shape("sagging")(sagging)
    with pytest.raises(ConfigError, match=r"^depth=.*must be a finite number, or a list of"):
        Phase("sagging", 4, end=0.5, depth=value)


def test_a_parameter_may_be_negative_or_a_list():
    register_shape("sagging")(sagging)
    phase = Phase("sagging", 4, end=0.5, depth=-1, weights=[-1, 0.5])
    assert {"depth": -1, "weights": (-1, 0.5)} == phase.parameters


@pytest.mark.parametrize("name", ["linear", "constant", "taken before"])
def test_a_name_that_is_taken_is_refused(name):
    register_shape("taken before")(sagging)
    with pytest.raises(ConfigError, match=f"^shape '{name}' already exists; choose another name"):
        register_shape(name)(straight)


def test_the_same_function_may_be_registered_again():
    register_shape("again")(straight)
    register_shape("again")(straight)
    assert 0.5 == alone("again")(5)


def test_two_functions_without_a_name_are_not_the_same():
    register_shape("nameless")(lambda progress: 1 - progress)
    with pytest.raises(ConfigError, match=r"^shape 'nameless' already exists"):
        register_shape("nameless")(lambda progress: (1 - progress) ** 2)


@pytest.mark.parametrize("name", ["", None, 3, straight], ids=repr)
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(ConfigError, match=r"^name=.*must be a non-empty string"):
        register_shape(name)


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0.0,
        lambda progress, *others: progress,  # noqa: ARG005
        lambda progress, **others: progress,  # noqa: ARG005
        lambda progress, steps: progress,  # noqa: ARG005
        lambda progress, end=0.0: progress,  # noqa: ARG005
        lambda progress, other=1, /: progress,  # noqa: ARG005
        lambda *progress: progress,
        lambda *, progress: progress,
        lambda **progress: progress,
    ],
    ids=["none", "args", "kwargs", "steps", "end", "positional", "*", "keyword", "**"],
)
def test_a_function_of_another_signature_is_refused(function):
    with pytest.raises(ConfigError, match=r"^shape 'odd': its function must take the progress"):
        register_shape("odd")(function)
    assert "odd" not in shapes()


@pytest.mark.parametrize("thing", [3, None, "straight", dict, math.hypot], ids=repr)
def test_what_is_no_function_with_a_signature_is_refused(thing):
    with pytest.raises(ConfigError, match=r"^shape 'odd'"):
        register_shape("odd")(thing)


@pytest.mark.parametrize(
    "function, message",
    [
        (
            lambda progress: 0.9 - progress,
            r"shape 'odd': its coefficient must be 1.0 at progress 0.0, not 0.9",
        ),
        (
            lambda progress: progress,
            r"shape 'odd': its coefficient must be 1.0 at progress 0.0, not 0.0",
        ),
        (
            lambda progress: 1 - progress / 2,
            r"shape 'odd': its coefficient must be 0.0 at progress 1.0, not 0.5",
        ),
        (
            lambda progress: 1 - 1.1 * progress,
            r"shape 'odd': its coefficient must be 0.0 at progress 1.0, not",
        ),
        (lambda _: math.nan, r"shape 'odd': its coefficient must be 1.0 at progress 0.0, not nan"),
        (lambda _: None, ""),
        (lambda progress: 1 / progress, r".*division by zero"),
        (lambda progress: math.nan if progress == 0.25 else 1 - progress, r"value=nan"),
        (lambda progress: math.nan if progress == 0.5 else 1 - progress, r"value=nan"),
        (lambda progress: math.inf if progress == 0.75 else 1 - progress, r"value=inf"),
        (lambda progress: 1 - progress - 9 * progress * (1 - progress), r"value=-"),
    ],
    ids=["0.9", "rises", "0.5", "-0.1", "nan", "none", "zero", "nan25", "nan50", "inf", "negative"],
)
def test_a_function_that_is_no_coefficient_is_refused_by_the_schedule(function, message):
    register_shape("odd")(function)
    with pytest.raises(ConfigError, match=rf"^phases\[0\] \(odd\): {message}"):
        alone("odd")


def test_a_coefficient_that_returns_nan_later_is_refused_where_it_does():
    register_shape("late nan")(lambda at: math.nan if at == 0.3 else 1 - at)
    schedule = alone("late nan")
    with pytest.raises(
        ConfigError, match=r"^value=nan: the values of shape 'late nan' must be finite"
    ):
        schedule(3)


def test_a_coefficient_may_leave_0_to_1_while_the_value_stays_legal():
    register_shape("bump")(lambda progress: 1 - progress + 4 * progress * (1 - progress))
    assert 1.5 == alone("bump")(5)


def test_rounding_at_the_ends_of_a_coefficient_is_tolerated():
    register_shape("rounded")(lambda progress: 1 + 1e-9 - progress)
    schedule = alone("rounded")
    assert [1.0, 0.0] == [schedule(0), schedule(10)]


def test_whatever_follows_an_unknown_shape_can_be_read_with_stand_ins():
    cut = {"shape": "arc", "steps": 10, "end": 0.0, "start": 1.0, "until": 5, "depth": [1, 2]}
    held = {"shape": "constant", "steps": 10, "end": 0.25}
    with stand_ins() as unknown:
        schedule = Schedule.from_dict({"phases": [cut, held]})
    assert {"arc"} == unknown
    assert [cut, held] == schedule.to_dict()["phases"]
    with pytest.raises(ConfigError, match=r"^phases\[0\]: shape='arc': must be one of"):
        Schedule.from_dict(schedule.to_dict())


def takes(name, parameter):
    """Return whether all parameters of a shape may have a value."""
    try:
        shape_of(name).parameters(name, dict.fromkeys(shape_of(name).rules, parameter))
    except ConfigError:
        return False
    return True


UNCHECKED = [name for name in shapes() if shape_of(name).stays_between]
EXTREME = [
    (name, one) for name in UNCHECKED for one in (5e-324, 0.3, 1.0, 1e12) if takes(name, one)
]


@pytest.mark.parametrize("name, parameter", EXTREME)
@pytest.mark.parametrize("progress", [5e-324, 1e-9, 0.25, 0.5, 0.75, 1 - 1e-16])
@pytest.mark.parametrize("start, end", [(0.0, 0.1), (0.1, 0.3), (1e290, 0.0), (0.7, 0.7)])
def test_a_shape_that_is_not_checked_stays_between_its_bounds(
    name, parameter, progress, start, end
):
    shape = shape_of(name)
    value = shape.law(progress, 1, start, end, **dict.fromkeys(shape.rules, parameter))
    assert min(start, end) <= value <= max(start, end)


@pytest.mark.parametrize("start, end", [(0.5, 1.0), (1.5, 0.5)])
def test_a_half_life_of_a_weight_of_1_is_refused(start, end):
    with pytest.raises(ConfigError, match="must be less than 1, because shape 'half_life' is for"):
        alone("half_life", 3, start, end)


def test_a_half_life_cannot_be_multiplied():
    warmup = alone("half_life", 10, 0.5, 0.9)
    with pytest.raises(ConfigError, match="a phase of shape 'half_life' cannot be multiplied"):
        warmup.scale(3, 0.5)
