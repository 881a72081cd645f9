"""What the tests of late changes and of their history share."""

from __future__ import annotations

import pytest

from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule
from helpers import CONFIG, UP, held, sgd

STABLE = Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("constant", 992, end=1.0)])
"""1 from 8 on; the horizon is 1000."""
FALL = Schedule([Phase("linear", 100, end=0.0, start=1.0)])
ENTRIES = {
    **CONFIG,
    "min_lr": 0.0,
    "lr_warmup_steps": 8,
    "lr_decay_steps": 1000,
    "lr_decay_style": "constant",
    "end_wd": 0.5,
}
"""The same lr as STABLE's."""
WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 100, "lr_wsd_decay_style": "linear"}


def phased(position=0, fields=None, *, optimizer=None, **arguments):
    """Return a ParamScheduler whose lr is STABLE, at a position."""
    fields = fields or {"lr": STABLE, "weight_decay": UP}
    optimizer = optimizer or sgd({"name": "body"}, weight_decay=0.5)
    scheduler = ParamScheduler(optimizer, fields, **arguments)
    scheduler.seek(position)
    return scheduler


def megatrons(position=0, **changes):
    """Return an OptimizerParamScheduler of the same lr, at a position."""
    scheduler = OptimizerParamScheduler(sgd(weight_decay=0.5), **{**ENTRIES, **changes})
    scheduler.seek(position)
    return scheduler


BOTH = pytest.mark.parametrize("build", [phased, megatrons])


def at(scheduler, *positions, key="lr"):
    """Return the first group's values at some positions, and go back to where it was."""
    here, found = scheduler.num_steps, []
    for position in positions:
        scheduler.seek(position)
        found.append(held(scheduler, key)[0])
    scheduler.seek(here)
    return found


def cooled(build, position=100, steps=64, **arguments):
    scheduler = build(position)
    scheduler.cooldown(steps, **{"shape": "linear", "end": 0.0, **arguments})
    return scheduler
