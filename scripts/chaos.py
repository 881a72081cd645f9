"""Kill the training script at random moments, resume it, and check that nothing went wrong.

    python scripts/chaos.py --kills 20 --seed 1
    python scripts/chaos.py --kills 20 --seed 1 --only 7

Each kill is a job of scripts/train_fsdp.py under torchrun: 1 to 4 real processes with gloo, and
real checkpoints. The job resumes what the kill before has left, on another number of processes, and
often with an edited schedule. Then it is hurt:

  when   in start-up, load, broadcast, agreement, save, index, pruning of old checkpoints or
         training, at a named point of the program; or at any time, by the clock
  how    SIGKILL, SIGTERM, SIGSTOP and then SIGKILL; no file can grow any more, as on a full disk;
         a second job starts in the same folder
  whom   one rank, all ranks, or the launcher

After each kill, and at the end of each run of 10 kills after a last job that is left alone:

  - every lr and wd that a rank used or logged equals the uninterrupted curve of the config that was
    in force: bit for bit a new scheduler's that loaded nothing, and a formula's to 1e-12
  - the newest checkpoint that was complete is there, and a resume takes it; no more updates are
    lost than those since then, and the first one that is made again has the same loss
  - after SIGTERM nothing is lost; a full disk is said in one line; a second job is refused, and the
    first goes on
  - no process is left

The processes are forks of this program, so that torch is imported once; but see --no-forks.
Everything is drawn from the seed. `--only K` repeats kill K by itself: the same moment, fault,
processes and edit, on a run of its own. The exit status is 1 after any violation. Linux only.
"""

from __future__ import annotations

import os

# Before torch: threads that an import starts would make forks unsafe.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos_jobs import Job, kill_left, prepare
from chaos_plan import FAULTS, MOMENTS, PER_RUN, draw
from chaos_run import Outcome, Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCRIPT = Path(__file__).with_name("train_fsdp.py")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="chaos.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--kills", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    add("--seed", type=int, default=1, metavar="S", help="of all draws (default: %(default)s)")
    add("--only", type=int, metavar="K", help="repeat kill K of this seed alone, on a new run")
    add(
        "--folder",
        type=Path,
        metavar="DIR",
        help="a new folder for checkpoints and outputs, which is kept (default: a temporary one, "
        "kept after a violation)",
    )
    add(
        "--no-forks",
        action="store_true",
        help="let every process import torch itself, as outside of a test; each job then takes "
        "several times as long",
    )
    add(
        "--script",
        type=Path,
        default=SCRIPT,
        metavar="FILE",
        help="another version of the training script to run (default: scripts/train_fsdp.py)",
    )
    return parser


def outcomes(folder: Path, script: Path, seed: int, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Make the kills of these numbers, one after the other, and the jobs that are left alone."""
    run = None
    for number in numbers:
        kill = draw(seed, number)
        if run is None or not number % PER_RUN:
            if run:
                yield run.undisturbed(2)
            run = Run.start(folder / f"run-{kill.run}", script, kill.run, seed)
            if len(numbers) == 1:
                yield run.undisturbed(2)
        if not run.can_start(kill):
            yield run.undisturbed(1)
        yield run.kill(kill)
    if run:
        yield run.undisturbed(2)


def describe(outcome: Outcome) -> str:
    """Return one line about an outcome."""
    kill = outcome.kill
    text = f"goes on at {_position(outcome.newest)}, {outcome.lost} lost"
    state = "VIOLATION" if outcome.violations else outcome.ended
    if kill is None:
        return f"     left alone from {_position(outcome.start)}; {text}; {state}"
    return (
        f"{kill.number:4} {kill.place}; {kill.fault} to {kill.hit} of {kill.world_size}; edit "
        f"{outcome.edit}; {text}; {outcome.seconds:.1f} s; {state}"
    )


def _position(newest: int | None) -> str:
    return "the start" if newest is None else str(newest)


def report(made: Sequence[Outcome], seed: int, seconds: float) -> str:
    """Return the table of all kills, and each violation with the command that repeats it."""
    kills = [outcome for outcome in made if outcome.kill]
    width = max(map(len, MOMENTS))
    lines = [f"{'':{width}}  " + "".join(f"{fault:>18}" for fault in FAULTS)]
    for moment in MOMENTS:
        cells = [
            [o for o in kills if o.kill and (o.kill.moment, o.kill.fault) == (moment, fault)]
            for fault in FAULTS
        ]
        lines.append(f"{moment:{width}}  " + "".join(f"{_cell(cell):>18}" for cell in cells))
    violations = [(outcome, text) for outcome in made for text in outcome.violations]
    for outcome, text in violations:
        lines += ["", f"VIOLATION: {text}", f"  {describe(outcome).strip()}"]
        if outcome.kill:
            lines.append(f"  python scripts/chaos.py --seed {seed} --only {outcome.kill.number}")
    alone = len(made) - len(kills)
    lines += [
        "",
        (
            f"seed {seed}: {len(kills)} kills and {alone} jobs left alone in {seconds:.0f} s; "
            f"{sum(outcome.lost for outcome in kills)} updates made again, the most at once "
            f"{max((outcome.lost for outcome in kills), default=0)}; {len(violations)} violations"
        ),
    ]
    return "\n".join(lines)


def _cell(cell: Sequence[Outcome]) -> str:
    """Return the number of kills, and of the updates that each lost."""
    if not cell:
        return "-"
    return f"{len(cell)} (lost {', '.join(str(outcome.lost) for outcome in cell)})"


def main() -> int:
    """Make the kills, and print what came of them."""
    args = make_parser().parse_args()
    numbers = range(args.kills) if args.only is None else [args.only]
    folder = args.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    began, made = time.monotonic(), list[Outcome]()
    Job.are_forks = not args.no_forks
    prepare()
    print(
        "kill, moment: point; fault to whom; edit (policy); position after it; time; how it ended"
    )
    try:
        for outcome in outcomes(folder, args.script.resolve(), args.seed, numbers):
            made.append(outcome)
            print(describe(outcome), flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        kill_left()
    print(report(made, args.seed, time.monotonic() - began))
    is_wrong = any(outcome.violations for outcome in made)
    if args.folder is None and not is_wrong:
        shutil.rmtree(folder)
    else:
        print(f"checkpoints, configs and outputs are in {folder}")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
