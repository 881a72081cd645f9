"""FSDP2 and DCP: train, stop, and resume with the same learning rates.

torchrun --nproc-per-node 2 examples/fsdp2.py --updates 7
torchrun --nproc-per-node 3 examples/fsdp2.py --updates 16 --resume runs/fsdp2/step-7
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from dist_sched import ParamScheduler, schedules

parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16, help="where to stop and save")
parser.add_argument("--resume", metavar="CHECKPOINT")
options = parser.parse_args()

logging.basicConfig(level=logging.INFO)
dist.init_process_group()
rank, world_size = dist.get_rank(), dist.get_world_size()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
mesh = dist.init_device_mesh(device, (world_size,))  # with cuda, it also sets the device
fully_shard(model, mesh=mesh)
matrices: Any = {"params": [p for p in model.parameters() if p.ndim > 1]}
biases: Any = {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}
optimizer = torch.optim.AdamW([matrices, biases], lr=1e-2, weight_decay=0.1)
lr = schedules.cosine(1e-2, horizon=16, warmup=4, floor=1e-3)
weight_decay = schedules.linear(0.1, horizon=16, floor=0.01)
scheduler = ParamScheduler(optimizer, {"lr": lr, "weight_decay": weight_decay})
if options.resume:
    model_state, optim_state = get_state_dict(model, optimizer)
    state = {"model": model_state, "optimizer": optim_state, "scheduler": scheduler}
    dcp.load(state, checkpoint_id=options.resume)
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optim_state)

while scheduler.num_steps < options.updates:
    torch.manual_seed(scheduler.num_steps)
    inputs = torch.randn(480, 8)[rank::world_size].to(device)  # your data
    (model(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()
    if rank == 0:
        print(f"update {scheduler.num_steps}: {scheduler.metrics()}")

model_state, optim_state = get_state_dict(model, optimizer)
state = {"model": model_state, "optimizer": optim_state, "scheduler": scheduler}
dcp.save(state, checkpoint_id=f"runs/fsdp2/step-{scheduler.num_steps}")
dist.barrier()
dist.destroy_process_group()
