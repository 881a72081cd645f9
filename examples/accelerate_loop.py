"""A loop with accelerate and gradient accumulation, on any number of processes: train and resume.

accelerate launch --num_processes 2 examples/accelerate_loop.py --updates 7
accelerate launch --num_processes 2 examples/accelerate_loop.py --updates 16 --resume
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from dist_sched import ParamScheduler, adapters, schedules

parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16)
parser.add_argument("--folder", default="runs/accelerate")
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=2)
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
fields = {
    "lr": schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4),
    "weight_decay": schedules.linear(0.1, horizon=16, floor=0.01),
}
scheduler = ParamScheduler(optimizer, fields)
data = DataLoader(TensorDataset(torch.randn(512, 8), torch.randn(512, 1)), batch_size=4)
model, optimizer, data, paced = accelerator.prepare(
    model, optimizer, data, adapters.as_lr_scheduler(scheduler)
)
if options.resume:
    accelerator.load_state(options.folder)

while scheduler.num_steps < options.updates:
    for inputs, targets in data:
        with accelerator.accumulate(model):
            accelerator.backward(torch.nn.functional.mse_loss(model(inputs), targets))
            optimizer.step()
            paced.step()  # for each micro-batch; it advances once for each update
            optimizer.zero_grad()
        if scheduler.num_steps == options.updates:
            break
accelerator.save_state(options.folder)
accelerator.print(scheduler)
accelerator.end_training()
