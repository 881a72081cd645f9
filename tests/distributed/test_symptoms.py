"""What docs/troubleshooting.md shows of several ranks is what they log and raise."""

from __future__ import annotations

import re

import pytest

from page_helpers import blocks_of, sections
from test_troubleshooting import ON_RANKS, PAGE, shown


@pytest.fixture(scope="module")
def printed(torchrun):
    ranks = torchrun("symptoms.py", 2, timeout=100)
    return " ".join("\n".join(text for rank in ranks for text in rank.values()).split())


@pytest.mark.parametrize("heading", sorted(ON_RANKS))
def test_the_page_shows_what_ranks_log_and_raise(heading, printed):
    for text in blocks_of(sections(PAGE)[heading], "text"):
        assert re.search(shown(text), printed), printed
