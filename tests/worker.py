"""What every program does: join the other ranks, write this rank's result, and leave."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


@contextlib.contextmanager
def joined(kind="cpu", **options):
    """Join the process group of torchrun's workers, and leave it together.

    Args:
        kind: cpu or cuda.
        **options: For `init_process_group`, such as a `timeout`.

    Yields:
        This rank's device.
    """
    # A worker past its time prints its stack and ends itself.
    faulthandler.dump_traceback_later(float(os.environ["WORKER_TIMEOUT"]), exit=True)
    device = torch.device(kind)
    if kind == "cuda":
        device = torch.device(kind, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        options["device_id"] = device
    dist.init_process_group(BACKENDS[kind], **options)
    yield device
    dist.barrier()
    dist.destroy_process_group()


def write(result):
    """Write this rank's result; a later call replaces what an earlier one wrote."""
    unfinished = _file(".tmp")
    unfinished.write_text(json.dumps(result))
    unfinished.replace(_file(".json"))


def _file(suffix):
    return Path(os.environ["WORKER_RESULTS"]) / f"rank{os.environ['RANK']}{suffix}"
