"""The agreement: one frozen value, whose config and plan are made once in a load."""

from __future__ import annotations

import json
import pickle

import pytest

from dist_sched import OptimizerParamScheduler, ParamScheduler, ReconcileError
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.specification import Specification
from helpers import CONFIG, HILL, UP, adamw, opt_param_scheduler, sgd, text_of

GROUPS = ({}, {"weight_decay": 0.0})


@pytest.fixture
def count(monkeypatch):
    """Count what is built and parsed from now on."""
    found = {"plans": 0, "configs": 0, "parses": 0}

    def counted(owner, name, what):
        original = getattr(owner, name)

        def call(*arguments, **keywords):
            found[what] += 1
            return original(*arguments, **keywords)

        monkeypatch.setattr(owner, name, call)

    for kind in (OptimizerParamConfig, Specification):
        counted(kind, "_build_plan", "plans")
        counted(kind, "__post_init__", "configs")
    counted(json, "loads", "parses")
    return found


def test_a_load_that_changes_entries_makes_two_plans_of_two_configs_from_one_parse(count):
    saved = opt_param_scheduler(adamw(*GROUPS)).state_dict()
    scheduler = OptimizerParamScheduler(adamw(*GROUPS), **{**CONFIG, "lr_decay_steps": 200})
    count.update(plans=0, configs=0, parses=0)
    scheduler.load_state_dict(saved)
    assert {"plans": 2, "configs": 2, "parses": 1} == count


def test_a_load_of_an_equal_config_makes_the_saved_one_alone(count):
    saved = ParamScheduler(sgd(*GROUPS), {"lr": HILL, "weight_decay": 0.5}).state_dict()
    scheduler = ParamScheduler(sgd(*GROUPS), {"lr": HILL, "weight_decay": 0.5})
    count.update(plans=0, configs=0, parses=0)
    scheduler.load_state_dict(saved)
    assert {"plans": 1, "configs": 1, "parses": 1} == count


def test_a_refused_load_leaves_the_very_agreement():
    saved = ParamScheduler(sgd(), {"lr": UP}).state_dict()
    scheduler = ParamScheduler(sgd(), {"lr": HILL}, policy="strict")
    before, writer = scheduler._agreed, scheduler._writer
    with pytest.raises(ReconcileError):
        scheduler.load_state_dict(saved)
    assert (before, writer) == (scheduler._agreed, scheduler._writer)
    assert before is scheduler._agreed


def test_steps_move_the_position_beside_the_agreement():
    scheduler = opt_param_scheduler(adamw())
    before = scheduler._agreed
    scheduler.step(60)
    assert (60, 60) == (scheduler.num_steps, text_of(scheduler.state_dict())["position"])
    assert before is scheduler._agreed


def test_an_agreement_travels_without_what_it_has_cached():
    agreed = ParamScheduler(sgd(), {"lr": HILL})._agreed
    values = agreed.plan.values(4)
    sent = pickle.loads(pickle.dumps(agreed))  # noqa: S301 - our own bytes
    assert {"effective"} == agreed.__dict__.keys() - sent.__dict__.keys()
    assert values == sent.plan.values(4)


def test_a_copy_keeps_the_config_after_late_changes_unless_it_has_others():
    scheduler = ParamScheduler(sgd(), {"lr": HILL})
    scheduler.scale(0.5)
    agreed = scheduler._agreed
    assert agreed.effective is agreed.replace(position=3).effective
    assert agreed.config == agreed.replace(history=()).effective != agreed.effective
    other = ParamScheduler(sgd(), {"lr": UP})._agreed.config
    assert other == agreed.replace(config=other, history=()).effective
    assert agreed.effective is agreed.replace(history=(), effective=agreed.effective).effective


@pytest.mark.parametrize("own", [None, 0.0])
def test_a_reference_that_a_rank_lacks_is_that_of_the_first_that_has_one(own):
    scheduler = ParamScheduler(sgd(), {"lr": HILL})
    mine, second, third = (
        scheduler._agreed.replace(references=references)
        for references in ({"lr": own}, {"lr": 2.0}, {"lr": 3.0, "momentum": None})
    )
    united = mine.unite([mine, second, third], scheduler._writer.inventory())
    assert {"lr": 2.0, "momentum": None} == united.references


def test_ranks_compare_all_that_they_must_have_in_common():
    scheduler = ParamScheduler(sgd(), {"lr": 0.5}, unit="tokens", policy="strict")
    scheduler.seek(3)
    current = scheduler._current()
    described = current.describe(current.config)
    expected = {"position": 3, "unit": "tokens", "keep_group_ratios": True, "history": []}
    assert expected == {name: described[name] for name in expected}
    assert current.config.KIND == described["scheduler"]
    assert dict(current.policy.words) == described["policy"]
