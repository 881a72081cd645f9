"""Shapes that a project registered, in the command line: without them, and with --import."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from dist_sched import ParamScheduler, Phase, Schedule, StateError, register_shape
from dist_sched._curves import shapes
from dist_sched.cli import application
from helpers import adamw

MODULE = """
from dist_sched import register_shape
@register_shape("arc")
def arc(progress, roundness=2.0):
    return (1 - progress**roundness) ** (1 / roundness)
"""


@pytest.fixture
def cli(tmp_path, capsys, monkeypatch):
    """Run a command beside a checkpoint and a config of a shape that is not registered any more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_shapes.py").write_text(MODULE)
    torch.save({"scheduler": state()}, tmp_path / "own.pt")
    data = {"fields": {"lr": {"phases": [arc().to_dict()]}}}
    (tmp_path / "own.json").write_text(json.dumps(data))
    del shapes.SHAPES["arc"]

    def call(*arguments):
        status = application.run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    yield call
    sys.modules.pop("own_shapes", None)


def arc(**changes):
    return Phase(**{"shape": "arc", "steps": 10, "end": 0.0, "start": 1.0, **changes})


def state():
    """Return the state at position 6 of an arc, after a cooldown within it."""
    register_shape("arc")(lambda progress, roundness=2.0: (1 - progress**roundness) ** 0.5)
    rest = Phase("constant", 5, end=0.0)
    scheduler = ParamScheduler(adamw(), {"lr": Schedule([arc(), rest])})
    scheduler.seek(6)
    scheduler.cooldown(4, "exponential", end=0.1)
    return scheduler.state_dict()


def test_a_state_of_an_unknown_shape_is_inspected_without_values(cli):
    status, out, err = cli("inspect", "own.pt")
    rows = [line.split() for line in out.splitlines()]
    assert (0, "") == (status, err)
    assert [["position", "6"], ["unit", "steps"]] == [rows[4], rows[5]]
    assert ["lr.phases[0].shape", "arc"] in rows
    assert ["lr.phases[0].steps", "10"] in rows
    assert ["lr.phases[0].roundness", "2"] in rows
    assert ["lr.phases[1].end", "0"] in rows
    assert "entries, before the late changes" in out
    assert "6         cooldown" in out
    assert "values for the next update" not in out
    assert "shapes are not registered here: arc; use --import MODULE" in out


def test_the_values_of_an_unknown_shape_are_null_in_json(cli):
    found = json.loads(cli("inspect", "own.pt", "--json")[1])
    assert (6, None) == (found["position"], found["next_update"])
    assert "arc" == found["entries"]["lr.phases[0].shape"]


@pytest.mark.parametrize("module", ["own_shapes", "own_shapes.py", "./own_shapes.py"])
def test_an_imported_module_makes_its_shapes_known(cli, module):
    status, out, err = cli("show", "own.pt", "--import", module)
    assert (0, "") == (status, err)
    assert ["6", "lr", "0.8", "exponential"] in [line.split() for line in out.splitlines()]


def test_a_module_can_be_named_before_the_command(cli):
    assert 0 == cli("--import", "own_shapes", "show", "own.pt")[0]


def test_an_imported_shape_can_be_the_shape_of_a_fork(cli):
    config = ("fork", "own.pt", "--cooldown", 4, "--shape", "arc", "--import", "own_shapes")
    status, out, _ = cli(*config)
    assert (0, True) == (status, "shape: arc" in out)


@pytest.mark.parametrize(
    "command",
    [
        ("show", "own.pt"),
        ("show", "own.json"),
        ("check", "own.json"),
        ("diff", "own.json", "own.pt"),
        ("fork", "own.pt", "--cooldown", 4),
        ("convert", "own.pt", "new.pt", "--to", "dist-sched"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_a_command_that_needs_values_of_an_unknown_shape_points_to_import(cli, command):
    status, _, err = cli(*command)
    assert 2 == status
    assert "shape='arc': must be one of" in err
    assert "use --import MODULE to import the module that registers it" in err


@pytest.mark.parametrize("command", application.COMMANDS)
def test_every_command_has_import(cli, command):
    assert 1 == cli(command, "--help")[1].count("--import MODULE")


@pytest.mark.parametrize("module", ["nowhere", "nowhere.py", "broken.py"])
def test_a_module_that_cannot_be_imported_is_named(cli, tmp_path, module):
    (tmp_path / "broken.py").write_text("1 / 0")
    status, _, err = cli("show", "own.pt", "--import", module)
    assert 2 == status
    assert f"{module} cannot be imported: " in err


@pytest.mark.usefixtures("cli")
def test_a_state_of_an_unknown_shape_says_what_to_register_before_loading(tmp_path):
    saved = torch.load(tmp_path / "own.pt")["scheduler"]
    scheduler = ParamScheduler(adamw(), {"lr": 1.0})
    with pytest.raises(StateError, match=r"'arc'.*registered with register_shape before"):
        scheduler.load_state_dict(saved)


def test_after_an_inspection_unknown_shapes_are_refused_again(cli):
    cli("inspect", "own.pt")
    assert 2 == cli("show", "own.pt")[0]
