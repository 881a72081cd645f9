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

from dist_sched import OptimizerParamScheduler, plotting
from dist_sched._drawing import columns
from dist_sched.cli import plot as plot_module
from dist_sched.cli.application import run

ROOT = Path(__file__).parents[2]
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
LR = {"schedule": "wsd", "peak": 1.0, "warmup": 10, "decay": 20, "decay_shape": "linear"}
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


def test_a_config_has_a_chart_for_a_field_that_changes_and_a_line_for_one_that_does_not(plot):
    status, out, err = plot("run.json")
    assert (0, "") == (status, err)
    assert 80 == max(map(len, out.splitlines()))
    assert ["lr", "  run.json"] == out.splitlines()[:2]
    assert out.endswith("\n\nweight_decay: 0.1 throughout\n")


def test_a_config_that_never_changes_is_text_alone(plot, folder):
    (folder / "flat.json").write_text('{"fields": {"lr": 0.5, "momentum": 0.9}}')
    out = "lr: 0.5 throughout\nmomentum: 0.9 throughout\n"
    assert (0, out, "") == plot("flat.json", "--at", "5")


def test_a_chart_has_round_ticks_and_names_its_phases(plot):
    chart = plot("run.json")[1].split("\n\n")[0]
    assert ["3e-4", "2e-4", "1e-4", "0"] == re.findall(r"^ *([\de-]+)┤", chart, re.MULTILINE)
    assert ["0", "20k", "40k", "60k", "80k", "100k"] == chart.splitlines()[-3].split()
    assert re.search(r"^ +\| +warmup +\| +cosine +\|$", chart, re.MULTILINE)
    assert "  phases: warmup 0-20k (0 to 3e-4); cosine 20k-100k (3e-4 to 3e-5)" in chart
    assert "position (steps); horizon 100k" in chart


def test_a_curve_is_highest_where_its_values_are(plot):
    frame = [line for line in plot("run.json")[1].splitlines() if line.endswith("│")]
    heights = [line for line in frame if line[5 + 14] != " "]
    assert [frame[0]] == heights


def test_what_holds_past_the_end_is_written_below(plot, folder):
    cliff = {**CONFIG, "lr_decay_style": "inverse-square-root"}
    (folder / "cliff.json").write_text(json.dumps(cliff))
    assert "floor past 100k (3e-5)" in " ".join(plot("cliff.json")[1].split())


def test_hundreds_of_phases_are_counted(plot, folder):
    cycles = {"schedule": "cyclic", "peak": 1.0, "up": 2, "down": 2}
    (folder / "cycles.json").write_text(json.dumps({"horizon": 2000, "fields": {"lr": cycles}}))
    assert "and 992 more" in " ".join(plot("cycles.json")[1].split())


def test_a_checkpoints_own_position_is_a_line_of_colons(plot):
    status, out, _ = plot("step_10000")
    assert 0 == status
    assert "\ncheckpoint step_10000 at 10,000\n" in out
    marked = [line.index(":") for line in out.splitlines() if "│" in line and ":" in line]
    assert {12} == {*marked}
    assert len(marked) >= 10


def test_values_at_positions_stand_below_the_chart(plot):
    out = plot("run.json", "--at", "10k", "--at", 20_000)[1]
    assert "  position     10,000     20,000\n  lr           1.5e-4       3e-4\n" in out


def test_several_curves_have_letters_names_and_values(plot):
    out = plot("long.json", "step_10000")[1]
    assert ["lr", "  a long.json", "  b step_10000"] == out.splitlines()[:3]
    assert "  phases of a: warmup 0-20k (0 to 3e-4); cosine 20k-200k (3e-4 to 3e-5)" in out
    assert "  a long.json      1.5e-4\n  b step_10000     1.5e-4\n" in out
    chart = out[out.index("┌") : out.index("└")]
    assert (3, 3) == (chart.count("a"), chart.count("b"))


def test_several_curves_have_values_without_at(plot):
    out = plot("run.json", "long.json")[1]
    assert "  position             0    100,000    200,000\n" in out
    assert "  a run.json           0       3e-5       3e-5\n" in out


def test_curves_that_are_the_same_are_both_seen(plot):
    out = plot("run.json", "run.json")[1]
    chart = out[out.index("┌") : out.index("└")]
    assert (3, 3) == (chart.count("a"), chart.count("b"))
    assert "  a run.json (1)\n  b run.json (2)\n" in out


def test_files_of_the_same_name_are_known_by_their_folders(plot, folder):
    for name in ("x", "y"):
        (folder / "f" / name).mkdir(parents=True)
        (folder / "f" / name / "lr.json").write_text(json.dumps(CONFIG))
    out = plot("f/x/lr.json", "f/y/lr.json", "run.json")[1]
    assert ["  a x/lr.json", "  b y/lr.json", "  c run.json"] == out.splitlines()[1:4]


def test_groups_are_drawn_only_where_they_are_wanted(plot):
    assert "groups[head]" not in plot("groups.json")[1]
    out = plot("groups.json", "--groups")[1]
    assert "  a all other groups\n  b groups[head]\n" in out
    phases = "phases of b: linear 0-10 (0 to 0.5); constant 10-80 (0.5); linear 80-100 (0.5 to 0)"
    assert phases in " ".join(out.split())


def test_a_logarithmic_chart_has_powers_of_ten_and_says_that_0_lies_off_it(plot):
    out = plot("run.json", "--log")[1]
    assert out.startswith("lr (log, 0 off axis)\n")
    assert ["1e-4", "1e-5", "1e-6", "1e-7", "1e-8"] == re.findall(
        r"^ *([\de-]+)┤", out, re.MULTILINE
    )


def test_what_is_piped_has_no_colour(plot):
    assert "\033" not in plot("run.json", "long.json")[1]


def test_a_terminal_is_filled_with_braille_in_a_colour_for_each_curve(terminal):
    out = terminal("run.json", "long.json", columns=100)
    assert 100 == max(map(len, click.unstyle(out).splitlines()))
    frame = out[out.index("┌") :]
    for colour in plot_module._COLOURS[:2]:
        assert 20 < len("".join(re.findall(rf"\033\[38;5;{colour}m([\u2801-\u28ff]+)", frame)))


def test_no_color_is_obeyed(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in terminal("run.json")


def test_a_terminal_without_these_letters_has_others(terminal):
    out = click.unstyle(terminal("run.json", encoding="latin-1"))
    assert "?" not in out
    assert "+-----" in out


def test_many_long_and_wide_names_stay_in_the_width_and_differ(plot, folder):
    for index in range(10):
        (folder / f"{'実' * 40}{index}{'b' * 60}.json").write_text(json.dumps(CONFIG))
    out = plot(*sorted(path.name for path in folder.glob("実*.json")))[1]
    assert 80 >= max(map(columns, out.splitlines()))
    assert 10 == len({line[4:] for line in out.splitlines()[1:11]})


def test_control_characters_in_names_are_escapes(plot, folder):
    (folder / "a\n\033.json").write_text(json.dumps(CONFIG))
    assert "  a\\n\\x1b.json" == plot("a\n\033.json")[1].splitlines()[1]


@pytest.mark.parametrize("ending", plotting.ENDINGS)
def test_a_picture_is_written_and_no_chart(plot, folder, ending):
    assert (0, f"wrote lr{ending}\n", "") == plot("run.json", "step_10000", "-o", f"lr{ending}")
    assert 5000 < (folder / f"lr{ending}").stat().st_size


def test_a_picture_and_a_chart_can_be_had_at_once(plot, folder):
    out = plot("run.json", "-o", "lr.svg", "--terminal")[1]
    assert (folder / "lr.svg").exists()
    assert "position (steps)" in out


def test_a_picture_has_every_option(plot, folder):
    assert 0 == plot("groups.json", "--groups", "--log", "--at", "5", "-o", "lr.SVG")[0]
    svg = (folder / "lr.SVG").read_text()
    assert [] == [text for text in ("groups[head]", "0 off axis", ">5<") if text not in svg]


def test_the_key_is_for_the_checkpoints_alone(plot):
    assert 0 == plot("run.json", "two", "--key", "b")[0]


REFUSED = {
    ("run.json", "tokens.json"): "counts steps; tokens.json counts tokens",
    ("run.json", "-o", "lr.html"): "lr.html: the name must end in .png or .svg",
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
    (folder / "\U00013000\U000e01ff.json").write_text(json.dumps(CONFIG))
    status, out, err = plot("\U00013000\U000e01ff.json", "-o", "lr.png")
    assert (0, "wrote lr.png\n") == (status, out)
    assert err.startswith("note: lr.png: no installed font has the letters")
    assert 1 == err.count("\n")
