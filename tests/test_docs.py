"""What the documentation shows runs, and says what the code does."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest
import torch

import dist_sched
from dist_sched import Phase, Schedule, reconcile
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.specification import Specification
from dist_sched._curves.proportional import ProportionalTo
from dist_sched._state.format import pack

ROOT = Path(__file__).parents[1]
HOME = Path(dist_sched.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(HOME).with_suffix("").parts)
    for path in HOME.rglob("*.py")
    if not path.stem.startswith("__")
)


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def test_the_readmes_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("README.md", "python")
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
    assert "position: 500 steps" in capsys.readouterr().out


def test_the_readme_has_fewer_than_120_lines():
    assert 120 > len((ROOT / "README.md").read_text().splitlines())


PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("path", PAGES)
def test_every_link_leads_to_a_file(path):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / path).read_text())
    assert [] == [link for link in links if not ((ROOT / path).parent / link).exists()]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    assert 0 == doctest.testmod(importlib.import_module(f"dist_sched.{name}")).failed


def test_there_are_examples_in_docstrings():
    modules = [importlib.import_module(f"dist_sched.{name}") for name in MODULES]
    assert 5 < sum(doctest.testmod(module).attempted for module in modules)


def test_the_report_in_the_documentation_is_the_one_that_is_logged(config):
    (shown,) = blocks("docs/resume.md", "text")
    state = pack(OptimizerParamConfig(**{**config, "max_lr": 0.5}), 60, "steps")
    assert f"loaded the scheduler at {reconcile(config, state)}\n" == shown


def test_the_page_about_the_state_names_every_key_of_a_specification():
    page = (ROOT / "docs/state.md").read_text()
    schedule = Schedule([Phase("linear", 10, end=1.0, start=0.0, until=5)])
    told = {"fields": {"lr": schedule, "weight_decay": ProportionalTo(at_max=0.1)}, "groups": {}}
    text = json.loads(pack(Specification(**told), 0, "steps")["dist_sched"])
    phase, coupling = (
        schedule.to_dict()["phases"][0],
        text["specification"]["fields"]["weight_decay"],
    )
    keys = [*text, *(f"specification.{name}" for name in told), *phase, *coupling]
    assert [] == [key for key in keys if f"{key}`" not in page]


def test_the_guides_recipe_of_any_field_runs():
    (example,) = (block for block in blocks("docs/guide.md", "python") if "muon" in block)
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    groups = [{"params": weights[1:], "name": "embed_in"}]
    names = {"muon": torch.optim.Muon(weights[:1], lr=1e-3, momentum=0.95)}
    names["adamw"] = torch.optim.AdamW(groups, lr=1e-3)
    exec(compile(example, "guide.md", "exec"), names)  # noqa: S102
    names["scheduler"].seek(90_000)
    assert 3e-5 == names["muon"].param_groups[0]["lr"]
    assert 1.5e-5 == names["adamw"].param_groups[0]["lr"]


def test_the_page_about_the_state_names_every_key(config):
    page = (ROOT / "docs/state.md").read_text()
    state = pack(OptimizerParamConfig(**config), 0, "steps")
    text = json.loads(state["dist_sched"])
    alone = [f"config.{name}" for name in text["config"] if name not in state]
    assert [] == [key for key in [*state, *text, *alone] if f"| `{key}` |" not in page]
