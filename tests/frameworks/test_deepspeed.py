"""DeepSpeed's engine at each stage of ZeRO, with gradient accumulation."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from dist_sched import ParamScheduler, schedules

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None,
        reason="deepspeed is installed on Linux alone",
    ),
]

RUNS = [f"{way}{stage}" for way in ("plain", "lr_scheduler") for stage in range(4)]


def curve():
    """Return lr and weight decay of 16 updates in a plain loop."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-2, weight_decay=0.1)
    fields = {
        "lr": schedules.cosine(peak=1e-2, horizon=16, warmup=4, floor=1e-3),
        "weight_decay": schedules.proportional_to("lr", at_max=0.1),
    }
    scheduler = ParamScheduler(optimizer, fields)
    values = []
    for _ in range(16):
        values.append([[optimizer.param_groups[0][key] for key in ("lr", "weight_decay")]])
        scheduler.step()
    return values


@pytest.fixture(scope="module")
def runs(torchrun, tmp_path_factory):
    """Return 16 updates of each engine, and what new processes make of its checkpoint after 7."""
    program = "deepspeed_zero.py", 2, tmp_path_factory.mktemp("deepspeed")
    return [torchrun(*program, part, timeout=300) for part in ("whole", "resumed")]


@pytest.mark.parametrize("run", RUNS)
def test_every_update_uses_the_curve(runs, run):
    whole, _ = runs
    assert [curve()] * len(whole) == [rank[run] for rank in whole]


@pytest.mark.parametrize("run", RUNS)
def test_a_new_process_goes_on_bit_for_bit(runs, run):
    _, resumed = runs
    assert [curve()[7:]] * len(resumed) == [rank[run] for rank in resumed]
