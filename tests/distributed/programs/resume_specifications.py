"""Save runs with random specifications before every update, and resume each from every save.

    resume_specifications.py save FOLDER
    resume_specifications.py load FOLDER

The folder is shared by all ranks. `save` returns what the groups of each run held at each update,
`load` the same from every save on, and cases of ranks that declare different things.
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
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import worker
from dist_sched import (
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    RankMismatchError,
    Schedule,
    schedules,
)
from helpers import CONFIG, adamw, sgd

RUNS = 6
UPDATES = 8
INCREMENTS = (1, 3, 2, 5, 1, 4, 2, 3)
SHAPES = ("linear", "cosine", "polynomial", "minus_sqrt", "halving", "exponential", "inverse_sqrt")
SHAPES += ("rex", "log", "sine")
LATE_CHANGES = [
    ("cooldown", {"steps": 6, "shape": "linear", "allow_jump": True}),
    ("scale", {"factor": 0.5}),
    ("scale", {"factor": 0.25, "field": "batch_size"}),
    ("extend", {"horizon": 40, "keep": "value"}),
    ("rewarm", {"steps": 5, "allow_jump": True}),
]


def random_schedule(draw, highest):
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
    schedule = Schedule(phases[: draw.randint(1, 3)])
    if draw.random() < 0.3:
        tail = Schedule([Phase("linear", 9, end=0.5, start=0.25)])
        schedule = schedules.product(schedule, tail)
    return schedule


def declaration(seed):
    """Return fields, groups, extras, and late changes by the update before which they are made."""
    draw = random.Random(seed)
    decay = schedules.proportional_to("lr", at_max=0.1)
    fields = {"lr": random_schedule(draw, 1e-2), "weight_decay": decay}
    if draw.random() < 0.5:
        fields["weight_decay"] = random_schedule(draw, 0.1)
    extras = {
        "batch_size": schedules.whole(random_schedule(draw, 640), multiple_of=8),
        "loss_weight": schedules.proportional_to("batch_size", at_max=0.5, power=0.5),
    }
    fields["betas[0]"] = random_schedule(draw, 0.9)
    fields["momentum"] = random_schedule(draw, 0.9)
    groups = {"embed*": {"lr": draw.choice([0.5, random_schedule(draw, 2e-2)])}}
    changes = draw.sample(LATE_CHANGES, draw.randint(0, 3))
    return fields, groups, extras, {draw.randrange(UPDATES): change for change in changes}


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


OWN_VALUES = {"lr": 1e-2, "weight_decay": 0.1}
"""Of the first optimizer: random schedules have another highest value."""


class Run:
    """A run with a random specification."""

    def __init__(self, seed, folder):
        fields, groups, extras, self.changes = declaration(seed)
        self.model, *self.optimizers = models()
        reference = {key: own for key, own in OWN_VALUES.items() if key in fields}
        self.scheduler = ParamScheduler(
            self.optimizers,
            fields,
            groups=groups,
            extras=extras,
            reference=reference,
            unit="samples",
        )
        self.folder = folder
        self.seed = seed

    def checkpoint(self, update):
        return self.folder / f"{self.seed}-{update}"

    def held(self):
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        names = ("lr", "weight_decay", "momentum", "betas")
        found = [[group.get(name) for name in names] for group in groups]
        return [*found, list(self.scheduler.extras.values())]

    def train(self, begin=0, *, save=False):
        """Make the updates from `begin` on; return what the groups held at each."""
        held = []
        for update in range(begin, UPDATES):
            if save:
                dcp.save({"scheduler": self.scheduler}, checkpoint_id=self.checkpoint(update))
            if update in self.changes:
                name, arguments = self.changes[update]
                getattr(self.scheduler, name)(**arguments)
            held.append(self.held())
            self.model(torch.ones(2, 6)).square().mean().backward()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.scheduler.step(INCREMENTS[update])
        self.scheduler.verify()
        return held

    def resume(self, update):
        dcp.load({"scheduler": self.scheduler}, checkpoint_id=self.checkpoint(update))
        self.scheduler.check_position(sum(INCREMENTS[:update]))
        return self.train(update)


def save(folder):
    return [Run(seed, folder).train(save=True) for seed in range(RUNS)]


def load(folder):
    logging.disable(logging.WARNING)
    runs = [[Run(seed, folder).resume(update) for update in range(UPDATES)] for seed in range(RUNS)]
    return {
        "runs": runs,
        "late_change": late_change_on_one_rank("cooldown", {"steps": 10}),
        "scale": late_change_on_one_rank("scale", {"factor": 0.5}),
        "stretch": late_change_on_one_rank("extend", {"horizon": 150, "keep": "value"}, 95),
        "config": another_config_on_one_rank(),
        "fields": another_order_of_fields(),
        "kind": another_scheduler_on_one_rank(),
        "variants": parts_on_some_ranks(),
        "weight_decay": field_on_other_ranks(),
        "stage": group_on_one_rank(),
    }


def build(peak=1.0):
    return ParamScheduler(sgd(), {"lr": schedules.wsd(peak, 100, decay=10)})


def late_change_on_one_rank(name, arguments, position=50):
    """The first rank alone changes: `verify` names it, and `synchronize` changes the others."""
    scheduler = build()
    scheduler.seek(position)
    if dist.get_rank() == 0:
        getattr(scheduler, name)(**arguments)
    try:
        scheduler.verify()
        error = ""
    except RankMismatchError as found:
        error = str(found)
    scheduler.synchronize()
    scheduler.verify()
    scheduler.step(10)
    return {"error": error, "lr": scheduler.get_last_lr(), "changes": len(scheduler.history)}


def another_config_on_one_rank():
    """Load where each rank has another peak: all adopt the first rank's."""
    saved = build()
    saved.seek(50)
    state = saved.state_dict()
    del saved  # where it lives on, it is the one that rank 0 means
    scheduler = build(peak=1.0 + dist.get_rank())
    scheduler.load_state_dict(state if dist.get_rank() == 0 else {})
    scheduler.verify()
    return scheduler.get_last_lr()


def with_momentum(order, *, has_momentum=True):
    fields = {"lr": schedules.linear(1.0, 100), "weight_decay": schedules.constant(0.1, 100)}
    optimizer = adamw()
    if has_momentum:
        optimizer = sgd(weight_decay=0.1, momentum=0.9)
        fields["momentum"] = schedules.linear(0.9, 100)
    return ParamScheduler(optimizer, dict(order(fields.items())))


def another_order_of_fields():
    """Other ranks declare the fields in another order, or lack momentum and its groups."""
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


def parts_on_some_ranks():
    """The first rank, or the others, lack a phase or a group, which `synchronize` adds there."""
    rank, found = dist.get_rank(), {}
    for name, (first, others, first_groups, other_groups) in VARIANTS.items():
        fields = {"lr": others if rank else first}
        groups = other_groups if rank else first_groups
        scheduler = ParamScheduler(sgd({"name": "a"}), fields, groups=groups)
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


def field_on_other_ranks():
    """A load drops a field that the first rank does not schedule: its own values come back."""
    optimizer = sgd(weight_decay=0.1)
    fields = {"lr": 1.0, "weight_decay": 0.2} if dist.get_rank() else {"lr": 1.0}
    scheduler = ParamScheduler(optimizer, fields)
    state = build().state_dict() if dist.get_rank() else scheduler.state_dict()
    scheduler.load_state_dict(state)
    scheduler.verify()
    return optimizer.param_groups[0]["weight_decay"]


def group_on_one_rank():
    """A named group that only the last rank has is scheduled there after `synchronize`."""
    is_last = dist.get_rank() == dist.get_world_size() - 1
    optimizer = sgd({"name": "head" if is_last else "body"})
    groups = {"head": {"lr": 0.5}} if is_last else {}
    scheduler = ParamScheduler(optimizer, {"lr": 1.0}, groups=groups)
    scheduler.synchronize()
    scheduler.load_state_dict(scheduler.state_dict())
    scheduler.verify()
    return [is_last, scheduler.get_last_lr()]


def another_scheduler_on_one_rank():
    """`verify` and `synchronize` refuse ranks with different classes of schedulers."""
    scheduler = build() if dist.get_rank() == 0 else OptimizerParamScheduler(sgd(), **CONFIG)
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
