"""The pages of the documentation, their blocks of code, and how these are run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
DOCS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS]


@dataclass(frozen=True, slots=True)
class Example:
    """What a page's Python starts with, and what is checked when it has run."""

    start: Callable[[], dict[str, Any]] = dict
    """Returns the names that the page takes for granted; called in an empty folder."""
    check: Callable[[dict[str, Any], str], None] = lambda _names, _printed: None
    """Is called with the names that are left, and with what was printed."""


def blocks(page, language):
    """Return the blocks of a language, those with a title too."""
    fence = rf'^```{language}(?: title="[^"]*")?\n(.*?)^```$'
    return re.findall(fence, text_of(page), re.DOTALL | re.MULTILINE)


def text_of(page):
    return (ROOT / page).read_text()


def run_examples(page, names):
    """Run the Python of a page from top to bottom, and return the names that it leaves."""
    names = {"__name__": "example", **names}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)  # noqa: S102
    return names


def run_page(page, example, capsys):
    """Run the Python of a page, and check what it leaves."""
    names = run_examples(page, example.start())
    example.check(names, capsys.readouterr().out)
