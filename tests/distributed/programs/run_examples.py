"""Run examples in turn, each in the current folder as its reader would, and write what they used.

    run_examples.py JOB...

A job is an example and its arguments, such as "ddp.py --updates 7". The result has for each job
what the groups of the optimizers held at every update, and how large its model ended up.
"""

from __future__ import annotations

import functools
import logging
import os
import runpy
import sys
from pathlib import Path

import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

import worker

EXAMPLES = Path(__file__).parents[3] / "examples"
FIELDS = ("lr", "weight_decay", "momentum")


def run(job):
    used = []

    def record(optimizer, *_):
        groups = optimizer.param_groups
        used.append([[group[field] for field in FIELDS if field in group] for group in groups])

    name, *sys.argv[1:] = job.split()
    hook = register_optimizer_step_pre_hook(record)
    left = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    hook.remove()
    return {"used": used, "size": size(left["model"])}


def size(model):
    """Return the sum of absolute weights, of a sharded model those of this rank."""
    weights = (weight.detach() for weight in model.parameters())
    local = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights)
    return sum(float(weight.double().abs().sum()) for weight in local)


def main():
    worker.start()
    logging.disable(logging.INFO)
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    join, results = dist.init_process_group, {}
    for job in sys.argv[1:]:
        # The store keeps the addresses of the group before, so each group has keys of its own.
        own = {"store": dist.PrefixStore(job, store), "rank": int(os.environ["RANK"])}
        own["world_size"] = int(os.environ["WORLD_SIZE"])
        dist.init_process_group = functools.partial(join, **own)
        results[job] = run(job)
    worker.write(results)


if __name__ == "__main__":
    main()
