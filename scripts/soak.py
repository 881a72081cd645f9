"""Step schedulers for very long, save and load them on the way, and look for drift and growth.

    python scripts/soak.py                                   # ten million steps
    python scripts/soak.py --steps 20000 --every 1000

Every so many steps, groups and state must have the same bits as those of a new scheduler that was
only told the position (`seek`). Then the state is saved with `torch.save` and loaded again, in turn
into the same scheduler and into a new one with a new optimizer, which goes on. Memory that the
library holds, and the memory of the process, are compared with those after the first tenth. The
exit status is 1 if anything differs or grows.
"""

from __future__ import annotations

import argparse
import gc
import io
import logging
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule, schedules

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_GROWTH = 65_536
"""Bytes that what Python holds may grow by: its tables and free lists, which stop growing.

A single byte a step would be ten million.
"""
MOST_PROCESS_GROWTH = 8.0
"""MiB that the process may grow by: the allocator keeps free memory in blocks."""


def adamw(*, is_tensor: bool) -> torch.optim.AdamW:
    """Return an optimizer of three groups: plain, without decay, and with bounds of its own."""

    def lr(value: float) -> Any:
        return torch.tensor(value) if is_tensor else value

    groups: list[dict[str, Any]] = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr(1e-3), "name": "plain"},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr(1e-3), "weight_decay": 0.0},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr(1e-3), "max_lr": 5e-4},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)


def entries(optimizer: torch.optim.Optimizer, steps: int) -> OptimizerParamScheduler:
    """Return an `OptimizerParamScheduler` whose schedule ends with the run."""
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=1e-3,
        min_lr=1e-5,
        lr_warmup_steps=steps // 100,
        lr_decay_steps=steps,
        lr_decay_style="cosine",
        start_wd=0.01,
        end_wd=0.1,
        wd_incr_steps=steps,
        wd_incr_style="linear",
    )


def phases(optimizer: torch.optim.Optimizer, steps: int) -> ParamScheduler:
    """Return a `ParamScheduler` of three fields and an extra, whose schedules end with the run."""
    lr = schedules.wsd(1e-3, steps, warmup=steps // 100, decay=steps // 5)
    momentum = Schedule([Phase("cosine", steps, end=0.95, start=0.85)])
    batch = Schedule([Phase("linear", steps, end=4096, start=256)], multiple_of=8)
    return ParamScheduler(
        optimizer,
        {"lr": lr, "weight_decay": 0.1, "betas[0]": momentum},
        extras={"batch_size": batch},
    )


Scheduler = OptimizerParamScheduler | ParamScheduler
BUILDERS: dict[str, Callable[[torch.optim.Optimizer, int], Scheduler]] = {
    "OptimizerParamScheduler": entries,
    "ParamScheduler": phases,
}


def held(scheduler: Scheduler) -> list[Any]:
    """Return what the groups hold, and the state, bit for bit."""
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in scheduler.optimizer.param_groups
    ]
    plain = [
        {
            key: value.item() if isinstance(value, torch.Tensor) else value
            for key, value in one.items()
        }
        for one in groups
    ]
    return [plain, scheduler.get_last_lr(), scheduler.extras, scheduler.state_dict()]


def sizes(scheduler: Scheduler) -> dict[str, int]:
    """Return the lengths of what could grow from step to step."""
    return {
        "history": len(scheduler.history),
        "groups": len(scheduler.optimizer.param_groups),
        "keys": sum(map(len, scheduler.optimizer.param_groups)),
        "optimizer's hooks": sum(
            len(getattr(scheduler.optimizer, name))
            for name in dir(scheduler.optimizer)
            if name.endswith("_hooks") and not name.startswith("__")
        ),
    }


def resident() -> float:
    """Return the memory of this process in MiB; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0.0
    return int(status.read_text(encoding="ascii").split()[1]) * 4096 / 2**20


@dataclass(slots=True)
class Run:
    """One scheduler on its way, and what was found."""

    name: str
    steps: int
    is_tensor: bool
    problems: list[str] = field(default_factory=list)
    looks: int = 0
    """How often it was compared, saved and loaded."""
    traced: list[int] = field(default_factory=list)
    """Bytes that Python holds, at each look."""
    resident: list[float] = field(default_factory=list)

    def fresh(self) -> Scheduler:
        """Return a new scheduler over a new optimizer."""
        return BUILDERS[self.name](adamw(is_tensor=self.is_tensor), self.steps)

    def go(self, every: int, *, is_traced: bool) -> None:
        """Make all steps, and look every so many."""
        scheduler = self.fresh()
        before: dict[str, int] = {}
        gc.collect()
        gc.freeze()  # or each collection would go through all of torch
        if is_traced:
            tracemalloc.start()
        for position in range(every, self.steps + 1, every):
            step = scheduler.step
            for _ in range(every):
                step()
            self._compare(scheduler, position)
            scheduler = self._reload(scheduler)
            found = sizes(scheduler)
            if before and found != before:
                self.problems.append(f"at {position}: sizes were {before} and are {found}")
            before = found
            self.looks += 1
            gc.collect()
            if is_traced:
                self.traced.append(tracemalloc.get_traced_memory()[0])
            self.resident.append(resident())
        tracemalloc.stop()
        gc.unfreeze()
        self._judge_growth()

    def _compare(self, scheduler: Scheduler, position: int) -> None:
        reference = self.fresh()
        reference.seek(position)
        if held(reference) != held(scheduler):
            self.problems.append(
                f"at {position}: stepped to {held(scheduler)}, sought to {held(reference)}"
            )

    def _reload(self, scheduler: Scheduler) -> Scheduler:
        """Return what goes on from the saved state: in turn this scheduler and a new one."""
        buffer = io.BytesIO()
        torch.save(scheduler.state_dict(), buffer)
        buffer.seek(0)
        goes_on = self.fresh() if self.looks % 2 else scheduler
        goes_on.load_state_dict(torch.load(buffer, weights_only=True))
        if held(goes_on) != held(scheduler):
            self.problems.append(f"at {scheduler.num_steps}: the load changed something")
        return goes_on

    @property
    def growth(self) -> tuple[int, float]:
        """Bytes that Python holds, and MiB of the process, since the first tenth of the looks."""
        first = len(self.resident) // 10
        traced = self.traced[-1] - self.traced[first] if self.traced else 0
        return traced, self.resident[-1] - self.resident[first]

    def _judge_growth(self) -> None:
        traced, process = self.growth
        if traced > MOST_GROWTH:
            self.problems.append(f"what Python holds grew by {traced:,} B")
        if process > MOST_PROCESS_GROWTH:
            self.problems.append(f"the process grew by {process:.1f} MiB")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for, print a line each, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--every", type=int, default=100_000, help="steps from a look to the next")
    parser.add_argument("--scheduler", choices=BUILDERS, nargs="+", default=list(BUILDERS))
    parser.add_argument("--tensors", action="store_true", help="make each lr a tensor")
    parser.add_argument(
        "--trace", action="store_true", help="count what Python holds, three times slower"
    )
    options = parser.parse_args(arguments)
    status = 0
    for name in options.scheduler:
        begin = time.perf_counter()
        run = Run(name, options.steps, options.tensors)
        run.go(options.every, is_traced=options.trace)
        traced, process = run.growth
        print(
            f"{name}: {options.steps:,} steps, {run.looks} times compared, saved and loaded, "
            f"{time.perf_counter() - begin:.0f} s; "
            + (f"Python's memory {traced:+,} B, " if options.trace else "")
            + f"the process {process:+.1f} MiB"
        )
        for problem in run.problems[:10]:
            print(f"  {problem[:2000]}")
        status |= bool(run.problems)
    return status


if __name__ == "__main__":
    logging.getLogger("dist_sched").setLevel(logging.ERROR)
    sys.exit(main())
