"""Lint: what is found in valid schedules, where, and what is passed over."""

from __future__ import annotations

import math

import pytest

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._curves.lint import LEVELS, Finding, in_order, other_end, unfilled_horizon
from dist_sched.schedules import linear, repeat

RISE = Phase("linear", 10, end=1.0, start=0.0)
HOLD = Phase("constant", 50, end=1.0)
FALL = Phase("cosine", 100, end=0.1)


def over(*phases):
    return Schedule(phases)


def warm(end=0.1):
    return over(RISE.replace(start=0.1), HOLD, Phase("cosine", 40, end=end))


def test_a_clean_schedule_has_no_findings():
    assert () == warm().lint() == warm().lint(updates=100) == warm().lint(updates=50, increment=2)


@pytest.mark.parametrize(
    "schedule, asked, position, message, code",
    [
        (
            over(RISE.replace(start=0.1), Phase("linear", 10, end=0.0, start=0.5)),
            {},
            10,
            "jumps from 1 to 0.5 at a join",
            "jump",
        ),
        (over(RISE, HOLD), {}, 0, "the first update has lr 0 and changes nothing", "first-lr-zero"),
        (
            warm(end=2.0),
            {},
            60,
            (
                "phase 2 (cosine), the last phase that changes the value, rises from 1 to 2: is "
                "the floor above the peak?"
            ),
            "floor-above-peak",
        ),
        (
            over(RISE.replace(start=0.1), Phase("linear", 0, end=1.0), FALL),
            {},
            10,
            "phase 1 (linear) has length 0",
            "empty-phase",
        ),
        (
            over(RISE.replace(start=0.1), FALL.replace(until=0), Phase("linear", 9, end=0.0)),
            {},
            10,
            "phase 1 (cosine) has length 0",
            "empty-phase",
        ),
        (
            over(
                Phase.from_dict({"shape": "linear", "steps": 0.03, "end": 1.0, "start": 0.1}), FALL
            ),
            {},
            0,
            (
                "phase 0 (linear) has length 0.03, less than one unit; for 3 % of the horizon, "
                "write 0.03 or '3%' in a config file (a number in quotes without % counts units)"
            ),
            "phase-below-unit",
        ),
        (
            over(RISE.replace(start=0.1), FALL),
            {"increment": 10.5},
            0,
            (
                "phase 0 (linear) has length 10, less than one update of 10.5 "
                "units: was the length written in updates?"
            ),
            "phase-below-update",
        ),
        (
            over(Phase("cosine", 3_999_999, end=0.1, start=1.0)),
            {"increment": 400_000},
            3_999_999,
            (
                "the horizon 3999999 is shorter than 10 updates (4000000 units): was it "
                "written in updates or another unit?"
            ),
            "short-horizon",
        ),
        (
            warm().extend(0, 98_765_432),
            {"updates": 12_345_678, "increment": 2},
            24_691_356,
            (
                "the run ends after 12345678 updates, 74074076 units before the horizon 98765432: "
                "its last value is 1, not 0.1"
            ),
            "horizon-after-end",
        ),
        (
            warm(),
            {"updates": 60, "increment": 2},
            100,
            (
                "the horizon is 10 updates before the end of the run (60 updates, position 120); "
                "from there the value stays at 0.1"
            ),
            "horizon-before-end",
        ),
        (
            warm(),
            {"updates": 40, "increment": 2},
            80,
            (
                "the run ends after 40 updates, 20 units before the horizon 100: its last value "
                "is 0.55, not 0.1"
            ),
            "horizon-after-end",
        ),
    ],
    ids=[
        "jump",
        "zero",
        "floor",
        "empty",
        "cut",
        "unit",
        "update",
        "horizon",
        "digits",
        "before",
        "after",
    ],
)
def test_a_finding_names_the_position_and_the_values(schedule, asked, position, message, code):
    assert (Finding(position, message, code),) == schedule.lint(**asked)


def test_findings_come_in_the_order_of_their_positions():
    schedule = over(RISE, Phase("linear", 0, end=2.0), FALL.replace(end=0.5, start=3.0))
    assert [0, 10, 10] == [finding.position for finding in schedule.lint()]
    assert [0, 10, 10, 100] == [one.position for one in schedule.lint(updates=100)]


def test_findings_without_a_position_come_first():
    found = [Finding(3, "", "jump"), Finding(None, "", "jump"), Finding(0, "", "jump")]
    assert [None, 0, 3] == [one.position for one in in_order(found)]


def test_a_finding_reads_as_a_sentence_with_its_code():
    jump = "jumps from 1 to 0.5 at a join"
    assert f"position 10: {jump} [jump]" == str(Finding(10, jump, "jump"))
    assert f"position 1500000001: {jump} [jump]" == str(Finding(1_500_000_001, jump, "jump"))
    assert f"{jump} [jump]" == str(Finding(None, jump, "jump"))


def test_a_first_lr_of_0_and_a_field_that_ends_early_are_notes_and_the_rest_warnings():
    notes = {"first-lr-zero", "field-ends-elsewhere", "peak-of-no-group"}
    assert notes == {code for code in LEVELS if Finding(0, "", code).level == "note"}
    assert "warning" == Finding(0, "", "jump").level


def test_a_phase_of_one_update_is_not_too_short():
    assert () == warm().lint(increment=10)


def test_a_phase_of_one_unit_is_shorter_than_an_update_of_two():
    schedule = over(Phase("linear", 1, end=1.0, start=0.1), FALL)
    assert ["phase-below-update"] == [one.code for one in schedule.lint(increment=2)]


@pytest.mark.parametrize("until", [1, 3])
def test_a_phase_that_a_late_change_cut_after_less_than_an_update_is_no_finding(until):
    schedule = over(RISE.replace(start=0.1), HOLD.replace(until=until), FALL)
    assert () == schedule.lint(increment=10)


@pytest.mark.parametrize("field", ["lr", "momentum"])
def test_a_phase_shorter_than_an_update_is_found_of_every_field(field):
    assert ["phase-below-update"] == [one.code for one in warm().lint(field, increment=10.1)][:1]


def test_a_horizon_of_ten_updates_is_not_too_short():
    schedule = over(Phase("cosine", 100, end=0.1, start=1.0))
    assert () == schedule.lint(increment=10)
    assert ["short-horizon"] == [one.code for one in schedule.lint(increment=10.1)]


def test_a_short_horizon_is_found_where_lr_comes_down_alone():
    assert () == over(Phase("cosine", 9, end=0.1, start=1.0)).lint("momentum")
    assert () == over(RISE.replace(steps=4, start=0.1), HOLD.replace(steps=4)).lint()


@pytest.mark.parametrize("field", ["weight_decay", "momentum"])
def test_a_first_0_and_a_floor_above_the_peak_are_found_of_lr_alone(field):
    assert () == over(RISE, HOLD.replace(steps=5), Phase("cosine", 10, end=2.0)).lint(field)


def test_a_jump_and_the_horizon_are_found_of_every_field():
    schedule = over(RISE, FALL.replace(start=0.5))
    assert [10, 100] == [one.position for one in schedule.lint("weight_decay", updates=100)]


def test_a_step_phase_is_no_jump_and_a_lone_warmup_no_floor_above_the_peak():
    assert () == over(Phase("step", 10, end=1.0, start=2.0), HOLD).lint()
    assert () == over(RISE.replace(start=0.1), HOLD).lint()


def test_a_lone_warmup_from_0_is_no_floor_above_the_peak():
    assert ["first-lr-zero"] == [one.code for one in over(RISE).lint()]


def test_a_rounded_schedule_that_stays_level_is_compared_with_no_run():
    level = Schedule([Phase("linear", 100, end=10.1, start=10.9)], multiple_of=1)
    assert () == level.lint(updates=200)


def test_a_lone_rise_that_is_no_line_is_a_floor_above_the_peak():
    assert [0] == [one.position for one in over(Phase("cosine", 9, 1.0, start=0.1)).lint()]


def test_a_lone_line_that_rises_from_above_0_is_a_floor_above_the_peak():
    assert [0] == [one.position for one in over(RISE.replace(start=0.1)).lint()]
    assert () == over(RISE).lint("weight_decay")


def test_a_phase_of_one_unit_is_not_too_short():
    assert () == over(Phase("linear", 1, end=1.0, start=0.1), FALL).lint()


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"updates": -1}, "updates=-1: must be"),
        ({"updates": 1.5}, r"updates=1.5: must be a whole number"),
        ({"updates": "5"}, "updates='5': must be"),
        ({"updates": 5, "increment": 0}, "increment=0: must be greater than 0"),
        ({"increment": 0}, "increment=0: must be greater than 0"),
        ({"updates": 5, "increment": -1}, "increment=-1: must be"),
        ({"updates": 5, "increment": math.nan}, "increment=nan: must be"),
    ],
    ids=str,
)
def test_a_lint_refuses_an_illegal_run(asked, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        warm().lint(**asked)


@pytest.mark.parametrize("field", ["lr", "momentum"])
def test_a_schedule_that_only_rises_may_stay_at_its_last_value(field):
    assert () == over(RISE.replace(start=0.1), HOLD).lint(field, updates=100)


def test_a_run_that_ends_before_the_horizon_at_the_last_value_is_no_finding():
    assert () == over(RISE.replace(start=0.1), HOLD).lint(updates=30)


def test_a_constant_schedule_is_compared_with_no_run():
    assert () == over(Phase("constant", 0, 1.0, 1.0)).lint(updates=30)


@pytest.mark.parametrize(
    "written, position, message",
    [
        (120, 100, "the phases end at 100, 20 units before the horizon 120 of the config"),
        (90, 90, "the phases end at 100, 10 units after the horizon 90 of the config"),
    ],
)
def test_phases_that_end_elsewhere_than_the_written_horizon_are_found(written, position, message):
    assert [Finding(position, message, "horizon-mismatch")] == [*unfilled_horizon(warm(), written)]
    assert [] == [*unfilled_horizon(warm(), 100 + 1e-14)]


LATER = "ends at 100, after lr's horizon 80: its value there is 0.55, not 0.1"


@pytest.mark.parametrize(
    "lr_horizon, expected",
    [
        (80, [Finding(80, LATER, "field-outlasts-lr")]),
        (100, []),
        (
            120,
            [
                Finding(
                    100,
                    "ends at 100, and lr ends at 120; its last value is 0.1",
                    "field-ends-elsewhere",
                )
            ],
        ),
    ],
)
def test_a_field_that_ends_after_lr_outlasts_it_and_another_ends_elsewhere(lr_horizon, expected):
    assert expected == [*other_end(warm(), 100, lr_horizon)]


def test_a_field_that_ends_after_lr_at_the_value_that_it_has_there_ends_elsewhere():
    held = "ends at 60, and lr ends at 30; its last value is 1"
    schedule = over(RISE.replace(start=0.1), HOLD)
    assert [Finding(30, held, "field-ends-elsewhere")] == [*other_end(schedule, 60, 30)]


@pytest.mark.parametrize("count", [3, 4])
def test_three_equal_jumps_are_listed_one_by_one(count):
    cycles = repeat(linear(1.0, 100), count + 1)
    found = [one.position for one in cycles.lint() if one.code == "jump"]
    assert {3: [100, 200, 300], 4: [100]}[count] == found


def test_many_equal_jumps_are_one_finding():
    cycles = repeat(linear(1.0, 100), 66)
    found = [one for one in cycles.lint() if one.code == "jump"]
    message = "jumps from 0 to 1 at a join, and at 64 more up to 6500"
    assert [Finding(100, message, "jump")] == found
