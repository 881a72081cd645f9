"""Compare learning rate and weight decay of two training runs, bit for bit, and draw both.

    python scripts/compare_runs.py uninterrupted.jsonl resumed.jsonl --picture runs.png

The files are written by `scripts/train_fsdp.py --metrics`: one JSON line for each update. Both runs
must have the positions 0, 1, 2, … in order, and equally many of them.

A third run, of `scripts/plain_torch.py`, may be shown beside them (--plain). It may differ.

Exit status: 0 if the runs are equal, 1 if they differ, 2 if a file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Update = dict[str, Any]
Run = list[Update]

FIELDS = ("lr", "wd")
ROUNDING = 1e-9
"""Greatest relative difference of an lr of torch's that comes of its way of computing it."""


class DifferenceError(Exception):
    """The runs differ."""


def read_run(path: Path, *, was_killed: bool = False) -> Run:
    """Return the updates in a metrics file; a kill may leave its last line incomplete."""
    lines = path.read_text().splitlines(keepends=True)
    if was_killed and lines and not lines[-1].endswith("\n"):
        lines.pop()
    updates = [json.loads(line) for line in lines]
    if not updates:
        raise ValueError(f"{path} has no updates")
    for number, update in enumerate(updates, start=1):
        missing = {"position", "loss", "start", "world_size", *FIELDS} - set(update)
        if missing:
            raise ValueError(f"line {number} of {path} lacks {', '.join(sorted(missing))}")
    return updates


def check_positions(run: Run, path: Path, num_updates: int) -> None:
    """Raise unless a run has the positions 0 to `num_updates` - 1, in order."""
    for expected, update in enumerate(run):
        position = update["position"]
        if position != expected:
            raise DifferenceError(f"{path}: position {position} instead of {expected}")
    if len(run) != num_updates:
        raise DifferenceError(f"{path}: {len(run)} updates instead of {num_updates}")


def bits(update: Update) -> dict[str, str]:
    """Return every scheduled value of an update, exactly."""
    return {
        f"{field} of group {group}": float(value).hex()
        for field in FIELDS
        for group, value in update[field].items()
    }


def compare_bits(left: Run, right: Run) -> int:
    """Return how many values are equal; raise at the first that differs."""
    num_values = 0
    for update, other in zip(left, right, strict=True):
        first, second = bits(update), bits(other)
        for name in first | second:
            if first.get(name) != second.get(name):
                raise DifferenceError(
                    f"position {update['position']} is the first that differs: {name} is "
                    f"{first.get(name)} in one run, {second.get(name)} in the other"
                )
        num_values += len(first)
    return num_values


def compare_loss(left: Run, right: Run, tolerance: float) -> str:
    """Return how much the losses differ; raise if by more than `tolerance`."""
    pairs = [(one["loss"], other["loss"]) for one, other in zip(left, right, strict=True)]
    differences = [abs(one - other) / max(abs(one), sys.float_info.min) for one, other in pairs]
    position = max(range(len(pairs)), key=differences.__getitem__)
    greatest = f"greatest relative difference {differences[position]:.1e}, at position {position}"
    if not all(difference <= tolerance for difference in differences):  # so that NaN raises too
        raise DifferenceError(f"loss: {greatest}; rounding explains no more than {tolerance:g}")
    num_equal = sum(one == other for one, other in pairs)
    return f"equal at {num_equal} of {len(pairs)} updates; {greatest}"


def read_plain(path: Path, num_updates: int) -> list[float]:
    """Return the lr of every update of a plain run; of updates that were made again, the last."""
    updates = [json.loads(line) for line in path.read_text().splitlines()]
    lrs = {update["position"]: float(update["lr"]) for update in updates}
    if sorted(lrs) != list(range(num_updates)):
        raise ValueError(f"{path} lacks some of the updates 1 to {num_updates}")
    return [lrs[position] for position in range(num_updates)]


def lrs_of(run: Run) -> list[float]:
    """Return the lr of the first group at every update."""
    return [next(iter(update["lr"].values())) for update in run]


def describe_plain(expected: list[float], resumed: list[float], plain: list[float]) -> str:
    """Return the lr of all three runs at some updates, and how the plain one differs."""
    shown = [len(expected) * part // 6 for part in range(1, 7)]
    rows = {
        "update": [f"{update:>10}" for update in shown],
        "uninterrupted": [f"{expected[update - 1]:10.6f}" for update in shown],
        "resumed, dist_sched": [f"{resumed[update - 1]:10.6f}" for update in shown],
        "resumed, plain torch": [f"{plain[update - 1]:10.6f}" for update in shown],
    }
    lines = [f"  {name:22}{''.join(values)}" for name, values in rows.items()]
    pairs = enumerate(zip(expected, plain, strict=True), start=1)
    wrong = [update for update, pair in pairs if not math.isclose(*pair, rel_tol=ROUNDING)]
    verdict = "plain torch: every update had the lr of the config"
    if wrong:
        ratios = [expected[update - 1] / plain[update - 1] for update in wrong]
        verdict = (
            f"plain torch: {len(wrong)} of {len(plain)} updates had another lr than the config "
            f"asks for,\n  from update {wrong[0]} on; at worst {max(ratios):.3g} times too low"
        )
    return "\n".join(["lr:", *lines, verdict])


def describe_kill(killed: Run, resumed: Run) -> str:
    """Return where the run was killed and resumed, and how many updates were made again."""
    start = resumed[-1]["start"]
    if start == 0:
        raise DifferenceError("the second run was not resumed: it has one start, at position 0")
    return (
        f"killed after {len(killed)} updates on {killed[-1]['world_size']} processes; resumed at "
        f"position {start} on {resumed[-1]['world_size']}; made again: {len(killed) - start}"
    )


def compare(args: argparse.Namespace) -> None:
    """Print how the runs compare; raise at a difference."""
    uninterrupted, resumed = read_run(args.uninterrupted), read_run(args.resumed)
    num_updates = args.updates or len(uninterrupted)
    check_positions(uninterrupted, args.uninterrupted, num_updates)
    check_positions(resumed, args.resumed, num_updates)
    killed = []
    if args.killed:
        killed = read_run(args.killed, was_killed=True)
        check_positions(killed, args.killed, len(killed))
        print(describe_kill(killed, resumed))
    plain = read_plain(args.plain, num_updates) if args.plain else []
    if args.picture:
        after_kill = [update for update in resumed if update["start"] or not killed]
        runs = {
            "uninterrupted": uninterrupted,
            "killed": killed,
            "resumed with dist_sched": after_kill,
        }
        draw(runs, plain, args)
        print(f"picture: {args.picture}")
    if plain:
        print(describe_plain(lrs_of(uninterrupted), lrs_of(resumed), plain))
    num_values = compare_bits(uninterrupted, resumed)
    compare_bits(uninterrupted[: len(killed)], killed)
    print(f"lr and wd: {num_updates} updates compared, all {num_values} values equal bit for bit")
    print(f"loss: {compare_loss(uninterrupted, resumed, args.loss_tolerance)}")
    print("      (another number of processes adds in another order, which rounds differently)")


def draw_lines(axes: Axes, runs: dict[str, Run], field: str, group: str | None) -> None:
    """Draw one value of every run: the uninterrupted run wide, the others on top of it."""
    styles = (("#9ecae1", 7), ("#d62728", 3), ("black", 1.2))
    for (name, run), (color, width) in zip(runs.items(), styles, strict=True):
        if run:
            positions = [update["position"] for update in run]
            values = [update[field][group] if group else update[field] for update in run]
            label = f"{name}, {run[-1]['world_size']} processes"
            axes.plot(positions, values, label=label, color=color, lw=width)


def mark_kill(axes: Axes, killed: Run, resumed: Run) -> None:
    """Mark where the run was killed and where it went on, and shade the updates between."""
    kill, start = len(killed), resumed[-1]["start"]
    axes.axvline(kill, color="#d62728", ls="--", label=f"killed after {kill} updates")
    axes.axvline(start, color="black", ls=":", label=f"resumed at position {start}")
    axes.axvspan(start, kill, color="#d62728", alpha=0.1, label="updates made again")


def draw(runs: dict[str, Run], plain: list[float], args: argparse.Namespace) -> None:
    """Draw lr and wd of the first group, and the loss; the plain run has an lr alone."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(3, sharex=True, figsize=(9, 9), layout="constrained")
    group = next(iter(runs["uninterrupted"][0]["lr"]))
    drawn = (("lr", group), ("wd", group), ("loss", None))
    for axes, (field, of_group) in zip(panels, drawn, strict=True):
        draw_lines(axes, runs, field, of_group)
        if runs["killed"]:
            mark_kill(axes, runs["killed"], runs["resumed with dist_sched"])
        axes.set_ylabel(f"{field} of group {of_group}" if of_group else field)
        axes.grid(alpha=0.3)
    if plain:
        panels[0].plot(plain, label="resumed with plain torch", color="#ff7f0e", lw=2, ls="--")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    panels[0].set_title(args.title)
    panels[-1].set_xlabel("position of the update")
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.picture, dpi=120)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("uninterrupted", type=Path, help="metrics of the uninterrupted run")
    parser.add_argument("resumed", type=Path, help="metrics of the run that was resumed")
    parser.add_argument(
        "--killed",
        type=Path,
        metavar="FILE",
        help="copy of the second run's metrics, made after the kill: compared too, and drawn",
    )
    parser.add_argument(
        "--plain",
        type=Path,
        metavar="FILE",
        help="metrics of a run of plain_torch.py, to be shown beside them",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw lr, wd and loss here")
    parser.add_argument(
        "--title",
        default="An uninterrupted run, and one killed and resumed",
        help="what stands above the picture (default: %(default)s)",
    )
    parser.add_argument(
        "--updates",
        type=int,
        metavar="N",
        help="how many updates each run must have (default: as many as the first has)",
    )
    parser.add_argument(
        "--loss-tolerance",
        type=float,
        default=0.01,
        metavar="X",
        help="greatest relative difference of the loss that may be rounding (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> int:
    """Run the program; return its exit status."""
    args = parse_arguments()
    try:
        compare(args)
    except DifferenceError as error:
        print(f"DIFFERENT: {error}")
        return 1
    except (OSError, ValueError, TypeError) as error:
        print(f"compare_runs.py: error: {error}", file=sys.stderr)
        return 2
    print("SAME")
    return 0


if __name__ == "__main__":
    sys.exit(main())
