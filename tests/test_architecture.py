"""The page about the architecture is true to the code."""

from __future__ import annotations

import re

import pytest

from dist_sched._optim import process_groups
from dist_sched._optim.base import Scheduler
from dist_sched._optim.writer import Writer
from page_helpers import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()


def test_the_table_has_the_packages_in_the_order_of_the_contract():
    contracts = (ROOT / "pyproject.toml").read_text().partition("imports run one way")[2]
    layers = re.search(r"layers = \[(.*?)\]", contracts, re.DOTALL)[1]
    allowed = re.findall(r"\w+", layers)
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.MULTILINE)
    assert allowed == [name for row in rows for name in re.findall(r"\w+", row)]


@pytest.mark.parametrize("owner, kind", [("Scheduler", Scheduler), ("Writer", Writer)])
def test_every_method_that_the_page_names_is_there(owner, kind):
    named = set(re.findall(rf"`{owner}\.(\w+)`", PAGE))
    assert named
    assert [] == [name for name in sorted(named) if not hasattr(kind, name)]


def test_the_one_module_that_asks_for_a_process_group_has_what_the_page_names():
    assert "`process_groups.agree`" in PAGE
    assert callable(process_groups.agree)
