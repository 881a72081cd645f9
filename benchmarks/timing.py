"""Timing: batches of calls, in rounds in which all take turns."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BATCH_SECONDS = 0.002
"""How long a timed batch of calls takes at least, far above the clock's grain."""
FEWEST = 5
"""Rounds that are made even if they take longer than they should."""


def cpu(statement: str | Callable[[], object], **names: object) -> timeit.Timer:
    """Return a timer that does not count the time when other processes run."""
    return timeit.Timer(statement, timer=time.process_time, globals=names)


def wall(statement: str | Callable[[], object], **names: object) -> timeit.Timer:
    """Return a timer of the time on the clock, for work of several threads or processes."""
    return timeit.Timer(statement, timer=time.perf_counter, globals=names)


def calls_a_batch(timer: timeit.Timer, seconds: float = BATCH_SECONDS) -> int:
    """Return how many calls make a batch; measuring it warms the timed code up."""
    calls = 1
    while (taken := min(timer.repeat(3, calls))) < seconds / 2:
        calls *= 2
    return max(1, round(calls * seconds / taken))


def in_turn(
    timers: Mapping[str, timeit.Timer],
    rounds: int,
    *,
    seconds: float = 3.0,
    batch: float = BATCH_SECONDS,
) -> dict[str, list[float]]:
    """Time each once a round, in µs a call; each round starts with another one.

    Args:
        timers: What to time, by name.
        rounds: How many rounds.
        seconds: Time after which there is no further round, but for the first five.
        batch: How long a batch of calls takes at least.
    """
    calls = {name: calls_a_batch(timer, batch) for name, timer in timers.items()}
    samples: dict[str, list[float]] = {name: [] for name in timers}
    names = list(timers)
    gc.collect()
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= FEWEST and time.perf_counter() - begin > seconds:
            break
        for name in names:
            samples[name].append(timers[name].timeit(calls[name]) / calls[name] * 1e6)
        names.append(names.pop(0))
    return samples


def medians(samples: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each one's samples."""
    return {name: statistics.median(taken) for name, taken in samples.items()}


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    return {
        "CPU": _model(),
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _model() -> str:
    """Return the model of the CPU, as the system has it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
