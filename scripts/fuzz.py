"""Feed damaged and hostile input to the library, and find what it must not do.

    python scripts/fuzz.py                            # 100,000 cases, and a table of how they ended
    python scripts/fuzz.py --count 2000 --seed 7
    python scripts/fuzz.py --seed 7 --case 1234       # one case again

Each case mutates a state, the text in one, a config, a config file, a file of torch.save, or a DCP
folder, and uses it. It must succeed or raise one of the errors of `dist_sched`, in bounded time and
memory. Nothing may be executed, written or opened elsewhere, and a failed load must change nothing.
Everything else is a finding. The status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import fuzz_surfaces
from fuzz_surfaces import SURFACES, made
from fuzz_watch import StoppedError, bounded, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fuzz_surfaces import Sources

HANGS = 120
"""Seconds after which the program ends, with a traceback, because a case waits for something."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A case that ended as none may end."""

    number: int
    surface: str
    reason: str
    details: str
    """Traceback, or empty."""

    def __str__(self) -> str:
        return f"case {self.number} ({self.surface}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended."""

    surface: str
    ended: str
    """"accepted", or the class of the error."""
    seconds: float
    finding: Finding | None = None


def drawing(seed: int, number: int) -> Random:
    """Return what draws a case."""
    return Random(f"{seed}/{number}")  # noqa: S311 - nothing secret


def surface_of(draw: Random) -> str:
    """Draw the name of a surface."""
    return draw.choices(list(SURFACES), [share for _, share in SURFACES.values()])[0]


def try_case(seed: int, number: int, sources: Sources) -> Outcome:
    """Run one case, which its seed and its number determine."""
    draw = drawing(seed, number)
    surface = surface_of(draw)
    act = made(surface, draw, sources)
    ended, reason, details, seen = "finding", "", "", []
    begin = time.monotonic()
    try:
        with watching(sources.folder) as seen, bounded(seen):
            ended = act()
    except (Exception, StoppedError) as error:  # noqa: BLE001 - that is what it looks for
        reason, details = f"{type(error).__name__}: {error}"[:500], traceback.format_exc()
    seconds = time.monotonic() - begin
    reason = reason or "; ".join(seen)
    if not reason:
        return Outcome(surface, ended, seconds)
    return Outcome(surface, "finding", seconds, Finding(number, surface, reason, details))


def run(seed: int, numbers: Iterable[int], sources: Sources) -> Iterator[Outcome]:
    """Yield how cases end. The working directory is the folder of the cases meanwhile."""
    with contextlib.chdir(sources.folder):
        for number in numbers:
            yield try_case(seed, number, sources)


def keep(finding: Finding, seed: int, sources: Sources, folder: Path) -> None:
    """Write a finding into a folder, with the files of its case."""
    target = folder / f"{seed}-{finding.number}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "finding.txt").write_text(f"{finding}\n\n{finding.details}", errors="replace")
    with contextlib.suppress(OSError, shutil.Error):  # of a pipe or a device
        for name in ("run.json", "run.yaml", "run.toml", "state.pt", "run"):
            source = sources.folder / name
            if source.is_dir():
                shutil.copytree(source, target / name, symlinks=True, dirs_exist_ok=True)
            elif source.is_file():
                shutil.copy(source, target / name)


def table(outcomes: Counter[tuple[str, str]], slowest: dict[str, float]) -> str:
    """Return how many cases of each surface ended in which way."""
    lines = [f"{'surface':26}{'cases':>8}{'slowest':>10}  ended"]
    for surface in SURFACES:
        ended = {end: count for (name, end), count in outcomes.items() if name == surface}
        listed = ", ".join(f"{end} {count}" for end, count in sorted(ended.items()))
        total = sum(ended.values())
        lines.append(f"{surface:26}{total:>8}{slowest.get(surface, 0):>8.2f} s  {listed}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None, say: Callable[[str], object] = print) -> int:
    """Run the cases of a command line, and return its status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="run only the case of this number")
    parser.add_argument("--findings", type=Path, help="folder for findings and their files")
    options = parser.parse_args(arguments)
    numbers = range(options.count) if options.case is None else [options.case]
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest: dict[str, float] = {}
    findings: list[Finding] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        sources = fuzz_surfaces.prepared(folder)
        for done, outcome in enumerate(run(options.seed, numbers, sources), 1):
            faulthandler.dump_traceback_later(HANGS, exit=True)
            outcomes[outcome.surface, outcome.ended] += 1
            slowest[outcome.surface] = max(slowest.get(outcome.surface, 0), outcome.seconds)
            if outcome.finding:
                findings.append(outcome.finding)
                say(str(outcome.finding))
                if options.case is not None:
                    say(outcome.finding.details)
                if options.findings:
                    keep(outcome.finding, options.seed, sources, options.findings.resolve())
            if done % 1000 == 0:
                print(f"{done:,} cases", file=sys.stderr)
        faulthandler.cancel_dump_traceback_later()
    say(table(outcomes, slowest))
    total = sum(outcomes.values())
    minutes = (time.monotonic() - begin) / 60
    say(f"{total:,} cases in {minutes:.1f} min with seed {options.seed}: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("dist_sched").setLevel(logging.CRITICAL)
    faulthandler.enable()
    sys.exit(main())
