"""Run an example as its reader would, and write what every update used, and what is left.

run_example.py EXAMPLE [ITS ARGUMENTS]
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import sys

from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

import worker

FIELDS = ("lr", "weight_decay", "momentum")


def local(tensor):
    """Return the part of a tensor that this rank has."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def main():
    used = []

    def record(optimizer, *_):
        groups = optimizer.param_groups
        # DCP makes the state of an optimizer by a step without gradients, which is no update.
        if any(local(weight.grad).any() for group in groups for weight in group["params"]):
            used.append([[group[field] for field in FIELDS if field in group] for group in groups])

    faulthandler.dump_traceback_later(float(os.environ["WORKER_TIMEOUT"]), exit=True)
    register_optimizer_step_pre_hook(record)
    _, *sys.argv = sys.argv
    left = runpy.run_path(sys.argv[0], run_name="__main__")
    # gloo may hang where a DDP model is freed after its process group, so it is kept.
    sys.modules["left by the example"] = left
    weights = [local(weight.detach()) for weight in left["model"].parameters()]
    worker.write({"used": used, "size": sum(float(weight.abs().sum()) for weight in weights)})


if __name__ == "__main__":
    main()
