"""Random ranks: whatever differs, all ranks end alike after a load and after `synchronize`."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_random_ranks_apply_the_same_or_raise_the_same(torchrun, world_size):
    results = torchrun("random_ranks.py", world_size, "--cases", 60, timeout=180)
    assert [{}] * world_size == [result["wrong"] for result in results]
