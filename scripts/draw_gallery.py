"""Draw the pictures of docs/gallery.md: the schedules of its YAML, and all shapes.

    python scripts/draw_gallery.py

A picture holds the values that it shows, which the tests compare with those of the code. Whoever
adds a shape or an entry of the page, or changes a curve, draws again.
"""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dist_sched import Phase, Schedule, schedules
from dist_sched._config import files, views
from dist_sched._curves.shapes import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.axes import Axes

Lines = dict[str, list[float]]
"""Values over the peak at equally spaced positions, by the name of the curve."""
Panels = dict[str, Lines]

PAGE = Path(__file__).parents[1] / "docs" / "gallery.md"
IMAGES = PAGE.parent / "images"
NAMED = "Named schedules"
"""The section whose entries have one named schedule each."""
KEY = "values"
"""The text of a picture's file that holds its panels."""

_POSITIONS = 200
_COLUMNS = 4
_PANEL = 1.75, 1.55  # inches
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2"},
    {"color": "#D55E00", "dashes": (4, 1.5)},
)
_LEGEND: dict[str, Any] = {"fontsize": 6.5, "frameon": False, "handlelength": 1.8, "borderpad": 0}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "polynomial": {"power": 2},
    "minus_power": {"power": 2},
    "exponential_to_zero": {"ratio": 0.05},
    "inverse_sqrt": {"timescale": 10},
    "inverse": {"timescale": 10},
    "power_law": {"power": 2, "timescale": 50},
    "multistep": {"milestones": (50, 100, 150)},
    "log": {"timescale": 1},
    "rex": {"beta": 0.5},
}
"""What shapes are drawn with, of 200 units; others have no parameters."""
_LOWEST = {"exponential": 0.05, "multistep": 0.05, "half_life": 0.5, "constant": 1.0}
"""The lower end, where it cannot be 0."""
_HIGHEST = {"half_life": 0.99}
"""The upper end, where it cannot be 1."""


def sections() -> Iterator[tuple[str, str, str, Any]]:
    """Yield section, heading, Python and YAML of each entry of the page."""
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        for entry in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
            (code,), (text,) = (
                re.findall(rf"```{language}\n(.*?)```", entry, re.DOTALL)
                for language in ("python", "yaml")
            )
            yield section.splitlines()[0], entry.splitlines()[0], code, yaml.safe_load(text)


def config_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry's YAML as a config; one without `fields` is fields of a run of 100k."""
    return dict(data) if "fields" in data else {"horizon": "100k", "fields": data}


def shape_panels() -> Panels:
    """Return a panel for each built-in shape: a fall and a rise.

    Raises:
        ConfigError: A shape lacks a parameter; `_PARAMETERS` may give it.
    """
    panels = {}
    for name in (one for one in schedules.shapes() if shape_of(one).origin is None):
        given = _PARAMETERS.get(name, {})
        words = [f"{key}={value!r}".replace(", ", ",") for key, value in given.items()]
        low, high = _LOWEST.get(name, 0.0), _HIGHEST.get(name, 1.0)
        ends = {"fall": (high, low), "rise": (low, high)}
        panels["\n".join([name, *words])] = {
            line: _values(Schedule([Phase(name, _POSITIONS, end, start, **given)]), _POSITIONS)
            for line, (start, end) in ends.items()
        }
    return panels


def entry_panels(section: str) -> Panels:
    """Return a panel for each entry of a section of the page.

    A named schedule's own name is below a heading that says something else.
    """
    panels = {}
    for its_section, heading, _, data in sections():
        if its_section == section:
            tracks = views.tracks(files.read(config_of(data)).config)
            end = max(round(track.horizon) for track in tracks)
            name = data["lr"].get("schedule", "piecewise") if section == NAMED else ""
            is_said = name in ("", re.sub(r"\W", "_", heading.lower()))
            title = heading if is_said else f"{heading}\n{name}"
            panels[title] = {track.label: _values(track.curve, end) for track in tracks}
    return panels


def pictures() -> dict[str, Panels]:
    """Return the panels of each picture, by the name of its file."""
    return {
        "named.png": entry_panels(NAMED),
        "operations.png": entry_panels("Operations"),
        "shapes.png": shape_panels(),
    }


def read(picture: Path) -> Panels:
    """Return the panels that a picture shows.

    Raises:
        KeyError: The picture holds no values, as when a tool has made its file smaller.
    """
    with Image.open(picture) as image:
        panels: Panels = json.loads(image.info[KEY])
    return panels


def render(panels: Panels) -> bytes:
    """Return the content of a picture's file, with its panels as a text in it."""
    rows = math.ceil(len(panels) / _COLUMNS)
    width, height = _PANEL
    figure = Figure((_COLUMNS * width, rows * height + 0.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.supxlabel("position over the horizon", fontsize=8)
    figure.supylabel("value over the peak", fontsize=8)
    has_one_legend = len({tuple(lines) for lines in panels.values()}) == 1
    for index, (title, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, _COLUMNS, index)
        _draw_panel(axes, title, lines)
        if len(lines) == 1:
            continue
        if not has_one_legend:
            axes.legend(bbox_to_anchor=(0.06, 0, 0.94, 1), **_LEGEND)
        elif index == 1:
            looks: Any = {"loc": "outside upper center", "ncols": len(lines), **_LEGEND}
            figure.legend(*axes.get_legend_handles_labels(), **looks)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    texts = PngInfo()
    texts.add_text(KEY, json.dumps(panels), zip=True)
    small = io.BytesIO()
    # A palette makes the file a third as large.
    Image.open(buffer).convert("RGB").quantize(64).save(small, "png", optimize=True, pnginfo=texts)
    return small.getvalue()


def _draw_panel(axes: Axes, title: str, lines: Lines) -> None:
    places = [number / _POSITIONS for number in range(_POSITIONS + 1)]
    for index, (name, values) in enumerate(lines.items()):
        axes.plot(places, values, label=name, linewidth=1.4, **_STYLES[index])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.06), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=6, length=2)
    axes.set_xlabel(title, fontsize=8)


def main() -> None:
    """Draw all pictures."""
    for name, panels in pictures().items():
        content = render(panels)
        (IMAGES / name).write_bytes(content)
        print(f"{name}: {len(panels)} panels, {len(content):,} bytes")


def _values(curve: Any, end: int) -> list[float]:
    peak = curve.max_value
    positions = (round(end * number / _POSITIONS) for number in range(_POSITIONS + 1))
    return [round(curve(position) / peak, 4) for position in positions]


if __name__ == "__main__":
    main()
