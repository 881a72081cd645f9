"""Draw docs/images/diff.svg: what `dist-sched diff` prints of two checkpoints, in a terminal.

    python scripts/draw_diff.py

One run saves `monday`. The next one resumes it with a horizon twice as long and saves `tuesday`.
The text is what the command prints in a terminal of 108 columns. A test compares it.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import warnings
from html import escape, unescape
from pathlib import Path

import torch
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

import dist_sched
from dist_sched import ParamScheduler, schedules

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "diff.svg"
COMMAND = "dist-sched diff monday tuesday"
COLUMNS = 108
PEAK = 3e-4
WITHOUT_NAMES = "import sys; from dist_sched.cli import main; sys.argv[0] = 'dist-sched'; main()"


def job(horizon: int) -> ParamScheduler:
    """Return the scheduler of a job; its script says that the script's schedule wins."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter], lr=PEAK, weight_decay=0.1)
    lr = schedules.cosine(PEAK, horizon, warmup=1_000)
    return ParamScheduler(optimizer, {"lr": lr, "weight_decay": 0.1}, policy="config")


def save_checkpoints(folder: Path) -> None:
    """Save the checkpoints of both jobs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        monday = job(10_000)
        monday.step(6_000)
        save({"scheduler": monday}, checkpoint_id=folder / "monday" / "step-6000")
        tuesday = job(20_000)
        load({"scheduler": tuesday}, checkpoint_id=folder / "monday" / "step-6000")
        tuesday.step(500)
        save({"scheduler": tuesday}, checkpoint_id=folder / "tuesday" / "step-6500")


def printed() -> Text:
    """Return what the command prints of both checkpoints, with its colours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoints(folder)
        ours, theirs = pty.openpty()
        home = str(Path(dist_sched.__file__).parents[1])
        variables = {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PYTHONPATH": home}
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        command = [sys.executable, "-c", WITHOUT_NAMES, *COMMAND.split()[1:]]
        with subprocess.Popen(command, stdout=theirs, cwd=folder, env={**environment, **variables}):
            os.close(theirs)
            text = _read_to_the_end(ours)
    return Text.from_ansi(text.replace("\r\n", "\n").rstrip())


def _read_to_the_end(terminal: int) -> str:
    parts = []
    with open(terminal, "rb", buffering=0) as file:
        try:
            while part := file.read(4096):
                parts.append(part)
        except OSError:  # Linux ends the reading of a closed terminal by this error.
            pass
    return b"".join(parts).decode()


def render(text: Text) -> str:
    """Return the picture's file: a terminal with the command and its text."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
    console.print(text, soft_wrap=True)
    svg = console.export_svg(title="why did lr jump?", theme=MONOKAI, unique_id="diff")
    # Pictures of a page load no fonts, so the reader's own one is used.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return re.sub(r"(<svg [^>]*>)", rf"\1\n<desc>{escape(text.plain)}</desc>", svg, count=1)


def read(picture: Path = PICTURE) -> str:
    """Return the text that the picture shows."""
    (text,) = re.findall(r"<desc>(.*?)</desc>", picture.read_text(), re.DOTALL)
    return unescape(text)


def main() -> None:
    """Draw the picture, and print its text."""
    text = printed()
    PICTURE.write_text(render(text))
    print(text.plain)


if __name__ == "__main__":
    main()
