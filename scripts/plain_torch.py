"""Train with torch's own schedulers, saved with DCP, as many scripts do: demo.sh compares with it.

    torchrun --nproc-per-node 2 scripts/plain_torch.py runs/plain --updates 160
    torchrun --nproc-per-node 3 scripts/plain_torch.py runs/plain --updates 240 --resume

lr rises for 20 updates, stays, and falls for the last 40. A resume with more updates than before
falls where the old run would have: `SequentialLR.load_state_dict` puts the checkpoint's milestones
in the place of those that the script has just declared, without a word.

`FOLDER/metrics.jsonl` has one line for each update: {"position": 0, "lr": 3e-05}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.lr_scheduler import ConstantLR, LinearLR, SequentialLR

WARMUP, DECAY, SAVE_EVERY = 20, 40, 40

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--updates", type=int, default=160)
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
torch.manual_seed(1)
model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(4)))
for layer in (*model, model):
    fully_shard(layer, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
warmup = LinearLR(optimizer, start_factor=0.01, total_iters=WARMUP)
stable = ConstantLR(optimizer, factor=1.0)
decay = LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=DECAY)
milestones = [WARMUP, options.updates - DECAY]
scheduler = SequentialLR(optimizer, [warmup, stable, decay], milestones=milestones)

if options.resume:
    saved = [path for path in options.folder.glob("step-*") if (path / ".metadata").exists()]
    newest = max(saved, key=lambda path: int(path.name.removeprefix("step-")))
    model_state, optim_state = get_state_dict(model, optimizer)
    state = {"model": model_state, "optimizer": optim_state, "scheduler": scheduler}
    load(state, checkpoint_id=newest)
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optim_state)

options.folder.mkdir(parents=True, exist_ok=True)
with (options.folder / "metrics.jsonl").open("a") as metrics:
    while scheduler.last_epoch < options.updates:
        if dist.get_rank() == 0:
            update = {"position": scheduler.last_epoch, "lr": optimizer.param_groups[0]["lr"]}
            metrics.write(json.dumps(update) + "\n")
            metrics.flush()
        torch.manual_seed(scheduler.last_epoch)
        inputs = torch.randn(48, 256)[dist.get_rank() :: dist.get_world_size()]
        (model(inputs) - inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        if scheduler.last_epoch % SAVE_EVERY == 0:
            model_state, optim_state = get_state_dict(model, optimizer)
            state = {"model": model_state, "optimizer": optim_state, "scheduler": scheduler}
            save(state, checkpoint_id=options.folder / f"step-{scheduler.last_epoch}")
dist.barrier()
dist.destroy_process_group()
