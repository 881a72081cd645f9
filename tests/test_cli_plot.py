"""`dist-sched plot`: charts in the terminal, pictures in files, and what is refused."""

from __future__ import annotations

import io
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import torch
import torch.distributed.checkpoint as dcp

from dist_sched import OptimizerParamScheduler, pages
from dist_sched.cli import plot as plot_module
from dist_sched.cli.application import run

ROOT = Path(__file__).parents[1]
CONFIG = {
    "init_lr": 0.0,
    "max_lr": 3e-4,
    "min_lr": 3e-5,
    "lr_warmup_steps": 20_000,
    "lr_decay_steps": 100_000,
    "lr_decay_style": "cosine",
    "start_wd": 0.1,
    "end_wd": 0.1,
    "wd_incr_steps": 0,
    "wd_incr_style": "constant",
}
LR = {"schedule": "wsd", "peak": 1.0, "warmup": 10, "tail": 20, "tail_shape": "linear"}
GROUPS = {"horizon": 100, "fields": {"lr": LR}, "groups": {"head": {"lr": 0.5}}}


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    configs = {"run": CONFIG, "groups": GROUPS, "tokens": {**CONFIG, "unit": "tokens"}}
    configs["broken"] = {**CONFIG, "max_lr": -1}
    configs["long"] = {**CONFIG, "lr_decay_steps": 200_000}
    for name, told in configs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = OptimizerParamScheduler(optimizer, **CONFIG)
    scheduler.step(10_000)
    dcp.save({"scheduler": scheduler}, checkpoint_id=tmp_path / "step_10000")
    dcp.save({"a": scheduler, "b": scheduler}, checkpoint_id=tmp_path / "two")
    return tmp_path


@pytest.fixture
def plot(folder, capsys):  # noqa: ARG001 - it changes into it
    def call(*arguments):
        status = run(["plot", *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def terminal(folder, monkeypatch):  # noqa: ARG001 - it changes into it
    def call(*arguments, columns=100, encoding="utf-8"):
        stream = Terminal(io.BytesIO(), encoding=encoding)
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setattr(sys, "stdout", stream)
            assert 0 == run(["plot", *arguments])
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    return call


def test_a_config_is_drawn_one_chart_a_field(plot):
    status, out, err = plot("run.json")
    assert (0, "") == (status, err)
    assert [] == [line for line in out.splitlines() if len(line) > 80]
    assert 2 == out.count("position (steps); horizon 100k")
    assert out.startswith("lr\n  run.json\n")
    assert "\n\nweight_decay\n" in out


def test_a_chart_has_round_ticks_and_names_its_phases(plot):
    chart = plot("run.json")[1].split("\n\n")[0]
    assert ["3e-4", "2e-4", "1e-4", "0"] == re.findall(r"^ *([\de-]+)┤", chart, re.MULTILINE)
    assert ["0", "20k", "40k", "60k", "80k", "100k"] == chart.splitlines()[-3].split()
    assert re.search(r"\| +warmup +\| +cosine +\|\n", chart)
    assert "  phases: warmup 0-20k (0 to 3e-4); cosine 20k-100k (3e-4 to 3e-5)" in chart


def test_a_checkpoints_position_is_marked(plot):
    status, out, _ = plot("step_10000")
    assert 0 == status
    assert "\n  checkpoint step_10000 at 10,000: 1.5e-4\n" in out
    frame = [line for line in out.split("\n\n")[1].splitlines() if ":" in line and "│" in line]
    assert 5 == len(frame)
    assert 1 == len({line.index(":") for line in frame})


def test_positions_that_are_asked_for_are_marked(plot):
    out = plot("run.json", "--at", "10k", "--at", 20_000)[1]
    assert "  at 10,000: 1.5e-4\n  at 20,000: 3e-4\n" in out


def test_configs_and_checkpoints_are_told_apart_without_colour(plot):
    out = plot("long.json", "step_10000")[1]
    assert "  o long.json   x step_10000\n" in out
    assert "  phases o: warmup 0-20k (0 to 3e-4); cosine 20k-200k (3e-4 to 3e-5)" in out
    assert "  checkpoint step_10000 at 10,000: 1.5e-4 (o), 1.5e-4 (x)\n" in out
    chart = out[out.index("┌") : out.index("└")]
    assert 10 < chart.count("o")
    assert 10 < chart.count("x")


def test_curves_that_are_the_same_are_both_seen(plot):
    chart = plot("run.json", "run.json")[1]
    assert "oxoxox" in chart
    assert "o run.json (1)   x run.json (2)" in chart


def test_files_of_the_same_name_are_told_by_their_folders():
    assert ["a/lr.yaml", "b/lr.yaml", "c.yaml"] == plot_module._names(
        ["x/a/lr.yaml", "x/b/lr.yaml", "x/c.yaml"]
    )


def test_groups_are_drawn_where_they_are_asked_for(plot):
    assert "groups[head]" not in plot("groups.json")[1]
    out = plot("groups.json", "--groups")[1]
    assert "o all other groups   x groups[head]" in out
    told = "phases x: linear 0-10 (0 to 0.5); constant 10-80 (0.5); linear 80-100 (0.5 to 0)"
    assert told in " ".join(out.split())


def test_a_logarithmic_chart_has_powers_of_ten_and_leaves_zeros_off(plot):
    out = plot("run.json", "--log")[1]
    assert out.startswith("lr (log, 0 off axis)\n")
    assert re.search(r"1e-4┤.*1e-5┤.*1e-6┤", out, re.DOTALL)


def test_what_is_piped_has_no_colour(plot):
    assert "\033" not in plot("run.json", "long.json")[1]


def test_a_terminal_is_filled_with_colour(terminal):
    out = terminal("run.json", columns=100)
    assert "\033[" in out
    assert 100 == max(map(len, click.unstyle(out).splitlines()))


def test_no_color_is_obeyed(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in terminal("run.json")


def test_a_terminal_without_these_letters_has_others(terminal):
    out = click.unstyle(terminal("run.json", encoding="latin-1"))
    assert "?" not in out
    assert "+-----" in out


@pytest.mark.parametrize("ending", pages.ENDINGS)
def test_a_picture_is_written_and_no_chart(plot, folder, ending):
    assert (0, f"wrote lr{ending}\n", "") == plot("run.json", "step_10000", "-o", f"lr{ending}")
    assert 5000 < (folder / f"lr{ending}").stat().st_size


def test_a_picture_and_a_chart_can_be_had_at_once(plot, folder):
    out = plot("run.json", "-o", "lr.svg", "--terminal")[1]
    assert (folder / "lr.svg").exists()
    assert "position (steps)" in out


def test_a_picture_has_every_option(plot, folder):
    options = ("--groups", "--log", "--at", "5", "-o", "lr.html")
    assert 0 == plot("groups.json", *options)[0]
    assert "groups[head].lr" in (folder / "lr.html").read_text()


def test_the_key_is_the_checkpoints_alone(plot):
    assert 0 == plot("run.json", "two", "--key", "b")[0]


REFUSED = {
    ("run.json", "tokens.json"): "counts steps; tokens.json counts tokens",
    ("run.json", "-o", "lr.pdf"): "lr.pdf: the name must end in one of",
    ("run.json", "-o", "no/lr.png"): "no/lr.png: cannot be written: No such file",
    ("run.json", "--at", "-1"): "-1",
    ("run.json", "--at", "1.5"): "1.5",
    ("run.json", "--at", str(2**53 + 1)): "2**53",
    ("broken.json",): "broken.json: max_lr=-1",
    ("none.json",): "none.json: cannot be read",
    ("none",): "none",
    ("two",): "two",
    ("run.json", "--key", "a"): "is a config file",
    (): "Missing argument",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_is_wrong_is_said_in_a_line(plot, arguments):
    status, out, err = plot(*arguments)
    assert (2, "") == (status, out)
    assert 1 == err.count("\n")
    assert REFUSED[arguments] in err


def test_a_missing_matplotlib_is_named_with_what_to_install(plot, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, _, err = plot("run.json", "-o", "lr.png")
    assert 2 == status
    assert "pictures need matplotlib: pip install 'dist-sched[plot]'\n" in err


@pytest.mark.parametrize("path", ["run.json", "step_10000"])
def test_neither_a_chart_nor_a_picture_imports_torch(folder, path):
    path, picture = folder / path, folder / "lr.svg"
    program = (
        "import sys; from dist_sched.cli.application import run; "
        f"run(['plot', '--terminal', '{path}']); chart = 'matplotlib' in sys.modules; "
        f"run(['plot', '{path}', '-o', '{picture}']); print(chart, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert b"False False" == done.stdout.splitlines()[-1], done.stderr


def seconds(*arguments):
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begin


def test_a_chart_takes_a_third_of_the_time_that_torch_takes_to_import(folder):
    chart = ("-m", "dist_sched.cli", "plot", "--terminal", folder / "run.json")
    for _ in range(4):
        torch_takes = statistics.median(seconds("-c", "import torch") for _ in range(3))
        chart_takes = statistics.median(seconds(*chart) for _ in range(3))
        if chart_takes <= torch_takes / 3:
            break
    assert chart_takes <= torch_takes / 3


def test_the_chart_in_the_documentation_is_the_one_that_is_printed(plot, folder):
    page = (ROOT / "docs" / "pictures.md").read_text()
    (config,), (chart,) = (
        re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("yaml", "text")
    )
    (folder / "run.yaml").write_text(config)
    assert (0, chart, "") == plot("run.yaml", "--at", "90k")


def test_the_pictures_in_the_documentation_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert {} == {name: size for name, size in sizes.items() if size > 120_000}


def test_a_picture_that_is_there_is_overwritten_by_force_alone(plot, folder):
    (folder / "lr.svg").write_text("mine")
    status, out, err = plot("run.json", "-o", "lr.svg")
    assert (2, "") == (status, out)
    assert err.endswith("lr.svg: already exists; use --force to overwrite\n")
    assert 1 == err.count("\n")
    assert "mine" == (folder / "lr.svg").read_text()
    assert (0, "wrote lr.svg\n", "") == plot("run.json", "-o", "lr.svg", "--force")


def test_letters_that_no_font_has_are_one_note(plot, folder):
    (folder / "\u5b9f\U000e01ff.json").write_text(json.dumps(CONFIG))
    (folder / "\U0001f9ff\u0e01.json").write_text(json.dumps(CONFIG))
    paths = ("\u5b9f\U000e01ff.json", "\U0001f9ff\u0e01.json")
    status, out, err = plot(*paths, "-o", "lr.png")
    assert (0, "wrote lr.png\n") == (status, out)
    assert err.startswith("note: lr.png: no installed font has the letters")
    assert 1 == err.count("\n")
    assert (0, "wrote lr.svg\n", "") == plot(*paths, "-o", "lr.svg")


def test_many_curves_have_markers_that_all_differ():
    assert 60 <= len(plot_module._MARKERS) == len(set(plot_module._MARKERS))


def test_a_long_list_of_names_stays_in_the_width(plot, folder):
    for index in range(10):
        (folder / f"{'a' * 60}{index}{'b' * 60}.json").write_text(json.dumps(CONFIG))
    out = plot(*sorted(path.name for path in folder.glob("a*.json")))[1]
    assert 80 >= max(map(len, out.splitlines()))
    assert 10 == len({*re.findall(r"\S*\d\S*json", out.split("┌")[0])})


def test_what_holds_past_the_end_is_told(plot, folder):
    (folder / "cliff.json").write_text(
        json.dumps({**CONFIG, "lr_decay_style": "inverse-square-root"})
    )
    assert "floor past 100k (3e-5)" in " ".join(plot("cliff.json")[1].split())
