"""Settings and fixtures of all tests; what tests import is in helpers.py."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from hypothesis import settings

from dist_sched._curves import shapes
from helpers import CONFIG, adamw, opt_param_scheduler

# The frameworks have an environment of their own, which scripts/test_frameworks.sh makes.
collect_ignore = [] if find_spec("lightning") else ["frameworks"]

# The same examples each time, so that a failure is of the change at hand. New ones are drawn with
# `--hypothesis-profile=default`.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture
def config():
    return dict(CONFIG)


@pytest.fixture
def floats():
    """Return what makes optimizers and schedulers."""
    return SimpleNamespace(optimizer=adamw, scheduler=opt_param_scheduler)


@pytest.fixture
def _alone():
    """Start a process group of one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def _no_shapes_are_left():
    """Forget the shapes that a test registers, examples in docstrings among them."""
    known = dict(shapes.SHAPES)
    yield
    shapes.SHAPES.clear()
    shapes.SHAPES.update(known)
