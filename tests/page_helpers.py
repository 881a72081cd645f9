"""Pages whose blocks are run from top to bottom, with what they show compared."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from dist_sched.cli import application

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shown:
    """Output that a page shows, and what was printed and logged there."""

    after: str
    """The code."""
    lines: list[str]
    printed: list[str]

    def missing(self):
        """Return the lines that were not printed, in this order, as the page has them."""
        rest = iter(self.printed)
        return [line for line in self.lines if line not in rest]


def sections(page):
    """Return by heading of level 2 the text below it; what is above the first is the set-up's."""
    parts = re.split(r"^## (.*)$", (ROOT / page).read_text(), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def blocks_of(text, language):
    """Return the blocks of a language in some text."""
    return [block for kind, block in _BLOCK.findall(text) if kind == language]


def run_sections(page):
    """Run the blocks of each section with the names of the set-up, and return what is shown.

    A block of YAML is written to the file that its first line names. The lines of a block of text
    are among those that the block before it printed and logged. Of a console, those below a command
    are what the command prints.
    """
    texts = sections(page)
    start = {"__name__": "example"}
    shown = _run(page, texts.pop(""), start)
    for text in texts.values():
        shown += _run(page, text, dict(start))
    return shown


def _run(page, text, names):
    shown, last, printed = [], "", ""
    for kind, block in _BLOCK.findall(text):
        if kind == "python":
            last, printed = block, output_of(exec, compile(block, page, "exec"), names)
        elif kind == "yaml":
            Path(block.splitlines()[0].removeprefix("# ")).write_text(block)
        elif kind == "text":
            shown.append(Shown(last, _lines(block), _lines(printed)))
        elif kind == "console":
            for part in block.split("$ ")[1:]:
                command, _, expected = part.partition("\n")
                output = output_of(application.run, shlex.split(command)[1:])
                shown.append(Shown(command, _lines(expected), _lines(output)))
    return shown


def _lines(text):
    folder = f"{Path.cwd()}/"
    return [line.rstrip().replace(folder, "") for line in text.splitlines() if line.strip()]


def output_of(function, *arguments):
    """Return what a call prints, and what dist_sched logs from INFO on."""
    logger, output = logging.getLogger("dist_sched"), io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            function(*arguments)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
    return output.getvalue()
