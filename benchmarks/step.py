"""Time one `step` of dist_sched's schedulers beside their peers.

The schedulers of a row are timed in turn, in rounds, so that whatever else the machine does hits
all alike. A cell is the median of the rounds, in µs of CPU time a step.

With `--against`, this checkout's schedulers are compared with those of another checkout instead:

    git worktree add ../before main
    python -m benchmarks.step --against ../before/src

The exit status is then 1 where a cell is more than 5 % slower than there.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import peers, table, timing
from benchmarks.peers import (
    COSINE,
    FIELDS,
    FLOOR,
    LAMBDA,
    MEGATRON,
    NEMO,
    OURS,
    PEAK,
    PHASES,
    SEQUENTIAL,
    TRANSFORMERS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

BEFORE, NOW = "before", "now"
GROUPS = (1, 2, 10, 100, 1_000, 10_000)
ROUNDS = 51

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
    peers: tuple[str, ...]
    """The schedulers beside ours that support such groups."""

    bars: dict[int, float]
    """The highest ratio that is wanted, by the number of groups from which on it is."""

    note: str
    own: Callable[[int], dict[str, Any]] = lambda _: {}
    """From a group's index to the keys that only this group has."""

    ours: tuple[str, ...] = (OURS,)
    """Our schedulers. The ratio is of the first one."""

    rivals: tuple[str, ...] = ()
    """Those whose fastest the ratio is to. Empty for all peers."""

    options: dict[str, Any] = field(default_factory=dict)
    """Further options of the optimizer."""

    @property
    def equals(self) -> list[str]:
        """Those whose fastest the ratio is to."""
        return [name for name in self.rivals or self.peers if peers.is_here(name)]

    @property
    def timed(self) -> list[str]:
        """All that are timed."""
        return [*filter(peers.is_here, self.peers), *self.ours, FLOOR]

    def optimizer(self, groups: int) -> torch.optim.Optimizer:
        """Return an optimizer with so many groups."""
        return peers.adamw(groups, self.own, **self.options)

    def bar(self, groups: int) -> float | None:
        """Return the highest ratio that is wanted at a number of groups."""
        reached = [first for first in self.bars if first <= groups]
        return self.bars[max(reached)] if reached else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
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
        return timing.medians(self.samples)

    @property
    def slowdown(self) -> float:
        """The time here as a fraction of the other checkout's: the median over rounds."""
        pairs = zip(self.samples[BEFORE], self.samples[NOW], strict=True)
        return statistics.median(now / before for before, now in pairs)

    def row(self) -> table.Row:
        """Return our time beside the fastest rival's."""
        scenario, medians = SCENARIOS[self.scenario], self.medians
        fastest = min(scenario.equals, key=medians.__getitem__)
        return table.Row(
            what=f"step, {scenario.title}, {table.counted(self.groups, 'group')}",
            ours=medians[scenario.ours[0]],
            against=fastest,
            theirs=medians[fastest],
            most=scenario.bar(self.groups),
        )


def distinct(index: int) -> float:
    """Return a learning rate that no other group has."""
    return PEAK * (1.0 + index / 1000.0)


TORCHS = (LAMBDA, COSINE, SEQUENTIAL, TRANSFORMERS)
BARS = {1: 1.3, 10: 0.7, 100: 0.5}
NOTE = "PyTorch's schedulers and transformers' set lr alone, the others lr and weight decay."

SCENARIOS = {
    "shared": Scenario(
        title="shared bounds",
        peers=(MEGATRON, NEMO, *TORCHS),
        ours=(OURS, PHASES),
        bars=BARS,
        note=NOTE,
    ),
    "own-lr": Scenario(
        title="own lr",
        own=lambda index: {"lr": distinct(index)},
        peers=(NEMO, *TORCHS),
        bars=BARS,
        note=f"{NOTE} {MEGATRON} has one lr for all groups.",
    ),
    "own-max-lr": Scenario(
        title="own `max_lr`",
        own=lambda index: {"max_lr": distinct(index)},
        peers=(MEGATRON, NEMO),
        bars={1: 1.3, 10: 0.85, 100: 0.75},
        note="PyTorch's own schedulers have no such bound.",
    ),
    "fields": Scenario(
        title="lr, weight decay and betas",
        peers=(MEGATRON, NEMO),
        ours=(FIELDS,),
        bars={1: 1.6, 2: 1.3, 10: 0.7, 100: 0.5},
        note="Ours sets three fields, upstream's classes and the floor set two.",
    ),
    "tensor-lr": Scenario(
        title="tensor lr on the CPU",
        own=lambda _: {"lr": torch.tensor(PEAK)},
        options={"capturable": True},
        peers=(MEGATRON, NEMO, LAMBDA, COSINE),
        rivals=(FLOOR,),
        bars={100: 0.25},
        note=(
            "Each lr is a 0-dim float32 tensor. Upstream's classes replace it by a float, which is "
            f"less work. {LAMBDA} and {COSINE} set lr alone, the others lr and weight decay. The "
            "floor fills the tensors one by one."
        ),
    ),
}


def measure(name: str, groups: int, rounds: int) -> Cell:
    """Measure a scenario at one number of groups, each scheduler on an optimizer of its own."""
    scenario = SCENARIOS[name]
    timers = {each: peers.timer(each, scenario.optimizer(groups)) for each in scenario.timed}
    return Cell(scenario=name, groups=groups, samples=timing.in_turn(timers, rounds))


def detailed(cells: Sequence[Cell]) -> list[list[str]]:
    """Return the cells of one scenario as text, with a head."""
    found = [["groups", *cells[0].samples]]
    found += [[f"{cell.groups:,}", *map(table.show, cell.medians.values())] for cell in cells]
    return found


def report(cells: Sequence[Cell], *, is_markdown: bool) -> str:
    """Return what was measured for one scenario, as text."""
    scenario = SCENARIOS[cells[0].scenario]
    lines = table.mark_down(detailed(cells)) if is_markdown else table.align(detailed(cells))
    title = f"µs a step: {scenario.title}"
    return "\n".join([f"### {title}" if is_markdown else title, "", *lines, "", scenario.note, ""])


def result(*, is_quick: bool) -> table.Result:
    """Measure every scenario."""
    groups, rounds = ((1, 100), 5) if is_quick else (GROUPS, ROUNDS)
    found = {name: [measure(name, number, rounds) for number in groups] for name in SCENARIOS}
    return table.Result(
        title="One step",
        rows=[cell.row() for cells in found.values() for cell in cells],
        details="\n".join(report(cells, is_markdown=True) for cells in found.values()),
    )


def as_json(cells: Iterable[Cell]) -> str:
    """Return every sample as JSON, for readers who want more than medians."""
    results = [
        {
            "scenario": cell.scenario,
            "groups": cell.groups,
            "scheduler": cell.scheduler or None,
            "median_us": cell.medians,
            "samples_us": cell.samples,
        }
        for cell in cells
    ]
    return json.dumps({"on": timing.machine(), "results": results}, indent=1)


# Comparison with another checkout


def time_on_request(source: Path, requests: Connection) -> None:
    """Time the `dist_sched` of a `src` folder, in a process of its own.

    Receives cells (scenario, groups, scheduler), or None at the end. Answers each when it is built,
    then each True with the µs a step of one more batch, until a False.
    """
    sys.path.insert(0, str(source))
    while cell := requests.recv():
        name, groups, scheduler = cell
        timer = peers.timer(scheduler, SCENARIOS[name].optimizer(groups))
        calls = timing.calls_a_batch(timer)
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


def compare(options: argparse.Namespace) -> list[Cell]:
    """Time our schedulers here and in another checkout, in turn."""
    samples: dict[tuple[str, int, str], dict[str, list[float]]] = {
        (name, groups, scheduler): {BEFORE: [], NOW: []}
        for name in options.scenario
        for scheduler in SCENARIOS[name].ours
        for groups in options.groups
    }
    for _ in range(LAUNCHES):
        with process_of(options.against) as before, process_of(SOURCE) as now:
            for cell, taken in samples.items():
                turns = [(taken[BEFORE], before), (taken[NOW], now)]
                for _, process in turns:
                    process.send(cell)
                    process.recv()
                for _ in range(math.ceil(options.rounds / LAUNCHES)):
                    for times, process in turns:
                        process.send(True)
                        times.append(process.recv())
                    turns.reverse()
                for _, process in turns:
                    process.send(False)
    return [
        Cell(scenario=name, groups=groups, samples=taken, scheduler=scheduler)
        for (name, groups, scheduler), taken in samples.items()
    ]


def report_comparison(cells: Sequence[Cell], *, is_markdown: bool) -> str:
    """Return the table of a comparison, and which cells are slower."""
    found = [["scenario", "scheduler", "groups", BEFORE, NOW, f"{NOW} / {BEFORE}"]]
    for cell in cells:
        times = [table.show(cell.medians[name]) for name in (BEFORE, NOW)]
        found.append(
            [cell.scenario, cell.scheduler, f"{cell.groups:,}", *times, f"{cell.slowdown:.3f}"]
        )
    slower = sum(cell.slowdown > SLOWER for cell in cells)
    lines = table.mark_down(found) if is_markdown else table.align(found)
    return "\n".join([*lines, "", f"{slower} of {len(cells)} cells are slower by over 5 %", ""])


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
        default=GROUPS,
        metavar="N",
        help="numbers of param groups to measure at (default: 1 2 10 100 1000 10000)",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=ROUNDS,
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


def run(options: argparse.Namespace) -> list[Cell]:
    """Measure every scenario, and print its tables as soon as they are complete."""
    cells: list[Cell] = []
    for name in options.scenario:
        found = [measure(name, groups, options.rounds) for groups in options.groups]
        print(report(found, is_markdown=options.markdown))
        rows = table.of_rows(cell.row() for cell in found)
        lines = table.mark_down(rows) if options.markdown else table.align(rows)
        print("\n".join([*lines, ""]), flush=True)
        cells += found
    return cells


def main() -> int:
    """Measure what was asked for; return the exit status."""
    options = parse_arguments()
    status = 0
    try:
        if options.against:
            cells = compare(options)
            print(report_comparison(cells, is_markdown=options.markdown))
            status = int(any(cell.slowdown > SLOWER for cell in cells))
        else:
            cells = run(options)
    except ModuleNotFoundError as error:
        message = f"{error}; upstream's classes come with: {peers.INSTALL}"
        raise SystemExit(message) from error
    print(", ".join(f"{key} {value}" for key, value in timing.machine().items()))
    if options.json is not None:
        options.json.write_text(as_json(cells), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
