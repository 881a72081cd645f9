"""Optimizer and scheduler, each restored or not: what is used, and what is said of it."""

from __future__ import annotations

import copy
import logging

import pytest

from dist_sched import ConfigError, RankMismatchError

GROUPS = [{}, {"lr": 3.0, "weight_decay": 0.0}]


def lrs(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def wds(optimizer):
    return [float(group["weight_decay"]) for group in optimizer.param_groups]


def checkpoint(workshop, position=60, **changes):
    """Give what a run saved at a position: the optimizer's state and the scheduler's."""
    optimizer = workshop.optimizer(*GROUPS)
    scheduler = workshop.scheduler(optimizer, **changes)
    scheduler.seek(position)
    return copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()


def fresh(workshop, **changes):
    optimizer = workshop.optimizer(*GROUPS)
    return optimizer, workshop.scheduler(optimizer, **changes)


RESTORED = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize("has_optimizer, has_scheduler", RESTORED)
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_the_scheduler_alone_decides_in_all_four_combinations(
    workshop, has_optimizer, has_scheduler, scheduler_first
):
    optimizer_state, state = checkpoint(workshop)
    optimizer, scheduler = fresh(workshop)
    loads = [lambda: optimizer.load_state_dict(optimizer_state)] * has_optimizer
    loads += [lambda: scheduler.load_state_dict(state)] * has_scheduler
    for load in reversed(loads) if scheduler_first else loads:
        load()
    position = 60 if has_scheduler else 0
    expected = workshop.scheduler(workshop.optimizer(*GROUPS))
    expected.seek(position)
    assert lrs(expected.optimizer) == lrs(optimizer)
    assert wds(expected.optimizer) == wds(optimizer)
    assert position == scheduler.num_steps


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_an_optimizer_that_carried_what_the_checkpoints_schedule_has_is_not_mentioned(
    workshop, caplog, scheduler_first
):
    caplog.set_level(logging.INFO)
    optimizer_state, state = checkpoint(workshop)
    optimizer, scheduler = fresh(workshop)
    loads = [lambda: optimizer.load_state_dict(optimizer_state)]
    loads.insert(0 if scheduler_first else 1, lambda: scheduler.load_state_dict(state))
    for load in loads:
        load()
    assert ["INFO"] == [record.levelname for record in caplog.records]


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_an_optimizer_that_carried_another_lr_than_the_checkpoints_schedule_is_named(
    workshop, caplog, scheduler_first
):
    optimizer_state, state = checkpoint(workshop)
    optimizer_state["param_groups"][1]["lr"] = workshop.lr(0.75)
    optimizer, scheduler = fresh(workshop)
    loads = [lambda: optimizer.load_state_dict(optimizer_state)]
    loads.insert(0 if scheduler_first else 1, lambda: scheduler.load_state_dict(state))
    for load in loads:
        load()
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "group 1: the optimizer checkpoint carried lr=0.75" in record.message
    assert "1.65" in record.message
    assert "group 0" not in record.message
    assert pytest.approx([0.55, 1.65]) == lrs(optimizer)


def test_what_an_optimizer_carried_is_mentioned_once(workshop, caplog):
    optimizer_state, state = checkpoint(workshop)
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer, scheduler = fresh(workshop)
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    caplog.clear()
    scheduler.load_state_dict(state)
    assert "carried" not in caplog.text


def test_what_was_carried_is_compared_with_the_checkpoints_schedule_not_the_used_one(
    workshop, caplog
):
    optimizer_state, state = checkpoint(workshop, max_lr=0.5)
    optimizer, scheduler = fresh(workshop, policy="config")
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(state)
    assert "carried" not in caplog.text
    assert pytest.approx([0.55, 1.65]) == lrs(optimizer)


def test_policies_by_entry_decide_a_load_entry_by_entry(workshop):
    _, state = checkpoint(workshop, max_lr=0.5, lr_decay_steps=210)
    policy = {"lr_decay_steps": "config", "*": "checkpoint"}
    optimizer, scheduler = fresh(workshop, policy=policy, lr_decay_steps=60)
    scheduler.load_state_dict(state)
    assert (0.5, 60) == (scheduler.max_lr, scheduler.lr_decay_steps)
    assert pytest.approx([0.1, 0.3]) == lrs(optimizer)


def test_the_report_is_kept_after_a_load_and_is_none_before(workshop):
    _, state = checkpoint(workshop, max_lr=0.5)
    _, scheduler = fresh(workshop)
    assert scheduler.last_reconciliation is None
    scheduler.load_state_dict(state)
    assert ["max_lr"] == [row.name for row in scheduler.last_reconciliation.changed]
    assert 60 == scheduler.last_reconciliation.position


def test_the_report_is_one_warning_with_lr_before_and_after(workshop, caplog):
    _, state = checkpoint(workshop, max_lr=0.5)
    _, scheduler = fresh(workshop)
    scheduler.load_state_dict(state)
    (record,) = caplog.records
    lines = record.message.splitlines()
    assert ("dist_sched", "WARNING") == (record.name, record.levelname)
    assert ["lr", "0.55", "0.3", "0.3", "next", "update"] == lines[-2].split()
    assert ["weight_decay", "0.06", "0.06", "0.06", "next", "update"] == lines[-1].split()


def test_without_a_process_group_synchronize_changes_nothing(workshop):
    optimizer, scheduler = fresh(workshop)
    scheduler.seek(60)
    before = scheduler.state_dict(), lrs(optimizer)
    scheduler.synchronize()
    assert before == (scheduler.state_dict(), lrs(optimizer))


def test_verify_reads_every_group_back(workshop):
    optimizer, scheduler = fresh(workshop)
    scheduler.seek(60)
    scheduler.verify()
    optimizer.param_groups[1]["lr"] = 0.75
    with pytest.raises(
        RankMismatchError, match=r"rank 0: group 1: lr holds 0.75 and should hold 1.65"
    ):
        scheduler.verify()
    scheduler.step(0)
    scheduler.verify()


def test_terms_that_cannot_be_written_are_not_adopted_in_part(workshop):
    optimizer, scheduler = fresh(workshop)
    scheduler.seek(10)
    before = scheduler.state_dict(), lrs(optimizer), repr(scheduler._writer.references)
    optimizer.param_groups[1]["end_wd"] = -1.0
    other = workshop.scheduler(workshop.optimizer({"lr": 0.5}), max_lr=0.5)
    other.seek(60)
    with pytest.raises(ConfigError, match=r"group 1: end_wd=-1\.0"):
        scheduler._adopt(other._current())
    assert before == (
        scheduler.state_dict(),
        lrs(optimizer),
        repr(scheduler._writer.references),
    )


def test_references_that_another_rank_lacks_are_kept(workshop):
    optimizer, scheduler = fresh(workshop)
    other = workshop.scheduler(workshop.optimizer({"lr": 0.5, "weight_decay": 0.0}))
    other.seek(50)
    scheduler._adopt(other._current())
    assert [pytest.approx(1.28), pytest.approx(3.84)] == lrs(optimizer)
    assert [0.05, 0.0] == wds(optimizer)


def test_adopted_terms_are_all_taken_up(workshop, caplog):
    optimizer, scheduler = fresh(workshop)
    theirs = {"policy": "config", "unit": "tokens", "keep_group_ratios": False, "max_lr": 0.5}
    other = fresh(workshop, **theirs)[1]
    other.seek(10)
    scheduler._adopt(other._current())
    assert ("tokens", False, True) == (
        scheduler.unit,
        scheduler.keep_group_ratios,
        scheduler.override_opt_param_scheduler,
    )
    assert [0.5, 0.5] == lrs(optimizer)
    for name in ("max_lr 0.5 instead of 1.0", "unit 'tokens'", "policy", "keep_group_ratios"):
        assert name in caplog.text
    scheduler.load_state_dict(fresh(workshop, **theirs)[1].state_dict())
    assert () == scheduler.last_reconciliation.changed


def test_an_optimizer_loaded_when_the_schedule_has_moved_on_is_not_compared(workshop, caplog):
    optimizer_state, state = checkpoint(workshop)
    optimizer, scheduler = fresh(workshop)
    scheduler.load_state_dict(state)
    scheduler.step()
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer.load_state_dict(optimizer_state)
    assert "carried" not in caplog.text


def test_what_was_carried_after_a_load_of_the_scheduler_is_mentioned_once(workshop, caplog):
    optimizer_state, state = checkpoint(workshop)
    optimizer_state["param_groups"][1]["lr"] = 0.75
    optimizer, scheduler = fresh(workshop)
    scheduler.load_state_dict(state)
    optimizer.load_state_dict(optimizer_state)
    caplog.clear()
    scheduler.load_state_dict(state)
    assert "carried" not in caplog.text


def test_a_rollback_to_ones_own_state_past_position_0_is_no_cause_for_doubt(workshop, caplog):
    _, scheduler = fresh(workshop)
    scheduler.seek(60)
    scheduler.load_state_dict(scheduler.state_dict())
    assert [] == [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_verify_finds_a_value_that_is_off_by_a_billionth(floats):
    optimizer, scheduler = fresh(floats)
    scheduler.seek(60)
    optimizer.param_groups[0]["lr"] *= 1 + 1e-9
    with pytest.raises(RankMismatchError, match="group 0: lr holds"):
        scheduler.verify()


def test_verify_names_a_group_whose_bound_is_illegal(workshop):
    optimizer, scheduler = fresh(workshop)
    optimizer.param_groups[1]["max_lr"] = "high"
    with pytest.raises(RankMismatchError, match=r"rank 0: group 1: max_lr='high'"):
        scheduler.verify()
