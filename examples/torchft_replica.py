"""One replica of torchft with your own schedule; updates that fail are not counted.

python examples/torchft_replica.py --updates 7             # stops after 7 updates, and saves
python examples/torchft_replica.py --updates 16 --resume   # goes on, in a new process
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torchft import Manager, Optimizer, ProcessGroupGloo
from torchft.coordination import LighthouseServer

from dist_sched import ParamScheduler, adapters, schedules

parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16)
parser.add_argument("--folder", type=Path, default=Path("runs/torchft"))
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

if "TORCHFT_LIGHTHOUSE" not in os.environ:  # a job of one replica
    lighthouse = LighthouseServer(bind="[::]:0", min_replicas=1)
    os.environ["TORCHFT_LIGHTHOUSE"] = lighthouse.address()
store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)

model = torch.nn.Linear(8, 1)
place = {"store_addr": "localhost", "store_port": store.port, "rank": 0, "world_size": 1}
manager = Manager(ProcessGroupGloo(), None, None, min_replica_size=1, **place)
optimizer = Optimizer(manager, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1))
fields = {
    "lr": schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4),
    "weight_decay": schedules.linear(0.1, horizon=16, floor=0.01),
}
scheduler = adapters.as_lr_scheduler(ParamScheduler(optimizer, fields))
parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
for name, part in parts.items():  # what a replica gets that comes back
    manager.register_state_dict_fn(name, part.load_state_dict, part.state_dict)
parts["manager"] = manager
if options.resume:
    for name, state in torch.load(options.folder / "replica.pt").items():
        parts[name].load_state_dict(state)
attempts = 0
while manager.current_step() < options.updates:
    optimizer.zero_grad()
    model(torch.randn(4, 8)).square().mean().backward()
    for parameter in model.parameters():
        manager.allreduce(parameter.grad).wait()
    attempts += 1
    if attempts % 3 == 0:  # as when a replica is lost: the update is not committed
        manager.report_error(RuntimeError("lost a replica"))
    optimizer.step()
    scheduler.step()
scheduler.scheduler.check_position(manager.current_step())
options.folder.mkdir(parents=True, exist_ok=True)
torch.save({name: part.state_dict() for name, part in parts.items()}, options.folder / "replica.pt")
manager.shutdown()
