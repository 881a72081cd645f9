"""The gallery builds what it shows: code, YAML and pictures have the same curves."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from dist_sched import Phase, Schedule, schedules
from dist_sched._config import files
from dist_sched._config.specification import Specification
from dist_sched._config.views import tracks

SCRIPT = Path(__file__).parents[1] / "scripts" / "draw_gallery.py"


def load():
    spec = importlib.util.spec_from_file_location("draw_gallery", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gallery = load()
ENTRIES = [pytest.param(code, data, id=heading) for _, heading, code, data in gallery.sections()]
PICTURES = ["named.png", "operations.png", "shapes.png"]
PAGE = gallery.PAGE.read_text()


def values(config, positions):
    return {track.label: track.values(positions) for track in tracks(config)}


@pytest.mark.parametrize("code, data", ENTRIES)
def test_code_and_yaml_of_an_entry_build_the_same_curves(code, data):
    built = {"Phase": Phase, "Schedule": Schedule, "schedules": schedules}
    exec(code, built)  # noqa: S102
    read = files.read(gallery.config_of(data)).config
    fields, extras = ({name: built[name] for name in part} for part in (read.fields, read.extras))
    end = max(round(track.horizon) for track in tracks(read))
    positions = [end * part // 400 for part in range(401)]
    expected = values(Specification.of(fields, extras=extras), positions)
    close = {name: pytest.approx(one, rel=1e-12, abs=1e-18) for name, one in expected.items()}
    assert close == values(read, positions)


def test_every_named_schedule_has_a_panel():
    titles = [panel.split("\n")[-1].lower() for panel in gallery.read(gallery.IMAGES / "named.png")]
    drawn = {re.sub(r"\W", "_", title) for title in titles}
    assert [] == sorted(set(schedules.NAMED) - drawn)


def test_every_entry_has_a_row_with_a_source_in_the_table():
    rows = re.findall(r"^\| .+ \| \[(.+)\]\(#(.+)\) \| .*\[.+\]\(.+\) \|$", PAGE, re.MULTILINE)
    headings = [heading for _, heading, _, _ in gallery.sections()]
    anchors = [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]
    assert sorted(zip(headings, anchors, strict=True)) == sorted(rows)


def test_the_page_shows_every_picture():
    assert PICTURES == sorted(gallery.pictures())
    assert PICTURES == sorted(re.findall(r"\]\(images/(.+)\)", PAGE))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_the_curves_that_the_code_has_now(name):
    now, shown = gallery.pictures()[name], gallery.read(gallery.IMAGES / name)
    again = "run python scripts/draw_gallery.py, and look at the picture"
    assert [*now] == [*shown], again
    # Values are rounded to 1e-4, less than a picture can show.
    changed = [
        panel
        for panel, lines in now.items()
        if {line: pytest.approx(one, abs=1.5e-4) for line, one in lines.items()} != shown[panel]
    ]
    assert [] == changed, again


def test_a_picture_is_drawn_the_same_each_time_and_holds_its_values(tmp_path):
    panels = {"first": {"lr": [0.0] * 201, "momentum": [1.0] * 201}}
    content = gallery.render(panels)
    (tmp_path / "first.png").write_bytes(content)
    assert content == gallery.render(panels)
    assert panels == gallery.read(tmp_path / "first.png")
