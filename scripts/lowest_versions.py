"""Print the lowest version that pyproject.toml allows of each requirement, one pin a line.

    python scripts/lowest_versions.py > constraints-lowest.txt

It prints the requirements of the library and of the extras for users: `cli`, `plot` and `yaml`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("cli", "plot", "yaml")
_BOUND = re.compile(r"(?P<name>[\w-]+)>=(?P<version>[\w.]+)")


def lowest_versions(project: dict[str, dict[str, list[str]]]) -> dict[str, str]:
    """Return the lowest version by name.

    Raises:
        ValueError: a requirement has no lowest version.
    """
    groups = [project["dependencies"], *(project["optional-dependencies"][key] for key in EXTRAS)]
    found: dict[str, str] = {}
    for requirement in (requirement for group in groups for requirement in group):
        if requirement.startswith("dist-sched["):
            continue
        match = _BOUND.match(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lowest version: write {requirement}>=…")
        found[match["name"]] = match["version"]
    return found


def main() -> None:
    """Print the pins."""
    path = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    for name, version in sorted(lowest_versions(project).items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
