"""Models in every wrapper of torch's: sixteen updates, or nine after those that were saved.

    wrapped_models.py save FOLDER    makes all updates, and saves after the seventh
    wrapped_models.py load FOLDER    goes on from there, on any number of ranks

The folder is shared by all ranks. Both write by kind what the groups held at every update.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.nn.parallel import DistributedDataParallel

import worker
from training_helpers import PEAK, SAVED, UPDATES, groups_of, schedule, values_of

WIDTH = 8
LAYERS = ["first", "second", "third", "head"]


class Model(torch.nn.Sequential):
    """Four layers by name, or those of a pipeline's stage."""

    def __init__(self, layers=LAYERS):
        super().__init__()
        for name in layers:
            self.add_module(name, torch.nn.Linear(WIDTH, WIDTH, bias=name != "second"))


def fsdp1(model):
    return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))


def fsdp2(model):
    return fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def hsdp(model):
    size = dist.get_world_size()
    names = ("replicate", "shard")
    return fully_shard(model, mesh=init_device_mesh("cpu", (2, size // 2), mesh_dim_names=names))


class Run:
    """A wrapped model, saved and loaded as in DCP's tutorial."""

    def __init__(self, wrap, **options):
        self.options = StateDictOptions(**options)
        self.model = wrap(Model())
        self.optimizer = torch.optim.AdamW(groups_of(self.model.named_parameters()))
        self.scheduler = schedule(self.optimizer)

    def update(self):
        self.model(torch.ones(2, WIDTH)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def finish(self, folder=None):
        """Return what the groups hold at every update that is left; save after the seventh."""
        sequence = []
        while self.scheduler.num_steps < UPDATES:
            if folder is not None and self.scheduler.num_steps == SAVED:
                self.save(folder)
            sequence.append(values_of(self.optimizer))
            self.update()
            self.scheduler.step()
        return sequence

    def save(self, folder):
        dcp.save({"run": self, "scheduler": self.scheduler}, checkpoint_id=folder)

    def load(self, folder):
        dcp.load({"run": self, "scheduler": self.scheduler}, checkpoint_id=folder)

    def state_dict(self):
        model, optimizer = get_state_dict(self.model, self.optimizer, options=self.options)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state):
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=self.options,
        )


class Async(Run):
    """Saves in a thread, which needs a process group that nothing else uses meanwhile."""

    def save(self, folder):
        self.group = dist.new_group(backend="gloo")
        parts = {"run": self, "scheduler": self.scheduler}
        self.saving = dcp.async_save(parts, checkpoint_id=folder, process_group=self.group)

    def finish(self, folder=None):
        sequence = super().finish(folder)
        if folder is not None:
            self.saving.result()
            dist.destroy_process_group(self.group)
        return sequence


class Full(Run):
    """Saves one file, which the first rank alone reads and hands to the others."""

    def __init__(self, wrap):
        super().__init__(wrap, full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True)

    def save(self, folder):
        states = (*self.state_dict().values(), self.scheduler.state_dict())
        if dist.get_rank() == 0:
            torch.save(states, folder.with_suffix(".pt"))
        dist.barrier()

    def load(self, folder):
        model, optimizer, scheduler = {}, {}, {}
        if dist.get_rank() == 0:
            model, optimizer, scheduler = torch.load(folder.with_suffix(".pt"))
        # Not `set_state_dict`: where it gets no state of the model, as on these other ranks, it
        # takes part in no broadcast of the model, and the first rank waits for ever.
        set_model_state_dict(self.model, model, options=self.options)
        set_optimizer_state_dict(self.model, self.optimizer, optimizer, options=self.options)
        self.scheduler.load_state_dict(scheduler)


class Zero(Run):
    """Shards the optimizer's state; it is gathered on the first rank to be saved."""

    def __init__(self):
        self.model = DistributedDataParallel(Model())
        self.optimizer = ZeroRedundancyOptimizer(
            groups_of(self.model.named_parameters()), optimizer_class=torch.optim.AdamW, lr=PEAK
        )
        self.scheduler = schedule(self.optimizer)

    def save(self, folder):
        self.optimizer.consolidate_state_dict(to=0)
        if dist.get_rank() == 0:
            torch.save([self.optimizer.state_dict(), self.scheduler.state_dict()], f"{folder}.pt")
        dist.barrier()

    def load(self, folder):
        optimizer, scheduler = torch.load(f"{folder}.pt")
        self.optimizer.load_state_dict(optimizer)
        self.scheduler.load_state_dict(scheduler)


class Pipeline(Run):
    """Stages of one layer on four ranks and of two layers on two ranks, with unequal groups."""

    def __init__(self):
        rank, size = dist.get_rank(), dist.get_world_size()
        share = len(LAYERS) // size
        # DCP names a value by its place in the model, so groups must not have numbers.
        self.options = StateDictOptions(flatten_optimizer_state_dict=True)
        self.model = Model(LAYERS[rank * share :][:share])
        self.optimizer = torch.optim.AdamW(groups_of(self.model.named_parameters()))
        self.scheduler = schedule(self.optimizer)
        self.scheduler.synchronize()
        stage = PipelineStage(self.model, rank, size, torch.device("cpu"))
        self.pipeline = ScheduleGPipe(stage, 2, loss_fn=torch.nn.functional.mse_loss)
        self.inputs = [torch.ones(2, WIDTH)] if rank == 0 else []
        self.targets = {"target": torch.zeros(2, WIDTH)} if rank == size - 1 else {}

    def update(self):
        self.pipeline.step(*self.inputs, **self.targets)
        self.optimizer.step()
        self.optimizer.zero_grad()


class SubGroup(Run):
    """Trains on the first two ranks alone."""

    def __init__(self):
        self.group = dist.new_group([0, 1], backend="gloo")
        if dist.get_rank() > 1:
            return
        mesh = torch.distributed.device_mesh.DeviceMesh.from_group(self.group, "cpu")
        self.options = StateDictOptions()
        self.model = fully_shard(Model(), mesh=mesh)
        self.optimizer = torch.optim.AdamW(groups_of(self.model.named_parameters()))
        self.scheduler = schedule(self.optimizer, process_group=self.group)
        self.scheduler.synchronize()

    def finish(self, folder=None):
        return super().finish(folder) if dist.get_rank() < 2 else []

    def save(self, folder):
        if dist.get_rank() < 2:
            parts = {"run": self, "scheduler": self.scheduler}
            dcp.save(parts, checkpoint_id=folder, process_group=self.group)

    def load(self, folder):
        if dist.get_rank() < 2:
            parts = {"run": self, "scheduler": self.scheduler}
            dcp.load(parts, checkpoint_id=folder, process_group=self.group)


KINDS = {
    "ddp": lambda: Run(DistributedDataParallel),
    "fsdp1": lambda: Run(fsdp1),
    "fsdp2": lambda: Run(fsdp2),
    "hsdp": lambda: Run(hsdp),
    "flat": lambda: Run(fsdp2, flatten_optimizer_state_dict=True),
    "offload": lambda: Run(fsdp2, cpu_offload=True),
    "async": lambda: Async(fsdp2),
    "full": lambda: Full(fsdp2),
    "zero": Zero,
    "pipeline": Pipeline,
    "sub-group": SubGroup,
}


def save(kind, folder):
    return KINDS[kind]().finish(folder / kind)


def load(kind, folder):
    run = KINDS[kind]()
    run.load(folder / kind)
    return run.finish()


def main():
    logging.disable(logging.WARNING)
    action, folder = {"save": save, "load": load}[sys.argv[1]], Path(sys.argv[2])
    kinds = sys.argv[3:] or KINDS
    with worker.joined():
        worker.write({kind: action(kind, folder) for kind in kinds})


if __name__ == "__main__":
    main()
