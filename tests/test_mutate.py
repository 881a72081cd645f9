"""`scripts/mutate.py`: it finds the changes that no test notices."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/mutate.py"

MODULE = """
LIMIT = 5
KIND = {"up": None}["up"]


def clamp(value):
    '''Return a value between 0 and 5.'''
    if value < 0:
        return 0
    if value > LIMIT:
        raise ValueError(f"{value} is over {LIMIT}")
    return value


class Counter:
    def __init__(self):
        self.count = 0

    @property
    def following(self):
        return self.count + 1
"""

TESTS = """
import pytest
from tiny.rates import Counter, clamp


def test_a_negative_value_becomes_0():
    assert clamp(-1) == 0


def test_a_legal_value_stays():
    assert clamp(3) == 3


def test_what_follows():
    assert Counter().following == 1
"""


PLACES = ["--source", "src/tiny", "--tests", "tests", "--packages", "."]
KNOWN = ["--cache", "cache.json", "--survivors", "known.toml"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a folder with a package of one module, whose tests leave out the limit."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, text in {"src/tiny/rates.py": MODULE, "tests/test_rates.py": TESTS}.items():
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    known = '["rates.py"]\n"clamp: value < 0 -> value <= 0" = "0 becomes 0"\n'
    (folder / "known.toml").write_text(known)
    return folder


@pytest.fixture(scope="module")
def output(tiny):
    """Return the lines that a run over all changes prints; it has found survivors."""
    command = [sys.executable, SCRIPT, *PLACES, *KNOWN]
    run = subprocess.run(command, cwd=tiny, capture_output=True, text=True, check=False)
    assert (1, "") == (run.returncode, run.stderr)
    return run.stdout.splitlines()


@pytest.fixture
def listed(tiny, monkeypatch, capsys):
    """Return what lists changes without running them: their ids by their texts."""
    monkeypatch.chdir(tiny)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    mutate = importlib.import_module("mutate")

    def run(*arguments):
        assert mutate.main([*PLACES, "--list", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split(" ", 2)[2]: line.split()[0] for line in lines}

    return run


def test_the_changes_that_no_test_notices_survive(output):
    assert {
        "module: 5 -> 6",
        "clamp: 0 -> 1",
        "clamp: value < 0 -> value <= 0  # 0 becomes 0",
        "clamp: value > LIMIT -> value >= LIMIT",
        "clamp: raise ValueError(f'{value} is over {LIMIT}') -> pass",
    } == {line.split(" ", 3)[3] for line in output if line.startswith("survived")}


def test_all_others_are_killed_and_counted(output):
    assert [
        "package mutants killed late survived explained unusable score",
        ". 14 9 0 5 1 0 64.3%",
    ] == output[-2:]


def test_a_change_keeps_its_id_when_lines_move(tiny, listed):
    before = listed()
    path = tiny / "src/tiny/rates.py"
    path.write_text(f"# A comment.\n\n{path.read_text()}")
    assert before == listed()


def test_a_sample_depends_on_its_seed_alone(listed):
    first, again, other = (listed("--sample", "4", "--seed", seed) for seed in "112")
    assert (4, True, False) == (len(first), first == again, first == other)
