"""What the documentation shows runs, and says what the code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import shlex
import subprocess
import tomllib
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
    adapters,
    checkpoint,
    reconcile,
    schedules,
)
from dist_sched._config import files
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.specification import Specification
from dist_sched._curves.lint import LEVELS
from dist_sched._state.format import pack
from dist_sched.cli import application
from docs_helpers import DOCS, PAGES, ROOT, Example, blocks, run_page, text_of
from helpers import CONFIG, adamw, held, load_script, sgd
from page_helpers import run_sections

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


def home():
    names = {"ParamScheduler": ParamScheduler, "schedules": schedules, "dcp": dcp}
    return names | {"optimizer": sgd()}


def home_left(names, _printed):
    assert pytest.approx([3e-4 / 500]) == held(names["optimizer"])
    assert names["scheduler"].state_dict() == checkpoint.read_state("checkpoint")[0]


def guide():
    adam = torch.optim.AdamW([{"params": [parameter(2)], "name": "embed_in"}], lr=3e-4)
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no torch.optim.Muon")
    muon = torch.optim.Muon([parameter(2, 2)], lr=0.02, momentum=0.95)
    first = at(0)
    names = {"batches": [1, 2], "first": first, "optimizer": first.optimizer, "scheduler": first}
    model = SimpleNamespace(
        **{name: SimpleNamespace(weight=parameter(512, 128)) for name in ("embed", "head")}
    )
    names |= {"torch": torch, "Muon": torch.optim.Muon, "matrices": [parameter(64, 128)]}
    return names | {"muon": muon, "adamw": adam, "model": model, "biases": [parameter(128)]}


def guide_left(names, printed):
    scheduler, ramped = names["scheduler"], names["ramped"]
    assert 2 == names["first"].num_steps
    assert printed in text_of("docs/guide.md")
    assert 10_000_000 < ramped.num_steps
    assert (1024.0, [3e-4]) == (ramped.extras["batch_size"], held(ramped))
    scheduler.seek(500)
    assert [pytest.approx(0.02)] == held(scheduler.optimizer[0])
    assert pytest.approx([3e-5, 3e-4, 3e-4]) == held(scheduler.optimizer[1])
    assert [0.1, 0.1, 0.0] == held(scheduler.optimizer[1], "weight_decay")


def parameter(*shape):
    return torch.nn.Parameter(torch.ones(*shape))


def stable_run():
    return ParamScheduler(sgd(), {"lr": schedules.wsd(1.0, 10**9, decay=1)})


def resume():
    stable = stable_run()
    stable.seek(50_000)
    dcp.save({"scheduler": stable}, checkpoint_id="stable/step-50000")
    return {"config": CONFIG, "state": at(60).state_dict(), "build": stable_run, "dcp": dcp}


def resume_left(names, _printed):
    assert 60 == names["outcome"].position
    forks = [fork.history[0].arguments["steps"] for fork in names["forks"]]
    assert [1_000, 2_500, 5_000] == forks
    assert () == names["stable"].history


def checkpoints():
    dcp.save({"app": {"scheduler": at(6).state_dict()}}, checkpoint_id="runs/7b/step-6")
    megatron = checkpoint.to_megatron_state(at(42).state_dict())
    dcp.save({"scheduler": megatron}, checkpoint_id="megatron/iter_0000042")
    return {"scheduler": at(0), "theirs": at(0), "step": 6}


def checkpoints_left(names, _printed):
    assert (6, 42) == (names["scheduler"].num_steps, names["theirs"].num_steps)


def configuration():
    Path("schedule.yaml").write_text("fields: {lr: 0.5}")
    return {"dist_sched": dist_sched, "optimizer": sgd()}


def configuration_left(names, _printed):
    assert [0.5] == held(names["optimizer"])


def schedules_left(_names, _printed):
    assert "quarter_circle" in schedules.shapes()


def pictures_left(_names, _printed):
    assert Path("lr.png").is_file()


class Board:
    """A logger as TensorBoard's."""

    def __init__(self):
        self.written = {}

    def add_scalar(self, tag, value, _position):
        self.written[tag] = value


def trained(**names):
    """Return the names of a loop whose scheduler has made one update; lr falls from 1 in ten."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    fields = {"lr": schedules.linear(1.0, 10)}
    scheduler = ParamScheduler(optimizer, fields)
    shared = {"torch": torch, "adapters": adapters, "ParamScheduler": ParamScheduler}
    shared |= {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    return shared | {"fields": fields, "schedules": schedules} | names


def frameworks():
    board, logged = Board(), []
    wandb = SimpleNamespace(log=logged.append)
    return trained(SummaryWriter=lambda: board, wandb=wandb, board=board, logged=logged)


def frameworks_left(names, _printed):
    assert isinstance(names["adapter"], torch.optim.lr_scheduler.LRScheduler)
    assert names["logged"] == [names["board"].written] == [{"lr/0": 1.0}]
    assert 1.0 == json.loads(Path("lr.jsonl").read_text())["lr/0"]


def plain_torch():
    names = trained(scaler=torch.amp.GradScaler("cpu"))
    names["scaler"].scale(names["model"](torch.ones(1, 2)).sum()).backward()
    return names


def plain_torch_left(names, _printed):
    assert 1 == names["scheduler"].num_steps
    assert [0.9] == held(names["optimizer"])


def hf_trainer():
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(output_dir="run", use_cpu=True, report_to="none")
    return trained(Trainer=Trainer, args=args)


def hf_trainer_left(names, _printed):
    assert names["scheduler"] is names["trainer"].lr_scheduler.scheduler
    trainer = names["Scheduled"](model=names["model"], args=names["args"])
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    assert trainer.optimizer is trainer.lr_scheduler.optimizer


def accelerate():
    from accelerate import Accelerator

    return trained(accelerator=Accelerator(cpu=True), data=[])


def accelerate_left(names, _printed):
    assert [names["scheduler"]] == [
        one.scheduler.scheduler for one in names["accelerator"]._schedulers
    ]


def lightning_left(names, _printed):
    _, (entry,) = names["configure_optimizers"](names["model"])
    assert "step" == entry["interval"]
    assert isinstance(entry["scheduler"], torch.optim.lr_scheduler.LRScheduler)


def megatron():
    return {"optimizer": adamw(), "entries": CONFIG}


def megatron_left(names, _printed):
    state = names["opt_param_scheduler"].state_dict()
    assert {"max_lr", "num_steps"} < state.keys()
    assert 10 == len(state)


EXAMPLES = {
    "docs/index.md": Example(home, home_left),
    "docs/guide.md": Example(guide, guide_left),
    "docs/schedules.md": Example(check=schedules_left),
    "docs/configuration.md": Example(configuration, configuration_left),
    "docs/resume.md": Example(resume, resume_left),
    "docs/checkpoints.md": Example(checkpoints, checkpoints_left),
    "docs/pictures.md": Example(check=pictures_left),
    "docs/api/index.md": Example(),
    "docs/frameworks/index.md": Example(frameworks, frameworks_left),
    "docs/frameworks/plain-torch.md": Example(plain_torch, plain_torch_left),
    "docs/frameworks/transformers.md": Example(hf_trainer, hf_trainer_left),
    "docs/frameworks/accelerate.md": Example(accelerate, accelerate_left),
    "docs/frameworks/lightning.md": Example(trained, lightning_left),
    "docs/frameworks/megatron.md": Example(megatron, megatron_left),
}
"""Every page with Python that runs in the ordinary environment."""
ELSEWHERE = {
    "README.md": "tests/distributed/test_front_page.py",
    "docs/quickstart.md": "tests/distributed/test_front_page.py",
    "docs/faq.md": "tests/test_docs.py",
    "docs/recipes.md": "tests/test_docs.py",
    "docs/troubleshooting.md": "tests/test_troubleshooting.py",
    "docs/migrating/index.md": "tests/test_migrating.py",
    "docs/migrating/deepspeed.md": "tests/test_migrating.py",
    "docs/migrating/megatron.md": "tests/test_migrating.py",
    "docs/migrating/nemo-automodel.md": "tests/test_migrating.py",
    "docs/migrating/olmo.md": "tests/test_migrating.py",
    "docs/migrating/torch.md": "tests/test_migrating.py",
    "docs/migrating/torchtitan.md": "tests/test_migrating.py",
    "docs/migrating/transformers.md": "tests/test_migrating.py",
    "docs/gallery.md": "tests/test_gallery.py",
    "docs/frameworks/deepspeed.md": "tests/frameworks/test_docs.py",
    "docs/frameworks/ignite.md": "tests/frameworks/test_docs.py",
    "docs/frameworks/nemo-automodel.md": "tests/frameworks/test_docs.py",
    "docs/frameworks/torchft.md": "tests/frameworks/test_docs.py",
    "docs/frameworks/torchtitan.md": "tests/frameworks/test_docs.py",
}
"""The file that runs the Python and the commands of a page which is not here."""


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", EXAMPLES)
def test_the_python_of_a_page_runs(page, capsys):
    run_page(page, EXAMPLES[page], capsys)


def test_the_python_of_every_page_is_run():
    assert {page for page in PAGES if blocks(page, "python")} == {*EXAMPLES, *ELSEWHERE}


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_file_that_runs_a_page_names_it(page):
    assert Path(page).stem in text_of(ELSEWHERE[page])


LANGUAGES = {"python", "yaml", "toml", "json", "diff", "console", "bash", "zsh", "text"}


@pytest.mark.parametrize("page", PAGES)
def test_a_block_says_its_language(page):
    # What is not marked as python, such as py, would not be run.
    heads = re.findall(r"^ *```(.*)\n(?:.*\n)*?^ *```$", text_of(page), re.MULTILINE)
    assert set() == {re.sub(r' title="[^"]*"$', "", head) for head in heads} - LANGUAGES


def declared(language):
    """Return the blocks of a language, each with the page that it is on."""
    found = [(page, block) for page in DOCS for block in blocks(page, language)]
    return [pytest.param(block, id=f"{page}-{n}") for n, (page, block) in enumerate(found)]


OF_OTHERS = {"lr_scheduler", "optimizer", "scheduler"}
"""Sections of the configs of NeMo AutoModel, torchtitan and DeepSpeed."""


def check_schedule(data):
    if not OF_OTHERS & data.keys():
        is_whole = {"fields", "extras", "max_lr"} & data.keys()
        files.read(data if is_whole else {"horizon": "100k", "fields": data})


@pytest.mark.parametrize("block", declared("yaml"))
def test_the_yaml_of_a_page_is_a_schedule(block):
    check_schedule(yaml.safe_load(block))


@pytest.mark.parametrize("block", declared("json"))
def test_the_json_of_a_page_is_a_schedule(block):
    check_schedule(json.loads(block))


@pytest.mark.parametrize("block", declared("toml"))
def test_the_toml_of_a_page_is_a_schedule(block):
    check_schedule(tomllib.loads(block))


@pytest.mark.parametrize("block", declared("bash"))
def test_the_shell_can_read_a_block(block):
    assert 0 == subprocess.run(["bash", "-n"], input=block, text=True, check=False).returncode


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


def test_the_commands_of_every_page_are_run():
    assert {page for page in PAGES if commands(page)} <= {"docs/cli.md", *ELSEWHERE}


def test_the_page_shows_what_commands_print():
    assert {"check", "show", "diff", "fork"} == {
        param.values[0].split()[1] for param in commands("docs/cli.md")
    }


def test_the_page_lists_the_codes_of_findings_with_their_levels():
    page = text_of("docs/cli.md")
    rows = re.findall(r"^\| `([a-z-]+)` \| (note|warning|error) \|", page, re.MULTILINE)
    assert LEVELS == dict(rows)


# Texts


def test_the_readme_has_fewer_than_120_lines():
    assert 120 > len(text_of("README.md").splitlines())


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
    header, _, *rows = re.findall(r"^\|.*\|$", text_of("README.md"), re.MULTILINE)
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
    links = re.findall(r"\]\(([^)#]+)\)", text_of(page))
    local = [link for link in links if not link.startswith("https://")]
    assert [] == [link for link in local if not ((ROOT / page).parent / link).exists()]


def test_the_report_in_the_documentation_is_the_one_that_is_logged():
    (shown,) = blocks("docs/resume.md", "text")
    outcome = reconcile(CONFIG, at(60, max_lr=0.5).state_dict())
    assert f"loaded the scheduler at {outcome}\n" == shown


def test_the_page_about_the_state_names_every_key():
    page = text_of("docs/state.md")
    state = pack(OptimizerParamConfig(**CONFIG), 0, "steps")
    text = json.loads(state["dist_sched"])
    only_in_text = [f"config.{name}" for name in text["config"] if name not in state]
    assert [] == [key for key in [*state, *text, *only_in_text] if f"| `{key}` |" not in page]


def test_the_page_about_the_state_names_every_key_of_a_specification():
    page = text_of("docs/state.md")
    schedule = Schedule([Phase("linear", 10, end=1.0, start=0.0, until=5)])
    follows = schedules.proportional_to("lr", at_max=0.1, power=2)
    built = Specification.of({"lr": schedule, "weight_decay": follows}, None, {"batch_size": 32})
    text = json.loads(pack(built, 0, "steps")["dist_sched"])
    specification = text["specification"]
    (phase,) = specification["fields"]["lr"]["phases"]
    parts = [*phase, *specification["fields"]["weight_decay"]]
    keys = [*text, *(f"specification.{name}" for name in specification), *parts]
    assert [] == [key for key in keys if f"{key}`" not in page]
