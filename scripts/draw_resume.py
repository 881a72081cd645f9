"""Draw docs/images/resume.png: what lr does in a run that is killed, edited and resumed.

    python scripts/draw_resume.py

Two schedulers train the same small model with FSDP2 on two processes: torch's `LambdaLR` and this
library's. Every process kills itself with SIGKILL. The second half is another job: three processes,
the newest checkpoint, and a script whose horizon is twice as long. The picture holds the values
that it shows, and a test compares them with a new run.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.lr_scheduler import LambdaLR

from dist_sched import ParamScheduler, schedules

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

Updates = list[tuple[int, float]]
"""The position and the lr of each update that was made, in the order in which they were made."""

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "resume.png"
KEY = "updates"
"""The text of the picture's file that holds the updates of each run."""

PEAK, WARMUP, HORIZON, EDITED_HORIZON = 3e-4, 10, 100, 200
CHECKPOINT_EVERY, KILLED_AT = 20, 68
RESUMED_AT = KILLED_AT // CHECKPOINT_EVERY * CHECKPOINT_EVERY
WORLD_SIZES = 2, 3

TORCH, OURS = "torch: LambdaLR in DCP", "dist_sched"


# The two schedulers


def build_torch(optimizer: torch.optim.Optimizer, horizon: int) -> LambdaLR:
    """Return a cosine with warmup as many training scripts have it."""

    def factor(step: int) -> float:
        if step < WARMUP:
            return step / WARMUP
        return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (horizon - WARMUP)))

    return LambdaLR(optimizer, factor)


def build_ours(optimizer: torch.optim.Optimizer, horizon: int) -> ParamScheduler:
    """Return the same schedule of this library."""
    return ParamScheduler(optimizer, {"lr": schedules.cosine(PEAK, horizon, warmup=WARMUP)})


BUILDERS: dict[str, Callable[[torch.optim.Optimizer, int], Any]] = {
    TORCH: build_torch,
    OURS: build_ours,
}


# The run, in a process of torchrun


def train(folder: Path, *, is_resumed: bool) -> None:
    """Train with both schedulers until the kill, or from the checkpoint to the end."""
    dist.init_process_group("gloo")
    for number, name in enumerate(BUILDERS):
        train_one(name, folder / f"run{number}", is_resumed=is_resumed)
    if not is_resumed:
        dist.barrier()
        os.kill(os.getpid(), signal.SIGKILL)
    dist.destroy_process_group()


def train_one(name: str, folder: Path, *, is_resumed: bool) -> None:
    """Train with one scheduler, and append each update to a file."""
    torch.manual_seed(0)
    model = torch.nn.Linear(12, 12)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
    horizon = EDITED_HORIZON if is_resumed else HORIZON
    scheduler = BUILDERS[name](optimizer, horizon)

    def state() -> dict[str, Any]:
        optimizer_state = get_optimizer_state_dict(model, optimizer)
        return {"model": model, "optimizer": optimizer_state, "scheduler": scheduler}

    first, end = 0, KILLED_AT
    if is_resumed:
        first, end = RESUMED_AT, horizon
        loaded = state()
        load(loaded, checkpoint_id=folder / f"step-{first}")
        set_optimizer_state_dict(model, optimizer, loaded["optimizer"])
        if isinstance(scheduler, ParamScheduler):
            scheduler.extend(horizon, keep="value")
    for step in range(first, end):
        if dist.get_rank() == 0:
            folder.mkdir(exist_ok=True)
            with (folder / "updates.jsonl").open("a") as file:
                file.write(json.dumps([step, float(optimizer.param_groups[0]["lr"])]) + "\n")
        model(torch.ones(4, 12)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        if (step + 1) % CHECKPOINT_EVERY == 0:
            save(state(), checkpoint_id=folder / f"step-{step + 1}")


def measure(folder: Path) -> dict[str, Updates]:
    """Run both jobs of both schedulers, and return the updates of each scheduler."""
    for is_resumed, world_size in enumerate(WORLD_SIZES):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={world_size}", __file__, str(folder), str(is_resumed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=bool(is_resumed), timeout=300)
    return {
        name: [
            tuple(json.loads(line))
            for line in (folder / f"run{number}" / "updates.jsonl").read_text().splitlines()
        ]
        for number, name in enumerate(BUILDERS)
    }


# The picture


_INK, _FAINT, _CARD = "#24292f", "#8b949e", "#ffffff"
_COLOURS = {TORCH: "#d9480f", OURS: "#1c6ed4"}


def read(picture: Path = PICTURE) -> dict[str, Updates]:
    """Return the updates that a picture shows."""
    with Image.open(picture) as image:
        runs = json.loads(image.info[KEY])
    return {name: [tuple(update) for update in updates] for name, updates in runs.items()}


def split(updates: Updates) -> tuple[Updates, Updates]:
    """Return the updates of the job that was killed, and those of the job that resumed."""
    return updates[:KILLED_AT], updates[KILLED_AT:]


def jump(updates: Updates) -> float:
    """Return by what factor lr moves between the first two updates after the resume."""
    _, resumed = split(updates)
    return resumed[1][1] / resumed[0][1]


def render(runs: dict[str, Updates]) -> bytes:
    """Return the content of the picture's file, with the updates as a text in it."""
    figure = Figure((8.6, 3.3), dpi=200, facecolor="none")
    FigureCanvasAgg(figure)
    # An opaque card with round corners looks the same on light and dark pages.
    card = FancyBboxPatch(
        (0.006, 0.012),
        0.988,
        0.976,
        boxstyle="round,pad=0,rounding_size=0.02",
        transform=figure.transFigure,
        facecolor=_CARD,
        edgecolor="#d0d7de",
        zorder=-1,
        linewidth=0.8,
    )
    figure.patches.append(card)
    texts = {
        TORCH: f"One update later: × {jump(runs[TORCH]):.2f}.\nNothing is logged.",
        OURS: "No jump. The log names the edit;\nextend() stretches what is left.",
    }
    first, second = WORLD_SIZES
    edit = f"horizon {HORIZON} → {EDITED_HORIZON}"
    title = f"Killed at update {KILLED_AT}, resumed from {RESUMED_AT} on {second} processes"
    title += f" instead of {first}, with an edited script: {edit}"
    figure.text(0.072, 0.945, title, color=_INK, fontsize=9.5, va="top")
    for number, (name, updates) in enumerate(runs.items()):
        axes = figure.add_axes((0.072 + 0.47 * number, 0.15, 0.435, 0.62))
        _draw_run(axes, name, updates, texts[name])
        if number > 0:
            axes.set_yticklabels([])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=False)
    values = PngInfo()
    values.add_text(KEY, json.dumps(runs), zip=True)
    small = io.BytesIO()
    image = Image.open(buffer).convert("RGBA").quantize(64, method=Image.Quantize.FASTOCTREE)
    image.save(small, "png", optimize=True, pnginfo=values)
    return small.getvalue()


def _draw_run(axes: Axes, name: str, updates: Updates, text: str) -> None:
    killed, resumed = split(updates)
    colour = _COLOURS[name]
    axes.axvline(RESUMED_AT, color=_FAINT, linewidth=0.8, dashes=(2, 2))
    axes.plot(*zip(*killed, strict=True), color=_INK, linewidth=1.6)
    axes.plot(*zip(*resumed, strict=True), color=colour, linewidth=2.2)
    axes.plot(*killed[-1], marker="x", color=_INK, markersize=7, markeredgewidth=1.8)
    axes.annotate(
        "kill -9",
        killed[-1],
        (-4, -7),
        textcoords="offset points",
        color=_INK,
        va="top",
        fontsize=8.5,
        family="monospace",
    )
    axes.text(EDITED_HORIZON, PEAK * 1.02, text, ha="right", va="top", color=colour, fontsize=9.5)
    axes.set_title(name, loc="left", color=colour, fontsize=11.5, weight="bold")
    axes.set_xlabel("update", fontsize=8, color=_INK)
    axes.set(xlim=(0, EDITED_HORIZON * 1.01), ylim=(0, PEAK * 1.05))
    axes.set_xticks([0, RESUMED_AT, HORIZON, EDITED_HORIZON])
    axes.set_yticks([0, PEAK / 3, PEAK * 2 / 3, PEAK], ["0", "1e-4", "2e-4", "lr 3e-4"])
    axes.tick_params(labelsize=8, length=2, color=_FAINT, labelcolor=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.set_facecolor("none")


def main() -> None:
    """Train, draw, and print what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(Path(folder))
    PICTURE.write_bytes(render(runs))
    for name, updates in runs.items():
        print(f"{name}: lr moves by {jump(updates):.4f} after the resume")


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(Path(sys.argv[1]), is_resumed=sys.argv[2] == "1")
    else:
        main()
