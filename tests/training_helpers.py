"""Sixteen updates in one go, or seven, a save, a new process and nine: what they must hold.

Programs and tests of training loops share it. lr is on a cosine curve and weight decay on a line.
"""

from __future__ import annotations

import torch

from dist_sched import ParamScheduler, schedules

UPDATES = 16
SAVED = 7
"""After how many updates the runs are saved."""

PEAK = 3e-4
LR = schedules.cosine(peak=PEAK, horizon=14, warmup=3, floor=3e-5)
WEIGHT_DECAY = schedules.linear(peak=0.1, horizon=16, warmup=0, floor=0.01)
RATIOS = {"decay": (1.0, 1.0), "no_decay": (1.0, 0.0), "head": (0.5, 1.0)}
"""By group: what multiplies its lr and its weight decay."""


def groups_of(named_parameters):
    """Return param groups `decay`, `no_decay` (biases) and `head`, those of them that there are."""
    members = {name: [] for name in RATIOS}
    for name, parameter in named_parameters:
        kind = "no_decay" if name.endswith("bias") else "decay"
        members["head" if "head.weight" in name else kind].append(parameter)
    return [
        {"name": name, "params": each, "lr": PEAK, "weight_decay": 0.1 * RATIOS[name][1]}
        for name, each in members.items()
        if each
    ]


def schedule(optimizer, **arguments):
    """Return the scheduler of a run; lr of the head is halved by a number."""
    fields = {"lr": LR, "weight_decay": WEIGHT_DECAY}
    groups = {"head": {"lr": RATIOS["head"][0]}}
    return ParamScheduler(optimizer, fields, groups=groups, **arguments)


def values_of(*optimizers):
    """Return lr and weight decay of every group, by the group's name."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return {group["name"]: [float(group["lr"]), group["weight_decay"]] for group in groups}


def as_float32(sequence):
    """Return updates with every lr as a tensor of 32 bits has it."""
    return [
        {name: [torch.tensor(lr).item(), decay] for name, (lr, decay) in update.items()}
        for update in sequence
    ]


def curves(names=RATIOS, begin=0):
    """Return what groups must hold at every update from `begin` on."""
    return [
        {name: [LR(k) * RATIOS[name][0], WEIGHT_DECAY(k) * RATIOS[name][1]] for name in names}
        for k in range(begin, UPDATES)
    ]
