"""One rank among others: what it verifies, and what it adopts from another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from dist_sched import ConfigError, RankMismatchError
from dist_sched._optim import process_groups
from dist_sched._optim.base import _LIVE
from helpers import (
    FLOAT_AND_TENSOR_LR,
    HILL,
    OTHER_HILL,
    UP,
    adamw,
    held,
    new_group,
    opt_param_scheduler,
    param_scheduler,
    sgd,
    state_at,
)

GROUPS = [{}, {"lr": 3.0, "weight_decay": 0.0}]


class RewordedError(Exception):
    """Has another message after it was pickled."""

    def __reduce__(self):
        return RewordedError, ("another message",)


def fresh(build=adamw, **changes):
    optimizer = build(*GROUPS)
    return optimizer, opt_param_scheduler(optimizer, **changes)


def test_without_a_process_group_synchronize_changes_nothing():
    optimizer, scheduler = fresh()
    scheduler.seek(60)
    before = scheduler.state_dict(), held(optimizer)
    scheduler.synchronize()
    assert before == (scheduler.state_dict(), held(optimizer))


@FLOAT_AND_TENSOR_LR
def test_verify_reads_every_group_back(build):
    optimizer, scheduler = fresh(build)
    scheduler.seek(60)
    scheduler.verify()
    optimizer.param_groups[1]["lr"] = 0.75
    with pytest.raises(RankMismatchError, match=r"rank 0: group 1: lr is 0.75 and should be 1.65"):
        scheduler.verify()
    scheduler.step(0)
    scheduler.verify()


def test_verify_finds_a_value_that_is_off_by_a_billionth():
    optimizer, scheduler = fresh()
    scheduler.seek(60)
    optimizer.param_groups[0]["lr"] *= 1 + 1e-9
    with pytest.raises(RankMismatchError, match="group 0: lr is"):
        scheduler.verify()


def test_verify_names_a_group_whose_bound_is_illegal():
    optimizer, scheduler = fresh()
    optimizer.param_groups[1]["max_lr"] = "high"
    with pytest.raises(RankMismatchError, match=r"rank 0: group 1: max_lr='high'"):
        scheduler.verify()


def adopt(scheduler, first):
    """Make a scheduler adopt what the first rank's has, which is not of this process then."""
    theirs = first._current()
    _LIVE.discard(first)
    prepared, stage = scheduler._prepare(theirs, is_own=False)
    scheduler._apply(prepared, [stage])


def test_terms_that_cannot_be_written_are_not_adopted_in_part():
    optimizer, scheduler = fresh()
    scheduler.seek(10)
    before = scheduler.state_dict(), held(optimizer), repr(scheduler._writer.references)
    optimizer.param_groups[1]["end_wd"] = -1.0
    other = opt_param_scheduler(adamw({"lr": 0.5}), max_lr=0.5)
    other.seek(60)
    with pytest.raises(ConfigError, match=r"group 1: end_wd=-1\.0"):
        adopt(scheduler, other)
    assert before == (
        scheduler.state_dict(),
        held(optimizer),
        repr(scheduler._writer.references),
    )


def test_references_that_another_rank_lacks_are_kept():
    optimizer, scheduler = fresh()
    other = opt_param_scheduler(adamw({"lr": 0.5, "weight_decay": 0.0}))
    other.seek(50)
    adopt(scheduler, other)
    assert [pytest.approx(1.28), pytest.approx(3.84)] == held(optimizer)
    assert [0.05, 0.0] == held(optimizer, "weight_decay")


def test_a_field_that_another_rank_does_not_schedule_is_as_it_was_before():
    mine = param_scheduler(sgd(momentum=0.5), {"lr": HILL, "momentum": UP})
    mine.seek(8)
    assert [0.75] == held(mine, "momentum")
    adopt(mine, param_scheduler(sgd()))
    assert [0.5] == held(mine, "momentum")


def test_another_ranks_specification_is_adopted_whole(caplog):
    mine, theirs = (
        param_scheduler(sgd({"name": "body"})),
        param_scheduler(
            sgd({"name": "body"}), {"lr": OTHER_HILL}, groups={"body": {"lr": 0.5}}, unit="tokens"
        ),
    )
    theirs.seek(4)
    adopt(mine, theirs)
    assert (theirs.state_dict(), [1.0]) == (mine.state_dict(), held(mine.optimizer))
    assert "lr.phases[0].end 2.0 instead of 1.0" in caplog.text


def test_adopted_terms_are_all_taken_up(caplog):
    optimizer, scheduler = fresh()
    theirs = {"policy": "config", "unit": "tokens", "keep_group_ratios": False, "max_lr": 0.5}
    other = fresh(**theirs)[1]
    other.seek(10)
    adopt(scheduler, other)
    assert ("tokens", False, True) == (
        scheduler.unit,
        scheduler.keep_group_ratios,
        scheduler.override_opt_param_scheduler,
    )
    assert [0.5, 0.5] == held(optimizer)
    for name in ("max_lr 0.5 instead of 1.0", "unit 'tokens'", "policy", "keep_group_ratios"):
        assert name in caplog.text
    scheduler.load_state_dict(fresh(**theirs)[1].state_dict())
    assert () == scheduler.last_reconciliation.changed


def test_verify_reads_the_groups_of_an_inner_optimizer_that_was_exchanged():
    wrapper = SimpleNamespace(optimizer=adamw(), param_groups=[])
    scheduler = opt_param_scheduler(wrapper)
    scheduler.seek(60)
    wrapper.optimizer = torch.optim.SGD(wrapper.optimizer.param_groups[0]["params"], lr=0.125)
    with pytest.raises(RankMismatchError, match=r"lr is 0\.125 and should be 0\.55"):
        scheduler.verify()


@pytest.mark.usefixtures("_alone")
def test_an_error_whose_message_pickling_changes_reaches_every_rank_with_its_own():
    def decision():
        raise RewordedError("its own message")

    with pytest.raises(RuntimeError, match="RewordedError: its own message"):
        process_groups.agree(decision, lambda outcome: (outcome, None), about="a test")


@pytest.mark.usefixtures("_alone")
def test_a_local_load_does_not_communicate(monkeypatch):
    monkeypatch.delattr(dist, "broadcast_object_list")
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict(state_at(60), local=True)
    assert 60 == scheduler.num_steps


@pytest.mark.usefixtures("_alone")
def test_what_a_rank_could_not_prepare_is_named_with_its_class():
    def prepare(_outcome):
        raise KeyError("lr")

    with pytest.raises(RankMismatchError, match="rank 0: KeyError: 'lr'"):
        process_groups.agree(lambda: None, prepare, about="a test")


# One of two ranks, without what is collective


@pytest.fixture
def _one_of_two(monkeypatch):
    monkeypatch.setattr(process_groups, "size", lambda _group=None: 2)


HALVES = {"head": {"lr": 0.5}}


@pytest.mark.usefixtures("_one_of_two")
def test_a_local_load_passes_over_names_that_other_ranks_may_have():
    scheduler = param_scheduler(sgd({"name": "body"}), groups=HALVES)
    saved = scheduler.state_dict()
    scheduler.load_state_dict(saved, local=True)
    with pytest.raises(ConfigError, match=r"groups\[head\]\.lr: no group's name matches 'head'"):
        scheduler.step()


@pytest.mark.usefixtures("_one_of_two")
def test_a_group_that_comes_before_the_first_step_has_the_name():
    optimizer = sgd({"name": "body"})
    scheduler = param_scheduler(optimizer, groups=HALVES)
    optimizer.add_param_group(new_group(name="head"))
    optimizer.step()
    scheduler.step(8)
    assert [1.0, 0.5] == held(optimizer)


@pytest.mark.usefixtures("_one_of_two")
def test_an_optimizer_that_is_assigned_before_the_first_step_has_the_name():
    scheduler = param_scheduler(sgd({"name": "body"}), groups=HALVES)
    scheduler.optimizer = sgd({"name": "body"}, {"name": "head"})
    scheduler.step(8)
    assert [1.0, 0.5] == held(scheduler)


@pytest.mark.usefixtures("_one_of_two")
def test_a_name_that_was_found_once_is_not_looked_for_again():
    scheduler = param_scheduler(sgd({"name": "body"}, {"name": "head"}), groups=HALVES)
    scheduler.optimizer = sgd({"name": "body"})
    scheduler.load_state_dict(scheduler.state_dict())
    scheduler.synchronize()
    assert 0 == scheduler.num_steps


@pytest.mark.usefixtures("_one_of_two")
def test_a_name_of_a_reference_that_no_rank_has_is_refused_at_the_first_step():
    scheduler = param_scheduler(sgd({"name": "body"}), reference="head")
    rule = "reference='head': no group has this name; the groups are named 'body'"
    with pytest.raises(ConfigError, match=rule):
        scheduler.step()


def test_a_part_of_a_tuple_that_was_removed_is_refused_before_the_ranks_agree():
    optimizer = adamw({}, {})
    scheduler = param_scheduler(optimizer, {"betas[1]": UP})
    optimizer.param_groups[1]["betas"] = (0.5,)
    with pytest.raises(ConfigError, match=r"group 1: betas\[1\] was removed from the group"):
        scheduler._prepare(scheduler._current(), is_own=True)


@pytest.mark.usefixtures("_one_of_two")
def test_dcp_may_step_an_optimizer_to_make_its_state_before_a_name_is_found():
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW([{"params": model.parameters(), "name": "body"}], lr=1.0)
    scheduler = param_scheduler(optimizer, {"lr": 1.0}, groups=HALVES)
    saved = get_optimizer_state_dict(model, optimizer)
    assert [1.0] == held(scheduler)
    set_optimizer_state_dict(model, optimizer, saved)
    assert [1.0] == held(scheduler)


def test_a_reference_that_is_adopted_from_another_rank_is_named(caplog):
    groups = {"name": "a"}, {"name": "b", "lr": 0.5}
    scheduler = param_scheduler(sgd(*groups), reference="b")
    adopt(scheduler, param_scheduler(sgd(*groups), reference="a"))
    assert "reference 'a' instead of 'b'" in caplog.text
