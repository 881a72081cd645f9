"""What the tests of the pages about migrating share: their blocks, run as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import torch

PAGES = Path(__file__).parents[1] / "docs" / "migrating"
LEARNING_RATE = {"torch": 1e-3, "transformers": 3e-4}
EPOCH = 20
"""Updates of an epoch."""


def text_of(page):
    return (PAGES / f"{page}.md").read_text()


def blocks(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def is_pair(block):
    return "# before\n" in block and "# after\n" in block


def pairs(page):
    """Return the heading over each pair of a page, and its code before and after."""
    found = []
    for section in re.split(r"^#+ (?!before$|after$)", text_of(page), flags=re.MULTILINE)[1:]:
        heading = section.split("\n")[0]
        pairs = filter(is_pair, re.findall(r"```python\n(.*?)```", section, re.DOTALL))
        found += [(heading, *block.split("# after\n")) for block in pairs]
    return found


def rows(page, first):
    """Return the cells of a table of a page, whose head begins with a cell."""
    lines = text_of(page).splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def code(cell):
    """Return the first code of a cell."""
    return re.findall(r"`([^`]+)`", cell)[0]


def names(page="", **more):
    """Return what the blocks of a page find there: a fresh optimizer, data, and a loss."""
    parameter = torch.nn.Parameter(torch.ones(2))
    body, head = [[torch.nn.Parameter(torch.ones(2))] for _ in range(2)]
    learning_rate = LEARNING_RATE.get(page, 1e-3)
    optimizer = torch.optim.AdamW([parameter], lr=learning_rate, weight_decay=0.1)
    common = {"__name__": "page", "batches": [1, 2], "loader": range(EPOCH)}
    loss = {"loss": lambda _: parameter.sum()}
    return {**common, **loss, "optimizer": optimizer, "body": body, "head": head, **more}


def run(page, without=(), **more):
    """Run the blocks of a page that are no pairs, each with an optimizer of its own.

    Returns what they leave.
    """
    left = names(page, **more)
    for block in blocks(page):
        if not is_pair(block) and not any(word in block for word in without):
            left["optimizer"] = names(page)["optimizer"]
            exec(compile(block, page, "exec"), left)  # noqa: S102
    return left
