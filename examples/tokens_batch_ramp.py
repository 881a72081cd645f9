"""A run that counts tokens: learning rate, weight decay and a growing batch on one clock.

torchrun --nproc-per-node 2 examples/tokens_batch_ramp.py --tokens 9_000
torchrun --nproc-per-node 3 examples/tokens_batch_ramp.py --resume runs/tokens/9600.pt
"""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from dist_sched import ParamScheduler, Phase, Schedule, schedules

parser = argparse.ArgumentParser()
parser.add_argument("--tokens", type=int, default=45_000, help="stop and save once this is reached")
parser.add_argument("--resume", metavar="CHECKPOINT")
options = parser.parse_args()
SEQUENCE_LENGTH = 100
dist.init_process_group()
rank, world_size = dist.get_rank(), dist.get_world_size()
device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
layers = torch.nn.Sequential(torch.nn.Embedding(256, 16), torch.nn.Linear(16, 256, bias=False))
model = DistributedDataParallel(layers.to(device))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
fields: dict[str, Any] = {
    "lr": schedules.cosine(1e-3, horizon=45_000, warmup=5_000, floor=1e-4),
    "weight_decay": schedules.proportional_to("lr", at_max=0.1),
}
ramp = Schedule([Phase("linear", 20_000, start=12, end=48)])  # sequences in an update
extras = {"batch_size": schedules.whole(ramp, multiple_of=12)}
scheduler = ParamScheduler(optimizer, fields, extras=extras, unit="tokens")
parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
if options.resume:
    for name, state in torch.load(options.resume, map_location=device).items():
        parts[name].load_state_dict(state)

while scheduler.num_steps < options.tokens:
    batch_size = int(scheduler.extras["batch_size"])  # over all ranks
    torch.manual_seed(scheduler.num_steps)  # the next line stands for your data
    tokens = torch.randint(256, (batch_size, SEQUENCE_LENGTH + 1))[rank::world_size].to(device)
    cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step(increment=batch_size * SEQUENCE_LENGTH)
    if rank == 0:
        print(f"{scheduler.num_steps} tokens: {scheduler.metrics()}")

if rank == 0:
    Path("runs/tokens").mkdir(parents=True, exist_ok=True)
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save(states, f"runs/tokens/{scheduler.num_steps}.pt")
dist.barrier()
dist.destroy_process_group()
