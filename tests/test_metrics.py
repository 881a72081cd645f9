"""What is logged: the values of the update just made (FIELD.md 21)."""

from __future__ import annotations

import pytest
import torch

from dist_sched import OptimizerParamScheduler, ParamScheduler, schedules
from helpers import CONFIG, sgd

FALL = schedules.linear(1.0, 10)


def falling(*groups, **arguments):
    return ParamScheduler(sgd(*(groups or ({"name": "body"},))), {"lr": FALL}, **arguments)


def test_after_a_step_they_are_of_the_update_just_made():
    scheduler = falling()
    scheduler.step()
    assert [0.9] == scheduler.get_last_lr()
    assert {"lr/body": 1.0} == scheduler.metrics()


def test_before_a_step_they_are_what_the_groups_hold():
    assert {"lr/body": 1.0} == falling().metrics()


@pytest.mark.parametrize(
    "jump", [lambda one: one.seek(4), lambda one: setattr(one, "num_steps", 4)]
)
def test_after_a_seek_they_are_what_the_groups_hold(jump):
    scheduler = falling()
    scheduler.step()
    jump(scheduler)
    assert {"lr/body": 0.6} == scheduler.metrics()


def test_after_a_late_change_and_a_seek_they_are_what_the_groups_hold():
    scheduler = falling()
    scheduler.step()
    scheduler.scale(0.5)
    scheduler.seek(4)
    assert {"lr/body": 0.3} == scheduler.metrics()


def test_after_a_load_they_are_what_the_groups_hold():
    scheduler = falling()
    scheduler.seek(4)
    state = scheduler.state_dict()
    scheduler.step()
    scheduler.load_state_dict(state)
    assert {"lr/body": 0.6} == scheduler.metrics()


def test_an_update_of_many_tokens_counts_as_one():
    scheduler = falling(unit="tokens")
    scheduler.step(4)
    scheduler.step(3)
    assert {"lr/body": 0.6} == scheduler.metrics()


def test_a_late_change_leaves_those_of_the_update_before_it():
    scheduler = falling()
    scheduler.step(2)
    scheduler.scale(0.5)
    assert {"lr/body": 1.0} == scheduler.metrics()
    scheduler.step()
    assert {"lr/body": 0.4} == scheduler.metrics()


def test_a_late_change_before_a_step_shows_what_the_groups_hold():
    scheduler = falling()
    scheduler.scale(0.5)
    assert {"lr/body": 0.5} == scheduler.metrics()


def test_groups_without_a_name_have_their_index():
    scheduler = falling({}, {"lr": 0.5})
    assert {"lr/0": 1.0, "lr/1": 0.5} == {**scheduler.metrics()}


def test_equal_names_have_the_optimizer_and_the_index():
    optimizers = [sgd({"name": "a"}, {"name": "b"}), sgd({"name": "a"})]
    found = ParamScheduler(optimizers, {"lr": FALL}).metrics()
    assert ["lr/a.0.0", "lr/b", "lr/a.1.0"] == list(found)


def test_groups_without_a_name_of_several_optimizers_have_both_indices():
    found = ParamScheduler([sgd({}), sgd({})], {"lr": FALL}).metrics()
    assert ["lr/0.0", "lr/1.0"] == list(found)


def test_extras_stand_under_their_own_names():
    scheduler = falling(
        extras={"batch_size": schedules.whole(schedules.piecewise([(0, 8), (4, 16)]))}
    )
    scheduler.step(3)
    assert {"lr/body": 1.0, "batch_size": 8} == scheduler.metrics()


def test_both_fields_of_an_optimizer_param_scheduler_are_there():
    scheduler = OptimizerParamScheduler(sgd({"name": "body"}, weight_decay=0.1), **CONFIG)
    assert ["lr/body", "weight_decay/body"] == list(scheduler.metrics())


def test_they_are_plain_numbers_where_groups_hold_tensors():
    scheduler = falling({"name": "body", "lr": torch.tensor(1.0)})
    scheduler.step()
    assert [float] == [type(one) for one in scheduler.metrics().values()]
