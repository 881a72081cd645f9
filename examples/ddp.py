"""DDP and `torch.save`: train, stop, and resume with the same learning rates.

torchrun --nproc-per-node 2 examples/ddp.py --updates 7
torchrun --nproc-per-node 3 examples/ddp.py --updates 16 --resume runs/ddp/step-7.pt
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dist_sched import ParamScheduler, schedules

parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16, help="where to stop and save")
parser.add_argument("--resume", metavar="CHECKPOINT")
options = parser.parse_args()

logging.basicConfig(level=logging.INFO)
dist.init_process_group()
rank, world_size = dist.get_rank(), dist.get_world_size()
device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
layers = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
model = DistributedDataParallel(layers.to(device))
matrices: Any = {"params": [p for p in model.parameters() if p.ndim > 1]}
biases: Any = {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}
optimizer = torch.optim.AdamW([matrices, biases], lr=1e-2, weight_decay=0.1)
lr = schedules.cosine(1e-2, horizon=16, warmup=4, floor=1e-3)
weight_decay = schedules.linear(0.1, horizon=16, floor=0.01)
scheduler = ParamScheduler(optimizer, {"lr": lr, "weight_decay": weight_decay})
parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
if options.resume:
    for name, state in torch.load(options.resume, map_location=device).items():
        parts[name].load_state_dict(state)

while scheduler.num_steps < options.updates:
    torch.manual_seed(scheduler.num_steps)
    inputs = torch.randn(480, 8)[rank::world_size].to(device)  # your data
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()
    if rank == 0:
        print(f"update {scheduler.num_steps}: loss {loss:.3f}, {scheduler.metrics()}")

if rank == 0:
    Path("runs/ddp").mkdir(parents=True, exist_ok=True)
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save(states, f"runs/ddp/step-{scheduler.num_steps}.pt")
dist.barrier()
dist.destroy_process_group()
