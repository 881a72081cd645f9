"""ignite with your own schedule: train, stop, and resume.

python examples/ignite_trainer.py --updates 7             # stops after 7 updates, and saves
python examples/ignite_trainer.py --updates 16 --resume   # goes on, in a new process
"""

from __future__ import annotations

import argparse

import torch
from ignite.engine import Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver

from dist_sched import ParamScheduler, adapters, schedules

parser = argparse.ArgumentParser()
parser.add_argument("--updates", type=int, default=16)
parser.add_argument("--folder", default="runs/ignite")
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
fields = {
    "lr": schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4),
    "weight_decay": schedules.linear(0.1, horizon=16, floor=0.01),
}
scheduler = ParamScheduler(optimizer, fields)
handler = adapters.ignite.handler(scheduler)

trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
trainer.add_event_handler(Events.ITERATION_COMPLETED, handler)
parts = {"trainer": trainer, "model": model, "optimizer": optimizer, "scheduler": handler}
saver = Checkpoint(parts, DiskSaver(options.folder, require_empty=False), filename_prefix="run")
last = Events.ITERATION_COMPLETED(once=options.updates)
trainer.add_event_handler(last, saver)
trainer.add_event_handler(last, trainer.terminate)
if options.resume:
    Checkpoint.load_objects(parts, torch.load(f"{options.folder}/run_checkpoint_7.pt"))

batches = [(torch.randn(4, 8), torch.randn(4, 1)) for _ in range(8)]
trainer.run(batches, max_epochs=2)
scheduler.check_position(trainer.state.iteration)
