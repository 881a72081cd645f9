"""Build the site of the documentation, strictly: `python scripts/build_site.py`.

Writes `site/`, or the folder that is given. The pages are those of `docs/`, `CHANGELOG.md` and
`CONTRIBUTING.md`, and one for each other file of the repository to which a page links. A link to
nothing, or to a part of a page that does not exist, is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
FROM_THE_ROOT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FILES = "files"
"""The folder of the site with a page for each file that is no page of the documentation."""
_CODE = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_LANGUAGES = {".md": "markdown", ".py": "python", ".sh": "bash"}


def page_of(path: str) -> str:
    """Return where the site has a file of the repository, both relative to their roots."""
    if path in FROM_THE_ROOT:
        return FROM_THE_ROOT[path]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return f"{FILES}/{path}.md"


def linked(text: str, path: str) -> list[str]:
    """Return the files and folders of the repository to which a page links."""
    return [_resolve(link, path) for link in _LINK.findall(_CODE.sub("", text))]


def _resolve(link: str, path: str) -> str:
    return os.path.normpath(PurePosixPath(path).parent / link)


def staged(text: str, path: str) -> str:
    """Return a page as the site has it: with links to where that has what they lead to."""
    here = PurePosixPath(page_of(path)).parent

    def relative(match: re.Match[str]) -> str:
        target = _resolve(match[1], path)
        return os.path.relpath(page_of(target), here) if (ROOT / target).exists() else match[1]

    parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)\s*?$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [_LINK.sub(relative, part) for part in parts[::2]]
    return "".join(parts)


def shown(path: str) -> str:
    """Return a page that shows a file of the repository, or what is in a folder."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    file = ROOT / path
    if file.is_dir():
        names = sorted(entry.name for entry in file.iterdir() if not entry.name.startswith("_"))
        return head + "".join(f"- `{name}`\n" for name in names)
    language = _LANGUAGES.get(file.suffix, file.suffix.removeprefix("."))
    return f"{head}````{language}\n{file.read_text().rstrip()}\n````\n"


def stage(folder: Path) -> None:
    """Write the pages of the site into a folder."""
    shutil.copytree(ROOT / "docs", folder)
    pages = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "docs").rglob("*.md"))]
    others = set()
    for path in [*pages, *FROM_THE_ROOT]:
        text = (ROOT / path).read_text()
        (folder / page_of(path)).write_text(staged(text, path))
        others |= {target for target in linked(text, path) if page_of(target).startswith(FILES)}
    for path in sorted(others):
        if (ROOT / path).exists():
            file = folder / page_of(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(shown(path))


def build(site: Path) -> None:
    """Build the site into a folder, whose contents are replaced.

    Raises:
        subprocess.CalledProcessError: The generator has refused it, and printed why.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage(folder / "docs")
        shutil.copy(ROOT / "zensical.toml", folder)
        (folder / "src").symlink_to(ROOT / "src")
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        subprocess.run(command, cwd=folder, check=True)
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(folder / "site", site)


def main() -> int:
    """Build, and return the code to exit with."""
    parser = argparse.ArgumentParser(description="Build the site of the documentation, strictly.")
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "site", help="its folder")
    site = parser.parse_args().site
    try:
        build(site)
    except subprocess.CalledProcessError as error:
        return error.returncode
    print(f"open {site / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
