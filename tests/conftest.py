"""What the tests share: a config, optimizers with float or tensor lr, and schedulers over both."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from dist_sched import OptimizerParamScheduler
from dist_sched._curves import shapes
from helpers import CONFIG

# The same examples each time, so that a failure is of the change at hand. New ones are drawn with
# `--hypothesis-profile=default`.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


class Workshop:
    """Makes optimizers and schedulers whose lr is a float, or a float32 tensor a group."""

    def __init__(self, kind):
        self.kind = kind

    def lr(self, value):
        return torch.tensor(value) if self.kind == "tensor" else value

    def held(self, value):
        """Give what a group holds after `value` was written as its lr: rounded once."""
        return torch.tensor(value).item() if self.kind == "tensor" else value

    def optimizer(self, *groups, lr=1.0, weight_decay=0.1, cls=torch.optim.AdamW):
        groups = [dict(group) for group in groups or ({},)]
        for group in groups:
            group.setdefault("params", [torch.nn.Parameter(torch.ones(2))])
            if "lr" in group:
                group["lr"] = self.lr(group["lr"])
        kind = {"foreach": False} if self.kind == "tensor" else {}
        return cls(groups, lr=self.lr(lr), weight_decay=weight_decay, **kind)

    def scheduler(self, optimizer=None, **changes):
        optimizer = self.optimizer() if optimizer is None else optimizer
        return OptimizerParamScheduler(optimizer, **{**CONFIG, **changes})


@pytest.fixture
def config():
    return dict(CONFIG)


@pytest.fixture(params=["float", "tensor"])
def workshop(request):
    return Workshop(request.param)


@pytest.fixture
def floats():
    return Workshop("float")


@pytest.fixture
def tensors():
    return Workshop("tensor")


@pytest.fixture(autouse=True)
def _no_shapes_are_left():
    """Forget the shapes that a test registers, examples in docstrings among them."""
    known = dict(shapes._SHAPES)
    yield
    shapes._SHAPES.clear()
    shapes._SHAPES.update(known)
