"""What the documentation shows runs, and says what the code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml

import dist_sched
from dist_sched import (
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    Schedule,
    checkpoint,
    reconcile,
    schedules,
)
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.specification import Specification
from dist_sched._curves.lint import LEVELS
from dist_sched._state.format import pack
from dist_sched.cli import application
from helpers import CONFIG, adamw, held, load_script, sgd
from page_helpers import run_sections

ROOT = Path(__file__).parents[1]
HOME = Path(dist_sched.__file__).parent
NEED_A_FRAMEWORK = {"adapters.torchtitan"}
"""They import a framework that the ordinary environment lacks."""
MODULES = sorted(
    {
        ".".join(path.relative_to(HOME).with_suffix("").parts)
        for path in HOME.rglob("*.py")
        if not path.stem.startswith("__")
    }
    - NEED_A_FRAMEWORK
)
DOCS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def run_examples(page, names):
    """Run the Python of a page from top to bottom, and return the names that it leaves."""
    names = {"__name__": "example", **names}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)  # noqa: S102
    return names


def at(position, **changes):
    """Return a scheduler of the shared config at a position."""
    scheduler = OptimizerParamScheduler(adamw(), **{**CONFIG, **changes})
    scheduler.seek(position)
    return scheduler


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Python


@pytest.mark.usefixtures("folder")
def test_the_three_lines_of_the_sites_home_run():
    optimizer = sgd()
    names = {"ParamScheduler": ParamScheduler, "schedules": schedules, "dcp": dcp}
    left = run_examples("docs/index.md", {**names, "optimizer": optimizer})
    assert pytest.approx([3e-4 / 500]) == held(optimizer)
    assert left["scheduler"].state_dict() == checkpoint.read_state("checkpoint")[0]


def parameter(*shape):
    return torch.nn.Parameter(torch.ones(*shape))


def test_the_guides_examples_run_and_print_the_table_that_stands_there(capsys):
    adam = torch.optim.AdamW([{"params": [parameter(2)], "name": "embed_in"}], lr=3e-4)
    muon = torch.optim.Muon([parameter(2, 2)], lr=0.02, momentum=0.95)
    first = at(0)
    names = {"batches": [1, 2], "optimizer": first.optimizer, "scheduler": first}
    model = SimpleNamespace(
        **{name: SimpleNamespace(weight=parameter(512, 128)) for name in ("embed", "head")}
    )
    names |= {"torch": torch, "Muon": torch.optim.Muon, "matrices": [parameter(64, 128)]}
    names |= {"muon": muon, "adamw": adam, "model": model, "biases": [parameter(128)]}
    left = run_examples("docs/guide.md", names)
    scheduler, ramped = left["scheduler"], left["ramped"]
    assert 2 == first.num_steps
    assert capsys.readouterr().out in (ROOT / "docs/guide.md").read_text()
    assert 10_000_000 < ramped.num_steps
    assert (1024.0, [3e-4]) == (ramped.extras["batch_size"], held(ramped))
    scheduler.seek(500)
    assert [pytest.approx(0.02)] == held(scheduler.optimizer[0])
    assert pytest.approx([3e-5, 3e-4, 3e-4]) == held(scheduler.optimizer[1])
    assert [0.1, 0.1, 0.0] == held(scheduler.optimizer[1], "weight_decay")


@pytest.mark.usefixtures("folder")
def test_the_examples_about_resuming_run():
    def build():
        return ParamScheduler(sgd(), {"lr": schedules.wsd(1.0, 10**9, decay=1)})

    stable = build()
    stable.seek(50_000)
    dcp.save({"scheduler": stable}, checkpoint_id="stable/step-50000")
    names = {"config": CONFIG, "state": at(60).state_dict(), "build": build, "dcp": dcp}
    left = run_examples("docs/resume.md", names)
    assert 60 == left["outcome"].position
    assert [1_000, 2_500, 5_000] == [fork.history[0].arguments["steps"] for fork in left["forks"]]
    assert () == left["stable"].history


@pytest.mark.usefixtures("folder")
def test_the_examples_about_checkpoints_run():
    dcp.save({"app": {"scheduler": at(6).state_dict()}}, checkpoint_id="runs/7b/step-6")
    megatron = checkpoint.to_megatron_state(at(42).state_dict())
    dcp.save({"scheduler": megatron}, checkpoint_id="megatron/iter_0000042")
    scheduler, theirs = at(0), at(0)
    names = {"scheduler": scheduler, "theirs": theirs, "step": 6}
    run_examples("docs/checkpoints.md", names)
    assert (6, 42) == (scheduler.num_steps, theirs.num_steps)


def test_the_examples_about_config_files_run(folder):
    (folder / "schedule.yaml").write_text("fields: {lr: 0.5}")
    optimizer = sgd()
    run_examples("docs/configuration.md", {"dist_sched": dist_sched, "optimizer": optimizer})
    assert [0.5] == held(optimizer)


def test_the_examples_about_schedules_run():
    run_examples("docs/schedules.md", {})
    assert "quarter_circle" in schedules.shapes()


def test_the_examples_about_pictures_run(folder):
    run_examples("docs/pictures.md", {})
    assert (folder / "lr.png").is_file()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", ["docs/recipes.md", "docs/faq.md"])
def test_the_code_of_every_section_runs_and_shows_what_stands_there(page):
    assert [] == [line for one in run_sections(page) for line in one.missing()]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    assert 0 == doctest.testmod(importlib.import_module(f"dist_sched.{name}")).failed


def test_there_are_examples_in_docstrings():
    modules = [importlib.import_module(f"dist_sched.{name}") for name in MODULES]
    found = [test for module in modules for test in doctest.DocTestFinder().find(module)]
    assert 50 < sum(len(test.examples) for test in found)


# Commands


def commands(page):
    """Return the commands that a page shows with what they print."""
    shown = [part for block in blocks(page, "console") for part in block.split("$ ")[1:]]
    pairs = [part.split("\n", 1) for part in shown]
    return [pytest.param(*pair, id=pair[0]) for pair in pairs if pair[1].strip()]


@pytest.fixture
def runs(folder):
    """Make the configs and checkpoints that the page about the command names."""
    wsd = {
        "max_lr": 3e-4,
        "lr_decay_style": "WSD",
        "lr_decay_steps": 100_000,
        "wsd_decay_steps": 20_000,
        "lr_wsd_decay_style": "minus_sqrt",
        "min_lr": 0.0,
    }
    overlapping = {"lr_decay_style": "WSD", "wsd_decay_steps": 105, "lr_wsd_decay_style": "linear"}
    (folder / "run.json").write_text(json.dumps(CONFIG))
    for name, changes in {"a": {}, "b": overlapping, "c": {"max_lr": 0.5}}.items():
        config = {**CONFIG, "init_lr": 0.1, "wd_incr_steps": 110, **changes}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    schedulers = {
        "runs/after/step-80": at(80),
        "runs/before/step-60": at(60, max_lr=0.5),
        "runs/7b/step-50000": at(50_000, **wsd),
    }
    for path, scheduler in schedulers.items():
        dcp.save({"app": {"scheduler": scheduler.state_dict()}}, checkpoint_id=path)
    return folder


@pytest.mark.parametrize("command, output", commands("docs/cli.md"))
def test_a_command_prints_what_the_page_shows(runs, capsys, command, output):
    application.run(shlex.split(command)[1:])
    printed = capsys.readouterr().out.replace(str(runs), "/data")
    left_out = re.escape("   ...\n")
    assert re.fullmatch(re.escape(output.strip()).replace(left_out, "(?:.*\n)+"), printed.strip())


def test_the_page_shows_what_commands_print():
    assert {"check", "show", "diff", "fork"} == {
        param.values[0].split()[1] for param in commands("docs/cli.md")
    }


def test_the_page_lists_the_codes_of_findings_with_their_levels():
    page = (ROOT / "docs/cli.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (note|warning|error) \|", page, re.MULTILINE)
    assert LEVELS == dict(rows)


# Texts


def test_the_readme_has_fewer_than_120_lines():
    assert 120 > len((ROOT / "README.md").read_text().splitlines())


def cells(path):
    """Yield row, column and text of the cells of README's table that tests in a file hold."""
    tree = ast.parse(path.read_text())
    names = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    for test in tree.body:
        for call in getattr(test, "decorator_list", []):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "cell":
                row, *rest = (
                    names[a.id] if isinstance(a, ast.Name) else a.value for a in call.args
                )
                yield row, *rest


def test_each_cell_of_the_readmes_table_has_a_test():
    header, _, *rows = re.findall(r"^\|.*\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    columns = [one.strip() for one in header.split("|")[2:-1]]
    shown = set()
    for line in rows:
        row, *texts = (one.strip() for one in line.split("|")[1:-1])
        pairs = zip(columns, texts, strict=True)
        shown |= {(row, column, text) for column, text in pairs if text != "—"}
    tested = {
        found for path in sorted((ROOT / "tests").rglob("test_*.py")) for found in cells(path)
    }
    assert tested == shown
    assert 8 >= max(len(text.split()) for _, _, text in shown)


def test_the_picture_of_diff_shows_what_the_command_prints():
    script = load_script("draw_diff")
    assert script.printed().plain == script.read()


def test_the_readmes_loop_restores_trains_and_saves_in_twelve_lines():
    (code,) = blocks("README.md", "python")
    lines = [line for line in code.splitlines() if line]
    last = next(number for number, line in enumerate(lines) if "dcp.save(" in line)
    assert 12 == last + 1 - lines.index("def state():")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    local = [link for link in links if not link.startswith("https://")]
    assert [] == [link for link in local if not ((ROOT / page).parent / link).exists()]


def test_the_report_in_the_documentation_is_the_one_that_is_logged():
    (shown,) = blocks("docs/resume.md", "text")
    outcome = reconcile(CONFIG, at(60, max_lr=0.5).state_dict())
    assert f"loaded the scheduler at {outcome}\n" == shown


def test_the_page_about_the_state_names_every_key():
    page = (ROOT / "docs/state.md").read_text()
    state = pack(OptimizerParamConfig(**CONFIG), 0, "steps")
    text = json.loads(state["dist_sched"])
    only_in_text = [f"config.{name}" for name in text["config"] if name not in state]
    assert [] == [key for key in [*state, *text, *only_in_text] if f"| `{key}` |" not in page]


def test_the_page_about_the_state_names_every_key_of_a_specification():
    page = (ROOT / "docs/state.md").read_text()
    schedule = Schedule([Phase("linear", 10, end=1.0, start=0.0, until=5)])
    follows = schedules.proportional_to("lr", at_max=0.1, power=2)
    built = Specification.of({"lr": schedule, "weight_decay": follows}, None, {"batch_size": 32})
    text = json.loads(pack(built, 0, "steps")["dist_sched"])
    specification = text["specification"]
    (phase,) = specification["fields"]["lr"]["phases"]
    parts = [*phase, *specification["fields"]["weight_decay"]]
    keys = [*text, *(f"specification.{name}" for name in specification), *parts]
    assert [] == [key for key in keys if f"{key}`" not in page]
