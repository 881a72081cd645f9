"""What goes wrong without an adapter is named with it, where the framework is known."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from dist_sched import ParamScheduler, adapters, schedules
from helpers import adamw

FALL = schedules.linear(1.0, 10)
TRAINER = "Trainer(optimizers=(optimizer, dist_sched.adapters.as_lr_scheduler("
ACCELERATE = "accelerate's prepare() steps and saves only an LRScheduler"
KNOWN = {
    "nemo_automodel.recipes": "dist_sched.adapters.nemo.install()",
    "torchtitan.trainer": "dist_sched.adapters.torchtitan",
    "lightning": "Lightning's Trainer steps and saves only an LRScheduler",
    "pytorch_lightning": "Lightning's Trainer steps and saves only an LRScheduler",
}


@pytest.fixture(autouse=True)
def imported(monkeypatch):
    """Forget what other tests have imported, and return what imports a module without content."""
    for name in [*KNOWN, "transformers.trainer", "accelerate", "accelerate.state"]:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def imports(name, **content):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)

    return imports


@pytest.fixture
def accelerated(imported):
    """Return what makes an `Accelerator`, as far as its states are concerned."""

    def make(*, is_update=True):
        state = SimpleNamespace(_shared_state={"device": "cpu"})
        gradients = SimpleNamespace(_shared_state={"sync_gradients": is_update})
        imported("accelerate")
        imported("accelerate.state", AcceleratorState=state, GradientState=gradients)
        return gradients._shared_state

    return make


def step_after_a_load_of_the_optimizer_alone():
    scheduler = ParamScheduler(optimizer := adamw(), {"lr": FALL})
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.5
    optimizer.load_state_dict(state)
    scheduler.step()


def step_after_another_write():
    scheduler = ParamScheduler(optimizer := adamw(), {"lr": FALL})
    optimizer.param_groups[0]["lr"] = 0.5
    scheduler.step()


BOTH_NETS = pytest.mark.parametrize(
    "run", [step_after_a_load_of_the_optimizer_alone, step_after_another_write]
)


@BOTH_NETS
@pytest.mark.parametrize("name", KNOWN)
def test_a_framework_that_is_imported_is_named(run, name, imported, caplog):
    imported(name)
    run()
    assert KNOWN[name] in caplog.text


@BOTH_NETS
def test_accelerate_is_named_where_it_is_used(run, accelerated, caplog):
    accelerated()
    run()
    assert ACCELERATE in caplog.text


@BOTH_NETS
def test_transformers_trainer_is_named_before_the_accelerate_that_it_uses(
    run, accelerated, imported, caplog
):
    accelerated()
    imported("transformers.trainer")
    run()
    assert TRAINER in caplog.text


@BOTH_NETS
def test_packages_that_train_nothing_are_not_named(run, imported, caplog):
    for name in ("accelerate", "transformers.trainer", "torchtitan", "nemo_automodel"):
        imported(name)
    run()
    assert 1 == len(caplog.records)
    assert "adapters" not in caplog.text


def test_the_framework_whose_wrapper_the_optimizer_has_comes_first(imported, caplog):
    imported("lightning")
    inner = adamw()
    wrapper = type("AcceleratedOptimizer", (), {"__module__": "accelerate.optimizer"})()
    wrapper.optimizer, wrapper.param_groups = inner, inner.param_groups
    scheduler = ParamScheduler(wrapper, {"lr": FALL})
    inner.param_groups[0]["lr"] = 0.5
    scheduler.step()
    assert ACCELERATE in caplog.text


def test_a_step_for_a_micro_batch_of_accelerate_is_named_once(accelerated, caplog):
    gradients = accelerated(is_update=False)
    scheduler = ParamScheduler(adamw(), {"lr": FALL})
    scheduler.step()
    assert 1 == caplog.text.count("step() was called for a micro-batch")
    assert ACCELERATE in caplog.text
    gradients["sync_gradients"] = True
    scheduler.step()
    gradients["sync_gradients"] = False
    scheduler.step()
    assert 1 == len(caplog.records)


def test_samples_of_a_micro_batch_are_not_named(accelerated, caplog):
    accelerated(is_update=False)
    ParamScheduler(adamw(), {"lr": FALL}, unit="samples").step(4)
    assert "" == caplog.text


def test_an_adapter_in_accelerate_is_not_named(accelerated, caplog):
    gradients = accelerated(is_update=False)
    optimizer = adamw()
    adapter = adapters.as_lr_scheduler(ParamScheduler(optimizer, {"lr": FALL}))
    adapter.step()
    gradients["sync_gradients"] = True
    optimizer.step()
    adapter.step()
    assert "" == caplog.text
