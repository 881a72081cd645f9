"""Groups as other libraries build them: Megatron-LM's and transformers' own code."""

from __future__ import annotations

import pytest
import torch

from dist_sched import ParamScheduler, Phase, Schedule, schedules
from helpers import CONFIG, held


def megatrons_groups():
    """Return the groups of two layers and a layer norm, with another lr for the embedding."""
    from megatron.core.optimizer import (
        OptimizerConfig,
        ParamKey,
        _get_param_groups,
        get_standard_config_overrides,
    )

    model = torch.nn.Sequential(torch.nn.Embedding(4, 2), torch.nn.Linear(2, 2))
    config = OptimizerConfig(lr=3e-4, min_lr=3e-5)
    overrides = dict(get_standard_config_overrides(config))
    overrides[ParamKey(name="0.weight")] = {"max_lr": 1e-3, "min_lr": 1e-4}
    return _get_param_groups([model], config, overrides)


STYLES = {
    "linear": ({}, schedules.linear),
    "cosine": ({}, schedules.cosine),
    "WSD": (
        {"wsd_decay_steps": 30, "lr_wsd_decay_style": "minus_sqrt"},
        lambda peak, horizon, **others: schedules.wsd(peak, horizon, decay=30, **others),
    ),
}


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("style", STYLES)
def test_groups_of_megatrons_builder_have_megatrons_values_under_a_schedule(megatron, style):
    entries, named = STYLES[style]
    theirs, ours = (
        torch.optim.AdamW(megatrons_groups(), lr=3e-4, weight_decay=0.1) for _ in range(2)
    )
    lr = {"max_lr": 3e-4, "min_lr": 3e-5, "lr_decay_style": style}
    upstream = megatron(theirs, **{**CONFIG, **lr, **entries})
    scheduler = ParamScheduler(
        ours,
        {
            "lr": named(3e-4, 110, warmup=10, floor=3e-5),
            "weight_decay": Schedule([Phase("linear", 100, end=0.1, start=0.0)]),
        },
    )
    for _ in range(120):
        for key in ("lr", "weight_decay"):
            assert pytest.approx(held(theirs, key), rel=1e-12, abs=1e-18) == held(ours, key)
        upstream.step(1)
        scheduler.step(1)
    assert 0.0 in held(ours, "weight_decay")


def test_transformers_groups_all_of_0_get_the_decay_and_a_warning(tmp_path, caplog):
    from transformers import Trainer, TrainingArguments

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    arguments = TrainingArguments(str(tmp_path), learning_rate=3e-4, use_cpu=True, report_to=[])
    optimizer = Trainer(model, arguments).create_optimizer()
    assert [0.0, 0.0] == held(optimizer, "weight_decay")
    fields = {"lr": schedules.linear(3e-4, 100), "weight_decay": 0.1}
    ParamScheduler(optimizer, fields)
    assert [0.1, 0.1] == held(optimizer, "weight_decay")
    assert "weight_decay is 0 in every group" in caplog.text
