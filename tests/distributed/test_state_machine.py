"""Random sequences on ranks that differ: they end alike after every call that all of them make."""

from __future__ import annotations

import pytest

from machine_model import RUNS, SEED

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240 if not RUNS else 0)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_random_ranks_apply_the_same_or_raise_the_same(torchrun, world_size):
    if RUNS:
        print(f"STATE_MACHINE_SEED={SEED}")  # noqa: T201 - to draw them again
    cases = RUNS or 40
    arguments = ["--cases", cases, "--first", SEED if RUNS else 0]
    results = torchrun("state_machine.py", world_size, *arguments, timeout=180 + RUNS)
    assert [{}] * world_size == [result["wrong"] for result in results]
    # Both ends must be frequent, or this compares nothing.
    assert all(min(result["ends"].values()) > cases / 2 for result in results)
