"""Every kind of optimizer: sixteen updates, or nine after those that were saved.

    optimizer_kinds.py save FOLDER DEVICE KIND...    makes all updates, and saves after the seventh
    optimizer_kinds.py load FOLDER DEVICE KIND...    goes on from there

Both write by kind what the groups held at every update.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch

import worker
from training_helpers import SAVED, UPDATES, groups_of, schedule, values_of

WIDTH = 64
"""torchao keeps only states of 4096 numbers or more in 8 bits."""


class Run:
    """A model of two layers and the optimizers of its parameters."""

    def __init__(self, kind, device):
        torch.manual_seed(0)
        self.device = device
        layers = {"body": torch.nn.Linear(WIDTH, WIDTH), "head": torch.nn.Linear(WIDTH, WIDTH)}
        self.model = torch.nn.Sequential()
        for name, layer in layers.items():
            self.model.add_module(name, layer.to(device))
        self.optimizers = KINDS[kind](self)
        self.scheduler = schedule(self.optimizers)

    def groups(self):
        return groups_of(self.model.named_parameters())

    def update(self):
        self.model(torch.ones(2, WIDTH, device=self.device)).square().mean().backward()
        self.step_optimizers()

    def step_optimizers(self):
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def finish(self, path=None):
        """Return what the groups hold at every update that is left; save after the seventh."""
        sequence = []
        while self.scheduler.num_steps < UPDATES:
            if path is not None and self.scheduler.num_steps == SAVED:
                torch.save(self.states(), path)
            sequence.append(values_of(*self.optimizers))
            self.update()
            self.scheduler.step()
        return sequence

    def states(self):
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        return [self.model.state_dict(), optimizers, self.scheduler.state_dict()]

    def load(self, path):
        model, optimizers, scheduler = torch.load(path)
        self.model.load_state_dict(model)
        for optimizer, state in zip(self.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(state)
        self.scheduler.load_state_dict(scheduler)


def of(cls, **options):
    return lambda run: [cls(run.groups(), **options)]


def with_tensor_lr(**options):
    """Return what builds an AdamW whose lr is a tensor for each group, on the device."""

    def build(run):
        groups = run.groups()
        for group in groups:
            group["lr"] = torch.tensor(group["lr"], device=run.device)
        return [torch.optim.AdamW(groups, **options)]

    return build


def muon(run):
    """Return a Muon of the matrices, and an AdamW of the rest."""
    first, *others = run.groups()
    biases = [group for group in others if group["name"] == "no_decay"]
    matrices = [first, *(group for group in others if group["name"] == "head")]
    return [torch.optim.Muon(matrices), torch.optim.AdamW(biases)]


def in_backward(run):
    """Return an optimizer for each parameter, which is stepped as soon as its gradient is there."""
    optimizers = {}
    for named in run.model.named_parameters():
        optimizers[named[1]] = torch.optim.AdamW(groups_of([named]))

    def step(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in optimizers:
        parameter.register_post_accumulate_grad_hook(step)
    run.step_optimizers = lambda: None
    return [*optimizers.values()]


def torchao(run):
    from torchao.optim import AdamW8bit

    torch.compiler.set_stance("force_eager")  # it compiles its update, which needs a C++ compiler
    return [AdamW8bit(run.groups())]


def schedule_free(run):
    from schedulefree import AdamWScheduleFree

    optimizer = AdamWScheduleFree(run.groups())
    optimizer.train()
    return [optimizer]


KINDS = {
    "foreach": of(torch.optim.AdamW, foreach=True),
    "fused": of(torch.optim.AdamW, fused=True),
    "capturable": of(torch.optim.AdamW, capturable=True),
    "tensor lr": with_tensor_lr(),
    "fused, tensor lr": with_tensor_lr(fused=True),
    "capturable, tensor lr": with_tensor_lr(capturable=True),
    "sgd": of(torch.optim.SGD, momentum=0.9),
    "adafactor": of(torch.optim.Adafactor),
    "radam": of(torch.optim.RAdam),
    "muon and adamw": muon,
    "in backward": in_backward,
    "torchao": torchao,
    "schedule-free": schedule_free,
}


def save(kind, path, device):
    return Run(kind, device).finish(path)


def load(kind, path, device):
    run = Run(kind, device)
    run.load(path)
    return run.finish()


def main():
    logging.disable(logging.WARNING)
    action, folder, kinds = (
        {"save": save, "load": load}[sys.argv[1]],
        Path(sys.argv[2]),
        sys.argv[4:],
    )
    with worker.joined(sys.argv[3]) as device:
        worker.write({kind: action(kind, folder / f"{kind}.pt", device) for kind in kinds})


if __name__ == "__main__":
    main()
