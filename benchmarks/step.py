"""Time one `step` of dist_sched's OptimizerParamScheduler beside its peers.

All inputs follow a cosine, half-way to a horizon that is far away, so that each step computes a
new value. The inputs of a row are timed in turn, in rounds, so that whatever else the machine
does hits all alike; a cell is the median of the rounds, in µs of CPU time a step.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import platform
import statistics
import time
import timeit
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PEAK = 1e-3
HORIZON = 1_000_000_000
START = HORIZON // 2
WARMUP = 10

MEGATRON, NEMO, OURS, FLOOR = "Megatron-LM", "NeMo AutoModel", "dist_sched", "floor"
LAMBDA, COSINE = "LambdaLR", "CosineAnnealingLR"
PHASES = "ParamScheduler"

INSTALL = "source scripts/env.sh && make_environment dev && install_upstream"

BATCH_SECONDS = 0.002
"""How long a timed batch of calls takes at least, far above the clock's grain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the groups are made, and who can schedule them so."""

    title: str
    own: Callable[[int], dict[str, Any]]
    """What the group of an index carries of its own."""

    peers: tuple[str, ...]
    """The peers that can express it."""

    note: str
    is_tensor: bool = False
    unequal: tuple[str, ...] = ()
    """Peers that do less than the scenario asks: timed, but left out of the comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured for one scenario at one number of groups."""

    scenario: str
    groups: int
    samples: dict[str, list[float]] = field(repr=False)
    """µs of CPU time a step in each round, by subject."""

    @property
    def medians(self) -> dict[str, float]:
        """µs a step, by subject."""
        return {name: statistics.median(samples) for name, samples in self.samples.items()}

    @property
    def ratio(self) -> float:
        """Our time as a fraction of the fastest equal peer's."""
        medians, scenario = self.medians, SCENARIOS[self.scenario]
        equals = set(scenario.peers) - set(scenario.unequal)
        return medians[OURS] / min(medians[name] for name in equals)


def distinct(index: int) -> float:
    """A learning rate that no other group has."""
    return PEAK * (1.0 + index / 1000.0)


TORCH_NOTE = f"{LAMBDA} and {COSINE} set lr alone, the others lr and weight decay."

SCENARIOS = {
    "shared": Scenario(
        title="Groups that share bounds",
        own=lambda _: {},
        peers=(MEGATRON, NEMO, LAMBDA, COSINE, PHASES),
        note=(
            f"{TORCH_NOTE} The starred is dist_sched's other face, with lr and weight decay in "
            "phases, and is left out of the ratio."
        ),
        unequal=(PHASES,),
    ),
    "own-lr": Scenario(
        title="Each group with its own lr at construction",
        own=lambda index: {"lr": distinct(index)},
        peers=(NEMO, LAMBDA, COSINE),
        note=f"{TORCH_NOTE} {MEGATRON} gives all groups one lr.",
    ),
    "own-max-lr": Scenario(
        title="Each group with its own `max_lr`",
        own=lambda index: {"max_lr": distinct(index)},
        peers=(MEGATRON, NEMO),
        note="PyTorch's own schedulers know no such bound.",
    ),
    "tensor-lr": Scenario(
        title="Each group with a tensor lr (float32, 0-dim, `capturable=True`)",
        own=lambda _: {"lr": torch.tensor(PEAK)},
        peers=(MEGATRON, NEMO, LAMBDA, COSINE),
        note=(
            "The starred replace the tensor by a float, less work, and are left out of the ratio. "
            f"{TORCH_NOTE} The floor fills the tensor."
        ),
        is_tensor=True,
        unequal=(MEGATRON, NEMO),
    ),
}


def make_optimizer(scenario: Scenario, groups: int) -> torch.optim.Optimizer:
    """Build an AdamW of so many groups, each of one parameter of one element."""
    first = {"params": [torch.nn.Parameter(torch.zeros(1))], **scenario.own(0)}
    optimizer = torch.optim.AdamW([first], lr=PEAK, capturable=scenario.is_tensor)
    template = optimizer.param_groups[0]
    # Not by add_param_group, which compares with all parameters before: minutes at 10,000 groups.
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
        message = "No module named 'nemo_automodel'"
        raise ModuleNotFoundError(message)
    path = Path(package.submodule_search_locations[0], "components", "optim", "scheduler.py")
    spec = importlib.util.spec_from_file_location("nemo_scheduler", path)
    if spec is None or spec.loader is None:
        message = f"cannot load {path}"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OptimizerParamScheduler


def load_ours() -> Any:
    """Import the class of this library."""
    return importlib.import_module("dist_sched").OptimizerParamScheduler


def time_phases(optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Make a timer of `step(1)` of our scheduler of phases, on the same curves."""
    from dist_sched import ParamScheduler, Phase, Schedule, schedules

    decay = Schedule([Phase("linear", HORIZON, end=0.1, start=0.01)])
    lr = schedules.cosine(PEAK, HORIZON, WARMUP, floor=PEAK / 100)
    scheduler = ParamScheduler(optimizer, {"lr": lr, "weight_decay": decay})
    scheduler.step(START)
    return time_cpu("scheduler.step(1)", scheduler=scheduler)


def time_cpu(statement: str, **names: object) -> timeit.Timer:
    """Make a timer that does not count the time when other processes run."""
    return timeit.Timer(statement, timer=time.process_time, globals=names)


def time_class(load: Callable[[], Any], optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Make a timer of `step(1)` of a seed, or of ours."""
    scheduler = load()(
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
    """Give the same curve as a fraction of the peak."""
    if position <= WARMUP:
        return position / WARMUP
    return 0.5 * (math.cos(math.pi * (position - WARMUP) / (HORIZON - WARMUP)) + 1.0)


def time_torch(
    make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler],
    optimizer: torch.optim.Optimizer,
) -> timeit.Timer:
    """Make a timer of `step()` of one of PyTorch's schedulers."""
    scheduler = make(optimizer)
    optimizer.step()  # or the first scheduler.step() warns that it came before
    scheduler.last_epoch = START
    return time_cpu("scheduler.step()", scheduler=scheduler)


def make_lambda(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Make PyTorch's scheduler that calls a function."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_after_warmup)


def make_cosine(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Make PyTorch's recursive cosine, which has no warmup."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HORIZON, PEAK / 100)


def assign(groups: Iterable[dict[str, Any]], lr: float, weight_decay: float) -> None:
    """Do the least that any scheduler of both must do."""
    for group in groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay


def fill(groups: Iterable[dict[str, Any]], lr: float, weight_decay: float) -> None:
    """Do the least where lr is a tensor."""
    for group in groups:
        group["lr"].fill_(lr)
        group["weight_decay"] = weight_decay


def time_floor(optimizer: torch.optim.Optimizer) -> timeit.Timer:
    """Make a timer of two bare assignments a group."""
    groups = optimizer.param_groups
    write = fill if isinstance(groups[0]["lr"], torch.Tensor) else assign
    return time_cpu("write(groups, 1e-3, 0.1)", write=write, groups=groups)


BUILDERS: dict[str, Callable[[torch.optim.Optimizer], timeit.Timer]] = {
    MEGATRON: lambda optimizer: time_class(load_megatron, optimizer),
    NEMO: lambda optimizer: time_class(load_nemo, optimizer),
    LAMBDA: lambda optimizer: time_torch(make_lambda, optimizer),
    COSINE: lambda optimizer: time_torch(make_cosine, optimizer),
    PHASES: time_phases,
    OURS: lambda optimizer: time_class(load_ours, optimizer),
    FLOOR: time_floor,
}


def calls_a_batch(timer: timeit.Timer) -> int:
    """Find how many calls make a batch, warming the subject up on the way."""
    calls = 1
    while (seconds := min(timer.repeat(3, calls))) < BATCH_SECONDS / 2:
        calls *= 2
    return max(1, round(calls * BATCH_SECONDS / seconds))


def time_in_turn(timers: dict[str, timeit.Timer], repeats: int) -> dict[str, list[float]]:
    """Time each subject once a round, starting each round with another, in µs a call."""
    calls = {name: calls_a_batch(timer) for name, timer in timers.items()}
    samples: dict[str, list[float]] = {name: [] for name in timers}
    names = list(timers)
    for _ in range(repeats):
        for name in names:
            samples[name].append(timers[name].timeit(calls[name]) / calls[name] * 1e6)
        names.append(names.pop(0))
    return samples


def measure(name: str, groups: int, repeats: int) -> Row:
    """Measure all inputs of a scenario at one number of groups, each on its own optimizer."""
    scenario = SCENARIOS[name]
    inputs = (*scenario.peers, OURS, FLOOR)
    timers = {who: BUILDERS[who](make_optimizer(scenario, groups)) for who in inputs}
    return Row(scenario=name, groups=groups, samples=time_in_turn(timers, repeats))


def show(microseconds: float) -> str:
    """Write a time with about three digits."""
    digits = 2 if microseconds < 10 else 1 if microseconds < 100 else 0  # noqa: PLR2004
    return f"{microseconds:,.{digits}f}"


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Lay out the rows of one scenario as text, with a head."""
    names = list(rows[0].samples)
    unequal = SCENARIOS[rows[0].scenario].unequal
    heads = [f"{name}*" if name in unequal else name for name in names]
    table = [["groups", *heads, f"{OURS} / fastest peer"]]
    for row in rows:
        times = [show(row.medians[name]) for name in names]
        table.append([f"{row.groups:,}", *times, f"{row.ratio:.2f}"])
    return table


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Write a table in columns, to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    ]


def mark_down(table: Sequence[Sequence[str]]) -> list[str]:
    """Write a table in Markdown."""
    head, *body = ("| " + " | ".join(line) + " |" for line in table)
    return [head, "|" + " ---: |" * len(table[0]), *body]


def report(rows: Sequence[Row], *, is_markdown: bool) -> str:
    """Write what was measured for one scenario."""
    scenario = SCENARIOS[rows[0].scenario]
    lines = mark_down(cells(rows)) if is_markdown else align(cells(rows))
    title = f"### {scenario.title}" if is_markdown else scenario.title
    return "\n".join([title, "", *lines, "", scenario.note, ""])


def machine() -> dict[str, str]:
    """Say what the figures were measured on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
    }


def as_json(rows: Iterable[Row]) -> str:
    """Write every sample, for those who want to compute more than medians."""
    results = [
        {
            "scenario": row.scenario,
            "groups": row.groups,
            "median_us": row.medians,
            "samples_us": row.samples,
        }
        for row in rows
    ]
    return json.dumps({"on": machine(), "results": results}, indent=1)


def positive(text: str) -> int:
    """Read a count from the command line."""
    count = int(text)
    if count < 1:
        message = f"{text} is not a positive number"
        raise argparse.ArgumentTypeError(message)
    return count


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
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[Row]:
    """Measure, and print the table of each scenario as soon as it is there."""
    rows: list[Row] = []
    for name in options.scenario:
        rows += [measure(name, groups, options.repeats) for groups in options.groups]
        print(report(rows[-len(options.groups) :], is_markdown=options.markdown), flush=True)
    return rows


def main() -> None:
    """Measure all that was asked for, and write the file."""
    options = parse_arguments()
    try:
        rows = run(options)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}; all inputs come with: {INSTALL}") from error
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    if options.json is not None:
        options.json.write_text(as_json(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
