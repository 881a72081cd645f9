"""The oracle: the released classes of Megatron-LM and NeMo AutoModel, as they are installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
from pathlib import Path

import pytest

NEMO_FILE = "nemo_automodel/components/optim/scheduler.py"


def load_megatron():
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    return OptimizerParamScheduler


def load_nemo():
    """Load the one file by its path, because importing its package needs much more than torch."""
    found = importlib.metadata.distribution("nemo-automodel").locate_file(NEMO_FILE)
    spec = importlib.util.spec_from_file_location("nemo_automodel_scheduler", Path(str(found)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OptimizerParamScheduler


LOADERS = {"megatron": load_megatron, "nemo": load_nemo}


@pytest.fixture(params=sorted(LOADERS), scope="session")
def upstream(request):
    """Return Megatron's class, then NeMo's."""
    return LOADERS[request.param]()


@pytest.fixture(scope="session")
def megatron():
    return load_megatron()


@pytest.fixture(scope="session")
def nemo():
    return load_nemo()


class Draw:
    """Draws legal configs, positions where they may go wrong, and groups, from one number."""

    def __init__(self, number):
        self.random = random.Random(number)

    def rate(self):
        return self.random.choice([0.0, 1e-8, 3e-4, 0.1, 1.0, self.random.uniform(0, 1)])

    def config(self, style):
        horizon = self.random.choice([10, 11, 100, 12_345, 10**6, 10**9])
        low, high = sorted([self.rate(), self.rate()])
        start_wd, end_wd = sorted([self.rate(), self.rate()])
        wd_style = self.random.choice(["constant", "linear", "cosine"])
        warmup = self.random.choice(
            [0, 1, 37.5, max(1.5, horizon * 0.03), horizon // 7, horizon - 1]
        )
        is_wsd = style == "WSD"
        return {
            "init_lr": self.random.choice([0.0, high, self.random.uniform(0, high)]),
            "max_lr": high,
            "min_lr": self.random.choice([low, high, 0.0]),
            "lr_warmup_steps": warmup if warmup < horizon else 1,
            "lr_decay_steps": horizon,
            "lr_decay_style": style,
            "start_wd": end_wd if wd_style == "constant" else start_wd,
            "end_wd": end_wd,
            "wd_incr_steps": self.random.choice([1, horizon, horizon // 2, horizon * 3]),
            "wd_incr_style": wd_style,
            "wsd_decay_steps": self.random.choice([0, 1, horizon // 3, horizon])
            if is_wsd
            else None,
            "lr_wsd_decay_style": self.random.choice(
                ["linear", "cosine", "exponential", "minus_sqrt"]
            )
            if is_wsd
            else None,
        }

    def positions(self, config):
        """Return both ends, every join and its neighbours, past the end, and some between."""
        horizon = config["lr_decay_steps"]
        joins = [
            0,
            int(config["lr_warmup_steps"]),
            horizon,
            horizon - (config["wsd_decay_steps"] or 0),
            config["wd_incr_steps"],
        ]
        near = {join + offset for join in joins for offset in (-1, 0, 1)}
        between = {self.random.randrange(horizon) for _ in range(5)}
        return sorted(p for p in near | between | {2 * horizon, 10**15} if p >= 0)

    def bounds(self, config):
        """Return groups with bounds and multipliers that are legal under a config."""
        low, high = sorted([self.rate(), self.rate()])
        start, end = sorted([self.rate(), self.rate()])
        start = end if config["wd_incr_style"] == "constant" else start
        return [
            {},
            {"max_lr": high},
            {"min_lr": low},
            {"max_lr": high, "min_lr": low},
            {"max_lr": 1},
            {"start_wd": start, "end_wd": end},
            {"wd_mult": self.rate()},
            {"wd_mult": 0.0, "max_lr": high},
        ]


@pytest.fixture
def draw(request):
    return Draw(request.param)
