"""Save models with DCP in mid-run, and go on with them on another number of ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from cases import CONFIG
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from dist_sched import OptimizerParamScheduler

UPDATES = 3


def fsdp2(model):
    return fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def hsdp(model):
    size = dist.get_world_size()
    shape = (1, size) if size % 2 else (2, size // 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
    return fully_shard(model, mesh=mesh)


KINDS = {"fsdp2": fsdp2, "ddp": DistributedDataParallel, "hsdp": hsdp}


class Trainer:
    """A model with a decay and a no-decay group, saved and loaded as in DCP's tutorial."""

    def __init__(self, kind):
        self.model = KINDS[kind](torch.nn.Linear(8, 8))
        params = dict(self.model.named_parameters())
        bias = next(name for name in params if name.endswith("bias"))
        groups = [
            {"params": [params.pop(bias)], "weight_decay": 0.0},
            {"params": [*params.values()]},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.5)
        self.scheduler = OptimizerParamScheduler(self.optimizer, **CONFIG)
        self.parts = {"trainer": self, "scheduler": self.scheduler}

    def state_dict(self):
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state):
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )

    def weights(self):
        whole = get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True))
        return {name: weight.tolist() for name, weight in whole.items()}

    def values(self):
        groups = self.optimizer.param_groups
        return [float(group[key]).hex() for key in ("lr", "weight_decay") for group in groups]

    def train(self):
        """Make some updates; return the values of each, and of the one after."""
        sequence = [self.values()]
        for _ in range(UPDATES):
            self.model(torch.ones(2, 8)).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()
            sequence.append(self.values())
        return sequence


def save(folder):
    """Save in mid-run; return the weights saved and the values from there on."""
    results = {}
    for kind in KINDS:
        torch.manual_seed(0)
        trainer = Trainer(kind)
        trainer.train()
        dcp.save(trainer.parts, checkpoint_id=folder / kind)
        results[kind] = {"weights": trainer.weights(), "values": trainer.train()}
    return results


def load(folder):
    """Go on from what was saved, with a model that begins with other weights."""
    results = {}
    for kind in KINDS:
        torch.manual_seed(1)
        trainer = Trainer(kind)
        dcp.load(trainer.parts, checkpoint_id=folder / kind)
        trainer.scheduler.verify()
        results[kind] = {"weights": trainer.weights(), "values": trainer.train()}
    return results
