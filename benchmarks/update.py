"""Measure a step of the schedule as a share of the optimizer's update."""

from __future__ import annotations

import torch

from benchmarks import peers, table, timing

PARAMETERS = 10_000_000
TENSORS = 100
BARS = {2: 0.01, 100: 0.02}
"""The highest share that is wanted, by the number of groups."""

UPDATE = "optimizer.step()"
NAMES = (peers.OURS, peers.MEGATRON, peers.NEMO, peers.LAMBDA, peers.COSINE)


def adamw(groups: int, parameters: int) -> torch.optim.AdamW:
    """Return a foreach AdamW over a hundred tensors with gradients, in so many groups."""
    tensors = [torch.nn.Parameter(torch.ones(parameters // TENSORS)) for _ in range(TENSORS)]
    for tensor in tensors:
        tensor.grad = torch.full_like(tensor, 1e-3)
    parts = [{"params": tensors[index::groups]} for index in range(groups)]
    return torch.optim.AdamW(parts, lr=peers.PEAK, foreach=True)


def measure(groups: int, parameters: int, rounds: int) -> dict[str, float]:
    """Return the µs of an update on the clock, and of a step of each scheduler in CPU time."""
    optimizer = adamw(groups, parameters)
    timers = {UPDATE: timing.wall(optimizer.step)}
    timers |= {name: peers.timer(name, adamw(groups, TENSORS)) for name in NAMES}
    return timing.medians(timing.in_turn(timers, rounds, seconds=6))


def result(*, is_quick: bool) -> table.Result:
    """Measure both models."""
    parameters, rounds = (100_000, 5) if is_quick else (PARAMETERS, 51)
    found = {groups: measure(groups, parameters, rounds) for groups in BARS}
    rows = [
        table.Row(
            what=f"share of {UPDATE}, {parameters / 1e6:g}M parameters, {groups} groups",
            ours=times[peers.OURS],
            against=UPDATE,
            theirs=times[UPDATE],
            # Of a small model's update, any schedule is a large share.
            most=None if is_quick else BARS[groups],
        )
        for groups, times in found.items()
    ]
    shares = [["groups", f"{UPDATE}, ms", *(f"{name}, %" for name in NAMES)]]
    shares += [
        [
            str(groups),
            table.show(times[UPDATE] / 1e3),
            *(table.show(100 * times[name] / times[UPDATE]) for name in NAMES),
        ]
        for groups, times in found.items()
    ]
    note = "AdamW with `foreach=True`. An update is timed on the clock, steps in CPU time."
    lines = ["### Share of an update", "", *table.mark_down(shares), "", note, ""]
    return table.Result(title="Share of an update", rows=rows, details="\n".join(lines))
