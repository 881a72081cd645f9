"""Lightning's Trainer with your own schedule: train, stop, and resume.

python examples/lightning_trainer.py --updates 7             # stops after 7 updates, and saves
python examples/lightning_trainer.py --updates 16 --resume   # goes on, in a new process
"""

from __future__ import annotations

import argparse

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from dist_sched import ParamScheduler, adapters, schedules

FIELDS = {
    "lr": schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4),
    "weight_decay": schedules.linear(0.1, horizon=16, floor=0.01),
}


class Regression(lightning.LightningModule):
    """One layer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch):
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.layer(inputs), targets)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)
        scheduler = adapters.as_lr_scheduler(ParamScheduler(optimizer, FIELDS))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16)
parser.add_argument("--folder", default="runs/lightning")
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

lightning.seed_everything(0)
trainer = lightning.Trainer(
    accelerator="auto",
    max_steps=options.updates,
    accumulate_grad_batches=2,
    default_root_dir=options.folder,
    logger=False,
    enable_checkpointing=False,
)
data = DataLoader(TensorDataset(torch.randn(64, 8), torch.randn(64, 1)), batch_size=4)
checkpoint = f"{options.folder}/last.ckpt"
trainer.fit(Regression(), data, ckpt_path=checkpoint if options.resume else None)
trainer.save_checkpoint(checkpoint)
