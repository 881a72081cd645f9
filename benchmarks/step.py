"""Time one `step` of dist_sched's OptimizerParamScheduler beside its peers.

Every scheduler follows a cosine, half-way to a horizon that is far away, so that each step computes
a new value. The schedulers of a row are timed in turn, in rounds, so that whatever else the machine
does hits all alike. A cell is the median of the rounds, in µs of CPU time a step.

With `--against`, this checkout's schedulers are compared with those of another checkout instead:

    git worktree add ../before main
    python benchmarks/step.py --against ../before/src

The exit status is then 1 where a cell is more than 5 % slower than there.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
import timeit
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

PEAK = 1e-3
HORIZON = 1_000_000_000
START = HORIZON // 2
WARMUP = 10

MEGATRON, NEMO, OURS, FLOOR = "Megatron-LM", "NeMo AutoModel", "dist_sched", "floor"
LAMBDA, COSINE = "LambdaLR", "CosineAnnealingLR"
BEFORE, NOW = "before", "now"
PHASES = "ParamScheduler"

INSTALL = "source scripts/env.sh && make_environment dev && install_upstream"

BATCH_SECONDS = 0.002
"""How long a timed batch of calls takes at least, far above the clock's grain."""

SOURCE = Path(__file__).resolve().parents[1] / "src"
SLOWER = 1.05
"""The ratio to another checkout above which a cell counts as slower."""
LAUNCHES = 3
"""How many processes of each checkout share the rounds.

Where a process happens to put its objects in memory alone makes it some percent faster or slower.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the groups are made, and which schedulers support them."""

    title: str
    own: Callable[[int], dict[str, Any]]
    """From a group's index to the keys that only this group has."""

    peers: tuple[str, ...]
    """The schedulers beside ours that support such groups."""

    note: str
    is_tensor: bool = False
    unequal: tuple[str, ...] = ()
    """Peers that do another amount of work: timed, but left out of the ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured for one scenario at one number of groups."""

    scenario: str
    groups: int
    samples: dict[str, list[float]] = field(repr=False)
    """µs of CPU time a step in each round, by scheduler; in a comparison, by checkout."""

    scheduler: str = ""
    """In a comparison, whose time it is."""

    @property
    def medians(self) -> dict[str, float]:
        """µs a step, by scheduler."""
        return {name: statistics.median(samples) for name, samples in self.samples.items()}

    @property
    def ratio(self) -> float:
        """Our time as a fraction of the fastest equal peer's."""
        medians, scenario = self.medians, SCENARIOS[self.scenario]
        equals = set(scenario.peers) - set(scenario.unequal)
        return medians[OURS] / min(medians[name] for name in equals)

    @property
    def slowdown(self) -> float:
        """The time here as a fraction of the other checkout's: the median over rounds."""
        pairs = zip(self.samples[BEFORE], self.samples[NOW], strict=True)
        return statistics.median(now / before for before, now in pairs)


def distinct(index: int) -> float:
    """Return a learning rate that no other group has."""
    return PEAK * (1.0 + index / 1000.0)


TORCH_NOTE = f"{LAMBDA} and {COSINE} set lr alone, the others lr and weight decay."

SCENARIOS = {
    "shared": Scenario(
        title="Groups that share bounds",
        own=lambda _: {},
        peers=(MEGATRON, NEMO, LAMBDA, COSINE, PHASES),
        note=(
            f"{TORCH_NOTE} The starred is dist_sched's other scheduler, with lr and weight decay "
            "in phases, and is left out of the ratio."
        ),
        unequal=(PHASES,),
    ),
    "own-lr": Scenario(
        title="Each group with its own lr at construction",
        own=lambda index: {"lr": distinct(index)},
        peers=(NEMO, LAMBDA, COSINE),
        note=f"{TORCH_NOTE} {MEGATRON} has one lr for all groups.",
    ),
    "own-max-lr": Scenario(
        title="Each group with its own `max_lr`",
        own=lambda index: {"max_lr": distinct(index)},
        peers=(MEGATRON, NEMO),
        note="PyTorch's own schedulers have no such bound.",
    ),
    "tensor-lr": Scenario(
        title="Each group with a tensor lr (float32, 0-dim, `capturable=True`)",
        own=lambda _: {"lr": torch.tensor(PEAK)},
        peers=(MEGATRON, NEMO, LAMBDA, COSINE),
        note=(
            "The starred replace the tensor by a float: less work, so left out of the ratio. "
            f"{TORCH_NOTE} The floor fills the tensor."
        ),
        is_tensor=True,
        unequal=(MEGATRON, NEMO),
    ),
}


def make_optimizer(scenario: Scenario, groups: int) -> torch.optim.Optimizer:
    """Return an AdamW with so many groups, each of one parameter of one element."""
    first = {"params": [torch.nn.Parameter(torch.zeros(1))], **scenario.own(0)}
    optimizer = torch.optim.AdamW([first], lr=PEAK, capturable=scenario.is_tensor)
    template = optimizer.param_groups[0]
    # add_param_group compares with all parameters so far, which takes minutes at 10,000 groups.
    optimizer.param_groups.extend(
        {**template, "params": [torch.nn.Parameter(torch.zeros(1))], **scenario.own(index)}
        for index in range(1, groups)
    )
    return optimizer


def load_megatron() -> Any:
    """Import Megatron-LM's class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of optional packages that are absent
        return importlib.import_module(
            "megatron.core.optimizer_param_scheduler"
        ).OptimizerParamScheduler


def load_nemo() -> Any:
    """Load NeMo AutoModel's class from its one file, without the package's many requirements."""
    package = importlib.util.find_spec("nemo_automodel")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'nemo_automodel'")
    path = Path(package.submodule_search_locations[0], "components", "optim", "scheduler.py")
    spec = importlib.util.spec_from_file_location("nemo_scheduler", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OptimizerParamScheduler


def time_ours(optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Return a timer of `step(1)` of our `OptimizerParamScheduler`."""
    from dist_sched import OptimizerParamScheduler

    return time_class(OptimizerParamScheduler, optimizer)


def time_phases(optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Return a timer of `step(1)` of our `ParamScheduler`, on the same curves."""
    from dist_sched import ParamScheduler, Phase, Schedule, schedules

    decay = Schedule([Phase("linear", HORIZON, end=0.1, start=0.01)])
    lr = schedules.cosine(PEAK, HORIZON, WARMUP, floor=PEAK / 100)
    scheduler = ParamScheduler(optimizer, {"lr": lr, "weight_decay": decay})
    scheduler.step(START)
    return time_cpu("scheduler.step(1)", scheduler=scheduler)


def time_cpu(statement: str, **names: object) -> timeit.Timer:
    """Return a timer that does not count the time when other processes run."""
    return timeit.Timer(statement, timer=time.process_time, globals=names)


def time_class(cls: Any, optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Return a timer of `step(1)` of Megatron's, NeMo's or our `OptimizerParamScheduler`."""
    scheduler = cls(
        optimizer,
        init_lr=0.0,
        max_lr=PEAK,
        min_lr=PEAK / 100,
        lr_warmup_steps=WARMUP,
        lr_decay_steps=HORIZON,
        lr_decay_style="cosine",
        start_wd=0.01,
        end_wd=0.1,
        wd_incr_steps=HORIZON,
        wd_incr_style="linear",
    )
    scheduler.step(START)
    return time_cpu("scheduler.step(1)", scheduler=scheduler)


def cosine_after_warmup(position: int) -> float:
    """Return the same curve as a fraction of the peak."""
    if position <= WARMUP:
        return position / WARMUP
    return 0.5 * (math.cos(math.pi * (position - WARMUP) / (HORIZON - WARMUP)) + 1.0)


def time_torch(scheduler: LRScheduler) -> timeit.Timer:
    """Return a timer of `step()` of one of PyTorch's schedulers."""
    scheduler.optimizer.step()  # or the first scheduler.step() warns that it came too early
    scheduler.last_epoch = START
    return time_cpu("scheduler.step()", scheduler=scheduler)


def assign(groups: Iterable[dict[str, Any]], lr: float, weight_decay: float) -> None:
    """Do the least that any scheduler of lr and weight decay must do."""
    for group in groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay


def fill(groups: Iterable[dict[str, Any]], lr: float, weight_decay: float) -> None:
    """Do the least where lr is a tensor."""
    for group in groups:
        group["lr"].fill_(lr)
        group["weight_decay"] = weight_decay


def time_floor(optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Return a timer of two bare assignments a group."""
    groups = optimizer.param_groups
    write = fill if isinstance(groups[0]["lr"], torch.Tensor) else assign
    return time_cpu("write(groups, 1e-3, 0.1)", write=write, groups=groups)


TIMERS: dict[str, Callable[[torch.optim.Optimizer], timeit.Timer]] = {
    MEGATRON: lambda optimizer: time_class(load_megatron(), optimizer),
    NEMO: lambda optimizer: time_class(load_nemo(), optimizer),
    LAMBDA: lambda optimizer: time_torch(LambdaLR(optimizer, cosine_after_warmup)),
    # Computed from the value before, and without a warmup.
    COSINE: lambda optimizer: time_torch(CosineAnnealingLR(optimizer, HORIZON, PEAK / 100)),
    PHASES: time_phases,
    OURS: time_ours,
    FLOOR: time_floor,
}


def calls_a_batch(timer: timeit.Timer) -> int:
    """Return how many calls make a batch; measuring it warms the scheduler up."""
    calls = 1
    while (seconds := min(timer.repeat(3, calls))) < BATCH_SECONDS / 2:
        calls *= 2
    return max(1, round(calls * BATCH_SECONDS / seconds))


def time_in_turn(timers: dict[str, timeit.Timer], repeats: int) -> dict[str, list[float]]:
    """Time each scheduler once a round, in µs a call; each round starts with another one."""
    calls = {name: calls_a_batch(timer) for name, timer in timers.items()}
    samples: dict[str, list[float]] = {name: [] for name in timers}
    names = list(timers)
    for _ in range(repeats):
        for name in names:
            samples[name].append(timers[name].timeit(calls[name]) / calls[name] * 1e6)
        names.append(names.pop(0))
    return samples


def measure(name: str, groups: int, repeats: int) -> Row:
    """Measure a scenario at one number of groups, each scheduler on an optimizer of its own."""
    scenario = SCENARIOS[name]
    timed = (*scenario.peers, OURS, FLOOR)
    timers = {each: TIMERS[each](make_optimizer(scenario, groups)) for each in timed}
    return Row(scenario=name, groups=groups, samples=time_in_turn(timers, repeats))


def show(microseconds: float) -> str:
    """Return a time with about three digits, as text."""
    digits = 2 if microseconds < 10 else 1 if microseconds < 100 else 0  # noqa: PLR2004
    return f"{microseconds:,.{digits}f}"


def table_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return the rows of one scenario as text, with a head."""
    names = list(rows[0].samples)
    unequal = SCENARIOS[rows[0].scenario].unequal
    heads = [f"{name}*" if name in unequal else name for name in names]
    table = [["groups", *heads, f"{OURS} / fastest peer"]]
    for row in rows:
        times = [show(row.medians[name]) for name in names]
        table.append([f"{row.groups:,}", *times, f"{row.ratio:.2f}"])
    return table


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, its columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    ]


def mark_down(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines in Markdown."""
    head, *body = ("| " + " | ".join(line) + " |" for line in table)
    return [head, "|" + " ---: |" * len(table[0]), *body]


def report(rows: Sequence[Row], *, is_markdown: bool) -> str:
    """Return what was measured for one scenario, as text."""
    scenario = SCENARIOS[rows[0].scenario]
    lines = mark_down(table_of(rows)) if is_markdown else align(table_of(rows))
    title = f"### {scenario.title}" if is_markdown else scenario.title
    return "\n".join([title, "", *lines, "", scenario.note, ""])


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
    }


def as_json(rows: Iterable[Row]) -> str:
    """Return every sample as JSON, for readers who want more than medians."""
    results = [
        {
            "scenario": row.scenario,
            "groups": row.groups,
            "scheduler": row.scheduler or None,
            "median_us": row.medians,
            "samples_us": row.samples,
        }
        for row in rows
    ]
    return json.dumps({"on": machine(), "results": results}, indent=1)


# Comparison with another checkout


def time_on_request(source: Path, requests: Connection) -> None:
    """Time the `dist_sched` of a `src` folder, in a process of its own.

    Receives cells (scenario, groups, scheduler), or None at the end. Answers each when it is built,
    then each True with the µs a step of one more batch, until a False.
    """
    sys.path.insert(0, str(source))
    while cell := requests.recv():
        name, groups, scheduler = cell
        timer = TIMERS[scheduler](make_optimizer(SCENARIOS[name], groups))
        calls = calls_a_batch(timer)
        requests.send(calls)
        while requests.recv():
            requests.send(timer.timeit(calls) / calls * 1e6)


@contextmanager
def process_of(source: Path) -> Iterator[Connection]:
    """Run `time_on_request` for a `src` folder; yields the connection to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=time_on_request, args=(source, theirs), daemon=True)
    process.start()
    theirs.close()  # or a process that ended would leave recv() waiting
    yield ours
    ours.send(None)
    process.join()


def compare(options: argparse.Namespace) -> list[Row]:
    """Time our schedulers here and in another checkout, in turn."""
    samples: dict[tuple[str, int, str], dict[str, list[float]]] = {
        (name, groups, scheduler): {BEFORE: [], NOW: []}
        for name in options.scenario
        for scheduler in (OURS, *{PHASES}.intersection(SCENARIOS[name].peers))
        for groups in options.groups
    }
    for _ in range(LAUNCHES):
        with process_of(options.against) as before, process_of(SOURCE) as now:
            for cell, taken in samples.items():
                turns = [(taken[BEFORE], before), (taken[NOW], now)]
                for _, process in turns:
                    process.send(cell)
                    process.recv()
                for _ in range(math.ceil(options.repeats / LAUNCHES)):
                    for times, process in turns:
                        process.send(True)
                        times.append(process.recv())
                    turns.reverse()
                for _, process in turns:
                    process.send(False)
    return [
        Row(scenario=name, groups=groups, samples=taken, scheduler=scheduler)
        for (name, groups, scheduler), taken in samples.items()
    ]


def report_comparison(rows: Sequence[Row], *, is_markdown: bool) -> str:
    """Return the table of a comparison, and which cells are slower."""
    table = [["scenario", "scheduler", "groups", BEFORE, NOW, f"{NOW} / {BEFORE}"]]
    for row in rows:
        times = [show(row.medians[name]) for name in (BEFORE, NOW)]
        table.append(
            [row.scenario, row.scheduler, f"{row.groups:,}", *times, f"{row.slowdown:.3f}"]
        )
    slower = sum(row.slowdown > SLOWER for row in rows)
    lines = mark_down(table) if is_markdown else align(table)
    return "\n".join([*lines, "", f"{slower} of {len(rows)} cells are slower by over 5 %", ""])


def positive(text: str) -> int:
    """Read a count from the command line."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return count


def source_folder(text: str) -> Path:
    """Read the path of a folder that holds the package."""
    if not Path(text, "dist_sched", "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} does not hold dist_sched/__init__.py")
    return Path(text).resolve()


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    scenarios = "\n".join(f"  {name:<12}{s.title}" for name, s in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"scenarios:\n{scenarios}\n\nThe floor is two bare assignments a group.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--groups",
        type=positive,
        nargs="+",
        default=[1, 2, 10, 100, 1000, 10000],
        metavar="N",
        help="numbers of param groups to measure at (default: 1 2 10 100 1000 10000)",
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        default=51,
        metavar="N",
        help="rounds to take the median of (default: %(default)s)",
    )
    parser.add_argument(
        "--scenario",
        choices=list(SCENARIOS),
        nargs="+",
        default=list(SCENARIOS),
        metavar="NAME",
        help="which of the scenarios below to measure (default: all)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write every sample to this file"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    parser.add_argument(
        "--against",
        type=source_folder,
        metavar="SRC",
        help="compare with the dist_sched in this folder; exit with 1 where a cell is 5 %% slower",
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[Row]:
    """Measure every scenario, and print its table as soon as it is complete."""
    rows: list[Row] = []
    for name in options.scenario:
        rows += [measure(name, groups, options.repeats) for groups in options.groups]
        print(report(rows[-len(options.groups) :], is_markdown=options.markdown), flush=True)
    return rows


def main() -> int:
    """Measure what was asked for; return the exit status."""
    options = parse_arguments()
    status = 0
    try:
        if options.against:
            rows = compare(options)
            print(report_comparison(rows, is_markdown=options.markdown))
            status = int(any(row.slowdown > SLOWER for row in rows))
        else:
            rows = run(options)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}; upstream's classes come with: {INSTALL}") from error
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    if options.json is not None:
        options.json.write_text(as_json(rows), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
