"""What must hold after each kill; each check returns the violations as lines."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from chaos_config import Config, Preview
from chaos_plan import BY_CLOCK, FULL, TERM, Kill

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SAME = 1e-12
"""Relative distance of a formula's values."""
SAME_LOSS = 1e-4
"""The same for losses, which ranks of another number add up in another order."""
SHORT = 50
"""Characters of a reason in the report."""
_CHECKPOINT = re.compile(r"step-(\d+)")


def complete_checkpoints(folder: Path) -> list[int]:
    """Return the positions of the complete checkpoints, lowest first."""
    names = {path.parent.name for path in folder.glob("step-*/.metadata")}
    matches = filter(None, map(_CHECKPOINT.fullmatch, names))
    return sorted(int(match[1]) for match in matches)


def wrong_values(records: Iterable[dict[str, Any]], config: Config) -> list[str]:
    """Check that updates used the values of a config: the library's bits, and the formula."""
    preview = Preview(config)
    wrong = []
    for record in records:
        position = record["position"]
        curve, formula = preview.values(position), config.values(position)
        for name in ("lr", "wd"):
            used, own = record[name]["decay"], record[name]["no_decay"]
            other = used if name == "lr" else 0.0
            is_close = math.isclose(used, formula[name], rel_tol=SAME, abs_tol=1e-18)
            if used != curve[name] or own != other or not is_close:
                wrong.append(
                    f"{name} at position {position}: used {used!r} and {own!r}, the curve has "
                    f"{curve[name]!r} and {other!r}, the formula {formula[name]!r}"
                )
    return wrong


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a metrics file, none if there is no file."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wrong_metrics(
    lines: list[dict[str, Any]], configs: Mapping[int, Config], newest: int
) -> list[str]:
    """Check that the metrics have each update once, with the values of the config in force.

    Args:
        lines: The lines of the file.
        configs: The config in force, by position.
        newest: The newest checkpoint, before which no line may lack.
    """
    positions = [line["position"] for line in lines]
    if positions != [*range(len(positions))] or len(positions) < newest:
        return [f"metrics: updates up to {newest} are saved, the lines are of {positions}"]
    if unknown := [position for position in positions if position not in configs]:
        return [f"metrics: no job is known to have made the updates {unknown}"]
    by_config: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        by_config.setdefault(id(configs[line["position"]]), []).append(line)
    return [
        f"metrics: {wrong}"
        for part in by_config.values()
        for wrong in wrong_values(part, configs[part[0]["position"]])
    ]


def wrong_resume(output: str, newest: int | None) -> list[str]:
    """Check that a job that resumed took the newest complete checkpoint."""
    resumed = re.findall(r"resumed from \S*step-(\d+) ", output)
    wrong = [position for position in resumed if int(position) != newest]
    return [f"resumed at {int(position)}, the newest checkpoint is {newest}" for position in wrong]


def lost_checkpoints(output: str, before: int | None, newest: int | None) -> list[str]:
    """Check that every checkpoint that was complete is there, or a newer one."""
    said = [int(position) for position in re.findall(r": saved \S*step-(\d+)", output)]
    last = max([*said, before or 0])
    lost = last > (newest or 0)
    return [f"the checkpoint of position {last} was complete; the newest is {newest}"] * lost


def lost_updates(lost: int, every: int) -> list[str]:
    """Check that no more updates are lost than those since the last checkpoint that was due."""
    return [f"{lost} updates are lost, with a checkpoint every {every}"] * (lost > every)


def other_losses(
    records: Iterable[dict[str, Any]], start: int, losses: Mapping[int, float]
) -> list[str]:
    """Check that the first update after a resume has the loss that it had before the kill."""
    firsts = [record["loss"] for record in records if record["position"] == start]
    before = losses.get(start)
    if not firsts or before is None or math.isclose(firsts[0], before, rel_tol=SAME_LOSS):
        return []
    return [f"loss at position {start}: {before} before the kill, {firsts[0]} after it"]


def ending(output: str) -> str:
    """Return how a job ended, from what the training script printed."""
    if errors := re.findall(r"train_fsdp\.py: error: (.*)", output):
        return " / ".join(errors)
    for text, word in (("stopped by SIGTERM", "stopped"), ("done at position", "done")):
        if text in output:
            return word
    return "killed"


def stuck_ranks(output: str) -> list[str]:
    """Check that no rank stayed after torchrun's SIGTERM, until torchrun killed it."""
    stuck = re.findall(r"Unable to shutdown process (\d+)", output)
    return [f"{len(stuck)} ranks did not end after SIGTERM, and were killed"] * bool(stuck)


def shortened(end: str) -> str:
    """Return the beginning of an error, or the reason of one that is expected."""
    if "is in use by another job" in end:
        return "refused"
    # Before the reason comes what was written where.
    reason = end.partition(": ")[2].partition(";")[0] or end
    return reason if len(reason) <= SHORT else f"{reason[: SHORT - 1]}…"


def wrong_end_alone(end: str) -> list[str]:
    """Check that a job that was left alone came to its end."""
    return [] if end == "done" else [f"left alone, it ended as: {end}"]


def wrong_ending(kill: Kill, output: str, lost: int) -> list[str]:
    """Check that a job which could end by itself did so, and said why."""
    end = ending(output)
    # Until then a signal ends a process as it does any other.
    can_save = kill.moment not in {"start-up", BY_CLOCK}
    if kill.fault == TERM and can_save and (end not in {"stopped", "done"} or lost):
        return [f"after SIGTERM, {lost} updates are lost, and it ended as: {end}"]
    lines = output.count("train_fsdp.py: error: ")
    if kill.fault == FULL and lines != 1 and end not in {"stopped", "done"}:
        return [f"the disk was full, and {lines} lines say so"]
    if kill.fault == FULL and (errors := tracebacks(output)):
        return [f"the disk was full, and a rank raised {errors[0]}"]
    return []


def wrong_pair(ends: list[str]) -> list[str]:
    """Check that of two jobs in one folder one went on, and the other was refused or came later."""
    refused = ("is in use by another job", "holds a run already")
    wrong = [
        end
        for end in ends
        if end not in {"done", "stopped"} and not any(text in end for text in refused)
    ]
    if wrong or not {"done", "stopped"} & {*ends}:
        return [f"two jobs in one folder ended as: {'; '.join(ends)}"]
    return []


def tracebacks(output: str) -> list[str]:
    """Return the last lines of Python errors, but for those of torchrun."""
    found: list[str] = re.findall(
        r"^(?:\[rank\d+\]: )?(\w[\w.]*(?:Error|Exception)\b.*)$", output, re.MULTILINE
    )
    ours = ("ChildFailedError", "SignalException")
    return [line for line in found if not any(name in line for name in ours)]
