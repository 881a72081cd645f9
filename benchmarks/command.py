"""Measure `dist-sched show` from a cold start beside an import of torch."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Result, Row

MOST = 1 / 5
CONFIG = {
    "horizon": 100_000,
    "fields": {
        "lr": {"schedule": "wsd", "peak": 3e-4, "warmup": 2_000, "decay": 20_000},
        "weight_decay": 0.1,
    },
}


def seconds(*arguments: str) -> float:
    """Return how long a command takes on the clock, as who waits for it sees it."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)  # noqa: S603 - our own commands
    return time.perf_counter() - begin


def result(*, is_quick: bool) -> Result:
    """Start both in turn, after once that fills the caches of files."""
    taken: dict[str, list[float]] = {"ours": [], "torch": []}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "run.json")
        config.write_text(json.dumps(CONFIG), encoding="utf-8")
        commands = {
            "ours": ("-m", "dist_sched.cli", "show", str(config)),
            "torch": ("-c", "import torch"),
        }
        for turn in range(1 if is_quick else 10):
            for name, command in commands.items():
                used = seconds(*command)
                if turn or is_quick:
                    taken[name].append(used)
    row = Row(
        what="`dist-sched show`, cold",
        ours=1e3 * statistics.median(taken["ours"]),
        unit="ms",
        against="import torch",
        theirs=1e3 * statistics.median(taken["torch"]),
        most=MOST,
    )
    return Result(title="Command line", rows=[row])
