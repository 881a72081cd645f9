"""What the page about scaling says of sizes is so."""

from __future__ import annotations

import pytest

from benchmarks import scaling
from benchmarks.load import build
from page_helpers import ROOT


@pytest.mark.parametrize("num_groups", [1, 100])
def test_the_state_is_as_large_as_the_page_says_for_any_number_of_groups(num_groups):
    measured = scaling.sizes(num_groups)
    row = " | ".join([f"{num_groups:,}", f"{measured['state, bytes of JSON']:,}"])
    assert f"\n| {row} |" in (ROOT / "docs/scaling.md").read_text()


def test_a_rank_tells_the_others_no_more_than_fifty_names():
    short, long = (scaling.answer(build(count)) for count in (50, 500))
    assert len(short) + 200 > len(long)
