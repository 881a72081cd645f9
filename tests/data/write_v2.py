"""Write states of what version 2 added: run once, by the release that introduced it; never again.

python write_v2.py FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule, schedules

RISE = Phase("linear", 100, end=1.0, start=0.0)
WSD = Schedule([RISE, Phase("constant", 700, end=1.0), Phase("minus_sqrt", 200, end=0.1)])
"""Stable from 100 to 800; the horizon is 1000."""
COSINE = Schedule([RISE, Phase("cosine", 900, end=0.1)])
BATCH = schedules.whole(schedules.piecewise([(0, 64), (500, 512)]), multiple_of=64)
ENTRIES = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 100,
    "lr_decay_steps": 1000,
    "lr_decay_style": "WSD",
    "start_wd": 0.1,
    "end_wd": 0.2,
    "wd_incr_steps": 900,
    "wd_incr_style": "linear",
    "wsd_decay_steps": 200,
    "lr_wsd_decay_style": "minus_sqrt",
}
POSITIONS = [0, 37, 100, 333, 399, 400, 450, 500, 633, 799, 800, 801, 933, 1000, 1333, 1999, 5000]
JUMP = {"allow_jump": True}
SHAPES = {
    "minus_power": {"power": 2.0},
    "exponential_to_zero": {"ratio": 0.05},
    "rex": {"beta": 0.9},
    "log": {"timescale": 4.0},
    "sine": {},
}
FIELDS = {
    **{
        f"shape {name}": Schedule(
            [Phase(name, 400, end=1.0, start=0.25, **given), Phase(name, 600, end=0.1, **given)]
        )
        for name, given in SHAPES.items()
    },
    "shape half_life": Schedule([Phase("half_life", 900, end=0.99, start=0.5)]),
    "cut at both sides": Schedule(
        [Phase("cosine", 900, end=0.1, start=1.0, since=100, until=700), Phase("linear", 50, 0.0)]
    ),
    "whole multiples": schedules.whole(schedules.linear(1000.0, 900), multiple_of=7),
    "product": schedules.product(COSINE, WSD, 0.5),
    "product of rise and fall": schedules.product(
        Schedule([Phase("linear", 1000, end=1.0, start=0.0)]), schedules.cosine(1.0, 1000)
    ),
    "product with a root": schedules.product(schedules.raised_to(BATCH, 0.5), COSINE),
    "cycles": schedules.repeat(schedules.cosine(1.0, 250), 4, factors=0.5),
}
LATE = {
    "scale in the warmup": (COSINE, [(50, "scale", {"factor": 0.5})]),
    "scale": (COSINE, [(333, "scale", {"factor": 0.5})]),
    "scale at a join": (WSD, [(800, "scale", {"factor": 0.5})]),
    "scale past the horizon": (WSD, [(1333, "scale", {"factor": 0.5})]),
    "scale of an extra": (WSD, [(333, "scale", {"factor": 2.0, "field": "batch_size"})]),
    "extend that keeps the value": (COSINE, [(333, "extend", {"horizon": 2000, "keep": "value"})]),
    "extend of a tail that keeps it": (WSD, [(933, "extend", {"horizon": 2000, "keep": "value"})]),
    "cooldown of a new shape": (WSD, [(500, "cooldown", {"steps": 300, "shape": "rex"})]),
    "all of them": (
        WSD,
        [
            (333, "scale", {"factor": 0.5}),
            (400, "cooldown", {"steps": 33, "shape": "sine", "end": 0.125}),
            (420, "extend", {"horizon": 700, "keep": "value"}),
            (450, "rewarm", {"steps": 50, "peak": 0.75}),
            (500, "extend", {"horizon": 800, **JUMP}),
            (633, "scale", {"factor": 0.25}),
        ],
    ),
}
MEGATRONS = {
    "scale": [(333, "scale", {"factor": 0.5})],
    "scale of weight decay": [(333, "scale", {"factor": 0.5, "field": "weight_decay"})],
    "extend that keeps the value": [(333, "extend", {"horizon": 2000, "keep": "value"})],
    "all of them": [
        (333, "scale", {"factor": 0.5}),
        (450, "cooldown", {"steps": 700, "shape": "cosine", "end": 0.25}),
        (500, "scale", {"factor": 0.5}),
    ],
}


def groups(*others):
    return [{"params": [torch.nn.Parameter(torch.zeros(1))], **one} for one in others]


def phased(lr, *, is_plain=False):
    bounds = {"name": "bounded", "max_lr": 2.0, "min_lr": 0.5}
    optimizer = torch.optim.AdamW(
        groups({"name": "body"}, *([] if is_plain else [bounds, {"name": "own"}])),
        lr=1.0,
        weight_decay=0.1,
    )
    fields = {"lr": lr, "weight_decay": schedules.proportional_to("lr", at_max=0.1, power=0.5)}
    own = {} if is_plain else {"own": {"lr": schedules.cosine(0.5, 800, warmup=100)}}
    extras = {
        "batch_size": BATCH,
        "aux_loss_weight": schedules.proportional_to("batch_size", at_max=0.25, power=-1),
    }
    return ParamScheduler(optimizer, fields, groups=own, extras=extras, reference=1.0)


def megatrons():
    bounds = {"name": "embed", "max_lr": 2.0, "min_lr": 0.5, "start_wd": 0.2, "end_wd": 0.3}
    optimizer = torch.optim.AdamW(groups({"name": "body"}, bounds), lr=1.0, weight_decay=0.1)
    return OptimizerParamScheduler(optimizer, **ENTRIES)


def case(scheduler, changes=()):
    for position, name, arguments in changes:
        scheduler.seek(position)
        getattr(scheduler, name)(**arguments)
    found = {"state": scheduler.state_dict(), "values": []}
    for position in POSITIONS:
        scheduler.seek(position)
        found["values"].append(scheduler.metrics())
    return found


def main():
    found = {
        "positions": POSITIONS,
        **{f"fields: {name}": case(phased(lr, is_plain=True)) for name, lr in FIELDS.items()},
        **{f"late: {name}": case(phased(lr), made) for name, (lr, made) in LATE.items()},
        **{f"entries: {name}": case(megatrons(), made) for name, made in MEGATRONS.items()},
    }
    # A line for each, so that one can be read by itself.
    lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()]
    with Path(sys.argv[1]).open("x") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
