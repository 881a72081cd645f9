"""Random sequences on ranks that differ: they end alike after every call that all of them make."""

from __future__ import annotations

import os
import random

import pytest

RUNS = int(os.environ.get("STATE_MACHINE_RUNS", "0"))
"""How many sequences to draw on demand. 0 for the few that the ordinary tests draw."""

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240 if not RUNS else 0)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_random_ranks_apply_the_same_or_raise_the_same(torchrun, world_size):
    first = random.randrange(10**9) if RUNS else 0
    cases = RUNS or 40
    print(f"sequences {first} to {first + cases - 1} on {world_size} ranks")  # noqa: T201
    arguments = ["--cases", cases, "--first", first]
    results = torchrun("state_machine.py", world_size, *arguments, timeout=180 + RUNS)
    assert [{}] * world_size == [result["wrong"] for result in results]
    # Both ends must be frequent, or this compares nothing.
    assert all(min(result["ends"].values()) > cases / 2 for result in results)
