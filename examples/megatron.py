"""Megatron-LM's loop with torch_dcp, under torchrun: examples/megatron.py FOLDER UPDATES."""

import pathlib
import sys
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from dist_sched import OptimizerParamScheduler, adapters  # instead of megatron.core's

BATCH = 8
ENTRIES: Any = {"init_lr": 0.0, "max_lr": 1e-3, "min_lr": 1e-5, "lr_decay_style": "cosine"}
ENTRIES |= {"lr_warmup_steps": 4 * BATCH, "lr_decay_steps": 16 * BATCH}
ENTRIES |= {"start_wd": 0.1, "end_wd": 0.2, "wd_incr_steps": 16 * BATCH, "wd_incr_style": "linear"}


def build():
    """Return what is trained, and a scheduler that DCP loads from Megatron's folders too."""
    model = torch.nn.Linear(8, 8)
    fully_shard(model, mesh=dist.init_device_mesh("cpu", (dist.get_world_size(),)))
    groups: Any = [{"params": [model.weight]}, {"params": [model.bias], "wd_mult": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)
    scheduler = OptimizerParamScheduler(optimizer, **ENTRIES, unit="samples")
    return model, optimizer, adapters.megatron.ten_keys(scheduler)


def state_of(model, optimizer, opt_param_scheduler, iteration):
    """Return what a checkpoint has, under Megatron's names."""
    parts = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    return {**parts, "iteration": iteration, "opt_param_scheduler": opt_param_scheduler}


def train(folder, updates):
    """Go on from the last checkpoint to a number of updates, and save another one."""
    model, optimizer, opt_param_scheduler = build()
    first = 0
    if last := sorted(folder.glob("iter_*")):
        state = state_of(model, optimizer, opt_param_scheduler, first)
        dcp.load(state, checkpoint_id=last[-1])
        first, parts = state["iteration"], (state["model"], state["optimizer"])
        set_state_dict(model, optimizer, model_state_dict=parts[0], optim_state_dict=parts[1])
    for _ in range(first, updates):
        model(torch.ones(BATCH, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if dist.get_rank() == 0:
            print([[group["lr"], group["weight_decay"]] for group in optimizer.param_groups])
        opt_param_scheduler.step(increment=BATCH)
    state = state_of(model, optimizer, opt_param_scheduler, updates)
    dcp.save(state, checkpoint_id=folder / f"iter_{updates:07d}")


if __name__ == "__main__":
    dist.init_process_group()
    train(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
    dist.destroy_process_group()
