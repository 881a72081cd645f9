"""The house keeps its order: imports run one way, pure rooms know no torch, nothing asserts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dist_sched

HOME = Path(dist_sched.__file__).parent
PURE = ["errors", "rules", "curves", "shapes", "phases", "coupling", "schedules", "courses"]
PURE += ["policies", "lineage", "config", "specification", "declarations", "dialects", "state"]
PURE += ["reconciliation", "translation", "views", "pickles", "sources", "checkpoint"]
ROOMS = [*PURE[:18], "cells", "members", "groups", "ranks", "engine", "scheduler", *PURE[18:]]
PURE += ["_drawing", "plotting"]
ROOMS += ["adapters", "_drawing", "plotting", "cli"]
PURE = [room for room in PURE if (HOME / f"{room}.py").exists()]
FILES = sorted(HOME.rglob("*.py"))


def run(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def room_of(path):
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "dist_sched":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dist_sched."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_a_room_imports_only_from_rooms_above_it(path):
    if room_of(path) in {"__init__", "errors"}:
        return  # the public names, and types for them, come from everywhere
    above = ROOMS[: ROOMS.index(room_of(path))]
    assert set() == set(imported_rooms(path)) - {*above, room_of(path)}


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_does_not_import_torch(room):
    program = f"import sys, dist_sched.{room}; print('torch' in sys.modules)"
    assert "False\n" == run("-c", program)


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, dist_sched; print('torch' in sys.modules, dir(dist_sched))"
    assert f"False {sorted(dist_sched.__all__)}\n" == run("-c", program)


def test_every_public_name_can_be_imported():
    assert all(getattr(dist_sched, name) for name in dist_sched.__all__)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Schedular'"):
        dist_sched.Schedular  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_no_assert_guards_anything(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    assert [] == [node.lineno for node in nodes if isinstance(node, ast.Assert)]


OPTIMIZED = """
import torch
from dist_sched import ConfigError, OptimizerParamScheduler, ReconcileError, StateError

def build(**changes):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return OptimizerParamScheduler(optimizer, **{**dict(
        init_lr=0.0, max_lr=1.0, min_lr=0.1, lr_warmup_steps=10, lr_decay_steps=110,
        lr_decay_style="linear", start_wd=0.0, end_wd=0.1, wd_incr_steps=100,
        wd_incr_style="linear"), **changes})

def raised(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except Exception as error:
        return type(error).__name__
    return None

print(__debug__)
print(raised(build, min_lr=2.0), raised(build, lr_decay_style="x"), raised(build, start_wd=1.0))
print(raised(build().step, -1), raised(build().load_state_dict, {}))
print(raised(build(policy="strict").load_state_dict, build(max_lr=0.5).state_dict()))
scheduler = build()
scheduler.step(60)
print(scheduler.get_last_lr())
"""


def test_python_without_asserts_refuses_and_computes_the_same():
    names = ["ConfigError ConfigError ConfigError", "ConfigError StateError", "ReconcileError"]
    values = [*names, "[0.55]", ""]
    assert "\n".join(["True", *values]) == run("-c", OPTIMIZED)
    assert "\n".join(["False", *values]) == run("-O", "-c", OPTIMIZED)
