"""Measure what dist_sched costs, beside its peers in the same run, and print one table.

    bash scripts/bench.sh --quick
    bash scripts/bench.sh step load

Medians of rounds in which all take turns. A bar that is missed is printed as missed. A full run of
all subjects also writes the tables into docs/benchmarks.md, and one of `scaling` its own page.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import peers, table, timing

if TYPE_CHECKING:
    from collections.abc import Sequence

SUBJECTS = (
    "step",
    "update",
    "optimizers",
    "gpu",
    "load",
    "storage",
    "index",
    "state",
    "preview",
    "command",
    "memory",
)
ON_REQUEST = ("scaling",)
"""Subjects with a page of their own, which are measured only if they are named."""
DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def measure(subjects: Sequence[str], *, is_quick: bool) -> list[table.Result]:
    """Measure subjects, and say on stderr how long each took."""
    results = []
    for name in subjects:
        begin = time.perf_counter()
        module = importlib.import_module(f"benchmarks.{name}")
        results.append(module.result(is_quick=is_quick))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return results


def summary(results: Sequence[table.Result]) -> str:
    """Return how many bars are met, as a line."""
    verdicts = [row.is_met for one in results for row in one.rows if row.most is not None]
    met, missed = verdicts.count(True), verdicts.count(False)
    absent = verdicts.count(None)
    return f"{met} bars are met, {missed} are missed" + (
        f", {absent} were not measured." if absent else "."
    )


def where() -> str:
    """Return the day and the machine, as a line."""
    today = dt.datetime.now(tz=dt.UTC).date()
    return ", ".join([str(today), *(f"{key} {value}" for key, value in timing.machine().items())])


def report(results: Sequence[table.Result], *, is_markdown: bool) -> str:
    """Return the table of all rows, with the machine and, in Markdown, the details."""
    rows = table.of_rows(row for one in results for row in one.rows)
    lines = table.mark_down(rows) if is_markdown else table.align(rows)
    text = "\n".join([where(), "", summary(results), "", *lines, ""])
    details = [one.details for one in results if one.details] if is_markdown else []
    return "\n".join([text, *details])


def written(page: str, measured: str) -> str:
    """Return a page with other text between its markers.

    Raises:
        ValueError: The page lacks a marker.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must have the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{measured.strip()}\n\n{end}{after}"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        prog="bench.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join([*SUBJECTS, *ON_REQUEST])
    parser.add_argument("subjects", nargs="*", metavar="subject", help=known)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all works")
    options = parser.parse_args()
    if unknown := set(options.subjects) - {*SUBJECTS, *ON_REQUEST}:
        parser.error(f"no subject {', '.join(sorted(unknown))}; there are {known}")
    try:
        results = measure(options.subjects or SUBJECTS, is_quick=options.quick)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}; upstream's classes come with: {peers.INSTALL}")
    print(report(results, is_markdown=False))
    if options.quick:
        return
    if not options.subjects:
        _write("benchmarks", report(results, is_markdown=True))
    for name, one in zip(options.subjects, results, strict=False):
        if name in ON_REQUEST:
            _write(name, f"{where()}\n{one.details}")


def _write(name: str, measured: str) -> None:
    """Write what was measured into its page."""
    page = DOCS / f"{name}.md"
    page.write_text(written(page.read_text(encoding="utf-8"), measured), encoding="utf-8")
    print(f"written to {page}")


if __name__ == "__main__":
    main()
