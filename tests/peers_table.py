"""What the tests behind README's table of faults share."""

from __future__ import annotations

import copy

import torch

from dist_sched import ParamScheduler, schedules
from helpers import adamw, held

WARMUP, HORIZON, EDITED, SAVED_AT = 10, 100, 200, 60


def cell(row, column, text):  # noqa: ARG001
    """Mark a test as the one that holds a cell of README's table, which a test compares."""
    return lambda test: test


def ours(optimizer, horizon=HORIZON):
    """Return our cosine with warmup to a peak of 1."""
    return ParamScheduler(optimizer, {"lr": schedules.cosine(1.0, horizon, warmup=WARMUP)})


def update(scheduler, optimizer=None):
    """Make an update, and return the lr that it used."""
    optimizer = optimizer or scheduler.optimizer
    (used,) = held(optimizer)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler.step()
    return used


def resumed(build, *, edited=EDITED, loads=1, scheduler_is_loaded=True):
    """Return the scheduler of another job, which goes on at update 60 with another horizon."""
    first = build(adamw(), HORIZON)
    for _ in range(SAVED_AT):
        update(first)
    optimizer_state = copy.deepcopy(first.optimizer.state_dict())
    state = copy.deepcopy(first.state_dict())
    second = build(adamw(), edited)
    second.optimizer.load_state_dict(optimizer_state)
    for _ in range(loads if scheduler_is_loaded else 0):
        second.load_state_dict(state)
    return second
