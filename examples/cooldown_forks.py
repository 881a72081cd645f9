"""One stable run, and cooldowns of any length, forked from its checkpoints.

torchrun --nproc-per-node 2 examples/cooldown_forks.py --updates 7
torchrun --nproc-per-node 3 examples/cooldown_forks.py --updates 16 --resume runs/stable/step-7
torchrun --nproc-per-node 3 examples/cooldown_forks.py --updates 11 --resume runs/stable/step-7 \
    --cooldown 4 --folder runs/short

The checkpoints of a fork hold its cooldown: resume them without --cooldown.
"""

from __future__ import annotations

import argparse
import logging

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from dist_sched import ParamScheduler, schedules

parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16, help="where to stop and save")
parser.add_argument("--folder", default="runs/stable")
parser.add_argument("--resume", metavar="CHECKPOINT")
parser.add_argument("--cooldown", type=int, metavar="UPDATES", help="anneal from here to 0")
options = parser.parse_args()
logging.basicConfig(level=logging.INFO)
dist.init_process_group()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
mesh = dist.init_device_mesh(device, (dist.get_world_size(),))  # with cuda, it also sets the device
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
lr = schedules.constant(1e-3, warmup=4)  # no horizon: the run may end whenever you like
scheduler = ParamScheduler(optimizer, {"lr": lr, "weight_decay": 0.1})
if options.resume:
    model_state, optim_state = get_state_dict(model, optimizer)
    state = {"model": model_state, "optimizer": optim_state, "scheduler": scheduler}
    dcp.load(state, checkpoint_id=options.resume)
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optim_state)
if options.cooldown:
    scheduler.cooldown(options.cooldown)

while scheduler.num_steps < options.updates:
    torch.manual_seed(scheduler.num_steps)
    inputs = torch.randn(480, 8)[dist.get_rank() :: dist.get_world_size()].to(device)  # your data
    (model(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()

model_state, optim_state = get_state_dict(model, optimizer)
state = {"model": model_state, "optimizer": optim_state, "scheduler": scheduler}
dcp.save(state, checkpoint_id=f"{options.folder}/step-{scheduler.num_steps}")
dist.barrier()
dist.destroy_process_group()
