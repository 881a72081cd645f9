"""The site of the documentation builds strictly, and has every page and every public name."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
import types
import zlib
from pathlib import Path

import pytest

from helpers import load_script

ROOT = Path(__file__).parents[1]
MODULES = [
    "dist_sched",
    "dist_sched.adapters",
    "dist_sched.checkpoint",
    "dist_sched.errors",
    "dist_sched.schedules",
]


build_site = load_script("build_site")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "site"
    build_site.build(folder)
    return folder


@pytest.fixture(scope="module")
def entries(site):
    """Return the names that have an entry in the API pages."""
    _, compressed = (site / "objects.inv").read_bytes().split(b"zlib.\n")
    return {line.split()[0] for line in zlib.decompress(compressed).decode().splitlines()}


# Pages


def pages(entry):
    """Return the pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in pages(part)]


def test_the_navigation_has_every_page_once():
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    docs = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted([*docs, *build_site.FROM_THE_ROOT.values()]) == sorted(pages(navigation))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", ["index", "changelog", "contributing", "files/pyproject.toml"])
def test_the_site_has_a_page(site, page):
    assert (site / f"{page}.html").is_file()


@pytest.mark.timeout(300)
def test_the_site_loads_nothing_from_elsewhere(site):
    loads = re.compile(
        r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*"""
    )
    assert [] == [load for page in site.rglob("*.html") for load in loads.findall(page.read_text())]


def test_a_link_to_a_page_of_the_root_leads_to_its_page():
    text = build_site.staged("[all](../CHANGELOG.md#unreleased)", "docs/guide.md")
    assert "[all](changelog.md#unreleased)" == text


def test_a_link_to_a_file_leads_to_a_page_that_shows_it():
    text = build_site.staged(
        "[a program](../../examples/megatron.py)", "docs/frameworks/megatron.md"
    )
    assert "[a program](../files/examples/megatron.py.md)" == text


def test_a_link_in_a_block_of_code_stays():
    block = "```text\n[a](../LICENSE)\n```\n"
    assert block == build_site.staged(block, "docs/guide.md")


def test_a_link_to_nothing_stays_and_fails_the_build(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Home\n\n[gone](gone.md)\n")
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "gone"\n')
    for name in build_site.FROM_THE_ROOT:
        (tmp_path / name).write_text("# A page\n")
    monkeypatch.setattr(build_site, "ROOT", tmp_path)
    with pytest.raises(build_site.subprocess.CalledProcessError):
        build_site.build(tmp_path / "site")


# API


def public_names():
    """Return every public name of the package, with the names that modules and classes have."""
    names = {path for path in MODULES if path != "dist_sched"}
    for path in MODULES:
        module = importlib.import_module(path)
        for name in set(module.__all__) - {"__version__", "torchtitan"}:
            names |= {f"{path}.{name}", *members(f"{path}.{name}", getattr(module, name))}
    return sorted(names)


def members(path, value):
    """Return the public names of an adapter's module or of a class."""
    own = {}
    if inspect.ismodule(value):
        own = {
            name: part
            for name, part in vars(value).items()
            if getattr(part, "__module__", None) == value.__name__
        }
    elif inspect.isclass(value):
        for base in value.__mro__:
            if base.__module__.startswith("dist_sched"):
                own |= vars(base)
        kinds = types.FunctionType, property, classmethod
        own = {name: part for name, part in own.items() if isinstance(part, kinds)}
    return {f"{path}.{name}" for name in own if not name.startswith("_")}


@pytest.mark.timeout(300)
def test_every_public_name_has_an_entry_in_the_api_pages(entries):
    assert [] == [name for name in public_names() if name not in entries]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["CheckpointManager", "SchedulersContainer.Config.make"])
def test_an_adapter_whose_framework_is_not_here_has_entries(entries, name):
    assert f"dist_sched.adapters.torchtitan.{name}" in entries


@pytest.mark.timeout(300)
def test_an_entry_has_defaults_units_errors_examples_and_source(site):
    page = (site / "api/schedulers.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    parts = ["default: &#39;steps&#39;", "in units", "Raises:", "Source code in", "&gt;&gt;&gt;"]
    assert [] == [part for part in parts if part not in text]
