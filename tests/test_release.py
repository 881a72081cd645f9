"""What a release needs beside the files: one version everywhere, and workflows that are safe."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import dist_sched
from helpers import load_script

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_changelog_has_a_section_of_this_version():
    first = re.search(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert dist_sched.__version__ == first[1]


def test_the_citation_has_this_version_and_address():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert dist_sched.__version__ == citation["version"]
    assert PROJECT["urls"]["Homepage"] == citation["repository-code"]


@pytest.mark.parametrize(
    "tag, date, problem",
    [
        ("v1.2.0", "2026-01-31", []),
        ("v1.2.1", "2026-01-31", ["the tag is v1.2.1"]),
        ("v1.2.0", "Unreleased", ["says 'Unreleased': write the date"]),
    ],
)
def test_a_release_needs_its_tag_and_a_date(tag, date, problem):
    found = load_script("check_release").problems(
        tag, '__version__ = "1.2.0"', f"## [1.2.0] - {date}"
    )
    assert len(problem) == len(found)
    assert all(part in text for part, text in zip(problem, found, strict=True))


def test_a_requirement_without_a_lowest_version_is_named():
    extras = {"cli": [], "plot": [], "yaml": []}
    with pytest.raises(ValueError, match="'torch' has no lowest version"):
        load_script("lowest_versions").lowest_versions(
            {"dependencies": ["torch"], "optional-dependencies": extras}
        )


def test_every_requirement_of_users_has_a_lowest_version():
    found = load_script("lowest_versions").lowest_versions(PROJECT)
    assert {"torch", "fsspec", "click", "matplotlib", "pyyaml"} <= found.keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_action_is_pinned_by_a_commit_and_says_its_version(path):
    lines = re.findall(r"uses: (.+)", path.read_text())
    assert lines
    pinned = r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    assert [] == [line for line in lines if not re.fullmatch(pinned, line)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_script_that_a_workflow_runs_exists(path):
    scripts = set(re.findall(r"scripts/\w+\.(?:py|sh)", path.read_text()))
    assert [] == [name for name in sorted(scripts) if not (ROOT / name).exists()]


def test_the_workflows_test_every_supported_python():
    text = (ROOT / ".github/workflows/test.yml").read_text()
    found = set(re.findall(r'"(3\.\d+)"', text))
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert set(classified) == found


def test_the_workflows_are_safe():
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        pytest.skip("zizmor is one of the tools of the extra dev")
    command = [zizmor, "--offline", "--quiet", ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
