"""torchtitan's Trainer, on its own command line, with a scheduler of this library."""

from __future__ import annotations

import math
import shutil

import pytest

pytest.importorskip("torchtitan", reason="torchtitan needs Python 3.11")

from dist_sched import ParamScheduler, schedules
from dist_sched.adapters.torchtitan import SchedulersContainer
from dist_sched.errors import ConfigError

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

PROGRAM = "torchtitan_on_cpu.py"


def expected(update):
    """Return lr and weight decay of the update after so many, with a warmup of 4 of 16."""
    if update < 4:
        lr = 8e-4 * update / 4
    else:
        lr = 8e-5 + (1 + math.cos(math.pi * (update - 4) / 12)) / 2 * (8e-4 - 8e-5)
    return [lr, 0.1 * lr / 8e-4]
