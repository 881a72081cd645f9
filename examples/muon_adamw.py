"""Muon for the hidden matrices and AdamW for the rest: one schedule, two learning rates.

torchrun --nproc-per-node 2 examples/muon_adamw.py --updates 7
torchrun --nproc-per-node 3 examples/muon_adamw.py --updates 16 --resume runs/muon_adamw/step-7.pt
"""

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
logging.basicConfig(level=logging.INFO)  # shows what each group gets
dist.init_process_group()
rank, world_size = dist.get_rank(), dist.get_world_size()
device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
hidden, last = torch.nn.Linear(8, 32), torch.nn.Linear(32, 1)
model = DistributedDataParallel(torch.nn.Sequential(hidden, torch.nn.GELU(), last).to(device))
head: dict[str, Any] = {"params": [last.weight], "name": "head"}
biases: dict[str, Any] = {"params": [hidden.bias, last.bias], "name": "biases", "weight_decay": 0.0}
muon = torch.optim.Muon([{"params": hidden.weight, "name": "body"}], lr=0.02, weight_decay=0.1)
adamw = torch.optim.AdamW([head, biases], lr=3e-4, weight_decay=0.1)
fields = {
    "lr": schedules.wsd(3e-4, horizon=16, warmup=4, decay=5),  # AdamW's; Muon keeps its ratio to it
    "weight_decay": schedules.linear(0.1, horizon=16, floor=0.01),
    "momentum": schedules.piecewise([(0, 0.85), (8, 0.95)]),  # only Muon has one
}
scheduler = ParamScheduler([muon, adamw], fields, groups={"head": {"lr": 0.5}})
parts: dict[str, Any] = {"model": model, "muon": muon, "adamw": adamw, "scheduler": scheduler}
if options.resume:
    for name, state in torch.load(options.resume, map_location=device).items():
        parts[name].load_state_dict(state)

while scheduler.num_steps < options.updates:
    torch.manual_seed(scheduler.num_steps)
    inputs = torch.randn(480, 8)[rank::world_size].to(device)  # your data
    (model(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
    for optimizer in (muon, adamw):
        optimizer.step()
        optimizer.zero_grad()
    scheduler.step()

if rank == 0:
    Path("runs/muon_adamw").mkdir(parents=True, exist_ok=True)
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save(states, f"runs/muon_adamw/step-{scheduler.num_steps}.pt")
dist.barrier()
dist.destroy_process_group()
