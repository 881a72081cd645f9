"""Train and save after every update; one worker is killed, and torchrun starts all of them again.

    restarted.py FOLDER

Writes what the groups held at every update, and at which start it was.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

import worker
from training_helpers import SAVED, UPDATES, groups_of, schedule, values_of


def main():
    folder = Path(sys.argv[1])
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    model = torch.nn.Sequential()
    model.add_module("head", torch.nn.Linear(4, 4))
    with worker.joined():
        optimizer = torch.optim.AdamW(groups_of(model.named_parameters()))
        scheduler = schedule(optimizer)
        saves = sorted(folder.glob("*/.metadata"))
        if saves:
            dcp.load({"scheduler": scheduler}, checkpoint_id=saves[-1].parent)
        kept = folder / f"rank{dist.get_rank()}.json"
        used = json.loads(kept.read_text()) if kept.exists() else []
        while scheduler.num_steps < UPDATES:
            used.append([start, scheduler.num_steps, values_of(optimizer)])
            kept.write_text(json.dumps(used))
            if start == 0 and scheduler.num_steps == SAVED:
                dist.barrier()  # or torchrun might stop the others before they have written
                if dist.get_rank() == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            scheduler.step()
            dcp.save({"scheduler": scheduler}, checkpoint_id=folder / f"{scheduler.num_steps:02}")
        worker.write(used)


if __name__ == "__main__":
    main()
