"""HF Trainer with your own schedule: train, stop, and resume.

python examples/hf_trainer.py --updates 7             # stops after 7 updates, and saves
python examples/hf_trainer.py --updates 16 --resume   # goes on, in a new process
"""

from __future__ import annotations

import argparse

import torch
from transformers import Trainer, TrainingArguments

from dist_sched import ParamScheduler, adapters, schedules


class Regression(torch.nn.Module):
    """One layer, which returns a loss as models of transformers do."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def forward(self, inputs, labels):
        outputs = self.layer(inputs)
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}


parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16)
parser.add_argument("--folder", default="runs/hf_trainer")
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

torch.manual_seed(0)
model = Regression()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
fields = {
    "lr": schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4),
    "weight_decay": schedules.linear(0.1, horizon=16, floor=0.01),
}
scheduler = ParamScheduler(optimizer, fields)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=options.folder,
        max_steps=options.updates,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        save_steps=options.updates,
        logging_steps=1,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
    ),
    train_dataset=[{"inputs": torch.randn(8), "labels": torch.randn(1)} for _ in range(64)],
    # transformers calls it a LambdaLR, and takes any scheduler.
    optimizers=(optimizer, adapters.as_lr_scheduler(scheduler)),  # type: ignore[arg-type]
)
trainer.train(resume_from_checkpoint=options.resume)
scheduler.check_position(trainer.state.global_step)
