"""Draw ranks that differ, load and synchronize, and count where they did not end alike."""

from __future__ import annotations

import argparse
import random

import torch
import torch.distributed as dist

import helpers
import worker
from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule, register_shape
from dist_sched._curves import shapes

SCHEDULES = [
    helpers.HILL,
    helpers.OTHER_HILL,
    Schedule([Phase("cosine", 40, end=0.1, start=1.0)]),
    Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("constant", 40, end=1.0)]),
]
NAMES = ["a", "ab", "b", "head", None]
PATTERNS = ["a*", "*b", "head", "haed", "?"]


def drawn_groups(draw):
    """Return the param groups of one rank, few of them, some with overrides or no lr ratio."""
    groups = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        group = {"params": [torch.nn.Parameter(torch.ones(1))], "lr": draw.choice([1.0, 1.0, 0.5])}
        if (name := draw.choice(NAMES)) is not None:
            group["name"] = name
        if draw.random() < 0.2:
            group[draw.choice(["lr_mult", "max_lr", "wd_mult"])] = draw.choice([0.5, 2.0, 1])
        if draw.random() < 0.2:
            group["momentum"] = draw.choice([0.0, 0.25, 0.9])
        groups.append(group)
    return groups


def drawn_scheduler(draw, groups):
    """Return a scheduler of either class, or None where construction refuses what was drawn."""
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.5, weight_decay=0.1, foreach=False)
    settings = {
        "policy": draw.choice(["checkpoint", "checkpoint", "config", "strict"]),
        "reference": draw.choice([None, 1.0, "head"]),
        "name": draw.choice([None, None, "first", "second"]),
        "unit": draw.choice(["steps", "steps", "steps", "samples"]),
    }
    if draw.random() < 0.3:
        config = {**helpers.CONFIG, "max_lr": draw.choice([1.0, 0.5])}
        return lambda: OptimizerParamScheduler(optimizer, **config, **settings)
    fields = {"lr": draw.choice(SCHEDULES)}
    if draw.random() < 0.4:
        fields["momentum"] = draw.choice([0.25, 0.6, helpers.UP])
    if draw.random() < 0.1:
        fields["lr"] = Schedule([Phase(draw.choice(["mine", "linear"]), 8, end=0.0, start=1.0)])
    table = {draw.choice(PATTERNS): {"lr": draw.choice([0.5, SCHEDULES[0]])} for _ in range(2)}
    groups = table if draw.random() < 0.5 else None
    return lambda: ParamScheduler(optimizer, fields, groups=groups, **settings)


def attempt(action):
    try:
        action()
    except Exception as error:  # noqa: BLE001 - which error is right is not the question here
        return type(error).__name__, str(error)
    return None


def contents(scheduler):
    return scheduler.state_dict(), helpers.contents(scheduler)


def gathered(value):
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def run(number):
    """Run one case, and return what is wrong with it; None if nothing is."""
    rank = dist.get_rank()
    common, own = random.Random(number), random.Random((number + 1) * 1009 + rank)
    differs = own.random() < 0.3
    if not (differs and rank):
        register_shape("mine")(lambda progress: 1 - progress)
    groups = drawn_groups(own if own.random() < 0.5 else random.Random(number))
    built = []
    refused = attempt(lambda: built.append(drawn_scheduler(own if differs else common, groups)()))
    wrong = None
    if any(gathered(refused)):  # some script could not be started
        shapes.SHAPES.pop("mine", None)
        return None
    (scheduler,) = built
    state = scheduler.state_dict()
    if own.random() < 0.5:
        scheduler.seek(own.choice([3, 8, 20]))
        state = scheduler.state_dict()
    for action in (lambda: scheduler.load_state_dict(state), scheduler.synchronize):
        before = contents(scheduler)
        ends = gathered((attempt(action), scheduler.state_dict(), before == contents(scheduler)))
        errors = [end for end, _, _ in ends]
        if any(errors):
            if len(set(errors)) > 1 or not all(same for _, _, same in ends):
                wrong = wrong or ends
        elif len({str(found) for _, found, _ in ends}) > 1:
            wrong = wrong or ends
        elif any(found := gathered(attempt(scheduler.verify))):
            wrong = wrong or found
    shapes.SHAPES.pop("mine", None)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    with worker.joined():
        numbers = range(arguments.first, arguments.first + arguments.cases)
        wrong = {number: str(found)[:2000] for number in numbers if (found := run(number))}
        worker.write({"cases": len(numbers), "wrong": wrong})


if __name__ == "__main__":
    main()
