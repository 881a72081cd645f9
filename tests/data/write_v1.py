"""Write the files of version 1: run once, by the release that introduced it; never again.

python write_v1.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from dist_sched import OptimizerParamScheduler

LINEAR = {
    "init_lr": 0.001,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "lr_decay_style": "linear",
    "start_wd": 0.0,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "cosine",
}
WSD = {
    **LINEAR,
    "lr_warmup_steps": 37.5,
    "lr_decay_steps": 1000,
    "lr_decay_style": "WSD",
    "wsd_decay_steps": 200,
    "lr_wsd_decay_style": "minus_sqrt",
}


def scheduler(config, unit, position):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = OptimizerParamScheduler(optimizer, **config, unit=unit)
    built.seek(position)
    return built


def main():
    os.chdir(sys.argv[1])  # a folder's index holds its path, so that is a relative one
    dcp.save(
        {"app": {"weight": torch.zeros(2)}, "scheduler": scheduler(LINEAR, "steps", 60)},
        checkpoint_id="dcp",
    )
    torch.save(
        {"step": 900, "scheduler": scheduler(WSD, "tokens", 900).state_dict()}, Path("file.pt")
    )


if __name__ == "__main__":
    main()
