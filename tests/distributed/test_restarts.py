"""A worker is killed in mid-run, and the run is on the curve after torchrun started it again."""

from __future__ import annotations

import pytest

from training_helpers import SAVED, UPDATES, curves

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Makes every start a store of its own (pytorch/pytorch#135712).

Otherwise ranks of a second start may find the addresses of the first there, and connect to those.
"""


def test_a_killed_worker_is_started_again_and_goes_on_on_the_curve(torchrun, tmp_path):
    started = {"options": ["--max-restarts=1"], "variables": OWN_STORE, "timeout": 150}
    ranks = torchrun("restarted.py", 2, tmp_path, **started)
    positions = [*range(SAVED + 1), *range(SAVED, UPDATES)]
    starts = [0] * (SAVED + 1) + [1] * (UPDATES - SAVED)
    for used in ranks:
        curve = curves(used[0][2])
        expected = [curve[position] for position in positions]
        assert [[*row] for row in zip(starts, positions, expected, strict=True)] == used
