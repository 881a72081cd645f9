"""torchtitan 0.3: its Trainer with a schedule of lr and weight decay.

    torchrun --nproc-per-node=8 -m torchtitan.train \
        --module examples.torchtitan_config --config debugmodel

Two entries of a config function differ from torchtitan's own. `CheckpointManager` is torchtitan's,
except that it also resumes a run of torchtitan's own scheduler.
"""

from __future__ import annotations

from torchtitan.models.llama3.config_registry import llama3_debugmodel

from dist_sched import ParamScheduler, schedules
from dist_sched.adapters.torchtitan import CheckpointManager, SchedulersContainer


def make_scheduler(optimizers, training_steps):
    """Return the scheduler of a run. The horizon is its own entry, so a run may stop before it."""
    lr = schedules.cosine(peak=8e-4, horizon=max(16, training_steps), warmup=4, floor=8e-5)
    weight_decay = schedules.proportional_to("lr", at_max=0.1)
    return ParamScheduler(optimizers, {"lr": lr, "weight_decay": weight_decay})


def debugmodel():
    """Return the config that torchtitan's command line asks for."""
    config = llama3_debugmodel()
    config.lr_scheduler = SchedulersContainer.Config(make=make_scheduler)
    config.checkpoint = CheckpointManager.Config(enable=True, interval=7)
    return config
