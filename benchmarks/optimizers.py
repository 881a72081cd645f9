"""Measure a step of the schedule over many optimizers of one group, as with optimizer in backward.

We drive all of them with one scheduler. A peer needs one for each.
"""

from __future__ import annotations

from benchmarks import peers, table, timing

MOST = 0.5
PEERS = (peers.MEGATRON, peers.NEMO, peers.LAMBDA, peers.COSINE)


def measure(count: int, rounds: int) -> dict[str, float]:
    """Return the µs of CPU time that a step of all optimizers takes, by scheduler."""
    ours = peers.step_of(peers.OURS, [peers.adamw(1) for _ in range(count)])
    timers = {peers.OURS: timing.cpu(ours)}
    for name in PEERS:
        steps = [peers.step_of(name, peers.adamw(1)) for _ in range(count)]
        timers[name] = timing.cpu("for step in steps: step()", steps=steps)
    return timing.medians(timing.in_turn(timers, rounds))


def result(*, is_quick: bool) -> table.Result:
    """Measure a thousand optimizers."""
    count, rounds = (20, 5) if is_quick else (1_000, 51)
    times = measure(count, rounds)
    fastest = min(PEERS, key=times.__getitem__)
    row = table.Row(
        what=f"step, {count:,} optimizers of one group",
        ours=times[peers.OURS],
        against=fastest,
        theirs=times[fastest],
        most=MOST,
    )
    return table.Result(title="Many optimizers", rows=[row])
