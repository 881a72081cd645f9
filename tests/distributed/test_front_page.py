"""README's program, its pictures and the quickstart do what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dist_sched import schedules
from helpers import load_script
from launcher import LaunchError

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
README, QUICKSTART = ROOT / "README.md", ROOT / "docs" / "quickstart.md"


def test_the_readmes_program_goes_on_with_the_same_lr_after_a_kill(torchrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    curve = schedules.cosine(3e-4, horizon=100, warmup=10)
    with pytest.raises(LaunchError, match="SIGKILL"):
        torchrun("run_page.py", 2, README, 68, timeout=200)
    resumed = torchrun("run_page.py", 3, README, 0, "checkpoints/60", aborts=True, timeout=200)
    assert [[curve(position) for position in range(60, 100)]] * 3 == resumed


def test_the_picture_of_a_resume_shows_what_such_runs_do(tmp_path):
    script = load_script("draw_resume")
    shown, measured = script.read(), script.measure(tmp_path)
    assert list(shown) == list(measured)
    for name, updates in measured.items():
        assert [position for position, _ in updates] == [position for position, _ in shown[name]]
        assert pytest.approx([lr for _, lr in updates]) == [lr for _, lr in shown[name]]


def steps_of(page):
    """Yield the blocks of a page in their order: the language, a file's name, and the text."""
    pattern = r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$'
    for match in re.finditer(pattern, page.read_text(), re.DOTALL | re.MULTILINE):
        yield match.groups()


def run(command, folder):
    """Run a command of a page in a shell, and return what it prints."""
    tools = [Path(sys.executable).parent, *os.environ["PATH"].split(os.pathsep)]
    environment = {**os.environ, "PATH": os.pathsep.join(map(str, tools)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout  # 1 is the status of `diff`
    return done.stdout.replace(str(folder), "/data")


def test_the_quickstart_runs_from_top_to_bottom_and_prints_what_it_shows(tmp_path):
    num_commands = 0
    for language, name, text in steps_of(QUICKSTART):
        if name:
            (tmp_path / name).write_text(text)
        if language != "console":
            continue
        for part in text.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            assert output.strip() in run(command, tmp_path)
            num_commands += 1
    assert 8 < num_commands
