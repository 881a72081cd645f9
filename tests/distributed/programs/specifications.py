"""Saves drawn specifications at every position, and goes on from each on any number of ranks.

    specifications.py save FOLDER
    specifications.py load FOLDER

The folder is shared by all ranks. Both write, for each drawn case, the values that each group held
for each update; `load` those of every run that began at a saved position.
"""

from __future__ import annotations

import logging
import random
import sys
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import worker
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from dist_sched import (
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    RankMismatchError,
    Schedule,
    schedules,
)

CASES = 6
UPDATES = 8
INCREMENTS = (1, 3, 2, 5, 1, 4, 2, 3)
SHAPES = ("linear", "cosine", "polynomial", "minus_sqrt", "halving", "exponential", "inverse_sqrt")


def drawn_schedule(draw, highest):
    starts = [draw.uniform(0.1, 1) * highest for _ in range(4)]
    phases = [
        Phase(
            draw.choice(SHAPES),
            draw.choice([1, 2.5, 3, 7]),
            end=end,
            start=draw.choice([None, start]) if index else start,
        )
        for index, (start, end) in enumerate(pairwise(starts))
    ]
    return Schedule(phases[: draw.randint(1, 3)])


def drawn(case):
    """Give fields, groups and a late change: the position and what is done there."""
    draw = random.Random(case)
    fields = {
        "lr": drawn_schedule(draw, 1e-2),
        "weight_decay": schedules.proportional_to(at_max=0.1),
    }
    if draw.random() < 0.5:
        fields["weight_decay"] = drawn_schedule(draw, 0.1)
    fields["betas[0]"] = drawn_schedule(draw, 0.9)
    fields["momentum"] = drawn_schedule(draw, 0.9)
    own = draw.choice([0.5, drawn_schedule(draw, 2e-2)])
    late = draw.choice([None, *range(UPDATES)])
    return fields, {"embed*": {"lr": own}}, late


def models():
    """Build a sharded model and the two optimizers that share it."""
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 6))
    fully_shard(model, mesh=mesh)
    groups = [
        {"params": [model[0].weight], "name": "embed_in"},
        {"params": [model[0].bias], "name": "bias", "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1)
    sgd = torch.optim.SGD(model[1].parameters(), lr=2e-2, momentum=0.9, weight_decay=0.05)
    return model, adam, sgd


class Run:
    """One drawn run."""

    def __init__(self, case, folder):
        fields, groups, self.late = drawn(case)
        self.model, *self.optimizers = models()
        self.scheduler = ParamScheduler(self.optimizers, fields, groups=groups, unit="samples")
        self.folder = folder
        self.case = case

    def at(self, update):
        return self.folder / f"{self.case}-{update}"

    def held(self):
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        names = ("lr", "weight_decay", "momentum", "betas")
        return [[group.get(name) for name in names] for group in groups]

    def state(self):
        states = [get_optimizer_state_dict(self.model, one) for one in self.optimizers]
        return {"optimizers": states, "scheduler": self.scheduler}

    def go(self, begin, *, save=False):
        """Make the updates from one on; tell what each used."""
        told = []
        for update in range(begin, UPDATES):
            if save:
                dcp.save({"scheduler": self.scheduler}, checkpoint_id=self.at(update))
            if update == self.late:
                self.scheduler.cooldown(6, "linear", allow_jump=True)
            told.append(self.held())
            self.model(torch.ones(2, 6)).square().mean().backward()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.scheduler.step(INCREMENTS[update])
        self.scheduler.verify()
        return told

    def resume(self, update):
        dcp.load({"scheduler": self.scheduler}, checkpoint_id=self.at(update))
        self.scheduler.check_position(sum(INCREMENTS[:update]))
        return self.go(update)


def save(folder):
    return [Run(case, folder).go(0, save=True) for case in range(CASES)]


def load(folder):
    logging.disable(logging.WARNING)
    found = [
        [Run(case, folder).resume(update) for update in range(UPDATES)] for case in range(CASES)
    ]
    return {
        "runs": found,
        "late": late_changes_of_one_rank(),
        "config": config_of_one_rank(),
        "fields": fields_of_one_rank(),
        "kind": kind_of_one_rank(),
        "variants": variants(),
        "weight_decay": weight_decay_of_one_rank(),
        "stage": stage_of_one_rank(),
    }


def small(peak=1.0):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return ParamScheduler(optimizer, {"lr": schedules.wsd(peak, 100, decay=10)})


def late_changes_of_one_rank():
    """Only the first rank cools down: verify names it, and synchronize mends it."""
    scheduler = small()
    scheduler.seek(50)
    if dist.get_rank() == 0:
        scheduler.cooldown(10)
    try:
        scheduler.verify()
        error = ""
    except RankMismatchError as found:
        error = str(found)
    scheduler.synchronize()
    scheduler.verify()
    scheduler.step(10)
    return {"error": error, "lr": scheduler.get_last_lr(), "changes": len(scheduler.history)}


def config_of_one_rank():
    """A rank with another specification adopts the first rank's in a load."""
    saved = small()
    saved.seek(50)
    scheduler = small(peak=1.0 + dist.get_rank())
    scheduler.load_state_dict(saved.state_dict() if dist.get_rank() == 0 else {})
    scheduler.verify()
    return scheduler.get_last_lr()


def with_momentum(order, *, has_momentum=True):
    fields = {"lr": schedules.linear(1.0, 100), "weight_decay": schedules.constant(0.1, 100)}
    groups = [torch.nn.Parameter(torch.zeros(1))]
    if has_momentum:
        optimizer = torch.optim.SGD(groups, lr=1.0, weight_decay=0.1, momentum=0.9)
        fields["momentum"] = schedules.linear(0.9, 100)
    else:
        optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.1)
    return ParamScheduler(optimizer, dict(order(fields.items())))


def fields_of_one_rank():
    """Other ranks name the fields in another order, or lack one together with their groups."""
    rank = dist.get_rank()
    found = []
    for has_momentum in (True, rank == 0, rank == dist.get_world_size() - 1):
        scheduler = with_momentum(reversed if rank else list, has_momentum=has_momentum)
        scheduler.synchronize()
        scheduler.seek(50)
        scheduler.verify()
        group = scheduler.optimizer.param_groups[0]
        found.append([group["lr"], group["weight_decay"], group.get("momentum")])
    return found


VARIANTS = {
    "more phases here": (schedules.wsd(1.0, 100, decay=10), schedules.linear(1.0, 100), {}, {}),
    "fewer phases here": (schedules.linear(1.0, 100), schedules.wsd(1.0, 100, decay=10), {}, {}),
    "cut here": (
        Schedule([Phase("linear", 100, 0.0, 1.0, until=30)]),
        schedules.linear(1.0, 100),
        {},
        {},
    ),
    "a group here": (1.0, 1.0, {"a": {"lr": 0.5}}, {}),
    "a group there": (1.0, 1.0, {}, {"a": {"lr": 0.5}}),
}


def variants():
    """Ranks whose specifications differ by parts that one of them lacks are told, and mended."""
    rank, found = dist.get_rank(), {}
    for name, (mine, others, groups, other_groups) in VARIANTS.items():
        optimizer = torch.optim.SGD(
            [{"params": [torch.nn.Parameter(torch.zeros(1))], "name": "a"}], lr=1.0
        )
        fields = {"lr": others if rank else mine}
        scheduler = ParamScheduler(optimizer, fields, groups=other_groups if rank else groups)
        scheduler.seek(50)
        try:
            scheduler.verify()
            is_found = False
        except RankMismatchError:
            is_found = True
        scheduler.synchronize()
        scheduler.verify()
        found[name] = [is_found, scheduler.get_last_lr(), scheduler.num_steps]
    return found


def weight_decay_of_one_rank():
    """A load drops a field that the first rank does not schedule: groups get back what they had."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, weight_decay=0.1)
    fields = {"lr": 1.0, "weight_decay": 0.2} if dist.get_rank() else {"lr": 1.0}
    scheduler = ParamScheduler(optimizer, fields)
    state = small().state_dict() if dist.get_rank() else scheduler.state_dict()
    scheduler.load_state_dict(state)
    scheduler.verify()
    return optimizer.param_groups[0]["weight_decay"]


def stage_of_one_rank():
    """A named group that only the last rank has is scheduled there after synchronize."""
    is_last = dist.get_rank() == dist.get_world_size() - 1
    name = "head" if is_last else "body"
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "name": name}
    groups = {"head": {"lr": 0.5}} if is_last else {}
    scheduler = ParamScheduler(torch.optim.SGD([group], lr=1.0), {"lr": 1.0}, groups=groups)
    scheduler.synchronize()
    scheduler.load_state_dict(scheduler.state_dict())
    scheduler.verify()
    return [is_last, scheduler.get_last_lr()]


def kind_of_one_rank():
    """A rank with the other scheduler is named on every rank."""
    if dist.get_rank() == 0:
        scheduler = small()
    else:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        rest = (1.0, 1.0, 0.1, 0, 100, "linear", 0.0, 0.0, 0, "constant")
        scheduler = OptimizerParamScheduler(optimizer, *rest)
    before = scheduler.state_dict()
    errors = []
    for call in (scheduler.verify, scheduler.synchronize):
        try:
            call()
            errors.append("")
        except RankMismatchError as error:
            errors.append(str(error))
    return {"errors": errors, "is_unchanged": before == scheduler.state_dict()}


def main():
    mode, folder = sys.argv[1], Path(sys.argv[2])
    with worker.joined():
        worker.write({"save": save, "load": load}[mode](folder))


if __name__ == "__main__":
    main()
