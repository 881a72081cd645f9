"""A scheduler as an `LRScheduler`: it advances once for each real update (FIELD.md 3, 20, 30)."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import types
import warnings
import weakref

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dist_sched import ParamScheduler, adapters, schedules
from dist_sched.errors import ConfigError
from helpers import adamw, adamw_of_tensors, contents, held, sgd

FALL = schedules.linear(1.0, 10)


def falling(optimizer=None, **arguments):
    """Return an adapter whose lr is 1.0, 0.9, ... and its optimizer."""
    optimizer = adamw() if optimizer is None else optimizer
    scheduler = ParamScheduler(optimizer, {"lr": FALL})
    return adapters.as_lr_scheduler(scheduler, **arguments), optimizer


def fill_gradients(optimizer, value=1.0):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, value)


def test_it_is_an_lr_scheduler():
    adapter, _ = falling()
    assert isinstance(adapter, LRScheduler)


def test_it_adds_nothing_to_groups_and_optimizer():
    optimizer = adamw()
    scheduler = ParamScheduler(optimizer, {"lr": FALL})
    before = contents(optimizer), set(vars(optimizer))
    adapters.as_lr_scheduler(scheduler)
    assert before == (contents(optimizer), set(vars(optimizer)))


def test_it_advances_once_for_an_update_however_often_it_is_stepped():
    adapter, optimizer = falling()
    for _ in range(3):
        optimizer.step()
        adapter.step()
        adapter.step()
    assert 3 == adapter.scheduler.num_steps
    assert [0.7] == held(optimizer)


def test_it_does_not_advance_without_an_update():
    adapter, _ = falling()
    adapter.step()
    assert 0 == adapter.scheduler.num_steps


def test_it_does_not_warn_of_the_order_of_steps():
    adapter, optimizer = falling()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter.step()
        optimizer.step()
        adapter.step()


def test_two_updates_before_a_step_count_once():
    first, second = adamw(), sgd()
    adapter, _ = falling([first, second])
    first.step()
    second.step()
    adapter.step()
    assert 1 == adapter.scheduler.num_steps


def test_a_step_of_the_scheduler_itself_uses_the_update_up():
    adapter, optimizer = falling()
    optimizer.step()
    adapter.scheduler.step()
    adapter.step()
    assert 1 == adapter.scheduler.num_steps


def test_two_adapters_advance_their_scheduler_once():
    adapter, optimizer = falling()
    other = adapters.as_lr_scheduler(adapter.scheduler)
    optimizer.step()
    adapter.step()
    other.step()
    assert 1 == adapter.scheduler.num_steps


def test_a_seek_forgets_the_update():
    adapter, optimizer = falling()
    optimizer.step()
    adapter.scheduler.seek(4)
    adapter.step()
    assert 4 == adapter.scheduler.num_steps


@pytest.mark.parametrize("name", ["adapter", "scheduler", "optimizer"])
def test_a_load_forgets_the_update(name):
    adapter, optimizer = falling()
    loaded = {"adapter": adapter, "scheduler": adapter.scheduler, "optimizer": optimizer}[name]
    state = loaded.state_dict()
    optimizer.step()
    loaded.load_state_dict(state)
    adapter.step()
    assert 0 == adapter.scheduler.num_steps


@pytest.mark.parametrize("build", [adamw, adamw_of_tensors], ids=["float", "tensor"])
def test_the_step_by_which_dcp_makes_state_is_no_update(build):
    adapter, optimizer = falling(build())
    model = torch.nn.Module()
    model.weight = optimizer.param_groups[0]["params"][0]
    get_optimizer_state_dict(model, optimizer)
    assert optimizer.state
    adapter.step()
    assert 0 == adapter.scheduler.num_steps


def test_an_update_at_an_lr_of_0_counts_where_the_schedule_is_0():
    optimizer = adamw()
    rise = schedules.linear(1.0, 10, warmup=5)
    adapter = adapters.as_lr_scheduler(ParamScheduler(optimizer, {"lr": rise}))
    optimizer.step()
    adapter.step()
    assert 1 == adapter.scheduler.num_steps


@pytest.mark.parametrize("is_fused", [True, False])
def test_an_update_that_a_grad_scaler_skips_does_not_count(is_fused):
    adapter, optimizer = falling(adamw(fused=is_fused))
    scaler = torch.amp.GradScaler("cpu")
    used = []
    for gradient in (1.0, float("inf"), 1.0, 1.0):
        scaler.scale(torch.ones(()))
        fill_gradients(optimizer, gradient)
        used += held(optimizer)
        scaler.step(optimizer)
        scaler.update()
        adapter.step()
    assert [1.0, 0.9, 0.9, 0.8] == used
    assert 3 == adapter.scheduler.num_steps


def test_an_update_that_only_one_optimizer_skips_counts():
    first, second = adamw(fused=True), adamw(fused=True)
    adapter, _ = falling([first, second])
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    for optimizer, gradient in ((first, float("inf")), (second, 1.0)):
        fill_gradients(optimizer, gradient)
        scaler.step(optimizer)
    adapter.step()
    assert 1 == adapter.scheduler.num_steps


def test_the_increment_may_be_a_number_of_samples():
    adapter, optimizer = falling(increment=4)
    optimizer.step()
    adapter.step()
    assert 4 == adapter.last_epoch


def test_the_increment_may_be_a_function_that_is_called_for_updates_alone():
    counts = iter([2, 3])
    adapter, optimizer = falling(increment=lambda: next(counts))
    for _ in range(2):
        optimizer.step()
        adapter.step()
        adapter.step()
    assert 5 == adapter.scheduler.num_steps


def test_an_update_whose_increment_is_refused_is_not_used_up():
    counts = iter([-1, 2])
    adapter, optimizer = falling(increment=lambda: next(counts))
    optimizer.step()
    with pytest.raises(ConfigError, match="increment"):
        adapter.step()
    adapter.step()
    assert 2 == adapter.scheduler.num_steps


def test_its_faces_are_those_of_an_lr_scheduler():
    optimizer = adamw({"lr": 1.0}, {"lr": 0.1})
    adapter, _ = falling(optimizer)
    optimizer.step()
    adapter.step()
    assert [0.9, 0.09] == pytest.approx(adapter.get_last_lr())
    assert [1.0, 0.1] == adapter.base_lrs
    assert 1 == adapter.last_epoch
    assert adapter.optimizer is optimizer


def test_base_lrs_are_what_groups_hold_where_lr_is_not_scheduled():
    scheduler = ParamScheduler(adamw(lr=0.3), {"weight_decay": schedules.linear(0.1, 10)})
    assert [0.3] == adapters.as_lr_scheduler(scheduler).base_lrs


def test_its_optimizer_is_the_one_inside_a_wrapper():
    optimizer = adamw()
    wrapper = types.SimpleNamespace(optimizer=optimizer, param_groups=optimizer.param_groups)
    adapter, _ = falling(wrapper)
    assert adapter.optimizer is optimizer


def test_it_follows_an_optimizer_that_is_assigned_later():
    adapter, _ = falling()
    other = adamw()
    adapter.scheduler.optimizer = other
    adapter.step()
    other.step()
    adapter.step()
    assert 1 == adapter.scheduler.num_steps


def test_its_state_is_the_schedulers():
    adapter, optimizer = falling()
    optimizer.step()
    adapter.step()
    assert adapter.scheduler.state_dict() == adapter.state_dict()
    other, _ = falling()
    other.load_state_dict(adapter.state_dict())
    assert [0.9] == other.get_last_lr()


def test_it_takes_up_the_state_of_a_torch_scheduler(caplog):
    optimizer = adamw()
    theirs = LambdaLR(optimizer, lambda step: 1 - step / 10)
    for _ in range(3):
        optimizer.step()
        theirs.step()
    adapter, _ = falling()
    adapter.load_state_dict(theirs.state_dict())
    assert 3 == adapter.scheduler.num_steps
    assert "the state is a torch LRScheduler's" in caplog.text


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])  # noqa: S301
def test_a_copy_follows_the_copied_optimizer(clone):
    adapter, optimizer = falling()
    optimizer.step()
    other, copied = clone((adapter, optimizer))
    other.step()
    copied.step()
    other.step()
    assert [0.8] == held(copied)
    assert [1.0] == held(optimizer)


def test_a_shallow_copy_is_refused():
    adapter, _ = falling()
    with pytest.raises(ConfigError, match=r"copy\.deepcopy\(\(optimizer, adapter\)\)"):
        copy.copy(adapter)


def test_the_optimizer_does_not_keep_it_alive():
    adapter, optimizer = falling()
    seen = weakref.ref(adapter)
    del adapter
    gc.collect()
    assert seen() is None
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((object(),), "must be an OptimizerParamScheduler or a ParamScheduler, not object"),
        ((ParamScheduler([], {}, extras={"batch": FALL}),), "it has no optimizer"),
    ],
)
def test_what_has_no_updates_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        adapters.as_lr_scheduler(*arguments)


@pytest.mark.parametrize("increment", [-1, 1.5, True, "1"])
def test_an_illegal_increment_is_refused(increment):
    with pytest.raises(ConfigError, match="increment"):
        falling(increment=increment)


def test_an_epoch_is_refused():
    adapter, _ = falling()
    with pytest.raises(ConfigError, match=r"seek\(position\)"):
        adapter.step(3)


def test_an_optimizer_without_hooks_is_named_and_each_call_counts(caplog):
    facade = types.SimpleNamespace(param_groups=adamw().param_groups)
    adapter, _ = falling(facade)
    adapter.step()
    adapter.step()
    assert 2 == adapter.scheduler.num_steps
    assert "every call of step() advances the scheduler" in caplog.text


def test_updates_that_run_no_hooks_are_named(caplog):
    adapter, _ = falling()
    for _ in range(100):
        adapter.step()
    assert "AdamW ran no hooks of updates" in caplog.text


def test_calls_between_updates_are_not_named(caplog):
    adapter, optimizer = falling()
    optimizer.step()
    for _ in range(200):
        adapter.step()
    assert "" == caplog.text


def test_lightnings_interval_of_epochs_is_named(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
    adapter, optimizer = falling()
    optimizer.step()
    adapter.step()
    optimizer.step()
    assert "" == caplog.text
    optimizer.step()
    optimizer.step()
    assert 1 == caplog.text.count('"interval": "step"')


def test_a_compiled_step_of_the_optimizer_counts():
    adapter, optimizer = falling()
    fill_gradients(optimizer)
    update = torch.compile(optimizer.step, backend="eager")
    for _ in range(3):
        update()
        adapter.step()
    assert 3 == adapter.scheduler.num_steps
