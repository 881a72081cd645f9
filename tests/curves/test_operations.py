"""Operations on schedules: products, repetition, whole multiples, and positions after updates."""

from __future__ import annotations

import json
import math
import pickle
import random

import numpy as np
import pytest
import torch

from dist_sched import ConfigError, Phase, Schedule, register_shape, schedules
from dist_sched._curves import operations

FALL = Schedule([Phase("linear", 10, end=0.0, start=1.0)])
RISE = Schedule([Phase("linear", 10, end=1.0, start=0.0)])
WHOLE = Schedule([Phase("linear", 10, end=4.0, start=1.0)], multiple_of=1)
GEOMETRIC = Schedule([Phase("exponential", 10, end=0.1, start=1.0)])
STAGES = Schedule([Phase("step", 4, end=0.5, start=1.0), Phase("step", 10, end=0.25)])
SHAPES = ["linear", "cosine", "constant", "step", "halving", "minus_sqrt", "exponential"]


def values(schedule, *positions):
    return [schedule(position) for position in positions]


def drawn(random, lowest=0.1):
    """Return a schedule of one to four phases, some of fractional length."""
    phases = []
    for _ in range(random.randint(1, 4)):
        shape = random.choice(SHAPES)
        steps = random.choice([random.randint(1, 50), 1 + 30 * random.random()])
        low = max(lowest, 0.1) if shape == "exponential" else lowest
        end = low + random.choice([0, 1, random.random()])
        start = end if shape == "constant" else low + random.random()
        phases.append(Phase(shape, steps, end, start))
    return Schedule(phases)


# Products.


def test_a_product_has_the_product_of_the_values_at_every_position():
    expected = [0.0, 0.05, 0.08, 0.125, 0.0, 0.0]
    product = schedules.product(0.5, RISE, FALL)
    assert expected == pytest.approx(values(product, 0, 1.127016654, 2, 5, 10, 99), abs=1e-9)


def test_a_factor_that_ends_before_the_others_stays_at_its_last_value():
    product = schedules.product(Schedule([Phase("linear", 5, end=2.0, start=1.0)]), FALL)
    assert [1.0, 1.0, 0.5, 0.0] == values(product, 0, 5, 7.5, 10)


def test_a_factor_of_steps_multiplies_the_phases_of_the_other():
    product = schedules.product(FALL, STAGES)
    assert [1.0, 0.7, 0.3, 0.05, 0.0] == pytest.approx(values(product, 0, 3, 4, 9, 14))
    assert 1 == Schedule(product.phases[:1]).version  # a line still


def test_a_step_at_the_end_of_a_product_is_what_stays():
    product = schedules.product(STAGES, 2.0)
    assert [1.0, 0.5] == values(product, 13, 14)


def test_a_product_with_a_number_is_a_schedule_of_the_same_phases():
    assert Schedule([Phase("linear", 10, end=0.0, start=3.0)]) == schedules.product(3, FALL)


@pytest.mark.parametrize("zero", [0, Schedule([Phase("constant", 10, 0.0, 0.0)])], ids=str)
def test_a_product_with_0_is_0_whatever_the_shape(zero):
    assert [0.0, 0.0, 0.0] == values(schedules.product(zero, GEOMETRIC), 0, 5, 10)


@pytest.mark.parametrize(
    "factors, message",
    [
        ((), "factors=.*must have at least one schedule"),
        ((2.0, 3), "factors=.*must have at least one schedule"),
        ((FALL, -1), r"factors\[1\]=-1"),
        ((FALL, "2"), r"factors\[1\]='2'"),
        ((FALL, None), r"factors\[1\]=None"),
        ((FALL, math.inf), r"factors\[1\]=inf"),
    ],
    ids=str,
)
def test_what_is_no_factor_is_refused_by_its_place(factors, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        schedules.product(*factors)


def test_a_product_that_rises_and_falls_is_cut_where_it_is_highest():
    rise = Schedule([Phase("linear", 10, end=1.0, start=0.0)])
    hill = schedules.product(rise, schedules.linear(1.0, 10))
    assert [0, pytest.approx(5, rel=1e-4)] == list(hill.boundaries)
    assert pytest.approx(0.25, rel=1e-9) == hill.max_value


@pytest.mark.parametrize(
    "rise, fall", [(2, 0.5), (0.5, 0.25), (0.001, 0.999), (0.999, 0.001), (0.06, 0.94)]
)
def test_powers_of_a_rise_and_a_fall_are_cut_where_their_product_is_highest(rise, fall):
    share = rise / (rise + fall)
    hill = schedules.product(schedules.raised_to(RISE, rise), schedules.raised_to(FALL, fall))
    assert [0, pytest.approx(10 * share, abs=3e-4)] == list(hill.boundaries)
    assert pytest.approx(share**rise * (1 - share) ** fall, rel=1e-6) == hill.max_value


def test_the_first_power_of_a_schedule_is_the_schedule():
    assert FALL is schedules.raised_to(FALL, 1)


def test_a_product_that_falls_and_rises_is_cut_where_it_is_lowest():
    rise = Schedule([Phase("linear", 10, end=4.0, start=1.0)])
    fall = Schedule([Phase("linear", 10, end=1.0, start=4.0)])
    valley = schedules.product(*(schedules.raised_to(one, -1) for one in (rise, fall)))
    assert [0, pytest.approx(5, rel=1e-4)] == list(valley.boundaries)
    assert pytest.approx([0.16, 0.25]) == [valley.min_value, valley.max_value]


def test_a_product_that_ends_below_1_is_cut_where_it_is_highest():
    rise = Schedule([Phase("linear", 10, end=0.5, start=0.0)])
    assert [0, pytest.approx(5, rel=1e-4)] == list(schedules.product(rise, FALL).boundaries)


def test_a_product_that_was_cut_is_not_cut_again():
    hill = schedules.product(RISE, FALL)
    assert hill.boundaries == schedules.product(2.0, hill).boundaries
    assert pytest.approx([0.375, 0.5, 0.375]) == values(schedules.product(2.0, hill), 2.5, 5, 7.5)


@pytest.mark.timeout(20)
def test_a_long_product_is_cut_where_it_is_highest():
    rise, fall = (Schedule([one.phases[0].replace(steps=10**9)]) for one in (RISE, FALL))
    hill = schedules.product(rise, fall)
    assert [0, pytest.approx(5 * 10**8, rel=1e-4)] == list(hill.boundaries)


def test_a_power_needs_a_schedule():
    with pytest.raises(ConfigError, match=r"^schedule=2\.0: must be a schedule"):
        schedules.raised_to(2.0, 0.5)


def test_a_power_of_a_product_multiplies_the_powers_of_its_factors():
    product = schedules.product(schedules.raised_to(RISE, 0.5), RISE)
    assert pytest.approx([0.125, 1.0]) == values(schedules.raised_to(product, 2), 5, 10)


def test_a_product_has_no_more_phases_than_its_factors():
    three = Schedule([Phase("linear", 5, 1.0, 0.5), Phase("cosine", 5, 0.2), Phase("step", 5, 0.2)])
    assert [3, 3] == [
        len(one.phases) for one in (schedules.product(2.0, three), schedules.raised_to(three, 2))
    ]
    assert 1 == len(schedules.product(2.0, RISE.cut(until=5)).phases)


def test_a_product_may_have_exactly_the_most_parts_and_factors(monkeypatch):
    monkeypatch.setattr(operations, "_MOST_PARTS", 4)
    monkeypatch.setattr(operations, "_MOST_FACTORS", 2)
    assert 10 == schedules.product(RISE, RISE).horizon
    with pytest.raises(ConfigError, match=r"^parts=6: the phases of a product"):
        schedules.product(RISE, RISE, FALL)
    monkeypatch.setattr(operations, "_MOST_PARTS", 6)
    with pytest.raises(ConfigError, match=r"^factors=3: at most 2 may change"):
        schedules.product(RISE, RISE, FALL)


@pytest.mark.parametrize(
    "phase, multiple_of, most",
    [
        (Phase("linear", 100, end=12.0, start=2.0), 1, 11),
        (Phase("linear", 100, end=22.0, start=2.0), 2, 11),
        (Phase("linear", 6, end=100.0, start=2.0), 2, 7),
    ],
    ids=str,
)
def test_a_rounded_factor_may_have_exactly_the_most_stages(monkeypatch, phase, multiple_of, most):
    rounded = Schedule([phase], multiple_of)
    monkeypatch.setattr(operations, "_MOST_PARTS", most)
    operations.stages(rounded)
    monkeypatch.setattr(operations, "_MOST_PARTS", most - 1)
    with pytest.raises(ConfigError, match=rf"^factors=.*has more than {most - 1} stages"):
        operations.stages(rounded)


@pytest.mark.parametrize(
    "phases",
    [
        [Phase("linear", 30, end=9.0, start=1.0)],
        [Phase("linear", 9, 9.0, 1.0), Phase("cosine", 20, 3.0), Phase("step", 5, 8.0)],
        [Phase("linear", 9.5, 9.0, 1.0), Phase("constant", 7.25, 9.0), Phase("linear", 3, 4.0)],
        [Phase("linear", 4, 2.0, 1.0), Phase("constant", 3, 7.0, 7.0), Phase("linear", 8, 1.0)],
    ],
    ids=str,
)
def test_the_stages_of_a_rounded_schedule_have_its_values(phases):
    rounded = Schedule(phases, multiple_of=1)
    stages = operations.stages(rounded)
    assert values(rounded, *range(50)) == values(stages, *range(50))
    assert {"constant"} == {phase.shape for phase in stages.phases}


def test_a_rounded_schedule_is_multiplied_stage_by_stage():
    ramp = schedules.whole(schedules.piecewise([(0, 4), (8, 8)]), multiple_of=2)
    found = schedules.product(0.5, ramp, schedules.linear(1.0, 16))
    assert [2.0, 1.625, 2.25, 2.0, 0.0] == [found(one) for one in (0, 3, 4, 8, 16)]


def test_a_root_of_a_rounded_schedule_follows_its_stages():
    ramp = schedules.whole(schedules.piecewise([(0, 4), (10, 9)]), multiple_of=1)
    assert [2.0, 5**0.5, 3.0] == [schedules.raised_to(ramp, 0.5)(one) for one in (1, 2, 10)]


@pytest.mark.parametrize("power", [0, math.inf, "2", None, True])
def test_an_illegal_power_is_refused(power):
    with pytest.raises(ConfigError, match=r"^power="):
        schedules.raised_to(schedules.linear(1.0, 10, floor=0.5), power)


def test_a_rounded_factor_of_too_many_stages_is_refused_at_once():
    ramp = schedules.whole(schedules.linear(1e9, 10**15))
    with pytest.raises(ConfigError, match="has more than 50,000 stages; multiply first"):
        schedules.product(ramp, FALL)


@pytest.mark.parametrize("number", [3.0, 1e-5, 1e200])
@pytest.mark.parametrize("power", [1e-3, -1e-3, 0.5])
def test_a_product_of_a_number_and_any_power_has_the_product_of_the_values(number, power):
    slow = Schedule([Phase("linear", 10, end=0.5, start=1.0)])
    product = schedules.product(number, schedules.raised_to(slow, power))
    assert number * 0.75**power == pytest.approx(product(5), rel=1e-12)
    assert 2 * number * 0.75**power == pytest.approx(product.scale(5, 2.0)(5), rel=1e-12)


@pytest.mark.parametrize("value, power", [(1e-300, -2), (1e200, 2)])
def test_a_power_beyond_all_floats_is_refused(value, power):
    with pytest.raises(ConfigError, match="leaves the range of floats"):
        schedules.raised_to(schedules.constant(value, 10), power)


def test_a_negative_power_of_0_is_refused():
    with pytest.raises(ConfigError, match="not negative if the schedule is 0 somewhere"):
        schedules.raised_to(schedules.linear(1.0, 10), -1)


# Repetition.


def test_a_repeated_schedule_begins_again_at_each_cycle():
    repeated = schedules.repeat(FALL, 3)
    assert [1.0, 0.5, 1.0, 0.5, 1.0, 0.0] == values(repeated, 0, 5, 10, 15, 20, 30)


@pytest.mark.parametrize(
    "factors, expected",
    [
        (0.5, [1.0, 0.5, 0.25]),
        (np.float64(0.5), [1.0, 0.5, 0.25]),
        (torch.tensor(0.5), [1.0, 0.5, 0.25]),
        ([3, 2, 1], [3.0, 2.0, 1.0]),
        ((one for one in (3, 2, 1)), [3.0, 2.0, 1.0]),
        ([1, 0, 1], [1.0, 0.0, 1.0]),
    ],
    ids=str,
)
def test_each_cycle_is_multiplied_by_its_factor(factors, expected):
    assert expected == values(schedules.repeat(GEOMETRIC, 3, factors=factors), 0, 10, 20)


def test_a_repeated_schedule_is_rounded_as_one_cycle_is():
    ramp = schedules.whole(schedules.product(RISE, 4), multiple_of=2)
    assert [0, 2, 0, 2, 4] == values(schedules.repeat(ramp, 2), 0, 5, 14, 15, 20)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1.0, 2), r"schedule=1\.0: must be a schedule"),
        ((FALL, 0), "times=0: must be from 1 to 100,000"),
        ((FALL, 100_001), "times=100001: must be from 1 to 100,000"),
        ((FALL, 1.5), r"times=1\.5"),
        ((FALL, True), "times=True"),
        ((FALL, 2, [1.0]), "factors=.*must be 2 numbers, one for each cycle"),
        ((FALL, 2, [1.0, -1]), "factors=-1"),
        ((FALL, 2, "ab"), "factors='ab'"),
        ((FALL, 2, {1: 2, 2: 3}), "factors="),
        ((FALL, 2, math.nan), "factors=nan"),
    ],
    ids=str,
)
def test_what_cannot_be_repeated_is_refused_by_name(arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        schedules.repeat(*arguments)


# Whole multiples.


def test_a_whole_schedule_has_ints_that_are_multiples():
    found = values(schedules.whole(schedules.product(RISE, 256), multiple_of=64), 0, 2, 3, 9, 10)
    assert ([0, 0, 64, 192, 256], {int}) == (found, set(map(type, found)))


def test_a_whole_schedule_has_multiples_of_1_by_default():
    assert [0, 1, 3] == values(schedules.whole(schedules.product(RISE, 10)), 0.5, 1.5, 3)


def test_a_whole_schedule_needs_a_schedule():
    with pytest.raises(ConfigError, match=r"^schedule=64: must be a schedule"):
        schedules.whole(64)


# Positions after updates.


def ramp(first, last, units, multiple_of=1):
    return schedules.whole(Schedule([Phase("linear", units, end=last, start=first)]), multiple_of)


def counted(updates, batch_size, per_item):
    position = 0
    for _ in range(updates):
        position += batch_size(position) * per_item
    return position


def test_2000_updates_of_the_ramp_of_deepseek_v3_are_28_billion_tokens():
    found = schedules.units_after(2000, ramp(3072, 15360, 469 * 10**9), per_item=4096)
    assert pytest.approx(28.07, abs=0.01) == found / 1e9
    assert 25.17 == round(schedules.units_after(2000, 3072, per_item=4096) / 1e9, 2)


@pytest.mark.parametrize("seed", range(20))
def test_units_after_updates_are_those_that_are_counted_one_by_one(seed):
    draw = random.Random(seed)
    multiple = draw.choice([1, 4, 16])
    stages = [
        Phase(draw.choice(["linear", "cosine", "step"]), draw.randint(1, 3000), end=16.0 * last)
        for last in draw.choices(range(1, 9), k=draw.randint(1, 4))
    ]
    stages[0] = stages[0].replace(start=32.0)
    batch_size = schedules.whole(Schedule(stages), multiple_of=multiple)
    for updates in (0, 1, 7, 150, 400):
        per_item = draw.choice([1, 3, 7])
        found = schedules.units_after(updates, batch_size, per_item)
        assert counted(updates, batch_size, per_item) == found


def test_units_after_a_billion_updates_of_a_batch_that_is_constant_are_counted_at_once():
    two = Schedule([Phase("step", 100, end=4.0, start=2.0)])
    assert 100 + 4 * (10**9 - 50) == schedules.units_after(10**9, two)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((-1, 4), "updates=-1"),
        ((1.5, 4), r"updates=1\.5"),
        ((True, 4), "updates=True"),
        ((10, 0), "batch_size=0: must be greater than 0"),
        ((10, 2.5), r"batch_size=2\.5"),
        ((10, "4"), "batch_size='4'"),
        ((10, 4, 0), "per_item=0: must be greater than 0"),
        ((10, 4, -1), "per_item=-1"),
        ((10, FALL), r"batch_size=0\.9 at position 1: .*round it with schedules\.whole"),
        ((10, RISE), r"batch_size=0\.0 at position 0: must be a whole number above 0"),
        ((2**50, 16), "position=.*2\\*\\*53"),
    ],
    ids=str,
)
def test_what_has_no_position_is_refused_by_name(arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        schedules.units_after(*arguments)


# All of them, drawn.


@pytest.mark.parametrize("seed", range(40))
def test_operations_have_the_values_of_what_they_were_made_of(seed):
    draw = random.Random(seed)
    first, second, third = drawn(draw), drawn(draw), drawn(draw, lowest=0.0)
    product = schedules.product(first, second, third, 0.5)
    positions = range(0, 200, 3)
    expected = [0.5 * first(n) * second(n) * third(n) for n in positions]
    assert expected == pytest.approx(values(product, *positions), abs=1e-12)
    assert product.max_value * (1 + 1e-9) >= max(expected)
    squared = schedules.product(product, first)
    expected = [product(n) * first(n) for n in positions]
    assert expected == pytest.approx(values(squared, *positions), abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_a_product_is_cut_scaled_and_extended_along_its_values(seed):
    draw = random.Random(seed)
    product = schedules.product(drawn(draw), drawn(draw, lowest=0.0))
    position = draw.randint(0, int(product.horizon) - 1)
    later = [position + n for n in range(1, 99) if not near_a_join(product, position + n)]
    cut, scaled = product.cut(position), product.scale(position, 2.0)
    expected = values(product, *later)
    assert expected == pytest.approx([cut(n - position) for n in later], abs=1e-12)
    assert [2 * one for one in expected] == pytest.approx(values(scaled, *later), abs=1e-12)
    assert values(product, *range(position)) == values(scaled, *range(position))
    longer = product.extend(position, product.horizon + 17, keep="value")
    assert pytest.approx(product(position), abs=1e-12) == longer(position)
    assert pytest.approx(product.horizon + 17) == longer.horizon
    assert product.end_value == longer.end_value


def near_a_join(schedule, position):
    return any(abs(position - join) < 1e-6 for join in (*schedule.boundaries, schedule.horizon))


@pytest.mark.parametrize("seed", range(20))
def test_a_product_comes_back_equal_from_json_and_pickle(seed):
    draw = random.Random(seed)
    product = schedules.product(drawn(draw), drawn(draw), drawn(draw, lowest=0.0))
    changed = [product, product.cut(1), product.scale(1, 3.0), schedules.repeat(product, 2, 0.5)]
    loaded = [Schedule.from_dict(json.loads(json.dumps(one.to_dict()))) for one in changed]
    assert changed == loaded
    assert changed == pickle.loads(pickle.dumps(changed))  # noqa: S301


def test_a_rounded_registered_shape_is_no_factor():
    @register_shape("there_and_back")
    def there_and_back(progress):
        return 1 - progress + 0.5 * progress * (1 - progress)

    hill = Schedule([Phase("there_and_back", 10, end=8.0, start=80.0)], multiple_of=8)
    for rounded in (hill, Schedule([*hill.phases, Phase("linear", 10, end=80.0)], multiple_of=8)):
        with pytest.raises(ConfigError, match=r"^factors=.*is rounded and has a registered shape"):
            schedules.product(rounded, FALL)


def test_a_factor_that_is_cut_and_then_jumps_at_its_end_jumps_in_the_product_too():
    cut = Phase("linear", 100, end=0.0, start=1.0, until=50)
    jumping = Schedule([cut, Phase("constant", 0, end=0.0, start=0.0)])
    assert [0.52, 0.0] == [schedules.product(1.0, jumping)(one) for one in (48, 50)]


def test_a_factor_that_is_cut_stays_at_the_value_that_it_has_reached():
    half = schedules.linear(1.0, 100).cut(until=50)
    product = schedules.product(2.0, half)
    assert (1, 1.0) == (len(product.phases), product(70))


def test_a_long_rounded_schedule_of_few_stages_may_be_multiplied():
    rounded = Schedule([Phase("linear", 60_000, end=100_010, start=100_000)], multiple_of=1)
    halved = schedules.product(0.5, rounded)
    assert [50_000, 50_002.5] == [halved(position) for position in (0, 30_000)]


@pytest.mark.parametrize("cycles, is_legal", [(0, False), (1, True), (5, True), (6, False)])
def test_cycles_may_fill_a_schedule(monkeypatch, cycles, is_legal):
    monkeypatch.setattr(operations, "MOST_PHASES", 10)
    cycle = Schedule([Phase("linear", 1, end=0.0, start=1.0), Phase("constant", 1, end=0.0)])
    if is_legal:
        assert 2 * cycles == schedules.repeat(cycle, cycles).horizon
    else:
        with pytest.raises(ConfigError, match=f"^times={cycles}: must be from 1 to 5 "):
            schedules.repeat(cycle, cycles)
