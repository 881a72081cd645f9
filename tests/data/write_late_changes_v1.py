"""Write the late changes of version 1: run once, by the release that introduced it; never again.

python write_late_changes_v1.py FILE
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
SHORT = Schedule([Phase("constant", 400, end=0.3, start=0.3), Phase("linear", 100, end=0.03)])
LINE = Schedule([Phase("linear", 900, end=0.2, start=0.1)])
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

PHASED = {
    "cooldown": (WSD, [(500, "cooldown", {"steps": 300})]),
    "cooldown with end": (WSD, [(500, "cooldown", {"steps": 300, "shape": "linear", "end": 0.3})]),
    "cooldown of a decay": (COSINE, [(633, "cooldown", {"steps": 70, "shape": "cosine"})]),
    "cooldown at a join": (WSD, [(800, "cooldown", {"steps": 70})]),
    "cooldown past the horizon": (WSD, [(1333, "cooldown", {"steps": 70, "end": 0.01})]),
    "cooldown that rises": (COSINE, [(633, "cooldown", {"steps": 70, "end": 0.9})]),
    "cooldown of weight decay": (WSD, [(500, "cooldown", {"steps": 70, "field": "weight_decay"})]),
    "extend of a stretched phase": (COSINE, [(333, "extend", {"horizon": 2000, **JUMP})]),
    "extend of a constant phase": (WSD, [(333, "extend", {"horizon": 2000})]),
    "extend where the stable phase ends": (WSD, [(800, "extend", {"horizon": 2000})]),
    "extend of a tail": (WSD, [(933, "extend", {"horizon": 2000, **JUMP})]),
    "extend past the horizon": (WSD, [(1000, "extend", {"horizon": 2000, **JUMP})]),
    "extend of a cut phase": (
        COSINE,
        [(633, "rewarm", {"steps": 70}), (650, "extend", {"horizon": 2000, **JUMP})],
    ),
    "rewarm": (COSINE, [(633, "rewarm", {"steps": 70})]),
    "rewarm with peak": (COSINE, [(633, "rewarm", {"steps": 70, "peak": 2.0})]),
    "rewarm at a join": (WSD, [(800, "rewarm", {"steps": 70, "peak": 1.5})]),
    "all of them": (
        WSD,
        [
            (333, "extend", {"horizon": 1500}),
            (400, "cooldown", {"steps": 33, "shape": "linear", "end": 0.5}),
            (450, "rewarm", {"steps": 50}),
            (500, "extend", {"horizon": 800, **JUMP}),
        ],
    ),
}
"""ParamScheduler's: the schedule of lr, and the late changes."""

OVERRIDDEN = {
    "cooldown": [(333, "cooldown", {"steps": 100})],
    "cooldown with end": [(333, "cooldown", {"steps": 100, "end": 0.5})],
    "extend of a constant phase": [(333, "extend", {"horizon": 2000})],
    "extend where the override's stable phase ends": [(400, "extend", {"horizon": 2000})],
    "extend where the stable phase ends": [(800, "extend", {"horizon": 2000, **JUMP})],
    "extend up to an override's end": [(333, "extend", {"horizon": 1200})],
    "rewarm": [(333, "rewarm", {"steps": 100})],
    "rewarm with peak": [(333, "rewarm", {"steps": 100, "peak": 2.0})],
}
"""The same with an override schedule in one group, a multiplier in another."""

MEGATRONS = {
    "cooldown": ({}, [(500, "cooldown", {"steps": 300})]),
    "cooldown with end": (
        {"lr_decay_style": "constant"},
        [(500, "cooldown", {"steps": 300, "shape": "linear", "end": 0.3})],
    ),
    "cooldown of halving": ({}, [(800, "cooldown", {"steps": 70, "shape": "halving"})]),
    "extend of a stretched phase": (
        {"lr_decay_style": "cosine"},
        [(333, "extend", {"horizon": 2000, **JUMP})],
    ),
    "extend of a constant phase": ({}, [(333, "extend", {"horizon": 2000})]),
    "extend where the stable phase ends": ({}, [(800, "extend", {"horizon": 2000})]),
    "extend of a tail": ({}, [(933, "extend", {"horizon": 2000, **JUMP})]),
    "extend of a constant lr": (
        {"lr_decay_style": "constant"},
        [(333, "extend", {"horizon": 2000})],
    ),
    "all of them": (
        {},
        [
            (333, "extend", {"horizon": 1500}),
            (450, "cooldown", {"steps": 700, "shape": "cosine"}),
            (450, "extend", {"horizon": 1999}),
        ],
    ),
}
"""OptimizerParamScheduler's: entries that differ, and the late changes."""


def groups(*others):
    return [{"params": [torch.nn.Parameter(torch.zeros(1))], **one} for one in others]


def phased(lr, overrides):
    optimizer = torch.optim.AdamW(
        groups({"name": "body"}, {"name": "embed"}, {"name": "head"}), lr=1.0, weight_decay=0.1
    )
    fields = {"lr": lr, "weight_decay": LINE, "betas[0]": schedules.constant(0.5)}
    return ParamScheduler(optimizer, fields, groups=overrides)


def megatrons(changes):
    optimizer = torch.optim.AdamW(
        groups({"name": "body"}, {"name": "embed", "lr": 0.25}), lr=1.0, weight_decay=0.1
    )
    return OptimizerParamScheduler(optimizer, **{**ENTRIES, **changes})


def case(scheduler, changes):
    for position, name, arguments in changes:
        scheduler.seek(position)
        getattr(scheduler, name)(**arguments)
    found = {"state": scheduler.state_dict(), "lr": [], "weight_decay": []}
    for position in POSITIONS:
        scheduler.seek(position)
        for key in ("lr", "weight_decay"):
            found[key].append([group[key] for group in scheduler.optimizer.param_groups])
    return found


def main():
    overrides = {"embed": {"lr": SHORT}, "head": {"lr": 0.5, "weight_decay": 0.0}}
    found = {
        "positions": POSITIONS,
        **{f"phases: {name}": case(phased(lr, {}), made) for name, (lr, made) in PHASED.items()},
        **{
            f"groups: {name}": case(phased(WSD, overrides), made)
            for name, made in OVERRIDDEN.items()
        },
        "groups: extend of an override that ends later": case(
            phased(SHORT, {"embed": {"lr": WSD}}), [(333, "extend", {"horizon": 800})]
        ),
        **{
            f"entries: {name}": case(megatrons(entries), made)
            for name, (entries, made) in MEGATRONS.items()
        },
    }
    # A line for each, so that one can be read by itself.
    lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()]
    with Path(sys.argv[1]).open("x") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
