"""Check that a tag, the version and CHANGELOG.md say the same, before a release is published.

python scripts/check_release.py v0.2.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(tag: str, package: str, changelog: str) -> list[str]:
    """Return what keeps a tag from being released, given the texts of `__init__` and changelog."""
    found = re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)
    version = found[1] if found else "nothing"
    heading = re.search(rf"^## \[{re.escape(version)}\] - (.+)$", changelog, re.MULTILINE)
    result = []
    if tag != f"v{version}":
        result.append(f"the tag is {tag}, and __version__ says {version}: tag v{version}")
    if heading is None:
        result.append(f"CHANGELOG.md has no section [{version}]")
    elif not re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading[1]):
        result.append(f"[{version}] in CHANGELOG.md says {heading[1]!r}: write the date")
    return result


def main() -> int:
    """Print the problems, and return the exit status."""
    package = (ROOT / "src/dist_sched/__init__.py").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = problems(sys.argv[1], package, changelog)
    print("\n".join(found) or "tag, version and changelog agree")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
