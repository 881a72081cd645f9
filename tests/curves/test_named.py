"""Named schedules: their arguments; tests/test_schedules.py has their values beside peers."""

from __future__ import annotations

import inspect

import pytest

from dist_sched import ConfigError, schedules
from dist_sched._curves.named import NAMED

REQUIRED = {
    "peak": 1.0,
    "horizon": 100,
    "warmup": 10,
    "floor": 0.1,
    "cycles": 2,
    "up": 10,
    "cooldown": 30,
    "decay": 20,
    "constant": 0.5,
    "factor": 0.5,
    "milestones": [10],
    "points": [(0, 1.0), (5, 2.0)],
}
ARGUMENTS = [
    (name, one.name)
    for name, function in NAMED.items()
    for one in inspect.signature(function).parameters.values()
    if one.kind is not one.VAR_KEYWORD
]


def arguments_of(name):
    return {
        key: REQUIRED[key]
        for key, one in inspect.signature(NAMED[name]).parameters.items()
        if one.default is one.empty or (key in {"warmup", "floor"} and one.default is not None)
        if one.kind is not one.VAR_KEYWORD
    }


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_an_illegal_argument_is_named_first(name, argument):
    with pytest.raises(ConfigError, match=f"^{argument}\\b"):
        NAMED[name](**{**arguments_of(name), argument: object()})


@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("infinite", {"cooldown": 91}, "cooldown=91: must be at most horizon - warmup = 90"),
        ("infinite", {"decay": 61}, "decay=61: must be at most horizon - warmup - cooldown = 60"),
        ("infinite", {"constant": 1.5}, "constant=1.5: must be at most peak=1.0"),
        ("power", {"exponent": 0}, "exponent=0: must be less than 0"),
        ("power", {"floor": 2.0}, "floor=2.0: must be at most peak=1.0"),
        ("power", {"hold": 91}, "hold=91: must be at most horizon - warmup = 90"),
        ("power", {"hold": 71}, "decay=20: must be at most horizon - warmup - hold = 19"),
        ("power", {"warmup": 0}, "warmup + hold=0: must be greater than 0"),
        ("cyclic", {"cycle_decay": 1.5}, "cycle_decay=1.5: must be at most 1"),
        ("cyclic", {"horizon": 10**9}, "horizon=1000000000: is too long"),
        ("one_cycle", {"warmup": 51, "three_phase": True}, "warmup=51: must be at most half"),
        ("one_cycle", {"warmup": None, "horizon": 2}, "horizon=2: is too short for the default"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused_by_name(name, changes, expected):
    with pytest.raises(ConfigError) as caught:
        NAMED[name](**{**arguments_of(name), **changes})
    assert expected == str(caught.value)[: len(expected)]


def test_a_cycle_rises_for_the_share_of_torchs_by_default():
    schedule = schedules.one_cycle(1.0, 99)
    assert [0.04, 29] == [schedule(0), *schedule.boundaries[1:]]
    assert 1.0 == schedule(29)


def test_a_power_law_may_end_at_its_floor_before_its_decay():
    schedule = schedules.power(1.0, 200, warmup=10, decay=40, exponent=-0.5, floor=0.5)
    assert [1.0, 0.5, 0.5, 0.5] == [schedule(position) for position in (10, 40, 41, 200)]


def test_cycles_that_lose_height_keep_their_floor():
    schedule = schedules.cyclic(1.0, 60, 0.2, up=10, cycle_decay=0.5)
    assert pytest.approx([0.2, 1.0, 0.2, 0.6, 0.2, 0.4]) == [schedule(n) for n in range(0, 60, 10)]
