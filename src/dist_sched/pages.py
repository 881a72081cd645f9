"""Pages: pictures as the content of files: .png, .svg, and .html with a table of the phases."""

from __future__ import annotations

import html
import io
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dist_sched import plotting
from dist_sched._config.views import brief
from dist_sched._rules import listed
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

    from dist_sched._config.views import Span
    from dist_sched.layers import Layer

ENDINGS = (".png", ".svg", ".html")
"""The pictures that can be written."""


def check_ending(path: str | os.PathLike[str]) -> str:
    """Give how a file's name ends, if that can be written.

    Raises:
        ConfigError: It cannot.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{os.fspath(path)}: the name must end in one of {listed(ENDINGS)}")
    return ending


def rendered(
    path: str | os.PathLike[str], given: Sequence[Layer], *, log: bool = False
) -> tuple[bytes, list[str]]:
    """Give the content of a picture's file, by how its name ends, and notes on it for people.

    Raises:
        ConfigError: It ends otherwise.
        ImportError: matplotlib is not installed.
    """
    ending = check_ending(path)
    figure = plotting.drawn(given, log=log)
    if ending == ".png":
        return _png(figure), _notes(given)
    svg = _svg(figure)
    if ending == ".svg":
        return f'<?xml version="1.0" encoding="utf-8"?>\n{svg}'.encode(), []
    return _page(svg, given).encode(), []


def _notes(given: Sequence[Layer]) -> list[str]:
    lacking = plotting.lacking(given)
    if not lacking:
        return []
    remedy = "install one, or write .svg or .html, where the viewer's fonts are used"
    return [f"no installed font has the letters {lacking}, which are drawn as boxes: {remedy}"]


@contextmanager
def _no_glyph_warnings() -> Iterator[None]:
    """Silence what matplotlib says of each letter that a font lacks; `_notes` says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from")
        yield


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with _no_glyph_warnings():
        figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def _svg(figure: Figure) -> str:
    """Give a figure as an svg element that refers to nothing outside, its texts as texts."""
    import matplotlib as mpl

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    looks: Any = {"svg.hashsalt": "dist_sched", "svg.fonttype": "none"}
    with mpl.rc_context(looks), _no_glyph_warnings():
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; max-width: 56em; margin: 1em auto; padding: 0 1em; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2em .9em .2em 0; border-bottom: 1px solid #ddd; text-align: left; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{title}</h1>
{svg}
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</body>
</html>
"""

_COLUMNS = ("", "field", "phase", "begins", "ends", "first value", "last value")
_NUMBERS = 3
"""From this column on there are numbers."""
_CLASS = ' class="number"'


def _page(svg: str, given: Sequence[Layer]) -> str:
    """Give a page with a picture, and a table of the phases."""
    told = [
        (layer.name, track.label, span.name, *_numbers(span, track.factor))
        for layer in given
        for track in layer.tracks
        for span in track.spans
    ]
    first = 0 if len(given) > 1 else 1
    title = ", ".join(layer.name for layer in given if layer.name) or "schedule"
    return _PAGE.format(
        title=html.escape(title),
        svg=svg,
        head=_cells("th", _COLUMNS, first),
        body="\n".join(f"<tr>{_cells('td', row, first)}</tr>" for row in told),
    )


def _numbers(span: Span, factor: float) -> tuple[str, ...]:
    values = brief(span.first * factor), brief(span.last * factor)
    return f"{span.begin:,}", f"{span.end:,}", *values


def _cells(tag: str, row: Sequence[str], first: int) -> str:
    return "".join(
        f"<{tag}{_CLASS if index >= _NUMBERS else ''}>{html.escape(text)}</{tag}>"
        for index, text in enumerate(row)
        if index >= first
    )
