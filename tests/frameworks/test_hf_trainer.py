"""HF Trainer 5: a scheduler that it is given, or makes; resume, from its own scheduler too."""

from __future__ import annotations

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from dist_sched import ParamScheduler, adapters, schedules

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("default")]

FALL = schedules.linear(1.0, 10)
CURVE = [1.0, 0.9, 0.8, 0.7]


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, labels):
        outputs = self.layer(inputs)
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}


def trainer_of(folder, model, *, updates=4, kind=Trainer, **arguments):
    """Return a trainer that logs and makes 4 updates by default, each of two micro-batches."""
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=updates,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1.0,
        weight_decay=0.1,
        save_steps=updates,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
    )
    data = [{"inputs": torch.ones(2), "labels": torch.ones(1)}] * 8
    return kind(model=model, args=settings, train_dataset=data, **arguments)


def falling(**arguments):
    """Return a model, its optimizer, and a scheduler whose lr is 1.0, 0.9, ..."""
    model = Regression()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    return model, optimizer, ParamScheduler(optimizer, {"lr": FALL}, **arguments)


@pytest.mark.timeout(900)
def test_the_example_is_on_its_curves_through_a_resume(check_example):
    check_example("hf_trainer.py")


@pytest.mark.parametrize(
    "adapted", [adapters.as_lr_scheduler, lambda scheduler: scheduler], ids=["adapted", "as it is"]
)
def test_a_scheduler_that_it_is_given_is_stepped_once_an_update(adapted, tmp_path, used):
    model, optimizer, scheduler = falling()
    trainer_of(tmp_path, model, optimizers=(optimizer, adapted(scheduler))).train()
    assert [[lr] for lr in CURVE] == used


def test_it_logs_the_lr_that_was_used(tmp_path):
    model, optimizer, scheduler = falling()
    adapter = adapters.as_lr_scheduler(scheduler)
    trainer = trainer_of(tmp_path, model, optimizers=(optimizer, adapter))
    trainer.train()
    logged = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    assert CURVE == logged


def test_its_own_optimizer_gets_a_scheduler_by_create_scheduler(tmp_path, used):
    class Scheduled(Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):  # noqa: ARG002
            scheduler = ParamScheduler(self.optimizer, {"lr": FALL})
            self.lr_scheduler = adapters.as_lr_scheduler(scheduler)
            return self.lr_scheduler

    trainer = trainer_of(tmp_path, Regression(), kind=Scheduled)
    trainer.train()
    assert [[lr, lr] for lr in CURVE] == used
    assert [0.1, 0.0] == [group["weight_decay"] for group in trainer.optimizer.param_groups]


def test_samples_are_counted_by_a_function(tmp_path):
    model, optimizer, scheduler = falling(unit="samples")
    adapter = adapters.as_lr_scheduler(scheduler, increment=lambda: 4)
    trainer_of(tmp_path, model, updates=2, optimizers=(optimizer, adapter)).train()
    assert 8 == scheduler.num_steps


def test_a_checkpoint_of_its_own_scheduler_is_gone_on_from(tmp_path, used, caplog):
    trainer_of(tmp_path, Regression(), updates=2).train()
    model = Regression()
    groups = [{"params": [model.layer.weight]}, {"params": [model.layer.bias]}]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    scheduler = ParamScheduler(optimizer, {"lr": FALL})
    adapter = adapters.as_lr_scheduler(scheduler)
    trainer = trainer_of(tmp_path, model, optimizers=(optimizer, adapter))
    used.clear()
    trainer.train(resume_from_checkpoint=True)
    assert [[lr, lr] for lr in CURVE[2:]] == used
    assert "the state is a torch LRScheduler's" in caplog.text


def test_a_scheduler_that_it_makes_beside_ours_is_named(tmp_path, caplog):
    model, optimizer, scheduler = falling()

    class Step(TrainerCallback):
        def on_step_end(self, *_, **__):
            scheduler.step()

    trainer_of(tmp_path, model, optimizers=(optimizer, None), callbacks=[Step()]).train()
    assert "Trainer(optimizers=(optimizer, dist_sched.adapters.as_lr_scheduler(" in caplog.text
