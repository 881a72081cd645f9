"""DeepSpeed's engine at each stage of ZeRO, with gradient accumulation, on CPU.

Arguments: a folder, and `whole` (16 updates, saved after 7) or `resumed` (9 more from there).
"""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_pre_hook

import worker
from dist_sched import ParamScheduler, adapters, schedules

ACCUMULATION = 2
WAYS = "plain", "lr_scheduler"


def build(stage, way):
    """Return an engine, and the scheduler where the loop has to step it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    fields = {
        "lr": schedules.cosine(peak=1e-2, horizon=16, warmup=4, floor=1e-3),
        "weight_decay": schedules.proportional_to("lr", at_max=0.1),
    }
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": ACCUMULATION,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "wall_clock_breakdown": False,
    }
    given = {"model": model, "optimizer": optimizer, "config": config}
    if way == "plain":
        engine, *_ = deepspeed.initialize(**given)
        return engine, ParamScheduler(engine.optimizer, fields)
    scheduler = ParamScheduler(optimizer, fields)
    engine, *_ = deepspeed.initialize(**given, lr_scheduler=adapters.as_lr_scheduler(scheduler))
    return engine, None


def update(engine, scheduler):
    for _ in range(ACCUMULATION):
        is_update = engine.is_gradient_accumulation_boundary()
        loss = engine(torch.ones(4, 8)).square().mean()
        engine.backward(loss)
        engine.step()
        if is_update and scheduler is not None:
            scheduler.step()


def train(folder, stage, way, *, is_resumed):
    used = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: used.append(
            [[group["lr"], group["weight_decay"]] for group in optimizer.param_groups]
        )
    )
    engine, scheduler = build(stage, way)
    name = str(folder / f"{way}{stage}")
    if is_resumed:
        _, client = engine.load_checkpoint(name)
        if scheduler is not None:
            scheduler.load_state_dict(client["scheduler"])
    used.clear()
    for count in range(7 if is_resumed else 0, 16):
        update(engine, scheduler)
        if count == 6:
            client = {} if scheduler is None else {"scheduler": scheduler.state_dict()}
            engine.save_checkpoint(name, client_state=client)
    hook.remove()
    return used


def main():
    folder, part = Path(sys.argv[1]), sys.argv[2]
    # Collectives through shared memory would be compiled first, for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    faulthandler.dump_traceback_later(float(os.environ["WORKER_TIMEOUT"]), exit=True)
    deepspeed.init_distributed(dist_backend="gloo")
    result = {
        f"{way}{stage}": train(folder, stage, way, is_resumed=part == "resumed")
        for way in WAYS
        for stage in range(4)
    }
    worker.write(result)
    dist.barrier()
    dist.destroy_process_group()


main()
