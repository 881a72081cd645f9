"""Schedules: joins, clocks, saving, what is refused, and late changes."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._curves import schedule as schedule_module
from dist_sched._curves.operations import product, repeat
from dist_sched._curves.schedule import MOST_PHASES
from dist_sched._curves.shapes import shape_of, shapes

RISE = Phase("linear", 10, end=1.0, start=0.0)
HOLD = Phase("constant", 50, end=1.0)
FALL = Phase("cosine", 100, end=0.1)
NO_NUMBERS = [True, "1", [1], 1j, np.bool_(True)]
NO_RATES = [-1, -1e-9, math.nan, math.inf, -math.inf, 10**400]
quick = settings(max_examples=60, deadline=None, database=None)


def over(*phases):
    return Schedule(phases)


def rise_and_fall():
    return Schedule([RISE, FALL])


def wsd():
    return Schedule([RISE, HOLD, Phase("minus_sqrt", 40, end=0.0)])


def at_all(schedule, positions):
    return [schedule(position) for position in positions]


@st.composite
def parameters_of(draw, shape, steps):
    some = st.floats(1, 3)
    if shape == "multistep":
        places = st.lists(st.floats(0.01, 1), min_size=1, max_size=4)
        return {"milestones": sorted(max(1, place * steps) for place in draw(places))}
    names = {"cosine": ["exponent"], "polynomial": ["power"], "inverse": ["timescale"]}
    names |= {"inverse_sqrt": ["timescale"], "power_law": ["power", "timescale"]}
    names |= {"log": ["timescale"]}
    if shape in {"minus_power", "exponential_to_zero"}:
        needed = {"minus_power": "power", "exponential_to_zero": "ratio"}[shape]
        return {needed: draw(st.floats(0.1, 0.9))}
    return {name: draw(some) for name in names.get(shape, []) if draw(st.booleans())}


@st.composite
def phases_of_any_shape(draw, *, is_first, is_whole):
    # Not half_life: it must stay below 1, where the phase before may have ended.
    shape = draw(st.sampled_from([one for one in shapes() if one != "half_life"]))
    steps = draw(st.integers(1, 500) if is_whole else st.integers(1, 500) | st.floats(1, 500))
    end = draw(st.floats(0.1, 0.99))
    start = draw(st.floats(0.1, 0.99)) if is_first or draw(st.booleans()) else None
    until = draw(st.none() | st.integers(0, int(steps)))
    given = draw(parameters_of(shape, steps))
    start = end if shape == "constant" else start
    return Phase(shape, steps, end=end, start=start, until=until, **given)


@st.composite
def schedules(draw, *, is_whole=False):
    count = draw(st.integers(1, 6))
    return Schedule(
        draw(phases_of_any_shape(is_first=not index, is_whole=is_whole)) for index in range(count)
    )


@st.composite
def positions_in(draw, schedule):
    """Draw whole positions, those about the joins too."""
    edges = {max(0, int(join) + more) for join in schedule.boundaries for more in (-1, 0, 1)}
    return draw(st.sampled_from(sorted(edges)) | st.integers(0, int(schedule.horizon) + 100))


# What a schedule is.


def test_a_phase_without_start_begins_where_the_one_before_ended():
    schedule = rise_and_fall()
    assert [0.0, 0.5, 1.0, 0.55, 0.1] == at_all(schedule, [0, 5, 10, 60, 110])


def test_each_phase_runs_on_its_own_clock():
    alone = Schedule([Phase("cosine", 100, end=0.1, start=1.0)])
    joined = rise_and_fall()
    assert at_all(alone, range(120)) == at_all(joined, range(10, 130))


def test_the_value_at_a_join_belongs_to_the_later_phase():
    schedule = over(RISE, Phase("linear", 10, end=0.0, start=0.5))
    assert [0.9, 0.5, 0.45] == at_all(schedule, [9, 10, 11])


def test_a_declared_start_jumps():
    schedule = over(Phase("constant", 5, 0.3, 0.3), Phase("constant", 5, 0.7, 0.7))
    assert [0.3, 0.3, 0.7, 0.7] == at_all(schedule, [0, 4, 5, 10])


@pytest.mark.parametrize("position", [110, 111, 10**9, 2**60, 110.5, math.inf])
def test_past_the_horizon_the_last_value_is_held(position):
    assert 0.1 == rise_and_fall()(position)


def test_a_schedule_has_its_boundaries_horizon_bounds_and_last_value_as_attributes():
    schedule = wsd()
    found = (
        schedule.boundaries,
        schedule.horizon,
        schedule.min_value,
        schedule.max_value,
        schedule.end_value,
    )
    assert ((0, 10, 60), 100, 0.0, 1.0, 0.0) == found


def test_spans_are_the_first_and_last_value_of_each_phase():
    assert [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0)] == wsd().spans()


def test_a_step_phase_jumps_where_the_next_one_begins():
    schedule = over(Phase("step", 10, end=0.1, start=1.0), Phase("linear", 10, end=0.0))
    assert [1.0, 0.1, 0.05] == pytest.approx(at_all(schedule, [9, 10, 15]))


def test_until_hands_over_before_the_end_at_the_value_reached():
    schedule = over(Phase("linear", 10, 0.0, 1.0, until=4), Phase("linear", 6, end=0.0))
    assert [1.0, 0.7, 0.6, 0.3, 0.0] == pytest.approx(at_all(schedule, [0, 3, 4, 7, 10]))
    assert 10 == schedule.horizon


def test_until_at_the_end_of_the_schedule_holds_the_value_reached():
    schedule = over(Phase("linear", 10, 0.0, 1.0, until=4))
    assert [0.7, 0.6, 0.6] == pytest.approx(at_all(schedule, [3, 4, 100]))
    assert (4, 0.6) == (schedule.horizon, schedule.end_value)


def test_a_phase_of_length_0_sets_where_the_next_one_starts():
    schedule = over(RISE, Phase("step", 0, end=0.5), Phase("linear", 10, end=0.0))
    assert [0.9, 0.5, 0.25, 0.0] == at_all(schedule, [9, 10, 15, 20])


def test_a_last_phase_of_length_0_sets_the_last_value():
    assert [0.9, 0.5, 0.5] == at_all(over(RISE, Phase("linear", 0, end=0.5)), [9, 10, 11])


def test_a_first_phase_of_length_0_does_not_show():
    schedule = over(Phase("linear", 0, end=0.5, start=0.9), Phase("linear", 10, end=0.0))
    assert [0.5, 0.25] == at_all(schedule, [0, 5])


def test_lengths_may_be_fractions():
    schedule = over(Phase("linear", 2.5, end=1.0, start=0.0), Phase("linear", 2.5, end=0.0))
    assert [0.0, 0.8, 0.8, 0.4, 0.0] == pytest.approx(at_all(schedule, [0, 2, 3, 4, 5]))


def test_lengths_that_add_up_to_a_whole_number_but_for_rounding_join_there():
    tenth = {"shape": "linear", "steps": 0.1, "end": 1.0, "start": 0.0}
    schedule = over(*(Phase.from_dict({**tenth, "end": float(index)}) for index in range(30)))
    assert (2, 3) == (schedule.boundaries[20], schedule.horizon)


def test_positions_may_be_fractions():
    assert 0.25 == over(Phase("linear", 2, end=1.0, start=0.0))(0.5)


@pytest.mark.parametrize("position", [-1, -0.5, math.nan, "5", None, [1], 1j], ids=repr)
def test_a_position_that_is_negative_or_no_number_is_refused(position):
    with pytest.raises(ConfigError, match=r"^position=.*must be a (finite )?number"):
        rise_and_fall()(position)


@quick
@given(schedule=schedules())
def test_a_phase_without_start_begins_where_the_one_before_ended_whatever_is_drawn(schedule):
    spans = schedule.spans()
    joins = zip(schedule.phases[1:], spans, spans[1:], strict=False)
    apart = [(end, start) for phase, (_, end), (start, _) in joins if phase.start is None]
    assert [] == [pair for pair in apart if pair[0] != pair[1]]


@quick
@given(schedule=schedules())
def test_a_phase_but_for_steps_approaches_the_value_that_it_reaches(schedule):
    ends = (*schedule.boundaries[1:], schedule.horizon)
    rows = zip(schedule.phases, ends, schedule.spans(), strict=True)
    found = {
        end: (schedule(end - 1e-6 * phase.duration), reached)
        for phase, end, (_, reached) in rows
        if phase.duration and phase.shape not in {"step", "multistep"}
    }
    # A square root, the steepest that is drawn, moves by a thousandth over a millionth.
    assert {end: near for end, (near, _) in found.items()} == pytest.approx(
        {end: reached for end, (_, reached) in found.items()}, abs=3e-3
    )


@quick
@given(data=st.data(), schedule=schedules())
def test_a_schedule_stays_between_the_lowest_and_the_highest_value(data, schedule):
    found = schedule(data.draw(positions_in(schedule)))
    assert schedule.min_value <= found <= schedule.max_value


def test_a_schedule_of_most_phases_finds_each_by_bisection():
    schedule = Schedule(Phase("constant", 1, 0.5, start=0.5) for _ in range(MOST_PHASES))
    few = Schedule(schedule.phases[:10])

    def seconds(curve):
        begun = time.perf_counter()
        for index in range(2000):
            curve(curve.horizon - 1 - index % 5)
        return time.perf_counter() - begun

    assert 20 * min(seconds(few) for _ in range(3)) > min(seconds(schedule) for _ in range(3))


def test_a_phase_between_two_positions_past_the_horizon_is_constant():
    held = Phase("constant", 20, end=0.1, start=0.1)
    assert [held] * 2 == [rise_and_fall().phase_between(at, at + 20) for at in (110, 150)]


# What is refused.


def test_a_horizon_over_2_to_the_53_is_refused():
    with pytest.raises(ConfigError, match=r"^horizon=9007199254740993: must be at most 2\*\*53"):
        over(RISE.replace(steps=2**53), Phase("linear", 1, end=0.0))


def test_a_first_phase_without_start_is_refused():
    with pytest.raises(ConfigError, match=r"^phases\[0\].start=None: the first phase needs"):
        over(FALL)


def test_a_constant_phase_that_starts_elsewhere_than_it_ends_is_refused():
    message = r"phases\[1\] \(constant\): starts at 1.0 and ends at 0.5: .*pass start="
    with pytest.raises(ConfigError, match=f"^{message}"):
        over(RISE, Phase("constant", 10, end=0.5))


def test_a_constant_phase_whose_own_start_and_end_differ_is_refused():
    with pytest.raises(ConfigError, match=r"^phases\[0\] \(constant\): starts at 1.0 and ends"):
        over(Phase("constant", 0, end=0.5, start=1.0))


def test_a_shape_that_cannot_start_where_the_phase_before_ended_is_refused():
    with pytest.raises(ConfigError, match=r"^phases\[1\] \(exponential\): start=0.0"):
        over(Phase("linear", 10, end=0.0, start=1.0), Phase("exponential", 10, end=1.0))


def test_no_phases_are_refused():
    with pytest.raises(ConfigError, match=r"^phases: there are 0; must be from 1 to 100,000"):
        over()


def test_too_many_phases_are_refused():
    with pytest.raises(ConfigError, match=r"^phases: there are 100001; must be from 1 to 100,000"):
        Schedule([RISE] * (MOST_PHASES + 1))


def test_a_schedule_may_have_exactly_the_most_phases(monkeypatch):
    monkeypatch.setattr(schedule_module, "MOST_PHASES", 3)
    assert 30 == over(*[RISE] * 3).horizon
    with pytest.raises(ConfigError, match=r"^phases: there are 4; must be from 1 to 3"):
        over(*[RISE] * 4)


def test_values_beyond_all_floats_are_refused_with_the_phase():
    message = r"^phases\[0\] \(power_law\): its values leave the range of floats"
    with pytest.raises(ConfigError, match=message):
        over(Phase("power_law", 10, end=0.1, start=1.0, power=0.001))


@pytest.mark.parametrize("phases", [None, 3, "linear", RISE, {"phases": []}], ids=repr)
def test_what_is_no_list_of_phases_is_refused(phases):
    with pytest.raises(ConfigError, match=r"^phases=.*must be a list of phases"):
        Schedule(phases)


@pytest.mark.parametrize("thing", [None, "linear", {"shape": "linear"}, 0.5], ids=repr)
def test_what_is_no_phase_is_refused_by_its_index(thing):
    with pytest.raises(ConfigError, match=r"^phases\[1\]=.*must be a Phase"):
        over(RISE, thing)


def test_phases_may_come_from_a_generator():
    assert rise_and_fall() == Schedule(phase for phase in (RISE, FALL))


# Plain data.


@pytest.mark.parametrize("name", ["phases", "boundaries", "horizon", "end_value"])
def test_a_schedule_is_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rise_and_fall(), name, 1)


def test_equal_phases_and_schedules_have_equal_hashes():
    assert 1 == len({RISE, RISE.replace(), Phase("linear", 10.0, end=1, start=0)})
    assert 1 == len({wsd(), wsd()})
    assert 2 == len({wsd(), rise_and_fall()})


def test_equal_curves_with_explicit_or_implied_starts_are_equal():
    explicit = over(RISE, HOLD.replace(start=1.0), Phase("minus_sqrt", 40, end=0.0, start=1.0))
    assert wsd() == explicit
    assert hash(wsd()) == hash(explicit)
    assert repr(wsd()) == repr(explicit)


def test_a_start_that_jumps_is_kept():
    schedule = over(RISE, FALL.replace(start=0.5))
    assert 0.5 == schedule.phases[1].start
    assert rise_and_fall() != schedule


def test_a_schedule_equals_no_phase_and_no_list():
    assert over(RISE) != RISE
    assert over(RISE) != [RISE]


def test_a_repr_shows_what_is_not_default():
    schedule = over(RISE.replace(until=5), FALL.replace(exponent=2))
    expected = (
        "Schedule([Phase('linear', 10, end=1.0, start=0.0, until=5), "
        "Phase('cosine', 100, end=0.1, exponent=2.0)])"
    )
    assert expected == repr(schedule)


def test_a_text_shows_the_values_of_each_phase():
    expected = "linear 10 units 0 to 1; constant 50 units 1 to 1; minus_sqrt 40 units 1 to 0"
    assert expected == str(wsd())


def test_a_text_counts_the_phases_after_the_twelfth():
    hold = "constant 5 units 1 to 1"
    assert "; ".join([hold] * 12) == str(over(*[Phase("constant", 5, 1.0, 1.0)] * 12))
    longer = str(over(*[Phase("constant", 5, 1.0, 1.0)] * 14))
    assert "; ".join([*[hold] * 12, "and 2 more phases"]) == longer


@quick
@given(schedule=schedules())
def test_a_repr_evaluates_to_an_equal_schedule(schedule):
    names = {"Phase": Phase, "Schedule": Schedule}
    assert schedule == eval(repr(schedule), names)  # noqa: S307


@quick
@given(data=st.data(), schedule=schedules())
def test_copies_are_equal_and_give_the_same_bits(data, schedule):
    saved = json.loads(json.dumps(schedule.to_dict()))
    copies = [Schedule.from_dict(saved), copy.deepcopy(schedule), copy.copy(schedule)]
    copies += [pickle.loads(pickle.dumps(schedule, protocol)) for protocol in (2, 5)]  # noqa: S301
    position = data.draw(positions_in(schedule))
    assert [schedule] * 5 == copies
    assert [schedule(position)] * 5 == [one(position) for one in copies]
    assert [schedule.to_dict()] * 5 == [one.to_dict() for one in copies]


@quick
@given(phase=phases_of_any_shape(is_first=False, is_whole=False))
def test_a_phase_comes_back_from_json_pickle_and_copy(phase):
    loaded = Phase.from_dict(json.loads(json.dumps(phase.to_dict())))
    pickled = pickle.loads(pickle.dumps(phase))  # noqa: S301
    assert [phase] * 3 == [loaded, pickled, copy.deepcopy(phase)]


def test_a_schedule_is_saved_as_a_list_of_its_phases():
    expected = [
        {"shape": "linear", "steps": 10, "end": 1.0, "start": 0.0},
        {"shape": "multistep", "steps": 9, "end": 0.1, "until": 8, "milestones": [3, 6]},
    ]
    schedule = over(RISE, Phase("multistep", 9, 0.1, until=8, milestones=(3, 6)))
    assert {"phases": expected} == schedule.to_dict()


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "schedule=None: must be a mapping with a list of phases"),
        ({}, "schedule=.*: must be a mapping with a list of phases"),
        ({"phases": "linear"}, "schedule=.*: must be a mapping with a list of phases"),
        ({"phases": {}}, "schedule=.*: must be a mapping with a list of phases"),
        ({"phases": []}, "phases: there are 0"),
        ({"phases": [RISE.to_dict()], "phase": 1}, r"'phase' is not a key.*mean 'phases'\?"),
        ({"phases": [RISE.to_dict()], 7: 1}, "7 is not a key of a schedule"),
        ({"phases": [RISE.to_dict(), {"shape": "linear"}]}, r"phases\[1\]: .*lacks steps, end"),
        ({"phases": [RISE.to_dict(), None]}, r"phases\[1\]: phase=None"),
        ({"phases": [FALL.to_dict()]}, r"phases\[0\].start=None"),
    ],
    ids=str,
)
def test_data_that_is_no_schedule_is_refused(data, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Schedule.from_dict(data)


def test_a_rounded_schedule_comes_back_from_its_data_its_text_and_pickle():
    schedule = Schedule([RISE.replace(end=4.0)], multiple_of=2)
    expected = {"phases": [{**RISE.to_dict(), "end": 4.0}], "multiple_of": 2}
    assert expected == schedule.to_dict()
    assert "Schedule([Phase('linear', 10, end=4.0, start=0.0)], multiple_of=2)" == repr(schedule)
    assert "linear 10 units 0 to 4; whole multiples of 2" == str(schedule)
    copies = [Schedule.from_dict(expected), pickle.loads(pickle.dumps(schedule))]  # noqa: S301
    assert [schedule] * 2 == copies


# Many positions at once.


@quick
@given(data=st.data(), schedule=schedules())
def test_values_gives_the_same_bits_as_calls(data, schedule):
    places = st.lists(positions_in(schedule) | st.floats(0, 3000), max_size=30)
    positions = data.draw(places)
    assert at_all(schedule, positions) == schedule.values(positions).tolist()


@pytest.mark.parametrize(
    "positions",
    [
        [0, 5, 10, 60, 110, 200],
        [200, 110, 60, 10, 5, 0, 5],
        (0, 5.5, 10, 60.25),
        range(130),
        range(0),
        [],
        np.arange(130),
        np.arange(0, 120, dtype=np.uint8),
        np.arange(0, 130, dtype=np.int32),
        np.linspace(0, 130, 77),
        np.linspace(0, 130, 77, dtype=np.float32),
        torch.arange(130),
    ],
    ids=lambda positions: f"{type(positions).__name__}-{len(positions)}",
)
def test_values_takes_whatever_holds_positions(positions):
    schedule = wsd()
    found = schedule.values(positions)
    assert isinstance(found, np.ndarray)
    assert np.float64 == found.dtype
    assert [float(schedule(position)) for position in positions] == found.tolist()


def test_values_of_a_rounded_schedule_are_rounded():
    schedule = Schedule([Phase("linear", 100, end=256.0, start=64.0)], multiple_of=64)
    assert at_all(schedule, range(120)) == schedule.values(range(120)).tolist()


def test_values_of_every_third_position_of_a_range():
    assert at_all(wsd(), range(2, 130, 3)) == wsd().values(range(2, 130, 3)).tolist()


def test_values_refuses_a_set_which_has_no_order():
    with pytest.raises(ConfigError, match=r"^position=.*must be a number"):
        wsd().values({5, 10})


def test_values_takes_a_generator():
    assert [0.0, 0.5, 1.0] == wsd().values(position for position in (0, 5, 10)).tolist()


def test_values_keeps_the_form_of_the_positions():
    grid = np.arange(120).reshape(2, 3, 20)
    found = wsd().values(grid)
    assert (2, 3, 20) == found.shape
    assert at_all(wsd(), range(120)) == found.ravel().tolist()
    assert [[0.0, 0.5], [1.0, 0.0]] == wsd().values([[0, 5], [10, 100]]).tolist()


def test_values_without_numpy_is_a_list(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    schedule = wsd()
    assert at_all(schedule, range(130)) == schedule.values(range(130))
    assert [0.5, 1.0] == schedule.values(position for position in (5, 10))


@pytest.mark.parametrize("position", [-1, -0.5, math.nan, "5", None], ids=repr)
def test_values_refuses_what_a_call_refuses(position):
    with pytest.raises(ConfigError, match=r"^position=.*must be a (finite )?number"):
        rise_and_fall().values([position])


def test_values_without_numpy_refuses_a_negative_position(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ConfigError, match=r"^position=-1: must be a number >= 0"):
        rise_and_fall().values([-1])


def test_values_refuses_a_negative_position_among_others():
    with pytest.raises(ConfigError, match=r"^position=.*-1.*must be a number >= 0"):
        rise_and_fall().values([5, 200, -1, 7])


@pytest.mark.parametrize("position", [np.int64(5), np.array(5), np.float32(5)], ids=repr)
def test_values_of_one_position_is_an_array_of_no_dimension(position):
    found = rise_and_fall().values(position)
    assert ((), 0.5) == (found.shape, found.item())


# Late changes.


@quick
@given(
    data=st.data(), schedule=schedules(is_whole=True), shape=st.sampled_from(["linear", "cosine"])
)
def test_a_cooldown_changes_nothing_up_to_its_position(data, schedule, shape):
    position = data.draw(positions_in(schedule))
    changed = schedule.cooldown(position, 50, shape, end=0.05)
    assert at_all(schedule, range(position + 1)) == at_all(changed, range(position + 1))
    assert 0.05 == changed(position + 50) == changed.end_value
    assert position + 50 == changed.horizon


@quick
@given(data=st.data(), schedule=schedules())
def test_a_rewarm_changes_nothing_up_to_its_position(data, schedule):
    position = data.draw(positions_in(schedule))
    changed = schedule.rewarm(position, 50, peak=2.0)
    assert at_all(schedule, range(position + 1)) == at_all(changed, range(position + 1))
    middle = (schedule(position) + 2) / 2
    assert [middle, 2.0, 2.0] == pytest.approx(
        at_all(changed, [position + 25, position + 50, position + 51])
    )


def test_a_cooldown_cuts_the_phase_that_runs():
    expected = over(RISE, HOLD.replace(until=20), Phase("minus_sqrt", 40, end=0.0))
    assert expected == wsd().cooldown(30, 40)


def test_a_cooldown_at_a_join_takes_the_place_of_the_phase_that_would_begin():
    assert over(RISE, Phase("linear", 5, end=0.1)) == rise_and_fall().cooldown(10, 5, "linear")


def test_a_cooldown_at_a_join_that_jumps_begins_at_the_value_there():
    schedule = over(RISE, Phase("linear", 10, end=0.2, start=0.5)).cooldown(10, 5, "linear")
    assert [0.9, 0.5, 0.2] == at_all(schedule, [9, 10, 15])


def test_a_cooldown_at_position_0_is_the_whole_schedule():
    schedule = over(Phase("linear", 10, end=0.0, start=1.0)).cooldown(0, 4, "linear")
    assert over(Phase("linear", 4, end=0.0, start=1.0)) == schedule


def test_a_cooldown_at_the_horizon_follows_the_last_phase():
    expected = over(RISE, FALL, Phase("linear", 5, end=0.0))
    assert expected == rise_and_fall().cooldown(110, 5, "linear", end=0.0)


def test_a_cooldown_past_the_horizon_holds_the_last_value_until_then():
    schedule = rise_and_fall().cooldown(150, 10, "linear", end=0.0)
    assert [0.1, 0.1, 0.1, 0.05, 0.0, 0.0] == at_all(schedule, [110, 111, 150, 155, 160, 161])


@pytest.mark.parametrize("position, end", [(50, 0.1), (110, 0.0), (120, 0.0), (0, 0.0)])
def test_a_cooldown_goes_to_the_last_value_where_that_is_lower_or_else_to_0(position, end):
    assert end == rise_and_fall().cooldown(position, 10).end_value


def test_a_second_cooldown_leaves_the_first():
    once = wsd().cooldown(30, 40, "linear")
    twice = once.cooldown(50, 10, "linear")
    assert at_all(once, range(51)) == at_all(twice, range(51))
    assert [0.5, 0.25, 0.0] == at_all(twice, [50, 55, 60])


def test_a_second_cooldown_past_the_first_holds_0():
    schedule = wsd().cooldown(30, 10).cooldown(100, 10, end=0.0)
    assert [0.0, 0.0, 0.0] == at_all(schedule, [40, 100, 200])


def test_a_rewarm_rises_in_a_line_to_the_highest_value():
    schedule = rise_and_fall().rewarm(110, 9)
    assert [0.1, 0.4, 1.0, 1.0] == pytest.approx(at_all(schedule, [110, 113, 119, 500]))


def test_a_rewarm_and_then_a_cooldown_is_a_new_cycle():
    schedule = rise_and_fall().rewarm(200, 9).cooldown(209, 10, "linear", end=0.0)
    assert [0.1, 0.1, 1.0, 0.5, 0.0] == pytest.approx(at_all(schedule, [110, 200, 209, 214, 219]))


def test_a_cooldown_may_have_a_shape_that_needs_an_end_above_0():
    schedule = over(Phase("constant", 10, 1.0, 1.0)).cooldown(5, 2, "exponential", end=0.01)
    assert [1.0, 0.1, 0.01] == pytest.approx(at_all(schedule, [5, 6, 7]))


def test_extend_lengthens_the_constant_phase():
    expected = over(RISE, HOLD.replace(steps=150), Phase("minus_sqrt", 40, end=0.0))
    assert expected == wsd().extend(30, 200)


@pytest.mark.parametrize("position", [0, 9, 10, 30, 59])
def test_extending_a_constant_phase_that_has_not_ended_changes_nothing_before(position):
    longer = wsd().extend(position, 200)
    assert at_all(wsd(), range(60)) == at_all(longer, range(60))
    assert [1.0, 1.0, 0.5, 0.0] == at_all(longer, [60, 160, 170, 200])


def test_extend_takes_the_first_constant_phase_that_has_not_ended():
    fall, low = Phase("linear", 10, end=0.5), Phase("constant", 10, end=0.5)
    schedule = over(RISE, HOLD, fall, low)
    assert over(RISE, HOLD.replace(steps=70), fall, low) == schedule.extend(59, 100)
    assert over(RISE, HOLD, fall, low.replace(steps=30)) == schedule.extend(61, 100)


def test_extend_lengthens_the_constant_phase_that_ends_here_where_a_decay_begins():
    assert wsd().extend(30, 200) == wsd().extend(60, 200)
    fall, low = Phase("linear", 10, end=0.5), Phase("constant", 10, end=0.5)
    expected = over(RISE, HOLD.replace(steps=70), fall, low)
    assert expected == over(RISE, HOLD, fall, low).extend(60, 100)


def test_extend_lengthens_the_stable_phase_of_the_decay_that_begins_here_and_no_other():
    fall, back = Phase("linear", 10, end=0.0), HOLD.replace(start=1.0)
    schedule = over(HOLD.replace(start=1.0), fall, back, fall)
    assert over(HOLD.replace(start=1.0), fall, back.replace(steps=60), fall) == schedule.extend(
        110, 130
    )


@pytest.mark.parametrize(
    "phases, position",
    [
        ((Phase("constant", 10, 0.0, 0.0), RISE, FALL), 10),
        ((Phase("constant", 10, 1.0, 1.0), Phase("linear", 90, 0.5, 0.8)), 10),
        ((Phase("constant", 10, 1.0, 1.0), Phase("linear", 90, 0.5)), 11),
        ((RISE, FALL), 10),
    ],
    ids=["a rise begins", "it jumps there", "past it", "a rise ends"],
)
def test_extend_lengthens_no_phase_that_has_ended_elsewhere(phases, position):
    *before, last = phases
    expected = over(*before, last.replace(steps=last.steps + 100))
    assert expected == over(*phases).extend(position, expected.horizon)


def test_extend_lengthens_a_first_phase_and_a_lower_one_where_their_decays_begin():
    fall, low = Phase("linear", 40, end=0.0), Phase("constant", 50, end=0.5, start=0.5)
    first = HOLD.replace(start=1.0)
    assert over(first.replace(steps=150), fall) == over(first, fall).extend(50, 190)
    assert over(RISE, low.replace(steps=150), fall) == over(RISE, low, fall).extend(60, 200)


def test_a_line_that_stays_level_is_no_decay_to_extend():
    level = Phase("linear", 60, end=1.0)
    schedule = over(HOLD.replace(start=1.0), level)
    assert over(HOLD.replace(start=1.0), level.replace(steps=150)) == schedule.extend(50, 200)


def test_extend_at_position_0_looks_at_no_phase_before():
    fall = Phase("linear", 10, end=0.0, start=1.0)
    expected = over(fall, RISE, HOLD.replace(steps=80))
    assert expected == over(fall, RISE, HOLD).extend(0, 100)


def test_extend_may_be_by_one_unit():
    assert over(RISE, FALL.replace(steps=101)) == rise_and_fall().extend(0, 111)


def test_extend_without_the_rule_does_as_version_1_of_the_format():
    expected = over(RISE, HOLD, Phase("minus_sqrt", 140, end=0.0))
    assert expected == wsd().extend(60, 200, lengthen=None)


def test_extend_refuses_an_unknown_rule():
    with pytest.raises(ConfigError, match=r"^lengthen='longest': must be one of 'stable'"):
        wsd().extend(60, 200, lengthen="longest")


def test_extend_without_a_constant_phase_lengthens_the_longest_that_has_not_ended():
    assert over(RISE, FALL.replace(steps=190)) == rise_and_fall().extend(0, 200)
    long_rise = over(RISE.replace(steps=300), FALL)
    assert over(RISE.replace(steps=400), FALL) == long_rise.extend(0, 500)
    assert over(RISE.replace(steps=300), FALL.replace(steps=200)) == long_rise.extend(300, 500)


@pytest.mark.parametrize("position", [110, 150, 10**6])
def test_extend_past_the_horizon_lengthens_the_last_phase(position):
    assert over(RISE, FALL.replace(steps=190)) == rise_and_fall().extend(position, 200)


def test_extend_twice_is_extend_once_to_the_later_horizon():
    assert wsd().extend(30, 300) == wsd().extend(30, 200).extend(30, 300)


def test_extend_of_a_cut_phase_stays_at_the_value_where_it_was_cut():
    cut = Phase("linear", 10, 0.0, 1.0, until=5)
    assert over(cut, Phase("constant", 5, end=0.5)) == over(cut).extend(2, 10)
    stable = Phase("constant", 10, 1.0, 1.0, until=5)
    assert over(Phase("constant", 10, 1.0, 1.0)) == over(stable).extend(2, 10)


@quick
@given(data=st.data(), schedule=schedules(is_whole=True), more=st.integers(1, 500))
def test_extend_ends_where_it_shall_at_the_same_value(data, schedule, more):
    position = data.draw(positions_in(schedule))
    longer = schedule.extend(position, schedule.horizon + more)
    assert schedule.horizon + more == longer.horizon
    assert schedule.end_value == longer.end_value
    held = [span for span in longer.spans() if span[0] != span[1]]
    assert [span for span in schedule.spans() if span[0] != span[1]] == held


@pytest.mark.parametrize("horizon", [110, 109, 0, -1, math.nan, "200", None, True], ids=repr)
def test_extend_refuses_a_horizon_that_is_not_later(horizon):
    with pytest.raises(ConfigError, match=r"^horizon=.*must be"):
        rise_and_fall().extend(0, horizon)


@pytest.mark.parametrize("position", [-1, math.nan, "5", None, [5]], ids=repr)
@pytest.mark.parametrize(
    "change",
    [
        lambda schedule, position: schedule.cooldown(position, 10),
        lambda schedule, position: schedule.cooldown(position, 10, end=0.0),
        lambda schedule, position: schedule.rewarm(position, 10),
        lambda schedule, position: schedule.extend(position, 200),
    ],
    ids=["cooldown", "cooldown_to", "rewarm", "extend"],
)
def test_a_late_change_refuses_what_is_no_position(change, position):
    with pytest.raises(ConfigError, match=r"^position=.*must be"):
        change(rise_and_fall(), position)


@pytest.mark.parametrize("steps", [0, -1, math.nan, "10", None, True, 2**53 + 1], ids=repr)
@pytest.mark.parametrize("name", ["cooldown", "rewarm"])
def test_a_late_change_refuses_what_is_no_length(name, steps):
    with pytest.raises(ConfigError, match=r"^steps=.*must be"):
        getattr(rise_and_fall(), name)(50, steps)


@pytest.mark.parametrize("end", [-1, math.nan, "0", True], ids=repr)
def test_a_late_change_refuses_an_end_that_is_no_value(end):
    with pytest.raises(ConfigError, match=r"^end=.*must be"):
        rise_and_fall().cooldown(50, 10, end=end)
    with pytest.raises(ConfigError, match=r"^end=.*must be"):
        rise_and_fall().rewarm(50, 10, peak=end)


def test_a_cooldown_refuses_an_unknown_shape():
    with pytest.raises(ConfigError, match=r"^shape='minus_sqr'.*did you mean 'minus_sqrt'\?"):
        rise_and_fall().cooldown(50, 10, "minus_sqr")


# Parts, factors and longer ends.


def test_extend_that_keeps_the_value_stretches_what_is_left():
    schedule = over(Phase("linear", 100, end=0.0, start=1.0)).extend(60, 160, keep="value")
    assert [0.5, 0.4, 0.2, 0.0] == pytest.approx(at_all(schedule, [50, 60, 110, 160]))


def test_an_extended_cosine_goes_on_along_its_own_curve():
    cosine = over(Phase("cosine", 100, end=0.0, start=1.0))
    schedule = cosine.extend(60, 160, keep="value")
    assert at_all(cosine, [30, 60, 80, 100]) == at_all(schedule, [30, 60, 110, 160])


def test_extend_that_keeps_the_value_lengthens_a_constant_phase_as_without():
    assert wsd().extend(30, 200) == wsd().extend(30, 200, keep="value")


def test_extend_that_keeps_the_value_past_the_horizon_holds_it():
    schedule = rise_and_fall().extend(150, 200, keep="value")
    assert [0.1, 0.1, 200] == [schedule(150), schedule(200), schedule.horizon]


def test_extend_that_keeps_the_value_at_the_ends_of_a_phase_does_not_cut_it():
    begun = rise_and_fall().extend(10, 200, keep="value")
    assert over(RISE, FALL.replace(steps=190)) == begun
    ended = rise_and_fall().extend(110, 200, keep="value")
    assert over(RISE, FALL, Phase("constant", 90, end=0.1)) == ended


def test_extend_stretches_a_part_of_a_shape_and_a_product_along_their_values():
    late = over(Phase("linear", 100, end=0.0, start=1.0, since=50)).extend(0, 150)
    assert [0.5, 0.25, 0.0] == at_all(late, [0, 75, 150])
    square = product(over(RISE), over(RISE)).extend(0, 20)
    assert [0.0, 0.25, 1.0] == at_all(square, [0, 10, 20])


def test_extend_may_stretch_a_phase_to_the_largest_length():
    half = over(Phase("linear", 2**52, end=0.0, start=1.0))
    longer = half.extend(2**51, 2**52 + 2**51, keep="value")
    assert (2**52 + 2**51, 0.5) == (longer.horizon, longer(2**51))


@pytest.mark.parametrize("position", [1, 20, 33, 60, 77])
@pytest.mark.parametrize("shape", sorted({*shapes()} - {"constant"}))
def test_extend_that_keeps_the_value_keeps_it_in_every_shape(shape, position):
    needed = {"milestones": [20, 40, 60], "power": 2.0, "ratio": 0.1}
    given = {name: needed[name] for name in shape_of(shape).rules if name in needed}
    schedule = over(Phase(shape, 100, end=0.1, start=0.9, **given))
    longer = schedule.extend(position, 160, keep="value")
    assert pytest.approx(schedule(position), rel=1e-12) == longer(position)
    assert (160, 0.1) == (longer.horizon, longer.end_value)


@pytest.mark.parametrize("position", [7, 7_300_000_000_123, 14_900_000_000_001])
def test_an_extension_ends_exactly_where_it_shall_however_many_units(position):
    whole = over(Phase("cosine", 15 * 10**12, end=0.0, start=1.0))
    assert 17_000_000_000_003 == whole.extend(position, 17_000_000_000_003, keep="value").horizon


def test_an_extension_that_stretches_a_phase_beyond_any_length_is_refused():
    fall = over(Phase("linear", 2**50, end=0.0, start=1.0))
    with pytest.raises(
        ConfigError, match=r"^horizon=.*: would stretch the last 1 units of a phase"
    ):
        fall.extend(2**50 - 1, 2**51, keep="value")


def test_extend_holds_a_phase_that_is_cut_down_to_nothing():
    empty = over(RISE, Phase("linear", 10, end=0.5, start=1.0, since=10))
    assert [0.5, 0.5, 40] == [*at_all(empty.extend(10, 40), [10, 40]), empty.extend(10, 40).horizon]


def test_extend_refuses_to_keep_anything_but_the_value():
    with pytest.raises(ConfigError, match=r"^keep='slope': must be one of 'value'"):
        wsd().extend(60, 200, keep="slope")


def test_scale_multiplies_from_its_position_on():
    schedule = rise_and_fall().scale(60, 0.5)
    assert [0.5, 1.0, 0.275, 0.05, 0.05] == at_all(schedule, [5, 10, 60, 110, 200])


def test_scale_at_a_join_leaves_the_phase_before():
    assert [0.9, 2.0, 2.0] == at_all(wsd().scale(10, 2.0), [9, 10, 59])


def test_scale_past_the_horizon_multiplies_what_stays():
    schedule = rise_and_fall().scale(150, 3.0)
    assert [0.1, 0.1] == at_all(schedule, [110, 149])
    assert [0.3, 0.3] == pytest.approx(at_all(schedule, [150, 500]))


def test_scale_at_the_horizon_and_past_it_adds_a_jump_of_no_length():
    phases = RISE, HOLD, Phase("linear", 40, end=0.5)
    held, jump = Phase("constant", 50, end=0.5), Phase("constant", 0, end=1.5, start=1.5)
    assert over(*phases, jump) == over(*phases).scale(100, 3.0)
    assert over(*phases, held, jump) == over(*phases).scale(150, 3.0)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf, "2", True, None], ids=repr)
def test_scale_refuses_what_is_no_factor(factor):
    with pytest.raises(ConfigError, match=r"^factor=.*must be"):
        wsd().scale(10, factor)


def test_a_part_of_a_schedule_begins_and_ends_in_the_middle_of_its_phases():
    part = wsd().cut(5, 70)
    assert [0.5, 1.0, 1.0, 0.5, 0.5] == at_all(part, [0, 5, 54, 65, 100])
    assert 65 == part.horizon


def test_a_part_without_an_end_keeps_what_stays_after_it():
    jump = over(RISE, Phase("step", 10, end=0.5), Phase("linear", 0, end=0.25))
    assert [0.5, 1.0, 0.25] == at_all(jump.cut(5), [0, 5, 15])


def test_a_part_of_no_positions_is_the_whole():
    assert wsd() == wsd().cut() == wsd().cut(0, 100)
    cut = over(HOLD.replace(start=1.0)).cooldown(20, 10)
    assert cut == cut.cut()
    assert Schedule(cut.phases[:1]) == cut.cut(until=20)


def test_a_part_between_joins_has_the_phases_between_them_as_they_are():
    assert over(RISE, HOLD) == wsd().cut(until=60)
    assert Schedule([HOLD.replace(start=1.0), wsd().phases[2]]) == wsd().cut(10)
    assert [0.5, 0.0] == at_all(wsd().cut(70), [0, 30])


def test_a_part_leaves_out_phases_of_no_length_but_at_the_end():
    jump = Phase("step", 0, end=0.5, start=1.0)
    schedule = over(RISE, jump, Phase("linear", 10, end=0.0), Phase("linear", 0, end=0.25))
    assert [10, 10, 0] == [phase.steps for phase in schedule.cut(5).phases]
    assert [0.5, 0.5, 0.25] == at_all(schedule.cut(5), [0, 5, 15])
    assert [10, 10] == [phase.steps for phase in schedule.cut(5, 20).phases]


@pytest.mark.parametrize(
    "since, until, message",
    [
        (-1, None, "since=-1"),
        (100, None, "since=100: must be before the horizon 100"),
        (5, 5, "until=5: must be after since=5"),
        (5, 101, "until=101: .*at most the horizon 100"),
        ("5", None, "since='5'"),
        (None, math.nan, "until=nan"),
    ],
)
def test_a_part_that_does_not_lie_in_the_schedule_is_refused(since, until, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        wsd().cut(since, until)


def test_a_schedule_among_phases_stands_for_its_phases():
    assert over(RISE, FALL, HOLD.replace(end=0.1)) == over(
        rise_and_fall(), Phase("constant", 50, 0.1)
    )


def test_a_rounded_schedule_among_phases_is_refused():
    with pytest.raises(ConfigError, match=r"^phases\[0\]=.*must not be rounded"):
        over(Schedule([HOLD.replace(start=1.0)], multiple_of=1))


# Whole multiples.


def ramp(multiple_of=64):
    return Schedule([Phase("linear", 100, end=256.0, start=64.0)], multiple_of=multiple_of)


def test_values_are_rounded_down_to_whole_multiples_and_are_ints():
    found = at_all(ramp(), [0, 33, 34, 99, 100, 500])
    assert ([64, 64, 128, 192, 256, 256], {int}) == (found, set(map(type, found)))


def test_a_value_that_is_a_multiple_but_for_rounding_is_that_multiple():
    assert 3 == Schedule([Phase("linear", 10, end=10.0, start=0.0)], multiple_of=1)(3 + 1e-12)


@pytest.mark.parametrize(
    "steps, start, end, multiple_of",
    [(124_166_126_653, 512, 14_400, 64), (4_515_664_383_126, 17, 26_934, 1), (997, 1, 10**7, 1)],
)
def test_a_line_is_rounded_as_whole_numbers_are_divided(steps, start, end, multiple_of):
    schedule = Schedule([Phase("linear", steps, end=end, start=start)], multiple_of)
    first = -(-start // multiple_of)
    crossings = [
        -(-(multiple_of * index - start) * steps // (end - start))
        for index in range(first, end // multiple_of, max(1, end // multiple_of // 100))
    ]
    positions = [at + by for at in crossings for by in (-1, 0, 1) if 0 <= at + by < steps]
    expected = [
        (start * steps + (end - start) * at) // (steps * multiple_of) * multiple_of
        for at in positions
    ]
    assert expected == at_all(schedule, positions)


def test_a_value_far_below_the_highest_is_the_multiple_that_it_misses_by_rounding():
    schedule = Schedule([Phase("linear", 1000.5, end=0.0, start=1000.5 * 7.3e6)], multiple_of=1)
    assert [10_950_000, 3_650_000] == at_all(schedule, [999, 1000])


@pytest.mark.parametrize(
    "phase, position, expected",
    [
        (Phase("minus_sqrt", 100, end=2.0, start=10.0), 25, 6),
        (Phase("linear", 20, end=11.5, start=1.5), 1, 2),
    ],
    ids=["no line", "fractions"],
)
def test_only_a_line_between_whole_numbers_is_divided_as_they_are(phase, position, expected):
    assert expected == Schedule([phase], multiple_of=1)(position)


def test_a_number_of_trillions_is_not_rounded_up():
    schedule = Schedule([Phase("linear", 4, end=4e12 + 3, start=4e12)], multiple_of=1)
    assert [4 * 10**12, 4 * 10**12] == at_all(schedule, [0, 1])


@pytest.mark.parametrize("multiple_of", [0, -1, 1.5, "64", True, math.nan], ids=repr)
def test_what_is_no_whole_multiple_is_refused(multiple_of):
    with pytest.raises(ConfigError, match=r"^multiple_of="):
        ramp(multiple_of)


def test_a_multiple_above_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"^multiple_of=1: would round 0\.5 down to 0"):
        Schedule([Phase("linear", 10, end=4.0, start=0.5)], multiple_of=1)
    with pytest.raises(ConfigError, match=r"^multiple_of=65: would round 64\.0 down to 0"):
        ramp(65)


def test_a_last_phase_of_no_length_that_jumps_is_held_where_an_extension_keeps_the_value():
    jump = Schedule([Phase("linear", 10, 1.0, 0.0), Phase("linear", 0, end=0.5, start=0.7)])
    assert [0.5, 0.5] == at_all(jump.extend(10, 20, keep="value"), [10, 15])


def test_late_changes_of_a_rounded_schedule_are_rounded():
    changed = [ramp().scale(50, 2.0), ramp().extend(50, 200, keep="value"), ramp().cut(50)]
    assert [320, 128, 128] == [changed[0](50), changed[1](50), changed[2](0)]
    assert [64] * 3 == [one.multiple_of for one in changed]


# Versions of the state's format.


@pytest.mark.parametrize(
    "schedule, version",
    [
        (wsd(), 1),
        (over(RISE.replace(until=5), FALL), 1),
        (over(RISE, FALL.replace(start=1.0, since=5)), 2),
        (Schedule([RISE.replace(start=1.0)], multiple_of=1), 2),
        (product(rise_and_fall(), rise_and_fall()), 2),
        (product(wsd(), 0.5), 1),
        (repeat(wsd(), 3, factors=0.5), 1),
        (rise_and_fall().extend(50, 200), 1),
        (rise_and_fall().extend(50, 200, keep="value"), 2),
        (wsd().scale(10, 0.5), 1),
    ],
    ids=str,
)
def test_a_schedule_is_of_the_lowest_version_that_has_its_parts(schedule, version):
    assert version == schedule.version


def test_a_cooldown_of_whole_multiples_needs_an_end():
    ramp = Schedule([Phase("linear", 10, end=64.0, start=8.0)], multiple_of=8)
    with pytest.raises(
        ConfigError, match=r"^end=None: pass end= for a schedule of whole multiples"
    ):
        ramp.cooldown(5, 4)
    assert 16 == ramp.cooldown(5, 4, end=16)(9)


PHASES_OF_MANY = {
    "linear": Phase("linear", 700, end=1.0, start=0.1),
    "cosine": Phase("cosine", 700, end=0.1, start=1.0),
    "a cosine of a power": Phase("cosine", 700, end=0.1, start=1.0, exponent=1.7),
    "a squared cosine": Phase("cosine", 700, end=0.1, start=1.0, exponent=2.0),
    "minus_sqrt": Phase("minus_sqrt", 700.5, end=0.0, start=0.3),
    "constant": Phase("constant", 700, end=0.3, start=0.3),
    "a part": Phase("cosine", 900, end=0.1, start=1.0, since=133.25, until=801),
    "polynomial": Phase("polynomial", 700, end=0.0, start=1.0, power=3.0),
}


@pytest.mark.parametrize("phase", PHASES_OF_MANY.values(), ids=PHASES_OF_MANY)
def test_values_of_many_positions_have_the_bits_of_calls(phase):
    schedule = Schedule([Phase("linear", 37.5, end=0.7, start=0.0), phase, Phase("step", 3, end=0)])
    positions = list(range(1000))
    shuffled = [*positions[1::3], *positions[::2], 1000.25, 37.5, 0.1]
    for many in (positions, shuffled, positions[37:739], positions[900:]):
        assert [schedule(one) for one in many] == schedule.values(many).tolist()
    assert [schedule(one) for one in positions] == schedule.values(range(1000)).tolist()


@pytest.mark.parametrize("start, end", [(0.1, 0.7), (0.11, 0.04), (0.01, 0.03)])
def test_values_near_the_beginning_of_a_phase_have_the_bits_of_calls(start, end):
    schedule = over(Phase("linear", 700, end=end, start=start))
    positions = [index * 1e-15 for index in range(64)]
    assert at_all(schedule, positions) == schedule.values(positions).tolist()


def test_values_between_the_end_of_a_phase_and_a_join_have_the_bits_of_calls():
    steps = {"shape": "linear", "steps": 0.999999998, "end": 1.0, "start": 0.5}
    short = {"shape": "cosine", "steps": 1.1e-9, "end": 0.0}
    schedule = Schedule.from_dict({"phases": [steps, short]})
    positions = np.linspace(0.999999998, 1, 64)
    assert 1 == schedule.horizon
    assert at_all(schedule, positions.tolist()) == schedule.values(positions).tolist()


@pytest.mark.parametrize("bad", [-1, math.nan])
def test_one_bad_position_of_many_is_refused(bad):
    with pytest.raises(ConfigError, match="position"):
        Schedule([Phase("linear", 100, end=0.7, start=0.0)]).values([*range(100), bad])


@pytest.mark.parametrize("end", [None, 0.5])
def test_a_cooldown_from_an_illegal_position_names_it(end):
    with pytest.raises(ConfigError, match=r"^position=-1: "):
        Schedule([Phase("constant", 10, end=1.0, start=1.0)]).cooldown(-1, 5, end=end)
