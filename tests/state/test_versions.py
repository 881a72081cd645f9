"""A state is of version 2 exactly where something is used that version 1 has not."""

from __future__ import annotations

import pytest

from dist_sched import ParamScheduler, Phase, Schedule, schedules
from helpers import sgd, text_of

FALL = schedules.cosine(1.0, 100, warmup=10)
FLAT = schedules.constant(1.0, 100)


def saved(lr=FALL, change=None, **arguments):
    """Return the version in the state of a new run, after a late change at 50."""
    optimizer = sgd({"name": "body"}, weight_decay=0.1)
    fields = {"lr": lr, "weight_decay": arguments.pop("weight_decay", 0.1)}
    scheduler = ParamScheduler(optimizer, fields, reference=1.0, **arguments)
    if change is not None:
        scheduler.seek(50)
        name, given = change
        getattr(scheduler, name)(**given)
    state = scheduler.state_dict()
    again = ParamScheduler(
        sgd({"name": "body"}, weight_decay=0.1), {"lr": 1.0, "weight_decay": 0.1}
    )
    again.load_state_dict(state)
    assert state == again.state_dict()
    return text_of(state)["version"]


@pytest.mark.parametrize(
    "lr",
    [
        FALL,
        schedules.wsd(1.0, 100, decay=10),
        schedules.cyclic(1.0, 50, up=20),
        schedules.repeat(FALL, 3),
        schedules.product(FALL, 0.5),
        schedules.piecewise([(0, 0.5), (50, 1.0)]),
        FALL.cut(until=50),
    ],
    ids=str,
)
def test_what_version_1_can_express_is_of_version_1(lr):
    assert 1 == saved(lr)


@pytest.mark.parametrize(
    "lr",
    [
        *(
            Schedule([Phase(shape, 100, end=0.1, start=0.9, **given)])
            for shape, given in {
                "minus_power": {"power": 2},
                "exponential_to_zero": {"ratio": 0.5},
                "rex": {},
                "log": {},
                "sine": {},
                "half_life": {},
            }.items()
        ),
        schedules.linear(1.0, 100, 10, warmup_shape="sine"),
        FALL.cut(since=50),
        schedules.whole(schedules.linear(100.0, 50, floor=8.0), multiple_of=4),
        schedules.product(FALL, schedules.linear(1.0, 50)),
        schedules.raised_to(FALL, 0.5),
    ],
    ids=str,
)
def test_a_schedule_that_version_1_cannot_express_is_of_version_2(lr):
    assert 2 == saved(lr)


@pytest.mark.parametrize("power, version", [(1, 1), (0.5, 2)])
def test_a_power_is_of_version_2(power, version):
    follower = schedules.proportional_to("lr", at_max=0.1, power=power)
    assert version == saved(weight_decay=follower)


@pytest.mark.parametrize("extras, version", [(None, 1), ({}, 1), ({"batch_size": 8}, 2)])
def test_extras_are_of_version_2(extras, version):
    assert version == saved(extras=extras)


def test_an_override_counts():
    own = {"body": {"lr": Schedule([Phase("sine", 10, end=1.0, start=0.0)])}}
    assert 2 == saved(groups=own)


@pytest.mark.parametrize(
    "change, version",
    [
        (("cooldown", {"steps": 10}), 1),
        (("cooldown", {"steps": 10, "shape": "rex"}), 2),
        (("rewarm", {"steps": 10}), 1),
        (("extend", {"horizon": 200}), 1),
        (("extend", {"horizon": 200, "keep": "value"}), 2),
        (("scale", {"factor": 0.5}), 2),
    ],
    ids=str,
)
def test_a_late_change_is_of_the_version_that_has_it(change, version):
    assert version == saved(FLAT, change)
