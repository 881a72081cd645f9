"""Folders of NeMo AutoModel's checkpoints and ours load by plain `dcp.load`, groups included."""

from __future__ import annotations

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from dist_sched import OptimizerParamScheduler, adapters
from helpers import CONFIG, held

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def ours_with_keys(optimizer, **entries):
    scheduler = OptimizerParamScheduler(optimizer, **entries)
    adapters.nemo.add_multipliers(scheduler)
    return adapters.megatron.ten_keys(scheduler)


def build(cls, **changes):
    model = torch.nn.Linear(2, 2)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.3, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.1)
    return model, cls(optimizer, **{**CONFIG, **changes})


def save(model, scheduler, folder):
    """Save as AutoModel's `OptimizerState` does."""
    optim = get_optimizer_state_dict(model, scheduler.optimizer, options=FLAT)
    dcp.save({"optim": optim, "sched": scheduler.state_dict()}, checkpoint_id=folder)


def load(model, scheduler, folder):
    optim = get_optimizer_state_dict(model, scheduler.optimizer, options=FLAT)
    state = {"optim": optim, "sched": scheduler.state_dict()}
    dcp.load(state, checkpoint_id=folder)
    set_optimizer_state_dict(model, scheduler.optimizer, state["optim"], options=FLAT)
    scheduler.load_state_dict(state["sched"])


def values(scheduler):
    return held(scheduler), held(scheduler, "weight_decay")


@pytest.mark.parametrize("direction", ["theirs to ours", "ours to theirs"])
def test_folders_load_with_multipliers_and_ten_keys(tmp_path, nemo, direction):
    classes = {"theirs": nemo, "ours": ours_with_keys}
    first, second = (classes[name] for name in direction.split(" to "))
    model, before = build(first)
    before.step(42)
    save(model, before, tmp_path)
    model, after = build(second, max_lr=0.5, lr_decay_steps=500)
    load(model, after, tmp_path)
    for _ in range(80):
        assert values(before) == values(after)
        before.step(1)
        after.step(1)


def test_without_multipliers_automodel_cannot_load_our_folder(tmp_path, nemo):
    model, before = build(OptimizerParamScheduler)
    save(model, before, tmp_path)
    model, after = build(nemo)
    with pytest.raises(CheckpointException, match=r"Missing key.*lr_mult"):
        load(model, after, tmp_path)
