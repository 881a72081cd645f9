"""accelerate: `prepare` and `prepare_scheduler`, on one process, with accumulation."""

from __future__ import annotations

import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.utils.data import DataLoader, TensorDataset

from dist_sched import ParamScheduler, adapters, schedules

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("default")]

FALL = schedules.linear(1.0, 10)
CURVE = [[1.0], [0.9], [0.8], [0.7]]


@pytest.fixture
def accelerator():
    yield Accelerator(cpu=True, gradient_accumulation_steps=2)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def parts():
    """Return a model, an optimizer, data of 8 micro-batches, and a scheduler."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    data = DataLoader(TensorDataset(torch.ones(16, 2)), batch_size=2)
    return model, optimizer, data, ParamScheduler(optimizer, {"lr": FALL})


def train(accelerator, model, optimizer, data, scheduler):
    for (inputs,) in data:
        with accelerator.accumulate(model):
            accelerator.backward(model(inputs).mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


@pytest.mark.timeout(900)
def test_the_example_is_on_its_curves_through_a_resume(check_example):
    check_example("accelerate_loop.py")


def test_prepare_paces_and_saves_it(accelerator, used, tmp_path):
    model, optimizer, data, scheduler = parts()
    prepared = accelerator.prepare(model, optimizer, data, adapters.as_lr_scheduler(scheduler))
    train(accelerator, *prepared)
    accelerator.save_state(tmp_path)
    scheduler.seek(0)
    accelerator.load_state(tmp_path)
    assert CURVE == used
    assert 4 == scheduler.num_steps


@pytest.mark.parametrize("processes", [1, 4])
def test_prepare_scheduler_is_exact(accelerator, used, processes, monkeypatch):
    model, optimizer, data, scheduler = parts()
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    prepared = accelerator.prepare_scheduler(adapters.as_lr_scheduler(scheduler))
    # By which it multiplies the steps.
    monkeypatch.setitem(PartialState._shared_state, "num_processes", processes)
    train(accelerator, model, optimizer, data, prepared)
    assert CURVE == used


def test_a_scheduler_of_a_prepared_optimizer_is_paced_by_it(accelerator, used):
    model, optimizer, data, _ = parts()
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    scheduler = ParamScheduler(optimizer, {"lr": FALL})
    prepared = accelerator.prepare(adapters.as_lr_scheduler(scheduler))
    assert [optimizer] == prepared.optimizers
    train(accelerator, model, optimizer, data, prepared)
    assert CURVE == used


def test_its_adjustment_of_schedulers_changes_nothing(accelerator, used):
    accelerator.gradient_state.plugin_kwargs["adjust_scheduler"] = True
    model, optimizer, data, scheduler = parts()
    adapter = adapters.as_lr_scheduler(scheduler)
    train(accelerator, *accelerator.prepare(model, optimizer, data, adapter))
    assert CURVE == used


def test_without_the_adapter_the_first_micro_batch_is_named(accelerator, caplog):
    model, optimizer, data, scheduler = parts()
    prepared = accelerator.prepare(model, optimizer, data, scheduler)
    assert prepared[-1] is scheduler
    train(accelerator, *prepared)
    assert 1 == caplog.text.count("step() was called for a micro-batch")
    assert "dist_sched.adapters.as_lr_scheduler" in caplog.text


def test_without_the_adapter_a_resume_is_named(accelerator, caplog, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "transformers.trainer", raising=False)
    train(accelerator, *accelerator.prepare(*parts()))
    accelerator.save_state(tmp_path)
    accelerator.free_memory()
    _, optimizer, _, scheduler = accelerator.prepare(*parts())
    accelerator.load_state(tmp_path)
    optimizer.step()
    scheduler.step()
    assert "the optimizer was loaded and the scheduler was not" in caplog.text
    assert "accelerate's prepare()" in caplog.messages[-1]
