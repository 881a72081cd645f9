"""Translation: phases give what the seeds' curves give, up to rounding."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._config.translation import to_specification

SEEDS = {
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


@pytest.mark.parametrize("warmup", [0, 1, 10, 37.5])
@pytest.mark.parametrize("wd_style", ["linear", "cosine"])
@pytest.mark.parametrize(
    "style, tail",
    [("WSD", tail) for tail in TAILS]
    + [(style, None) for style in ("constant", "linear", "cosine", "inverse-square-root")],
)
def test_the_seeds_curves_are_written_in_phases_up_to_rounding(style, tail, wd_style, warmup):
    entries = {**SEEDS, "lr_decay_style": style, "wd_incr_style": wd_style}
    entries |= {"lr_warmup_steps": warmup, "lr_wsd_decay_style": tail}
    config = OptimizerParamConfig(**entries, wsd_decay_steps=tail and 20)
    seeds, phases = config.plan, to_specification(config).plan
    for position in range(130):
        found = phases.values(position)
        for label, value in seeds.values(position).items():
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
def test_the_seeds_falls_past_the_horizon_are_where_they_have_them(changes, warmup, horizon):
    entries = {**SEEDS, "wd_incr_style": "linear", "min_lr": 0.0, **changes}
    entries |= {"lr_warmup_steps": warmup, "lr_decay_steps": horizon}
    config = OptimizerParamConfig(**entries)
    seeds, phases = config.plan, to_specification(config).plan
    for position in (0, 1, 4, 5, 6, 49, 50, 51, 52, 53, 60):
        expected = seeds.values(position)[Path("lr")]
        assert expected == pytest.approx(phases.values(position)[Path("lr")], rel=1e-12), position


def test_a_tail_that_begins_in_the_warmup_cannot_be_written_in_phases():
    tail = {"lr_decay_style": "WSD", "wsd_decay_steps": 105, "lr_wsd_decay_style": "linear"}
    config = OptimizerParamConfig(**{**SEEDS, **tail, "wd_incr_style": "linear"})
    with pytest.raises(ConfigError, match="begins in the warmup"):
        to_specification(config)
