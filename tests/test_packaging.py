"""What is released: the wheel and the sdist, and what each of them installs."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import dist_sched

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def build(folder, source, kind):
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder, cwd=source)
    (found,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return found


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build(tmp_path_factory.mktemp("sdist"), ROOT, "sdist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"), ROOT, "wheel")


@pytest.fixture(scope="module")
def wheel_of_sdist(tmp_path_factory, sdist):
    """Return the wheel that is built from the sdist alone."""
    source = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    (unpacked,) = source.iterdir()
    return build(tmp_path_factory.mktemp("wheel_of_sdist"), unpacked, "wheel")


@pytest.fixture(scope="module")
def about(wheel):
    """Return the metadata of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def home(wheel, wheel_of_sdist, request, tmp_path_factory):
    """Return an environment with a wheel, what the wheel requires, and nothing else."""
    which, extras = request.param
    folder = tmp_path_factory.mktemp("home")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in files_of(required(extras)):
        (packages / path.name).symlink_to(path)
    built = {"wheel": wheel, "sdist": wheel_of_sdist}[which]
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install"]
    run(*pip, "--no-deps", "--no-index", "--no-compile", built, env={**os.environ, "PIP_USER": "0"})
    return folder


def required(extras):
    """Return the names of all packages that the project and these extras of it pull in."""
    found, open_ones = set(), [("dist-sched", extra) for extra in ("", *extras)]
    while open_ones:
        name, extra = open_ones.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        open_ones += needs(name, extra)
    return {name for name, _ in found} - {"dist-sched"}


def needs(name, extra):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for other in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), other


def files_of(names):
    """Return what stands of these packages in the folder where they are installed."""
    for name in names:
        distribution = metadata.distribution(name)
        roots = {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}
        yield from (Path(distribution.locate_file(root)) for root in sorted(roots))


def in_home(home, code, *options):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return run(home / "bin/python", *options, "-c", code, env=clean, cwd=home)


EITHER = pytest.mark.parametrize(
    "home", [("wheel", ()), ("sdist", ())], ids=["wheel", "sdist"], indirect=True
)
WHEEL = pytest.mark.parametrize("home", [("wheel", ())], ids=["wheel"], indirect=True)
WITH_EXTRAS = pytest.mark.parametrize("home", [("wheel", ("cli", "plot"))], indirect=True)


def test_the_sdist_builds_the_same_wheel(wheel, wheel_of_sdist):
    assert wheel.name == wheel_of_sdist.name
    assert wheel.read_bytes() == wheel_of_sdist.read_bytes()


def test_the_wheel_holds_the_package_its_types_and_its_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"dist_sched-{dist_sched.__version__}.dist-info"
    assert {"dist_sched", info} == {name.split("/")[0] for name in names}
    assert {"dist_sched/py.typed", f"{info}/licenses/LICENSE"} <= names


def test_the_sdist_holds_what_the_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "tests/helpers.py", "docs/guide.md", "scripts/test.sh"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "demo-output"))]


def test_an_index_accepts_both(wheel, sdist):
    pytest.importorskip("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)


def test_the_contents_of_the_wheel_are_in_order(wheel):
    pytest.importorskip("check_wheel_contents")
    assert "OK" in run(sys.executable, "-m", "check_wheel_contents", wheel)


def test_an_index_shows_no_relative_link_or_picture(about):
    description = re.sub(r"```.*?```", "", about.get_payload(), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)|\b(?:src|srcset|href)=\"([^\"]+)", description)
    links = [markdown or html for markdown, html in found]
    assert links
    assert [] == [link for link in links if not link.startswith(("https://", "#"))]


def test_links_of_the_readme_lead_to_files_of_this_version(about):
    base = rf"{PROJECT['urls']['Homepage']}/blob/v{dist_sched.__version__}/([^)#\s\"]+)"
    paths = re.findall(base, about.get_payload())
    assert paths
    assert [] == [path for path in paths if not (ROOT / path).exists()]


def test_every_classified_python_is_allowed(about):
    from packaging.specifiers import SpecifierSet

    allowed = SpecifierSet(about["Requires-Python"])
    found = re.findall(r"Python :: (3\.\d+)", "\n".join(about.get_all("Classifier")))
    assert ["3.11", "3.12", "3.13", "3.14"] == found
    assert all(version in allowed for version in found)
    assert "3.10" not in allowed


@EITHER
def test_every_public_name_is_there_after_a_clean_installation(home):
    names = "[getattr(dist_sched, name) for name in dist_sched.__all__]"
    code = f"import dist_sched; {names}; print(dist_sched.__version__)"
    assert f"{dist_sched.__version__}\n" == in_home(home, code, "-W", "error")


@WHEEL
def test_a_checkpoint_is_saved_and_restored_after_a_clean_installation(home):
    code = """
import io, torch
from dist_sched import ParamScheduler, schedules
def build():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return ParamScheduler(optimizer, {"lr": schedules.linear(1.0, 100)})
scheduler, file = build(), io.BytesIO()
scheduler.seek(50)
torch.save(scheduler.state_dict(), file)
file.seek(0)
again = build()
again.load_state_dict(torch.load(file, weights_only=True))
print(again.get_last_lr())
"""
    assert "[0.5]\n" == in_home(home, code)


WITHOUT_EXTRAS = [
    ("from dist_sched.cli import main; main()", "cli"),
    ("import dist_sched as d; d.plot(d.schedules.linear(1.0, 100))", "plot"),
    ("import dist_sched; dist_sched.from_config([], 'run.yaml')", "yaml"),
]


@WHEEL
@pytest.mark.parametrize("code, extra", WITHOUT_EXTRAS)
def test_what_needs_an_extra_names_one_that_exists(home, about, code, extra):
    (home / "run.yaml").write_text("fields: {}")
    attempt = f"try:\n    {code}\nexcept (Exception, SystemExit) as error:\n    print(error)"
    assert f"pip install 'dist-sched[{extra}]'" in in_home(home, attempt)
    assert extra in about.get_all("Provides-Extra")


@WITH_EXTRAS
def test_the_command_prints_its_version(home):
    assert f"dist-sched, version {dist_sched.__version__}\n" == run(
        home / "bin/dist-sched", "--version"
    )


@WITH_EXTRAS
def test_the_extras_of_the_command_bring_all_that_it_needs(home):
    (home / "run.yaml").write_text("fields: {lr: {schedule: linear, peak: 1.0, horizon: 100}}")
    run(home / "bin/dist-sched", "plot", "run.yaml", "-o", "run.png", cwd=home)
    run(home / "bin/dist-sched", "plot", "run.yaml", cwd=home)
    assert (home / "run.png").stat().st_size > 0
