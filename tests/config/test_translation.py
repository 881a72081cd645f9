"""Translation: phases have the values of Megatron's curves, up to rounding."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._config.translation import to_specification

ENTRIES = {
    "init_lr": 0.125,
    "max_lr": 1.0,
    "min_lr": 0.25,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "start_wd": 0.0,
    "end_wd": 0.5,
    "wd_incr_steps": 40,
}
TAILS = ["linear", "cosine", "exponential", "minus_sqrt"]


STYLES = [("WSD", tail) for tail in TAILS]
STYLES += [(style, None) for style in ("constant", "linear", "cosine", "inverse-square-root")]


@pytest.mark.parametrize(
    "style, tail, wd_style, warmup",
    [
        *((*style, "linear", warmup) for style in STYLES for warmup in (0, 37.5)),
        ("linear", None, "linear", 1),
        ("inverse-square-root", None, "linear", 1),
        ("cosine", None, "cosine", 10),
    ],
)
def test_megatrons_curves_are_written_in_phases_up_to_rounding(style, tail, wd_style, warmup):
    entries = {**ENTRIES, "lr_decay_style": style, "wd_incr_style": wd_style}
    entries |= {"lr_warmup_steps": warmup, "lr_wsd_decay_style": tail}
    config = OptimizerParamConfig(**entries, wsd_decay_steps=tail and 20)
    entries_plan, phases = config.plan, to_specification(config).plan
    for position in range(130):
        found = phases.values(position)
        for label, value in entries_plan.values(position).items():
            assert value == pytest.approx(found[label], rel=1e-12), (label, position)


@pytest.mark.parametrize("horizon", [51, 51.5])
@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {"lr_decay_style": "inverse-square-root"},
        {"lr_decay_style": "WSD", "wsd_decay_steps": 0, "lr_wsd_decay_style": "linear"},
    ],
)
def test_megatrons_falls_past_the_horizon_are_where_they_were(changes, warmup, horizon):
    entries = {**ENTRIES, "wd_incr_style": "linear", "min_lr": 0.0, **changes}
    entries |= {"lr_warmup_steps": warmup, "lr_decay_steps": horizon}
    config = OptimizerParamConfig(**entries)
    entries_plan, phases = config.plan, to_specification(config).plan
    for position in (0, 1, 4, 5, 6, 49, 50, 51, 52, 53, 60):
        expected = entries_plan.values(position)[Path("lr")]
        assert expected == pytest.approx(phases.values(position)[Path("lr")], rel=1e-12), position


def test_a_tail_that_begins_in_the_warmup_cannot_be_written_in_phases():
    tail = {"lr_decay_style": "WSD", "wsd_decay_steps": 105, "lr_wsd_decay_style": "linear"}
    config = OptimizerParamConfig(**{**ENTRIES, **tail, "wd_incr_style": "linear"})
    with pytest.raises(ConfigError, match="begins during the warmup"):
        to_specification(config)
