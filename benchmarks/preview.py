"""Measure a preview of many positions beside stepping a peer through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import peers, table, timing
from dist_sched import ParamScheduler, schedules

if TYPE_CHECKING:
    from dist_sched import Schedule

TOTAL = 1_000_000
WARMUP = 2_000
MOST = 1 / 20
PEERS = (peers.MEGATRON, peers.NEMO, peers.LAMBDA, peers.COSINE, peers.TRANSFORMERS)


def curves(total: int) -> dict[str, Schedule]:
    """Return what is previewed, by name."""
    warmup = min(WARMUP, total // 10)
    return {
        "cosine": schedules.cosine(peers.PEAK, total, warmup, floor=peers.PEAK / 100),
        "wsd": schedules.wsd(peers.PEAK, total, warmup=warmup, decay=total // 5),
    }


def differences(schedule: Schedule, total: int) -> int:
    """Return at how many positions a preview has other bits than training."""
    optimizer = peers.adamw(1)
    scheduler = ParamScheduler(optimizer, {"lr": schedule})
    group, found = optimizer.param_groups[0], 0
    for value in schedule.values(range(total)).tolist():
        found += group["lr"] != value
        scheduler.step(1)
    return found


def result(*, is_quick: bool) -> table.Result:
    """Measure a preview, and a step and a reading of each peer."""
    total, rounds = (2_000, 5) if is_quick else (TOTAL, 9)
    rows = []
    for name, schedule in curves(total).items():
        timers = {"ours": timing.cpu("values(range(total))", values=schedule.values, total=total)}
        for peer in filter(peers.is_here, PEERS if name == "cosine" else (peers.LAMBDA,)):
            optimizer = peers.adamw(1)
            timers[peer] = timing.cpu(
                "step(); values.append(group['lr'])",
                step=peers.step_of(peer, optimizer),
                values=[],
                group=optimizer.param_groups[0],
            )
        times = timing.medians(timing.in_turn(timers, rounds, seconds=10))
        what = f"preview of {total:,} positions, {name}"
        rows += [
            table.Row(
                what=what,
                ours=times["ours"] / 1e3,
                unit="ms",
                against=f"stepping {peer}",
                theirs=times[peer] * total / 1e3,
                most=MOST,
            )
            for peer in timers
            if peer != "ours"
        ]
        rows.append(
            table.Row(
                what=f"{what}: bits that differ from training",
                ours=differences(schedule, total),
                unit="",
                most=0,
            )
        )
    return table.Result(title="Preview", rows=rows)
