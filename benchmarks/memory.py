"""Measure the memory that a scheduler holds over many groups."""

from __future__ import annotations

import gc
import tracemalloc

from benchmarks import peers
from benchmarks.table import Result, Row, mark_down, show

GROUPS = 10_000
NAMES = (
    peers.OURS,
    peers.PHASES,
    peers.MEGATRON,
    peers.NEMO,
    peers.LAMBDA,
    peers.COSINE,
    peers.SEQUENTIAL,
)


def measure(name: str, groups: int) -> float:
    """Return the MB that a scheduler holds after a step, with what it wrote into the groups."""
    optimizer = peers.adamw(groups)
    gc.collect()
    tracemalloc.start()
    step = peers.step_of(name, optimizer)
    step()
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 1e6


def result(*, is_quick: bool) -> Result:
    """Measure every scheduler."""
    groups = 100 if is_quick else GROUPS
    found = {}
    for name in NAMES:
        peers.step_of(name, peers.adamw(1))()  # what a first use keeps is no part of it
        found[name] = measure(name, groups)
    rows = [
        Row(
            what=f"memory held over {groups:,} groups, {name}",
            ours=found[name],
            unit="MB",
            against=peers.LAMBDA,
            theirs=found[peers.LAMBDA],
            most=None if is_quick else 1.0,  # of few groups, what is constant is most of it
        )
        for name in (peers.OURS, peers.PHASES)
    ]
    cells = [["scheduler", "MB"], *([name, show(held)] for name, held in found.items())]
    lines = [f"### Memory held over {groups:,} groups", "", *mark_down(cells), ""]
    return Result(title="Memory", rows=rows, details="\n".join(lines))
