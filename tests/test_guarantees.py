"""Every test that the page of guarantees names exists, and the page has a test for each promise."""

from __future__ import annotations

import ast
import re

import pytest

from page_helpers import ROOT, sections

PAGE = "docs/guarantees.md"
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / PAGE).read_text())))


def functions_of(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_every_test_that_the_page_names_is_there(path):
    assert {name for file, name in NAMED if file == path} <= functions_of(path)


@pytest.mark.parametrize("heading, count", [("Promises", 18), ("Faults of the field", 34)])
def test_every_promise_has_a_test(heading, count):
    promises = re.split(r"^\*\*", sections(PAGE)[heading], flags=re.MULTILINE)[1:]
    assert count == len(promises)
    assert [] == [promise for promise in promises if "- `tests/" not in promise]
