"""A worker is killed in mid-run, and the run is on the curve after torchrun started it again."""

from __future__ import annotations

import pytest

from training_helpers import SAVED, UPDATES, curves

pytestmark = pytest.mark.distributed


def test_a_killed_worker_is_started_again_and_goes_on_on_the_curve(torchrun, tmp_path):
    ranks = torchrun("restarted.py", 2, tmp_path, options=["--max-restarts=3"], timeout=110)
    positions = [*range(SAVED + 1), *range(SAVED, UPDATES)]
    starts = [False] * (SAVED + 1) + [True] * (UPDATES - SAVED)
    for used in ranks:
        curve = curves(used[0][2])
        expected = [curve[position] for position in positions]
        assert [[*row] for row in zip(starts, positions, expected, strict=True)] == used
