"""Plotting: what is in the figures, and in the files that they are written to."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_sched import ConfigError, OptimizerParamScheduler, ParamScheduler, Phase, Schedule
from dist_sched import schedules as named
from dist_sched.plotting import layers, plot, write
from dist_sched.views import brief, sampled, short

WSD = named.wsd(3e-4, 100_000, warmup=2000, tail=20_000)
SEEDS = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 100,
    "lr_decay_steps": 5000,
    "lr_decay_style": "inverse-square-root",
    "start_wd": 0.1,
    "end_wd": 0.1,
    "wd_incr_steps": 0,
    "wd_incr_style": "constant",
}


def optimizer():
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "name": name} for name in ("embed", "body")
    ]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9, weight_decay=0.1)


def param_scheduler():
    fields = {"lr": WSD, "weight_decay": named.coupled(0.1), "momentum": 0.9}
    return ParamScheduler(optimizer(), fields, groups={"embed": {"lr": 0.1}}, unit="tokens")


def curves(axes):
    return [line for line in axes.lines if line.get_label().startswith(" ")]


def dots(axes):
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_label() == "_position"
    ]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def drawn(line):
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def boxes(figure):
    renderer = figure.canvas.get_renderer()
    every = [text for axes in figure.axes for text in axes.texts] + figure.texts
    return [text.get_window_extent(renderer) for text in every if text.get_text()]


def test_each_field_has_a_panel_with_its_name_and_the_last_has_the_unit():
    axes = plot(param_scheduler()).axes
    assert ["lr", "weight_decay", "momentum"] == [one.get_ylabel() for one in axes]
    assert "position (tokens); horizon 100k" == axes[-1].get_xlabel()


def test_the_panels_share_the_axis_of_positions_which_ends_past_the_horizon():
    limits = {axes.get_xlim() for axes in plot(param_scheduler()).axes}
    assert {(0, 105_000)} == limits


def test_a_curve_has_the_very_values_that_train_at_its_joins_and_beside_them():
    scheduler = param_scheduler()
    (line,) = curves(plot(scheduler).axes[0])
    values = drawn(line)
    for position in (0, 1, 1999, 2000, 2001, 79_999, 80_000, 80_001, 99_999, 100_000, 100_001):
        scheduler.seek(position)
        assert scheduler.optimizer.param_groups[1]["lr"] == values[position]


def test_the_seeds_curve_is_drawn_as_they_step_it_with_its_cliff_upright():
    (line,) = curves(plot(SEEDS).axes[0])
    xs, ys = list(line.get_xdata()), list(line.get_ydata())
    after = xs.index(5001)
    assert [5000, 5001, 5001] == xs[after - 1 : after + 2]
    assert [ys[after - 1], 0.1] == ys[after : after + 2]


def test_the_position_of_a_scheduler_is_marked_with_its_value():
    scheduler = OptimizerParamScheduler(optimizer(), **SEEDS)
    scheduler.seek(50)
    axes = plot(scheduler).axes[0]
    assert [(50, 0.5)] == dots(axes)
    assert "0.5 at 50" in texts(axes)


def test_positions_that_are_asked_for_are_marked_in_every_curve():
    axes = plot([WSD, named.linear(1e-4, 50_000)], at=[1000, 60_000]).axes[0]
    assert [(1000, 1.5e-4), (1000, 9.8e-5), (60_000, 3e-4), (60_000, 0)] == dots(axes)


def test_late_changes_of_a_scheduler_are_in_its_picture():
    scheduler = param_scheduler()
    scheduler.seek(50_000)
    scheduler.cooldown(1000)
    (line,) = curves(plot(scheduler).axes[0])
    assert 0 == drawn(line)[51_000]


def test_phases_are_named_and_shaded():
    axes = plot(WSD).axes[0]
    assert ["constant", "minus_sqrt", "◂ linear", ""] == texts(axes)
    shaded = [(patch.get_x(), patch.get_width()) for patch in axes.patches]
    assert [(0, 2000), (80_000, 20_000)] == shaded[:2]


def test_groups_are_drawn_where_they_are_asked_for():
    without, with_groups = (plot(param_scheduler(), groups=asked) for asked in (False, True))
    assert [1, 1, 1] == [len(curves(axes)) for axes in without.axes]
    assert [2, 1, 1] == [len(curves(axes)) for axes in with_groups.axes]
    assert {"all other groups", "groups[embed]"} == {text.get_text() for text in with_groups.texts}


def test_several_are_laid_over_each_other_in_looks_of_their_own():
    figure = plot({"a": SEEDS, "b": {**SEEDS, "max_lr": 2.0}, "c": named.linear(1.0, 100)})
    lines = curves(figure.axes[0])
    assert 3 == len({(line.get_color(), line._unscaled_dash_pattern[1]) for line in lines})
    assert ["a", "b", "c"] == [text.get_text() for text in figure.texts]


def test_names_can_be_given_for_several():
    figure = plot([WSD, WSD], names=["one", "two"])
    assert ["one", "two"] == [text.get_text() for text in figure.texts]


def test_what_looks_like_a_formula_is_a_name():
    figure = plot([WSD, WSD], names=["$x^2$", "_hidden"])
    figure.canvas.draw()
    assert ["$x^2$", "_hidden"] == [text.get_text() for text in figure.texts]


def test_a_path_is_drawn(tmp_path):
    (tmp_path / "a.json").write_text('{"fields": {"lr": 0.5}, "unit": "samples"}')
    (axes,) = plot(tmp_path / "a.json").axes
    assert ("lr", "position (samples)") == (axes.get_ylabel(), axes.get_xlabel())
    assert {0.5} == set(curves(axes)[0].get_ydata())


def test_a_logarithmic_axis_leaves_zeros_off():
    axes = plot(WSD, log=True).axes[0]
    assert ("log", "value\n(log, 0 off axis)") == (axes.get_yscale(), axes.get_ylabel())
    assert 3e-9 <= 3 * axes.get_ylim()[0]


def test_what_is_0_throughout_has_no_logarithmic_axis():
    (axes,) = plot({"fields": {"weight_decay": 0.0}}, log=True).axes
    assert "linear" == axes.get_yscale()


@pytest.mark.parametrize("horizon", [1, 2, 10, 1_500_000_000, 2**53])
def test_every_horizon_is_inside_the_picture(horizon):
    figure = plot(named.linear(1.0, horizon))
    (line,) = curves(figure.axes[0])
    assert 0 == drawn(line)[horizon]
    assert horizon < figure.axes[0].get_xlim()[1]
    figure.canvas.draw()


CROWDED = {
    "cycles": lambda: plot(named.wsd_s(1, 120, tail=2, ends=range(10, 120, 10)), at=33),
    "cosine": lambda: plot(SEEDS, at=[0, 4999, 5000, 5001]),
    "forks": lambda: plot([WSD.cooldown(at, 5000) for at in (10_000, 40_000, 80_000)], at=15_000),
    "groups": lambda: plot(param_scheduler(), groups=True, at=[1, 2000, 50_000], log=True),
    "many": lambda: plot([named.cosine(i + 1, 100, warmup=3) for i in range(12)], at=[50, 52]),
}


@pytest.mark.parametrize("name", CROWDED)
def test_no_text_covers_another_or_leaves_the_page(name):
    figure = CROWDED[name]()
    found = boxes(figure)
    pairs = ((a, b) for i, a in enumerate(found) for b in found[:i])
    assert [] == [(a, b) for a, b in pairs if a.overlaps(b)]
    page = figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1 for box in found)


def test_phases_that_are_too_many_to_see_are_counted():
    figure = plot(named.cyclic(1.0, 20_000, up=2, down=2))
    assert "10,000 phases: linear, linear, " == texts(figure.axes[0])[0][:31]


def test_a_picture_changes_no_global_state_of_matplotlib():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plot(WSD)
    assert before == dict(mpl.rcParams)


REFUSED = {
    "what=3 is illegal|what": (3, {}),
    "at least one": ([], {}),
    "at": (WSD, {"at": -1}),
    "2\\*\\*53": (WSD, {"at": 2**53 + 1}),
    "list of 1": (WSD, {"names": ["a", "b"]}),
    "counts steps; .* counts tokens": ([SEEDS, {**SEEDS, "unit": "tokens"}], {}),
    "must end in one of": ("no.txt", {}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_drawn_is_refused(message):
    what, keywords = REFUSED[message]
    with pytest.raises(ConfigError, match=message):
        plot(what, **keywords)


def test_a_png_is_a_picture_at_200_dots_an_inch(tmp_path):
    write(tmp_path / "a.png", layers(WSD))
    assert (1400, 4) == matplotlib.image.imread(tmp_path / "a.png").shape[1:]


def test_an_svg_is_xml_that_refers_to_nothing_outside(tmp_path):
    write(tmp_path / "a.svg", layers(WSD))
    text = (tmp_path / "a.svg").read_text()
    assert "{http://www.w3.org/2000/svg}svg" == ET.fromstring(text).tag  # noqa: S314 - our own
    assert [] == re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)|<!DOCTYPE|@import', text)


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tables, self.found = [], 0, []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - the parser's
        assert tag not in {"script", "link", "img", "iframe"}
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "title"}:
            self.found.append(data)


def test_an_html_page_has_a_title_the_picture_and_a_table_of_phases(tmp_path):
    write(tmp_path / "a.html", layers({"<b>": WSD}))
    text = (tmp_path / "a.html").read_text()
    parser = Cells()
    parser.feed(text)
    row = ["value", "linear", "0", "2,000", "0", "3e-4"]
    assert ["<b>", *row] == [cell for cell in parser.found if cell.strip()][:7]
    assert "<svg" in text
    assert [] == re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)|@import', text)


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        write(tmp_path / name, layers(WSD))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing/a\.svg: cannot be written: No such file"):
        write(tmp_path / "missing" / "a.svg", layers(WSD))


@settings(max_examples=100, deadline=None, database=None)
@given(st.integers(1, 2**53), st.lists(st.floats(0, 2**53), max_size=20), st.integers(3, 2000))
def test_positions_are_whole_in_order_few_and_at_every_join(end, joins, most):
    found = sampled(end, joins, most)
    assert (0, end) == (found[0], found[-1])
    assert all(before < after for before, after in pairwise(found))
    assert len(found) <= max(most, most // 3 + 5 * len(joins) + 2)
    wanted = {int(join) + more for join in joins for more in (-1, 0, 1)}
    assert {one for one in wanted if 0 <= one <= end} <= set(found)


def test_positions_and_values_are_written_short():
    assert ["0", "999", "1k", "12.5k", "1.5B"] == [*map(short, (0, 999, 1000, 12_500, 1.5e9))]
    assert ["0", "0.05", "1e-3", "2.5e-4"] == [*map(brief, (0, 0.05, 0.001, 0.00025))]


def test_a_schedule_of_phases_that_jump_holds_its_value_until_the_jump():
    steps = Schedule([Phase("constant", 5, 1.0, 1.0), Phase("constant", 5, 0.5, 0.5)])
    line = curves(plot(steps).axes[0])[0]
    at = [y for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if x == 5]
    assert [1.0, 0.5] == at
