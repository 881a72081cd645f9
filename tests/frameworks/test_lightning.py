"""Lightning 2.6: its Trainer with one optimizer and two, its callbacks, and Fabric."""

from __future__ import annotations

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from dist_sched import ParamScheduler, adapters, schedules

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("default")]

FALL = schedules.linear(1.0, 10)
CURVE = [1.0, 0.9, 0.8, 0.7]


class Regression(lightning.LightningModule):
    interval = "step"

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)

    def training_step(self, batch):
        return self.second(self.first(batch[0])).mean()

    def configure_optimizers(self):
        trained = [one for one in self.parameters() if one.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=1.0)
        self.scheduler = ParamScheduler(optimizer, {"lr": FALL})
        adapter = adapters.as_lr_scheduler(self.scheduler)
        return [optimizer], [{"scheduler": adapter, "interval": self.interval}]


class TwoOptimizers(Regression):
    automatic_optimization = False

    def configure_optimizers(self):
        optimizers = [
            torch.optim.SGD(self.first.parameters(), lr=1.0),
            torch.optim.AdamW(self.second.parameters(), lr=1.0),
        ]
        self.scheduler = ParamScheduler(optimizers, {"lr": FALL})
        return optimizers, [adapters.as_lr_scheduler(self.scheduler)]

    def training_step(self, batch):
        first, second = self.optimizers()
        self.manual_backward(super().training_step(batch))
        first.step()
        second.step()
        self.lr_schedulers().step()


def fit(model, folder, *, epochs=1, ckpt_path=None, **arguments):
    """Fit a model with 4 updates an epoch, and return the trainer."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False, **arguments},
    )
    data = DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=2)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.timeout(900)
def test_the_example_is_on_its_curves_through_a_resume(check_example):
    check_example("lightning_trainer.py")


def test_one_optimizer_is_on_the_curve(tmp_path, used):
    fit(Regression(), tmp_path)
    assert [[lr] for lr in CURVE] == used


def test_one_scheduler_drives_two_optimizers(tmp_path, used):
    fit(TwoOptimizers(), tmp_path)
    assert [[lr] for lr in CURVE for _ in range(2)] == used


def test_the_monitor_shows_the_lr_that_is_used(tmp_path):
    logger = CSVLogger(tmp_path)
    monitor = LearningRateMonitor(logging_interval="step")
    fit(Regression(), tmp_path, logger=logger, callbacks=[monitor], log_every_n_steps=1)
    assert CURVE == monitor.lrs["lr-SGD"]


@pytest.mark.parametrize("kind", [Regression, TwoOptimizers])
def test_a_checkpoint_is_gone_on_from(kind, tmp_path, used):
    fit(kind(), tmp_path).save_checkpoint(tmp_path / "last.ckpt")
    used.clear()
    fit(model := kind(), tmp_path, epochs=2, ckpt_path=tmp_path / "last.ckpt")
    assert [0.6] == used[0]
    assert 8 == model.scheduler.num_steps


class Finetuning(BaseFinetuning):
    """Trains the first layer from the second epoch on, at a tenth of the other's lr."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.first)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(
                pl_module.first, optimizer, initial_denom_lr=10, train_bn=True
            )


def test_a_group_that_finetuning_adds_moves_with_the_curve(tmp_path, used, caplog):
    fit(Regression(), tmp_path, epochs=2, callbacks=[Finetuning()])
    assert [[lr] for lr in CURVE] == used[:4]
    assert [0.6, 0.06] == pytest.approx(used[4], rel=1e-12)
    assert [0.3, 0.03] == pytest.approx(used[7], rel=1e-12)
    assert "was added at position 4" in caplog.text


def test_its_default_interval_is_named_at_the_second_update(tmp_path, caplog):
    model = Regression()
    model.interval = "epoch"
    fit(model, tmp_path)
    assert 1 == caplog.text.count('"interval": "step"')


def test_fabric_needs_no_adapter(tmp_path, used):
    fabric = lightning.Fabric(accelerator="cpu")
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = ParamScheduler(optimizer, {"lr": FALL})
    model, optimizer = fabric.setup(model, optimizer)
    for _ in range(4):
        fabric.backward(model(torch.ones(2)).mean())
        optimizer.step()
        scheduler.step()
    fabric.save(tmp_path / "last.ckpt", {"optimizer": optimizer, "scheduler": scheduler})
    scheduler.seek(0)
    fabric.load(tmp_path / "last.ckpt", {"optimizer": optimizer, "scheduler": scheduler})
    assert [[lr] for lr in CURVE] == used
    assert 4 == scheduler.num_steps
